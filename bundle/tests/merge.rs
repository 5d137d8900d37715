//! Merged files that are damaged, or lie.

use kfr_bundle::merge::SourceFact;
use kfr_bundle::{
    Block, BlockKind, Compressor, FileHeader, MapWriter, MergeError, OpenError, Reader, SealedBlock, Writer, merge,
};

fn bundle(folder: &std::path::Path, name: &str, blocks: u32) -> Reader {
    let path = folder.join(name);
    let mut writer = Writer::create(&path, &FileHeader::new(name), false).unwrap();
    for number in 0..blocks {
        writer.write_block(&Block::new(BlockKind::HOST, 1), format!("{name} {number}").as_bytes()).unwrap();
    }
    writer.finish().unwrap();
    Reader::open(&path).unwrap()
}

fn merged(folder: &std::path::Path, parts: &[Reader]) -> Vec<u8> {
    let path = folder.join("merged.kfr");
    merge(parts, |header| Writer::create(&path, header, true)).unwrap();
    std::fs::read(path).unwrap()
}

fn contents(part: &Reader) -> Vec<String> {
    let mut raw = Vec::new();
    let read = part.blocks().iter().map(|entry| {
        part.read_block(entry, &mut raw).unwrap();
        String::from_utf8(raw.clone()).unwrap()
    });
    read.collect()
}

#[test]
fn each_part_has_its_header_its_blocks_and_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (bundle(folder.path(), "a", 3), bundle(folder.path(), "b", 0));
    let expected = [a.header().clone(), b.header().clone()];
    let parts = Reader::open_bytes(merged(folder.path(), &[a, b])).unwrap().parts().unwrap();
    assert_eq!(parts.iter().map(|part| part.header().clone()).collect::<Vec<_>>(), expected);
    assert_eq!(contents(&parts[0]), ["a 0", "a 1", "a 2"]);
    assert!(contents(&parts[1]).is_empty());
    assert!(parts.iter().all(|part| *part.damage() == kfr_bundle::Damage::default()));
}

#[test]
fn either_list_of_the_parts_will_do_and_none_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let whole = merged(folder.path(), &[bundle(folder.path(), "a", 2), bundle(folder.path(), "b", 2)]);
    let lists: Vec<_> = {
        let reader = Reader::open_bytes(whole.clone()).unwrap();
        reader.blocks_of(BlockKind::SOURCES).map(|entry| entry.payload_offset() as usize).collect()
    };
    assert_eq!(lists.len(), 2);
    for damaged in [&lists[..1], &lists[1..]] {
        let mut bytes = whole.clone();
        damaged.iter().for_each(|at| bytes[*at] ^= 0xff);
        let parts = Reader::open_bytes(bytes).unwrap().parts().unwrap();
        assert_eq!(contents(&parts[1]), ["b 0", "b 1"]);
    }
    let mut bytes = whole;
    lists.iter().for_each(|at| bytes[*at] ^= 0xff);
    let parts = Reader::open_bytes(bytes).unwrap().parts();
    assert!(matches!(parts, Err(OpenError::HeaderDamaged)));
}

#[test]
fn a_block_that_is_damaged_is_missed_in_its_part_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = merged(folder.path(), &[bundle(folder.path(), "a", 3), bundle(folder.path(), "b", 3)]);
    let entry = *Reader::open_bytes(bytes.clone()).unwrap().blocks_of(BlockKind::HOST).nth(4).unwrap();
    // Header and payload: the index alone still knows of it.
    bytes[entry.offset as usize..entry.end() as usize].fill(0);
    let parts = Reader::open_bytes(bytes).unwrap().parts().unwrap();
    assert!(!parts[0].damage().is_loss() && parts[1].damage().is_loss());
    assert_eq!(contents(&parts[1]), ["b 0", "b 2"]);
}

#[test]
fn a_list_that_lies_gives_blocks_to_one_part_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let a = bundle(folder.path(), "a", 2);
    let id = a.header().bundle_id.to_string();
    let named =
        |bundle: &str| SourceFact { bundle: bundle.to_string(), origins: vec![id.clone()], ..SourceFact::default() };
    let mut maps = MapWriter::new();
    for source in [named("no UUID"), named(&id)] {
        maps.push(&source).unwrap();
    }
    let header = FileHeader { flags: 1, ..FileHeader::new("") };
    let path = folder.path().join("liar.kfr");
    let mut writer = Writer::create(&path, &header, false).unwrap();
    let sources = Compressor::new(1).unwrap().seal(&Block::new(BlockKind::SOURCES, 2), &maps.encode()).unwrap();
    writer.write_sealed(sources).unwrap();
    for entry in a.blocks() {
        writer.write_sealed(SealedBlock::copied(&a, entry).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let parts = Reader::open(&path).unwrap().parts().unwrap();
    assert_eq!(parts.iter().map(|part| part.blocks().len()).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn nothing_and_the_same_twice_are_no_merge() {
    let folder = tempfile::tempdir().unwrap();
    let create = |header: &FileHeader| Writer::create(&folder.path().join("x.kfr"), header, true);
    assert!(matches!(merge(&[], create), Err(MergeError::Count(0))));
    let twice = [bundle(folder.path(), "a", 1), Reader::open(&folder.path().join("a")).unwrap()];
    assert!(matches!(merge(&twice, create), Err(MergeError::Twice(_))));
    assert!(!folder.path().join("x.kfr").exists() && !folder.path().join("x.kfr.partial").exists());
}
