//! Kubernetes' hierarchy: workloads, their revisions, rollouts and pods.

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::table::{Cell, Column, Row, Table};
use crate::report::{
    document::{Change, Golden, Pod, Rollout, Workload},
    figure::{Lane, Series, Svg, Unit, plot},
    health::Health,
    text,
};

/// Most pods of a workload that are listed: those with trouble first.
const PODS: usize = 15;
/// Most revisions and rollouts of a workload that are listed: the youngest.
const REVISIONS: usize = 8;
/// Most callers of a revision that are named.
const CALLERS: usize = 3;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    pub(super) table: Option<Table>,
    pub(super) details: Vec<Detail>,
    pub(super) hidden: u64,
    pub(super) groups: Option<Table>,
}

/// A workload in full.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) anchor: String,
    pub(super) name: String,
    pub(super) full: String,
    pub(super) health: Health,
    pub(super) headline: String,
    pub(super) facts: Vec<Fact>,
    pub(super) plot: Option<Svg>,
    pub(super) revisions: Option<Table>,
    pub(super) rollouts: Option<Table>,
    pub(super) pods: Option<Table>,
    pub(super) open: bool,
}

/// A line of a workload's facts.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) href: Option<String>,
}

/// The section, with so many rows and so many workloads in full.
pub(super) fn workloads(context: &Context<'_>, rows: u64, details: u64) -> Workloads {
    let doc = context.doc;
    let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in &doc.pods {
        pods.entry(pod.workload.as_deref().unwrap_or_default()).or_default().push(pod);
    }
    let mut bad: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    // What was over before the recording is told among the changes.
    let within = |change: &&Change| change.until_ns.or(change.at_ns) >= doc.capture.start_ns;
    for change in doc.changes.iter().filter(|change| change.is_bad).filter(within) {
        bad.entry(change.workload.as_deref().unwrap_or_default()).or_default().push(change);
    }
    let none = Vec::new();
    let of = |workload: &Workload| {
        (pods.get(workload.id.as_str()).unwrap_or(&none), bad.get(workload.id.as_str()).map_or(&[][..], Vec::as_slice))
    };
    let mut named = BTreeSet::new();
    let shown = doc.workloads.iter().enumerate().take(rows as usize).map(|(place, workload)| {
        let (_, bad) = of(workload);
        let anchor = context.workload_anchor(&workload.id);
        let health = health(context, workload, bad);
        let first = named.insert(workload.id.as_str());
        row(workload, bad, health, anchor, first && place as u64 >= details)
    });
    let shown: Vec<Row> = shown.collect();
    let mut seen = BTreeSet::new();
    let in_full = doc.workloads.iter().take(details as usize).filter(|workload| seen.insert(workload.id.as_str()));
    let in_full = in_full.enumerate();
    let in_full = in_full.filter_map(|(place, workload)| {
        let (pods, bad) = of(workload);
        Some(detail(context, workload, pods, bad, context.workload_anchor(&workload.id)?, place))
    });
    let in_full: Vec<Detail> = in_full.collect();
    Workloads {
        hidden: doc.workloads.len().saturating_sub(in_full.len()) as u64,
        details: in_full,
        groups: groups(context),
        table: (!shown.is_empty()).then(|| Table {
            id: "workloads-table".to_owned(),
            caption: "Workloads, worst first".to_owned(),
            columns: columns(),
            hidden: (doc.workloads.len() - shown.len()) as u64,
            hidden_what: "the healthiest",
            hidden_where: "",
            rows: shown,
        }),
    }
}

fn columns() -> Vec<Column> {
    let mut columns = vec![
        Column::text("Workload", "What owns the pods"),
        Column::text("State", "From failing requests, missing pods and rollouts"),
        Column::text("Ready", "Pods ready of those wanted, as told last; below, the fewest during the recording"),
        Column::number("Pods", "", "Pods that it had during the recording"),
        Column::number("Restarts", "", "How often their containers were started again, in the pods' whole lives"),
        Column::text("Revision", "The newest, by its first container's image"),
    ];
    columns.extend(golden_columns());
    columns.push(Column::text("What happened", ""));
    columns
}

