//! Records.
#[allow(missing_docs, clippy::all)]
mod skel { include!(concat!(env!("OUT_DIR"), "/sock.skel.rs")); }
