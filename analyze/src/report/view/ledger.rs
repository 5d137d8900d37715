//! The ledger in full, transport totals, and the appendix.

use super::Context;
use super::table::{Cell, Column, Row, Table};
use crate::report::{
    document::{Figure, Outcome, Severity},
    health::{ERRORS_CRITICAL, ERRORS_WARNING, Health},
    text,
};

/// Labels and values.
pub(super) type Facts = Vec<(&'static str, String)>;

/// What was and was not seen.
#[derive(Debug, Default)]
pub(super) struct LedgerView {
    pub(super) totals: Facts,
    pub(super) entries: Option<Table>,
    pub(super) losses: Option<Table>,
    pub(super) protocols: Option<Table>,
    pub(super) encrypted: Option<Table>,
}

pub(super) fn ledger(context: &Context<'_>, shown: u64) -> LedgerView {
    let ledger = &context.doc.ledger;
    let totals = &ledger.totals;
    let of_bytes = |part: u64| format!("{} ({})", text::bytes(part), text::share(part, totals.bytes));
    LedgerView {
        totals: vec![
            ("Events", text::count(totals.events)),
            ("Lost events", totals.lost_events.map_or_else(|| "not counted".to_owned(), text::count)),
            ("Requests decoded", text::count(totals.requests)),
            ("Connections with traffic", text::count(totals.connections)),
            ("Older than the capture", text::count(totals.connections_mid_stream)),
            ("Bytes through sockets", text::bytes(totals.bytes)),
            ("Payload kept", of_bytes(totals.payload_kept_bytes)),
            ("Payload not kept", of_bytes(totals.payload_cut_bytes)),
            ("Passed unseen", text::bytes(totals.unseen_bytes)),
        ],
        entries: entries(context, shown as usize),
        losses: losses(context, (shown as usize).saturating_sub(ledger.entries.len())),
        protocols: protocols(context),
        encrypted: encrypted(context),
    }
}

fn figure_word(figure: Figure) -> &'static str {
    match figure {
        Figure::Requests => "requests",
        Figure::Latency => "durations",
        Figure::Bytes => "bytes",
        Figure::Topology => "graph",
        Figure::Sql => "statements",
        Figure::Network => "network",
        Figure::Nodes => "nodes",
        Figure::Time => "times",
        Figure::Logs => "logs",
    }
}

fn entries(context: &Context<'_>, shown: usize) -> Option<Table> {
    let entries = &context.doc.ledger.entries;
    let rows: Vec<Row> = entries
        .iter()
        .enumerate()
        .take(shown)
        .map(|(i, entry)| {
            let health = Health::of_severity(entry.severity);
            let number = entry.count.map_or_else(Cell::none, |n| {
                let cell = Cell::count(n);
                Cell { text: text::quantity(n, &entry.unit), ..cell }
            });
            let weakens: Vec<String> = entry.weakens.iter().map(|f| figure_word(*f).to_owned()).collect();
            let state = if entry.severity == Severity::Info { Cell::text("note") } else { Cell::status(health) };
            let cells = vec![
                Cell::text(text::one_line(&entry.what, 200)),
                state,
                number,
                Cell { class: "prose", ..Cell::text(text::one_line(&entry.effect, 600)) },
                Cell::tags(&weakens),
                Cell::text(entry.area.clone()),
            ];
            Row { id: context.ledger_anchor(i).map(str::to_owned), cells }
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "ledger-table".to_owned(),
        caption: "What was not seen, or not surely".to_owned(),
        columns: vec![
            Column::text("What", ""),
            Column::text("Weight", "How much it matters"),
            Column::number("Count", "", ""),
            Column::text("What it means", ""),
            Column::text("Weakens", "Figures that are marked with ◐ for this reason"),
            Column::text("Area", "Where it happened"),
        ],
        hidden: (entries.len() - rows.len()) as u64,
        hidden_what: "the least serious",
        hidden_where: "",
        rows,
    })
}

fn losses(context: &Context<'_>, shown: usize) -> Option<Table> {
    let losses = &context.doc.ledger.losses;
    let rows: Vec<Row> = losses
        .iter()
        .take(shown)
        .map(|loss| Row {
            id: None,
            cells: vec![
                Cell::text(text::or_none(loss.start_ns, text::clock_ms)),
                Cell::text(text::or_none(loss.end_ns, text::clock_ms)),
                Cell::count(loss.count),
                Cell::text(text::one_line(&loss.what, 80)),
                Cell::name(&loss.node, 40),
            ],
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "losses-table".to_owned(),
        caption: "When events were lost".to_owned(),
        columns: vec![
            Column::text("From", "UTC"),
            Column::text("Until", "UTC"),
            Column::number("Events", "", ""),
            Column::text("Buffer", ""),
            Column::text("Node", ""),
        ],
        hidden: (losses.len() - rows.len()) as u64,
        hidden_what: "later ones",
        hidden_where: "",
        rows,
    })
}

