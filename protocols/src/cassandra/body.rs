//! Bodies of requests and answers
//! (<https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v5.spec>, sections 3, 4 and 9; versions 3 and 4
//! in the documents beside it).

use super::frame::*;
use crate::cursor::Cursor;
use crate::{text, unpack};

/// How bodies are packed, as agreed in STARTUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// Four bytes of length, then an LZ4 block.
    Lz4,
    Snappy,
}

impl Compression {
    /// Unpacks at most `limit` bytes; where nobody saw what was agreed on, the bytes tell: LZ4's length is below 16 MiB,
    /// and Snappy's does not begin with zero.
    pub fn unpack(agreed: Option<Self>, body: &[u8], limit: usize) -> Vec<u8> {
        match (agreed, body) {
            (Some(Self::Snappy), _) => unpack::snappy(body, limit),
            (None, [first, ..]) if *first != 0 => unpack::snappy(body, limit),
            (_, [_, _, _, _, block @ ..]) => unpack::lz4(block, limit),
            _ => Vec::new(),
        }
    }
}

fn short_bytes<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let length = cursor.be16()?;
    cursor.take(usize::from(length))
}

/// `[bytes]` or `[value]`: a negative length is no value.
fn skip_value(cursor: &mut Cursor<'_>) -> Option<()> {
    let length = cursor.be32()?;
    match length {
        0x8000_0000.. => Some(()),
        length => cursor.take(usize::try_from(length).ok()?).map(|_| ()),
    }
}

/// What stands before a body: ids of traces, warnings, a payload of the server's extensions. Its warnings are counted.
pub(super) fn skip_extras(cursor: &mut Cursor<'_>, flags: u8, answer: bool) -> Option<u16> {
    let mut warnings = 0;
    if answer && flags & TRACING != 0 {
        cursor.take(16)?;
    }
    if answer && flags & WARNING != 0 {
        warnings = cursor.be16()?;
        for _ in 0..warnings {
            short_bytes(cursor)?;
        }
    }
    if flags & PAYLOAD != 0 {
        for _ in 0..cursor.be16()? {
            short_bytes(cursor)?;
            skip_value(cursor)?;
        }
    }
    Some(warnings)
}

/// A statement inside a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Its text, and where that begins in the body; `whole` unless it is cut.
    Text { text: &'a [u8], at: usize, whole: bool },
    /// What a PREPARE named it.
    Id(&'a [u8]),
}

fn statement<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    let length = usize::try_from(cursor.be32()?).ok()?;
    let at = cursor.at();
    let text = cursor.take_some(length);
    Some(Said::Text { text, at, whole: text.len() == length })
}

/// Statements of a batch that are looked at.
const MAX_BATCH: u16 = 1024;

/// The statements of a request, in order; `false` where not all are here.
pub(super) fn statements<'a>(opcode: u8, cursor: &mut Cursor<'a>) -> (Vec<Said<'a>>, bool) {
    let mut found = Vec::new();
    let complete =
        collect(opcode, cursor, &mut found).is_some() && !matches!(found.last(), Some(Said::Text { whole: false, .. }));
    (found, complete)
}

fn collect<'a>(opcode: u8, cursor: &mut Cursor<'a>, found: &mut Vec<Said<'a>>) -> Option<()> {
    match opcode {
        QUERY | PREPARE => found.push(statement(cursor)?),
        EXECUTE => found.push(Said::Id(short_bytes(cursor)?)),
        BATCH => {
            let _kind = cursor.u8()?;
            for _ in 0..cursor.be16()?.min(MAX_BATCH) {
                let said = match cursor.u8()? {
                    0 => statement(cursor)?,
                    _ => Said::Id(short_bytes(cursor)?),
                };
                found.push(said);
                for _ in 0..cursor.be16()? {
                    skip_value(cursor)?;
                }
            }
        }
        _ => {}
    }
    Some(())
}

