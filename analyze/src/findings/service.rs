//! Checks over services and their endpoints.

use kfr_protocols::NAMELESS;

use super::cause::{Trouble, endpoint_name};
use super::{ENOUGH, Found, Verdict, WARNING_RATIO, codes, failing, finding, subject, verify};
use crate::report::document::{Confidence, Document, Endpoint, Service, Severity};
use crate::report::text::{duration, percent, plural};

/// Most findings of one check: the worst ones; a report of a hundred equal lines helps nobody.
const MOST: usize = 10;
/// Clients get something wrong all the time; only from this share on is it worth a line.
const CLIENT_RATIO: f64 = 0.1;

fn endpoints(document: &Document) -> impl Iterator<Item = (usize, usize, &Service, &Endpoint)> {
    document.services.iter().enumerate().flat_map(|(number, service)| {
        // What has no name is no endpoint, but whatever was cut.
        let named = service.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.op != NAMELESS);
        named.map(move |(place, endpoint)| (number, place, service, endpoint))
    })
}

fn share_of_all(document: &Document, requests: u64) -> f64 {
    requests as f64 / document.overall.requests.max(1) as f64
}

fn is_client_code(code: &str) -> bool {
    code.len() == 3 && code.starts_with('4')
}

/// Endpoints that fail: HTTP 5xx, and errors of protocols that don't say whose fault they are.
pub fn errors(document: &Document) -> Verdict {
    let mut found: Vec<(f64, Found)> = Vec::new();
    for (number, place, service, endpoint) in endpoints(document) {
        let golden = &endpoint.golden;
        let failed = golden.server_errors();
        let Some((severity, confidence)) = failing(failed, golden.judged()) else { continue };
        let about = endpoint_name(document, number, place);
        let share = percent(failed as f64 / golden.judged() as f64);
        let is_http = endpoint.protocol.starts_with("http");
        let codes = codes(endpoint, |code| !is_http || !is_client_code(code));
        let title = format!("{about}: {failed} of {} requests failed, {share}{codes}", golden.judged());
        let mut one = finding(severity, confidence, subject("service", &service.name, Some(&service.id)), title);
        one.id = about;
        one.onset_ns = endpoint.errors_since_ns;
        one.reasons = vec![format!("{} in {} requests", plural(failed, "error", "errors"), golden.judged())];
        if golden.client_errors > 0 {
            let refused = plural(golden.client_errors, "more request was", "more requests were");
            one.reasons.push(format!("{refused} refused as the client's fault (4xx)"));
        }
        if golden.unknown > 0 {
            let unknown = plural(golden.unknown, "more, whose outcome was", "more, whose outcomes were");
            one.reasons.push(format!("{unknown} not seen, not counted here"));
        }
        if golden.unanswered == 0 && golden.unknown == 0 {
            one.ruled_out.push("lost connections: every request was answered".to_string());
        }
        one.evidence = endpoint.first_error.as_ref().map(|error| error.evidence.clone()).unwrap_or_default();
        one.verify = verify(document, &one.evidence);
        let impact = share_of_all(document, failed);
        found.push((failed as f64, Found { finding: one, impact, place: Some((Trouble::Errors, number, place)) }));
    }
    worst(found)
}

