//! Checks over statements.

use super::cause::{Trouble, place_of};
use super::{Found, Verdict, codes, failing, finding, service_name, subject, verify};
use crate::report::document::{Confidence, Document, Finding, Severity, Statement, Subject};
use crate::report::text::{duration, one_line, percent, plural};
use crate::sql::RUN_OF_NOTE;

const SLOW_NS: u64 = 100_000_000;
/// Calls from which on a statement's percentiles and means say something.
const ENOUGH: u64 = 10;
/// Share of all statements' time from which on a few slow calls matter too.
const MUCH: f64 = 0.25;
/// A transaction that waits for its client this long keeps its locks, and old versions of rows, for as long. Far above
/// any pause between two statements that a program makes by itself.
const IDLE_NS: u64 = 1_000_000_000;
const MOST: usize = 5;

fn about(statement: &Statement) -> Subject {
    subject("statement", &one_line(&statement.text, 100), Some(&statement.fingerprint))
}

fn with_exemplar(document: &Document, statement: &Statement, trouble: Option<Trouble>, mut one: Finding) -> Found {
    one.evidence = statement.exemplar.as_ref().map(|exemplar| exemplar.evidence.clone()).unwrap_or_default();
    one.verify = verify(document, &one.evidence);
    one.victims = statement.callers.iter().map(|id| subject("service", service_name(document, id), Some(id))).collect();
    let place = trouble.and_then(|trouble| place_of(document, trouble, statement));
    Found { finding: one, impact: share_of_time(document, statement), place }
}

fn share_of_time(document: &Document, statement: &Statement) -> f64 {
    let total: u64 = document.sql.iter().map(|statement| statement.total_ns).sum();
    statement.total_ns as f64 / total.max(1) as f64
}

fn needs_statements(document: &Document) -> Option<Verdict> {
    document.sql.is_empty().then(|| Verdict::NotRun("no SQL statement was seen".to_string()))
}

/// Statements that are slow.
pub fn latency(document: &Document) -> Verdict {
    if let Some(not_run) = needs_statements(document) {
        return not_run;
    }
    let slow = document.sql.iter().filter(|statement| {
        let often = statement.calls >= ENOUGH && statement.p95_ns.is_some_and(|p95| p95 > SLOW_NS);
        let few = statement.calls < ENOUGH && statement.max_ns.is_some_and(|longest| longest > SLOW_NS);
        often || (few && share_of_time(document, statement) > MUCH)
    });
    let found = slow.take(MOST).map(|statement| {
        let text = one_line(&statement.text, 100);
        let calls = plural(statement.calls, "call", "calls");
        let (title, confidence) = if statement.calls >= ENOUGH {
            let p95 = duration(statement.p95_ns.unwrap_or_default());
            (format!("{text}: p95 is {p95} over {calls}"), Confidence::High)
        } else {
            let share = percent(share_of_time(document, statement));
            let total = duration(statement.total_ns);
            (format!("{text}: {total} in {calls}, {share} of all statement time"), Confidence::Medium)
        };
        let mut one = finding(Severity::Warning, confidence, about(statement), title);
        one.reasons = vec![format!("{} in total", duration(statement.total_ns))];
        with_exemplar(document, statement, Some(Trouble::Latency), one)
    });
    Verdict::ran(found)
}

/// A statement that takes most of the time and is much slower than the others: often a missing index.
pub fn dominant(document: &Document) -> Verdict {
    if let Some(not_run) = needs_statements(document) {
        return not_run;
    }
    let total: u64 = document.sql.iter().map(|statement| statement.total_ns).sum();
    let calls: u64 = document.sql.iter().map(|statement| statement.calls).sum();
    let found = document.sql.iter().take(1).filter_map(|first| {
        let mean = first.mean_ns?;
        let others = (total - first.total_ns).checked_div(calls - first.calls)?;
        if first.calls < ENOUGH || first.total_ns <= total / 2 || mean <= others.saturating_mul(5) {
            return None;
        }
        let share = percent(first.total_ns as f64 / total as f64);
        let title = format!("{}: {share} of all statement time", one_line(&first.text, 100));
        let mut one = finding(Severity::Warning, Confidence::Medium, about(first), title);
        one.reasons = vec![
            format!("mean {} against {} for all others", duration(mean), duration(others)),
            format!("{} calls, {} in total", first.calls, duration(first.total_ns)),
        ];
        if let Some(rows) = first.rows {
            let each = rows / first.calls.max(1);
            one.reasons.push(format!("{each} rows a call: it searches more than it returns if an index is missing"));
        }
        Some(with_exemplar(document, first, Some(Trouble::Latency), one))
    });
    Verdict::ran(found)
}

