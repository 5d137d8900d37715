//! The block of bytes moved on sockets ([`crate::BlockKind::DATA`]): the hot one, so its columns are predicted.
//!
//! Rows of one socket, direction, process and offset kind form a *flow*. The block has a table of its flows, in the
//! order in which they first appear, and each row names its flow by number. Differences are then taken within the flow
//! where that predicts better: a byte's offset follows from the row before, a thread seldom changes. Payload lies in
//! one arena, ordered by flow, so that similar messages are near each other for the compressor.

use crate::error::DecodeError;
use crate::events::{DataEvent, DatagramEvent, EventHeader, KIND_DATA, KIND_DATAGRAM, OFFSET_DATAGRAM};
use crate::msgpack::ColumnMap;
use crate::packing::{Cell, for_each_varint, put_varint, unzigzag, zigzag};
use crate::rows::{Value, count_rows, decode_row_numbers, each_column, encode_row_numbers, put_cells};
use rustc_hash::FxHashMap;

/// What the rows of one flow share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Socket, as in [`DataEvent`].
    pub socket: u64,
    /// Process, as in [`EventHeader`].
    pub process: u32,
    /// `DIRECTION_SENT` or `DIRECTION_RECEIVED`.
    pub direction: u8,
    /// One of the `OFFSET_` constants.
    pub offset_kind: u8,
}

/// Where an unconnected datagram came from or went to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Address family; 0 where the address could not be read.
    pub family: u16,
    /// IPv4: first 4 bytes.
    pub address: [u8; 16],
    /// Port, host byte order.
    pub port: u16,
}

/// Collects data events and writes them as the raw content of a block.
#[derive(Debug, Default)]
pub struct DataColumns {
    events: Vec<DataEvent>,
    /// Number of each row's flow, and the flows.
    flow_of: Vec<u32>,
    flows: Vec<Flow>,
    flow_numbers: FxHashMap<Flow, u32>,
    /// Number of each row's peer plus one, 0 for none; empty until the first datagram.
    peer_of: Vec<u32>,
    peers: Vec<Peer>,
    peer_numbers: FxHashMap<Peer, u32>,
    /// Row numbers, where they don't simply count on; empty or one each row.
    row_numbers: Vec<u32>,
    /// Payload in row order.
    arena: Vec<u8>,
    min_time_ns: u64,
    max_time_ns: u64,
}

impl DataColumns {
    /// An empty block with room for about 1 MiB.
    pub fn new() -> Self {
        Self { arena: Vec::with_capacity(1 << 20), events: Vec::with_capacity(1 << 13), ..Self::default() }
    }

    /// Appends an event. `payload` is what was kept of it; its length replaces `event.kept`.
    #[inline]
    pub fn push(&mut self, event: &DataEvent, payload: &[u8]) {
        self.push_row(event, payload);
        if !self.peer_of.is_empty() {
            self.peer_of.push(0);
        }
    }

    /// Appends a datagram with its peer. `payload` is what was kept of it; its length replaces `event.data.kept`.
    pub fn push_datagram(&mut self, event: &DatagramEvent, payload: &[u8]) {
        let peer = Peer { family: event.peer_family, address: event.peer_address, port: event.peer_port };
        let next = self.peers.len() as u32;
        let number = *self.peer_numbers.entry(peer).or_insert(next);
        if number == next {
            self.peers.push(peer);
        }
        self.peer_of.resize(self.events.len(), 0);
        self.peer_of.push(number + 1);
        self.push_row(&event.data, payload);
    }

    /// Appends a row that was read from a block, under the number that it had there: for blocks cut from others. Use
    /// it for all rows of a block, with `first_row` 0 in the block's header, or for none.
    pub fn push_decoded(&mut self, row: &DataRow<'_>) {
        self.row_numbers.push(row.row_number);
        match row.peer {
            None => self.push(&row.event(), row.payload),
            Some(peer) => {
                let mut event = DatagramEvent { data: row.event(), ..DatagramEvent::default() };
                (event.peer_address, event.peer_port, event.peer_family) = (peer.address, peer.port, peer.family);
                self.push_datagram(&event, row.payload);
            }
        }
    }

