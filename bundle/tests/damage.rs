//! Promise 5: cut at any byte, flip any bit, and everything whole is read, the rest counted and named.

use kfr_bundle::header::{FILE_HEADER_BYTES, FIRST_BLOCK_OFFSET};
use kfr_bundle::index::TAIL_BYTES;
use kfr_bundle::verify::verify_reader;
use kfr_bundle::writer::compress_block;
use kfr_bundle::{
    Block, BlockEntry, BlockError, BlockKind, Condition, DamageKind, FileHeader, OpenError, Reader, Uuid, Writer,
    verify,
};
use std::io::Write;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn header() -> FileHeader {
    FileHeader { bundle_id: Uuid::from_bytes(*b"0123456789abcdef"), ..FileHeader::new("node-1") }
}

/// Contents of the blocks of [`small`]; not compressible, so that their bytes stand in the file.
fn content(block: usize) -> Vec<u8> {
    let mut state = block as u32 + 1;
    (0..40 + 7 * block)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

const KINDS: [BlockKind; 4] = [BlockKind::MANIFEST, BlockKind::DATA, BlockKind::SOCKETS, BlockKind(777)];

fn bundle(blocks: impl IntoIterator<Item = Vec<u8>>, finish: bool) -> Vec<u8> {
    let sink = Shared::default();
    let mut writer = Writer::to_stream(Box::new(sink.clone()), &header()).unwrap();
    for (index, raw) in blocks.into_iter().enumerate() {
        let block = Block::new(KINDS[index % KINDS.len()], index as u32).with_times(index as u64, 9);
        let address = writer.write_block(&block, &raw).unwrap();
        assert_eq!(address.sequence, index as u64);
    }
    if finish {
        assert!(writer.finish().unwrap().footer);
    }
    sink.0.lock().unwrap().clone()
}

fn small(finish: bool) -> Vec<u8> {
    bundle((0..6).map(content), finish)
}

/// Opens damaged bytes; returns the numbers of the blocks that read back, checked against what was written.
fn whole_blocks(bytes: &[u8]) -> Result<(Vec<u64>, Reader), OpenError> {
    let reader = Reader::open_bytes(bytes.to_vec())?;
    let mut whole = Vec::new();
    let mut raw = Vec::new();
    for entry in reader.blocks() {
        if reader.read_block(entry, &mut raw).is_ok() {
            assert_eq!(raw, content(entry.address.sequence as usize), "no wrong bytes");
            whole.push(entry.address.sequence);
        } else {
            assert!(raw.is_empty());
        }
    }
    let sum: u64 = reader.damage().regions.iter().map(|region| region.bytes).sum();
    assert_eq!(sum, reader.damage().lost_bytes);
    Ok((whole, reader))
}

fn entries(bytes: &[u8]) -> Vec<BlockEntry> {
    Reader::open_bytes(bytes.to_vec()).unwrap().blocks().to_vec()
}

#[test]
fn undamaged() {
    for finish in [true, false] {
        let (whole, reader) = whole_blocks(&small(finish)).unwrap();
        assert_eq!(whole, [0, 1, 2, 3, 4, 5]);
        assert_eq!(reader.header(), &header());
        let damage = reader.damage();
        assert_eq!((damage.lost_bytes, damage.is_loss(), damage.no_footer), (0, false, !finish));
        assert_eq!(damage.unknown_kinds, 1);
        let entry = &reader.blocks()[3];
        assert_eq!((entry.rows, entry.min_time_ns, entry.max_time_ns, entry.schema), (3, 3, 9, 1));
        assert_eq!(entry.address.row(4).to_string(), "30313233.3:4");
    }
}

#[test]
fn cut_at_every_byte() {
    let bytes = small(true);
    let entries = entries(&bytes);
    for cut in 0..bytes.len() {
        let opened = whole_blocks(&bytes[..cut]);
        if cut < FILE_HEADER_BYTES {
            assert!(matches!(opened, Err(OpenError::NotABundle | OpenError::HeaderDamaged)), "cut at {cut}");
            continue;
        }
        let (whole, reader) = opened.unwrap();
        let expected: Vec<u64> =
            entries.iter().filter(|entry| entry.end() <= cut as u64).map(|entry| entry.address.sequence).collect();
        assert_eq!(whole, expected, "cut at {cut}");
        assert!(reader.damage().no_footer);
        let index_end = (bytes.len() - TAIL_BYTES) as u64;
        if (cut as u64) < index_end {
            // Whatever is left beyond the last whole block is accounted for.
            let ends = entries.iter().map(BlockEntry::end).filter(|end| *end <= cut as u64);
            let end = ends.max().unwrap_or(FIRST_BLOCK_OFFSET);
            let tail: u64 = reader.damage().regions.iter().filter(|r| r.offset >= end).map(|r| r.bytes).sum();
            assert_eq!(tail, (cut as u64).saturating_sub(end), "cut at {cut}");
        }
    }
}

#[test]
fn every_bit_flipped() {
    for finish in [true, false] {
        let bytes = small(finish);
        let entries = entries(&bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let (whole, reader) = whole_blocks(&damaged).unwrap_or_else(|error| panic!("{at}: {error}"));
                let hit = entries.iter().find(|entry| entry.offset <= at as u64 && (at as u64) < entry.end());
                let in_header = hit.is_some_and(|entry| (at as u64) < entry.payload_offset());
                // With the index even a block with a bad header is whole.
                let lost = hit.filter(|_| !(in_header && finish)).map(|entry| entry.address.sequence);
                let expected: Vec<u64> = (0..6).filter(|number| Some(*number) != lost).collect();
                assert_eq!(whole, expected, "flip at {at}.{bit}, finished {finish}");
                // Every flip is seen: when opening, or when the block is read.
                let named = reader.damage().lost_bytes > 0 || whole.len() < reader.blocks().len();
                assert!(named, "flip at {at}.{bit}");
            }
        }
    }
}

