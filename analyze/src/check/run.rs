//! Replaying every capture and comparing it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kfr_bundle::Condition;
use rayon::prelude::*;
use serde_json::Value;

use super::compare::{Comparison, Difference, Tally, compare};
use super::find::Case;
use crate::dump::event_at;
use crate::replay::Facts;
use crate::{Analysis, Input, Options, Want};

/// Differences of a capture whose bytes are looked up.
const MAX_SHOWN_BYTES: usize = 10;
/// Bytes shown of an event.
const EXCERPT_BYTES: usize = 64;

/// How a check is done.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// How to replay. `threads` is how many captures are replayed at once. Values are masked, whatever it says: golden
    /// files are shared.
    pub replay: Options,
    /// Show the first bytes of what changed.
    pub literals: bool,
    /// Write golden files anew instead of complaining.
    pub bless: bool,
}

/// How a capture did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As blessed.
    Same,
    /// Not as blessed. With `bless` the golden file is new.
    Different(Vec<Difference>),
    /// There is no golden file. With `bless` there is one now.
    NoGolden,
    /// It can't be read, or the golden file can't: why.
    Failed(String),
}

/// A capture that was checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The capture.
    pub case: Case,
    /// How it did.
    pub outcome: Outcome,
    /// What is wrong with the capture itself, where what is whole of it was read: a sentence.
    pub note: Option<String>,
    /// Requests now, by protocol.
    pub tally: BTreeMap<String, Tally>,
    /// Connections whose protocol is not known.
    pub unknown_connections: u64,
    /// Their bytes.
    pub unknown_bytes: u64,
    /// What bytes of changed requests are, by event address; values are shown with `literals` only.
    pub excerpts: BTreeMap<String, String>,
}

/// Makes a bundle of a packet capture: from where, to where. What is wrong with the capture, though it was read, comes back
/// as a sentence; so does the error.
pub type Importer<'a> = &'a (dyn Fn(&Path, &Path) -> Result<Option<String>, String> + Sync);

/// Checks every case, several at once; the result is in the order of the cases.
///
/// # Errors
/// If threads can't be started.
pub fn check(cases: &[Case], import: Importer<'_>, options: &CheckOptions) -> io::Result<Vec<Checked>> {
    let mut threads = rayon::ThreadPoolBuilder::new();
    if let Some(count) = options.replay.threads {
        threads = threads.num_threads(count);
    }
    let pool = threads.build().map_err(io::Error::other)?;
    Ok(pool.install(|| cases.par_iter().with_max_len(1).map(|case| check_one(case, import, options)).collect()))
}

fn check_one(case: &Case, import: Importer<'_>, options: &CheckOptions) -> Checked {
    let mut checked = Checked {
        case: case.clone(),
        outcome: Outcome::Same,
        note: None,
        tally: BTreeMap::new(),
        unknown_connections: 0,
        unknown_bytes: 0,
        excerpts: BTreeMap::new(),
    };
    if let Err(error) = replay_and_compare(case, import, options, &mut checked) {
        checked.outcome = Outcome::Failed(error);
    }
    checked
}

fn replay_and_compare(
    case: &Case,
    import: Importer<'_>,
    options: &CheckOptions,
    checked: &mut Checked,
) -> Result<(), String> {
    let folder;
    let bundle: PathBuf = if case.is_bundle {
        case.capture.clone()
    } else {
        let made = match &options.replay.tmp {
            Some(tmp) => tempfile::tempdir_in(tmp),
            None => tempfile::tempdir(),
        };
        folder = made.map_err(|error| format!("the temporary folder can't be written: {error}"))?;
        let bundle = folder.path().join("capture.kfr");
        checked.note = import(&case.capture, &bundle)?;
        bundle
    };
    let inputs = Input::open_all(&[bundle]).map_err(|error| error.to_string())?;
    if case.is_bundle && inputs.iter().any(|input| input.condition() == Condition::Damaged) {
        checked.note = Some("the bundle is damaged; what is whole of it was compared".to_string());
    }
    let replay = Options { threads: Some(1), literals: false, ..options.replay.clone() };
    let analysis = Analysis::new(&inputs, &replay, Want::RequestLines).map_err(|error| error.to_string())?;
    checked.unknown_connections = analysis.ledger.unknown_connections;
    checked.unknown_bytes = analysis.ledger.unknown_bytes;
    let mut lines = Vec::new();
    analysis.lines.write(&mut lines).map_err(|error| error.to_string())?;
    let found = String::from_utf8(lines).map_err(|error| error.to_string())?;
    let golden = match fs::read_to_string(&case.golden) {
        Ok(golden) => Some(golden),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{} can't be read: {error}", case.golden.display())),
    };
    let Comparison { differences, tally } = compare(golden.as_deref().unwrap_or(&found), &found);
    checked.tally = tally;
    checked.outcome = match golden {
        None => Outcome::NoGolden,
        Some(_) if differences.is_empty() => Outcome::Same,
        Some(_) => {
            let facts = Facts::read(&inputs);
            for difference in differences.iter().take(MAX_SHOWN_BYTES) {
                let Difference::Changed { evidence, .. } = difference else { continue };
                for address in evidence {
                    let excerpt = excerpt(&inputs, &facts, options.literals, address);
                    checked.excerpts.extend(excerpt.map(|excerpt| (address.clone(), excerpt)));
                }
            }
            Outcome::Different(differences)
        }
    };
    if options.bless && checked.outcome != Outcome::Same {
        write_golden(&case.golden, &found)
            .map_err(|error| format!("{} can't be written: {error}", case.golden.display()))?;
    }
    Ok(())
}

/// Writes a golden file beside its place and puts it there whole; what a link points to is left alone.
fn write_golden(golden: &Path, lines: &str) -> io::Result<()> {
    if fs::symlink_metadata(golden).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other("it is no regular file"));
    }
    let folder = golden.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(lines.as_bytes())?;
    file.persist(golden).map_err(|error| error.error)?;
    Ok(())
}

/// An event in a few words: how many bytes it moved, and with `literals` the first of them.
fn excerpt(inputs: &[Input], facts: &Facts, literals: bool, address: &str) -> Option<String> {
    let mut line = Vec::new();
    event_at(inputs, facts, literals, address, &mut line).ok()?;
    let event: Value = serde_json::from_slice(&line).ok()?;
    let moved = format!("{} bytes {}", event["length"], event["direction"].as_str().unwrap_or("moved"));
    let payload = event["payload"].as_str().filter(|payload| literals && !payload.is_empty());
    let shown = payload.map(|payload| payload.chars().take(EXCERPT_BYTES).collect::<String>());
    Some(shown.map_or_else(|| moved.clone(), |shown| format!("{moved}: {shown}")))
}
