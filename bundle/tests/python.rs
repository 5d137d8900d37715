//! `scripts/read_bundle.py` was written from `docs/FORMAT.md` alone; here both readers have to see the same.

use kfr_bundle::columns::{DataBlock, DataColumns};
use kfr_bundle::events::{DatagramEvent, SocketEvent};
use kfr_bundle::facts::{
    ContainerFact, CpuTimes, DiskCounters, HostSample, InterfaceCounters, LedgerFact, Manifest, ProbeFact, ProcessFact,
};
use kfr_bundle::rows::{Row, decode_rows, encode_rows};
use kfr_bundle::{Block, BlockKind, FileHeader, MapWriter, Reader, Writer, to_named_map};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use zerocopy::FromBytes;

/// Output of the Python reader; `None`, with the reason printed, where it can't run.
fn python(path: &Path) -> Option<String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/read_bundle.py");
    let check = "import shutil, importlib.util as u; assert shutil.which('zstd') or u.find_spec('zstandard')";
    match Command::new("python3").args(["-c", check]).output() {
        Ok(output) if output.status.success() => {}
        _ => {
            eprintln!("skipped: needs python3 and either its module zstandard or the program zstd");
            return None;
        }
    }
    let output = Command::new("python3").arg(script).arg(path).arg("--rows").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Bytes that are the same each time, many of them zero.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| if next() < 100 { next() } else { 0 }).collect()
}

fn write_bundle(path: &Path) {
    let mut writer = Writer::create(path, &FileHeader::new("node-ä"), false).unwrap();
    let mut maps = MapWriter::new();
    maps.push(&std::collections::BTreeMap::from([("probe", "socket"), ("hook", "sock")])).unwrap();
    writer.write_block(&Block::new(BlockKind::MANIFEST, 1), &maps.encode()).unwrap();
    for block in 0..3u64 {
        let mut columns = DataColumns::new();
        for row in 0..200u64 {
            let mut event = DatagramEvent::read_from_bytes(&noise(block * 1000 + row, 88)).unwrap();
            event.data.socket %= 9;
            event.data.header.process %= 3;
            event.data.direction %= 2;
            event.data.offset_kind %= 3;
            event.data.header.cpu %= 4;
            let payload = noise(row, row as usize % 50);
            if row % 5 == 0 {
                columns.push_datagram(&event, &payload);
            } else {
                columns.push(&event.data, &payload);
            }
        }
        let mut raw = Vec::new();
        columns.encode(&mut raw);
        writer.write_block(&Block::new(BlockKind::DATA, 200), &raw).unwrap();
    }
    let sockets: Vec<SocketEvent> =
        (0..50).map(|seed| SocketEvent::read_from_bytes(&noise(seed, size_of::<SocketEvent>())).unwrap()).collect();
    writer.write_block(&Block::new(BlockKind::SOCKETS, 50), &encode_rows(&sockets)).unwrap();
    writer.write_block(&Block::new(BlockKind(999), 7), b"from the future").unwrap();
    writer.finish().unwrap();
}

/// What the Python script prints about rows of data and sockets, but only the fields listed.
fn expected(reader: &Reader) -> Vec<String> {
    let mut lines = Vec::new();
    let mut raw = Vec::new();
    for entry in reader.blocks() {
        if reader.read_block(entry, &mut raw).is_err() {
            continue;
        }
        match entry.kind {
            BlockKind::DATA => {
                for row in DataBlock::decode(raw.clone(), entry.first_row).unwrap().rows() {
                    let peer = row.peer.map_or("null".to_owned(), |peer| {
                        format!("[{}, \"{}\", {}]", peer.family, hex(&peer.address), peer.port)
                    });
                    lines.push(format!(
                        "{{\"address\": \"{}\", \"row\": {{\"age_ns\": {}, \"cpu\": {}, \"direction\": {}, \
                         \"length\": {}, \"missing\": {}, \"offset\": {}, \"offset_kind\": {}, \"payload\": \"{}\", \
                         \"peer\": {peer}, \"process\": {}, \"sequence\": {}, \"socket\": {}, \"thread\": {}, \
                         \"time_ns\": {}}}}}",
                        entry.address.row(row.row_number),
                        row.age_ns,
                        row.cpu,
                        row.direction,
                        row.length,
                        row.missing,
                        row.offset,
                        row.offset_kind,
                        hex(row.payload),
                        row.process,
                        row.sequence,
                        row.socket,
                        row.thread,
                        row.time_ns
                    ));
                }
            }
            BlockKind::SOCKETS => {
                for (row, socket) in decode_rows::<SocketEvent>(&raw).unwrap().iter().enumerate() {
                    // Fields of every packing; in the order of their names, as the script prints them.
                    lines.push(format!("\"address\": \"{}\"", entry.address.row(row as u32)));
                    lines.push(format!("\"comm\": \"{}\", \"cpu\": {}", hex(&socket.comm), socket.header.cpu));
                    lines.push(format!("\"netns\": {}, \"offset_kind\": {}", socket.netns, socket.offset_kind));
                    lines.push(format!("\"path\": \"{}\"", hex(&socket.path)));
                    lines.push(format!("\"remote_port\": {}, \"role\": {}", socket.remote_port, socket.role));
                }
            }
            _ => {}
        }
    }
    lines
}

