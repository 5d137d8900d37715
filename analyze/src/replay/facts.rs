//! Everything in the bundles but data: read first, so that replay knows who talks when it sees bytes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kfr_bundle::conntrack::TranslationFact;
use kfr_bundle::events::{
    DIRECTION_RECEIVED, OFFSET_DATAGRAM, ProcessEvent, ROLE_CLIENT, ROLE_SERVER, SocketEvent, StateEvent, TcpEvent,
};
use kfr_bundle::facts::{ContainerFact, HostSample, LedgerFact, Manifest, ProcessFact};
use kfr_bundle::kube::KubeFact;
use kfr_bundle::logs::LogCounts;
use kfr_bundle::rows::{Anchor, row_numbers};
use kfr_bundle::{BlockEntry, BlockKind, DataBlock, Row, decode_maps, decode_rows};
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;

use crate::clocks::{Clock, Leg, agree};
use crate::cluster::Cluster;
use crate::identity::{Kube, Objects, Processes, Socket, Sockets, Translations, add_unlisted, blind_times};
use crate::replay::input::Input;
use crate::replay::losses::SeenNumbers;

/// `Manifest::socket_hook` of a bundle that was made of a packet capture.
const PACKETS: &str = "packets";

/// What one bundle says of its node and of itself.
#[derive(Debug, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The last manifest.
    pub manifest: Manifest,
    /// Event time to wall clock.
    pub clock: Clock,
    /// Host samples in order of time.
    pub host: Vec<HostSample>,
    /// The recorder's last counters.
    pub ledger: LedgerFact,
    /// What became of each container's log lines: the latest counts by UID, namespace, pod and container.
    pub logs: BTreeMap<[String; 4], LogCounts>,
    /// Numbers of the events seen; those outside data blocks after [`Facts::read`], all after replay.
    pub seen: SeenNumbers,
    /// Rows or blocks that could not be decoded.
    pub malformed: u64,
    /// First and last event time of its data.
    pub window: Option<(u64, u64)>,
}

impl NodeFacts {
    /// Whether the bundle was made of packets.
    pub fn is_imported(&self) -> bool {
        self.manifest.socket_hook == PACKETS
    }

