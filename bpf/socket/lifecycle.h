/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Connections: state changes, retransmissions, resets, and the walk over sockets that are already open.
 *
 * State changes run wherever a packet is handled, often in softirq on top of somebody else's task; only SYN_SENT and
 * LISTEN happen in the socket owner's own system call.
 */
#ifndef KFR_SOCKET_LIFECYCLE_H
#define KFR_SOCKET_LIFECYCLE_H

#include "filter.h"
#include "../syscalls.h"

/* The address that connect() was given, before anything in the kernel (socket load balancing, NAT) replaced it. */
static __always_inline void read_asked(struct state_event *event)
{
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) /* before 5.15 */
		return;
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	if (SYSCALL_NUMBER(regs) != NR_CONNECT || !SYSCALL_RUNNING(regs) || TASK_IS_COMPAT(task))
		return;
	struct user_sockaddr address = {};
	if (bpf_probe_read_user(&address, 28, (void *)PT_REGS_PARM2_SYSCALL(regs)) &&
	    bpf_probe_read_user(&address, 16, (void *)PT_REGS_PARM2_SYSCALL(regs)))
		return;
	if (address.family == AF_INET)
		__builtin_memcpy(event->asked_address, address.rest, 4);
	else if (address.family == AF_INET6)
		__builtin_memcpy(event->asked_address, address.rest + 4, 16);
	else
		return;
	event->asked_family = address.family;
	event->asked_port = bpf_ntohs(address.port);
}

/* With a filter by task, a change is recorded only for sockets that a recorded task has touched. */
static __always_inline bool is_recorded(const struct sock *sk, struct socket_state *state)
{
	if ((config.filter_process || config.filter_cgroup) && !state->announced && !(state->passed & PASSED_TASK))
		return false;
	if (!config.filter_port || state->announced || (state->passed & PASSED_PORT))
		return true;
	if (!passes_port(sk))
		return false;
	state->passed |= PASSED_PORT;
	return true;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int old_state, int new_state)
{
	__u16 protocol = BPF_CORE_READ(sk, sk_protocol);
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP)
		return 0;
	if (new_state != TCP_ESTABLISHED && new_state != TCP_SYN_SENT && new_state != TCP_CLOSE &&
	    new_state != TCP_LISTEN && new_state != TCP_CLOSE_WAIT && new_state != TCP_FIN_WAIT1)
		return 0;
	bool own = new_state == TCP_SYN_SENT || new_state == TCP_LISTEN;
	__u64 identity = bpf_get_current_pid_tgid();
	if (own && (__u32)(identity >> 32) == config.own_process)
		return 0;
	bool begins = own || (new_state == TCP_ESTABLISHED && old_state != TCP_SYN_SENT);
	struct counters *count = cpu_counters();
	if (!count)
		return 0;
	struct socket_state *state = state_of(sk, begins);
	if (!state) {
		__sync_fetch_and_add(&count->refused_state, 1);
		return 0;
	}
	const struct tcp_sock *tcp = tcp_of(sk);
	__u64 now = bpf_ktime_get_boot_ns();
	bool filtered = config.filter_process || config.filter_cgroup;
	if (new_state == TCP_SYN_SENT) {
		state->role = ROLE_CLIENT;
		state->announced = 0; /* connected anew, maybe to somebody else */
		if (filtered && passes_task(identity >> 32))
			state->passed |= PASSED_TASK;
	} else if (new_state == TCP_LISTEN) {
		state->role = ROLE_LISTENER;
		if (filtered && passes_task(identity >> 32))
			state->passed |= PASSED_TASK;
	} else if (new_state == TCP_ESTABLISHED) {
		state->role = old_state == TCP_SYN_SENT ? ROLE_CLIENT : ROLE_SERVER;
		state->opened_ns = now;
		if (tcp) {
			state->first_sent_sequence = BPF_CORE_READ(tcp, write_seq);
			state->first_received_sequence = BPF_CORE_READ(tcp, copied_seq);
			if (!filtered && !config.filter_port)
				pair_by_sequence(state);
		}
	}
	if (!is_recorded(sk, state))
		return 0;

	struct event_header header;
	fill_header(&header, count, KIND_STATE, now);
	header.thread = own ? (__u32)identity : 0;
	header.process = own ? identity >> 32 : 0;
	struct state_event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&count->lost, 1);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->header = header;
	event->socket = state->id;
	event->netns = netns_of(sk);
	event->cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	event->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	copy_addresses(sk, event->family, event->local_address, event->remote_address);
	event->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	event->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	event->old_state = old_state;
	event->new_state = new_state;
	event->error = BPF_CORE_READ(sk, sk_err);
	if (tcp) {
		event->sent_sequence = BPF_CORE_READ(tcp, write_seq);
		event->received_sequence = read_until(tcp);
		event->rtt_us = BPF_CORE_READ(tcp, srtt_us) >> 3; /* kept in eighths */
		event->rtt_min_us = BPF_CORE_READ(tcp, rtt_min.s[0].v);
		if (event->rtt_min_us == ~0U) /* no sample yet */
			event->rtt_min_us = 0;
		event->retransmits = BPF_CORE_READ(tcp, total_retrans);
		event->bytes_acknowledged = BPF_CORE_READ(tcp, bytes_acked);
		event->bytes_received = BPF_CORE_READ(tcp, bytes_received);
	}
	if (new_state == TCP_SYN_SENT)
		read_asked(event);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline int emit_tcp(struct sock *sk, __u8 what)
{
	struct counters *count = cpu_counters();
	if (!count)
		return 0;
	struct event_header header;
	__u64 id = 0;
	if (sk) {
		struct socket_state *state = state_of(sk, 0);
		if (state)
			id = state->id;
		if (state ? !is_recorded(sk, state) : config.filter_process || config.filter_cgroup || !passes_port(sk))
			return 0;
	} else if (config.filter_process || config.filter_cgroup || config.filter_port) {
		return 0;
	}
	fill_header(&header, count, KIND_TCP, bpf_ktime_get_boot_ns());
	header.thread = 0;
	header.process = 0;
	struct tcp_event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&count->lost, 1);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->header = header;
	event->socket = id;
	event->what = what;
	if (sk) {
		event->netns = netns_of(sk);
		event->family = BPF_CORE_READ(sk, __sk_common.skc_family);
		event->state = BPF_CORE_READ(sk, __sk_common.skc_state);
		copy_addresses(sk, event->family, event->local_address, event->remote_address);
		event->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
		event->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	}
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(on_retransmit, struct sock *sk)
{
	return emit_tcp(sk, TCP_RETRANSMIT);
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(on_receive_reset, struct sock *sk)
{
	return emit_tcp(sk, TCP_RESET_RECEIVED);
}

/* The socket may be NULL or half made (a request, a time-wait) here, so only its presence in TCP's own tables tells. */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(on_send_reset, struct sock *sk)
{
	if (!sk)
		return emit_tcp(NULL, TCP_RESET_SENT);
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == 0 || state == 6 /* TIME_WAIT */ || state == 12 /* NEW_SYN_RECV */)
		return emit_tcp(NULL, TCP_RESET_SENT);
	return emit_tcp(sk, TCP_RESET_SENT);
}

