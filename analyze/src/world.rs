//! The whole of a replay: from bundles to an [`Analysis`].

use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;

use kfr_bundle::events::{OFFSET_TCP, ROLE_UNKNOWN};

use crate::Options;
use crate::dump::request_line;
use crate::identity::{End, Endpoint, KnownBy, Services, Socket, Transport};
use crate::join::{Connection, Connections, Source};
use crate::model::{Ledger, Metrics, Request};
use crate::replay::{
    ConnectionTotals, Context, Facts, Input, LostRange, NodeFacts, Produce, SHARDS, Setup, SortedLines, read_names,
    run, sha256,
};
use crate::sql::Statements;

/// Steps of a series at most.
const MAX_STEPS: u64 = 120;
const SECOND_NS: u64 = 1_000_000_000;
/// The probe that lists the sockets which are open when a capture begins.
const WALK: &str = "connection/walk";

/// What a replay is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Request lines, sorted.
    RequestLines,
    /// Metrics and statements.
    Metrics,
    /// Totals of connections only.
    Connections,
}

/// The services at the two ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Ends {
    observer: End,
    /// The other end, if it is the server.
    other_as_server: End,
    /// The other end, if it is the client.
    other_as_client: End,
}

/// What is known before data are read: who is who.
pub struct World {
    /// Everything in the bundles but data.
    pub facts: Facts,
    /// Connections.
    pub connections: Connections,
    /// Services.
    pub services: Services,
    /// First and last moment, wall clock ns.
    pub window: Option<(u64, u64)>,
    /// Width of a time step, ns.
    pub step_ns: u64,
    ends: Vec<Ends>,
    literals: bool,
    /// Port and protocol (its number in the registry).
    port_hints: Vec<(u16, u16)>,
    want: Want,
}

/// What a replay comes to.
pub struct Analysis {
    /// Who is who.
    pub world: World,
    /// Golden metrics.
    pub metrics: Metrics,
    /// Statements.
    pub statements: Statements,
    /// Requests replayed.
    pub requests: u64,
    /// By connection; default for those without data.
    pub totals: Vec<ConnectionTotals>,
    /// What is incomplete.
    pub ledger: Ledger,
    /// Lost events, by bundle.
    pub lost: Vec<Vec<LostRange>>,
    /// Sorted lines, where they were wanted.
    pub lines: SortedLines,
    /// SHA-256 of each bundle in hex, where the file could be read to its end; computed with metrics.
    pub hashes: Option<JoinHandle<Vec<Option<String>>>>,
}

impl World {
    fn new(inputs: &[Input], options: &Options, want: Want) -> Self {
        let facts = Facts::read(inputs);
        let source = |(input, node): (&Input, &NodeFacts)| Source {
            imported: node.is_imported(),
            boot: input.reader.header().boot_id,
            epoch_ns: node.clock.epoch_ns(),
        };
        let sources: Vec<Source> = inputs.iter().zip(&facts.nodes).map(source).collect();
        let answers = |asked: &Socket, answering: &Socket| match (&asked.remote, &answering.remote) {
            (Endpoint::Ip(from, _), Endpoint::Ip(to, _)) => facts.kube.answers(*from, *to, facts.began_ns(asked)),
            _ => false,
        };
        let connections = Connections::new(&facts.sockets, &sources, answers);
        let mut services = Services::new(&facts.sockets, &facts.processes, &facts.kube, read_names(inputs, &facts));
        let ends = connections.all.iter().map(|connection| ends(connection, &facts, &mut services)).collect();
        let window = facts.window();
        let length = window.map_or(0, |(start, end)| end.saturating_sub(start));
        let step_ns = length.div_ceil(SECOND_NS).div_ceil(MAX_STEPS).max(1) * SECOND_NS;
        Self {
            facts,
            connections,
            services,
            window,
            step_ns,
            ends,
            literals: options.literals,
            port_hints: options.port_hints.clone(),
            want,
        }
    }

    /// Whether values are shown instead of masked.
    pub fn literals(&self) -> bool {
        self.literals
    }

    /// The sockets of a connection's client and server, as far as they were recorded.
    pub fn sides(&self, connection: u32, observer_is_client: bool) -> (Option<&Socket>, Option<&Socket>) {
        let Some(connection) = self.connections.all.get(connection as usize) else { return (None, None) };
        let observer = self.facts.sockets.get(connection.observer);
        let peer = connection.peer.and_then(|peer| self.facts.sockets.get(peer));
        if observer_is_client { (observer, peer) } else { (peer, observer) }
    }

