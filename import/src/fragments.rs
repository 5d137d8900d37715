//! IP packets put together from fragments (RFC 791, section 3.2; RFC 8200, section 4.5).
//!
//! By hand, though etherparse has a pool: that one has no bound on memory, and an overlap ends it.

use std::collections::{HashMap, VecDeque};

use crate::counters::Counters;
use crate::packet::IpHeader;

/// How long a packet waits for its fragments: Linux's `ipfrag_time`.
const TIMEOUT_NS: u64 = 30_000_000_000;
/// Packets that wait at once, and bytes of all of them.
const MAX_PACKETS: usize = 1024;
const MAX_BYTES: usize = 16 << 20;
/// Fragments of one packet: 64 KiB in pieces of 8 bytes would be absurd.
const MAX_PIECES: usize = 256;
/// Largest packet.
const MAX_PACKET_BYTES: u32 = 65_535;

/// One fragment.
#[derive(Debug, Clone, Copy)]
pub struct Fragment<'a> {
    /// Offset in the packet, bytes.
    pub offset: u32,
    /// More follow.
    pub more: bool,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The capture cut it.
    pub cut: bool,
    /// Tunnels around it.
    pub tunnels: u32,
}

/// A packet that is whole again.
#[derive(Debug)]
pub struct Whole {
    /// Its header.
    pub header: IpHeader,
    /// What it carries.
    pub bytes: Vec<u8>,
    /// Tunnels around it.
    pub tunnels: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: [u8; 16],
    destination: [u8; 16],
    id: u32,
    protocol: u8,
    family: u16,
}

#[derive(Debug)]
struct Waiting {
    /// Number that names it in the queue.
    number: u64,
    header: IpHeader,
    /// Offset and bytes, ascending, without overlap.
    pieces: Vec<(u32, Vec<u8>)>,
    bytes: usize,
    total: Option<u32>,
    cut: bool,
}

/// Packets that wait for fragments.
#[derive(Debug, Default)]
pub struct Fragments {
    waiting: HashMap<Key, Waiting>,
    order: VecDeque<(Key, u64, u64)>,
    next_number: u64,
    bytes: usize,
}

impl Fragments {
    /// Adds a fragment; gives the packet if that was its last one.
    pub fn add(
        &mut self,
        header: &IpHeader,
        fragment: &Fragment<'_>,
        time_ns: u64,
        counters: &mut Counters,
    ) -> Option<Whole> {
        self.expire(time_ns, counters);
        // The protocol is part of IPv4's key; IPv6's fragments all carry the first one's.
        let key = Key {
            source: header.source,
            destination: header.destination,
            id: header.id,
            protocol: header.protocol,
            family: header.family,
        };
        let number = self.next_number;
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting {
            number,
            header: *header,
            pieces: Vec::new(),
            bytes: 0,
            total: None,
            cut: false,
        });
        if waiting.number == number {
            self.next_number += 1;
            self.order.push_back((key, number, time_ns));
        }
        let before = waiting.bytes;
        waiting.add(fragment, counters);
        self.bytes += waiting.bytes - before;
        let whole = waiting.is_whole();
        let whole = if whole { self.take(&key, counters) } else { None };
        while self.bytes > MAX_BYTES || self.waiting.len() > MAX_PACKETS || self.order.len() > 4 * MAX_PACKETS {
            self.drop_oldest(counters);
        }
        whole.map(|whole| Whole { tunnels: fragment.tunnels, ..whole })
    }

    fn take(&mut self, key: &Key, counters: &mut Counters) -> Option<Whole> {
        let waiting = self.waiting.remove(key)?;
        self.bytes -= waiting.bytes;
        if waiting.cut {
            counters.fragments_incomplete += 1;
            return None;
        }
        counters.fragments_reassembled += 1;
        let bytes = waiting.pieces.into_iter().flat_map(|(_, bytes)| bytes).collect();
        Some(Whole { header: waiting.header, bytes, tunnels: 0 })
    }

    fn expire(&mut self, time_ns: u64, counters: &mut Counters) {
        while self.order.front().is_some_and(|(_, _, began)| began.saturating_add(TIMEOUT_NS) < time_ns) {
            self.drop_oldest(counters);
        }
        // Names of packets that are whole by now.
        while let Some((key, number, _)) = self.order.front()
            && self.waiting.get(key).is_none_or(|waiting| waiting.number != *number)
        {
            self.order.pop_front();
        }
    }

    fn drop_oldest(&mut self, counters: &mut Counters) {
        let Some((key, number, _)) = self.order.pop_front() else { return };
        if self.waiting.get(&key).is_some_and(|waiting| waiting.number == number)
            && let Some(waiting) = self.waiting.remove(&key)
        {
            self.bytes -= waiting.bytes;
            counters.fragments_incomplete += 1;
        }
    }

    /// Nothing more will come.
    pub fn finish(&mut self, counters: &mut Counters) {
        counters.fragments_incomplete += self.waiting.len() as u64;
        *self = Self::default();
    }
}

impl Waiting {
    fn add(&mut self, fragment: &Fragment<'_>, counters: &mut Counters) {
        let length = u32::try_from(fragment.bytes.len()).unwrap_or(u32::MAX);
        let end = fragment.offset.saturating_add(length);
        if end > MAX_PACKET_BYTES || self.pieces.len() >= MAX_PIECES {
            self.cut = true;
            return;
        }
        self.cut |= fragment.cut;
        if !fragment.more {
            self.total = self.total.or(Some(end));
        }
        // The first copy wins: of a later one only what is missing is taken.
        let (mut from, mut overlaps) = (fragment.offset, false);
        let mut fresh: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut take = |from: u32, to: u32| {
            let range = (from - fragment.offset) as usize..(to - fragment.offset) as usize;
            if let Some(bytes) = fragment.bytes.get(range).filter(|bytes| !bytes.is_empty()) {
                fresh.push((from, bytes.to_vec()));
            }
        };
        for (start, bytes) in &self.pieces {
            let stop = start + bytes.len() as u32;
            if stop <= from || *start >= end {
                continue;
            }
            overlaps = true;
            if *start > from {
                take(from, *start);
            }
            from = stop;
        }
        if from < end {
            take(from, end);
        }
        counters.fragments_overlapping += u64::from(overlaps);
        self.bytes += fresh.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        self.pieces.extend(fresh);
        self.pieces.sort_by_key(|(start, _)| *start);
    }

    fn is_whole(&self) -> bool {
        let mut at = 0;
        for (start, bytes) in &self.pieces {
            if *start != at {
                return false;
            }
            at += bytes.len() as u32;
        }
        self.total.is_some_and(|total| at >= total)
    }
}
