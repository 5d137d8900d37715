//! RocketMQ. The recording in `testdata/protocols/rocketmq` is of two scripted peers, not of RocketMQ: one connection with
//! headers in JSON, one in RocketMQ's own encoding.

mod common;
mod conversations;

use std::path::Path;
use std::time::Instant;

use common::{Piece, parser, pieces, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, Side, Status, Streams, protocol_named};

fn message(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + header.len() as u32 + body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn ask(opaque: u32, code: u32, topic: &str) -> Vec<u8> {
    let header =
        format!(r#"{{"code":{code},"extFields":{{"topic":"{topic}"}},"flag":0,"language":"GO","opaque":{opaque}}}"#);
    message(&header, b"body")
}

fn answer(opaque: u32, code: u32) -> Vec<u8> {
    message(&format!(r#"{{"code":{code},"flag":1,"opaque":{opaque},"remark":"topic 'x' is missing"}}"#), b"")
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let code = e.code.as_deref().unwrap_or("-");
        format!("{} {} {:?} {code}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn both_encodings_say_the_same() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/rocketmq/scripted.pcap");
    let connections = common::connections(&path);
    assert_eq!(connections.len(), 2);
    for connection in &connections {
        let marked = Output { marks: Some(Vec::new()), ..Output::default() };
        let (_, out) = common::decode_into(connection, usize::MAX, marked).unwrap();
        // What the script sends, in the order of the answers. A request of the server's is none of the client's.
        assert_eq!(
            short(&out),
            [
                "GET_ROUTEINFO_BY_TOPIC orders Ok SUCCESS",
                "GET_ROUTEINFO_BY_TOPIC missing Error TOPIC_NOT_EXIST",
                "HEART_BEAT - Ok SUCCESS",
                "SEND_MESSAGE_V2 orders Error SYSTEM_BUSY",
                "SEND_MESSAGE_V2 orders Ok SUCCESS",
                "UPDATE_CONSUMER_OFFSET orders Ok -",
                "PULL_MESSAGE orders Error PULL_NOT_FOUND",
                "GET_CONSUMER_LIST_BY_GROUP billing Ok SUCCESS",
            ]
        );
        assert_eq!(out.exchanges[2].flags, Flags::CONTROL);
        assert_eq!(out.exchanges[5].flags, Flags::NO_REPLY);
        let sent: Vec<u8> = connection
            .pieces
            .iter()
            .filter_map(|(client, piece)| match piece {
                Piece::Bytes(bytes) if *client => Some(bytes.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let marks = out.marks.unwrap();
        let of = |class| {
            let all = marks.iter().filter(move |mark| mark.side == Side::Client && mark.class == class);
            let texts = all.map(|mark| &sent[mark.range.start as usize..mark.range.end as usize]);
            String::from_utf8_lossy(&texts.collect::<Vec<_>>().join(&b' ')).into_owned()
        };
        assert_eq!(of(ByteClass::Secret), "shop c2VjcmV0");
        assert!(of(ByteClass::Value).contains("first order") && of(ByteClass::Value).contains("KEYS"));
        assert!(of(ByteClass::Identifier).contains("orders") && !of(ByteClass::Identifier).contains("KEYS"));
    }
}

#[test]
fn cut_lost_and_joined_in_the_middle() {
    let (first, second, third) = (ask(1, 11, "a"), ask(2, 11, "b"), ask(3, 11, "c"));
    // The answer is cut before its number (keys are in order); the header of a request too.
    let cut = answer(2, 17);
    let mut all = pieces(&[(S, &answer(1, 0)[9..]), (C, &first[5..]), (C, &second), (S, &answer(2, 17))]);
    all.extend([(C, Piece::Bytes(third[..30].to_vec())), (C, Piece::Cut(third.len() as u64 - 30))]);
    all.extend(pieces(&[(C, &ask(4, 11, "d"))]));
    all.extend([(S, Piece::Bytes(cut[..22].to_vec())), (S, Piece::Cut(cut.len() as u64 - 22))]);
    let out = run(parser("rocketmq", true).as_mut(), &all);
    assert_eq!(
        short(&out),
        ["PULL_MESSAGE b Error TOPIC_NOT_EXIST", "PULL_MESSAGE - Unknown -", "PULL_MESSAGE d Unknown -"]
    );
    assert_eq!(out.exchanges[0].error.as_deref(), Some("topic '?' is missing"));
    assert_eq!(out.exchanges[0].flags, Flags::MID_STREAM);
    assert_eq!((out.exchanges[1].flags, out.exchanges[2].flags), (Flags::TRUNCATED, Flags::TRUNCATED));
    // A request is lost, its answer is there.
    let mut all = pieces(&[(C, &first), (S, &answer(1, 0))]);
    all.push((C, Piece::Lost(50)));
    all.extend(pieces(&[(S, &answer(2, 0)), (C, &third)]));
    let out = run(parser("rocketmq", false).as_mut(), &all);
    assert_eq!(short(&out), ["PULL_MESSAGE a Ok SUCCESS", "? - Ok SUCCESS", "PULL_MESSAGE c Unanswered -"]);
    assert_eq!(out.exchanges[1].flags, Flags::GAP);
}

#[test]
fn recognised_by_the_header() {
    let (_, protocol) = protocol_named("rocketmq").unwrap();
    let judge = |client: &[u8], server: &[u8]| (protocol.detect)(&Prefix { client, server, ..Prefix::default() });
    let (request, reply) = (ask(1, 10, "t"), answer(1, 0));
    assert_eq!(judge(&request, b""), Detected::Certain);
    assert_eq!(judge(b"", &reply), Detected::Certain);
    assert_eq!(judge(&reply, &request), Detected::No);
    for length in 0..request.len() - 4 {
        assert_eq!(judge(&request[..length], b""), Detected::Maybe, "{length}");
    }
    let other = message(r#"{"jsonrpc":"2.0","method":"eth_call","id":1}"#, b"");
    assert_eq!(judge(&other, b""), Detected::No);
    for other in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"*1\r\n$4\r\nPING\r\n", &[0xff; 64], &[0; 64], b"\0\0\0\x08\0\0\0\x04null"]
    {
        assert_eq!(judge(other, b""), Detected::No, "{other:?}");
    }
}

#[test]
fn time_is_linear() {
    let start = Instant::now();
    let mut one = parser("rocketmq", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(&[&(100u32 << 20).to_be_bytes(), &ask(1, 10, "t")[4..]].concat());
    for _ in 1..100 << 10 {
        streams.client.push(&[0; 1024]);
        one.parse(&mut streams, &mut out);
    }
    one.finish(&mut streams, &mut out);
    assert_eq!(out.exchanges.len(), 1);
    let requests: Vec<u8> = (0..200_000).flat_map(|opaque| ask(opaque, 10, "t")).collect();
    let answers: Vec<u8> = (0..200_000).flat_map(|opaque| answer(opaque, 0)).collect();
    let out = talk("rocketmq", false, &[(C, &requests), (S, &answers)]);
    assert_eq!(out.exchanges.len(), 200_000);
    assert!(out.exchanges.iter().rev().take(60_000).all(|e| e.status == Status::Ok));
    // A header of strings that never end.
    let mut one = parser("rocketmq", true);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(&[0, 0xff, 0xff, 0xff, 0, 0x7f, 0xff, 0xff]);
    for _ in 0..20_000 {
        streams.client.push(&b"{\"code\":\"".repeat(100));
        one.parse(&mut streams, &mut out);
    }
    one.finish(&mut streams, &mut out);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
