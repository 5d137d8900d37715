//! Services, their endpoints, edges, statements.

use super::Context;
use super::table::{Cell, Column, Row, Table};
use super::timeline::service_plot;
use crate::report::{
    document::{Edge, Endpoint, Exemplar, Figure, Golden, Point, Service, Statement},
    figure::{Svg, bars, line},
    health::Health,
    text,
};
use std::collections::BTreeSet;

/// A service in full.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) anchor: String,
    pub(super) name: String,
    pub(super) full: String,
    pub(super) health: Health,
    pub(super) headline: String,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) clients: Vec<Neighbour>,
    pub(super) clients_hidden: usize,
    pub(super) dependencies: Vec<Neighbour>,
    pub(super) dependencies_hidden: usize,
    pub(super) plot: Option<Svg>,
    pub(super) endpoints: Option<Table>,
    pub(super) caveats: Vec<(String, String)>,
    pub(super) open: bool,
}

/// A service on the other end of an edge.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) name: String,
    pub(super) href: Option<String>,
    pub(super) health: Health,
    pub(super) what: String,
}

/// Most clients and dependencies listed in a service's section.
const NEIGHBOURS: usize = 8;

/// Values of a series on the whole axis; steps that were not observed stay empty.
fn on_axis<T>(context: &Context<'_>, series: &[Point], value: impl Fn(&Point) -> Option<T>) -> Vec<Option<T>> {
    let step = context.doc.capture.step_ns.max(1);
    let (Some(axis), false) = (context.axis, series.is_empty()) else { return Vec::new() };
    let steps = ((axis.end_ns - axis.start_ns).div_ceil(step)).min(10_000) as usize;
    let mut values: Vec<Option<T>> = std::iter::repeat_with(|| None).take(steps).collect();
    for point in series {
        let i = (point.start_ns.saturating_sub(axis.start_ns) / step) as usize;
        if let Some(slot) = values.get_mut(i) {
            *slot = value(point);
        }
    }
    values
}

fn load(context: &Context<'_>, golden: &Golden) -> Cell {
    let values = on_axis(context, &golden.series, |p| Some((p.requests, p.errors)));
    if values.is_empty() { Cell::none() } else { Cell::figure(bars(&values)) }
}

fn tail(context: &Context<'_>, golden: &Golden) -> Cell {
    let values = on_axis(context, &golden.series, |p| p.p99_ns);
    if values.iter().all(Option::is_none) { Cell::none() } else { Cell::figure(line(&values, "s2")) }
}

/// Columns that services, endpoints and edges share.
fn golden_columns(context: &Context<'_>) -> Vec<Column> {
    let requests = || context.column_caveat(Figure::Requests);
    let latency = || context.column_caveat(Figure::Latency);
    vec![
        Column::number("Rate", "/s", "Requests a second over the window").weakened(requests()),
        Column::number("Requests", "", "Requests seen, answered or not").weakened(requests()),
        Column::number(
            "Errors",
            "%",
            "Share of requests answered by an error, of those whose outcome was seen; HTTP 4xx is counted but colours nothing",
        )
        .weakened(requests()),
        Column::number("p50", "", "Median duration of answered requests").weakened(latency()),
        Column::number("p95", "", "95% of answered requests were at least as fast").weakened(latency()),
        Column::number("p99", "", "99% of answered requests were at least as fast").weakened(latency()),
        Column::number("Max", "", "Longest answered request"),
        Column::number("Slow", "", "Answered requests over the threshold of the appendix"),
        Column::number("Unansw.", "", "Requests without an answer when the connection or the capture ended"),
        Column::number("Unseen", "", "Requests whose outcome was not seen: cut or lost"),
    ]
}

fn golden_cells(golden: &Golden) -> Vec<Cell> {
    if golden.requests == 0 {
        return std::iter::repeat_with(Cell::none).take(10).collect();
    }
    vec![
        Cell::rate(golden.rate_per_s),
        Cell::count(golden.requests),
        Cell::share(golden.errors, golden.judged(), Health::of_golden(golden)),
        Cell::duration(golden.p50_ns),
        Cell::duration(golden.p95_ns),
        Cell::duration(golden.p99_ns),
        Cell::duration(golden.max_ns),
        Cell::count(golden.slow_threshold_ns.map(|_| golden.slow)),
        Cell::count(golden.unanswered),
        Cell::count(golden.unknown),
    ]
}

