//! The file header: 512 bytes that stand twice at the start and once more in the footer.

use crate::error::OpenError;
use uuid::Uuid;

/// First bytes of a bundle. The line ends and the `^Z` show a transfer that converted text.
pub const FILE_MAGIC: [u8; 8] = *b"KFR\0\r\n\x1a\n";

/// Size of the file header in this major version.
pub const FILE_HEADER_BYTES: usize = 512;

/// Where the first block begins: after both copies of the file header.
pub const FIRST_BLOCK_OFFSET: u64 = 2 * FILE_HEADER_BYTES as u64;

/// Longest node name, bytes (a DNS name has at most 253).
pub const MAX_NODE_BYTES: usize = 256;

/// Flag of the file header: several bundles are merged in this file (see [`crate::merge`]).
pub const FLAG_MERGED: u32 = 1;

/// The format's version. A newer minor version adds what older readers can skip; a newer major version doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Changes when an older reader would misread.
    pub major: u16,
    /// Changes when something is added.
    pub minor: u16,
}

impl Version {
    /// What this crate writes.
    pub const CURRENT: Self = Self { major: 0, minor: 1 };
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The clock of every event time, by its Linux number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockId(pub u16);

impl ClockId {
    /// `CLOCK_REALTIME`: what an import from packet captures has.
    pub const REALTIME: Self = Self(0);
    /// `CLOCK_MONOTONIC`.
    pub const MONOTONIC: Self = Self(1);
    /// `CLOCK_BOOTTIME`: what a capture writes.
    pub const BOOTTIME: Self = Self(7);
}

/// What holds for the whole bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// Version of the format that the file was written with.
    pub format: Version,
    /// This bundle. It is also mixed into the checksum of every block header, so that traffic that contains a bundle
    /// can't be taken for this one's blocks.
    pub bundle_id: Uuid,
    /// The bundle that this one was cut or made from; nil for a recording, an import or a merge.
    pub derived_from: Uuid,
    /// The node's name, UTF-8, at most [`MAX_NODE_BYTES`] bytes (longer is cut).
    pub node: String,
    /// `/proc/sys/kernel/random/boot_id`, its 16 bytes; zero where unknown.
    pub boot_id: [u8; 16],
    /// The clock of event times.
    pub clock: ClockId,
    /// 0: raw, nothing was masked. Other levels are defined with redaction.
    pub redaction: u16,
    /// 0: none. With any other value, payloads can't be read by this version.
    pub encryption: u16,
    /// `FLAG_MERGED` or 0.
    pub flags: u32,
    /// Wall clock when the bundle was begun, ns since 1970; 0 where unknown.
    pub created_realtime_ns: u64,
    /// `clock` at the same moment, ns.
    pub created_clock_ns: u64,
}

