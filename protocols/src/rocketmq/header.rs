//! The header of a RocketMQ message, in JSON or in RocketMQ's own encoding.

use std::ops::Range;

use crate::ByteClass;
use crate::cursor::{be16, be32};

/// The length, then the kind of the header and its length.
pub(super) const PREFIX_BYTES: usize = 8;
const JSON: u8 = 0;
const BINARY: u8 = 1;
/// Code, language, version, number, flags, and the lengths of the remark and of the extra fields.
const FIXED_BYTES: usize = 21;
/// Languages that clients have names for (`LanguageCode`), and room for more.
const MAX_LANGUAGE: u8 = 31;
/// Values inside each other that are followed.
const MAX_DEPTH: u32 = 32;

/// Lengths that a message begins with: of what follows the first, and of the header.
pub(super) fn lengths(bytes: &[u8]) -> Option<(i32, i32)> {
    let (total, header) = (be32(bytes, 0)?, be32(bytes, 4)?);
    Some((total, header & 0x00ff_ffff))
}

/// Whether a message can begin with these lengths and this kind of header.
pub(super) fn is_prefix(bytes: &[u8]) -> Option<bool> {
    let (total, header) = lengths(bytes)?;
    let least = match bytes.get(4)? {
        0 => r#"{"code":0}"#.len(),
        1 => FIXED_BYTES,
        _ => return Some(false),
    };
    Some(i32::try_from(least).is_ok_and(|least| header >= least) && total >= header.saturating_add(4))
}

/// What a header says.
#[derive(Debug, Default)]
pub(super) struct Header<'a> {
    pub code: Option<i32>,
    /// The number that an answer repeats.
    pub opaque: Option<i32>,
    pub flag: Option<i32>,
    pub remark: Option<&'a [u8]>,
    pub topic: Option<&'a [u8]>,
    pub group: Option<&'a [u8]>,
    /// Keys and values in their order, by offsets in the message; what is between is structure.
    pub marks: Vec<(Range<usize>, ByteClass)>,
    /// All of it was here and could be read.
    pub whole: bool,
}

impl<'a> Header<'a> {
    /// Reads what is here of a message's header.
    pub fn read(message: &'a [u8], marked: bool) -> Option<Self> {
        let (_, length) = lengths(message)?;
        let end = PREFIX_BYTES + usize::try_from(length).ok()?;
        let here = message.get(..end).unwrap_or(message);
        let mut header = Self::default();
        let read = match *message.get(4)? {
            JSON => header.json(here, marked),
            BINARY => header.binary(here, marked).is_some(),
            _ => return None,
        };
        header.whole = read && here.len() == end && header.code.is_some() && header.opaque.is_some();
        Some(header)
    }

    /// Whether it is an answer.
    pub fn is_answer(&self) -> bool {
        self.flag.unwrap_or(0) & 1 != 0
    }

    /// Whether nobody answers it.
    pub fn is_oneway(&self) -> bool {
        self.flag.unwrap_or(0) & 2 != 0
    }

    fn extra(&mut self, key: &[u8], value: &'a [u8]) {
        match key {
            // `SEND_MESSAGE_V2` and its kin have names of one letter.
            b"topic" | b"b" => self.topic = Some(value),
            b"consumerGroup" | b"producerGroup" | b"group" | b"a" => self.group = Some(value),
            _ => {}
        }
    }

    /// Code, language, version, number, flags, remark, extra fields: each string behind its length.
    fn binary(&mut self, bytes: &'a [u8], marked: bool) -> Option<()> {
        let at = PREFIX_BYTES;
        self.code = Some(i32::from(be16(bytes, at)?));
        if *bytes.get(at + 2)? > MAX_LANGUAGE {
            return None;
        }
        self.opaque = Some(be32(bytes, at + 5)?);
        self.flag = Some(be32(bytes, at + 9)?);
        let take = |at: usize, length: i32| {
            let end = at.checked_add(usize::try_from(length).ok()?)?;
            Some((bytes.get(at..end)?, end))
        };
        let (remark, mut at) = take(at + 17, be32(bytes, at + 13)?)?;
        if !remark.is_empty() {
            self.remark = Some(remark);
            self.mark(marked, at - remark.len()..at, ByteClass::Value);
        }
        let end = at.checked_add(4)?.checked_add(usize::try_from(be32(bytes, at)?).ok()?)?;
        at += 4;
        while at < end {
            let (key, value_at) = take(at + 2, i32::from(be16(bytes, at)?))?;
            let (value, next) = take(value_at + 4, be32(bytes, value_at)?)?;
            self.mark(marked, at + 2..value_at, ByteClass::Identifier);
            self.mark(marked, value_at + 4..next, class(key));
            self.extra(key, value);
            at = next;
        }
        (at == end).then_some(())
    }

