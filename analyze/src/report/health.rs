//! Health of services and edges, from error shares and findings.

use super::document::{Edge, Golden, ServiceKind, Severity};

/// From this share of errors on, a service or an edge is marked as a warning.
pub const ERRORS_WARNING: f64 = 0.01;
/// From this share of errors on, it is marked as critical.
pub const ERRORS_CRITICAL: f64 = 0.05;

/// How something does. The order is worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Nothing was seen to judge by.
    #[default]
    Unknown,
    /// No sign of trouble.
    Healthy,
    /// Some errors, or a finding that warns.
    Warning,
    /// Many errors, or a critical finding.
    Critical,
}

impl Health {
    /// By the share of failures among the requests whose outcome is known. What clients did wrong (HTTP 4xx) is no sign of
    /// bad health.
    #[must_use]
    pub fn of_golden(golden: &Golden) -> Self {
        if golden.judged() == 0 {
            return Self::Unknown;
        }
        let ratio = golden.server_errors() as f64 / golden.judged() as f64;
        if ratio >= ERRORS_CRITICAL {
            Self::Critical
        } else if ratio >= ERRORS_WARNING {
            Self::Warning
        } else {
            Self::Healthy
        }
    }

    /// Of an edge: requests, and connections that failed.
    #[must_use]
    pub fn of_edge(edge: &Edge) -> Self {
        let failed = edge.failed_connects.unwrap_or(0);
        let connects = match failed {
            0 => Self::Unknown,
            // Most attempts fail: nobody is there.
            n if n * 2 >= edge.connections => Self::Critical,
            _ => Self::Warning,
        };
        connects.max(Self::of_golden(&edge.golden))
    }

    /// Of a finding's severity; what is only worth knowing says nothing about health.
    #[must_use]
    pub fn of_severity(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Healthy,
            Severity::Warning => Self::Warning,
            Severity::Critical => Self::Critical,
        }
    }

    /// For style sheets.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Unknown => "none",
            Self::Healthy => "ok",
            Self::Warning => "warn",
            Self::Critical => "bad",
        }
    }

    /// For people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "no data",
            Self::Healthy => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// A sign of its own for each state, so that colour is never needed.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Unknown => "○",
            Self::Healthy => "●",
            Self::Warning => "▲",
            Self::Critical => "■",
        }
    }

    /// The same sign as a path, centred here.
    #[must_use]
    pub fn shape(self, x: i32, y: i32) -> String {
        match self {
            Self::Critical => format!("M{} {}h10v10h-10z", x - 5, y - 5),
            Self::Warning => format!("M{x} {}l6 11h-12z", y - 6),
            Self::Healthy | Self::Unknown => format!("M{} {y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z", x - 5),
        }
    }
}

impl ServiceKind {
    /// For people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Container => "container",
            Self::Process => "process",
            Self::Workload => "workload",
            Self::Service => "service",
            Self::External => "external",
        }
    }
}
