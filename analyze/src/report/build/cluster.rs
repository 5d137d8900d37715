//! Workloads, pods and changes.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::services;
use crate::cluster::{self, Cluster};
use crate::dump::fingerprint;
use crate::model;
use crate::report::document::{
    Caller, Change, Container, Document, Ending, Golden, Image, KubernetesNode, KubernetesService, LabelGroup, Pod,
    ReplicaStep, Replicas, Revision, Rollout, Workload,
};
use crate::{Analysis, World};

/// Callers of a revision that the report lists.
const MAX_CALLERS: usize = 20;
/// Changes that the report lists; bad ones stay longest.
const MAX_CHANGES: usize = 2000;

/// The parts of the document that Kubernetes tells of.
#[derive(Default)]
pub struct Parts {
    /// Workloads, worst first.
    pub workloads: Vec<Workload>,
    /// Pods, by workload.
    pub pods: Vec<Pod>,
    /// By label.
    pub groups: Vec<LabelGroup>,
    /// Changes, by time.
    pub changes: Vec<Change>,
}

/// Builds them from the requests by (client service, pod), taken out of the analysis' metrics.
pub fn build(analysis: &Analysis, by_pod: &FxHashMap<(u32, u32), model::Golden>, group_by: &[String]) -> Parts {
    let world = &analysis.world;
    let cluster = &world.facts.cluster;
    let mut sums: BTreeMap<u32, model::Golden> = BTreeMap::new();
    for ((_, pod), golden) in by_pod {
        sums.entry(*pod).or_default().merge(golden);
    }
    let show = |golden: &model::Golden| services::golden_without_series(world, golden);
    let of_pods = |pods: &mut dyn Iterator<Item = u32>| {
        let mut sum = model::Golden::default();
        pods.filter_map(|pod| sums.get(&pod)).for_each(|golden| sum.merge(golden));
        show(&sum)
    };
    let pods_of = cluster.pods_of_workloads();
    let none = Vec::new();
    let mut workloads = Vec::new();
    for (workload, number) in cluster.workloads.iter().zip(0u32..) {
        let numbers = pods_of.get(&number).unwrap_or(&none);
        let own = || numbers.iter().filter_map(|pod| Some((*pod, cluster.pods.get(*pod as usize)?)));
        // A workload that was deleted before, without a pod, is none any more.
        if numbers.is_empty() && workload.replicas.is_none() && workload.kind != "CronJob" {
            continue;
        }
        let revisions = workload.revisions.iter().map(|revision| {
            let pods = own().filter(|(_, pod)| pod.revision == revision.name).map(|(number, _)| number);
            let pods: Vec<u32> = pods.collect();
            Revision {
                name: revision.name.clone(),
                number: revision.number,
                images: revision
                    .images
                    .iter()
                    .map(|(container, image)| Image { container: container.clone(), image: image.clone() })
                    .collect(),
                created_ns: revision.created_ns,
                pods: pods.len() as u64,
                inbound: of_pods(&mut pods.iter().copied()),
                callers: callers(world, by_pod, &pods),
            }
        });
        workloads.push(Workload {
            id: workload_id(workload),
            name: workload.title(),
            kind: workload.kind.clone(),
            namespace: Some(workload.namespace.clone()),
            services: services::of_workload(world, number),
            kubernetes_services: in_front(cluster, number),
            replicas: workload.replicas.map(|replicas| Replicas {
                wanted: replicas.wanted,
                ready: replicas.ready,
                updated: replicas.updated,
                available: replicas.available,
            }),
            least_ready: workload.least_ready,
            course: workload
                .course
                .iter()
                .map(|(at_ns, wanted, ready)| ReplicaStep { at_ns: *at_ns, wanted: *wanted, ready: *ready })
                .collect(),
            pods: numbers.len() as u64,
            restarts: own().fold(0, |sum: u64, (_, pod)| sum.saturating_add(pod.restarts())),
            revisions: revisions.collect(),
            rollouts: workload.rollouts.iter().map(|one| rollout(workload, one)).collect(),
            labels: workload.labels.clone(),
            inbound: of_pods(&mut numbers.iter().copied()),
        });
    }
    let pods = cluster.pods.iter().zip(0u32..).map(|(pod, number)| {
        let inbound = sums.get(&number).map(&show).unwrap_or_default();
        self::pod(cluster, pod, inbound)
    });
    let mut pods: Vec<Pod> = pods.collect();
    pods.sort_by(|a, b| {
        (&a.namespace, &a.workload, a.created_ns, &a.name).cmp(&(&b.namespace, &b.workload, b.created_ns, &b.name))
    });
    let start_ns = world.window.map_or(0, |(start_ns, _)| start_ns);
    let mut bad: BTreeMap<u32, u64> = BTreeMap::new();
    for change in cluster.changes.iter().filter(|change| change.is_bad) {
        // What was over before the recording is told among the changes.
        if let Some(workload) = change.workload.filter(|_| change.until_ns.unwrap_or(change.at_ns) >= start_ns) {
            *bad.entry(workload).or_default() += 1;
        }
    }
    let bad: FxHashMap<String, u64> = bad
        .into_iter()
        .filter_map(|(number, count)| Some((workload_id(cluster.workloads.get(number as usize)?), count)))
        .collect();
    workloads.sort_by(|a, b| {
        rank(b, &bad).total_cmp(&rank(a, &bad)).then_with(|| a.name.cmp(&b.name)).then_with(|| a.id.cmp(&b.id))
    });
    Parts { workloads, pods, groups: groups(cluster, &sums, group_by, &show), changes: changes(cluster) }
}

