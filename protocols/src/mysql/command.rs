//! Commands (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase.html>, MariaDB:
//! <https://mariadb.com/kb/en/clientserver-protocol/>).

use super::packet::{HEADER_BYTES, length_encoded, take, u16_le};
use super::values::value;
use crate::pairing::Looks;

/// How a command is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not at all.
    None,
    /// By one packet: OK, ERR, EOF or plain text.
    Single,
    /// By OK, ERR, or result sets.
    Results,
    /// By OK and the descriptions of parameters and columns.
    Prepared,
    /// By column descriptions up to an EOF.
    Fields,
    /// By rows up to an EOF.
    Rows,
    /// By an exchange about who it is, up to OK or ERR.
    Login,
    /// By a stream of events.
    Binlog,
    /// In a way that isn't known, as the command isn't.
    Unknown,
}

/// What the payload behind the command's byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// A statement, perhaps with attributes before it.
    Query,
    /// A statement.
    Sql,
    /// A name that can be shown.
    Name,
    /// A statement's number, then values.
    Statement,
    /// Credentials.
    Secret,
    /// Nothing of interest.
    Other,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Command {
    pub op: &'static str,
    pub answer: Answer,
    pub carries: Carries,
}

pub(super) const QUERY: u8 = 0x03;
pub(super) const PREPARE: u8 = 0x16;
pub(super) const EXECUTE: u8 = 0x17;
pub(super) const SEND_LONG_DATA: u8 = 0x18;
pub(super) const CLOSE: u8 = 0x19;
pub(super) const RESET: u8 = 0x1a;
pub(super) const RESET_CONNECTION: u8 = 0x1f;
pub(super) const CHANGE_USER: u8 = 0x11;
pub(super) const BULK_EXECUTE: u8 = 0xfa;

/// The command of this byte; `None` for a byte that is none.
pub(super) fn of(byte: u8) -> Option<Command> {
    use Answer as A;
    use Carries as C;
    let (op, answer, carries) = match byte {
        0x00 => ("sleep", A::Single, C::Other),
        0x01 => ("quit", A::None, C::Other),
        0x02 => ("init_db", A::Single, C::Name),
        QUERY => ("query", A::Results, C::Query),
        0x04 => ("field_list", A::Fields, C::Name),
        0x05 => ("create_db", A::Single, C::Name),
        0x06 => ("drop_db", A::Single, C::Name),
        0x07 => ("refresh", A::Single, C::Other),
        0x08 => ("shutdown", A::Single, C::Other),
        0x09 => ("statistics", A::Single, C::Other),
        0x0a => ("process_info", A::Results, C::Other),
        0x0b => ("connect", A::Single, C::Other),
        0x0c => ("process_kill", A::Single, C::Other),
        0x0d => ("debug", A::Single, C::Other),
        0x0e => ("ping", A::Single, C::Other),
        0x0f => ("time", A::Single, C::Other),
        0x10 => ("delayed_insert", A::Single, C::Other),
        CHANGE_USER => ("change_user", A::Login, C::Secret),
        0x12 => ("binlog_dump", A::Binlog, C::Other),
        0x13 => ("table_dump", A::Binlog, C::Other),
        0x14 => ("connect_out", A::Single, C::Other),
        0x15 => ("register_slave", A::Single, C::Secret),
        PREPARE => ("prepare", A::Prepared, C::Sql),
        EXECUTE => ("execute", A::Results, C::Statement),
        SEND_LONG_DATA => ("send_long_data", A::None, C::Statement),
        CLOSE => ("close", A::None, C::Statement),
        RESET => ("reset", A::Single, C::Statement),
        0x1b => ("set_option", A::Single, C::Other),
        0x1c => ("fetch", A::Rows, C::Statement),
        0x1d => ("daemon", A::Single, C::Other),
        0x1e => ("binlog_dump_gtid", A::Binlog, C::Other),
        RESET_CONNECTION => ("reset_connection", A::Single, C::Other),
        BULK_EXECUTE => ("bulk_execute", A::Results, C::Statement),
        _ => return None,
    };
    Some(Command { op, answer, carries })
}

/// Names, and what replicas ask for, are shorter.
const MAX_SHORT_BYTES: usize = 4 << 10;

/// True if bytes begin with the head of a TLS record (RFC 8446, section 5.1), which would be a command of some 192 KiB.
pub(super) fn is_tls_record(bytes: &[u8]) -> bool {
    const LONGEST_RECORD_BYTES: u16 = (1 << 14) + 2048;
    match bytes {
        &[0x14..=0x17, 3, 0..=4, a, b, ..] => (1..=LONGEST_RECORD_BYTES).contains(&u16::from_be_bytes([a, b])),
        _ => false,
    }
}

