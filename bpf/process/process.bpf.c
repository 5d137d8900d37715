// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* exec, fork and exit of processes; threads are left out. */
#include "../emit.h"

static __always_inline void emit(struct task_struct *task, __u8 what)
{
	struct counters *count = cpu_counters();
	if (!count)
		return;
	struct event_header header;
	fill_header(&header, count, KIND_PROCESS, bpf_ktime_get_boot_ns());
	struct process_event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&count->lost, 1);
		return;
	}
	event->header = header;
	event->header.thread = BPF_CORE_READ(task, pid);
	event->header.process = BPF_CORE_READ(task, tgid);
	event->cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	event->start_ns = BPF_CORE_READ(task, start_boottime);
	event->parent = BPF_CORE_READ(task, real_parent, tgid);
	event->namespace_process = 0;
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	unsigned int level = BPF_CORE_READ(pid, level);
	if (level < 32) {
		struct upid id = {};
		bpf_core_read(&id, sizeof(id), &pid->numbers[0]);
		if (level > 0) {
			/* numbers[] has one entry a level; the innermost is the last. */
			__u64 step = bpf_core_type_size(struct upid);
			__u64 first = (__u64)pid + bpf_core_field_offset(struct pid, numbers);
			bpf_probe_read_kernel(&id, sizeof(id.nr), (void *)(first + level * step));
		}
		event->namespace_process = id.nr;
	}
	event->exit_status = what == PROCESS_EXIT ? BPF_CORE_READ(task, exit_code) : 0;
	event->what = what;
	event->reserved = 0;
	event->arguments_length = 0;
	/* The ring's memory holds older events, payload among them. */
	__builtin_memset(event->arguments, 0, sizeof(event->arguments));
	BPF_CORE_READ_INTO(&event->comm, task, comm);
	if (what == PROCESS_EXEC) {
		unsigned long start = BPF_CORE_READ(task, mm, arg_start);
		unsigned long length = BPF_CORE_READ(task, mm, arg_end) - start;
		if (length > sizeof(event->arguments))
			length = sizeof(event->arguments);
		if (length > 0 && !bpf_probe_read_user(event->arguments, length, (void *)start))
			event->arguments_length = length;
	}
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	if (passes_task(task->tgid))
		emit(task, PROCESS_EXEC);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 process = child->tgid;
	if ((__u32)child->pid != process)
		return 0; /* a thread */
	if (config.filter_process) {
		__u32 from = parent->tgid;
		__u8 one = 1;
		if (bpf_map_lookup_elem(&traced, &from))
			bpf_map_update_elem(&traced, &process, &one, BPF_ANY);
	}
	if (passes_task(parent->tgid))
		emit(child, PROCESS_FORK);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	if (BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0; /* other threads live on */
	__u32 process = task->tgid;
	if (passes_task(process))
		emit(task, PROCESS_EXIT);
	if (config.filter_process)
		bpf_map_delete_elem(&traced, &process);
	return 0;
}
