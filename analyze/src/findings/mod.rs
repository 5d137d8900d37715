//! What is wrong: a list of checks over the report's document. A check is one function and one line in [`CHECKS`].

mod capture;
mod cause;
mod host;
mod kubernetes;
mod network;
mod service;
mod sql;

use std::collections::BTreeSet;

use crate::dump::fingerprint;
use crate::report::document::{Check, Confidence, Document, Endpoint, Finding, Outcome, Severity, Subject};
use crate::report::text::one_line;
use cause::Place;

/// What a check says.
pub enum Verdict {
    /// It ran; these are what it found.
    Ran(Vec<Found>),
    /// It could not run, and why.
    NotRun(String),
}

impl Verdict {
    fn ran<F: Into<Found>>(found: impl IntoIterator<Item = F>) -> Self {
        Self::Ran(found.into_iter().map(Into::into).collect())
    }
}

/// A finding, and what it takes to compare it with others and to join them.
pub struct Found {
    finding: Finding,
    /// Share of all requests that it hits, or of all time that it takes: the order of those as bad and as sure.
    impact: f64,
    /// The endpoint that is bad, where it is one.
    place: Option<Place>,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        Self { finding, impact: 0.0, place: None }
    }
}

/// A check of the registry.
pub struct CheckEntry {
    /// `AREA.NAME`.
    pub id: &'static str,
    /// What it looks for.
    pub title: &'static str,
    /// Its limit, with the unit.
    pub threshold: &'static str,
    run: fn(&Document) -> Verdict,
}

/// Every check.
pub static CHECKS: &[CheckEntry] = &[
    CheckEntry {
        id: "service.errors",
        title: "Requests answered with errors",
        threshold: "over 1 % of at least 20 requests to an endpoint, or over half of at least 10; HTTP 4xx not counted",
        run: service::errors,
    },
    CheckEntry {
        id: "service.client_errors",
        title: "Requests refused as the client's fault",
        threshold: "HTTP 4xx: over 10 % of at least 20 requests to an endpoint",
        run: service::client_errors,
    },
    CheckEntry {
        id: "service.unanswered",
        title: "Requests without an answer",
        threshold: "over 1 % of at least 20 requests to a service",
        run: service::unanswered,
    },
    CheckEntry {
        id: "service.latency",
        title: "Slow endpoints",
        threshold: "p95 over 500 ms (Redis: 5 ms), of at least 20 requests",
        run: service::latency,
    },
    CheckEntry {
        id: "sql.latency",
        title: "Slow statements",
        threshold: "p95 over 100 ms of at least 10 calls; of fewer, the longest, and over 25 % of all statements' time",
        run: sql::latency,
    },
    CheckEntry {
        id: "sql.dominant",
        title: "One statement takes most of the database's time",
        threshold: "over 50 % of all statements' time, each call over five times the others' mean",
        run: sql::dominant,
    },
    CheckEntry {
        id: "sql.n_plus_one",
        title: "One query, then one for each of its rows",
        threshold: "at least 10 calls of a statement in a row on a connection; surer behind a statement with about as \
                    many rows (half to 1.2 times)",
        run: sql::n_plus_one,
    },
    CheckEntry {
        id: "sql.idle_in_transaction",
        title: "Transactions left open while nothing is asked",
        threshold: "over 1 s between two requests of one connection",
        run: sql::idle_in_transaction,
    },
    CheckEntry {
        id: "sql.errors",
        title: "Failing statements",
        threshold: "over 1 % of at least 20 calls, or over half of at least 10",
        run: sql::errors,
    },
    CheckEntry { id: "network.connects", title: "Failed connects", threshold: "any", run: network::failed_connects },
    CheckEntry {
        id: "network.retransmissions",
        title: "Retransmitted segments",
        threshold: "over 1 % of segments sent",
        run: network::retransmissions,
    },
    CheckEntry {
        id: "network.resets",
        title: "Connections reset",
        threshold: "over 1 % of an edge's connections",
        run: network::resets,
    },
    CheckEntry { id: "host.cpu", title: "Node out of CPU", threshold: "over 80 % busy on average", run: host::cpu },
    CheckEntry {
        id: "host.memory",
        title: "Tasks stalled for memory",
        threshold: "over 2 % of the time",
        run: host::memory,
    },
    CheckEntry {
        id: "kubernetes.revision",
        title: "A new revision does worse than the old one",
        threshold: "of at least 10 requests to each: over 5 % failed, three times the old one's share; or a p95 twice the \
                    old one's and 50 ms longer",
        run: kubernetes::revisions,
    },
    CheckEntry {
        id: "kubernetes.rollout",
        title: "Rollouts that don't get done",
        threshold: "the progress deadline passed, or over 180 s",
        run: kubernetes::rollouts,
    },
    CheckEntry {
        id: "kubernetes.oom_kills",
        title: "Containers killed for their memory",
        threshold: "any",
        run: kubernetes::oom_kills,
    },
    CheckEntry {
        id: "kubernetes.restarts",
        title: "Containers that end and are started again",
        threshold: "over 1 of a workload, or CrashLoopBackOff",
        run: kubernetes::restarts,
    },
    CheckEntry {
        id: "kubernetes.not_starting",
        title: "Pods that don't start",
        threshold: "any that has no node or no running container at the end",
        run: kubernetes::not_starting,
    },
    CheckEntry {
        id: "kubernetes.replicas",
        title: "Workloads short of pods",
        threshold: "at most 75 % of those wanted are ready at the end",
        run: kubernetes::replicas,
    },
    CheckEntry {
        id: "kubernetes.endpoints",
        title: "Services with nobody behind them",
        threshold: "any time, of Services that had somebody",
        run: kubernetes::endpoints,
    },
    CheckEntry {
        id: "kubernetes.probes",
        title: "Containers restarted by their liveness probe",
        threshold: "any",
        run: kubernetes::probes,
    },
    CheckEntry {
        id: "kubernetes.nodes",
        title: "Nodes in trouble, pods pushed off them",
        threshold: "any",
        run: kubernetes::nodes,
    },
    CheckEntry { id: "kubernetes.jobs", title: "Failed runs of Jobs", threshold: "any", run: kubernetes::jobs },
    CheckEntry { id: "capture.losses", title: "Events lost while recording", threshold: "any", run: capture::losses },
];

