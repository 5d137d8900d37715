//! From what the user names to what the probes compare: process ids, cgroup ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::options::Options;

/// Where cgroup v2 is mounted: alone, or beside v1 (hybrid).
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Deepest cgroup nesting that is followed.
const MAX_DEPTH: usize = 16;

/// What was asked to be recorded isn't there.
#[derive(Debug)]
pub struct NoSuchTarget(String);

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

fn cgroups(options: &Options) -> Result<Vec<Cgroup>> {
    options.cgroups.iter().map(|name| find_cgroup(name)).collect()
}

/// True if probes have to compare cgroup ids.
pub fn filters_by_cgroup_id(options: &Options) -> bool {
    !filters_by_process(options)
        && cgroups(options)
            .is_ok_and(|all| !all.is_empty() && all.iter().all(|cgroup| matches!(cgroup, Cgroup::ById(_))))
}

/// True if probes have to compare process ids.
pub fn filters_by_process(options: &Options) -> bool {
    !options.processes.is_empty()
        || cgroups(options).is_ok_and(|all| all.iter().any(|cgroup| matches!(cgroup, Cgroup::ByProcesses(_))))
}

/// Ids of the cgroups asked for and of all below them.
///
/// # Errors
/// If a cgroup does not exist.
pub fn cgroup_ids(options: &Options) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    for cgroup in cgroups(options)? {
        if let Cgroup::ById(path) = cgroup {
            each_below(&path, &mut |directory| {
                // A cgroup's id is its directory's inode number (kernfs).
                if let Ok(metadata) = fs::metadata(directory) {
                    ids.push(metadata.ino());
                }
            });
        }
    }
    Ok(ids)
}

/// The processes asked for, those in v1 cgroups asked for, and all their descendants.
///
/// # Errors
/// If a process or a cgroup does not exist.
pub fn process_tree(options: &Options) -> Result<BTreeSet<u32>> {
    let mut wanted = BTreeSet::new();
    for process in &options.processes {
        if !Path::new(&format!("/proc/{process}")).exists() {
            return Err(NoSuchTarget(format!("no process {process} on this machine")).into());
        }
        wanted.insert(*process);
    }
    for cgroup in cgroups(options)? {
        match cgroup {
            Cgroup::ByProcesses(path) => each_below(&path, &mut |directory| {
                let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
                wanted.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
            }),
            // Mixed with a filter by process, v2 cgroups are followed by process too.
            Cgroup::ById(path) if filters_by_process(options) => each_below(&path, &mut |directory| {
                let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
                wanted.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
            }),
            Cgroup::ById(_) => {}
        }
    }
    if wanted.is_empty() {
        return Ok(wanted);
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
    Ok(wanted)
}

/// Calls `each` for a directory and those below it.
fn each_below(root: &Path, each: &mut dyn FnMut(&Path)) {
    let mut queue = vec![(root.to_path_buf(), 0)];
    while let Some((directory, depth)) = queue.pop() {
        each(&directory);
        if depth == MAX_DEPTH {
            continue;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                queue.push((entry.path(), depth + 1));
            }
        }
    }
}
