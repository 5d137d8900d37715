//! Events into blocks of a bundle.

use kfr_bundle::events::{
    DIRECTION_RECEIVED, DIRECTION_SENT, DataEvent, EventHeader, KIND_DATA, KIND_SOCKET, KIND_STATE, KIND_TCP,
    MISSING_LIMIT, MISSING_NOTHING, SocketEvent, StateEvent, TcpEvent,
};
use kfr_bundle::rows::Anchor;
use kfr_bundle::{Block, BlockKind, DataColumns, MAX_ROWS, MapWriter, Row, WriteError, Writer, encode_rows};
use serde::Serialize;

/// Size of the events at which a block is written, as a recording does it.
const BLOCK_BYTES: usize = 1 << 20;
/// Rows of the other kinds that are collected.
const FACT_ROWS: usize = 8192;

/// Bytes that moved, as the socket's own side sees it.
#[derive(Debug, Clone, Copy)]
pub struct Moved<'a> {
    /// Socket.
    pub socket: u64,
    /// Sent by the socket's own side.
    pub sent: bool,
    /// One of the `OFFSET_` constants.
    pub offset_kind: u8,
    /// Offset of the first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
    /// What was captured of them.
    pub payload: &'a [u8],
    /// When they were in order.
    pub time_ns: u64,
}

/// Collects events and writes blocks.
pub struct Recorder {
    writer: Writer,
    data: DataColumns,
    sockets: Vec<SocketEvent>,
    states: Vec<StateEvent>,
    tcp: Vec<TcpEvent>,
    raw: Vec<u8>,
    /// Number of the next event. They are all of one imaginary CPU, so that a lost block shows as missing numbers.
    next: u64,
    /// The error that ended writing: everything after it is lost.
    failure: Option<WriteError>,
}

impl Recorder {
    /// Records into `writer`.
    pub fn new(writer: Writer) -> Self {
        Self {
            writer,
            data: DataColumns::new(),
            sockets: Vec::new(),
            states: Vec::new(),
            tcp: Vec::new(),
            raw: Vec::new(),
            next: 0,
            failure: None,
        }
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.next
    }

