/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Bytes moved by one system call on one socket: where they are in the user's memory, how many are kept, and the event.
 *
 * A byte is copied only if it is certain to be the socket's: the task's registers must describe this very transfer
 * (a running system call of a kind we know, on a descriptor that is this socket). Else only the length is recorded,
 * with the reason.
 */
#ifndef KFR_SOCKET_TRANSFER_H
#define KFR_SOCKET_TRANSFER_H

#include "filter.h"
#include "../syscalls.h"

/* Most bytes that one event can keep, whatever --payload-limit says. */
#define MAX_KEPT 32768
/*
 * From this payload limit on (the default), as much as MAX_KEPT is kept of what goes to the server: a client library
 * packs many small commands into one call (redis-py 6,000 bytes, go-redis 32 KiB), and what is cut has no name.
 */
#define WHOLE_REQUESTS_FROM 4096
/* Most iovec entries walked; nginx and databases stay well below. */
#define MAX_SEGMENTS 64
/* Most messages of one sendmmsg or recvmmsg (UIO_MAXIOV, include/uapi/linux/uio.h). */
#define MAX_MESSAGES 1024

/* Where a transfer's bytes are. */
struct buffers {
	__u64 base; /* one buffer ... */
	__u64 length;
	__u64 iov; /* ... or a vector of them, when not 0 */
	__u64 iov_count;
	__u64 name; /* datagrams: the address given to the call */
	__u32 name_length;
	__u8 missing; /* MISSING_NOTHING, or why the bytes can't be had */
};

/*
 * One transfer at work; programs here can't be preempted by one another. It lives in a map and not on the stack because
 * values that the verifier doesn't follow keep it from trying each loop once for every way to it.
 */
struct scratch {
	struct buffers at;
	__u32 keep;
	__u32 filled;
	__u64 later; /* bytes of the same call that come after this message */
	/* The event, where it is built outside the ring because its size is not known beforehand. */
	__u8 head[24]; /* so that both kinds of event end where the payload begins */
	struct data_event data;
	__u8 payload[2 * MAX_KEPT];
};

/* One a CPU (the recorder sets how many); a per-CPU map can't hold values of this size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *cpu_scratch(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	return bpf_map_lookup_elem(&scratch, &cpu);
}

static __always_inline void use_message(struct buffers *at, __u64 address)
{
	struct user_message message;
	if (bpf_probe_read_user(&message, sizeof(message), (void *)address)) {
		at->missing = MISSING_FAULT;
		return;
	}
	at->iov = message.iov;
	at->iov_count = message.iov_length;
	at->name = message.name;
	at->name_length = message.name_length;
}

/* A vector of one is a plain buffer. */
static __always_inline void unwrap_single(struct buffers *at)
{
	if (at->missing || !at->iov || at->iov_count != 1)
		return;
	struct user_iovec only;
	if (bpf_probe_read_user(&only, sizeof(only), (void *)at->iov)) {
		at->missing = MISSING_FAULT;
		return;
	}
	at->base = only.base;
	at->length = only.length;
	at->iov = 0;
}

/* Calls that move one message. */
static __always_inline void locate_single(struct buffers *at, struct pt_regs *regs, long number)
{
	switch (number) {
	case NR_READ:
	case NR_WRITE:
	case NR_RECVFROM:
		at->base = PT_REGS_PARM2_SYSCALL(regs);
		at->length = PT_REGS_PARM3_SYSCALL(regs);
		break;
	case NR_SENDTO:
		at->base = PT_REGS_PARM2_SYSCALL(regs);
		at->length = PT_REGS_PARM3_SYSCALL(regs);
		at->name = PT_REGS_PARM5_SYSCALL(regs);
		at->name_length = PT_REGS_PARM6_SYSCALL(regs);
		break;
	case NR_READV:
	case NR_WRITEV:
	case NR_PREADV2:
	case NR_PWRITEV2:
		at->iov = PT_REGS_PARM2_SYSCALL(regs);
		at->iov_count = PT_REGS_PARM3_SYSCALL(regs);
		break;
	case NR_SENDMSG:
	case NR_RECVMSG:
		use_message(at, PT_REGS_PARM2_SYSCALL(regs));
		break;
	case NR_SENDFILE:
	case NR_SPLICE:
		at->missing = MISSING_NO_BUFFER;
		break;
	default:
		at->missing = MISSING_NOT_THIS_CALL;
	}
}

