//! Reads what the server sends, and finds it again: each message ends a step, goes on with it, or belongs to none
//! (<https://www.postgresql.org/docs/current/protocol-flow.html>).

use super::message::{Chain, HEAD_BYTES, Peek, looks, peek, server_chain, server_fits};
use super::outcome::MAX_LOOK_STEPS;
use super::{Asked, Kind, PostgreSql, Step};
use crate::pairing::{Looks, Pairing, drop_all, find_start, pass_chunk};
use crate::{ByteClass, Flags, Output, Side, Status, Stream, Streams, SwitchedTo};

/// Bytes of a ParameterStatus that are waited for: the longest setting of interest and its value are shorter.
const MAX_SETTING_BYTES: usize = 64;

/// Bytes of errors and notices that are looked at.
const MAX_REPORT_BYTES: usize = 8 << 10;

/// ReadyForQuery has one byte of content.
const READY_BYTES: usize = HEAD_BYTES + 1;

/// How far the answers were read.
#[derive(Debug)]
pub(super) struct Answering {
    /// Where the answer to the oldest request begins, once something of it was seen.
    pub start: Option<u64>,
    /// Rows by the tags of the answer.
    pub rows: Option<u64>,
    /// Rows of an Execute as they were sent.
    pub sent: u64,
    /// Where the answer ends, if the Sync that belongs to the request gets none of its own.
    pub executed: Option<u64>,
    /// Something of the answer was lost, and it was found again.
    pub resumed: bool,
    /// The client sends rows.
    pub copy_in: bool,
    /// Where the messages can't be followed any more, and why.
    lost: Option<(u64, Flags)>,
    /// The recording began later than the connection, and no step was read yet.
    joined: bool,
}

impl Answering {
    pub fn new(mid_stream: bool) -> Self {
        Self {
            start: None,
            rows: None,
            sent: 0,
            executed: None,
            resumed: false,
            copy_in: false,
            lost: mid_stream.then_some((0, Flags::default())),
            joined: mid_stream,
        }
    }

    /// The answer to the oldest request is complete.
    pub fn reset(&mut self) {
        *self = Self { lost: self.lost, joined: self.joined, ..Self::new(false) };
    }

    /// A request was added that the server had not seen when its messages were lost.
    pub fn lose_new(&mut self, seen_at: u64, pairing: &mut Pairing<Asked>) {
        if let Some((at, flag)) = self.lost
            && pairing.lost().is_none()
        {
            pairing.lose(at.max(seen_at), false, flag);
        }
    }
}

