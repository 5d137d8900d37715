//! Requests whose answers name them: by correlation id, stream id, sequence number. Answers may come in any order.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::pairing::{MAX_OPEN, MAX_OPEN_BYTES};
use crate::{Exchange, Flags, NAMELESS, Output, Side, Status, Streams};

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub exchange: Exchange,
    /// What the decoder needs to read the answer.
    pub detail: T,
    number: u64,
    text_bytes: usize,
}

/// Requests by what their answers will name.
#[derive(Debug)]
pub(crate) struct Matching<K, T> {
    open: BTreeMap<K, Waiting<T>>,
    /// Keys by the order of the requests.
    order: BTreeMap<u64, K>,
    next: u64,
    text_bytes: usize,
    /// Requests before this number may have been answered where bytes are missing.
    doubtful_before: u64,
    doubt: Flags,
    /// Requests were lost here: answers that nobody waits for are theirs.
    unseen: Option<(u64, Flags)>,
}

impl<K, T> Default for Matching<K, T> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 0,
            text_bytes: 0,
            doubtful_before: 0,
            doubt: Flags::default(),
            unseen: None,
        }
    }
}

impl<K: Ord + Copy, T> Matching<K, T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Adds a request. One that waits under the same key never got its answer, as far as anybody saw. Where too many
    /// wait, the oldest is given up.
    pub fn ask(&mut self, key: K, exchange: Exchange, detail: T, out: &mut Output) {
        if let Some(old) = self.take(key) {
            self.give_up(old, out);
        }
        while self.open.len() >= MAX_OPEN || self.text_bytes >= MAX_OPEN_BYTES {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = *oldest;
            let Some(mut old) = self.take(oldest) else { break };
            // Its answer may still come, and will find nobody.
            old.exchange.flags.insert(Flags::GAP);
            out.exchanges.push(old.exchange);
        }
        let texts = [exchange.target.as_deref(), exchange.statement.as_deref()];
        let text_bytes = texts.into_iter().flatten().map(str::len).sum();
        self.text_bytes += text_bytes;
        out.began.push((Side::Client, exchange.request.start));
        let number = self.next;
        self.next += 1;
        self.order.insert(number, key);
        self.open.insert(key, Waiting { exchange, detail, number, text_bytes });
    }

    /// Keys within `range` that somebody waits under, in order.
    pub fn keys(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = K> + '_ {
        self.open.range(range).map(|(key, _)| *key)
    }

    /// The highest key of `range` under which a request waits.
    pub fn last(&self, range: impl RangeBounds<K>) -> Option<K> {
        self.open.range(range).next_back().map(|(key, _)| *key)
    }

    /// The request under this key, to look at.
    pub fn get(&self, key: K) -> Option<&Waiting<T>> {
        self.open.get(&key)
    }

    /// The request under this key.
    pub fn get_mut(&mut self, key: K) -> Option<&mut Waiting<T>> {
        self.open.get_mut(&key)
    }

    /// True if a request waits under this key.
    pub fn has(&self, key: K) -> bool {
        self.open.contains_key(&key)
    }

    /// The lowest key of `range` under which a request waits.
    pub fn first(&self, range: impl RangeBounds<K>) -> Option<K> {
        self.open.range(range).next().map(|(key, _)| *key)
    }

    /// Takes the request under this key out, to be completed by the caller.
    pub fn take(&mut self, key: K) -> Option<Waiting<T>> {
        let waiting = self.open.remove(&key)?;
        self.order.remove(&waiting.number);
        self.text_bytes = self.text_bytes.saturating_sub(waiting.text_bytes);
        Some(waiting)
    }

    /// The framing of `side` was lost at `at` of its stream (see [`Matching::lost_requests`], [`Matching::lost_answers`]).
    pub fn lost(&mut self, side: Side, at: u64, flag: Flags) {
        match side {
            Side::Client => self.lost_requests(at, flag),
            Side::Server => self.lost_answers(flag),
        }
    }

    /// Requests were lost at `at` of the client's stream: answers that nobody waits for are theirs from now on.
    pub fn lost_requests(&mut self, at: u64, flag: Flags) {
        self.unseen = Some((at, flag));
    }

    /// Answers were lost: those of the requests that wait now may be among them.
    pub fn lost_answers(&mut self, flag: Flags) {
        self.doubtful_before = self.next;
        self.doubt.insert(flag);
    }

    /// A request for an answer that nobody waits for, where requests were lost: nameless, with an empty range where they
    /// were. `None` where none was lost (the recording began later, or the answer is a second one).
    pub fn unseen_request(&self) -> Option<Exchange> {
        let (at, flags) = self.unseen?;
        Some(Exchange { op: NAMELESS.into(), request: at..at, flags, ..Exchange::default() })
    }

    /// Why the answer to a request may be among bytes that are missing; `None` if it can't be.
    pub fn doubt_of(&self, waiting: &Waiting<T>) -> Option<Flags> {
        (waiting.number < self.doubtful_before).then_some(self.doubt)
    }

    fn give_up(&self, mut waiting: Waiting<T>, out: &mut Output) {
        match self.doubt_of(&waiting) {
            Some(doubt) => waiting.exchange.flags.insert(doubt),
            None => waiting.exchange.status = Status::Unanswered,
        }
        out.exchanges.push(waiting.exchange);
    }

    /// Ends all that wait, in the order in which they were sent. Those that may have been answered where bytes are
    /// missing have no status; the others are unanswered.
    pub fn finish(&mut self, streams: &Streams, out: &mut Output) {
        while let Some((_, key)) = self.order.first_key_value() {
            let key = *key;
            let Some(mut waiting) = self.take(key) else { break };
            let end = streams.server.end();
            waiting.exchange.request.end =
                waiting.exchange.request.end.min(streams.client.end()).max(waiting.exchange.request.start);
            if waiting.number < self.doubtful_before {
                waiting.exchange.response = Some(end..end);
            }
            self.give_up(waiting, out);
        }
    }
}
