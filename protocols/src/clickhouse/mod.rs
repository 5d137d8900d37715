//! ClickHouse's native protocol (<https://clickhouse.com/docs/native-protocol/basics>).

mod block;
mod packet;
mod revision;

use crate::cursor::Cursor;
use crate::pairing::{Chunks, Looks, Pairing, drop_all, find_start, hole_flag, pass_chunk};
use crate::sql::{self, Dialect};
use crate::turns::{self, Turns};
use crate::{
    About, ByteClass, Detected, Exchange, Flags, Options, Output, Parser, Prefix, Protocol, Side, Status, Streams,
    SwitchedTo, text,
};
use block::{Block, Step};
use packet::{CANCEL, DATA, Not, PING, QUERY, Said};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "clickhouse",
    streams: true,
    datagrams: false,
    detect,
    parser: |start| Box::new(ClickHouse::new(start.options, start.mid_stream)),
    about: About {
        source: "ClickHouse documentation (native protocol), src/Core/ProtocolDefines.h for revisions",
        request: "a query with the data sent for it, or a ping; `op` says which, `target` the statement",
        read: "revisions 54429 and later; blocks by their columns' types, packed blocks by their sizes; exceptions, \
               progress, profile",
        mid_stream: "queries by their form in every revision; what is not walked ends at the next request",
        not_read: "chunked packets, values, sparse columns, AggregateFunction, JSON, Variant, Dynamic, tables' status",
    },
};

/// Bytes of a statement that are looked at.
const MAX_SQL_BYTES: usize = 32 << 10;

/// Bytes at which a packet must be whole: the largest is an exception with its stack traces.
const MAX_PACKET_BYTES: usize = 16 << 20;

fn detect(prefix: &Prefix<'_>) -> Detected {
    let greets = |bytes: &[u8], client: bool| {
        let mut cursor = Cursor::new(bytes);
        match if client { packet::hello(&mut cursor) } else { packet::greeting(&mut cursor) } {
            _ if bytes.is_empty() => Looks::Open,
            Ok(_) => Looks::Yes,
            Err(Not::Enough) if !prefix.complete => Looks::Open,
            Err(_) => Looks::No,
        }
    };
    match (greets(prefix.client, true), greets(prefix.server, false)) {
        (Looks::Yes, Looks::Yes) => return Detected::Certain,
        (Looks::Yes, Looks::Open) => return if prefix.complete { Detected::Likely } else { Detected::Maybe },
        // A refused login is answered by an exception.
        (Looks::Yes, Looks::No) if packet::exception_head(&mut Cursor::new(prefix.server)).is_some() => {
            return Detected::Certain;
        }
        (Looks::Open, Looks::Open) if !prefix.mid_stream && !prefix.client.is_empty() => return Detected::Maybe,
        (Looks::Open, Looks::Open) if prefix.client.is_empty() && prefix.server.is_empty() => return Detected::Maybe,
        _ => {}
    }
    if !prefix.mid_stream {
        return Detected::No;
    }
    // A query has too much in it to be anything else.
    match packet::query_form(prefix.client) {
        _ if prefix.client.is_empty() => Detected::No,
        Ok(_) => Detected::Certain,
        Err(Not::Enough) if !prefix.complete => Detected::Maybe,
        Err(_) => Detected::No,
    }
}

