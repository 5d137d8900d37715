//! What the cluster was and what happened to it: workloads with their revisions and rollouts, pods with their containers,
//! nodes, Services, and the list of changes. Numbers of pods, workloads, Services and nodes are those of [`Kube`].

mod change;
mod containers;
mod difference;
mod events;
mod lifetimes;
mod nodes;
mod rollouts;
mod services;
#[cfg(test)]
mod tests;
mod workloads;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

pub use change::{Change, ChangeKind};
pub use containers::{Container, ContainerKind, Ending};
pub use lifetimes::Pod;
pub use nodes::Node;
pub use rollouts::{Outcome, Revision, Rollout};
pub use services::Service;
pub use workloads::{Replicas, Workload};

use crate::identity::{Kube, Objects};

/// How long before a recording something is told that happened: the first question is what was changed before it broke,
/// and recordings begin after that. Kubernetes keeps its own events as long.
const BEFORE_NS: u64 = 3_600_000_000_000;

/// So much may the clocks of the API server and of the recorder differ before the ledger tells.
const CLOCKS_NS: u64 = 60_000_000_000;

/// The cluster over a recording.
#[derive(Debug, Default)]
pub struct Cluster {
    /// By number; behind those of [`Kube`] the ones that have no pod.
    pub workloads: Vec<Workload>,
    /// By number.
    pub pods: Vec<Pod>,
    /// By number.
    pub services: Vec<Service>,
    /// By number.
    pub nodes: Vec<Node>,
    /// By time.
    pub changes: Vec<Change>,
    /// How far the youngest object lies behind the recording's end, where that can't be: the clocks disagree. ns.
    pub ahead_ns: Option<u64>,
    /// Zones of nodes, by the node's name.
    zones: FxHashMap<String, String>,
}

impl Cluster {
    /// Reads the objects; `window` is the time of the recording, ns since 1970. Changes after it, and those long before, are
    /// left out.
    pub fn new(objects: &Objects, kube: &Kube, window: (u64, u64)) -> Self {
        let (start_ns, end_ns) = window;
        let mut changes = Vec::new();
        let pods = lifetimes::pods(objects, kube, start_ns, &mut changes);
        events::read(objects, &pods, kube, &mut changes);
        let mut workloads = workloads::workloads(objects, kube, window, &mut changes);
        workloads::name_revisions(&mut workloads, &pods);
        let services = services::services(objects, kube, window, &mut changes);
        let nodes = nodes::nodes(objects, &mut changes);
        changes.retain(|change| {
            let last_ns = change.until_ns.unwrap_or(change.at_ns);
            change.at_ns <= end_ns && last_ns >= start_ns.saturating_sub(BEFORE_NS)
        });
        changes
            .sort_by(|a, b| (a.at_ns, a.kind, &a.subject, &a.summary).cmp(&(b.at_ns, b.kind, &b.subject, &b.summary)));
        let zones = nodes.iter().filter_map(|node| Some((node.name.clone(), node.zone.clone()?))).collect();
        let youngest_ns = objects.all().iter().map(|life| life.born_ns).max().unwrap_or(0);
        let ahead_ns = youngest_ns.checked_sub(end_ns).filter(|ahead_ns| *ahead_ns > CLOCKS_NS);
        Self { workloads, pods, services, nodes, changes, ahead_ns, zones }
    }

    /// The zone that a node stands in.
    pub fn zone(&self, node: &str) -> Option<&str> {
        self.zones.get(node).map(String::as_str)
    }

    /// The numbers of a workload's pods, by workload.
    pub fn pods_of_workloads(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut pods: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pod, number) in self.pods.iter().zip(0u32..) {
            pods.entry(pod.workload).or_default().push(number);
        }
        pods
    }
}
