//! One connection while it is replayed: events of its one or two sockets in, exchanges with their times out.
//!
//! One end is the *observer*: its events alone decide the order in which a decoder sees the two directions, because
//! times of two sockets can't be compared (a send is stamped when its call returns, which may be after the reader has
//! answered). The other end, where it was recorded, gives payload that the observer's events don't carry, and times.

use std::collections::{BTreeMap, VecDeque};

use kfr_bundle::Address;
use kfr_bundle::events::{
    DIRECTION_SENT, MISSING_COMPAT, MISSING_FAULT, MISSING_MESSAGE_INDEX, MISSING_NOT_THIS_CALL, MISSING_PEER_KEEPS,
    MISSING_SEGMENTS, OFFSET_TCP,
};
use kfr_protocols::{Decoder, End, Exchange, Flags, Hole, HoleKind, Output, Side, Stream};

use crate::model::{Evidence, Request};
use crate::replay::sequencer::{Call, Sequencer, Step};
use crate::replay::setup::{ConnectionTotals, Setup};
use crate::replay::staged::Staged;
use crate::replay::times::{CallTime, CallTimes, Talk};

/// Observer's calls that may wait for the other end's payload, and how long, in event time.
const MAX_QUEUED: usize = 256;
const MAX_QUEUE_NS: u64 = 500_000_000;
/// The same where the other end is in another bundle: blocks of two bundles cover a second each, more or less the same one.
const MAX_QUEUED_APART: usize = 4096;
const MAX_QUEUE_APART_NS: u64 = 5_000_000_000;
/// What is kept of the payload of an end in another bundle: that recording may go on when this one is over.
const MAX_STAGED_APART: usize = 1 << 18;
/// A request's connection where it is simply the one that it was read from.
pub const NO_CONNECTION: u32 = u32::MAX;
/// More bytes than this behind the last one are no lost end but a stream that could not be followed.
const MAX_TAIL_BYTES: u64 = 1 << 30;
/// Requests or answers under way whose beginning is remembered.
const MAX_BEGUN: usize = 1 << 17;
/// Calls of each end and direction that are remembered where exchanges end in another order than they begin: enough for
/// one message; where it began is remembered apart.
const INTERLEAVED_CALLS: usize = 256;
/// Where a call's payload is, if not at hand.
const AT_HAND: u32 = u32::MAX;

/// One data event of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// True if it is the observer's.
    pub observers: bool,
    /// `DIRECTION_` constant, as its own socket sees it.
    pub direction: u8,
    /// `OFFSET_` constant.
    pub offset_kind: u8,
    /// As recorded.
    pub offset: u64,
    /// Bytes moved.
    pub length: u32,
    /// Why payload is shorter.
    pub missing: u8,
    /// Event time.
    pub time_ns: u64,
    /// See `DataEvent::age_ns`.
    pub age_ns: u32,
    /// Where it is.
    pub address: Address,
    /// Whom an unconnected socket sent it to, where those who ask it have no name.
    pub talk: Option<Talk>,
    /// What was kept.
    pub payload: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Info {
    time_ns: u64,
    age_ns: u32,
    missing: u8,
    kept: u32,
    /// Number of the parked payload, or `AT_HAND`.
    parked: u32,
    address: Address,
    talk: Option<Talk>,
}

/// One direction, as the observer sees it: 0 sent, 1 received.
#[derive(Debug, Default)]
struct Way {
    observed: Sequencer<Info>,
    peered: Sequencer<Info>,
    staged: Staged,
    observer_times: CallTimes,
    peer_times: CallTimes,
    /// Bytes of datagrams so far: they have no offsets of their own.
    datagram_bytes: u64,
}

/// A chunk that waits for the other end's payload.
#[derive(Debug)]
struct Chunk {
    way: usize,
    offset: u64,
    length: u64,
    time_ns: u64,
    kind: HoleKind,
    /// Kept payload; `None`: to be taken from what the other end kept.
    payload: Option<Vec<u8>>,
}

