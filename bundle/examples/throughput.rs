//! How fast data blocks are encoded, compressed, decompressed and decoded, and how small they get.
//!
//! `cargo run --release -p kfr-bundle --example throughput [-- CAPTURE.pcap]`: synthetic events averaging 156 B, or
//! the TCP segments of a packet capture on loopback as both ends would record them, payload stored once.

use kfr_bundle::events::{
    DIRECTION_RECEIVED, DIRECTION_SENT, DataEvent, EventHeader, KIND_DATA, MISSING_PEER_KEEPS, OFFSET_TCP,
};
use kfr_bundle::{Block, BlockKind, Compressor, DataBlock, DataColumns};
use std::collections::HashMap;
use std::time::Instant;

const SEAL_BYTES: usize = 4 << 20;

type Event = (DataEvent, Vec<u8>);

fn main() {
    let path = std::env::args().nth(1);
    let (events, capture) = match &path {
        Some(path) => {
            let bytes = std::fs::read(path).expect("the capture can be read");
            (from_pcap(&bytes), Some(bytes))
        }
        None => (synthetic(600_000), None),
    };
    let raw: usize = events.iter().map(|(_, payload)| size_of::<DataEvent>() + payload.len()).sum();
    println!("{} events of {:.1} B on average", events.len(), raw as f64 / events.len() as f64);

    // One run of memory, as the ring buffer is: what an allocator does is not measured.
    let ring: Vec<u8> = events.iter().flat_map(|(_, payload)| payload.iter().copied()).collect();

    let mut best = [f64::MAX; 5];
    let mut blocks = Vec::new();
    for _ in 0..5 {
        let mut columns = DataColumns::new();
        blocks.clear();
        let start = Instant::now();
        let mut rest = ring.as_slice();
        for (event, _) in &events {
            let (payload, after) = rest.split_at(event.kept as usize);
            rest = after;
            columns.push(event, payload);
            if columns.raw_bytes() >= SEAL_BYTES {
                let mut block = Vec::new();
                columns.encode(&mut block);
                blocks.push((columns.len(), block));
                columns.clear();
            }
        }
        let mut block = Vec::new();
        columns.encode(&mut block);
        blocks.push((columns.len(), block));
        best[0] = best[0].min(start.elapsed().as_secs_f64());
    }
    for (_, block) in &blocks {
        let _warm = DataBlock::decode(block.clone(), 0).expect("own blocks decode");
    }
    let mut sizes = Vec::new();
    let mut sealed_blocks = Vec::new();
    for (level, slot) in [(1, 1), (3, 2)] {
        let mut compressor = Compressor::new(level).expect("zstd has these levels");
        let mut size = 0;
        for round in 0..3 {
            let start = Instant::now();
            size = 0;
            for (rows, block) in &blocks {
                let sealed = compressor.seal(&Block::new(BlockKind::DATA, *rows as u32), block).expect("it seals");
                size += sealed.file_bytes();
                if level == 1 && round == 0 {
                    sealed_blocks.push((block.len(), sealed));
                } else {
                    compressor.recycle(sealed.into_buffer());
                }
            }
            best[slot] = best[slot].min(start.elapsed().as_secs_f64());
        }
        sizes.push(size);
    }
    let mut buffer = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        for (raw_len, sealed) in &sealed_blocks {
            buffer.resize(*raw_len, 0);
            let mut context = zstd::bulk::Decompressor::new().expect("zstd decompresses");
            let frame = sealed.clone().into_buffer();
            context.decompress_to_buffer(&frame, buffer.as_mut_slice()).expect("own frames decompress");
        }
        best[3] = best[3].min(start.elapsed().as_secs_f64());
        let mut total = 0;
        let mut copies: Vec<_> = blocks.iter().map(|(_, block)| block.clone()).collect();
        let start = Instant::now();
        for block in &mut copies {
            let decoded = DataBlock::decode(std::mem::take(block), 0).expect("own blocks decode");
            total += decoded.len();
            *block = decoded.into_buffer();
        }
        best[4] = best[4].min(start.elapsed().as_secs_f64());
        assert_eq!(total, events.len());
    }

    let rate = |seconds: f64| {
        format!("{:6.1} M events/s {:6.0} MB/s", events.len() as f64 / seconds / 1e6, raw as f64 / seconds / 1e6)
    };
    println!("encode          {}", rate(best[0]));
    println!("zstd 1          {}", rate(best[1]));
    println!("zstd 3          {}", rate(best[2]));
    println!("encode + zstd 1 {}", rate(best[0] + best[1]));
    println!("decompress      {}", rate(best[3]));
    println!("decode          {}", rate(best[4]));
    for (level, size) in [1, 3].iter().zip(&sizes) {
        println!(
            "size at zstd {level}: {size} B, {:.2} B an event, ratio {:.2}",
            *size as f64 / events.len() as f64,
            raw as f64 / *size as f64
        );
    }
    if let Some(bytes) = capture {
        let pcap = zstd::bulk::compress(&bytes, 3).expect("the capture compresses").len();
        println!("pcap {} B, at zstd 3 {pcap} B", bytes.len());
        for (level, size) in [1, 3].iter().zip(&sizes) {
            println!("bundle at zstd {level} / pcap at zstd 3: {:.3}", *size as f64 / pcap as f64);
        }
    }
    columns_of(&events);
}

