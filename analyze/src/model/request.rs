//! A request as replay found it.

use kfr_bundle::Address;
use kfr_protocols::Exchange;

/// Where the first events of a request and of its answer are in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// First event of the request.
    pub request: Option<Address>,
    /// First event of the answer.
    pub response: Option<Address>,
}

/// A request with its times. Times are event times (ns) of the bundle that its connection's observer belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number of the connection in the table of connections.
    pub connection: u32,
    /// Number of the request on its connection, from 0.
    pub number: u64,
    /// Whether the connection's observer is its client.
    pub observer_is_client: bool,
    /// Index in the protocol registry.
    pub protocol: u16,
    /// What the decoder found.
    pub exchange: Exchange,
    /// When its first byte left the client, or (where only the server was recorded) was read by the server.
    pub start_ns: u64,
    /// From `start_ns` to the first byte of the answer; `None` where unanswered.
    pub ttfb_ns: Option<u64>,
    /// From `start_ns` to the last byte of the answer; `None` where unanswered.
    pub duration_ns: Option<u64>,
    /// From the server's reading of the request to its sending of the answer, where the server was recorded too.
    pub server_ns: Option<u64>,
    /// Where it is in the bundle.
    pub evidence: Evidence,
}
