//! Secrets in text: what is masked in command lines when they are shown, and in container logs before they are written.
//!
//! `?` stands for a secret. What is a secret is told by the name beside it or by its own form, so one that has neither is not
//! found; what is no secret is masked where a name says so (`token=end of input`).

use std::borrow::Cow;
use std::ops::Range;

/// Options whose value is a secret when their name contains one of these.
const SECRET: [&str; 7] = ["pass", "secret", "token", "key", "credential", "auth", "dsn"];

/// A command line with the values of options that look like secrets replaced by `?`: `--password=x`, `--token x`, and
/// the password in `scheme://user:password@host`.
pub fn mask_arguments(arguments: &[String]) -> Vec<String> {
    let mut masked = Vec::with_capacity(arguments.len());
    let mut hide_next = false;
    for argument in arguments {
        if std::mem::take(&mut hide_next) && !argument.starts_with('-') {
            masked.push("?".to_string());
            continue;
        }
        let name_end = argument.find('=').unwrap_or(argument.len());
        let name = argument.get(..name_end).unwrap_or_default().to_ascii_lowercase();
        let secret = SECRET.iter().any(|word| name.contains(word));
        if secret && name_end < argument.len() {
            masked.push(format!("{}=?", argument.get(..name_end).unwrap_or_default()));
        } else {
            hide_next = secret && argument.starts_with('-');
            // MySQL's clients take -pPASSWORD.
            let short = argument.len() > 2 && argument.starts_with("-p") && !argument.starts_with("--");
            let program =
                masked.first().is_some_and(|first: &String| first.contains("mysql") || first.contains("mariadb"));
            masked.push(if short && program { "-p?".to_string() } else { mask_url(argument) });
        }
    }
    masked
}

fn mask_url(argument: &str) -> String {
    userinfo(argument).map_or_else(|| argument.to_string(), |masked| masked.into_owned())
}

/// The beginning of a private key (RFC 7468; OpenSSH, PuTTY and PGP write the same words between dashes).
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_ENDS: &str = "-----END ";
/// Lines of one key at most: one of 16,384 bits has about 200.
const MAX_KEY_LINES: u16 = 250;

/// Masks the lines of one stream, in their order: a private key goes over several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Masker {
    key_lines_left: u16,
}

impl Masker {
    /// A line with its secrets masked:
    /// - values of names that say so (`password=`, `"apiKey": `, `Authorization: `), the rest of the line for headers that
    ///   carry credentials; of `Bearer` and `Basic`; of XML elements, of options (`--token x`), of clients of MySQL and of
    ///   curl, of SQL (`IDENTIFIED BY 'x'`), and of sentences (`password is "x"`);
    /// - the password in `scheme://user:password@host`;
    /// - private keys; JSON web tokens; keys whose beginning tells what they are (AWS, GitHub, GitLab, Slack, Stripe, Google);
    /// - numbers of payment cards.
    pub fn mask(&mut self, line: &str) -> String {
        let line = match self.without_keys(line) {
            Some(line) => line,
            None => return "?".to_string(),
        };
        let line = userinfo(&line).unwrap_or(line);
        let line = named_values(&line).unwrap_or(line);
        let line = elements(&line).unwrap_or(line);
        let line = spoken_values(&line).unwrap_or(line);
        let line = tokens(&line).unwrap_or(line);
        cards(&line).unwrap_or(line).into_owned()
    }

    /// `None` for a line inside of a key.
    fn without_keys<'a>(&mut self, line: &'a str) -> Option<Cow<'a, str>> {
        let mut rest = line;
        let mut out = String::new();
        if self.key_lines_left > 0 {
            let Some(end) = key_end(rest) else {
                self.key_lines_left -= 1;
                return None;
            };
            self.key_lines_left = 0;
            out.push('?');
            rest = rest.get(end..)?;
        }
        while let Some(begin) = rest.find(KEY_BEGINS) {
            let block = rest.get(begin..)?;
            let title = block.get(KEY_BEGINS.len()..)?;
            let title = title.get(..title.find("-----").unwrap_or(title.len()))?;
            if !title.contains("PRIVATE KEY") {
                let past = begin + KEY_BEGINS.len();
                out.push_str(rest.get(..past)?);
                rest = rest.get(past..)?;
                continue;
            }
            out.push_str(rest.get(..begin)?);
            out.push('?');
            match key_end(block) {
                Some(end) => rest = block.get(end..)?,
                None => {
                    self.key_lines_left = MAX_KEY_LINES;
                    rest = "";
                }
            }
        }
        if out.is_empty() {
            return Some(Cow::Borrowed(line));
        }
        out.push_str(rest);
        Some(Cow::Owned(out))
    }
}

