//! What a decoder puts out.

use std::net::IpAddr;
use std::ops::Range;

/// A side of a connection, by role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The side that asks.
    Client,
    /// The side that answers.
    Server,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Status {
    /// Nothing that tells was read: the answer, or the part of it that says how it went, was cut or lost. What every
    /// exchange begins with, so that a success is never claimed by leaving something out.
    #[default]
    Unknown,
    /// Answered without error, or by protocol not answered at all ([`Flags::NO_REPLY`]).
    Ok,
    /// Answered with what the protocol calls an error (HTTP: 4xx and 5xx).
    Error,
    /// Not answered while the connection was watched: nothing came that could hold an answer.
    Unanswered,
}

/// Facts that weaken or qualify an exchange; shown as the `flags` list of a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Flags(pub u32);

impl Flags {
    /// Bytes that the decoder needed were cut by the payload limit: framing, or a part of what is shown.
    pub const TRUNCATED: Flags = Flags(1);
    /// Bytes that the decoder needed are missing (lost, or moved unseen).
    pub const GAP: Flags = Flags(1 << 1);
    /// The connection was joined in the middle and this is the first exchange read after finding a boundary.
    pub const MID_STREAM: Flags = Flags(1 << 2);
    /// Sent before the answer to an earlier request on the same connection was complete.
    pub const PIPELINED: Flags = Flags(1 << 3);
    /// Belongs to the connection, not to the application (e.g. NATS CONNECT).
    pub const CONTROL: Flags = Flags(1 << 4);
    /// Carried by retransmitted packets.
    pub const RETRANSMITTED: Flags = Flags(1 << 5);
    /// Byte order inside the stream could not be restored with certainty.
    pub const ORDER_UNCERTAIN: Flags = Flags(1 << 6);
    /// No answer is expected by protocol (e.g. MySQL quit).
    pub const NO_REPLY: Flags = Flags(1 << 7);
    /// The statement text belongs to a prepare that was not seen.
    pub const UNKNOWN_STATEMENT: Flags = Flags(1 << 8);
    /// The answer had begun but not ended when the connection or the recording ended.
    pub const INCOMPLETE: Flags = Flags(1 << 9);
    /// The server says that no index was used (MySQL's `SERVER_STATUS_NO_INDEX_USED`).
    pub const NO_INDEX: Flags = Flags(1 << 10);
    /// The server says that no good index was used (MySQL's `SERVER_STATUS_NO_GOOD_INDEX_USED`).
    pub const NO_GOOD_INDEX: Flags = Flags(1 << 11);
    /// The server says that the query was slow (MySQL's `SERVER_QUERY_WAS_SLOW`).
    pub const SLOW: Flags = Flags(1 << 12);
    /// A transaction was open when the answer ended.
    pub const IN_TRANSACTION: Flags = Flags(1 << 13);
    /// The transaction had failed when the answer ended: it can only be rolled back.
    pub const FAILED_TRANSACTION: Flags = Flags(1 << 14);
    /// Names are missing because the compression state that they refer to began before the recording (HPACK).
    pub const UNKNOWN_NAMES: Flags = Flags(1 << 15);
    /// Multicast DNS.
    pub const MULTICAST: Flags = Flags(1 << 16);
    /// A stream of messages in at least one direction (gRPC).
    pub const STREAMING: Flags = Flags(1 << 17);
    /// Cancelled by the client before the answer was complete.
    pub const CANCELLED: Flags = Flags(1 << 18);

