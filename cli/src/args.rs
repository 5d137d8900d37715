//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// The Kubernetes Flight Recorder: record an incident, analyse it anywhere.
#[derive(Debug, Parser)]
#[command(name = "kfr", version, about, max_term_width = 100)]
pub struct Arguments {
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: each probe of a capture, what each stage of a replay took
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Colour on standard error and in help; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// The command line's arguments.
pub fn parse() -> Result<Arguments, clap::Error> {
    let command = Arguments::command().color(color_of_help(std::env::args_os()));
    Arguments::from_arg_matches(&command.try_get_matches()?)
}

/// Help is printed before the arguments are known.
fn color_of_help(arguments: impl Iterator<Item = OsString>) -> clap::ColorChoice {
    let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let given = arguments.iter().enumerate().find_map(|(at, argument)| match argument.strip_prefix("--color") {
        Some("") => arguments.get(at + 1).map(String::as_str),
        Some(value) => value.strip_prefix('='),
        None => None,
    });
    match given {
        Some("always") => clap::ColorChoice::Always,
        Some("never") => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what can be recorded here, probe by probe
    #[cfg(all(target_os = "linux", feature = "capture"))]
    Preflight(PreflightOptions),
    /// Record what the kernel sees into a bundle
    #[cfg(all(target_os = "linux", feature = "capture"))]
    Capture(Box<CaptureOptions>),
    /// What the pods of a cluster capture run
    #[cfg(all(target_os = "linux", feature = "capture"))]
    #[command(hide = true, subcommand)]
    Node(NodeCommand),
    /// Make a bundle of a packet capture
    Import(ImportOptions),
    /// Join bundles, as those of several nodes, into one file that replays as they do together
    Merge(MergeOptions),
    /// Replay every capture in a folder and compare its requests with the golden ones beside it
    Check(CheckArguments),
    /// Show what a bundle holds
    Info(InfoOptions),
    /// Check that a bundle is whole
    Verify(VerifyOptions),
    /// Replay bundles into a report
    Analyze(AnalyzeOptions),
    /// Print what a bundle holds as JSON lines
    Dump(DumpOptions),
}

#[cfg(all(target_os = "linux", feature = "capture"))]
#[derive(Debug, Args)]
pub struct PreflightOptions {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(all(target_os = "linux", feature = "capture"))]
#[derive(Debug, Args)]
pub struct CaptureOptions {
    /// Where the bundle goes: a file, no device, pipe or link; `-` is standard output [default: kfr-HOST-TIME.kfr]
    #[arg(short, long, value_name = "F.kfr")]
    pub output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// How long to record (`30s`, `5m`); without it until Ctrl-C or SIGTERM
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Record this process and its descendants only (repeatable)
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Record this cgroup and those below it only, as a path below /sys/fs/cgroup (repeatable)
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Record this pod of the node only, by name or UID; also containers of it that start later (repeatable)
    #[arg(long, value_name = "NAME|NAMESPACE/NAME|UID")]
    pub pod: Vec<String>,
    /// Record the node's pods in this namespace only; also pods that come later (repeatable)
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// Record this container only, or those of this name, in the pods of --pod and --namespace if these are given; also
    /// some that start later (repeatable)
    #[arg(long, value_name = "ID|NAME")]
    pub container: Vec<String>,
    /// Begin also where nothing of --pod, --namespace and --container is there yet, and record it when it comes
    #[arg(long)]
    pub absent_ok: bool,
    /// Root folder of the node, below which files name its pods and logs are [default: /, in a container with the host's processes
    /// /proc/1/root]
    #[arg(long, value_name = "DIR")]
    pub host_root: Option<PathBuf>,
    /// Record sockets with this local or remote port only (repeatable)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Bytes kept of each call, from its first one on (at most 32KiB); from 4KiB on, 32KiB of what goes to a server
    #[arg(long, default_value = "4KiB", value_parser = size, value_name = "SIZE")]
    pub payload_limit: u64,
    /// Tracepoints that show what sockets move
    #[arg(long, default_value = "auto")]
    pub socket_hook: Hook,
    /// Kubernetes cluster whose objects are recorded: `auto` is the one this runs in, else that of the kubeconfig's current
    /// context, if there is any; `off`; or a context
    #[arg(long, default_value = "auto", value_name = "auto|off|CONTEXT")]
    pub kube: String,
    /// Lines of container logs to record [default: errors; off where --pid, --cgroup or --port narrow what is recorded]
    #[arg(long, value_name = "LINES")]
    pub logs: Option<LogLines>,
    /// Kernel buffer between probes and recorder (a power of two)
    #[arg(long, default_value = "16MiB", value_parser = size, value_name = "SIZE")]
    pub buffer_size: u64,
    /// Largest that the file may get, at least 1MiB; the capture ends before it
    #[arg(long, default_value = "1GiB", value_parser = size_from_1mib, value_name = "SIZE")]
    pub max_size: u64,
    /// Memory that the recorder may use, the kernel buffer included; at least 46MiB more than that
    #[arg(long, default_value = "128MiB", value_parser = size, value_name = "SIZE")]
    pub max_memory: u64,
    /// CPU that the recorder may use, of one core; above it less payload is kept
    #[arg(long, default_value = "10%", value_parser = percent, value_name = "PERCENT")]
    pub max_cpu: u32,
    /// Name of this node in the bundle [default: the host's]
    #[arg(long, value_name = "NAME", conflicts_with = "cluster")]
    pub node_name: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterOptions,
}

/// Recording a whole cluster.
#[cfg(all(target_os = "linux", feature = "capture"))]
#[derive(Debug, Args)]
#[command(next_help_heading = "Whole clusters")]
pub struct ClusterOptions {
    /// Record every node of the cluster that --kube names, with a pod on each, into one file
    #[arg(long)]
    pub cluster: bool,
    /// Nodes with these labels only, as in `zone=a,disk!=slow`
    #[arg(long, value_name = "SELECTOR", requires = "cluster")]
    pub nodes: Option<String>,
    /// Container image with this program, of deploy/Containerfile
    #[arg(long, requires = "cluster")]
    pub image: Option<String>,
    /// Namespace that the recording pods are put in [default: the context's]
    #[arg(long, value_name = "NAMESPACE", requires = "cluster")]
    pub run_in: Option<String>,
    /// How long pods may take to start; recording begins on all nodes at once, without those that are late
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub ready_timeout: Duration,
    /// Give the pods all privileges, where a runtime doesn't know the capabilities they need
    #[arg(long, requires = "cluster")]
    pub privileged: bool,
    /// Print what would be created as YAML (`-o yaml` may be said), and create nothing
    #[arg(long, requires = "cluster")]
    pub dry_run: bool,
}

#[cfg(all(target_os = "linux", feature = "capture"))]
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Wait to be told to begin, record, keep the bundle
    Run {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long, value_parser = duration)]
        wait: Duration,
        #[arg(long, value_parser = duration)]
        hold: Duration,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Begin recording
    Begin {
        #[arg(long)]
        folder: PathBuf,
    },
    /// End recording early
    End {
        #[arg(long)]
        folder: PathBuf,
    },
    /// Write the bundle to standard output
    Send {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long, default_value = "0")]
        from: u64,
    },
    /// The bundle is fetched
    Fetched {
        #[arg(long)]
        folder: PathBuf,
    },
}

