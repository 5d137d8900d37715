//! Frame headers (RFC 9113, section 4.1) and what bytes must be to be taken for one.

use crate::Side;
use crate::pairing::Looks;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const HAS_PRIORITY: u8 = 0x20;

/// Bytes of a frame header.
pub(super) const HEAD_BYTES: usize = 9;

/// What a client sends first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Payloads larger than this are not met: peers leave SETTINGS_MAX_FRAME_SIZE at 16 KiB, few raise it to 1 MiB.
const MAX_LIKELY_BYTES: u32 = 1 << 20;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of payload.
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub reserved: bool,
}

impl Head {
    /// `None` where its bytes are not all there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = bytes.first_chunk::<HEAD_BYTES>()?;
        let stream = u32::from_be_bytes(*stream);
        Some(Self {
            length: u32::from_be_bytes([0, *a, *b, *c]),
            kind: *kind,
            flags: *flags,
            stream: stream & 0x7fff_ffff,
            reserved: stream >> 31 != 0,
        })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether a peer may send it: lengths and streams as their kind demands. Kinds that are not known are passed over,
    /// as RFC 9113 (section 4.1) wants it; of those only such that are registered, or reserved to be ignored.
    pub fn is_valid(&self) -> bool {
        match self.kind {
            DATA => self.stream != 0,
            HEADERS | PUSH_PROMISE | CONTINUATION => self.stream != 0,
            PRIORITY => self.stream != 0 && self.length == 5,
            RST_STREAM => self.stream != 0 && self.length == 4,
            SETTINGS => self.stream == 0 && self.length.is_multiple_of(6),
            PING => self.stream == 0 && self.length == 8,
            GOAWAY => self.stream == 0 && self.length >= 8,
            WINDOW_UPDATE => self.length == 4,
            kind => kind < 0x20 || (kind - 0x0b).is_multiple_of(0x1f),
        }
    }

    /// A stricter judgement: a frame as peers send them.
    pub fn is_likely(&self, side: Side) -> bool {
        let flags = match self.kind {
            DATA => END_STREAM | PADDED,
            HEADERS => END_STREAM | END_HEADERS | PADDED | HAS_PRIORITY,
            PUSH_PROMISE => END_HEADERS | PADDED,
            CONTINUATION => END_HEADERS,
            SETTINGS | PING => ACK,
            PRIORITY | RST_STREAM | GOAWAY | WINDOW_UPDATE => 0,
            _ => return false,
        };
        let stream = match self.kind {
            // Only pushed streams are even, and only servers send on them.
            DATA | HEADERS | CONTINUATION => side == Side::Server || self.stream % 2 == 1,
            PUSH_PROMISE => side == Side::Server && self.stream % 2 == 1,
            _ => true,
        };
        let length = match self.kind {
            HEADERS => self.length > 0,
            SETTINGS => !self.has(ACK) || self.length == 0,
            _ => true,
        };
        let likely = self.flags & !flags == 0 && stream && length && self.length <= MAX_LIKELY_BYTES;
        likely && !self.reserved && self.is_valid()
    }
}

/// What bytes that begin with a frame say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Frame headers that are wholly there, one behind the other.
    pub frames: u32,
    /// Of those, such that hardly anything else looks like: all kinds but DATA.
    pub telling: u32,
}

/// Walks over frames from the start of `bytes`; `Err` at the first one that is none, or is none of this side.
/// `telling` judges a frame that is no DATA by its payload, as far as that is there.
pub(super) fn chain(side: Side, mut bytes: &[u8], telling: impl Fn(&Head, &[u8]) -> Option<bool>) -> Result<Chain, ()> {
    let mut found = Chain::default();
    while let Some(head) = Head::read(bytes) {
        if !head.is_likely(side) {
            return Err(());
        }
        found.frames += 1;
        let payload = bytes.get(HEAD_BYTES..).unwrap_or_default();
        let whole = payload.get(..head.length as usize);
        if head.kind != DATA && telling(&head, whole.unwrap_or(payload)).ok_or(())? {
            found.telling += 1;
        }
        let Some(rest) = payload.get(head.length as usize..) else { break };
        bytes = rest;
    }
    Ok(found)
}

/// Whether a frame begins here, asked where one has to be found anew. `newest`: the highest stream that was seen.
pub(super) fn looks(side: Side, bytes: &[u8], cut: bool, newest: u32) -> Looks {
    if side == Side::Client && !bytes.is_empty() && newest == 0 {
        // It was the beginning after all.
        let shared = bytes.len().min(PREFACE.len());
        if bytes.get(..shared) == PREFACE.get(..shared) {
            return if shared == PREFACE.len() { Looks::Yes } else { Looks::Open };
        }
    }
    let Some(head) = Head::read(bytes) else { return if cut { Looks::No } else { Looks::Open } };
    // Nobody opens thousands of streams in a piece that was lost, other than by losing very much.
    let near = newest == 0 || head.stream <= newest.saturating_add(1 << 16);
    let next = bytes.get(HEAD_BYTES + head.length as usize..).and_then(Head::read);
    (near && head.is_likely(side) && next.is_none_or(|next| next.is_valid() && !next.reserved)).into()
}

/// An error code's name (RFC 9113, section 7).
pub(super) fn error_name(code: u32) -> Option<&'static str> {
    const NAMES: &[&str] = &[
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).copied()
}
