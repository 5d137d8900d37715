//! Any bytes as a conversation in any protocol: `scripts/fuzz protocols`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(None);