impl PostgreSql {
    pub(super) fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.switched {
            if self.negotiating.is_some() {
                if !self.read_letter(streams, out) {
                    return;
                }
                continue;
            }
            let server = &mut streams.server;
            if server.is_empty() || self.pairing.is_behind() {
                return;
            }
            if self.answering.lost.is_some() && !self.find_again(server, chunk, out) {
                return;
            }
            if self.steps.is_empty() && self.silent && !self.mid_stream {
                // Servers don't speak first.
                out.rejected = true;
            }
            if !self.read_answer(streams, chunk, out) {
                return;
            }
        }
    }

    /// Looks for a message where the last ones were lost; false if none is here.
    fn find_again(&mut self, server: &mut Stream, chunk: u64, out: &mut Output) -> bool {
        // Where nothing was lost (the recording began later) a message begins here, unless it is the rest of one.
        let lax = self.pairing.lost().is_some_and(|lost| !lost.begun && lost.flag == Flags::default());
        let only = self.pairing.len() <= 1 && self.ready_steps <= 1;
        if self.answering.joined || !(only || lax) {
            // Nobody has asked yet, or what is found may belong to any of those who did.
            match self.pairing.lost() {
                Some(lost) => self.pairing.pass_lost(lost, server, out),
                None => drop_all(server, Side::Server, out),
            }
            return false;
        }
        let starts = |bytes: &[u8], cut| match (server_chain(bytes), bytes) {
            (Chain::Messages { .. }, [_, 0, ..]) if lax => Looks::Yes,
            (chain, _) => looks(chain, cut),
        };
        if starts(server.bytes(), server.hole().is_some()) == Looks::No
            && server.hole().is_none()
            && let Some(end) = end_of_answer(server.bytes())
        {
            out.skipped(Side::Server, end as u64);
            server.advance(end);
        } else if !find_start(server, Side::Server, chunk, out, starts) {
            return false;
        }
        self.answering.lost = None;
        if let Some(lost) = self.pairing.resume() {
            self.answering.resumed = lost.flag != Flags::default() || lost.begun;
            if self.answering.resumed {
                self.answering.start.get_or_insert(lost.start);
            }
        }
        true
    }

    /// Something that the client sent was seen when the server's stream ended at `seen_at`: what could not be followed
    /// ended there.
    pub(super) fn boundary(&mut self, seen_at: u64, server: &mut Stream, out: &mut Output) {
        let Some((lost_at, flag)) = self.answering.lost else { return };
        if std::mem::take(&mut self.answering.joined) {
            let before = seen_at.saturating_sub(server.position());
            out.skipped(Side::Server, before);
            server.skip(before);
            self.answering.lost = Some((seen_at, flag));
            return;
        }
        if seen_at <= lost_at {
            return;
        }
        while self.steps.front().is_some_and(|step| step.seen_at < seen_at) {
            self.next_step();
        }
        self.pairing.boundary(seen_at, server, out);
        let before = seen_at.saturating_sub(server.position());
        out.skipped(Side::Server, before);
        server.skip(before);
        self.answering.lost = None;
        self.answering.reset();
    }

    /// The client goes on at `seen_at`, when the server had answered all but a Sync that nobody has seen: there was none
    /// (a Flush stood in the hole), and ReadyForQuery is still to come for another.
    pub(super) fn drop_unseen_sync(&mut self, seen_at: u64, server: &Stream, out: &mut Output) {
        let Some(Step { kind: Kind::Sync { attached, unseen: Some(_) }, seen_at: asked, .. }) = self.steps.front()
        else {
            return;
        };
        if self.answering.lost.is_some() || seen_at <= *asked || !server.is_empty() || server.is_skipping() {
            return;
        }
        if *attached && let Some(start) = self.answering.start {
            let end = self.answering.executed.unwrap_or(seen_at);
            self.pairing.complete(start..end, out);
        }
        self.answering.reset();
        self.next_step();
    }

    pub(super) fn next_step(&mut self) -> Option<Step> {
        let step = self.steps.pop_front()?;
        self.step_bytes = self.step_bytes.saturating_sub(step.text_bytes);
        self.ready_steps = self.ready_steps.saturating_sub(usize::from(step.kind.ends_with_ready()));
        Some(step)
    }

    /// Reads one message, or many rows; false if more bytes are needed.
    fn read_answer(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let server = &mut streams.server;
        let at = server.position();
        if server.bytes().first() == Some(&b'D') && self.read_rows(server, out) {
            return true;
        }
        let wanted = |kind| match kind {
            b'C' => 1 << 10,
            b'E' | b'N' => MAX_REPORT_BYTES,
            b'S' => MAX_SETTING_BYTES,
            b'Z' => 1,
            _ => 0,
        };
        let message = match peek(server, server_fits, wanted) {
            Peek::Message(message) => message,
            Peek::Wait => return false,
            Peek::Lost(flag) => {
                let due = self.is_due();
                let begun = self.answering.start.is_some() || due && !server.bytes().is_empty();
                self.lose(at, begun, flag);
                pass_chunk(server, Side::Server, chunk, out);
                return true;
            }
        };
        let end = at.saturating_add(message.size());
        // What completes an answer has to be here whole, or the answer would end where nothing has come yet.
        if matches!(message.kind, b'C' | b'E' | b'Z') && end > server.end() {
            return false;
        }
        let class = match message.kind {
            b'D' | b'd' | b'V' => ByteClass::Value,
            b'T' | b'S' => ByteClass::Identifier,
            b'E' | b'N' | b'A' => ByteClass::Value,
            b'K' | b'R' => ByteClass::Secret,
            _ => ByteClass::Structure,
        };
        let mut marker = out.marker(Side::Server, at);
        marker.take(HEAD_BYTES as u64, ByteClass::Structure);
        marker.to(end, class);
        if message.kind == b'W' {
            // A replication stream: it goes both ways, and has no end.
            server.skip(message.size());
            let start = self.answering.start.unwrap_or(at);
            if let Some(front) = self.pairing.front_mut() {
                front.exchange.status = Status::Ok;
            }
            self.pairing.complete(start..end, out);
            self.switch(SwitchedTo::Unread, streams, out);
            return true;
        }
        self.message(&message, at, end, out);
        server.skip(end - at);
        true
    }

    /// Passes over rows that are here whole; false if there are none.
    fn read_rows(&mut self, server: &mut Stream, out: &mut Output) -> bool {
        let at = server.position();
        let bytes = server.bytes();
        let mut read = 0;
        let mut rows = 0;
        while let Some(&[b'D', a, b, c, d, ..]) = bytes.get(read..) {
            let size = u32::from_be_bytes([a, b, c, d]) as usize + 1;
            if size < HEAD_BYTES + 2 || read + size > bytes.len() {
                break;
            }
            if out.marks.is_some() {
                let mut marker = out.marker(Side::Server, at + read as u64);
                marker.take(HEAD_BYTES as u64 + 2, ByteClass::Structure);
                marker.to(at + (read + size) as u64, ByteClass::Value);
            }
            read += size;
            rows += 1;
        }
        if rows > 0 {
            self.begin(at);
            self.count_rows(rows);
            server.advance(read);
        }
        rows > 0
    }

    /// Rows were sent. Of an answer whose request was never seen, nothing may go over to the next.
    pub(super) fn count_rows(&mut self, rows: u64) {
        self.answering.sent += if self.steps.is_empty() { 0 } else { rows };
    }

    /// The next step that is not done belongs to a request, so what comes is its answer.
    fn is_due(&self) -> bool {
        for step in self.steps.iter().take(MAX_LOOK_STEPS) {
            match &step.kind {
                Kind::Execute | Kind::Query | Kind::Function => return true,
                Kind::Login => return false,
                Kind::Sync { attached, unseen } => {
                    return unseen.is_some() || *attached && self.answering.start.is_some();
                }
                _ => {}
            }
        }
        false
    }

    pub(super) fn begin(&mut self, at: u64) {
        if self.answering.start.is_none() && self.is_due() {
            self.answering.start = Some(at);
        }
    }

    /// The messages can't be followed any more from `at` on.
    fn lose(&mut self, at: u64, begun: bool, flag: Flags) {
        let start = self.answering.start.unwrap_or(at);
        self.answering.lost = Some((at, flag));
        self.missed = Some(flag).filter(|flag| *flag != Flags::default());
        if self.pairing.is_empty() {
            return;
        }
        let query = self.steps.front().is_some_and(|step| matches!(step.kind, Kind::Query));
        if let Some(front) = self.pairing.front_mut()
            && query
            && front.exchange.status == Status::Ok
        {
            // Its next statement may have failed.
            front.exchange.status = Status::Unknown;
        }
        self.pairing.lose(start, begun, flag);
    }

    /// The end came within an answer: what of it was read counts.
    pub(super) fn finish_answer(&mut self, streams: &Streams, out: &mut Output) {
        if let Some(start) = self.answering.start {
            self.pairing.finish_incomplete(start, streams, out);
        } else if !streams.server.bytes().is_empty() && self.is_due() {
            self.pairing.finish_incomplete(streams.server.position(), streams, out);
        }
    }
}

