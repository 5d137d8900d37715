//! Bundles as a recorder would have written them, from conversations that are known: any splitting into calls, any order
//! in which a kernel could report them, payload on one end or both, cut, with gaps.

#![allow(dead_code)]

pub mod talk;

use std::io::Write;
use std::path::Path;

use kfr_bundle::events::{
    DIRECTION_RECEIVED, DIRECTION_SENT, DataEvent, EventHeader, FAMILY_INET, KIND_DATA, KIND_SOCKET, KIND_STATE,
    MISSING_LIMIT, MISSING_NOTHING, MISSING_PEER_KEEPS, OFFSET_TCP, ROLE_CLIENT, ROLE_SERVER, ROLE_UNKNOWN,
    SocketEvent, StateEvent,
};
use kfr_bundle::facts::{Manifest, ProcessFact};
use kfr_bundle::rows::Anchor;
use kfr_bundle::{Block, BlockKind, DataColumns, FileHeader, MapWriter, Writer, encode_rows};
use zerocopy::FromZeros;

use talk::{Conversation, Talk};

/// Event time at which generated recordings begin.
pub const START_NS: u64 = 1_000_000_000_000;
/// Wall clock of that moment.
pub const START_REALTIME_NS: u64 = 1_800_000_000_000_000_000;

/// A small generator of numbers (splitmix64), the same on every machine.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound` - 1; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True in `percent` of all cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Which ends of a connection are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Client,
    Server,
    Both,
}

/// How a conversation is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recording {
    pub ends: Ends,
    /// With both ends: the receiver keeps payload too.
    pub both_keep: bool,
    /// Bytes kept of a call.
    pub limit: usize,
    /// Calls move at most this many bytes, at random.
    pub largest_call: usize,
    /// Sends are reported late in this percentage of cases: behind what the other end did meanwhile.
    pub late_percent: u64,
    /// Neighbours of one socket and direction change places in this percentage of cases, as two threads cause it.
    pub race_percent: u64,
    /// Of 10,000 events, how many are lost.
    pub lost_of_10000: u64,
    /// The connection's start was seen.
    pub from_the_start: bool,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            ends: Ends::Both,
            both_keep: false,
            limit: 4096,
            largest_call: 65536,
            late_percent: 10,
            race_percent: 0,
            lost_of_10000: 0,
            from_the_start: true,
        }
    }
}

/// One event of a conversation; `at` orders it among the conversation's events.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub client_end: bool,
    pub sent: bool,
    /// Offset from the direction's first byte.
    pub offset: u64,
    pub length: u32,
    pub missing: u8,
    pub payload: Vec<u8>,
}

/// Splits `bytes` into calls of random sizes.
fn pieces(length: usize, largest: usize, random: &mut Random) -> Vec<usize> {
    let mut left = length;
    let mut sizes = Vec::new();
    while left > 0 {
        let size = if left > largest || random.percent(30) {
            1 + random.below(left.min(largest) as u64) as usize
        } else {
            left
        };
        sizes.push(size);
        left -= size;
    }
    sizes
}

