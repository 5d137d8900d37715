//! No decoder claims another protocol's bytes: which protocol the connections of real captures are taken for, as they were
//! captured, cut by payload limits, and joined later. Needs `KFR_SHARED` to name the folder that holds `captures/expected.jsonl`.

mod common;

use kfr_protocols::{Prefix, ProtocolSet, detect};
use serde_json::Value;

/// Captures in which a protocol really is spoken though the other tool does not show it.
const ALSO: &[(&str, &str, &str)] = &[
    ("postgresql", "http/packetbeat__http_10_connection_close.pcap", "only a startup and a pooled answer, on its port"),
    ("dns", "http/arkime__v6-http.pcap", "multicast DNS, which has a name of its own there"),
    ("http2", "pcapformat/pcap_file_ex__mixed_traffic_sample.pcap", "on port 8097: `-d tcp.port==8097,http2` shows it"),
    (
        "http2",
        "pcapformat/pcap_file_ex__mixed_traffic_sample.pcapng",
        "on port 8097: `-d tcp.port==8097,http2` shows it",
    ),
    ("http", "tcp/zeek__reassembly.pcap", "a request whose head the other tool could not put together"),
];

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
            let seen = [None, Some(0), Some(1), Some(2), Some(3), Some(6)];
            for (late, limit) in seen.into_iter().flat_map(|late| [usize::MAX, 100, 20].map(|limit| (late, limit))) {
                let mut connection = connection.clone();
                connection.pieces.drain(..late.unwrap_or(0).min(connection.pieces.len()));
                connection.mid_stream |= late.is_some();
                connections += 1;
                let Some((found, out)) = common::decode(&connection, limit) else { continue };
                if !is_spoken(found.name, &expected) {
                    let requests = out.exchanges.len();
                    let how = format!("late {late:?} limit {limit}");
                    wrong.push(format!("{file} {:?} {how}: {} ({requests})", connection.ports, found.name));
                }
            }
        }
    }
    println!("{connections} connections");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn protocols_that_nobody_reads_are_not_claimed() {
    let claimed = |client: &[u8], server: &[u8], datagrams| {
        let prefix = Prefix { client, server, datagrams, complete: true, ..Prefix::default() };
        assert_eq!(detect(&prefix, ProtocolSet::default()), Ok(None), "{client:?} {server:?}");
    };
    let ntp = [&[0x23, 2, 6, 0xec][..], &[0; 44]].concat();
    let stun = [&b"\0\x01\0\0\x21\x12\xa4\x42"[..], &[9; 12]].concat();
    let quic = [&b"\xc3\0\0\0\x01\x08"[..], &[7; 1194]].concat();
    // NetBIOS's name service has the form of DNS; its names are 32 letters.
    let netbios = b"\0\x01\x01\x10\0\x01\0\0\0\0\0\0\x20EDEFEDEFEDEFEDEFEDEFEDEFEDEFEDEF\0\0\x20\0\x01";
    let ssdp = b"M-SEARCH * HTTP/1.1\r\nHOST: x\r\n\r\n";
    for other in [&ntp[..], &stun, &quic, netbios, ssdp, &[0; 64]] {
        claimed(other, &[], true);
        claimed(&[], other, true);
    }
    let streams: [(&[u8], &[u8]); 5] = [
        (b"SSH-2.0-OpenSSH_9.6\r\n", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
        (b"EHLO host\r\nMAIL FROM:<a@b.test>\r\n", b"220 mail.test ESMTP\r\n250 ok\r\n250 ok\r\n"),
        (b"USER anonymous\r\nPASS x\r\n", b"220 ready\r\n331 password\r\n230 in\r\n"),
        (b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb", b""),
        (b"\0\0\0\x45\xffSMB\x72\0\0\0\0\x18\x53\xc8", b"\0\0\0\x45\xffSMB\x72\0\0\0\0\x98\x53\xc8"),
    ];
    for (client, server) in streams {
        claimed(client, server, false);
    }
}
