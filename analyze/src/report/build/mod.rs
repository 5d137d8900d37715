//! From an [`Analysis`] to the [`Document`].

mod cluster;
mod host;
mod ledger;
mod logs;
mod services;

use kfr_protocols::REGISTRY;

use crate::dump::{ConnectionRecord, PeerRecord, connection_record, fingerprint, parent_fingerprint, statement_flags};
use crate::findings;
use crate::identity::Socket;
use crate::model::Exemplar;
use crate::replay::Input;
use crate::report::document::{
    self, Bundle, Capture, Document, Network, NetworkTotals, Node, SCHEMA_VERSION, Setting, Statement, Tool,
};
use crate::sql::Statements;
use crate::{Analysis, Options, World};

/// Connections that the report lists.
const MAX_CONNECTIONS: usize = 200;
/// Statements that the report lists.
const MAX_STATEMENTS: usize = 500;

/// Makes the document.
pub fn build(inputs: &[Input], mut analysis: Analysis, options: &Options) -> Document {
    let literals = options.literals;
    let mut metrics = std::mem::take(&mut analysis.metrics);
    let by_pod = std::mem::take(&mut metrics.pods);
    let cluster::Parts { workloads, pods, groups, changes } = cluster::build(&analysis, &by_pod, &options.group_by);
    let statements = std::mem::take(&mut analysis.statements);
    let hashes = analysis.hashes.take().and_then(|hashes| hashes.join().ok()).unwrap_or_default();
    let (services, edges, overall) = services::build(&analysis, metrics, literals);
    let logs = logs::build(inputs, &analysis.world);
    let mut document = Document {
        schema_version: SCHEMA_VERSION.to_string(),
        tool: Tool { name: "kfr".to_string(), version: env!("CARGO_PKG_VERSION").to_string() },
        capture: capture(inputs, &analysis.world, hashes, literals),
        ledger: ledger::build(inputs, &analysis, &logs),
        overall,
        services,
        edges,
        workloads,
        pods,
        groups,
        changes,
        nodes: nodes(inputs, &analysis.world),
        sql: sql(&analysis.world, statements),
        network: network(&analysis),
        logs: logs.groups,
        log_containers: logs.containers,
        ..Document::default()
    };
    findings::run(&mut document);
    cluster::worst_first(&mut document);
    document
}

/// The recorded hosts, then those that only Kubernetes knows; each by name.
fn nodes(inputs: &[Input], world: &World) -> Vec<Node> {
    let recorded = world.facts.nodes.iter().zip(inputs);
    // A packet capture says nothing of a node.
    let recorded = recorded.filter(|(node, _)| node.manifest.source.is_empty());
    let mut nodes: Vec<Node> = recorded.map(|(node, input)| host::build(node, input)).collect();
    let mut known = cluster::nodes(&world.facts.cluster);
    for node in &mut nodes {
        node.kubernetes = known.remove(&node.name);
    }
    let others = known.into_iter().map(|(name, of)| Node { name, kubernetes: Some(of), ..Node::default() });
    nodes.extend(others);
    nodes
}

fn capture(inputs: &[Input], world: &World, hashes: Vec<Option<String>>, literals: bool) -> Capture {
    let mut nodes: Vec<String> = inputs.iter().map(|input| input.reader.header().node.clone()).collect();
    nodes.retain(|node| !node.is_empty());
    nodes.sort();
    nodes.dedup();
    let mut hashes = hashes.into_iter();
    let bundles = inputs.iter().zip(&world.facts.nodes).map(|(input, node)| {
        let sha256 = hashes.next().flatten();
        let header = input.reader.header();
        let manifest = &node.manifest;
        let text = |value: &str| (!value.is_empty()).then(|| value.to_string());
        let mut options = Vec::new();
        let mut option = |name: &str, value: String| options.push(Setting { name: name.to_string(), value });
        if manifest.payload_limit > 0 {
            option("payload-limit", super::text::bytes(u64::from(manifest.payload_limit)));
            option("buffer-size", super::text::bytes(manifest.buffer_bytes));
        }
        let imported = !manifest.source.is_empty();
        if imported {
            option(Bundle::IMPORTED_FROM, manifest.source.clone());
        }
        if !manifest.filters.is_empty() {
            option("filters", manifest.filters.join(" "));
        }
        if !manifest.end.is_empty() {
            option("ended by", manifest.end.clone());
        }
        let damage = input.reader.damage();
        Bundle {
            file: input.name(),
            id: header.bundle_id.to_string(),
            origin: format!("{:08x}", header.short_origin()),
            node: header.node.clone(),
            kernel: text(&manifest.kernel),
            hook: text(&manifest.socket_hook).filter(|_| !imported),
            options,
            bytes: input.reader.file_bytes(),
            sha256,
            start_ns: node.window.map(|(first, _)| node.clock.wall_ns(first)),
            end_ns: node.window.map(|(_, last)| node.clock.wall_ns(last)),
            whole: !damage.is_loss() && !damage.no_footer,
        }
    });
    Capture {
        cluster: None,
        nodes,
        start_ns: world.window.map(|(start, _)| start),
        end_ns: world.window.map(|(_, end)| end),
        duration_ns: world.window.map(|(start, end)| end.saturating_sub(start)),
        step_ns: world.step_ns,
        redaction: if inputs.iter().any(|input| input.reader.header().redaction == 0) { "none" } else { "redacted" }
            .to_string(),
        masked: !literals,
        clock_error_ns: world.facts.clock_error_ns,
        bundles: bundles.collect(),
    }
}

