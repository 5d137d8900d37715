//! MySQL and MariaDB, text and prepared statements
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>,
//! <https://mariadb.com/kb/en/clientserver-protocol/>).

mod answer;
mod command;
mod compressed;
mod inflate;
mod login;
mod outcome;
mod packet;
mod statement;
mod values;

use crate::pairing::{Chunks, Looks, Pairing, find_start, pass_chunk};
use crate::sql::{self, Dialect};
use crate::turns::{self, Turns};
use crate::{
    About, ByteClass, Detected, Exchange, Flags, NAMELESS, Options, Output, Parser, Prefix, Protocol, Side, Status,
    Streams, SwitchedTo,
};
use answer::{Answering, looks_like_answer};
use command::{Answer, Carries, Command, is_tls_record, looks_like_command};
use compressed::{Compression, looks_like_frame};
use packet::{HEADER_BYTES, MAX_PAYLOAD_BYTES, Peek, peek};
use statement::{Prepared, Statement};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "mysql",
    streams: true,
    datagrams: false,
    detect,
    parser: |start| Box::new(MySql::new(start.options, start.mid_stream)),
    about: About {
        source: "MySQL server developer documentation (client/server protocol), MariaDB knowledge base",
        request: "a command packet; `op` its name, `target` the statement. Logging in is none, `quit` is one",
        read: "text and prepared statements with parameters, result sets in all forms, cursors, LOCAL INFILE, bulk \
               execution, the server's status flags, compression (zlib, zstd)",
        mid_stream: "commands by sequence number, length and kind; ends of columns and rows from the packets themselves",
        not_read: "the protocol before 4.1, binlog events, values of rows",
    },
};

/// Bytes of a statement that are looked at. What is shown of it is shorter; lists in it collapse.
const MAX_SQL_BYTES: usize = 32 << 10;

fn detect(prefix: &Prefix<'_>) -> Detected {
    if !prefix.mid_stream || greets(prefix.server) {
        return match prefix.server {
            [] if prefix.client.is_empty() => Detected::Maybe,
            [a, b, 0, 0, payload @ ..] => {
                let length = usize::from(u16::from_le_bytes([*a, *b]));
                let seen = payload.get(..length).unwrap_or(payload);
                let client_fits = matches!(prefix.client, [] | [_] | [_, _] | [_, _, _] | [_, _, _, 1, ..]);
                match (seen.first(), login::is_greeting(seen)) {
                    (_, true) if client_fits => Detected::Certain,
                    // ERR: too many connections, host not allowed.
                    (Some(0xff), _) if length > 9 && seen.len() == length && prefix.client.is_empty() => {
                        Detected::Likely
                    }
                    (Some(10), _) if seen.len() < length && seen.len() < 96 && client_fits => Detected::Maybe,
                    (None, _) => Detected::Maybe,
                    _ => Detected::No,
                }
            }
            [_] | [_, _] | [_, _, 0] => Detected::Maybe,
            _ => Detected::No,
        };
    }
    if is_tls_record(prefix.client) || is_tls_record(prefix.server) {
        return Detected::No;
    }
    let client =
        if prefix.client.is_empty() { Looks::Open } else { looks_like_command(prefix.client, prefix.complete) };
    match (client, looks_like_answer(prefix.server, 1)) {
        (Looks::Yes, Looks::Yes) => Detected::Certain,
        (Looks::Yes, _) if is_statement(prefix.client) => Detected::Likely,
        (Looks::Yes | Looks::Open, _) => Detected::Maybe,
        (Looks::No, _) => Detected::No,
    }
    .max(detect_compressed(prefix))
}

/// The same for a connection that is compressed.
fn detect_compressed(prefix: &Prefix<'_>) -> Detected {
    let client = looks_like_frame(Side::Client, prefix.client, prefix.complete);
    let server = looks_like_frame(Side::Server, prefix.server, prefix.complete);
    match (client, server) {
        (Looks::Yes, Looks::Yes) => Detected::Certain,
        (Looks::Yes, _) if is_statement(&compressed::first_bytes(prefix.client)) => Detected::Likely,
        (Looks::Yes, _) => Detected::Maybe,
        (Looks::Open, _) if !prefix.client.is_empty() => Detected::Maybe,
        _ => Detected::No,
    }
}

/// A whole greeting at the start.
fn greets(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, 0, 0, payload @ ..] if login::is_greeting(payload))
}

