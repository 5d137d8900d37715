//! One direction of a connection: bytes by stream offset, with the holes that the recording has.

use std::collections::VecDeque;

/// Unread bytes that a stream holds at most; what comes beyond becomes a hole. No message head that a decoder has to
/// see whole is larger (the largest is a MySQL packet of 16 MiB).
const MAX_UNREAD_BYTES: usize = 32 << 20;

/// Pieces between holes that wait unread at most; what comes beyond becomes a hole.
const MAX_UNREAD_PIECES: usize = 1 << 14;

/// An emptied buffer larger than this is given back by [`Stream::rest`]: most connections are idle most of the time, and
/// there may be very many of them.
const MAX_IDLE_BYTES: usize = 1 << 10;

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoleKind {
    /// Cut by the recorder's payload limit: their number is exact.
    Cut,
    /// Lost, or moved unseen (sendfile, splice): their number comes from the offsets around them.
    Gap,
}

/// Missing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// How many.
    pub length: u64,
    /// Why.
    pub kind: HoleKind,
}

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    Hole(Hole),
}

/// One direction of a connection.
///
/// The reading side sees [`Stream::bytes`] at the cursor and, right behind them, possibly a [`Stream::hole`]; it moves
/// the cursor with [`Stream::advance`] (over bytes it has read) or [`Stream::skip`] (over bytes it doesn't need, kept
/// or missing, arrived or not).
#[derive(Debug, Default)]
pub struct Stream {
    /// Stream offset of the first byte.
    begin: u64,
    /// Stream offset of the cursor.
    position: u64,
    /// Bytes at the cursor: `buffer[head..]`.
    buffer: Vec<u8>,
    head: usize,
    /// What follows `buffer`, beginning with a hole.
    tail: VecDeque<Segment>,
    tail_bytes: usize,
    /// Bytes yet to arrive that the reader has already skipped.
    skip: u64,
    /// Offset behind the last byte or hole pushed.
    end: u64,
    /// The last hole that the cursor moved over or into: where it stood then, and the hole's kind.
    passed: Option<(u64, HoleKind)>,
    closed: bool,
}

impl Stream {
    /// Sets the offset of the first byte to come. Call it before the first push.
    pub fn start_at(&mut self, offset: u64) {
        self.begin = offset;
        self.position = offset;
        self.end = offset;
    }