fn looks_like_request(bytes: &[u8], cut: bool) -> Looks {
    // Pings are one byte, and sent alone.
    if bytes == [PING as u8] && !cut {
        return Looks::Yes;
    }
    match packet::query_form(bytes) {
        Ok(_) => Looks::Yes,
        Err(Not::Enough) if !cut => Looks::Open,
        Err(_) => Looks::No,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Query { packed: bool },
    Ping,
}

/// Where the client's stream stands.
enum Asking {
    Hello,
    /// At a packet, or at what a client adds to its greeting.
    Packet,
    /// Behind a query's text.
    Parameters,
    /// In a block.
    Block(Block),
    /// Looking for a request at the starts of chunks; what is passed over belongs to the one before if `mine`.
    Search {
        mine: bool,
    },
}

struct ClickHouse {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    chunks: Chunks,
    pairing: Pairing<Kind>,
    asking: Asking,
    seen_at: Option<u64>,
    client_revision: Option<u64>,
    server_revision: Option<u64>,
    /// The client's addition to its greeting was read, or there is none.
    added: bool,
    /// The server's greeting was read, or was not seen.
    greeted: bool,
    /// Blocks of the last query are packed.
    packed: bool,
    /// Where the answer begins that is read.
    start: Option<u64>,
    block: Option<Block>,
    rows: Option<u64>,
    written: u64,
    switched: bool,
}

impl ClickHouse {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            chunks: Chunks::default(),
            pairing: Pairing::default(),
            asking: if mid_stream { Asking::Search { mine: false } } else { Asking::Hello },
            seen_at: None,
            client_revision: None,
            server_revision: None,
            added: mid_stream,
            greeted: mid_stream,
            packed: false,
            start: None,
            block: None,
            rows: None,
            written: 0,
            switched: false,
        }
    }

    /// The one that both sides use, as far as it is known.
    fn revision(&self) -> Option<u64> {
        Some(self.client_revision?.min(self.server_revision?))
    }

    /// The request read last has bytes up to here.
    fn extend(&mut self, end: u64) {
        if let Some(last) = self.pairing.back_mut() {
            last.exchange.request.end = last.exchange.request.end.max(end);
        }
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.switched && !streams.client.is_empty() {
            let more = match &mut self.asking {
                Asking::Hello => self.read_hello(streams, chunk, out),
                Asking::Packet => self.read_packet(streams, chunk, out),
                Asking::Parameters => self.read_parameters(streams, chunk, out),
                Asking::Block(block) => {
                    let from = streams.client.position();
                    let step = block.read(&mut streams.client);
                    let end = streams.client.position();
                    out.mark(Side::Client, from..end, ByteClass::Value);
                    self.extend(end);
                    match step {
                        Step::Wait => false,
                        Step::Done => {
                            self.asking = Asking::Packet;
                            true
                        }
                        Step::Lost(_) => {
                            self.search(streams, chunk, true, out);
                            true
                        }
                    }
                }
                Asking::Search { mine } => {
                    let mine = *mine;
                    let found = find_start(&mut streams.client, Side::Client, chunk, out, looks_like_request);
                    if mine {
                        self.extend(streams.client.position());
                    }
                    if found {
                        self.asking = Asking::Packet;
                        self.added = true;
                    }
                    found
                }
            };
            if !more {
                return;
            }
        }
    }

    /// Gives up the client's current chunk. `mine`: it belongs to the request read last.
    fn search(&mut self, streams: &mut Streams, chunk: u64, mine: bool, out: &mut Output) {
        pass_chunk(&mut streams.client, Side::Client, chunk, out);
        if mine {
            self.extend(streams.client.position());
        }
        self.asking = Asking::Search { mine };
        self.seen_at = None;
    }

    /// What to do where a packet can't be read; false if more bytes are needed.
    fn unread(&mut self, not: Not, streams: &mut Streams, chunk: u64, mine: bool, out: &mut Output) -> bool {
        let hole = streams.client.hole();
        if not == Not::Enough && hole.is_none() && streams.client.bytes().len() < MAX_PACKET_BYTES {
            return false;
        }
        if self.fresh && !self.mid_stream && hole.is_none() && self.client_revision.is_none() {
            out.rejected = true;
        }
        if let (Some(hole), false) = (hole, self.fresh) {
            self.pairing.doubt(self.pairing.seen_now(streams), hole_flag(hole.kind));
        }
        self.search(streams, chunk, mine, out);
        true
    }

    fn read_hello(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let mut cursor = Cursor::new(streams.client.bytes());
        match packet::hello(&mut cursor) {
            Ok(revision) => {
                self.client_revision = Some(revision);
                let start = streams.client.position();
                out.mark(Side::Client, start..start + cursor.at() as u64, ByteClass::Secret);
                streams.client.advance(cursor.at());
                self.asking = Asking::Packet;
                true
            }
            Err(not) => self.unread(not, streams, chunk, false, out),
        }
    }

    fn read_packet(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let revision = self.revision();
        let start = streams.client.position();
        let mut cursor = Cursor::new(streams.client.bytes());
        if !self.added {
            if revision.is_some_and(|revision| revision >= revision::ADDENDUM) {
                return match packet::addendum(&mut cursor, revision.unwrap_or_default()) {
                    Ok(chunked) => {
                        out.mark(Side::Client, start..start + cursor.at() as u64, ByteClass::Structure);
                        streams.client.advance(cursor.at());
                        self.added = true;
                        if chunked {
                            self.switched = true;
                            out.switched = Some(SwitchedTo::Unread);
                        }
                        true
                    }
                    Err(not) => self.unread(not, streams, chunk, false, out),
                };
            }
            self.added = true;
        }
        let kind = match packet::number(&mut cursor) {
            Ok(kind) => kind,
            Err(not) => return self.unread(not, streams, chunk, false, out),
        };
        match kind {
            QUERY => self.read_query(streams, chunk, out),
            PING => {
                if self.pairing.is_full(streams, out) {
                    return false;
                }
                let seen_at = self.pairing.seen_now(streams);
                let exchange = Exchange { op: "ping".into(), request: start..start + 1, ..Exchange::default() };
                out.mark(Side::Client, start..start + 1, ByteClass::Structure);
                streams.client.advance(1);
                self.send(exchange, seen_at, Kind::Ping, streams, out);
                true
            }
            CANCEL => {
                out.mark(Side::Client, start..start + 1, ByteClass::Structure);
                streams.client.advance(1);
                self.extend(start + 1);
                if let Some(last) = self.pairing.back_mut() {
                    last.exchange.flags.insert(Flags::CANCELLED);
                }
                true
            }
            // Data of a query, or a scalar for it.
            DATA | 7 => match packet::string(&mut cursor) {
                Ok(_) => {
                    let end = start + cursor.at() as u64;
                    out.mark(Side::Client, start..end, ByteClass::Structure);
                    streams.client.advance(cursor.at());
                    self.extend(end);
                    self.asking = Asking::Block(Block::new(self.packed, revision.unwrap_or(revision::BLOCK_INFO)));
                    true
                }
                Err(not) => self.unread(not, streams, chunk, true, out),
            },
            _ => self.unread(Not::Fits, streams, chunk, true, out),
        }
    }

    fn read_query(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        if self.pairing.is_full(streams, out) {
            return false;
        }
        let seen_at = match self.seen_at {
            Some(seen_at) => seen_at,
            None => *self.seen_at.insert(self.pairing.seen_now(streams)),
        };
        let start = streams.client.position();
        let bytes = streams.client.bytes();
        let hole = streams.client.hole();
        if self.revision().is_none() {
            match packet::query_form(bytes) {
                Ok(revision) => {
                    self.client_revision = Some(revision);
                    self.server_revision = Some(revision);
                }
                Err(not) => return self.unread(not, streams, chunk, false, out),
            }
        }
        let query = match packet::query(&mut Cursor::new(bytes), self.revision().unwrap_or_default()) {
            Ok(query) => query,
            Err(not) => return self.unread(not, streams, chunk, false, out),
        };
        let wanted = usize::try_from(query.text_length).unwrap_or(usize::MAX).min(MAX_SQL_BYTES);
        if query.text.len() < wanted && hole.is_none() {
            return false;
        }
        let seen = query.text.get(..wanted).unwrap_or(query.text);
        let cut = (seen.len() as u64) < query.text_length;
        let statement: Box<str> = sql::normalise(seen, Dialect::MySql, cut).into();
        let target = match self.options.literals {
            true => text::bounded(seen, text::MAX_TEXT_BYTES, cut),
            false => statement.clone(),
        };
        let text_at = start + query.text_at as u64;
        let end = text_at.saturating_add(query.text_length);
        let mut exchange = Exchange {
            op: "query".into(),
            target: Some(target),
            statement: Some(statement),
            request: start..end,
            ..Exchange::default()
        };
        if let (true, Some(hole)) = (seen.len() < wanted, hole) {
            exchange.flags.insert(hole_flag(hole.kind));
        }
        // Before the text stand settings, among them whatever people set.
        let mut marker = out.marker(Side::Client, start);
        marker.to(text_at, ByteClass::Value);
        sql::values(seen, Dialect::MySql, |value| {
            marker.to(text_at + value.start as u64, ByteClass::Identifier);
            marker.to(text_at + value.end as u64, ByteClass::Value);
        });
        marker.to(text_at + seen.len() as u64, ByteClass::Identifier);
        marker.to(end, ByteClass::Value);
        let packed = query.packed;
        streams.client.skip(end - start);
        self.packed = packed;
        self.seen_at = None;
        self.asking = Asking::Parameters;
        self.send(exchange, seen_at, Kind::Query { packed }, streams, out);
        true
    }

    fn read_parameters(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let start = streams.client.position();
        let mut cursor = Cursor::new(streams.client.bytes());
        match packet::parameters(&mut cursor, self.revision().unwrap_or_default()) {
            Ok(()) => {
                let end = start + cursor.at() as u64;
                out.mark(Side::Client, start..end, ByteClass::Value);
                streams.client.advance(cursor.at());
                self.extend(end);
                self.asking = Asking::Packet;
                true
            }
            Err(not) => self.unread(not, streams, chunk, true, out),
        }
    }

    fn send(&mut self, mut exchange: Exchange, seen_at: u64, kind: Kind, streams: &mut Streams, out: &mut Output) {
        if std::mem::take(&mut self.fresh) && self.mid_stream {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        if self.pairing.lost().is_some() {
            self.forget();
        }
        self.pairing.push(exchange, seen_at, kind, &mut streams.server, out);
    }

    /// Nothing of an answer is being read.
    fn forget(&mut self) {
        self.start = None;
        self.block = None;
        self.rows = None;
        self.written = 0;
    }

    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.switched && !streams.server.is_empty() {
            if !self.greeted {
                match packet::greeting(&mut Cursor::new(streams.server.bytes())) {
                    Ok(revision) => self.server_revision = Some(revision),
                    Err(Not::Enough) if streams.server.hole().is_none() => return,
                    Err(_) => {}
                }
                self.greeted = true;
            }
            let position = streams.server.position();
            let Some(front) = self.pairing.front() else {
                if self.pairing.is_behind() {
                    return;
                }
                // The greeting's rest, or news of the time zone: nobody's answer.
                if self.fresh && self.mid_stream {
                    drop_all(&mut streams.server, Side::Server, out);
                } else {
                    let end = streams.server.end();
                    out.mark(Side::Server, position..end, ByteClass::Structure);
                    streams.server.skip(end.saturating_sub(position));
                }
                return;
            };
            if self.start.is_none() && self.block.is_none() && self.pairing.lost().is_none() && position < front.seen_at
            {
                let ahead = front.seen_at - position;
                out.skipped(Side::Server, ahead);
                streams.server.skip(ahead);
                continue;
            }
            if let Some(lost) = self.pairing.lost() {
                // Where a chunk begins with an exception, it is that of the answer.
                pass_to(streams, chunk, out);
                let failed = packet::exception_head(&mut Cursor::new(streams.server.bytes()))
                    .map(|(code, message)| (code, self.message(message, false)));
                if let (Some((code, message)), Some(front)) = (failed, self.pairing.front_mut()) {
                    fail(&mut front.exchange, code, message);
                }
                self.pairing.pass_lost(lost, &mut streams.server, out);
                return;
            }
            if !self.read_answer(streams, out) {
                return;
            }
        }
    }

    /// Reads a packet, or a part of a block; false if more bytes are needed.
    fn read_answer(&mut self, streams: &mut Streams, out: &mut Output) -> bool {
        let from = streams.server.position();
        let start = *self.start.get_or_insert(from);
        if let Some(block) = &mut self.block {
            let step = block.read(&mut streams.server);
            out.mark(Side::Server, from..streams.server.position(), ByteClass::Value);
            match step {
                Step::Wait => return false,
                Step::Done => self.block = None,
                Step::Lost(flag) => {
                    self.forget();
                    self.pairing.lose(start, true, flag);
                }
            }
            return true;
        }
        let Some(revision) = self.revision() else {
            self.forget();
            self.pairing.lose(start, false, Flags::GAP);
            return true;
        };
        let mut cursor = Cursor::new(streams.server.bytes());
        let said = match packet::answer(&mut cursor, revision) {
            Ok(said) => said,
            Err(Not::Enough) if streams.server.hole().is_none() && streams.server.bytes().len() < MAX_PACKET_BYTES => {
                return false;
            }
            Err(_) => {
                let flag = streams.server.hole().map_or(Flags::default(), |hole| hole_flag(hole.kind));
                let failed = packet::exception_head(&mut Cursor::new(streams.server.bytes()))
                    .map(|(code, message)| (code, self.message(message, true)));
                if let (Some((code, message)), Some(front)) = (failed, self.pairing.front_mut()) {
                    fail(&mut front.exchange, code, message);
                }
                self.forget();
                self.pairing.lose(start, true, flag);
                return true;
            }
        };
        let end = from + cursor.at() as u64;
        let mut class = ByteClass::Structure;
        let mut done = false;
        match said {
            Said::Exception { code, message, .. } => {
                class = ByteClass::Value;
                let message = self.message(message, false);
                if let Some(front) = self.pairing.front_mut() {
                    fail(&mut front.exchange, code, message);
                }
                done = true;
            }
            Said::Progress { written } => self.written = self.written.saturating_add(written.unwrap_or(0)),
            Said::ProfileInfo { rows } => self.rows = Some(rows),
            Said::Pong | Said::EndOfStream => {
                let rows = self.rows.or((self.written > 0).then_some(self.written));
                if let Some(front) = self.pairing.front_mut() {
                    front.exchange.status = Status::Ok;
                    if front.detail != Kind::Ping {
                        front.exchange.rows = rows;
                    }
                }
                done = true;
            }
            Said::Block { packs } => {
                let packed = matches!(self.pairing.front().map(|f| f.detail), Some(Kind::Query { packed: true }));
                self.block = Some(Block::new(packed && packs, revision));
            }
            Said::Other => {}
        }
        out.mark(Side::Server, from..end, class);
        streams.server.advance(cursor.at());
        if done {
            self.forget();
            self.pairing.complete(start..end, out);
        }
        true
    }

    fn message(&self, message: &[u8], cut: bool) -> Box<str> {
        let message = text::bounded(message, text::MAX_TEXT_BYTES, cut);
        if self.options.literals { message } else { mask(&message) }
    }
}

