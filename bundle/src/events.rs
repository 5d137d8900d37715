//! Event layouts: what a probe writes into the ring buffer, byte for byte.
//!
//! Each struct mirrors the C struct of the same name in `bpf/events.h`; a test of the capture crate compares every
//! offset and size with the BTF of the compiled probes, so the two can't drift apart. All integers are little-endian
//! and of fixed width; padding is explicit; there is no enum, bool or bit-field, because an unknown value from a newer
//! kernel side must be readable here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `EventHeader::kind`: bytes moved by one call on a stream socket ([`DataEvent`]).
pub const KIND_DATA: u16 = 1;
/// `EventHeader::kind`: one datagram on an unconnected socket, with the peer's address ([`DatagramEvent`]).
pub const KIND_DATAGRAM: u16 = 2;
/// `EventHeader::kind`: a socket seen for the first time ([`SocketEvent`]).
pub const KIND_SOCKET: u16 = 3;
/// `EventHeader::kind`: a TCP state change ([`StateEvent`]).
pub const KIND_STATE: u16 = 4;
/// `EventHeader::kind`: a retransmission or reset ([`TcpEvent`]).
pub const KIND_TCP: u16 = 5;
/// `EventHeader::kind`: exec, fork or exit ([`ProcessEvent`]).
pub const KIND_PROCESS: u16 = 6;

/// `DataEvent::direction`: the socket's owner sent these bytes.
pub const DIRECTION_SENT: u8 = 0;
/// `DataEvent::direction`: the socket's owner received these bytes.
pub const DIRECTION_RECEIVED: u8 = 1;

/// `offset_kind`: the low 32 bits of a TCP sequence number, that of the first byte moved.
pub const OFFSET_TCP: u8 = 0;
/// `offset_kind`: a count of bytes since the socket was first seen (unix, MPTCP, kernel TLS, sockmap).
pub const OFFSET_COUNTED: u8 = 1;
/// `offset_kind`: a count of datagrams since the socket was first seen.
pub const OFFSET_DATAGRAM: u8 = 2;

/// `DataEvent::missing`: everything that the call moved was kept.
pub const MISSING_NOTHING: u8 = 0;
/// `DataEvent::missing`: cut at the payload limit of a call.
pub const MISSING_LIMIT: u8 = 1;
/// `DataEvent::missing`: the connection moved so much one way that only lengths are kept.
pub const MISSING_BULK: u8 = 2;
/// `DataEvent::missing`: the ring was under pressure and the limit had shrunk.
pub const MISSING_PRESSURE: u8 = 3;
/// `DataEvent::missing`: the other end of the connection, on this node, keeps these bytes.
pub const MISSING_PEER_KEEPS: u8 = 4;
/// `DataEvent::missing`: a system call that moves bytes without a user buffer (sendfile, splice).
pub const MISSING_NO_BUFFER: u8 = 5;
/// `DataEvent::missing`: the task's own system call is another one (`io_uring`, a kernel thread), or names another
/// socket: its registers don't describe this transfer.
pub const MISSING_NOT_THIS_CALL: u8 = 6;
/// `DataEvent::missing`: a 32-bit task, whose registers and structures are laid out differently.
pub const MISSING_COMPAT: u8 = 7;
/// `DataEvent::missing`: the user's memory could not be read (paged out, unmapped).
pub const MISSING_FAULT: u8 = 8;
/// `DataEvent::missing`: more buffers (`iovec`s) than the probe walks.
pub const MISSING_SEGMENTS: u8 = 9;
/// `DataEvent::missing`: the message's place in a `sendmmsg` or `recvmmsg` is uncertain.
pub const MISSING_MESSAGE_INDEX: u8 = 10;
/// `DataEvent::missing`: the kernel discarded them without copying: `MSG_TRUNC` on TCP and MPTCP, a datagram longer than
/// its buffer.
pub const MISSING_DISCARDED: u8 = 11;

/// `role`: not known.
pub const ROLE_UNKNOWN: u8 = 0;
/// `role`: this end connected.
pub const ROLE_CLIENT: u8 = 1;
/// `role`: this end accepted.
pub const ROLE_SERVER: u8 = 2;
/// `role`: this socket listens.
pub const ROLE_LISTENER: u8 = 3;