/// What each column costs: its bytes before and after compression by itself.
fn columns_of(events: &[Event]) {
    let mut columns = DataColumns::new();
    for (event, payload) in events.iter().take(12_000) {
        columns.push(event, payload);
    }
    let mut raw = Vec::new();
    columns.encode(&mut raw);
    let rows = columns.len() as f64;
    let mut at = 5;
    println!("column             raw B/event   zstd 1 alone");
    while at < raw.len() {
        let name_length = usize::from(raw[at] & 0x1f);
        let name = String::from_utf8_lossy(&raw[at + 1..at + 1 + name_length]).into_owned();
        at += 1 + name_length;
        if raw[at] == 0xcf {
            at += 9;
            continue;
        }
        let length = u32::from_be_bytes([raw[at + 1], raw[at + 2], raw[at + 3], raw[at + 4]]) as usize;
        let bytes = &raw[at + 5..at + 5 + length];
        at += 5 + length;
        let small = zstd::bulk::compress(bytes, 1).expect("columns compress").len();
        println!("{name:18} {:11.2} {:14.2}", length as f64 / rows, small as f64 / rows);
    }
}

/// A generator of numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Requests and answers on 64 connections between two processes, both ends recorded.
fn synthetic(count: usize) -> Vec<Event> {
    let mut numbers = Numbers(1);
    let mut clock = Clock::default();
    let mut ends: Vec<[u64; 2]> = (0..64).map(|_| [numbers.below(1 << 32), numbers.below(1 << 32)]).collect();
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let connection = numbers.below(64);
        let user = numbers.below(100_000);
        let request = match numbers.below(3) {
            0 => format!("*2\r\n$3\r\nGET\r\n$12\r\nuser:{user:07}\r\n"),
            1 => format!("SELECT id, name, price FROM products WHERE category_id = {user} ORDER BY price LIMIT 20"),
            _ => format!(
                "GET /api/products/{user}?page={} HTTP/1.1\r\nHost: shop\r\nX-Request-Id: {:016x}\r\n\r\n",
                numbers.below(50),
                numbers.below(u64::MAX)
            ),
        };
        let mut answer = format!(
            "{{\"id\":{user},\"name\":\"product {}\",\"price\":{}.{:02}}}",
            numbers.below(5000),
            numbers.below(500),
            numbers.below(100)
        );
        for _ in 0..numbers.below(12) {
            answer += &format!(
                ",{{\"id\":{},\"stock\":{},\"tag\":\"{:08x}\"}}",
                numbers.below(100_000),
                numbers.below(300),
                numbers.below(1 << 32)
            );
        }
        let message = |from: u64,
                       payload: &[u8],
                       numbers: &mut Numbers,
                       ends: &mut Vec<[u64; 2]>,
                       clock: &mut Clock,
                       events: &mut Vec<Event>| {
            let offset = ends[connection as usize][from as usize];
            ends[connection as usize][from as usize] = (offset + payload.len() as u64) & 0xffff_ffff;
            for end in [from, 1 - from] {
                let direction = if end == from { DIRECTION_SENT } else { DIRECTION_RECEIVED };
                let kept = if end == from { payload } else { &[] };
                let socket = 4096 + connection * 2 + end;
                let event = clock.event(numbers, socket, end, direction, offset, payload.len(), kept.len());
                events.push((event, kept.to_vec()));
            }
        };
        message(0, request.as_bytes(), &mut numbers, &mut ends, &mut clock, &mut events);
        message(1, answer.as_bytes(), &mut numbers, &mut ends, &mut clock, &mut events);
    }
    events
}

