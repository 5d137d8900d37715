//! How fast a bundle is opened, scanned without its footer, searched after damage, and verified.
//!
//! `cargo run --release -p kfr-bundle --example recovery -- FOLDER [MiB]` writes a bundle of that size (default 1024).

use kfr_bundle::header::FIRST_BLOCK_OFFSET;
use kfr_bundle::{Block, BlockKind, FileHeader, Reader, Writer, verify};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

fn timed<T>(what: &str, bytes: u64, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:42} {:8.1} ms {:8.2} GB/s", seconds * 1e3, bytes as f64 / seconds / 1e9);
    result
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a folder to write to");
    let mib: u64 = arguments.next().map_or(1024, |text| text.parse().expect("a number of MiB"));
    let path = Path::new(&folder).join("recovery.kfr");
    let mut writer = Writer::create(&path, &FileHeader::new("node"), true).expect("the bundle can be written");
    // Incompressible content of 150 KiB, about what 1 MiB of events becomes.
    let mut state = 1u64;
    let mut raw: Vec<u8> = (0..150 << 10)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    while writer.bytes_written() < mib << 20 {
        raw[0] = raw[0].wrapping_add(1);
        writer.write_block(&Block::new(BlockKind::DATA, 1), &raw).expect("there is room");
    }
    let summary = writer.finish().expect("the bundle can be finished");
    let bytes = summary.bytes;
    println!("{} blocks, {bytes} B", summary.blocks);
    let reader = timed("open with footer", bytes, || Reader::open(&path)).expect("it opens");
    let end = reader.blocks().last().map_or(FIRST_BLOCK_OFFSET, |entry| entry.end());
    let headers: Vec<u64> = reader.blocks().iter().map(|entry| entry.offset).collect();
    let report = timed("verify", bytes, || verify(&path)).expect("it opens");
    assert!(report.is_whole());

    let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("own file");
    file.set_len(end).expect("own file");
    let reader = timed("open without footer", end, || Reader::open(&path)).expect("it opens");
    assert_eq!(reader.blocks().len(), headers.len());

    // Every header but the first is gone: the whole file has to be searched.
    for header in headers.iter().skip(1) {
        file.seek(SeekFrom::Start(header + 20)).expect("own file");
        file.write_all(b"damage").expect("own file");
    }
    let reader = timed("open with every header damaged", end, || Reader::open(&path)).expect("it opens");
    assert_eq!(reader.blocks().len(), 1);
    std::fs::remove_file(&path).expect("own file");
}
