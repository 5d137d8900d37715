//! Bodies in chunks (RFC 9112, section 7.1).

use crate::pairing::hole_flag;
use crate::{ByteClass, Flags, Output, Side, Stream};

/// A chunk-size line or trailer line longer than this is none.
const MAX_LINE_BYTES: usize = 16 << 10;

/// How far a chunked body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    /// At a chunk-size line.
    Size { scanned: usize },
    /// Behind a chunk's data, before its line end.
    DataEnd,
    /// At a trailer field or the last empty line.
    Trailer { scanned: usize },
}

/// What reading on brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The body is complete; the cursor stands behind it.
    Done,
    /// More bytes are needed.
    Wait,
    /// The framing is in a hole or broken.
    Lost(Flags),
}

enum Line {
    Whole(usize),
    Wait,
    Lost(Flags),
}

fn line(stream: &Stream, scanned: &mut usize) -> Line {
    let bytes = stream.bytes();
    if let Some(end) = bytes.get(*scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        return Line::Whole(*scanned + end + 1);
    }
    *scanned = bytes.len();
    match stream.hole() {
        Some(hole) => Line::Lost(hole_flag(hole.kind)),
        None if bytes.len() > MAX_LINE_BYTES => Line::Lost(Flags::default()),
        None => Line::Wait,
    }
}

impl Chunked {
    pub fn start() -> Self {
        Chunked::Size { scanned: 0 }
    }

    /// Reads on as far as bytes are here.
    pub fn read(&mut self, stream: &mut Stream, side: Side, out: &mut Output) -> Step {
        loop {
            let at = stream.position();
            match self {
                Chunked::Size { scanned } => {
                    let length = match line(stream, scanned) {
                        Line::Whole(length) => length,
                        Line::Wait => return Step::Wait,
                        Line::Lost(flag) => return Step::Lost(flag),
                    };
                    let Some(size) = chunk_size(stream.bytes().get(..length).unwrap_or_default()) else {
                        return Step::Lost(Flags::default());
                    };
                    out.mark(side, at..at + length as u64, ByteClass::Structure);
                    stream.advance(length);
                    if size == 0 {
                        *self = Chunked::Trailer { scanned: 0 };
                    } else {
                        let data = stream.position();
                        out.mark(side, data..data.saturating_add(size), ByteClass::Value);
                        stream.skip(size);
                        *self = Chunked::DataEnd;
                    }
                }
                Chunked::DataEnd => {
                    let length = match (stream.bytes(), stream.hole()) {
                        ([b'\r', b'\n', ..], _) => 2,
                        ([b'\n', ..], _) => 1,
                        // A hole over the line end: everybody sends CRLF.
                        ([] | [b'\r'], Some(_)) => 2,
                        ([] | [b'\r'], None) => return Step::Wait,
                        _ => return Step::Lost(Flags::default()),
                    };
                    if stream.is_skipping() {
                        return Step::Wait;
                    }
                    out.mark(side, at..at + length, ByteClass::Structure);
                    stream.skip(length);
                    *self = Chunked::Size { scanned: 0 };
                }
                Chunked::Trailer { scanned } => {
                    let length = match line(stream, scanned) {
                        Line::Whole(length) => length,
                        Line::Wait => return Step::Wait,
                        Line::Lost(flag) => return Step::Lost(flag),
                    };
                    let empty = matches!(stream.bytes(), [b'\n', ..] | [b'\r', b'\n', ..]);
                    let class = if empty { ByteClass::Structure } else { ByteClass::Value };
                    out.mark(side, at..at + length as u64, class);
                    stream.advance(length);
                    if empty {
                        return Step::Done;
                    }
                    *scanned = 0;
                }
            }
        }
    }
}

/// The size at the start of a chunk-size line; extensions are ignored.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || !matches!(line.get(digits), Some(b'\r' | b'\n' | b';' | b' ' | b'\t')) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(line.get(..digits)?).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        assert_eq!(chunk_size(b"1a;name=\"v\"\r\n"), Some(26));
        assert_eq!(chunk_size(b"0\n"), Some(0));
        assert_eq!(chunk_size(b"10000000000000000\r\n"), None);
        assert_eq!(chunk_size(b"-1\r\n"), None);
        assert_eq!(chunk_size(b"\r\n"), None);
    }
}
