//! From the ring to rows: sorts events by kind and hands full batches to the store.

use std::time::{Duration, Instant};

use kfr_bundle::DataColumns;
use kfr_bundle::events::{
    DataEvent, DatagramEvent, EventHeader, KIND_DATA, KIND_DATAGRAM, KIND_PROCESS, KIND_SOCKET, KIND_STATE, KIND_TCP,
    PROCESS_EXEC, PROCESS_FORK, ProcessEvent, SocketEvent, StateEvent, TcpEvent,
};
use zerocopy::FromBytes;

use crate::lookup::Seen;
use crate::store::{Batch, Handle};

/// A block is sealed at about this size (or a smaller one, where a file may be small): the larger, the more of what
/// repeats is stored once (docs/journal/bundle.md) ...
const SEAL_BYTES: u64 = 4 << 20;
/// A file ends up to a block below its limit: this much of the limit is the most that a block may hold.
const BLOCKS_A_FILE: u64 = 16;
/// ... or this age, so that a killed recorder loses at most this much.
const SEAL_AGE: Duration = Duration::from_millis(900);

/// Collects events until a batch is full or old.
pub struct Drain {
    data: Box<DataColumns>,
    sockets: Vec<SocketEvent>,
    states: Vec<StateEvent>,
    tcp: Vec<TcpEvent>,
    processes: Vec<ProcessEvent>,
    sealed: Instant,
    seal_bytes: usize,
    store: Handle,
    /// Processes that began or changed, or own sockets.
    processes_seen: Vec<Seen>,
    /// Bytes taken from the ring since the last call of [`Drain::take_bytes`].
    bytes: usize,
    /// Records that are no event this version knows.
    unknown: u64,
}

impl Drain {
    /// A drain into `store`, whose file may have `max_bytes`.
    pub fn new(store: Handle, max_bytes: u64) -> Self {
        Self {
            data: Box::default(),
            sockets: Vec::new(),
            states: Vec::new(),
            tcp: Vec::new(),
            processes: Vec::new(),
            sealed: Instant::now(),
            seal_bytes: SEAL_BYTES.min(max_bytes / BLOCKS_A_FILE) as usize,
            store,
            processes_seen: Vec::new(),
            bytes: 0,
            unknown: 0,
        }
    }

    /// One record of the ring.
    pub fn event(&mut self, record: &[u8]) {
        self.bytes += record.len();
        let Ok((header, _)) = EventHeader::read_from_prefix(record) else {
            self.unknown += 1;
            return;
        };
        match header.kind {
            KIND_DATA => self.data(record),
            KIND_DATAGRAM => self.datagram(record),
            KIND_SOCKET => {
                keep(&mut self.sockets, record, &mut self.unknown);
                self.processes_seen.extend(self.sockets.last().map(of_socket));
            }
            KIND_STATE => keep(&mut self.states, record, &mut self.unknown),
            KIND_TCP => keep(&mut self.tcp, record, &mut self.unknown),
            KIND_PROCESS => {
                keep(&mut self.processes, record, &mut self.unknown);
                if let Some(event) = self.processes.last()
                    && (event.what == PROCESS_EXEC || event.what == PROCESS_FORK)
                {
                    self.processes_seen.push(Seen {
                        process: event.header.process,
                        cgroup: event.cgroup,
                        changed: true,
                    });
                }
            }
            _ => self.unknown += 1,
        }
    }

    fn data(&mut self, record: &[u8]) {
        let Ok((event, rest)) = DataEvent::read_from_prefix(record) else {
            self.unknown += 1;
            return;
        };
        // A record is as large as the room that was reserved; only `kept` bytes of it were written.
        self.data.push(&event, rest.get(..event.kept as usize).unwrap_or_default());
        if self.data.raw_bytes() >= self.seal_bytes {
            self.seal_data();
        }
    }

    fn datagram(&mut self, record: &[u8]) {
        let Ok((event, rest)) = DatagramEvent::read_from_prefix(record) else {
            self.unknown += 1;
            return;
        };
        self.data.push_datagram(&event, rest.get(..event.data.kept as usize).unwrap_or_default());
        if self.data.raw_bytes() >= self.seal_bytes {
            self.seal_data();
        }
    }

    /// Hands over sockets that a walk found.
    pub fn add_sockets(&mut self, sockets: Vec<SocketEvent>) {
        self.processes_seen.extend(sockets.iter().map(of_socket));
        self.sockets.extend(sockets);
        self.seal_rows();
    }

    /// Seals what is old enough.
    pub fn tick(&mut self) {
        if self.sealed.elapsed() >= SEAL_AGE || self.sockets.len() + self.states.len() + self.processes.len() > 4096 {
            self.seal();
        }
    }

    /// Seals everything.
    pub fn seal(&mut self) {
        // Identities first: a reader of a cut bundle then knows the sockets of the data that follow.
        self.seal_rows();
        self.seal_data();
        self.sealed = Instant::now();
    }

    fn seal_data(&mut self) {
        if !self.data.is_empty() {
            let empty = self.store.recycled().unwrap_or_default();
            self.store.send(Batch::Data(std::mem::replace(&mut self.data, empty)));
        }
    }

    fn seal_rows(&mut self) {
        if !self.sockets.is_empty() {
            self.store.send(Batch::Sockets(std::mem::take(&mut self.sockets)));
        }
        if !self.states.is_empty() {
            self.store.send(Batch::States(std::mem::take(&mut self.states)));
        }
        if !self.tcp.is_empty() {
            self.store.send(Batch::Tcp(std::mem::take(&mut self.tcp)));
        }
        if !self.processes.is_empty() {
            self.store.send(Batch::ProcessEvents(std::mem::take(&mut self.processes)));
        }
    }

    /// Bytes taken from the ring since the last call.
    pub fn take_bytes(&mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }

    /// Processes to be looked up since the last call.
    pub fn take_processes(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.processes_seen)
    }

    /// Records that were no known event.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

fn of_socket(socket: &SocketEvent) -> Seen {
    Seen { process: socket.header.process, cgroup: socket.cgroup, changed: false }
}

fn keep<T: FromBytes>(rows: &mut Vec<T>, record: &[u8], unknown: &mut u64) {
    match T::read_from_prefix(record) {
        Ok((row, _)) => rows.push(row),
        Err(_) => *unknown += 1,
    }
}
