//! Request lines against golden ones.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use similar::{Algorithm, DiffOp, capture_diff_slices};

/// A pipeline longer than this is compared by position.
const MAX_GROUP: usize = 4096;

/// Keys that name places in a bundle.
const IGNORED: &[&str] = &["id", "evidence"];

/// Requests of one protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// Of these, without an answer.
    pub unanswered: u64,
    /// Of these, with an outcome that was not seen.
    pub unknown: u64,
}

impl Tally {
    /// Adds up.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.unanswered += other.unanswered;
        self.unknown += other.unknown;
    }
}

/// One request that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is there now and was not.
    Added {
        /// What it is, in one line.
        request: String,
    },
    /// It was there and is not now.
    Removed {
        /// What it was, in one line.
        request: String,
    },
    /// Some of its fields are others.
    Changed {
        /// What it is, in one line.
        request: String,
        /// Name, value before, value now.
        fields: Vec<(String, String, String)>,
        /// Where its bytes are (`kfr dump --at`), as the line says now.
        evidence: Vec<String>,
    },
}

/// What a comparison comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the order of the requests.
    pub differences: Vec<Difference>,
    /// What there is now, by protocol.
    pub tally: BTreeMap<String, Tally>,
}

/// Compares request lines (JSON, one a line) with golden ones.
pub fn compare(golden: &str, found: &str) -> Comparison {
    let (golden, found) = (parse(golden), parse(found));
    let mut comparison = Comparison::default();
    for line in &found {
        let tally = comparison.tally.entry(text(&line.value, "protocol")).or_default();
        tally.requests += 1;
        match line.value.get("status").and_then(Value::as_str) {
            Some("error") => tally.errors += 1,
            Some("unanswered") => tally.unanswered += 1,
            Some(_) => {}
            None => tally.unknown += 1,
        }
    }
    // What began at the same moment on the same connection; in the order of the file.
    let mut groups: BTreeMap<&str, (Vec<&Line>, Vec<&Line>)> = BTreeMap::new();
    golden.iter().for_each(|line| groups.entry(&line.place).or_default().0.push(line));
    found.iter().for_each(|line| groups.entry(&line.place).or_default().1.push(line));
    let mut differences = Vec::new();
    for (before, now) in groups.values() {
        compare_group(before, now, &mut differences);
    }
    differences.sort_by_key(|(start_ns, _)| *start_ns);
    comparison.differences = differences.into_iter().map(|(_, difference)| difference).collect();
    comparison
}

/// Compares requests of one connection and moment: one, or a pipeline.
fn compare_group(before: &[&Line], now: &[&Line], out: &mut Vec<(u64, Difference)>) {
    let keys = |lines: &[&Line]| lines.iter().map(|line| line.key.clone()).collect::<Vec<_>>();
    let operations = if before.len().max(now.len()) > MAX_GROUP {
        vec![DiffOp::Replace { old_index: 0, old_len: before.len(), new_index: 0, new_len: now.len() }]
    } else {
        capture_diff_slices(Algorithm::Myers, &keys(before), &keys(now))
    };
    for operation in operations {
        let (old, new) = (operation.old_range(), operation.new_range());
        let old = before.get(old).unwrap_or_default();
        let new = now.get(new).unwrap_or_default();
        // What is at the same place is the same request, perhaps read otherwise.
        for (old, new) in old.iter().zip(new) {
            out.extend(changed(old, new).map(|difference| (new.start_ns, difference)));
        }
        let rest =
            old.iter().skip(new.len()).map(|line| (line.start_ns, Difference::Removed { request: describe(line) }));
        out.extend(rest);
        let rest =
            new.iter().skip(old.len()).map(|line| (line.start_ns, Difference::Added { request: describe(line) }));
        out.extend(rest);
    }
}

struct Line {
    value: Value,
    /// Protocol, operation and target.
    key: String,
    /// Connection and start.
    place: String,
    start_ns: u64,
}

fn parse(lines: &str) -> Vec<Line> {
    let mut parsed = Vec::new();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let value = serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_string()));
        let place = format!("{} {} {}", end(&value, "client"), end(&value, "server"), value["start_ns"]);
        let key = format!("{} {} {}", text(&value, "protocol"), text(&value, "op"), text(&value, "target"));
        let start_ns = value["start_ns"].as_u64().unwrap_or_default();
        parsed.push(Line { value, key, place, start_ns });
    }
    parsed
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or("?").to_string()
}

