//! Kafka: librdkafka at both ends, its mock cluster as the broker. Its log of requests sent, and the errors that the
//! broker was told to answer with.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::harness::{live, run, script, tables};
use crate::truth::{Capture, Counts, assert_equal, folder};

/// Names that librdkafka writes otherwise than Kafka.
fn api(name: &str) -> &str {
    match name {
        "ApiVersion" => "ApiVersions",
        "Offset" => "ListOffsets",
        other => other,
    }
}

#[test]
fn kafka_counts_the_same_requests() {
    if !live(&["gcc"], &["confluent_kafka"]) {
        return;
    }
    let folder = folder();
    let program = folder.path().join("kafka_broker");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live_protocols/kafka_broker.c");
    run(Command::new("gcc").args(["-o"]).arg(&program).args([source, "-lrdkafka"]));
    let mut broker = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(broker.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let capture = Capture::start(folder.path(), "kafka", &["--port", &port.to_string()]);
    let client = tables(script("kafka.py").arg(port.to_string()));
    let bundle = capture.stop();
    drop(broker.stdin.take());
    assert!(broker.wait().unwrap().success());

    let mut sent = Counts::new();
    let mut unanswered = Counts::new();
    for (name, count) in &client["sent"] {
        *sent.entry(api(name.split(' ').next().unwrap()).to_string()).or_default() += count;
        *unanswered.entry(name.split(' ').next().unwrap().to_string()).or_default() += count;
    }
    // The consumer leaves while it waits for messages.
    unanswered.iter_mut().for_each(|(name, count)| *count -= client["received"].get(name).copied().unwrap_or_default());
    let kfr = bundle.count(port, |line| {
        assert_eq!(line["protocol"], "kafka", "{line}");
        line["op"].as_str().unwrap().to_string()
    });
    assert_equal("Kafka, client's log", &sent, &kfr);

    let mut errors = bundle.count(port, |line| match line["status"].as_str() {
        Some("error") => format!("{} {}", line["op"].as_str().unwrap(), line["code"].as_str().unwrap_or("?")),
        other => other.unwrap_or("unknown").to_string(),
    });
    errors.remove("ok");
    let mut told = Counts::from([
        ("Produce NOT_LEADER_OR_FOLLOWER".to_string(), 1),
        ("Produce REQUEST_TIMED_OUT".to_string(), 1),
        ("OffsetCommit REBALANCE_IN_PROGRESS".to_string(), 1),
        // The mock cluster knows ApiVersions up to version 2; the library falls back to 0.
        ("ApiVersions UNSUPPORTED_VERSION".to_string(), client["sent"]["ApiVersion v3"]),
    ]);
    told.extend(Some(unanswered.values().sum()).filter(|sum| *sum > 0).map(|sum| ("unanswered".to_string(), sum)));
    assert_equal("Kafka, errors asked for", &told, &errors);
}
