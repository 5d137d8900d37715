//! Where the words, literals, comments and operators of a statement begin and end.

use super::Dialect;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
    pub fn is_literal(self) -> bool {
        matches!(self, Kind::String | Kind::Number)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// Length of a UUID's text (RFC 9562).
const UUID_BYTES: usize = 36;

/// Whether a backslash in a string escapes what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Yes,
    No,
    Untold,
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

pub(super) struct Lexer<'a> {
    sql: &'a [u8],
    pub at: usize,
    mysql: bool,
    postgresql: bool,
    cql: bool,
    /// In strings without a prefix.
    escapes: Escapes,
    /// The last token is a string `E'...'`: in PostgreSQL the next line may go on with it.
    escaped: bool,
    /// What stands before can be the left side of a minus.
    operand: bool,
    executable: bool,
    /// A string had no end, or none that can be told.
    pub unended: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8], dialect: Dialect) -> Self {
        let mysql = matches!(dialect, Dialect::MySql | Dialect::MySqlPlain | Dialect::MySqlUntold);
        let cql = dialect == Dialect::Cql;
        let escapes = match dialect {
            Dialect::MySql | Dialect::PostgreSqlEscapes => Escapes::Yes,
            Dialect::MySqlPlain | Dialect::PostgreSql | Dialect::Cql => Escapes::No,
            Dialect::MySqlUntold | Dialect::PostgreSqlUntold => Escapes::Untold,
        };
        let postgresql = !mysql && !cql;
        Self {
            sql,
            at: 0,
            mysql,
            postgresql,
            cql,
            escapes,
            escaped: false,
            operand: false,
            executable: false,
            unended: false,
        }
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

    /// End of a string whose first quote stands at `at`: doubled quotes are part of it. All that is left, where its end
    /// can't be told.
    fn quoted(&mut self, at: usize, quote: u8, escapes: Escapes) -> usize {
        let mut at = at + 1;
        loop {
            let rest = self.sql.get(at..).unwrap_or_default();
            let found = match escapes {
                Escapes::No => memchr::memchr(quote, rest),
                _ => memchr::memchr2(quote, b'\\', rest),
            };
            let Some(found) = found else {
                self.unended = true;
                return self.sql.len();
            };
            at += found;
            if self.byte(at) != quote {
                let hidden = escapes == Escapes::Untold && self.byte(at + 1) == quote;
                if hidden || self.is_half_before(at) {
                    self.unended = true;
                    return self.sql.len();
                }
                at = (at + 2).min(self.sql.len());
            } else if self.byte(at + 1) == quote {
                at += 2;
            } else {
                return at + 1;
            }
        }
    }

    /// A quoted name whose first quote stands at `at`. Where its end can't be told, all that is left is a literal.
    fn name(&self, at: usize, quote: u8) -> (Kind, usize) {
        let mut end = at;
        loop {
            // A backtick may be the second byte of a character, too.
            if quote == b'`' && self.is_half_before(end) {
                return (Kind::String, self.sql.len());
            }
            let from = end + 1;
            let Some(found) = self.sql.get(from..).and_then(|rest| memchr::memchr(quote, rest)) else {
                return (Kind::String, self.sql.len());
            };
            end = from + found;
            if quote == b'`' && self.is_half_before(end) {
                return (Kind::String, self.sql.len());
            }
            if self.byte(end + 1) != quote {
                return (Kind::Name, end + 1);
            }
            end += 1;
        }
    }

    /// The byte at `at` may be the second one of a character of GBK, Shift-JIS or Big5: the one before it is not ASCII,
    /// and ends no character of UTF-8.
    fn is_half_before(&self, at: usize) -> bool {
        if at == 0 || self.byte(at - 1) < 0x80 {
            return false;
        }
        let ends = |length: usize| {
            at.checked_sub(length).and_then(|start| self.sql.get(start..at)).is_some_and(|character| {
                character.first().is_some_and(|first| *first >= 0xc0) && std::str::from_utf8(character).is_ok()
            })
        };
        !(2..=4).any(ends)
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
                (b'/', b'*') if self.postgresql => {
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
        match end < word_end {
            // No name of CQL begins with a digit: these are durations.
            true if self.cql => (Kind::Number, word_end),
            true => (Kind::Word, word_end),
            false => (Kind::Number, end),
        }
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

    fn word(&mut self, at: usize) -> (Kind, usize) {
        let end = self.run(at, WORD | DIGIT);
        if self.byte(end) == b'\'' {
            let word = self.sql.get(at..end).unwrap_or_default();
            let escapes = if matches!(word, b"e" | b"E") && self.postgresql { Escapes::Yes } else { self.escapes };
            let prefix = word.len() == 1 && matches!(word, [b'n' | b'N' | b'x' | b'X' | b'b' | b'B' | b'e' | b'E'])
                || word.first() == Some(&b'_') && self.mysql;
            if prefix {
                return (Kind::String, self.quoted(end, b'\'', escapes));
            }
        }
        // U&'...': a string with Unicode escapes.
        if self.byte(end) == b'&'
            && self.byte(end + 1) == b'\''
            && self.postgresql
            && matches!(self.sql.get(at..end), Some(b"u" | b"U"))
        {
            return (Kind::String, self.quoted(end + 1, b'\'', Escapes::No));
        }
        (Kind::Word, end)
    }

    /// A UUID without quotes.
    fn is_uuid(&self, at: usize) -> bool {
        let Some(text) = self.sql.get(at..at + UUID_BYTES) else { return false };
        let dash = |index| matches!(index, 8 | 13 | 18 | 23);
        text.iter().enumerate().all(|(index, byte)| if dash(index) { *byte == b'-' } else { byte.is_ascii_hexdigit() })
            && class(self.byte(at + UUID_BYTES)) & (WORD | DIGIT) == 0
    }

    #[inline]
    pub fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let first = *self.sql.get(start)?;
        let (mysql, cql) = (self.mysql, self.cql);
        let (kind, end) = match class(first) {
            _ if cql && first.is_ascii_hexdigit() && self.is_uuid(start) => (Kind::Number, start + UUID_BYTES),
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
                b'\'' => {
                    let escapes = if self.escaped { Escapes::Yes } else { self.escapes };
                    (Kind::String, self.quoted(start, b'\'', escapes))
                }
                b'"' if mysql => (Kind::String, self.quoted(start, b'"', self.escapes)),
                b'"' => self.name(start, b'"'),
                b'`' if mysql => self.name(start, b'`'),
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
                b'?' if mysql || cql => (Kind::Number, start + 1),
                b'#' if mysql => (Kind::Comment, self.line_end(start)),
                b'-' if self.byte(start + 1) == b'-' && (!mysql || class(self.byte(start + 2)) == BLANK) => {
                    (Kind::Comment, self.line_end(start))
                }
                b'-' | b'+' if !self.operand && self.signed(start) => self.number(start + 1),
                b'/' if cql && self.byte(start + 1) == b'/' => (Kind::Comment, self.line_end(start)),
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
                    if !mysql && !cql =>
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
            self.escaped = kind == Kind::String
                && self.postgresql
                && (matches!(first, b'e' | b'E') || self.escaped && first == b'\'');
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
