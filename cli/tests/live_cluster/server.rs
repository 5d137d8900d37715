//! A server with the part of the Kubernetes API that a cluster capture uses: nodes, Jobs, their pods, commands in them over
//! WebSocket (`v5.channel.k8s.io`), and empty lists and watches of everything else. Its nodes run the containers' commands as
//! processes of this machine: the recorders are real.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

pub const KFR: &str = env!("CARGO_BIN_EXE_kfr");

/// How a node treats its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs it.
    Works,
    /// The same, and the first transfer of its bundle breaks off in the middle.
    CutsTheFirstTransfer,
    /// Transfers always break off, and then the pod is evicted.
    EvictedWhileSending,
    /// Runs it without any privileges.
    Unprivileged,
    /// The image can't be pulled.
    NoImage,
    /// The node doesn't answer: the pod stays as it was created.
    NotReady,
    /// The Job's controller is not allowed to create the pod.
    NoPod,
    /// The API doesn't take the Job.
    Refused,
}

struct Pod {
    node: String,
    behaviour: Behaviour,
    process: Option<Child>,
    folder: PathBuf,
    evicted: bool,
    sends: usize,
}

#[derive(Default)]
struct State {
    nodes: Vec<(String, Behaviour)>,
    /// By name of the Job.
    pods: BTreeMap<String, Pod>,
    jobs: Vec<Value>,
    begun: usize,
}

pub struct Cluster {
    state: Mutex<State>,
    folder: PathBuf,
    /// The API server is gone: connections are closed at once.
    pub down: AtomicBool,
    creating: AtomicUsize,
    /// Most Jobs that were created at once.
    pub most_creating: AtomicUsize,
    pub url: String,
}

