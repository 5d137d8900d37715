//! Dubbo's protocol of TCP ("Dubbo2", <https://dubbo.apache.org/en/docs/v2.7/dev/implementation/>): a header of 16 bytes with
//! a request's number, and a body in one of many serializations.

mod body;

use crate::calls::{Calls, Conversation};
use crate::cursor::{be32, be64};
use crate::frames::{Frame, Framing, Head};
use crate::matching::Matching;
use crate::pairing::Looks;
use crate::text::{MAX_TEXT_BYTES, bounded, mask_quoted};
use crate::{
    About, ByteClass, Detected, Exchange, Flags, NAMELESS, Options, Output, Prefix, Protocol, Side, Start, Status,
};
use body::Body;

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "dubbo",
    streams: true,
    datagrams: false,
    detect,
    parser: |start| Box::new(Conversation::new(start, Dubbo::new(start))),
    about: About {
        source: "Dubbo protocol header (magic 0xdabb), Hessian 2.0",
        request: "a request that is no heartbeat; `op` its method, `target` its service",
        read: "status, exceptions as errors with their class; names in Hessian 2, fastjson, gson, fastjson2 (JSONB)",
        mid_stream: "messages at the start of a send, by their magic; answers by request number",
        not_read: "arguments, results, names in other serializations, calls from server to client, Triple (it is gRPC)",
    },
};

/// Bytes of a message that are looked at: the names stand in front.
const KEEP_BYTES: usize = 16 << 10;
const HEADER_BYTES: usize = 16;
const MAGIC: [u8; 2] = [0xda, 0xbb];
/// `payload` is 8 MiB unless told otherwise.
const MAX_BODY_BYTES: i32 = 1 << 30;

const REQUEST: u8 = 0x80;
const TWO_WAY: u8 = 0x40;
/// A heartbeat, or a notice between the ends.
const EVENT: u8 = 0x20;
const SERIALIZATION: u8 = 0x1f;

/// The status of an answer without error of Dubbo's own.
const OK: u8 = 20;

struct Dubbo {
    options: Options,
    mid_stream: bool,
    fresh: bool,
    open: Matching<i64, ()>,
}

/// A header.
#[derive(Debug, Clone, Copy)]
struct Header {
    flags: u8,
    status: u8,
    number: i64,
    body: i32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let (flags, status) = (*header.get(2)?, *header.get(3)?);
        let good = header.starts_with(&MAGIC) && body::is_known(flags & SERIALIZATION);
        let header = Self { flags, status, number: be64(header, 4)?, body: be32(header, 12)? };
        (good && (0..=MAX_BODY_BYTES).contains(&header.body)).then_some(header)
    }

    fn is(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn serialization(self) -> u8 {
        self.flags & SERIALIZATION
    }
}

/// Whether a message begins here.
fn looks(bytes: &[u8], cut: bool) -> Looks {
    if bytes.len() < HEADER_BYTES {
        let begins = bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic);
        return if begins && !cut { Looks::Open } else { Looks::No };
    }
    Header::read(bytes).is_some().into()
}

fn detect(prefix: &Prefix<'_>) -> Detected {
    if looks(prefix.client, false) == Looks::No || looks(prefix.server, false) == Looks::No {
        return Detected::No;
    }
    let asks = |header: &Header| header.is(REQUEST);
    let call = |bytes| Header::read(bytes).filter(|header| !header.is(EVENT));
    match (call(prefix.client), call(prefix.server)) {
        // Calls back exist, but only behind a call.
        (Some(client), _) if !asks(&client) && !prefix.mid_stream => Detected::No,
        (Some(client), _) if asks(&client) => Detected::Certain,
        (_, Some(server)) if !asks(&server) => Detected::Certain,
        (None, None) if !prefix.client.is_empty() || !prefix.server.is_empty() => {
            // Heartbeats go both ways, too.
            if Header::read(prefix.client).or(Header::read(prefix.server)).is_some() {
                Detected::Likely
            } else {
                Detected::Maybe
            }
        }
        _ => Detected::No,
    }
}

/// Names of `Response`'s statuses.
fn status_name(status: u8) -> &'static str {
    match status {
        25 => "SERIALIZATION_ERROR",
        30 => "CLIENT_TIMEOUT",
        31 => "SERVER_TIMEOUT",
        35 => "CHANNEL_INACTIVE",
        40 => "BAD_REQUEST",
        50 => "BAD_RESPONSE",
        60 => "SERVICE_NOT_FOUND",
        70 => "SERVICE_ERROR",
        80 => "SERVER_ERROR",
        90 => "CLIENT_ERROR",
        100 => "SERVER_THREADPOOL_EXHAUSTED_ERROR",
        _ => "unknown status",
    }
}

