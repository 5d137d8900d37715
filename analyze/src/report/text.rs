//! Turning values and foreign strings into text that is safe and consistent to read.

use jiff::Timestamp;

/// What is shown where there is no data.
pub const NONE: &str = "–";

/// Longest string, in characters, that the HTML shows of any field; the rest is counted.
const LONGEST: usize = 4_000;

/// Makes a foreign string harmless to look at: controls, bidirectional overrides and other characters that are invisible
/// or illegal in XML become visible escapes such as `\u{202e}`; what is too long is cut and counted.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST * 4));
    let mut rest = text.chars();
    for c in rest.by_ref().take(LONGEST) {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => out.push_str("\\r"),
            c if is_treacherous(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    let more = rest.count();
    if more > 0 {
        out.push_str(&format!(" … ({} more characters)", count(more as u64)));
    }
    out
}

/// Characters that are illegal in XML, or that hide or reorder the text around them, or that command a terminal.
#[must_use]
pub fn is_treacherous(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' // C0, DEL, C1
        | '\u{ad}' | '\u{61c}' | '\u{180e}' // soft hyphen, Arabic letter mark, Mongolian vowel separator
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' // zero width, bidi, separators
        | '\u{feff}' | '\u{fff9}'..='\u{fffc}' | '\u{fffe}' | '\u{ffff}'
        | '\u{e0000}'..='\u{e0fff}') // tags
}

/// Shortens in the middle to at most `most` characters, where names differ least.
#[must_use]
pub fn middle(text: &str, most: usize) -> String {
    let total = text.chars().count();
    if total <= most {
        return text.to_owned();
    }
    let tail = most.saturating_sub(1) / 2;
    let head = most.saturating_sub(1) - tail;
    let mut out: String = text.chars().take(head).collect();
    out.push('…');
    out.extend(text.chars().skip(total - tail));
    out
}

/// Shortens at the end, and puts everything on one line.
#[must_use]
pub fn one_line(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (shown, c) in text.split_whitespace().collect::<Vec<_>>().join(" ").chars().enumerate() {
        if shown + 1 == most {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Three significant digits: `0.123`, `1.23`, `12.3`, `1,234`.
#[must_use]
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        NONE.to_owned()
    } else if size >= 999.5 {
        let whole = count(size.round() as u64);
        if value < 0.0 { format!("−{whole}") } else { whole }
    } else if size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.9995 {
        format!("{value:.2}")
    } else if size >= 0.0005 {
        format!("{value:.3}")
    } else if size == 0.0 {
        "0".to_owned()
    } else {
        "<0.001".to_owned()
    }
}

/// A duration with three significant digits: `840 ns`, `12.3 µs`, `1.24 s`, `3.20 min`.
#[must_use]
pub fn duration(ns: u64) -> String {
    const UNITS: [(f64, &str); 6] = [(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"), (60e9, "min"), (3600e9, "h")];
    let value = ns as f64;
    // A value that would round up to the next unit's 1.00 is shown in that unit.
    let next = |i: usize| UNITS.get(i + 1).map_or(f64::INFINITY, |(size, _)| size * if i < 3 { 0.9995 } else { 2.0 });
    let i = (0..UNITS.len()).find(|i| value < next(*i)).unwrap_or(0);
    let (size, unit) = UNITS.get(i).copied().unwrap_or((1.0, "ns"));
    if i == 0 { format!("{ns} ns") } else { format!("{} {unit}", significant(value / size)) }
}

/// A size with three significant digits, in binary units.
#[must_use]
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut i = 0;
    while scaled >= 999.5 && i + 1 < UNITS.len() {
        scaled /= 1024.0;
        i += 1;
    }
    format!("{} {}", significant(scaled), UNITS.get(i).copied().unwrap_or("PiB"))
}

/// A share as a percentage with three significant digits; the ends are exact: `0%` and `100%` mean none and all.
#[must_use]
pub fn percent(ratio: f64) -> String {
    if !ratio.is_finite() {
        NONE.to_owned()
    } else if ratio == 0.0 {
        "0%".to_owned()
    } else if ratio > 0.0 && ratio < 0.0001 {
        "<0.01%".to_owned()
    } else if ratio < 1.0 && ratio > 0.9995 {
        ">99.9%".to_owned()
    } else if ratio < 0.1 {
        format!("{:.2}%", ratio * 100.0)
    } else if ratio < 1.0 {
        format!("{:.1}%", ratio * 100.0)
    } else {
        format!("{:.0}%", ratio * 100.0)
    }
}

/// `part` of `whole` as a percentage; nothing of nothing is no data.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { NONE.to_owned() } else { percent(part as f64 / whole as f64) }
}

/// An optional value, or [`NONE`].
#[must_use]
pub fn or_none<T>(value: Option<T>, format: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), format)
}

