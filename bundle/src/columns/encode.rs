//! Writing a data block.

use super::{DataRow, Flow, Peer, offset_step};
use crate::events::{DataEvent, DatagramEvent};
use crate::msgpack::ColumnMap;
use crate::packing::{put_varint, zigzag};
use crate::rows::{encode_row_numbers, put_cells};
use rustc_hash::FxHashMap;

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

    /// Whether rows name peers.
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
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
