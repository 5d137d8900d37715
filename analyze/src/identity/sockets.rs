//! The sockets of all bundles, put together from identities and state changes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kfr_bundle::events::{
    FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, OFFSET_TCP, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER, ROLE_UNKNOWN,
    SEEN_BY_DATA, SocketEvent, StateEvent, TCP_RESET_RECEIVED, TCP_RESET_SENT, TCP_RETRANSMIT, TcpEvent,
};
use kfr_bundle::{Address, Peer};
use rustc_hash::{FxHashMap, FxHashSet};

const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_SENT: u8 = 2;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_LISTEN: u8 = 10;
const TCP_CLOSING: u8 = 11;

/// Ends of unconnected sockets that are told apart; datagrams of further ones count as their socket's.
const MAX_PEERS: usize = 1 << 20;

/// A socket: the bundle's number on the command line, and the socket's name in it.
pub type SocketId = (u32, u64);

/// What a socket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// Multipath TCP.
    Mptcp,
    /// UDP.
    Udp,
    /// Unix stream or sequenced packets.
    Unix,
    /// Unix datagrams.
    UnixDatagram,
    /// Anything else.
    Other,
}

impl Transport {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
            Self::Udp => "udp",
            Self::Unix => "unix",
            Self::UnixDatagram => "unix_datagram",
            Self::Other => "other",
        }
    }
}

/// An address and port, or a unix socket's path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// Internet.
    Ip(IpAddr, u16),
    /// Unix; empty where it has no name.
    Path(Box<str>),
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::Path("".into())
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// This end closed first.
    Here,
    /// The other end closed first.
    There,
    /// By a reset.
    Reset,
    /// It ended, but not how.
    Unknown,
}

/// A socket.
#[derive(Debug, Clone, Default)]
pub struct Socket {
    /// Its name.
    pub id: SocketId,
    /// What it carries.
    pub transport: Transport,
    /// Network namespace cookie.
    pub netns: u64,
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// `ROLE_` constant.
    pub role: u8,
    /// `OFFSET_` constant.
    pub offset_kind: u8,
    /// Owner; 0 where only state changes were seen.
    pub process: u32,
    /// Command name of the owner's thread.
    pub comm: Box<str>,
    /// The unix socket at the other end, 0 if none.
    pub unix_peer: u64,
    /// When it was first seen, event time.
    pub first_seen_ns: u64,
    /// When connect began, event time.
    pub connecting_ns: Option<u64>,
    /// When it was established, event time; `None` if before the capture.
    pub opened_ns: Option<u64>,
    /// When it ended, event time.
    pub closed_ns: Option<u64>,
    /// How.
    pub closed: Option<Closed>,
    /// TCP: sequence numbers of the first byte each way, where the start was seen.
    pub first_sequences: Option<(u32, u32)>,
    /// TCP: sequence numbers (sent, received) when it was first seen.
    pub seen_sequences: Option<(u32, u32)>,
    /// TCP: sequence numbers behind the last byte (sent, received), its FIN left out.
    pub final_sequences: Option<(u32, u32)>,
    /// Smoothed round-trip time, µs, at the last state change; 0 unknown.
    pub rtt_us: u32,
    /// Lowest round-trip time, µs; 0 unknown.
    pub rtt_min_us: u32,
    /// Round-trip time of the handshake, µs: of a server from its SYN-ACK to the client's ACK; 0 unknown.
    pub handshake_rtt_us: u32,
    /// Segments retransmitted, as events.
    pub retransmits: u32,
    /// Resets sent and received.
    pub resets: u32,
    /// Address that the caller of connect asked for, where it differs from `remote`.
    pub asked: Option<Endpoint>,
    /// errno of a failed connect.
    pub error: u32,
    /// Left SYN_SENT for CLOSE.
    pub failed: bool,
    /// First event that names it.
    pub evidence: Option<Address>,
    /// True if a socket event gave its identity (and not only a state change).
    pub identified: bool,
    /// True if that event was its own data's, so that the walk over open sockets had not met it before.
    pub found_by_data: bool,
}

