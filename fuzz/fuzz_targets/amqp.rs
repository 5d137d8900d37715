//! Any bytes as a conversation in `amqp`, told or to be found out: `scripts/fuzz amqp`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("amqp"));
