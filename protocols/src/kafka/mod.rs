//! Kafka (<https://kafka.apache.org/protocol>): requests by API key and version, answers by correlation id.

mod detect;
mod errors;
mod layout;
mod records;
mod walk;

use std::collections::BTreeMap;

use crate::calls::{Calls, Conversation};
use crate::cursor::{be16, be32};
use crate::frames::{Frame, Framing, Head};
use crate::matching::Matching;
use crate::pairing::Looks;
use crate::text::mask_quoted;
use crate::{About, ByteClass, Exchange, Flags, Options, Output, Protocol, Side, Start, Status};
use layout::{Api, ERRORS, NAMES, RECORDS, api};
use walk::{Found, Stop, Topic, Walk};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "kafka",
    streams: true,
    datagrams: false,
    detect: detect::detect,
    parser: |start| Box::new(Conversation::new(start, Kafka::new(start))),
    about: About {
        source: "Kafka protocol guide, message definitions up to 4.1",
        request: "a request message; `op` its API, `target` its group, topic (`+N` more), transactional id or resource",
        read: "all APIs and versions, flexible ones too; error codes at every level; record counts; topic ids by name",
        mid_stream: "requests at the start of a send; answers by correlation id; names of topic ids only if they were told",
        not_read: "records, tagged fields, tokens behind the first SASL handshake, versions newer than described",
    },
};

/// Bytes of a message that are looked at. A Fetch answer may hold records of many partitions: the error code of one
/// stands behind the records of the one before.
const KEEP_BYTES: usize = 1 << 20;

/// A correlation id at least, behind the length.
const MIN_ANSWER_BYTES: i32 = 4;
/// API key, version, correlation id.
const MIN_REQUEST_BYTES: i32 = 8;
/// Keys and versions that may still come: beyond, it is no request.
const MAX_KEY: i16 = 255;
const MAX_VERSION: i16 = 63;
/// SASL tokens without a header are no longer (a broker takes 512 KiB at most).
const MAX_TOKEN_BYTES: i32 = 1 << 19;

/// APIs with a meaning of their own here.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;
const CONTROLLED_SHUTDOWN: i16 = 7;
const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;
const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
const UNSUPPORTED_VERSION: i16 = 35;

/// Topic ids whose names are remembered on a connection.
const MAX_TOPICS: usize = 1 << 14;

struct Kafka {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    open: Matching<i32, Asked>,
    topics: BTreeMap<[u8; 16], Box<str>>,
    /// The handshake's version 0 was used: tokens follow that have a length and nothing else.
    raw_sasl: bool,
    /// Tokens that have no answer yet.
    tokens: u32,
}

/// What an answer's layout rests on.
#[derive(Debug, Clone, Copy)]
struct Asked {
    key: i16,
    version: i16,
}

/// The part of the header that all requests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RequestHead {
    key: i16,
    version: i16,
    correlation: i32,
}

impl RequestHead {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self { key: be16(bytes, 4)?, version: be16(bytes, 6)?, correlation: be32(bytes, 8)? })
    }

    fn layout(self) -> Option<&'static Api> {
        api(self.key).filter(|api| self.version <= api.newest)
    }
}

/// Walks over a request's header and body. `Err` tells where that ended, `Ok` is the whole message.
fn walk_request(walk: &mut Walk<'_, '_>, head: RequestHead) -> Result<(), Stop> {
    // Header version 0, the only use of it.
    if head.key == CONTROLLED_SHUTDOWN && head.version == 0 {
        let body = api(head.key).map(|api| api.request.as_slice()).unwrap_or_default();
        return walk.structure(body);
    }
    // Where these are cut off, so is all behind them.
    let cut = |stop| match stop {
        Stop::Cut(_) => {
            Stop::Cut(head.layout().map_or(NAMES | RECORDS, |api| walk::roles_of(&api.request, head.version)))
        }
        Stop::Bad => Stop::Bad,
    };
    // The client's id has the old kind of length even where the rest is compact.
    if walk
        .old_string()
        .map_err(cut)?
        .is_some_and(|id| std::str::from_utf8(id).is_ok_and(|id| id.contains(char::is_control)))
    {
        return Err(Stop::Bad);
    }
    let Some(api) = head.layout() else { return Err(Stop::Cut(NAMES | RECORDS)) };
    walk.set_version(head.version, head.version >= api.flexible);
    walk.tagged_fields().map_err(cut)?;
    walk.structure(&api.request)?;
    if walk.left() > 0 { Err(Stop::Bad) } else { Ok(()) }
}

