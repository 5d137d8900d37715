//! `kfr dump --requests`.

use kfr_protocols::{Flags, REGISTRY, Status};
use serde::Serialize;

use crate::World;
use crate::identity::{End, Endpoint, KnownBy, ServiceKind, Socket};
use crate::model::{Request, mask_path};
use crate::replay::KeyedLine;

/// One end of a request or connection.
#[derive(Debug, Clone, Serialize)]
pub struct PeerRecord {
    /// Address, or a unix socket's path.
    pub address: String,
    /// Port; null for a unix socket.
    pub port: Option<u16>,
    /// Program, where it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Pid, where it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Container id, where it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Pod, as `namespace/name`, where Kubernetes or files of its node say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Service that it is counted under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Node, where it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How the two ends were matched, or who this one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_by: Option<&'static str>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    protocol: &'a str,
    op: &'a str,
    target: Option<&'a str>,
    /// Null where nothing that tells was read.
    status: Option<&'static str>,
    code: Option<&'a str>,
    error: Option<&'a str>,
    client: PeerRecord,
    server: PeerRecord,
    /// The Kubernetes Service that was called, `namespace/name`, where its address was.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    start_ns: u64,
    ttfb_ns: Option<u64>,
    duration_ns: Option<u64>,
    server_ns: Option<u64>,
    request_bytes: u64,
    response_bytes: u64,
    rows: Option<u64>,
    flags: Vec<&'static str>,
    evidence: Vec<String>,
}

/// What is known of the client and the server of a connection.
pub fn peer_records(world: &World, connection: u32, observer_is_client: bool) -> (PeerRecord, PeerRecord) {
    let (client, server) = world.sides(connection, observer_is_client);
    let (client_end, server_end) = world.ends_of(connection, observer_is_client);
    let nowhere = Endpoint::default();
    let answered = world.translated(connection).map(|socket| &socket.remote);
    let local = client.map(|own| &own.local).or(server.map(|other| &other.remote)).unwrap_or(&nowhere);
    let remote = server.map(|own| &own.local).or(answered).or(client.map(|other| &other.remote)).unwrap_or(&nowhere);
    let guessed = client_end.known_by.filter(|known_by| *known_by == KnownBy::NodeNames);
    let client_end = End { known_by: guessed, ..client_end };
    (peer_record(world, client, local, client_end), peer_record(world, server, remote, server_end))
}

fn peer_record(world: &World, own: Option<&Socket>, endpoint: &Endpoint, end: End) -> PeerRecord {
    let answered = end.answered.map(|(ip, port)| Endpoint::Ip(ip, port));
    let (address, port) = match answered.as_ref().unwrap_or(endpoint) {
        Endpoint::Ip(ip, port) => (ip.to_string(), Some(*port)),
        Endpoint::Path(path) => (path.to_string(), None),
    };
    let owned = own.filter(|own| own.process != 0);
    let process = owned.and_then(|own| world.facts.processes.get(own.id.0, own.process));
    let kube = &world.facts.kube;
    let pod = end.pod.and_then(|pod| kube.pod(pod));
    let recorded_on = owned.and_then(|own| world.facts.nodes.get(own.id.0 as usize)).map(|node| &node.name);
    let service = world.services.get(end.service);
    let is_named = end.known_by == Some(KnownBy::Dns);
    let named = service.filter(|service| owned.is_some() || service.kind == ServiceKind::Workload || is_named);
    PeerRecord {
        address,
        port,
        process: owned
            .map(|own| world.facts.processes.program(own.id.0, own.process).unwrap_or_else(|| own.comm.to_string())),
        pid: owned.map(|own| own.process),
        container: process.map(|process| process.container.clone()).filter(|container| !container.is_empty()),
        pod: pod.map(|pod| format!("{}/{}", pod.namespace, pod.name)),
        workload: named.map(|service| service.name.clone()),
        node: pod.map(|pod| &pod.node).or(recorded_on).filter(|node| !node.is_empty()).cloned(),
        known_by: end.known_by.map(|known_by| known_by.name()),
    }
}

/// The Kubernetes Service whose address was called.
pub fn called_service(world: &World, connection: u32, observer_is_client: bool) -> Option<String> {
    let (_, server) = world.ends_of(connection, observer_is_client);
    let service = world.facts.kube.service(server.called?)?;
    Some(format!("{}/{}", service.namespace, service.name))
}

/// A request's line with the key that it is sorted by.
pub fn request_line(world: &World, request: &Request) -> KeyedLine {
    let exchange = &request.exchange;
    let (client, server) = peer_records(world, request.connection, request.observer_is_client);
    let start_ns = world.wall_ns(request.connection, request.start_ns);
    let key = (start_ns, u64::from(request.connection) << 32 | (request.number & 0xffff_ffff));
    let protocol = REGISTRY.get(usize::from(request.protocol)).map_or("", |protocol| protocol.name);
    let masked =
        exchange.target.as_deref().filter(|_| protocol.starts_with("http") && !world.literals()).and_then(mask_path);
    let line = Line {
        id: format!("{}-{}", connection_id(world, request.connection), request.number),
        protocol,
        op: &exchange.op,
        target: masked.as_deref().or(exchange.target.as_deref()),
        status: match exchange.status {
            Status::Unknown => None,
            Status::Ok => Some("ok"),
            Status::Error => Some("error"),
            Status::Unanswered => Some("unanswered"),
        },
        code: exchange.code.as_deref(),
        error: exchange.error.as_deref(),
        client,
        server,
        service: called_service(world, request.connection, request.observer_is_client),
        start_ns,
        ttfb_ns: request.ttfb_ns,
        duration_ns: request.duration_ns,
        server_ns: request.server_ns,
        request_bytes: exchange.request_size(),
        response_bytes: exchange.response_size().unwrap_or_default(),
        rows: exchange.rows,
        flags: flag_names(exchange.flags),
        evidence: [request.evidence.request, request.evidence.response]
            .into_iter()
            .flatten()
            .map(|at| at.to_string())
            .collect(),
    };
    // A struct of strings and numbers always serialises.
    (key, serde_json::to_vec(&line).unwrap_or_default().into())
}

/// Names of the flags that are set.
pub fn flag_names(flags: Flags) -> Vec<&'static str> {
    Flags::NAMES.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect()
}

/// A name for a connection that stays the same for the same bundle: its observer's first event.
pub fn connection_id(world: &World, connection: u32) -> String {
    let observer = world.connections.all.get(connection as usize).and_then(|one| world.facts.sockets.get(one.observer));
    match observer {
        Some(Socket { evidence: Some(address), .. }) => address.to_string(),
        _ => format!("connection-{connection}"),
    }
}
