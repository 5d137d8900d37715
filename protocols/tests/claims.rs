//! A decoder claims nothing of others: goes through every shared capture and compares what was claimed with where a
//! protocol is known to be. Needs `KFR_SHARED`; `KFR_CLAIMS=NAME` prints the claims of one protocol, or of all (`all`).

mod common;

use std::collections::BTreeMap;
use std::path::Path;

/// Captures outside of its own folder in which a protocol really is spoken, as `tshark` shows.
const SPOKEN: &[(&str, &[&str])] = &[
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

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e.to_string_lossy().contains("cap")) {
            found.push(path);
        }
    }
}

#[test]
fn what_is_claimed_where() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let only = std::env::var("KFR_CLAIMS").unwrap_or_default();
    let root = Path::new(&shared).join("captures");
    let mut found = Vec::new();
    files(&root, &mut found);
    found.sort();
    let mut wrong = Vec::new();
    for path in found {
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        let mut claims: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        for connection in common::connections(&path) {
            let Some((protocol, out)) = common::decode(&connection, usize::MAX) else { continue };
            let own = file.starts_with(&format!("{}/", protocol.name));
            if let Some((_, places)) = SPOKEN.iter().find(|(name, _)| *name == protocol.name)
                && !own
                && !places.contains(&file.as_str())
            {
                wrong.push(format!("{} in {file}", protocol.name));
            }
            if protocol.name != only && only != "all" {
                continue;
            }
            let transport = if connection.datagrams { "udp" } else { "tcp" };
            let entry = claims.entry((protocol.name, transport, connection.ports.1)).or_default();
            entry.0 += 1;
            entry.1 += out.exchanges.len();
        }
        if !claims.is_empty() {
            println!("{file} {claims:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
