//! Header compression (RFC 7541), as far as it serves to name requests: read from any point on, with a table whose
//! beginning may not have been seen.
//!
//! Indices count from the newest entry. So an entry whose insertion was seen is found at its index, whatever was in the
//! table before; an index beyond those means a field that is not known. An entry that is kept longer than the sender
//! keeps it does no harm, as it is never referred to again: that is why sizes need not be exact, and why a change of the
//! table's size matters for memory only. What does harm is an insertion that was not seen ([`Table::forget`]).

use std::collections::VecDeque;

use super::huffman;
use crate::ByteClass;

/// What a field tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its name is that of an entry that was not seen.
    Unknown,
    /// Nothing that is looked at.
    Other,
    /// A credential.
    Secret,
    Method,
    Path,
    Status,
    Authority,
    /// `:protocol` (RFC 8441).
    Protocol,
    ContentType,
    GrpcStatus,
    GrpcMessage,
}

impl Kind {
    fn is_read(self) -> bool {
        !matches!(self, Kind::Unknown | Kind::Other | Kind::Secret)
    }

    fn class(self) -> ByteClass {
        match self {
            Kind::Secret => ByteClass::Secret,
            Kind::Method | Kind::Status | Kind::Protocol | Kind::ContentType | Kind::GrpcStatus => ByteClass::Structure,
            // It may be a credential's name that was not seen.
            Kind::Unknown => ByteClass::Secret,
            Kind::Authority => ByteClass::Identifier,
            Kind::Path | Kind::Other | Kind::GrpcMessage => ByteClass::Value,
        }
    }

    fn named(name: &[u8]) -> Self {
        match name {
            b":method" => Kind::Method,
            b":path" => Kind::Path,
            b":status" => Kind::Status,
            b":authority" => Kind::Authority,
            b":protocol" => Kind::Protocol,
            b"content-type" => Kind::ContentType,
            b"grpc-status" => Kind::GrpcStatus,
            b"grpc-message" => Kind::GrpcMessage,
            name if crate::http::is_secret(name) => Kind::Secret,
            _ => Kind::Other,
        }
    }
}

/// Entries of the static table (RFC 7541, Appendix A).
const STATIC_ENTRIES: usize = 61;

fn static_entry(index: usize) -> (Kind, &'static [u8]) {
    match index {
        1 => (Kind::Authority, b""),
        2 => (Kind::Method, b"GET"),
        3 => (Kind::Method, b"POST"),
        4 => (Kind::Path, b"/"),
        5 => (Kind::Path, b"/index.html"),
        8 => (Kind::Status, b"200"),
        9 => (Kind::Status, b"204"),
        10 => (Kind::Status, b"206"),
        11 => (Kind::Status, b"304"),
        12 => (Kind::Status, b"400"),
        13 => (Kind::Status, b"404"),
        14 => (Kind::Status, b"500"),
        31 => (Kind::ContentType, b""),
        // authorization, cookie, proxy-authorization, set-cookie.
        23 | 32 | 49 | 55 => (Kind::Secret, b""),
        _ => (Kind::Other, b""),
    }
}

/// Size that a table has before anything is agreed on, bytes (RFC 9113, section 6.5.2).
const DEFAULT_SIZE: usize = 4096;
/// What a table holds at most, whatever was agreed on: browsers use this much, servers less. Older entries are forgotten.
const MAX_SIZE: usize = 64 << 10;
/// What an entry counts beside its texts (RFC 7541, section 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// Bytes of a value that are read.
const MAX_VALUE_BYTES: usize = crate::text::MAX_TEXT_BYTES * 4;
/// Bytes of a name that are read: those that matter are short.
const MAX_NAME_BYTES: usize = 64;

#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// Only of what is read; `None` where it is no valid text.
    value: Option<Box<[u8]>>,
    /// At most what it counts in the sender's table.
    size: usize,
}

/// One direction's table.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    scratch: Vec<u8>,
}

/// A block that could not be read to its end: what it inserts into the table is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// How the bytes of a block divide: lengths and classes from its start on.
pub(super) type Pieces = Vec<(usize, ByteClass)>;

