//! Redis (RESP2, RESP3 and inline commands, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).

mod command;
mod reply;

use crate::pairing::{Chunks, Looks, MAX_OPEN, Pairing, drop_all, find_start, hole_flag, pass_chunk};
use crate::{
    ByteClass, Detected, Exchange, Flags, Options, Output, Parser, Prefix, Protocol, Side, Status, Stream, Streams,
    Switched, SwitchedTo, text,
};
use command::{Answer, Carries, Command, KeyAt, Published};
use reply::{Reply, Shape, Step, looks_like_reply, number};

pub(crate) const PROTOCOL: Protocol =
    Protocol { name: "redis", detect, parser: |options, mid_stream| Box::new(Redis::new(options, mid_stream)) };

/// Inline commands and length lines longer than this are refused by servers too (`PROTO_INLINE_MAX_SIZE`).
const MAX_LINE_BYTES: usize = 64 << 10;

/// Arguments of one command at most; servers refuse more.
const MAX_ARGUMENTS: u64 = 1 << 31;

/// Bytes of a key that are kept.
const MAX_KEY_BYTES: usize = 1024;

/// Bytes of a command's name that are looked at; no known one is longer.
const MAX_NAME_BYTES: usize = 64;

fn detect(prefix: &Prefix<'_>) -> Detected {
    let client = if prefix.client.is_empty() { Looks::Open } else { looks_like_command(prefix.client, false) };
    let server = looks_like_reply(prefix.server);
    let inline = looks_like_inline(prefix.client);
    match (client, server) {
        (Looks::Yes, _) => Detected::Certain,
        // What every Redis says to a line that is no command.
        (Looks::No, Looks::Yes) if prefix.server.starts_with(b"-ERR unknown command ") => Detected::Certain,
        (Looks::Open, Looks::Yes | Looks::Open) => Detected::Maybe,
        (Looks::No, Looks::Yes) if inline => {
            // Words and a line that begins with a plus sign are little; an answer that Redis gives is more.
            let known = [&b"+PONG\r\n"[..], b"+OK\r\n", b"-ERR ", b"-NOAUTH ", b"$", b":", b"*"];
            if known.iter().any(|k| prefix.server.starts_with(k)) { Detected::Certain } else { Detected::Likely }
        }
        (Looks::No, Looks::Open) if inline => Detected::Maybe,
        (Looks::No, _) if prefix.mid_stream => match contains_command(prefix.client) {
            true => Detected::Likely,
            false if server == Looks::Yes && !prefix.complete => Detected::Maybe,
            false => Detected::No,
        },
        _ => Detected::No,
    }
}

/// `*N\r\n$L\r\nNAME`, as far as it is there.
fn looks_like_command(bytes: &[u8], cut: bool) -> Looks {
    let open = if cut { Looks::No } else { Looks::Open };
    let Some(rest) = bytes.strip_prefix(b"*") else {
        return if bytes.is_empty() { open } else { Looks::No };
    };
    let rest = match length_line(rest) {
        Ok((1.., rest)) => rest,
        Ok(_) | Err(Looks::No) => return Looks::No,
        Err(_) => return open,
    };
    let Some(rest) = rest.strip_prefix(b"$") else {
        return if rest.is_empty() { open } else { Looks::No };
    };
    let (length, name) = match length_line(rest) {
        Ok((length @ 1..=MAX_NAME_BYTES_U64, rest)) => (length as usize, rest),
        Ok(_) | Err(Looks::No) => return Looks::No,
        Err(_) => return open,
    };
    let seen = name.get(..length).unwrap_or(name);
    if !seen.iter().all(|b| b.is_ascii_alphanumeric() || b"._-|".contains(b)) {
        return Looks::No;
    }
    match name.get(length..length + 2) {
        Some(end) => (end == b"\r\n").into(),
        None if cut && !seen.is_empty() => Looks::Yes,
        None => open,
    }
}

const MAX_NAME_BYTES_U64: u64 = MAX_NAME_BYTES as u64;

/// A number and CRLF, and what follows.
fn length_line(bytes: &[u8]) -> Result<(u64, &[u8]), Looks> {
    let digits = bytes.iter().take(20).take_while(|b| b.is_ascii_digit()).count();
    match (bytes.get(digits), bytes.get(digits + 1)) {
        (None, _) if digits < 12 => Err(Looks::Open),
        (Some(b'\r'), None) if digits > 0 => Err(Looks::Open),
        (Some(b'\r'), Some(b'\n')) => {
            let count = bytes.get(..digits).and_then(number).ok_or(Looks::No)?;
            Ok((count, bytes.get(digits + 2..).unwrap_or_default()))
        }
        _ => Err(Looks::No),
    }
}