/// A connection at work.
pub struct Live {
    setup: Setup,
    ways: [Way; 2],
    parked: Vec<Vec<u8>>,
    free: Vec<u32>,
    queue: VecDeque<Chunk>,
    decoder: Decoder,
    totals: ConnectionTotals,
    /// Flags for exchanges to come, from what replay saw.
    flags: Flags,
    /// Nobody reads it: what only reading needs was given back.
    ways_forgotten: bool,
    /// Requests (0) and answers (1) that have begun and may end behind later ones, by their offset.
    begun: [BTreeMap<u64, CallTime>; 2],
    /// Exchanges end in another order than they begin.
    interleaved: bool,
    /// Requests by protocol: a connection may carry several, one inside the other or one after the other.
    by_protocol: Vec<(u16, u64)>,
}

/// Where requests go.
pub type Requests<'a> = &'a mut dyn FnMut(Request);

impl Live {
    /// A connection of which nothing was seen yet.
    pub fn new(setup: Setup) -> Self {
        let mut ways = [Way::default(), Way::default()];
        for (way, sequence) in ways.iter_mut().zip(setup.start_sequences) {
            if let Some(sequence) = sequence {
                let start = way.observed.unwrap_sequence(sequence);
                way.observed.start_at(start);
                way.peered.start_at(start);
            }
        }
        let totals = ConnectionTotals {
            observer_is_client: setup.observer_is_client,
            mid_stream: setup.mid_stream,
            ..ConnectionTotals::default()
        };
        Self {
            setup,
            ways,
            parked: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            decoder: Decoder::new(kfr_protocols::Setup {
                options: kfr_protocols::Options { literals: setup.literals },
                mid_stream: setup.mid_stream,
                datagrams: setup.datagrams,
                near_is_client: setup.observer_is_client,
                ports: setup.ports,
                hint: setup.hint,
            }),
            totals,
            flags: Flags::default(),
            ways_forgotten: false,
            begun: [BTreeMap::new(), BTreeMap::new()],
            interleaved: false,
            by_protocol: Vec::new(),
        }
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event<'_>, out: &mut Output, requests: Requests<'_>) {
        let same_clock = event.observers || !self.setup.apart;
        if same_clock {
            if self.totals.first_ns == 0 {
                self.totals.first_ns = event.time_ns;
            }
            self.totals.last_ns = self.totals.last_ns.max(event.time_ns);
        }
        let sent = event.direction == DIRECTION_SENT;
        // What the other end received, the observer sent.
        let way = usize::from(sent != event.observers);
        if event.observers
            && !event.talk.is_some_and(|talk| talk.elsewhere)
            && let Some(bytes) = self.totals.bytes.get_mut(way)
        {
            *bytes += u64::from(event.length);
        }
        if self.is_opaque() || (!event.observers && !self.setup.two_ends) {
            return;
        }
        let Some(state) = self.ways.get_mut(way) else { return };
        let offset = if self.setup.datagrams {
            let offset = state.datagram_bytes;
            state.datagram_bytes += u64::from(event.length);
            offset
        } else if event.offset_kind == OFFSET_TCP {
            let reference = if state.observed.next().is_some() { &state.observed } else { &state.peered };
            reference.unwrap_sequence(event.offset as u32)
        } else {
            event.offset
        };
        let sequencer = if event.observers { &mut state.observed } else { &mut state.peered };
        let at_hand = sequencer.is_next(offset);
        let parked = if at_hand { AT_HAND } else { park(&mut self.parked, &mut self.free, event.payload) };
        let info = Info {
            time_ns: event.time_ns,
            age_ns: event.age_ns,
            missing: event.missing,
            kept: event.payload.len() as u32,
            parked,
            address: event.address,
            talk: event.talk,
        };
        let call = Call { offset, length: u64::from(event.length), time_ns: event.time_ns, what: info };
        let mut steps = Steps::default();
        sequencer.push(call, &mut |step| steps.push(step));
        if self.setup.in_order {
            sequencer.finish(&mut |step| steps.push(step));
        }
        for step in steps.into_iter() {
            self.step(way, event.observers, step, event.payload, out, requests);
        }
        let now_ns = if same_clock { event.time_ns } else { self.totals.last_ns };
        self.release(now_ns, false, out, requests);
    }

