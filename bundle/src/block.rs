//! Block headers and addresses.

use crate::header::{Fields, crc_without_field};
use crate::kinds::BlockKind;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// First bytes of every block; what a reader looks for after damage.
pub const BLOCK_MAGIC: [u8; 8] = *b"\x8bKfrBlk\x1c";

/// Size of a block header.
pub const BLOCK_HEADER_BYTES: usize = 96;

/// Flag: the block is (part of) a keyframe: with the other keyframe blocks beside it, it stands for everything before.
pub const FLAG_KEYFRAME: u16 = 1;
/// Block flag: rows name peers (datagrams on unconnected sockets).
pub const FLAG_PEERS: u16 = 2;

/// Flags that a reader has to understand to read the payload. None is defined yet.
pub const FLAGS_MUST_UNDERSTAND: u16 = 0xFF00;

const CRC_AT: usize = 12;

/// What the caller says about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// What it holds.
    pub kind: BlockKind,
    /// Version of the content, counted per kind from 1.
    pub schema: u16,
    /// It is part of a keyframe.
    pub keyframe: bool,
    /// Rows of it name peers (datagrams on unconnected sockets): who talks there has to be read from the rows.
    pub peers: bool,
    /// Which of several sources of one kind it comes from (0 where there is one).
    pub stream: u32,
    /// Number of rows (events, maps).
    pub rows: u32,
    /// Number that the first row has in its address; 0 but for blocks cut from others.
    pub first_row: u32,
    /// Earliest event time in it, ns on the file header's clock; 0 where it has none.
    pub min_time_ns: u64,
    /// Latest event time in it, ns on the file header's clock; 0 where it has none.
    pub max_time_ns: u64,
}

impl Block {
    /// A block of `rows` rows of `kind`, schema 1, without times.
    pub fn new(kind: BlockKind, rows: u32) -> Self {
        Self {
            kind,
            schema: 1,
            keyframe: false,
            peers: false,
            stream: 0,
            rows,
            first_row: 0,
            min_time_ns: 0,
            max_time_ns: 0,
        }
    }

    /// The same with the times of its earliest and latest event.
    #[must_use]
    pub fn with_times(mut self, min_time_ns: u64, max_time_ns: u64) -> Self {
        (self.min_time_ns, self.max_time_ns) = (min_time_ns, max_time_ns);
        self
    }

    /// The same, saying whether rows name peers.
    #[must_use]
    pub fn with_peers(mut self, peers: bool) -> Self {
        self.peers = peers;
        self
    }

    /// The same as part of a keyframe.
    #[must_use]
    pub fn as_keyframe(mut self) -> Self {
        self.keyframe = true;
        self
    }
}

/// A block's name, kept for ever: slices, merges and redacted copies keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockAddress {
    /// UUID of the bundle that the block was first written to.
    pub origin: [u8; 16],
    /// Number of the block there, from 0.
    pub sequence: u64,
}

impl BlockAddress {
    /// Address of one row of the block.
    pub fn row(self, row: u32) -> Address {
        Address { origin: short_origin(&self.origin), block: self.sequence, row }
    }
}

impl fmt::Display for BlockAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}", short_origin(&self.origin), self.sequence)
    }
}

/// First four bytes of a UUID as a number, in the order in which they are printed.
pub(crate) fn short_origin(origin: &[u8; 16]) -> u32 {
    let [a, b, c, d, ..] = *origin;
    u32::from_be_bytes([a, b, c, d])
}

/// An event's address, `ORIGIN.BLOCK:ROW`: eight hexadecimal digits and two decimal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// First four bytes of the origin's UUID, as printed.
    pub origin: u32,
    /// The block's number.
    pub block: u64,
    /// The row's number, as in the block when it was first written.
    pub row: u32,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}:{}", self.origin, self.block, self.row)
    }
}

/// The text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event address looks like 3fa85f64.12:345")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (origin, rest) = text.split_once('.').ok_or(AddressError)?;
        let (block, row) = rest.split_once(':').ok_or(AddressError)?;
        if origin.len() != 8 || !origin.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(AddressError);
        }
        Ok(Self {
            origin: u32::from_str_radix(origin, 16).map_err(|_| AddressError)?,
            block: decimal(block)?,
            row: u32::try_from(decimal(row)?).map_err(|_| AddressError)?,
        })
    }
}

/// A decimal number in the one form that `Display` gives: no sign, no leading zero.
fn decimal(text: &str) -> Result<u64, AddressError> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError);
    }
    text.parse().map_err(|_| AddressError)
}

