//! Statements by fingerprint.

use std::collections::BTreeSet;

use kfr_protocols::{Flags, Status};
use rustc_hash::FxHashMap;

use crate::model::{Exemplar, Histogram, Request};

/// Statements that one shard tells apart; further ones are counted together as `…`.
const MAX_STATEMENTS: usize = 8192;
/// A statement repeated on one connection within this time of its previous answer continues a run (N+1 queries).
const RUN_GAP_NS: u64 = 20_000_000;

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
    /// All flags seen.
    pub flags: Flags,
}

#[derive(Debug, Clone, Copy)]
struct RunState {
    statement: u32,
    length: u64,
    last_end_ns: u64,
}

/// Statements by protocol and text.
#[derive(Debug, Default)]
pub struct Statements {
    all: Vec<((u16, Box<str>), Statement)>,
    index: FxHashMap<(u16, Box<str>), u32>,
    runs: FxHashMap<u32, RunState>,
}

/// Calls in a row from which on they look like N+1 queries.
pub const RUN_OF_NOTE: u64 = 10;

impl Statements {
    /// Counts a request that carries a statement.
    pub fn record(&mut self, request: &Request, client: u32, server: u32) {
        let Some(text) = &request.exchange.statement else { return };
        let index = self.slot(request.protocol, text);
        let end_ns = request.start_ns.saturating_add(request.duration_ns.unwrap_or_default());
        let run =
            self.runs.entry(request.connection).or_insert(RunState { statement: index, length: 0, last_end_ns: 0 });
        if run.statement == index && request.start_ns.saturating_sub(run.last_end_ns) <= RUN_GAP_NS {
            run.length += 1;
        } else {
            *run = RunState { statement: index, length: 1, last_end_ns: 0 };
        }
        run.last_end_ns = end_ns;
        let length = run.length;
        let Some((_, statement)) = self.all.get_mut(index as usize) else { return };
        statement.longest_run = statement.longest_run.max(length);
        // The tenth call makes the nine before it part of the run too.
        statement.calls_in_runs += match length.cmp(&RUN_OF_NOTE) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => RUN_OF_NOTE,
            std::cmp::Ordering::Greater => 1,
        };
        statement.calls += 1;
        statement.errors += u64::from(request.exchange.status == Status::Error);
        statement.unanswered += u64::from(request.exchange.status == Status::Unanswered);
        statement.unknown += u64::from(request.exchange.status == Status::Unknown);
        statement.flags.insert(request.exchange.flags);
        statement.callers.insert(client);
        statement.servers.insert(server);
        if let Some(rows) = request.exchange.rows {
            statement.rows += rows;
            statement.calls_with_rows += 1;
        }
        if let Some(duration_ns) = request.duration_ns {
            statement.durations.record(duration_ns);
            statement.slowest = Exemplar::slower(statement.slowest, Some(Exemplar::of(request)));
        }
    }

    fn slot(&mut self, protocol: u16, text: &str) -> u32 {
        // One allocation a call would cost more than the call's share of everything else, so look up by hand.
        let key = (protocol, Box::from(text));
        if let Some(index) = self.index.get(&key) {
            return *index;
        }
        let key = if self.all.len() >= MAX_STATEMENTS { (protocol, Box::from("…")) } else { key };
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
