//! `kfr capture --cluster`, and what its pods run.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kfr_bundle::{Condition, FileHeader, Reader, Writer};
use kfr_capture::cluster::{self, Gathered, NoNodes, NodeOutcome, Plan, Recording, Tell};
use kfr_capture::kube::{Cluster, KubeSource};

use crate::args::{CaptureOptions, NodeCommand};
use crate::exit::{Done, Failure};
use crate::inspect::verdict;
use crate::target;
use crate::terminal::{Terminal, shown, text_output};

/// How long a node keeps its bundle to be fetched.
const HOLD: Duration = Duration::from_secs(600);

pub fn capture(options: &CaptureOptions, terminal: Terminal) -> Result<Done, Failure> {
    let plan = plan(options)?;
    if options.cluster.dry_run {
        if options.output.as_ref().is_some_and(|output| output.as_os_str() != "yaml") {
            return Err(Failure::usage(anyhow!("--dry-run writes YAML to standard output: -o is yaml, or left out")));
        }
        let text = cluster::dry_run(&plan).map_err(classify)?;
        let mut out = text_output();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::unwritable)?;
        return Ok(Done::Whole);
    }
    let output = options.output.clone().unwrap_or_else(crate::capture::default_name);
    if output.as_os_str() == "-" {
        return Err(Failure::usage(anyhow!("the bundles of a cluster are joined in a file: name one with -o")));
    }
    target::file(&output, &[])?;
    if !options.force && output.exists() {
        return Err(Failure::usage(anyhow!(
            "{} exists; remove it, choose another name, or overwrite it with --force",
            output.display()
        )));
    }
    let mut folder = OsString::from(&output);
    folder.push(".parts");
    let folder = PathBuf::from(folder);
    cluster::make_folder(&folder).map_err(Failure::unwritable)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())
            .context("installing a signal handler")
            .map_err(Failure::not_permitted)?;
    }
    let progress = std::io::stderr().is_terminal();
    let tell: Tell = Arc::new(move |node: &str, what: &str| {
        let line = if node.is_empty() { what.to_string() } else { format!("{node}: {what}") };
        match progress || node.is_empty() {
            true => terminal.say(shown(&line)),
            false => terminal.detail(shown(&line)),
        }
    });
    let gathered = cluster::gather(&plan, &folder, &interrupted, tell);
    let gathered = gathered.inspect_err(|_| remove_folder(&folder)).map_err(classify)?;
    join(&gathered, &folder, &output, options.force, terminal)
}

fn classify(error: anyhow::Error) -> Failure {
    if error.is::<NoNodes>() { Failure::not_permitted(error) } else { Failure::unwritable(error) }
}

/// An empty one; one that isn't holds what was recorded.
fn remove_folder(folder: &Path) {
    let _not_empty = std::fs::remove_dir(folder);
}

fn plan(options: &CaptureOptions) -> Result<Plan, Failure> {
    let usage = |text: &str| Failure::usage(anyhow!("{text}"));
    let given = &options.cluster;
    let image =
        given.image.clone().ok_or_else(|| usage("--cluster needs --image: one made with deploy/Containerfile"))?;
    if !is_image(&image) {
        return Err(usage(&format!("--image {image:?} is no reference of an image, as in registry.example/kfr:1.0")));
    }
    for (option, namespaces) in [("--run-in", given.run_in.as_slice()), ("--namespace", &options.namespace)] {
        if let Some(wrong) = namespaces.iter().find(|name| !is_label(name)) {
            return Err(usage(&format!(
                "{option} {wrong:?} is no namespace: at most 63 of a-z, 0-9 and -, with a letter or digit at both ends"
            )));
        }
    }
    let duration = options.duration.ok_or_else(|| usage("--cluster needs --duration, as in --duration 60s"))?;
    if !options.pid.is_empty() || !options.cgroup.is_empty() {
        return Err(usage("--pid and --cgroup are of one node; with --cluster use --namespace and --pod"));
    }
    // What a node is told, checked as it will check it.
    crate::capture::checked(options)?;
    let source = match options.kube.as_str() {
        "auto" => KubeSource::Auto,
        "off" => return Err(usage("--cluster asks the Kubernetes API; leave --kube off out")),
        context => KubeSource::Context(context.to_string()),
    };
    let cluster = Cluster::find(&source).map_err(Failure::usage)?;
    let cluster = cluster.ok_or_else(|| usage("there is no cluster: no kubeconfig with a current context"))?;
    Ok(Plan {
        cluster,
        nodes: given.nodes.clone(),
        namespace: given.run_in.clone(),
        recording: Recording {
            namespace: String::new(),
            image,
            arguments: arguments(options, duration),
            duration,
            ready_timeout: given.ready_timeout,
            hold: HOLD,
            max_size: options.max_size,
            max_memory: options.max_memory,
            max_cpu_percent: options.max_cpu,
            privileged: given.privileged,
        },
    })
}

