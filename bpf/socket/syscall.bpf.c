// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The syscall hook, for kernels before 6.3: one program where system calls return. The arguments are still in the
 * registers then. What is cheap and rules out most comes first: the call's result, its number, the file's kind, the
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
	struct fdtable *table = task->files->fdt;
	if (fd >= table->max_fds)
		return NULL;
	struct file *file = NULL;
	bpf_probe_read_kernel(&file, sizeof(file), (void *)((__u64)table->fd + fd * sizeof(void *)));
	return file;
}

/* What is read of a socket in one go: each read of kernel memory is a call, and calls are most of this hook's cost. */
struct socket_fields {
	struct file *file;
	struct sock *sk;
	__u64 operations;
};

/* Where struct socket keeps them (16, 24 and 32 on all kernels so far, randomised layouts apart). */
#define SOCKET_HEAD 48
#define IN_HEAD(field) (bpf_core_field_offset(struct socket, field) <= SOCKET_HEAD - sizeof(__u64))
#define HEAD_FIELD(head, field) (*(__u64 *)((void *)(head) + bpf_core_field_offset(struct socket, field)))

/*
 * The socket behind a file; false if it is no socket. What `private_data` means is the file's own business, but only a
 * socket's structure points back to its file there, and only one of ours has a state; the rest is for adopt_socket() to tell.
 */
static __always_inline bool socket_of(struct file *file, struct socket_fields *found)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	if (!socket)
		return false;
	if (IN_HEAD(file) && IN_HEAD(sk) && IN_HEAD(ops)) {
		__u64 head[SOCKET_HEAD / sizeof(__u64)];
		if (bpf_probe_read_kernel(head, sizeof(head), socket))
			return false;
		found->file = (struct file *)HEAD_FIELD(head, file);
		found->sk = (struct sock *)HEAD_FIELD(head, sk);
		found->operations = HEAD_FIELD(head, ops);
	} else {
		found->file = BPF_CORE_READ(socket, file);
		found->sk = BPF_CORE_READ(socket, sk);
		found->operations = (__u64)BPF_CORE_READ(socket, ops);
	}
	return found->file == file && found->sk;
}

/*
 * Makes the state of a socket that has none yet, or renews it where the socket's operations are not those that it was
 * made for: another kind of socket at a reused address, or the same one changed by kernel TLS or IPV6_ADDRFORM. 0 if the
 * socket is not to be recorded.
 */
__noinline int adopt_socket(__u64 file_address, __u64 address, __u64 operations)
{
	const struct file *file = (const struct file *)file_address;
	const struct sock *sk = (const struct sock *)address;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	struct socket_state *state = bpf_map_lookup_elem(&states, &address);
	__u64 inode = BPF_CORE_READ(file, f_inode, i_ino);
	/* Made by a state change, or changed in place: what is known of it still holds. */
	bool same = state && state->family == family && (state->offset_kind == offset_kind_of(sk) || is_tls(sk)) &&
		    (tcp_of(sk) || state->inode == inode);
	if (!same) {
		state = make_state(sk, inode);
		if (!state) {
			struct counters *count = cpu_counters();
			if (count)
				__sync_fetch_and_add(&count->refused_state, 1);
			return 0;
		}
	}
	if (state->offset_kind == OFFSET_TCP && is_tls(sk))
		state->offset_kind = OFFSET_COUNTED;
	state->operations = operations;
	return 1;
}

