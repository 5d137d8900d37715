//! Two ends, one connection: finds the sockets that talk to each other.

use std::collections::BTreeMap;

use kfr_bundle::events::{OFFSET_TCP, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
use rustc_hash::FxHashMap;

use crate::identity::{Endpoint, KnownBy, Socket, Sockets, Transport};

/// A connection, by its one or two recorded sockets (numbers in the table of sockets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The end whose order of events counts: the client's, where it was recorded.
    pub observer: u32,
    /// The other end, where it was recorded too.
    pub peer: Option<u32>,
    /// Whether the observer is the client; `None` until its bytes tell.
    pub observer_is_client: Option<bool>,
    /// How the ends were matched.
    pub known_by: Option<KnownBy>,
    /// The same packets, captured once more behind a translation of addresses: the socket as it was nearest to the server,
    /// and how that is known.
    pub translated: Option<(u32, KnownBy)>,
}

/// What a bundle's sockets are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Source {
    /// It was made of packets, of which one may be captured several times on its way.
    pub imported: bool,
    /// The run of a kernel in which sockets keep their names; zeros where that is not known.
    pub boot: [u8; 16],
    /// What to add to event times for wall clock, ns, more or less.
    pub epoch_ns: i64,
}

/// All connections, and the connection of each socket.
#[derive(Debug, Default)]
pub struct Connections {
    /// In the order in which their first socket was named.
    pub all: Vec<Connection>,
    /// By number of the socket; `u32::MAX` for listeners.
    of_socket: Vec<u32>,
}

/// Between two places of one node a packet takes less.
const COPIED_NS: u64 = 100_000_000;
/// Flows of one client's address that are looked at: a copy comes right behind what it is one of, and a port can have talked
/// to everybody.
const MAX_SAME_CLIENT: usize = 16;
/// In place of a connection's number: a listener, or nobody's.
const NONE: u32 = u32::MAX;
/// The socket is another one's as well: its bytes count there.
const COPY: u32 = u32::MAX - 1;

impl Connections {
    /// Joins the sockets of all bundles.
    ///
    /// `sources` says of bundles what they are made of; `answers` says of two endpoints that the first is an address of a
    /// Service and the second one that answers for it.
    pub fn new(sockets: &Sockets, sources: &[Source], answers: impl Fn(&Socket, &Socket) -> bool) -> Self {
        let copies = find_copies(sockets.all(), sources, answers);
        let mut connections = Self { all: Vec::new(), of_socket: vec![NONE; sockets.all().len()] };
        for (copy, _) in copies.values().flatten() {
            if let Some(slot) = connections.of_socket.get_mut(*copy as usize) {
                *slot = COPY;
            }
        }
        let peers = match_ends(sockets.all(), |number| connections.is_copy(number));
        for (number, socket) in sockets.all().iter().enumerate() {
            let number = number as u32;
            if socket.role == ROLE_LISTENER || connections.of_socket.get(number as usize) != Some(&NONE) {
                continue;
            }
            let peer = peers.get(&number).copied();
            let is_translated = |(copy, _): &&(u32, KnownBy)| {
                let copy = sockets.get(*copy);
                copy.is_some_and(|copy| (&copy.local, &copy.remote) != (&socket.local, &socket.remote))
            };
            let translated = copies.get(&number).and_then(|copies| copies.iter().rfind(is_translated)).copied();
            let connection = Connection { translated, ..orient(sockets, number, peer) };
            let index = connections.all.len() as u32;
            for end in [Some(number), connection.peer, Some(connection.observer)].into_iter().flatten() {
                if let Some(slot) = connections.of_socket.get_mut(end as usize) {
                    *slot = index;
                }
            }
            connections.all.push(connection);
        }
        connections
    }

    /// The connection of a socket.
    pub fn of(&self, socket: u32) -> Option<u32> {
        self.of_socket.get(socket as usize).copied().filter(|index| *index < COPY)
    }

