//! Packets of both sides (<https://clickhouse.com/docs/native-protocol/client>,
//! <https://clickhouse.com/docs/native-protocol/server>).

use super::revision;
use crate::cursor::Cursor;

/// The longest text of a packet besides the query.
const MAX_TEXT_BYTES: u64 = 1 << 16;

/// Settings and parameters of a query.
const MAX_SETTINGS: usize = 4096;

/// Client packets.
pub(super) const HELLO: u64 = 0;
pub(super) const QUERY: u64 = 1;
pub(super) const DATA: u64 = 2;
pub(super) const CANCEL: u64 = 3;
pub(super) const PING: u64 = 4;

/// Why a packet can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Not {
    Enough,
    Fits,
}

type Read<T> = Result<T, Not>;

pub(super) fn number(cursor: &mut Cursor<'_>) -> Read<u64> {
    cursor.varint().ok_or(if cursor.rest().len() < 10 { Not::Enough } else { Not::Fits })
}

pub(super) fn string<'a>(cursor: &mut Cursor<'a>) -> Read<&'a [u8]> {
    let length = number(cursor)?;
    if length > MAX_TEXT_BYTES {
        return Err(Not::Fits);
    }
    cursor.take(length as usize).ok_or(Not::Enough)
}

/// A string of letters that people chose.
fn name<'a>(cursor: &mut Cursor<'a>) -> Read<&'a [u8]> {
    let length = number(cursor)?;
    if length > 256 {
        return Err(Not::Fits);
    }
    let seen = cursor.take_some(length as usize);
    match seen.iter().all(|byte| *byte >= b' ' && *byte != 0x7f) {
        false => Err(Not::Fits),
        true if (seen.len() as u64) < length => Err(Not::Enough),
        true => Ok(seen),
    }
}

fn byte(cursor: &mut Cursor<'_>, at_most: u8) -> Read<u8> {
    match cursor.u8() {
        None => Err(Not::Enough),
        Some(byte) if byte <= at_most => Ok(byte),
        Some(_) => Err(Not::Fits),
    }
}

/// Product, version and revision: how both sides begin.
pub(super) fn greeting(cursor: &mut Cursor<'_>) -> Read<u64> {
    if number(cursor)? != HELLO {
        return Err(Not::Fits);
    }
    let product = name(cursor)?;
    if product.len() < 2 || !product.iter().any(u8::is_ascii_alphabetic) {
        return Err(Not::Fits);
    }
    let (major, minor, revision) = (number(cursor)?, number(cursor)?, number(cursor)?);
    if major > 100 || minor > 1000 || !(50_000..60_000).contains(&revision) {
        return Err(Not::Fits);
    }
    Ok(revision)
}

/// A client's greeting: its revision. Behind it, database, user and password.
pub(super) fn hello(cursor: &mut Cursor<'_>) -> Read<u64> {
    let revision = greeting(cursor)?;
    for _ in 0..3 {
        string(cursor)?;
    }
    Ok(revision)
}

/// What a client adds to its greeting; true if packets will come in chunks.
pub(super) fn addendum(cursor: &mut Cursor<'_>, revision: u64) -> Read<bool> {
    string(cursor)?;
    let mut chunked = false;
    if revision >= revision::CHUNKED_PACKETS {
        for _ in 0..2 {
            chunked |= string(cursor)? == b"chunked";
        }
    }
    if revision >= revision::VERSIONED_PARALLEL_REPLICAS {
        number(cursor)?;
    }
    Ok(chunked)
}

/// What a query packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Query<'a> {
    /// Blocks are packed.
    pub packed: bool,
    /// The text, as far as it is here, and where it begins in the packet.
    pub text: &'a [u8],
    pub text_at: usize,
    pub text_length: u64,
    /// The client's own revision; 0 where it does not say.
    pub own: u64,
}

/// Name, flags and value until an empty name; bytes of each packet.
fn settings(cursor: &mut Cursor<'_>) -> Read<()> {
    for _ in 0..MAX_SETTINGS {
        if name(cursor)?.is_empty() {
            return Ok(());
        }
        number(cursor)?;
        string(cursor)?;
    }
    Err(Not::Fits)
}

