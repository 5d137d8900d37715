//! Services, endpoints and edges.

use std::collections::BTreeMap;

use kfr_bundle::secrets::mask_arguments;
use kfr_protocols::REGISTRY;

use crate::dump::fingerprint;
use crate::identity::{Endpoint, ServiceKind, Transport};
use crate::model::{self, EndpointCounts, EndpointKey, Metrics, SLOW_NS, Step};
use crate::report::ERRORS_WARNING;
use crate::report::document::{self, CodeCount, CrossZone, Edge, Golden, Point, Process, Service};
use crate::{Analysis, World};

/// Endpoints that the report lists for a service.
const MAX_ENDPOINTS: usize = 100;
/// Endpoints of a service whose course over time is in the report.
const MAX_COURSES: usize = 12;
/// Processes that the report lists for a service.
const MAX_PROCESSES: usize = 50;

/// What an edge's connections come to.
#[derive(Default)]
struct Traffic {
    connections: u64,
    bytes_sent: u64,
    bytes_received: u64,
    retransmits: u64,
    resets: u64,
    failed: u64,
    known_by: Option<&'static str>,
    mid_stream: u64,
    gaps: u64,
    zones: Option<CrossZone>,
}

/// A service's id: derived from what it is, so that links to it outlive a second analysis.
pub fn id(world: &World, service: u32) -> String {
    let Some(service) = world.services.get(service) else { return "s-unknown".to_string() };
    let node =
        service.bundle.and_then(|bundle| world.facts.nodes.get(bundle as usize).map(|_| bundle)).unwrap_or(u32::MAX);
    format!("s-{}", fingerprint(&format!("{:?}/{node}", service.kind), &service.name))
}

/// The services that a workload's pods are.
pub fn of_workload(world: &World, workload: u32) -> Vec<String> {
    let name = world.facts.kube.workload_name(workload);
    let all = world.services.all().iter().zip(0u32..);
    all.filter(|(service, _)| service.kind == ServiceKind::Workload && service.name == name && !name.is_empty())
        .map(|(_, number)| id(world, number))
        .collect()
}

/// Counts as the report shows them, of which no series is kept.
pub fn golden_without_series(world: &World, golden: &model::Golden) -> Golden {
    golden_of(golden, 0, world.step_ns, seconds(world))
}

/// Length of the recording.
fn seconds(world: &World) -> Option<f64> {
    world.window.map(|(start, end)| end.saturating_sub(start) as f64 / 1e9).filter(|seconds| *seconds > 0.0)
}

