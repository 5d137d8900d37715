//! `kfr analyze` and `kfr dump`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use kfr_analyze::dump::{AddressError, connection_lines, event_at, event_lines, log_lines, statement_lines};
use kfr_analyze::replay::Facts;
use kfr_analyze::report::document::Severity;
use kfr_analyze::report::{Document, build, render_html, write_all, write_single};
use kfr_analyze::{Analysis, Input, InputError, Options, Want};
use kfr_bundle::Condition;

use crate::args::{AnalyzeOptions, DumpOptions, ReplayOptions};
use crate::exit::{Done, Failure};
use crate::inspect::verdict;
use crate::target;
use crate::terminal::{Paint, Terminal, json_output, text_output};

fn open(paths: &[PathBuf]) -> Result<Vec<Input>, Failure> {
    Input::open_all(paths).map_err(|error| match error {
        InputError::Twice { .. } => Failure::usage(error),
        InputError::Unreadable { .. } => Failure::unreadable(error),
    })
}

fn options(replay: &ReplayOptions) -> Options {
    Options {
        memory: replay.memory,
        tmp: replay.tmp.clone(),
        threads: replay.threads,
        literals: replay.literals,
        port_hints: replay.port_hint.clone(),
        group_by: Vec::new(),
    }
}

fn done(losses: bool) -> Done {
    if losses { Done::WithLosses } else { Done::Whole }
}

pub fn dump(arguments: &DumpOptions, terminal: Terminal) -> Result<Done, Failure> {
    let mut stages = Stages::new(terminal);
    let inputs = open(&arguments.replay.bundles)?;
    let options = options(&arguments.replay);
    let mut out = BufWriter::with_capacity(1 << 20, json_output());
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
        stages.end("reading and writing");
        return Ok(done(inputs.iter().any(|input| input.condition() != Condition::Whole)));
    }
    if what.logs {
        let facts = Facts::read(&inputs);
        let folder = options.tmp.clone().unwrap_or_else(std::env::temp_dir);
        let memory = usize::try_from(options.memory / 4).unwrap_or(usize::MAX);
        let whole = log_lines(&inputs, &facts, memory, &folder, &mut out).map_err(Failure::unwritable)?;
        out.flush().map_err(Failure::unwritable)?;
        stages.end("reading and writing");
        return Ok(done(!whole || inputs.iter().any(|input| input.condition() != Condition::Whole)));
    }
    let want = if what.requests {
        Want::RequestLines
    } else if what.sql {
        Want::Metrics
    } else {
        Want::Connections
    };
    let analysis = Analysis::new(&inputs, &options, want).map_err(Failure::unwritable)?;
    stages.end("replay");
    let losses = analysis.has_losses(&inputs);
    let written = match want {
        Want::RequestLines => analysis.lines.write(&mut out),
        Want::Metrics => statement_lines(&analysis.world, analysis.statements, &mut out),
        Want::Connections => connection_lines(&analysis, &mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::unwritable)?;
    stages.end("writing");
    Ok(done(losses))
}

pub fn analyze(arguments: &AnalyzeOptions, terminal: Terminal) -> Result<Done, Failure> {
    let bundles = &arguments.replay.bundles;
    if let Some(folder) = &arguments.output {
        target::folder(folder, bundles)?;
    }
    let single = arguments.single.as_deref();
    let on_stdout = single.is_some_and(|file| file.as_os_str() == "-");
    if let Some(file) = single.filter(|_| !on_stdout) {
        target::file(file, bundles)?;
    }
    let mut stages = Stages::new(terminal);
    let inputs = open(bundles)?;
    stages.end("opening the bundles");
    let options = Options { group_by: arguments.group_by.clone(), ..options(&arguments.replay) };
    let analysis = Analysis::new(&inputs, &options, Want::Metrics).map_err(Failure::unwritable)?;
    stages.end("replay");
    let losses = analysis.has_losses(&inputs);
    let document = build(&inputs, analysis, &options);
    stages.end("findings and tables");
    if let Some(folder) = &arguments.output {
        write_all(&document, folder).map_err(Failure::unwritable)?;
    }
    match single {
        Some(_) if on_stdout => {
            let page = render_html(&document).map_err(Failure::unwritable)?;
            let mut out = text_output();
            out.write_all(page.as_bytes()).and_then(|()| out.flush()).map_err(Failure::unwritable)?;
        }
        Some(file) => write_single(&document, file).map_err(Failure::unwritable)?,
        None => {}
    }
    stages.end("writing the report");
    summarise(&inputs, &document, terminal);
    let files = arguments.output.as_ref().map(|folder| folder.join("report.html"));
    for file in files.as_deref().into_iter().chain(single.filter(|_| !on_stdout)) {
        terminal.say(format_args!("report: {}", file.display()));
    }
    Ok(done(losses))
}

fn summarise(inputs: &[Input], document: &Document, terminal: Terminal) {
    for input in inputs.iter().filter(|input| input.condition() != Condition::Whole) {
        let name = input.path.display();
        terminal.say_painted(Paint::Yellow, "", format_args!("{name}: {}", verdict(input.condition())));
    }
    let (overall, ledger) = (&document.overall, &document.ledger.totals);
    terminal.say(format_args!(
        "{} requests ({} errors) between {} services on {} connections; {} findings",
        overall.requests,
        overall.errors,
        document.services.len(),
        ledger.connections,
        document.findings.len()
    ));
    for finding in document.findings.iter().take(5) {
        let (paint, severity) = match finding.severity {
            Severity::Critical => (Paint::Red, "  critical: "),
            Severity::Warning => (Paint::Yellow, "  warning: "),
            Severity::Info => (Paint::Plain, "  info: "),
        };
        terminal.say_painted(paint, severity, &finding.title);
    }
}

/// Says what each stage took, with `-v`.
struct Stages {
    terminal: Terminal,
    since: Instant,
}

impl Stages {
    fn new(terminal: Terminal) -> Self {
        Self { terminal, since: Instant::now() }
    }

    fn end(&mut self, stage: &str) {
        self.terminal.detail(format_args!("{stage}: {:.3} s", self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }
}