    /// A call (or gap) of one end in the stream's order.
    fn step(
        &mut self,
        way: usize,
        observers: bool,
        step: Step<Info>,
        payload: &[u8],
        out: &mut Output,
        requests: Requests<'_>,
    ) {
        let (call, certain) = match step {
            Step::Gap { offset, length } => {
                if observers {
                    self.totals.gaps += 1;
                    self.totals.gap_bytes += length;
                    let time_ns = self.totals.last_ns;
                    self.chunk(way, offset, length, time_ns, HoleKind::Gap, Some(&[]), out, requests);
                } else {
                    self.stage(way, offset, length, &[], HoleKind::Gap);
                }
                return;
            }
            // It only says where the stream stands (imported packets).
            Step::Call(call, _) if call.length == 0 && !self.setup.datagrams => return,
            Step::Call(call, certain) => (call, certain),
        };
        let parked =
            (call.what.parked != AT_HAND).then(|| self.parked.get_mut(call.what.parked as usize).map(std::mem::take));
        let payload = match &parked {
            Some(Some(bytes)) => bytes.as_slice(),
            Some(None) => &[],
            None => payload,
        };
        if !certain && observers {
            self.totals.order_uncertain += 1;
            self.flags.insert(Flags::ORDER_UNCERTAIN);
        }
        let Some(state) = self.ways.get_mut(way) else { return };
        let times = if observers { &mut state.observer_times } else { &mut state.peer_times };
        let end = call.offset + call.length;
        let moved_ns = call.time_ns - u64::from(call.what.age_ns).min(call.time_ns);
        // A stamp from before the previous call belongs to an earlier segment: these bytes had to wait for room.
        let moved_ns = if call.what.age_ns > 0 && moved_ns > times.last_ns() { moved_ns } else { call.what.time_ns };
        times.push(CallTime {
            offset: call.offset,
            end,
            time_ns: call.what.time_ns,
            moved_ns,
            address: call.what.address,
            talk: call.what.talk,
        });
        if observers {
            let from_peer = self.setup.two_ends && call.what.kept == 0 && other_end_may_keep(call.what.missing);
            let kept = (!from_peer).then_some(payload);
            self.chunk(way, call.offset, call.length, call.time_ns, HoleKind::Cut, kept, out, requests);
        } else {
            self.stage(way, call.offset, call.length, payload, HoleKind::Cut);
        }
        if let Some(Some(mut bytes)) = parked {
            bytes.clear();
            if let Some(slot) = self.parked.get_mut(call.what.parked as usize) {
                *slot = bytes;
            }
            self.free.push(call.what.parked);
        }
    }

    /// Payload of the other end, for when the observer's events say that it moved.
    fn stage(&mut self, way: usize, offset: u64, length: u64, payload: &[u8], kind: HoleKind) {
        let Some(state) = self.ways.get_mut(way) else { return };
        state.staged.push(offset, length, payload, kind);
        if self.setup.apart {
            state.staged.keep_last(MAX_STAGED_APART);
        }
    }

    /// Whether the other end has shown all of a direction's bytes before `end`.
    fn is_peered(&self, way: usize, end: u64) -> bool {
        self.ways.get(way).is_some_and(|way| way.peered.next().is_some_and(|next| next >= end))
    }

