//! Compares the decoders with what other tools say about real captures. Needs `KFR_SHARED` to name the folder that holds
//! `captures/expected.jsonl`; prints every file that differs. `KFR_VERBOSE=NAME` prints the exchanges of one file.

mod common;

use std::collections::BTreeSet;

use kfr_protocols::{Status, protocol_named};
use kfr_protocols::{Exchange, Status, protocol_named};
use serde_json::Value;

/// Files whose expected numbers count something else than requests as KFR defines them, with the reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("zeek__methods.pcap", "malformed request lines that were answered, which only some tools count"),
    ("pcap2har__http2-dump.pcap", "TLS: the other tool has the keys"),
    ("zeek__putty-upload.pcap", "the other tool misses a request whose body it could not put together"),
    ("zeek__query-method-non-standard-port.pcap", "the other tool doesn't know the method QUERY"),
    ("zeek__query-method.pcap", "the other tool doesn't know the method QUERY"),
    ("zeek__zero-length-bodies-with-drops.pcap", "the other tool stops at the first lost segment"),
    ("arkime__mysql-deny.pcap", "the error is that of a login, which is no request"),
    ("zeek__auth.pcap", "the errors are those of logins, which are no requests"),
    ("zeek__mysql8-navicat-login-failed.pcap", "the error is that of a login, which is no request"),
    ("packetbeat__mongodb_insert_duplicate_key.pcap", "the other tool does not know the connection on port 27018"),
    ("tcpdump__resp_3_malicious.pcap", "lines that are no commands are answered by errors: requests here"),
    ("ipfixprobe__mixed.pcap", "the other tool also counts the queries that ICMP errors quote"),
    ("tcpdump__dns-badlabel.pcap", "a response whose query was not captured is no request"),
    ("tcpdump__dns-badvers.pcap", "the other tool doesn't count the extended response code BADVERS"),
    ("zeek__dns_extended_rcode.pcap", "the other tool doesn't count the extended response code BADVERS"),
];

/// Files whose TLS server names differ, with the reason.
const DIFFERENT_NAMES: &[(&str, &str)] = &[
    ("ipfixprobe__tls.pcap", "the list there ends after four names; tshark shows these 17"),
    ("zeek__geneve-47101.pcap", "the reader of these tests looks into no tunnels"),
];

/// A request as the other tools show it, without what follows `?`.
fn first_request(exchange: &Exchange) -> String {
    let grpc = exchange.protocol == protocol_named("grpc").map(|(number, _)| number);
    let op = if grpc { "POST" } else { &*exchange.op };
    masked(&format!("{op} {}", exchange.target.as_deref().unwrap_or_default()))
}

fn masked(request: &str) -> String {
    request.split(['?', ';']).next().unwrap_or_default().chars().take(60).collect()
}
/// Protocols whose `op` stands in what the other tool says of the first request.
const NAMED: &[&str] = &["mongodb", "cassandra", "thrift"];

