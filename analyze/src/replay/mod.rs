//! Replay: blocks in the order of the file, decoded in parallel, routed to a fixed number of shards by connection, so
//! that a result never depends on the number of threads or on how much fits into memory at once.

mod connection;
mod facts;
mod input;
mod losses;
mod names;
mod sequencer;
mod setup;
mod shard;
mod spill;
mod staged;
mod times;
mod window;

pub use facts::{Facts, NodeFacts};
pub use input::{Input, InputError, sha256};
pub use losses::{LostRange, SeenNumbers};
pub use names::read_names;
pub use setup::{ConnectionTotals, Setup};
pub use shard::{Context, Produce, ShardOutput};
pub use spill::{KeyedLine, SortedLines};
pub use window::run;

/// Shards that connections are spread over. Fixed: each handles its events in the order of the file, whoever runs it.
pub const SHARDS: usize = 64;
