//! Replies (RESP2 and RESP3, <https://redis.io/docs/latest/develop/reference/protocol-spec/>), read without recursion.

use crate::pairing::{Looks, hole_flag};
use crate::{ByteClass, Flags, Output, Side, Stream, text};

/// A simple string, error or length line longer than this is none.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Streamed aggregates (`*?`) that may stand inside one another. Others need no stack: one count of what is left does.
const MAX_STREAMED_DEPTH: usize = 32;

/// Elements that a reply may have; more is no reply.
const MAX_ELEMENTS: u64 = 1 << 34;

/// The kind of a whole reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `-` or `!`.
    Error,
    /// `>`.
    Push,
    /// `*`.
    Array,
    /// `+`.
    Simple,
    /// Any other kind that there is.
    Other,
}

impl Shape {
    /// The kind of the reply that begins with this byte; `None` for attributes (`|`), which come before it, and for what
    /// begins no reply.
    pub fn of(kind: u8) -> Option<Self> {
        match kind {
            b'-' | b'!' => Some(Shape::Error),
            b'>' => Some(Shape::Push),
            b'*' => Some(Shape::Array),
            b'+' => Some(Shape::Simple),
            b':' | b'$' | b'_' | b'#' | b',' | b'(' | b'=' | b'%' | b'~' => Some(Shape::Other),
            _ => None,
        }
    }
}

/// A reply that is being read.
#[derive(Debug)]
pub(super) struct Reply {
    /// Where it begins.
    pub start: u64,
    /// Its kind, once its first byte was seen.
    pub shape: Option<Shape>,
    /// The first bytes of an error, a simple string, or of the first element of an array or push.
    pub text: Vec<u8>,
    /// The last integer in it.
    pub integer: Option<u64>,
    text_wanted: bool,
    /// Elements left at this level.
    left: u64,
    /// `left` of the levels around streamed aggregates.
    outer: Vec<u64>,
    /// Inside a streamed string.
    parts: bool,
    scanned: usize,
}

/// What reading on brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The reply is complete (its last bytes may still have to arrive).
    Done,
    /// More bytes are needed.
    Wait,
    /// The framing is in a hole or broken.
    Lost(Flags),
}

/// Bytes of text kept of an error or first element.
pub(super) const MAX_KEPT_BYTES: usize = 512;

impl Reply {
    pub fn new(start: u64) -> Self {
        Self {
            start,
            shape: None,
            text: Vec::new(),
            integer: None,
            text_wanted: false,
            left: 1,
            outer: Vec::new(),
            parts: false,
            scanned: 0,
        }
    }

    /// Nothing of it was read.
    pub fn is_new(&self) -> bool {
        self.shape.is_none() && self.left == 1
    }

    /// Reads on as far as bytes are here.
    pub fn read(&mut self, stream: &mut Stream, out: &mut Output) -> Step {
        loop {
            let bytes = stream.bytes();
            let Some(found) = bytes.get(self.scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) else {
                if let Some(hole) = stream.hole() {
                    return Step::Lost(hole_flag(hole.kind));
                }
                if self.scanned == 0 && !matches!(looks_like_reply(bytes), Looks::Yes | Looks::Open) {
                    return Step::Lost(Flags::default());
                }
                self.scanned = bytes.len();
                return if bytes.len() > MAX_LINE_BYTES { Step::Lost(Flags::default()) } else { Step::Wait };
            };
            let length = self.scanned + found + 1;
            let line = bytes.get(..length - 1).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some((&kind, rest)) = line.split_first() else { return Step::Lost(Flags::default()) };
            let at = stream.position();
            // A wanted text may follow its length line: both must be here.
            let mut skip = 0;
            if matches!(kind, b'$' | b'!' | b'=' | b';')
                && let Some(size) = number(rest)
            {
                let wanted = self.text_wanted && kind != b';' || kind == b'!' && self.shape.is_none();
                if wanted {
                    let data = bytes.get(length..).unwrap_or_default();
                    let keep = MAX_KEPT_BYTES.min(usize::try_from(size).unwrap_or(MAX_KEPT_BYTES));
                    if data.len() < keep && stream.hole().is_none() {
                        return Step::Wait;
                    }
                    // Attributes may hold any number of errors: the last one counts, and is all that is kept.
                    self.text.clear();
                    self.text.extend_from_slice(data.get(..keep).unwrap_or(data));
                }
                skip = size.saturating_add(2);
                if kind == b';' && size == 0 {
                    skip = 0;
                }
            }
            let begun = self.shape;
            if let Err(flag) = self.element(kind, rest) {
                // What is no reply has no kind either.
                self.shape = begun;
                return Step::Lost(flag);
            }
            if matches!(kind, b'+' | b'-' | b':' | b',' | b'(') {
                out.mark(Side::Server, at..at + 1, ByteClass::Structure);
                out.mark(Side::Server, at + 1..at + length as u64, ByteClass::Value);
            } else {
                out.mark(Side::Server, at..at + length as u64, ByteClass::Structure);
            }
            self.scanned = 0;
            stream.advance(length);
            if skip > 0 {
                let at = stream.position();
                let end = at.saturating_add(skip);
                out.mark(Side::Server, at..end - 2, ByteClass::Value);
                out.mark(Side::Server, end - 2..end, ByteClass::Structure);
                stream.skip(skip);
            }
            if self.left == 0 && self.outer.is_empty() {
                return Step::Done;
            }
        }
    }