/// A statement in plain words, or the execution of a prepared one.
fn is_statement(bytes: &[u8]) -> bool {
    let Some((command, content)) = bytes.get(HEADER_BYTES..).and_then(|payload| payload.split_first()) else {
        return false;
    };
    const VERBS: &[&[u8]] = &[
        b"select",
        b"insert",
        b"update",
        b"delete",
        b"set ",
        b"show",
        b"begin",
        b"commit",
        b"rollback",
        b"call",
        b"replace",
        b"start ",
        b"with ",
        b"use ",
        b"/*",
    ];
    let text = command::query_text(content).trim_ascii_start();
    match *command {
        command::QUERY | command::PREPARE => {
            VERBS.iter().any(|verb| text.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb)))
        }
        command::EXECUTE => true,
        _ => false,
    }
}

/// What the answer to a command depends on.
#[derive(Debug)]
struct Asked {
    answer: Answer,
    /// What a prepare prepares.
    prepares: Option<Statement>,
    /// Sequence number of the answer's first packet.
    sequence: u8,
}

/// Where the client's stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Before its first packet.
    Greeted,
    /// Proving who it is.
    Login,
    /// At a command.
    Command,
    /// In a command of more than 16 MiB, which begins at `start`.
    Continuation { start: u64 },
    /// Sending a file, up to an empty packet.
    File,
    /// Looking for a command at the starts of chunks.
    Search,
}

struct MySql {
    options: Options,
    mid_stream: bool,
    /// No command was read yet.
    fresh: bool,
    chunks: Chunks,
    pairing: Pairing<Asked>,
    asking: Asking,
    seen_at: Option<u64>,
    /// Where the command begins whose last packets can't be followed: what is passed over to find the next is its.
    unended: Option<u64>,
    /// A command of more than 16 MiB that has no answer, until its end was seen.
    silent: Option<Exchange>,
    /// The client asked for compression: it begins behind the login.
    compressed: bool,
    /// Reads the frames of a compressed connection, once they began.
    compression: Option<Box<Compression>>,
    /// What is read is the content of such frames.
    inside: bool,
    /// The server's first packet was looked at, or is none.
    greeted: bool,
    /// The server's part of the login can't be followed.
    login_lost: bool,
    answering: Answering,
    prepared: Prepared,
    /// Whether a backslash in a string escapes what follows it, once the server's status flags told.
    backslash_escapes: Option<bool>,
    switched: bool,
}