#[test]
fn bytes_removed_or_inserted_in_the_middle() {
    let bytes = small(true);
    let entries = entries(&bytes);
    for start in (FIRST_BLOCK_OFFSET as usize..bytes.len() - TAIL_BYTES).step_by(3) {
        for length in [1, 50, 300] {
            let end = (start + length).min(bytes.len());
            let untouched = |entry: &&BlockEntry| entry.end() <= start as u64 || entry.offset >= end as u64;
            let expected: Vec<u64> = entries.iter().filter(untouched).map(|entry| entry.address.sequence).collect();
            let removed = [&bytes[..start], &bytes[end..]].concat();
            assert_eq!(whole_blocks(&removed).unwrap().0, expected, "{length} removed at {start}");
        }
        for length in [1, 200] {
            let inside = |entry: &&BlockEntry| !(entry.offset < start as u64 && (start as u64) < entry.end());
            let expected: Vec<u64> = entries.iter().filter(inside).map(|entry| entry.address.sequence).collect();
            let inserted = [&bytes[..start], &vec![0x8b; length], &bytes[start..]].concat();
            assert_eq!(whole_blocks(&inserted).unwrap().0, expected, "{length} inserted at {start}");
        }
    }
}

#[test]
fn a_lost_block_is_named() {
    let mut bytes = small(false);
    let lost = entries(&bytes)[2];
    bytes[lost.offset as usize + 20] ^= 1;
    let reader = Reader::open_bytes(bytes).unwrap();
    let damage = reader.damage();
    assert_eq!((damage.missing_blocks.as_slice(), damage.missing_block_count()), ([2..=2].as_slice(), 1));
    assert_eq!(damage.regions.len(), 1);
    let region = &damage.regions[0];
    assert_eq!((region.offset, region.offset + region.bytes), (lost.offset, lost.end()));
    assert_eq!(region.kind, DamageKind::Unreadable);
    assert!(damage.is_loss());
}

#[test]
fn traffic_that_contains_blocks_is_not_taken_for_blocks() {
    // The recorded traffic is another bundle's file, an attacker's block with this bundle's UUID but without its
    // checksum seed, and this very bundle's own earlier block.
    let mut other = header();
    other.bundle_id = Uuid::from_bytes(*b"another bundle!!");
    let sink = Shared::default();
    let mut writer = Writer::to_stream(Box::new(sink.clone()), &other).unwrap();
    writer.write_block(&Block::new(BlockKind::DATA, 1), &content(1)).unwrap();
    writer.finish().unwrap();
    let foreign = sink.0.lock().unwrap().clone();
    let own = small(false)[FIRST_BLOCK_OFFSET as usize..].to_vec();
    let first_own = own[..entries(&small(false))[0].end() as usize - FIRST_BLOCK_OFFSET as usize].to_vec();
    let payload = [content(9), foreign, first_own, content(8)].concat();
    let bytes = bundle([content(0), payload.clone(), content(2), content(3)], false);
    let all = entries(&bytes);
    assert_eq!(all.len(), 4);
    let in_file = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(in_file(&payload[40..140]), "incompressible traffic stands in the file as it was");
    // Damage around it, so that the scan has to search through it.
    for at in [all[1].offset + 3, all[1].payload_offset() + 5, all[2].offset + 3] {
        let mut damaged = bytes.clone();
        damaged[at as usize] ^= 0x10;
        let reader = Reader::open_bytes(damaged).unwrap();
        let mut raw = Vec::new();
        for entry in reader.blocks() {
            assert_eq!(entry.address.origin, *b"0123456789abcdef");
            let known = all.iter().find(|whole| whole.offset == entry.offset);
            assert_eq!(known, Some(entry), "damage at {at}");
            let _ = reader.read_block(entry, &mut raw);
        }
        assert!(reader.blocks().len() >= 3);
    }
}

