//! Records (RFC 8446, section 5.1) and the handshake messages that they carry in pieces (section 4).

/// Type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
/// Content and what encryption adds at most (RFC 5246, section 6.2.3).
const MAX_RECORD_BYTES: u16 = (1 << 14) + 2048;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
/// RFC 6520.
const HEARTBEAT: u8 = 24;

/// Bytes of a handshake message that are kept: a hello, or the first certificate of a chain.
const MAX_KEPT_BYTES: usize = 32 << 10;
/// Type and length.
const MESSAGE_HEAD_BYTES: usize = 4;

/// What stands at the start of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Short,
    Record { kind: u8, length: u16 },
    Bad,
}

pub(super) fn head(bytes: &[u8]) -> Head {
    let fits = |at: usize, right: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|byte| right(*byte));
    if !fits(0, &|kind| (CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(&kind))
        || !fits(1, &|major| major == 3)
        || !fits(2, &|minor| minor <= 4)
    {
        return Head::Bad;
    }
    let Some([kind, _, _, high, low]) = bytes.first_chunk() else { return Head::Short };
    let length = u16::from_be_bytes([*high, *low]);
    // Only application data may be empty. What isn't encrypted has a size of its own; encryption adds at least 16.
    let right = match *kind {
        CHANGE_CIPHER_SPEC => length == 1 || length >= 16,
        ALERT => length == 2 || length >= 16,
        HANDSHAKE => length > 0,
        _ => true,
    };
    if right && length <= MAX_RECORD_BYTES { Head::Record { kind: *kind, length } } else { Head::Bad }
}

/// A hello in SSL 2.0's form that offers SSL 3.0 or later (RFC 5246, appendix E.2).
pub(super) fn is_version_2_hello(bytes: &[u8]) -> bool {
    let Some([high, low, 1, 3, minor, rest @ ..]) = bytes.first_chunk::<VERSION_2_HEAD_BYTES>() else { return false };
    let [a, b, c, d, e, f] = *rest;
    let length = u16::from_be_bytes([*high & 0x7f, *low]);
    let (suites, session, challenge) =
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), u16::from_be_bytes([e, f]));
    let sum = 9_u32 + u32::from(suites) + u32::from(session) + u32::from(challenge);
    high & 0x80 != 0
        && *minor <= 4
        && suites > 0
        && suites % 3 == 0
        && matches!(session, 0 | 16)
        && (16..=32).contains(&challenge)
        && sum == u32::from(length)
}

/// Bytes that tell whether a hello has SSL 2.0's form.
pub(super) const VERSION_2_HEAD_BYTES: usize = 11;

/// Whether bytes may become a hello in SSL 2.0's form.
pub(super) fn may_be_version_2(bytes: &[u8]) -> bool {
    let fits = |at: usize, right: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|byte| right(*byte));
    fits(0, &|high| high & 0x80 != 0) && fits(2, &|kind| kind == 1) && fits(3, &|major| major == 3)
}

/// Puts handshake messages together.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// The message under way, its head included.
    buffer: Vec<u8>,
    /// Bytes of it that nobody needs and that are still to come.
    skip: u64,
    /// A message's head is missing: where the next one begins can't be told.
    lost: bool,
}

impl Assembly {
    /// Adds bytes; `message` gets each message's type and content, as far as that is kept.
    pub fn push(&mut self, mut bytes: &[u8], mut message: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() && !self.lost {
            let skipped = (bytes.len() as u64).min(self.skip) as usize;
            self.skip -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = match self.length() {
                None => MESSAGE_HEAD_BYTES,
                Some(length) => MESSAGE_HEAD_BYTES + kept(length),
            };
            let taken = wanted.saturating_sub(self.buffer.len()).min(bytes.len());
            let (here, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
            self.buffer.extend_from_slice(here);
            bytes = rest;
            self.deliver(&mut message);
        }
    }

    fn length(&self) -> Option<u64> {
        let [_, a, b, c] = *self.buffer.first_chunk()?;
        Some(u64::from(u32::from_be_bytes([0, a, b, c])))
    }

    /// Hands out the message that is complete, or as complete as it will be.
    fn deliver(&mut self, message: &mut impl FnMut(u8, &[u8])) {
        let Some(length) = self.length() else { return };
        if self.buffer.len() < MESSAGE_HEAD_BYTES + kept(length) {
            return;
        }
        self.end(length, message);
    }

    fn end(&mut self, length: u64, message: &mut impl FnMut(u8, &[u8])) {
        if let Some((kind, [_, _, _, body @ ..])) = self.buffer.split_first() {
            message(*kind, body);
            self.skip = length.saturating_sub(body.len() as u64);
        }
        self.buffer.clear();
    }

    /// Bytes are missing: the message under way is handed out as far as it came.
    pub fn hole(&mut self, count: u64, mut message: impl FnMut(u8, &[u8])) {
        if let Some(length) = self.length() {
            self.end(length, &mut message);
        }
        self.lost |= count > self.skip || !self.buffer.is_empty();
        self.skip = self.skip.saturating_sub(count);
        self.buffer.clear();
    }

    /// Nothing more will come in the clear.
    pub fn finish(&mut self, mut message: impl FnMut(u8, &[u8])) {
        if let Some(length) = self.length() {
            self.end(length, &mut message);
        }
        *self = Self { lost: true, ..Self::default() };
    }
}

fn kept(length: u64) -> usize {
    length.min(MAX_KEPT_BYTES as u64) as usize
}
