//! What containers log while a node is recorded, from the files that the kubelet keeps.
//!
//! Files are looked at from a thread of their own, four times a second, so that no number of them needs watches of the
//! kernel. What is kept is bounded; what is not is counted, container by container ([`LogCounts`]).

mod file;
mod keep;
mod record;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kfr_bundle::logs::{LogCounts, LogFact};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::host_root::HostRoot;
use crate::selection::Wanted;
use file::{BUFFER_BYTES, Followed};
use keep::{Allowance, Kept, Shared};
pub use tree::PODS;
use tree::{Container, LogFile, log_files};

/// How often files are read.
const READ_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked for new ones.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// How often counts are handed over.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// Files that are followed at once.
const MAX_FILES: usize = 1024;
/// Containers that are counted at all.
const MAX_CONTAINERS: usize = 16_384;
/// Files that may be open, those of the recorder included.
const OPEN_FILES: u64 = MAX_FILES as u64 + 1024;
/// Bytes that are read at most each time, of all files: beyond this even counting lines would cost too much.
const READ_BYTES: u64 = 8 << 20;
/// What each file gets of this before any gets more, so that one that floods hides no other.
const SHARE_BYTES: u64 = 64 << 10;
/// Lines are handed over from so many on ...
const ROWS: usize = 2048;
/// ... or from so many bytes of text.
const ROWS_BYTES: usize = 512 << 10;
/// Scans in which a file without a name is still read: the runtime goes on writing to it until it is told to open the new
/// one.
const UNNAMED_SCANS: u8 = 2;

/// What the manifest says where a host has no folder of logs.
pub const ABSENT: &str = "absent";

/// Which lines are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lines {
    /// None: nothing is read.
    Off,
    /// Warnings, errors and what belongs to them.
    #[default]
    Errors,
    /// All.
    All,
}

impl Lines {
    /// As in the bundle's manifest.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Errors => "errors",
            Self::All => "all",
        }
    }
}

/// How much may be kept and looked at.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Text of all containers, bytes.
    pub total_bytes: u64,
    /// Text of one container, bytes.
    pub container_bytes: u64,
    /// Bytes looked at a second, of all containers; four times as many at once.
    pub looked_at_a_second: u64,
    /// The same of one container.
    pub container_looked_at_a_second: u64,
}

impl Bounds {
    /// For a bundle of this size at most: a sixteenth of it, before compression, a quarter of that for one container.
    pub fn of_bundle(max_bytes: u64) -> Self {
        Self {
            total_bytes: max_bytes / 16,
            container_bytes: max_bytes / 64,
            looked_at_a_second: 2 << 20,
            container_looked_at_a_second: 1 << 20,
        }
    }
}

/// What is handed over.
#[derive(Debug)]
pub enum Rows {
    /// Lines, in the order in which they were read.
    Lines(Vec<LogFact>),
    /// Counts of containers where they have changed.
    Counts(Vec<LogCounts>),
}

/// Where rows go. Called from the follower's thread.
pub type Sink = Box<dyn Fn(Rows) + Send>;

/// The clocks of rows and of lines: event time, and the wall clock, now, ns.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Event time.
    pub event: fn() -> u64,
    /// Wall clock.
    pub wall: fn() -> u64,
}

/// A node's log files.
#[derive(Debug)]
pub struct LogFiles {
    root: HostRoot,
    wanted: Wanted,
}

impl LogFiles {
    /// Finds them, below the host's root. The error is what the manifest says instead: `absent`, or
    /// why they can't be read.
    ///
    /// # Errors
    /// If there is no folder of logs, or it can't be read.
    pub fn find(root: &Path) -> Result<Self, String> {
        let found = HostRoot::open(root).and_then(|root| root.file(Path::new(PODS)).map(|_| root));
        match found {
            Ok(root) => Ok(Self { root, wanted: Wanted::default() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ABSENT.to_string()),
            Err(error) => Err(format!("unreadable: {error}")),
        }
    }

    /// Those of the pods and containers that were named.
    pub(crate) fn only(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }
}

/// A follower at work.
pub struct Follower {
    thread: JoinHandle<()>,
    /// The capture's end on the wall clock, ns; 0 while it goes on.
    end_ns: Arc<AtomicU64>,
    clocks: Clocks,
}

impl Follower {
    /// Follows all log files from now on: lines that were written before are none of the capture's.
    pub fn start(files: LogFiles, lines: Lines, bounds: Bounds, clocks: Clocks, sink: Sink) -> Self {
        let end_ns = Arc::new(AtomicU64::new(0));
        let ended = end_ns.clone();
        allow_open_files();
        let shared = Shared {
            lines,
            bounds,
            looking: Allowance::new(bounds.looked_at_a_second * 4, bounds.looked_at_a_second),
            kept_bytes: 0,
            window: ((clocks.wall)(), u64::MAX),
            now_ns: 0,
            rows: Vec::new(),
            rows_bytes: 0,
        };
        let mut work = Work::new(files, shared, clocks, sink);
        // Before anything else happens: where a file ends now, the capture begins.
        work.scan();
        let thread = thread::spawn(move || work.run(&ended));
        Self { thread, end_ns, clocks }
    }

