//! Thrift: what a server on the project's own library counted, and conversations by hand.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use common::{Piece, connections, decode, parser, run, talk};
use kfr_protocols::{Exchange, Flags, Status};

const C: bool = true;
const S: bool = false;

const CALL: u8 = 1;
const REPLY: u8 = 2;

/// A binary message whose struct is `fields`.
fn message(kind: u8, name: &str, sequence: u32, fields: &[u8]) -> Vec<u8> {
    let length = (name.len() as u32).to_be_bytes();
    [&[0x80, 1, 0, kind][..], &length, name.as_bytes(), &sequence.to_be_bytes(), fields, &[0]].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes(), message].concat()
}

fn string(id: u8, text: &[u8]) -> Vec<u8> {
    [&[11, 0, id], &(text.len() as u32).to_be_bytes()[..], text].concat()
}

fn told(exchange: &Exchange) -> (&str, Status) {
    (&exchange.op, exchange.status)
}

/// What the server in `scripts/peers/thrift.py` counted: 8 calls, 1 oneway call, 2 exceptions, 1 declared one.
#[test]
fn recordings_agree_with_the_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/thrift");
    for form in ["binary", "old", "framed", "compact", "framed-compact", "header"] {
        let mut all = Vec::new();
        for connection in connections(&root.join(format!("{form}.pcap"))) {
            let Some((protocol, out)) = decode(&connection, usize::MAX) else { panic!("{form}") };
            assert_eq!((protocol.name, out.skipped_bytes), ("thrift", [0, 0]), "{form}");
            all.extend(out.exchanges);
        }
        let found: Vec<_> =
            all.iter().map(|e| (e.op.as_ref(), e.target.as_deref(), e.status, e.code.as_deref())).collect();
        let orders = Some("Orders");
        let unknown = Some("UNKNOWN_METHOD");
        assert_eq!(
            found,
            [
                ("put", None, Status::Ok, None),
                ("log", None, Status::Ok, None),
                ("nothing", None, Status::Ok, None),
                ("find", orders, Status::Ok, None),
                ("fails", None, Status::Ok, Some("exception 1")),
                ("unknown", None, Status::Error, unknown),
                ("unknown", orders, Status::Error, unknown),
                ("put", None, Status::Ok, None),
                ("put", None, Status::Ok, None),
            ],
            "{form}"
        );
        assert_eq!(all[5].error.as_deref(), Some("Unknown function '?'"));
        let counts: Vec<_> = all.iter().filter(|e| e.flags.contains(Flags::NO_REPLY)).map(|e| e.op.as_ref()).collect();
        assert_eq!(counts, ["log"], "{form}");
        // Every byte belongs to a message: each begins where the one before it ends.
        let mut end = 0;
        for exchange in &all {
            assert_eq!(exchange.request.start, end, "{form}");
            end = exchange.request.end;
        }
    }
}

#[test]
fn answers_find_their_call_by_number_and_name() {
    let calls = [message(CALL, "a", 0, &[]), message(CALL, "b", 0, &[]), message(CALL, "c", 7, &[])].concat();
    let answers = [message(REPLY, "c", 7, &[]), message(REPLY, "b", 0, &string(0, b"x")), message(REPLY, "d", 0, &[])];
    let out = talk("thrift", false, &[(C, &calls), (S, &answers.concat())]);
    let found: Vec<_> = out.exchanges.iter().map(told).collect();
    assert_eq!(found, [("c", Status::Ok), ("b", Status::Ok), ("a", Status::Unanswered)]);
}

#[test]
fn holes_lose_no_more_than_they_hide() {
    let call = message(CALL, "put", 1, &[string(1, &[b'x'; 40]), string(2, b"y")].concat());
    for wrap in [false, true] {
        let whole = |message: Vec<u8>| if wrap { framed(&message) } else { message };
        let cut = whole(call.clone());
        for kept in 0..cut.len() {
            let pieces = [
                (C, Piece::Bytes(whole(message(CALL, "a", 0, &[])))),
                (S, Piece::Bytes(whole(message(REPLY, "a", 0, &[])))),
                (C, Piece::Bytes(cut[..kept].to_vec())),
                (C, Piece::Cut((cut.len() - kept) as u64)),
                (S, Piece::Bytes(whole(message(REPLY, "put", 1, &[])))),
                (C, Piece::Bytes(whole(message(CALL, "b", 2, &[])))),
                (S, Piece::Bytes(whole(message(REPLY, "b", 2, &[])))),
            ];
            let out = run(parser("thrift", false).as_mut(), &pieces);
            let found: Vec<_> = out.exchanges.iter().map(told).collect();
            assert_eq!(found, [("a", Status::Ok), ("put", Status::Ok), ("b", Status::Ok)], "{wrap} {kept}");
            if kept > 30 {
                let start = out.exchanges[0].request.end;
                assert_eq!(out.exchanges[1].request, start..start + cut.len() as u64, "{wrap} {kept}");
            }
        }
    }
}

