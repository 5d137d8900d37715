//! MongoDB: what a scripted server counted, and conversations by hand.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use common::{Piece, decode, parser, run, talk};
use kfr_protocols::{Exchange, Flags, Options, Start, Status, protocol_named};

const C: bool = true;
const S: bool = false;

fn message(id: i32, answers: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [16 + body.len() as i32, id, answers, op] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

fn string(name: &str, text: &str) -> Vec<u8> {
    element(2, name, &[&(text.len() as i32 + 1).to_le_bytes(), text.as_bytes(), &[0]].concat())
}

fn int(name: &str, number: i32) -> Vec<u8> {
    element(16, name, &number.to_le_bytes())
}

fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let inner = elements.concat();
    [&(inner.len() as i32 + 5).to_le_bytes(), inner.as_slice(), &[0]].concat()
}

fn msg(id: i32, answers: i32, flags: u32, body: &[u8]) -> Vec<u8> {
    message(id, answers, 2013, &[&flags.to_le_bytes(), &[0][..], body].concat())
}

fn find(id: i32, collection: &str) -> Vec<u8> {
    msg(id, 0, 0, &document(&[string("find", collection), string("$db", "shop")]))
}

fn ok(id: i32, answers: i32, flags: u32) -> Vec<u8> {
    msg(id, answers, flags, &document(&[int("ok", 1)]))
}

fn told(exchange: &Exchange) -> (String, String, Status, String) {
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or("-").to_owned();
    (exchange.op.to_string(), text(&exchange.target), exchange.status, text(&exchange.code))
}

/// What the peers in `scripts/peers/mongodb.py` counted while these were recorded: requests (of which one has no
/// answer), errors.
#[test]
fn recordings_agree_with_the_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/mongodb");
    for (name, requests, errors) in COUNTED {
        let (mut seen, mut failed, mut rows) = (0, 0, 0);
        for connection in common::connections(&root.join(name)) {
            let Some((protocol, out)) = decode(&connection, usize::MAX) else { panic!("{name}") };
            assert_eq!((protocol.name, out.skipped_bytes), ("mongodb", [0, 0]), "{name}");
            seen += out.exchanges.len();
            failed += out.exchanges.iter().filter(|e| e.status == Status::Error).count();
            rows += out.exchanges.iter().filter(|e| e.op.as_ref() == "find").filter_map(|e| e.rows).sum::<u64>();
            for exchange in out.exchanges.iter().filter(|e| !e.flags.contains(Flags::INCOMPLETE)) {
                assert!(matches!(exchange.status, Status::Ok | Status::Error), "{name} {exchange:?}");
                assert!(!exchange.error.as_deref().unwrap_or("").contains("secret"), "{exchange:?}");
            }
        }
        assert_eq!((seen, failed, rows), (*requests, *errors, 2), "{name}");
    }
}

const COUNTED: &[(&str, usize, usize)] =
    &[("commands.pcap", 18, 4), ("snappy.pcap", 18, 4), ("zlib.pcap", 18, 4), ("zstd.pcap", 18, 4)];

#[test]
fn answers_out_of_order_find_their_request() {
    let out = talk(
        "mongodb",
        false,
        &[(C, &find(7, "a")), (C, &find(8, "b")), (S, &ok(1, 8, 0)), (S, &ok(2, 7, 0)), (S, &ok(3, 99, 0))],
    );
    let found: Vec<_> = out.exchanges.iter().map(told).map(|(_, target, status, _)| (target, status)).collect();
    assert_eq!(found, [("shop.b".into(), Status::Ok), ("shop.a".into(), Status::Ok)]);
    assert!(out.exchanges[0].flags.contains(Flags::PIPELINED));
    assert_eq!(out.skipped_bytes, [0, 0]);
}

#[test]
fn a_stream_of_answers_is_one_answer() {
    let hello = msg(1, 0, 1 << 16, &document(&[int("hello", 1), string("$db", "admin")]));
    let (one, two, three) = (ok(10, 1, 2), ok(11, 10, 2), ok(12, 11, 0));
    let out = talk("mongodb", false, &[(C, &hello), (S, &one), (S, &two), (S, &three)]);
    assert_eq!(out.exchanges.len(), 1);
    assert_eq!(told(&out.exchanges[0]), ("hello".into(), "admin".into(), Status::Ok, "-".into()));
    assert_eq!(out.exchanges[0].response, Some(0..one.len() as u64 * 3));
    assert!(out.exchanges[0].flags.contains(Flags::STREAMING));
    let out = talk("mongodb", false, &[(C, &hello), (S, &one), (S, &two)]);
    assert!(out.exchanges[0].flags.contains(Flags::INCOMPLETE));
}