    #[inline]
    fn push_row(&mut self, event: &DataEvent, payload: &[u8]) {
        let time = event.header.time_ns;
        if self.events.is_empty() {
            (self.min_time_ns, self.max_time_ns) = (time, time);
        } else {
            self.min_time_ns = self.min_time_ns.min(time);
            self.max_time_ns = self.max_time_ns.max(time);
        }
        let flow = Flow {
            socket: event.socket,
            process: event.header.process,
            direction: event.direction,
            offset_kind: event.offset_kind,
        };
        let next = self.flows.len() as u32;
        let number = *self.flow_numbers.entry(flow).or_insert(next);
        if number == next {
            self.flows.push(flow);
        }
        self.flow_of.push(number);
        self.events.push(DataEvent { kept: payload.len() as u32, ..*event });
        self.arena.extend_from_slice(payload);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Size of the events as the kernel wrote them, payload included: what decides when to seal a block.
    pub fn raw_bytes(&self) -> usize {
        self.events.len() * size_of::<DataEvent>() + self.arena.len()
    }

    /// Earliest and latest event time, ns; `None` without rows.
    pub fn time_bounds(&self) -> Option<(u64, u64)> {
        (!self.is_empty()).then_some((self.min_time_ns, self.max_time_ns))
    }

    /// Appends the raw content of the block to `out`. The rows stay until [`Self::clear`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Enough for nearly any block, so that columns don't move while they grow.
        out.reserve(self.arena.len() + self.events.len() * 24 + 4096);
        let mut map = ColumnMap::new(out);
        map.uint("rows", self.events.len() as u64);
        map.uint("flows", self.flows.len() as u64);
        map.uint("peers", self.peers.len() as u64);
        let events = self.events.as_slice();
        put_cells(&mut map, "time_ns", events.iter().map(|event| event.header.time_ns));
        put_cells(&mut map, "flow_socket", self.flows.iter().map(|flow| flow.socket));
        put_cells(&mut map, "flow_process", self.flows.iter().map(|flow| flow.process));
        put_cells(&mut map, "flow_direction", self.flows.iter().map(|flow| flow.direction));
        put_cells(&mut map, "flow_offset_kind", self.flows.iter().map(|flow| flow.offset_kind));
        put_plain(&mut map, "flow", self.flow_of.iter().copied());
        let flow_of = || events.iter().zip(&self.flow_of);
        map.column("sequence", |out| {
            put_within(out, Vec::new(), events.iter().map(|event| (u32::from(event.header.cpu), event.header.sequence)))
        });
        map.column("cpu", |out| {
            let cpus = flow_of().map(|(event, flow)| (*flow, u64::from(event.header.cpu)));
            put_within(out, vec![0; self.flows.len()], cpus)
        });
        map.column("thread", |out| {
            let starts = self.flows.iter().map(|flow| u64::from(flow.process)).collect();
            put_within(out, starts, flow_of().map(|(event, flow)| (*flow, u64::from(event.header.thread))))
        });
        map.column("offset", |out| self.put_offsets(out));
        put_plain(&mut map, "length", events.iter().map(|event| event.length));
        put_plain(&mut map, "cut", events.iter().map(|event| event.length.wrapping_sub(event.kept)));
        put_plain(&mut map, "age_ns", events.iter().map(|event| event.age_ns));
        put_cells(&mut map, "missing", events.iter().map(|event| event.missing));
        if !self.peers.is_empty() {
            put_plain(&mut map, "peer", self.peer_of.iter().copied());
            put_cells(&mut map, "peer_family", self.peers.iter().map(|peer| peer.family));
            put_cells(&mut map, "peer_address", self.peers.iter().map(|peer| peer.address));
            put_cells(&mut map, "peer_port", self.peers.iter().map(|peer| peer.port));
        }
        map.column("row", |out| encode_row_numbers(&self.row_numbers, self.row_numbers.len(), 0, out));
        map.column("payload", |out| self.put_payload(out));
        map.finish();
    }

