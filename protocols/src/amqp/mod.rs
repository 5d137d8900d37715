//! AMQP 0-9-1 (<https://www.rabbitmq.com/amqp-0-9-1-reference>), with RabbitMQ's extensions.

mod answer;
mod ask;
mod method;
mod wire;

use std::collections::BTreeMap;

use crate::frames::{BothFrames, Frame, Next};
use crate::matching::{Matching, Waiting};
use crate::pairing::drop_rest;
use crate::{About, Exchange, Flags, Options, Output, Parser, Protocol, Side, Status, Streams, text};
use method::Id;
use wire::{MAX_KEPT_BYTES, Wire};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "amqp",
    streams: true,
    datagrams: false,
    detect: wire::detect,
    parser: |start| Box::new(Amqp::new(start.options, start.mid_stream)),
    about: About {
        source: "AMQP 0-9-1 reference, RabbitMQ's extensions",
        request: "a client's method that is no `-ok` and no `basic.ack`; `op` its name, `target` exchange/routing key \
                  or queue",
        read: "contents, publisher confirms, returns, refusals by channel.close and connection.close, nowait",
        mid_stream: "methods at the start of a send; whether a channel confirms is told by the first confirm",
        not_read: "AMQP 1.0, versions before 0-9-1, properties and bodies of messages",
    },
};

/// Publishes that wait on a channel of which nobody knows whether it confirms.
const MAX_UNCLEAR: u64 = 64;

/// A request's place: its channel; [`CALLS`] or [`PUBLISHES`]; its number there.
type Key = (u16, u8, u64);

/// Requests that a method answers. They are numbered in the order sent, which is the order of their answers.
const CALLS: u8 = 0;
/// Messages that wait for a confirm. They are numbered as the server does it (delivery tags, from 1).
const PUBLISHES: u8 = 1;

/// What is known of a request that waits.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    method: Id,
    /// `mandatory` or `immediate` is set: the server may return the message.
    returnable: bool,
    /// Set where a hole hides whether it asks for no answer.
    unclear: Flags,
}

/// Whether a channel confirms what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Confirms {
    #[default]
    No,
    Yes,
    /// Its opening was not seen.
    Unclear,
}

/// A message whose content has not arrived yet.
#[derive(Debug)]
struct Content {
    exchange: Exchange,
    asked: Asked,
    /// Bytes of the body still to come; `None` until its header was read.
    left: Option<u64>,
}

#[derive(Debug, Default)]
struct Channel {
    /// Number of the next call.
    next_call: u64,
    /// Number of the next message.
    next_publish: u64,
    /// What delivery tags are ahead of our numbers.
    ahead: u64,
    confirms: Confirms,
    /// A message that the client is sending.
    sending: Option<Box<Content>>,
    /// A message that is the answer to `basic.get`.
    getting: Option<Box<Content>>,
    /// A request without an answer by protocol: the latest one is kept back, as what refuses it comes later.
    unanswered: Option<Box<(Exchange, Asked)>>,
}

struct Amqp {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    /// Bytes of the server came.
    server_seen: bool,
    frames: BothFrames,
    channels: BTreeMap<u16, Channel>,
    matching: Matching<Key, Asked>,
    /// Requests were lost: those that follow are numbered otherwise than the server does.
    doubt: Flags,
}

