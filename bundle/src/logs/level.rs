//! How serious a line is, as it says itself, and which lines belong to the one before.

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For developers: debug, trace.
    Debug,
    /// The normal course.
    Info,
    /// May become trouble.
    Warning,
    /// Something failed.
    Error,
    /// The program ends, or as good as that.
    Fatal,
}

/// How much of a line is searched for words: a message that begins later is a document of its own.
const SEARCHED_BYTES: usize = 2048;
/// Where a line without keys says its level, if it does.
const HEAD_BYTES: usize = 200;
/// Keys of JSON and logfmt lines that hold the level, by how they end: `loglevel` and `levelname` beside `level`, `@level`,
/// `log.level`.
const LEVEL_KEYS: [&str; 5] = ["level", "lvl", "severity", "loglevel", "levelname"];

impl Level {
    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// Whether it is a warning or worse.
    pub fn is_trouble(self) -> bool {
        self >= Self::Warning
    }

    /// The level of a line; `None` where nothing in it tells. In this order: a key of a JSON or logfmt line, klog's first
    /// letter, a word at the beginning (`ERROR`, `[warn]`, `error:`), an access line's status, a word that speaks of trouble. An
    /// access line with a status of 5xx is an error whatever level it was written at.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim_start();
        let searched = prefix(text, SEARCHED_BYTES);
        let said = by_key(text).or_else(|| by_klog(text)).or_else(|| by_word(prefix(text, HEAD_BYTES)));
        let said = said.or_else(|| is_access_line(searched).then_some(Self::Info));
        match said {
            Some(level) if level >= Self::Error => Some(level),
            _ if has_server_error(searched) => Some(Self::Error),
            None => by_trouble(searched),
            said => said,
        }
    }

    /// The level that a word names.
    fn named(word: &str) -> Option<Self> {
        const NAMES: [(&str, Level); 24] = [
            ("trace", Level::Debug),
            ("debug", Level::Debug),
            ("verbose", Level::Debug),
            ("fine", Level::Debug),
            ("info", Level::Info),
            ("information", Level::Info),
            ("informational", Level::Info),
            ("notice", Level::Info),
            ("log", Level::Info),
            ("warn", Level::Warning),
            ("warning", Level::Warning),
            ("err", Level::Error),
            ("error", Level::Error),
            ("severe", Level::Error),
            ("failure", Level::Error),
            ("crit", Level::Fatal),
            ("critical", Level::Fatal),
            ("fatal", Level::Fatal),
            ("panic", Level::Fatal),
            ("dpanic", Level::Fatal),
            ("alert", Level::Fatal),
            ("emerg", Level::Fatal),
            ("emergency", Level::Fatal),
            ("emergent", Level::Fatal),
        ];
        NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
    }

    /// The level of a number: those of bunyan and pino, 10 to 60.
    fn numbered(number: &str) -> Option<Self> {
        Some(match number {
            "10" | "20" => Self::Debug,
            "30" => Self::Info,
            "40" => Self::Warning,
            "50" => Self::Error,
            "60" => Self::Fatal,
            _ => return None,
        })
    }
}

/// The beginning of a text, whole characters.
fn prefix(text: &str, most: usize) -> &str {
    (most.saturating_sub(3)..=most).rev().find_map(|end| text.get(..end)).unwrap_or(text)
}

/// What stands behind a key: `key=value`, `"key":"value"`, also with escaped quotes. `None` if this is no key.
fn value_behind(rest: &str, is_json: bool) -> Option<&str> {
    let quote = |text: &'static str| move |c: char| text.contains(c);
    let behind_key = rest.trim_start_matches(quote("\\\"'"));
    let quoted = behind_key.len() < rest.len();
    let separated = behind_key.trim_start();
    let value = match separated.chars().next()? {
        '=' => separated.get(1..)?,
        ':' if is_json || quoted => separated.get(1..)?,
        _ => return None,
    };
    let value = value.trim_start().trim_start_matches(quote("\\\"'"));
    let end = value.find(|c: char| !c.is_ascii_alphanumeric() && c != '<').unwrap_or(value.len());
    value.get(..end)
}

