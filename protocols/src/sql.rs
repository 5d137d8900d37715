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
//! - the result is at most [`MAX_BYTES`] long; `…` stands for what was cut.

use std::ops::Range;

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
    /// PostgreSQL: standard strings, `E''`, dollar quotes, nested comments, `"..."` is a name.
    PostgreSql,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Comment,
    Word,
    /// A quoted name.
    Name,
    String,
    /// Number or placeholder.
    Number,
    Comparison,
    Operator,
    Comma,
    Dot,
    Open,
    Close,
    Semicolon,
}

impl Kind {
    fn is_literal(self) -> bool {
        matches!(self, Kind::String | Kind::Number)
    }
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

const WORD: u8 = 1;
const DIGIT: u8 = 2;
const BLANK: u8 = 4;

/// What each byte can be part of.
#[allow(clippy::indexing_slicing)] // Evaluated by the compiler.
static CLASSES: [u8; 256] = {
    let mut classes = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        if byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$' || byte >= 0x80 {
            classes[i] = WORD;
        } else if byte.is_ascii_digit() {
            classes[i] = DIGIT;
        } else if byte.is_ascii_whitespace() || byte == 0 || byte == 0x0b {
            classes[i] = BLANK;
        }
        i += 1;
    }
    classes
};

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    dialect: Dialect,
    /// What stands before can be the left side of a minus.
    operand: bool,
    executable: bool,
}

