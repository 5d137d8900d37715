//! A capture under way, what it recorded, and waiting for a condition.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kfr_bundle::facts::{LedgerFact, Manifest};
use kfr_bundle::{BlockKind, Reader, decode_maps};
use serde_json::Value;
use tempfile::TempDir;

pub const KFR: &str = env!("CARGO_BIN_EXE_kfr");
/// Both socket hooks.
pub const HOOKS: [&str; 2] = ["sock", "syscall"];
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// One live test at a time: each needs the machine's two or more cores, and sees the others' processes.
static ONE: Mutex<()> = Mutex::new(());

/// `None`, with the reason printed, where live tests can't run or are not wanted.
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    let wish = std::env::var("KFR_LIVE").unwrap_or_default();
    // SAFETY: asks for the user id, nothing else.
    let root = unsafe { libc::geteuid() } == 0;
    let reason = if wish == "off" {
        "KFR_LIVE=off"
    } else if !root {
        "not root"
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        "this kernel has no BTF"
    } else {
        return Some(ONE.lock().unwrap_or_else(PoisonError::into_inner));
    };
    assert!(wish != "required", "KFR_LIVE=required, but {reason}");
    println!("skipped: {reason}");
    None
}

/// Runs a test with each hook.
pub fn with_both_hooks(test: impl Fn(&'static str)) {
    let Some(_turn) = turn() else { return };
    for hook in HOOKS {
        println!("hook {hook}");
        test(hook);
    }
}

/// Polls until there is an answer.
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// True once the file's manifest says when recording began: then every probe is attached.
fn has_begun(partial: &Path) -> bool {
    let Ok(reader) = Reader::open(partial) else { return false };
    manifests(&reader).iter().any(|manifest| manifest.started_ns > 0)
}

fn manifests(reader: &Reader) -> Vec<Manifest> {
    let mut raw = Vec::new();
    let mut all = Vec::new();
    for entry in reader.blocks_of(BlockKind::MANIFEST) {
        raw.clear();
        if reader.read_block(entry, &mut raw).is_ok()
            && let Ok(maps) = decode_maps::<Manifest>(&raw)
        {
            all.extend(maps.rows.into_iter().map(|(_, row)| row));
        }
    }
    all
}

/// A capture under way; killed when dropped.
pub struct Recording {
    pub child: Child,
    folder: Option<TempDir>,
    path: PathBuf,
}

impl Recording {
    /// Starts one and returns once all its probes are attached.
    pub fn start(hook: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live.kfr");
        let child = Command::new(KFR)
            // A test's recorder is not optimised: its CPU time says nothing.
            .args(["capture", "--max-cpu", "400%", "--socket-hook", hook, "-o"])
            .arg(&path)
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut recording = Self { child, folder: Some(folder), path };
        let partial = recording.partial();
        wait_for("the capture to begin", || {
            if let Some(status) = recording.child.try_wait().unwrap() {
                panic!("kfr capture ended with {status}: {}", recording.said());
            }
            has_begun(&partial).then_some(())
        });
        recording
    }

    /// Records this process and what it starts.
    pub fn own(hook: &str) -> Self {
        Self::start(hook, &["--pid", &std::process::id().to_string()])
    }

    /// The file while it grows.
    pub fn partial(&self) -> PathBuf {
        self.path.with_extension("kfr.partial")
    }

    fn said(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut text));
        text
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a child that was not waited for yet, so the pid is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Ends it with SIGINT; nothing may be lost.
    pub fn stop(self) -> Bundle {
        let bundle = self.stop_with(libc::SIGINT);
        assert_eq!(bundle.exit_code, Some(0), "{}", bundle.said);
        bundle
    }

    /// Ends it with a signal.
    pub fn stop_with(mut self, signal: i32) -> Bundle {
        self.signal(signal);
        let said = self.said();
        let status = self.child.wait().unwrap();
        let path = if self.path.exists() { self.path.clone() } else { self.partial() };
        Bundle { _folder: self.folder.take(), path, exit_code: status.code(), said }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a capture left.
pub struct Bundle {
    _folder: Option<TempDir>,
    pub path: PathBuf,
    pub exit_code: Option<i32>,
    pub said: String,
}

/// One call that moved bytes, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub offset: u64,
    pub length: u64,
    pub payload: Vec<u8>,
    /// Why the payload is shorter than the length.
    pub missing: Option<String>,
}

impl Moved {
    /// A call with all its bytes.
    pub fn whole(&self) -> bool {
        self.missing.is_none() && self.payload.len() as u64 == self.length
    }
}

impl Bundle {
    /// A file that is there already.
    pub fn at(path: PathBuf) -> Self {
        Self { _folder: None, path, exit_code: None, said: String::new() }
    }

    pub fn kfr(&self, arguments: &[&str]) -> Output {
        Command::new(KFR).args(arguments).arg(&self.path).output().unwrap()
    }

    pub fn dump(&self, what: &str) -> Vec<Value> {
        let output = self.kfr(&["dump", "--literals", what]);
        let code = output.status.code();
        assert!(code == Some(0) || code == Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    pub fn events(&self) -> Events {
        Events(self.dump("--events"))
    }

    /// The recorder's last counters.
    pub fn ledger(&self) -> BTreeMap<String, u64> {
        let reader = Reader::open(&self.path).unwrap();
        let mut raw = Vec::new();
        let mut last = LedgerFact::default();
        for entry in reader.blocks_of(BlockKind::LEDGER) {
            raw.clear();
            reader.read_block(entry, &mut raw).unwrap();
            for (_, row) in decode_maps::<LedgerFact>(&raw).unwrap().rows {
                if row.time_ns >= last.time_ns {
                    last = row;
                }
            }
        }
        last.counters
    }

    /// True if these bytes are anywhere in the bundle, whatever block.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let reader = Reader::open(&self.path).unwrap();
        let mut raw = Vec::new();
        reader.blocks().iter().any(|entry| {
            raw.clear();
            reader.read_block(entry, &mut raw).unwrap();
            raw.windows(bytes.len()).any(|window| window == bytes)
        })
    }
}

/// The events of a bundle.
pub struct Events(pub Vec<Value>);

impl Events {
    /// Events of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |event| event["kind"] == kind)
    }

    /// The recorded name of the socket with this inode.
    pub fn socket(&self, inode: u64) -> Option<u64> {
        self.of_kind("socket").find(|event| event["inode"] == inode).and_then(|event| event["socket"].as_u64())
    }

    /// Its identity.
    pub fn identity(&self, inode: u64) -> Option<&Value> {
        self.of_kind("socket").find(|event| event["inode"] == inode)
    }

    fn moved(&self, inode: u64, direction: &str) -> Vec<Moved> {
        let Some(socket) = self.socket(inode) else { return Vec::new() };
        let data = self.0.iter().filter(|event| event["kind"] == "data" || event["kind"] == "datagram");
        data.filter(|event| event["socket"] == socket && event["direction"] == direction)
            .map(|event| Moved {
                offset: event["offset"].as_u64().unwrap(),
                length: event["length"].as_u64().unwrap(),
                payload: unescape(event["payload"].as_str().unwrap()),
                missing: event["missing"].as_str().map(str::to_string),
            })
            .collect()
    }

    /// What the socket with this inode sent, in the order recorded.
    pub fn sent(&self, inode: u64) -> Vec<Moved> {
        self.moved(inode, "sent")
    }

    /// What it received.
    pub fn received(&self, inode: u64) -> Vec<Moved> {
        self.moved(inode, "received")
    }

    /// State changes of the socket with this inode.
    pub fn states(&self, inode: u64) -> Vec<&Value> {
        let socket = self.socket(inode);
        self.of_kind("state").filter(|event| event["socket"].as_u64() == socket).collect()
    }
}

/// Payloads of calls that were kept whole.
pub fn payloads(moved: &[Moved]) -> Vec<&[u8]> {
    assert!(moved.iter().all(Moved::whole), "{moved:?}");
    moved.iter().map(|call| call.payload.as_slice()).collect()
}

/// Lengths.
pub fn lengths(moved: &[Moved]) -> Vec<u64> {
    moved.iter().map(|call| call.length).collect()
}

/// Reasons for missing payload.
pub fn reasons(moved: &[Moved]) -> Vec<Option<&str>> {
    moved.iter().map(|call| call.missing.as_deref()).collect()
}

/// True if each call's offset is where the one before ended.
pub fn is_contiguous(moved: &[Moved]) -> bool {
    moved.windows(2).all(|pair| pair[0].offset as u32 as u64 + pair[0].length == pair[1].offset)
}

/// The inverse of `escape_ascii`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next().unwrap() {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    out
}

/// Inode of an open socket, by which the bundle names it, too.
pub fn inode(socket: &impl AsRawFd) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
}

/// The result of a system call that must not fail.
#[track_caller]
pub fn ok<T: Into<i64> + Copy + Debug>(result: T) -> usize {
    let value: i64 = result.into();
    assert!(value >= 0, "{}", std::io::Error::last_os_error());
    value as usize
}
