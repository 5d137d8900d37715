//! ZooKeeper's client protocol (jute, <https://zookeeper.apache.org/doc/current/zookeeperInternals.html> and the records of
//! `zookeeper.jute`): requests by operation and path, answers by the client's number (xid).

mod detect;
mod jute;
mod names;

use crate::calls::{Calls, Conversation};
use crate::cursor::{be32, be64};
use crate::frames::{Frame, Framing, Head};
use crate::matching::Matching;
use crate::pairing::Looks;
use crate::text::{MAX_TEXT_BYTES, bounded};
use crate::{About, ByteClass, Exchange, Flags, NAMELESS, Output, Protocol, Side, Start, Status};
use jute::Jute;
use names::{Body, error_name, operation};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "zookeeper",
    streams: true,
    datagrams: false,
    detect: detect::detect,
    parser: |start| Box::new(Conversation::new(start, ZooKeeper::new(start))),
    about: About {
        source: "zookeeper.jute, ZooKeeper internals",
        request: "a request; `op` its operation, `target` its path; session, ping and login are `control`",
        read: "all client operations, errors of multi too, children as rows, commands of four letters",
        mid_stream: "requests at the start of a send, answers by their xid",
        not_read: "data, watches' events, election and quorum traffic",
    },
};

/// Bytes of a message that are looked at: a `multi` of many operations is longer than any path.
const KEEP_BYTES: usize = 256 << 10;
/// `jute.maxbuffer` is 1 MiB unless told otherwise.
const MAX_MESSAGE_BYTES: i32 = 256 << 20;
/// Offset of the password's length in the message that connects.
const CONNECT_BYTES: usize = 28;
/// xid, zxid and error of an answer.
const REPLY_BYTES: i32 = 16;
/// Where an answer's body begins.
const BODY: usize = 20;

/// Numbers with a meaning of their own.
const EVENT_XID: i32 = -1;
const PING_XID: i32 = -2;
const PING: i32 = 11;
const RUNTIME_INCONSISTENCY: i32 = -2;

/// Keys of what has no number.
const CONNECT_KEY: i64 = i64::MIN;
const WORD_KEY: i64 = i64::MIN + 1;

struct ZooKeeper {
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    /// By the client's number; with the operation's code.
    open: Matching<i64, i32>,
    /// A command of four letters was sent: the answer is text, and ends with the connection.
    word: bool,
}

impl ZooKeeper {
    fn new(start: &Start) -> Self {
        Self { mid_stream: start.mid_stream, fresh: true, open: Matching::default(), word: false }
    }

