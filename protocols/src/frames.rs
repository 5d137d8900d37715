//! Messages that begin with their length: most binary protocols are made of them.

use std::ops::Range;

use crate::pairing::{Chunks, Looks, find_start, hole_flag, pass_chunk};
use crate::{Exchange, Flags, Output, Side, Stream, Streams};

/// Bytes at which a message must have told its length.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// What the bytes at the start of a message say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// Too few to tell.
    Short,
    /// The whole message, its head included, has so many bytes (at least one).
    Length(u64),
    /// No message begins like this.
    Bad,
}

/// A message.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// Its offsets, head included. Of one that the end of the stream cut off, as far as it came.
    pub range: Range<u64>,
    /// Its first bytes: up to the first hole, and no more than the reader keeps.
    pub bytes: Vec<u8>,
    /// The other stream's end when this message was first seen (see `pairing`).
    pub seen_at: u64,
    /// Set where a hole ends `bytes` before the message (or what the reader keeps of one) ends.
    pub missing: Flags,
    /// False if the stream ended within.
    pub whole: bool,
}

impl Frame {
    /// Why bytes that are needed are not in `bytes`: the hole's flag, or that of the bound on what is kept.
    pub fn lack(&self) -> Flags {
        if self.missing == Flags::default() && self.whole { Flags::TRUNCATED } else { self.missing }
    }

