//! `kfr dump --requests`.

use kfr_protocols::{Flags, REGISTRY, Status};
use serde::Serialize;

use crate::World;
use crate::identity::{Endpoint, Socket};
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
    /// Service that it is counted under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Node, where it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How the two ends were matched.
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

/// What is known of one end. `other` is the recorded socket of the other end, whose remote address is this end's.
pub fn peer_record(
    world: &World,
    own: Option<&Socket>,
    other: Option<&Socket>,
    service: u32,
    known_by: Option<&'static str>,
) -> PeerRecord {
    let unknown = Endpoint::default();
    let endpoint = own.map(|own| &own.local).or(other.map(|other| &other.remote)).unwrap_or(&unknown);
    let (address, port) = match endpoint {
        Endpoint::Ip(ip, port) => (ip.to_string(), Some(*port)),
        Endpoint::Path(path) => (path.to_string(), None),
    };
    let owned = own.filter(|own| own.process != 0);
    let process = owned.and_then(|own| world.facts.processes.get(own.id.0, own.process));
    PeerRecord {
        address,
        port,
        process: owned
            .map(|own| world.facts.processes.program(own.id.0, own.process).unwrap_or_else(|| own.comm.to_string())),
        pid: owned.map(|own| own.process),
        container: process.map(|process| process.container.clone()).filter(|container| !container.is_empty()),
        workload: owned.and_then(|_| world.services.get(service)).map(|service| service.name.clone()),
        node: None,
        known_by,
    }
}

/// A request's line with the key that it is sorted by.
pub fn request_line(world: &World, request: &Request) -> KeyedLine {
    let exchange = &request.exchange;
    let (client, server) = world.sides(request.connection, request.observer_is_client);
    let (client_service, server_service) = world.services_of(request.connection, request.observer_is_client);
    let known_by = world.connections.all.get(request.connection as usize).and_then(|connection| connection.known_by);
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
        client: peer_record(world, client, server, client_service, None),
        server: peer_record(world, server, client, server_service, known_by.map(|known_by| known_by.name())),
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
