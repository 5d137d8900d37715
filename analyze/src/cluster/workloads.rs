//! Workloads: how many of their pods were wanted and ready, their revisions, and what was changed about them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::change::{Change, ChangeKind, short};
use super::containers::ContainerKind;
use super::lifetimes::{Pod, labels};
use super::rollouts::{self, Revision, Rollout};
use crate::identity::{Kube, Life, Objects, read};

/// Kinds that keep pods running.
const KINDS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job"];

/// Steps of a workload's course that are kept.
const MAX_COURSE: usize = 500;

/// How many pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Wanted.
    pub wanted: u64,
    /// Ready.
    pub ready: u64,
    /// Of the newest revision.
    pub updated: u64,
    /// Ready for as long as is asked for.
    pub available: u64,
}

/// A workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, ...; `Pod` where nothing owns it.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// As told last; `None` of Jobs and single pods.
    pub replicas: Option<Replicas>,
    /// The fewest pods that were ready, at any time of the recording once all were.
    pub least_ready: Option<u64>,
    /// Its revisions, the oldest first.
    pub revisions: Vec<Revision>,
    /// How they replaced each other.
    pub rollouts: Vec<Rollout>,
    /// How many were wanted and ready over the recording: from when on, wanted, ready.
    pub course: Vec<(u64, u64, u64)>,
    /// Labels of its own.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// `shop/api`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// All workloads: those of [`Kube`] by number, then those without a pod; and what was changed about them.
pub fn workloads(objects: &Objects, kube: &Kube, window: (u64, u64), changes: &mut Vec<Change>) -> Vec<Workload> {
    let key = |kind: &str, namespace: &str, name: &str| (kind.to_string(), namespace.to_string(), name.to_string());
    let mut all: Vec<Workload> = Vec::new();
    let mut numbers = BTreeMap::new();
    for one in kube.workloads() {
        numbers.insert(key(&one.kind, &one.namespace, &one.name), all.len());
        let (kind, namespace, name) = key(&one.kind, &one.namespace, &one.name);
        all.push(Workload { kind, namespace, name, ..Workload::default() });
    }
    let scalers = scalers(objects);
    for life in KINDS.into_iter().flat_map(|kind| objects.of_kind(kind)) {
        let Some((_, last)) = life.states.last() else { continue };
        if life.kind == "Job" {
            job(life, changes);
            // A CronJob's runs are no workloads of their own.
            if read::controller(last).is_some() {
                continue;
            }
        }
        let number = *numbers.entry(key(&life.kind, &life.namespace, &life.name)).or_insert_with(|| {
            all.push(Workload {
                kind: life.kind.clone(),
                namespace: life.namespace.clone(),
                name: life.name.clone(),
                ..Workload::default()
            });
            all.len() - 1
        });
        let Some(workload) = all.get_mut(number) else { continue };
        let from = changes.len();
        fill(workload, life, objects, window, &scalers, changes);
        for change in changes.iter_mut().skip(from) {
            change.workload = u32::try_from(number).ok();
        }
    }
    configuration(objects, changes);
    all
}

/// Revisions that nothing but the pods tells of: of kinds of somebody's own, and where ReplicaSets were not recorded.
pub fn name_revisions(workloads: &mut [Workload], pods: &[Pod]) {
    for pod in pods.iter().filter(|pod| !pod.revision.is_empty()) {
        let Some(workload) = workloads.get_mut(pod.workload as usize) else { continue };
        if workload.revisions.iter().any(|known| known.name == pod.revision) {
            continue;
        }
        let own = pod.containers.iter().filter(|container| container.kind == ContainerKind::Main);
        workload.revisions.push(Revision {
            name: pod.revision.clone(),
            number: None,
            images: own.map(|container| (container.name.clone(), container.image.clone())).collect(),
            created_ns: pod.created_ns,
        });
    }
}

