//! A connection as the rest of replay sees it: what it is made of, what it comes to.

use kfr_protocols::TlsFacts;

/// What a connection is made of, as far as replay needs it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// The other end was recorded and counts offsets alike.
    pub two_ends: bool,
    /// The other end is in another bundle: its times are of another clock, and it may be replayed later.
    pub apart: bool,
    /// `None`: detection decides.
    pub observer_is_client: Option<bool>,
    /// Its start was not seen.
    pub mid_stream: bool,
    /// TCP: sequence numbers of the first byte (sent, received) by the observer; in the middle of a connection, of the first
    /// that the recording can have.
    pub start_sequences: [Option<u32>; 2],
    /// TCP: sequence numbers behind the last byte (sent, received) of the observer, where its end was seen.
    pub final_sequences: Option<(u32, u32)>,
    /// Each event is a datagram: whole, and in the order in which its socket saw it.
    pub datagrams: bool,
    /// Neither a stream nor datagrams that anybody reads: counted, not decoded.
    pub opaque: bool,
    /// Events are in the order of the stream already: a jump is a gap at once (imported packets).
    pub in_order: bool,
    /// Ports of the observer's end and of the other one, where there are any.
    pub ports: [Option<u16>; 2],
    /// The protocol, where the user said it: its number in the registry.
    pub hint: Option<u16>,
    /// Show values.
    pub literals: bool,
}

/// What a connection comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionTotals {
    /// Index in the registry of protocols, of several that of most requests; `None`: unknown.
    pub protocol: Option<u16>,
    /// Whether the observer is the client; `None`: never known.
    pub observer_is_client: Option<bool>,
    /// Requests.
    pub requests: u64,
    /// Bytes that the observer sent and received.
    pub bytes: [u64; 2],
    /// Bytes that no event shows, and how often.
    pub gap_bytes: u64,
    /// Places where bytes are missing.
    pub gaps: u64,
    /// Bytes decoders passed over.
    pub skipped_bytes: u64,
    /// Calls whose order is a guess.
    pub order_uncertain: u64,
    /// What its TLS handshake showed; `Some` wherever TLS was spoken.
    pub tls: Option<Box<TlsFacts>>,
    /// Its start was not seen.
    pub mid_stream: bool,
    /// First and last event time.
    pub first_ns: u64,
    /// Last event time.
    pub last_ns: u64,
}
