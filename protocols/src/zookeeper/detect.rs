//! Recognises ZooKeeper by the session's first message, by requests on a path, or by a command of four letters.

use super::names::{Body, operation, word};
use super::{CONNECT_BYTES, MAX_MESSAGE_BYTES, PING, PING_XID, REPLY_BYTES};
use crate::cursor::{be32, be64};
use crate::pairing::Looks;
use crate::{Detected, Prefix};

/// A session's password has so many bytes.
const PASSWORD_BYTES: i32 = 16;

/// What connects: version 0, a password, and (from 3.4 on) whether read-only is enough.
pub(super) fn is_connect(bytes: &[u8]) -> Looks {
    match (be32(bytes, 0), be32(bytes, 4), be32(bytes, CONNECT_BYTES)) {
        (Some(length), _, _) if !(28..=28 + 256 + 1).contains(&length) => Looks::No,
        (_, Some(version), _) if version != 0 => Looks::No,
        (Some(length), _, Some(password)) => {
            (password >= 0 && (length == 28 + password || length == 29 + password)).into()
        }
        _ => Looks::Open,
    }
}

/// Whether a request begins here; asked where one has to be found anew.
pub(super) fn is_request(bytes: &[u8], cut: bool) -> Looks {
    let too_few = if cut { Looks::No } else { Looks::Open };
    let (Some(length), Some(xid), Some(code)) = (be32(bytes, 0), be32(bytes, 4), be32(bytes, 8)) else {
        return match be32(bytes, 0) {
            Some(length) if !(8..=MAX_MESSAGE_BYTES).contains(&length) => Looks::No,
            _ => too_few,
        };
    };
    let Some((_, body)) = operation(code).filter(|_| (8..=MAX_MESSAGE_BYTES).contains(&length)) else {
        return Looks::No;
    };
    if (code == PING) != (xid == PING_XID) {
        return Looks::No;
    }
    match body {
        Body::Path | Body::Create | Body::Acl => match (be32(bytes, 12), bytes.get(16)) {
            (Some(path), Some(b'/')) => (path > 0 && path <= length - 12 && xid > 0).into(),
            (Some(_), Some(_)) => Looks::No,
            _ => too_few,
        },
        Body::Other => (length == 8 && (xid > 0 || xid == PING_XID)).into(),
        // -4: logging in; -8: watches set anew.
        Body::Auth => (xid == -4).into(),
        Body::Watches => (xid == -8).into(),
        // Each operation begins with its code and a flag.
        Body::Multi => match (be32(bytes, 12), bytes.get(16)) {
            (Some(code), Some(0)) => (xid > 0 && operation(code).is_some()).into(),
            (Some(-1), Some(1)) => (xid > 0).into(),
            (Some(_), Some(_)) => Looks::No,
            _ => too_few,
        },
        Body::Secret => (xid > 0).into(),
    }
}

/// Something that only ZooKeeper says to a command of four letters.
fn is_report(text: &[u8]) -> bool {
    let known: [&[u8]; 8] =
        [b"imok", b"ooKeeper", b"ookeeper", b"zk_", b"clientPort=", b"SessionTracker", b"in the whitelist", b"queued="];
    let start = text.get(..1024).unwrap_or(text);
    known.iter().any(|one| memchr::memmem::find(start, one).is_some())
}

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    let Prefix { client, server, mid_stream, .. } = *prefix;
    let answered = (be32(server, 0), be32(server, 4));
    if !mid_stream {
        if word(client).is_some() && client.iter().skip(4).all(u8::is_ascii_whitespace) {
            return if is_report(server) { Detected::Certain } else { Detected::Maybe };
        }
        return match is_connect(client) {
            Looks::No => Detected::No,
            Looks::Open => Detected::Maybe,
            Looks::Yes if be32(client, CONNECT_BYTES) == Some(PASSWORD_BYTES) => Detected::Certain,
            Looks::Yes => Detected::Likely,
        };
    }
    if is_connect(client) == Looks::Yes && be32(client, CONNECT_BYTES) == Some(PASSWORD_BYTES) {
        return Detected::Certain;
    }
    match is_request(client, false) {
        Looks::No => Detected::No,
        Looks::Open => Detected::Maybe,
        // An answer to it: the same number, a transaction's number, no or a negative error.
        Looks::Yes
            if answered.0.is_some_and(|length| length >= REPLY_BYTES)
                && answered.1 == be32(client, 4)
                && be64(server, 8).is_some_and(|zxid| zxid >= -1)
                && be32(server, 16).is_some_and(|error| error <= 0) =>
        {
            Detected::Certain
        }
        Looks::Yes => Detected::Likely,
    }
}