    /// Whether the file could not be written.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    fn header(&mut self, kind: u16, time_ns: u64) -> EventHeader {
        let sequence = self.next;
        self.next += 1;
        EventHeader { time_ns, sequence, kind, ..EventHeader::default() }
    }

    /// Bytes that moved.
    pub fn moved(&mut self, moved: &Moved<'_>) {
        let header = self.header(KIND_DATA, moved.time_ns);
        let payload = moved.payload.get(..moved.payload.len().min(moved.length as usize)).unwrap_or_default();
        let event = DataEvent {
            header,
            socket: moved.socket,
            offset: moved.offset,
            length: moved.length,
            kept: payload.len() as u32,
            age_ns: 0,
            direction: if moved.sent { DIRECTION_SENT } else { DIRECTION_RECEIVED },
            offset_kind: moved.offset_kind,
            missing: if payload.len() < moved.length as usize { MISSING_LIMIT } else { MISSING_NOTHING },
            reserved: 0,
        };
        self.data.push(&event, payload);
        if self.data.raw_bytes() >= BLOCK_BYTES || self.data.len() >= MAX_ROWS as usize / 4 {
            self.flush();
        }
    }

    /// A socket; its header is filled in.
    pub fn socket(&mut self, event: &SocketEvent, time_ns: u64) {
        let header = self.header(KIND_SOCKET, time_ns);
        self.sockets.push(SocketEvent { header, ..*event });
        self.flush_facts();
    }

    /// A state change; its header is filled in.
    pub fn state(&mut self, event: &StateEvent, time_ns: u64) {
        let header = self.header(KIND_STATE, time_ns);
        self.states.push(StateEvent { header, ..*event });
        self.flush_facts();
    }

    /// A retransmission or reset; its header is filled in.
    pub fn tcp(&mut self, event: &TcpEvent, time_ns: u64) {
        let header = self.header(KIND_TCP, time_ns);
        self.tcp.push(TcpEvent { header, ..*event });
        self.flush_facts();
    }

    fn flush_facts(&mut self) {
        if self.sockets.len() + self.states.len() + self.tcp.len() >= FACT_ROWS {
            self.flush();
        }
    }

    /// Writes everything collected.
    pub fn flush(&mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        self.rows(BlockKind::SOCKETS, &sockets, |row| row.header.time_ns);
        let states = std::mem::take(&mut self.states);
        self.rows(BlockKind::STATES, &states, |row| row.header.time_ns);
        let tcp = std::mem::take(&mut self.tcp);
        self.rows(BlockKind::TCP, &tcp, |row| row.header.time_ns);
        if let Some(times) = self.data.time_bounds() {
            let mut raw = std::mem::take(&mut self.raw);
            raw.clear();
            self.data.encode(&mut raw);
            let rows = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
            self.data.clear();
            self.block(&Block::new(BlockKind::DATA, rows).with_times(times.0, times.1), &raw);
            self.raw = raw;
        }
    }

    /// The clock of event times is the wall clock.
    pub fn anchors(&mut self, times_ns: &[u64]) {
        let anchor = |time_ns: &u64| Anchor { boottime_ns: *time_ns, realtime_ns: *time_ns, ..Anchor::default() };
        let rows: Vec<Anchor> = times_ns.iter().map(anchor).collect();
        self.rows(BlockKind::ANCHORS, &rows, |row| row.boottime_ns);
    }

    /// A row of a block of maps.
    pub fn map<T: Serialize>(&mut self, kind: BlockKind, row: &T, time_ns: u64) {
        let mut maps = MapWriter::new();
        // A plain struct of numbers and strings: nothing that MessagePack can't hold.
        if maps.push(row).is_ok() {
            let block = Block::new(kind, maps.len()).with_times(time_ns, time_ns);
            let block = if kind == BlockKind::MANIFEST { block.as_keyframe() } else { block };
            self.block(&block, &maps.encode());
        }
    }

    /// Rows of blocks of maps, in order of time.
    pub fn maps<T: Serialize>(&mut self, kind: BlockKind, rows: &[T], time_ns: impl Fn(&T) -> u64) {
        let mut maps = MapWriter::new();
        let mut first_ns = None;
        for (number, row) in rows.iter().enumerate() {
            // Structs of text and numbers, and JSON values of bounded depth.
            let _what_messagepack_holds = maps.push(row);
            let began_ns = *first_ns.get_or_insert(time_ns(row));
            if maps.raw_bytes() >= BLOCK_BYTES || number + 1 == rows.len() {
                let block = Block::new(kind, maps.len()).with_times(began_ns, time_ns(row));
                self.block(&block, &maps.encode());
                maps.clear();
                first_ns = None;
            }
        }
    }

    fn rows<R: Row>(&mut self, kind: BlockKind, rows: &[R], time: impl Fn(&R) -> u64) {
        if rows.is_empty() {
            return;
        }
        let bounds = rows.iter().map(time).fold((u64::MAX, 0), |(low, high), time| (low.min(time), high.max(time)));
        let block = Block::new(kind, u32::try_from(rows.len()).unwrap_or(u32::MAX)).with_times(bounds.0, bounds.1);
        self.block(&block, &encode_rows(rows));
    }

    fn block(&mut self, block: &Block, raw: &[u8]) {
        if self.failure.is_none()
            && let Err(error) = self.writer.write_block(block, raw)
        {
            self.failure = Some(error);
        }
    }

    /// Writes the footer and gives the file its name. After an error the partial file is removed.
    ///
    /// # Errors
    /// The first error of writing.
    pub fn finish(mut self) -> Result<kfr_bundle::Summary, WriteError> {
        self.flush();
        let finished = match self.failure.take() {
            Some(error) => Err(error),
            None => self.writer.finish(),
        };
        if finished.is_err() {
            self.abandon();
        }
        finished
    }

    /// Removes the partial file: half an import is worth nothing, since the capture is still there.
    pub fn abandon(self) {
        if let Some(partial) = self.writer.abandon() {
            let _best_effort = std::fs::remove_file(partial);
        }
    }
}
