//! The dependency graph: reduced to what can be read, placed in layers, drawn with health as colour, dash and word.

use super::layout::{Cell, Layered, Layout, Placement};
use super::{Svg, Writer};
use crate::report::{document::Document, health::Health, text};
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Most nodes and arrows in one picture; more can't be read.
const MOST_NODES: usize = 40;
const MOST_ARROWS: usize = 80;
/// With more arrows than this, labels would cover each other; hovering still tells.
const MOST_LABELS: usize = 24;

const CELL: Cell = Cell { width: 208, height: 48, gap_x: 170, gap_y: 32 };
const MARGIN: i32 = 24;

/// A service in the picture.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) service: usize,
    pub(crate) health: Health,
    pub(crate) href: Option<String>,
}

/// All edges from one service to another, as one arrow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrow {
    protocols: BTreeSet<String>,
    requests: u64,
    /// Of these, with a known outcome.
    judged: u64,
    errors: u64,
    failed: u64,
    connections: u64,
    p99_ns: Option<u64>,
    rate_per_s: Option<f64>,
    health: Health,
}

/// The part of the graph that is drawn.
#[derive(Debug, Default)]
pub(crate) struct Focus {
    pub(crate) graph: DiGraph<Shown, Arrow>,
    /// Services with edges that are not drawn.
    pub(crate) hidden_nodes: usize,
    /// Arrows that are not drawn.
    pub(crate) hidden_arrows: usize,
    /// Services that nobody calls and that call nobody.
    pub(crate) alone: usize,
}

/// Chooses what to draw: what findings and errors touch and their neighbours first, then by requests.
pub(crate) fn focus(doc: &Document, health: impl Fn(&str) -> Health, href: impl Fn(&str) -> Option<String>) -> Focus {
    let index: BTreeMap<&str, usize> = doc.services.iter().enumerate().rev().map(|(i, s)| (s.id.as_str(), i)).collect();
    let mut arrows: BTreeMap<(usize, usize), Arrow> = BTreeMap::new();
    for edge in &doc.edges {
        let (Some(client), Some(server)) = (index.get(edge.client.as_str()), index.get(edge.server.as_str())) else {
            continue;
        };
        let arrow = arrows.entry((*client, *server)).or_default();
        arrow.protocols.insert(edge.protocol.clone());
        arrow.requests += edge.golden.requests;
        arrow.judged += edge.golden.judged();
        arrow.errors += edge.golden.errors;
        arrow.failed += edge.failed_connects.unwrap_or(0);
        arrow.connections += edge.connections;
        arrow.p99_ns = arrow.p99_ns.max(edge.golden.p99_ns);
        arrow.rate_per_s = match (arrow.rate_per_s, edge.golden.rate_per_s) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        arrow.health = arrow.health.max(Health::of_edge(edge));
    }
    // Arrows by trouble at either end, then by requests, each with both of its ends: so nothing is drawn unconnected.
    let mut ranked: Vec<(&(usize, usize), &Arrow)> = arrows.iter().collect();
    let of = |service: usize| doc.services.get(service).map_or(Health::Unknown, |s| health(&s.id));
    ranked.sort_by_key(|((a, b), arrow)| {
        (std::cmp::Reverse((arrow.health.max(of(*a)).max(of(*b)), arrow.requests)), *a, *b)
    });
    let connected: BTreeSet<usize> = arrows.keys().flat_map(|(a, b)| [*a, *b]).collect();
    let mut drawn: BTreeSet<usize> = BTreeSet::new();
    for ((a, b), _) in &ranked {
        let more = [a, b].into_iter().filter(|end| !drawn.contains(end)).count();
        if drawn.len() + more <= MOST_NODES {
            drawn.extend([*a, *b]);
        }
    }
    let mut kept: Vec<(&(usize, usize), &Arrow)> =
        arrows.iter().filter(|((a, b), _)| drawn.contains(a) && drawn.contains(b)).collect();
    kept.sort_by_key(|(ends, arrow)| (std::cmp::Reverse((arrow.health, arrow.requests)), **ends));
    kept.truncate(MOST_ARROWS);
    kept.sort_by_key(|(ends, _)| **ends);

    let mut graph = DiGraph::new();
    let mut place: BTreeMap<usize, NodeIndex> = BTreeMap::new();
    for i in &drawn {
        if let Some(service) = doc.services.get(*i) {
            let shown = Shown { service: *i, health: health(&service.id), href: href(&service.id) };
            place.insert(*i, graph.add_node(shown));
        }
    }
    for ((a, b), arrow) in &kept {
        if let (Some(a), Some(b)) = (place.get(a), place.get(b)) {
            graph.add_edge(*a, *b, (*arrow).clone());
        }
    }
    Focus {
        hidden_nodes: connected.len() - drawn.len(),
        hidden_arrows: arrows.len() - kept.len(),
        alone: doc.services.len().saturating_sub(connected.len()),
        graph,
    }
}