    fn mark(&mut self, marked: bool, range: Range<usize>, class: ByteClass) {
        if marked {
            self.marks.push((range, class));
        }
    }

    /// An object of numbers and strings, `extFields` being an object itself. False where it isn't one, or ends early.
    fn json(&mut self, bytes: &'a [u8], marked: bool) -> bool {
        let mut at = PREFIX_BYTES;
        let mut depth = 0u32;
        // Which of the open values are objects, innermost in the lowest bit.
        let mut objects = 0u32;
        let mut key_next = false;
        let mut key: &[u8] = &[];
        let mut extra = false;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b':' => at += 1,
                b',' => {
                    key_next = objects & 1 == 1;
                    at += 1;
                }
                b'{' | b'[' => {
                    if depth == 0 && *byte == b'[' || depth >= MAX_DEPTH {
                        return false;
                    }
                    depth += 1;
                    objects = objects << 1 | u32::from(*byte == b'{');
                    key_next = *byte == b'{';
                    if depth == 2 {
                        extra = key == b"extFields";
                    }
                    at += 1;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    objects >>= 1;
                    at += 1;
                    if depth == 0 {
                        return at == bytes.len();
                    }
                }
                _ if depth == 0 => return false,
                b'"' => {
                    let start = at + 1;
                    let Some(length) = string_length(bytes.get(start..).unwrap_or_default()) else {
                        // What is here of a string may be a credential.
                        self.mark(marked, start..bytes.len(), ByteClass::Secret);
                        return false;
                    };
                    let text = bytes.get(start..start + length).unwrap_or_default();
                    if std::mem::take(&mut key_next) {
                        key = text;
                        self.mark(marked, start..start + length, ByteClass::Identifier);
                    } else {
                        let class = if depth == 1 && key == b"remark" { ByteClass::Value } else { class(key) };
                        self.mark(marked, start..start + length, class);
                        self.member(depth, extra, key, text);
                    }
                    at = start + length + 1;
                }
                _ => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let length = rest.iter().take_while(|b| !matches!(b, b',' | b'}' | b']' | b' ')).count();
                    if length == rest.len() {
                        return false;
                    }
                    self.member(depth, extra, key, rest.get(..length).unwrap_or_default());
                    at += length;
                }
            }
        }
        false
    }

    fn member(&mut self, depth: u32, extra: bool, key: &[u8], value: &'a [u8]) {
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match (depth, key) {
            (1, b"code") => self.code = number(),
            (1, b"opaque") => self.opaque = number(),
            (1, b"flag") => self.flag = number(),
            (1, b"remark") if value != b"null" => self.remark = Some(value),
            (2, _) if extra => self.extra(key, value),
            _ => {}
        }
    }
}

/// Bytes up to the quote that ends a string.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let next = memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        at += next;
        if bytes.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// What the value of an extra field carries.
fn class(key: &[u8]) -> ByteClass {
    match key {
        b"Signature" | b"AccessKey" | b"SecurityToken" => ByteClass::Secret,
        // Properties of a message: whatever the application wants.
        b"properties" | b"i" => ByteClass::Value,
        _ => ByteClass::Identifier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, header: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(header);
        bytes
    }

    #[test]
    fn json_in_any_order_and_shape() {
        let text = br#"{ "opaque":7, "extFields":{"x":"a\"}","topic":"orders","list":[{"topic":"no"}]},
            "remark":null,"code":11,"flag":2,"more":{"topic":"other"}}"#;
        let bytes = message(0, text);
        let header = Header::read(&bytes, true).unwrap();
        assert!(header.whole && header.is_oneway() && !header.is_answer());
        assert_eq!((header.code, header.opaque, header.remark), (Some(11), Some(7), None));
        assert_eq!(header.topic, Some(&b"orders"[..]));
        for end in 8..bytes.len() {
            assert!(!Header::read(&bytes[..end], true).unwrap().whole, "{end}");
        }
    }

    #[test]
    fn nonsense_is_not_whole() {
        for text in
            ["[1]", "{\"code\":1", "{}", "\"code\"", "{\"code\":1,\"opaque\":x}", &"[".repeat(100), &"{".repeat(100)]
        {
            assert!(!Header::read(&message(0, text.as_bytes()), true).unwrap().whole, "{text}");
        }
        for header in [&[0xff; 30][..], &[0; 20], &[0x7f; 40]] {
            assert!(!Header::read(&message(1, header), true).unwrap().whole);
        }
    }
}
