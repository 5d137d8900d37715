//! Bad input: a clear error in one line or a counted loss, the right exit code, never a panic.
//!
//! What needs a recorder at work is in `live_bad_input.rs`.

mod generate;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use generate::talk::{Conversation, Message, Talk};
use generate::{Ends, Random, Recorder, Recording, Traffic, record, traffic};
use kfr_bundle::{FileHeader, Reader, Version};

const KFR: &str = env!("CARGO_BIN_EXE_kfr");

fn kfr(arguments: &[&str]) -> Output {
    Command::new(KFR).args(arguments).output().unwrap()
}

/// The error's one line; `output` must have this exit code.
fn one_line(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(text.starts_with("kfr: "), "{text}");
    text
}

/// Neither a panic nor a crash, whatever else.
fn survives(output: &Output, what: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "{what}: {}: {text}", output.status);
    assert!(!text.contains("panicked") && text.lines().count() <= 1, "{what}: {text}");
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn generated(path: &Path, connections: u64) {
    let mut recorder = Recorder::create(path);
    let wanted = Traffic {
        connections,
        at_once: 20,
        requests_each: 20,
        body: 800,
        seed: 3,
        raw_bytes: u64::MAX,
        closes: true,
        trouble: false,
    };
    traffic(&mut recorder, &wanted);
    recorder.finish();
}

/// A bundle with this conversation alone.
fn talked(path: &Path, talk: Talk, messages: Vec<Message>, recording: &Recording) {
    let mut recorder = Recorder::create(path);
    let conversation = Conversation { messages, ..Conversation::default() };
    recorder.open(1, talk, recording);
    record(&conversation, recording, &mut Random(1)).iter().for_each(|event| recorder.event(1, event));
    recorder.finish();
}

/// Every command that reads a bundle, on `path`.
fn readers(path: &Path, folder: &Path) -> Vec<Output> {
    let path = path.to_str().unwrap();
    let report = folder.join("report");
    let dumps = ["--requests", "--connections", "--sql", "--events"].map(|what| kfr(&["dump", what, path]));
    let others = [
        kfr(&["info", path]),
        kfr(&["verify", path]),
        kfr(&["-q", "analyze", "-o", report.to_str().unwrap(), path]),
        kfr(&["-q", "analyze", "--single", folder.join("one.html").to_str().unwrap(), path]),
    ];
    dumps.into_iter().chain(others).collect()
}

#[test]
fn what_is_no_bundle_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let text = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".repeat(1000);
    let candidates: [PathBuf; 5] = [
        file("text.kfr", &text),
        file("empty.kfr", b""),
        file("short.kfr", b"KFR"),
        folder.path().join("missing.kfr"),
        folder.path().to_path_buf(),
    ];
    for path in candidates {
        for output in readers(&path, folder.path()) {
            let error = one_line(&output, 4);
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn a_newer_major_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer.kfr");
    generated(&path, 3);
    let mut bytes = std::fs::read(&path).unwrap();
    let mut header: FileHeader = Reader::open(&path).unwrap().header().clone();
    header.format = Version { major: 7, minor: 3 };
    let copy = header.encode();
    bytes[..copy.len()].copy_from_slice(&copy);
    bytes[copy.len()..2 * copy.len()].copy_from_slice(&copy);
    std::fs::write(&path, &bytes).unwrap();
    for output in readers(&path, folder.path()) {
        let error = one_line(&output, 4);
        assert!(error.contains("newer.kfr") && error.contains("7.3"), "{error}");
    }
}

#[test]
fn a_bundle_cut_anywhere_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.kfr");
    let cut = folder.path().join("cut.kfr");
    // Many small blocks, so that most cuts leave some whole.
    let mut whole = Vec::new();
    {
        let mut recorder = Recorder::create(&path);
        for seed in 0..30 {
            let wanted = Traffic {
                connections: 1,
                at_once: 1,
                requests_each: 30,
                body: 300,
                seed,
                raw_bytes: u64::MAX,
                closes: true,
                trouble: false,
            };
            recorder.first = seed;
            traffic(&mut recorder, &wanted);
            recorder.seal();
        }
        recorder.finish();
        whole.extend_from_slice(&std::fs::read(&path).unwrap());
    }
    let all = lines(&kfr(&["dump", "--requests", path.to_str().unwrap()])).len();
    assert!(all >= 900, "{all}");
    let mut most = 0;
    for step in 0..=40 {
        let length = whole.len() * step / 40;
        std::fs::write(&cut, &whole[..length]).unwrap();
        let output = kfr(&["dump", "--requests", cut.to_str().unwrap()]);
        survives(&output, &format!("cut at {length}"));
        let count = lines(&output).len();
        assert!(count >= most && count <= all, "{count} requests of {all} at {length}, {most} before");
        most = count;
        if step == 36 {
            assert!(count * 10 > all * 7, "{count} of {all} at nine tenths");
        }
    }
    assert_eq!(most, all);
    for step in [7, 20, 33, 39] {
        std::fs::write(&cut, &whole[..whole.len() * step / 40]).unwrap();
        for output in readers(&cut, folder.path()) {
            survives(&output, &format!("cut at {step} fortieths"));
        }
    }
}

