//! Segments around the frames of version 5
//! (<https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v5.spec>, section 2.2).

use std::collections::VecDeque;
use std::ops::Range;

use crate::frames::{Frames, Framing, Head, Next};
use crate::pairing::Looks;
use crate::{ByteClass, Flags, Hole, HoleKind, Mark, Output, Side, Stream, unpack};

/// The largest payload: its length has 17 bits.
const MAX_PAYLOAD_BYTES: usize = (1 << 17) - 1;

/// CRC32 of the payload.
const TRAILER_BYTES: u64 = 4;

/// Segments of one message that are told apart.
const MAX_PLACES: usize = 4096;

/// How segments look on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// LZ4 was agreed on: each header has the length before and after.
    pub packed: bool,
}

/// A header's content.
struct Header {
    length: u64,
    /// Payload's length once unpacked; `None` where it is not packed.
    unpacked: Option<usize>,
}

/// CRC-24 as the specification gives it: polynomial 0x1974f0b, start 0x875060.
fn crc24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x0087_5060, |mut crc: u32, byte| {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0197_4f0b;
            }
        }
        crc
    })
}

impl Form {
    /// Length fields and their CRC.
    fn header_bytes(self) -> usize {
        if self.packed { 8 } else { 6 }
    }

    /// `Err` where the CRC does not fit, `None` where too little is here.
    fn header(self, bytes: &[u8]) -> Option<Result<Header, ()>> {
        let (fields, crc) = bytes.get(..self.header_bytes())?.split_at(self.header_bytes() - 3);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        if number(crc) != u64::from(crc24(fields)) {
            return Some(Err(()));
        }
        let fields = number(fields);
        let mask = MAX_PAYLOAD_BYTES as u64;
        let unpacked = (fields >> 17 & mask) as usize;
        let unpacked = (self.packed && unpacked > 0).then_some(unpacked);
        Some(Ok(Header { length: fields & mask, unpacked }))
    }

    /// The form of the segment that `bytes` begin with; `None` where they are none.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        [Form { packed: false }, Form { packed: true }]
            .into_iter()
            .find(|form| matches!(form.header(bytes), Some(Ok(header)) if header.length > 0))
    }
}

impl Framing for Form {
    fn head(&self, _: Side, bytes: &[u8]) -> Head {
        match self.header(bytes) {
            None => Head::Short,
            Some(Ok(header)) => Head::Length(self.header_bytes() as u64 + header.length + TRAILER_BYTES),
            Some(Err(())) => Head::Bad,
        }
    }

    fn looks(&self, _: Side, bytes: &[u8], cut: bool) -> Looks {
        match self.header(bytes) {
            None => {
                if cut {
                    Looks::No
                } else {
                    Looks::Open
                }
            }
            Some(found) => found.is_ok().into(),
        }
    }
}

/// Where a segment's payload stands: in the stream of frames, and on the wire.
#[derive(Debug)]
struct Place {
    inner: Range<u64>,
    outer: Range<u64>,
    /// Bytes before the payload, where it is as on the wire.
    raw: Option<u64>,
}

impl Place {
    fn at(&self, inner: u64) -> u64 {
        let ahead = inner.saturating_sub(self.inner.start);
        let all = self.inner.end.saturating_sub(self.inner.start).max(1);
        let length = self.outer.end.saturating_sub(self.outer.start);
        match self.raw {
            Some(head) => self.outer.start + head + ahead,
            // Of frames that share a packed segment, each has a share of its bytes.
            None => self.outer.start + (u128::from(ahead) * u128::from(length) / u128::from(all)) as u64,
        }
    }
}

/// The segments of one direction, and the frames inside as a stream of its own.
#[derive(Debug)]
pub(super) struct Segments {
    side: Side,
    form: Form,
    frames: Frames,
    pub inner: Stream,
    /// Where the segment pushed last begins in `inner`.
    pub chunk: u64,
    places: VecDeque<Place>,
    /// Bytes of segments that were taken in, and how many of them were told to be passed over.
    taken: u64,
    told: u64,
}

/// What reading on brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fed {
    Segment,
    Wait,
    /// Segments were lost.
    Lost(u64, Flags),
}

impl Segments {
    pub fn new(side: Side, form: Form, mid_stream: bool) -> Self {
        Self {
            side,
            form,
            frames: Frames::new(side, MAX_PAYLOAD_BYTES + 16, mid_stream),
            inner: Stream::default(),
            chunk: 0,
            places: VecDeque::new(),
            taken: 0,
            told: 0,
        }
    }