impl MySql {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            chunks: Chunks::default(),
            pairing: Pairing::default(),
            asking: if mid_stream { Asking::Search } else { Asking::Greeted },
            seen_at: None,
            unended: None,
            silent: None,
            compressed: false,
            compression: None,
            inside: false,
            greeted: false,
            login_lost: false,
            answering: Answering::default(),
            prepared: Prepared::default(),
            backslash_escapes: None,
            switched: false,
        }
    }

    /// How the client's statements are to be read.
    fn dialect(&self) -> Dialect {
        match self.backslash_escapes {
            Some(true) => Dialect::MySql,
            Some(false) => Dialect::MySqlPlain,
            None => Dialect::MySqlUntold,
        }
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.stands_aside() && !streams.client.is_empty() {
            if self.asking == Asking::Search {
                let may_be_compressed = self.fresh && !self.inside;
                let frame = |bytes: &[u8], cut: bool| match may_be_compressed {
                    true => looks_like_frame(Side::Client, bytes, cut),
                    false => Looks::No,
                };
                // Where nothing was asked yet, the request to go over to TLS may be what was lost.
                let may_be_tls = self.fresh && !self.inside;
                let found = find_start(&mut streams.client, Side::Client, chunk, out, |bytes, cut| {
                    if may_be_tls && is_tls_record(bytes) {
                        return Looks::Yes;
                    }
                    // A frame is told apart by more than the kinds of command that may hold anything.
                    match (frame(bytes, cut), looks_like_command(bytes, cut)) {
                        (Looks::Yes, _) | (_, Looks::Yes) => Looks::Yes,
                        (Looks::Open, _) | (_, Looks::Open) => Looks::Open,
                        _ => Looks::No,
                    }
                });
                self.extend_unended(streams.client.position());
                if !found {
                    return;
                }
                if may_be_tls && is_tls_record(streams.client.bytes()) {
                    self.switch(SwitchedTo::Protocol("tls"), streams, out);
                    return;
                }
                if frame(streams.client.bytes(), streams.client.hole().is_some()) == Looks::Yes {
                    self.asking = Asking::Command;
                    self.greeted = true;
                    self.decompress(streams, out);
                    return;
                }
                self.unended = None;
                self.release_silent(out);
                self.asking = Asking::Command;
            }
            if self.pairing.is_full(streams, out) || !self.read_packet(streams, chunk, out) {
                return;
            }
        }
    }

    fn search(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        pass_chunk(&mut streams.client, Side::Client, chunk, out);
        self.extend_unended(streams.client.position());
        self.asking = Asking::Search;
        self.seen_at = None;
    }

    fn extend_unended(&mut self, to: u64) {
        if let Some(start) = self.unended {
            self.extend(start, to);
        }
    }

    /// The command that begins at `start` goes on to `to`, unless it was answered before that was seen.
    fn extend(&mut self, start: u64, to: u64) -> Option<&mut Exchange> {
        if let Some(silent) = self.silent.as_mut().filter(|silent| silent.request.start == start) {
            silent.request.end = to;
            return self.silent.as_mut();
        }
        let last = self.pairing.back_mut().filter(|last| last.exchange.request.start == start)?;
        last.exchange.request.end = to;
        // The answer goes on counting where the last packet stopped; all but that one are as long as can be.
        let packets = (to - start) / (HEADER_BYTES as u64 + MAX_PAYLOAD_BYTES) + 1;
        last.detail.sequence = packets as u8;
        Some(&mut last.exchange)
    }

    fn release_silent(&mut self, out: &mut Output) {
        out.exchanges.extend(self.silent.take());
    }

    /// Reads one packet of the client; false if more bytes are needed.
    fn read_packet(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        if !streams.client.bytes().is_empty() && self.seen_at.is_none() {
            self.seen_at = Some(self.pairing.seen_now(streams));
        }
        let packet = match peek(&streams.client, 1) {
            Peek::Packet(packet) => packet,
            Peek::Wait => return false,
            Peek::Lost(flag) => {
                self.lose_command(flag, streams, chunk, out);
                return true;
            }
        };
        let start = streams.client.position();
        let size = packet.size();
        match self.asking {
            Asking::Greeted => return self.read_login(streams, chunk, out),
            Asking::Continuation { start: command } => {
                let last = packet.length < MAX_PAYLOAD_BYTES;
                self.extend(command, start.saturating_add(size));
                if last {
                    self.release_silent(out);
                    self.asking = Asking::Command;
                }
                out.mark(Side::Client, start..start + size, ByteClass::Value);
            }
            Asking::File => {
                if let Some(last) = self.pairing.front_mut() {
                    last.exchange.request.end = start + size;
                }
                if packet.length == 0 {
                    self.asking = Asking::Command;
                }
                out.mark(Side::Client, start..start + size, ByteClass::Value);
            }
            _ if packet.sequence == 0 => return self.read_command(streams, chunk, out),
            Asking::Login => out.mark(Side::Client, start..start + size, ByteClass::Secret),
            _ if self.pairing.front().is_some_and(|front| front.detail.answer == Answer::Login) => {
                out.mark(Side::Client, start..start + size, ByteClass::Secret);
            }
            _ => {
                self.search(streams, chunk, out);
                return true;
            }
        }
        self.seen_at = None;
        streams.client.skip(size);
        true
    }

    /// A packet's header is in a hole. Where something of a command was seen, it is a request, though none knows which.
    fn lose_command(&mut self, flag: Flags, streams: &mut Streams, chunk: u64, out: &mut Output) {
        let seen_at = self.seen_at.take();
        let start = streams.client.position();
        if let Asking::Continuation { start: command } = self.asking {
            // It goes on in the hole, to the next command at most.
            self.unended = Some(command);
            if let Some(exchange) = self.extend(command, start) {
                exchange.flags.insert(flag);
            }
        }
        let counts = self.asking == Asking::Command
            && self.pairing.front().is_none_or(|front| front.detail.answer != Answer::Login);
        self.search(streams, chunk, out);
        if let (Some(seen_at), true) = (seen_at, counts) {
            let mut exchange =
                Exchange { op: NAMELESS.into(), request: start..streams.client.position(), ..Exchange::default() };
            exchange.flags.insert(flag);
            let asked = Asked { answer: Answer::Unknown, prepares: None, sequence: 1 };
            self.pairing.push(exchange, seen_at, asked, &mut streams.server, out);
        }
    }

    /// Reads the client's first packet; false if more bytes are needed.
    fn read_login(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let packet = match peek(&streams.client, 4096) {
            Peek::Packet(packet) => packet,
            _ => return false,
        };
        let start = streams.client.position();
        self.asking = Asking::Login;
        if packet.sequence == 0 {
            // The login was not seen, though the connection's start was.
            return self.read_command(streams, chunk, out);
        }
        self.seen_at = None;
        let agreed = login::response(packet.payload);
        out.mark(Side::Client, start..start + HEADER_BYTES as u64, ByteClass::Structure);
        if agreed.is_some_and(|agreed| agreed.tls) {
            let size = packet.size();
            out.mark(Side::Client, start + HEADER_BYTES as u64..start + size, ByteClass::Structure);
            streams.client.skip(size);
            self.switch(SwitchedTo::Protocol("tls"), streams, out);
            return true;
        }
        login::mark_response(packet.payload, start + HEADER_BYTES as u64, packet.length, out);
        if let Some(agreed) = agreed {
            self.compressed = agreed.compressed;
            self.answering.deprecate_eof = Some(agreed.deprecate_eof);
            self.prepared.attributes = Some(agreed.attributes);
        }
        let size = packet.size();
        streams.client.skip(size);
        true
    }

    /// True if nothing more is to be read here: another protocol follows, or compressed frames.
    fn stands_aside(&self) -> bool {
        self.switched || self.compression.is_some()
    }

    /// From here on both sides send compressed frames: the client at its cursor, the server behind what came before that.
    fn decompress(&mut self, streams: &mut Streams, out: &mut Output) {
        let seen_at = self.seen_at.take().unwrap_or_else(|| self.pairing.seen_now(streams));
        let ahead = seen_at.saturating_sub(streams.server.position());
        out.skipped(Side::Server, ahead);
        streams.server.skip(ahead);
        self.compression = Some(Box::new(Compression::new(streams, std::mem::take(&mut self.chunks))));
    }

    fn switch(&mut self, to: SwitchedTo, streams: &Streams, out: &mut Output) {
        self.release_silent(out);
        self.pairing.finish(streams, out);
        self.switched = true;
        out.switched = Some(to);
    }

    /// Reads a command packet; false if more bytes are needed.
    fn read_command(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        if self.compressed && !self.inside {
            self.asking = Asking::Command;
            self.decompress(streams, out);
            return false;
        }
        let Peek::Packet(packet) = peek(&streams.client, 1) else { return false };
        let known = match packet.first() {
            Some(byte) => command::of(byte).map(|command| (byte, command)),
            // The command itself is in a hole: a request, but none knows which.
            None if packet.missing.is_some() => {
                Some((0, Command { op: NAMELESS, answer: Answer::Unknown, carries: Carries::Other }))
            }
            None => None,
        };
        // Behind a login or another command this is one that only the server knows, or doesn't.
        let known = known.or_else(|| {
            let byte = packet.first().filter(|_| self.asking == Asking::Command)?;
            Some((byte, Command { op: "command", answer: Answer::Unknown, carries: Carries::Unknown }))
        });
        let Some((byte, command)) = known else {
            if self.fresh && !self.mid_stream {
                out.rejected = true;
            }
            self.search(streams, chunk, out);
            return true;
        };
        let wanted = match command.carries {
            Carries::Query | Carries::Sql => MAX_SQL_BYTES,
            Carries::Name | Carries::Secret => 512,
            Carries::Statement if self.options.literals => values::MAX_VALUE_BYTES,
            Carries::Statement => 5,
            Carries::Other | Carries::Unknown => 1,
        };
        let packet = match peek(&streams.client, wanted) {
            Peek::Packet(packet) => packet,
            _ => return false,
        };
        let start = streams.client.position();
        let size = packet.size();
        let content = packet.payload.get(1..).unwrap_or_default();
        let content = content.get(..wanted).unwrap_or(content);
        let mut exchange =
            Exchange { op: command.op.into(), request: start..start.saturating_add(size), ..Exchange::default() };
        if command.carries == Carries::Unknown {
            exchange.op = format!("command {byte}").into();
        }
        if let Some(flag) = packet.missing {
            exchange.flags.insert(flag);
        }
        if std::mem::take(&mut self.fresh) && self.mid_stream {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        let prepares = self.describe(byte, command, &packet, content, &mut exchange);
        mark_command(command, content, self.dialect(), start, size, out);
        let seen_at = match self.seen_at.take() {
            Some(seen_at) => seen_at,
            None => self.pairing.seen_now(streams),
        };
        let long = packet.length == MAX_PAYLOAD_BYTES;
        self.asking = if long { Asking::Continuation { start } } else { Asking::Command };
        streams.client.skip(size);
        if command.answer == Answer::None {
            exchange.status = Status::Ok;
            exchange.flags.insert(Flags::NO_REPLY);
            if long {
                self.silent = Some(exchange);
            } else {
                out.exchanges.push(exchange);
            }
        } else {
            let asked = Asked { answer: command.answer, prepares, sequence: 1 };
            self.pairing.push(exchange, seen_at, asked, &mut streams.server, out);
        }
        true
    }
}

