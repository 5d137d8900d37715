//! The thread that encodes, compresses and writes, so that the drain never waits for a disk unless the memory that the
//! recorder may use is full; then the ring fills, and the probes keep less payload.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kfr_bundle::events::{ProcessEvent, SocketEvent, StateEvent, TcpEvent};
use kfr_bundle::facts::{HostSample, LedgerFact, Manifest, ProcessFact};
use kfr_bundle::rows::Anchor;
use kfr_bundle::{Block, BlockKind, DataColumns, MapWriter, Row, Summary, WriteError, Writer, encode_rows};
use serde::Serialize;

/// How often the file's data is forced to disk.
const SYNC_EVERY: Duration = Duration::from_secs(3);
/// Most rows of one block of named maps.
const MAPS_A_BLOCK: usize = 4096;

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
    /// A host sample.
    Host(Box<HostSample>),
    /// A moment on several clocks.
    Anchor(Anchor),
    /// The recorder's counters.
    Ledger(LedgerFact),
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
}

/// Where batches are handed in; may be cloned for other threads.
#[derive(Clone)]
pub struct Handle {
    sender: SyncSender<Batch>,
    empty: Arc<std::sync::Mutex<Receiver<Box<DataColumns>>>>,
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
    /// Starts the thread. At most `waiting` batches wait for it. The recording ends with the batch of events that
    /// makes the file reach `max_bytes`: later events are left out, whether they were waiting then or not.
    pub fn start(writer: Writer, waiting: usize, max_bytes: u64) -> (Self, Handle) {
        let (sender, receiver) = mpsc::sync_channel(waiting);
        let (recycle, empty) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let handle = Handle { sender, empty: Arc::new(std::sync::Mutex::new(empty)), progress: progress.clone() };
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
    // Event time of the last event before the file was full.
    let mut last_ns = 0;
    for mut batch in receiver {
        if failure.is_some() {
            // The file is closed; what still comes is counted.
            progress.rows_not_written.fetch_add(rows_of(&batch), Ordering::Relaxed);
            continue;
        }
        let full = writer.bytes_written() >= max_bytes;
        if let Some(time_ns) = last_event_ns(&batch) {
            if full {
                continue;
            }
            last_ns = last_ns.max(time_ns);
        }
        if let Batch::Manifest(manifest) = &mut batch
            && full
            && manifest.ended_ns > 0
            && last_ns > 0
        {
            manifest.ended_ns = last_ns;
        }
        let rows = rows_of(&batch);
        match write(&mut writer, batch, &mut raw, recycle) {
            Ok(()) => {
                progress.rows.fetch_add(rows, Ordering::Relaxed);
                progress.bytes.store(writer.bytes_written(), Ordering::Relaxed);
            }
            Err(error) => {
                progress.rows_not_written.fetch_add(rows, Ordering::Relaxed);
                progress.failed.store(1, Ordering::Relaxed);
                failure = Some(error);
            }
        }
    }
    drop(syncer);
    let summary = if failure.is_some() { writer.finish_after_error() } else { writer.finish() };
    (summary, failure)
}

/// Time of the last event of a batch; `None` for batches of other things.
fn last_event_ns(batch: &Batch) -> Option<u64> {
    match batch {
        Batch::Data(columns) => columns.time_bounds().map(|(_, last)| last),
        Batch::Sockets(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::States(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::Tcp(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::ProcessEvents(rows) => rows.iter().map(|row| row.header.time_ns).max(),
        Batch::Processes(..) | Batch::Host(_) | Batch::Anchor(_) | Batch::Ledger(_) | Batch::Manifest(_) => None,
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
        Batch::Host(_) | Batch::Anchor(_) | Batch::Ledger(_) | Batch::Manifest(_) => 1,
    };
    rows as u64
}

fn write(
    writer: &mut Writer,
    batch: Batch,
    raw: &mut Vec<u8>,
    recycle: &Sender<Box<DataColumns>>,
) -> Result<(), WriteError> {
    match batch {
        Batch::Data(mut columns) => {
            raw.clear();
            columns.encode(raw);
            let (first, last) = columns.time_bounds().unwrap_or_default();
            let rows = u32::try_from(columns.len()).unwrap_or(u32::MAX);
            let block = Block::new(BlockKind::DATA, rows).with_times(first, last);
            columns.clear();
            // Nobody takes it back after the end.
            let _ = recycle.send(columns);
            writer.write_block(&block, raw)?;
        }
        Batch::Sockets(rows) => write_rows(writer, BlockKind::SOCKETS, &rows, |row| row.header.time_ns)?,
        Batch::States(rows) => write_rows(writer, BlockKind::STATES, &rows, |row| row.header.time_ns)?,
        Batch::Tcp(rows) => write_rows(writer, BlockKind::TCP, &rows, |row| row.header.time_ns)?,
        Batch::ProcessEvents(rows) => write_rows(writer, BlockKind::PROCESS_EVENTS, &rows, |row| row.header.time_ns)?,
        Batch::Anchor(row) => write_rows(writer, BlockKind::ANCHORS, &[row], |row| row.boottime_ns)?,
        Batch::Processes(rows, all) => write_maps(writer, BlockKind::PROCESSES, &rows, |row| row.time_ns, all)?,
        Batch::Host(row) => write_maps(writer, BlockKind::HOST, &[*row], |row| row.time_ns, false)?,
        Batch::Ledger(row) => write_maps(writer, BlockKind::LEDGER, &[row], |row| row.time_ns, false)?,
        Batch::Manifest(row) => {
            write_maps(writer, BlockKind::MANIFEST, &[*row], |row| row.ended_ns.max(row.started_ns), true)?;
        }
    }
    Ok(())
}

fn bounds<T>(rows: &[T], time: impl Fn(&T) -> u64) -> (u64, u64) {
    rows.iter().map(time).fold((u64::MAX, 0), |(first, last), time| (first.min(time), last.max(time)))
}

fn write_rows<R: Row>(
    writer: &mut Writer,
    kind: BlockKind,
    rows: &[R],
    time: impl Fn(&R) -> u64,
) -> Result<(), WriteError> {
    for rows in rows.chunks(kfr_bundle::MAX_ROWS as usize / 4) {
        let (first, last) = bounds(rows, &time);
        let block = Block::new(kind, u32::try_from(rows.len()).unwrap_or(u32::MAX)).with_times(first, last);
        writer.write_block(&block, &encode_rows(rows))?;
    }
    Ok(())
}

fn write_maps<T: Serialize>(
    writer: &mut Writer,
    kind: BlockKind,
    rows: &[T],
    time: impl Fn(&T) -> u64,
    keyframe: bool,
) -> Result<(), WriteError> {
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
        writer.write_block(&if keyframe { block.as_keyframe() } else { block }, &maps.encode())?;
    }
    Ok(())
}

/// Forces the file's data to disk every few seconds, on a thread of its own: a slow disk then delays nothing else.
struct Syncer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    fn start(writer: &Writer) -> Self {
        let Ok(Some(file)) = writer.sync_handle() else { return Self { stop: None, thread: None } };
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let mut next = Instant::now() + SYNC_EVERY;
            while let Err(mpsc::RecvTimeoutError::Timeout) =
                stopped.recv_timeout(next.saturating_duration_since(Instant::now()))
            {
                // The final fsync reports what fails here.
                let _ = file.sync_data();
                next = Instant::now() + SYNC_EVERY;
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can't panic; a failed join would lose nothing.
            let _ = thread.join();
        }
    }
}
