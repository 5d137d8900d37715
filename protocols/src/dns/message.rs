//! What one DNS message says.

use std::net::IpAddr;

use super::wire::{End, HEADER_BYTES, Header, Item, Name, be16, name, walk};
use super::words::{self, opcode_name, rcode_name, type_name};
use crate::{ByteClass, NAMELESS, Output, Side, text};

/// Bytes of the names asked for that are shown.
const MAX_TARGET_BYTES: usize = 1024;
/// Questions of one message that are looked at: more than one is rare, and mDNS asks a few dozen at most.
const MAX_QUESTIONS: usize = 64;
/// Addresses of one message that are given a name.
const MAX_ADDRESSES: usize = 64;
/// Option code of Extended DNS Errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// A message, read as far as it is there.
pub(super) struct Message {
    pub header: Header,
    /// Everything that the header announces was read.
    pub end: End,
    /// Type of the first question, or the opcode's name; [`NAMELESS`] where that was not seen.
    pub op: Box<str>,
    /// Names asked for, separated by `, `.
    pub target: Option<Box<str>>,
    /// Type of the first question.
    pub kind: Option<u16>,
    /// Stands for all questions: names (without case), types and classes. `None` where there are none, or not all were
    /// read.
    pub asked: Option<u64>,
    /// The response code with EDNS's upper bits; `None` where a success may be something else in a part that is missing.
    pub rcode: Option<u16>,
    /// An Extended DNS Error.
    pub error: Option<Box<str>>,
    /// SOA records among the answers: number of the record, serial.
    pub soas: Vec<(u32, u32)>,
    /// Addresses among the answers, where asked for.
    pub addresses: Vec<IpAddr>,
}

impl Message {
    /// `bytes` is the message from its header on, as far as it is there.
    pub fn read(bytes: &[u8], want_addresses: bool) -> Option<Self> {
        let header = Header::read(bytes)?;
        let (mut questions, mut hash, mut first, mut target) = (0, Fnv::default(), None, String::new());
        let (mut extended, mut error, mut soas, mut addresses) = (None, None, Vec::new(), Vec::new());
        let mut answers = 0;
        let end = walk(bytes, &header, |item| match item {
            Item::Question { name: at, kind, class } => {
                questions += 1;
                if questions <= MAX_QUESTIONS {
                    let asked = name(bytes, at);
                    hash.question(&asked, kind, class);
                    first.get_or_insert(kind);
                    add_name(&mut target, &asked);
                }
            }
            Item::Record { section: 1, kind, data, .. } => {
                let content = bytes.get(data).unwrap_or_default();
                match kind {
                    // Two names, then the serial; the five numbers are its last 20 bytes.
                    words::SOA => {
                        let serial = content.len().checked_sub(20).and_then(|at| content.get(at..)?.first_chunk());
                        soas.extend(serial.map(|serial| (answers, u32::from_be_bytes(*serial))));
                    }
                    words::A | words::AAAA if want_addresses && addresses.len() < MAX_ADDRESSES => {
                        let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from);
                        addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from)));
                    }
                    _ => {}
                }
                answers += 1;
            }
            Item::Record { section: 3, kind: words::OPT, ttl, data, .. } if extended.is_none() => {
                extended = Some((ttl >> 24) as u16);
                error = extended_error(bytes.get(data).unwrap_or_default());
            }
            Item::Record { .. } => {}
        });
        if questions == 0 && header.counts[0] > 0 {
            // The question is cut: its name may be there in part.
            let asked = name(bytes, HEADER_BYTES);
            if asked.labels.len() > 1 {
                add_name(&mut target, &asked);
            }
        }
        let low = header.rcode();
        let rcode = match (extended, end) {
            (Some(high), _) => Some(high << 4 | low),
            (None, End::Whole(_)) => Some(low),
            // EDNS, which could say otherwise, was not seen. With answers it is a success, whatever follows.
            _ if low != 0 || header.counts[1] > 0 || header.counts[3] == 0 => Some(low),
            _ => None,
        };
        let op = match (header.opcode(), first) {
            (words::QUERY, Some(kind)) => type_name(kind),
            (words::QUERY, None) if header.counts[0] > 0 => NAMELESS.into(),
            (opcode, _) => opcode_name(opcode).map_or_else(|| format!("OPCODE{opcode}").into(), Into::into),
        };
        let complete = questions > 0 && questions == usize::from(header.counts[0]);
        Some(Self {
            header,
            end,
            op: op.into(),
            target: (!target.is_empty()).then(|| text::bounded(target.as_bytes(), MAX_TARGET_BYTES, false)),
            kind: first,
            asked: complete.then_some(hash.0 | 1),
            rcode,
            error: error.filter(|_| header.is_response()),
            soas,
            addresses,
        })
    }

    /// The response code's name.
    pub fn code(&self) -> Option<Box<str>> {
        self.rcode.map(|rcode| rcode_name(rcode).into())
    }
}

