//! `kfr analyze` and `kfr dump`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use kfr_analyze::dump::{AddressError, connection_lines, event_at, event_lines, statement_lines};
use kfr_analyze::replay::Facts;
use kfr_analyze::report::document::Severity;
use kfr_analyze::report::{Document, build, write_all, write_single};
use kfr_analyze::{Analysis, Input, Options, Want};

use crate::args::{AnalyzeOptions, DumpOptions, ReplayOptions};
use crate::exit::{Done, Failure};

fn open(paths: &[PathBuf]) -> Result<Vec<Input>, Failure> {
    Input::open_all(paths).map_err(Failure::unreadable)
}

fn options(replay: &ReplayOptions) -> Options {
    Options { memory: replay.memory, tmp: replay.tmp.clone(), threads: replay.threads, literals: replay.literals }
}

fn done(losses: bool) -> Done {
    if losses { Done::WithLosses } else { Done::Whole }
}

/// Standard output, named in its errors.
struct Stdout<'a>(std::io::StdoutLock<'a>);

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(named)
    }
}

fn named(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        // To be tried again, not told.
        std::io::ErrorKind::Interrupted => error,
        kind => std::io::Error::new(kind, format!("standard output can't be written: {error}")),
    }
}

pub fn dump(arguments: &DumpOptions) -> Result<Done, Failure> {
    let inputs = open(&arguments.replay.bundles)?;
    let options = options(&arguments.replay);
    let mut out = BufWriter::with_capacity(1 << 20, Stdout(std::io::stdout().lock()));
    let what = &arguments.what;
    if what.events || what.at.is_some() {
        let facts = Facts::read(&inputs);
        match &what.at {
            Some(address) => {
                event_at(&inputs, &facts, options.literals, address, &mut out).map_err(|error| match error {
                    AddressError::Io(error) => Failure::unwritable(error),
                    other => Failure::usage(other),
                })?;
            }
            None => event_lines(&inputs, &facts, options.literals, &mut out).map_err(Failure::unwritable)?,
        }
        out.flush().map_err(Failure::unwritable)?;
        return Ok(done(inputs.iter().any(|input| input.reader.damage().is_loss())));
    }
    let want = if what.requests {
        Want::RequestLines
    } else if what.sql {
        Want::Metrics
    } else {
        Want::Connections
    };
    let analysis = Analysis::new(&inputs, &options, want).map_err(Failure::unwritable)?;
    let losses = analysis.has_losses(&inputs);
    let written = match want {
        Want::RequestLines => analysis.lines.write(&mut out),
        Want::Metrics => statement_lines(&analysis.world, analysis.statements, &mut out),
        Want::Connections => connection_lines(&analysis, &mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::unwritable)?;
    Ok(done(losses))
}

pub fn analyze(arguments: &AnalyzeOptions, quiet: bool) -> Result<Done, Failure> {
    let inputs = open(&arguments.replay.bundles)?;
    let options = options(&arguments.replay);
    let analysis = Analysis::new(&inputs, &options, Want::Metrics).map_err(Failure::unwritable)?;
    let losses = analysis.has_losses(&inputs);
    let document = build(&inputs, analysis, options.literals);
    if let Some(folder) = &arguments.output {
        write_all(&document, folder).map_err(Failure::unwritable)?;
    }
    if let Some(file) = &arguments.single {
        write_single(&document, file).map_err(Failure::unwritable)?;
    }
    if !quiet {
        summarise(arguments, &document);
    }
    Ok(done(losses))
}

fn summarise(arguments: &AnalyzeOptions, document: &Document) {
    let (overall, ledger) = (&document.overall, &document.ledger.totals);
    eprintln!(
        "{} requests ({} errors) between {} services on {} connections; {} findings",
        overall.requests,
        overall.errors,
        document.services.len(),
        ledger.connections,
        document.findings.len()
    );
    for finding in document.findings.iter().take(5) {
        let severity = match finding.severity {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        eprintln!("  {severity}: {}", finding.title);
    }
    if let Some(folder) = &arguments.output {
        eprintln!("report: {}", folder.join("report.html").display());
    }
    if let Some(file) = &arguments.single {
        eprintln!("report: {}", file.display());
    }
}