/// A label of DNS (RFC 1123, 2.1), in lower case: what Kubernetes takes as the name of a namespace.
fn is_label(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|byte| is_end(Some(byte)) || *byte == b'-')
}

/// Whether this may be `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, by its characters
/// (<https://github.com/distribution/reference/blob/main/reference.go>); what there is, the node's runtime knows.
fn is_image(reference: &str) -> bool {
    // Longest host and path, tag, and digest of SHA-512 with the characters between them.
    const MAX_BYTES: usize = 255 + 128 + 140;
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-:@+[]".contains(c))
            && part.ends_with(|c: char| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    reference.len() <= MAX_BYTES && reference.split('/').all(is_part)
}

/// The options of a capture as arguments of the same on a node.
fn arguments(options: &CaptureOptions, duration: Duration) -> Vec<String> {
    let hook = match options.socket_hook {
        crate::args::Hook::Auto => "auto",
        crate::args::Hook::Sock => "sock",
        crate::args::Hook::Syscall => "syscall",
    };
    let mut arguments = vec![
        format!("--duration={}ms", duration.as_millis()),
        format!("--payload-limit={}", options.payload_limit),
        format!("--socket-hook={hook}"),
        format!("--buffer-size={}", options.buffer_size),
        format!("--max-size={}", options.max_size),
        format!("--max-memory={}", options.max_memory),
        format!("--max-cpu={}", options.max_cpu),
    ];
    arguments.extend(options.port.iter().map(|port| format!("--port={port}")));
    arguments.extend(options.namespace.iter().map(|namespace| format!("--namespace={namespace}")));
    arguments.extend(options.pod.iter().map(|pod| format!("--pod={pod}")));
    arguments.extend(options.container.iter().map(|container| format!("--container={container}")));
    if let Some(logs) = options.logs {
        arguments.push(format!("--logs={}", logs.name()));
    }
    // Most nodes have none of what is asked for.
    arguments.push("--absent-ok".to_string());
    arguments
}

/// Joins what was gathered, and says what came of each node.
fn join(gathered: &Gathered, folder: &Path, output: &Path, force: bool, terminal: Terminal) -> Result<Done, Failure> {
    if !gathered.left_behind.is_empty() {
        terminal.say(format_args!(
            "{} Jobs could not be removed and remove themselves; sooner with kubectl delete jobs -n {} -l {}",
            gathered.left_behind.len(),
            gathered.namespace,
            cluster::selector(&gathered.run)
        ));
    }
    let mut parts = Vec::new();
    let mut whole = true;
    for node in &gathered.nodes {
        let opened = node.bundle.as_ref().and_then(|path| Reader::open(path).ok());
        let condition = opened.as_ref().map(|reader| Condition::of(reader, reader.damage()));
        say_node(node, condition, terminal);
        whole &= node.failure.is_none() && condition == Some(Condition::Whole) && node.exit == Some(0);
        parts.extend(opened);
    }
    let recorded = parts.len();
    if recorded == 0 {
        let _best_effort = gathered.kube.as_ref().map(std::fs::remove_file);
        remove_folder(folder);
        return Err(Failure::not_permitted(anyhow!("no node was recorded; what each says stands above")));
    }
    match (&gathered.kube, &gathered.kube_failure) {
        (Some(path), _) => parts.extend(Reader::open(path).ok()),
        (None, Some(failure)) => {
            whole = false;
            terminal.error(format_args!("what Kubernetes said is not in the bundle: {failure}"));
        }
        (None, None) => {}
    }
    let count = gathered.nodes.len();
    let merged = kfr_bundle::merge(&parts, |header: &FileHeader| Writer::create(output, header, force));
    let summary = merged.map_err(|error| {
        let kept = format!("the nodes' bundles are in {}; join them with kfr merge", folder.display());
        Failure::unwritable(anyhow::Error::from(error).context(kept))
    })?;
    drop(parts);
    if let Err(error) = std::fs::remove_dir_all(folder) {
        terminal.say(format_args!("{} can't be removed: {error}; it is no longer needed", folder.display()));
    }
    terminal.say(format_args!(
        "{}: {recorded} of {count} nodes in {} KiB",
        output.display(),
        summary.bytes.div_ceil(1024)
    ));
    terminal.say("it holds raw payload of every recorded socket: give it only to those who may see that traffic");
    Ok(if whole { Done::Whole } else { Done::WithLosses })
}

fn say_node(node: &NodeOutcome, condition: Option<Condition>, terminal: Terminal) {
    let name = &node.node;
    match (&node.failure, condition) {
        (Some(failure), Some(condition)) => {
            terminal.error(format_args!(
                "{}",
                shown(&format!("{name}: {failure}; what arrived is kept ({})", verdict(condition)))
            ));
        }
        (Some(failure), None) => terminal.error(format_args!("{}", shown(&format!("{name}: not recorded: {failure}")))),
        (None, Some(Condition::Whole)) if node.exit == Some(0) => {}
        (None, Some(Condition::Whole)) => {
            terminal.say(shown(&format!("{name}: the recorder lost something, see kfr analyze")));
        }
        (None, Some(condition)) => terminal.say(shown(&format!("{name}: {}", verdict(condition)))),
        (None, None) => terminal.error(format_args!("{}", shown(&format!("{name}: its bundle can't be read")))),
    }
}

/// What runs in a node's pod.
pub fn node(command: &NodeCommand) -> Result<Done, Failure> {
    match command {
        NodeCommand::Run { folder, wait, hold, arguments } => {
            cluster::agent::run(folder, *wait, *hold, arguments).map_err(Failure::not_permitted)?;
        }
        NodeCommand::Begin { folder } => leave(folder, "begin")?,
        NodeCommand::End { folder } => leave(folder, "end")?,
        NodeCommand::Fetched { folder } => leave(folder, "fetched")?,
        NodeCommand::Send { folder, from } => {
            let mut out = std::io::stdout();
            cluster::agent::send(folder, *from, &mut out).map_err(Failure::unwritable)?;
        }
    }
    Ok(Done::Whole)
}

fn leave(folder: &Path, name: &str) -> Result<(), Failure> {
    cluster::agent::leave(folder, name, "").map_err(Failure::unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_namespaces_are_labels() {
        for name in ["shop", "a", "0", "kube-system", &"a".repeat(63)] {
            assert!(is_label(name), "{name}");
        }
        for name in ["", "-a", "a-", "Shop", "a_b", "a.b", "x/../y", "Bad_NS$(id)", "a\n", "ä", &"a".repeat(64)] {
            assert!(!is_label(name), "{name}");
        }
    }

    #[test]
    fn references_of_images() {
        let digest = format!("registry.example:5000/team/kfr:1.0_a@sha256:{}", "0".repeat(64));
        for image in ["kfr", "kfr:1.0", "[::1]:5000/kfr", "localhost/kfr:latest", &digest] {
            assert!(is_image(image), "{image}");
        }
        for image in ["", " ", "bad image: {x}", "kfr:", "/kfr", "a//b", "../x", "a/..", "kfr\n", "-x", "$(id)", "ä"] {
            assert!(!is_image(image), "{image}");
        }
    }
}
