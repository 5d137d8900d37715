//! The little MessagePack that a reader needs before it trusts a block: walking over values without building them.

use crate::error::DecodeError;

/// Deepest nesting of maps and arrays that is read.
pub(crate) const MAX_DEPTH: usize = 32;

/// A position in MessagePack bytes.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What begins at a position.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Uint(u64),
    Text(&'a [u8]),
    Bin(&'a [u8]),
    Array(u64),
    Map(u64),
    Other,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn error(&self) -> DecodeError {
        DecodeError::MessagePack { at: self.at }
    }

    /// Number of key-value pairs of the map that begins here.
    pub(crate) fn map(&mut self) -> Result<u64, DecodeError> {
        match self.token()? {
            Token::Map(pairs) => Ok(pairs),
            _ => Err(self.error()),
        }
    }

    /// Number of elements of the array that begins here.
    pub(crate) fn array(&mut self) -> Result<u64, DecodeError> {
        match self.token()? {
            Token::Array(elements) => Ok(elements),
            _ => Err(self.error()),
        }
    }

    /// The text that begins here; empty if it isn't UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        match self.token()? {
            Token::Text(text) => Ok(std::str::from_utf8(text).unwrap_or_default()),
            _ => Err(self.error()),
        }
    }

    /// The unsigned integer that begins here.
    pub(crate) fn uint(&mut self) -> Result<u64, DecodeError> {
        match self.token()? {
            Token::Uint(value) => Ok(value),
            _ => Err(self.error()),
        }
    }

    /// The bytes that begin here.
    pub(crate) fn bin(&mut self) -> Result<&'a [u8], DecodeError> {
        match self.token()? {
            Token::Bin(bytes) => Ok(bytes),
            _ => Err(self.error()),
        }
    }

    /// Passes over one value, however it is nested, up to [`MAX_DEPTH`]; returns its bytes.
    pub(crate) fn skip(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        // Values still to come at each open level. Each value takes at least a byte, so this ends.
        let mut open = [0u64; MAX_DEPTH];
        let mut depth = 0;
        loop {
            let children = match self.token()? {
                Token::Array(elements) => elements,
                Token::Map(pairs) => pairs.saturating_mul(2),
                _ => 0,
            };
            if children > 0 {
                let level = open.get_mut(depth).ok_or(DecodeError::MessagePack { at: start })?;
                *level = children;
                depth += 1;
                continue;
            }
            loop {
                let Some(level) = depth.checked_sub(1).and_then(|top| open.get_mut(top)) else {
                    return Ok(self.bytes.get(start..self.at).unwrap_or_default());
                };
                *level -= 1;
                if *level > 0 {
                    break;
                }
                depth -= 1;
            }
        }
    }

    fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        let [marker] = self.take()?;
        Ok(match marker {
            0x00..=0x7f => Token::Uint(u64::from(marker)),
            0x80..=0x8f => Token::Map(u64::from(marker & 0x0f)),
            0x90..=0x9f => Token::Array(u64::from(marker & 0x0f)),
            0xa0..=0xbf => Token::Text(self.slice(u64::from(marker & 0x1f))?),
            0xc4 => Token::Bin(self.sized::<1>(0)?),
            0xc5 => Token::Bin(self.sized::<2>(0)?),
            0xc6 => Token::Bin(self.sized::<4>(0)?),
            0xc7 => self.sized::<1>(1).map(|_| Token::Other)?,
            0xc8 => self.sized::<2>(1).map(|_| Token::Other)?,
            0xc9 => self.sized::<4>(1).map(|_| Token::Other)?,
            0xca => self.number::<4>().map(|_| Token::Other)?,
            0xcb => self.number::<8>().map(|_| Token::Other)?,
            0xcc => Token::Uint(self.number::<1>()?),
            0xcd => Token::Uint(self.number::<2>()?),
            0xce => Token::Uint(self.number::<4>()?),
            0xcf => Token::Uint(self.number::<8>()?),
            0xd0 => self.number::<1>().map(|_| Token::Other)?,
            0xd1 => self.number::<2>().map(|_| Token::Other)?,
            0xd2 => self.number::<4>().map(|_| Token::Other)?,
            0xd3 => self.number::<8>().map(|_| Token::Other)?,
            0xd4..=0xd8 => self.slice(1 + (1 << (marker - 0xd4))).map(|_| Token::Other)?,
            0xd9 => Token::Text(self.sized::<1>(0)?),
            0xda => Token::Text(self.sized::<2>(0)?),
            0xdb => Token::Text(self.sized::<4>(0)?),
            0xdc => Token::Array(self.number::<2>()?),
            0xdd => Token::Array(self.number::<4>()?),
            0xde => Token::Map(self.number::<2>()?),
            0xdf => Token::Map(self.number::<4>()?),
            0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Token::Other,
            0xc1 => return Err(self.error()),
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let end = self.at.saturating_add(N);
        let bytes = self.bytes.get(self.at..end).and_then(|bytes| bytes.try_into().ok()).ok_or(self.error())?;
        self.at = end;
        Ok(bytes)
    }

    /// A big-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64, DecodeError> {
        Ok(self.take::<N>()?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Bytes after their length of `N` bytes; `more` bytes belong to them beyond that length.
    fn sized<const N: usize>(&mut self, more: u64) -> Result<&'a [u8], DecodeError> {
        let length = self.number::<N>()?;
        self.slice(length.saturating_add(more))
    }

    fn slice(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length)).ok_or(self.error())?;
        let bytes = self.bytes.get(self.at..end).ok_or(self.error())?;
        self.at = end;
        Ok(bytes)
    }
}