fn golden_columns() -> [Column; 4] {
    [
        Column::number("Requests", "", "Requests that its pods answered"),
        Column::number("Errors", "%", "Share of these answered by an error, of those whose outcome was seen"),
        Column::number("p50", "", "Median duration of answered requests"),
        Column::number("p95", "", "95% of answered requests were at least as fast"),
    ]
}

fn golden_cells(golden: &Golden) -> [Cell; 4] {
    if golden.requests == 0 {
        return [Cell::none(), Cell::none(), Cell::none(), Cell::none()];
    }
    [
        Cell::count(golden.requests),
        Cell::share(golden.errors, golden.judged(), Health::of_golden(golden)),
        Cell::duration(golden.p50_ns),
        Cell::duration(golden.p95_ns),
    ]
}

fn health(context: &Context<'_>, workload: &Workload, bad: &[&Change]) -> Health {
    let missing = workload.replicas.map_or(Health::Unknown, |replicas| match (replicas.ready, replicas.wanted) {
        (_, 0) => Health::Unknown,
        (0, _) => Health::Critical,
        (ready, wanted) if ready < wanted => Health::Warning,
        _ => Health::Healthy,
    });
    let happened = if bad.is_empty() { Health::Unknown } else { Health::Warning };
    let findings = context.doc.findings.iter().filter(|finding| finding.subject.id.as_ref() == Some(&workload.id));
    let told = findings.map(|finding| Health::of_severity(finding.severity)).max().unwrap_or_default();
    missing.max(happened).max(told).max(Health::of_golden(&workload.inbound))
}

/// `3 of 3`, and the fewest.
fn ready(workload: &Workload) -> Cell {
    let Some(replicas) = workload.replicas else { return Cell::none() };
    let least = workload.least_ready.filter(|least| *least < replicas.ready);
    Cell::text(format!("{} of {}", replicas.ready, replicas.wanted))
        .with_sub(least.map_or_else(String::new, |least| format!("down to {least}")))
}

fn newest(workload: &Workload) -> Cell {
    let number = workload.rollouts.last().map(|rollout| rollout.to.as_str());
    let revision = workload.revisions.iter().find(|revision| Some(revision.name.as_str()) == number);
    let Some(revision) = revision.or(workload.revisions.last()) else { return Cell::none() };
    Cell::name(&short_images(revision.images.iter().take(1).map(|image| image.image.as_str())), 32)
        .with_sub(revision.number.map_or_else(String::new, |number| format!("revision {number}")))
}

fn short_images<'a>(images: impl Iterator<Item = &'a str>) -> String {
    images.map(|image| image.rsplit('/').next().unwrap_or(image)).collect::<Vec<_>>().join(", ")
}

/// Kinds of bad changes with their numbers.
fn happened(bad: &[&Change]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for change in bad {
        let sum = kinds.entry(change.kind.as_str()).or_default();
        *sum = sum.saturating_add(change.count.max(1));
    }
    let words = kinds.into_iter().map(|(kind, count)| match count {
        1 => kind.replace('_', " "),
        _ => format!("{} ×{}", kind.replace('_', " "), text::count(count)),
    });
    words.collect()
}

fn row(workload: &Workload, bad: &[&Change], health: Health, anchor: Option<&str>, carries_anchor: bool) -> Row {
    let mut cells = vec![
        Cell::name(&workload.name, 40)
            .with_href(anchor.map(|anchor| format!("#{anchor}")))
            .with_sub(workload.kind.clone()),
        Cell::status(health),
        ready(workload),
        Cell::count(workload.pods),
        Cell::count(workload.restarts),
        newest(workload),
    ];
    cells.extend(golden_cells(&workload.inbound));
    cells.push(Cell::tags(&happened(bad)));
    Row { id: anchor.filter(|_| carries_anchor).map(str::to_owned), cells }
}

