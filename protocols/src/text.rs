//! Text for people from bytes of strangers: bounded, valid UTF-8, values masked.

/// Bytes of a target or message that are kept.
pub(crate) const MAX_TEXT_BYTES: usize = 4096;

/// `bytes` as text, at most `max` bytes of it; `…` stands for what was cut.
pub(crate) fn bounded(bytes: &[u8], max: usize, cut: bool) -> Box<str> {
    let kept = bytes.get(..max).unwrap_or(bytes);
    let cut = cut || kept.len() < bytes.len();
    match std::str::from_utf8(kept) {
        Ok(text) if !cut => text.into(),
        Ok(text) => format!("{text}…").into(),
        // A character cut in half by the bound is no reason for a replacement character.
        Err(error) if cut && error.error_len().is_none() => {
            let whole = kept.get(..error.valid_up_to()).unwrap_or_default();
            format!("{}…", String::from_utf8_lossy(whole)).into()
        }
        Err(_) if cut => format!("{}…", String::from_utf8_lossy(kept)).into(),
        Err(_) => String::from_utf8_lossy(kept).into(),
    }
}

/// What quotes are written with that are the same at both ends of a quotation.
const SAME_QUOTES: [char; 3] = ['\'', '"', '`'];

/// What quotes are written with in several languages, where the ends of a quotation differ.
const PAIRED_QUOTES: [char; 10] = ['“', '”', '„', '«', '»', '‘', '’', '‚', '‹', '›'];

/// What stands behind the apostrophe of a short form: doesn't, it's, can't've.
const SHORT_FORMS: [&str; 7] = ["t", "s", "d", "m", "ll", "re", "ve"];

/// Whether the quote between these is the apostrophe of a word.
fn is_apostrophe(before: &str, behind: &str) -> bool {
    let word = behind.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    before.ends_with(char::is_alphabetic) && SHORT_FORMS.contains(&word)
}

/// `text` with all from its first quote to its last one replaced by one `?`: a value may hold quotes itself, so nothing
/// between them is certain to stand outside of one. Where they don't pair up, or the text is cut, the last may be missing:
/// then all from the first one on is masked. Apostrophes of words are no quotes.
pub(crate) fn mask_quoted(text: &str) -> Box<str> {
    let (mut first, mut last) = (None, 0);
    let mut odd = [false; SAME_QUOTES.len() + 1];
    for (at, c) in text.char_indices() {
        let kind = SAME_QUOTES.iter().position(|quote| *quote == c);
        let kind = kind.or_else(|| PAIRED_QUOTES.contains(&c).then_some(SAME_QUOTES.len()));
        let Some(odd) = kind.and_then(|kind| odd.get_mut(kind)) else { continue };
        let (before, behind) = (text.get(..at).unwrap_or_default(), text.get(at + c.len_utf8()..).unwrap_or_default());
        if matches!(c, '\'' | '’') && is_apostrophe(before, behind) {
            continue;
        }
        *odd = !*odd;
        first.get_or_insert(at + c.len_utf8());
        last = at;
    }
    let Some(first) = first else { return text.into() };
    let whole = !odd.contains(&true) && !text.ends_with('…');
    let tail = if whole { text.get(last..).unwrap_or_default() } else { "" };
    format!("{}?{tail}", text.get(..first).unwrap_or_default()).into()
}

/// `text` with its numbers replaced by `?`. Digits inside a name (`E11000`, `_id_1`) are part of it.
pub(crate) fn mask_numbers(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let (mut number, mut previous) = (false, ' ');
    for c in text.chars() {
        let goes_on = number;
        number = c.is_ascii_digit() && (goes_on || !previous.is_alphanumeric() && previous != '_');
        match (number, goes_on) {
            (true, true) => {}
            (true, false) => masked.push('?'),
            (false, _) => masked.push(c),
        }
        previous = c;
    }
    masked
}

/// The number that decimal digits make; `None` for anything else, and where it is too large.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    let digit = |b: &u8| b.is_ascii_digit().then(|| u64::from(b - b'0'));
    let (first, rest) = digits.split_first()?;
    rest.iter().try_fold(digit(first)?, |number, b| number.checked_mul(10)?.checked_add(digit(b)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_are_masked_and_apostrophes_are_not() {
        assert_eq!(&*mask_quoted("Table 'a.b' doesn't exist"), "Table '?' doesn't exist");
        assert_eq!(&*mask_quoted("the server can't do it, don't ask"), "the server can't do it, don't ask");
        assert_eq!(&*mask_quoted("open 'end"), "open '?");
        assert_eq!(&*mask_quoted("relation „kunden“ fehlt"), "relation „?“ fehlt");
        assert_eq!(&*mask_quoted("relation «x y» manque"), "relation «?» manque");
        assert_eq!(&*mask_quoted("unknown command `A`, with args: `B`, `C`, "), "unknown command `?`, ");
        assert_eq!(&*mask_quoted("value x'SECRET' is bad"), "value x'?' is bad");
    }

    #[test]
    fn a_quote_inside_a_value_shows_nothing_of_it() {
        assert_eq!(&*mask_quoted(r#"bad "a" SECRET" here"#), r#"bad "?"#);
        assert_eq!(&*mask_quoted(r#"integer: "a"b SECRET" d""#), r#"integer: "?""#);
        assert_eq!(&*mask_quoted(r#"column "a" of relation "b" is 12" wide"#), r#"column "?"#);
        for value in
            ["it's SECRET", "it' SECRET", "a' SECRET 'b", "12' SECRET", "a` SECRET", "\" SECRET \"", "' SECRET '"]
        {
            let masked = mask_quoted(&format!("wrong value: '{value}' for column 'a' at row"));
            assert!(masked.starts_with("wrong value: '?") && !masked.contains("SECRET"), "{masked}");
            let masked = mask_quoted(&format!("wrong value: '{value}…"));
            assert!(masked.starts_with("wrong value: '?") && !masked.contains("SECRET"), "{masked}");
        }
    }

    #[test]
    fn numbers_are_masked_and_names_are_not() {
        assert_eq!(mask_numbers("E11000 at 12:5, _id_1 is 17a"), "E11000 at ?:?, _id_1 is ?a");
        assert_eq!(mask_numbers(""), "");
    }

    #[test]
    fn digits_make_a_number() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"0007"), Some(7));
        for bad in [&b""[..], b"18446744073709551616", b"1 ", b"-1", b"1e3"] {
            assert_eq!(number(bad), None);
        }
    }

    #[test]
    fn bounded_text_stays_valid() {
        assert_eq!(&*bounded("aé".as_bytes(), 2, false), "a…");
        assert_eq!(&*bounded(b"a\xff", 9, false), "a\u{fffd}");
        assert_eq!(&*bounded(b"abc", 9, true), "abc…");
    }
}
