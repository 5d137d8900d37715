//! Revisions of a workload, and how one replaced another.

use std::collections::BTreeMap;

use serde_json::Value;

use super::change::{Change, ChangeKind};
use super::difference;
use super::lifetimes::revision;
use crate::identity::{Life, Objects, read};
use crate::report::text::{clock, duration};

/// A rollout that takes longer has a problem, whatever its deadline says: most are done within a minute or two.
const LONG_NS: u64 = 180_000_000_000;
/// Kubernetes tells whole seconds.
const SECOND_NS: u64 = 1_000_000_000;

/// One version of a workload's pod template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revision {
    /// Hash of the template, as pods are labelled with it.
    pub name: String,
    /// A Deployment's number of it, the last one where it was rolled out again.
    pub number: Option<u64>,
    /// Images by container.
    pub images: Vec<(String, String)>,
    /// When it was first made, ns since 1970.
    pub created_ns: Option<u64>,
}

/// How a rollout went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All pods are of the new revision and available.
    Complete,
    /// It is not done, and its deadline has passed.
    Stuck,
    /// Another one began before it was done.
    Replaced,
    /// It was not done when the recording ended.
    Running,
    /// Nothing happens until somebody does something: it is paused, or pods are replaced only when they are deleted.
    Waiting,
    /// Nobody saw how it went.
    Unknown,
}

impl Outcome {
    /// Its name in `report.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Stuck => "stuck",
            Self::Replaced => "replaced",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
        }
    }
}

/// One revision replaces another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Place of the old one in the workload's revisions; `None` where the workload is new.
    pub from: Option<usize>,
    /// Place of the new one.
    pub to: usize,
    /// A Deployment's number of the new one.
    pub number: Option<u64>,
    /// When it began, ns since 1970.
    pub began_ns: u64,
    /// When it was done, or another one began.
    pub ended_ns: Option<u64>,
    /// Since when its deadline has passed.
    pub stuck_ns: Option<u64>,
    /// How it went.
    pub outcome: Outcome,
    /// What is different.
    pub difference: String,
    /// Place of the rollout that brought the new one first, where it had been rolled out before.
    pub repeats: Option<usize>,
}

impl Rollout {
    /// Whether it hurts.
    pub fn is_bad(&self, end_ns: u64) -> bool {
        if matches!(self.outcome, Outcome::Waiting | Outcome::Unknown) {
            return false;
        }
        let took_ns = self.ended_ns.unwrap_or(end_ns).saturating_sub(self.began_ns);
        self.stuck_ns.is_some() || (took_ns > LONG_NS && self.from.is_some())
    }

