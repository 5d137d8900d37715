//! `kfr dump --logs`.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::logs::{Ids, each_line, workload};
use crate::replay::{Facts, Input, SortedLines};

#[derive(Serialize)]
struct Record<'a> {
    time_ns: u64,
    namespace: Option<&'a str>,
    pod: &'a str,
    container: &'a str,
    workload: Option<&'a str>,
    restart: u32,
    stream: Option<&'a str>,
    level: Option<&'static str>,
    text: &'a str,
    trace_id: Option<String>,
    request_id: Option<String>,
    flags: Vec<&'static str>,
    evidence: [String; 1],
}

/// Writes the log lines of all bundles by time, those of one moment in the order of the files. At most about `memory` bytes
/// of them are held; the rest goes to temporary files in `folder`. Returns whether all could be decoded.
///
/// # Errors
/// If `out` or a temporary file fails.
pub fn log_lines(
    inputs: &[Input],
    facts: &Facts,
    memory: usize,
    folder: &Path,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let mut lines = SortedLines::new(memory, folder);
    let mut number = 0;
    let malformed = each_line(inputs, facts, |line| {
        let known = |text| Some(text).filter(|text: &&str| !text.is_empty());
        let fact = &line.fact;
        let Ids { trace_id, request_id } = Ids::of(&fact.text);
        let flags = [("cut", fact.cut), ("continues", line.continues)];
        let record = Record {
            time_ns: fact.wall_ns,
            namespace: known(&fact.namespace),
            pod: &fact.pod,
            container: &fact.container,
            workload: workload(facts, line.pod),
            restart: fact.restart,
            stream: known(&fact.stream),
            level: line.level.map(|level| level.name()),
            text: &fact.text,
            trace_id,
            request_id,
            flags: flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect(),
            evidence: [line.at.to_string()],
        };
        number += 1;
        lines.push((fact.wall_ns, number), serde_json::to_vec(&record)?.into())
    })?;
    lines.write(out)?;
    Ok(malformed == 0)
}