fn detail(
    context: &Context<'_>,
    workload: &Workload,
    pods: &[&Pod],
    bad: &[&Change],
    anchor: &str,
    place: usize,
) -> Detail {
    let health = health(context, workload, bad);
    let headline = match workload.replicas {
        Some(replicas) => format!("{} · {} of {} ready", workload.kind, replicas.ready, replicas.wanted),
        None => format!("{} · {}", workload.kind, text::plural(workload.pods, "pod", "pods")),
    };
    let headline = match happened(bad).join(", ") {
        happened if happened.is_empty() => headline,
        happened => format!("{headline} · {happened}"),
    };
    let mut facts = Vec::new();
    for service in &workload.kubernetes_services {
        let ready = match (service.ready, service.least_ready) {
            (Some(ready), Some(least)) if least < ready => format!(", {ready} ready (down to {least})"),
            (Some(ready), _) => format!(", {ready} ready"),
            _ => String::new(),
        };
        let value = format!("{} ({}){ready}", text::one_line(&service.name, 120), service.kind);
        facts.push(Fact { label: "Behind Service", value, href: None });
    }
    for id in &workload.services {
        let value = text::one_line(context.service_name(id), 120);
        facts.push(Fact { label: "Traffic", value, href: context.service_href(id) });
    }
    let labels: Vec<String> = workload.labels.iter().take(8).map(|(name, value)| format!("{name}={value}")).collect();
    if !labels.is_empty() {
        facts.push(Fact { label: "Labels", value: text::one_line(&labels.join(", "), 300), href: None });
    }
    for change in bad.iter().take(6) {
        let at = text::or_none(change.at_ns, text::clock);
        let times = if change.count > 1 { format!(" (×{})", text::count(change.count)) } else { String::new() };
        let value = format!("{at} {}{times}", text::one_line(&change.summary, 240));
        facts.push(Fact { label: "Trouble", value, href: None });
    }
    let name = text::middle(&text::one_line(&workload.name, 400), 60);
    Detail {
        anchor: anchor.to_owned(),
        full: workload.name.clone(),
        health,
        headline: text::one_line(&headline, 240),
        facts,
        plot: course(context, workload, anchor, &name),
        revisions: revisions(context, workload, anchor, &name),
        rollouts: rollouts(context, workload, anchor, &name),
        pods: pod_table(context, pods, anchor, &name),
        open: place == 0 && health >= Health::Warning,
        name,
    }
}

/// Pods wanted and ready, where they were ever different.
fn course(context: &Context<'_>, workload: &Workload, anchor: &str, name: &str) -> Option<Svg> {
    let axis = context.axis?;
    if workload.course.iter().all(|step| step.wanted == step.ready) {
        return None;
    }
    let lane = pods_lane(&format!("Pods of {name}"), workload, axis.end_ns);
    let desc = "Pods wanted and pods ready over the recording";
    Some(plot(&format!("{anchor}.pods"), &format!("Pods of {name}"), desc, axis, &[lane], &[]))
}

/// A lane of pods wanted and ready, in steps.
pub(super) fn pods_lane(title: &str, workload: &Workload, end_ns: u64) -> Lane {
    let steps = |value: &dyn Fn(u64, u64) -> u64| {
        let mut points = Vec::new();
        let ends = workload.course.iter().skip(1).map(|step| step.at_ns).chain([end_ns]);
        for (step, until_ns) in workload.course.iter().zip(ends) {
            let height = Some(value(step.wanted, step.ready) as f64);
            points.push((step.at_ns, height));
            points.push((until_ns.max(step.at_ns), height));
        }
        points
    };
    let series = vec![
        Series::area("ready", 1, u64::MAX / 4, steps(&|_, ready| ready)),
        Series::line("wanted", 2, u64::MAX / 4, steps(&|wanted, _| wanted)),
    ];
    Lane { height: 44, ..Lane::new(title, Unit::Plain, series) }
}

