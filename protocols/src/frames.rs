//! Messages that begin with their length: most binary protocols are made of them.

use std::ops::Range;

use crate::pairing::{Looks, find_start, hole_flag, pass_chunk};
use crate::{Flags, Output, Side, Stream};

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
    /// It is the first one behind something that was passed over, or of a connection joined in the middle.
    pub found: bool,
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
    found: bool,
    spare: Vec<u8>,
}

impl Frames {
    /// A reader of `side`'s messages that keeps the first `keep` bytes of each; `mid_stream`: it begins anywhere.
    pub fn new(side: Side, keep: usize, mid_stream: bool) -> Self {
        let state = if mid_stream { State::Search } else { State::Start };
        Self { side, keep, state, frame: Frame::default(), seen_at: None, found: mid_stream, spare: Vec::new() }
    }

    /// Takes a message's buffer back.
    pub fn recycle(&mut self, frame: Frame) {
        self.spare = frame.bytes;
        self.spare.clear();
    }

    /// Goes on looking for a message anew, wherever it stands.
    #[allow(dead_code)]
    pub fn search(&mut self) {
        self.state = State::Search;
        self.found = true;
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
                                found: std::mem::take(&mut self.found),
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
                            self.search();
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
                    self.state = State::Start;
                    return Next::Frame(std::mem::take(&mut self.frame));
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
