//! What to record, and how much of the node it may take.

use std::path::PathBuf;
use std::time::Duration;

use crate::host_root::host_root;
use crate::kube::Cluster;
use crate::logs::Lines;

/// Which tracepoints show the bytes that sockets move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SocketHook {
    /// `Sock` where the kernel has it, else `Syscall`.
    #[default]
    Auto,
    /// Where a socket's send or receive returns (kernel 6.3 and later).
    Sock,
    /// Where system calls return.
    Syscall,
}

/// Where the bundle goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file, written as `NAME.partial` until it is whole.
    File {
        /// Its final name.
        path: PathBuf,
        /// Replace an existing file.
        force: bool,
    },
    /// Standard output.
    Stdout,
}

/// Options of a capture.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the bundle goes.
    pub destination: Destination,
    /// How long to record; `None`: until told to stop.
    pub duration: Option<Duration>,
    /// Processes to record, with their descendants; empty: all.
    pub processes: Vec<u32>,
    /// cgroups to record, as paths below the cgroup mount; empty: all.
    pub cgroups: Vec<String>,
    /// Pods to record, by name, `NAMESPACE/NAME` or UID; empty: all.
    pub pods: Vec<String>,
    /// Namespaces whose pods are recorded; empty: all.
    pub namespaces: Vec<String>,
    /// Containers to record, by name or the beginning of their id; empty: all.
    pub containers: Vec<String>,
    /// Root of the node's files, which name its pods.
    pub host_root: PathBuf,
    /// Begin also where no pod or container of those is there yet.
    pub absent_ok: bool,
    /// Ports (local or remote) to record; empty: all.
    pub ports: Vec<u16>,
    /// Bytes kept of one call.
    pub payload_limit: u32,
    /// Which tracepoints to use.
    pub socket_hook: SocketHook,
    /// Kernel buffer, bytes: a power of two, at least a page.
    pub buffer_bytes: u32,
    /// Size at which the capture ends, bytes.
    pub max_size: u64,
    /// Memory of the recorder, bytes, the kernel buffer included.
    pub max_memory: u64,
    /// CPU time of the recorder, percent of one core; above it payload shrinks.
    pub max_cpu_percent: u32,
    /// The Kubernetes cluster that is asked; `None`: none.
    pub kube: Option<Cluster>,
    /// Name of this node; `None`: the host's.
    pub node_name: Option<String>,
    /// Which lines of container logs are recorded.
    pub logs: Lines,
}

/// Most that `payload_limit` can be: the probes' own bound (`MAX_KEPT` in `bpf/socket/transfer.h`).
pub const MAX_PAYLOAD_LIMIT: u32 = 32768;

/// From this payload limit on, [`MAX_PAYLOAD_LIMIT`] holds for what goes to the server (`bpf/socket/transfer.h`).
pub const WHOLE_REQUESTS_FROM: u32 = 4096;

/// Least that `max_size` can be, bytes: room for the list of processes and some traffic.
pub const MIN_MAX_SIZE: u64 = 1 << 20;

impl Options {
    /// Everything, into `destination`, with the default limits.
    pub fn new(destination: Destination) -> Self {
        Self {
            destination,
            duration: None,
            processes: Vec::new(),
            cgroups: Vec::new(),
            pods: Vec::new(),
            namespaces: Vec::new(),
            containers: Vec::new(),
            host_root: host_root(),
            absent_ok: false,
            ports: Vec::new(),
            payload_limit: 4096,
            socket_hook: SocketHook::Auto,
            buffer_bytes: 16 << 20,
            max_size: 1 << 30,
            max_memory: 128 << 20,
            max_cpu_percent: 10,
            kube: None,
            node_name: None,
            logs: Lines::default(),
        }
    }

    /// The filters as a user would give them.
    pub fn filters(&self) -> Vec<String> {
        let pids = self.processes.iter().map(|pid| format!("--pid {pid}"));
        let cgroups = self.cgroups.iter().map(|path| format!("--cgroup {path}"));
        let pods = self.pods.iter().map(|pod| format!("--pod {pod}"));
        let namespaces = self.namespaces.iter().map(|namespace| format!("--namespace {namespace}"));
        let containers = self.containers.iter().map(|container| format!("--container {container}"));
        let ports = self.ports.iter().map(|port| format!("--port {port}"));
        pids.chain(cgroups).chain(pods).chain(namespaces).chain(containers).chain(ports).collect()
    }
}
