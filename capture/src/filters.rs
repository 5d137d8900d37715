//! From what the user names to what the probes compare: process ids, cgroup ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::cgroup::tree::each_below;
use crate::options::Options;
use crate::selection::Selection;

/// Where cgroup v2 is mounted: alone, or beside v1 (hybrid).
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// How often new cgroups of pods that were asked for are looked for, if that takes at most this share of a core ...
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
const FOLLOW_SHARE: u32 = 20;
/// ... and how often at least.
const FOLLOW_AT_LEAST: Duration = Duration::from_secs(1);
/// How often a known one is looked into: cgroups below it are compared by its id, but for the walk at the end.
const LOOK_INTO_EVERY: Duration = Duration::from_secs(1);

/// What was asked to be recorded isn't there.
#[derive(Debug)]
pub struct NoSuchTarget(pub(crate) String);

impl std::fmt::Display for NoSuchTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoSuchTarget {}

enum Cgroup {
    /// cgroup v2: tasks carry its id.
    ById(PathBuf),
    /// cgroup v1, where the id that probes see is another tree's: by the processes in it.
    ByProcesses(PathBuf),
}

fn find_cgroup(name: &str) -> Result<Cgroup> {
    let relative = name.trim_start_matches("/sys/fs/cgroup").trim_start_matches('/');
    for root in UNIFIED {
        let path = Path::new(root).join(relative);
        // Only v2 directories have this file.
        if path.join("cgroup.controllers").exists() {
            return Ok(Cgroup::ById(path));
        }
    }
    let direct = Path::new("/sys/fs/cgroup").join(relative);
    if direct.join("cgroup.procs").exists() {
        return Ok(Cgroup::ByProcesses(direct));
    }
    for controller in ["cpu", "memory", "pids", "systemd"] {
        let path = Path::new("/sys/fs/cgroup").join(controller).join(relative);
        if path.join("cgroup.procs").exists() {
            return Ok(Cgroup::ByProcesses(path));
        }
    }
    Err(NoSuchTarget(format!("no cgroup {name} below /sys/fs/cgroup")).into())
}

/// What probes compare tasks with.
#[derive(Debug, Default)]
pub struct Filters {
    /// Tasks are compared by process.
    pub by_process: bool,
    /// Tasks are compared by cgroup; never both.
    pub by_cgroup: bool,
    /// Processes asked for, those in cgroups asked for, and all their descendants.
    pub processes: BTreeSet<u32>,
    /// Ids of the cgroups asked for and of all below them.
    pub cgroups: BTreeSet<u64>,
    /// Pods and containers, of which more may appear.
    pub selection: Option<Selection>,
}

impl Filters {
    /// Finds what is asked for.
    ///
    /// # Errors
    /// [`NoSuchTarget`], if a process, a cgroup, or every pod or container that was named isn't there.
    pub fn find(options: &Options) -> Result<Self> {
        let mut selection = Selection::find(options)?;
        let mut cgroups = options.cgroups.iter().map(|name| find_cgroup(name)).collect::<Result<Vec<_>>>()?;
        if let Some(selection) = &mut selection {
            let kind = if selection.is_unified() { Cgroup::ById } else { Cgroup::ByProcesses };
            cgroups.extend(selection.cgroups().into_iter().map(kind));
        }
        // Mixed with a filter by process, v2 cgroups are followed by process too.
        let by_process = !options.processes.is_empty()
            || cgroups.iter().any(|cgroup| matches!(cgroup, Cgroup::ByProcesses(_)))
            || selection.as_ref().is_some_and(|selection| !selection.is_unified());
        // Also where nothing of what was named is there yet: else everything would be recorded.
        let by_cgroup = !by_process && (!cgroups.is_empty() || selection.is_some());
        let mut filters = Self { by_process, by_cgroup, selection, ..Self::default() };
        for process in &options.processes {
            if !Path::new(&format!("/proc/{process}")).exists() {
                return Err(NoSuchTarget(format!("no process {process} on this machine")).into());
            }
            filters.processes.insert(*process);
        }
        for Cgroup::ById(path) | Cgroup::ByProcesses(path) in &cgroups {
            if by_process {
                filters.processes.extend(processes_in(path));
            } else {
                filters.cgroups.extend(ids_of(path));
            }
        }
        add_descendants(&mut filters.processes);
        Ok(filters)
    }
}

/// Ids of a cgroup and of all below it: their directories' inode numbers (kernfs).
fn ids_of(path: &Path) -> Vec<u64> {
    let mut ids: Vec<u64> = fs::metadata(path).map(|metadata| metadata.ino()).into_iter().collect();
    each_below(path, &mut |_, id| {
        ids.push(id);
        true
    });
    ids
}

/// The processes in a cgroup and in all below it.
fn processes_in(path: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut read = |directory: &Path| {
        let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    };
    read(path);
    each_below(path, &mut |directory, _| {
        read(directory);
        true
    });
    found
}

fn add_descendants(wanted: &mut BTreeSet<u32>) {
    if wanted.is_empty() {
        return;
    }
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        if let Ok(stat) = process.stat()
            && let (Ok(parent), Ok(pid)) = (u32::try_from(stat.ppid), u32::try_from(stat.pid))
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut queue: Vec<u32> = wanted.iter().copied().collect();
    while let Some(process) = queue.pop() {
        for child in children.get(&process).into_iter().flatten() {
            if wanted.insert(*child) {
                queue.push(*child);
            }
        }
    }
}

/// Adds what appears of the pods and containers that were asked for to what the probes compare.
pub struct Follower {
    selection: Selection,
    by_process: bool,
    /// The probes' set of processes, or of cgroup ids.
    map: MapHandle,
    /// What was found last.
    processes: BTreeSet<u32>,
    cgroups: BTreeSet<u64>,
    paths: BTreeSet<PathBuf>,
    looked_into: Instant,
}

impl Follower {
    /// Follows a selection; `map` is the set by which the probes compare.
    pub fn new(selection: Selection, by_process: bool, map: MapHandle) -> Self {
        let (processes, cgroups, paths) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { selection, by_process, map, processes, cgroups, paths, looked_into: Instant::now() }
    }

    /// Looks again and again, until told to stop.
    pub fn run(&mut self, stop: &AtomicBool) {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() >= next {
                let began = Instant::now();
                self.follow();
                next = began + (began.elapsed() * FOLLOW_SHARE).clamp(FOLLOW_EVERY, FOLLOW_AT_LEAST);
            }
            thread::sleep(FOLLOW_EVERY / 4);
        }
    }

    fn follow(&mut self) {
        let paths: BTreeSet<PathBuf> = self.selection.cgroups().into_iter().collect();
        if self.by_process {
            let now: BTreeSet<u32> = paths.iter().flat_map(|path| processes_in(path)).collect();
            // The probes take out what ends and put in what is forked.
            now.difference(&self.processes).for_each(|process| self.put(&process.to_ne_bytes()));
            self.processes = now;
            return;
        }
        if self.looked_into.elapsed() >= LOOK_INTO_EVERY {
            self.looked_into = Instant::now();
            self.paths.clear();
        }
        let found: BTreeSet<u64> = paths.difference(&self.paths).flat_map(|path| ids_of(path)).collect();
        found.difference(&self.cgroups).for_each(|id| self.put(&id.to_ne_bytes()));
        self.cgroups.extend(found);
        self.paths = paths;
    }

    fn put(&self, key: &[u8]) {
        // Refused when the set is full: then nothing more can be followed.
        let _best_effort = self.map.update(key, &[1], MapFlags::ANY);
    }
}
