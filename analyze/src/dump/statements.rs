//! `kfr dump --sql`.

use std::io::{self, Write};

use kfr_protocols::REGISTRY;
use serde::Serialize;

use crate::World;
use crate::dump::requests::flag_names;
use crate::sql::{Statement, Statements};

#[derive(Serialize)]
struct Line<'a> {
    fingerprint: String,
    text: &'a str,
    system: &'a str,
    calls: u64,
    errors: u64,
    unanswered: u64,
    unknown: u64,
    total_ns: u64,
    mean_ns: Option<u64>,
    p95_ns: Option<u64>,
    max_ns: Option<u64>,
    rows: Option<u64>,
    affected: Option<u64>,
    warnings: u64,
    no_index: u64,
    no_good_index: u64,
    slow: u64,
    longest_run: u64,
    n_plus_one: Option<NPlusOne>,
    idle_in_transaction: Option<Idle>,
    callers: Vec<&'a str>,
    flags: Vec<&'static str>,
    exemplar: Option<Exemplar>,
}

/// Runs of calls behind a statement with about as many rows.
#[derive(Serialize)]
struct NPlusOne {
    occurrences: u64,
    calls: u64,
    longest: u64,
    /// Fingerprint of the statement before the longest.
    parent: Option<String>,
}

/// Time in open transactions behind calls.
#[derive(Serialize)]
struct Idle {
    count: u64,
    total_ns: u64,
    max_ns: u64,
    exemplar: Exemplar,
}

#[derive(Serialize)]
struct Exemplar {
    start_ns: u64,
    duration_ns: Option<u64>,
    evidence: Vec<String>,
}

/// A name for a statement's text: FNV-1a, 64 bits, in hex (<http://www.isthe.com/chongo/tech/comp/fnv/>).
pub fn fingerprint(system: &str, text: &str) -> String {
    let hash = system
        .bytes()
        .chain([0])
        .chain(text.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// All statements, by total time.
///
/// # Errors
/// If `out` fails.
pub fn statement_lines(world: &World, statements: Statements, out: &mut dyn Write) -> io::Result<()> {
    for ((protocol, text), statement) in statements.into_sorted() {
        serde_json::to_writer(&mut *out, &line(world, protocol, &text, &statement))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn line<'a>(world: &'a World, protocol: u16, text: &'a str, statement: &Statement) -> Line<'a> {
    let system = REGISTRY.get(usize::from(protocol)).map_or("", |protocol| protocol.name);
    Line {
        fingerprint: fingerprint(system, text),
        text,
        system,
        calls: statement.calls,
        errors: statement.errors,
        unanswered: statement.unanswered,
        unknown: statement.unknown,
        total_ns: u64::try_from(statement.durations.sum()).unwrap_or(u64::MAX),
        mean_ns: statement.durations.mean(),
        p95_ns: statement.durations.quantile(950),
        max_ns: statement.durations.max(),
        rows: (statement.calls_with_rows > 0).then_some(statement.rows),
        affected: (statement.calls_with_affected > 0).then_some(statement.affected),
        warnings: statement.warnings,
        no_index: statement.no_index,
        no_good_index: statement.no_good_index,
        slow: statement.slow,
        longest_run: statement.longest_run,
        n_plus_one: (statement.n_plus_one.occurrences > 0).then(|| NPlusOne {
            occurrences: statement.n_plus_one.occurrences,
            calls: statement.n_plus_one.calls,
            longest: statement.n_plus_one.longest,
            parent: parent_fingerprint(&statement.n_plus_one),
        }),
        idle_in_transaction: statement.idle.longest.as_ref().map(|(max_ns, call)| Idle {
            count: statement.idle.count,
            total_ns: statement.idle.total_ns,
            max_ns: *max_ns,
            exemplar: exemplar(world, call),
        }),
        callers: statement
            .callers
            .iter()
            .filter_map(|caller| world.services.get(*caller))
            .map(|service| service.name.as_str())
            .collect(),
        flags: statement_flags(statement),
        exemplar: statement.slowest.map(|slowest| exemplar(world, &slowest)),
    }
}

fn exemplar(world: &World, call: &crate::model::Exemplar) -> Exemplar {
    Exemplar {
        start_ns: world.wall_ns(call.request.0, call.start_ns),
        duration_ns: call.duration_ns,
        evidence: [call.evidence.request, call.evidence.response]
            .into_iter()
            .flatten()
            .map(|at| at.to_string())
            .collect(),
    }
}

/// The fingerprint of the statement before the longest run.
pub fn parent_fingerprint(found: &crate::sql::NPlusOne) -> Option<String> {
    let (protocol, text) = found.parent.as_ref()?;
    let system = REGISTRY.get(usize::from(*protocol)).map_or("", |protocol| protocol.name);
    Some(fingerprint(system, text))
}

/// The flags of a statement's line: `n_plus_one` where it was one, then those of its calls.
pub fn statement_flags(statement: &Statement) -> Vec<&'static str> {
    let found = (statement.n_plus_one.occurrences > 0).then_some("n_plus_one");
    found.into_iter().chain(flag_names(statement.flags)).collect()
}
