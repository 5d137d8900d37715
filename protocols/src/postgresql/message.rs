//! Messages and the values in them (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use crate::pairing::{Looks, hole_flag};
use crate::{Flags, Stream};

/// Bytes of a message's head: type (1), length (4), which counts itself but not the type.
pub(super) const HEAD_BYTES: usize = 5;

/// No message is longer (`PQ_LARGE_MESSAGE_LIMIT` in `libpq.h`: 1 GiB - 1).
const MAX_LENGTH: u32 = 0x3fff_ffff;

/// A message at the cursor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    /// The first byte.
    pub kind: u8,
    /// Bytes of its content: without head.
    pub length: u64,
    /// The content's first bytes: as many as were wanted, or fewer where `missing` says why.
    pub content: &'a [u8],
    /// What the missing part of what was wanted fell into.
    pub missing: Option<Flags>,
}

impl Message<'_> {
    /// Bytes of the whole message.
    pub fn size(&self) -> u64 {
        HEAD_BYTES as u64 + self.length
    }
}

/// What stands at the cursor.
pub(super) enum Peek<'a> {
    Message(Message<'a>),
    /// More bytes are needed.
    Wait,
    /// The head is in a hole (the flag says which), or no message begins like this (no flag).
    Lost(Flags),
}

/// Looks at the message at the cursor. `fits`: whether a message of this type can have so many bytes of content;
/// `wanted`: how many of them are needed.
#[inline]
pub(super) fn peek(stream: &Stream, fits: fn(u8, u32) -> bool, wanted: impl FnOnce(u8) -> usize) -> Peek<'_> {
    let bytes = stream.bytes();
    let (&[kind, a, b, c, d, ..], Some(content)) = (bytes, bytes.get(HEAD_BYTES..)) else {
        return match (stream.hole(), bytes.first()) {
            // What can't be a type is no message, however little was seen of it.
            (_, Some(kind)) if !fits_somehow(fits, *kind) => Peek::Lost(Flags::default()),
            (Some(hole), _) => Peek::Lost(hole_flag(hole.kind)),
            (None, _) => Peek::Wait,
        };
    };
    let Some(length) = content_length([a, b, c, d]).filter(|length| fits(kind, *length)) else {
        return Peek::Lost(Flags::default());
    };
    let needed = (length as usize).min(wanted(kind));
    let missing = if content.len() >= needed {
        None
    } else if let Some(hole) = stream.hole() {
        Some(hole_flag(hole.kind))
    } else {
        return Peek::Wait;
    };
    let content = content.get(..length as usize).unwrap_or(content);
    Peek::Message(Message { kind, length: u64::from(length), content, missing })
}

/// Whether a message of this type exists: each that does has one of these lengths.
fn fits_somehow(fits: fn(u8, u32) -> bool, kind: u8) -> bool {
    [0, 1, 4, 6, 8, 64].into_iter().any(|length| fits(kind, length))
}

/// Bytes of content by a message's length field.
fn content_length(field: [u8; 4]) -> Option<u32> {
    let length = u32::from_be_bytes(field);
    (4..=MAX_LENGTH).contains(&length).then(|| length - 4)
}

/// Whether a message of the client can have so many bytes of content.
pub(super) fn client_fits(kind: u8, length: u32) -> bool {
    match kind {
        // Sync, Flush, Terminate, CopyDone have none.
        b'S' | b'H' | b'X' | b'c' => length == 0,
        b'Q' | b'f' => length >= 1,
        // Two names and a count; two names and three counts; a name and a number of rows.
        b'P' => length >= 4,
        b'B' => length >= 8,
        b'E' => (5..1 << 16).contains(&length),
        b'D' | b'C' => (2..1 << 16).contains(&length),
        b'F' => length >= 10,
        b'd' => true,
        b'p' => length < 1 << 16,
        _ => false,
    }
}

/// Whether a message of the server can have so many bytes of content.
pub(super) fn server_fits(kind: u8, length: u32) -> bool {
    match kind {
        b'1' | b'2' | b'3' | b'n' | b's' | b'c' | b'I' => length == 0,
        b'Z' => length == 1,
        // The tag of a command; a rename of columns can't make it long.
        b'C' => (2..=1 << 10).contains(&length),
        b'D' | b't' | b'T' => length >= 2,
        b'E' | b'N' => (1..1 << 20).contains(&length),
        b'S' => (2..1 << 16).contains(&length),
        b'A' => (6..1 << 16).contains(&length),
        b'K' => (8..=264).contains(&length),
        b'R' => (4..1 << 16).contains(&length),
        b'v' => (8..1 << 16).contains(&length),
        b'V' => length >= 4,
        b'G' | b'H' | b'W' => (3..1 << 17).contains(&length),
        b'd' => true,
        _ => false,
    }
}

