//! What HTTP/2 looks like.

use super::call::is_method;
use super::frame::{self, Chain, HEADERS, Head, PREFACE, SETTINGS, WINDOW_UPDATE};
use super::hpack::{Kind, Table};
use crate::{Detected, Prefix, Side};

/// Bytes of the preface that nothing else begins with.
const TELLING_PREFACE: usize = 14;

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    let shared = prefix.client.len().min(PREFACE.len());
    if shared > 0 && prefix.client.get(..shared) == PREFACE.get(..shared) {
        return if shared >= TELLING_PREFACE { Detected::Certain } else { Detected::Maybe };
    }
    let side = |side: Side, bytes: &[u8]| {
        let found = frame::chain(side, bytes, |head, payload| telling(side, head, payload));
        // A piece too short to hold a frame's header says nothing, whatever it is.
        found.map(|found| if found == Chain::default() { None } else { Some(found) })
    };
    let (Ok(client), Ok(server)) = (side(Side::Client, prefix.client), side(Side::Server, prefix.server)) else {
        return Detected::No;
    };
    if !prefix.mid_stream {
        // A server may speak before the client's preface is seen, beginning with its settings.
        return match server {
            Some(found) if prefix.client.is_empty() && found.telling > 0 && prefix.server.get(3) == Some(&SETTINGS) => {
                Detected::Likely
            }
            None if prefix.client.is_empty() && !prefix.complete => Detected::Maybe,
            _ => Detected::No,
        };
    }
    match (client, server) {
        (Some(client), Some(server)) if client.telling > 0 && server.telling > 0 => Detected::Certain,
        (Some(client), Some(server)) if client.telling + server.telling > 0 => Detected::Likely,
        (Some(one), None) | (None, Some(one)) if one.telling > 0 => Detected::Likely,
        (None, None) if prefix.complete => Detected::No,
        _ => Detected::Maybe,
    }
}

/// Whether a frame's payload is one that only such a frame has; `None` if it can't be one.
fn telling(side: Side, head: &Head, payload: &[u8]) -> Option<bool> {
    let whole = payload.len() == head.length as usize;
    match head.kind {
        HEADERS => {
            let block = super::block_of(head, payload)?;
            let (mut known, mut wrong) = (0, false);
            let read = Table::new(true).decode(block, None, |kind, value| {
                wrong |= kind == Kind::Method && value.is_some_and(|text| !is_method(text));
                known += usize::from(match (kind, side) {
                    (Kind::Method, Side::Client) => value.is_some(),
                    (Kind::Path, Side::Client) => value
                        .is_some_and(|text| text.iter().all(u8::is_ascii_graphic) && matches!(text, [b'/' | b'*', ..])),
                    (Kind::Status, Side::Server) => value.is_some_and(|text| text.len() == 3),
                    (Kind::GrpcStatus, Side::Server) => true,
                    _ => false,
                });
            });
            (!wrong && (!whole || read.is_ok())).then_some(known > 0)
        }
        SETTINGS => {
            // Identifiers that are registered, gRPC's own (0xfe03 and up), or reserved to be ignored (0x?a?a).
            let settings = payload.chunks_exact(6).all(|setting| match setting.first_chunk() {
                Some([0, low]) => *low > 0 && *low <= 0x10,
                Some([high, low]) => *high == 0xfe || high & 15 == 10 && low & 15 == 10,
                None => false,
            });
            settings.then_some(settings)
        }
        WINDOW_UPDATE => {
            let increment = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            match increment {
                Some(0) => None,
                Some(increment) => (increment >> 31 == 0).then_some(true),
                None => Some(false),
            }
        }
        _ => Some(whole),
    }
}