/// Everything that a block's header says, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// The block's name.
    pub address: BlockAddress,
    /// What it holds.
    pub kind: BlockKind,
    /// Version of the content, counted per kind from 1.
    pub schema: u16,
    /// `FLAG_` bits.
    pub flags: u16,
    /// Which of several sources of one kind it comes from.
    pub stream: u32,
    /// Number of rows.
    pub rows: u32,
    /// Number that the first row has in its address.
    pub first_row: u32,
    /// Earliest event time in it, ns.
    pub min_time_ns: u64,
    /// Latest event time in it, ns.
    pub max_time_ns: u64,
    /// Where its header begins in the file, bytes.
    pub offset: u64,
    /// Bytes of the header.
    pub header_len: u16,
    /// Bytes of the zstd frame that follows the header.
    pub compressed_len: u32,
    /// Bytes after decompression.
    pub raw_len: u32,
    /// CRC32C of the zstd frame.
    pub payload_crc: u32,
}

impl BlockEntry {
    /// It is part of a keyframe.
    pub fn keyframe(&self) -> bool {
        self.flags & FLAG_KEYFRAME != 0
    }

    /// Rows of it name peers.
    pub fn peers(&self) -> bool {
        self.flags & FLAG_PEERS != 0
    }

    /// Where its zstd frame begins in the file.
    pub fn payload_offset(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.header_len))
    }

    /// First byte after the block.
    pub fn end(&self) -> u64 {
        self.payload_offset().saturating_add(u64::from(self.compressed_len))
    }

    /// What a writer was told about the block.
    pub fn block(&self) -> Block {
        Block {
            kind: self.kind,
            schema: self.schema,
            keyframe: self.keyframe(),
            peers: self.peers(),
            stream: self.stream,
            rows: self.rows,
            first_row: self.first_row,
            min_time_ns: self.min_time_ns,
            max_time_ns: self.max_time_ns,
        }
    }

    /// The header's bytes for a file with this UUID.
    pub(crate) fn encode(&self, bundle_id: &Uuid) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(BLOCK_HEADER_BYTES);
        bytes.extend_from_slice(&BLOCK_MAGIC);
        bytes.extend_from_slice(&(BLOCK_HEADER_BYTES as u16).to_le_bytes());
        bytes.extend_from_slice(&self.kind.0.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.address.origin);
        bytes.extend_from_slice(&self.address.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.schema.to_le_bytes());
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.extend_from_slice(&self.stream.to_le_bytes());
        bytes.extend_from_slice(&self.rows.to_le_bytes());
        bytes.extend_from_slice(&self.first_row.to_le_bytes());
        bytes.extend_from_slice(&self.min_time_ns.to_le_bytes());
        bytes.extend_from_slice(&self.max_time_ns.to_le_bytes());
        bytes.extend_from_slice(&self.compressed_len.to_le_bytes());
        bytes.extend_from_slice(&self.raw_len.to_le_bytes());
        bytes.extend_from_slice(&self.payload_crc.to_le_bytes());
        let mut header = [0; BLOCK_HEADER_BYTES];
        for (to, from) in header.iter_mut().zip(&bytes) {
            *to = *from;
        }
        let crc = checksum(bundle_id, &header).to_le_bytes();
        for (to, from) in header.iter_mut().skip(CRC_AT).zip(&crc) {
            *to = *from;
        }
        header
    }

    /// Reads a header that lies at `offset` in a file with this UUID; `None` if it isn't one.
    pub(crate) fn decode(bundle_id: &Uuid, offset: u64, bytes: &[u8]) -> Option<Self> {
        if bytes.get(..BLOCK_MAGIC.len())? != BLOCK_MAGIC {
            return None;
        }
        let mut fields = Fields::new(bytes, BLOCK_MAGIC.len());
        let header_len = fields.u16()?;
        let kind = BlockKind(fields.u16()?);
        let crc = fields.u32()?;
        let header = bytes.get(..usize::from(header_len))?;
        if header.len() < BLOCK_HEADER_BYTES || checksum(bundle_id, header) != crc {
            return None;
        }
        Some(Self {
            kind,
            offset,
            header_len,
            address: BlockAddress { origin: fields.array()?, sequence: fields.u64()? },
            schema: fields.u16()?,
            flags: fields.u16()?,
            stream: fields.u32()?,
            rows: fields.u32()?,
            first_row: fields.u32()?,
            min_time_ns: fields.u64()?,
            max_time_ns: fields.u64()?,
            compressed_len: fields.u32()?,
            raw_len: fields.u32()?,
            payload_crc: fields.u32()?,
        })
    }
}

/// Longest block header that a reader accepts from a newer minor version.
pub(crate) const MAX_BLOCK_HEADER_BYTES: usize = 512;

/// CRC32C over the bundle's UUID and the header, whose checksum field is taken as zero.
fn checksum(bundle_id: &Uuid, header: &[u8]) -> u32 {
    crc_without_field(crc32c::crc32c(bundle_id.as_bytes()), header, CRC_AT)
}
