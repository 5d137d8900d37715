//! What every request/answer decoder needs: requests waiting for their answers, and the way back into step after a hole.
//!
//! Two facts of the caller's order (one endpoint's view of both directions) carry this:
//! 1. An answer never begins before its request was seen. So each request remembers `seen_at`, the server stream's end
//!    at that moment.
//! 2. Where the end of an answer can't be told (its framing is in a hole, or it has none), it ended at the latest when
//!    the next request was seen: that request's `seen_at` is a boundary on the server's stream.

use std::collections::VecDeque;

use crate::{ByteClass, Exchange, Flags, HoleKind, Output, Side, Status, Stream, Streams};

/// Requests that may wait for an answer at once. Beyond that, the client's bytes stay unread until answers came.
pub(crate) const MAX_OPEN: usize = 1 << 16;

/// Unread client bytes at which waiting for answers ends: nobody pipelines that much, the answers were not seen.
const MAX_STALLED_BYTES: usize = 24 << 20;

/// The flag for bytes missing in a hole of this kind.
pub(crate) fn hole_flag(kind: HoleKind) -> Flags {
    match kind {
        HoleKind::Cut => Flags::TRUNCATED,
        HoleKind::Gap => Flags::GAP,
    }
}

/// A request whose answer is not complete.
#[derive(Debug)]
pub(crate) struct Open<T> {
    pub exchange: Exchange,
    /// Server stream offset before which the answer can't begin.
    pub seen_at: u64,
    pub detail: T,
}

/// The answer to the oldest request can't be followed any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    /// Where that answer begins (or would, were it seen).
    pub start: u64,
    /// Something of the answer was read before.
    pub begun: bool,
    /// What to tell about the exchange.
    pub flag: Flags,
    /// Nothing is wrong: it is a body that the connection's end delimits.
    body: bool,
}

/// Requests in the order sent, paired with answers in the order received.
#[derive(Debug)]
pub(crate) struct Pairing<T> {
    open: VecDeque<Open<T>>,
    lost: Option<Lost>,
    stalled_at: Option<u64>,
    /// Pipelined requests or answers were lost: until none is open, answers may belong to others.
    uncertain: Flags,
}

impl<T> Default for Pairing<T> {
    fn default() -> Self {
        Self { open: VecDeque::new(), lost: None, stalled_at: None, uncertain: Flags::default() }
    }
}

impl<T> Pairing<T> {
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn front_mut(&mut self) -> Option<&mut Open<T>> {
        self.open.front_mut()
    }

    pub fn front(&self) -> Option<&Open<T>> {
        self.open.front()
    }

    pub fn back_mut(&mut self) -> Option<&mut Open<T>> {
        self.open.back_mut()
    }

    pub fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// True if no further request should be read before answers were.
    pub fn is_full(&mut self, streams: &Streams, out: &mut Output) -> bool {
        if self.open.len() < MAX_OPEN {
            return false;
        }
        if streams.client.bytes().len() > MAX_STALLED_BYTES {
            // Only the client's side is recorded, or the answers are lost: waiting would only cost memory.
            while let Some(mut open) = self.open.pop_front() {
                open.exchange.status = Status::Unanswered;
                out.exchanges.push(open.exchange);
            }
            return false;
        }
        self.stalled_at.get_or_insert(streams.server.end());
        true
    }

    /// Where answers to a request that is first looked at now can begin at the earliest.
    pub fn seen_now(&self, streams: &Streams) -> u64 {
        self.stalled_at.unwrap_or(streams.server.end())
    }

    /// Reading has come as far as it can for now: unless there are too many requests open, the client's side is read.
    pub fn caught_up(&mut self) {
        if self.open.len() < MAX_OPEN {
            self.stalled_at = None;
        }
    }

    /// Requests were lost: until none is open, answers may belong to those.
    pub fn doubt(&mut self, flag: Flags) {
        self.uncertain.insert(flag);
    }

    /// True if the server's bytes belong to requests that are still to be read.
    pub fn is_behind(&self) -> bool {
        self.open.is_empty() && self.stalled_at.is_some()
    }

    /// Adds a request. Where the answers before it could not be followed to their end, they end here.
    pub fn push(&mut self, mut exchange: Exchange, seen_at: u64, detail: T, server: &mut Stream, out: &mut Output) {
        if let Some(lost) = self.lost
            && seen_at > lost.start
        {
            self.uncertain = if self.open.len() > 1 { lost.flag } else { Flags::default() };
            self.close_lost(lost, seen_at, server, out);
        } else if self.open.is_empty() {
            self.uncertain = Flags::default();
        }
        exchange.flags.insert(self.uncertain);
        if !self.open.is_empty() {
            exchange.flags.insert(Flags::PIPELINED);
        }
        self.open.push_back(Open { exchange, seen_at, detail });
    }

    /// Completes the oldest request with the answer `response`.
    pub fn complete(&mut self, response: std::ops::Range<u64>, out: &mut Output) {
        if let Some(mut open) = self.open.pop_front() {
            open.exchange.response = Some(response);
            out.exchanges.push(open.exchange);
        }
    }

    /// Notes that the answer beginning at `start` can't be followed any more.
    pub fn lose(&mut self, start: u64, begun: bool, flag: Flags) {
        self.lost = Some(Lost { start, begun, flag, body: false });
    }

