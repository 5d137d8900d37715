//! Tables: one shape for all of them, so that they look, sort, filter and copy alike.

use crate::report::{figure::Svg, health::Health, text};
use askama::Template;

/// A table of the page.
#[derive(Debug, Default, Template)]
#[template(path = "table.html", config = "../report-templates/askama.toml")]
pub(super) struct Table {
    pub(super) id: String,
    pub(super) caption: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// How many rows were left out, and of what.
    pub(super) hidden: u64,
    pub(super) hidden_what: &'static str,
    /// Where they are, unless in report.json.
    pub(super) hidden_where: &'static str,
}

impl askama::filters::HtmlSafe for Table {}

/// A column.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub(super) label: &'static str,
    /// Shown after the label, dimmer.
    pub(super) unit: &'static str,
    /// What it means, on hover.
    pub(super) title: &'static str,
    pub(super) numeric: bool,
    /// Link to the ledger entry that weakens it, and what that says.
    pub(super) caveat: Option<(String, String)>,
}

impl Column {
    pub(super) fn text(label: &'static str, title: &'static str) -> Self {
        Self { label, title, ..Self::default() }
    }

    pub(super) fn number(label: &'static str, unit: &'static str, title: &'static str) -> Self {
        Self { label, unit, title, numeric: true, caveat: None }
    }

    pub(super) fn weakened(mut self, caveat: Option<(String, String)>) -> Self {
        self.caveat = caveat;
        self
    }
}

/// A row; its first cell is its heading.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) id: Option<String>,
    pub(super) cells: Vec<Cell>,
}

/// A cell.
#[derive(Debug, Default)]
pub(super) struct Cell {
    pub(super) class: &'static str,
    /// What scripts sort by, where the text won't do.
    pub(super) sort: Option<String>,
    pub(super) status: Option<Health>,
    pub(super) text: String,
    /// The full text where `text` is shortened.
    pub(super) full: Option<String>,
    pub(super) href: Option<String>,
    /// A second, dimmer line.
    pub(super) sub: Option<String>,
    /// The full text to open below the shortened one.
    pub(super) more: Option<String>,
    pub(super) tags: Vec<String>,
    /// Links to ledger entries.
    pub(super) caveats: Vec<(String, String)>,
    pub(super) figure: Option<Svg>,
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Shortened in the middle, in full on hover and when copied.
    pub(super) fn name(name: &str, most: usize) -> Self {
        let short = text::middle(&text::one_line(name, 400), most);
        let full = (short != name).then(|| name.to_owned());
        Self { text: short, full, class: "name", ..Self::default() }
    }

    fn number(text: String, sort: Option<String>, dim: bool) -> Self {
        Self { class: if dim { "num dim" } else { "num" }, text, sort, ..Self::default() }
    }

    pub(super) fn none() -> Self {
        Self::number(text::NONE.to_owned(), None, true)
    }

    pub(super) fn count(value: impl Into<Option<u64>>) -> Self {
        value.into().map_or_else(Self::none, |v| Self::number(text::count(v), Some(v.to_string()), v == 0))
    }

    pub(super) fn duration(value: Option<u64>) -> Self {
        value.map_or_else(Self::none, |v| Self::number(text::duration(v), Some(v.to_string()), false))
    }

    pub(super) fn bytes(value: impl Into<Option<u64>>) -> Self {
        value.into().map_or_else(Self::none, |v| Self::number(text::bytes(v), Some(v.to_string()), v == 0))
    }

    pub(super) fn rate(value: Option<f64>) -> Self {
        value
            .filter(|v| v.is_finite())
            .map_or_else(Self::none, |v| Self::number(text::significant(v), Some(v.to_string()), v == 0.0))
    }

    /// A count as a share of another, with the count on hover.
    pub(super) fn share(part: u64, whole: u64, class: Health) -> Self {
        if whole == 0 {
            return Self::none();
        }
        let class = match class {
            Health::Critical => "num bad",
            Health::Warning => "num warn",
            _ if part == 0 => "num dim",
            _ => "num",
        };
        let full = Some(format!("{} of {}", text::count(part), text::count(whole)));
        Self {
            class,
            text: text::share(part, whole),
            sort: Some((part as f64 / whole as f64).to_string()),
            full,
            ..Self::default()
        }
    }

    pub(super) fn status(health: Health) -> Self {
        Self { class: "state", status: Some(health), sort: Some((health as u8).to_string()), ..Self::default() }
    }

    pub(super) fn figure(svg: Svg) -> Self {
        Self { class: "fig", figure: Some(svg), ..Self::default() }
    }

    pub(super) fn tags(tags: &[String]) -> Self {
        Self { class: "tags", tags: tags.to_vec(), ..Self::default() }
    }

    pub(super) fn with_sub(mut self, sub: impl Into<String>) -> Self {
        self.sub = Some(sub.into()).filter(|s| !s.is_empty());
        self
    }

    pub(super) fn with_href(mut self, href: Option<String>) -> Self {
        self.href = href;
        self
    }

    pub(super) fn with_more(mut self, more: Option<String>) -> Self {
        self.more = more;
        self
    }

    pub(super) fn with_caveats(mut self, caveats: Vec<(String, String)>) -> Self {
        self.caveats = caveats;
        self
    }
}
