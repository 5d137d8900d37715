//! Compressed connections: frames that hold pieces of the two streams of packets
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html>).
//!
//! A frame is the length of its payload (3 bytes), a number (1), the length of what the payload holds (3; 0: it is not
//! compressed), and the payload. What frames hold goes into inner streams, which the decoder reads like those of a
//! connection that isn't compressed. Offsets of the inner streams are nobody's business outside: what comes out is put
//! back to the range of the frames that held it.

use std::collections::VecDeque;
use std::ops::Range;

use super::MySql;
use super::answer::looks_like_answer;
use super::command::looks_like_command;
use super::inflate::{Inflated, first, format, inflate};
use super::packet::HEADER_BYTES;
use crate::pairing::{Chunks, Looks, drop_rest, find_start, pass_chunk};
use crate::{ByteClass, Exchange, Hole, HoleKind, Output, Side, Stream, Streams};

/// Bytes of a frame's header.
const FRAME_BYTES: usize = 7;

/// Length of an inner hole of unknown length: longer than any packet, so that none is taken to go on behind it.
const UNKNOWN_BYTES: u64 = 32 << 20;

/// Frames whose place is known exactly; beyond, neighbours are put together.
const MAX_PLACES: usize = 1 << 16;

/// A buffer for what a frame holds that is larger is given back.
const MAX_KEPT_BYTES: usize = 16 << 10;

/// Bytes of a payload from which it is told what it holds.
const LOOK_BYTES: usize = 1 << 10;

/// Bytes that frames of a connection may hold for each of their own, beyond so many to begin with: what zlib can reach at
/// best, and real traffic never does. What is beyond stays packed, and counts as cut.
const MAX_RATIO: u64 = 1032;
const FREE_BYTES: u64 = 64 << 20;

/// Requests that wait for the rest of their own bytes.
const MAX_HELD: usize = 1 << 10;

/// The payload of a frame at the start of `bytes`, as far as it is there, and its lengths: as sent, and unpacked.
fn frame(bytes: &[u8]) -> Option<(usize, u8, usize, &[u8])> {
    let (&[a, b, c, number, d, e, f], payload) = bytes.split_first_chunk::<FRAME_BYTES>()?;
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    let unpacked = u32::from_le_bytes([d, e, f, 0]) as usize;
    Some((length, number, unpacked, payload.get(..length).unwrap_or(payload)))
}

/// The first bytes of what the frame at the start of `bytes` holds.
pub(super) fn first_bytes(bytes: &[u8]) -> Vec<u8> {
    match frame(bytes) {
        Some((_, _, 0, payload)) => payload.get(..LOOK_BYTES).unwrap_or(payload).to_vec(),
        Some((_, _, unpacked, payload)) => first(payload.get(..LOOK_BYTES).unwrap_or(payload), unpacked.min(512)),
        None => Vec::new(),
    }
}

/// Whether bytes at a place where a frame may begin are one: its lengths, its number and what it holds must agree. With
/// the server, what it holds must begin an answer.
pub(super) fn looks_like_frame(side: Side, bytes: &[u8], cut: bool) -> Looks {
    judge(side, bytes, cut, |inner, cut| match side {
        Side::Client => looks_like_command(inner, cut),
        Side::Server => looks_like_answer(inner, 1),
    })
}

fn judge(side: Side, bytes: &[u8], cut: bool, holds: impl Fn(&[u8], bool) -> Looks) -> Looks {
    let open = if cut { Looks::No } else { Looks::Open };
    let Some((length, number, unpacked, payload)) = frame(bytes) else { return open };
    // A command's first frame has the number 0, an answer's frames have others.
    if length == 0 || (number == 0) != (side == Side::Client) {
        return Looks::No;
    }
    if unpacked == 0 {
        if payload.len() < HEADER_BYTES + 1 {
            return if payload.len() == length { Looks::No } else { open };
        }
        return holds(payload, cut && payload.len() < length);
    }
    // Nobody sends as compressed what did not get shorter.
    if unpacked <= length {
        return Looks::No;
    }
    let head = payload.get(..LOOK_BYTES).unwrap_or(payload);
    if head.len() < 4 {
        return if payload.len() == length { Looks::No } else { open };
    }
    if format(head).is_none() {
        return Looks::No;
    }
    let inner = first(head, unpacked.min(512));
    if inner.is_empty() {
        return if head.len() < LOOK_BYTES && payload.len() < length { open } else { Looks::No };
    }
    match holds(&inner, inner.len() < unpacked) {
        Looks::Open if payload.len() == length || inner.len() >= 512 => Looks::Yes,
        looks => looks,
    }
}

