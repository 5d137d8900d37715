//! Any bytes as a conversation in `mqtt`, told or to be found out: `scripts/fuzz mqtt`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("mqtt"));
