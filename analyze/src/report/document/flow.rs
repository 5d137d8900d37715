//! Services, the edges between them, statements and connections.

use super::{Golden, write_rounded};
use serde::{Deserialize, Serialize};

/// What a service stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// A systemd unit.
    Unit,
    /// A container.
    Container,
    /// A group of processes with one executable.
    #[default]
    Process,
    /// A Kubernetes workload: a Deployment, StatefulSet, DaemonSet, ... with all its pods.
    Workload,
    /// A Kubernetes Service of which nobody knows who answers.
    Service,
    /// Something outside the recorded nodes: known by its address only.
    External,
}

/// Something that answers or sends requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Stable for the same bundle; edges, findings and statements refer to it.
    pub id: String,
    /// Readable name.
    pub name: String,
    /// What it is.
    pub kind: ServiceKind,
    /// Where it runs; null for what is outside.
    pub node: Option<String>,
    /// Addresses it listens on, `127.0.0.1:3306`, sorted.
    pub listens: Vec<String>,
    /// Its processes, by pid.
    pub processes: Vec<Process>,
    /// Protocols it answers, by requests.
    pub protocols: Vec<String>,
    /// Requests that it answered. Without requests: it is a client only.
    pub inbound: Golden,
    /// The same by operation and target: those with most failures first, then slow ones, then by total time.
    pub endpoints: Vec<Endpoint>,
    /// How many endpoints there are, also those that `endpoints` leaves out.
    pub endpoints_total: u64,
    /// Requests that it sent, all dependencies together; null where it sent none.
    pub outbound: Option<Golden>,
    /// `mid_stream`, `encrypted`, ...
    pub flags: Vec<String>,
    /// Ids of the ledger entries that weaken these figures.
    pub weakened_by: Vec<String>,
}

/// A process of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// As the host numbers it.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
    /// Path of its executable.
    pub exe: Option<String>,
    /// Command line, secrets masked.
    pub command: Option<String>,
    /// Container id.
    pub container: Option<String>,
}

/// One operation of a service on one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `http`, `mysql`, `redis`.
    pub protocol: String,
    /// The protocol's word: `GET`, `query`, `HGET`.
    pub op: String,
    /// Route, statement, key pattern; null where the operation has none.
    pub target: Option<String>,
    /// Its golden metrics.
    pub golden: Golden,
    /// The slowest request.
    #[serde(default)]
    pub slowest: Option<Exemplar>,
    /// The first request that failed.
    #[serde(default)]
    pub first_error: Option<Exemplar>,
    /// From when on it failed more often than a finding allows; null where it did so from its first request on, where it
    /// does not, or where its course was not kept.
    #[serde(default)]
    pub errors_since_ns: Option<u64>,
    /// Codes of its errors, the most frequent ones first; a few at most.
    #[serde(default)]
    pub error_codes: Vec<CodeCount>,
}

/// How often an error code came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeCount {
    /// The protocol's: `404`, `1146`, `WRONGTYPE`.
    pub code: String,
    /// How often.
    pub count: u64,
}

/// Requests and connections from one service to another, over one protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Stable for the same bundle.
    pub id: String,
    /// Id of the calling service.
    pub client: String,
    /// Id of the answering service.
    pub server: String,
    /// Protocol.
    pub protocol: String,
    /// Its golden metrics.
    pub golden: Golden,
    /// Connections.
    pub connections: u64,
    /// Client to server.
    pub bytes_sent: u64,
    /// Server to client.
    pub bytes_received: u64,
    /// TCP segments sent again; null where not observed.
    pub retransmits: Option<u64>,
    /// Connections ended by a reset; null where not observed.
    pub resets: Option<u64>,
    /// Connection attempts that failed; null where not observed.
    pub failed_connects: Option<u64>,
    /// `one_sided`, `probe`, ...
    pub flags: Vec<String>,
    /// How the server's identity is known: `sequence`, `address`, `conntrack`, `endpoint_slice`, `dns`, ...
    pub known_by: Option<String>,
    /// What of it goes from one zone to another; null where the zones of the two ends are not known.
    pub cross_zone: Option<CrossZone>,
}

/// Traffic between zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossZone {
    /// Connections.
    pub connections: u64,
    /// Bytes, both ways.
    pub bytes: u64,
}

impl Statement {
    /// Calls whose outcome is known: what shares of errors are of.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.calls.saturating_sub(self.unknown)
    }
}

