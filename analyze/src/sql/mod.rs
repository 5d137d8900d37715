//! Statements by fingerprint.

use std::collections::BTreeSet;

mod session;

use kfr_protocols::{Flags, Status};
use rustc_hash::FxHashMap;

use crate::model::{Exemplar, Histogram, Request};
use session::{Follows, Session};

/// Statements that one shard tells apart; further ones are counted together as [`OTHERS`].
const MAX_STATEMENTS: usize = 8192;
/// Text of the statements that are not told apart.
const OTHERS: &str = "…";

/// What calls of one statement come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statement {
    /// Calls.
    pub calls: u64,
    /// Of these, errors.
    pub errors: u64,
    /// Of these, unanswered.
    pub unanswered: u64,
    /// Of these, with an outcome that was not seen.
    pub unknown: u64,
    /// Durations, ns.
    pub durations: Histogram,
    /// Rows sent or affected, where the protocol says so.
    pub rows: u64,
    /// Calls that said so.
    pub calls_with_rows: u64,
    /// Rows changed, where the protocol tells them apart from rows sent.
    pub affected: u64,
    /// Calls that said so.
    pub calls_with_affected: u64,
    /// Warnings.
    pub warnings: u64,
    /// Calls of which the server says that no index was used.
    pub no_index: u64,
    /// Calls of which the server says that no good index was used.
    pub no_good_index: u64,
    /// Calls that the server calls slow.
    pub slow: u64,
    /// Services that call it.
    pub callers: BTreeSet<u32>,
    /// Services that answer it.
    pub servers: BTreeSet<u32>,
    /// The slowest call.
    pub slowest: Option<Exemplar>,
    /// Most calls in a row on one connection, each soon after the one before.
    pub longest_run: u64,
    /// Calls that were part of a run of at least ten.
    pub calls_in_runs: u64,
    /// Runs of at least ten calls behind a statement with about as many rows.
    pub n_plus_one: NPlusOne,
    /// Transactions left open while nothing was asked, behind a call of this statement.
    pub idle: Idle,
    /// All flags seen.
    pub flags: Flags,
}

/// One query, then one for each of its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NPlusOne {
    /// Times.
    pub occurrences: u64,
    /// Calls in them.
    pub calls: u64,
    /// Most calls of one.
    pub longest: u64,
    /// The statement before the longest (of several the one whose text comes first): its protocol and text.
    pub parent: Option<(u16, Box<str>)>,
}

impl NPlusOne {
    fn add(&mut self, more: NPlusOne) {
        self.occurrences += more.occurrences;
        self.calls += more.calls;
        let earlier = more.longest == self.longest && more.parent.is_some() && more.parent < self.parent;
        if more.longest > self.longest || earlier {
            self.longest = more.longest;
            self.parent = more.parent;
        }
    }
}

/// Time in open transactions between the end of a request and the start of the next one on its connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Idle {
    /// Times.
    pub count: u64,
    /// Together.
    pub total_ns: u64,
    /// The longest, and the call that it came behind.
    pub longest: Option<(u64, Exemplar)>,
}

impl Idle {
    fn add(&mut self, more: Idle) {
        self.count += more.count;
        self.total_ns = self.total_ns.saturating_add(more.total_ns);
        // Of two as long the earlier, then the one with the lower number: in whatever order they are added.
        let rank = |one: &(u64, Exemplar)| (one.0, std::cmp::Reverse((one.1.start_ns, one.1.request)));
        self.longest = [self.longest.take(), more.longest].into_iter().flatten().max_by_key(rank);
    }
}

/// Statements by protocol and text.
#[derive(Debug, Default)]
pub struct Statements {
    all: Vec<((u16, Box<str>), Statement)>,
    index: FxHashMap<(u16, Box<str>), u32>,
    /// By connection, while it lives.
    sessions: FxHashMap<u32, Session>,
}

/// Calls in a row from which on they look like N+1 queries.
pub const RUN_OF_NOTE: u64 = 10;