/// A connection attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedConnect {
    /// The socket.
    pub socket: SocketId,
    /// errno (`ECONNREFUSED` 111, `ETIMEDOUT` 110, `EHOSTUNREACH` 113).
    pub error: u32,
}

/// The table of sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    all: Vec<Socket>,
    index: FxHashMap<SocketId, u32>,
    /// An unconnected socket talks to many: each is a socket of its own here.
    peers: FxHashMap<(SocketId, Peer), u32>,
    /// Those that have been seen, in the order of the file.
    seen_peers: Vec<(SocketId, Peer, u64, Address)>,
    known_peers: FxHashSet<(SocketId, Peer)>,
    /// Sockets that received datagrams whose sender the kernel did not show.
    asked_by_nobody: FxHashSet<SocketId>,
    /// (bundle, netns, port) that somebody listens on.
    listening: BTreeSet<(u32, u64, u16)>,
}

fn ip(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        FAMILY_INET => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
        // An IPv4 peer of a dual-stack socket is the IPv4 address.
        FAMILY_INET6 => Some(Ipv6Addr::from(bytes).to_canonical()),
        _ => None,
    }
}

/// The address of an unconnected socket's other end, where it is one of the internet.
pub fn peer_ip(peer: &Peer) -> Option<IpAddr> {
    ip(peer.family, peer.address)
}

fn endpoint(family: u16, bytes: [u8; 16], port: u16) -> Endpoint {
    ip(family, bytes).map_or_else(Endpoint::default, |ip| Endpoint::Ip(ip, port))
}

fn text(bytes: &[u8]) -> Box<str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into()
}

/// A unix socket's path; abstract names, which begin with a zero byte, are shown as `@name`, as `ss` does.
fn path(event: &SocketEvent) -> Endpoint {
    let used = event.path.get(..usize::from(event.path_length)).unwrap_or_default();
    match used.split_first() {
        Some((0, name)) => Endpoint::Path(format!("@{}", String::from_utf8_lossy(name).trim_end_matches('\0')).into()),
        Some(_) => Endpoint::Path(text(used)),
        None => Endpoint::default(),
    }
}

impl Sockets {
    fn entry(&mut self, id: SocketId, time_ns: u64, evidence: Address) -> &mut Socket {
        let next = self.all.len() as u32;
        let index = *self.index.entry(id).or_insert(next);
        if index == next {
            self.all.push(Socket { id, first_seen_ns: time_ns, evidence: Some(evidence), ..Socket::default() });
        }
        // The index comes from the table itself.
        &mut self.all[index as usize]
    }

    /// Adds an identity. Call it in the order of the file, before [`Sockets::finish`].
    pub fn add_identity(&mut self, bundle: u32, event: &SocketEvent, evidence: Address) {
        let transport = match (event.family, event.socket_type, event.protocol) {
            (FAMILY_UNIX, 2, _) => Transport::UnixDatagram,
            (FAMILY_UNIX, _, _) => Transport::Unix,
            (_, _, 6) => Transport::Tcp,
            (_, _, 262) => Transport::Mptcp,
            (_, _, 17) => Transport::Udp,
            _ => Transport::Other,
        };
        let local = endpoint(event.family, event.local_address, event.local_port);
        let listens = event.role == ROLE_LISTENER || event.state == TCP_LISTEN;
        if listens && let Endpoint::Ip(_, port) = local {
            self.listening.insert((bundle, event.netns, port));
        }
        let socket = self.entry((bundle, event.socket), event.header.time_ns, evidence);
        if socket.identified {
            return;
        }
        socket.identified = true;
        socket.found_by_data = event.seen_by == SEEN_BY_DATA;
        socket.transport = transport;
        socket.netns = event.netns;
        socket.offset_kind = event.offset_kind;
        socket.process = event.header.process;
        socket.comm = text(&event.comm);
        socket.unix_peer = event.peer;
        if event.family == FAMILY_UNIX {
            socket.local = path(event);
            socket.remote = socket.local.clone();
        } else {
            socket.local = local;
            socket.remote = endpoint(event.family, event.remote_address, event.remote_port);
        }
        socket.role = if listens { ROLE_LISTENER } else { event.role };
        if event.opened_ns > 0 {
            socket.opened_ns = Some(event.opened_ns);
        }
        if event.first_sent_sequence != 0 || event.first_received_sequence != 0 {
            socket.first_sequences = Some((event.first_sent_sequence, event.first_received_sequence));
        }
        if event.offset_kind == OFFSET_TCP {
            socket.seen_sequences = Some((event.sent_sequence, event.received_sequence));
        }
    }

