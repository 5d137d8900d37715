//! Any bytes as a conversation in `kafka`, told or to be found out: `scripts/fuzz kafka`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("kafka"));