/// Draws it; links lead to the services' sections.
pub(crate) fn draw_graph(id: &str, doc: &Document, focus: &Focus, links: bool) -> Svg {
    let graph = &focus.graph;
    let placed = Layered.place(graph, CELL);
    let size = (placed.size.0.max(CELL.width) + 2 * MARGIN, placed.size.1.max(CELL.height) + 2 * MARGIN);
    let title = "Dependency graph";
    let desc = format!(
        "{} and {}, callers on the left. The table below holds the same edges.",
        text::plural(graph.node_count() as u64, "service", "services"),
        text::plural(graph.edge_count() as u64, "dependency", "dependencies")
    );
    // A graph of many layers would shrink to dust on one screen: it scrolls.
    let class = if size.0 > 2_000 { "graph deep" } else { "graph" };
    let mut w = Writer::figure(id, class, size.0, size.1, title, &desc);
    // Lines first, then boxes, then labels: no line ever crosses a text.
    let routes: Vec<Route> = graph.edge_indices().filter_map(|e| Route::new(graph, &placed, e.index())).collect();
    for (edge, route) in graph.edge_weights().zip(&routes) {
        arrow(&mut w, edge, route);
    }
    for (shown, (x, y)) in graph.node_weights().zip(&placed.nodes) {
        node(&mut w, doc, shown, x + MARGIN, y + MARGIN, links);
    }
    if graph.edge_count() <= MOST_LABELS {
        for (edge, route) in graph.edge_weights().zip(&routes) {
            label(&mut w, edge, route);
        }
    }
    w.finish()
}

/// An arrow's line and the place of its label.
struct Route {
    d: String,
    head: String,
    label: (i32, i32),
    /// Where the label's two lines begin, from there: around a level line, beyond one that climbs or falls.
    lines: (i32, i32),
}

impl Route {
    fn new(graph: &DiGraph<Shown, Arrow>, placed: &Placement, edge: usize) -> Option<Self> {
        let (a, b) = graph.edge_endpoints(petgraph::graph::EdgeIndex::new(edge))?;
        let (from, to) = (placed.nodes.get(a.index())?, placed.nodes.get(b.index())?);
        let (from, to) = ((from.0 + MARGIN, from.1 + MARGIN), (to.0 + MARGIN, to.1 + MARGIN));
        let middle = CELL.height / 2;
        if a == b {
            let (x, y) = (from.0 + CELL.width / 2, from.1);
            let d = format!("M{} {y}C{} {},{} {},{} {}", x - 18, x - 22, y - 24, x + 22, y - 24, x + 18, y - 7);
            let head = triangle((x + 18, y), (0, 1));
            return Some(Self { d, head, label: (x + 50, y - 10), lines: (-5, 13) });
        }
        let backwards = to.0 <= from.0;
        let (start, end, side) = if backwards {
            ((from.0, from.1 + middle + 8), (to.0 + CELL.width, to.1 + middle + 8), -1)
        } else {
            ((from.0 + CELL.width, from.1 + middle), (to.0, to.1 + middle), 1)
        };
        let tip = (end.0 - 8 * side, end.1);
        let bends = placed.bends.get(edge)?.iter().map(|p| (p.0 + MARGIN, p.1 + MARGIN));
        let points: Vec<(i32, i32)> = std::iter::once(start).chain(bends).chain(std::iter::once(tip)).collect();
        let mut d = format!("M{} {}", start.0, start.1);
        for pair in points.windows(2) {
            let [p, q] = pair else { continue };
            let half = (q.0 - p.0) / 2;
            d.push_str(&format!("C{} {},{} {},{} {}", p.0 + half, p.1, q.0 - half, q.1, q.0, q.1));
        }
        // In the last gap, a little past its middle, where arrows of one source have parted. There a climbing line is below
        // the height of its tip and a falling one above it, so beyond that height is room for two lines of text.
        let last = points.get(points.len().checked_sub(2)?)?;
        let lines = match tip.1 - last.1 {
            rise if rise < -8 => (-20, -5),
            rise if rise > 8 => (14, 29),
            _ => (-5, 13),
        };
        Some(Self { d, head: triangle(end, (side, 0)), label: (last.0 + (tip.0 - last.0) * 55 / 100, tip.1), lines })
    }
}