impl Table {
    /// `mid_stream`: what was agreed on was not seen.
    pub fn new(mid_stream: bool) -> Self {
        let limit = if mid_stream { MAX_SIZE } else { DEFAULT_SIZE };
        Self { entries: VecDeque::new(), size: 0, limit, scratch: Vec::new() }
    }

    /// Insertions were not seen: no older entry can be told from another.
    pub fn forget(&mut self) {
        self.entries.clear();
        self.size = 0;
    }

    /// Reads a block, calling `field` for each field with its value. The value is `None` where it is not known, or not
    /// of interest. `pieces` gets what the bytes carry.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut pieces: Option<&mut Pieces>,
        mut field: impl FnMut(Kind, Option<&[u8]>),
    ) -> Result<(), Broken> {
        let mut rest = block;
        while let Some(first) = rest.first().copied() {
            let start = rest.len();
            let (prefix, inserted) = match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    match self.entry(index)? {
                        (kind, value) if kind.is_read() => field(kind, value),
                        (kind, _) => field(kind, None),
                    }
                    piece(&mut pieces, start - rest.len(), ByteClass::Structure);
                    continue;
                }
                0x20..0x40 => {
                    let limit = integer(&mut rest, 5)?;
                    self.limit = limit.clamp(DEFAULT_SIZE, MAX_SIZE);
                    piece(&mut pieces, start - rest.len(), ByteClass::Structure);
                    continue;
                }
                0x40.. => (6, true),
                _ => (4, false),
            };
            let index = integer(&mut rest, prefix)?;
            let (kind, name_size) = if index == 0 {
                let (huffman, name) = string(&mut rest)?;
                piece(&mut pieces, start - rest.len() - name.len(), ByteClass::Structure);
                piece(&mut pieces, name.len(), ByteClass::Identifier);
                let name = text(huffman, name, &mut self.scratch, MAX_NAME_BYTES);
                (name.map_or(Kind::Other, Kind::named), name.map_or(0, <[u8]>::len))
            } else {
                piece(&mut pieces, start - rest.len(), ByteClass::Structure);
                (self.entry(index)?.0, 0)
            };
            let before_value = rest.len();
            let (huffman, raw) = string(&mut rest)?;
            piece(&mut pieces, before_value - rest.len() - raw.len(), ByteClass::Structure);
            let value = if kind.is_read() { text(huffman, raw, &mut self.scratch, MAX_VALUE_BYTES) } else { None };
            let class = match value {
                // A path without a value in it.
                Some(path) if kind == Kind::Path && memchr::memchr3(b'?', b';', b'@', path).is_none() => {
                    ByteClass::Identifier
                }
                _ => kind.class(),
            };
            piece(&mut pieces, raw.len(), class);
            field(kind, value);
            if inserted {
                // No code is longer than 30 bits.
                let value_size = if huffman { raw.len() * 8 / 30 } else { raw.len() };
                let entry = Entry { kind, value: value.map(Box::from), size: ENTRY_OVERHEAD + name_size + value_size };
                self.insert(entry);
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(Kind, Option<&[u8]>), Broken> {
        match index {
            0 => Err(Broken),
            1..=STATIC_ENTRIES => {
                let (kind, value) = static_entry(index);
                Ok((kind, Some(value)))
            }
            _ => match self.entries.get(index - STATIC_ENTRIES - 1) {
                Some(entry) => Ok((entry.kind, entry.value.as_deref())),
                None => Ok((Kind::Unknown, None)),
            },
        }
    }

    fn insert(&mut self, entry: Entry) {
        while self.size + entry.size > self.limit
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size;
        }
        if entry.size <= self.limit {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }
}

fn piece(pieces: &mut Option<&mut Pieces>, length: usize, class: ByteClass) {
    if let Some(pieces) = pieces
        && length > 0
    {
        pieces.push((length, class));
    }
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1). None that is sent exceeds 32 bits.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Broken> {
    let (first, mut tail) = rest.split_first().ok_or(Broken)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = tail.split_first().ok_or(Broken)?;
            tail = after;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return Err(Broken);
            }
        }
    }
    *rest = tail;
    Ok(value)
}

