//! One TCP connection (RFC 9293), as the capture point saw it, told from its client's side.

use kfr_bundle::events::{OFFSET_TCP, ROLE_CLIENT, ROLE_UNKNOWN, StateEvent, TCP_RESET_SENT, TCP_RETRANSMIT, TcpEvent};
use zerocopy::FromZeros;

use crate::counters::Counters;
use crate::flows::identity;
use crate::packet::{End, Tcp, Transport};
use crate::recorder::{Moved, Recorder};
use crate::stream::{Taken, Way};

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
/// A segment that comes this much after those behind it was sent again; else the network turned the order (the limit that
/// Wireshark uses, too, where it knows no round-trip time).
const TURNED_NS: u64 = 3_000_000;

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
        let connection = Self {
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
        };
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
        self.ways.iter().map(Way::waiting_bytes).sum()
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
            (false, _, _) => packet.length > 0 && !tcp.rst && way.distance(tcp.sequence) > MAX_DISTANCE,
        };
        if new { Verdict::New } else { Verdict::Same }
    }

    /// Takes a packet.
    pub fn packet(&mut self, packet: &Transport<'_>, tcp: &Tcp, counters: &mut Counters, recorder: &mut Recorder) {
        let number = self.way_of(packet);
        self.last_ns = self.last_ns.max(packet.time_ns);
        if tcp.syn {
            self.synchronise(number, packet, tcp, counters, recorder);
        }
        if let Some(acknowledged) = tcp.acknowledged {
            self.acknowledge(number, acknowledged, packet.time_ns, counters, recorder);
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

    fn acknowledge(
        &mut self,
        number: usize,
        acknowledged: u32,
        time_ns: u64,
        counters: &mut Counters,
        recorder: &mut Recorder,
    ) {
        let other = 1 - number;
        let (socket, bytes, last) = (self.socket, &mut self.bytes, &mut self.delivered_ns);
        let Some(way) = self.ways.get_mut(other) else { return };
        let taken = way.acknowledge(acknowledged, &mut deliver(socket, other, time_ns, (bytes, last), recorder));
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
            &mut deliver(socket, number, packet.time_ns, (bytes, last), recorder),
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
    pub fn release(&mut self, time_ns: u64, forced: bool, counters: &mut Counters, recorder: &mut Recorder) {
        for number in 0..2 {
            let (socket, bytes, last) = (self.socket, &mut self.bytes, &mut self.delivered_ns);
            let Some(way) = self.ways.get_mut(number) else { continue };
            let taken = way.release(&mut deliver(socket, number, time_ns, (bytes, last), recorder));
            count_gaps(&taken, counters);
            counters.gaps_forced += if forced { u64::from(taken.gaps) } else { 0 };
        }
    }

    /// Nothing more of it will come.
    pub fn finish(&mut self, counters: &mut Counters, recorder: &mut Recorder) {
        self.release(self.last_ns, false, counters, recorder);
        let ends: [Option<u64>; 2] = std::array::from_fn(|number| self.end_of(number));
        for (way, end) in self.ways.iter().zip(ends) {
            let missing = way.next().zip(end).map_or(0, |(next, end)| end.saturating_sub(next));
            counters.gaps += u64::from(missing > 0);
            counters.segments_missing_bytes += missing;
        }
        if let Some(closed_ns) = self.closed_ns {
            let mut event = self.change(self.state, CLOSE);
            event.error = self.error;
            let [sent, received] = ends;
            // As in the kernel, a FIN that was sent counts, one that was received doesn't.
            let fin = u64::from(matches!(self.state, FIN_WAIT1 | TIME_WAIT | LAST_ACK));
            event.sent_sequence = sent.map_or(event.sent_sequence, |end| (end + fin) as u32);
            event.received_sequence = received.map_or(event.received_sequence, |end| end as u32);
            // Its last bytes may have been in order only later.
            recorder.state(&event, closed_ns.max(self.delivered_ns));
        }
    }

    /// Behind the last byte of one direction. Those that the other side has, or that come before a FIN, were sent, though
    /// no later byte tells of them.
    fn end_of(&self, number: usize) -> Option<u64> {
        let (way, fin) = (self.ways.get(number)?, self.fin.get(number)?);
        // One more than the bytes may be a FIN that was not captured.
        let told = fin.or_else(|| Some(way.acknowledged()?.saturating_sub(1)));
        way.next().max(told)
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
    time_ns: u64,
    (bytes, last_ns): (&'a mut [u64; 2], &'a mut u64),
    recorder: &'a mut Recorder,
) -> impl FnMut(u32, u32, &[u8]) + 'a {
    move |sequence, length, payload| {
        if let Some(bytes) = bytes.get_mut(number) {
            *bytes += u64::from(length);
        }
        *last_ns = (*last_ns).max(time_ns);
        let offset = u64::from(sequence);
        recorder.moved(&Moved { socket, sent: number == 0, offset_kind: OFFSET_TCP, offset, length, payload, time_ns });
    }
}
