//! What is recorded and what isn't.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::live::{Bundle, Events, KFR, Recording, inode, payloads, wait_for, with_both_hooks};
use crate::sockets::{receive, send, tcp};

/// A process that, once told to, connects, says something, and has a child of its own say more.
struct Talker {
    child: Child,
    listener: TcpListener,
}

impl Talker {
    fn start() -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!(
            "read go; exec 3<>/dev/tcp/127.0.0.1/{port}; printf said-by-child >&3; read -u 3 answer; (printf said-by-grandchild >&3); exit 0"
        );
        let child = Command::new("bash").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        match child {
            Ok(child) => Some(Self { child, listener }),
            Err(error) => {
                println!("skipped: bash can't be started: {error}");
                None
            }
        }
    }

    fn talk(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let (mut server, _) = self.listener.accept().unwrap();
        let mut said = [0u8; 13];
        server.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"said-by-child");
        server.write_all(b"said-by-outsider\n").unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"said-by-grandchild");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Only the talker's sockets were recorded: not this process's, which is at the other end.
fn only_the_talker(bundle: &Bundle, talker: u32, case: &str) {
    let events = bundle.events();
    let said = |text: &str| -> Vec<u64> {
        let data = events.of_kind("data").filter(|event| event["payload"] == text);
        data.map(|event| event["process"].as_u64().unwrap()).collect()
    };
    assert_eq!(said("said-by-child"), [u64::from(talker)], "{case}");
    let grandchild = said("said-by-grandchild");
    assert!(grandchild.len() == 1 && grandchild[0] != u64::from(talker), "{case}: {grandchild:?}");
    let own = u64::from(std::process::id());
    assert!(!events.of_kind("data").any(|event| event["process"] == own), "{case}: an outsider was recorded");
    assert!(!events.of_kind("socket").any(|event| event["process"] == own), "{case}: an outsider was recorded");
}

#[test]
fn a_process_and_its_descendants() {
    with_both_hooks(|hook| {
        let Some(mut talker) = Talker::start() else { return };
        let pid = talker.child.id();
        let recording = Recording::start(hook, &["--pid", &pid.to_string()]);
        let (client, server) = tcp();
        send(&client, b"not for the bundle", 0);
        receive(&server, 64, 0);
        talker.talk();
        drop((client, server));
        let bundle = recording.stop();
        only_the_talker(&bundle, pid, hook);
        assert!(!bundle.holds(b"not for the bundle"));
    });
}

#[test]
fn a_cgroup_of_either_version() {
    with_both_hooks(|hook| {
        for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"] {
            let name = format!("kfr-test-{}", std::process::id());
            let folder = PathBuf::from(root).join(&name);
            let real = PathBuf::from(root).join("cgroup.procs").exists();
            if !real || fs::create_dir(&folder).is_err() {
                println!("skipped: no cgroups at {root}");
                continue;
            }
            let inside = folder.join("inside");
            fs::create_dir(&inside).unwrap();
            let done = (|| {
                let mut talker = Talker::start()?;
                let pid = talker.child.id();
                fs::write(inside.join("cgroup.procs"), pid.to_string()).unwrap();
                // The outer one is asked for, the process is in one below.
                let recording = Recording::start(hook, &["--cgroup", folder.to_str().unwrap()]);
                talker.talk();
                Some((recording.stop(), pid))
            })();
            for folder in [&inside, &folder] {
                wait_for("the cgroup to be empty", || fs::remove_dir(folder).ok());
            }
            let Some((bundle, pid)) = done else { return };
            only_the_talker(&bundle, pid, &format!("{hook}, {root}"));
        }
    });
}

#[test]
fn a_port_from_connect_to_close() {
    with_both_hooks(|hook| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let recording = Recording::start(hook, &["--port", &port.to_string()]);
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (other_client, other_server) = tcp();
        send(&other_client, b"another port", 0);
        receive(&other_server, 64, 0);
        send(&client, b"the port", 0);
        receive(&server, 64, 0);
        let sockets = (inode(&client), inode(&server));
        drop(client);
        assert!(receive(&server, 10, 0).is_empty());
        drop(server);
        drop((other_client, other_server));

        let bundle = recording.stop();
        let events = bundle.events();
        let ports = |event: &serde_json::Value| [event["local_port"].as_u64(), event["remote_port"].as_u64()];
        for event in events.of_kind("socket") {
            assert!(ports(event).contains(&Some(port.into())), "{hook}: {event}");
        }
        assert_eq!(payloads(&events.sent(sockets.0)), [b"the port"], "{hook}");
        assert!(!bundle.holds(b"another port"), "{hook}");
        for socket in [sockets.0, sockets.1] {
            let closes = events.states(socket).iter().filter(|event| event["new_state"] == 7).count();
            assert_eq!(closes, 1, "{hook}: a closing socket has no port any more, but is recorded");
        }
    });
}

#[test]
fn the_recorder_does_not_record_itself() {
    with_both_hooks(|hook| {
        // Its standard output is a socket, so that every block it writes is traffic of its own.
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut child = Command::new(KFR)
            .args(["capture", "--max-cpu", "400%", "--duration", "1500ms", "--socket-hook", hook, "-o", "-"])
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(far))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut bytes = Vec::new();
        near.read_to_end(&mut bytes).unwrap();
        let status = child.wait().unwrap();
        assert!(matches!(status.code(), Some(0 | 3)), "{status}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("streamed.kfr");
        fs::write(&path, &bytes).unwrap();

        let Events(events) = Bundle::at(path).events();
        let of_recorder = |event: &&serde_json::Value| event["process"] == child.id();
        let sockets: Vec<_> =
            events.iter().filter(|event| event["kind"] == "data" || event["kind"] == "socket").collect();
        assert!(sockets.iter().any(|event| event["process"] == std::process::id()), "{hook}: this end reads");
        assert_eq!(sockets.into_iter().filter(of_recorder).count(), 0, "{hook}");
    });
}