/// Builds them; worst services and edges first.
pub fn build(analysis: &Analysis, metrics: Metrics, literals: bool) -> (Vec<Service>, Vec<Edge>, Golden) {
    let world = &analysis.world;
    let start_ns = world.window.map_or(0, |(start, _)| start);
    let seconds = seconds(world);
    let show = |golden: &model::Golden| golden_of(golden, start_ns, world.step_ns, seconds);

    let mut traffic = traffic(analysis);
    let mut inbound: BTreeMap<u32, model::Golden> = BTreeMap::new();
    let mut outbound: BTreeMap<u32, model::Golden> = BTreeMap::new();
    let mut overall = model::Golden::default();
    let mut edges = Vec::new();
    let sorted: BTreeMap<_, _> = metrics.edges.iter().collect();
    for ((client, server, protocol), golden) in sorted {
        inbound.entry(*server).or_default().merge(golden);
        outbound.entry(*client).or_default().merge(golden);
        overall.merge(golden);
        let name = REGISTRY.get(usize::from(*protocol)).map_or("unknown", |protocol| protocol.name);
        let moved = traffic.remove(&(*client, *server, name)).unwrap_or_default();
        edges.push(edge(world, (*client, *server, name), &moved, show(golden)));
    }
    for ((client, server, name), moved) in &traffic {
        // A connection of a known protocol that carried no request: idle, part of the edge above or nothing to show.
        if (moved.bytes_sent + moved.bytes_received > 0 || moved.failed > 0) && !is_nothing(world, *client, *server) {
            edges.push(edge(world, (*client, *server, name), moved, Golden::default()));
        }
    }
    edges.sort_by(|a, b| edge_rank(b).total_cmp(&edge_rank(a)).then_with(|| a.id.cmp(&b.id)));

    let mut endpoints: BTreeMap<u32, Vec<(EndpointKey, EndpointCounts)>> = BTreeMap::new();
    for (key, counts) in metrics.into_endpoints() {
        endpoints.entry(key.server).or_default().push((key, counts));
    }
    let shown: std::collections::BTreeSet<&str> =
        edges.iter().flat_map(|edge| [edge.client.as_str(), edge.server.as_str()]).collect();
    let mut services: Vec<Service> = Vec::new();
    for (number, service) in world.services.all().iter().enumerate() {
        let number = number as u32;
        let id = id(world, number);
        if !shown.contains(id.as_str()) {
            continue;
        }
        let mut own = endpoints.remove(&number).unwrap_or_default();
        own.sort_by(|(a_key, a), (b_key, b)| {
            endpoint_rank(&b.golden).cmp(&endpoint_rank(&a.golden)).then_with(|| a_key.cmp(b_key))
        });
        let mut protocols: Vec<String> =
            edges.iter().filter(|edge| edge.server == id).map(|edge| edge.protocol.clone()).collect();
        protocols.sort();
        protocols.dedup();
        services.push(Service {
            name: service.name.clone(),
            kind: match service.kind {
                ServiceKind::Workload => document::ServiceKind::Workload,
                ServiceKind::Service => document::ServiceKind::Service,
                ServiceKind::Unit => document::ServiceKind::Unit,
                ServiceKind::Container => document::ServiceKind::Container,
                ServiceKind::Process => document::ServiceKind::Process,
                ServiceKind::External => document::ServiceKind::External,
            },
            node: None,
            listens: service.listening.iter().filter(|endpoint| is_bound(endpoint)).map(endpoint_text).collect(),
            processes: processes(world, service, literals),
            protocols,
            inbound: inbound.get(&number).map(&show).unwrap_or_default(),
            endpoints_total: own.len() as u64,
            endpoints: own
                .iter()
                .take(MAX_ENDPOINTS)
                .enumerate()
                .map(|(place, (key, counts))| {
                    let mut shown = endpoint(world, key, show(&counts.golden), counts);
                    if place < MAX_COURSES {
                        shown.golden.series = course(counts, start_ns, world.step_ns);
                    }
                    shown
                })
                .collect(),
            outbound: outbound.get(&number).map(&show),
            flags: Vec::new(),
            weakened_by: Vec::new(),
            id,
        });
    }
    services.sort_by(|a, b| {
        service_rank(b).total_cmp(&service_rank(a)).then_with(|| a.name.cmp(&b.name)).then_with(|| a.id.cmp(&b.id))
    });
    (services, edges, show(&overall))
}

/// Worst first: failures, then slow calls, then what clients did wrong, then the time that callers spent waiting.
fn endpoint_rank(golden: &model::Golden) -> (u64, u64, u64, u128) {
    let failures = golden.errors.saturating_sub(golden.client_errors);
    (failures, golden.slow, golden.client_errors, golden.durations.sum())
}

/// Requests and errors of an endpoint over time; its durations are not kept step by step.
fn course(counts: &EndpointCounts, start_ns: u64, step_ns: u64) -> Vec<Point> {
    let steps = counts.steps().unwrap_or_default().iter().enumerate();
    steps
        .map(|(step, counts)| Point {
            start_ns: start_ns + step as u64 * step_ns,
            requests: u64::from(counts.requests),
            errors: u64::from(counts.errors),
            unknown: u64::from(counts.unknown),
            p50_ns: None,
            p99_ns: None,
        })
        .collect()
}

