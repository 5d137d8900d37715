//! The binary protocol over a stream: an answer names its request by opcode and opaque number.

use std::collections::VecDeque;

use super::packet::{Header, Packets, QUIT, STAT, mark, operation_of, status};
use super::{MAX_KEPT_BYTES, fail, key};
use crate::frames::{BothFrames, Frame, Next};
use crate::matching::{Matching, Waiting};
use crate::pairing::drop_rest;
use crate::{Exchange, Flags, Options, Output, Parser, Side, Start, Status, Streams};

/// Quiet requests of which nobody knows yet whether they are answered.
const MAX_QUIET: usize = 1 << 16;

/// Opcode, opaque number, number of the request.
type Key = (u8, u32, u64);

#[derive(Debug, Default)]
struct Asked {
    /// Where the first of several answers began (`stat`).
    start: Option<u64>,
}

pub(super) struct Binary {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    frames: BothFrames,
    next: u64,
    matching: Matching<Key, Asked>,
    /// Quiet requests, in order.
    quiet: VecDeque<Key>,
    /// Where the request begins that waits already, though its body is still arriving.
    early: Option<u64>,
}

impl Binary {
    pub fn new(start: Start) -> Self {
        Self {
            options: start.options,
            mid_stream: start.mid_stream,
            fresh: true,
            frames: BothFrames::new(MAX_KEPT_BYTES, start.mid_stream),
            next: 0,
            matching: Matching::default(),
            quiet: VecDeque::new(),
            early: None,
        }
    }

    fn read(&mut self, side: Side, streams: &mut Streams, out: &mut Output) {
        loop {
            match self.frames.next(side, streams, &Packets, out) {
                Next::Frame(frame) => {
                    self.packet(side, &frame, out);
                    self.frames.recycle(side, frame);
                }
                Next::Lost(at, flag) => self.matching.lost(side, at, flag),
                Next::Wait => return,
            }
        }
    }

    fn packet(&mut self, side: Side, frame: &Frame, out: &mut Output) {
        let Some(header) = Header::of(side, &frame.bytes) else {
            out.mark(side, frame.range.clone(), crate::ByteClass::Secret);
            return;
        };
        mark(side, frame, &header, out);
        if side == Side::Client {
            if self.early.take() != Some(frame.range.start) {
                self.asked(&header, frame, out);
            }
        } else {
            self.answered(&header, frame, out);
        }
    }

    fn asked(&mut self, header: &Header, frame: &Frame, out: &mut Output) {
        let mut exchange = request(header, &frame.bytes);
        exchange.request = frame.range.clone();
        if header.lacks_key(&frame.bytes) {
            exchange.flags.insert(frame.lack());
        }
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.matching.len() > 0);
        let key = (header.opcode, header.opaque, self.next);
        self.next += 1;
        self.matching.ask(key, exchange, Asked::default(), out);
        if operation_of(header.opcode).is_some_and(|operation| operation.quiet) {
            self.quiet.push_back(key);
            if self.quiet.len() > MAX_QUIET {
                let key = self.quiet.pop_front();
                self.pass(key, out);
            }
        }
    }

    fn answered(&mut self, header: &Header, frame: &Frame, out: &mut Output) {
        let (opcode, opaque) = (header.opcode, header.opaque);
        let mut found = self.matching.first((opcode, opaque, 0)..=(opcode, opaque, u64::MAX));
        if found.is_none() && self.ask_early(header, out) {
            found = self.matching.first((opcode, opaque, 0)..=(opcode, opaque, u64::MAX));
        }
        // Quiet requests before it were not answered: they went as they usually do.
        while let Some(quiet) = self.quiet.front().copied()
            && found.is_some_and(|found| quiet.2 < found.2)
        {
            self.quiet.pop_front();
            self.pass(Some(quiet), out);
        }
        let more = opcode == STAT && header.status == 0 && header.body > 0;
        let mut start = frame.range.start;
        if let Some(waiting) = found.and_then(|key| self.matching.get_mut(key)) {
            start = *waiting.detail.start.get_or_insert(start);
        }
        if more {
            return;
        }
        let exchange = found.and_then(|key| self.matching.take(key)).map(|waiting| waiting.exchange);
        let Some(mut exchange) = exchange.or_else(|| {
            let unseen = self.matching.unseen_request()?;
            Some(Exchange { op: op(opcode), target: header.key(&frame.bytes).map(key), ..unseen })
        }) else {
            return;
        };
        judge(&mut exchange, header, &frame.bytes, self.options);
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        exchange.response = Some(start..frame.range.end);
        out.exchanges.push(exchange);
    }

    /// The server answers a request whose body is still arriving: it refuses it.
    fn ask_early(&mut self, answer: &Header, out: &mut Output) -> bool {
        let Some(begun) = self.frames.begun(Side::Client).filter(|_| self.early.is_none()) else { return false };
        let Some(header) = Header::of(Side::Client, &begun.bytes) else { return false };
        if (header.opcode, header.opaque) != (answer.opcode, answer.opaque) {
            return false;
        }
        let frame = Frame { range: begun.range.clone(), bytes: begun.bytes.clone(), whole: true, ..Frame::default() };
        self.early = Some(frame.range.start);
        self.asked(&header, &frame, out);
        true
    }

    /// A quiet request got no answer.
    fn pass(&mut self, key: Option<Key>, out: &mut Output) {
        if let Some(waiting) = key.and_then(|key| self.matching.take(key)) {
            let doubt = self.matching.doubt_of(&waiting);
            out.exchanges.push(silent(waiting, doubt));
        }
    }
}

