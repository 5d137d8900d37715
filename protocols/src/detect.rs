//! Which protocol a connection speaks, judged by the first bytes of both directions.

use crate::{Protocol, REGISTRY};

/// The first bytes of a connection, as far as they were seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prefix<'a> {
    /// From the side that connected (or is taken for the client).
    pub client: &'a [u8],
    /// From the other side.
    pub server: &'a [u8],
    /// The start of the connection was not seen: these bytes begin anywhere in it.
    pub mid_stream: bool,
    /// No more bytes will come: decide with what is here.
    pub complete: bool,
    /// `client` and `server` are the first datagram of each side, not the start of a stream.
    pub datagrams: bool,
    /// The server's port, where it is known. Weak evidence: it may lift [`Detected::Maybe`] to [`Detected::Likely`] where
    /// the bytes fit, and tell apart protocols that share a format (mDNS and DNS); it never makes a protocol certain.
    pub server_port: Option<u16>,
}

/// A protocol's judgement of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detected {
    /// These bytes can't be this protocol.
    No,
    /// Nothing speaks against it, but there is too little to tell.
    Maybe,
    /// It looks like it: claim it if nobody is certain and no more bytes come.
    Likely,
    /// A magic, version or structure that no other protocol has.
    Certain,
}

/// Protocols by their number in [`REGISTRY`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProtocolSet(u64);

impl ProtocolSet {
    /// Adds a protocol.
    pub fn insert(&mut self, number: u16) {
        self.0 |= 1u64.checked_shl(u32::from(number)).unwrap_or_default();
    }

    /// True if it is in the set.
    pub fn contains(self, number: u16) -> bool {
        self.0 & 1u64.checked_shl(u32::from(number)).unwrap_or_default() != 0
    }
}

/// The protocol of a connection, by its number in the registry: `Ok(Some)` when one claims it, `Ok(None)` when none can,
/// `Err(())` when more bytes are needed (never where `prefix.complete`). Those in `excluded` are not asked.
#[allow(clippy::result_unit_err)]
pub fn detect(prefix: &Prefix<'_>, excluded: ProtocolSet) -> Result<Option<u16>, ()> {
    let mut best: Option<(u16, Detected)> = None;
    for (number, protocol) in numbered() {
        let carried = if prefix.datagrams { protocol.datagrams } else { protocol.streams };
        if !carried || excluded.contains(number) {
            continue;
        }
        let verdict = (protocol.detect)(prefix);
        if verdict == Detected::Certain {
            return Ok(Some(number));
        }
        if verdict > best.map_or(Detected::No, |(_, v)| v) {
            best = Some((number, verdict));
        }
    }
    match best {
        None => Ok(None),
        Some((number, Detected::Likely)) if prefix.complete => Ok(Some(number)),
        Some(_) if prefix.complete => Ok(None),
        Some(_) => Err(()),
    }
}

/// A protocol by its name, with its number in [`REGISTRY`].
pub fn protocol_named(name: &str) -> Option<(u16, &'static Protocol)> {
    numbered().find(|(_, protocol)| protocol.name == name)
}

fn numbered() -> impl Iterator<Item = (u16, &'static Protocol)> {
    (0..).zip(REGISTRY)
}
