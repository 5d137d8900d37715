//! Exit codes, as scripts may rely on them.

use std::io;
use std::process::ExitCode;

use kfr_bundle::OpenError;

use crate::terminal::Terminal;

/// How a command ended, where that isn't an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Code 0.
    Whole,
    /// Code 1: what was to be judged is not as it should be.
    WithDifferences,
    /// Code 3: done, but the input was damaged or events were lost.
    WithLosses,
}

/// An error with the exit code that it ends in.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: anyhow::Error,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Usage,
    Unwritable,
    Unreadable,
    #[cfg_attr(not(feature = "capture"), allow(dead_code))]
    NotPermitted,
}

impl Failure {
    /// Code 2: the command line asks for something that can't be.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { kind: Kind::Usage, error: error.into() }
    }

    /// Code 4: the input can't be read.
    pub fn unreadable(error: impl Into<anyhow::Error>) -> Self {
        Self { kind: Kind::Unreadable, error: error.into() }
    }

    /// Code 2: the output can't be written where it was asked for.
    pub fn unwritable(error: impl Into<anyhow::Error>) -> Self {
        Self { kind: Kind::Unwritable, error: error.into() }
    }

    /// Code 5: privileges or the kernel don't permit it.
    #[cfg_attr(not(feature = "capture"), allow(dead_code))]
    pub fn not_permitted(error: impl Into<anyhow::Error>) -> Self {
        Self { kind: Kind::NotPermitted, error: error.into() }
    }

    fn code(&self) -> u8 {
        match self.kind {
            Kind::Usage | Kind::Unwritable => 2,
            Kind::Unreadable => 4,
            Kind::NotPermitted => 5,
        }
    }

    /// The error in one sentence.
    pub fn sentence(&self) -> String {
        format!("{:#}", self.error)
    }

    /// What to do about it, where the system's word for it tells.
    fn advice(&self) -> Option<&'static str> {
        match (self.kind, io_kind(&self.error)?) {
            (Kind::Unreadable, io::ErrorKind::NotFound) => Some("check its name"),
            (Kind::Unreadable, io::ErrorKind::PermissionDenied) => {
                Some("bundles are for their owner only: read it as its owner or as root")
            }
            (Kind::Unreadable, _) => Some("copy it to another disk and try again"),
            (Kind::Unwritable, io::ErrorKind::NotFound) => Some("make the folder first"),
            (Kind::Unwritable, io::ErrorKind::AlreadyExists) => Some("choose another name"),
            (Kind::Unwritable, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Some("make room or choose another place")
            }
            (Kind::Unwritable, _) => Some("choose a place that can be written"),
            (Kind::Usage | Kind::NotPermitted, _) => None,
        }
    }
}

/// What the system called an error, if it comes from there.
fn io_kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| match cause.downcast_ref::<OpenError>() {
        Some(OpenError::Io(error)) => Some(error.kind()),
        _ => cause.downcast_ref::<io::Error>().map(io::Error::kind),
    })
}

/// Whether nobody reads the output any more, which is no error.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    io_kind(error) == Some(io::ErrorKind::BrokenPipe)
}

/// Ends the process: prints an error as one sentence; a closed pipe is none.
pub fn report(result: Result<Done, Failure>, terminal: Terminal) -> ExitCode {
    match result {
        Ok(Done::Whole) => ExitCode::SUCCESS,
        Ok(Done::WithDifferences) => ExitCode::from(1),
        Ok(Done::WithLosses) => ExitCode::from(3),
        Err(failure) if is_closed_pipe(&failure.error) => ExitCode::SUCCESS,
        Err(failure) => {
            let advice = failure.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            terminal.error(format_args!("{:#}{advice}", failure.error));
            ExitCode::from(failure.code())
        }
    }
}
