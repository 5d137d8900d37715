//! SQL text without its values: what statements are grouped and shown by.
//!
//! One pass, no grammar: a lexer that knows where literals, comments and quoted names begin and end in both dialects,
//! and a writer that puts `?` for each literal, collapses lists and canonical spacing. Rules:
//! - strings, numbers, hex and bit literals, typed prefixes (`N''`, `E''`, `_utf8''`), dollar quotes and placeholders
//!   (`?`, `$1`) become `?`; adjacent strings are one literal; so do `true` and `false`, but not behind `is`; `null` and
//!   `default` stay outside lists;
//! - `"..."` is a string in MySQL (so a value is never shown, even under `ANSI_QUOTES`) and a name in PostgreSQL;
//! - comments and hints are dropped; the inside of MySQL's `/*! ... */` is executed, so it stays;
//! - unquoted words are lower-cased, quoted names stay as they are; statements that differ only in the case of words are
//!   one (as are tables whose names differ only in case);
//! - `IN (?, ?)`, `VALUES (?, ?), (?, ?)` become `(?+)`, `ARRAY[?, ?]` becomes `array[?+]`; a row equal to the one before
//!   it is dropped;
//! - one space between words and around comparisons (in PostgreSQL around every operator between two operands), one
//!   after a comma; a last `;` is dropped;
//! - where it can't be told whether a backslash escapes the quote behind it, the rest of the statement is one literal; nor
//!   can it where the last string has no end, whatever the server said;
//! - the result is at most [`MAX_BYTES`] long; `…` stands for what was cut.

mod lex;

use std::ops::Range;

use lex::{Kind, Lexer, Token};

/// Longest result.
pub const MAX_BYTES: usize = 4096;

/// Parentheses nested deeper than this are copied without collapsing.
const MAX_DEPTH: usize = 24;

/// Elements of one list that are written before it is known whether it collapses.
const MAX_LIST: u32 = 64;

/// Which SQL it is, where the lexers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MySQL, MariaDB: backslash escapes, `"..."` is a string, `#` and `/*! */` comments, backticks.
    MySql,
    /// The same under `NO_BACKSLASH_ESCAPES`.
    MySqlPlain,
    /// The same where it is not known whether backslash escapes.
    MySqlUntold,
    /// PostgreSQL: standard strings, `E''`, dollar quotes, nested comments, `"..."` is a name.
    PostgreSql,
    /// The same with `standard_conforming_strings` off: backslash escapes in every string.
    PostgreSqlEscapes,
    /// The same where it is not known whether backslash escapes.
    PostgreSqlUntold,
    /// Cassandra's CQL: standard strings, `$$` quotes, `//` comments, UUIDs and durations as they are, `"..."` is a name.
    Cql,
}

/// An open parenthesis (or the statement itself).
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    /// Where it begins in the result.
    at: usize,
    /// It is a list whose literals collapse.
    list: bool,
    /// It is an array's bracket.
    bracket: bool,
    /// Only literals and commas so far.
    simple: bool,
    literals: u32,
    /// A list has just ended inside it; the next one may be a row like it.
    row: Option<(usize, usize)>,
}

struct Writer<'a> {
    sql: &'a [u8],
    out: Vec<u8>,
    frames: [Frame; MAX_DEPTH],
    depth: usize,
    /// Parentheses deeper than `frames` can hold.
    excess: usize,
    previous: Option<Kind>,
    /// The last word begins a list.
    list_word: bool,
    /// The last word is `array`.
    array_word: bool,
    space: bool,
}

