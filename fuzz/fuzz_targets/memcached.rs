//! Any bytes as a conversation in `memcached`, told or to be found out: `scripts/fuzz memcached`.
#![no_main]

#[path = "../protocol.rs"]
mod protocol;

protocol::fuzz!(Some("memcached"));
