//! Compares the decoders with what other tools say about real captures. Needs `KFR_SHARED` to name the folder that holds
//! `captures/expected.jsonl`; prints every file that differs. `KFR_VERBOSE=NAME` prints the exchanges of one file.

mod common;

use kfr_protocols::{Flags, Status, protocol_named};
use serde_json::Value;

/// Files whose expected numbers count something else than requests as KFR defines them, with the reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("zeek__methods.pcap", "malformed request lines, which only some tools count"),
    ("zeek__putty-upload.pcap", "the other tool misses a request whose body it could not put together"),
    ("zeek__query-method-non-standard-port.pcap", "the other tool doesn't know the method QUERY"),
    ("zeek__query-method.pcap", "the other tool doesn't know the method QUERY"),
    ("zeek__zero-length-bodies-with-drops.pcap", "the other tool stops at the first lost segment"),
    ("arkime__mysql-deny.pcap", "the error is that of a login, which is no request"),
    ("zeek__auth.pcap", "the errors are those of logins, which are no requests"),
    ("zeek__mysql8-navicat-login-failed.pcap", "the error is that of a login, which is no request"),
    ("packetbeat__amqp_channel_error.pcap", "the other tool counts connection.start, which is the server's"),
    ("packetbeat__amqp_emit_receive.pcap", "the other tool takes channel.close and connection.close for errors"),
    ("packetbeat__amqp_publish.pcap", "the other tool takes channel.close and connection.close for errors"),
    ("mqtt-events-missing-connect__input.pcap", "the other tool gives up the client's side behind the lost segment"),
    ("tcpdump__resp_3_malicious.pcap", "lines that are no commands are answered by errors: requests here"),
];

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
            name => &[name],
        };
        let numbers: Vec<_> = names.iter().filter_map(|name| protocol_named(name)).map(|(number, _)| number).collect();
        let (mut requests, mut errors, mut skipped) = (0, 0, [0, 0]);
        for connection in common::connections(&root.join(file)) {
            let Some((found, out)) = common::decode(&connection, limit) else { continue };
            if !verbose.is_empty() && file.contains(&verbose) {
                println!("{file} {:?} {} mid_stream={}", connection.ports, found.name, connection.mid_stream);
                out.exchanges.iter().for_each(|e| println!("    {}", common::line(e)));
                println!("    skipped {:?} {:?} rejected {}", out.skipped_bytes, out.switched, out.rejected);
            }
            let exchanges = out.exchanges.iter().filter(|e| e.protocol.is_some_and(|number| numbers.contains(&number)));
            // Of NATS, the other tool counts messages published.
            let exchanges = exchanges.filter(|e| protocol != "nats" || !e.flags.contains(Flags::CONTROL));
            requests += exchanges.clone().count() as u64;
            errors += exchanges.filter(|e| e.status == Status::Error).count() as u64;
            if found.name == protocol {
                skipped[0] += out.skipped_bytes[0];
                skipped[1] += out.skipped_bytes[1];
            }
        }
        if !ours {
            continue;
        }
        let want = (expected["requests"].as_u64(), expected["errors"].as_u64());
        // What no tool counts is not compared.
        if want.0.is_none_or(|want| want == requests) && want.1.is_none_or(|want| want == errors) {
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
