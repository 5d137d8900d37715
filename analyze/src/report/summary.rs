//! `summary.md`: what to paste into a ticket.

use super::{
    Document, ReportError, cleaned,
    document::{Confidence, Golden, Severity},
    text::{self, markdown},
};
use std::fmt::Write;

/// Renders the summary as Markdown.
///
/// # Errors
/// [`ReportError::Json`], which no content can cause.
pub fn render_summary(doc: &Document) -> Result<String, ReportError> {
    let doc = cleaned(doc)?;
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = head(&mut out, &doc)
        .and_then(|()| findings(&mut out, &doc))
        .and_then(|()| golden(&mut out, &doc))
        .and_then(|()| statements(&mut out, &doc))
        .and_then(|()| ledger(&mut out, &doc));
    Ok(out)
}

fn cell(text: &str, most: usize) -> String {
    markdown(&text::middle(&text::one_line(text, 2_000), most))
}

fn head(out: &mut String, doc: &Document) -> std::fmt::Result {
    let capture = &doc.capture;
    let nodes: Vec<String> = capture.nodes.iter().take(6).map(|node| cell(node, 48)).collect();
    let more = capture.nodes.len().saturating_sub(6);
    let nodes = if more > 0 { format!("{} and {more} more", nodes.join(", ")) } else { nodes.join(", ") };
    writeln!(out, "# Flight report{}{}\n", if nodes.is_empty() { "" } else { ": " }, nodes)?;
    let from = text::or_none(capture.start_ns, text::date_time);
    let length = text::or_none(capture.duration_ns, text::duration);
    writeln!(out, "- Window: {from}, {length}")?;
    for bundle in capture.bundles.iter().take(6) {
        let kernel = bundle.kernel.as_deref().map_or_else(String::new, |k| format!(", kernel {}", cell(k, 40)));
        let damaged = if bundle.whole { "" } else { ", **damaged**" };
        writeln!(out, "- Bundle: {} ({}{kernel}{damaged})", cell(&bundle.file, 60), cell(&bundle.origin, 40))?;
    }
    let masked = if capture.masked { "masked" } else { "**shown as recorded**" };
    writeln!(out, "- Values: {masked}; written by {} {}\n", cell(&doc.tool.name, 20), cell(&doc.tool.version, 20))
}

fn findings(out: &mut String, doc: &Document) -> std::fmt::Result {
    writeln!(out, "## Verdict\n")?;
    if doc.findings.is_empty() {
        let none = if doc.checks.is_empty() { "No check ran." } else { "No check raised a finding." };
        return writeln!(out, "{none}\n");
    }
    for (i, finding) in doc.findings.iter().take(5).enumerate() {
        let severity = match finding.severity {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "note",
        };
        let sure = match finding.confidence {
            Confidence::High => "high",
            Confidence::Medium => "medium",
            Confidence::Low => "low",
        };
        let onset = finding.onset_ns.map_or_else(String::new, |at| format!(", since {} UTC", text::clock(at)));
        writeln!(out, "{}. **{severity}** {}{onset} (confidence {sure})", i + 1, cell(&finding.title, 240))?;
        if let Some(reason) = finding.reasons.first() {
            writeln!(out, "   {}", cell(reason, 240))?;
        }
    }
    match doc.findings.len().saturating_sub(5) {
        0 => writeln!(out),
        more => writeln!(out, "\n{more} more in report.html.\n"),
    }
}

fn golden_row(golden: &Golden) -> String {
    if golden.requests == 0 {
        return [text::NONE; 6].join(" | ");
    }
    [
        text::or_none(golden.rate_per_s, text::significant),
        text::count(golden.requests),
        text::share(golden.errors, golden.judged()),
        text::or_none(golden.p50_ns, text::duration),
        text::or_none(golden.p99_ns, text::duration),
        text::or_none(golden.max_ns, text::duration),
    ]
    .join(" | ")
}

fn golden(out: &mut String, doc: &Document) -> std::fmt::Result {
    writeln!(out, "## Services\n")?;
    if doc.services.is_empty() {
        return writeln!(out, "None seen.\n");
    }
    writeln!(out, "| Service | Rate /s | Requests | Errors | p50 | p99 | Max |\n|---|--:|--:|--:|--:|--:|--:|")?;
    for service in doc.services.iter().take(10) {
        writeln!(out, "| {} | {} |", cell(&service.name, 48), golden_row(&service.inbound))?;
    }
    writeln!(out, "| **all** | {} |", golden_row(&doc.overall))?;
    match doc.services.len().saturating_sub(10) {
        0 => writeln!(out),
        more => writeln!(out, "\n{more} more in report.html.\n"),
    }
}

fn statements(out: &mut String, doc: &Document) -> std::fmt::Result {
    if doc.sql.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "## Statements by total time\n\n| Statement | Calls | Total | Mean | Max | Rows |\n|---|--:|--:|--:|--:|--:|"
    )?;
    for statement in doc.sql.iter().take(5) {
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            markdown(&text::one_line(&statement.text, 100)),
            text::count(statement.calls),
            text::duration(statement.total_ns),
            text::or_none(statement.mean_ns, text::duration),
            text::or_none(statement.max_ns, text::duration),
            text::or_none(statement.rows, text::count)
        )?;
    }
    writeln!(out)
}

fn ledger(out: &mut String, doc: &Document) -> std::fmt::Result {
    let totals = &doc.ledger.totals;
    writeln!(out, "## Completeness\n")?;
    let lost = totals
        .lost_events
        .map_or_else(|| "lost events not counted".to_owned(), |n| text::plural(n, "event lost", "events lost"));
    writeln!(
        out,
        "- {}, {lost}; payload kept {} of {}; {}",
        text::plural(totals.events, "event", "events"),
        text::bytes(totals.payload_kept_bytes),
        text::bytes(totals.bytes),
        text::plural(totals.connections, "connection", "connections")
    )?;
    for entry in doc.ledger.entries.iter().filter(|e| e.severity != Severity::Info).take(8) {
        let number =
            entry.count.map_or_else(String::new, |n| format!(" ({})", cell(&text::quantity(n, &entry.unit), 40)));
        writeln!(out, "- {}{number}: {}", cell(&entry.what, 120), cell(&entry.effect, 240))?;
    }
    Ok(())
}
