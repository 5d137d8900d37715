//! The thread that encodes, compresses and writes, so that the drain never waits for a disk unless the memory that the
//! recorder may use is full; then the ring fills, and the probes keep less payload.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kfr_bundle::conntrack::TranslationFact;
use kfr_bundle::events::{ProcessEvent, SocketEvent, StateEvent, TcpEvent};
use kfr_bundle::facts::{ContainerFact, HostSample, LedgerFact, Manifest, ProcessFact};
use kfr_bundle::kube::KubeFact;
use kfr_bundle::logs::{LogCounts, LogFact};
use kfr_bundle::rows::Anchor;
use kfr_bundle::{Block, BlockKind, DataColumns, MapWriter, Row, Summary, WriteError, Writer, encode_rows};
use serde::Serialize;

/// How often the file's data is forced to disk.
const SYNC_EVERY: Duration = Duration::from_secs(3);
/// Room below the size limit that only the closing clocks, counters and manifest may use, so that a full file still says
/// how it ended. Named maps of some dozens of probes and all filters take a few KiB.
const CLOSING_BYTES: u64 = 32 << 10;
/// Most rows of one block of named maps.
const MAPS_A_BLOCK: usize = 4096;
/// The same of Kubernetes objects: a pod has about 4 KiB.
const OBJECTS_A_BLOCK: usize = 256;

/// What the store writes, each as one block (or a few).
pub enum Batch {
    /// Bytes moved on sockets.
    Data(Box<DataColumns>),
    /// Identities of sockets.
    Sockets(Vec<SocketEvent>),
    /// State changes.
    States(Vec<StateEvent>),
    /// Retransmissions, resets.
    Tcp(Vec<TcpEvent>),
    /// exec, fork, exit.
    ProcessEvents(Vec<ProcessEvent>),
    /// Processes from `/proc`; `true` for a list of all.
    Processes(Vec<ProcessFact>, bool),
    /// Containers, as the node's files name them.
    Containers(Vec<ContainerFact>),
    /// Translated connections.
    Translations(Vec<TranslationFact>),
    /// A host sample.
    Host(Box<HostSample>),
    /// A moment on several clocks.
    Anchor(Anchor),
    /// The recorder's counters.
    Ledger(LedgerFact),
    /// Kubernetes objects and changes.
    Kube(Vec<KubeFact>),
    /// Lines of container logs.
    Logs(Vec<LogFact>),
    /// What became of the lines of each container.
    LogCounts(Vec<LogCounts>),
    /// How the bundle is recorded.
    Manifest(Box<Manifest>),
}

/// What the store and its users share.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the file so far.
    pub bytes: AtomicU64,
    /// Rows written.
    pub rows: AtomicU64,
    /// Rows that could not be written.
    pub rows_not_written: AtomicU64,
    /// 1 once a write has failed.
    pub failed: AtomicU64,
    /// Set once something didn't fit below the size limit.
    pub full: AtomicBool,
    /// To be set if recording never began: the file is removed instead of finished.
    pub abandoned: AtomicBool,
}

/// Where batches are handed in; may be cloned for other threads.
#[derive(Clone)]
pub struct Handle {
    sender: SyncSender<Batch>,
    empty: Arc<Mutex<Receiver<Box<DataColumns>>>>,
    progress: Arc<Progress>,
}

