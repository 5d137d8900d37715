//! `kfr capture --cluster` against a server with the part of the Kubernetes API that it uses, whose nodes record this machine.
//! Needs root and a kernel with BTF; `KFR_LIVE=off` skips, `KFR_LIVE=required` fails where it can't run.
#![cfg(all(target_os = "linux", feature = "capture"))]

#[path = "../truth/mod.rs"]
mod truth;

mod server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use server::{Behaviour, Cluster, KFR};

/// Recorders of one test at a time: they share two cores.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// HTTP on loopback until it is dropped.
struct Traffic(Arc<AtomicBool>);

impl Traffic {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _gone = stream.read(&mut [0; 1000]);
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(b"GET /of-the-cluster HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
                let _gone = stream.read(&mut [0; 1000]);
                thread::sleep(Duration::from_millis(50));
            }
        });
        Self(stop)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn info(bundle: &Path) -> Value {
    let output = Command::new(KFR).args(["info", "--json"]).arg(bundle).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names of the nodes in a merged file, with their conditions; empty: what Kubernetes said.
fn parts(bundle: &Path) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_string();
    let info = info(bundle);
    info["parts"].as_array().unwrap().iter().map(|part| (word(&part["node"]), word(&part["condition"]))).collect()
}

fn wait_for(what: &str, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn signal(process: &Child, signal: i32) {
    // SAFETY: sends a signal to a child that was not waited for.
    assert_eq!(unsafe { libc::kill(process.id() as i32, signal) }, 0);
}

/// Nothing that was created is left, on the server or beside the output.
fn assert_clean(cluster: &Cluster, folder: &Path) {
    assert_eq!(cluster.pods(), 0);
    assert!(!folder.join("incident.kfr.parts").exists());
}

#[test]
fn nodes_are_recorded_at_once_and_joined() {
    if !truth::live(&[]) {
        return;
    }
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}.example", vec!["a".repeat(60); 4].join("."));
    assert!(long.len() > 240);
    let cluster =
        Cluster::start(folder.path(), &[("one.example", Behaviour::Works), (&long, Behaviour::CutsTheFirstTransfer)]);
    let traffic = Traffic::start();
    let output = cluster.command(&["--duration", "3s", "-o", "incident.kfr"]).output().unwrap();
    drop(traffic);
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("2 of 2 nodes") && told.contains("tried again"), "{told}");
    let bundle = folder.path().join("incident.kfr");
    let whole = |name: &str| (name.to_string(), "whole".to_string());
    assert_eq!(parts(&bundle), [whole("one.example"), whole(&long), whole("")]);
    assert_clean(&cluster, folder.path());
    let requests = Command::new(KFR).args(["dump", "--requests"]).arg(&bundle).output().unwrap();
    let lines = String::from_utf8(requests.stdout).unwrap();
    assert!(lines.lines().filter(|line| line.contains("/of-the-cluster")).count() > 10, "{lines}");
    let report =
        Command::new(KFR).args(["analyze", "-o", "report", "incident.kfr"]).current_dir(folder.path()).output();
    let report = report.unwrap();
    assert!(report.status.success(), "{}", text(&report));
    let report: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("report/report.json")).unwrap()).unwrap();
    // What Kubernetes said is no node, but it knows one more.
    let nodes = report["nodes"].as_array().unwrap().iter();
    let nodes = nodes.map(|node| (node["name"].as_str().unwrap(), node["kernel"].is_string()));
    let mut nodes: Vec<_> = nodes.collect();
    nodes.sort_by_key(|(_, recorded)| !recorded);
    assert_eq!(nodes.iter().map(|(_, recorded)| *recorded).collect::<Vec<_>>(), [true, true, false], "{nodes:?}");
    let checks = report["checks"].as_array().unwrap();
    let losses = checks.iter().find(|check| check["id"] == "capture.losses").unwrap();
    assert_eq!(losses["outcome"], "passed", "{losses}");
    // Nobody was asked for more than is documented.
    for job in cluster.jobs() {
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(job["metadata"]["namespace"], "observe");
    }
}