fn fill(
    workload: &mut Workload,
    life: &Life,
    objects: &Objects,
    (start_ns, end_ns): (u64, u64),
    scalers: &BTreeMap<(String, String, String), Vec<u64>>,
    changes: &mut Vec<Change>,
) {
    let Some((_, last)) = life.states.last() else { return };
    workload.labels = labels(last);
    let (revisions, rolled) = match life.kind.as_str() {
        "Deployment" => rollouts::of_deployment(life, objects),
        "StatefulSet" | "DaemonSet" => rollouts::of_set(life, objects),
        _ => Default::default(),
    };
    let subject = workload.title();
    // The first one of a workload that was there before is none.
    let told = rolled.iter().filter(|rollout| rollout.from.is_some() || rollout.began_ns >= start_ns);
    changes.extend(told.map(|rollout| rollout.change(&subject, &revisions, &rolled, end_ns)));
    if life.gone_ns.is_none() {
        workload.replicas = replicas(&life.kind, last);
    }
    // What was deleted and made anew is the same workload.
    let before = (workload.revisions.len(), workload.rollouts.len());
    workload.revisions.extend(revisions);
    workload.rollouts.extend(rolled.into_iter().map(|rollout| Rollout {
        from: rollout.from.map(|from| from + before.0),
        to: rollout.to + before.0,
        repeats: rollout.repeats.map(|place| place + before.1),
        ..rollout
    }));
    let mut before: Option<u64> = None;
    let mut was_full = false;
    for (from_ns, to_ns, state) in life.spans() {
        let Some(now) = replicas(&life.kind, state) else { continue };
        if from_ns <= end_ns && to_ns > start_ns && workload.course.len() < MAX_COURSE {
            let known = workload.course.last().map(|(_, wanted, ready)| (*wanted, *ready));
            if known != Some((now.wanted, now.ready)) {
                workload.course.push((from_ns.max(start_ns), now.wanted, now.ready));
            }
        }
        if from_ns <= end_ns && to_ns > start_ns && now.wanted > 0 {
            // While it is set up, it isn't short of pods.
            was_full |= now.ready >= now.wanted;
            // Pods that nobody asked for before are not missing.
            if was_full && now.ready < now.wanted {
                workload.least_ready = Some(workload.least_ready.map_or(now.ready, |least| least.min(now.ready)));
            }
        }
        let by_hand = life.kind != "DaemonSet";
        if let Some(old) = before.filter(|old| *old != now.wanted && by_hand) {
            let target = (life.kind.clone(), life.namespace.clone(), life.name.clone());
            let by = scalers.get(&target).is_some_and(|desired| desired.contains(&now.wanted));
            let by = if by { " by the autoscaler" } else { "" };
            let text = format!("{old} → {} replicas{by}", now.wanted);
            changes.push(Change::new(from_ns, ChangeKind::Scaled, subject.clone(), text));
        }
        before = Some(now.wanted);
    }
    if was_full && workload.least_ready.is_none() {
        workload.least_ready = workload.replicas.map(|replicas| replicas.ready);
    }
    if let Some(gone_ns) = life.gone_ns {
        if gone_ns <= end_ns && workload.course.last().is_some_and(|(_, wanted, _)| *wanted > 0) {
            workload.course.push((gone_ns.max(start_ns), 0, 0));
        }
        changes.push(Change::new(gone_ns, ChangeKind::Deleted, subject, format!("{} deleted", life.kind)));
    }
}

fn replicas(kind: &str, state: &Value) -> Option<Replicas> {
    let status = |field| read::number(state, &["status", field]).unwrap_or(0);
    match kind {
        "Deployment" | "StatefulSet" => Some(Replicas {
            wanted: read::number(state, &["spec", "replicas"]).unwrap_or(1),
            ready: status("readyReplicas"),
            updated: status("updatedReplicas"),
            available: status("availableReplicas"),
        }),
        "DaemonSet" => Some(Replicas {
            wanted: status("desiredNumberScheduled"),
            ready: status("numberReady"),
            updated: status("updatedNumberScheduled"),
            available: status("numberAvailable"),
        }),
        _ => None,
    }
}

/// How many replicas autoscalers wanted, by kind, namespace and name of their target.
fn scalers(objects: &Objects) -> BTreeMap<(String, String, String), Vec<u64>> {
    let mut scalers: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for life in objects.of_kind("HorizontalPodAutoscaler") {
        for (_, state) in &life.states {
            let target = |field| read::text(state, &["spec", "scaleTargetRef", field]).map(str::to_string);
            let (Some(kind), Some(name)) = (target("kind"), target("name")) else { continue };
            // Without a scale that it made itself it repeats what it found.
            let scaled = read::text(state, &["status", "lastScaleTime"]).is_some();
            let desired = read::number(state, &["status", "desiredReplicas"]).filter(|_| scaled);
            scalers.entry((kind, life.namespace.clone(), name)).or_default().extend(desired);
        }
    }
    scalers
}