/// Where the block of a key ends that goes on in a text.
fn key_end(text: &str) -> Option<usize> {
    let at = text.find(KEY_ENDS)? + KEY_ENDS.len();
    let behind = text.get(at..)?;
    Some(at + behind.find("-----").map_or(behind.len(), |dashes| dashes + 5))
}

/// Replaces ranges of a text, ascending and apart, by `?`. `None` if there are none.
fn replaced<'a>(text: &str, ranges: impl Iterator<Item = Range<usize>>) -> Option<Cow<'a, str>> {
    let mut out = String::new();
    let mut from = 0;
    for range in ranges {
        out.push_str(text.get(from..range.start)?);
        out.push('?');
        from = range.end;
    }
    if from == 0 {
        return None;
    }
    out.push_str(text.get(from..)?);
    Some(Cow::Owned(out))
}

/// The passwords of URLs (RFC 3986, 3.2.1): `scheme://user:password@host`. `?` and `#`, which should be encoded in it, often are
/// not.
fn userinfo<'a>(text: &str) -> Option<Cow<'a, str>> {
    let mut at = 0;
    let ranges = std::iter::from_fn(|| {
        loop {
            let begin = at + text.get(at..)?.find("://")? + 3;
            let rest = text.get(begin..)?;
            let authority = rest.get(..rest.find(['/', ' ', '"', '\'', '\t', ',', '>']).unwrap_or(rest.len()))?;
            at = begin;
            if let (Some(end), Some(colon)) = (authority.rfind('@'), authority.find(':'))
                && colon < end
            {
                at = begin + end;
                return Some(begin + colon + 1..at);
            }
        }
    });
    replaced(text, ranges)
}

/// Words of a name behind which a secret stands.
const SECRET_WORDS: [&str; 23] = [
    "pass",
    "passwd",
    "password",
    "passwords",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "secrets",
    "token",
    "tokens",
    "credential",
    "credentials",
    "authorization",
    "auth",
    "dsn",
    "cookie",
    "jwt",
    "bearer",
    "apikey",
    "sessionid",
    "sid",
    "otp",
];
/// Ends of words that are written together.
const SECRET_ENDS: [&str; 7] = ["password", "passwd", "passphrase", "secret", "token", "apikey", "accesskey"];
/// What is in each of these, and in `key`.
const STEMS: [&str; 14] = [
    "pass", "pwd", "secret", "token", "cred", "auth", "dsn", "cookie", "jwt", "bearer", "key", "sid", "session", "otp",
];
/// What makes a `key` a secret one.
const KEY_WORDS: [&str; 10] =
    ["api", "access", "secret", "private", "auth", "encryption", "signing", "shared", "account", "master"];
/// Headers of which all that follows is the value, spaces included (RFC 9110, 11.6; RFC 6265).
const WHOLE_VALUES: [&str; 2] = ["authorization", "cookie"];

/// Whether a name says that its value is a secret, and whether the value goes to the end of the line.
fn is_secret_name(name: &str) -> Option<bool> {
    // Most names are none: without a part of one of these, it needs no words.
    let has_stem =
        |stem: &str| name.as_bytes().windows(stem.len()).any(|part| part.eq_ignore_ascii_case(stem.as_bytes()));
    if !STEMS.iter().any(|stem| has_stem(stem)) {
        return None;
    }
    let mut words: Vec<String> = Vec::new();
    let mut previous_lower = false;
    for c in name.chars() {
        let starts = c.is_ascii_uppercase() && previous_lower;
        previous_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        match words.last_mut() {
            _ if !c.is_alphanumeric() => words.push(String::new()),
            Some(word) if !starts => word.push(c.to_ascii_lowercase()),
            _ => words.push(c.to_ascii_lowercase().into()),
        }
    }
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let ends = words.iter().any(|word| SECRET_ENDS.iter().any(|end| word.ends_with(end)));
    let key = words.last().is_some_and(|word| word == "key") && has(&KEY_WORDS);
    (ends || key || has(&SECRET_WORDS)).then(|| has(&WHOLE_VALUES))
}

