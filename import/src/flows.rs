//! The connections and flows of a capture.

use std::collections::{HashMap, VecDeque};

use kfr_bundle::events::{OFFSET_DATAGRAM, ROLE_CLIENT, ROLE_UNKNOWN, SocketEvent};
use zerocopy::FromZeros;

use crate::counters::Counters;
use crate::packet::{End, Tcp, Transport};
use crate::recorder::{Moved, Recorder};
use crate::tcp::{Connection, Verdict};

/// Connections and flows at once: about 80 MiB. The one that was quiet for longest is forgotten for a new one.
const MAX_FLOWS: usize = 1 << 17;
/// Memory of all segments that wait for missing ones.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// The two ends, lower one first, and whether it is TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    low: End,
    high: End,
    tcp: bool,
}

#[derive(Debug)]
enum Flow {
    Tcp(Box<Connection>),
    Udp(Datagrams),
}

#[derive(Debug)]
struct Slot {
    flow: Flow,
    /// Number of the last packet.
    last: u64,
}

/// A UDP flow.
#[derive(Debug)]
struct Datagrams {
    socket: u64,
    local: End,
    /// Datagrams sent and received.
    count: [u64; 2],
}

/// All of them.
#[derive(Default)]
pub struct Flows {
    slots: HashMap<Key, Slot>,
    /// For eviction: each flow once, with the number of the packet at which it was put there.
    queue: VecDeque<(Key, u64)>,
    packets: u64,
    next_socket: u64,
    waiting_bytes: usize,
}

impl Flows {
    /// Takes a segment or datagram.
    pub fn packet(&mut self, packet: &Transport<'_>, counters: &mut Counters, recorder: &mut Recorder) {
        self.packets += 1;
        let (low, high) = if packet.source <= packet.destination {
            (packet.source, packet.destination)
        } else {
            (packet.destination, packet.source)
        };
        counters.payload_snapped_bytes += u64::from(packet.length).saturating_sub(packet.payload.len() as u64);
        let key = Key { low, high, tcp: packet.tcp.is_some() };
        match packet.tcp {
            Some(tcp) => self.segment(key, packet, &tcp, counters, recorder),
            None => self.datagram(key, packet, counters, recorder),
        }
    }

    fn segment(
        &mut self,
        key: Key,
        packet: &Transport<'_>,
        tcp: &Tcp,
        counters: &mut Counters,
        recorder: &mut Recorder,
    ) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.last = self.packets;
            if let Flow::Tcp(connection) = &mut slot.flow {
                match connection.judge(packet, tcp) {
                    Verdict::Same => {
                        let before = connection.waiting_bytes();
                        connection.packet(packet, tcp, counters, recorder);
                        self.waiting_bytes = self.waiting_bytes + connection.waiting_bytes() - before;
                        if self.waiting_bytes > MAX_WAITING_BYTES {
                            self.waiting_bytes -= connection.waiting_bytes();
                            connection.release(true, counters, recorder);
                            self.waiting_bytes += connection.waiting_bytes();
                        }
                        return;
                    }
                    Verdict::New => {
                        self.waiting_bytes -= connection.waiting_bytes();
                        connection.finish(counters, recorder);
                        self.next_socket += 1;
                        counters.tcp_connections += 1;
                        **connection = Connection::begin(self.next_socket, packet, tcp, recorder);
                        connection.packet(packet, tcp, counters, recorder);
                        return;
                    }
                }
            }
        }
        self.next_socket += 1;
        counters.tcp_connections += 1;
        let mut connection = Box::new(Connection::begin(self.next_socket, packet, tcp, recorder));
        connection.packet(packet, tcp, counters, recorder);
        self.insert(key, Flow::Tcp(connection), counters, recorder);
    }

    fn datagram(&mut self, key: Key, packet: &Transport<'_>, counters: &mut Counters, recorder: &mut Recorder) {
        if !self.slots.contains_key(&key) {
            self.next_socket += 1;
            counters.udp_flows += 1;
            let flow = Datagrams::begin(self.next_socket, packet, recorder);
            self.insert(key, Flow::Udp(flow), counters, recorder);
        }
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.last = self.packets;
            if let Flow::Udp(flow) = &mut slot.flow {
                flow.packet(packet, recorder);
            }
        }
    }

    fn insert(&mut self, key: Key, flow: Flow, counters: &mut Counters, recorder: &mut Recorder) {
        while self.slots.len() >= MAX_FLOWS {
            let Some((key, last)) = self.queue.pop_front() else { break };
            match self.slots.get(&key) {
                // It was busy since: once more to the end.
                Some(slot) if slot.last > last => self.queue.push_back((key, slot.last)),
                Some(_) => {
                    counters.flows_evicted += 1;
                    if let Some(Slot { flow: Flow::Tcp(mut connection), .. }) = self.slots.remove(&key) {
                        self.waiting_bytes -= connection.waiting_bytes();
                        connection.finish(counters, recorder);
                    }
                }
                None => {}
            }
        }
        self.queue.push_back((key, self.packets));
        self.slots.insert(key, Slot { flow, last: self.packets });
    }

    /// The capture is over.
    pub fn finish(&mut self, counters: &mut Counters, recorder: &mut Recorder) {
        let mut rest: Vec<Box<Connection>> = std::mem::take(&mut self.slots)
            .into_values()
            .filter_map(|slot| match slot.flow {
                Flow::Tcp(connection) => Some(connection),
                Flow::Udp(_) => None,
            })
            .collect();
        rest.sort_unstable_by_key(|connection| connection.socket());
        for mut connection in rest {
            connection.finish(counters, recorder);
        }
    }
}

impl Datagrams {
    fn begin(socket: u64, packet: &Transport<'_>, recorder: &mut Recorder) -> Self {
        // Who speaks first asks, unless it speaks from a system port (RFC 6335) to one that is none: an answer to a
        // question from before the capture.
        let answers = packet.source.port < 1024 && packet.destination.port >= 1024;
        let (local, remote) =
            if answers { (packet.destination, packet.source) } else { (packet.source, packet.destination) };
        let mut event = identity(socket, &local, &remote);
        event.role = if answers { ROLE_UNKNOWN } else { ROLE_CLIENT };
        (event.socket_type, event.protocol, event.offset_kind) = (2, 17, OFFSET_DATAGRAM);
        event.state = 1;
        recorder.socket(&event, packet.time_ns);
        Self { socket, local, count: [0; 2] }
    }

    fn packet(&mut self, packet: &Transport<'_>, recorder: &mut Recorder) {
        let sent = packet.source == self.local;
        let Some(count) = self.count.get_mut(usize::from(!sent)) else { return };
        let moved = Moved {
            socket: self.socket,
            sent,
            offset_kind: OFFSET_DATAGRAM,
            offset: *count,
            length: packet.length,
            payload: packet.payload,
            time_ns: packet.time_ns,
        };
        *count += 1;
        recorder.moved(&moved);
    }
}

/// A socket's addresses.
pub fn identity(socket: u64, local: &End, remote: &End) -> SocketEvent {
    let mut event = SocketEvent::new_zeroed();
    event.socket = socket;
    event.family = local.family;
    (event.local_address, event.local_port) = (local.address, local.port);
    (event.remote_address, event.remote_port) = (remote.address, remote.port);
    event
}
