//! MQTT 3.1.1 (<https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/>) and 5.0
//! (<https://docs.oasis-open.org/mqtt/mqtt/v5.0/>).

mod common;
mod conversations;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Piece, parser, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, REGISTRY, Side, Status, Streams};

fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = rest.len();
    loop {
        let more = length > 127;
        bytes.push((length & 0x7f) as u8 | u8::from(more) << 7);
        length >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(rest);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect(version: u8) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { b"\0" } else { b"" };
    let head = [text("MQTT"), vec![version, 0xc2, 0, 60], properties.to_vec()].concat();
    packet(0x10, &[head, text("client-1"), text("user"), text("hunter2")].concat())
}

fn publish(qos: u8, topic: &str, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let id = if qos > 0 { id.to_be_bytes().to_vec() } else { Vec::new() };
    packet(0x30 | qos << 1, &[text(topic), id, properties.to_vec(), payload.to_vec()].concat())
}

fn mqtt(mid_stream: bool, sends: &[(bool, Vec<u8>)]) -> Output {
    let sends: Vec<_> = sends.iter().map(|(client, bytes)| (*client, bytes.as_slice())).collect();
    talk("mqtt", mid_stream, &sends)
}

fn lines(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let names: Vec<_> = Flags::NAMES.iter().filter(|(f, _)| e.flags.contains(*f)).map(|(_, n)| *n).collect();
        let mut line = format!("{} {} {:?}", e.op, e.target.as_deref().unwrap_or("-"), e.status);
        for part in [e.code.as_deref(), e.error.as_deref(), Some(&*names.join(","))].into_iter().flatten() {
            if !part.is_empty() {
                line = format!("{line} {part}");
            }
        }
        line
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn a_real_client_and_broker_count_the_same() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/mqtt/client.pcap");
    let (mut counts, mut errors, mut topics) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for connection in common::connections(&file) {
        let (protocol, out) = common::decode(&connection, usize::MAX).unwrap();
        assert_eq!((protocol.name, out.skipped_bytes), ("mqtt", [0, 0]));
        for exchange in out.exchanges {
            assert!(matches!(exchange.status, Status::Ok | Status::Error), "{exchange:?}");
            if exchange.status == Status::Error {
                errors.push(format!("{} {}", exchange.op, exchange.code.as_deref().unwrap_or("-")));
            }
            let delivered = exchange.op.as_ref() == "PUBLISH" && exchange.request.is_empty();
            if exchange.op.as_ref() == "PUBLISH" {
                *topics.entry(exchange.target.unwrap().into_string()).or_insert(0) += 1;
            }
            *counts.entry(if delivered { "delivered" } else { &*exchange.op }.to_owned()).or_insert(0) += 1;
        }
    }
    // As the client counted its calls and messages; the broker says 11 messages sent, and 8 received besides the 2
    // that its access list refused.
    let expected =
        [("CONNECT", 5), ("PINGREQ", 2), ("PUBLISH", 10), ("SUBSCRIBE", 2), ("UNSUBSCRIBE", 2), ("delivered", 11)];
    assert_eq!(counts.iter().map(|(op, count)| (op.as_str(), *count)).collect::<Vec<_>>(), expected);
    // Only 5.0 tells that a message was refused.
    assert_eq!(errors, ["PUBLISH 135", "CONNECT 5", "CONNECT 5", "CONNECT 135"]);
    // Twice by name or alias from the client, twice to it.
    assert_eq!(topics.get("data/alias"), Some(&4));
    assert_eq!(topics.len(), 3);
}

#[test]
fn qualities_of_service() {
    let out = mqtt(
        false,
        &[
            (C, connect(4)),
            (S, packet(0x20, &[0, 0])),
            (C, publish(0, "a/0", 0, b"", b"x")),
            (C, [publish(1, "a/1", 1, b"", b"x"), publish(2, "a/2", 2, b"", &[b'x'; 300])].concat()),
            (S, [packet(0x50, &[0, 2]), packet(0x40, &[0, 1])].concat()),
            (C, packet(0x62, &[0, 2])),
            (S, packet(0x70, &[0, 2])),
            (S, publish(1, "b", 1, b"", b"to the client")),
            (C, packet(0x40, &[0, 1])),
            (S, publish(1, "c", 2, b"", b"nobody acknowledges")),
            (C, packet(0xc0, &[])),
        ],
    );
    assert_eq!(
        lines(&out),
        [
            "CONNECT client-1 Ok",
            "PUBLISH a/0 Ok no_reply",
            "PUBLISH a/1 Ok",
            "PUBLISH a/2 Ok pipelined",
            "PUBLISH b Ok",
            "PUBLISH c Unknown",
            "PINGREQ - Unanswered pipelined,control"
        ]
    );
    let second = out.exchanges[3].response.clone().unwrap();
    assert_eq!(second, 4..16);
    assert!(out.exchanges[4].request.is_empty());
}

