//! Recognises Kafka by its requests: length, a known API and version, a client's id, and a body of that layout.

use super::{MIN_ANSWER_BYTES, MIN_REQUEST_BYTES, RequestHead, walk_request};
use crate::calls::be32;
use crate::pairing::Looks;
use crate::{Detected, Output, Prefix, Side};

use super::walk::{Stop, Walk};

/// No broker takes a request above 100 MiB unless told to.
const MAX_REQUEST_BYTES: i32 = 256 << 20;

/// The port of every quickstart.
const PORT: u16 = 9092;

/// How much of a request was seen to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    Few,
    /// As far as there are bytes.
    Begun {
        named: bool,
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
    if head.key < 0 || head.version < 0 || head.layout().is_none() {
        return Seen::No;
    }
    let total = length as u64 + 4;
    let mut out = Output::default();
    let message = usize::try_from(total).ok().and_then(|total| bytes.get(..total)).unwrap_or(bytes);
    let mut walk = Walk::new(message, 0..total, 12, &mut out, Side::Client);
    let named = matches!(bytes.get(12..14), Some([high, low]) if (*high, *low) != (0, 0) && *high != 0xff);
    match walk_request(&mut walk, head) {
        Err(Stop::Bad) => Seen::No,
        _ if message.len() as u64 == total => Seen::Whole { named, head },
        // The client's id must have been seen.
        _ if message.len() < 14 => Seen::Few,
        _ => Seen::Begun { named, head },
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
    match seen {
        Seen::No => Detected::No,
        Seen::Few => Detected::Maybe,
        Seen::Begun { named, head } | Seen::Whole { named, head } => {
            let whole = matches!(seen, Seen::Whole { .. });
            match answers {
                Some(id) if id == head.correlation && (whole || named) => Detected::Certain,
                // The first answer is that to the first request.
                Some(id) if id != head.correlation && !prefix.mid_stream => Detected::No,
                _ if whole && named => Detected::Certain,
                _ if whole || named || prefix.server_port == Some(PORT) => Detected::Likely,
                _ => Detected::Maybe,
            }
        }
    }
}
