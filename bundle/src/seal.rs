//! Compressing blocks, on any thread, before they have a number and a place.

use zstd::zstd_safe::CParameter;

use crate::MAX_RAW_BYTES;
use crate::block::{BLOCK_HEADER_BYTES, Block, BlockAddress, BlockEntry, FLAG_KEYFRAME, FLAG_PEERS};
use crate::error::{BlockError, WriteError};
use crate::reader::Reader;

/// zstd level while recording; a bundle at rest may be written with 3.
pub const DEFAULT_LEVEL: i32 = 1;

/// Matches reach back over a whole block of recorded data (4 MiB), whatever the level: what repeats in traffic (a page, a
/// row, a header) repeats after megabytes. zstd's own choice for level 1 is half a megabyte.
const WINDOW_LOG: u32 = 22;
/// Positions remembered while looking for matches, at level 1: 4 times what zstd takes by default, so that most of the
/// window is still known, and small enough for the processor's cache. See docs/journal/bundle.md for the figures.
const FAST_HASH_LOG: u32 = 16;

/// A block that is compressed but not yet written; it has no number yet.
#[derive(Debug, Clone)]
pub struct SealedBlock {
    pub(crate) block: Block,
    pub(crate) flags: u16,
    pub(crate) raw_len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) payload: Vec<u8>,
    /// Set for a block copied from another bundle.
    pub(crate) address: Option<BlockAddress>,
}

impl SealedBlock {
    /// Bytes that it will take in the file.
    pub fn file_bytes(&self) -> u64 {
        (BLOCK_HEADER_BYTES + self.payload.len()) as u64
    }

    /// Takes a block from another bundle as it is, to be written under the same address.
    ///
    /// # Errors
    /// [`BlockError`] if it can't be read or is damaged.
    pub fn copied(reader: &Reader, entry: &BlockEntry) -> Result<Self, BlockError> {
        let mut payload = Vec::new();
        reader.read_compressed(entry, &mut payload)?;
        Ok(Self {
            block: entry.block(),
            flags: entry.flags,
            raw_len: entry.raw_len,
            payload_crc: entry.payload_crc,
            payload,
            address: Some(entry.address),
        })
    }

    /// The frame's memory, to be given to [`Compressor::recycle`].
    pub fn into_buffer(self) -> Vec<u8> {
        self.payload
    }
}

/// Compresses blocks; keep one for each thread that does.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    spare: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// A compressor with this zstd level ([`DEFAULT_LEVEL`] while recording).
    ///
    /// # Errors
    /// [`WriteError::Compression`] if zstd has no memory or no such level.
    pub fn new(level: i32) -> Result<Self, WriteError> {
        let mut compressor = Self { context: zstd::bulk::Compressor::default(), spare: Vec::new() };
        compressor.set_level(level)?;
        Ok(compressor)
    }

    /// Sets the zstd level from here on.
    ///
    /// # Errors
    /// [`WriteError::Compression`] if zstd has no such level.
    pub fn set_level(&mut self, level: i32) -> Result<(), WriteError> {
        let hash_log = if level == DEFAULT_LEVEL { FAST_HASH_LOG } else { 0 }; // 0: as the level says
        self.context
            .set_compression_level(level)
            .and_then(|()| self.context.set_parameter(CParameter::WindowLog(WINDOW_LOG)))
            .and_then(|()| self.context.set_parameter(CParameter::HashLog(hash_log)))
            .map_err(WriteError::Compression)
    }

    /// Compresses a block's raw content.
    ///
    /// # Errors
    /// [`WriteError::BlockTooLarge`], [`WriteError::Compression`].
    pub fn seal(&mut self, block: &Block, raw: &[u8]) -> Result<SealedBlock, WriteError> {
        let too_large = WriteError::BlockTooLarge { raw_bytes: raw.len(), rows: block.rows };
        let raw_len = match u32::try_from(raw.len()) {
            Ok(length) if length <= MAX_RAW_BYTES && block.rows <= crate::MAX_ROWS => length,
            _ => return Err(too_large),
        };
        self.compress(block, raw, raw_len)
    }

    /// Compresses without asking whether the block is too large: an index may have more rows than other blocks.
    pub(crate) fn compress(&mut self, block: &Block, raw: &[u8], raw_len: u32) -> Result<SealedBlock, WriteError> {
        let mut payload = std::mem::take(&mut self.spare);
        payload.clear();
        payload.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.context.compress_to_buffer(raw, &mut payload).map_err(WriteError::Compression)?;
        Ok(SealedBlock {
            block: *block,
            flags: if block.keyframe { FLAG_KEYFRAME } else { 0 } | if block.peers { FLAG_PEERS } else { 0 },
            raw_len,
            payload_crc: crc32c::crc32c(&payload),
            payload,
            address: None,
        })
    }

    /// Gives memory of a written block back.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > self.spare.capacity() {
            self.spare = buffer;
        }
    }
}

/// Compresses one block with a context of its own; for many, keep a [`Compressor`].
///
/// # Errors
/// As [`Compressor::seal`].
pub fn compress_block(level: i32, block: &Block, raw: &[u8]) -> Result<SealedBlock, WriteError> {
    Compressor::new(level)?.seal(block, raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockKind;

    /// What comes again after megabytes is found, at every level: traffic repeats itself at such distances.
    #[test]
    fn a_repetition_is_found_across_the_block() {
        let mut state = 1u64;
        let once: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(1_900_000)
        .collect();
        let raw = [once.as_slice(), once.as_slice()].concat();
        for level in [DEFAULT_LEVEL, 3] {
            let sealed = compress_block(level, &Block::new(BlockKind::DATA, 1), &raw).unwrap();
            assert!(sealed.payload.len() < once.len() + 100_000, "level {level}: {} bytes", sealed.payload.len());
        }
    }
}