    /// Ends it: what was written until now is read and handed over.
    pub fn stop(self) {
        self.end_ns.store((self.clocks.wall)().max(1), Ordering::Relaxed);
        self.thread.thread().unpark();
        let _panicked = self.thread.join();
    }
}

/// A shell's limit is 1,024 open files; the hard one of a service is much higher.
fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted) {
        // Where it is refused, files that can't be opened are counted.
        let _stays = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// What the thread has.
struct Work {
    root: HostRoot,
    wanted: Wanted,
    clocks: Clocks,
    sink: Sink,
    shared: Shared,
    containers: BTreeMap<Arc<Container>, Kept>,
    /// By device and inode, in the order in which they were found: a rotated file before the one after it.
    files: Vec<((u64, u64), Followed)>,
    /// Files that could not be opened.
    refused: BTreeSet<(u64, u64)>,
    buffer: Vec<u8>,
    scans: u64,
}

impl Work {
    fn new(files: LogFiles, shared: Shared, clocks: Clocks, sink: Sink) -> Self {
        Self {
            root: files.root,
            wanted: files.wanted,
            clocks,
            sink,
            shared,
            containers: BTreeMap::new(),
            files: Vec::new(),
            refused: BTreeSet::new(),
            buffer: vec![0; BUFFER_BYTES],
            scans: 0,
        }
    }

    fn run(mut self, end_ns: &AtomicU64) {
        let (mut scanned, mut counted, mut read) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            let ended = end_ns.load(Ordering::Relaxed);
            let passed = read.elapsed();
            read = Instant::now();
            self.shared.looking.refill(passed);
            self.containers.values_mut().for_each(|kept| kept.looking.refill(passed));
            self.shared.now_ns = (self.clocks.event)();
            if ended > 0 {
                self.shared.window.1 = ended;
            }
            if ended > 0 || scanned.elapsed() >= SCAN_EVERY {
                scanned = Instant::now();
                self.scan();
            }
            self.read(ended > 0);
            if ended > 0 || counted.elapsed() >= COUNT_EVERY {
                counted = Instant::now();
                self.count();
            }
            if ended > 0 {
                return;
            }
            thread::park_timeout(READ_EVERY.saturating_sub(read.elapsed()));
        }
    }
    /// Looks for files that are new, and leaves those that are gone.
    fn scan(&mut self) {
        // Unreadable for the moment, the folder may be there again next time; files are read meanwhile.
        let Ok(mut listed) = log_files(&self.root) else { return };
        let wanted = |of: &Container| self.wanted.log(&of.namespace, &of.pod, &of.uid, &of.name);
        listed.retain(|file| wanted(&file.container));
        let names: BTreeSet<_> = listed.iter().map(|file| file.id).collect();
        let mut gone = Vec::new();
        for (index, (id, file)) in self.files.iter_mut().enumerate() {
            file.unnamed = if names.contains(id) { 0 } else { file.unnamed + 1 };
            if file.unnamed > UNNAMED_SCANS {
                gone.push(index);
            }
        }
        for index in gone.into_iter().rev() {
            self.read_file(index, READ_BYTES, true);
            let (_, file) = self.files.remove(index);
            let ended = !self.files.iter().any(|(_, other)| other.container == file.container);
            if let Some(kept) = self.containers.get_mut(&file.container).filter(|_| ended) {
                kept.end(&mut self.shared);
            }
        }
        self.refused.retain(|id| names.contains(id));
        let followed: BTreeSet<_> = self.files.iter().map(|(id, _)| *id).collect();
        let new = self.scans > 0;
        self.scans += 1;
        for file in listed {
            if !followed.contains(&file.id) && !self.refused.contains(&file.id) {
                self.follow(&file, new);
            }
        }
    }

    fn follow(&mut self, file: &LogFile, new: bool) {
        let opened = self.root.file(&file.path).and_then(|opened| {
            let metadata = opened.metadata()?;
            // Another one by now: the next scan finds it.
            let same = (metadata.dev(), metadata.ino()) == file.id;
            same.then(|| Followed::new(file.container.clone(), file.restart, opened, new)).transpose()
        });
        let refused = match opened {
            Ok(None) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Ok(Some(_)) if self.files.len() >= MAX_FILES => format!("more than {MAX_FILES} log files at once"),
            Ok(Some(followed)) => {
                if self.counted(&file.container).is_some() {
                    self.files.push((file.id, followed));
                    return;
                }
                format!("more than {MAX_CONTAINERS} containers")
            }
            Err(error) => error.to_string(),
        };
        self.refused.insert(file.id);
        // Those that are beyond the bound on containers have no counts of their own.
        let nameless = Arc::new(Container {
            namespace: String::new(),
            pod: String::new(),
            uid: String::new(),
            name: String::new(),
        });
        let container = if self.counted(&file.container).is_some() { &file.container } else { &nameless };
        if let Some(kept) = self.containers.get_mut(container) {
            kept.counts.refused = refused;
            kept.changed = true;
        }
    }

    /// A container's counts; `None` if there are too many containers.
    fn counted(&mut self, container: &Arc<Container>) -> Option<&mut Kept> {
        let a_second = self.shared.bounds.container_looked_at_a_second;
        if self.containers.len() >= MAX_CONTAINERS
            && !container.name.is_empty()
            && !self.containers.contains_key(container)
        {
            return None;
        }
        let kept = self.containers.entry(container.clone());
        Some(kept.or_insert_with(|| Kept::new(container, Allowance::new(a_second * 4, a_second))))
    }

    /// Reads what was written since.
    fn read(&mut self, last: bool) {
        let mut left = READ_BYTES;
        for index in 0..self.files.len() {
            left = left.saturating_sub(self.read_file(index, SHARE_BYTES, false));
        }
        for index in 0..self.files.len() {
            left = left.saturating_sub(self.read_file(index, left, last));
        }
        if last {
            self.containers.values_mut().for_each(|kept| kept.end(&mut self.shared));
        }
        self.hand_over();
    }

    /// Reads a file, at most `most` bytes of it; says how many there were.
    fn read_file(&mut self, index: usize, most: u64, last: bool) -> u64 {
        let Some((_, file)) = self.files.get_mut(index) else { return 0 };
        let Some(kept) = self.containers.get_mut(&file.container) else { return 0 };
        let (restart, shared, sink) = (file.restart, &mut self.shared, &self.sink);
        let result = file.read(&mut self.buffer, most, last, |raw| {
            kept.take(restart, &raw, shared);
            if shared.rows.len() >= ROWS || shared.rows_bytes >= ROWS_BYTES {
                shared.rows_bytes = 0;
                sink(Rows::Lines(std::mem::take(&mut shared.rows)));
            }
        });
        match result {
            Ok(progress) => {
                kept.counts.bytes_unread += progress.unread;
                kept.counts.bytes += progress.long;
                kept.counts.truncations += u64::from(progress.truncated);
                kept.changed |= progress.unread > 0 || progress.truncated;
                progress.read
            }
            Err(error) => {
                kept.counts.refused = error.to_string();
                kept.changed = true;
                0
            }
        }
    }

    fn hand_over(&mut self) {
        if !self.shared.rows.is_empty() {
            self.shared.rows_bytes = 0;
            (self.sink)(Rows::Lines(std::mem::take(&mut self.shared.rows)));
        }
    }

    /// Hands over the counts that have changed.
    fn count(&mut self) {
        let now_ns = self.shared.now_ns;
        let each = self.containers.values_mut().filter_map(|kept| {
            std::mem::take(&mut kept.changed).then(|| LogCounts { time_ns: now_ns, ..kept.counts.clone() })
        });
        let counts: Vec<_> = each.collect();
        if !counts.is_empty() {
            (self.sink)(Rows::Counts(counts));
        }
    }
}
