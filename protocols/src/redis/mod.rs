//! Redis (RESP2, RESP3 and inline commands, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).

mod ask;
mod command;
mod detect;
mod reply;

use crate::pairing::{Chunks, Pairing, find_start, pass_chunk};
use crate::turns::{self, Turns};
use crate::{
    About, Exchange, Flags, NAMELESS, Options, Output, Parser, Protocol, Side, Status, Stream, Streams, SwitchedTo,
    text,
};
use command::{Command, Published};
use reply::{Reply, Shape, Step, looks_like_reply};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "redis",
    streams: true,
    datagrams: false,
    detect: detect::detect,
    parser: |start| Box::new(Redis::new(start.options, start.mid_stream)),
    about: About {
        source: "RESP2 and RESP3 specification",
        request: "a command, as an array or inline; `op` its first word, `target` its first key or channel",
        read: "all RESP3 types, pushes, subscriptions, MONITOR, CLIENT REPLY; errors with their code",
        mid_stream: "commands at the start of a send; commands of a cut pipeline are counted by their answers",
        not_read: "the cluster bus, replication streams, values inside replies",
    },
};

/// Bytes of a key that are kept.
const MAX_KEY_BYTES: usize = 1024;

/// Bytes of an error's code; no known one is longer.
const MAX_CODE_BYTES: usize = 32;

/// Bytes of a command's name that are looked at; no known one is longer.
const MAX_NAME_BYTES: usize = 64;

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

/// A hole of the client's stream that may hold whole commands.
#[derive(Debug, Clone, Copy)]
struct Unseen {
    at: u64,
    flag: Flags,
    /// How many more it can hold at most.
    left: u64,
    /// The next of them was sent before an earlier answer was complete.
    pipelined: bool,
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
    /// Commands in a hole of the client's stream: their answers count them.
    unseen: Option<Unseen>,
    /// The next command was found behind such a hole.
    found: bool,
    /// Channels and patterns, and channels of shards, whose messages come as arrays, as the server counts them. (As pushes
    /// they can't be taken for answers.)
    subscriptions: [u64; 2],
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
            subscriptions: [0; 2],
            monitor: false,
            replication: false,
        }
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

    /// The end of a reply of this kind, begun at `start`, won't be read: its kind tells how the command went, if the
    /// reply is certain to be its answer.
    fn note_begun(&mut self, shape: Option<Shape>, start: u64, text: &[u8]) {
        let subscribed = self.subscriptions != [0; 2];
        let Some(front) = self.pairing.front_mut().filter(|front| front.seen_at <= start) else { return };
        let answers = front.detail == Expect::Reply && !self.monitor && !(subscribed && shape == Some(Shape::Array));
        match shape {
            Some(Shape::Error) => fail(&mut front.exchange, text, self.options),
            Some(Shape::Array | Shape::Simple | Shape::Other) if answers => front.exchange.status = Status::Ok,
            _ => {}
        }
    }

    fn lose_reply(&mut self, flag: Flags, server: &mut Stream, chunk: u64, out: &mut Output) {
        let reply = std::mem::replace(&mut self.reply, Reply::new(0));
        self.note_begun(reply.shape, reply.start, &reply.text);
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
        let of_shards = usize::from(command::is_of_shards(&reply.text));
        let subscribed = self.subscriptions != [0; 2];
        let awaited = front.as_ref().map(|front| match published {
            Published::Subscribed => matches!(front.detail, Expect::Subscribed { .. }),
            Published::Unsubscribed => matches!(front.detail, Expect::Unsubscribed { .. }),
            _ => false,
        });
        if let Some(count) = self.subscriptions.get_mut(of_shards).filter(|_| shape == Shape::Array) {
            match published {
                Published::Subscribed | Published::Unsubscribed if subscribed || awaited != Some(false) => {
                    *count = reply.integer.unwrap_or(*count);
                }
                // Subscribed to before the recording began.
                Published::Message if awaited.is_none() => *count = (*count).max(1),
                _ => {}
            }
        }
        let Some(front) = front else {
            if shape == Shape::Push || published != Published::Other || self.monitor {
                return;
            }
            match &mut self.unseen {
                Some(unseen) if unseen.left > 0 => {
                    unseen.left -= 1;
                    let mut exchange = Exchange {
                        op: NAMELESS.into(),
                        status: Status::Ok,
                        request: unseen.at..unseen.at,
                        response: Some(reply.start..end),
                        flags: unseen.flag,
                        ..Exchange::default()
                    };
                    if std::mem::replace(&mut unseen.pipelined, true) {
                        exchange.flags.insert(Flags::PIPELINED);
                    }
                    if error {
                        fail(&mut exchange, &reply.text, self.options);
                    }
                    out.exchanges.push(exchange);
                }
                _ => out.skipped(Side::Server, end - reply.start),
            }
            return;
        };
        let mut start = reply.start;
        match (&mut front.detail, published) {
            (Expect::Subscribed { left, start: first }, Published::Subscribed)
            | (Expect::Unsubscribed { left, start: first }, Published::Unsubscribed) => {
                start = *first.get_or_insert(start);
                *left = left.saturating_sub(1);
                if *left > 0 {
                    return;
                }
            }
            (_, Published::Message | Published::Subscribed | Published::Unsubscribed) if subscribed => return,
            _ if shape == Shape::Push => return,
            _ if self.monitor && shape == Shape::Simple && reply.text.first().is_some_and(u8::is_ascii_digit) => return,
            (Expect::Monitor, _) if !error => self.monitor = true,
            (Expect::Replicate, _) if !error => self.replication = true,
            _ if !error && &*front.exchange.op == "RESET" => {
                self.subscriptions = [0; 2];
                self.monitor = false;
            }
            _ => {}
        }
        if error {
            fail(&mut front.exchange, &reply.text, self.options);
        } else {
            front.exchange.status = Status::Ok;
        }
        self.pairing.complete(start..end, out);
        if self.replication {
            out.switched = Some(SwitchedTo::Unread);
            self.pairing.finish(streams, out);
        }
    }
}