/// An arrow head with its tip here, pointing along x or y.
fn triangle(tip: (i32, i32), along: (i32, i32)) -> String {
    let (x, y) = tip;
    if along.0 == 0 { format!("M{x} {y}l-4 -8h8z") } else { format!("M{x} {y}l{} -4v8z", -8 * along.0) }
}

fn arrow(w: &mut Writer, arrow: &Arrow, route: &Route) {
    // Width by the order of magnitude of requests: 1 to 6.
    let width = arrow.requests.checked_ilog10().map_or(1, |n| (n + 1).min(6));
    w.open("g", &[("class", &format!("edge {} w{width}", arrow.health.class()))]);
    w.leaf("title", &[], &arrow.title());
    w.path("hit", &route.d);
    w.path("line", &route.d);
    w.path("head", &route.head);
    w.close("g");
}

fn label(w: &mut Writer, arrow: &Arrow, route: &Route) {
    let (x, y) = route.label;
    let protocols: Vec<&str> = arrow.protocols.iter().map(String::as_str).collect();
    let first = match arrow.rate_per_s {
        Some(rate) if arrow.requests > 0 => {
            format!("{} {}/s", text::middle(&protocols.join("+"), 14), text::significant(rate))
        }
        _ => text::middle(&protocols.join("+"), 18),
    };
    w.text("el", x, y + route.lines.0, "middle", &first);
    let second = if arrow.errors > 0 {
        format!("{} err · p99 {}", text::share(arrow.errors, arrow.judged), text::or_none(arrow.p99_ns, text::duration))
    } else if let Some(p99) = arrow.p99_ns {
        format!("p99 {}", text::duration(p99))
    } else {
        text::plural(arrow.connections, "connection", "connections")
    };
    w.text(if arrow.health >= Health::Warning { "el bad" } else { "el" }, x, y + route.lines.1, "middle", &second);
}

impl Arrow {
    fn title(&self) -> String {
        let protocols: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        let failed =
            if self.failed > 0 { format!(", {} failed connects", text::count(self.failed)) } else { String::new() };
        format!(
            "{}: {}, {} ({}), p99 {}, {}{failed}: {}",
            protocols.join(" + "),
            text::plural(self.requests, "request", "requests"),
            text::plural(self.errors, "error", "errors"),
            text::share(self.errors, self.judged),
            text::or_none(self.p99_ns, text::duration),
            text::plural(self.connections, "connection", "connections"),
            self.health.word()
        )
    }
}

fn node(w: &mut Writer, doc: &Document, shown: &Shown, x: i32, y: i32, links: bool) {
    let Some(service) = doc.services.get(shown.service) else { return };
    let href = shown.href.as_ref().filter(|_| links).map(|anchor| format!("#{anchor}"));
    let class = format!("node {} {}", shown.health.class(), service.kind.word());
    match &href {
        Some(href) => w.open("a", &[("href", href), ("class", &class)]),
        None => w.open("g", &[("class", &class)]),
    }
    w.leaf("title", &[], &format!("{} ({}): {}", service.name, service.kind.word(), shown.health.word()));
    let (wide, high) = (CELL.width, CELL.height);
    w.path(
        "box",
        &format!(
            "M{} {y}h{}a6 6 0 0 1 6 6v{}a6 6 0 0 1 -6 6h-{}a6 6 0 0 1 -6 -6v-{}a6 6 0 0 1 6 -6z",
            x + 6,
            wide - 12,
            high - 12,
            wide - 12,
            high - 12
        ),
    );
    w.path("state", &shown.health.shape(x + 16, y + 17));
    w.text("nn", x + 28, y + 21, "start", &text::middle(&text::one_line(&service.name, 200), 20));
    let golden = &service.inbound;
    let p99 = text::or_none(golden.p99_ns, text::duration);
    let second = if golden.requests == 0 {
        format!("{} · no requests in", service.kind.word())
    } else if golden.errors > 0 {
        format!("{} errors · p99 {p99}", text::share(golden.errors, golden.judged()))
    } else if let Some(rate) = golden.rate_per_s {
        format!("{}/s · p99 {p99}", text::significant(rate))
    } else {
        format!("{} · p99 {p99}", text::plural(golden.requests, "request", "requests"))
    };
    w.text("ns", x + 12, y + 39, "start", &second);
    w.close(if href.is_some() { "a" } else { "g" });
}
