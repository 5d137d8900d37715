//! ClickHouse: what a scripted server counted, and conversations by hand.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use common::{Connection, Piece, connections, decode, decode_into, parser, run, talk};
use kfr_protocols::{ByteClass, Exchange, Flags, Output, Side, Status};

const C: bool = true;
const S: bool = false;

fn recording() -> Vec<Connection> {
    connections(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/clickhouse/queries.pcap"))
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [varint(text.len() as u64), text.as_bytes().to_vec()].concat()
}

const REVISION: u64 = 54453;

fn hello() -> Vec<u8> {
    let version = [varint(20), varint(10), varint(REVISION)].concat();
    [vec![0], string("ClickHouse client"), version, string("shop"), string("someone"), string("a-password")].concat()
}

fn welcome() -> Vec<u8> {
    let version = [varint(21), varint(12), varint(REVISION)].concat();
    [vec![0], string("ClickHouse"), version, string("UTC"), string("here"), varint(1)].concat()
}

fn query(text: &str, packed: bool) -> Vec<u8> {
    let who = [string("someone"), string("an-id"), string("127.0.0.1:1"), vec![0; 8], vec![1]].concat();
    let client =
        [string("someone"), string("host"), string("ClickHouse client"), varint(20), varint(10), varint(REVISION)];
    let rest = [string(""), vec![0], vec![1], vec![0], vec![0, 0, 0]].concat();
    let settings = [string("max_threads"), vec![0], string("2"), string("")].concat();
    let end = [string(""), vec![2], vec![u8::from(packed)], string(text)].concat();
    [vec![1], string("an-id"), vec![1], who, client.concat(), rest, settings, end].concat()
}

const INFO: &[u8] = &[1, 0, 2, 255, 255, 255, 255, 0];

/// A packet with a block: name, type, data of each column.
fn block(kind: u8, rows: u64, columns: &[(&str, &str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = [&[kind, 0], INFO, &varint(columns.len() as u64), &varint(rows)].concat();
    for (name, kind, data) in columns {
        bytes.extend([string(name), string(kind), data.clone()].concat());
    }
    bytes
}

/// The block that ends what a client sends.
fn no_data() -> Vec<u8> {
    block(2, 0, &[])
}

fn profile(rows: u64) -> Vec<u8> {
    [vec![6], varint(rows), vec![1, 9, 0, 0, 0]].concat()
}

fn exception(code: i32, message: &str) -> Vec<u8> {
    [vec![2], code.to_le_bytes().to_vec(), string("DB::Exception"), string(message), string("trace"), vec![0]].concat()
}

const END: &[u8] = &[5];

fn told(exchange: &Exchange) -> (&str, Status, Option<u64>) {
    (exchange.target.as_deref().unwrap_or(&exchange.op), exchange.status, exchange.rows)
}

/// What the server in `scripts/peers/clickhouse.py` counted while this was recorded: 7 queries, 4 pings, 2 exceptions,
/// 314 rows read, 50 written.
#[test]
fn the_recording_agrees_with_the_server() {
    let mut all = Vec::new();
    for connection in recording() {
        let marked = Output { marks: Some(Vec::new()), ..Output::default() };
        let (protocol, out) = decode_into(&connection, usize::MAX, marked).unwrap();
        assert_eq!((protocol.name, out.skipped_bytes), ("clickhouse", [0, 0]));
        let first = out.marks.iter().flatten().find(|mark| mark.side == Side::Client).unwrap();
        assert_eq!(first.class, ByteClass::Secret);
        all.extend(out.exchanges);
    }
    let count = |op: &str| all.iter().filter(|e| e.op.as_ref() == op).count();
    assert_eq!((count("query"), count("ping"), all.len()), (7, 4, 11));
    let codes: Vec<_> = all.iter().filter_map(|e| e.code.as_deref()).collect();
    assert_eq!(codes, ["60", "62"]);
    let rows = |verb: &str| -> u64 {
        let of = all.iter().filter(|e| e.target.as_deref().unwrap_or("").starts_with(verb));
        of.filter_map(|e| e.rows).sum()
    };
    assert_eq!((rows("select"), rows("insert")), (314, 50));
    assert!(all.iter().all(|e| !format!("{e:?}").contains("secretvalue") && !format!("{e:?}").contains("a value")));
    // Each answer ends where the next one begins, so the blocks were walked to their ends.
    assert!(all.iter().all(|e| e.flags == Flags::default()));
}

#[test]
fn payload_limits_lose_no_request() {
    for limit in [150, 300, 1000, 4096] {
        let mut all = Vec::new();
        for connection in recording() {
            all.extend(decode(&connection, limit).unwrap().1.exchanges);
        }
        assert_eq!(all.len(), 11, "{limit}");
        let errors = all.iter().filter(|e| e.status == Status::Error).count();
        assert_eq!(errors, 2, "{limit}");
        for exchange in all.iter().filter(|e| e.status == Status::Unknown) {
            assert!(exchange.flags.contains(Flags::TRUNCATED), "{limit} {exchange:?}");
        }
    }
}

#[test]
fn packed_blocks_are_passed_by_their_sizes() {
    let frame = |unpacked: u32, length: usize| {
        let sizes = [(length as u32 + 9).to_le_bytes(), unpacked.to_le_bytes()].concat();
        [vec![7; 16], vec![0x82], sizes, vec![5; length]].concat()
    };
    let data = [vec![1, 0], frame(1 << 20, 300), frame(100, 20)].concat();
    let exact = [vec![1, 0], frame(1 << 20, 300)].concat();
    let logs = block(14, 1, &[("value", "Int64", vec![5; 8])]);
    let answer = [data, exact, logs, profile(3), END.to_vec()].concat();
    let asked = [query("SELECT 1", true), vec![2, 0], frame(9, 9)].concat();
    let out = talk(
        "clickhouse",
        false,
        &[(C, &hello()), (S, &welcome()), (C, &asked), (S, &answer), (C, &query("SELECT x", true)), (S, END)],
    );
    let found: Vec<_> = out.exchanges.iter().map(told).collect();
    assert_eq!(found, [("select ?", Status::Ok, Some(3)), ("select x", Status::Ok, None)]);
    assert_eq!(out.skipped_bytes, [0, 0]);
    let start = hello().len() as u64;
    assert_eq!(out.exchanges[0].request, start..start + asked.len() as u64);
}

#[test]
fn what_cannot_be_walked_ends_at_the_next_query() {
    let odd = block(1, 3, &[("state", "AggregateFunction(uniq, UInt64)", vec![9; 50])]);
    let asked = [query("SELECT 1", false), no_data()].concat();
    let again = [query("SELECT x", false), no_data()].concat();
    let pieces: &[(bool, &[u8])] = &[
        (C, &hello()),
        (S, &welcome()),
        (C, &asked),
        (S, &odd),
        (S, &[profile(3), END.to_vec()].concat()),
        (C, &again),
        (S, &[odd.clone(), vec![1, 2, 3]].concat()),
        (S, &exception(241, "Memory limit exceeded: would use 10.00 GiB, 'x'")),
        (C, &[4]),
        (S, &[4]),
    ];
    let out = talk("clickhouse", false, pieces);
    let found: Vec<_> = out.exchanges.iter().map(told).collect();
    assert_eq!(
        found,
        [("select ?", Status::Unknown, None), ("select x", Status::Error, None), ("ping", Status::Ok, None)]
    );
    assert_eq!(out.exchanges[1].error.as_deref(), Some("Memory limit exceeded: would use ?.? GiB, '?'"));
    let answered = out.exchanges[0].response.clone().unwrap();
    assert_eq!(answered.end - answered.start, (odd.len() + profile(3).len() + 1) as u64);
}

#[test]
fn a_connection_joined_in_the_middle() {
    let values =
        block(1, 2, &[("s", "String", [string("ab"), string("c")].concat()), ("n", "Nullable(Int8)", vec![0; 4])]);
    let answer = [values, profile(2), END.to_vec()].concat();
    let asked = [query("SELECT s, n FROM t", false), no_data()].concat();
    let pieces: &[(bool, &[u8])] =
        &[(S, b"the rest"), (C, &[9, 9, 9]), (C, &asked), (S, &answer), (C, &[4]), (S, &[4])];
    let out = talk("clickhouse", true, pieces);
    let found: Vec<_> = out.exchanges.iter().map(told).collect();
    assert_eq!(found, [("select s, n from t", Status::Ok, Some(2)), ("ping", Status::Ok, None)]);
    assert!(out.exchanges[0].flags.contains(Flags::MID_STREAM));
    for connection in recording() {
        let late = Connection {
            pieces: connection.pieces[2..].to_vec(),
            mid_stream: true,
            ports: connection.ports,
            datagrams: false,
        };
        let whole = decode(&connection, usize::MAX).unwrap().1.exchanges.len();
        let (protocol, out) = decode(&late, usize::MAX).unwrap();
        assert_eq!((protocol.name, out.exchanges.len()), ("clickhouse", whole));
        assert!(out.exchanges.iter().all(|e| matches!(e.status, Status::Ok | Status::Error)));
    }
}

#[test]
fn time_and_memory_are_bounded() {
    // A hundred megabytes of strings in small pieces.
    let text = string(&"x".repeat(1000)).repeat(100_000);
    let big = [block(1, 100_000, &[("s", "String", text)]), profile(1), END.to_vec()].concat();
    let mut pieces = vec![(C, Piece::Bytes(hello())), (S, Piece::Bytes(welcome()))];
    pieces.push((C, Piece::Bytes([query("SELECT 1", false), no_data()].concat())));
    pieces.extend(big.chunks(1024).map(|part| (S, Piece::Bytes(part.to_vec()))));
    let out = run(parser("clickhouse", false).as_mut(), &pieces);
    assert_eq!(told(&out.exchanges[0]), ("select ?", Status::Ok, Some(1)));
    // A million pings at once.
    let out = talk(
        "clickhouse",
        false,
        &[(C, &hello()), (S, &welcome()), (C, &[4].repeat(1_000_000)), (S, &[4].repeat(1_000_000))],
    );
    assert_eq!(out.exchanges.iter().filter(|e| e.status == Status::Ok).count(), 1_000_000);
    // Counts that lie, types without end.
    let nested = format!("{}Int8{}", "Array(".repeat(600), ")".repeat(600));
    for kind in ["String", "UInt64", "Array(String)", "LowCardinality(String)", "Tuple(", "Map(String, Int8)", &nested]
    {
        for rows in [1, 1 << 31, u64::MAX] {
            let lying = block(1, rows, &[("s", kind, vec![0xff; 4096])]);
            let asked = [query("SELECT 1", false), no_data()].concat();
            let out =
                talk("clickhouse", false, &[(C, &hello()), (S, &welcome()), (C, &asked), (S, &lying), (C, &asked)]);
            assert_eq!(out.exchanges.len(), 2, "{kind} {rows}");
        }
    }
    let wide = format!("Tuple({})", vec!["Int8"; 1000].join(", "));
    talk(
        "clickhouse",
        false,
        &[(C, &hello()), (S, &welcome()), (C, &query("SELECT 1", false)), (S, &block(1, 1, &[("s", &wide, vec![])]))],
    );
}
