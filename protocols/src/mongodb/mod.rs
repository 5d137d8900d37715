//! MongoDB's wire protocol (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).

mod body;
mod bson;
mod wire;

use std::collections::BTreeMap;

use crate::frames::{BothFrames, Frame, Framing, Next};
use crate::matching::Matching;
use crate::pairing::{Looks, drop_rest};
use crate::{
    About, ByteClass, Detected, Exchange, Flags, NAMELESS, Options, Output, Parser, Prefix, Protocol, Side, Status,
    Streams,
};
use body::{Answer, Asked, Classes};
use wire::{COMPRESSED_HEAD_BYTES, HEADER_BYTES, Header, Messages, OP_COMPRESSED};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "mongodb",
    streams: true,
    datagrams: false,
    detect,
    parser: |start| Box::new(Mongo::new(start.options, start.mid_stream)),
    about: About {
        source: "MongoDB manual (wire protocol), MongoDB specifications (OP_MSG, OP_COMPRESSED), bsonspec.org",
        request: "a message of the client; `op` the command, or the operation before OP_MSG (`OP_QUERY`); `target` \
                  `database.collection`",
        read: "OP_MSG with all sections, streams of answers, OP_COMPRESSED (snappy, zlib, zstd), everything older",
        mid_stream: "messages by header and first field; answers name their request",
        not_read: "values of documents, checksums; batches beyond 64 KiB are not counted",
    },
};

/// Bytes of a message that are looked at, packed and unpacked.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// Requests at a time whose answers come as a stream.
const MAX_STREAMS: usize = 256;

fn detect(prefix: &Prefix<'_>) -> Detected {
    let looks = |side, bytes: &[u8]| {
        if bytes.is_empty() { Looks::Open } else { Messages.looks(side, bytes, prefix.complete) }
    };
    // However little was kept of either: an answer that names the request.
    let heads = (wire::head_of(Side::Client, prefix.client), wire::head_of(Side::Server, prefix.server));
    if let (Some(asked), Some(answered)) = heads
        && asked.id != 0
        && answered.answers == asked.id
    {
        return Detected::Certain;
    }
    match (looks(Side::Client, prefix.client), looks(Side::Server, prefix.server)) {
        (Looks::Yes, Looks::Yes) => Detected::Certain,
        // Late, the server's first bytes may be the middle of an answer.
        (Looks::Yes, _) if prefix.mid_stream || prefix.server.len() < HEADER_BYTES => Detected::Likely,
        (Looks::Yes, Looks::Open) => Detected::Maybe,
        (Looks::Open, Looks::Open) => Detected::Maybe,
        (Looks::Open, Looks::Yes) if prefix.client.is_empty() => Detected::Maybe,
        _ => Detected::No,
    }
}

struct Mongo {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    frames: BothFrames,
    matching: Matching<i32, Asked>,
    /// Requests with a stream of answers, by the id of the last one: the next one names it.
    streams: BTreeMap<i32, (Exchange, Asked)>,
}

