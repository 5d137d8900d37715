//! The bundles to replay.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kfr_bundle::{BlockEntry, Condition, OpenError, Reader};
use sha2::{Digest, Sha256};

/// Bundles can't be opened, or not together.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// One can't be opened.
    #[error("{} can't be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// Two files hold the same recording: everything in it would count twice.
    #[error("{} and {} are the same recording; name it once", .first.display(), .second.display())]
    Twice {
        /// The one named first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

/// One bundle.
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// Its reader.
    pub reader: Reader,
}

impl Input {
    /// Opens bundles in the order given; of a merged file each one in it.
    ///
    /// # Errors
    /// The first one that can't be opened, or that is a recording which came before.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>, InputError> {
        let mut inputs: Vec<Self> = Vec::with_capacity(paths.len());
        for path in paths {
            let unreadable = |source| InputError::Unreadable { path: path.clone(), source };
            for reader in Reader::open(path).and_then(Reader::parts).map_err(unreadable)? {
                let id = reader.header().bundle_id;
                if let Some(first) = inputs.iter().find(|input| input.reader.header().bundle_id == id) {
                    return Err(InputError::Twice { first: first.path.clone(), second: path.clone() });
                }
                inputs.push(Self { path: path.clone(), reader });
            }
        }
        Ok(inputs)
    }

    /// What opening the bundle told of it; payloads show only when they are read.
    pub fn condition(&self) -> Condition {
        Condition::of(&self.reader, self.reader.damage())
    }

    /// File name without its folder.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(Path::new("").as_os_str()).to_string_lossy().into_owned()
    }

    /// Reads and decompresses a block; `None` if it is damaged.
    pub fn raw(&self, entry: &BlockEntry) -> Option<Vec<u8>> {
        self.raw_into(entry, Vec::new())
    }

    /// The same, into memory that is at hand.
    pub fn raw_into(&self, entry: &BlockEntry, mut raw: Vec<u8>) -> Option<Vec<u8>> {
        self.reader.read_block(entry, &mut raw).ok()?;
        Some(raw)
    }
}

/// SHA-256 of a file, in hex; `None` if it can't be read to its end.
pub fn sha256(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            Ok(length) => hash.update(buffer.get(..length)?),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.kfr");
        // A million times "a": FIPS 180-4's own example.
        std::fs::write(&path, vec![b'a'; 1_000_000]).unwrap();
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(sha256(&path).as_deref(), Some(expected));
        assert_eq!(sha256(&folder.path().join("absent")), None);
    }
}
