//! The streams of a connection that are open, and what is known of those that were not seen to open.

use std::collections::BTreeMap;
use std::ops::Range;

use super::call::{Call, Ended, Fields, Loss, Numbers};
use crate::{Flags, Output, Side};

/// Streams that may be open at once, and bytes of their texts; servers allow some hundred. Beyond that the oldest is
/// given up.
const MAX_OPEN: usize = 1 << 16;
const MAX_OPEN_BYTES: usize = 32 << 20;
/// A stream whose end was lost is let go when the newest stream is so far ahead: more than servers let run at once.
const STALE_DISTANCE: u32 = 1024;
/// GOAWAY frames that are looked at: servers send two at most (RFC 9113, section 6.8).
const MAX_FAREWELLS: u32 = 8;
/// Ranges of streams that were not seen to open.
const MAX_UNSEEN: usize = 64;

/// Streams whose requests were not seen: sent before the recording, or where bytes are missing.
#[derive(Debug, Clone, Copy)]
struct Unseen {
    first: u32,
    last: u32,
    /// The client's stream offset where they were lost.
    at: u64,
    flag: Flags,
}

#[derive(Debug)]
pub(super) struct Calls {
    numbers: Numbers,
    open: BTreeMap<u32, Box<Call>>,
    text_bytes: usize,
    /// The highest stream that the client opened.
    newest: u32,
    unseen: Vec<Unseen>,
    losses: [Option<Loss>; 2],
    /// The next request is the first one of a connection joined in the middle.
    joining: bool,
    /// Where looking for streams that are never told to end goes on.
    looked_at: u32,
    farewells: u32,
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Server)
}

impl Calls {
    pub fn new(numbers: Numbers, mid_stream: bool) -> Self {
        let unseen = Unseen { first: 1, last: u32::MAX, at: 0, flag: Flags::MID_STREAM };
        Self {
            numbers,
            open: BTreeMap::new(),
            text_bytes: 0,
            newest: 0,
            unseen: if mid_stream { vec![unseen] } else { Vec::new() },
            losses: [None; 2],
            joining: mid_stream,
            looked_at: 0,
            farewells: 0,
        }
    }

    /// The connection begins here: nothing was asked before.
    pub fn begin(&mut self) {
        self.unseen.clear();
        self.joining = false;
    }

    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The stream, if it is open.
    pub fn get_mut(&mut self, stream: u32) -> Option<&mut Call> {
        self.open.get_mut(&stream).map(|call| &mut **call)
    }

    /// Frames of a side were lost: the next that was found begins at `at`.
    pub fn lose(&mut self, side: Side, at: u64, flag: Flags) {
        if let Some(loss) = self.losses.get_mut(index(side)) {
            // Looking for the next frame goes on where it was lost: for the same reason.
            let before = loss.map_or(Flags::default(), |loss| loss.flag);
            *loss = Some(Loss { end: at, flag: if flag == Flags::default() { before } else { flag } });
        }
        if side == Side::Client && flag != Flags::default() {
            match self.unseen.last_mut() {
                Some(last) if last.last == u32::MAX => {}
                _ => {
                    if self.unseen.len() >= MAX_UNSEEN {
                        self.unseen.remove(0);
                    }
                    self.unseen.push(Unseen { first: self.newest.saturating_add(1), last: u32::MAX, at, flag });
                }
            }
        }
    }

    /// Takes a stream out of those that were not seen to open.
    fn take_unseen(&mut self, stream: u32) -> Option<Unseen> {
        let place = self.unseen.iter().position(|unseen| (unseen.first..=unseen.last).contains(&stream))?;
        let unseen = *self.unseen.get(place)?;
        let (before, after) =
            (Unseen { last: stream.saturating_sub(1), ..unseen }, Unseen { first: stream + 1, ..unseen });
        let rest: Vec<_> = [before, after].into_iter().filter(|part| part.first <= part.last).collect();
        self.unseen.splice(place..=place, rest);
        if self.unseen.len() > MAX_UNSEEN {
            self.unseen.remove(0);
        }
        Some(unseen)
    }

    /// A frame of the client on a stream that is not open: it was opened where nobody saw it.
    pub fn find_unseen(&mut self, stream: u32, at: u64, server_end: u64) {
        if !self.open.contains_key(&stream)
            && let Some(unseen) = self.take_unseen(stream)
        {
            self.open.insert(stream, Box::new(Call::headless(unseen.flag, at, server_end)));
        }
    }

    pub fn touch(&mut self, side: Side, stream: u32, range: Range<u64>) {
        let loss = self.losses.get(index(side)).copied().flatten();
        if let Some(call) = self.open.get_mut(&stream) {
            call.touch(side, range, loss);
        }
    }