/// Longest name that is looked at, bytes.
const MAX_NAME: usize = 64;

/// Names behind which the name of what follows as `value` stands: `{"name":"DB_PASSWORD","value":"x"}`.
const NAMES_OF_NAMES: [&str; 2] = ["name", "key"];

/// Values behind names of secrets: `name=value`, `name: value`, `name => value`, `"name":"value"`, also in JSON inside of JSON,
/// whose quotes are escaped, and in queries whose separators are (RFC 3986, 2.1).
fn named_values<'a>(text: &str) -> Option<Cow<'a, str>> {
    let mut at = 0;
    let mut value_is_secret = None;
    let ranges = std::iter::from_fn(|| {
        loop {
            let separator = next_separator(text, at)?;
            let name = name_before(text.get(at..separator.start)?);
            at = separator.end;
            if NAMES_OF_NAMES.iter().any(|one| one.eq_ignore_ascii_case(name)) {
                value_is_secret = is_secret_name(name_behind(text.get(at..)?));
            }
            let told = if name.eq_ignore_ascii_case("value") { value_is_secret.take() } else { None };
            let Some(whole) = told.or_else(|| is_secret_name(name)) else { continue };
            let value = value_range(text, at, whole)?;
            if !value.is_empty() {
                at = value.end;
                return Some(value);
            }
        }
    });
    replaced(text, ranges)
}

/// Where a name ends and its value may begin: `=`, `:`, `:=`, `=>`, `%3D`, `%253A`.
fn next_separator(text: &str, mut from: usize) -> Option<Range<usize>> {
    loop {
        let begin = from + text.get(from..)?.find(['=', ':', '%'])?;
        let rest = text.get(begin..)?;
        let is = |code: &&&str| rest.get(..code.len()).is_some_and(|start| start.eq_ignore_ascii_case(code));
        let plain = rest.len() - rest.trim_start_matches(['=', ':', '>']).len();
        match ["%3D", "%3A", "%253D", "%253A"].iter().find(is) {
            Some(code) => return Some(begin..begin + code.len()),
            None if plain > 0 => return Some(begin..begin + plain),
            None => from = begin + 1,
        }
    }
}

/// The name at the beginning of a text, without its quotes.
fn name_behind(text: &str) -> &str {
    let text = text.trim_start_matches([' ', '"', '\'', '\\']);
    let end =
        text.bytes().take(MAX_NAME).take_while(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte)).count();
    text.get(..end).unwrap_or_default()
}

/// The name at the end of a text, without its quotes.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '"', '\'', '\\']);
    // A quote in a query.
    let text = text.strip_suffix("%22").unwrap_or(text);
    let start = text.rfind(|c: char| !c.is_ascii_alphanumeric() && !"_-.".contains(c));
    let start = start.and_then(|at| Some(at + text.get(at..)?.chars().next()?.len_utf8())).unwrap_or(0);
    let name = text.get(start..).unwrap_or_default();
    // All of it is ASCII.
    name.get(name.len().saturating_sub(MAX_NAME)..).unwrap_or(name)
}

/// Where the value is that begins behind a separator.
fn value_range(text: &str, at: usize, whole: bool) -> Option<Range<usize>> {
    let behind = text.get(at..)?;
    let begin = at + (behind.len() - behind.trim_start().len());
    let rest = text.get(begin..)?;
    let escapes = rest.len() - rest.trim_start_matches('\\').len();
    let quoted = rest.get(escapes..)?;
    if let Some(quote) = quoted.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) {
        let begin = begin + escapes + 1;
        return Some(begin..quote_end(text, begin, quote, escapes));
    }
    if let Some(open) = rest.chars().next().filter(|c| matches!(c, '{' | '[')) {
        let close = if open == '{' { '}' } else { ']' };
        // The last one: the value may hold some itself.
        return Some(begin..rest.rfind(close).map_or(text.len(), |end| begin + end + 1));
    }
    if whole {
        return Some(begin..header_end(text, begin));
    }
    let stops = [' ', '\t', ',', ';', '&', '"', '\'', '\\', ')', ']', '}', '<', '>', '|'];
    let end = rest.find(stops).unwrap_or(rest.len());
    let value = rest.get(..end)?;
    Some(begin..begin + value.find("%26").unwrap_or(end))
}

