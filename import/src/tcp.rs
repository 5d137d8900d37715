//! One TCP connection (RFC 9293), as the capture point saw it, told from its client's side.

use std::collections::VecDeque;

use kfr_bundle::events::{OFFSET_TCP, ROLE_CLIENT, ROLE_UNKNOWN, StateEvent, TCP_RESET_SENT, TCP_RETRANSMIT, TcpEvent};
use zerocopy::FromZeros;

use crate::counters::Counters;
use crate::flows::identity;
use crate::packet::{End, Tcp, Transport};
use crate::recorder::{Moved, Recorder};
use crate::stream::{PIECE_BYTES, Taken, Way};

// include/net/tcp_states.h
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT1: u8 = 4;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;

/// `ECONNREFUSED`, what `connect` says after a reset.
const REFUSED: u32 = 111;
/// A segment this far from its stream belongs to another connection, whose beginning the capture doesn't have: more than
/// any window in use.
const MAX_DISTANCE: u64 = 64 << 20;
/// How far from the stream's place a segment can be behind the connection's end: the largest window that is common.
const MAX_UNDER_WAY: u64 = 8 << 20;
/// A segment that comes this much after those behind it was sent again; else the network turned the order (the limit that
/// Wireshark uses, too, where it knows no round-trip time).
const TURNED_NS: u64 = 3_000_000;
/// Packets of a connection that wait where one acknowledges bytes that the capture doesn't have, and how long: captured at
/// several places, an acknowledgment can stand before its data.
const MAX_HELD: usize = 8;
const MAX_HELD_NS: u64 = 100_000_000;

/// Which connection of an address pair a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The one at hand.
    Same,
    /// A new one.
    New,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: u64,
    client: End,
    server: End,
    /// By direction, 0 from the client: the stream, the SYN's sequence number, the FIN's offset.
    ways: [Way; 2],
    syn: [Option<u32>; 2],
    fin: [Option<u64>; 2],
    state: u8,
    /// When the SYN was seen; `None` if it was not, or more than once (RFC 6298, section 3).
    syn_ns: Option<u64>,
    syn_ack_seen: bool,
    rtt_ns: Option<u64>,
    retransmits: u32,
    bytes: [u64; 2],
    last_ns: u64,
    /// Time of the last data event.
    delivered_ns: u64,
    closed_ns: Option<u64>,
    error: u32,
    /// Packets from the first on that acknowledges what is missing; boxed, since few connections have any.
    #[expect(clippy::box_collection, reason = "an empty queue is 32 bytes in each of 131,072 connections")]
    held: Option<Box<VecDeque<Held>>>,
}

/// A packet that waits.
#[derive(Debug)]
struct Held {
    time_ns: u64,
    from_server: bool,
    tcp: Tcp,
    length: u32,
    payload: Box<[u8]>,
}

impl Connection {
    /// A connection whose first packet this is.
    pub fn begin(socket: u64, packet: &Transport<'_>, tcp: &Tcp, recorder: &mut Recorder) -> Self {
        let asks = match (tcp.syn, tcp.acknowledged) {
            (true, None) => true,
            (true, Some(_)) => false,
            // In the middle: the higher port is the client's, most likely.
            (false, _) => packet.source.port >= packet.destination.port,
        };
        let (client, server) =
            if asks { (packet.source, packet.destination) } else { (packet.destination, packet.source) };
        let mut event = identity(socket, &client, &server);
        (event.socket_type, event.protocol, event.offset_kind) = (1, 6, OFFSET_TCP);
        event.role = if tcp.syn { ROLE_CLIENT } else { ROLE_UNKNOWN };
        event.state = if tcp.syn { SYN_SENT } else { ESTABLISHED };
        let (own, other) = (tcp.sequence, tcp.acknowledged.unwrap_or_default());
        (event.sent_sequence, event.received_sequence) = if asks { (own, other) } else { (other, own) };
        recorder.socket(&event, packet.time_ns);
        let mut connection = Self {
            socket,
            client,
            server,
            ways: [Way::default(), Way::default()],
            syn: [None; 2],
            fin: [None; 2],
            state: event.state,
            syn_ns: None,
            syn_ack_seen: false,
            rtt_ns: None,
            retransmits: 0,
            bytes: [0; 2],
            last_ns: packet.time_ns,
            delivered_ns: 0,
            closed_ns: None,
            error: 0,
            held: None,
        };
        // In the middle, the acknowledgment tells where the other direction stands.
        if let (false, Some(acknowledged)) = (tcp.syn, tcp.acknowledged)
            && let Some(way) = connection.ways.get_mut(usize::from(asks))
        {
            way.start_at(acknowledged);
        }
        if asks && tcp.syn {
            let mut event = connection.change(CLOSE, SYN_SENT);
            event.sent_sequence = tcp.sequence;
            recorder.state(&event, packet.time_ns);
        }
        connection
    }

