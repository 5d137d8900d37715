//! What Redis looks like.

use super::MAX_NAME_BYTES;
use super::reply::{looks_like_reply, number};
use crate::pairing::Looks;
use crate::{Detected, Prefix};

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    let client = if prefix.client.is_empty() { Looks::Open } else { looks_like_command(prefix.client, false) };
    let server = looks_like_reply(prefix.server);
    let inline = looks_like_inline(prefix.client);
    match (client, server) {
        (Looks::Yes, _) => Detected::Certain,
        // What every Redis says to a line that is no command.
        (Looks::No, Looks::Yes) if prefix.server.starts_with(b"-ERR unknown command ") => Detected::Certain,
        (Looks::Open, Looks::Yes | Looks::Open) => Detected::Maybe,
        (Looks::No, Looks::Yes) if inline => {
            // Words and a line that begins with a plus sign are little; an answer that Redis gives is more.
            let known = [&b"+PONG\r\n"[..], b"+OK\r\n", b"-ERR ", b"-NOAUTH ", b"$", b":", b"*"];
            if known.iter().any(|k| prefix.server.starts_with(k)) { Detected::Certain } else { Detected::Likely }
        }
        (Looks::No, Looks::Open) if inline => Detected::Maybe,
        (Looks::No, _) if prefix.mid_stream => match contains_command(prefix.client) {
            true => Detected::Likely,
            false if server == Looks::Yes && !prefix.complete => Detected::Maybe,
            false => Detected::No,
        },
        _ => Detected::No,
    }
}

/// Whether bytes look like `*N\r\n$L\r\nNAME`, as far as it is there.
pub(super) fn looks_like_command(bytes: &[u8], cut: bool) -> Looks {
    let open = if cut { Looks::No } else { Looks::Open };
    let Some(rest) = bytes.strip_prefix(b"*") else {
        return if bytes.is_empty() { open } else { Looks::No };
    };
    let rest = match length_line(rest) {
        Ok((1.., rest)) => rest,
        Ok(_) | Err(Looks::No) => return Looks::No,
        Err(_) => return open,
    };
    let Some(rest) = rest.strip_prefix(b"$") else {
        return if rest.is_empty() { open } else { Looks::No };
    };
    let (length, name) = match length_line(rest) {
        Ok((length @ 1..=MAX_NAME_BYTES_U64, rest)) => (length as usize, rest),
        Ok(_) | Err(Looks::No) => return Looks::No,
        Err(_) => return open,
    };
    let seen = name.get(..length).unwrap_or(name);
    if !seen.iter().all(|b| b.is_ascii_alphanumeric() || b"._-|".contains(b)) {
        return Looks::No;
    }
    match name.get(length..length + 2) {
        Some(end) => (end == b"\r\n").into(),
        None if cut && !seen.is_empty() => Looks::Yes,
        None => open,
    }
}

const MAX_NAME_BYTES_U64: u64 = MAX_NAME_BYTES as u64;

/// A number and CRLF, and what follows.
pub(super) fn length_line(bytes: &[u8]) -> Result<(u64, &[u8]), Looks> {
    let digits = bytes.iter().take(20).take_while(|b| b.is_ascii_digit()).count();
    match (bytes.get(digits), bytes.get(digits + 1)) {
        (None, _) if digits < 12 => Err(Looks::Open),
        (Some(b'\r'), None) if digits > 0 => Err(Looks::Open),
        (Some(b'\r'), Some(b'\n')) => {
            let count = bytes.get(..digits).and_then(number).ok_or(Looks::No)?;
            Ok((count, bytes.get(digits + 2..).unwrap_or_default()))
        }
        _ => Err(Looks::No),
    }
}

/// A line of words that begins with a command every server knows.
fn looks_like_inline(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let Some(end) = memchr::memchr(b'\n', bytes.get(..512).unwrap_or(bytes)) else { return false };
    let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
    let word = line.split(|b| *b == b' ').next().unwrap_or_default();
    const COMMON: &[&[u8]] = &[
        b"PING",
        b"INFO",
        b"GET",
        b"SET",
        b"AUTH",
        b"SELECT",
        b"QUIT",
        b"DEL",
        b"EXISTS",
        b"INCR",
        b"KEYS",
        b"CONFIG",
        b"MONITOR",
        b"ECHO",
        b"HELLO",
        b"CLIENT",
        b"COMMAND",
        b"DBSIZE",
        b"MULTI",
        b"EXEC",
        b"HGET",
        b"HSET",
        b"LPUSH",
        b"SUBSCRIBE",
        b"FLUSHALL",
        b"FLUSHDB",
    ];
    line.iter().all(|b| *b >= b' ' || *b == b'\t') && COMMON.iter().any(|c| c.eq_ignore_ascii_case(word))
}

/// A command somewhere in bytes that begin inside one.
fn contains_command(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"\r\n*")
        .any(|at| bytes.get(at + 2..).is_some_and(|rest| looks_like_command(rest, false) == Looks::Yes))
}
