//! Writing a bundle: block after block into `NAME.kfr.partial`, which becomes `NAME.kfr` once it is whole.

use crate::MAX_RAW_BYTES;
use crate::block::{BLOCK_HEADER_BYTES, Block, BlockAddress, BlockEntry};
use crate::error::WriteError;
use crate::header::{FIRST_BLOCK_OFFSET, FileHeader};
use crate::index::{IndexRow, MAX_INDEX_ROWS, TAIL_BYTES, encode_trailer};
use crate::kinds::BlockKind;
use crate::rows::encode_rows;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

pub use crate::seal::{Compressor, DEFAULT_LEVEL, SealedBlock, compress_block};

/// What a block takes of the index at most: without compression, its columns' widest values.
const INDEX_ENTRY_BYTES: usize = 100;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Where the bundle is; `None` for a stream.
    pub path: Option<PathBuf>,
    /// Blocks, the index not counted.
    pub blocks: u64,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// Size of the blocks' content before compression, bytes.
    pub raw_bytes: u64,
    /// Whether the footer was written: false after an error that left no room for it, or with more than
    /// [`MAX_INDEX_ROWS`] blocks. Readers then scan.
    pub footer: bool,
}

enum Sink {
    File { file: File, partial: PathBuf, path: PathBuf, force: bool },
    Stream(Box<dyn Write + Send>),
}

