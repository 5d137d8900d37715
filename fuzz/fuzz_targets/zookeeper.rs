//! Any bytes as a conversation in `zookeeper`, told or to be found out: `scripts/fuzz zookeeper`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("zookeeper"));
