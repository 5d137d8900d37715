//! Who owns a pod: the chain of controllers up to the workload that an engineer deploys.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::objects::Objects;
use super::read;

/// Owners of owners that are followed: a cycle ends here.
const MAX_OWNERS: usize = 8;

const MINUTE_NS: u64 = 60_000_000_000;
/// How late a CronJob starts a Job at most, minutes: else the number is something else.
const LATEST_MINUTES: u64 = 24 * 60;

/// The topmost owner of pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, a kind of somebody's own; `Pod` where nothing owns it.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The controllers of all objects.
pub struct Owners {
    /// By unique id of the owned: kind, name and unique id of its controller.
    by_uid: FxHashMap<String, (String, String, String)>,
}

impl Owners {
    /// Reads them.
    pub fn new(objects: &Objects) -> Self {
        let mut by_uid = FxHashMap::default();
        for life in objects.all() {
            if let Some(owner) = life.states.last().and_then(|(_, state)| controller(state)) {
                by_uid.insert(life.uid.clone(), owner);
            }
        }
        Self { by_uid }
    }

    /// The workload of a pod.
    pub fn workload(&self, namespace: &str, name: &str, pod: &Value) -> Workload {
        let workload = |kind: &str, name: &str| Workload {
            kind: kind.to_string(),
            namespace: namespace.to_string(),
            name: name.to_string(),
        };
        let Some((mut kind, mut owner, mut uid)) = controller(pod) else {
            return workload("Pod", name);
        };
        if kind == "Node" {
            // A static pod: the kubelet calls it as its file does, and appends the node.
            let node = read::text(pod, &["spec", "nodeName"]).unwrap_or_default();
            let own = name.strip_suffix(node).and_then(|name| name.strip_suffix('-')).unwrap_or(name);
            return workload("Pod", own);
        }
        for _ in 0..MAX_OWNERS {
            match self.by_uid.get(&uid) {
                Some((next_kind, next_owner, next_uid)) if *next_uid != uid => {
                    (kind, owner, uid) = (next_kind.clone(), next_owner.clone(), next_uid.clone());
                }
                _ => break,
            }
        }
        // A ReplicaSet that nobody recorded: a Deployment names it after itself and the hash of the template.
        if kind == "ReplicaSet"
            && let Some(hash) = read::text(pod, &["metadata", "labels", "pod-template-hash"])
            && let Some(deployment) = owner.strip_suffix(hash).and_then(|name| name.strip_suffix('-'))
            && !deployment.is_empty()
        {
            return workload("Deployment", deployment);
        }
        // The same of a Job and its CronJob: what is appended is the minute that it was due (unix time).
        if kind == "Job"
            && let Some((cron_job, minute)) = owner.rsplit_once('-')
            && let Some(minute) = minute.parse::<u64>().ok()
            && let Some(created_ns) = read::time_ns(pod, &["metadata", "creationTimestamp"])
            && (created_ns / MINUTE_NS).abs_diff(minute) < LATEST_MINUTES
        {
            return workload("CronJob", cron_job);
        }
        workload(&kind, &owner)
    }
}

/// Kind, name and unique id of the owner that controls an object.
fn controller(object: &Value) -> Option<(String, String, String)> {
    let owner = read::controller(object)?;
    let field = |name| read::text(owner, &[name]).map(str::to_string);
    Some((field("kind")?, field("name")?, field("uid").unwrap_or_default()))
}
