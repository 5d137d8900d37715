//! Packets and the values in them
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html>).

use crate::{Flags, Stream, pairing::hole_flag};

/// Bytes of a packet's header: length (3), sequence number (1).
pub(super) const HEADER_BYTES: usize = 4;

/// A payload of this length goes on in the next packet.
pub(super) const MAX_PAYLOAD_BYTES: u64 = 0xff_ffff;

/// A packet at the cursor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Bytes of payload.
    pub length: u64,
    pub sequence: u8,
    /// The payload's first bytes: as many as were wanted, or fewer where `missing` says why.
    pub payload: &'a [u8],
    /// What the missing part of what was wanted fell into.
    pub missing: Option<Flags>,
}

impl Packet<'_> {
    /// Bytes of the whole packet.
    pub fn size(&self) -> u64 {
        HEADER_BYTES as u64 + self.length
    }

    pub fn first(&self) -> Option<u8> {
        self.payload.first().copied()
    }
}

/// What stands at the cursor.
pub(super) enum Peek<'a> {
    Packet(Packet<'a>),
    /// More bytes are needed.
    Wait,
    /// The header is in a hole.
    Lost(Flags),
}

/// Looks at the packet at the cursor, of whose payload the first `wanted` bytes are needed.
pub(super) fn peek(stream: &Stream, wanted: usize) -> Peek<'_> {
    let bytes = stream.bytes();
    let hole = stream.hole();
    let (&[a, b, c, sequence, ..], Some(payload)) = (bytes, bytes.get(HEADER_BYTES..)) else {
        return match hole {
            Some(hole) => Peek::Lost(hole_flag(hole.kind)),
            None => Peek::Wait,
        };
    };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    let needed = length.min(wanted);
    let missing = if payload.len() >= needed {
        None
    } else if let Some(hole) = hole {
        Some(hole_flag(hole.kind))
    } else {
        return Peek::Wait;
    };
    let payload = payload.get(..length).unwrap_or(payload);
    Peek::Packet(Packet { length: length as u64, sequence, payload, missing })
}

/// Takes a length-encoded integer off the front of `bytes`.
pub(super) fn length_encoded(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let size = match first {
        0..=0xfa => {
            *bytes = rest;
            return Some(u64::from(*first));
        }
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(size)?;
    *bytes = rest;
    Some(value.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// Takes `count` bytes off the front of `bytes`.
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Takes a string that ends with a NUL off the front of `bytes`, without it.
pub(super) fn terminated<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(0, bytes)?;
    let text = bytes.get(..end)?;
    *bytes = bytes.get(end + 1..)?;
    Some(text)
}

/// Takes a little-endian 16-bit integer.
pub(super) fn u16_le(bytes: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take(bytes, 2)?.try_into().ok()?))
}

/// Takes a little-endian 32-bit integer.
pub(super) fn u32_le(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_encoded_integers() {
        // page_protocol_basic_dt_integers.html
        for (bytes, value) in [
            (&[0xfa][..], Some(250)),
            (&[0xfc, 0xfb, 0x00], Some(251)),
            (&[0xfd, 1, 2, 3], Some(0x03_0201)),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 1], Some(0x0100_0000_0000_0001)),
            (&[0xfb], None),
            (&[0xfc, 1], None),
            (&[], None),
        ] {
            assert_eq!(length_encoded(&mut &bytes[..]), value);
        }
    }

    #[test]
    fn a_packet_is_seen_as_soon_as_what_is_wanted_is_here() {
        let mut stream = Stream::default();
        stream.push(&[5, 0, 0]);
        assert!(matches!(peek(&stream, 1), Peek::Wait));
        stream.push(&[7, 3]);
        assert!(matches!(
            peek(&stream, 1),
            Peek::Packet(Packet { length: 5, sequence: 7, payload: [3], missing: None })
        ));
        assert!(matches!(peek(&stream, 9), Peek::Wait));
        stream.push_hole(crate::Hole { length: 4, kind: crate::HoleKind::Cut });
        assert!(matches!(peek(&stream, 9), Peek::Packet(Packet { missing: Some(Flags::TRUNCATED), .. })));
    }
}
