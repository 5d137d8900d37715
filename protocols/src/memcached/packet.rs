//! Messages of the binary protocol: a header of 24 bytes, extras, a key, a value.

use crate::frames::{Frame, Framing, Head};
use crate::pairing::Looks;
use crate::{ByteClass, Output, Side};

pub(super) const HEADER_BYTES: usize = 24;
const REQUEST: u8 = 0x80;
const RESPONSE: u8 = 0x81;

/// Bodies above this are none of anybody.
const MAX_BODY_BYTES: u32 = (1 << 30) + 4096;

pub(super) const QUIT: u8 = 0x07;
pub(super) const STAT: u8 = 0x10;

/// An operation: name, the lengths of extras that its request has, and whether it is quiet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    code: u8,
    pub name: &'static str,
    extras: &'static [u8],
    /// What is usual is not answered.
    pub quiet: bool,
    has_key: bool,
    has_value: bool,
    /// It asks for a value: a miss is 0 rows, a hit 1.
    pub gets: bool,
}

const fn operation(code: u8, name: &'static str, extras: &'static [u8], form: &'static str) -> Operation {
    let form = form.as_bytes();
    let (mut at, mut quiet, mut has_key, mut has_value, mut gets) = (0, false, false, false, false);
    while at < form.len() {
        // Indexing in a constant: checked when compiled.
        #[allow(clippy::indexing_slicing)]
        match form[at] {
            b'q' => quiet = true,
            b'k' => has_key = true,
            b'v' => has_value = true,
            _ => gets = true,
        }
        at += 1;
    }
    Operation { code, name, extras, quiet, has_key, has_value, gets }
}

/// By code. `q` quiet, `k` with a key, `v` with a value, `g` gets one.
#[rustfmt::skip]
static OPERATIONS: &[Operation] = &[
    operation(0x00, "get", &[0], "kg"),
    operation(0x01, "set", &[8], "kv"),
    operation(0x02, "add", &[8], "kv"),
    operation(0x03, "replace", &[8], "kv"),
    operation(0x04, "delete", &[0], "k"),
    operation(0x05, "increment", &[20], "k"),
    operation(0x06, "decrement", &[20], "k"),
    operation(0x07, "quit", &[0], ""),
    operation(0x08, "flush", &[0, 4], ""),
    operation(0x09, "getq", &[0], "kgq"),
    operation(0x0a, "noop", &[0], ""),
    operation(0x0b, "version", &[0], ""),
    operation(0x0c, "getk", &[0], "kg"),
    operation(0x0d, "getkq", &[0], "kgq"),
    operation(0x0e, "append", &[0], "kv"),
    operation(0x0f, "prepend", &[0], "kv"),
    operation(0x10, "stat", &[0], "k"),
    operation(0x11, "setq", &[8], "kvq"),
    operation(0x12, "addq", &[8], "kvq"),
    operation(0x13, "replaceq", &[8], "kvq"),
    operation(0x14, "deleteq", &[0], "kq"),
    operation(0x15, "incrementq", &[20], "kq"),
    operation(0x16, "decrementq", &[20], "kq"),
    operation(0x17, "quitq", &[0], "q"),
    operation(0x18, "flushq", &[0, 4], "q"),
    operation(0x19, "appendq", &[0], "kvq"),
    operation(0x1a, "prependq", &[0], "kvq"),
    operation(0x1b, "verbosity", &[4], ""),
    operation(0x1c, "touch", &[4], "k"),
    operation(0x1d, "gat", &[4], "kg"),
    operation(0x1e, "gatq", &[4], "kgq"),
    operation(0x20, "sasl_list_mechs", &[0], ""),
    operation(0x21, "sasl_auth", &[0], "kv"),
    operation(0x22, "sasl_step", &[0], "kv"),
    operation(0x23, "gatk", &[4], "kg"),
    operation(0x24, "gatkq", &[4], "kgq"),
];

pub(super) fn operation_of(code: u8) -> Option<&'static Operation> {
    let at = OPERATIONS.binary_search_by_key(&code, |operation| operation.code).ok()?;
    OPERATIONS.get(at)
}

fn is_sasl(opcode: u8) -> bool {
    (0x20..=0x22).contains(&opcode)
}