/// When an endpoint began to fail: the first step with requests in which more than the limit failed, if it is not the
/// first of all; in that step the first failure, where it lies in it. What clients did wrong counts where nothing else
/// is wrong.
fn errors_since_ns(world: &World, counts: &EndpointCounts) -> Option<u64> {
    let start_ns = world.window.map_or(0, |(start, _)| start);
    let by_server = counts.golden.errors > counts.golden.client_errors;
    let bad = |step: &Step| {
        let failures = if by_server { step.errors - step.client_errors } else { step.errors };
        f64::from(failures) > f64::from(step.requests.saturating_sub(step.unknown)) * ERRORS_WARNING
    };
    let mut steps = counts.steps()?.iter().enumerate().filter(|(_, step)| step.requests > step.unknown);
    let (_, first) = steps.next()?;
    if bad(first) {
        return None;
    }
    let (step, _) = steps.find(|(_, step)| bad(step))?;
    let from = start_ns + step as u64 * world.step_ns;
    let first_error = counts.golden.first_error.map(|error| world.wall_ns(error.request.0, error.start_ns));
    Some(first_error.filter(|at| (from..from + world.step_ns).contains(at)).unwrap_or(from))
}

/// Worst first: the share of errors weighs most, then the time that callers spent waiting.
fn badness(golden: &Golden) -> f64 {
    let errors = golden.server_errors() as f64 / golden.judged().max(1) as f64;
    let waiting = golden.p95_ns.unwrap_or_default() as f64 / 1e9;
    errors * 100.0 + waiting.min(99.0) + (golden.requests as f64).log10().max(0.0) / 100.0
}

fn service_rank(service: &Service) -> f64 {
    if service.inbound.requests > 0 { badness(&service.inbound) } else { -1.0 }
}

fn edge_rank(edge: &Edge) -> f64 {
    if edge.golden.requests > 0 { badness(&edge.golden) } else { edge.failed_connects.unwrap_or_default() as f64 }
}

/// Ends that are nobody's: sockets without an owner or a name.
fn is_nothing(world: &World, client: u32, server: u32) -> bool {
    let nameless = |service: u32| {
        world
            .services
            .get(service)
            .is_none_or(|service| service.kind == ServiceKind::External && service.name == "unknown")
    };
    nameless(client) || nameless(server)
}