/// Runs all checks and puts their findings into the document, worst first.
pub fn run(document: &mut Document) {
    let mut findings = Vec::new();
    let mut checks = Vec::new();
    for entry in CHECKS {
        let (outcome, reason) = match (entry.run)(document) {
            Verdict::NotRun(reason) => (Outcome::NotRun, Some(reason)),
            Verdict::Ran(found) if found.is_empty() => (Outcome::Passed, None),
            Verdict::Ran(found) => {
                findings.extend(found.into_iter().map(|mut one| {
                    let finding = &mut one.finding;
                    finding.check = entry.id.to_string();
                    let subject = finding.subject.id.as_deref().unwrap_or(&finding.subject.name);
                    let about =
                        if finding.id.is_empty() { subject.to_string() } else { format!("{subject}/{}", finding.id) };
                    finding.id = format!("f-{}", fingerprint(entry.id, &about));
                    one
                }));
                (Outcome::Raised, None)
            }
        };
        checks.push(Check {
            id: entry.id.to_string(),
            area: entry.id.split('.').next().unwrap_or_default().to_string(),
            title: entry.title.to_string(),
            outcome,
            threshold: Some(entry.threshold.to_string()),
            reason,
        });
    }
    let mut findings = cause::join(document, findings);
    let order = |check: &str| CHECKS.iter().position(|entry| entry.id == check);
    findings.sort_by(|a, b| {
        let worst = b.finding.severity.cmp(&a.finding.severity).then(b.finding.confidence.cmp(&a.finding.confidence));
        worst
            .then(b.impact.total_cmp(&a.impact))
            .then_with(|| order(&a.finding.check).cmp(&order(&b.finding.check)))
            .then_with(|| a.finding.title.cmp(&b.finding.title))
    });
    let mut findings: Vec<Finding> = findings.into_iter().map(|one| one.finding).collect();
    let mut seen = BTreeSet::new();
    findings.retain(|finding| seen.insert(finding.id.clone()));
    for check in checks.iter_mut().filter(|check| check.outcome == Outcome::Raised) {
        if !findings.iter().any(|finding| finding.check == check.id) {
            check.reason = Some("told by the finding of another check: one cause".to_string());
        }
    }
    document.findings = findings;
    document.checks = checks;
}

/// A finding with what every check fills in.
fn finding(severity: Severity, confidence: Confidence, subject: Subject, title: String) -> Finding {
    Finding { severity, confidence, subject, title, ..Finding::default() }
}

fn subject(kind: &str, name: &str, id: Option<&str>) -> Subject {
    Subject { kind: kind.to_string(), name: name.to_string(), id: id.map(String::from) }
}

/// Requests below which a share says little.
const ENOUGH: u64 = 20;
const WARNING_RATIO: f64 = 0.01;
const CRITICAL_RATIO: f64 = 0.05;

/// How bad it is that so many of so many failed; `None` where it is not, or where they are too few to tell.
fn failing(failed: u64, of: u64) -> Option<(Severity, Confidence)> {
    let ratio = failed as f64 / of.max(1) as f64;
    let enough = of >= ENOUGH || (of >= ENOUGH / 2 && ratio > 0.5);
    if !enough || ratio <= WARNING_RATIO {
        return None;
    }
    let severity = if ratio > CRITICAL_RATIO { Severity::Critical } else { Severity::Warning };
    // A handful may be a coincidence.
    let confidence = if failed < 5 { Confidence::Medium } else { Confidence::High };
    Some((severity, confidence))
}

/// ` (404)`, or ` (404, 410)`: the codes of an endpoint's errors that pass.
fn codes(endpoint: &Endpoint, pick: impl Fn(&str) -> bool) -> String {
    let codes: Vec<&str> =
        endpoint.error_codes.iter().map(|one| one.code.as_str()).filter(|code| pick(code)).take(3).collect();
    if codes.is_empty() { String::new() } else { format!(" ({})", one_line(&codes.join(", "), 60)) }
}

/// The name of a service by its id.
fn service_name<'a>(document: &'a Document, id: &'a str) -> &'a str {
    document.services.iter().find(|service| service.id == id).map_or(id, |service| service.name.as_str())
}

/// `kfr dump` for the first piece of evidence.
fn verify(document: &Document, evidence: &[String]) -> Option<String> {
    let first = evidence.first()?;
    let origin = first.split('.').next()?;
    let file =
        document.capture.bundles.iter().find(|bundle| bundle.origin == origin).map(|bundle| bundle.file.as_str())?;
    Some(format!("kfr dump {} --at {first}", crate::report::text::shell_word(file)))
}

#[cfg(test)]
mod tests;