/// A request that got no answer, unless that is missing (`doubt`).
fn silent(waiting: Waiting<Asked>, doubt: Option<Flags>) -> Exchange {
    let mut exchange = waiting.exchange;
    if let Some(doubt) = doubt {
        exchange.flags.insert(doubt);
        return exchange;
    }
    exchange.status = Status::Ok;
    exchange.flags.insert(Flags::NO_REPLY);
    if exchange.op.starts_with('g') {
        // A miss.
        exchange.rows = Some(0);
    }
    exchange
}

fn op(opcode: u8) -> Box<str> {
    operation_of(opcode).map_or_else(|| format!("opcode {opcode}").into(), |operation| operation.name.into())
}

/// What a request asks for.
pub(super) fn request(header: &Header, bytes: &[u8]) -> Exchange {
    Exchange { op: op(header.opcode), target: header.key(bytes).map(key), ..Exchange::default() }
}

/// How it went.
pub(super) fn judge(exchange: &mut Exchange, header: &Header, bytes: &[u8], options: Options) {
    let (name, error) = status(header.status);
    if error {
        // The server's own words, if it has any.
        let words = header.value(bytes);
        let words = if words.is_empty() { name.as_bytes() } else { words };
        fail(exchange, &header.status.to_string(), words, options);
        return;
    }
    exchange.status = Status::Ok;
    if !name.is_empty() {
        exchange.code = Some(name.into());
    }
    if operation_of(header.opcode).is_some_and(|operation| operation.gets) {
        exchange.rows = Some(u64::from(header.status == 0));
    }
}

impl Parser for Binary {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        self.frames.advance(streams);
        self.read(Side::Client, streams, out);
        self.read(Side::Server, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        for side in [Side::Client, Side::Server] {
            if let Some(frame) = self.frames.finish(side, streams) {
                self.packet(side, &frame, out);
            }
        }
        while let Some(key) = self.quiet.pop_front() {
            // Only an answer to something later would tell that there was none to this.
            if let Some(mut waiting) = self.matching.take(key) {
                if let Some(doubt) = self.matching.doubt_of(&waiting) {
                    waiting.exchange.flags.insert(doubt);
                    out.exchanges.push(waiting.exchange);
                    continue;
                }
                waiting.exchange.flags.insert(Flags::NO_REPLY);
                if matches!(&*waiting.exchange.op, "quitq") {
                    waiting.exchange.status = Status::Ok;
                }
                out.exchanges.push(waiting.exchange);
            }
        }
        // Some clients close without waiting for the answer to `quit`.
        while let Some(key) = self.matching.first((QUIT, 0, 0)..=(QUIT, u32::MAX, u64::MAX)) {
            let Some(mut waiting) = self.matching.take(key) else { break };
            waiting.exchange.status = Status::Ok;
            waiting.exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(waiting.exchange);
        }
        self.matching.finish(streams, out);
        drop_rest(streams, out);
    }
}
