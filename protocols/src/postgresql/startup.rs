//! The beginning of a connection (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>).

use super::message::{is_text, terminated};
use crate::{ByteClass, Output, Side};

/// Length and code, with which all openings begin.
pub(super) const OPENING_BYTES: usize = 8;

/// Longest startup message (`MAX_STARTUP_PACKET_LENGTH` in `pqcomm.h`).
const MAX_STARTUP_BYTES: u32 = 10_000;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// What a client opens with: a message without a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Parameters of the session. `fits`: they were looked at, and there is a user.
    Startup { length: u64, fits: bool },
    /// It asks for TLS.
    Tls,
    /// It asks for encryption by GSSAPI.
    Gss,
    /// It asks to cancel what another connection runs.
    Cancel,
}

/// The opening at the start of `bytes`, of which the first eight must be there.
pub(super) fn opening(bytes: &[u8]) -> Option<Opening> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (code, rest) = rest.split_first_chunk::<4>()?;
    let (length, code) = (u32::from_be_bytes(*length), u32::from_be_bytes(*code));
    match code {
        SSL_REQUEST if length == 8 => Some(Opening::Tls),
        GSS_REQUEST if length == 8 => Some(Opening::Gss),
        // Number of the server's process and a key: 4 bytes, up to 256 from protocol 3.2 on.
        CANCEL_REQUEST if (16..=268).contains(&length) => Some(Opening::Cancel),
        0x3_0000..=0x3_ffff if (9..=MAX_STARTUP_BYTES).contains(&length) => {
            let seen = rest.get(..length as usize - OPENING_BYTES).unwrap_or(rest);
            let first = seen.split(|byte| *byte == 0).next().unwrap_or_default();
            let fits = is_text(seen.split(|byte| *byte == 0).nth(1).unwrap_or_default())
                && first.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
                && (!first.is_empty())
                && (seen.len() + OPENING_BYTES < length as usize || seen.ends_with(&[0]));
            Some(Opening::Startup { length: u64::from(length), fits })
        }
        _ => None,
    }
}

/// Classifies a startup message at stream offset `at`, of which `content` follows length and version.
pub(super) fn mark_startup(content: &[u8], at: u64, length: u64, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let mut marker = out.marker(Side::Client, at);
    marker.take(OPENING_BYTES as u64, ByteClass::Structure);
    let mut rest = content;
    while let Some(name) = terminated(&mut rest).filter(|name| !name.is_empty()) {
        marker.take(name.len() as u64 + 1, ByteClass::Identifier);
        let Some(value) = terminated(&mut rest) else { break };
        let class = match name {
            b"user" | b"database" | b"replication" | b"client_encoding" | b"application_name" => ByteClass::Identifier,
            _ => ByteClass::Value,
        };
        marker.take(value.len() as u64 + 1, class);
    }
    marker.to(at.saturating_add(length), ByteClass::Value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_told_apart() {
        assert_eq!(opening(b"\0\0\0\x08\x04\xd2\x16\x2f"), Some(Opening::Tls));
        assert_eq!(opening(b"\0\0\0\x08\x04\xd2\x16\x30"), Some(Opening::Gss));
        assert_eq!(opening(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02"), Some(Opening::Cancel));
        let startup = b"\0\0\0\x13\0\x03\0\0user\0root\0\0";
        assert_eq!(opening(startup), Some(Opening::Startup { length: 19, fits: true }));
        assert_eq!(opening(b"\0\0\0\x13\0\x02\0\0user\0root\0\0"), None);
        assert_eq!(opening(b"\0\0\0\x08"), None);
    }
}
