//! Protocol messages: a line, and behind some of them a payload whose length the line tells.

use std::ops::Range;

use crate::frames::{Frame, Framing, Head};
use crate::pairing::Looks;
use crate::{ByteClass, Detected, Output, Prefix, Side, text};

/// Bytes of a message that are kept: the longest line that a server takes (`max_control_line`, 4 KiB) and the start of
/// a payload.
pub(super) const MAX_KEPT_BYTES: usize = 5 << 10;

/// Lines without an end are given up here. INFO and CONNECT carry JSON; an INFO names every server of a cluster.
const MAX_LINE_BYTES: usize = 32 << 10;

/// Payloads above this are none of anybody: `max_payload` is 1 MiB by default, 64 MiB at most.
const MAX_PAYLOAD_BYTES: u64 = 1 << 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Info,
    Msg,
    Hmsg,
    Ping,
    Pong,
    Ok,
    Err,
}

impl Verb {
    fn of(side: Side, word: &[u8]) -> Option<Verb> {
        const CLIENT: &[(&[u8], Verb)] = &[
            (b"PUB", Verb::Pub),
            (b"HPUB", Verb::Hpub),
            (b"SUB", Verb::Sub),
            (b"UNSUB", Verb::Unsub),
            (b"CONNECT", Verb::Connect),
            (b"PING", Verb::Ping),
            (b"PONG", Verb::Pong),
        ];
        const SERVER: &[(&[u8], Verb)] = &[
            (b"MSG", Verb::Msg),
            (b"HMSG", Verb::Hmsg),
            (b"PING", Verb::Ping),
            (b"PONG", Verb::Pong),
            (b"+OK", Verb::Ok),
            (b"-ERR", Verb::Err),
            (b"INFO", Verb::Info),
        ];
        let verbs = if side == Side::Client { CLIENT } else { SERVER };
        verbs.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, verb)| *verb)
    }

    /// Whether a message could begin with these bytes, which hold no whole word.
    fn may_begin(side: Side, part: &[u8]) -> bool {
        let verbs: &[&[u8]] = match side {
            Side::Client => &[b"PUB", b"HPUB", b"SUB", b"UNSUB", b"CONNECT", b"PING", b"PONG"],
            Side::Server => &[b"MSG", b"HMSG", b"PING", b"PONG", b"+OK", b"-ERR", b"INFO"],
        };
        verbs.iter().any(|verb| verb.get(..part.len()).is_some_and(|start| start.eq_ignore_ascii_case(part)))
    }
}

/// Most words that a line has behind its verb (`HMSG subject sid reply headers total`).
const MAX_WORDS: usize = 5;

/// A line, by offsets in the bytes it was read from.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub verb: Option<Verb>,
    pub words: [Range<usize>; MAX_WORDS],
    pub count: usize,
    /// What follows the verb.
    pub rest: Range<usize>,
    /// Where it ends, its line end included.
    pub end: usize,
    /// Bytes of headers, and of headers and payload together, without the line end behind them.
    pub payload: Option<(u64, u64)>,
}

pub(super) enum Read {
    Line(Line),
    Short,
    Bad,
}

impl Line {
    pub fn word<'a>(&self, index: usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.words.get(index).filter(|_| index < self.count)?.clone())
    }

    /// Subject.
    pub fn subject<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.word(0, bytes)
    }

    /// The subject that an answer goes to.
    pub fn reply<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (index, without) = match self.verb? {
            Verb::Pub => (1, 2),
            Verb::Hpub => (1, 3),
            Verb::Msg => (2, 3),
            Verb::Hmsg => (2, 4),
            _ => return None,
        };
        if self.count > without { self.word(index, bytes) } else { None }
    }

    /// The whole message's length.
    fn length(&self) -> u64 {
        self.end as u64 + self.payload.map_or(0, |(_, total)| total + 2)
    }
}

fn number(word: &[u8]) -> Option<u64> {
    if word.len() <= 10 { text::number(word) } else { None }
}

