//! Pods and containers as their node knows them, without an API: cgroups called as the kubelet calls them, and files that
//! name them below a root of the test's own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kfr_bundle::facts::ContainerFact;
use kfr_bundle::{BlockKind, Reader, decode_maps};
use serde_json::json;
use tempfile::TempDir;

use crate::live::{Bundle, KFR, Recording, turn, wait_for, with_both_hooks};

/// v2, alone or beside v1, and v1.
const HIERARCHIES: [(&str, bool); 3] =
    [("/sys/fs/cgroup/unified", true), ("/sys/fs/cgroup", true), ("/sys/fs/cgroup/pids", false)];

/// A node's pods: cgroups of the kernel, files in a folder.
struct Node {
    root: TempDir,
    kubepods: PathBuf,
}

/// The same for each number.
fn uid(number: u8) -> String {
    format!("4311740f-47d9-46bf-ac88-de6e644800{number:02x}")
}

fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

impl Node {
    /// `None` where there is no such hierarchy, or nothing can be made in it.
    fn new(hierarchy: &str) -> Option<Self> {
        // The kubelet of a real node must not take them for its own.
        let kubepods = Path::new(hierarchy).join(format!("kfr-test-{}-kubepods", std::process::id()));
        let is_real = Path::new(hierarchy).join("cgroup.procs").exists();
        if !is_real || fs::create_dir(&kubepods).is_err() {
            println!("skipped: no cgroups at {hierarchy}");
            return None;
        }
        fs::create_dir(kubepods.join("burstable")).unwrap();
        Some(Self { root: tempfile::tempdir().unwrap(), kubepods })
    }

    fn root(&self) -> &str {
        self.root.path().to_str().unwrap()
    }

    /// What a kubelet makes of a pod before any container: its folder for logs, its cgroup.
    fn add_pod(&self, number: u8, namespace: &str, name: &str) {
        let logs = self.root.path().join("var/log/pods").join(format!("{namespace}_{name}_{}", uid(number)));
        fs::create_dir_all(logs).unwrap();
        fs::create_dir(self.pod(number)).unwrap();
    }

    /// What containerd makes of a container.
    fn add_container(&self, pod: u8, number: u8, name: &str) -> PathBuf {
        let tasks = self.root.path().join("run/containerd/io.containerd.runtime.v2.task/k8s.io");
        let state = tasks.join(id(number));
        fs::create_dir_all(&state).unwrap();
        // Pod and namespace as the folder of logs has them.
        let logs = fs::read_dir(self.root.path().join("var/log/pods")).unwrap();
        let names = logs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names = names.into_iter().find(|name| name.ends_with(&uid(pod))).unwrap();
        let names: Vec<&str> = names.split('_').collect();
        let annotations = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-namespace": names[0],
            "io.kubernetes.cri.sandbox-name": names[1],
            "io.kubernetes.cri.sandbox-uid": uid(pod),
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.image-name": "registry.example/shop:1",
        });
        let spec = json!({"annotations": annotations, "process": {"env": ["PASSWORD=never-to-be-kept"]}});
        fs::write(state.join("config.json"), spec.to_string()).unwrap();
        let folder = self.pod(pod).join(id(number));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn pod(&self, number: u8) -> PathBuf {
        self.kubepods.join("burstable").join(format!("pod{}", uid(number)))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut folders = vec![self.kubepods.clone()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            let inside = fs::read_dir(folder).into_iter().flatten().flatten();
            folders.extend(inside.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()));
            next += 1;
        }
        for folder in folders.iter().rev() {
            wait_for("the cgroup to be empty", || (fs::remove_dir(folder).is_ok() || !folder.exists()).then_some(()));
        }
    }
}

/// A process in a container that says the same again and again.
struct Talker {
    child: Child,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Talker {
    /// Starts it outside, as a runtime does, and moves it in before it runs its program.
    fn start(container: &Path, words: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let talk = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; while printf {words} >&3; do read -t 0.02 -u 3 x; done");
        let child = spawn_in(container, &talk);
        // Takes what comes, until the talker is gone.
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).is_ok_and(|length| length > 0) {}
        });
        Self { child, server: Some(server) }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.server.take().unwrap().join();
    }
}

