//! Scripted peers (`scripts/peers`), where the distribution has no server: real clients, and made-up servers that count
//! what they were asked.

use serde_json::Value;

use super::harness::{live, peer, run};
use crate::truth::{Bundle, Capture, Counts, Server, assert_equal, folder, free_port};

/// Records the client of a peer; what the peer counted, and the recording.
fn record(name: &str, options: &[&str], check: impl Fn(&Value, &Bundle, u16)) {
    let folder = folder();
    let port = free_port();
    let text = port.to_string();
    let program = format!("{name}.py");
    let log = folder.path().join("peer.log");
    let server =
        Server::start(&format!("the scripted {name}"), port, &log, peer(&program).args(["serve", &text]).args(options));
    let capture = Capture::start(folder.path(), name, &["--port", &text]);
    run(peer(&program).args(["use", &text]).args(options));
    let bundle = capture.stop();
    bundle.requests(port, |line| assert_eq!(line["protocol"], name, "{line}"));
    drop(server);
    let printed = std::fs::read_to_string(&log).unwrap();
    check(&serde_json::from_str(printed.lines().last().unwrap()).unwrap(), &bundle, port);
}

/// A table of all numbers that the peer names.
fn table(counted: &Value, names: &[&str]) -> Counts {
    names.iter().map(|name| (name.to_string(), counted[*name].as_u64().unwrap())).collect()
}

/// Operations, requests and errors as the peers of MongoDB and Cassandra count them.
fn by_operation(what: &str, counted: &Value, bundle: &Bundle, port: u16) {
    let mut server: Counts = serde_json::from_value(counted["ops"].clone()).unwrap();
    server.extend(table(counted, &["requests", "errors"]));
    let mut kfr = bundle.count(port, |line| line["op"].as_str().unwrap().to_string());
    kfr.insert("requests".to_string(), kfr.values().sum());
    kfr.insert("errors".to_string(), 0);
    bundle.requests(port, |line| {
        assert_ne!(line["status"], Value::Null, "{line}");
        *kfr.entry("errors".to_string()).or_default() += u64::from(line["status"] == "error");
    });
    assert_equal(what, &server, &kfr);
}

#[test]
fn mongodb_scripted() {
    if !live(&[], &["pymongo", "bson"]) {
        return;
    }
    record("mongodb", &[], |counted, bundle, port| by_operation("MongoDB (scripted)", counted, bundle, port));
}

#[test]
fn cassandra_scripted() {
    if !live(&[], &["cassandra.cluster"]) {
        return;
    }
    record("cassandra", &["4", "lz4"], |counted, bundle, port| {
        by_operation("Cassandra (scripted)", counted, bundle, port);
    });
}

#[test]
fn clickhouse_scripted() {
    if !live(&[], &["clickhouse_driver"]) {
        return;
    }
    record("clickhouse", &[], |counted, bundle, port| {
        let server = table(counted, &["queries", "pings", "exceptions"]);
        let mut kfr = Counts::new();
        bundle.requests(port, |line| {
            let name = if line["op"] == "ping" { "pings" } else { "queries" };
            *kfr.entry(name.to_string()).or_default() += 1;
            *kfr.entry("exceptions".to_string()).or_default() += u64::from(line["status"] == "error");
        });
        assert_equal("ClickHouse (scripted)", &server, &kfr);
    });
}

#[test]
fn thrift_scripted() {
    if !live(&[], &["thrift.Thrift"]) {
        return;
    }
    for form in ["binary", "framed-compact", "header"] {
        record("thrift", &[form], |counted, bundle, port| {
            let server = table(counted, &["calls", "oneways", "exceptions", "declared"]);
            let mut kfr = Counts::new();
            bundle.requests(port, |line| {
                let oneway = line["flags"].as_array().unwrap().iter().any(|flag| flag == "no_reply");
                *kfr.entry(if oneway { "oneways" } else { "calls" }.to_string()).or_default() += 1;
                *kfr.entry("exceptions".to_string()).or_default() += u64::from(line["status"] == "error");
                let declared = line["code"].as_str().is_some_and(|code| code.starts_with("exception "));
                *kfr.entry("declared".to_string()).or_default() += u64::from(declared);
            });
            assert_equal(&format!("Thrift (scripted), {form}"), &server, &kfr);
        });
    }
}