    fn ask(&mut self, key: i64, code: i32, mut exchange: Exchange, frame: &Frame, out: &mut Output) -> bool {
        exchange.request = frame.range.clone();
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.open.len() > 0);
        self.open.ask(key, exchange, code, out);
        true
    }

    fn request(&mut self, frame: &Frame, out: &mut Output) -> bool {
        let bytes = frame.bytes.as_slice();
        let start = frame.range.start;
        if self.word {
            out.mark(Side::Client, frame.range.clone(), ByteClass::Structure);
            return true;
        }
        if let Some(word) = names::word(bytes).filter(|_| self.fresh) {
            self.word = true;
            out.mark(Side::Client, frame.range.clone(), ByteClass::Structure);
            let exchange = Exchange { op: word.into(), flags: Flags::CONTROL, ..Exchange::default() };
            return self.ask(WORD_KEY, 0, exchange, frame, out);
        }
        if self.fresh && detect::is_connect(bytes) == Looks::Yes {
            mark_session(Side::Client, frame, CONNECT_BYTES as u64, out);
            let exchange = Exchange { op: "connect".into(), flags: Flags::CONTROL, ..Exchange::default() };
            return self.ask(CONNECT_KEY, 0, exchange, frame, out);
        }
        let mut marker = out.marker(Side::Client, start);
        let head = frame.range.end.min(start + 12);
        marker.to(head, ByteClass::Structure);
        let (Some(xid), Some(code)) = (be32(bytes, 4), be32(bytes, 8)) else {
            marker.to(frame.range.end, ByteClass::Secret);
            self.open.lost_requests(start, frame.lack());
            return true;
        };
        let known = operation(code);
        if known.is_none() && self.fresh {
            return false;
        }
        let (name, body) = known.unwrap_or((NAMELESS, Body::Other));
        let mut exchange = Exchange { op: name.into(), ..Exchange::default() };
        if known.is_none() {
            exchange.op = format!("operation {code}").into();
        }
        if matches!(body, Body::Auth | Body::Secret | Body::Watches) || code == PING {
            exchange.flags.insert(Flags::CONTROL);
        }
        match body {
            Body::Path | Body::Create | Body::Acl => {
                let mut jute = Jute::new(bytes, 12);
                match jute.buffer() {
                    Some(path) => {
                        exchange.target = Some(bounded(path, MAX_TEXT_BYTES, false));
                        marker.to(start + 16, ByteClass::Structure);
                        marker.to(start + jute.at as u64, ByteClass::Identifier);
                        if body == Body::Create && jute.buffer().is_some() {
                            marker.to(start + jute.at as u64, ByteClass::Value);
                        }
                    }
                    None => {
                        let path = bytes.get(16..).unwrap_or_default();
                        exchange.target = (!path.is_empty()).then(|| bounded(path, MAX_TEXT_BYTES, true));
                        exchange.flags.insert(frame.lack());
                    }
                }
                let class = if body == Body::Path { ByteClass::Value } else { ByteClass::Secret };
                marker.to(frame.range.end, class);
            }
            Body::Multi => {
                let (target, whole) = multi_paths(bytes);
                exchange.target = target;
                if !whole {
                    exchange.flags.insert(frame.lack());
                }
                marker.to(frame.range.end, ByteClass::Secret);
            }
            Body::Auth => {
                let mut jute = Jute::new(bytes, 16);
                match jute.buffer() {
                    Some(scheme) => {
                        exchange.target = Some(bounded(scheme, MAX_TEXT_BYTES, false));
                        marker.to(start + jute.at as u64, ByteClass::Identifier);
                    }
                    None => exchange.flags.insert(frame.lack()),
                }
                marker.to(frame.range.end, ByteClass::Secret);
            }
            Body::Secret => marker.to(frame.range.end, ByteClass::Secret),
            Body::Watches => marker.to(frame.range.end, ByteClass::Identifier),
            Body::Other => marker.to(frame.range.end, ByteClass::Value),
        }
        self.ask(i64::from(xid), code, exchange, frame, out)
    }

    fn answer(&mut self, frame: &Frame, out: &mut Output) -> bool {
        let bytes = frame.bytes.as_slice();
        if self.word {
            return self.report(frame, out);
        }
        if let Some(mut waiting) = self.open.take(CONNECT_KEY) {
            let Some(doubt) = self.open.doubt_of(&waiting) else {
                // Version, timeout, session, password. A session that is no more is told by a timeout of 0.
                mark_session(Side::Server, frame, 20, out);
                let timeout = be32(bytes, 8);
                return complete(waiting.exchange, frame, timeout.map(|t| if t > 0 { 0 } else { -112 }), out);
            };
            // Its answer comes first, so it was in the bytes that were lost before this one.
            waiting.exchange.flags.insert(doubt);
            out.exchanges.push(waiting.exchange);
        }
        let (Some(xid), error) = (be32(bytes, 4), be32(bytes, 16)) else {
            out.mark(Side::Server, frame.range.clone(), ByteClass::Secret);
            self.open.lost_answers(frame.lack());
            return true;
        };
        let start = frame.range.start;
        if xid == EVENT_XID {
            let mut marker = out.marker(Side::Server, start);
            marker.to(frame.range.end.min(start + 32), ByteClass::Structure);
            marker.to(frame.range.end, ByteClass::Identifier);
            return true;
        }
        let (mut exchange, code) = match self.open.take(i64::from(xid)) {
            Some(waiting) => (waiting.exchange, waiting.detail),
            None => match self.open.unseen_request() {
                Some(exchange) => (exchange, 0),
                None => {
                    out.skipped(Side::Server, frame.range.end - frame.range.start);
                    return false;
                }
            },
        };
        let mut marker = out.marker(Side::Server, start);
        marker.to(frame.range.end.min(start + BODY as u64), ByteClass::Structure);
        let body = operation(code).map_or(Body::Other, |(_, body)| body);
        let class = match (body, code) {
            (Body::Secret | Body::Auth, _) | (_, 6) => ByteClass::Secret,
            (Body::Create, _) | (_, 8 | 9 | 103) => ByteClass::Identifier,
            _ => ByteClass::Value,
        };
        marker.to(frame.range.end, class);
        if error == Some(0) && matches!(code, 8 | 12 | 103) {
            exchange.rows = be32(bytes, BODY).and_then(|count| u64::try_from(count).ok());
        }
        let error = match error {
            Some(0) if body == Body::Multi => multi_error(bytes),
            error => error,
        };
        complete(exchange, frame, error, out)
    }

    /// The answer to a command of four letters, which went on to the connection's end.
    fn report(&mut self, frame: &Frame, out: &mut Output) -> bool {
        out.mark(Side::Server, frame.range.clone(), ByteClass::Value);
        let Some(waiting) = self.open.take(WORD_KEY) else { return true };
        let mut exchange = waiting.exchange;
        exchange.response = Some(frame.range.clone());
        let text = bounded(frame.bytes.get(..256).unwrap_or(&frame.bytes), 256, false);
        let refused = text.contains("is not executed because") || text.starts_with("This ZooKeeper instance is not");
        exchange.status = if refused { Status::Error } else { Status::Ok };
        exchange.error = refused.then(|| text.trim().into());
        out.exchanges.push(exchange);
        true
    }
}

