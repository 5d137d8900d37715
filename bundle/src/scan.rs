//! Finding blocks without the footer: from header to header, and after damage by looking for the next header.

use crate::block::{BLOCK_MAGIC, BlockEntry, MAX_BLOCK_HEADER_BYTES};
use crate::header::{FILE_HEADER_BYTES, FIRST_BLOCK_OFFSET, FileHeader};
use crate::index::{TAIL_BYTES, decode_trailer};
use crate::kinds::BlockKind;
use crate::reader::{DamageKind, DamagedRegion};
use crate::source::Source;
use std::collections::HashSet;
use std::io;
use uuid::Uuid;

/// Bytes read at once while looking for the next header.
const CHUNK_BYTES: usize = 4 << 20;

/// What a scan found, in file order.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) entries: Vec<BlockEntry>,
    pub(crate) regions: Vec<DamagedRegion>,
}

/// Walks over the whole file. Reads headers only, as long as each block is followed by another.
pub(crate) fn scan(source: &Source, bundle_id: &Uuid) -> io::Result<Scan> {
    let bytes = source.len();
    let mut scanner = Scanner {
        source,
        bundle_id,
        found: Scan::default(),
        seen: HashSet::new(),
        budget: bytes.saturating_mul(2),
        buffer: Vec::new(),
    };
    scanner.run(bytes)?;
    Ok(scanner.found)
}

/// The header at `offset`, if there is one.
pub(crate) fn header_at(
    source: &Source,
    bundle_id: &Uuid,
    offset: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<BlockEntry>> {
    source.read(offset, MAX_BLOCK_HEADER_BYTES, buffer)?;
    Ok(BlockEntry::decode(bundle_id, offset, buffer))
}

/// Whether a block's compressed bytes match their checksum.
pub(crate) fn payload_matches(source: &Source, entry: &BlockEntry, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let (mut crc, mut at) = (0, entry.payload_offset());
    while at < entry.end() {
        let length = (entry.end() - at).min(CHUNK_BYTES as u64);
        source.read(at, length as usize, buffer)?;
        if buffer.len() as u64 != length {
            return Ok(false);
        }
        crc = crc32c::crc32c_append(crc, buffer);
        at += length;
    }
    Ok(crc == entry.payload_crc)
}

struct Scanner<'a> {
    source: &'a Source,
    bundle_id: &'a Uuid,
    found: Scan,
    /// Blocks found so far: a recording of this bundle's own transfer would hold copies of them.
    seen: HashSet<(crate::block::BlockAddress, u32)>,
    /// Bytes that may still be read to check payloads, so that overlapping claims can't make a scan quadratic.
    budget: u64,
    buffer: Vec<u8>,
}

impl Scanner<'_> {
    fn run(&mut self, bytes: u64) -> io::Result<()> {
        let mut at = FIRST_BLOCK_OFFSET;
        // Whether the last entry ends just here, so that it may be to blame if nothing follows.
        let mut follows = false;
        while at < bytes {
            let here = header_at(self.source, self.bundle_id, at, &mut self.buffer)?;
            match here {
                Some(entry) if entry.end() <= bytes => {
                    at = entry.end();
                    follows = entry.kind != BlockKind::INDEX;
                    if follows {
                        self.seen.insert((entry.address, entry.first_row));
                        self.found.entries.push(entry);
                    } else {
                        if !self.payload_is_whole(&entry)? {
                            self.lose(entry.offset, entry.end(), DamageKind::Footer, None);
                        }
                        at = self.tail(at, bytes)?;
                    }
                }
                torn => {
                    at = self.recover(at, bytes, torn, follows)?;
                    follows = false;
                }
            }
        }
        Ok(())
    }

    /// Finds where to go on when no whole block begins at `at`; notes what is lost.
    fn recover(&mut self, at: u64, bytes: u64, torn: Option<BlockEntry>, follows: bool) -> io::Result<u64> {
        let suspect = if follows { self.found.entries.last().copied() } else { None };
        if let Some(block) = suspect
            && !self.payload_is_whole(&block)?
        {
            self.found.entries.pop();
            let next = self.search(block.payload_offset(), bytes)?;
            let end = next.min(block.end());
            self.lose(block.offset, end, DamageKind::Payload, Some(block));
            if next < block.end() {
                return Ok(next);
            }
        }
        let from = torn.map_or(at.saturating_add(1), |entry| entry.payload_offset());
        let next = self.search(from, bytes)?;
        self.lose(at, next, if torn.is_some() { DamageKind::Torn } else { DamageKind::Unreadable }, torn);
        Ok(next)
    }

    fn payload_is_whole(&mut self, block: &BlockEntry) -> io::Result<bool> {
        match self.budget.checked_sub(u64::from(block.compressed_len)) {
            Some(left) => {
                self.budget = left;
                payload_matches(self.source, block, &mut self.buffer)
            }
            None => Ok(false),
        }
    }

    /// Where the next header of a block that was not seen yet lies at or after `from`; the file's end if there is none.
    fn search(&mut self, from: u64, bytes: u64) -> io::Result<u64> {
        let finder = memchr::memmem::Finder::new(&BLOCK_MAGIC);
        let mut start = from;
        while start < bytes {
            self.source.read(start, CHUNK_BYTES + MAX_BLOCK_HEADER_BYTES, &mut self.buffer)?;
            if self.buffer.is_empty() {
                break;
            }
            for hit in finder.find_iter(&self.buffer).take_while(|hit| *hit < CHUNK_BYTES) {
                let header = self.buffer.get(hit..).unwrap_or_default();
                let header = header.get(..MAX_BLOCK_HEADER_BYTES).unwrap_or(header);
                let offset = start + hit as u64;
                if let Some(entry) = BlockEntry::decode(self.bundle_id, offset, header)
                    && !self.seen.contains(&(entry.address, entry.first_row))
                {
                    return Ok(offset);
                }
            }
            start += CHUNK_BYTES as u64;
        }
        Ok(bytes)
    }

    /// Checks what follows the index block, and returns where it ends.
    fn tail(&mut self, at: u64, bytes: u64) -> io::Result<u64> {
        self.source.read(at, TAIL_BYTES, &mut self.buffer)?;
        let end = at.saturating_add(TAIL_BYTES as u64).min(bytes);
        let middle = at.saturating_add(FILE_HEADER_BYTES as u64).min(bytes);
        let copy = self.buffer.get(..FILE_HEADER_BYTES).unwrap_or_default();
        let copy_is_whole = FileHeader::decode(copy).is_ok_and(|header| header.bundle_id == *self.bundle_id);
        let trailer = self.buffer.get(FILE_HEADER_BYTES..).unwrap_or_default();
        let trailer_is_whole = decode_trailer(self.bundle_id, trailer).is_some();
        if !copy_is_whole {
            self.lose(at, middle, DamageKind::Footer, None);
        }
        if !trailer_is_whole {
            self.lose(middle, end, DamageKind::Footer, None);
        }
        Ok(end)
    }

    fn lose(&mut self, start: u64, end: u64, kind: DamageKind, block: Option<BlockEntry>) {
        if start < end {
            self.found.regions.push(DamagedRegion { offset: start, bytes: end - start, kind, block });
        }
    }
}