fn spawn_in(container: &Path, script: &str) -> Child {
    let enter = format!("echo $$ > {}/cgroup.procs; exec bash -c \"$0\"", container.display());
    let child = Command::new("bash").args(["-c", &enter, script]).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    child.unwrap()
}

fn wait_until_recorded(recording: &Recording, words: &str) {
    let partial = recording.partial();
    wait_for(words, || Bundle::at(partial.clone()).holds(words.as_bytes()).then_some(()));
}

/// Whether a bundle under way has a row of a container.
fn is_told(partial: &Path, id: &str) -> bool {
    let Ok(reader) = Reader::open(partial) else { return false };
    reader.blocks_of(BlockKind::CONTAINERS).any(|entry| {
        let mut raw = Vec::new();
        let rows = reader.read_block(entry, &mut raw).ok().and_then(|_| decode_maps::<ContainerFact>(&raw).ok());
        rows.is_some_and(|maps| maps.rows.iter().any(|(_, row)| row.container == id))
    })
}

#[test]
fn a_pod_with_containers_that_start_later() {
    with_both_hooks(|hook| {
        for (hierarchy, _) in HIERARCHIES {
            let Some(node) = Node::new(hierarchy) else { continue };
            node.add_pod(1, "shop", "api-7cc89649d-bhsrk");
            node.add_pod(2, "shop", "web-7cc89649d-x2x4z");
            let _first = Talker::start(&node.add_container(1, 1, "api"), "said-by-the-first");
            let _other = Talker::start(&node.add_container(2, 2, "web"), "said-by-another");
            let recording = Recording::start(hook, &["--host-root", node.root(), "--pod", "shop/api-7cc89649d-bhsrk"]);
            wait_until_recorded(&recording, "said-by-the-first");
            // As a restart does: another container, of a process that is nobody's child here.
            let _later = Talker::start(&node.add_container(1, 3, "api"), "said-by-a-later-one");
            wait_until_recorded(&recording, "said-by-a-later-one");
            let bundle = recording.stop();
            assert!(!bundle.holds(b"said-by-another"), "{hook}, {hierarchy}");
            assert!(!bundle.holds(b"never-to-be-kept"));
            for line in bundle.dump("--connections") {
                // Who opened a connection that was open before is a guess.
                let pods = [&line["client"]["pod"], &line["server"]["pod"]];
                assert!(pods.contains(&&json!("shop/api-7cc89649d-bhsrk")), "{hook}, {hierarchy}: {line}");
            }
        }
    });
}

#[test]
fn a_namespace_with_pods_that_come_later() {
    with_both_hooks(|hook| {
        for (hierarchy, _) in HIERARCHIES {
            let Some(node) = Node::new(hierarchy) else { continue };
            node.add_pod(1, "shop", "api-0");
            node.add_pod(2, "other", "web-0");
            let _other = Talker::start(&node.add_container(2, 2, "web"), "said-elsewhere");
            let recording = Recording::start(hook, &["--host-root", node.root(), "--namespace", "shop"]);
            node.add_pod(3, "shop", "api-1");
            let _later = Talker::start(&node.add_container(3, 3, "api"), "said-by-a-later-one");
            wait_until_recorded(&recording, "said-by-a-later-one");
            let bundle = recording.stop();
            assert!(!bundle.holds(b"said-elsewhere"), "{hook}, {hierarchy}");
            let lines = bundle.dump("--connections");
            let client = &lines.iter().find(|line| line["client"]["pod"] == "shop/api-1").unwrap()["client"];
            assert_eq!((&client["workload"], &client["container"]), (&json!("shop/api"), &json!(id(3))));
            assert_eq!(client["known_by"], "node_names");
        }
    });
}