#[test]
fn captures_agree_with_other_tools() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = std::path::Path::new(&shared).join("captures");
    // To see what a payload limit does to the counts.
    let limit = std::env::var("KFR_PAYLOAD_LIMIT").ok().and_then(|l| l.parse().ok()).unwrap_or(usize::MAX);
    let verbose = std::env::var("KFR_VERBOSE").unwrap_or_default();
    let (mut equal, mut different) = (0, Vec::new());
    for line in std::fs::read_to_string(root.join("expected.jsonl")).unwrap().lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let file = expected["file"].as_str().unwrap();
        let protocol = expected["protocol"].as_str().unwrap();
        let ours = protocol_named(protocol).is_some();
        // What the other tools count under one name.
        let names: &[&str] = match protocol {
            "http2" => &["http2", "grpc"],
            // They count upgrades.
            "websocket" => &["http"],
            name => &[name],
        };
        let numbers: Vec<_> = names.iter().filter_map(|name| protocol_named(name)).map(|(number, _)| number).collect();
        let (mut requests, mut errors, mut skipped, mut first) = (0, 0, [0, 0], None);
        let mut server_names = BTreeSet::new();
        let (mut requests, mut errors, mut messages, mut skipped, mut firsts) = (0, 0, 0, [0, 0], Vec::new());
        let (mut requests, mut errors, mut skipped) = (0, 0, [0, 0]);
        let mut first: Option<String> = None;
        for connection in common::connections(&root.join(file)) {
            let Some((found, out)) = common::decode(&connection, limit) else { continue };
            server_names.extend(out.tls.as_ref().and_then(|tls| tls.server_name.as_deref()).map(str::to_owned));
            if !verbose.is_empty() && file.contains(&verbose) {
                println!("{file} {:?} {} mid_stream={}", connection.ports, found.name, connection.mid_stream);
                out.exchanges.iter().for_each(|e| println!("    {}", common::line(e)));
                println!("    skipped {:?} {:?} rejected {}", out.skipped_bytes, out.switched, out.rejected);
                println!("    {:?}", out.tls);
            }
            let exchanges = out.exchanges.iter().filter(|e| e.protocol.is_some_and(|number| numbers.contains(&number)));
            messages += out.exchanges.iter().filter(|e| matches!(&*e.op, "text" | "binary")).count() as u64;
            requests += exchanges.clone().count() as u64;
            if first.is_none() {
                // In the order of completion: the first one asked has the lowest offset.
                first = exchanges.clone().min_by_key(|e| e.request.start).and_then(|e| e.target.clone());
            }
            firsts.extend(exchanges.clone().map(first_request));
            let earliest = exchanges.clone().min_by_key(|exchange| exchange.request.start);
            first = first.or(earliest.map(|exchange| exchange.op.to_string()));
            errors += exchanges.filter(|e| e.status == Status::Error).count() as u64;
            if found.name == protocol {
                skipped[0] += out.skipped_bytes[0];
                skipped[1] += out.skipped_bytes[1];
            }
        }
        // Which servers were asked for by TLS, by files of any protocol.
        let names = expected["facts"]["tls"]["sni"].as_array();
        let names: BTreeSet<_> =
            names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        if server_names != names && expected["net"]["tcp_streams"] != 0 && limit == usize::MAX {
            let reason = DIFFERENT_NAMES.iter().find(|(name, _)| file.ends_with(name)).map(|(_, reason)| *reason);
            println!("{file}: server names {names:?} but {server_names:?} {}", reason.unwrap_or_default());
            if reason.is_none() {
                different.push(file.to_owned());
            }
        }
        if !ours {
            continue;
        }
        let asked = expected["first_request"].as_str().unwrap_or_default();
        if protocol == "dns" && requests > 0 && !same_name(asked, first.as_deref()) {
            println!("{file}: first {asked:?} but {first:?}");
            different.push(file.to_owned());
        if let Some(first) = expected["first_request"].as_str().filter(|_| protocol.starts_with("http"))
            && requests > 0
            && !firsts.iter().any(|ours| *ours == masked(first))
        {
            println!("{file}: first request {:?} but {:?}", masked(first), firsts.first());
        }
        let opcodes = &expected["facts"]["websocket.opcode"]["values"];
        if opcodes.is_object() {
            let told = ["1", "2"].iter().filter_map(|opcode| opcodes[*opcode].as_u64()).sum::<u64>();
            assert_eq!(messages, told, "{file}: messages by their opcodes");
        if NAMED.contains(&protocol)
            && let (Some(expected), Some(first)) = (expected["first_request"].as_str(), &first)
        {
            assert!(expected.split(' ').any(|word| word == first), "{file}: first {expected:?} but {first:?}");
        }
        let want = (expected["requests"].as_u64(), expected["errors"].as_u64());
        // Of MongoDB no tool tells errors.
        let errors_fit = want.1 == Some(errors) || want.1.is_none();
        if want.0 == Some(requests) && errors_fit || want == (None, None) {
            equal += 1;
        } else {
            let agreement = expected["agreement"].as_str().unwrap_or("");
            let reason = DIFFERENT.iter().find(|(name, _)| file.ends_with(name)).map(|(_, reason)| *reason);
            println!(
                "{file}: {want:?} but {requests}, {errors} ({agreement}) skipped {skipped:?} {}",
                reason.unwrap_or("")
            );
            if reason.is_none() {
                different.push(file.to_owned());
            }
        }
    }
    println!("{equal} equal, {} different without a known reason", different.len());
    assert!(different.is_empty(), "{different:?}");
}

/// Whether a name that the other tool shows is the first of those that were asked for.
fn same_name(theirs: &str, ours: Option<&str>) -> bool {
    let first = ours.and_then(|names| names.split(", ").next()).unwrap_or_default();
    match theirs {
        "<Root>" => first == ".",
        // An address in place of a name (IQUERY).
        _ if theirs.starts_with('[') => first.is_empty(),
        name => first.replace("\\032", " ") == name,
    }
/// HTTP/2 and what rides on it has claims on no other protocol's connections.
#[test]
fn http2_is_claimed_nowhere_else() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = std::path::Path::new(&shared).join("captures");
    let mut claimed = Vec::new();
    for line in std::fs::read_to_string(root.join("expected.jsonl")).unwrap().lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let (file, protocol) = (expected["file"].as_str().unwrap(), expected["protocol"].as_str().unwrap_or_default());
        // Files that can't be read as captures are none of this test's business.
        let Ok(connections) = std::panic::catch_unwind(|| common::connections(&root.join(file))) else { continue };
        for mut connection in connections {
            for mid_stream in [connection.mid_stream, true] {
                connection.mid_stream = mid_stream;
                let found = common::decode(&connection, usize::MAX).map_or("", |(found, _)| found.name);
                let is_there = protocol == "http2" || file.contains("mixed_traffic");
                if matches!(found, "http2" | "grpc" | "websocket") && !is_there {
                    claimed.push(format!("{file} {:?} {found} mid_stream={mid_stream}", connection.ports));
                }
            }
        }
    }
    assert!(claimed.is_empty(), "{claimed:#?}");
}
