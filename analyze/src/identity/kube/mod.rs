//! Kubernetes: which pod, Service or node an address, container or process was, at a moment.

mod objects;
mod owners;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use kfr_bundle::kube::{KubeChange, KubeFact};
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::sockets::Endpoint;
pub use objects::{Life, Objects};
use owners::Owners;
pub use owners::Workload;

/// A pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique id, as cgroup paths name it.
    pub uid: String,
    /// Number of its workload.
    pub workload: u32,
    /// Name of its node; empty where it has none yet.
    pub node: String,
    /// It has its node's addresses.
    pub host_network: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// First and last moment, ns since 1970.
    pub lived_ns: (u64, u64),
}

/// A Service.
#[derive(Debug, Clone)]
pub struct KubeService {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its ports: name (empty where there is only one) and number.
    pub ports: Vec<(String, u16)>,
    /// First and last moment, ns since 1970.
    pub lived_ns: (u64, u64),
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A pod, by number.
    Pod(u32),
    /// A Service, by number.
    Service(u32),
    /// A node, by number.
    Node(u32),
}

/// A time in which the changes of a kind were not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blind {
    /// Number of the bundle.
    pub bundle: u32,
    /// The kind; empty: all.
    pub kind: String,
    /// From when on, ns since 1970.
    pub from_ns: u64,
    /// Until when; `None` if to the end.
    pub to_ns: Option<u64>,
    /// Why, as it was told first.
    pub reason: String,
}

/// A time in which something held.
#[derive(Debug, Clone, Copy)]
struct Span<T> {
    from_ns: u64,
    to_ns: u64,
    what: T,
}

/// Addresses behind a Service, as one of its endpoint slices has them at a time, and its ports by name.
#[derive(Debug, Clone, Default)]
struct Slice {
    ready: Vec<IpAddr>,
    ports: Vec<(String, u16)>,
}

/// The cluster over time.
#[derive(Debug, Default)]
pub struct Kube {
    pods: Vec<Pod>,
    services: Vec<KubeService>,
    nodes: Vec<String>,
    /// Ranges of pod addresses, (first address, prefix length, node): what is no pod's in them is the node's own.
    pod_ranges: Vec<(IpAddr, u8, u32)>,
    workloads: Vec<Workload>,
    /// Names of the workloads: their kind stands in it where two would be called the same.
    workload_names: Vec<String>,
    by_ip: FxHashMap<IpAddr, Vec<Span<Who>>>,
    by_node_port: FxHashMap<u16, Vec<Span<u32>>>,
    by_container: FxHashMap<String, (u32, String)>,
    by_uid: FxHashMap<String, u32>,
    slices: FxHashMap<(String, String), Vec<Span<Slice>>>,
    blind: Vec<Blind>,
}

