/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the probes remember of a socket, and how they name it.
 *
 * Two variants, chosen by the including file:
 *   sock hook     the tracepoint hands over a typed socket: state lives in the socket itself (sk_storage) and is freed
 *                 with it; the name is the kernel's socket cookie.
 *   syscall hook  (KFR_SYSCALL_HOOK) the socket is found through the file table and is a plain number to the verifier:
 *                 state lives in a map keyed by its address, the name is a number of our own.
 */
#ifndef KFR_SOCKET_STATE_H
#define KFR_SOCKET_STATE_H

#include "../emit.h"
#include <bpf/bpf_endian.h>

/* kernels from 5.14 on number network namespaces; before, the inode of /proc/PID/ns/net does. */
static __always_inline __u64 netns_of(const struct sock *sk)
{
	struct net *net = BPF_CORE_READ(sk, __sk_common.skc_net.net);
	if (bpf_core_field_exists(net->net_cookie))
		return BPF_CORE_READ(net, net_cookie);
	return BPF_CORE_READ(net, ns.inum);
}

struct socket_state {
	__u64 id;
	__u64 sent; /* bytes or datagrams, where the offset is counted */
	__u64 received;
	__u64 opened_ns;
	__u64 pair; /* key in `pairs`; 0: not paired */
	__u64 run_start_ns; /* when the current one-way run began to be counted */
	__u32 run_bytes; /* bytes moved in it */
	__u32 first_sent_sequence;
	__u32 first_received_sequence;
	__u32 walked; /* number of the last walk that listed it */
	__u8 run_direction;
	__u8 offset_kind;
	__u8 role;
	__u8 announced; /* its identity is in the ring */
	__u8 side; /* which side of `pair` it is, 0 or 1 */
	__u8 family;
	__u8 unconnected; /* datagram socket without a fixed peer */
	__u8 passed; /* PASSED_: filters that it is known to pass */
	__u8 asks; /* direction of what goes to the server: known, or guessed when the socket is announced */
	__u64 inode; /* syscall hook: tells a reused address */
	__u64 operations; /* syscall hook: the socket's table of functions, by which its kind is known; 0: not yet looked at */
};

enum {
	PASSED_TASK = 1, /* a recorded task has connected it or listens on it */
	PASSED_PORT = 2, /* it had a recorded port; when it closes it has none any more */
};

#ifdef KFR_SYSCALL_HOOK
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct socket_state);
} states SEC(".maps");

struct hook_state {
	__u64 last_id; /* of the sockets named so far */
	__u64 uring_calls; /* io_uring_enter calls that submitted something: what they move on sockets is not seen */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hook_state);
} hook_state SEC(".maps");

static __always_inline struct hook_state *hook(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&hook_state, &zero);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_state);
} states SEC(".maps");
#endif

/*
 * The two ends of one TCP connection when both are on this node, so that bytes are recorded once: the receiver keeps
 * lengths only while the sender keeps the payload. Connections opened during the capture are matched by both initial
 * sequence numbers (which survive address translation), older ones by their addresses.
 */
struct pair {
	__u32 flags; /* PAIR_PRESENT << side, PAIR_BLIND << side */
	__u32 sent[2]; /* sequence numbers when the side was added, to reject a coincidence */
	__u32 received[2];
};
enum {
	PAIR_PRESENT = 1, /* this side is recorded */
	PAIR_BLIND = 4, /* this side sent bytes that could not be recorded: the receiver must keep them */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct pair);
} pairs SEC(".maps");

static __always_inline __u8 offset_kind_of(const struct sock *sk)
{
	__u16 type = BPF_CORE_READ(sk, sk_type);
	if (type == SOCK_DGRAM)
		return OFFSET_DATAGRAM;
	if (type == SOCK_STREAM && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP)
		return OFFSET_TCP;
	return OFFSET_COUNTED;
}

static __always_inline void start_state(struct socket_state *state, const struct sock *sk)
{
	state->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	state->offset_kind = offset_kind_of(sk);
	state->unconnected = state->offset_kind == OFFSET_DATAGRAM && state->family != AF_UNIX;
}

#ifdef KFR_SYSCALL_HOOK
static __always_inline __u64 inode_of(const struct sock *sk)
{
	struct socket *socket = BPF_CORE_READ(sk, sk_socket);
	if (!socket)
		return 0;
	struct file *file = BPF_CORE_READ(socket, file);
	return file ? BPF_CORE_READ(file, f_inode, i_ino) : 0;
}

