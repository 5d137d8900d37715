//! `kfr import`.

use std::fs::File;
use std::io::{self, IsTerminal, Seek};
use std::path::Path;

use anyhow::{Context, anyhow};
use kfr_bundle::{FileHeader, WriteError, Writer};
use kfr_import::kube::KubeFiles;
use kfr_import::{Error, FileEnd, Summary};

use crate::args::ImportOptions;
use crate::exit::{Done, Failure};
use crate::target;
use crate::terminal::Terminal;

pub fn import(options: &ImportOptions, terminal: Terminal) -> Result<Done, Failure> {
    let on_stdout = options.output.as_os_str() == "-";
    if on_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a bundle is not for a terminal; redirect standard output or name a file")));
    }
    if !on_stdout {
        target::file(&options.output, options.capture.as_slice())?;
    }
    let writer = |header: &FileHeader| {
        if on_stdout {
            Writer::to_stream(Box::new(io::stdout()), header)
        } else {
            Writer::create(&options.output, header, options.force)
        }
    };
    let kube = options.kube.as_deref().map(KubeFiles::read).transpose().map_err(Failure::unreadable)?;
    let (imported, name) = match (&options.capture, kube) {
        (None, Some(files)) => {
            let folder = options.kube.as_deref().and_then(Path::file_name).unwrap_or_default();
            let name = folder.to_string_lossy().into_owned();
            (kfr_import::import_kube(files, &name, writer), name)
        }
        (capture, kube) => {
            let (capture, name) = open(capture.as_deref().unwrap_or(Path::new("-")))?;
            (kfr_import::import_with_kube(capture, &name, kube, writer), name)
        }
    };
    let summary = imported.map_err(|error| classify(error, &name))?;
    summarise(&summary, options, &name, terminal);
    Ok(if summary.has_losses() { Done::WithLosses } else { Done::Whole })
}

/// Imports one capture for a check: what is wrong with it comes back as a sentence.
pub fn import_quietly(capture: &Path, bundle: &Path) -> Result<Option<String>, String> {
    let (file, name) = open(capture).map_err(|failure| failure.sentence())?;
    let imported = kfr_import::import(file, &name, |header| Writer::create(bundle, header, false));
    let summary = imported.map_err(|error| classify(error, &name).sentence())?;
    Ok(match summary.end {
        FileEnd::Whole => None,
        FileEnd::Truncated => Some("the capture is truncated; what comes before its end was compared".to_string()),
        FileEnd::Damaged => Some("the capture is damaged; what comes before that place was compared".to_string()),
    })
}

/// Opens a capture so that it can be read twice, and names it.
fn open(path: &Path) -> Result<(File, String), Failure> {
    let on_stdin = path.as_os_str() == "-";
    let name = if on_stdin { Path::new("standard input") } else { path };
    let unreadable = |error: io::Error| {
        Failure::unreadable(anyhow::Error::from(error).context(format!("{} can't be read", name.display())))
    };
    let spooled = |input: &mut dyn io::Read| -> Result<File, Failure> {
        let mut spool =
            tempfile::tempfile().context("the temporary folder can't be written").map_err(Failure::unwritable)?;
        io::copy(input, &mut spool).map_err(unreadable)?;
        spool.rewind().map_err(unreadable)?;
        Ok(spool)
    };
    if on_stdin {
        return Ok((spooled(&mut io::stdin().lock())?, name.display().to_string()));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if found.is_dir() {
        return Err(Failure::unreadable(anyhow!("{} is a folder; name a pcap or pcapng file", path.display())));
    }
    // A pipe is read once.
    let file = if found.is_file() { file } else { spooled(&mut file)? };
    Ok((file, name))
}

fn classify(error: Error, name: &str) -> Failure {
    match error {
        Error::NotACapture => Failure::unreadable(anyhow!("{name} is no pcap or pcapng file; name a packet capture")),
        Error::Read(source) => {
            Failure::unreadable(anyhow::Error::from(source).context(format!("{name} can't be read")))
        }
        Error::Write(source @ WriteError::Exists { .. }) => Failure::usage(source),
        Error::Write(source) => Failure::unwritable(source),
    }
}

fn summarise(summary: &Summary, options: &ImportOptions, name: &str, terminal: Terminal) {
    let counters = &summary.counters;
    let output = if options.output.as_os_str() == "-" {
        "standard output".to_string()
    } else {
        options.output.display().to_string()
    };
    for (counter, value) in counters.named() {
        terminal.detail(format_args!("{counter}: {value}"));
    }
    let bundle_kib = summary.bundle.bytes.div_ceil(1024);
    if options.capture.is_none() {
        terminal.say(format_args!("{output}: {bundle_kib} KiB"));
        return kubernetes(summary, terminal);
    }
    terminal.say(format_args!(
        "{output}: {} TCP connections and {} UDP flows from {} packets, {} events in {} KiB",
        counters.tcp_connections, counters.udp_flows, counters.packets, counters.events, bundle_kib,
    ));
    kubernetes(summary, terminal);
    match summary.end {
        FileEnd::Whole => {}
        FileEnd::Truncated => {
            terminal.say(format_args!("{name} is truncated; what comes before its end is in the bundle"))
        }
        FileEnd::Damaged => {
            terminal.say(format_args!("{name} is damaged; what comes before that place is in the bundle"))
        }
    }
    let unread = counters.packets_unknown_link + counters.packets_unreadable + counters.packets_truncated;
    if unread > 0 {
        terminal.say(format_args!(
            "{unread} of {} packets could not be read: {} of an unknown link type, {} cut off within their headers, {} else",
            counters.packets,
            counters.packets_unknown_link,
            counters.packets_truncated,
            counters.packets_unreadable
        ));
    }
    if counters.segments_missing_bytes > 0 {
        terminal.say(format_args!(
            "{} bytes of TCP streams are missing from the capture, in {} places",
            counters.segments_missing_bytes, counters.gaps
        ));
    }
    if counters.payload_snapped_bytes > 0 {
        terminal.say(format_args!(
            "the capture kept only the beginning of packets: {} bytes are missing; try a larger snapshot length",
            counters.payload_snapped_bytes
        ));
    }
    terminal.say("it holds raw payload of every captured connection: give it only to those who may see that traffic");
}

fn kubernetes(summary: &Summary, terminal: Terminal) {
    let Some(kube) = &summary.kube else { return };
    for (counter, value) in kube.named() {
        terminal.detail(format_args!("{counter}: {value}"));
    }
    terminal.say(format_args!(
        "{} Kubernetes objects and changes; {} objects of other kinds and {} other files were left out",
        kube.rows, kube.objects_skipped, kube.files_skipped
    ));
}