impl Amqp {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            server_seen: false,
            frames: BothFrames::new(MAX_KEPT_BYTES, mid_stream),
            channels: BTreeMap::new(),
            matching: Matching::default(),
            doubt: Flags::default(),
        }
    }

    fn channel(&mut self, number: u16) -> &mut Channel {
        let confirms = if self.mid_stream { Confirms::Unclear } else { Confirms::No };
        self.channels.entry(number).or_insert_with(|| Channel { next_publish: 1, confirms, ..Channel::default() })
    }

    /// Puts out the request without an answer that a channel keeps back.
    fn release(&mut self, number: u16, out: &mut Output) {
        if let Some(mut kept) = self.channels.get_mut(&number).and_then(|channel| channel.unanswered.take()) {
            if !self.server_seen && kept.0.status == Status::Ok {
                // Nobody speaks to a silent server: its side is not in the recording.
                kept.0.status = Status::Unknown;
            }
            out.exchanges.push(kept.0);
        }
    }

    /// Answers are missing, perhaps the one that refuses what has none otherwise.
    fn lose_answers(&mut self, flag: Flags) {
        self.matching.lost_answers(flag);
        for kept in self.channels.values_mut().filter_map(|channel| channel.unanswered.as_mut()) {
            doubt_kept(&mut kept.0, flag);
        }
    }

    /// Waits for the answer to a call.
    fn wait(&mut self, number: u16, exchange: Exchange, asked: Asked, out: &mut Output) {
        let channel = self.channel(number);
        let key = (number, CALLS, channel.next_call);
        channel.next_call += 1;
        self.matching.ask(key, exchange, asked, out);
    }

    /// The first request of this kind that waits on a channel.
    fn first(&self, number: u16, kind: u8) -> Option<Key> {
        self.matching.first((number, kind, 0)..=(number, kind, u64::MAX))
    }

    fn error(&self, exchange: &mut Exchange, code: u16, message: Option<&[u8]>) {
        exchange.status = Status::Error;
        exchange.code = Some(code.to_string().into());
        exchange.error = message.filter(|message| !message.is_empty()).map(|message| {
            let message = text::bounded(message, text::MAX_TEXT_BYTES, false);
            if self.options.literals { message } else { text::mask_quoted(&message) }
        });
    }

    /// Where nobody knows whether a channel confirms, what was published may need no answer.
    fn end_unclear(&mut self, number: u16, out: &mut Output) {
        if self.channels.get(&number).is_none_or(|channel| channel.confirms != Confirms::Unclear) {
            return;
        }
        while let Some(key) = self.first(number, PUBLISHES) {
            let Some(waiting) = self.matching.take(key) else { break };
            out.exchanges.push(waiting.exchange);
        }
    }

    /// Nothing more will come on a channel: what waits there stays as it is. `missing`: why the reason is not known.
    fn forget(&mut self, number: u16, missing: Flags, out: &mut Output) {
        self.end_content(number, Flags::default(), out);
        self.end_get(number, Flags::default(), out);
        self.end_unclear(number, out);
        for kind in [CALLS, PUBLISHES] {
            while let Some(key) = self.first(number, kind) {
                let Some(waiting) = self.matching.take(key) else { break };
                self.give_up(waiting, missing, out);
            }
        }
        self.release(number, out);
        self.channels.remove(&number);
    }

    fn read(&mut self, side: Side, streams: &mut Streams, out: &mut Output) {
        loop {
            match self.frames.next(side, streams, &Wire, out) {
                Next::Frame(frame) => {
                    self.frame(side, &frame, out);
                    self.frames.recycle(side, frame);
                }
                Next::Lost(at, flag) => self.lost(side, at, flag, out),
                Next::Wait => return,
            }
        }
    }

    fn lost(&mut self, side: Side, at: u64, flag: Flags, out: &mut Output) {
        self.matching.lost(side, at, flag);
        if side == Side::Server {
            self.lose_answers(flag);
            for number in self.busy(|channel| channel.getting.is_some()) {
                self.end_get(number, flag, out);
            }
            return;
        }
        self.doubt.insert(flag);
        for number in self.busy(|channel| channel.sending.is_some()) {
            self.end_content(number, flag, out);
        }
    }

    /// A request that was passed over, or whose channel is gone. `missing`: why that is not known for sure.
    fn give_up(&self, mut waiting: Waiting<Asked>, missing: Flags, out: &mut Output) {
        let mut doubt = self.doubt;
        doubt.insert(missing);
        doubt.insert(waiting.detail.unclear);
        doubt.insert(self.matching.doubt_of(&waiting).unwrap_or_default());
        if doubt == Flags::default() {
            waiting.exchange.status = Status::Unanswered;
        } else {
            waiting.exchange.flags.insert(doubt);
        }
        out.exchanges.push(waiting.exchange);
    }

    fn busy(&self, busy: impl Fn(&Channel) -> bool) -> Vec<u16> {
        self.channels.iter().filter(|(_, channel)| busy(channel)).map(|(number, _)| *number).collect()
    }

    fn frame(&mut self, side: Side, frame: &Frame, out: &mut Output) {
        let Some(head) = wire::head_of(&frame.bytes) else {
            // The protocol header.
            out.mark(side, frame.range.clone(), crate::ByteClass::Structure);
            return;
        };
        wire::mark(side, frame, head, out);
        let payload = frame.bytes.get(wire::HEAD_BYTES..).unwrap_or_default();
        match (head.kind, side) {
            (wire::METHOD, Side::Client) => self.asked(head.channel, payload, frame, out),
            (wire::METHOD, Side::Server) => self.answered(head.channel, payload, frame, out),
            (wire::HEADER, _) => self.content(side, head.channel, wire::body_size(payload), frame, out),
            (wire::BODY, _) => self.content(side, head.channel, None, frame, out),
            _ => {}
        }
    }

    /// A frame of a message's content: its header, which tells the size of the body, or a part of the body.
    fn content(&mut self, side: Side, number: u16, size: Option<u64>, frame: &Frame, out: &mut Output) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let slot = if side == Side::Client { &mut channel.sending } else { &mut channel.getting };
        let Some(content) = slot else { return };
        let range = match side {
            Side::Client => Some(&mut content.exchange.request),
            Side::Server => content.exchange.response.as_mut(),
        };
        if let Some(range) = range {
            range.end = frame.range.end;
        }
        content.exchange.flags.insert(if size.is_some() { frame.missing } else { Flags::default() });
        content.left = match (content.left, size) {
            (_, Some(size)) => Some(size),
            (Some(left), None) => Some(left.saturating_sub(wire::payload_size(frame))),
            (None, None) => None,
        };
        if content.left == Some(0) && frame.whole {
            match side {
                Side::Client => self.end_content(number, Flags::default(), out),
                Side::Server => self.end_get(number, Flags::default(), out),
            }
        }
    }
}

/// A request without an answer may have got one after all, in bytes that are missing.
fn doubt_kept(exchange: &mut Exchange, flag: Flags) {
    exchange.flags.insert(flag);
    if exchange.status == Status::Ok {
        exchange.status = Status::Unknown;
    }
}

impl Parser for Amqp {
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
                self.frame(side, &frame, out);
            }
        }
        for number in self.busy(|_| true) {
            self.end_content(number, Flags::INCOMPLETE, out);
            self.end_get(number, Flags::INCOMPLETE, out);
            self.end_unclear(number, out);
            self.release(number, out);
        }
        for key in self.matching.keys(..).collect::<Vec<_>>() {
            let unclear = self.matching.get(key).is_some_and(|waiting| waiting.detail.unclear != Flags::default());
            if unclear && let Some(waiting) = self.matching.take(key) {
                self.give_up(waiting, Flags::default(), out);
            }
        }
        self.matching.finish(streams, out);
        drop_rest(streams, out);
    }
}
