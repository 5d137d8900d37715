//! What OK, EOF and ERR packets say of how a command went, and the number of columns of its result.

use super::packet::{Packet, length_encoded, u16_le};
use crate::{Exchange, Flags, SqlFacts, Status, text};

/// Bytes of an error message, where servers cut it: `MYSQL_ERRMSG_SIZE` less the byte at its end.
const MAX_MESSAGE_BYTES: usize = 511;

// Status flags (include/mysql_com.h; page of `SERVER_STATUS_flags_enum`).
const IN_TRANSACTION: u16 = 0x0001;
const MORE_RESULTS: u16 = 0x0008;
const NO_GOOD_INDEX: u16 = 0x0010;
const NO_INDEX: u16 = 0x0020;
const CURSOR: u16 = 0x0040;
const NO_BACKSLASH_ESCAPES: u16 = 0x0200;
const SLOW: u16 = 0x0800;
const IN_READ_ONLY_TRANSACTION: u16 = 0x2000;

/// ER_SIGNAL_WARN, ER_SIGNAL_NOT_FOUND and ER_SIGNAL_EXCEPTION: what SIGNAL raises if it names no other number.
const SIGNAL_FIRST: u16 = 1642;
const SIGNAL_LAST: u16 = 1644;

/// The class of SQLSTATE that is left to applications (45000; page of the statement SIGNAL).
const USER_CLASS: &[u8; 2] = b"45";

/// What the end of a result says: an OK packet, or an EOF.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    /// Rows changed, of all results.
    pub affected: u64,
    /// Status flags of the last result; of `NO_INDEX` and its like those of all results.
    status: u16,
    /// Warnings, as the last result counts them.
    warnings: u16,
}

impl Outcome {
    /// What an OK packet says (page_protocol_basic_ok_packet.html).
    pub fn of_ok(packet: &Packet<'_>) -> Option<Self> {
        let mut rest = packet.payload.get(1..)?;
        let affected = length_encoded(&mut rest)?;
        length_encoded(&mut rest)?;
        let status = u16_le(&mut rest)?;
        Some(Self { affected, status, warnings: u16_le(&mut rest).unwrap_or(0) })
    }

    /// What an EOF packet says (page_protocol_basic_eof_packet.html), or the OK packet that stands for it.
    pub fn of_eof(packet: &Packet<'_>) -> Option<Self> {
        if packet.length != 5 {
            return Self::of_ok(packet);
        }
        let mut rest = packet.payload.get(1..)?;
        let warnings = u16_le(&mut rest)?;
        Some(Self { affected: 0, status: u16_le(&mut rest)?, warnings })
    }

    pub fn has_more(self) -> bool {
        self.status & MORE_RESULTS != 0
    }

    pub fn has_cursor(self) -> bool {
        self.status & CURSOR != 0
    }

    /// Whether a backslash in a string escapes what follows it, from now on.
    pub fn backslash_escapes(self) -> bool {
        backslash_escapes(self.status)
    }

    /// Adds what a later result says.
    pub fn add(&mut self, later: Outcome) {
        self.affected = self.affected.saturating_add(later.affected);
        self.status = later.status | self.status & (NO_GOOD_INDEX | NO_INDEX | SLOW);
        self.warnings = later.warnings;
    }

    /// Tells it to the request that was answered.
    pub fn tell(self, exchange: &mut Exchange) {
        if self.status & (IN_TRANSACTION | NO_GOOD_INDEX | NO_INDEX | SLOW | IN_READ_ONLY_TRANSACTION) != 0 {
            for (bits, flag) in [
                (IN_TRANSACTION | IN_READ_ONLY_TRANSACTION, Flags::IN_TRANSACTION),
                (NO_GOOD_INDEX, Flags::NO_GOOD_INDEX),
                (NO_INDEX, Flags::NO_INDEX),
                (SLOW, Flags::SLOW),
            ] {
                if self.status & bits != 0 {
                    exchange.flags.insert(flag);
                }
            }
        }
        if self.affected > 0 || self.warnings > 0 {
            let facts = exchange.sql.get_or_insert_default();
            facts.affected = Some(self.affected).filter(|affected| *affected > 0);
            facts.warnings = self.warnings;
        }
    }
}

/// Whether status flags say that a backslash in a string escapes what follows it.
pub(super) fn backslash_escapes(status: u16) -> bool {
    status & NO_BACKSLASH_ESCAPES == 0
}

/// Fills in what an ERR packet says (page_protocol_basic_err_packet.html).
pub(super) fn failure(packet: &Packet<'_>, literals: bool, exchange: &mut Exchange) {
    exchange.status = Status::Error;
    exchange.flags.insert(packet.missing.unwrap_or_default());
    let mut rest = packet.payload.get(1..).unwrap_or_default();
    let Some(code) = u16_le(&mut rest) else { return };
    let mut raised = matches!(code, SIGNAL_FIRST..=SIGNAL_LAST);
    let message = match rest {
        &[b'#', a, b, c, d, e, ref message @ ..] => {
            let facts: &mut SqlFacts = exchange.sql.get_or_insert_default();
            raised |= [a, b] == *USER_CLASS;
            facts.sqlstate = Some(text::bounded(&[a, b, c, d, e], 5, false));
            message
        }
        _ => rest,
    };
    let cut = packet.missing.is_some() || message.len() >= MAX_MESSAGE_BYTES;
    let message = text::bounded(message, MAX_MESSAGE_BYTES, cut);
    exchange.code = Some(code.to_string().into());
    exchange.error = Some(match literals {
        true => message,
        // What SIGNAL raises is the application's own text.
        false if raised => "?".into(),
        false => mask_message(code, &message),
    });
}

