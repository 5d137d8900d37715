//! Reading a bundle, whole or damaged.

use crate::MAX_RAW_BYTES;
use crate::block::{BLOCK_HEADER_BYTES, BlockEntry, FLAGS_MUST_UNDERSTAND};
use crate::error::{BlockError, OpenError};
use crate::header::{FILE_HEADER_BYTES, FIRST_BLOCK_OFFSET, FLAG_MERGED, FileHeader};
use crate::index::{IndexRow, MAX_INDEX_ROWS, TAIL_BYTES, decode_trailer};
use crate::kinds::BlockKind;
use crate::merge;
use crate::rows::decode_rows_within;
use crate::scan::{header_at, payload_matches, scan};
use crate::source::Source;
use std::cell::RefCell;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// What is wrong with a part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// A copy of the file header; another copy stands in.
    FileHeader,
    /// A block's header; the index stands in, and the block is whole.
    BlockHeader,
    /// A block whose header is whole but whose payload is not.
    Payload,
    /// A block whose header is whole and promises more bytes than there are.
    Torn,
    /// No block could be made out.
    Unreadable,
    /// The index or what follows it; nothing recorded is lost.
    Footer,
}

/// A part of the file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRegion {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// How long it is, bytes.
    pub bytes: u64,
    /// What is wrong.
    pub kind: DamageKind,
    /// The block that lay there, where something still tells.
    pub block: Option<BlockEntry>,
}

/// What opening a bundle found damaged. Payloads are not checked then, but when a block is read ([`Reader::read_block`])
/// or by [`crate::verify()`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// Damaged parts of the file, in file order.
    pub regions: Vec<DamagedRegion>,
    /// Sum of the regions' sizes.
    pub lost_bytes: u64,
    /// Blocks that are known to be lost by name: torn, or with a bad payload that showed while scanning.
    pub blocks_bad: u64,
    /// Numbers of this bundle's own blocks of which nothing was found, as ranges.
    pub missing_blocks: Vec<RangeInclusive<u64>>,
    /// Blocks of a kind that this version doesn't know. They are in [`Reader::blocks`], for copying.
    pub unknown_kinds: u64,
    /// Numbers of this bundle's own blocks that are known to be lost, where their headers are no more there to tell:
    /// they were lost before the bundle was merged into this file.
    pub lost_blocks: Vec<u64>,
    /// There was no usable footer: the recording did not end properly, or its end is damaged. The file was scanned.
    pub no_footer: bool,
}

impl Damage {
    /// Whether something recorded is lost. A missing footer, a bad copy of the file header, or a block header that the
    /// index could replace is no loss.
    pub fn is_loss(&self) -> bool {
        let lossless = [DamageKind::FileHeader, DamageKind::BlockHeader, DamageKind::Footer];
        !self.missing_blocks.is_empty() || self.regions.iter().any(|region| !lossless.contains(&region.kind))
    }

    /// How many of this bundle's own blocks left no trace but a gap in the numbers.
    pub fn missing_block_count(&self) -> u64 {
        let count = |range: &RangeInclusive<u64>| range.end().saturating_sub(*range.start()).saturating_add(1);
        self.missing_blocks.iter().map(count).fold(0, u64::saturating_add)
    }

    fn add(&mut self, region: DamagedRegion) {
        self.lost_bytes = self.lost_bytes.saturating_add(region.bytes);
        if region.block.is_some() && region.kind != DamageKind::BlockHeader {
            self.blocks_bad += 1;
        }
        self.regions.push(region);
    }
}

/// An open bundle. Blocks can be read by several threads at once.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    header: FileHeader,
    entries: Vec<BlockEntry>,
    damage: Damage,
    /// Size of the bundle's own file.
    file_bytes: u64,
}