/// What stands behind each occurrence of a key in a text.
fn values<'a>(text: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    let is_json = text.starts_with('{');
    text.match_indices(key).filter_map(move |(at, _)| {
        let before = text.get(..at)?.chars().next_back();
        if before.is_some_and(char::is_alphanumeric) {
            return None;
        }
        value_behind(text.get(at + key.len()..)?, is_json)
    })
}

fn by_key(text: &str) -> Option<Level> {
    let found = LEVEL_KEYS.iter().flat_map(|key| values(text, key));
    found.filter_map(|value| Level::named(value).or_else(|| Level::numbered(value))).next()
}

/// `E1122 10:46:39.187429       1 file.go:12] …` (k8s.io/klog, `formatHeader`).
fn by_klog(text: &str) -> Option<Level> {
    let mut bytes = text.bytes();
    let level = match bytes.next()? {
        b'D' => Level::Debug,
        b'I' => Level::Info,
        b'W' => Level::Warning,
        b'E' => Level::Error,
        b'F' => Level::Fatal,
        _ => return None,
    };
    (bytes.by_ref().take(4).filter(u8::is_ascii_digit).count() == 4 && bytes.next() == Some(b' ')).then_some(level)
}

/// A word of a text and what stands around it.
struct Word<'a> {
    text: &'a str,
    before: Option<char>,
    rest: &'a str,
    /// The word before it.
    previous: &'a str,
}

/// The words of a text: runs of letters, digits and `_`.
fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut at, mut previous) = (0, "");
    std::iter::from_fn(move || {
        let begin = at + text.get(at..)?.find(part)?;
        let word = text.get(begin..)?;
        let word = word.get(..word.find(|c| !part(c)).unwrap_or(word.len()))?;
        at = begin + word.len();
        let before = text.get(..begin)?.chars().next_back();
        let found = Word { text: word, before, rest: text.get(at..)?, previous };
        previous = word;
        Some(found)
    })
}

/// `ERROR`, `[error]`, `<warn>`, `error:` at the beginning of a line.
fn by_word(head: &str) -> Option<Level> {
    words(head).find_map(|word| {
        let level = Level::named(word.text)?;
        let next = word.rest.chars().next();
        let upper = word.text.len() > 2 && word.text.bytes().all(|byte| byte.is_ascii_uppercase());
        let enclosed = matches!((word.before, next), (Some('['), Some(']')) | (Some('<'), Some('>')));
        let titled = next == Some(':') && word.before.is_none_or(|c| c.is_whitespace() || c == ']');
        // LOG, ALERT and the like are words that are also written large; FATAL: and LOG: are PostgreSQL's.
        let is_log = word.text.eq_ignore_ascii_case("log") || word.text.eq_ignore_ascii_case("fine");
        (enclosed || titled && (!is_log || upper) || upper && !is_log).then_some(level)
    })
}

/// What stands behind `"METHOD PATH HTTP/1.1"` of an access line.
fn behind_request(text: &str) -> Option<&str> {
    let (_, behind) = text.split_once(" HTTP/")?;
    let behind = behind.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let status = behind.trim_start_matches(['\\', '"', ' ']);
    (status.len() < behind.len()).then_some(status)
}

/// A status code at the beginning of a text.
fn status(text: &str) -> Option<u16> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).filter(|digits| digits.len() == 3)?.parse().ok().filter(|code| (100..600).contains(code))
}

fn is_access_line(text: &str) -> bool {
    behind_request(text).and_then(status).is_some()
}

fn has_server_error(text: &str) -> bool {
    let mut told = values(text, "status").chain(values(text, "status_code")).filter_map(status);
    behind_request(text).and_then(status).is_some_and(|code| code >= 500) || told.any(|code| code >= 500)
}