/// `SocketEvent::seen_by`: the first call that moved bytes on it.
pub const SEEN_BY_DATA: u8 = 0;
/// `SocketEvent::seen_by`: a walk over the open files of every task (capture start or end).
pub const SEEN_BY_WALK: u8 = 1;

/// `TcpEvent::what`: a segment was retransmitted.
pub const TCP_RETRANSMIT: u8 = 1;
/// `TcpEvent::what`: this end sent a reset.
pub const TCP_RESET_SENT: u8 = 2;
/// `TcpEvent::what`: this end received a reset.
pub const TCP_RESET_RECEIVED: u8 = 3;

/// `ProcessEvent::what`: a process replaced its program.
pub const PROCESS_EXEC: u8 = 1;
/// `ProcessEvent::what`: a process was created.
pub const PROCESS_FORK: u8 = 2;
/// `ProcessEvent::what`: a process's last thread ended.
pub const PROCESS_EXIT: u8 = 3;

/// `family`: `AF_UNIX`.
pub const FAMILY_UNIX: u16 = 1;
/// `family`: `AF_INET`; the address is the first 4 bytes.
pub const FAMILY_INET: u16 = 2;
/// `family`: `AF_INET6`.
pub const FAMILY_INET6: u16 = 10;

/// What every event starts with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EventHeader {
    /// `CLOCK_BOOTTIME`, ns, when the call ended or the change happened.
    pub time_ns: u64,
    /// Number of this event on its CPU, taken before the ring was asked for room: a missing number is a lost event.
    pub sequence: u64,
    /// One of the `KIND_` constants.
    pub kind: u16,
    /// CPU that ran the probe.
    pub cpu: u16,
    /// Thread (host pid namespace); 0 where the current task is not the socket's.
    pub thread: u32,
    /// Process (thread group, host pid namespace); 0 where the current task is not the socket's.
    pub process: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bytes moved by one call on one socket. `kept` payload bytes follow the struct.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DataEvent {
    /// Common header.
    pub header: EventHeader,
    /// Socket: its kernel cookie, or for kernels that have none for tracing an address-derived number.
    pub socket: u64,
    /// Stream offset of the first byte, in the units of `offset_kind`.
    pub offset: u64,
    /// Bytes that the call moved.
    pub length: u32,
    /// Bytes of payload that follow, from the first one on; at most `length`.
    pub kept: u32,
    /// TCP: ns between the segment's way to the network (sent) or the last packet's arrival (received) and `time_ns`.
    /// 0 where unknown.
    pub age_ns: u32,
    /// `DIRECTION_SENT` or `DIRECTION_RECEIVED`.
    pub direction: u8,
    /// One of the `OFFSET_` constants.
    pub offset_kind: u8,
    /// Why `kept` is less than `length`: one of the `MISSING_` constants.
    pub missing: u8,
    /// Zero.
    pub reserved: u8,
}

/// A datagram on an unconnected socket: [`DataEvent`] and the peer's address; `kept` payload bytes follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramEvent {
    /// The datagram itself.
    pub data: DataEvent,
    /// Peer's address; zero where it could not be read.
    pub peer_address: [u8; 16],
    /// Peer's port, host byte order.
    pub peer_port: u16,
    /// Family of `peer_address`; 0 where it could not be read.
    pub peer_family: u16,
    /// Zero.
    pub reserved: u32,
}