    /// Where a connection's packets were captured once more, behind a translation of addresses: what was nearest to the
    /// server.
    pub fn translated(&self, connection: u32) -> Option<&Socket> {
        self.facts.sockets.get(self.connections.all.get(connection as usize)?.translated?.0)
    }

    /// Services of a connection's client and server.
    pub fn services_of(&self, connection: u32, observer_is_client: bool) -> (u32, u32) {
        let (client, server) = self.ends_of(connection, observer_is_client);
        (client.service, server.service)
    }

    /// A connection's client and server.
    pub fn ends_of(&self, connection: u32, observer_is_client: bool) -> (End, End) {
        match self.ends.get(connection as usize) {
            Some(ends) if observer_is_client => (ends.observer, ends.other_as_server),
            Some(ends) => (ends.other_as_client, ends.observer),
            None => Default::default(),
        }
    }

    /// The zone of an end: of its pod's node, of a recorded process that of its node. `None` where nobody tells, and of what is
    /// outside.
    pub fn zone_of(&self, end: End) -> Option<&str> {
        let node = match end.pod.and_then(|pod| self.facts.kube.pod(pod)) {
            Some(pod) => pod.node.as_str(),
            None => {
                let bundle = self.services.get(end.service)?.bundle?;
                self.facts.nodes.get(bundle as usize)?.name.as_str()
            }
        };
        self.facts.cluster.zone(node)
    }

    /// Event time of a connection's observer on the wall clock.
    pub fn wall_ns(&self, connection: u32, event_ns: u64) -> u64 {
        let observer =
            self.connections.all.get(connection as usize).and_then(|one| self.facts.sockets.get(one.observer));
        let node = observer.and_then(|socket| self.facts.nodes.get(socket.id.0 as usize));
        node.map_or(event_ns, |node| node.clock.wall_ns(event_ns))
    }

    /// The protocol that the user named for the server's port; for either port where the roles are not known.
    fn hint(&self, ports: [Option<u16>; 2], observer_is_client: Option<bool>) -> Option<u16> {
        let [observers, others] = ports;
        let (first, second) = match observer_is_client {
            Some(true) => (others, None),
            Some(false) => (observers, None),
            None => (others, observers),
        };
        let named = |port: Option<u16>| self.port_hints.iter().find(|(hinted, _)| Some(*hinted) == port);
        named(first).or_else(|| named(second)).map(|(_, protocol)| *protocol)
    }

    /// Whether a connection's roles are a guess where its bytes don't tell: the lower port serves.
    pub fn guess_observer_is_client(&self, connection: u32) -> bool {
        let Some(connection) = self.connections.all.get(connection as usize) else { return true };
        if let Some(known) = connection.observer_is_client {
            return known;
        }
        match self.facts.sockets.get(connection.observer).map(|socket| (&socket.local, &socket.remote)) {
            Some((Endpoint::Ip(_, local), Endpoint::Ip(_, remote))) => remote <= local,
            _ => true,
        }
    }
}

/// Who is at the ends of a connection.
fn ends(connection: &Connection, facts: &Facts, services: &mut Services) -> Ends {
    let Some(observer) = facts.sockets.get(connection.observer) else {
        return Ends { observer: End::default(), other_as_server: End::default(), other_as_client: End::default() };
    };
    let time_ns = facts.began_ns(observer);
    let own = services.end_of_socket(observer, &facts.processes, &facts.kube);
    let is_server = connection.observer_is_client == Some(false);
    let own =
        own.unwrap_or_else(|| services.end_of_address(&observer.local, observer, is_server, time_ns, &facts.kube));
    let peer = connection.peer.and_then(|peer| facts.sockets.get(peer));
    let owned = peer.and_then(|peer| services.end_of_socket(peer, &facts.processes, &facts.kube));
    // Where the address was translated: the one nearest to whoever answered.
    let translated = connection.translated.and_then(|(copy, _)| facts.sockets.get(copy));
    let tracked = (peer.is_none() && translated.is_none()).then(|| facts.answered(observer)).flatten();
    let tracked = tracked.map(|(ip, port)| Endpoint::Ip(ip, port));
    let answering = peer.map(|peer| &peer.local).or(translated.map(|copy| &copy.remote)).or(tracked.as_ref());
    let asked = observer.asked.as_ref().unwrap_or(&observer.remote);
    let mut other = |is_server: bool| {
        let end = match (owned, answering) {
            (Some(owned), _) => owned,
            (None, _) if connection.observer_is_client.is_some_and(|is_client| is_client != is_server) => {
                End::default()
            }
            (None, Some(answering)) => services.end_of_address(answering, observer, is_server, time_ns, &facts.kube),
            (None, None) => services.end_of_address(&observer.remote, observer, is_server, time_ns, &facts.kube),
        };
        if !is_server {
            return end;
        }
        let known_by = connection.translated.map(|(_, known_by)| known_by).or(connection.known_by);
        let known_by = known_by.or(tracked.as_ref().map(|_| KnownBy::Conntrack));
        let answered = match tracked {
            Some(Endpoint::Ip(ip, port)) => Some((ip, port)),
            _ => end.answered,
        };
        // However sure the other end is: who that is stays a guess.
        let known_by = end.known_by.filter(|known_by| *known_by == KnownBy::NodeNames).or(known_by);
        End {
            answered,
            called: end.called.or(facts.kube.service_at(asked, time_ns)),
            known_by: known_by.or(end.known_by),
            ..end
        }
    };
    Ends { observer: own, other_as_server: other(true), other_as_client: other(false) }
}

