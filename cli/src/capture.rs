//! `kfr preflight` and `kfr capture`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use kfr_bundle::Summary;
use kfr_capture::kube::{Cluster, KubeSource};
use kfr_capture::logs::Lines;
use kfr_capture::{Destination, End, MAX_PAYLOAD_LIMIT, Options, Outcome, SocketHook};

use crate::args::{CaptureOptions, Hook, LogLines, PreflightOptions};
use crate::exit::{Done, Failure, is_closed_pipe};
use crate::target;
use crate::terminal::{Terminal, json_output, shown, text_output};

/// Smallest kernel buffer: below it a single burst of large messages would overrun it.
const MIN_BUFFER_BYTES: u64 = 64 << 10;

pub fn preflight(options: &PreflightOptions) -> Result<Done, Failure> {
    let answer = kfr_capture::preflight();
    let printed = if options.json {
        let text = serde_json::to_string_pretty(&answer).map_err(Failure::unwritable)?;
        let mut out = json_output();
        writeln!(out, "{text}").and_then(|()| out.flush())
    } else {
        let mut out = text_output();
        print_preflight(&answer, &mut out).and_then(|()| out.flush())
    };
    printed.map_err(Failure::unwritable)?;
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
            let reason = shown(&probe.reason);
            writeln!(out, "  missing  {}: {reason}; without it the report lacks {}", probe.name, probe.costs)?;
        }
    }
    for note in &answer.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

pub fn capture(options: &CaptureOptions, terminal: Terminal) -> Result<Done, Failure> {
    if options.cluster.cluster {
        return crate::cluster::capture(options, terminal);
    }
    let mut recording = checked(options)?;
    recording.kube = cluster(&options.kube, terminal)?;
    let options = recording;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .context("installing a signal handler")
            .map_err(Failure::not_permitted)?;
    }
    if std::io::stderr().is_terminal() {
        terminal.say("recording; Ctrl-C ends it");
    }
    let outcome = kfr_capture::capture(&options, &stop).map_err(classify)?;
    if outcome.failure.as_ref().is_some_and(is_closed_pipe) {
        return Ok(Done::Whole);
    }
    summarise(&outcome, terminal);
    if let Some(failure) = &outcome.failure {
        terminal.error(format_args!("recording ended early: {failure:#}; {}", what_remains(&outcome.summary)));
    }
    let lost = outcome.counters.lost > 0 || outcome.rows_not_written > 0;
    Ok(if lost || outcome.failure.is_some() { Done::WithLosses } else { Done::Whole })
}

/// The cluster that is asked. Without one that was named, what can't be used is said, and the node is recorded.
fn cluster(given: &str, terminal: Terminal) -> Result<Option<Cluster>, Failure> {
    let source = match given {
        "auto" => KubeSource::Auto,
        "off" => KubeSource::Off,
        context => KubeSource::Context(context.to_string()),
    };
    match Cluster::find(&source) {
        Ok(found) => {
            let cluster = found.as_ref().map_or("none", |cluster| &cluster.found);
            terminal.detail(format_args!("Kubernetes: {cluster}"));
            Ok(found)
        }
        Err(error) if source == KubeSource::Auto => {
            terminal.say(format_args!("without Kubernetes: {error:#}; --kube off says that this is meant"));
            Ok(None)
        }
        Err(error) => Err(Failure::usage(error)),
    }
}

