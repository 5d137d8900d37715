//! What the client has prepared and bound: texts by the names of statements and portals.

use std::collections::HashMap;
use std::sync::Arc;

use super::message::{take, u16_be, u32_be};
use crate::text;

/// Bytes of texts and names that are remembered for one connection.
const MAX_BYTES: usize = 16 << 20;

/// Parameters that are shown, by their places.
const MAX_PARAMETERS: u16 = 64;

/// A statement as it is shown.
#[derive(Debug)]
pub(super) struct Statement {
    /// With literals, where they are asked for.
    pub target: Box<str>,
    pub normalised: Box<str>,
    /// Types of the first parameters (`oid` of `pg_type`), as far as the client told them.
    pub types: Box<[u32]>,
}

impl Statement {
    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        self.target.len() + self.normalised.len() + self.types.len() * 4 + 96
    }
}

/// A statement with its parameters, ready to run.
#[derive(Debug, Default)]
pub(super) struct Portal {
    /// `None`: it was prepared before the recording, or is too much to remember.
    pub statement: Option<Arc<Statement>>,
    pub parameters: Option<Box<str>>,
}

/// Statements and portals of a connection by their names. The ones without a name are the most used.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    unnamed: Option<Arc<Statement>>,
    named: HashMap<Box<[u8]>, Arc<Statement>>,
    unnamed_portal: Option<Portal>,
    portals: HashMap<Box<[u8]>, Portal>,
    bytes: usize,
}

impl Prepared {
    pub fn statement(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    pub fn portal(&mut self, name: &[u8]) -> Option<&mut Portal> {
        if name.is_empty() { self.unnamed_portal.as_mut() } else { self.portals.get_mut(name) }
    }

    pub fn prepare(&mut self, name: &[u8], statement: Option<Arc<Statement>>) {
        if name.is_empty() {
            self.unnamed = statement;
            return;
        }
        self.close_statement(name);
        let Some(statement) = statement else { return };
        let bytes = statement.bytes() + name.len();
        if self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            self.named.insert(name.into(), statement);
        }
    }

    pub fn bind(&mut self, name: &[u8], portal: Portal) {
        if name.is_empty() {
            self.unnamed_portal = Some(portal);
            return;
        }
        self.close_portal(name);
        // The statement is counted as if it were the portal's own: it may outlive its name.
        let bytes = portal.bytes() + name.len();
        if self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            self.portals.insert(name.into(), portal);
        }
    }

    /// A simple query takes the place of what has no name.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
        self.unnamed_portal = None;
    }

    pub fn close_statement(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else if let Some(old) = self.named.remove(name) {
            self.bytes = self.bytes.saturating_sub(old.bytes() + name.len());
        }
    }

    pub fn close_portal(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed_portal = None;
        } else if let Some(old) = self.portals.remove(name) {
            self.bytes = self.bytes.saturating_sub(old.bytes() + name.len());
        }
    }
}

impl Portal {
    fn bytes(&self) -> usize {
        self.statement.as_ref().map_or(0, |statement| statement.bytes()) + 96
    }
}

/// The parameters in what follows the names of a Bind: `None` where there are none or not all that is shown was seen.
pub(super) fn parameters(bind: &[u8], types: &[u32], literals: bool) -> Option<Box<str>> {
    let mut rest = bind;
    let formats = u16_be(&mut rest)?;
    let codes = take(&mut rest, usize::from(formats) * 2)?;
    let count = u16_be(&mut rest)?;
    if count == 0 {
        return None;
    }
    let mut shown = String::with_capacity(usize::from(count.min(MAX_PARAMETERS)) * 3);
    for number in 0..count {
        if number > 0 {
            shown.push_str(", ");
        }
        if number == MAX_PARAMETERS || shown.len() > text::MAX_TEXT_BYTES {
            shown.push('…');
            break;
        }
        if !literals {
            shown.push('?');
            continue;
        }
        let length = u32_be(&mut rest)?;
        if length == u32::MAX {
            shown.push_str("NULL");
            continue;
        }
        let seen = rest.get(..length as usize);
        let value = seen.unwrap_or(rest);
        // One code is that of all; none means text.
        let code = if formats == 1 { 1 } else { usize::from(number) * 2 + 1 };
        let binary = codes.get(code).is_some_and(|code| *code == 1);
        let kind = types.get(usize::from(number)).copied().unwrap_or_default();
        show(value, length, binary, kind, &mut shown);
        match rest.get(length as usize..) {
            Some(behind) => rest = behind,
            None => rest = &[],
        }
    }
    Some(shown.into())
}

/// Writes one value: text in quotes, numbers as they are, what can't be read as its length.
fn show(value: &[u8], length: u32, binary: bool, kind: u32, shown: &mut String) {
    // Types by their numbers in pg_type.dat.
    const BOOL: u32 = 16;
    const INT8: u32 = 20;
    const INT2: u32 = 21;
    const INT4: u32 = 23;
    const TEXTS: [u32; 6] = [18, 19, 25, 114, 1042, 1043];
    let whole = value.len() == length as usize;
    let number = match (kind, value) {
        (INT2, [a, b]) => Some(i64::from(i16::from_be_bytes([*a, *b]))),
        (INT4, [a, b, c, d]) => Some(i64::from(i32::from_be_bytes([*a, *b, *c, *d]))),
        (INT8, [a, b, c, d, e, f, g, h]) => Some(i64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        _ => None,
    };
    match number {
        Some(number) if binary => shown.push_str(&number.to_string()),
        _ if binary && kind == BOOL && length == 1 => shown.push_str(if value == [1] { "true" } else { "false" }),
        _ if binary && !TEXTS.contains(&kind) => shown.push_str(&format!("<{length} bytes>")),
        _ => {
            let text = text::bounded(value, 256, !whole);
            let plain =
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
            if plain && !TEXTS.contains(&kind) {
                shown.push_str(&text);
            } else {
                shown.push('\'');
                shown.push_str(&text.replace('\'', "''"));
                shown.push('\'');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_masked_or_shown_by_type() {
        let bind = b"\0\x02\0\0\0\x01\0\x03\0\0\0\x02it\0\0\0\x04\0\0\0\x2a\xff\xff\xff\xff\0\0";
        assert_eq!(parameters(bind, &[], false).as_deref(), Some("?, ?, ?"));
        assert_eq!(parameters(bind, &[25, 23], true).as_deref(), Some("'it', 42, NULL"));
        assert_eq!(parameters(bind, &[], true).as_deref(), Some("'it', <4 bytes>, NULL"));
        let texts = b"\0\0\0\x02\0\0\0\x02-5\0\0\0\x03a'b\0\0";
        assert_eq!(parameters(texts, &[], true).as_deref(), Some("-5, 'a''b'"));
        assert_eq!(parameters(b"\0\0\0\0\0\0", &[], true), None);
        assert_eq!(parameters(b"\0\0\xff\xff", &[], false).map(|shown| shown.matches('?').count()), Some(64));
    }

    #[test]
    fn names_and_texts_are_bounded() {
        let mut prepared = Prepared::default();
        let statement =
            Arc::new(Statement { target: "x".repeat(4096).into(), normalised: "".into(), types: [].into() });
        for number in 0..10_000u32 {
            prepared.prepare(&number.to_be_bytes(), Some(statement.clone()));
        }
        assert!(prepared.bytes <= MAX_BYTES && prepared.statement(&1u32.to_be_bytes()).is_some());
        for number in 0..10_000u32 {
            prepared.close_statement(&number.to_be_bytes());
        }
        assert_eq!(prepared.bytes, 0);
    }
}
