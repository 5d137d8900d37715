//! Replay of `.kfr` bundles into requests, metrics and a report.
//!
//! Data flows one way: [`replay`] reads blocks, [`identity`] says who owns a socket, [`join`] makes connections of
//! sockets, [`clocks`] places event times on the wall clock, [`model`] and [`sql`] sum up, [`findings`] judge, [`dump`] and
//! [`report`] write. The same bundles and options give the same bytes, whatever the threads and the memory.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![forbid(unsafe_code)]

pub mod check;
pub mod clocks;
pub mod cluster;
pub mod dump;
pub mod findings;
pub mod identity;
pub mod join;
pub mod logs;
pub mod model;
pub mod replay;
pub mod report;
pub mod sql;
mod world;

use std::path::PathBuf;

pub use kfr_protocols::{REGISTRY, protocol_named};
pub use replay::{Input, InputError};
pub use world::{Analysis, Want, World};

/// How to replay.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory to use, bytes. It changes time, never a result.
    pub memory: u64,
    /// Folder for what does not fit; the system's where `None`.
    pub tmp: Option<PathBuf>,
    /// Threads; one a core where `None`. They change time, never a result.
    pub threads: Option<usize>,
    /// Show values instead of masking them.
    pub literals: bool,
    /// Server ports whose protocol (its number in the registry of `kfr-protocols`) is told, not detected.
    pub port_hints: Vec<(u16, u16)>,
    /// Labels of pods by whose values requests are summed up.
    pub group_by: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            tmp: None,
            threads: None,
            literals: false,
            port_hints: Vec::new(),
            group_by: Vec::new(),
        }
    }
}
