//! Lines of the text protocol, and the data behind some of them.

use std::ops::Range;

use crate::frames::{Frame, Framing, Head};
use crate::pairing::Looks;
use crate::{ByteClass, Output, Side, text};

/// Lines without an end are given up here; servers take no longer ones.
pub(super) const MAX_LINE_BYTES: usize = 64 << 10;

/// Data above this is none of anybody: items have 1 MiB by default, 1 GiB at most.
const MAX_DATA_BYTES: u64 = 1 << 30;

/// What the words behind a command's verb are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Keys.
    Keys,
    /// An expiry time, then keys.
    TouchKeys,
    /// Key, flags, expiry time, length (and a unique number), with data.
    Store,
    /// Key, length, flags, with data.
    MetaStore,
    /// Key and flags.
    Meta,
    /// Key and more.
    Key,
    /// No key.
    Plain,
}

/// How a command is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Values up to `END`.
    Values,
    /// Lines up to `END`, or one line that is none of theirs.
    Lines,
    /// One line.
    Line,
    /// One line, with data if it begins with `VA`.
    Meta,
    Nothing,
}

/// A command: its verb, what follows, its answer.
pub(super) struct Verb {
    pub name: &'static str,
    pub form: Form,
    pub answer: Answer,
}

const fn verb(name: &'static str, form: Form, answer: Answer) -> Verb {
    Verb { name, form, answer }
}

static VERBS: &[Verb] = &[
    verb("get", Form::Keys, Answer::Values),
    verb("gets", Form::Keys, Answer::Values),
    verb("set", Form::Store, Answer::Line),
    verb("mg", Form::Meta, Answer::Meta),
    verb("ms", Form::MetaStore, Answer::Meta),
    verb("add", Form::Store, Answer::Line),
    verb("replace", Form::Store, Answer::Line),
    verb("append", Form::Store, Answer::Line),
    verb("prepend", Form::Store, Answer::Line),
    verb("cas", Form::Store, Answer::Line),
    verb("gat", Form::TouchKeys, Answer::Values),
    verb("gats", Form::TouchKeys, Answer::Values),
    verb("delete", Form::Key, Answer::Line),
    verb("incr", Form::Key, Answer::Line),
    verb("decr", Form::Key, Answer::Line),
    verb("touch", Form::Key, Answer::Line),
    verb("md", Form::Meta, Answer::Meta),
    verb("ma", Form::Meta, Answer::Meta),
    verb("me", Form::Meta, Answer::Meta),
    verb("mn", Form::Plain, Answer::Meta),
    verb("stats", Form::Plain, Answer::Lines),
    verb("version", Form::Plain, Answer::Line),
    verb("verbosity", Form::Plain, Answer::Line),
    verb("flush_all", Form::Plain, Answer::Line),
    verb("cache_memlimit", Form::Plain, Answer::Line),
    verb("slabs", Form::Plain, Answer::Line),
    verb("lru", Form::Plain, Answer::Line),
    verb("lru_crawler", Form::Plain, Answer::Lines),
    verb("extstore", Form::Plain, Answer::Line),
    verb("watch", Form::Plain, Answer::Line),
    verb("misbehave", Form::Plain, Answer::Line),
    verb("refresh_certs", Form::Plain, Answer::Line),
    verb("shutdown", Form::Plain, Answer::Nothing),
    verb("quit", Form::Plain, Answer::Nothing),
];

/// The command with this name; they are lower-case.
pub(super) fn verb_named(name: &[u8]) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name.as_bytes() == name)
}

/// A line: words, by offsets, as many as matter; and the data behind it.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub words: [Range<usize>; 6],
    /// How many words there are.
    pub count: usize,
    /// Its last word.
    pub last: Range<usize>,
    /// Where it ends, its line end included.
    pub end: usize,
    /// Bytes of data, without the line end behind them.
    pub data: Option<u64>,
}

