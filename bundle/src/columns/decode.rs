//! Reading a data block.

use super::{Flow, Peer, offset_step};
use crate::error::DecodeError;
use crate::events::{DataEvent, EventHeader, KIND_DATA, KIND_DATAGRAM};
use crate::packing::{Cell, for_each_varint, unzigzag};
use crate::rows::{Value, count_rows, decode_row_numbers, each_column};

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
    /// The memory that it was decoded from, to decompress the next one into.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }

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
