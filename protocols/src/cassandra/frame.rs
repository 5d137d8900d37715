//! Frames of versions 3 to 5, which version 5 calls envelopes
//! (<https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v5.spec>, section 2).

use crate::Side;
use crate::cursor::Cursor;
use crate::frames::{Framing, Head};
use crate::pairing::Looks;

/// Version, flags, stream (2), operation, length (4).
pub(super) const HEADER_BYTES: usize = 9;

/// The largest body (section 2.5).
const MAX_BODY_BYTES: u32 = 256 << 20;

pub(super) const ERROR: u8 = 0x00;
pub(super) const STARTUP: u8 = 0x01;
pub(super) const READY: u8 = 0x02;
pub(super) const AUTHENTICATE: u8 = 0x03;
pub(super) const OPTIONS: u8 = 0x05;
pub(super) const SUPPORTED: u8 = 0x06;
pub(super) const QUERY: u8 = 0x07;
pub(super) const RESULT: u8 = 0x08;
pub(super) const PREPARE: u8 = 0x09;
pub(super) const EXECUTE: u8 = 0x0a;
pub(super) const REGISTER: u8 = 0x0b;
pub(super) const EVENT: u8 = 0x0c;
pub(super) const BATCH: u8 = 0x0d;
pub(super) const AUTH_CHALLENGE: u8 = 0x0e;
pub(super) const AUTH_RESPONSE: u8 = 0x0f;
pub(super) const AUTH_SUCCESS: u8 = 0x10;

/// A request's name in the specification.
pub(super) fn name(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        STARTUP => "STARTUP",
        OPTIONS => "OPTIONS",
        QUERY => "QUERY",
        PREPARE => "PREPARE",
        EXECUTE => "EXECUTE",
        REGISTER => "REGISTER",
        BATCH => "BATCH",
        AUTH_RESPONSE => "AUTH_RESPONSE",
        _ => return None,
    })
}

fn is_answer(opcode: u8) -> bool {
    matches!(opcode, ERROR | READY | AUTHENTICATE | SUPPORTED | RESULT | EVENT | AUTH_CHALLENGE | AUTH_SUCCESS)
}

pub(super) const COMPRESSED: u8 = 1;
pub(super) const TRACING: u8 = 2;
pub(super) const PAYLOAD: u8 = 4;
pub(super) const WARNING: u8 = 8;

/// What a frame's header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub version: u8,
    pub flags: u8,
    /// Answers have that of their request; events have -1.
    pub stream: i16,
    pub opcode: u8,
    pub length: u32,
}

impl Header {
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        Some(Self {
            version: cursor.u8()?,
            flags: cursor.u8()?,
            stream: cursor.be16()? as i16,
            opcode: cursor.u8()?,
            length: cursor.be32()?,
        })
    }

    fn fits(&self, side: Side) -> bool {
        let answer = side == Side::Server;
        (self.version & 0x80 != 0) == answer
            && (3..=5).contains(&(self.version & 0x7f))
            && self.flags < 32
            && if answer { is_answer(self.opcode) } else { name(self.opcode).is_some() && self.stream >= 0 }
            && self.length <= MAX_BODY_BYTES
    }
}

/// Whether bytes begin like a statement.
fn is_statement(text: &[u8]) -> bool {
    let start = text.get(..64).unwrap_or(text);
    let text = start.trim_ascii_start();
    text.first().is_none_or(|first| first.is_ascii_alphabetic() || matches!(first, b'/' | b'-' | b'('))
        && start.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace())
        && !start.is_empty()
}

/// Whether options (a string map that fills the body; section 4.1.1) stand behind their number: names in upper case, and
/// texts. Told by the first name, where no more is here.
fn startup_fits(pairs: u16, mut cursor: Cursor<'_>, body_bytes: usize) -> Option<bool> {
    let mut named = false;
    for _ in 0..pairs {
        for is_name in [true, false] {
            let Some(length) = cursor.be16().map(usize::from) else { return named.then_some(true) };
            let fits = cursor.at() + length <= body_bytes && (!is_name || (1..64).contains(&length));
            let seen = cursor.rest();
            let mut seen = seen.get(..length).unwrap_or(seen).iter();
            let readable = match is_name {
                true => seen.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_'),
                false => seen.all(|byte| *byte >= b' '),
            };
            if !fits || !readable {
                return Some(false);
            }
            if cursor.take(length).is_none() {
                return named.then_some(true);
            }
            named = true;
        }
    }
    Some(cursor.at() == body_bytes)
}

