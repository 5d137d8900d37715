//! Hosts: CPU by core, memory, pressure, disks, interfaces.

use super::Context;
use super::table::{Cell, Column, Row, Table};
use crate::report::{
    document::{CoreSplit, HostSample, Node, Pod},
    figure::{Axis, Lane, Series, Svg, Unit, heat_map, line, plot},
    health::Health,
    text,
};

/// Most disks and interfaces of a host that are listed, busiest first.
const DEVICES: usize = 8;
/// Most pods of a host that are listed.
const PODS: usize = 8;

/// A host in full.
#[derive(Debug)]
pub(super) struct NodeView {
    pub(super) anchor: String,
    pub(super) name: String,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) heat: Option<Svg>,
    pub(super) plot: Option<Svg>,
    pub(super) devices: Option<Table>,
    pub(super) pods: Option<Table>,
    pub(super) caveats: Vec<(String, String)>,
}

pub(super) fn nodes(context: &Context<'_>, shown: u64) -> Vec<NodeView> {
    let nodes = context.doc.nodes.iter().enumerate().take(shown as usize);
    nodes.filter_map(|(i, node)| Some(view(context, node, context.node_anchor(i)?))).collect()
}

fn view(context: &Context<'_>, node: &Node, anchor: &str) -> NodeView {
    let name = text::middle(&text::one_line(&node.name, 400), 60);
    let has_cores = node.samples.iter().any(|s| s.cores.iter().any(Option::is_some));
    let heat = context.axis.filter(|_| has_cores).map(|axis| {
        let cores = node.samples.iter().map(|s| s.cores.len()).max().unwrap_or(0).min(4096);
        let slots = Slots::new(axis, &node.samples);
        let rows: Vec<Vec<Option<u16>>> = (0..cores)
            .map(|core| slots.fill(&node.samples, |s| s.cores.get(core).copied().flatten().map(|c| c.busy_permille())))
            .collect();
        let desc = format!(
            "Busy share of each of {} over the window; darker is busier",
            text::plural(cores as u64, "core", "cores")
        );
        heat_map(&format!("{anchor}.heat"), &format!("CPU by core of {name}"), &desc, axis, &rows)
    });
    NodeView {
        anchor: anchor.to_owned(),
        facts: facts(node),
        heat,
        plot: context.axis.and_then(|axis| lanes(node, axis, anchor, &name)),
        devices: devices(node, anchor, &name),
        pods: pods(context, node, anchor, &name),
        caveats: context.caveats_by_id(&node.weakened_by),
        name,
    }
}

/// Samples by their place on the axis, so that a missing one leaves a hole.
struct Slots {
    start_ns: u64,
    step_ns: u64,
    number: usize,
}

impl Slots {
    fn new(axis: Axis, samples: &[HostSample]) -> Self {
        let mut lengths: Vec<u64> = samples.iter().map(|s| s.duration_ns).filter(|d| *d > 0).collect();
        lengths.sort_unstable();
        let length = axis.end_ns - axis.start_ns;
        let step_ns =
            lengths.get(lengths.len() / 2).copied().unwrap_or(1_000_000_000).clamp(length / 2000 + 1, length.max(2));
        Self { start_ns: axis.start_ns, step_ns, number: length.div_ceil(step_ns).max(1) as usize }
    }

    fn fill<T: Copy + Ord>(&self, samples: &[HostSample], value: impl Fn(&HostSample) -> Option<T>) -> Vec<Option<T>> {
        let mut row = vec![None; self.number];
        for sample in samples {
            let middle = sample.start_ns.saturating_add(sample.duration_ns / 2).saturating_sub(self.start_ns);
            if let Some(slot) = row.get_mut((middle / self.step_ns) as usize) {
                *slot = (*slot).max(value(sample));
            }
        }
        row
    }
}

