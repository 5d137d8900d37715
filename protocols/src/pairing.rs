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

/// Texts of requests that wait for an answer, bytes: beyond that, as beyond [`MAX_OPEN`].
pub(crate) const MAX_OPEN_BYTES: usize = 32 << 20;

/// Unread client bytes at which waiting for answers ends: nobody pipelines that much, the answers were not seen.
pub(crate) const MAX_STALLED_BYTES: usize = 24 << 20;

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
    /// Bytes of text that it holds, as counted when it was sent.
    text_bytes: usize,
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

impl Lost {
    /// Where the answer to this request begins at the earliest. When the request was seen, the server may have sent nothing
    /// yet: then the offset of its first byte was not known.
    fn earliest<T>(&self, request: &Open<T>, server: &Stream) -> u64 {
        self.start.max(request.seen_at).max(server.begin())
    }
}

/// Requests in the order sent, paired with answers in the order received.
#[derive(Debug)]
pub(crate) struct Pairing<T> {
    open: VecDeque<Open<T>>,
    /// Sum of `Open::text_bytes`.
    text_bytes: usize,
    lost: Option<Lost>,
    stalled_at: Option<u64>,
    /// Pipelined requests or answers were lost: until none is open, answers to what is sent may belong to others.
    uncertain: Flags,
    /// Requests were lost when the server's stream ended here, all before them had their answers, and none came since.
    doubted: Option<u64>,
    /// Behind the last answer that was completed.
    answered_to: u64,
    /// Pipelined answers were lost: until none is open, those to what was sent before may belong to others too.
    shifted: Flags,
    /// Requests were given up without knowing which answers are theirs: from then on every answer may be another's.
    adrift: Flags,
}