/// Where a socket's streams begin. A packet from the middle of a connection tells where both stand; a socket that is found by
/// its data has moved some already.
fn start_sequences(observer: &Socket, imported: bool) -> [Option<u32>; 2] {
    let seen = observer.seen_sequences.filter(|_| imported);
    match (observer.first_sequences, seen) {
        (Some((sent, received)), _) => [Some(sent), Some(received)],
        // 0 where no acknowledgment told.
        (None, Some(seen)) => <[u32; 2]>::from(seen).map(|sequence| Some(sequence).filter(|sequence| *sequence != 0)),
        (None, None) => [None; 2],
    }
}

impl Context for World {
    fn setup(&self, connection: u32) -> Setup {
        let Some(connection) = self.connections.all.get(connection as usize) else { return Setup::default() };
        let Some(observer) = self.facts.sockets.get(connection.observer) else { return Setup::default() };
        let peer = connection.peer.and_then(|peer| self.facts.sockets.get(peer));
        let stream = matches!(observer.transport, Transport::Tcp | Transport::Mptcp | Transport::Unix);
        // Sockets without a recorded beginning are new where the walk at the start would have listed them.
        let walked = || {
            let node = self.facts.nodes.get(observer.id.0 as usize);
            node.is_some_and(|node| node.manifest.probes.iter().any(|probe| probe.name == WALK && probe.attached))
        };
        let unlisted = !matches!(observer.transport, Transport::Tcp) && observer.found_by_data && walked();
        let port = |endpoint: &Endpoint| match endpoint {
            Endpoint::Ip(_, port) => Some(*port),
            Endpoint::Path(_) => None,
        };
        let ports = [port(&observer.local), port(&observer.remote)];
        let imported = self.facts.nodes.get(observer.id.0 as usize).is_some_and(NodeFacts::is_imported);
        let known_role = connection.observer_is_client.is_some() && observer.role != ROLE_UNKNOWN;
        Setup {
            // Sequence numbers mean the same at both ends; counts begin where each end was first seen.
            two_ends: peer.is_some_and(|peer| peer.offset_kind == OFFSET_TCP && observer.offset_kind == OFFSET_TCP),
            apart: peer.is_some_and(|peer| peer.id.0 != observer.id.0),
            observer_is_client: connection.observer_is_client,
            // Each datagram is whole.
            mid_stream: observer.transport != Transport::Udp
                && observer.first_sequences.is_none()
                && !(known_role && observer.opened_ns.is_some())
                && !unlisted,
            start_sequences: start_sequences(observer, imported),
            final_sequences: observer.final_sequences.filter(|_| observer.offset_kind == OFFSET_TCP),
            datagrams: observer.transport == Transport::Udp,
            opaque: !stream && observer.transport != Transport::Udp,
            in_order: imported,
            ports,
            hint: self.hint(ports, connection.observer_is_client),
            literals: self.literals,
        }
    }

    fn closed_ns(&self, connection: u32) -> Option<u64> {
        let connection = self.connections.all.get(connection as usize)?;
        let closed = self.facts.sockets.get(connection.observer)?.closed_ns?;
        match connection.peer.and_then(|peer| self.facts.sockets.get(peer)) {
            Some(peer) if peer.id.0 == self.facts.sockets.get(connection.observer)?.id.0 => {
                Some(closed.max(peer.closed_ns?))
            }
            Some(_) => None,
            None => Some(closed),
        }
    }

