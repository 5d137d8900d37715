//! The order of bytes of one socket and direction.
//!
//! Offsets are read after the socket's lock is gone, so of two threads that move bytes on one socket at once, one can
//! read an offset that already includes the other's bytes: neighbours overlap, while lengths stay exact. What is true
//! of every call: the offset it recorded is never before its bytes' own. The calls between two quiet points tile the
//! bytes between them without overlap; if one order only fits, it is restored, else it is a guess and marked so.

use std::collections::VecDeque;

/// Calls that may wait for a missing neighbour before its bytes count as unseen.
const MAX_WAITING: usize = 32;
/// ... and how long, in event time.
const MAX_WAIT_NS: u64 = 500_000_000;
/// Calls of which every order is tried; more at once are taken in the order recorded.
const MAX_PERMUTED: usize = 6;
/// A jump by more than this is no gap in a stream but a stream that can't be followed.
const MAX_JUMP: u64 = 1 << 30;

/// One call, as far as order is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<T> {
    /// Recorded offset of its first byte, unwrapped.
    pub offset: u64,
    /// Bytes it moved.
    pub length: u64,
    /// Event time, ns.
    pub time_ns: u64,
    /// Whatever goes with it.
    pub what: T,
}

/// What comes out, in order of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<T> {
    /// A call; `offset` is its bytes' own. `certain` is false where the order is a guess.
    Call(Call<T>, bool),
    /// Bytes that no call shows.
    Gap {
        /// Where they begin.
        offset: u64,
        /// How many.
        length: u64,
    },
}

/// Restores the order.
#[derive(Debug)]
pub struct Sequencer<T> {
    next: Option<u64>,
    waiting: VecDeque<Call<T>>,
}

impl<T> Default for Sequencer<T> {
    fn default() -> Self {
        Self { next: None, waiting: VecDeque::new() }
    }
}

impl<T: Copy> Sequencer<T> {
    /// Sets the offset of the first byte, where it is known.
    pub fn start_at(&mut self, offset: u64) {
        self.next.get_or_insert(offset);
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        self.waiting.shrink_to_fit();
    }

    /// Offset of the next byte; `None` before the first call.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// True if a call at `offset` comes out at once.
    pub fn is_next(&self, offset: u64) -> bool {
        self.waiting.is_empty() && self.next.is_none_or(|next| next == offset)
    }

    /// The recorded 32-bit sequence number as an offset in the stream, near where the stream is.
    pub fn unwrap_sequence(&self, sequence: u32) -> u64 {
        match self.next {
            // Sequence numbers begin anywhere: leave room below.
            None => (1 << 32) + u64::from(sequence),
            Some(next) => {
                let difference = i64::from(sequence.wrapping_sub(next as u32).cast_signed());
                next.saturating_add_signed(difference)
            }
        }
    }

    /// Takes a call and gives out what is in order now.
    pub fn push(&mut self, call: Call<T>, out: &mut impl FnMut(Step<T>)) {
        let next = *self.next.get_or_insert(call.offset);
        if self.waiting.is_empty() && call.offset == next {
            self.next = Some(next.saturating_add(call.length));
            out(Step::Call(call, true));
            return;
        }
        self.waiting.push_back(call);
        self.settle(out);
        let oldest = self.waiting.front().map_or(call.time_ns, |first| first.time_ns);
        if self.waiting.len() > MAX_WAITING || call.time_ns.saturating_sub(oldest) > MAX_WAIT_NS {
            self.give_up(out);
        }
    }

    /// Nothing more will come.
    pub fn finish(&mut self, out: &mut impl FnMut(Step<T>)) {
        while !self.waiting.is_empty() {
            self.give_up(out);
        }
    }

    /// Gives out the waiting calls once they fill a stretch of the stream exactly.
    fn settle(&mut self, out: &mut impl FnMut(Step<T>)) {
        loop {
            let Some(next) = self.next else { return };
            // Calls that don't overlap come out one by one.
            if let Some(at) = self.waiting.iter().position(|call| call.offset == next)
                && !self.overlaps(at)
                && let Some(call) = self.waiting.remove(at)
            {
                self.next = Some(next.saturating_add(call.length));
                out(Step::Call(call, true));
                continue;
            }
            let total: u64 = self.waiting.iter().map(|call| call.length).sum();
            let end = self.waiting.iter().map(|call| call.offset.saturating_add(call.length)).max();
            if self.waiting.is_empty() || end != Some(next.saturating_add(total)) {
                return;
            }
            self.emit_tiled(next, out);
        }
    }

