//! The beginning of a connection
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>).

use super::packet::{length_encoded, take, terminated, u16_le, u32_le};
use crate::{ByteClass, Output, Side};

const CONNECT_WITH_DB: u32 = 1 << 3;
const COMPRESS: u32 = 1 << 5;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
const DEPRECATE_EOF: u32 = 1 << 24;
const ZSTD: u32 = 1 << 26;
const QUERY_ATTRIBUTES: u32 = 1 << 27;

/// What a client's first packet agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    pub tls: bool,
    pub compressed: bool,
    pub deprecate_eof: bool,
    /// Query attributes may precede the values of an execution.
    pub attributes: bool,
}

/// True for the server's first packet: protocol 10, a version, the rest of fixed shape
/// (page_protocol_connection_phase_packets_protocol_handshake_v10.html).
pub(super) fn is_greeting(payload: &[u8]) -> bool {
    capabilities_of(payload).is_some()
}

/// What follows the fixed part of a greeting: its capabilities.
fn capabilities_of(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    take(&mut rest, 1).filter(|version| *version == [10])?;
    let version = terminated(&mut rest)?;
    let printable = !version.is_empty() && version.len() < 128 && version.iter().all(|b| (b' '..=b'~').contains(b));
    // Thread number, 8 bytes of challenge, a zero.
    let fixed = take(&mut rest, 13)?;
    (printable && fixed.last() == Some(&0)).then_some(rest)
}

/// The status flags in a greeting.
pub(super) fn greeting_status(payload: &[u8]) -> Option<u16> {
    let mut rest = capabilities_of(payload)?;
    // The lower half of the capabilities, the character set.
    take(&mut rest, 3)?;
    u16_le(&mut rest)
}

/// Reads the client's first packet: its login, or the request for TLS before it
/// (page_protocol_connection_phase_packets_protocol_handshake_response.html).
pub(super) fn response(payload: &[u8]) -> Option<Agreed> {
    let mut rest = payload;
    let low = u16_le(&mut rest)?;
    if u32::from(low) & PROTOCOL_41 == 0 {
        // The 3.20 form: a user follows a 24-bit length.
        return Some(Agreed {
            tls: u32::from(low) & SSL != 0 && payload.len() <= 8,
            compressed: false,
            deprecate_eof: false,
            attributes: false,
        });
    }
    let high = u16_le(&mut rest)?;
    let capabilities = u32::from(low) | u32::from(high) << 16;
    Some(Agreed {
        tls: capabilities & SSL != 0 && payload.len() <= 36,
        compressed: capabilities & (COMPRESS | ZSTD) != 0,
        deprecate_eof: capabilities & DEPRECATE_EOF != 0,
        attributes: capabilities & QUERY_ATTRIBUTES != 0,
    })
}

/// Marks the parts of the client's login packet, whose payload of `length` bytes begins at stream offset `at`.
pub(super) fn mark_response(payload: &[u8], at: u64, length: u64, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let end = at + payload.len() as u64;
    let offset = |rest: &[u8]| end - rest.len() as u64;
    let mut rest = payload;
    let mut marked = at;
    let mut mark = |to: u64, class| {
        out.mark(Side::Client, marked..to, class);
        marked = to;
    };
    let mut parts = || {
        let capabilities = u32_le(&mut rest)?;
        take(&mut rest, 28)?;
        mark(offset(rest), ByteClass::Structure);
        terminated(&mut rest)?;
        mark(offset(rest), ByteClass::Identifier);
        if capabilities & PLUGIN_AUTH_LENENC != 0 {
            let length = length_encoded(&mut rest)?;
            take(&mut rest, usize::try_from(length).ok()?)?;
        } else if capabilities & SECURE_CONNECTION != 0 {
            let length = *take(&mut rest, 1)?.first()?;
            take(&mut rest, usize::from(length))?;
        } else {
            terminated(&mut rest)?;
        }
        mark(offset(rest), ByteClass::Secret);
        if capabilities & CONNECT_WITH_DB != 0 {
            terminated(&mut rest)?;
            mark(offset(rest), ByteClass::Identifier);
        }
        // Plugin name and connection attributes: attributes are names and values of the client's choice.
        mark(end, ByteClass::Value);
        Some(())
    };
    parts();
    // What did not fit the form, or was cut, may hold credentials.
    out.mark(Side::Client, marked..at + length, ByteClass::Secret);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_recognised() {
        let greeting = b"\x0a8.0.36\0\x05\0\0\0abcdefgh\0\xff\xff\x08\x02\0\xff\xdf\x15";
        assert!(is_greeting(greeting));
        assert_eq!((greeting_status(greeting), greeting_status(&greeting[..24])), (Some(2), None));
        assert!(!is_greeting(b"\x09old\0\x05\0\0\0abcdefgh\0"));
        assert!(!is_greeting(b"\x0a\0\x05\0\0\0abcdefgh\0"));
    }
}
