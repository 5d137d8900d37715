//! The node's cgroups: which pods and containers there are, and which one has an id.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use super::Member;

/// Where cgroups are mounted.
const MOUNT: &str = "sys/fs/cgroup";
/// v1 hierarchies that the kubelet and runtimes make cgroups in.
const V1: [&str; 4] = ["pids", "cpu", "memory", "systemd"];
/// Deepest cgroup nesting that is followed, and most cgroups that are looked at.
const MAX_DEPTH: usize = 16;
const MAX_DIRECTORIES: usize = 1 << 16;

/// The root of cgroup v2, alone or beside v1 (hybrid), below a host's root directory or else this process's own.
fn unified(host: &Path) -> Option<PathBuf> {
    let mounts = [host.join(MOUNT), Path::new("/").join(MOUNT)];
    let candidates = mounts.into_iter().flat_map(|mount| [mount.clone(), mount.join("unified")]);
    // Only v2 directories have this file.
    candidates.into_iter().find(|path| path.join("cgroup.controllers").exists())
}

/// Calls `each` for a directory and those below it, as far as it says true.
pub fn each_below(root: &Path, each: &mut dyn FnMut(&Path, u64) -> bool) {
    let mut queue = vec![(root.to_path_buf(), 0)];
    let mut seen = 0;
    while let Some((directory, depth)) = queue.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            seen += 1;
            // A cgroup's id is its directory's inode number (kernfs).
            if each(&entry.path(), entry.ino()) && depth < MAX_DEPTH && seen < MAX_DIRECTORIES {
                queue.push((entry.path(), depth + 1));
            }
        }
    }
}

/// The containers of a pod, by its cgroup.
pub fn containers_in(pod: &Path) -> Vec<Member> {
    let mut found = Vec::new();
    each_below(pod, &mut |path, _| {
        found.push(Member::of_path(&path.to_string_lossy()));
        false
    });
    found
}

/// A cgroup of a pod or container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub member: Member,
}

/// The hierarchy that pods and containers are in.
#[derive(Debug)]
pub struct Tree {
    /// Whether it is v2: then tasks carry the cgroups' ids.
    pub is_unified: bool,
    /// Where pods and containers were: below these others appear.
    bases: Vec<PathBuf>,
}

impl Tree {
    /// Looks for pods and containers in the v2 hierarchy, then in those of v1; the first that has any is it. `None` if none
    /// has.
    pub fn find(host: &Path) -> Option<Self> {
        let v1 = [host.join(MOUNT), Path::new("/").join(MOUNT)];
        let v1 = v1.iter().flat_map(|mount| V1.map(|controller| mount.join(controller)));
        let roots = unified(host).map(|root| (root, true)).into_iter().chain(v1.map(|root| (root, false)));
        roots.into_iter().find_map(|(root, is_unified)| {
            let mut bases = Vec::new();
            each_below(&root, &mut |path, _| {
                let relative = path.strip_prefix(&root).unwrap_or(path);
                let member = Member::of_path(&relative.to_string_lossy());
                if !member.is_none()
                    && let Some(base) = base_of(path)
                    && !bases.contains(&base)
                {
                    bases.push(base);
                }
                // A node can be a container (kind); a pod's container is none.
                member.pod.is_empty()
            });
            (!bases.is_empty()).then_some(Self { is_unified, bases })
        })
    }

    /// The cgroups of the pods that there are now, or of the containers, whether in pods or not.
    pub fn members(&self, containers: bool) -> Vec<Directory> {
        let mut found = Vec::new();
        for base in &self.bases {
            each_below(base, &mut |path, _| {
                let member = Member::of_path(&path.to_string_lossy());
                let (is_pod, is_container) = (!member.pod.is_empty(), !member.container.is_empty());
                // A node that is a container has its pods below it.
                let of_pods = path.file_name().is_some_and(|name| holds_pods(&name.to_string_lossy()));
                if !of_pods && (if containers { is_container } else { is_pod && !is_container }) {
                    found.push(Directory { path: path.to_path_buf(), member });
                }
                of_pods || containers && is_pod && !is_container
            });
        }
        found.sort();
        found.dedup();
        found
    }
}

/// The directory below which pods appear: the topmost of Kubernetes', else the one that a container is in.
fn base_of(path: &Path) -> Option<PathBuf> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let of_pods =
        above.iter().rev().find(|path| path.file_name().is_some_and(|name| is_kubepods(&name.to_string_lossy())));
    of_pods.or(above.first()).map(|path| path.to_path_buf())
}

fn is_kubepods(name: &str) -> bool {
    name.contains("kubepods") && Member::of_path(name).is_none()
}

/// Whether pods are in a cgroup of this name: one of Kubernetes' for a class of service.
fn holds_pods(name: &str) -> bool {
    is_kubepods(name) || matches!(name, "burstable" | "besteffort")
}

/// Paths of cgroups (v2) by id, as long as they exist.
#[derive(Debug)]
pub struct Ids {
    mount: File,
}

/// `FILEID_KERNFS` (include/linux/exportfs.h): the handle is the id.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// `struct file_handle` with room for an id.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: u64,
}

impl Ids {
    /// Of a host; `None` where no cgroup v2 is mounted.
    pub fn open(host: &Path) -> Option<Self> {
        Some(Self { mount: File::open(unified(host)?).ok()? })
    }

    /// Whose the cgroup with this id is; `None` if it is gone, or this process may not ask (CAP_DAC_READ_SEARCH).
    pub fn member(&self, id: u64) -> Option<Member> {
        let mut handle = Handle { bytes: size_of::<u64>() as libc::c_uint, kind: FILEID_KERNFS, id };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the handle is as long as it says, and the call only reads it; it lives until the call returns.
        let opened = unsafe { libc::open_by_handle_at(self.mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
        if opened < 0 {
            return None;
        }
        // SAFETY: just opened, and nobody else knows of it.
        let opened = unsafe { OwnedFd::from_raw_fd(opened) };
        let path = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()?;
        Some(Member::of_path(&path.to_string_lossy()))
    }
}
