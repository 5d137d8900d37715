//! WebSocket (RFC 6455), behind the upgrade of an HTTP/1.1 connection.
//!
//! There are no answers in it, only messages of both sides. A message of the client is an exchange without an answer; one
//! of the server is an exchange whose request is empty and whose answer is the message, so that direction, time and size
//! of each can be told. Of control frames, a client's ping has an answer (the pong), and so has a client's close.

use std::collections::VecDeque;
use std::ops::Range;

use crate::pairing::{Chunks, Looks, drop_all, drop_rest, find_start, hole_flag, pass_chunk};
use crate::{
    About, ByteClass, Detected, Exchange, Flags, Options, Output, Parser, Protocol, Side, Start, Status, Stream,
    Streams, text,
};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "websocket",
    streams: true,
    datagrams: false,
    // Its frames look like anything: it is known by the upgrade only.
    detect: |_| Detected::No,
    parser: |start| Box::new(WebSocket::new(start)),
    about: About {
        source: "RFC 6455, RFC 7692",
        request: "a message of either side, whole of its fragments; `op` is text, binary, ping or close",
        read: "fragments, interleaved control frames, pings with their pongs, close codes and reasons",
        mid_stream: "not detected: the upgrade has to be seen; behind lost frames the next one is found by its structure",
        not_read: "compressed payloads are counted, not inflated; subprotocols",
    },
};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL_BYTES: u64 = 125;
/// Pings that may wait for a pong.
const MAX_PINGS: usize = 64;

/// A frame's header.
#[derive(Debug, Clone, Copy)]
struct Head {
    last: bool,
    reserved: u8,
    op: u8,
    key: Option<[u8; 4]>,
    /// Bytes of the header, and of the payload.
    size: usize,
    length: u64,
}

impl Head {
    /// `Ok(None)`: more bytes are needed.
    fn read(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (length, extended) = match second & 0x7f {
            126 => (rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes))), 2),
            127 => (rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)), 8),
            length => (Some(u64::from(length)), 0),
        };
        let Some(length) = length else { return Ok(None) };
        let op = first & 15;
        if length >> 63 != 0 || !matches!(op, 0..=2 | 8..=10) {
            return Err(());
        }
        let masked = second & 0x80 != 0;
        let key = match rest.get(extended..).and_then(|rest| rest.first_chunk()) {
            Some(key) if masked => Some(*key),
            None if masked => return Ok(None),
            _ => None,
        };
        let size = 2 + extended + if masked { 4 } else { 0 };
        Ok(Some(Self { last: first & 0x80 != 0, reserved: first >> 4 & 7, op, key, size, length }))
    }

    fn is_control(&self) -> bool {
        self.op >= CLOSE
    }

    /// As peers send it: the mask is the client's, bits that no extension uses are clear, lengths are as short as can be.
    fn is_likely(&self, side: Side) -> bool {
        let extended = self.size - 2 - if self.key.is_some() { 4 } else { 0 };
        let shortest = match extended {
            0 => true,
            2 => self.length > MAX_CONTROL_BYTES,
            _ => self.length > 0xffff && self.length < 1 << 32,
        };
        let control = !self.is_control() || self.last && self.length <= MAX_CONTROL_BYTES && self.reserved == 0;
        self.key.is_some() == (side == Side::Client) && self.reserved & 3 == 0 && shortest && control
    }
}

