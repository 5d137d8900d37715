//! Cassandra's native protocol, versions 3 to 5
//! (<https://github.com/apache/cassandra/tree/trunk/doc>, `native_protocol_v3.spec` to `native_protocol_v5.spec`).

mod body;
mod frame;
mod segment;

use std::collections::HashMap;

use crate::cursor::Cursor;
use crate::frames::{Frame, Frames, Framing, Next};
use crate::matching::Matching;
use crate::pairing::{Chunks, Looks, drop_rest};
use crate::sql::{self, Dialect};
use crate::{
    About, ByteClass, Detected, Exchange, Flags, NAMELESS, Options, Output, Parser, Prefix, Protocol, Side, SqlFacts,
    Status, Stream, Streams, text,
};
use body::{Compression, Said};
use frame::*;
use segment::{Fed, Form, Segments};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "cassandra",
    streams: true,
    datagrams: false,
    detect,
    parser: |start| Box::new(Cql::new(start.options, start.mid_stream)),
    about: About {
        source: "Apache Cassandra, native_protocol_v3.spec to v5.spec",
        request: "a request frame; `op` its name (`QUERY`, `EXECUTE`, `STARTUP`), `target` the statement",
        read: "versions 3 to 5, segments of version 5, LZ4 and Snappy, prepared statements, batches, warnings",
        mid_stream: "frames by header and body, segments by checksum; answers name their request's stream",
        not_read: "versions 1 and 2, values of rows and parameters, contents of events and traces, CRC of payloads",
    },
};

/// Bytes of a frame that are looked at.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// Texts of prepared statements that are remembered for one connection.
const MAX_PREPARED_BYTES: usize = 16 << 20;

fn detect(prefix: &Prefix<'_>) -> Detected {
    let looks = |side, bytes: &[u8]| match Form::of(bytes) {
        _ if bytes.is_empty() => Looks::Open,
        Some(_) if prefix.mid_stream => Looks::Yes,
        _ => Envelopes.looks(side, bytes, prefix.complete),
    };
    match (looks(Side::Client, prefix.client), looks(Side::Server, prefix.server)) {
        (Looks::Yes, Looks::Yes) => Detected::Certain,
        // Checksums tell segments from everything else; the other side may begin within one.
        (Looks::Yes, Looks::No) if prefix.mid_stream && Form::of(prefix.client).is_some() => Detected::Likely,
        (Looks::Yes, Looks::Open) if prefix.mid_stream || prefix.server.is_empty() => Detected::Likely,
        (Looks::Yes | Looks::Open, Looks::Open) => Detected::Maybe,
        (Looks::Open, Looks::Yes) if prefix.client.is_empty() => Detected::Maybe,
        _ => Detected::No,
    }
}

/// A statement as it is shown.
#[derive(Debug, Clone)]
struct Statement {
    /// With literals, where they are asked for.
    target: Box<str>,
    normalised: Box<str>,
}

/// What the answer to a request depends on.
#[derive(Debug, Default)]
struct Asked {
    opcode: u8,
    prepares: Option<Statement>,
}

/// One direction.
struct Direction {
    side: Side,
    frames: Frames,
    segments: Option<Segments>,
}

enum Piece {
    Frame(Frame),
    Lost(u64, Flags),
}

impl Direction {
    fn new(side: Side, mid_stream: bool) -> Self {
        Self { side, frames: Frames::new(side, MAX_KEPT_BYTES, mid_stream), segments: None }
    }

    /// What follows comes in segments.
    fn segmented(&mut self, form: Form, mid_stream: bool) {
        if self.segments.is_none() {
            self.segments = Some(Segments::new(self.side, form, mid_stream));
            self.frames = Frames::new(self.side, MAX_KEPT_BYTES, mid_stream);
        }
    }

    fn next(&mut self, stream: &mut Stream, chunk: u64, class: ByteClass, out: &mut Output) -> Option<Piece> {
        loop {
            let next = match &mut self.segments {
                None => self.frames.next(stream, chunk, 0, &Envelopes, out),
                Some(segments) => {
                    let chunk = segments.chunk;
                    let frames = &mut self.frames;
                    segments.read(out, |inner, out| frames.next(inner, chunk, 0, &Envelopes, out))
                }
            };
            match (next, &mut self.segments) {
                (Next::Frame(frame), _) => return Some(Piece::Frame(frame)),
                (Next::Lost(at, flag), None) => return Some(Piece::Lost(at, flag)),
                (Next::Lost(at, flag), Some(segments)) => {
                    return Some(Piece::Lost(segments.on_wire(&(at..at)).start, flag));
                }
                (Next::Wait, None) => return None,
                (Next::Wait, Some(segments)) => match segments.feed(stream, chunk, class, out) {
                    Fed::Segment => {}
                    Fed::Wait => return None,
                    Fed::Lost(at, flag) => {
                        self.frames.search();
                        return Some(Piece::Lost(at, flag));
                    }
                },
            }
        }
    }

