//! DNS over UDP and TCP (RFC 1035, 7766), EDNS (RFC 6891), NOTIFY (RFC 1996), UPDATE (RFC 2136), zone transfers
//! (RFC 5936, 1995), multicast DNS (RFC 6762).

mod detect;
mod message;
mod transfer;
mod wire;
mod words;

use std::ops::Range;

use crate::frames::{Frame, Frames, Framing, Head, Next};
use crate::matching::Matching;
use crate::pairing::{Chunks, Looks, hole_flag};
use crate::{About, Exchange, Flags, NAMELESS, Output, Parser, Protocol, Side, Start, Status, Stream, Streams};
use message::Message;
use transfer::{Transfer, Transfers};
use wire::{End, HEADER_BYTES};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "dns",
    streams: true,
    datagrams: true,
    detect: detect::detect,
    parser: |start| Box::new(Dns::new(start)),
    about: About {
        source: "RFC 1035, 1996, 2136, 5936, 6762, 6891, 7766, 8914",
        request: "a query message; `op` the type asked for or the opcode, `target` the names asked for",
        read: "UDP and TCP, EDNS, extended errors, NOTIFY, UPDATE, zone transfers, multicast questions",
        mid_stream: "messages on TCP by length, header and question",
        not_read: "LLMNR, NetBIOS names, DNS over TLS, HTTPS and QUIC, multicast answers, queries sent by the server's end",
    },
};

/// RFC 6762.
const MDNS_PORT: u16 = 5353;
/// The length before each message on TCP.
const TCP_LENGTH_BYTES: usize = 2;
/// The longest message on TCP, its length included.
const MAX_TCP_BYTES: usize = TCP_LENGTH_BYTES + 65_535;
/// Requests with one id that are looked at to find the oldest, where an answer doesn't repeat its question.
const MAX_SAME_ID: usize = 64;
/// Datagrams that are no messages, before the first one that is, after which this is not DNS.
const MAX_BAD: u32 = 4;

/// What an answer repeats: id and questions (0: they were cut); then the order of those that have both in common.
type Key = (u16, u64, u64);

struct Dns {
    datagrams: bool,
    multicast_port: bool,
    client: Frames,
    server: Frames,
    chunks: Chunks,
    open: Matching<Key, Option<u16>>,
    transfers: Transfers,
    asked: u64,
    /// For the first request found.
    mid_stream: Flags,
    /// Datagrams that were no messages; `None` when one was.
    bad: Option<u32>,
}

struct Tcp;

impl Framing for Tcp {
    fn head(&self, _: Side, bytes: &[u8]) -> Head {
        match wire::be16(bytes, 0).map(usize::from) {
            None => Head::Short,
            Some(0..HEADER_BYTES) => Head::Bad,
            Some(length) => Head::Length((TCP_LENGTH_BYTES + length) as u64),
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        detect::looks(bytes, side == Side::Server, cut)
    }
}

/// A message as it came: the bytes behind a length, and what is known of those that are missing.
struct Arrived<'a> {
    range: Range<u64>,
    bytes: &'a [u8],
    /// Why `bytes` end before `range` does.
    missing: Flags,
    /// The stream ended within.
    broken_off: bool,
}

impl<'a> Arrived<'a> {
    fn framed(frame: &'a Frame) -> Self {
        Self {
            range: frame.range.clone(),
            bytes: frame.bytes.get(TCP_LENGTH_BYTES..).unwrap_or_default(),
            missing: frame.missing,
            broken_off: !frame.whole,
        }
    }
}

impl Dns {
    fn new(start: &Start) -> Self {
        Self {
            datagrams: start.datagrams,
            multicast_port: start.datagrams && start.server_port == Some(MDNS_PORT),
            client: Frames::new(Side::Client, MAX_TCP_BYTES, start.mid_stream),
            server: Frames::new(Side::Server, MAX_TCP_BYTES, start.mid_stream),
            chunks: Chunks::default(),
            open: Matching::default(),
            transfers: Transfers::default(),
            asked: 0,
            // Each datagram stands for itself: there is no middle.
            mid_stream: if start.mid_stream && !start.datagrams { Flags::MID_STREAM } else { Flags::default() },
            bad: Some(0),
        }
    }