/// Columns of a result set, and whether their descriptions follow. The flag that tells the latter stands behind the count
/// with MariaDB (`MARIADB_CLIENT_CACHE_METADATA`) and before it with MySQL (`CLIENT_OPTIONAL_RESULTSET_METADATA`).
pub(super) fn column_count(packet: &Packet<'_>) -> Option<(u64, bool)> {
    let payload = packet.payload.get(..usize::try_from(packet.length).ok()?)?;
    let counted = |mut bytes: &[u8]| length_encoded(&mut bytes).filter(|_| bytes.is_empty());
    if let Some(count) = counted(payload) {
        return Some((count, true));
    }
    if let Some((&flag @ 0..=1, count)) = payload.split_last()
        && let Some(count @ 1..) = counted(count)
    {
        return Some((count, flag == 1));
    }
    match payload.split_first() {
        Some((&flag @ 0..=1, count)) => counted(count).map(|count| (count, flag == 1)),
        _ => None,
    }
}

/// An error message without values. What a statement or a key held stands between quotes and may hold quotes itself;
/// where the server's own words are certain to follow the last such quotation, they and the name behind them stay
/// (<https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html>).
fn mask_message(code: u16, message: &str) -> Box<str> {
    const DUP_ENTRY: u16 = 1062;
    const TRUNCATED_WRONG_VALUE: u16 = 1292;
    const TRUNCATED_WRONG_VALUE_FOR_FIELD: u16 = 1366;
    const WRONG_VALUE_FOR_TYPE: u16 = 1411;
    let at_row = || message.rsplit_once(" at row ").is_some_and(|(_, row)| row.bytes().all(|b| b.is_ascii_digit()));
    let words = match code {
        DUP_ENTRY => "' for key ",
        // The same code has a form that ends with the value.
        TRUNCATED_WRONG_VALUE | TRUNCATED_WRONG_VALUE_FOR_FIELD if at_row() => "' for column ",
        WRONG_VALUE_FOR_TYPE => "' for function ",
        _ => return text::mask_quoted(message),
    };
    match (message.find('\''), message.rfind(words)) {
        (Some(open), Some(close)) if open < close && !message.ends_with('…') => {
            let (before, after) = (message.get(..=open).unwrap_or_default(), message.get(close..).unwrap_or_default());
            format!("{before}?{after}").into()
        }
        _ => text::mask_quoted(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_counts_with_and_without_a_flag() {
        let of = |payload: &[u8]| {
            column_count(&Packet { length: payload.len() as u64, sequence: 1, payload, missing: None })
        };
        assert_eq!(of(&[3]), Some((3, true)));
        assert_eq!(of(&[3, 0]), Some((3, false)));
        assert_eq!(of(&[3, 1]), Some((3, true)));
        assert_eq!(of(&[1, 0]), Some((1, false)));
        assert_eq!(of(&[1, 5]), Some((5, true)));
        assert_eq!(of(&[0, 5]), Some((5, false)));
        assert_eq!(of(&[0xfc, 0x2c, 0x01]), Some((300, true)));
        assert_eq!(of(&[0xfc, 0x2c, 0x01, 0]), Some((300, false)));
        assert_eq!(of(b"abc"), None);
    }

    #[test]
    fn what_signal_raises_is_masked_whole() {
        let of = |payload: &[u8], literals| {
            let mut exchange = Exchange::default();
            let packet = Packet { length: payload.len() as u64, sequence: 1, payload, missing: None };
            failure(&packet, literals, &mut exchange);
            exchange.error.unwrap().into_string()
        };
        // 1644, and a number that SIGNAL was given.
        for payload in [&b"\xff\x6c\x06#HY000card 4711 refused"[..], b"\xff\x39\x30#45000card 4711 refused"] {
            assert_eq!(of(payload, false), "?");
            assert_eq!(of(payload, true), "card 4711 refused");
        }
        assert_eq!(of(b"\xff\x7a\x04#42S02Table 'a.b' doesn't exist", false), "Table '?' doesn't exist");
    }

    #[test]
    fn messages_are_masked() {
        let of = |code, text: &str| mask_message(code, text).into_string();
        assert_eq!(of(1064, "near 'x = 'a' and b' at line 1"), "near '?' at line 1");
        assert_eq!(of(1062, "Duplicate entry 'a' b' for key 't.k'"), "Duplicate entry '?' for key 't.k'");
        assert_eq!(of(1062, "Duplicate entry 'a' for key 'SECRET' for key 't.k'"), "Duplicate entry '?' for key 't.k'");
        assert_eq!(of(1146, "Table 'a.b' doesn't exist"), "Table '?' doesn't exist");
        for value in
            ["it's SECRET", "it' SECRET", "a' SECRET 'b", "' for column 'SECRET' at row 1", "x' for column SECRET"]
        {
            let column = format!("value: '{value}' for column 'a' at row 1");
            assert_eq!(of(1366, &column), "value: '?' for column 'a' at row 1");
            assert_eq!(of(1292, &column), "value: '?' for column 'a' at row 1");
            assert!(!of(1292, &format!("Truncated incorrect DOUBLE value: '{value}'")).contains("SECRET"));
            assert_eq!(
                of(1411, &format!("value: '{value}' for function str_to_date")),
                "value: '?' for function str_to_date"
            );
        }
        assert_eq!(of(1366, "value: 'a' for column SECR…"), "value: '?");
    }
}
