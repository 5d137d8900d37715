//! One log file, read as it grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use super::tree::Container;

/// Bytes read at once, and the longest record that is seen whole: runtimes split lines at 16 KiB, and Docker escapes a byte
/// into up to six.
pub const BUFFER_BYTES: usize = 256 << 10;
/// What may wait in one file; more is passed over.
const MAX_BEHIND_BYTES: u64 = 8 << 20;
/// How far back from its end a file is read that was there before the capture: what was written while it began.
const BACK_BYTES: u64 = 16 << 10;

/// A file that is followed.
#[derive(Debug)]
pub struct Followed {
    /// Whose.
    pub container: Arc<Container>,
    /// How often the container had been restarted.
    pub restart: u32,
    /// Scans in which it had no name any more.
    pub unnamed: u8,
    file: File,
    offset: u64,
    /// Size when it was read last.
    size: u64,
    /// Up to here it was written before it was seen first.
    old_until: u64,
    /// Inside of a record whose rest is passed over.
    inside: Option<Rest>,
}

/// Why the rest of a record is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It began before the capture.
    Old,
    /// It began in what was passed over.
    Unread,
    /// It is too long.
    Long,
}

/// A record, without its line end.
#[derive(Debug)]
pub struct Raw<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// It has more, or its end was not seen.
    pub cut: bool,
    /// It was written before the file was seen first.
    pub old: bool,
}

impl Raw<'_> {
    /// Bytes that it has in the file, its line end included.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64 + u64::from(!self.cut)
    }
}

/// What reading a file came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub read: u64,
    /// Bytes passed over.
    pub unread: u64,
    /// Bytes of records beyond what is looked at of one.
    pub long: u64,
    /// It had become shorter.
    pub truncated: bool,
}

impl Followed {
    /// Follows a file, from its beginning if it is new, else from near its end.
    ///
    /// # Errors
    /// If its size can't be told.
    pub fn new(container: Arc<Container>, restart: u32, file: File, new: bool) -> io::Result<Self> {
        let old_until = if new { 0 } else { file.metadata()?.size() };
        let offset = old_until.saturating_sub(BACK_BYTES);
        Ok(Self {
            container,
            restart,
            unnamed: 0,
            file,
            offset,
            size: offset,
            old_until,
            inside: (offset > 0).then_some(Rest::Old),
        })
    }

    /// Reads what was written since, at most `most` bytes of it. `last`: nothing will come, so what has no line end is a
    /// record, too, and what isn't read counts as passed over.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        most: u64,
        last: bool,
        mut each: impl FnMut(Raw<'_>),
    ) -> io::Result<Progress> {
        let size = self.file.metadata()?.size();
        let mut progress = Progress::default();
        if size < self.offset {
            (self.offset, self.old_until, self.inside) = (0, 0, None);
            progress.truncated = true;
        } else if size == self.size && !last {
            return Ok(progress);
        }
        self.size = size;
        if size - self.offset > MAX_BEHIND_BYTES {
            let from = size - MAX_BEHIND_BYTES / 2;
            progress.unread = from - self.offset;
            (self.offset, self.inside) = (from, Some(Rest::Unread));
        }
        while self.offset < size {
            if progress.read >= most {
                // To be gone on with next time.
                self.size = self.offset;
                break;
            }
            let length = self.file.read_at(buffer, self.offset)?;
            let read = buffer.get(..length).unwrap_or_default();
            let used = self.records(read, length == buffer.len(), &mut progress, &mut each);
            self.offset += used as u64;
            progress.read += used as u64;
            if used == 0 {
                break;
            }
        }
        if last && self.offset < size {
            let length = self.file.read_at(buffer, self.offset)?;
            let rest = buffer.get(..length).unwrap_or_default();
            if !rest.contains(&b'\n') && self.inside.is_none() {
                each(Raw { bytes: rest, cut: true, old: self.offset < self.old_until });
                progress.read += length as u64;
                self.offset += length as u64;
            }
            progress.unread += size.saturating_sub(self.offset);
            self.offset = size;
        }
        Ok(progress)
    }

    /// Hands over the records that end in `read`; says how much of it is done with.
    fn records(&mut self, read: &[u8], full: bool, progress: &mut Progress, each: &mut impl FnMut(Raw<'_>)) -> usize {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', read) {
            let bytes = read.get(from..end).unwrap_or_default();
            match self.inside.take() {
                Some(rest) => pass_over(rest, bytes.len() + 1, progress),
                None => each(Raw { bytes, cut: false, old: self.offset + (from as u64) < self.old_until }),
            }
            from = end + 1;
        }
        if from > 0 || !full {
            return from;
        }
        match self.inside {
            Some(rest) => pass_over(rest, read.len(), progress),
            None => {
                each(Raw { bytes: read, cut: true, old: self.offset < self.old_until });
                self.inside = Some(Rest::Long);
            }
        }
        read.len()
    }
}

fn pass_over(rest: Rest, bytes: usize, progress: &mut Progress) {
    match rest {
        Rest::Old => {}
        Rest::Unread => progress.unread += bytes as u64,
        Rest::Long => progress.long += bytes as u64,
    }
}
