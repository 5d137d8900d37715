//! The host once a second, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use kfr_bundle::facts::{CpuTimes, DiskCounters, HostSample, InterfaceCounters};
use procfs::{Current, CurrentSI};

use crate::clock;

/// Bytes of a disk sector in `/proc/diskstats`, whatever the device's own (Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: u64 = 512;

/// Takes a sample. What can't be read is left out.
pub fn sample() -> HostSample {
    let usage = own_usage();
    HostSample {
        time_ns: clock::boottime_ns(),
        cpus: cpus(),
        memory_bytes: memory(),
        load_milli: load(),
        runnable: procfs::LoadAverage::current().map(|load| u64::from(load.cur)).unwrap_or_default(),
        pressure_us: pressure(),
        disks: disks(),
        interfaces: interfaces(),
        network: network(),
        recorder_cpu_us: usage.0,
        recorder_memory_bytes: usage.1,
    }
}

fn cpus() -> Vec<CpuTimes> {
    let Ok(stat) = procfs::KernelStats::current() else { return Vec::new() };
    let each = stat.cpu_time.iter().enumerate();
    each.map(|(cpu, time)| CpuTimes {
        cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
        user_ms: time.user_ms() + time.nice_ms(),
        system_ms: time.system_ms(),
        idle_ms: time.idle_ms(),
        iowait_ms: time.iowait_ms().unwrap_or_default(),
        interrupt_ms: time.irq_ms().unwrap_or_default() + time.softirq_ms().unwrap_or_default(),
        steal_ms: time.steal_ms().unwrap_or_default(),
    })
    .collect()
}

/// The lines of `/proc/meminfo` that say how much is in use and by what.
const MEMORY: [&str; 12] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "SwapTotal",
    "SwapFree",
    "Dirty",
    "Writeback",
    "AnonPages",
    "Shmem",
    "Slab",
];

fn memory() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
        MEMORY.contains(&name).then(|| (name.to_string(), kib * 1024))
    });
    lines.collect()
}

fn load() -> Vec<u64> {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages = text.split_whitespace().take(3).filter_map(|average| average.parse::<f64>().ok());
    averages.map(|average| (average * 1000.0) as u64).collect()
}

/// `/proc/pressure/*`: lines `some avg10=.. avg60=.. avg300=.. total=MICROSECONDS`.
fn pressure() -> BTreeMap<String, u64> {
    let mut stalls = BTreeMap::new();
    for resource in ["cpu", "memory", "io"] {
        let text = fs::read_to_string(format!("/proc/pressure/{resource}")).unwrap_or_default();
        for line in text.lines() {
            let kind = line.split_whitespace().next();
            let total = line.split_once("total=").and_then(|(_, total)| total.trim().parse().ok());
            if let (Some(kind), Some(total)) = (kind, total) {
                stalls.insert(format!("{resource}_{kind}"), total);
            }
        }
    }
    stalls
}

fn disks() -> Vec<DiskCounters> {
    let all = procfs::diskstats().unwrap_or_default().into_iter();
    // Whole devices only: a partition's I/O is its disk's.
    let whole = all.filter(|disk| fs::exists(format!("/sys/block/{}", disk.name.replace('/', "!"))).unwrap_or(false));
    let used = whole.filter(|disk| disk.reads + disk.writes > 0);
    used.map(|disk| DiskCounters {
        name: disk.name,
        reads: disk.reads,
        read_bytes: disk.sectors_read * SECTOR_BYTES,
        writes: disk.writes,
        written_bytes: disk.sectors_written * SECTOR_BYTES,
        busy_ms: disk.time_in_progress,
        weighted_ms: disk.weighted_time_in_progress,
    })
    .collect()
}

fn interfaces() -> Vec<InterfaceCounters> {
    let mut all: Vec<_> = procfs::net::dev_status().unwrap_or_default().into_values().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let counters = all.into_iter().map(|status| InterfaceCounters {
        name: status.name,
        received_bytes: status.recv_bytes,
        received_packets: status.recv_packets,
        receive_errors: status.recv_errs,
        receive_drops: status.recv_drop,
        sent_bytes: status.sent_bytes,
        sent_packets: status.sent_packets,
        send_errors: status.sent_errs,
        send_drops: status.sent_drop,
    });
    counters.collect()
}

/// Counters of `/proc/net/snmp` and `/proc/net/netstat` that say something about the health of connections.
const NETWORK: [&str; 22] = [
    "Tcp.ActiveOpens",
    "Tcp.PassiveOpens",
    "Tcp.AttemptFails",
    "Tcp.EstabResets",
    "Tcp.CurrEstab",
    "Tcp.InSegs",
    "Tcp.OutSegs",
    "Tcp.RetransSegs",
    "Tcp.InErrs",
    "Tcp.OutRsts",
    "Udp.InDatagrams",
    "Udp.OutDatagrams",
    "Udp.InErrors",
    "Udp.RcvbufErrors",
    "Udp.SndbufErrors",
    "Udp.NoPorts",
    "TcpExt.ListenOverflows",
    "TcpExt.ListenDrops",
    "TcpExt.TCPTimeouts",
    "TcpExt.TCPLostRetransmit",
    "TcpExt.TCPZeroWindowDrop",
    "TcpExt.TCPAbortOnTimeout",
];

/// Pairs of lines: `Tcp: NAME NAME ...` and `Tcp: VALUE VALUE ...`.
fn network() -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for file in ["/proc/net/snmp", "/proc/net/netstat"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let (Some((group, names)), Some((_, values))) = (names.split_once(':'), values.split_once(':')) else {
                continue;
            };
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                let key = format!("{group}.{name}");
                if let Ok(value) = value.parse()
                    && NETWORK.contains(&key.as_str())
                {
                    counters.insert(key, value);
                }
            }
        }
    }
    counters
}

/// The recorder's CPU time (µs) and resident memory (bytes).
pub fn own_usage() -> (u64, u64) {
    let Ok(stat) = procfs::process::Process::myself().and_then(|process| process.stat()) else { return (0, 0) };
    let ticks = procfs::ticks_per_second().max(1);
    ((stat.utime + stat.stime) * 1_000_000 / ticks, stat.rss * procfs::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_this_machine_has_its_parts() {
        let sample = sample();
        assert!(!sample.cpus.is_empty());
        assert!(sample.memory_bytes["MemTotal"] > 0);
        assert_eq!(sample.load_milli.len(), 3);
        assert!(sample.network.contains_key("Tcp.RetransSegs"), "{:?}", sample.network);
        assert!(sample.network.contains_key("TcpExt.ListenOverflows"), "{:?}", sample.network);
        assert!(sample.interfaces.iter().any(|interface| interface.name == "lo"));
        assert!(sample.recorder_memory_bytes > 0);
    }
}
