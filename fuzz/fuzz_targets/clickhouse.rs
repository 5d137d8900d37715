//! Any bytes as a conversation in `clickhouse`, told or to be found out: `scripts/fuzz clickhouse`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("clickhouse"));