    /// Its socket's number.
    pub fn socket(&self) -> u64 {
        self.socket
    }

    /// Memory of segments that wait for missing ones.
    pub fn waiting_bytes(&self) -> usize {
        let held = self.held.iter().flat_map(|held| held.iter()).map(|held| held.payload.len() + PIECE_BYTES);
        self.ways.iter().map(Way::waiting_bytes).chain(held).sum()
    }

    fn way_of(&self, packet: &Transport<'_>) -> usize {
        usize::from(packet.source != self.client)
    }

    /// Whether a packet between the same ends belongs to this connection: ports are used again.
    pub fn judge(&self, packet: &Transport<'_>, tcp: &Tcp) -> Verdict {
        let number = self.way_of(packet);
        let (Some(way), Some(syn)) = (self.ways.get(number), self.syn.get(number)) else { return Verdict::Same };
        let new = match (tcp.syn, tcp.acknowledged, syn) {
            (true, _, Some(syn)) => *syn != tcp.sequence,
            // Both ends connect at once, or the client of a new connection was the server of the old one.
            (true, None, None) => self.state != SYN_SENT || self.syn_ack_seen,
            // The answer to our SYN; else to one that the capture doesn't have.
            (true, Some(_), None) => {
                number == 0 || self.state != SYN_SENT && way.next().is_some_and(|_| way.distance(tcp.sequence) > 1)
            }
            // Behind both ends there is nothing of the old one but what is sent again, behind a reset what was under way.
            (false, _, _) if packet.length > 0 && !tcp.rst && self.closed_ns.is_some() => {
                let ended = self.fin.get(number).copied().flatten();
                ended.is_some_and(|fin| way.offset(tcp.sequence) >= fin) || way.distance(tcp.sequence) > MAX_UNDER_WAY
            }
            (false, _, _) => packet.length > 0 && !tcp.rst && way.distance(tcp.sequence) > MAX_DISTANCE,
        };
        if new { Verdict::New } else { Verdict::Same }
    }

    /// Takes a packet.
    pub fn packet(&mut self, packet: &Transport<'_>, tcp: &Tcp, counters: &mut Counters, recorder: &mut Recorder) {
        let number = self.way_of(packet);
        let Some(first) = self.first_held() else {
            if self.misses(number, tcp).is_some() {
                self.hold(number, packet, tcp);
            } else {
                self.take(packet, tcp, counters, recorder);
            }
            return;
        };
        let late = packet.time_ns.saturating_sub(first.time_ns) > MAX_HELD_NS;
        let missing = self.misses(usize::from(first.from_server), &first.tcp);
        if !late && packet.length > 0 && missing.is_some_and(|(way, offset)| self.brings(number, way, offset, tcp)) {
            // It belongs before those that wait.
            self.take(packet, tcp, counters, recorder);
            self.take_ready(counters, recorder);
            return;
        }
        self.hold(number, packet, tcp);
        if late || self.held.as_ref().is_some_and(|held| held.len() > MAX_HELD) {
            self.let_go(false, counters, recorder);
        }
    }