impl Line {
    pub fn word<'a>(&self, index: usize, bytes: &'a [u8]) -> &'a [u8] {
        self.words.get(index).and_then(|range| bytes.get(range.clone())).unwrap_or_default()
    }

    pub fn last<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.last.clone()).unwrap_or_default()
    }

    pub fn length(&self) -> u64 {
        self.end as u64 + self.data.map_or(0, |data| data + 2)
    }

    /// Splits the line that `bytes` begin with. `None` if its end is not there.
    fn split(bytes: &[u8]) -> Option<Line> {
        let newline = memchr::memchr(b'\n', bytes)?;
        let text = bytes.get(..newline)?;
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Some(Line { end: newline + 1, ..Line::words(text) })
    }

    /// The words of a text without a line end.
    pub fn words(text: &[u8]) -> Line {
        let mut line = Line { end: text.len(), ..Line::default() };
        let mut at = 0;
        for word in text.split(|b| *b == b' ') {
            if !word.is_empty() {
                let range = at..at + word.len();
                if let Some(slot) = line.words.get_mut(line.count) {
                    *slot = range.clone();
                }
                line.count += 1;
                line.last = range;
            }
            at += word.len() + 1;
        }
        line
    }
}

/// Reads the line that a message of `side` begins with: `Ok(None)` if its end is missing, `Err` if it is none.
pub(super) fn read(side: Side, bytes: &[u8]) -> Result<Option<Line>, ()> {
    let window = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    let control = |b: &u8| *b < b' ' && !matches!(b, b'\r' | b'\n' | b'\t') || *b == 0x7f;
    if window.iter().take(32).take_while(|b| **b != b'\n').any(control) {
        return Err(());
    }
    let Some(mut line) = Line::split(window) else {
        return if window.len() < MAX_LINE_BYTES { Ok(None) } else { Err(()) };
    };
    line.data = match (side, verb_named(line.word(0, bytes)).map(|verb| verb.form)) {
        (Side::Client, Some(Form::Store)) if line.count >= 5 => number(line.word(4, bytes)),
        (Side::Client, Some(Form::MetaStore)) if line.count >= 3 => number(line.word(2, bytes)),
        (Side::Server, _) if line.word(0, bytes) == b"VALUE" && line.count >= 4 => number(line.word(3, bytes)),
        (Side::Server, _) if line.word(0, bytes) == b"VA" && line.count >= 2 => number(line.word(1, bytes)),
        _ => None,
    };
    Ok(Some(line))
}

pub(super) fn number(word: &[u8]) -> Option<u64> {
    text::number(word).filter(|number| *number <= MAX_DATA_BYTES)
}

fn is_number(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    (1..=20).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

fn is_key(word: &[u8]) -> bool {
    (1..=250).contains(&word.len()) && word.iter().all(|b| *b > b' ' && *b != 0x7f)
}

/// How much a line says of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    No,
    /// A line that others may have too.
    Weak,
    /// One that only memcached has.
    Strong,
}

/// Whether a line is a command that is well formed.
pub(super) fn fits_command(line: &Line, bytes: &[u8]) -> Fit {
    let word = |index| line.word(index, bytes);
    let Some(verb) = verb_named(word(0)) else { return Fit::No };
    let noreply = |at: usize| line.count == at || line.count == at + 1 && word(at) == b"noreply";
    let fits = match verb.form {
        Form::Keys => line.count >= 2 && is_key(word(1)),
        Form::TouchKeys => line.count >= 3 && is_number(word(1)) && is_key(word(2)),
        Form::Store => {
            let count = if verb.name == "cas" { 6 } else { 5 };
            let numbers = (2..count.min(5)).all(|index| is_number(word(index)));
            if noreply(count) && is_key(word(1)) && numbers && line.data.is_some() {
                return Fit::Strong;
            }
            false
        }
        Form::MetaStore => line.count >= 3 && is_key(word(1)) && line.data.is_some(),
        Form::Meta => line.count >= 2 && is_key(word(1)),
        Form::Key => {
            let number = matches!(verb.name, "incr" | "decr" | "touch");
            let end = if number { 3 } else { 2 };
            is_key(word(1)) && (!number || is_number(word(2))) && (noreply(end) || verb.name == "delete")
        }
        Form::Plain => line.count <= 5,
    };
    if fits { Fit::Weak } else { Fit::No }
}

