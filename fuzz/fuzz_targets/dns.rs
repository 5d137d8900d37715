//! Any bytes as a conversation in `dns`, told or to be found out: `scripts/fuzz dns`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("dns"));
