//! What lines are grouped by: their text with what varies replaced.
//!
//! Deterministic, line by line, with nothing learned from other lines. A word that names a number, a time, an address or an
//! identifier becomes `{n}`, `{time}`, `{ip}`, `{id}` (paths as in endpoints' names), what stands in quotes `?`. Of JSON and
//! logfmt lines only the message and the error count.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::model::template_segment;

/// Longest pattern, bytes.
pub const MAX_PATTERN_BYTES: usize = 400;
/// Longest text in quotes that is taken for one value.
const MAX_QUOTED: usize = 400;
/// Keys of a message, and of what went wrong, in JSON and logfmt lines.
const MESSAGE_KEYS: [&str; 6] = ["msg", "message", "@message", "event", "log", "textPayload"];
const ERROR_KEYS: [&str; 7] = ["error", "err", "exception", "exc_info", "cause", "reason", "error_message"];

/// The pattern of a line: at most [`MAX_PATTERN_BYTES`] and an ellipsis.
pub fn pattern(text: &str) -> String {
    let mut out = Pattern::default();
    let text = text.trim();
    let (message, error) = fields(text).unwrap_or_default();
    match (message, error) {
        (None, None) => out.text(text, klog_message(text)),
        (message, error) => {
            out.text(message.as_deref().unwrap_or_default().trim(), None);
            if let Some(error) = error {
                out.literal(if out.text.is_empty() { "error=" } else { " error=" });
                out.text(error.trim(), None);
            }
        }
    }
    out.finish()
}

/// Message and error of a line that has keys; `None` for other lines.
fn fields(text: &str) -> Option<(Option<String>, Option<String>)> {
    if text.starts_with('{') {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { return None };
        let first = |keys: &[&str]| keys.iter().find_map(|key| told(object.get(*key)?));
        return Some((first(&MESSAGE_KEYS), first(&ERROR_KEYS)));
    }
    let message = logfmt(text, "msg").or_else(|| logfmt(text, "message"))?;
    let error = logfmt(text, "err").or_else(|| logfmt(text, "error"));
    Some((Some(message.to_string()), error.map(str::to_string)))
}

/// What a field says: its text, or that of an error's object; the first line of it.
fn told(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text,
        Value::Object(object) => ["message", "msg", "type"].iter().find_map(|key| object.get(*key)?.as_str())?,
        _ => return None,
    };
    text.lines().next().filter(|line| !line.trim().is_empty()).map(str::to_string)
}

/// The value of `key=value` or `key="value"`.
fn logfmt<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut places = text.match_indices(key).filter_map(|(at, _)| {
        let begins = at == 0 || text.get(..at)?.ends_with(' ');
        text.get(at + key.len()..)?.strip_prefix('=').filter(|_| begins)
    });
    let value = places.next()?;
    match value.strip_prefix('"') {
        Some(quoted) => quoted.get(..closing(quoted, '"').unwrap_or(quoted.len())),
        None => value.get(..value.find(' ').unwrap_or(value.len())),
    }
}

/// Where the message of a structured klog line begins, whose quotes are no value's: `E1122 … file.go:1] "Message" err="…"`.
fn klog_message(text: &str) -> Option<usize> {
    let at = text.find("] \"")? + 2;
    (text.starts_with(['I', 'W', 'E', 'F']) && text.as_bytes().get(1).is_some_and(u8::is_ascii_digit)).then_some(at)
}

/// Where a quoted text ends: before the next quote without a backslash.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// `GET /path HTTP/1.1`: the quoted part of an access line.
fn is_request(text: &str) -> bool {
    let mut words = text.split(' ');
    let method = words.next().unwrap_or_default();
    (3..=8).contains(&method.len())
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
        && words.next().is_some_and(|path| path.starts_with('/') || path.starts_with("http"))
}

/// A pattern under way.
#[derive(Default)]
struct Pattern {
    text: String,
    /// The last placeholder, and where it ends.
    last: Option<(&'static str, usize)>,
    /// Behind the request of an access line: its status is what lines are told apart by.
    status: bool,
    full: bool,
}

impl Pattern {
    fn finish(mut self) -> String {
        let kept = self.text.trim_end().len();
        self.text.truncate(kept);
        if self.full {
            self.text.push('…');
        }
        self.text
    }

    fn literal(&mut self, text: &str) {
        for c in text.chars() {
            if self.text.len() + c.len_utf8() > MAX_PATTERN_BYTES {
                self.full = true;
                return;
            }
            self.text.push(c);
        }
    }

    /// A placeholder. Behind the same one and a comma or space it is the same list.
    fn placeholder(&mut self, name: &'static str) {
        if let Some((last, end)) = self.last
            && last == name
            && self.text.get(end..).is_some_and(|between| between.bytes().all(|byte| matches!(byte, b',' | b' ')))
            && !self.full
        {
            self.text.truncate(end);
            return;
        }
        self.literal(name);
        self.last = Some((name, self.text.len()));
    }

