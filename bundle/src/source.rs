//! Where a reader's bytes come from.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// A file read at positions, by any number of threads at once, or bytes in memory.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File { file: Arc<File>, bytes: u64 },
    Memory(Arc<[u8]>),
}

impl Source {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File { bytes, .. } => *bytes,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Reads up to `length` bytes at `offset` into `buffer`, which holds just those afterwards; fewer only at the end.
    /// The caller bounds `length`.
    pub(crate) fn read(&self, offset: u64, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        let left = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                buffer.clear();
                buffer.extend_from_slice(bytes.get(start..start.saturating_add(length)).unwrap_or_default());
            }
            Self::File { file, .. } => {
                buffer.resize(length, 0);
                let mut done = 0;
                while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
                    match read_at(file, rest, offset.saturating_add(done as u64)) {
                        Ok(0) => break,
                        Ok(count) => done += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                buffer.truncate(done);
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}
