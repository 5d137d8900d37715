//! Everything that has a time, on one axis.

use super::Context;
use super::table::{Cell, Column, Row, Table};
use crate::report::{
    document::{Change, Document, Golden, Node, Point, Service},
    figure::{Lane, Mark, Series, Svg, Unit, plot},
    health::Health,
    text,
};

/// Most findings and changes marked on the axis.
const MARKS: usize = 12;
/// Most stretches of loss drawn; the ledger lists more.
const LOSSES: usize = 60;

/// Rate, latency, host and transport of the whole capture, with findings, changes and losses marked.
pub(super) fn timeline(context: &Context<'_>) -> Option<Svg> {
    let (doc, axis) = (context.doc, context.axis?);
    let mut lanes = golden_lanes(doc, &doc.overall);
    lanes.extend(error_lane(doc));
    lanes.extend(workload_lanes(doc, axis.end_ns));
    lanes.extend(host_lanes(doc));
    if lanes.is_empty() {
        return None;
    }
    let desc = format!(
        "From {} to {}: {}. The same figures are in the tables below.",
        text::date_time(axis.start_ns),
        text::date_time(axis.end_ns),
        lanes.iter().map(|lane| lane.title.as_str()).collect::<Vec<_>>().join(", ")
    );
    Some(plot("timeline-figure", "Timeline of the capture", &desc, axis, &lanes, &marks(doc)))
}

/// The same for one service.
pub(super) fn service_plot(context: &Context<'_>, service: &Service, anchor: &str) -> Option<Svg> {
    let (doc, axis) = (context.doc, context.axis?);
    let lanes = golden_lanes(doc, &service.inbound);
    let title = format!("Golden metrics of {}", text::one_line(&service.name, 100));
    (!lanes.is_empty()).then(|| {
        plot(
            &format!("{anchor}.plot"),
            &title,
            "Requests and errors a second, and durations, over the window",
            axis,
            &lanes,
            &losses(doc),
        )
    })
}

/// Figures that also stand alone, by name: the timeline, and the golden metrics of the worst services.
pub(crate) fn standalone(context: &Context<'_>) -> Vec<(String, Svg)> {
    let mut figures: Vec<(String, Svg)> =
        timeline(context).map(|svg| ("timeline".to_owned(), svg)).into_iter().collect();
    for service in &context.doc.services {
        if figures.len() > 12 {
            break;
        }
        if let Some(anchor) = context.service_anchor(&service.id)
            && figures.iter().all(|(name, _)| name != anchor)
            && let Some(svg) = service_plot(context, service, anchor)
        {
            figures.push((anchor.to_owned(), svg));
        }
    }
    figures
}

/// The part of a step that lies within the window: its middle, and its length. The first and the last step are rarely
/// whole; a sliver of one would make a rate of nothing.
fn covered(doc: &Document, start: u64) -> Option<(u64, u64)> {
    let step = doc.capture.step_ns.max(1);
    let from = start.max(doc.capture.start_ns.unwrap_or(0));
    let to = start.saturating_add(step).min(doc.capture.end_ns.unwrap_or(u64::MAX));
    let length = to.checked_sub(from).filter(|length| *length > step / 10)?;
    Some((from + length / 2, length))
}

/// A series over time; rates are by the part of each step that was covered.
fn over_time(doc: &Document, golden: &Golden, value: impl Fn(&Point, f64) -> Option<f64>) -> Vec<(u64, Option<f64>)> {
    let point = |p: &Point| covered(doc, p.start_ns).map(|(at, length)| (at, value(p, length as f64 / 1e9)));
    golden.series.iter().filter_map(point).collect()
}

