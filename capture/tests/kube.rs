//! Lists and watches against a server that speaks the Kubernetes API over HTTP: pages, bookmarks, refusals, cut connections.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kfr_bundle::kube::{KubeChange, KubeFact};
use kfr_capture::kube::{Cluster, Watcher};
use serde_json::{Value, json};

/// What was asked: path, query, the `Accept` header.
#[derive(Debug, Clone)]
struct Asked {
    path: String,
    query: String,
    accept: String,
}

impl Asked {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    fn is_watch(&self) -> bool {
        self.parameter("watch").is_some()
    }
}

type Answer = dyn Fn(&Asked, &mut Reply) + Send + Sync;

/// The connection to answer on. What a test doesn't answer is an empty list, or a watch in which nothing happens.
struct Reply {
    stream: TcpStream,
    answered: bool,
}

impl Reply {
    fn send(&mut self, status: &str, headers: &str, body: &str) {
        self.answered = true;
        let length = body.len();
        let _gone = write!(self.stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    }

    fn json(&mut self, body: &Value) {
        self.send("200 OK", "Content-Type: application/json\r\n", &body.to_string());
    }

    /// Begins a watch.
    fn chunks(&mut self) {
        self.answered = true;
        let _gone = write!(self.stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    /// A part of a watch, a piece at a time.
    fn chunk(&mut self, text: &str) {
        for piece in text.as_bytes().chunks(100) {
            let _gone = write!(self.stream, "{:x}\r\n", piece.len());
            let _gone = self.stream.write_all(piece);
            let _gone = write!(self.stream, "\r\n");
        }
    }

    fn change(&mut self, what: &str, object: &Value) {
        self.chunk(&format!("{}\n", json!({"type": what, "object": object})));
    }

    fn end_chunks(&mut self) {
        let _gone = write!(self.stream, "0\r\n\r\n");
    }

    /// Until the client goes.
    fn stay(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _gone = std::io::Read::read(&mut self.stream, &mut [0; 1]);
    }
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(answer: impl Fn(&Asked, &mut Reply) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log): (Arc<Answer>, _) = (Arc::new(answer), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log) = (answer.clone(), log.clone());
                thread::spawn(move || serve(stream.unwrap(), &*answer, &log));
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, answer: &Answer, log: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_string());
        }
        let target = head[0].split(' ').nth(1).unwrap().to_string();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let accept = head.iter().find_map(|line| line.to_lowercase().strip_prefix("accept: ").map(str::to_string));
        let asked = Asked { path: path.to_string(), query: query.to_string(), accept: accept.unwrap_or_default() };
        log.lock().unwrap().push(asked.clone());
        let mut reply = Reply { stream: stream.try_clone().unwrap(), answered: false };
        answer(&asked, &mut reply);
        if reply.answered {
            // A watch that was ended, or an answer that was cut, ends the connection too.
            if asked.is_watch() {
                let _gone = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            continue;
        }
        if asked.is_watch() {
            reply.chunks();
            reply.stay();
            return;
        }
        reply.json(&json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}));
    }
}

/// The rows of a watcher, as they come.
#[derive(Clone, Default)]
struct Rows(Arc<Mutex<Vec<KubeFact>>>);

impl Rows {
    fn watch(&self, url: &str) -> Watcher {
        let rows = self.0.clone();
        let sink = Arc::new(move |new: Vec<KubeFact>| rows.lock().unwrap().extend(new));
        Watcher::start(Cluster::at(url).unwrap(), "boot-1".to_string(), || 7, sink)
    }

    /// Of one kind.
    fn of(&self, kind: &str) -> Vec<KubeFact> {
        self.0.lock().unwrap().iter().filter(|row| row.kind == kind).cloned().collect()
    }