    /// Each row's offset as the difference from where the row before in its flow ended.
    fn put_offsets(&self, out: &mut Vec<u8>) -> bool {
        let mut expected = vec![0u64; self.flows.len()];
        let mut any = false;
        for (event, flow) in self.events.iter().zip(&self.flow_of) {
            let Some(expected) = expected.get_mut(*flow as usize) else { continue };
            let difference = event.offset.wrapping_sub(*expected);
            any |= difference != 0;
            put_varint(out, zigzag(difference));
            *expected = event.offset.wrapping_add(offset_step(event.offset_kind, event.length));
        }
        any
    }

    /// The arena, ordered by flow and then by row.
    fn put_payload(&self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.resize(start + self.arena.len(), 0);
        let mut rest = out.get_mut(start..).unwrap_or_default();
        let mut bytes_of = vec![0usize; self.flows.len()];
        for (event, flow) in self.events.iter().zip(&self.flow_of) {
            if let Some(bytes) = bytes_of.get_mut(*flow as usize) {
                *bytes += event.kept as usize;
            }
        }
        let mut places: Vec<&mut [u8]> = Vec::with_capacity(bytes_of.len());
        for bytes in bytes_of {
            let Some((place, after)) = rest.split_at_mut_checked(bytes) else { break };
            places.push(place);
            rest = after;
        }
        let mut arena = self.arena.as_slice();
        for (event, flow) in self.events.iter().zip(&self.flow_of) {
            let Some((payload, after)) = arena.split_at_checked(event.kept as usize) else { break };
            arena = after;
            let Some(place) = places.get_mut(*flow as usize) else { break };
            let Some((to, left)) = std::mem::take(place).split_at_mut_checked(payload.len()) else { break };
            to.copy_from_slice(payload);
            *place = left;
        }
        !self.arena.is_empty()
    }

    /// Forgets every row but keeps the memory for the next block.
    pub fn clear(&mut self) {
        self.events.clear();
        self.flow_of.clear();
        self.flows.clear();
        self.flow_numbers.clear();
        self.peer_of.clear();
        self.peers.clear();
        self.peer_numbers.clear();
        self.row_numbers.clear();
        self.arena.clear();
    }
}

/// How far a row moves its flow's offset.
fn offset_step(offset_kind: u8, length: u32) -> u64 {
    if offset_kind == OFFSET_DATAGRAM { 1 } else { u64::from(length) }
}

/// A column of plain varints; left out where all are zero.
fn put_plain(map: &mut ColumnMap<'_>, name: &str, values: impl Iterator<Item = u32>) {
    map.column(name, |out| {
        let mut any = false;
        for value in values {
            any |= value != 0;
            put_varint(out, u64::from(value));
        }
        any
    });
}

/// Differences from the last value of the same group; `last` holds the groups' starts (0 beyond its end).
fn put_within(out: &mut Vec<u8>, mut last: Vec<u64>, values: impl Iterator<Item = (u32, u64)>) -> bool {
    let mut any = false;
    for (group, value) in values {
        let group = group as usize;
        if group >= last.len() {
            last.resize(group + 1, 0);
        }
        let Some(last) = last.get_mut(group) else { continue };
        let difference = value.wrapping_sub(*last);
        any |= difference != 0;
        put_varint(out, zigzag(difference));
        *last = value;
    }
    any
}

/// The decoded rows of a data block, column by column. Every public vector but `flows` has one value a row.
#[derive(Debug, Default)]
pub struct DataBlock {
    /// Event time, ns on the bundle's clock.
    pub time_ns: Vec<u64>,
    /// Number of the event on its CPU.
    pub sequence: Vec<u64>,
    /// CPU.
    pub cpu: Vec<u16>,
    /// Thread.
    pub thread: Vec<u32>,
    /// Number of the row's flow in `flows`; always valid.
    pub flow: Vec<u32>,
    /// Stream offset of the first byte.
    pub offset: Vec<u64>,
    /// Bytes that the call moved.
    pub length: Vec<u32>,
    /// Bytes of payload that the block holds.
    pub kept: Vec<u32>,
    /// Ns on the way, see [`DataEvent::age_ns`].
    pub age_ns: Vec<u32>,
    /// Why `kept` is less than `length`.
    pub missing: Vec<u8>,
    /// The flows that rows belong to.
    pub flows: Vec<Flow>,
    /// Number of the peer plus one; empty if no row has one.
    peer_of: Vec<u32>,
    peers: Vec<Peer>,
    row_numbers: Option<Vec<u32>>,
    first_row: u32,
    payload_start: Vec<u32>,
    /// The decompressed block, and where in it the arena begins.
    raw: Vec<u8>,
    arena_start: usize,
}

