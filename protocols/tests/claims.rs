//! No decoder claims another protocol's bytes: which protocol the connections of real captures are taken for, as they were
//! captured and joined later. Needs `KFR_SHARED` to name the folder that holds `captures/expected.jsonl`.

mod common;

use serde_json::Value;

/// Captures in which a protocol really is spoken though the other tool does not show it.
const ALSO: &[(&str, &str, &str)] = &[(
    "postgresql",
    "http/packetbeat__http_10_connection_close.pcap",
    "only a startup and a pooled answer, on its port",
)];

/// The other tool's name of a protocol.
fn tshark_name(protocol: &str) -> &str {
    match protocol {
        "postgresql" => "pgsql",
        "mongodb" => "mongo",
        "cassandra" => "cql",
        "memcached" => "memcache",
        "grpc" => "http2",
        name => name,
    }
}

/// Whether a capture holds connections of `found`.
fn is_spoken(found: &str, expected: &Value) -> bool {
    let (file, protocol) = (expected["file"].as_str().unwrap(), expected["protocol"].as_str().unwrap_or_default());
    let seen = expected["protocols_seen"].as_array().into_iter().flatten();
    found == protocol
        || seen.filter_map(Value::as_str).any(|name| name == tshark_name(found))
        || ALSO.iter().any(|(name, also, _)| *name == found && *also == file)
}

#[test]
fn foreign_bytes_are_not_claimed() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = std::path::Path::new(&shared).join("captures");
    let (mut connections, mut wrong) = (0, Vec::new());
    for line in std::fs::read_to_string(root.join("expected.jsonl")).unwrap().lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let file = expected["file"].as_str().unwrap();
        for connection in common::connections(&root.join(file)) {
            for late in [None, Some(0), Some(1), Some(3), Some(6)] {
                let mut connection = connection.clone();
                connection.pieces.drain(..late.unwrap_or(0).min(connection.pieces.len()));
                connection.mid_stream |= late.is_some();
                connections += 1;
                let Some((found, out)) = common::decode(&connection, usize::MAX) else { continue };
                if !is_spoken(found.name, &expected) {
                    let requests = out.exchanges.len();
                    wrong.push(format!("{file} {:?} late {late:?}: {} ({requests})", connection.ports, found.name));
                }
            }
        }
    }
    println!("{connections} connections");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
