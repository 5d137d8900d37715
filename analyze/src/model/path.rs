//! Which parts of a path name a thing, and which name a kind of things.

/// Longest run of digits that a word may end in (`utf8`, `oauth2`, `sha256`, `web3`).
const WORD_DIGITS: usize = 3;
/// From this length on, letters and digits that look random are a token.
const TOKEN_BYTES: usize = 16;

/// What stands for a segment of a path in an endpoint's name; `None` where the segment is a word and stays:
/// `{n}` for numbers, `{email}`, `{token}` for JSON web tokens and long random strings, `{id}` for identifiers.
pub fn template_segment(segment: &str) -> Option<&'static str> {
    if segment.is_empty() {
        return None;
    }
    if segment.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("{n}");
    }
    if is_address(segment) {
        return Some("{email}");
    }
    if is_web_token(segment) {
        return Some("{token}");
    }
    if is_hexadecimal_id(segment) {
        return Some("{id}");
    }
    if is_random(segment) {
        return Some("{token}");
    }
    is_mixed_id(segment).then_some("{id}")
}

/// A path whose segments that are somebody's address or a credential are masked; `None` where it holds none. Its query
/// is masked by the decoder already.
pub fn mask_path(path: &str) -> Option<String> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, rest) = path.split_at(end);
    let private = |segment: &str| template_segment(segment).filter(|kind| matches!(*kind, "{email}" | "{token}"));
    path.split('/').any(|segment| private(segment).is_some()).then(|| {
        let segments: Vec<&str> =
            path.split('/').map(|segment| if private(segment).is_some() { "?" } else { segment }).collect();
        segments.join("/") + rest
    })
}

/// An e-mail address or a user's handle with one: `@` after something, also percent-encoded. `@scope` of a package
/// registry begins with it and stays.
fn is_address(segment: &str) -> bool {
    let at = segment.bytes().position(|byte| byte == b'@' || byte == b'%');
    let at = at.and_then(|from| segment.find('@').or_else(|| Some(from + segment.get(from..)?.find("%40")?)));
    at.is_some_and(|at| at > 0)
}

/// A JSON web token (RFC 7519): three parts of base64url, the first of which is a JSON object and so begins with `ey`.
fn is_web_token(segment: &str) -> bool {
    let mut parts = segment.split('.');
    let part = |part: Option<&str>| part.is_some_and(|part| part.len() >= 4 && part.bytes().all(is_base64));
    segment.starts_with("ey")
        && part(parts.next())
        && part(parts.next())
        && parts.next().is_some_and(|signature| signature.bytes().all(is_base64))
        && parts.next().is_none()
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'=' | b'~')
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn is_hexadecimal_id(segment: &str) -> bool {
    segment.len() >= 16
        && digits(segment) >= 4
        && segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-' || byte == b'_')
}

/// Long, of small and capital letters, which with digits take turns too often for words: `dGhpcyBpcyBhIHRva2Vu`.
fn is_random(segment: &str) -> bool {
    let both_cases = segment.bytes().any(|b| b.is_ascii_lowercase()) && segment.bytes().any(|b| b.is_ascii_uppercase());
    if segment.len() < TOKEN_BYTES || !both_cases || !segment.bytes().all(is_base64) {
        return false;
    }
    let class = |byte: u8| match byte {
        b'0'..=b'9' => 1,
        b'A'..=b'Z' => 2,
        b'a'..=b'z' => 3,
        _ => 0,
    };
    let bytes = segment.as_bytes();
    // camelCase changes from small to capital and back once a word, of four letters and more.
    let changes =
        bytes.windows(2).filter(|pair| matches!(pair, [a, b] if class(*a) != class(*b) && class(*a) * class(*b) > 0));
    changes.count() * 3 >= segment.len()
}