/// One row of a [`DataBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRow<'a> {
    /// Event time, ns on the bundle's clock.
    pub time_ns: u64,
    /// Number of the event on its CPU.
    pub sequence: u64,
    /// CPU.
    pub cpu: u16,
    /// Thread.
    pub thread: u32,
    /// Process.
    pub process: u32,
    /// Socket.
    pub socket: u64,
    /// Stream offset of the first byte.
    pub offset: u64,
    /// Bytes that the call moved.
    pub length: u32,
    /// Ns on the way, see [`DataEvent::age_ns`].
    pub age_ns: u32,
    /// `DIRECTION_SENT` or `DIRECTION_RECEIVED`.
    pub direction: u8,
    /// One of the `OFFSET_` constants.
    pub offset_kind: u8,
    /// Why `payload` is shorter than `length`.
    pub missing: u8,
    /// Number of the row's flow in [`DataBlock::flows`].
    pub flow: u32,
    /// Number of the row in its address.
    pub row_number: u32,
    /// The other end of an unconnected datagram.
    pub peer: Option<Peer>,
    /// What was kept.
    pub payload: &'a [u8],
}

impl DataRow<'_> {
    /// The event as the kernel side wrote it.
    pub fn event(&self) -> DataEvent {
        DataEvent {
            header: EventHeader {
                time_ns: self.time_ns,
                sequence: self.sequence,
                kind: if self.peer.is_some() { KIND_DATAGRAM } else { KIND_DATA },
                cpu: self.cpu,
                thread: self.thread,
                process: self.process,
                reserved: 0,
            },
            socket: self.socket,
            offset: self.offset,
            length: self.length,
            kept: self.payload.len() as u32,
            age_ns: self.age_ns,
            direction: self.direction,
            offset_kind: self.offset_kind,
            missing: self.missing,
            reserved: 0,
        }
    }
}

/// The columns of a data block as they stand in it.
#[derive(Default)]
struct RawColumns<'a> {
    flows: Option<u64>,
    peers: u64,
    time_ns: Option<&'a [u8]>,
    sequence: Option<&'a [u8]>,
    cpu: Option<&'a [u8]>,
    thread: Option<&'a [u8]>,
    flow: Option<&'a [u8]>,
    offset: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    cut: Option<&'a [u8]>,
    age_ns: Option<&'a [u8]>,
    missing: Option<&'a [u8]>,
    flow_socket: Option<&'a [u8]>,
    flow_process: Option<&'a [u8]>,
    flow_direction: Option<&'a [u8]>,
    flow_offset_kind: Option<&'a [u8]>,
    peer: Option<&'a [u8]>,
    peer_family: Option<&'a [u8]>,
    peer_address: Option<&'a [u8]>,
    peer_port: Option<&'a [u8]>,
    row: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
}

impl<'a> RawColumns<'a> {
    fn set(&mut self, name: &str, value: Value<'a>) {
        match value {
            Value::Uint(number) => match name {
                "flows" => self.flows = Some(number),
                "peers" => self.peers = number,
                _ => {}
            },
            Value::Bin(bytes) => {
                let column = match name {
                    "time_ns" => &mut self.time_ns,
                    "sequence" => &mut self.sequence,
                    "cpu" => &mut self.cpu,
                    "thread" => &mut self.thread,
                    "flow" => &mut self.flow,
                    "offset" => &mut self.offset,
                    "length" => &mut self.length,
                    "cut" => &mut self.cut,
                    "age_ns" => &mut self.age_ns,
                    "missing" => &mut self.missing,
                    "flow_socket" => &mut self.flow_socket,
                    "flow_process" => &mut self.flow_process,
                    "flow_direction" => &mut self.flow_direction,
                    "flow_offset_kind" => &mut self.flow_offset_kind,
                    "peer" => &mut self.peer,
                    "peer_family" => &mut self.peer_family,
                    "peer_address" => &mut self.peer_address,
                    "peer_port" => &mut self.peer_port,
                    "row" => &mut self.row,
                    "payload" => &mut self.payload,
                    _ => return,
                };
                *column = Some(bytes);
            }
        }
    }
}