/// Worst first: failing requests, then pods that are missing, then what happened to it.
fn rank(workload: &Workload, bad: &FxHashMap<String, u64>) -> f64 {
    let missing = workload.replicas.map_or(0.0, |replicas| {
        let ready = workload.least_ready.unwrap_or(replicas.ready).min(replicas.ready);
        1.0 - ready.min(replicas.wanted) as f64 / replicas.wanted.max(1) as f64
    });
    let missing = if workload.replicas.is_some_and(|replicas| replicas.wanted > 0) { missing } else { 0.0 };
    let failing = workload.inbound.server_errors() as f64 / workload.inbound.judged().max(1) as f64;
    let happened = bad.get(&workload.id).copied().unwrap_or_default().min(1000) as f64;
    failing * 100.0 + missing * 10.0 + happened / 1000.0
}

/// Puts workloads that findings are about in front: the worst and surest first.
pub fn worst_first(document: &mut Document) {
    let mut places: FxHashMap<&str, usize> = FxHashMap::default();
    for (place, finding) in document.findings.iter().enumerate() {
        if let Some(id) = finding.subject.id.as_deref().filter(|_| finding.subject.kind == "workload") {
            places.entry(id).or_insert(place);
        }
    }
    let place = |workload: &Workload| places.get(workload.id.as_str()).copied().unwrap_or(usize::MAX);
    document.workloads.sort_by_cached_key(place);
}

/// Derived from what it is, so that links to it outlive a second analysis.
pub fn workload_id(workload: &cluster::Workload) -> String {
    format!("w-{}", fingerprint(&workload.kind, &workload.title()))
}

fn pod_id(pod: &cluster::Pod) -> String {
    format!("p-{}", fingerprint(&pod.namespace, &format!("{}/{}", pod.name, pod.created_ns.unwrap_or_default())))
}

fn callers(world: &World, by_pod: &FxHashMap<(u32, u32), model::Golden>, pods: &[u32]) -> Vec<Caller> {
    let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for ((client, _), golden) in by_pod.iter().filter(|((_, pod), _)| pods.binary_search(pod).is_ok()) {
        let (requests, errors) = sums.entry(*client).or_default();
        *requests += golden.requests;
        *errors += golden.errors;
    }
    let mut callers: Vec<Caller> = sums
        .into_iter()
        .map(|(client, (requests, errors))| Caller { service: services::id(world, client), requests, errors })
        .collect();
    callers.sort_by(|a, b| (b.errors, b.requests, &a.service).cmp(&(a.errors, a.requests, &b.service)));
    callers.truncate(MAX_CALLERS);
    callers
}

fn in_front(cluster: &Cluster, workload: u32) -> Vec<KubernetesService> {
    let mut found: Vec<_> = cluster.services.iter().filter(|service| service.workloads.contains(&workload)).collect();
    found.sort_by_key(|service| (&service.namespace, &service.name));
    let shown = found.into_iter().map(|service| KubernetesService {
        name: format!("{}/{}", service.namespace, service.name),
        kind: service.kind.clone(),
        ready: service.ready,
        least_ready: service.least_ready,
    });
    shown.collect()
}

