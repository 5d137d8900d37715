//! Golden metrics: rate, errors, duration, slow calls.

use super::write_rounded;
use serde::{Deserialize, Serialize};

/// Golden metrics of a service, an endpoint, an edge, or everything.
///
/// Latencies come from integer histograms or exact values; they cover answered requests only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Requests seen, with or without an answer.
    pub requests: u64,
    /// Requests whose answer was an error.
    pub errors: u64,
    /// Of these errors, those that the server blamed on its client: HTTP 4xx.
    #[serde(default)]
    pub client_errors: u64,
    /// Requests without an answer when the capture ended or the connection closed.
    pub unanswered: u64,
    /// Requests whose outcome was not seen: what tells was cut or lost.
    #[serde(default)]
    pub unknown: u64,
    /// Requests a second over the window; null where the window's length is unknown.
    #[serde(serialize_with = "write_rounded")]
    pub rate_per_s: Option<f64>,
    /// `errors / (requests - unknown)`, from 0 to 1; null where no outcome was seen.
    #[serde(serialize_with = "write_rounded")]
    pub error_ratio: Option<f64>,
    /// Median duration.
    pub p50_ns: Option<u64>,
    /// 95th percentile of duration.
    pub p95_ns: Option<u64>,
    /// 99th percentile of duration.
    pub p99_ns: Option<u64>,
    /// Longest duration.
    pub max_ns: Option<u64>,
    /// Answered requests that took longer than [`Golden::slow_threshold_ns`].
    pub slow: u64,
    /// What counts as slow here; null where no threshold applies (then `slow` means nothing).
    pub slow_threshold_ns: Option<u64>,
    /// Bytes of the requests on the wire.
    pub request_bytes: u64,
    /// Bytes of the answers on the wire.
    pub response_bytes: u64,
    /// Over time. A step that is *absent* was not observed and is drawn as a gap; a step with `requests: 0` was.
    pub series: Vec<Point>,
}

impl Golden {
    /// Errors that are not the client's own: HTTP 5xx, and every error of protocols that don't tell.
    #[must_use]
    pub fn server_errors(&self) -> u64 {
        self.errors.saturating_sub(self.client_errors)
    }

    /// Requests whose outcome is known: what shares of errors are of.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.requests.saturating_sub(self.unknown)
    }
}

impl Point {
    /// Requests whose outcome is known.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.requests.saturating_sub(self.unknown)
    }
}

/// One step of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// When the step begins; its width is [`super::Capture::step_ns`].
    pub start_ns: u64,
    /// Requests that began in it.
    pub requests: u64,
    /// Of these, answered by an error.
    pub errors: u64,
    /// Of these, with an outcome that was not seen.
    #[serde(default)]
    pub unknown: u64,
    /// Median duration; null without an answered request.
    pub p50_ns: Option<u64>,
    /// 99th percentile of duration.
    pub p99_ns: Option<u64>,
}