/// Words of lines that say no level.
fn by_trouble(text: &str) -> Option<Level> {
    const NONE: [&str; 8] = ["null", "nil", "none", "0", "false", "<nil", "", "ok"];
    words(text).find_map(|word| {
        let lower = word.text.to_ascii_lowercase();
        let level = match lower.as_str() {
            "panic" | "panicked" | "segfault" | "fatal" => Level::Fatal,
            "error" | "failed" | "failure" | "exception" | "traceback" | "unhandled" | "uncaught" | "aborted" => {
                Level::Error
            }
            "warning" | "warn" => Level::Warning,
            // HTTPError, NullPointerException: names of types.
            _ if (word.text.ends_with("Error") || word.text.ends_with("Exception")) && word.text.len() > 5 => {
                Level::Error
            }
            _ => return None,
        };
        let denied = matches!(word.previous.to_ascii_lowercase().as_str(), "no" | "0" | "without" | "zero");
        let nothing = value_behind(word.rest, true).is_some_and(|value| NONE.contains(&value));
        (!(denied || nothing && is_value_next(word.rest))).then_some(level)
    })
}

/// Whether a value stands right behind a word, as in `error=nil`; a title (`error: cannot open`) has a space.
fn is_value_next(rest: &str) -> bool {
    let rest = rest.trim_start_matches(['\\', '"']);
    rest.starts_with('=') || rest.starts_with(':') && value_behind(rest, true).is_some_and(|value| !value.is_empty())
}

/// What [`Reading::next`] says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Its level, or that of the line it belongs to.
    pub level: Option<Level>,
    /// It belongs to the line before: a stack trace, an indented rest.
    pub continues: bool,
}

/// Reads the lines of one stream of one container in their order, and tells which belong together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    level: Option<Level>,
    /// Lines that may still belong to the last one that stood for itself.
    left: u16,
    /// Inside a Python traceback: the line that ends it is not indented.
    traceback: bool,
    /// Behind a Go panic: functions are not indented.
    panic: bool,
}

/// Lines that belong to another one at most.
const MAX_CONTINUED: u16 = 200;

impl Reading {
    /// Reads the next line.
    pub fn next(&mut self, text: &str) -> Read {
        let trouble = self.level.is_some_and(Level::is_trouble);
        if self.left > 0 && self.belongs(text, trouble) {
            let own = if trouble { None } else { Level::of(text).filter(|own| own.is_trouble()) };
            if own.is_none() {
                self.left -= 1;
                return Read { level: self.level, continues: true };
            }
        }
        self.level = Level::of(text);
        self.left = MAX_CONTINUED;
        self.traceback = text.starts_with("Traceback (most recent call last)");
        self.panic = text.starts_with("panic:") || text.starts_with("fatal error:");
        Read { level: self.level, continues: false }
    }

