//! Heads of HTTP messages: request line, status line, header fields (RFC 9112, sections 2 to 5).
//!
//! The reader is more tolerant than a server may be (bare LF, obs-fold, odd bytes in values): what was sent and answered
//! did happen.

use std::ops::Range;

use crate::pairing::Looks;
use crate::text;

/// Method names longer than this are none.
const MAX_METHOD_BYTES: usize = 32;

/// Length of the head at the start of `bytes`, its empty line included. `scanned` is how far earlier calls for the same
/// head have looked.
pub(super) fn head_end(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    loop {
        let Some(found) = bytes.get(*scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) else {
            *scanned = bytes.len();
            return None;
        };
        let line_end = *scanned + found;
        match (bytes.get(line_end + 1), bytes.get(line_end + 2)) {
            (Some(b'\n'), _) => return Some(line_end + 2),
            (Some(b'\r'), Some(b'\n')) => return Some(line_end + 3),
            (None, _) | (Some(b'\r'), None) => {
                *scanned = line_end;
                return None;
            }
            _ => *scanned = line_end + 1,
        }
    }
}

/// The first line of `bytes` without its line end; `None` where the line end isn't there.
pub(super) fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let line = bytes.get(..memchr::memchr(b'\n', bytes)?)?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// A request line: ranges of `bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestLine {
    pub method: Range<usize>,
    pub target: Range<usize>,
    /// The target goes on in a hole.
    pub cut: bool,
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn method_length(bytes: &[u8]) -> usize {
    bytes.iter().take(MAX_METHOD_BYTES + 1).take_while(|b| is_token(**b)).count()
}

/// Reads `METHOD SP target SP HTTP/1.x` from a whole line. Spaces inside the target are tolerated.
pub(super) fn request_line(line: &[u8]) -> Option<RequestLine> {
    let method = method_length(line);
    if method == 0 || method > MAX_METHOD_BYTES || line.get(method) != Some(&b' ') {
        return None;
    }
    let version_at = memchr::memrchr(b' ', line)?;
    let version = line.get(version_at + 1..)?;
    if version_at <= method || !matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'1', b'.', b'0'..=b'9']) {
        return None;
    }
    Some(RequestLine { method: 0..method, target: method + 1..version_at, cut: false })
}

/// Reads what stands in place of a request line: the method, if one can be told, and all that is no version.
pub(super) fn malformed_line(line: &[u8]) -> RequestLine {
    let method = method_length(line);
    let known = (1..=MAX_METHOD_BYTES).contains(&method) && line.get(method) == Some(&b' ');
    let start = if known { method + 1 } else { 0 };
    let rest = line.get(start..).unwrap_or_default();
    let end = memchr::memmem::rfind(rest, b" HTTP/").unwrap_or(rest.len());
    RequestLine { method: 0..if known { method } else { 0 }, target: start..start + end, cut: false }
}

/// Reads as much of a request line as stands before a hole.
pub(super) fn cut_request_line(bytes: &[u8]) -> Option<RequestLine> {
    if let Some(line) = first_line(bytes) {
        return request_line(line);
    }
    let method = method_length(bytes);
    match bytes.get(method) {
        None if method <= MAX_METHOD_BYTES => {
            Some(RequestLine { method: 0..method, target: method..method, cut: true })
        }
        Some(b' ') if (1..=MAX_METHOD_BYTES).contains(&method) => {
            let rest = bytes.get(method + 1..).unwrap_or_default();
            let target = memchr::memchr(b' ', rest).unwrap_or(rest.len());
            let cut = target == rest.len();
            Some(RequestLine { method: 0..method, target: method + 1..method + 1 + target, cut })
        }
        _ => None,
    }
}

/// Whether bytes at a message start can be a request at all, judged by the little that is there.
pub(super) fn can_be_request(bytes: &[u8]) -> bool {
    let method = method_length(bytes);
    match bytes.get(method) {
        None => method <= MAX_METHOD_BYTES,
        Some(b' ') => {
            (1..=MAX_METHOD_BYTES).contains(&method) && first_line(bytes).is_none_or(|l| request_line(l).is_some())
        }
        Some(_) => false,
    }
}

