//! Any bytes as a conversation in `rocketmq`, told or to be found out: `scripts/fuzz rocketmq`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("rocketmq"));
