//! No decoder claims another protocol's bytes: which protocol the connections of real captures are taken for. Needs
//! `KFR_SHARED`, as `captures.rs` does.

mod common;

use std::collections::BTreeMap;

use serde_json::Value;

/// Protocols whose detection is held against every capture, with the files of another main protocol that do hold some
/// of theirs.
const HELD: &[(&str, &[&str])] = &[("amqp", &[]), ("mqtt", &[]), ("nats", &[]), ("memcached", &[])];

#[test]
fn foreign_bytes_are_not_claimed() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = std::path::Path::new(&shared).join("captures");
    let (mut claims, mut files): (BTreeMap<String, usize>, _) = (BTreeMap::new(), 0);
    let mut wrong = Vec::new();
    for line in std::fs::read_to_string(root.join("expected.jsonl")).unwrap().lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let file = expected["file"].as_str().unwrap();
        let protocol = expected["protocol"].as_str().unwrap();
        files += 1;
        for connection in common::connections(&root.join(file)) {
            // As it was captured, and joined a little later.
            for late in [0, 1, 3] {
                let mut connection = connection.clone();
                connection.pieces.drain(..late.min(connection.pieces.len()));
                connection.mid_stream |= late > 0;
                let Some((found, _)) = common::decode(&connection, usize::MAX) else { continue };
                *claims.entry(found.name.to_owned()).or_default() += 1;
                let Some((_, also)) = HELD.iter().find(|(name, _)| *name == found.name) else { continue };
                if found.name != protocol && !also.iter().any(|name| file.ends_with(name)) {
                    wrong.push(format!("{file} {:?} late {late}: {}", connection.ports, found.name));
                }
            }
        }
    }
    println!("{files} files, connections claimed: {claims:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