/// Endpoints whose clients ask wrongly: HTTP 4xx. That is a hint, not a failure of the service.
pub fn client_errors(document: &Document) -> Verdict {
    let mut found: Vec<(f64, Found)> = Vec::new();
    for (number, place, service, endpoint) in endpoints(document) {
        let golden = &endpoint.golden;
        let (refused, requests) = (golden.client_errors, golden.judged());
        if requests < ENOUGH || refused as f64 <= requests as f64 * CLIENT_RATIO {
            continue;
        }
        let about = endpoint_name(document, number, place);
        let known: Vec<_> = endpoint.error_codes.iter().filter(|one| is_client_code(&one.code)).collect();
        let code = match known.as_slice() {
            [one] if one.count == refused => one.code.clone(),
            _ => format!("4xx{}", codes(endpoint, is_client_code)),
        };
        // What is not there is asked for by every crawler and browser.
        let is_missing = known.first().is_some_and(|one| ["404", "405", "410"].contains(&one.code.as_str()));
        let severity = if refused * 2 > requests && !is_missing { Severity::Warning } else { Severity::Info };
        let title = format!("{about}: {refused} of {requests} answers are {code}");
        let mut one =
            finding(severity, Confidence::Medium, subject("service", &service.name, Some(&service.id)), title);
        one.id = about;
        // The onset is that of failures, where there are any.
        one.onset_ns = endpoint.errors_since_ns.filter(|_| golden.server_errors() == 0);
        one.reasons = vec!["the server calls these the client's fault; whose it is, a request shows".to_string()];
        if golden.server_errors() == 0 {
            one.evidence = endpoint.first_error.as_ref().map(|error| error.evidence.clone()).unwrap_or_default();
        }
        one.verify = verify(document, &one.evidence);
        let place = (golden.server_errors() == 0).then_some((Trouble::Errors, number, place));
        found.push((refused as f64, Found { finding: one, impact: share_of_all(document, refused), place }));
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
        let title = format!("{} left {} of {} requests unanswered", service.name, golden.unanswered, golden.judged());
        let mut one =
            finding(Severity::Warning, Confidence::Medium, subject("service", &service.name, Some(&service.id)), title);
        one.reasons = vec!["the connection or the recording ended before the answer".to_string()];
        let impact = share_of_all(document, golden.unanswered);
        (golden.unanswered as f64, Found { finding: one, impact, place: None })
    });
    worst(found.collect())
}

/// Endpoints that are slow.
pub fn latency(document: &Document) -> Verdict {
    let mut found: Vec<(f64, Found)> = Vec::new();
    for (number, place, service, endpoint) in endpoints(document) {
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
        let about = endpoint_name(document, number, place);
        let title = format!("{about}: p95 is {} over {} requests", duration(p95_ns), golden.requests);
        let mut one =
            finding(Severity::Warning, Confidence::High, subject("service", &service.name, Some(&service.id)), title);
        one.id = about;
        let figures = [("median", golden.p50_ns), ("p99", golden.p99_ns), ("slowest", golden.max_ns)];
        one.reasons =
            figures.iter().filter_map(|(name, value)| Some(format!("{name} {}", duration((*value)?)))).collect();
        one.evidence = endpoint.slowest.as_ref().map(|slowest| slowest.evidence.clone()).unwrap_or_default();
        one.verify = verify(document, &one.evidence);
        let impact = share_of_all(document, golden.requests / 20);
        let place = Some((Trouble::Latency, number, place));
        found.push((p95_ns as f64, Found { finding: one, impact, place }));
    }
    worst(found)
}

fn worst(mut found: Vec<(f64, Found)>) -> Verdict {
    found.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.finding.title.cmp(&other.finding.title)));
    Verdict::ran(found.into_iter().take(MOST).map(|(_, found)| found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::Golden;

    fn document(op: &str, golden: Golden) -> Document {
        let endpoint = Endpoint { op: op.to_string(), protocol: "redis".to_string(), golden, ..Endpoint::default() };
        let service = Service { name: "cache".to_string(), endpoints: vec![endpoint], ..Service::default() };
        Document { services: vec![service], ..Document::default() }
    }

    fn titles(check: fn(&Document) -> Verdict, document: &Document) -> Vec<String> {
        match check(document) {
            Verdict::Ran(found) => found.into_iter().map(|found| found.finding.title).collect(),
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
        assert_eq!(titles(errors, &document("GET", golden.clone())), ["GET on cache: 15 of 30 requests failed, 50.0%"]);
        // Too few of which it is known.
        let golden = Golden { errors: 5, unknown: 95, ..golden };
        assert!(titles(errors, &document("GET", golden)).is_empty());
    }
}
