//! Checks over services and their endpoints.

use kfr_protocols::NAMELESS;

use super::{Verdict, finding, subject, verify};
use crate::report::document::{Confidence, Document, Endpoint, Finding, Golden, Service, Severity};
use crate::report::text::{duration, one_line, percent};

/// Requests below which a share says little.
const ENOUGH: u64 = 20;
/// Most findings of one check: the worst ones; a report of a hundred equal lines helps nobody.
const MOST: usize = 10;
const CRITICAL_RATIO: f64 = 0.05;
const WARNING_RATIO: f64 = 0.01;

fn name(service: &Service, endpoint: &Endpoint) -> String {
    let target = endpoint.target.as_deref().unwrap_or_default();
    one_line(format!("{} {} on {}", endpoint.op, target, service.name).replace("  ", " ").as_str(), 120)
}

/// Endpoints that a finding can be about: what has no name is no endpoint, but whatever was cut.
fn named(service: &Service) -> impl Iterator<Item = &Endpoint> {
    service.endpoints.iter().filter(|endpoint| endpoint.op != NAMELESS)
}

/// The first time step in which more than `limit` of the requests failed, if that was not the first of all.
fn onset(golden: &Golden, bad: impl Fn(&crate::report::document::Point) -> bool) -> Option<u64> {
    let mut points = golden.series.iter().filter(|point| point.judged() > 0);
    let first = points.next()?;
    if bad(first) {
        return None;
    }
    points.find(|point| bad(point)).map(|point| point.start_ns)
}

/// Endpoints that answer with errors.
pub fn errors(document: &Document) -> Verdict {
    let mut found: Vec<(f64, Finding)> = Vec::new();
    for service in &document.services {
        for endpoint in named(service) {
            let golden = &endpoint.golden;
            let ratio = golden.error_ratio.unwrap_or_default();
            let judged = golden.judged();
            if judged < ENOUGH || ratio <= WARNING_RATIO {
                continue;
            }
            let severity = if ratio > CRITICAL_RATIO { Severity::Critical } else { Severity::Warning };
            let about = name(service, endpoint);
            let title = format!("{about}: {} of {} requests failed ({})", golden.errors, judged, percent(ratio));
            let mut one =
                finding(severity, Confidence::High, subject("service", &service.name, Some(&service.id)), title);
            one.id = about;
            one.onset_ns = onset(&service.inbound, |point| point.errors as f64 > point.judged() as f64 * WARNING_RATIO);
            one.reasons = vec![format!("{} errors in {} requests", golden.errors, judged)];
            if golden.unknown > 0 {
                one.reasons.push(format!("{} more, whose outcome was not seen, are not among them", golden.unknown));
            }
            if golden.unanswered == 0 && golden.unknown == 0 {
                one.ruled_out.push("lost connections: every request was answered".to_string());
            }
            one.evidence = endpoint.first_error.as_ref().map(|error| error.evidence.clone()).unwrap_or_default();
            one.verify = verify(document, &one.evidence);
            found.push((ratio * judged as f64, one));
        }
    }
    worst(found)
}

/// Services that leave requests unanswered.
pub fn unanswered(document: &Document) -> Verdict {
    let services = document.services.iter().filter(|service| {
        service.inbound.judged() >= ENOUGH
            && service.inbound.unanswered as f64 > service.inbound.judged() as f64 * WARNING_RATIO
    });
    let found = services.map(|service| {
        let golden = &service.inbound;
        let title = format!("{}: {} of {} requests have no answer", service.name, golden.unanswered, golden.judged());
        let mut one =
            finding(Severity::Warning, Confidence::Medium, subject("service", &service.name, Some(&service.id)), title);
        one.reasons = vec!["the connection or the recording ended before the answer".to_string()];
        (golden.unanswered as f64, one)
    });
    worst(found.collect())
}

/// Endpoints that are slow.
pub fn latency(document: &Document) -> Verdict {
    let mut found: Vec<(f64, Finding)> = Vec::new();
    for service in &document.services {
        for endpoint in named(service) {
            let limit_ns = match endpoint.protocol.as_str() {
                "redis" => 5_000_000,
                // Statements have a check of their own.
                "mysql" => continue,
                _ => 500_000_000,
            };
            let golden = &endpoint.golden;
            let Some(p95_ns) = golden.p95_ns.filter(|p95| *p95 > limit_ns && golden.requests >= ENOUGH) else {
                continue;
            };
            let about = name(service, endpoint);
            let title = format!("{about}: p95 is {} over {} requests", duration(p95_ns), golden.requests);
            let mut one = finding(
                Severity::Warning,
                Confidence::High,
                subject("service", &service.name, Some(&service.id)),
                title,
            );
            one.id = about;
            let figures = [("median", golden.p50_ns), ("p99", golden.p99_ns), ("slowest", golden.max_ns)];
            one.reasons =
                figures.iter().filter_map(|(name, value)| Some(format!("{name} {}", duration((*value)?)))).collect();
            one.evidence = endpoint.slowest.as_ref().map(|slowest| slowest.evidence.clone()).unwrap_or_default();
            one.verify = verify(document, &one.evidence);
            found.push((p95_ns as f64, one));
        }
    }
    worst(found)
}

fn worst(mut found: Vec<(f64, Finding)>) -> Verdict {
    found.sort_by(|(a, a_finding), (b, b_finding)| b.total_cmp(a).then_with(|| a_finding.title.cmp(&b_finding.title)));
    Verdict::Ran(found.into_iter().take(MOST).map(|(_, finding)| finding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(op: &str, golden: Golden) -> Document {
        let endpoint = Endpoint { op: op.to_string(), protocol: "redis".to_string(), golden, ..Endpoint::default() };
        let service = Service { name: "cache".to_string(), endpoints: vec![endpoint], ..Service::default() };
        Document { services: vec![service], ..Document::default() }
    }

    fn titles(check: fn(&Document) -> Verdict, document: &Document) -> Vec<String> {
        match check(document) {
            Verdict::Ran(found) => found.into_iter().map(|finding| finding.title).collect(),
            Verdict::NotRun(reason) => vec![reason],
        }
    }

    #[test]
    fn what_has_no_name_raises_nothing() {
        let bad = Golden {
            requests: 100,
            errors: 50,
            error_ratio: Some(0.5),
            p95_ns: Some(9_000_000_000),
            ..Golden::default()
        };
        for (op, findings) in [("GET", 1), (NAMELESS, 0)] {
            let document = document(op, bad.clone());
            assert_eq!(titles(errors, &document).len(), findings, "{op}");
            assert_eq!(titles(latency, &document).len(), findings, "{op}");
        }
    }

    #[test]
    fn errors_are_a_share_of_what_was_seen() {
        let golden = Golden { requests: 100, errors: 15, unknown: 70, error_ratio: Some(0.5), ..Golden::default() };
        assert_eq!(
            titles(errors, &document("GET", golden.clone())),
            ["GET on cache: 15 of 30 requests failed (50.0%)"]
        );
        // Too few of which it is known.
        let golden = Golden { unknown: 85, ..golden };
        assert!(titles(errors, &document("GET", golden)).is_empty());
    }
}
