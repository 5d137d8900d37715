//! `report.html`: one file that needs nothing else and does nothing else.

use super::{Document, ReportError, cleaned, figure, view::Page};
use askama::Template;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const SCRIPT: &str = include_str!("../../../report-templates/report.js");

static STYLE: LazyLock<String> =
    LazyLock::new(|| format!("{}\n{}", figure::STYLE, include_str!("../../../report-templates/report.css")));

/// Renders the report as a single HTML file.
///
/// # Errors
/// [`ReportError`] where the document can't be serialised; none that its content could cause.
pub fn render_html(doc: &Document) -> Result<String, ReportError> {
    let doc = cleaned(doc)?;
    Ok(Page::new(&doc, policy(&STYLE, SCRIPT), &STYLE, SCRIPT).render()?)
}

/// The content security policy: our own style sheet and script by their hashes, and nothing else at all.
fn policy(style: &str, script: &str) -> String {
    let hash = |text: &str| base64(&Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(script),
        hash(style)
    )
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = (word >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
