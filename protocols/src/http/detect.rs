//! What HTTP/1 looks like.

use super::head;
use crate::pairing::Looks;
use crate::{Detected, Prefix};

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    let client = head::looks_like_request(strip_blank_lines(prefix.client), prefix.complete);
    let server = match head::status_line(prefix.server) {
        Ok(_) => Looks::Yes,
        Err(looks) => looks,
    };
    match (client, server) {
        (Looks::Yes, _) => Detected::Certain,
        (_, Looks::Yes) if prefix.client.is_empty() => Detected::Certain,
        (_, Looks::Yes) => Detected::Likely,
        (Looks::Open, _) => Detected::Maybe,
        (Looks::No, _) if prefix.mid_stream => {
            match (contains_request(prefix.client), contains_status(prefix.server)) {
                (true, true) => Detected::Certain,
                (true, false) | (false, true) => Detected::Likely,
                (false, false) if prefix.complete => Detected::No,
                (false, false) => Detected::Maybe,
            }
        }
        _ => Detected::No,
    }
}

fn strip_blank_lines(bytes: &[u8]) -> &[u8] {
    let blank = bytes.iter().take(8).take_while(|b| matches!(**b, b'\r' | b'\n')).count();
    bytes.get(blank..).unwrap_or_default()
}

/// A request line somewhere in bytes that begin inside a body.
fn contains_request(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b" HTTP/1.").any(|at| {
        let before = bytes.get(..at).unwrap_or_default();
        let word = memchr::memrchr(b' ', before).and_then(|space| before.get(..space)).unwrap_or_default();
        let method = word.iter().rev().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
        let method = word.get(word.len() - method..).unwrap_or_default();
        let line_end = matches!(bytes.get(at + 8..at + 11), Some([b'0'..=b'9', b'\r', b'\n']));
        line_end && (1..=method.len()).any(|n| method.get(method.len() - n..).is_some_and(head::is_known_method))
    })
}

fn contains_status(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"HTTP/1.").any(|at| bytes.get(at..).is_some_and(|b| head::status_line(b).is_ok()))
}
