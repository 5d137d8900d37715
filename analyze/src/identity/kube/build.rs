//! What the cluster was, from its objects over time.

use std::collections::{BTreeMap, BTreeSet};

use kfr_bundle::kube::{KubeChange, KubeFact, recorded_kinds};
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::objects::Objects;
use super::owners::{Owners, Workload};
use super::{Blind, Kube, KubeService, Pod, Slice, Span, Who, read};

impl Kube {
    /// Who is who, from the objects of all bundles.
    pub fn new(objects: &Objects, blind: Vec<Blind>) -> Self {
        let mut kube = Self { blind, ..Self::default() };
        kube.add_pods(objects);
        kube.add_services(objects);
        kube.add_nodes(objects);
        for life in objects.of_kind("EndpointSlice") {
            let Some(service) = life.states.first().and_then(|(_, slice)| service_of(slice)) else { continue };
            let spans = life.spans().map(|(from_ns, to_ns, slice)| Span { from_ns, to_ns, what: ready(slice) });
            kube.slices.entry((life.namespace.clone(), service)).or_default().extend(spans);
        }
        for (ip, spans) in &mut kube.by_ip {
            spans.sort_by_key(|span| (span.from_ns, span.to_ns, span.what));
            let clashes = spans.windows(2).any(|pair| match pair {
                [a, b] => {
                    a.what != b.what && matches!((a.what, b.what), (Who::Pod(_), Who::Pod(_))) && b.from_ns < a.to_ns
                }
                _ => false,
            });
            if clashes {
                kube.shared.push(*ip);
            }
        }
        kube.shared.sort_unstable();
        kube.name_workloads();
        kube
    }

    /// Names the workloads, so that no two are called the same.
    pub(super) fn name_workloads(&mut self) {
        let plain = |workload: &Workload| format!("{}/{}", workload.namespace, workload.name);
        let mut same = BTreeMap::<_, u32>::new();
        self.workloads.iter().for_each(|workload| *same.entry(plain(workload)).or_default() += 1);
        let name = |workload: &Workload| match plain(workload) {
            name if same.get(&name).is_some_and(|count| *count > 1) => format!("{name} ({})", workload.kind),
            name => name,
        };
        self.workload_names = self.workloads.iter().map(name).collect();
    }

    fn add_pods(&mut self, objects: &Objects) {
        let owners = Owners::new(objects);
        let mut workloads = BTreeMap::new();
        for life in objects.of_kind("Pod") {
            let Some((_, state)) = life.states.last() else { continue };
            let number = self.pods.len() as u32;
            let workload = owners.workload(&life.namespace, &life.name, state);
            let next = self.workloads.len() as u32;
            let index = *workloads.entry(workload.clone()).or_insert_with(|| {
                self.workloads.push(workload);
                next
            });
            let host_network = read::is(state, &["spec", "hostNetwork"]);
            for (from_ns, to_ns, state) in life.spans() {
                for id in container_ids(state) {
                    self.by_container.entry(id.to_string()).or_insert(number);
                }
                if host_network {
                    continue;
                }
                // Its address may be another pod's once it has ended.
                let to_ns = if is_over(state) { to_ns.min(ended_ns(state).unwrap_or(from_ns)) } else { to_ns };
                if to_ns <= from_ns {
                    continue;
                }
                let first = read::text(state, &["status", "podIP"]).and_then(read::ip);
                let others = read::ips(read::list(state, &["status", "podIPs"]), "ip");
                for ip in BTreeSet::from_iter(first.into_iter().chain(others)) {
                    let spans = self.by_ip.entry(ip).or_default();
                    match spans.last_mut() {
                        Some(last) if last.what == Who::Pod(number) && last.to_ns == from_ns => last.to_ns = to_ns,
                        _ => spans.push(Span { from_ns, to_ns, what: Who::Pod(number) }),
                    }
                }
            }
            // Of a pod from a file the API has a copy, and the node another id.
            let hash = read::text(state, &["metadata", "annotations", "kubernetes.io/config.hash"]);
            for uid in [Some(&*life.uid), hash].into_iter().flatten().filter(|uid| !uid.is_empty()) {
                self.by_uid.insert(uid.to_string(), number);
            }
            self.by_name.insert((life.namespace.clone(), life.name.clone()), number);
            self.pods.push(Pod {
                namespace: life.namespace.clone(),
                name: life.name.clone(),
                workload: index,
                node: read::text(state, &["spec", "nodeName"]).unwrap_or_default().to_string(),
                by_node: false,
            });
        }
    }

