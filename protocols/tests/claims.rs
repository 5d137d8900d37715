//! No decoder takes another protocol's connections: over all shared captures. Needs `KFR_SHARED`.

mod common;

use serde_json::Value;

/// Protocols looked at, and files that hold them beside their main one.
const LOOKED_AT: &[&str] = &["mongodb", "cassandra", "thrift", "clickhouse"];
const BESIDE: &[(&str, &str)] = &[];

#[test]
fn nothing_of_others_is_claimed() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = std::path::Path::new(&shared).join("captures");
    let mut wrong = Vec::new();
    let mut connections = 0;
    for line in std::fs::read_to_string(root.join("expected.jsonl")).unwrap().lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let (file, protocol) = (expected["file"].as_str().unwrap(), expected["protocol"].as_str().unwrap());
        for mut connection in common::connections(&root.join(file)) {
            // As it is, and as if nothing were known of its beginning.
            for late in [false, true] {
                connection.mid_stream |= late;
                connections += 1;
                let Some((found, _)) = common::decode(&connection, usize::MAX) else { continue };
                let known = protocol == found.name || BESIDE.contains(&(file, found.name));
                if LOOKED_AT.contains(&found.name) && !known {
                    wrong.push(format!("{file} {:?} {} late={late}", connection.ports, found.name));
                }
            }
        }
    }
    println!("{connections} connections");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