/// True if a payload of this length can be this command.
fn fits(byte: u8, length: usize) -> bool {
    match byte {
        0x01 | 0x09 | 0x0a | 0x0d | 0x0e | RESET_CONNECTION => length == 1,
        QUERY | PREPARE => length >= 2,
        0x02 | 0x04 => (2..MAX_SHORT_BYTES).contains(&length),
        EXECUTE => length >= 10,
        CLOSE | RESET => length == 5,
        0x1c => length == 9,
        SEND_LONG_DATA => length >= 7,
        0x1b => length == 3,
        CHANGE_USER => (4..1 << 17).contains(&length),
        BULK_EXECUTE => length >= 7,
        0x07 | 0x08 => length <= 2,
        0x0c => length == 5,
        0x12 | 0x1e | 0x15 => (11..MAX_SHORT_BYTES).contains(&length),
        _ => false,
    }
}

/// Whether bytes at a place where a command may begin are one: header, command byte, length and content must agree.
pub(super) fn looks_like_command(bytes: &[u8], cut: bool) -> Looks {
    let open = if cut { Looks::No } else { Looks::Open };
    let &[a, b, c, sequence, ..] = bytes else { return open };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    if sequence != 0 || length == 0 || is_tls_record(bytes) {
        return Looks::No;
    }
    let Some(payload) = bytes.get(HEADER_BYTES..) else { return Looks::No };
    let Some((command, content)) = payload.get(..length).unwrap_or(payload).split_first() else { return open };
    if !fits(*command, length) {
        return Looks::No;
    }
    let plausible = match *command {
        QUERY | PREPARE | 0x02 | 0x04 => {
            let text = if *command == QUERY { content.strip_prefix(&[0, 1]).unwrap_or(content) } else { content };
            let attributes = *command == QUERY && matches!(text, [0..=0xfa, 1, ..]);
            let text = if *command == 0x04 { text.split(|b| *b == 0).next().unwrap_or_default() } else { text };
            let seen = text.get(..64).unwrap_or(text);
            attributes || seen.iter().all(|b| *b >= b' ' || b.is_ascii_whitespace())
        }
        // Number, flags, iteration count 1 (page_protocol_com_stmt_execute.html).
        EXECUTE => match content {
            [_, _, _, _, flags, 1, 0, 0, 0, ..] => *flags < 16,
            _ => return if content.len() < 9 && content.len() + 1 < length && !cut { Looks::Open } else { Looks::No },
        },
        CHANGE_USER => content.first().is_some_and(|b| *b == 0 || *b >= b' '),
        _ => true,
    };
    // What follows in the same chunk must begin a command as well.
    let next = payload.get(length..).unwrap_or_default();
    let next_begins = match next {
        [_, _, _, sequence, command, ..] => *sequence == 0 && of(*command).is_some(),
        _ => true,
    };
    (plausible && (next_begins || length >= 0xff_ffff)).into()
}

/// The statement in the payload of COM_QUERY (without the command's byte), behind the query attributes if there are any
/// (page_protocol_com_query.html). No statement begins with a count and the byte 1, so the bytes tell.
pub(super) fn query_text(content: &[u8]) -> &[u8] {
    let mut rest = content;
    match content {
        [0, 1, text @ ..] => return text,
        [0..=0xfa, 1, ..] => {}
        _ => return content,
    }
    behind_attributes(&mut rest).unwrap_or_default()
}

fn behind_attributes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::try_from(length_encoded(rest)?).ok()?;
    length_encoded(rest)?;
    let nulls = take(rest, count.div_ceil(8))?;
    let mut types = Vec::new();
    if take(rest, 1)? == [1] {
        for _ in 0..count {
            types.push(u16_le(rest)?);
            let name = usize::try_from(length_encoded(rest)?).ok()?;
            take(rest, name)?;
        }
    }
    for (index, kind) in types.iter().enumerate() {
        let null = nulls.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
        if null {
            continue;
        }
        value(rest, *kind)?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_attributes_come_before_the_text() {
        // page_protocol_com_query.html: count, sets, NULL bitmap, new-params flag, type, name, value.
        let with = b"\x01\x01\x00\x01\xfe\x00\x05trace\x03abcselect 1";
        assert_eq!(query_text(with), b"select 1");
        assert_eq!(query_text(b"\x00\x01select 2"), b"select 2");
        assert_eq!(query_text(b"select 3"), b"select 3");
        assert_eq!(query_text(b"\tselect 4"), b"\tselect 4");
        assert_eq!(query_text(b"\x09\x01cut"), b"");
    }

    #[test]
    fn commands_are_judged_strictly() {
        assert_eq!(looks_like_command(b"\x09\0\0\0\x03select 1", false), Looks::Yes);
        assert_eq!(looks_like_command(b"\x09\0\0\x01\x03select 1", false), Looks::No);
        assert_eq!(looks_like_command(b"\x01\0\0\0\x0e", false), Looks::Yes);
        assert_eq!(looks_like_command(b"\x02\0\0\0\x0e\0", false), Looks::No);
        assert_eq!(looks_like_command(b"\x17\x03\x03\0\x45abcdef", false), Looks::No);
        assert_eq!(looks_like_command(b"\x0a\0\0\0\x17\x01\0\0\0\0\x01\0\0\0", false), Looks::Yes);
        assert_eq!(looks_like_command(b"\x0a\0", false), Looks::Open);
    }
}
