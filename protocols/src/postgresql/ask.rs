//! What the client sends: openings, and messages that become steps and requests.

use std::ops::Range;
use std::sync::Arc;

use super::message::{
    HEAD_BYTES, Message, Peek, client_fits, client_looks, name, peek, take, terminated, u16_be, u32_be,
};
use super::startup::{self, OPENING_BYTES, Opening, opening};
use super::statements::{Portal, Statement, parameters};
use super::{Answering, Asking, Kind, PostgreSql, Step, Unseen};
use crate::pairing::{find_start, pass_chunk};
use crate::sql::{self, Dialect};
use crate::{ByteClass, Exchange, Flags, NAMELESS, Output, Side, SqlFacts, Stream, Streams, SwitchedTo, text};

/// Bytes of a statement that are looked at. What is shown of it is shorter; lists in it collapse.
const MAX_SQL_BYTES: usize = 32 << 10;

/// Bytes of a Bind that are looked at: names, and parameters as far as they are shown.
const MAX_BIND_BYTES: usize = 4 << 10;

/// Bytes of names (63 at most, unless the server was built otherwise) with what stands around them.
const MAX_NAME_BYTES: usize = 512;

/// Types of parameters that are remembered with a statement.
const MAX_TYPES: usize = 64;

/// A Bind and an Execute without names and parameters.
const SMALLEST_REQUEST_BYTES: u64 = 23;

