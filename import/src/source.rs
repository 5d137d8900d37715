//! Packets of a pcap or pcapng file, one after the other, in constant memory.
//!
//! Sources: pcap, draft-ietf-opsawg-pcap; pcapng, draft-ietf-opsawg-pcapng; the obsolete Packet Block is in the latter's
//! appendix.

use std::io::{self, Read};

use crate::Error;
use crate::bytes::{Order, u16_at, u32_at};

/// Largest captured packet, bytes. What tcpdump calls its largest snapshot is 256 KiB; loopback and offloads can be
/// larger than that one day.
const MAX_PACKET_BYTES: u32 = 16 << 20;
/// Largest block of pcapng that is read into memory; larger ones are passed over.
const MAX_BLOCK_BYTES: u32 = MAX_PACKET_BYTES + (1 << 20);
/// Interfaces of one section that are remembered.
const MAX_INTERFACES: usize = 65_536;
/// Interface names that are kept for the manifest.
const MAX_NAMES: usize = 256;
/// Bytes that a read takes at once.
const CHUNK_BYTES: usize = 1 << 18;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// A captured packet.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Link type (<https://www.tcpdump.org/linktypes.html>).
    pub link: u16,
    /// Number of the interface in the whole file.
    pub interface: u32,
    /// Wall clock, ns since 1970.
    pub time_ns: u64,
    /// Length on the wire.
    pub wire_len: u32,
    /// What was captured of it.
    pub bytes: &'a [u8],
}

/// How the file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileEnd {
    /// At the end of a packet or block.
    Whole,
    /// In the middle of one.
    Truncated,
    /// At something that is no packet or block.
    Damaged,
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link: u16,
    /// Number in the whole file.
    number: u32,
    snap_len: u32,
    /// Units of a timestamp in a second.
    units: u128,
    /// Seconds to be added.
    offset_s: i64,
}

enum Format {
    Pcap { nanoseconds: bool, modified: bool, link: u16 },
    Pcapng { interfaces: Vec<Interface> },
}

/// Reads packets.
pub struct Source<R> {
    input: Buffered<R>,
    order: Order,
    format: Format,
    interfaces: u32,
    names: Vec<String>,
    last_ns: u64,
    end: Option<FileEnd>,
    /// Blocks of unknown or other use, and packets of an unknown interface.
    skipped: [u64; 2],
    block: Vec<u8>,
}