/// A conversation's events in an order in which a kernel could report them.
pub fn record(conversation: &Conversation, recording: &Recording, random: &mut Random) -> Vec<Recorded> {
    let mut events: Vec<Recorded> = Vec::new();
    // By direction (true: from the client): bytes moved so far.
    let mut offsets = [0u64; 2];
    for message in &conversation.messages {
        let base = offsets[usize::from(message.from_client)];
        offsets[usize::from(message.from_client)] += message.bytes.len() as u64;
        for sent in [true, false] {
            let client_end = message.from_client == sent;
            let recorded = match recording.ends {
                Ends::Client => client_end,
                Ends::Server => !client_end,
                Ends::Both => true,
            };
            if !recorded {
                continue;
            }
            let mut from = 0;
            for size in pieces(message.bytes.len(), recording.largest_call, random) {
                let elsewhere = recording.ends == Ends::Both && !sent && !recording.both_keep;
                let kept = if elsewhere { 0 } else { size.min(recording.limit) };
                let missing = match kept {
                    _ if elsewhere => MISSING_PEER_KEEPS,
                    kept if kept < size => MISSING_LIMIT,
                    _ => MISSING_NOTHING,
                };
                let payload = message.bytes[from..from + kept].to_vec();
                let offset = base + from as u64;
                events.push(Recorded { client_end, sent, offset, length: size as u32, missing, payload });
                from += size;
            }
        }
    }
    // A send is reported when its call returns: perhaps behind the other end's next calls, never behind its own next.
    let mut at = 0;
    while at < events.len() {
        if events[at].sent && random.percent(recording.late_percent) {
            let mut to = at;
            while to + 1 < events.len() && events[to + 1].client_end != events[at].client_end && random.percent(70) {
                to += 1;
            }
            events[at..=to].rotate_left(1);
            at = to;
        }
        at += 1;
    }
    for at in 1..events.len() {
        let (before, after) = (&events[at - 1], &events[at]);
        if (before.client_end, before.sent) == (after.client_end, after.sent) && random.percent(recording.race_percent)
        {
            events.swap(at - 1, at);
        }
    }
    events.retain(|_| random.below(10_000) >= recording.lost_of_10000);
    events
}

/// Writes a bundle event by event.
pub struct Recorder {
    writer: Writer,
    data: DataColumns,
    sockets: Vec<SocketEvent>,
    states: Vec<StateEvent>,
    sequence: u64,
    /// Event time of the next event.
    pub now_ns: u64,
    /// Number of the first connection that [`traffic`] opens.
    pub first: u64,
    /// Size before compression at which a block ends. Small by default, so that a small bundle has many.
    pub block_bytes: usize,
    raw: Vec<u8>,
    raw_bytes: u64,
}

impl Recorder {
    pub fn create(path: &Path) -> Self {
        Self::begin(|header| Writer::create(path, header, true).unwrap())
    }

    pub fn to_stream(stream: Box<dyn Write + Send>) -> Self {
        Self::begin(|header| Writer::to_stream(stream, header).unwrap())
    }

    fn begin(writer: impl FnOnce(&FileHeader) -> Writer) -> Self {
        let mut header = FileHeader::new("generated");
        header.created_clock_ns = START_NS;
        header.created_realtime_ns = START_REALTIME_NS;
        let mut recorder = Self {
            writer: writer(&header),
            data: DataColumns::new(),
            sockets: Vec::new(),
            states: Vec::new(),
            sequence: 0,
            now_ns: START_NS,
            first: 0,
            block_bytes: 1 << 20,
            raw: Vec::new(),
            raw_bytes: 0,
        };
        let anchor = Anchor { boottime_ns: START_NS, realtime_ns: START_REALTIME_NS, ..Anchor::default() };
        recorder.block(BlockKind::ANCHORS, 1, (START_NS, START_NS), &encode_rows(&[anchor]));
        let mut manifest = MapWriter::new();
        manifest
            .push(&Manifest {
                tool: "kfr".into(),
                socket_hook: "sock".into(),
                started_ns: START_NS,
                ..Manifest::default()
            })
            .unwrap();
        recorder.block(BlockKind::MANIFEST, 1, (START_NS, START_NS), &manifest.encode());
        let mut processes = MapWriter::new();
        for (process, comm) in [(1, "app"), (2, "server")] {
            let comm = comm.to_string();
            processes.push(&ProcessFact { time_ns: START_NS, process, comm, ..ProcessFact::default() }).unwrap();
        }
        recorder.block(BlockKind::PROCESSES, 2, (START_NS, START_NS), &processes.encode());
        recorder
    }

    fn block(&mut self, kind: BlockKind, rows: u32, times: (u64, u64), raw: &[u8]) {
        self.raw_bytes += raw.len() as u64;
        self.writer.write_block(&Block::new(kind, rows).with_times(times.0, times.1), raw).unwrap();
    }