/// Where an inner stream's bytes were held.
#[derive(Debug)]
struct Place {
    /// Inner offset behind them.
    inner_end: u64,
    outer: Range<u64>,
    /// What its payload is; `None` where it is no frame, or was classified already.
    class: Option<ByteClass>,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    side: Side,
    /// The next frame's start is to be found.
    searching: bool,
    /// In order, without gaps; what lies before them is not asked for any more.
    places: VecDeque<Place>,
    /// Outer offset up to which that is.
    passed: u64,
    /// Inner offset up to which all is secret.
    secret_to: u64,
    /// Bytes of frames, and of what they held.
    packed: u64,
    unpacked: u64,
    scratch: Vec<u8>,
}

impl Lane {
    fn new(side: Side, start: u64) -> Self {
        Self {
            side,
            searching: false,
            places: VecDeque::new(),
            passed: start,
            secret_to: 0,
            packed: 0,
            unpacked: 0,
            scratch: Vec::new(),
        }
    }

    /// Moves the next frame, or what has to be passed over to find it, from `outer` to `inner`; false if more bytes are
    /// needed. `last`: none will come.
    fn step(&mut self, outer: &mut Stream, inner: &mut Stream, chunk: u64, last: bool, out: &mut Output) -> bool {
        if outer.is_empty() {
            return false;
        }
        let from = outer.position();
        if self.searching {
            let side = self.side;
            let found = find_start(outer, side, chunk, out, |bytes, cut| {
                judge(side, bytes, cut, |inner, cut| match side {
                    Side::Client => looks_like_command(inner, cut),
                    // An answer's later frames hold whatever comes next.
                    Side::Server => Looks::Yes,
                })
            });
            self.searching = !found;
            if outer.position() > from {
                self.lose(from..outer.position(), HoleKind::Gap, inner, out);
                return true;
            }
            if !found {
                return false;
            }
        }
        let hole = outer.hole();
        let Some((length, _, announced, payload)) = frame(outer.bytes()).filter(|(length, ..)| *length > 0) else {
            if hole.is_none() && outer.bytes().len() < FRAME_BYTES {
                return false;
            }
            let kind = hole.map_or(HoleKind::Gap, |hole| hole.kind);
            pass_chunk(outer, self.side, chunk, out);
            self.searching = true;
            self.lose(from..outer.position(), kind, inner, out);
            return true;
        };
        let end = from + (FRAME_BYTES + length) as u64;
        let arrived = outer.end() >= end;
        if !arrived && !last {
            return false;
        }
        let whole = payload.len() == length;
        let holds = if announced == 0 { length } else { announced } as u64;
        let before = inner.end();
        let mut kind = hole.map_or(HoleKind::Gap, |hole| hole.kind);
        self.packed += end - from;
        if announced == 0 {
            inner.push(payload);
        } else if self.unpacked + holds > FREE_BYTES.saturating_add(self.packed.saturating_mul(MAX_RATIO)) {
            kind = HoleKind::Cut;
        } else {
            let how = inflate(payload, announced, !whole, &mut self.scratch);
            if how == Inflated::Damaged {
                kind = HoleKind::Gap;
                // Where not even its beginning is sound, it is doubtful that this is a frame.
                self.searching = self.scratch.is_empty();
            }
            self.unpacked += self.scratch.len() as u64;
            inner.push(&self.scratch);
            self.scratch.clear();
            if self.scratch.capacity() > MAX_KEPT_BYTES {
                self.scratch = Vec::new();
            }
        }
        let missing = holds.saturating_sub(inner.end() - before);
        if missing > 0 && arrived {
            inner.push_hole(Hole { length: missing, kind });
        }
        outer.skip(end - from);
        let secret = before < self.secret_to;
        let class = Some(if secret { ByteClass::Secret } else { ByteClass::Value });
        self.add(Place { inner_end: inner.end(), outer: from..end.min(outer.end()), class }, out);
        true
    }