    /// Appends bytes behind everything pushed so far.
    pub fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let skipped = self.skip.min(bytes.len() as u64) as usize;
        self.skip -= skipped as u64;
        self.position += skipped as u64;
        let bytes = bytes.get(skipped..).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        if self.unread_bytes() + bytes.len() > MAX_UNREAD_BYTES || self.tail.len() > MAX_UNREAD_PIECES {
            self.append_hole(Hole { length: bytes.len() as u64, kind: HoleKind::Cut });
            return;
        }
        if self.tail.is_empty() {
            if self.head == self.buffer.len() {
                self.buffer.clear();
                self.head = 0;
            } else if self.head > 4096 && self.head > self.buffer.len() / 2 {
                self.buffer.drain(..self.head);
                self.head = 0;
            }
            self.buffer.extend_from_slice(bytes);
            return;
        }
        self.tail_bytes += bytes.len();
        if let Some(Segment::Bytes(last)) = self.tail.back_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.tail.push_back(Segment::Bytes(bytes.to_vec()));
        }
    }

    /// Appends missing bytes behind everything pushed so far.
    pub fn push_hole(&mut self, hole: Hole) {
        self.end += hole.length;
        let skipped = self.skip.min(hole.length);
        self.skip -= skipped;
        self.position += skipped;
        if skipped > 0 {
            self.passed = Some((self.position, hole.kind));
        }
        let length = hole.length - skipped;
        if length > 0 {
            self.append_hole(Hole { length, kind: hole.kind });
        }
    }

    fn append_hole(&mut self, hole: Hole) {
        let crowded = self.tail.len() > MAX_UNREAD_PIECES;
        if let Some(Segment::Hole(last)) = self.tail.back_mut()
            && (last.kind == hole.kind || crowded)
        {
            last.length += hole.length;
            return;
        }
        self.tail.push_back(Segment::Hole(hole));
    }

    /// Appends what another stream holds unread, its holes included.
    pub fn append(&mut self, other: &Stream) {
        self.push(other.bytes());
        for segment in &other.tail {
            match segment {
                Segment::Bytes(bytes) => self.push(bytes),
                Segment::Hole(hole) => self.push_hole(*hole),
            }
        }
    }

    /// Notes that nothing more will come (FIN, reset, or the recording's end).
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// True if nothing more will come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Stream offset of the first byte that was pushed: no message begins before it. 0 until one was.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// Stream offset of the first of [`Stream::bytes`].
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Offset behind the last byte that was pushed, read or not. While skipping ahead, less than where the skip ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Contiguous bytes at the cursor.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.head..).unwrap_or_default()
    }

    /// The hole right behind [`Stream::bytes`], if one is known: no further byte will join them.
    pub fn hole(&self) -> Option<Hole> {
        match self.tail.front() {
            Some(Segment::Hole(hole)) => Some(*hole),
            _ => None,
        }
    }

    /// Why bytes behind `offset`, over which the cursor moved, are missing; `None` if none are.
    pub fn passed_hole(&self, offset: u64) -> Option<HoleKind> {
        self.passed.filter(|(at, _)| *at > offset).map(|(_, kind)| kind)
    }

    /// True if bytes that were skipped have not arrived yet.
    pub fn is_skipping(&self) -> bool {
        self.skip > 0
    }

    /// True if nothing is left to read now: no bytes, no hole.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty() && self.tail.is_empty()
    }

    /// Moves the cursor over `count` of [`Stream::bytes`] (no further than their end).
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.buffer.len() - self.head);
        self.head += count;
        self.position += count as u64;
    }

    /// Moves the cursor by `count` bytes: over what is here, over holes, and over what has not arrived yet.
    pub fn skip(&mut self, mut count: u64) {
        loop {
            let here = (self.bytes().len() as u64).min(count);
            self.advance(here as usize);
            count -= here;
            if count == 0 {
                return;
            }
            match self.tail.front_mut() {
                Some(Segment::Hole(hole)) if hole.length > count => {
                    hole.length -= count;
                    self.position += count;
                    self.passed = Some((self.position, hole.kind));
                    return;
                }
                Some(Segment::Hole(hole)) => {
                    count -= hole.length;
                    self.position += hole.length;
                    self.passed = Some((self.position, hole.kind));
                    self.tail.pop_front();
                    self.refill();
                }
                Some(Segment::Bytes(_)) => self.refill(),
                None => {
                    self.skip = self.skip.saturating_add(count);
                    return;
                }
            }
        }
    }

    /// Drops [`Stream::bytes`] and the hole behind them, so that reading goes on after it. Returns how many bytes were
    /// dropped unread and the hole; `None` (and nothing dropped) where there is no hole.
    pub fn skip_hole(&mut self) -> Option<(u64, Hole)> {
        let hole = self.hole()?;
        let dropped = self.bytes().len() as u64;
        self.skip(dropped + hole.length);
        Some((dropped, hole))
    }

    /// Gives memory back where nothing is left to read: call it when the reader has read what it can.
    pub fn rest(&mut self) {
        if self.head == self.buffer.len() && self.buffer.capacity() > MAX_IDLE_BYTES {
            self.buffer = Vec::new();
            self.head = 0;
        }
        if self.tail.is_empty() && self.tail.capacity() > 0 {
            self.tail = VecDeque::new();
        }
    }

    /// Gives back all memory that holds nothing: for a connection that is idle.
    pub fn rest_long(&mut self) {
        if self.head == self.buffer.len() {
            self.buffer = Vec::new();
            self.head = 0;
        }
        self.tail.shrink_to_fit();
    }

    /// Makes the bytes behind a consumed hole the ones at the cursor.
    fn refill(&mut self) {
        if let Some(Segment::Bytes(_)) = self.tail.front()
            && let Some(Segment::Bytes(bytes)) = self.tail.pop_front()
        {
            self.tail_bytes -= bytes.len();
            self.buffer = bytes;
            self.head = 0;
        }
    }

    fn unread_bytes(&self) -> usize {
        self.buffer.len() - self.head + self.tail_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: HoleKind = HoleKind::Cut;

    #[test]
    fn bytes_stop_at_a_hole_and_go_on_behind_it() {
        let mut stream = Stream::default();
        stream.start_at(100);
        stream.push(b"abc");
        stream.push_hole(Hole { length: 5, kind: CUT });
        stream.push(b"xyz");
        assert_eq!((stream.bytes(), stream.position()), (&b"abc"[..], 100));
        assert_eq!(stream.hole(), Some(Hole { length: 5, kind: CUT }));
        assert_eq!(stream.skip_hole(), Some((3, Hole { length: 5, kind: CUT })));
        assert_eq!((stream.bytes(), stream.position(), stream.hole()), (&b"xyz"[..], 108, None));
    }

    #[test]
    fn a_skip_crosses_holes_and_what_has_not_arrived() {
        let mut stream = Stream::default();
        stream.push(b"ab");
        stream.push_hole(Hole { length: 4, kind: CUT });
        stream.skip(10);
        assert!(stream.is_skipping());
        stream.push(b"cdefgh");
        assert_eq!((stream.bytes(), stream.position()), (&b"gh"[..], 10));
        assert_eq!(stream.end(), 12);
    }

    #[test]
    fn a_skip_may_end_inside_a_hole() {
        let mut stream = Stream::default();
        stream.push_hole(Hole { length: 4, kind: CUT });
        stream.push(b"z");
        stream.skip(3);
        assert_eq!(stream.hole(), Some(Hole { length: 1, kind: CUT }));
        stream.skip(1);
        assert_eq!((stream.bytes(), stream.position()), (&b"z"[..], 4));
    }

    #[test]
    fn rest_gives_back_what_was_read_and_nothing_else() {
        let mut stream = Stream::default();
        stream.push(&[b'x'; 5000]);
        stream.advance(4990);
        stream.rest();
        assert_eq!((stream.bytes(), stream.position()), (&[b'x'; 10][..], 4990));
        stream.advance(10);
        stream.rest();
        assert_eq!((stream.buffer.capacity(), stream.position(), stream.is_empty()), (0, 5000, true));
        stream.push(b"more");
        assert_eq!((stream.bytes(), stream.position()), (&b"more"[..], 5000));
    }

    #[test]
    fn unread_bytes_are_bounded() {
        let mut stream = Stream::default();
        let chunk = vec![0u8; 1 << 20];
        for _ in 0..40 {
            stream.push(&chunk);
        }
        assert!(stream.bytes().len() <= MAX_UNREAD_BYTES);
        assert_eq!(stream.hole(), Some(Hole { length: 8 << 20, kind: CUT }));
    }
}