    /// Its offsets on the wire.
    fn range(&self, frame: &Frame) -> std::ops::Range<u64> {
        match &self.segments {
            Some(segments) => segments.on_wire(&frame.range),
            None => frame.range.clone(),
        }
    }

    /// Classifies a frame's bytes.
    fn mark(&mut self, frame: &Frame, classes: &[(usize, ByteClass)], rest: ByteClass, out: &mut Output) {
        if out.marks.is_some() {
            let mut inner = Output { marks: Some(Vec::new()), ..Output::default() };
            let mut marker = inner.marker(self.side, frame.range.start);
            for (end, class) in classes {
                marker.to((frame.range.start + *end as u64).min(frame.range.end), *class);
            }
            marker.to(frame.range.end, rest);
            match &self.segments {
                Some(segments) => segments.mark(inner.marks.unwrap_or_default(), out),
                None => out.marks.get_or_insert_default().extend(inner.marks.unwrap_or_default()),
            }
        }
        if let Some(segments) = &mut self.segments {
            segments.forget(frame.range.end);
        }
    }

    fn finish(&mut self, stream: &Stream) -> Option<Frame> {
        match &mut self.segments {
            Some(segments) => {
                segments.finish();
                self.frames.finish(&segments.inner)
            }
            None => self.frames.finish(stream),
        }
    }
}

struct Cql {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    chunks: Chunks,
    client: Direction,
    server: Direction,
    matching: Matching<i16, Asked>,
    compression: Option<Compression>,
    /// It is not known whether what comes is in segments.
    unsure: bool,
    /// Credentials are being exchanged.
    authenticating: bool,
    prepared: HashMap<Box<[u8]>, Statement>,
    prepared_bytes: usize,
}