impl Kube {
    /// Reads the rows of all bundles: each with its bundle's number, times on the wall clock.
    pub fn new(rows: Vec<(u32, KubeFact)>) -> Self {
        let mut kube = Self { blind: blind(&rows), ..Self::default() };
        let objects = Objects::new(rows);
        kube.add_pods(&objects);
        kube.add_services(&objects);
        kube.add_nodes(&objects);
        for life in objects.of_kind("EndpointSlice") {
            let Some(service) = life.states.first().and_then(|(_, slice)| service_of(slice)) else { continue };
            let spans = life.spans().map(|(from_ns, to_ns, slice)| Span { from_ns, to_ns, what: ready(slice) });
            kube.slices.entry((life.namespace.clone(), service)).or_default().extend(spans);
        }
        for spans in kube.by_ip.values_mut() {
            spans.sort_by_key(|span| (span.from_ns, span.to_ns, span.what));
        }
        let plain = |workload: &Workload| format!("{}/{}", workload.namespace, workload.name);
        let mut same = BTreeMap::<_, u32>::new();
        kube.workloads.iter().for_each(|workload| *same.entry(plain(workload)).or_default() += 1);
        let name = |workload: &Workload| match plain(workload) {
            name if same.get(&name).is_some_and(|count| *count > 1) => format!("{name} ({})", workload.kind),
            name => name,
        };
        kube.workload_names = kube.workloads.iter().map(name).collect();
        kube
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
                for container in containers(state) {
                    self.by_container.entry(container.0).or_insert((number, container.1));
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
                let mut ips: Vec<_> = first.into_iter().chain(others).collect();
                ips.sort_unstable();
                ips.dedup();
                for ip in ips {
                    let spans = self.by_ip.entry(ip).or_default();
                    match spans.last_mut() {
                        Some(last) if last.what == Who::Pod(number) && last.to_ns == from_ns => last.to_ns = to_ns,
                        _ => spans.push(Span { from_ns, to_ns, what: Who::Pod(number) }),
                    }
                }
            }
            self.by_uid.insert(life.uid.clone(), number);
            self.pods.push(Pod {
                namespace: life.namespace.clone(),
                name: life.name.clone(),
                uid: life.uid.clone(),
                workload: index,
                node: read::text(state, &["spec", "nodeName"]).unwrap_or_default().to_string(),
                host_network,
                labels: read::labels(state, &["metadata", "labels"]),
                lived_ns: lived(life),
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
                let mut ips: Vec<_> = plain.chain(first).chain(balancers).collect();
                ips.sort_unstable();
                ips.dedup();
                for ip in ips {
                    let span = Span { from_ns, to_ns, what: Who::Service(number) };
                    self.by_ip.entry(ip).or_default().push(span);
                }
                for port in read::list(state, &["spec", "ports"]) {
                    if let Some(port) = read::number(port, &["nodePort"]).and_then(|port| u16::try_from(port).ok()) {
                        self.by_node_port.entry(port).or_default().push(Span { from_ns, to_ns, what: number });
                    }
                }
            }
            let state = life.states.last().map_or(&Value::Null, |(_, state)| state);
            let ports = read::list(state, &["spec", "ports"]).iter().filter_map(|port| {
                let number = read::number(port, &["port"]).and_then(|port| u16::try_from(port).ok())?;
                Some((read::text(port, &["name"]).unwrap_or_default().to_string(), number))
            });
            self.services.push(KubeService {
                namespace: life.namespace.clone(),
                name: life.name.clone(),
                ports: ports.collect(),
                lived_ns: lived(life),
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

    /// True if no bundle has Kubernetes objects.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.services.is_empty() && self.nodes.is_empty()
    }

    /// When which changes were not seen.
    pub fn blind(&self) -> &[Blind] {
        &self.blind
    }

    /// Who had an address at a moment. Of several that claim it, the one that has had it for the shortest time.
    pub fn who(&self, ip: IpAddr, time_ns: u64) -> Option<Who> {
        let ip = ip.to_canonical();
        let spans = self.by_ip.get(&ip).map_or(&[][..], Vec::as_slice);
        let begun = spans.partition_point(|span| span.from_ns <= time_ns);
        let mut held = spans.get(..begun)?.iter().rev().filter(|span| time_ns < span.to_ns);
        // The address of a node's bridge stands in no object.
        let own = || self.pod_ranges.iter().find(|(first, length, _)| read::same_range(ip, *first, *length));
        held.next().map(|span| span.what).or_else(|| own().filter(|_| spans.is_empty()).map(|own| Who::Node(own.2)))
    }

    /// The pod that had an address at a moment.
    pub fn pod_at(&self, ip: IpAddr, time_ns: u64) -> Option<u32> {
        match self.who(ip, time_ns)? {
            Who::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    /// The Service that a port of every node belongs to.
    pub fn node_port(&self, port: u16, time_ns: u64) -> Option<u32> {
        let mut spans = self.by_node_port.get(&port)?.iter().rev();
        spans.find(|span| (span.from_ns..span.to_ns).contains(&time_ns)).map(|span| span.what)
    }

    /// The pod and the container's name, by the container's id (64 hex digits).
    pub fn container(&self, id: &str) -> Option<(u32, &str)> {
        self.by_container.get(id).map(|(pod, name)| (*pod, name.as_str()))
    }

    /// A pod by its unique id.
    pub fn pod_by_uid(&self, uid: &str) -> Option<u32> {
        self.by_uid.get(uid).copied()
    }

    /// A pod.
    pub fn pod(&self, number: u32) -> Option<&Pod> {
        self.pods.get(number as usize)
    }

    /// All pods.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// A Service.
    pub fn service(&self, number: u32) -> Option<&KubeService> {
        self.services.get(number as usize)
    }

    /// A node's name.
    pub fn node(&self, number: u32) -> Option<&str> {
        self.nodes.get(number as usize).map(String::as_str)
    }

    /// A workload.
    pub fn workload(&self, number: u32) -> Option<&Workload> {
        self.workloads.get(number as usize)
    }

    /// A name for a workload: `shop/api`.
    pub fn workload_name(&self, number: u32) -> &str {
        self.workload_names.get(number as usize).map_or("", String::as_str)
    }

    /// Whether `from` is an address of a Service at this moment, and `to` answers for it.
    pub fn answers(&self, from: IpAddr, to: IpAddr, time_ns: u64) -> bool {
        match (self.who(from, time_ns), self.who(to, time_ns)) {
            (Some(Who::Service(service)), Some(_)) => {
                self.backends(service, 0, time_ns).iter().any(|(backend, _)| *backend == to.to_canonical())
            }
            _ => false,
        }
    }

    /// The Service that an address belongs to at a moment.
    pub fn service_at(&self, endpoint: &Endpoint, time_ns: u64) -> Option<u32> {
        let Endpoint::Ip(ip, port) = endpoint else { return None };
        match self.who(*ip, time_ns)? {
            Who::Service(service) => Some(service),
            Who::Node(_) => self.node_port(*port, time_ns),
            Who::Pod(_) => None,
        }
    }

    /// Who could answer for a port of a Service at a moment: addresses that were ready, each once, in order.
    pub fn backends(&self, service: u32, port: u16, time_ns: u64) -> Vec<(IpAddr, u16)> {
        let Some(service) = self.service(service) else { return Vec::new() };
        let slices = self.slices.get(&(service.namespace.clone(), service.name.clone()));
        let held = slices.into_iter().flatten().filter(|span| (span.from_ns..span.to_ns).contains(&time_ns));
        let name = service.ports.iter().find(|(_, number)| *number == port).map(|(name, _)| name.as_str());
        let mut backends: Vec<_> = held
            .flat_map(|span| {
                let number =
                    span.what.ports.iter().find(|(of, _)| Some(of.as_str()) == name).map(|(_, number)| *number);
                span.what.ready.iter().map(move |ip| (*ip, number.unwrap_or(port)))
            })
            .collect();
        backends.sort_unstable();
        backends.dedup();
        backends
    }
}

fn blind(rows: &[(u32, KubeFact)]) -> Vec<Blind> {
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

fn lived(life: &Life) -> (u64, u64) {
    (life.born_ns, life.gone_ns.unwrap_or(u64::MAX))
}

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

/// Ids and names of a pod's containers, also of those that ran before a restart.
fn containers(pod: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for field in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for status in read::list(pod, &["status", field]) {
            let Some(name) = read::text(status, &["name"]) else { continue };
            let ids = [
                read::text(status, &["containerID"]),
                read::text(status, &["state", "terminated", "containerID"]),
                read::text(status, &["lastState", "terminated", "containerID"]),
            ];
            for id in ids.into_iter().flatten() {
                // The runtime stands before it: `containerd://`.
                let id = id.rsplit_once("//").map_or(id, |(_, id)| id);
                found.push((id.to_string(), name.to_string()));
            }
        }
    }
    found
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
    let ports = read::list(slice, &["ports"]).iter().filter_map(|port| {
        let number = read::number(port, &["port"]).and_then(|port| u16::try_from(port).ok())?;
        Some((read::text(port, &["name"]).unwrap_or_default().to_string(), number))
    });
    let ports = ports.collect();
    Slice { ready: endpoints.flat_map(|endpoint| read::plain_ips(endpoint, &["addresses"])).collect(), ports }
}
