//! What memcached looks like.

use super::line::{Answer, Fit, fits_answer, fits_command, read, verb_named};
use super::packet::{HEADER_BYTES, Header};
use super::udp::{self, Datagram};
use crate::{Detected, Prefix, Side};

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    if prefix.datagrams {
        return detect_datagram(prefix);
    }
    let binary = (speaks_binary(Side::Client, prefix.client), speaks_binary(Side::Server, prefix.server));
    match binary {
        (Speech::Strong, Speech::Strong | Speech::Open) => return Detected::Certain,
        (Speech::Open, Speech::Strong) if prefix.client.is_empty() => return Detected::Likely,
        (Speech::Open, Speech::Open) if !prefix.client.is_empty() || !prefix.server.is_empty() => {
            return Detected::Maybe;
        }
        _ => {}
    }
    let text = (speaks_text(Side::Client, prefix.client), speaks_text(Side::Server, prefix.server));
    match text {
        (Speech::No, _) | (_, Speech::No) => Detected::No,
        // A command with its data; an answer that fits the command.
        (Speech::Strong, _) => Detected::Certain,
        (Speech::Weak, Speech::Strong) => Detected::Certain,
        (Speech::Weak, Speech::Weak) if answers(prefix) => Detected::Certain,
        (Speech::Weak, Speech::Weak) => Detected::Likely,
        (Speech::Open, Speech::Strong) if prefix.client.is_empty() => Detected::Likely,
        (Speech::Open, Speech::Open) if prefix.complete => Detected::No,
        _ => Detected::Maybe,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    No,
    Open,
    Weak,
    Strong,
}

/// Messages that are looked at.
const MAX_MESSAGES: usize = 8;

fn speaks_binary(side: Side, mut bytes: &[u8]) -> Speech {
    let mut speech = Speech::Open;
    for _ in 0..MAX_MESSAGES {
        let magic = if side == Side::Client { 0x80 } else { 0x81 };
        if bytes.is_empty() {
            return speech;
        }
        if bytes.first() != Some(&magic) {
            return Speech::No;
        }
        if bytes.len() < HEADER_BYTES {
            return speech;
        }
        let Some(header) = Header::of(side, bytes).filter(|header| header.is_right(side)) else { return Speech::No };
        speech = Speech::Strong;
        let rest = usize::try_from(header.length()).ok().and_then(|length| bytes.get(length..));
        let Some(rest) = rest else { return speech };
        bytes = rest;
    }
    speech
}

fn speaks_text(side: Side, mut bytes: &[u8]) -> Speech {
    let mut speech = Speech::Open;
    for _ in 0..MAX_MESSAGES {
        if bytes.is_empty() {
            return speech;
        }
        let line = match read(side, bytes) {
            Ok(Some(line)) => line,
            Ok(None) if bytes.len() < 2048 => {
                // Far enough to tell the verb.
                let word = bytes.split(|b| *b == b' ').next().unwrap_or_default();
                let whole = word.len() < bytes.len();
                let known = side == Side::Server || verb_named(word).is_some();
                return if whole && !known { Speech::No } else { speech };
            }
            _ => return Speech::No,
        };
        let fit = if side == Side::Client { fits_command(&line, bytes) } else { fits_answer(&line, bytes) };
        let length = usize::try_from(line.length()).unwrap_or(usize::MAX);
        let end = length.checked_sub(2).and_then(|end| bytes.get(end..length));
        match (fit, line.data, end) {
            (Fit::No, ..) => return Speech::No,
            // Data that ends where it must.
            (Fit::Strong, Some(_), Some(b"\r\n")) => return Speech::Strong,
            (_, Some(_), Some(end)) if end != b"\r\n" => return Speech::No,
            (Fit::Strong, None, _) => return Speech::Strong,
            (Fit::Weak | Fit::Strong, ..) => speech = Speech::Weak,
        }
        let Some(rest) = bytes.get(length..) else { return speech };
        bytes = rest;
    }
    speech
}

/// Whether the first answer is one to the first command.
fn answers(prefix: &Prefix<'_>) -> bool {
    let (Ok(Some(asked)), Ok(Some(answer))) = (read(Side::Client, prefix.client), read(Side::Server, prefix.server))
    else {
        return false;
    };
    let word = answer.word(0, prefix.server);
    let Some(verb) = verb_named(asked.word(0, prefix.client)) else { return false };
    match (verb.answer, verb.name) {
        (Answer::Values, _) => word == b"END",
        (Answer::Lines, _) => matches!(word, b"END" | b"RESET"),
        (Answer::Meta, _) => matches!(word, b"HD" | b"EN" | b"NF" | b"NS" | b"EX" | b"MN"),
        (_, "version") => word == b"VERSION",
        (_, "incr" | "decr") => word == b"NOT_FOUND" || word.iter().all(u8::is_ascii_digit),
        (_, "touch") => word == b"NOT_FOUND",
        _ => false,
    }
}

fn detect_datagram(prefix: &Prefix<'_>) -> Detected {
    let judge = |side: Side, bytes: &[u8]| {
        let Some(datagram) = Datagram::of(bytes) else { return Speech::No };
        let body = bytes.get(udp::HEADER_BYTES..).unwrap_or_default();
        if side == Side::Client && (datagram.number, datagram.count) != (0, 1) {
            return Speech::No;
        }
        if datagram.number > 0 {
            return Speech::Weak;
        }
        if let Some(header) = Header::of(side, body) {
            let fits = header.is_right(side) && (side == Side::Server || header.length() == body.len() as u64);
            return if fits { Speech::Strong } else { Speech::No };
        }
        match read(side, body) {
            _ if datagram.reserved != 0 => Speech::No,
            Ok(Some(line)) if side == Side::Client && fits_command(&line, body) > Fit::No => Speech::Strong,
            Ok(Some(line)) if side == Side::Server && fits_answer(&line, body) > Fit::No => Speech::Strong,
            _ => Speech::No,
        }
    };
    let client = if prefix.client.is_empty() { Speech::Open } else { judge(Side::Client, prefix.client) };
    let server = if prefix.server.is_empty() { Speech::Open } else { judge(Side::Server, prefix.server) };
    match (client, server) {
        (Speech::No, _) | (_, Speech::No) => Detected::No,
        (Speech::Strong, _) => Detected::Certain,
        (_, Speech::Strong) => Detected::Likely,
        _ => Detected::Maybe,
    }
}
