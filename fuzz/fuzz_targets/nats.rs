//! Any bytes as a conversation in `nats`, told or to be found out: `scripts/fuzz nats`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("nats"));