/// Where the last messages of an answer begin in `bytes`, which end with it: CommandComplete and ReadyForQuery. Servers
/// send what they have in pieces of 8 KiB, which begin anywhere; the end of the last one is known by its form.
fn end_of_answer(bytes: &[u8]) -> Option<usize> {
    let ready = bytes.len().checked_sub(READY_BYTES)?;
    if !matches!(bytes.get(ready..)?, [b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E']) {
        return None;
    }
    // Tags are short: the longest has a verb of a few words or a number.
    for length in 6..64 {
        let Some(start) = ready.checked_sub(length + 1) else { break };
        let Some([b'C', 0, 0, 0, told, tag @ .., 0]) = bytes.get(start..ready) else { continue };
        if usize::from(*told) == length
            && tag.iter().all(|byte| byte.is_ascii_uppercase() || b" 0123456789".contains(byte))
        {
            return Some(start);
        }
    }
    Some(ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_answer_is_known_by_its_form() {
        let end = |bytes: &[u8]| end_of_answer(bytes);
        assert_eq!(end(b"rest of a rowC\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"), Some(13));
        assert_eq!(end(b"rest of an errorZ\0\0\0\x05E"), Some(16));
        assert_eq!(end(b"rest of a row"), None);
        assert_eq!(end(b"Z\0\0\0\x05"), None);
    }
}
