//! Nodes and their samples.

use super::write_rounded;
use serde::{Deserialize, Serialize};

/// A recorded host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Distribution, `Debian GNU/Linux 12`.
    pub os: Option<String>,
    /// Logical CPUs.
    pub cpus: Option<u32>,
    /// Physical memory.
    pub memory_bytes: Option<u64>,
    /// Host samples, by time. A missing sample is drawn as a gap.
    pub samples: Vec<HostSample>,
    /// Disks, by name.
    pub disks: Vec<Disk>,
    /// Network interfaces, by name.
    pub interfaces: Vec<Interface>,
    /// What Kubernetes says of it; null where it wasn't asked or doesn't know it.
    pub kubernetes: Option<KubernetesNode>,
    /// Ids of the ledger entries that weaken these figures.
    pub weakened_by: Vec<String>,
}

/// One sample of a host; rates and splits cover the time since the sample before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostSample {
    /// When the covered stretch begins.
    pub start_ns: u64,
    /// How long it is.
    pub duration_ns: u64,
    /// One entry a core, by core number; null where the core was offline.
    pub cores: Vec<Option<CoreSplit>>,
    /// Memory that programs hold (total less available).
    pub memory_used_bytes: Option<u64>,
    /// Memory available to programs.
    pub memory_available_bytes: Option<u64>,
    /// Load average over one minute.
    #[serde(serialize_with = "write_rounded")]
    pub load_1m: Option<f64>,
    /// Runnable tasks.
    pub runnable: Option<u64>,
    /// Pressure stall information; null where the kernel has none.
    pub pressure: Option<Pressure>,
    /// TCP counters' increase; null where they could not be read.
    pub tcp: Option<TcpCounters>,
}

/// Where a core's time went, in permille of the stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreSplit {
    /// User and nice.
    pub user_permille: u16,
    /// Kernel.
    pub system_permille: u16,
    /// Hard and soft interrupts.
    pub irq_permille: u16,
    /// Idle while I/O was outstanding.
    pub iowait_permille: u16,
    /// Taken by the hypervisor.
    pub steal_permille: u16,
    /// Idle.
    pub idle_permille: u16,
}

impl CoreSplit {
    /// Time in which the core was not available to anybody else, in permille.
    #[must_use]
    pub fn busy_permille(&self) -> u16 {
        let sum = u32::from(self.user_permille)
            + u32::from(self.system_permille)
            + u32::from(self.irq_permille)
            + u32::from(self.steal_permille);
        u16::try_from(sum.min(1000)).unwrap_or(1000)
    }
}

/// Share of the stretch in which tasks waited, in permille (`/proc/pressure`, from the increase of `total`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// Some task waited for a CPU.
    pub cpu_some_permille: Option<u16>,
    /// Some task waited for memory.
    pub memory_some_permille: Option<u16>,
    /// All tasks waited for memory.
    pub memory_full_permille: Option<u16>,
    /// Some task waited for I/O.
    pub io_some_permille: Option<u16>,
    /// All tasks waited for I/O.
    pub io_full_permille: Option<u16>,
}

/// Increase of the kernel's TCP counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpCounters {
    /// Segments received.
    pub segments_in: u64,
    /// Segments sent.
    pub segments_out: u64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Resets sent.
    pub resets_out: u64,
    /// Connections opened from here.
    pub active_opens: u64,
    /// Connections accepted.
    pub passive_opens: u64,
    /// Attempts that failed.
    pub attempt_fails: u64,
    /// Connections dropped because a listen queue was full; null where not read.
    pub listen_drops: Option<u64>,
}

/// A disk over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// `nvme0n1`.
    pub name: String,
    /// By time.
    pub samples: Vec<DiskSample>,
}

/// One sample of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSample {
    /// When the covered stretch begins.
    pub start_ns: u64,
    /// How long it is.
    pub duration_ns: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads and writes completed.
    pub operations: u64,
    /// Time spent on them, all together.
    pub operation_ns: Option<u64>,
    /// Share of the stretch in which the disk was busy.
    pub busy_permille: Option<u16>,
}

/// A network interface over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// By time.
    pub samples: Vec<InterfaceSample>,
}

/// One sample of a network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSample {
    /// When the covered stretch begins.
    pub start_ns: u64,
    /// How long it is.
    pub duration_ns: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets dropped, both ways.
    pub dropped: u64,
    /// Errors, both ways.
    pub errors: u64,
}

/// A node as Kubernetes has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesNode {
    /// Zone that it stands in.
    pub zone: Option<String>,
    /// Whether it was ready, as told last.
    pub ready: Option<bool>,
    /// True where it takes no new pods.
    pub is_cordoned: bool,
    /// Conditions that hold and shouldn't: `MemoryPressure`.
    pub troubles: Vec<String>,
    /// Pods that it had during the recording.
    pub pods: u64,
    /// The kubelet's version.
    pub kubelet: Option<String>,
    /// The container runtime's name and version.
    pub runtime: Option<String>,
}
