//! Strings at the beginning of a Dubbo body, as far as its serialization is read here.

use crate::cursor::be32;

/// Serializations by their number in the header (Dubbo's `Constants`).
const HESSIAN2: u8 = 2;
const JAVA: u8 = 3;
const FASTJSON: u8 = 6;
const NATIVE_JAVA: u8 = 7;
const KRYO: u8 = 8;
const FST: u8 = 9;
const GSON: u8 = 16;
const FASTJSON2: u8 = 23;
const KRYO2: u8 = 25;

/// Numbers that serializations have, those that are not read included.
pub(super) fn is_known(serialization: u8) -> bool {
    matches!(serialization, 2..=12 | 16 | 21..=31)
}

/// Reads from front to back; `None` where bytes are missing, make no sense, or are of a serialization not read here.
pub(super) struct Body<'a> {
    bytes: &'a [u8],
    pub at: usize,
    serialization: u8,
}

impl<'a> Body<'a> {
    /// A body that begins at `at` of `bytes`.
    pub fn new(bytes: &'a [u8], at: usize, serialization: u8) -> Self {
        Self { bytes, at, serialization }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.rest().get(..count)?;
        self.at += count;
        Some(taken)
    }

    /// A string, of which only the first piece is given where it was written in pieces.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        match self.serialization {
            HESSIAN2 => self.hessian_string(),
            FASTJSON | GSON => {
                let rest = self.rest();
                let line = rest.get(..memchr::memchr(b'\n', rest)?)?;
                self.at += line.len() + 1;
                line.strip_prefix(b"\"")?.trim_ascii_end().strip_suffix(b"\"")
            }
            FASTJSON2 => {
                let value = self.block()?;
                // JSONB: an ASCII string of up to 47 bytes has its length in its first byte, a longer one an integer.
                match *value.first()? {
                    short @ 0x49..=0x78 => value.get(1..1 + usize::from(short - 0x49)),
                    0x79 => match *value.get(1)? {
                        length @ 0..=0x2f => value.get(2..2 + usize::from(length)),
                        high @ 0x38..=0x3f => {
                            let length = usize::from(high - 0x38) << 8 | usize::from(*value.get(2)?);
                            value.get(3..3 + length)
                        }
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// A value behind its length.
    fn block(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(be32(self.bytes, self.at)?).ok()?;
        self.at += 4;
        self.take(length)
    }

    /// Hessian 2.0: up to 31 characters, up to 1023, pieces of up to 65535, the last of which begins with `S`.
    fn hessian_string(&mut self) -> Option<&'a [u8]> {
        let mut first = None;
        loop {
            let tag = *self.take(1)?.first()?;
            let (length, last) = match tag {
                0..=0x1f => (usize::from(tag), true),
                0x30..=0x33 => (usize::from(tag & 3) << 8 | usize::from(*self.take(1)?.first()?), true),
                b'R' | b'S' => {
                    let length = u16::from_be_bytes(*self.take(2)?.first_chunk()?);
                    (usize::from(length), tag == b'S')
                }
                _ => return None,
            };
            let piece = self.characters(length)?;
            let first = *first.get_or_insert(piece);
            if last {
                return Some(first);
            }
        }
    }

    /// So many UTF-16 units, each written as UTF-8 (halves of pairs by themselves).
    fn characters(&mut self, count: usize) -> Option<&'a [u8]> {
        let rest = self.rest();
        let (mut at, mut units) = (0, 0);
        while units < count {
            let (bytes, more) = match *rest.get(at)? {
                0..=0xbf => (1, 1),
                0xc0..=0xdf => (2, 1),
                0xe0..=0xef => (3, 1),
                _ => (4, 2),
            };
            at += bytes;
            units += more;
        }
        self.take(at)
    }

    /// The number that says what kind of result follows (`DubboCodec`): 0 and 3 are exceptions.
    pub fn result(&mut self) -> Option<u8> {
        let kind = match self.serialization {
            HESSIAN2 => match *self.take(1)?.first()? {
                small @ 0x90..=0xbf => small - 0x90,
                b'I' => u8::try_from(be32(self.take(4)?, 0)?).ok()?,
                _ => return None,
            },
            FASTJSON | GSON => (*self.take(1)?.first()?).checked_sub(b'0')?,
            // Written as it is.
            KRYO | KRYO2 | FST => *self.take(1)?.first()?,
            // A stream's head (0xaced, version 5), a block of data, its length.
            JAVA | NATIVE_JAVA => match self.take(7)? {
                [0xac, 0xed, 0, 5, 0x77, 1..=0xff, kind] => *kind,
                _ => return None,
            },
            // JSONB: a small integer, or a byte with its tag.
            FASTJSON2 => match self.block()? {
                [kind] | [0xbd, kind] => *kind,
                _ => return None,
            },
            _ => return None,
        };
        (kind <= 5).then_some(kind)
    }

    /// The class of the object that comes next, where it is the first of its class.
    pub fn class(&mut self) -> Option<&'a [u8]> {
        match (self.serialization, *self.rest().first()?) {
            (HESSIAN2, b'C' | b'M') => {
                self.at += 1;
                self.hessian_string()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_each_length_and_kind() {
        let read = |serialization, bytes: &[u8]| Body::new(bytes, 0, serialization).string().map(<[u8]>::to_vec);
        assert_eq!(read(HESSIAN2, b"\x02ab"), Some(b"ab".to_vec()));
        assert_eq!(read(HESSIAN2, "\x02aé".as_bytes()), Some("aé".as_bytes().to_vec()));
        let long = [b"\x31\x00".to_vec(), vec![b'x'; 256]].concat();
        assert_eq!(read(HESSIAN2, &long), Some(vec![b'x'; 256]));
        assert_eq!(read(HESSIAN2, b"R\0\x01aS\0\x01b"), Some(b"a".to_vec()));
        assert_eq!(read(HESSIAN2, b"\x03ab"), None);
        assert_eq!(read(FASTJSON, b"\"2.0.2\"\r\n\"x\""), Some(b"2.0.2".to_vec()));
        assert_eq!(read(FASTJSON2, b"\0\0\0\x03\x4bab"), Some(b"ab".to_vec()));
        let long = [b"\0\0\0\x33\x79\x38\x30".to_vec(), vec![b'x'; 48]].concat();
        assert_eq!(read(FASTJSON2, &long), Some(vec![b'x'; 48]));
        assert_eq!(read(KRYO, b"\x02ab"), None);
    }

    #[test]
    fn kinds_of_results() {
        let read = |serialization, bytes: &[u8]| Body::new(bytes, 0, serialization).result();
        assert_eq!(read(HESSIAN2, b"\x94"), Some(4));
        assert_eq!(read(HESSIAN2, b"I\0\0\0\x03"), Some(3));
        assert_eq!(read(HESSIAN2, b"\xa0"), None);
        assert_eq!(read(FASTJSON, b"0\n"), Some(0));
        assert_eq!(read(FASTJSON2, b"\0\0\0\x02\xbd\x01"), Some(1));
        assert_eq!(read(JAVA, b"\xac\xed\0\x05\x77\x05\x02"), Some(2));
        assert_eq!(read(21, b"\x01"), None);
    }
}
