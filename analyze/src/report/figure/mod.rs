//! Figures: SVG that needs no script, no font file and no style attribute.
//!
//! Colours are classes, so that a page (or, alone, the SVG's own style sheet) themes them for dark and light.

mod backend;
mod graph;
mod heat;
mod layout;
mod plot;
mod spark;

pub(crate) use graph::{draw_graph, focus};
pub(crate) use heat::heat_map;
pub(crate) use plot::{Axis, Lane, Mark, Series, Unit, plot, time_axis};
pub(crate) use spark::{bars, line};

use super::text::xml;
use std::fmt;

/// SVG (or a part of it) made by this module: the only markup that templates print unescaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Svg(String);

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::filters::HtmlSafe for Svg {}

/// Style sheet of all figures, shared by the page and standalone files.
pub(crate) const STYLE: &str = include_str!("../../../../report-templates/figure.css");

impl Svg {
    /// As a file of its own: with XML declaration, name space, and a style sheet for dark and light.
    #[must_use]
    pub fn standalone(&self) -> String {
        let themed = format!("<style>{STYLE}\nsvg{{background:var(--surface)}}</style>");
        let body = self.0.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1);
        let body = match body.find('>') {
            Some(end) => format!("{}{themed}{}", &body[..=end], &body[end + 1..]),
            None => body,
        };
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}\n")
    }
}

/// Writes elements; every attribute value and text is escaped here and nowhere else.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: String,
}

impl Writer {
    /// Begins a figure of this size. The title and description are for screen readers and hovering.
    pub(crate) fn figure(id: &str, class: &str, width: i32, height: i32, title: &str, desc: &str) -> Self {
        let mut w = Self::default();
        let view = format!("0 0 {width} {height}");
        let (title_id, desc_id) = (format!("{id}-t"), format!("{id}-d"));
        w.open(
            "svg",
            &[
                ("id", id),
                ("class", class),
                ("viewBox", &view),
                ("width", &width.to_string()),
                ("height", &height.to_string()),
                ("role", if class.contains("graph") { "group" } else { "img" }),
                ("aria-labelledby", &format!("{title_id} {desc_id}")),
            ],
        );
        w.leaf("title", &[("id", &title_id)], title);
        w.leaf("desc", &[("id", &desc_id)], desc);
        w
    }

    pub(crate) fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes);
        self.out.push('>');
    }

    pub(crate) fn close(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    /// An element without content.
    pub(crate) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes);
        self.out.push_str("/>");
    }

    /// An element with text.
    pub(crate) fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        self.out.push_str(&xml(text));
        self.close(name);
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            self.out.push(' ');
            self.out.push_str(key);
            self.out.push_str("=\"");
            self.out.push_str(&xml(value));
            self.out.push('"');
        }
    }

    /// Text at a place; `anchor` is `start`, `middle` or `end`.
    pub(crate) fn text(&mut self, class: &str, x: i32, y: i32, anchor: &str, text: &str) {
        let (x, y) = (x.to_string(), y.to_string());
        self.leaf("text", &[("class", class), ("x", &x), ("y", &y), ("text-anchor", anchor)], text);
    }

    pub(crate) fn path(&mut self, class: &str, d: &str) {
        self.empty("path", &[("class", class), ("d", d)]);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.out.push_str(&other.out);
    }

    pub(crate) fn finish(mut self) -> Svg {
        self.close("svg");
        Svg(self.out)
    }

    pub(crate) fn finish_part(self) -> Svg {
        Svg(self.out)
    }
}
