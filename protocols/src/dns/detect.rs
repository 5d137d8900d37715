//! Whether bytes are DNS messages.

use super::wire::{End, HEADER_BYTES, Header, Item, be16, walk};
use super::words::opcode_name;
use super::{MDNS_PORT, TCP_LENGTH_BYTES};
use crate::pairing::Looks;
use crate::{Detected, Prefix};

/// Ports whose messages have this form and are not DNS: NetBIOS names (RFC 1002), LLMNR (RFC 4795).
const OTHERS: [u16; 2] = [137, 5355];

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    if prefix.server_port.is_some_and(|port| OTHERS.contains(&port)) {
        return Detected::No;
    }
    let mut best = Detected::Maybe;
    for (bytes, response) in [(prefix.client, false), (prefix.server, true)] {
        if bytes.is_empty() {
            continue;
        }
        let verdict =
            if prefix.datagrams { datagram(bytes, response, prefix) } else { stream(bytes, response, prefix) };
        if verdict == Detected::No {
            return Detected::No;
        }
        best = best.max(verdict);
    }
    best
}

fn datagram(bytes: &[u8], response: bool, prefix: &Prefix<'_>) -> Detected {
    // Who answers by multicast sends to the group as well.
    let multicast = prefix.server_port == Some(MDNS_PORT);
    match judge(bytes, Some(response).filter(|_| !multicast || response)) {
        Judgement::No => Detected::No,
        Judgement::Message(end) if end == bytes.len() => Detected::Certain,
        Judgement::Message(_) | Judgement::Bad if is_usual(prefix) => Detected::Likely,
        Judgement::Cut(true) => Detected::Likely,
        Judgement::Cut(false) if is_usual(prefix) => Detected::Likely,
        _ => Detected::Maybe,
    }
}

fn stream(bytes: &[u8], response: bool, prefix: &Prefix<'_>) -> Detected {
    let Some(length) = be16(bytes, 0).map(usize::from) else { return Detected::Maybe };
    let message = bytes.get(TCP_LENGTH_BYTES..).unwrap_or_default();
    let whole = message.get(..length);
    match judge(whole.unwrap_or(message), Some(response)) {
        _ if length < HEADER_BYTES => Detected::No,
        Judgement::No | Judgement::Bad => Detected::No,
        Judgement::Message(end) if ends(message, end, length) => Detected::Certain,
        Judgement::Cut(true) if whole.is_none() => Detected::Likely,
        Judgement::Cut(false) if whole.is_none() && is_usual(prefix) => Detected::Likely,
        Judgement::Cut(_) if whole.is_none() => Detected::Maybe,
        _ => Detected::No,
    }
}

/// Whether a message of `length` bytes may end at `end`: Windows puts two letters behind its requests for transfers.
fn ends(message: &[u8], end: usize, length: usize) -> bool {
    matches!(message.get(end..length), Some(b"" | b"MS"))
}

fn is_usual(prefix: &Prefix<'_>) -> bool {
    matches!(prefix.server_port, Some(53 | MDNS_PORT))
}

enum Judgement {
    No,
    /// A header that may be, and then something that is no question or record.
    Bad,
    /// A message that ends where the bytes do, or before; whether its questions are all there.
    Cut(bool),
    /// A message with at least one question or record.
    Message(usize),
}

fn judge(bytes: &[u8], response: Option<bool>) -> Judgement {
    // Enough for the flags: half a header says little, but not nothing.
    if let Some(flags) = be16(bytes, 2) {
        let (is_response, opcode) = (flags & 0x8000 != 0, (flags >> 11) as u8 & 15);
        let fits = response.is_none_or(|response| response == is_response);
        // A query has no response code.
        if !fits || opcode_name(opcode).is_none() || !is_response && flags & 15 != 0 {
            return Judgement::No;
        }
    }
    let Some(header) = Header::read(bytes) else { return Judgement::Cut(false) };
    let (mut questions, mut odd) = (0, false);
    let end = walk(bytes, &header, |item| match item {
        Item::Question { name, kind, class } => {
            questions += 1;
            odd |= kind == 0 || !matches!(class & 0x7fff, 1 | 3 | 4 | 254 | 255) || is_netbios(bytes, name, kind);
        }
        Item::Record { .. } => {}
    });
    // More than a message of 64 KiB has room for.
    let crowded = header.counts[0] > 256;
    if odd || crowded {
        return Judgement::No;
    }
    match end {
        End::Bad => Judgement::Bad,
        End::Short => Judgement::Cut(questions > 0 && questions == header.counts[0]),
        End::Whole(_) if header.counts == [0; 4] => Judgement::Cut(false),
        End::Whole(end) => Judgement::Message(end),
    }
}

/// NetBIOS names are 32 letters from A to P, asked for by types that mean something else in DNS (RFC 1001, section 14).
fn is_netbios(bytes: &[u8], name: usize, kind: u16) -> bool {
    let label = bytes.get(name..).and_then(|rest| rest.first_chunk::<33>());
    matches!(kind, 32 | 33)
        && label
            .is_some_and(|[length, letters @ ..]| *length == 32 && letters.iter().all(|b| (b'A'..=b'P').contains(b)))
}

/// Whether `bytes` are the start of a message on a stream, where one has to be found.
pub(super) fn looks(bytes: &[u8], response: bool, cut: bool) -> Looks {
    let Some(length) = be16(bytes, 0).map(usize::from) else { return if cut { Looks::No } else { Looks::Open } };
    if length < HEADER_BYTES {
        return Looks::No;
    }
    let message = bytes.get(TCP_LENGTH_BYTES..).unwrap_or_default();
    let whole = message.get(..length);
    match judge(whole.unwrap_or(message), Some(response)) {
        Judgement::Message(end) => ends(message, end, length).into(),
        Judgement::Cut(true) if whole.is_none() => Looks::Yes,
        Judgement::Cut(false) if whole.is_none() && !cut => Looks::Open,
        _ => Looks::No,
    }
}