/// What STARTUP agrees on.
pub(super) fn compression(cursor: &mut Cursor<'_>) -> Option<Compression> {
    for _ in 0..cursor.be16()? {
        let (name, value) = (short_bytes(cursor)?, short_bytes(cursor)?);
        if name.eq_ignore_ascii_case(b"COMPRESSION") {
            return match value.to_ascii_lowercase().as_slice() {
                b"lz4" => Some(Compression::Lz4),
                b"snappy" => Some(Compression::Snappy),
                _ => None,
            };
        }
    }
    None
}

/// An error's code with its name, and its message.
pub(super) fn error(cursor: &mut Cursor<'_>) -> (Option<Box<str>>, Option<Box<str>>) {
    let Some(code) = cursor.be32() else { return (None, None) };
    let named = match error_name(code) {
        Some(name) => format!("0x{code:04x} {name}"),
        None => format!("0x{code:04x}"),
    };
    let message = cursor.be16().map(|length| {
        let message = cursor.take_some(usize::from(length));
        text::bounded(message, text::MAX_TEXT_BYTES, message.len() < usize::from(length))
    });
    (Some(named.into()), message)
}

/// What a RESULT says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Result<'a> {
    Rows(Option<u64>),
    Prepared(&'a [u8]),
    Other,
}

/// Reads a RESULT; `None` where its kind is not here.
pub(super) fn result<'a>(version: u8, cursor: &mut Cursor<'a>) -> Option<Result<'a>> {
    Some(match cursor.be32()? {
        2 => Result::Rows(rows(version, cursor)),
        4 => Result::Prepared(short_bytes(cursor)?),
        _ => Result::Other,
    })
}

/// The number of rows, which stands behind the description of the columns.
fn rows(version: u8, cursor: &mut Cursor<'_>) -> Option<u64> {
    const GLOBAL_TABLE: u32 = 1;
    const MORE_PAGES: u32 = 2;
    const NO_METADATA: u32 = 4;
    const METADATA_CHANGED: u32 = 8;
    let flags = cursor.be32()?;
    let columns = cursor.be32()?;
    if flags & MORE_PAGES != 0 {
        skip_value(cursor)?;
    }
    if version >= 5 && flags & METADATA_CHANGED != 0 {
        short_bytes(cursor)?;
    }
    if flags & NO_METADATA == 0 {
        let global = flags & GLOBAL_TABLE != 0;
        if global {
            short_bytes(cursor)?;
            short_bytes(cursor)?;
        }
        for _ in 0..columns {
            if !global {
                short_bytes(cursor)?;
                short_bytes(cursor)?;
            }
            short_bytes(cursor)?;
            skip_type(cursor)?;
        }
    }
    cursor.be32().map(u64::from)
}

/// Types that may stand inside one another.
const MAX_TYPE_DEPTH: usize = 32;

/// A type option (section 4.2.5.2), read without recursion.
fn skip_type(cursor: &mut Cursor<'_>) -> Option<()> {
    // Types still to come at each level, and whether a field's name stands before each.
    let mut levels = [(0u32, false); MAX_TYPE_DEPTH];
    let mut depth = 0;
    *levels.first_mut()? = (1, false);
    loop {
        let (left, named) = levels.get_mut(depth)?;
        if *left == 0 {
            if depth == 0 {
                return Some(());
            }
            depth -= 1;
            continue;
        }
        *left -= 1;
        if *named {
            short_bytes(cursor)?;
        }
        let inner = match cursor.be16()? {
            0x00 => {
                short_bytes(cursor)?;
                continue;
            }
            0x20 | 0x22 => (1, false),
            0x21 => (2, false),
            0x30 => {
                short_bytes(cursor)?;
                short_bytes(cursor)?;
                (u32::from(cursor.be16()?), true)
            }
            0x31 => (u32::from(cursor.be16()?), false),
            _ => continue,
        };
        depth += 1;
        *levels.get_mut(depth)? = inner;
    }
}
