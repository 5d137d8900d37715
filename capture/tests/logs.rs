//! Log files as container runtimes and the kubelet write, rotate and remove them, below a root of the test's own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kfr_bundle::logs::{LogCounts, LogFact, MAX_LINE_BYTES};
use kfr_capture::logs::{Bounds, Clocks, Follower, Lines, LogFiles, Rows};

fn wall() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

const CLOCKS: Clocks = Clocks { event: || 7, wall };
const ENOUGH: Bounds = Bounds {
    total_bytes: 64 << 20,
    container_bytes: 64 << 20,
    looked_at_a_second: 64 << 20,
    container_looked_at_a_second: 64 << 20,
};

#[derive(Default)]
struct Seen {
    lines: Vec<LogFact>,
    counts: BTreeMap<String, LogCounts>,
}

struct Node {
    root: tempfile::TempDir,
    seen: Arc<Mutex<Seen>>,
}

/// A line's stamp, `+SECONDS` from now.
fn stamp(seconds: i64) -> String {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    now.to_string()
}

fn cri(stream: &str, tag: &str, text: &str) -> String {
    format!("{} {stream} {tag} {text}\n", stamp(0))
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/log/pods")).unwrap();
        Self { root, seen: Arc::default() }
    }

    fn folder(&self, pod: &str, container: &str) -> PathBuf {
        let folder = self.root.path().join(format!("var/log/pods/shop_{pod}_uid-{pod}")).join(container);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn open(&self, pod: &str, container: &str, restart: u32) -> File {
        open(&self.folder(pod, container).join(format!("{restart}.log")))
    }

    fn start(&self, lines: Lines, bounds: Bounds) -> Follower {
        let files = LogFiles::find(self.root.path()).unwrap();
        let seen = self.seen.clone();
        let sink = Box::new(move |rows| {
            let mut seen = seen.lock().unwrap();
            match rows {
                Rows::Lines(lines) => seen.lines.extend(lines),
                Rows::Counts(counts) => {
                    seen.counts.extend(counts.into_iter().map(|row| (format!("{}.{}", row.pod, row.container), row)));
                }
            }
        });
        Follower::start(files, lines, bounds, CLOCKS, sink)
    }

    fn texts(&self) -> Vec<String> {
        self.seen.lock().unwrap().lines.iter().map(|line| line.text.clone()).collect()
    }

    fn counts(&self, container: &str) -> LogCounts {
        self.seen.lock().unwrap().counts[container].clone()
    }

    /// Waits until a line with this text has come.
    fn await_line(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.texts().iter().any(|line| line == text) {
            assert!(Instant::now() < until, "{text} has not come: {:?}", self.texts());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn write(file: &mut File, text: &str) {
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn lines_of_the_window_are_kept_with_who_wrote_them() {
    let node = Node::new();
    let mut file = node.open("api-1", "api", 3);
    write(&mut file, &format!("{} stdout F before\n", stamp(-3600)));
    let follower = node.start(Lines::All, ENOUGH);
    write(&mut file, &cri("stderr", "F", "first password=hunter2"));
    write(&mut file, &(cri("stdout", "P", "a li") + &cri("stderr", "F", "between") + &cri("stdout", "F", "ne")));
    write(&mut file, "what no runtime writes\n");
    node.await_line("a line");
    // A clock that was set back.
    write(&mut file, &format!("{} stdout F late\n", stamp(-7200)));
    write(&mut file, "2026-11-22T10:46:39Z stdout F \u{1b}[31mred\u{1b}[0m\r\n");
    node.await_line("red");
    write(&mut file, &format!("{} stdout F after\n", stamp(3600)));
    write(&mut file, &format!("{} stdout F unended", stamp(0)));
    follower.stop();
    let texts = node.texts();
    assert_eq!(texts, ["first password=?", "between", "a line", "late", "red", "unended"]);
    let lines = &node.seen.lock().unwrap().lines;
    let first = &lines[0];
    let who = [&first.namespace, &first.pod, &first.uid, &first.container, &first.stream].map(String::as_str);
    assert_eq!(who, ["shop", "api-1", "uid-api-1", "api", "stderr"]);
    assert_eq!((first.restart, first.time_ns, first.cut), (3, 7, false));
    assert!(wall() - first.wall_ns < 60_000_000_000);
    assert!(lines[5].cut);
    drop(texts);
    let counts = lines.len() as u64;
    assert_eq!(counts, 6);
}

#[test]
fn counts_tell_all_lines_and_errors_are_kept_with_what_belongs_to_them() {
    let node = Node::new();
    let mut file = node.open("api-1", "api", 0);
    let follower = node.start(Lines::Errors, ENOUGH);
    for text in [
        "INFO fine",
        "ERROR it broke",
        "Traceback (most recent call last):",
        "  File \"x.py\", line 1",
        "ValueError: no",
        "INFO fine again",
        "\"GET /x HTTP/1.1\" 200 5",
        "\"GET /x HTTP/1.1\" 502 5",
    ] {
        write(&mut file, &cri("stderr", "F", text));
    }
    write(&mut file, "malformed\n");
    node.await_line("\"GET /x HTTP/1.1\" 502 5");
    follower.stop();
    let expected = [
        "ERROR it broke",
        "Traceback (most recent call last):",
        "  File \"x.py\", line 1",
        "ValueError: no",
        "\"GET /x HTTP/1.1\" 502 5",
    ];
    assert_eq!(node.texts(), expected);
    let counts = node.counts("api-1.api");
    assert_eq!((counts.lines, counts.lines_kept, counts.lines_dropped, counts.lines_malformed), (8, 5, 0, 1));
    assert_eq!(counts.bytes, file.metadata().unwrap().len());
    assert_eq!(counts.bytes_kept, expected.iter().map(|text| text.len() as u64).sum::<u64>());
}

#[test]
fn rotation_restart_and_truncation_lose_nothing() {
    let node = Node::new();
    let folder = node.folder("api-1", "api");
    let mut file = node.open("api-1", "api", 0);
    let follower = node.start(Lines::All, ENOUGH);
    let mut expected = Vec::new();
    for turn in 0..3 {
        for number in 0..200 {
            let text = format!("turn {turn} line {number}");
            write(&mut file, &cri("stdout", "F", &text));
            expected.push(text);
        }
        // The kubelet renames the file, and the runtime goes on writing to it until it is told.
        fs::rename(folder.join("0.log"), folder.join(format!("0.log.20261122-10463{turn}"))).unwrap();
        let text = format!("turn {turn} behind the rename");
        write(&mut file, &cri("stdout", "F", &text));
        expected.push(text.clone());
        fs::write(folder.join("0.log.20261122-104600.gz"), "not a log").unwrap();
        file = node.open("api-1", "api", 0);
        let text = format!("turn {turn} in the new file");
        write(&mut file, &cri("stdout", "F", &text));
        expected.push(text.clone());
        node.await_line(&text);
    }
    let mut next = node.open("api-1", "api", 1);
    write(&mut next, &cri("stdout", "F", "after a restart"));
    node.await_line("after a restart");
    expected.push("after a restart".to_string());
    next.set_len(0).unwrap();
    write(&mut next, &cri("stdout", "F", "cut short"));
    expected.push("cut short".to_string());
    follower.stop();
    let (mut texts, lines) = (node.texts(), node.seen.lock().unwrap().lines.len());
    assert_eq!(lines, expected.len());
    texts.sort();
    expected.sort();
    assert_eq!(texts, expected);
    let counts = node.counts("api-1.api");
    assert_eq!((counts.lines, counts.lines_kept, counts.truncations), (606 + 1 + 1, 608, 1));
    let restarts: Vec<u32> = node.seen.lock().unwrap().lines.iter().map(|line| line.restart).collect();
    assert_eq!(restarts.iter().filter(|restart| **restart == 1).count(), 2);
}

#[test]
fn pods_come_and_go() {
    let node = Node::new();
    let follower = node.start(Lines::All, ENOUGH);
    for number in 0..20 {
        let pod = format!("job-{number}");
        let mut file = node.open(&pod, "main", 0);
        write(&mut file, &cri("stdout", "F", &format!("hello from {pod}")));
        node.await_line(&format!("hello from {pod}"));
        write(&mut file, &cri("stdout", "F", &format!("bye from {pod}")));
        // Gone before it was read: the file is open still.
        fs::remove_dir_all(node.root.path().join(format!("var/log/pods/shop_{pod}_uid-{pod}"))).unwrap();
    }
    let mut strange = fs::create_dir_all(node.root.path().join("var/log/pods/no-pod/x"));
    strange = strange.and(fs::write(node.root.path().join("var/log/pods/shop_a_b"), "a file, no folder"));
    strange.unwrap();
    follower.stop();
    let mut texts = node.texts();
    texts.sort();
    assert_eq!(texts.len(), 40);
    assert!(texts.iter().filter(|text| text.starts_with("bye from job-")).count() == 20, "{texts:?}");
}

#[test]
fn long_lines_are_cut_and_any_bytes_are_lines() {
    let node = Node::new();
    let mut file = node.open("api-1", "api", 0);
    let follower = node.start(Lines::All, ENOUGH);
    let long = "x".repeat(1 << 20);
    write(&mut file, &cri("stdout", "F", &long));
    write(&mut file, &cri("stdout", "F", "behind the long one"));
    // The same, as runtimes do it: in pieces.
    for piece in long.as_bytes().chunks(MAX_LINE_BYTES) {
        write(&mut file, &cri("stdout", "P", std::str::from_utf8(piece).unwrap()));
    }
    write(&mut file, &cri("stdout", "F", ""));
    file.write_all(&[cri("stdout", "F", "bytes ").trim_end().as_bytes(), b" \xff\0\xc3\n"].concat()).unwrap();
    node.await_line("bytes \u{fffd}\0\u{fffd}");
    follower.stop();
    let seen = node.seen.lock().unwrap();
    assert_eq!(seen.counts["api-1.api"].bytes, file.metadata().unwrap().len());
    let lines: Vec<(usize, bool)> = seen.lines.iter().map(|line| (line.text.len(), line.cut)).collect();
    assert_eq!(lines, [(MAX_LINE_BYTES, true), (19, false), (MAX_LINE_BYTES, true), (13, false)]);
    let counts = &seen.counts["api-1.api"];
    assert_eq!((counts.lines, counts.lines_kept, counts.lines_cut), (4, 4, 2));
}

#[test]
fn a_flood_is_bounded_and_counted_and_hides_nobody() {
    let node = Node::new();
    let mut flood = node.open("flood", "main", 0);
    let mut quiet = node.open("quiet", "main", 0);
    let bounds = Bounds {
        total_bytes: 1 << 20,
        container_bytes: 100 << 10,
        looked_at_a_second: 64 << 10,
        container_looked_at_a_second: 16 << 10,
    };
    let follower = node.start(Lines::Errors, bounds);
    let line = cri("stdout", "F", &format!("ERROR {}", "y".repeat(200)));
    let chunk = line.repeat(1000);
    let mut written = 0;
    for _ in 0..40 {
        write(&mut flood, &chunk);
        written += 1000;
    }
    write(&mut quiet, &cri("stdout", "F", "ERROR heard all the same"));
    node.await_line("ERROR heard all the same");
    follower.stop();
    let counts = node.counts("flood.main");
    assert_eq!(counts.bytes + counts.bytes_unread, written * line.len() as u64);
    let seen = counts.bytes / line.len() as u64;
    assert_eq!(counts.lines, seen, "each line that was read is counted");
    assert_eq!(counts.lines_kept + counts.lines_dropped, counts.lines);
    assert!(counts.lines_kept > 0 && counts.bytes_kept <= bounds.container_bytes, "{counts:?}");
    let kept = node.texts().iter().filter(|text| text.contains("yyy")).count() as u64;
    assert_eq!(kept, counts.lines_kept);
}

#[test]
fn dockers_files_are_read_through_their_links() {
    let node = Node::new();
    // As Docker has it: a link, absolute on the host.
    let target = node.root.path().join("var/lib/docker/containers/c/c-json.log");
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    let mut file = open(&target);
    std::os::unix::fs::symlink("/var/lib/docker/containers/c/c-json.log", node.folder("api-1", "api").join("0.log"))
        .unwrap();
    std::os::unix::fs::symlink("/etc/hostname", node.folder("api-1", "other").join("0.log")).unwrap();
    let follower = node.start(Lines::All, ENOUGH);
    let record = |text: &str| {
        let record = serde_json::json!({"log": text, "stream": "stderr", "time": stamp(0)});
        format!("{record}\n")
    };
    write(&mut file, &(record("a ") + &record("<line>\n") + &record("token=abc\n")));
    node.await_line("token=?");
    follower.stop();
    assert_eq!(node.texts(), ["a <line>", "token=?"]);
    // The host's root has no such file, and ours is none of its.
    assert!(!node.seen.lock().unwrap().counts.contains_key("api-1.other"));
}

#[test]
fn without_a_folder_of_logs_there_is_nothing() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(LogFiles::find(root.path()).unwrap_err(), "absent");
    let gone = root.path().join("gone");
    assert_eq!(LogFiles::find(&gone).unwrap_err(), "absent");
    fs::create_dir_all(root.path().join("var/log")).unwrap();
    fs::write(root.path().join("var/log/pods"), "").unwrap();
    // A file: nothing in it, no error.
    assert!(LogFiles::find(root.path()).is_ok());
}

/// What idling costs: `cargo test -p kfr-capture --test logs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn two_hundred_idle_files_cost() {
    let node = Node::new();
    for pod in 0..100 {
        for container in ["main", "sidecar"] {
            let mut file = node.open(&format!("pod-{pod}"), container, 0);
            write(&mut file, &cri("stdout", "F", "idle"));
        }
    }
    let cpu = || {
        let times = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<u64> =
            times.rsplit(')').next().unwrap().split_whitespace().filter_map(|x| x.parse().ok()).collect();
        // utime and stime, in ticks of 10 ms.
        fields[10] + fields[11]
    };
    let follower = node.start(Lines::Errors, ENOUGH);
    std::thread::sleep(Duration::from_secs(2));
    let before = cpu();
    std::thread::sleep(Duration::from_secs(20));
    println!("{} ms of CPU in 20 s", (cpu() - before) * 10);
    follower.stop();
}