/// The same statement again and again on one connection.
pub fn n_plus_one(document: &Document) -> Verdict {
    if let Some(not_run) = needs_statements(document) {
        return not_run;
    }
    let run = |statement: &Statement| {
        let flag =
            statement.flags.iter().find_map(|flag| flag.strip_prefix("repeated ")?.strip_suffix(" times in a row"));
        flag.and_then(|length| length.parse::<u64>().ok()).filter(|length| *length >= RUN_OF_NOTE)
    };
    let repeated = document.sql.iter().filter_map(|statement| Some((statement, run(statement)?)));
    let selects =
        repeated.filter(|(statement, _)| statement.text.trim_start().to_ascii_lowercase().starts_with("select"));
    let found = selects.take(MOST).map(|(statement, length)| {
        let title =
            format!("{}: called up to {length} times in a row on one connection", one_line(&statement.text, 100));
        let behind = statement.n_plus_one.as_ref();
        // Without a statement before it that has about as many rows, it may be a loop over something else.
        let confidence = if behind.is_some() { Confidence::High } else { Confidence::Medium };
        let mut one = finding(Severity::Warning, confidence, about(statement), title);
        one.reasons = vec![format!("{} calls, {} in total", statement.calls, duration(statement.total_ns))];
        if let Some(behind) = behind {
            let parent = document.sql.iter().find(|parent| Some(&parent.fingerprint) == behind.parent.as_ref());
            let parent = parent.map_or("another statement".to_string(), |parent| one_line(&parent.text, 80));
            let times = plural(behind.occurrences, "time", "times");
            one.reasons.push(format!("{times} one call for each row, about, of {parent}"));
        }
        one.reasons.push("one query with a join or an IN list would do".to_string());
        with_exemplar(document, statement, None, one)
    });
    Verdict::ran(found)
}

/// Transactions that are open while their client asks for nothing.
pub fn idle_in_transaction(document: &Document) -> Verdict {
    if let Some(not_run) = needs_statements(document) {
        return not_run;
    }
    let mut idle: Vec<_> = document
        .sql
        .iter()
        .filter_map(|statement| Some((statement, statement.idle_in_transaction.as_ref()?)))
        .filter(|(_, idle)| idle.max_ns > IDLE_NS)
        .collect();
    idle.sort_by_key(|(_, idle)| std::cmp::Reverse(idle.total_ns));
    let waited = idle.iter().fold(0, |sum: u64, (_, idle)| sum.saturating_add(idle.total_ns));
    let found = idle.into_iter().take(MOST).map(|(statement, idle)| {
        let text = one_line(&statement.text, 100);
        let title = format!("{text}: its transaction then waited up to {} for the client", duration(idle.max_ns));
        let mut one = finding(Severity::Warning, Confidence::High, about(statement), title);
        one.reasons = vec![
            format!("{} in total, {}", duration(idle.total_ns), plural(idle.count, "wait", "waits")),
            "locks are held meanwhile, and old versions of rows kept".to_string(),
        ];
        let mut found = with_exemplar(document, statement, None, one);
        // The wait is not time of the statement.
        found.impact = idle.total_ns as f64 / waited.max(1) as f64;
        if let Some(exemplar) = &idle.exemplar {
            found.finding.evidence.clone_from(&exemplar.evidence);
            found.finding.verify = verify(document, &found.finding.evidence);
        }
        found
    });
    Verdict::ran(found)
}

/// Statements that fail.
pub fn errors(document: &Document) -> Verdict {
    if let Some(not_run) = needs_statements(document) {
        return not_run;
    }
    let found = document.sql.iter().filter_map(|statement| {
        let (severity, confidence) = failing(statement.errors, statement.judged())?;
        let place = place_of(document, Trouble::Errors, statement);
        let endpoint = place.and_then(|(_, service, place)| document.services.get(service)?.endpoints.get(place));
        let codes = endpoint.map(|endpoint| codes(endpoint, |_| true)).unwrap_or_default();
        let title = format!(
            "{}: {} of {} calls failed{codes}",
            one_line(&statement.text, 100),
            statement.errors,
            statement.judged()
        );
        let mut one = with_exemplar(
            document,
            statement,
            Some(Trouble::Errors),
            finding(severity, confidence, about(statement), title),
        );
        // The exemplar of a statement is its slowest call; here one that failed is asked for.
        if let Some(error) = endpoint.and_then(|endpoint| endpoint.first_error.as_ref()) {
            one.finding.evidence.clone_from(&error.evidence);
            one.finding.verify = verify(document, &one.finding.evidence);
        }
        one.finding.onset_ns = endpoint.and_then(|endpoint| endpoint.errors_since_ns);
        one.impact = statement.errors as f64 / document.overall.requests.max(1) as f64;
        Some(one)
    });
    Verdict::ran(found.take(MOST))
}