    /// A copy for readers, without the numbers of events.
    pub fn without_numbers(&self) -> Self {
        Self {
            name: self.name.clone(),
            manifest: self.manifest.clone(),
            clock: self.clock.clone(),
            host: Vec::new(),
            ledger: self.ledger.clone(),
            logs: BTreeMap::new(),
            seen: SeenNumbers::default(),
            malformed: self.malformed,
            window: self.window,
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Facts {
    /// By bundle.
    pub nodes: Vec<NodeFacts>,
    /// Sockets of all bundles.
    pub sockets: Sockets,
    /// Processes of all bundles.
    pub processes: Processes,
    /// Who is who in Kubernetes.
    pub kube: Kube,
    /// What the cluster was and what happened to it.
    pub cluster: Cluster,
    /// Which addresses were translated.
    pub translations: Translations,
    /// Most that the clocks of two nodes are apart; `None` of one node, and where nothing bounds it.
    pub clock_error_ns: Option<u64>,
}

impl Facts {
    /// Reads them from the bundles.
    pub fn read(inputs: &[Input]) -> Self {
        let mut facts = Self::default();
        let (mut objects, mut containers) = (Vec::new(), Vec::new());
        for (number, input) in inputs.iter().enumerate() {
            facts.read_one(number as u32, input, &mut objects, &mut containers);
        }
        facts.sockets.finish();
        facts.processes.finish(&containers);
        facts.agree_on_time(inputs);
        for (bundle, row) in &mut objects {
            let node = facts.nodes.get(*bundle as usize);
            row.time_ns = node.map_or(row.time_ns, |node| node.clock.wall_ns(row.time_ns));
        }
        facts.read_translations(inputs);
        let mut blind = blind_times(&objects);
        add_unlisted(&mut blind, &objects, &facts.asked());
        let objects = Objects::new(objects);
        facts.kube = Kube::new(&objects, blind);
        let node = |bundle: u32| inputs.get(bundle as usize).map_or("", |input| &input.reader.header().node);
        facts.kube.add_node_names(&containers, node);
        facts.cluster = Cluster::new(&objects, &facts.kube, facts.window().unwrap_or_default());
        facts
    }

    fn read_one(
        &mut self,
        bundle: u32,
        input: &Input,
        objects: &mut Vec<(u32, KubeFact)>,
        containers: &mut Vec<(u32, ContainerFact)>,
    ) {
        let mut node = NodeFacts { name: input.reader.header().node.clone(), ..NodeFacts::default() };
        let mut anchors = Vec::new();
        for entry in input.reader.blocks() {
            match entry.kind {
                BlockKind::DATA => {
                    let (first, last) = node.window.unwrap_or((u64::MAX, 0));
                    node.window = Some((first.min(entry.min_time_ns), last.max(entry.max_time_ns)));
                    if entry.peers() {
                        self.read_peers(bundle, input, entry);
                    }
                }
                BlockKind::MANIFEST => {
                    let mut bad = 0;
                    each_map(input, entry, &mut bad, |row: Manifest| node.manifest = row);
                    node.malformed += bad;
                }
                BlockKind::PROCESSES => {
                    let mut bad = 0;
                    each_map(input, entry, &mut bad, |row: ProcessFact| self.processes.add_fact(bundle, row));
                    node.malformed += bad;
                }
                BlockKind::HOST => {
                    let mut bad = 0;
                    each_map(input, entry, &mut bad, |row: HostSample| node.host.push(row));
                    node.malformed += bad;
                }
                BlockKind::LEDGER => {
                    let mut bad = 0;
                    each_map(input, entry, &mut bad, |row: LedgerFact| {
                        if row.time_ns >= node.ledger.time_ns {
                            node.ledger = row;
                        }
                    });
                    node.malformed += bad;
                }
                BlockKind::KUBE => {
                    let mut bad = 0;
                    each_map(input, entry, &mut bad, |row: KubeFact| objects.push((bundle, row)));
                    node.malformed += bad;
                }
                BlockKind::CONTAINERS => {
                    let mut bad = 0;
                    each_map(input, entry, &mut bad, |row: ContainerFact| containers.push((bundle, row)));
                    node.malformed += bad;
                }
                BlockKind::LOG_COUNTS => {
                    let mut bad = 0;
                    each_map(input, entry, &mut bad, |row: LogCounts| {
                        let key = [&row.uid, &row.namespace, &row.pod, &row.container].map(Clone::clone);
                        node.logs.insert(key, row);
                    });
                    node.malformed += bad;
                }
                BlockKind::ANCHORS => each_row(input, entry, &mut node.malformed, |row: &Anchor, _| anchors.push(*row)),
                BlockKind::SOCKETS => {
                    let seen = &mut node.seen;
                    each_row(input, entry, &mut node.malformed, |row: &SocketEvent, number| {
                        // Identities from a walk have no number: they can't be lost.
                        if row.header.sequence != u64::MAX {
                            seen.add_one(row.header.cpu, row.header.sequence, row.header.time_ns);
                        }
                        self.sockets.add_identity(bundle, row, entry.address.row(number));
                        self.processes.add_owner(bundle, row);
                    });
                }
                BlockKind::STATES => {
                    let seen = &mut node.seen;
                    each_row(input, entry, &mut node.malformed, |row: &StateEvent, number| {
                        seen.add_one(row.header.cpu, row.header.sequence, row.header.time_ns);
                        self.sockets.add_state(bundle, row, entry.address.row(number));
                    });
                }
                BlockKind::TCP => {
                    let seen = &mut node.seen;
                    each_row(input, entry, &mut node.malformed, |row: &TcpEvent, number| {
                        seen.add_one(row.header.cpu, row.header.sequence, row.header.time_ns);
                        self.sockets.add_tcp(bundle, row, entry.address.row(number));
                    });
                }
                BlockKind::PROCESS_EVENTS => {
                    let seen = &mut node.seen;
                    each_row(input, entry, &mut node.malformed, |row: &ProcessEvent, _| {
                        seen.add_one(row.header.cpu, row.header.sequence, row.header.time_ns);
                        self.processes.add_event(bundle, row);
                    });
                }
                _ => {}
            }
        }
        let header = input.reader.header();
        node.clock = if anchors.is_empty() && header.created_realtime_ns > 0 {
            Clock::from_moment(header.created_clock_ns, header.created_realtime_ns)
        } else {
            Clock::new(&anchors)
        };
        node.host.sort_by_key(|sample| sample.time_ns);
        self.nodes.push(node);
    }

    /// Whom unconnected sockets talk to stands in the datagrams only. A block that can't be read is counted by replay.
    fn read_peers(&mut self, bundle: u32, input: &Input, entry: &BlockEntry) {
        let Some(block) = input.raw(entry).and_then(|raw| DataBlock::decode(raw, entry.first_row).ok()) else { return };
        for row in 0..block.len() {
            let Some(flow) = block.flow_of(row) else { continue };
            let peer = block.peer(row).filter(|peer| peer.family != 0);
            if flow.direction == DIRECTION_RECEIVED && flow.offset_kind == OFFSET_DATAGRAM && peer.is_none() {
                self.sockets.add_asked_by_nobody((bundle, flow.socket));
            }
            if let Some(peer) = peer {
                let (time_ns, address) = (block.time_ns.get(row), entry.address.row(block.row_number(row)));
                self.sockets.add_peer((bundle, flow.socket), peer, time_ns.copied().unwrap_or_default(), address);
            }
        }
    }

    /// Compares the nodes' clocks by the handshakes of which both ends were recorded, and corrects those that are wrong.
    fn agree_on_time(&mut self, inputs: &[Input]) {
        if inputs.len() < 2 {
            return;
        }
        let mut ends = FxHashMap::default();
        let mut legs = Vec::new();
        for socket in self.sockets.all().iter().filter(|socket| socket.opened_ns.is_some()) {
            let Some((sent, received)) = socket.first_sequences else { continue };
            let Some(other) = ends.remove(&(received, sent)) else {
                ends.insert((sent, received), socket);
                continue;
            };
            legs.extend(self.leg(other, socket).or_else(|| self.leg(socket, other)));
        }
        // Of packets nobody knows the node.
        let node = |(bundle, input): (usize, &Input)| {
            let boot = input.reader.header().boot_id;
            if boot == [0; 16] { Err(bundle) } else { Ok(boot) }
        };
        let nodes: Vec<_> = inputs.iter().enumerate().map(node).collect();
        let found = agree(&nodes, &legs);
        for (node, ahead_ns) in self.nodes.iter_mut().zip(found.ahead_ns) {
            node.clock.set_back(ahead_ns);
        }
        self.clock_error_ns = found.error_ns;
    }

    fn leg(&self, client: &Socket, server: &Socket) -> Option<Leg> {
        let node = |socket: &Socket| self.nodes.get(socket.id.0 as usize);
        let is_handshake = client.role == ROLE_CLIENT && server.role == ROLE_SERVER && server.handshake_rtt_us > 0;
        if !is_handshake || client.id.0 == server.id.0 {
            return None;
        }
        let (here, there) = (&node(client)?.clock, &node(server)?.clock);
        let established = (here.wall_ns(client.opened_ns?), there.wall_ns(server.opened_ns?));
        let uncertain_ns = here.uncertainty_ns().saturating_add(there.uncertainty_ns());
        Some(Leg::of_handshake((client.id.0, server.id.0), established, server.handshake_rtt_us, uncertain_ns))
    }

    fn read_translations(&mut self, inputs: &[Input]) {
        for (input, node) in inputs.iter().zip(&mut self.nodes) {
            for entry in input.reader.blocks_of(BlockKind::CONNTRACK) {
                let (mut bad, clock) = (0, node.clock.clone());
                each_map(input, entry, &mut bad, |mut row: TranslationFact| {
                    row.time_ns = clock.wall_ns(row.time_ns);
                    self.translations.add(&row);
                });
                node.malformed += bad;
            }
        }
        self.translations.finish();
    }

    /// Who answered a client that nobody recorded the other end of, by a node's table.
    pub fn answered(&self, client: &Socket) -> Option<(IpAddr, u16)> {
        let clock = self.nodes.get(client.id.0 as usize).map(|node| &node.clock);
        let closed_ns = client.closed_ns.and_then(|at| clock.map(|clock| clock.wall_ns(at)));
        self.translations.answered(client, self.began_ns(client), closed_ns)
    }

    /// The bundles whose recorder asked a Kubernetes API, and the time of their recording, wall clock ns.
    fn asked(&self) -> Vec<(u32, (u64, u64))> {
        let nodes = self.nodes.iter().zip(0u32..).filter(|(node, _)| !node.manifest.kube.is_empty());
        let windows = nodes.filter_map(|(node, number)| {
            let (started, ended) = (node.manifest.started_ns, node.manifest.ended_ns);
            let ended = if ended > 0 { ended } else { node.window?.1 };
            Some((number, (node.clock.wall_ns(started), node.clock.wall_ns(ended))))
        });
        windows.collect()
    }

    /// When a socket's connection began, as far as that was seen; wall clock ns.
    pub fn began_ns(&self, socket: &Socket) -> u64 {
        let event_ns = socket.connecting_ns.or(socket.opened_ns).unwrap_or(socket.first_seen_ns);
        self.nodes.get(socket.id.0 as usize).map_or(event_ns, |node| node.clock.wall_ns(event_ns))
    }

    /// First and last moment of all data, wall clock ns.
    pub fn window(&self) -> Option<(u64, u64)> {
        let each = self.nodes.iter().filter_map(|node| {
            // The recording's own bounds, where it says them: a quiet time is part of it.
            let (first, last) = match node.window {
                Some((first, last)) => (first, last),
                None if node.manifest.ended_ns > 0 => (node.manifest.started_ns, node.manifest.ended_ns),
                None => return None,
            };
            let started = if node.manifest.started_ns > 0 { node.manifest.started_ns.min(first) } else { first };
            let ended = node.manifest.ended_ns.max(last);
            Some((node.clock.wall_ns(started), node.clock.wall_ns(ended)))
        });
        each.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

fn each_row<R: Row>(input: &Input, entry: &BlockEntry, malformed: &mut u64, mut each: impl FnMut(&R, u32)) {
    let decoded = input.raw(entry).and_then(|raw| {
        let rows = decode_rows::<R>(&raw).ok()?;
        let numbers = row_numbers(&raw, entry.first_row).ok()?;
        Some((rows, numbers))
    });
    match decoded {
        Some((rows, numbers)) => rows.iter().zip(numbers).for_each(|(row, number)| each(row, number)),
        None => *malformed += 1,
    }
}

fn each_map<T: DeserializeOwned>(input: &Input, entry: &BlockEntry, malformed: &mut u64, each: impl FnMut(T)) {
    match input.raw(entry).and_then(|raw| decode_maps::<T>(&raw).ok()) {
        Some(maps) => {
            *malformed += maps.malformed;
            maps.rows.into_iter().map(|(_, row)| row).for_each(each);
        }
        None => *malformed += 1,
    }
}
