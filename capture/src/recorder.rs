//! A capture from start to end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kfr_bundle::facts::{LedgerFact, Manifest, ProbeFact};
use kfr_bundle::{FileHeader, Writer};
use libbpf_rs::{RingBuffer, RingBufferBuilder};

use crate::drain::Drain;
use crate::kube::{Learned, Rows, Watcher};
use crate::logs::{self, Follower, Lines, LogFiles};
use crate::lookup::Lookup;
use crate::options::{Destination, Options};
use crate::probes::{Counters, Probes};
use crate::selection::Wanted;
use crate::store::{Batch, Handle, Store};
use crate::{clock, conntrack, host};

/// The ring is emptied this often; waking the reader for each event would halve the target's throughput.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// ... and this often while more than an eighth of the ring fills in between.
const DRAIN_BUSY: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Memory that the recorder takes beside the ring and waiting batches: code, zstd, a batch being filled, `/proc` data.
const BASE_MEMORY_BYTES: u64 = 40 << 20;
/// What a waiting batch takes at most: columns of a sealed block, and their spare capacity.
const BATCH_BYTES: u64 = 12 << 20;
/// Batches that may wait for the disk: at least so many, so that one is filled while another is written ...
const MIN_WAITING: u64 = 2;
/// ... and at most so many.
const MAX_WAITING: u64 = 64;
/// Share of `max_size` from which payload shrinks, percent.
const SHRINK_AT_SIZE_PERCENT: u64 = 80;
/// Bytes of a call that are kept under a limit: enough for most requests' first line.
const SHRUNK_PAYLOAD: u32 = 256;

/// Why a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Duration,
    /// It was told to stop.
    Signal,
    /// The file reached its limit.
    MaxSize,
    /// The file could not be written any more.
    WriteFailed,
    /// The kernel refused something that recording needs.
    Failed,
}

impl End {
    /// As in the bundle's manifest.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Signal => "signal",
            Self::MaxSize => "max-size",
            Self::WriteFailed => "write-failed",
            Self::Failed => "error",
        }
    }
}

/// What a capture has to say at its end.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// The bundle, unless it went to standard output.
    pub summary: kfr_bundle::Summary,
    /// What ended it early: writing failed, or the kernel refused something.
    pub failure: Option<anyhow::Error>,
    /// The probes' counters.
    pub counters: Counters,
    /// Rows that were recorded but not written.
    pub rows_not_written: u64,
    /// Rows written.
    pub rows: u64,
    /// The recorder's CPU time over the capture's time, percent of one core.
    pub cpu_percent: f64,
    /// Hook in use.
    pub hook: &'static str,
    /// Each probe and whether it worked.
    pub probes: Vec<ProbeFact>,
    /// True if payload was cut to stay below `max_cpu` or `max_size`.
    pub payload_shrunk_by_limit: bool,
    /// What Kubernetes said, where it was asked.
    pub kube: Option<Learned>,
}

/// Least that `max_memory` can be for a kernel buffer of this size, bytes.
pub const fn minimum_memory(buffer_bytes: u64) -> u64 {
    buffer_bytes + BASE_MEMORY_BYTES + MIN_WAITING * BATCH_BYTES
}

/// Records until the duration is over, `stop` is set, or a limit is reached.
///
/// # Errors
/// If probes are refused or the file can't be created or named. Once recording has begun, whatever else happens ends in
/// an [`Outcome`] with a whole bundle.
pub fn capture(options: &Options, stop: &AtomicBool) -> Result<Outcome> {
    let mut probes = Probes::load(options)?;
    let header = file_header(options.node_name.as_deref());
    let writer = match &options.destination {
        Destination::File { path, force } => Writer::create(path, &header, *force)?,
        Destination::Stdout => {
            // Not through a buffer: what is written has either arrived or failed.
            let stream = std::io::stdout().as_fd().try_clone_to_owned().context("standard output can't be written")?;
            Writer::to_stream(Box::new(fs::File::from(stream)), &header).context("standard output can't be written")?
        }
    };
    let ring_bytes = u64::from(options.buffer_bytes);
    let waiting = options.max_memory.saturating_sub(BASE_MEMORY_BYTES + ring_bytes) / BATCH_BYTES;
    let waiting = usize::try_from(waiting.clamp(MIN_WAITING, MAX_WAITING)).unwrap_or_default();
    let (store, handle) = Store::start(writer, waiting, options.max_size);

    let result = record(options, stop, &mut probes, &handle);
    handle.progress().abandoned.store(result.is_err(), Ordering::Relaxed);
    let progress = handle.progress_handle();
    drop(handle);
    let ended = store.finish();
    let recorded = result?;
    let summary = ended.summary?;
    let full = progress.full.load(Ordering::Relaxed);
    let (end, failure) = ending(recorded.end, recorded.failure, full, ended.failure);
    Ok(Outcome {
        end,
        summary,
        failure,
        counters: recorded.counters,
        rows_not_written: progress.rows_not_written.load(Ordering::Relaxed),
        rows: progress.rows.load(Ordering::Relaxed),
        cpu_percent: recorded.cpu_percent,
        hook: probes.hook_name(),
        probes: probes.facts().to_vec(),
        payload_shrunk_by_limit: recorded.payload_shrunk,
        kube: recorded.kube,
    })
}

