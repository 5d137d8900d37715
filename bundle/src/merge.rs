//! Several bundles in one file, each with its own node, clock and damage: what `kfr merge` writes and a reader takes apart.
//!
//! Blocks are copied as they are, under their own addresses. What stood in the headers of their files is in a block of its
//! own ([`BlockKind::SOURCES`]), at the start and once more at the end.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::block::{Block, BlockEntry};
use crate::error::{BlockError, OpenError, WriteError};
use crate::header::{ClockId, FLAG_MERGED, FileHeader, Version};
use crate::kinds::BlockKind;
use crate::maps::{MapWriter, decode_maps};
use crate::reader::{Damage, DamageKind, DamagedRegion, Reader};
use crate::seal::SealedBlock;
use crate::writer::{Summary, Writer};

/// Most bundles that one file can hold.
pub const MAX_SOURCES: usize = 4096;
/// Damaged places that are told of one bundle; more are in its sum of lost bytes.
const MAX_REGIONS: usize = 1000;
/// Lost blocks that are told by number; more look as if nothing of them had been found.
const MAX_LOST_BLOCKS: usize = 10_000;

/// A row of a [`BlockKind::SOURCES`] block: a bundle that was merged, as its file header and its reader told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceFact {
    /// Its UUID.
    pub bundle: String,
    /// The bundle that it was made from; empty: none.
    pub derived_from: String,
    /// Version of its format.
    pub major: u16,
    /// The same, minor.
    pub minor: u16,
    /// Node.
    pub node: String,
    /// Boot id as a UUID; empty where unknown.
    pub boot_id: String,
    /// The clock of its event times, by its Linux number.
    pub clock: u16,
    /// Its redaction level.
    pub redaction: u16,
    /// Its encryption.
    pub encryption: u16,
    /// Wall clock when it was begun, ns.
    pub created_realtime_ns: u64,
    /// Its event clock at the same moment, ns.
    pub created_clock_ns: u64,
    /// Size of its file, bytes.
    pub file_bytes: u64,
    /// UUIDs of the bundles that its blocks were first written to: its own, unless it was cut from others.
    pub origins: Vec<String>,
    /// It had no footer.
    pub no_footer: bool,
    /// Bytes of it that could not be read.
    pub lost_bytes: u64,
    /// Numbers of its own blocks that are known to be lost.
    pub lost_blocks: Vec<u64>,
    /// Places in its file that were damaged.
    pub damage: Vec<DamageFact>,
}

/// A damaged place in the file of a bundle that was merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DamageFact {
    /// Where it began, bytes.
    pub offset: u64,
    /// How long it was, bytes.
    pub bytes: u64,
    /// What was wrong: `file_header`, `block_header`, `payload`, `torn`, `unreadable`, `footer`.
    pub kind: String,
}

const DAMAGE_NAMES: [(DamageKind, &str); 6] = [
    (DamageKind::FileHeader, "file_header"),
    (DamageKind::BlockHeader, "block_header"),
    (DamageKind::Payload, "payload"),
    (DamageKind::Torn, "torn"),
    (DamageKind::Unreadable, "unreadable"),
    (DamageKind::Footer, "footer"),
];