impl Kafka {
    fn new(start: &Start) -> Self {
        Self {
            options: start.options,
            mid_stream: start.mid_stream,
            fresh: true,
            open: Matching::default(),
            topics: BTreeMap::new(),
            raw_sasl: false,
            tokens: 0,
        }
    }

    fn request(&mut self, frame: &Frame, out: &mut Output) -> bool {
        if self.raw_sasl {
            if detect::request_here(&frame.bytes, true) != Looks::Yes {
                self.tokens = self.tokens.saturating_add(1);
                mark_token(Side::Client, frame, out);
                return true;
            }
            self.raw_sasl = false;
        }
        let Some(head) = RequestHead::read(&frame.bytes) else {
            // Its name is in a hole.
            out.mark(Side::Client, frame.range.clone(), ByteClass::Value);
            self.open.lost_requests(frame.range.start, frame.lack());
            return true;
        };
        let mut walk = Walk::new(&frame.bytes, frame.range.clone(), 12, out, Side::Client);
        let end = walk_request(&mut walk, head);
        if end == Err(Stop::Bad) && head.layout().is_some() && self.fresh {
            return false;
        }
        let missed = missed(end);
        let found = walk.end(missed, ByteClass::Value);
        let mut exchange = Exchange {
            op: api(head.key).map_or_else(|| format!("ApiKey {}", head.key).into(), |api| api.name.into()),
            target: self.target(&found),
            request: frame.range.clone(),
            ..Exchange::default()
        };
        if missed & NAMES != 0 && head.layout().is_some() {
            exchange.flags.insert(frame.lack());
        }
        if head.key == PRODUCE && found.all_counted {
            exchange.rows = Some(found.records);
        }
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.open.len() > 0);
        if head.key == PRODUCE && found.acks == Some(0) {
            exchange.status = Status::Ok;
            exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(exchange);
            return true;
        }
        let asked = Asked { key: head.key, version: head.version };
        self.open.ask(head.correlation, exchange, asked, out);
        true
    }

    fn answer(&mut self, frame: &Frame, out: &mut Output) -> bool {
        let correlation = be32(&frame.bytes, 4);
        if self.tokens > 0 && correlation.is_none_or(|id| self.open.get_mut(id).is_none()) {
            self.tokens -= 1;
            mark_token(Side::Server, frame, out);
            return true;
        }
        let Some(correlation) = correlation else {
            out.mark(Side::Server, frame.range.clone(), ByteClass::Value);
            self.open.lost_answers(frame.lack());
            return true;
        };
        let Some(waiting) = self.open.take(correlation) else {
            let Some(mut exchange) = self.open.unseen_request() else {
                out.skipped(Side::Server, frame.range.end - frame.range.start);
                return false;
            };
            out.mark(Side::Server, frame.range.clone(), ByteClass::Value);
            exchange.response = Some(frame.range.clone());
            out.exchanges.push(exchange);
            return true;
        };
        let mut exchange = waiting.exchange;
        exchange.response = Some(frame.range.clone());
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        self.read_answer(waiting.detail, frame, &mut exchange, out);
        out.exchanges.push(exchange);
        true
    }

    fn read_answer(&mut self, asked: Asked, frame: &Frame, exchange: &mut Exchange, out: &mut Output) {
        let Asked { key, version } = asked;
        let mut walk = Walk::new(&frame.bytes, frame.range.clone(), 8, out, Side::Server);
        // A broker that doesn't know the version answers in version 0 (or what it takes for it). The error comes first.
        if key == API_VERSIONS && be16(&frame.bytes, 8) == Some(UNSUPPORTED_VERSION) {
            exchange.status = Status::Error;
            exchange.code = Some(errors::error_name(UNSUPPORTED_VERSION));
            walk.end(0, ByteClass::Structure);
            return;
        }
        let Some(api) = api(key).filter(|api| version <= api.newest) else {
            walk.end(RECORDS, ByteClass::Value);
            return;
        };
        walk = walk.learning(matches!(key, METADATA | CREATE_TOPICS | DESCRIBE_TOPIC_PARTITIONS));
        walk.set_version(version, version >= api.flexible);
        // This one's header never has tagged fields, so that any client can read it.
        let header = if key == API_VERSIONS { Ok(()) } else { walk.tagged_fields() };
        let mut end = match header {
            Err(Stop::Cut(_)) => Err(Stop::Cut(ERRORS | RECORDS)),
            header => header.and_then(|()| walk.structure(&api.response)),
        };
        if end.is_ok() && walk.left() > 0 {
            end = Err(Stop::Bad);
        }
        let missed = missed(end);
        let mut found = walk.end(missed, ByteClass::Value);
        for (id, name) in std::mem::take(&mut found.pairs) {
            if self.topics.len() < MAX_TOPICS {
                self.topics.insert(id, name);
            }
        }
        if end == Err(Stop::Bad) {
            return;
        }
        if let Some(code) = found.error {
            exchange.status = Status::Error;
            exchange.code = Some(errors::error_name(code));
            let literals = self.options.literals;
            exchange.error = found.message.take().map(|text| if literals { text } else { mask_quoted(&text) });
        } else if missed & ERRORS == 0 {
            exchange.status = Status::Ok;
        } else {
            exchange.flags.insert(frame.lack());
        }
        if api.response.iter().any(|field| field.roles & RECORDS != 0) && found.all_counted {
            exchange.rows = Some(found.records);
        }
        if key == FETCH && exchange.target.is_none() {
            // Within a fetch session the request names only what changed.
            exchange.target = self.target(&found);
        }
        self.raw_sasl |= key == SASL_HANDSHAKE && version == 0 && found.error.is_none();
    }

    fn target(&self, found: &Found) -> Option<Box<str>> {
        let some = |name: &Option<Box<str>>| name.clone().filter(|name| !name.is_empty());
        let topic = found.topic.as_ref().map(|topic| {
            let name = match topic {
                Topic::Name(name) => name.clone(),
                Topic::Id(id) => self.topics.get(id).cloned().unwrap_or_else(|| base64(id)),
            };
            match found.more_topics {
                0 => name,
                more => format!("{name} +{more}").into(),
            }
        });
        some(&found.group).or(topic).or_else(|| some(&found.transaction)).or_else(|| some(&found.key))
    }
}

