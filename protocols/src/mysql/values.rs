//! Values in the binary form, of parameters and query attributes
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html>,
//! <https://mariadb.com/kb/en/com_stmt_bulk_execute/>; forms: page_protocol_binary_resultset.html).

use std::fmt::Write;

use super::packet::{length_encoded, take, u16_le, u32_le};
use crate::text;

/// Bytes of an execution that are looked at where values are shown.
pub(super) const MAX_VALUE_BYTES: usize = 16 << 10;

/// Bytes of one text value that are shown.
const MAX_SHOWN_BYTES: usize = 256;

/// Set in a parameter's type where it is unsigned.
const UNSIGNED: u16 = 0x8000;

/// Set in the flags of COM_STMT_EXECUTE where the number of values follows (`PARAMETER_COUNT_AVAILABLE`).
const COUNTED: u8 = 8;

/// Set in the flags of COM_STMT_BULK_EXECUTE where types follow (`SEND_TYPES_TO_SERVER`).
const TYPED: u16 = 128;

/// Takes a value off the front: its bytes in the form of its type (the low byte of `kind`: field_types.h).
pub(super) fn value<'a>(rest: &mut &'a [u8], kind: u16) -> Option<&'a [u8]> {
    let size = match kind & 0xff {
        0x01 => 1,
        0x02 | 0x0d => 2,
        0x03 | 0x04 | 0x09 => 4,
        0x05 | 0x08 => 8,
        0x06 => 0,
        0x07 | 0x0a | 0x0b | 0x0c => usize::from(*take(rest, 1)?.first()?),
        _ => usize::try_from(length_encoded(rest)?).ok()?,
    };
    take(rest, size)
}

/// What is known of a statement whose parameters are bound.
pub(super) struct Bound<'a> {
    /// Parameters of the statement.
    pub count: u16,
    /// Whether query attributes were agreed on, where that is known.
    pub attributes: Option<bool>,
    /// Whether a parameter's value was sent before.
    pub ahead: &'a dyn Fn(u16) -> bool,
    /// The bytes are not all there are.
    pub cut: bool,
}

impl Bound<'_> {
    /// The values of COM_STMT_EXECUTE, whose payload behind the statement's number is `content`. `types` are those bound
    /// last, and afterwards those bound now.
    pub fn execution(&self, content: &[u8], types: &mut Box<[u16]>) -> Option<Box<str>> {
        let (&flags, rest) = content.split_first()?;
        let rest = rest.get(4..)?;
        let forms: &[bool] = match (flags & COUNTED != 0, self.attributes) {
            (true, _) | (_, Some(true)) => &[true],
            (_, Some(false)) => &[false],
            // Where it is not known, the form is the one that fits to the last byte.
            (_, None) => &[false, true],
        };
        forms.iter().find_map(|counted| self.values(rest, *counted, types))
    }

    fn values(&self, mut rest: &[u8], counted: bool, types: &mut Box<[u16]>) -> Option<Box<str>> {
        let own = usize::from(self.count);
        let count = if counted { usize::try_from(length_encoded(&mut rest)?).ok()? } else { own };
        let nulls = take(&mut rest, count.div_ceil(8))?;
        let mut bound = None;
        if *take(&mut rest, 1)?.first()? == 1 {
            let mut new = Vec::new();
            for _ in 0..count {
                new.push(u16_le(&mut rest)?);
                if counted {
                    let name = usize::try_from(length_encoded(&mut rest)?).ok()?;
                    take(&mut rest, name)?;
                }
            }
            bound = Some(new);
        }
        let kinds = bound.as_deref().unwrap_or(types);
        if kinds.len() != count {
            return None;
        }
        let mut shown = Shown::default();
        for (index, kind) in kinds.iter().enumerate() {
            let null = nulls.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
            let ahead = u16::try_from(index).is_ok_and(|index| index < self.count && (self.ahead)(index));
            let text = if null {
                "NULL".to_owned()
            } else if ahead {
                "…".to_owned()
            } else {
                match value(&mut rest, *kind) {
                    Some(bytes) => show(bytes, *kind),
                    None if self.cut => {
                        shown.more();
                        break;
                    }
                    None => return None,
                }
            };
            // Behind the statement's own parameters stand query attributes.
            if index < own {
                shown.push(&text);
            }
        }
        if !self.cut && !rest.is_empty() {
            return None;
        }
        if let Some(bound) = bound {
            *types = bound.into();
        }
        Some(shown.text.into())
    }

    /// The first row of COM_STMT_BULK_EXECUTE, `…` behind it where there are more.
    pub fn bulk(&self, mut rest: &[u8], types: &mut Box<[u16]>) -> Option<Box<str>> {
        let flags = u16_le(&mut rest)?;
        let count = usize::from(self.count);
        if flags & TYPED != 0 {
            let mut new = Vec::new();
            for _ in 0..count {
                new.push(u16_le(&mut rest)?);
            }
            *types = new.into();
        }
        if types.len() != count {
            return None;
        }
        let mut shown = Shown::default();
        for kind in types.iter() {
            let text = match take(&mut rest, 1)?.first()? {
                0 => show(value(&mut rest, *kind)?, *kind),
                1 => "NULL".to_owned(),
                2 => "DEFAULT".to_owned(),
                3 => "IGNORE".to_owned(),
                _ => return None,
            };
            shown.push(&text);
        }
        if self.cut || !rest.is_empty() {
            shown.more();
        }
        Some(shown.text.into())
    }
}

