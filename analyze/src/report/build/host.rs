//! Nodes: what the host samples say, as differences between neighbouring samples.

use kfr_bundle::facts::{CpuTimes, HostSample};

use crate::replay::{Input, NodeFacts};
use crate::report::document::{
    self, CoreSplit, Disk, DiskSample, Interface, InterfaceSample, Node, Pressure, TcpCounters,
};

/// Samples that the report shows at most; of longer recordings every second, third, ... one.
const MAX_SAMPLES: usize = 240;

/// A node from its bundle.
pub fn build(node: &NodeFacts, input: &Input) -> Node {
    let stride = node.host.len().div_ceil(MAX_SAMPLES).max(1);
    let host: Vec<&HostSample> = node.host.iter().step_by(stride).collect();
    let pairs = || host.iter().zip(host.iter().skip(1)).filter(|(before, after)| after.time_ns > before.time_ns);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_string());
    let names = |pick: fn(&HostSample) -> Vec<String>| {
        let mut names: Vec<String> = host.last().map(|sample| pick(sample)).unwrap_or_default();
        names.sort();
        names
    };
    Node {
        name: input.reader.header().node.clone(),
        kernel: text(&node.manifest.kernel),
        os: None,
        cpus: (node.manifest.cpus > 0).then_some(node.manifest.cpus),
        memory_bytes: host.last().and_then(|sample| sample.memory_bytes.get("MemTotal").copied()),
        samples: pairs().map(|(before, after)| sample(node, before, after)).collect(),
        disks: names(|sample| sample.disks.iter().map(|disk| disk.name.clone()).collect())
            .into_iter()
            .map(|name| Disk { samples: pairs().filter_map(|(a, b)| disk(node, &name, a, b)).collect(), name })
            .collect(),
        interfaces: names(|sample| sample.interfaces.iter().map(|interface| interface.name.clone()).collect())
            .into_iter()
            .map(|name| Interface {
                samples: pairs().filter_map(|(a, b)| interface(node, &name, a, b)).collect(),
                name,
            })
            .collect(),
        kubernetes: None,
        weakened_by: Vec::new(),
    }
}

fn permille(part: u64, whole: u64) -> u16 {
    u16::try_from(part.saturating_mul(1000).checked_div(whole).unwrap_or_default().min(1000)).unwrap_or(1000)
}

fn core(before: &CpuTimes, after: &CpuTimes) -> Option<CoreSplit> {
    let part = |pick: fn(&CpuTimes) -> u64| pick(after).saturating_sub(pick(before));
    let parts = [
        part(|cpu| cpu.user_ms),
        part(|cpu| cpu.system_ms),
        part(|cpu| cpu.interrupt_ms),
        part(|cpu| cpu.iowait_ms),
        part(|cpu| cpu.steal_ms),
        part(|cpu| cpu.idle_ms),
    ];
    let whole: u64 = parts.iter().sum();
    let [user, system, irq, iowait, steal, idle] = parts.map(|part| permille(part, whole));
    (whole > 0).then_some(CoreSplit {
        user_permille: user,
        system_permille: system,
        irq_permille: irq,
        iowait_permille: iowait,
        steal_permille: steal,
        idle_permille: idle,
    })
}

fn sample(node: &NodeFacts, before: &HostSample, after: &HostSample) -> document::HostSample {
    let duration_ns = after.time_ns - before.time_ns;
    let cores = after.cpus.iter().map(|cpu| {
        let earlier = before.cpus.iter().find(|earlier| earlier.cpu == cpu.cpu)?;
        core(earlier, cpu)
    });
    let memory = |name: &str| after.memory_bytes.get(name).copied();
    let stalled = |name: &str| {
        let (from, to) = (before.pressure_us.get(name)?, after.pressure_us.get(name)?);
        Some(permille(to.saturating_sub(*from).saturating_mul(1000), duration_ns))
    };
    let pressure = Pressure {
        cpu_some_permille: stalled("cpu_some"),
        memory_some_permille: stalled("memory_some"),
        memory_full_permille: stalled("memory_full"),
        io_some_permille: stalled("io_some"),
        io_full_permille: stalled("io_full"),
    };
    let counted = |name: &str| Some(after.network.get(name)?.saturating_sub(*before.network.get(name)?));
    let tcp = counted("Tcp.OutSegs").map(|segments_out| TcpCounters {
        segments_in: counted("Tcp.InSegs").unwrap_or_default(),
        segments_out,
        retransmitted: counted("Tcp.RetransSegs").unwrap_or_default(),
        resets_out: counted("Tcp.OutRsts").unwrap_or_default(),
        active_opens: counted("Tcp.ActiveOpens").unwrap_or_default(),
        passive_opens: counted("Tcp.PassiveOpens").unwrap_or_default(),
        attempt_fails: counted("Tcp.AttemptFails").unwrap_or_default(),
        listen_drops: counted("TcpExt.ListenDrops"),
    });
    document::HostSample {
        start_ns: node.clock.wall_ns(before.time_ns),
        duration_ns,
        cores: cores.collect(),
        memory_used_bytes: memory("MemTotal")
            .zip(memory("MemAvailable"))
            .map(|(total, free)| total.saturating_sub(free)),
        memory_available_bytes: memory("MemAvailable"),
        load_1m: after.load_milli.first().map(|load| *load as f64 / 1000.0),
        runnable: Some(after.runnable),
        pressure: (!after.pressure_us.is_empty()).then_some(pressure),
        tcp,
    }
}

fn disk(node: &NodeFacts, name: &str, before: &HostSample, after: &HostSample) -> Option<DiskSample> {
    let find = |sample: &HostSample| sample.disks.iter().find(|disk| disk.name == name).cloned();
    let (from, to) = (find(before)?, find(after)?);
    let operations = (to.reads + to.writes).saturating_sub(from.reads + from.writes);
    let weighted_ns = to.weighted_ms.saturating_sub(from.weighted_ms) * 1_000_000;
    let duration_ns = after.time_ns - before.time_ns;
    Some(DiskSample {
        start_ns: node.clock.wall_ns(before.time_ns),
        duration_ns,
        read_bytes: to.read_bytes.saturating_sub(from.read_bytes),
        written_bytes: to.written_bytes.saturating_sub(from.written_bytes),
        operations,
        operation_ns: weighted_ns.checked_div(operations),
        busy_permille: Some(permille(to.busy_ms.saturating_sub(from.busy_ms) * 1_000_000, duration_ns)),
    })
}

fn interface(node: &NodeFacts, name: &str, before: &HostSample, after: &HostSample) -> Option<InterfaceSample> {
    let find = |sample: &HostSample| sample.interfaces.iter().find(|interface| interface.name == name).cloned();
    let (from, to) = (find(before)?, find(after)?);
    Some(InterfaceSample {
        start_ns: node.clock.wall_ns(before.time_ns),
        duration_ns: after.time_ns - before.time_ns,
        received_bytes: to.received_bytes.saturating_sub(from.received_bytes),
        sent_bytes: to.sent_bytes.saturating_sub(from.sent_bytes),
        received_packets: to.received_packets.saturating_sub(from.received_packets),
        sent_packets: to.sent_packets.saturating_sub(from.sent_packets),
        dropped: (to.receive_drops + to.send_drops).saturating_sub(from.receive_drops + from.send_drops),
        errors: (to.receive_errors + to.send_errors).saturating_sub(from.receive_errors + from.send_errors),
    })
}
