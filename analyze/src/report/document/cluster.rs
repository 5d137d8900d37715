//! Kubernetes' own view: workloads, their revisions and pods, and what changed.

use std::collections::BTreeMap;

use super::Golden;
use serde::{Deserialize, Serialize};

/// What Kubernetes deploys: a Deployment, StatefulSet, DaemonSet, Job, CronJob, a single pod, or a kind of somebody's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Stable for the same bundle.
    pub id: String,
    /// Namespace and name: `shop/api`.
    pub name: String,
    /// `Deployment`, `StatefulSet`, ...
    pub kind: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Ids of the [`super::Service`]s that are its processes.
    pub services: Vec<String>,
    /// Kubernetes Services that its pods are behind.
    pub kubernetes_services: Vec<KubernetesService>,
    /// Pods wanted and there, as told last; null of Jobs and single pods.
    pub replicas: Option<Replicas>,
    /// The fewest pods that were ready at any time of the recording once all were.
    pub least_ready: Option<u64>,
    /// The same over the recording: a step whenever one of the two changed.
    pub course: Vec<ReplicaStep>,
    /// Pods that it had during the recording.
    pub pods: u64,
    /// How often containers of these were started again, in the pods' whole lives.
    pub restarts: u64,
    /// Versions of its pod template, the oldest first.
    pub revisions: Vec<Revision>,
    /// How they replaced each other, the oldest first.
    pub rollouts: Vec<Rollout>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Requests that its pods answered, where the pod is known.
    pub inbound: Golden,
}

/// A Kubernetes Service in front of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KubernetesService {
    /// Namespace and name.
    pub name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `Headless`.
    pub kind: String,
    /// Addresses that were ready at the end.
    pub ready: Option<u64>,
    /// The fewest that were.
    pub least_ready: Option<u64>,
}

/// Numbers of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Wanted.
    pub wanted: u64,
    /// Ready.
    pub ready: u64,
    /// Of the newest revision.
    pub updated: u64,
    /// Ready for as long as the workload asks for.
    pub available: u64,
}

/// Numbers of pods from a moment on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStep {
    /// From when on.
    pub at_ns: u64,
    /// Wanted.
    pub wanted: u64,
    /// Ready.
    pub ready: u64,
}

/// A version of a workload's pod template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Hash of the template, as pods are labelled with it.
    pub name: String,
    /// A Deployment's number of it; the last one where it was rolled out again.
    pub number: Option<u64>,
    /// Its containers' images.
    pub images: Vec<Image>,
    /// When it was first made.
    pub created_ns: Option<u64>,
    /// Pods of it during the recording.
    pub pods: u64,
    /// Requests that they answered.
    pub inbound: Golden,
    /// Who sent these, with most failures first.
    pub callers: Vec<Caller>,
}

/// An image and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The container.
    pub container: String,
    /// As the template names it.
    pub image: String,
}

/// Who called a revision's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Id of the service.
    pub service: String,
    /// Its requests.
    pub requests: u64,
    /// Of these, answered with an error.
    pub errors: u64,
}

/// One revision replaces another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Name of the old [`Revision`]; null where the workload is new, or the old one isn't known.
    pub from: Option<String>,
    /// Name of the new one.
    pub to: String,
    /// A Deployment's number of the new one.
    pub number: Option<u64>,
    /// When it began.
    pub began_ns: u64,
    /// When it was done, or another one began.
    pub ended_ns: Option<u64>,
    /// Since when its deadline had passed.
    pub stuck_ns: Option<u64>,
    /// `complete`, `stuck`, `replaced` (by another before it was done), `running`, `waiting` (paused, or pods are replaced only
    /// when they are deleted), `unknown` (nobody saw it).
    pub outcome: String,
    /// What is different, in one phrase.
    pub difference: String,
    /// True where the new one had been rolled out before.
    pub is_rollback: bool,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Stable for the same bundle.
    pub id: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Id of its workload.
    pub workload: Option<String>,
    /// Name of the [`Revision`] that it is of.
    pub revision: Option<String>,
    /// Node it runs on.
    pub node: Option<String>,
    /// Zone of that node.
    pub zone: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: Option<String>,
    /// Why it is so, or not ready: `Unschedulable`, `CrashLoopBackOff`.
    pub reason: Option<String>,
    /// Whether it was ready, as told last.
    pub ready: Option<bool>,
    /// When it was asked for.
    pub created_ns: Option<u64>,
    /// When it was ready first.
    pub ready_ns: Option<u64>,
    /// When its deletion was asked for.
    pub deleted_ns: Option<u64>,
    /// How often its containers were started again.
    pub restarts: u64,
    /// Its containers; none of pods on nodes that were not recorded.
    pub containers: Vec<Container>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Requests it answered.
    pub inbound: Golden,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Name.
    pub name: String,
    /// `init`, `sidecar`, `main`, `ephemeral`.
    pub kind: String,
    /// Image as the pod names it.
    pub image: String,
    /// How often it was started again in the pod's life.
    pub restarts: u64,
    /// How it ended last.
    pub ended: Option<Ending>,
    /// What it waited for, as told last: `ImagePullBackOff`.
    pub waiting: Option<String>,
    /// Whether it was ready, as told last.
    pub ready: Option<bool>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// `OOMKilled`, `Error`, `Completed`.
    pub reason: String,
    /// Its exit code.
    pub exit_code: Option<i64>,
    /// When.
    pub at_ns: Option<u64>,
}

/// Requests by the value of a label of the pods that answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelGroup {
    /// The label.
    pub label: String,
    /// Its value; null: pods without it.
    pub value: Option<String>,
    /// Pods.
    pub pods: u64,
    /// Requests they answered.
    pub inbound: Golden,
}

/// Something that changed, or went wrong, in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, or from when on; may lie up to an hour before the recording.
    pub at_ns: Option<u64>,
    /// Until when, where it took time; null where it was a moment.
    pub until_ns: Option<u64>,
    /// `rollout` `created` `deleted` `scaled` `configuration` `service` `node` `pod_deleted` `evicted` `oom_killed` `restarted` `not_starting`
    /// `unschedulable` `probe_failed` `job` `warning`.
    pub kind: String,
    /// Of what: `shop/api`, a node's name.
    pub subject: String,
    /// In one phrase.
    pub summary: String,
    /// How often.
    pub count: u64,
    /// True where somebody is hurt by it, or may be.
    pub is_bad: bool,
    /// Id of the [`Workload`].
    pub workload: Option<String>,
    /// Id of the [`Pod`].
    pub pod: Option<String>,
}
