//! PostgreSQL, protocol 3 (<https://www.postgresql.org/docs/current/protocol.html>): simple queries, the extended query
//! protocol with pipelines, COPY. Servers that speak the same (CockroachDB, Redshift, poolers) are read like any other.
//!
//! What the client sends becomes a queue of [`Step`]s, each of which the server ends with a message of its own kind;
//! some of them are requests. So an error is given to what failed, and what the server passed over behind it is known.

mod answer;
mod ask;
mod detect;
mod error;
mod message;
mod outcome;
mod startup;
mod statements;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::pairing::{Chunks, Pairing};
use crate::sql::Dialect;
use crate::turns::{self, Turns};
use crate::{About, Exchange, Flags, Options, Output, Parser, Protocol, Stream, Streams, SwitchedTo};
use answer::Answering;
use startup::Opening;
use statements::{Prepared, Statement};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "postgresql",
    streams: true,
    datagrams: false,
    detect: detect::detect,
    parser: |start| Box::new(PostgreSql::new(start.options, start.mid_stream)),
    about: About {
        source: "PostgreSQL documentation, frontend/backend protocol 3.0 and 3.2",
        request: "a simple query, an Execute, a function call; `op` `query`, `execute`, `function_call`, `target` the \
                  statement. Preparing is none unless it fails; logging in and cancelling are none",
        read: "simple and extended queries, pipelines, portals, COPY, notices, errors, state of the transaction",
        mid_stream: "messages of both sides by type, length and content; answers by ReadyForQuery",
        not_read: "protocol 2, replication streams, values of rows",
    },
};

/// Steps that may wait for the server at once; of what is sent beyond that, only requests count.
const MAX_STEPS: usize = 1 << 18;

/// Bytes of texts that steps hold.
const MAX_STEP_BYTES: usize = 16 << 20;

/// What the answer to a request depends on.
#[derive(Debug)]
struct Asked {
    /// Several statements may be in it: each has an answer, and their rows add up.
    several: bool,
}

/// What the server will answer, in order.
#[derive(Debug)]
enum Kind {
    /// A startup message: it ends with ReadyForQuery.
    Login,
    Parse(Option<Arc<Statement>>),
    Bind(Option<Arc<Statement>>),
    Describe(Option<Arc<Statement>>),
    Close,
    Execute,
    Query,
    Function,
    /// `attached`: it came right behind an Execute, whose request it ends.
    /// `unseen`: it was not seen, nor what else stands in the hole where it must be.
    Sync {
        attached: bool,
        unseen: Option<Unseen>,
    },
}

/// A hole in the client's stream, in which requests may be.
#[derive(Debug, Clone)]
struct Unseen {
    flag: Flags,
    /// Where the next one is, as far as can be told.
    place: Range<u64>,
    /// As many requests find room in it.
    room: u64,
}

impl Kind {
    /// ReadyForQuery answers it.
    fn ends_with_ready(&self) -> bool {
        matches!(self, Kind::Login | Kind::Query | Kind::Function | Kind::Sync { .. })
    }

    fn is_request(&self) -> bool {
        matches!(self, Kind::Execute | Kind::Query | Kind::Function)
    }
}

/// Something that the client sent, and that the server answers.
#[derive(Debug)]
struct Step {
    kind: Kind,
    /// Stream offsets of its message.
    request: Range<u64>,
    /// The server's stream ended here when it was seen.
    seen_at: u64,
    text_bytes: usize,
}

/// Where the client's stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Before the startup message.
    Start,
    /// At a message.
    Command,
    /// Looking for a message at the starts of chunks.
    Search,
}

/// Messages that prepare an Execute: they belong to its request.
#[derive(Debug)]
struct Segment {
    start: u64,
    seen_at: u64,
    /// An Execute follows: mostly a statement with a name is prepared for later.
    runs: bool,
    /// The statement that was parsed or bound last.
    statement: Option<Arc<Statement>>,
}

struct PostgreSql {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    /// Nothing of the client was read yet.
    silent: bool,
    chunks: Chunks,
    pairing: Pairing<Asked>,
    asking: Asking,
    /// Encryption that the client has asked for, until the server's letter comes.
    negotiating: Option<Opening>,
    seen_at: Option<u64>,
    segment: Option<Segment>,
    /// Where the request begins whose last messages can't be followed: what is passed over to find the next is its.
    unended: Option<u64>,
    /// The client sends the rows of a COPY.
    copying: bool,
    steps: VecDeque<Step>,
    step_bytes: usize,
    /// Of `steps`, those that ReadyForQuery answers.
    ready_steps: usize,
    /// Answers were lost, and these steps may be among those that they ended.
    missed: Option<Flags>,
    prepared: Prepared,
    /// The server's `standard_conforming_strings`, once it told: whether a backslash in a string escapes nothing.
    standard_strings: Option<bool>,
    answering: Answering,
    switched: bool,
}