    /// The client sent a header block: a request, or the trailers of one.
    #[allow(clippy::too_many_arguments)]
    pub fn ask(
        &mut self,
        stream: u32,
        fields: Fields,
        range: Range<u64>,
        cut: Option<Flags>,
        server_end: u64,
        ends: [u64; 2],
        out: &mut Output,
    ) {
        if self.open.contains_key(&stream) {
            self.touch(Side::Client, stream, range);
            return;
        }
        let request =
            fields.method.is_some() || fields.unknown && stream > self.newest || cut.is_some() && stream > self.newest;
        if !request {
            self.find_unseen(stream, range.start, server_end);
            self.touch(Side::Client, stream, range);
            return;
        }
        if stream > self.newest {
            if let Some(last) = self.unseen.last_mut().filter(|last| last.last == u32::MAX) {
                last.last = stream.saturating_sub(1);
            }
            self.unseen.retain(|unseen| unseen.first <= unseen.last);
            self.newest = stream;
        }
        let mut flags = cut.unwrap_or_default();
        if std::mem::take(&mut self.joining) {
            flags.insert(Flags::MID_STREAM);
        }
        out.began.push((Side::Client, range.start));
        let call = Box::new(Call::new(fields, flags, server_end));
        self.text_bytes += call.text_bytes();
        self.open.insert(stream, call);
        self.touch(Side::Client, stream, range);
        while self.open.len() > MAX_OPEN || self.text_bytes > MAX_OPEN_BYTES && self.open.len() > 1 {
            let Some((oldest, _)) = self.open.first_key_value() else { break };
            let oldest = *oldest;
            self.close(oldest, Some(Flags::GAP), ends, out);
        }
        self.let_go(ends, out);
    }

    /// Lets go of streams whose ends will never be told, looking at two of them each time.
    fn let_go(&mut self, ends: [u64; 2], out: &mut Output) {
        for _ in 0..2 {
            let old = self.newest.saturating_sub(STALE_DISTANCE);
            let Some((stream, call)) = self.open.range(self.looked_at..).next() else {
                self.looked_at = 0;
                return;
            };
            let stream = *stream;
            if stream > old {
                self.looked_at = 0;
                return;
            }
            self.looked_at = stream + 1;
            if call.is_stale(self.losses) {
                self.close(stream, None, ends, out);
            }
        }
    }

    /// The server sent a header block: an answer's head, an interim one, or trailers.
    pub fn answer(
        &mut self,
        stream: u32,
        fields: Fields,
        range: Range<u64>,
        cut: Option<Flags>,
        last: bool,
        ends: [u64; 2],
    ) {
        if !self.open.contains_key(&stream) {
            // Of a connection joined in the middle, what was asked before is not counted; of requests that were lost,
            // an answer tells.
            let lost =
                |unseen: &&Unseen| unseen.flag != Flags::MID_STREAM && (unseen.first..=unseen.last).contains(&stream);
            if stream.is_multiple_of(2) || fields.code.is_none() || self.unseen.iter().find(lost).is_none() {
                return;
            }
            if let Some(unseen) = self.take_unseen(stream) {
                self.open.insert(stream, Box::new(Call::headless(unseen.flag, unseen.at.min(ends[0]), range.start)));
            }
        }
        let loss = self.losses[1];
        let Some(call) = self.open.get_mut(&stream) else { return };
        if let Some(flag) = cut {
            call.flag(flag);
        }
        if fields.code.is_some_and(|code| code < 200) && !call.answering && !last {
            return;
        }
        self.text_bytes = self.text_bytes.saturating_sub(call.text_bytes());
        call.answer(fields);
        self.text_bytes += call.text_bytes();
        call.touch(Side::Server, range, loss);
    }

    /// A side said that nothing more comes.
    pub fn done(&mut self, side: Side, stream: u32, ends: [u64; 2], out: &mut Output) {
        let Some(call) = self.open.get_mut(&stream) else { return };
        call.part(side).done = true;
        if call.client.done && call.server.done {
            self.close(stream, None, ends, out);
        }
    }

    /// A stream was reset.
    pub fn end(&mut self, stream: u32, ended: Ended, range: Range<u64>, ends: [u64; 2], out: &mut Output) {
        let Some(call) = self.open.get_mut(&stream) else { return };
        if !call.server.done {
            call.ended = Some(ended);
            if matches!(ended, Ended::Reset(Side::Server, _)) {
                self.touch(Side::Server, stream, range);
            }
        }
        self.close(stream, None, ends, out);
    }

    /// The server will look at no stream above this one.
    pub fn go_away(&mut self, last: Option<u32>, ends: [u64; 2], out: &mut Output) {
        let Some(first) = last.and_then(|last| last.checked_add(1)) else { return };
        self.farewells += 1;
        if self.farewells > MAX_FAREWELLS {
            return;
        }
        let ignored: Vec<_> = self.open.range(first..).filter(|(_, call)| !call.answering).map(|(id, _)| *id).collect();
        for stream in ignored {
            if let Some(call) = self.open.get_mut(&stream) {
                call.ended = Some(Ended::GoneAway);
            }
            self.close(stream, None, ends, out);
        }
    }

    fn close(&mut self, stream: u32, given_up: Option<Flags>, ends: [u64; 2], out: &mut Output) {
        let Some(mut call) = self.open.remove(&stream) else { return };
        self.text_bytes = self.text_bytes.saturating_sub(call.text_bytes());
        if let Some(flag) = given_up {
            call.flag(flag);
        }
        self.numbers.grpc_spoken |= call.is_surely_grpc();
        out.exchanges.push(call.into_exchange(self.numbers, self.losses, false, ends));
    }

    /// Nothing more will come.
    pub fn finish(&mut self, ends: [u64; 2], out: &mut Output) {
        for call in std::mem::take(&mut self.open).into_values() {
            out.exchanges.push(call.into_exchange(self.numbers, self.losses, true, ends));
        }
        self.text_bytes = 0;
    }
}