    /// Notes that the answer beginning at `start` goes on to the connection's end, or until the next request was seen.
    pub fn lose_end(&mut self, start: u64) {
        self.lost = Some(Lost { start, begun: true, flag: Flags::default(), body: true });
    }

    /// Goes on after [`Pairing::lose`] with an answer recognised by its own bytes: where some of the lost answer was
    /// read, that one ended before `at`.
    pub fn found(&mut self, at: u64, out: &mut Output) {
        let Some(lost) = self.lost.take() else { return };
        if let Some(front) = self.open.front_mut() {
            front.exchange.flags.insert(lost.flag);
        }
        if lost.begun {
            self.complete(lost.start..at, out);
        }
    }

    fn close_lost(&mut self, lost: Lost, at: u64, server: &mut Stream, out: &mut Output) {
        self.lost = None;
        let ahead = at.saturating_sub(server.position());
        out.skipped(Side::Server, ahead);
        server.skip(ahead);
        let mut response = lost.start..at;
        while let Some(front) = self.open.front_mut() {
            front.exchange.flags.insert(lost.flag);
            self.complete(response, out);
            // Answers to the ones pipelined behind it lie somewhere in the lost part: nothing of it is theirs for sure.
            response = at..at;
        }
    }

    /// Passes over everything that is here of a lost answer.
    pub fn pass_lost(&self, lost: Lost, server: &mut Stream, out: &mut Output) {
        if lost.body {
            out.mark(Side::Server, server.position()..server.end(), ByteClass::Value);
            server.skip(server.end().saturating_sub(server.position()));
        } else {
            drop_all(server, Side::Server, out);
        }
    }

    /// Ends all that is open: a lost answer ends with the stream, the rest is unanswered.
    pub fn finish(&mut self, streams: &Streams, out: &mut Output) {
        let lost = self.lost.take();
        let mut first = true;
        while let Some(mut open) = self.open.pop_front() {
            let exchange = &mut open.exchange;
            exchange.request.end = exchange.request.end.min(streams.client.end()).max(exchange.request.start);
            match lost {
                Some(lost) if std::mem::take(&mut first) && streams.server.end() > lost.start => {
                    exchange.flags.insert(lost.flag);
                    exchange.response = Some(lost.start..streams.server.end());
                }
                _ => exchange.status = Status::Unanswered,
            }
            out.exchanges.push(open.exchange);
        }
    }

    /// Ends the oldest request, whose answer began at `start` and was still going on at the end.
    pub fn finish_incomplete(&mut self, start: u64, streams: &Streams, out: &mut Output) {
        if let Some(front) = self.open.front_mut() {
            front.exchange.flags.insert(Flags::INCOMPLETE);
            let end = streams.server.end();
            self.complete(start.min(end)..end, out);
        }
    }
}

/// Passes over all bytes and holes that are here, counting them.
pub(crate) fn drop_all(stream: &mut Stream, side: Side, out: &mut Output) {
    let count = stream.end().saturating_sub(stream.position());
    out.skipped(side, count);
    stream.skip(count);
}

/// Where the chunk pushed last begins, for both directions: messages begin at the start of a chunk more often than not.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    ends: Option<(u64, u64)>,
}

impl Chunks {
    /// Offsets (client, server) of what was pushed since the last call.
    pub fn advance(&mut self, streams: &Streams) -> (u64, u64) {
        let starts = self.ends.unwrap_or((streams.client.position(), streams.server.position()));
        self.ends = Some((streams.client.end(), streams.server.end()));
        starts
    }
}

/// Whether bytes look like the start of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    Yes,
    No,
    /// Too few bytes to tell.
    Open,
}

impl From<bool> for Looks {
    fn from(value: bool) -> Self {
        if value { Looks::Yes } else { Looks::No }
    }
}

/// Looks for the start of a message at the cursor, at the starts of chunks and behind holes; true when the cursor stands
/// at one. `chunk` is the start of the last chunk; `looks` gets the bytes at the cursor and whether a hole follows them.
///
/// Call it with the cursor where a message may begin; where it may not, call [`pass_chunk`] first.
pub(crate) fn find_start(
    stream: &mut Stream,
    side: Side,
    chunk: u64,
    out: &mut Output,
    looks: impl Fn(&[u8], bool) -> Looks,
) -> bool {
    loop {
        if stream.is_empty() {
            return false;
        }
        let cut = stream.hole().is_some();
        let verdict = if stream.bytes().is_empty() { Looks::No } else { looks(stream.bytes(), cut) };
        match verdict {
            Looks::Yes => return true,
            Looks::Open if !cut => return false,
            _ => pass_chunk(stream, side, chunk, out),
        }
    }
}

/// Passes over bytes that are no start of a message, to where the next one may begin: the start of the last chunk, the
/// bytes behind the next hole, or what is pushed next. Makes progress wherever there is something to pass over.
pub(crate) fn pass_chunk(stream: &mut Stream, side: Side, chunk: u64, out: &mut Output) {
    let here = stream.bytes().len() as u64;
    let to_chunk = chunk.saturating_sub(stream.position());
    let count = match stream.hole() {
        _ if to_chunk > 0 && to_chunk < here => to_chunk,
        Some(hole) => here + hole.length,
        None => here,
    };
    out.skipped(side, count);
    stream.skip(count);
}
