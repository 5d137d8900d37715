/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a probe writes into the ring buffer. bundle/src/events.rs has the same structs, field by field and with the
 * meaning of each; a test of the capture crate compares offsets and sizes with the BTF of the compiled probes.
 */
#ifndef KFR_EVENTS_H
#define KFR_EVENTS_H

enum kind {
	KIND_DATA = 1,
	KIND_DATAGRAM = 2,
	KIND_SOCKET = 3,
	KIND_STATE = 4,
	KIND_TCP = 5,
	KIND_PROCESS = 6,
};

enum direction {
	DIRECTION_SENT = 0,
	DIRECTION_RECEIVED = 1,
};

enum offset_kind {
	OFFSET_TCP = 0,
	OFFSET_COUNTED = 1,
	OFFSET_DATAGRAM = 2,
};

enum missing {
	MISSING_NOTHING = 0,
	MISSING_LIMIT = 1,
	MISSING_BULK = 2,
	MISSING_PRESSURE = 3,
	MISSING_PEER_KEEPS = 4,
	MISSING_NO_BUFFER = 5,
	MISSING_NOT_THIS_CALL = 6,
	MISSING_COMPAT = 7,
	MISSING_FAULT = 8,
	MISSING_SEGMENTS = 9,
	MISSING_MESSAGE_INDEX = 10,
	MISSING_DISCARDED = 11,
};

enum role {
	ROLE_UNKNOWN = 0,
	ROLE_CLIENT = 1,
	ROLE_SERVER = 2,
	ROLE_LISTENER = 3,
};

enum seen_by {
	SEEN_BY_DATA = 0,
	SEEN_BY_WALK = 1,
};

enum tcp_what {
	TCP_RETRANSMIT = 1,
	TCP_RESET_SENT = 2,
	TCP_RESET_RECEIVED = 3,
};

enum process_what {
	PROCESS_EXEC = 1,
	PROCESS_FORK = 2,
	PROCESS_EXIT = 3,
};

struct event_header {
	__u64 time_ns;
	__u64 sequence;
	__u16 kind;
	__u16 cpu;
	__u32 thread;
	__u32 process;
	__u32 reserved;
};

struct data_event {
	struct event_header header;
	__u64 socket;
	__u64 offset;
	__u32 length;
	__u32 kept;
	__u32 age_ns;
	__u8 direction;
	__u8 offset_kind;
	__u8 missing;
	__u8 reserved;
};

struct datagram_event {
	struct data_event data;
	__u8 peer_address[16];
	__u16 peer_port;
	__u16 peer_family;
	__u32 reserved;
};

struct socket_event {
	struct event_header header;
	__u64 socket;
	__u64 netns;
	__u64 cgroup;
	__u64 peer;
	__u64 inode;
	__u64 opened_ns;
	__u8 local_address[16];
	__u8 remote_address[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u16 socket_type;
	__u16 protocol;
	__u8 role;
	__u8 state;
	__u32 sent_sequence;
	__u32 received_sequence;
	__u32 first_sent_sequence;
	__u32 first_received_sequence;
	__u8 offset_kind;
	__u8 seen_by;
	__u16 path_length;
	__u8 comm[16];
	__u8 path[108];
	__u32 reserved;
};

struct state_event {
	struct event_header header;
	__u64 socket;
	__u64 netns;
	__u64 cgroup;
	__u64 bytes_acknowledged;
	__u64 bytes_received;
	__u8 local_address[16];
	__u8 remote_address[16];
	__u8 asked_address[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 asked_port;
	__u16 asked_family;
	__u16 family;
	__u8 old_state;
	__u8 new_state;
	__u32 sent_sequence;
	__u32 received_sequence;
	__u32 rtt_us;
	__u32 rtt_min_us;
	__u32 retransmits;
	__u32 error;
	__u32 reserved;
};

struct tcp_event {
	struct event_header header;
	__u64 socket;
	__u64 netns;
	__u8 local_address[16];
	__u8 remote_address[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u8 what;
	__u8 state;
};

struct process_event {
	struct event_header header;
	__u64 cgroup;
	__u64 start_ns;
	__u32 parent;
	__u32 namespace_process;
	__u32 exit_status;
	__u8 what;
	__u8 reserved;
	__u16 arguments_length;
	__u8 comm[16];
	__u8 arguments[256];
};

#endif
