//! The course of a connection whose messages begin with their length and whose answers name their request.

use crate::frames::{Frame, Frames, Framing, Next};
use crate::matching::Matching;
use crate::pairing::{Chunks, MAX_OPEN, MAX_STALLED_BYTES};
use crate::{Flags, Output, Parser, Side, Start, Streams};

/// A message's buffer above this is not kept for the next one.
const MAX_SPARE_BYTES: usize = 64 << 10;

/// What a protocol makes of its messages.
pub(crate) trait Calls: Framing + Send {
    /// What an answer names its request by.
    type Key: Ord + Copy;
    /// What the decoder remembers of a request.
    type Detail;

    /// Bytes of a message that are looked at.
    const KEEP: usize;

    /// Reads a message. False where it is none of this protocol, or an answer that nobody waits for.
    fn message(&mut self, side: Side, frame: &Frame, out: &mut Output) -> bool;

    /// The requests that wait for their answers.
    fn open(&mut self) -> &mut Matching<Self::Key, Self::Detail>;
}

/// A connection.
pub(crate) struct Conversation<C> {
    calls: C,
    frames: [Frames; 2],
    chunks: Chunks,
    mid_stream: bool,
    /// An answer was read: from here on these bytes are this protocol, whatever comes.
    settled: bool,
    /// Requests stay unread until answers came.
    stalled: bool,
}

impl<C: Calls> Conversation<C> {
    pub fn new(start: &Start, calls: C) -> Self {
        let frames = |side| Frames::new(side, C::KEEP, start.mid_stream);
        Self {
            calls,
            frames: [frames(Side::Client), frames(Side::Server)],
            chunks: Chunks::default(),
            mid_stream: start.mid_stream,
            settled: false,
            stalled: false,
        }
    }

    fn read(&mut self, side: Side, chunk: u64, streams: &mut Streams, out: &mut Output) {
        let [client, server] = &mut self.frames;
        let (frames, stream, other_end) = match side {
            Side::Client => (client, &mut streams.client, streams.server.end()),
            Side::Server => (server, &mut streams.server, streams.client.end()),
        };
        while !out.rejected {
            match side {
                Side::Client if self.calls.open().len() >= MAX_OPEN && stream.bytes().len() < MAX_STALLED_BYTES => {
                    self.stalled = true;
                    return;
                }
                // What comes may answer requests that are still to be read.
                Side::Server if self.stalled && self.calls.open().len() < MAX_OPEN / 2 => return,
                _ => {}
            }
            let understood = match frames.next(stream, chunk, other_end, &self.calls, out) {
                Next::Wait => return,
                Next::Lost(at, flag) => {
                    let hole = flag != Flags::default();
                    if hole || side == Side::Server {
                        self.calls.open().lost(side, at, flag);
                    }
                    hole
                }
                Next::Frame(frame) => {
                    let understood = self.calls.message(side, &frame, out);
                    self.settled |= understood && side == Side::Server;
                    if frame.bytes.capacity() <= MAX_SPARE_BYTES {
                        frames.recycle(frame);
                    }
                    understood
                }
            };
            // Of too many requests the oldest were given up: their answers find nobody.
            let doubtful = self.mid_stream || self.calls.open().len() >= MAX_OPEN;
            out.rejected |= !understood && !self.settled && !doubtful;
        }
    }
}

impl<C: Calls> Parser for Conversation<C> {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        let (client, server) = self.chunks.advance(streams);
        loop {
            self.stalled = false;
            self.read(Side::Client, client, streams, out);
            let before = self.calls.open().len();
            self.read(Side::Server, server, streams, out);
            if !self.stalled || self.calls.open().len() == before {
                return;
            }
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        // Requests that stayed unread until answers came: none will.
        while self.stalled && !out.rejected {
            self.calls.open().finish(streams, out);
            self.parse(streams, out);
        }
        if out.rejected {
            return;
        }
        let [client, server] = &mut self.frames;
        if let Some(frame) = client.finish(&streams.client) {
            self.calls.message(Side::Client, &frame, out);
        }
        if let Some(frame) = server.finish(&streams.server) {
            self.calls.message(Side::Server, &frame, out);
        }
        self.calls.open().finish(streams, out);
    }
}
