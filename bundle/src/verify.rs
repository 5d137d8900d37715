//! Is a bundle whole? One pass over the file, every checksum.

use crate::block::BlockEntry;
use crate::error::OpenError;
use crate::facts::Manifest;
use crate::header::FileHeader;
use crate::index::MAX_INDEX_ROWS;
use crate::kinds::BlockKind;
use crate::maps::decode_maps;
use crate::reader::{Damage, DamageKind, DamagedRegion, Reader};
use std::collections::BTreeMap;
use std::path::Path;

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The file header.
    pub header: FileHeader,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// Whole blocks and their rows by kind.
    pub kinds: BTreeMap<BlockKind, KindCount>,
    /// Everything that is damaged, now with every block whose payload is; in file order.
    pub damage: Damage,
    /// All of it in one word.
    pub condition: Condition,
    /// CRC32C of the whole file.
    pub digest: u32,
}

/// Whole blocks of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindCount {
    /// Blocks.
    pub blocks: u64,
    /// Rows in them, as their headers say.
    pub rows: u64,
    /// Bytes in the file, headers included.
    pub file_bytes: u64,
    /// Bytes after decompression.
    pub raw_bytes: u64,
}

impl Report {
    /// Nothing recorded is lost, and the bundle was finished.
    pub fn is_whole(&self) -> bool {
        !self.damage.is_loss() && !self.damage.no_footer
    }
}

/// A bundle's state in one word, for people and exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// As it was written.
    Whole,
    /// Damaged in this many places, each of which something else in the file makes good.
    Repaired(u64),
    /// Not damaged, but its recorder ended before it finished the file: what it had not written yet is missing.
    CutOff,
    /// Something recorded is lost.
    Damaged,
}

impl Condition {
    /// The condition of a bundle with this damage, which is [`Reader::damage`] or, all payloads checked, [`Report::damage`].
    pub fn of(reader: &Reader, damage: &Damage) -> Self {
        let places = damage.regions.len() as u64;
        if damage.is_loss() {
            Self::Damaged
        } else if damage.no_footer && !has_closing_manifest(reader) {
            Self::CutOff
        } else if damage.no_footer && reader.blocks().len() <= MAX_INDEX_ROWS {
            // The footer went without a trace, or in part.
            Self::Repaired(places.max(1))
        } else if places > 0 {
            Self::Repaired(places)
        } else {
            Self::Whole
        }
    }
}

/// Whether the recorder said at the end why it ended. Bundles with too many blocks for an index end like this.
fn has_closing_manifest(reader: &Reader) -> bool {
    let Some(last) = reader.blocks_of(BlockKind::MANIFEST).last() else { return false };
    let mut raw = Vec::new();
    let read = reader.read_block(last, &mut raw).ok().and_then(|()| decode_maps::<Manifest>(&raw).ok());
    read.and_then(|maps| maps.rows.into_iter().next_back()).is_some_and(|(_, manifest)| !manifest.end.is_empty())
}

/// Reads a bundle once and checks every checksum. Content is not decompressed.
///
/// # Errors
/// As [`Reader::open`]; damage is no error but part of the report.
pub fn verify(path: &Path) -> Result<Report, OpenError> {
    verify_reader(&Reader::open(path)?)
}

/// [`verify`] for an open bundle.
///
/// # Errors
/// [`OpenError::Io`].
pub fn verify_reader(reader: &Reader) -> Result<Report, OpenError> {
    let mut pass = Pass { reader, at: 0, digest: 0, buffer: Vec::new() };
    let mut damage = reader.damage().clone();
    let mut kinds: BTreeMap<BlockKind, KindCount> = BTreeMap::new();
    for entry in reader.blocks() {
        pass.advance(entry.payload_offset())?;
        if pass.advance(entry.end())? == entry.payload_crc {
            let count = kinds.entry(entry.kind).or_default();
            count.blocks += 1;
            count.rows += u64::from(entry.rows);
            count.file_bytes += entry.end() - entry.offset;
            count.raw_bytes += u64::from(entry.raw_len);
        } else {
            damage.blocks_bad += 1;
            damage.lost_bytes = damage.lost_bytes.saturating_add(entry.end() - entry.offset);
            damage.regions.push(lost(entry));
        }
    }
    pass.advance(reader.file_bytes())?;
    damage.regions.sort_by_key(|region| region.offset);
    Ok(Report {
        header: reader.header().clone(),
        file_bytes: reader.file_bytes(),
        kinds,
        condition: Condition::of(reader, &damage),
        damage,
        digest: pass.digest,
    })
}

fn lost(entry: &BlockEntry) -> DamagedRegion {
    let bytes = entry.end() - entry.offset;
    DamagedRegion { offset: entry.offset, bytes, kind: DamageKind::Payload, block: Some(*entry) }
}

/// Reads the file from front to back, each byte once.
struct Pass<'a> {
    reader: &'a Reader,
    at: u64,
    digest: u32,
    buffer: Vec<u8>,
}

impl Pass<'_> {
    /// Reads on up to `end`; returns the CRC32C of what was read.
    fn advance(&mut self, end: u64) -> Result<u32, OpenError> {
        let mut crc = 0;
        while self.at < end {
            let length = (end - self.at).min(4 << 20) as usize;
            self.reader.source().read(self.at, length, &mut self.buffer)?;
            if self.buffer.is_empty() {
                break;
            }
            let piece = crc32c::crc32c(&self.buffer);
            crc = crc32c::crc32c_combine(crc, piece, self.buffer.len());
            self.digest = crc32c::crc32c_combine(self.digest, piece, self.buffer.len());
            self.at += self.buffer.len() as u64;
        }
        Ok(crc)
    }
}