    /// Adds a state change.
    pub fn add_state(&mut self, bundle: u32, event: &StateEvent, evidence: Address) {
        let local = endpoint(event.family, event.local_address, event.local_port);
        let remote = endpoint(event.family, event.remote_address, event.remote_port);
        if event.new_state == TCP_LISTEN
            && let Endpoint::Ip(_, port) = local
        {
            self.listening.insert((bundle, event.netns, port));
        }
        let time_ns = event.header.time_ns;
        let socket = self.entry((bundle, event.socket), time_ns, evidence);
        if event.header.process != 0 && socket.process == 0 {
            socket.process = event.header.process;
        }
        socket.netns = event.netns;
        if !socket.identified {
            socket.offset_kind = OFFSET_TCP;
        }
        match event.new_state {
            TCP_SYN_SENT => {
                socket.role = ROLE_CLIENT;
                socket.connecting_ns = Some(time_ns);
                socket.remote = remote.clone();
                let asked = endpoint(event.asked_family, event.asked_address, event.asked_port);
                socket.asked = (event.asked_family != 0 && asked != remote).then_some(asked);
            }
            TCP_ESTABLISHED => {
                socket.role = if event.old_state == TCP_SYN_SENT { ROLE_CLIENT } else { ROLE_SERVER };
                socket.opened_ns = Some(time_ns);
                socket.local = local;
                socket.remote = remote;
                socket.first_sequences = Some((event.sent_sequence, event.received_sequence));
                socket.handshake_rtt_us = event.rtt_us;
            }
            TCP_LISTEN => {
                socket.role = ROLE_LISTENER;
                socket.local = local;
            }
            TCP_FIN_WAIT1 => socket.closed = socket.closed.or(Some(Closed::Here)),
            TCP_CLOSE_WAIT => socket.closed = socket.closed.or(Some(Closed::There)),
            TCP_CLOSE => {
                socket.closed_ns = Some(time_ns);
                socket.failed = event.old_state == TCP_SYN_SENT;
                socket.error = event.error;
                socket.closed = socket.closed.or(Some(if socket.resets > 0 { Closed::Reset } else { Closed::Unknown }));
                // The kernel counts a FIN that it has sent as a byte.
                let fin = matches!(event.old_state, TCP_FIN_WAIT1..=TCP_TIME_WAIT | TCP_LAST_ACK | TCP_CLOSING);
                let sent = event.sent_sequence.wrapping_sub(u32::from(fin));
                let known = (event.sent_sequence, event.received_sequence) != (0, 0);
                socket.final_sequences = known.then_some((sent, event.received_sequence));
            }
            _ => {}
        }
        if event.rtt_us > 0 {
            socket.rtt_us = event.rtt_us;
        }
        if event.rtt_min_us > 0 {
            socket.rtt_min_us = event.rtt_min_us;
        }
    }