    /// Bytes that are no frame, or whose frame can't be told: something is missing, nobody knows how much.
    fn lose(&mut self, outer: Range<u64>, kind: HoleKind, inner: &mut Stream, out: &mut Output) {
        inner.push_hole(Hole { length: UNKNOWN_BYTES, kind });
        self.add(Place { inner_end: inner.end(), outer, class: None }, out);
    }

    fn add(&mut self, place: Place, out: &mut Output) {
        self.places.push_back(place);
        if self.places.len() <= MAX_PLACES {
            return;
        }
        // One answer of a million frames: only its first and its last one matter, most likely.
        let mut fewer: VecDeque<Place> = VecDeque::with_capacity(MAX_PLACES + 1);
        for (index, mut place) in std::mem::take(&mut self.places).into_iter().enumerate() {
            place.classify(self.side, out);
            match fewer.back_mut() {
                Some(last) if index % 2 == 1 => {
                    last.inner_end = place.inner_end;
                    last.outer.end = place.outer.end;
                }
                _ => fewer.push_back(place),
            }
        }
        self.places = fewer;
    }

    /// Forgets what lies before inner offset `oldest`.
    fn forget(&mut self, oldest: u64, out: &mut Output) {
        while self.places.front().is_some_and(|place| place.inner_end <= oldest)
            && let Some(mut place) = self.places.pop_front()
        {
            self.passed = place.outer.end;
            place.classify(self.side, out);
        }
    }

    /// Notes that inner bytes are secret.
    fn keep_secret(&mut self, inner: &Range<u64>) {
        self.secret_to = self.secret_to.max(inner.end);
        let first = self.places.partition_point(|place| place.inner_end <= inner.start);
        let behind = self.places.partition_point(|place| place.inner_end < inner.end);
        for place in self.places.range_mut(first.min(behind)..).take(behind + 1 - first.min(behind)) {
            place.class = place.class.and(Some(ByteClass::Secret));
        }
    }

    /// The range of the frames that held these inner bytes.
    fn outer(&self, inner: &Range<u64>) -> Range<u64> {
        let behind = self.places.back().map_or(self.passed, |place| place.outer.end);
        let first = self.places.partition_point(|place| place.inner_end <= inner.start);
        let start = self.places.get(first).map_or(behind, |place| place.outer.start);
        if inner.is_empty() {
            return start..start;
        }
        let last = self.places.partition_point(|place| place.inner_end < inner.end);
        start..self.places.get(last).map_or(behind, |place| place.outer.end).max(start)
    }
}

impl Place {
    fn classify(&mut self, side: Side, out: &mut Output) {
        if let Some(class) = self.class.take() {
            let payload = (self.outer.start + FRAME_BYTES as u64).min(self.outer.end);
            out.mark(side, self.outer.start..payload, ByteClass::Structure);
            out.mark(side, payload..self.outer.end, class);
        }
    }
}

/// Both directions of a compressed connection.
#[derive(Debug)]
pub(super) struct Compression {
    client: Lane,
    server: Lane,
    /// Starts of chunks of the outer streams.
    chunks: Chunks,
    inner: Streams,
    /// What the inner streams gave.
    out: Output,
    /// Requests without answer that wait for the frames with the rest of their bytes, and what came behind them.
    held: VecDeque<Exchange>,
    /// Where frames began, and how many bytes from there on were told to be passed over, by side.
    began: [u64; 2],
    told: [u64; 2],
}

impl Compression {
    /// Frames begin at the cursors of `streams`.
    pub fn new(streams: &Streams, chunks: Chunks) -> Self {
        let (client, server) = (streams.client.position(), streams.server.position());
        let mut inner = Streams::default();
        inner.client.start_at(client);
        inner.server.start_at(server);
        Self {
            client: Lane::new(Side::Client, client),
            server: Lane::new(Side::Server, server),
            chunks,
            inner,
            out: Output::default(),
            held: VecDeque::new(),
            began: [client, server],
            told: [0; 2],
        }
    }

