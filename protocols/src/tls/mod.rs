//! What TLS shows to anyone: its handshake (RFC 8446, 5246), the server's name (RFC 6066), application protocols
//! (RFC 7301), certificates before TLS 1.3, and alerts in the clear. No requests: those are encrypted.

mod certificate;
mod detect;
mod hello;
mod record;
mod words;

use crate::pairing::{Chunks, find_start, pass_chunk};
use crate::{About, ByteClass, Output, Parser, Protocol, Side, Start, Stream, Streams, TlsFacts};
use record::{ALERT, APPLICATION_DATA, Assembly, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER_BYTES, Head, head};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "tls",
    streams: true,
    datagrams: false,
    detect: detect::detect,
    parser: |start| Box::new(Tls::new(start)),
    about: About {
        source: "RFC 8446, 5246, 6066, 7301, 8701",
        request: "none: what is asked is encrypted",
        read: "version, server name, application protocols, cipher suite, names in the certificate (before TLS 1.3), alerts",
        mid_stream: "records, by type, version and length; nothing else is in the clear",
        not_read: "anything encrypted, DTLS, QUIC, SSL 2.0",
    },
};

/// Alerts that are kept.
const MAX_ALERTS: usize = 8;
/// The smallest record that can hold an encrypted Finished message of TLS 1.3: 4 + 32 bytes, type, tag of 8. An alert
/// has 11 to 19.
const MIN_FINISHED_BYTES: u16 = 45;
/// Records after which bytes that are none don't mean that this never was TLS.
const FEW_RECORDS: u64 = 8;

/// Where one direction stands.
#[derive(Debug)]
enum State {
    /// Looking for a record.
    Search,
    /// At the start of one.
    Start,
    /// Within one: so many bytes of it are left.
    Within { use_of: Use, left: u64 },
}

/// What a record's content is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Handshake,
    Alert,
    /// Nothing: in the clear, or encrypted.
    Framing,
    Opaque,
}

#[derive(Debug)]
struct Half {
    side: Side,
    state: State,
    assembly: Assembly,
    /// First bytes of an alert.
    alert: Vec<u8>,
    /// What follows is encrypted.
    encrypted: bool,
    /// It has sent something encrypted that shows that the handshake went well.
    protected: bool,
    records: u64,
}

impl Half {
    fn new(side: Side, mid_stream: bool) -> Self {
        Self {
            side,
            state: if mid_stream { State::Search } else { State::Start },
            assembly: Assembly::default(),
            alert: Vec::new(),
            encrypted: false,
            protected: false,
            records: 0,
        }
    }
}

/// What both directions know together.
#[derive(Debug, Default)]
struct Known {
    facts: TlsFacts,
    /// The server's hello was read: whether it chose TLS 1.3.
    version_13: Option<bool>,
    /// A hello was read.
    greeted: bool,
    changed: bool,
}

struct Tls {
    client: Half,
    server: Half,
    known: Known,
    chunks: Chunks,
    mid_stream: bool,
    shown: bool,
}

impl Tls {
    fn new(start: &Start) -> Self {
        Self {
            client: Half::new(Side::Client, start.mid_stream),
            server: Half::new(Side::Server, start.mid_stream),
            known: Known::default(),
            chunks: Chunks::default(),
            mid_stream: start.mid_stream,
            shown: false,
        }
    }

    /// Tells what is known, if it is more than before.
    fn show(&mut self, out: &mut Output) {
        if !self.known.facts.established && self.client.protected && self.server.protected {
            self.known.facts.established = true;
            self.known.changed = true;
        }
        // Of a connection joined in the middle, that it is TLS is all that there is to know.
        let (client, server) = (self.client.records, self.server.records);
        let surely = self.known.greeted || client > 0 && server > 0 || client.max(server) > 1;
        if surely && (self.known.changed || !self.shown) {
            self.known.changed = false;
            self.shown = true;
            out.tls = Some(Box::new(self.known.facts.clone()));
        }
    }
}

impl Parser for Tls {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        let (client_chunk, server_chunk) = self.chunks.advance(streams);
        let server_protected = self.server.protected;
        let known = &mut self.known;
        let bad = self.client.read(&mut streams.client, client_chunk, server_protected, known, out)
            | self.server.read(&mut streams.server, server_chunk, false, known, out);
        if bad && self.mid_stream && !self.known.greeted && self.client.records + self.server.records < FEW_RECORDS {
            out.rejected = true;
        }
        self.show(out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        for half in [&mut self.client, &mut self.server] {
            let (side, known) = (half.side, &mut self.known);
            half.assembly.finish(|kind, body| known.message(side, kind, body));
        }
        self.show(out);
    }
}

impl Known {
    fn message(&mut self, side: Side, kind: u8, body: &[u8]) {
        match (side, kind) {
            (Side::Client, 1) => {
                // A second one answers a HelloRetryRequest, and offers the same.
                if self.version_13.is_none() {
                    hello::client(body, &mut self.facts);
                }
            }
            (Side::Server, 2) => self.version_13 = hello::server(body, &mut self.facts).or(self.version_13),
            (Side::Server, 11) => hello::certificates(body, &mut self.facts),
            _ => return,
        }
        self.greeted = true;
        self.changed = true;
    }

    fn alert(&mut self, side: Side, description: u8) {
        if self.facts.alerts.len() < MAX_ALERTS {
            self.facts.alerts.push((side, words::alert_name(description).into()));
            self.changed = true;
        }
    }
}

