//! Container logs: groups, containers, and what is not there.

use kfr_bundle::logs::LogCounts;

use super::ledger::Entries;
use super::services;
use crate::World;
use crate::dump::fingerprint;
use crate::identity::ServiceKind;
use crate::logs::{Group, Groups, each_line, pod_name, workload};
use crate::replay::Input;
use crate::report::document::{Figure, LogContainer, LogExample, LogGroup, Severity};

/// Groups that the report lists.
const MAX_LISTED: usize = 1000;
/// Containers that the report lists.
const MAX_CONTAINERS: usize = 1000;
/// Pods that a group names.
const MAX_PODS: usize = 8;

/// What the report says of logs.
#[derive(Default)]
pub struct Logs {
    /// Lines that are alike, worst first.
    pub groups: Vec<LogGroup>,
    /// Containers, most left out first.
    pub containers: Vec<LogContainer>,
    /// Lines that are in no listed group.
    unlisted: u64,
    /// Rows and blocks of lines that can't be decoded.
    malformed: u64,
}

/// Reads the lines of all bundles and groups them.
pub fn build(inputs: &[Input], world: &World) -> Logs {
    let facts = &world.facts;
    let mut groups = Groups::new(world.window, world.step_ns);
    let malformed = each_line(inputs, facts, |line| {
        groups.add(line, facts);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(malformed) = malformed;
    let beyond = groups.beyond;
    let sorted = groups.into_sorted();
    let unlisted = beyond + sorted.iter().skip(MAX_LISTED).map(|group| group.count).sum::<u64>();
    let groups = sorted.into_iter().take(MAX_LISTED).map(|group| listed(group, world)).collect();
    let mut containers: Vec<LogContainer> = counts(world).map(|counts| container(counts, world)).collect();
    containers.sort_by(|a, b| {
        let key = |one: &LogContainer| {
            (
                std::cmp::Reverse((one.lines_dropped, one.bytes_unread, one.lines)),
                one.pod.clone(),
                one.container.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    containers.truncate(MAX_CONTAINERS);
    Logs { groups, containers, unlisted, malformed }
}

fn counts(world: &World) -> impl Iterator<Item = &LogCounts> {
    world.facts.nodes.iter().flat_map(|node| node.logs.values())
}

fn listed(group: Group, world: &World) -> LogGroup {
    let owner = group.workload.clone().or_else(|| group.pods.first().cloned()).unwrap_or_default();
    let level = group.level.map(|level| level.name().to_string());
    let subject = format!("log/{owner}/{}/{}", group.container, level.as_deref().unwrap_or_default());
    let service = group.workload.as_ref().and_then(|name| {
        let all = world.services.all().iter();
        let index = all.clone().position(|one| one.kind == ServiceKind::Workload && one.name == *name)?;
        Some(services::id(world, index as u32))
    });
    let line = group.example.line;
    LogGroup {
        id: format!("log-{}", fingerprint(&subject, &group.pattern)),
        workload: group.workload,
        service,
        pods_total: group.pods.len() as u64,
        pods: group.pods.into_iter().take(MAX_PODS).collect(),
        container: group.container,
        level,
        pattern: group.pattern,
        count: group.count,
        first_ns: group.first_ns,
        last_ns: group.last_ns,
        series: group.steps,
        example: LogExample {
            time_ns: line.fact.wall_ns,
            pod: line.pod_name(),
            stream: Some(line.fact.stream).filter(|stream| !stream.is_empty()),
            text: group.example.text,
            trace_id: group.example.ids.trace_id,
            request_id: group.example.ids.request_id,
            evidence: line.at.to_string(),
        },
    }
}

fn container(counts: &LogCounts, world: &World) -> LogContainer {
    let pod = world.facts.kube.pod_named(&counts.uid, &counts.namespace, &counts.pod);
    LogContainer {
        pod: pod_name(&counts.namespace, &counts.pod),
        container: counts.container.clone(),
        workload: workload(&world.facts, pod).map(str::to_string),
        lines: counts.lines,
        bytes: counts.bytes,
        lines_kept: counts.lines_kept,
        lines_dropped: counts.lines_dropped,
        bytes_unread: counts.bytes_unread,
        refused: Some(counts.refused.clone()).filter(|reason| !reason.is_empty()),
    }
}

impl Logs {
    /// What is missing of logs, for the ledger.
    pub fn entries(&self, world: &World, entries: &mut Entries) {
        let sum = |pick: fn(&LogCounts) -> u64| counts(world).map(pick).sum::<u64>();
        let weakens = &[Figure::Logs];
        // Those that lack most come first.
        let of = |lacking: fn(&LogContainer) -> bool| {
            let names: Vec<String> = self
                .containers
                .iter()
                .filter(|one| lacking(one))
                .take(3)
                .map(|one| format!("{} ({})", one.pod, one.container))
                .collect();
            names.join(", ")
        };
        let mut add = |id: &str, what: &str, count: u64, unit: &str, effect: &str, severity: Severity| {
            entries.add(&format!("logs-{id}"), "logs", what, count, unit, effect, weakens, severity);
        };
        add(
            "dropped",
            "Log lines left out because a bound was reached",
            sum(|counts| counts.lines_dropped),
            "lines",
            &format!("Errors may be among them; most are of {}", of(|one| one.lines_dropped > 0)),
            Severity::Warning,
        );
        add(
            "unread",
            "Bytes of log files passed over, because more was written than may be read",
            sum(|counts| counts.bytes_unread),
            "bytes",
            &format!("Their lines are not counted; of {}", of(|one| one.bytes_unread > 0)),
            Severity::Warning,
        );
        let refused = counts(world).find(|counts| !counts.refused.is_empty()).map_or("", |counts| &counts.refused);
        add(
            "refused",
            "Containers with a log file that could not be read",
            sum(|counts| u64::from(!counts.refused.is_empty())),
            "containers",
            &format!("Their lines are missing: {refused}"),
            Severity::Warning,
        );
        add(
            "truncations",
            "Log files that became shorter while they were read",
            sum(|counts| counts.truncations),
            "times",
            "Lines written just before may be missing",
            Severity::Warning,
        );
        add(
            "malformed",
            "Log lines in a form that no container runtime writes",
            sum(|counts| counts.lines_malformed),
            "lines",
            "They are left out",
            Severity::Info,
        );
        add(
            "undecodable",
            "Rows or blocks of log lines that can't be decoded",
            self.malformed,
            "rows",
            "Lines in them are missing",
            Severity::Warning,
        );
        add(
            "cut",
            "Log lines of which only the beginning was kept",
            sum(|counts| counts.lines_cut),
            "lines",
            "They were longer than 16 KiB, or not ended when the capture was",
            Severity::Info,
        );
        add(
            "unlisted",
            "Log lines of patterns beyond those that the report lists",
            self.unlisted,
            "lines",
            "kfr dump --logs has them",
            Severity::Info,
        );
        let nodes = || world.facts.nodes.iter();
        let quiet = nodes().filter(|node| node.manifest.logs == "errors").flat_map(|node| node.logs.values());
        add(
            "quiet",
            "Log lines without a sign of trouble, counted only",
            quiet.map(|one| one.lines.saturating_sub(one.lines_kept + one.lines_dropped)).sum(),
            "lines",
            "--logs all keeps them",
            Severity::Info,
        );
        let told = |state: &str| nodes().filter(|node| node.manifest.logs == state).count() as u64;
        let recordings = "recordings";
        add("off", "Recordings without container logs", told("off"), recordings, "--logs was off", Severity::Info);
        add(
            "absent",
            "Recordings of hosts without container logs",
            told("absent"),
            recordings,
            "There was no /var/log/pods, as there is on a Kubernetes node",
            Severity::Info,
        );
        let unreadable = nodes().filter_map(|node| node.manifest.logs.strip_prefix("unreadable: "));
        add(
            "unreadable",
            "Recordings without container logs, as they could not be read",
            unreadable.clone().count() as u64,
            recordings,
            unreadable.clone().next().unwrap_or_default(),
            Severity::Warning,
        );
    }
}