/// Values, separated, as many as may be shown.
#[derive(Default)]
struct Shown {
    text: String,
    full: bool,
}

impl Shown {
    fn push(&mut self, value: &str) {
        if self.full {
            return;
        }
        if self.text.len() + value.len() + 2 > text::MAX_TEXT_BYTES {
            self.more();
            return;
        }
        if !self.text.is_empty() {
            self.text.push_str(", ");
        }
        self.text.push_str(value);
    }

    fn more(&mut self) {
        if !std::mem::replace(&mut self.full, true) {
            self.text.push_str(if self.text.is_empty() { "…" } else { ", …" });
        }
    }
}

/// A value as SQL would have it.
fn show(bytes: &[u8], kind: u16) -> String {
    number(bytes, kind).or_else(|| time(bytes, kind)).unwrap_or_else(|| {
        let text = text::bounded(bytes, MAX_SHOWN_BYTES, false);
        // Decimals are sent as text.
        if matches!(kind & 0xff, 0x00 | 0xf6) { text.into() } else { format!("'{}'", text.replace('\'', "''")) }
    })
}

fn number(bytes: &[u8], kind: u16) -> Option<String> {
    let unsigned = kind & UNSIGNED != 0;
    Some(match (kind & 0xff, bytes) {
        (0x04, bytes) => f32::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x05, bytes) => f64::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x06, _) => "NULL".to_owned(),
        (0x01, [a]) if unsigned => a.to_string(),
        (0x01, bytes) => i8::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x02 | 0x0d, bytes) if unsigned => u16::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x02 | 0x0d, bytes) => i16::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x03 | 0x09, bytes) if unsigned => u32::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x03 | 0x09, bytes) => i32::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x08, bytes) if unsigned => u64::from_le_bytes(bytes.try_into().ok()?).to_string(),
        (0x08, bytes) => i64::from_le_bytes(bytes.try_into().ok()?).to_string(),
        _ => return None,
    })
}