    /// Whether a socket's bytes are those of another one, captured again.
    pub fn is_copy(&self, socket: u32) -> bool {
        self.of_socket.get(socket as usize) == Some(&COPY)
    }
}

fn orient(sockets: &Sockets, number: u32, peer: Option<(u32, KnownBy)>) -> Connection {
    let role = |index: u32| sockets.get(index).map_or(0, |socket| socket.role);
    let (own, other) = (role(number), peer.map_or(0, |(peer, _)| role(peer)));
    let own_is_client = match (own, other) {
        (ROLE_CLIENT, _) | (_, ROLE_SERVER) => Some(true),
        (ROLE_SERVER, _) | (_, ROLE_CLIENT) => Some(false),
        _ => None,
    };
    let known_by = peer.map(|(_, known_by)| known_by);
    match (own_is_client, peer) {
        (Some(false), Some((client, _))) => {
            let (peer, observer_is_client) = (Some(number), Some(true));
            Connection { observer: client, peer, observer_is_client, known_by, translated: None }
        }
        _ => {
            let (peer, observer_is_client) = (peer.map(|(peer, _)| peer), own_is_client);
            Connection { observer: number, peer, observer_is_client, known_by, translated: None }
        }
    }
}

/// Sockets that are others once more, by the first one and in order: those of imported bundles whose packets were captured
/// more than once, before and behind a translation of addresses, and what several bundles have of one socket. Sequence numbers
/// stay what they are on the way; without them (datagrams, or where the copies begin with different packets) the client's
/// address has to be the same, and the Service known.
fn find_copies(
    all: &[Socket],
    sources: &[Source],
    answers: impl Fn(&Socket, &Socket) -> bool,
) -> BTreeMap<u32, Vec<(u32, KnownBy)>> {
    let source = |socket: &Socket| sources.get(socket.id.0 as usize).copied().unwrap_or_default();
    let mut copies = BTreeMap::<u32, Vec<(u32, KnownBy)>>::new();
    let mut by_sequence = FxHashMap::default();
    let mut by_client = FxHashMap::<_, Vec<u32>>::default();
    let elsewhere = find_recorded_twice(all, source);
    for (copy, original) in &elsewhere {
        copies.entry(*original).or_default().push((*copy, KnownBy::Sequence));
    }
    for (number, socket) in all.iter().enumerate().filter(|(_, socket)| source(socket).imported) {
        let number = number as u32;
        if elsewhere.contains_key(&number) {
            continue;
        }
        let bundle = socket.id.0;
        let sequences =
            socket.first_sequences.map(|first| (true, first)).or(socket.seen_sequences.map(|seen| (false, seen)));
        if let (Transport::Tcp, Some(sequences)) = (socket.transport, sequences) {
            let original = *by_sequence.entry((bundle, sequences)).or_insert(number);
            if all.get(original as usize).is_some_and(|original| may_be_copies(original, socket, 0)) {
                copies.entry(original).or_default().push((number, KnownBy::Sequence));
                continue;
            }
        }
        let key = (bundle, socket.transport == Transport::Udp, &socket.local);
        let same_client = by_client.entry(key).or_default();
        let original = same_client.iter().rev().take(MAX_SAME_CLIENT).copied().find(|other| {
            all.get(*other as usize).is_some_and(|other| at_once(other, socket) && answers(other, socket))
        });
        match original {
            Some(original) => copies.entry(original).or_default().push((number, KnownBy::EndpointSlice)),
            None => same_client.push(number),
        }
    }
    copies
}