#[cfg(all(target_os = "linux", feature = "capture"))]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Hook {
    /// `sock` where the kernel has it, else `syscall`
    Auto,
    /// Where a socket's send or receive returns (kernel 6.3 and later)
    Sock,
    /// Where system calls return
    Syscall,
}

#[cfg(all(target_os = "linux", feature = "capture"))]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum LogLines {
    /// None: nothing is read
    Off,
    /// Warnings, errors and their stack traces
    Errors,
    /// All, within bounds
    All,
}

#[cfg(all(target_os = "linux", feature = "capture"))]
impl LogLines {
    /// As it is given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Errors => "errors",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Args)]
pub struct ImportOptions {
    /// The capture, pcap or pcapng; `-` is standard input. Without it, what Kubernetes said is imported alone
    #[arg(value_name = "X.pcap", required_unless_present = "kube")]
    pub capture: Option<PathBuf>,
    /// Folder with what Kubernetes said at the time: lists (`kubectl get KIND -A -o json`; a name with `before` or `after`
    /// in it is the state at the capture's start or end), watch streams (*.ndjson), logs of pods (`kubectl logs --timestamps`,
    /// as POD.CONTAINER.log)
    #[arg(long, value_name = "DIR")]
    pub kube: Option<PathBuf>,
    /// Where the bundle goes: a file, no device, pipe or link; `-` is standard output
    #[arg(short, long, value_name = "F.kfr")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct MergeOptions {
    /// Bundles
    #[arg(required = true, value_name = "F.kfr")]
    pub bundles: Vec<PathBuf>,
    /// Where they go: a file, no device, pipe or link; `-` is standard output
    #[arg(short, long, value_name = "F.kfr")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Folder with bundles (*.kfr) and packet captures (*.pcap, *.pcapng, *.cap); the golden requests of NAME.kfr are in
    /// NAME.requests.jsonl
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Take what is found now as golden
    #[arg(long)]
    pub bless: bool,
    /// Captures to replay at once, at most 64 [default: one a core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Take what a server's port speaks for this protocol instead of detecting it (repeatable)
    #[arg(long, value_name = "PORT=PROTOCOL", value_parser = port_hint)]
    pub port_hint: Vec<(u16, u16)>,
    /// Show the first bytes of what changed; golden files stay masked
    #[arg(long)]
    pub literals: bool,
}

#[derive(Debug, Args)]
pub struct InfoOptions {
    /// The bundle
    pub bundle: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct VerifyOptions {
    /// The bundle
    pub bundle: PathBuf,
}

/// What replay may use, the same for every command that replays.
#[derive(Debug, Args)]
pub struct ReplayOptions {
    /// Bundles; several are several nodes of one incident
    #[arg(required = true, value_name = "F.kfr")]
    pub bundles: Vec<PathBuf>,
    /// Memory to use, at least 1MiB; changes time, never a result
    #[arg(long, default_value = "1GiB", value_parser = size_from_1mib, value_name = "SIZE")]
    pub memory: u64,
    /// Folder for what doesn't fit into memory [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub tmp: Option<PathBuf>,
    /// Threads to use, at most 64; changes time, never a result [default: one a core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Take what a server's port speaks for this protocol instead of detecting it (repeatable)
    #[arg(long, value_name = "PORT=PROTOCOL", value_parser = port_hint)]
    pub port_hint: Vec<(u16, u16)>,
    /// Show values (SQL literals, query strings, command-line secrets) instead of masking them
    #[arg(long)]
    pub literals: bool,
}

#[derive(Debug, Args)]
pub struct AnalyzeOptions {
    #[command(flatten)]
    pub replay: ReplayOptions,
    /// Folder for report.html, report.json, summary.md and svg/
    #[arg(short, long, value_name = "DIR", required_unless_present = "single")]
    pub output: Option<PathBuf>,
    /// Write the report as this one HTML file; `-` is standard output
    #[arg(long, value_name = "FILE.html")]
    pub single: Option<PathBuf>,
    /// Sum requests up by the values of this label of the pods that answered (repeatable)
    #[arg(long, value_name = "LABEL")]
    pub group_by: Vec<String>,
}

#[derive(Debug, Args)]
pub struct DumpOptions {
    #[command(flatten)]
    pub replay: ReplayOptions,
    #[command(flatten)]
    pub what: DumpWhat,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct DumpWhat {
    /// Requests, in the order in which they began
    #[arg(long)]
    pub requests: bool,
    /// Connections, in the order in which they were first seen
    #[arg(long)]
    pub connections: bool,
    /// SQL statements by fingerprint, by total time
    #[arg(long)]
    pub sql: bool,
    /// Lines of container logs, by time; secrets in them were masked when they were recorded
    #[arg(long)]
    pub logs: bool,
    /// Events as recorded; their payload only with --literals
    #[arg(long)]
    pub events: bool,
    /// The event at an address, as in a request's evidence; its payload only with --literals
    #[arg(long, value_name = "ORIGIN.BLOCK:ROW")]
    pub at: Option<String>,
}

/// `30s`, `5m`, `2h`, `500ms`.
#[cfg_attr(not(feature = "capture"), allow(dead_code))]
fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: u64 = number.parse().map_err(|_| "expected a number and a unit, as in 30s or 5m".to_string())?;
    let unit_ms = match text.get(number.len()..) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        _ => return Err("expected one of the units ms, s, m, h, as in 30s".to_string()),
    };
    let ms = value.checked_mul(unit_ms).filter(|ms| *ms > 0);
    ms.map(Duration::from_millis).ok_or_else(|| "expected a duration above 0".to_string())
}

/// `4096`, `4KiB`, `16MiB`, `1GiB`.
fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: u64 = number.parse().map_err(|_| "expected a size, as in 4KiB or 16MiB".to_string())?;
    let unit: u64 = match text.get(number.len()..).unwrap_or_default() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err("expected one of the units B, KiB, MiB, GiB, TiB".to_string()),
    };
    value.checked_mul(unit).ok_or_else(|| "the size is too large".to_string())
}

