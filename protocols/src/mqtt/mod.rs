//! MQTT 3.1, 3.1.1 (<https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/>) and 5.0
//! (<https://docs.oasis-open.org/mqtt/mqtt/v5.0/>).

mod packet;
mod reason;
mod wire;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::frames::{BothFrames, Frame, Next};
use crate::matching::Matching;
use crate::pairing::drop_rest;
use crate::{About, Exchange, Flags, Output, Parser, Protocol, Side, Status, Streams};
use packet::{
    CONNACK, CONNECT, DISCONNECT, Fixed, Got, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, Reader, SUBACK,
    SUBSCRIBE, UNSUBACK, UNSUBSCRIBE,
};
use wire::{MAX_KEPT_BYTES, Wire};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "mqtt",
    streams: true,
    datagrams: false,
    detect: wire::detect,
    parser: |start| Box::new(Mqtt::new(start.mid_stream)),
    about: About {
        source: "MQTT 3.1.1 and 5.0 (OASIS)",
        request: "CONNECT, PUBLISH (of either side), SUBSCRIBE, UNSUBSCRIBE, PINGREQ; `target` topic, first filter or \
                  client identifier",
        read: "QoS 1 and 2 to their last acknowledgement, reason codes, topic aliases, refused subscriptions",
        mid_stream: "packets at the start of a send; the version is told by the packets",
        not_read: "payloads, properties other than topic aliases, MQTT-SN, MQTT over WebSocket",
    },
};

/// Topics behind aliases that are remembered, bytes a direction.
const MAX_ALIAS_BYTES: usize = 256 << 10;

/// What a request waits for: the kind of packet, [`DELIVERIES`] for a message to the client; and its packet identifier,
/// or a number of our own where there is none.
type Key = (u8, u64);

/// Messages that the server sent, and the client has to acknowledge.
const DELIVERIES: u8 = 0;

#[derive(Debug, Default)]
struct Asked {
    /// Filters that each get a code.
    filters: Option<usize>,
    /// The first of two answers (PUBREC).
    begun: Option<Range<u64>>,
}

/// Topics by their aliases, of one direction.
#[derive(Debug, Default)]
struct Aliases {
    topics: BTreeMap<u16, Box<str>>,
    bytes: usize,
}

impl Aliases {
    fn remember(&mut self, alias: u16, topic: &[u8]) {
        let topic = packet::name(topic);
        if self.bytes + topic.len() > MAX_ALIAS_BYTES {
            if let Some(old) = self.topics.remove(&alias) {
                self.bytes -= old.len();
            }
            return;
        }
        self.bytes += topic.len();
        if let Some(old) = self.topics.insert(alias, topic) {
            self.bytes -= old.len();
        }
    }
}

struct Mqtt {
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    /// 3, 4 or 5, once it is known.
    version: Option<u8>,
    frames: BothFrames,
    matching: Matching<Key, Asked>,
    /// Number of the next CONNECT or PINGREQ.
    next: u64,
    /// Of the client and of the server.
    aliases: [Aliases; 2],
}

impl Mqtt {
    fn new(mid_stream: bool) -> Self {
        Self {
            mid_stream,
            fresh: true,
            version: None,
            frames: BothFrames::new(MAX_KEPT_BYTES, mid_stream),
            matching: Matching::default(),
            next: 0,
            aliases: Default::default(),
        }
    }

    fn read(&mut self, side: Side, streams: &mut Streams, out: &mut Output) {
        loop {
            match self.frames.next(side, streams, &Wire, out) {
                Next::Frame(frame) => {
                    self.packet(side, &frame, out);
                    self.frames.recycle(side, frame);
                }
                Next::Lost(at, flag) => self.matching.lost(side, at, flag),
                Next::Wait => return,
            }
        }
    }

    fn packet(&mut self, side: Side, frame: &Frame, out: &mut Output) {
        let Got::Value(fixed) = Fixed::of(&frame.bytes) else { return };
        let body = frame.bytes.get(fixed.head..).unwrap_or_default();
        if side == Side::Client {
            self.asked(fixed, body, frame, out);
        } else {
            self.answered(fixed, body, frame, out);
        }
        packet::mark(side, frame.range.start, frame.range.end, &frame.bytes, self.version, out);
    }