    /// Takes the first held packets that miss nothing any more.
    fn take_ready(&mut self, counters: &mut Counters, recorder: &mut Recorder) {
        while self.first_held().is_some_and(|first| self.misses(usize::from(first.from_server), &first.tcp).is_none()) {
            let Some(first) = self.held.as_mut().and_then(|held| held.pop_front()) else { return };
            self.take_held(&first, counters, recorder);
        }
        if self.first_held().is_none() {
            self.held = None;
        }
    }

    fn first_held(&self) -> Option<&Held> {
        self.held.as_ref()?.front()
    }

    /// The direction, and the offset up to which its bytes are known to be sent, where some of these are not here. One byte
    /// may be a FIN that was not captured.
    fn misses(&self, number: usize, tcp: &Tcp) -> Option<(usize, u64)> {
        let other = 1 - number;
        let (way, fin) = (self.ways.get(other)?, self.fin.get(other)?);
        let acknowledged = way.offset(tcp.acknowledged.filter(|_| !tcp.rst && !tcp.syn)?);
        let to = fin.map_or(acknowledged, |fin| fin.min(acknowledged));
        let missing = to.checked_sub(way.next()?)?;
        let least = if fin.is_some() { 1 } else { 2 };
        (least..MAX_DISTANCE).contains(&missing).then_some((other, to))
    }

    /// Whether a segment of direction `number` has bytes that are missing before `offset` of `way`.
    fn brings(&self, number: usize, way: usize, offset: u64, tcp: &Tcp) -> bool {
        number == way && self.ways.get(way).is_some_and(|way| way.offset(tcp.sequence) < offset)
    }

    fn hold(&mut self, number: usize, packet: &Transport<'_>, tcp: &Tcp) {
        let Transport { time_ns, length, payload, .. } = *packet;
        let held = Held { time_ns, from_server: number == 1, tcp: *tcp, length, payload: payload.into() };
        self.held.get_or_insert_default().push_back(held);
    }

    /// What is missing is lost: takes the packets that waited for it. At the capture's end, the last byte may be a FIN that was
    /// not captured.
    fn let_go(&mut self, at_end: bool, counters: &mut Counters, recorder: &mut Recorder) {
        let mut held = self.held.take().unwrap_or_default();
        while let Some(first) = held.pop_front() {
            while let Some((way, offset)) = self.misses(usize::from(first.from_server), &first.tcp) {
                let brings = |later: &Held| {
                    later.length > 0 && self.brings(usize::from(later.from_server), way, offset, &later.tcp)
                };
                if let Some(later) = held.iter().position(brings).and_then(|at| held.remove(at)) {
                    self.take_held(&later, counters, recorder);
                    continue;
                }
                let goes_on = held.iter().any(|later| usize::from(later.from_server) == way && later.length > 0);
                let may_be_fin = at_end && self.fin.get(way) == Some(&None) && !goes_on;
                self.lose_to(way, offset - u64::from(may_be_fin), first.time_ns, counters, recorder);
                break;
            }
            self.take_held(&first, counters, recorder);
        }
    }

    fn take_held(&mut self, held: &Held, counters: &mut Counters, recorder: &mut Recorder) {
        let (source, destination) =
            if held.from_server { (self.server, self.client) } else { (self.client, self.server) };
        let Held { time_ns, tcp, length, ref payload, .. } = *held;
        let packet = Transport { time_ns, source, destination, tcp: Some(tcp), length, payload };
        self.take(&packet, &tcp, counters, recorder);
    }

    fn lose_to(&mut self, number: usize, offset: u64, time_ns: u64, counters: &mut Counters, recorder: &mut Recorder) {
        let (socket, bytes, last) = (self.socket, &mut self.bytes, &mut self.delivered_ns);
        let Some(way) = self.ways.get_mut(number) else { return };
        let taken = way.lose_to(offset, time_ns, &mut deliver(socket, number, (bytes, last), recorder));
        count_gaps(&taken, counters);
    }

