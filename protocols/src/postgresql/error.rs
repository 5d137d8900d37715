//! Errors and notices (<https://www.postgresql.org/docs/current/protocol-error-fields.html>).

use super::message::terminated;
use crate::text;

/// What an ErrorResponse or NoticeResponse says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Report<'a> {
    /// `ERROR`, `WARNING`: never translated where the server is 9.6 or later.
    pub severity: &'a [u8],
    /// SQLSTATE.
    pub code: &'a [u8],
    pub message: &'a [u8],
    /// The function of the server that reports it.
    pub routine: &'a [u8],
    /// All its fields were seen.
    whole: bool,
    /// The message goes on where nothing was seen.
    pub cut: bool,
}

impl<'a> Report<'a> {
    pub fn read(content: &'a [u8]) -> Self {
        let mut report = Self::default();
        let mut rest = content;
        while let Some((kind, behind)) = rest.split_first() {
            rest = behind;
            if *kind == 0 {
                report.whole = true;
                break;
            }
            let seen = rest;
            let (value, cut) = match terminated(&mut rest) {
                Some(value) => (value, false),
                None => (std::mem::take(&mut rest), true),
            };
            match kind {
                b'V' => report.severity = value,
                b'S' if report.severity.is_empty() => report.severity = value,
                b'C' if !cut => report.code = value,
                b'M' => (report.message, report.cut) = (value, cut),
                b'R' if !cut => report.routine = value,
                _ if seen.is_empty() => break,
                _ => {}
            }
        }
        report
    }

    /// The connection ends with it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }

    /// Something that the client should look at.
    pub fn warns(&self) -> bool {
        matches!(self.severity, b"WARNING" | b"NOTICE")
    }

    /// The message for people, without values unless they are asked for.
    pub fn text(&self, literals: bool) -> Option<Box<str>> {
        if self.message.is_empty() {
            return None;
        }
        let message = text::bounded(self.message, text::MAX_TEXT_BYTES, self.cut);
        Some(match literals {
            true => message,
            false if self.is_raised() => "?".into(),
            false if quotes_names(self.code) => message,
            false => text::mask_quoted(&message),
        })
    }

    /// The message is, or may be, an application's own text: RAISE may use the code of any error.
    fn is_raised(&self) -> bool {
        /// What raises errors for the languages PL/pgSQL, PL/Python, PL/Perl, PL/Tcl.
        const ROUTINES: &[&[u8]] =
            &[b"exec_stmt_raise", b"exec_stmt_assert", b"PLy_output", b"PLy_elog_impl", b"do_util_elog", b"pltcl_elog"];
        let routine_unseen = self.routine.is_empty() && !self.whole;
        routine_unseen || ROUTINES.contains(&self.routine) || is_user_code(self.code)
    }
}

/// Whether an error with this code has a text of the application: raised without a code of its own, by a function in
/// another language, or with a code that is none of the server's
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn is_user_code(code: &[u8]) -> bool {
    const CLASSES: &[&[u8; 2]] = &[
        b"00", b"01", b"02", b"03", b"08", b"09", b"0A", b"0B", b"0F", b"0L", b"0P", b"0Z", b"10", b"20", b"21", b"22",
        b"23", b"24", b"25", b"26", b"27", b"28", b"2B", b"2D", b"2F", b"34", b"39", b"3B", b"3D", b"3F", b"40", b"42",
        b"44", b"53", b"54", b"55", b"57", b"58", b"72", b"F0", b"HV", b"P0", b"XX",
    ];
    let known = code.first_chunk::<2>().is_some_and(|class| CLASSES.contains(&class));
    !known || matches!(code, b"P0001" | b"P0004")
}

/// Whether the messages with this code quote names only: of tables, columns, constraints
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn quotes_names(code: &[u8]) -> bool {
    const CODES: &[&[u8; 5]] = &[
        b"23502", b"23503", b"23505", b"23514", b"23P01", b"26000", b"2BP01", b"34000", b"3D000", b"3F000", b"42501",
        b"42701", b"42702", b"42703", b"42704", b"42710", b"42712", b"42803", b"42804", b"42P01", b"42P02", b"42P03",
        b"42P04", b"42P05", b"42P06", b"42P07", b"55P03",
    ];
    CODES.iter().any(|known| known.as_slice() == code)
}

/// What a CommandComplete tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// Rows sent or changed.
    pub rows: Option<u64>,
    /// Rows were changed.
    pub changes: bool,
    /// It is that of a COPY.
    pub copy: bool,
}

/// Reads a tag: `SELECT 5`, `INSERT 0 1`, `CREATE TABLE`
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>, CommandComplete).
pub(super) fn tag(text: &[u8]) -> Tag {
    let mut words = text.split(|byte| *byte == b' ');
    let verb = words.next().unwrap_or_default();
    let changes = matches!(verb, b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE");
    let counts = changes || matches!(verb, b"SELECT" | b"FETCH" | b"MOVE" | b"COPY");
    let rows = words.next_back().filter(|_| counts).and_then(|last| std::str::from_utf8(last).ok()?.parse().ok());
    Tag { rows, changes, copy: verb == b"COPY" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_and_masked() {
        let content = b"SFEHLER\0VERROR\0C42P01\0Mrelation \"nix\" does not exist\0P15\0\0";
        let report = Report::read(content);
        assert_eq!((report.severity, report.code), (&b"ERROR"[..], &b"42P01"[..]));
        assert_eq!(report.text(false).as_deref(), Some("relation \"nix\" does not exist"));
        let report = Report::read(b"SERROR\0C22P02\0Minvalid input syntax for type integer: \"4711x\"\0\0");
        assert_eq!(report.text(false).as_deref(), Some("invalid input syntax for type integer: \"?\""));
        assert_eq!(report.text(true).as_deref(), Some("invalid input syntax for type integer: \"4711x\""));
        let report = Report::read(b"SERROR\0C22P02\0Minvalid inp");
        // Whoever reports it stands behind it.
        assert_eq!(report.text(false).as_deref(), Some("?"));
        assert_eq!(report.text(true).as_deref(), Some("invalid inp…"));
        assert_eq!(Report::read(b"SERROR\0C22").code, b"");
    }

    #[test]
    fn what_applications_raise_is_masked_whole() {
        let of = |code: &str, routine: &str| {
            let content = format!("SERROR\0VERROR\0C{code}\0Mcard 4711 refused\0L1\0R{routine}\0\0");
            Report::read(content.as_bytes()).text(false).unwrap().into_string()
        };
        assert_eq!(of("P0001", "exec_stmt_raise"), "?");
        assert_eq!(of("23505", "exec_stmt_raise"), "?");
        assert_eq!(of("P0001", "other"), "?");
        assert_eq!(of("ZZ001", "other"), "?");
        assert_eq!(of("38000", "other"), "?");
        assert_eq!(of("23505", "_bt_check_unique"), "card 4711 refused");
    }

    #[test]
    fn tags_tell_rows() {
        let rows = |text: &[u8]| tag(text).rows;
        assert_eq!(rows(b"SELECT 5"), Some(5));
        assert_eq!(rows(b"INSERT 0 17"), Some(17));
        assert_eq!(rows(b"CREATE TABLE"), None);
        assert_eq!(rows(b"BEGIN"), None);
        assert_eq!(rows(b"COPY"), None);
        assert!(tag(b"UPDATE 1").changes && !tag(b"FETCH 1").changes);
    }
}