/// Sockets that another bundle has too, by their numbers: two recordings of one node, or packets of a connection that was
/// recorded, or captured elsewhere as well. What the socket itself showed comes before packets.
fn find_recorded_twice(all: &[Socket], source: impl Fn(&Socket) -> Source) -> BTreeMap<u32, u32> {
    let mut copies = BTreeMap::new();
    if all.iter().all(|socket| Some(socket.id.0) == all.first().map(|first| first.id.0)) {
        return copies;
    }
    let mut by_name = FxHashMap::default();
    let mut by_sequence = FxHashMap::default();
    let numbered = || all.iter().enumerate().filter(|(_, socket)| socket.role != ROLE_LISTENER);
    let recorded = numbered().filter(|(_, socket)| !source(socket).imported);
    for (number, socket) in recorded.chain(numbered().filter(|(_, socket)| source(socket).imported)) {
        let (number, own) = (number as u32, source(socket));
        if own.boot != [0; 16] {
            let name = (own.boot, socket.id.1, &socket.local, &socket.remote);
            let original = *by_name.entry(name).or_insert(number);
            if all.get(original as usize).is_some_and(|original| original.id.0 != socket.id.0) {
                copies.insert(number, original);
                continue;
            }
        }
        let Some(sequences) = socket.first_sequences.filter(|_| socket.transport == Transport::Tcp) else { continue };
        let original = *by_sequence.entry(sequences).or_insert(number);
        let is_copy = all.get(original as usize).is_some_and(|original| {
            let apart_ns = source(original).epoch_ns.saturating_sub(own.epoch_ns);
            original.id.0 != socket.id.0
                && (own.imported || source(original).imported)
                && ((&original.local, &original.remote) == (&socket.local, &socket.remote)
                    || may_be_copies(original, socket, apart_ns))
        });
        if is_copy {
            copies.insert(number, original);
        }
    }
    copies
}

/// Whether two sockets with the same sequence numbers can be one connection, captured twice on its way: an address was
/// translated in between, and no time went by. Made-up captures give all connections the same numbers.
/// `apart_ns`: what to add to times of `a` for the clock of `b`.
fn may_be_copies(a: &Socket, b: &Socket, apart_ns: i64) -> bool {
    let translated = match (&a.local, &b.local, &a.remote, &b.remote) {
        (a_local, b_local, Endpoint::Ip(a_remote, _), Endpoint::Ip(b_remote, _)) if a_local == b_local => {
            a_remote != b_remote
        }
        (Endpoint::Ip(a_local, _), Endpoint::Ip(b_local, _), ..) => a_local != b_local,
        _ => false,
    };
    let a_seen_ns = a.first_seen_ns.saturating_add_signed(apart_ns);
    let overlap = a.id.0 != b.id.0 || at_once(a, b);
    translated && overlap && a_seen_ns.abs_diff(b.first_seen_ns) < COPIED_NS
}

/// Whether two sockets lived at the same time, as far as that is known.
fn at_once(a: &Socket, b: &Socket) -> bool {
    let before = |x: &Socket, y: &Socket| x.closed_ns.is_some_and(|closed_ns| closed_ns < y.first_seen_ns);
    !before(a, b) && !before(b, a)
}

