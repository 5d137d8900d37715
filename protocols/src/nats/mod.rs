//! NATS (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).

mod subject;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::frames::{BothFrames, Frame, Next};
use crate::matching::Matching;
use crate::pairing::drop_rest;
use crate::{About, Exchange, Flags, Options, Output, Parser, Protocol, Side, Status, Streams, text};
use subject::Subscriptions;
use wire::{Line, MAX_KEPT_BYTES, Read, Verb, Wire};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "nats",
    streams: true,
    datagrams: false,
    detect: wire::detect,
    parser: |start| Box::new(Nats::new(start.options, start.mid_stream)),
    about: About {
        source: "NATS client protocol",
        request: "PUB or HPUB; CONNECT, SUB, UNSUB and PING with the flag `control`; `target` the subject",
        read: "requests answered on their reply subject, status headers, JetStream errors, verbose mode, -ERR",
        mid_stream: "messages at the start of a send",
        not_read: "deliveries (MSG that answer nothing), payloads, routes between servers, leaf nodes",
    },
};

/// Messages with a reply subject that wait at once; beyond that the oldest is given up.
const MAX_WAITING: usize = 1 << 15;
/// Reply subjects longer than this are not waited for.
const MAX_REPLY_BYTES: usize = 256;
/// Requests without an answer that are kept back, as an error may follow.
const MAX_KEPT: usize = 16;
/// Requests that wait for `+OK`.
const MAX_UNCONFIRMED: usize = 1 << 16;
/// Bytes of a subject that are kept.
const MAX_SUBJECT_BYTES: usize = 1024;

/// What a request waits for, and its number.
type Key = (u8, u64);

/// A PONG.
const PONGS: u8 = 0;
/// A message on its reply subject.
const REPLIES: u8 = 1;
/// `+OK` (verbose mode).
const OKS: u8 = 2;

#[derive(Debug, Default)]
struct Asked {
    reply: Box<[u8]>,
    /// The `+OK` that came before the reply.
    ok: Option<Range<u64>>,
}

struct Nats {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    /// Bytes of the server came.
    server_seen: bool,
    /// Each request is confirmed (`"verbose":true`).
    verbose: bool,
    frames: BothFrames,
    /// Number of the next request.
    next: u64,
    matching: Matching<Key, Asked>,
    /// Requests by their reply subjects.
    replies: BTreeMap<Box<[u8]>, u64>,
    /// What waits for `+OK`, in order.
    unconfirmed: VecDeque<Key>,
    /// Requests without an answer, the latest last.
    kept: VecDeque<(u64, Exchange)>,
    subscriptions: Subscriptions,
    /// What the server said of a message that was still arriving, and where.
    refused: Option<(Box<str>, Range<u64>)>,
}

