//! Fuzz inputs made from recordings. Needs the modules `common` and `drive` beside it.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};

use kfr_protocols::{Hole, HoleKind};

use super::common::{Piece, connections};
use super::drive::{DATAGRAMS, MARKS, MID_STREAM, NEAR_IS_CLIENT, encode};

/// Bytes of an input: enough for a handshake and some requests.
const MAX_SEED_BYTES: usize = 16 << 10;
/// Inputs of one file.
const MAX_SEEDS: usize = 32;

/// The folder of a protocol's recordings.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols").join(name)
}

/// Inputs of the recordings in a folder, in the same order each time.
pub fn seeds(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pcap"));
    files.sort();
    let mut found = Vec::new();
    for file in files {
        for connection in connections(&file).iter().take(MAX_SEEDS) {
            let mut flags = MARKS | if connection.datagrams { DATAGRAMS } else { 0 };
            flags |= if connection.mid_stream { MID_STREAM } else { NEAR_IS_CLIENT };
            let mut left = MAX_SEED_BYTES;
            let sends = connection.pieces.iter().map_while(|(client, piece)| {
                let piece = match piece {
                    Piece::Bytes(bytes) => {
                        let kept = bytes.get(..left).unwrap_or(bytes);
                        left -= kept.len();
                        if kept.is_empty() {
                            return None;
                        }
                        Ok(kept)
                    }
                    Piece::Lost(length) => Err(Hole { length: *length, kind: HoleKind::Gap }),
                    Piece::Cut(length) => Err(Hole { length: *length, kind: HoleKind::Cut }),
                };
                Some((*client, piece))
            });
            found.push(encode(flags, connection.ports, sends));
        }
    }
    found
}