    /// A chunk of the observer's, in order. `payload` is `None` where the other end has it.
    #[allow(clippy::too_many_arguments)]
    fn chunk(
        &mut self,
        way: usize,
        offset: u64,
        length: u64,
        time_ns: u64,
        kind: HoleKind,
        payload: Option<&[u8]>,
        out: &mut Output,
        requests: Requests<'_>,
    ) {
        // When an answer was written, on another node, may stand further on.
        let waits = self.setup.apart && self.setup.two_ends && way == 1 && !self.is_peered(way, offset + length);
        if self.queue.is_empty()
            && !waits
            && let Some(payload) = payload
        {
            if let Some(state) = self.ways.get_mut(way).filter(|_| self.setup.two_ends) {
                state.staged.drop_before(offset + length);
            }
            self.feed(way, offset, length, kind, Some(payload), out, requests);
            return;
        }
        let payload = payload.map(<[u8]>::to_vec);
        self.queue.push_back(Chunk { way, offset, length, time_ns, kind, payload });
    }

    /// Feeds queued chunks whose payload is here, or won't come.
    fn release(&mut self, now_ns: u64, all: bool, out: &mut Output, requests: Requests<'_>) {
        let (most, longest_ns) =
            if self.setup.apart { (MAX_QUEUED_APART, MAX_QUEUE_APART_NS) } else { (MAX_QUEUED, MAX_QUEUE_NS) };
        while let Some(first) = self.queue.front() {
            let at_hand = first.payload.is_some() && !(self.setup.apart && first.way == 1);
            let ready = at_hand || self.is_peered(first.way, first.offset + first.length);
            let overdue = all || self.queue.len() > most || now_ns.saturating_sub(first.time_ns) > longest_ns;
            if !ready && !overdue {
                return;
            }
            let Some(chunk) = self.queue.pop_front() else { return };
            if chunk.payload.is_some()
                && let Some(state) = self.ways.get_mut(chunk.way)
            {
                state.staged.drop_before(chunk.offset + chunk.length);
            }
            self.feed(chunk.way, chunk.offset, chunk.length, chunk.kind, chunk.payload.as_deref(), out, requests);
        }
    }

    /// The next bytes of one direction, in the observer's order.
    #[allow(clippy::too_many_arguments)]
    fn feed(
        &mut self,
        way: usize,
        offset: u64,
        length: u64,
        kind: HoleKind,
        payload: Option<&[u8]>,
        out: &mut Output,
        requests: Requests<'_>,
    ) {
        let Some(state) = self.ways.get_mut(way) else { return };
        let end = if way == 0 { End::Near } else { End::Far };
        let staged = &mut state.staged;
        let fill = |stream: &mut Stream| match payload {
            Some(payload) => {
                stream.push(payload);
                let missing = length.saturating_sub(payload.len() as u64);
                if missing > 0 {
                    stream.push_hole(Hole { length: missing, kind });
                }
            }
            None => staged.move_into(offset, length, stream),
        };
        self.decoder.push(end, offset, fill, out);
        self.emit(out, requests);
    }

    /// True if nothing is read any more.
    fn is_opaque(&self) -> bool {
        self.setup.opaque || self.decoder.is_opaque()
    }

    /// Gives back memory that only a busy connection needs.
    pub fn rest(&mut self) {
        for way in &mut self.ways {
            way.observed.rest();
            way.peered.rest();
            way.staged.rest();
            way.observer_times.rest();
            way.peer_times.rest();
        }
        if self.free.len() == self.parked.len() {
            self.parked = Vec::new();
            self.free = Vec::new();
        }
        self.queue.shrink_to_fit();
        self.decoder.rest();
    }