    fn take(&mut self, packet: &Transport<'_>, tcp: &Tcp, counters: &mut Counters, recorder: &mut Recorder) {
        let number = self.way_of(packet);
        self.last_ns = self.last_ns.max(packet.time_ns);
        if tcp.syn {
            self.synchronise(number, packet, tcp, counters, recorder);
        }
        if let Some(acknowledged) = tcp.acknowledged {
            self.acknowledge(number, acknowledged, counters, recorder);
        }
        if !tcp.syn && !tcp.rst {
            self.establish(number, tcp, packet.time_ns, recorder);
        }
        let sequence = if tcp.syn { tcp.sequence.wrapping_add(1) } else { tcp.sequence };
        if !tcp.rst {
            self.data(number, sequence, packet, tcp, counters, recorder);
        }
        if tcp.fin {
            self.finished(number, sequence, packet, counters, recorder);
        }
        if tcp.rst {
            self.reset(number, packet.time_ns, recorder);
        }
        self.note_close(packet.time_ns);
    }

    fn synchronise(
        &mut self,
        number: usize,
        packet: &Transport<'_>,
        tcp: &Tcp,
        counters: &mut Counters,
        recorder: &mut Recorder,
    ) {
        let (Some(way), Some(syn)) = (self.ways.get_mut(number), self.syn.get_mut(number)) else { return };
        if syn.is_some() {
            self.syn_ns = None;
            counters.retransmitted_segments += 1;
            self.retransmitted(number, packet.time_ns, recorder);
            return;
        }
        *syn = Some(tcp.sequence);
        way.start_at(tcp.sequence.wrapping_add(1));
        if number == 0 {
            self.syn_ns = Some(packet.time_ns);
        } else if let Some(acknowledged) = tcp.acknowledged {
            self.syn_ack_seen = true;
            let [from_client, _] = &mut self.ways;
            from_client.start_at(acknowledged);
        }
    }

    /// The handshake is over with the first packet after both SYNs, or after as much of it as was captured.
    fn establish(&mut self, number: usize, tcp: &Tcp, time_ns: u64, recorder: &mut Recorder) {
        if self.state != SYN_SENT {
            return;
        }
        let [from_client, from_server] = &mut self.ways;
        if number == 0 {
            // Without the answer to the SYN, its acknowledgment tells where the server begins.
            match tcp.acknowledged {
                Some(acknowledged) => from_server.start_at(acknowledged),
                None => return,
            }
            if self.syn_ack_seen {
                self.rtt_ns = self.syn_ns.map(|syn_ns| time_ns.saturating_sub(syn_ns));
            }
        } else {
            from_server.start_at(tcp.sequence);
        }
        let (Some(sent), Some(received)) = (from_client.next(), from_server.next()) else { return };
        // Bytes in the SYN (RFC 7413) may have moved the stream already.
        let first = |syn: Option<u32>, next: u64| syn.map_or(next as u32, |syn| syn.wrapping_add(1));
        let firsts = (first(self.syn[0], sent), first(self.syn[1], received));
        let mut event = self.change(SYN_SENT, ESTABLISHED);
        (event.sent_sequence, event.received_sequence) = firsts;
        recorder.state(&event, time_ns);
        self.state = ESTABLISHED;
    }

    fn acknowledge(&mut self, number: usize, acknowledged: u32, counters: &mut Counters, recorder: &mut Recorder) {
        let other = 1 - number;
        let (socket, bytes, last) = (self.socket, &mut self.bytes, &mut self.delivered_ns);
        let Some(way) = self.ways.get_mut(other) else { return };
        let taken = way.acknowledge(acknowledged, &mut deliver(socket, other, (bytes, last), recorder));
        count_gaps(&taken, counters);
    }