/// Rate with errors, and durations; nothing where nothing was seen.
fn golden_lanes(doc: &Document, golden: &Golden) -> Vec<Lane> {
    let step = doc.capture.step_ns.max(1);
    if golden.series.is_empty() {
        return Vec::new();
    }
    let series = |value: &dyn Fn(&Point, f64) -> Option<f64>| over_time(doc, golden, value);
    let mut rate = vec![Series::area("requests", 1, step, series(&|p, seconds| Some(p.requests as f64 / seconds)))];
    if golden.errors > 0 {
        rate.push(Series::area("errors", 9, step, series(&|p, seconds| Some(p.errors as f64 / seconds))));
    }
    let mut lanes = vec![Lane::new("Requests", Unit::PerSecond, rate)];
    if golden.series.iter().any(|p| p.p99_ns.is_some()) {
        let durations = vec![
            Series::line("p99", 2, step, series(&|p, _| p.p99_ns.map(|ns| ns as f64))),
            Series::line("p50", 1, step, series(&|p, _| p.p50_ns.map(|ns| ns as f64))),
        ];
        lanes.push(Lane::new("Duration", Unit::Nanos, durations));
    }
    lanes
}

/// Errors on their own: beside all requests they would be too few to see.
fn error_lane(doc: &Document) -> Option<Lane> {
    let step = doc.capture.step_ns.max(1);
    let points = over_time(doc, &doc.overall, |p, seconds| Some(p.errors as f64 / seconds));
    let series = vec![Series::area("errors", 9, step, points)];
    (doc.overall.errors > 0).then(|| Lane { height: 44, ..Lane::new("Errors", Unit::PerSecond, series) })
}

/// Pods of the workloads that had too few, at most four.
fn workload_lanes(doc: &Document, end_ns: u64) -> Vec<Lane> {
    let short = doc.workloads.iter().filter(|workload| workload.course.iter().any(|step| step.ready < step.wanted));
    let title = |name: &str| format!("Pods of {}", text::middle(&text::one_line(name, 80), 40));
    short.take(4).map(|workload| super::workloads::pods_lane(&title(&workload.name), workload, end_ns)).collect()
}

/// One line a host for CPU, memory pressure and retransmissions; at most four hosts.
fn host_lanes(doc: &Document) -> Vec<Lane> {
    let hosts: Vec<&Node> = doc.nodes.iter().filter(|n| !n.samples.is_empty()).take(4).collect();
    let mut lanes = Vec::new();
    let mut add =
        |title: &str, unit, least: f64, value: &dyn Fn(&crate::report::document::HostSample) -> Option<f64>| {
            let series: Vec<Series> = hosts
                .iter()
                .zip(1u8..)
                .map(|(node, ink)| {
                    let gap = node.samples.iter().map(|s| s.duration_ns).max().unwrap_or(1).max(1);
                    let points =
                        node.samples.iter().map(|s| (s.start_ns.saturating_add(s.duration_ns / 2), value(s))).collect();
                    Series::line(&text::middle(&text::one_line(&node.name, 80), 24), ink, gap, points)
                })
                .collect();
            if series.iter().any(|s| s.points.iter().any(|p| p.1.is_some())) {
                lanes.push(Lane { at_least: least, height: 52, ..Lane::new(title, unit, series) });
            }
        };
    add("Host CPU busy", Unit::Permille, 1000.0, &|s| {
        let cores: Vec<u64> = s.cores.iter().flatten().map(|c| u64::from(c.busy_permille())).collect();
        (!cores.is_empty()).then(|| cores.iter().sum::<u64>() as f64 / cores.len() as f64)
    });
    add("TCP segments sent again", Unit::PerSecond, 0.0, &|s| {
        s.tcp.map(|t| t.retransmitted as f64 * 1e9 / s.duration_ns.max(1) as f64)
    });
    lanes
}

