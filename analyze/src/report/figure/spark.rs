//! Sparklines: the shape of a series in a table cell. The figures stand beside them, so they are hidden from readers.

use super::{Svg, Writer};
use std::fmt::Write;

const WIDTH: u64 = 96;
const HEIGHT: u64 = 20;

fn begin() -> Writer {
    let mut w = Writer::default();
    let (width, height) = (WIDTH.to_string(), HEIGHT.to_string());
    let view = format!("0 0 {WIDTH} {HEIGHT}");
    w.open(
        "svg",
        &[("class", "spark"), ("viewBox", &view), ("width", &width), ("height", &height), ("aria-hidden", "true")],
    );
    w
}

/// Halves the number of points until they fit, keeping the highest of each pair.
fn thin<T: Copy>(mut values: Vec<T>, higher: impl Fn(T, T) -> T) -> Vec<T> {
    while values.len() > WIDTH as usize {
        values = values
            .chunks(2)
            .filter_map(|pair| match pair {
                [a, b] => Some(higher(*a, *b)),
                [a] => Some(*a),
                _ => None,
            })
            .collect();
    }
    values
}

/// A line; steps without a value are gaps.
pub(crate) fn line(values: &[Option<u64>], class: &str) -> Svg {
    let values = thin(values.to_vec(), Option::max);
    let top = values.iter().flatten().copied().max().unwrap_or(0).max(1);
    let last = (values.len().saturating_sub(1)).max(1) as u64;
    let mut d = String::new();
    let mut joined = false;
    for (i, value) in values.iter().enumerate() {
        if let Some(value) = value {
            let (x, y) = place(i as u64, last, *value, top);
            let alone = !joined && values.get(i + 1).is_none_or(Option::is_none);
            let _ = write!(d, "{}{x} {y}", if joined { "L" } else { "M" });
            if alone {
                d.push_str("h1");
            }
        }
        joined = value.is_some();
    }
    let mut w = begin();
    w.path(class, &d);
    w.close("svg");
    w.finish_part()
}

/// Requests as bars with errors in front of them; steps without a value are gaps.
pub(crate) fn bars(values: &[Option<(u64, u64)>]) -> Svg {
    let values = thin(values.to_vec(), |a, b| if a.map(|v| v.0) < b.map(|v| v.0) { b } else { a });
    let top = values.iter().flatten().map(|v| v.0).max().unwrap_or(0).max(1);
    let n = values.len().max(1) as u64;
    let (mut all, mut bad) = (String::new(), String::new());
    for (i, value) in values.iter().enumerate() {
        let Some((requests, errors)) = *value else { continue };
        // Tenths of a pixel: the bars share the width exactly.
        let (from, to) = (i as u64 * WIDTH * 10 / n, (i as u64 + 1) * WIDTH * 10 / n);
        let width = (to - from).saturating_sub(if n > 48 { 0 } else { 4 }).max(4);
        let bar = |d: &mut String, part: u64| {
            if part > 0 {
                let height = (u128::from(part) * u128::from(HEIGHT * 10) / u128::from(top)).clamp(8, 200) as u64;
                let _ = write!(d, "M{} {HEIGHT}h{}v-{}h-{}z", tenth(from), tenth(width), tenth(height), tenth(width));
            }
        };
        bar(&mut all, requests);
        bar(&mut bad, errors.min(requests));
    }
    let mut w = begin();
    w.path("f1", &all);
    if !bad.is_empty() {
        w.path("fbad", &bad);
    }
    w.close("svg");
    w.finish_part()
}

fn place(i: u64, last: u64, value: u64, top: u64) -> (String, String) {
    let y = u128::from(value) * u128::from((HEIGHT - 2) * 10) / u128::from(top);
    (tenth(i * (WIDTH - 2) * 10 / last + 10), tenth((HEIGHT - 1) * 10 - y as u64))
}

fn tenth(value: u64) -> String {
    if value.is_multiple_of(10) { (value / 10).to_string() } else { format!("{}.{}", value / 10, value % 10) }
}