/// The name of a status; `true` if it is an error. A miss is none, and neither is a condition that was not met.
pub(super) fn status(code: u16) -> (&'static str, bool) {
    match code {
        0x00 => ("", false),
        0x01 => ("NOT_FOUND", false),
        0x02 => ("EXISTS", false),
        0x03 => ("value too large", true),
        0x04 => ("invalid arguments", true),
        0x05 => ("NOT_STORED", false),
        0x06 => ("increment or decrement of a value that is no number", true),
        0x07 => ("the bucket belongs to another server", true),
        0x08 | 0x20 => ("authentication error", true),
        // Continue.
        0x09 | 0x21 => ("", false),
        0x81 => ("unknown command", true),
        0x82 => ("out of memory", true),
        0x83 => ("not supported", true),
        0x84 => ("internal error", true),
        0x85 => ("busy", true),
        0x86 => ("temporary failure", true),
        _ => ("", true),
    }
}

/// A message's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub opcode: u8,
    key: u16,
    extras: u8,
    data_type: u8,
    /// Of an answer.
    pub status: u16,
    pub body: u32,
    pub opaque: u32,
}

impl Header {
    pub fn of(side: Side, bytes: &[u8]) -> Option<Header> {
        let [magic, opcode, k0, k1, extras, data_type, s0, s1, b0, b1, b2, b3, o0, o1, o2, o3] =
            *bytes.first_chunk()?;
        let right = magic == if side == Side::Client { REQUEST } else { RESPONSE };
        let header = Header {
            opcode,
            key: u16::from_be_bytes([k0, k1]),
            extras,
            data_type,
            status: u16::from_be_bytes([s0, s1]),
            body: u32::from_be_bytes([b0, b1, b2, b3]),
            opaque: u32::from_be_bytes([o0, o1, o2, o3]),
        };
        let fits = u32::from(header.key) + u32::from(extras) <= header.body && header.body <= MAX_BODY_BYTES;
        (right && fits).then_some(header)
    }

    pub fn length(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body)
    }

    /// Where the key is.
    fn key_at(&self) -> std::ops::Range<usize> {
        let start = HEADER_BYTES + usize::from(self.extras);
        start..start + usize::from(self.key)
    }

    /// The key, as far as it is there.
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.key_at()).filter(|key| !key.is_empty())
    }

    /// Whether a part of its key is missing in `bytes`.
    pub fn lacks_key(&self, bytes: &[u8]) -> bool {
        self.key > 0 && self.key(bytes).is_none()
    }

    /// What stands behind the key.
    pub fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.key_at().end..).unwrap_or_default()
    }

    /// Whether the lengths are those of its operation.
    pub fn is_right(&self, side: Side) -> bool {
        let Some(operation) = operation_of(self.opcode) else { return false };
        if self.data_type != 0 || self.key > 250 {
            return false;
        }
        if side == Side::Server {
            let known = self.status <= 0x09 || matches!(self.status, 0x20 | 0x21 | 0x81..=0x86);
            return known && matches!(self.extras, 0 | 4);
        }
        let value = self.body - u32::from(self.key) - u32::from(self.extras);
        let key = match self.opcode {
            STAT => true,
            _ => (self.key > 0) == operation.has_key,
        };
        operation.extras.contains(&self.extras) && key && (operation.has_value || value == 0)
    }
}

pub(super) struct Packets;

impl Framing for Packets {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        match Header::of(side, bytes) {
            Some(header) if bytes.len() >= HEADER_BYTES => Head::Length(header.length()),
            Some(_) => Head::Short,
            None if bytes.len() < 16 => {
                let magic = if side == Side::Client { REQUEST } else { RESPONSE };
                if bytes.first().is_none_or(|first| *first == magic) { Head::Short } else { Head::Bad }
            }
            None => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        match self.head(side, bytes) {
            Head::Length(_) => Header::of(side, bytes).is_some_and(|header| header.is_right(side)).into(),
            Head::Short if !cut => Looks::Open,
            _ => Looks::No,
        }
    }
}

/// Classifies a message.
pub(super) fn mark(side: Side, frame: &Frame, header: &Header, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let (start, limit) = (frame.range.start, frame.range.end);
    let at = |offset: usize| (start + offset as u64).min(limit);
    let key = header.key_at();
    let mut marker = out.marker(side, start);
    marker.to(at(HEADER_BYTES), ByteClass::Structure);
    marker.to(at(key.start), ByteClass::Value);
    marker.to(at(key.end), ByteClass::Identifier);
    marker.to(limit, if is_sasl(header.opcode) { ByteClass::Secret } else { ByteClass::Value });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_in_order() {
        assert!(OPERATIONS.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