/// Where a header ends: with what it stands in, or with the text. Quotes of its own stand behind a `=` (RFC 9110, 11.2).
fn header_end(text: &str, begin: usize) -> usize {
    let mut at = begin;
    loop {
        let Some(rest) = text.get(at..) else { return text.len() };
        let Some(stop) = rest.find(['"', '\'', '\\']) else { return text.len() };
        let quoted = rest.get(stop..).unwrap_or_default();
        let escapes = quoted.len() - quoted.trim_start_matches('\\').len();
        let quote = quoted.get(escapes..).and_then(|quoted| quoted.chars().next());
        match quote.filter(|quote| matches!(quote, '"' | '\'')) {
            Some(quote) if rest.get(..stop).is_some_and(|before| before.ends_with('=')) => {
                let end = quote_end(text, at + stop + escapes + 1, quote, escapes);
                at = (end + escapes + 1).min(text.len());
            }
            _ => return at + stop,
        }
    }
}

/// Where a quoted value ends: before the next quote with as many backslashes before it as the first one had. A quote with
/// more stands inside the value, one with fewer ends what the value stands in.
fn quote_end(text: &str, begin: usize, quote: char, escapes: usize) -> usize {
    let Some(rest) = text.get(begin..) else { return text.len() };
    for (at, _) in rest.match_indices(quote) {
        let before = rest.get(..at).unwrap_or_default();
        let slashes = before.len() - before.trim_end_matches('\\').len();
        // In plain quotes an even number of backslashes escape each other.
        let ends = if escapes == 0 { slashes.is_multiple_of(2) } else { slashes <= escapes };
        if ends {
            return begin + at - slashes.min(escapes);
        }
    }
    text.len()
}

/// The content of XML elements that are named as secrets are.
fn elements<'a>(text: &str) -> Option<Cow<'a, str>> {
    const CDATA: &str = "<![CDATA[";
    let mut at = 0;
    let ranges = std::iter::from_fn(|| {
        loop {
            at += text.get(at..)?.find('<')? + 1;
            let tag = text.get(at..)?;
            let Some(end) = tag.find(['<', '>']).filter(|end| tag.get(*end..).is_some_and(|tag| tag.starts_with('>')))
            else {
                continue;
            };
            let name = tag.get(..end)?.split([' ', '/']).next()?;
            let name = name.rsplit(':').next()?;
            let closes_itself = tag.get(..end)?.ends_with('/');
            at += end + 1;
            if closes_itself || is_secret_name(name).is_none() {
                continue;
            }
            let content = text.get(at..)?;
            let value = match content.strip_prefix(CDATA) {
                Some(data) => at + CDATA.len()..data.find("]]>").map_or(text.len(), |end| at + CDATA.len() + end),
                None => match content.find('<') {
                    Some(end) => at..at + end,
                    // The name of a thing in a sentence (`unexpected <token> here`), or an element over several lines.
                    None if content.starts_with([' ', '\t']) => return None,
                    None => at..text.len(),
                },
            };
            if !value.is_empty() {
                at = value.end;
                return Some(value);
            }
        }
    });
    replaced(text, ranges)
}

/// What stands around words and arguments.
const AROUND: [char; 8] = [' ', '\t', '"', '\'', '`', ',', '\\', '('];
/// Options of curl with `user:password`.
const CURL_USERS: [&str; 4] = ["-u", "-U", "--user", "--proxy-user"];

/// Values behind words: options of command lines, statements of SQL, sentences.
fn spoken_values<'a>(text: &str) -> Option<Cow<'a, str>> {
    let (mut at, mut mysql, mut curl, mut identified) = (0, false, false, false);
    let ranges = std::iter::from_fn(|| {
        loop {
            let begin = at + text.get(at..)?.find(|c| !AROUND.contains(&c))?;
            let rest = text.get(begin..)?;
            let word = rest.get(..rest.find(AROUND).unwrap_or(rest.len()))?;
            at = begin + word.len();
            mysql |= word.contains("mysql") || word.contains("mariadb");
            curl |= word == "curl" || word.ends_with("/curl");
            identified |= word.eq_ignore_ascii_case("identified");
            let value = match word.strip_prefix('-') {
                Some(option) if curl && is_curl_user(word) => password_of(text, curl_value(text, begin, option)?),
                Some(option) if option.len() > 1 && is_secret_name(option).is_some() => argument(text, at),
                Some(option) if mysql && option.starts_with('p') => mysql_password(text, begin),
                Some(_) => None,
                None if identified && (word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("as")) => {
                    let shouted = word.starts_with(|c: char| c.is_ascii_uppercase());
                    said(text, at, shouted)
                }
                None if is_secret_name(word).is_some() => sentence(text, at, word),
                None => None,
            };
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                at = value.end;
                return Some(value);
            }
        }
    });
    replaced(text, ranges)
}