fn time(bytes: &[u8], kind: u16) -> Option<String> {
    let mut rest = bytes;
    let mut text = String::from("'");
    if kind & 0xff == 0x0b {
        let [negative, days @ ..] = rest else { return Some("'00:00:00'".to_owned()) };
        let mut days_and_more = days;
        let days = u32_le(&mut days_and_more)?;
        let &[hours, minutes, seconds, ref micros @ ..] = days_and_more else { return None };
        let hours = u64::from(days) * 24 + u64::from(hours);
        let sign = if *negative == 1 { "-" } else { "" };
        write!(text, "{sign}{hours:02}:{minutes:02}:{seconds:02}").ok()?;
        rest = micros;
    } else if matches!(kind & 0xff, 0x07 | 0x0a | 0x0c) {
        if rest.is_empty() {
            return Some("'0000-00-00'".to_owned());
        }
        let year = u16_le(&mut rest)?;
        let &[month, day, ref clock @ ..] = rest else { return None };
        write!(text, "{year:04}-{month:02}-{day:02}").ok()?;
        rest = clock;
        if let &[hours, minutes, seconds, ref micros @ ..] = rest {
            write!(text, " {hours:02}:{minutes:02}:{seconds:02}").ok()?;
            rest = micros;
        }
    } else {
        return None;
    }
    if let Some(micros) = u32_le(&mut rest) {
        write!(text, ".{micros:06}").ok()?;
    }
    text.push('\'');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_sql_would_have_them() {
        for (kind, bytes, text) in [
            (0x01, &b"\xff"[..], "-1"),
            (0x8001, b"\xff", "255"),
            (0x03, b"\x2a\0\0\0", "42"),
            (0x8008, b"\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (0x05, b"\0\0\0\0\0\0\xf8\x3f", "1.5"),
            (0xfd, b"it's", "'it''s'"),
            (0xf6, b"12.50", "12.50"),
            // page_protocol_binary_resultset.html: the examples of DATETIME and TIME.
            (0x0c, b"\xda\x07\x0a\x11\x13\x1b\x1e\x01\0\0\0", "'2010-10-17 19:27:30.000001'"),
            (0x0a, b"\xda\x07\x0a\x11", "'2010-10-17'"),
            (0x0b, b"\x01\x78\0\0\0\x13\x1b\x1e\x01\0\0\0", "'-2899:27:30.000001'"),
            (0x0b, b"", "'00:00:00'"),
        ] {
            assert_eq!(show(bytes, kind), text);
        }
        let bound = Bound { count: 2, attributes: None, ahead: &|_| false, cut: false };
        let mut types = Box::default();
        let first = bound.execution(b"\0\x01\0\0\0\x02\x01\x03\0\xfd\0\x05\0\0\0", &mut types);
        assert_eq!(first.as_deref(), Some("5, NULL"));
        // Types are those of the time before.
        let second = bound.execution(b"\0\x01\0\0\0\0\0\x06\0\0\0\x02ab", &mut types);
        assert_eq!(second.as_deref(), Some("6, 'ab'"));
        // Query attributes: a count, names; one value more than the statement has parameters.
        let named = b"\x08\x01\0\0\0\x03\0\x01\x03\0\0\xfd\0\0\xfd\0\x05trace\x07\0\0\0\x01x\x03abc";
        assert_eq!(bound.execution(named, &mut types).as_deref(), Some("7, 'x'"));
        assert_eq!(bound.execution(b"\0\x01\0\0\0\0\x01\x03\0\xfd", &mut types), None);
    }

    #[test]
    fn rows_of_a_bulk_execution() {
        // mariadb.com/kb/en/com_stmt_bulk_execute: flags, types, then an indicator before each value.
        let bound = Bound { count: 2, attributes: None, ahead: &|_| false, cut: false };
        let mut types = Box::default();
        let rows = b"\x80\0\x03\0\xfd\0\0\x05\0\0\0\0\x02ab\x01\x01";
        assert_eq!(bound.bulk(rows, &mut types).as_deref(), Some("5, 'ab', …"));
        assert_eq!(bound.bulk(b"\0\0\x01\x02", &mut types).as_deref(), Some("NULL, DEFAULT"));
    }
}