/// A line of words that begins with a command every server knows.
fn looks_like_inline(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let Some(end) = memchr::memchr(b'\n', bytes.get(..512).unwrap_or(bytes)) else { return false };
    let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
    let word = line.split(|b| *b == b' ').next().unwrap_or_default();
    const COMMON: &[&[u8]] = &[
        b"PING",
        b"INFO",
        b"GET",
        b"SET",
        b"AUTH",
        b"SELECT",
        b"QUIT",
        b"DEL",
        b"EXISTS",
        b"INCR",
        b"KEYS",
        b"CONFIG",
        b"MONITOR",
        b"ECHO",
        b"HELLO",
        b"CLIENT",
        b"COMMAND",
        b"DBSIZE",
        b"MULTI",
        b"EXEC",
        b"HGET",
        b"HSET",
        b"LPUSH",
        b"SUBSCRIBE",
        b"FLUSHALL",
        b"FLUSHDB",
    ];
    line.iter().all(|b| *b >= b' ' || *b == b'\t') && COMMON.iter().any(|c| c.eq_ignore_ascii_case(word))
}

/// A command somewhere in bytes that begin inside one.
fn contains_command(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"\r\n*")
        .any(|at| bytes.get(at + 2..).is_some_and(|rest| looks_like_command(rest, false) == Looks::Yes))
}

/// How the answer to a command is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// One reply.
    Reply,
    /// So many confirmations, the first of which began at `start`.
    Subscribed {
        left: u64,
        start: Option<u64>,
    },
    Unsubscribed {
        left: u64,
        start: Option<u64>,
    },
    /// One reply, then a stream of lines.
    Monitor,
    /// One reply, then a replication stream.
    Replicate,
}

/// What `CLIENT REPLY` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyMode {
    On,
    Off,
    /// The next command has no reply.
    SkipNext,
}

/// A command that is being read.
#[derive(Debug)]
struct Reading {
    exchange: Exchange,
    seen_at: u64,
    about: Command,
    /// Arguments, the name included.
    total: u64,
    /// Number of the next one.
    index: u64,
    /// Number of the one that is the key, as far as it is known now.
    key: Option<u64>,
    /// It is `CLIENT REPLY ...`.
    client_reply: bool,
    mode: Option<ReplyMode>,
}

#[derive(Debug)]
enum Asking {
    /// Looking for a command at the starts of chunks.
    Search,
    /// At the start of a command.
    Start { scanned: usize },
    /// Before an argument of `Redis::reading`.
    Argument,
}

struct Redis {
    options: Options,
    mid_stream: bool,
    /// No command was read yet.
    fresh: bool,
    chunks: Chunks,
    pairing: Pairing<Expect>,
    asking: Asking,
    reading: Option<Reading>,
    seen_at: Option<u64>,
    reply: Reply,
    /// The framing of `reply` is read, its last bytes have yet to arrive.
    reply_framed: bool,
    mode: ReplyMode,
    /// Where the client's stream has a hole that may hold whole commands, and what to tell about them. Their answers
    /// count them.
    unseen: Option<(u64, Flags)>,
    /// The next command was found behind such a hole.
    found: bool,
    subscribed: bool,
    monitor: bool,
    replication: bool,
}

