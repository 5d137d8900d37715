//! One direction of a TCP connection: its bytes in order, each once, and the places where some are missing.

use std::collections::BTreeMap;

/// What may wait for a missing segment: bytes of one direction, and pieces.
const MAX_BYTES: usize = 4 << 20;
const MAX_PIECES: usize = 4096;
/// Memory of a piece beside its bytes.
pub const PIECE_BYTES: usize = 96;
/// Where offsets begin: sequence numbers start anywhere, so there is room below.
const BASE: u64 = 1 << 32;

/// Bytes behind a missing segment.
#[derive(Debug)]
struct Piece {
    length: u32,
    time_ns: u64,
    bytes: Box<[u8]>,
}

/// What a segment came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that were there already.
    pub repeated: u32,
    /// Of these, bytes that differ from the first copy, where that is still at hand.
    pub conflicting: u32,
    /// It lies before segments that came earlier; by how long the first of these waited, ns.
    pub late_ns: Option<u64>,
    /// Gaps declared because too much waited.
    pub forced: u32,
    /// Gaps declared at all, and their bytes.
    pub gaps: u32,
    /// See `gaps`.
    pub missing: u64,
}

/// A stretch of a stream that is in order: its 32-bit offset, its length on the wire, what was captured of it, and when it
/// was in order. One without length says that what lies before it is missing.
pub type Deliver<'a> = &'a mut dyn FnMut(u32, u32, &[u8], u64);

/// One direction.
#[derive(Debug, Default)]
pub struct Way {
    next: Option<u64>,
    acknowledged: Option<u64>,
    pending: BTreeMap<u64, Piece>,
    pending_bytes: usize,
}

impl Way {
    /// Sets the sequence number of the first byte, where the start was seen.
    pub fn start_at(&mut self, sequence: u32) {
        if self.next.is_none() {
            self.next = Some(BASE + u64::from(sequence));
        }
    }

    /// The next byte's offset; `None` before the first.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Highest offset that the other side acknowledged.
    pub fn acknowledged(&self) -> Option<u64> {
        self.acknowledged
    }

    /// Memory that waiting pieces take.
    pub fn waiting_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// A sequence number as an offset, near where the stream is.
    pub fn offset(&self, sequence: u32) -> u64 {
        match self.next.or(self.acknowledged) {
            None => BASE + u64::from(sequence),
            Some(near) => near.saturating_add_signed(i64::from(sequence.wrapping_sub(near as u32).cast_signed())),
        }
    }

    /// Whether this is a keep-alive: no new byte, at the byte before the next one (RFC 9293, section 3.8.4).
    pub fn is_keep_alive(&self, sequence: u32, length: u32) -> bool {
        let reference = self.next.or(self.acknowledged);
        length <= 1 && reference.is_some_and(|next| self.offset(sequence).saturating_add(1) == next)
    }

    /// How far a segment is from where the stream is.
    pub fn distance(&self, sequence: u32) -> u64 {
        self.next.map_or(0, |next| next.abs_diff(self.offset(sequence)))
    }

    /// Takes a segment. `length` is at least 1; `bytes` may be shorter.
    pub fn push(&mut self, sequence: u32, length: u32, bytes: &[u8], time_ns: u64, out: Deliver<'_>) -> Taken {
        let offset = self.offset(sequence);
        let next = *self.next.get_or_insert(offset);
        let end = offset.saturating_add(u64::from(length));
        let mut taken = Taken::default();
        if end <= next {
            taken.repeated = length;
            return taken;
        }
        if self.pending.is_empty() && offset == next {
            self.next = Some(end);
            out(sequence, length, bytes, time_ns);
            return taken;
        }
        if let Some((first, piece)) = self.pending.first_key_value()
            && offset < *first
        {
            taken.late_ns = Some(time_ns.saturating_sub(piece.time_ns));
        }
        self.fill(offset.max(next), end, offset, bytes, time_ns, &mut taken);
        if offset < next {
            taken.repeated = taken.repeated.saturating_add(u32::try_from(next - offset).unwrap_or(u32::MAX));
        }
        self.settle(Some(time_ns), out);
        // What the other side has, the capture won't see any more.
        self.pass_gaps(self.acknowledged.unwrap_or(0), &mut taken, out);
        while self.pending_bytes > MAX_BYTES || self.pending.len() > MAX_PIECES {
            taken.forced += 1;
            self.pass_first_gap(&mut taken, out);
        }
        taken
    }

