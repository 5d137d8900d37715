//! Apache Thrift: binary and compact encoding; framed, unframed and header transport
//! (<https://github.com/apache/thrift/tree/master/doc/specs>).

mod calls;
mod head;
mod walk;

use std::ops::Range;

use crate::frames::{Frames, Framing, Next};
use crate::pairing::{Chunks, Looks, drop_rest, find_start, hole_flag, pass_chunk};
use crate::{
    About, ByteClass, Detected, Exchange, Flags, Hole, HoleKind, NAMELESS, Options, Output, Parser, Prefix, Protocol,
    Side, Status, Stream, Streams, text,
};
use calls::Calls;
use head::{Content, FRAME_HEAD_BYTES, Framed, Kind, MAX_KEPT_BYTES, looks_plain};
use walk::{Step, Walk};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "thrift",
    streams: true,
    datagrams: false,
    detect,
    parser: |start| Box::new(Thrift::new(start.options, start.mid_stream)),
    about: About {
        source: "Apache Thrift, doc/specs: binary and compact protocol, header format",
        request: "a call or oneway call; `op` the method, `target` the service where several share a connection",
        read: "binary (with and without version) and compact encoding; framed, unframed and header transport (zlib, \
               snappy); exceptions",
        mid_stream: "messages by their head; answers by sequence number and method",
        not_read: "arguments and results; JSON encoding, HTTP and SASL transports",
    },
};

fn looks(side: Side, bytes: &[u8], cut: bool) -> Looks {
    if bytes.is_empty() {
        return Looks::Open;
    }
    match (looks_plain(side, bytes, cut), Framed.looks(side, bytes, cut)) {
        (Looks::Yes, _) | (_, Looks::Yes) => Looks::Yes,
        (Looks::Open, _) | (_, Looks::Open) => Looks::Open,
        _ => Looks::No,
    }
}

fn detect(prefix: &Prefix<'_>) -> Detected {
    let client = looks(Side::Client, prefix.client, prefix.complete);
    match (client, looks(Side::Server, prefix.server, prefix.complete)) {
        (Looks::Yes, Looks::Yes) => Detected::Certain,
        (Looks::Yes, _) if prefix.server.is_empty() || prefix.mid_stream => Detected::Likely,
        (Looks::Yes | Looks::Open, Looks::Open) => Detected::Maybe,
        (Looks::Open, Looks::Yes) if prefix.client.is_empty() => Detected::Maybe,
        _ => Detected::No,
    }
}

/// How one direction's messages are delimited.
enum Transport {
    /// Not seen yet.
    Unknown,
    Framed(Frames),
    /// By their structs' ends.
    Plain(Plain),
}

enum Plain {
    Search,
    Start,
    Walking(Box<Walk>),
}

/// A message that was read.
struct Read {
    /// `None` where it could not be read.
    walk: Option<Walk>,
    range: Range<u64>,
    /// Set where bytes are missing that were needed.
    missing: Flags,
    whole: bool,
}

struct Direction {
    side: Side,
    mid_stream: bool,
    transport: Transport,
}

enum Piece {
    Read(Read),
    Lost(u64, Flags),
}

impl Direction {
    fn new(side: Side, mid_stream: bool) -> Self {
        Self { side, mid_stream, transport: Transport::Unknown }
    }

    /// Finds out how messages are delimited; false if more bytes are needed.
    fn choose(&mut self, stream: &mut Stream, chunk: u64, out: &mut Output) -> Option<()> {
        let side = self.side;
        if self.mid_stream && !find_start(stream, side, chunk, out, |bytes, cut| looks(side, bytes, cut)) {
            return None;
        }
        let cut = stream.hole().is_some();
        if stream.bytes().is_empty() && !cut {
            return None;
        }
        let plain = looks_plain(side, stream.bytes(), cut);
        let framed = Framed.looks(side, stream.bytes(), cut);
        self.transport = match (plain, framed) {
            (Looks::Yes, _) => Transport::Plain(Plain::Start),
            (_, Looks::Yes) => Transport::Framed(Frames::new(side, MAX_KEPT_BYTES, false)),
            (Looks::Open, _) | (_, Looks::Open) => return None,
            // It is none of these, or cut too early: what comes next tells.
            _ => {
                self.mid_stream = true;
                return None;
            }
        };
        Some(())
    }

