//! Compressed MySQL connections by hand
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html>): both algorithms, holes,
//! late starts, hostile frames.

mod common;
mod conversations;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{Piece, packet, packets_from, parser, run};
use conversations::{C, COLUMN, EOF, GREETING, OK, S, login};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, REGISTRY, Side, Status, Streams};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Packing {
    /// Sent as it is.
    Plain,
    Zlib,
    Zstd,
}
use Packing::{Plain, Zlib, Zstd};

const ZLIB: u32 = 1 << 5;
const ZSTD: u32 = 1 << 26;

fn frame(number: u8, packing: Packing, content: &[u8]) -> Vec<u8> {
    let payload = match packing {
        Plain => content.to_vec(),
        Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Zstd => zstd::bulk::compress(content, 3).unwrap(),
    };
    let unpacked = if packing == Plain { 0 } else { content.len() };
    raw(number, unpacked, &payload)
}

fn raw(number: u8, unpacked: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(number);
    bytes.extend_from_slice(&(unpacked as u32).to_le_bytes()[..3]);
    bytes.extend_from_slice(payload);
    bytes
}

fn query(text: &str) -> Vec<u8> {
    packet(0, &[b"\x03", text.as_bytes()].concat())
}

/// A result of so many rows of 40 bytes.
fn rows(count: usize) -> Vec<u8> {
    let row = [&[39_u8][..], &[b'r'; 39]].concat();
    let mut payloads: Vec<&[u8]> = vec![b"\x01", COLUMN, EOF];
    payloads.extend(std::iter::repeat_n(row.as_slice(), count));
    payloads.push(EOF);
    packets_from(1, &payloads)
}

/// The packets in frames of `size` bytes.
fn frames(first: u8, packing: Packing, content: &[u8], size: usize) -> Vec<u8> {
    content.chunks(size).enumerate().flat_map(|(i, part)| frame(first.wrapping_add(i as u8), packing, part)).collect()
}

fn logged_in(capabilities: u32) -> Vec<(bool, Piece)> {
    [(S, packet(0, GREETING)), (C, login(capabilities)), (S, packet(2, OK))].map(|(c, b)| (c, Piece::Bytes(b))).to_vec()
}

fn bytes(list: Vec<(bool, Vec<u8>)>) -> Vec<(bool, Piece)> {
    list.into_iter().map(|(client, bytes)| (client, Piece::Bytes(bytes))).collect()
}