/// Letters and digits of an identifier: `ORD-00017`, `a1b2c3`, `sku_9912`, `cus4711x`. Words that hold digits stay:
/// versions (`v1`, `v2beta1`), names that end in a few digits (`utf8`, `oauth2`, `base64`), file names (`index2.html`).
fn is_mixed_id(segment: &str) -> bool {
    let count = digits(segment);
    let letters = segment.bytes().filter(u8::is_ascii_alphabetic).count();
    if count == 0
        || letters == 0
        || segment.contains('.')
        || !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return false;
    }
    if is_version(segment) {
        return false;
    }
    segment.split(['-', '_']).any(|part| {
        let of_part = digits(part);
        if of_part == 0 || is_year(part) {
            return false;
        }
        let bytes = part.as_bytes();
        let runs = bytes.windows(2).filter(|pair| matches!(pair, [a, b] if !a.is_ascii_digit() && b.is_ascii_digit()));
        let runs = runs.count() + usize::from(part.starts_with(|first: char| first.is_ascii_digit()));
        // A number of its own (`ORD-17`), a long one (`user10293`), or digits all over (`a1b2c3`), not once (`i18n`).
        (of_part == part.len() && segment.len() > part.len())
            || of_part > WORD_DIGITS
            || runs > 2
            || (runs > 1 && of_part > 2)
    })
}

/// `2026` of a `report-2026` is a word that people read; there are few of them.
fn is_year(part: &str) -> bool {
    part.len() == 4 && digits(part) == 4 && (part.starts_with("19") || part.starts_with("20"))
}

/// `v1`, `V2`, `v1beta1`, `v2alpha`, `v1-2`.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix(['v', 'V']) else { return false };
    rest.len() <= 12 && rest.starts_with(|first: char| first.is_ascii_digit()) && digits(rest) <= 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay() {
        for word in [
            "",
            "v1",
            "v2",
            "V3",
            "v1beta1",
            "v2-1",
            "utf8",
            "oauth2",
            "index2.html",
            "base64",
            "sha256",
            "web3",
            "s3",
            "ipv4",
            "mp3",
            "log4j",
            "products",
            "recommendations",
            "order-items",
            "get_user_by_name",
            "getUserByName",
            "ListManagedServiceAccounts",
            "@angular",
            "site.css",
            "app.3f2a.js",
            "jquery-ui.min.js",
            "k8s",
            "i18n",
            "2fa",
            "level-up",
            "report-2026",
            "%E2%82%AC",
            "kubernetes-dashboard-metrics-scraper",
            "INTERNATIONALIZATION",
            "h2c",
            "b2b",
            "x509",
        ] {
            assert_eq!(template_segment(word), None, "{word}");
        }
    }

    #[test]
    fn addresses_and_tokens_are_masked_in_full_paths() {
        let masked = |path| mask_path(path).unwrap_or_else(|| "same".to_string());
        assert_eq!(masked("/users/alice@corp.com/orders/ORD-00017?page=?"), "/users/?/orders/ORD-00017?page=?");
        assert_eq!(masked("/s/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"), "/s/?");
        assert_eq!(masked("/products/17?q=?"), "same");
    }

    #[test]
    fn what_varies_is_replaced() {
        for (segment, template) in [
            ("17", "{n}"),
            ("alice@corp.com", "{email}"),
            ("alice%40corp.com", "{email}"),
            ("ORD-00017", "{id}"),
            ("ORD-7", "{id}"),
            ("order_99812", "{id}"),
            ("a1b2c3", "{id}"),
            ("user10293", "{id}"),
            ("0b9c0a4e-6f2e-4c1d-9c59-1f2e3d4c5b6a", "{id}"),
            ("507f1f77bcf86cd799439011", "{id}"),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "{id}"),
            ("dGhpcyBpcyBhIHRva2VuIQ", "{token}"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "{token}"),
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.", "{token}"),
        ] {
            assert_eq!(template_segment(segment), Some(template), "{segment}");
        }
    }
}