/// A strict judgement for places where a request may begin, but needn't: upper-case method, a target of one of the four
/// forms (RFC 9112, section 3.2), and the version where the line is whole.
pub(super) fn looks_like_request(bytes: &[u8], cut: bool) -> Looks {
    let method = bytes
        .iter()
        .take(MAX_METHOD_BYTES)
        .take_while(|b| b.is_ascii_uppercase() || matches!(**b, b'-' | b'_'))
        .count();
    let Some(after) = bytes.get(method..) else { return Looks::No };
    let Some(target) = after.strip_prefix(b" ") else {
        return if after.is_empty() && method < MAX_METHOD_BYTES && !cut { Looks::Open } else { Looks::No };
    };
    if method < 3 || !bytes.first().is_some_and(u8::is_ascii_uppercase) {
        return Looks::No;
    }
    let connect = bytes.starts_with(b"CONNECT ");
    match target.first() {
        None => return if cut { Looks::No } else { Looks::Open },
        Some(b'/' | b'*') => {}
        Some(b'h' | b'H') if !connect => {
            let scheme = target.get(..4).unwrap_or(target);
            if !b"http".get(..scheme.len()).is_some_and(|s| scheme.eq_ignore_ascii_case(s)) {
                return Looks::No;
            }
        }
        Some(first) if connect && (first.is_ascii_alphanumeric() || *first == b'[') => {}
        Some(_) => return Looks::No,
    }
    match first_line(bytes) {
        Some(line) => request_line(line).is_some().into(),
        None if target.contains(&b'\r') && !target.ends_with(b"\r") => Looks::No,
        None if cut => is_known_method(bytes.get(..method).unwrap_or_default()).into(),
        None if bytes.len() > super::MAX_HEAD_BYTES => Looks::No,
        None => Looks::Open,
    }
}

/// The registered methods that are met in practice (IANA HTTP Method Registry).
pub(super) fn is_known_method(method: &[u8]) -> bool {
    const KNOWN: &[&[u8]] = &[
        b"GET",
        b"HEAD",
        b"POST",
        b"PUT",
        b"DELETE",
        b"CONNECT",
        b"OPTIONS",
        b"TRACE",
        b"PATCH",
        b"PROPFIND",
        b"PROPPATCH",
        b"MKCOL",
        b"COPY",
        b"MOVE",
        b"LOCK",
        b"UNLOCK",
        b"REPORT",
        b"SEARCH",
        b"PURGE",
        b"QUERY",
        b"SUBSCRIBE",
        b"UNSUBSCRIBE",
        b"NOTIFY",
        b"M-SEARCH",
    ];
    KNOWN.contains(&method)
}

/// The status code of `HTTP/1.x NNN ...`; `Open` where the line's first 12 bytes aren't all there.
pub(super) fn status_line(bytes: &[u8]) -> Result<u16, Looks> {
    const SHAPE: &[u8; 12] = b"HTTP/1.d ddd";
    for (byte, shape) in bytes.iter().zip(SHAPE) {
        let fits = if *shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
        if !fits {
            return Err(Looks::No);
        }
    }
    match bytes.get(9..12) {
        Some(digits) => Ok(digits.iter().fold(0, |code, d| code * 10 + u16::from(d - b'0'))),
        None => Err(Looks::Open),
    }
}

/// Calls `field` with the ranges of name and value of each header field of a head (its first line is passed over). A
/// folded value (obs-fold) is one range.
pub(super) fn fields(head: &[u8], mut field: impl FnMut(Range<usize>, Range<usize>)) {
    let mut at = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let mut last: Option<(Range<usize>, Range<usize>)> = None;
    while let Some(rest) = head.get(at..)
        && !rest.is_empty()
    {
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let line = trim_end(rest.get(..length).unwrap_or_default());
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        if folded && let Some((_, value)) = &mut last {
            value.end = at + line.len();
        } else if let Some(colon) = memchr::memchr(b':', line) {
            if let Some((name, value)) = last.take() {
                field(name, value);
            }
            let name = trim_end(line.get(..colon).unwrap_or_default());
            let value = line.get(colon + 1..).unwrap_or_default();
            let blank = value.iter().take_while(|b| matches!(**b, b' ' | b'\t')).count();
            last = Some((at..at + name.len(), at + colon + 1 + blank..at + line.len()));
        }
        at += length;
    }
    if let Some((name, value)) = last {
        field(name, value);
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let blank = line.iter().rev().take_while(|b| matches!(**b, b'\r' | b'\n' | b' ' | b'\t')).count();
    line.get(..line.len() - blank).unwrap_or_default()
}

/// Bodies longer than this don't exist; a number beyond it is an attempt to confuse a reader.
const MAX_BODY_BYTES: u64 = 1 << 60;

/// What a head says about its body's length (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Framing {
    /// `Transfer-Encoding` is there; true if chunked is among the codings (it has to be the last one).
    pub coding: Option<bool>,
    /// `Content-Length`, where it is a number. Of several the first counts.
    pub length: Option<u64>,
    /// `Expect: 100-continue`: the body may never be sent.
    pub expect: bool,
}

