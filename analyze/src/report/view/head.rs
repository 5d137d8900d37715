//! The head of the page: what was recorded, when, how completely, and the golden metrics of everything.

use super::Context;
use crate::report::{
    document::{Bundle, Document, Severity},
    health::Health,
    text,
};

/// The header.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) title: String,
    /// Name and version of the program.
    pub(super) tool: String,
    pub(super) window: Option<Window>,
    pub(super) facts: Vec<(&'static str, String)>,
    /// Sure or doubtful, what, and where the ledger says more.
    pub(super) completeness: Vec<Chip>,
    pub(super) tiles: Vec<Tile>,
}

/// The window of time.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) from: (String, String),
    pub(super) to: (String, String),
    pub(super) length: String,
}

/// One statement about completeness.
#[derive(Debug)]
pub(super) struct Chip {
    pub(super) health: Health,
    pub(super) text: String,
}

/// One large figure.
#[derive(Debug)]
pub(super) struct Tile {
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) sub: String,
    pub(super) class: &'static str,
}

impl Head {
    pub(super) fn new(context: &Context<'_>) -> Self {
        let doc = context.doc;
        let capture = &doc.capture;
        let nodes = list(&capture.nodes, 4);
        let place = match (&capture.cluster, nodes.is_empty()) {
            (Some(cluster), _) => cluster.clone(),
            (None, false) => nodes.clone(),
            (None, true) => {
                let options = capture.bundles.iter().flat_map(|bundle| &bundle.options);
                let sources =
                    options.filter(|option| option.name == Bundle::IMPORTED_FROM).map(|option| option.value.clone());
                let sources = list(&sources.collect::<Vec<_>>(), 4);
                if sources.is_empty() { "unnamed host".to_owned() } else { sources }
            }
        };
        let window = capture.start_ns.zip(capture.end_ns).map(|(from, to)| Window {
            from: (text::rfc3339(from), text::date_time(from)),
            to: (text::rfc3339(to), text::clock(to)),
            length: text::duration(capture.duration_ns.unwrap_or(to.saturating_sub(from))),
        });
        let mut facts = Vec::new();
        if window.is_none() {
            facts.push(("Length", text::or_none(capture.duration_ns, text::duration)));
        }
        facts.push(("Nodes", if nodes.is_empty() { text::NONE.to_owned() } else { nodes }));
        let redaction = if capture.masked { "values masked in this report" } else { "values shown as recorded" };
        let level = if capture.redaction.is_empty() { text::NONE } else { &capture.redaction };
        facts.push(("Redaction", format!("{level} in the bundle, {redaction}")));
        let bundles: Vec<String> = capture.bundles.iter().map(|b| b.origin.clone()).collect();
        facts.push(("Bundle", if bundles.is_empty() { text::NONE.to_owned() } else { list(&bundles, 4) }));
        facts.push(("Tool", format!("{} {}", doc.tool.name, doc.tool.version)));
        Self {
            title: place,
            tool: format!("{} {}", doc.tool.name, doc.tool.version),
            window,
            facts,
            completeness: completeness(doc),
            tiles: tiles(doc),
        }
    }
}

fn list(names: &[String], most: usize) -> String {
    let mut shown: Vec<String> =
        names.iter().take(most).map(|name| text::middle(&text::one_line(name, 400), 40)).collect();
    if names.len() > most {
        shown.push(format!("+{} more", names.len() - most));
    }
    shown.join(", ")
}

