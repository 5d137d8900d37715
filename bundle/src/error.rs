//! What can go wrong, by what the caller can do about it.

use crate::header::Version;
use std::io;
use std::path::PathBuf;

/// A bundle could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Neither file header begins like one of a bundle.
    #[error("not a KFR bundle")]
    NotABundle,
    /// Written by a later major version.
    #[error("this bundle has format {found}; this program reads format {supported} and older: use KFR for {found}")]
    NewerMajor {
        /// The bundle's version.
        found: Version,
        /// The newest version that this crate reads.
        supported: Version,
    },
    /// Every copy of the file header is damaged: without the bundle's UUID no block can be told from captured traffic.
    #[error("every copy of the bundle's file header is damaged")]
    HeaderDamaged,
}

/// A block could not be read; the others are not affected.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The compressed bytes don't match their checksum.
    #[error("the block's payload is damaged (checksum)")]
    Checksum,
    /// The checksum fits, but the frame doesn't decompress to the size that the header states.
    #[error("the block's payload doesn't decompress to its stated size")]
    Compression,
    /// The header states a size above [`crate::MAX_RAW_BYTES`].
    #[error("the block is larger than the format allows")]
    TooLarge,
    /// The block uses something that this version can't read (encryption, an unknown must-understand flag).
    #[error("the block needs a newer or other reader (flags {flags:#06x}, encryption {encryption})")]
    Unsupported {
        /// The block's flags.
        flags: u16,
        /// The file header's encryption.
        encryption: u16,
    },
}

/// A block's decompressed content is not what its kind says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the MessagePack shape that was expected, cut short, or nested too deep.
    #[error("malformed MessagePack at byte {at}")]
    MessagePack {
        /// Offset in the decompressed block.
        at: usize,
    },
    /// A column has too few or too many values, or a value that its type can't hold.
    #[error("column {column} is malformed")]
    Column {
        /// The column's name.
        column: &'static str,
    },
    /// More rows than [`crate::MAX_ROWS`], or than the block has bytes for.
    #[error("{rows} rows are more than the block can hold")]
    TooManyRows {
        /// Rows stated.
        rows: u64,
    },
}

/// A bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output exists, and overwriting was not asked for.
    #[error("{} exists; remove it, choose another name, or overwrite it with --force", .path.display())]
    Exists {
        /// The output, or its partial file.
        path: PathBuf,
    },
    /// No space left, quota exceeded, or the file grew too large for its file system.
    #[error("no space left after {written} bytes")]
    DiskFull {
        /// Bytes of whole blocks written before.
        written: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Any other error of the system.
    #[error("{} can't be written", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bundle is finished but could not be given its name; it stays as the partial file.
    #[error("the bundle is finished, but stays as {}: it can't be renamed to {}", .partial.display(), .path.display())]
    NotNamed {
        /// Where the bundle is.
        partial: PathBuf,
        /// The name that it should have.
        path: PathBuf,
        /// What the system said; [`io::ErrorKind::AlreadyExists`] if another file took the name meanwhile.
        source: io::Error,
    },
    /// Data written earlier may not have reached the disk.
    #[error("{}: what was written last may not have reached the disk", .path.display())]
    NotSynced {
        /// The partial file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A block above [`crate::MAX_RAW_BYTES`] or [`crate::MAX_ROWS`].
    #[error("a block of {raw_bytes} bytes and {rows} rows is larger than the format allows")]
    BlockTooLarge {
        /// Bytes before compression.
        raw_bytes: usize,
        /// Rows.
        rows: u32,
    },
    /// The writer was finished, or failed before.
    #[error("the bundle can't be written any more after an earlier error")]
    Closed,
    /// The compressor refused.
    #[error("compression failed")]
    Compression(#[source] io::Error),
}
