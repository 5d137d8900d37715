//! Checks over nodes.

use super::{Verdict, finding, subject};
use crate::report::document::{Confidence, Document, Node, Severity};
use crate::report::text::percent;

const BUSY_PERMILLE: u64 = 800;
const STALLED_PERMILLE: u64 = 20;

fn without_samples(document: &Document) -> bool {
    document.nodes.iter().all(|node| node.samples.is_empty())
}

fn mean(values: impl Iterator<Item = u64>) -> Option<u64> {
    let (sum, count) = values.fold((0u64, 0u64), |(sum, count), value| (sum + value, count + 1));
    sum.checked_div(count)
}

/// Nodes whose CPUs are busy.
pub fn cpu(document: &Document) -> Verdict {
    if without_samples(document) {
        return Verdict::NotRun("no host sample was recorded".to_string());
    }
    let busy = |node: &Node| {
        mean(node.samples.iter().flat_map(|sample| &sample.cores).flatten().map(|core| u64::from(core.busy_permille())))
    };
    let hot = document.nodes.iter().filter_map(|node| Some((node, busy(node).filter(|busy| *busy > BUSY_PERMILLE)?)));
    let found = hot.map(|(node, busy)| {
        let share = percent(busy as f64 / 1000.0);
        let title = format!("{}: CPUs were {share} busy on average", node.name);
        finding(Severity::Warning, Confidence::High, subject("node", &node.name, Some(&node.name)), title)
    });
    Verdict::ran(found)
}

/// Nodes where tasks wait for memory.
pub fn memory(document: &Document) -> Verdict {
    if document.nodes.iter().flat_map(|node| &node.samples).all(|sample| sample.pressure.is_none()) {
        return Verdict::NotRun("this kernel shows no pressure (/proc/pressure)".to_string());
    }
    let stalled = |node: &Node| {
        let samples = node.samples.iter().filter_map(|sample| sample.pressure?.memory_some_permille);
        mean(samples.map(u64::from))
    };
    let hot =
        document.nodes.iter().filter_map(|node| Some((node, stalled(node).filter(|stall| *stall > STALLED_PERMILLE)?)));
    let found = hot.map(|(node, stall)| {
        let share = percent(stall as f64 / 1000.0);
        let title = format!("{}: tasks waited for memory {share} of the time", node.name);
        finding(Severity::Warning, Confidence::High, subject("node", &node.name, Some(&node.name)), title)
    });
    Verdict::ran(found)
}
