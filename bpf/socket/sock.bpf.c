// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The sock hook (kernel 6.3 and later; sendfile from 6.5): tracepoints where a socket's send or receive has returned.
 * No entry hook and no pairing map are needed, since the call's arguments are still in the task's registers, and a
 * system call that touches no socket pays nothing.
 */
#include "lifecycle.h"
#include "transfer.h"

/*
 * Which message of a sendmmsg or recvmmsg comes next: its tracepoint fires once a message with the same registers, and
 * nothing says when the call ends well. So every message is counted, kept or not, and a call counts as over at its last
 * message, at a failed one, and at one that was sent in part.
 */
struct message_index {
	__u64 vector;
	__u64 stack;
	__u32 descriptor;
	__u32 count;
	__u32 flags;
	__u32 next;
};
enum {
	NEXT_IS_NEW = ~0U, /* the next message begins a new call */
	NEXT_IS_UNKNOWN = ~0U - 1, /* lengths don't fit: no message of such a call is placed until one is known to end */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct message_index);
} message_indices SEC(".maps");

/* Finds the message of a sendmmsg or recvmmsg that has just been moved; puts it into scratch->at. */
__noinline int locate_in_messages(__u32 receives, __u32 moved)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct scratch *build = cpu_scratch();
	if (!build)
		return 0;
	struct buffers *at = &build->at;
	struct message_index *index =
		bpf_task_storage_get(&message_indices, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!index) {
		at->missing = MISSING_MESSAGE_INDEX;
		return 0;
	}
	__u64 vector = PT_REGS_PARM2_SYSCALL(regs), stack = PT_REGS_SP(regs);
	__u32 descriptor = PT_REGS_PARM1_SYSCALL(regs), count = PT_REGS_PARM3_SYSCALL(regs);
	__u32 flags = PT_REGS_PARM4_SYSCALL(regs);
	/* A timeout may end recvmmsg early without a sign, and the next call would look like a continuation. */
	if (receives && PT_REGS_PARM5_SYSCALL(regs)) {
		index->next = NEXT_IS_NEW;
		at->missing = MISSING_MESSAGE_INDEX;
		return 0;
	}
	if (index->vector != vector || index->stack != stack || index->count != count ||
	    index->descriptor != descriptor || index->flags != flags || index->next == NEXT_IS_NEW) {
		index->vector = vector;
		index->stack = stack;
		index->descriptor = descriptor;
		index->count = count;
		index->flags = flags;
		index->next = 0;
	}
	__u32 which = index->next;
	if (which == NEXT_IS_UNKNOWN) {
		at->missing = MISSING_MESSAGE_INDEX;
		return 0;
	}
	index->next = which + 1 >= count ? NEXT_IS_NEW : which + 1;
	use_message(at, vector + (__u64)which * sizeof(struct user_messages_entry));
	if (at->missing)
		return 0;
	/* The entry must be able to hold what was moved. */
	__u64 total = 0, segments = at->iov_count;
	for (__u32 i = 0; i < MAX_SEGMENTS; i++) {
		struct user_iovec segment;
		if (i >= segments)
			break;
		if (bpf_probe_read_user(&segment, sizeof(segment), (void *)(at->iov + i * sizeof(segment)))) {
			at->missing = MISSING_FAULT;
			return 0;
		}
		total += segment.length;
	}
	if (receives) {
		/* A datagram cut to fit is reported whole only if MSG_TRUNC asks for it. */
		if (segments <= MAX_SEGMENTS && moved > total && !(flags & MSG_TRUNC)) {
			index->next = NEXT_IS_UNKNOWN;
			at->missing = MISSING_MESSAGE_INDEX;
		}
	} else if (segments <= MAX_SEGMENTS ? total != moved : total > moved) {
		/* Sent in part: the kernel ends the call there. That, or this is another message. */
		index->next = moved < total ? NEXT_IS_NEW : NEXT_IS_UNKNOWN;
		at->missing = MISSING_MESSAGE_INDEX;
	}
	return 0;
}

/* A failed message ends its sendmmsg or recvmmsg: the next one begins a new call. */
static __always_inline void end_messages(struct task_struct *task)
{
	struct message_index *index = bpf_task_storage_get(&message_indices, task, 0, 0);
	if (index)
		index->next = NEXT_IS_NEW;
}

/* Does the first argument of the running call name this socket? */
static __always_inline bool names_file(struct task_struct *task, __u64 fd, void *file)
{
	void *found = NULL;
	struct fdtable *table = task->files->fdt;
	if (fd >= table->max_fds)
		return false;
	bpf_probe_read_kernel(&found, sizeof(found), (void *)((__u64)table->fd + fd * sizeof(void *)));
	return found && found == file;
}

/* True while the task's registers describe a call of its own that is under way. */
static __always_inline bool in_own_call(struct task_struct *task, struct pt_regs *regs)
{
	return !(task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER)) && SYSCALL_RUNNING(regs);
}