impl<R: Read> Source<R> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// [`Error::NotACapture`], [`Error::Read`].
    pub fn open(input: R) -> Result<Self, Error> {
        let mut input = Buffered::new(input);
        let head = input.peek(24)?;
        let magic = u32_at(head, 0, Order::Little).ok_or(Error::NotACapture)?;
        let (order, format) = if magic == SECTION_HEADER {
            let order = byte_order(head.get(8..12).unwrap_or_default()).ok_or(Error::NotACapture)?;
            (order, Format::Pcapng { interfaces: Vec::new() })
        } else {
            let (order, nanoseconds, modified) = match magic {
                0xa1b2_c3d4 => (Order::Little, false, false),
                0xa1b2_3c4d => (Order::Little, true, false),
                // Alexey Kuznetzov's variant, with eight more bytes a packet.
                0xa1b2_cd34 => (Order::Little, false, true),
                0xd4c3_b2a1 => (Order::Big, false, false),
                0x4d3c_b2a1 => (Order::Big, true, false),
                0x34cd_b2a1 => (Order::Big, false, true),
                _ => return Err(Error::NotACapture),
            };
            // The upper half tells of frame check sequences.
            let link = u32_at(head, 20, order).ok_or(Error::NotACapture)? as u16;
            input.consume(24);
            (order, Format::Pcap { nanoseconds, modified, link })
        };
        Ok(Self {
            input,
            order,
            format,
            interfaces: 0,
            names: Vec::new(),
            last_ns: 0,
            end: None,
            skipped: [0; 2],
            block: Vec::new(),
        })
    }

    /// The next packet; `None` at the end of what can be read.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        match &self.format {
            Format::Pcap { nanoseconds, modified, link } => {
                let (nanoseconds, modified, link) = (*nanoseconds, *modified, *link);
                self.next_record(nanoseconds, modified, link)
            }
            Format::Pcapng { .. } => self.next_packet_block(),
        }
    }

    /// How the file ended; meaningful once [`Self::next`] gave `None`.
    pub fn end(&self) -> FileEnd {
        self.end.unwrap_or(FileEnd::Whole)
    }

    /// Names of interfaces, in the order of the file, each once.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Blocks of pcapng that hold no packet, and packets whose interface the file doesn't describe.
    pub fn skipped(&self) -> [u64; 2] {
        self.skipped
    }

    fn finish(&mut self, end: FileEnd) -> Result<Option<Frame<'_>>, Error> {
        self.end = Some(end);
        Ok(None)
    }

    fn next_record(&mut self, nanoseconds: bool, modified: bool, link: u16) -> Result<Option<Frame<'_>>, Error> {
        let header_len = if modified { 24 } else { 16 };
        let head = self.input.peek(header_len)?;
        let fields = (u32_at(head, 0, self.order), u32_at(head, 4, self.order), u32_at(head, 8, self.order));
        let (Some(seconds), Some(fraction), Some(captured)) = fields else {
            let end = if head.is_empty() { FileEnd::Whole } else { FileEnd::Truncated };
            return self.finish(end);
        };
        let wire_len = u32_at(head, 12, self.order);
        let (true, Some(wire_len)) = (head.len() >= header_len, wire_len) else {
            return self.finish(FileEnd::Truncated);
        };
        if captured > MAX_PACKET_BYTES {
            return self.finish(FileEnd::Damaged);
        }
        let unit_ns = if nanoseconds { 1 } else { 1_000 };
        let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit_ns;
        self.input.consume(header_len);
        let captured = captured as usize;
        // What there is of a packet at the end of a truncated file is worth as much as a snapped one.
        let got = self.input.fill(captured)?;
        if got < captured {
            self.end = Some(FileEnd::Truncated);
            if got == 0 {
                return Ok(None);
            }
        }
        let bytes = self.input.take(got);
        Ok(Some(Frame { link, interface: 0, time_ns, wire_len: wire_len.max(captured as u32), bytes }))
    }

    fn next_packet_block(&mut self) -> Result<Option<Frame<'_>>, Error> {
        loop {
            let head = self.input.peek(12)?;
            if head.len() < 12 {
                let end = if head.is_empty() { FileEnd::Whole } else { FileEnd::Truncated };
                return self.finish(end);
            }
            let mut kind = u32_at(head, 0, self.order).unwrap_or_default();
            if u32_at(head, 0, Order::Little) == Some(SECTION_HEADER) {
                kind = SECTION_HEADER;
                match byte_order(head.get(8..12).unwrap_or_default()) {
                    Some(order) => self.order = order,
                    None => return self.finish(FileEnd::Damaged),
                }
                // Interfaces are numbered anew in each section.
                self.format = Format::Pcapng { interfaces: Vec::new() };
            }
            let length = u32_at(head, 4, self.order).unwrap_or_default();
            if length < 12 || !length.is_multiple_of(4) {
                return self.finish(FileEnd::Damaged);
            }
            let wanted = matches!(kind, INTERFACE_DESCRIPTION | OLD_PACKET | SIMPLE_PACKET | ENHANCED_PACKET);
            if !wanted || length > MAX_BLOCK_BYTES {
                self.skipped[0] += 1;
                if !self.input.skip(u64::from(length))? {
                    return self.finish(FileEnd::Truncated);
                }
                continue;
            }
            let got = self.input.fill(length as usize)?;
            let mut block = std::mem::take(&mut self.block);
            block.clear();
            block.extend_from_slice(self.input.take(got));
            self.block = block;
            if got < length as usize {
                self.end = Some(FileEnd::Truncated);
            }
            if kind == INTERFACE_DESCRIPTION {
                self.interface();
            } else if let Some(found) = self.packet(kind, length as usize) {
                self.last_ns = found.time_ns;
                let bytes = self.block.get(found.from..found.to).unwrap_or_default();
                let Found { link, interface, time_ns, wire_len, .. } = found;
                return Ok(Some(Frame { link, interface, time_ns, wire_len, bytes }));
            } else {
                self.skipped[1] += 1;
            }
            if self.end.is_some() {
                return Ok(None);
            }
        }
    }

    /// Remembers an interface (section 4.2 of the draft).
    fn interface(&mut self) {
        let mut interface = Interface {
            link: u16_at(&self.block, 8, self.order).unwrap_or_default(),
            number: self.interfaces,
            snap_len: u32_at(&self.block, 12, self.order).unwrap_or_default(),
            units: 1_000_000,
            offset_s: 0,
        };
        self.interfaces = self.interfaces.saturating_add(1);
        let mut options = self.block.get(16..self.block.len().saturating_sub(4)).unwrap_or_default();
        while let (Some(code), Some(length)) = (u16_at(options, 0, self.order), u16_at(options, 2, self.order)) {
            let length = usize::from(length);
            let Some(value) = options.get(4..4 + length) else { break };
            match (code, value) {
                (0, _) => break,
                (2, name) => {
                    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_string();
                    if !name.is_empty() && self.names.len() < MAX_NAMES && !self.names.contains(&name) {
                        self.names.push(name);
                    }
                }
                (9, [resolution, ..]) => {
                    let power = u32::from(resolution & 0x7f);
                    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
                    // Finer than 2^96 of a second is no clock.
                    interface.units = base.checked_pow(power).filter(|units| *units < 1 << 96).unwrap_or(1_000_000);
                }
                (14, [a, b, c, d, e, f, g, h, ..]) => {
                    let bytes = [*a, *b, *c, *d, *e, *f, *g, *h];
                    interface.offset_s = match self.order {
                        Order::Little => i64::from_le_bytes(bytes),
                        Order::Big => i64::from_be_bytes(bytes),
                    };
                }
                _ => {}
            }
            options = options.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        }
        if let Format::Pcapng { interfaces } = &mut self.format
            && interfaces.len() < MAX_INTERFACES
        {
            interfaces.push(interface);
        }
    }

    /// Where a block's packet is, and what is said of it.
    fn packet(&self, kind: u32, length: usize) -> Option<Found> {
        let field = |at| u32_at(&self.block, at, self.order);
        let (number, from, captured, wire_len, time) = match kind {
            ENHANCED_PACKET => (field(8)?, 28, field(20)?, field(24)?, Some((field(12)?, field(16)?))),
            // Its interface has 16 bits; 16 more count drops.
            OLD_PACKET => {
                let interface = u32::from(u16_at(&self.block, 8, self.order)?);
                (interface, 28, field(20)?, field(24)?, Some((field(12)?, field(16)?)))
            }
            _ => (0, 12, u32::MAX, field(8)?, None),
        };
        let Format::Pcapng { interfaces } = &self.format else { return None };
        let interface = interfaces.get(number as usize)?;
        let mut captured = captured.min(u32::try_from(length.checked_sub(from + 4)?).unwrap_or(u32::MAX));
        if kind == SIMPLE_PACKET {
            let snap_len = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
            captured = captured.min(wire_len).min(snap_len);
        }
        let to = (from + captured as usize).min(self.block.len());
        if to <= from && captured > 0 {
            return None;
        }
        let time_ns = match time {
            Some((high, low)) => interface.time_ns(u64::from(high) << 32 | u64::from(low)),
            None => self.last_ns,
        };
        let wire_len = wire_len.max(captured);
        Some(Found { link: interface.link, interface: interface.number, time_ns, wire_len, from, to })
    }
}