/* Bytes that the connection moved this way before this call, since it last moved any the other way. */
static __always_inline __u32 count_run(struct socket_state *state, __u8 direction, __u32 moved, __u64 now)
{
	if (state->run_direction != direction || now - state->run_start_ns > config.bulk_refill_ns) {
		state->run_direction = direction;
		state->run_start_ns = now;
		state->run_bytes = 0;
	}
	__u32 before = state->run_bytes;
	state->run_bytes = before + moved < before ? ~0U : before + moved;
	return before;
}

/* Bytes to keep of this call, and why not all. `run`: see count_run(). `asks`: they go to the server. */
static __always_inline __u32 budget(__u32 run, __u32 moved, bool asks, struct counters *count, __u8 *missing)
{
	__u32 limit = control.payload_limit;
	if (asks && limit >= WHOLE_REQUESTS_FROM)
		limit = MAX_KEPT;
	if (run >= config.bulk_limit) {
		*missing = MISSING_BULK;
		return 0;
	}
	if (limit > MAX_KEPT)
		limit = MAX_KEPT;
	/* Asking costs as much as a read. As long as there was ample room a moment ago, the next few events can't fill it. */
	if (count->waiting > config.ring_bytes / 4 || !(count->asked++ & config.ask_mask))
		count->waiting = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
	__u64 waiting = count->waiting;
	if (waiting > config.ring_bytes / 2) {
		/* Payload goes first, events last. */
		__u32 shrunk = waiting > config.ring_bytes / 8 * 7 ? 0 : waiting > config.ring_bytes / 4 * 3 ? 128 : 512;
		if (shrunk < limit) {
			if (moved > shrunk) {
				*missing = MISSING_PRESSURE;
				__sync_fetch_and_add(&count->shrunk, 1);
			}
			return moved < shrunk ? moved : shrunk;
		}
	}
	if (moved > limit) {
		*missing = MISSING_LIMIT;
		return limit;
	}
	return moved;
}

static __always_inline void read_name(struct datagram_event *event, const struct buffers *at)
{
	struct user_sockaddr address = {};
	__builtin_memset(event->peer_address, 0, 16);
	event->peer_port = 0;
	event->peer_family = 0;
	event->reserved = 0;
	if (!at->name || at->name_length < 16 || event->data.direction != DIRECTION_SENT)
		return; /* a receiver's copy is written only after this event */
	if (bpf_probe_read_user(&address, at->name_length >= 28 ? 28 : 16, (void *)at->name))
		return;
	if (address.family == AF_INET)
		__builtin_memcpy(event->peer_address, address.rest, 4);
	else if (address.family == AF_INET6 && at->name_length >= 28)
		__builtin_memcpy(event->peer_address, address.rest + 4, 16);
	else
		return;
	event->peer_family = address.family;
	event->peer_port = bpf_ntohs(address.port);
}

/*
 * Emits scratch->data with scratch->keep bytes from several buffers, or a datagram with its address. A global function,
 * which the verifier looks at once, whoever calls it.
 */
