//! Which protocol a connection speaks, judged by the first bytes of both directions.

use crate::{Protocol, REGISTRY};

/// The first bytes of a connection, as far as they were seen.
#[derive(Debug, Clone, Copy)]
pub struct Prefix<'a> {
    /// From the side that connected (or is taken for the client).
    pub client: &'a [u8],
    /// From the other side.
    pub server: &'a [u8],
    /// The start of the connection was not seen: these bytes begin anywhere in it.
    pub mid_stream: bool,
    /// No more bytes will come: decide with what is here.
    pub complete: bool,
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

/// The protocol of a connection: `Ok(Some)` when one claims it, `Ok(None)` when none can, `Err(())` when more bytes are
/// needed (never where `prefix.complete`).
#[allow(clippy::result_unit_err)]
pub fn detect(prefix: &Prefix<'_>) -> Result<Option<&'static Protocol>, ()> {
    let mut best: Option<(&Protocol, Detected)> = None;
    for protocol in REGISTRY {
        let verdict = (protocol.detect)(prefix);
        if verdict == Detected::Certain {
            return Ok(Some(protocol));
        }
        if verdict > best.map_or(Detected::No, |(_, v)| v) {
            best = Some((protocol, verdict));
        }
    }
    match best {
        None => Ok(None),
        Some((protocol, Detected::Likely)) if prefix.complete => Ok(Some(protocol)),
        Some(_) if prefix.complete => Ok(None),
        Some(_) => Err(()),
    }
}
