// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The syscall hook, for kernels before 6.3: one program where system calls return. The arguments are still in the
 * registers then. What is cheap and rules out most comes first: the call's number, its result, the file's kind, the
 * filters; user memory is read last.
 */
#define KFR_SYSCALL_HOOK
#include "lifecycle.h"
#include "transfer.h"

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* The open file behind a descriptor of the current task. */
static __always_inline struct file *file_of(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	if (fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	struct file *file = NULL;
	bpf_probe_read_kernel(&file, sizeof(file), (void *)((__u64)BPF_CORE_READ(table, fd) + fd * sizeof(void *)));
	return file;
}

/* One message: all of a call, or one entry of sendmmsg and recvmmsg. */
static __always_inline int transfer(struct sock *sk, struct socket_state *state, struct scratch *build, __u32 moved, __u32 direction)
{
	struct counters *count = cpu_counters();
	if (!count || !sk || !state || !build)
		return 0;
	struct buffers *at = &build->at;
	__u64 now = bpf_ktime_get_boot_ns();
	__u64 identity = bpf_get_current_pid_tgid();
	struct data_event fields;
	fields.socket = state->id;
	fields.length = moved;
	fields.age_ns = 0;
	fields.direction = direction;
	fields.offset_kind = state->offset_kind;
	fields.missing = MISSING_NOTHING;
	fields.reserved = 0;
	fields.header.process = identity >> 32;
	fields.header.thread = (__u32)identity;
	__u64 *counted = direction == DIRECTION_SENT ? &state->sent : &state->received;
	if (state->offset_kind == OFFSET_TCP) {
		const struct tcp_sock *tcp = tcp_of(sk);
		if (!tcp)
			return 0;
		__u64 stamp = 0;
		if (BPF_CORE_READ(tcp, inet_conn.icsk_ulp_ops)) {
			/* Kernel TLS: sequence numbers count records, calls count the bytes inside them. */
			state->offset_kind = OFFSET_COUNTED;
			fields.offset_kind = OFFSET_COUNTED;
			fields.offset = *counted;
			__sync_fetch_and_add(counted, moved);
		} else if (direction == DIRECTION_SENT) {
			fields.offset = (__u32)(BPF_CORE_READ(tcp, write_seq) - moved);
			stamp = BPF_CORE_READ(tcp, tcp_wstamp_ns);
		} else {
			fields.offset = (__u32)(BPF_CORE_READ(tcp, copied_seq) - moved);
			stamp = BPF_CORE_READ(tcp, tcp_clock_cache);
		}
		__u64 age = now - control.boot_offset_ns - stamp;
		if (stamp && age < 0xffffffff)
			fields.age_ns = age;
	} else {
		/* Atomic adds that return a value came with 5.12; the race of two threads on one counter shows in replay. */
		fields.offset = *counted;
		__sync_fetch_and_add(counted, state->offset_kind == OFFSET_DATAGRAM ? 1 : moved);
	}
	__u32 keep = 0;
	__u32 run = count_run(state, direction, moved, now);
	if (!at->missing) {
		if (direction == DIRECTION_RECEIVED && peer_keeps(state))
			at->missing = MISSING_PEER_KEEPS;
		else
			keep = budget(run, moved, count, &fields.missing);
	}
	if (keep)
		unwrap_single(at);
	finish(&fields, state, build, keep, count, now,
	       state->unconnected && !BPF_CORE_READ(sk, __sk_common.skc_dport));
	return 0;
}

/* One entry of a sendmmsg or recvmmsg, at scratch->at: a global function, verified once and not once a turn of the loop. */
__noinline int transfer_message(__u64 address, __u32 moved, __u32 direction)
{
	struct sock *sk = (struct sock *)address;
	struct socket_state *state = bpf_map_lookup_elem(&states, &address);
	if (!state)
		return 0;
	return transfer(sk, state, cpu_scratch(), moved, direction & 1);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_exit, struct pt_regs *regs, long result)
{
	if (result <= 0)
		return 0;
	long number = SYSCALL_NUMBER(regs);
	__u64 fd = PT_REGS_PARM1_SYSCALL(regs);
	__u32 direction = DIRECTION_SENT, flags = 0;
	switch (number) {
	case NR_READ:
	case NR_READV:
	case NR_PREADV2:
		direction = DIRECTION_RECEIVED;
		break;
	case NR_RECVFROM:
	case NR_RECVMMSG:
		direction = DIRECTION_RECEIVED;
		flags = PT_REGS_PARM4_SYSCALL(regs);
		break;
	case NR_RECVMSG:
		direction = DIRECTION_RECEIVED;
		flags = PT_REGS_PARM3_SYSCALL(regs);
		break;
	case NR_WRITE:
	case NR_WRITEV:
	case NR_PWRITEV2:
	case NR_SENDTO:
	case NR_SENDMSG:
	case NR_SENDMMSG:
	case NR_SENDFILE:
		break;
	case NR_SPLICE:
		fd = PT_REGS_PARM3_SYSCALL(regs);
		break;
	default:
		return 0;
	}
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *file = file_of(task, fd);
	if (!file)
		return 0;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	if (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB))
		return 0;
	if (!passes_task(bpf_get_current_pid_tgid() >> 32) || !passes_port(sk))
		return 0;
	struct counters *count = cpu_counters();
	if (!count)
		return 0;
	struct socket_state *state = state_of(sk, 0);
	if (state && family != AF_INET && family != AF_INET6) {
		/* Unix sockets come and go without a sign: a reused address has another inode. */
		if (state->inode != BPF_CORE_READ(file, f_inode, i_ino))
			state = state_of(sk, 1);
	} else if (state && state->offset_kind == OFFSET_DATAGRAM) {
		if (state->inode != BPF_CORE_READ(file, f_inode, i_ino))
			state = state_of(sk, 1);
	}
	if (!state) {
		__sync_fetch_and_add(&count->refused_state, 1);
		return 0;
	}
	if (!state->announced)
		announce(sk, state, bpf_ktime_get_boot_ns());

	struct scratch *build = cpu_scratch();
	if (!build)
		return 0;
	bool compat = BPF_CORE_READ(task, thread_info.status) & 2;
	if (number == NR_SENDMMSG || number == NR_RECVMMSG) {
		__u64 entries = PT_REGS_PARM2_SYSCALL(regs);
		for (__u32 i = 0; i < MAX_SEGMENTS; i++) {
			if (i >= result)
				break;
			struct user_messages_entry *entry = (void *)(entries + i * sizeof(struct user_messages_entry));
			build->at = (struct buffers){};
			__u32 moved = 0;
			if (compat || bpf_probe_read_user(&moved, sizeof(moved), &entry->length))
				break;
			use_message(&build->at, (__u64)entry);
			if (moved)
				transfer_message((__u64)sk, moved, direction);
		}
		return 0;
	}
	build->at = (struct buffers){};
	if (compat)
		build->at.missing = MISSING_COMPAT;
	else if (direction == DIRECTION_RECEIVED && (flags & MSG_TRUNC) && state->offset_kind == OFFSET_TCP)
		build->at.missing = MISSING_DISCARDED;
	else
		locate_single(&build->at, regs, number);
	transfer(sk, state, build, result, direction);
	return 0;
}