impl Dubbo {
    fn new(start: &Start) -> Self {
        Self { options: start.options, mid_stream: start.mid_stream, fresh: true, open: Matching::default() }
    }

    fn request(&mut self, header: Header, frame: &Frame, out: &mut Output) {
        let mut marker = out.marker(Side::Client, frame.range.start);
        marker.to(frame.range.end.min(frame.range.start + HEADER_BYTES as u64), ByteClass::Structure);
        let mut body = Body::new(&frame.bytes, HEADER_BYTES, header.serialization());
        // Dubbo's version, the service, its version, the method, the types of its parameters.
        let mut names = [const { None }; 5];
        for name in &mut names {
            *name = body.string();
            if name.is_none() {
                break;
            }
            marker.to(frame.range.start + body.at as u64, ByteClass::Identifier);
        }
        marker.to(frame.range.end, ByteClass::Value);
        let [_, service, _, method, _] = names;
        let text = |name: &[u8]| bounded(name, MAX_TEXT_BYTES, false);
        let mut exchange = Exchange {
            op: method.map_or(NAMELESS.into(), text),
            target: service.map(text),
            request: frame.range.clone(),
            ..Exchange::default()
        };
        if method.is_none() && frame.missing != Flags::default() {
            exchange.flags.insert(frame.lack());
        }
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.open.len() > 0);
        if header.is(TWO_WAY) {
            self.open.ask(header.number, exchange, (), out);
        } else {
            exchange.status = Status::Ok;
            exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(exchange);
        }
    }

    fn answer(&mut self, header: Header, frame: &Frame, out: &mut Output) -> bool {
        let waiting = self.open.take(header.number).map(|waiting| waiting.exchange);
        let Some(mut exchange) = waiting.or_else(|| self.open.unseen_request()) else {
            out.skipped(Side::Server, frame.range.end - frame.range.start);
            return false;
        };
        pass(Side::Server, frame, out);
        exchange.response = Some(frame.range.clone());
        exchange.code = Some(header.status.to_string().into());
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        let mut body = Body::new(&frame.bytes, HEADER_BYTES, header.serialization());
        if header.status != OK {
            exchange.status = Status::Error;
            let text = body.string().map(|text| bounded(text, MAX_TEXT_BYTES, false));
            exchange.error = Some(match text {
                Some(text) if self.options.literals => text,
                Some(text) => mask_quoted(&text),
                None => status_name(header.status).into(),
            });
        } else {
            match body.result() {
                Some(0 | 3) => {
                    exchange.status = Status::Error;
                    exchange.error = body.class().map(|class| bounded(class, MAX_TEXT_BYTES, false));
                }
                Some(_) => exchange.status = Status::Ok,
                None if frame.bytes.len() <= HEADER_BYTES && header.body > 0 => exchange.flags.insert(frame.lack()),
                // A serialization that is not read: whether the result is an exception is not known.
                None => {}
            }
        }
        out.exchanges.push(exchange);
        true
    }
}

/// A message whose body nobody reads, or that is no call.
fn pass(side: Side, frame: &Frame, out: &mut Output) {
    let mut marker = out.marker(side, frame.range.start);
    marker.to(frame.range.end.min(frame.range.start + HEADER_BYTES as u64), ByteClass::Structure);
    marker.to(frame.range.end, ByteClass::Value);
}

impl Framing for Dubbo {
    fn head(&self, _: Side, bytes: &[u8]) -> Head {
        match (looks(bytes, false), Header::read(bytes)) {
            (Looks::Yes, Some(header)) => Head::Length(HEADER_BYTES as u64 + u64::try_from(header.body).unwrap_or(0)),
            (Looks::Open, _) => Head::Short,
            _ => Head::Bad,
        }
    }

    fn looks(&self, _: Side, bytes: &[u8], cut: bool) -> Looks {
        looks(bytes, cut)
    }
}

impl Calls for Dubbo {
    type Key = i64;
    type Detail = ();

    const KEEP: usize = KEEP_BYTES;

    fn message(&mut self, side: Side, frame: &Frame, out: &mut Output) -> bool {
        match Header::read(&frame.bytes) {
            Some(header) if header.is(EVENT) => pass(side, frame, out),
            Some(header) if side == Side::Client && header.is(REQUEST) => self.request(header, frame, out),
            Some(header) if side == Side::Server && !header.is(REQUEST) => return self.answer(header, frame, out),
            // Calls from server to client, and their answers.
            _ => pass(side, frame, out),
        }
        true
    }

    fn open(&mut self) -> &mut Matching<Self::Key, Self::Detail> {
        &mut self.open
    }
}