    fn data(
        &mut self,
        number: usize,
        sequence: u32,
        packet: &Transport<'_>,
        tcp: &Tcp,
        counters: &mut Counters,
        recorder: &mut Recorder,
    ) {
        let Some(way) = self.ways.get_mut(number) else { return };
        if !tcp.syn && !tcp.fin && way.is_keep_alive(sequence, packet.length) {
            counters.keep_alives += 1;
            return;
        }
        if packet.length == 0 {
            return;
        }
        counters.segments += 1;
        let (socket, bytes, last) = (self.socket, &mut self.bytes, &mut self.delivered_ns);
        let taken = way.push(
            sequence,
            packet.length,
            packet.payload,
            packet.time_ns,
            &mut deliver(socket, number, (bytes, last), recorder),
        );
        count_gaps(&taken, counters);
        counters.overlaps_conflicting += u64::from(taken.conflicting);
        counters.retransmitted_bytes += u64::from(taken.repeated);
        let turned_ns = self.rtt_ns.unwrap_or(0).max(TURNED_NS);
        let late = taken.late_ns.is_some_and(|late_ns| late_ns > turned_ns);
        if taken.repeated > 0 || late {
            counters.retransmitted_segments += 1;
            self.retransmitted(number, packet.time_ns, recorder);
        } else if taken.late_ns.is_some() {
            counters.segments_out_of_order += 1;
        }
    }

    fn finished(
        &mut self,
        number: usize,
        sequence: u32,
        packet: &Transport<'_>,
        counters: &mut Counters,
        recorder: &mut Recorder,
    ) {
        let (Some(way), Some(fin)) = (self.ways.get_mut(number), self.fin.get_mut(number)) else { return };
        let at = way.offset(sequence).saturating_add(u64::from(packet.length));
        if let Some(fin) = fin {
            if *fin == at && packet.length == 0 {
                counters.retransmitted_segments += 1;
                self.retransmitted(number, packet.time_ns, recorder);
            }
            return;
        }
        *fin = Some(at);
        let new = match (self.state, number) {
            (ESTABLISHED, 0) => FIN_WAIT1,
            (ESTABLISHED, _) => CLOSE_WAIT,
            (FIN_WAIT1, 1) => TIME_WAIT,
            (CLOSE_WAIT, 0) => LAST_ACK,
            _ => return,
        };
        recorder.state(&self.change(self.state, new), packet.time_ns);
        self.state = new;
    }

    fn reset(&mut self, number: usize, time_ns: u64, recorder: &mut Recorder) {
        // A reset after the end (a late segment met a closed socket) ended nothing.
        if self.closed_ns.is_some() {
            return;
        }
        recorder.tcp(&self.event(number, TCP_RESET_SENT), time_ns);
        if self.state == SYN_SENT && number == 1 {
            self.error = REFUSED;
        }
        self.closed_ns = Some(time_ns);
    }

    /// Both ends closed and know of each other.
    fn note_close(&mut self, time_ns: u64) {
        let done = |way: &Way, fin: Option<u64>| matches!((way.acknowledged(), fin), (Some(acknowledged), Some(fin)) if acknowledged > fin);
        let [from_client, from_server] = &self.ways;
        if self.closed_ns.is_none() && done(from_client, self.fin[0]) && done(from_server, self.fin[1]) {
            self.closed_ns = Some(time_ns);
        }
    }

    fn retransmitted(&mut self, number: usize, time_ns: u64, recorder: &mut Recorder) {
        self.retransmits = self.retransmits.saturating_add(1);
        recorder.tcp(&self.event(number, TCP_RETRANSMIT), time_ns);
    }

