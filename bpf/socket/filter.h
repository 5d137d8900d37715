/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which sockets are recorded; for tasks see emit.h. */
#ifndef KFR_SOCKET_FILTER_H
#define KFR_SOCKET_FILTER_H

#include "state.h"

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
