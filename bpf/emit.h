/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What all probes share: the ring, its counters, and the filter by task. */
#ifndef KFR_EMIT_H
#define KFR_EMIT_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "events.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Keeps the compiler from reasoning a bound away that the verifier needs to see. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

/* Set before load; capture/src/probes.rs has the same struct. The only constant of a probe. */
struct config {
	__u64 ring_bytes;
	__u64 bulk_refill_ns; /* a one-way run is counted anew after this time */
	__u32 own_process; /* the recorder itself is never recorded */
	__u32 bulk_limit; /* bytes moved one way, without an answer, after which only lengths are kept */
	__u32 filter_process; /* 1: only processes in `traced` */
	__u32 filter_cgroup; /* 1: only tasks in or below one of `traced_cgroups` */
	__u32 filter_port; /* 1: only sockets with a port in `traced_ports` */
	__u32 ask_mask; /* how full the ring is, is asked at each event whose number and this have no bit in common */
};
const volatile struct config config = {};

/* Changed by the recorder while it runs. The only variable of a probe. */
struct control {
	__u64 boot_offset_ns; /* CLOCK_BOOTTIME less CLOCK_MONOTONIC (TCP's own clock); differs only by time suspended */
	__u32 payload_limit; /* bytes kept of one call */
	__u32 walk_number; /* the walk under way */
};
struct control control = {};

/* The ring never wakes its reader: the recorder drains it on a timer. Sized by --buffer-size before load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} ring SEC(".maps");

struct counters {
	__u64 sequence; /* events numbered */
	__u64 lost; /* of these, refused by a full ring */
	__u64 shrunk; /* events whose payload was cut because the ring was under pressure */
	__u64 refused_state; /* sockets for which no state could be allocated */
	__u64 waiting; /* bytes in the ring when it was last asked */
	__u64 asked; /* events that wanted to know */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

/* Processes to record (thread group ids), inherited on fork. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} traced SEC(".maps");

/* cgroup v2 ids. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u8);
} traced_cgroups SEC(".maps");

/* Whether the current task, of this process, is to be recorded. */
static __always_inline bool passes_task(__u32 process)
{
	if (process == config.own_process)
		return false;
	if (config.filter_process && !bpf_map_lookup_elem(&traced, &process))
		return false;
	if (config.filter_cgroup) {
		/* Depth of a cgroup tree in practice: slice, slice, pod, container and a nested one or two. */
		for (int level = 0; level < 12; level++) {
			__u64 id = bpf_get_current_ancestor_cgroup_id(level);
			if (!id)
				return false;
			if (bpf_map_lookup_elem(&traced_cgroups, &id))
				return true;
		}
		return false;
	}
	return true;
}

/* Never called, so never loaded: puts all layouts into the object's BTF, where capture/tests/layout.rs reads them. */
struct layouts {
	struct datagram_event datagram;
	struct socket_event socket;
	struct state_event state;
	struct tcp_event tcp;
	struct process_event process;
};
__noinline int show_layouts(struct layouts *all)
{
	return all != NULL;
}

static __always_inline struct counters *cpu_counters(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&counters, &zero);
}

/*
 * Fills the header and takes the event's number: before the ring is asked for room, so that a refused event leaves a
 * hole in the numbers. Atomic because a softirq may run another probe on this CPU in between.
 */
static __always_inline void fill_header(struct event_header *header, struct counters *count, __u16 kind, __u64 now)
{
	header->time_ns = now;
	header->sequence = __sync_fetch_and_add(&count->sequence, 1);
	header->kind = kind;
	header->cpu = (__u16)bpf_get_smp_processor_id();
	header->reserved = 0;
}

#endif
