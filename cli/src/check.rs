//! `kfr check`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow};
use kfr_analyze::Options;
use kfr_analyze::check::{Case, CheckOptions, Checked, Difference, Found, Outcome, Tally, check as check_all, find};

use crate::args::CheckArguments;
use crate::exit::{Done, Failure};
use crate::import::import_quietly;
use crate::terminal::{Terminal, shown, text_output};

/// Differences of a capture that are shown without `-v`.
const MAX_SHOWN: usize = 10;

pub fn check(arguments: &CheckArguments, terminal: Terminal, all: bool, quiet: bool) -> Result<Done, Failure> {
    let folder = &arguments.folder;
    if folder.is_file() {
        return Err(Failure::usage(anyhow!("{} is a file; name the folder that holds it", folder.display())));
    }
    let Found { cases, orphans } =
        find(folder).with_context(|| format!("{} can't be read", folder.display())).map_err(Failure::unreadable)?;
    if cases.is_empty() {
        let sentence = anyhow!("{} holds no bundle (*.kfr) or packet capture (*.pcap, *.pcapng)", folder.display());
        return Err(Failure::unreadable(sentence));
    }
    let options = CheckOptions {
        replay: Options { threads: arguments.threads, port_hints: arguments.port_hint.clone(), ..Options::default() },
        literals: arguments.literals,
        bless: arguments.bless,
    };
    let checked = check_all(&cases, &import_quietly, &options).map_err(Failure::unwritable)?;
    let mut out = text_output();
    let shown = if all { usize::MAX } else { MAX_SHOWN };
    for one in &checked {
        write_one(&mut out, folder, one, arguments.bless, shown).map_err(Failure::unwritable)?;
    }
    for orphan in &orphans {
        let name = self::shown(&orphan.strip_prefix(folder).unwrap_or(orphan).to_string_lossy());
        writeln!(out, "{name}: its capture is not there").map_err(Failure::unwritable)?;
    }
    if !quiet {
        write_summary(&mut out, &checked, arguments.bless).map_err(Failure::unwritable)?;
    }
    out.flush().map_err(Failure::unwritable)?;
    let wrong = checked.iter().filter(|one| match one.outcome {
        Outcome::Same => false,
        Outcome::Failed(_) => true,
        Outcome::Different(_) | Outcome::NoGolden => !arguments.bless,
    });
    let wrong = wrong.count() + orphans.len();
    if wrong > 0 && !arguments.bless {
        terminal.say("to take what is found now as golden: kfr check --bless");
    }
    Ok(if wrong > 0 { Done::WithDifferences } else { Done::Whole })
}

fn name(folder: &Path, case: &Case) -> String {
    shown(&case.capture.strip_prefix(folder).unwrap_or(&case.capture).to_string_lossy())
}

fn write_one(out: &mut dyn Write, folder: &Path, one: &Checked, bless: bool, most: usize) -> std::io::Result<()> {
    let name = name(folder, &one.case);
    if let Some(note) = &one.note {
        writeln!(out, "{name}: {}", shown(note))?;
    }
    let requests: u64 = one.tally.values().map(|tally| tally.requests).sum();
    match &one.outcome {
        Outcome::Same => Ok(()),
        Outcome::Failed(why) => writeln!(out, "{name}: {}", shown(why)),
        Outcome::NoGolden if bless => writeln!(out, "{name}: blessed, {requests} requests"),
        Outcome::NoGolden => writeln!(out, "{name}: no golden file yet; {requests} requests are found"),
        Outcome::Different(differences) => {
            let blessed = if bless { ", blessed" } else { "" };
            writeln!(out, "{name}: {} of {requests} requests differ{blessed}", differences.len())?;
            for difference in differences.iter().take(most) {
                write_difference(out, difference, &one.excerpts)?;
            }
            if differences.len() > most {
                writeln!(out, "  and {} more (-v shows all)", differences.len() - most)?;
            }
            Ok(())
        }
    }
}

fn write_difference(
    out: &mut dyn Write,
    difference: &Difference,
    excerpts: &BTreeMap<String, String>,
) -> std::io::Result<()> {
    match difference {
        Difference::Added { request } => writeln!(out, "  + {}", shown(request)),
        Difference::Removed { request } => writeln!(out, "  - {}", shown(request)),
        Difference::Changed { request, fields, evidence } => {
            writeln!(out, "  ~ {}", shown(request))?;
            for (field, before, now) in fields {
                writeln!(out, "      {field}: {} is now {}", shown(before), shown(now))?;
            }
            for address in evidence {
                match excerpts.get(address) {
                    Some(excerpt) => writeln!(out, "      event {address}: {}", shown(excerpt))?,
                    None => writeln!(out, "      event {address}")?,
                }
            }
            Ok(())
        }
    }
}

fn write_summary(out: &mut dyn Write, checked: &[Checked], bless: bool) -> std::io::Result<()> {
    let mut protocols: BTreeMap<&str, (u64, Tally)> = BTreeMap::new();
    for one in checked {
        for (protocol, tally) in &one.tally {
            let (captures, sum) = protocols.entry(protocol).or_default();
            *captures += 1;
            sum.add(*tally);
        }
    }
    writeln!(
        out,
        "{:<12} {:>8} {:>10} {:>8} {:>10} {:>8}",
        "protocol", "captures", "requests", "errors", "unanswered", "unknown"
    )?;
    for (protocol, (captures, tally)) in &protocols {
        let Tally { requests, errors, unanswered, unknown } = tally;
        writeln!(out, "{protocol:<12} {captures:>8} {requests:>10} {errors:>8} {unanswered:>10} {unknown:>8}")?;
    }
    let connections: u64 = checked.iter().map(|one| one.unknown_connections).sum();
    let bytes: u64 = checked.iter().map(|one| one.unknown_bytes).sum();
    writeln!(out, "unknown protocol: {bytes} bytes on {connections} connections")?;
    let count = |wanted: fn(&Outcome) -> bool| checked.iter().filter(|one| wanted(&one.outcome)).count();
    let (same, different) = (count(|o| *o == Outcome::Same), count(|o| matches!(o, Outcome::Different(_))));
    let (new, failed) = (count(|o| *o == Outcome::NoGolden), count(|o| matches!(o, Outcome::Failed(_))));
    let blessed = if bless { " (blessed)" } else { "" };
    writeln!(
        out,
        "{same} captures as golden, {different} different{blessed}, {new} without golden{blessed}, {failed} unreadable"
    )
}
