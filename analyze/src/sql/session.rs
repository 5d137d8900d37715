//! What the order of requests on one connection tells: the same statement again and again, and transactions left open.

use kfr_protocols::{Flags, Status};

use super::{Idle, RUN_OF_NOTE};
use crate::model::{Exemplar, Request};

/// A statement repeated on one connection within this time of its previous answer continues a run.
const RUN_GAP_NS: u64 = 20_000_000;

/// Requests that neither begin nor end a transaction, and whose answers need not say whether one is open.
const KEEP: &[&str] = &["prepare", "close", "send_long_data", "statistics"];

/// Calls of one statement in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub statement: u32,
    pub length: u64,
    /// Ends of its last call, event time.
    end_ns: u64,
    /// The statement called before it, soon before, and its rows.
    before: Option<(u32, u64)>,
    rows: Option<u64>,
}

impl Run {
    /// The statement of whose rows this is one query each: the one before, with about as many rows. Some rows may need no
    /// query (what was asked for already is remembered), and few need two.
    pub fn parent(&self) -> Option<u32> {
        let (parent, rows) = self.before?;
        let about = rows / 2..=rows.saturating_add(rows / 5).saturating_add(1);
        (self.length >= RUN_OF_NOTE && about.contains(&self.length)).then_some(parent)
    }
}

/// How a call follows the one before it.
pub(super) enum Follows {
    /// It is the nth of a run.
    Run(u64),
    /// It is another statement, or comes late: the run before it is over.
    Other(Option<Run>),
}

/// A transaction that is open while nothing is asked.
#[derive(Debug, Clone, Copy)]
struct Open {
    since_ns: u64,
    /// The last statement called, and that call.
    statement: u32,
    call: Exemplar,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    run: Option<Run>,
    open: Option<Open>,
}

fn end_ns(request: &Request) -> u64 {
    request.start_ns.saturating_add(request.duration_ns.unwrap_or_default())
}

impl Session {
    /// Notes a request of any kind. Returns how long a transaction was open with nothing asked before it, and the
    /// statement that it stood behind.
    pub fn wait_ended(&mut self, request: &Request, statement: Option<u32>) -> Option<(u32, Idle)> {
        let exchange = &request.exchange;
        let open = self.open.take();
        let waited = open.and_then(|open| {
            let idle_ns = request.start_ns.checked_sub(open.since_ns).filter(|idle_ns| *idle_ns > 0)?;
            Some((open.statement, Idle { count: 1, total_ns: idle_ns, longest: Some((idle_ns, open.call)) }))
        });
        let says = exchange.flags.contains(Flags::IN_TRANSACTION) || exchange.flags.contains(Flags::FAILED_TRANSACTION);
        let keeps = open.is_some() && exchange.status == Status::Ok && KEEP.contains(&&*exchange.op);
        if says || keeps {
            let call = match (statement, open) {
                (Some(statement), _) => Some((statement, Exemplar::of(request))),
                (None, Some(open)) => Some((open.statement, open.call)),
                (None, None) => None,
            };
            let since_ns = open.map_or(0, |open| open.since_ns).max(end_ns(request));
            self.open = call.map(|(statement, call)| Open { since_ns, statement, call });
        }
        waited
    }

    /// Notes the call of a statement.
    pub fn call(&mut self, request: &Request, statement: u32) -> Follows {
        let (end_ns, rows) = (end_ns(request), request.exchange.rows);
        let soon = |run: &Run| request.start_ns.saturating_sub(run.end_ns) <= RUN_GAP_NS;
        match &mut self.run {
            Some(run) if run.statement == statement && soon(run) => {
                run.length += 1;
                (run.end_ns, run.rows) = (end_ns, rows);
                Follows::Run(run.length)
            }
            last => {
                let before = last.as_ref().filter(|run| run.statement != statement && soon(run));
                let before = before.and_then(|run| Some((run.statement, run.rows?)));
                Follows::Other(last.replace(Run { statement, length: 1, end_ns, before, rows }))
            }
        }
    }

    /// Nothing more comes: the last run.
    pub fn into_run(self) -> Option<Run> {
        self.run
    }
}
