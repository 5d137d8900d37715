//! Frames (section 4.2.3 of the specification) and what they look like.

use super::method::{self, CONNECTION_START};
use crate::frames::{Frame, Framing, Head};
use crate::pairing::Looks;
use crate::{ByteClass, Detected, Output, Prefix, Side};

/// Type, channel, size.
pub(super) const HEAD_BYTES: usize = 7;
/// What every frame ends with.
const FRAME_END: u8 = 0xce;

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// What a client begins with. A server that doesn't know the version answers with its own.
const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// Bytes of a frame that are kept: of methods, all that is asked for.
pub(super) const MAX_KEPT_BYTES: usize = 4096;

/// Payloads above this are no frames of anybody: RabbitMQ's default limit is 128 KiB, set by `frame_max`.
const MAX_PAYLOAD_BYTES: u32 = 256 << 20;

pub(super) struct Wire;

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    pub kind: u8,
    pub channel: u16,
    pub size: u32,
}

/// A frame's head; `None` for the protocol header, or too few bytes.
pub(super) fn head_of(bytes: &[u8]) -> Option<FrameHead> {
    let [kind, c0, c1, s0, s1, s2, s3] = *bytes.first_chunk()?;
    let head = FrameHead { kind, channel: u16::from_be_bytes([c0, c1]), size: u32::from_be_bytes([s0, s1, s2, s3]) };
    let known = matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) && head.size <= MAX_PAYLOAD_BYTES;
    known.then_some(head)
}

/// Bytes of a frame's payload.
pub(super) fn payload_size(frame: &Frame) -> u64 {
    (frame.range.end - frame.range.start).saturating_sub(HEAD_BYTES as u64 + 1)
}

/// The size of a body, from its content header.
pub(super) fn body_size(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*payload.get(4..)?.first_chunk()?))
}

impl Framing for Wire {
    fn head(&self, _: Side, bytes: &[u8]) -> Head {
        if bytes.starts_with(b"A") {
            return match bytes.get(..PROTOCOL_HEADER.len()) {
                Some(header) if header.starts_with(b"AMQP") => Head::Length(PROTOCOL_HEADER.len() as u64),
                None if b"AMQP".starts_with(bytes.get(..4).unwrap_or(bytes)) => Head::Short,
                _ => Head::Bad,
            };
        }
        match (head_of(bytes), bytes.len()) {
            (Some(head), _) => Head::Length(u64::from(head.size) + HEAD_BYTES as u64 + 1),
            (None, HEAD_BYTES..) => Head::Bad,
            (None, _) if bytes.first().is_none_or(|kind| matches!(*kind, METHOD | HEADER | BODY | HEARTBEAT)) => {
                Head::Short
            }
            _ => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let open = if cut { Looks::No } else { Looks::Open };
        if bytes.starts_with(b"A") {
            return match bytes.get(..PROTOCOL_HEADER.len()) {
                Some(header) => (header == PROTOCOL_HEADER).into(),
                None if PROTOCOL_HEADER.starts_with(bytes) => open,
                None => Looks::No,
            };
        }
        let Some(head) = head_of(bytes) else {
            let possible = self.head(side, bytes) == Head::Short;
            return if possible { open } else { Looks::No };
        };
        let size = head.size as usize;
        let payload = bytes.get(HEAD_BYTES..).unwrap_or_default();
        let end = payload.get(size);
        if end.is_some_and(|end| *end != FRAME_END) {
            return Looks::No;
        }
        match head.kind {
            METHOD => match method::of(payload) {
                Some(method) => {
                    let own = (head.channel == 0) == (method.class == 10);
                    (own && method.sent_by(side) && size >= 4).into()
                }
                None if payload.len() < 4 && size >= 4 => open,
                None => Looks::No,
            },
            HEADER => match payload.first_chunk() {
                Some(fixed) => (*fixed == [0, 60, 0, 0] && size >= 14 && head.channel > 0).into(),
                None => open,
            },
            HEARTBEAT if head.channel != 0 || size != 0 => Looks::No,
            BODY if head.channel == 0 || size == 0 => Looks::No,
            // Of these only the end tells.
            _ if end.is_some() => Looks::Yes,
            _ => open,
        }
    }

    fn ends(&self, frame: &Frame) -> bool {
        let whole = frame.bytes.len() as u64 == frame.range.end - frame.range.start;
        !whole || frame.bytes.starts_with(b"AMQP") || frame.bytes.last() == Some(&FRAME_END)
    }
}

/// Classifies a frame.
pub(super) fn mark(side: Side, frame: &Frame, head: FrameHead, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let start = frame.range.start;
    let limit = (start + HEAD_BYTES as u64 + u64::from(head.size)).min(frame.range.end);
    let payload = frame.bytes.get(HEAD_BYTES..).unwrap_or_default();
    let mut marker = out.marker(side, start);
    marker.to((start + HEAD_BYTES as u64).min(frame.range.end), ByteClass::Structure);
    match (head.kind, method::of(payload)) {
        (METHOD, Some(method)) => {
            let at = start + HEAD_BYTES as u64 + 4;
            method::mark(method, payload.get(4..).unwrap_or_default(), at, limit, &mut marker);
        }
        (HEADER, _) => {
            marker.to((start + HEAD_BYTES as u64 + 12).min(limit), ByteClass::Structure);
            marker.to(limit, ByteClass::Value);
        }
        // A method that is not seen or not known may hold credentials.
        (METHOD, None) => marker.to(limit, ByteClass::Secret),
        _ => marker.to(limit, ByteClass::Value),
    }
    marker.to(frame.range.end, ByteClass::Structure);
}

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    if prefix.client.starts_with(PROTOCOL_HEADER) {
        return Detected::Certain;
    }
    let open = |bytes: &[u8]| bytes.is_empty() || PROTOCOL_HEADER.starts_with(bytes);
    if open(prefix.client) && !prefix.mid_stream {
        let start = head_of(prefix.server).is_some_and(|head| head.kind == METHOD && head.channel == 0);
        let payload = prefix.server.get(HEAD_BYTES..).unwrap_or_default();
        return match method::of(payload) {
            Some(method) if start && method.id() == CONNECTION_START => Detected::Certain,
            _ if prefix.server.is_empty() || start && payload.len() < 4 => Detected::Maybe,
            _ if prefix.client.is_empty() => Detected::No,
            _ => Detected::Maybe,
        };
    }
    let (client, server) = (speaks(Side::Client, prefix.client), speaks(Side::Server, prefix.server));
    match (client, server) {
        (Speech::No, _) | (_, Speech::No) => Detected::No,
        (Speech::Method, Speech::Method) => Detected::Certain,
        (Speech::Method, _) | (_, Speech::Method) => Detected::Likely,
        _ => Detected::Maybe,
    }
}

/// What bytes of one side are.
enum Speech {
    No,
    /// Too little to tell.
    Open,
    /// A whole frame with a method that this side sends.
    Method,
}

fn speaks(side: Side, mut bytes: &[u8]) -> Speech {
    // Contents and heartbeats have no side.
    for _ in 0..8 {
        match Wire.looks(side, bytes, false) {
            Looks::No => return Speech::No,
            Looks::Open => return Speech::Open,
            Looks::Yes => {}
        }
        let Some(head) = head_of(bytes) else { return Speech::Open };
        let Some(rest) = bytes.get(HEAD_BYTES + 1 + head.size as usize..) else { return Speech::Open };
        if head.kind == METHOD {
            return Speech::Method;
        }
        bytes = rest;
    }
    Speech::Open
}
