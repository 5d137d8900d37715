//! The completeness ledger: what was seen, what was not, and which figures that weakens.

use super::Severity;
use serde::{Deserialize, Serialize};

/// Totals, entries and losses of all bundles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// How much there is.
    pub totals: Totals,
    /// What is missing or doubtful, most serious first.
    pub entries: Vec<LedgerEntry>,
    /// Where events were lost, by time.
    pub losses: Vec<LostRange>,
    /// Connections by protocol, most bytes first; `unknown` and `tls` are among them.
    pub protocols: Vec<ProtocolShare>,
    /// What stayed encrypted, by the name that the client asked for and what the handshake agreed on; most bytes first.
    pub encrypted: Vec<EncryptedShare>,
}

/// How much the recording holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Events of every kind.
    pub events: u64,
    /// Bytes that the recorded connections carried, each counted once, also where both ends were recorded.
    pub bytes: u64,
    /// Of these, kept in the bundle.
    pub payload_kept_bytes: u64,
    /// Of these, recorded as a length only; the entries of area `payload` say why.
    pub payload_cut_bytes: u64,
    /// Bytes known to have passed though no event carried them (splice, lost events).
    pub unseen_bytes: u64,
    /// Connections that carried something.
    pub connections: u64,
    /// Of these, older than the capture.
    pub connections_mid_stream: u64,
    /// Requests decoded.
    pub requests: u64,
    /// Events lost (ring, disk, damaged blocks); null where a source can't count its losses.
    pub lost_events: Option<u64>,
}

/// Which figures an entry weakens; each is marked with a link to the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Counts of requests and errors, and rates.
    Requests,
    /// Durations.
    Latency,
    /// Bytes.
    Bytes,
    /// Who calls whom, and who is who.
    Topology,
    /// Statements.
    Sql,
    /// Connections and transport.
    Network,
    /// Host samples.
    Nodes,
    /// Positions on the time axis.
    Time,
    /// Container logs.
    Logs,
}

/// One thing that was not seen, or not surely.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Stable, such as `lost-events:node-a`; figures refer to it.
    pub id: String,
    /// `capture`, `bundle`, `decode`, `join`, `clock`, `host`.
    pub area: String,
    /// What happened, in one phrase: `payload cut by the limit`.
    pub what: String,
    /// How often; null where it can't be counted.
    pub count: Option<u64>,
    /// Of what: `events`, `bytes`, `connections`.
    pub unit: String,
    /// What it means for the reader, in one sentence.
    pub effect: String,
    /// Which kinds of figure it weakens everywhere. Where it touches single services only, leave this empty and name
    /// the entry in their `weakened_by`.
    pub weakens: Vec<Figure>,
    /// How much it matters.
    pub severity: Severity,
}

/// A stretch of time in which events were lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LostRange {
    /// Where.
    pub node: String,
    /// Which stream or buffer: `sockets`, `profile`, `disk`.
    pub what: String,
    /// How many events.
    pub count: u64,
    /// From.
    pub start_ns: Option<u64>,
    /// Until.
    pub end_ns: Option<u64>,
}

/// What went over one protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProtocolShare {
    /// A protocol's name, or `unknown`; `tls` for what is encrypted.
    pub protocol: String,
    /// Connections.
    pub connections: u64,
    /// Requests decoded; null where nothing can be decoded.
    pub requests: Option<u64>,
    /// Bytes both ways.
    pub bytes: u64,
    /// True where the content could not be read because it is encrypted.
    pub encrypted: bool,
}

/// Encrypted connections that are alike, as far as their handshakes tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EncryptedShare {
    /// Name that the client asked for; null where the handshake was not seen or has none.
    pub server_name: Option<String>,
    /// TLS version agreed on, or offered; null where the handshake was not seen.
    pub version: Option<String>,
    /// Application protocol agreed on or offered (`h2`); null where none was seen.
    pub alpn: Option<String>,
    /// Alert that ended a handshake or connection in the clear, with who sent it.
    pub alert: Option<String>,
    /// Connections.
    pub connections: u64,
    /// Bytes both ways.
    pub bytes: u64,
}
