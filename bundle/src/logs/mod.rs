//! Lines of container logs: rows of [`crate::BlockKind::LOGS`] and [`crate::BlockKind::LOG_COUNTS`] blocks, and what is
//! read from a line.
//!
//! A line is kept as its program wrote it, but for what [`crate::secrets`] masks, terminal colours, and what is beyond
//! [`MAX_LINE_BYTES`]. Its level is not kept: replay reads it again.

mod level;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use level::{Level, Read, Reading};

/// Most that is kept of a line, bytes: what container runtimes write as one piece (the buffer of containerd's and CRI-O's
/// loggers, and of Docker's).
pub const MAX_LINE_BYTES: usize = 16 << 10;

/// A row of a [`crate::BlockKind::LOGS`] block: a line that a container wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFact {
    /// When the recorder read it, event time, ns.
    pub time_ns: u64,
    /// When the container runtime got it: its own stamp, ns since 1970. Not converted, so that it is what other tools show.
    pub wall_ns: u64,
    /// The pod's namespace; empty where unknown.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID as the kubelet names its folder (of a static pod: the hash of its manifest); empty where unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// How often the container had been restarted.
    #[serde(skip_serializing_if = "is_zero")]
    pub restart: u32,
    /// `stdout` or `stderr`; empty where unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// The line without its end, masked.
    pub text: String,
    /// True if the line was longer, or its end was not seen.
    #[serde(skip_serializing_if = "is_false")]
    pub cut: bool,
}

/// A row of a [`crate::BlockKind::LOG_COUNTS`] block: what became of a container's lines, cumulative. The latest row of a
/// pod's UID, name and container counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogCounts {
    /// When, event time, ns.
    pub time_ns: u64,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// Lines written within the capture, kept or not.
    pub lines: u64,
    /// Bytes that the runtime wrote for them, its own stamps included.
    pub bytes: u64,
    /// Lines that are in the bundle.
    pub lines_kept: u64,
    /// Their text, bytes.
    pub bytes_kept: u64,
    /// Lines left out because a bound was reached.
    pub lines_dropped: u64,
    /// Lines of which only the beginning is kept.
    pub lines_cut: u64,
    /// Lines in a form that no container runtime writes, left out.
    pub lines_malformed: u64,
    /// Bytes passed over unread, because more was written than the recorder may read: their lines are not counted.
    pub bytes_unread: u64,
    /// How often a file became shorter under the reader: lines in between may be missing.
    pub truncations: u64,
    /// Why a file of it could not be read; empty: all could.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refused: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// A line's bytes as text of at most [`MAX_LINE_BYTES`], without its end and without what colours a terminal (ECMA-48
/// control sequences, `ESC [ … m`): they would hide words from whoever looks for them, be it for a secret. Says whether it was
/// longer.
pub fn line_text(bytes: &[u8]) -> (String, bool) {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let cut = bytes.len() > MAX_LINE_BYTES;
    let kept = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    let kept = match std::str::from_utf8(kept) {
        // A character cut in half by the bound is no reason for a replacement character.
        Err(error) if cut && error.error_len().is_none() => kept.get(..error.valid_up_to()).unwrap_or(kept),
        _ => kept,
    };
    let text = String::from_utf8_lossy(kept);
    (without_colours(&text).into_owned(), cut)
}

fn without_colours(text: &str) -> Cow<'_, str> {
    if !text.contains("\u{1b}[") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        // Parameters and intermediates, then one final character (ECMA-48, 5.4).
        let end = behind.find(|c: char| !(' '..='?').contains(&c)).unwrap_or(behind.len());
        let behind = behind.get(end..).unwrap_or_default();
        let is_final = behind.starts_with(|c: char| ('@'..='~').contains(&c));
        rest = behind.get(usize::from(is_final)..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_become_text_whatever_their_bytes() {
        assert_eq!(line_text(b"plain\r\n"), ("plain".into(), false));
        assert_eq!(line_text(b"\x1b[31mERROR\x1b[0m \x1b[1;2Kx\n"), ("ERROR x".into(), false));
        assert_eq!(line_text(b"a\xffb\0"), ("a\u{fffd}b\0".into(), false));
        let long = "ä".repeat(MAX_LINE_BYTES);
        let (text, cut) = line_text(format!("x{long}").as_bytes());
        assert!(cut && text.len() == MAX_LINE_BYTES - 1 && !text.contains('\u{fffd}'), "{}", text.len());
    }

    proptest! {
        #[test]
        fn any_bytes_become_bounded_text(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (text, cut) = line_text(&bytes);
            prop_assert!(!cut && text.len() <= bytes.len() * 3);
            let mut reading = Reading::default();
            reading.next(&text);
        }

        #[test]
        fn no_escape_is_left_of_colours(parts in proptest::collection::vec("(\u{1b}\\[|[0-9;]|[a-zA-Zä ])", 0..60)) {
            let text = parts.concat();
            let plain = without_colours(&text);
            prop_assert!(!plain.contains("\u{1b}["), "{plain:?}");
        }
    }
}