fn marks(doc: &Document) -> Vec<Mark> {
    let mut marks = losses(doc);
    for (i, finding) in doc.findings.iter().enumerate().take(MARKS) {
        if let Some(at) = finding.onset_ns {
            marks.push(Mark {
                from_ns: at,
                to_ns: None,
                label: (i + 1).to_string(),
                title: format!("{} {}", text::clock_ms(at), text::one_line(&finding.title, 200)),
                class: "onset",
            });
        }
    }
    // Of many, those that hurt and those that somebody made.
    let mut changes: Vec<&Change> = doc.changes.iter().filter(|change| change.at_ns >= doc.capture.start_ns).collect();
    let weight = |change: &Change| match (change.kind.as_str(), change.is_bad) {
        ("rollout" | "oom_killed" | "node" | "evicted", true) => 0,
        ("rollout" | "scaled" | "pod_deleted", false) => 1,
        ("probe_failed" | "warning", _) => 3,
        (_, is_bad) => {
            if is_bad {
                2
            } else {
                4
            }
        }
    };
    changes.sort_by_key(|change| (weight(change), change.at_ns));
    for change in changes.into_iter().take(MARKS) {
        if let Some(at) = change.at_ns {
            marks.push(Mark {
                from_ns: at,
                to_ns: None,
                label: "Δ".to_owned(),
                title: format!("{} {}: {}", text::clock_ms(at), change.subject, text::one_line(&change.summary, 200)),
                class: "change",
            });
        }
    }
    marks
}

/// Stretches in which events were lost, shaded behind the lines that they weaken.
fn losses(doc: &Document) -> Vec<Mark> {
    let mark = |loss: &crate::report::document::LostRange| {
        Some(Mark {
            from_ns: loss.start_ns?,
            to_ns: Some(loss.end_ns?),
            label: String::new(),
            title: format!(
                "{} lost here ({})",
                text::plural(loss.count, "event", "events"),
                text::one_line(&loss.what, 60)
            ),
            class: "loss",
        })
    };
    doc.ledger.losses.iter().filter_map(mark).take(LOSSES).collect()
}

pub(super) fn changes(context: &Context<'_>, shown: u64) -> Option<Table> {
    let changes = &context.doc.changes;
    // Of too many, those that hurt; the list is by time all the same.
    let mut order: Vec<(usize, &Change)> = changes.iter().enumerate().collect();
    order.sort_by_key(|(place, change)| (!change.is_bad, *place));
    order.truncate(shown as usize);
    order.sort_by_key(|(place, _)| *place);
    let rows: Vec<Row> = order.into_iter().map(|(_, change)| change_row(context, change)).collect();
    (!rows.is_empty()).then(|| Table {
        id: "changes-table".to_owned(),
        caption: "What changed, by time; also in the hour before the recording".to_owned(),
        columns: vec![
            Column::text("At", "UTC; below, when it was over or last seen"),
            Column::text("State", "Whether somebody is hurt by it, or may be"),
            Column::text("Kind", ""),
            Column::text("Subject", ""),
            Column::text("What", ""),
            Column::number("Times", "", "How often it was seen"),
        ],
        hidden: (changes.len() - rows.len()) as u64,
        hidden_what: "those that hurt nobody",
        hidden_where: "",
        rows,
    })
}

fn change_row(context: &Context<'_>, change: &Change) -> Row {
    let before = change.at_ns.zip(context.doc.capture.start_ns).is_some_and(|(at, start)| at < start);
    let until = change.until_ns.map(|until| format!("to {}", text::clock(until)));
    let before = before.then(|| "before the recording".to_owned());
    let sub: Vec<String> = until.into_iter().chain(before).collect();
    let workload = change.workload.as_deref().and_then(|id| context.workload_anchor(id));
    let href = workload.map(|anchor| format!("#{anchor}")).or_else(|| context.node_href(&change.subject));
    Row {
        id: None,
        cells: vec![
            Cell::text(text::or_none(change.at_ns, text::clock)).with_sub(sub.join(", ")),
            if change.is_bad { Cell::status(Health::Warning) } else { Cell::text("") },
            Cell::text(change.kind.replace('_', " ")),
            Cell::name(&change.subject, 48).with_href(href),
            Cell::text(text::one_line(&change.summary, 300)),
            Cell::count(change.count),
        ],
    }
}
