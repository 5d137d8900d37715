//! Any bytes as a conversation in `postgresql`, told or to be found out: `scripts/fuzz postgresql`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("postgresql"));