/// Reads the line that a message of `side` begins with.
pub(super) fn read(side: Side, bytes: &[u8]) -> Read {
    let window = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    let word = window.iter().take(8).position(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'));
    let Some(word) = word else {
        return if window.len() < 8 && Verb::may_begin(side, window) { Read::Short } else { Read::Bad };
    };
    let Some(verb) = window.get(..word).and_then(|name| Verb::of(side, name)) else { return Read::Bad };
    let Some(newline) = memchr::memchr(b'\n', window) else {
        return if window.len() < MAX_LINE_BYTES { Read::Short } else { Read::Bad };
    };
    let text_end = if newline > 0 && window.get(newline - 1) == Some(&b'\r') { newline - 1 } else { newline };
    let mut line = Line { verb: Some(verb), rest: word..text_end.max(word), end: newline + 1, ..Line::default() };
    if matches!(verb, Verb::Connect | Verb::Info | Verb::Err) {
        return Read::Line(line);
    }
    let mut at = word;
    while at < text_end {
        let blank = |at: usize| window.get(at).is_none_or(|b| matches!(b, b' ' | b'\t'));
        let start = (at..text_end).find(|at| !blank(*at)).unwrap_or(text_end);
        let end = (start..text_end).find(|at| blank(*at)).unwrap_or(text_end);
        if start < end {
            let Some(slot) = line.words.get_mut(line.count) else { return Read::Bad };
            *slot = start..end;
            line.count += 1;
        }
        at = end.max(at + 1);
    }
    let (fewest, most, headers) = match verb {
        Verb::Pub => (2, 3, false),
        Verb::Hpub => (3, 4, true),
        Verb::Msg => (3, 4, false),
        Verb::Hmsg => (4, 5, true),
        Verb::Sub => (2, 3, false),
        Verb::Unsub => (1, 2, false),
        _ => (0, 0, false),
    };
    if line.count < fewest || line.count > most {
        return Read::Bad;
    }
    if matches!(verb, Verb::Pub | Verb::Hpub | Verb::Msg | Verb::Hmsg) {
        let total = line.word(line.count - 1, window).and_then(number);
        let head = if headers { line.word(line.count - 2, window).and_then(number) } else { Some(0) };
        match (head, total) {
            (Some(head), Some(total)) if head <= total && total <= MAX_PAYLOAD_BYTES => {
                line.payload = Some((head, total));
            }
            _ => return Read::Bad,
        }
    }
    Read::Line(line)
}

pub(super) struct Wire;

impl Framing for Wire {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        match read(side, bytes) {
            Read::Line(line) => Head::Length(line.length()),
            Read::Short => Head::Short,
            Read::Bad => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let line = match read(side, bytes) {
            Read::Line(line) => line,
            Read::Short if !cut => return Looks::Open,
            _ => return Looks::No,
        };
        let text = |word: &[u8]| word.iter().all(|b| *b > b' ' && *b != 0x7f);
        let words = (0..line.count).all(|index| line.word(index, bytes).is_some_and(text));
        let json = |prefix: &[u8]| bytes.get(line.rest.clone()).is_some_and(|rest| rest.starts_with(prefix));
        let fits = match line.verb {
            Some(Verb::Connect | Verb::Info) => json(b" {"),
            Some(Verb::Err) => json(b" '"),
            _ => words,
        };
        let end = usize::try_from(line.length()).ok().and_then(|length| bytes.get(length.checked_sub(2)?..length));
        // Some clients end their lines with LF only.
        let ends = line.payload.is_none() || end.is_none_or(|end| end == b"\r\n");
        (fits && ends).into()
    }

    fn ends(&self, frame: &Frame) -> bool {
        let whole = frame.bytes.len() as u64 == frame.range.end - frame.range.start;
        !whole || frame.bytes.last() == Some(&b'\n')
    }
}

/// Classifies a message.
pub(super) fn mark(side: Side, frame: &Frame, line: &Line, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let start = frame.range.start;
    let limit = frame.range.end;
    let at = |offset: usize| (start + offset as u64).min(limit);
    let mut marker = out.marker(side, start);
    match line.verb {
        Some(Verb::Connect | Verb::Info | Verb::Err) => {
            // User, password, token and signature stand in CONNECT.
            let class = if line.verb == Some(Verb::Connect) { ByteClass::Secret } else { ByteClass::Value };
            marker.to(at(line.rest.start), ByteClass::Structure);
            marker.to(at(line.rest.end), class);
        }
        _ => {
            for index in 0..line.count {
                let names = match line.verb {
                    Some(Verb::Pub) => line.count - 1,
                    Some(Verb::Hpub) => line.count - 2,
                    Some(Verb::Msg) => line.count - 1,
                    Some(Verb::Hmsg) => line.count - 2,
                    Some(Verb::Sub) => line.count - 1,
                    _ => 0,
                };
                let Some(word) = line.words.get(index) else { break };
                let class = if index < names { ByteClass::Identifier } else { ByteClass::Structure };
                marker.to(at(word.start), ByteClass::Structure);
                marker.to(at(word.end), class);
            }
        }
    }
    marker.to(at(line.end), ByteClass::Structure);
    if let Some((_, total)) = line.payload {
        marker.to((start + line.end as u64).saturating_add(total).min(limit), ByteClass::Value);
    }
    marker.to(limit, ByteClass::Structure);
}

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    let (client, server) = (speaks(Side::Client, prefix.client), speaks(Side::Server, prefix.server));
    match (client, server) {
        (Speech::No, _) | (_, Speech::No) => Detected::No,
        (Speech::Sure, _) | (_, Speech::Sure) => Detected::Certain,
        (Speech::Fits, Speech::Fits) => Detected::Likely,
        (Speech::Open, Speech::Open) if prefix.complete => Detected::No,
        // Anybody may say PING.
        _ => Detected::Maybe,
    }
}