fn add_name(target: &mut String, asked: &Name) {
    if target.len() < MAX_TARGET_BYTES {
        let text = asked.text();
        if target.is_empty() {
            *target = text;
        } else if !target.ends_with(&text) {
            target.push_str(", ");
            target.push_str(&text);
        }
    }
}

/// The first Extended DNS Error among EDNS options: its number (IANA, "Extended DNS Error Codes") and what it adds.
fn extended_error(mut options: &[u8]) -> Option<Box<str>> {
    loop {
        let (code, length) = (be16(options, 0)?, usize::from(be16(options, 2)?));
        let content = options.get(4..4 + length)?;
        if code == EXTENDED_ERROR {
            let (number, extra) = (be16(content, 0)?, content.get(2..)?);
            let extra = text::bounded(extra, 256, false);
            let separator = if extra.is_empty() { "" } else { ": " };
            return Some(format!("extended error {number}{separator}{extra}").into());
        }
        options = options.get(4 + length..)?;
    }
}

/// FNV-1a: small, and the same on every machine. Somebody who makes two questions collide mixes up his own answers.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn question(&mut self, asked: &Name, kind: u16, class: u16) {
        // The top bit of a class asks for a unicast answer (RFC 6762, section 5.4).
        let numbers = u32::from(kind) << 16 | u32::from(class & 0x7fff);
        for byte in asked.labels.iter().map(u8::to_ascii_lowercase).chain(numbers.to_be_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Classifies the bytes of a message that begins at stream offset `start`, its length of `prefix` bytes before it, up to
/// `end`. What can't be told apart counts as values.
pub(super) fn mark(bytes: &[u8], prefix: u64, side: Side, start: u64, end: u64, out: &mut Output) {
    if out.marks.is_none() {
        return;
    }
    let mut marker = out.marker(side, start);
    let base = start + prefix;
    marker.to((base + HEADER_BYTES as u64).min(end), ByteClass::Structure);
    if let Some(header) = Header::read(bytes) {
        walk(bytes, &header, |item| {
            let offset = |at: usize| base + at as u64;
            match item {
                Item::Question { name, .. } => {
                    let behind = super::wire::skip_name(bytes, name).unwrap_or(name);
                    marker.to(offset(behind), ByteClass::Identifier);
                    marker.to(offset(behind + 4), ByteClass::Structure);
                }
                Item::Record { name, kind, data, .. } => {
                    let behind = super::wire::skip_name(bytes, name).unwrap_or(name);
                    marker.to(offset(behind), ByteClass::Identifier);
                    marker.to(offset(data.start), ByteClass::Structure);
                    let class = match kind {
                        // Addresses and names.
                        1..=9 | 12 | 14 | 15 | 17 | 18 | 28 | 33 | 36 | 39 | 47 | 64 | 65 => ByteClass::Identifier,
                        43 | 46 | 48 | 50 | 51 | 59 | 60 => ByteClass::Structure,
                        words::TKEY | words::TSIG => ByteClass::Secret,
                        _ => ByteClass::Value,
                    };
                    marker.to(offset(data.end), class);
                }
            }
        });
    }
    marker.to(end, ByteClass::Value);
}
