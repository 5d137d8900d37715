/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which tasks and sockets are recorded. */
#ifndef KFR_SOCKET_FILTER_H
#define KFR_SOCKET_FILTER_H

#include "state.h"

/* cgroup v2 ids. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u8);
} traced_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u16);
	__type(value, __u8);
} traced_ports SEC(".maps");

/* The walk looks at tasks that aren't current; the recorder lists the cgroups below those asked for before it starts. */
static __always_inline bool in_traced_cgroup(struct cgroup *cgroup)
{
	__u64 id = BPF_CORE_READ(cgroup, kn, id);
	return bpf_map_lookup_elem(&traced_cgroups, &id) != NULL;
}

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

static __always_inline bool passes_port(const struct sock *sk)
{
	if (!config.filter_port)
		return true;
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX)
		return false;
	__u16 local = BPF_CORE_READ(sk, __sk_common.skc_num);
	__u16 remote = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	return bpf_map_lookup_elem(&traced_ports, &local) || bpf_map_lookup_elem(&traced_ports, &remote);
}

#endif
