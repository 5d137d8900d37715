//! A fixed share of all connections, replayed in the order of the file.

use kfr_bundle::events::{MISSING_NOTHING, MISSING_PEER_KEEPS};
use kfr_protocols::{NAMELESS, Output, Status};
use rustc_hash::FxHashMap;

use crate::model::{EdgeKey, Golden, Ledger, Loss, Metrics, Request};
use crate::replay::connection::{Event, Live, NO_CONNECTION};
use crate::replay::setup::{ConnectionTotals, Setup};
use crate::replay::spill::KeyedLine;
use crate::sql::Statements;

/// Reasons that are counted one by one; further ones (of a newer recorder) together.
const REASONS: usize = 16;
/// Events of a shard between two looks for connections that are over, or idle.
const SWEEP_EVERY: u64 = 16384;
/// Event time after its last state change for which a connection is kept: late events of its own calls.
const LINGER_NS: u64 = 2_000_000_000;

/// What shards know of all connections.
pub trait Context: Sync {
    /// How to replay a connection.
    fn setup(&self, connection: u32) -> Setup;
    /// When it closed, event time, if it did.
    fn closed_ns(&self, connection: u32) -> Option<u64>;
    /// What becomes of a request.
    fn produce(&self, request: &Request, produce: &mut Produce);
}

/// What a shard makes of its requests.
#[derive(Debug, Default)]
pub struct Produce {
    /// Golden metrics.
    pub metrics: Metrics,
    /// Statements by fingerprint.
    pub statements: Statements,
    /// Lines to be sorted, with their keys.
    pub lines: Vec<KeyedLine>,
    /// Requests.
    pub requests: u64,
    /// Of these, with an outcome that was not seen.
    pub unknown_outcomes: u64,
    /// Of these, without a name.
    pub nameless: u64,
}

/// What a shard comes to.
#[derive(Debug, Default)]
pub struct ShardOutput {
    /// Of its requests.
    pub produce: Produce,
    /// Of its connections, by number.
    pub connections: Vec<(u32, ConnectionTotals)>,
    /// What is incomplete.
    pub ledger: Ledger,
}

/// A shard at work.
#[derive(Default)]
pub struct Shard {
    live: FxHashMap<u32, Box<Live>>,
    output: ShardOutput,
    decoded: Output,
    missing: [Loss; REASONS],
    events: u64,
}

impl Shard {
    /// Takes an event of one of its connections.
    pub fn event(&mut self, context: &dyn Context, connection: u32, event: &Event<'_>) {
        self.events += 1;
        let ledger = &mut self.output.ledger;
        ledger.events += 1;
        ledger.bytes += u64::from(event.length);
        ledger.kept_bytes += event.payload.len() as u64;
        if event.missing != MISSING_NOTHING && event.missing != MISSING_PEER_KEEPS {
            let slot = usize::from(event.missing).min(REASONS - 1);
            if let Some(loss) = self.missing.get_mut(slot) {
                loss.events += 1;
                loss.bytes += u64::from(event.length).saturating_sub(event.payload.len() as u64);
            }
        }
        let produce = &mut self.output.produce;
        let live = self.live.entry(connection).or_insert_with(|| Box::new(Live::new(context.setup(connection))));
        {
            let mut requests = collect(context, connection, produce);
            live.event(event, &mut self.decoded, &mut requests);
        }
        if self.events.is_multiple_of(SWEEP_EVERY) {
            self.sweep(context, event.time_ns);
        }
    }

    /// Ends connections that closed a while ago, so that memory follows those that are open.
    fn sweep(&mut self, context: &dyn Context, now_ns: u64) {
        let mut over: Vec<u32> = self
            .live
            .keys()
            .copied()
            .filter(|connection| {
                context.closed_ns(*connection).is_some_and(|closed| closed.saturating_add(LINGER_NS) < now_ns)
            })
            .collect();
        over.sort_unstable();
        for connection in over {
            self.end(context, connection);
        }
        self.live.values_mut().for_each(|live| live.rest());
    }

    fn end(&mut self, context: &dyn Context, connection: u32) {
        let Some(mut live) = self.live.remove(&connection) else { return };
        {
            let mut requests = collect(context, connection, &mut self.output.produce);
            live.finish(&mut self.decoded, &mut requests);
        }
        self.output.produce.statements.ended(connection);
        let totals = live.into_totals();
        let ledger = &mut self.output.ledger;
        ledger.gaps += totals.gaps;
        ledger.unseen_bytes += totals.gap_bytes;
        ledger.skipped_bytes += totals.skipped_bytes;
        ledger.order_uncertain += totals.order_uncertain;
        let bytes = totals.bytes.iter().sum::<u64>();
        if totals.tls.is_some() {
            ledger.encrypted_connections += 1;
            ledger.encrypted_bytes += bytes;
        } else if totals.protocol.is_none() {
            ledger.unknown_connections += 1;
            ledger.unknown_bytes += bytes;
        }
        ledger.mid_stream_connections += u64::from(totals.mid_stream);
        self.output.connections.push((connection, totals));
    }

    /// Lines produced since the last call.
    pub fn take_lines(&mut self) -> Vec<KeyedLine> {
        std::mem::take(&mut self.output.produce.lines)
    }

    /// Metrics by edge since the last call. Their series would take much memory in each shard, and sums of integers
    /// don't care who adds them up when.
    pub fn take_edges(&mut self) -> FxHashMap<EdgeKey, Golden> {
        std::mem::take(&mut self.output.produce.metrics.edges)
    }

    /// Nothing more will come.
    pub fn finish(mut self, context: &dyn Context) -> ShardOutput {
        let mut rest: Vec<u32> = self.live.keys().copied().collect();
        rest.sort_unstable();
        for connection in rest {
            self.end(context, connection);
        }
        for (reason, loss) in self.missing.iter().enumerate().filter(|(_, loss)| loss.events > 0) {
            self.output.ledger.missing.insert(reason as u8, *loss);
        }
        self.output.ledger.unknown_outcomes = self.output.produce.unknown_outcomes;
        self.output.ledger.nameless_requests = self.output.produce.nameless;
        self.output
    }
}

/// A closure that numbers requests and hands them on.
fn collect<'a>(context: &'a dyn Context, connection: u32, produce: &'a mut Produce) -> impl FnMut(Request) + 'a {
    move |mut request: Request| {
        if request.connection == NO_CONNECTION {
            request.connection = connection;
        }
        produce.requests += 1;
        produce.unknown_outcomes += u64::from(request.exchange.status == Status::Unknown);
        produce.nameless += u64::from(&*request.exchange.op == NAMELESS);
        context.produce(&request, produce);
    }
}