impl Redis {
    /// The end came within a reply: what of it was read counts.
    fn finish_reply(&mut self, streams: &Streams, out: &mut Output) {
        let bytes = streams.server.bytes();
        let (start, shape) = match (self.reply.is_new(), bytes.first()) {
            (true, None) => return,
            (true, Some(kind)) => (streams.server.position(), Shape::of(*kind)),
            (false, _) => (self.reply.start, self.reply.shape),
        };
        if self.pairing.front().is_some_and(|front| front.seen_at <= start) {
            let text = std::mem::take(&mut self.reply.text);
            self.note_begun(shape, start, &text);
            self.pairing.finish_incomplete(start, streams, out);
        }
    }
}

/// Notes the error of an error reply: its first word is the code.
fn fail(exchange: &mut Exchange, message: &[u8], options: Options) {
    let message = text::bounded(message, text::MAX_TEXT_BYTES, message.len() >= reply::MAX_KEPT_BYTES);
    let message = message.trim_end();
    let (code, rest) = message.split_once(' ').unwrap_or((message, ""));
    exchange.status = Status::Error;
    if code.is_empty() {
        // Only its kind was read.
        return;
    }
    // Scripts raise errors of their own: a word that is no code may be anything.
    let is_code =
        code.len() <= MAX_CODE_BYTES && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    exchange.code = (is_code || options.literals).then(|| code.into());
    exchange.error =
        Some(if options.literals { rest.into() } else { text::mask_numbers(&text::mask_quoted(rest)).into() });
}

impl Turns for Redis {
    type Detail = Expect;

    fn pairing(&mut self) -> &mut Pairing<Expect> {
        &mut self.pairing
    }

    fn chunks(&mut self) -> &mut Chunks {
        &mut self.chunks
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_commands(streams, chunk, out);
    }

    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_replies(streams, chunk, out);
    }

    fn has_left(&self) -> bool {
        self.replication
    }
}

impl Parser for Redis {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        if self.mid_stream && self.fresh && self.pairing.lost().is_none() && self.reply.is_new() {
            // The server's first bytes may stand inside a reply.
            self.pairing.lose(streams.server.position(), false, Flags::default());
        }
        turns::read(self, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        if !turns::read_rest(self, streams, out) {
            return;
        }
        if let Some(mut reading) = self.reading.take()
            && reading.index > 0
        {
            reading.exchange.flags.insert(Flags::INCOMPLETE);
            self.send(reading, streams, out);
        }
        if self.pairing.lost().is_none() {
            self.finish_reply(streams, out);
        }
        turns::end(self, streams, out);
    }
}