/// Who asks: the client's own revision.
fn client_info(cursor: &mut Cursor<'_>, revision: u64) -> Read<u64> {
    let mut revision_told = 0;
    if byte(cursor, 2)? == 0 {
        return Ok(revision_told);
    }
    for _ in 0..3 {
        name(cursor)?;
    }
    if revision >= revision::QUERY_START_TIME {
        cursor.take(8).ok_or(Not::Enough)?;
    }
    const TCP: u8 = 1;
    const HTTP: u8 = 2;
    let interface = byte(cursor, 8)?;
    if interface == TCP {
        for _ in 0..3 {
            name(cursor)?;
        }
        let (major, minor, own) = (number(cursor)?, number(cursor)?, number(cursor)?);
        if major > 100 || minor > 1000 || !(50_000..60_000).contains(&own) {
            return Err(Not::Fits);
        }
        revision_told = own;
    } else if interface == HTTP {
        byte(cursor, 5)?;
        name(cursor)?;
        if revision >= revision::X_FORWARDED_FOR {
            name(cursor)?;
        }
        if revision >= revision::REFERER {
            string(cursor)?;
        }
    }
    if revision >= revision::QUOTA_KEY {
        name(cursor)?;
    }
    if revision >= revision::DISTRIBUTED_DEPTH {
        number(cursor)?;
    }
    if interface == TCP && revision >= revision::VERSION_PATCH {
        number(cursor)?;
    }
    if revision >= revision::OPENTELEMETRY && byte(cursor, 1)? == 1 {
        // Ids of trace and span.
        cursor.take(24).ok_or(Not::Enough)?;
        string(cursor)?;
        cursor.u8().ok_or(Not::Enough)?;
    }
    if revision >= revision::PARALLEL_REPLICAS {
        for _ in 0..3 {
            number(cursor)?;
        }
    }
    if revision >= revision::QUERY_AND_LINE_NUMBERS {
        number(cursor)?;
        number(cursor)?;
    }
    if revision >= revision::JWT && byte(cursor, 1)? == 1 {
        string(cursor)?;
    }
    if revision >= revision::CLIENT_AGENT {
        name(cursor)?;
    }
    Ok(revision_told)
}

/// Reads a query packet up to its text; what follows the text is [`parameters`].
pub(super) fn query<'a>(cursor: &mut Cursor<'a>, revision: u64) -> Read<Query<'a>> {
    if number(cursor)? != QUERY || revision < revision::SETTINGS_AS_STRINGS {
        return Err(Not::Fits);
    }
    name(cursor)?;
    let own = client_info(cursor, revision)?;
    settings(cursor)?;
    if revision >= revision::EXTERNAL_ROLES {
        string(cursor)?;
    }
    if revision >= revision::INTERSERVER_SECRET {
        string(cursor)?;
    }
    let (stage, packed) = (number(cursor)?, number(cursor)?);
    let text_length = number(cursor)?;
    if stage > 7 || packed > 1 || text_length == 0 || text_length > 1 << 30 {
        return Err(Not::Fits);
    }
    let text_at = cursor.at();
    let text = cursor.take_some(text_length as usize);
    let start = text.get(..32).unwrap_or(text);
    let plain = |byte: &u8| *byte >= b' ' || byte.is_ascii_whitespace();
    let begins =
        |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'(' | b'/' | b'-' | b'#' | b'{' | b' ' | b'\n');
    if !start.iter().all(plain) || !start.first().is_none_or(begins) {
        return Err(Not::Fits);
    }
    Ok(Query { packed: packed == 1, text, text_at, text_length, own })
}

/// The revision by which bytes are a query, where it is not known.
pub(super) fn query_form(bytes: &[u8]) -> Read<u64> {
    let mut short = false;
    for revision in revision::FORMS {
        match query(&mut Cursor::new(bytes), *revision) {
            // With some of the text, that it is one can be seen. Mostly the server is no older than the client.
            Ok(found) if !found.text.is_empty() => {
                let own = query(&mut Cursor::new(bytes), found.own);
                return Ok(if own == Ok(found) { found.own } else { *revision });
            }
            Ok(_) | Err(Not::Enough) => short = true,
            Err(Not::Fits) => {}
        }
    }
    Err(if short { Not::Enough } else { Not::Fits })
}