    fn header(&mut self, kind: u16, process: u32) -> EventHeader {
        // Numbers count events of one CPU, so a lost event is a missing number.
        let sequence = self.sequence;
        self.sequence += 1;
        self.now_ns += 10_000; // 100,000 events a second
        EventHeader { time_ns: self.now_ns, sequence, kind, cpu: 0, thread: process, process, reserved: 0 }
    }

    /// Names the recorded sockets of connection `number`: 2 * number + 2 is the client's, + 3 the server's.
    pub fn open(&mut self, number: u64, talk: Talk, recording: &Recording) {
        for client_end in [true, false] {
            if recording.ends != Ends::Both && (recording.ends == Ends::Client) != client_end {
                continue;
            }
            let mut event = SocketEvent::new_zeroed();
            event.header = self.header(KIND_SOCKET, if client_end { 1 } else { 2 });
            event.socket = socket(number, client_end);
            event.netns = 1;
            event.family = FAMILY_INET;
            event.socket_type = 1;
            event.protocol = 6;
            event.state = 1;
            event.offset_kind = OFFSET_TCP;
            event.inode = event.socket;
            let client = (client_address(number), 1024 + (number % 60_000) as u16);
            let server = ([10, 0, 0, 1], talk.port());
            let (local, remote) = if client_end { (client, server) } else { (server, client) };
            event.local_address[..4].copy_from_slice(&local.0);
            event.remote_address[..4].copy_from_slice(&remote.0);
            (event.local_port, event.remote_port) = (local.1, remote.1);
            let sequences = [true, false].map(|from_client| first_sequence(number, from_client));
            let [sent, received] = if client_end { sequences } else { [sequences[1], sequences[0]] };
            (event.sent_sequence, event.received_sequence) = (sent, received);
            event.role = ROLE_UNKNOWN;
            if recording.from_the_start {
                event.role = if client_end { ROLE_CLIENT } else { ROLE_SERVER };
                event.opened_ns = event.header.time_ns;
                (event.first_sent_sequence, event.first_received_sequence) = (sent, received);
            }
            self.sockets.push(event);
            if self.sockets.len() == 4096 {
                self.seal();
            }
        }
    }

    /// Closes the recorded sockets of connection `number`, the client first.
    pub fn close(&mut self, number: u64, recording: &Recording) {
        const FIN_WAIT1: u8 = 4;
        const CLOSE: u8 = 7;
        const LAST_ACK: u8 = 9;
        for client_end in [true, false] {
            if recording.ends != Ends::Both && (recording.ends == Ends::Client) != client_end {
                continue;
            }
            let header = self.header(KIND_STATE, 0);
            self.states.push(StateEvent {
                header,
                socket: socket(number, client_end),
                netns: 1,
                family: FAMILY_INET,
                old_state: if client_end { FIN_WAIT1 } else { LAST_ACK },
                new_state: CLOSE,
                ..StateEvent::default()
            });
        }
        if self.states.len() >= 4096 {
            self.seal();
        }
    }

    pub fn event(&mut self, number: u64, event: &Recorded) {
        let from_client = event.client_end == event.sent;
        let data = DataEvent {
            header: self.header(KIND_DATA, if event.client_end { 1 } else { 2 }),
            socket: socket(number, event.client_end),
            offset: u64::from(first_sequence(number, from_client).wrapping_add(event.offset as u32)),
            length: event.length,
            kept: event.payload.len() as u32,
            age_ns: 0,
            direction: if event.sent { DIRECTION_SENT } else { DIRECTION_RECEIVED },
            offset_kind: OFFSET_TCP,
            missing: event.missing,
            reserved: 0,
        };
        self.data.push(&data, &event.payload);
        if self.data.raw_bytes() >= self.block_bytes {
            self.seal();
        }
    }