SEC("iter/task_file")
int walk_files(struct bpf_iter__task_file *context)
{
	struct task_struct *task = context->task;
	struct file *file = context->file;
	if (!task || !file || (__u32)task->tgid == config.own_process)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (!sk)
		return 0;
	__u16 family = sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	if (config.filter_process || config.filter_cgroup) {
		__u32 process = task->tgid;
		if (config.filter_process && !bpf_map_lookup_elem(&traced, &process))
			return 0;
		if (config.filter_cgroup && !in_traced_cgroup(BPF_CORE_READ(task, cgroups, dfl_cgrp)))
			return 0;
	}
	if (!passes_port(sk))
		return 0;
	struct socket_state *state = state_of(sk, 0);
	if (!state || state->walked == control.walk_number)
		return 0;
	bool first = state->walked == 0;
	state->walked = control.walk_number;
	if (sk->__sk_common.skc_state == TCP_LISTEN)
		state->role = ROLE_LISTENER;
	const struct tcp_sock *tcp = tcp_of(sk);
	if (tcp && first && !state->pair && state->role != ROLE_LISTENER && sk->__sk_common.skc_state != TCP_CLOSE)
		pair_by_address(state, sk, BPF_CORE_READ(tcp, write_seq), BPF_CORE_READ(tcp, copied_seq));

	struct socket_event event;
	__builtin_memset(&event, 0, sizeof(event));
	event.header.time_ns = bpf_ktime_get_boot_ns();
	event.header.sequence = ~0ULL; /* not from the ring: can't be lost */
	event.header.kind = KIND_SOCKET;
	event.header.cpu = (__u16)bpf_get_smp_processor_id();
	describe(&event, sk, state, task, SEEN_BY_WALK);
	/* A full buffer makes the kernel call this again for the same file, once the recorder has read what is there. */
	if (bpf_seq_write(context->meta->seq, &event, sizeof(event)) < 0)
		state->walked = control.walk_number - 1;
	return 0;
}

#endif