/// Parameters behind a query's text.
pub(super) fn parameters(cursor: &mut Cursor<'_>, revision: u64) -> Read<()> {
    if revision >= revision::PARAMETERS { settings(cursor) } else { Ok(()) }
}

/// A server's packet that is not a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Exception {
        code: i32,
        name: &'a [u8],
        message: &'a [u8],
    },
    Progress {
        written: Option<u64>,
    },
    ProfileInfo {
        rows: u64,
    },
    Pong,
    EndOfStream,
    /// A block, behind the name of a table; packed if the query said so, or never.
    Block {
        packs: bool,
    },
    Other,
}

/// Exceptions that may cause one another.
const MAX_NESTED: usize = 32;

/// Reads a server's packet; of a block, what stands before it.
pub(super) fn answer<'a>(cursor: &mut Cursor<'a>, revision: u64) -> Read<Said<'a>> {
    Ok(match number(cursor)? {
        kind @ (1 | 7 | 8 | 10 | 14) => {
            string(cursor)?;
            // Logs and profile events are packed by newer servers only.
            let packs = kind < 10 || revision >= revision::PACKED_LOGS;
            Said::Block { packs }
        }
        2 => {
            let mut first = None;
            for _ in 0..MAX_NESTED {
                let code = cursor.le32().ok_or(Not::Enough)? as i32;
                let name = name(cursor)?;
                let message = long(cursor)?;
                long(cursor)?;
                first.get_or_insert(Said::Exception { code, name, message });
                if byte(cursor, 1)? == 0 {
                    break;
                }
            }
            first.ok_or(Not::Fits)?
        }
        3 => {
            number(cursor)?;
            number(cursor)?;
            if revision >= revision::TOTAL_ROWS_IN_PROGRESS {
                number(cursor)?;
            }
            if revision >= revision::TOTAL_BYTES_IN_PROGRESS {
                number(cursor)?;
            }
            let mut written = None;
            if revision >= revision::CLIENT_WRITE_INFO {
                written = Some(number(cursor)?);
                number(cursor)?;
            }
            if revision >= revision::QUERY_TIME_IN_PROGRESS {
                number(cursor)?;
            }
            Said::Progress { written }
        }
        4 => Said::Pong,
        5 => Said::EndOfStream,
        6 => {
            let rows = number(cursor)?;
            number(cursor)?;
            number(cursor)?;
            byte(cursor, 1)?;
            number(cursor)?;
            byte(cursor, 1)?;
            if revision >= revision::ROWS_BEFORE_AGGREGATION {
                byte(cursor, 1)?;
                number(cursor)?;
            }
            Said::ProfileInfo { rows }
        }
        11 => {
            string(cursor)?;
            long(cursor)?;
            Said::Other
        }
        17 => {
            string(cursor)?;
            Said::Other
        }
        _ => return Err(Not::Fits),
    })
}

/// Code and message of an exception that is cut.
pub(super) fn exception_head<'a>(cursor: &mut Cursor<'a>) -> Option<(i32, &'a [u8])> {
    if cursor.varint()? != 2 {
        return None;
    }
    let code = cursor.le32()? as i32;
    let named = name(cursor).ok()?;
    if !named.starts_with(b"DB::") && !named.contains(&b':') {
        return None;
    }
    let length = usize::try_from(cursor.varint()?).ok()?;
    Some((code, cursor.take_some(length)))
}

/// A text that may be long: a message, a stack trace, descriptions of columns.
fn long<'a>(cursor: &mut Cursor<'a>) -> Read<&'a [u8]> {
    let length = number(cursor)?;
    if length > 8 << 20 {
        return Err(Not::Fits);
    }
    cursor.take(length as usize).ok_or(Not::Enough)
}
