//! Any bytes as a conversation in `websocket`, told or to be found out: `scripts/fuzz websocket`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("websocket"));