fn sql(world: &World, statements: Statements) -> Vec<Statement> {
    let sorted = statements.into_sorted().into_iter().take(MAX_STATEMENTS);
    sorted
        .map(|((protocol, text), statement)| {
            let system = protocol_name(protocol);
            let name = |service: &u32| services::id(world, *service);
            let mut flags: Vec<String> = statement_flags(&statement).into_iter().map(String::from).collect();
            if statement.longest_run >= crate::sql::RUN_OF_NOTE {
                flags.push(format!("repeated {} times in a row", statement.longest_run));
            }
            Statement {
                fingerprint: fingerprint(system, &text),
                text: text.into(),
                system: system.to_string(),
                server: statement.servers.iter().next().map(name),
                calls: statement.calls,
                errors: statement.errors,
                unknown: statement.unknown,
                total_ns: u64::try_from(statement.durations.sum()).unwrap_or(u64::MAX),
                mean_ns: statement.durations.mean(),
                p95_ns: statement.durations.quantile(950),
                max_ns: statement.durations.max(),
                rows: (statement.calls_with_rows > 0).then_some(statement.rows),
                affected: (statement.calls_with_affected > 0).then_some(statement.affected),
                warnings: statement.warnings,
                no_index: statement.no_index,
                no_good_index: statement.no_good_index,
                slow: statement.slow,
                n_plus_one: (statement.n_plus_one.occurrences > 0).then(|| document::NPlusOne {
                    occurrences: statement.n_plus_one.occurrences,
                    calls: statement.n_plus_one.calls,
                    longest: statement.n_plus_one.longest,
                    parent: parent_fingerprint(&statement.n_plus_one),
                }),
                idle_in_transaction: statement.idle.longest.as_ref().map(|(max_ns, call)| {
                    document::IdleInTransaction {
                        count: statement.idle.count,
                        total_ns: statement.idle.total_ns,
                        max_ns: *max_ns,
                        exemplar: Some(exemplar(world, call)),
                    }
                }),
                callers: statement.callers.iter().map(name).collect(),
                flags,
                exemplar: statement.slowest.map(|slowest| exemplar(world, &slowest)),
            }
        })
        .collect()
}

fn protocol_name(protocol: u16) -> &'static str {
    REGISTRY.get(usize::from(protocol)).map_or("unknown", |protocol| protocol.name)
}

fn evidence(exemplar: &Exemplar) -> Vec<String> {
    [exemplar.evidence.request, exemplar.evidence.response].into_iter().flatten().map(|at| at.to_string()).collect()
}

fn exemplar(world: &World, exemplar: &Exemplar) -> document::Exemplar {
    let (connection, number) = exemplar.request;
    document::Exemplar {
        request: format!("{}-{number}", crate::dump::connection_id(world, connection)),
        start_ns: world.wall_ns(connection, exemplar.start_ns),
        duration_ns: exemplar.duration_ns,
        evidence: evidence(exemplar),
    }
}