    /// Reads from the stream of frames: what is passed over there counts as bytes on the wire, no more than came.
    pub fn read<T>(&mut self, out: &mut Output, read: impl FnOnce(&mut Stream, &mut Output) -> T) -> T {
        let before = std::mem::take(&mut out.skipped_bytes);
        let result = read(&mut self.inner, out);
        let inner: u64 = std::mem::replace(&mut out.skipped_bytes, before).iter().sum();
        let more = inner.min(self.taken.saturating_sub(self.told));
        self.told += more;
        out.skipped(self.side, more);
        result
    }

    /// Takes in the next segment. `class`: what packed payload counts as.
    pub fn feed(&mut self, stream: &mut Stream, chunk: u64, class: ByteClass, out: &mut Output) -> Fed {
        match self.frames.next(stream, chunk, 0, &self.form, out) {
            Next::Wait => Fed::Wait,
            Next::Lost(at, flag) => {
                let kind = if flag == Flags::TRUNCATED { HoleKind::Cut } else { HoleKind::Gap };
                self.inner.push_hole(Hole { length: 1, kind });
                Fed::Lost(at, flag)
            }
            Next::Frame(frame) => {
                if let Some(Ok(header)) = self.form.header(&frame.bytes) {
                    self.take(&frame.bytes, header, frame.range.clone(), frame.missing, class, out);
                }
                self.frames.recycle(frame);
                Fed::Segment
            }
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        header: Header,
        outer: Range<u64>,
        missing: Flags,
        class: ByteClass,
        out: &mut Output,
    ) {
        self.taken = self.taken.saturating_add(outer.end.saturating_sub(outer.start));
        let head = self.form.header_bytes();
        let payload = bytes.get(head..).unwrap_or_default();
        let payload = payload.get(..header.length as usize).unwrap_or(payload);
        let start = self.inner.end();
        self.chunk = start;
        let (length, raw) = match header.unpacked {
            Some(length) => {
                let unpacked = unpack::lz4(payload, length);
                self.inner.push(&unpacked);
                (length as u64, false)
            }
            None => {
                self.inner.push(payload);
                (header.length, true)
            }
        };
        let end = start + length;
        if self.inner.end() < end {
            let kind = if missing == Flags::GAP { HoleKind::Gap } else { HoleKind::Cut };
            self.inner.push_hole(Hole { length: end - self.inner.end(), kind });
        }
        let mut marker = out.marker(self.side, outer.start);
        marker.to(outer.start + head as u64, ByteClass::Structure);
        if !raw {
            marker.to(outer.start + head as u64 + header.length, class);
        }
        out.mark(self.side, outer.end.saturating_sub(TRAILER_BYTES)..outer.end, ByteClass::Structure);
        let joins = length == 0 || self.places.len() >= MAX_PLACES;
        if let Some(last) = self.places.back_mut().filter(|_| joins) {
            last.inner.end = end;
            last.outer.end = outer.end;
            last.raw = if length == 0 { last.raw } else { None };
        } else if length > 0 {
            self.places.push_back(Place { inner: start..end, outer, raw: raw.then_some(head as u64) });
        }
    }

    /// Where a part of the inner stream stands on the wire; a frame has the head and the end of its segments.
    pub fn on_wire(&self, inner: &Range<u64>) -> Range<u64> {
        let first = self.places.iter().find(|place| place.inner.end > inner.start);
        let last = self.places.iter().find(|place| place.inner.end >= inner.end).or(self.places.back());
        let (Some(first), Some(last)) = (first, last) else { return 0..0 };
        let start = if inner.start <= first.inner.start { first.outer.start } else { first.at(inner.start) };
        let end = if inner.end >= last.inner.end { last.outer.end } else { last.at(inner.end) };
        start..end.max(start)
    }

    /// Classes of a part of the inner stream, as they stand on the wire.
    pub fn mark(&self, marks: Vec<Mark>, out: &mut Output) {
        for mark in marks {
            for place in self.places.iter().filter(|place| place.raw.is_some()) {
                let start = mark.range.start.max(place.inner.start);
                let end = mark.range.end.min(place.inner.end);
                if start < end {
                    out.mark(self.side, place.at(start)..place.at(end), mark.class);
                }
            }
        }
    }

    /// Frames before `inner` were read.
    pub fn forget(&mut self, inner: u64) {
        while self.places.front().is_some_and(|place| place.inner.end <= inner) {
            self.places.pop_front();
        }
    }

    /// Passes over what is left at the end.
    pub fn finish(&mut self) {
        self.inner.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_their_checksum() {
        // A frame of 9 bytes in a segment of its own, as Cassandra's FrameEncoderCrc writes it: 17 bits of length, then
        // the bit that says so.
        let fields = 9u32 | 1 << 17;
        let mut bytes = fields.to_le_bytes()[..3].to_vec();
        let crc = crc24(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes()[..3]);
        assert_eq!(Form::of(&bytes), Some(Form { packed: false }));
        bytes[0] ^= 1;
        assert_eq!(Form::of(&bytes), None);
    }
}