fn looks(side: Side, bytes: &[u8], cut: bool) -> Looks {
    match Head::read(bytes) {
        Err(()) => Looks::No,
        Ok(None) if cut => Looks::No,
        Ok(None) => Looks::Open,
        Ok(Some(head)) => {
            let size = head.size as u64 + head.length;
            let next = usize::try_from(size).ok().and_then(|size| bytes.get(size..)).unwrap_or_default();
            let follows = match Head::read(next) {
                Ok(Some(next)) => next.is_likely(side),
                Ok(None) => true,
                Err(()) => false,
            };
            (head.is_likely(side) && follows).into()
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Reading {
    Search,
    Head,
    Payload(Head, u64),
    /// The rest of a frame that ends here.
    Pass(Head, Range64),
}

/// A range that can be copied.
#[derive(Debug, Clone, Copy)]
struct Range64 {
    start: u64,
    end: u64,
}

/// A message that has begun.
#[derive(Debug)]
struct Message {
    op: u8,
    range: Range<u64>,
    bytes: u64,
    flags: Flags,
    /// The other side's end when it began.
    seen_at: u64,
}

#[derive(Debug)]
struct Half {
    side: Side,
    reading: Reading,
    message: Option<Message>,
    /// What is there of the current control frame's payload, unmasked.
    control: Vec<u8>,
    lost: Flags,
    closed: bool,
}

struct WebSocket {
    options: Options,
    chunks: Chunks,
    client: Half,
    server: Half,
    /// The client's pings without a pong, and its close.
    pings: VecDeque<(Vec<u8>, Exchange)>,
    close: Option<Exchange>,
}

impl WebSocket {
    fn new(start: &Start) -> Self {
        let half = |side| Half {
            side,
            reading: if start.mid_stream { Reading::Search } else { Reading::Head },
            message: None,
            control: Vec::new(),
            lost: Flags::default(),
            closed: false,
        };
        Self {
            options: start.options,
            chunks: Chunks::default(),
            client: half(Side::Client),
            server: half(Side::Server),
            pings: VecDeque::new(),
            close: None,
        }
    }

    fn read(&mut self, side: Side, streams: &mut Streams, chunk: u64, out: &mut Output) {
        loop {
            let (half, stream, other_end) = match side {
                Side::Client => (&mut self.client, &mut streams.client, streams.server.end()),
                Side::Server => (&mut self.server, &mut streams.server, streams.client.end()),
            };
            if half.closed {
                drop_all(stream, side, out);
                return;
            }
            let Some((head, range)) = half.next(stream, chunk, other_end, out) else { return };
            self.take(side, head, range, other_end, out);
        }
    }

    /// A frame was passed.
    fn take(&mut self, side: Side, head: Head, range: Range<u64>, other_end: u64, out: &mut Output) {
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let lost = std::mem::take(&mut half.lost);
        let mut flags = Flags::CONTROL;
        flags.insert(lost);
        match head.op {
            CONTINUATION | TEXT | BINARY => {
                half.lost.insert(lost);
                half.data(&head, &range, other_end, out);
            }
            PING => {
                let exchange = message(side, "ping", range, other_end, flags);
                if side == Side::Server {
                    out.exchanges.push(Exchange { status: Status::Ok, ..exchange });
                    return;
                }
                if self.pings.len() >= MAX_PINGS
                    && let Some((_, oldest)) = self.pings.pop_front()
                {
                    out.exchanges.push(Exchange { status: Status::Unanswered, ..oldest });
                }
                self.pings.push_back((std::mem::take(&mut half.control), exchange));
            }
            PONG if side == Side::Server => {
                // Of several pings only the last may be answered (section 5.5.3).
                let Some(place) = self.pings.iter().position(|(payload, _)| *payload == half.control) else { return };
                for (_, unanswered) in self.pings.drain(..place) {
                    out.exchanges.push(Exchange { status: Status::Unanswered, ..unanswered });
                }
                if let Some((_, mut exchange)) = self.pings.pop_front() {
                    exchange.flags.insert(lost);
                    out.exchanges.push(Exchange { status: Status::Ok, response: Some(range), ..exchange });
                }
            }
            CLOSE => {
                half.closed = true;
                let mut exchange = message(side, "close", range.clone(), other_end, flags);
                closing(&mut exchange, &half.control, head.length, self.options);
                match (side, self.close.take()) {
                    (Side::Server, Some(close)) => {
                        out.exchanges.push(Exchange { response: Some(range), ..close });
                    }
                    // An answer to the server's.
                    (Side::Client, _) if self.server.closed => {}
                    (Side::Client, _) => self.close = Some(exchange),
                    (Side::Server, None) => out.exchanges.push(exchange),
                }
            }
            _ => {}
        }
    }
}

/// An exchange for what `side` sent.
fn message(side: Side, op: &str, range: Range<u64>, other_end: u64, mut flags: Flags) -> Exchange {
    let answered = side == Side::Client && matches!(op, "ping" | "close");
    if !answered {
        flags.insert(Flags::NO_REPLY);
    }
    let (request, response) = match side {
        Side::Client => (range, None),
        Side::Server => (other_end..other_end, Some(range)),
    };
    Exchange { op: op.into(), request, response, flags, ..Exchange::default() }
}

/// What a close frame says (RFC 6455, section 7.4).
fn closing(exchange: &mut Exchange, payload: &[u8], length: u64, options: Options) {
    let Some((code, reason)) = payload.split_first_chunk() else {
        // Without a code it is a normal one; where a hole is, it may be any.
        exchange.status = if length == 0 { Status::Ok } else { Status::Unknown };
        return;
    };
    let code = u16::from_be_bytes(*code);
    exchange.code = Some(code.to_string().into());
    if matches!(code, 1000 | 1001) {
        exchange.status = Status::Ok;
        return;
    }
    exchange.status = Status::Error;
    if !reason.is_empty() {
        let reason = text::bounded(reason, 256, (payload.len() as u64) < length);
        exchange.error = Some(if options.literals { reason } else { text::mask_quoted(&reason) });
    }
}

impl Half {
    /// The next frame, passed whole.
    fn next(
        &mut self,
        stream: &mut Stream,
        chunk: u64,
        other_end: u64,
        out: &mut Output,
    ) -> Option<(Head, Range<u64>)> {
        loop {
            if stream.is_skipping() {
                return None;
            }
            match self.reading {
                Reading::Search => {
                    let side = self.side;
                    if !find_start(stream, side, chunk, out, |bytes, cut| looks(side, bytes, cut)) {
                        return None;
                    }
                    self.reading = Reading::Head;
                }
                Reading::Head => match Head::read(stream.bytes()) {
                    Ok(Some(head)) => {
                        let start = stream.position();
                        let payload = start + head.size as u64;
                        out.mark(self.side, start..payload, ByteClass::Structure);
                        stream.advance(head.size);
                        self.reading = Reading::Payload(head, start);
                        self.begin(&head, start, other_end);
                    }
                    Ok(None) if stream.hole().is_none() => return None,
                    _ => self.lose(stream, chunk, out),
                },
                Reading::Payload(head, start) => {
                    let kept = if head.is_control() { head.length.min(MAX_CONTROL_BYTES) as usize } else { 0 };
                    let bytes = stream.bytes();
                    if bytes.len() < kept && stream.hole().is_none() {
                        return None;
                    }
                    self.control.clear();
                    self.control.extend_from_slice(bytes.get(..kept).unwrap_or(bytes));
                    self.control.truncate(kept);
                    if let Some(key) = head.key {
                        for (byte, key) in self.control.iter_mut().zip(key.iter().cycle()) {
                            *byte ^= key;
                        }
                    }
                    let from = start + head.size as u64;
                    let end = from.saturating_add(head.length);
                    let code = if head.op == CLOSE { end.min(from + 2) } else { from };
                    out.mark(self.side, from..code, ByteClass::Structure);
                    out.mark(self.side, code..end, ByteClass::Value);
                    stream.skip(head.length);
                    self.reading = Reading::Pass(head, Range64 { start, end });
                }
                Reading::Pass(head, Range64 { start, end }) => {
                    self.reading = Reading::Head;
                    return Some((head, start..end));
                }
            }
        }
    }

    /// A frame begins: it may begin a message.
    fn begin(&mut self, head: &Head, start: u64, seen_at: u64) {
        if matches!(head.op, TEXT | BINARY) {
            let flags = self.lost;
            self.lost = Flags::default();
            self.message = Some(Message { op: head.op, range: start..start, bytes: 0, flags, seen_at });
        }
    }

    /// A frame of data was passed.
    fn data(&mut self, head: &Head, range: &Range<u64>, other_end: u64, out: &mut Output) {
        // A message whose beginning was lost.
        let message = self.message.get_or_insert_with(|| Message {
            op: CONTINUATION,
            range: range.clone(),
            bytes: 0,
            flags: self.lost,
            seen_at: other_end,
        });
        message.range.end = range.end;
        message.bytes += range.end - range.start;
        if head.last {
            self.lost = Flags::default();
            self.deliver(Flags::default(), out);
        }
    }

    fn deliver(&mut self, flags: Flags, out: &mut Output) {
        let Some(mut whole) = self.message.take() else { return };
        whole.flags.insert(flags);
        let op = match whole.op {
            TEXT => "text",
            BINARY => "binary",
            _ => crate::NAMELESS,
        };
        let foreign = whole.bytes != whole.range.end - whole.range.start;
        let bytes = (foreign && whole.flags == Flags::default()).then_some(whole.bytes);
        let mut exchange = message(self.side, op, whole.range, whole.seen_at, whole.flags);
        match self.side {
            Side::Client => exchange.request_bytes = bytes,
            Side::Server => exchange.response_bytes = bytes,
        }
        out.exchanges.push(Exchange { status: Status::Ok, ..exchange });
    }

    /// The framing is lost. A message that has begun ends somewhere in what is lost.
    fn lose(&mut self, stream: &mut Stream, chunk: u64, out: &mut Output) {
        let flag = stream.hole().map_or(Flags::GAP, |hole| hole_flag(hole.kind));
        pass_chunk(stream, self.side, chunk, out);
        if let Some(message) = &mut self.message {
            message.range.end = stream.position().min(stream.end()).max(message.range.start);
        }
        self.deliver(flag, out);
        self.lost.insert(flag);
        self.reading = Reading::Search;
    }

    /// Nothing more will come.
    fn finish(&mut self, stream: &Stream, out: &mut Output) {
        if let Some(message) = &mut self.message {
            message.range.end = stream.end().max(message.range.start);
        }
        self.deliver(Flags::INCOMPLETE, out);
    }
}

impl Parser for WebSocket {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        let (client_chunk, server_chunk) = self.chunks.advance(streams);
        self.read(Side::Client, streams, client_chunk, out);
        self.read(Side::Server, streams, server_chunk, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        self.client.finish(&streams.client, out);
        self.server.finish(&streams.server, out);
        for (_, ping) in self.pings.drain(..) {
            out.exchanges.push(Exchange { status: Status::Unanswered, ..ping });
        }
        if let Some(close) = self.close.take() {
            // The code is the client's word; that nobody answered is no error of it.
            let unanswered = close.status == Status::Ok;
            let status = if unanswered { Status::Unanswered } else { close.status };
            out.exchanges.push(Exchange { status, ..close });
        }
        drop_rest(streams, out);
    }
}
