//! Captures lose packets. Every recording without each tenth packet in turn: what a request came to may be unknown then,
//! or unanswered, but where it is told without a mark it is what the whole recording says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use kfr_analyze::{Analysis, Input, Options, Want};
use kfr_bundle::Writer;
use serde_json::Value;

/// Recordings and the first packet left out, where an outcome is another's.
const WRONG: &[(&str, usize, &str)] = &[
    ("amqp/client.pcap", 4, "a lost Deliver of the consumer's channel is not told from the lost content of a Get"),
    ("postgresql/drivers.pcap", 4, "the error of a lost Execute is told of the Sync behind it"),
];

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols");
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let mut recordings: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "pcap")).collect();
    recordings.sort();
    recordings
}

/// A pcap file's header and packets (<https://www.tcpdump.org/manpages/pcap-savefile.5.html>), little-endian.
fn packets(file: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let (header, mut rest) = file.split_at(24);
    assert!(matches!(header[..4], [0xd4 | 0x4d, 0xc3 | 0x3c, 0xb2, 0xa1]), "a little-endian pcap file");
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (packet, behind) = rest.split_at(16 + length);
        packets.push(packet);
        rest = behind;
    }
    (header, packets)
}

fn requests(capture: &[u8], folder: &Path) -> Vec<Value> {
    let bundle = folder.join("packets.kfr");
    let _ = std::fs::remove_file(&bundle);
    let import = |header: &_| Writer::create(&bundle, header, true);
    kfr_import::import(Cursor::new(capture), "capture", import).expect("it is imported");
    let inputs = Input::open_all(&[bundle]).expect("a bundle");
    let options = Options { threads: Some(1), ..Options::default() };
    let analysis = Analysis::new(&inputs, &options, Want::RequestLines).expect("it is replayed");
    let mut lines = Vec::new();
    analysis.lines.write(&mut lines).expect("lines");
    std::str::from_utf8(&lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What identifies a request within a recording, as far as values that repeat can; without the target where what would
/// tell it may have been lost.
fn key(request: &Value, target: &Value) -> String {
    format!("{} {} {} {target}", request["client"], request["protocol"], request["op"])
}

fn outcome(request: &Value) -> String {
    format!("{} {} {}", request["status"], request["code"], request["rows"])
}

fn is_marked(request: &Value) -> bool {
    let losses = ["gap", "truncated", "mid_stream", "unknown_statement", "unknown_names"];
    request["flags"].as_array().unwrap().iter().any(|flag| losses.contains(&flag.as_str().unwrap()))
}

#[test]
fn unmarked_outcomes_are_true() {
    let folder = tempfile::tempdir().unwrap();
    let (mut told, mut unmarked_unanswered, mut wrong) = (0, 0, BTreeSet::new());
    let mut explained = Vec::new();
    for path in recordings() {
        let file = std::fs::read(&path).unwrap();
        let (header, packets) = packets(&file);
        if packets.len() > 2000 {
            continue;
        }
        let mut whole = BTreeMap::<String, BTreeSet<String>>::new();
        for request in requests(&file, folder.path()) {
            for target in [&request["target"], &Value::Null] {
                whole.entry(key(&request, target)).or_default().insert(outcome(&request));
            }
        }
        for first in 0..10 {
            let kept = packets.iter().enumerate().filter(|(number, _)| number % 10 != first);
            let capture: Vec<u8> = header.iter().chain(kept.flat_map(|(_, packet)| *packet)).copied().collect();
            for request in requests(&capture, folder.path()) {
                if is_marked(&request) || request["status"].is_null() {
                    continue;
                }
                told += 1;
                // Of a lost last packet, and of datagrams, nothing tells.
                if request["status"] == "unanswered" {
                    unmarked_unanswered += 1;
                    continue;
                }
                let outcomes = whole.get(&key(&request, &request["target"]));
                if outcomes.is_some_and(|outcomes| outcomes.contains(&outcome(&request))) {
                    continue;
                }
                let known = WRONG.iter().find(|(name, number, _)| path.ends_with(name) && *number == first);
                if let Some((name, number, _)) = known {
                    explained.push((*name, *number));
                } else {
                    wrong.insert(format!("{} without {first}: {request}, not {outcomes:?}", path.display()));
                }
            }
        }
    }
    println!("{told} outcomes told without a mark, {unmarked_unanswered} of them unanswered");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), Vec::from_iter(wrong).join("\n"));
    for (name, number, reason) in WRONG {
        assert!(explained.contains(&(*name, *number)), "{name} without {number} is right now: {reason}");
    }
    assert!(told > 7_000 && unmarked_unanswered < told / 50, "{told} told, {unmarked_unanswered} unanswered");
}