    /// Gives out everything that waits.
    pub fn release(&mut self, forced: bool, counters: &mut Counters, recorder: &mut Recorder) {
        self.let_go(!forced, counters, recorder);
        for number in 0..2 {
            let (socket, bytes, last) = (self.socket, &mut self.bytes, &mut self.delivered_ns);
            let Some(way) = self.ways.get_mut(number) else { continue };
            let taken = way.release(&mut deliver(socket, number, (bytes, last), recorder));
            count_gaps(&taken, counters);
            counters.gaps_forced += if forced { u64::from(taken.gaps) } else { 0 };
        }
    }

    /// Nothing more of it will come.
    pub fn finish(&mut self, counters: &mut Counters, recorder: &mut Recorder) {
        self.release(false, counters, recorder);
        for number in 0..2 {
            // Bytes before a FIN were sent, though no later one tells of them.
            let next = self.ways.get(number).and_then(Way::next).unwrap_or(0);
            if let Some(fin) =
                self.fin.get(number).copied().flatten().filter(|fin| fin.saturating_sub(next) < MAX_DISTANCE)
            {
                self.lose_to(number, fin, self.last_ns, counters, recorder);
            }
        }
        if let Some(closed_ns) = self.closed_ns {
            let mut event = self.change(self.state, CLOSE);
            event.error = self.error;
            // As in the kernel, a FIN that was sent counts as a byte.
            let fin = u32::from(matches!(self.state, FIN_WAIT1 | TIME_WAIT | LAST_ACK));
            event.sent_sequence = event.sent_sequence.wrapping_add(fin);
            // Its last bytes may have been in order only later.
            recorder.state(&event, closed_ns.max(self.delivered_ns));
        }
    }

    /// A state change of the client's socket.
    fn change(&self, old: u8, new: u8) -> StateEvent {
        let mut event = StateEvent::new_zeroed();
        event.socket = self.socket;
        event.family = self.client.family;
        (event.local_address, event.local_port) = (self.client.address, self.client.port);
        (event.remote_address, event.remote_port) = (self.server.address, self.server.port);
        (event.old_state, event.new_state) = (old, new);
        let [sent, received] = &self.ways;
        event.sent_sequence = sent.next().unwrap_or_default() as u32;
        event.received_sequence = received.next().unwrap_or_default() as u32;
        [event.bytes_acknowledged, event.bytes_received] = self.bytes;
        event.rtt_us = self.rtt_ns.map_or(0, |ns| u32::try_from(ns.div_ceil(1000)).unwrap_or(u32::MAX));
        event.rtt_min_us = event.rtt_us;
        event.retransmits = self.retransmits;
        event
    }

    /// A retransmission or reset; its sender is `local`.
    fn event(&self, number: usize, what: u8) -> TcpEvent {
        let (local, remote) = if number == 0 { (self.client, self.server) } else { (self.server, self.client) };
        let mut event = TcpEvent::new_zeroed();
        event.socket = self.socket;
        event.family = local.family;
        (event.local_address, event.local_port) = (local.address, local.port);
        (event.remote_address, event.remote_port) = (remote.address, remote.port);
        (event.what, event.state) = (what, self.state);
        event
    }
}

fn count_gaps(taken: &Taken, counters: &mut Counters) {
    counters.gaps += u64::from(taken.gaps);
    counters.segments_missing_bytes += taken.missing;
    counters.gaps_forced += u64::from(taken.forced);
}

/// Writes what is in order.
fn deliver<'a>(
    socket: u64,
    number: usize,
    (bytes, last_ns): (&'a mut [u64; 2], &'a mut u64),
    recorder: &'a mut Recorder,
) -> impl FnMut(u32, u32, &[u8], u64) + 'a {
    move |sequence, length, payload, time_ns| {
        if let Some(bytes) = bytes.get_mut(number) {
            *bytes += u64::from(length);
        }
        *last_ns = (*last_ns).max(time_ns);
        let offset = u64::from(sequence);
        recorder.moved(&Moved { socket, sent: number == 0, offset_kind: OFFSET_TCP, offset, length, payload, time_ns });
    }
}
