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

/// One request that stands for many: the slowest, or the first that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// How long it took, ns.
    pub duration_ns: Option<u64>,
    /// When it began, event time.
    pub start_ns: u64,
    /// Its connection and number, to tell it from others as slow.
    pub request: (u32, u64),
    /// Where it is.
    pub evidence: Evidence,
}

impl Exemplar {
    /// A request as an exemplar.
    pub fn of(request: &Request) -> Self {
        Self {
            duration_ns: request.duration_ns,
            start_ns: request.start_ns,
            request: (request.connection, request.number),
            evidence: request.evidence,
        }
    }

    /// The slower of two; of two as slow the earlier, then the one with the lower number.
    pub fn slower(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let rank = |one: &Self| (one.duration_ns, std::cmp::Reverse((one.start_ns, one.request)));
        match (a, b) {
            (Some(a), Some(b)) => Some(if rank(&b) > rank(&a) { b } else { a }),
            (a, b) => a.or(b),
        }
    }

    /// The earlier of two.
    pub fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if (b.start_ns, b.request) < (a.start_ns, a.request) { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}
