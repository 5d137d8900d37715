//! One direction of a connection: its frames, in step or found anew, and its header blocks.

use std::ops::Range;

use super::call::Fields;
use super::calls::Calls;
use super::frame::{
    self, CONTINUATION, DATA, END_HEADERS, GOAWAY, HEAD_BYTES, HEADERS, Head, PREFACE, PUSH_PROMISE, RST_STREAM,
};
use super::hpack::{Pieces, Table};
use super::{STRUCTURE, surroundings};
use crate::pairing::{find_start, hole_flag, pass_chunk};
use crate::{ByteClass, Flags, Options, Output, Side, Stream};

/// Bytes of a header block that are read: servers refuse more than 8 KiB to 64 KiB of headers.
const MAX_BLOCK_BYTES: usize = 64 << 10;

/// Frames of a header block whose parts are told apart.
const MAX_BLOCK_PARTS: usize = 1 << 12;

/// What reading on brought.
#[derive(Debug)]
pub(super) enum Event {
    /// More bytes are needed.
    Wait,
    /// A frame was passed. Of a header block, all its frames as one, when the last one was passed.
    Frame(Range<u64>, Head, Option<u32>),
    /// Frames were lost.
    Lost(Flags),
    /// The bytes are something else.
    NotHttp2,
}

#[derive(Debug, Clone, Copy)]
enum Reading {
    /// Looking for a frame at the starts of chunks and behind holes.
    Search,
    /// A client's preface comes first.
    Preface,
    /// At a frame.
    Head,
    /// Behind the head of a frame that begins at this offset.
    Payload(Head, u64),
    /// In the data of a frame, which end at the second offset.
    Data(Head, u64, u64),
    /// The rest of a frame is passed over.
    Pass(Head, u64, Option<u32>),
}

/// A header block that goes on in CONTINUATION frames.
#[derive(Debug)]
struct Block {
    head: Head,
    start: u64,
    bytes: Vec<u8>,
    /// Stream offsets and lengths of its parts, where byte classes are asked for.
    parts: Vec<(u64, usize)>,
    /// Its frames' bytes so far all follow each other, so its range is whole.
    cut: Option<Flags>,
}

#[derive(Debug)]
pub(super) struct Half {
    pub side: Side,
    reading: Reading,
    table: Table,
    block: Option<Block>,
    pieces: Pieces,
    /// Nothing but the preface was read.
    fresh: bool,
    /// What the last header block says.
    pub fields: Fields,
    /// Set where the last header block was not read to its end.
    pub cut: Option<Flags>,
}

impl Half {
    pub fn new(side: Side, mid_stream: bool) -> Self {
        let reading = match side {
            _ if mid_stream => Reading::Search,
            Side::Client => Reading::Preface,
            Side::Server => Reading::Head,
        };
        Self {
            side,
            reading,
            table: Table::new(mid_stream),
            block: None,
            pieces: Pieces::new(),
            fresh: !mid_stream,
            fields: Fields::default(),
            cut: None,
        }
    }

