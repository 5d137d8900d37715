//! BSON documents (<https://bsonspec.org/spec.html>), one level at a time, from bytes that may end anywhere.

use crate::cursor::Cursor;

/// The kind of a string.
pub(super) const STRING: u8 = 2;

/// A field of a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub kind: u8,
    pub name: &'a [u8],
    /// The value's bytes, as far as they are here.
    pub value: &'a [u8],
    /// Where the value begins in the document's bytes.
    pub value_at: usize,
    /// The value is all here.
    pub whole: bool,
}

impl<'a> Element<'a> {
    /// A string's text.
    pub fn text(&self) -> Option<&'a [u8]> {
        let text = self.value.get(4..)?;
        (self.kind == STRING).then(|| if self.whole { text.split_last().map_or(text, |(_, text)| text) } else { text })
    }

    /// A document or an array.
    pub fn document(&self) -> Option<Document<'a>> {
        matches!(self.kind, 3 | 4).then(|| Document::new(self.value))
    }

    /// A number, without its fraction.
    pub fn number(&self) -> Option<i64> {
        let mut cursor = Cursor::new(self.value);
        match self.kind {
            0x01 => cursor.le64().map(|bits| f64::from_bits(bits) as i64),
            0x08 => cursor.u8().map(i64::from),
            0x10 => cursor.le32().map(|n| i64::from(n as i32)),
            0x12 => cursor.le64().map(|n| n as i64),
            _ => None,
        }
    }
}

/// The fields of a document in order. Where the bytes end within one, it is the last.
#[derive(Debug, Clone)]
pub(super) struct Document<'a> {
    cursor: Cursor<'a>,
    /// Nothing more is read.
    done: bool,
    /// Its end was read.
    pub complete: bool,
}

impl<'a> Document<'a> {
    /// A document that begins with `bytes`; it may end before they do.
    pub fn new(bytes: &'a [u8]) -> Self {
        let length = Cursor::new(bytes).le32().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut cursor = Cursor::new(bytes.get(..length).unwrap_or(bytes));
        let done = cursor.le32().is_none();
        Self { cursor, done, complete: false }
    }

    /// Bytes of the fields read so far.
    pub fn at(&self) -> usize {
        self.cursor.at()
    }
}

/// Bytes that a value has, by what stands at its start; `None` where too few are here to tell.
fn value_length(kind: u8, rest: &[u8]) -> Option<Option<usize>> {
    let prefix = |more: usize| {
        Cursor::new(rest).le32().map(|n| usize::try_from(n).ok().filter(|n| *n < 1 << 30).map(|n| n + more))
    };
    let fixed = |length| Some(Some(length));
    match kind {
        0x01 | 0x09 | 0x11 | 0x12 => fixed(8),
        0x02 | 0x0d | 0x0e => prefix(4),
        0x03 | 0x04 | 0x0f => prefix(0),
        0x05 => prefix(5),
        0x06 | 0x0a | 0x7f | 0xff => fixed(0),
        0x07 => fixed(12),
        0x08 => fixed(1),
        0x0b => {
            let mut cursor = Cursor::new(rest);
            cursor.c_string()?;
            cursor.c_string()?;
            fixed(cursor.at())
        }
        0x0c => prefix(16),
        0x10 => fixed(4),
        0x13 => fixed(16),
        _ => Some(None),
    }
}

impl<'a> Iterator for Document<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        if self.done {
            return None;
        }
        // Until it is clear that another can follow.
        self.done = true;
        let kind = self.cursor.u8()?;
        if kind == 0 {
            self.complete = true;
            return None;
        }
        let name = self.cursor.c_string()?;
        let value_at = self.cursor.at();
        let length = match value_length(kind, self.cursor.rest()) {
            Some(length) => length?,
            None => usize::MAX,
        };
        let value = self.cursor.take_some(length);
        let whole = value.len() == length;
        self.done = !whole;
        Some(Element { kind, name, value, value_at, whole })
    }
}

/// Whether `bytes` can be the start of a document that has at most `room` bytes: length, first type, first name.
pub(super) fn begins(bytes: &[u8], room: u64) -> bool {
    let mut cursor = Cursor::new(bytes);
    let Some(length) = cursor.le32() else { return true };
    if length < 5 || u64::from(length) > room {
        return false;
    }
    match cursor.u8() {
        None => true,
        Some(0) => length == 5,
        Some(kind) => {
            let name = cursor.rest();
            let end = memchr::memchr(0, name);
            let name = name.get(..end.unwrap_or(name.len()).min(64)).unwrap_or_default();
            matches!(kind, 0x01..=0x13 | 0x7f | 0xff)
                && length > 6
                && name.iter().all(|byte| (b' '..0x7f).contains(byte) || *byte >= 0x80)
                && (end.is_none() || !name.is_empty())
        }
    }
}
