//! Checks over connections.

use super::{Verdict, finding, service_name, subject};
use crate::report::document::{Confidence, Document, Edge, Severity};
use crate::report::text::{percent, plural};

const RETRANSMIT_RATIO: f64 = 0.01;
const RESET_RATIO: f64 = 0.01;

fn name(document: &Document, edge: &Edge) -> String {
    format!("{} → {}", service_name(document, &edge.client), service_name(document, &edge.server))
}

/// Connects that failed.
pub fn failed_connects(document: &Document) -> Verdict {
    if document.network.totals.failed_connects.is_none() {
        return Verdict::NotRun("state changes of connections were not recorded".to_string());
    }
    let failing =
        document.edges.iter().filter_map(|edge| Some((edge, edge.failed_connects.filter(|failed| *failed > 0)?)));
    let found = failing.map(|(edge, failed)| {
        let name = name(document, edge);
        let title = format!("{name}: {failed} of {} failed", plural(edge.connections, "connect", "connects"));
        let severity = if failed * 2 > edge.connections { Severity::Critical } else { Severity::Warning };
        let mut one = finding(severity, Confidence::High, subject("edge", &name, Some(&edge.id)), title);
        let listed = document.network.connections.iter().find(|connection| {
            connection.how_closed.as_deref() == Some("failed")
                && connection.client.workload.as_deref() == Some(service_name(document, &edge.client))
        });
        one.evidence = listed.map(|connection| connection.evidence.clone()).unwrap_or_default();
        one.verify = super::verify(document, &one.evidence);
        one
    });
    Verdict::ran(found)
}

/// Segments sent again.
pub fn retransmissions(document: &Document) -> Verdict {
    let totals = &document.network.totals;
    let (Some(again), Some(sent)) = (totals.retransmits, totals.segments_sent.filter(|sent| *sent > 0)) else {
        return Verdict::NotRun("retransmissions or the number of segments sent were not recorded".to_string());
    };
    let ratio = again as f64 / sent as f64;
    if ratio <= RETRANSMIT_RATIO {
        return Verdict::Ran(Vec::new());
    }
    let title = format!("{again} of {sent} segments were sent again ({})", percent(ratio));
    Verdict::ran([finding(Severity::Warning, Confidence::High, subject("capture", "all nodes", None), title)])
}

/// Connections that were reset.
pub fn resets(document: &Document) -> Verdict {
    if document.network.totals.resets.is_none() {
        return Verdict::NotRun("resets were not recorded".to_string());
    }
    let reset = document.edges.iter().filter_map(|edge| {
        // A refused connect is a reset too, and has a check of its own.
        let resets = edge.resets?.saturating_sub(edge.failed_connects.unwrap_or_default() * 2);
        (resets as f64 > edge.connections as f64 * RESET_RATIO && resets > 0).then_some((edge, resets))
    });
    let found = reset.map(|(edge, resets)| {
        let name = name(document, edge);
        let title = format!(
            "{name}: {} on {}",
            plural(resets, "reset", "resets"),
            plural(edge.connections, "connection", "connections")
        );
        finding(Severity::Info, Confidence::Medium, subject("edge", &name, Some(&edge.id)), title)
    });
    Verdict::ran(found)
}
