//! Control packets (MQTT 3.1.1 section 2 and 3, MQTT 5.0 section 2 and 3): what is in them.

use crate::{ByteClass, Output, Side, exchange::Marker, text};

pub(super) const CONNECT: u8 = 1;
pub(super) const CONNACK: u8 = 2;
pub(super) const PUBLISH: u8 = 3;
pub(super) const PUBACK: u8 = 4;
pub(super) const PUBREC: u8 = 5;
pub(super) const PUBREL: u8 = 6;
pub(super) const PUBCOMP: u8 = 7;
pub(super) const SUBSCRIBE: u8 = 8;
pub(super) const SUBACK: u8 = 9;
pub(super) const UNSUBSCRIBE: u8 = 10;
pub(super) const UNSUBACK: u8 = 11;
pub(super) const PINGREQ: u8 = 12;
pub(super) const PINGRESP: u8 = 13;
pub(super) const DISCONNECT: u8 = 14;
pub(super) const AUTH: u8 = 15;

/// Bytes of a topic or name that are kept.
const MAX_NAME_BYTES: usize = 1024;

/// A value that is there, is not (yet), or can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got<T> {
    Value(T),
    Short,
    Bad,
}

/// A variable byte integer (5.0 section 1.5.5) with its length: at most four bytes.
pub(super) fn varint(bytes: &[u8]) -> Got<(u32, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Got::Value((value, index + 1));
        }
    }
    if bytes.len() < 4 { Got::Short } else { Got::Bad }
}

/// The fixed header: type, its flags, the length of the header, the length of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fixed {
    pub kind: u8,
    pub flags: u8,
    pub head: usize,
    pub rest: usize,
}

impl Fixed {
    pub fn of(bytes: &[u8]) -> Got<Fixed> {
        let Some((first, more)) = bytes.split_first() else { return Got::Short };
        match varint(more) {
            Got::Value((rest, length)) => {
                Got::Value(Fixed { kind: first >> 4, flags: first & 15, head: 1 + length, rest: rest as usize })
            }
            Got::Short => Got::Short,
            Got::Bad => Got::Bad,
        }
    }

    pub fn qos(self) -> u8 {
        self.flags >> 1 & 3
    }
}

/// Reads the part of a packet behind the fixed header, as far as it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn short(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// A string or binary data with its length before it.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        self.take(usize::from(length))
    }

    pub fn properties(&mut self) -> Option<&'a [u8]> {
        let Got::Value((length, bytes)) = varint(self.bytes.get(self.at..)?) else { return None };
        self.at += bytes;
        self.take(length as usize)
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

/// The topic alias among a PUBLISH's properties (5.0 section 3.3.2.3.4).
pub(super) fn topic_alias(properties: &[u8]) -> Option<u16> {
    property(properties, 0x23)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The first property with this identifier. Types: 5.0 section 2.2.2.2.
pub(super) fn property(properties: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(properties);
    while let Some(identifier) = reader.byte() {
        let value = match identifier {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => reader.take(1)?,
            0x13 | 0x21 | 0x22 | 0x23 => reader.take(2)?,
            0x02 | 0x11 | 0x18 | 0x27 => reader.take(4)?,
            0x0b => {
                let Got::Value((_, length)) = varint(properties.get(reader.at..)?) else { return None };
                reader.take(length)?
            }
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => reader.string()?,
            // User property: a pair.
            0x26 => {
                reader.string()?;
                reader.string()?
            }
            _ => return None,
        };
        if identifier == wanted {
            return Some(value);
        }
    }
    None
}

/// What a CONNECT begins with.
pub(super) struct Connect {
    /// 3 (3.1), 4 (3.1.1) or 5.
    pub version: u8,
    pub flags: u8,
}

/// The variable header of a CONNECT; `None` if it is none, or too short.
pub(super) fn connect(reader: &mut Reader<'_>) -> Option<Connect> {
    let name = reader.string()?;
    // Bridges set the highest bit.
    let version = reader.byte()? & 0x7f;
    let known = matches!((name, version), (b"MQTT", 3..=5) | (b"MQIsdp", 3));
    let flags = reader.byte()?;
    reader.short()?;
    known.then_some(Connect { version, flags })
}

/// A list of topic filters: the first, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Filters<'a> {
    pub first: Option<&'a [u8]>,
    pub count: usize,
    /// It was seen to its end.
    pub whole: bool,
}