/* One message: all of a call, or one entry of sendmmsg and recvmmsg. */
static __always_inline int transfer(struct sock *sk, struct socket_state *state, struct scratch *build, __u32 moved, __u32 direction)
{
	struct counters *count = cpu_counters();
	if (!count || !sk || !state || !build)
		return 0;
	struct buffers *at = &build->at;
	__u64 now = bpf_ktime_get_boot_ns();
	struct task_struct *task = bpf_get_current_task_btf();
	struct data_event fields;
	fields.socket = state->id;
	fields.length = moved;
	fields.age_ns = 0;
	fields.direction = direction;
	fields.offset_kind = state->offset_kind;
	fields.missing = MISSING_NOTHING;
	fields.reserved = 0;
	fields.header.process = task->tgid;
	fields.header.thread = task->pid;
	__u64 *counted = direction == DIRECTION_SENT ? &state->sent : &state->received;
	if (state->offset_kind == OFFSET_TCP) {
		const struct tcp_sock *tcp = (const struct tcp_sock *)sk;
		__u64 stamp;
		if (direction == DIRECTION_SENT) {
			fields.offset = (__u32)(BPF_CORE_READ(tcp, write_seq) - build->later - moved);
			stamp = BPF_CORE_READ(tcp, tcp_wstamp_ns);
		} else {
			fields.offset = (__u32)(read_until(tcp) - build->later - moved);
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
			keep = budget(run, moved, direction == state->asks, count, &fields.missing);
	}
	if (keep)
		unwrap_single(at);
	finish(&fields, state, build, keep, count, now,
	       state->unconnected && !BPF_CORE_READ(sk, __sk_common.skc_dport));
	return 0;
}

/* Length of one message of a sendmmsg or recvmmsg; 0 where it can't be read. */
static __always_inline __u32 message_length(__u64 entry)
{
	__u32 length = 0;
	bpf_probe_read_user(&length, sizeof(length), &((struct user_messages_entry *)entry)->length);
	return length;
}

/*
 * One message of a sendmmsg or recvmmsg. A global function, verified once and not once a turn of the loop. The socket's
 * state is found by `address`.
 */
__noinline int transfer_message(__u64 address, __u64 entry, __u32 direction, __u32 discarded)
{
	struct scratch *build = cpu_scratch();
	struct sock *sk = (struct sock *)address;
	struct socket_state *state = bpf_map_lookup_elem(&states, &address);
	if (!state || !build)
		return 0;
	__u32 moved = message_length(entry);
	if (!moved)
		return 0;
	build->later -= moved;
	build->at = (struct buffers){};
	if (discarded)
		build->at.missing = MISSING_DISCARDED;
	else
		use_message(&build->at, entry);
	return transfer(sk, state, build, moved, direction & 1);
}

/* Bytes of all messages of a call: scratch->later. A function of its own, or the verifier multiplies the two loops. */
__noinline int sum_messages(__u64 entries, __u32 messages)
{
	struct scratch *build = cpu_scratch();
	if (!build)
		return 0;
	build->later = 0;
	for (__u32 i = 0; i < MAX_MESSAGES; i++) {
		if (i >= messages)
			break;
		build->later += message_length(entries + i * sizeof(struct user_messages_entry));
	}
	return 0;
}

/* All messages of a sendmmsg or recvmmsg that has returned. */
__noinline int transfer_messages(__u64 socket, __u64 entries, __u32 messages, __u32 direction, __u32 discarded)
{
	/* Sequence numbers are known as of now: each message's own lies before the later ones. */
	sum_messages(entries, messages);
	for (__u32 i = 0; i < MAX_MESSAGES; i++) {
		if (i >= messages)
			break;
		transfer_message(socket, entries + i * sizeof(struct user_messages_entry), direction, discarded);
	}
	return 0;
}

/* A 32-bit task's call, by its own numbers; false if it moves nothing on a socket. */
static __always_inline bool decode_compat(struct pt_regs *regs, __u64 *fd, __u32 *direction, __u32 *flags)
{
	*fd = COMPAT_PARM1(regs);
	switch (SYSCALL_NUMBER(regs)) {
	case COMPAT_NR_READ:
	case COMPAT_NR_READV:
		*direction = DIRECTION_RECEIVED;
		return true;
	case COMPAT_NR_RECV:
	case COMPAT_NR_RECVFROM:
		*direction = DIRECTION_RECEIVED;
		*flags = COMPAT_PARM4(regs);
		return true;
	case COMPAT_NR_RECVMSG:
		*direction = DIRECTION_RECEIVED;
		*flags = COMPAT_PARM3(regs);
		return true;
	case COMPAT_NR_WRITE:
	case COMPAT_NR_WRITEV:
	case COMPAT_NR_SEND:
	case COMPAT_NR_SENDTO:
	case COMPAT_NR_SENDMSG:
	case COMPAT_NR_SENDFILE:
	case COMPAT_NR_SENDFILE64:
		return true;
#ifdef COMPAT_NR_SOCKETCALL
	case COMPAT_NR_SOCKETCALL: {
		/* One number for all socket calls, their arguments in memory (include/uapi/linux/net.h). */
		__u32 arguments[4] = {};
		if (bpf_probe_read_user(arguments, sizeof(arguments), (void *)(__u64)(__u32)COMPAT_PARM2(regs)))
			return false;
		*fd = arguments[0];
		switch ((__u32)COMPAT_PARM1(regs)) {
		case 9: /* SYS_SEND */
		case 11: /* SYS_SENDTO */
		case 16: /* SYS_SENDMSG */
			return true;
		case 10: /* SYS_RECV */
		case 12: /* SYS_RECVFROM */
			*direction = DIRECTION_RECEIVED;
			*flags = arguments[3];
			return true;
		case 17: /* SYS_RECVMSG */
			*direction = DIRECTION_RECEIVED;
			*flags = arguments[2];
			return true;
		}
		return false;
	}
#endif
	}
	return false;
}

/*
 * A socket got an upper-layer protocol, such as kernel TLS. Kernels before 5.16 don't change the operations of one that
 * only sends that way, so the call itself is looked for.
 */
__noinline int begin_tls(__u64 fd)
{
	struct file *file = file_of(bpf_get_current_task_btf(), fd);
	struct socket_fields socket;
	if (file && socket_of(file, &socket))
		return adopt_socket((__u64)file, (__u64)socket.sk, socket.operations);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_exit, struct pt_regs *regs, long result)
{
	if (result < 0)
		return 0;
	long number = SYSCALL_NUMBER(regs);
	if (result == 0) {
		if (number == NR_SETSOCKOPT && PT_REGS_PARM2_SYSCALL(regs) == SOL_TCP && PT_REGS_PARM3_SYSCALL(regs) == TCP_ULP)
			begin_tls(PT_REGS_PARM1_SYSCALL(regs));
		return 0;
	}
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
	case NR_IO_URING_ENTER: {
		struct hook_state *seen = hook();
		if (seen && passes_task(bpf_get_current_task_btf()->tgid))
			__sync_fetch_and_add(&seen->uring_calls, 1);
		return 0;
	}
	case NR_SPLICE:
		fd = PT_REGS_PARM3_SYSCALL(regs);
		break;
	default:
		if (!COMPAT_CANDIDATE(number))
			return 0;
		direction = ~0U; /* only a 32-bit task's numbers */
	}
	struct task_struct *task = bpf_get_current_task_btf();
	bool compat = TASK_IS_COMPAT(task);
	if (compat) {
		direction = DIRECTION_SENT;
		flags = 0;
		if (!decode_compat(regs, &fd, &direction, &flags))
			return 0;
	} else if (direction == ~0U) {
		return 0;
	}
	if (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB))
		return 0;
	struct file *file = file_of(task, fd);
	struct socket_fields socket;
	if (!file || !socket_of(file, &socket))
		return 0;
	struct sock *sk = socket.sk;
	if (!passes_task(task->tgid) || !passes_port(sk))
		return 0;
	struct socket_state *state = bpf_map_lookup_elem(&states, &sk);
	if (!state || state->operations != socket.operations) {
		if (!adopt_socket((__u64)file, (__u64)sk, socket.operations))
			return 0;
		state = bpf_map_lookup_elem(&states, &sk);
	} else if (state->family == AF_UNIX || state->offset_kind == OFFSET_DATAGRAM) {
		/* These come and go without a sign: a reused address has another inode. */
		__u64 inode = BPF_CORE_READ(file, f_inode, i_ino);
		if (state->inode != inode)
			state = make_state(sk, inode);
		if (state)
			state->operations = socket.operations;
	}
	struct counters *count = cpu_counters();
	if (!count)
		return 0;
	if (!state) {
		__sync_fetch_and_add(&count->refused_state, 1);
		return 0;
	}
	if (!state->announced)
		announce(sk, state, bpf_ktime_get_boot_ns());

	struct scratch *build = cpu_scratch();
	if (!build)
		return 0;
	/* MSG_TRUNC on a stream (TCP and MPTCP; unix sockets don't know it) moves on without copying. */
	bool discarded = direction == DIRECTION_RECEIVED && (flags & (MSG_TRUNC | MSG_SOCK_DEVMEM)) && state->family != AF_UNIX &&
			 state->offset_kind != OFFSET_DATAGRAM;
	if (!compat && (number == NR_SENDMMSG || number == NR_RECVMMSG)) {
		transfer_messages((__u64)sk, PT_REGS_PARM2_SYSCALL(regs), result, direction, discarded);
		return 0;
	}
	build->at = (struct buffers){};
	build->later = 0;
	if (compat)
		build->at.missing = MISSING_COMPAT;
	else if (discarded)
		build->at.missing = MISSING_DISCARDED;
	else
		locate_single(&build->at, regs, number);
	transfer(sk, state, build, result, direction);
	return 0;
}
