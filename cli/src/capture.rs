//! `kfr preflight` and `kfr capture`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use kfr_capture::{Destination, End, MAX_PAYLOAD_LIMIT, Options, Outcome, SocketHook};

use crate::args::{CaptureOptions, Hook, PreflightOptions};
use crate::exit::{Done, Failure};

/// Smallest kernel buffer: below it a single burst of large messages would overrun it.
const MIN_BUFFER_BYTES: u64 = 64 << 10;

pub fn preflight(options: &PreflightOptions) -> Result<Done, Failure> {
    let answer = kfr_capture::preflight();
    let mut out = std::io::stdout().lock();
    let printed = if options.json {
        serde_json::to_string_pretty(&answer).map_err(anyhow::Error::from).and_then(|text| Ok(writeln!(out, "{text}")?))
    } else {
        print_preflight(&answer, &mut out).map_err(anyhow::Error::from)
    };
    printed.map_err(Failure::unreadable)?;
    match answer.reason {
        None => Ok(Done::Whole),
        Some(reason) => Err(Failure::not_permitted(anyhow!("no capture is possible here: {reason}"))),
    }
}

fn print_preflight(answer: &kfr_capture::Preflight, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "kernel       {}", answer.kernel)?;
    if let Some(hook) = answer.socket_hook {
        writeln!(out, "socket hook  {hook}")?;
    }
    for probe in &answer.probes {
        if probe.attached {
            writeln!(out, "  ok       {}", probe.name)?;
        } else {
            writeln!(out, "  missing  {}: {}; without it the report lacks {}", probe.name, probe.reason, probe.costs)?;
        }
    }
    for note in &answer.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

pub fn capture(options: &CaptureOptions, quiet: bool) -> Result<Done, Failure> {
    let options = checked(options)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .context("installing a signal handler")
            .map_err(Failure::not_permitted)?;
    }
    if !quiet && std::io::stderr().is_terminal() {
        eprintln!("recording; Ctrl-C ends it");
    }
    let outcome = kfr_capture::capture(&options, &stop).map_err(classify)?;
    if !quiet {
        summarise(&outcome);
    }
    if let Some(failure) = &outcome.write_failure {
        eprintln!("kfr: recording ended early: {failure}; what was written until then is a whole bundle");
    }
    let lost = outcome.counters.lost > 0 || outcome.rows_not_written > 0;
    Ok(if lost || outcome.write_failure.is_some() { Done::WithLosses } else { Done::Whole })
}

/// An error before recording began: what is to be recorded, the file, or the kernel.
fn classify(error: anyhow::Error) -> Failure {
    if error.is::<kfr_capture::NoSuchTarget>() {
        return Failure::usage(error);
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<kfr_bundle::WriteError>()) {
        Some(kfr_bundle::WriteError::Exists { .. }) => Failure::usage(error),
        Some(_) => Failure::unwritable(error),
        None => Failure::not_permitted(error),
    }
}

fn checked(options: &CaptureOptions) -> Result<Options, Failure> {
    let destination = match &options.output {
        Some(path) if path.as_os_str() == "-" => Destination::Stdout,
        Some(path) => Destination::File { path: path.clone(), force: options.force },
        None => Destination::File { path: default_name(), force: options.force },
    };
    if destination == Destination::Stdout && std::io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a bundle is not for a terminal; redirect standard output or name a file")));
    }
    let buffer_bytes = u32::try_from(options.buffer_size)
        .ok()
        .filter(|size| size.is_power_of_two() && u64::from(*size) >= MIN_BUFFER_BYTES)
        .ok_or_else(|| {
            Failure::usage(anyhow!("--buffer-size must be a power of two from 64KiB to 2GiB, as in 16MiB"))
        })?;
    let payload_limit = u32::try_from(options.payload_limit)
        .ok()
        .filter(|limit| *limit <= MAX_PAYLOAD_LIMIT)
        .ok_or_else(|| Failure::usage(anyhow!("--payload-limit can be at most 32KiB")))?;
    Ok(Options {
        destination,
        duration: options.duration,
        processes: options.pid.clone(),
        cgroups: options.cgroup.clone(),
        ports: options.port.clone(),
        payload_limit,
        socket_hook: match options.socket_hook {
            Hook::Auto => SocketHook::Auto,
            Hook::Sock => SocketHook::Sock,
            Hook::Syscall => SocketHook::Syscall,
        },
        buffer_bytes,
        max_size: options.max_size,
        max_memory: options.max_memory,
        max_cpu_percent: options.max_cpu,
    })
}

/// `kfr-HOST-TIME.kfr`, TIME in seconds since 1970.
fn default_name() -> PathBuf {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    PathBuf::from(format!("kfr-{host}-{seconds}.kfr"))
}

fn summarise(outcome: &Outcome) {
    let name = outcome.summary.path.as_ref().map_or("standard output".to_string(), |path| path.display().to_string());
    eprintln!(
        "{name}: {} events in {} KiB ({} hook, {:.1}% of one core)",
        outcome.rows,
        outcome.summary.bytes.div_ceil(1024),
        outcome.hook,
        outcome.cpu_percent,
    );
    if outcome.end == End::MaxSize {
        eprintln!("the capture ended because the file reached --max-size");
    }
    if outcome.payload_shrunk_by_limit {
        eprintln!("less payload was kept for a while, to stay below --max-cpu or --max-size");
    }
    if outcome.counters.lost > 0 {
        eprintln!(
            "{} events were lost because the kernel buffer was full; try a larger --buffer-size",
            outcome.counters.lost
        );
    }
    if outcome.counters.shrunk > 0 {
        eprintln!(
            "{} messages were kept in part only, because the kernel buffer was filling up",
            outcome.counters.shrunk
        );
    }
    eprintln!("it holds raw payload of every recorded socket: give it only to those who may see that traffic");
}
