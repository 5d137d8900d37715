//! Kubernetes: which pod, Service or node an address, container or process was, at a moment.

mod build;
mod node_names;
mod objects;
mod owners;
pub mod read;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::processes::Process;
use super::sockets::Endpoint;
pub use build::{add_unlisted, blind_times};
pub use objects::{Life, Objects};
pub use owners::Workload;

/// A pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Number of its workload.
    pub workload: u32,
    /// Name of its node; empty where it has none yet.
    pub node: String,
    /// Only files of its node name it: its workload is a guess.
    pub by_node: bool,
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
    by_container: FxHashMap<String, u32>,
    /// Pods by UID; static ones also by the hash that their node has for one.
    by_uid: FxHashMap<String, u32>,
    /// Of several pods that had a name one after the other, the last.
    by_name: FxHashMap<(String, String), u32>,
    slices: FxHashMap<(String, String), Vec<Span<Slice>>>,
    blind: Vec<Blind>,
    /// Addresses that two pods had at one time, as the API tells.
    shared: Vec<IpAddr>,
}

impl Kube {
    /// Addresses that two pods had at one time, in order. The younger pod is taken for their owner.
    pub fn shared_addresses(&self) -> &[IpAddr] {
        &self.shared
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

    /// All addresses that were anybody's at some time.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_ip.keys().copied()
    }

    /// Ids of all containers that are known.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.by_container.keys().map(String::as_str)
    }

    /// The pod of a container, by the container's id (64 hex digits).
    pub fn pod_of_container(&self, id: &str) -> Option<u32> {
        self.by_container.get(id).copied()
    }

    /// All pods, by number.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The pod that a process is in: that of its container, else that of its cgroup. The API names the containers of a
    /// pod's present and last run, and no sandbox.
    pub fn pod_of_process(&self, process: &Process) -> Option<u32> {
        self.pod_of_container(&process.container).or_else(|| self.by_uid.get(&process.pod).copied())
    }

    /// The pod of this UID, or else of this name: the kubelet calls a static pod by another UID than the API does.
    pub fn pod_named(&self, uid: &str, namespace: &str, name: &str) -> Option<u32> {
        let by_name = || self.by_name.get(&(namespace.to_string(), name.to_string()));
        self.by_uid.get(uid).or_else(by_name).copied()
    }

    /// A pod.
    pub fn pod(&self, number: u32) -> Option<&Pod> {
        self.pods.get(number as usize)
    }

    /// A Service.
    pub fn service(&self, number: u32) -> Option<&KubeService> {
        self.services.get(number as usize)
    }

    /// A node's name.
    pub fn node(&self, number: u32) -> Option<&str> {
        self.nodes.get(number as usize).map(String::as_str)
    }

    /// All workloads that have a pod.
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// The kind of a workload; empty where there is none.
    pub fn workload_kind(&self, number: u32) -> &str {
        self.workloads.get(number as usize).map_or("", |workload| workload.kind.as_str())
    }

    /// A name for a workload: `shop/api`.
    pub fn workload_name(&self, number: u32) -> &str {
        self.workload_names.get(number as usize).map_or("", String::as_str)
    }

    /// Whether `from` is an address of a Service at this moment, and `to` answers for it.
    pub fn answers(&self, from: IpAddr, to: IpAddr, time_ns: u64) -> bool {
        match (self.who(from, time_ns), self.who(to, time_ns)) {
            (Some(Who::Service(service)), Some(_)) => {
                self.slices_at(service, time_ns).any(|slice| slice.ready.contains(&to.to_canonical()))
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
        let ports = self.service(service).map_or(&[][..], |service| &service.ports);
        let name = ports.iter().find(|(_, number)| *number == port).map(|(name, _)| name.as_str());
        let mut backends: Vec<_> = self
            .slices_at(service, time_ns)
            .flat_map(|slice| {
                let number = slice.ports.iter().find(|(of, _)| Some(of.as_str()) == name).map(|(_, number)| *number);
                slice.ready.iter().map(move |ip| (*ip, number.unwrap_or(port)))
            })
            .collect();
        backends.sort_unstable();
        backends.dedup();
        backends
    }

    fn slices_at(&self, service: u32, time_ns: u64) -> impl Iterator<Item = &Slice> {
        let slices = self.service(service).and_then(|of| self.slices.get(&(of.namespace.clone(), of.name.clone())));
        let held = slices.into_iter().flatten().filter(move |span| (span.from_ns..span.to_ns).contains(&time_ns));
        held.map(|span| &span.what)
    }
}
