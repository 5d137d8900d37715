//! Container logs.

use super::Context;
use super::table::{Cell, Column, Row, Table};
use crate::report::{
    document::{Figure, LogGroup},
    figure::line,
    text,
};

pub(super) fn logs(context: &Context<'_>, shown: u64) -> Option<Table> {
    let logs = &context.doc.logs;
    let rows: Vec<Row> = logs.iter().take(shown as usize).map(|group| row(context, group)).collect();
    (!rows.is_empty()).then(|| Table {
        id: "logs-table".to_owned(),
        caption: "Lines that are alike, worst and most frequent first".to_owned(),
        columns: vec![
            Column::text("Pattern", "What the lines have in common; opens the first of them"),
            Column::text("Level", "As the lines say it"),
            Column::number("Lines", "", "Without those of stack traces").weakened(context.column_caveat(Figure::Logs)),
            Column::text("Workload", "Or the pod, where it is not known"),
            Column::text("Container", ""),
            Column::text("First", "UTC"),
            Column::text("Last", "UTC"),
            Column::text("Trend", "Lines over the window"),
        ],
        hidden: (logs.len() - rows.len()) as u64,
        hidden_what: "the least serious",
        hidden_where: "",
        rows,
    })
}

fn row(context: &Context<'_>, group: &LogGroup) -> Row {
    let level = group.level.as_deref().unwrap_or(text::NONE);
    let class = match level {
        "fatal" | "error" => "bad",
        "warning" => "warn",
        _ => "",
    };
    let pods = match group.pods.as_slice() {
        [one] if group.workload.is_some() => text::one_line(one, 60),
        _ if group.workload.is_none() => String::new(),
        _ => text::plural(group.pods_total, "pod", "pods"),
    };
    let owner = group.workload.as_deref().or(group.pods.first().map(String::as_str)).unwrap_or(text::NONE);
    let href = group.service.as_deref().and_then(|id| context.service_href(id));
    let series: Vec<Option<u64>> = group.series.iter().map(|count| Some(*count)).collect();
    let cells = vec![
        Cell { class: "sql", ..Cell::text(text::one_line(&group.pattern, 160)) }.with_more(Some(example(group))),
        Cell { class, ..Cell::text(level) },
        Cell::count(group.count),
        Cell { class: "who", ..Cell::name(owner, 40) }.with_sub(pods).with_href(href),
        Cell::name(&group.container, 30),
        Cell::text(text::clock_ms(group.first_ns)),
        Cell::text(text::clock_ms(group.last_ns)),
        Cell::figure(line(&series, "s1")),
    ];
    Row { id: None, cells }
}

/// The line in full, and where it is from.
fn example(group: &LogGroup) -> String {
    let example = &group.example;
    let mut out = format!("{}\n\n{} {}", example.text, text::clock_ms(example.time_ns), example.pod);
    for (label, value) in [("", &example.stream), ("trace ", &example.trace_id), ("request ", &example.request_id)] {
        if let Some(value) = value {
            out.push_str(&format!(" {label}{value}"));
        }
    }
    out.push_str(&format!("\nevidence {}", example.evidence));
    out
}