fn rollout(workload: &cluster::Workload, rollout: &cluster::Rollout) -> Rollout {
    let name = |place: usize| workload.revisions.get(place).map(|revision| revision.name.clone());
    Rollout {
        from: rollout.from.and_then(name),
        to: name(rollout.to).unwrap_or_default(),
        number: rollout.number,
        began_ns: rollout.began_ns,
        ended_ns: rollout.ended_ns,
        stuck_ns: rollout.stuck_ns,
        outcome: rollout.outcome.name().to_string(),
        difference: rollout.difference.clone(),
        is_rollback: rollout.repeats.is_some(),
    }
}

fn pod(cluster: &Cluster, pod: &cluster::Pod, inbound: Golden) -> Pod {
    let text = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
    let containers = pod.containers.iter().map(|container| Container {
        name: container.name.clone(),
        kind: container.kind.name().to_string(),
        image: container.image.clone(),
        restarts: container.restarts,
        ended: container.ended.as_ref().map(|ended| Ending {
            reason: ended.reason.clone(),
            exit_code: ended.exit_code,
            at_ns: ended.at_ns,
        }),
        waiting: container.waiting.clone(),
        ready: container.ready,
    });
    Pod {
        id: pod_id(pod),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        workload: cluster.workloads.get(pod.workload as usize).map(workload_id),
        revision: text(&pod.revision),
        node: text(&pod.node),
        zone: cluster.zone(&pod.node).map(String::from),
        phase: text(&pod.phase),
        reason: pod.reason.clone(),
        ready: pod.ready,
        created_ns: pod.created_ns,
        ready_ns: pod.ready_ns,
        deleted_ns: pod.deleted_ns,
        restarts: pod.restarts(),
        containers: containers.collect(),
        labels: pod.labels.clone(),
        inbound,
    }
}

fn groups(
    cluster: &Cluster,
    sums: &BTreeMap<u32, model::Golden>,
    labels: &[String],
    show: &dyn Fn(&model::Golden) -> Golden,
) -> Vec<LabelGroup> {
    let mut found = Vec::new();
    for label in labels {
        let mut values: BTreeMap<Option<&String>, (u64, model::Golden)> = BTreeMap::new();
        for (pod, number) in cluster.pods.iter().zip(0u32..) {
            let (pods, sum) = values.entry(pod.labels.get(label)).or_default();
            *pods += 1;
            if let Some(golden) = sums.get(&number) {
                sum.merge(golden);
            }
        }
        found.extend(values.into_iter().map(|(value, (pods, sum))| LabelGroup {
            label: label.clone(),
            value: value.cloned(),
            pods,
            inbound: show(&sum),
        }));
    }
    found
}

fn changes(cluster: &Cluster) -> Vec<Change> {
    let mut shown: Vec<&cluster::Change> = cluster.changes.iter().collect();
    if shown.len() > MAX_CHANGES {
        shown.sort_by_key(|change| (!change.is_bad, change.kind, std::cmp::Reverse(change.at_ns)));
        shown.truncate(MAX_CHANGES);
        shown.sort_by(|a, b| (a.at_ns, a.kind, &a.subject, &a.summary).cmp(&(b.at_ns, b.kind, &b.subject, &b.summary)));
    }
    let of = |change: &cluster::Change| Change {
        at_ns: Some(change.at_ns),
        until_ns: change.until_ns,
        kind: change.kind.name().to_string(),
        subject: change.subject.clone(),
        summary: change.summary.clone(),
        count: change.count,
        is_bad: change.is_bad,
        workload: change.workload.and_then(|number| cluster.workloads.get(number as usize)).map(workload_id),
        pod: change.pod.and_then(|number| cluster.pods.get(number as usize)).map(pod_id),
    };
    shown.into_iter().map(of).collect()
}

/// What Kubernetes says of its nodes, by name.
pub fn nodes(cluster: &Cluster) -> BTreeMap<String, KubernetesNode> {
    let mut pods: BTreeMap<&str, u64> = BTreeMap::new();
    for pod in cluster.pods.iter().filter(|pod| !pod.node.is_empty()) {
        *pods.entry(pod.node.as_str()).or_default() += 1;
    }
    let nodes = cluster.nodes.iter().map(|node| {
        let of = KubernetesNode {
            zone: node.zone.clone(),
            ready: node.ready,
            is_cordoned: node.is_cordoned,
            troubles: node.troubles.clone(),
            pods: pods.get(node.name.as_str()).copied().unwrap_or_default(),
            kubelet: node.info.get("kubeletVersion").cloned(),
            runtime: node.info.get("containerRuntimeVersion").cloned(),
        };
        (node.name.clone(), of)
    });
    nodes.collect()
}