impl PostgreSql {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            silent: true,
            chunks: Chunks::default(),
            pairing: Pairing::default(),
            asking: if mid_stream { Asking::Search } else { Asking::Start },
            negotiating: None,
            seen_at: None,
            segment: None,
            unended: None,
            copying: false,
            steps: VecDeque::new(),
            step_bytes: 0,
            ready_steps: 0,
            missed: None,
            prepared: Prepared::default(),
            standard_strings: None,
            answering: Answering::new(mid_stream),
            switched: false,
        }
    }

    /// How the client's statements are to be read.
    fn dialect(&self) -> Dialect {
        match self.standard_strings {
            Some(true) => Dialect::PostgreSql,
            Some(false) => Dialect::PostgreSqlEscapes,
            None => Dialect::PostgreSqlUntold,
        }
    }

    fn switch(&mut self, to: SwitchedTo, streams: &Streams, out: &mut Output) {
        self.pairing.finish(streams, out);
        self.switched = true;
        out.switched = Some(to);
    }

    fn sync(
        &mut self,
        request: Range<u64>,
        unseen: Option<Unseen>,
        seen_at: u64,
        server: &mut Stream,
        out: &mut Output,
    ) {
        self.segment = None;
        let executes = self.steps.back().is_some_and(|step| matches!(step.kind, Kind::Execute));
        let last = self.pairing.back_mut().filter(|last| executes && last.exchange.request.end == request.start);
        let attached = last.is_some();
        let seen_at = match last {
            Some(last) => {
                last.exchange.request.end = request.end;
                last.seen_at
            }
            None => seen_at,
        };
        self.step(Kind::Sync { attached, unseen }, request, seen_at, server, out);
    }

    /// Adds a step that belongs to the request of the Execute that follows it.
    fn prepare_step(&mut self, kind: Kind, request: Range<u64>, seen_at: u64, server: &mut Stream, out: &mut Output) {
        let start = request.start;
        let segment = self.segment.get_or_insert(Segment { start, seen_at, runs: false, statement: None });
        if let Kind::Parse(statement) | Kind::Bind(statement) = &kind {
            segment.statement = statement.clone();
        }
        segment.runs |= matches!(kind, Kind::Bind(_));
        self.step(kind, request, seen_at, server, out);
    }

    /// Adds a step of which the server's stream showed nothing before `seen_at`.
    fn step(&mut self, kind: Kind, request: Range<u64>, seen_at: u64, server: &mut Stream, out: &mut Output) {
        self.boundary(seen_at, server, out);
        self.drop_unseen_sync(seen_at, server, out);
        let text_bytes = match &kind {
            Kind::Parse(Some(statement)) => statement.bytes(),
            _ => 0,
        };
        let kind = if self.step_bytes + text_bytes > MAX_STEP_BYTES { Kind::Parse(None) } else { kind };
        let text_bytes = if matches!(kind, Kind::Parse(None)) { 0 } else { text_bytes };
        if self.steps.len() < MAX_STEPS || kind.is_request() {
            self.step_bytes += text_bytes;
            self.ready_steps += usize::from(kind.ends_with_ready());
            self.steps.push_back(Step { kind, request, seen_at, text_bytes });
        }
    }

    /// Adds a request.
    fn request(
        &mut self,
        mut exchange: Exchange,
        kind: Kind,
        several: bool,
        seen_at: u64,
        server: &mut Stream,
        out: &mut Output,
    ) {
        self.segment = None;
        self.copying = false;
        if std::mem::take(&mut self.fresh) && self.mid_stream {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        self.step(kind, exchange.request.clone(), seen_at, server, out);
        self.pairing.push(exchange, seen_at, Asked { several }, server, out);
        self.answering.lose_new(seen_at, &mut self.pairing);
    }
}

impl Turns for PostgreSql {
    type Detail = Asked;

    fn pairing(&mut self) -> &mut Pairing<Asked> {
        &mut self.pairing
    }

    fn chunks(&mut self) -> &mut Chunks {
        &mut self.chunks
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_requests(streams, chunk, out);
    }

    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_answers(streams, chunk, out);
    }

    fn has_left(&self) -> bool {
        self.switched
    }

    fn gave_up(&mut self) {
        self.steps.clear();
        self.step_bytes = 0;
        self.ready_steps = 0;
    }
}

impl Parser for PostgreSql {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        turns::read(self, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        if !turns::read_rest(self, streams, out) {
            return;
        }
        if self.pairing.lost().is_none() {
            self.finish_answer(streams, out);
        }
        turns::end(self, streams, out);
    }
}
