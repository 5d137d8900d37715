//! The host's files, also from inside of a container.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// Where the first process of the PID namespace has its root: with the host's PIDs (`hostPID`) that is the host's, elsewhere
/// our own.
const FIRST_PROCESS: &str = "/proc/1/root";

/// A folder under which the host's files are.
#[derive(Debug)]
pub struct HostRoot {
    folder: OwnedFd,
}

impl HostRoot {
    /// The folder that was given, else the root of the first process, else our own.
    ///
    /// # Errors
    /// If the folder that was given can't be opened.
    pub fn open(given: Option<&Path>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match given {
            Some(folder) => open(folder, flags, Mode::empty())?,
            None => open(FIRST_PROCESS, flags, Mode::empty()).or_else(|_| open("/", flags, Mode::empty()))?,
        };
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