#[test]
fn containers_by_name_and_by_id() {
    with_both_hooks(|hook| {
        for (hierarchy, _) in HIERARCHIES {
            let Some(node) = Node::new(hierarchy) else { continue };
            node.add_pod(1, "shop", "api-0");
            node.add_pod(2, "shop", "web-0");
            let talkers =
                [(1, 1, "api"), (1, 2, "proxy"), (2, 3, "proxy"), (2, 4, "web")].map(|(pod, number, name)| {
                    Talker::start(&node.add_container(pod, number, name), &format!("said-by-{number}"))
                });
            let recorded = |options: &[&str], wanted: &[u8]| {
                let options: Vec<&str> = ["--host-root", node.root()].iter().chain(options).copied().collect();
                let recording = Recording::start(hook, &options);
                wanted.iter().for_each(|number| wait_until_recorded(&recording, &format!("said-by-{number}")));
                let bundle = recording.stop();
                for number in 1..=4 {
                    let holds = bundle.holds(format!("said-by-{number}").as_bytes());
                    assert_eq!(holds, wanted.contains(&number), "{hook}, {hierarchy}: {options:?}, {number}");
                }
            };
            recorded(&["--container", "proxy"], &[2, 3]);
            recorded(&["--container", "proxy", "--pod", "web-0"], &[3]);
            recorded(&["--container", &id(4)[..12], "--container", "api"], &[1, 4]);
            recorded(&["--pod", &uid(1)], &[1, 2]);
            drop(talkers);
        }
    });
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let Some(_turn) = turn() else { return };
    let Some(node) = HIERARCHIES.iter().find_map(|(hierarchy, _)| Node::new(hierarchy)) else { return };
    node.add_pod(1, "shop", "api-0");
    node.add_container(1, 1, "api");
    let folder = tempfile::tempdir().unwrap();
    let ask = |options: &[&str]| {
        let output = folder.path().join("never.kfr");
        let mut kfr = Command::new(KFR);
        kfr.args(["capture", "--kube", "off", "--host-root", node.root(), "--duration", "1s", "-o"]).arg(&output);
        let output = kfr.args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (options, there_is) in [
        (&["--pod", "web-0"][..], "pods shop/api-0"),
        (&["--pod", "other/api-0"], "pods shop/api-0"),
        (&["--namespace", "sh"], "namespaces shop"),
        (&["--container", "ap"], "containers api"),
        (&["--container", "api", "--namespace", "other"], "shop"),
    ] {
        let said = ask(options);
        assert!(said.contains(options[1]) && said.contains(there_is) && said.trim().lines().count() == 1, "{said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A process that is gone within milliseconds, and soon its container with it, is still somebody's.
#[test]
fn a_container_that_lives_for_a_moment() {
    with_both_hooks(|hook| {
        // By port alone no events of processes are recorded, only their sockets'.
        let each = HIERARCHIES.iter().flat_map(|hierarchy| [false, true].map(|by_port| (*hierarchy, by_port)));
        for ((hierarchy, is_unified), by_port) in each {
            let Some(node) = Node::new(hierarchy) else { continue };
            node.add_pod(1, "shop", "report-29384756-x2x4z");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let wanted = port.to_string();
            let options = ["--host-root", node.root(), "--port", &wanted];
            let recording = Recording::start(hook, if by_port { &options } else { &options[..2] });
            for number in 1..=5 {
                let container = node.add_container(1, number, "report");
                let ask = format!(
                    "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET /{number} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' >&3; read -u 3 x"
                );
                let mut child = spawn_in(&container, &ask);
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 256];
                assert!(stream.read(&mut asked).unwrap() > 0);
                let partial = recording.partial();
                let is_told = || is_told(&partial, &id(number)).then_some(());
                if !is_unified {
                    // Events don't name a v1 cgroup: the process has to be seen in /proc, for which 10 ms are enough.
                    wait_for("the process to be looked up", is_told);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                assert!(child.wait().unwrap().success());
                // A runtime takes longer than the 10 ms after which the cgroup's id is looked up.
                wait_for("the cgroup to be looked up", is_told);
                wait_for("the cgroup to be empty", || fs::remove_dir(&container).ok());
            }
            let lines = recording.stop().dump("--requests");
            for number in 1..=5 {
                let line = lines.iter().find(|line| line["target"] == format!("/{number}")).unwrap();
                let client = &line["client"];
                let found = [&client["pod"], &client["container"], &client["workload"]];
                let expected = ["shop/report-29384756-x2x4z", &id(number), "shop/report"];
                assert_eq!(found.map(|value| value.as_str()), expected.map(Some), "{hook}, {hierarchy}: {line}");
            }
        }
    });
}