enum Speech {
    No,
    /// Too little to tell.
    Open,
    /// Messages that another protocol could have.
    Fits,
    /// One that only NATS has.
    Sure,
}

/// Messages that are looked at.
const MAX_MESSAGES: usize = 16;

fn speaks(side: Side, mut bytes: &[u8]) -> Speech {
    let mut speech = Speech::Open;
    for _ in 0..MAX_MESSAGES {
        if bytes.is_empty() {
            return speech;
        }
        match Wire.looks(side, bytes, false) {
            Looks::No => return Speech::No,
            Looks::Open => return speech,
            Looks::Yes => {}
        }
        let Read::Line(line) = read(side, bytes) else { return speech };
        let rest = usize::try_from(line.length()).ok().and_then(|length| bytes.get(length..));
        let sure = match line.verb {
            Some(Verb::Info) => {
                let json = bytes.get(line.rest.clone()).unwrap_or_default();
                memchr::memmem::find(json, b"\"server_id\"").is_some()
            }
            Some(Verb::Connect) => true,
            // With its payload, which ends where it must.
            Some(Verb::Pub | Verb::Hpub | Verb::Msg | Verb::Hmsg) => rest.is_some(),
            _ => false,
        };
        if sure {
            return Speech::Sure;
        }
        speech = Speech::Fits;
        let Some(rest) = rest else { return speech };
        bytes = rest;
    }
    speech
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let Read::Line(line) = read(Side::Client, b"hpub a.b _INBOX.1 12 14\r\nNATS") else { panic!() };
        assert_eq!((line.verb, line.payload), (Some(Verb::Hpub), Some((12, 14))));
        assert_eq!(line.reply(b"hpub a.b _INBOX.1 12 14\r\n"), Some(&b"_INBOX.1"[..]));
        assert!(matches!(read(Side::Client, b"PUB a\r\n"), Read::Bad));
        assert!(matches!(read(Side::Client, b"PUB a 99999999999\r\n"), Read::Bad));
        assert!(matches!(read(Side::Client, b"PUBLISH a\r\n"), Read::Bad));
        assert!(matches!(read(Side::Server, b"PUB a 1\r\n"), Read::Bad));
        assert!(matches!(read(Side::Server, b"HM"), Read::Short));
    }
}