/// A string as it stands there, and whether it is in Huffman code.
fn string<'a>(rest: &mut &'a [u8]) -> Result<(bool, &'a [u8]), Broken> {
    let huffman = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (text, tail) = rest.split_at_checked(length).ok_or(Broken)?;
    *rest = tail;
    Ok((huffman, text))
}

/// The text of a string, at most `max` bytes of it.
fn text<'a>(huffman: bool, raw: &'a [u8], scratch: &'a mut Vec<u8>, max: usize) -> Option<&'a [u8]> {
    if !huffman {
        return Some(raw.get(..max).unwrap_or(raw));
    }
    scratch.clear();
    huffman::decode(raw, scratch, max).ok()?;
    Some(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &mut Table, hex: &str) -> Result<Vec<(Kind, String)>, Broken> {
        let hex: String = hex.split_whitespace().collect();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let (mut fields, mut pieces) = (Vec::new(), Vec::new());
        table.decode(&bytes, Some(&mut pieces), |kind, value| {
            fields.push((kind, value.map_or("-".into(), |value| String::from_utf8_lossy(value).into_owned())));
        })?;
        assert_eq!(pieces.iter().map(|(length, _)| length).sum::<usize>(), bytes.len(), "every byte has a class");
        Ok(fields)
    }

    #[test]
    fn requests_of_the_rfc() {
        // RFC 7541, C.4: three requests, Huffman coded.
        let mut table = Table::new(false);
        let other = (Kind::Other, "-".to_owned());
        let of = |kind, value: &str| (kind, value.to_owned());
        let first = read(&mut table, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff").unwrap();
        let start =
            [of(Kind::Method, "GET"), other.clone(), of(Kind::Path, "/"), of(Kind::Authority, "www.example.com")];
        assert_eq!(first, start);
        let second = read(&mut table, "8286 84be 5886 a8eb 1064 9cbf").unwrap();
        assert_eq!((&second[..4], &second[4]), (&start[..], &other));
        let third = read(&mut table, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf").unwrap();
        assert_eq!(third[2..4], [of(Kind::Path, "/index.html"), of(Kind::Authority, "www.example.com")]);
    }

    #[test]
    fn entries_that_were_not_seen_are_unknown_and_later_ones_are_found() {
        let mut table = Table::new(true);
        assert_eq!(read(&mut table, "be c5").unwrap(), [(Kind::Unknown, "-".into()), (Kind::Unknown, "-".into())]);
        // A path is inserted: it is the newest, the unknown ones are behind it.
        let path = (Kind::Path, "/a".to_owned());
        assert_eq!(read(&mut table, "44 02 2f61").unwrap(), std::slice::from_ref(&path));
        assert_eq!(
            read(&mut table, "40 01 78 01 79 bf be c0").unwrap()[1..],
            [path, (Kind::Other, "-".into()), (Kind::Unknown, "-".into())]
        );
        table.forget();
        assert_eq!(read(&mut table, "be").unwrap(), [(Kind::Unknown, "-".into())]);
    }

    #[test]
    fn hostile_blocks() {
        let mut table = Table::new(false);
        assert_eq!(read(&mut table, "80"), Err(Broken), "index 0");
        assert_eq!(read(&mut table, "ff ffffffffff 00"), Err(Broken), "an endless integer");
        assert_eq!(read(&mut table, "00 7f ffffff07 61"), Err(Broken), "a string beyond the block");
        assert_eq!(read(&mut table, "3f e1 ff ff ff 07"), Ok(vec![]));
        assert_eq!(table.limit, MAX_SIZE);
        for _ in 0..100_000 {
            table.decode(b"\x44\x03/ab", None, |_, _| {}).unwrap();
        }
        assert!(table.entries.len() <= MAX_SIZE / ENTRY_OVERHEAD);
        // An entry larger than the table empties it.
        let mut large = b"\x44\x7f\x81\xff\x03".to_vec();
        large.resize(5 + 65_536, b'a');
        assert_eq!(table.decode(&large, None, |_, _| {}), Ok(()));
        assert_eq!((table.entries.len(), table.size), (0, 0));
    }
}