#[test]
fn another_reader_sees_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.kfr");
    write_bundle(&path);
    let whole = std::fs::read(&path).unwrap();
    let blocks = Reader::open(&path).unwrap().blocks().to_vec();
    // Whole; without a footer; a damaged header with and without footer; a damaged payload; bytes missing.
    let flip = |at: u64| {
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 1;
        bytes
    };
    let unfinished = blocks.last().unwrap().end() as usize;
    let (second, third) = (blocks[1], blocks[2]);
    let torn =
        [&whole[..third.payload_offset() as usize + 9], &whole[third.payload_offset() as usize + 200..]].concat();
    let cases = [
        whole.clone(),
        whole[..unfinished].to_vec(),
        flip(second.offset + 40),
        flip(second.offset + 40)[..unfinished].to_vec(),
        flip(second.payload_offset() + 40),
        torn,
        flip(20),
    ];
    for (case, bytes) in cases.iter().enumerate() {
        let path = folder.path().join(format!("case-{case}.kfr"));
        std::fs::write(&path, bytes).unwrap();
        let reader = Reader::open(&path).unwrap();
        let Some(output) = python(&path) else { return };
        let mut rest = output.as_str();
        for line in expected(&reader) {
            let found = rest.find(&line).unwrap_or_else(|| panic!("case {case}: not printed: {line}"));
            rest = &rest[found + line.len()..];
        }
        let data = output.lines().filter(|line| line.contains("\"payload\"")).count();
        let rust_data = expected(&reader).iter().filter(|line| line.contains("\"payload\"")).count();
        assert_eq!(data, rust_data, "case {case}");
    }
}

#[test]
fn the_page_lists_the_columns_that_are_written() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMAT.md");
    let page = std::fs::read_to_string(page).unwrap();
    let listed = |kind: &str| -> Vec<String> {
        let line = page.lines().find(|line| line.starts_with(&format!("| {kind} | `"))).unwrap();
        line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(listed("sockets"), <SocketEvent as Row>::COLUMNS);
    assert_eq!(listed("states"), <kfr_bundle::events::StateEvent as Row>::COLUMNS);
    assert_eq!(listed("tcp"), <kfr_bundle::events::TcpEvent as Row>::COLUMNS);
    assert_eq!(listed("process_events"), <kfr_bundle::events::ProcessEvent as Row>::COLUMNS);
    assert_eq!(listed("anchors"), <kfr_bundle::rows::Anchor as Row>::COLUMNS);
    assert_eq!(listed("index"), <kfr_bundle::index::IndexRow as Row>::COLUMNS);

    let keys = |kind: &str, row: &[u8]| {
        let cell = page.lines().find(|line| {
            line.starts_with(&format!("| {kind} | `tool`")) || { line.starts_with(&format!("| {kind} | `time_ns` ")) }
        });
        let cell = cell.unwrap_or_else(|| panic!("{kind} is described"));
        let map: std::collections::BTreeMap<String, serde::de::IgnoredAny> = rmp_serde::from_slice(row).unwrap();
        for key in map.keys() {
            assert!(cell.contains(&format!("`{key}`")), "{kind}: {key} is not described");
        }
    };
    let named = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut row = Vec::new();
        write(&mut row);
        row
    };
    keys("manifest", &named(&|row| to_named_map(&Manifest::default(), row).unwrap()));
    keys("manifest", &named(&|row| to_named_map(&ProbeFact::default(), row).unwrap()));
    keys("processes", &named(&|row| to_named_map(&ProcessFact::default(), row).unwrap()));
    keys("containers", &named(&|row| to_named_map(&ContainerFact::default(), row).unwrap()));
    keys("host", &named(&|row| to_named_map(&HostSample::default(), row).unwrap()));
    keys("host", &named(&|row| to_named_map(&CpuTimes::default(), row).unwrap()));
    keys("host", &named(&|row| to_named_map(&DiskCounters::default(), row).unwrap()));
    keys("host", &named(&|row| to_named_map(&InterfaceCounters::default(), row).unwrap()));
    keys("ledger", &named(&|row| to_named_map(&LedgerFact::default(), row).unwrap()));
}