impl<T> Default for Pairing<T> {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            text_bytes: 0,
            lost: None,
            stalled_at: None,
            uncertain: Flags::default(),
            doubted: None,
            answered_to: 0,
            shifted: Flags::default(),
            adrift: Flags::default(),
        }
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

    /// True if as many requests are open as may be.
    pub fn is_crowded(&self) -> bool {
        self.open.len() >= MAX_OPEN || self.text_bytes >= MAX_OPEN_BYTES
    }

    /// True if no further request should be read before answers were.
    pub fn is_full(&mut self, streams: &Streams, out: &mut Output) -> bool {
        if !self.is_crowded() {
            return false;
        }
        if streams.client.bytes().len() > MAX_STALLED_BYTES {
            // Only the client's side is recorded, or the answers are lost: waiting would only cost memory. They may
            // still come, and can't be told from those of later requests then.
            while let Some(mut open) = self.pop() {
                open.exchange.flags.insert(Flags::GAP);
                out.exchanges.push(open.exchange);
            }
            self.adrift.insert(Flags::GAP);
            return false;
        }
        self.stalled_at.get_or_insert(streams.server.end());
        true
    }

    /// Why an answer may belong to a request that was lost; no flag if it can't.
    pub fn uncertainty(&self) -> Flags {
        self.uncertain
    }

    /// Where answers to a request that is first looked at now can begin at the earliest.
    pub fn seen_now(&self, streams: &Streams) -> u64 {
        self.stalled_at.unwrap_or(streams.server.end())
    }

    /// Reading has come as far as it can for now: unless there are too many requests open, the client's side is read.
    pub fn caught_up(&mut self) {
        if !self.is_crowded() {
            self.stalled_at = None;
        }
    }

    /// Requests were lost, which was seen when the server's stream ended at `seen_at`: until none is open, answers may
    /// belong to those.
    pub fn doubt(&mut self, seen_at: u64, flag: Flags) {
        self.uncertain.insert(flag);
        // What the server has sent since its last answer is that to what was lost.
        self.doubted = (self.open.is_empty() && seen_at <= self.answered_to).then_some(seen_at);
    }

    /// True if the server's bytes belong to requests that are still to be read.
    pub fn is_behind(&self) -> bool {
        self.open.is_empty() && self.stalled_at.is_some()
    }

    /// Adds a request. Where the answers before it could not be followed to their end, they end here.
    pub fn push(&mut self, mut exchange: Exchange, seen_at: u64, detail: T, server: &mut Stream, out: &mut Output) {
        let awaited = self.doubted.take().is_some_and(|doubted| seen_at <= doubted);
        if !self.boundary(seen_at, server, out) && self.open.is_empty() && !awaited {
            self.in_step();
        }
        exchange.flags.insert(self.uncertain);
        if !self.open.is_empty() {
            exchange.flags.insert(Flags::PIPELINED);
        }
        let texts = [exchange.target.as_deref(), exchange.statement.as_deref()];
        let text_bytes = texts.into_iter().flatten().map(str::len).sum();
        self.text_bytes += text_bytes;
        self.open.push_back(Open { exchange, seen_at, detail, text_bytes });
    }

    /// Something that the client sent was first seen when the server's stream ended at `seen_at`: answers that could not
    /// be followed to their end ended there. False if none was lost before it.
    pub fn boundary(&mut self, seen_at: u64, server: &mut Stream, out: &mut Output) -> bool {
        let Some(lost) = self.lost.filter(|lost| seen_at > lost.start) else { return false };
        let several = self.open.len() > 1;
        self.close_lost(lost, seen_at, server, out);
        self.in_step();
        if several {
            self.uncertain.insert(lost.flag);
        }
        true
    }

    /// Nothing is open: what comes next belongs together.
    fn in_step(&mut self) {
        self.uncertain = self.adrift;
        self.shifted = self.adrift;
    }

    /// Adds a request that was not seen, but whose answer is being read: it comes before all others.
    pub fn push_answered(&mut self, exchange: Exchange, seen_at: u64, detail: T) {
        self.open.push_front(Open { exchange, seen_at, detail, text_bytes: 0 });
    }

    fn pop(&mut self) -> Option<Open<T>> {
        let open = self.open.pop_front()?;
        self.text_bytes = self.text_bytes.saturating_sub(open.text_bytes);
        Some(open)
    }

    /// Completes the oldest request with the answer `response`. How it went, as far as that was read, stands in the
    /// request already.
    pub fn complete(&mut self, response: std::ops::Range<u64>, out: &mut Output) {
        if let Some(mut open) = self.pop() {
            open.exchange.flags.insert(self.shifted);
            self.answered_to = response.end;
            open.exchange.response = Some(response);
            out.exchanges.push(open.exchange);
        }
    }

    /// Completes the oldest request, which is known to have gone well because it got no answer.
    pub fn complete_silent(&mut self, out: &mut Output) {
        if let Some(mut open) = self.pop() {
            open.exchange.status = Status::Ok;
            open.exchange.flags.insert(Flags::NO_REPLY);
            open.exchange.flags.insert(self.shifted);
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
        if self.open.len() > 1 {
            // The lost part may hold answers to some of these: then the one found belongs to a later one.
            self.uncertain.insert(lost.flag);
            self.shifted.insert(lost.flag);
        }
    }

    /// Goes on after [`Pairing::lose`] with the same answer, found again behind what was passed over.
    pub fn resume(&mut self) -> Option<Lost> {
        let lost = self.lost.take()?;
        if let Some(front) = self.open.front_mut() {
            front.exchange.flags.insert(lost.flag);
        }
        Some(lost)
    }

    /// The oldest request gets no answer, which is known: the server passed over it.
    pub fn unanswered(&mut self, out: &mut Output) {
        if let Some(mut open) = self.pop() {
            open.exchange.status = Status::Unanswered;
            out.exchanges.push(open.exchange);
        }
    }

    fn close_lost(&mut self, lost: Lost, at: u64, server: &mut Stream, out: &mut Output) {
        self.lost = None;
        let ahead = at.saturating_sub(server.position());
        out.skipped(Side::Server, ahead);
        server.skip(ahead);
        let mut first = true;
        while let Some(front) = self.open.front_mut() {
            // Answers to the ones pipelined behind the first lie somewhere in the lost part, if they were sent before
            // its end: nothing of it is theirs for sure.
            let start = if first { lost.earliest(front, server).min(at) } else { at };
            if !std::mem::take(&mut first) && front.seen_at >= at {
                return;
            }
            front.exchange.flags.insert(lost.flag);
            self.complete(start..at, out);
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

    /// Ends all that is open: a lost answer ends with the stream. Answers to what was sent behind its request may lie in
    /// the lost part too; where none can, a request is unanswered.
    pub fn finish(&mut self, streams: &Streams, out: &mut Output) {
        let lost = self.lost.take();
        let end = streams.server.end();
        let mut first = true;
        while let Some(mut open) = self.pop() {
            let first = std::mem::take(&mut first);
            let lost = lost.map(|lost| (lost, lost.earliest(&open, &streams.server)));
            let exchange = &mut open.exchange;
            exchange.request.end = exchange.request.end.min(streams.client.end()).max(exchange.request.start);
            let mut doubtful = self.shifted;
            if exchange.flags.contains(self.uncertain) {
                doubtful.insert(self.uncertain);
            }
            match lost {
                Some((lost, start)) if end > start && (first || !lost.body) => {
                    exchange.flags.insert(lost.flag);
                    exchange.response = Some(if first { start..end } else { end..end });
                }
                _ if doubtful != Flags::default() && end > open.seen_at => {
                    exchange.flags.insert(doubtful);
                    exchange.response = Some(end..end);
                }
                _ => exchange.status = Status::Unanswered,
            }
            out.exchanges.push(open.exchange);
        }
        if let Some(lost) = lost.filter(|lost| !lost.body) {
            // Requests that are still to be read may be answered there as well.
            self.adrift.insert(lost.flag);
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

/// Nothing more will come: passes over what nobody read.
pub(crate) fn drop_rest(streams: &mut Streams, out: &mut Output) {
    drop_all(&mut streams.client, Side::Client, out);
    drop_all(&mut streams.server, Side::Server, out);
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

/// Bytes at which it must be clear whether they begin a message: they are looked at anew with every chunk.
const MAX_LOOK_BYTES: usize = 16 << 10;

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
            Looks::Open if !cut && stream.bytes().len() <= MAX_LOOK_BYTES => return false,
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
