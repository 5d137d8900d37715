//! Any bytes as a conversation in `http`, told or to be found out: `scripts/fuzz http`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("http"));