fn malformed(column: &'static str) -> DecodeError {
    DecodeError::Column { column }
}

/// One value a row by [`Cell`]; zeros where the column is missing.
fn cells<C: Cell + Default>(column: Option<&[u8]>, rows: usize, name: &'static str) -> Result<Vec<C>, DecodeError> {
    let mut values = vec![C::default(); rows];
    match column {
        Some(bytes) => C::decode(bytes, rows, values.iter_mut()).map(|()| values).ok_or(malformed(name)),
        None => Ok(values),
    }
}

/// One plain varint a row; zeros where the column is missing.
fn plain(column: Option<&[u8]>, rows: usize, name: &'static str) -> Result<Vec<u32>, DecodeError> {
    let Some(bytes) = column else { return Ok(vec![0; rows]) };
    let mut values = Vec::with_capacity(rows);
    for_each_varint(bytes, rows, |value| {
        values.push(value as u32);
        value <= u64::from(u32::MAX)
    })
    .ok_or(malformed(name))?;
    Ok(values)
}

/// Differences from the last value of the same group, which starts from `last`; a missing column is all zero
/// differences.
fn within<T: TryFrom<u64>>(
    column: Option<&[u8]>,
    groups: &[u32],
    mut last: Vec<u64>,
    name: &'static str,
) -> Result<Vec<T>, DecodeError> {
    let mut values = Vec::with_capacity(groups.len());
    let mut groups = groups.iter();
    let rows = groups.len();
    let each = |difference: u64| {
        let Some(last) = groups.next().and_then(|group| last.get_mut(*group as usize)) else { return false };
        *last = last.wrapping_add(unzigzag(difference));
        let value = T::try_from(*last);
        let fits = value.is_ok();
        values.extend(value);
        fits
    };
    each_or_zero(column, rows, each).ok_or(malformed(name))?;
    Ok(values)
}

/// [`for_each_varint`], or as many zeros where the column is missing.
fn each_or_zero(column: Option<&[u8]>, rows: usize, mut each: impl FnMut(u64) -> bool) -> Option<()> {
    match column {
        Some(bytes) => for_each_varint(bytes, rows, each),
        None => (0..rows).all(|_| each(0)).then_some(()),
    }
}

impl DataBlock {
    /// Reads a block's decompressed content, and keeps it: payload isn't copied. `first_row` is the block header's.
    ///
    /// # Errors
    /// [`DecodeError`] if any column is malformed; then none of the block's rows can be used.
    pub fn decode(raw: Vec<u8>, first_row: u32) -> Result<Self, DecodeError> {
        let mut block = Self::decode_columns(&raw, first_row)?;
        block.raw = raw;
        Ok(block)
    }