    /// Reads the frames that are here.
    pub fn read(&mut self, decoder: &mut MySql, streams: &mut Streams, out: &mut Output) {
        let before = out.skipped_bytes;
        let chunks = self.chunks.advance(streams);
        self.read_frames(decoder, streams, chunks, false, out);
        self.tell_skipped(before, streams, out);
    }

    /// What the inner streams passed over counts as bytes of the frames that held it: no more than came and was not told
    /// already. `before`: what `out` had when this look at the frames began.
    fn tell_skipped(&mut self, before: [u64; 2], streams: &Streams, out: &mut Output) {
        let inner = std::mem::take(&mut self.out.skipped_bytes);
        let here = [streams.client.position(), streams.server.position()];
        for (index, side) in [Side::Client, Side::Server].into_iter().enumerate() {
            let of = |values: &[u64; 2]| values.get(index).copied().unwrap_or_default();
            let outer = of(&out.skipped_bytes).saturating_sub(of(&before));
            let told = of(&self.told).saturating_add(outer);
            let more = of(&inner).min(of(&here).saturating_sub(of(&self.began)).saturating_sub(told));
            out.skipped(side, more);
            if let Some(sum) = self.told.get_mut(index) {
                *sum = told.saturating_add(more);
            }
        }
    }

    /// One frame after the other, so that it makes no difference how many arrive at once.
    fn read_frames(
        &mut self,
        decoder: &mut MySql,
        streams: &mut Streams,
        chunks: (u64, u64),
        last: bool,
        out: &mut Output,
    ) {
        while self.client.step(&mut streams.client, &mut self.inner.client, chunks.0, last, out)
            || self.server.step(&mut streams.server, &mut self.inner.server, chunks.1, last, out)
        {
            self.out.marks = out.marks.is_some().then(Vec::new);
            decoder.read(&mut self.inner, &mut self.out);
            self.deliver(decoder, false, out);
            if out.rejected || out.switched.is_some() {
                return;
            }
        }
        self.inner.client.rest();
        self.inner.server.rest();
    }

    /// Nothing more comes.
    pub fn finish(&mut self, decoder: &mut MySql, streams: &mut Streams, out: &mut Output) {
        let before = out.skipped_bytes;
        let chunks = (streams.client.end(), streams.server.end());
        self.read_frames(decoder, streams, chunks, true, out);
        self.inner.client.close();
        self.inner.server.close();
        self.out.marks = out.marks.is_some().then(Vec::new);
        decoder.end(&mut self.inner, &mut self.out);
        self.deliver(decoder, true, out);
        drop_rest(streams, out);
        self.tell_skipped(before, streams, out);
    }

    /// Hands on what the inner streams gave, with the offsets of the outer ones.
    fn deliver(&mut self, decoder: &MySql, all: bool, out: &mut Output) {
        for mark in self.out.marks.take().into_iter().flatten().filter(|mark| mark.class == ByteClass::Secret) {
            match mark.side {
                Side::Client => self.client.keep_secret(&mark.range),
                Side::Server => self.server.keep_secret(&mark.range),
            }
        }
        out.rejected |= std::mem::take(&mut self.out.rejected);
        out.switched = self.out.switched.take().or(out.switched);
        let here = if all || self.held.len() > MAX_HELD { u64::MAX } else { self.inner.client.end() };
        self.held.extend(self.out.exchanges.drain(..));
        while self.held.front().is_some_and(|front| front.request.end <= here || all)
            && let Some(mut exchange) = self.held.pop_front()
        {
            exchange.request = self.client.outer(&exchange.request);
            exchange.response = exchange.response.map(|response| self.server.outer(&response));
            out.exchanges.push(exchange);
        }
        let [mut client, mut server] = if all { [u64::MAX; 2] } else { decoder.oldest(&self.inner) };
        for held in &self.held {
            client = client.min(held.request.start);
            server = held.response.as_ref().map_or(server, |response| server.min(response.start));
        }
        self.client.forget(client, out);
        self.server.forget(server, out);
    }
}