impl Cluster {
    pub fn start(folder: &Path, nodes: &[(&str, Behaviour)]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nodes = nodes.iter().map(|(name, behaviour)| ((*name).to_string(), *behaviour)).collect();
        let cluster = Arc::new(Self {
            state: Mutex::new(State { nodes, ..State::default() }),
            folder: folder.to_path_buf(),
            down: AtomicBool::new(false),
            creating: AtomicUsize::new(0),
            most_creating: AtomicUsize::new(0),
            url: format!("http://{}", listener.local_addr().unwrap()),
        });
        let serving = cluster.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let cluster = serving.clone();
                thread::spawn(move || cluster.serve(stream));
            }
        });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "observe"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(folder.join("kubeconfig"), config.to_string()).unwrap();
        cluster
    }

    /// `kfr capture --cluster` against it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(KFR);
        command.args(["-v", "capture", "--cluster", "--image", "registry.example/kfr:1"]).args(arguments);
        command.env("KUBECONFIG", self.folder.join("kubeconfig")).current_dir(&self.folder);
        command
    }

    /// Jobs that were ever created.
    pub fn jobs(&self) -> Vec<Value> {
        self.state.lock().unwrap().jobs.clone()
    }

    /// Pods that are there now.
    pub fn pods(&self) -> usize {
        self.state.lock().unwrap().pods.len()
    }

    /// Recordings that were begun.
    pub fn begun(&self) -> usize {
        self.state.lock().unwrap().begun
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
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
            if self.down.load(Ordering::SeqCst) {
                return;
            }
            let header = |name: &str| {
                head.iter().find_map(|line| {
                    let (key, value) = line.split_once(": ")?;
                    key.eq_ignore_ascii_case(name).then(|| value.to_string())
                })
            };
            let length = header("content-length").map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let mut words = head[0].split(' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap().to_string());
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            if let Some(pod) =
                path.strip_prefix("/api/v1/namespaces/observe/pods/").and_then(|p| p.strip_suffix("/exec"))
            {
                assert!(header("sec-websocket-protocol").unwrap().contains("v5.channel.k8s.io"));
                self.exec(stream, pod, query, &header("sec-websocket-key").unwrap());
                return;
            }
            if query.contains("watch=1") {
                let _gone = write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                let _gone = stream.read(&mut [0; 1]);
                return;
            }
            let (status, answer) = self.answer(method, path, query, &body);
            let text = answer.to_string();
            if write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, method: &str, path: &str, query: &str, body: &[u8]) -> (u16, Value) {
        let list = |items: Vec<Value>| (200, json!({"metadata": {"resourceVersion": "1"}, "items": items}));
        let failed = |code: u16, message: &str| (code, json!({"kind": "Status", "code": code, "message": message}));
        const JOBS: &str = "/apis/batch/v1/namespaces/observe/jobs";
        match (method, path) {
            ("GET", "/api/v1/nodes") => {
                let state = self.state.lock().unwrap();
                let linux = state.nodes.iter().map(|(name, _)| (name.as_str(), "linux"));
                let all = linux.chain([("desktop", "windows")]);
                list(
                    all.map(|(name, os)| json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": os}}}))
                        .collect(),
                )
            }
            ("POST", JOBS) => {
                let now = self.creating.fetch_add(1, Ordering::SeqCst) + 1;
                self.most_creating.fetch_max(now, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(30));
                self.creating.fetch_sub(1, Ordering::SeqCst);
                let job: Value = serde_json::from_slice(body).unwrap();
                match self.create(&job) {
                    Behaviour::Refused => failed(403, "jobs.batch is forbidden: User \"u\" cannot create resource"),
                    _ => (201, job),
                }
            }
            ("DELETE", path) if path.starts_with(JOBS) => {
                assert_eq!(query, "propagationPolicy=Background");
                let name = path.rsplit('/').next().unwrap();
                match self.state.lock().unwrap().pods.remove(name) {
                    Some(mut pod) => {
                        if let Some(mut process) = pod.process.take() {
                            process.kill().unwrap();
                            process.wait().unwrap();
                        }
                        (200, json!({"kind": "Status", "status": "Success"}))
                    }
                    None => failed(404, "not found"),
                }
            }
            ("GET", "/api/v1/namespaces/observe/pods") => list(self.pod_list()),
            ("GET", "/api/v1/namespaces/observe/events") => {
                list(vec![json!({"message": "Error creating: pods \"kfr\" is forbidden: violates PodSecurity"})])
            }
            ("GET", _) => list(Vec::new()),
            other => panic!("{other:?}"),
        }
    }

    /// What the Job's controller and the node's kubelet do.
    fn create(&self, job: &Value) -> Behaviour {
        let name = job["metadata"]["name"].as_str().unwrap().to_string();
        let spec = &job["spec"]["template"]["spec"];
        let node = spec["nodeName"].as_str().unwrap().to_string();
        let mut state = self.state.lock().unwrap();
        let behaviour = state.nodes.iter().find(|(name, _)| *name == node).unwrap().1;
        if behaviour == Behaviour::Refused {
            return behaviour;
        }
        state.jobs.push(job.clone());
        let folder = self.folder.join(&name);
        std::fs::create_dir(&folder).unwrap();
        use Behaviour::{CutsTheFirstTransfer, EvictedWhileSending, Unprivileged, Works};
        let process =
            matches!(behaviour, Works | CutsTheFirstTransfer | EvictedWhileSending | Unprivileged).then(|| {
                let command: Vec<&str> = spec["containers"][0]["command"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|word| word.as_str().unwrap())
                    .collect();
                let mut command = local(&command, &folder);
                if behaviour == Unprivileged {
                    std::os::unix::process::CommandExt::uid(&mut command, 65534);
                }
                command.stdin(Stdio::null()).spawn().unwrap()
            });
        state.pods.insert(name, Pod { node, behaviour, process, folder, evicted: false, sends: 0 });
        behaviour
    }

    fn pod_list(&self) -> Vec<Value> {
        let mut state = self.state.lock().unwrap();
        let run = state.jobs.first().map(|job| job["metadata"]["labels"].clone()).unwrap_or_default();
        let existing = state.pods.iter_mut().filter(|(_, pod)| pod.behaviour != Behaviour::NoPod);
        existing
            .map(|(job, pod)| {
                let exited = pod.process.as_mut().and_then(|process| process.try_wait().unwrap());
                let container = match (pod.behaviour, exited) {
                    (Behaviour::NotReady, _) => None,
                    (Behaviour::NoImage, _) => {
                        Some(json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}))
                    }
                    (_, Some(status)) => Some(json!({"terminated": {"exitCode": status.code(), "reason": "Error"}})),
                    (_, None) => Some(json!({"running": {"startedAt": "2024-01-01T00:00:00Z"}})),
                };
                let status = match (pod.evicted, container) {
                    (true, _) => json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
                    (false, None) => json!({"phase": "Pending"}),
                    (false, Some(state)) => json!({"phase": "Running", "containerStatuses": [{"name": "kfr", "state": state}]}),
                };
                let mut labels = run.clone();
                labels["batch.kubernetes.io/job-name"] = Value::from(job.as_str());
                json!({
                    "metadata": {"name": format!("{job}-x1y2z"), "namespace": "observe", "labels": labels},
                    "spec": {"nodeName": pod.node},
                    "status": status,
                })
            })
            .collect()
    }

    /// Runs a command in a pod, as the kubelet does.
    fn exec(&self, mut stream: TcpStream, pod: &str, query: &str, key: &str) {
        let words: Vec<String> =
            query.split('&').filter_map(|pair| pair.strip_prefix("command=")).map(unescaped).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert!(query.contains("container=kfr") && query.contains("stdout=true"));
        let job = pod.strip_suffix("-x1y2z").unwrap();
        let (folder, behaviour, sends) = {
            let mut state = self.state.lock().unwrap();
            state.begun += usize::from(words.contains(&"begin"));
            let Some(pod) = state.pods.get_mut(job) else {
                let _gone = write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                return;
            };
            pod.sends += usize::from(words.contains(&"send"));
            (pod.folder.clone(), pod.behaviour, pod.sends)
        };
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n").unwrap();
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        let output = local(&words, &folder).stdin(Stdio::null()).output().unwrap();
        let sending = words.contains(&"send");
        let cut = sending
            && match behaviour {
                Behaviour::CutsTheFirstTransfer => sends == 1,
                Behaviour::EvictedWhileSending => true,
                _ => false,
            };
        let stdout = if cut { &output.stdout[..output.stdout.len() / 2] } else { &output.stdout[..] };
        let pieces = stdout.chunks(10_000).map(|piece| (1, piece)).chain([(2, &output.stderr[..])]);
        for (channel, piece) in pieces {
            if socket.send(Message::binary([&[channel], piece].concat())).is_err() {
                return;
            }
        }
        if cut {
            if behaviour == Behaviour::EvictedWhileSending {
                self.state.lock().unwrap().pods.get_mut(job).unwrap().evicted = true;
            }
            return;
        }
        let status = match output.status.success() {
            true => json!({"status": "Success"}),
            false => {
                json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with a non-zero exit code"})
            }
        };
        let _gone = socket.send(Message::binary([&[3], status.to_string().as_bytes()].concat()));
        let _gone = socket.close(None);
        while socket.read().is_ok() {}
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for pod in self.state.lock().unwrap().pods.values_mut() {
            if let Some(process) = &mut pod.process {
                let _ended = process.kill();
                let _ended = process.wait();
            }
        }
    }
}

/// A container's command on this machine.
fn local(words: &[&str], folder: &Path) -> Command {
    assert_eq!(words[..2], ["/kfr", "node"]);
    let mut command = Command::new(KFR);
    for word in &words[1..] {
        match *word {
            "/data" => command.arg(folder),
            word => command.arg(word),
        };
    }
    command
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}
