//! Processes as `/proc` shows them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use kfr_bundle::facts::ProcessFact;
use procfs::ProcResult;
use procfs::process::Process;

use crate::cgroup::Cgroups;
use crate::clock;

/// Longest command line kept, bytes.
const MAX_ARGUMENTS_BYTES: usize = 4096;

/// Every process of the machine, by pid.
pub fn snapshot() -> Vec<ProcessFact> {
    let mut all: Vec<ProcessFact> = match procfs::process::all_processes() {
        // A process that ends while it is read is left out.
        Ok(processes) => processes.flatten().filter_map(|process| read(&process).ok()).collect(),
        Err(_) => Vec::new(),
    };
    all.sort_by_key(|fact| fact.process);
    all
}

/// One process, if it still lives.
pub fn one(pid: u32) -> Option<ProcessFact> {
    read(&Process::new(i32::try_from(pid).ok()?).ok()?).ok()
}

fn read(process: &Process) -> ProcResult<ProcessFact> {
    let stat = process.stat()?;
    let status = process.status()?;
    let ticks = procfs::ticks_per_second().max(1);
    let cgroups = Cgroups::read(&fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default());
    let mut arguments = process.cmdline().unwrap_or_default();
    let mut room = MAX_ARGUMENTS_BYTES;
    arguments.retain(|argument| {
        let fits = argument.len() <= room;
        room = room.saturating_sub(argument.len());
        fits
    });
    Ok(ProcessFact {
        time_ns: clock::boottime_ns(),
        process: u32::try_from(process.pid).unwrap_or_default(),
        parent: u32::try_from(stat.ppid).unwrap_or_default(),
        namespace_process: status
            .nspid
            .and_then(|pids| pids.last().copied())
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_default(),
        start_ns: stat.starttime * (1_000_000_000 / ticks),
        user: status.ruid,
        comm: stat.comm,
        executable: process.exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        arguments,
        cgroup: cgroups.path,
        container: cgroups.member.container,
        pod: cgroups.member.pod,
        unit: cgroups.unit,
        netns_inode: fs::metadata(format!("/proc/{}/ns/net", process.pid)).map(|net| net.ino()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_command_line() {
        let own = one(std::process::id()).expect("this process lives");
        assert_eq!(own.process, std::process::id());
        assert!(!own.arguments.is_empty() && own.start_ns > 0 && own.netns_inode > 0, "{own:?}");
        assert!(snapshot().iter().any(|fact| fact.process == own.process));
    }
}