fn mark_command(command: Command, content: &[u8], dialect: Dialect, start: u64, size: u64, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let end = start.saturating_add(size);
    let mut at = start + HEADER_BYTES as u64 + 1;
    out.mark(Side::Client, start..at.min(end), ByteClass::Structure);
    match command.carries {
        Carries::Query | Carries::Sql => {
            let text = if command.carries == Carries::Query { command::query_text(content) } else { content };
            let text_at = at + (content.len() - text.len()) as u64;
            out.mark(Side::Client, at..text_at, ByteClass::Value);
            at = text_at;
            sql::values(text, dialect, |value| {
                let value = text_at + value.start as u64..text_at + value.end as u64;
                out.mark(Side::Client, at..value.start, ByteClass::Identifier);
                out.mark(Side::Client, value.clone(), ByteClass::Value);
                at = value.end;
            });
            let seen = text_at + text.len() as u64;
            out.mark(Side::Client, at..seen, ByteClass::Identifier);
            out.mark(Side::Client, seen..end, ByteClass::Value);
        }
        Carries::Name => out.mark(Side::Client, at..end, ByteClass::Identifier),
        Carries::Secret => out.mark(Side::Client, at..end, ByteClass::Secret),
        Carries::Statement => {
            out.mark(Side::Client, at..(at + 4).min(end), ByteClass::Structure);
            out.mark(Side::Client, (at + 4).min(end)..end, ByteClass::Value);
        }
        Carries::Unknown => out.mark(Side::Client, at.min(end)..end, ByteClass::Value),
        Carries::Other => out.mark(Side::Client, at.min(end)..end, ByteClass::Structure),
    }
}