    /// Each flag with its name in request lines, in the order in which they are listed.
    pub const NAMES: &'static [(Flags, &'static str)] = &[
        (Flags::TRUNCATED, "truncated"),
        (Flags::GAP, "gap"),
        (Flags::MID_STREAM, "mid_stream"),
        (Flags::PIPELINED, "pipelined"),
        (Flags::CONTROL, "control"),
        (Flags::RETRANSMITTED, "retransmitted"),
        (Flags::ORDER_UNCERTAIN, "order_uncertain"),
        (Flags::NO_REPLY, "no_reply"),
        (Flags::UNKNOWN_STATEMENT, "unknown_statement"),
        (Flags::INCOMPLETE, "incomplete"),
        (Flags::NO_INDEX, "no_index"),
        (Flags::NO_GOOD_INDEX, "no_good_index"),
        (Flags::SLOW, "slow"),
        (Flags::IN_TRANSACTION, "in_transaction"),
        (Flags::FAILED_TRANSACTION, "failed_transaction"),
        (Flags::UNKNOWN_NAMES, "unknown_names"),
        (Flags::MULTICAST, "multicast"),
        (Flags::STREAMING, "streaming"),
        (Flags::CANCELLED, "cancelled"),
    ];

    /// Adds the flags of `other`.
    pub fn insert(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    /// True if every flag of `other` is set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The operation of a request whose name was cut or lost.
pub const NAMELESS: &str = "?";

/// A request with its answer, by stream offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Number in the registry of the protocol that it belongs to, where that is not the decoder's own (gRPC inside
    /// HTTP/2).
    pub protocol: Option<u16>,
    /// The protocol's own word for the operation (`GET`, `query`, `HGET`), or [`NAMELESS`].
    pub op: Box<str>,
    /// Path, statement (literals as `?`), key: what the operation is about.
    pub target: Option<Box<str>>,
    /// How it ended.
    pub status: Status,
    /// The protocol's code, where it has one (`200`, `1064`, `WRONGTYPE`).
    pub code: Option<Box<str>>,
    /// The protocol's message for an error.
    pub error: Option<Box<str>>,
    /// Offsets of the request's bytes on the client's stream: the whole message, kept or not. Ends beyond the stream's
    /// end where the client gave up sending a body that it had announced.
    pub request: Range<u64>,
    /// Offsets of the answer's bytes on the server's stream; `None` where unanswered. Where the answer broke off, as
    /// far as it went; empty where it lies somewhere in a part that can't be told apart.
    pub response: Option<Range<u64>>,
    /// Bytes of the request, where others' bytes lie within its range (streams of HTTP/2 interleave); else `None`: see
    /// [`Exchange::request_size`].
    pub request_bytes: Option<u64>,
    /// Bytes of the answer, in the same way.
    pub response_bytes: Option<u64>,
    /// Rows sent or affected, where the protocol says so.
    pub rows: Option<u64>,
    /// Normalised SQL text (literals as `?`), for protocols that carry SQL.
    pub statement: Option<Box<str>>,
    /// What else the protocol says of a SQL statement, where it says anything out of the ordinary.
    pub sql: Option<Box<SqlFacts>>,
    /// What weakens or qualifies it.
    pub flags: Flags,
}

impl Exchange {
    /// Bytes of the request on the wire.
    pub fn request_size(&self) -> u64 {
        self.request_bytes.unwrap_or(self.request.end.saturating_sub(self.request.start))
    }

    /// Bytes of the answer on the wire; `None` where unanswered.
    pub fn response_size(&self) -> Option<u64> {
        let response = self.response.as_ref()?;
        Some(self.response_bytes.unwrap_or(response.end.saturating_sub(response.start)))
    }
}

/// What a SQL protocol says of a statement besides rows and errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlFacts {
    /// Rows changed, where the protocol tells them apart from rows sent.
    pub affected: Option<u64>,
    /// Warnings, where not 0.
    pub warnings: u16,
    /// SQLSTATE of an error, where it is not `Exchange::code` itself.
    pub sqlstate: Option<Box<str>>,
    /// Bound parameters in order, separated by `, `; each `?` unless values are shown. `None` where there are none or
    /// they were not seen.
    pub parameters: Option<Box<str>>,
}

/// What a TLS handshake shows to anyone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// Version agreed on (`TLS 1.2`), or offered where the server's answer was not seen.
    pub version: Option<Box<str>>,
    /// Server name that the client asked for (RFC 6066).
    pub server_name: Option<Box<str>>,
    /// Application protocol agreed on, or the client's offers (RFC 7301); not visible in a TLS 1.3 answer.
    pub alpn: Vec<Box<str>>,
    /// Cipher suite agreed on, by its IANA name or number.
    pub cipher: Option<Box<str>>,
    /// Subject's common name and alternative names of the server's certificate, where it is not encrypted (before 1.3).
    pub certificate: Vec<Box<str>>,
    /// Alerts seen in the clear: side, and description (`handshake_failure`).
    pub alerts: Vec<(Side, Box<str>)>,
    /// Both sides went over to encrypted records.
    pub established: bool,
}