    /// A text; the quotes at `message` hold no value.
    fn text(&mut self, text: &str, message: Option<usize>) {
        let mut at = 0;
        let mut before = ' ';
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty() && !self.full) {
            let Some(c) = rest.chars().next() else { return };
            let length = match c {
                _ if c.is_whitespace() => {
                    self.literal(" ");
                    rest.len() - rest.trim_start().len()
                }
                '"' | '\'' | '`' if !before.is_alphanumeric() => self.quoted(rest, c, message == Some(at)),
                _ if is_word(c) => {
                    let word = rest.get(..rest.find(|c| !is_word(c)).unwrap_or(rest.len())).unwrap_or_default();
                    self.word(word);
                    word.len()
                }
                _ => {
                    self.literal(c.encode_utf8(&mut [0; 4]));
                    c.len_utf8()
                }
            };
            at += length;
            before = text.get(..at).and_then(|done| done.chars().next_back()).unwrap_or(' ');
        }
    }

    /// A text in quotes, from its first one on; says how long it is.
    fn quoted(&mut self, text: &str, quote: char, message: bool) -> usize {
        let inner = text.get(1..).unwrap_or_default();
        let mark = quote.encode_utf8(&mut [0; 4]).to_string();
        let end = closing(inner, quote).filter(|end| *end <= MAX_QUOTED);
        let Some(value) = end.and_then(|end| inner.get(..end)) else {
            self.literal(&mark);
            return 1;
        };
        self.literal(&mark);
        let request = is_request(value);
        if message || request {
            // Its words; quotes in them are not looked for again.
            value.split(' ').enumerate().for_each(|(number, word)| {
                if number > 0 {
                    self.literal(" ");
                }
                self.word(word);
            });
        } else if !value.is_empty() {
            self.placeholder("?");
        }
        self.literal(&mark);
        self.status = request;
        value.len() + 2
    }

    /// A word, its punctuation included.
    fn word(&mut self, word: &str) {
        let core = word.trim_end_matches(['.', ':', '-', '/']);
        let tail = word.get(core.len()..).unwrap_or_default();
        let start = core.trim_start_matches(['.', ':']);
        self.literal(core.get(..core.len() - start.len()).unwrap_or_default());
        let status = std::mem::take(&mut self.status) && start.len() == 3;
        match whole(start) {
            Some("{n}") if status => self.literal(start),
            Some(name) => self.placeholder(name),
            None => {
                // Parts, and what stands between them.
                let mut from = 0;
                for (at, mark) in start.match_indices(|c: char| "/:@%+~#$&?".contains(c)) {
                    self.part(start.get(from..at).unwrap_or_default());
                    self.literal(mark);
                    from = at + mark.len();
                }
                self.part(start.get(from..).unwrap_or_default());
            }
        }
        self.literal(tail);
    }

    fn part(&mut self, part: &str) {
        match whole(part).or_else(|| template_segment(part)) {
            Some(name) => self.placeholder(name),
            None => self.digits(part),
        }
    }

    /// A part of a word that stays, but for the numbers in it.
    fn digits(&mut self, part: &str) {
        let mut rest = part;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            self.literal(rest.get(..at).unwrap_or_default());
            self.placeholder("{n}");
            let number = rest.get(at..).unwrap_or_default();
            rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        self.literal(rest);
    }
}

/// What words are made of; all else separates them.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "_-.:/@%+~#$&?".contains(c)
}

/// What stands for a whole word that is one value.
fn whole(word: &str) -> Option<&'static str> {
    if !word.bytes().any(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).is_some_and(is_hex) {
        return Some("{id}");
    }
    if is_time(word) {
        return Some("{time}");
    }
    if is_address(word) {
        return Some("{ip}");
    }
    // Words like `facade` are hexadecimal, too.
    let mixed = word.bytes().any(|b| b.is_ascii_digit()) && word.bytes().any(|b| b.is_ascii_alphabetic());
    if word.len() >= 8 && mixed && is_hex(word) {
        return Some("{id}");
    }
    if is_number(word) {
        return Some("{n}");
    }
    template_segment(word).filter(|_| !word.contains('/'))
}

/// `17`, `-1.5e3`, `99%`, `12ms`, `1m30.5s`, `64KiB`.
fn is_number(word: &str) -> bool {
    let mut rest = word.trim_start_matches(['-', '+', '#', '$']);
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    for _ in 0..4 {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '_');
        if number.len() == rest.len() {
            return rest.is_empty();
        }
        let unit = number.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '%' || c == 'µ');
        // `2fa` is a word; units are short.
        if number.len() - unit.len() > 3 {
            return false;
        }
        rest = unit.strip_prefix(['+', '-']).unwrap_or(unit);
    }
    rest.is_empty()
}