/// The other end of each socket; `is_copy` says which sockets are other ones once more.
fn match_ends(all: &[Socket], is_copy: impl Fn(u32) -> bool) -> FxHashMap<u32, (u32, KnownBy)> {
    let mut peers = FxHashMap::default();
    let mut by_sequence: FxHashMap<(u32, u32), u32> = FxHashMap::default();
    let mut by_address: FxHashMap<(&Endpoint, &Endpoint), Vec<u32>> = FxHashMap::default();
    let mut by_name: FxHashMap<(u32, u64), u32> = FxHashMap::default();
    for (number, socket) in all.iter().enumerate() {
        let number = number as u32;
        if socket.role == ROLE_LISTENER || is_copy(number) {
            continue;
        }
        match socket.transport {
            Transport::Tcp | Transport::Mptcp => {
                if let Some((sent, received)) = socket.first_sequences {
                    if let Some(other) = by_sequence.remove(&(received, sent)) {
                        pair(&mut peers, number, other, KnownBy::Sequence);
                        continue;
                    }
                    by_sequence.insert((sent, received), number);
                }
            }
            Transport::Unix => {
                by_name.insert(socket.id, number);
            }
            _ => {}
        }
    }
    for (number, socket) in all.iter().enumerate() {
        let number = number as u32;
        if peers.contains_key(&number) || socket.role == ROLE_LISTENER || is_copy(number) {
            continue;
        }
        match socket.transport {
            Transport::Tcp | Transport::Mptcp | Transport::Udp => {
                let mirrored = by_address.get_mut(&(&socket.remote, &socket.local));
                let found = mirrored.and_then(|list| {
                    let at = list
                        .iter()
                        .position(|other| all.get(*other as usize).is_some_and(|other| belongs(socket, other)))?;
                    Some(list.remove(at))
                });
                match found {
                    Some(other) => pair(&mut peers, number, other, KnownBy::Address),
                    None => by_address.entry((&socket.local, &socket.remote)).or_default().push(number),
                }
            }
            Transport::Unix if socket.unix_peer != 0 => {
                if let Some(other) = by_name.get(&(socket.id.0, socket.unix_peer))
                    && *other != number
                    && !peers.contains_key(other)
                {
                    pair(&mut peers, number, *other, KnownBy::UnixPeer);
                }
            }
            _ => {}
        }
    }
    peers
}

fn pair(peers: &mut FxHashMap<u32, (u32, KnownBy)>, a: u32, b: u32, known_by: KnownBy) {
    peers.insert(a, (b, known_by));
    peers.insert(b, (a, known_by));
}

