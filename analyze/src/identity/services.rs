//! Services: the containers, units and process groups that talk to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kfr_bundle::events::{ROLE_LISTENER, ROLE_SERVER};
use rustc_hash::FxHashMap;

use super::known_by::KnownBy;
use super::kube::{Kube, Who};
use super::outside::{Asker, Names};
use super::processes::Processes;
use super::sockets::{Endpoint, Socket, Sockets};

/// What a service is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// What Kubernetes deploys: a Deployment, StatefulSet, ... with all its pods.
    Workload,
    /// A Kubernetes Service of which nobody knows who answers.
    Service,
    /// A systemd unit.
    Unit,
    /// A container.
    Container,
    /// A process with its workers, or all clients of one program.
    Process,
    /// Addresses outside of what was recorded.
    External,
}

/// Processes: number of the bundle, and pid.
pub type Pids = BTreeSet<(u32, u32)>;

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is made of.
    pub kind: ServiceKind,
    /// Its name: namespace and workload, unit, short container id with program, program with port, address.
    pub name: String,
    /// Number of the bundle that its processes are in; `None` for what may be on several nodes.
    pub bundle: Option<u32>,
    /// Its processes.
    pub processes: Pids,
    /// Addresses that it answers on.
    pub listening: BTreeSet<Endpoint>,
}

/// Who is at one end of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct End {
    /// Number of the service.
    pub service: u32,
    /// Number of the pod.
    pub pod: Option<u32>,
    /// Number of the Kubernetes Service whose address was called.
    pub called: Option<u32>,
    /// The address that answered for it, where only one could.
    pub answered: Option<(IpAddr, u16)>,
    /// How that is known.
    pub known_by: Option<KnownBy>,
}

/// The services, and which one each socket and each remote address belongs to.
#[derive(Debug, Default)]
pub struct Services {
    all: Vec<Service>,
    by_name: BTreeMap<(ServiceKind, Option<u32>, String), u32>,
    by_process: FxHashMap<(u32, u32), u32>,
    names: Names,
}

impl Services {
    /// Groups the owners of all sockets. Services come out in the order of kind and name.
    pub fn new(sockets: &Sockets, processes: &Processes, kube: &Kube, names: Names) -> Self {
        let mut listening: FxHashMap<(u32, u32), BTreeSet<u16>> = FxHashMap::default();
        for socket in sockets.all().iter().filter(|socket| socket.process != 0) {
            if let (ROLE_LISTENER | ROLE_SERVER, Endpoint::Ip(_, port)) = (socket.role, &socket.local) {
                let group = processes.group(socket.id.0, socket.process);
                listening.entry((socket.id.0, group)).or_default().insert(*port);
            }
        }
        let mut owners: BTreeMap<(u32, u32), &Socket> = BTreeMap::new();
        for socket in sockets.all().iter().filter(|socket| socket.process != 0) {
            owners.entry((socket.id.0, socket.process)).or_insert(socket);
        }
        // Servers of one program that answer on different ports are different services.
        let mut ports_of_program: BTreeMap<(u32, String), BTreeSet<u32>> = BTreeMap::new();
        for &(bundle, pid) in owners.keys() {
            let group = processes.group(bundle, pid);
            if listening.contains_key(&(bundle, group)) {
                let name = program(processes, bundle, pid, owners.get(&(bundle, pid)).copied());
                ports_of_program.entry((bundle, name)).or_default().insert(group);
            }
        }
        let mut services = Self { names, ..Self::default() };
        let mut named: BTreeMap<(ServiceKind, String, Option<u32>), Pids> = BTreeMap::new();
        for (&(bundle, pid), socket) in &owners {
            let pod = processes.get(bundle, pid).and_then(|process| kube.pod_of_process(process));
            let workload = pod.and_then(|pod| kube.pod(pod)).map(|pod| kube.workload_name(pod.workload));
            let (kind, name, of) = match workload {
                Some(name) => (ServiceKind::Workload, name.to_string(), None),
                None => {
                    let (kind, name) = name(processes, bundle, pid, socket, &listening, &ports_of_program);
                    (kind, name, Some(bundle))
                }
            };
            named.entry((kind, name, of)).or_default().insert((bundle, pid));
        }
        for ((kind, name, bundle), owners) in named {
            let index = services.find_or_add(kind, bundle, name);
            for owner in &owners {
                services.by_process.insert(*owner, index);
            }
            if let Some(service) = services.all.get_mut(index as usize) {
                service.processes = owners;
            }
        }
        for socket in sockets.all() {
            if let (ROLE_LISTENER | ROLE_SERVER, Some(index)) =
                (socket.role, services.of_process(socket.id.0, socket.process))
                && let Some(service) = services.all.get_mut(index as usize)
                && !matches!(&socket.local, Endpoint::Path(path) if path.is_empty())
            {
                service.listening.insert(socket.local.clone());
            }
        }
        services
    }