    /// Nothing more will come: the frame that the end cut off, and where it began. Of a header block, what is here of it
    /// was read.
    pub fn finish(&mut self, stream: &mut Stream, options: Options, out: &mut Output) -> Option<(Head, u64)> {
        let (head, start) = match self.reading {
            Reading::Payload(head, start) | Reading::Data(head, start, _) | Reading::Pass(head, start, _) => {
                (head, start)
            }
            Reading::Search | Reading::Preface | Reading::Head => {
                let block = self.block.as_ref()?;
                (block.head, block.start)
            }
        };
        let unread = matches!(self.reading, Reading::Payload(..));
        self.reading = Reading::Search;
        let cut = Flags::INCOMPLETE;
        match head.kind {
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                if unread {
                    let payload = stream.bytes().to_vec();
                    self.block_part(head, start, &payload, Some(cut), options, out);
                    stream.skip(stream.end().saturating_sub(stream.position()));
                }
                let Some(mut block) = self.block.take() else {
                    return (head.kind == HEADERS).then_some((head, start));
                };
                self.decode(block.head.kind, &block.bytes, &mut block.parts, Some(cut), options, out);
                (block.head.kind == HEADERS).then_some((block.head, block.start))
            }
            DATA => Some((head, start)),
            _ => None,
        }
    }

    pub fn next(
        &mut self,
        stream: &mut Stream,
        chunk: u64,
        calls: &mut Calls,
        options: Options,
        out: &mut Output,
    ) -> Event {
        loop {
            if stream.is_skipping() {
                return Event::Wait;
            }
            match self.reading {
                Reading::Search => {
                    let (side, newest) = (self.side, calls.newest());
                    let before = stream.position();
                    let found =
                        find_start(stream, side, chunk, out, |bytes, cut| frame::looks(side, bytes, cut, newest));
                    if found {
                        let begins = stream.bytes().starts_with(PREFACE);
                        self.reading = if begins { Reading::Preface } else { Reading::Head };
                    }
                    if stream.position() > before {
                        return Event::Lost(Flags::default());
                    }
                    if !found {
                        return Event::Wait;
                    }
                }
                Reading::Preface => {
                    let bytes = stream.bytes();
                    let shared = bytes.len().min(PREFACE.len());
                    if bytes.get(..shared) != PREFACE.get(..shared) {
                        self.reading = Reading::Head;
                        continue;
                    }
                    if shared < PREFACE.len() {
                        let Some(hole) = stream.hole() else { return Event::Wait };
                        return self.lose(stream, chunk, hole_flag(hole.kind), out);
                    }
                    out.mark(self.side, stream.position()..stream.position() + PREFACE.len() as u64, STRUCTURE);
                    stream.advance(PREFACE.len());
                    calls.begin();
                    self.reading = Reading::Head;
                }
                Reading::Head => {
                    let Some(head) = Head::read(stream.bytes()) else {
                        let Some(hole) = stream.hole() else { return Event::Wait };
                        return self.lose(stream, chunk, hole_flag(hole.kind), out);
                    };
                    if !head.is_valid() || self.fresh && !head.is_likely(self.side) {
                        if self.fresh {
                            return Event::NotHttp2;
                        }
                        return self.lose(stream, chunk, Flags::default(), out);
                    }
                    self.fresh = false;
                    self.reading = Reading::Payload(head, stream.position());
                    stream.advance(HEAD_BYTES);
                }
                Reading::Payload(head, start) => {
                    if let Some(event) = self.payload(stream, head, start, calls, options, out) {
                        return event;
                    }
                }
                Reading::Data(head, start, end) => {
                    let counted = calls.get_mut(head.stream).filter(|call| call.may_be_grpc());
                    match counted {
                        Some(call) => {
                            if !call.part(self.side).messages.read(stream, end) {
                                return Event::Wait;
                            }
                        }
                        None => stream.skip(end.saturating_sub(stream.position())),
                    }
                    self.reading = Reading::Pass(head, start, None);
                }
                Reading::Pass(head, start, code) => {
                    let end = start + HEAD_BYTES as u64 + u64::from(head.length);
                    let left = end.saturating_sub(stream.position());
                    if left > 0 {
                        stream.skip(left);
                        continue;
                    }
                    self.reading = Reading::Head;
                    match head.kind {
                        HEADERS | PUSH_PROMISE | CONTINUATION => {
                            if let Some((range, head)) = self.block_passed(head, end, options, out) {
                                return Event::Frame(range, head, None);
                            }
                        }
                        _ => return Event::Frame(start..end, head, code),
                    }
                }
            }
        }
    }

    /// Reads what is behind a frame's head; `None` to go on.
    fn payload(
        &mut self,
        stream: &mut Stream,
        head: Head,
        start: u64,
        calls: &mut Calls,
        options: Options,
        out: &mut Output,
    ) -> Option<Event> {
        let (bytes, hole) = (stream.bytes(), stream.hole());
        let wanted = match head.kind {
            HEADERS | PUSH_PROMISE | CONTINUATION => (head.length as usize).min(MAX_BLOCK_BYTES),
            // Its padding's length.
            DATA => usize::from(head.has(frame::PADDED)).min(head.length as usize),
            RST_STREAM | GOAWAY => 4,
            _ => 0,
        };
        if bytes.len() < wanted && hole.is_none() {
            return Some(Event::Wait);
        }
        let end = start + HEAD_BYTES as u64 + u64::from(head.length);
        let payload = bytes.get(..wanted).unwrap_or(bytes);
        let mut code = None;
        match head.kind {
            DATA => {
                let (before, padding) = surroundings(&head, payload);
                let begin = start + (HEAD_BYTES + before) as u64;
                let data_end = end.saturating_sub(padding as u64).max(begin.min(end));
                let mut marker = out.marker(self.side, start);
                marker.to(begin.min(end), STRUCTURE);
                marker.to(data_end, ByteClass::Value);
                marker.to(end, STRUCTURE);
                if payload.len() < wanted
                    && let Some(call) = calls.get_mut(head.stream)
                {
                    call.part(self.side).messages.lose();
                }
                stream.skip(begin.min(end).saturating_sub(stream.position()));
                self.reading = Reading::Data(head, start, data_end);
                return None;
            }
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                let missing = match hole {
                    Some(hole) if payload.len() < wanted => Some(hole_flag(hole.kind)),
                    _ if (head.length as usize) > wanted => Some(Flags::TRUNCATED),
                    _ => None,
                };
                self.block_part(head, start, payload, missing, options, out);
            }
            RST_STREAM | GOAWAY => {
                code = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                let mut marker = out.marker(self.side, start);
                marker.to(end.min(start + 17), STRUCTURE);
                // What a GOAWAY adds for people.
                marker.to(end, ByteClass::Value);
            }
            _ => out.mark(self.side, start..end, STRUCTURE),
        }
        self.reading = Reading::Pass(head, start, code);
        None
    }

    /// A part of a header block is here, or what was kept of it.
    fn block_part(
        &mut self,
        head: Head,
        start: u64,
        payload: &[u8],
        missing: Option<Flags>,
        options: Options,
        out: &mut Output,
    ) {
        let first = head.kind != CONTINUATION;
        let whole = super::block_of(&head, payload);
        let (part, mut cut) = (whole.unwrap_or_default(), missing);
        if whole.is_none() {
            cut = Some(Flags::default());
        }
        if first {
            // If the last block was not continued, what it inserts is not known.
            self.drop_block(out);
        }
        let (before, padding) = surroundings(&head, payload);
        let part_start = start + (HEAD_BYTES + before) as u64;
        let end = start + HEAD_BYTES as u64 + u64::from(head.length);
        out.mark(self.side, start..part_start.min(end), STRUCTURE);
        let part_end = (part_start + part.len() as u64).min(end);
        let padding_start = end.saturating_sub(padding as u64).max(part_end);
        // Of what was not seen nobody knows what it is.
        out.mark(self.side, part_end..padding_start, ByteClass::Secret);
        out.mark(self.side, padding_start..end, STRUCTURE);
        if first && head.has(END_HEADERS) {
            let mut parts = [(part_start, part.len())];
            self.cut = None;
            self.decode(head.kind, part, &mut parts, cut, options, out);
            return;
        }
        if first {
            self.block = Some(Block { head, start, bytes: Vec::new(), parts: Vec::new(), cut: None });
        }
        let Some(block) = &mut self.block else {
            // A continuation of what was not seen.
            out.mark(self.side, part_start..part_end, ByteClass::Secret);
            self.table.forget();
            return;
        };
        if block.parts.len() >= MAX_BLOCK_PARTS {
            out.mark(self.side, part_start..part_end, ByteClass::Secret);
            block.cut.get_or_insert(Flags::TRUNCATED);
            return;
        }
        if out.marks.is_some() {
            block.parts.push((part_start, part.len()));
        }
        if block.cut.is_none() && block.bytes.len() + part.len() <= MAX_BLOCK_BYTES {
            block.bytes.extend_from_slice(part);
            block.cut = cut;
        } else {
            block.cut.get_or_insert(Flags::TRUNCATED);
        }
    }

    /// A frame with a part of a block was passed. If it was the last: the range of all, and the first one's head.
    fn block_passed(&mut self, head: Head, end: u64, options: Options, out: &mut Output) -> Option<(Range<u64>, Head)> {
        if !head.has(END_HEADERS) {
            return None;
        }
        let Some(mut block) = self.block.take() else {
            let start = end - HEAD_BYTES as u64 - u64::from(head.length);
            return (head.kind != CONTINUATION).then_some((start..end, head));
        };
        self.cut = None;
        self.decode(block.head.kind, &block.bytes, &mut block.parts, block.cut, options, out);
        Some((block.start..end, block.head))
    }

    /// Reads a block, or what is there of it.
    fn decode(
        &mut self,
        kind: u8,
        block: &[u8],
        parts: &mut [(u64, usize)],
        cut: Option<Flags>,
        options: Options,
        out: &mut Output,
    ) {
        let mut fields = Fields::default();
        self.pieces.clear();
        let pieces = out.marks.is_some().then_some(&mut self.pieces);
        let read = self.table.decode(block, pieces, |kind, value| fields.add(kind, value, options));
        if read.is_err() || cut.is_some() {
            self.table.forget();
            fields.unknown = true;
            self.cut = Some(cut.unwrap_or_default());
        }
        // A promised request is the server's.
        self.fields = if kind == PUSH_PROMISE { Fields::default() } else { fields };
        if out.marks.is_none() {
            return;
        }
        let seen: usize = self.pieces.iter().map(|(length, _)| length).sum();
        let whole: usize = parts.iter().map(|(_, length)| length).sum();
        self.pieces.push((whole.saturating_sub(seen), ByteClass::Secret));
        let mut parts = parts.iter_mut();
        let mut part = parts.next();
        for (length, class) in &self.pieces {
            let mut left = *length;
            while left > 0
                && let Some((at, room)) = part.as_deref_mut()
            {
                let here = left.min(*room);
                out.mark(self.side, *at..*at + here as u64, *class);
                (*at, *room, left) = (*at + here as u64, *room - here, left - here);
                if *room == 0 {
                    part = parts.next();
                }
            }
        }
    }

    /// Gives up a block that did not go on.
    fn drop_block(&mut self, out: &mut Output) {
        let Some(block) = self.block.take() else { return };
        self.table.forget();
        for (start, length) in block.parts {
            out.mark(self.side, start..start + length as u64, ByteClass::Secret);
        }
    }

    /// The framing is lost: the next frame is looked for.
    fn lose(&mut self, stream: &mut Stream, chunk: u64, flag: Flags, out: &mut Output) -> Event {
        // Header blocks may be among what is lost.
        self.table.forget();
        self.drop_block(out);
        self.fresh = false;
        pass_chunk(stream, self.side, chunk, out);
        self.reading = Reading::Search;
        Event::Lost(flag)
    }
}
