//! Dubbo2. The recording in `testdata/protocols/dubbo` is of two scripted peers, not of Dubbo: one connection in Hessian 2,
//! one in fastjson.

mod common;
mod conversations;

use std::path::Path;
use std::time::Instant;

use common::{Piece, parser, pieces, run, talk};
use conversations::{C, S};
use kfr_protocols::{Detected, Exchange, Flags, Output, Prefix, Status, Streams, protocol_named};

fn message(flags: u8, status: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let head = [&[0xda, 0xbb, flags, status][..], &number.to_be_bytes(), &(body.len() as u32).to_be_bytes()].concat();
    [&head, body].concat()
}

/// A string of less than 32 characters in Hessian 2.
fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn call(number: u64, service: &str, method: &str) -> Vec<u8> {
    let names = [text("2.0.2"), text(service), text("1.0.0"), text(method), text("I"), b"\x91HZ".to_vec()];
    message(0xc2, 0, number, &names.concat())
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let (code, error) = (e.code.as_deref().unwrap_or("-"), e.error.as_deref().unwrap_or("-"));
        format!("{} {} {:?} {code} {error}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn calls_exceptions_and_refusals() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/dubbo/scripted.pcap");
    let connections = common::connections(&path);
    let outs: Vec<Output> = connections.iter().map(|one| common::decode(one, usize::MAX).unwrap().1).collect();
    // What the script sends, in the order of the answers; heartbeats of both sides are not counted.
    assert_eq!(
        short(&outs[0]),
        [
            "find demo.shop.OrderService Ok 20 -",
            "cancel demo.shop.OrderService Error 20 demo.shop.OrderException",
            "audit demo.shop.OrderService Ok - -",
            "find demo.shop.Missing Error 40 Not found exported service: demo.shop.Missing:1.0.0:20880",
            "find demo.shop.OrderService Ok 20 -",
            "slow demo.shop.OrderService Error 100 Thread pool is EXHAUSTED! detail '?'",
        ]
    );
    assert_eq!(outs[0].exchanges[2].flags, Flags::NO_REPLY);
    assert_eq!(short(&outs[1]), ["find demo.shop.OrderService Ok 20 -", "cancel demo.shop.OrderService Error 20 -"]);
}

#[test]
fn serializations_that_are_not_read() {
    let request = message(0xc0 | 21, 0, 1, b"\x05anything");
    let out = talk("dubbo", false, &[(C, &request), (S, &message(21, 20, 1, b"\x01\x01"))]);
    // Whether the result is an exception is not known.
    assert_eq!(short(&out), ["? - Unknown 20 -"]);
    assert_eq!(out.exchanges[0].flags, Flags::default());
    let out = talk("dubbo", false, &[(C, &request), (S, &message(21, 31, 1, b"\x01\x01"))]);
    assert_eq!(short(&out), ["? - Error 31 SERVER_TIMEOUT"]);
}

#[test]
fn cut_lost_and_joined_in_the_middle() {
    let (first, second, third) = (call(1, "s", "a"), call(2, "s", "b"), call(3, "s", "c"));
    let ok = |number| message(2, 20, number, b"\x91\x03abc");
    let mut all = pieces(&[(S, &ok(1)[4..]), (C, &first[5..]), (C, &second)]);
    // The answer's header is there, its body is not.
    all.extend([(S, Piece::Bytes(ok(2)[..16].to_vec())), (S, Piece::Cut(5))]);
    // The request's names are cut.
    all.extend([(C, Piece::Bytes(third[..24].to_vec())), (C, Piece::Cut(third.len() as u64 - 24))]);
    all.extend(pieces(&[(S, &ok(3))]));
    let out = run(parser("dubbo", true).as_mut(), &all);
    assert_eq!(short(&out), ["b s Unknown 20 -", "? s Ok 20 -"]);
    let flags = [Flags(Flags::MID_STREAM.0 | Flags::TRUNCATED.0), Flags::TRUNCATED];
    assert_eq!([out.exchanges[0].flags, out.exchanges[1].flags], flags);

    let mut all = pieces(&[(C, &first), (S, &ok(1))]);
    all.push((C, Piece::Lost(second.len() as u64)));
    all.extend(pieces(&[(S, &ok(2)), (C, &third)]));
    let out = run(parser("dubbo", false).as_mut(), &all);
    assert_eq!(short(&out), ["a s Ok 20 -", "? - Ok 20 -", "c s Unanswered - -"]);
}

#[test]
fn recognised_by_the_magic_of_a_call() {
    let (_, protocol) = protocol_named("dubbo").unwrap();
    let judge = |client: &[u8], server: &[u8]| (protocol.detect)(&Prefix { client, server, ..Prefix::default() });
    let (request, reply, beat) = (call(1, "s", "m"), message(2, 20, 1, b"\x92"), message(0xe2, 0, 9, b"N"));
    assert_eq!(judge(&request, b""), Detected::Certain);
    assert_eq!(judge(b"", &reply), Detected::Certain);
    assert_eq!(judge(&reply, &request), Detected::No);
    assert_eq!(judge(&beat, b""), Detected::Likely);
    assert_eq!(judge(&request[..10], b""), Detected::Maybe);
    for other in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xda\xbb\xff\xff\0\0\0\0\0\0\0\0\xff\xff\xff\xff", &[0xda; 64]] {
        assert_eq!(judge(other, b""), Detected::No, "{other:?}");
    }
}

#[test]
fn time_is_linear() {
    let start = Instant::now();
    let mut one = parser("dubbo", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    let request = call(1, "s", "m");
    streams.client.push(&[&request[..12], &(100u32 << 20).to_be_bytes(), &request[16..]].concat());
    for _ in 1..100 << 10 {
        streams.client.push(&[0; 1024]);
        one.parse(&mut streams, &mut out);
    }
    one.finish(&mut streams, &mut out);
    assert_eq!(short(&out), ["m s Unanswered - -"]);
    let requests: Vec<u8> = (0..500_000).flat_map(|number| call(number, "s", "m")).collect();
    let answers: Vec<u8> = (0..500_000).flat_map(|number| message(2, 20, number, b"\x92")).collect();
    let out = talk("dubbo", false, &[(C, &requests), (S, &answers)]);
    assert_eq!(out.exchanges.len(), 500_000);
    assert!(out.exchanges.iter().rev().take(60_000).all(|e| e.status == Status::Ok));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
