//! Exit codes, as scripts may rely on them.

use std::io;
use std::process::ExitCode;

/// How a command ended, where that isn't an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Code 0.
    Whole,
    /// Code 3: done, but the input was damaged or events were lost.
    WithLosses,
}

/// An error with the exit code that it ends in.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// Code 2: the command line asks for something that can't be.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// Code 4: the input can't be read.
    pub fn unreadable(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 4, error: error.into() }
    }

    /// Code 2: the output can't be written where it was asked for.
    pub fn unwritable(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// Code 5: privileges or the kernel don't permit it.
    #[cfg_attr(not(feature = "capture"), allow(dead_code))]
    pub fn not_permitted(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 5, error: error.into() }
    }
}

/// Ends the process: prints an error as one sentence; a closed pipe is none.
pub fn report(result: Result<Done, Failure>) -> ExitCode {
    match result {
        Ok(Done::Whole) => ExitCode::SUCCESS,
        Ok(Done::WithLosses) => ExitCode::from(3),
        Err(failure) => {
            let closed_pipe = failure.error.chain().any(|cause| {
                cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            });
            if closed_pipe {
                return ExitCode::SUCCESS;
            }
            eprintln!("kfr: {:#}", failure.error);
            ExitCode::from(failure.code)
        }
    }
}
