//! Kubernetes' own Events: what it warned of, equal ones together.

use std::collections::BTreeMap;

use serde_json::Value;

use super::change::{Change, ChangeKind, short};
use super::lifetimes::Pod;
use crate::identity::{Kube, Objects, read};

const SECOND_NS: u64 = 1_000_000_000;

/// Warnings that the objects' own states tell better.
const TOLD_ELSEWHERE: [&str; 5] = ["BackOff", "FailedScheduling", "Evicted", "NodeNotReady", "Failed"];

/// Events that are no warnings, and yet something that happened to somebody.
const OF_NOTE: [&str; 7] =
    ["Preempted", "TaintManagerEviction", "Rebooted", "Starting", "NodeNotSchedulable", "SuccessfulRescale", "Killing"];

/// Adds them; `pods` are those of the cluster, by number.
pub fn read(objects: &Objects, pods: &[Pod], kube: &Kube, changes: &mut Vec<Change>) {
    let mut groups: BTreeMap<(ChangeKind, String, &str, String), Change> = BTreeMap::new();
    for life in objects.of_kind("Event") {
        let Some((_, event)) = life.states.last() else { continue };
        let Some(reason) = read::text(event, &["reason"]) else { continue };
        let warns = read::text(event, &["type"]) == Some("Warning");
        let about = event.get("involvedObject").or_else(|| event.get("regarding")).unwrap_or(&Value::Null);
        let of = |field| read::text(about, &[field]).unwrap_or_default();
        let message = read::text(event, &["message"]).or_else(|| read::text(event, &["note"])).unwrap_or_default();
        let skipped = if warns { TOLD_ELSEWHERE.contains(&reason) } else { !OF_NOTE.contains(&reason) };
        // A container is killed whenever its pod is deleted; its liveness probe is of note.
        let (kind, what) = match reason {
            _ if skipped => continue,
            "Killing" if !message.contains("liveness") => continue,
            "Starting" if of("kind") != "Node" => continue,
            "Unhealthy" => (ChangeKind::Probe, message.to_string()),
            "Killing" => (ChangeKind::Probe, message.to_string()),
            "SuccessfulRescale" => (ChangeKind::Scaled, format!("autoscaler: {message}")),
            _ => {
                let kind = if of("kind") == "Node" { ChangeKind::Node } else { ChangeKind::Warning };
                let what = if message.is_empty() { reason.to_string() } else { format!("{reason}: {message}") };
                (kind, what)
            }
        };
        let pod = (of("kind") == "Pod").then(|| kube.pod_named(of("uid"), of("namespace"), of("name"))).flatten();
        let workload = pod.and_then(|pod| kube.pod(pod)).map(|pod| pod.workload);
        // One workload's pods fail alike.
        let subject = match workload {
            Some(workload) => kube.workload_name(workload).to_string(),
            None if of("namespace").is_empty() || of("kind") == "Node" => of("name").to_string(),
            None => format!("{}/{}", of("namespace"), of("name")),
        };
        let container = read::text(about, &["fieldPath"]).and_then(|path| path.split(['{', '}']).nth(1));
        let what = match container {
            Some(container) if kind == ChangeKind::Probe => format!("{container}: {what}"),
            _ => what,
        };
        let (first_ns, last_ns, count) = times(event, life.born_ns);
        let mut change = Change::new(first_ns, kind, subject.clone(), short(&what, 240)).until(Some(last_ns));
        // Before it is ready for the first time, a pod is not ready.
        let ready_ns = pod.and_then(|pod| pods.get(pod as usize)).and_then(|pod| pod.ready_ns);
        let starting = kind == ChangeKind::Probe
            && !message.contains("iveness")
            && ready_ns.is_some_and(|ready_ns| last_ns <= ready_ns.saturating_add(SECOND_NS));
        (change.count, change.is_bad) = (count, (warns || kind == ChangeKind::Probe) && !starting);
        (change.workload, change.pod) = (workload, pod);
        // Old pods and new ones fail for reasons of their own.
        let revision = pod.and_then(|pod| pods.get(pod as usize)).map_or("", |pod| pod.revision.as_str());
        groups
            .entry((kind, subject, revision, pattern(&what)))
            .and_modify(|known| join(known, &change))
            .or_insert(change);
    }
    changes.extend(groups.into_values());
}

fn join(known: &mut Change, other: &Change) {
    let last_ns = known.until_ns.unwrap_or(known.at_ns).max(other.until_ns.unwrap_or(other.at_ns));
    if other.at_ns < known.at_ns {
        (known.at_ns, known.summary) = (other.at_ns, other.summary.clone());
    }
    known.until_ns = Some(last_ns).filter(|last_ns| *last_ns > known.at_ns);
    known.count = known.count.saturating_add(other.count);
    known.is_bad |= other.is_bad;
    known.pod = known.pod.filter(|pod| other.pod == Some(*pod));
}

/// First and last time, and how often. Three shapes of Event are about: the core one counts, `events.k8s.io` has a time and a
/// series (Kubernetes API, Event v1).
fn times(event: &Value, born_ns: u64) -> (u64, u64, u64) {
    let time = |paths: [&[&str]; 3]| paths.into_iter().find_map(|path| read::time_ns(event, path));
    let first_ns = time([&["firstTimestamp"], &["deprecatedFirstTimestamp"], &["eventTime"]]).unwrap_or(born_ns);
    let last_ns = time([&["series", "lastObservedTime"], &["lastTimestamp"], &["deprecatedLastTimestamp"]]);
    let count = [&["series", "count"][..], &["count"], &["deprecatedCount"]];
    let count = count.into_iter().find_map(|path| read::number(event, path)).unwrap_or(1);
    (first_ns, last_ns.unwrap_or(first_ns), count.max(1))
}

/// What equal warnings have in common: numbers and addresses, names of pods and ids are different each time.
fn pattern(message: &str) -> String {
    let mut pattern = String::new();
    for word in message.split_whitespace().take(40) {
        // A status code is what tells one failure from another.
        let is_code = word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit());
        let varies = !is_code && (word.bytes().any(|byte| byte.is_ascii_digit()) || word.len() > 40);
        pattern.push_str(if varies { "#" } else { word });
        pattern.push(' ');
    }
    pattern
}