    /// Turns what the decoder put out into requests.
    fn emit(&mut self, out: &mut Output, requests: Requests<'_>) {
        for (side, offset) in out.began.drain(..) {
            self.begin(side, offset);
        }
        for exchange in out.exchanges.drain(..) {
            if let Some(request) = self.request(exchange) {
                requests(request);
            }
        }
        let skipped = std::mem::take(&mut out.skipped_bytes);
        self.totals.skipped_bytes += skipped.iter().sum::<u64>();
        if out.tls.is_some() {
            self.totals.tls = out.tls.take();
        }
        if self.decoder.is_opaque() && !self.ways_forgotten {
            self.ways_forgotten = true;
            for way in &mut self.ways {
                *way = Way::default();
            }
            self.queue.clear();
            self.parked = Vec::new();
            self.free = Vec::new();
        }
    }

    /// Notes when a request or an answer began that may end behind later ones.
    fn begin(&mut self, side: Side, offset: u64) {
        self.interleaved = true;
        let observers = (side == Side::Client) == (self.decoder.near_is_client() != Some(false));
        let [sent, received] = &self.ways;
        let way = if observers { sent } else { received };
        let [requests, answers] = &mut self.begun;
        let begun = if side == Side::Client { requests } else { answers };
        if let Some(call) = way.observer_times.at(offset) {
            begun.insert(offset, *call);
        }
        if begun.len() > MAX_BEGUN {
            begun.pop_first();
        }
    }

    /// The request that an exchange is; `None` where the other end has it, who was recorded as well.
    fn request(&mut self, mut exchange: Exchange) -> Option<Request> {
        let observer_is_client = self.decoder.near_is_client() != Some(false);
        let [sent, received] = &mut self.ways;
        let (ask, answer) = if observer_is_client { (sent, received) } else { (received, sent) };
        let [begun_requests, begun_answers] = &mut self.begun;
        let noted = begun_requests.remove(&exchange.request.start);
        let first = noted.as_ref().or_else(|| ask.observer_times.at(exchange.request.start));
        let unasked = first.is_none() && exchange.request.is_empty();
        let pushed = exchange.response.as_ref().filter(|_| unasked);
        let pushed = pushed.and_then(|response| answer.observer_times.at(response.start)).copied();
        let (start_ns, request_at) = match first {
            // The client's bytes leave while its call is still running; the server has them when its call returns.
            Some(call) if observer_is_client => (call.moved_ns, Some(call.address)),
            Some(call) => (call.time_ns, Some(call.address)),
            // The server sent it unasked: it begins with itself, and took nobody's time.
            None => (pushed.map_or(self.totals.last_ns, |call| call.time_ns), None),
        };
        let mut ttfb_ns = None;
        let mut duration_ns = None;
        let mut server_ns = None;
        let mut response_at = None;
        let mut talk = None;
        if let Some(response) = exchange.response.as_ref().filter(|response| response.end > response.start) {
            let noted = begun_answers.remove(&response.start);
            let begin = noted.as_ref().or_else(|| answer.observer_times.at(response.start)).filter(|_| !unasked);
            let end = answer.observer_times.at(response.end - 1).filter(|_| !unasked);
            response_at = begin.or(pushed.as_ref()).map(|call| call.address);
            talk = begin.and_then(|call| call.talk);
            ttfb_ns = begin.map(|call| call.time_ns.saturating_sub(start_ns));
            // Two threads may report the calls of one answer in the wrong order: it ends no sooner than it begins.
            let ended = end.map(|call| begin.map_or(call.time_ns, |begin| begin.time_ns.max(call.time_ns)));
            duration_ns = ended.map(|time_ns| time_ns.saturating_sub(start_ns));
            let read = ask.peer_times.at(exchange.request.end.saturating_sub(1));
            let written = answer.peer_times.at(response.end - 1);
            if let (Some(read), Some(written)) = (read, written) {
                server_ns = Some(written.moved_ns.saturating_sub(read.time_ns));
            }
            if !self.interleaved {
                answer.observer_times.forget_before(response.start);
                answer.peer_times.forget_before(response.start);
            }
        }
        if self.interleaved {
            for times in
                [&mut answer.observer_times, &mut answer.peer_times, &mut ask.observer_times, &mut ask.peer_times]
            {
                times.keep_last(INTERLEAVED_CALLS);
            }
        } else {
            ask.observer_times.forget_before(exchange.request.start);
            ask.peer_times.forget_before(exchange.request.start);
        }
        exchange.flags.insert(std::mem::take(&mut self.flags));
        if talk.is_some_and(|talk| talk.elsewhere) {
            // Its bytes are the other end's as well.
            let asked = usize::from(!observer_is_client);
            if let Some(bytes) = self.totals.bytes.get_mut(asked) {
                *bytes = bytes.saturating_sub(exchange.request_size());
            }
            return None;
        }
        let number = self.totals.requests;
        self.totals.requests += 1;
        let protocol = exchange.protocol.unwrap_or_default();
        match self.by_protocol.iter_mut().find(|(known, _)| *known == protocol) {
            Some((_, requests)) => *requests += 1,
            None => self.by_protocol.push((protocol, 1)),
        }
        Some(Request {
            connection: talk.map_or(NO_CONNECTION, |talk| talk.connection),
            number,
            observer_is_client,
            protocol,
            exchange,
            start_ns,
            ttfb_ns,
            duration_ns,
            server_ns,
            evidence: Evidence { request: request_at, response: response_at },
        })
    }