/// Why it ended, all told: the file may have got full, or failed, after the recorder had decided to end.
fn ending(
    end: End,
    failure: Option<anyhow::Error>,
    full: bool,
    write_failure: Option<kfr_bundle::WriteError>,
) -> (End, Option<anyhow::Error>) {
    match (failure, write_failure) {
        (_, Some(error)) => (End::WriteFailed, Some(error.into())),
        (Some(error), None) => (End::Failed, Some(error)),
        (None, None) if full => (End::MaxSize, None),
        (None, None) => (end, None),
    }
}

/// What is known when the last batch is handed in.
struct Recorded {
    end: End,
    failure: Option<anyhow::Error>,
    counters: Counters,
    cpu_percent: f64,
    payload_shrunk: bool,
    kube: Option<Learned>,
}

/// Records.
///
/// # Errors
/// What happens before recording has begun; a later error is part of what was recorded.
fn record(options: &Options, stop: &AtomicBool, probes: &mut Probes, store: &Handle) -> Result<Recorded> {
    let anchor = clock::anchor();
    store.send(Batch::Anchor(anchor));
    // With a filter, other people's command lines are none of the recording's business.
    let everybody = options.filters().is_empty();
    let mut lookup = Lookup::new(store.clone(), &options.host_root);
    if everybody {
        lookup.snapshot();
    }
    let drain = RefCell::new(Drain::new(store.clone(), options.max_size));
    let ring_map = probes.ring()?;
    let mut builder = RingBufferBuilder::new();
    builder.add(&ring_map, |record| {
        drain.borrow_mut().event(record);
        0
    })?;
    let ring = builder.build().context("mapping the ring")?;

    let open_sockets = probes.attach(clock::boot_offset_ns(&anchor))?;
    let started_ns = clock::boottime_ns();
    drain.borrow_mut().add_sockets(open_sockets);
    let mut manifest = manifest(options, probes);
    manifest.started_ns = started_ns;
    let logs = follow_logs(options, store);
    manifest.logs = logs.as_ref().map_or_else(Clone::clone, |_| options.logs.name().to_string());
    store.send(Batch::Manifest(Box::new(manifest.clone())));

    let kube = options.kube.clone().map(|cluster| {
        let rows = Rows::new(store.clone());
        let sink = rows.clone();
        (Watcher::start(cluster, boot_id(), clock::boottime_ns, Arc::new(move |new| sink.add(new))), rows)
    });
    let (process_sender, processes_seen) = mpsc::channel();
    let mut follower = probes.follower()?;
    let stop_sampling = AtomicBool::new(false);
    let mut governor = Governor::new(options, probes.payload_limit());
    let (end, mut failure) = thread::scope(|scope| {
        let (lookup, stop_sampling) = (&mut lookup, &stop_sampling);
        scope.spawn(move || sample_host(store, stop_sampling));
        scope.spawn(move || conntrack::watch(store, &options.host_root, stop_sampling));
        scope.spawn(move || lookup.run(&processes_seen));
        if let Some(follower) = &mut follower {
            scope.spawn(move || follower.run(stop_sampling));
        }
        let started = Instant::now();
        let mut second = started;
        let end = loop {
            if let Err(error) = read_ring(&ring) {
                break (End::Failed, Some(error));
            }
            let mut filled = drain.borrow_mut();
            filled.tick();
            let bytes = filled.take_bytes();
            let seen = filled.take_processes();
            drop(filled);
            if !seen.is_empty() && process_sender.send(seen).is_err() {
                break (End::Failed, Some(anyhow!("the thread that looks up processes has ended")));
            }
            if second.elapsed() >= SECOND {
                second = Instant::now();
                if let Some((_, rows)) = &kube {
                    rows.seal();
                }
                let anchor = clock::anchor();
                store.send(Batch::Anchor(anchor));
                store.send(Batch::Ledger(ledger(probes, store, drain.borrow().unknown())));
                let tuned = probes
                    .set_boot_offset(clock::boot_offset_ns(&anchor))
                    .and_then(|()| governor.tune(probes, store.progress().bytes.load(Ordering::Relaxed)));
                if let Err(error) = tuned {
                    break (End::Failed, Some(error));
                }
            }
            if stop.load(Ordering::Relaxed) {
                break (End::Signal, None);
            }
            if options.duration.is_some_and(|duration| started.elapsed() >= duration) {
                break (End::Duration, None);
            }
            if store.progress().failed.load(Ordering::Relaxed) != 0 {
                break (End::WriteFailed, None);
            }
            if store.progress().full.load(Ordering::Relaxed) {
                break (End::MaxSize, None);
            }
            let busy = bytes > options.buffer_bytes as usize / 8;
            thread::sleep(if busy { DRAIN_BUSY } else { DRAIN_EVERY });
        };
        stop_sampling.store(true, Ordering::Relaxed);
        drop(process_sender);
        end
    });

    probes.detach();
    let ended_ns = clock::boottime_ns();
    if let Ok(follower) = logs {
        follower.stop();
    }
    let kube = kube.map(|(watcher, rows)| {
        watcher.stop();
        rows.seal();
        rows.learned()
    });
    // What the probes wrote until then.
    failure = failure.or(read_ring(&ring).err());
    let open_sockets = probes.walk().unwrap_or_default();
    let mut rest = drain.borrow_mut();
    rest.add_sockets(open_sockets);
    rest.seal();
    store.send(Batch::Host(Box::new(host::sample())));
    if everybody {
        lookup.snapshot();
    }
    lookup.name_the_rest();
    store.send(Batch::Anchor(clock::anchor()));
    store.send(Batch::Ledger(ledger(probes, store, rest.unknown())));
    manifest.ended_ns = ended_ns;
    // Without them nobody can say what was lost.
    let counters = probes.counters().unwrap_or_else(|error| {
        failure.get_or_insert(error.context("reading the probes' counters"));
        Counters::default()
    });
    let end = if failure.is_some() { End::Failed } else { end };
    manifest.end = end.name().to_string();
    manifest.probes = probes.facts().to_vec();
    store.send(Batch::Manifest(Box::new(manifest)));
    let (cpu_percent, payload_shrunk) = (governor.average_percent(), governor.shrunk);
    Ok(Recorded { end, failure, counters, cpu_percent, payload_shrunk, kube })
}

