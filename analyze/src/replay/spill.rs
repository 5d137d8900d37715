//! Lines in a total order, however many there are: what does not fit into memory goes to sorted files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Memory of one line beside its bytes.
const LINE_OVERHEAD_BYTES: usize = 48;
/// Files that are merged at once at most; with more, they are merged into one first.
const MAX_RUNS: usize = 64;

/// What lines are ordered by; unique among all lines.
pub type Key = (u64, u64);

/// A line with its key.
pub type KeyedLine = (Key, Box<[u8]>);

/// Sorts lines by key, with bounded memory.
pub struct SortedLines {
    lines: Vec<KeyedLine>,
    bytes: usize,
    /// Of all lines ever pushed.
    pushed_bytes: u64,
    budget: usize,
    folder: PathBuf,
    runs: Vec<File>,
}

impl SortedLines {
    /// At most about `budget` bytes are held in memory; the rest goes to unnamed files in `folder`.
    pub fn new(budget: usize, folder: &Path) -> Self {
        Self { lines: Vec::new(), bytes: 0, pushed_bytes: 0, budget, folder: folder.to_path_buf(), runs: Vec::new() }
    }

    /// Adds a line (without its line end).
    ///
    /// # Errors
    /// If a temporary file can't be written.
    pub fn push(&mut self, key: Key, line: Box<[u8]>) -> io::Result<()> {
        self.bytes += line.len() + LINE_OVERHEAD_BYTES;
        self.pushed_bytes += (line.len() + LINE_OVERHEAD_BYTES) as u64;
        self.lines.push((key, line));
        if self.bytes > self.budget { self.spill() } else { Ok(()) }
    }

    /// Memory that all lines pushed so far took, spilled or not.
    pub fn pushed_bytes(&self) -> u64 {
        self.pushed_bytes
    }

    fn spill(&mut self) -> io::Result<()> {
        self.spill_run().map_err(|error| {
            let folder = self.folder.display();
            io::Error::new(error.kind(), format!("no temporary file in {folder} (--tmp names another folder): {error}"))
        })
    }

    fn spill_run(&mut self) -> io::Result<()> {
        self.lines.sort_unstable_by_key(|(key, _)| *key);
        let mut out = BufWriter::new(tempfile::tempfile_in(&self.folder)?);
        for (key, line) in self.lines.drain(..) {
            write_record(&mut out, key, &line)?;
        }
        self.bytes = 0;
        self.runs.push(rewound(out)?);
        if self.runs.len() >= MAX_RUNS {
            let mut out = BufWriter::new(tempfile::tempfile_in(&self.folder)?);
            merge(std::mem::take(&mut self.runs), &mut |key, line| write_record(&mut out, key, line))?;
            self.runs.push(rewound(out)?);
        }
        Ok(())
    }

    /// Writes all lines in order, each with a line end.
    ///
    /// # Errors
    /// If `out` or a temporary file fails.
    pub fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.lines.sort_unstable_by_key(|(key, _)| *key);
        if self.runs.is_empty() {
            for (_, line) in &self.lines {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            }
            return Ok(());
        }
        if !self.lines.is_empty() {
            self.spill()?;
        }
        merge(self.runs, &mut |_, line| {
            out.write_all(line)?;
            out.write_all(b"\n")
        })
    }
}

fn rewound(out: BufWriter<File>) -> io::Result<File> {
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn write_record(out: &mut impl Write, key: Key, line: &[u8]) -> io::Result<()> {
    out.write_all(&key.0.to_le_bytes())?;
    out.write_all(&key.1.to_le_bytes())?;
    out.write_all(&u32::try_from(line.len()).map_err(io::Error::other)?.to_le_bytes())?;
    out.write_all(line)
}

/// The next record of a run; `None` at its end.
fn read_record(run: &mut BufReader<File>) -> io::Result<Option<(Key, Vec<u8>)>> {
    let mut head = [0; 20];
    match run.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [a, b, length] = [0, 8, 16].map(|at| {
        let mut bytes = [0; 8];
        let end = (at + 8).min(head.len());
        bytes[..end - at].copy_from_slice(&head[at..end]);
        u64::from_le_bytes(bytes)
    });
    let mut line = vec![0; length as usize];
    run.read_exact(&mut line)?;
    Ok(Some(((a, b), line)))
}

fn merge(runs: Vec<File>, each: &mut dyn FnMut(Key, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut runs: Vec<BufReader<File>> = runs.into_iter().map(|run| BufReader::with_capacity(256 << 10, run)).collect();
    let mut heads = BinaryHeap::new();
    for (index, run) in runs.iter_mut().enumerate() {
        if let Some((key, line)) = read_record(run)? {
            heads.push(Reverse((key, index, line)));
        }
    }
    while let Some(Reverse((key, index, line))) = heads.pop() {
        each(key, &line)?;
        if let Some(run) = runs.get_mut(index)
            && let Some((key, line)) = read_record(run)?
        {
            heads.push(Reverse((key, index, line)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(budget: usize, keys: &[u64]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = SortedLines::new(budget, folder.path());
        for (number, key) in keys.iter().enumerate() {
            lines.push((*key, number as u64), format!("{key} {number}").into_bytes().into()).unwrap();
        }
        let mut out = Vec::new();
        lines.write(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn memory_changes_nothing(keys in proptest::collection::vec(0u64..1000, 0..400), budget in 1usize..4000) {
            prop_assert_eq!(sorted(budget, &keys), sorted(usize::MAX, &keys));
        }
    }

    #[test]
    fn lines_come_out_by_key() {
        assert_eq!(sorted(1, &[3, 1, 2]), b"1 1\n2 2\n3 0\n");
    }
}