pub(super) fn services(context: &Context<'_>, shown: u64) -> Option<Table> {
    let services = &context.doc.services;
    let mut columns = vec![
        Column::text("Service", "Unit, container, process group or workload"),
        Column::text("State", "From the share of errors, and from findings"),
    ];
    columns.extend(golden_columns(context));
    columns.push(Column::text("Load", "Requests over the window; errors in front"));
    columns.push(Column::text("p99 trend", "99th percentile over the window, from 0"));
    let mut seen = BTreeSet::new();
    let rows = services.iter().enumerate().take(shown as usize).map(|(i, service)| {
        let first = seen.insert(service.id.as_str());
        let place = match (&service.node, service.protocols.is_empty()) {
            (Some(node), false) => {
                format!("{} on {} · {}", service.kind.word(), text::middle(node, 24), service.protocols.join(", "))
            }
            (Some(node), true) => format!("{} on {}", service.kind.word(), text::middle(node, 24)),
            (None, false) => format!("{} · {}", service.kind.word(), service.protocols.join(", ")),
            (None, true) => service.kind.word().to_owned(),
        };
        let mut cells = vec![
            Cell::name(&service.name, 34)
                .with_href(context.service_href(&service.id))
                .with_sub(text::one_line(&place, 80))
                .with_caveats(context.caveats_by_id(&service.weakened_by)),
            Cell::status(context.health(&service.id)),
        ];
        cells.extend(golden_cells(&service.inbound));
        cells.push(load(context, &service.inbound));
        cells.push(tail(context, &service.inbound));
        let anchor = context.service_anchor(&service.id).filter(|_| first && i as u64 >= context.sections);
        Row { id: anchor.map(str::to_owned), cells }
    });
    let rows: Vec<Row> = rows.collect();
    (!rows.is_empty()).then(|| Table {
        id: "services-table".to_owned(),
        caption: "Services, worst first".to_owned(),
        hidden: (services.len() - rows.len()) as u64,
        hidden_what: "the healthiest",
        hidden_where: "",
        columns,
        rows,
    })
}

/// Sections of the first services, and how many have none. The others' anchors are on their rows.
pub(super) fn details(context: &Context<'_>, shown: u64, endpoints: u64, plots: usize) -> (Vec<Detail>, u64) {
    let mut endpoints_left = endpoints as usize;
    let mut seen = BTreeSet::new();
    let services = &context.doc.services;
    let with_section: Vec<&Service> =
        services.iter().take(shown as usize).filter(|s| seen.insert(s.id.as_str())).collect();
    let mut list = Vec::new();
    for (i, service) in with_section.iter().enumerate() {
        let Some(anchor) = context.service_anchor(&service.id) else { continue };
        // Later services keep a fair part of the rows that are left.
        let fair = endpoints_left.div_ceil(with_section.len() - i).max(6).min(endpoints_left);
        let rows = service.endpoints.len().min(fair);
        endpoints_left -= rows;
        list.push(detail(context, service, anchor, rows, i, i < plots));
    }
    let hidden = services.len().saturating_sub(list.len()) as u64;
    (list, hidden)
}

fn detail(
    context: &Context<'_>,
    service: &Service,
    anchor: &str,
    endpoints: usize,
    index: usize,
    plot: bool,
) -> Detail {
    let doc = context.doc;
    let golden = &service.inbound;
    let headline = if golden.requests == 0 {
        "no requests seen coming in".to_owned()
    } else {
        let rate = golden.rate_per_s.map_or_else(
            || text::plural(golden.requests, "request", "requests"),
            |r| format!("{}/s", text::significant(r)),
        );
        format!(
            "{rate} · {} errors · p99 {}",
            text::share(golden.errors, golden.judged()),
            text::or_none(golden.p99_ns, text::duration)
        )
    };
    let clients: Vec<Neighbour> =
        doc.edges.iter().filter(|e| e.server == service.id).map(|e| neighbour(context, &e.client, e)).collect();
    let dependencies: Vec<Neighbour> =
        doc.edges.iter().filter(|e| e.client == service.id).map(|e| neighbour(context, &e.server, e)).collect();
    Detail {
        anchor: anchor.to_owned(),
        name: text::middle(&text::one_line(&service.name, 400), 56),
        full: service.name.clone(),
        health: context.health(&service.id),
        headline,
        facts: facts(service),
        clients_hidden: clients.len().saturating_sub(NEIGHBOURS),
        dependencies_hidden: dependencies.len().saturating_sub(NEIGHBOURS),
        clients: clients.into_iter().take(NEIGHBOURS).collect(),
        dependencies: dependencies.into_iter().take(NEIGHBOURS).collect(),
        plot: if plot { service_plot(context, service, anchor) } else { None },
        endpoints: endpoint_table(context, service, anchor, endpoints),
        caveats: context.caveats_by_id(&service.weakened_by),
        open: index < 1,
    }
}

