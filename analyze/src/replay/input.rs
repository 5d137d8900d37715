//! The bundles to replay.

use std::path::{Path, PathBuf};

use kfr_bundle::{BlockEntry, OpenError, Reader};

/// A bundle can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be read", .path.display())]
pub struct InputError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: OpenError,
}

/// One bundle.
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// Its reader.
    pub reader: Reader,
}

impl Input {
    /// Opens bundles in the order given.
    ///
    /// # Errors
    /// The first one that can't be opened.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>, InputError> {
        let open = |path: &PathBuf| match Reader::open(path) {
            Ok(reader) => Ok(Self { path: path.clone(), reader }),
            Err(source) => Err(InputError { path: path.clone(), source }),
        };
        paths.iter().map(open).collect()
    }

    /// File name without its folder.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(Path::new("").as_os_str()).to_string_lossy().into_owned()
    }

    /// Reads and decompresses a block; `None` if it is damaged.
    pub fn raw(&self, entry: &BlockEntry) -> Option<Vec<u8>> {
        let mut raw = Vec::new();
        self.reader.read_block(entry, &mut raw).ok()?;
        Some(raw)
    }
}