static __noinline struct socket_state *make_state(const struct sock *sk, __u64 inode)
{
	__u64 key = (__u64)sk;
	struct socket_state fresh = {};
	struct hook_state *names = hook();
	if (!names)
		return NULL;
	/* Above any cookie, so that the two kinds of name can't meet in one bundle. */
	fresh.id = (1ULL << 62) + __sync_fetch_and_add(&names->last_id, 1) + 1;
	fresh.inode = inode;
	start_state(&fresh, sk);
	bpf_map_update_elem(&states, &key, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(&states, &key);
}

/* `fresh`: a new connection begins on this address, whatever was known of it. */
static __always_inline struct socket_state *state_of(const struct sock *sk, bool fresh)
{
	__u64 key = (__u64)sk;
	struct socket_state *state = bpf_map_lookup_elem(&states, &key);
	if (fresh || !state)
		return make_state(sk, inode_of(sk));
	return state;
}
#else
static __always_inline struct socket_state *state_of(struct sock *sk, bool fresh)
{
	struct socket_state *state = bpf_sk_storage_get(&states, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!state)
		return NULL;
	if (!state->id) {
		state->id = bpf_get_socket_cookie(sk);
		start_state(state, sk);
	}
	return state;
}
#endif

static __always_inline void copy_addresses(const struct sock *sk, __u16 family, __u8 *local, __u8 *remote)
{
	__builtin_memset(local, 0, 16);
	__builtin_memset(remote, 0, 16);
	if (family == AF_INET) {
		bpf_core_read(local, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_core_read(remote, 4, &sk->__sk_common.skc_daddr);
	} else if (family == AF_INET6) {
		bpf_core_read(local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
}

/* NULL for MPTCP, whose sockets look like TCP's but aren't laid out so. */
static __always_inline const struct tcp_sock *tcp_of(const struct sock *sk)
{
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return NULL;
	return (const struct tcp_sock *)sk;
}

/*
 * Sequence number behind the last byte that the program has read. A read that reaches the FIN takes it along, and
 * copied_seq counts it as a byte (tcp_recvmsg_locked(), net/ipv4/tcp.c).
 */
static __always_inline __u32 read_until(const struct tcp_sock *tcp)
{
	__u32 until = BPF_CORE_READ(tcp, copied_seq);
	if ((BPF_CORE_READ((const struct sock *)tcp, __sk_common.skc_flags) & (1UL << SOCK_DONE)) && until == BPF_CORE_READ(tcp, rcv_nxt))
		until--;
	return until;
}

/* Kernel TLS or the like: sequence numbers count records then, and calls count the bytes inside them. */
static __always_inline bool is_tls(const struct sock *sk)
{
	const struct tcp_sock *tcp = tcp_of(sk);
	return tcp && BPF_CORE_READ(tcp, inet_conn.icsk_ulp_ops);
}

static __always_inline __u64 mix(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL; /* 2^64 / golden ratio */
	return hash ^ (hash >> 29);
}

/* Adds this side of a pair; both sides end up with the same key and opposite `side`s. */
static __noinline int join_pair(struct socket_state *state, __u64 key, __u32 side, __u32 sent, __u32 received)
{
	struct pair *pair = bpf_map_lookup_elem(&pairs, &key);
	if (!pair) {
		struct pair fresh = {};
		bpf_map_update_elem(&pairs, &key, &fresh, BPF_NOEXIST);
		pair = bpf_map_lookup_elem(&pairs, &key);
		if (!pair)
			return 0;
	}
	side &= 1;
	__u32 other = side ^ 1;
	if (pair->flags & (PAIR_PRESENT << other)) {
		/* Two connections with the same addresses in two network namespaces: their numbers are far apart. */
		__s32 there = (__s32)(received - pair->sent[other]);
		__s32 here = (__s32)(pair->received[other] - sent);
		if (there > (64 << 20) || there < -(64 << 20) || here > (64 << 20) || here < -(64 << 20))
			return 0;
	}
	pair->sent[side] = sent;
	pair->received[side] = received;
	__sync_fetch_and_or(&pair->flags, PAIR_PRESENT << side);
	state->pair = key;
	state->side = side;
	return 0;
}

static __always_inline void pair_by_sequence(struct socket_state *state)
{
	__u32 sent = state->first_sent_sequence, received = state->first_received_sequence;
	if (sent == received)
		return;
	__u64 low = sent < received ? sent : received, high = sent < received ? received : sent;
	join_pair(state, low << 32 | high, sent < received ? 0 : 1, sent, received);
}

static __always_inline void pair_by_address(struct socket_state *state, const struct sock *sk, __u32 sent, __u32 received)
{
	__u64 parts[4] = {}; /* local 16 bytes, remote 16 bytes */
	__u16 family = state->family;
	copy_addresses(sk, family, (__u8 *)parts, (__u8 *)(parts + 2));
	__u64 local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	__u64 remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	/* 127.0.0.0/8 and ::1 exist once in every network namespace. */
	bool loopback = family == AF_INET ? (parts[0] & 0xff) == 127 : parts[0] == 0 && parts[1] == (1ULL << 56);
	__u64 own = mix(mix(mix(family, parts[0]), parts[1]), local_port);
	__u64 peer = mix(mix(mix(family, parts[2]), parts[3]), remote_port);
	if (own == peer)
		return;
	__u64 key = mix(own < peer ? own : peer, own < peer ? peer : own);
	if (loopback)
		key = mix(key, netns_of(sk));
	join_pair(state, key, own < peer ? 0 : 1, sent, received);
}

/*
 * Puts the socket's identity into `event`. `task` is its owner. Returns the length of the event.
 */
static __always_inline void describe(struct socket_event *event, const struct sock *sk, struct socket_state *state,
				     struct task_struct *task, __u8 seen_by)
{
	__u16 family = state->family;
	event->socket = state->id;
	event->netns = netns_of(sk);
	event->cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	event->peer = 0;
	event->inode = 0;
	event->opened_ns = state->opened_ns;
	copy_addresses(sk, family, event->local_address, event->remote_address);
	event->local_port = 0;
	event->remote_port = 0;
	event->family = family;
	event->socket_type = BPF_CORE_READ(sk, sk_type);
	event->protocol = BPF_CORE_READ(sk, sk_protocol);
	event->role = state->role;
	event->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	event->sent_sequence = 0;
	event->received_sequence = 0;
	event->first_sent_sequence = state->first_sent_sequence;
	event->first_received_sequence = state->first_received_sequence;
	event->offset_kind = state->offset_kind;
	event->seen_by = seen_by;
	event->path_length = 0;
	event->reserved = 0;
	event->header.thread = BPF_CORE_READ(task, pid);
	event->header.process = BPF_CORE_READ(task, tgid);
	BPF_CORE_READ_INTO(&event->comm, task, comm);
	__builtin_memset(event->path, 0, sizeof(event->path));

	struct socket *socket = BPF_CORE_READ(sk, sk_socket);
	if (socket)
		event->inode = BPF_CORE_READ(socket, file, f_inode, i_ino);
	if (family != AF_UNIX) {
		event->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
		event->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
		const struct tcp_sock *tcp = tcp_of(sk);
		if (tcp) {
			event->sent_sequence = BPF_CORE_READ(tcp, write_seq);
			event->received_sequence = read_until(tcp);
		}
		return;
	}
	const struct unix_sock *unix_socket = (const struct unix_sock *)sk;
	struct sock *peer = BPF_CORE_READ(unix_socket, peer);
	struct unix_address *address = BPF_CORE_READ(unix_socket, addr);
	if (peer) {
#ifdef KFR_SYSCALL_HOOK
		__u64 key = (__u64)peer;
		struct socket_state *other = bpf_map_lookup_elem(&states, &key);
		event->peer = other ? other->id : 0;
#else
		event->peer = BPF_CORE_READ(peer, __sk_common.skc_cookie.counter);
#endif
		if (!address) /* the connecting end has no name of its own: show what it connected to */
			address = BPF_CORE_READ((const struct unix_sock *)peer, addr);
	}
	if (address) {
		__u32 total = BPF_CORE_READ(address, len); /* with sun_family; never more than sockaddr_un */
		__u32 length = total - 2;
		OPAQUE(length); /* 6.1's verifier loses the bound of a value that was compared in another form */
		if (length > sizeof(event->path))
			length = sizeof(event->path);
		if (total > 2 && total <= 2 + sizeof(event->path)) {
			bpf_core_read(event->path, length, &address->name[0].sun_path);
			event->path_length = event->path[0] ? length - 1 : length; /* a name in the file system ends in a zero */
		}
	}
}

#endif