/// What kind of information a byte range carries; masking in reports, redaction and pseudonyms rest on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteClass {
    /// Framing, lengths, verbs, status: safe to show.
    Structure,
    /// Names: paths, tables, keys, header names. Shown, replaced only by pseudonyms.
    Identifier,
    /// User data: bodies, literals, values, query strings. Masked unless asked.
    Value,
    /// Credentials: authorization, cookies, passwords. Always masked in shared output.
    Secret,
}

/// A classified byte range of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Who sent the bytes.
    pub side: Side,
    /// Stream offsets.
    pub range: Range<u64>,
    /// What they carry.
    pub class: ByteClass,
}

/// Where a decoder puts what it found.
#[derive(Debug, Default)]
pub struct Output {
    /// Completed exchanges, in order of completion; the caller drains it.
    pub exchanges: Vec<Exchange>,
    /// Classified ranges, collected only where asked for.
    pub marks: Option<Vec<Mark>>,
    /// Bytes passed over to find a message boundary, by direction (client, server).
    pub skipped_bytes: [u64; 2],
    /// Set when the bytes turned out not to be this protocol.
    pub rejected: bool,
    /// Set when the connection left this protocol. The decoder leaves what follows in the streams, and is not called
    /// again.
    pub switched: Option<SwitchedTo>,
    /// What a TLS handshake showed.
    pub tls: Option<Box<TlsFacts>>,
    /// Where requests (client) and answers (server) begin that may be completed behind later ones: the caller, who knows
    /// when a byte moved, notes the time now. Where exchanges complete in the order in which they began, it is empty.
    pub began: Vec<(Side, u64)>,
    /// Addresses that answers gave, each with the name that was asked for (not the one at the end of its aliases), as
    /// `Exchange::target` writes it: collected only where asked for. The caller drains it; at most 64 a message.
    pub names: Option<Vec<(Box<str>, IpAddr)>>,
}

/// What a connection went over to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchedTo {
    /// Another protocol of the registry, by its name, from its beginning.
    Protocol(&'static str),
    /// Anything at all (HTTP CONNECT): it is detected anew.
    Tunnel,
    /// Something that nobody here reads (an unknown HTTP upgrade, a replication stream): passed over and counted.
    Unread,
}

impl Output {
    /// Notes that `range` of `side`'s stream carries `class`; free of cost where nobody asked.
    pub fn mark(&mut self, side: Side, range: Range<u64>, class: ByteClass) {
        if let Some(marks) = &mut self.marks
            && !range.is_empty()
        {
            marks.push(Mark { side, range, class });
        }
    }

    /// Classifies one message piece by piece, from `start` on.
    pub(crate) fn marker(&mut self, side: Side, start: u64) -> Marker<'_> {
        Marker { out: self, side, at: start }
    }

    /// Counts bytes passed over to find a boundary.
    pub fn skipped(&mut self, side: Side, bytes: u64) {
        let counter = match side {
            Side::Client => &mut self.skipped_bytes[0],
            Side::Server => &mut self.skipped_bytes[1],
        };
        *counter += bytes;
    }
}

/// Classifies the bytes of a message from front to back.
pub(crate) struct Marker<'a> {
    out: &'a mut Output,
    side: Side,
    at: u64,
}

impl Marker<'_> {
    /// The next `length` bytes carry `class`.
    pub fn take(&mut self, length: u64, class: ByteClass) {
        self.to(self.at.saturating_add(length), class);
    }

    /// The bytes up to stream offset `end` carry `class`.
    pub fn to(&mut self, end: u64, class: ByteClass) {
        if end > self.at {
            self.out.mark(self.side, self.at..end, class);
            self.at = end;
        }
    }
}
