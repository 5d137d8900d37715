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
    dialect: Dialect,
    /// What stands before can be the left side of a minus.
    operand: bool,
    executable: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8], dialect: Dialect) -> Self {
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
        match end < word_end {
            // No name of CQL begins with a digit: these are durations.
            true if self.dialect == Dialect::Cql => (Kind::Number, word_end),
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
        let mysql = self.dialect == Dialect::MySql;
        let cql = self.dialect == Dialect::Cql;
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