    fn mark(&self, side: Side, arrived: &Arrived<'_>, out: &mut Output) {
        let prefix = if self.datagrams { 0 } else { TCP_LENGTH_BYTES as u64 };
        message::mark(arrived.bytes, prefix, side, arrived.range.start, arrived.range.end, out);
    }

    /// Bytes that are no message.
    fn pass(&mut self, side: Side, arrived: &Arrived<'_>, out: &mut Output) {
        out.skipped(side, arrived.range.end - arrived.range.start);
        if let Some(bad) = &mut self.bad {
            *bad += 1;
            out.rejected |= *bad >= MAX_BAD;
        }
    }

    /// A message of the client.
    fn ask(&mut self, arrived: Arrived<'_>, out: &mut Output) {
        let Some(message) = Message::read(arrived.bytes, false) else {
            if arrived.missing == Flags::default() && !arrived.broken_off {
                return self.pass(Side::Client, &arrived, out);
            }
            // Not even its id is known: its answer will find nobody.
            self.mark(Side::Client, &arrived, out);
            let mut flags = arrived.missing;
            flags.insert(std::mem::take(&mut self.mid_stream));
            out.exchanges.push(Exchange { op: NAMELESS.into(), request: arrived.range, flags, ..Exchange::default() });
            return;
        };
        self.mark(Side::Client, &arrived, out);
        self.bad = None;
        if message.header.is_response() {
            // Whoever asks by multicast answers by multicast, too.
            return;
        }
        let mut flags = std::mem::take(&mut self.mid_stream);
        let asked = message.asked.or((message.header.counts[0] == 0).then_some(1));
        if asked.is_none() || message.end == End::Short {
            flags.insert(arrived.missing);
        }
        let multicast = self.multicast_port && message.header.id == 0 && !message.header.recursion_desired();
        if multicast {
            flags.insert(Flags::MULTICAST);
        } else if !self.datagrams && self.open.len() + self.transfers.len() > 0 {
            flags.insert(Flags::PIPELINED);
        }
        let id = message.header.id;
        let questions = asked.unwrap_or(0);
        if questions != 0 && self.open.keys((id, questions, 0)..=(id, questions, u64::MAX)).next().is_some() {
            flags.insert(Flags::RETRANSMITTED);
        }
        let exchange =
            Exchange { op: message.op, target: message.target, request: arrived.range, flags, ..Exchange::default() };
        if multicast {
            // Answers come from other addresses, or by multicast: whether there are any can't be seen here.
            out.exchanges.push(exchange);
            return;
        }
        self.asked += 1;
        self.open.ask((id, questions, self.asked), exchange, message.kind, out);
    }

    /// The request that an answer belongs to: of several, the one that has waited longest.
    fn find(&self, message: &Message) -> Option<Key> {
        let id = message.header.id;
        match message.asked {
            Some(questions) => {
                let same = self.open.keys((id, questions, 0)..=(id, questions, u64::MAX)).next();
                same.or_else(|| self.open.keys((id, 0, 0)..=(id, 0, u64::MAX)).next())
                    // Requests without questions that are answered with one (RFC 1035, section 6.4).
                    .or_else(|| self.open.keys((id, 1, 0)..=(id, 1, u64::MAX)).next())
            }
            None => {
                let same = self.open.keys((id, 0, 0)..=(id, u64::MAX, u64::MAX));
                same.take(MAX_SAME_ID).min_by_key(|(_, _, order)| *order)
            }
        }
    }

