//! Parts of `report.json` whose keys exist from the first day and whose sections are drawn once data fill them.

use serde::{Deserialize, Serialize};

/// A trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Stable for the same bundle.
    pub trace_id: String,
    /// Why it was picked: `slowest`, `failing`, `median`.
    pub why: String,
    /// Its spans, by start.
    pub spans: Vec<Span>,
}

/// A span, with the keys of `kfr dump --spans`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its trace.
    pub trace_id: String,
    /// Its own id.
    pub span_id: String,
    /// The span that caused it.
    pub parent_id: Option<String>,
    /// Operation and target.
    pub name: String,
    /// `client`, `server`.
    pub kind: String,
    /// Start.
    pub start_ns: u64,
    /// Length; null where unanswered.
    pub duration_ns: Option<u64>,
    /// How the parent is known.
    pub known_by: Option<String>,
    /// Id of the request.
    pub request: Option<String>,
    /// Flags.
    pub flags: Vec<String>,
}

/// A CPU or off-CPU profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Whose.
    pub subject: String,
    /// `cpu`, `off-cpu`.
    pub kind: String,
    /// Samples.
    pub samples: u64,
}