    /// Waits until the rows of a kind are what is expected.
    fn wait(&self, kind: &str, until: impl Fn(&[KubeFact]) -> bool) -> Vec<KubeFact> {
        let began = Instant::now();
        loop {
            let rows = self.of(kind);
            if until(&rows) {
                return rows;
            }
            assert!(began.elapsed() < Duration::from_secs(40), "{:#?}", rows.iter().rev().take(8).collect::<Vec<_>>());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn told(rows: &[KubeFact]) -> Vec<String> {
    rows.iter().map(|row| format!("{:?} {} {}{}", row.change, row.list, row.name, row.reason)).collect()
}

fn pod(number: usize, version: usize, node: &str) -> Value {
    json!({
        "metadata": {"name": format!("pod-{number}"), "namespace": "shop", "uid": format!("u{number}"),
            "resourceVersion": version.to_string()},
        "spec": {"nodeName": node, "containers": [{"name": "api", "image": "api:1", "env": [{"name": "A", "value": "hunter2"}]}]},
        "status": {"podIP": "10.0.0.1"},
    })
}

#[test]
fn a_list_comes_in_pages_and_only_this_node_in_full() {
    let server = Server::start(|asked, reply| match asked.path.as_str() {
        "/api/v1/nodes" if !asked.is_watch() => reply.json(&json!({
            "metadata": {"resourceVersion": "5"},
            "items": [
                {"metadata": {"name": "other"}, "status": {"nodeInfo": {"bootID": "boot-2"}}},
                {"metadata": {"name": "own"}, "status": {"nodeInfo": {"bootID": "boot-1"}}},
            ],
        })),
        "/api/v1/pods" if !asked.is_watch() => {
            let limit: usize = asked.parameter("limit").unwrap().parse().unwrap();
            // A token is anything.
            let from: usize =
                asked.parameter("continue").map_or(0, |token| token.replace("at%2F%3D", "").parse().unwrap());
            let to = (from + limit).min(600);
            let next = if to < 600 { format!("at/={to}") } else { String::new() };
            let items: Vec<_> = (from..to).map(|n| pod(n, 9, if n == 300 { "own" } else { "other" })).collect();
            reply.json(&json!({"metadata": {"resourceVersion": "9", "continue": next}, "items": items}));
        }
        _ => {}
    });
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let pods = rows.wait("Pod", |rows| rows.last().is_some_and(|row| row.change == KubeChange::Complete));
    assert_eq!(pods.len(), 601);
    assert!(pods.iter().all(|row| row.list == 1 && row.time_ns == 7));
    let image =
        |row: &KubeFact| row.object.as_ref().is_some_and(|object| object["spec"]["containers"][0]["image"] == "api:1");
    let full: Vec<_> = pods.iter().filter(|row| image(row)).map(|row| row.name.as_str()).collect();
    assert_eq!(full, ["pod-300"]);
    assert!(!serde_json::to_string(&pods).unwrap().contains("hunter2"));
    rows.wait("ConfigMap", |rows| !rows.is_empty());
    rows.wait("Event", |rows| !rows.is_empty());
    watcher.stop();
    let asked = server.asked();
    let paths: BTreeSet<_> = asked.iter().map(|asked| asked.path.as_str()).collect();
    assert!(!paths.iter().any(|path| path.contains("secrets")), "{paths:?}");
    let maps = asked.iter().filter(|asked| asked.path == "/api/v1/configmaps");
    assert!(maps.clone().count() > 0 && maps.clone().all(|asked| asked.accept.contains("as=partialobjectmetadata")));
}

#[test]
fn a_watch_that_ends_goes_on_from_its_last_version() {
    let watches = AtomicUsize::new(0);
    let server = Server::start(move |asked, reply| {
        if asked.path != "/api/v1/pods" {
            return;
        }
        if !asked.is_watch() {
            reply.json(&json!({"metadata": {"resourceVersion": "10"}, "items": [pod(1, 8, "n")]}));
            return;
        }
        let version = asked.parameter("resourceVersion").unwrap().to_string();
        reply.chunks();
        match (watches.fetch_add(1, Ordering::SeqCst), version.as_str()) {
            (0, "10") => {
                reply.change("ADDED", &pod(2, 11, "n"));
                reply.change("MODIFIED", &pod(1, 12, "n"));
                reply.change("BOOKMARK", &json!({"kind": "Pod", "metadata": {"resourceVersion": "20"}}));
                reply.end_chunks();
            }
            // Cut in the middle of a change.
            (1, "20") => {
                reply.change("DELETED", &pod(2, 21, "n"));
                reply.chunk("{\"type\":\"ADDED\",\"obj");
            }
            (2, "21") => {
                reply.change("ADDED", &pod(3, 22, "n"));
                reply.stay();
            }
            (number, version) => panic!("watch {number} from {version}"),
        }
    });
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let pods = rows.wait("Pod", |rows| rows.last().is_some_and(|row| row.name == "pod-3"));
    watcher.stop();
    let told = told(&pods);
    let expected = ["Listed 1 pod-1", "Complete 1 ", "Added 0 pod-2", "Modified 0 pod-1", "Deleted 0 pod-2"];
    assert_eq!(told[..5], expected);
    assert!(told[5].starts_with("Blind 0 no answer"), "{told:?}");
    assert_eq!(told[6..], ["Seeing 0 ", "Added 0 pod-3"]);
}

#[test]
fn a_version_that_is_too_old_is_listed_anew() {
    let lists = AtomicUsize::new(0);
    let server = Server::start(move |asked, reply| {
        if asked.path != "/api/v1/services" {
            return;
        }
        let service = |name: &str| json!({"metadata": {"name": name, "namespace": "shop"}});
        if asked.is_watch() {
            if asked.parameter("resourceVersion") == Some("1") {
                reply.chunks();
                let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (2)"});
                reply.change("ERROR", &status);
                reply.end_chunks();
            }
            return;
        }
        let number = lists.fetch_add(1, Ordering::SeqCst) + 1;
        let names: &[&str] = if number == 1 { &["old", "same"] } else { &["same"] };
        let items: Vec<_> = names.iter().map(|name| service(name)).collect();
        reply.json(&json!({"metadata": {"resourceVersion": number.to_string()}, "items": items}));
    });
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let services =
        rows.wait("Service", |rows| rows.iter().filter(|row| row.change == KubeChange::Complete).count() == 2);
    watcher.stop();
    let expected = ["Listed 1 old", "Listed 1 same", "Complete 1 ", "Listed 2 same", "Complete 2 "];
    assert_eq!(told(&services), expected);
}

#[test]
fn whatever_the_server_does_is_said_and_tried_again() {
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |asked, reply| {
        if asked.path == "/apis/batch/v1/jobs" && !asked.is_watch() {
            let status = json!({"kind": "Status", "message": "jobs.batch is forbidden", "code": 403});
            reply.send("403 Forbidden", "", &status.to_string());
        }
        if asked.path != "/api/v1/namespaces" || asked.is_watch() {
            return;
        }
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => reply.send("429 Too Many Requests", "Retry-After: 1\r\n", "{}"),
            1 => reply.send("500 Internal Server Error", "", "<html>"),
            2 => reply.send("200 OK", "", "<html>not what you think</html>"),
            3 => {
                // Less than it says, then nothing.
                let _gone = write!(reply.stream, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{{\"items\":");
                let _gone = reply.stream.shutdown(std::net::Shutdown::Both);
                reply.answered = true;
            }
            _ => reply.json(&json!({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "shop"}}]})),
        }
    });
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let namespaces = rows.wait("Namespace", |rows| rows.last().is_some_and(|row| row.change == KubeChange::Seeing));
    let jobs = rows.wait("Job", |rows| !rows.is_empty());
    watcher.stop();
    let told = told(&namespaces);
    for (row, reason) in told.iter().zip(["later (429)", "failed (500)", "none of the Kubernetes API", "no answer"]) {
        assert!(row.starts_with("Blind") && row.contains(reason), "{told:?}");
    }
    assert_eq!(told[4..], ["Listed 5 shop", "Complete 5 ", "Seeing 0 "]);
    assert_eq!(jobs[0].reason, "not allowed (403): jobs.batch is forbidden");
}

