//! What answers say besides their framing, and texts that HTTP/2 has in common.

use super::head;
use crate::{Exchange, Options, Status, SwitchedTo, text};

/// Notes what a status line says.
pub(super) fn set_status(exchange: &mut Exchange, code: u16, head: &[u8]) {
    exchange.code = Some(code_text(code));
    exchange.status = if code >= 400 { Status::Error } else { Status::Ok };
    if code >= 400 {
        exchange.error = reason(head);
    }
}

/// What an answer with status 101 goes over to (RFC 9110, section 7.8).
pub(super) fn upgrade(head: &[u8]) -> SwitchedTo {
    let mut to = SwitchedTo::Unread;
    head::fields(head, |name, value| {
        let (Some(name), Some(value)) = (head.get(name), head.get(value)) else { return };
        if !name.eq_ignore_ascii_case(b"upgrade") {
            return;
        }
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"websocket") {
                to = SwitchedTo::Protocol("websocket");
            } else if token.eq_ignore_ascii_case(b"h2c") {
                to = SwitchedTo::Protocol("http2");
            }
        }
    });
    to
}

/// A request's target for people: values masked unless they are to be shown.
pub(crate) fn shown_target(target: &[u8], cut: bool, options: Options) -> Box<str> {
    let target = target.get(..text::MAX_TEXT_BYTES * 4).unwrap_or(target);
    let plain =
        memchr::memchr3(b'?', b';', b'@', target).is_none() && memchr::memchr3(b'&', b'#', b'%', target).is_none();
    if options.literals || plain {
        text::bounded(target, text::MAX_TEXT_BYTES, cut)
    } else {
        text::bounded(&head::mask_target(target), text::MAX_TEXT_BYTES, cut)
    }
}

/// A status code's three digits.
pub(crate) fn code_text(code: u16) -> Box<str> {
    let mut buffer = [0u8; 3];
    for (digit, divisor) in buffer.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + (code / divisor % 10) as u8;
    }
    std::str::from_utf8(&buffer).unwrap_or_default().into()
}

/// The longest reason phrase that is shown; the registered ones are shorter.
const MAX_REASON_BYTES: usize = 40;

fn reason(head: &[u8]) -> Option<Box<str>> {
    let line = head::first_line(head)?;
    let reason = line.get(12..)?.trim_ascii();
    // A server may put anything there: it is shown where it is words.
    let is_words = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b' ' | b'-' | b'\'');
    let shown = !reason.is_empty() && reason.len() <= MAX_REASON_BYTES && reason.iter().all(is_words);
    shown.then(|| text::bounded(reason, MAX_REASON_BYTES, false))
}
