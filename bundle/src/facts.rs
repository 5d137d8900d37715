//! Rows of the blocks that hold named maps: how the bundle was recorded, processes, host samples, losses.
//!
//! Every field has a default, so that a reader takes rows of any version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A row of a [`crate::BlockKind::MANIFEST`] block: on what and how the bundle was recorded. One at the start, one at
/// the end (with `end` set).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// `kfr`.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Machine architecture (`uname -m`).
    pub architecture: String,
    /// Logical CPUs.
    pub cpus: u32,
    /// Socket hook in use: `sock` or `syscall`; `packets` where the bundle was imported from a packet capture.
    pub socket_hook: String,
    /// Imports: name of the file that it was made from, without its folder; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Imports: names of the interfaces that the packets were captured on, where the file has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Each probe, and why it is missing where it is.
    pub probes: Vec<ProbeFact>,
    /// The Kubernetes cluster that was asked, `in-cluster` or `context NAME`; empty: none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kube: String,
    /// Which lines of container logs were recorded, `errors` or `all`; `off`; `absent` where the node has none; empty: not
    /// said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub logs: String,
    /// What was asked to be recorded, as given on the command line (`--pid 42`); empty: everything.
    pub filters: Vec<String>,
    /// Bytes kept of one call, at most.
    pub payload_limit: u32,
    /// Kernel buffer, bytes.
    pub buffer_bytes: u64,
    /// Event time at which the probes were all attached, ns; 0 before that.
    pub started_ns: u64,
    /// Event time at which they were detached, ns; 0 in the row at the start.
    pub ended_ns: u64,
    /// Why the capture ended: `duration`, `signal`, `max-size`, `write-failed`, `error`; imports: how the file ended,
    /// `end-of-file`, `truncated`, `damaged`; empty in the row at the start.
    pub end: String,
}

/// A probe and whether it worked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeFact {
    /// Its name, `socket/send`.
    pub name: String,
    /// True if it was attached.
    pub attached: bool,
    /// Why not.
    pub reason: String,
    /// What the report lacks without it.
    pub costs: String,
}

/// A row of a [`crate::BlockKind::PROCESSES`] block: a process as `/proc` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessFact {
    /// When it was looked at, `CLOCK_BOOTTIME` ns.
    pub time_ns: u64,
    /// Pid in the host's namespace.
    pub process: u32,
    /// Parent.
    pub parent: u32,
    /// Pid in its own innermost namespace.
    pub namespace_process: u32,
    /// Start, `CLOCK_BOOTTIME` ns, in the resolution of `/proc/PID/stat` (10 ms).
    pub start_ns: u64,
    /// User id.
    pub user: u32,
    /// Command name.
    pub comm: String,
    /// Executable, as `/proc/PID/exe` names it.
    pub executable: String,
    /// Command line.
    pub arguments: Vec<String>,
    /// cgroup path: of v2 where it has one, else of the v1 controller that names most.
    pub cgroup: String,
    /// Container id found in the cgroup path (64 hex digits), empty if none.
    pub container: String,
    /// UID of the pod found in the cgroup path, with dashes; of a static pod the 32 hex digits by which its node knows it.
    /// Empty if none.
    pub pod: String,
    /// systemd unit found in the cgroup path, empty if none.
    pub unit: String,
    /// Inode of its network namespace.
    pub netns_inode: u64,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerKind {
    /// It holds the pod's namespaces and runs nothing of the user's (`pause`).
    Sandbox,
    /// One of the pod's own, init and ephemeral ones included; or one without a pod.
    Container,
    /// Nothing says.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A row of a [`crate::BlockKind::CONTAINERS`] block: a container as the files of its node name it, without asking the
/// Kubernetes API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerFact {
    /// When it was looked up, `CLOCK_BOOTTIME` ns.
    pub time_ns: u64,
    /// Id of its cgroup (v2), as process and socket events have it; 0 where it was found by a process instead.
    pub cgroup: u64,
    /// Container id (64 hex digits); empty: the cgroup is the pod's own.
    pub container: String,
    /// UID of its pod, as in [`ProcessFact::pod`]; empty if it has none.
    pub pod: String,
    /// Namespace of the pod; empty where nothing says.
    pub namespace: String,
    /// Name of the pod; empty where nothing says.
    pub pod_name: String,
    /// Name of the container in its pod; of one without a pod its own.
    pub name: String,
    /// What it is to its pod.
    pub kind: ContainerKind,
    /// Image, as its runtime was asked for it.
    pub image: String,
    /// Whose files say so: `containerd`, `cri-o`, `docker`, `kubelet` (its log directories); empty: only ids are known.
    pub source: String,
}

/// A row of a [`crate::BlockKind::HOST`] block: the host once a second. Counters are cumulative since boot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSample {
    /// When, `CLOCK_BOOTTIME` ns.
    pub time_ns: u64,
    /// Each CPU's time.
    pub cpus: Vec<CpuTimes>,
    /// `/proc/meminfo`, bytes.
    pub memory_bytes: BTreeMap<String, u64>,
    /// Load average over 1, 5 and 15 minutes, thousandths.
    pub load_milli: Vec<u64>,
    /// Tasks runnable now.
    pub runnable: u64,
    /// Time during which tasks stalled, µs: `cpu_some`, `memory_full`, ... (`/proc/pressure`).
    pub pressure_us: BTreeMap<String, u64>,
    /// Disks.
    pub disks: Vec<DiskCounters>,
    /// Network interfaces.
    pub interfaces: Vec<InterfaceCounters>,
    /// `/proc/net/snmp` and `/proc/net/netstat`: `Tcp.RetransSegs`, `TcpExt.ListenOverflows`, ...
    pub network: BTreeMap<String, u64>,
    /// The recorder's own CPU time, µs.
    pub recorder_cpu_us: u64,
    /// The recorder's own resident memory, bytes.
    pub recorder_memory_bytes: u64,
}

/// Time of one CPU since boot, ms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuTimes {
    /// Number of the CPU.
    pub cpu: u32,
    /// User code, niced included.
    pub user_ms: u64,
    /// Kernel code.
    pub system_ms: u64,
    /// Idle.
    pub idle_ms: u64,
    /// Idle with I/O outstanding.
    pub iowait_ms: u64,
    /// Interrupts, hard and soft.
    pub interrupt_ms: u64,
    /// Taken by the hypervisor.
    pub steal_ms: u64,
}

/// A disk's counters (`/proc/diskstats`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskCounters {
    /// Device name.
    pub name: String,
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Time with I/O in flight, ms.
    pub busy_ms: u64,
    /// Time weighted by I/O in flight, ms.
    pub weighted_ms: u64,
}

/// An interface's counters (`/proc/net/dev`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceCounters {
    /// Interface name.
    pub name: String,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Receive errors.
    pub receive_errors: u64,
    /// Received packets dropped.
    pub receive_drops: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Transmit errors.
    pub send_errors: u64,
    /// Packets to send dropped.
    pub send_drops: u64,
}

/// A row of a [`crate::BlockKind::LEDGER`] block: the recorder's counters of what it lost or left out, cumulative.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerFact {
    /// When, `CLOCK_BOOTTIME` ns.
    pub time_ns: u64,
    /// Counter by name: `events`, `events_lost`, `payload_shrunk`, `sockets_without_state`, `recursion_misses`,
    /// `rows_not_written`, `payload_limit`, `uring_calls`, `unknown_records`, `counters_unreadable`. Those of imports stand in
    /// `docs/FORMAT.md`.
    pub counters: BTreeMap<String, u64>,
}
