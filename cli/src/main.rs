//! `kfr`: the command line over the libraries. Arguments in, exit codes out, no logic.

mod args;
#[cfg(all(target_os = "linux", feature = "capture"))]
mod capture;
mod exit;
mod inspect;
mod replay;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        #[cfg(all(target_os = "linux", feature = "capture"))]
        Command::Preflight(options) => capture::preflight(&options),
        #[cfg(all(target_os = "linux", feature = "capture"))]
        Command::Capture(options) => capture::capture(&options, arguments.quiet),
        Command::Info(options) => inspect::info(&options),
        Command::Verify(options) => inspect::verify(&options),
        Command::Analyze(options) => replay::analyze(&options, arguments.quiet),
        Command::Dump(options) => replay::dump(&options),
    };
    exit::report(result)
}
