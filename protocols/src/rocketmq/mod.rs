//! RocketMQ's remoting protocol (<https://rocketmq.apache.org>, `RemotingCommand`): a header in JSON or in RocketMQ's own
//! encoding, and a body. Answers repeat the request's number (`opaque`).

mod header;
mod names;

use crate::calls::{Calls, Conversation};
use crate::frames::{Frame, Framing, Head};
use crate::matching::Matching;
use crate::pairing::Looks;
use crate::text::{MAX_TEXT_BYTES, bounded, mask_quoted};
use crate::{About, ByteClass, Detected, Exchange, Flags, Options, Output, Prefix, Protocol, Side, Start, Status};
use header::{Header, PREFIX_BYTES, is_prefix, lengths};
use names::{request_name, response_name};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "rocketmq",
    streams: true,
    datagrams: false,
    detect,
    parser: |start| Box::new(Conversation::new(start, RocketMq::new(start))),
    about: About {
        source: "RocketMQ remoting protocol (RemotingCommand)",
        request: "a request command; `op` the name of its code, `target` its topic, else its group",
        read: "headers in JSON and RocketMQ's encoding, one-way requests, codes of answers with their remark",
        mid_stream: "messages at the start of a send; answers by their number",
        not_read: "bodies, requests from server to client, replication between brokers, the gRPC protocol (it is gRPC)",
    },
};

/// Bytes of a message that are looked at: a header holds the properties of a message, at most 32 KiB of them.
const KEEP_BYTES: usize = 128 << 10;
/// A frame is 16 MiB at most unless told otherwise.
const MAX_MESSAGE_BYTES: i32 = 256 << 20;
const HEART_BEAT: i32 = 34;

struct RocketMq {
    options: Options,
    mid_stream: bool,
    fresh: bool,
    open: Matching<i32, ()>,
}

/// Whether a message begins here, and whether its whole header was read.
fn looks(bytes: &[u8], cut: bool) -> (Looks, Option<Header<'_>>) {
    let too_few = if cut { Looks::No } else { Looks::Open };
    let Some((total, _)) = lengths(bytes) else {
        // The highest byte of a length that is in bounds.
        let small = bytes.first().is_none_or(|byte| *byte <= 0x10);
        return (if small { too_few } else { Looks::No }, None);
    };
    if !(4..=MAX_MESSAGE_BYTES).contains(&total) || is_prefix(bytes) != Some(true) {
        return (Looks::No, None);
    }
    match (bytes.get(4), bytes.get(PREFIX_BYTES), Header::read(bytes, false)) {
        (Some(0), Some(byte), _) if *byte != b'{' => (Looks::No, None),
        (_, _, Some(header)) if header.whole => (Looks::Yes, Some(header)),
        // All of it is here, and it is none.
        (_, _, header) if lengths(bytes).is_some_and(|(_, length)| bytes.len() >= PREFIX_BYTES + length as usize) => {
            (Looks::No, header)
        }
        // A header that is cut begins as one at least.
        (Some(0), Some(_), header) if cut && bytes.get(PREFIX_BYTES..).is_some_and(|h| h.starts_with(b"{\"")) => {
            (Looks::Yes, header)
        }
        (_, _, header) => (too_few, header),
    }
}

fn detect(prefix: &Prefix<'_>) -> Detected {
    let (client, asked) = looks(prefix.client, false);
    let (server, answered) = looks(prefix.server, false);
    if client == Looks::No || server == Looks::No {
        return Detected::No;
    }
    match (asked, answered) {
        // Who answers first is the server.
        (Some(asked), _) if asked.whole && asked.is_answer() && !prefix.mid_stream => Detected::No,
        (Some(asked), _) if asked.whole && !asked.is_answer() => Detected::Certain,
        (_, Some(answered)) if answered.whole && answered.is_answer() => Detected::Certain,
        (Some(header), _) | (_, Some(header)) if header.whole => Detected::No,
        _ => Detected::Maybe,
    }
}

impl RocketMq {
    fn new(start: &Start) -> Self {
        Self { options: start.options, mid_stream: start.mid_stream, fresh: true, open: Matching::default() }
    }

