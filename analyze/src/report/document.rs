//! The report as data: what `report.json` holds, and the only thing the renderers read.
//!
//! Conventions that every field keeps:
//! - times are wall-clock nanoseconds since 1970 (`_ns`); durations are nanoseconds; sizes are bytes;
//! - unknown is `None` (JSON `null`), never 0; a list without data is empty;
//! - lists come in the order in which they are to be read (the renderers keep it unless they say otherwise), and the
//!   builder makes that order total, so that the output never depends on a hash map;
//! - floats are rounded to four significant digits when they are written, and are never NaN or infinite there.

mod cluster;
mod flow;
mod golden;
mod host;
mod later;
mod ledger;
mod logs;

pub use cluster::{
    Caller, Change, Container, Ending, Image, KubernetesService, LabelGroup, Pod, ReplicaStep, Replicas, Revision,
    Rollout, Workload,
};
pub use flow::{
    CodeCount, Connection, CrossZone, Edge, Endpoint, Exemplar, IdleInTransaction, NPlusOne, Network, NetworkTotals,
    Peer, Process, Rtt, Service, ServiceKind, Statement,
};
pub use golden::{Golden, Point};
pub use host::{
    CoreSplit, Disk, DiskSample, HostSample, Interface, InterfaceSample, KubernetesNode, Node, Pressure, TcpCounters,
};
pub use later::{Profile, Span, Trace};
pub use ledger::{EncryptedShare, Figure, Ledger, LedgerEntry, LostRange, ProtocolShare, Totals};
pub use logs::{LogContainer, LogExample, LogGroup};

use serde::{Deserialize, Serialize, Serializer};

/// The version of `report.json`; it changes when a key changes its meaning or goes away.
pub const SCHEMA_VERSION: &str = "0.1";

/// A whole report. Serialised as it stands, it is `report.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: String,
    /// What wrote the report.
    pub tool: Tool,
    /// Which recordings it was made from.
    pub capture: Capture,
    /// What the recordings hold and what they miss.
    pub ledger: Ledger,
    /// All requests of the capture, each counted once (as a call, where both ends were seen).
    pub overall: Golden,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// Every check, also those that passed or could not run.
    pub checks: Vec<Check>,
    /// Who answers requests, worst first.
    pub services: Vec<Service>,
    /// Who calls whom, worst first.
    pub edges: Vec<Edge>,
    /// What Kubernetes deploys, worst first.
    pub workloads: Vec<Workload>,
    /// Its pods, by workload, then the youngest last.
    pub pods: Vec<Pod>,
    /// Requests by the labels that were asked for (`--group-by`).
    pub groups: Vec<LabelGroup>,
    /// Hosts, by name.
    pub nodes: Vec<Node>,
    /// Statements by fingerprint, by total time.
    pub sql: Vec<Statement>,
    /// Distributed traces.
    pub traces: Vec<Trace>,
    /// Transport: totals, and the connections worth a look.
    pub network: Network,
    /// Lines of container logs that are alike, worst and most frequent first.
    #[serde(default)]
    pub logs: Vec<LogGroup>,
    /// What became of each container's log lines, most left out first.
    #[serde(default)]
    pub log_containers: Vec<LogContainer>,
    /// CPU profiles.
    pub profiles: Vec<Profile>,
    /// What changed during the capture or in the hour before it, by time.
    pub changes: Vec<Change>,
}

/// The program that wrote the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// `kfr`.
    pub name: String,
    /// Its version, `0.1.0`.
    pub version: String,
}

/// The recording(s) behind the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// The cluster's name, where one is known.
    pub cluster: Option<String>,
    /// Names of the recorded nodes, sorted.
    pub nodes: Vec<String>,
    /// First moment covered by any bundle; null where no clock anchor ties it to the wall clock.
    pub start_ns: Option<u64>,
    /// Last moment covered by any bundle.
    pub end_ns: Option<u64>,
    /// Length of the window; known even without clock anchors.
    pub duration_ns: Option<u64>,
    /// Width of one step of every [`Golden::series`].
    pub step_ns: u64,
    /// The weakest redaction level among the bundles: `none`, `values`, ...
    pub redaction: String,
    /// True where SQL literals, query strings and secrets are masked in this report.
    pub masked: bool,
    /// Bound on the error between clocks of different nodes; null on one node or where unknown.
    pub clock_error_ns: Option<u64>,
    /// The bundles, in the order of the command line.
    pub bundles: Vec<Bundle>,
}