    fn request(&mut self, op: &str, frame: &Frame) -> Exchange {
        let mut exchange =
            Exchange { op: op.into(), request: frame.range.clone(), flags: Flags::default(), ..Exchange::default() };
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.matching.len() > 0);
        exchange
    }

    /// A packet of the client.
    fn asked(&mut self, fixed: Fixed, body: &[u8], frame: &Frame, out: &mut Output) {
        let mut reader = Reader::new(body);
        match fixed.kind {
            CONNECT => {
                let mut exchange = self.request("CONNECT", frame);
                let client = packet::connect(&mut reader).and_then(|connect| {
                    self.version = Some(connect.version);
                    if connect.version == 5 {
                        reader.properties()?;
                    }
                    reader.string()
                });
                // It may be empty: then the server chooses one.
                exchange.target = client.filter(|id| !id.is_empty()).map(packet::name);
                if client.is_none() {
                    exchange.flags.insert(frame.missing);
                }
                self.ask(CONNACK, exchange, out);
            }
            PINGREQ => {
                let mut exchange = self.request("PINGREQ", frame);
                exchange.flags.insert(Flags::CONTROL);
                self.ask(PINGRESP, exchange, out);
            }
            PUBLISH => {
                let mut exchange = self.request("PUBLISH", frame);
                let (topic, id) = self.topic(Side::Client, fixed, body, frame);
                exchange.target = topic;
                self.flag_topic(&mut exchange, frame);
                match id {
                    Some(id) => self.matching.ask((PUBACK, u64::from(id)), exchange, Asked::default(), out),
                    None if fixed.qos() == 0 => {
                        exchange.status = Status::Ok;
                        exchange.flags.insert(Flags::NO_REPLY);
                        out.exchanges.push(exchange);
                    }
                    // Its identifier is missing: nobody knows its answer.
                    None => out.exchanges.push(exchange),
                }
            }
            SUBSCRIBE | UNSUBSCRIBE => {
                let (op, answer) =
                    if fixed.kind == SUBSCRIBE { ("SUBSCRIBE", SUBACK) } else { ("UNSUBSCRIBE", UNSUBACK) };
                let mut exchange = self.request(op, frame);
                let Some(id) = reader.short() else {
                    exchange.flags.insert(frame.missing);
                    out.exchanges.push(exchange);
                    return;
                };
                let mut later = reader;
                let found = match self.version {
                    Some(3 | 4) => packet::filters(reader, fixed.kind == SUBSCRIBE),
                    // Properties of length 0 look like the length of an empty filter, which there is none.
                    _ if later.properties().is_some() => {
                        let found = packet::filters(later, fixed.kind == SUBSCRIBE);
                        let older = self.version.is_none() && !found.whole;
                        if older { packet::filters(reader, fixed.kind == SUBSCRIBE) } else { found }
                    }
                    _ => packet::filters(reader, fixed.kind == SUBSCRIBE),
                };
                // The bytes may end between two.
                let found = packet::Filters { whole: found.whole && body.len() >= fixed.rest, ..found };
                exchange.target = found.first.map(packet::name);
                if found.count > 1
                    && let Some(first) = &exchange.target
                {
                    exchange.target = Some(match found.whole {
                        true => format!("{first} +{}", found.count - 1).into(),
                        false => format!("{first} …").into(),
                    });
                }
                if !found.whole {
                    exchange.flags.insert(frame.missing);
                }
                let asked = Asked { filters: found.whole.then_some(found.count), begun: None };
                self.matching.ask((answer, u64::from(id)), exchange, asked, out);
            }
            PUBACK | PUBREC | PUBCOMP => {
                let Some(id) = reader.short() else { return };
                let failed = reader.byte().filter(|code| *code >= 0x80);
                if fixed.kind == PUBREC && failed.is_none() {
                    return;
                }
                let Some(mut waiting) = self.matching.take((DELIVERIES, u64::from(id))) else { return };
                waiting.exchange.status = Status::Ok;
                if let Some(code) = failed {
                    fail(&mut waiting.exchange, code, reason::name(code));
                }
                out.exchanges.push(waiting.exchange);
            }
            _ => {}
        }
    }

    /// Waits for an answer without an identifier.
    fn ask(&mut self, answer: u8, exchange: Exchange, out: &mut Output) {
        let number = self.next;
        self.next += 1;
        self.matching.ask((answer, number), exchange, Asked::default(), out);
    }

    /// Tells why a PUBLISH has no topic: it is in a hole, or its alias was told where nothing was seen.
    fn flag_topic(&self, exchange: &mut Exchange, frame: &Frame) {
        if exchange.target.is_none() {
            let unseen = frame.missing == Flags::default();
            exchange.flags.insert(if unseen { Flags::UNKNOWN_NAMES } else { frame.missing });
        }
    }

    /// The topic and packet identifier of a PUBLISH.
    fn topic(&mut self, side: Side, fixed: Fixed, body: &[u8], frame: &Frame) -> (Option<Box<str>>, Option<u16>) {
        let mut reader = Reader::new(body);
        let Some(topic) = reader.string() else {
            // Of a long topic the first part was kept.
            let cut = body.get(2..).filter(|part| !part.is_empty() && body.len() < fixed.rest && frame.whole);
            return (cut.map(|part| crate::text::bounded(part, 1024, true)), None);
        };
        let id = if fixed.qos() > 0 { reader.short() } else { None };
        let [of_client, of_server] = &mut self.aliases;
        let aliases = if side == Side::Client { of_client } else { of_server };
        if topic.is_empty() {
            // Only 5.0 has this.
            self.version = Some(5);
            let alias = reader.properties().and_then(packet::topic_alias);
            return (alias.and_then(|alias| aliases.topics.get(&alias)).cloned(), id);
        }
        if self.version == Some(5)
            && let Some(alias) = reader.properties().and_then(packet::topic_alias)
        {
            aliases.remember(alias, topic);
        }
        (Some(packet::name(topic)), id)
    }
}