    /// Notes what the frame that carries a request says of it. `joined`: it is the first one, and the start of the
    /// connection was not seen; `others_open`: others wait for their answers.
    pub fn qualify(&self, exchange: &mut Exchange, joined: bool, others_open: bool) {
        if joined {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        if !self.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        if others_open {
            exchange.flags.insert(Flags::PIPELINED);
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A message; give it back with [`Frames::recycle`].
    Frame(Frame),
    /// More bytes are needed.
    Wait,
    /// The framing is lost: the message at this offset has its head in a hole (the flag says which), or begins with what
    /// no message begins with (no flag). The reader looks for the next message by itself.
    Lost(u64, Flags),
}

/// How a protocol frames its messages.
pub(crate) trait Framing {
    /// What `bytes`, the start of a message of `side`, say of its length.
    fn head(&self, side: Side, bytes: &[u8]) -> Head;

    /// Whether `bytes` look like the start of a message of `side`: stricter than `head`, as it is asked where one has to
    /// be found anew. `cut`: a hole follows them.
    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks;

    /// Whether a message ends as one must, where that can be seen: if not, what was taken for its head is none.
    fn ends(&self, _: &Frame) -> bool {
        true
    }
}

#[derive(Debug)]
enum State {
    /// Looking for a message at the starts of chunks and behind holes.
    Search,
    /// At the start of a message.
    Start,
    /// Within the part of a message that is kept: so many bytes of it.
    Keeping(usize),
    /// Behind it: waiting for the message's end.
    Passing,
}

/// Reads the messages of one direction.
#[derive(Debug)]
pub(crate) struct Frames {
    side: Side,
    /// Bytes of a message that are kept at most.
    keep: usize,
    state: State,
    frame: Frame,
    seen_at: Option<u64>,
    spare: Vec<u8>,
}

impl Frames {
    /// A reader of `side`'s messages that keeps the first `keep` bytes of each; `mid_stream`: it begins anywhere.
    pub fn new(side: Side, keep: usize, mid_stream: bool) -> Self {
        let state = if mid_stream { State::Search } else { State::Start };
        Self { side, keep, state, frame: Frame::default(), seen_at: None, spare: Vec::new() }
    }

    /// Takes a message's buffer back.
    pub fn recycle(&mut self, frame: Frame) {
        self.spare = frame.bytes;
        self.spare.clear();
    }

    /// Looks for a message anew: the bytes go on with something else.
    pub fn search(&mut self) {
        self.state = State::Search;
    }

    /// The next message that has wholly arrived. `chunk` is where the chunk pushed last begins (`pairing::Chunks`),
    /// `other_end` the end of the other direction's stream.
    pub fn next(
        &mut self,
        stream: &mut Stream,
        chunk: u64,
        other_end: u64,
        framing: &impl Framing,
        out: &mut Output,
    ) -> Next {
        loop {
            match self.state {
                State::Search => {
                    let side = self.side;
                    let from = stream.position();
                    let found = find_start(stream, side, chunk, out, |bytes, cut| framing.looks(side, bytes, cut));
                    if found {
                        self.state = State::Start;
                        self.seen_at = None;
                    }
                    // Another hole, which may hold answers to what was asked since the last one.
                    if side == Side::Server
                        && let Some(kind) = stream.passed_hole(from)
                    {
                        return Next::Lost(from, hole_flag(kind));
                    }
                    if !found {
                        return Next::Wait;
                    }
                }
                State::Start => {
                    if stream.is_empty() {
                        return Next::Wait;
                    }
                    let seen_at = *self.seen_at.get_or_insert(other_end);
                    let head =
                        if stream.bytes().is_empty() { Head::Short } else { framing.head(self.side, stream.bytes()) };
                    let at = stream.position();
                    match head {
                        Head::Length(length) if length > 0 => {
                            let mut bytes = std::mem::take(&mut self.spare);
                            bytes.clear();
                            self.frame = Frame {
                                range: at..at.saturating_add(length),
                                bytes,
                                seen_at,
                                missing: Flags::default(),
                                whole: true,
                            };
                            self.seen_at = None;
                            self.state = State::Keeping(usize::try_from(length).unwrap_or(usize::MAX).min(self.keep));
                        }
                        Head::Short if stream.hole().is_none() && stream.bytes().len() < MAX_HEAD_BYTES => {
                            return Next::Wait;
                        }
                        _ => {
                            let flag = match (head, stream.hole()) {
                                (Head::Short, Some(hole)) => hole_flag(hole.kind),
                                _ => Flags::default(),
                            };
                            pass_chunk(stream, self.side, chunk, out);
                            self.state = State::Search;
                            return Next::Lost(at, flag);
                        }
                    }
                }
                State::Keeping(wanted) => {
                    let missing = wanted.saturating_sub(self.frame.bytes.len());
                    let here = stream.bytes();
                    let taken = here.get(..missing).unwrap_or(here);
                    self.frame.bytes.extend_from_slice(taken);
                    let (count, missing) = (taken.len(), missing - taken.len());
                    stream.advance(count);
                    if missing > 0 {
                        match stream.hole() {
                            Some(hole) => self.frame.missing = hole_flag(hole.kind),
                            None => return Next::Wait,
                        }
                    }
                    stream.skip(self.frame.range.end.saturating_sub(stream.position()));
                    self.state = State::Passing;
                }
                State::Passing => {
                    if stream.position() < self.frame.range.end {
                        return Next::Wait;
                    }
                    let frame = std::mem::take(&mut self.frame);
                    if framing.ends(&frame) {
                        self.state = State::Start;
                        return Next::Frame(frame);
                    }
                    self.state = State::Search;
                    out.skipped(self.side, frame.range.end.saturating_sub(frame.range.start));
                    return Next::Lost(frame.range.start, Flags::default());
                }
            }
        }
    }

    /// The message that is arriving, as far as it came: its range says where it will end. Some servers answer before they
    /// have seen all of it.
    pub fn begun(&self) -> Option<&Frame> {
        matches!(self.state, State::Keeping(_) | State::Passing).then_some(&self.frame)
    }

    /// Nothing more will come: the message that the end cut off, if its head was read.
    pub fn finish(&mut self, stream: &Stream) -> Option<Frame> {
        match self.state {
            State::Keeping(_) | State::Passing => {
                self.state = State::Search;
                let mut frame = std::mem::take(&mut self.frame);
                frame.whole = false;
                frame.range.end = frame.range.end.min(stream.end()).max(frame.range.start);
                Some(frame)
            }
            State::Search | State::Start => None,
        }
    }
}

/// Reads the messages of both directions, of a protocol whose sides speak when they like.
#[derive(Debug)]
pub(crate) struct BothFrames {
    sides: [Frames; 2],
    chunks: Chunks,
    /// Where the chunks pushed last begin.
    latest: [u64; 2],
    /// A message was read: from then on these bytes are this protocol, whatever comes.
    settled: bool,
}

impl BothFrames {
    /// Readers that keep the first `keep` bytes of each message; `mid_stream`: they begin anywhere.
    pub fn new(keep: usize, mid_stream: bool) -> Self {
        Self {
            sides: [Side::Client, Side::Server].map(|side| Frames::new(side, keep, mid_stream)),
            chunks: Chunks::default(),
            latest: [0; 2],
            settled: false,
        }
    }

    fn side(&mut self, side: Side) -> &mut Frames {
        let [client, server] = &mut self.sides;
        if side == Side::Client { client } else { server }
    }

    /// Something was pushed: call it once before [`BothFrames::next`].
    pub fn advance(&mut self, streams: &Streams) {
        self.latest = self.chunks.advance(streams).into();
    }

    /// The next message of `side` that has wholly arrived. Rejects bytes that begin with something else.
    pub fn next(&mut self, side: Side, streams: &mut Streams, framing: &impl Framing, out: &mut Output) -> Next {
        let [client, server] = self.latest;
        let (chunk, stream, other_end) = match side {
            Side::Client => (client, &mut streams.client, streams.server.end()),
            Side::Server => (server, &mut streams.server, streams.client.end()),
        };
        let next = self.side(side).next(stream, chunk, other_end, framing, out);
        match next {
            Next::Frame(_) => self.settled = true,
            Next::Lost(_, flag) => out.rejected |= flag == Flags::default() && !self.settled,
            Next::Wait => {}
        }
        next
    }

    /// Takes a message's buffer back.
    pub fn recycle(&mut self, side: Side, frame: Frame) {
        self.side(side).recycle(frame);
    }

    /// The message of `side` that is arriving: see [`Frames::begun`].
    pub fn begun(&self, side: Side) -> Option<&Frame> {
        let [client, server] = &self.sides;
        if side == Side::Client { client.begun() } else { server.begun() }
    }

    /// Nothing more will come: the message of `side` that the end cut off, if its head was read.
    pub fn finish(&mut self, side: Side, streams: &Streams) -> Option<Frame> {
        let stream = if side == Side::Client { &streams.client } else { &streams.server };
        self.side(side).finish(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hole, HoleKind};

    /// One byte of length, head included; 0 is no message.
    struct Tiny;

    impl Framing for Tiny {
        fn head(&self, _: Side, bytes: &[u8]) -> Head {
            match bytes.first() {
                None => Head::Short,
                Some(0) => Head::Bad,
                Some(length) => Head::Length(u64::from(*length)),
            }
        }

        fn looks(&self, side: Side, bytes: &[u8], _: bool) -> Looks {
            (self.head(side, bytes) != Head::Bad).into()
        }
    }

    fn read(pieces: &[Result<&[u8], u64>], keep: usize) -> Vec<String> {
        let mut stream = Stream::default();
        let mut frames = Frames::new(Side::Client, keep, false);
        let (mut out, mut found) = (Output::default(), Vec::new());
        for piece in pieces {
            let chunk = stream.end();
            match piece {
                Ok(bytes) => stream.push(bytes),
                Err(length) => stream.push_hole(Hole { length: *length, kind: HoleKind::Cut }),
            }
            loop {
                match frames.next(&mut stream, chunk, 0, &Tiny, &mut out) {
                    Next::Frame(frame) => {
                        found.push(format!("{:?} {:?} {}", frame.range, frame.bytes, frame.missing.0));
                        frames.recycle(frame);
                    }
                    Next::Lost(at, flag) => found.push(format!("lost {at} {}", flag.0)),
                    Next::Wait => break,
                }
            }
        }
        if let Some(frame) = frames.finish(&stream) {
            found.push(format!("{:?} {:?} end", frame.range, frame.bytes));
        }
        found
    }

    #[test]
    fn messages_come_out_however_they_arrive() {
        let expected = ["0..3 [3, 1, 2] 0", "3..4 [1] 0", "4..6 [2, 9] 0"];
        assert_eq!(read(&[Ok(&[3, 1, 2, 1, 2, 9])], 10), expected);
        assert_eq!(read(&[Ok(&[3]), Ok(&[1]), Ok(&[2, 1, 2]), Ok(&[9])], 10), expected);
        assert_eq!(read(&[Ok(&[5, 1, 2, 3, 4, 1])], 2), ["0..5 [5, 1] 0", "5..6 [1] 0"]);
    }

    #[test]
    fn holes_inside_a_message_are_passed_and_the_end_is_told() {
        assert_eq!(read(&[Ok(&[6, 1]), Err(4), Ok(&[1])], 10), ["0..6 [6, 1] 1", "6..7 [1] 0"]);
        assert_eq!(read(&[Ok(&[6, 1])], 10), ["0..2 [6, 1] end"]);
    }

    #[test]
    fn lost_framing_is_told_and_found_again() {
        let expected = ["0..2 [2, 1] 0", "lost 2 1", "12..13 [1] 0"];
        assert_eq!(read(&[Ok(&[2, 1]), Err(10), Ok(&[1])], 10), expected);
        assert_eq!(read(&[Ok(&[2, 1, 0, 7]), Ok(&[1])], 10), ["0..2 [2, 1] 0", "lost 2 0", "4..5 [1] 0"]);
    }
}