    fn produce(&self, request: &Request, produce: &mut Produce) {
        match self.want {
            Want::Connections => {}
            Want::RequestLines => produce.lines.push(request_line(self, request)),
            Want::Metrics => {
                let (client, server) = self.ends_of(request.connection, request.observer_is_client);
                let (client, server, pod) = (client.service, server.service, server.pod);
                let start = self.window.map_or(0, |(start, _)| start);
                let wall_ns = self.wall_ns(request.connection, request.start_ns);
                let step = (wall_ns.saturating_sub(start) / self.step_ns).min(MAX_STEPS * 2);
                produce.metrics.record(request, client, server, pod, usize::try_from(step).unwrap_or_default());
                produce.statements.record(request, client, server);
            }
        }
    }
}

impl Analysis {
    /// Replays the bundles.
    ///
    /// # Errors
    /// If a temporary file can't be written, or threads can't be started.
    pub fn new(inputs: &[Input], options: &Options, want: Want) -> io::Result<Self> {
        let mut threads = rayon::ThreadPoolBuilder::new();
        if let Some(count) = options.threads {
            // Each shard is one thread's work at a time: more threads would have none.
            threads = threads.num_threads(count.min(SHARDS));
        }
        threads.build().map_err(io::Error::other)?.install(|| Self::replay(inputs, options, want))
    }

    fn replay(inputs: &[Input], options: &Options, want: Want) -> io::Result<Self> {
        let mut world = World::new(inputs, options, want);
        let folder: PathBuf = options.tmp.clone().unwrap_or_else(std::env::temp_dir);
        // A quarter each for decoded blocks and for lines; the rest is for connections and for what they come to.
        let quarter = options.memory / 4;
        let mut lines = SortedLines::new(usize::try_from(quarter).unwrap_or(usize::MAX), &folder);
        let mut nodes = std::mem::take(&mut world.facts.nodes);
        // Shards read clocks while the numbers of events are collected beside them.
        world.facts.nodes = nodes.iter().map(NodeFacts::without_numbers).collect();
        // Beside replay: what one of the two has read is in the page cache for the other. A report waits for it.
        let hashes = (want == Want::Metrics).then(|| {
            let paths: Vec<PathBuf> = inputs.iter().map(|input| input.path.clone()).collect();
            std::thread::spawn(move || {
                let mut hashes: Vec<Option<String>> = Vec::with_capacity(paths.len());
                for (number, path) in paths.iter().enumerate() {
                    // Bundles of a merged file stand beside each other.
                    let same = number.checked_sub(1).filter(|before| paths.get(*before) == Some(path));
                    hashes.push(same.map_or_else(|| sha256(path), |before| hashes.get(before).cloned().flatten()));
                }
                hashes
            })
        });
        let outputs = run(inputs, &mut nodes, &world.facts.sockets, &world.connections, &world, &mut lines, quarter)?;
        let lost = nodes.iter().map(|node| node.seen.lost()).collect();
        world.facts.nodes = nodes;
        let mut analysis = Self {
            totals: vec![ConnectionTotals::default(); world.connections.all.len()],
            world,
            metrics: Metrics::default(),
            statements: Statements::default(),
            requests: 0,
            ledger: Ledger::default(),
            lost,
            lines,
            hashes,
        };
        for output in outputs {
            analysis.metrics.merge(output.produce.metrics);
            analysis.statements.merge(output.produce.statements);
            analysis.requests += output.produce.requests;
            analysis.ledger.merge(&output.ledger);
            for (connection, totals) in output.connections {
                if let Some(slot) = analysis.totals.get_mut(connection as usize) {
                    *slot = totals;
                }
            }
        }
        Ok(analysis)
    }

    /// True if the input was damaged or events were lost: what a script has to know.
    pub fn has_losses(&self, inputs: &[Input]) -> bool {
        let damaged = inputs.iter().any(|input| input.condition() != kfr_bundle::Condition::Whole);
        let lost = self.lost.iter().any(|lost| !lost.is_empty());
        let recorded = self.world.facts.nodes.iter().any(|node| {
            let counter = |name: &str| node.ledger.counters.get(name).copied().unwrap_or_default();
            counter("events_lost") > 0 || counter("rows_not_written") > 0
        });
        damaged
            || lost
            || recorded
            || self.ledger.bad_blocks > 0
            || self.world.facts.nodes.iter().any(|node| node.malformed > 0)
    }
}