fn end(value: &Value, key: &str) -> String {
    let end = &value[key];
    match end.get("port").and_then(Value::as_u64) {
        Some(port) => format!("{}:{port}", text(end, "address")),
        None => text(end, "address"),
    }
}

/// A request in one line: what, between whom, when.
fn describe(line: &Line) -> String {
    let value = &line.value;
    let mut words = format!("{} {}", text(value, "protocol"), text(value, "op"));
    if let Some(target) = value.get("target").and_then(Value::as_str) {
        let _ = write!(words, " {target}");
    }
    let (seconds, nanoseconds) = (line.start_ns / 1_000_000_000, line.start_ns % 1_000_000_000);
    format!("{words} ({} to {}, at {seconds}.{nanoseconds:09})", end(value, "client"), end(value, "server"))
}

fn changed(old: &Line, new: &Line) -> Option<Difference> {
    let mut fields = Vec::new();
    match (&old.value, &new.value) {
        (Value::Object(before), Value::Object(now)) => {
            let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
            for name in names.filter(|name| !IGNORED.contains(&name.as_str())) {
                let show = |value: Option<&Value>| value.map_or_else(|| "(none)".to_string(), Value::to_string);
                if before.get(name) != now.get(name) {
                    fields.push((name.clone(), show(before.get(name)), show(now.get(name))));
                }
            }
        }
        (before, now) if before != now => fields.push(("line".into(), before.to_string(), now.to_string())),
        _ => {}
    }
    let evidence = new.value["evidence"].as_array().into_iter().flatten();
    let evidence = evidence.filter_map(|address| address.as_str().map(str::to_string)).collect();
    (!fields.is_empty()).then(|| Difference::Changed { request: describe(new), fields, evidence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(op: &str, start: u64, status: &str, id: u64) -> String {
        format!(
            r#"{{"id":"x-{id}","protocol":"http","op":"{op}","target":"/a","status":{status},"client":{{"address":"::1","port":5}},"server":{{"address":"::1","port":80}},"start_ns":{start},"evidence":["a.1:{id}"]}}"#
        )
    }

    fn lines(lines: &[String]) -> String {
        lines.join("\n")
    }

    #[test]
    fn places_in_the_bundle_are_ignored() {
        let (a, b) = (line("GET", 1, "\"ok\"", 1), line("GET", 1, "\"ok\"", 9));
        let comparison = compare(&a, &b);
        assert_eq!(comparison.differences, []);
        assert_eq!(comparison.tally["http"], Tally { requests: 1, ..Tally::default() });
    }

    #[test]
    fn a_field_that_changed_is_named_with_both_values() {
        let comparison = compare(&line("GET", 1, "\"ok\"", 1), &line("GET", 1, "null", 1));
        let [Difference::Changed { request, fields, evidence }] = &comparison.differences[..] else {
            panic!("{comparison:?}")
        };
        assert_eq!(request, "http GET /a (::1:5 to ::1:80, at 0.000000001)");
        assert_eq!(fields[..], [("status".into(), "\"ok\"".into(), "null".into())]);
        assert_eq!(evidence[..], ["a.1:1"]);
        assert_eq!(comparison.tally["http"].unknown, 1);
    }

    #[test]
    fn requests_that_came_or_went_do_not_shift_the_others() {
        let all: Vec<String> = (1..=5).map(|n| line("GET", n, "\"ok\"", n)).collect();
        let fewer = lines(&[&all[..2], &all[3..]].concat());
        let gone = compare(&lines(&all), &fewer);
        assert!(
            matches!(&gone.differences[..], [Difference::Removed { request }] if request.ends_with("0.000000003)"))
        );
        let came = compare(&fewer, &lines(&all));
        assert!(matches!(&came.differences[..], [Difference::Added { .. }]), "{came:?}");
    }

    #[test]
    fn a_request_that_is_read_as_another_is_one_change() {
        let comparison = compare(&line("GET", 1, "\"ok\"", 1), &line("HEAD", 1, "\"ok\"", 1));
        assert!(
            matches!(&comparison.differences[..], [Difference::Changed { fields, .. }] if fields[0].0 == "op"),
            "{comparison:?}"
        );
    }

    #[test]
    fn lines_that_are_no_json_are_a_difference_and_no_panic() {
        assert_eq!(compare("rubbish", "").differences.len(), 1);
        assert_eq!(compare("rubbish", "rubbish").differences, []);
    }
}
