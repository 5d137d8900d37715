//! What the bytes of heads carry.

use super::head;
use crate::{ByteClass, Output, Side};

/// Marks a request's head, whose first byte is at stream offset `start`.
pub(super) fn mark_request(bytes: &[u8], start: u64, line: &head::RequestLine, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let at = |offset: usize| start + offset as u64;
    out.mark(Side::Client, at(0)..at(line.target.start), ByteClass::Structure);
    let target = bytes.get(line.target.clone()).unwrap_or_default();
    let mut from = line.target.start;
    head::target_values(target, |value| {
        let value = line.target.start + value.start..line.target.start + value.end;
        out.mark(Side::Client, at(from)..at(value.start), ByteClass::Identifier);
        out.mark(Side::Client, at(value.start)..at(value.end), ByteClass::Value);
        from = value.end;
    });
    out.mark(Side::Client, at(from)..at(line.target.end), ByteClass::Identifier);
    mark_fields(bytes, Side::Client, start, line.target.end, out);
}

/// Marks an answer's head.
pub(super) fn mark_response(bytes: &[u8], start: u64, out: &mut Output) {
    if out.marks.is_some() {
        mark_fields(bytes, Side::Server, start, 0, out);
    }
}

/// Marks everything from `from` on: the rest of the first line, then fields.
fn mark_fields(bytes: &[u8], side: Side, start: u64, mut from: usize, out: &mut Output) {
    let at = |offset: usize| start + offset as u64;
    head::fields(bytes, |name, value| {
        out.mark(side, at(from)..at(name.start), ByteClass::Structure);
        out.mark(side, at(name.start)..at(name.end), ByteClass::Identifier);
        out.mark(side, at(name.end)..at(value.start), ByteClass::Structure);
        let secret = bytes.get(name).is_some_and(head::is_secret);
        out.mark(side, at(value.start)..at(value.end), if secret { ByteClass::Secret } else { ByteClass::Value });
        from = value.end;
    });
    out.mark(side, at(from)..at(bytes.len()), ByteClass::Structure);
}
