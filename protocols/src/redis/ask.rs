//! The client's side: commands as arrays and inline commands.

use super::command::{self, Answer, Carries, KeyAt};
use super::detect::{length_line, looks_like_command};
use super::{Asking, Expect, MAX_KEY_BYTES, MAX_NAME_BYTES, Reading, Redis, ReplyMode, Unseen};
use crate::pairing::{Looks, find_start, hole_flag, pass_chunk};
use crate::{ByteClass, Exchange, Flags, NAMELESS, Output, Side, Status, Streams, text};

/// Inline commands and length lines longer than this are refused by servers too (`PROTO_INLINE_MAX_SIZE`).
const MAX_LINE_BYTES: usize = 64 << 10;

/// Arguments of one command at most; servers refuse more.
const MAX_ARGUMENTS: u64 = 1 << 31;

impl Redis {
    pub(super) fn read_commands(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.replication && !streams.client.is_empty() {
            let more = match self.asking {
                Asking::Search => {
                    let before = streams.client.position();
                    let found = find_start(&mut streams.client, Side::Client, chunk, out, looks_like_command);
                    let passed = streams.client.position() - before;
                    if let Some(unseen) = &mut self.unseen
                        && passed > 0
                    {
                        unseen.left = unseen.left.saturating_add(most_commands(passed));
                        // They may have been sent when all answers had come.
                        unseen.pipelined = !self.pairing.is_empty();
                    }
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
            let pipelined = !self.pairing.is_empty();
            self.note_unseen(streams, pipelined);
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
        self.note_unseen(streams, true);
        pass_chunk(&mut streams.client, Side::Client, chunk, out);
        reading.exchange.request.end = streams.client.position();
        self.send(reading, streams, out);
        self.pairing.doubt(self.pairing.seen_now(streams), flag);
        self.asking = Asking::Search;
    }

    /// The hole ahead may hold whole commands; `pipelined` if they were sent behind one that waits for its answer.
    fn note_unseen(&mut self, streams: &Streams, pipelined: bool) {
        if let Some(hole) = streams.client.hole() {
            let at = streams.client.position() + streams.client.bytes().len() as u64;
            let left = most_commands(hole.length).max(1);
            self.unseen = Some(Unseen { at, flag: hole_flag(hole.kind), left, pipelined });
        }
    }

    /// A command was read: its answer is waited for, if it has one.
    pub(super) fn send(&mut self, mut reading: Reading, streams: &mut Streams, out: &mut Output) {
        if reading.exchange.op.is_empty() {
            reading.exchange.op = NAMELESS.into();
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
            reading.exchange.status = Status::Ok;
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

/// Commands that so many bytes hold at most: the shortest are inline, like `PING`.
fn most_commands(bytes: u64) -> u64 {
    bytes / 6
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
