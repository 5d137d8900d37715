//! The footer: an index of all blocks, a third copy of the file header, and a trailer that says where the index begins.
//!
//! It is an accelerator, never the authority: a reader compares each of its entries with the block header it points to.

use crate::block::{BlockAddress, BlockEntry};
use crate::header::{FILE_HEADER_BYTES, Fields, crc_without_field};
use crate::kinds::BlockKind;
use crate::rows::row;
use uuid::Uuid;

/// First bytes of the trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"\x8bKfrEnd\x1d";

/// Size of the trailer, the last bytes of a finished bundle.
pub const TRAILER_BYTES: usize = 32;

/// What follows the index block: a copy of the file header and the trailer.
pub const TAIL_BYTES: usize = FILE_HEADER_BYTES + TRAILER_BYTES;

/// Most blocks that an index lists; a bundle with more has no footer, and is scanned.
pub const MAX_INDEX_ROWS: usize = 1 << 20;

/// A block's entry in the index: its header's fields and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRow {
    entry: BlockEntry,
}

impl From<BlockEntry> for IndexRow {
    fn from(entry: BlockEntry) -> Self {
        Self { entry }
    }
}

impl From<IndexRow> for BlockEntry {
    fn from(row: IndexRow) -> Self {
        row.entry
    }
}

/// What an entry is without any column.
const EMPTY: IndexRow = IndexRow {
    entry: BlockEntry {
        address: BlockAddress { origin: [0; 16], sequence: 0 },
        kind: BlockKind(0),
        schema: 0,
        flags: 0,
        stream: 0,
        rows: 0,
        first_row: 0,
        min_time_ns: 0,
        max_time_ns: 0,
        offset: 0,
        header_len: 0,
        compressed_len: 0,
        raw_len: 0,
        payload_crc: 0,
    },
};

row!(IndexRow, EMPTY, {
    "offset" => entry.offset,
    "origin" => entry.address.origin,
    "sequence" => entry.address.sequence,
    "kind" => entry.kind.0,
    "schema" => entry.schema,
    "flags" => entry.flags,
    "stream" => entry.stream,
    "rows_in_block" => entry.rows,
    "first_row" => entry.first_row,
    "min_time_ns" => entry.min_time_ns,
    "max_time_ns" => entry.max_time_ns,
    "header_len" => entry.header_len,
    "compressed_len" => entry.compressed_len,
    "raw_len" => entry.raw_len,
    "payload_crc" => entry.payload_crc,
});

const CRC_AT: usize = 24;

/// The trailer of a bundle whose index block begins at `index_offset` and which is `file_bytes` long with it.
pub(crate) fn encode_trailer(bundle_id: &Uuid, index_offset: u64, file_bytes: u64) -> [u8; TRAILER_BYTES] {
    let mut bytes = Vec::with_capacity(TRAILER_BYTES);
    bytes.extend_from_slice(&TRAILER_MAGIC);
    bytes.extend_from_slice(&index_offset.to_le_bytes());
    bytes.extend_from_slice(&file_bytes.to_le_bytes());
    let mut trailer = [0; TRAILER_BYTES];
    for (to, from) in trailer.iter_mut().zip(&bytes) {
        *to = *from;
    }
    let crc = crc_without_field(crc32c::crc32c(bundle_id.as_bytes()), &trailer, CRC_AT).to_le_bytes();
    for (to, from) in trailer.iter_mut().skip(CRC_AT).zip(&crc) {
        *to = *from;
    }
    trailer
}

/// Offset of the index block and length of the file, if these bytes are a trailer of this bundle.
pub(crate) fn decode_trailer(bundle_id: &Uuid, bytes: &[u8]) -> Option<(u64, u64)> {
    let bytes = bytes.get(..TRAILER_BYTES)?;
    if bytes.get(..TRAILER_MAGIC.len())? != TRAILER_MAGIC {
        return None;
    }
    let mut fields = Fields::new(bytes, TRAILER_MAGIC.len());
    let (index_offset, file_bytes, crc) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let expected = crc_without_field(crc32c::crc32c(bundle_id.as_bytes()), bytes, CRC_AT);
    (crc == expected).then_some((index_offset, file_bytes))
}
