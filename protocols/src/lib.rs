//! Protocol decoders: bytes in, requests out, no I/O, no clock.
//!
//! A decoder sees the two directions of one connection as [`Stream`]s, consumes whole messages and pushes an
//! [`Exchange`] (a request with its answer) for each. It knows stream offsets only; who talks, when, and which event
//! carried a byte is the caller's to look up by offset. Bytes come from strangers: a decoder never panics, never
//! allocates by a length that it read, and always makes progress or waits.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)
)]

mod calls;
mod cursor;
mod decoder;
mod detect;
mod exchange;
mod frames;
mod matching;
mod pairing;
pub mod sql;
mod stream;
mod text;
mod turns;
mod unpack;

mod amqp;
mod cassandra;
mod clickhouse;
mod dns;
mod dubbo;
mod http;
mod http2;
mod kafka;
mod memcached;
mod mongodb;
mod mqtt;
mod mysql;
mod nats;
mod postgresql;
mod redis;
mod rocketmq;
mod thrift;
mod tls;
mod websocket;
mod zookeeper;

pub use decoder::{Decoder, End, Setup};
pub use detect::{Detected, Prefix, ProtocolSet, detect, protocol_named};
pub use exchange::{ByteClass, Exchange, Flags, Mark, NAMELESS, Output, Side, SqlFacts, Status, SwitchedTo, TlsFacts};
pub use stream::{Hole, HoleKind, Stream};

/// How a decoder shows what it read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep values (SQL literals, query strings, keys' values) in `target` and `error` instead of masking them as `?`.
    pub literals: bool,
}

/// The two directions of a connection, as a decoder sees them.
#[derive(Debug, Default)]
pub struct Streams {
    /// Bytes from the side that asks.
    pub client: Stream,
    /// Bytes from the side that answers.
    pub server: Stream,
}

/// A decoder of one connection.
///
/// The caller pushes bytes and holes into the streams in the order in which one end of the connection saw them, and
/// calls [`Parser::parse`] after each push; the parser consumes what it can and leaves the rest. Splitting the same
/// bytes differently must give the same exchanges. Only where a message has to be found anew (the start was not seen,
/// framing is in a hole) do the starts of chunks count: push what was sent or received at once as one chunk.
pub trait Parser: Send {
    /// Consumes what can be consumed, pushing each completed exchange (in the order of completion).
    fn parse(&mut self, streams: &mut Streams, out: &mut Output);

    /// The connection or the recording ended: what is still open is pushed as unanswered (or ended by close, where
    /// the protocol allows that).
    fn finish(&mut self, streams: &mut Streams, out: &mut Output);
}

/// How a decoder begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    /// How to show what is read.
    pub options: Options,
    /// The start of the connection was not seen.
    pub mid_stream: bool,
    /// Each push is one datagram: [`Parser::parse`] is called after each, and reads all of it.
    pub datagrams: bool,
    /// The server's port, where it is known.
    pub server_port: Option<u16>,
}

/// What people want to know about a decoder: a row of the tables in `docs/PROTOCOLS.md`.
pub struct About {
    /// Where the format is defined.
    pub source: &'static str,
    /// What counts as a request, and what `op` and `target` are.
    pub request: &'static str,
    /// What is read.
    pub read: &'static str,
    /// What is inferred where the start of the connection, or bytes in the middle, were not seen.
    pub mid_stream: &'static str,
    /// What is not read.
    pub not_read: &'static str,
}

/// A protocol that KFR reads: one entry of [`REGISTRY`].
pub struct Protocol {
    /// Name as it stands in request lines.
    pub name: &'static str,
    /// It is carried by streams (TCP, unix).
    pub streams: bool,
    /// It is carried by datagrams (UDP).
    pub datagrams: bool,
    /// Judges the first bytes of both directions.
    pub detect: fn(&Prefix<'_>) -> Detected,
    /// Makes a decoder for one connection.
    pub parser: fn(&Start) -> Box<dyn Parser>,
    /// For people.
    pub about: About,
}

/// Every protocol. Where two are equally sure, the first one is taken: those that begin with a magic, or whose messages
/// have much to check, stand before those with little. At most 64 ([`ProtocolSet`]).
#[rustfmt::skip]
pub static REGISTRY: &[Protocol] = &[
    // Known by a magic, a preface, or the whole form of their first message.
    http2::PROTOCOL,
    http2::GRPC,
    tls::PROTOCOL,
    amqp::PROTOCOL,
    dubbo::PROTOCOL,
    http::PROTOCOL,
    mysql::PROTOCOL,
    postgresql::PROTOCOL,
    mongodb::PROTOCOL,
    cassandra::PROTOCOL,
    clickhouse::PROTOCOL,
    rocketmq::PROTOCOL,
    kafka::PROTOCOL,
    zookeeper::PROTOCOL,
    thrift::PROTOCOL,
    mqtt::PROTOCOL,
    dns::PROTOCOL,
    // Lines of words.
    redis::PROTOCOL,
    memcached::PROTOCOL,
    nats::PROTOCOL,
    // Never detected: what an upgrade leads to.
    websocket::PROTOCOL,
];