impl Redis {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            chunks: Chunks::default(),
            pairing: Pairing::default(),
            asking: if mid_stream { Asking::Search } else { Asking::Start { scanned: 0 } },
            reading: None,
            seen_at: None,
            reply: Reply::new(0),
            reply_framed: false,
            mode: ReplyMode::On,
            unseen: None,
            found: false,
            subscribed: false,
            monitor: false,
            replication: false,
        }
    }

    fn read_commands(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.replication && !streams.client.is_empty() {
            let more = match self.asking {
                Asking::Search => {
                    let found = find_start(&mut streams.client, Side::Client, chunk, out, looks_like_command);
                    if found {
                        self.asking = Asking::Start { scanned: 0 };
                        self.found = true;
                    }
                    found
                }
                Asking::Start { scanned } => {
                    !self.pairing.is_full(streams, out) && self.read_start(streams, chunk, scanned, out)
                }
                Asking::Argument => self.read_argument(streams, chunk, out),
            };
            if !more {
                return;
            }
        }
    }

    /// Gives up the client's current chunk; the next command begins at a later one.
    fn search(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        if self.fresh && !self.mid_stream && streams.client.hole().is_none() {
            out.rejected = true;
        }
        pass_chunk(&mut streams.client, Side::Client, chunk, out);
        self.asking = Asking::Search;
        self.seen_at = None;
    }

    /// Reads the first line of a command, which for an inline command is all of it; false if more bytes are needed.
    fn read_start(&mut self, streams: &mut Streams, chunk: u64, scanned: usize, out: &mut Output) -> bool {
        let bytes = streams.client.bytes();
        let hole = streams.client.hole();
        let Some(first) = bytes.first() else {
            self.note_unseen(streams);
            self.search(streams, chunk, out);
            return true;
        };
        let seen_at = match self.seen_at {
            Some(seen_at) => seen_at,
            None => *self.seen_at.insert(self.pairing.seen_now(streams)),
        };
        if *first != b'*' {
            return self.read_inline(streams, chunk, scanned, seen_at, out);
        }
        let start = streams.client.position();
        let (total, header) = match length_line(bytes.get(1..).unwrap_or_default()) {
            Ok((total, rest)) if total < MAX_ARGUMENTS => (total, bytes.len() - rest.len()),
            Err(Looks::Open) if hole.is_none() => return false,
            Err(Looks::Open) => (1, 0),
            _ => {
                self.search(streams, chunk, out);
                return true;
            }
        };
        self.seen_at = None;
        let reading = self.begin(start, seen_at, total);
        if header == 0 {
            self.lose_command(reading, streams, chunk, out);
            return true;
        }
        out.mark(Side::Client, start..start + header as u64, ByteClass::Structure);
        streams.client.advance(header);
        if total > 0 {
            self.reading = Some(reading);
            self.asking = Asking::Argument;
        }
        true
    }

    fn begin(&mut self, start: u64, seen_at: u64, total: u64) -> Reading {
        let mut exchange = Exchange { op: "".into(), request: start..start, ..Exchange::default() };
        if self.fresh && self.mid_stream {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        if total > 0 {
            self.fresh = false;
        }
        Reading {
            exchange,
            seen_at,
            about: command::of(b""),
            total,
            index: 0,
            key: None,
            client_reply: false,
            mode: None,
        }
    }

    fn read_inline(
        &mut self,
        streams: &mut Streams,
        chunk: u64,
        scanned: usize,
        seen_at: u64,
        out: &mut Output,
    ) -> bool {
        let bytes = streams.client.bytes();
        let hole = streams.client.hole();
        let start = streams.client.position();
        let end = bytes.get(scanned..).and_then(|rest| memchr::memchr(b'\n', rest)).map(|end| scanned + end + 1);
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        let printable = line.iter().skip(scanned).all(|b| *b >= b' ' || b.is_ascii_whitespace());
        if !printable || line.len() > MAX_LINE_BYTES {
            self.search(streams, chunk, out);
            return true;
        }
        if end.is_none() && hole.is_none() {
            self.asking = Asking::Start { scanned: bytes.len() };
            return false;
        }
        self.asking = Asking::Start { scanned: 0 };
        self.seen_at = None;
        let words: Vec<(usize, usize)> = words(line);
        let length = line.len();
        if words.is_empty() {
            out.mark(Side::Client, start..start + length as u64, ByteClass::Structure);
            streams.client.advance(length);
            return true;
        }
        let mut marked = start;
        let mut reading = self.begin(start, seen_at, words.len() as u64);
        for (from, to) in &words {
            let word = line.get(*from..*to).unwrap_or_default();
            let class = self.argument(&mut reading, word, false);
            let word = start + *from as u64..start + *to as u64;
            out.mark(Side::Client, marked..word.start, ByteClass::Structure);
            marked = word.end;
            out.mark(Side::Client, word, class);
            reading.index += 1;
        }
        out.mark(Side::Client, marked..start + length as u64, ByteClass::Structure);
        reading.exchange.request.end = start + length as u64;
        if end.is_none() {
            self.lose_command(reading, streams, chunk, out);
            return true;
        }
        streams.client.advance(length);
        self.send(reading, streams, out);
        true
    }

    /// Reads one argument; false if more bytes are needed.
    fn read_argument(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let Some(mut reading) = self.reading.take() else {
            self.asking = Asking::Start { scanned: 0 };
            return true;
        };
        loop {
            let bytes = streams.client.bytes();
            let hole = streams.client.hole();
            let start = streams.client.position();
            let length = match bytes.split_first() {
                Some((b'$', rest)) => length_line(rest),
                Some(_) => Err(Looks::No),
                None => Err(Looks::Open),
            };
            let (length, data) = match length {
                Ok(found) => found,
                Err(Looks::Open) if hole.is_none() => {
                    self.reading = Some(reading);
                    return false;
                }
                Err(_) => {
                    reading.exchange.request.end = start;
                    self.lose_command(reading, streams, chunk, out);
                    return true;
                }
            };
            let header = bytes.len() - data.len();
            let wanted = reading.wanted().min(usize::try_from(length).unwrap_or(usize::MAX));
            if data.len() < wanted && hole.is_none() {
                self.reading = Some(reading);
                return false;
            }
            let seen = data.get(..wanted).unwrap_or(data);
            if let (true, Some(hole)) = (seen.len() < wanted, hole) {
                reading.exchange.flags.insert(hole_flag(hole.kind));
            }
            let class = self.argument(&mut reading, seen, wanted as u64 != length || seen.len() < wanted);
            reading.index += 1;
            let data_at = start + header as u64;
            out.mark(Side::Client, start..data_at, ByteClass::Structure);
            let data_end = data_at.saturating_add(length);
            let end = data_end.saturating_add(2);
            out.mark(Side::Client, data_at..data_end, class);
            out.mark(Side::Client, data_end..end, ByteClass::Structure);
            reading.exchange.request.end = end;
            streams.client.skip(end - start);
            if reading.index >= reading.total {
                self.asking = Asking::Start { scanned: 0 };
                self.send(reading, streams, out);
                return true;
            }
        }
    }

    /// Takes in one argument (its first bytes, at least as many as wanted or as are there) and tells what it is.
    fn argument(&self, reading: &mut Reading, seen: &[u8], cut: bool) -> ByteClass {
        let index = reading.index;
        if index == 0 {
            let mut name = [0u8; MAX_NAME_BYTES];
            let length = seen.len().min(MAX_NAME_BYTES);
            for (upper, byte) in name.iter_mut().zip(seen) {
                *upper = byte.to_ascii_uppercase();
            }
            let name = name.get(..length).unwrap_or_default();
            reading.about = command::of(name);
            reading.exchange.op = text::bounded(name, MAX_NAME_BYTES, cut);
            reading.key = match reading.about.key {
                KeyAt::At(index) => Some(u64::from(index)),
                _ => None,
            };
            return ByteClass::Structure;
        }
        if reading.key == Some(index) {
            reading.exchange.target = Some(text::bounded(seen, MAX_KEY_BYTES, cut));
            return ByteClass::Identifier;
        }
        if reading.about.key == KeyAt::AfterStreams && reading.key.is_none() && seen.eq_ignore_ascii_case(b"STREAMS") {
            reading.key = Some(index + 1);
            return ByteClass::Structure;
        }
        // EVAL script numkeys [key ...]: without keys, what follows is a value.
        if reading.key == Some(3) && index == 2 && seen == b"0" {
            reading.key = None;
        }
        if reading.about.answer == Answer::Client {
            if index == 1 {
                reading.client_reply = seen.eq_ignore_ascii_case(b"REPLY");
            } else if index == 2 && reading.client_reply {
                reading.mode = match seen.to_ascii_uppercase().as_slice() {
                    b"ON" => Some(ReplyMode::On),
                    b"OFF" => Some(ReplyMode::Off),
                    b"SKIP" => Some(ReplyMode::SkipNext),
                    _ => None,
                };
            }
        }
        match reading.about.carries {
            Carries::Secrets => ByteClass::Secret,
            Carries::Values => ByteClass::Value,
        }
    }

    /// The rest of a command can't be read.
    fn lose_command(&mut self, mut reading: Reading, streams: &mut Streams, chunk: u64, out: &mut Output) {
        let hole = streams.client.hole();
        let flag = hole.map_or(Flags::TRUNCATED, |hole| hole_flag(hole.kind));
        reading.exchange.flags.insert(flag);
        self.note_unseen(streams);
        pass_chunk(&mut streams.client, Side::Client, chunk, out);
        reading.exchange.request.end = streams.client.position();
        self.send(reading, streams, out);
        self.pairing.doubt(flag);
        self.asking = Asking::Search;
    }

    fn note_unseen(&mut self, streams: &Streams) {
        if let Some(hole) = streams.client.hole() {
            let at = streams.client.position() + streams.client.bytes().len() as u64;
            self.unseen = Some((at, hole_flag(hole.kind)));
        }
    }

    /// A command was read: its answer is waited for, if it has one.
    fn send(&mut self, mut reading: Reading, streams: &mut Streams, out: &mut Output) {
        if reading.exchange.op.is_empty() {
            reading.exchange.op = "?".into();
        }
        if !std::mem::take(&mut self.found) && self.pairing.is_empty() {
            // All that was unseen is answered.
            self.unseen = None;
        }
        let silent = match (self.mode, reading.mode) {
            (_, Some(ReplyMode::On)) => {
                self.mode = ReplyMode::On;
                false
            }
            (_, Some(ReplyMode::Off)) => {
                self.mode = ReplyMode::Off;
                true
            }
            (ReplyMode::Off, _) => true,
            (_, Some(ReplyMode::SkipNext)) => {
                self.mode = ReplyMode::SkipNext;
                true
            }
            (ReplyMode::SkipNext, None) => {
                self.mode = ReplyMode::On;
                true
            }
            (ReplyMode::On, None) => false,
        };
        if silent {
            reading.exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(reading.exchange);
            return;
        }
        let channels = reading.total.saturating_sub(1).max(1);
        let expect = match reading.about.answer {
            Answer::One | Answer::Client => Expect::Reply,
            Answer::Subscribe => Expect::Subscribed { left: channels, start: None },
            Answer::Unsubscribe => Expect::Unsubscribed { left: channels, start: None },
            Answer::Monitor => Expect::Monitor,
            Answer::Replicate => Expect::Replicate,
        };
        self.pairing.push(reading.exchange, reading.seen_at, expect, &mut streams.server, out);
    }

    fn read_replies(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.replication {
            let server = &mut streams.server;
            if self.reply_framed {
                if server.is_skipping() {
                    return;
                }
                self.reply_framed = false;
                let end = server.position();
                self.replied(end, streams, out);
                continue;
            }
            if server.is_empty() || self.pairing.is_behind() {
                return;
            }
            if let Some(lost) = self.pairing.lost() {
                if lost.begun && !self.pairing.is_empty() {
                    self.pairing.pass_lost(lost, server, out);
                    return;
                }
                let looks = |bytes: &[u8], _: bool| looks_like_reply(bytes);
                if !find_start(server, Side::Server, chunk, out, looks) {
                    return;
                }
                self.pairing.found(server.position(), out);
            }
            if self.reply.is_new() {
                self.reply.start = server.position();
            }
            match self.reply.read(server, out) {
                Step::Done => self.reply_framed = true,
                Step::Wait => return,
                Step::Lost(flag) => self.lose_reply(flag, server, chunk, out),
            }
        }
    }

    fn lose_reply(&mut self, flag: Flags, server: &mut Stream, chunk: u64, out: &mut Output) {
        let reply = std::mem::replace(&mut self.reply, Reply::new(0));
        if let (Some(Shape::Error), Some(front)) = (reply.shape, self.pairing.front_mut())
            && front.seen_at <= reply.start
        {
            fail(&mut front.exchange, &reply.text, self.options);
        }
        // Elements look like replies: only the next command tells for sure where this one ends.
        self.pairing.lose(reply.start, true, flag);
        pass_chunk(server, Side::Server, chunk, out);
    }

    /// A whole reply was read.
    fn replied(&mut self, end: u64, streams: &mut Streams, out: &mut Output) {
        let reply = std::mem::replace(&mut self.reply, Reply::new(0));
        let shape = reply.shape.unwrap_or(Shape::Other);
        let published = match shape {
            Shape::Push | Shape::Array => command::published(&reply.text),
            _ => Published::Other,
        };
        let front = self.pairing.front_mut().filter(|front| front.seen_at <= reply.start);
        let error = shape == Shape::Error;
        let Some(front) = front else {
            self.subscribed |= published == Published::Message;
            if shape == Shape::Push || published != Published::Other || self.monitor {
                return;
            }
            match self.unseen {
                Some((at, flag)) => {
                    let mut exchange = Exchange {
                        op: "?".into(),
                        request: at..at,
                        response: Some(reply.start..end),
                        ..Exchange::default()
                    };
                    exchange.flags.insert(flag);
                    if error {
                        fail(&mut exchange, &reply.text, self.options);
                    }
                    out.exchanges.push(exchange);
                }
                None => out.skipped(Side::Server, end - reply.start),
            }
            return;
        };
        let mut start = reply.start;
        match (&mut front.detail, published) {
            (Expect::Subscribed { left, start: first }, Published::Subscribed)
            | (Expect::Unsubscribed { left, start: first }, Published::Unsubscribed) => {
                start = *first.get_or_insert(start);
                *left = left.saturating_sub(1);
                self.subscribed = true;
                if *left > 0 {
                    return;
                }
            }
            (_, Published::Message) if self.subscribed => return,
            (_, Published::Subscribed | Published::Unsubscribed) if self.subscribed => return,
            _ if shape == Shape::Push => return,
            _ if self.monitor && shape == Shape::Simple && reply.text.first().is_some_and(u8::is_ascii_digit) => return,
            (Expect::Monitor, _) if !error => self.monitor = true,
            (Expect::Replicate, _) if !error => self.replication = true,
            _ => {}
        }
        if error {
            fail(&mut front.exchange, &reply.text, self.options);
        }
        self.pairing.complete(start..end, out);
        if self.replication {
            let (client, server) = (streams.client.position(), streams.server.position());
            out.switched = Some(Switched { to: SwitchedTo::Replication, client, server });
            self.pairing.finish(streams, out);
        }
    }
}