fn is_curl_user(word: &str) -> bool {
    CURL_USERS.iter().any(|option| {
        word.strip_prefix(option)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('=') || !option.starts_with("--"))
    })
}

/// The value of an option of curl: behind it, or in its word.
fn curl_value(text: &str, begin: usize, option: &str) -> Option<Range<usize>> {
    let end = begin + 1 + option.len();
    let name = if option.starts_with('-') { option.find('=').map_or(option.len(), |at| at + 1) } else { 1 };
    let start = begin + 1 + name;
    if start < end {
        return Some(start..end);
    }
    // In quotes next to the option, or an argument of its own.
    Some(argument(text, end).unwrap_or(end..end))
}

/// What stands behind the colon in a range.
fn password_of(text: &str, pair: Range<usize>) -> Option<Range<usize>> {
    let colon = text.get(pair.clone())?.find(':')?;
    Some(pair.start + colon + 1..pair.end)
}

/// `-pPASSWORD` of MySQL's clients, which may be quoted; alone it asks for one.
fn mysql_password(text: &str, begin: usize) -> Option<Range<usize>> {
    let start = begin + 2;
    let before = text.get(..begin)?.chars().next_back();
    match text.get(start..)?.chars().next()? {
        quote @ ('"' | '\'') if before != Some(quote) => Some(start + 1..quote_end(text, start + 1, quote, 0)),
        _ => {
            let rest = text.get(start..)?;
            Some(start..start + rest.find([' ', '\t', '"', '\'', '\\']).unwrap_or(rest.len()))
        }
    }
}

/// The next argument, in a command line or in a list of arguments; none if it is an option.
fn argument(text: &str, at: usize) -> Option<Range<usize>> {
    let behind = text.get(at..)?;
    let value = behind.trim_start_matches(AROUND);
    if value.starts_with('-') {
        return None;
    }
    let around = behind.get(..behind.len() - value.len())?;
    // The quote that opens it, with its backslashes.
    let bare = around.trim_end_matches(['"', '\'', '`']);
    let opened = match around.len() - bare.len() {
        0 => around,
        _ => around.get(..around.len() - 1)?.trim_end_matches('\\'),
    };
    value_range(text, at + opened.len(), false)
}

/// A quoted value, or, if `bare`, any. A quote that ends what the text stands in opens none.
fn said(text: &str, at: usize, bare: bool) -> Option<Range<usize>> {
    let rest = text.get(at..)?.trim_start_matches([' ', '\t', '(']);
    let start = text.len() - rest.len();
    let mut quoted = rest.trim_start_matches('\\').chars();
    let opens = quoted.next().is_some_and(|c| matches!(c, '"' | '\'' | '`'));
    let empty = quoted.next().is_none_or(|c| ",:;)]} ".contains(c));
    if start == at || (opens && empty) || !(opens || bare) {
        return None;
    }
    value_range(text, start, false)
}

/// What a sentence says of a secret: `password is "x"`, `PASSWORD 'x'`. Bare words of prose (`token is expired`) are none.
fn sentence(text: &str, at: usize, word: &str) -> Option<Range<usize>> {
    let rest = text.get(at..)?.trim_start_matches([' ', '\t']);
    let verb = rest.split([' ', '\t']).next()?;
    let behind = text.len() - rest.len() + verb.len();
    match verb.to_ascii_lowercase().as_str() {
        "is" | "was" => {
            let value = said(text, behind, true)?;
            let quoted = text.get(..value.start)?.ends_with(['"', '\'', '`']);
            let is_prose = text.get(value.clone())?.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '!');
            (quoted || !is_prose).then_some(value)
        }
        "to" => said(text, behind, false),
        _ if ends_with_password(word) => said(text, at, false),
        _ => None,
    }
}

/// In SQL, the value follows the word; other words are quoted for other reasons (`unexpected token '<'`).
fn ends_with_password(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.ends_with("password") || word.ends_with("passwd") || word.ends_with("passphrase")
}

