//! Any bytes as a conversation in `thrift`, told or to be found out: `scripts/fuzz thrift`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("thrift"));