impl Statements {
    /// Counts a request that carries a statement, and notes what one that carries none does to its connection.
    pub fn record(&mut self, request: &Request, client: u32, server: u32) {
        // Preparing is no call, unless it is as far as the statement gets.
        let prepares = &*request.exchange.op == "prepare" && request.exchange.status != Status::Error;
        let text = request.exchange.statement.as_deref().filter(|_| !prepares);
        if text.is_none() && !self.sessions.contains_key(&request.connection) {
            return;
        }
        let index = text.map(|text| self.slot(request.protocol, text));
        let session = self.sessions.entry(request.connection).or_default();
        if let Some((behind, idle)) = session.wait_ended(request, index)
            && let Some((_, statement)) = self.all.get_mut(behind as usize)
        {
            statement.idle.add(idle);
        }
        let Some(index) = index else { return };
        let length = match session.call(request, index) {
            Follows::Run(length) => length,
            Follows::Other(ended) => {
                self.settle(ended);
                1
            }
        };
        let Some(((_, text), statement)) = self.all.get_mut(index as usize) else { return };
        // Statements that are not told apart are no run of one.
        let length = if &**text == OTHERS { 1 } else { length };
        statement.longest_run = statement.longest_run.max(length);
        // The tenth call makes the nine before it part of the run too.
        statement.calls_in_runs += match length.cmp(&RUN_OF_NOTE) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => RUN_OF_NOTE,
            std::cmp::Ordering::Greater => 1,
        };
        let exchange = &request.exchange;
        statement.calls += 1;
        statement.errors += u64::from(exchange.status == Status::Error);
        statement.unanswered += u64::from(exchange.status == Status::Unanswered);
        statement.unknown += u64::from(exchange.status == Status::Unknown);
        statement.flags.insert(exchange.flags);
        statement.no_index += u64::from(exchange.flags.contains(Flags::NO_INDEX));
        statement.no_good_index += u64::from(exchange.flags.contains(Flags::NO_GOOD_INDEX));
        statement.slow += u64::from(exchange.flags.contains(Flags::SLOW));
        statement.callers.insert(client);
        statement.servers.insert(server);
        if let Some(rows) = exchange.rows {
            statement.rows += rows;
            statement.calls_with_rows += 1;
        }
        if let Some(facts) = exchange.sql.as_deref() {
            statement.warnings += u64::from(facts.warnings);
            if let Some(affected) = facts.affected {
                statement.affected = statement.affected.saturating_add(affected);
                statement.calls_with_affected += 1;
            }
        }
        if let Some(duration_ns) = request.duration_ns {
            statement.durations.record(duration_ns);
            statement.slowest = Exemplar::slower(statement.slowest, Some(Exemplar::of(request)));
        }
    }

    /// A connection is over.
    pub fn ended(&mut self, connection: u32) {
        if let Some(session) = self.sessions.remove(&connection) {
            self.settle(session.into_run());
        }
    }

    /// Counts a run that is over, where it looks like N+1 queries.
    fn settle(&mut self, run: Option<session::Run>) {
        let Some(run) = run else { return };
        let Some(parent) = run.parent().and_then(|parent| self.all.get(parent as usize)) else { return };
        let parent = Some(parent.0.clone());
        let Some(((_, text), statement)) = self.all.get_mut(run.statement as usize) else { return };
        if &**text != OTHERS {
            statement.n_plus_one.add(NPlusOne { occurrences: 1, calls: run.length, longest: run.length, parent });
        }
    }

    fn slot(&mut self, protocol: u16, text: &str) -> u32 {
        // One allocation a call would cost more than the call's share of everything else, so look up by hand.
        let key = (protocol, Box::from(text));
        if let Some(index) = self.index.get(&key) {
            return *index;
        }
        let key = if self.all.len() >= MAX_STATEMENTS { (protocol, Box::from(OTHERS)) } else { key };
        let next = self.all.len() as u32;
        let index = *self.index.entry(key.clone()).or_insert(next);
        if index == next {
            self.all.push((key, Statement::default()));
        }
        index
    }

    /// Adds the statements of another shard.
    pub fn merge(&mut self, other: Self) {
        for ((protocol, text), more) in other.all {
            let index = self.slot(protocol, &text);
            let Some((_, sum)) = self.all.get_mut(index as usize) else { continue };
            sum.calls += more.calls;
            sum.errors += more.errors;
            sum.unanswered += more.unanswered;
            sum.unknown += more.unknown;
            sum.durations.merge(&more.durations);
            sum.rows += more.rows;
            sum.calls_with_rows += more.calls_with_rows;
            sum.affected = sum.affected.saturating_add(more.affected);
            sum.calls_with_affected += more.calls_with_affected;
            sum.warnings += more.warnings;
            sum.no_index += more.no_index;
            sum.no_good_index += more.no_good_index;
            sum.slow += more.slow;
            sum.n_plus_one.add(more.n_plus_one);
            sum.idle.add(more.idle);
            sum.callers.extend(more.callers);
            sum.servers.extend(more.servers);
            sum.slowest = Exemplar::slower(sum.slowest, more.slowest);
            sum.longest_run = sum.longest_run.max(more.longest_run);
            sum.calls_in_runs += more.calls_in_runs;
            sum.flags.insert(more.flags);
        }
    }

    /// Statements by total time, longest first, then by text.
    pub fn into_sorted(self) -> Vec<((u16, Box<str>), Statement)> {
        let mut all = self.all;
        all.sort_by(|(a_key, a), (b_key, b)| b.durations.sum().cmp(&a.durations.sum()).then_with(|| a_key.cmp(b_key)));
        all
    }
}

#[cfg(test)]
mod tests;