    fn overlaps(&self, at: usize) -> bool {
        let Some(one) = self.waiting.get(at) else { return false };
        let end = one.offset.saturating_add(one.length);
        self.waiting.iter().enumerate().any(|(other_at, other)| {
            other_at != at && other.offset < end && one.offset < other.offset.saturating_add(other.length)
        })
    }

    /// The waiting calls tile the stream from `next` on: finds their order.
    fn emit_tiled(&mut self, next: u64, out: &mut impl FnMut(Step<T>)) {
        let mut calls: Vec<Call<T>> = self.waiting.drain(..).collect();
        // The recorded order of offsets, then of time: what is taken where orders can't be told apart.
        calls.sort_by_key(|call| (call.offset, call.time_ns));
        let (order, certain) = match orders(&calls, next).as_slice() {
            [only] => (only.clone(), true),
            [first, ..] => (first.clone(), false),
            [] => ((0..calls.len()).collect(), false),
        };
        let mut offset = next;
        for call in order.into_iter().filter_map(|index| calls.get(index)) {
            out(Step::Call(Call { offset, ..*call }, certain));
            offset = offset.saturating_add(call.length);
        }
        self.next = Some(offset);
    }

    /// The missing neighbour won't come: bytes up to the first waiting call were not seen.
    fn give_up(&mut self, out: &mut impl FnMut(Step<T>)) {
        let Some(next) = self.next else { return };
        let first = self.waiting.iter().enumerate().min_by_key(|(_, call)| (call.offset, call.time_ns));
        let Some((at, offset)) = first.map(|(at, call)| (at, call.offset)) else { return };
        if offset > next && offset - next <= MAX_JUMP {
            out(Step::Gap { offset: next, length: offset - next });
            self.next = Some(offset);
        } else if let Some(call) = self.waiting.remove(at) {
            // It repeats bytes, or jumps too far: follow the stream at the call's own place.
            let offset = if call.offset < next && next - call.offset <= MAX_JUMP { next } else { call.offset };
            out(Step::Call(Call { offset, ..call }, false));
            self.next = Some(offset.saturating_add(call.length));
        }
        self.settle(out);
    }
}

