//! Pods: from being asked for to their end.

use std::collections::BTreeMap;

use serde_json::Value;

use super::change::{Change, ChangeKind, short};
use super::containers::{self, Container};
use crate::identity::{Kube, Life, Objects, read};

const SECOND_NS: u64 = 1_000_000_000;

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Number of its workload.
    pub workload: u32,
    /// Name of its node; empty where it has none.
    pub node: String,
    /// Which revision of its workload it is: the hash of the template. Empty where it has none.
    pub revision: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`; empty where unknown.
    pub phase: String,
    /// Why it is in that phase, or not ready: `Unschedulable`, `Evicted`, `CrashLoopBackOff`.
    pub reason: Option<String>,
    /// Whether it was ready, as told last.
    pub ready: Option<bool>,
    /// When it was asked for, ns since 1970.
    pub created_ns: Option<u64>,
    /// When it was ready first.
    pub ready_ns: Option<u64>,
    /// When its deletion was asked for, or it was gone.
    pub deleted_ns: Option<u64>,
    /// Its containers; none of pods on nodes that were not recorded.
    pub containers: Vec<Container>,
}

impl Pod {
    /// How often its containers were started again.
    pub fn restarts(&self) -> u64 {
        self.containers.iter().fold(0, |sum: u64, container| sum.saturating_add(container.restarts))
    }
}

/// All pods, in [`Kube`]'s order, and what happened to them.
pub fn pods(objects: &Objects, kube: &Kube, start_ns: u64, changes: &mut Vec<Change>) -> Vec<Pod> {
    let wanted = wanted_pods(objects);
    let lives = objects.of_kind("Pod").filter(|life| !life.states.is_empty());
    let mut pods = Vec::new();
    for (life, number) in lives.zip(0u32..) {
        let known = kube.pod(number);
        let workload = known.map_or(0, |pod| pod.workload);
        let kind = kube.workload_kind(workload);
        let is_job = matches!(kind, "Job" | "CronJob");
        let spans: Vec<_> = life.spans().collect();
        let from = changes.len();
        let subject = format!("{}/{}", life.namespace, life.name);
        containers::changes(&subject, &spans, is_job, start_ns, changes);
        unschedulable(&subject, &spans, changes);
        let pod = pod(life, workload);
        evicted(&subject, &pod, &spans, changes);
        if let Some(at_ns) = pod.deleted_ns
            && !is_job
            && let Some((_, _, state)) = spans.iter().find(|(_, _, state)| is_deleted(state)).or(spans.last())
            && read::text(state, &["status", "phase"]) == Some("Running")
            && was_wanted(&wanted, state, at_ns)
        {
            let text = "deleted, though its workload still wanted as many";
            changes.push(Change::new(at_ns, ChangeKind::PodDeleted, subject, text));
        }
        for change in changes.iter_mut().skip(from) {
            (change.workload, change.pod) = (Some(workload), Some(number));
        }
        pods.push(pod);
    }
    // Those that only their node named.
    let named = kube.pods().iter().skip(pods.len()).map(|pod| Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        workload: pod.workload,
        node: pod.node.clone(),
        ..Pod::default()
    });
    pods.extend(named);
    pods
}

fn pod(life: &Life, workload: u32) -> Pod {
    let spans: Vec<_> = life.spans().collect();
    let state = spans.last().map_or(&Value::Null, |(_, _, state)| state);
    let text = |path: &[&str]| read::text(state, path).unwrap_or_default().to_string();
    let containers = containers::containers(state);
    let condition = |kind| read::condition(state, kind);
    let is = |one: &Value| read::text(one, &["status"]) == Some("True");
    let deleted_ns = life.states.iter().find_map(|(seen_ns, state)| {
        let ends_ns = read::time_ns(state, &["metadata", "deletionTimestamp"])?;
        let grace = read::number(state, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        // It is told with the end of its grace time.
        Some(ends_ns.saturating_sub(grace.saturating_mul(SECOND_NS)).min(*seen_ns))
    });
    let ready_ns = spans.iter().find_map(|(from_ns, _, state)| {
        let ready = read::condition(state, "Ready").filter(|one| is(one))?;
        Some(read::time_ns(ready, &["lastTransitionTime"]).unwrap_or(*from_ns))
    });
    let reason = read::text(state, &["status", "reason"])
        .or_else(|| containers.iter().find_map(|container| container.waiting.as_deref()))
        .or_else(|| condition("PodScheduled").filter(|one| !is(one)).and_then(|one| read::text(one, &["reason"])));
    Pod {
        namespace: life.namespace.clone(),
        name: life.name.clone(),
        workload,
        node: text(&["spec", "nodeName"]),
        revision: revision(state).to_string(),
        labels: labels(state),
        phase: text(&["status", "phase"]),
        reason: reason.map(|reason| short(reason, 60)),
        ready: condition("Ready").map(is),
        created_ns: Some(life.born_ns).filter(|born_ns| *born_ns > 0),
        ready_ns,
        deleted_ns: deleted_ns.or(life.gone_ns),
        containers,
    }
}

fn is_deleted(object: &Value) -> bool {
    read::text(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// The labels of an object.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object.get("metadata").and_then(|metadata| metadata.get("labels")).and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_string()));
    labels.into_iter().flatten().filter_map(text).collect()
}

/// The template that a pod was made from, by its hash: a Deployment's pods have one of the ReplicaSet, those of a StatefulSet
/// or DaemonSet that of their ControllerRevision.
pub fn revision(pod: &Value) -> &str {
    let label = |name| read::text(pod, &["metadata", "labels", name]);
    // The last is Argo's.
    let labels = ["pod-template-hash", "controller-revision-hash", "rollouts-pod-template-hash"];
    labels.into_iter().find_map(label).unwrap_or_default()
}

fn unschedulable(subject: &str, spans: &[(u64, u64, &Value)], changes: &mut Vec<Change>) {
    let mut found: Option<Change> = None;
    for (from_ns, _, state) in spans {
        let scheduled = read::condition(state, "PodScheduled");
        let refused = scheduled.filter(|one| read::text(one, &["reason"]) == Some("Unschedulable"));
        match (refused, &mut found) {
            (Some(refused), None) => {
                let why = read::text(refused, &["message"]).unwrap_or("no node has room");
                let since_ns = read::time_ns(refused, &["lastTransitionTime"]).unwrap_or(*from_ns);
                found = Some(Change::new(since_ns, ChangeKind::Unschedulable, subject, short(why, 200)).bad());
            }
            (None, Some(change)) if change.until_ns.is_none() => {
                let at_ns = scheduled.and_then(|one| read::time_ns(one, &["lastTransitionTime"])).unwrap_or(*from_ns);
                change.until_ns = Some(at_ns);
            }
            _ => {}
        }
    }
    // It often takes a moment until a volume is there.
    let waited =
        |change: &Change| change.until_ns.is_none_or(|until_ns| until_ns > change.at_ns.saturating_add(SECOND_NS));
    changes.extend(found.filter(waited));
}

fn evicted(subject: &str, pod: &Pod, spans: &[(u64, u64, &Value)], changes: &mut Vec<Change>) {
    let told = spans.iter().find_map(|(from_ns, _, state)| {
        let disrupted =
            read::condition(state, "DisruptionTarget").filter(|one| read::text(one, &["status"]) == Some("True"));
        let (reason, message) = match disrupted {
            Some(one) => (read::text(one, &["reason"])?, read::text(one, &["message"])),
            None if read::text(state, &["status", "reason"]) == Some("Evicted") => {
                ("Evicted", read::text(state, &["status", "message"]))
            }
            None => return None,
        };
        let at_ns = disrupted.and_then(|one| read::time_ns(one, &["lastTransitionTime"])).unwrap_or(*from_ns);
        Some((at_ns, reason, message))
    });
    if let Some((at_ns, reason, message)) = told {
        let node = if pod.node.is_empty() { String::new() } else { format!(" from {}", pod.node) };
        let why = message.map_or_else(String::new, |message| format!(": {}", short(message, 160)));
        changes
            .push(Change::new(at_ns, ChangeKind::Evicted, subject, format!("{}{node}{why}", short(reason, 60))).bad());
    }
}

/// How many pods each controller wanted, from when on; by its unique id.
fn wanted_pods(objects: &Objects) -> BTreeMap<&str, Vec<(u64, u64)>> {
    let kinds = ["ReplicaSet", "StatefulSet"];
    let lives = kinds.into_iter().flat_map(|kind| objects.of_kind(kind));
    let wanted = lives.map(|life| {
        let steps =
            life.spans().filter_map(|(from_ns, _, state)| Some((from_ns, read::number(state, &["spec", "replicas"])?)));
        (life.uid.as_str(), steps.chain(life.gone_ns.map(|gone_ns| (gone_ns, 0))).collect())
    });
    wanted.collect()
}

/// Whether the controller of a pod wanted as many when the pod was deleted as it did before: then it was not its doing.
fn was_wanted(wanted: &BTreeMap<&str, Vec<(u64, u64)>>, pod: &Value, at_ns: u64) -> bool {
    let Some(steps) =
        read::controller(pod).and_then(|owner| read::text(owner, &["uid"])).and_then(|uid| wanted.get(uid))
    else {
        return false;
    };
    let at = |time_ns: u64| steps.iter().rev().find(|(from_ns, _)| *from_ns <= time_ns).map(|(_, count)| *count);
    // Kubernetes tells whole seconds, and a StatefulSet's update deletes without wanting less.
    let is_set = read::text(pod, &["metadata", "labels", "controller-revision-hash"]).is_some();
    let before = at(at_ns.saturating_sub(3 * SECOND_NS));
    !is_set && before.is_some_and(|before| before > 0 && at(at_ns.saturating_add(2 * SECOND_NS)) >= Some(before))
}
