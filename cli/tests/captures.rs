//! Real captures, imported and replayed, against what other tools say of them: requests, errors, the first request, TLS
//! server names. Needs `KFR_SHARED` to name the folder that holds `captures/expected.jsonl`. Every file that differs is
//! printed; one that differs without a reason here fails the test. `KFR_VERBOSE=NAME` prints the requests of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kfr_analyze::dump::connection_lines;
use kfr_analyze::{Analysis, Input, Options, Want, protocol_named};
use kfr_bundle::Writer;
use serde_json::Value;

/// Files whose expected requests or errors count something else than KFR, with the reason.
const COUNTS: &[(&str, &str)] = &[
    ("zeek__methods.pcap", "malformed request lines that were answered, which only some tools count"),
    ("pcap2har__http2-dump.pcap", "TLS: the other tool has the keys"),
    ("zeek__putty-upload.pcap", "the other tool misses a request whose body it could not put together"),
    ("zeek__query-method-non-standard-port.pcap", "the other tool doesn't know the method QUERY"),
    ("zeek__query-method.pcap", "the other tool doesn't know the method QUERY"),
    ("zeek__zero-length-bodies-with-drops.pcap", "the other tool stops at the first lost segment"),
    ("arkime__mysql-deny.pcap", "the error is that of a login, which is no request"),
    ("zeek__auth.pcap", "the errors are those of logins, which are no requests"),
    ("zeek__mysql8-navicat-login-failed.pcap", "the error is that of a login, which is no request"),
    ("tcpdump__resp_3_malicious.pcap", "lines that are no commands are answered by errors: requests here"),
    ("ipfixprobe__mixed.pcap", "the other tool also counts the queries that ICMP errors quote"),
    ("tcpdump__dns-badlabel.pcap", "a response whose query was not captured is no request"),
    ("tcpdump__dns-badvers.pcap", "the other tool doesn't count the extended response code BADVERS"),
    ("zeek__dns_extended_rcode.pcap", "the other tool doesn't count the extended response code BADVERS"),
    ("packetbeat__mongodb_insert_duplicate_key.pcap", "the other tool does not know the connection on port 27018"),
    ("zeek__bad-startup-message-1.pcap", "the error is that of a login, which is no request"),
    ("zeek__psql-login-fail.pcap", "the error is that of a login, which is no request"),
    ("packetbeat__amqp_channel_error.pcap", "the other tool counts connection.start, which is the server's"),
    ("packetbeat__amqp_emit_receive.pcap", "the other tool takes channel.close and connection.close for errors"),
    ("packetbeat__amqp_publish.pcap", "the other tool takes channel.close and connection.close for errors"),
    ("mqtt-events-missing-connect__input.pcap", "the other tool gives up the client's side behind the lost segment"),
];

/// Files whose first request differs, with the reason.
const FIRST: &[(&str, &str)] = &[
    ("arkime__http2-nghttp2.pcap", "the other tool's first one is pushed by the server"),
    ("zeek__connect-with-smtp.pcap", "the target on the wire has a space; the other tool cuts it there"),
];

/// Files whose TLS server names differ, with the reason.
const SERVER_NAMES: &[(&str, &str)] = &[("ipfixprobe__tls.pcap", "the list ends after four names")];