/// Every order in which the calls tile the stream from `next` on with no call before its recorded offset's bytes:
/// a call's own offset is never after the recorded one. At most two, since two are already too many.
fn orders<T>(calls: &[Call<T>], next: u64) -> Vec<Vec<usize>> {
    if calls.len() > MAX_PERMUTED {
        return Vec::new();
    }
    let mut found = Vec::new();
    // Depth-first over indices, without recursion: `order` is the current prefix, `resume` where to go on at each depth.
    let mut order: Vec<usize> = Vec::new();
    let mut resume = vec![0usize];
    let mut offset = next;
    while let Some(at) = resume.last_mut() {
        if order.len() == calls.len() {
            found.push(order.clone());
            if found.len() == 2 {
                return found;
            }
            *at = calls.len();
        }
        let candidate = (*at..calls.len())
            .find(|index| !order.contains(index) && calls.get(*index).is_some_and(|call| offset <= call.offset));
        match candidate {
            Some(index) => {
                *at = index + 1;
                order.push(index);
                offset = offset.saturating_add(calls.get(index).map_or(0, |call| call.length));
                resume.push(0);
            }
            None => {
                resume.pop();
                if let Some(index) = order.pop() {
                    offset = offset.saturating_sub(calls.get(index).map_or(0, |call| call.length));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(offset: u64, length: u64, what: char) -> Call<char> {
        Call { offset, length, time_ns: 0, what }
    }

    fn run(start: u64, calls: &[Call<char>]) -> Vec<Step<char>> {
        let mut sequencer = Sequencer::default();
        sequencer.start_at(start);
        let mut steps = Vec::new();
        calls.iter().for_each(|call| sequencer.push(*call, &mut |step| steps.push(step)));
        sequencer.finish(&mut |step| steps.push(step));
        steps
    }

    #[test]
    fn calls_in_order_pass_through() {
        let steps = run(10, &[call(10, 5, 'a'), call(15, 5, 'b')]);
        assert_eq!(steps, [Step::Call(call(10, 5, 'a'), true), Step::Call(call(15, 5, 'b'), true)]);
    }

    #[test]
    fn calls_that_were_recorded_in_the_wrong_order_are_turned() {
        let steps = run(10, &[call(15, 5, 'b'), call(10, 5, 'a')]);
        assert_eq!(steps, [Step::Call(call(10, 5, 'a'), true), Step::Call(call(15, 5, 'b'), true)]);
    }

    #[test]
    fn an_overlap_with_two_possible_orders_is_marked() {
        // 50 bytes read late (recorded 120), 20 bytes recorded at 150: both orders fill 100..170.
        let steps = run(100, &[call(150, 20, 'b'), call(120, 50, 'a')]);
        assert_eq!(steps.len(), 2);
        assert!(steps.iter().all(|step| matches!(step, Step::Call(_, false))), "{steps:?}");
        assert!(matches!(steps[1], Step::Call(Call { offset: 150, .. }, _) | Step::Call(Call { offset: 120, .. }, _)));
    }

    #[test]
    fn an_overlap_with_one_possible_order_is_restored() {
        // 'a' must come first: 'b' and 'c' lie behind it whatever their order, and 'c' is at 130 or later.
        let steps = run(100, &[call(100, 10, 'a'), call(120, 20, 'c'), call(110, 10, 'b')]);
        let order: String =
            steps.iter().map(|step| if let Step::Call(call, true) = step { call.what } else { '?' }).collect();
        assert_eq!(order, "abc");
    }

    #[test]
    fn a_gap_is_reported_once_nothing_fills_it() {
        let steps = run(0, &[call(0, 5, 'a'), call(8, 2, 'b')]);
        assert_eq!(steps[1], Step::Gap { offset: 5, length: 3 });
        assert_eq!(steps[2], Step::Call(call(8, 2, 'b'), true));
    }

    #[test]
    fn sequence_numbers_unwrap_over_four_gigabytes() {
        let mut sequencer = Sequencer::<char>::default();
        let first = sequencer.unwrap_sequence(u32::MAX - 9);
        sequencer.start_at(first);
        sequencer.push(call(first, 20, 'a'), &mut |_| {});
        assert_eq!(sequencer.unwrap_sequence(10), first + 20);
        assert_eq!(sequencer.unwrap_sequence(u32::MAX - 9), first);
    }

    proptest! {
        #[test]
        fn every_call_comes_out_once_and_offsets_never_go_back(calls in proptest::collection::vec((0u64..300, 1u64..40), 0..60)) {
            let calls: Vec<Call<char>> = calls.iter().map(|(offset, length)| call(*offset, *length, 'x')).collect();
            let steps = run(0, &calls);
            let mut at = 0;
            let mut count = 0;
            for step in steps {
                let (offset, length) = match step {
                    Step::Call(call, _) => { count += 1; (call.offset, call.length) }
                    Step::Gap { offset, length } => (offset, length),
                };
                prop_assert_eq!(offset, at);
                at = offset + length;
            }
            prop_assert_eq!(count, calls.len());
        }

        #[test]
        fn racing_threads_keep_every_length(lengths in proptest::collection::vec(1u64..30, 1..40), race in any::<u64>()) {
            // Neighbours race: the first of a pair reads its offset after the second's bytes.
            let mut calls = Vec::new();
            let mut offset = 0;
            for pair in lengths.chunks(2) {
                match pair {
                    [a, b] if race >> (calls.len() % 64) & 1 == 1 => {
                        calls.push(call(offset + b, *a, 'a'));
                        calls.push(call(offset + a, *b, 'b'));
                        offset += a + b;
                    }
                    _ => for length in pair {
                        calls.push(call(offset, *length, 'c'));
                        offset += length;
                    },
                }
            }
            let steps = run(0, &calls);
            prop_assert!(steps.iter().all(|step| matches!(step, Step::Call(..))), "{:?}", steps);
        }
    }
}