/// Completes a request; `error` is `None` where the answer was cut before it.
fn complete(mut exchange: Exchange, frame: &Frame, error: Option<i32>, out: &mut Output) -> bool {
    exchange.response = Some(frame.range.clone());
    match error {
        Some(0) => exchange.status = Status::Ok,
        Some(code) => {
            exchange.status = Status::Error;
            exchange.code = Some(error_name(code));
        }
        None => exchange.flags.insert(frame.lack()),
    }
    if !frame.whole {
        exchange.flags.insert(Flags::INCOMPLETE);
    }
    out.exchanges.push(exchange);
    true
}

/// The paths of a transaction: the first, and how many more; whether all of it was read.
fn multi_paths(bytes: &[u8]) -> (Option<Box<str>>, bool) {
    let mut jute = Jute::new(bytes, 12);
    let (mut first, mut count) = (None, 0u64);
    let mut next = || {
        let code = jute.int()?;
        let done = jute.boolean()?;
        jute.skip(4)?;
        if done {
            return Some(None);
        }
        let path = jute.buffer()?;
        match operation(code)? {
            (_, Body::Create) => {
                jute.buffer()?;
                jute.acl()?;
                // Flags; a time to live.
                jute.skip(if code == 21 { 12 } else { 4 })?;
            }
            ("setData", _) => {
                jute.buffer()?;
                jute.skip(4)?;
            }
            // A version.
            ("delete" | "check" | "deleteContainer", _) => jute.skip(4)?,
            // Whether to watch.
            ("getData" | "getChildren", _) => jute.skip(1)?,
            _ => return None,
        }
        Some(Some(path))
    };
    let whole = loop {
        match next() {
            None => break false,
            Some(None) => break true,
            Some(Some(path)) => {
                count += 1;
                if first.is_none() {
                    first = Some(bounded(path, MAX_TEXT_BYTES, false));
                }
            }
        }
    };
    let target = first.map(|first| if count > 1 { format!("{first} +{}", count - 1).into() } else { first });
    (target, whole)
}

/// The error of a transaction's results: that of the operation that failed, not of those that were rolled back with it.
fn multi_error(bytes: &[u8]) -> Option<i32> {
    let mut jute = Jute::new(bytes, BODY);
    let mut first = 0;
    loop {
        let code = jute.int()?;
        let done = jute.boolean()?;
        jute.skip(4)?;
        if done {
            return Some(first);
        }
        match code {
            -1 => {
                let error = jute.int()?;
                if error != 0 && (first == 0 || first == RUNTIME_INCONSISTENCY) {
                    first = error;
                }
            }
            // A path; create2 and its kin: and a state (68 bytes).
            1 => drop(jute.buffer()?),
            15 | 19 | 21 => {
                jute.buffer()?;
                jute.skip(68)?;
            }
            4 => {
                jute.buffer()?;
                jute.skip(68)?;
            }
            5 => jute.skip(68)?,
            8 => jute.strings()?,
            2 | 13 | 20 => {}
            _ => return None,
        }
    }
}

/// A message that opens a session: `before` bytes, a password's length, the password.
fn mark_session(side: Side, frame: &Frame, before: u64, out: &mut Output) {
    let password = usize::try_from(before).ok().and_then(|at| be32(&frame.bytes, at)).unwrap_or(i32::MAX);
    let mut marker = out.marker(side, frame.range.start);
    let end = frame.range.end;
    marker.to(end.min(frame.range.start + before + 4), ByteClass::Structure);
    let password = u64::try_from(password).unwrap_or(0);
    marker.to(end.min(frame.range.start + before + 4 + password), ByteClass::Secret);
    marker.to(end, ByteClass::Structure);
}

impl Framing for ZooKeeper {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        if self.word {
            // Line ends behind the command; the text that answers it has no end of its own.
            return Head::Length(if side == Side::Client { bytes.len() as u64 } else { u64::MAX >> 1 });
        }
        let Some(length) = be32(bytes, 0) else { return Head::Short };
        if side == Side::Client && self.fresh && !self.mid_stream && names::word(bytes).is_some() {
            return Head::Length(4);
        }
        let least = if side == Side::Client { 8 } else { REPLY_BYTES };
        match u64::try_from(length) {
            Ok(size) if (least..=MAX_MESSAGE_BYTES).contains(&length) => Head::Length(size + 4),
            _ => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        if side == Side::Client {
            return match detect::is_request(bytes, cut) {
                Looks::No if self.fresh => detect::is_connect(bytes),
                looks => looks,
            };
        }
        match (be32(bytes, 0), be32(bytes, 4)) {
            (Some(length), Some(xid)) => {
                // Version 0 answers what connects.
                let expected = self.open.has(i64::from(xid)) || xid == 0 && self.open.has(CONNECT_KEY);
                let event = xid == EVENT_XID && be64(bytes, 8) == Some(-1) && be32(bytes, 16) == Some(0);
                (length >= REPLY_BYTES && (expected || event)).into()
            }
            _ if cut => Looks::No,
            _ => Looks::Open,
        }
    }
}

impl Calls for ZooKeeper {
    type Key = i64;
    type Detail = i32;

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