impl Writer<'_> {
    fn frame(&mut self) -> Option<&mut Frame> {
        self.frames.get_mut(self.depth)
    }

    fn separate(&mut self, kind: Kind) {
        let Some(previous) = self.previous else { return };
        let space = match (previous, kind) {
            (_, Kind::Comma | Kind::Close | Kind::Semicolon | Kind::Dot) | (Kind::Open | Kind::Dot, _) => false,
            (Kind::Comma | Kind::Semicolon, _) | (Kind::Comparison, _) | (_, Kind::Comparison) => true,
            (Kind::Word, Kind::Open) if self.list_word => true,
            (Kind::Close, Kind::Word | Kind::Name | Kind::String | Kind::Number) => true,
            _ => self.space,
        };
        if space {
            self.out.push(b' ');
        }
    }

    fn token(&mut self, token: Token) {
        let Token { mut kind, start, end } = token;
        if kind == Kind::Operator && end == start + 1 {
            kind = self.bracket(self.sql.get(start).copied());
        }
        match kind {
            Kind::Space | Kind::Comment => {
                self.space = true;
                return;
            }
            Kind::Open => self.open(self.sql.get(start).copied().unwrap_or(b'(')),
            Kind::Close => self.close(self.sql.get(start).copied().unwrap_or(b')')),
            Kind::String | Kind::Number => self.literal(kind),
            Kind::Word => self.word(self.sql.get(start..end).unwrap_or_default()),
            _ => {
                if kind != Kind::Comma {
                    self.plain();
                }
                let crowded = self.frame().is_some_and(|f| f.list && f.simple && f.literals > MAX_LIST);
                if !(crowded && kind == Kind::Comma) {
                    self.separate(kind);
                    self.out.extend_from_slice(self.sql.get(start..end).unwrap_or_default());
                }
                self.list_word = false;
            }
        }
        self.array_word &= kind == Kind::Word;
        self.previous = Some(kind);
        self.space = false;
    }

    /// What an operator of one character is: the brackets of arrays are like the parentheses of lists.
    fn bracket(&self, byte: Option<u8>) -> Kind {
        let frame = self.frames.get(self.depth).copied().unwrap_or_default();
        let nested = frame.bracket && frame.list && matches!(self.previous, Some(Kind::Open | Kind::Comma));
        match byte {
            Some(b'[') if self.excess == 0 && (self.array_word && self.previous == Some(Kind::Word) || nested) => {
                Kind::Open
            }
            Some(b']') if self.excess == 0 && self.depth > 0 && frame.bracket => Kind::Close,
            _ => Kind::Operator,
        }
    }

    /// Notes something in the current parenthesis that is no literal.
    fn plain(&mut self) {
        if let Some(frame) = self.frame() {
            frame.simple = false;
            frame.row = None;
        }
    }

    fn literal(&mut self, kind: Kind) {
        self.list_word = false;
        if let Some(frame) = self.frame() {
            frame.row = None;
            frame.literals += 1;
            if frame.list && frame.simple && frame.literals > MAX_LIST {
                return;
            }
        }
        if kind == Kind::String && self.previous == Some(Kind::String) {
            return;
        }
        self.separate(kind);
        self.out.push(b'?');
    }

    fn word(&mut self, word: &[u8]) {
        let truth = matches!(word, [b't' | b'T', _, _, _] | [b'f' | b'F', _, _, _, _])
            && (word.eq_ignore_ascii_case(b"true") || word.eq_ignore_ascii_case(b"false"));
        if truth
            && !matches!(self.previous, Some(Kind::Dot))
            && !self.out.ends_with(b"is")
            && !self.out.ends_with(b"is not")
        {
            return self.literal(Kind::Number);
        }
        let constant = match word.len() {
            4 => word.eq_ignore_ascii_case(b"null"),
            7 => word.eq_ignore_ascii_case(b"default"),
            _ => false,
        };
        match self.frame() {
            Some(frame) if constant && frame.list && frame.simple => {
                frame.literals += 1;
                if frame.literals > MAX_LIST {
                    return;
                }
            }
            _ => self.plain(),
        }
        self.separate(Kind::Word);
        let from = self.out.len();
        self.out.extend_from_slice(word);
        if let Some(written) = self.out.get_mut(from..) {
            written.make_ascii_lowercase();
        }
        self.array_word = false;
        self.list_word = match word.len() {
            2 => word.eq_ignore_ascii_case(b"in"),
            5 => {
                self.array_word = word.eq_ignore_ascii_case(b"array");
                word.eq_ignore_ascii_case(b"value")
            }
            6 => word.eq_ignore_ascii_case(b"values"),
            _ => false,
        };
    }

    fn open(&mut self, byte: u8) {
        let previous = self.previous;
        let bracket = byte == b'[';
        let by_word = (self.list_word || bracket) && previous == Some(Kind::Word);
        let list = match self.frame() {
            Some(parent) => {
                let row = parent.row.is_some() && previous == Some(Kind::Comma);
                let nested = parent.list && matches!(previous, Some(Kind::Open | Kind::Comma));
                if !row {
                    parent.row = None;
                }
                parent.simple = false;
                by_word || row || nested
            }
            None => false,
        };
        if !(bracket && by_word) {
            self.separate(Kind::Open);
        }
        self.list_word = false;
        if self.depth + 1 < MAX_DEPTH {
            self.depth += 1;
            let at = self.out.len();
            if let Some(frame) = self.frame() {
                *frame = Frame { at, list, bracket, simple: true, literals: 0, row: None };
            }
        } else {
            self.excess += 1;
        }
        self.out.push(byte);
    }

    fn close(&mut self, byte: u8) {
        self.list_word = false;
        if self.excess > 0 || self.depth == 0 {
            self.excess = self.excess.saturating_sub(1);
            self.out.push(byte);
            return;
        }
        let frame = self.frame().copied().unwrap_or_default();
        self.depth -= 1;
        if frame.list && frame.simple && frame.literals > 0 {
            self.out.truncate(frame.at);
            self.out.extend_from_slice(if frame.bracket { b"[?+]" } else { b"(?+)" });
        } else {
            self.out.push(byte);
        }
        if !frame.list {
            return;
        }
        let end = self.out.len();
        let Some(parent) = self.frames.get_mut(self.depth) else { return };
        match parent.row {
            Some((row_start, row_end)) if self.out.get(row_start..row_end) == self.out.get(frame.at..) => {
                self.out.truncate(row_end);
            }
            _ => parent.row = Some((frame.at, end)),
        }
    }
}