fn job(life: &Life, changes: &mut Vec<Change>) {
    let Some((_, state)) = life.states.last() else { return };
    let holds = |kind| read::condition(state, kind).filter(|one| read::text(one, &["status"]) == Some("True"));
    let failed = holds("Failed");
    let Some(condition) = failed.or_else(|| holds("Complete")) else { return };
    let subject = match read::controller(state).and_then(|owner| read::text(owner, &["name"])) {
        Some(cron_job) => format!("{}/{cron_job}", life.namespace),
        None => format!("{}/{}", life.namespace, life.name),
    };
    let began_ns = read::time_ns(state, &["status", "startTime"]).unwrap_or(life.born_ns);
    let ended_ns = read::time_ns(condition, &["lastTransitionTime"]).unwrap_or(began_ns);
    let text = match failed {
        Some(failed) => {
            let why = read::text(failed, &["message"]).or_else(|| read::text(failed, &["reason"])).unwrap_or_default();
            format!("run {} failed: {}", life.name, short(why, 160))
        }
        None => format!("run {} completed", life.name),
    };
    let change = Change::new(began_ns, ChangeKind::Job, subject, text).until(Some(ended_ns));
    changes.push(if failed.is_some() { change.bad() } else { change });
}

/// ConfigMaps, network policies, ingresses, disruption budgets: made, changed, deleted.
fn configuration(objects: &Objects, changes: &mut Vec<Change>) {
    let readers = config_readers(objects);
    for kind in ["ConfigMap", "NetworkPolicy", "Ingress", "PodDisruptionBudget"] {
        // Kubernetes puts its own certificate into each namespace.
        for life in objects.of_kind(kind).filter(|life| life.name != "kube-root-ca.crt") {
            let subject = format!("{}/{}", life.namespace, life.name);
            let read_by = readers.get(&(life.namespace.clone(), life.name.clone())).filter(|_| kind == "ConfigMap");
            let read_by = read_by.map_or_else(String::new, |all| {
                let names: Vec<&str> = all.iter().map(String::as_str).take(5).collect();
                format!(", read by {}", names.join(", "))
            });
            let mut add = |at_ns, what: &str| {
                let text = format!("{kind} {what}{read_by}");
                changes.push(Change::new(at_ns, ChangeKind::Configuration, subject.clone(), text));
            };
            if life.born_ns > 0 {
                add(life.born_ns, "made");
            }
            // Of a ConfigMap nobody knows what was written: any new state may be one.
            let mut written = life.states.windows(2).filter_map(|pair| match pair {
                [(_, old), (at_ns, new)] if kind == "ConfigMap" || old.get("spec") != new.get("spec") => Some(*at_ns),
                _ => None,
            });
            if let Some(first_ns) = written.next() {
                let last_ns = written.next_back();
                let text = format!("{kind} written{read_by}");
                let change = Change::new(first_ns, ChangeKind::Configuration, subject.clone(), text).until(last_ns);
                let count = 1 + u64::from(last_ns.is_some());
                changes.push(Change { count, ..change });
            }
            if let Some(gone_ns) = life.gone_ns {
                let text = format!("{kind} deleted{read_by}");
                changes.push(Change::new(gone_ns, ChangeKind::Configuration, subject, text));
            }
        }
    }
}

/// Which workloads read a ConfigMap, by its namespace and name.
fn config_readers(objects: &Objects) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut readers: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for life in ["Deployment", "StatefulSet", "DaemonSet"].into_iter().flat_map(|kind| objects.of_kind(kind)) {
        let Some(spec) = life.states.last().and_then(|(_, state)| read::at(state, &["spec", "template", "spec"]))
        else {
            continue;
        };
        let mounted = read::list(spec, &["volumes"]).iter().filter_map(|one| read::text(one, &["configMap", "name"]));
        let containers = || super::difference::containers(spec).map(|(_, one)| one);
        let whole = containers().flat_map(|one| read::list(one, &["envFrom"]));
        let whole = whole.filter_map(|one| read::text(one, &["configMapRef", "name"]));
        let single = containers().flat_map(|one| read::list(one, &["env"]));
        let single = single.filter_map(|one| read::text(one, &["valueFrom", "configMapKeyRef", "name"]));
        for name in mounted.chain(whole).chain(single) {
            let key = (life.namespace.clone(), name.to_string());
            readers.entry(key).or_default().insert(format!("{}/{}", life.namespace, life.name));
        }
    }
    readers
}