impl Reading {
    /// How many bytes of the next argument are needed.
    fn wanted(&self) -> usize {
        if self.index == 0 {
            return MAX_NAME_BYTES;
        }
        if self.key == Some(self.index) {
            return MAX_KEY_BYTES;
        }
        let words = self.about.key == KeyAt::AfterStreams && self.key.is_none()
            || self.about.answer == Answer::Client && self.index <= 2
            || self.key == Some(3) && self.index == 2;
        if words { 8 } else { 0 }
    }
}

/// Notes the error of an error reply: its first word is the code.
fn fail(exchange: &mut Exchange, message: &[u8], options: Options) {
    let message = text::bounded(message, text::MAX_TEXT_BYTES, false);
    let message = message.trim_end();
    let (code, rest) = message.split_once(' ').unwrap_or((message, ""));
    exchange.status = Status::Error;
    exchange.code = Some(code.into());
    exchange.error = Some(if options.literals { rest.into() } else { text::mask_quoted(rest) });
}

/// Ranges of the words of an inline command; quotes hold words together and aren't part of them.
fn words(line: &[u8]) -> Vec<(usize, usize)> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let quote = matches!(byte, b'"' | b'\'').then_some(*byte);
        let start = at + usize::from(quote.is_some());
        at = start;
        while let Some(byte) = line.get(at) {
            match quote {
                Some(b'"') if *byte == b'\\' => at += 1,
                Some(quote) if *byte == quote => break,
                None if byte.is_ascii_whitespace() => break,
                _ => {}
            }
            at += 1;
        }
        words.push((start, at.min(line.len())));
        at += usize::from(quote.is_some());
    }
    words
}