/// The dialect to read a statement by. One whose last string doesn't end is not of the dialect that was told (its server
/// would refuse it, or the mode has changed since): where a backslash may be why, what it does is not known.
fn doubted(sql: &[u8], dialect: Dialect) -> Dialect {
    let untold = match dialect {
        Dialect::MySql => Dialect::MySqlUntold,
        Dialect::PostgreSqlEscapes => Dialect::PostgreSqlUntold,
        _ => return dialect,
    };
    if memchr::memchr(b'\\', sql).is_none() {
        return dialect;
    }
    let mut lexer = Lexer::new(sql, dialect);
    while lexer.next().is_some() {}
    if lexer.unended { untold } else { dialect }
}

/// The statement with its values as `?`, see the module's rules. `cut` where the statement was longer than `sql`.
pub fn normalise(sql: &[u8], dialect: Dialect, cut: bool) -> String {
    let dialect = doubted(sql, dialect);
    let mut lexer = Lexer::new(sql, dialect);
    let mut writer = Writer {
        sql,
        out: Vec::with_capacity(sql.len().min(MAX_BYTES) + 8),
        frames: [Frame::default(); MAX_DEPTH],
        depth: 0,
        excess: 0,
        previous: None,
        list_word: false,
        array_word: false,
        space: false,
    };
    let mut cut = cut;
    loop {
        // The token that is met most often.
        while sql.get(lexer.at) == Some(&b' ') {
            lexer.at += 1;
            writer.space = true;
        }
        let Some(token) = lexer.next() else { break };
        writer.token(token);
        if writer.out.len() > MAX_BYTES {
            cut = true;
            break;
        }
    }
    let mut out = writer.out;
    while !cut && matches!(out.last(), Some(b';' | b' ')) {
        out.pop();
    }
    if out.len() > MAX_BYTES {
        let mut end = MAX_BYTES;
        while end > 0 && out.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
            end -= 1;
        }
        out.truncate(end);
    }
    let mut text = match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    if cut {
        text.push('…');
    }
    text
}

