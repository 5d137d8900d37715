//! What the truth tests share: a capture around a load, servers on loopback, and tables of counts that must be equal.

#![allow(dead_code)]

pub mod http;
pub mod mysql;
pub mod redis;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufRead;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kfr_bundle::facts::Manifest;
use kfr_bundle::{BlockKind, Reader, decode_maps};

pub const KFR: &str = env!("CARGO_BIN_EXE_kfr");
pub const HOOKS: [&str; 2] = ["sock", "syscall"];

/// How often something happened, by name.
pub type Counts = BTreeMap<String, u64>;

/// Whether live tests run here; says why if not. `KFR_LIVE=off` skips them, `KFR_LIVE=required` makes a missing
/// requirement an error.
pub fn live(programs: &[&str]) -> bool {
    let wish = std::env::var("KFR_LIVE").unwrap_or_default();
    let missing = programs.iter().find(|program| find_program(program).is_none());
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    let reason = if wish == "off" {
        "KFR_LIVE=off".to_string()
    } else if !root {
        "not root".to_string()
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        "this kernel has no BTF".to_string()
    } else if let Some(program) = missing {
        format!("{program} is not installed")
    } else {
        return true;
    };
    assert!(wish != "required", "KFR_LIVE=required, but: {reason}");
    println!("skipped: {reason}");
    false
}

pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A temporary folder that servers which give up root can pass through.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("kfr-truth").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Polls until `done` gives something; panics with `what` when that takes too long.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a number has stopped growing.
pub fn settled(what: &str, mut number: impl FnMut() -> u64) -> u64 {
    let (mut last, mut since) = (number(), Instant::now());
    wait_for(what, || {
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(300)).then_some(last)
    })
}

/// A server that ends with its test.
pub struct Server {
    child: Child,
    name: String,
    pub port: u16,
}

impl Server {
    /// Starts it; it is ready when its port answers.
    pub fn start(name: &str, port: u16, log: &Path, command: &mut Command) -> Self {
        let out = File::create(log).unwrap();
        let err = out.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let mut server = Self { child, name: name.to_string(), port };
        wait_for(&format!("{name} to listen"), || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{name} ended with {status}: {}", std::fs::read_to_string(log).unwrap_or_default());
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        signal(self.child.id(), libc::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("{} did not end when asked to", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, signal: i32) {
    // SAFETY: signals a child that was not waited for yet, so the pid is its own.
    unsafe { libc::kill(pid as i32, signal) };
}

/// A capture under way.
pub struct Capture {
    child: Child,
    bundle: PathBuf,
}

impl Capture {
    /// Starts `kfr capture` and returns once its probes are attached: then the manifest in the file says when it began.
    pub fn start(folder: &Path, name: &str, options: &[&str]) -> Self {
        let bundle = folder.join(format!("{name}.kfr"));
        // A test's recorder is not optimised: its CPU time says nothing.
        let child = Command::new(KFR)
            .args(["capture", "--force", "--max-cpu", "400%", "-o"])
            .arg(&bundle)
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut capture = Self { child, bundle };
        let partial = capture.bundle.with_extension("kfr.partial");
        wait_for("the capture to begin", || {
            if let Some(status) = capture.child.try_wait().unwrap() {
                let mut text = String::new();
                std::io::Read::read_to_string(capture.child.stderr.as_mut().unwrap(), &mut text).unwrap();
                panic!("kfr capture ended with {status}: {text}");
            }
            has_begun(&partial).then_some(())
        });
        capture
    }

    /// Ends it; it must have lost nothing.
    pub fn stop(mut self) -> Bundle {
        signal(self.child.id(), libc::SIGTERM);
        let mut text = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut text).unwrap();
        let status = self.child.wait().unwrap();
        print!("{text}");
        assert!(status.success(), "kfr capture ended with {status}: {text}");
        Bundle { path: std::mem::take(&mut self.bundle) }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn has_begun(partial: &Path) -> bool {
    let Ok(reader) = Reader::open(partial) else { return false };
    let mut raw = Vec::new();
    reader.blocks_of(BlockKind::MANIFEST).any(|entry| {
        reader.read_block(entry, &mut raw).is_ok()
            && decode_maps::<Manifest>(&raw).is_ok_and(|maps| maps.rows.iter().any(|(_, row)| row.started_ns > 0))
    })
}

/// A finished recording.
pub struct Bundle {
    pub path: PathBuf,
}

impl Bundle {
    /// Calls `each` with every request line of the server at `port`; nothing may be lost.
    pub fn requests(&self, port: u16, mut each: impl FnMut(&serde_json::Value)) {
        let mut child =
            Command::new(KFR).args(["dump", "--requests"]).arg(&self.path).stdout(Stdio::piped()).spawn().unwrap();
        for line in std::io::BufReader::new(child.stdout.take().unwrap()).lines() {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["server"]["port"].as_u64() == Some(u64::from(port)) {
                each(&line);
            }
        }
        let status = child.wait().unwrap();
        assert!(status.success(), "kfr dump ended with {status}: events were lost");
    }

    /// Counts request lines by the name that `name` gives them.
    pub fn count(&self, port: u16, name: impl Fn(&serde_json::Value) -> String) -> Counts {
        let mut counts = Counts::new();
        self.requests(port, |line| *counts.entry(name(line)).or_default() += 1);
        counts
    }
}

/// Panics with both tables side by side unless they are equal.
pub fn assert_equal(what: &str, server: &Counts, kfr: &Counts) {
    let total = |counts: &Counts| counts.values().sum::<u64>();
    let names: std::collections::BTreeSet<&String> = server.keys().chain(kfr.keys()).collect();
    let mut table = format!("{what}: {} requests by the server, {} by kfr\n", total(server), total(kfr));
    table += &format!("  {:<32} {:>10} {:>10}\n", "", "server", "kfr");
    for name in names {
        let (a, b) = (server.get(name).copied().unwrap_or_default(), kfr.get(name).copied().unwrap_or_default());
        table += &format!("  {name:<32} {a:>10} {b:>10}{}\n", if a == b { "" } else { "  <-- differs" });
    }
    assert!(server == kfr, "{table}");
    print!("{table}");
}

/// Prints what a load came to.
pub fn print_rate(what: &str, requests: u64, elapsed: Duration) {
    println!(
        "{what}: {requests} requests in {:.2} s, {:.0}/s",
        elapsed.as_secs_f64(),
        requests as f64 / elapsed.as_secs_f64()
    );
}
