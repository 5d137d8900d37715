//! The start of a message in each encoding and transport
//! (<https://github.com/apache/thrift/tree/master/doc/specs>: `thrift-binary-protocol.md`, `thrift-compact-protocol.md`,
//! `HeaderFormat.md`).

use crate::cursor::Cursor;
use crate::frames::{Framing, Head};
use crate::pairing::Looks;
use crate::{Side, unpack};

/// Longest method name (`Service:method`) that is taken for one.
const MAX_NAME_BYTES: u64 = 512;

/// The largest frame: servers refuse more than 16 or 100 MiB by default.
const MAX_FRAME_BYTES: u32 = 512 << 20;

/// Bytes of a message that are looked at.
pub(super) const MAX_KEPT_BYTES: usize = 16 << 10;

/// Length of a frame.
pub(super) const FRAME_HEAD_BYTES: usize = 4;

/// Header transport: marker of its frames.
const HEADER_MAGIC: u16 = 0x0fff;

/// Bytes within which the header transport has told what it carries.
const MAX_SHORT_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Binary,
    Compact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Reply,
    Exception,
    Oneway,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Exception,
            4 => Kind::Oneway,
            _ => return None,
        })
    }

    /// Who sends it.
    fn side(self) -> Side {
        if matches!(self, Kind::Call | Kind::Oneway) { Side::Client } else { Side::Server }
    }
}

/// A message's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub encoding: Encoding,
    pub kind: Kind,
    pub name: Box<[u8]>,
    pub sequence: i32,
    /// Bytes of the head.
    pub length: usize,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Not {
    Enough,
    Fits,
}

impl Message {
    /// Reads the head of a message of `side`.
    pub fn read(side: Side, bytes: &[u8]) -> Result<Self, Not> {
        let mut cursor = Cursor::new(bytes);
        let first = *bytes.first().ok_or(Not::Enough)?;
        let (encoding, kind, name, sequence) = match first {
            0x80 => {
                // 80 01 00, the kind: anything else is known at once.
                if !b"\x80\x01\x00".starts_with(bytes.get(..3).unwrap_or(bytes)) {
                    return Err(Not::Fits);
                }
                let kind = cursor.be32().ok_or(Not::Enough)? as u8;
                let length = cursor.be32().ok_or(Not::Enough)?;
                let name = name(&mut cursor, u64::from(length))?;
                (Encoding::Binary, kind, name, cursor.be32().ok_or(Not::Enough)?)
            }
            0x82 => {
                cursor.u8();
                let second = cursor.u8().ok_or(Not::Enough)?;
                if second & 0x1f != 1 {
                    return Err(Not::Fits);
                }
                let sequence = varint(&mut cursor)?;
                let length = varint(&mut cursor)?;
                (Encoding::Compact, second >> 5, name(&mut cursor, length)?, sequence as u32)
            }
            // Without a version: the name's length comes first.
            0 => {
                let length = cursor.be32().ok_or(Not::Enough)?;
                let name = name(&mut cursor, u64::from(length))?;
                (Encoding::Binary, cursor.u8().ok_or(Not::Enough)?, name, cursor.be32().ok_or(Not::Enough)?)
            }
            _ => return Err(Not::Fits),
        };
        let kind = Kind::of(kind).filter(|kind| kind.side() == side).ok_or(Not::Fits)?;
        Ok(Self { encoding, kind, name: name.into(), sequence: sequence as i32, length: cursor.at() })
    }
}

fn varint(cursor: &mut Cursor<'_>) -> Result<u64, Not> {
    match cursor.varint() {
        Some(number) if number <= u64::from(u32::MAX) => Ok(number),
        None if cursor.rest().len() < 10 => Err(Not::Enough),
        _ => Err(Not::Fits),
    }
}

fn name<'a>(cursor: &mut Cursor<'a>, length: u64) -> Result<&'a [u8], Not> {
    if length == 0 || length > MAX_NAME_BYTES {
        return Err(Not::Fits);
    }
    let seen = cursor.take_some(length as usize);
    if !seen.iter().all(|byte| byte.is_ascii_graphic()) {
        return Err(Not::Fits);
    }
    if seen.len() as u64 == length { Ok(seen) } else { Err(Not::Enough) }
}