/// What the start of `bytes` is, where a message may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Messages, one behind the other: how many were there, the last perhaps in part, and whether one of them has a
    /// content that no chance makes.
    Messages { count: usize, sure: bool },
    /// Something else.
    Broken,
    /// Too few bytes.
    Short,
}

/// Follows messages from the start of `bytes` on.
fn chain(bytes: &[u8], fits: fn(u8, u32) -> bool, content_fits: fn(u8, &[u8], u32) -> Option<bool>) -> Chain {
    let (mut rest, mut count, mut sure) = (bytes, 0, false);
    while count < 64 {
        let &[kind, a, b, c, d, ..] = rest else {
            let broken = rest.first().is_some_and(|kind| !fits_somehow(fits, *kind));
            return match count {
                _ if broken => Chain::Broken,
                0 => Chain::Short,
                _ => Chain::Messages { count, sure },
            };
        };
        let Some(length) = content_length([a, b, c, d]).filter(|length| fits(kind, *length)) else {
            return Chain::Broken;
        };
        let content = rest.get(HEAD_BYTES..).unwrap_or_default();
        let whole = content.get(..length as usize);
        match content_fits(kind, whole.unwrap_or(content), length) {
            Some(true) => sure = true,
            Some(false) => return Chain::Broken,
            None => {}
        }
        count += 1;
        match content.get(length as usize..) {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    Chain::Messages { count, sure }
}

/// Whether the content of a client's message, of which `seen` was seen, is what its type says: `None` where it may be.
fn client_content(kind: u8, seen: &[u8], length: u32) -> Option<bool> {
    let whole = seen.len() == length as usize;
    match kind {
        b'Q' => {
            let Some(text) = (if whole { seen.strip_suffix(&[0]) } else { Some(seen) }) else { return Some(false) };
            Some(is_text(text)).filter(|text| !text || whole || seen.len() > 8)
        }
        b'P' => {
            let mut rest = seen;
            let Some(_) = name(&mut rest).filter(|name| is_text(name)) else {
                return if whole || !is_text(seen) { Some(false) } else { None };
            };
            match terminated(&mut rest) {
                Some(text) if !is_text(text) => Some(false),
                Some(_) if !whole => Some(true),
                // Types behind the text.
                Some(_) => Some(u16_be(&mut rest).is_some_and(|count| rest.len() == usize::from(count) * 4)),
                None if whole => Some(false),
                None => Some(is_text(rest)).filter(|text| !text || rest.len() > 8),
            }
        }
        b'B' => {
            let mut rest = seen;
            let names = name(&mut rest).is_some_and(is_text) && name(&mut rest).is_some_and(is_text);
            match (names, whole) {
                (true, true) => Some(bind_fits(rest)),
                (false, true) => Some(false),
                _ => None,
            }
        }
        b'E' => match (whole, seen.len().checked_sub(5).and_then(|end| seen.split_at_checked(end))) {
            (true, Some((name, [0, ..]))) => Some(is_text(name)),
            (true, _) => Some(false),
            _ => None,
        },
        b'D' | b'C' => match seen {
            [b'S' | b'P', name @ .., 0] if whole => Some(is_text(name)).filter(|text| !text),
            [b'S' | b'P', ..] if !whole => None,
            [] => None,
            _ => Some(false),
        },
        _ => None,
    }
}

/// Whether what follows the names of a Bind has the form of one to its end.
fn bind_fits(mut rest: &[u8]) -> bool {
    let mut fits = || {
        let formats = u16_be(&mut rest)?;
        take(&mut rest, usize::from(formats) * 2)?;
        let parameters = u16_be(&mut rest)?;
        for _ in 0..parameters {
            let length = u32_be(&mut rest)?;
            if length != u32::MAX {
                take(&mut rest, usize::try_from(length).ok()?)?;
            }
        }
        let formats = u16_be(&mut rest)?;
        Some(rest.len() == usize::from(formats) * 2)
    };
    fits().unwrap_or(false)
}

/// Whether the content of a server's message is what its type says: `None` where it may be.
fn server_content(kind: u8, seen: &[u8], length: u32) -> Option<bool> {
    let whole = seen.len() == length as usize;
    match kind {
        b'Z' => seen.first().map(|state| matches!(state, b'I' | b'T' | b'E')),
        b'C' => match seen {
            [tag @ .., 0] if whole => Some(tag.first().is_some_and(u8::is_ascii_uppercase) && is_text(tag)),
            _ if whole => Some(false),
            _ => Some(is_text(seen)).filter(|text| !text),
        },
        b'E' | b'N' => match seen {
            // Severity and code come first; protocol 2 had text here.
            [b'S', text @ ..] if text.len() >= 4 => Some(is_text(text.get(..4).unwrap_or(text))),
            [b'S', ..] | [] => None,
            _ => Some(false),
        },
        b'D' => match seen {
            // No columns and yet more bytes; no columns, none.
            [0, 0, ..] => Some(length == 2).filter(|fits| !fits),
            [a, b, c, d, e, f, ..] => {
                let columns = u32::from(u16::from_be_bytes([*a, *b]));
                let first = u32::from_be_bytes([*c, *d, *e, *f]);
                let fits = columns.saturating_mul(4) <= length && (first == u32::MAX || first < length);
                Some(fits).filter(|fits| !fits)
            }
            _ if whole => Some(false),
            _ => None,
        },
        b'T' => match seen {
            [a, b, ..] => {
                let columns = u32::from(u16::from_be_bytes([*a, *b]));
                // A name's end and 18 bytes each.
                let fits = columns.saturating_mul(19).saturating_add(2) <= length;
                if columns == 0 { Some(length == 2) } else { Some(fits).filter(|fits| !fits) }
            }
            _ => None,
        },
        b'S' => match seen {
            [name @ .., 0] if whole => {
                Some(name.first().is_some_and(u8::is_ascii_alphabetic) && memchr::memchr(0, name).is_some())
            }
            _ if whole => Some(false),
            _ => None,
        },
        b'R' => match seen {
            [0, 0, 0, method, ..] => Some(*method <= 12),
            _ => (seen.len() >= 4).then_some(false),
        },
        _ => None,
    }
}

/// What the client's bytes are.
pub(super) fn client_chain(bytes: &[u8]) -> Chain {
    chain(bytes, client_fits, client_content)
}

/// What the server's bytes are.
pub(super) fn server_chain(bytes: &[u8]) -> Chain {
    chain(bytes, server_fits, server_content)
}

/// Whether a message begins here that can be told from chance.
pub(super) fn looks(chain: Chain, cut: bool) -> Looks {
    match chain {
        Chain::Messages { count, sure } => (sure || count > 1).into(),
        Chain::Broken => Looks::No,
        Chain::Short if cut => Looks::No,
        Chain::Short => Looks::Open,
    }
}

/// Whether a message of the client begins here, on a connection that is known to be one. Its length's first byte is 0
/// below 16 MiB, and never in text: so a chunk that begins within a statement isn't taken for a message.
pub(super) fn client_looks(bytes: &[u8], cut: bool) -> Looks {
    match (client_chain(bytes), bytes) {
        (Chain::Messages { .. }, [_, 0, ..]) => Looks::Yes,
        (chain, _) => looks(chain, cut),
    }
}

/// No control characters but blanks.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().take(256).all(|byte| *byte >= b' ' || byte.is_ascii_whitespace())
}

/// Takes `count` bytes off the front of `bytes`.
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Takes a string that ends with a NUL off the front of `bytes`, without it.
pub(super) fn terminated<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(0, bytes)?;
    let text = bytes.get(..end)?;
    *bytes = bytes.get(end + 1..)?;
    Some(text)
}

