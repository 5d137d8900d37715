//! Which lines of a container are kept, and what is counted of the others.

use std::time::Duration;

use kfr_bundle::logs::{Level, LogCounts, LogFact, MAX_LINE_BYTES, Reading, line_text};
use kfr_bundle::secrets::Masker;

use super::file::Raw;
use super::record::{self, Record, Stream};
use super::tree::Container;
use super::{Bounds, Lines};

/// What looking at a line costs beside its bytes, bytes.
const LINE_COST: u64 = 64;

/// Something that is used up and comes back with time, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    left: u64,
    most: u64,
    a_second: u64,
}

impl Allowance {
    /// A full one, of `most` bytes, of which `a_second` come back.
    pub fn new(most: u64, a_second: u64) -> Self {
        Self { left: most, most, a_second }
    }

    /// Some time has passed.
    pub fn refill(&mut self, passed: Duration) {
        let back = u128::from(self.a_second) * passed.as_nanos() / 1_000_000_000;
        self.left = self.left.saturating_add(u64::try_from(back).unwrap_or(u64::MAX)).min(self.most);
    }
}

/// What all containers share.
#[derive(Debug)]
pub struct Shared {
    /// Which lines are kept.
    pub lines: Lines,
    /// How much may be kept.
    pub bounds: Bounds,
    /// Bytes that may be looked at now.
    pub looking: Allowance,
    /// Bytes of text kept.
    pub kept_bytes: u64,
    /// The capture's start and end on the wall clock, ns.
    pub window: (u64, u64),
    /// Event time now, ns.
    pub now_ns: u64,
    /// Lines to be handed over.
    pub rows: Vec<LogFact>,
    /// Their text, bytes.
    pub rows_bytes: usize,
}

/// A container at work.
#[derive(Debug)]
pub struct Kept {
    /// What became of its lines.
    pub counts: LogCounts,
    /// The counts have changed since they were handed over.
    pub changed: bool,
    /// Bytes of it that may be looked at now.
    pub looking: Allowance,
    restart: u32,
    streams: [Flow; 2],
}

/// A stream of a container.
#[derive(Debug, Default)]
struct Flow {
    /// The beginning of a line that goes on, and when it began.
    begun: Vec<u8>,
    begun_ns: u64,
    reading: Reading,
    masker: Masker,
}

impl Kept {
    /// Nothing was seen of it yet.
    pub fn new(container: &Container, looking: Allowance) -> Self {
        let Container { namespace, pod, uid, name } = container.clone();
        let counts = LogCounts { namespace, pod, uid, container: name, ..LogCounts::default() };
        Self { counts, changed: false, looking, restart: 0, streams: Default::default() }
    }

    /// Takes a record of one of its files.
    pub fn take(&mut self, restart: u32, raw: &Raw<'_>, shared: &mut Shared) {
        if restart != self.restart {
            (self.restart, self.streams) = (restart, Default::default());
        }
        let Some(record) = record::parse(raw.bytes) else {
            // What was cut is no whole record of Docker's.
            if !raw.old {
                self.changed = true;
                self.counts.bytes += raw.size();
                self.counts.lines_malformed += 1;
            }
            return;
        };
        let (from_ns, to_ns) = shared.window;
        // Whatever the clock was set to: what was written since the file was seen belongs to the capture.
        if raw.old && record.wall_ns < from_ns || record.wall_ns > to_ns {
            return;
        }
        self.changed = true;
        self.counts.bytes += raw.size();
        let Record { wall_ns, stream, partial, text } = record;
        let Some(flow) = self.streams.get_mut(stream as usize) else { return };
        if flow.begun.is_empty() {
            flow.begun_ns = wall_ns;
        }
        if partial && !raw.cut {
            // One byte more than is kept tells that it was longer.
            let room = (MAX_LINE_BYTES + 1).saturating_sub(flow.begun.len());
            flow.begun.extend(text.iter().take(room));
            return;
        }
        if flow.begun.is_empty() {
            self.line(stream, wall_ns, &text, raw.cut, shared);
        } else {
            let mut whole = std::mem::take(&mut flow.begun);
            whole.extend(text.iter().take((MAX_LINE_BYTES + 1).saturating_sub(whole.len())));
            let begun_ns = flow.begun_ns;
            self.line(stream, begun_ns, &whole, raw.cut, shared);
        }
    }

    /// The container writes no more: what has begun is all there is of a line.
    pub fn end(&mut self, shared: &mut Shared) {
        for stream in [Stream::Out, Stream::Err] {
            let Some(flow) = self.streams.get_mut(stream as usize) else { continue };
            let begun = std::mem::take(&mut flow.begun);
            if !begun.is_empty() {
                let begun_ns = flow.begun_ns;
                self.line(stream, begun_ns, &begun, true, shared);
            }
        }
    }

    fn line(&mut self, stream: Stream, wall_ns: u64, bytes: &[u8], unended: bool, shared: &mut Shared) {
        let counts = &mut self.counts;
        counts.lines += 1;
        let Some(flow) = self.streams.get_mut(stream as usize) else { return };
        let cost = bytes.len().min(MAX_LINE_BYTES) as u64 + LINE_COST;
        if self.looking.left < cost || shared.looking.left < cost {
            counts.lines_dropped += 1;
            // What comes behind it may be a secret's rest.
            if memchr::memmem::find(bytes, b"-----BEGIN ").is_some() {
                flow.masker.mask(&line_text(bytes).0);
            }
            return;
        }
        self.looking.left -= cost;
        shared.looking.left -= cost;
        let (text, cut) = line_text(bytes);
        let read = flow.reading.next(&text);
        if shared.lines == Lines::Errors && !read.level.is_some_and(Level::is_trouble) {
            return;
        }
        let text = flow.masker.mask(&text);
        let size = text.len() as u64;
        let room = shared.bounds.container_bytes.saturating_sub(counts.bytes_kept);
        if size > room.min(shared.bounds.total_bytes.saturating_sub(shared.kept_bytes)) {
            counts.lines_dropped += 1;
            return;
        }
        counts.lines_kept += 1;
        counts.bytes_kept += size;
        counts.lines_cut += u64::from(cut || unended);
        shared.kept_bytes += size;
        shared.rows_bytes += text.len();
        shared.rows.push(LogFact {
            time_ns: shared.now_ns,
            wall_ns,
            namespace: counts.namespace.clone(),
            pod: counts.pod.clone(),
            uid: counts.uid.clone(),
            container: counts.container.clone(),
            restart: self.restart,
            stream: stream.name().to_string(),
            text,
            cut: cut || unended,
        });
    }
}