impl Mongo {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            frames: BothFrames::new(MAX_KEPT_BYTES, mid_stream),
            matching: Matching::default(),
            streams: BTreeMap::new(),
        }
    }

    fn read(&mut self, side: Side, streams: &mut Streams, out: &mut Output) {
        loop {
            match self.frames.next(side, streams, &Messages, out) {
                Next::Frame(frame) => {
                    self.message(side, &frame, out);
                    self.frames.recycle(side, frame);
                }
                Next::Lost(at, flag) => self.matching.lost(side, at, flag),
                Next::Wait => return,
            }
        }
    }

    fn message(&mut self, side: Side, frame: &Frame, out: &mut Output) {
        match side {
            Side::Client => self.request(frame, out),
            Side::Server => self.answer(frame, out),
        }
    }

    fn request(&mut self, frame: &Frame, out: &mut Output) {
        let Some(header) = Header::read(&frame.bytes) else { return };
        let body = frame.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let packed = header.op == OP_COMPRESSED;
        let mut classes = Classes::new(out.marks.is_some() && !packed, HEADER_BYTES);
        let asked = if packed {
            match wire::unpacked(body, MAX_KEPT_BYTES) {
                Some((op, body)) => body::request(op, &body, &mut classes),
                None => Asked { op: NAMELESS.into(), cut: true, ..Asked::default() },
            }
        } else {
            body::request(header.op, body, &mut classes)
        };
        mark(Side::Client, frame, packed, asked.secret, &classes, out);
        let mut exchange = Exchange {
            op: asked.op.clone(),
            target: asked.target.clone(),
            request: frame.range.clone(),
            ..Exchange::default()
        };
        if asked.cut {
            exchange.flags.insert(frame.lack());
        }
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.matching.len() > 0 || !self.streams.is_empty());
        if asked.silent {
            exchange.status = Status::Ok;
            exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(exchange);
        } else {
            self.matching.ask(header.id, exchange, asked, out);
        }
    }

    fn answer(&mut self, frame: &Frame, out: &mut Output) {
        let Some(header) = Header::read(&frame.bytes) else { return };
        let packed = header.op == OP_COMPRESSED;
        let streamed = self.streams.remove(&header.answers);
        let waiting =
            streamed.or_else(|| self.matching.take(header.answers).map(|waiting| (waiting.exchange, waiting.detail)));
        let known = waiting.is_some();
        let found = waiting.or_else(|| Some((self.matching.unseen_request()?, Asked::default())));
        let (mut exchange, asked) = found.unwrap_or_default();
        let asked = if known { asked } else { Asked { command: true, ..asked } };
        let body = frame.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let mut classes = Classes::new(out.marks.is_some() && !packed, HEADER_BYTES);
        let answer = if packed {
            match wire::unpacked(body, MAX_KEPT_BYTES) {
                Some((op, body)) => body::answer(op, &body, &asked, &mut classes),
                None => Answer { cut: true, ..Answer::default() },
            }
        } else {
            body::answer(header.op, body, &asked, &mut classes)
        };
        mark(Side::Server, frame, packed, answer.secret || asked.secret, &classes, out);
        if !known && exchange.op.is_empty() {
            // Asked before the recording began.
            return;
        }
        let first = exchange.response.is_none();
        let start = exchange.response.as_ref().map_or(frame.range.start, |response| response.start);
        exchange.response = Some(start..frame.range.end);
        if let Some(rows) = answer.rows {
            exchange.rows = Some(exchange.rows.unwrap_or(0).saturating_add(rows));
        }
        // Of a stream of answers, an error anywhere counts.
        if first || answer.ok == Some(false) {
            self.conclude(&mut exchange, answer.ok, answer.code, answer.message);
        }
        if answer.cut || exchange.status == Status::Unknown {
            exchange.flags.insert(frame.lack());
        }
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        if !first || answer.more {
            exchange.flags.insert(Flags::STREAMING);
        }
        if answer.more && frame.whole && self.streams.len() < MAX_STREAMS {
            self.streams.insert(header.id, (exchange, asked));
        } else {
            out.exchanges.push(exchange);
        }
    }

    fn conclude(&self, exchange: &mut Exchange, ok: Option<bool>, code: Option<Box<str>>, message: Option<Box<str>>) {
        exchange.status = match ok {
            Some(true) => Status::Ok,
            Some(false) => Status::Error,
            None => Status::Unknown,
        };
        exchange.code = code;
        exchange.error = message.map(|text| if self.options.literals { text } else { body::mask(&text) });
    }
}

/// Classifies a message: its header, then what its body told.
fn mark(side: Side, frame: &Frame, packed: bool, secret: bool, classes: &Classes, out: &mut Output) {
    let start = frame.range.start;
    let limit = frame.range.end;
    let mut marker = out.marker(side, start);
    let head = if packed { COMPRESSED_HEAD_BYTES } else { HEADER_BYTES };
    marker.to((start + head as u64).min(limit), ByteClass::Structure);
    for (end, class) in classes.list() {
        marker.to((start + end).min(limit), *class);
    }
    marker.to(limit, if secret { ByteClass::Secret } else { ByteClass::Value });
}

impl Parser for Mongo {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        self.frames.advance(streams);
        self.read(Side::Client, streams, out);
        self.read(Side::Server, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        for side in [Side::Client, Side::Server] {
            if let Some(frame) = self.frames.finish(side, streams) {
                self.message(side, &frame, out);
            }
        }
        for (_, (mut exchange, _)) in std::mem::take(&mut self.streams) {
            exchange.flags.insert(Flags::INCOMPLETE);
            out.exchanges.push(exchange);
        }
        self.matching.finish(streams, out);
        drop_rest(streams, out);
    }
}