fn facts(service: &Service) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Kind", service.kind.word().to_owned())];
    if let Some(node) = &service.node {
        facts.push(("Node", text::one_line(node, 80)));
    }
    let list = |items: Vec<String>, most: usize| {
        let more = items.len().saturating_sub(most);
        let shown = items.into_iter().take(most).collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    };
    if !service.listens.is_empty() {
        facts.push(("Listens on", list(service.listens.iter().map(|l| text::one_line(l, 60)).collect(), 4)));
    }
    if !service.processes.is_empty() {
        let named = service.processes.iter().map(|p| format!("{} ({})", text::one_line(&p.name, 40), p.pid)).collect();
        facts.push(("Processes", list(named, 4)));
    }
    if let Some(command) = service.processes.iter().find_map(|p| p.command.as_ref()) {
        facts.push(("Command", text::one_line(command, 160)));
    }
    if let Some(outbound) = &service.outbound {
        let errors = text::share(outbound.errors, outbound.judged());
        let p99 = text::or_none(outbound.p99_ns, text::duration);
        facts.push((
            "Calls out",
            format!("{} · {errors} errors · p99 {p99}", text::plural(outbound.requests, "request", "requests")),
        ));
    }
    if let Some(limit) = service.inbound.slow_threshold_ns {
        facts.push(("Slow means", format!("over {}", text::duration(limit))));
    }
    if !service.flags.is_empty() {
        facts.push(("Flags", list(service.flags.clone(), 8)));
    }
    facts
}

fn neighbour(context: &Context<'_>, id: &str, edge: &Edge) -> Neighbour {
    let name = context.service_name(id);
    let golden = &edge.golden;
    let what = if golden.requests == 0 {
        format!("{} · {}", edge.protocol, text::plural(edge.connections, "connection", "connections"))
    } else {
        let errors = if golden.errors > 0 {
            format!(" · {} errors", text::share(golden.errors, golden.judged()))
        } else {
            String::new()
        };
        format!(
            "{} · {}{errors} · p99 {}",
            edge.protocol,
            text::plural(golden.requests, "request", "requests"),
            text::or_none(golden.p99_ns, text::duration)
        )
    };
    Neighbour {
        name: text::middle(&text::one_line(name, 400), 34),
        href: context.service_href(id),
        health: Health::of_edge(edge),
        what: text::one_line(&what, 120),
    }
}

fn endpoint_table(context: &Context<'_>, service: &Service, anchor: &str, shown: usize) -> Option<Table> {
    let mut columns = vec![Column::text("Endpoint", "Operation and target"), Column::text("Protocol", "")];
    columns.extend(golden_columns(context));
    columns.push(Column::text("Load", "Requests over the window; errors in front"));
    let row = |endpoint: &Endpoint| {
        let what = match &endpoint.target {
            Some(target) => format!("{} {target}", endpoint.op),
            None => endpoint.op.clone(),
        };
        let mut cells =
            vec![Cell::name(&what, 56).with_sub(exemplars(endpoint)), Cell::text(endpoint.protocol.clone())];
        cells.extend(golden_cells(&endpoint.golden));
        cells.push(load(context, &endpoint.golden));
        Row { id: None, cells }
    };
    let rows: Vec<Row> = service.endpoints.iter().take(shown).map(row).collect();
    (!rows.is_empty()).then(|| Table {
        id: format!("{anchor}.endpoints"),
        caption: format!("Endpoints of {}, worst first", text::middle(&text::one_line(&service.name, 400), 40)),
        columns,
        hidden: service.endpoints_total.max(service.endpoints.len() as u64) - rows.len() as u64,
        hidden_what: "",
        hidden_where: if service.endpoints_total > service.endpoints.len() as u64 { "kfr dump --requests" } else { "" },
        rows,
    })
}