/// `1 event`, `2 events`.
#[must_use]
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A count with a unit that comes as data: `1,204 events`, `1 event`, `340 MiB`.
#[must_use]
pub fn quantity(number: u64, unit: &str) -> String {
    match unit {
        "bytes" => bytes(number),
        "" => count(number),
        _ if number == 1 => format!("1 {}", unit.strip_suffix('s').unwrap_or(unit)),
        _ => format!("{} {unit}", count(number)),
    }
}

fn timestamp(ns: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(ns)).ok()
}

/// `2026-11-23 04:05:06 UTC`.
#[must_use]
pub fn date_time(ns: u64) -> String {
    or_none(timestamp(ns), |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `04:05:06`.
#[must_use]
pub fn clock(ns: u64) -> String {
    or_none(timestamp(ns), |t| t.strftime("%H:%M:%S").to_string())
}

/// `04:05:06.789`.
#[must_use]
pub fn clock_ms(ns: u64) -> String {
    or_none(timestamp(ns), |t| t.strftime("%H:%M:%S%.3f").to_string())
}

/// For the `datetime` attribute.
#[must_use]
pub fn rfc3339(ns: u64) -> String {
    or_none(timestamp(ns), |t| t.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// A word for a POSIX shell, quoted where it needs to be.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Escapes for XML text and double-quoted attributes; characters that XML can't hold become visible escapes.
#[must_use]
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            c if is_treacherous(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// A text for a cell of a Markdown table: on one line, and nothing in it is markup or HTML.
#[must_use]
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let text = clean(text);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            // Within a word it is no emphasis.
            '_' if out.ends_with(char::is_alphanumeric) && chars.peek().is_some_and(|c| c.is_alphanumeric()) => {
                out.push('_')
            }
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '>' | '~' | '!' => {
                out.push('\\');
                out.push(c);
            }
            // A mention or an address must not become a link in the ticket.
            '@' => out.push_str("&#64;"),
            ':' if chars.peek() == Some(&'/') => out.push_str("&#58;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_digits_across_units() {
        let shown =
            [0, 999, 1_000, 12_345, 999_499, 999_600, 840_000_000, 1_240_000_000, 92_100_000_000, 600_000_000_000];
        let texts: Vec<String> = shown.into_iter().map(duration).collect();
        assert_eq!(
            texts,
            ["0 ns", "999 ns", "1.00 µs", "12.3 µs", "999 µs", "1.00 ms", "840 ms", "1.24 s", "92.1 s", "10.0 min"]
        );
    }

    #[test]
    fn sizes_counts_and_shares() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_048_576), "1.00 MiB");
        assert_eq!(bytes(u64::MAX), "16,384 PiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(share(0, 0), NONE);
        assert_eq!(share(1, 1_000_000), "<0.01%");
        assert_eq!(percent(f64::NAN), NONE);
        assert_eq!(percent(0.99999), ">99.9%");
        assert_eq!(significant(1234.5), "1,235");
    }

    #[test]
    fn hostile_characters_become_visible() {
        assert_eq!(clean("a\u{0}b\u{202e}c\u{feff}"), "a\\u{0}b\\u{202e}c\\u{feff}");
        assert!(clean(&"x".repeat(1_000_000)).ends_with("(996,000 more characters)"));
        assert_eq!(xml("<\"&'>\u{1}"), "&lt;&quot;&amp;&#39;&gt;\\u{1}");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(markdown("a|b\n<i>"), "a\\|b &lt;i\\>");
        assert_eq!(markdown("at 10:30, product_id _x_ https://x"), "at 10:30, product_id \\_x\\_ https&#58;//x");
    }

    #[test]
    fn names_shorten_in_the_middle() {
        assert_eq!(middle("checkout-7d9f8b6c5-x2x4z", 12), "checko…x2x4z");
        assert_eq!(middle("short", 12), "short");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(date_time(1_795_406_706_789_000_000), "2026-11-23 04:05:06 UTC");
        assert_eq!(clock_ms(1_795_406_706_789_000_000), "04:05:06.789");
    }
}
