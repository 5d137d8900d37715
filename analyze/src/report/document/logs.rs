//! Container logs: lines that are alike, and what became of each container's lines.

use serde::{Deserialize, Serialize};

/// Lines of one workload's container that are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogGroup {
    /// Stable for the same bundle.
    pub id: String,
    /// Name of the workload; null where Kubernetes was not asked or doesn't know the pod.
    pub workload: Option<String>,
    /// Id of the service of that workload, where it has one.
    pub service: Option<String>,
    /// Pods that wrote them, `namespace/name`: at most eight, by name.
    pub pods: Vec<String>,
    /// How many pods there are; at most 64 are told apart.
    pub pods_total: u64,
    /// Container.
    pub container: String,
    /// `fatal`, `error`, `warning`, `info`, `debug`; null where the lines don't say.
    pub level: Option<String>,
    /// What they have in common: numbers, times, addresses and ids are `{n}`, `{time}`, `{ip}`, `{id}`, quoted text `?`.
    pub pattern: String,
    /// How many there are; lines of stack traces belong to the line above them and are not counted.
    pub count: u64,
    /// When the first was written.
    pub first_ns: u64,
    /// When the last was written.
    pub last_ns: u64,
    /// Lines in each step of the window, from `capture.start_ns` on, [`super::Capture::step_ns`] wide.
    pub series: Vec<u64>,
    /// The first one that was read.
    pub example: LogExample,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogExample {
    /// When it was written, by the container runtime's stamp.
    pub time_ns: u64,
    /// Pod, `namespace/name`.
    pub pod: String,
    /// `stdout`, `stderr`; null where unknown.
    pub stream: Option<String>,
    /// The line, with the lines of its stack trace; secrets were masked when it was recorded.
    pub text: String,
    /// Trace that it names.
    pub trace_id: Option<String>,
    /// Request that it names.
    pub request_id: Option<String>,
    /// Its address `ORIGIN.BLOCK:ROW`.
    pub evidence: String,
}

/// What became of a container's lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogContainer {
    /// Pod, `namespace/name`.
    pub pod: String,
    /// Container.
    pub container: String,
    /// Name of the workload, where known.
    pub workload: Option<String>,
    /// Lines written within the capture, kept or not.
    pub lines: u64,
    /// Bytes that the container runtime wrote for them.
    pub bytes: u64,
    /// Lines in the bundle.
    pub lines_kept: u64,
    /// Lines left out because a bound was reached.
    pub lines_dropped: u64,
    /// Bytes passed over unread; their lines are in no other count.
    pub bytes_unread: u64,
    /// Why a file of it could not be read.
    pub refused: Option<String>,
}