fn traffic(analysis: &Analysis) -> BTreeMap<(u32, u32, &'static str), Traffic> {
    let world = &analysis.world;
    let mut traffic: BTreeMap<(u32, u32, &'static str), Traffic> = BTreeMap::new();
    for (number, totals) in analysis.totals.iter().enumerate() {
        let number = number as u32;
        let Some(connection) = world.connections.all.get(number as usize) else { continue };
        let Some(observer) = world.facts.sockets.get(connection.observer) else { continue };
        // A node's own chatter over unix sockets is in the ledger; edges are for what has a protocol or crosses TCP.
        let internet = matches!(observer.transport, Transport::Tcp | Transport::Mptcp);
        if totals.protocol.is_none() && !internet {
            continue;
        }
        let peer = connection.peer.and_then(|peer| world.facts.sockets.get(peer));
        let observer_is_client = totals.observer_is_client.unwrap_or_else(|| world.guess_observer_is_client(number));
        let (client_end, server_end) = world.ends_of(number, observer_is_client);
        let (client, server) = (client_end.service, server_end.service);
        let name = match totals.protocol.and_then(|protocol| REGISTRY.get(usize::from(protocol))) {
            _ if totals.tls.is_some() => "tls",
            Some(protocol) => protocol.name,
            None => "unknown",
        };
        let sum = traffic.entry((client, server, name)).or_default();
        let [sent, received] = totals.bytes;
        sum.connections += 1;
        sum.bytes_sent += if observer_is_client { sent } else { received };
        sum.bytes_received += if observer_is_client { received } else { sent };
        sum.retransmits += u64::from(observer.retransmits) + peer.map_or(0, |peer| u64::from(peer.retransmits));
        sum.resets += u64::from(observer.resets) + peer.map_or(0, |peer| u64::from(peer.resets));
        sum.failed += u64::from(observer.failed);
        sum.mid_stream += u64::from(totals.mid_stream);
        sum.gaps += totals.gaps;
        if let (Some(from), Some(to)) = (world.zone_of(client_end), world.zone_of(server_end)) {
            let zones = sum.zones.get_or_insert_default();
            if from != to {
                zones.connections += 1;
                zones.bytes += sent + received;
            }
        }
        sum.known_by = sum.known_by.or(server_end.known_by.or(connection.known_by).map(|known_by| known_by.name()));
    }
    traffic
}

fn edge(world: &World, (client, server, protocol): (u32, u32, &str), moved: &Traffic, golden: Golden) -> Edge {
    let (client, server) = (id(world, client), id(world, server));
    let mut flags = Vec::new();
    if moved.mid_stream > 0 {
        flags.push(format!("{} of {} connections joined in the middle", moved.mid_stream, moved.connections));
    }
    if moved.gaps > 0 {
        flags.push(format!("{} gaps", moved.gaps));
    }
    Edge {
        id: format!("e-{}", fingerprint(protocol, &format!("{client}/{server}"))),
        client,
        server,
        protocol: protocol.to_string(),
        golden,
        connections: moved.connections,
        bytes_sent: moved.bytes_sent,
        bytes_received: moved.bytes_received,
        retransmits: Some(moved.retransmits),
        resets: Some(moved.resets),
        failed_connects: Some(moved.failed),
        flags,
        known_by: moved.known_by.map(String::from),
        cross_zone: moved.zones,
    }
}

fn endpoint(world: &World, key: &EndpointKey, golden: Golden, counts: &EndpointCounts) -> document::Endpoint {
    let codes = counts.codes().into_iter();
    document::Endpoint {
        protocol: REGISTRY.get(usize::from(key.protocol)).map_or("unknown", |protocol| protocol.name).to_string(),
        op: key.op.to_string(),
        target: (!key.target.is_empty()).then(|| key.target.to_string()),
        golden,
        slowest: counts.golden.slowest.map(|slowest| super::exemplar(world, &slowest)),
        first_error: counts.golden.first_error.map(|error| super::exemplar(world, &error)),
        errors_since_ns: errors_since_ns(world, counts),
        error_codes: codes.map(|(code, count)| CodeCount { code: code.to_string(), count }).collect(),
    }
}

fn processes(world: &World, service: &crate::identity::Service, literals: bool) -> Vec<Process> {
    let known = service.processes.iter().take(MAX_PROCESSES).map(|(bundle, pid)| {
        let process = world.facts.processes.get(*bundle, *pid);
        let command = process.filter(|process| !process.arguments.is_empty()).map(|process| {
            if literals { process.arguments.join(" ") } else { mask_arguments(&process.arguments).join(" ") }
        });
        Process {
            pid: *pid,
            name: process.map_or_else(|| format!("process {pid}"), |process| process.comm.clone()),
            exe: process.map(|process| process.executable.clone()).filter(|exe| !exe.is_empty()),
            command,
            container: process.map(|process| process.container.clone()).filter(|container| !container.is_empty()),
        }
    });
    known.collect()
}

/// An accepted connection's local address is one that the service answers on; port 0 is none.
fn is_bound(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Ip(_, port) => *port != 0,
        Endpoint::Path(path) => !path.is_empty(),
    }
}

fn endpoint_text(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Ip(ip, port) => std::net::SocketAddr::new(*ip, *port).to_string(),
        Endpoint::Path(path) => path.to_string(),
    }
}

/// Counts as the report shows them.
fn golden_of(golden: &model::Golden, start_ns: u64, step_ns: u64, seconds: Option<f64>) -> Golden {
    let series = golden.series.iter().enumerate().map(|(step, point)| Point {
        start_ns: start_ns + step as u64 * step_ns,
        requests: point.requests,
        errors: point.errors,
        unknown: point.unknown,
        p50_ns: point.durations.quantile(500),
        p99_ns: point.durations.quantile(990),
    });
    let judged = golden.requests.saturating_sub(golden.unknown);
    Golden {
        requests: golden.requests,
        errors: golden.errors,
        client_errors: golden.client_errors,
        unanswered: golden.unanswered,
        unknown: golden.unknown,
        rate_per_s: seconds.map(|seconds| golden.requests as f64 / seconds),
        error_ratio: (judged > 0).then(|| golden.errors as f64 / judged as f64),
        p50_ns: golden.durations.quantile(500),
        p95_ns: golden.durations.quantile(950),
        p99_ns: golden.durations.quantile(990),
        max_ns: golden.durations.max(),
        slow: golden.slow,
        slow_threshold_ns: Some(SLOW_NS),
        request_bytes: golden.request_bytes,
        response_bytes: golden.response_bytes,
        series: series.collect(),
    }
}
