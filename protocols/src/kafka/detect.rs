//! Recognises Kafka by its requests: length, a known API and version, a client's id, and a body of that layout.

use super::{API_VERSIONS, MAX_VERSION, MIN_ANSWER_BYTES, MIN_REQUEST_BYTES, RequestHead, walk_request};
use crate::cursor::{be16, be32};
use crate::pairing::Looks;
use crate::{Detected, Output, Prefix, Side};

use super::walk::{Stop, Walk};

/// No broker takes a request above 100 MiB unless told to (`socket.request.max.bytes`).
const MAX_REQUEST_BYTES: i32 = 100 << 20;

/// Client ids are shorter, where only a part of a request is there to judge by.
const MAX_ID_BYTES: usize = 255;

/// How much of a request was seen to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    Few,
    /// As far as there are bytes.
    Begun {
        head: RequestHead,
    },
    /// All of it, to the last byte.
    Whole {
        named: bool,
        head: RequestHead,
    },
}

fn request(bytes: &[u8]) -> Seen {
    let Some(length) = be32(bytes, 0) else {
        return if matches!(bytes, [] | [0, ..] | [1..=15, ..]) { Seen::Few } else { Seen::No };
    };
    if !(MIN_REQUEST_BYTES..=MAX_REQUEST_BYTES).contains(&length) {
        return Seen::No;
    }
    let Some(head) = RequestHead::read(bytes) else { return Seen::Few };
    // What a client says first may be of a newer version than is described: its header is the same.
    let newer = head.key == API_VERSIONS && head.version <= MAX_VERSION && head.layout().is_none();
    if head.key < 0 || head.version < 0 || head.layout().is_none() && !newer {
        return Seen::No;
    }
    let total = length as u64 + 4;
    let mut out = Output::default();
    let message = usize::try_from(total).ok().and_then(|total| bytes.get(..total)).unwrap_or(bytes);
    let mut walk = Walk::new(message, 0..total, 12, &mut out, Side::Client).strict();
    let id_bytes = be16(bytes, 12).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let id = bytes.get(14..).map(|rest| rest.get(..id_bytes).unwrap_or(rest)).unwrap_or_default();
    let named = !id.is_empty();
    let odd = !named || id_bytes > MAX_ID_BYTES || !id.iter().all(u8::is_ascii_graphic);
    match walk_request(&mut walk, head) {
        Err(Stop::Bad) => Seen::No,
        _ if message.len() as u64 == total && !newer => Seen::Whole { named, head },
        // The client's id must have been seen. None at all, or one with blanks, may be anything: that needs the whole
        // message.
        _ if message.len() < 14 + id_bytes || odd => Seen::Few,
        _ => Seen::Begun { head },
    }
}

/// Whether a request begins here: asked where one has to be found anew.
pub(super) fn request_here(bytes: &[u8], cut: bool) -> Looks {
    match request(bytes) {
        Seen::No => Looks::No,
        Seen::Few if cut => Looks::No,
        Seen::Few => Looks::Open,
        Seen::Begun { .. } | Seen::Whole { .. } => Looks::Yes,
    }
}

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    let seen = request(prefix.client);
    let answers = match (be32(prefix.server, 0), be32(prefix.server, 4)) {
        (Some(length), _) if length < MIN_ANSWER_BYTES => return Detected::No,
        (_, answer) => answer,
    };
    let (head, named, whole) = match seen {
        Seen::No => return Detected::No,
        Seen::Few => return Detected::Maybe,
        Seen::Begun { head } => (head, true, false),
        Seen::Whole { named, head } => (head, named, true),
    };
    match answers {
        Some(id) if id == head.correlation => Detected::Certain,
        // The first answer is that to the first request.
        Some(_) if !prefix.mid_stream => Detected::No,
        _ if whole && named => Detected::Certain,
        _ => Detected::Likely,
    }
}
