//! Any bytes as a conversation in `mysql`, told or to be found out: `scripts/fuzz mysql`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("mysql"));