/// Follows container logs, where they are wanted and there are any; else says why not, as the manifest does.
fn follow_logs(options: &Options, store: &Handle) -> std::result::Result<Follower, String> {
    if options.logs == Lines::Off {
        return Err(Lines::Off.name().to_string());
    }
    let files = LogFiles::find(&options.host_root)?.only(Wanted::of(options));
    let store = store.clone();
    let sink = Box::new(move |rows| {
        store.send(match rows {
            logs::Rows::Lines(rows) => Batch::Logs(rows),
            logs::Rows::Counts(rows) => Batch::LogCounts(rows),
        });
    });
    let clocks = logs::Clocks { event: clock::boottime_ns, wall: clock::realtime_ns };
    Ok(Follower::start(files, options.logs, logs::Bounds::of_bundle(options.max_size), clocks, sink))
}

/// Empties the ring.
fn read_ring(ring: &RingBuffer<'_>) -> Result<()> {
    match ring.consume() {
        // By a signal; the flag that it set is looked at elsewhere.
        Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => Ok(()),
        other => other.map(|_| ()).context("reading the kernel buffer"),
    }
}

fn sample_host(store: &Handle, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        store.send(Batch::Host(Box::new(host::sample())));
        let next = Instant::now() + SECOND;
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Keeps the recorder below its limits by keeping less payload.
struct Governor {
    max_cpu_percent: f64,
    shrink_at_bytes: u64,
    payload_limit: u32,
    began: Instant,
    began_cpu_us: u64,
    last: Instant,
    last_cpu_us: u64,
    over: u32,
    shrunk: bool,
}

impl Governor {
    fn new(options: &Options, payload_limit: u32) -> Self {
        let now = Instant::now();
        let (cpu_us, _) = host::own_usage();
        Self {
            max_cpu_percent: f64::from(options.max_cpu_percent),
            shrink_at_bytes: options.max_size / 100 * SHRINK_AT_SIZE_PERCENT,
            payload_limit,
            began: now,
            began_cpu_us: cpu_us,
            last: now,
            last_cpu_us: cpu_us,
            over: 0,
            shrunk: false,
        }
    }

    /// Once a second.
    fn tune(&mut self, probes: &mut Probes, file_bytes: u64) -> Result<()> {
        let (cpu_us, _) = host::own_usage();
        let elapsed = self.last.elapsed().as_secs_f64().max(0.001);
        let percent = (cpu_us.saturating_sub(self.last_cpu_us)) as f64 / 10_000.0 / elapsed;
        self.last = Instant::now();
        self.last_cpu_us = cpu_us;
        self.over = if percent > self.max_cpu_percent { self.over + 1 } else { self.over.saturating_sub(1) };
        let mut limit = self.payload_limit;
        if self.over >= 3 {
            // Halved for each further second above the limit.
            limit >>= (self.over - 2).min(16);
        }
        if file_bytes >= self.shrink_at_bytes {
            limit = limit.min(SHRUNK_PAYLOAD);
        }
        if limit != self.payload_limit {
            self.shrunk = true;
        }
        if limit != probes.payload_limit() {
            probes.set_payload_limit(limit)?;
        }
        Ok(())
    }

    fn average_percent(&self) -> f64 {
        let (cpu_us, _) = host::own_usage();
        cpu_us.saturating_sub(self.began_cpu_us) as f64 / 10_000.0 / self.began.elapsed().as_secs_f64().max(0.001)
    }
}

fn ledger(probes: &Probes, store: &Handle, unknown: u64) -> LedgerFact {
    let mut counters = BTreeMap::new();
    let mut put = |name: &str, value: u64| {
        counters.insert(name.to_string(), value);
    };
    match probes.counters() {
        Ok(kernel) => {
            put("events", kernel.events);
            put("events_lost", kernel.lost);
            put("payload_shrunk", kernel.shrunk);
            put("sockets_without_state", kernel.refused_state);
        }
        Err(_) => put("counters_unreadable", 1),
    }
    put("uring_calls", probes.uring_calls());
    put("recursion_misses", probes.recursion_misses());
    put("rows_not_written", store.progress().rows_not_written.load(Ordering::Relaxed));
    put("unknown_records", unknown);
    put("payload_limit", u64::from(probes.payload_limit()));
    LedgerFact { time_ns: clock::boottime_ns(), counters }
}

fn manifest(options: &Options, probes: &Probes) -> Manifest {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
    Manifest {
        tool: "kfr".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        kernel: read("/proc/sys/kernel/osrelease"),
        architecture: std::env::consts::ARCH.to_string(),
        cpus: thread::available_parallelism().map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        socket_hook: probes.hook_name().to_string(),
        probes: probes.facts().to_vec(),
        kube: options.kube.as_ref().map(|cluster| cluster.found.clone()).unwrap_or_default(),
        filters: options.filters(),
        payload_limit: options.payload_limit,
        buffer_bytes: u64::from(options.buffer_bytes),
        ..Manifest::default()
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

fn file_header(node: Option<&str>) -> FileHeader {
    let host =
        || fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_string()).unwrap_or_default();
    let node = node.map_or_else(host, str::to_string);
    let anchor = clock::anchor();
    let mut header = FileHeader::new(node);
    if let Ok(id) = kfr_bundle::Uuid::parse_str(&boot_id()) {
        header.boot_id = id.into_bytes();
    }
    header.created_realtime_ns = anchor.realtime_ns;
    header.created_clock_ns = anchor.boottime_ns;
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn whatever_ends_a_recording_is_its_outcome() {
        let refused = || Some(anyhow!("setting a probe's variables"));
        let disk = || {
            let source = io::ErrorKind::StorageFull.into();
            Some(kfr_bundle::WriteError::DiskFull { written: 1, source })
        };
        assert_eq!(ending(End::Duration, None, false, None).0, End::Duration);
        assert_eq!(ending(End::Duration, None, true, None).0, End::MaxSize);
        let (end, failure) = ending(End::Failed, refused(), false, None);
        assert!(end == End::Failed && failure.is_some());
        let (end, failure) = ending(End::Failed, refused(), true, disk());
        assert!(end == End::WriteFailed && failure.unwrap().is::<kfr_bundle::WriteError>());
    }

    #[test]
    fn the_least_memory_holds_the_buffer_and_two_batches() {
        assert_eq!(minimum_memory(16 << 20), 80 << 20);
        let defaults = Options::new(Destination::Stdout);
        assert!(minimum_memory(u64::from(defaults.buffer_bytes)) <= defaults.max_memory);
    }
}