fn reason(list: &[(&str, &'static str)], file: &str) -> Option<&'static str> {
    list.iter().find(|(name, _)| file.ends_with(name)).map(|(_, reason)| *reason)
}

/// What one capture comes to.
struct Found {
    requests: Vec<Value>,
    server_names: BTreeSet<String>,
    took: Duration,
}

fn replay(capture: &Path, bundle: &Path) -> Found {
    let began = Instant::now();
    let file = File::open(capture).expect("a capture");
    kfr_import::import(file, "capture", |header| Writer::create(bundle, header, true)).expect("it is imported");
    let inputs = Input::open_all(&[bundle.to_path_buf()]).expect("a bundle");
    let options = Options { threads: Some(1), ..Options::default() };
    let analysis = Analysis::new(&inputs, &options, Want::RequestLines).expect("it is replayed");
    let (mut lines, mut connections) = (Vec::new(), Vec::new());
    connection_lines(&analysis, &mut connections).expect("lines");
    analysis.lines.write(&mut lines).expect("lines");
    let values = |bytes: &[u8]| -> Vec<Value> {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let requests = values(&lines);
    let took = began.elapsed();
    let names =
        values(&connections).into_iter().filter_map(|line| Some(line["tls"]["server_name"].as_str()?.to_string()));
    Found { requests, server_names: names.collect(), took }
}

/// Whether a request line counts where the other tools count requests of `protocol`.
fn counts(line: &Value, protocol: &str) -> bool {
    let control = line["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "control"));
    match (protocol, line["protocol"].as_str().unwrap_or_default()) {
        ("http2", "http2" | "grpc") => true,
        // They count upgrades.
        ("websocket", found) => found == "http",
        // They count messages published.
        ("nats", "nats") => !control,
        (wanted, found) => wanted == found,
    }
}

/// Whether the first request is the one that the other tool names; `None` where it can't be told.
fn is_first(protocol: &str, theirs: &str, lines: &[&Value]) -> Option<bool> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_string();
    let cut = |text: &str| text.split(['?', ';']).next().unwrap_or_default().chars().take(50).collect::<String>();
    let any = |fits: &dyn Fn(&Value) -> bool| Some(lines.iter().any(|line| fits(line)));
    match protocol {
        "http" | "http2" | "websocket" => any(&|line| {
            let op = if line["protocol"] == "grpc" { "POST".to_string() } else { text(line, "op") };
            cut(&format!("{op} {}", text(line, "target"))) == cut(theirs)
        }),
        "mysql" | "postgresql" => {
            let first = |text: &str| {
                let text = text.replace("\\r", " ").replace("\\n", " ").replace("\\t", " ");
                text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_ascii_lowercase()
            };
            any(&|line| first(&text(line, "target")) == first(theirs) || first(&text(line, "op")) == first(theirs))
        }
        "dns" => any(&|line| match theirs {
            "<Root>" => text(line, "target") == ".",
            _ if theirs.starts_with('[') => true,
            name => text(line, "target").split(", ").next().unwrap_or_default().replace("\\032", " ") == name,
        }),
        "mongodb" | "cassandra" | "thrift" | "kafka" => {
            any(&|line| theirs.split(' ').any(|word| word == text(line, "op")))
        }
        _ => None,
    }
}

#[derive(Default)]
struct Tally {
    equal: u64,
    explained: u64,
    unexplained: u64,
}

#[test]
fn captures_agree_with_other_tools() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = PathBuf::from(shared).join("captures");
    let verbose = std::env::var("KFR_VERBOSE").unwrap_or_default();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bundle = folder.path().join("capture.kfr");
    let mut tallies: BTreeMap<(String, String), Tally> = BTreeMap::new();
    let (mut wrong, mut slowest, mut files) = (Vec::new(), (Duration::ZERO, String::new()), 0);
    for line in std::fs::read_to_string(root.join("expected.jsonl")).expect("expected.jsonl").lines() {
        let expected: Value = serde_json::from_str(line).expect("JSON");
        let file = expected["file"].as_str().expect("a name");
        let protocol = expected["protocol"].as_str().unwrap_or_default();
        let found = replay(&root.join(file), &bundle);
        files += 1;
        if found.took > slowest.0 {
            slowest = (found.took, file.to_string());
        }
        if !verbose.is_empty() && file.contains(&verbose) {
            found.requests.iter().for_each(|line| println!("{line}"));
        }
        let names = expected["facts"]["tls"]["sni"].as_array().into_iter().flatten();
        let names: BTreeSet<String> = names.filter_map(|name| Some(name.as_str()?.to_string())).collect();
        if names != found.server_names && expected["net"]["tcp_streams"] != 0 {
            let why = reason(SERVER_NAMES, file);
            println!("{file}: server names {names:?} but {:?} {}", found.server_names, why.unwrap_or(""));
            wrong.extend(why.is_none().then(|| format!("{file}: server names")));
        }
        let want = (expected["requests"].as_u64(), expected["errors"].as_u64());
        if protocol_named(protocol).is_none() || want == (None, None) {
            continue;
        }
        let ours: Vec<&Value> = found.requests.iter().filter(|line| counts(line, protocol)).collect();
        let requests = ours.len() as u64;
        let errors = ours.iter().filter(|line| line["status"] == "error").count() as u64;
        // What no tool counts is not compared.
        let equal = want.0.is_none_or(|want| want == requests) && want.1.is_none_or(|want| want == errors);
        let agreement = expected["agreement"].as_str().unwrap_or_default();
        let tally = tallies.entry((protocol.to_string(), agreement.to_string())).or_default();
        match (equal, reason(COUNTS, file)) {
            (true, _) => tally.equal += 1,
            (false, why) => {
                println!("{file}: {want:?} but {requests}, {errors} ({agreement}) {}", why.unwrap_or(""));
                match why {
                    Some(_) => tally.explained += 1,
                    None => {
                        tally.unexplained += 1;
                        wrong.push(format!("{file}: {want:?} but {requests}, {errors} ({agreement})"));
                    }
                }
            }
        }
        if let Some(theirs) = expected["first_request"].as_str()
            && equal
            && requests > 0
            && is_first(protocol, theirs, &ours[..1]) == Some(false)
        {
            let why = reason(FIRST, file);
            let first = format!("{} {}", ours[0]["op"], ours[0]["target"]);
            println!("{file}: first {theirs:?} but {first} {}", why.unwrap_or(""));
            wrong.extend(why.is_none().then(|| format!("{file}: first {theirs:?} but {first}")));
        }
    }
    for ((protocol, agreement), tally) in &tallies {
        let Tally { equal, explained, unexplained } = tally;
        println!("{protocol} ({agreement}): {equal} equal, {explained} different for a reason, {unexplained} without");
    }
    println!("{files} files, the slowest in {:?}: {}", slowest.0, slowest.1);
    assert!(wrong.is_empty(), "{wrong:#?}");
    for ((protocol, agreement), tally) in &tallies {
        let all = tally.equal + tally.explained;
        // DNS: 31 of 35, as two refusals of an EDNS version count as errors here, and queries quoted by ICMP do not count.
        let (share, of) = if protocol == "dns" { (31, 35) } else { (9, 10) };
        let reached = tally.equal * of >= all * share || agreement != "single-tool" || all < 10;
        assert!(reached, "{protocol}: {} of {all} equal", tally.equal);
    }
}