#[test]
fn operations_of_old_and_requests_without_answers() {
    let empty = document(&[]);
    let insert = message(1, 0, 2002, &[&[0; 4], &b"shop.log\0"[..], &empty].concat());
    let kill = message(2, 0, 2007, &[&[0; 4], &1u32.to_le_bytes()[..], &[9; 8]].concat());
    let more = message(3, 0, 2005, &[&[0; 4], &b"shop.log\0"[..], &[1, 0, 0, 0], &[9; 8]].concat());
    let gone = message(4, 3, 1, &[&1u32.to_le_bytes()[..], &[0; 16]].concat());
    let silent = msg(5, 0, 2, &document(&[string("insert", "log"), string("$db", "shop")]));
    let query = [&[0; 4], &b"shop.$cmd\0"[..], &[0; 8], &document(&[string("count", "log")])].concat();
    let count = message(6, 0, 2004, &query);
    let out = talk("mongodb", false, &[(C, &[insert, kill, more].concat()), (S, &gone), (C, &silent), (C, &count)]);
    let found: Vec<_> = out.exchanges.iter().map(told).collect();
    let expect = |op: &str, target: &str, status, code: &str| (op.into(), target.into(), status, code.into());
    assert_eq!(
        found,
        [
            expect("OP_INSERT", "shop.log", Status::Ok, "-"),
            expect("OP_KILL_CURSORS", "-", Status::Ok, "-"),
            expect("OP_GET_MORE", "shop.log", Status::Error, "CursorNotFound"),
            expect("insert", "shop.log", Status::Ok, "-"),
            expect("count", "shop.log", Status::Unanswered, "-"),
        ]
    );
    assert!(out.exchanges[3].flags.contains(Flags::NO_REPLY));
}

#[test]
fn errors_are_masked_unless_values_are_wanted() {
    let text = "E11000 duplicate key error collection: shop.a index: _id_1 dup key: { _id: \"x\", b: { c: 5 } }, id 77";
    let failed = document(&[int("ok", 0), string("errmsg", text), int("code", 11000)]);
    let pieces = [(C, Piece::Bytes(find(1, "a"))), (S, Piece::Bytes(msg(2, 1, 0, &failed)))];
    let out = run(parser("mongodb", false).as_mut(), &pieces);
    let masked = "E11000 duplicate key error collection: shop.a index: _id_1 dup key: {?}, id ?";
    assert_eq!(out.exchanges[0].error.as_deref(), Some(masked));
    assert_eq!(told(&out.exchanges[0]).3, "11000");
    let (_, protocol) = protocol_named("mongodb").unwrap();
    let options = Options { literals: true };
    let out = run((protocol.parser)(&Start { options, ..Start::default() }).as_mut(), &pieces);
    assert_eq!(out.exchanges[0].error.as_deref(), Some(text));
}

#[test]
fn holes_lose_no_more_than_they_hide() {
    let batch = document(&[element(3, "0", &document(&[string("note", &"x".repeat(100))]))]);
    let cursor = document(&[element(4, "firstBatch", &batch), string("ns", "shop.a")]);
    let answer = msg(9, 1, 0, &document(&[element(3, "cursor", &cursor), int("ok", 1)]));
    for kept in 0..answer.len() {
        let pieces = [
            (C, Piece::Bytes(find(1, "a"))),
            (S, Piece::Bytes(answer[..kept].to_vec())),
            (S, Piece::Cut((answer.len() - kept) as u64)),
            (C, Piece::Bytes(find(2, "b"))),
            (S, Piece::Bytes(ok(10, 2, 0))),
        ];
        let out = run(parser("mongodb", false).as_mut(), &pieces);
        let mut found: Vec<_> = out.exchanges.iter().map(told).collect();
        found.sort();
        assert_eq!(found[1].2, Status::Ok, "{kept}");
        assert!(matches!(found[0].2, Status::Ok | Status::Unknown), "{kept}");
        assert_eq!(found.len(), 2, "{kept}");
        let first = out.exchanges.iter().find(|e| e.target.as_deref() == Some("shop.a")).unwrap();
        // The cursor's name is enough.
        assert_eq!(first.status == Status::Unknown, kept < 33, "{kept}");
        if first.status == Status::Unknown {
            assert!(first.flags.contains(Flags::TRUNCATED), "{kept}");
        }
    }
}

