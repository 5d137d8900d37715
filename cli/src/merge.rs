//! `kfr merge`.

use std::io::{self, IsTerminal};

use anyhow::anyhow;
use kfr_bundle::{Condition, FileHeader, MergeError, Reader, WriteError, Writer};

use crate::args::MergeOptions;
use crate::exit::{Done, Failure};
use crate::inspect::verdict;
use crate::target;
use crate::terminal::Terminal;

pub fn merge(options: &MergeOptions, terminal: Terminal) -> Result<Done, Failure> {
    let on_stdout = options.output.as_os_str() == "-";
    if on_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a bundle is not for a terminal; redirect standard output or name a file")));
    }
    if !on_stdout {
        target::file(&options.output, &options.bundles)?;
    }
    let mut parts = Vec::new();
    let mut whole = true;
    for path in &options.bundles {
        let opened = Reader::open(path).and_then(Reader::parts);
        let opened = opened.map_err(|error| {
            Failure::unreadable(anyhow::Error::from(error).context(format!("{} can't be read", path.display())))
        })?;
        for part in &opened {
            let condition = Condition::of(part, part.damage());
            if condition != Condition::Whole {
                whole = false;
                terminal.say(format_args!("{}: {}", path.display(), verdict(condition)));
            }
        }
        parts.extend(opened);
    }
    let count = parts.len();
    let writer = |header: &FileHeader| {
        if on_stdout {
            Writer::to_stream(Box::new(io::stdout()), header)
        } else {
            Writer::create(&options.output, header, options.force)
        }
    };
    let summary = kfr_bundle::merge(&parts, writer).map_err(|error| match error {
        MergeError::Twice(_) | MergeError::Count(_) | MergeError::Write(WriteError::Exists { .. }) => {
            Failure::usage(error)
        }
        MergeError::Read(_) => Failure::unreadable(error),
        MergeError::Write(error) => Failure::unwritable(error),
    })?;
    let output = if on_stdout { "standard output".to_string() } else { options.output.display().to_string() };
    terminal.say(format_args!("{output}: {count} bundles in {} KiB", summary.bytes.div_ceil(1024)));
    Ok(if whole { Done::Whole } else { Done::WithLosses })
}