/// Calls `value` with the range of each literal and comment of `sql`, in order.
pub fn values(sql: &[u8], dialect: Dialect, mut value: impl FnMut(Range<usize>)) {
    let mut lexer = Lexer::new(sql, doubted(sql, dialect));
    while let Some(token) = lexer.next() {
        if token.kind.is_literal() || token.kind == Kind::Comment {
            value(token.start..token.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn my(sql: &str) -> String {
        normalise(sql.as_bytes(), Dialect::MySql, false)
    }

    fn pg(sql: &str) -> String {
        normalise(sql.as_bytes(), Dialect::PostgreSql, false)
    }

    #[test]
    fn cql_has_its_own_literals() {
        let cql = |text: &str| normalise(text.as_bytes(), Dialect::Cql, false);
        assert_eq!(
            cql("SELECT \"Name\" FROM ks.t WHERE id = 550e8400-e29b-41d4-a716-446655440000 AND k=? // tail\n;"),
            "select \"Name\" from ks.t where id = ? and k = ?"
        );
        assert_eq!(
            cql("update t using ttl 1h30m set m = {'a': 1}, b = 0xff where id = f47ac10b-58cc-4372-a567-0e02b2c3d479"),
            "update t using ttl ? set m = {?: ?}, b = ? where id = ?"
        );
        assert_eq!(cql("insert into t (a, b) values ('it''s', $$x'y$$)"), "insert into t (a, b) values (?+)");
    }

    #[test]
    fn literals_become_marks() {
        assert_eq!(my("SELECT * FROM t WHERE a='x' AND b = 1.5e-3"), "select * from t where a = ? and b = ?");
        assert_eq!(my(r#"select "it\"s", 'a\'b', 'c''d'"#), "select ?, ?, ?");
        assert_eq!(my("select 0x1F, x'ff', b'01', 0b1, N'u', _utf8mb4'z', .5, 1."), "select ?, ?, ?, ?, ?, ?, ?, ?");
        assert_eq!(my("where a = -1 and b=+2 and c - 3"), "where a = ? and b = ? and c - ?");
        assert_eq!(my("select 'a' 'b'"), "select ?");
        assert_eq!(pg("select E'a\\'b', 'a\\', $1, $$it's$$, $t$ $$ $t$, B'1'"), "select ?, ?, ?, ?, ?, ?");
        assert_eq!(pg("select \"Name\" from \"T\" where x::int >= 5"), "select \"Name\" from \"T\" where x::int >= ?");
    }

    #[test]
    fn backslashes_escape_only_where_they_are_said_to() {
        let of = |dialect, text: &str| normalise(text.as_bytes(), dialect, false);
        let (plain, untold) = (Dialect::MySqlPlain, Dialect::MySqlUntold);
        assert_eq!(of(plain, r"select 'a\', b, 'secret' from t"), "select ?, b, ? from t");
        assert_eq!(of(plain, r#"select "a\", b, "secret", _utf8'x\', c"#), "select ?, b, ?, ?, c");
        assert_eq!(of(untold, r"select 'a\', b, 'secret' from t"), "select ?");
        assert_eq!(of(untold, r"select 'a\\', 'a\n', b from t"), "select ?, ?, b from t");
        // A server under the rules that were told would not take this.
        assert_eq!(of(Dialect::MySql, r"select 'a\' , 'SECRET'"), "select ?");
        assert_eq!(of(Dialect::PostgreSqlEscapes, r"select 'a\' , 'SECRET'"), "select ?");
        assert_eq!(of(Dialect::MySql, r"select 'a\n', b, 'open"), "select ?, b, ?");
        let (escapes, untold) = (Dialect::PostgreSqlEscapes, Dialect::PostgreSqlUntold);
        assert_eq!(of(escapes, r"select 'it\'s secret', b"), "select ?, b");
        assert_eq!(of(untold, r"select 'it\'s secret', b"), "select ?");
        assert_eq!(of(untold, r"select E'it\'s secret', 'a\\', b"), "select ?, ?, b");
        // What goes on in the next line goes on by the same rules.
        assert_eq!(pg("select E'a'\n  'it\\'s secret', b"), "select ?, b");
        let mut seen = Vec::new();
        values(br"select 'a\', secret", untold, |range| seen.push(range));
        assert_eq!((seen.len(), seen.first()), (1, Some(&(7..19))));
    }

    #[test]
    fn half_a_character_may_hide_a_quote() {
        let of = |text: &[u8]| normalise(text, Dialect::MySql, false);
        // GBK: 0xbf 0x5c is one character.
        assert_eq!(of(b"select '\xbf\\', secret, b"), "select ?");
        assert_eq!(of(b"select `\x81`` , 'secret', b"), "select ?");
        assert_eq!(of("select 'é\\'s', 'ü', `ö`, b".as_bytes()), "select ?, ?, `ö`, b");
        assert_eq!(normalise(b"select E'\xbf\\', secret", Dialect::PostgreSql, false), "select ?");
        assert_eq!(pg("select \"open, secret"), "select ?");
    }

    #[test]
    fn names_stay() {
        assert_eq!(my("SELECT `Col 1`, t1.c2 FROM db.`T`"), "select `Col 1`, t1.c2 from db.`T`");
        assert_eq!(my("select @a, @@global.x from 2024_orders"), "select @a, @@global.x from 2024_orders");
        assert_eq!(pg("select a->>'k', b #> '{x}' from t"), "select a ->> ?, b #> ? from t");
    }

    #[test]
    fn comments_are_dropped_and_executed_ones_are_not() {
        assert_eq!(my("SELECT /* id=5 */ 1 -- tail 'x\n, 2 # more\n"), "select ?, ?");
        assert_eq!(my("CREATE /*!50001 TEMPORARY */ TABLE x (a int)"), "create temporary table x (a int)");
        assert_eq!(pg("select /* a /* b */ c */ 1--x"), "select ?");
        assert_eq!(my("select 5--1"), "select ?-?");
        assert_eq!(my("/* open"), "");
    }

    #[test]
    fn lists_and_rows_collapse() {
        assert_eq!(my("a IN(1,2 , 3)"), "a in (?+)");
        assert_eq!(my("a in (1)"), "a in (?+)");
        assert_eq!(my("insert into t values(1,'a'),(2,'b') , (3,null)"), "insert into t values (?+)");
        assert_eq!(my("insert into t(a,b) VALUES (1,now()),(2,now())"), "insert into t(a, b) values (?, now())");
        assert_eq!(my("(a,b) in ((1,2),(3,4))"), "(a, b) in ((?+))");
        assert_eq!(my("select coalesce(1, 2)"), "select coalesce(?, ?)");
        assert_eq!(my("a in (select b from c where d in (1,2))"), "a in (select b from c where d in (?+))");
        assert_eq!(
            my("values (1),(2) on duplicate key update a=values(a)"),
            "values (?+) on duplicate key update a = values (a)"
        );
        let many = format!("select 1 from t where a in ({})", vec!["12345"; 100_000].join(","));
        assert_eq!(my(&many), "select ? from t where a in (?+)");
    }

    #[test]
    fn spacing_and_case_do_not_matter() {
        let one = my("select a from t where b=1 and c in(1,2);");
        assert_eq!(one, my("SELECT  a\n\tFROM t WHERE b = 2 AND c IN (3 , 4, 5) ; "));
    }

    #[test]
    fn cut_and_long_statements_say_so() {
        assert_eq!(normalise(b"select 'abc", Dialect::MySql, true), "select ?…");
        let long = format!("select {}", vec!["column"; 2000].join(", "));
        let text = my(&long);
        assert!(text.len() <= MAX_BYTES + '…'.len_utf8() && text.ends_with('…'));
        assert_eq!(my("select \u{fffd}é"), "select \u{fffd}é");
        assert_eq!(normalise(b"select \xff", Dialect::MySql, false), "select \u{fffd}");
    }

    #[test]
    fn deep_nesting_is_bounded() {
        let deep = format!("select {}1{}", "(".repeat(500), ")".repeat(500));
        assert!(my(&deep).starts_with("select ((("));
        assert_eq!(my(")))"), ")))");
    }

    #[test]
    fn hostile_text_takes_linear_time() {
        for piece in [
            "$a",
            "$a$",
            "$$",
            "(",
            "((1),",
            "'",
            "\\'",
            "/*",
            "/*!",
            "--",
            "(1),",
            "null,",
            "in(1,",
            "0x",
            "1e",
            "a.",
            "\"",
            "\u{fffd}\\",
            "`é",
            "E'a' ",
        ] {
            let text = piece.repeat(4 << 20).into_bytes();
            for dialect in
                [Dialect::MySql, Dialect::MySqlUntold, Dialect::PostgreSql, Dialect::PostgreSqlUntold, Dialect::Cql]
            {
                assert!(normalise(&text, dialect, false).len() <= MAX_BYTES + 3);
                values(&text, dialect, |_| {});
            }
        }
    }

    #[test]
    fn values_are_found() {
        let mut seen = Vec::new();
        values(b"select 'a', b /* c */ = 1", Dialect::MySql, |r| seen.push(r));
        assert_eq!(seen, [7..10, 14..21, 24..25]);
    }
}
