//! Strangers' strings in every field: the page keeps its elements.

use crate::{page, page::Parsed, sample};
use kfr_analyze::report::{Document, render_html, render_summary, render_svgs};
use serde_json::Value;

const CORPUS: &[&str] = &[
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>",
    "' onmouseover='alert(1)",
    "]]><!--",
    "--><b>",
    "<!DOCTYPE html><html>",
    "javascript:alert(1)",
    "{{ 7*7 }} {% raw %}",
    "&lt;script&gt; &#60; &amp;amp;",
    "\u{202e}gnp.exe\u{2066}\u{200f}",
    "a\u{0}b\u{1}\u{8}\u{b}\u{1b}[31m\u{7f}\u{9b}",
    "\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}",
    "=cmd|' /C calc'!A1",
    "../../../etc/passwd",
    "line\r\nbreak\ttab",
    "   ",
    "https://example.com/?a=1&b=2",
    "👩‍👩‍👧‍👦 名前 ÄÖÜ",
    "| pipe | `code` [x](y) # *b* _i_",
];

/// Values that say of which kind something is; a change of them changes the page rightly.
const KINDS: &[&str] = &[
    "info",
    "warning",
    "critical",
    "low",
    "medium",
    "high",
    "passed",
    "raised",
    "not_run",
    "unit",
    "container",
    "process",
    "workload",
    "external",
    "requests",
    "latency",
    "bytes",
    "topology",
    "sql",
    "network",
    "nodes",
    "time",
    "logs",
    "error",
    "statement",
    "service",
    "endpoint",
    "encrypted",
    "unknown",
    "rollout",
    "scaled",
    "configuration",
    "main",
    "Succeeded",
    "Failed",
    "",
];

/// Replaces every string; equal strings stay equal and different ones different, as ids must.
fn replace(doc: &Document, with: &dyn Fn(usize) -> String) -> Document {
    fn walk(value: &mut Value, known: &mut Vec<String>, with: &dyn Fn(usize) -> String) {
        match value {
            Value::String(text) if !KINDS.contains(&text.as_str()) => {
                let i = known.iter().position(|k| k == text).unwrap_or_else(|| {
                    known.push(text.clone());
                    known.len() - 1
                });
                *text = with(i);
            }
            Value::Array(items) => items.iter_mut().for_each(|v| walk(v, known, with)),
            Value::Object(fields) => fields.values_mut().for_each(|v| walk(v, known, with)),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(doc).unwrap();
    walk(&mut value, &mut Vec::new(), with);
    serde_json::from_value(value).unwrap()
}

#[test]
fn no_string_changes_an_element() {
    let doc = sample::sample();
    let benign = Parsed::new(&render_html(&replace(&doc, &|i| format!("benign {i}"))).unwrap());
    benign.assert_sound();
    for shift in 0..CORPUS.len() {
        let hostile = replace(&doc, &|i| format!("{}{i}", CORPUS[(i + shift) % CORPUS.len()]));
        let page = Parsed::new(&render_html(&hostile).unwrap());
        page.assert_sound();
        page.assert_policy();
        let (found, expected) = (page.elements(), benign.elements());
        let place = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        let around = place.map(|place| (&expected[place.saturating_sub(12)..=place], &found[place]));
        assert_eq!(around, None, "shift {shift}");
        assert_eq!(found.len(), expected.len(), "shift {shift}");
        for (name, svg) in render_svgs(&hostile).unwrap() {
            page::assert_svg(&name, &svg);
        }
        let summary = render_summary(&hostile).unwrap();
        assert!(
            !summary.contains("<script") && !summary.contains("<img") && !summary.contains('\u{202e}'),
            "{summary}"
        );
    }
}

#[test]
fn one_string_everywhere_keeps_ids_unique() {
    for text in CORPUS {
        let doc = replace(&sample::sample(), &|_| (*text).to_owned());
        Parsed::new(&render_html(&doc).unwrap()).assert_sound();
        for (name, svg) in render_svgs(&doc).unwrap() {
            page::assert_svg(&name, &svg);
        }
    }
}

#[test]
fn a_megabyte_in_a_field_is_cut_and_counted() {
    let mut doc = sample::sample();
    doc.sql[0].text = format!("SELECT {}", "x, ".repeat(350_000));
    doc.services[0].name = "n".repeat(1 << 20);
    doc.findings[0].title = "t ".repeat(1 << 19);
    let html = render_html(&doc).unwrap();
    Parsed::new(&html).assert_sound();
    assert!(html.len() < 3 << 20, "{} bytes", html.len());
    assert!(html.contains("more characters)"));
    assert!(render_summary(&doc).unwrap().len() < 20_000);
}