impl PostgreSql {
    pub(super) fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.switched && !streams.client.is_empty() {
            if self.negotiating.is_some() && !self.go_on_unanswered(streams, out) {
                return;
            }
            if self.silent && self.asking == Asking::Search && opening(streams.client.bytes()).is_some() {
                // The recording began between the handshakes of TCP and PostgreSQL.
                self.mid_stream = false;
                self.answering = Answering::new(false);
                self.asking = Asking::Start;
            }
            if self.asking == Asking::Search {
                let found = find_start(&mut streams.client, Side::Client, chunk, out, client_looks);
                self.extend_unended(streams.client.position());
                if !found {
                    return;
                }
                self.unended = None;
                self.copying = false;
                self.asking = Asking::Command;
            }
            let read = !self.pairing.is_full(streams, out)
                && match self.asking {
                    Asking::Start => self.read_opening(streams, chunk, out),
                    _ => self.read_message(streams, chunk, out),
                };
            if !read {
                return;
            }
            self.silent = false;
        }
    }

    fn search(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        pass_chunk(&mut streams.client, Side::Client, chunk, out);
        self.extend_unended(streams.client.position());
        self.asking = Asking::Search;
        self.seen_at = None;
        self.segment = None;
    }

    fn extend_unended(&mut self, to: u64) {
        if let Some(start) = self.unended
            && let Some(last) = self.pairing.back_mut().filter(|last| last.exchange.request.start == start)
        {
            last.exchange.request.end = to;
        }
    }

    /// The client goes on though the server's letter was not seen; false if it can't be told how.
    fn go_on_unanswered(&mut self, streams: &mut Streams, out: &mut Output) -> bool {
        const TLS_HANDSHAKE: u8 = 0x16;
        if self.asking == Asking::Start && self.read_letter(streams, out) && self.negotiating.is_none() {
            return !self.switched;
        }
        match (streams.client.bytes().first(), self.negotiating.take()) {
            (Some(&TLS_HANDSHAKE), Some(Opening::Tls)) => {
                self.switch(SwitchedTo::Protocol("tls"), streams, out);
                false
            }
            _ => true,
        }
    }

    /// Reads the letter that answers a request for encryption; false if it is not there.
    pub(super) fn read_letter(&mut self, streams: &mut Streams, out: &mut Output) -> bool {
        let server = &mut streams.server;
        let (Some(asked), Some(letter)) = (self.negotiating, server.bytes().first().copied()) else { return false };
        let at = server.position();
        match (asked, letter) {
            (_, b'S' | b'G' | b'N') => {
                out.mark(Side::Server, at..at + 1, ByteClass::Structure);
                server.advance(1);
                self.negotiating = None;
                match letter {
                    b'S' => self.switch(SwitchedTo::Protocol("tls"), streams, out),
                    b'G' => self.switch(SwitchedTo::Unread, streams, out),
                    _ => {}
                }
            }
            // A server that knows nothing of it says so in an ErrorResponse.
            _ => self.negotiating = None,
        }
        true
    }

    /// Reads a message without a type; false if more bytes are needed.
    fn read_opening(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let client = &mut streams.client;
        let bytes = client.bytes();
        let at = client.position();
        if bytes.len() < OPENING_BYTES && client.hole().is_none() {
            return false;
        }
        let Some(opening) = opening(bytes) else {
            out.rejected |= bytes.len() >= OPENING_BYTES;
            self.search(streams, chunk, out);
            return true;
        };
        let length = match opening {
            Opening::Startup { length, .. } => length,
            Opening::Tls | Opening::Gss => OPENING_BYTES as u64,
            Opening::Cancel => u64::from(u32::from_be_bytes(bytes.first_chunk().copied().unwrap_or_default())),
        };
        if (bytes.len() as u64) < length && client.hole().is_none() {
            return false;
        }
        match opening {
            Opening::Startup { .. } => {
                let content = bytes.get(OPENING_BYTES..).unwrap_or_default();
                let content = content.get(..length as usize - OPENING_BYTES).unwrap_or(content);
                startup::mark_startup(content, at, length, out);
                self.asking = Asking::Command;
                let seen_at = streams.server.end();
                self.step(Kind::Login, at..at + length, seen_at, &mut streams.server, out);
            }
            Opening::Tls | Opening::Gss => {
                out.mark(Side::Client, at..at + length, ByteClass::Structure);
                self.negotiating = Some(opening);
            }
            Opening::Cancel => {
                let process = at + OPENING_BYTES as u64 + 4;
                out.mark(Side::Client, at..process, ByteClass::Structure);
                out.mark(Side::Client, process..at + length, ByteClass::Secret);
            }
        }
        streams.client.skip(length);
        true
    }

    /// Reads a message of the client; false if more bytes are needed.
    fn read_message(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        if !streams.client.bytes().is_empty() && self.seen_at.is_none() {
            self.seen_at = Some(self.pairing.seen_now(streams));
        }
        let wanted = |kind| match kind {
            b'Q' => MAX_SQL_BYTES,
            b'P' => MAX_SQL_BYTES + MAX_NAME_BYTES,
            b'B' => MAX_BIND_BYTES,
            b'E' | b'D' | b'C' => MAX_NAME_BYTES,
            b'F' => 4,
            _ => 0,
        };
        let message = match peek(&streams.client, client_fits, wanted) {
            Peek::Message(message) => message,
            Peek::Wait => return false,
            Peek::Lost(flag) => {
                self.lose_request(flag, streams, chunk, out);
                return true;
            }
        };
        let server = &mut streams.server;
        let start = streams.client.position();
        let size = message.size();
        let request = start..start.saturating_add(size);
        let seen_at = self.seen_at.take().unwrap_or_else(|| server.end());
        match message.kind {
            b'Q' => self.query(&message, request, seen_at, server, out),
            b'P' => self.parse_statement(&message, request, seen_at, server, out),
            b'B' => self.bind(&message, request, seen_at, server, out),
            b'E' => self.execute(&message, request, seen_at, server, out),
            b'D' | b'C' => self.describe_or_close(&message, request, seen_at, server, out),
            b'F' => {
                let oid = message.content.first_chunk().map(|oid| u32::from_be_bytes(*oid));
                let mut exchange = Exchange { op: "function_call".into(), request, ..Exchange::default() };
                exchange.target = oid.map(|oid| oid.to_string().into());
                mark_head(&message, start, 4, ByteClass::Value, out);
                self.request(exchange, Kind::Function, false, seen_at, server, out);
            }
            b'S' => {
                out.mark(Side::Client, request.clone(), ByteClass::Structure);
                self.sync(request, None, seen_at, server, out);
            }
            b'd' | b'c' | b'f' => {
                let class = if message.kind == b'c' { ByteClass::Structure } else { ByteClass::Value };
                mark_head(&message, start, 0, class, out);
                self.copying = message.kind == b'd';
                if let Some(front) = self.pairing.front_mut() {
                    front.exchange.request.end = front.exchange.request.end.max(request.end);
                }
            }
            kind => {
                if kind == b'H' {
                    self.segment = None;
                }
                let class = if kind == b'p' { ByteClass::Secret } else { ByteClass::Structure };
                mark_head(&message, start, 0, class, out);
            }
        }
        streams.client.skip(size);
        true
    }

    fn query(
        &mut self,
        message: &Message<'_>,
        request: Range<u64>,
        seen_at: u64,
        server: &mut Stream,
        out: &mut Output,
    ) {
        let sql = message.content.strip_suffix(&[0]).unwrap_or(message.content);
        let sql = sql.get(..MAX_SQL_BYTES).unwrap_or(sql);
        let cut = message.length > sql.len() as u64 + 1;
        let (target, normalised) = self.shown(sql, cut);
        self.prepared.forget_unnamed();
        let several = cut || memchr::memchr(b';', normalised.as_bytes()).is_some() || normalised.ends_with('…');
        if out.marks.is_some() {
            let mut marker = out.marker(Side::Client, request.start);
            marker.take(HEAD_BYTES as u64, ByteClass::Structure);
            mark_sql(sql, self.dialect(), request.start + HEAD_BYTES as u64, out);
            let seen = request.start + (HEAD_BYTES + sql.len()) as u64;
            out.mark(Side::Client, seen..request.end, if cut { ByteClass::Value } else { ByteClass::Structure });
        }
        let exchange = Exchange {
            op: "query".into(),
            target: Some(target),
            statement: Some(normalised),
            request,
            flags: message.missing.unwrap_or_default(),
            ..Exchange::default()
        };
        self.request(exchange, Kind::Query, several, seen_at, server, out);
    }

    /// A statement's text as it is shown, and normalised.
    fn shown(&self, sql: &[u8], cut: bool) -> (Box<str>, Box<str>) {
        let normalised: Box<str> = sql::normalise(sql, self.dialect(), cut).into();
        let target = match self.options.literals {
            true => text::bounded(sql, text::MAX_TEXT_BYTES, cut),
            false => normalised.clone(),
        };
        (target, normalised)
    }

    fn parse_statement(
        &mut self,
        message: &Message<'_>,
        request: Range<u64>,
        seen_at: u64,
        server: &mut Stream,
        out: &mut Output,
    ) {
        let mut rest = message.content;
        let statement_name = name(&mut rest).unwrap_or_default();
        let sql_at = message.content.len() - rest.len();
        let (sql, whole) = match memchr::memchr(0, rest) {
            Some(end) => rest.split_at(end),
            None => (rest, &[][..]),
        };
        let sql = sql.get(..MAX_SQL_BYTES).unwrap_or(sql);
        let (target, normalised) = self.shown(sql, whole.is_empty());
        let mut types = Vec::new();
        let mut behind = whole.get(1..).unwrap_or_default();
        let count = u16_be(&mut behind).unwrap_or_default();
        for _ in 0..usize::from(count).min(MAX_TYPES) {
            let Some(oid) = u32_be(&mut behind) else { break };
            types.push(oid);
        }
        if out.marks.is_some() {
            let at = request.start + HEAD_BYTES as u64;
            let mut marker = out.marker(Side::Client, request.start);
            marker.to(at, ByteClass::Structure);
            marker.take(sql_at as u64, ByteClass::Identifier);
            mark_sql(sql, self.dialect(), at + sql_at as u64, out);
            let seen = at + (sql_at + sql.len()) as u64;
            let class = if whole.is_empty() { ByteClass::Value } else { ByteClass::Structure };
            out.mark(Side::Client, seen..request.end, class);
        }
        let statement = Arc::new(Statement { target, normalised, types: types.into() });
        self.prepared.prepare(statement_name, Some(statement.clone()));
        self.prepare_step(Kind::Parse(Some(statement)), request, seen_at, server, out);
        if let Some(segment) = self.segment.as_mut().filter(|_| statement_name.is_empty()) {
            // What has no name is prepared to be run at once.
            segment.runs = true;
        }
    }

    fn bind(
        &mut self,
        message: &Message<'_>,
        request: Range<u64>,
        seen_at: u64,
        server: &mut Stream,
        out: &mut Output,
    ) {
        let mut rest = message.content;
        let names = name(&mut rest).and_then(|portal| Some((portal, name(&mut rest)?)));
        let Some((portal_name, statement_name)) = names else {
            // Names that go on in a hole.
            mark_head(message, request.start, 0, ByteClass::Value, out);
            self.prepare_step(Kind::Bind(None), request, seen_at, server, out);
            return;
        };
        let statement = self.prepared.statement(statement_name).cloned();
        let types = statement.as_ref().map(|statement| &*statement.types).unwrap_or_default();
        let parameters = parameters(rest, types, self.options.literals);
        self.prepared.bind(portal_name, Portal { statement: statement.clone(), parameters });
        if out.marks.is_some() {
            let mut marker = out.marker(Side::Client, request.start);
            marker.take(HEAD_BYTES as u64, ByteClass::Structure);
            marker.take((message.content.len() - rest.len()) as u64, ByteClass::Identifier);
            marker.to(request.end, ByteClass::Value);
        }
        self.prepare_step(Kind::Bind(statement), request, seen_at, server, out);
    }

    fn describe_or_close(
        &mut self,
        message: &Message<'_>,
        request: Range<u64>,
        seen_at: u64,
        server: &mut Stream,
        out: &mut Output,
    ) {
        mark_head(message, request.start, 1, ByteClass::Identifier, out);
        let mut rest = message.content;
        let of = take(&mut rest, 1).unwrap_or_default();
        let named = terminated(&mut rest).unwrap_or_default();
        let kind = match (message.kind, of) {
            (b'D', b"S") => Kind::Describe(self.prepared.statement(named).cloned()),
            (b'D', _) => Kind::Describe(self.prepared.portal(named).and_then(|portal| portal.statement.clone())),
            (_, b"S") => {
                self.prepared.close_statement(named);
                Kind::Close
            }
            _ => {
                self.prepared.close_portal(named);
                Kind::Close
            }
        };
        self.prepare_step(kind, request, seen_at, server, out);
    }

    fn execute(
        &mut self,
        message: &Message<'_>,
        request: Range<u64>,
        seen_at: u64,
        server: &mut Stream,
        out: &mut Output,
    ) {
        let named = terminated(&mut { message.content });
        let portal = named.and_then(|named| self.prepared.portal(named));
        let mut exchange = Exchange { op: "execute".into(), request: request.clone(), ..Exchange::default() };
        exchange.flags.insert(message.missing.unwrap_or_default());
        if let Some(portal) = portal {
            if let Some(parameters) = portal.parameters.take() {
                exchange.sql = Some(Box::new(SqlFacts { parameters: Some(parameters), ..SqlFacts::default() }));
            }
            show(&mut exchange, portal.statement.as_deref());
        } else {
            show(&mut exchange, None);
        }
        if out.marks.is_some() {
            let mut marker = out.marker(Side::Client, request.start);
            marker.take(HEAD_BYTES as u64, ByteClass::Structure);
            marker.take(message.length.saturating_sub(4), ByteClass::Identifier);
            marker.to(request.end, ByteClass::Structure);
        }
        let mut seen_at = seen_at;
        if let Some(segment) = self.segment.take() {
            exchange.request.start = segment.start;
            seen_at = segment.seen_at;
        }
        self.request(exchange, Kind::Execute, false, seen_at, server, out);
    }

    /// A message's head is in a hole, or something stands there that is none. Where something of a request was seen, it
    /// counts, though none knows what follows.
    fn lose_request(&mut self, flag: Flags, streams: &mut Streams, chunk: u64, out: &mut Output) {
        let at = streams.client.position();
        let kind = streams.client.bytes().first().copied();
        let seen_at = self.seen_at.take();
        let segment = self.segment.take();
        let hole = flag != Flags::default();
        let length = streams.client.hole().map_or(0, |hole| hole.length);
        let from = segment.as_ref().map_or(at, |segment| segment.start);
        let unseen = Unseen { flag, place: at..at, room: length / SMALLEST_REQUEST_BYTES };
        let follows_execute = self.steps.back().is_some_and(|step| matches!(step.kind, Kind::Execute))
            && self.pairing.back_mut().is_some_and(|last| last.exchange.request.end == at);
        if hole && self.copying {
            self.unended = self.pairing.front().map(|front| front.exchange.request.start);
        } else if hole && follows_execute && matches!(kind, None | Some(b'S')) {
            // A Sync, if it is what mostly follows; it may be more.
            self.sync(at..at, Some(unseen), seen_at.unwrap_or_default(), &mut streams.server, out);
            if let Some(last) = self.pairing.back_mut() {
                last.exchange.flags.insert(flag);
                self.unended = Some(last.exchange.request.start);
            }
        } else if hole
            && (segment.as_ref().is_some_and(|segment| segment.runs) || matches!(kind, Some(b'Q' | b'F' | b'B' | b'E')))
        {
            let (op, step) = match (kind, &segment) {
                (Some(b'Q'), _) => ("query", Kind::Query),
                (Some(b'F'), _) => ("function_call", Kind::Function),
                (Some(b'B' | b'E'), _) | (_, Some(_)) => ("execute", Kind::Execute),
                _ => (NAMELESS, Kind::Execute),
            };
            let start = from;
            let seen_at = segment.as_ref().map(|segment| segment.seen_at).or(seen_at).unwrap_or_default();
            let mut exchange = Exchange { op: op.into(), request: start..at, flags: flag, ..Exchange::default() };
            let extended = matches!(step, Kind::Execute);
            if extended {
                show(&mut exchange, segment.and_then(|segment| segment.statement).as_deref());
            }
            self.request(exchange, step, true, seen_at, &mut streams.server, out);
            if extended {
                self.sync(at..at, Some(unseen), seen_at, &mut streams.server, out);
            }
            self.unended = Some(start);
        } else if hole && (segment.is_some() || kind == Some(b'P')) {
            // Whether it was run is known by the answer.
            let seen_at = segment.as_ref().map(|segment| segment.seen_at).or(seen_at).unwrap_or_default();
            self.search(streams, chunk, out);
            let place = from..streams.client.position();
            let unseen = Unseen { place, room: unseen.room.max(1), ..unseen };
            self.sync(at..at, Some(unseen), seen_at, &mut streams.server, out);
            self.pairing.doubt(self.pairing.seen_now(streams), flag);
            return;
        }
        if hole {
            self.pairing.doubt(self.pairing.seen_now(streams), flag);
        }
        self.search(streams, chunk, out);
        if let Some(Step { kind: Kind::Sync { unseen: Some(unseen), .. }, .. }) = self.steps.back_mut()
            && unseen.place == (at..at)
        {
            let end = streams.client.position();
            unseen.place = end..end;
        }
    }
}

/// Fills in what a statement is, or that it is not known.
fn show(exchange: &mut Exchange, statement: Option<&Statement>) {
    match statement {
        Some(statement) => {
            exchange.target = Some(statement.target.clone());
            exchange.statement = Some(statement.normalised.clone());
        }
        None => exchange.flags.insert(Flags::UNKNOWN_STATEMENT),
    }
}

/// Classifies a message whose content is `class` from its byte `from` on.
fn mark_head(message: &Message<'_>, at: u64, from: u64, class: ByteClass, out: &mut Output) {
    let mut marker = out.marker(Side::Client, at);
    marker.take(HEAD_BYTES as u64 + from.min(message.length), ByteClass::Structure);
    marker.to(at.saturating_add(message.size()), class);
}

/// Classifies a statement's text at stream offset `at`.
fn mark_sql(sql: &[u8], dialect: Dialect, at: u64, out: &mut Output) {
    let mut marker = out.marker(Side::Client, at);
    sql::values(sql, dialect, |value| {
        marker.to(at + value.start as u64, ByteClass::Identifier);
        marker.to(at + value.end as u64, ByteClass::Value);
    });
    marker.to(at + sql.len() as u64, ByteClass::Identifier);
}