fn encrypted(context: &Context<'_>) -> Option<Table> {
    let ledger = &context.doc.ledger;
    let shown = |value: &Option<String>| value.as_deref().map_or("–".to_owned(), |value| text::one_line(value, 80));
    let rows: Vec<Row> = ledger
        .encrypted
        .iter()
        .take(40)
        .map(|share| Row {
            id: None,
            cells: vec![
                Cell::text(shown(&share.server_name)),
                Cell::text(shown(&share.version)),
                Cell::text(shown(&share.alpn)),
                Cell::text(shown(&share.alert)),
                Cell::count(share.connections),
                Cell::bytes(share.bytes),
            ],
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "encrypted-table".to_owned(),
        caption: "What stayed encrypted, as its handshakes tell".to_owned(),
        columns: vec![
            Column::text("Name asked for", ""),
            Column::text("Version", ""),
            Column::text("Application protocol", ""),
            Column::text("Alert", ""),
            Column::number("Connections", "", ""),
            Column::number("Bytes", "", "Both ways"),
        ],
        hidden: ledger.encrypted.len().saturating_sub(40) as u64,
        hidden_what: "",
        hidden_where: "",
        rows,
    })
}

fn protocols(context: &Context<'_>) -> Option<Table> {
    let ledger = &context.doc.ledger;
    let rows: Vec<Row> = ledger
        .protocols
        .iter()
        .take(40)
        .map(|p| Row {
            id: None,
            cells: vec![
                Cell::text(text::one_line(&p.protocol, 60)),
                Cell::count(p.connections),
                Cell::count(p.requests),
                Cell::bytes(p.bytes),
                Cell::share(p.bytes, ledger.totals.bytes, Health::Unknown),
                Cell::text(if p.encrypted {
                    "content encrypted: lengths and times only"
                } else if p.protocol == "unknown" {
                    "not recognised: lengths and times only"
                } else {
                    "decoded"
                }),
            ],
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "protocols-table".to_owned(),
        caption: "Connections by protocol".to_owned(),
        columns: vec![
            Column::text("Protocol", ""),
            Column::number("Connections", "", ""),
            Column::number("Requests", "", ""),
            Column::number("Bytes", "", "Both ways"),
            Column::number("Share", "%", "Of all bytes"),
            Column::text("Sight", ""),
        ],
        hidden: ledger.protocols.len().saturating_sub(40) as u64,
        hidden_what: "",
        hidden_where: "",
        rows,
    })
}

/// Sums over all connections.
pub(super) fn network_facts(context: &Context<'_>) -> Facts {
    let network = &context.doc.network;
    let totals = &network.totals;
    let count = |v| text::or_none(v, text::count);
    let again = match (totals.retransmits, totals.segments_sent) {
        (Some(again), Some(sent)) => {
            format!("{} of {} segments ({})", text::count(again), text::count(sent), text::share(again, sent))
        }
        (again, _) => count(again),
    };
    vec![
        ("Connections", text::count(network.connections_total)),
        ("Idle ones, not listed", text::count(network.connections_idle)),
        ("Opened", count(totals.opened)),
        ("Closed", count(totals.closed)),
        ("Failed attempts", count(totals.failed_connects)),
        ("Resets", count(totals.resets)),
        ("Sent again", again),
        ("Sent by clients", text::bytes(totals.bytes_sent)),
        ("Sent by servers", text::bytes(totals.bytes_received)),
    ]
}

pub(super) fn checks(context: &Context<'_>, shown: u64) -> Option<Table> {
    let checks = &context.doc.checks;
    let rows: Vec<Row> = checks
        .iter()
        .take(shown as usize)
        .map(|check| {
            let outcome = match check.outcome {
                Outcome::Passed => "● passed",
                Outcome::Raised => "▲ raised",
                Outcome::NotRun => "○ not run",
            };
            Row {
                id: None,
                cells: vec![
                    Cell::text(check.id.clone()).with_sub(check.area.clone()),
                    Cell::text(outcome),
                    Cell { class: "prose", ..Cell::text(text::one_line(&check.title, 300)) },
                    Cell::text(check.threshold.clone().unwrap_or_else(|| text::NONE.to_owned())),
                    Cell { class: "prose", ..Cell::text(check.reason.clone().unwrap_or_default()) },
                ],
            }
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "checks-table".to_owned(),
        caption: "Every check, also those that passed or could not run".to_owned(),
        columns: vec![
            Column::text("Check", ""),
            Column::text("Outcome", ""),
            Column::text("Looks for", ""),
            Column::text("Threshold", ""),
            Column::text("Because", ""),
        ],
        hidden: (checks.len() - rows.len()) as u64,
        hidden_what: "",
        hidden_where: "",
        rows,
    })
}