/// Whether a body fits its operation, as far as it is here.
fn body_fits(header: &Header, body: &[u8]) -> Option<bool> {
    let mut cursor = Cursor::new(body);
    if header.flags != 0 {
        return Some(true);
    }
    Some(match header.opcode {
        OPTIONS | READY => header.length == 0,
        STARTUP => {
            let pairs = cursor.be16()?;
            if !(1..32).contains(&pairs) {
                return Some(false);
            }
            return startup_fits(pairs, cursor, header.length as usize);
        }
        QUERY | PREPARE => {
            let length = cursor.be32()?;
            let fits = length.checked_add(4).is_some_and(|length| length <= header.length) && length > 2;
            fits && (cursor.rest().is_empty() || is_statement(cursor.take_some(length as usize)))
        }
        EXECUTE => {
            let length = cursor.be16()?;
            (1..=64).contains(&length) && u32::from(length) + 5 <= header.length
        }
        BATCH => {
            let kind = cursor.u8()?;
            cursor.be16()?;
            kind < 3 && cursor.u8()? < 2
        }
        REGISTER => (1..16).contains(&cursor.be16()?),
        AUTH_RESPONSE | AUTH_CHALLENGE | AUTH_SUCCESS => {
            let length = cursor.be32()?;
            length == u32::MAX && header.length == 4 || length.checked_add(4) == Some(header.length)
        }
        ERROR => error_name(cursor.be32()?).is_some(),
        RESULT => (1..=5).contains(&cursor.be32()?),
        AUTHENTICATE => u32::from(cursor.be16()?) + 2 == header.length,
        EVENT => header.stream == -1,
        SUPPORTED => cursor.be16()? < 64,
        _ => false,
    })
}

/// An error's name (section 9).
pub(super) fn error_name(code: u32) -> Option<&'static str> {
    Some(match code {
        0x0000 => "ServerError",
        0x000a => "ProtocolError",
        0x0100 => "BadCredentials",
        0x1000 => "Unavailable",
        0x1001 => "Overloaded",
        0x1002 => "IsBootstrapping",
        0x1003 => "TruncateError",
        0x1100 => "WriteTimeout",
        0x1200 => "ReadTimeout",
        0x1300 => "ReadFailure",
        0x1400 => "FunctionFailure",
        0x1500 => "WriteFailure",
        0x1600 => "CdcWriteFailure",
        0x1700 => "CasWriteUnknown",
        0x2000 => "SyntaxError",
        0x2100 => "Unauthorized",
        0x2200 => "Invalid",
        0x2300 => "ConfigError",
        0x2400 => "AlreadyExists",
        0x2500 => "Unprepared",
        _ => return None,
    })
}

pub(super) struct Envelopes;

impl Framing for Envelopes {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        match Header::read(bytes) {
            None => Head::Short,
            Some(header) if header.fits(side) => Head::Length(HEADER_BYTES as u64 + u64::from(header.length)),
            Some(_) => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let open = if cut { Looks::No } else { Looks::Open };
        let Some(header) = Header::read(bytes) else {
            // The first byte alone rules most out.
            let version = bytes.first().is_none_or(|byte| (3..=5).contains(&(byte & 0x7f)));
            return if version { open } else { Looks::No };
        };
        if !header.fits(side) {
            return Looks::No;
        }
        match body_fits(&header, bytes.get(HEADER_BYTES..).unwrap_or_default()) {
            Some(fits) => fits.into(),
            None if u64::from(header.length) + HEADER_BYTES as u64 <= bytes.len() as u64 => Looks::No,
            None => open,
        }
    }
}