    fn decode_columns(raw: &[u8], first_row: u32) -> Result<Self, DecodeError> {
        let rows = count_rows(raw, u64::from(crate::MAX_ROWS))?;
        let mut columns = RawColumns::default();
        let mut arena_start = 0;
        each_column(raw, |name, value| {
            columns.set(name, value);
            Ok(())
        })?;
        let payload = columns.payload.unwrap_or_default();
        if !payload.is_empty() {
            // Both slices belong to one buffer: the distance of their starts is the arena's place in it.
            arena_start = payload.as_ptr().addr() - raw.as_ptr().addr();
        }

        let flows = decode_flows(&columns, rows)?;
        let flow = plain(columns.flow, rows, "flow")?;
        if flow.iter().any(|flow| *flow as usize >= flows.len()) {
            return Err(malformed("flow"));
        }
        let starts = flows.iter().map(|flow| u64::from(flow.process)).collect();
        let thread = within(columns.thread, &flow, starts, "thread")?;
        let cpu: Vec<u16> = within(columns.cpu, &flow, vec![0; flows.len()], "cpu")?;
        let cpus: Vec<u32> = cpu.iter().map(|cpu| u32::from(*cpu)).collect();
        let last = vec![0; cpus.iter().max().map_or(0, |most| *most as usize + 1)];
        let sequence = within(columns.sequence, &cpus, last, "sequence")?;
        let length = plain(columns.length, rows, "length")?;
        let mut kept = plain(columns.cut, rows, "cut")?;
        for (kept, length) in kept.iter_mut().zip(&length) {
            *kept = length.wrapping_sub(*kept);
        }
        let payload_start = place_payload(&flow, &kept, flows.len(), payload.len()).ok_or(malformed("payload"))?;
        let offset = decode_offsets(columns.offset, &flow, &flows, &length)?;
        let peers = decode_peers(&columns, rows)?;
        let peer_of = match columns.peer {
            Some(_) => plain(columns.peer, rows, "peer")?,
            None => Vec::new(),
        };
        if peer_of.iter().any(|peer| *peer as usize > peers.len()) {
            return Err(malformed("peer"));
        }
        Ok(Self {
            time_ns: cells(columns.time_ns, rows, "time_ns")?,
            sequence,
            cpu,
            thread,
            flow,
            offset,
            length,
            kept,
            age_ns: plain(columns.age_ns, rows, "age_ns")?,
            missing: cells(columns.missing, rows, "missing")?,
            flows,
            peer_of,
            peers,
            row_numbers: columns.row.map(|bytes| decode_row_numbers(bytes, rows, first_row)).transpose()?,
            first_row,
            payload_start,
            raw: Vec::new(),
            arena_start,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.time_ns.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.time_ns.is_empty()
    }

    /// Number that row `index` has in its address.
    pub fn row_number(&self, index: usize) -> u32 {
        match &self.row_numbers {
            Some(numbers) => numbers.get(index).copied().unwrap_or_default(),
            None => self.first_row.wrapping_add(index as u32),
        }
    }

    /// Payload of row `index`; empty beyond the last row.
    #[inline]
    pub fn payload(&self, index: usize) -> &[u8] {
        let (Some(start), Some(kept)) = (self.payload_start.get(index), self.kept.get(index)) else { return &[] };
        let start = self.arena_start + *start as usize;
        self.raw.get(start..start + *kept as usize).unwrap_or_default()
    }

    /// The other end of a datagram; `None` for bytes on a connected socket.
    pub fn peer(&self, index: usize) -> Option<Peer> {
        let number = self.peer_of.get(index)?.checked_sub(1)?;
        self.peers.get(number as usize).copied()
    }

    /// The flow of row `index`: its socket, process, direction and offset kind.
    #[inline]
    pub fn flow_of(&self, index: usize) -> Option<&Flow> {
        self.flow.get(index).and_then(|flow| self.flows.get(*flow as usize))
    }

    /// Row `index`, `None` beyond the last row.
    #[inline]
    pub fn row(&self, index: usize) -> Option<DataRow<'_>> {
        let flow = self.flow_of(index)?;
        Some(DataRow {
            time_ns: *self.time_ns.get(index)?,
            sequence: *self.sequence.get(index)?,
            cpu: *self.cpu.get(index)?,
            thread: *self.thread.get(index)?,
            process: flow.process,
            socket: flow.socket,
            offset: *self.offset.get(index)?,
            length: *self.length.get(index)?,
            age_ns: *self.age_ns.get(index)?,
            direction: flow.direction,
            offset_kind: flow.offset_kind,
            missing: *self.missing.get(index)?,
            flow: *self.flow.get(index)?,
            row_number: self.row_number(index),
            peer: self.peer(index),
            payload: self.payload(index),
        })
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = DataRow<'_>> {
        Rows { block: self, next: 0 }
    }

    /// Gives the buffer back, to be used for the next block.
    pub fn into_buffer(self) -> Vec<u8> {
        self.raw
    }
}

struct Rows<'a> {
    block: &'a DataBlock,
    next: usize,
}

impl<'a> Iterator for Rows<'a> {
    type Item = DataRow<'a>;

