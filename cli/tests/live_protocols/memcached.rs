//! memcached: the client's count and the server's `stats`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use super::harness::{compare, live, script, sum, tables};
use crate::truth::{Capture, Counts, Server, assert_equal, find_program, folder, free_port};

fn statistics(port: u16) -> BTreeMap<String, u64> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    stream.get_mut().write_all(b"stats\r\n").unwrap();
    let mut statistics = BTreeMap::new();
    for line in stream.lines().map(Result::unwrap).take_while(|line| line != "END") {
        let mut words = line.split(' ').skip(1);
        let (name, value) = (words.next().unwrap(), words.next().unwrap());
        statistics.extend(value.parse().ok().map(|value| (name.to_string(), value)));
    }
    statistics
}

/// A server on one port for TCP and UDP; and the port as text.
fn start(folder: &Path) -> (Server, String) {
    let port = free_port();
    let text = port.to_string();
    let mut command = Command::new(find_program("memcached").unwrap());
    command.args(["-u", "root", "-l", "127.0.0.1", "-p", &text, "-U", &text]);
    (Server::start("memcached", port, &folder.join("memcached.log"), &mut command), text)
}

#[test]
fn memcached_counts_the_same_commands() {
    if !live(&["memcached"], &["pymemcache"]) {
        return;
    }
    let folder = folder();
    let (server, text) = start(folder.path());
    let port = server.port;
    let capture = Capture::start(folder.path(), "memcached", &["--port", &text, "--payload-limit", "32KiB"]);
    let client = tables(script("memcached.py").args([&text, "tcp"]));
    let bundle = capture.stop();
    compare("memcached, client", "memcached", &bundle, port, &client["counts"]);

    let stats = statistics(port);
    let said = |names: &[&str]| names.iter().map(|name| stats[*name]).sum::<u64>();
    let own = bundle.count(port, super::harness::name);
    let mut keys = Counts::new();
    bundle.requests(port, |line| {
        let op = line["op"].as_str().unwrap();
        if matches!(op, "get" | "gets" | "mg") {
            // "first +19": so many keys more.
            let more = line["target"].as_str().unwrap().rsplit_once(" +").map_or(0, |(_, more)| more.parse().unwrap());
            *keys.entry("keys asked for".to_string()).or_default() += 1 + more;
            *keys.entry("hits".to_string()).or_default() += line["rows"].as_u64().unwrap();
        }
    });
    for (name, prefixes) in [
        ("stores", &["set ", "add ", "cas ", "ms "][..]),
        ("increments", &["incr ok"]),
        ("decrements", &["decr "]),
        ("touches", &["touch "]),
        ("deletes", &["delete ", "md "]),
    ] {
        keys.insert(name.to_string(), prefixes.iter().map(|prefix| sum(&own, prefix)).sum());
    }
    let server = Counts::from([
        ("keys asked for".to_string(), said(&["cmd_get"])),
        ("hits".to_string(), said(&["get_hits"])),
        ("stores".to_string(), said(&["cmd_set"])),
        // One failed as its value is no number, which is counted nowhere.
        ("increments".to_string(), said(&["incr_hits", "incr_misses"])),
        ("decrements".to_string(), said(&["decr_hits", "decr_misses"])),
        ("touches".to_string(), said(&["cmd_touch"])),
        ("deletes".to_string(), said(&["delete_hits", "delete_misses"])),
    ]);
    assert_equal("memcached, stats", &server, &keys);
}

#[test]
fn memcached_counts_the_same_commands_over_udp() {
    if !live(&["memcached"], &["pymemcache"]) {
        return;
    }
    let folder = folder();
    let (server, text) = start(folder.path());
    tables(script("memcached.py").args([&text, "tcp"]));
    let capture = Capture::start(folder.path(), "memcached", &["--port", &text, "--payload-limit", "32KiB"]);
    let client = tables(script("memcached.py").args([&text, "udp"]));
    let bundle = capture.stop();
    compare("memcached over UDP, client", "memcached", &bundle, server.port, &client["counts"]);
}
