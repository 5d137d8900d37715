//! Who speaks PostgreSQL.

use super::message::{Chain, client_chain, server_chain};
use super::startup::{Opening, opening};
use crate::{Detected, Prefix};

/// The port that servers listen on.
const PORT: u16 = 5432;

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    match opening(prefix.client) {
        Some(Opening::Startup { fits: true, .. } | Opening::Tls | Opening::Gss | Opening::Cancel)
            if answers_opening(prefix.server) =>
        {
            return Detected::Certain;
        }
        None if !prefix.mid_stream && prefix.server.is_empty() && prefix.client.len() < 8 => {
            // The length of a startup message is small.
            let fits = prefix.client.first().is_none_or(|byte| *byte == 0);
            return if fits { Detected::Maybe } else { Detected::No };
        }
        _ => {}
    }
    let verdict = in_the_middle(prefix);
    match verdict {
        Detected::Certain if !prefix.mid_stream => Detected::Likely,
        Detected::Maybe if prefix.server_port == Some(PORT) && prefix.client.len() + prefix.server.len() >= 16 => {
            Detected::Likely
        }
        verdict => verdict,
    }
}

/// Whether the server's first bytes answer an opening: a letter, or authentication, an error, a negotiation.
fn answers_opening(server: &[u8]) -> bool {
    matches!(server, [] | [b'S' | b'N' | b'G', ..] | [b'R' | b'E' | b'v'] | [b'R' | b'E' | b'v', 0, ..])
}

/// Judges by the messages of both sides, whatever came before them.
fn in_the_middle(prefix: &Prefix<'_>) -> Detected {
    use Chain::{Broken, Messages, Short};
    match (client_chain(prefix.client), server_chain(prefix.server)) {
        (Broken, _) | (_, Broken) => Detected::No,
        (Messages { sure: true, .. }, Messages { sure: true, .. }) => Detected::Certain,
        (Messages { sure: true, count }, Messages { sure: false, .. }) if count > 1 => Detected::Certain,
        // A terminated text of exactly the length, or a row of messages that ends as they end.
        (Messages { sure: true, .. }, _) => Detected::Likely,
        (Short, Messages { sure: true, count }) if prefix.client.is_empty() && count > 1 => Detected::Likely,
        (Messages { .. }, Messages { sure: true, .. }) => Detected::Likely,
        _ => Detected::Maybe,
    }
}
