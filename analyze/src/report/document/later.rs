//! Parts of `report.json` whose keys exist from the first day and whose sections are drawn once data fill them.

use super::Golden;
use serde::{Deserialize, Serialize};

/// A Deployment, StatefulSet, DaemonSet, Job, unit or process group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Stable for the same bundle.
    pub id: String,
    /// Readable name.
    pub name: String,
    /// `Deployment`, `unit`, `process group`, ...
    pub kind: String,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Ids of its services.
    pub services: Vec<String>,
    /// Requests it answered.
    pub inbound: Golden,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Stable for the same bundle.
    pub id: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Id of its workload.
    pub workload: Option<String>,
    /// Node it runs on.
    pub node: Option<String>,
    /// Requests it answered.
    pub inbound: Golden,
}

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

/// Something that changed during the capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at_ns: Option<u64>,
    /// `rollout`, `process started`, `process exited`, ...
    pub kind: String,
    /// Of what.
    pub subject: String,
    /// In one phrase.
    pub summary: String,
}