fn revisions(context: &Context<'_>, workload: &Workload, anchor: &str, name: &str) -> Option<Table> {
    let rows = workload.revisions.iter().rev().take(REVISIONS).map(|revision| {
        let number = revision.number.map_or_else(|| revision.name.clone(), |number| number.to_string());
        let callers = revision.callers.iter().take(CALLERS).map(|caller| {
            let of = text::count(caller.requests);
            format!(
                "{}: {} of {of} failed",
                text::one_line(context.service_name(&caller.service), 60),
                text::count(caller.errors)
            )
        });
        let callers: Vec<String> = callers.collect();
        let images = short_images(revision.images.iter().map(|image| image.image.as_str()));
        let mut cells = vec![
            Cell::name(&number, 24).with_sub(if revision.number.is_some() {
                revision.name.clone()
            } else {
                String::new()
            }),
            Cell::name(&images, 60),
            Cell::text(text::or_none(revision.created_ns, text::clock)),
            Cell::count(revision.pods),
        ];
        cells.extend(golden_cells(&revision.inbound));
        cells.push(Cell::text(text::one_line(&callers.join("; "), 240)));
        Row { id: None, cells }
    });
    let rows: Vec<Row> = rows.collect();
    let mut columns = vec![
        Column::text("Revision", "A Deployment's number and the template's hash"),
        Column::text("Images", ""),
        Column::text("Made", "UTC"),
        Column::number("Pods", "", "Pods of it during the recording"),
    ];
    columns.extend(golden_columns());
    columns.push(Column::text("Callers", "Who asked its pods, most failures first"));
    (!rows.is_empty()).then(|| Table {
        id: format!("{anchor}.revisions"),
        caption: format!("Revisions of {name}, the newest first: old against new"),
        columns,
        hidden: workload.revisions.len().saturating_sub(rows.len()) as u64,
        hidden_what: "older ones",
        hidden_where: "",
        rows,
    })
}

fn rollouts(context: &Context<'_>, workload: &Workload, anchor: &str, name: &str) -> Option<Table> {
    // The first one of a workload that nothing was changed about says nothing.
    if workload.rollouts.iter().all(|rollout| rollout.from.is_none()) {
        return None;
    }
    let end_ns = context.doc.capture.end_ns;
    let number = |name: &str, of: Option<u64>| of.map_or_else(|| name.to_owned(), |number| number.to_string());
    let row = |(place, rollout): (usize, &Rollout)| {
        let before = place.checked_sub(1).and_then(|before| workload.rollouts.get(before));
        let from = rollout.from.as_deref().map(|from| number(from, before.and_then(|before| before.number)));
        let to = number(&rollout.to, rollout.number);
        let until_ns = rollout.ended_ns.or(end_ns);
        let mut outcome = rollout.outcome.clone();
        if let Some(at_ns) = rollout.stuck_ns {
            outcome.push_str(&format!(", stuck since {}", text::clock(at_ns)));
        }
        let what =
            if rollout.is_rollback { format!("back: {}", rollout.difference) } else { rollout.difference.clone() };
        Row {
            id: None,
            cells: vec![
                Cell::text(text::clock(rollout.began_ns)),
                Cell::text(from.map_or_else(|| to.clone(), |from| format!("{from} → {to}"))),
                Cell::name(&text::one_line(&what, 300), 80),
                Cell::text(outcome),
                Cell::duration(until_ns.map(|until_ns| until_ns.saturating_sub(rollout.began_ns))),
            ],
        }
    };
    let rows: Vec<Row> = workload.rollouts.iter().enumerate().rev().take(REVISIONS).map(row).collect();
    Some(Table {
        id: format!("{anchor}.rollouts"),
        caption: format!("Rollouts of {name}, the newest first"),
        columns: vec![
            Column::text("Began", "UTC"),
            Column::text("Revision", "From and to"),
            Column::text("What is different", ""),
            Column::text("Outcome", ""),
            Column::number("Took", "", "Until it was done, replaced, or the recording ended"),
        ],
        hidden: workload.rollouts.len().saturating_sub(rows.len()) as u64,
        hidden_what: "older ones",
        hidden_where: "",
        rows,
    })
}