    /// Nothing more will come.
    pub fn finish(&mut self, out: &mut Output, requests: Requests<'_>) {
        for way in 0..2 {
            for observers in [false, true] {
                let mut steps = Steps::default();
                if let Some(state) = self.ways.get_mut(way) {
                    let sequencer = if observers { &mut state.observed } else { &mut state.peered };
                    sequencer.finish(&mut |step| steps.push(step));
                }
                for step in steps.into_iter() {
                    self.step(way, observers, step, &[], out, requests);
                }
            }
            if let Some(tail) = self.lost_tail(way) {
                self.step(way, true, tail, &[], out, requests);
            }
        }
        self.release(u64::MAX, true, out, requests);
        self.decoder.finish(out);
        self.emit(out, requests);
    }

    /// The last bytes of one direction, where no event shows them: no later one tells of them by its offset.
    fn lost_tail(&self, way: usize) -> Option<Step<Info>> {
        let (sent, received) = self.setup.final_sequences?;
        let sequencer = &self.ways.get(way)?.observed;
        let offset = sequencer.next()?;
        let end = sequencer.unwrap_sequence(if way == 0 { sent } else { received });
        let length = end.checked_sub(offset).filter(|length| (1..MAX_TAIL_BYTES).contains(length))?;
        Some(Step::Gap { offset, length })
    }

    /// What it came to.
    pub fn into_totals(self) -> ConnectionTotals {
        // That of most requests; of as many, the one that came first.
        let most = self.by_protocol.iter().rev().max_by_key(|(_, requests)| *requests);
        ConnectionTotals {
            protocol: self.decoder.protocol().map(|first| most.map_or(first, |(protocol, _)| *protocol)),
            observer_is_client: self.decoder.near_is_client(),
            ..self.totals
        }
    }
}

/// Steps that one event sets free: nearly always one.
#[derive(Default)]
struct Steps {
    first: Option<Step<Info>>,
    rest: Vec<Step<Info>>,
}

impl Steps {
    fn push(&mut self, step: Step<Info>) {
        if self.first.is_none() {
            self.first = Some(step);
        } else {
            self.rest.push(step);
        }
    }

    fn into_iter(self) -> impl Iterator<Item = Step<Info>> {
        self.first.into_iter().chain(self.rest)
    }
}

fn park(parked: &mut Vec<Vec<u8>>, free: &mut Vec<u32>, payload: &[u8]) -> u32 {
    let slot = free.pop().unwrap_or_else(|| {
        parked.push(Vec::new());
        (parked.len() - 1) as u32
    });
    if let Some(bytes) = parked.get_mut(slot as usize) {
        bytes.extend_from_slice(payload);
    }
    slot
}