/// Bundles can't be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Two inputs hold blocks of the same recording: everything in it would count twice.
    #[error("two of the bundles hold the same recording {0}")]
    Twice(Uuid),
    /// None, or more than [`MAX_SOURCES`].
    #[error("{0} bundles can't be merged: at least one, at most {MAX_SOURCES}")]
    Count(usize),
    /// An input could not be read at all.
    #[error("a bundle can't be read any more")]
    Read(#[source] std::io::Error),
    /// The output could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Joins bundles in the order given; of merged files, their [`Reader::parts`]. Blocks whose payload is damaged are left out and
/// told of as lost. `writer` makes the output for the header that it is given.
///
/// # Errors
/// [`MergeError`]; a file that was begun stays as `.partial`.
pub fn merge(
    parts: &[Reader],
    writer: impl FnOnce(&FileHeader) -> Result<Writer, WriteError>,
) -> Result<Summary, MergeError> {
    if parts.is_empty() || parts.len() > MAX_SOURCES {
        return Err(MergeError::Count(parts.len()));
    }
    let mut sources = Vec::with_capacity(parts.len());
    let mut known = BTreeSet::new();
    for part in parts {
        let origins = origins(part);
        if let Some(twice) = origins.iter().find(|origin| !known.insert(**origin)) {
            return Err(MergeError::Twice(*twice));
        }
        sources.push(describe(part, &origins));
    }
    let mut writer = writer(&merged_header(parts))?;
    write_sources(&mut writer, &sources)?;
    for (part, source) in parts.iter().zip(&mut sources) {
        for entry in part.blocks() {
            match SealedBlock::copied(part, entry) {
                Ok(block) => {
                    writer.write_sealed(block)?;
                }
                Err(BlockError::Io(error)) => return Err(MergeError::Read(error)),
                Err(_) => lose(source, entry),
            }
        }
    }
    write_sources(&mut writer, &sources)?;
    Ok(writer.finish()?)
}

/// Where the blocks of a bundle were first written to: itself always, so that one without blocks is told from others.
fn origins(part: &Reader) -> BTreeSet<Uuid> {
    let own = part.header().bundle_id;
    part.blocks().iter().map(|entry| Uuid::from_bytes(entry.address.origin)).chain([own]).collect()
}

/// The same inputs give the same file: its UUID is made of theirs, so it is as hard to guess as they are.
fn merged_header(parts: &[Reader]) -> FileHeader {
    let ids = parts.iter().map(|part| part.header().bundle_id.as_u128());
    let mixed = ids.fold(0u128, |mixed, id| mixed.rotate_left(8) ^ id);
    let headers = || parts.iter().map(Reader::header);
    FileHeader {
        bundle_id: Uuid::new_v8(mixed.to_be_bytes()),
        clock: ClockId::REALTIME,
        flags: FLAG_MERGED,
        // Nothing is masked if anything isn't.
        redaction: headers().map(|header| header.redaction).min().unwrap_or_default(),
        encryption: headers().map(|header| header.encryption).max().unwrap_or_default(),
        created_realtime_ns: headers().map(|header| header.created_realtime_ns).min().unwrap_or_default(),
        created_clock_ns: headers().map(|header| header.created_realtime_ns).min().unwrap_or_default(),
        ..FileHeader::new("")
    }
}

fn write_sources(writer: &mut Writer, sources: &[SourceFact]) -> Result<(), WriteError> {
    let mut maps = MapWriter::new();
    for source in sources {
        maps.push(source).map_err(|error| WriteError::Compression(std::io::Error::other(error)))?;
    }
    writer.write_block(&Block::new(BlockKind::SOURCES, maps.len()), &maps.encode())?;
    Ok(())
}

fn describe(part: &Reader, origins: &BTreeSet<Uuid>) -> SourceFact {
    let (header, damage) = (part.header(), part.damage());
    let id = |bytes: &Uuid| if bytes.is_nil() { String::new() } else { bytes.to_string() };
    let mut source = SourceFact {
        bundle: header.bundle_id.to_string(),
        derived_from: id(&header.derived_from),
        major: header.format.major,
        minor: header.format.minor,
        node: header.node.clone(),
        boot_id: id(&Uuid::from_bytes(header.boot_id)),
        clock: header.clock.0,
        redaction: header.redaction,
        encryption: header.encryption,
        created_realtime_ns: header.created_realtime_ns,
        created_clock_ns: header.created_clock_ns,
        file_bytes: part.file_bytes(),
        origins: origins.iter().map(Uuid::to_string).collect(),
        no_footer: damage.no_footer,
        lost_bytes: damage.lost_bytes,
        lost_blocks: damage.lost_blocks.clone(),
        damage: Vec::new(),
    };
    for region in &damage.regions {
        tell(&mut source, region);
    }
    let lost = damage.regions.iter().filter(|region| region.kind != DamageKind::BlockHeader);
    for block in lost.filter_map(|region| region.block.as_ref()) {
        if block.address.origin == *header.bundle_id.as_bytes() {
            tell_lost(&mut source, block);
        }
    }
    source
}

fn tell(source: &mut SourceFact, region: &DamagedRegion) {
    if source.damage.len() < MAX_REGIONS {
        let name = DAMAGE_NAMES.iter().find(|(kind, _)| *kind == region.kind).map_or("", |(_, name)| name);
        source.damage.push(DamageFact { offset: region.offset, bytes: region.bytes, kind: name.to_string() });
    }
}

fn tell_lost(source: &mut SourceFact, block: &BlockEntry) {
    if source.lost_blocks.len() < MAX_LOST_BLOCKS && !source.lost_blocks.contains(&block.address.sequence) {
        source.lost_blocks.push(block.address.sequence);
    }
}

/// A block that can't be copied.
fn lose(source: &mut SourceFact, entry: &BlockEntry) {
    let bytes = entry.end().saturating_sub(entry.offset);
    source.lost_bytes = source.lost_bytes.saturating_add(bytes);
    tell(source, &DamagedRegion { offset: entry.offset, bytes, kind: DamageKind::Payload, block: None });
    if entry.address.origin == source.bundle.parse().map(Uuid::into_bytes).unwrap_or_default() {
        tell_lost(source, entry);
    }
}

/// The bundles of a merged file, as its last readable list names them.
///
/// # Errors
/// [`OpenError::HeaderDamaged`] if no list can be read: then nothing says which node a block is of.
pub(crate) fn sources(reader: &Reader) -> Result<Vec<SourceFact>, OpenError> {
    let own = *reader.header().bundle_id.as_bytes();
    let lists = reader.blocks_of(BlockKind::SOURCES).filter(|entry| entry.address.origin == own);
    let mut raw = Vec::new();
    // The second one also knows what got lost on the way.
    let lists: Vec<_> = lists.collect();
    let read = lists.into_iter().rev().find_map(|entry| {
        reader.read_block(entry, &mut raw).ok()?;
        decode_maps::<SourceFact>(&raw).ok().filter(|maps| maps.malformed == 0 && !maps.rows.is_empty())
    });
    let rows = read.ok_or(OpenError::HeaderDamaged)?.rows;
    Ok(rows.into_iter().map(|(_, source)| source).take(MAX_SOURCES).collect())
}

impl SourceFact {
    /// The header that its own file had.
    pub(crate) fn header(&self) -> FileHeader {
        let id = |text: &str| text.parse().unwrap_or(Uuid::nil());
        FileHeader {
            format: Version { major: self.major, minor: self.minor },
            bundle_id: id(&self.bundle),
            derived_from: id(&self.derived_from),
            node: self.node.clone(),
            boot_id: id(&self.boot_id).into_bytes(),
            clock: ClockId(self.clock),
            redaction: self.redaction,
            encryption: self.encryption,
            flags: 0,
            created_realtime_ns: self.created_realtime_ns,
            created_clock_ns: self.created_clock_ns,
        }
    }

    /// The damage that its own file had, but for what its blocks' numbers tell.
    pub(crate) fn damage(&self) -> Damage {
        let regions = self.damage.iter().map(|fact| {
            let kind = DAMAGE_NAMES.iter().find(|(_, name)| *name == fact.kind);
            // What a later version calls otherwise is a loss until it is known to be none.
            let kind = kind.map_or(DamageKind::Unreadable, |(kind, _)| *kind);
            DamagedRegion { offset: fact.offset, bytes: fact.bytes, kind, block: None }
        });
        Damage {
            regions: regions.collect(),
            lost_bytes: self.lost_bytes,
            blocks_bad: self.lost_blocks.len() as u64,
            lost_blocks: self.lost_blocks.clone(),
            no_footer: self.no_footer,
            ..Damage::default()
        }
    }
}

/// Which of several sources a block is of, by its origin. The first that names an origin has it.
pub(crate) fn by_origin(sources: &[SourceFact]) -> HashMap<[u8; 16], usize> {
    let mut owners = HashMap::new();
    for (number, source) in sources.iter().enumerate() {
        for origin in source.origins.iter().chain([&source.bundle]) {
            if let Ok(id) = origin.parse::<Uuid>() {
                owners.entry(id.into_bytes()).or_insert(number);
            }
        }
    }
    owners
}