/// Whether a line is an answer.
pub(super) fn fits_answer(line: &Line, bytes: &[u8]) -> Fit {
    match line.word(0, bytes) {
        b"VALUE" if line.data.is_some() && is_number(line.word(2, bytes)) => Fit::Strong,
        b"STORED" | b"NOT_STORED" | b"TOUCHED" if line.count == 1 => Fit::Strong,
        // Beanstalkd deletes jobs with the same words.
        b"DELETED" if line.count == 1 => Fit::Weak,
        b"CLIENT_ERROR" | b"SERVER_ERROR" => Fit::Strong,
        b"STAT" if line.count >= 3 => Fit::Strong,
        b"VA" if line.data.is_some() => Fit::Strong,
        b"END" | b"OK" | b"EXISTS" | b"NOT_FOUND" | b"ERROR" | b"RESET" | b"EN" | b"MN" if line.count == 1 => Fit::Weak,
        b"HD" | b"NF" | b"NS" | b"EX" => Fit::Weak,
        b"VERSION" if line.count == 2 => Fit::Weak,
        b"ME" | b"BUSY" | b"BADCLASS" | b"NOSPARE" | b"NOTFULL" | b"UNSAFE" | b"SAME" | b"ITEM" => Fit::Weak,
        word if line.count == 1 && number(word).is_some() => Fit::Weak,
        _ => Fit::No,
    }
}

pub(super) struct Lines;

impl Framing for Lines {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        match read(side, bytes) {
            Ok(Some(line)) => Head::Length(line.length()),
            Ok(None) => Head::Short,
            Err(()) => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let line = match read(side, bytes) {
            Ok(Some(line)) => line,
            Ok(None) if !cut => return Looks::Open,
            _ => return Looks::No,
        };
        let fit = if side == Side::Client { fits_command(&line, bytes) } else { fits_answer(&line, bytes) };
        let end = usize::try_from(line.length()).ok().and_then(|length| bytes.get(length.checked_sub(2)?..length));
        let ends = line.data.is_none() || end.is_none_or(|end| end == b"\r\n");
        (fit > Fit::No && ends).into()
    }
}

/// Classifies a message: its line, and the data behind it.
pub(super) fn mark(side: Side, frame: &Frame, line: &Line, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let bytes = &frame.bytes;
    let (start, limit) = (frame.range.start, frame.range.end);
    let at = |offset: usize| (start + offset as u64).min(limit);
    let form = verb_named(line.word(0, bytes)).map(|verb| verb.form);
    let mut marker = out.marker(side, start);
    let [verb, first, second, ..] = &line.words;
    marker.to(at(verb.end), ByteClass::Structure);
    match (side, form) {
        (Side::Client, Some(Form::Keys)) => {
            marker.to(at(line.last.end), ByteClass::Identifier);
        }
        (Side::Client, Some(Form::TouchKeys)) => {
            marker.to(at(second.start), ByteClass::Structure);
            marker.to(at(line.last.end), ByteClass::Identifier);
        }
        (Side::Client, Some(Form::Plain)) => marker.to(at(line.last.end), ByteClass::Structure),
        (Side::Client, Some(_)) => {
            marker.to(at(first.start), ByteClass::Structure);
            marker.to(at(first.end), ByteClass::Identifier);
            // A number that is added is a value.
            let class = if form == Some(Form::Key) { ByteClass::Value } else { ByteClass::Structure };
            marker.to(at(line.last.end), class);
        }
        (Side::Server, _) if line.word(0, bytes) == b"VALUE" => {
            marker.to(at(first.start), ByteClass::Structure);
            marker.to(at(first.end), ByteClass::Identifier);
        }
        _ => marker.to(at(line.last.end), ByteClass::Value),
    }
    marker.to(at(line.end), ByteClass::Structure);
    if let Some(data) = line.data {
        marker.to((start + line.end as u64).saturating_add(data).min(limit), ByteClass::Value);
    }
    marker.to(limit, ByteClass::Structure);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(side: Side, bytes: &[u8]) -> u64 {
        read(side, bytes).unwrap().unwrap().length()
    }

    #[test]
    fn lines_tell_their_data() {
        assert_eq!(length(Side::Client, b"set a 0 0 3\r\nabc\r\n"), 18);
        assert_eq!(length(Side::Client, b"set a 0 0 -1\r\n"), 14);
        assert_eq!(length(Side::Client, b"ms a 2 T0\r\nhi\r\n"), 15);
        assert_eq!(length(Side::Server, b"VALUE a 0 3 17\r\nabc\r\nEND\r\n"), 21);
        assert_eq!(length(Side::Server, b"VA 2 s2\r\nhi\r\n"), 13);
        assert_eq!(length(Side::Client, b"get a b\r\nget c\r\n"), 9);
        assert!(read(Side::Client, b"\x80\x01\x02\r\n").is_err());
        assert!(read(Side::Client, b"get a").unwrap().is_none());
    }
}