/// Identity of a socket, emitted once, when it is first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketEvent {
    /// Common header; `process` and `thread` are the owner's.
    pub header: EventHeader,
    /// Socket, as in [`DataEvent`].
    pub socket: u64,
    /// Network namespace cookie; its inode number where the kernel has no cookies.
    pub netns: u64,
    /// cgroup v2 id of the owner.
    pub cgroup: u64,
    /// Unix sockets: the socket at the other end; else 0.
    pub peer: u64,
    /// Inode, as `ss -e` and `/proc/PID/fd` show it.
    pub inode: u64,
    /// `CLOCK_BOOTTIME` ns when the connection was established; 0 if that was before the capture.
    pub opened_ns: u64,
    /// Local address (IPv4: first 4 bytes).
    pub local_address: [u8; 16],
    /// Remote address (IPv4: first 4 bytes).
    pub remote_address: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Address family.
    pub family: u16,
    /// `SOCK_STREAM` 1, `SOCK_DGRAM` 2, `SOCK_SEQPACKET` 5.
    pub socket_type: u16,
    /// IP protocol number (6 TCP, 17 UDP, 262 MPTCP).
    pub protocol: u16,
    /// One of the `ROLE_` constants.
    pub role: u8,
    /// TCP state (`include/net/tcp_states.h`); for unix sockets too (1 established, 10 listening).
    pub state: u8,
    /// TCP: next sequence number to write, now.
    pub sent_sequence: u32,
    /// TCP: next sequence number to read, now.
    pub received_sequence: u32,
    /// TCP: sequence number of the first byte written, where the start was seen; else 0.
    pub first_sent_sequence: u32,
    /// TCP: sequence number of the first byte to read, where the start was seen; else 0.
    pub first_received_sequence: u32,
    /// One of the `OFFSET_` constants.
    pub offset_kind: u8,
    /// One of the `SEEN_BY_` constants.
    pub seen_by: u8,
    /// Bytes of `path` in use.
    pub path_length: u16,
    /// Command name of the owner's thread.
    pub comm: [u8; 16],
    /// Unix sockets: bound path, own or (for the connecting end) the peer's; abstract names begin with a zero byte.
    pub path: [u8; 108],
    /// Zero.
    pub reserved: u32,
}

/// A TCP state change. It can run in softirq on behalf of anybody, so it names no task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StateEvent {
    /// Common header; `process` and `thread` only at the caller's own connect (`SYN_SENT`) and listen.
    pub header: EventHeader,
    /// Socket, as in [`DataEvent`].
    pub socket: u64,
    /// Network namespace cookie.
    pub netns: u64,
    /// cgroup v2 id that the socket belongs to.
    pub cgroup: u64,
    /// Bytes acknowledged by the peer.
    pub bytes_acknowledged: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Local address (IPv4: first 4 bytes).
    pub local_address: [u8; 16],
    /// Remote address (IPv4: first 4 bytes).
    pub remote_address: [u8; 16],
    /// Address that the caller of `connect` asked for, before any translation in the kernel; at `SYN_SENT` only.
    pub asked_address: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Port that the caller of `connect` asked for.
    pub asked_port: u16,
    /// Family of `asked_address`; 0 where unknown.
    pub asked_family: u16,
    /// Address family.
    pub family: u16,
    /// State left (`include/net/tcp_states.h`).
    pub old_state: u8,
    /// State entered.
    pub new_state: u8,
    /// Next sequence number to write.
    pub sent_sequence: u32,
    /// Next sequence number to read.
    pub received_sequence: u32,
    /// Smoothed round-trip time, µs.
    pub rtt_us: u32,
    /// Lowest round-trip time, µs; 0 where unknown.
    pub rtt_min_us: u32,
    /// Segments retransmitted since the start.
    pub retransmits: u32,
    /// `sk_err`: errno of a failed connection.
    pub error: u32,
    /// Zero.
    pub reserved: u32,
}

/// A retransmission or reset of one TCP socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TcpEvent {
    /// Common header, without a task.
    pub header: EventHeader,
    /// Socket, as in [`DataEvent`]; 0 where a reset belongs to none.
    pub socket: u64,
    /// Network namespace cookie.
    pub netns: u64,
    /// Local address (IPv4: first 4 bytes).
    pub local_address: [u8; 16],
    /// Remote address (IPv4: first 4 bytes).
    pub remote_address: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Address family.
    pub family: u16,
    /// One of the `TCP_` constants.
    pub what: u8,
    /// TCP state.
    pub state: u8,
}

/// exec, fork or exit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessEvent {
    /// Common header; `process` is the one that ran exec, was created, or ended.
    pub header: EventHeader,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// Start time, `CLOCK_BOOTTIME` ns: with the pid it names a process for ever.
    pub start_ns: u64,
    /// Parent process.
    pub parent: u32,
    /// Pid in its own innermost pid namespace.
    pub namespace_process: u32,
    /// Wait status (exit only).
    pub exit_status: u32,
    /// One of the `PROCESS_` constants.
    pub what: u8,
    /// Zero.
    pub reserved: u8,
    /// Bytes of `arguments` in use (exec only).
    pub arguments_length: u16,
    /// Command name.
    pub comm: [u8; 16],
    /// Command line, separated by zero bytes, as far as it fits (exec only).
    pub arguments: [u8; 256],
}