/// Writes the one map that a columnar block is.
pub(crate) struct ColumnMap<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    pairs: u32,
    columns: u32,
}

impl<'a> ColumnMap<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        // A 32-bit map header whose count is filled in by `finish`.
        out.extend_from_slice(&[0xdf, 0, 0, 0, 0]);
        Self { out, start, pairs: 0, columns: 0 }
    }

    /// A named unsigned integer.
    pub(crate) fn uint(&mut self, name: &str, value: u64) {
        self.name(name);
        self.out.push(0xcf);
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A named column, written by `fill`, which returns false if the column can be left out. The first one never is:
    /// so a reader knows that no block has more rows than bytes.
    pub(crate) fn column(&mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>) -> bool) {
        let before = self.out.len();
        self.name(name);
        self.out.extend_from_slice(&[0xc6, 0, 0, 0, 0]);
        let start = self.out.len();
        self.columns += 1;
        if fill(self.out) || self.columns == 1 {
            let length = (self.out.len() - start) as u32;
            patch(self.out, start - 4, length);
        } else {
            self.out.truncate(before);
            self.pairs -= 1;
        }
    }

    /// Completes the map.
    pub(crate) fn finish(self) {
        patch(self.out, self.start + 1, self.pairs);
    }

    fn name(&mut self, name: &str) {
        debug_assert!(name.len() < 32, "column names fit a fixstr");
        self.out.push(0xa0 | name.len() as u8);
        self.out.extend_from_slice(name.as_bytes());
        self.pairs += 1;
    }
}

/// Writes a big-endian number over four bytes at `at`.
fn patch(out: &mut [u8], at: usize, value: u32) {
    for (to, from) in out.iter_mut().skip(at).zip(value.to_be_bytes()) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_passed_over() {
        let values: [&[u8]; 16] = [
            &[0x05],
            &[0xc0],
            &[0xff],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xcb, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xca, 0, 0, 0, 0],
            &[0xa2, b'a', b'b'],
            &[0xd9, 1, b'a'],
            &[0xc4, 2, 1, 2],
            &[0x92, 1, 2],
            &[0x81, 0xa1, b'a', 0x91, 0x80],
            &[0x90],
            &[0xd4, 1, 9],
            &[0xd8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xc7, 2, 1, 9, 9],
            &[0xdc, 0, 2, 0x80, 0x90],
        ];
        for value in values {
            let mut bytes = value.to_vec();
            bytes.push(0x07);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.skip().unwrap(), value, "{value:02x?}");
            assert_eq!(cursor.uint().unwrap(), 7);
            for cut in 0..value.len() {
                assert!(Cursor::new(&value[..cut]).skip().is_err(), "{value:02x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut deep = vec![0x91; MAX_DEPTH];
        deep.push(0xc0);
        assert!(Cursor::new(&deep).skip().is_ok());
        deep.insert(0, 0x91);
        assert!(Cursor::new(&deep).skip().is_err());
        assert!(Cursor::new(&vec![0x91; 1 << 20]).skip().is_err());
    }
}