fn network(analysis: &Analysis) -> Network {
    let world = &analysis.world;
    let mut totals = NetworkTotals::default();
    let ends = |number: usize| {
        let connection = world.connections.all.get(number);
        let observer = connection.and_then(|connection| world.facts.sockets.get(connection.observer));
        let peer = connection.and_then(|connection| connection.peer).and_then(|peer| world.facts.sockets.get(peer));
        (observer, peer)
    };
    // Without the probe the figure is unknown, not 0.
    let attached = |probe: &str| {
        let nodes = &world.facts.nodes;
        !nodes.is_empty()
            && nodes.iter().all(|node| node.manifest.probes.iter().any(|fact| fact.name == probe && fact.attached))
    };
    let (states, retransmits) = (attached("connection/state"), attached("connection/retransmit"));
    let resets = attached("connection/reset-received") && attached("connection/reset-sent");
    let mut ranked = Vec::new();
    for (number, one) in analysis.totals.iter().enumerate() {
        let (Some(observer), peer) = ends(number) else { continue };
        let sum = |pick: fn(&Socket) -> u32| u64::from(pick(observer)) + peer.map_or(0, |peer| u64::from(pick(peer)));
        let add = |total: &mut Option<u64>, known: bool, value: u64| {
            if known {
                *total = Some(total.unwrap_or_default() + value);
            }
        };
        add(&mut totals.opened, states, u64::from(observer.opened_ns.is_some() && !observer.failed));
        add(&mut totals.closed, states, u64::from(observer.closed_ns.is_some() && !observer.failed));
        add(&mut totals.failed_connects, states, u64::from(observer.failed));
        add(&mut totals.resets, resets, sum(|socket| socket.resets));
        add(&mut totals.retransmits, retransmits, sum(|socket| socket.retransmits));
        totals.bytes_sent += one.bytes.first().copied().unwrap_or_default();
        totals.bytes_received += one.bytes.get(1).copied().unwrap_or_default();
        let trouble = u64::from(observer.failed) + sum(|socket| socket.resets) + sum(|socket| socket.retransmits);
        let bytes: u64 = one.bytes.iter().sum();
        if bytes > 0 || observer.failed {
            ranked.push((std::cmp::Reverse((trouble, bytes)), number as u32));
        }
    }
    let connections_idle = (analysis.totals.len() - ranked.len()) as u64;
    totals.segments_sent = segments_sent(world);
    let connections_total = ranked.len() as u64;
    ranked.sort_unstable();
    let connections =
        ranked.into_iter().take(MAX_CONNECTIONS).filter_map(|(_, number)| connection_record(analysis, number));
    Network { totals, connections: connections.map(connection).collect(), connections_total, connections_idle }
}

/// Segments that all nodes sent during the capture: the denominator of retransmissions.
fn segments_sent(world: &World) -> Option<u64> {
    let each = world.facts.nodes.iter().map(|node| {
        let value = |sample: Option<&kfr_bundle::facts::HostSample>| sample?.network.get("Tcp.OutSegs").copied();
        Some(value(node.host.last())?.saturating_sub(value(node.host.first())?))
    });
    each.sum()
}

fn connection(record: ConnectionRecord) -> document::Connection {
    document::Connection {
        id: record.id,
        transport: record.transport.to_string(),
        client: peer(record.client),
        server: peer(record.server),
        opened_ns: record.opened_ns,
        closed_ns: record.closed_ns,
        how_closed: record.how_closed.map(String::from),
        protocol: record.protocol.unwrap_or("unknown").to_string(),
        requests: record.protocol.filter(|protocol| *protocol != "tls").map(|_| record.requests),
        bytes_sent: record.bytes_sent,
        bytes_received: record.bytes_received,
        rtt_us: (record.rtt_us.min.is_some() || record.rtt_us.p50.is_some()).then(|| document::Rtt {
            min: record.rtt_us.min.map(|value| value as f64),
            p50: record.rtt_us.p50.map(|value| value as f64),
            p99: record.rtt_us.p99.map(|value| value as f64),
        }),
        retransmits: Some(record.retransmits),
        resets: Some(record.resets),
        connect_us: record.connect_us,
        flags: record.flags.into_iter().map(String::from).collect(),
        evidence: record.evidence,
    }
}

fn peer(record: PeerRecord) -> document::Peer {
    document::Peer {
        address: record.address,
        port: record.port,
        process: record.process,
        container: record.container,
        pod: None,
        workload: record.workload,
        node: record.node,
        known_by: record.known_by.map(String::from),
    }
}