struct Found {
    link: u16,
    interface: u32,
    time_ns: u64,
    wire_len: u32,
    from: usize,
    to: usize,
}

impl Interface {
    /// A timestamp on the wall clock, ns; times before 1970 or after 2554 don't fit.
    fn time_ns(&self, units: u64) -> u64 {
        let ns = u128::from(units) * 1_000_000_000 / self.units;
        let ns = i128::try_from(ns).unwrap_or(i128::MAX);
        let ns = ns.saturating_add(i128::from(self.offset_s) * 1_000_000_000);
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// The byte-order magic of a section header.
fn byte_order(bytes: &[u8]) -> Option<Order> {
    match bytes {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(Order::Little),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(Order::Big),
        _ => None,
    }
}

/// A reader whose next bytes can be looked at.
struct Buffered<R> {
    input: R,
    buffer: Vec<u8>,
    at: usize,
    eof: bool,
}

impl<R: Read> Buffered<R> {
    fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), at: 0, eof: false }
    }

    fn ready(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// Reads until `wanted` bytes are ready or the input ends; says how many of them are. Memory follows what there is to
    /// read, not what is asked for.
    fn fill(&mut self, wanted: usize) -> Result<usize, Error> {
        while self.ready() < wanted && !self.eof {
            self.buffer.drain(..self.at);
            self.at = 0;
            let had = self.buffer.len();
            self.buffer.resize(had + CHUNK_BYTES, 0);
            let result = self.input.read(self.buffer.get_mut(had..).unwrap_or_default());
            self.buffer.truncate(had + result.as_ref().copied().unwrap_or_default().min(CHUNK_BYTES));
            match result {
                Ok(0) => self.eof = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        Ok(self.ready().min(wanted))
    }

    /// The next bytes, at most `wanted`.
    fn peek(&mut self, wanted: usize) -> Result<&[u8], Error> {
        let ready = self.fill(wanted)?;
        Ok(self.buffer.get(self.at..self.at + ready).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.buffer.len());
    }

    /// Bytes that [`Self::fill`] made ready.
    fn take(&mut self, bytes: usize) -> &[u8] {
        let from = self.at;
        self.consume(bytes);
        self.buffer.get(from..self.at).unwrap_or_default()
    }

    /// Passes over bytes; false if the input ends before.
    fn skip(&mut self, mut bytes: u64) -> Result<bool, Error> {
        while bytes > 0 {
            let ready = self.fill(CHUNK_BYTES.min(usize::try_from(bytes).unwrap_or(CHUNK_BYTES)))?;
            if ready == 0 {
                return Ok(false);
            }
            self.consume(ready);
            bytes -= ready as u64;
        }
        Ok(true)
    }
}
