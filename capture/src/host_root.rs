//! The host's files, also from inside of a container.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// Where the files of the node are: `/`, or, seen from a container that has the host's processes, what process 1 has for a
/// root.
pub fn host_root() -> PathBuf {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    match (namespace("1"), namespace("self")) {
        (Some(of_host), Some(own)) if of_host != own => "/proc/1/root".into(),
        _ => "/".into(),
    }
}

/// A folder under which the host's files are.
#[derive(Debug)]
pub struct HostRoot {
    folder: OwnedFd,
}

impl HostRoot {
    /// The folder: [`host_root`], or another one that was given.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder })
    }

    /// Opens one of the host's files or folders for reading. Links lead where they would on the host, never out of its root
    /// (openat2(2), `RESOLVE_IN_ROOT`).
    ///
    /// # Errors
    /// Those of openat2.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        self.opened(path, OFlags::RDONLY | OFlags::NONBLOCK)
    }

    /// Opens one of the host's files to ask about it, not to read it.
    ///
    /// # Errors
    /// Those of openat2.
    pub fn handle(&self, path: &Path) -> io::Result<File> {
        self.opened(path, OFlags::PATH)
    }

    fn opened(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let file = openat2(&self.folder, relative, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)?;
        Ok(file.into())
    }
}