/// Reasons for which a call has no payload that don't hold for the other end.
fn other_end_may_keep(missing: u8) -> bool {
    matches!(
        missing,
        MISSING_PEER_KEEPS
            | MISSING_NOT_THIS_CALL
            | MISSING_COMPAT
            | MISSING_FAULT
            | MISSING_SEGMENTS
            | MISSING_MESSAGE_INDEX
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfr_bundle::events::{DIRECTION_RECEIVED, MISSING_NOTHING, OFFSET_COUNTED};

    /// Requests of a connection as its client saw it: (sent, when, bytes).
    fn requests(events: &[(bool, u64, &[u8])]) -> Vec<Request> {
        let mut live = Live::new(Setup { observer_is_client: Some(true), ..Setup::default() });
        let (mut out, mut found, mut offsets) = (Output::default(), Vec::new(), [0, 0]);
        for (row, (sent, time_ns, payload)) in events.iter().enumerate() {
            let offset = &mut offsets[usize::from(!sent)];
            let event = Event {
                observers: true,
                direction: if *sent { DIRECTION_SENT } else { DIRECTION_RECEIVED },
                offset_kind: OFFSET_COUNTED,
                offset: *offset,
                length: payload.len() as u32,
                missing: MISSING_NOTHING,
                time_ns: *time_ns,
                age_ns: 0,
                address: Address { origin: 1, block: 0, row: row as u32 },
                talk: None,
                payload,
            };
            *offset += payload.len() as u64;
            live.event(&event, &mut out, &mut |request| found.push(request));
        }
        live.finish(&mut out, &mut |request| found.push(request));
        found
    }

    fn headers(stream: u8, flags: u8, block: &[u8]) -> Vec<u8> {
        [&[0, 0, block.len() as u8, 1, flags, 0, 0, 0, stream], block].concat()
    }

    #[test]
    fn a_request_that_ends_behind_later_ones_keeps_its_times() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let settings = b"\0\0\0\x04\0\0\0\0\0".to_vec();
        let (get, ok) = (b"\x82\x86\x84", b"\x88");
        let mut events = vec![(true, 1, preface), (false, 2, settings), (true, 100, headers(1, 5, get))];
        // More calls in between than are remembered.
        for n in 0..400_u64 {
            let stream = 3 + 2 * (n as u8 % 100);
            if n % 100 == 0 && n > 0 {
                break;
            }
            events.push((true, 1000 + 10 * n, headers(stream, 5, get)));
            events.push((false, 1005 + 10 * n, headers(stream, 4, ok)));
            for part in 0..4 {
                let end = u8::from(part == 3);
                events.push((false, 1006 + 10 * n, vec![0, 0, 1, 0, end, 0, 0, 0, stream, b'x']));
            }
        }
        events.push((false, 90_000, headers(1, 5, ok)));
        let events: Vec<_> = events.iter().map(|(sent, at, bytes)| (*sent, *at, bytes.as_slice())).collect();
        let found = requests(&events);
        assert_eq!(found.len(), 101);
        let last = found.last().unwrap();
        assert_eq!((last.start_ns, last.duration_ns), (100, Some(89_900)));
        assert_eq!(last.evidence.request.map(|at| at.row), Some(2));
        assert!(found[..100].iter().all(|request| request.duration_ns == Some(6)), "{:?}", found[0]);
    }

    #[test]
    fn what_a_server_sends_unasked_takes_no_time() {
        let upgrade: &[u8] = b"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let agreed: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let found = requests(&[(true, 10, upgrade), (false, 20, agreed), (false, 5000, b"\x81\x02hi")]);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert_eq!((found[0].start_ns, found[0].duration_ns), (10, Some(10)));
        assert_eq!((&*found[1].exchange.op, found[1].start_ns, found[1].duration_ns), ("text", 5000, None));
        assert_eq!(found[1].evidence.response.map(|at| at.row), Some(2));
    }
}
