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
    longest_run: u64,
    callers: Vec<&'a str>,
    flags: Vec<&'static str>,
    exemplar: Option<Exemplar>,
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
        longest_run: statement.longest_run,
        callers: statement
            .callers
            .iter()
            .filter_map(|caller| world.services.get(*caller))
            .map(|service| service.name.as_str())
            .collect(),
        flags: flag_names(statement.flags),
        exemplar: statement.slowest.map(|slowest| Exemplar {
            start_ns: world.wall_ns(slowest.request.0, slowest.start_ns),
            duration_ns: slowest.duration_ns,
            evidence: [slowest.evidence.request, slowest.evidence.response]
                .into_iter()
                .flatten()
                .map(|at| at.to_string())
                .collect(),
        }),
    }
}