    fn of_process(&self, bundle: u32, pid: u32) -> Option<u32> {
        self.by_process.get(&(bundle, pid)).copied()
    }

    /// The end that owns a socket.
    pub fn end_of_socket(&self, socket: &Socket, processes: &Processes, kube: &Kube) -> Option<End> {
        let service = self.of_process(socket.id.0, socket.process)?;
        let process = processes.get(socket.id.0, socket.process);
        let pod = process.and_then(|process| kube.pod_of_process(process));
        let is_guess = pod.and_then(|pod| kube.pod(pod)).is_some_and(|pod| pod.by_node);
        Some(End { service, pod, known_by: is_guess.then_some(KnownBy::NodeNames), ..End::default() })
    }

    /// The end that had an address at a moment, where nobody recorded the socket there; `from` is the other end.
    pub fn end_of_address(
        &mut self,
        endpoint: &Endpoint,
        from: &Socket,
        is_server: bool,
        time_ns: u64,
        kube: &Kube,
    ) -> End {
        let (ip, port) = match endpoint {
            Endpoint::Ip(ip, port) => (*ip, *port),
            Endpoint::Path(_) => return End { service: self.external(endpoint, is_server), ..End::default() },
        };
        let service = match kube.who(ip, time_ns) {
            Some(Who::Pod(pod)) => {
                let service = self.of_pod(pod, endpoint, is_server, kube);
                return End { service, pod: Some(pod), known_by: Some(KnownBy::PodAddress), ..End::default() };
            }
            Some(Who::Service(service)) => return self.end_of_service(service, endpoint, is_server, time_ns, kube),
            Some(Who::Node(node)) => {
                // A port that every node answers on; else the node itself, whose processes nobody recorded.
                if let Some(service) = kube.node_port(port, time_ns).filter(|_| is_server) {
                    return self.end_of_service(service, endpoint, is_server, time_ns, kube);
                }
                let node = kube.node(node).unwrap_or_default();
                let name = if is_server { format!("node {node}:{port}") } else { format!("node {node}") };
                self.named(ServiceKind::External, &name, endpoint, is_server)
            }
            None => {
                let name = self.names.of(ip, Asker::of(from), time_ns).filter(|_| is_server);
                let name = name.map(|name| format!("{name}:{port}"));
                if let Some(name) = name {
                    let service = self.named(ServiceKind::External, &name, endpoint, is_server);
                    return End { service, known_by: Some(KnownBy::Dns), ..End::default() };
                }
                self.external(endpoint, is_server)
            }
        };
        End { service, ..End::default() }
    }

    /// Who answered for a Service was not recorded: where all who could are of one workload, it was that one.
    fn end_of_service(&mut self, called: u32, endpoint: &Endpoint, is_server: bool, time_ns: u64, kube: &Kube) -> End {
        let Endpoint::Ip(_, port) = endpoint else { return End::default() };
        let backends = kube.backends(called, *port, time_ns);
        let workload = |pod: Option<u32>| pod.and_then(|pod| kube.pod(pod)).map(|pod| pod.workload);
        let mut pods = backends.iter().map(|(ip, _)| kube.pod_at(*ip, time_ns));
        let first = pods.next().flatten();
        let one = first.filter(|_| pods.all(|pod| workload(pod) == workload(first)));
        let answered = backends.first().copied().filter(|_| backends.len() == 1);
        let service = match one {
            Some(pod) => self.of_pod(pod, endpoint, is_server, kube),
            None => {
                let name = kube.service(called).map(|service| format!("{}/{}", service.namespace, service.name));
                self.named(ServiceKind::Service, &name.unwrap_or_default(), endpoint, is_server)
            }
        };
        let known_by = (one.is_some() || answered.is_some()).then_some(KnownBy::EndpointSlice);
        End { service, pod: answered.and(first), called: Some(called), answered, known_by }
    }

