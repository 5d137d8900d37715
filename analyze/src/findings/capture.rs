//! Checks over the recording itself.

use super::{Verdict, finding, subject};
use crate::report::document::{Confidence, Document, Severity};
use crate::report::text::plural;

/// Events that were lost.
pub fn losses(document: &Document) -> Verdict {
    match document.ledger.totals.lost_events {
        None => Verdict::NotRun("the recorder's counters are not in the bundle".to_string()),
        Some(0) => Verdict::Ran(Vec::new()),
        Some(lost) => {
            let title = format!(
                "{} lost while recording: figures of those moments are too low",
                plural(lost, "event was", "events were")
            );
            let mut one = finding(Severity::Warning, Confidence::High, subject("capture", "recording", None), title);
            one.reasons = vec!["the kernel buffer was full; a larger --buffer-size helps".to_string()];
            Verdict::ran([one])
        }
    }
}