impl Nats {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            server_seen: false,
            verbose: false,
            frames: BothFrames::new(MAX_KEPT_BYTES, mid_stream),
            next: 0,
            matching: Matching::default(),
            replies: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
            kept: VecDeque::new(),
            subscriptions: Subscriptions::new(mid_stream),
            refused: None,
        }
    }

    fn read(&mut self, side: Side, streams: &mut Streams, out: &mut Output) {
        loop {
            match self.frames.next(side, streams, &Wire, out) {
                Next::Frame(frame) => {
                    self.message(side, &frame, out);
                    self.frames.recycle(side, frame);
                }
                Next::Lost(at, flag) => self.lost(side, at, flag, out),
                Next::Wait => return,
            }
        }
    }

    fn lost(&mut self, side: Side, at: u64, flag: Flags, out: &mut Output) {
        self.matching.lost(side, at, flag);
        if side == Side::Client {
            self.subscriptions.miss();
            return;
        }
        // Confirmations have no names, so the next one may be anybody's.
        while let Some(key) = self.unconfirmed.pop_front() {
            if key.0 == OKS
                && let Some(mut waiting) = self.matching.take(key)
            {
                waiting.exchange.flags.insert(flag);
                out.exchanges.push(waiting.exchange);
            }
        }
        // An error about any of these may be among them.
        for (_, exchange) in self.kept.iter_mut().filter(|_| flag != Flags::default()) {
            exchange.flags.insert(flag);
            exchange.status = Status::Unknown;
        }
    }

    fn message(&mut self, side: Side, frame: &Frame, out: &mut Output) {
        let Read::Line(line) = wire::read(side, &frame.bytes) else {
            // Longer than what is kept: it is one with JSON in it.
            self.long(side, frame, out);
            return;
        };
        wire::mark(side, frame, &line, out);
        match side {
            Side::Client => self.asked(&line, frame, out),
            Side::Server => self.answered(&line, frame, out),
        }
    }

    /// An INFO or CONNECT whose end is not kept.
    fn long(&mut self, side: Side, frame: &Frame, out: &mut Output) {
        let connect = side == Side::Client && frame.bytes.get(..7).is_some_and(|w| w.eq_ignore_ascii_case(b"CONNECT"));
        let rest = 8..frame.bytes.len().max(8);
        let end = usize::try_from(frame.range.end - frame.range.start).unwrap_or(usize::MAX);
        let verb = if connect { Verb::Connect } else { Verb::Info };
        let line = Line { verb: Some(verb), rest: rest.start..end, end, ..Line::default() };
        wire::mark(side, frame, &line, out);
        if connect {
            self.asked(&Line { rest, ..line }, frame, out);
        }
    }

    /// A message of the client.
    fn asked(&mut self, line: &Line, frame: &Frame, out: &mut Output) {
        let bytes = &frame.bytes;
        let subject = line.subject(bytes);
        let (op, control) = match line.verb {
            Some(Verb::Pub) => ("PUB", false),
            Some(Verb::Hpub) => ("HPUB", false),
            Some(Verb::Connect) => ("CONNECT", true),
            Some(Verb::Sub) => ("SUB", true),
            Some(Verb::Unsub) => ("UNSUB", true),
            Some(Verb::Ping) => ("PING", true),
            _ => return,
        };
        let mut exchange = Exchange { op: op.into(), request: frame.range.clone(), ..Exchange::default() };
        if control {
            exchange.flags.insert(Flags::CONTROL);
        }
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.matching.len() > 0);
        exchange.target = match line.verb {
            Some(Verb::Unsub) => self.subscriptions.end(subject.unwrap_or_default()),
            _ => subject.map(|subject| text::bounded(subject, MAX_SUBJECT_BYTES, false)),
        };
        if let (Some(Verb::Unsub), None, Some(lost)) = (line.verb, &exchange.target, self.matching.unseen_request()) {
            // What was subscribed to is among the lines that were lost.
            exchange.flags.insert(lost.flags);
        }
        match line.verb {
            Some(Verb::Ping) => {
                let key = (PONGS, self.number());
                self.matching.ask(key, exchange, Asked::default(), out);
                return;
            }
            Some(Verb::Connect) => {
                let json = bytes.get(line.rest.clone()).unwrap_or_default();
                self.verbose = is_true(json, b"\"verbose\"");
            }
            Some(Verb::Sub) => {
                let sid = line.word(line.count.saturating_sub(1), bytes).unwrap_or_default();
                self.subscriptions.add(sid, subject.unwrap_or_default());
            }
            Some(Verb::Pub | Verb::Hpub) => {
                if let Some((message, range)) = self.refused.take() {
                    exchange.status = Status::Error;
                    exchange.error = Some(message);
                    exchange.response = Some(range);
                    out.exchanges.push(exchange);
                    return;
                }
                let reply = line.reply(bytes).filter(|reply| reply.len() <= MAX_REPLY_BYTES);
                if let Some(reply) = reply.filter(|reply| self.subscriptions.may_receive(reply)) {
                    self.wait_for_reply(exchange, reply.into(), out);
                    return;
                }
            }
            _ => {}
        }
        let number = self.number();
        if self.verbose {
            self.matching.ask((OKS, number), exchange, Asked::default(), out);
            self.confirm_later((OKS, number));
            return;
        }
        exchange.status = Status::Ok;
        exchange.flags.insert(Flags::NO_REPLY);
        self.kept.push_back((number, exchange));
        if self.kept.len() > MAX_KEPT {
            self.release_first(out);
        }
    }

    /// Puts out the oldest request of those that are kept back.
    fn release_first(&mut self, out: &mut Output) {
        let Some((_, mut exchange)) = self.kept.pop_front() else { return };
        if !self.server_seen {
            // Servers speak first: this one's side is not in the recording.
            exchange.status = Status::Unknown;
        }
        out.exchanges.push(exchange);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn confirm_later(&mut self, key: Key) {
        self.unconfirmed.push_back(key);
        if self.unconfirmed.len() > MAX_UNCONFIRMED {
            self.unconfirmed.pop_front();
        }
    }

    fn wait_for_reply(&mut self, exchange: Exchange, reply: Box<[u8]>, out: &mut Output) {
        while self.replies.len() >= MAX_WAITING {
            match self.matching.first((REPLIES, 0)..=(REPLIES, u64::MAX)) {
                Some(oldest) => self.give_up(oldest, Status::Unanswered, out),
                // What is left was given up already.
                None => self.replies.clear(),
            }
        }
        let number = self.number();
        if let Some(before) = self.replies.insert(reply.clone(), number) {
            // One subject for several requests: nobody can tell whose an answer is, so the older one gets none.
            self.give_up((REPLIES, before), Status::Unknown, out);
            self.replies.insert(reply.clone(), number);
        }
        self.matching.ask((REPLIES, number), exchange, Asked { reply, ok: None }, out);
        if self.verbose {
            self.confirm_later((REPLIES, number));
        }
    }

    /// Ends the wait for a reply.
    fn give_up(&mut self, key: Key, status: Status, out: &mut Output) {
        let Some(mut waiting) = self.matching.take(key) else { return };
        self.replies.remove(&waiting.detail.reply);
        match waiting.detail.ok {
            Some(ok) => {
                waiting.exchange.status = Status::Ok;
                waiting.exchange.response = Some(ok);
            }
            None => waiting.exchange.status = status,
        }
        out.exchanges.push(waiting.exchange);
    }

    /// Puts out what was kept back and sent before request `number`.
    fn release(&mut self, number: u64, out: &mut Output) {
        while self.kept.front().is_some_and(|(kept, _)| *kept < number) {
            self.release_first(out);
        }
    }

    /// A message of the server.
    fn answered(&mut self, line: &Line, frame: &Frame, out: &mut Output) {
        match line.verb {
            Some(Verb::Pong) => {
                let key = self.matching.first((PONGS, 0)..=(PONGS, u64::MAX));
                let exchange = match key.and_then(|key| self.matching.take(key)) {
                    Some(waiting) => Some(waiting.exchange),
                    None => self.matching.unseen_request().map(|exchange| Exchange { op: "PING".into(), ..exchange }),
                };
                let Some(mut exchange) = exchange else { return };
                // What was sent before it went well.
                self.release(key.map_or(0, |key| key.1), out);
                exchange.flags.insert(Flags::CONTROL);
                exchange.status = Status::Ok;
                complete(exchange, frame, out);
            }
            Some(Verb::Msg | Verb::Hmsg) => self.delivered(line, frame, out),
            Some(Verb::Ok) => {
                let Some(key) = self.unconfirmed.pop_front() else { return };
                if key.0 == REPLIES {
                    if let Some(waiting) = self.matching.get_mut(key) {
                        waiting.detail.ok = Some(frame.range.clone());
                    }
                } else if let Some(mut waiting) = self.matching.take(key) {
                    waiting.exchange.status = Status::Ok;
                    complete(waiting.exchange, frame, out);
                }
            }
            Some(Verb::Err) => self.failed(line, frame, out),
            _ => {}
        }
    }

    /// A message: perhaps the answer to a request.
    fn delivered(&mut self, line: &Line, frame: &Frame, out: &mut Output) {
        let bytes = &frame.bytes;
        let Some(number) = line.subject(bytes).and_then(|subject| self.replies.remove(subject)) else { return };
        let Some(mut waiting) = self.matching.take((REPLIES, number)) else { return };
        let payload = bytes.get(line.end..).unwrap_or_default();
        let headers = line.payload.map_or(0, |(headers, _)| headers as usize);
        let (headers, payload) =
            (payload.get(..headers).unwrap_or(payload), payload.get(headers..).unwrap_or_default());
        let unread = payload.is_empty() && frame.missing != Flags::default();
        let exchange = &mut waiting.exchange;
        match status_code(headers).or_else(|| jetstream_error(payload)) {
            Some((code, message)) => {
                exchange.status = Status::Error;
                exchange.code = Some(code.into());
                exchange.error = message.map(Into::into);
            }
            None if unread => exchange.flags.insert(frame.missing),
            None => exchange.status = Status::Ok,
        }
        complete(waiting.exchange, frame, out);
    }

    /// `-ERR`: its text tells what failed.
    fn failed(&mut self, line: &Line, frame: &Frame, out: &mut Output) {
        let message = frame.bytes.get(line.rest.clone()).unwrap_or_default().trim_ascii();
        let message = message.strip_prefix(b"'").unwrap_or(message);
        let message = message.strip_suffix(b"'").unwrap_or(message);
        let message = text::bounded(message, text::MAX_TEXT_BYTES, false);
        let lower = message.to_ascii_lowercase();
        let named = message.split('"').nth(1);
        let publishing = lower.contains("publish") || lower.contains("payload");
        let about = |exchange: &Exchange| {
            let published = exchange.op.ends_with("PUB");
            let subject = || named.is_none_or(|named| exchange.target.as_deref() == Some(named));
            match () {
                _ if publishing => published && subject(),
                _ if lower.contains("subscription") || lower.contains("invalid subject") => {
                    &*exchange.op == "SUB" && subject()
                }
                _ if lower.contains("auth") || lower.contains("client protocol") || lower.contains("connections") => {
                    &*exchange.op == "CONNECT"
                }
                // It is the connection's (a slow consumer), or about a line that is no request (an unknown operation).
                _ => false,
            }
        };
        let shown = if self.options.literals { message.clone() } else { text::mask_quoted(&message) };
        let fail = |mut exchange: Exchange, out: &mut Output| {
            exchange.status = Status::Error;
            exchange.error = Some(shown.clone());
            exchange.flags = Flags(exchange.flags.0 & !Flags::NO_REPLY.0);
            complete(exchange, frame, out);
        };
        if lower.contains("payload") && self.frames.begun(Side::Client).is_some() {
            self.refused = Some((shown, frame.range.clone()));
            return;
        }
        // Of several that an error without a subject may be about, nobody knows which: the others were delivered. A
        // message that is too long is the longest.
        let candidates = self.kept.iter().enumerate().filter(|(_, (_, exchange))| about(exchange));
        let size = |(_, (_, exchange)): &(usize, &(u64, Exchange))| exchange.request_size();
        let longest = if lower.contains("payload") { candidates.clone().map(|one| size(&one)).max() } else { None };
        let mut candidates = candidates.filter(|one| longest.is_none_or(|longest| size(one) == longest));
        let last = candidates.next_back().map(|(at, _)| at);
        if named.is_none() && candidates.next().is_some() {
            return;
        }
        if let Some(at) = last {
            if let Some((_, exchange)) = self.kept.remove(at) {
                fail(exchange, out);
            }
            return;
        }
        // In verbose mode it stands for the `+OK`.
        let newest = [self.unconfirmed.front().copied(), self.newest_reply()];
        for key in newest.into_iter().flatten() {
            if !self.matching.get(key).is_some_and(|waiting| about(&waiting.exchange)) {
                continue;
            }
            if self.unconfirmed.front() == Some(&key) {
                self.unconfirmed.pop_front();
            }
            if let Some(waiting) = self.matching.take(key) {
                self.replies.remove(&waiting.detail.reply);
                fail(waiting.exchange, out);
            }
            return;
        }
    }

    fn newest_reply(&self) -> Option<Key> {
        self.matching.last((REPLIES, 0)..=(REPLIES, u64::MAX))
    }
}

