//! `kfr dump --connections`.

use std::io::{self, Write};

use kfr_protocols::{REGISTRY, Side, TlsFacts};
use serde::Serialize;

use crate::Analysis;
use crate::dump::requests::{PeerRecord, called_service, connection_id, peer_records};
use crate::identity::Closed;

/// A connection's line.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionRecord {
    /// Stable name.
    pub id: String,
    /// `tcp`, `unix`, ...
    pub transport: &'static str,
    /// The end that asks.
    pub client: PeerRecord,
    /// The end that answers.
    pub server: PeerRecord,
    /// The Kubernetes Service that was called, `namespace/name`, where its address was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Wall clock; null if before the capture.
    pub opened_ns: Option<u64>,
    /// Wall clock; null if still open, or not seen.
    pub closed_ns: Option<u64>,
    /// `client`, `server`, `reset`, `failed`, `unknown`; null if still open.
    pub how_closed: Option<&'static str>,
    /// Protocol, `tls`, or null for unknown.
    pub protocol: Option<&'static str>,
    /// What the TLS handshake showed; null where no TLS was spoken.
    pub tls: Option<TlsRecord>,
    /// Requests.
    pub requests: u64,
    /// Bytes that the client sent.
    pub bytes_sent: u64,
    /// Bytes that the client received.
    pub bytes_received: u64,
    /// Round-trip time, µs.
    pub rtt_us: RttRecord,
    /// Segments retransmitted by the recorded ends.
    pub retransmits: u64,
    /// Resets sent and received by the recorded ends.
    pub resets: u64,
    /// From connect to established, µs; null if not seen.
    pub connect_us: Option<u64>,
    /// errno of a failed connect; null if it did not fail.
    pub error: Option<u32>,
    /// What weakens the line.
    pub flags: Vec<&'static str>,
    /// First event.
    pub evidence: Vec<String>,
}

/// What a TLS handshake showed; null or empty where it was not seen.
#[derive(Debug, Clone, Serialize)]
pub struct TlsRecord {
    /// Version agreed on, or offered.
    pub version: Option<Box<str>>,
    /// Name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Application protocols agreed on or offered.
    pub alpn: Vec<Box<str>>,
    /// Cipher suite agreed on.
    pub cipher: Option<Box<str>>,
    /// Names in the server's certificate.
    pub certificate: Vec<Box<str>>,
    /// Alerts in the clear, with who sent them.
    pub alerts: Vec<String>,
    /// Both sides went over to encrypted records.
    pub established: bool,
}

impl From<&TlsFacts> for TlsRecord {
    fn from(tls: &TlsFacts) -> Self {
        let alert = |(side, alert): &(Side, Box<str>)| match side {
            Side::Client => format!("client: {alert}"),
            Side::Server => format!("server: {alert}"),
        };
        Self {
            version: tls.version.clone(),
            server_name: tls.server_name.clone(),
            alpn: tls.alpn.clone(),
            cipher: tls.cipher.clone(),
            certificate: tls.certificate.clone(),
            alerts: tls.alerts.iter().map(alert).collect(),
            established: tls.established,
        }
    }
}

/// Round-trip times, µs; null where unknown.
#[derive(Debug, Clone, Serialize)]
pub struct RttRecord {
    /// Lowest.
    pub min: Option<u64>,
    /// Median: the last smoothed value, while only that is sampled.
    pub p50: Option<u64>,
    /// Not known yet.
    pub p99: Option<u64>,
}

/// A connection's line.
pub fn connection_record(analysis: &Analysis, number: u32) -> Option<ConnectionRecord> {
    let world = &analysis.world;
    let connection = world.connections.all.get(number as usize)?;
    let observer = world.facts.sockets.get(connection.observer)?;
    let peer = connection.peer.and_then(|peer| world.facts.sockets.get(peer));
    let totals = analysis.totals.get(number as usize).cloned().unwrap_or_default();
    let observer_is_client = totals.observer_is_client.unwrap_or_else(|| world.guess_observer_is_client(number));
    let (client, server) = peer_records(world, number, observer_is_client);
    let [sent, received] = totals.bytes;
    let (bytes_sent, bytes_received) = if observer_is_client { (sent, received) } else { (received, sent) };
    let known = |value: u32| (value > 0).then_some(u64::from(value));
    let wall = |event_ns: u64| world.wall_ns(number, event_ns);
    let how_closed = if observer.failed {
        Some("failed")
    } else {
        observer.closed.map(|closed| match (closed, observer_is_client) {
            (Closed::Here, true) | (Closed::There, false) => "client",
            (Closed::Here, false) | (Closed::There, true) => "server",
            (Closed::Reset, _) => "reset",
            (Closed::Unknown, _) => "unknown",
        })
    };
    let mut flags = Vec::new();
    for (set, name) in [
        (totals.mid_stream, "mid_stream"),
        (totals.gaps > 0, "gap"),
        (totals.order_uncertain > 0, "order_uncertain"),
        (totals.tls.is_some(), "encrypted"),
        (totals.skipped_bytes > 0, "skipped_bytes"),
        (totals.observer_is_client.is_none(), "roles_guessed"),
    ] {
        if set {
            flags.push(name);
        }
    }
    let protocol = if totals.tls.is_some() {
        Some("tls")
    } else {
        totals.protocol.and_then(|protocol| REGISTRY.get(usize::from(protocol))).map(|protocol| protocol.name)
    };
    Some(ConnectionRecord {
        id: connection_id(world, number),
        transport: observer.transport.name(),
        client,
        server,
        service: called_service(world, number, observer_is_client),
        opened_ns: observer.opened_ns.map(wall),
        closed_ns: observer.closed_ns.map(wall),
        how_closed,
        protocol,
        tls: totals.tls.as_deref().map(TlsRecord::from),
        requests: totals.requests,
        bytes_sent,
        bytes_received,
        rtt_us: RttRecord { min: known(observer.rtt_min_us), p50: known(observer.rtt_us), p99: None },
        retransmits: u64::from(observer.retransmits) + peer.map_or(0, |peer| u64::from(peer.retransmits)),
        resets: u64::from(observer.resets) + peer.map_or(0, |peer| u64::from(peer.resets)),
        connect_us: observer.connecting_ns.zip(observer.opened_ns).map(|(from, to)| to.saturating_sub(from) / 1000),
        error: observer.failed.then_some(observer.error).filter(|error| *error != 0),
        flags,
        evidence: observer.evidence.into_iter().map(|address| address.to_string()).collect(),
    })
}

/// All connections, in the order in which they were first seen.
///
/// # Errors
/// If `out` fails.
pub fn connection_lines(analysis: &Analysis, out: &mut dyn Write) -> io::Result<()> {
    let world = &analysis.world;
    let mut order: Vec<(u64, u32)> = world
        .connections
        .all
        .iter()
        .enumerate()
        .map(|(number, connection)| {
            let first = world.facts.sockets.get(connection.observer).map_or(0, |socket| socket.first_seen_ns);
            (world.wall_ns(number as u32, first), number as u32)
        })
        .collect();
    order.sort_unstable();
    for (_, number) in order {
        if let Some(record) = connection_record(analysis, number) {
            serde_json::to_writer(&mut *out, &record)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}