/// All calls of one normalised statement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Stable hash of the normalised text.
    pub fingerprint: String,
    /// The text, literals as `?` unless asked otherwise.
    pub text: String,
    /// `mysql`, `postgresql`.
    pub system: String,
    /// Id of the service that ran it.
    pub server: Option<String>,
    /// Calls.
    pub calls: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls whose outcome was not seen; shares of errors are without them.
    #[serde(default)]
    pub unknown: u64,
    /// Time of all answered calls together.
    pub total_ns: u64,
    /// Mean of an answered call; null where none was answered.
    pub mean_ns: Option<u64>,
    /// 95th percentile.
    pub p95_ns: Option<u64>,
    /// Longest call.
    pub max_ns: Option<u64>,
    /// Rows returned or changed; null where the protocol did not tell.
    pub rows: Option<u64>,
    /// Rows changed; null where the protocol did not tell them apart from rows returned.
    #[serde(default)]
    pub affected: Option<u64>,
    /// Warnings.
    #[serde(default)]
    pub warnings: u64,
    /// Calls of which the server says that no index was used.
    #[serde(default)]
    pub no_index: u64,
    /// Calls of which the server says that no good index was used.
    #[serde(default)]
    pub no_good_index: u64,
    /// Calls that the server calls slow.
    #[serde(default)]
    pub slow: u64,
    /// Runs of calls behind a statement with about as many rows; null where there were none.
    #[serde(default)]
    pub n_plus_one: Option<NPlusOne>,
    /// Time in open transactions with nothing asked, behind calls of this statement; null where there was none.
    #[serde(default)]
    pub idle_in_transaction: Option<IdleInTransaction>,
    /// Ids of the calling services, by calls.
    pub callers: Vec<String>,
    /// `n_plus_one`, `truncated`, ...
    pub flags: Vec<String>,
    /// The slowest call, to look at.
    pub exemplar: Option<Exemplar>,
}

/// One query, then one for each of its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NPlusOne {
    /// Times.
    pub occurrences: u64,
    /// Calls in them.
    pub calls: u64,
    /// Most calls of one.
    pub longest: u64,
    /// Fingerprint of the statement before the longest.
    pub parent: Option<String>,
}

/// Time between the end of a request, with a transaction open, and the next request on its connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IdleInTransaction {
    /// Times.
    pub count: u64,
    /// Together.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// The call before the longest.
    pub exemplar: Option<Exemplar>,
}

/// One request picked to stand for many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Id of the request (as `kfr dump --requests` prints it).
    pub request: String,
    /// When it began.
    pub start_ns: u64,
    /// How long it took; null where unanswered.
    pub duration_ns: Option<u64>,
    /// Event addresses `ORIGIN.BLOCK:ROW`.
    pub evidence: Vec<String>,
}

/// Transport figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Sums over all connections.
    pub totals: NetworkTotals,
    /// Connections with problems first, then by bytes; cut to the most telling ones.
    pub connections: Vec<Connection>,
    /// How many connections there are that carried something or failed.
    pub connections_total: u64,
    /// Further connections, open but idle: no byte and no failure during the capture. Neither listed nor counted above.
    #[serde(default)]
    pub connections_idle: u64,
}

/// Sums over all connections; null where the probe that counts them did not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkTotals {
    /// Opened during the capture.
    pub opened: Option<u64>,
    /// Closed during the capture.
    pub closed: Option<u64>,
    /// Attempts that failed.
    pub failed_connects: Option<u64>,
    /// Ended by a reset.
    pub resets: Option<u64>,
    /// Segments sent again.
    pub retransmits: Option<u64>,
    /// Segments sent: the denominator of `retransmits`.
    pub segments_sent: Option<u64>,
    /// Bytes sent by the openers.
    pub bytes_sent: u64,
    /// Bytes sent by the other side.
    pub bytes_received: u64,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// IP address or socket path.
    pub address: String,
    /// Port; null for unix sockets.
    pub port: Option<u16>,
    /// Process name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<String>,
    /// Container id or name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    /// Pod.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<String>,
    /// Workload or unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<String>,
    /// Node.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// How this is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub known_by: Option<String>,
}

/// A connection, with the keys of `kfr dump --connections`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Stable for the same bundle.
    pub id: String,
    /// `tcp`, `udp`, `unix`, `mptcp`.
    pub transport: String,
    /// Who opened it.
    pub client: Peer,
    /// Who accepted it.
    pub server: Peer,
    /// When it was opened; null where older than the capture.
    pub opened_ns: Option<u64>,
    /// When it was closed; null where it outlived the capture.
    pub closed_ns: Option<u64>,
    /// `fin`, `reset`, `timeout`, `refused`, `open`; null where unknown.
    pub how_closed: Option<String>,
    /// Protocol, `unknown`, or `encrypted`.
    pub protocol: String,
    /// Requests on it; null where it could not be decoded.
    pub requests: Option<u64>,
    /// Client to server.
    pub bytes_sent: u64,
    /// Server to client.
    pub bytes_received: u64,
    /// Round-trip times; null where not measured.
    pub rtt_us: Option<Rtt>,
    /// Segments sent again; null where not observed.
    pub retransmits: Option<u64>,
    /// Resets; null where not observed.
    pub resets: Option<u64>,
    /// From SYN to ESTABLISHED.
    pub connect_us: Option<u64>,
    /// `mid_stream`, `gap`, `truncated`, ...
    pub flags: Vec<String>,
    /// Event addresses.
    pub evidence: Vec<String>,
}

/// Round-trip times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rtt {
    /// Least.
    #[serde(serialize_with = "write_rounded")]
    pub min: Option<f64>,
    /// Median.
    #[serde(serialize_with = "write_rounded")]
    pub p50: Option<f64>,
    /// 99th percentile.
    #[serde(serialize_with = "write_rounded")]
    pub p99: Option<f64>,
}
