//! What is wrong: a list of checks over the report's document. A check is one function and one line in [`CHECKS`].

mod capture;
mod host;
mod network;
mod service;
mod sql;

use std::collections::BTreeSet;

use crate::dump::fingerprint;
use crate::report::document::{Check, Confidence, Document, Finding, Outcome, Severity, Subject};

/// What a check says.
pub enum Verdict {
    /// It ran; these are what it found.
    Ran(Vec<Finding>),
    /// It could not run, and why.
    NotRun(String),
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
        threshold: "over 1 % of at least 20 requests to an endpoint",
        run: service::errors,
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
    CheckEntry { id: "sql.latency", title: "Slow statements", threshold: "p95 over 100 ms", run: sql::latency },
    CheckEntry {
        id: "sql.dominant",
        title: "One statement takes most of the database's time",
        threshold: "over 50 % of all statements' time, each call over five times the others' mean",
        run: sql::dominant,
    },
    CheckEntry {
        id: "sql.n_plus_one",
        title: "One query, then one for each of its rows",
        threshold: "at least 10 calls of a statement in a row on a connection, half of its calls in such runs",
        run: sql::n_plus_one,
    },
    CheckEntry { id: "sql.errors", title: "Failing statements", threshold: "over 1 % of calls", run: sql::errors },
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
                findings.extend(found.into_iter().map(|mut finding| {
                    finding.check = entry.id.to_string();
                    let subject = finding.subject.id.as_deref().unwrap_or(&finding.subject.name);
                    let about =
                        if finding.id.is_empty() { subject.to_string() } else { format!("{subject}/{}", finding.id) };
                    finding.id = format!("f-{}", fingerprint(entry.id, &about));
                    finding
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
    let confidence = |finding: &Finding| finding.confidence;
    findings.sort_by(|a: &Finding, b: &Finding| {
        b.severity.cmp(&a.severity).then_with(|| confidence(b).cmp(&confidence(a))).then_with(|| a.id.cmp(&b.id))
    });
    let mut seen = BTreeSet::new();
    findings.retain(|finding| seen.insert(finding.id.clone()));
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