#[test]
fn refusals_of_both_versions() {
    let out = mqtt(false, &[(C, connect(4)), (S, packet(0x20, &[0, 5]))]);
    assert_eq!(lines(&out), ["CONNECT client-1 Error 5 not authorized"]);
    let subscribe = |id: u8, properties: &[u8]| {
        packet(0x82, &[&[0, id][..], properties, &text("a/#"), &[1], &text("b"), &[0]].concat())
    };
    let out = mqtt(
        false,
        &[
            (C, connect(4)),
            (S, packet(0x20, &[0, 0])),
            (C, subscribe(1, b"")),
            (S, packet(0x90, &[0, 1, 1, 0x80])),
            (C, packet(0xa2, &[&[0, 2][..], &text("b")].concat())),
            (S, packet(0xb0, &[0, 2])),
        ],
    );
    let refused = "SUBSCRIBE a/# +1 Error 128 unspecified error";
    assert_eq!(lines(&out)[1..], [refused, "UNSUBSCRIBE b Ok"]);
    let five = [
        (C, connect(5)),
        (S, packet(0x20, &[0, 0, 0])),
        (C, subscribe(1, b"\0")),
        (S, packet(0x90, &[0, 1, 0, 1, 0x87])),
        (C, publish(1, "a", 2, b"\0", b"")),
        (S, packet(0x40, &[0, 2, 0x10])),
        (C, publish(2, "a", 3, b"\0", b"")),
        (S, packet(0x50, &[0, 3, 0x97])),
        (C, publish(1, "a", 4, b"\0", b"")),
        (S, packet(0xe0, &[0x8b, 0])),
    ];
    let out = mqtt(false, &five);
    assert_eq!(
        lines(&out)[1..],
        [
            "SUBSCRIBE a/# +1 Error 135 not authorized",
            "PUBLISH a Ok 16",
            "PUBLISH a Error 151 quota exceeded",
            "PUBLISH a Error 139 server shutting down"
        ]
    );
    // Joined behind the CONNECT: the packets tell the version.
    let out = mqtt(true, &five[2..]);
    assert_eq!(lines(&out)[0], "SUBSCRIBE a/# +1 Error 135 not authorized mid_stream");
}

#[test]
fn damaged_streams() {
    // A payload with its end cut, then the next packet.
    let large = publish(1, "a/b", 1, b"", &[b'x'; 9000]);
    for limit in [12, 100, 5000] {
        let mut sends = common::pieces(&[(C, &connect(4)), (S, &packet(0x20, &[0, 0])), (C, &large[..limit])]);
        sends.push((C, Piece::Cut((large.len() - limit) as u64)));
        sends.extend(common::pieces(&[(S, &packet(0x40, &[0, 1])), (C, &packet(0xc0, &[])), (S, &packet(0xd0, &[]))]));
        let out = run(parser("mqtt", false).as_mut(), &sends);
        assert_eq!(lines(&out)[1..], ["PUBLISH a/b Ok", "PINGREQ - Ok control"], "{limit}");
    }
    // What was lost is told by the answers.
    let mut sends = common::pieces(&[(C, &connect(4)), (S, &packet(0x20, &[0, 0]))]);
    sends.push((C, Piece::Lost(500)));
    sends.extend(common::pieces(&[(S, &packet(0x90, &[0, 1, 0])), (S, &packet(0x40, &[0, 2]))]));
    let out = run(parser("mqtt", false).as_mut(), &sends);
    assert_eq!(lines(&out)[1..], ["SUBSCRIBE - Ok gap", "PUBLISH - Ok gap"]);
    // A length that never ends is no MQTT.
    let out = mqtt(false, &[(C, vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff])]);
    assert!(out.rejected && out.exchanges.is_empty());
    // The largest length there is costs nothing.
    let out = mqtt(false, &[(C, connect(4)), (C, [&[0x30, 0xff, 0xff, 0xff, 0x7f][..], &text("t"), b"x"].concat())]);
    assert_eq!(lines(&out), ["PUBLISH t Ok pipelined,no_reply,incomplete", "CONNECT client-1 Unanswered"]);
}