/// Which roles may be in what was not read.
fn missed(end: Result<(), Stop>) -> layout::Roles {
    match end {
        Ok(()) => 0,
        Err(Stop::Cut(missed)) => missed,
        Err(Stop::Bad) => NAMES | ERRORS | RECORDS,
    }
}

fn mark_token(side: Side, frame: &Frame, out: &mut Output) {
    let mut marker = out.marker(side, frame.range.start);
    marker.to(frame.range.end.min(frame.range.start + 4), ByteClass::Structure);
    marker.to(frame.range.end, ByteClass::Secret);
}

/// A topic's id as Kafka's tools write it: base64 with `-` and `_`, not padded (RFC 4648, section 5).
fn base64(id: &[u8; 16]) -> Box<str> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = u128::from_be_bytes(*id);
    (0..22u32)
        .map(|index| {
            // 128 bits are 21 digits and two bits, which lead a last one.
            let bits = match 122u32.checked_sub(6 * index) {
                Some(shift) => number >> shift,
                None => number << 4,
            };
            DIGITS.get((bits & 63) as usize).map_or('?', |digit| char::from(*digit))
        })
        .collect::<String>()
        .into()
}

impl Framing for Kafka {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        let Some(length) = be32(bytes, 0) else { return Head::Short };
        let good = match side {
            Side::Client if self.raw_sasl => (0..=MAX_TOKEN_BYTES).contains(&length) || length >= MIN_REQUEST_BYTES,
            Side::Client => match (be16(bytes, 4), be16(bytes, 6)) {
                (Some(key), Some(version)) => {
                    length >= MIN_REQUEST_BYTES && (0..=MAX_KEY).contains(&key) && (0..=MAX_VERSION).contains(&version)
                }
                _ if length >= MIN_REQUEST_BYTES => return Head::Short,
                _ => false,
            },
            Side::Server => length >= MIN_ANSWER_BYTES || length >= 0 && self.tokens > 0,
        };
        match u64::try_from(length) {
            Ok(length) if good => Head::Length(length + 4),
            _ => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        match side {
            Side::Client => detect::request_here(bytes, cut),
            Side::Server => match (be32(bytes, 0), be32(bytes, 4)) {
                (Some(length), Some(id)) => (length >= MIN_ANSWER_BYTES && self.open.has(id)).into(),
                _ if cut => Looks::No,
                _ => Looks::Open,
            },
        }
    }
}

impl Calls for Kafka {
    type Key = i32;
    type Detail = Asked;

    const KEEP: usize = KEEP_BYTES;

    fn message(&mut self, side: Side, frame: &Frame, out: &mut Output) -> bool {
        match side {
            Side::Client => self.request(frame, out),
            Side::Server => self.answer(frame, out),
        }
    }

    fn open(&mut self) -> &mut Matching<Self::Key, Self::Detail> {
        &mut self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_are_written_as_kafka_writes_them() {
        assert_eq!(&*base64(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(&*base64(&[0xff; 16]), "_____________________w");
        let counting: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(&*base64(&counting), "AAECAwQFBgcICQoLDA0ODw");
    }
}
