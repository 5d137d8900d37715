//! Services: the containers, units and process groups that talk to each other.

use std::collections::{BTreeMap, BTreeSet};

use kfr_bundle::events::{ROLE_LISTENER, ROLE_SERVER};
use rustc_hash::FxHashMap;

use super::processes::Processes;
use super::sockets::{Endpoint, Socket, Sockets};

/// What a service is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// A systemd unit.
    Unit,
    /// A container.
    Container,
    /// A process with its workers, or all clients of one program.
    Process,
    /// Addresses outside of what was recorded.
    External,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is made of.
    pub kind: ServiceKind,
    /// Its name: unit, short container id with program, program with port, address.
    pub name: String,
    /// Number of the bundle that its processes are in.
    pub bundle: Option<u32>,
    /// Its processes.
    pub processes: BTreeSet<u32>,
    /// Addresses that it answers on.
    pub listening: BTreeSet<Endpoint>,
}

/// The services, and which one each socket and each remote address belongs to.
#[derive(Debug, Default)]
pub struct Services {
    all: Vec<Service>,
    by_name: BTreeMap<(ServiceKind, Option<u32>, String), u32>,
    by_process: FxHashMap<(u32, u32), u32>,
}

impl Services {
    /// Groups the owners of all sockets. Services come out in the order of kind and name.
    pub fn new(sockets: &Sockets, processes: &Processes) -> Self {
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
        let mut services = Self::default();
        let mut named: BTreeMap<(ServiceKind, String, u32), BTreeSet<u32>> = BTreeMap::new();
        for (&(bundle, pid), socket) in &owners {
            let (kind, name) = name(processes, bundle, pid, socket, &listening, &ports_of_program);
            named.entry((kind, name, bundle)).or_default().insert(pid);
        }
        for ((kind, name, bundle), pids) in named {
            let index = services.all.len() as u32;
            for pid in &pids {
                services.by_process.insert((bundle, *pid), index);
            }
            services.by_name.insert((kind, Some(bundle), name.clone()), index);
            services.all.push(Service {
                kind,
                name,
                bundle: Some(bundle),
                processes: pids,
                listening: BTreeSet::new(),
            });
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

    /// The service that owns a socket.
    pub fn of_socket(&self, socket: &Socket) -> Option<u32> {
        self.of_process(socket.id.0, socket.process)
    }

    /// The service behind an address that no recorded process owns. A server is told apart by its port.
    pub fn external(&mut self, endpoint: &Endpoint, is_server: bool) -> u32 {
        let name = match endpoint {
            Endpoint::Ip(ip, port) if is_server => std::net::SocketAddr::new(*ip, *port).to_string(),
            Endpoint::Ip(ip, _) => ip.to_string(),
            Endpoint::Path(path) if path.is_empty() => "unknown".to_string(),
            Endpoint::Path(path) => path.to_string(),
        };
        let next = self.all.len() as u32;
        let index = *self.by_name.entry((ServiceKind::External, None, name.clone())).or_insert(next);
        if index == next {
            let listening = if is_server { BTreeSet::from([endpoint.clone()]) } else { BTreeSet::new() };
            self.all.push(Service {
                kind: ServiceKind::External,
                name,
                bundle: None,
                processes: BTreeSet::new(),
                listening,
            });
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