fn facts(node: &Node) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut add = |label, value: Option<String>| facts.push((label, value.unwrap_or_else(|| text::NONE.to_owned())));
    add("Kernel", node.kernel.clone());
    add("System", node.os.clone());
    add("CPUs", node.cpus.map(|n| text::count(u64::from(n))));
    add("Memory", node.memory_bytes.map(text::bytes));
    let most = |value: &dyn Fn(&HostSample) -> Option<u64>| node.samples.iter().filter_map(value).max();
    add("Most used", most(&|s| s.memory_used_bytes).map(text::bytes));
    let load = node
        .samples
        .iter()
        .filter_map(|s| s.load_1m)
        .filter(|l| l.is_finite())
        .fold(None, |a: Option<f64>, b| Some(a.map_or(b, |a| a.max(b))));
    add("Highest load", load.map(text::significant));
    let pressure = most(&|s| s.pressure.and_then(|p| p.cpu_some_permille).map(u64::from));
    add("Highest CPU pressure", pressure.map(|p| text::percent(p as f64 / 1000.0)));
    let sent: u64 = node.samples.iter().filter_map(|s| s.tcp).map(|t| t.segments_out).sum();
    let again: u64 = node.samples.iter().filter_map(|s| s.tcp).map(|t| t.retransmitted).sum();
    let counted = node.samples.iter().any(|s| s.tcp.is_some());
    if let Some(kubernetes) = &node.kubernetes {
        let state = match kubernetes.ready {
            Some(true) => "ready".to_owned(),
            Some(false) => "not ready".to_owned(),
            None => text::NONE.to_owned(),
        };
        let cordoned = kubernetes.is_cordoned.then(|| "cordoned".to_owned());
        let all: Vec<String> = std::iter::once(state).chain(cordoned).chain(kubernetes.troubles.clone()).collect();
        add("Kubernetes", Some(text::one_line(&all.join(", "), 160)));
        add("Zone", kubernetes.zone.clone());
        add("Pods", Some(text::count(kubernetes.pods)));
        add("Kubelet", kubernetes.kubelet.clone());
        add("Runtime", kubernetes.runtime.clone());
    }
    if node.samples.is_empty() {
        return facts.into_iter().filter(|(_, value)| value != text::NONE).collect();
    }
    let mut add = |label, value: Option<String>| facts.push((label, value.unwrap_or_else(|| text::NONE.to_owned())));
    add(
        "TCP sent again",
        counted.then(|| format!("{} of {} ({})", text::count(again), text::count(sent), text::share(again, sent))),
    );
    facts
}

fn lanes(node: &Node, axis: Axis, anchor: &str, name: &str) -> Option<Svg> {
    let gap = node.samples.iter().map(|s| s.duration_ns).max().unwrap_or(1).max(1);
    let series = |label: &str, ink: u8, area: bool, value: &dyn Fn(&HostSample) -> Option<f64>| {
        let points: Vec<(u64, Option<f64>)> =
            node.samples.iter().map(|s| (s.start_ns.saturating_add(s.duration_ns / 2), value(s))).collect();
        let seen = points.iter().any(|p| p.1.is_some());
        seen.then(|| if area { Series::area(label, ink, gap, points) } else { Series::line(label, ink, gap, points) })
    };
    let mut lanes = Vec::new();
    let mut add = |title: &str, unit, least: f64, all: Vec<Option<Series>>| {
        let series: Vec<Series> = all.into_iter().flatten().collect();
        if !series.is_empty() {
            lanes.push(Lane { at_least: least, height: 60, ..Lane::new(title, unit, series) });
        }
    };
    // Areas from the whole to its parts, each drawn over the one before: the visible bands are the split.
    let split = |part: fn(&CoreSplit) -> u64| {
        move |s: &HostSample| {
            let cores: Vec<u64> = s.cores.iter().flatten().map(part).collect();
            (!cores.is_empty()).then(|| cores.iter().sum::<u64>() as f64 / cores.len() as f64)
        }
    };
    let user: fn(&CoreSplit) -> u64 = |c| u64::from(c.user_permille);
    let system: fn(&CoreSplit) -> u64 = |c| u64::from(c.user_permille) + u64::from(c.system_permille);
    let irq: fn(&CoreSplit) -> u64 =
        |c| u64::from(c.user_permille) + u64::from(c.system_permille) + u64::from(c.irq_permille);
    let steal: fn(&CoreSplit) -> u64 = |c| u64::from(c.busy_permille());
    let iowait: fn(&CoreSplit) -> u64 = |c| u64::from(c.busy_permille()) + u64::from(c.iowait_permille);
    add(
        "CPU, mean of all cores",
        Unit::Permille,
        1000.0,
        vec![
            series("I/O wait", 5, true, &split(iowait)),
            series("stolen", 9, true, &split(steal)),
            series("interrupts", 4, true, &split(irq)),
            series("system", 2, true, &split(system)),
            series("user", 1, true, &split(user)),
        ],
    );
    let total = node.memory_bytes.map_or(0.0, |b| b as f64);
    add(
        "Memory in use",
        Unit::Bytes,
        total,
        vec![series("in use", 3, true, &|s| s.memory_used_bytes.map(|b| b as f64))],
    );
    let share = |v: Option<u16>| v.map(f64::from);
    add(
        "Pressure: share of time in which tasks waited",
        Unit::Permille,
        100.0,
        vec![
            series("CPU", 1, false, &|s| s.pressure.and_then(|p| share(p.cpu_some_permille))),
            series("memory", 3, false, &|s| s.pressure.and_then(|p| share(p.memory_some_permille))),
            series("I/O", 2, false, &|s| s.pressure.and_then(|p| share(p.io_some_permille))),
        ],
    );
    add(
        "Load over one minute",
        Unit::Plain,
        f64::from(node.cpus.unwrap_or(1)),
        vec![series("load", 1, false, &|s| s.load_1m)],
    );
    let desc = "CPU split, memory, pressure and load over the window; the extremes are in the list above";
    (!lanes.is_empty())
        .then(|| plot(&format!("{anchor}.plot"), &format!("Host figures of {name}"), desc, axis, &lanes, &[]))
}