#[test]
fn credentials_are_secret() {
    let bytes = connect(4);
    let out = mqtt(false, &[(C, bytes.clone())]);
    let secret: Vec<u8> = out
        .marks
        .iter()
        .flatten()
        .filter(|mark| mark.class == ByteClass::Secret && mark.side == Side::Client)
        .flat_map(|mark| bytes[mark.range.start as usize..mark.range.end as usize].to_vec())
        .collect();
    assert_eq!(secret, [text("user"), text("hunter2")].concat());
}

#[test]
fn text_of_others_is_not_taken_for_it() {
    let detect = REGISTRY.iter().find(|protocol| protocol.name == "mqtt").unwrap().detect;
    for (client, server) in [
        (&b"0000000000"[..], &b"0123456789"[..]),
        (b"2 abc\r\n", b" ok\r\n"),
        (b"PUB a 1\r\nx\r\n", b"PING\r\n"),
        (b"@\x02\0\x01", b"HTTP/1.1 200 OK\r\n"),
        (b"0\x0a\0\x03\x01\x02\x03abcde", b""),
    ] {
        for mid_stream in [false, true] {
            let prefix = Prefix { client, server, mid_stream, complete: true, ..Prefix::default() };
            assert!(detect(&prefix) < Detected::Likely, "{prefix:?}");
        }
    }
    let five = connect(5);
    assert_eq!(detect(&Prefix { client: &five, ..Prefix::default() }), Detected::Certain);
}

#[test]
fn time_and_memory_stay_linear() {
    let mut decoder = parser("mqtt", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(&connect(4));
    streams.client.push(&[0x30, 0x80, 0x80, 0x80, 0x32]);
    streams.client.push(&text("t"));
    for _ in 0..100 << 10 {
        streams.client.push(&[b'x'; 1024]);
        decoder.parse(&mut streams, &mut out);
    }
    streams.client.push(&packet(0xc0, &[]));
    decoder.finish(&mut streams, &mut out);
    assert_eq!(out.exchanges.iter().filter(|e| &*e.op == "PUBLISH").count(), 1);

    let count = 1_000_000;
    let out = mqtt(false, &[(C, connect(4)), (C, publish(0, "a", 0, b"", b"").repeat(count))]);
    assert_eq!(out.exchanges.len(), count + 1);
    let out = mqtt(false, &[(C, connect(4)), (C, packet(0xc0, &[]).repeat(count))]);
    assert_eq!(out.exchanges.len(), count + 1);
    // Deliveries that nobody acknowledges, with an alias each.
    let deliveries: Vec<u8> = (1..=60_000_u16)
        .flat_map(|id| {
            let properties = [&[3, 0x23][..], &id.to_be_bytes()].concat();
            publish(1, &"t".repeat(50), id, &properties, b"")
        })
        .collect();
    let out = mqtt(false, &[(C, connect(5)), (S, packet(0x20, &[0, 0, 0])), (S, deliveries)]);
    assert_eq!(out.exchanges.len(), 60_001);
}

#[test]
fn names_in_a_hole_are_flagged() {
    for version in [4, 5] {
        let whole = connect(version);
        for kept in 2..whole.len() {
            let hole = Piece::Cut((whole.len() - kept) as u64);
            let pieces =
                [(C, Piece::Bytes(whole[..kept].to_vec())), (C, hole), (S, Piece::Bytes(packet(0x20, b"\0\0")))];
            let out = run(parser("mqtt", false).as_mut(), &pieces);
            let exchange = &out.exchanges[0];
            assert_eq!(exchange.target.is_none(), exchange.flags.contains(Flags::TRUNCATED), "{kept} {exchange:?}");
        }
    }
    // Between two filters.
    let whole = packet(0x82, &[&[0, 1][..], &text("a"), &[0], &text("b"), &[0]].concat());
    let pieces = [(C, Piece::Bytes(connect(4))), (C, Piece::Bytes(whole[..8].to_vec())), (C, Piece::Cut(4))];
    let out = run(parser("mqtt", false).as_mut(), &pieces);
    let exchange = out.exchanges.iter().find(|e| &*e.op == "SUBSCRIBE").unwrap();
    assert!(exchange.flags.contains(Flags::TRUNCATED), "{exchange:?}");
}