    /// The service of a pod's workload.
    fn of_pod(&mut self, pod: u32, endpoint: &Endpoint, is_server: bool, kube: &Kube) -> u32 {
        let workload = kube.pod(pod).map_or("", |pod| kube.workload_name(pod.workload));
        self.named(ServiceKind::Workload, workload, endpoint, is_server)
    }

    /// The service behind an address that no recorded process owns. A server is told apart by its port.
    fn external(&mut self, endpoint: &Endpoint, is_server: bool) -> u32 {
        let name = match endpoint {
            Endpoint::Ip(ip, port) if is_server => std::net::SocketAddr::new(*ip, *port).to_string(),
            Endpoint::Ip(ip, _) => ip.to_string(),
            Endpoint::Path(path) if path.is_empty() => "unknown".to_string(),
            Endpoint::Path(path) => path.to_string(),
        };
        self.named(ServiceKind::External, &name, endpoint, is_server)
    }

    /// The service of this name, on no node in particular, which answers on the endpoint if it is a server.
    fn named(&mut self, kind: ServiceKind, name: &str, endpoint: &Endpoint, is_server: bool) -> u32 {
        let index = self.find_or_add(kind, None, name.to_string());
        if let Some(service) = self.all.get_mut(index as usize).filter(|_| is_server) {
            service.listening.insert(endpoint.clone());
        }
        index
    }

    fn find_or_add(&mut self, kind: ServiceKind, bundle: Option<u32>, name: String) -> u32 {
        let next = self.all.len() as u32;
        let index = *self.by_name.entry((kind, bundle, name.clone())).or_insert(next);
        if index == next {
            let (processes, listening) = (BTreeSet::new(), BTreeSet::new());
            self.all.push(Service { kind, name, bundle, processes, listening });
        }
        index
    }

    /// All services.
    pub fn all(&self) -> &[Service] {
        &self.all
    }

    /// One service.
    pub fn get(&self, index: u32) -> Option<&Service> {
        self.all.get(index as usize)
    }
}

fn program(processes: &Processes, bundle: u32, pid: u32, socket: Option<&Socket>) -> String {
    let known = processes.program(bundle, processes.group(bundle, pid)).or_else(|| processes.program(bundle, pid));
    known.unwrap_or_else(|| match socket {
        Some(socket) if !socket.comm.is_empty() => socket.comm.to_string(),
        _ => format!("process {pid}"),
    })
}

fn name(
    processes: &Processes,
    bundle: u32,
    pid: u32,
    socket: &Socket,
    listening: &FxHashMap<(u32, u32), BTreeSet<u16>>,
    ports_of_program: &BTreeMap<(u32, String), BTreeSet<u32>>,
) -> (ServiceKind, String) {
    let program = program(processes, bundle, pid, Some(socket));
    if let Some(process) = processes.get(bundle, pid) {
        if !process.container.is_empty() {
            let short: String = process.container.chars().take(12).collect();
            return (ServiceKind::Container, format!("{program} ({short})"));
        }
        if let Some(unit) = process.unit.strip_suffix(".service") {
            return (ServiceKind::Unit, unit.to_string());
        }
    }
    let group = processes.group(bundle, pid);
    let several = ports_of_program.get(&(bundle, program.clone())).is_some_and(|groups| groups.len() > 1);
    match listening.get(&(bundle, group)).and_then(BTreeSet::first) {
        Some(port) if several => (ServiceKind::Process, format!("{program}:{port}")),
        _ => (ServiceKind::Process, program),
    }
}