    /// Keeps those bytes of `from..end` that no waiting piece holds: the first copy wins.
    fn fill(&mut self, mut from: u64, end: u64, offset: u64, bytes: &[u8], time_ns: u64, taken: &mut Taken) {
        let part = |from: u64, to: u64| {
            let range = (from - offset) as usize..(to - offset) as usize;
            bytes.get(range.start.min(bytes.len())..range.end.min(bytes.len())).unwrap_or_default()
        };
        // Waiting pieces don't overlap, so at most one that begins before `from` reaches into it.
        let start = self.pending.range(..=from).next_back().map_or(from, |(start, _)| *start);
        let mut fresh = Vec::new();
        for (start, piece) in self.pending.range(start..end) {
            let stop = start + u64::from(piece.length);
            if stop <= from {
                continue;
            }
            if *start > from {
                fresh.push((from, *start));
            }
            let both = (from.max(*start), stop.min(end));
            let old = piece.bytes.get((both.0 - start) as usize..).unwrap_or_default();
            let differ = part(both.0, both.1).iter().zip(old).filter(|(one, other)| one != other).count();
            taken.conflicting = taken.conflicting.saturating_add(u32::try_from(differ).unwrap_or(u32::MAX));
            taken.repeated = taken.repeated.saturating_add((both.1 - both.0) as u32);
            from = stop;
        }
        if from < end {
            fresh.push((from, end));
        }
        for (from, to) in fresh {
            let bytes: Box<[u8]> = part(from, to).into();
            self.pending_bytes += bytes.len() + PIECE_BYTES;
            self.pending.insert(from, Piece { length: (to - from) as u32, time_ns, bytes });
        }
    }

    /// Gives out what is in order since `filled_ns`, when what was missing before it came; `None` if that never comes: then
    /// it was in order when it was captured.
    fn settle(&mut self, filled_ns: Option<u64>, out: Deliver<'_>) {
        let mut before_ns = 0;
        while let Some(entry) = self.pending.first_entry()
            && Some(*entry.key()) == self.next
        {
            let (offset, piece) = entry.remove_entry();
            self.pending_bytes -= piece.bytes.len() + PIECE_BYTES;
            self.next = Some(offset + u64::from(piece.length));
            before_ns = piece.time_ns.max(before_ns);
            out(offset as u32, piece.length, &piece.bytes, filled_ns.unwrap_or(before_ns));
        }
    }

    /// The other side has everything before `sequence`: what is missing there stays missing.
    pub fn acknowledge(&mut self, sequence: u32, out: Deliver<'_>) -> Taken {
        let offset = self.offset(sequence);
        let acknowledged = self.acknowledged.map_or(offset, |before| before.max(offset));
        self.acknowledged = Some(acknowledged);
        let mut taken = Taken::default();
        self.pass_gaps(acknowledged, &mut taken, out);
        taken
    }

    /// Nothing more will come, or nothing more may wait.
    pub fn release(&mut self, out: Deliver<'_>) -> Taken {
        let mut taken = Taken::default();
        self.pass_gaps(u64::MAX, &mut taken, out);
        taken
    }

    /// Gaps that the other side has whole: what comes behind them waits for nothing.
    fn pass_gaps(&mut self, acknowledged: u64, taken: &mut Taken, out: Deliver<'_>) {
        while self.pending.first_key_value().is_some_and(|(first, _)| *first <= acknowledged) {
            self.pass_first_gap(taken, out);
        }
    }

    fn pass_first_gap(&mut self, taken: &mut Taken, out: Deliver<'_>) {
        let (Some(next), Some((first, _))) = (self.next, self.pending.first_key_value()) else { return };
        taken.gaps += 1;
        taken.missing = taken.missing.saturating_add(first - next);
        self.next = Some(*first);
        self.settle(None, out);
    }

