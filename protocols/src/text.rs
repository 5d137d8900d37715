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

/// What ends a quotation that begins with `open`, as servers quote in several languages; `None` if it begins none.
fn closing(open: char) -> Option<&'static [char]> {
    Some(match open {
        '\'' => &['\''],
        '"' => &['"'],
        '“' => &['”', '“'],
        '„' => &['“', '”'],
        '«' => &['»'],
        '»' => &['«'],
        '‘' => &['’'],
        '‚' => &['‘', '’'],
        '‹' => &['›'],
        _ => return None,
    })
}

/// `text` with what stands in quotes replaced by `?`. An apostrophe inside a word opens no quote. Where double quotes don't
/// pair up, one stands inside a value: then everything from the first quotation on is one value.
pub(crate) fn mask_quoted(text: &str) -> Box<str> {
    let mut masked = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut previous = ' ';
    // Where the first quotation's content begins.
    let mut first = None;
    while let Some(c) = chars.next() {
        let close = closing(c).filter(|_| !previous.is_alphanumeric());
        if let (None, '"', Some(content)) = (close, c, first) {
            masked.truncate(content);
            masked.push('?');
            break;
        }
        masked.push(c);
        let Some(close) = close else {
            previous = c;
            continue;
        };
        first.get_or_insert(masked.len());
        masked.push('?');
        previous = c;
        while let Some(inner) = chars.next() {
            if close.contains(&inner) && !chars.peek().is_some_and(|next| next.is_alphanumeric()) {
                masked.push(inner);
                previous = inner;
                break;
            }
        }
    }
    masked.into()
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
        assert_eq!(&*mask_quoted("Duplicate entry 'it's' for key 'k'"), "Duplicate entry '?' for key '?'");
        assert_eq!(&*mask_quoted("open 'end"), "open '?");
        assert_eq!(&*mask_quoted("relation „kunden“ fehlt, «x y» too"), "relation „?“ fehlt, «?» too");
    }

    #[test]
    fn a_quote_inside_a_value_shows_nothing_of_it() {
        assert_eq!(&*mask_quoted(r#"bad "a" SECRET" here"#), r#"bad "?"#);
        assert_eq!(&*mask_quoted(r#"integer: "a"b SECRET" d""#), r#"integer: "?"#);
        assert_eq!(&*mask_quoted(r#"column "a" of relation "b" is 12" wide"#), r#"column "?"#);
        assert_eq!(&*mask_quoted(r#"a 12" screen"#), r#"a 12" screen"#);
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
