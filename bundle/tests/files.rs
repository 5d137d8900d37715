//! Files: names, modes, what is never overwritten, partial files, copies of blocks.

#![cfg(unix)]

use kfr_bundle::block::AddressError;
use kfr_bundle::writer::partial_path;
use kfr_bundle::{Address, Block, BlockKind, FileHeader, Reader, SealedBlock, Uuid, WriteError, Writer};
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_bundle_gets_its_name_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incident.kfr");
    let mut writer = Writer::create(&path, &FileHeader::new("node"), false).unwrap();
    writer.write_block(&Block::new(BlockKind::DATA, 1), b"rows").unwrap();
    writer.sync().unwrap();
    assert!(!path.exists());
    let partial = partial_path(&path);
    assert_eq!(partial.file_name().unwrap(), "incident.kfr.partial");
    assert_eq!(partial.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // The partial file is readable as it stands.
    let reader = Reader::open(&partial).unwrap();
    assert_eq!((reader.blocks().len(), reader.damage().no_footer, reader.damage().is_loss()), (1, true, false));
    let room = writer.bytes_written() + writer.footer_bytes();
    let summary = writer.finish().unwrap();
    assert_eq!((summary.path.as_deref(), summary.blocks, summary.footer), (Some(path.as_path()), 1, true));
    assert_eq!(path.metadata().unwrap().len(), summary.bytes);
    assert!(summary.bytes <= room);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!partial.exists());
    assert!(!Reader::open(&path).unwrap().damage().no_footer);
}

#[test]
fn nothing_is_overwritten_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incident.kfr");
    let header = FileHeader::new("node");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Writer::create(&path, &header, false), Err(WriteError::Exists { .. })));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(partial_path(&path), "an earlier recording").unwrap();
    let error = Writer::create(&path, &header, false).unwrap_err();
    assert!(error.to_string().contains("incident.kfr.partial"), "{error}");
    // With force the old file stays until the new one is whole.
    std::fs::write(&path, "old").unwrap();
    let mut writer = Writer::create(&path, &header, true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    writer.finish().unwrap();
    assert!(Reader::open(&path).is_ok());
    // A file that appears while recording isn't overwritten either, and the recording isn't lost.
    let path = folder.path().join("second.kfr");
    let mut writer = Writer::create(&path, &header, false).unwrap();
    std::fs::write(&path, "sudden").unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, WriteError::NotNamed { .. }));
    assert!(error.to_string().contains("second.kfr.partial"), "where the recording is: {error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"sudden");
    assert!(!Reader::open(&partial_path(&path)).unwrap().damage().no_footer);
    std::fs::remove_file(&path).unwrap();
    assert!(writer.finish_after_error().unwrap().footer);
    assert!(!Reader::open(&path).unwrap().damage().no_footer);
}

#[test]
fn a_bundle_keeps_within_its_limit_to_the_last_byte_of_its_footer() {
    let folder = tempfile::tempdir().unwrap();
    for limit in [20_000, 33_333, 100_000] {
        let path = folder.path().join(format!("{limit}.kfr"));
        let mut writer = Writer::create(&path, &FileHeader::new("node"), false).unwrap();
        let (mut blocks, mut refused) = (0, 0);
        // What doesn't fit is refused whole; smaller blocks may still fit after it.
        for bytes in [4000, 1000, 16].map(|bytes| vec![0; bytes]) {
            loop {
                let raw: Vec<u8> = bytes.chunks(16).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
                if !writer.write_block_within(&Block::new(BlockKind::DATA, 1), &raw, limit).unwrap() {
                    refused += 1;
                    break;
                }
                blocks += 1;
            }
        }
        assert_eq!(refused, 3);
        let summary = writer.finish().unwrap();
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(summary.bytes == bytes && bytes <= limit && bytes * 2 > limit, "{bytes} of {limit}");
        assert_eq!(Reader::open(&path).unwrap().blocks().len(), blocks);
    }
}

