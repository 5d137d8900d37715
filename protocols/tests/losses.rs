//! What is read of recordings of which packets are missing: never another protocol, and nothing claimed that was lost.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use common::{connections_of, decode, decode_from};
use kfr_protocols::{Exchange, Flags, Output};

/// The folder of the recordings.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols")
}

/// Every recording with the name of its protocol.
fn recordings() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root()).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let files = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
        let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "pcap"));
        found.extend(files.map(|file| (name.clone(), file)));
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Whether connections of a recording may be `found`: its protocol, one that it is carried by or one that it goes over
/// into.
fn may_be(recorded: &str, found: &str) -> bool {
    let also: &[&str] = match recorded {
        "grpc" => &["http2"],
        "http2" => &["http"],
        "websocket" => &["http"],
        "mysql" | "postgresql" => &["tls"],
        _ => &[],
    };
    recorded == found || also.contains(&found)
}

#[test]
fn a_late_start_finds_no_other_protocol() {
    let mut wrong = Vec::new();
    for (name, file) in recordings() {
        for first in 1..=20 {
            for connection in connections_of(&file, |number| number >= first) {
                let Some((found, out)) = decode(&connection, usize::MAX) else { continue };
                if !may_be(&name, found.name) {
                    let ops: Vec<_> = out.exchanges.iter().map(common::line).take(3).collect();
                    wrong.push(format!(
                        "{} from {first}, {:?}: {} {ops:#?}",
                        file.display(),
                        connection.ports,
                        found.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn lost_packets_find_no_other_protocol() {
    let mut wrong = Vec::new();
    for (name, file) in recordings() {
        for (every, offset) in [(10, 0), (10, 6), (7, 5), (5, 2), (3, 0), (3, 1), (3, 2), (2, 0), (2, 1)] {
            for connection in connections_of(&file, |number| number % every != offset) {
                let Some((found, out)) = decode(&connection, usize::MAX) else { continue };
                if !may_be(&name, found.name) {
                    let ops: Vec<_> = out.exchanges.iter().map(common::line).take(3).collect();
                    wrong.push(format!(
                        "{} without {offset} of {every}, {:?}: {} {ops:#?}",
                        file.display(),
                        connection.ports,
                        found.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn ranges_begin_where_their_streams_do() {
    // As of connections joined in the middle; of both sides alike, as either may turn out to be the client.
    let begin = 1 << 32 | 1000;
    let lost: &[(usize, &dyn Fn(usize) -> bool)] =
        &[(0, &|_| true), (10, &|n| n % 10 != 6), (3, &|n| n % 3 != 1), (2, &|n| n % 2 != 0), (4, &|n| n % 4 != 2)];
    let mut wrong = Vec::new();
    for (_, file) in recordings() {
        for first in 0..12 {
            for (name, keep) in lost {
                for connection in connections_of(&file, |number| number >= first && keep(number)) {
                    let Some((_, out)) = decode_from(&connection, usize::MAX, [begin; 2], Output::default()) else {
                        continue;
                    };
                    let starts = |range: &std::ops::Range<u64>| range.is_empty() || range.start >= begin;
                    let before = |e: &&Exchange| !starts(&e.request) || !e.response.as_ref().is_none_or(starts);
                    if let Some(exchange) = out.exchanges.iter().find(before) {
                        wrong.push(format!("{} from {first} less {name}: {}", file.display(), common::line(exchange)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_that_a_cut_hides_are_flagged() {
    let excuses = [Flags::TRUNCATED, Flags::GAP, Flags::UNKNOWN_STATEMENT, Flags::UNKNOWN_NAMES];
    let mut wrong = Vec::new();
    for (_, file) in recordings() {
        for connection in connections_of(&file, |_| true) {
            let Some((protocol, whole)) = decode(&connection, usize::MAX) else { continue };
            let named = |e: &Exchange| (e.op.clone(), e.target.clone());
            let whole: HashMap<_, _> = whole.exchanges.iter().map(|e| (e.request.clone(), named(e))).collect();
            for limit in (1..72).chain((72..300).step_by(9)) {
                let Some((found, out)) = decode(&connection, limit) else { continue };
                let unmarked = |e: &&Exchange| {
                    whole.get(&e.request).is_some_and(|intact| *intact != named(e))
                        && !excuses.iter().any(|flag| e.flags.contains(*flag))
                        && !e.target.as_ref().is_some_and(|target| target.contains('…'))
                };
                for exchange in out.exchanges.iter().filter(unmarked) {
                    let context = format!("{} {:?} limit {limit}", file.display(), connection.ports);
                    wrong.push(format!("{context}: {}, not {:?}", common::line(exchange), whole[&exchange.request]));
                }
                assert!(found.name == protocol.name || may_be(protocol.name, found.name), "{}", file.display());
            }
        }
    }
    assert!(wrong.is_empty(), "{} {:#?}", wrong.len(), wrong.iter().take(50).collect::<Vec<_>>());
}

#[test]
fn a_cut_start_is_no_late_one() {
    let mut wrong = Vec::new();
    // A greeting of MySQL, ZooKeeper or NATS has to be whole.
    let asks_first = |(name, _): &(String, PathBuf)| !matches!(&**name, "mysql" | "zookeeper" | "nats");
    for (_, file) in recordings().into_iter().filter(asks_first) {
        for connection in connections_of(&file, |_| true).into_iter().filter(|connection| !connection.mid_stream) {
            for limit in 16..120 {
                let Some((_, out)) = decode(&connection, limit) else { continue };
                if let Some(exchange) = out.exchanges.iter().find(|e| e.flags.contains(Flags::MID_STREAM)) {
                    let context = format!("{} {:?} limit {limit}", file.display(), connection.ports);
                    wrong.push(format!("{context}: {}", common::line(exchange)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} {:#?}", wrong.len(), wrong);
}