impl FileHeader {
    /// A header of the current version for a new recording on `node`: fresh UUID, boot clock, raw, not encrypted.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            format: Version::CURRENT,
            bundle_id: Uuid::new_v4(),
            derived_from: Uuid::nil(),
            node: node.into(),
            boot_id: [0; 16],
            clock: ClockId::BOOTTIME,
            redaction: 0,
            encryption: 0,
            flags: 0,
            created_realtime_ns: 0,
            created_clock_ns: 0,
        }
    }

    /// First four bytes of the UUID: how addresses name a bundle.
    pub fn short_origin(&self) -> u32 {
        crate::block::short_origin(self.bundle_id.as_bytes())
    }

    /// The header's bytes, with its checksum.
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut cut = self.node.len().min(MAX_NODE_BYTES);
        while !self.node.is_char_boundary(cut) {
            cut -= 1;
        }
        let node = self.node.as_bytes().get(..cut).unwrap_or_default();
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
        bytes.extend_from_slice(&FILE_MAGIC);
        bytes.extend_from_slice(&self.format.major.to_le_bytes());
        bytes.extend_from_slice(&self.format.minor.to_le_bytes());
        bytes.extend_from_slice(&(FILE_HEADER_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.extend_from_slice(self.bundle_id.as_bytes());
        bytes.extend_from_slice(self.derived_from.as_bytes());
        bytes.extend_from_slice(&self.boot_id);
        bytes.extend_from_slice(&self.created_realtime_ns.to_le_bytes());
        bytes.extend_from_slice(&self.created_clock_ns.to_le_bytes());
        bytes.extend_from_slice(&self.clock.0.to_le_bytes());
        bytes.extend_from_slice(&self.redaction.to_le_bytes());
        bytes.extend_from_slice(&self.encryption.to_le_bytes());
        bytes.extend_from_slice(&(node.len() as u16).to_le_bytes());
        bytes.extend_from_slice(node);
        let mut header = [0; FILE_HEADER_BYTES];
        for (to, from) in header.iter_mut().zip(&bytes) {
            *to = *from;
        }
        let crc = checksum(&header).to_le_bytes();
        for (to, from) in header.iter_mut().skip(CRC_AT).zip(&crc) {
            *to = *from;
        }
        header
    }

    /// Reads one copy of the header.
    ///
    /// # Errors
    /// [`OpenError::NotABundle`] without the magic, [`OpenError::NewerMajor`] if the copy is intact but newer, else
    /// [`OpenError::HeaderDamaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        if bytes.get(..FILE_MAGIC.len()) != Some(&FILE_MAGIC) {
            return Err(OpenError::NotABundle);
        }
        // The first 20 bytes keep their meaning in every version: they are how an old reader knows that it is old.
        let mut fields = Fields::new(bytes, FILE_MAGIC.len());
        let damaged = OpenError::HeaderDamaged;
        let (Some(major), Some(minor), Some(length), Some(crc)) =
            (fields.u16(), fields.u16(), fields.u32(), fields.u32())
        else {
            return Err(damaged);
        };
        let whole = usize::try_from(length).ok().filter(|length| *length >= 20).and_then(|length| bytes.get(..length));
        if whole.map(checksum) != Some(crc) {
            return Err(damaged);
        }
        let found = Version { major, minor };
        if major > Version::CURRENT.major {
            return Err(OpenError::NewerMajor { found, supported: Version::CURRENT });
        }
        Self::decode_fields(found, &mut fields).ok_or(damaged)
    }

    fn decode_fields(format: Version, fields: &mut Fields<'_>) -> Option<Self> {
        let flags = fields.u32()?;
        let bundle_id = Uuid::from_bytes(fields.array()?);
        let derived_from = Uuid::from_bytes(fields.array()?);
        let boot_id = fields.array()?;
        let created_realtime_ns = fields.u64()?;
        let created_clock_ns = fields.u64()?;
        let clock = ClockId(fields.u16()?);
        let redaction = fields.u16()?;
        let encryption = fields.u16()?;
        let node_bytes = usize::from(fields.u16()?).min(MAX_NODE_BYTES);
        let node = String::from_utf8_lossy(fields.bytes(node_bytes)?).into_owned();
        Some(Self {
            format,
            bundle_id,
            derived_from,
            node,
            boot_id,
            clock,
            redaction,
            encryption,
            flags,
            created_realtime_ns,
            created_clock_ns,
        })
    }
}

const CRC_AT: usize = 16;

/// CRC32C of a file header with its checksum field taken as zero.
fn checksum(header: &[u8]) -> u32 {
    crc_without_field(0, header, CRC_AT)
}

/// CRC32C of `bytes` continued from `seed`, with the four bytes at `at` taken as zero.
pub(crate) fn crc_without_field(seed: u32, bytes: &[u8], at: usize) -> u32 {
    let crc = crc32c::crc32c_append(seed, bytes.get(..at).unwrap_or_default());
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, bytes.get(at + 4..).unwrap_or_default())
}

/// Little-endian fields read one after the other.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