    fn next(&mut self, stream: &mut Stream, chunk: u64, out: &mut Output) -> Option<Piece> {
        let side = self.side;
        if matches!(self.transport, Transport::Unknown) {
            let before = self.mid_stream;
            let at = stream.position();
            let flag = stream.hole().map_or(Flags::default(), |hole| hole_flag(hole.kind));
            if self.choose(stream, chunk, out).is_none() {
                if self.mid_stream && !before {
                    return Some(Piece::Lost(at, flag));
                }
                return None;
            }
        }
        match &mut self.transport {
            Transport::Unknown => None,
            Transport::Framed(frames) => match frames.next(stream, chunk, 0, &Framed, out) {
                Next::Wait => None,
                Next::Lost(at, flag) => Some(Piece::Lost(at, flag)),
                Next::Frame(frame) => {
                    let (walk, short) = framed(side, &frame.bytes, frame.range.clone(), out);
                    let missing = if short { missing(frame.missing, frame.whole) } else { Flags::default() };
                    let read = Read { walk, range: frame.range.clone(), missing, whole: frame.whole };
                    frames.recycle(frame);
                    Some(Piece::Read(read))
                }
            },
            Transport::Plain(plain) => loop {
                match plain {
                    Plain::Search => {
                        if !find_start(stream, side, chunk, out, |bytes, cut| looks_plain(side, bytes, cut)) {
                            return None;
                        }
                        *plain = Plain::Start;
                    }
                    Plain::Start => {
                        if stream.is_empty() {
                            return None;
                        }
                        let at = stream.position();
                        match Walk::begin(side, stream, out)? {
                            Ok(walk) => *plain = Plain::Walking(Box::new(walk)),
                            Err(flag) => {
                                pass_chunk(stream, side, chunk, out);
                                *plain = Plain::Search;
                                return Some(Piece::Lost(at, flag));
                            }
                        }
                    }
                    Plain::Walking(walk) => {
                        let step = walk.read(stream);
                        if step == Step::Wait {
                            return None;
                        }
                        let Plain::Walking(walk) = std::mem::replace(plain, Plain::Start) else { return None };
                        let head = walk.start + walk.message.length as u64;
                        out.mark(side, head..stream.position(), ByteClass::Value);
                        let mut missing = Flags::default();
                        if let Step::Lost(flag) = step {
                            pass_chunk(stream, side, chunk, out);
                            *plain = Plain::Search;
                            missing = if flag == Flags::default() { Flags::GAP } else { flag };
                        }
                        let range = walk.start..stream.position();
                        return Some(Piece::Read(Read { walk: Some(*walk), range, missing, whole: true }));
                    }
                }
            },
        }
    }

    /// Nothing more will come: the message that the end cut off.
    fn finish(&mut self, stream: &Stream, out: &mut Output) -> Option<Read> {
        match std::mem::replace(&mut self.transport, Transport::Unknown) {
            Transport::Framed(mut frames) => {
                let frame = frames.finish(stream)?;
                let (walk, _) = framed(self.side, &frame.bytes, frame.range.clone(), out);
                Some(Read { walk, range: frame.range, missing: frame.missing, whole: false })
            }
            Transport::Plain(Plain::Walking(walk)) => {
                let head = walk.start + walk.message.length as u64;
                let walked = stream.position();
                out.mark(self.side, head..walked, ByteClass::Value);
                let range = walk.start..stream.end().max(head);
                Some(Read { walk: Some(*walk), range, missing: Flags::default(), whole: false })
            }
            _ => None,
        }
    }
}

fn missing(flags: Flags, whole: bool) -> Flags {
    if flags == Flags::default() && whole { Flags::TRUNCATED } else { flags }
}

/// Reads the message in a frame, of which the first bytes are here; true where more of them were needed.
fn framed(side: Side, bytes: &[u8], range: Range<u64>, out: &mut Output) -> (Option<Walk>, bool) {
    let content = head::content(bytes);
    let (at, message) = match &content {
        Content::Message(at) => (*at, bytes.get(*at..).unwrap_or_default()),
        Content::Packed(message) => (0, message.as_slice()),
        _ => (0, &[][..]),
    };
    let mut stream = Stream::default();
    stream.push(message);
    if (bytes.len() as u64) < range.end - range.start {
        stream.push_hole(Hole { length: 1, kind: HoleKind::Cut });
    }
    stream.close();
    let walk = Walk::begin(side, &mut stream, &mut Output::default());
    let head = match (&content, &walk) {
        (Content::Message(_), Some(Ok(walk))) => at + walk.message.length,
        _ => FRAME_HEAD_BYTES,
    };
    let mut marker = out.marker(side, range.start);
    marker.to((range.start + head as u64).min(range.end), ByteClass::Structure);
    marker.to(range.end, ByteClass::Value);
    let Some(Ok(mut walk)) = walk else { return (None, true) };
    let told = match walk.message.kind {
        // What is needed of a call stands in its head; of a reply, in the first field.
        Kind::Call | Kind::Oneway => true,
        Kind::Reply => walk.read(&mut stream) == Step::Done || walk.first.is_some(),
        Kind::Exception => walk.read(&mut stream) == Step::Done || walk.code.is_some() && walk.text.is_some(),
    };
    (Some(walk), !told)
}