impl Cql {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            chunks: Chunks::default(),
            client: Direction::new(Side::Client, mid_stream),
            server: Direction::new(Side::Server, mid_stream),
            matching: Matching::default(),
            compression: None,
            unsure: mid_stream,
            authenticating: false,
            prepared: HashMap::new(),
            prepared_bytes: 0,
        }
    }

    fn class(&self) -> ByteClass {
        if self.authenticating { ByteClass::Secret } else { ByteClass::Value }
    }

    /// Both directions are in segments from here on.
    fn segmented(&mut self, form: Form, mid_stream: bool) {
        self.unsure = false;
        self.client.segmented(form, mid_stream);
        self.server.segmented(form, mid_stream);
    }

    /// Where the start was not seen, or the answer to STARTUP was lost, bytes at the start of a chunk tell.
    fn find_out(&mut self, streams: &Streams, chunks: (u64, u64)) {
        for (stream, chunk) in [(&streams.client, chunks.0), (&streams.server, chunks.1)] {
            let ahead = usize::try_from(chunk.saturating_sub(stream.position())).unwrap_or(usize::MAX);
            if self.unsure
                && let Some(form) = stream.bytes().get(ahead..).and_then(Form::of)
            {
                self.segmented(form, true);
            }
        }
    }

    fn statement(&self, text: &[u8], whole: bool) -> Statement {
        let normalised: Box<str> = sql::normalise(text, Dialect::Cql, !whole).into();
        let target = match self.options.literals {
            true => text::bounded(text, text::MAX_TEXT_BYTES, !whole),
            false => normalised.clone(),
        };
        Statement { target, normalised }
    }

    fn request(&mut self, frame: &Frame, out: &mut Output) {
        let Some(header) = Header::read(&frame.bytes) else { return };
        let mut exchange = Exchange {
            op: name(header.opcode).unwrap_or(NAMELESS).into(),
            request: self.client.range(frame),
            ..Exchange::default()
        };
        let body = frame.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let packed = header.flags & COMPRESSED != 0 && self.client.segments.is_none();
        let unpacked = packed.then(|| Compression::unpack(self.compression, body, MAX_KEPT_BYTES));
        let body = unpacked.as_deref().unwrap_or(body);
        let mut cursor = Cursor::new(body);
        let mut asked = Asked { opcode: header.opcode, prepares: None };
        let mut classes = Vec::new();
        let extras = body::skip_extras(&mut cursor, header.flags, false);
        if header.opcode == STARTUP {
            self.compression = body::compression(&mut cursor.clone());
            self.unsure = header.version & 0x7f >= 5;
        }
        let (said, complete) = match extras {
            Some(_) => body::statements(header.opcode, &mut cursor),
            None => (Vec::new(), !matches!(header.opcode, QUERY | PREPARE | EXECUTE | BATCH)),
        };
        if out.marks.is_some() && !packed {
            mark_statements(&said, &mut classes);
        }
        asked.prepares = self.show(&said, header.opcode, &mut exchange);
        if !complete {
            exchange.flags.insert(frame.lack());
        }
        let secret = header.opcode == AUTH_RESPONSE;
        if header.opcode == QUERY || header.opcode == EXECUTE || header.opcode == PREPARE {
            self.authenticating = false;
        }
        self.client.mark(frame, &classes, if secret { ByteClass::Secret } else { ByteClass::Value }, out);
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.matching.len() > 0);
        self.matching.ask(header.stream, exchange, asked, out);
    }

    /// Notes the statements of a request; what a PREPARE prepares is given back.
    fn show(&self, said: &[Said<'_>], opcode: u8, exchange: &mut Exchange) -> Option<Statement> {
        let mut shown: Option<Statement> = None;
        let mut last: Option<&Said<'_>> = None;
        for one in said {
            // A batch is mostly the same statement with other values.
            if last == Some(one) {
                continue;
            }
            last = Some(one);
            let statement = match one {
                Said::Text { text, whole, .. } => Some(self.statement(text, *whole)),
                Said::Id(id) => self.prepared.get(*id).cloned(),
            };
            let Some(statement) = statement else {
                exchange.flags.insert(Flags::UNKNOWN_STATEMENT);
                continue;
            };
            match &mut shown {
                None => shown = Some(statement),
                Some(all) if all.normalised.ends_with(&*statement.normalised) => {}
                Some(all) if all.normalised.len() + statement.normalised.len() < sql::MAX_BYTES => {
                    all.target = format!("{}; {}", all.target, statement.target).into();
                    all.normalised = format!("{}; {}", all.normalised, statement.normalised).into();
                }
                Some(all) if all.normalised.ends_with('…') => break,
                Some(all) => {
                    all.target = format!("{}; …", all.target).into();
                    all.normalised = format!("{}; …", all.normalised).into();
                    break;
                }
            }
        }
        let shown = shown?;
        exchange.target = Some(shown.target.clone());
        exchange.statement = Some(shown.normalised.clone());
        (opcode == PREPARE).then_some(shown)
    }

    fn answer(&mut self, frame: &Frame, out: &mut Output) {
        let Some(header) = Header::read(&frame.bytes) else { return };
        let version = header.version & 0x7f;
        let response = self.server.range(frame);
        let secret = matches!(header.opcode, AUTH_CHALLENGE | AUTH_SUCCESS);
        let rest = if secret { ByteClass::Secret } else { ByteClass::Value };
        self.server.mark(frame, &[(HEADER_BYTES, ByteClass::Structure)], rest, out);
        if header.opcode == EVENT || header.stream < 0 {
            return;
        }
        let waiting = self.matching.take(header.stream);
        let unseen = if waiting.is_none() { self.matching.unseen_request() } else { None };
        let Some((mut exchange, asked)) =
            waiting.map(|one| (one.exchange, one.detail)).or(unseen.map(|one| (one, Asked::default())))
        else {
            // Asked before the recording began.
            return;
        };
        exchange.response = Some(response);
        let body = frame.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let packed = header.flags & COMPRESSED != 0 && self.server.segments.is_none();
        let unpacked = packed.then(|| Compression::unpack(self.compression, body, MAX_KEPT_BYTES));
        let mut cursor = Cursor::new(unpacked.as_deref().unwrap_or(body));
        // The operation says how it went.
        exchange.status = if header.opcode == ERROR { Status::Error } else { Status::Ok };
        match body::skip_extras(&mut cursor, header.flags, true) {
            None => exchange.flags.insert(frame.lack()),
            Some(warnings) => {
                if warnings > 0 {
                    exchange.sql = Some(Box::new(SqlFacts { warnings, ..SqlFacts::default() }));
                }
                self.conclude(&header, &mut cursor, asked, &mut exchange);
            }
        }
        if exchange.status == Status::Error && exchange.code.is_none() {
            exchange.flags.insert(frame.lack());
        }
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        out.exchanges.push(exchange);
        match header.opcode {
            AUTHENTICATE => self.authenticating = true,
            AUTH_SUCCESS => self.authenticating = false,
            _ => {}
        }
        if version >= 5 && matches!(header.opcode, READY | AUTHENTICATE) && self.server.segments.is_none() {
            self.segmented(Form { packed: self.compression == Some(Compression::Lz4) }, false);
        }
    }

    fn conclude(&mut self, header: &Header, cursor: &mut Cursor<'_>, asked: Asked, exchange: &mut Exchange) {
        match header.opcode {
            ERROR => {
                let (code, message) = body::error(cursor);
                exchange.code = code;
                exchange.error = message.map(|text| if self.options.literals { text } else { mask(&text) });
            }
            RESULT => match body::result(header.version & 0x7f, cursor) {
                Some(body::Result::Rows(rows)) => exchange.rows = rows,
                Some(body::Result::Prepared(id)) if asked.opcode == PREPARE => {
                    if let Some(statement) = asked.prepares {
                        self.remember(id, statement);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn remember(&mut self, id: &[u8], statement: Statement) {
        let bytes = id.len() + statement.target.len() + statement.normalised.len() + 128;
        if self.prepared.contains_key(id) || self.prepared_bytes + bytes > MAX_PREPARED_BYTES {
            return;
        }
        self.prepared_bytes += bytes;
        self.prepared.insert(id.into(), statement);
    }
}

/// An error message without the values in it: what stands in quotes, in brackets (where a syntax error quotes the statement)
/// and in parentheses (a literal of another type).
fn mask(message: &str) -> Box<str> {
    let quoted = text::mask_quoted(message);
    let Some(start) = quoted.find(['(', '[']) else { return quoted };
    let head = quoted.get(..=start).unwrap_or_default();
    let tail =
        quoted.rfind([')', ']']).filter(|end| *end > start).and_then(|end| quoted.get(end..)).unwrap_or_default();
    format!("{head}?{tail}").into()
}

/// Classes up to the end of each part of a frame, from its header on.
fn mark_statements(said: &[Said<'_>], classes: &mut Vec<(usize, ByteClass)>) {
    classes.push((HEADER_BYTES, ByteClass::Structure));
    for one in said {
        if let Said::Text { text, at, .. } = one {
            let start = HEADER_BYTES + at;
            classes.push((start, ByteClass::Value));
            sql::values(text, Dialect::Cql, |value| {
                classes.push((start + value.start, ByteClass::Identifier));
                classes.push((start + value.end, ByteClass::Value));
            });
            classes.push((start + text.len(), ByteClass::Identifier));
        }
    }
}

impl Parser for Cql {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        let chunks = self.chunks.advance(streams);
        if self.unsure && self.client.segments.is_none() {
            self.find_out(streams, chunks);
        }
        while let Some(piece) = self.client.next(&mut streams.client, chunks.0, self.class(), out) {
            match piece {
                Piece::Frame(frame) => {
                    self.request(&frame, out);
                    self.client.frames.recycle(frame);
                }
                Piece::Lost(at, flag) => {
                    if self.fresh && !self.mid_stream && flag == Flags::default() {
                        out.rejected = true;
                        return;
                    }
                    self.matching.lost_requests(at, flag);
                }
            }
        }
        while let Some(piece) = self.server.next(&mut streams.server, chunks.1, self.class(), out) {
            match piece {
                Piece::Frame(frame) => {
                    self.answer(&frame, out);
                    self.server.frames.recycle(frame);
                }
                Piece::Lost(_, flag) => self.matching.lost_answers(flag),
            }
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        if let Some(frame) = self.client.finish(&streams.client) {
            self.request(&frame, out);
        }
        if let Some(frame) = self.server.finish(&streams.server) {
            self.answer(&frame, out);
        }
        self.matching.finish(streams, out);
        drop_rest(streams, out);
    }
}