#[test]
fn a_connection_joined_in_the_middle() {
    let (asked, answered) = (find(1, "a"), ok(2, 1, 0));
    let out =
        talk("mongodb", true, &[(S, b"rest of something"), (C, &[7; 9]), (C, &asked), (S, &answered), (C, &asked)]);
    assert_eq!(out.exchanges.len(), 2);
    assert!(out.exchanges[0].flags.contains(Flags::MID_STREAM));
    assert_eq!((out.exchanges[0].status, out.skipped_bytes), (Status::Ok, [9, 17]));
}

#[test]
fn time_and_memory_are_bounded() {
    // A message of 60 MB in small pieces, and a million small ones.
    let big =
        msg(1, 0, 0, &document(&[string("find", "a"), string("$db", "shop"), string("x", &"y".repeat(60 << 20))]));
    let mut pieces: Vec<_> = big.chunks(1024).map(|chunk| (C, Piece::Bytes(chunk.to_vec()))).collect();
    pieces.push((S, Piece::Bytes(ok(2, 1, 0))));
    let out = run(parser("mongodb", false).as_mut(), &pieces);
    assert_eq!(told(&out.exchanges[0]), ("find".into(), "shop.a".into(), Status::Ok, "-".into()));
    let mut pieces = Vec::new();
    for batch in 0..1000 {
        let ids = batch * 1000..batch * 1000 + 1000;
        pieces.push((C, Piece::Bytes(ids.clone().flat_map(|id| find(id, "a")).collect())));
        pieces.push((S, Piece::Bytes(ids.flat_map(|id| ok(id, id, 0)).collect())));
    }
    let out = run(parser("mongodb", false).as_mut(), &pieces);
    assert_eq!(out.exchanges.iter().filter(|e| e.status == Status::Ok).count(), 1_000_000);
    // Nobody answers, and lengths lie.
    let pieces: Vec<_> = (0..200_000).map(|id| (C, Piece::Bytes(find(id, "a")))).collect();
    assert_eq!(run(parser("mongodb", false).as_mut(), &pieces).exchanges.len(), 200_000);
    let lying =
        message(1, 0, 2013, &[&[0; 5], &u32::MAX.to_le_bytes()[..], &[3, b'a', 0, 255, 255, 255, 255]].concat());
    talk("mongodb", false, &[(C, &lying), (S, &lying)]);
    let bomb = [&2013u32.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &[1, 255, 255, 255, 255, 15, 1, 255]].concat();
    talk("mongodb", false, &[(C, &message(1, 0, 2012, &bomb)), (S, &message(1, 1, 2012, &bomb))]);
}

#[test]
fn names_in_a_hole_are_flagged() {
    let wrapped = document(&[element(3, "$query", &document(&[string("count", "customers")]))]);
    let old = |name: &str, inner: &[u8]| {
        let body = [&[0; 4][..], name.as_bytes(), &[0; 9], inner].concat();
        message(1, 0, 2004, &body)
    };
    let requests = [
        find(1, "customers"),
        old("shop.$cmd", &document(&[string("count", "customers"), int("skip", 0)])),
        old("shop.$cmd", &wrapped),
        old("shop.customers", &document(&[int("a", 1)])),
    ];
    for whole in requests {
        let intact = run(parser("mongodb", false).as_mut(), &[(C, Piece::Bytes(whole.clone()))]);
        for kept in 16..whole.len() {
            let hole = Piece::Lost((whole.len() - kept) as u64);
            let out = run(parser("mongodb", false).as_mut(), &[(C, Piece::Bytes(whole[..kept].to_vec())), (C, hole)]);
            let (found, intact) = (&out.exchanges[0], &intact.exchanges[0]);
            let same = (&found.op, &found.target) == (&intact.op, &intact.target);
            assert!(same || found.flags.contains(Flags::GAP), "{kept} {found:?} {intact:?}");
        }
    }
}

#[test]
fn little_of_each_packet_is_enough() {
    let long = |id| msg(id, id - 1, 0, &document(&[string("note", &"x".repeat(200)), int("ok", 1)]));
    for (count, answer) in [(1, false), (2, false), (3, true), (5, true)] {
        let mut pieces = Vec::new();
        for id in (1..).step_by(2).take(count) {
            pieces.push((C, Piece::Bytes(find(id, "customers_archive"))));
            pieces.push((S, Piece::Bytes(if answer { long(id + 1) } else { ok(id + 1, id, 0) })));
        }
        let connection = common::Connection { pieces, ports: (40_000, 27_017), ..common::Connection::default() };
        for limit in 16..100 {
            let (protocol, out) = decode(&connection, limit).unwrap();
            assert_eq!((protocol.name, out.exchanges.len()), ("mongodb", count), "{limit}");
            assert!(out.exchanges.iter().all(|e| !e.flags.contains(Flags::MID_STREAM)), "{limit}");
        }
    }
}