/// Time and the numbers of events on two CPUs.
#[derive(Default)]
struct Clock {
    time_ns: u64,
    sequence: [u64; 2],
}

impl Clock {
    #[expect(clippy::too_many_arguments, reason = "an example")]
    fn event(
        &mut self,
        numbers: &mut Numbers,
        socket: u64,
        end: u64,
        direction: u8,
        offset: u64,
        length: usize,
        kept: usize,
    ) -> DataEvent {
        self.time_ns += 1000 + numbers.below(8000);
        let cpu = if numbers.below(20) == 0 { 1 - end } else { end };
        self.sequence[cpu as usize] += 1;
        DataEvent {
            header: EventHeader {
                time_ns: self.time_ns,
                sequence: self.sequence[cpu as usize],
                kind: KIND_DATA,
                cpu: cpu as u16,
                thread: 1000 + end as u32 * 50 + (socket % 4) as u32,
                process: 1000 + end as u32 * 50,
                reserved: 0,
            },
            socket,
            offset,
            length: length as u32,
            kept: kept as u32,
            age_ns: 2000 + numbers.below(6000) as u32,
            direction,
            offset_kind: OFFSET_TCP,
            missing: if kept < length { MISSING_PEER_KEEPS } else { 0 },
            reserved: 0,
        }
    }
}

/// Events of the TCP segments with payload in a classic pcap file of Ethernet frames with IPv4 (what tcpdump writes on
/// loopback): a sent event with the bytes and a received event without them.
fn from_pcap(bytes: &[u8]) -> Vec<Event> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let nanos = u32_at(0) == 0xa1b2_3c4d;
    let mut numbers = Numbers(1);
    let mut sockets = HashMap::new();
    let mut clock = Clock::default();
    let mut events = Vec::new();
    let mut at = 24;
    while at + 16 <= bytes.len() {
        let fraction = u32_at(at + 4) as u64 * if nanos { 1 } else { 1000 };
        let time_ns = u32_at(at) as u64 * 1_000_000_000 + fraction;
        let length = u32_at(at + 8);
        let packet = &bytes[at + 16..at + 16 + length];
        at += 16 + length;
        if packet.len() < 54 || packet[12..14] != [8, 0] || packet[23] != 6 {
            continue;
        }
        let ip = &packet[14..];
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]])).min(ip.len());
        let tcp = &ip[usize::from(ip[0] & 15) * 4..total];
        let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
        if payload.is_empty() {
            continue;
        }
        let from = u16::from_be_bytes([tcp[0], tcp[1]]);
        let to = u16::from_be_bytes([tcp[2], tcp[3]]);
        let offset = u64::from(u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]));
        let mut socket = |own: u16, other: u16| {
            let next = 4096 + sockets.len() as u64;
            *sockets.entry((own, other)).or_insert(next)
        };
        let (sender, receiver) = (socket(from, to), socket(to, from));
        let server = u64::from(from > to);
        for (socket, end, direction, kept) in
            [(sender, 1 - server, DIRECTION_SENT, payload), (receiver, server, DIRECTION_RECEIVED, &[])]
        {
            let kept = &kept[..kept.len().min(4096)];
            clock.time_ns = time_ns + if direction == DIRECTION_RECEIVED { 5000 + numbers.below(8000) } else { 0 };
            let mut event = clock.event(&mut numbers, socket, end, direction, offset, payload.len(), kept.len());
            event.header.time_ns -= 1000;
            events.push((event, kept.to_vec()));
        }
    }
    events
}