impl Reader {
    /// Opens a bundle, finished or `.partial`, whole or damaged.
    ///
    /// # Errors
    /// [`OpenError`]; damage beyond all copies of the file header is none, see [`Reader::damage`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(OpenError::NotABundle);
        }
        Self::open_source(Source::File { file: Arc::new(file), bytes: metadata.len() })
    }

    /// Opens a bundle that lies in memory.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, OpenError> {
        Self::open_source(Source::Memory(bytes.into()))
    }

    fn open_source(source: Source) -> Result<Self, OpenError> {
        let mut damage = Damage::default();
        let header = find_header(&source, &mut damage)?;
        let mut regions = Vec::new();
        let entries = match read_index(&source, &header)? {
            Some(index) => compare_with_index(&source, &header, index, &mut regions)?,
            None => None,
        };
        let entries = match entries {
            Some(entries) => entries,
            None => {
                damage.no_footer = true;
                let found = scan(&source, &header.bundle_id)?;
                regions = found.regions;
                found.entries
            }
        };
        let footer = footer_offset(&source, &header)?;
        if !damage.no_footer {
            regions.extend(footer_copy_damage(&source)?);
        }
        for mut region in regions {
            if Some(region.offset) == footer && region.kind == DamageKind::Unreadable {
                region.kind = DamageKind::Footer;
            }
            damage.add(region);
        }
        damage.unknown_kinds = unknown_kinds(&entries);
        damage.missing_blocks = missing_blocks(&header, &entries, &damage);
        let file_bytes = source.len();
        Ok(Self { source, header, entries, damage, file_bytes })
    }

    /// Whether several bundles are merged in this file.
    pub fn is_merged(&self) -> bool {
        self.header.flags & FLAG_MERGED != 0
    }

    /// The bundles in this file, each as if it had a file of its own: those that were merged, or this one.
    ///
    /// # Errors
    /// [`OpenError::HeaderDamaged`] if nothing in a merged file says which they are.
    pub fn parts(self) -> Result<Vec<Self>, OpenError> {
        if !self.is_merged() {
            return Ok(vec![self]);
        }
        let sources = merge::sources(&self)?;
        let owners = merge::by_origin(&sources);
        let mut parts: Vec<Self> = sources
            .iter()
            .map(|source| Self {
                source: self.source.clone(),
                header: source.header(),
                entries: Vec::new(),
                damage: source.damage(),
                file_bytes: source.file_bytes,
            })
            .collect();
        for entry in &self.entries {
            let owner = owners.get(&entry.address.origin).and_then(|number| parts.get_mut(*number));
            if let Some(part) = owner {
                part.entries.push(*entry);
            }
        }
        // Damage of this file is its bundle's, where a block tells; else it is told once, with the first.
        for region in &self.damage.regions {
            let owner = region.block.and_then(|block| owners.get(&block.address.origin)).copied().unwrap_or_default();
            if let Some(part) = parts.get_mut(owner) {
                part.damage.add(region.clone());
            }
        }
        for part in &mut parts {
            part.damage.no_footer |= self.damage.no_footer;
            part.damage.unknown_kinds = unknown_kinds(&part.entries);
            part.damage.missing_blocks = missing_blocks(&part.header, &part.entries, &part.damage);
        }
        Ok(parts)
    }

    /// The file header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// All blocks in file order, also those of unknown kinds; the index is not among them.
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.entries
    }

    /// Blocks of one kind, in file order.
    pub fn blocks_of(&self, kind: BlockKind) -> impl Iterator<Item = &BlockEntry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    /// What was found damaged when the bundle was opened.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Size of the file, bytes; of a bundle in a merged file, what its own had.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Reads and decompresses a block: afterwards `raw` holds its content and nothing else.
    ///
    /// # Errors
    /// [`BlockError`]; `raw` is empty then, and other blocks are not affected.
    pub fn read_block(&self, entry: &BlockEntry, raw: &mut Vec<u8>) -> Result<(), BlockError> {
        let result = self.check(entry).and_then(|()| {
            SCRATCH.with_borrow_mut(|scratch| {
                self.read_compressed(entry, &mut scratch.compressed)?;
                scratch.decompress(entry.raw_len, raw)
            })
        });
        if result.is_err() {
            raw.clear();
        }
        result
    }

    /// Reads a block's zstd frame as it stands in the file, checked against its checksum.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn read_compressed(&self, entry: &BlockEntry, frame: &mut Vec<u8>) -> Result<(), BlockError> {
        if entry.compressed_len as usize > zstd::zstd_safe::compress_bound(MAX_RAW_BYTES as usize) {
            return Err(BlockError::TooLarge);
        }
        self.source.read(entry.payload_offset(), entry.compressed_len as usize, frame)?;
        if frame.len() != entry.compressed_len as usize || crc32c::crc32c(frame) != entry.payload_crc {
            return Err(BlockError::Checksum);
        }
        Ok(())
    }

    /// Whether this version can read the block at all.
    fn check(&self, entry: &BlockEntry) -> Result<(), BlockError> {
        if self.header.encryption != 0 || entry.flags & FLAGS_MUST_UNDERSTAND != 0 {
            return Err(BlockError::Unsupported { flags: entry.flags, encryption: self.header.encryption });
        }
        if entry.raw_len > MAX_RAW_BYTES {
            return Err(BlockError::TooLarge);
        }
        Ok(())
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }
}

