//! `kfr`: the command line over the libraries. Arguments in, exit codes out, no logic.

mod args;
#[cfg(all(target_os = "linux", feature = "capture"))]
mod capture;
mod check;
#[cfg(all(target_os = "linux", feature = "capture"))]
mod cluster;
mod exit;
mod import;
mod inspect;
mod merge;
mod replay;
mod target;
mod terminal;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use args::Command;
use exit::{Done, Failure};
use terminal::{Terminal, shown};

fn main() -> ExitCode {
    let arguments = match args::parse() {
        Ok(arguments) => arguments,
        Err(message) => return no_arguments(&message),
    };
    let terminal = Terminal::new(&arguments);
    let result = match arguments.command {
        #[cfg(all(target_os = "linux", feature = "capture"))]
        Command::Preflight(options) => capture::preflight(&options),
        #[cfg(all(target_os = "linux", feature = "capture"))]
        Command::Capture(options) => capture::capture(&options, terminal),
        #[cfg(all(target_os = "linux", feature = "capture"))]
        Command::Node(command) => cluster::node(&command),
        Command::Import(options) => import::import(&options, terminal),
        Command::Merge(options) => merge::merge(&options, terminal),
        Command::Check(options) => check::check(&options, terminal, arguments.verbose, arguments.quiet),
        Command::Info(options) => inspect::info(&options),
        Command::Verify(options) => inspect::verify(&options),
        Command::Analyze(options) => replay::analyze(&options, terminal),
        Command::Dump(options) => replay::dump(&options, terminal),
    };
    exit::report(result, terminal)
}

/// Prints help, version, or what is wrong with the arguments.
fn no_arguments(message: &clap::Error) -> ExitCode {
    if message.use_stderr() {
        // It quotes arguments, which may be names that a shell found.
        for line in message.render().to_string().lines() {
            let _ = writeln!(std::io::stderr(), "{}", shown(line));
        }
        return ExitCode::from(2);
    }
    let printed = message.print().and_then(|()| std::io::stdout().flush()).context("standard output can't be written");
    exit::report(printed.map(|()| Done::Whole).map_err(Failure::unwritable), Terminal::plain())
}
