//! Both protocols over UDP: each datagram begins with eight bytes: request id, number of the datagram, how many there
//! are, and 0 (doc/protocol.txt, "UDP protocol").

use super::line::{Answer, Fit, Line, fits_answer, read};
use super::packet::{Header, operation_of};
use super::{MAX_KEPT_BYTES, binary, text};
use crate::matching::Matching;
use crate::pairing::hole_flag;
use crate::{ByteClass, Exchange, Flags, Options, Output, Parser, Side, Start, Status, Stream, Streams};

pub(super) const HEADER_BYTES: usize = 8;

/// The header of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datagram {
    pub id: u16,
    pub number: u16,
    pub count: u16,
    /// Should be 0; some clients leave something else there.
    pub reserved: u16,
}

impl Datagram {
    pub fn of(bytes: &[u8]) -> Option<Datagram> {
        let [i0, i1, n0, n1, c0, c1, r0, r1] = *bytes.first_chunk()?;
        let [id, number, count, reserved] = [[i0, i1], [n0, n1], [c0, c1], [r0, r1]].map(u16::from_be_bytes);
        (number < count).then_some(Datagram { id, number, count, reserved })
    }
}

#[derive(Debug, Default)]
struct Asked {
    /// Datagrams of the answer that are still to come, and where the first of them lies.
    left: Option<u16>,
    start: u64,
}

pub(super) struct Udp {
    options: Options,
    matching: Matching<u16, Asked>,
}

impl Udp {
    pub fn new(start: Start) -> Self {
        Self { options: start.options, matching: Matching::default() }
    }

    fn request(&mut self, stream: &mut Stream, out: &mut Output) {
        let Some(taken) = Taken::of(stream) else { return };
        let Some(datagram) = Datagram::of(&taken.bytes).filter(|datagram| datagram.number == 0) else {
            out.skipped(Side::Client, taken.range.end - taken.range.start);
            return;
        };
        let body = taken.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let mut whole = true;
        let (mut exchange, answered) = if let Some(header) = Header::of(Side::Client, body) {
            let quiet = operation_of(header.opcode).is_some_and(|operation| operation.quiet);
            (binary::request(&header, body), !quiet)
        } else {
            let line = match read(Side::Client, body) {
                Ok(Some(line)) => line,
                Ok(None) => {
                    // A line that goes on where nothing was seen: its last word may be longer.
                    whole = false;
                    Line::words(body)
                }
                Err(()) => Line::default(),
            };
            let Some((exchange, verb)) = text::request(&line, body) else {
                out.skipped(Side::Client, taken.range.end - taken.range.start);
                return;
            };
            let nothing = line.last(body) == b"noreply" || verb.is_some_and(|verb| verb.answer == Answer::Nothing);
            (exchange, !nothing)
        };
        taken.mark(Side::Client, out);
        exchange.request = taken.range;
        if exchange.target.is_none() || !whole {
            exchange.flags.insert(taken.missing);
        }
        if answered {
            self.matching.ask(datagram.id, exchange, Asked::default(), out);
        } else {
            exchange.status = Status::Ok;
            exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(exchange);
        }
    }

    fn answer(&mut self, stream: &mut Stream, out: &mut Output) {
        let Some(taken) = Taken::of(stream) else { return };
        let Some(datagram) = Datagram::of(&taken.bytes) else {
            out.skipped(Side::Server, taken.range.end - taken.range.start);
            return;
        };
        taken.mark(Side::Server, out);
        let Some(waiting) = self.matching.get_mut(datagram.id) else { return };
        if waiting.detail.left.is_none() {
            waiting.detail.start = taken.range.start;
        }
        let left = waiting.detail.left.unwrap_or(datagram.count).saturating_sub(1);
        waiting.detail.left = Some(left);
        let body = taken.bytes.get(HEADER_BYTES..).unwrap_or_default();
        if datagram.number == 0 {
            judge(&mut waiting.exchange, body, datagram.count == 1 && taken.missing == Flags::default(), self.options);
            if waiting.exchange.status == Status::Unknown {
                waiting.exchange.flags.insert(taken.missing);
            }
        }
        if left == 0
            && let Some(waiting) = self.matching.take(datagram.id)
        {
            let mut exchange: Exchange = waiting.exchange;
            exchange.response = Some(waiting.detail.start..taken.range.end);
            out.exchanges.push(exchange);
        }
    }
}

/// How a request went, by the first datagram of its answer; `whole`: there is no more of it.
fn judge(exchange: &mut Exchange, body: &[u8], whole: bool, options: Options) {
    if let Some(header) = Header::of(Side::Server, body) {
        binary::judge(exchange, &header, body, options);
        return;
    }
    let (mut values, mut rest) = (0, body);
    while let Ok(Some(line)) = read(Side::Server, rest) {
        if line.word(0, rest) != b"VALUE" {
            if fits_answer(&line, rest) > Fit::No {
                text::judge(exchange, &line, rest, options);
            }
            if line.word(0, rest) == b"END" && exchange.op.starts_with('g') && whole {
                exchange.rows = Some(values);
            }
            return;
        }
        values += 1;
        exchange.status = Status::Ok;
        let length = usize::try_from(line.length()).unwrap_or(usize::MAX);
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// One datagram, taken out of its stream.
struct Taken {
    bytes: Vec<u8>,
    range: std::ops::Range<u64>,
    missing: Flags,
}

impl Taken {
    fn of(stream: &mut Stream) -> Option<Taken> {
        let range = stream.position()..stream.end();
        if range.is_empty() {
            return None;
        }
        let here = stream.bytes();
        let bytes = here.get(..MAX_KEPT_BYTES).unwrap_or(here).to_vec();
        let missing = stream.hole().map_or(Flags::default(), |hole| hole_flag(hole.kind));
        stream.skip(range.end - range.start);
        Some(Taken { bytes, range, missing })
    }

    fn mark(&self, side: Side, out: &mut Output) {
        if out.marks.is_none() {
            return;
        }
        let mut marker = out.marker(side, self.range.start);
        marker.to((self.range.start + HEADER_BYTES as u64).min(self.range.end), ByteClass::Structure);
        // Verbs and keys too: what a datagram holds is not taken apart.
        marker.to(self.range.end, ByteClass::Value);
    }
}

impl Parser for Udp {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        self.request(&mut streams.client, out);
        self.answer(&mut streams.server, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        self.matching.finish(streams, out);
    }
}
