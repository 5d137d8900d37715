//! Any bytes as a conversation in `tls`, told or to be found out: `scripts/fuzz tls`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("tls"));