/// Writes one bundle. Dropped without [`Writer::finish`], it leaves the partial file, which is readable as it stands.
pub struct Writer {
    sink: Sink,
    header: FileHeader,
    compressor: Compressor,
    entries: Vec<BlockEntry>,
    next_sequence: u64,
    /// End of the last whole block.
    written: u64,
    raw_bytes: u64,
    failed: bool,
    /// The footer is in the file, and only its name is still wrong.
    footer: bool,
    /// Tests only: bytes after which the disk is full.
    #[cfg(test)]
    pub(crate) room: Option<u64>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Writer {
    /// Begins a bundle at `path`: writes the file header to `path` + `.partial`, with mode 0600.
    ///
    /// # Errors
    /// [`WriteError::Exists`] if `path` or its partial file exist and `force` is false; with `force` the partial file
    /// is replaced now and `path` at the end. [`WriteError::DiskFull`], [`WriteError::Io`].
    pub fn create(path: &Path, header: &FileHeader, force: bool) -> Result<Self, WriteError> {
        let partial = partial_path(path);
        if !force {
            for path in [path, &partial] {
                if path.symlink_metadata().is_ok() {
                    return Err(WriteError::Exists { path: path.to_owned() });
                }
            }
        } else if let Err(error) = std::fs::remove_file(&partial)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(WriteError::Io { path: partial, source: error });
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&partial).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists { path: partial.clone() },
            _ => WriteError::Io { path: partial.clone(), source },
        })?;
        Self::begin(Sink::File { file, partial, path: path.to_owned(), force }, header)
    }

    /// Begins a bundle on a stream, such as standard output. Nothing is ever rewritten, so a pipe will do.
    ///
    /// # Errors
    /// [`WriteError::DiskFull`], [`WriteError::Io`].
    pub fn to_stream(stream: Box<dyn Write + Send>, header: &FileHeader) -> Result<Self, WriteError> {
        Self::begin(Sink::Stream(stream), header)
    }

    fn begin(sink: Sink, header: &FileHeader) -> Result<Self, WriteError> {
        let mut writer = Self {
            sink,
            header: header.clone(),
            compressor: Compressor::new(DEFAULT_LEVEL)?,
            entries: Vec::new(),
            next_sequence: 0,
            written: 0,
            raw_bytes: 0,
            failed: false,
            footer: false,
            #[cfg(test)]
            room: None,
        };
        let copy = header.encode();
        let result = writer.append(&[copy, copy].concat());
        if result.is_err() {
            writer.remove_empty();
        }
        result.map(|()| writer)
    }

    /// Sets the zstd level of [`Self::write_block`] from here on.
    ///
    /// # Errors
    /// [`WriteError::Compression`] if zstd has no such level.
    pub fn set_level(&mut self, level: i32) -> Result<(), WriteError> {
        self.compressor.set_level(level)
    }

    /// The bundle's header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Compresses and writes a block.
    ///
    /// # Errors
    /// [`WriteError::BlockTooLarge`] and [`WriteError::Compression`] concern this block only. After
    /// [`WriteError::DiskFull`] or [`WriteError::Io`] nothing can be written any more: call
    /// [`Self::finish_after_error`].
    pub fn write_block(&mut self, block: &Block, raw: &[u8]) -> Result<BlockAddress, WriteError> {
        let sealed = self.compressor.seal(block, raw)?;
        self.write_reusing(sealed)
    }

    /// Writes a block unless the finished file, footer included, would then be larger than `max_bytes`; says whether
    /// it did.
    ///
    /// # Errors
    /// As [`Self::write_block`].
    pub fn write_block_within(&mut self, block: &Block, raw: &[u8], max_bytes: u64) -> Result<bool, WriteError> {
        let sealed = self.compressor.seal(block, raw)?;
        let block_bytes = (BLOCK_HEADER_BYTES + sealed.payload.len() + INDEX_ENTRY_BYTES) as u64;
        if self.written.saturating_add(block_bytes).saturating_add(self.footer_bytes()) > max_bytes {
            self.compressor.recycle(sealed.payload);
            return Ok(false);
        }
        self.write_reusing(sealed).map(|_| true)
    }

    /// Writes a block that was compressed elsewhere.
    ///
    /// # Errors
    /// As [`Self::write_block`].
    pub fn write_sealed(&mut self, sealed: SealedBlock) -> Result<BlockAddress, WriteError> {
        self.write_reusing(sealed)
    }

    fn write_reusing(&mut self, mut sealed: SealedBlock) -> Result<BlockAddress, WriteError> {
        let entry = self.entry(&sealed);
        // One write a block: a torn one then ends at most one block.
        let mut bytes = Vec::with_capacity(BLOCK_HEADER_BYTES + sealed.payload.len());
        bytes.extend_from_slice(&entry.encode(&self.header.bundle_id));
        bytes.extend_from_slice(&sealed.payload);
        self.append(&bytes)?;
        self.compressor.recycle(std::mem::take(&mut sealed.payload));
        self.raw_bytes += u64::from(entry.raw_len);
        if entry.address.origin == *self.header.bundle_id.as_bytes() {
            self.next_sequence = self.next_sequence.max(entry.address.sequence.saturating_add(1));
        }
        self.entries.push(entry);
        Ok(entry.address)
    }

    fn entry(&self, sealed: &SealedBlock) -> BlockEntry {
        let own = BlockAddress { origin: *self.header.bundle_id.as_bytes(), sequence: self.next_sequence };
        BlockEntry {
            address: sealed.address.unwrap_or(own),
            kind: sealed.block.kind,
            schema: sealed.block.schema,
            flags: sealed.flags,
            stream: sealed.block.stream,
            rows: sealed.block.rows,
            first_row: sealed.block.first_row,
            min_time_ns: sealed.block.min_time_ns,
            max_time_ns: sealed.block.max_time_ns,
            offset: self.written,
            header_len: BLOCK_HEADER_BYTES as u16,
            compressed_len: sealed.payload.len() as u32,
            raw_len: sealed.raw_len,
            payload_crc: sealed.payload_crc,
        }
    }

    /// Bytes of the file so far, without the footer that is still to come.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// At most this many bytes does [`Self::finish`] add: what a size limit has to leave room for.
    pub fn footer_bytes(&self) -> u64 {
        (self.entries.len() * INDEX_ENTRY_BYTES + 1024 + TAIL_BYTES) as u64
    }

    /// Number of blocks so far.
    pub fn blocks_written(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Waits until everything written is on the disk (`fdatasync`); nothing for a stream but a flush.
    ///
    /// # Errors
    /// [`WriteError::DiskFull`], [`WriteError::Io`].
    pub fn sync(&mut self) -> Result<(), WriteError> {
        let result = match &mut self.sink {
            Sink::File { file, .. } => file.sync_data(),
            Sink::Stream(stream) => stream.flush(),
        };
        result.map_err(|error| self.error(error))
    }

    /// A handle on the file whose `sync_data` another thread can call, so that writing needn't wait for the disk;
    /// `None` for a stream.
    ///
    /// # Errors
    /// [`WriteError::Io`] if the handle can't be duplicated.
    pub fn sync_handle(&self) -> Result<Option<File>, WriteError> {
        match &self.sink {
            Sink::File { file, partial, .. } => {
                let handle = file.try_clone();
                handle.map(Some).map_err(|source| WriteError::Io { path: partial.clone(), source })
            }
            Sink::Stream(_) => Ok(None),
        }
    }

    /// Writes the footer, waits for the disk, and gives the file its name.
    ///
    /// # Errors
    /// [`WriteError::NotNamed`] if the file can't be renamed, as when another one took the name meanwhile (the partial
    /// file stays); [`WriteError::DiskFull`], [`WriteError::Io`]. Call [`Self::finish_after_error`] then: it makes the best of it.
    pub fn finish(&mut self) -> Result<Summary, WriteError> {
        let before = self.written;
        if !self.footer {
            self.footer = self.write_footer()?;
        }
        if let Err(error) = self.sync() {
            // The footer may be torn: what `finish_after_error` keeps ends before it.
            self.written = before;
            self.footer = false;
            self.failed = true;
            return Err(error);
        }
        self.publish()
    }

    /// After an error: drops a torn last block, writes the footer if there is room, waits for the disk as far as it
    /// lets us, and gives the file its name. On a stream there is nothing to be done.
    ///
    /// # Errors
    /// [`WriteError::NotNamed`] if the file can't even be renamed; the partial file stays.
    pub fn finish_after_error(&mut self) -> Result<Summary, WriteError> {
        if !self.footer {
            self.rescue();
        }
        let _best_effort = self.sync();
        self.publish()
    }

    /// Cuts the file back to its last whole block and writes the footer if there is room for it.
    fn rescue(&mut self) {
        let end = self.written;
        let Sink::File { file, .. } = &self.sink else { return };
        // A block that failed half-way gives its room back, often enough for the footer.
        self.failed = file.set_len(end).and_then(|()| seek_to(file, end)).is_err();
        self.footer = !self.failed && self.write_footer().unwrap_or(false) && self.sync().is_ok();
        if let Sink::File { file, .. } = &self.sink
            && !self.footer
        {
            // Should this fail too, readers pass over the torn tail.
            let _best_effort = file.set_len(end);
            self.written = end;
        }
    }

    /// Where the file is until it is finished; `None` for a stream.
    pub fn partial(&self) -> Option<PathBuf> {
        match &self.sink {
            Sink::File { partial, .. } => Some(partial.clone()),
            Sink::Stream(_) => None,
        }
    }

    /// Leaves the partial file as it is; returns its path.
    pub fn abandon(self) -> Option<PathBuf> {
        match self.sink {
            Sink::File { partial, .. } => Some(partial),
            Sink::Stream(_) => None,
        }
    }

    /// Index block, copy of the file header, trailer, in one write.
    fn write_footer(&mut self) -> Result<bool, WriteError> {
        if self.entries.len() > MAX_INDEX_ROWS {
            return Ok(false);
        }
        let rows: Vec<IndexRow> = self.entries.iter().map(|entry| IndexRow::from(*entry)).collect();
        let raw = encode_rows(&rows);
        let Ok(raw_len) = u32::try_from(raw.len()) else { return Ok(false) };
        if raw_len > MAX_RAW_BYTES {
            return Ok(false);
        }
        let block = Block::new(BlockKind::INDEX, rows.len() as u32);
        let sealed = self.compressor.compress(&block, &raw, raw_len)?;
        let entry = self.entry(&sealed);
        let bundle_id: Uuid = self.header.bundle_id;
        let mut bytes = entry.encode(&bundle_id).to_vec();
        bytes.extend_from_slice(&sealed.payload);
        bytes.extend_from_slice(&self.header.encode());
        let file_bytes = self.written + (bytes.len() + crate::index::TRAILER_BYTES) as u64;
        bytes.extend_from_slice(&encode_trailer(&bundle_id, self.written, file_bytes));
        self.append(&bytes)?;
        Ok(true)
    }

    /// Gives the finished file its name.
    fn publish(&mut self) -> Result<Summary, WriteError> {
        self.failed = true;
        let mut summary = Summary {
            path: None,
            blocks: self.entries.len() as u64,
            bytes: self.written,
            raw_bytes: self.raw_bytes,
            footer: self.footer,
        };
        if let Sink::File { partial, path, force, .. } = &self.sink {
            let renamed = if !force && path.symlink_metadata().is_ok() {
                Err(io::ErrorKind::AlreadyExists.into())
            } else {
                std::fs::rename(partial, path)
            };
            renamed.map_err(|source| WriteError::NotNamed { partial: partial.clone(), path: path.clone(), source })?;
            sync_folder(path).map_err(|source| WriteError::Io { path: path.clone(), source })?;
            summary.path = Some(path.clone());
        }
        Ok(summary)
    }

    /// Writes all of `bytes`, or remembers that the file may end in a torn block.
    fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::Closed);
        }
        #[cfg(test)]
        if let Some(room) = self.room
            && self.written + bytes.len() as u64 > room
        {
            let fits = (room.saturating_sub(self.written) as usize).min(bytes.len());
            let _ = self.write_all(&bytes[..fits]);
            self.failed = true;
            return Err(self.error(io::ErrorKind::StorageFull.into()));
        }
        match self.write_all(bytes) {
            Ok(()) => {
                self.written += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                Err(self.error(error))
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Sink::File { file, .. } => file.write_all(bytes),
            Sink::Stream(stream) => stream.write_all(bytes),
        }
    }

    fn error(&self, source: io::Error) -> WriteError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            return WriteError::DiskFull { written: self.written, source };
        }
        let path = match &self.sink {
            Sink::File { partial, .. } => partial.clone(),
            Sink::Stream(_) => PathBuf::from("standard output"),
        };
        WriteError::Io { path, source }
    }

    /// Takes away a partial file that holds nothing.
    fn remove_empty(&self) {
        if let Sink::File { partial, .. } = &self.sink
            && self.written < FIRST_BLOCK_OFFSET
        {
            let _best_effort = std::fs::remove_file(partial);
        }
    }
}