pub(super) fn bundles(context: &Context<'_>) -> Table {
    const SHOWN: usize = 20;
    let bundles = &context.doc.capture.bundles;
    let rows = bundles
        .iter()
        .take(SHOWN)
        .map(|b| {
            let options: Vec<String> = b.options.iter().map(|o| format!("{}={}", o.name, o.value)).collect();
            let whole = if b.whole { Health::Healthy } else { Health::Critical };
            Row {
                id: None,
                cells: vec![
                    Cell::name(&b.file, 48).with_sub(b.id.clone()),
                    Cell {
                        text: if b.whole { " whole".to_owned() } else { " damaged".to_owned() },
                        ..Cell::status(whole)
                    },
                    Cell::name(&b.node, 32),
                    Cell::text(b.kernel.clone().unwrap_or_else(|| text::NONE.to_owned())),
                    Cell::text(b.hook.clone().unwrap_or_else(|| text::NONE.to_owned())),
                    Cell::bytes(b.bytes),
                    Cell { class: "prose", ..Cell::text(text::one_line(&options.join(" "), 300)) },
                    Cell { class: "hash", ..Cell::text(b.sha256.clone().unwrap_or_else(|| text::NONE.to_owned())) },
                ],
            }
        })
        .collect();
    Table {
        id: "bundles-table".to_owned(),
        caption: "Bundles".to_owned(),
        columns: vec![
            Column::text("File", "and the bundle's id"),
            Column::text("State", ""),
            Column::text("Node", ""),
            Column::text("Kernel", ""),
            Column::text("Hook", "How sockets were watched"),
            Column::number("Size", "", ""),
            Column::text("Options", ""),
            Column::text("SHA-256", ""),
        ],
        hidden: bundles.len().saturating_sub(SHOWN) as u64,
        hidden_what: "",
        hidden_where: "",
        rows,
    }
}

pub(super) fn thresholds(context: &Context<'_>) -> Facts {
    let mut all = vec![
        (
            "State “warning”",
            format!("{} of requests answered by an error, or a finding that warns", text::percent(ERRORS_WARNING)),
        ),
        (
            "State “critical”",
            format!("{} of requests answered by an error, or a critical finding", text::percent(ERRORS_CRITICAL)),
        ),
    ];
    let mut slow: Vec<u64> = context.doc.services.iter().filter_map(|s| s.inbound.slow_threshold_ns).collect();
    slow.sort_unstable();
    slow.dedup();
    match slow.as_slice() {
        [] => {}
        [one] => all.push(("Slow", format!("over {}", text::duration(*one)))),
        [first, .., last] => all.push((
            "Slow",
            format!("over {} to {}, by service (see there)", text::duration(*first), text::duration(*last)),
        )),
    }
    all.push(("Step of every series", text::duration(context.doc.capture.step_ns)));
    all
}

/// Words of the report.
pub(super) const GLOSSARY: &[(&str, &str)] = &[
    ("bundle", "the recording: one .kfr file with what the kernel of one node saw"),
    ("call", "a request as both of its ends saw it"),
    ("edge", "all requests and connections from one service to another over one protocol"),
    ("evidence", "the address ORIGIN.BLOCK:ROW of an event; kfr dump --at shows its bytes"),
    ("finding", "something that a check holds to be wrong, with its reasons and how sure it is"),
    ("fingerprint", "a statement without its literals, and its hash"),
    ("golden metrics", "rate, errors, duration and slow calls"),
    ("ledger", "what was not recorded or could not be read, and which figures that weakens (marked ◐)"),
    ("p50, p95, p99", "half, 95% and 99% of the answered requests were at least as fast"),
    ("service", "a systemd unit, a container, a process group or a workload that answers or sends requests"),
    ("unanswered", "a request whose answer had not come when its connection or the capture ended"),
    ("unseen", "a request whose outcome can't be told, as what tells was cut or lost; shares of errors are without it"),
    ("–", "no data: it was not measured or can't be told; never the same as 0"),
];
