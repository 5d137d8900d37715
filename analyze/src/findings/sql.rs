//! Checks over statements.

use super::{Verdict, finding, service_name, subject, verify};
use crate::report::document::{Confidence, Document, Finding, Severity, Statement, Subject};
use crate::report::text::{duration, one_line, percent};
use crate::sql::RUN_OF_NOTE;

const SLOW_NS: u64 = 100_000_000;
const ERROR_RATIO: f64 = 0.01;
const ENOUGH: u64 = 10;
const MOST: usize = 5;

fn about(statement: &Statement) -> Subject {
    subject("statement", &one_line(&statement.text, 100), Some(&statement.fingerprint))
}

fn with_exemplar(document: &Document, statement: &Statement, mut one: Finding) -> Finding {
    one.evidence = statement.exemplar.as_ref().map(|exemplar| exemplar.evidence.clone()).unwrap_or_default();
    one.verify = verify(document, &one.evidence);
    one.victims = statement.callers.iter().map(|id| subject("service", service_name(document, id), Some(id))).collect();
    one
}

fn needs_statements(document: &Document) -> Option<Verdict> {
    document.sql.is_empty().then(|| Verdict::NotRun("no SQL statement was seen".to_string()))
}

/// Statements that are slow.
pub fn latency(document: &Document) -> Verdict {
    if let Some(not_run) = needs_statements(document) {
        return not_run;
    }
    let slow = document.sql.iter().filter(|statement| statement.p95_ns.is_some_and(|p95| p95 > SLOW_NS)).take(MOST);
    let found = slow.map(|statement| {
        let p95 = duration(statement.p95_ns.unwrap_or_default());
        let title = format!("{}: p95 is {p95} over {} calls", one_line(&statement.text, 100), statement.calls);
        let mut one = finding(Severity::Warning, Confidence::High, about(statement), title);
        one.reasons = vec![format!("{} in total", duration(statement.total_ns))];
        with_exemplar(document, statement, one)
    });
    Verdict::Ran(found.collect())
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
        Some(with_exemplar(document, first, one))
    });
    Verdict::Ran(found.collect())
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
        let mut one = finding(Severity::Warning, Confidence::Medium, about(statement), title);
        one.reasons = vec![
            format!("{} calls, {} in total", statement.calls, duration(statement.total_ns)),
            "one query with a join or an IN list would do".to_string(),
        ];
        with_exemplar(document, statement, one)
    });
    Verdict::Ran(found.collect())
}

/// Statements that fail.
pub fn errors(document: &Document) -> Verdict {
    if let Some(not_run) = needs_statements(document) {
        return not_run;
    }
    let failing =
        document.sql.iter().filter(|one| one.errors > 0 && one.errors as f64 > one.judged() as f64 * ERROR_RATIO);
    let found = failing.take(MOST).map(|statement| {
        let title =
            format!("{}: {} of {} calls failed", one_line(&statement.text, 100), statement.errors, statement.judged());
        with_exemplar(document, statement, finding(Severity::Warning, Confidence::High, about(statement), title))
    });
    Verdict::Ran(found.collect())
}
