//! Imports real captures and compares with what other tools say of them. Needs `KFR_SHARED` to name the folder that holds
//! `captures/expected.jsonl`; prints every file that differs.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kfr_bundle::Writer;
use kfr_import::Summary;
use serde_json::Value;

/// Files with other numbers of TCP streams and UDP flows, and why.
const STREAMS: &[(&str, &str)] = &[
    ("gopacket__be-test901.pcapng", "the other tool stops at a section of a newer version"),
    ("gopacket__le-test901.pcapng", "the other tool stops at a section of a newer version"),
    ("tunnel/", "the other tool counts a tunnel's own UDP flow, too"),
];

/// Files of which the other tool has other bytes.
const BYTES: &[(&str, &str)] = &[(
    "zeek__reassembly.pcap",
    "a packet is shorter than it says; the next one's sequence number believes what it says",
)];

fn reason<'a>(list: &'a [(&str, &str)], file: &str) -> Option<&'a str> {
    list.iter().find(|(name, _)| file.ends_with(name) || file.starts_with(name)).map(|(_, reason)| *reason)
}

fn shared() -> Option<(PathBuf, Vec<Value>)> {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return None;
    };
    let root = Path::new(&shared).join("captures");
    let lines = std::fs::read_to_string(root.join("expected.jsonl")).unwrap();
    Some((root, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()))
}

fn import(capture: &Path, bundle: &Path) -> Summary {
    kfr_import::import(File::open(capture).unwrap(), "x.pcap", |header| Writer::create(bundle, header, true)).unwrap()
}

#[test]
fn streams_and_flows_are_those_of_another_tool() {
    let Some((root, all)) = shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("x.kfr");
    let mut unexplained = Vec::new();
    let mut slowest = Duration::ZERO;
    for expected in &all {
        let file = expected["file"].as_str().unwrap();
        let began = Instant::now();
        let counters = import(&root.join(file), &bundle).counters;
        slowest = slowest.max(began.elapsed());
        let found = (counters.tcp_connections, counters.udp_flows);
        let want = (&expected["net"]["tcp_streams"], &expected["net"]["udp_streams"]);
        let want = (want.0.as_u64().unwrap(), want.1.as_u64().unwrap());
        if found != want {
            let why = reason(STREAMS, file).filter(|_| found.0 == want.0);
            println!("{file}: {want:?} but {found:?} {}", why.unwrap_or(""));
            if why.is_none() {
                unexplained.push(file.to_string());
            }
        }
    }
    println!("{} files, the slowest in {slowest:?}", all.len());
    assert!(unexplained.is_empty(), "{unexplained:?}");
    assert!(slowest < Duration::from_secs(1));
}

/// Bytes of each direction of each stream: sequence numbers and lengths as tshark tells them, each byte once.
#[test]
fn bytes_of_streams_are_those_of_tshark() {
    let Some((root, all)) = shared() else { return };
    if Command::new("tshark").arg("-v").output().is_err() {
        println!("skipped: tshark is not installed");
        return;
    }
    let (mut equal, mut unexplained) = (0, Vec::new());
    for expected in all.iter().filter(|expected| expected["net"]["tcp_streams"] != 0) {
        let file = expected["file"].as_str().unwrap();
        let content = common::content(&std::fs::read(root.join(file)).unwrap());
        let mut found: BTreeMap<(u64, bool), u64> = BTreeMap::new();
        for data in content
            .data
            .iter()
            .filter(|data| content.sockets.iter().any(|socket| socket.socket == data.socket && socket.protocol == 6))
        {
            *found.entry((data.socket, data.sent)).or_default() += u64::from(data.length);
        }
        let mut found: Vec<u64> = found.into_values().filter(|bytes| *bytes > 0).collect();
        found.sort_unstable();
        let want = tshark_bytes(&root.join(file));
        if found == want {
            equal += 1;
            continue;
        }
        let why = reason(BYTES, file);
        println!("{file}: {want:?} but {found:?} {}", why.unwrap_or(""));
        if why.is_none() {
            unexplained.push(file.to_string());
        }
    }
    println!("{equal} equal");
    assert!(unexplained.is_empty(), "{unexplained:?}");
}

fn tshark_bytes(capture: &Path) -> Vec<u64> {
    let fields = [
        "tcp.stream",
        "ip.src",
        "ipv6.src",
        "tcp.srcport",
        "tcp.seq_raw",
        "tcp.len",
        "tcp.flags.syn",
        "tcp.flags.reset",
    ];
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-Y", "tcp", "-T", "fields", "-E", "occurrence=l"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let mut segments: BTreeMap<String, Vec<(u32, u64)>> = BTreeMap::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [stream, v4, v6, port, sequence, length, syn, reset] = fields.as_slice() else { continue };
        let (Ok(sequence), Ok(length)) = (sequence.parse::<u32>(), length.parse::<u64>()) else { continue };
        if length == 0 || matches!(*reset, "1" | "True") {
            continue;
        }
        let sequence = sequence.wrapping_add(u32::from(matches!(*syn, "1" | "True")));
        segments.entry(format!("{stream} {v4}{v6} {port}")).or_default().push((sequence, length));
    }
    let mut all: Vec<u64> = segments
        .into_values()
        .map(|segments| {
            let near = segments[0].0.wrapping_sub(1 << 31);
            let mut places: Vec<(u64, u64)> =
                segments.iter().map(|(sequence, length)| (u64::from(sequence.wrapping_sub(near)), *length)).collect();
            places.sort_unstable();
            let (mut total, mut end) = (0, 0);
            for (at, length) in places {
                total += (at + length).saturating_sub(at.max(end));
                end = end.max(at + length);
            }
            total
        })
        .collect();
    all.sort_unstable();
    all
}