/// The filters of a SUBSCRIBE or UNSUBSCRIBE, behind its packet identifier (and properties).
pub(super) fn filters<'a>(mut reader: Reader<'a>, subscribe: bool) -> Filters<'a> {
    let mut found = Filters::default();
    while !reader.is_at_end() {
        let Some(filter) = reader.string() else { return found };
        if found.first.is_none() {
            found.first = Some(filter);
        }
        found.count += 1;
        if subscribe && reader.byte().is_none_or(|options| options & 0xc0 != 0) {
            return found;
        }
    }
    found.whole = found.count > 0;
    found
}

/// Whether bytes can be a topic (or filter): text without control characters.
pub(super) fn is_topic(bytes: &[u8], filter: bool) -> bool {
    !bytes.is_empty()
        && std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
        && (filter || !bytes.iter().any(|b| matches!(b, b'#' | b'+')))
}

/// A topic, filter or name for people.
pub(super) fn name(bytes: &[u8]) -> Box<str> {
    text::bounded(bytes, MAX_NAME_BYTES, false)
}

/// Classifies a packet. `bytes` is what was kept of it, `end` where it ends.
pub(super) fn mark(side: Side, start: u64, end: u64, bytes: &[u8], version: Option<u8>, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let mut marker = out.marker(side, start);
    let Got::Value(fixed) = Fixed::of(bytes) else {
        marker.to(end, ByteClass::Structure);
        return;
    };
    let body = bytes.get(fixed.head..).unwrap_or_default();
    let base = start + fixed.head as u64;
    let at = |reader: &Reader<'_>| (base + reader.at as u64).min(end);
    let mut reader = Reader::new(body);
    marker.to(base.min(end), ByteClass::Structure);
    let rest = match fixed.kind {
        CONNECT => {
            mark_connect(&mut reader, &at, &mut marker);
            ByteClass::Secret
        }
        PUBLISH => {
            mark_string(&mut reader, &at, ByteClass::Identifier, &mut marker);
            if fixed.qos() > 0 {
                reader.short();
                marker.to(at(&reader), ByteClass::Structure);
            }
            ByteClass::Value
        }
        SUBSCRIBE | UNSUBSCRIBE => {
            reader.short();
            marker.to(at(&reader), ByteClass::Structure);
            if version == Some(5) {
                reader.properties();
                marker.to(at(&reader), ByteClass::Value);
            }
            while mark_string(&mut reader, &at, ByteClass::Identifier, &mut marker) {
                if fixed.kind == SUBSCRIBE && reader.byte().is_some() {
                    marker.to(at(&reader), ByteClass::Structure);
                }
            }
            ByteClass::Value
        }
        AUTH => ByteClass::Secret,
        // Session and reason, or packet identifier.
        _ => {
            marker.to((base + 3).min(end), ByteClass::Structure);
            // Properties of a CONNACK may hold authentication data.
            if fixed.kind == CONNACK { ByteClass::Secret } else { ByteClass::Value }
        }
    };
    marker.to(end, rest);
}

fn mark_string(
    reader: &mut Reader<'_>,
    at: &impl Fn(&Reader<'_>) -> u64,
    class: ByteClass,
    marker: &mut Marker<'_>,
) -> bool {
    let mut behind_length = *reader;
    if behind_length.short().is_none() || reader.string().is_none() {
        return false;
    }
    marker.to(at(&behind_length), ByteClass::Structure);
    marker.to(at(reader), class);
    true
}

fn mark_connect(reader: &mut Reader<'_>, at: &impl Fn(&Reader<'_>) -> u64, marker: &mut Marker<'_>) {
    let Some(connect) = connect(reader) else { return };
    marker.to(at(reader), ByteClass::Structure);
    if connect.version == 5 {
        if reader.properties().is_none() {
            return;
        }
        // They may hold authentication data.
        marker.to(at(reader), ByteClass::Secret);
    }
    if !mark_string(reader, at, ByteClass::Identifier, marker) || connect.flags & 4 == 0 {
        return;
    }
    if connect.version == 5 {
        if reader.properties().is_none() {
            return;
        }
        marker.to(at(reader), ByteClass::Value);
    }
    // The will: topic and message.
    if mark_string(reader, at, ByteClass::Identifier, marker) {
        mark_string(reader, at, ByteClass::Value, marker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_integers_end_after_four_bytes() {
        assert_eq!(varint(&[0x7f]), Got::Value((127, 1)));
        assert_eq!(varint(&[0x80, 0x01]), Got::Value((128, 2)));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0x7f]), Got::Value((268_435_455, 4)));
        assert_eq!(varint(&[0xff, 0xff]), Got::Short);
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 1]), Got::Bad);
    }

    #[test]
    fn properties_are_found_behind_others() {
        let properties = b"\x01\x01\x26\0\x01a\0\x01b\x23\0\x07";
        assert_eq!(topic_alias(properties), Some(7));
        assert_eq!(topic_alias(&properties[..9]), None);
    }
}