/// What there is of a recording that ended early.
fn what_remains(summary: &Summary) -> String {
    match &summary.path {
        Some(path) if summary.footer => format!("what was recorded until then is whole in {}", path.display()),
        Some(path) => format!("what was recorded until then can be read from {}", path.display()),
        None => "what reached standard output until then can be read".to_string(),
    }
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

/// `16MiB`, `1500KiB`, `7`: as sizes are given.
fn as_given(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or(bytes.to_string(), |(size, unit)| format!("{}{unit}", bytes / size))
}

pub fn checked(options: &CaptureOptions) -> Result<Options, Failure> {
    let destination = match &options.output {
        Some(path) if path.as_os_str() == "-" => Destination::Stdout,
        Some(path) => Destination::File { path: path.clone(), force: options.force },
        None => Destination::File { path: default_name(), force: options.force },
    };
    if destination == Destination::Stdout && std::io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a bundle is not for a terminal; redirect standard output or name a file")));
    }
    if let Destination::File { path, .. } = &destination {
        target::file(path, &[])?;
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
    let least = kfr_capture::minimum_memory(u64::from(buffer_bytes));
    if options.max_memory < least {
        return Err(Failure::usage(anyhow!(
            "--max-memory {} is too little for --buffer-size {}: the buffer and the recorder need {}",
            as_given(options.max_memory),
            as_given(options.buffer_size),
            as_given(least)
        )));
    }
    let narrowed = !(options.pid.is_empty() && options.cgroup.is_empty() && options.port.is_empty());
    Ok(Options {
        destination,
        duration: options.duration,
        processes: options.pid.clone(),
        cgroups: options.cgroup.clone(),
        pods: options.pod.clone(),
        namespaces: options.namespace.clone(),
        containers: options.container.clone(),
        host_root: options.host_root.clone().unwrap_or_else(kfr_capture::host_root),
        absent_ok: options.absent_ok,
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
        kube: None,
        node_name: options.node_name.clone(),
        logs: match options.logs {
            Some(LogLines::Off) => Lines::Off,
            Some(LogLines::Errors) => Lines::Errors,
            Some(LogLines::All) => Lines::All,
            // What other programs write is none of a narrowed recording's business.
            None if narrowed => Lines::Off,
            None => Lines::default(),
        },
    })
}

/// `kfr-HOST-TIME.kfr`, TIME in seconds since 1970.
pub fn default_name() -> PathBuf {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    PathBuf::from(format!("kfr-{host}-{seconds}.kfr"))
}

fn summarise(outcome: &Outcome, terminal: Terminal) {
    for probe in &outcome.probes {
        let state = if probe.attached { "attached" } else { &probe.reason };
        terminal.detail(format_args!("{}: {state}", probe.name));
    }
    let counters = &outcome.counters;
    terminal.detail(format_args!("{} events numbered by the probes", counters.events));
    let name = outcome.summary.path.as_ref().map_or("standard output".to_string(), |path| path.display().to_string());
    terminal.say(format_args!(
        "{name}: {} events in {} KiB ({} hook, {:.1}% of one core)",
        outcome.rows,
        outcome.summary.bytes.div_ceil(1024),
        outcome.hook,
        outcome.cpu_percent,
    ));
    if let Some(kube) = &outcome.kube {
        terminal.say(format_args!("{} Kubernetes objects and changes", kube.objects));
        for (kind, reason) in &kube.blind {
            terminal.detail(shown(&format!("{kind}: not seen at the end: {reason}")));
        }
        if let Some((kind, reason)) = kube.blind.first_key_value() {
            let others = match kube.blind.len() {
                1 => String::new(),
                kinds => format!(" and {} more kinds", kinds - 1),
            };
            terminal.say(shown(&format!("not seen at the end: {kind}{others}: {reason}")));
        }
    }
    if outcome.end == End::MaxSize {
        terminal.say("the capture ended because the file reached --max-size");
    }
    if outcome.payload_shrunk_by_limit {
        terminal.say("less payload was kept for a while, to stay below --max-cpu or --max-size");
    }
    if counters.lost > 0 {
        terminal.say(format_args!(
            "{} events were lost because the kernel buffer was full; try a larger --buffer-size",
            counters.lost
        ));
    }
    if counters.shrunk > 0 {
        terminal.say(format_args!(
            "{} messages were kept in part only, because the kernel buffer was filling up",
            counters.shrunk
        ));
    }
    terminal.say("it holds raw payload of every recorded socket: give it only to those who may see that traffic");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_they_are_given() {
        assert_eq!([1 << 30, 62 << 20, 1 << 10, 1500, 0].map(as_given), ["1GiB", "62MiB", "1KiB", "1500", "0"]);
    }

    #[test]
    fn what_remains_is_not_called_whole_unless_it_is() {
        let mut summary = Summary { path: Some("x.kfr".into()), blocks: 1, bytes: 2000, raw_bytes: 1, footer: true };
        assert!(what_remains(&summary).contains("whole in x.kfr"));
        summary.footer = false;
        assert!(!what_remains(&summary).contains("whole"));
        summary.path = None;
        assert!(!what_remains(&summary).contains("whole"));
    }
}