/// What was and what was not seen, in one line each, the doubtful first.
fn completeness(doc: &Document) -> Vec<Chip> {
    let totals = &doc.ledger.totals;
    let mut chips = Vec::new();
    let mut add = |health, text: String| chips.push(Chip { health, text });
    match totals.lost_events {
        None => add(Health::Unknown, "lost events not counted".to_owned()),
        Some(0) => add(Health::Healthy, format!("no event lost of {}", text::count(totals.events))),
        Some(lost) => {
            let of = text::share(lost, totals.events.saturating_add(lost));
            add(Health::Critical, format!("{} lost ({of})", text::plural(lost, "event", "events")));
        }
    }
    if totals.bytes > 0 {
        let kept = text::share(totals.payload_kept_bytes, totals.bytes);
        add(
            Health::Healthy,
            format!(
                "payload kept: {} of {} ({kept})",
                text::bytes(totals.payload_kept_bytes),
                text::bytes(totals.bytes)
            ),
        );
    }
    if totals.unseen_bytes > 0 {
        add(Health::Warning, format!("{} passed unseen", text::bytes(totals.unseen_bytes)));
    }
    for (blind, word) in [("encrypted", "encrypted"), ("unknown", "of unknown protocol")] {
        let shares =
            doc.ledger.protocols.iter().filter(|p| p.protocol == blind || (blind == "encrypted" && p.encrypted));
        let (connections, bytes) =
            shares.fold((0u64, 0u64), |sum, p| (sum.0 + p.connections, sum.1.saturating_add(p.bytes)));
        if connections > 0 {
            let number = text::plural(connections, "connection", "connections");
            add(Health::Warning, format!("{number} {word} ({})", text::bytes(bytes)));
        }
    }
    if totals.connections_mid_stream > 0 {
        let joined = text::count(totals.connections_mid_stream);
        add(
            Health::Warning,
            format!(
                "{joined} of {} older than the capture",
                text::plural(totals.connections, "connection", "connections")
            ),
        );
    }
    let broken = doc.capture.bundles.iter().filter(|b| !b.whole).count() as u64;
    if broken > 0 {
        add(Health::Critical, format!("{} not whole", text::plural(broken, "bundle", "bundles")));
    }
    if let Some(error) = doc.capture.clock_error_ns {
        add(Health::Healthy, format!("clocks agree within {}", text::duration(error)));
    }
    let serious = doc.ledger.entries.iter().filter(|e| e.severity != Severity::Info).count() as u64;
    if serious > 0 {
        add(Health::Warning, format!("{} in the ledger", text::plural(serious, "caveat", "caveats")));
    }
    let rank = |h: Health| if h == Health::Unknown { Health::Warning } else { h };
    chips.sort_by_key(|chip| std::cmp::Reverse(rank(chip.health)));
    chips
}

fn tiles(doc: &Document) -> Vec<Tile> {
    let all = &doc.overall;
    let tile = |label, value: String, sub: String, class| Tile { label, value, sub, class };
    if all.requests == 0 {
        let bytes = text::bytes(doc.ledger.totals.bytes);
        return vec![
            tile("Requests", "none".to_owned(), "no request was decoded".to_owned(), ""),
            tile("Connections", text::count(doc.ledger.totals.connections), format!("{bytes} in all"), ""),
            tile("Events", text::count(doc.ledger.totals.events), String::new(), ""),
        ];
    }
    let health = Health::of_golden(all).class();
    let slow = all
        .slow_threshold_ns
        .map_or(String::new(), |limit| format!("{} over {}", text::count(all.slow), text::duration(limit)));
    let errors = format!("{} of {}", text::count(all.errors), text::count(all.judged()));
    let errors = match all.unknown {
        0 => errors,
        unknown => format!("{errors}, {} unseen", text::count(unknown)),
    };
    vec![
        tile(
            "Requests",
            text::count(all.requests),
            format!("{} services, {} edges", doc.services.len(), doc.edges.len()),
            "",
        ),
        tile(
            "Rate",
            all.rate_per_s.map_or_else(|| text::NONE.to_owned(), |r| format!("{}/s", text::significant(r))),
            "over the window".to_owned(),
            "",
        ),
        tile("Errors", text::share(all.errors, all.judged()), errors, health),
        tile(
            "Unanswered",
            text::count(all.unanswered),
            text::share(all.unanswered, all.judged()),
            if all.unanswered > 0 { "warn" } else { "" },
        ),
        tile("p50", text::or_none(all.p50_ns, text::duration), "median duration".to_owned(), ""),
        tile("p95", text::or_none(all.p95_ns, text::duration), String::new(), ""),
        tile("p99", text::or_none(all.p99_ns, text::duration), slow, ""),
        tile("Longest", text::or_none(all.max_ns, text::duration), String::new(), ""),
    ]
}