    /// Everything before `offset` was sent, and what is not here won't come: known at `time_ns`.
    pub fn lose_to(&mut self, offset: u64, time_ns: u64, out: Deliver<'_>) -> Taken {
        let mut taken = Taken::default();
        self.pass_gaps(offset, &mut taken, out);
        if let Some(next) = self.next.filter(|next| *next < offset) {
            taken.gaps += 1;
            taken.missing = taken.missing.saturating_add(offset - next);
            self.next = Some(offset);
            out(offset as u32, 0, &[], time_ns);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Delivers into (offset from the start, bytes), checks that offsets never go back.
    fn run(start: u32, segments: &[(u32, &[u8])]) -> (Vec<(u32, Vec<u8>)>, u64) {
        let mut way = Way::default();
        way.start_at(start);
        let mut out = Vec::new();
        let mut missing = 0;
        for (time, (at, bytes)) in segments.iter().enumerate() {
            let sequence = start.wrapping_add(*at);
            let taken =
                way.push(sequence, bytes.len() as u32, bytes, time as u64, &mut |sequence, length, bytes, _| {
                    assert_eq!(length as usize, bytes.len());
                    out.push((sequence.wrapping_sub(start), bytes.to_vec()));
                });
            missing += taken.missing;
        }
        let rest = way.release(&mut |sequence, _, bytes, _| out.push((sequence.wrapping_sub(start), bytes.to_vec())));
        assert_eq!(way.waiting_bytes(), 0);
        (out, missing + rest.missing)
    }

    #[test]
    fn the_first_copy_wins_and_differences_are_counted() {
        let mut way = Way::default();
        way.start_at(100);
        let mut seen = Vec::new();
        let mut push = |way: &mut Way, sequence, bytes: &[u8]| {
            way.push(sequence, bytes.len() as u32, bytes, 0, &mut |_, _, bytes, _| seen.extend_from_slice(bytes))
        };
        assert_eq!(push(&mut way, 105, b"FGHIJ").repeated, 0);
        let taken = push(&mut way, 103, b"DExxx");
        assert_eq!((taken.repeated, taken.conflicting), (3, 3));
        let taken = push(&mut way, 100, b"ABCyE");
        assert_eq!((taken.repeated, taken.conflicting), (2, 1));
        assert_eq!(push(&mut way, 100, b"ABC").repeated, 3);
        assert_eq!(seen, b"ABCDEFGHIJ");
    }

    #[test]
    fn an_acknowledgment_passes_a_gap_and_the_offset_jumps() {
        let mut way = Way::default();
        way.start_at(u32::MAX - 4);
        let mut seen = Vec::new();
        way.push(10, 3, b"abc", 0, &mut |sequence, _, bytes, _| seen.push((sequence, bytes.to_vec())));
        assert_eq!(way.acknowledge(9, &mut |_, _, _, _| panic!("not yet")).gaps, 0);
        let taken = way.acknowledge(10, &mut |sequence, _, bytes, _| seen.push((sequence, bytes.to_vec())));
        assert_eq!((taken.gaps, taken.missing), (1, 15));
        assert_eq!(seen, [(10, b"abc".to_vec())]);
    }

    /// A request was lost and answered: the next one is not held back until its own answer comes.
    #[test]
    fn behind_acknowledged_bytes_nothing_waits() {
        let mut way = Way::default();
        way.start_at(100);
        assert_eq!(way.acknowledge(120, &mut |_, _, _, _| panic!("nothing came yet")).gaps, 0);
        let mut seen = Vec::new();
        let taken = way.push(120, 4, b"next", 5, &mut |sequence, _, bytes, _| seen.push((sequence, bytes.to_vec())));
        assert_eq!((taken.gaps, taken.missing), (1, 20));
        assert_eq!(seen, [(120, b"next".to_vec())]);
    }

    #[test]
    fn what_waited_for_nothing_has_its_own_time() {
        let mut way = Way::default();
        way.start_at(0);
        let mut seen = Vec::new();
        let mut out = |sequence: u32, length: u32, _: &[u8], time_ns: u64| seen.push((sequence, length, time_ns));
        way.push(10, 5, b"lost1", 100, &mut out);
        way.acknowledge(15, &mut out);
        // What was missing here came late: until then this was not in order.
        way.push(20, 5, b"waits", 200, &mut out);
        way.push(15, 5, b"fills", 300, &mut out);
        let end = way.offset(40);
        assert_eq!(way.lose_to(end, 400, &mut out).missing, 15);
        assert_eq!(seen, [(10, 5, 100), (15, 5, 300), (20, 5, 300), (40, 0, 400)]);
    }

    #[test]
    fn a_snapped_segment_keeps_its_length() {
        let mut way = Way::default();
        let mut seen = Vec::new();
        let mut out = |sequence: u32, length: u32, bytes: &[u8], _: u64| seen.push((sequence, length, bytes.len()));
        way.push(1, 100, b"abc", 0, &mut out);
        way.push(151, 50, b"", 0, &mut out);
        way.push(101, 50, b"x", 0, &mut out);
        assert_eq!(seen, [(1, 100, 3), (101, 50, 1), (151, 50, 0)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut way = Way::default();
        way.start_at(0);
        let mut forced = 0;
        for number in 1..20_000u32 {
            forced += way.push(number * 2000, 1000, &[7; 1000], 0, &mut |_, _, _, _| {}).forced;
            assert!(way.waiting_bytes() <= MAX_BYTES + 2000);
        }
        assert!(forced > 10_000, "{forced}");
    }

    #[test]
    fn keep_alives_are_no_data() {
        let mut way = Way::default();
        way.start_at(50);
        assert!(way.is_keep_alive(49, 1) && way.is_keep_alive(49, 0));
        assert!(!way.is_keep_alive(50, 1) && !way.is_keep_alive(49, 2) && !way.is_keep_alive(48, 1));
    }

    proptest! {
        #[test]
        fn any_order_duplication_and_overlap_gives_the_same_bytes(
            start in any::<u32>(),
            data in proptest::collection::vec(any::<u8>(), 1..2000),
            cuts in proptest::collection::vec((0usize..2000, 1usize..300), 0..80),
            seed in any::<u64>(),
        ) {
            // Every byte at least once, more of them at random places, then in any order.
            let mut segments: Vec<(u32, &[u8])> =
                data.chunks(1 + seed as usize % 97).scan(0, |at, part| { let here = *at; *at += part.len() as u32; Some((here, part)) }).collect();
            for (from, length) in &cuts {
                let from = from % data.len();
                let to = (from + length).min(data.len());
                segments.push((from as u32, &data[from..to]));
            }
            let mut state = seed | 1;
            for at in (1..segments.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                segments.swap(at, (state >> 33) as usize % (at + 1));
            }
            let (out, missing) = run(start, &segments);
            prop_assert_eq!(missing, 0);
            let mut at = 0;
            for (offset, bytes) in out {
                prop_assert_eq!(offset as usize, at);
                prop_assert_eq!(&bytes[..], &data[at..at + bytes.len()]);
                at += bytes.len();
            }
            prop_assert_eq!(at, data.len());
        }

        #[test]
        fn dropped_segments_give_exactly_their_length_as_gap(
            start in any::<u32>(),
            lengths in proptest::collection::vec((1usize..200, any::<bool>()), 1..60),
            seed in any::<u64>(),
        ) {
            let bytes = [9u8; 200];
            let (mut at, mut kept, mut segments) = (0u32, 0u64, Vec::<(u32, &[u8])>::new());
            let mut last_kept = 0u64;
            for (length, keep) in &lengths {
                if *keep {
                    segments.push((at, &bytes[..*length]));
                    kept += *length as u64;
                    last_kept = u64::from(at) + *length as u64;
                }
                at += *length as u32;
            }
            let mut state = seed | 1;
            for at in (1..segments.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                segments.swap(at, (state >> 33) as usize % (at + 1));
            }
            let (out, missing) = run(start, &segments);
            prop_assert_eq!(out.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), kept);
            prop_assert_eq!(missing, last_kept - kept);
            let mut end = 0;
            for (offset, bytes) in out {
                prop_assert!(offset >= end);
                end = offset + bytes.len() as u32;
            }
        }
    }
}
