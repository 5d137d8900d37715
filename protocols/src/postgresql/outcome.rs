//! What the server's messages say of the steps and requests that they end.

use super::error::{Report, tag};
use super::message::Message;
use super::{Asked, Kind, PostgreSql, Step};
use crate::{Exchange, Flags, NAMELESS, Output, SqlFacts, Status};

/// Steps that are looked at to find the one that a message belongs to.
pub(super) const MAX_LOOK_STEPS: usize = 128;

impl PostgreSql {
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

    pub(super) fn message(&mut self, message: &Message<'_>, at: u64, end: u64, out: &mut Output) {
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
        self.catch_up(message.kind, at, out);
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
            b'D' => self.count_rows(1),
            b'G' => self.answering.copy_in = !self.steps.is_empty(),
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

    /// A message that only fits behind the next ReadyForQuery, which was lost then: all before it is done.
    fn catch_up(&mut self, kind: u8, at: u64, out: &mut Output) {
        let Some(flag) = self.missed else { return };
        let fits = |step: &Step| match kind {
            b'1' => matches!(step.kind, Kind::Parse(_)),
            b'2' => matches!(step.kind, Kind::Bind(_)),
            b'3' => matches!(step.kind, Kind::Close),
            _ => false,
        };
        let mut steps = self.steps.iter().take(MAX_LOOK_STEPS);
        let Some(boundary) = steps.position(|step| fits(step) || step.kind.ends_with_ready()) else { return };
        let behind = || steps.take_while(|step| !step.kind.ends_with_ready()).any(fits);
        if self.steps.get(boundary).is_some_and(fits) || !behind() {
            return;
        }
        for _ in 0..=boundary {
            let Some(step) = self.next_step() else { break };
            let attached = matches!(step.kind, Kind::Sync { attached: true, .. }) && self.answering.start.is_some();
            if step.kind.is_request() || attached {
                let start = self.answering.start.unwrap_or(at);
                let end = self.answering.executed.unwrap_or(start);
                if let Some(front) = self.pairing.front_mut() {
                    front.exchange.flags.insert(flag);
                }
                self.pairing.complete(start..end, out);
                self.answering.reset();
            }
        }
    }

    /// ParameterStatus: a setting that clients have to know of, at login and whenever it changes.
    fn setting(&mut self, message: &Message<'_>) {
        if let Some(value) = message.content.strip_prefix(b"standard_conforming_strings\0") {
            self.standard_strings = match value {
                _ if message.missing.is_some() => None,
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
                    flags: self.pairing.uncertainty(),
                    ..Exchange::default()
                };
                tell(&mut exchange);
                out.exchanges.push(exchange);
                // The server passes over all up to the Sync.
                while self.steps.front().is_some_and(|step| !step.kind.ends_with_ready()) {
                    self.next_step();
                }
            }
        }
    }

    /// ReadyForQuery: all up to the next Sync or simple query is done, or was passed over behind an error.
    fn ready(&mut self, message: &Message<'_>, at: u64, end: u64, out: &mut Output) {
        if self.ready_steps == 0 {
            return;
        }
        let Some(before) = self.steps.iter().position(|step| step.kind.ends_with_ready()) else { return };
        if before + 1 == self.steps.len() {
            self.missed = None;
        }
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
}