    fn request(&mut self, header: &Header<'_>, frame: &Frame, out: &mut Output) {
        let text = |bytes: &[u8]| bounded(bytes, MAX_TEXT_BYTES, false);
        let mut exchange = Exchange {
            op: header.code.map_or(crate::NAMELESS.into(), request_name),
            target: header.topic.or(header.group).map(text),
            request: frame.range.clone(),
            ..Exchange::default()
        };
        if !header.whole {
            exchange.flags.insert(frame.lack());
        }
        if header.code == Some(HEART_BEAT) {
            exchange.flags.insert(Flags::CONTROL);
        }
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        frame.qualify(&mut exchange, joined, self.open.len() > 0);
        match header.opaque {
            _ if header.is_oneway() => {
                exchange.status = Status::Ok;
                exchange.flags.insert(Flags::NO_REPLY);
                out.exchanges.push(exchange);
            }
            Some(opaque) => self.open.ask(opaque, exchange, (), out),
            // Its number is in a hole: whether it was answered can't be told.
            None => out.exchanges.push(exchange),
        }
    }

    fn answer(&mut self, header: &Header<'_>, frame: &Frame, out: &mut Output) -> bool {
        let Some(opaque) = header.opaque else {
            self.open.lost_answers(frame.lack());
            return true;
        };
        let waiting = self.open.take(opaque).map(|waiting| waiting.exchange);
        let Some(mut exchange) = waiting.or_else(|| self.open.unseen_request()) else { return false };
        exchange.response = Some(frame.range.clone());
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        match header.code {
            Some(code) => {
                exchange.code = Some(response_name(code));
                exchange.status = if code == 0 { Status::Ok } else { Status::Error };
                if let Some(remark) = header.remark.filter(|_| code != 0) {
                    let text = bounded(remark, MAX_TEXT_BYTES, false);
                    exchange.error = Some(if self.options.literals { text } else { mask_quoted(&text) });
                }
            }
            None => exchange.flags.insert(frame.lack()),
        }
        out.exchanges.push(exchange);
        true
    }
}

/// Classes of a message's bytes: a header's strings, structure between them, the body.
fn mark(side: Side, frame: &Frame, header: Option<&Header<'_>>, out: &mut Output) {
    let start = frame.range.start;
    let length = lengths(&frame.bytes).and_then(|(_, length)| u64::try_from(length).ok()).unwrap_or(0);
    let mut marker = out.marker(side, start);
    for (range, class) in header.map(|header| header.marks.as_slice()).unwrap_or_default() {
        marker.to(start + range.start as u64, ByteClass::Structure);
        marker.to(frame.range.end.min(start + range.end as u64), *class);
    }
    let here = (PREFIX_BYTES as u64 + length).min(frame.bytes.len() as u64);
    marker.to(frame.range.end.min(start + here), ByteClass::Structure);
    // What is missing of a header may hold credentials.
    marker.to(frame.range.end.min(start + PREFIX_BYTES as u64 + length), ByteClass::Secret);
    marker.to(frame.range.end, ByteClass::Value);
}

impl Framing for RocketMq {
    fn head(&self, _: Side, bytes: &[u8]) -> Head {
        match (lengths(bytes), is_prefix(bytes)) {
            (Some((total, _)), Some(true)) if total <= MAX_MESSAGE_BYTES => {
                Head::Length(u64::try_from(total).unwrap_or(0) + 4)
            }
            (None, _) => Head::Short,
            _ => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let (looks, header) = looks(bytes, cut);
        match (side, header) {
            // One whose number is in a hole can't be told from a request of the server's.
            (Side::Server, Some(header)) if looks == Looks::Yes && !header.whole => Looks::No,
            _ => looks,
        }
    }
}

impl Calls for RocketMq {
    type Key = i32;
    type Detail = ();

    const KEEP: usize = KEEP_BYTES;

    fn message(&mut self, side: Side, frame: &Frame, out: &mut Output) -> bool {
        let header = Header::read(&frame.bytes, out.marks.is_some());
        mark(side, frame, header.as_ref(), out);
        let Some(header) = header else { return false };
        if !header.whole && self.fresh && frame.missing == Flags::default() && frame.whole && !self.mid_stream {
            return false;
        }
        match (side, header.is_answer()) {
            (Side::Client, false) => self.request(&header, frame, out),
            (Side::Server, true) => return self.answer(&header, frame, out),
            // The flag is in a hole, behind what is here.
            (Side::Server, false) if !header.whole && header.flag.is_none() => {
                self.open.lost_answers(frame.lack());
            }
            // The server asks (to check a transaction, for a rebalance), the client answers.
            _ => {}
        }
        true
    }

    fn open(&mut self) -> &mut Matching<Self::Key, Self::Detail> {
        &mut self.open
    }
}