    fn belongs(&mut self, text: &str, trouble: bool) -> bool {
        const BEGINNINGS: [&str; 9] = [
            "Caused by:",
            "Suppressed:",
            "goroutine ",
            "[signal ",
            "created by ",
            "stack backtrace:",
            "note: ",
            "During handling of the above exception",
            "The above exception was the direct cause",
        ];
        if text.starts_with([' ', '\t']) {
            return true;
        }
        if !trouble {
            return false;
        }
        if text.starts_with("Traceback (most recent call last)") {
            self.traceback = true;
            return true;
        }
        if text.is_empty() || BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)) {
            return true;
        }
        // The exception itself, once.
        std::mem::take(&mut self.traceback) || self.panic && text.ends_with(')')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{Debug, Error, Fatal, Info, Warning};

    #[test]
    fn lines_say_their_level() {
        for (text, level) in [
            (r#"{"t": 1.5, "lvl": "info", "msg": "\"GET /x HTTP/1.1\" 200 -"}"#, Some(Info)),
            (r#"{"t": 1.5, "lvl": "info", "msg": "\"GET /x HTTP/1.1\" 503 -"}"#, Some(Error)),
            (r#"{"level":50,"msg":"x"}"#, Some(Error)),
            (r#"{"severity":"WARNING","message":"error"}"#, Some(Warning)),
            (r#"{"log.level":"debug","error":null}"#, Some(Debug)),
            (r#"{"msg":"done","error":null}"#, None),
            (r#"{"msg":"done","error":"EOF"}"#, Some(Error)),
            (r#"{"status":502,"path":"/x"}"#, Some(Error)),
            ("time=2026-11-22T10:46:39Z level=error msg=\"no\"", Some(Error)),
            ("ts=1 lvl=warn x", Some(Warning)),
            ("E1122 10:46:39.187429       1 reflector.go:12] x", Some(Error)),
            ("W1122 10:46:39.187429 x", Some(Warning)),
            ("E11 is a seat", None),
            ("2026-11-22 10:46:39 20 [Warning] Aborted connection 20", Some(Warning)),
            ("2026/11/22 10:46:39 [error] 29#29: *1 connect() failed", Some(Error)),
            ("2026-11-22 10:46:39.000 UTC [12] FATAL:  role does not exist", Some(Fatal)),
            ("2026-11-22 10:46:39.000 UTC [12] LOG:  checkpoint complete", Some(Info)),
            ("2026-11-22 10:46:39 INFO  c.e.Foo - no ERROR here", Some(Info)),
            ("ERROR:root:it broke", Some(Error)),
            ("error: cannot open", Some(Error)),
            ("panic: runtime error", Some(Fatal)),
            ("Traceback (most recent call last):", Some(Error)),
            ("bad GET /api/products/22 <HTTPError 404: 'Not Found'>", Some(Error)),
            ("Exception in thread \"main\" java.lang.NullPointerException", Some(Error)),
            ("thread 'main' panicked at src/main.rs:2:5:", Some(Fatal)),
            ("10.0.0.5 - - [22/Nov/2026:10:46:39 +0000] \"POST /error HTTP/1.1\" 201 76", Some(Info)),
            ("10.0.0.5 - - [22/Nov/2026:10:46:39 +0000] \"POST /x HTTP/1.1\" 500 76", Some(Error)),
            ("10.0.0.5 - - [22/Nov/2026:10:46:39 +0000] \"POST /x HTTP/1.1\" 404 500", Some(Info)),
            ("there was no error", None),
            ("finished, 0 failed", None),
            ("request done err=<nil> error=nil", None),
            ("sent 100 ok 97 bad 4", None),
            ("connecting failed", Some(Error)),
            ("", None),
        ] {
            assert_eq!(Level::of(text), level, "{text}");
        }
    }

    fn read(lines: &str) -> Vec<(Option<Level>, bool)> {
        let mut reading = Reading::default();
        lines.lines().map(|line| reading.next(line)).map(|read| (read.level, read.continues)).collect()
    }

    #[test]
    fn traces_belong_to_what_they_are_a_trace_of() {
        let python = "ERROR it broke\nTraceback (most recent call last):\n  File \"x.py\", line 1\n    f()\nValueError: x\nINFO next";
        let expected = [(false), true, true, true, true, false];
        assert_eq!(read(python).iter().map(|(_, continues)| *continues).collect::<Vec<_>>(), expected);
        assert_eq!(read(python).last(), Some(&(Some(Info), false)));
        let java = "x.FooException: a\n\tat a.b(C.java:1)\nCaused by: y.BarException\n\t... 3 more\nserving";
        assert_eq!(
            read(java),
            [(Some(Error), false), (Some(Error), true), (Some(Error), true), (Some(Error), true), (None, false)]
        );
        let go = "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:3 +0x1\nexit status 2";
        let continued: Vec<_> = read(go).iter().map(|(_, continues)| *continues).collect();
        assert_eq!(continued, [false, true, true, true, true, false]);
    }

    #[test]
    fn an_indented_error_behind_an_indifferent_line_stands_for_itself() {
        assert_eq!(
            read("INFO starting\n  a: 1\n  ERROR no"),
            [(Some(Info), false), (Some(Info), true), (Some(Error), false)]
        );
    }
}