impl Mqtt {
    /// A packet of the server.
    fn answered(&mut self, fixed: Fixed, body: &[u8], frame: &Frame, out: &mut Output) {
        let mut reader = Reader::new(body);
        match fixed.kind {
            CONNACK => {
                reader.byte();
                let code = reader.byte();
                if fixed.rest > 2 {
                    self.version = Some(5);
                }
                let Some(mut exchange) = self.take_first(CONNACK, "CONNECT") else { return };
                if let Some(code) = code {
                    let name = if code >= 0x80 { reason::name(code) } else { reason::connect_name(code) };
                    note(&mut exchange, code, code != 0, name);
                }
                if exchange.target.is_none()
                    && let Some(id) = reader.properties().and_then(|properties| packet::property(properties, 0x12))
                {
                    // The server chose the client's identifier.
                    exchange.target = Some(packet::name(id));
                }
                complete(exchange, frame, out);
            }
            PINGRESP => {
                if let Some(mut exchange) = self.take_first(PINGRESP, "PINGREQ") {
                    exchange.status = Status::Ok;
                    complete(exchange, frame, out);
                }
            }
            PUBLISH => self.delivered(fixed, body, frame, out),
            PUBACK | PUBREC | PUBCOMP => {
                let Some(id) = reader.short() else {
                    self.matching.lost_answers(frame.missing);
                    return;
                };
                let code = reader.byte();
                // 5.0 leaves out a reason that is 0.
                let code = if fixed.rest == 2 { Some(0) } else { code };
                let key = (PUBACK, u64::from(id));
                let fails = code.is_some_and(|code| code >= 0x80);
                if fixed.kind == PUBREC && !fails {
                    if let Some(waiting) = self.matching.get_mut(key) {
                        waiting.detail.begun.get_or_insert(frame.range.clone());
                    }
                    return;
                }
                let (mut exchange, begun) = match self.matching.take(key) {
                    Some(waiting) => (waiting.exchange, waiting.detail.begun),
                    None => match self.unseen("PUBLISH") {
                        Some(exchange) => (exchange, None),
                        None => return,
                    },
                };
                if let Some(code) = code {
                    note(&mut exchange, code, code >= 0x80, reason::name(code));
                }
                let start = begun.map_or(frame.range.start, |begun| begun.start);
                complete(
                    exchange,
                    &Frame { range: start..frame.range.end, whole: frame.whole, ..Frame::default() },
                    out,
                );
            }
            SUBACK | UNSUBACK => {
                let Some(id) = reader.short() else {
                    self.matching.lost_answers(frame.missing);
                    return;
                };
                let op = if fixed.kind == SUBACK { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
                let (mut exchange, filters) = match self.matching.take((fixed.kind, u64::from(id))) {
                    Some(waiting) => (waiting.exchange, waiting.detail.filters),
                    None => match self.unseen(op) {
                        Some(exchange) => (exchange, None),
                        None => return,
                    },
                };
                // 3.1.1: as many codes as filters (of UNSUBACK: none). 5.0 has properties before them.
                let older = match (self.version, filters) {
                    (Some(version), _) => version < 5,
                    (None, Some(count)) => fixed.rest == if fixed.kind == SUBACK { 2 + count } else { 2 },
                    (None, None) => false,
                };
                let properties = older || reader.properties().is_some();
                let codes = body.get(reader.at..fixed.rest.max(reader.at)).filter(|_| properties);
                let unread = codes.is_none() && body.len() < fixed.rest;
                match codes.unwrap_or_default().iter().find(|code| **code >= 0x80) {
                    Some(code) => fail(&mut exchange, *code, reason::name(*code)),
                    None if unread => exchange.flags.insert(frame.missing),
                    None => exchange.status = Status::Ok,
                }
                complete(exchange, frame, out);
            }
            DISCONNECT => {
                // 5.0: the reason is all the answer that anything gets.
                let Some(code) = reader.byte().filter(|code| *code >= 0x80) else { return };
                while let Some(key) = self.matching.first((CONNECT, 0)..) {
                    let Some(mut waiting) = self.matching.take(key) else { break };
                    fail(&mut waiting.exchange, code, reason::name(code));
                    complete(waiting.exchange, frame, out);
                }
            }
            _ => {}
        }
    }

    /// The oldest request that waits for an answer of this kind.
    fn take_first(&mut self, answer: u8, op: &str) -> Option<Exchange> {
        match self.matching.first((answer, 0)..=(answer, u64::MAX)).and_then(|key| self.matching.take(key)) {
            Some(waiting) => Some(waiting.exchange),
            None => self.unseen(op),
        }
    }

    /// A request that was lost: its answer tells what it was.
    fn unseen(&self, op: &str) -> Option<Exchange> {
        let mut exchange = self.matching.unseen_request()?;
        exchange.op = op.into();
        Some(exchange)
    }

    /// A message to the client: nobody asked for it, so its request is empty.
    fn delivered(&mut self, fixed: Fixed, body: &[u8], frame: &Frame, out: &mut Output) {
        let (target, id) = self.topic(Side::Server, fixed, body, frame);
        let at = frame.seen_at;
        let mut exchange = Exchange {
            op: "PUBLISH".into(),
            target,
            request: at..at,
            response: Some(frame.range.clone()),
            ..Exchange::default()
        };
        self.flag_topic(&mut exchange, frame);
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        match id {
            Some(id) => self.matching.ask((DELIVERIES, u64::from(id)), exchange, Asked::default(), out),
            None => {
                if fixed.qos() == 0 {
                    exchange.status = Status::Ok;
                    exchange.flags.insert(Flags::NO_REPLY);
                }
                out.exchanges.push(exchange);
            }
        }
    }
}

fn complete(mut exchange: Exchange, frame: &Frame, out: &mut Output) {
    exchange.response = Some(frame.range.clone());
    if !frame.whole {
        exchange.flags.insert(Flags::INCOMPLETE);
    }
    out.exchanges.push(exchange);
}

/// Notes a code, good or bad.
fn note(exchange: &mut Exchange, code: u8, fails: bool, name: Option<&str>) {
    if fails {
        fail(exchange, code, name);
        return;
    }
    exchange.status = Status::Ok;
    if code != 0 {
        exchange.code = Some(code.to_string().into());
    }
}

fn fail(exchange: &mut Exchange, code: u8, name: Option<&str>) {
    exchange.status = Status::Error;
    exchange.code = Some(code.to_string().into());
    exchange.error = name.map(Into::into);
}

impl Parser for Mqtt {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        self.frames.advance(streams);
        self.read(Side::Client, streams, out);
        self.read(Side::Server, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        for side in [Side::Client, Side::Server] {
            if let Some(frame) = self.frames.finish(side, streams) {
                self.packet(side, &frame, out);
            }
        }
        // Half acknowledged messages, and deliveries that were not acknowledged.
        while let Some(key) = self.matching.first((PUBACK, 0)..=(PUBACK, u64::MAX)) {
            let begun = self.matching.get(key).and_then(|waiting| waiting.detail.begun.clone());
            let Some(begun) = begun else { break };
            let Some(mut waiting) = self.matching.take(key) else { break };
            waiting.exchange.response = Some(begun);
            waiting.exchange.flags.insert(Flags::INCOMPLETE);
            out.exchanges.push(waiting.exchange);
        }
        while let Some(key) = self.matching.first((DELIVERIES, 0)..=(DELIVERIES, u64::MAX)) {
            let Some(waiting) = self.matching.take(key) else { break };
            out.exchanges.push(waiting.exchange);
        }
        self.matching.finish(streams, out);
        drop_rest(streams, out);
    }
}