impl Parser for Redis {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        let (client_chunk, server_chunk) = self.chunks.advance(streams);
        if self.mid_stream && self.fresh && self.pairing.lost().is_none() && self.reply.is_new() {
            // The server's first bytes may stand inside a reply.
            self.pairing.lose(streams.server.position(), false, Flags::default());
        }
        loop {
            let before = (streams.client.position(), streams.server.position(), self.pairing.len());
            self.read_commands(streams, client_chunk, out);
            self.read_replies(streams, server_chunk, out);
            if self.replication {
                drop_all(&mut streams.client, Side::Client, out);
                drop_all(&mut streams.server, Side::Server, out);
                return;
            }
            let after = (streams.client.position(), streams.server.position(), self.pairing.len());
            if streams.client.is_empty() || before == after {
                self.pairing.caught_up();
                return;
            }
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        while self.pairing.len() >= MAX_OPEN && !self.replication {
            self.pairing.finish(streams, out);
            self.parse(streams, out);
        }
        if self.replication {
            return;
        }
        if let Some(mut reading) = self.reading.take()
            && reading.index > 0
        {
            reading.exchange.flags.insert(Flags::INCOMPLETE);
            self.send(reading, streams, out);
        }
        if self.pairing.lost().is_none()
            && !self.reply.is_new()
            && self.pairing.front().is_some_and(|front| front.seen_at <= self.reply.start)
        {
            self.pairing.finish_incomplete(self.reply.start, streams, out);
        }
        self.pairing.finish(streams, out);
        drop_all(&mut streams.client, Side::Client, out);
        drop_all(&mut streams.server, Side::Server, out);
    }
}