/// Reads the framing from a head.
pub(super) fn framing(head: &[u8]) -> Framing {
    let mut framing = Framing::default();
    let mut rest = after_line(head);
    // Most fields say nothing about it, as their first letters tell: they are only looked at for their ends.
    while let Some(first) = rest.first() {
        match first {
            b'c' | b'C' | b'e' | b'E' | b't' | b'T' => {
                let line = rest.get(..memchr::memchr(b'\n', rest).unwrap_or(rest.len())).unwrap_or_default();
                let colon = memchr::memchr(b':', line).unwrap_or(line.len());
                let name = trim_end(line.get(..colon).unwrap_or_default());
                framing.add(name, line.get(colon + 1..).unwrap_or_default().trim_ascii());
                rest = rest.get(line.len() + 1..).unwrap_or_default();
            }
            // A folded field: the line before it is no whole one.
            b' ' | b'\t' => {
                framing = Framing::default();
                fields(head, |name, value| {
                    framing.add(head.get(name).unwrap_or_default(), head.get(value).unwrap_or_default());
                });
                return framing;
            }
            _ => rest = after_line(rest),
        }
    }
    framing
}

/// What follows the first line end.
fn after_line(bytes: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', bytes).and_then(|end| bytes.get(end + 1..)).unwrap_or_default()
}

impl Framing {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") && self.length.is_none() {
            self.length = number(value);
        } else if name.len() == 6 && name.eq_ignore_ascii_case(b"expect") {
            self.expect = value.eq_ignore_ascii_case(b"100-continue");
        } else if name.len() == 17 && name.eq_ignore_ascii_case(b"transfer-encoding") {
            let chunked =
                value.split(|b| *b == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            self.coding = Some(chunked || self.coding == Some(true));
        }
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let first = value.split(|b| *b == b',').next()?.trim_ascii();
    text::number(first).filter(|length| *length <= MAX_BODY_BYTES)
}

