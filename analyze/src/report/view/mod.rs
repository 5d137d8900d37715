//! From the document to what the page's templates print: nothing here decides anything, it only words and arranges.

mod connections;
mod context;
mod findings;
mod flow;
mod head;
mod ledger;
mod logs;
mod nodes;
mod plan;
mod table;
mod timeline;
mod workloads;

use super::{
    document::Document,
    figure::{Svg, draw_graph, focus},
};
use askama::Template;
pub(crate) use context::Context;
use plan::{Need, plan};
use table::Table;
pub(crate) use timeline::standalone as standalone_timeline;

/// A section: its heading, what weakens it, and its content.
#[derive(Debug, Default)]
struct Section {
    id: &'static str,
    title: &'static str,
    /// Shown beside the link to it.
    badge: String,
}

/// The whole page.
#[derive(Template)]
#[template(path = "report.html", config = "../report-templates/askama.toml")]
pub(crate) struct Page {
    csp: String,
    style: Verbatim,
    script: Verbatim,
    head: head::Head,
    sections: Vec<Section>,
    findings: findings::Findings,
    changes: Option<Table>,
    timeline: Option<Svg>,
    services: Option<Table>,
    details: Vec<flow::Detail>,
    details_hidden: u64,
    workloads: workloads::Workloads,
    graph: Option<Graph>,
    edges: Option<Table>,
    sql: Option<Table>,
    network: ledger::Facts,
    connections: Option<Table>,
    logs: Option<Table>,
    nodes: Vec<nodes::NodeView>,
    nodes_hidden: u64,
    ledger: ledger::LedgerView,
    checks: Option<Table>,
    bundles: Table,
    glossary: &'static [(&'static str, &'static str)],
    thresholds: Vec<(&'static str, String)>,
    caveats: Caveats,
}

/// What weakens whole sections.
struct Caveats {
    overall: Vec<(String, String)>,
    services: Vec<(String, String)>,
    edges: Vec<(String, String)>,
    sql: Vec<(String, String)>,
    network: Vec<(String, String)>,
    logs: Vec<(String, String)>,
    nodes: Vec<(String, String)>,
    time: Vec<(String, String)>,
}

/// The drawn graph and what it leaves out.
struct Graph {
    svg: Svg,
    left_out: String,
}

/// Style sheet or script, exactly as it was hashed.
#[derive(Clone, Copy)]
pub(crate) struct Verbatim(pub(crate) &'static str);

impl std::fmt::Display for Verbatim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl askama::filters::HtmlSafe for Verbatim {}

/// At most so many services get a section of their own, and so many of these a plot.
const DETAILS: u64 = 40;
const PLOTS: usize = 12;
/// At most so many hosts get figures.
const NODES: u64 = 8;

impl Page {
    /// Arranges a document that [`super::cleaned`] has made harmless.
    pub(crate) fn new(doc: &Document, csp: String, style: &'static str, script: &'static str) -> Self {
        let n = |len: usize| len as u64;
        let shown_details = n(doc.services.len()).min(DETAILS);
        let endpoints: u64 = doc.services.iter().take(DETAILS as usize).map(|s| n(s.endpoints.len()).min(100)).sum();
        let needs = [
            Need { rows: n(doc.findings.len()), each: 24, share: 960 },
            Need { rows: n(doc.ledger.entries.len()) + n(doc.ledger.losses.len()), each: 12, share: 800 },
            Need { rows: n(doc.services.len()), each: 26, share: 2600 },
            Need { rows: shown_details, each: 130, share: 1300 },
            Need { rows: endpoints, each: 15, share: 800 },
            Need { rows: n(doc.edges.len()), each: 19, share: 1000 },
            Need { rows: n(doc.sql.len()), each: 20, share: 800 },
            Need { rows: n(doc.network.connections.len()), each: 19, share: 700 },
            Need { rows: n(doc.nodes.len()).min(NODES), each: 330, share: 990 },
            Need { rows: n(doc.checks.len()), each: 9, share: 500 },
            Need { rows: n(doc.changes.len()), each: 12, share: 480 },
            Need { rows: n(doc.workloads.len()), each: 24, share: 480 },
            Need { rows: n(doc.workloads.len()).min(DETAILS), each: 400, share: 1200 },
            Need { rows: n(doc.logs.len()), each: 19, share: 700 },
        ];
        let [
            finding_rows,
            ledger_rows,
            service_rows,
            detail_rows,
            endpoint_rows,
            edge_rows,
            sql_rows,
            connection_rows,
            node_rows,
            check_rows,
            change_rows,
            workload_rows,
            workload_details,
            log_rows,
        ] = plan(needs);
        let context = Context::new(
            doc,
            finding_rows,
            ledger_rows,
            service_rows,
            detail_rows,
            sql_rows,
            connection_rows,
            node_rows,
            workload_rows.max(workload_details),
        );
        let graph = Self::graph(doc, &context);
        let (details, details_hidden) = flow::details(&context, detail_rows, endpoint_rows, PLOTS);
        let mut page = Self {
            csp,
            style: Verbatim(style),
            script: Verbatim(script),
            head: head::Head::new(&context),
            sections: Vec::new(),
            findings: findings::findings(&context, finding_rows),
            changes: timeline::changes(&context, change_rows),
            timeline: timeline::timeline(&context),
            services: flow::services(&context, service_rows),
            details,
            details_hidden,
            workloads: workloads::workloads(&context, workload_rows, workload_details),
            graph,
            edges: flow::edges(&context, edge_rows),
            sql: flow::statements(&context, sql_rows),
            network: ledger::network_facts(&context),
            connections: connections::connections(&context, connection_rows),
            logs: logs::logs(&context, log_rows),
            nodes: nodes::nodes(&context, node_rows),
            nodes_hidden: n(doc.nodes.len()).saturating_sub(node_rows),
            ledger: ledger::ledger(&context, ledger_rows),
            checks: ledger::checks(&context, check_rows),
            bundles: ledger::bundles(&context),
            glossary: ledger::GLOSSARY,
            thresholds: ledger::thresholds(&context),
            caveats: Caveats::new(&context),
        };
        page.sections = page.sections(doc);
        page
    }

    fn graph(doc: &Document, context: &Context<'_>) -> Option<Graph> {
        let focus = focus(doc, |id| context.health(id), |id| context.service_anchor(id).map(str::to_owned));
        (focus.graph.node_count() > 0).then(|| {
            let mut left_out = Vec::new();
            for (number, what) in [
                (focus.hidden_nodes, "services not drawn"),
                (focus.hidden_arrows, "dependencies not drawn"),
                (focus.alone, "services without dependencies"),
            ] {
                if number > 0 {
                    left_out.push(format!("+{number} {what}"));
                }
            }
            Graph { svg: draw_graph("graph-figure", doc, &focus, true), left_out: left_out.join(" · ") }
        })
    }

    /// Sections that have something to show, in reading order.
    fn sections(&self, doc: &Document) -> Vec<Section> {
        let all = [
            ("findings", "Findings", doc.findings.len(), true),
            ("changes", "Changes", doc.changes.len(), self.changes.is_some()),
            ("timeline", "Timeline", 0, true),
            ("services", "Services", doc.services.len(), true),
            ("workloads", "Workloads", doc.workloads.len(), self.workloads.table.is_some()),
            ("graph", "Graph", doc.edges.len(), self.edges.is_some()),
            ("sql", "SQL", doc.sql.len(), self.sql.is_some()),
            ("network", "Network", doc.network.connections_total as usize, true),
            ("logs", "Logs", doc.logs.len(), self.logs.is_some()),
            ("nodes", "Nodes", doc.nodes.len(), !self.nodes.is_empty()),
            ("ledger", "Ledger", doc.ledger.entries.len(), true),
            ("appendix", "Appendix", 0, true),
        ];
        all.into_iter()
            .filter(|(.., shown)| *shown)
            .map(|(id, title, number, _)| Section {
                id,
                title,
                badge: if number > 0 { super::text::count(number as u64) } else { String::new() },
            })
            .collect()
    }
}

impl Caveats {
    fn new(context: &Context<'_>) -> Self {
        use super::document::Figure::{Bytes, Latency, Logs, Network, Nodes, Requests, Sql, Time, Topology};
        Self {
            overall: context.caveats(&[Requests, Latency, Bytes]),
            services: context.caveats(&[Requests, Latency]),
            edges: context.caveats(&[Requests, Latency, Bytes, Topology]),
            sql: context.caveats(&[Sql, Latency]),
            network: context.caveats(&[Network, Bytes]),
            logs: context.caveats(&[Logs]),
            nodes: context.caveats(&[Nodes]),
            time: context.caveats(&[Time]),
        }
    }
}