/// Takes the name of a statement or portal; mostly it is empty.
#[inline]
pub(super) fn name<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    if let Some((0, rest)) = bytes.split_first() {
        *bytes = rest;
        return Some(&[]);
    }
    terminated(bytes)
}

/// Takes a big-endian 16-bit integer.
pub(super) fn u16_be(bytes: &mut &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(take(bytes, 2)?.try_into().ok()?))
}

/// Takes a big-endian 32-bit integer.
pub(super) fn u32_be(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_messages_are_told_from_other_bytes() {
        let sure = Chain::Messages { count: 1, sure: true };
        assert_eq!(client_chain(b"Q\0\0\0\x0dselect 1\0"), sure);
        assert_eq!(client_chain(b"Q\0\0\0\x0dselect 1x"), Chain::Broken);
        assert_eq!(client_chain(b"S\0\0\0\x04"), Chain::Messages { count: 1, sure: false });
        assert_eq!(client_chain(b"S\0\0\0\x05x"), Chain::Broken);
        assert_eq!(client_chain(b"GET / HTTP/1.1\r\n"), Chain::Broken);
        assert_eq!(client_chain(b"P\0\0\0\x10\0select 1\0\0\0"), sure);
        assert_eq!(client_chain(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0"), sure);
        assert_eq!(client_chain(b"Q\0"), Chain::Short);
        assert_eq!(server_chain(b"Z\0\0\0\x05I"), sure);
        assert_eq!(server_chain(b"Z\0\0\0\x05x"), Chain::Broken);
        assert_eq!(server_chain(b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"), Chain::Messages { count: 2, sure: true });
        assert_eq!(server_chain(b"HTTP/1.1 200 OK\r\n"), Chain::Broken);
    }
}