#[test]
fn a_cluster_that_is_never_there_ends_when_asked() {
    // Nobody listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rows = Rows::default();
    let watcher = rows.watch(&format!("http://127.0.0.1:{port}"));
    let pods = rows.wait("Pod", |rows| !rows.is_empty());
    assert_eq!((pods[0].change, pods[0].object.as_ref()), (KubeChange::Blind, None));
    let began = Instant::now();
    watcher.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// A server whose nodes are answered by `nodes` (with the number of the request), and that has one pod of another node.
fn server_with_nodes(nodes: impl Fn(usize, &mut Reply) + Send + Sync + 'static) -> Server {
    let tries = AtomicUsize::new(0);
    Server::start(move |asked, reply| match asked.path.as_str() {
        "/api/v1/nodes" if !asked.is_watch() => nodes(tries.fetch_add(1, Ordering::SeqCst), reply),
        "/api/v1/pods" if !asked.is_watch() => {
            reply.json(&json!({"metadata": {"resourceVersion": "9"}, "items": [pod(1, 8, "other")]}));
        }
        _ => {}
    })
}

#[test]
fn a_node_that_is_not_told_at_once_is_asked_for_again() {
    // Twice: the nodes' own list and that of the pods' node.
    let server = server_with_nodes(|number, reply| match number {
        0..3 => reply.send("500 Internal Server Error", "", "{}"),
        _ => reply.json(&json!({"metadata": {"resourceVersion": "5"}, "items": [
            {"metadata": {"name": "own"}, "status": {"nodeInfo": {"bootID": "boot-1"}}},
        ]})),
    });
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let pods = rows.wait("Pod", |rows| rows.last().is_some_and(|row| row.change == KubeChange::Seeing));
    watcher.stop();
    assert!(told(&pods)[0].starts_with("Blind 0 the server failed (500)"), "{:?}", told(&pods));
    let listed = pods.iter().find(|row| row.change == KubeChange::Listed).unwrap();
    assert!(!listed.object.as_ref().unwrap().to_string().contains("api:1"), "{listed:?}");
}

#[test]
fn a_node_that_may_not_be_known_keeps_all_pods_and_is_said() {
    let server = server_with_nodes(|_, reply| reply.send("403 Forbidden", "", r#"{"message":"no nodes for you"}"#));
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let pods = rows.wait("Pod", |rows| rows.last().is_some_and(|row| row.change == KubeChange::Seeing));
    watcher.stop();
    let expected = [
        "Blind 0 all pods are kept in full, as this node is not known: not allowed (403): no nodes for you",
        "Listed 1 pod-1",
        "Complete 1 ",
        "Seeing 0 ",
    ];
    assert_eq!(told(&pods), expected);
    assert!(pods[1].object.as_ref().unwrap().to_string().contains("api:1"));
}

#[test]
fn a_kind_whose_list_never_comes_is_said_at_the_end() {
    // The first list hangs, and every other one waits for it.
    let server = Server::start(|asked, reply| {
        if asked.path == "/api/v1/nodes" {
            reply.stay();
        }
    });
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let began = Instant::now();
    while server.asked().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(40));
        thread::sleep(Duration::from_millis(20));
    }
    watcher.stop();
    let rows = rows.0.lock().unwrap().clone();
    let kinds: BTreeSet<_> = rows.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, kfr_bundle::kube::recorded_kinds().collect());
    let reason = "Blind 0 no complete list arrived before the recording ended";
    assert!(told(&rows).iter().all(|row| row == reason), "{:?}", told(&rows));
}

#[test]
fn a_server_that_wants_a_day_of_rest_is_said_at_once() {
    let server = Server::start(|asked, reply| {
        if asked.path == "/api/v1/services" {
            reply.send("429 Too Many Requests", "Retry-After: 86400\r\n", "{}");
        }
    });
    let rows = Rows::default();
    let watcher = rows.watch(&server.url);
    let services = rows.wait("Service", |rows| !rows.is_empty());
    assert_eq!(told(&services), ["Blind 0 the server asks to come back later (429)"]);
    // The longest wait is ours.
    let began = Instant::now();
    while server.asked().iter().filter(|asked| asked.path == "/api/v1/services").count() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(50));
    }
    watcher.stop();
}