    /// Adds a retransmission or reset.
    pub fn add_tcp(&mut self, bundle: u32, event: &TcpEvent, evidence: Address) {
        if event.socket == 0 {
            return;
        }
        let socket = self.entry((bundle, event.socket), event.header.time_ns, evidence);
        match event.what {
            TCP_RETRANSMIT => socket.retransmits += 1,
            TCP_RESET_SENT | TCP_RESET_RECEIVED => {
                socket.resets += 1;
                socket.closed = Some(Closed::Reset);
            }
            _ => {}
        }
    }

    /// Adds whom an unconnected socket talked to, by a datagram of his.
    pub fn add_peer(&mut self, id: SocketId, peer: Peer, time_ns: u64, evidence: Address) {
        if self.known_peers.len() < MAX_PEERS && self.known_peers.insert((id, peer)) {
            self.seen_peers.push((id, peer, time_ns, evidence));
        }
    }

    /// Notes that a socket received a datagram without its sender's address: the `sock` hook runs before the kernel knows it.
    pub fn add_asked_by_nobody(&mut self, id: SocketId) {
        if self.asked_by_nobody.len() < MAX_PEERS {
            self.asked_by_nobody.insert(id);
        }
    }

    /// Whether a socket received datagrams without their senders' addresses: what it was asked can't be told by peer.
    pub fn is_asked_by_nobody(&self, id: SocketId) -> bool {
        self.asked_by_nobody.contains(&id)
    }

    /// Number of the socket that stands for an unconnected socket's talk with `peer`.
    pub fn find_peer(&self, id: SocketId, peer: Peer) -> Option<u32> {
        self.peers.get(&(id, peer)).copied()
    }

    /// Makes a socket of each end that an unconnected one talked to.
    fn split_unconnected(&mut self) {
        self.known_peers = FxHashSet::default();
        for (id, peer, time_ns, evidence) in std::mem::take(&mut self.seen_peers) {
            let remote = endpoint(peer.family, peer.address, peer.port);
            let Some(base) = self.find(id).and_then(|index| self.all.get(index as usize)) else { continue };
            if matches!(remote, Endpoint::Path(_)) {
                continue;
            }
            let socket = Socket { remote, first_seen_ns: time_ns, evidence: Some(evidence), ..base.clone() };
            self.peers.insert((id, peer), self.all.len() as u32);
            self.all.push(socket);
        }
    }

    /// Decides roles that no event told: a local port that somebody listens on is a server's.
    pub fn finish(&mut self) {
        self.split_unconnected();
        for socket in &mut self.all {
            if socket.role != ROLE_UNKNOWN {
                continue;
            }
            let bundle = socket.id.0;
            let listens = |endpoint: &Endpoint| match endpoint {
                Endpoint::Ip(_, port) => self.listening.contains(&(bundle, socket.netns, *port)),
                Endpoint::Path(_) => false,
            };
            if listens(&socket.local) {
                socket.role = ROLE_SERVER;
            } else if listens(&socket.remote) {
                socket.role = ROLE_CLIENT;
            }
        }
    }

    /// Number of a socket in [`Sockets::all`].
    pub fn find(&self, id: SocketId) -> Option<u32> {
        self.index.get(&id).copied()
    }

    /// Adds a socket that only data events name.
    pub fn add_unknown(&mut self, id: SocketId, time_ns: u64) {
        let next = self.all.len() as u32;
        if *self.index.entry(id).or_insert(next) == next {
            self.all.push(Socket { id, first_seen_ns: time_ns, transport: Transport::Other, ..Socket::default() });
        }
    }

    /// All sockets, in the order in which they were first named.
    pub fn all(&self) -> &[Socket] {
        &self.all
    }

    /// One socket.
    pub fn get(&self, index: u32) -> Option<&Socket> {
        self.all.get(index as usize)
    }

    /// Ports that somebody listens on: (bundle, netns, port).
    pub fn listening(&self) -> &BTreeSet<(u32, u64, u16)> {
        &self.listening
    }
}
