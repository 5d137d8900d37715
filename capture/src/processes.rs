//! Processes as `/proc` shows them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use kfr_bundle::facts::ProcessFact;
use procfs::ProcResult;
use procfs::process::Process;

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

/// Pids of all processes.
pub fn pids() -> Vec<u32> {
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    all.filter_map(|process| u32::try_from(process.pid).ok()).collect()
}

/// One process, if it still lives.
pub fn one(pid: u32) -> Option<ProcessFact> {
    read(&Process::new(i32::try_from(pid).ok()?).ok()?).ok()
}

fn read(process: &Process) -> ProcResult<ProcessFact> {
    let stat = process.stat()?;
    let status = process.status()?;
    let ticks = procfs::ticks_per_second().max(1);
    let (cgroup, container, unit) = cgroup(process.pid);
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
        cgroup,
        container,
        unit,
        netns_inode: fs::metadata(format!("/proc/{}/ns/net", process.pid)).map(|net| net.ino()).unwrap_or_default(),
    })
}

/// cgroup path, container id and systemd unit, from `/proc/PID/cgroup` (lines `ID:CONTROLLERS:PATH`; v2 has id 0 and
/// no controllers).
fn cgroup(pid: i32) -> (String, String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    choose_cgroup(&text)
}

fn choose_cgroup(text: &str) -> (String, String, String) {
    let paths: Vec<&str> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    // On a hybrid host the v2 path is often the root's, while a v1 controller names the container.
    let container = paths.iter().find_map(|path| container_id(path)).unwrap_or_default();
    let unit = paths.iter().find_map(|path| unit(path)).unwrap_or_default();
    let v2 = text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/");
    let path = v2.or_else(|| paths.iter().copied().max_by_key(|path| path.len())).unwrap_or_default();
    (path.to_string(), container.to_string(), unit.to_string())
}

/// 64 hex digits in a path component, alone or between a runtime's prefix and a unit's suffix
/// (`docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `/kubepods/.../ID`).
fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|component| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        let name = name.rsplit(['-', ':']).next()?;
        (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
    })
}

/// The innermost systemd unit that is a service.
fn unit(path: &str) -> Option<&str> {
    path.rsplit('/').find(|component| component.ends_with(".service") && !component.starts_with("user@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn containers_are_found_in_the_paths_of_each_runtime() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods/burstable/pod1234/{ID}"),
            format!("/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope"),
            format!("/kubepods/besteffort/pod1/kubepods-pod1.slice:cri-containerd:{ID}"),
        ] {
            assert_eq!(container_id(&path), Some(ID), "{path}");
        }
        assert_eq!(container_id("/system.slice/nginx.service"), None);
        assert_eq!(container_id("/user.slice/user-1000.slice/session-2.scope"), None);
    }

    #[test]
    fn a_hybrid_host_names_the_container_in_a_v1_line() {
        let text = format!("4:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        assert_eq!(choose_cgroup(&text), (format!("/docker/{ID}"), ID.to_string(), String::new()));
        let text = "1:name=systemd:/system.slice/redis-server.service\n0::/system.slice/redis-server.service\n";
        assert_eq!(choose_cgroup(text).2, "redis-server.service");
    }

    #[test]
    fn this_process_is_found_with_its_command_line() {
        let own = one(std::process::id()).expect("this process lives");
        assert_eq!(own.process, std::process::id());
        assert!(!own.arguments.is_empty() && own.start_ns > 0 && own.netns_inode > 0, "{own:?}");
        assert!(snapshot().iter().any(|fact| fact.process == own.process));
    }
}