/// Whether two sockets with mirrored addresses are one connection: loopback addresses exist in every network namespace,
/// ports are reused, so sequence numbers have to be near each other and lifetimes to overlap.
fn belongs(a: &Socket, b: &Socket) -> bool {
    let loopback = matches!(&a.remote, Endpoint::Ip(ip, _) if ip.is_loopback());
    if loopback && (a.netns != b.netns || a.id.0 != b.id.0) {
        return false;
    }
    if a.id.0 == b.id.0 {
        let ends_before = |x: &Socket, y: &Socket| matches!((x.closed_ns, y.opened_ns.or(y.connecting_ns)), (Some(closed), Some(opened)) if closed < opened);
        if ends_before(a, b) || ends_before(b, a) {
            return false;
        }
    }
    if a.offset_kind != OFFSET_TCP || b.offset_kind != OFFSET_TCP {
        return true;
    }
    // Both starts were seen, and they differ: two connections.
    if a.first_sequences.is_some() && b.first_sequences.is_some() {
        return false;
    }
    let near = |x: u32, y: u32| x.wrapping_sub(y).cast_signed().unsigned_abs() < 1 << 30;
    match (a.seen_sequences.or(a.first_sequences), b.seen_sequences.or(b.first_sequences)) {
        (Some((sent, received)), Some((other_sent, other_received))) => {
            near(sent, other_received) && near(received, other_sent)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfr_bundle::Address;
    use kfr_bundle::events::{FAMILY_INET, SocketEvent, StateEvent};
    use zerocopy::FromZeros;

    const PACKETS: Source = Source { imported: true, boot: [0; 16], epoch_ns: 0 };
    const AT: Address = Address { origin: 1, block: 0, row: 0 };

    fn identity(socket: u64, netns: u64, local: u16, remote: u16, sequences: (u32, u32)) -> SocketEvent {
        let mut event = SocketEvent::new_zeroed();
        event.socket = socket;
        event.netns = netns;
        event.family = FAMILY_INET;
        event.socket_type = 1;
        event.protocol = 6;
        event.state = 1;
        event.local_address[..4].copy_from_slice(&[127, 0, 0, 1]);
        event.remote_address[..4].copy_from_slice(&[127, 0, 0, 1]);
        event.local_port = local;
        event.remote_port = remote;
        event.sent_sequence = sequences.0;
        event.received_sequence = sequences.1;
        event
    }

    fn joined(build: impl FnOnce(&mut Sockets)) -> Connections {
        let mut sockets = Sockets::default();
        build(&mut sockets);
        sockets.finish();
        Connections::new(&sockets, &[Source::default(); 2], |_, _| false)
    }

    #[test]
    fn mirrored_addresses_in_one_namespace_are_one_connection() {
        let connections = joined(|sockets| {
            sockets.add_identity(0, &identity(1, 7, 5000, 80, (100, 200)), AT);
            sockets.add_identity(0, &identity(2, 7, 80, 5000, (200, 100)), AT);
            sockets.add_identity(0, &identity(3, 8, 5000, 80, (100, 200)), AT);
        });
        assert_eq!(connections.all.len(), 2);
        assert_eq!((connections.all[0].observer, connections.all[0].peer), (0, Some(1)));
        assert_eq!(connections.all[1].peer, None);
    }

    #[test]
    fn far_sequence_numbers_are_two_connections() {
        let connections = joined(|sockets| {
            sockets.add_identity(0, &identity(1, 7, 5000, 80, (100, 200)), AT);
            sockets.add_identity(0, &identity(2, 7, 80, 5000, (200 + (2 << 30), 100)), AT);
        });
        assert_eq!(connections.all.len(), 2);
    }

    #[test]
    fn translated_addresses_join_by_sequence_and_the_client_observes() {
        let established = |socket: u64, old_state: u8, local: u16, remote: u16, sent: u32, received: u32| {
            let mut event = StateEvent::new_zeroed();
            event.socket = socket;
            event.family = FAMILY_INET;
            event.old_state = old_state;
            event.new_state = 1;
            event.local_port = local;
            event.remote_port = remote;
            event.sent_sequence = sent;
            event.received_sequence = received;
            event
        };
        let connections = joined(|sockets| {
            sockets.add_state(0, &established(1, 3, 8080, 41000, 900, 300), AT);
            sockets.add_state(0, &established(2, 2, 41000, 80, 300, 900), AT);
        });
        assert_eq!(connections.all.len(), 1);
        let connection = connections.all[0];
        assert_eq!((connection.observer, connection.peer), (1, Some(0)));
        assert_eq!((connection.observer_is_client, connection.known_by), (Some(true), Some(KnownBy::Sequence)));
    }

    /// A socket of a packet capture: number, local and remote address, sequence numbers, when it was first seen.
    type Flow = (u64, &'static str, &'static str, (u32, u32), u64);

    fn captured(flows: &[Flow]) -> Connections {
        let mut sockets = Sockets::default();
        for (socket, local, remote, sequences, seen_ns) in flows {
            let address = |text: &str| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&text.parse::<std::net::Ipv4Addr>().unwrap().octets());
                bytes
            };
            let mut event = identity(*socket, 0, 40000, 80, *sequences);
            event.header.time_ns = *seen_ns;
            (event.local_address, event.remote_address) = (address(local), address(remote));
            if *sequences == (0, 0) {
                (event.socket_type, event.protocol, event.offset_kind) = (2, 17, 0);
            }
            sockets.add_identity(0, &event, AT);
        }
        sockets.finish();
        let is = |endpoint: &Endpoint, ip: &str| matches!(endpoint, Endpoint::Ip(own, _) if own.to_string() == ip);
        Connections::new(&sockets, &[PACKETS], |a, b| is(&a.remote, "10.96.0.1") && is(&b.remote, "10.0.0.9"))
    }

    #[test]
    fn what_was_captured_twice_around_a_translation_is_one_connection() {
        const LATER: u64 = 200_000_000;
        let found = captured(&[
            (1, "10.0.0.1", "10.96.0.1", (7, 9), 0),
            (2, "10.0.0.1", "10.0.0.9", (7, 9), 5),
            // Made-up captures begin all connections with the same numbers.
            (3, "10.0.0.2", "10.96.0.1", (7, 9), LATER),
            // Source and destination were translated.
            (4, "10.0.0.3", "10.96.0.1", (8, 8), 0),
            (5, "192.0.2.1", "10.0.0.9", (8, 8), 5),
        ]);
        let observers: Vec<_> = found.all.iter().map(|one| (one.observer, one.translated)).collect();
        let copy = |number| Some((number, KnownBy::Sequence));
        assert_eq!(observers, [(0, copy(1)), (2, None), (3, copy(4))]);
        assert!(found.is_copy(1) && found.is_copy(4) && found.of(1).is_none());
    }

    fn established(socket: u64, local: u16, remote: u16, sequences: (u32, u32), time_ns: u64) -> StateEvent {
        let mut event = StateEvent::new_zeroed();
        event.header.time_ns = time_ns;
        event.socket = socket;
        event.family = FAMILY_INET;
        event.old_state = if remote < local { 2 } else { 3 };
        event.new_state = 1;
        (event.local_port, event.remote_port) = (local, remote);
        (event.sent_sequence, event.received_sequence) = sequences;
        event
    }

    #[test]
    fn what_two_bundles_have_of_one_socket_is_one_connection() {
        const SECOND: u64 = 1_000_000_000;
        let recorded = |boot: u8| Source { boot: [boot; 16], ..Source::default() };
        let found = |sources: [Source; 2], second: (u64, (u32, u32)), translated: bool, at: [u64; 2]| {
            let mut sockets = Sockets::default();
            sockets.add_state(0, &established(5, 40_000, 80, (7, 9), at[0]), AT);
            let mut event = established(second.0, 40_000, 80, second.1, at[1]);
            event.remote_address[0] = u8::from(translated);
            sockets.add_state(1, &event, AT);
            sockets.finish();
            let found = Connections::new(&sockets, &sources, |_, _| false);
            (found.all.len(), found.all[0].observer)
        };
        // Two recordings of one node; the same name on another node is another socket.
        assert_eq!(found([recorded(1), recorded(1)], (5, (7, 9)), false, [0, 0]), (1, 0));
        assert_eq!(found([recorded(1), recorded(2)], (5, (8, 9)), false, [0, 0]).0, 2);
        // Packets of what was recorded, whichever is named first.
        assert_eq!(found([PACKETS, recorded(2)], (6, (7, 9)), false, [0, 0]), (1, 1));
        assert_eq!(found([PACKETS, PACKETS], (6, (7, 9)), false, [0, SECOND]), (1, 0));
        assert_eq!(found([PACKETS, PACKETS], (6, (7, 10)), false, [0, 0]).0, 2);
        // An address was translated: at the same moment, by the wall clock.
        let booted = Source { epoch_ns: -50_000_000_000, ..recorded(1) };
        assert_eq!(found([booted, PACKETS], (6, (7, 9)), true, [50 * SECOND, 0]), (1, 0));
        assert_eq!(found([recorded(1), PACKETS], (6, (7, 9)), true, [50 * SECOND, 0]).0, 2);
    }

    #[test]
    fn datagrams_need_a_service_and_who_answers_for_it() {
        let mut flows = vec![(1, "10.0.0.1", "10.96.0.1", (0, 0), 0), (2, "10.0.0.1", "10.0.0.9", (0, 0), 5)];
        let found = captured(&flows);
        assert_eq!(found.all[0].translated, Some((1, KnownBy::EndpointSlice)));
        flows[1].2 = "10.0.0.8";
        assert_eq!(captured(&flows).all.len(), 2);
    }

    #[test]
    fn a_port_that_talked_to_everybody_takes_no_longer() {
        let flows: Vec<_> = (1..100_000).map(|number| (number, "10.0.0.1", "10.0.0.8", (0, 0), number)).collect();
        assert_eq!(captured(&flows).all.len(), flows.len());
    }
}