/// What a thread keeps between blocks.
struct Scratch {
    compressed: Vec<u8>,
    context: Option<zstd::bulk::Decompressor<'static>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { compressed: Vec::new(), context: None }) };
}

impl Scratch {
    /// Decompresses the frame. `raw_len` was checked by the caller.
    fn decompress(&mut self, raw_len: u32, raw: &mut Vec<u8>) -> Result<(), BlockError> {
        let context = match &mut self.context {
            Some(context) => context,
            empty => empty.insert(zstd::bulk::Decompressor::new()?),
        };
        // As much room as the header states, so that a frame with more in it is refused, not unpacked. Room that is not
        // zeroed first: that would touch all of it once more.
        raw.clear();
        raw.reserve_exact(raw_len as usize);
        match context.decompress_to_buffer(&self.compressed, raw) {
            Ok(length) if length == raw_len as usize => Ok(()),
            _ => Err(BlockError::Compression),
        }
    }
}

/// The first whole copy of the file header, from the start or from the footer.
fn find_header(source: &Source, damage: &mut Damage) -> Result<FileHeader, OpenError> {
    let mut start = Vec::new();
    let mut tail = Vec::new();
    source.read(0, FIRST_BLOCK_OFFSET as usize, &mut start)?;
    source.read(source.len().saturating_sub(TAIL_BYTES as u64), FILE_HEADER_BYTES, &mut tail)?;
    let (first, second) = start.split_at_checked(FILE_HEADER_BYTES).unwrap_or((&start, &[]));
    let mut header = None;
    let mut worst = OpenError::NotABundle;
    for (place, copy) in [Some(0), Some(FILE_HEADER_BYTES as u64), None].into_iter().zip([first, second, &tail]) {
        match FileHeader::decode(copy) {
            Ok(found) => header = header.or(Some(found)),
            Err(error) => {
                if let Some(offset) = place {
                    let region =
                        DamagedRegion { offset, bytes: copy.len() as u64, kind: DamageKind::FileHeader, block: None };
                    damage.add(region);
                }
                match (&worst, &error) {
                    (_, OpenError::NewerMajor { .. }) | (OpenError::NotABundle, OpenError::HeaderDamaged) => {
                        worst = error;
                    }
                    _ => {}
                }
            }
        }
    }
    match worst {
        // An intact copy that says "newer" counts even if another copy, damaged, were to say something else.
        OpenError::NewerMajor { .. } => Err(worst),
        _ => header.ok_or(worst),
    }
}

/// The footer's copy of the file header, if it is damaged.
fn footer_copy_damage(source: &Source) -> Result<Option<DamagedRegion>, OpenError> {
    let offset = source.len().saturating_sub(TAIL_BYTES as u64);
    let mut copy = Vec::new();
    source.read(offset, FILE_HEADER_BYTES, &mut copy)?;
    let damaged = FileHeader::decode(&copy).is_err();
    Ok(damaged.then_some(DamagedRegion { offset, bytes: copy.len() as u64, kind: DamageKind::FileHeader, block: None }))
}