#[test]
fn a_flipped_bit_costs_its_block_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.kfr");
    let flipped = folder.path().join("flipped.kfr");
    generated(&path, 60);
    let whole = std::fs::read(&path).unwrap();
    let all = lines(&kfr(&["dump", "--requests", path.to_str().unwrap()])).len();
    let mut random = Random(11);
    for round in 0..60 {
        let mut bytes = whole.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        std::fs::write(&flipped, &bytes).unwrap();
        let what = format!("flipped at {at}");
        let output = kfr(&["dump", "--requests", flipped.to_str().unwrap()]);
        survives(&output, &what);
        if output.status.code() == Some(0) {
            assert_eq!(lines(&output).len(), all, "{what}: something is missing and exit code 0");
        }
        if round % 12 == 0 {
            readers(&flipped, folder.path()).iter().for_each(|output| survives(output, &what));
        }
    }
}

#[test]
fn payload_that_lies_about_its_length_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lies.kfr");
    let client = |bytes: &[u8]| Message { from_client: true, bytes: bytes.to_vec() };
    let server = |bytes: &[u8]| Message { from_client: false, bytes: bytes.to_vec() };
    let get = client(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    let ask = client(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    let ok = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut lies: Vec<(Talk, Vec<Message>)> = vec![
        (
            Talk::Http,
            vec![get.clone(), server(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nhello")],
        ),
        (
            Talk::Http,
            vec![get.clone(), server(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhi")],
        ),
        (
            Talk::Http,
            vec![get.clone(), server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx")],
        ),
        (Talk::Http, vec![client(b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"), ok.clone(), get, ok]),
        (Talk::Redis, vec![ask.clone(), server(b"$9223372036854775807\r\nxyz\r\n")]),
        (Talk::Redis, vec![ask.clone(), server(b"*2147483647\r\n:1\r\n")]),
        (Talk::Redis, vec![client(b"*1000000000\r\n$4\r\nMSET\r\n$99999999\r\nabc\r\n"), server(b"+OK\r\n")]),
        (Talk::Redis, vec![ask, server(&b"*1\r\n".repeat(200_000))]),
    ];
    // A conversation that is right up to a point, then has any bytes changed.
    let mut random = Random(5);
    for round in 0..90 {
        let talk = Talk::ALL[round % 3];
        let mut messages = Conversation::new(talk, 10, 4, 500, &mut random).messages;
        for _ in 0..1 + random.below(4) {
            let at = random.below(messages.len() as u64) as usize;
            let bytes = &mut messages[at].bytes;
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        lies.push((talk, messages));
    }
    for (number, (talk, messages)) in lies.into_iter().enumerate() {
        let recording = Recording { limit: usize::MAX, ends: Ends::Client, late_percent: 0, ..Recording::default() };
        talked(&path, talk, messages, &recording);
        let started = Instant::now();
        let output = kfr(&["dump", "--requests", "--memory", "64MiB", path.to_str().unwrap()]);
        survives(&output, &format!("lie {number}"));
        assert!(started.elapsed() < Duration::from_secs(20), "lie {number}");
        survives(&kfr(&["dump", "--connections", path.to_str().unwrap()]), &format!("lie {number}"));
    }
}

#[test]
fn a_statement_of_a_megabyte_is_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.kfr");
    let mut messages = Conversation::new(Talk::MySql, 1, 1, 0, &mut Random(1)).messages;
    let values: Vec<String> = (0..60_000).map(|number| format!("({number}, 'secret{number}')")).collect();
    let sql = format!("\x03INSERT INTO items VALUES {}", values.join(","));
    assert!(sql.len() > 1 << 20);
    let mut packet = (sql.len() as u32).to_le_bytes()[..3].to_vec();
    packet.push(0);
    packet.extend_from_slice(sql.as_bytes());
    messages.push(Message { from_client: true, bytes: packet });
    messages.push(Message { from_client: false, bytes: vec![7, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0] });
    for (limit, largest_call) in [(4096, usize::MAX), (usize::MAX, 16384)] {
        let recording = Recording { limit, largest_call, ends: Ends::Client, late_percent: 0, ..Recording::default() };
        talked(&path, Talk::MySql, messages.clone(), &recording);
        let output = kfr(&["dump", "--requests", path.to_str().unwrap()]);
        survives(&output, "a large statement");
        let all = lines(&output);
        assert_eq!(all.len(), 2, "{limit}");
        let line = &all[1];
        assert_eq!((line["op"].as_str(), line["status"].as_str()), (Some("query"), Some("ok")), "{limit}");
        assert!(line["request_bytes"].as_u64() > Some(1 << 20));
        let target = line["target"].as_str().unwrap();
        assert!(target.starts_with("insert into items values (?") && !target.contains("secret"), "{target:.200}");
        assert!(output.stdout.len() < 64 << 10, "{} bytes for two requests", output.stdout.len());
        for output in readers(&path, folder.path()) {
            survives(&output, "a large statement");
        }
    }
}

#[test]
fn many_connections_are_read_within_the_memory_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.kfr");
    // A million by `KFR_CONNECTIONS=1000000`, as scripts/soak-memory does with an optimised kfr.
    let connections = std::env::var("KFR_CONNECTIONS").map_or(50_000, |text| text.parse().unwrap());
    let mut recorder = Recorder::create(&path);
    let wanted = Traffic {
        connections,
        at_once: 500,
        requests_each: 1,
        body: 50,
        seed: 2,
        raw_bytes: u64::MAX,
        closes: true,
        trouble: false,
    };
    traffic(&mut recorder, &wanted);
    println!("{} bytes before compression", recorder.finish());
    for arguments in [["dump", "--requests"], ["dump", "--connections"]] {
        let started = Instant::now();
        let mut child = Command::new(KFR).args(arguments).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
        let count = BufReader::new(child.stdout.take().unwrap()).lines().count() as u64;
        assert!(child.wait().unwrap().success());
        println!("{connections} connections: {arguments:?}: {count} lines in {:.2} s", started.elapsed().as_secs_f64());
        assert!(count >= connections, "{count} lines of {connections} connections");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.kfr");
    generated(&path, 200);
    for what in ["--requests", "--connections", "--events"] {
        let mut child = Command::new(KFR)
            .args(["dump", what])
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with('{'), "{first}");
        let status = child.wait().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(status.success() && text.is_empty(), "dump {what} | head -1: {status} {text}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.kfr");
    generated(&path, 2);
    let path = path.to_str().unwrap();
    let wrong: &[&[&str]] = &[
        &[],
        &["replay"],
        &["dump", path],
        &["dump", "--requests"],
        &["dump", "--requests", "--sql", path],
        &["dump", "--requests", "--memory", "much", path],
        &["dump", "--at", "nonsense", path],
        &["analyze", path],
        &["analyze", "-o", "/proc/kfr-report", path],
        &["analyze", "--single", "/nowhere/at/all/report.html", path],
    ];
    for arguments in wrong {
        let output = kfr(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(!text.is_empty() && !text.contains("panicked"), "{text}");
    }
    let error = one_line(&kfr(&["analyze", "-o", "/proc/kfr-report", path]), 2);
    assert!(error.contains("/proc/kfr-report"), "{error}");
    let large = folder.path().join("large.kfr");
    generated(&large, 100);
    let large = large.to_str().unwrap();
    let error = one_line(&kfr(&["dump", "--requests", "--tmp", "/nowhere/at/all", "--memory", "1MiB", large]), 2);
    assert!(error.contains("/nowhere/at/all"), "{error}");
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_the_smallest_that_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.kfr");
    generated(&path, 2);
    let path = path.to_str().unwrap();
    for (option, value, smallest) in [("--memory", "1", "1MiB"), ("--threads", "0", "at least 1")] {
        let output = kfr(&["dump", "--requests", option, value, path]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(smallest), "{text}");
    }
    // More threads than there is work for are no error, and aren't started.
    let started = Instant::now();
    let many = kfr(&["dump", "--requests", "--threads", "100000", path]);
    assert!(many.status.success() && started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(many.stdout, kfr(&["dump", "--requests", "--threads", "1", path]).stdout);
}

#[test]
fn nothing_from_a_bundle_or_a_name_commands_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esc\u{1b}]0;owned\u{7}\u{202e}.kfr");
    let mut messages = Vec::new();
    for _ in 0..100 {
        let head = "GET /\u{1b}[31mred\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}x\0y HTTP/1.1\r\nHost: x\r\n\r\n";
        messages.push(Message { from_client: true, bytes: head.as_bytes().to_vec() });
        let answer = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n";
        messages.push(Message { from_client: false, bytes: answer.to_vec() });
    }
    talked(&path, Talk::Http, messages, &Recording { ends: Ends::Client, ..Recording::default() });
    let name = path.to_str().unwrap();
    let report = folder.path().join("report");
    let missing = format!("{name}.missing");
    let analyzed = kfr(&["-v", "analyze", "-o", report.to_str().unwrap(), name]);
    let said = String::from_utf8_lossy(&analyzed.stderr).into_owned();
    assert!(said.contains("red"), "a finding quotes the path: {said}");
    let others = [
        kfr(&["verify", name]),
        kfr(&["info", name]),
        kfr(&["verify", &missing]),
        kfr(&["info", &missing]),
        kfr(&["dump", "--requests", &missing]),
        kfr(&["dump", "--at", name, name]),
        kfr(&["analyze", "--single", name, name]),
        kfr(&["dump", name]),
        kfr(&["dump", "--threads", name, name]),
    ];
    for output in others.into_iter().chain([analyzed]) {
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            let bad = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || c == '\u{202e}';
            assert!(!text.contains(bad), "{text:?}");
        }
    }
}

#[test]
fn what_is_no_file_for_output_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let bundle = at("some.kfr.partial");
    generated(Path::new(&bundle), 5);
    let before = std::fs::read(&bundle).unwrap();
    std::fs::hard_link(&bundle, at("hard.kfr")).unwrap();
    std::os::unix::fs::symlink(&bundle, at("link.html")).unwrap();
    std::os::unix::fs::symlink("/nowhere", at("dangling.html")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    let refused = [
        // The bundle, by its name, by another one, as the file that is written before it is renamed.
        ("--single", bundle.clone(), "one of the bundles"),
        ("--single", at("hard.kfr"), "one of the bundles"),
        ("--single", at("some.kfr"), "one of the bundles"),
        ("--single", at("link.html"), "symbolic link"),
        ("--single", at("dangling.html"), "symbolic link"),
        ("--single", at("folder"), "folder"),
        ("--single", "/dev/null".to_string(), "no regular file"),
        ("--single", "/nowhere/at/all.html".to_string(), "no folder"),
        ("--single", format!("{bundle}/x.html"), "no folder"),
        ("-o", bundle.clone(), "no folder"),
        ("-o", "/dev/null".to_string(), "no folder"),
        ("-o", "-".to_string(), "--single -"),
    ];
    for (option, target, why) in &refused {
        let error = one_line(&kfr(&["analyze", option, target, &bundle]), 2);
        assert!(
            error.contains(why) && (target == "-" || error.contains(target.as_str())),
            "{option} {target}: {error}"
        );
    }
    assert_eq!(std::fs::read(&bundle).unwrap(), before);
    assert!(std::fs::symlink_metadata(at("link.html")).unwrap().is_symlink());
    assert!(!std::fs::symlink_metadata("/dev/null").unwrap().is_file());
    // A report's file is not put in the place of an input either.
    std::fs::create_dir(at("report")).unwrap();
    std::fs::hard_link(&bundle, at("report/report.json")).unwrap();
    let error = one_line(&kfr(&["analyze", "-o", &at("report"), &bundle]), 2);
    assert!(error.contains("report.json"), "{error}");
    // What is replaced is an old report.
    std::fs::write(at("old.html"), "old").unwrap();
    let output = kfr(&["-q", "analyze", "--single", &at("old.html"), &bundle]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read(at("old.html")).unwrap();
    let output = kfr(&["-q", "analyze", "--single", "-", &bundle]);
    assert!(output.status.success() && output.stdout == page, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_error_of_the_system_is_said_once_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.kfr");
    for output in readers(&path, folder.path()) {
        let error = one_line(&output, 4);
        assert_eq!(error.matches("os error").count(), 1, "{error}");
        assert!(error.contains("; check its name"), "{error}");
    }
    let path = folder.path().join("some.kfr");
    generated(&path, 2);
    let error = one_line(&kfr(&["analyze", "-o", "/proc/kfr-report", path.to_str().unwrap()]), 2);
    assert_eq!(error.matches("os error").count(), 1, "{error}");
    assert!(error.contains("; "), "what to do: {error}");
}

#[test]
fn one_recording_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    generated(Path::new(&at("one.kfr")), 5);
    generated(Path::new(&at("other.kfr")), 5);
    std::fs::copy(at("one.kfr"), at("copy.kfr")).unwrap();
    for second in ["one.kfr", "copy.kfr"] {
        for command in [&["dump", "--requests"][..], &["dump", "--events"], &["analyze", "--single", "-"]] {
            let (one, other, second) = (at("one.kfr"), at("other.kfr"), at(second));
            let error = one_line(&kfr(&[command, &[&one, &other, &second]].concat()), 2);
            assert!(error.contains(&format!("{one} and {second}")), "{error}");
        }
    }
    assert!(kfr(&["dump", "--requests", &at("one.kfr"), &at("other.kfr")]).status.success());
}

#[test]
fn a_condition_is_the_same_in_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    generated(Path::new(&at("whole.kfr")), 20);
    let whole = std::fs::read(at("whole.kfr")).unwrap();
    let reader = Reader::open(Path::new(&at("whole.kfr"))).unwrap();
    let blocks = reader.blocks().to_vec();
    let mut healed = whole.clone();
    healed[40] ^= 1;
    healed[blocks[2].offset as usize + 30] ^= 1;
    std::fs::write(at("healed.kfr"), healed).unwrap();
    // As a killed recorder leaves it, between two blocks.
    std::fs::write(at("killed.kfr.partial"), &whole[..blocks[blocks.len() - 2].offset as usize]).unwrap();
    for (name, words, code) in [
        ("whole.kfr", "whole", 0),
        ("healed.kfr", "whole, 2 places repaired", 3),
        ("killed.kfr.partial", "cut off, nothing damaged", 3),
    ] {
        let path = at(name);
        let verified = kfr(&["verify", &path]);
        assert!(String::from_utf8_lossy(&verified.stdout).starts_with(&format!("{path}: {words}")), "{verified:?}");
        let informed = kfr(&["info", &path]);
        assert!(String::from_utf8_lossy(&informed.stdout).contains(&format!("condition  {words}")), "{informed:?}");
        let analyzed = kfr(&["analyze", "--single", &at("report.html"), &path]);
        let said = String::from_utf8_lossy(&analyzed.stderr).into_owned();
        assert_eq!(said.contains(&format!("{path}: {words}")), code == 3, "{said}");
        let dumped = kfr(&["dump", "--events", &path]);
        for output in [verified, informed, kfr(&["info", "--json", &path]), analyzed, dumped] {
            assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
        }
    }
}

#[test]
fn the_bytes_at_an_address_are_masked_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.kfr");
    generated(&path, 2);
    let path = path.to_str().unwrap();
    let requests = lines(&kfr(&["dump", "--requests", path]));
    let address = requests[0]["evidence"][0].as_str().unwrap();
    let masked = &lines(&kfr(&["dump", "--at", address, path]))[0];
    assert_eq!(masked["address"].as_str(), Some(address));
    assert!(
        masked["kept"].as_u64() > Some(0) && masked["payload"].as_str().unwrap().contains("--literals"),
        "{masked}"
    );
    let shown = &lines(&kfr(&["dump", "--at", address, "--literals", path]))[0];
    assert!(shown["payload"].as_str().unwrap().len() as u64 >= shown["kept"].as_u64().unwrap(), "{shown}");
}

#[test]
fn colour_and_detail_come_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.kfr");
    generated(&path, 2);
    let run = |options: &[&str], no_color: &str| {
        let mut command = Command::new(KFR);
        command.args(options).args(["analyze", "--single", "-"]).arg(&path).env("NO_COLOR", no_color);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(!run(&[], "").contains("replay: ") && run(&["-v"], "").contains("replay: "));
    assert!(run(&["-q"], "").is_empty());
    // Standard error is a pipe here: colour only where it is insisted on, whatever NO_COLOR says then.
    let error = |options: &[&str], no_color: &str| {
        let mut command = Command::new(KFR);
        command.args(options).args(["info", "/nowhere.kfr"]).env("NO_COLOR", no_color);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(error(&[], "").starts_with("kfr: ") && error(&["--color", "never"], "").starts_with("kfr: "));
    assert!(error(&["--color", "always"], "1").starts_with("\u{1b}[31mkfr: \u{1b}[0m/nowhere.kfr"));
}

#[test]
fn a_full_disk_under_the_output_is_said() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.kfr");
    generated(&path, 100);
    let path = path.to_str().unwrap();
    let mut commands = vec![
        vec!["info", path],
        vec!["info", "--json", path],
        vec!["verify", path],
        vec!["-q", "analyze", "--single", "-", path],
        vec!["--help"],
        vec!["--version"],
    ];
    commands.extend(["--requests", "--connections", "--sql", "--events"].map(|what| vec!["dump", what, path]));
    for arguments in commands {
        // Not a statement in it: nothing to write.
        if arguments.contains(&"--sql") && kfr(&arguments).stdout.is_empty() {
            continue;
        }
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(KFR).args(&arguments).stdout(full).output().unwrap();
        let error = one_line(&output, 2);
        assert!(error.contains("standard output"), "{arguments:?}: {error}");
        assert_eq!(error.matches("os error").count(), 1, "{arguments:?}: {error}");
    }
}

#[test]
fn reports_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.kfr");
    generated(&path, 5);
    let report = folder.path().join("report");
    let single = folder.path().join("one.html");
    let (bundle, to, one) = (path.to_str().unwrap(), report.to_str().unwrap(), single.to_str().unwrap());
    let output = kfr(&["-q", "analyze", "-o", to, "--single", one, bundle]);
    assert_eq!(output.status.code(), Some(0));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in [path, single, report.join("report.html"), report.join("report.json"), report.join("summary.md")] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