    #[inline]
    fn next(&mut self) -> Option<DataRow<'a>> {
        let row = self.block.row(self.next)?;
        self.next += 1;
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.block.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Rows<'_> {}

/// The table of flows; a block that has none is of one flow whose fields are zero.
fn decode_flows(columns: &RawColumns<'_>, rows: usize) -> Result<Vec<Flow>, DecodeError> {
    let count = table_length(columns.flows.unwrap_or(rows.min(1) as u64), rows, "flows")?;
    let mut flows = vec![Flow::default(); count];
    if let Some(bytes) = columns.flow_socket {
        u64::decode(bytes, count, flows.iter_mut().map(|flow| &mut flow.socket)).ok_or(malformed("flow_socket"))?;
    }
    if let Some(bytes) = columns.flow_process {
        u32::decode(bytes, count, flows.iter_mut().map(|flow| &mut flow.process)).ok_or(malformed("flow_process"))?;
    }
    if let Some(bytes) = columns.flow_direction {
        u8::decode(bytes, count, flows.iter_mut().map(|flow| &mut flow.direction))
            .ok_or(malformed("flow_direction"))?;
    }
    if let Some(bytes) = columns.flow_offset_kind {
        u8::decode(bytes, count, flows.iter_mut().map(|flow| &mut flow.offset_kind))
            .ok_or(malformed("flow_offset_kind"))?;
    }
    Ok(flows)
}

fn decode_peers(columns: &RawColumns<'_>, rows: usize) -> Result<Vec<Peer>, DecodeError> {
    let count = table_length(columns.peers, rows, "peers")?;
    let mut peers = vec![Peer::default(); count];
    if let Some(bytes) = columns.peer_family {
        u16::decode(bytes, count, peers.iter_mut().map(|peer| &mut peer.family)).ok_or(malformed("peer_family"))?;
    }
    if let Some(bytes) = columns.peer_address {
        Cell::decode(bytes, count, peers.iter_mut().map(|peer| &mut peer.address)).ok_or(malformed("peer_address"))?;
    }
    if let Some(bytes) = columns.peer_port {
        u16::decode(bytes, count, peers.iter_mut().map(|peer| &mut peer.port)).ok_or(malformed("peer_port"))?;
    }
    Ok(peers)
}

/// A table never has more entries than the block has rows: each is there because a row names it.
fn table_length(stated: u64, rows: usize, name: &'static str) -> Result<usize, DecodeError> {
    usize::try_from(stated).ok().filter(|count| *count <= rows).ok_or(malformed(name))
}

fn decode_offsets(
    column: Option<&[u8]>,
    flow: &[u32],
    flows: &[Flow],
    length: &[u32],
) -> Result<Vec<u64>, DecodeError> {
    let mut expected = vec![0u64; flows.len()];
    let mut offsets = Vec::with_capacity(flow.len());
    let mut rows = flow.iter().zip(length);
    each_or_zero(column, flow.len(), |difference| {
        let Some((flow, length)) = rows.next() else { return false };
        let flow = *flow as usize;
        let (Some(expected), Some(kind)) = (expected.get_mut(flow), flows.get(flow).map(|flow| flow.offset_kind))
        else {
            return false;
        };
        let offset = expected.wrapping_add(unzigzag(difference));
        offsets.push(offset);
        *expected = offset.wrapping_add(offset_step(kind, *length));
        true
    })
    .ok_or(malformed("offset"))?;
    Ok(offsets)
}

/// Where each row's payload begins in the arena, which is ordered by flow and then by row; `None` unless the rows
/// use up the arena exactly.
fn place_payload(flow: &[u32], kept: &[u32], flows: usize, arena: usize) -> Option<Vec<u32>> {
    let mut bytes_of = vec![0u64; flows];
    for (flow, kept) in flow.iter().zip(kept) {
        *bytes_of.get_mut(*flow as usize)? += u64::from(*kept);
    }
    let mut next = 0u64;
    for bytes in &mut bytes_of {
        let start = next;
        next = next.checked_add(*bytes)?;
        *bytes = start;
    }
    if next != arena as u64 || u32::try_from(next).is_err() {
        return None;
    }
    let mut starts = Vec::with_capacity(flow.len());
    for (flow, kept) in flow.iter().zip(kept) {
        let next = bytes_of.get_mut(*flow as usize)?;
        starts.push(*next as u32);
        *next += u64::from(*kept);
    }
    Some(starts)
}
