//! File formats, hostile files, and bounds.

mod common;

use common::{ACK, SYN, Segment, content, imported, pcap, segment};
use kfr_import::{Error, FileEnd};
use proptest::prelude::*;

fn packet(id: u16) -> Vec<u8> {
    Segment { id, ..segment(true, ACK, 100 + u32::from(id) * 3, 500, b"abc") }.ip()
}

#[derive(Clone, Copy)]
enum End {
    Little,
    Big,
}

impl End {
    fn u16(self, value: u16) -> Vec<u8> {
        match self {
            Self::Little => value.to_le_bytes().to_vec(),
            Self::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn u32(self, value: u32) -> Vec<u8> {
        match self {
            Self::Little => value.to_le_bytes().to_vec(),
            Self::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn block(self, kind: u32, content: &[u8]) -> Vec<u8> {
        let content = [content, &vec![0; content.len().next_multiple_of(4) - content.len()]].concat();
        let length = self.u32(content.len() as u32 + 12);
        [self.u32(kind), length.clone(), content, length].concat()
    }

    fn section(self) -> Vec<u8> {
        self.block(0x0a0d_0d0a, &[self.u32(0x1a2b_3c4d), self.u16(1), self.u16(0), vec![0xff; 8]].concat())
    }

    /// Raw IP; options as they stand.
    fn interface(self, snap_len: u32, options: &[u8]) -> Vec<u8> {
        self.block(1, &[self.u16(101), self.u16(0), self.u32(snap_len), options.to_vec()].concat())
    }

    fn enhanced(self, interface: u32, time: u64, packet: &[u8]) -> Vec<u8> {
        let length = self.u32(packet.len() as u32);
        let times = [self.u32((time >> 32) as u32), self.u32(time as u32)].concat();
        self.block(6, &[self.u32(interface), times, length.clone(), length, packet.to_vec()].concat())
    }
}

#[test]
fn every_byte_order_and_resolution_of_pcap() {
    for (magic, big, unit_ns, extra) in [
        (0xa1b2_c3d4u32, false, 1000, 0),
        (0xa1b2_c3d4, true, 1000, 0),
        (0xa1b2_3c4d, false, 1, 0),
        (0xa1b2_3c4d, true, 1, 0),
        (0xa1b2_cd34, false, 1000, 8),
    ] {
        let order = if big { End::Big } else { End::Little };
        let mut file = [magic, 0, 0, 0, 65535, 101].map(|field| order.u32(field)).concat();
        let packet = packet(1);
        for field in [7, 9, packet.len() as u32, packet.len() as u32] {
            file.extend(order.u32(field));
        }
        file.extend(vec![0; extra]);
        file.extend(&packet);
        let found = content(&file);
        assert_eq!((found.data.len(), found.data[0].time_ns), (1, 7_000_000_000 + 9 * unit_ns), "{magic:x} {big}");
    }
}

#[test]
fn pcapng_with_all_it_may_hold() {
    for order in [End::Little, End::Big] {
        let other = if matches!(order, End::Little) { End::Big } else { End::Little };
        let option = |order: End, code: u16, value: &[u8]| {
            let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
            [order.u16(code), order.u16(value.len() as u16), value.to_vec(), padding].concat()
        };
        let hour = if matches!(order, End::Little) { 3600u64.to_le_bytes() } else { 3600u64.to_be_bytes() };
        let simple = order.block(3, &[order.u32(packet(3).len() as u32), packet(3)].concat());
        let length = order.u32(packet(4).len() as u32);
        let old = [order.u16(0), order.u16(3), order.u32(0), order.u32(9_000_000), length.clone(), length, packet(4)]
            .concat();
        let file = [
            order.section(),
            order.interface(0, &option(order, 2, b"eth7")),
            // Units of 2^-10 s, an hour late.
            order.interface(0, &[option(order, 9, &[0x8a]), option(order, 14, &hour)].concat()),
            order.enhanced(0, 5_000_000, &packet(1)),
            order.block(0x0bad, b"unknown"),
            order.enhanced(1, 2048 + 512, &packet(2)),
            order.enhanced(9, 0, &packet(50)),
            simple,
            order.block(2, &old),
            other.section(),
            other.interface(0, &option(other, 9, &[9])),
            other.enhanced(0, 77, &packet(5)),
        ]
        .concat();
        let found = content(&file);
        let times: Vec<_> = found.data.iter().map(|data| data.time_ns).collect();
        // The packet without a time has that of the one before.
        let hours = 3_602_500_000_000;
        assert_eq!(times, [5_000_000_000, hours, hours, 9_000_000_000, 77]);
        let counters = &found.summary.counters;
        assert_eq!((counters.packets, counters.packets_unreadable, counters.blocks_skipped), (5, 1, 3));
        assert_eq!(found.summary.end, FileEnd::Whole);
    }
}

#[test]
fn a_file_cut_anywhere_is_read_as_far_as_it_goes() {
    let whole = pcap(101, &[(1, packet(1)), (2, packet(2))]);
    let ng = [
        End::Little.section(),
        End::Little.interface(0, &[]),
        End::Little.enhanced(0, 5, &packet(1)),
        End::Little.enhanced(0, 6, &packet(2)),
    ]
    .concat();
    for (file, header) in [(whole, 24), (ng, 28)] {
        let mut before = 0;
        for length in 0..=file.len() {
            match imported(&file[..length]) {
                Ok((summary, _)) => {
                    assert!(summary.counters.packets >= before);
                    before = summary.counters.packets;
                }
                Err(Error::NotACapture) => assert!(length < header),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(before, 2);
    }
    assert!(matches!(imported(b""), Err(Error::NotACapture)));
    assert!(matches!(imported(&[0x7f; 4096]), Err(Error::NotACapture)));
}

#[test]
fn the_same_capture_gives_the_same_bytes_and_another_one_another_uuid() {
    let file = pcap(101, &[(1, packet(1)), (2, packet(2))]);
    assert_eq!(imported(&file).unwrap().1, imported(&file).unwrap().1);
    let other = pcap(101, &[(1, packet(1)), (2, packet(3))]);
    assert_ne!(imported(&file).unwrap().1[24..40], imported(&other).unwrap().1[24..40]);
}

/// A capture that is never in memory as a whole.
struct Generated {
    count: u64,
    at: u64,
    frame: fn(u64) -> Vec<u8>,
    ready: std::io::Cursor<Vec<u8>>,
}

impl Generated {
    fn new(count: u64, frame: fn(u64) -> Vec<u8>) -> Self {
        Self { count, at: 0, frame, ready: std::io::Cursor::new(pcap(101, &[])) }
    }
}

impl std::io::Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.ready.read(buffer)?;
        if got > 0 || self.at == self.count {
            return Ok(got);
        }
        let mut batch = Vec::new();
        while batch.len() < 1 << 16 && self.at < self.count {
            batch.extend_from_slice(&pcap(101, &[(self.at, (self.frame)(self.at))])[24..]);
            self.at += 1;
        }
        self.ready = std::io::Cursor::new(batch);
        self.ready.read(buffer)
    }
}

impl std::io::Seek for Generated {
    fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
        *self = Self::new(self.count, self.frame);
        Ok(0)
    }
}

/// Most memory that this process ever had, bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Both in one test: the peak is that of the whole process.
#[test]
fn memory_is_bounded_with_a_million_half_open_connections_and_ten_thousand_gaps() {
    let sink = || Box::new(std::io::sink());
    let half_open = |at: u64| {
        let mut syn = Segment { id: 1, client_port: at as u16, ..segment(true, SYN, at as u32, 0, b"") }.ip();
        syn[13] = (at >> 16) as u8;
        syn
    };
    let before = peak_bytes();
    let summary = kfr_import::import(Generated::new(1_000_000, half_open), "x", |header| {
        kfr_bundle::Writer::to_stream(sink(), header)
    })
    .unwrap();
    assert_eq!(summary.counters.tcp_connections, 1_000_000);
    assert!(summary.counters.flows_evicted >= 800_000);
    // Every second segment is missing, and nobody acknowledges.
    let gaps = |at: u64| Segment { id: 1, ..segment(true, ACK, at as u32 * 2000, 500, &[7; 1000]) }.ip();
    let summary =
        kfr_import::import(Generated::new(20_000, gaps), "x", |header| kfr_bundle::Writer::to_stream(sink(), header))
            .unwrap();
    assert_eq!((summary.counters.gaps, summary.counters.segments_missing_bytes), (19_999, 19_999_000));
    let grown = peak_bytes().saturating_sub(before) >> 20;
    println!("grown by {grown} MiB");
    assert!(grown < 192, "{grown} MiB");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 256 } else { 2000 }))]

    #[test]
    fn any_bytes_behind_a_header_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), link in any::<u8>()) {
        let mut file = pcap(u32::from(link), &[]);
        file.extend_from_slice(&bytes);
        let _ = imported(&file);
        let mut file = End::Little.section();
        file.extend_from_slice(&End::Little.interface(0, &[]));
        file.extend_from_slice(&bytes);
        let _ = imported(&file);
        let _ = imported(&bytes);
    }

    #[test]
    fn any_packets_are_survived(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..12),
        link in prop_oneof![Just(0u32), Just(1), Just(9), Just(10), Just(51), Just(101), Just(104), Just(105), Just(113), Just(127), Just(276)],
        kind in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100), Just(0x8847), Just(0x8864), Just(0x894f), any::<u16>()],
        first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
    ) {
        let frames: Vec<_> = packets.into_iter().enumerate().map(|(at, mut packet)| {
            if let [_, _, _, _, _, _, _, _, _, _, _, _, high, low, version, ..] = packet.as_mut_slice() {
                [*high, *low] = kind.to_be_bytes();
                *version = first;
            }
            (at as u64, packet)
        }).collect();
        content(&pcap(link, &frames));
    }

    #[test]
    fn any_conversation_is_survived(
        segments in proptest::collection::vec((any::<bool>(), any::<u8>(), 0u32..3000, 0u32..3000, 0usize..50, any::<bool>()), 0..60),
    ) {
        let frames: Vec<_> = segments.iter().enumerate().map(|(at, (up, flags, sequence, acknowledged, length, far))| {
            let far = if *far { 1 << 31 } else { 0 };
            let one = Segment { id: at as u16, ..segment(*up, *flags, sequence.wrapping_add(far), *acknowledged, &vec![at as u8; *length]) };
            (at as u64 * 700, one.ip())
        }).collect();
        let found = content(&pcap(101, &frames));
        // In each direction of each socket the bytes come once, in order.
        for socket in &found.sockets {
            for sent in [true, false] {
                let mut end = None;
                for data in found.data.iter().filter(|data| data.socket == socket.socket && data.sent == sent) {
                    if let Some(end) = end {
                        let ahead = (data.offset as u32).wrapping_sub(end);
                        prop_assert!(ahead < 1 << 31, "{} after {}", data.offset, end);
                    }
                    end = Some((data.offset as u32).wrapping_add(data.length));
                }
            }
        }
    }
}