#[test]
fn answers_with_a_hole_leave_the_next_ones_alone() {
    let reply = message(REPLY, "put", 0, &string(0, &[b'x'; 40]));
    for kept in 0..reply.len() {
        let pieces = [
            (C, Piece::Bytes(message(CALL, "put", 0, &[]))),
            (S, Piece::Bytes(reply[..kept].to_vec())),
            (S, Piece::Cut((reply.len() - kept) as u64)),
            (C, Piece::Bytes(message(CALL, "put", 0, &[]))),
            (S, Piece::Bytes(message(3, "put", 0, &string(1, b"no 'value'")))),
        ];
        let out = run(parser("thrift", false).as_mut(), &pieces);
        let mut found: Vec<_> = out.exchanges.iter().map(|e| (e.request.start, e.status)).collect();
        found.sort_unstable();
        assert_eq!(found[1].1, Status::Error, "{kept}");
        let expected = if kept < 15 { Status::Unknown } else { Status::Ok };
        assert_eq!((found.len(), found[0].1), (2, expected), "{kept}");
    }
}

#[test]
fn a_connection_joined_in_the_middle() {
    for wrap in [false, true] {
        let whole = |message: Vec<u8>| if wrap { framed(&message) } else { message };
        let (call, reply) = (whole(message(CALL, "a", 0, &[])), whole(message(REPLY, "a", 0, &[])));
        let out = talk("thrift", true, &[(S, b"the rest"), (C, b"of"), (C, &call), (S, &reply)]);
        assert_eq!((out.exchanges.len(), out.skipped_bytes), (1, [2, 8]), "{wrap}");
        assert_eq!(told(&out.exchanges[0]), ("a", Status::Ok));
        assert!(out.exchanges[0].flags.contains(Flags::MID_STREAM));
    }
}

#[test]
fn time_and_memory_are_bounded() {
    for wrap in [false, true] {
        let whole = |message: Vec<u8>| if wrap { framed(&message) } else { message };
        let big = whole(message(CALL, "put", 0, &string(1, &vec![b'x'; 100 << 20])));
        let mut pieces: Vec<_> = big.chunks(1024).map(|part| (C, Piece::Bytes(part.to_vec()))).collect();
        pieces.push((S, Piece::Bytes(whole(message(REPLY, "put", 0, &[])))));
        let out = run(parser("thrift", false).as_mut(), &pieces);
        assert_eq!((told(&out.exchanges[0]), out.exchanges.len()), (("put", Status::Ok), 1));
        let mut pieces = Vec::new();
        for _ in 0..1000 {
            pieces.push((C, Piece::Bytes(whole(message(CALL, "put", 0, &string(1, b"x"))).repeat(1000))));
            pieces.push((S, Piece::Bytes(whole(message(REPLY, "put", 0, &[])).repeat(1000))));
        }
        let out = run(parser("thrift", false).as_mut(), &pieces);
        assert_eq!(out.exchanges.iter().filter(|e| e.status == Status::Ok).count(), 1_000_000);
    }
    // A million values in a list, structs inside structs, counts that lie, answers that nobody waits for.
    let list = [&[15, 0, 1, 11][..], &(1u32 << 20).to_be_bytes(), &[0; 4 << 20]].concat();
    let out = talk("thrift", false, &[(C, &message(CALL, "put", 0, &list)), (S, &message(REPLY, "put", 0, &[]))]);
    assert_eq!(told(&out.exchanges[0]), ("put", Status::Ok));
    let nested = [12, 0, 1].repeat(1 << 20);
    talk("thrift", false, &[(C, &message(CALL, "put", 0, &nested)), (S, &message(REPLY, "put", 0, &nested))]);
    let lying = [15, 0, 1, 12, 0x7f, 0xff, 0xff, 0xff];
    let zeros = [message(CALL, "put", 0, &lying), vec![0; 8 << 20]].concat();
    talk("thrift", false, &[(C, &zeros), (S, &zeros)]);
    let calls = message(CALL, "put", 0, &[]).repeat(200_000);
    let others = message(REPLY, "other", 0, &[]).repeat(200_000);
    assert_eq!(talk("thrift", false, &[(C, &calls), (S, &others)]).exchanges.len(), 200_000);
}