/// One `.kfr` file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// File name without its folder.
    pub file: String,
    /// The bundle's UUID.
    pub id: String,
    /// The short origin used in evidence addresses.
    pub origin: String,
    /// Where it was recorded.
    pub node: String,
    /// Kernel release, as `uname -r` has it.
    pub kernel: Option<String>,
    /// `sock` or `syscall`; null for an imported packet capture.
    pub hook: Option<String>,
    /// Options it was recorded with, in a fixed order.
    pub options: Vec<Setting>,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file in hex, where it was computed.
    pub sha256: Option<String>,
    /// First moment covered.
    pub start_ns: Option<u64>,
    /// Last moment covered.
    pub end_ns: Option<u64>,
    /// False where the footer is missing or blocks were skipped.
    pub whole: bool,
}

impl Bundle {
    /// The option that names the packet capture which a bundle was made of.
    pub const IMPORTED_FROM: &str = "imported from";
}

/// A name and its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Such as `payload-limit`.
    pub name: String,
    /// Such as `4KiB`.
    pub value: String,
}

/// How bad something is. The order is worst last, so that `max` picks the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    #[default]
    Info,
    /// Hurts, or weakens a figure.
    Warning,
    /// Users are hit, or a figure can't be trusted.
    Critical,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// One weak sign.
    #[default]
    Low,
    /// Several signs agree, or one strong one.
    Medium,
    /// Measured directly, nothing speaks against it.
    High,
}

/// What a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// `service`, `endpoint`, `edge`, `statement`, `node`, `connection`, `capture`.
    pub kind: String,
    /// Readable name.
    pub name: String,
    /// Id of the [`Service`], [`Edge`], [`Statement`] (its fingerprint), [`Node`] or [`Connection`] to link to.
    pub id: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable for the same bundle: derived from check and subject.
    pub id: String,
    /// Id of the [`Check`] that raised it.
    pub check: String,
    /// How bad.
    pub severity: Severity,
    /// About what.
    pub subject: Subject,
    /// One sentence: "p99 of GET /cart went from 12 ms to 840 ms".
    pub title: String,
    /// When it began; null where it was so from the start or can't be told.
    pub onset_ns: Option<u64>,
    /// How sure.
    pub confidence: Confidence,
    /// Why it was raised, with the figures.
    pub reasons: Vec<String>,
    /// What else it could have been, and why it is not.
    pub ruled_out: Vec<String>,
    /// Who suffers from it.
    pub victims: Vec<Subject>,
    /// Event addresses `ORIGIN.BLOCK:ROW`.
    pub evidence: Vec<String>,
    /// A command that shows it.
    pub verify: Option<String>,
    /// Ids of the [`LedgerEntry`]s that weaken it.
    pub weakened_by: Vec<String>,
}

/// What became of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran and found nothing.
    #[default]
    Passed,
    /// It raised at least one finding.
    Raised,
    /// It could not run; the reason says why.
    NotRun,
}

/// One check of the registry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Such as `sql.n_plus_one`.
    pub id: String,
    /// `service`, `sql`, `network`, `host`, ...
    pub area: String,
    /// What it looks for.
    pub title: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The limit it compares with, and its unit: `over 20 calls of one statement in a request`.
    pub threshold: Option<String>,
    /// Why it could not run, or what was seen.
    pub reason: Option<String>,
}

/// Rounds to four significant digits; what is no number becomes none.
#[must_use]
pub fn rounded(value: f64) -> Option<f64> {
    // Formatting and parsing are exact and the same on every machine, which powers of ten are not.
    value.is_finite().then(|| format!("{value:.3e}").parse().ok()).flatten()
}

pub(crate) fn write_rounded<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.and_then(rounded).serialize(serializer)
}