/// A size that isn't absurdly small.
fn size_from_1mib(text: &str) -> Result<u64, String> {
    size(text).and_then(|size| if size < 1 << 20 { Err("the smallest is 1MiB".to_string()) } else { Ok(size) })
}

/// A number of threads.
fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a number of threads, at least 1".to_string())
}

/// `6033=mysql`: a port and the number of a protocol in the registry.
fn port_hint(text: &str) -> Result<(u16, u16), String> {
    let (port, name) = text.split_once('=').ok_or("expected a port and a protocol, as in 6033=mysql")?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or("expected a port from 1 to 65535 before the =")?;
    let known = || {
        let names: Vec<&str> = kfr_analyze::REGISTRY.iter().map(|protocol| protocol.name).collect();
        format!("the protocols are {}", names.join(", "))
    };
    let (number, _) = kfr_analyze::protocol_named(name).ok_or_else(known)?;
    Ok((port, number))
}

/// `10%` or `10`.
#[cfg_attr(not(feature = "capture"), allow(dead_code))]
fn percent(text: &str) -> Result<u32, String> {
    let value = text.strip_suffix('%').unwrap_or(text);
    value.parse().ok().filter(|value| *value > 0).ok_or_else(|| "expected a percentage above 0, as in 10%".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("5").is_err() && duration("s").is_err() && duration("0s").is_err());
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert!(size("4kB").is_err() && size("99999999999GiB").is_err());
        assert_eq!(percent("10%"), Ok(10));
        assert!(percent("0").is_err() && percent("much").is_err());
        assert_eq!(size_from_1mib("1MiB"), Ok(1 << 20));
        assert!(size_from_1mib("1023KiB").unwrap_err().contains("1MiB"));
        assert_eq!(threads("100000"), Ok(100_000));
        assert_eq!(port_hint("6033=mysql"), Ok((6033, kfr_analyze::protocol_named("mysql").unwrap().0)));
        assert!(port_hint("0=mysql").is_err() && port_hint("mysql").is_err());
        assert!(port_hint("80=gopher").unwrap_err().contains("http"));
        assert!(threads("0").unwrap_err().contains("at least 1") && threads("-1").is_err());
    }

    #[test]
    fn help_takes_its_colour_from_the_arguments() {
        let color = |line: &str| color_of_help(line.split(' ').map(OsString::from));
        assert_eq!(color("kfr --help"), clap::ColorChoice::Auto);
        assert_eq!(color("kfr --color never --help"), clap::ColorChoice::Never);
        assert_eq!(color("kfr --help --color=always"), clap::ColorChoice::Always);
        assert_eq!(color("kfr --color"), clap::ColorChoice::Auto);
    }
}