/// Dates and times of day, together or not: digits apart by `-`, `/`, `:`, `.`, with names of months and zones.
fn is_time(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let marks = word.bytes().filter(|byte| matches!(byte, b':' | b'-' | b'/')).count();
    let shape = word.bytes().all(|byte| byte.is_ascii_digit() || b":-/.+TZ".contains(&byte));
    let named = || {
        // 22/Nov/2026:10:46:39 (the common log format).
        let mut parts = word.split('/');
        let day = parts.next().is_some_and(|day| day.len() <= 2 && day.parse::<u8>().is_ok());
        let month =
            parts.next().is_some_and(|month| month.len() == 3 && month.bytes().all(|b| b.is_ascii_alphabetic()));
        let year = parts.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        day && month && year
    };
    (shape && digits >= 4 && marks >= 2 && !word.contains("//")) || named()
}

/// An IP address, with a port or a prefix length or without.
fn is_address(word: &str) -> bool {
    let alone = word.split_once('/').filter(|(_, length)| length.parse::<u8>().is_ok()).map_or(word, |(ip, _)| ip);
    // `::` and `a:b` are no words for addresses.
    word.len() >= 6 && (alone.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_varies_is_replaced_and_what_does_not_stays() {
        for (text, expected) in [
            (
                "2026-11-22 10:46:39 20 [Warning] Aborted connection 20 to db: 'unconnected' host: '10.244.0.1' (closed)",
                "{time} {n} [Warning] Aborted connection {n} to db: '?' host: '?' (closed)",
            ),
            (
                "10.244.0.5 - - [22/Nov/2026:10:46:39 +0000] \"GET /api/products/17 HTTP/1.1\" 502 21 \"-\" \"loadgen/0.3\"",
                "{ip} - - [{time} {n}] \"GET /api/products/{n} HTTP/{n}\" 502 {n} \"?\" \"?\"",
            ),
            (
                r#"{"t":1.5,"lvl":"error","msg":"order ORD-00017 failed","err":"dial tcp 10.0.0.1:5432: refused"}"#,
                "order {id} failed error=dial tcp {ip}: refused",
            ),
            (r#"{"level":"error","error":{"message":"boom 7"}}"#, "error=boom {n}"),
            (
                "time=2026-11-22T10:46:39Z level=error msg=\"cannot reach 10.0.0.7\" err=EOF",
                "cannot reach {ip} error=EOF",
            ),
            (
                "E1122 10:46:39.187429       1 controller.go:114] \"Error syncing pod\" err=\"x\" pod=\"shop/api-1\"",
                "{id} {time} {n} controller.go:{n}] \"Error syncing pod\" err=\"?\" pod=\"?\"",
            ),
            ("bad GET /api/products/22 <HTTPError 404: 'Not Found'>", "bad GET /api/products/{n} <HTTPError {n}: '?'>"),
            ("took 1m30.5s for 3 rows, 99% of 64KiB in worker12", "took {n} for {n} rows, {n} of {n} in worker{n}"),
            ("ids [1, 2, 3] and [4]", "ids [{n}] and [{n}]"),
            ("req 550e8400-e29b-41d4-a716-446655440000 0x7f3a deadbeef1", "req {id}"),
            ("can't open the user's file", "can't open the user's file"),
            ("fe80::1%eth0 [::1]:80 2001:db8::1", "fe{n}::{n}%eth{n} [::{n}]:{n} {ip}"),
            ("", ""),
        ] {
            assert_eq!(pattern(text), expected, "{text}");
        }
    }

    #[test]
    fn long_lines_and_unpaired_quotes_have_patterns() {
        let long = pattern(&"word ".repeat(10_000));
        assert!(long.len() <= MAX_PATTERN_BYTES + '…'.len_utf8() && long.ends_with('…'), "{long}");
        assert_eq!(pattern("it said \"no end 17"), "it said \"no end {n}");
        assert_eq!(pattern(&format!("{}{}", "{\"a\":".repeat(5000), "1")).len(), MAX_PATTERN_BYTES + '…'.len_utf8());
    }

    proptest! {
        #[test]
        fn any_line_has_a_bounded_pattern(text in "(\\PC{0,60}|[\"'`\\\\]|\\{\"msg\":\"|[0-9a-f]{1,40}|[ ,:/.-]|ä|\u{0}|\u{202e}){0,30}") {
            let found = pattern(&text);
            prop_assert!(found.len() <= MAX_PATTERN_BYTES + '…'.len_utf8());
            prop_assert_eq!(found, pattern(&text));
        }

        #[test]
        fn numbers_and_ids_make_no_other_pattern(a in 0u64..u64::MAX, b in 0u64..u64::MAX, ip in any::<[u8; 4]>()) {
            let line = |n: u64, ip: [u8; 4]| {
                let ip = IpAddr::from(ip);
                pattern(&format!("user {n} from {ip}:8080 asked for /orders/{n}/items in {n}ms (0x{n:x}, '{n}')"))
            };
            prop_assert_eq!(line(a, ip), line(b, [10, 0, 0, 1]));
        }
    }
}
