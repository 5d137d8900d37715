//! The completeness ledger: what was lost, cut, unseen or not understood.

use std::collections::BTreeMap;

/// Bytes and events that the recording has only in part, by reason. Sums of integers: the order does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Events decoded.
    pub events: u64,
    /// Bytes that calls moved.
    pub bytes: u64,
    /// Bytes whose payload the bundle holds.
    pub kept_bytes: u64,
    /// By reason (`MISSING_` constants): events, and bytes without payload.
    pub missing: BTreeMap<u8, Loss>,
    /// Bytes that no event shows but offsets imply (lost events, splice into a socket, zero-copy receive).
    pub unseen_bytes: u64,
    /// Places where that happened.
    pub gaps: u64,
    /// Bytes passed over by decoders to find a message boundary.
    pub skipped_bytes: u64,
    /// Requests whose outcome was not seen.
    pub unknown_outcomes: u64,
    /// Requests without a name, because the bytes that hold it were cut or lost.
    pub nameless_requests: u64,
    /// Bytes of connections whose protocol was not recognised.
    pub unknown_bytes: u64,
    /// Connections with such bytes.
    pub unknown_connections: u64,
    /// Bytes of encrypted connections.
    pub encrypted_bytes: u64,
    /// Connections that are encrypted.
    pub encrypted_connections: u64,
    /// Connections joined in the middle.
    pub mid_stream_connections: u64,
    /// Calls on one socket whose order could not be restored with certainty.
    pub order_uncertain: u64,
    /// Data of sockets whose identity was never recorded.
    pub events_without_socket: u64,
    /// Blocks that could not be read or decoded.
    pub bad_blocks: u64,
}

/// Events and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// How many events.
    pub events: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Ledger {
    /// Adds another ledger.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.kept_bytes += other.kept_bytes;
        for (reason, loss) in &other.missing {
            let sum = self.missing.entry(*reason).or_default();
            sum.events += loss.events;
            sum.bytes += loss.bytes;
        }
        self.unseen_bytes += other.unseen_bytes;
        self.gaps += other.gaps;
        self.skipped_bytes += other.skipped_bytes;
        self.unknown_outcomes += other.unknown_outcomes;
        self.nameless_requests += other.nameless_requests;
        self.unknown_bytes += other.unknown_bytes;
        self.unknown_connections += other.unknown_connections;
        self.encrypted_bytes += other.encrypted_bytes;
        self.encrypted_connections += other.encrypted_connections;
        self.mid_stream_connections += other.mid_stream_connections;
        self.order_uncertain += other.order_uncertain;
        self.events_without_socket += other.events_without_socket;
        self.bad_blocks += other.bad_blocks;
    }
}