impl Handle {
    /// Hands in a batch; waits while too many are under way.
    pub fn send(&self, batch: Batch) {
        if self.sender.send(batch).is_err() {
            self.progress.rows_not_written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A used-up batch, to be filled again without new memory.
    pub fn recycled(&self) -> Option<Box<DataColumns>> {
        self.empty.lock().ok()?.try_recv().ok()
    }

    /// How far the store is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The same, for when the store has ended and every handle is gone.
    pub fn progress_handle(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

/// The running store.
pub struct Store {
    thread: JoinHandle<(Result<Summary, WriteError>, Option<WriteError>)>,
}

/// How the store ended.
pub struct Ended {
    /// The finished file.
    pub summary: Result<Summary, WriteError>,
    /// The error that ended writing early, if one did.
    pub failure: Option<WriteError>,
}

impl Store {
    /// Starts the thread. At most `waiting` batches wait for it. The recording ends before the first batch of events with
    /// which the finished file would be larger than `max_bytes`: later events are left out, too.
    pub fn start(writer: Writer, waiting: usize, max_bytes: u64) -> (Self, Handle) {
        let (sender, receiver) = mpsc::sync_channel(waiting);
        let (recycle, empty) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let handle = Handle { sender, empty: Arc::new(Mutex::new(empty)), progress: progress.clone() };
        let thread = thread::spawn(move || run(writer, &receiver, &recycle, &progress, max_bytes));
        (Self { thread }, handle)
    }

    /// Waits until everything that was handed in is written and the file is whole. Every [`Handle`] must be gone.
    pub fn finish(self) -> Ended {
        match self.thread.join() {
            Ok((summary, failure)) => Ended { summary, failure },
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn run(
    mut writer: Writer,
    receiver: &Receiver<Batch>,
    recycle: &Sender<Box<DataColumns>>,
    progress: &Progress,
    max_bytes: u64,
) -> (Result<Summary, WriteError>, Option<WriteError>) {
    let mut failure = None;
    let mut raw = Vec::new();
    let syncer = Syncer::start(&writer);
    let mut full = false;
    // Event time of the last event before the file was full.
    let mut last_ns = 0;
    for mut batch in receiver {
        if failure.is_none() {
            failure = syncer.failure();
        }
        if failure.is_some() {
            // The file is closed; what still comes is counted.
            progress.failed.store(1, Ordering::Relaxed);
            progress.rows_not_written.fetch_add(rows_of(&batch), Ordering::Relaxed);
            continue;
        }
        let event_ns = last_event_ns(&batch);
        if full && event_ns.is_some() {
            continue;
        }
        if let Batch::Manifest(manifest) = &mut batch
            && full
            && manifest.ended_ns > 0
        {
            manifest.end = crate::recorder::End::MaxSize.name().to_string();
            if last_ns > 0 {
                manifest.ended_ns = last_ns;
            }
        }
        let rows = rows_of(&batch);
        let most = if is_closing(&batch) { max_bytes } else { max_bytes.saturating_sub(CLOSING_BYTES) };
        match write(&mut writer, batch, most, &mut raw, recycle) {
            Ok(true) => {
                last_ns = last_ns.max(event_ns.unwrap_or_default());
                progress.rows.fetch_add(rows, Ordering::Relaxed);
                progress.bytes.store(writer.bytes_written(), Ordering::Relaxed);
            }
            Ok(false) => {
                full = true;
                progress.full.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                progress.rows_not_written.fetch_add(rows, Ordering::Relaxed);
                progress.failed.store(1, Ordering::Relaxed);
                failure = Some(error);
            }
        }
    }
    let unsynced = syncer.finish();
    if progress.abandoned.load(Ordering::Relaxed) {
        if let Some(partial) = writer.abandon() {
            // It holds nothing; if it stays, the next capture says so.
            let _best_effort = std::fs::remove_file(partial);
        }
        return (Err(WriteError::Closed), None);
    }
    let mut failure = failure.or(unsynced);
    let summary = match failure {
        Some(_) => writer.finish_after_error(),
        None => writer.finish().or_else(|error| {
            failure = Some(error);
            writer.finish_after_error()
        }),
    };
    (summary, failure)
}

/// Whether this is what the end of a file needs: it may use the room that is kept for it.
fn is_closing(batch: &Batch) -> bool {
    matches!(batch, Batch::Anchor(_) | Batch::Ledger(_) | Batch::Manifest(_))
}

/// Time of the last event of a batch; `None` for batches of other things.
fn last_event_ns(batch: &Batch) -> Option<u64> {
    match batch {
        Batch::Data(columns) => columns.time_bounds().map(|(_, last)| last),
        Batch::Sockets(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::States(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::Tcp(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::ProcessEvents(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::Processes(..)
        | Batch::Containers(_)
        | Batch::Translations(_)
        | Batch::Host(_)
        | Batch::Kube(_)
        | Batch::Logs(_)
        | Batch::LogCounts(_)
        | Batch::Anchor(_)
        | Batch::Ledger(_)
        | Batch::Manifest(_) => None,
    }
}

fn rows_of(batch: &Batch) -> u64 {
    let rows = match batch {
        Batch::Data(columns) => columns.len(),
        Batch::Sockets(rows) => rows.len(),
        Batch::States(rows) => rows.len(),
        Batch::Tcp(rows) => rows.len(),
        Batch::ProcessEvents(rows) => rows.len(),
        Batch::Processes(rows, _) => rows.len(),
        Batch::Containers(rows) => rows.len(),
        Batch::Translations(rows) => rows.len(),
        Batch::Kube(rows) => rows.len(),
        Batch::Logs(rows) => rows.len(),
        Batch::LogCounts(rows) => rows.len(),
        Batch::Host(_) | Batch::Anchor(_) | Batch::Ledger(_) | Batch::Manifest(_) => 1,
    };
    rows as u64
}

/// Writes a batch unless the file, finished, would be larger than `most`; says whether it did.
fn write(
    writer: &mut Writer,
    batch: Batch,
    most: u64,
    raw: &mut Vec<u8>,
    recycle: &Sender<Box<DataColumns>>,
) -> Result<bool, WriteError> {
    match batch {
        Batch::Data(mut columns) => {
            raw.clear();
            columns.encode(raw);
            let (first, last) = columns.time_bounds().unwrap_or_default();
            let rows = u32::try_from(columns.len()).unwrap_or(u32::MAX);
            let block = Block::new(BlockKind::DATA, rows).with_times(first, last).with_peers(columns.has_peers());
            columns.clear();
            // Nobody takes it back after the end.
            let _ = recycle.send(columns);
            writer.write_block_within(&block, raw, most)
        }
        Batch::Sockets(rows) => write_rows(writer, most, BlockKind::SOCKETS, &rows, |row| row.header.time_ns),
        Batch::States(rows) => write_rows(writer, most, BlockKind::STATES, &rows, |row| row.header.time_ns),
        Batch::Tcp(rows) => write_rows(writer, most, BlockKind::TCP, &rows, |row| row.header.time_ns),
        Batch::ProcessEvents(rows) => {
            write_rows(writer, most, BlockKind::PROCESS_EVENTS, &rows, |row| row.header.time_ns)
        }
        Batch::Anchor(row) => write_rows(writer, most, BlockKind::ANCHORS, &[row], |row| row.boottime_ns),
        Batch::Processes(rows, all) => write_maps(writer, most, BlockKind::PROCESSES, &rows, |row| row.time_ns, all),
        Batch::Containers(rows) => write_maps(writer, most, BlockKind::CONTAINERS, &rows, |row| row.time_ns, false),
        Batch::Translations(rows) => write_maps(writer, most, BlockKind::CONNTRACK, &rows, |row| row.time_ns, false),
        Batch::Kube(rows) => {
            for rows in rows.chunks(OBJECTS_A_BLOCK) {
                if !write_maps(writer, most, BlockKind::KUBE, rows, |row| row.time_ns, false)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Batch::Logs(rows) => write_maps(writer, most, BlockKind::LOGS, &rows, |row| row.time_ns, false),
        Batch::LogCounts(rows) => write_maps(writer, most, BlockKind::LOG_COUNTS, &rows, |row| row.time_ns, false),
        Batch::Host(row) => write_maps(writer, most, BlockKind::HOST, &[*row], |row| row.time_ns, false),
        Batch::Ledger(row) => write_maps(writer, most, BlockKind::LEDGER, &[row], |row| row.time_ns, false),
        Batch::Manifest(row) => {
            write_maps(writer, most, BlockKind::MANIFEST, &[*row], |row| row.ended_ns.max(row.started_ns), true)
        }
    }
}

fn bounds<T>(rows: &[T], time: impl Fn(&T) -> u64) -> (u64, u64) {
    rows.iter().map(time).fold((u64::MAX, 0), |(first, last), time| (first.min(time), last.max(time)))
}

fn write_rows<R: Row>(
    writer: &mut Writer,
    most: u64,
    kind: BlockKind,
    rows: &[R],
    time: impl Fn(&R) -> u64,
) -> Result<bool, WriteError> {
    for rows in rows.chunks(kfr_bundle::MAX_ROWS as usize / 4) {
        let (first, last) = bounds(rows, &time);
        let block = Block::new(kind, u32::try_from(rows.len()).unwrap_or(u32::MAX)).with_times(first, last);
        if !writer.write_block_within(&block, &encode_rows(rows), most)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_maps<T: Serialize>(
    writer: &mut Writer,
    most: u64,
    kind: BlockKind,
    rows: &[T],
    time: impl Fn(&T) -> u64,
    keyframe: bool,
) -> Result<bool, WriteError> {
    for rows in rows.chunks(MAPS_A_BLOCK) {
        let mut maps = MapWriter::new();
        for row in rows {
            // These are plain structs of numbers and strings: nothing that MessagePack can't hold.
            if maps.push(row).is_err() {
                debug_assert!(false, "a fact that MessagePack can't hold");
            }
        }
        let (first, last) = bounds(rows, &time);
        let block = Block::new(kind, maps.len()).with_times(first, last);
        let block = if keyframe { block.as_keyframe() } else { block };
        if !writer.write_block_within(&block, &maps.encode(), most)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Forces the file's data to disk every few seconds, on a thread of its own: a slow disk then delays nothing else. The
/// kernel reports a failed write-back once for an open file, and it is this thread that may get to hear of it.
struct Syncer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    partial: PathBuf,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Syncer {
    fn start(writer: &Writer) -> Self {
        match writer.sync_handle() {
            Ok(Some(file)) => Self::every(SYNC_EVERY, writer.partial().unwrap_or_default(), move || file.sync_data()),
            _ => Self { stop: None, thread: None, partial: PathBuf::new(), failure: Arc::default() },
        }
    }

    fn every(period: Duration, partial: PathBuf, mut sync: impl FnMut() -> io::Result<()> + Send + 'static) -> Self {
        let failure = Arc::<Mutex<Option<io::Error>>>::default();
        let (stop, stopped) = mpsc::channel::<()>();
        let told = failure.clone();
        let thread = thread::spawn(move || {
            let mut next = Instant::now() + period;
            while let Err(mpsc::RecvTimeoutError::Timeout) =
                stopped.recv_timeout(next.saturating_duration_since(Instant::now()))
            {
                if let Err(error) = sync() {
                    if let Ok(mut failure) = told.lock() {
                        *failure = Some(error);
                    }
                    // The recording ends with the first one.
                    return;
                }
                next = Instant::now() + period;
            }
        });
        Self { stop: Some(stop), thread: Some(thread), partial, failure }
    }

    /// The error that the kernel reported, once.
    fn failure(&self) -> Option<WriteError> {
        let source = self.failure.lock().ok()?.take()?;
        Some(WriteError::NotSynced { path: self.partial.clone(), source })
    }

    /// Waits for a sync under way; gives the error that nobody has asked for yet.
    fn finish(mut self) -> Option<WriteError> {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can't panic; a failed join would lose nothing.
            let _ = thread.join();
        }
        self.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;
    use kfr_bundle::events::{DataEvent, EventHeader, KIND_DATA};
    use kfr_bundle::{Condition, FileHeader, Reader, decode_maps};
    use zerocopy::{FromZeros, IntoBytes};

    /// A record of the ring, with payload that doesn't compress.
    fn record(number: u64, payload: usize) -> Vec<u8> {
        let mut event = DataEvent::new_zeroed();
        event.header = EventHeader { kind: KIND_DATA, time_ns: 1000 + number, ..EventHeader::new_zeroed() };
        event.kept = payload as u32;
        event.length = payload as u32;
        let mut bytes = event.as_bytes().to_vec();
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        bytes.extend((0..payload).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        }));
        bytes
    }

    #[test]
    fn a_file_ends_at_or_below_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        for (limit, payload) in [(1 << 20, 16384), (1 << 20, 100), (5 << 20, 4096), (40 << 20, 4096)] {
            let path = folder.path().join(format!("{limit}-{payload}.kfr"));
            let writer = Writer::create(&path, &FileHeader::new("node"), false).unwrap();
            let (store, handle) = Store::start(writer, 64, limit);
            let mut drain = Drain::new(handle.clone(), limit);
            let mut number = 0;
            while !handle.progress().full.load(Ordering::Relaxed) {
                drain.event(&record(number, payload));
                number += 1;
                assert!(number < 1 << 20, "it never gets full");
            }
            // What was under way when it got full.
            drain.seal();
            let manifest = Manifest { end: "signal".to_string(), ended_ns: u64::MAX, ..Manifest::default() };
            handle.send(Batch::Ledger(LedgerFact::default()));
            handle.send(Batch::Manifest(Box::new(manifest)));
            let written = handle.progress_handle();
            drop((drain, handle));
            let ended = store.finish();
            assert!(ended.failure.is_none());
            let bytes = std::fs::metadata(&path).unwrap().len();
            assert_eq!(ended.summary.unwrap().bytes, bytes);
            assert!(bytes <= limit && bytes > limit / 8 * 7, "{bytes} bytes of {limit}");
            let reader = Reader::open(&path).unwrap();
            assert_eq!(Condition::of(&reader, reader.damage()), Condition::Whole);
            let mut raw = Vec::new();
            let closing = reader.blocks_of(BlockKind::MANIFEST).last().unwrap();
            reader.read_block(closing, &mut raw).unwrap();
            let closing = decode_maps::<Manifest>(&raw).unwrap().rows.pop().unwrap().1;
            assert_eq!(closing.end, "max-size");
            // Events up to there and none later: all that was numbered is in the file.
            let rows: u64 = reader.blocks_of(BlockKind::DATA).map(|entry| u64::from(entry.rows)).sum();
            assert_eq!(closing.ended_ns, 1000 + rows - 1);
            assert_eq!(written.rows_not_written.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_failed_write_back_ends_the_recording_and_is_told_once() {
        let failing = || Err(io::Error::from_raw_os_error(5));
        let syncer = Syncer::every(Duration::from_millis(1), PathBuf::from("x.kfr.partial"), failing);
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = loop {
            if let Some(error) = syncer.failure() {
                break error;
            }
            assert!(Instant::now() < deadline, "nothing was told");
            thread::sleep(Duration::from_millis(1));
        };
        assert!(error.to_string().contains("x.kfr.partial"), "{error}");
        assert!(syncer.finish().is_none());
        // Also when it comes after the last batch.
        let syncer = Syncer::every(Duration::ZERO, PathBuf::new(), failing);
        while !syncer.thread.as_ref().unwrap().is_finished() {
            thread::yield_now();
        }
        assert!(matches!(syncer.finish(), Some(WriteError::NotSynced { .. })));
    }
}
