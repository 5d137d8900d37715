//! A parsed page and what must hold for it.

use scraper::{ElementRef, Html, Selector};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

pub struct Parsed {
    html: Html,
}

fn select(css: &str) -> Selector {
    Selector::parse(css).unwrap()
}

/// All that may occur; anything else came from somewhere it must not.
const ELEMENTS: &[&str] = &[
    "html", "head", "meta", "title", "style", "body", "script", "a", "header", "nav", "main", "footer", "section",
    "article", "div", "p", "h1", "h2", "h3", "h4", "span", "b", "i", "small", "code", "pre", "ul", "ol", "li", "dl",
    "dt", "dd", "time", "details", "summary", "figure", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg",
    "g", "path", "text", "desc",
];
const ATTRIBUTES: &[&str] = &[
    "http-equiv",
    "content",
    "charset",
    "name",
    "lang",
    "class",
    "id",
    "href",
    "title",
    "datetime",
    "aria-label",
    "aria-hidden",
    "aria-labelledby",
    "role",
    "tabindex",
    "hidden",
    "open",
    "scope",
    "data-v",
    "data-stop",
    "viewBox",
    "width",
    "height",
    "d",
    "x",
    "y",
    "text-anchor",
];

impl Parsed {
    pub fn new(text: &str) -> Self {
        Self { html: Html::parse_document(text) }
    }

    fn all(&self) -> impl Iterator<Item = ElementRef<'_>> {
        self.html.tree.root().descendants().filter_map(ElementRef::wrap)
    }

    /// Names of all elements with their depth, in order.
    pub fn elements(&self) -> Vec<String> {
        self.all().map(|e| format!("{}{}", ".".repeat(e.ancestors().count()), e.value().name())).collect()
    }

    /// Texts of a table's cells.
    pub fn cells(&self, table: &str) -> Vec<Vec<String>> {
        let rows = select(&format!("#{table} tbody tr"));
        let row = |r: ElementRef<'_>| r.children().filter_map(ElementRef::wrap).map(|c| c.text().collect()).collect();
        self.html.select(&rows).map(row).collect()
    }

    pub fn most_rows(&self) -> usize {
        self.html.select(&select("tbody")).map(|t| t.select(&select("tr")).count()).max().unwrap_or(0)
    }

    pub fn most_groups(&self) -> usize {
        self.html.select(&select("svg")).map(|s| s.select(&select("g, a")).count()).max().unwrap_or(0)
    }

    /// Well-formed, closed in itself, and without anything that runs or loads.
    pub fn assert_sound(&self) {
        assert!(self.html.errors.is_empty(), "{:?}", self.html.errors);
        let mut ids = BTreeSet::new();
        for element in self.all() {
            let e = element.value();
            assert!(ELEMENTS.contains(&e.name()), "<{}>", e.name());
            for (name, value) in e.attrs() {
                assert!(ATTRIBUTES.contains(&name), "{name} in <{}>", e.name());
                assert!(name != "href" || value.starts_with('#'), "{value}");
            }
            if let Some(id) = e.attr("id") {
                assert!(ids.insert(id.to_owned()), "{id} twice");
                assert!(!id.contains(char::is_whitespace));
            }
        }
        for link in self.html.select(&select("[href]")) {
            let target = &link.value().attr("href").unwrap()[1..];
            assert!(ids.contains(target), "#{target} leads nowhere");
        }
        for labelled in self.html.select(&select("[aria-labelledby]")) {
            for id in labelled.value().attr("aria-labelledby").unwrap().split(' ') {
                assert!(ids.contains(id), "{id}");
            }
        }
        assert_eq!(self.html.select(&select("script")).count(), 1);
        assert_eq!(self.html.select(&select("style")).count(), 1);
        let style: String = self.html.select(&select("style")).next().unwrap().text().collect();
        assert!(!style.contains("url(") && !style.contains("@import"));
        for node in self.html.tree.root().descendants() {
            if let Some(text) = node.value().as_text() {
                let bad = text.chars().find(
                    |c| matches!(c, '\u{0}'..='\u{8}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'),
                );
                assert!(bad.is_none(), "{bad:?} in {text:?}");
            }
        }
    }

    /// The policy is the first element of the head and its hashes are those of our style and script.
    pub fn assert_policy(&self) {
        let head = self.html.select(&select("head")).next().unwrap();
        let first = head.children().find_map(ElementRef::wrap).unwrap();
        assert_eq!(first.value().attr("http-equiv"), Some("Content-Security-Policy"));
        let policy = first.value().attr("content").unwrap();
        let rules: BTreeMap<&str, &str> = policy.split("; ").filter_map(|rule| rule.split_once(' ')).collect();
        assert_eq!(rules["default-src"], "'none'");
        assert_eq!(rules["base-uri"], "'none'");
        assert_eq!(rules["form-action"], "'none'");
        for (rule, name) in [("script-src", "script"), ("style-src", "style")] {
            let text: String = self.html.select(&select(name)).next().unwrap().text().collect();
            assert_eq!(rules[rule], format!("'sha256-{}'", base64(&Sha256::digest(text.as_bytes()))));
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    let digits: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let bits: String = bytes.iter().map(|b| format!("{b:08b}")).collect();
    let mut out: String = bits
        .as_bytes()
        .chunks(6)
        .map(|six| {
            let six = format!("{:0<6}", std::str::from_utf8(six).unwrap());
            digits[usize::from_str_radix(&six, 2).unwrap()]
        })
        .collect();
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

/// A standalone figure: XML, with a title and a description, without anything that runs or loads.
pub fn assert_svg(name: &str, svg: &str) {
    use quick_xml::{Reader, events::Event};
    assert!(name.ends_with(".svg") && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)), "{name}");
    let mut reader = Reader::from_str(svg);
    let (mut names, mut depth) = (Vec::new(), 0);
    loop {
        match reader.read_event().unwrap_or_else(|e| panic!("{name}: {e}")) {
            Event::Eof => break,
            Event::Start(e) => {
                depth += 1;
                check(&e, &mut names);
            }
            Event::Empty(e) => check(&e, &mut names),
            Event::End(_) => depth -= 1,
            _ => {}
        }
    }
    assert_eq!(depth, 0);
    assert_eq!(names[0], "svg");
    assert!(names.iter().any(|n| n == "title") && names.iter().any(|n| n == "desc"));

    fn check(e: &quick_xml::events::BytesStart<'_>, names: &mut Vec<String>) {
        let name = e.name();
        let name = name_of(name.as_ref());
        assert!(["svg", "style", "title", "desc", "g", "path", "text"].contains(&name.as_str()), "<{name}>");
        for attribute in e.attributes() {
            let attribute = attribute.unwrap();
            let key = name_of(attribute.key.as_ref());
            assert!(key == "xmlns" || ATTRIBUTES.contains(&key.as_str()), "{key}");
            assert_ne!(key, "href");
        }
        names.push(name);
    }

    fn name_of(bytes: impl AsRef<[u8]>) -> String {
        String::from_utf8_lossy(bytes.as_ref()).into_owned()
    }
}
