//! Cassandra: what a scripted node counted, and conversations by hand.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use common::{Piece, connections, decode_into, parser, run, talk};
use kfr_protocols::{ByteClass, Exchange, Flags, Output, Status};

const C: bool = true;
const S: bool = false;

const QUERY: u8 = 7;
const RESULT: u8 = 8;

fn frame(version: u8, flags: u8, stream: i16, opcode: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.push(opcode);
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn query(stream: i16, text: &str) -> Vec<u8> {
    frame(4, 0, stream, QUERY, &[&(text.len() as u32).to_be_bytes(), text.as_bytes(), &[0, 1, 0]].concat())
}

fn void(stream: i16) -> Vec<u8> {
    frame(0x84, 0, stream, RESULT, &1u32.to_be_bytes())
}

fn error(stream: i16, code: u32, message: &str) -> Vec<u8> {
    let body = [&code.to_be_bytes()[..], &(message.len() as u16).to_be_bytes(), message.as_bytes()].concat();
    frame(0x84, 0, stream, 0, &body)
}

fn target(exchange: &Exchange) -> &str {
    exchange.target.as_deref().unwrap_or("-")
}

/// What the node in `scripts/peers/cassandra.py` counted while these were recorded.
#[test]
fn recordings_agree_with_the_node() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/cassandra");
    for name in ["v3-snappy.pcap", "v4.pcap", "v4-lz4.pcap", "v5.pcap", "v5-lz4.pcap"] {
        let mut all = Vec::new();
        for connection in connections(&root.join(name)) {
            let out = Output { marks: Some(Vec::new()), ..Output::default() };
            let Some((protocol, out)) = decode_into(&connection, usize::MAX, out) else { panic!("{name}") };
            assert_eq!((protocol.name, out.skipped_bytes), ("cassandra", [0, 0]), "{name}");
            password_is_secret(&connection, &out);
            all.extend(out.exchanges);
        }
        let count = |op: &str| all.iter().filter(|e| e.op.as_ref() == op).count();
        let counted =
            ["OPTIONS", "STARTUP", "AUTH_RESPONSE", "REGISTER", "QUERY", "PREPARE", "EXECUTE", "BATCH"].map(count);
        assert_eq!(counted, [2, 2, 2, 1, 9, 1, 20, 1], "{name}");
        let errors: Vec<_> = all.iter().filter(|e| e.status == Status::Error).collect();
        let codes: Vec<_> = errors.iter().map(|e| e.code.as_deref().unwrap()).collect();
        assert_eq!((all.len(), codes), (38, vec!["0x2200 Invalid", "0x2000 SyntaxError"]), "{name}");
        assert!(all.iter().all(|e| matches!(e.status, Status::Ok | Status::Error)), "{name}");
        let rows: Vec<_> = all.iter().filter(|e| target(e).contains("tags")).map(|e| e.rows).collect();
        assert_eq!(rows, [Some(3), Some(400)], "{name}");
        assert!(all.iter().any(|e| target(e) == "select id, note, tags from orders where id = ? and note = ?"));
        let insert = "insert into orders (id, note) values (?+)";
        assert_eq!(all.iter().filter(|e| e.op.as_ref() == "EXECUTE" && target(e) == insert).count(), 20, "{name}");
        let batch = all.iter().find(|e| e.op.as_ref() == "BATCH").unwrap();
        assert_eq!(target(batch), format!("{insert}; delete from orders where id = ?"), "{name}");
        let warned = all.iter().filter(|e| e.sql.as_ref().is_some_and(|sql| sql.warnings == 1)).count();
        assert_eq!(warned, 1, "{name}");
        assert!(all.iter().all(|e| !e.flags.contains(Flags::UNKNOWN_STATEMENT)));
    }
}

fn password_is_secret(connection: &common::Connection, out: &Output) {
    let sent: Vec<u8> = connection
        .pieces
        .iter()
        .filter(|(client, _)| *client)
        .flat_map(|(_, piece)| if let Piece::Bytes(bytes) = piece { bytes.clone() } else { Vec::new() })
        .collect();
    let Some(at) = sent.windows(10).position(|window| window == b"a-password") else { return };
    let at = at as u64;
    let mark = out.marks.iter().flatten().find(|m| m.side == kfr_protocols::Side::Client && m.range.contains(&at));
    assert_eq!(mark.map(|mark| mark.class), Some(ByteClass::Secret));
}

#[test]
fn answers_out_of_order_find_their_request() {
    let event = frame(0x84, 0, -1, 0x0c, &[0, 3, b'a', b'b', b'c']);
    let out = talk(
        "cassandra",
        false,
        &[
            (C, &[query(1, "SELECT a FROM t"), query(2, "SELECT b FROM t")].concat()),
            (S, &[event, error(2, 0x2200, "no such 'value'"), void(1)].concat()),
            (S, &void(9)),
        ],
    );
    let found: Vec<_> = out.exchanges.iter().map(|e| (target(e), e.status, e.error.as_deref())).collect();
    assert_eq!(
        found,
        [("select b from t", Status::Error, Some("no such '?'")), ("select a from t", Status::Ok, None),]
    );
    assert!(out.exchanges[0].flags.contains(Flags::PIPELINED));
}