    /// Counts one line.
    fn element(&mut self, kind: u8, rest: &[u8]) -> Result<(), Flags> {
        let broken = Err(Flags::default());
        if self.parts {
            // The parts of a streamed string: ";4\r\nabcd\r\n", then ";0\r\n".
            return match (kind, number(rest)) {
                (b';', Some(0)) => {
                    self.parts = false;
                    self.left = self.left.saturating_sub(1);
                    Ok(())
                }
                (b';', Some(_)) => Ok(()),
                _ => broken,
            };
        }
        if kind == b'.' {
            let Some(left) = self.outer.pop() else { return broken };
            self.left = left;
            return Ok(());
        }
        let first = std::mem::take(&mut self.text_wanted);
        if first && kind == b'+' {
            self.keep(rest);
        }
        let top = self.shape.is_none() && self.left == 1 && self.outer.is_empty() && kind != b'|';
        if top {
            self.shape = Shape::of(kind);
            if matches!(kind, b'-' | b'+') {
                self.keep(rest);
            }
        }
        let streamed = rest == b"?";
        if kind == b':' {
            self.integer = number(rest);
        }
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => self.left = self.left.saturating_sub(1),
            b'$' | b'!' | b'=' => match number(rest) {
                Some(_) => self.left = self.left.saturating_sub(1),
                None if rest == b"-1" => self.left = self.left.saturating_sub(1),
                None if streamed && kind == b'$' => self.parts = true,
                None => return broken,
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                if streamed {
                    if self.outer.len() >= MAX_STREAMED_DEPTH {
                        return broken;
                    }
                    self.outer.push(self.left.saturating_sub(1));
                    self.left = MAX_ELEMENTS / 2;
                    return Ok(());
                }
                let count = match number(rest) {
                    Some(count) => count,
                    None if rest == b"-1" => 0,
                    None => return broken,
                };
                let pairs = matches!(kind, b'%' | b'|');
                let elements = if pairs { count.saturating_mul(2) } else { count };
                // Attributes come before the value that they belong to.
                let closed = u64::from(kind != b'|');
                self.left = (self.left - closed).saturating_add(elements);
                if self.left > MAX_ELEMENTS {
                    return broken;
                }
                self.text_wanted = top && matches!(kind, b'*' | b'>') && count > 0;
            }
            _ => return broken,
        }
        Ok(())
    }

    fn keep(&mut self, text: &[u8]) {
        self.text.clear();
        self.text.extend_from_slice(text.get(..MAX_KEPT_BYTES).unwrap_or(text));
    }
}

/// A count or length.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.len() > 18 { None } else { text::number(digits) }
}

/// Whether bytes look like the start of a reply.
pub(super) fn looks_like_reply(bytes: &[u8]) -> Looks {
    let Some((kind, rest)) = bytes.split_first() else { return Looks::Open };
    let end = memchr::memchr(b'\r', rest);
    let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let sign = |t: &[u8]| usize::from(matches!(t.first(), Some(b'-' | b'+')));
    let fits = match kind {
        b'+' | b'-' => text.iter().all(|b| *b >= b' ' || *b == b'\t'),
        b':' | b'(' => text.get(sign(text)..).is_some_and(|t| t.iter().all(u8::is_ascii_digit)),
        b'$' | b'*' | b'%' | b'~' | b'>' | b'|' | b'=' | b'!' => {
            text.len() < 20 && (text.iter().all(u8::is_ascii_digit) || b"-1".starts_with(text) || text == b"?")
        }
        b',' => text.len() < 64 && text.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)),
        b'#' => matches!(text, b"" | b"t" | b"f"),
        b'_' => text.is_empty(),
        _ => false,
    };
    match end.and_then(|end| rest.get(end + 1)) {
        _ if !fits || bytes.len() > MAX_LINE_BYTES && end.is_none() => Looks::No,
        None => Looks::Open,
        Some(b'\n') => (!text.is_empty() || matches!(kind, b'_' | b'+' | b'-')).into(),
        Some(_) => Looks::No,
    }
}
