//! What the server sends: each message ends a step, goes on with it, or belongs to none
//! (<https://www.postgresql.org/docs/current/protocol-flow.html>).

use super::error::{Report, tag};
use super::message::{Chain, HEAD_BYTES, Message, Peek, looks, peek, server_chain, server_fits};
use super::{Asked, Kind, PostgreSql, Step};
use crate::pairing::{Looks, Pairing, drop_all, find_start, pass_chunk};
use crate::{ByteClass, Exchange, Flags, NAMELESS, Output, Side, SqlFacts, Status, Stream, Streams, SwitchedTo};

/// Bytes of errors and notices that are looked at.
const MAX_REPORT_BYTES: usize = 8 << 10;

/// Steps that are looked at to find the one that a message belongs to.
const MAX_LOOK_STEPS: usize = 128;

/// ReadyForQuery has one byte of content.
const READY_BYTES: usize = HEAD_BYTES + 1;

/// How far the answers were read.
#[derive(Debug)]
pub(super) struct Answering {
    /// Where the answer to the oldest request begins, once something of it was seen.
    start: Option<u64>,
    /// Rows by the tags of the answer.
    rows: Option<u64>,
    /// Rows of an Execute as they were sent.
    sent: u64,
    /// Where the answer ends, if the Sync that belongs to the request gets none of its own.
    executed: Option<u64>,
    /// Something of the answer was lost, and it was found again.
    resumed: bool,
    /// The client sends rows.
    copy_in: bool,
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
    fn reset(&mut self) {
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

    fn next_step(&mut self) -> Option<Step> {
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
            self.answering.sent += rows;
            server.advance(read);
        }
        rows > 0
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

    fn begin(&mut self, at: u64) {
        if self.answering.start.is_none() && self.is_due() {
            self.answering.start = Some(at);
        }
    }

    /// The number of steps before the one that `wanted` is true of, none of them a boundary.
    fn before(&self, wanted: impl Fn(&Kind) -> bool) -> Option<usize> {
        for (index, step) in self.steps.iter().take(MAX_LOOK_STEPS).enumerate() {
            if wanted(&step.kind) {
                return Some(index);
            }
            if step.kind.ends_with_ready() {
                return None;
            }
        }
        None
    }

    /// Ends the step in front, if it is of this kind.
    fn end_step(&mut self, is: impl Fn(&Kind) -> bool) {
        if self.steps.front().is_some_and(|step| is(&step.kind)) {
            self.next_step();
        }
    }

    fn message(&mut self, message: &Message<'_>, at: u64, end: u64, out: &mut Output) {
        match message.kind {
            // They come at any time: settings, notifications; or belong to the login.
            b'S' => {
                self.setting(message);
                return;
            }
            b'A' | b'R' | b'K' | b'v' => return,
            b'N' => {
                self.begin(at);
                if self.answering.start.is_some()
                    && Report::read(message.content).warns()
                    && let Some(facts) = self.facts()
                {
                    facts.warnings = facts.warnings.saturating_add(1);
                }
                return;
            }
            _ => {}
        }
        self.begin(at);
        match message.kind {
            b'1' => self.end_step(|kind| matches!(kind, Kind::Parse(_))),
            b'2' => {
                if self.before(|kind| matches!(kind, Kind::Bind(_)) || kind.is_request()).is_none() {
                    self.find_unseen(at, None, out);
                }
                self.end_step(|kind| matches!(kind, Kind::Bind(_)));
            }
            b'3' => self.end_step(|kind| matches!(kind, Kind::Close)),
            b'T' | b'n' => self.end_step(|kind| matches!(kind, Kind::Describe(_))),
            b'D' => self.answering.sent += 1,
            b'G' => self.answering.copy_in = true,
            b'V' => {
                if let Some(front) = self.pairing.front_mut() {
                    front.exchange.status = Status::Ok;
                }
            }
            b'C' | b'I' | b's' => self.completed(message, at, end, out),
            b'E' => self.failed(message, at, end, out),
            b'Z' => self.ready(message, at, end, out),
            _ => {}
        }
    }

    /// ParameterStatus: a setting that clients have to know of, at login and whenever it changes.
    fn setting(&mut self, message: &Message<'_>) {
        if let Some(value) = message.content.strip_prefix(b"standard_conforming_strings\0") {
            self.standard_strings = match value {
                b"on\0" => Some(true),
                b"off\0" => Some(false),
                _ => None,
            };
        }
    }

    /// Facts of the oldest request.
    fn facts(&mut self) -> Option<&mut SqlFacts> {
        Some(self.pairing.front_mut()?.exchange.sql.get_or_insert_default())
    }

    /// A statement is complete: the only one of an Execute, one of a query.
    fn completed(&mut self, message: &Message<'_>, at: u64, end: u64, out: &mut Output) {
        let Some(before) = self.before(|kind| matches!(kind, Kind::Execute | Kind::Query)) else {
            if self.find_unseen(at, Some(end), out)
                && let Some(front) = self.pairing.front_mut()
            {
                front.exchange.status = Status::Ok;
                let text = message.content.strip_suffix(&[0]).unwrap_or_default();
                front.exchange.rows = tag(text).rows.filter(|_| message.kind == b'C');
            }
            return;
        };
        for _ in 0..before {
            self.next_step();
        }
        match (message.kind, message.missing) {
            (b'C', None) => {
                let tag = tag(message.content.strip_suffix(&[0]).unwrap_or(message.content));
                // SHOW, EXPLAIN and CALL have no number in their tags.
                let sent = Some(std::mem::take(&mut self.answering.sent)).filter(|sent| *sent > 0);
                if let Some(rows) = tag.rows.or(sent.filter(|_| !self.answering.resumed)) {
                    self.answering.rows = Some(self.answering.rows.unwrap_or(0).saturating_add(rows));
                }
                if let Some(rows) = tag.rows.filter(|_| tag.changes || tag.copy && self.answering.copy_in)
                    && let Some(facts) = self.facts()
                {
                    facts.affected = Some(facts.affected.unwrap_or(0).saturating_add(rows));
                }
            }
            (b's', _) if !self.answering.resumed => self.answering.rows = Some(self.answering.sent),
            (_, Some(flag)) => {
                self.answering.rows = None;
                self.answering.resumed = true;
                if let Some(front) = self.pairing.front_mut() {
                    front.exchange.flags.insert(flag);
                }
            }
            _ => {}
        }
        let rows = self.answering.rows;
        let Some(front) = self.pairing.front_mut() else { return };
        front.exchange.status = Status::Ok;
        if self.steps.front().is_some_and(|step| matches!(step.kind, Kind::Query)) {
            return;
        }
        front.exchange.rows = rows;
        self.next_step();
        self.executed(at, end, out);
    }

    /// An Execute has its answer: it is complete, unless the Sync behind it is a part of it.
    fn executed(&mut self, at: u64, end: u64, out: &mut Output) {
        if self.steps.front().is_some_and(|step| matches!(step.kind, Kind::Sync { attached: true, .. })) {
            self.answering.start.get_or_insert(at);
            self.answering.executed = Some(end);
            return;
        }
        let start = self.answering.start.unwrap_or(at);
        self.answering.reset();
        self.pairing.complete(start..end, out);
    }

    /// The answer from `at` to `end` can only be that of a request that stands in a hole: now it is the oldest. False if
    /// there is no such hole, or no room in it.
    fn find_unseen(&mut self, at: u64, end: Option<u64>, out: &mut Output) -> bool {
        let Some(before) = self.before(|kind| matches!(kind, Kind::Sync { unseen: Some(_), .. })) else { return false };
        let Some(Step { kind: Kind::Sync { attached, unseen: Some(unseen) }, seen_at, .. }) =
            self.steps.get_mut(before)
        else {
            return false;
        };
        if *attached && self.answering.executed.is_none() && self.answering.start.is_some() {
            // Its answer has begun already.
            self.answering.executed = end;
            return true;
        }
        let Some(room) = unseen.room.checked_sub(1) else { return false };
        unseen.room = room;
        let place = unseen.place.clone();
        unseen.place = place.end..place.end;
        let (flags, seen_at) = (unseen.flag, *seen_at);
        let mut start = self.answering.start.unwrap_or(at);
        if std::mem::replace(attached, true)
            && let Some(executed) = self.answering.executed
        {
            // So that one didn't end with the Sync.
            self.pairing.complete(start..executed, out);
            start = executed;
        }
        for _ in 0..before {
            self.next_step();
        }
        self.answering.reset();
        self.answering.start = Some(start);
        self.answering.executed = end;
        let exchange = Exchange { op: NAMELESS.into(), request: place, flags, ..Exchange::default() };
        self.pairing.push_answered(exchange, seen_at, Asked { several: false });
        true
    }

    fn failed(&mut self, message: &Message<'_>, at: u64, end: u64, out: &mut Output) {
        let report = Report::read(message.content);
        let fatal = report.is_fatal();
        let literals = self.options.literals;
        let tell = |exchange: &mut Exchange| {
            exchange.status = Status::Error;
            exchange.rows = None;
            exchange.code = (!report.code.is_empty()).then(|| String::from_utf8_lossy(report.code).into());
            exchange.error = report.text(literals);
            exchange.flags.insert(message.missing.unwrap_or_default());
        };
        let waits = matches!(self.steps.front(), Some(Step { kind: Kind::Sync { attached: true, unseen: None }, .. }));
        if waits && self.answering.start.is_some() {
            // What the Sync was to commit could not be.
            if let Some(front) = self.pairing.front_mut() {
                tell(&mut front.exchange);
            }
            return;
        }
        match self.before(Kind::is_request) {
            Some(before) => {
                for _ in 0..before {
                    self.next_step();
                }
                if let Some(front) = self.pairing.front_mut() {
                    tell(&mut front.exchange);
                }
                let execute = self.steps.front().is_some_and(|step| matches!(step.kind, Kind::Execute));
                if execute || fatal {
                    self.next_step();
                    self.executed(at, end, out);
                }
            }
            // What prepares is no request, unless it fails and nobody else is there to tell of it.
            None => {
                let unseen = matches!(self.steps.front(), Some(Step { kind: Kind::Sync { unseen: Some(_), .. }, .. }));
                if unseen && self.find_unseen(at, Some(end), out) {
                    if let Some(front) = self.pairing.front_mut() {
                        tell(&mut front.exchange);
                    }
                    return;
                }
                let Some(step) = self.steps.front() else { return };
                let (op, statement) = match &step.kind {
                    Kind::Parse(statement) => ("parse", statement.as_deref()),
                    Kind::Bind(statement) => ("bind", statement.as_deref()),
                    Kind::Describe(statement) => ("describe", statement.as_deref()),
                    Kind::Close => ("close", None),
                    Kind::Sync { .. } => ("sync", None),
                    Kind::Login | Kind::Execute | Kind::Query | Kind::Function => return,
                };
                let mut exchange = Exchange {
                    op: op.into(),
                    target: statement.map(|statement| statement.target.clone()),
                    request: step.request.clone(),
                    response: Some(at..end),
                    ..Exchange::default()
                };
                tell(&mut exchange);
                out.exchanges.push(exchange);
            }
        }
    }

    /// ReadyForQuery: all up to the next Sync or simple query is done, or was passed over behind an error.
    fn ready(&mut self, message: &Message<'_>, at: u64, end: u64, out: &mut Output) {
        if self.ready_steps == 0 {
            return;
        }
        let Some(before) = self.steps.iter().position(|step| step.kind.ends_with_ready()) else { return };
        let mut waits = self.answering.start.is_some();
        for _ in 0..before {
            let Some(Step { kind: Kind::Execute, .. }) = self.next_step() else { continue };
            if !self.answering.resumed {
                self.pairing.unanswered(out);
                self.answering.reset();
                waits = false;
            }
        }
        let step = self.next_step();
        match step.map(|step| step.kind) {
            Some(Kind::Query) => {
                let (rows, resumed) = (self.answering.rows, self.answering.resumed);
                if let Some(front) = self.pairing.front_mut() {
                    let known = front.exchange.status == Status::Ok && !(resumed && front.detail.several);
                    front.exchange.rows = rows.filter(|_| known);
                }
            }
            Some(Kind::Function) => {}
            Some(Kind::Sync { attached: true, .. }) if waits => {}
            _ => {
                self.answering.reset();
                return;
            }
        }
        if let Some(front) = self.pairing.front_mut() {
            match message.content.first() {
                Some(b'T') => front.exchange.flags.insert(Flags::IN_TRANSACTION),
                // It is still open.
                Some(b'E') => {
                    front.exchange.flags.insert(Flags::IN_TRANSACTION);
                    front.exchange.flags.insert(Flags::FAILED_TRANSACTION);
                }
                _ => front.exchange.flags.insert(message.missing.unwrap_or_default()),
            }
        }
        let start = self.answering.start.unwrap_or(at);
        self.answering.reset();
        self.pairing.complete(start..end, out);
    }

    /// The messages can't be followed any more from `at` on.
    fn lose(&mut self, at: u64, begun: bool, flag: Flags) {
        let start = self.answering.start.unwrap_or(at);
        self.answering.lost = Some((at, flag));
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