/// Where the trailer says that the footer begins.
fn footer_offset(source: &Source, header: &FileHeader) -> Result<Option<u64>, OpenError> {
    let mut trailer = Vec::new();
    source.read(source.len().saturating_sub(TAIL_BYTES as u64), TAIL_BYTES, &mut trailer)?;
    let Some(trailer) = trailer.get(FILE_HEADER_BYTES..) else { return Ok(None) };
    let found = decode_trailer(&header.bundle_id, trailer);
    Ok(found.filter(|(_, bytes)| *bytes == source.len()).map(|(offset, _)| offset))
}

/// The index, if its block is whole and its entries fill the file without gap or overlap.
fn read_index(source: &Source, header: &FileHeader) -> Result<Option<Vec<BlockEntry>>, OpenError> {
    let Some(offset) = footer_offset(source, header)? else { return Ok(None) };
    let mut buffer = Vec::new();
    let Some(entry) = header_at(source, &header.bundle_id, offset, &mut buffer)? else { return Ok(None) };
    let ends = entry.end().checked_add(TAIL_BYTES as u64) == Some(source.len());
    if entry.kind != BlockKind::INDEX || !ends || entry.raw_len > MAX_RAW_BYTES {
        return Ok(None);
    }
    source.read(entry.payload_offset(), entry.compressed_len as usize, &mut buffer)?;
    if crc32c::crc32c(&buffer) != entry.payload_crc {
        return Ok(None);
    }
    let mut scratch = Scratch { compressed: buffer, context: None };
    let mut raw = Vec::new();
    if scratch.decompress(entry.raw_len, &mut raw).is_err() {
        return Ok(None);
    }
    let most = (source.len() / BLOCK_HEADER_BYTES as u64).min(MAX_INDEX_ROWS as u64);
    let Ok(rows) = decode_rows_within::<IndexRow>(&raw, most) else { return Ok(None) };
    let entries: Vec<BlockEntry> = rows.into_iter().map(BlockEntry::from).collect();
    let mut next = FIRST_BLOCK_OFFSET;
    for entry in &entries {
        if entry.offset != next || usize::from(entry.header_len) < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        next = entry.end();
    }
    Ok((next == offset).then_some(entries))
}

/// Checks every entry of the index against the header it points to. `None`: they disagree, don't trust the index. A
/// damaged header is replaced by the index if the payload is whole.
fn compare_with_index(
    source: &Source,
    header: &FileHeader,
    index: Vec<BlockEntry>,
    regions: &mut Vec<DamagedRegion>,
) -> Result<Option<Vec<BlockEntry>>, OpenError> {
    let mut entries = Vec::with_capacity(index.len());
    let mut buffer = Vec::new();
    for entry in index {
        match header_at(source, &header.bundle_id, entry.offset, &mut buffer)? {
            Some(found) if found == entry => entries.push(entry),
            Some(_) => return Ok(None),
            None if payload_matches(source, &entry, &mut buffer)? => {
                let bytes = u64::from(entry.header_len);
                let kind = DamageKind::BlockHeader;
                regions.push(DamagedRegion { offset: entry.offset, bytes, kind, block: Some(entry) });
                entries.push(entry);
            }
            None => {
                let bytes = entry.end() - entry.offset;
                let kind = DamageKind::Payload;
                regions.push(DamagedRegion { offset: entry.offset, bytes, kind, block: Some(entry) });
            }
        }
    }
    Ok(Some(entries))
}

fn unknown_kinds(entries: &[BlockEntry]) -> u64 {
    entries.iter().filter(|entry| entry.kind.name().is_none()).count() as u64
}

/// Gaps in the numbers of the bundle's own blocks, which are given without any.
fn missing_blocks(header: &FileHeader, entries: &[BlockEntry], damage: &Damage) -> Vec<RangeInclusive<u64>> {
    let lost = damage.regions.iter().filter_map(|region| region.block.as_ref());
    let own = entries.iter().chain(lost).filter(|entry| entry.address.origin == *header.bundle_id.as_bytes());
    let mut numbers: Vec<u64> =
        own.map(|entry| entry.address.sequence).chain(damage.lost_blocks.iter().copied()).collect();
    numbers.sort_unstable();
    let mut missing = Vec::new();
    let mut expected = 0;
    for number in numbers {
        if number > expected {
            missing.push(expected..=number - 1);
        }
        expected = number.saturating_add(1);
    }
    missing
}
