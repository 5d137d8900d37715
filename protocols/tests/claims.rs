//! No decoder claims another protocol's bytes: which protocol the connections of real captures are taken for, as they were
//! captured and joined later. Needs `KFR_SHARED` to name the folder that holds `captures/expected.jsonl`.

mod common;

use serde_json::Value;

/// Captures of one protocol in which another is really spoken as well, as `tshark` shows.
const ALSO: &[(&str, &[&str])] = &[
    (
        "dns",
        &[
            "http/arkime__v6-http.pcap",
            "http/packetbeat__http_basicauth.pcap",
            "pcapformat/gopacket__test_dns.pcap",
            "pcapformat/ptcpdump__dns.pcapng",
            "smtp/zeek__smtp.pcap",
            "tcp/ipfixprobe__vlan.pcap",
        ],
    ),
    (
        "tls",
        &[
            "http/packetbeat__http_10_connection_close.pcap",
            "http/packetbeat__http_basicauth.pcap",
            "http2/pcap2har__http2-dump.pcap",
            "mqtt/suricata-verify__mqtt-events-missing-connect__input.pcap",
            "pcapformat/ptcpdump__tls.pcap",
            "postgresql/zeek__psql-aws-ssl-preferred.pcap",
            "postgresql/zeek__psql-aws-ssl-require-15432.pcap",
            "postgresql/zeek__psql-aws-ssl-require.pcap",
            "smtp/zeek__smtp.pcap",
        ],
    ),
];

/// Whether a capture of `protocol` may hold connections of `found`.
fn is_spoken(found: &str, protocol: &str, file: &str) -> bool {
    match (found, protocol) {
        _ if found == protocol => true,
        ("http2" | "grpc" | "http", "http" | "http2" | "websocket") | ("websocket", "http" | "websocket") => true,
        _ => ALSO.iter().any(|(name, files)| *name == found && files.contains(&file)),
    }
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
        let (file, protocol) = (expected["file"].as_str().unwrap(), expected["protocol"].as_str().unwrap_or_default());
        for connection in common::connections(&root.join(file)) {
            for late in [None, Some(0), Some(1), Some(3), Some(6)] {
                let mut connection = connection.clone();
                connection.pieces.drain(..late.unwrap_or(0).min(connection.pieces.len()));
                connection.mid_stream |= late.is_some();
                connections += 1;
                let Some((found, out)) = common::decode(&connection, usize::MAX) else { continue };
                if !is_spoken(found.name, protocol, file) {
                    let requests = out.exchanges.len();
                    wrong.push(format!("{file} {:?} late {late:?}: {} ({requests})", connection.ports, found.name));
                }
            }
        }
    }
    println!("{connections} connections");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
