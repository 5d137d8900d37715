//! Any bytes as a conversation in `http2`, told or to be found out: `scripts/fuzz http2`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("http2"));