    /// As a change.
    pub fn change(&self, subject: &str, revisions: &[Revision], rollouts: &[Self], end_ns: u64) -> Change {
        let numbers: Vec<String> = {
            let from = self.from.and_then(|from| revisions.get(from));
            let named = |revision: &Revision, number: Option<u64>| match number {
                Some(number) => number.to_string(),
                None => revision.name.clone(),
            };
            let to = revisions.get(self.to).map(|to| named(to, self.number));
            let before = from.map(|from| named(from, self.before(from)));
            before.into_iter().chain(to).collect()
        };
        let name = format!("revision {}", numbers.join(" → "));
        let earlier = self.repeats.and_then(|place| rollouts.get(place)).and_then(|rollout| rollout.number);
        let what = match (self.from, self.repeats) {
            (None, _) => "first rollout".to_string(),
            (Some(_), None) => self.difference.clone(),
            (Some(_), Some(_)) => match earlier {
                Some(number) => format!("back to what {number} was: {}", self.difference),
                None => format!("back to an earlier one: {}", self.difference),
            },
        };
        let took = |until_ns: u64| duration(until_ns.saturating_sub(self.began_ns));
        let stuck = self.stuck_ns.map(|at_ns| format!("stuck since {} (deadline passed)", clock(at_ns)));
        let went = match (self.outcome, self.ended_ns) {
            (Outcome::Complete, None) => "done".to_string(),
            (Outcome::Waiting, _) => "waits: paused, or pods are replaced when they are deleted".to_string(),
            (Outcome::Unknown, _) => "nobody saw how it went".to_string(),
            (Outcome::Replaced, Some(ended_ns)) if ended_ns <= self.began_ns => "replaced at once".to_string(),
            (Outcome::Replaced, Some(ended_ns)) => format!("given up after {}", took(ended_ns)),
            (Outcome::Complete, Some(ended_ns)) if ended_ns <= self.began_ns => "done at once".to_string(),
            (Outcome::Complete, Some(ended_ns)) => format!("done after {}", took(ended_ns)),
            _ if stuck.is_some() => "not done".to_string(),
            _ => format!("not done after {}", took(end_ns)),
        };
        let went = stuck.into_iter().chain([went]).collect::<Vec<_>>().join(", ");
        let kind = if self.from.is_some() { ChangeKind::Rollout } else { ChangeKind::Created };
        let change = Change::new(self.began_ns, kind, subject, format!("{name}: {what}; {went}"));
        let goes_on = matches!(self.outcome, Outcome::Running | Outcome::Stuck | Outcome::Waiting);
        let until_ns = self.ended_ns.or(Some(end_ns).filter(|_| goes_on));
        Change { is_bad: self.is_bad(end_ns), ..change.until(until_ns) }
    }

    /// The number that the old revision had: of one that was rolled out again, its last may be later than this.
    fn before(&self, from: &Revision) -> Option<u64> {
        match (from.number, self.number) {
            (Some(old), Some(new)) if old < new => Some(old),
            (Some(_), Some(new)) => new.checked_sub(1),
            _ => None,
        }
    }
}

/// A pod template came into force.
struct Start<'a> {
    at_ns: u64,
    number: Option<u64>,
    name: String,
    template: &'a Value,
}