    fn add_services(&mut self, objects: &Objects) {
        for life in objects.of_kind("Service") {
            let number = self.services.len() as u32;
            for (from_ns, to_ns, state) in life.spans() {
                let texts = [&["spec", "clusterIPs"][..], &["spec", "externalIPs"][..]];
                let plain = texts.into_iter().flat_map(|path| read::plain_ips(state, path));
                let first = read::text(state, &["spec", "clusterIP"]).and_then(read::ip);
                let balancers = read::ips(read::list(state, &["status", "loadBalancer", "ingress"]), "ip");
                for ip in BTreeSet::from_iter(plain.chain(first).chain(balancers)) {
                    let span = Span { from_ns, to_ns, what: Who::Service(number) };
                    self.by_ip.entry(ip).or_default().push(span);
                }
                for port in read::list(state, &["spec", "ports"]) {
                    if let Some(port) = read::port(port, "nodePort") {
                        self.by_node_port.entry(port).or_default().push(Span { from_ns, to_ns, what: number });
                    }
                }
            }
            let state = life.states.last().map_or(&Value::Null, |(_, state)| state);
            self.services.push(KubeService {
                namespace: life.namespace.clone(),
                name: life.name.clone(),
                ports: read::ports(state, &["spec", "ports"]),
            });
        }
    }

    fn add_nodes(&mut self, objects: &Objects) {
        for life in objects.of_kind("Node") {
            let number = self.nodes.len() as u32;
            for (from_ns, to_ns, state) in life.spans() {
                for ip in read::ips(read::list(state, &["status", "addresses"]), "address") {
                    let span = Span { from_ns, to_ns, what: Who::Node(number) };
                    self.by_ip.entry(ip).or_default().push(span);
                }
            }
            if let Some((_, state)) = life.states.last() {
                let ranges = read::list(state, &["spec", "podCIDRs"]).iter().filter_map(Value::as_str);
                let ranges = ranges.chain(read::text(state, &["spec", "podCIDR"])).filter_map(read::ip_range);
                self.pod_ranges.extend(ranges.map(|(ip, length)| (ip, length, number)));
            }
            self.nodes.push(life.name.clone());
        }
    }
}

/// When which changes were not seen: the rows of all bundles, each with its bundle's number, times on the wall clock.
pub fn blind_times(rows: &[(u32, KubeFact)]) -> Vec<Blind> {
    let mut found: Vec<Blind> = Vec::new();
    let mut open = FxHashMap::default();
    for (bundle, row) in rows {
        let key = (*bundle, row.kind.clone());
        match row.change {
            KubeChange::Blind => {
                open.entry(key).or_insert_with(|| {
                    let (kind, reason) = (row.kind.clone(), row.reason.clone());
                    found.push(Blind { bundle: *bundle, kind, from_ns: row.time_ns, to_ns: None, reason });
                    found.len() - 1
                });
            }
            KubeChange::Seeing => {
                if let Some(blind) = open.remove(&key).and_then(|index| found.get_mut(index)) {
                    blind.to_ns = Some(row.time_ns);
                }
            }
            _ => {}
        }
    }
    found
}

