//! A DNS message on the wire (RFC 1035, section 4): one walk from front to back, however damaged it is.

use std::ops::Range;

/// Bytes of a message's header.
pub(super) const HEADER_BYTES: usize = 12;

/// Bytes of a name on the wire, at most (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 255;

/// A message's fixed head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub id: u16,
    flags: u16,
    /// Questions, answers, authority records, additional records (UPDATE: zones, prerequisites, updates, additional).
    pub counts: [u16; 4],
}

impl Header {
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let field = |at: usize| be16(bytes, at);
        Some(Self { id: field(0)?, flags: field(2)?, counts: [field(4)?, field(6)?, field(8)?, field(10)?] })
    }

    pub fn is_response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    pub fn opcode(&self) -> u8 {
        (self.flags >> 11) as u8 & 15
    }

    pub fn recursion_desired(&self) -> bool {
        self.flags & 0x0100 != 0
    }

    /// The lower four bits of the response code.
    pub fn rcode(&self) -> u16 {
        self.flags & 15
    }
}

/// A part of a message behind its header.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Question {
        /// Where its name begins.
        name: usize,
        kind: u16,
        class: u16,
    },
    Record {
        /// 1 answer, 2 authority, 3 additional.
        section: usize,
        /// Where its name begins.
        name: usize,
        kind: u16,
        /// EDNS uses it for the extended response code (RFC 6891, section 6.1.3).
        ttl: u32,
        /// Where its data is.
        data: Range<usize>,
    },
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All that the header announces was there; it ends here.
    Whole(usize),
    /// The bytes ended before.
    Short,
    /// No message has these bytes.
    Bad,
}

/// Visits questions and records in order. `bytes` is the message from its header on.
pub(super) fn walk(bytes: &[u8], header: &Header, mut visit: impl FnMut(Item)) -> End {
    let mut at = HEADER_BYTES;
    for (section, count) in header.counts.into_iter().enumerate() {
        for _ in 0..count {
            let name = at;
            at = match skip_name(bytes, at) {
                Ok(end) => end,
                Err(end) => return end,
            };
            let (Some(kind), Some(class)) = (be16(bytes, at), be16(bytes, at + 2)) else { return End::Short };
            at += 4;
            if section == 0 {
                visit(Item::Question { name, kind, class });
                continue;
            }
            let (Some(high), Some(low), Some(length)) = (be16(bytes, at), be16(bytes, at + 2), be16(bytes, at + 4))
            else {
                return End::Short;
            };
            let data = at + 6..at + 6 + usize::from(length);
            if data.end > bytes.len() {
                return End::Short;
            }
            at = data.end;
            visit(Item::Record { section, name, kind, ttl: u32::from(high) << 16 | u32::from(low), data });
        }
    }
    End::Whole(at)
}

/// Where the name that begins at `at` ends in place. A pointer must lead backwards (RFC 1035, section 4.1.4).
pub(super) fn skip_name(bytes: &[u8], start: usize) -> Result<usize, End> {
    let mut at = start;
    loop {
        match bytes.get(at).copied() {
            None => return Err(End::Short),
            Some(0) => return Ok(at + 1),
            Some(length @ 1..=63) => at += 1 + usize::from(length),
            Some(0xc0..) => {
                let Some(target) = be16(bytes, at) else { return Err(End::Short) };
                return if usize::from(target & 0x3fff) < start { Ok(at + 2) } else { Err(End::Bad) };
            }
            Some(_) => return Err(End::Bad),
        }
        if at - start > MAX_NAME_BYTES {
            return Err(End::Bad);
        }
    }
}

/// A name, put together.
#[derive(Debug, Default)]
pub(super) struct Name {
    /// Length and letters of each label, without the root's.
    pub labels: Vec<u8>,
    /// The bytes ended within, or it is no name from here on.
    pub broken: bool,
}

/// Follows the name at `at`. Each pointer leads to before where it was found, so this ends; at most 255 bytes come out.
pub(super) fn name(bytes: &[u8], mut at: usize) -> Name {
    let mut name = Name::default();
    let mut start = at;
    loop {
        match bytes.get(at).copied() {
            Some(0) => return name,
            Some(length @ 1..=63) => {
                let end = at + 1 + usize::from(length);
                let here = bytes.get(at..end);
                name.labels.extend_from_slice(here.or(bytes.get(at..)).unwrap_or_default());
                if here.is_none() || name.labels.len() >= MAX_NAME_BYTES {
                    name.labels.truncate(MAX_NAME_BYTES);
                    name.broken = true;
                    return name;
                }
                at = end;
            }
            Some(0xc0..) => {
                let target = be16(bytes, at).map(|target| usize::from(target & 0x3fff));
                match target.filter(|target| *target < start && *target >= HEADER_BYTES) {
                    Some(target) => {
                        at = target;
                        start = target;
                    }
                    None => {
                        name.broken = true;
                        return name;
                    }
                }
            }
            _ => {
                name.broken = true;
                return name;
            }
        }
    }
}

impl Name {
    /// As people write it: dots between labels, `.` for the root; dots, backslashes and what can't be printed inside
    /// labels escaped as `\.`, `\\`, `\032` (RFC 4343, section 2.1). `…` where it is broken.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.labels.len());
        let mut rest = self.labels.as_slice();
        while let Some((length, behind)) = rest.split_first() {
            let (label, behind) = behind.split_at_checked(usize::from(*length)).unwrap_or((behind, &[]));
            if !text.is_empty() {
                text.push('.');
            }
            for byte in label {
                match byte {
                    b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
                    0x21..=0x7e => text.push(char::from(*byte)),
                    _ => text.push_str(&format!("\\{byte:03}")),
                }
            }
            rest = behind;
        }
        if self.broken {
            text.push('…');
        } else if text.is_empty() {
            text.push('.');
        }
        text
    }
}

pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(rest: &[u8]) -> Vec<u8> {
        [&[0; HEADER_BYTES], rest].concat()
    }

    #[test]
    fn names_are_escaped_and_pointers_followed() {
        let bytes = message(b"\x03www\x07exa.ple\x00\x01\\\xc0\x10\x01 \xc0\x20");
        assert_eq!(name(&bytes, 12).text(), "www.exa\\.ple");
        assert_eq!(name(&bytes, 25).text(), "\\\\.exa\\.ple");
        assert_eq!(skip_name(&bytes, 25), Ok(29));
        assert_eq!(name(&bytes, 29).text(), "\\032…");
        assert_eq!(name(&message(b"\0"), 12).text(), ".");
    }

    #[test]
    fn loops_end() {
        for rest in [&b"\xc0\x0c"[..], b"\x01a\xc0\x0c", b"\x01a\xc0\x0e\xc0\x0c", b"\xc0\xff", b"\xc0"] {
            assert!(name(&message(rest), 12).broken, "{rest:?}");
            assert!(skip_name(&message(rest), 12).is_err(), "{rest:?}");
        }
        let long = message(&b"\x3f".iter().copied().chain([b'x'; 63]).collect::<Vec<_>>().repeat(5));
        assert!(name(&long, 12).labels.len() <= MAX_NAME_BYTES && name(&long, 12).broken);
        assert_eq!(skip_name(&long, 12), Err(End::Bad));
    }
}
