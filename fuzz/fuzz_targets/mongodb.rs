//! Any bytes as a conversation in `mongodb`, told or to be found out: `scripts/fuzz mongodb`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("mongodb"));