/// Adds kinds of which no list was complete in time; `asked` are the bundles that asked an API, with the time of their
/// recording (ns since 1970).
pub fn add_unlisted(blind: &mut Vec<Blind>, rows: &[(u32, KubeFact)], asked: &[(u32, (u64, u64))]) {
    let mut listed: FxHashMap<(u32, &str), u64> = FxHashMap::default();
    for (bundle, row) in rows.iter().filter(|(_, row)| row.change == KubeChange::Complete) {
        let first_ns = listed.entry((*bundle, row.kind.as_str())).or_insert(row.time_ns);
        *first_ns = row.time_ns.min(*first_ns);
    }
    for (bundle, (start_ns, end_ns)) in asked {
        for kind in recorded_kinds() {
            let is_it = |known: &&mut Blind| known.bundle == *bundle && (known.kind == kind || known.kind.is_empty());
            let first_ns = listed.get(&(*bundle, kind)).copied();
            if let Some(known) = blind.iter_mut().find(is_it) {
                // It was told when the first try had failed: nothing had been seen before that either.
                if first_ns.is_none_or(|first_ns| first_ns >= known.from_ns) {
                    known.from_ns = known.from_ns.min(*start_ns);
                }
            } else if first_ns.is_none_or(|first_ns| first_ns > start_ns.saturating_add(LATE_LIST_NS)) {
                let reason = match first_ns {
                    Some(_) => "the first list took so long".to_string(),
                    None => "no list arrived before the recording ended".to_string(),
                };
                let kind = kind.to_string();
                let to_ns = first_ns.filter(|first_ns| first_ns < end_ns);
                blind.push(Blind { bundle: *bundle, kind, from_ns: *start_ns, to_ns, reason });
            }
        }
    }
}

/// How long the first list of a kind may take before the ledger tells.
const LATE_LIST_NS: u64 = 5_000_000_000;

/// Whether a pod has run to its end.
fn is_over(pod: &Value) -> bool {
    matches!(read::text(pod, &["status", "phase"]), Some("Succeeded" | "Failed"))
}

/// The end of the second in which the last container of a pod ended, ns since 1970: Kubernetes tells whole seconds.
fn ended_ns(pod: &Value) -> Option<u64> {
    let statuses = read::list(pod, &["status", "containerStatuses"]).iter();
    let last_ns = statuses.filter_map(|status| read::time_ns(status, &["state", "terminated", "finishedAt"])).max()?;
    Some(last_ns.saturating_add(1_000_000_000))
}

/// Ids of a pod's containers, also of those that ran before a restart.
fn container_ids(pod: &Value) -> impl Iterator<Item = &str> {
    let fields = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let statuses = fields.into_iter().flat_map(|field| read::list(pod, &["status", field]));
    let ids = statuses.flat_map(|status| {
        let ended = |when| read::text(status, &[when, "terminated", "containerID"]);
        [read::text(status, &["containerID"]), ended("state"), ended("lastState")]
    });
    // The runtime stands before it: `containerd://`.
    let ids = ids.flatten().map(|id| id.rsplit_once("//").map_or(id, |(_, id)| id));
    ids.filter(|id| !id.is_empty())
}

fn service_of(slice: &Value) -> Option<String> {
    read::text(slice, &["metadata", "labels", "kubernetes.io/service-name"]).map(str::to_string)
}

/// The addresses of a slice that are ready: `ready` is true where nothing says otherwise (EndpointConditions, v1).
fn ready(slice: &Value) -> Slice {
    let is_ready = |endpoint: &&Value| {
        endpoint
            .get("conditions")
            .and_then(|conditions| conditions.get("ready"))
            .and_then(Value::as_bool)
            .unwrap_or(true)
    };
    let endpoints = read::list(slice, &["endpoints"]).iter().filter(is_ready);
    let ready = endpoints.flat_map(|endpoint| read::plain_ips(endpoint, &["addresses"])).collect();
    Slice { ready, ports: read::ports(slice, &["ports"]) }
}