struct Thrift {
    options: Options,
    mid_stream: bool,
    /// No call was read yet.
    fresh: bool,
    chunks: Chunks,
    client: Direction,
    server: Direction,
    calls: Calls,
}

impl Thrift {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            chunks: Chunks::default(),
            client: Direction::new(Side::Client, mid_stream),
            server: Direction::new(Side::Server, mid_stream),
            calls: Calls::default(),
        }
    }

    fn call(&mut self, read: Read, out: &mut Output) {
        let mut exchange =
            Exchange { op: NAMELESS.into(), request: read.range, flags: read.missing, ..Exchange::default() };
        if std::mem::take(&mut self.fresh) && self.mid_stream {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        if !read.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        let Some(walk) = read.walk else {
            if read.missing == Flags::default() && read.whole {
                // A frame with something else in it (a negotiation of TSaslTransport, a packed message).
                return;
            }
            self.calls.lost_requests(exchange.request.start, read.missing);
            return;
        };
        let name = String::from_utf8_lossy(&walk.message.name);
        match name.split_once(':') {
            Some((service, method)) if !method.is_empty() => {
                exchange.op = method.into();
                exchange.target = Some(service.into());
            }
            _ => exchange.op = name.as_ref().into(),
        }
        if !self.calls.is_empty() {
            exchange.flags.insert(Flags::PIPELINED);
        }
        if walk.message.kind == Kind::Oneway {
            exchange.status = Status::Ok;
            exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(exchange);
        } else {
            self.calls.ask(walk.message.sequence, exchange, out);
        }
    }

    fn answer(&mut self, read: Read, out: &mut Output) {
        let Some(walk) = read.walk else {
            self.calls.lost_answers(read.missing);
            return;
        };
        let name = String::from_utf8_lossy(&walk.message.name);
        let method = name.rsplit(':').next().unwrap_or(&name);
        let mut exchange = match self.calls.take(walk.message.sequence, method) {
            Some(waiting) => waiting.exchange,
            None => match self.calls.unseen(read.range.clone()) {
                // The answer tells what was asked.
                Some(unseen) => Exchange { op: method.into(), ..unseen },
                None => return,
            },
        };
        exchange.response = Some(read.range);
        if !read.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        exchange.status = Status::Ok;
        if walk.message.kind == Kind::Exception {
            exchange.status = Status::Error;
            exchange.code = walk.code.map(exception_name);
            exchange.error = walk.text.map(|text| if self.options.literals { text } else { text::mask_quoted(&text) });
            exchange.flags.insert(read.missing);
        } else if let Some(field @ 1..) = walk.first {
            // One that the method declares: part of its contract, so no error; the field says which.
            exchange.code = Some(format!("exception {field}").into());
        } else if walk.first.is_none() {
            exchange.flags.insert(read.missing);
        }
        out.exchanges.push(exchange);
    }
}

/// Types of `TApplicationException`.
fn exception_name(code: i32) -> Box<str> {
    let name = match code {
        0 => "UNKNOWN",
        1 => "UNKNOWN_METHOD",
        2 => "INVALID_MESSAGE_TYPE",
        3 => "WRONG_METHOD_NAME",
        4 => "BAD_SEQUENCE_ID",
        5 => "MISSING_RESULT",
        6 => "INTERNAL_ERROR",
        7 => "PROTOCOL_ERROR",
        8 => "INVALID_TRANSFORM",
        9 => "INVALID_PROTOCOL",
        10 => "UNSUPPORTED_CLIENT_TYPE",
        _ => return code.to_string().into(),
    };
    name.into()
}

impl Parser for Thrift {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        let chunks = self.chunks.advance(streams);
        while let Some(piece) = self.client.next(&mut streams.client, chunks.0, out) {
            match piece {
                Piece::Read(read) => self.call(read, out),
                Piece::Lost(at, flag) => {
                    if self.fresh && !self.mid_stream && flag == Flags::default() {
                        out.rejected = true;
                        return;
                    }
                    self.calls.lost_requests(at, flag);
                }
            }
        }
        while let Some(piece) = self.server.next(&mut streams.server, chunks.1, out) {
            match piece {
                Piece::Read(read) => self.answer(read, out),
                Piece::Lost(_, flag) => self.calls.lost_answers(flag),
            }
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        if let Some(read) = self.client.finish(&streams.client, out) {
            self.call(read, out);
        }
        if let Some(read) = self.server.finish(&streams.server, out) {
            self.answer(read, out);
        }
        self.calls.finish(streams, out);
        drop_rest(streams, out);
    }
}