/// How tokens of some issuers begin, and how long they are at least.
const ISSUED: [(&str, usize); 16] = [
    ("AKIA", 20),
    ("ASIA", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("ghu_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xoxa-", 16),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("AIza", 30),
    ("eyJ", 20),
];
/// The least of these lengths.
const SHORTEST_ISSUED: usize = 16;
/// Schemes of credentials (RFC 6750, RFC 7617): the word behind them is one.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// Tokens that tell by themselves what they are.
fn tokens<'a>(text: &str) -> Option<Cow<'a, str>> {
    let part = |c: char| c.is_ascii_alphanumeric() || "-_.+/=~".contains(c);
    let (mut at, mut scheme) = (0, false);
    let ranges = std::iter::from_fn(|| {
        loop {
            let begin = at + text.get(at..)?.find(part)?;
            let word = text.get(begin..)?;
            let word = word.get(..word.find(|c| !part(c)).unwrap_or(word.len()))?;
            at = begin + word.len();
            let credential = std::mem::replace(&mut scheme, SCHEMES.iter().any(|name| name.eq_ignore_ascii_case(word)));
            if word.len() < SHORTEST_ISSUED && !credential {
                continue;
            }
            // A word of prose (`basic authentication`) is no credential.
            if credential && word.len() >= 8 && word.contains(|c: char| !c.is_ascii_lowercase()) {
                return Some(begin..at);
            }
            // What stands before an `=` or a `/` is a name or a folder.
            let mut own = begin;
            for piece in word.split_inclusive(['=', '/', '.']) {
                if let Some((_, least)) = ISSUED.iter().find(|(start, _)| piece.starts_with(start))
                    && text.get(own..at).is_some_and(|rest| rest.len() >= *least)
                {
                    return Some(own..at);
                }
                own += piece.len();
            }
        }
    });
    replaced(text, ranges)
}

/// Digits of a payment card at most.
const MAX_CARD_DIGITS: usize = 19;

/// Digits of a payment card (ISO/IEC 7812-1): 13 to 19, beginning with 2 to 6, with a right check digit; in groups or not.
fn cards<'a>(text: &str) -> Option<Cow<'a, str>> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = 0;
    let ranges = std::iter::from_fn(|| {
        loop {
            let begin = at + bytes.get(at..)?.iter().position(u8::is_ascii_digit)?;
            let (mut digits, mut length, mut end) = ([0; MAX_CARD_DIGITS + 1], 0, begin);
            while let (Some(byte), Some(digit)) = (bytes.get(end), digits.get_mut(length)) {
                match byte {
                    b'0'..=b'9' => (*digit, length) = (byte - b'0', length + 1),
                    b' ' | b'-' if is_digit(end + 1) && end > begin && is_digit(end - 1) => {}
                    _ => break,
                }
                end += 1;
            }
            at = end;
            let digits = digits.get(..length).unwrap_or_default();
            let alone =
                !begin.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(u8::is_ascii_alphanumeric)
                    && !bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
            if alone
                && (13..=MAX_CARD_DIGITS).contains(&length)
                && matches!(digits.first(), Some(2..=6))
                && is_luhn(digits)
            {
                return Some(begin..end);
            }
        }
    });
    replaced(text, ranges)
}