    /// Ends the current blocks.
    pub fn seal(&mut self) {
        if !self.sockets.is_empty() {
            let rows = std::mem::take(&mut self.sockets);
            let times = (rows[0].header.time_ns, rows[rows.len() - 1].header.time_ns);
            self.block(BlockKind::SOCKETS, rows.len() as u32, times, &encode_rows(&rows));
        }
        if !self.states.is_empty() {
            let rows = std::mem::take(&mut self.states);
            let times = (rows[0].header.time_ns, rows[rows.len() - 1].header.time_ns);
            self.block(BlockKind::STATES, rows.len() as u32, times, &encode_rows(&rows));
        }
        if !self.data.is_empty() {
            let mut raw = std::mem::take(&mut self.raw);
            raw.clear();
            self.data.encode(&mut raw);
            let times = self.data.time_bounds().unwrap();
            self.block(BlockKind::DATA, self.data.len() as u32, times, &raw);
            self.data.clear();
            self.raw = raw;
        }
    }

    /// Bytes of the blocks so far, before compression.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    pub fn finish(mut self) -> u64 {
        self.seal();
        self.writer.finish().unwrap();
        self.raw_bytes
    }
}

fn socket(number: u64, client_end: bool) -> u64 {
    number * 2 + 2 + u64::from(!client_end)
}

fn client_address(number: u64) -> [u8; 4] {
    let host = number / 60_000;
    [10, 1 + (host >> 16) as u8, (host >> 8) as u8, host as u8]
}

/// Where a direction's sequence numbers begin: some wrap soon.
fn first_sequence(number: u64, from_client: bool) -> u32 {
    let mixed = Random(number * 2 + u64::from(from_client)).next() as u32;
    if number.is_multiple_of(5) { u32::MAX - mixed % 5000 } else { mixed.max(1) }
}

/// What [`traffic`] is to look like.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub connections: u64,
    /// Connections open at the same time.
    pub at_once: usize,
    pub requests_each: usize,
    pub body: usize,
    pub seed: u64,
    /// Stop once so many bytes before compression are written.
    pub raw_bytes: u64,
    /// Connections close when they have nothing more to say; else they stay open to the end.
    pub closes: bool,
    /// Gaps, races, cut payload and one-sided connections among the others.
    pub trouble: bool,
}

/// Writes many conversations, interleaved.
pub fn traffic(recorder: &mut Recorder, traffic: &Traffic) {
    let mut random = Random(traffic.seed);
    let mut open: Vec<(u64, Recording, std::vec::IntoIter<Recorded>)> = Vec::new();
    let (first, mut next) = (recorder.first, recorder.first);
    loop {
        while open.len() < traffic.at_once
            && next - first < traffic.connections
            && recorder.raw_bytes() < traffic.raw_bytes
        {
            let talk = Talk::ALL[random.below(3) as usize];
            let mut recording = Recording::default();
            if traffic.trouble {
                recording.ends = [Ends::Both, Ends::Both, Ends::Client, Ends::Server][random.below(4) as usize];
                recording.both_keep = random.percent(20);
                recording.limit = [64, 512, 4096, 16384][random.below(4) as usize];
                recording.largest_call = [100, 1448, 65536][random.below(3) as usize];
                recording.race_percent = [0, 0, 5][random.below(3) as usize];
                recording.lost_of_10000 = [0, 0, 0, 50][random.below(4) as usize];
                recording.from_the_start = random.percent(70);
            }
            let conversation = Conversation::new(talk, traffic.requests_each, 8, traffic.body, &mut random);
            recorder.open(next, talk, &recording);
            open.push((next, recording, record(&conversation, &recording, &mut random).into_iter()));
            next += 1;
        }
        if open.is_empty() {
            return;
        }
        let at = random.below(open.len() as u64) as usize;
        for _ in 0..1 + random.below(6) {
            match open[at].2.next() {
                Some(event) => recorder.event(open[at].0, &event),
                None => {
                    let (number, recording, _) = open.swap_remove(at);
                    if traffic.closes {
                        recorder.close(number, &recording);
                    }
                    break;
                }
            }
        }
    }
}
