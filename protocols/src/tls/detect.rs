//! Whether bytes are TLS records.

use super::record::{HANDSHAKE, HEADER_BYTES, Head, VERSION_2_HEAD_BYTES, head, is_version_2_hello, may_be_version_2};
use crate::pairing::Looks;
use crate::{Detected, Prefix, Side};

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Where the session id's length stands: behind heads, version and random.
const SESSION_AT: usize = HEADER_BYTES + 4 + 2 + 32;

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    if is_version_2_hello(prefix.client) {
        return Detected::Certain;
    }
    if !prefix.client.is_empty() && prefix.client.len() < VERSION_2_HEAD_BYTES && may_be_version_2(prefix.client) {
        return Detected::Maybe;
    }
    let client = hello(prefix.client, CLIENT_HELLO);
    // Whatever the server says to a hello: it may speak something else, and say so.
    if client == Detected::Certain {
        return client;
    }
    let server = hello(prefix.server, SERVER_HELLO);
    if server == Detected::Certain && (prefix.client.is_empty() || walk(prefix.client).is_some()) {
        return server;
    }
    let early = client.min(server);
    if !prefix.mid_stream || early != Detected::No {
        return early;
    }
    if hello(prefix.client, SERVER_HELLO) == Detected::Certain
        || hello(prefix.server, CLIENT_HELLO) == Detected::Certain
    {
        return Detected::No;
    }
    match (prefix.client, prefix.server) {
        ([], bytes) | (bytes, []) => match walk(bytes) {
            None => Detected::No,
            Some(0 | 1) => Detected::Maybe,
            Some(_) => Detected::Likely,
        },
        (client, server) => match (walk(client), walk(server)) {
            (None, _) | (_, None) => Detected::No,
            (Some(0), _) | (_, Some(0)) => Detected::Maybe,
            _ => Detected::Certain,
        },
    }
}

/// Whether bytes begin with a hello of this kind; `Maybe` where there are too few.
fn hello(bytes: &[u8], kind: u8) -> Detected {
    let fits = |at: usize, right: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|byte| right(*byte));
    let fits = fits(0, &|byte| byte == HANDSHAKE)
        && fits(1, &|byte| byte == 3)
        && fits(2, &|byte| byte <= 4)
        && fits(5, &|byte| byte == kind)
        // A hello has less than 128 KiB.
        && fits(6, &|byte| byte <= 1)
        && fits(9, &|byte| byte == 3 || byte == 0x7f)
        && fits(SESSION_AT, &|byte| byte <= 32);
    match fits {
        false => Detected::No,
        true if bytes.len() > 10 && matches!(head(bytes), Head::Record { .. }) => Detected::Certain,
        true => Detected::Maybe,
    }
}

/// Records in a row from the front, to the end of the bytes; `None` where something else is between.
fn walk(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    loop {
        match head(bytes) {
            Head::Record { length, .. } => {
                count += 1;
                match bytes.get(HEADER_BYTES + usize::from(length)..) {
                    Some(rest) => bytes = rest,
                    None => return Some(count),
                }
            }
            Head::Short => return Some(count),
            Head::Bad => return None,
        }
    }
}

/// Whether bytes are the start of a record, where one has to be found.
pub(super) fn looks(bytes: &[u8], _side: Side, cut: bool) -> Looks {
    match walk(bytes) {
        None => Looks::No,
        Some(0) if !cut => Looks::Open,
        Some(count) => (count > 0).into(),
    }
}