#[test]
fn nodes_that_fail_are_told_and_the_others_kept() {
    if !truth::live(&[]) {
        return;
    }
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let nodes = [
        ("good", Behaviour::Works),
        ("evicted", Behaviour::EvictedWhileSending),
        ("unable", Behaviour::Unprivileged),
        ("unpulled", Behaviour::NoImage),
        ("silent", Behaviour::NotReady),
        ("forbidden", Behaviour::NoPod),
        ("refused", Behaviour::Refused),
    ];
    let cluster = Cluster::start(folder.path(), &nodes);
    let traffic = Traffic::start();
    let output =
        cluster.command(&["--duration", "2s", "--ready-timeout", "4s", "-o", "incident.kfr"]).output().unwrap();
    drop(traffic);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    for expected in [
        "evicted: ",
        "low on resource: memory.; what arrived is kept (damaged",
        "unable: not recorded: its pod ended with code 5",
        "unpulled: not recorded: not ready within 4 s: ImagePullBackOff",
        "silent: not recorded: not ready within 4 s: its node has not started the pod",
        "forbidden: not recorded: not ready within 4 s: Error creating: pods \"kfr\" is forbidden: violates PodSecurity",
        "refused: not recorded: its pod can't be created: not allowed (403)",
        "2 of 7 nodes",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    let parts = parts(&folder.path().join("incident.kfr"));
    let expected = [("good", "whole"), ("evicted", "damaged"), ("", "whole")];
    assert_eq!(parts, expected.map(|(name, condition)| (name.to_string(), condition.to_string())));
    assert_clean(&cluster, folder.path());
}

#[test]
fn an_api_server_that_is_gone_meanwhile_costs_nothing_of_the_nodes() {
    if !truth::live(&[]) {
        return;
    }
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), &[("one", Behaviour::Works)]);
    let mut command = cluster.command(&["--duration", "2s", "-o", "incident.kfr"]);
    let process = command.stderr(Stdio::piped()).spawn().unwrap();
    wait_for("recording", || cluster.begun() == 1);
    thread::sleep(Duration::from_millis(500));
    cluster.down.store(true, Ordering::SeqCst);
    thread::sleep(Duration::from_secs(4));
    cluster.down.store(false, Ordering::SeqCst);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(parts(&folder.path().join("incident.kfr"))[0], ("one".to_string(), "whole".to_string()));
    assert_clean(&cluster, folder.path());
}

#[test]
fn ctrl_c_ends_early_and_keeps_what_there_is() {
    if !truth::live(&[]) {
        return;
    }
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), &[("one", Behaviour::Works)]);
    let mut command = cluster.command(&["--duration", "10m", "-o", "incident.kfr"]);
    let process = command.stderr(Stdio::piped()).spawn().unwrap();
    wait_for("recording", || cluster.begun() == 1);
    wait_for("a bundle", || {
        folder.path().read_dir().unwrap().flatten().any(|e| e.path().join("node.kfr.partial").exists())
    });
    thread::sleep(Duration::from_secs(1));
    signal(&process, libc::SIGINT);
    let began = Instant::now();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(parts(&folder.path().join("incident.kfr"))[0], ("one".to_string(), "whole".to_string()));
    assert_clean(&cluster, folder.path());
}

#[test]
fn ctrl_c_before_anything_is_recorded_leaves_nothing() {
    if !truth::live(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), &[("one", Behaviour::NotReady)]);
    let mut command = cluster.command(&["--duration", "10m", "-o", "incident.kfr"]);
    let process = command.stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a pod", || cluster.pods() == 1);
    signal(&process, libc::SIGINT);
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert!(text(&output).contains("interrupted before it recorded"), "{}", text(&output));
    assert!(!folder.path().join("incident.kfr").exists());
    assert_clean(&cluster, folder.path());
}

#[test]
fn fifty_nodes_are_not_asked_for_all_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..50).map(|number| format!("node-{number}")).collect();
    let nodes: Vec<_> = names.iter().map(|name| (name.as_str(), Behaviour::Refused)).collect();
    let cluster = Cluster::start(folder.path(), &nodes);
    let output = cluster.command(&["--duration", "2s", "-o", "incident.kfr"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert_eq!(text(&output).matches("can't be created").count(), 100, "{}", text(&output));
    let most = cluster.most_creating.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most}");
    assert_clean(&cluster, folder.path());
}

#[test]
fn a_dry_run_prints_what_would_be_created_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), &[("one", Behaviour::Works), ("two", Behaviour::Works)]);
    let arguments = ["--duration", "60s", "--run-in", "elsewhere", "-n", "shop", "--dry-run", "-o", "yaml"];
    let output = cluster.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    for (expected, times) in
        [("---\n", 2), ("kind: Job", 2), ("namespace: elsewhere", 2), ("nodeName: two", 1), ("--namespace=shop", 2)]
    {
        assert_eq!(printed.matches(expected).count(), times, "{expected}\n{printed}");
    }
    assert!(cluster.jobs().is_empty());
    let refused = cluster.command(&["--duration", "60s", "--dry-run", "-o", "incident.kfr"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), &[("one", Behaviour::Works)]);
    for (arguments, expected) in [
        (&["-o", "incident.kfr"][..], "--duration"),
        (&["--duration", "2s", "-o", "-"], "name one with -o"),
        (&["--duration", "2s", "--pid", "1"], "--namespace"),
        (&["--duration", "2s", "--kube", "off"], "--kube off"),
        (&["--duration", "2s", "--buffer-size", "3MiB"], "power of two"),
        (&["--duration", "2s", "--dry-run", "--run-in", "x/../y"], "--run-in \"x/../y\" is no namespace"),
        (&["--duration", "2s", "--dry-run", "-n", "Bad_NS$(id)"], "is no namespace"),
    ] {
        let output = cluster.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
    assert!(cluster.jobs().is_empty());
}