impl<'a> Lexer<'a> {
    fn new(sql: &'a [u8], dialect: Dialect) -> Self {
        Self { sql, at: 0, dialect, operand: false, executable: false }
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        self.sql.get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn run(&self, mut at: usize, classes: u8) -> usize {
        while let Some(byte) = self.sql.get(at)
            && class(*byte) & classes != 0
        {
            at += 1;
        }
        at
    }

    /// End of a quoted thing whose first quote stands at `at`: doubled quotes are part of it.
    fn quoted(&self, at: usize, quote: u8, escapes: bool) -> usize {
        let mut at = at + 1;
        loop {
            let rest = self.sql.get(at..).unwrap_or_default();
            let found = if escapes { memchr::memchr2(quote, b'\\', rest) } else { memchr::memchr(quote, rest) };
            let Some(found) = found else { return self.sql.len() };
            at += found;
            if self.byte(at) != quote {
                at = (at + 2).min(self.sql.len());
            } else if self.byte(at + 1) == quote {
                at += 2;
            } else {
                return at + 1;
            }
        }
    }

    fn line_end(&self, at: usize) -> usize {
        let rest = self.sql.get(at..).unwrap_or_default();
        memchr::memchr(b'\n', rest).map_or(self.sql.len(), |end| at + end + 1)
    }

    fn comment_end(&self, at: usize) -> usize {
        let mut depth = 1u32;
        let mut at = at + 2;
        loop {
            let rest = self.sql.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'*', b'/', rest) else { return self.sql.len() };
            at += found;
            match (self.byte(at), self.byte(at + 1)) {
                (b'*', b'/') => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return at.min(self.sql.len());
                    }
                }
                (b'/', b'*') if self.dialect == Dialect::PostgreSql => {
                    depth += 1;
                    at += 2;
                }
                _ => at += 1,
            }
        }
    }

    /// End of the number at `at`, or of the word that begins like one.
    fn number(&self, at: usize) -> (Kind, usize) {
        let word_end = self.run(at, WORD | DIGIT);
        let text = self.sql.get(at..word_end).unwrap_or_default();
        if let [b'0', b'x' | b'X' | b'b' | b'B' | b'o' | b'O', rest @ ..] = text
            && !rest.is_empty()
            && rest.iter().all(|b| b.is_ascii_hexdigit() || *b == b'_')
        {
            return (Kind::Number, word_end);
        }
        let digits = |from: usize| self.run_digits(from);
        let mut end = digits(at);
        if self.byte(end) == b'.' {
            end = digits(end + 1);
        }
        if matches!(self.byte(end), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(end + 1), b'+' | b'-'));
            if self.byte(end + 1 + sign).is_ascii_digit() {
                end = digits(end + 1 + sign);
            }
        }
        if end < word_end { (Kind::Word, word_end) } else { (Kind::Number, end) }
    }

    fn run_digits(&self, mut at: usize) -> usize {
        while self.byte(at).is_ascii_digit() || self.byte(at) == b'_' && self.byte(at + 1).is_ascii_digit() {
            at += 1;
        }
        at
    }

    fn dollar_quote(&self, at: usize) -> Option<usize> {
        let mut tag_end = at + 1;
        while matches!(self.byte(tag_end), b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80..) {
            tag_end += 1;
        }
        if self.byte(tag_end) != b'$' {
            return None;
        }
        let tag = self.sql.get(at..=tag_end)?;
        let rest = self.sql.get(tag_end + 1..)?;
        Some(memchr::memmem::find(rest, tag).map_or(self.sql.len(), |end| tag_end + 1 + end + tag.len()))
    }

    fn word(&self, at: usize) -> (Kind, usize) {
        let end = self.run(at, WORD | DIGIT);
        if self.byte(end) == b'\'' {
            let word = self.sql.get(at..end).unwrap_or_default();
            let escapes = self.dialect == Dialect::MySql || matches!(word, b"e" | b"E");
            let prefix = word.len() == 1 && matches!(word, [b'n' | b'N' | b'x' | b'X' | b'b' | b'B' | b'e' | b'E'])
                || word.first() == Some(&b'_') && self.dialect == Dialect::MySql;
            if prefix {
                return (Kind::String, self.quoted(end, b'\'', escapes));
            }
        }
        // U&'...': a string with Unicode escapes.
        if self.byte(end) == b'&'
            && self.byte(end + 1) == b'\''
            && self.dialect == Dialect::PostgreSql
            && matches!(self.sql.get(at..end), Some(b"u" | b"U"))
        {
            return (Kind::String, self.quoted(end + 1, b'\'', false));
        }
        (Kind::Word, end)
    }

    #[inline]
    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let first = *self.sql.get(start)?;
        let mysql = self.dialect == Dialect::MySql;
        let (kind, end) = match class(first) {
            BLANK => (Kind::Space, self.run(start + 1, BLANK)),
            DIGIT => self.number(start),
            WORD if first == b'$' && !mysql => {
                if self.byte(start + 1).is_ascii_digit() {
                    (Kind::Number, self.run_digits(start + 1))
                } else if let Some(end) = self.dollar_quote(start) {
                    (Kind::String, end)
                } else {
                    (Kind::Operator, start + 1)
                }
            }
            WORD => self.word(start),
            _ => match first {
                b'\'' => (Kind::String, self.quoted(start, b'\'', mysql)),
                b'"' if mysql => (Kind::String, self.quoted(start, b'"', true)),
                b'"' => (Kind::Name, self.quoted(start, b'"', false)),
                b'`' if mysql => (Kind::Name, self.quoted(start, b'`', false)),
                b'@' if mysql => {
                    let name = if self.byte(start + 1) == b'@' { start + 2 } else { start + 1 };
                    (Kind::Word, self.run(name, WORD | DIGIT))
                }
                b',' => (Kind::Comma, start + 1),
                b'(' => (Kind::Open, start + 1),
                b')' => (Kind::Close, start + 1),
                b';' => (Kind::Semicolon, start + 1),
                b'.' if !self.operand && self.byte(start + 1).is_ascii_digit() => self.number(start),
                b'.' => (Kind::Dot, start + 1),
                b'?' if mysql => (Kind::Number, start + 1),
                b'#' if mysql => (Kind::Comment, self.line_end(start)),
                b'-' if self.byte(start + 1) == b'-' && (!mysql || class(self.byte(start + 2)) == BLANK) => {
                    (Kind::Comment, self.line_end(start))
                }
                b'-' | b'+' if !self.operand && self.signed(start) => self.number(start + 1),
                b'/' if self.byte(start + 1) == b'*' => {
                    if mysql && self.byte(start + 2) == b'!' {
                        self.executable = true;
                        (Kind::Space, self.run_digits(start + 3))
                    } else {
                        (Kind::Comment, self.comment_end(start))
                    }
                }
                b'*' if self.executable && self.byte(start + 1) == b'/' => {
                    self.executable = false;
                    (Kind::Space, start + 2)
                }
                b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' | b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&'
                | b'|' | b'`' | b'?'
                    if !mysql =>
                {
                    self.operator(start)
                }
                b':' if self.byte(start + 1) == b'=' => (Kind::Comparison, start + 2),
                // JSON operators are no comparisons.
                b'-' if self.byte(start + 1) == b'>' => {
                    (Kind::Operator, start + 2 + usize::from(self.byte(start + 2) == b'>'))
                }
                b'=' | b'<' | b'>' | b'!' => {
                    let mut end = start + 1;
                    while matches!(self.byte(end), b'=' | b'<' | b'>' | b'!') {
                        end += 1;
                    }
                    (Kind::Comparison, end)
                }
                _ => (Kind::Operator, start + 1),
            },
        };
        self.at = end.clamp(start + 1, self.sql.len());
        if !matches!(kind, Kind::Space | Kind::Comment) {
            self.operand =
                matches!(kind, Kind::Word | Kind::Name | Kind::String | Kind::Number | Kind::Close) || first == b']';
        }
        Some(Token { kind, start, end: self.at })
    }

    /// An operator of PostgreSQL: of several characters, and it ends in a sign only if it has one of those that no
    /// operator of standard SQL has (sql-syntax-lexical.html#SQL-SYNTAX-OPERATORS).
    fn operator(&self, at: usize) -> (Kind, usize) {
        let mut end = at;
        let (mut special, mut compares) = (false, true);
        loop {
            match self.byte(end) {
                b'-' if self.byte(end + 1) == b'-' => break,
                b'/' if self.byte(end + 1) == b'*' => break,
                b'<' | b'>' | b'=' => {}
                b'!' => special = true,
                b'~' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'`' | b'?' => (special, compares) = (true, false),
                b'+' | b'-' | b'*' | b'/' => compares = false,
                _ => break,
            }
            end += 1;
        }
        while !special && end > at + 1 && matches!(self.byte(end - 1), b'+' | b'-') {
            end -= 1;
        }
        // Without the signs that were taken off it may be a comparison after all.
        compares |= self.sql.get(at..end).is_some_and(|text| text.iter().all(|byte| b"<>=".contains(byte)));
        // Between two operands it gets its spaces, whatever it does.
        (if compares || self.operand { Kind::Comparison } else { Kind::Operator }, end)
    }

    fn signed(&self, at: usize) -> bool {
        self.byte(at + 1).is_ascii_digit() || self.byte(at + 1) == b'.' && self.byte(at + 2).is_ascii_digit()
    }
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

/// The statement with its values as `?`, see the module's rules. `cut` where the statement was longer than `sql`.
pub fn normalise(sql: &[u8], dialect: Dialect, cut: bool) -> String {
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
    let mut lexer = Lexer::new(sql, dialect);
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
            "$a", "$a$", "$$", "(", "((1),", "'", "\\'", "/*", "/*!", "--", "(1),", "null,", "in(1,", "0x", "1e", "a.",
            "\"",
        ] {
            let text = piece.repeat(4 << 20).into_bytes();
            for dialect in [Dialect::MySql, Dialect::PostgreSql] {
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