/// What a frame carries.
#[derive(Debug)]
pub(super) enum Content {
    /// A message, which begins at this offset of the frame.
    Message(usize),
    /// A message packed by the header transport, unpacked as far as it is here.
    Packed(Vec<u8>),
    /// By a transform that nobody here reads.
    Unread,
}

/// What the bytes of a frame hold behind its length.
pub(super) fn content(frame: &[u8]) -> Content {
    let mut cursor = Cursor::new(frame);
    cursor.take(FRAME_HEAD_BYTES);
    if cursor.be16() != Some(HEADER_MAGIC) {
        return Content::Message(FRAME_HEAD_BYTES);
    }
    header_content(cursor).unwrap_or(Content::Unread)
}

fn header_content(mut cursor: Cursor<'_>) -> Option<Content> {
    let _flags = cursor.be16()?;
    let _sequence = cursor.be32()?;
    let words = usize::from(cursor.be16()?);
    let start = cursor.at() + words * 4;
    let _encoding = cursor.varint()?;
    let transforms = cursor.varint()?;
    if transforms == 0 {
        return Some(Content::Message(start));
    }
    const ZLIB: u64 = 1;
    const SNAPPY: u64 = 3;
    let transform = cursor.varint()?;
    let mut payload = cursor;
    payload.take(start.checked_sub(cursor.at())?)?;
    Some(match transform {
        ZLIB if transforms == 1 => Content::Packed(unpack::zlib(payload.rest(), MAX_KEPT_BYTES)),
        SNAPPY if transforms == 1 => Content::Packed(unpack::snappy(payload.rest(), MAX_KEPT_BYTES)),
        _ => Content::Unread,
    })
}

/// Whether bytes look like a message without a frame.
pub(super) fn looks_plain(side: Side, bytes: &[u8], cut: bool) -> Looks {
    match Message::read(side, bytes) {
        Ok(_) => Looks::Yes,
        Err(Not::Enough) if !cut => Looks::Open,
        Err(_) => Looks::No,
    }
}

/// Messages in frames.
pub(super) struct Framed;

impl Framing for Framed {
    fn head(&self, _: Side, bytes: &[u8]) -> Head {
        match Cursor::new(bytes).be32() {
            None => Head::Short,
            Some(length) if (2..=MAX_FRAME_BYTES).contains(&length) => {
                Head::Length(u64::from(length) + FRAME_HEAD_BYTES as u64)
            }
            Some(_) => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let open = if cut { Looks::No } else { Looks::Open };
        match self.head(side, bytes) {
            Head::Bad => Looks::No,
            Head::Short if bytes.first().is_some_and(|byte| *byte > 0x1f) => Looks::No,
            Head::Short => open,
            Head::Length(length) => {
                let inner = bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default();
                let here = inner.get(..2).map(|magic| magic == HEADER_MAGIC.to_be_bytes());
                match content(bytes) {
                    _ if inner.is_empty() || inner == [(HEADER_MAGIC >> 8) as u8] => open,
                    Content::Packed(message) if message.is_empty() && bytes.len() < MAX_SHORT_BYTES => open,
                    Content::Unread if bytes.len() < MAX_SHORT_BYTES && here != Some(false) => open,
                    Content::Message(FRAME_HEAD_BYTES) => match looks_plain(side, inner, cut) {
                        Looks::Open if length <= bytes.len() as u64 => Looks::No,
                        Looks::Yes if length < 12 => Looks::No,
                        looks => looks,
                    },
                    Content::Message(start) if start as u64 >= length => Looks::No,
                    Content::Message(start) => match bytes.get(start..) {
                        Some(message) if !message.is_empty() => looks_plain(side, message, cut),
                        _ => open,
                    },
                    Content::Packed(message) => looks_plain(side, &message, cut),
                    // The magic, and an encoding that is known.
                    _ => (here == Some(true) && matches!(bytes.get(14), Some(0 | 2))).into(),
                }
            }
        }
    }
}
