//! The `.kfr` bundle: what was observed, in blocks that can be read one by one.
//!
//! A bundle is a file header, then *blocks* (each a header and one zstd frame), then a footer with an index.
//! `docs/FORMAT.md` describes every byte. This crate writes bundles ([`writer`]), reads them whole or damaged
//! ([`reader`]), and holds what a block contains: events from the kernel ([`events`]) as columns ([`columns`],
//! [`rows`]) and everything else as named maps ([`maps`]).
//!
//! Input is hostile: nothing here panics on what it reads, allocates by an unchecked length, or loops without progress.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]
#![forbid(unsafe_code)]

pub mod block;
pub mod columns;
pub mod conntrack;
pub mod error;
pub mod events;
pub mod facts;
pub mod header;
pub mod index;
pub mod kinds;
pub mod kube;
pub mod logs;
pub mod maps;
pub mod merge;
mod msgpack;
mod packing;
pub mod reader;
pub mod rows;
mod scan;
pub mod seal;
pub mod secrets;
mod source;
pub mod verify;
pub mod writer;

pub use block::{Address, Block, BlockAddress, BlockEntry};
pub use columns::{DataBlock, DataColumns, DataRow, Peer};
pub use error::{BlockError, DecodeError, OpenError, WriteError};
pub use header::{ClockId, FileHeader, Version};
pub use kinds::BlockKind;
pub use maps::{MapWriter, Maps, decode_maps, to_named_map};
pub use merge::{MergeError, merge};
pub use reader::{Damage, DamageKind, DamagedRegion, Reader};
pub use rows::{Row, decode_rows, encode_rows};
pub use uuid::Uuid;
pub use verify::{Condition, Report, verify};
pub use writer::{Compressor, SealedBlock, Summary, Writer};

/// Largest block before compression, bytes. A writer refuses more, a reader calls it damage.
pub const MAX_RAW_BYTES: u32 = 64 << 20;

/// Most rows that a block can have. A writer refuses more, a reader calls it damage.
pub const MAX_ROWS: u32 = 1 << 18;
