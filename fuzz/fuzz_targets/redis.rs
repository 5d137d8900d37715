//! Any bytes as a conversation in `redis`, told or to be found out: `scripts/fuzz redis`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("redis"));