/// A revision that was wanted again keeps its first place.
fn rollouts(
    starts: Vec<Start<'_>>,
    outcome: impl Fn(&Start<'_>, Option<u64>) -> (Outcome, Option<u64>, Option<u64>),
) -> (Vec<Revision>, Vec<Rollout>) {
    let mut revisions: Vec<Revision> = Vec::new();
    let mut templates: Vec<&Value> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    let mut before: Option<usize> = None;
    for (index, start) in starts.iter().enumerate() {
        let known = places.get(&start.name).copied();
        let to = known.unwrap_or(revisions.len());
        if known.is_none() {
            places.insert(start.name.clone(), to);
            templates.push(start.template);
            revisions.push(Revision {
                name: start.name.clone(),
                number: start.number,
                images: difference::images(start.template),
                created_ns: Some(start.at_ns).filter(|at_ns| *at_ns > 0),
            });
        } else if let Some(revision) = revisions.get_mut(to) {
            revision.number = start.number.or(revision.number);
        }
        let next_ns = starts.get(index + 1).map(|next| next.at_ns);
        let (outcome, ended_ns, stuck_ns) = outcome(start, next_ns);
        let old = before.and_then(|from| templates.get(from)).copied();
        let difference = old.map_or_else(String::new, |old| difference::between(old, start.template));
        found.push(Rollout {
            from: before,
            to,
            number: start.number,
            began_ns: start.at_ns,
            ended_ns,
            stuck_ns,
            outcome,
            difference,
            repeats: known.and_then(|to| found.iter().position(|rollout: &Rollout| rollout.to == to)),
        });
        before = Some(to);
    }
    (revisions, found)
}

fn number(object: &Value) -> Option<u64> {
    read::text(object, &["metadata", "annotations", "deployment.kubernetes.io/revision"])?.parse().ok()
}

/// The revisions and rollouts of a Deployment, from its ReplicaSets and its own states.
pub fn of_deployment(life: &Life, objects: &Objects) -> (Vec<Revision>, Vec<Rollout>) {
    let spans: Vec<_> = life.spans().collect();
    let mut starts = Vec::new();
    for set in objects.owned_by(&life.uid).filter(|set| set.kind == "ReplicaSet") {
        let mut last = None;
        for (place, (from_ns, _, state)) in set.spans().enumerate() {
            let Some(number) = number(state).filter(|number| Some(*number) > last) else { continue };
            last = Some(number);
            let name = read::text(state, &["metadata", "labels", "pod-template-hash"]).unwrap_or(&set.name);
            let template = state.get("spec").and_then(|spec| spec.get("template")).unwrap_or(&Value::Null);
            // Of a set that is known from a list, only its creation has a time: later numbers came at some time since.
            let at_ns = if place == 0 && set.born_ns > 0 { set.born_ns } else { from_ns };
            starts.push(Start { at_ns, number: Some(number), name: name.to_string(), template });
        }
    }
    starts.sort_by_key(|start| (start.number, start.at_ns));
    // A set made long ago may be in force again since a moment that nobody recorded: it can't be before the one it follows.
    let mut latest_ns = 0;
    for start in &mut starts {
        latest_ns = start.at_ns.max(latest_ns);
        start.at_ns = latest_ns;
    }
    rollouts(starts, |start, next_ns| {
        let states = spans.iter().filter(|(_, _, state)| number(state) == start.number);
        let (mut done_ns, mut stuck_ns) = (None, None);
        let (mut seen, mut waits) = (false, false);
        for (from_ns, _, state) in states {
            (seen, waits) = (true, read::is(state, &["spec", "paused"]));
            let progress = read::condition(state, "Progressing");
            let reason = progress.and_then(|one| read::text(one, &["reason"])).unwrap_or_default();
            let told_ns = progress.and_then(|one| read::time_ns(one, &["lastUpdateTime"]));
            let told_ns = told_ns.filter(|told_ns| told_ns.saturating_add(SECOND_NS) > start.at_ns);
            // Until something goes on, it still says so of the rollout before.
            let of_this = told_ns.is_some_and(|told_ns| told_ns > start.at_ns.saturating_add(SECOND_NS));
            if reason == "ProgressDeadlineExceeded" && of_this {
                stuck_ns = stuck_ns.or(told_ns);
            }
            if is_deployed(state) {
                done_ns = Some(told_ns.filter(|_| reason == "NewReplicaSetAvailable").unwrap_or(*from_ns));
                break;
            }
        }
        match (seen, next_ns) {
            (false, _) => (Outcome::Unknown, next_ns, None),
            (true, None) if done_ns.is_none() && waits => (Outcome::Waiting, None, stuck_ns),
            _ => ended(done_ns, stuck_ns, next_ns),
        }
    })
}

fn ended(done_ns: Option<u64>, stuck_ns: Option<u64>, next_ns: Option<u64>) -> (Outcome, Option<u64>, Option<u64>) {
    match (done_ns, next_ns, stuck_ns) {
        (Some(done_ns), ..) => (Outcome::Complete, Some(done_ns), stuck_ns),
        (None, Some(next_ns), _) => (Outcome::Replaced, Some(next_ns), stuck_ns),
        (None, None, Some(_)) => (Outcome::Stuck, None, stuck_ns),
        (None, None, None) => (Outcome::Running, None, None),
    }
}

/// What `kubectl rollout status` calls rolled out: the controller has seen the newest template, and all that is wanted is of
/// it and available.
fn is_deployed(state: &Value) -> bool {
    let count = |path: &[&str]| read::number(state, path).unwrap_or(0);
    let wanted = read::number(state, &["spec", "replicas"]).unwrap_or(1);
    count(&["status", "observedGeneration"]) >= count(&["metadata", "generation"])
        && count(&["status", "updatedReplicas"]) >= wanted
        && count(&["status", "replicas"]) <= count(&["status", "updatedReplicas"])
        && count(&["status", "availableReplicas"]) >= wanted
}

fn is_set_updated(state: &Value) -> bool {
    let count = |path: &[&str]| read::number(state, path).unwrap_or(0);
    let text = |path: &[&str]| read::text(state, path);
    let desired = count(&["status", "desiredNumberScheduled"]);
    // Of a StatefulSet with a partition the pods below it keep the old revision.
    let replicas = count(&["spec", "replicas"]);
    let partition = count(&["spec", "updateStrategy", "rollingUpdate", "partition"]);
    let updated = match partition {
        0 => text(&["status", "updateRevision"]) == text(&["status", "currentRevision"]),
        _ => count(&["status", "updatedReplicas"]) >= replicas.saturating_sub(partition),
    };
    count(&["status", "observedGeneration"]) >= count(&["metadata", "generation"])
        && updated
        && count(&["status", "readyReplicas"]) >= read::number(state, &["spec", "replicas"]).unwrap_or(0)
        && count(&["status", "updatedNumberScheduled"]) >= desired
        && count(&["status", "numberAvailable"]) >= desired
}

/// The revisions and rollouts of a StatefulSet or DaemonSet, as far as its own states tell: each begins where its template
/// becomes another. Their names are those that pods are labelled with.
pub fn of_set(life: &Life, objects: &Objects) -> (Vec<Revision>, Vec<Rollout>) {
    let spans: Vec<_> = life.spans().collect();
    let mut starts: Vec<Start<'_>> = Vec::new();
    let mut last: Option<&Value> = None;
    for (from_ns, to_ns, state) in &spans {
        let template = state.get("spec").and_then(|spec| spec.get("template")).unwrap_or(&Value::Null);
        if last == Some(template) {
            continue;
        }
        let first = last.is_none();
        last = Some(template);
        // Its pods that were made since are of it.
        let made = objects
            .owned_by(&life.uid)
            .filter(|pod| pod.born_ns.saturating_add(SECOND_NS) > *from_ns && pod.born_ns < *to_ns);
        let of_pods =
            made.filter_map(|pod| pod.states.last()).map(|(_, pod)| revision(pod)).find(|name| !name.is_empty());
        let told = read::text(state, &["status", "updateRevision"]).filter(|_| first);
        let mut later = spans.iter().rev().filter(|(later_ns, _, later)| {
            later_ns >= from_ns && later.get("spec").and_then(|spec| spec.get("template")) == Some(template)
        });
        let generation = read::number(state, &["metadata", "generation"]).unwrap_or(0);
        let updated = later.find_map(|(_, _, later)| {
            let seen = read::number(later, &["status", "observedGeneration"]).unwrap_or(0) >= generation;
            read::text(later, &["status", "updateRevision"]).filter(|_| seen)
        });
        let name = updated.or(told).or(of_pods).map_or_else(|| format!("generation {generation}"), String::from);
        // What was there before has its creation for a time, if it is later than the list that told of it.
        let at_ns = if first { life.born_ns.max(*from_ns) } else { *from_ns };
        starts.push(Start { at_ns, number: None, name, template });
    }
    rollouts(starts, |start, next_ns| {
        let within = |from_ns: u64| from_ns >= start.at_ns && next_ns.is_none_or(|next_ns| from_ns < next_ns);
        let mut own = spans
            .iter()
            .enumerate()
            .filter(|(_, (from_ns, to_ns, _))| within(*from_ns) || (*from_ns < start.at_ns && *to_ns > start.at_ns));
        let by_hand = |state: &Value| read::text(state, &["spec", "updateStrategy", "type"]) == Some("OnDelete");
        match own.clone().find(|(_, (_, _, state))| is_set_updated(state)) {
            // Done when it was first seen: nobody knows since when.
            Some((0, _)) => (Outcome::Complete, None, None),
            None if next_ns.is_none() && own.any(|(_, (_, _, state))| by_hand(state)) => (Outcome::Waiting, None, None),
            done => ended(done.map(|(_, (from_ns, ..))| *from_ns), None, next_ns),
        }
    })
}