/// Name of the file while it is being written.
pub fn partial_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    PathBuf::from(name)
}

fn seek_to(mut file: &File, offset: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map(|_| ())
}

/// Makes the new name last: on Unix a rename is durable once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // Some file systems can't sync a folder; the file itself is safe.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
            // A folder that may be written to but not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => return other,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reader;

    fn write_until_full(room: u64) -> (tempfile::TempDir, Writer, u64) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&folder.path().join("full.kfr"), &FileHeader::new("node"), false).unwrap();
        writer.room = Some(room);
        let mut whole = 0;
        loop {
            // Random bytes, so that compression leaves something to write.
            let raw: Vec<u8> = (0..200).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
            match writer.write_block(&Block::new(BlockKind::DATA, 1), &raw) {
                Ok(_) => whole += 1,
                Err(WriteError::DiskFull { written, .. }) => {
                    assert_eq!(written, writer.bytes_written());
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let again = writer.write_block(&Block::new(BlockKind::DATA, 1), b"more");
        assert!(matches!(again, Err(WriteError::Closed)));
        (folder, writer, whole)
    }

    #[test]
    fn a_full_disk_leaves_a_readable_partial_file() {
        for room in (1100..20_000).step_by(397) {
            let (_folder, writer, whole) = write_until_full(room);
            let partial = writer.abandon().unwrap();
            let reader = Reader::open(&partial).unwrap();
            assert_eq!(reader.blocks().len() as u64, whole, "room {room}");
            assert_eq!(partial.metadata().unwrap().len(), room);
        }
    }

    #[test]
    fn after_a_full_disk_the_bundle_still_gets_its_name() {
        let mut footers = 0;
        for room in (1100..20_000).step_by(397) {
            let (_folder, mut writer, whole) = write_until_full(room);
            let summary = writer.finish_after_error().unwrap();
            assert_eq!(summary.blocks, whole);
            assert!(summary.bytes <= room);
            let reader = Reader::open(summary.path.as_deref().unwrap()).unwrap();
            assert_eq!(reader.blocks().len() as u64, whole);
            assert_eq!(reader.file_bytes(), summary.bytes);
            assert_eq!(reader.damage().lost_bytes, 0, "the torn block was cut off");
            assert_eq!(reader.damage().no_footer, !summary.footer);
            footers += u64::from(summary.footer);
        }
        assert!(footers > 15, "a torn block often leaves room for the footer");
    }

    struct Failing(usize);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.0);
            self.0 -= fits;
            if fits == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(fits) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_fails_says_so() {
        let header = FileHeader::new("node");
        let failed = Writer::to_stream(Box::new(Failing(100)), &header);
        assert!(matches!(failed, Err(WriteError::DiskFull { written: 0, .. })));
        let mut writer = Writer::to_stream(Box::new(Failing(1200)), &header).unwrap();
        writer.write_block(&Block::new(BlockKind::DATA, 1), b"small").unwrap();
        assert!(matches!(writer.finish(), Err(WriteError::DiskFull { .. })));
        let summary = writer.finish_after_error().unwrap();
        assert_eq!((summary.footer, summary.blocks, summary.path), (false, 1, None));
    }
}