/// True for header fields that carry credentials.
pub(crate) fn is_secret(name: &[u8]) -> bool {
    const SECRET: &[&[u8]] = &[
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"x-api-key",
        b"x-auth-token",
        b"x-amz-security-token",
        b"x-csrf-token",
    ];
    SECRET.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// Parts of a request target that are values: what follows `?` name by name, matrix parameters, user information.
/// `value` gets the range of each.
pub(super) fn target_values(target: &[u8], mut value: impl FnMut(Range<usize>)) {
    let path_end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
    // A question mark that somebody encoded begins values all the same.
    let encoded = memchr::memchr_iter(b'%', target.get(..path_end).unwrap_or_default());
    let encoded = encoded.map(|at| at + 2).find(|at| matches!(target.get(at - 1..=*at), Some([b'3', b'F' | b'f'])));
    let path_end = encoded.unwrap_or(path_end);
    let authority = memchr::memmem::find(target.get(..path_end).unwrap_or_default(), b"://").map(|at| at + 3);
    if let Some(start) = authority {
        let rest = target.get(start..path_end).unwrap_or_default();
        let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        if let Some(at) = memchr::memrchr(b'@', rest.get(..end).unwrap_or_default()) {
            value(start..start + at);
        }
    }
    let path = target.get(..path_end).unwrap_or_default();
    let mut at = 0;
    while let Some(found) = path.get(at..).and_then(|rest| memchr::memchr2(b';', b'&', rest)) {
        let start = at + found + 1;
        let rest = path.get(start..).unwrap_or_default();
        let end = start + memchr::memchr3(b';', b'/', b'&', rest).unwrap_or(rest.len());
        if let Some(equals) = path.get(start..end).and_then(|p| memchr::memchr(b'=', p)) {
            value(start + equals + 1..end);
        }
        at = end;
    }
    if path_end == target.len() {
        return;
    }
    let mut start = path_end + 1;
    while let Some(rest) = target.get(start..) {
        let length = memchr::memchr2(b'&', b'#', rest).unwrap_or(rest.len());
        let part = rest.get(..length).unwrap_or_default();
        // A part without a name is all value.
        let from = memchr::memchr(b'=', part).map_or(0, |equals| equals + 1);
        if from < length {
            value(start + from..start + length);
        }
        if length == rest.len() {
            return;
        }
        start += length + 1;
    }
}

/// `target` with its values as `?`.
pub(super) fn mask_target(target: &[u8]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(target.len());
    let mut at = 0;
    target_values(target, |range| {
        masked.extend_from_slice(target.get(at..range.start).unwrap_or_default());
        masked.push(b'?');
        at = range.end;
    });
    masked.extend_from_slice(target.get(at..).unwrap_or_default());
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(target: &str) -> String {
        String::from_utf8(mask_target(target.as_bytes())).unwrap()
    }

    #[test]
    fn query_values_are_masked_names_are_kept() {
        assert_eq!(masked("/a?id=1&q=x%20y"), "/a?id=?&q=?");
        assert_eq!(masked("/a?token"), "/a??");
        assert_eq!(masked("/a?b=&c=1#frag"), "/a?b=&c=?#?");
        assert_eq!(masked("/a;jsessionid=9/b;v?x=1"), "/a;jsessionid=?/b;v?x=?");
        assert_eq!(masked("http://u:p@h:80/x?y=1"), "http://?@h:80/x?y=?");
        assert_eq!(masked("/plain"), "/plain");
        assert_eq!(masked("/a%3Ftoken=s&b=c"), "/a%3Ftoken=?&b=?");
        assert_eq!(masked("/login&password=s&x=1/y"), "/login&password=?&x=?/y");
        assert_eq!(masked("/a#s"), "/a#?");
        assert_eq!(masked("/?"), "/?");
    }

    #[test]
    fn heads_end_at_an_empty_line_of_either_kind() {
        for (text, end) in [
            (&b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"[..], Some(24)),
            (b"GET / HTTP/1.1\nA: b\n\nrest", Some(21)),
            (b"GET / HTTP/1.1\r\nA: b\r\n\r", None),
            (b"GET / HTTP/1.1", None),
        ] {
            assert_eq!(head_end(text, &mut 0), end);
            let mut scanned = 0;
            let grown = (0..=text.len()).find_map(|n| head_end(&text[..n], &mut scanned));
            assert_eq!(grown, end, "byte by byte");
        }
    }

    #[test]
    fn folded_values_are_one_field() {
        let head = b"GET / HTTP/1.1\r\nA: one\r\n two\r\nB : x\r\nno colon\r\n\r\n";
        let mut seen = Vec::new();
        fields(head, |n, v| seen.push((head[n].to_vec(), head[v].to_vec())));
        assert_eq!(seen, [(b"A".to_vec(), b"one\r\n two".to_vec()), (b"B".to_vec(), b"x".to_vec())]);
    }

    #[test]
    fn framing_rules() {
        let of = |text: &str| framing(format!("X\r\n{text}\r\n\r\n").as_bytes());
        assert_eq!(of("Content-Length: 5\r\ncontent-length: 7").length, Some(5));
        assert_eq!(of("Content-Length: 5, 5").length, Some(5));
        assert_eq!(of("Content-Length: -5").length, None);
        assert_eq!(of("Content-Length: 99999999999999999999999").length, None);
        assert_eq!(of("Transfer-Encoding: gzip, Chunked").coding, Some(true));
        assert_eq!(of("Transfer-Encoding: gzip").coding, Some(false));
        assert_eq!(of("A: b\r\nTransfer-Encoding: gzip,\r\n chunked\r\nE: f").coding, Some(true));
        assert_eq!(of("Content-Length:5\r\nC: d\r\ne").length, Some(5));
    }

    #[test]
    fn strict_request_starts() {
        assert_eq!(looks_like_request(b"GET /a HTTP/1.1\r\n", false), Looks::Yes);
        assert_eq!(looks_like_request(b"GET /a", false), Looks::Open);
        assert_eq!(looks_like_request(b"GET /a", true), Looks::Yes);
        assert_eq!(looks_like_request(b"GE", false), Looks::Open);
        assert_eq!(looks_like_request(b"get /a HTTP/1.1\r\n", false), Looks::No);
        assert_eq!(looks_like_request(b"GET /a HTTP/2.0\r\n", false), Looks::No);
        assert_eq!(looks_like_request(b"PRI * HTTP/2.0\r\n", false), Looks::No);
        assert_eq!(looks_like_request(b"CONNECT h:443 HTTP/1.1\r\n", false), Looks::Yes);
        assert_eq!(looks_like_request(b"*1\r\n$4\r\nPING\r\n", false), Looks::No);
    }
}
