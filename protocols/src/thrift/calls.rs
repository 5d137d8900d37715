//! Calls and their answers. Many clients give every call the same sequence number and wait for its answer; others send
//! ahead. So an answer belongs to the oldest call that waits with its number and its name.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::matching::{Matching, Waiting};
use crate::{Exchange, Flags, Output, Streams};

/// Calls with the same number among which a name is looked for.
const MAX_LOOKED_AT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: Matching<u64, ()>,
    /// Calls by their sequence number, in order.
    by_number: BTreeMap<i32, VecDeque<u64>>,
    next: u64,
    /// Calls before this may have been answered where bytes are missing.
    doubtful_before: u64,
}

impl Calls {
    pub fn is_empty(&self) -> bool {
        self.waiting.len() == 0
    }

    pub fn ask(&mut self, sequence: i32, exchange: Exchange, out: &mut Output) {
        if self.waiting.len() == 0 {
            self.by_number.clear();
        }
        let calls = self.by_number.entry(sequence).or_default();
        // Where its number is used anew, an answer that got lost will not come any more.
        while calls.front().is_some_and(|call| *call < self.doubtful_before) {
            calls.pop_front();
        }
        calls.push_back(self.next);
        self.waiting.ask(self.next, exchange, (), out);
        self.next += 1;
    }

    /// The call that an answer belongs to.
    pub fn take(&mut self, sequence: i32, name: &str) -> Option<Waiting<()>> {
        let calls = self.by_number.get_mut(&sequence)?;
        // Given up, as too many waited.
        while calls.front().is_some_and(|call| self.waiting.get_mut(*call).is_none()) {
            calls.pop_front();
        }
        let at = calls
            .iter()
            .take(MAX_LOOKED_AT)
            .position(|call| self.waiting.get_mut(*call).is_some_and(|open| &*open.exchange.op == name))?;
        let call = calls.remove(at)?;
        if calls.is_empty() {
            self.by_number.remove(&sequence);
        }
        self.waiting.take(call)
    }

    pub fn lost_requests(&mut self, at: u64, flag: Flags) {
        self.waiting.lost_requests(at, flag);
    }

    pub fn lost_answers(&mut self, flag: Flags) {
        self.doubtful_before = self.next;
        self.waiting.lost_answers(flag);
    }

    /// For an answer that nobody waits for.
    pub fn unseen(&self, response: Range<u64>) -> Option<Exchange> {
        let mut exchange = self.waiting.unseen_request()?;
        exchange.response = Some(response);
        Some(exchange)
    }

    pub fn finish(&mut self, streams: &Streams, out: &mut Output) {
        self.waiting.finish(streams, out);
    }
}
