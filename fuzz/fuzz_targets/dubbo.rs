//! Any bytes as a conversation in `dubbo`, told or to be found out: `scripts/fuzz dubbo`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("dubbo"));
