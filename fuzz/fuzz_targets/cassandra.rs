//! Any bytes as a conversation in `cassandra`, told or to be found out: `scripts/fuzz cassandra`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("cassandra"));