fn read(mid_stream: bool, pieces: &[(bool, Piece)]) -> Output {
    run(parser("mysql", mid_stream).as_mut(), pieces)
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let rows = e.rows.map_or("-".into(), |r| r.to_string());
        format!("{} {} {:?} {rows}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

const LONG: &str = "SELECT name FROM a_table_with_a_name WHERE a_column = 'a value' AND another_column = 'a value'";
const LONG_SHOWN: &str = "query select name from a_table_with_a_name where a_column = ? and another_column = ?";

/// Three commands: their sends, and the ranges of frames on the wire.
fn conversation(packing: Packing) -> Vec<(bool, Vec<u8>)> {
    vec![
        (C, frame(0, packing, &query(LONG))),
        (S, frames(1, packing, &rows(100), 1000)),
        (C, frame(0, Plain, &packet(0, b"\x0e"))),
        (S, frame(1, Plain, &packet(1, OK))),
        (C, frame(0, packing, &query(LONG))),
        (S, frame(1, packing, &rows(30))),
    ]
}

fn expected() -> Vec<String> {
    vec![format!("{LONG_SHOWN} Ok 100"), "ping - Ok -".into(), format!("{LONG_SHOWN} Ok 30")]
}

#[test]
fn both_algorithms_are_read_with_offsets_of_the_wire() {
    for (capability, packing) in [(ZLIB, Zlib), (ZSTD, Zstd)] {
        let sends = conversation(packing);
        let mut pieces = logged_in(capability);
        let before: [u64; 2] =
            [login(capability).len() as u64, (packet(0, GREETING).len() + packet(2, OK).len()) as u64];
        pieces.extend(bytes(sends.clone()));
        let out = read(false, &pieces);
        assert_eq!(short(&out), expected());
        let (mut client, mut server) = (before[0], before[1]);
        for (exchange, pair) in out.exchanges.iter().zip(sends.chunks(2)) {
            assert_eq!(exchange.request, client..client + pair[0].1.len() as u64);
            assert_eq!(exchange.response, Some(server..server + pair[1].1.len() as u64));
            client = exchange.request.end;
            server = exchange.response.clone().unwrap().end;
        }
        assert_eq!(out.skipped_bytes, [0, 0]);
        assert_eq!(short(&read(true, &bytes(sends))), expected());
    }
}

#[test]
fn commands_without_answer_wait_for_their_last_frame() {
    let long = packet(0, &[&b"\x18\x01\0\0\0\0\0"[..], &[b'v'; 5000]].concat());
    let ping = packet(0, b"\x0e");
    let sent = frames(0, Zlib, &[long, ping].concat(), 1000);
    let mut pieces = logged_in(ZLIB);
    pieces.extend(bytes(vec![(C, sent.clone()), (S, frame(1, Plain, &packet(1, OK)))]));
    let out = read(false, &pieces);
    let start = login(ZLIB).len() as u64;
    let end = start + sent.len() as u64;
    assert_eq!(short(&out), ["send_long_data - Ok -", "ping - Ok -"]);
    // The last frame holds the end of the one and all of the other.
    assert_eq!(out.exchanges[0].request, start..end);
    assert!(out.exchanges[1].request.start > start && out.exchanges[1].request.end == end);
}

/// The conversation with `count` bytes from `at` on of one send lost.
fn damaged(packing: Packing, send: usize, at: usize, count: usize, kind: fn(u64) -> Piece) -> Output {
    let mut pieces = logged_in(ZLIB);
    for (index, (client, bytes)) in conversation(packing).into_iter().enumerate() {
        if index != send {
            pieces.push((client, Piece::Bytes(bytes)));
            continue;
        }
        let end = (at + count).min(bytes.len());
        if at > 0 {
            pieces.push((client, Piece::Bytes(bytes[..at].to_vec())));
        }
        pieces.push((client, kind((end - at) as u64)));
        if end < bytes.len() {
            pieces.push((client, Piece::Bytes(bytes[end..].to_vec())));
        }
    }
    read(false, &pieces)
}

#[test]
fn holes_in_answers_leave_requests_and_ranges() {
    for packing in [Zlib, Zstd] {
        let whole = read(false, &[logged_in(ZLIB), bytes(conversation(packing))].concat());
        let answer = conversation(packing)[1].1.len();
        for kind in [Piece::Cut as fn(u64) -> Piece, Piece::Lost] {
            for at in 0..answer {
                for count in [1, 40, answer] {
                    let out = damaged(packing, 1, at, count, kind);
                    let ops: Vec<_> = out.exchanges.iter().map(|e| (&e.op, &e.target, &e.request)).collect();
                    let want: Vec<_> = whole.exchanges.iter().map(|e| (&e.op, &e.target, &e.request)).collect();
                    assert_eq!(ops, want, "{count} at {at}");
                    assert_eq!(
                        out.exchanges[0].response.as_ref().map(|r| r.end),
                        whole.exchanges[0].response.as_ref().map(|r| r.end)
                    );
                    // What is behind is read as if nothing had been.
                    assert_eq!(out.exchanges[1..], whole.exchanges[1..], "{count} at {at}");
                    if let Some(rows) = out.exchanges[0].rows {
                        assert_eq!(rows, 100, "{count} at {at}: never a number that is not true");
                    }
                }
            }
        }
    }
}

#[test]
fn holes_in_requests_leave_the_others() {
    for packing in [Zlib, Zstd] {
        let whole = read(false, &[logged_in(ZLIB), bytes(conversation(packing))].concat());
        let sent = conversation(packing)[0].1.len();
        for at in 0..sent {
            for count in [1, 9, sent] {
                let out = damaged(packing, 0, at, count, Piece::Cut);
                let behind = out.exchanges.len().checked_sub(2).expect("two others");
                assert!(behind <= 1);
                assert_eq!(out.exchanges[behind..], whole.exchanges[1..], "{count} at {at}");
                if let [first] = &out.exchanges[..behind] {
                    assert!(first.flags.contains(Flags::TRUNCATED) || first.target == whole.exchanges[0].target);
                }
            }
        }
    }
}

#[test]
fn the_kept_part_of_a_cut_frame_is_read() {
    // zlib streams: what is there of the answer says that it went well, and how it begins.
    let answer = conversation(Zlib)[1].1.len();
    let out = damaged(Zlib, 1, answer - 20, 20, Piece::Cut);
    assert_eq!(out.exchanges[0].status, Status::Ok);
    assert!(out.exchanges[0].flags.contains(Flags::TRUNCATED) && out.exchanges[0].rows.is_none());
}

#[test]
fn splits_change_nothing_and_every_byte_has_a_class() {
    for packing in [Zlib, Zstd] {
        let whole = read(false, &[logged_in(ZLIB), bytes(conversation(packing))].concat());
        for size in [1, 2, 7, 300] {
            let mut pieces = logged_in(ZLIB);
            for (client, sent) in conversation(packing) {
                pieces.extend(sent.chunks(size).map(|part| (client, Piece::Bytes(part.to_vec()))));
            }
            assert_eq!(read(false, &pieces).exchanges, whole.exchanges, "in pieces of {size}");
        }
        for side in [Side::Client, Side::Server] {
            let mut marks: Vec<_> =
                whole.marks.iter().flatten().filter(|m| m.side == side).map(|m| m.range.clone()).collect();
            marks.sort_by_key(|range| range.start);
            assert!(marks.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}

#[test]
fn passwords_stay_secret_in_frames() {
    let change = packet(0, b"\x11root\0\x04abcdshop\0\x21\0mysql_native_password\0");
    let mut pieces = logged_in(ZLIB);
    let at = login(ZLIB).len() as u64 + 7;
    let sent = frames(0, Zlib, &change, 30);
    pieces.extend(bytes(vec![
        (C, sent),
        (S, frame(1, Plain, &packet(1, OK))),
        (C, frame(0, Plain, &packet(0, b"\x0e"))),
    ]));
    let out = read(false, &pieces);
    let classes: Vec<_> = out
        .marks
        .iter()
        .flatten()
        .filter(|mark| mark.side == Side::Client && mark.range.start >= at && mark.class != ByteClass::Structure)
        .map(|mark| mark.class)
        .collect();
    assert_eq!(classes, [ByteClass::Secret, ByteClass::Secret, ByteClass::Value]);
}

#[test]
fn frames_are_detected_in_the_middle() {
    let mysql = REGISTRY.iter().find(|protocol| protocol.name == "mysql").unwrap();
    for packing in [Plain, Zlib, Zstd] {
        let (client, server) = (frame(0, packing, &query(LONG)), frame(1, packing, &rows(9)));
        let detect = |client: &[u8], server: &[u8]| {
            (mysql.detect)(&Prefix { client, server, mid_stream: true, complete: true, ..Prefix::default() })
        };
        assert_eq!(detect(&client, &server), Detected::Certain, "{packing:?}");
        assert_eq!(detect(&client, b""), Detected::Likely, "{packing:?}");
        assert_eq!(detect(&client[..9], b""), Detected::No, "{packing:?}");
        // Other payloads of the same shape.
        assert_eq!(detect(&frame(0, packing, &[b'x'; 200]), &server), Detected::No, "{packing:?}");
        assert_eq!(detect(&frame(1, packing, &query(LONG)), &server), Detected::No, "{packing:?}");
    }
    // PostgreSQL: a startup message, then a simple query.
    for client in [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
        b"\0\0\0\x21\0\x03\0\0user\0app\0database\0shop\0\0",
        b"Q\0\0\0\x0dSELECT 1\0",
    ] {
        for mid_stream in [false, true] {
            let prefix = Prefix {
                client,
                server: b"R\0\0\0\x08\0\0\0\0",
                mid_stream,
                complete: true,
                server_port: Some(3306),
                ..Prefix::default()
            };
            assert_eq!((mysql.detect)(&prefix), Detected::No);
        }
    }
}

#[test]
fn hostile_frames_are_bounded() {
    let zeros = |length: usize, packing| frame(1, packing, &vec![0; length]);
    for packing in [Zlib, Zstd] {
        let mut lying = zeros(16 << 20, packing);
        lying[4..7].copy_from_slice(&[0xff, 0xff, 0]);
        for answer in [
            // Holds more than it announces; announces what it doesn't hold; nonsense; empty.
            lying,
            raw(1, 0xff_ffff, &zeros(100, packing)[7..]),
            raw(1, 0xff_ffff, b"\x78\x9cnonsense nonsense"),
            raw(1, 5, b""),
            raw(1, 3, b"not compressed"),
        ] {
            let mut pieces = logged_in(ZLIB);
            pieces.extend(bytes(vec![
                (C, frame(0, packing, &query(LONG))),
                (S, answer),
                (C, frame(0, Plain, &packet(0, b"\x0e"))),
                (S, frame(1, Plain, &packet(1, OK))),
            ]));
            let out = read(false, &pieces);
            assert_eq!(out.exchanges.len(), 2);
            assert_eq!((out.exchanges[0].status, out.exchanges[0].rows), (Status::Unknown, None));
            assert_eq!((&*out.exchanges[1].op, out.exchanges[1].status), ("ping", Status::Ok));
        }
    }
}

#[test]
fn bombs_take_bounded_time() {
    // 16 MiB of zeros in about 500 bytes, a thousand times: 16 GB, were they all unpacked.
    let bomb = frame(1, Zstd, &vec![0; 0xff_ffff]);
    assert!(bomb.len() < 2000);
    let mut pieces = logged_in(ZSTD);
    pieces.extend(bytes(vec![(C, frame(0, Plain, &query("SELECT 1")))]));
    pieces.extend(std::iter::repeat_n((S, Piece::Bytes(bomb)), 1000));
    let start = Instant::now();
    read(false, &pieces);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn linear_time() {
    // An answer of 100 MB in 64 KiB frames, in chunks of 1 KiB, and 200,000 pings in frames of their own.
    let mut parser = parser("mysql", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    let mut push = |client: bool, bytes: &[u8]| {
        let stream = if client { &mut streams.client } else { &mut streams.server };
        stream.push(bytes);
        parser.parse(&mut streams, &mut out);
        std::mem::take(&mut out.exchanges)
    };
    push(S, &packet(0, GREETING));
    push(C, &login(ZLIB));
    push(S, &packet(2, OK));
    push(C, &frame(0, Plain, &query("SELECT 1")));
    let start = Instant::now();
    let mut seen = 0;
    for chunk in frames(1, Plain, &rows(2_500_000), 60_000).chunks(1000) {
        for exchange in push(S, chunk) {
            assert_eq!(exchange.rows, Some(2_500_000));
            seen += 1;
        }
    }
    assert_eq!(seen, 1);
    let ping = frame(0, Plain, &packet(0, b"\x0e"));
    let pong = frame(1, Plain, &packet(1, OK));
    for _ in 0..200_000 {
        seen += push(C, &ping).len();
        seen += push(S, &pong).len();
    }
    assert_eq!(seen, 200_001);
    push(C, &ping.repeat(60_000));
    assert_eq!(push(S, &pong.repeat(60_000)).len(), 60_000);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}
