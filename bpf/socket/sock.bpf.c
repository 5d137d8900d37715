// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The sock hook (kernel 6.3 and later; sendfile from 6.5): tracepoints where a socket's send or receive has returned.
 * No entry hook and no pairing map are needed, since the call's arguments are still in the task's registers, and a
 * system call that touches no socket pays nothing.
 */
#include "lifecycle.h"
#include "transfer.h"

/* Which message of a sendmmsg or recvmmsg comes next: its tracepoint fires once a message with the same registers. */
struct message_index {
	__u64 vector;
	__u64 stack;
	__u32 count;
	__u32 next;
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
	__u32 count = PT_REGS_PARM3_SYSCALL(regs);
	if (index->vector != vector || index->stack != stack || index->count != count || index->next >= count) {
		index->vector = vector;
		index->stack = stack;
		index->count = count;
		index->next = 0;
	}
	__u32 which = index->next++;
	/* A timeout may end recvmmsg early without a sign, and the next call would look like a continuation. */
	if (receives && PT_REGS_PARM5_SYSCALL(regs)) {
		at->missing = MISSING_MESSAGE_INDEX;
		return 0;
	}
	use_message(at, vector + (__u64)which * sizeof(struct user_messages_entry));
	if (at->missing)
		return 0;
	/* The entry must be able to hold what was moved. */
	__u64 total = 0;
	for (__u32 i = 0; i < MAX_SEGMENTS; i++) {
		struct user_iovec segment;
		if (i >= at->iov_count)
			break;
		if (bpf_probe_read_user(&segment, sizeof(segment), (void *)(at->iov + i * sizeof(segment)))) {
			at->missing = MISSING_FAULT;
			return 0;
		}
		total += segment.length;
	}
	/* A datagram cut to fit may be reported longer than its buffers; a sent message never is. */
	if (!receives && total != moved)
		at->missing = MISSING_MESSAGE_INDEX;
	return 0;
}

/* A failed message ends its sendmmsg or recvmmsg: the next one begins a new call. */
static __always_inline void end_messages(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct message_index *index = bpf_task_storage_get(&message_indices, task, 0, 0);
	if (index)
		index->next = ~0U;
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

static __always_inline void locate(struct buffers *at, struct pt_regs *regs, long number, int moved)
{
	if (number == NR_SENDMMSG || number == NR_RECVMMSG)
		locate_in_messages(number == NR_RECVMMSG, moved);
	else
		locate_single(at, regs, number);
	unwrap_single(at);
}

static __always_inline int transfer(struct sock *sk, int moved, int flags, __u8 direction)
{
	__u16 family = sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	if (moved <= 0) {
		if (moved < 0 && sk->sk_type == SOCK_DGRAM)
			end_messages();
		return 0;
	}
	if (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB))
		return 0; /* not the stream's next bytes */
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 process = task->tgid;
	if (!passes_task(process) || !passes_port(sk))
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
	bool discarded = false;
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
			fields.offset = (__u32)(tcp->copied_seq - moved);
			stamp = tcp->tcp_clock_cache;
			discarded = flags & MSG_TRUNC;
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
	struct scratch *build = cpu_scratch();
	if (!build)
		return 0;
	struct buffers *at = &build->at;
	*at = (struct buffers){};
	__u32 run = count_run(state, direction, moved, now);
	if (discarded)
		at->missing = MISSING_DISCARDED;
	else if (direction == DIRECTION_RECEIVED && peer_keeps(state))
		at->missing = MISSING_PEER_KEEPS;
	else
		keep = budget(run, moved, count, &fields.missing);
	if (keep) {
		struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
		if (task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER) || !SYSCALL_RUNNING(regs)) {
			at->missing = MISSING_NOT_THIS_CALL;
		} else if (TASK_IS_COMPAT(task)) {
			at->missing = MISSING_COMPAT;
		} else {
			long number = SYSCALL_NUMBER(regs);
			/* splice has the socket as its third argument; its bytes are in no buffer anyway. */
			if (number != NR_SPLICE && !names_file(task, (__u32)PT_REGS_PARM1_SYSCALL(regs), sk->sk_socket->file))
				at->missing = MISSING_NOT_THIS_CALL;
			else
				locate(at, regs, number, moved);
		}
	}
	fields.header.process = process;
	fields.header.thread = task->pid;
	finish(&fields, state, build, keep, count, now, state->unconnected && !sk->__sk_common.skc_dport);
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