__noinline int emit_gathered(__u32 datagram)
{
	struct counters *count = cpu_counters();
	struct scratch *build = cpu_scratch();
	if (!build || !count)
		return 0;
	__u8 missing = build->data.missing;
	build->filled = 0;
	if (!build->at.iov) {
		__u32 take = build->keep;
		if (take > MAX_KEPT)
			take = MAX_KEPT;
		if (take && bpf_probe_read_user(build->payload, take, (void *)build->at.base))
			missing = MISSING_FAULT;
		else
			build->filled = take;
	} else {
		__u64 iov = build->at.iov, segments = build->at.iov_count;
		for (__u32 i = 0; i < MAX_SEGMENTS; i++) {
			struct user_iovec segment;
			__u32 to = build->filled, room = build->keep - to;
			if (to >= build->keep || i >= segments)
				break;
			if (bpf_probe_read_user(&segment, sizeof(segment), (void *)(iov + i * sizeof(segment)))) {
				missing = MISSING_FAULT;
				break;
			}
			__u32 take = segment.length < room ? segment.length : room;
			OPAQUE(take);
			OPAQUE(to);
			if (take > MAX_KEPT)
				take = MAX_KEPT;
			to &= MAX_KEPT - 1; /* filled < keep <= MAX_KEPT: changes nothing */
			if (take && bpf_probe_read_user(build->payload + to, take, (void *)segment.base)) {
				missing = MISSING_FAULT;
				break;
			}
			build->filled += take;
		}
		if (missing == MISSING_NOTHING && build->filled < build->keep)
			missing = segments > MAX_SEGMENTS ? MISSING_SEGMENTS : MISSING_DISCARDED;
	}
	__u64 size = build->filled;
	OPAQUE(size);
	if (size > MAX_KEPT)
		size = MAX_KEPT;
	build->data.kept = size;
	build->data.missing = missing;
	long failed;
	if (datagram) {
		struct datagram_event *event = (struct datagram_event *)build->head;
		struct data_event data = build->data;
		event->data = data; /* moves to the front ... */
		read_name(event, &build->at); /* ... and the address follows it */
		failed = bpf_ringbuf_output(&ring, event, sizeof(*event) + size, BPF_RB_NO_WAKEUP);
	} else {
		failed = bpf_ringbuf_output(&ring, &build->data, sizeof(build->data) + size, BPF_RB_NO_WAKEUP);
	}
	if (failed)
		__sync_fetch_and_add(&count->lost, 1);
	return 0;
}

/*
 * One buffer straight into the ring. Room can only be reserved in sizes that the verifier knows, so there are tiers;
 * `kept` says how much of one is used.
 */
#define EMIT_TIER(capacity)                                                                                         \
	do {                                                                                                        \
		struct {                                                                                            \
			struct data_event data;                                                                     \
			__u8 payload[capacity];                                                                     \
		} *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);                                         \
		if (!record)                                                                                        \
			break;                                                                                      \
		__u64 take = keep;                                                                                  \
		OPAQUE(take);                                                                                       \
		if (take > (capacity))                                                                              \
			take = (capacity);                                                                          \
		record->data = *fields;                                                                             \
		if (bpf_probe_read_user(record->payload, take, (void *)base)) {                                     \
			record->data.kept = 0;                                                                      \
			record->data.missing = MISSING_FAULT;                                                       \
		}                                                                                                   \
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);                                                       \
		return;                                                                                             \
	} while (0)

static __always_inline void emit_single(struct data_event *fields, __u64 base, __u32 keep, struct counters *count)
{
	if (keep == 0) {
		/* nothing but the length */
	} else if (keep <= 64) {
		EMIT_TIER(64);
	} else if (keep <= 256) {
		EMIT_TIER(256);
	} else if (keep <= 1024) {
		EMIT_TIER(1024);
	} else if (keep <= 4096) {
		EMIT_TIER(4096);
	} else if (keep <= 8192) {
		EMIT_TIER(8192);
	} else {
		EMIT_TIER(MAX_KEPT);
	}
	if (keep) {
		/* No room for so much: payload goes first, events last. */
		fields->kept = 0;
		fields->missing = MISSING_PRESSURE;
		__sync_fetch_and_add(&count->shrunk, 1);
	}
	struct data_event *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		__sync_fetch_and_add(&count->lost, 1);
		return;
	}
	*record = *fields;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* True while the other end, on this node, keeps the bytes that this end receives. */
