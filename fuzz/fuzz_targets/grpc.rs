//! Any bytes as a conversation in `grpc`, told or to be found out: `scripts/fuzz grpc`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("grpc"));