/// The check digit is right (ISO/IEC 7812-1, annex B).
fn is_luhn(digits: &[u8]) -> bool {
    let weighed = digits.iter().rev().enumerate().map(|(place, digit)| {
        let value = u32::from(*digit) << (place % 2);
        if value > 9 { value - 9 } else { value }
    });
    weighed.sum::<u32>().is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(line: &str) -> String {
        mask_arguments(&line.split(' ').map(String::from).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn secrets_on_command_lines_are_masked() {
        assert_eq!(mask("app --db-password=hunter2 --port 80"), "app --db-password=? --port 80");
        assert_eq!(mask("app --token abc --verbose"), "app --token ? --verbose");
        assert_eq!(mask("app postgres://u:p4ss@db/x?y=1"), "app postgres://u:?@db/x?y=1");
        assert_eq!(mask("mysql -uroot -psecret"), "mysql -uroot -p?");
        assert_eq!(mask("nginx -c /etc/nginx.conf"), "nginx -c /etc/nginx.conf");
        assert_eq!(mask("API_KEY=zzz run"), "API_KEY=? run");
    }

    fn masked(line: &str) -> String {
        Masker::default().mask(line)
    }

    #[test]
    fn secrets_in_lines_are_masked() {
        for (line, expected) in [
            ("login user=bob password=hunter2 ok", "login user=bob password=? ok"),
            ("db.password: 'two words' x", "db.password: '?' x"),
            (r#"{"user":"bob","apiKey":"a\"b","n":1}"#, r#"{"user":"bob","apiKey":"?","n":1}"#),
            (r#"{"msg":"{\"client_secret\":\"x y\",\"a\":1}"}"#, r#"{"msg":"{\"client_secret\":\"?\",\"a\":1}"}"#),
            (r#"{"credentials":{"user":"a","p":["b"]},"n":1}"#, r#"{"credentials":?"#),
            ("GET /x?token=abc&page=2 HTTP/1.1", "GET /x?token=?&page=2 HTTP/1.1"),
            ("-H 'Authorization: Bearer abc.def' -v", "-H 'Authorization: ?' -v"),
            ("Cookie: a=b; c=d", "Cookie: ?"),
            ("sent Bearer abcDEF123456 to x", "sent Bearer ? to x"),
            ("basic authentication failed", "basic authentication failed"),
            ("postgres://u:p4ss@db/x and amqp://a:b@c", "postgres://u:?@db/x and amqp://a:?@c"),
            ("key AKIAIOSFODNN7EXAMPLE used", "key ? used"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl.", "jwt ?"),
            ("card 4111 1111 1111 1111 declined", "card ? declined"),
            ("card 4111-1111-1111-1112 declined", "card 4111-1111-1111-1112 declined"),
            ("at 1795344399187429103 ns", "at 1795344399187429103 ns"),
            ("passed=12 failed=3 keyspace=shop author: Bob", "passed=12 failed=3 keyspace=shop author: Bob"),
            ("DB_PASSWORD=x AWS_SECRET_ACCESS_KEY=y", "DB_PASSWORD=? AWS_SECRET_ACCESS_KEY=?"),
            ("a -----BEGIN RSA PRIVATE KEY----- x -----END RSA PRIVATE KEY----- b", "a ? b"),
            ("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"),
            ("password=", "password="),
            ("", ""),
            ("run --password hunter2 --token 'a b' -v", "run --password ? --token '?' -v"),
            (r#"exec ["app","--api-token","x1","-v"]"#, r#"exec ["app","--api-token","?","-v"]"#),
            ("app --password --verbose", "app --password --verbose"),
            ("app -token x1 -port 80", "app -token ? -port 80"),
            ("sh -c mysqldump -u root -phunter2 db", "sh -c mysqldump -u root -p? db"),
            ("mysql -p'two words' db", "mysql -p'?' db"),
            ("mkdir -pv /data", "mkdir -pv /data"),
            ("curl -s -u admin:hunter2 http://x", "curl -s -u admin:? http://x"),
            ("curl -u 'admin:two words' -uu:p --user=a:b", "curl -u 'admin:?' -uu:? --user=a:?"),
            ("docker run -u 1000:1000 x", "docker run -u 1000:1000 x"),
            ("<user>bob</user><password>hun ter</password>", "<user>bob</user><password>?</password>"),
            ("<x:Password t=\"1\"><![CDATA[a<b]]></x:Password>", "<x:Password t=\"1\"><![CDATA[?]]></x:Password>"),
            ("unexpected <token> here", "unexpected <token> here"),
            ("'password' => \"hunter2\", 'n' => 1", "'password' => \"?\", 'n' => 1"),
            ("password:= hunter2 x", "password:= ? x"),
            ("q=password%3Dhunter2%26page%3d2", "q=password%3D?%26page%3d2"),
            ("%22token%22%3A%22x1%22 y", "%22token%22%3A? y"),
            ("CREATE USER 'a' IDENTIFIED BY 'x y'; z", "CREATE USER 'a' IDENTIFIED BY '?'; z"),
            ("alter user a identified by \"x\"", "alter user a identified by \"?\""),
            ("ALTER USER a IDENTIFIED BY x1;", "ALTER USER a IDENTIFIED BY ?;"),
            ("pod identified by name", "pod identified by name"),
            ("ALTER ROLE a WITH PASSWORD 'x'", "ALTER ROLE a WITH PASSWORD '?'"),
            ("the password is \"hunter2\" now", "the password is \"?\" now"),
            ("password is hunter2", "password is ?"),
            ("token is expired", "token is expired"),
            (r#"{"msg":"wrong password ","level":"error"}"#, r#"{"msg":"wrong password ","level":"error"}"#),
            (r#"[{"name":"DB_PASSWORD","value":"x"}]"#, r#"[{"name":"DB_PASSWORD","value":"?"}]"#),
            (r#"{"name":"SHOP","value":"x"}"#, r#"{"name":"SHOP","value":"x"}"#),
            ("name=DB_PASSWORD value=x name=A value=y", "name=DB_PASSWORD value=? name=A value=y"),
            (r#"Proxy-Authorization: Digest username="u", response="X""#, "Proxy-Authorization: ?"),
            (
                r#"{"m":"Authorization: Digest username=\"u\", response=\"X\"","n":1}"#,
                r#"{"m":"Authorization: ?","n":1}"#,
            ),
        ] {
            assert_eq!(masked(line), expected, "{line}");
        }
    }

    #[test]
    fn every_name_of_a_secret_has_a_stem() {
        for word in SECRET_WORDS.iter().chain(&SECRET_ENDS) {
            assert!(STEMS.iter().any(|stem| word.contains(stem)), "{word}");
            assert!(is_secret_name(&word.to_uppercase()).is_some() && is_secret_name(&format!("my_{word}")).is_some());
        }
    }

    #[test]
    fn a_private_key_is_masked_over_its_lines() {
        let mut masker = Masker::default();
        let lines =
            ["k: -----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBg", "x==", "-----END PRIVATE KEY----- done", "next"];
        assert_eq!(lines.map(|line| masker.mask(line)), ["k: ?", "?", "?", "? done", "next"]);
        masker.mask("-----BEGIN OPENSSH PRIVATE KEY-----");
        for _ in 0..MAX_KEY_LINES {
            assert_eq!(masker.mask("b3BlbnNzaC1rZXktdjEA"), "?");
        }
        assert_eq!(masker.mask("a key without an end hides no log"), "a key without an end hides no log");
    }

    #[test]
    fn long_lines_take_time_in_proportion() {
        // A line of 1 MiB of each would take minutes if each place were looked at from each other.
        for part in [
            "name=[",
            "<password",
            "<password> ",
            "curl -u [ ",
            "--token -",
            "password is ",
            "by ' ",
            "password%",
            "token= ",
            "Cookie: a=\"",
            "mysql -p\"-p\" ",
            "identified BY \" ",
        ] {
            let began = std::time::Instant::now();
            masked(&part.repeat((1 << 20) / part.len()));
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "{part}");
        }
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_line_is_masked_without_getting_longer(line in "([a-z]{1,6}|[=: \"'\\\\{}@/.-]|://|password|--token |curl -u |mysql -p|<secret>|%3D| is |name=|value=|by |Cookie: |-----BEGIN |PRIVATE KEY|[0-9]{1,20}|ä|\u{1b}){0,40}") {
            prop_assert!(masked(&line).len() <= line.len() + 1);
        }

        #[test]
        fn what_a_name_calls_a_secret_is_gone(value in "[a-zA-Z0-9#%!]{6,20}", pre in "[ -~]{0,10}") {
            for line in [
                format!("{pre} password={value} x"),
                format!("{{\"api_key\": \"{value}\", \"x\": 1}}"),
                format!("{{\"m\":\"{{\\\"token\\\":\\\"{value}\\\"}}\"}}"),
                format!("x://user:{value}@host/"),
                format!("app --password {value} x"),
                format!("mysql -p{value}"),
                format!("mysql -p'{value}' x"),
                format!("curl -u admin:{value} x"),
                format!("{pre} <password>{value}</password>"),
                format!("{pre} password => \"{value}\""),
                format!("{pre} password:= {value}"),
                format!("password%3D{value}"),
                format!("IDENTIFIED BY '{value}'"),
                format!("password is \"{value}\""),
                format!("{{\"name\":\"DB_PASSWORD\",\"value\":\"{value}\"}}"),
                format!("name=DB_PASSWORD value={value}"),
                format!("Proxy-Authorization: Digest username=\"u\", response=\"{value}\""),
            ] {
                prop_assert!(!masked(&line).contains(&value), "{line} -> {}", masked(&line));
            }
        }
    }
}