#[test]
fn errors_say_a_thing_once() {
    let mut error: &dyn std::error::Error = &Reader::open(std::path::Path::new("/nowhere/x.kfr")).unwrap_err();
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    assert_eq!(text.matches("os error").count(), 1, "{text}");
}

#[test]
fn a_writer_that_is_dropped_leaves_a_readable_partial_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incident.kfr");
    let mut writer = Writer::create(&path, &FileHeader::new("node"), false).unwrap();
    writer.write_block(&Block::new(BlockKind::DATA, 1), b"rows").unwrap();
    drop(writer);
    assert_eq!(Reader::open(&partial_path(&path)).unwrap().blocks().len(), 1);
}

#[test]
fn an_empty_bundle_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.kfr");
    Writer::create(&path, &FileHeader::new("node"), false).unwrap().finish().unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!((reader.blocks().len(), reader.damage().regions.len(), reader.damage().no_footer), (0, 0, false));
}

#[test]
fn missing_folders_are_named() {
    let error = Writer::create("/nonexistent/x.kfr".as_ref(), &FileHeader::new("node"), false).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/x.kfr.partial"), "{error}");
}

#[test]
fn long_node_names_are_cut_at_a_character() {
    let header = FileHeader::new("ä".repeat(200));
    let back = FileHeader::decode(&header.encode()).unwrap();
    assert_eq!(back.node, "ä".repeat(128));
}

#[test]
fn copied_blocks_keep_their_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recorded.kfr");
    let recorded = FileHeader::new("node");
    let mut writer = Writer::create(&path, &recorded, false).unwrap();
    for raw in [b"one", b"two", b"six"] {
        writer.write_block(&Block::new(BlockKind::DATA, 3).as_keyframe(), raw).unwrap();
    }
    writer.finish().unwrap();
    let reader = Reader::open(&path).unwrap();
    let copy = folder.path().join("slice.kfr");
    let header = FileHeader { derived_from: recorded.bundle_id, ..FileHeader::new("node") };
    let mut writer = Writer::create(&copy, &header, false).unwrap();
    let own = writer.write_block(&Block::new(BlockKind::MANIFEST, 1), b"slice").unwrap();
    for entry in &reader.blocks()[1..] {
        writer.write_sealed(SealedBlock::copied(&reader, entry).unwrap()).unwrap();
    }
    let next = writer.write_block(&Block::new(BlockKind::LEDGER, 1), b"done").unwrap();
    writer.finish().unwrap();
    assert_eq!((own.sequence, next.sequence), (0, 1));
    let slice = Reader::open(&copy).unwrap();
    assert!(!slice.damage().is_loss());
    let addresses: Vec<_> = slice.blocks().iter().map(|entry| entry.address).collect();
    assert_eq!(addresses, [own, reader.blocks()[1].address, reader.blocks()[2].address, next]);
    assert!(slice.blocks()[1].keyframe());
    let mut raw = Vec::new();
    slice.read_block(&slice.blocks()[2], &mut raw).unwrap();
    assert_eq!(raw, b"six");
}

proptest! {
    #[test]
    fn addresses_come_back(origin: u32, block: u64, row: u32) {
        let address = Address { origin, block, row };
        prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
    }

    #[test]
    fn other_text_is_no_address(text in "[0-9a-fA-F.:+ -]{0,24}") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string(), text);
        }
    }
}

#[test]
fn addresses_have_one_form() {
    for text in ["", "0.0:0", "3FA85F64.1:2", "3fa85f64.01:2", "3fa85f64.1:+2", "3fa85f64.1:4294967296", "3fa85f64.1"] {
        assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
    }
    assert_eq!("3fa85f64.12:345".parse(), Ok(Address { origin: 0x3fa8_5f64, block: 12, row: 345 }));
}

#[test]
fn writers_move_and_readers_are_shared_between_threads() {
    fn moves<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    moves::<Writer>();
    moves::<kfr_bundle::Compressor>();
    moves::<SealedBlock>();
    moves::<kfr_bundle::DataColumns>();
    shared::<Reader>();
    shared::<kfr_bundle::DataBlock>();
}