fn fail(exchange: &mut Exchange, code: i32, message: Box<str>) {
    exchange.status = Status::Error;
    exchange.code = Some(code.to_string().into());
    exchange.error = Some(message);
}

/// Passes over what is here before the chunk pushed last.
fn pass_to(streams: &mut Streams, chunk: u64, out: &mut Output) {
    let ahead = chunk.saturating_sub(streams.server.position());
    if ahead > 0 && chunk <= streams.server.end() {
        out.skipped(Side::Server, ahead);
        streams.server.skip(ahead);
    }
}

/// An exception's message without values: quoted texts and numbers, and what it repeats of the query.
fn mask(message: &str) -> Box<str> {
    const REPEATS: &[&str] = &["): ", "In scope", "While ", "while ", "in query", "Stack trace"];
    let end = REPEATS.iter().filter_map(|words| message.find(words).map(|at| at + usize::from(words.starts_with(')'))));
    let end = end.min().unwrap_or(message.len());
    let kept = message.get(..end).unwrap_or_default();
    let mut masked = text::mask_numbers(&text::mask_quoted(kept));
    if end < message.len() {
        masked.push('…');
    }
    masked.into()
}

impl Turns for ClickHouse {
    type Detail = Kind;

    fn pairing(&mut self) -> &mut Pairing<Kind> {
        &mut self.pairing
    }

    fn chunks(&mut self) -> &mut Chunks {
        &mut self.chunks
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_requests(streams, chunk, out);
    }

    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_answers(streams, chunk, out);
    }

    fn has_left(&self) -> bool {
        self.switched
    }
}

impl Parser for ClickHouse {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        turns::read(self, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        if !turns::read_rest(self, streams, out) {
            return;
        }
        if let (None, Some(start)) = (self.pairing.lost(), self.start) {
            self.pairing.finish_incomplete(start, streams, out);
        }
        turns::end(self, streams, out);
    }
}