#[test]
fn holes_lose_no_more_than_they_hide() {
    let asked = query(1, "SELECT a FROM t WHERE b = 'long enough'");
    for kept in 0..asked.len() {
        let pieces = [
            (C, Piece::Bytes(query(0, "SELECT 1"))),
            (S, Piece::Bytes(void(0))),
            (C, Piece::Bytes(asked[..kept].to_vec())),
            (C, Piece::Cut((asked.len() - kept) as u64)),
            (S, Piece::Bytes(void(1))),
            (C, Piece::Bytes(query(2, "SELECT 2"))),
            (S, Piece::Bytes(void(2))),
        ];
        let out = run(parser("cassandra", false).as_mut(), &pieces);
        assert_eq!(out.exchanges.len(), 3, "{kept}");
        assert!(out.exchanges.iter().all(|e| e.status == Status::Ok), "{kept}");
        let cut = &out.exchanges[1];
        // Behind the text only parameters follow.
        assert_eq!(cut.flags.contains(Flags::TRUNCATED), kept < asked.len() - 3, "{kept} {cut:?}");
        assert_eq!(cut.op.as_ref(), if kept < 9 { "?" } else { "QUERY" }, "{kept}");
    }
}

#[test]
fn a_connection_joined_in_the_middle() {
    let execute = frame(4, 0, 3, 10, &[&[0, 16][..], &[7; 16], &[0, 1, 0]].concat());
    let out = talk("cassandra", true, &[(S, b"the rest"), (C, b"of"), (C, &execute), (S, &void(3))]);
    assert_eq!((out.exchanges.len(), out.skipped_bytes), (1, [2, 8]));
    let flags = out.exchanges[0].flags;
    assert!(flags.contains(Flags::MID_STREAM) && flags.contains(Flags::UNKNOWN_STATEMENT));
    // Version 5, of which the first sends are missing.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/cassandra");
    for name in ["v5.pcap", "v5-lz4.pcap"] {
        let mut connection = connections(&root.join(name)).pop().unwrap();
        let whole = common::decode(&connection, usize::MAX).unwrap().1.exchanges.len();
        connection.pieces.drain(..10);
        connection.mid_stream = true;
        let (protocol, out) = common::decode(&connection, usize::MAX).unwrap();
        assert_eq!(protocol.name, "cassandra");
        assert!(out.exchanges.len() + 8 > whole && out.exchanges.len() > 20, "{name} {}", out.exchanges.len());
    }
}

#[test]
fn payload_limits_lose_no_request() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/cassandra");
    for name in ["v4.pcap", "v5.pcap", "v5-lz4.pcap"] {
        for limit in [1000, 4096] {
            let requests: usize = connections(&root.join(name))
                .iter()
                .filter_map(|connection| common::decode(connection, limit))
                .map(|(_, out)| out.exchanges.len())
                .sum();
            assert_eq!(requests, 38, "{name} {limit}");
        }
    }
}

#[test]
fn time_and_memory_are_bounded() {
    let text = format!("SELECT '{}'", "x".repeat(100 << 20));
    let mut pieces: Vec<_> = query(1, &text).chunks(1024).map(|part| (C, Piece::Bytes(part.to_vec()))).collect();
    pieces.push((S, Piece::Bytes(void(1))));
    let out = run(parser("cassandra", false).as_mut(), &pieces);
    assert_eq!((out.exchanges.len(), out.exchanges[0].status), (1, Status::Ok));
    let mut pieces = Vec::new();
    for _ in 0..1000 {
        pieces.push((C, Piece::Bytes((0..1000).flat_map(|stream| query(stream, "SELECT a FROM t")).collect())));
        pieces.push((S, Piece::Bytes((0..1000).flat_map(void).collect())));
    }
    let out = run(parser("cassandra", false).as_mut(), &pieces);
    assert_eq!(out.exchanges.iter().filter(|e| e.status == Status::Ok).count(), 1_000_000);
    // Lengths that lie, types that nest without end, columns without end.
    let nested = [
        &[0, 0, 0, 2, 0, 0, 0, 1, 255, 255, 255, 255][..],
        &[0, 1, b'a', 0, 1, b'b', 0, 1, b'c'],
        &[0, 0x20].repeat(60_000),
    ]
    .concat();
    let rows = frame(0x84, 0, 1, RESULT, &nested);
    let out = talk("cassandra", false, &[(C, &query(1, "SELECT a FROM t")), (S, &rows)]);
    assert_eq!((out.exchanges[0].status, out.exchanges[0].rows), (Status::Ok, None));
    let batch = frame(4, 0, 1, 13, &[0, 255, 255, 0, 255, 255, 255, 255, b'a']);
    talk("cassandra", false, &[(C, &batch), (S, &frame(0x84, 15, 1, 0, &[255; 40]))]);
    let packed = frame(4, 1, 1, QUERY, &[255; 200]);
    talk("cassandra", false, &[(C, &packed), (S, &frame(0x84, 1, 1, RESULT, &[255; 200]))]);
}

#[test]
fn errors_show_no_literals() {
    for (message, shown) in [
        ("Invalid STRING constant (SECRET) for \"a\" of type int", "Invalid STRING constant (?) for \"?\" of type int"),
        ("Invalid STRING constant (SECRET) of type int", "Invalid STRING constant (?) of type int"),
        ("Invalid STRING constant (a) SECRET) of type int", "Invalid STRING constant (?) of type int"),
        ("Unable to make int from 'it's SECRET'", "Unable to make int from '?'"),
        ("Unable to make int from 'it' SECRET'", "Unable to make int from '?"),
        ("Unable to make int from 'a' SECRET 'b'", "Unable to make int from '?'"),
        ("no viable alternative at input 'x' (select * from [SECRET]...)", "no viable alternative at input '?' (?)"),
    ] {
        let out = talk("cassandra", false, &[(C, &query(1, "SELECT a FROM t")), (S, &error(1, 0x2200, message))]);
        assert_eq!(out.exchanges[0].error.as_deref(), Some(shown));
    }
}