#[test]
fn a_false_index_is_not_believed() {
    // A footer whose checksums are right and whose content is wrong: taken from a bundle with the same UUID and
    // lengths but other content.
    let bytes = small(true);
    let other = {
        let sink = Shared::default();
        let mut writer = Writer::to_stream(Box::new(sink.clone()), &header()).unwrap();
        for index in 0..6 {
            let block = Block::new(BlockKind::TCP, 1000).with_times(1, 2);
            writer.write_block(&block, &content(index)).unwrap();
        }
        writer.finish().unwrap();
        sink.0.lock().unwrap().clone()
    };
    let end = entries(&bytes)[5].end() as usize;
    assert_eq!(entries(&other)[5].end() as usize, end);
    let mixed = [&bytes[..end], &other[end..]].concat();
    let reader = Reader::open_bytes(mixed).unwrap();
    assert!(reader.damage().no_footer);
    assert_eq!(reader.blocks(), entries(&bytes));
}

#[test]
fn newer_versions() {
    let with = |major, minor| {
        let mut newer = header();
        (newer.format.major, newer.format.minor) = (major, minor);
        newer.encode()
    };
    let mut bytes = small(true);
    let newer = with(3, 7);
    bytes[..FILE_HEADER_BYTES].copy_from_slice(&newer);
    match Reader::open_bytes(bytes.clone()) {
        Err(error @ OpenError::NewerMajor { .. }) => assert!(error.to_string().contains("3.7"), "{error}"),
        other => panic!("{other:?}"),
    }
    // A flipped major version is damage, not a newer version.
    let mut flipped = small(true);
    flipped[8] ^= 1;
    assert_eq!(whole_blocks(&flipped).unwrap().0.len(), 6);
    let minor = with(0, 900);
    bytes[..FILE_HEADER_BYTES].copy_from_slice(&minor);
    bytes[FILE_HEADER_BYTES..2 * FILE_HEADER_BYTES].copy_from_slice(&minor);
    let (whole, reader) = whole_blocks(&bytes).unwrap();
    assert_eq!((whole.len(), reader.header().format.minor), (6, 900));
}

#[test]
fn not_a_bundle() {
    for bytes in [b"".as_slice(), b"KFR", b"PK\x03\x04 something else", &[0; 5000]] {
        assert!(matches!(Reader::open_bytes(bytes.to_vec()), Err(OpenError::NotABundle)));
    }
    let mut damaged = small(true);
    for copy in [0, FILE_HEADER_BYTES, damaged.len() - TAIL_BYTES] {
        damaged[copy + 30] ^= 1;
    }
    assert!(matches!(Reader::open_bytes(damaged.clone()), Err(OpenError::HeaderDamaged)));
    // One copy is enough.
    let at = damaged.len() - TAIL_BYTES + 30;
    damaged[at] ^= 1;
    let (whole, reader) = whole_blocks(&damaged).unwrap();
    assert_eq!(whole.len(), 6);
    assert!(!reader.damage().is_loss());
    assert_eq!(reader.damage().lost_bytes, 2 * FILE_HEADER_BYTES as u64);
}

/// A bundle with one block whose header says what `change` makes of it, under a right checksum.
fn forged(raw: &[u8], change: impl FnOnce(&mut [u8])) -> Reader {
    let mut bytes = bundle([raw.to_vec()], false);
    let entry = entries(&bytes)[0];
    let at = entry.offset as usize;
    change(&mut bytes[at..]);
    let end = entry.payload_offset() as usize;
    let mut crc = crc32c::crc32c(header().bundle_id.as_bytes());
    crc = crc32c::crc32c_append(crc, &bytes[at..at + 12]);
    crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc = crc32c::crc32c_append(crc, &bytes[at + 16..end]);
    bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
    let reader = Reader::open_bytes(bytes).unwrap();
    assert_eq!(reader.blocks().len(), 1);
    reader
}

