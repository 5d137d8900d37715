//! ZooKeeper. The recording in `testdata/protocols/zookeeper` is of the server of the distribution (3.8) and the client
//! kazoo.

mod common;
mod conversations;

use std::path::Path;
use std::time::Instant;

use common::{Piece, parser, pieces, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, Side, Status, Streams, protocol_named};

fn message(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

fn text(text: &str) -> Vec<u8> {
    message(&[text.as_bytes()])
}

fn int(value: i32) -> [u8; 4] {
    value.to_be_bytes()
}

fn ask(xid: i32, code: i32, body: &[&[u8]]) -> Vec<u8> {
    message(&[&int(xid), &int(code), &body.concat()])
}

fn reply(xid: i32, error: i32, body: &[u8]) -> Vec<u8> {
    message(&[&int(xid), &[0, 0, 0, 0, 0, 0, 0, 9], &int(error), body])
}

fn get(xid: i32, path: &str) -> Vec<u8> {
    ask(xid, 4, &[&text(path), b"\0"])
}

fn connect() -> [Vec<u8>; 2] {
    let request = message(&[&[0; 12], &int(3000), &[0; 8], &int(16), b"0123456789abcdef", b"\0"]);
    let answer = message(&[&[0; 4], &int(3000), &[7; 8], &int(16), b"fedcba9876543210", b"\0"]);
    [request, answer]
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let code = e.code.as_deref().unwrap_or("-");
        format!("{} {} {:?} {code}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn the_recording_has_what_the_server_counted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/zookeeper/basic.pcap");
    let connections = common::connections(&path);
    let outs: Vec<Output> = connections.iter().map(|one| common::decode(one, usize::MAX).unwrap().1).collect();
    // `srvr`, the last but one that was sent (behind it only the session was closed), said `Received: 32`, itself
    // counted.
    assert_eq!(outs.iter().map(|out| out.exchanges.len()).sum::<usize>(), 32 + 1);
    assert!(outs.iter().flat_map(|out| &out.exchanges).all(|e| e.response.is_some()));
    // What kazoo raised, and the watch on a node that isn't there.
    let codes: Vec<_> = outs.iter().flat_map(|out| &out.exchanges).filter_map(|e| e.code.as_deref()).collect();
    assert_eq!(
        codes,
        ["NoNode", "NoNode", "BadVersion", "NodeExists", "NotEmpty", "NoChildrenForEphemerals", "NoNode"]
    );
    let session = short(&outs[2]);
    assert_eq!(session[0], "connect - Ok -");
    assert_eq!(session[16..18], ["multi /app/t1 +2 Ok -", "multi /app/t2 +1 Error NoNode"]);
    let rows: Vec<_> = outs[2].exchanges.iter().filter_map(|e| Some((&*e.op, e.rows?))).collect();
    assert_eq!(rows, [("getChildren", 3), ("getChildren2", 3)]);
    // `mntr` was not allowed.
    assert_eq!((&*outs[1].exchanges[0].op, outs[1].exchanges[0].status), ("mntr", Status::Error));
}

#[test]
fn events_and_pings_are_no_answers_to_others() {
    let [connect, connected] = connect();
    let event = message(&[&int(-1), &[0xff; 8], &int(0), &int(3), &int(3), &text("/a")]);
    let out = talk(
        "zookeeper",
        false,
        &[
            (C, &connect),
            (S, &connected),
            (C, &get(1, "/a")),
            (C, &ask(-2, 11, &[])),
            (S, &event),
            (S, &reply(-2, 0, b"")),
            (S, &reply(1, -101, b"")),
            (C, &get(2, "/b")),
        ],
    );
    assert_eq!(short(&out), ["connect - Ok -", "ping - Ok -", "getData /a Error NoNode", "getData /b Unanswered -"]);
    assert_eq!(out.exchanges[1].flags, Flags(Flags::CONTROL.0 | Flags::PIPELINED.0));
}

#[test]
fn passwords_are_secret() {
    let [connect, connected] = connect();
    let auth = ask(-4, 100, &[&int(0), &text("digest"), &text("shop:hunter2")]);
    let create = ask(1, 1, &[&text("/a"), &text("data"), &int(1), &int(31), &text("digest"), &text("u:x="), &int(0)]);
    let sends: [(bool, &[u8]); 6] = [
        (C, &connect),
        (S, &connected),
        (C, &auth),
        (S, &reply(-4, -115, b"")),
        (C, &create),
        (S, &reply(1, 0, &text("/a"))),
    ];
    let out = talk("zookeeper", false, &sends);
    assert_eq!(short(&out), ["connect - Ok -", "auth digest Error AuthFailed", "create /a Ok -"]);
    let marks = out.marks.unwrap();
    for side in [Side::Client, Side::Server] {
        let all: Vec<u8> = sends
            .iter()
            .filter(|(client, _)| *client == (side == Side::Client))
            .flat_map(|(_, bytes)| bytes.to_vec())
            .collect();
        let shown: Vec<u8> = marks
            .iter()
            .filter(|mark| mark.side == side && mark.class != ByteClass::Secret)
            .flat_map(|mark| all[mark.range.start as usize..mark.range.end as usize].to_vec())
            .collect();
        for secret in ["0123456789abcdef", "fedcba9876543210", "hunter2", "u:x="] {
            assert!(!String::from_utf8_lossy(&shown).contains(secret), "{secret}");
        }
    }
}

#[test]
fn expired_sessions_are_errors() {
    let [connect, _] = connect();
    let expired = message(&[&[0; 4], &int(0), &[0; 8], &int(16), &[0; 16], b"\0"]);
    let out = talk("zookeeper", false, &[(C, &connect), (S, &expired)]);
    assert_eq!(short(&out), ["connect - Error SessionExpired"]);
}

#[test]
fn joined_in_the_middle_cut_and_lost() {
    let value = reply(2, 0, &text(&"v".repeat(1000)));
    let (second, third) = (get(2, "/b"), get(3, "/c"));
    let mut all = pieces(&[(S, &reply(1, 0, b"")[3..]), (C, &get(1, "/a")[7..]), (C, &second)]);
    // The value is cut, the error was seen.
    all.extend([(S, Piece::Bytes(value[..30].to_vec())), (S, Piece::Cut(value.len() as u64 - 30))]);
    all.extend(pieces(&[(C, &third), (S, &reply(3, 0, b""))]));
    let out = run(parser("zookeeper", true).as_mut(), &all);
    assert_eq!(short(&out), ["getData /b Ok -", "getData /c Ok -"]);
    assert_eq!(out.exchanges[0].flags, Flags::MID_STREAM);
    assert_eq!(out.skipped_bytes, [get(1, "/a").len() as u64 - 7, 17]);

    let [connect, connected] = connect();
    let mut all = pieces(&[(C, &connect), (S, &connected), (C, &second)]);
    // The answer is cut before its error.
    all.extend([(S, Piece::Bytes(value[..10].to_vec())), (S, Piece::Cut(value.len() as u64 - 10))]);
    all.push((C, Piece::Lost(third.len() as u64)));
    all.extend(pieces(&[(S, &reply(3, -101, b"")), (C, &get(4, "/d")), (S, &reply(4, 0, b""))]));
    let out = run(parser("zookeeper", false).as_mut(), &all);
    assert_eq!(short(&out), ["connect - Ok -", "getData /b Unknown -", "? - Error NoNode", "getData /d Ok -"]);
    assert_eq!(out.exchanges[1].flags, Flags::TRUNCATED);
    assert_eq!(out.exchanges[2].flags, Flags::GAP);
}

#[test]
fn recognised_by_structure() {
    let (_, protocol) = protocol_named("zookeeper").unwrap();
    let judge = |client: &[u8], server: &[u8], mid_stream| {
        (protocol.detect)(&Prefix { client, server, mid_stream, ..Prefix::default() })
    };
    let [connect, _] = connect();
    assert_eq!(judge(&connect, b"", false), Detected::Certain);
    assert_eq!(judge(&connect[..20], b"", false), Detected::Maybe);
    assert_eq!(judge(&get(5, "/a"), b"", false), Detected::No);
    assert_eq!(judge(&get(5, "/a"), b"", true), Detected::Likely);
    assert_eq!(judge(&get(5, "/a"), &reply(5, -101, b""), true), Detected::Certain);
    assert_eq!(judge(&ask(5, 4, &[&text("a"), b"\0"]), b"", true), Detected::No);
    assert_eq!(judge(b"ruok", b"", false), Detected::Maybe);
    assert_eq!(judge(b"ruok", b"imok", false), Detected::Certain);
    assert_eq!(judge(b"stats\r\n", b"STAT pid 1\r\n", false), Detected::No);
    for other in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"*1\r\n$4\r\nPING\r\n", &[0xff; 64], &[0; 64]] {
        assert_eq!(judge(other, b"", false), Detected::No, "{other:?}");
        assert_eq!(judge(other, b"", true), Detected::No, "{other:?}");
    }
}