static __always_inline bool peer_keeps(const struct socket_state *state)
{
	__u64 key = state->pair;
	if (!key)
		return false;
#ifdef KFR_SYSCALL_HOOK
	/* A sender that uses io_uring isn't seen: where anybody does, receivers keep what they get. */
	struct hook_state *seen = hook();
	if (!seen || seen->uring_calls)
		return false;
#endif
	struct pair *pair = bpf_map_lookup_elem(&pairs, &key);
	__u32 other = (state->side & 1) ^ 1;
	return pair && (pair->flags & ((PAIR_PRESENT | PAIR_BLIND) << other)) == PAIR_PRESENT << other;
}

/*
 * Emits `fields` (all set but the header, kept and missing) with as many of the bytes at `build->at` as the budget
 * allows; `keep` and `fields->missing` come from budget().
 */
static __always_inline void finish(struct data_event *fields, struct socket_state *state, struct scratch *build,
				   __u32 keep, struct counters *count, __u64 now, bool datagram)
{
	struct buffers *at = &build->at;
	if (at->missing) {
		fields->missing = at->missing;
		keep = 0;
		__u64 key = state->pair;
		if (key && fields->direction == DIRECTION_SENT && at->missing != MISSING_NO_BUFFER) {
			/* The receiver, if it is recorded, must keep what this end could not. */
			struct pair *pair = bpf_map_lookup_elem(&pairs, &key);
			if (pair)
				__sync_fetch_and_or(&pair->flags, PAIR_BLIND << (state->side & 1));
		}
	} else if (!at->iov && keep > at->length) {
		keep = at->length; /* a cut datagram reports more than its buffer holds */
		fields->missing = MISSING_DISCARDED;
	}
	fields->kept = keep;
	fill_header(&fields->header, count, datagram ? KIND_DATAGRAM : KIND_DATA, now);
	if (datagram || (keep && at->iov)) {
		build->data = *fields;
		build->keep = keep;
		emit_gathered(datagram);
	} else {
		emit_single(fields, at->base, keep, count);
	}
}

/*
 * The direction of what goes to the server. Only how much is kept rests on it. Where nobody saw who connected: a port that
 * connect() chose has a bucket with negative `fastreuse` (__inet_hash_connect(), net/ipv4/inet_hashtables.c), one that was
 * bound, as a server's is, never has. Elsewhere the lower port serves, and of unix sockets the one with a name.
 */
static __always_inline __u8 asks_by(const struct sock *sk, const struct socket_state *state)
{
	if (state->role)
		return state->role == ROLE_CLIENT ? DIRECTION_SENT : DIRECTION_RECEIVED;
	if (state->family == AF_UNIX)
		return BPF_CORE_READ((const struct unix_sock *)sk, addr) ? DIRECTION_RECEIVED : DIRECTION_SENT;
	const struct tcp_sock *tcp = tcp_of(sk);
	const struct inet_bind_bucket *bucket = tcp ? BPF_CORE_READ(tcp, inet_conn.icsk_bind_hash) : NULL;
	if (bucket)
		return BPF_CORE_READ(bucket, fastreuse) < 0 ? DIRECTION_SENT : DIRECTION_RECEIVED;
	return BPF_CORE_READ(sk, __sk_common.skc_num) < bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport)) ? DIRECTION_RECEIVED :
														     DIRECTION_SENT;
}

/* The socket's identity, once. */
static __noinline int announce(struct sock *sk, struct socket_state *state, __u64 now)
{
	struct counters *count = cpu_counters();
	if (!count || !state || !sk)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	state->announced = 1;
	state->asks = asks_by(sk, state);
	if ((config.filter_process || config.filter_cgroup || config.filter_port) && !state->pair && state->opened_ns && tcp_of(sk))
		pair_by_sequence(state);
	struct event_header header;
	fill_header(&header, count, KIND_SOCKET, now);
	struct socket_event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
	if (!event) {
		state->announced = 0; /* tried again at the next call */
		__sync_fetch_and_add(&count->lost, 1);
		return 0;
	}
	event->header = header;
	describe(event, sk, state, task, SEEN_BY_DATA);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

#endif