#[test]
fn decompression_is_bounded_by_the_header() {
    let read = |reader: &Reader| {
        let mut raw = Vec::new();
        let result = reader.read_block(&reader.blocks()[0], &mut raw);
        assert!(raw.capacity() <= 80 << 20);
        result
    };
    let zeros = vec![0; 8 << 20];
    let put = |at: usize, value: u32| move |bytes: &mut [u8]| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    assert!(read(&forged(&zeros, |_| {})).is_ok());
    // A bomb: 8 MiB of zeros where the header says 1000 bytes, or one less, or one more.
    for raw_len in [1000, (8 << 20) - 1, (8 << 20) + 1] {
        assert!(matches!(read(&forged(&zeros, put(76, raw_len))), Err(BlockError::Compression)));
    }
    for raw_len in [(64 << 20) + 1, u32::MAX] {
        assert!(matches!(read(&forged(&zeros, put(76, raw_len))), Err(BlockError::TooLarge)));
    }
    // A flag that must be understood.
    let flags = |bytes: &mut [u8]| bytes[43] = 0x40;
    assert!(matches!(read(&forged(b"x", flags)), Err(BlockError::Unsupported { flags: 0x4000, .. })));
    // The largest block that is allowed, and one byte more.
    let largest = vec![7; 64 << 20];
    assert!(read(&forged(&largest, |_| {})).is_ok());
    assert!(compress_block(1, &Block::new(BlockKind::DATA, 1), &vec![7; (64 << 20) + 1]).is_err());
    assert!(compress_block(1, &Block::new(BlockKind::DATA, (1 << 18) + 1), b"").is_err());
}

#[test]
fn a_longer_block_header_of_a_newer_minor_version_is_read() {
    let bytes = bundle([content(0)], false);
    let entry = entries(&bytes)[0];
    let (at, end) = (entry.offset as usize, entry.payload_offset() as usize);
    let mut longer = [&bytes[..end], b"new field", &bytes[end..]].concat();
    longer[at + 8..at + 10].copy_from_slice(&(96u16 + 9).to_le_bytes());
    let mut crc = crc32c::crc32c(header().bundle_id.as_bytes());
    for part in [&longer[at..at + 12], &[0; 4], &longer[at + 16..end + 9]] {
        crc = crc32c::crc32c_append(crc, part);
    }
    longer[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(whole_blocks(&longer).unwrap().0, [0]);
}

#[test]
fn an_encrypted_bundle_says_so() {
    let sink = Shared::default();
    let encrypted = FileHeader { encryption: 1, ..header() };
    let mut writer = Writer::to_stream(Box::new(sink.clone()), &encrypted).unwrap();
    writer.write_block(&Block::new(BlockKind::DATA, 1), b"cipher text").unwrap();
    let reader = Reader::open_bytes(sink.0.lock().unwrap().clone()).unwrap();
    let result = reader.read_block(&reader.blocks()[0], &mut Vec::new());
    assert!(matches!(result, Err(BlockError::Unsupported { encryption: 1, .. })));
}

#[test]
fn verify_names_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.kfr");
    let mut bytes = small(true);
    std::fs::write(&path, &bytes).unwrap();
    let report = verify(&path).unwrap();
    assert!(report.is_whole());
    assert_eq!(report.digest, crc32c::crc32c(&bytes));
    assert_eq!(report.kinds.values().map(|count| count.blocks).sum::<u64>(), 6);
    let lost = entries(&bytes)[4];
    bytes[lost.payload_offset() as usize + 3] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let report = verify(&path).unwrap();
    assert!(!report.is_whole());
    assert_eq!((report.damage.blocks_bad, report.damage.lost_bytes), (1, lost.end() - lost.offset));
    let region = &report.damage.regions[0];
    assert_eq!((region.offset, region.block), (lost.offset, Some(lost)));
    assert!(matches!(verify(folder.path()), Err(OpenError::NotABundle | OpenError::Io(_))));
}

#[test]
fn a_condition_tells_repaired_from_whole_and_cut_off_from_damaged() {
    let condition = |bytes: &[u8]| {
        let reader = Reader::open_bytes(bytes.to_vec()).unwrap();
        verify_reader(&reader).unwrap().condition
    };
    let whole = small(true);
    let blocks = entries(&whole);
    assert_eq!(condition(&whole), Condition::Whole);
    assert_eq!(condition(&small(false)), Condition::CutOff);
    let flipped = |places: &[u64]| {
        let mut bytes = whole.clone();
        places.iter().for_each(|place| bytes[*place as usize] ^= 1);
        condition(&bytes)
    };
    // A copy of the file header, a block header, the footer's copy: each has another.
    assert_eq!(flipped(&[40]), Condition::Repaired(1));
    assert_eq!(flipped(&[blocks[2].offset + 30]), Condition::Repaired(1));
    assert_eq!(flipped(&[40, blocks[2].offset + 30, (whole.len() - TAIL_BYTES) as u64 + 40]), Condition::Repaired(3));
    assert_eq!(flipped(&[blocks[2].payload_offset() + 3]), Condition::Damaged);
    assert_eq!(flipped(&[40, blocks[2].payload_offset() + 3]), Condition::Damaged);
}