impl Half {
    /// Reads what has arrived; true if something stood where a record had to begin that is none.
    fn read(&mut self, stream: &mut Stream, chunk: u64, answered: bool, known: &mut Known, out: &mut Output) -> bool {
        let mut bad = false;
        loop {
            match self.state {
                State::Search => {
                    let side = self.side;
                    if !find_start(stream, side, chunk, out, |bytes, cut| detect::looks(bytes, side, cut)) {
                        return bad;
                    }
                    self.state = State::Start;
                }
                State::Start => {
                    if stream.is_empty() {
                        return bad;
                    }
                    if self.records == 0 && self.side == Side::Client && record::is_version_2_hello(stream.bytes()) {
                        self.version_2(stream, known, out);
                        continue;
                    }
                    match head(stream.bytes()) {
                        Head::Record { kind, length } => self.begin(kind, length, stream, answered, known, out),
                        Head::Short if stream.hole().is_none() => return bad,
                        Head::Bad
                            if self.records == 0
                                && stream.hole().is_none()
                                && stream.bytes().len() < record::VERSION_2_HEAD_BYTES
                                && record::may_be_version_2(stream.bytes()) =>
                        {
                            return bad;
                        }
                        found => {
                            bad |= found == Head::Bad;
                            if stream.hole().is_some() {
                                let count = stream.hole().map_or(0, |hole| hole.length);
                                let side = self.side;
                                self.assembly.hole(count, |kind, body| known.message(side, kind, body));
                            }
                            pass_chunk(stream, self.side, chunk, out);
                            self.state = State::Search;
                        }
                    }
                }
                State::Within { use_of, left } => {
                    let Some(left) = self.take(use_of, left, stream, known, out) else { return bad };
                    self.state = if left == 0 { State::Start } else { State::Within { use_of, left } };
                }
            }
        }
    }

    /// A record's head is here.
    fn begin(
        &mut self,
        kind: u8,
        length: u16,
        stream: &mut Stream,
        answered: bool,
        known: &mut Known,
        out: &mut Output,
    ) {
        self.records += 1;
        out.mark(self.side, stream.position()..stream.position() + HEADER_BYTES as u64, ByteClass::Structure);
        stream.advance(HEADER_BYTES);
        let is_13 = known.version_13 == Some(true);
        let use_of = match kind {
            // In TLS 1.3 it means nothing (RFC 8446, appendix D.4).
            CHANGE_CIPHER_SPEC => {
                self.encrypted |= !is_13;
                Use::Framing
            }
            HANDSHAKE if !self.encrypted => Use::Handshake,
            HANDSHAKE => {
                self.protected = true;
                Use::Opaque
            }
            ALERT if length == 2 => Use::Alert,
            APPLICATION_DATA => {
                self.encrypted = true;
                // The client's may be early data, or an alert about what it was sent.
                let finished = self.side == Side::Server || answered && length >= MIN_FINISHED_BYTES;
                self.protected |=
                    known.version_13.is_none_or(|is_13| !is_13) && !self.is_early(known) || is_13 && finished;
                Use::Opaque
            }
            _ => Use::Opaque,
        };
        if self.encrypted {
            let side = self.side;
            self.assembly.finish(|kind, body| known.message(side, kind, body));
        }
        self.alert.clear();
        self.state = if length == 0 { State::Start } else { State::Within { use_of, left: u64::from(length) } };
    }

    /// Sent by a client that has not seen the server's hello.
    fn is_early(&self, known: &Known) -> bool {
        self.side == Side::Client && known.greeted && known.version_13.is_none()
    }

    /// Takes what is here of a record's content: how much is left behind it, or `None` if more has to come.
    fn take(
        &mut self,
        use_of: Use,
        left: u64,
        stream: &mut Stream,
        known: &mut Known,
        out: &mut Output,
    ) -> Option<u64> {
        let side = self.side;
        let here = (stream.bytes().len() as u64).min(left);
        let (count, missing) = match stream.hole() {
            _ if here > 0 => (here, false),
            Some(hole) => (hole.length.min(left), true),
            None => return None,
        };
        let start = stream.position();
        let class = match use_of {
            Use::Handshake => ByteClass::Identifier,
            Use::Alert | Use::Framing => ByteClass::Structure,
            Use::Opaque => ByteClass::Value,
        };
        out.mark(side, start..start + count, class);
        match use_of {
            Use::Handshake if missing => self.assembly.hole(count, |kind, body| known.message(side, kind, body)),
            Use::Handshake => {
                let bytes = stream.bytes().get(..count as usize).unwrap_or_default();
                self.assembly.push(bytes, |kind, body| known.message(side, kind, body));
            }
            Use::Alert if !missing => {
                self.alert.extend_from_slice(stream.bytes().get(..count as usize).unwrap_or_default());
                if let [1 | 2, description] = *self.alert {
                    known.alert(side, description);
                }
            }
            _ => {}
        }
        stream.skip(count);
        Some(left - count)
    }

    /// A hello in the form of SSL 2.0: it offers a version, and has no extensions.
    fn version_2(&mut self, stream: &mut Stream, known: &mut Known, out: &mut Output) {
        let (start, bytes) = (stream.position(), stream.bytes());
        let number = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b));
        let (length, version) = (u64::from(number(0) & 0x7fff), number(3));
        self.records += 1;
        known.facts.version = Some(words::version_name(version));
        known.greeted = true;
        known.changed = true;
        out.mark(self.side, start..start + 2, ByteClass::Structure);
        stream.advance(2);
        self.state = State::Within { use_of: Use::Framing, left: length };
    }
}