impl Turns for MySql {
    type Detail = Asked;

    fn pairing(&mut self) -> &mut Pairing<Asked> {
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
        self.stands_aside()
    }
}

impl MySql {
    /// Reads what is here, up to where compression begins.
    fn read(&mut self, streams: &mut Streams, out: &mut Output) {
        turns::read(self, streams, out);
    }

    /// Nothing more comes: ends what is open.
    fn end(&mut self, streams: &mut Streams, out: &mut Output) {
        if !turns::read_rest(self, streams, out) {
            return;
        }
        if let Some(mut silent) = self.silent.take() {
            silent.request.end = silent.request.end.min(streams.client.end()).max(silent.request.start);
            out.exchanges.push(silent);
        }
        if self.pairing.lost().is_none() {
            self.finish_answer(streams, out);
        }
        turns::end(self, streams, out);
    }

    /// Stream offsets (client, server) before which nothing that is still to come out lies.
    fn oldest(&self, streams: &Streams) -> [u64; 2] {
        let asked = self.pairing.front().map(|front| front.exchange.request.start);
        let silent = self.silent.as_ref().map(|silent| silent.request.start);
        let lost = self.pairing.lost().map(|lost| lost.start);
        let client = [asked, silent];
        let server = [self.answering.start(), lost];
        [
            client.into_iter().flatten().fold(streams.client.position(), u64::min),
            server.into_iter().flatten().fold(streams.server.position(), u64::min),
        ]
    }
}

impl Parser for MySql {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        if self.compression.is_none() {
            self.read(streams, out);
        }
        if let Some(mut compression) = self.compression.take() {
            self.inside = true;
            compression.read(self, streams, out);
            self.compression = Some(compression);
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        match self.compression.take() {
            Some(mut compression) => compression.finish(self, streams, out),
            None => self.end(streams, out),
        }
    }
}