static __always_inline int transfer(struct sock *sk, int moved, int flags, __u8 direction)
{
	__u16 family = sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	if (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB))
		return 0; /* not the stream's next bytes */
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 process = task->tgid;
	if (moved > 0 && !passes_task(process))
		return 0;
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	long number = SYSCALL_NUMBER(regs);
	bool several = number == NR_SENDMMSG || number == NR_RECVMMSG;
	if (moved <= 0 && !several)
		return 0;
	struct scratch *build = cpu_scratch();
	if (!build)
		return 0;
	struct buffers *at = &build->at;
	*at = (struct buffers){};
	bool own = in_own_call(task, regs);
	bool placed = false;
	if (several && own && !TASK_IS_COMPAT(task) &&
	    names_file(task, (__u32)PT_REGS_PARM1_SYSCALL(regs), sk->sk_socket->file)) {
		/* Whatever becomes of it: the next message's place depends on it. An empty datagram has one, too. */
		if (moved < 0)
			end_messages(task);
		else
			locate_in_messages(number == NR_RECVMMSG, moved);
		placed = true;
	}
	if (moved <= 0 || !passes_port(sk))
		return 0;
	struct counters *count = cpu_counters();
	if (!count)
		return 0;
	struct socket_state *state = state_of(sk, 0);
	if (!state) {
		__sync_fetch_and_add(&count->refused_state, 1);
		return 0;
	}
	__u64 now = bpf_ktime_get_boot_ns();
	if (!state->announced)
		announce(sk, state, now);

	struct data_event fields;
	fields.socket = state->id;
	fields.length = moved;
	fields.age_ns = 0;
	fields.direction = direction;
	fields.offset_kind = state->offset_kind;
	fields.missing = MISSING_NOTHING;
	fields.reserved = 0;
	/* MSG_TRUNC on a stream (TCP and MPTCP; unix sockets don't know it) moves on without copying. */
	bool discarded = direction == DIRECTION_RECEIVED && family != AF_UNIX && state->offset_kind != OFFSET_DATAGRAM &&
			 (flags & (MSG_TRUNC | MSG_SOCK_DEVMEM));
	__u64 *counted = direction == DIRECTION_SENT ? &state->sent : &state->received;
	if (state->offset_kind == OFFSET_TCP) {
		const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
		if (!tcp)
			return 0;
		__u64 stamp;
		if (tcp->inet_conn.icsk_ulp_ops) {
			/* Kernel TLS: sequence numbers count records, calls count the bytes inside them. */
			state->offset_kind = OFFSET_COUNTED;
			fields.offset_kind = OFFSET_COUNTED;
			fields.offset = __sync_fetch_and_add(counted, moved);
			stamp = 0;
		} else if (direction == DIRECTION_SENT) {
			fields.offset = (__u32)(tcp->write_seq - moved);
			stamp = tcp->tcp_wstamp_ns;
		} else {
			__u32 until = tcp->copied_seq;
			if ((sk->__sk_common.skc_flags & (1UL << SOCK_DONE)) && until == tcp->rcv_nxt)
				until--; /* the FIN, see read_until() */
			fields.offset = (__u32)(until - moved);
			stamp = tcp->tcp_clock_cache;
		}
		__u64 age = now - control.boot_offset_ns - stamp;
		if (stamp && age < 0xffffffff)
			fields.age_ns = age;
	} else if (state->offset_kind == OFFSET_DATAGRAM) {
		fields.offset = __sync_fetch_and_add(counted, 1);
	} else {
		fields.offset = __sync_fetch_and_add(counted, moved);
	}

	__u32 keep = 0;
	__u32 run = count_run(state, direction, moved, now);
	if (discarded)
		at->missing = MISSING_DISCARDED;
	else if (direction == DIRECTION_RECEIVED && peer_keeps(state))
		at->missing = MISSING_PEER_KEEPS;
	else
		keep = budget(run, moved, direction == state->asks, count, &fields.missing);
	/* A datagram's address is wanted even if none of its bytes are. */
	bool datagram = state->unconnected && !sk->__sk_common.skc_dport;
	if ((keep || datagram) && !placed) {
		if (!own)
			at->missing = MISSING_NOT_THIS_CALL;
		else if (TASK_IS_COMPAT(task))
			at->missing = MISSING_COMPAT;
		/* splice has the socket as its third argument; its bytes are in no buffer anyway. */
		else if (number != NR_SPLICE &&
			 !names_file(task, (__u32)PT_REGS_PARM1_SYSCALL(regs), sk->sk_socket->file))
			at->missing = MISSING_NOT_THIS_CALL;
		else
			locate_single(at, regs, number);
	}
	if (keep)
		unwrap_single(at);
	fields.header.process = process;
	fields.header.thread = task->pid;
	finish(&fields, state, build, keep, count, now, datagram);
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(on_send, struct sock *sk, int moved, int flags)
{
	return transfer(sk, moved, 0, DIRECTION_SENT);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(on_receive, struct sock *sk, int moved, int flags)
{
	return transfer(sk, moved, flags, DIRECTION_RECEIVED);
}