#[test]
fn time_is_linear_and_lengths_are_not_believed() {
    let start = Instant::now();
    let [connect, connected] = connect();
    for body in [&[0xff; 60][..], &[0x7f; 60], &[0; 60]] {
        for code in [1, 4, 7, 14, 22, 100, 101] {
            let sends: [(bool, &[u8]); 4] =
                [(C, &connect), (S, &connected), (C, &ask(1, code, &[body])), (S, &reply(1, 0, body))];
            assert_eq!(talk("zookeeper", false, &sends).exchanges.len(), 2);
        }
    }
    // A value of 100 MB in small chunks.
    let mut one = parser("zookeeper", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(&[&connect[..], &(100u32 << 20).to_be_bytes(), &get(1, "/a")[4..]].concat());
    for _ in 1..100 << 10 {
        streams.client.push(&[0; 1024]);
        one.parse(&mut streams, &mut out);
    }
    one.finish(&mut streams, &mut out);
    assert_eq!(out.exchanges.len(), 2);
    // A million requests, then their answers.
    let requests: Vec<u8> = (1..=1_000_000).flat_map(|xid| get(xid, "/a")).collect();
    let answers: Vec<u8> = (1..=1_000_000).flat_map(|xid| reply(xid, 0, b"")).collect();
    let out = talk("zookeeper", false, &[(C, &connect), (S, &connected), (C, &requests), (S, &answers)]);
    assert_eq!(out.exchanges.len(), 1_000_001);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