fn pod_table(context: &Context<'_>, pods: &[&Pod], anchor: &str, name: &str) -> Option<Table> {
    let mut sorted = pods.to_vec();
    let trouble = |pod: &Pod| {
        let unready = pod.ready == Some(false) && pod.deleted_ns.is_none() && pod.phase.as_deref() != Some("Succeeded");
        (pod.inbound.server_errors(), unready, pod.restarts)
    };
    sorted.sort_by(|a, b| trouble(b).cmp(&trouble(a)).then(b.created_ns.cmp(&a.created_ns)).then(a.name.cmp(&b.name)));
    let rows: Vec<Row> = sorted.iter().take(PODS).map(|pod| pod_row(context, pod)).collect();
    let mut columns = vec![
        Column::text("Pod", ""),
        Column::text("Node", "With its zone"),
        Column::text("State", "Phase, and why it is not ready"),
        Column::text("Lived", "From being asked for to its end, UTC"),
        Column::text("Containers", "With their images"),
        Column::number("Restarts", "", "How often its containers were started again"),
    ];
    columns.extend(golden_columns());
    (!rows.is_empty()).then(|| Table {
        id: format!("{anchor}.pod-table"),
        caption: format!("Pods of {name}, those in trouble first"),
        columns,
        hidden: pods.len().saturating_sub(rows.len()) as u64,
        hidden_what: "the healthiest",
        hidden_where: "",
        rows,
    })
}

fn pod_row(context: &Context<'_>, pod: &Pod) -> Row {
    let containers = pod.containers.iter().map(|container| {
        let image = short_images(std::iter::once(container.image.as_str()));
        let kind = if container.kind == "main" { String::new() } else { format!(" ({})", container.kind) };
        let state = container.waiting.clone().or_else(|| {
            container.ended.as_ref().filter(|_| container.restarts > 0).map(|ended| match ended.exit_code {
                Some(code) => format!("{}, exit code {code}", ended.reason),
                None => ended.reason.clone(),
            })
        });
        let state = state.map_or_else(String::new, |state| format!(" {state}"));
        format!("{}{kind}: {image}{state}", container.name)
    });
    let containers: Vec<String> = containers.collect();
    let ready = match (pod.ready, pod.deleted_ns, pod.phase.as_deref()) {
        (_, Some(_), _) => "deleted",
        (_, _, Some("Succeeded" | "Failed")) | (None, ..) => "",
        (Some(true), ..) => "ready",
        (Some(false), ..) => "not ready",
    };
    let reason = pod.reason.clone().unwrap_or_default();
    let state: Vec<&str> = [ready, reason.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    let lived = match (pod.created_ns, pod.deleted_ns) {
        (Some(from), Some(to)) => format!("{} to {}", text::clock(from), text::clock(to)),
        (Some(from), None) => format!("from {}", text::clock(from)),
        (None, Some(to)) => format!("to {}", text::clock(to)),
        (None, None) => text::NONE.to_owned(),
    };
    let node = pod.node.as_deref().unwrap_or(text::NONE);
    let mut cells = vec![
        Cell::name(&pod.name, 44).with_sub(pod.revision.clone().unwrap_or_default()),
        Cell::name(node, 28).with_href(context.node_href(node)).with_sub(pod.zone.clone().unwrap_or_default()),
        Cell::text(pod.phase.clone().unwrap_or_else(|| text::NONE.to_owned()))
            .with_sub(text::one_line(&state.join(", "), 80)),
        Cell::text(lived),
        Cell::text(text::one_line(&containers.join("; "), 240)),
        Cell::count(pod.restarts),
    ];
    cells.extend(golden_cells(&pod.inbound));
    Row { id: None, cells }
}

fn groups(context: &Context<'_>) -> Option<Table> {
    let groups = &context.doc.groups;
    let rows = groups.iter().take(200).map(|group| {
        let value = group.value.clone().unwrap_or_else(|| "(without)".to_owned());
        let mut cells = vec![Cell::name(&value, 60), Cell::name(&group.label, 60), Cell::count(group.pods)];
        cells.extend(golden_cells(&group.inbound));
        Row { id: None, cells }
    });
    let rows: Vec<Row> = rows.collect();
    let mut columns = vec![
        Column::text("Value", ""),
        Column::text("Label", ""),
        Column::number("Pods", "", "Pods with it during the recording"),
    ];
    columns.extend(golden_columns());
    (!rows.is_empty()).then(|| Table {
        id: "groups-table".to_owned(),
        caption: "Requests by label of the pods that answered".to_owned(),
        columns,
        hidden: groups.len().saturating_sub(rows.len()) as u64,
        hidden_what: "further values",
        hidden_where: "",
        rows,
    })
}