/// The pods on a node that answer most, and those in trouble.
fn pods(context: &Context<'_>, node: &Node, anchor: &str, name: &str) -> Option<Table> {
    let mut pods: Vec<&Pod> =
        context.doc.pods.iter().filter(|pod| pod.node.as_deref() == Some(node.name.as_str())).collect();
    let total = pods.len();
    pods.sort_by(|a, b| {
        let load = |pod: &Pod| (pod.restarts > 0, pod.inbound.requests, pod.restarts);
        load(b).cmp(&load(a)).then(a.name.cmp(&b.name)).then(a.id.cmp(&b.id))
    });
    let rows = pods.into_iter().take(PODS).map(|pod| {
        let workload = pod.workload.as_deref().and_then(|id| context.workload_anchor(id));
        Row {
            id: None,
            cells: vec![
                Cell::name(&format!("{}/{}", pod.namespace, pod.name), 60)
                    .with_href(workload.map(|anchor| format!("#{anchor}"))),
                Cell::count(pod.inbound.requests),
                Cell::share(pod.inbound.errors, pod.inbound.judged(), Health::of_golden(&pod.inbound)),
                Cell::duration(pod.inbound.p95_ns),
                Cell::count(pod.restarts),
            ],
        }
    });
    let rows: Vec<Row> = rows.collect();
    (!rows.is_empty()).then(|| Table {
        id: format!("{anchor}.pods"),
        caption: format!("Pods on {name}, those that were restarted first, then by requests"),
        columns: vec![
            Column::text("Pod", "Leads to its workload"),
            Column::number("Requests", "", "Requests that it answered"),
            Column::number("Errors", "%", "Share of these answered by an error"),
            Column::number("p95", "", "95% of answered requests were at least as fast"),
            Column::number("Restarts", "", "How often its containers were started again"),
        ],
        hidden: (total - rows.len()) as u64,
        hidden_what: "the idlest",
        hidden_where: "",
        rows,
    })
}

/// Disks and interfaces in one table: both move bytes.
fn devices(node: &Node, anchor: &str, name: &str) -> Option<Table> {
    struct Device<'a> {
        kind: &'static str,
        name: &'a str,
        moved: [u64; 2],
        length_ns: u64,
        trend: Vec<Option<u64>>,
        note: String,
    }
    let per_second = |bytes: u64, ns: u64| (bytes as f64 * 1e9 / ns.max(1) as f64) as u64;
    let disks = node.disks.iter().map(|disk| {
        let busiest = disk.samples.iter().filter_map(|s| s.busy_permille).max();
        Device {
            kind: "disk",
            name: &disk.name,
            moved: disk.samples.iter().fold([0, 0], |m, s| [m[0] + s.read_bytes, m[1] + s.written_bytes]),
            length_ns: disk.samples.iter().map(|s| s.duration_ns).sum(),
            trend: disk.samples.iter().map(|s| Some(s.read_bytes + s.written_bytes)).collect(),
            note: text::or_none(busiest, |b| format!("at most {} busy", text::percent(f64::from(b) / 1000.0))),
        }
    });
    let interfaces = node.interfaces.iter().map(|interface| {
        let dropped: u64 = interface.samples.iter().map(|s| s.dropped + s.errors).sum();
        Device {
            kind: "interface",
            name: &interface.name,
            moved: interface.samples.iter().fold([0, 0], |m, s| [m[0] + s.received_bytes, m[1] + s.sent_bytes]),
            length_ns: interface.samples.iter().map(|s| s.duration_ns).sum(),
            trend: interface.samples.iter().map(|s| Some(s.received_bytes + s.sent_bytes)).collect(),
            note: format!("{} dropped or failed", text::plural(dropped, "packet", "packets")),
        }
    });
    let mut all: Vec<Device<'_>> = disks.chain(interfaces).filter(|d| !d.trend.is_empty()).collect();
    let total = all.len();
    all.sort_by(|a, b| {
        (b.moved[0] + b.moved[1]).cmp(&(a.moved[0] + a.moved[1])).then_with(|| (a.kind, a.name).cmp(&(b.kind, b.name)))
    });
    all.truncate(DEVICES);
    let rows: Vec<Row> = all
        .into_iter()
        .map(|d| Row {
            id: None,
            cells: vec![
                Cell::name(d.name, 32),
                Cell::text(d.kind),
                Cell::bytes(per_second(d.moved[0], d.length_ns)),
                Cell::bytes(per_second(d.moved[1], d.length_ns)),
                Cell::figure(line(&d.trend, "s1")),
                Cell::text(d.note),
            ],
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: format!("{anchor}.devices"),
        caption: format!("Disks and interfaces of {name}, busiest first"),
        columns: vec![
            Column::text("Device", ""),
            Column::text("Kind", ""),
            Column::number("Read or received", "/s", "Mean over the window"),
            Column::number("Written or sent", "/s", "Mean over the window"),
            Column::text("Trend", "Bytes both ways over the window"),
            Column::text("Notes", ""),
        ],
        hidden: (total - rows.len()) as u64,
        hidden_what: "the idlest",
        hidden_where: "",
        rows,
    })
}