/// Where to look at an endpoint's slowest and its first failed request.
fn exemplars(endpoint: &Endpoint) -> String {
    let one = |what: &str, exemplar: &Option<Exemplar>| {
        let evidence = exemplar.as_ref()?.evidence.first()?;
        Some(format!("{what} {}", text::one_line(evidence, 60)))
    };
    let both = [one("slowest", &endpoint.slowest), one("first error", &endpoint.first_error)];
    both.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

pub(super) fn edges(context: &Context<'_>, shown: u64) -> Option<Table> {
    let edges = &context.doc.edges;
    let mut columns = vec![
        Column::text("Client → server", "Who calls whom"),
        Column::text("Protocol", ""),
        Column::text("State", "From errors and failed connects"),
    ];
    columns
        .extend(golden_columns(context).into_iter().filter(|c| !["p95", "Max", "Slow", "Unansw."].contains(&c.label)));
    let network = || context.column_caveat(Figure::Network);
    columns.extend([
        Column::number("Conns", "", "Connections"),
        Column::number("Sent", "", "Bytes from client to server").weakened(context.column_caveat(Figure::Bytes)),
        Column::number("Received", "", "Bytes from server to client").weakened(context.column_caveat(Figure::Bytes)),
        Column::number("Retrans.", "", "TCP segments sent again").weakened(network()),
        Column::number("Resets", "", "Connections ended by a reset").weakened(network()),
        Column::number("Failed", "", "Connection attempts that failed").weakened(network()),
    ]);
    // Where no node tells its zone, there is nothing to say.
    let with_zones = edges.iter().any(|edge| edge.cross_zone.is_some());
    if with_zones {
        columns.push(Column::number("Cross-zone", "", "Bytes, both ways, of connections from one zone to another"));
    }
    let row = |edge: &Edge| {
        let (client, server) = (edge_end(context, &edge.client), edge_end(context, &edge.server));
        let mut name = Cell::name(&format!("{client} → {server}"), 60).with_href(context.service_href(&edge.server));
        if !edge.flags.is_empty() {
            name = name.with_sub(edge.flags.join(", "));
        }
        let mut cells = vec![name, Cell::text(edge.protocol.clone()), Cell::status(Health::of_edge(edge))];
        let golden = golden_cells(&edge.golden);
        cells.extend(golden.into_iter().enumerate().filter(|(i, _)| ![4, 6, 7, 8].contains(i)).map(|(_, cell)| cell));
        cells.extend([
            Cell::count(edge.connections),
            Cell::bytes(edge.bytes_sent),
            Cell::bytes(edge.bytes_received),
            Cell::count(edge.retransmits),
            Cell::count(edge.resets),
            Cell::count(edge.failed_connects),
        ]);
        if with_zones {
            cells.push(edge.cross_zone.map_or_else(Cell::none, |zones| {
                Cell::bytes(zones.bytes).with_sub(text::plural(zones.connections, "connection", "connections"))
            }));
        }
        Row { id: None, cells }
    };
    let rows: Vec<Row> = edges.iter().take(shown as usize).map(row).collect();
    (!rows.is_empty()).then(|| Table {
        id: "edges-table".to_owned(),
        caption: "Dependencies, worst first".to_owned(),
        hidden: (edges.len() - rows.len()) as u64,
        hidden_what: "the healthiest",
        hidden_where: "",
        columns,
        rows,
    })
}

fn edge_end(context: &Context<'_>, id: &str) -> String {
    let name = context.service_name(id);
    text::middle(&text::one_line(name, 400), 28)
}

pub(super) fn statements(context: &Context<'_>, shown: u64) -> Option<Table> {
    let sql = &context.doc.sql;
    let caveat = || context.column_caveat(Figure::Sql);
    let columns = vec![
        Column::text("Statement", "Normalised; literals are masked unless asked for"),
        Column::number("Total", "", "Time of all answered calls together").weakened(caveat()),
        Column::number("Share", "%", "Of the time of all statements").weakened(caveat()),
        Column::number("Calls", "", "").weakened(caveat()),
        Column::number("Mean", "", "Mean of answered calls"),
        Column::number("p95", "", "95% of answered calls were at least as fast"),
        Column::number("Max", "", "Longest call"),
        Column::number("Rows", "", "Returned or changed, as far as the protocol told, and by call"),
        Column::number("Errors", "%", "Share of calls that failed"),
        Column::text("Called by", ""),
    ];
    let whole: u64 = sql.iter().fold(0, |sum, s| sum.saturating_add(s.total_ns));
    let row = |(i, statement): (usize, &Statement)| {
        let short = text::one_line(&statement.text, 110);
        let mut head = Cell { class: "sql", ..Cell::text(short) }.with_more(Some(more(statement)));
        let server = statement.server.as_deref().map(|id| edge_end(context, id));
        head = head
            .with_sub([Some(statement.system.clone()), server].into_iter().flatten().collect::<Vec<_>>().join(" on "));
        // What stands out stays beside the text: a column of its own would be the one that is cut off.
        head.tags = statement.flags.iter().take(4).cloned().collect();
        let per_call = statement.rows.filter(|_| statement.calls > 0).map(|rows| rows as f64 / statement.calls as f64);
        let callers: Vec<String> = statement.callers.iter().take(3).map(|id| edge_end(context, id)).collect();
        let hidden = statement.callers.len().saturating_sub(3);
        let callers = if hidden > 0 { format!("{} +{hidden}", callers.join(", ")) } else { callers.join(", ") };
        let errors = Golden { requests: statement.judged(), errors: statement.errors, ..Golden::default() };
        let cells = vec![
            head,
            Cell::duration(Some(statement.total_ns)),
            Cell::share(statement.total_ns, whole, Health::Unknown),
            Cell::count(statement.calls),
            Cell::duration(statement.mean_ns),
            Cell::duration(statement.p95_ns),
            Cell::duration(statement.max_ns),
            Cell::count(statement.rows)
                .with_sub(per_call.map(|rows| format!("{} a call", text::significant(rows))).unwrap_or_default()),
            Cell::share(statement.errors, statement.judged(), Health::of_golden(&errors)),
            Cell { class: "who", ..Cell::text(callers) },
        ];
        Row { id: context.sql_anchor(i).map(str::to_owned), cells }
    };
    let rows: Vec<Row> = sql.iter().enumerate().take(shown as usize).map(row).collect();
    (!rows.is_empty()).then(|| Table {
        id: "sql-table".to_owned(),
        caption: "Statements by total time".to_owned(),
        hidden: (sql.len() - rows.len()) as u64,
        hidden_what: "the cheapest",
        hidden_where: "",
        columns,
        rows,
    })
}

fn more(statement: &Statement) -> String {
    let mut out = statement.text.clone();
    out.push_str(&format!("\n\nfingerprint {}", statement.fingerprint));
    let told = [
        ("used no index", statement.no_index),
        ("used no good index", statement.no_good_index),
        ("were slow for the server", statement.slow),
    ];
    for (what, calls) in told.into_iter().filter(|(_, calls)| *calls > 0) {
        let of = text::plural(statement.calls, "call", "calls");
        out.push_str(&format!("\n{} of {of} {what}", text::count(calls)));
    }
    if let Some(affected) = statement.affected {
        out.push_str(&format!("\n{} changed", text::plural(affected, "row", "rows")));
    }
    if statement.warnings > 0 {
        out.push_str(&format!("\n{}", text::plural(statement.warnings, "warning", "warnings")));
    }
    if let Some(found) = &statement.n_plus_one {
        let times = text::plural(found.occurrences, "run", "runs");
        let parent = found.parent.as_deref().unwrap_or("another");
        out.push_str(&format!("\none call for each row of statement {parent}: {times}, up to {} calls", found.longest));
    }
    if let Some(idle) = &statement.idle_in_transaction {
        let (most, total) = (text::duration(idle.max_ns), text::duration(idle.total_ns));
        out.push_str(&format!("\nidle in a transaction behind it: up to {most}, {total} in total"));
    }
    if let Some(slowest) = &statement.exemplar {
        let took = text::or_none(slowest.duration_ns, text::duration);
        out.push_str(&format!("\nslowest call {took} at {}", text::clock_ms(slowest.start_ns)));
        if !slowest.evidence.is_empty() {
            out.push_str(&format!("\nevidence {}", slowest.evidence.join(" ")));
        }
    }
    out
}
