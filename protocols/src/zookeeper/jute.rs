//! Jute, ZooKeeper's encoding: numbers big-endian, strings and buffers behind a 32-bit length.

use crate::cursor::be32;

/// Reads from front to back; `None` where bytes are missing or make no sense.
pub(super) struct Jute<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Jute<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub fn int(&mut self) -> Option<i32> {
        let value = be32(self.bytes, self.at)?;
        self.at += 4;
        Some(value)
    }

    pub fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    pub fn boolean(&mut self) -> Option<bool> {
        let value = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(value != 0)
    }

    /// A string or buffer; null is empty.
    pub fn buffer(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.int()?.max(0)).ok()?;
        let start = self.at;
        self.skip(length)?;
        self.bytes.get(start..self.at)
    }

    /// An access list.
    pub fn acl(&mut self) -> Option<()> {
        for _ in 0..self.int()?.max(0) {
            self.skip(4)?;
            self.buffer()?;
            self.buffer()?;
        }
        Some(())
    }

    /// A list of strings.
    pub fn strings(&mut self) -> Option<()> {
        for _ in 0..self.int()?.max(0) {
            self.buffer()?;
        }
        Some(())
    }
}