fn complete(mut exchange: Exchange, frame: &Frame, out: &mut Output) {
    exchange.response = Some(frame.range.clone());
    if !frame.whole {
        exchange.flags.insert(Flags::INCOMPLETE);
    }
    out.exchanges.push(exchange);
}

/// The status in a header block (`NATS/1.0 503 No Responders`), where it is an error.
fn status_code(headers: &[u8]) -> Option<(String, Option<String>)> {
    let line = headers.strip_prefix(b"NATS/1.0")?.split(|b| *b == b'\r').next()?.trim_ascii();
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let code = String::from_utf8_lossy(digits).into_owned();
    let message = text::bounded(line.get(3..)?.trim_ascii(), 256, false);
    let message = if message.is_empty() && code == "503" { "No Responders".into() } else { message };
    (*code >= *"400").then(|| (code, (!message.is_empty()).then(|| message.into())))
}

/// The number of JetStream's error in an answer of its API or an acknowledgement
/// (<https://docs.nats.io/reference/reference-protocols/nats_api_reference>).
fn jetstream_error(payload: &[u8]) -> Option<(String, Option<String>)> {
    if payload.first() != Some(&b'{') {
        return None;
    }
    let error = memchr::memmem::find(payload, b"\"error\":{")?;
    let object = payload.get(error..)?;
    let at = memchr::memmem::find(object, b"\"err_code\":")?;
    let digits = object.get(at + 11..)?;
    let count = digits.iter().take(6).take_while(|b| b.is_ascii_digit()).count();
    let code = String::from_utf8_lossy(digits.get(..count)?).into_owned();
    (!code.is_empty()).then_some((code, None))
}

/// Whether a key of a JSON object is true.
fn is_true(json: &[u8], key: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(json, key) else { return false };
    let value = json.get(at + key.len()..).unwrap_or_default().trim_ascii_start();
    value.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"true"))
}

impl Parser for Nats {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        self.frames.advance(streams);
        self.server_seen |= !streams.server.bytes().is_empty();
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
        self.release(u64::MAX, out);
        // The reply that was to come after the confirmation did not.
        while let Some(key) = self.matching.first((REPLIES, 0)..=(REPLIES, u64::MAX)) {
            if self.matching.get(key).is_none_or(|waiting| waiting.detail.ok.is_none()) {
                break;
            }
            self.give_up(key, Status::Unanswered, out);
        }
        self.matching.finish(streams, out);
        drop_rest(streams, out);
    }
}
