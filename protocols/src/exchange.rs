//! What a decoder puts out.

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
    /// Rows sent or affected, where the protocol says so.
    pub rows: Option<u64>,
    /// Normalised SQL text (literals as `?`), for protocols that carry SQL.
    pub statement: Option<Box<str>>,
    /// What weakens or qualifies it.
    pub flags: Flags,
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
    /// Set when the connection left this protocol: what follows is passed over (and counted as skipped).
    pub switched: Option<Switched>,
}

/// A connection that went over to another protocol by agreement of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switched {
    /// What follows.
    pub to: SwitchedTo,
    /// Client stream offset of the first byte of it.
    pub client: u64,
    /// Server stream offset of the first byte of it.
    pub server: u64,
}

/// What a connection went over to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchedTo {
    /// TLS.
    Tls,
    /// The protocol's own compressed framing.
    Compressed,
    /// What an HTTP upgrade agreed on.
    Upgrade,
    /// Anything at all, through a proxy (HTTP CONNECT).
    Tunnel,
    /// A replication stream.
    Replication,
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

    /// Counts bytes passed over to find a boundary.
    pub fn skipped(&mut self, side: Side, bytes: u64) {
        let counter = match side {
            Side::Client => &mut self.skipped_bytes[0],
            Side::Server => &mut self.skipped_bytes[1],
        };
        *counter += bytes;
    }
}