    /// A message of the server.
    fn answer(&mut self, arrived: Arrived<'_>, out: &mut Output) {
        let Some(message) = Message::read(arrived.bytes, out.names.is_some()) else {
            if arrived.missing == Flags::default() && !arrived.broken_off {
                return self.pass(Side::Server, &arrived, out);
            }
            self.mark(Side::Server, &arrived, out);
            return self.open.lost_answers(arrived.missing);
        };
        if !message.header.is_response() {
            return self.pass(Side::Server, &arrived, out);
        }
        self.mark(Side::Server, &arrived, out);
        self.bad = None;
        // An answer repeats its question: it names addresses whether that was seen or not.
        if let (Some(names), Some(target)) = (&mut out.names, &message.target) {
            names.extend(message.addresses.iter().map(|address| (target.clone(), *address)));
        }
        if self.transfers.feed(&message, &arrived, out) {
            return;
        }
        let mut doubt = None;
        let (mut exchange, kind) = match self.find(&message).and_then(|key| self.open.take(key)) {
            Some(waiting) => {
                doubt = self.open.doubt_of(&waiting);
                (waiting.exchange, waiting.detail.or(message.kind))
            }
            None => match self.open.unseen_request() {
                Some(unseen) => (unseen, message.kind),
                None => return,
            },
        };
        if &*exchange.op == NAMELESS {
            exchange.op = message.op.clone();
            exchange.target = message.target.clone();
        }
        exchange.response = Some(arrived.range.clone());
        if !self.datagrams
            && matches!(kind, Some(words::AXFR | words::IXFR))
            && message.rcode == Some(0)
            && !arrived.broken_off
        {
            exchange.status = Status::Ok;
            exchange.code = message.code();
            let mut transfer = Transfer::new(exchange, kind == Some(words::IXFR));
            if let Some(flag) = doubt {
                // Its first messages may be among those that were lost.
                transfer.lose(flag);
            }
            self.transfers.begin(transfer, &message, &arrived, out);
            return;
        }
        tell(&mut exchange, &message, &arrived);
        out.exchanges.push(exchange);
    }

    /// Reads what has arrived of one side, one datagram after the other.
    fn read_datagrams(&mut self, side: Side, stream: &mut Stream, out: &mut Output) {
        while !stream.is_empty() {
            let bytes = stream.bytes();
            let hole = stream.hole();
            let start = stream.position();
            let length = bytes.len() as u64 + hole.map_or(0, |hole| hole.length);
            let missing = hole.map_or(Flags::default(), |hole| hole_flag(hole.kind));
            let arrived = Arrived { range: start..start + length, bytes, missing, broken_off: false };
            match side {
                Side::Client => self.ask(arrived, out),
                Side::Server => self.answer(arrived, out),
            }
            stream.skip(length);
        }
    }

    fn read_streams(&mut self, streams: &mut Streams, out: &mut Output) {
        let (client_chunk, server_chunk) = self.chunks.advance(streams);
        loop {
            match self.client.next(&mut streams.client, client_chunk, streams.server.end(), &Tcp, out) {
                Next::Frame(frame) => {
                    self.ask(Arrived::framed(&frame), out);
                    self.client.recycle(frame);
                }
                Next::Wait => break,
                Next::Lost(at, flag) => self.open.lost_requests(at, flag),
            }
        }
        loop {
            match self.server.next(&mut streams.server, server_chunk, streams.client.end(), &Tcp, out) {
                Next::Frame(frame) => {
                    self.answer(Arrived::framed(&frame), out);
                    self.server.recycle(frame);
                }
                Next::Wait => break,
                Next::Lost(_, flag) => {
                    self.open.lost_answers(flag);
                    self.transfers.lost(flag);
                }
            }
        }
    }
}

impl Parser for Dns {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        if self.datagrams {
            self.read_datagrams(Side::Client, &mut streams.client, out);
            self.read_datagrams(Side::Server, &mut streams.server, out);
        } else {
            self.read_streams(streams, out);
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        if let Some(frame) = self.client.finish(&streams.client) {
            self.ask(Arrived::framed(&frame), out);
        }
        if let Some(frame) = self.server.finish(&streams.server) {
            self.answer(Arrived::framed(&frame), out);
        }
        self.transfers.finish(out);
        self.open.finish(streams, out);
    }
}

/// Notes what an answer says.
fn tell(exchange: &mut Exchange, message: &Message, arrived: &Arrived<'_>) {
    exchange.code = message.code();
    exchange.status = match message.rcode {
        Some(0) => Status::Ok,
        Some(_) => Status::Error,
        None => Status::Unknown,
    };
    exchange.error = message.error.clone().filter(|_| exchange.status == Status::Error);
    // UPDATE counts its prerequisites there (RFC 2136, section 2.2).
    exchange.rows = (message.header.opcode() == words::QUERY).then(|| u64::from(message.header.counts[1]));
    if message.rcode.is_none() {
        exchange.flags.insert(arrived.missing);
    }
    if arrived.broken_off {
        exchange.flags.insert(Flags::INCOMPLETE);
    }
}
