//! AMQP 0-9-1 (<https://www.rabbitmq.com/amqp-0-9-1-reference>).

mod common;
mod conversations;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Piece, parser, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Exchange, Flags, Output, Side, Status, Streams};

const HEADER: &[u8] = b"AMQP\0\0\x09\x01";

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.push(0xce);
    bytes
}

fn method(channel: u16, class: u16, number: u16, arguments: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend_from_slice(&number.to_be_bytes());
    payload.extend_from_slice(arguments);
    frame(1, channel, &payload)
}

fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![text.len() as u8];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn publish(channel: u16, exchange: &str, key: &str, bits: u8, body: &[u8]) -> Vec<u8> {
    let arguments = [&[0, 0][..], &short(exchange), &short(key), &[bits]].concat();
    [method(channel, 60, 40, &arguments), content(channel, body)].concat()
}

fn content(channel: u16, body: &[u8]) -> Vec<u8> {
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&(body.len() as u64).to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    let mut bytes = frame(2, channel, &header);
    body.chunks(4000).for_each(|part| bytes.extend(frame(3, channel, part)));
    bytes
}

fn close(channel: u16, code: u16, text: &str, class: u16, failed: u16) -> Vec<u8> {
    let number = if channel == 0 { 50 } else { 40 };
    let arguments = [&code.to_be_bytes()[..], &short(text), &class.to_be_bytes(), &failed.to_be_bytes()].concat();
    method(channel, if channel == 0 { 10 } else { 20 }, number, &arguments)
}

fn confirm(channel: u16, number: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(channel, 60, number, &[&tag.to_be_bytes()[..], &[u8::from(multiple)]].concat())
}

fn open(channel: u16) -> [(bool, Vec<u8>); 2] {
    [(C, method(channel, 20, 10, b"\0")), (S, method(channel, 20, 11, b"\0\0\0\0"))]
}

fn amqp(mid_stream: bool, sends: &[(bool, Vec<u8>)]) -> Output {
    let sends: Vec<_> = sends.iter().map(|(client, bytes)| (*client, bytes.as_slice())).collect();
    talk("amqp", mid_stream, &sends)
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
fn a_real_client_is_counted_as_it_counts_itself() {
    // What the client's script called (its library closes channels by itself).
    let expected = [
        ("basic.cancel", 1),
        ("basic.consume", 1),
        ("basic.get", 2),
        ("basic.publish", 7),
        ("basic.qos", 1),
        ("basic.reject", 1),
        ("channel.close", 3),
        ("channel.open", 5),
        ("confirm.select", 1),
        ("connection.close", 1),
        ("connection.open", 2),
        ("exchange.declare", 1),
        ("queue.bind", 1),
        ("queue.declare", 3),
        ("queue.delete", 1),
        ("queue.purge", 1),
        ("tx.commit", 1),
        ("tx.select", 1),
    ];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/amqp/client.pcap");
    let (mut counts, mut errors) = (BTreeMap::new(), Vec::new());
    for connection in common::connections(&file) {
        let (protocol, out) = common::decode(&connection, usize::MAX).unwrap();
        assert_eq!((protocol.name, out.skipped_bytes), ("amqp", [0, 0]));
        for exchange in out.exchanges {
            assert!(exchange.response.is_some() || exchange.flags.contains(Flags::NO_REPLY), "{exchange:?}");
            if exchange.status == Status::Error {
                errors.push(format!("{} {}", exchange.op, exchange.code.as_deref().unwrap_or("-")));
            }
            if exchange.op.starts_with("basic.get") {
                assert!(exchange.rows.is_some());
            }
            *counts.entry(exchange.op.into_string()).or_insert(0) += 1;
        }
    }
    assert_eq!(counts.iter().map(|(op, count)| (op.as_str(), *count)).collect::<Vec<_>>(), expected);
    // What the client was told: a message returned, no queue, no exchange, no vhost.
    assert_eq!(errors, ["basic.publish 312", "queue.declare 404", "basic.publish 404", "connection.open 530"]);
}

#[test]
fn publishes_with_and_without_confirms() {
    let mut sends = vec![(C, HEADER.to_vec())];
    sends.extend(open(1));
    sends.push((C, publish(1, "logs", "a.b", 0, b"hello")));
    sends.push((C, method(1, 85, 10, b"\0")));
    sends.push((S, method(1, 85, 11, b"")));
    sends.push((C, [publish(1, "", "q", 0, b""), publish(1, "logs", "", 0, &[b'x'; 9000])].concat()));
    sends.push((C, publish(1, "e", "3", 1, b"3")));
    sends.push((C, publish(1, "e", "4", 0, b"4")));
    sends.push((S, confirm(1, 80, 2, true)));
    let returned = [&312_u16.to_be_bytes()[..], &short("NO_ROUTE"), &short("e"), &short("3")].concat();
    sends.push((S, [method(1, 60, 50, &returned), content(1, b"3"), confirm(1, 80, 3, false)].concat()));
    sends.push((S, confirm(1, 120, 4, false)));
    let out = amqp(false, &sends);
    assert_eq!(
        lines(&out),
        [
            "channel.open - Ok",
            "basic.publish logs/a.b Ok no_reply",
            "confirm.select - Ok",
            "basic.publish q Ok",
            "basic.publish logs Ok pipelined",
            "basic.publish e/3 Error 312 NO_ROUTE pipelined",
            "basic.publish e/4 Error basic.nack pipelined",
        ]
    );
    let large = &out.exchanges[4];
    assert_eq!(large.request.end - large.request.start, publish(1, "logs", "", 0, &[b'x'; 9000]).len() as u64);
    // Both messages of a confirm for several have the same answer.
    assert_eq!(out.exchanges[3].response, out.exchanges[4].response);
}

#[test]
fn channels_are_apart_and_calls_may_be_pipelined() {
    let declare = |channel, name: &str| method(channel, 50, 10, &[&[0, 0][..], &short(name), b"\0\0\0\0\0"].concat());
    let declared = |channel, name: &str| method(channel, 50, 11, &[&short(name)[..], &[0; 8]].concat());
    let mut sends = vec![(C, HEADER.to_vec())];
    sends.extend(open(1));
    sends.extend(open(2));
    sends.push((C, [declare(1, "a"), declare(1, "b"), declare(2, "")].concat()));
    sends.push((
        S,
        [declared(2, "amq.gen-1"), declared(1, "a"), close(1, 405, "RESOURCE_LOCKED - queue 'b'", 50, 10)].concat(),
    ));
    sends.push((C, method(1, 20, 41, b"")));
    let out = amqp(false, &sends);
    assert_eq!(
        lines(&out)[2..],
        ["queue.declare amq.gen-1 Ok", "queue.declare a Ok", "queue.declare b Error 405 RESOURCE_LOCKED - queue '?'"]
    );
}

#[test]
fn a_channel_joined_in_the_middle_is_told_by_its_confirms() {
    let out = amqp(
        true,
        &[
            (S, b"rest of a frame".to_vec()),
            (C, publish(3, "", "q", 0, b"1")),
            (S, confirm(3, 80, 1001, false)),
            (C, publish(3, "", "q", 0, b"2")),
            (S, confirm(3, 120, 1002, false)),
            (C, publish(4, "", "r", 0, b"3")),
        ],
    );
    assert_eq!(
        lines(&out),
        ["basic.publish q Ok mid_stream", "basic.publish q Error basic.nack", "basic.publish r Unknown"]
    );
    assert_eq!(out.skipped_bytes, [0, 15]);
}

#[test]
fn lost_requests_are_named_by_their_answers() {
    let mut sends = common::pieces(&[(C, HEADER)]);
    sends.push((C, Piece::Cut(100)));
    sends.push((S, Piece::Bytes(method(1, 50, 11, &[&short("q")[..], &[0; 8]].concat()))));
    sends.push((S, Piece::Bytes(method(1, 60, 72, b"\0"))));
    let out = run(parser("amqp", false).as_mut(), &sends);
    assert_eq!(lines(&out), ["queue.declare q Ok truncated", "basic.get - Ok truncated"]);
    assert_eq!(out.exchanges[1].rows, Some(0));
}

#[test]
fn cut_bodies_cost_nothing() {
    let whole = publish(1, "logs", "k", 0, &[b'x'; 9000]);
    for limit in [40, 100, 1000, 4000] {
        let mut sends = common::pieces(&[(C, HEADER)]);
        for (client, bytes) in open(1) {
            sends.push((client, Piece::Bytes(bytes)));
        }
        sends.push((C, Piece::Bytes(whole[..limit].to_vec())));
        sends.push((C, Piece::Cut((whole.len() - limit) as u64)));
        sends.push((C, Piece::Bytes(close(1, 200, "bye", 0, 0))));
        sends.push((S, Piece::Bytes(method(1, 20, 41, b""))));
        let out = run(parser("amqp", false).as_mut(), &sends);
        let ops: Vec<_> = out.exchanges.iter().map(|e| &*e.op).collect();
        assert_eq!(ops, ["channel.open", "basic.publish", "channel.close"], "{limit}");
        assert_eq!(out.exchanges[1].target.as_deref(), Some("logs/k"));
        assert_eq!(out.exchanges[2].status, Status::Ok);
    }
}

#[test]
fn passwords_are_secret() {
    let arguments = [&b"\0\0\0\0"[..], &short("PLAIN"), b"\0\0\0\x0c\0guest\0hunter", &short("en_US")].concat();
    let out = amqp(false, &[(C, HEADER.to_vec()), (C, method(0, 10, 11, &arguments))]);
    let secrets: u64 = out
        .marks
        .iter()
        .flatten()
        .filter(|m| m.class == ByteClass::Secret && m.side == Side::Client)
        .map(|m| m.range.end - m.range.start)
        .sum();
    assert_eq!(secrets, 12);
    assert!(out.exchanges.is_empty());
}

#[test]
fn time_and_memory_stay_linear() {
    // A body of 100 MB in small chunks.
    let mut decoder = parser("amqp", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(HEADER);
    streams.client.push(&method(1, 60, 40, b"\0\0\0\x01q\0"));
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&104_857_600_u64.to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    streams.client.push(&frame(2, 1, &header));
    let body = frame(3, 1, &[b'x'; 1024]);
    for _ in 0..100 << 10 {
        streams.client.push(&body);
        decoder.parse(&mut streams, &mut out);
    }
    decoder.finish(&mut streams, &mut out);
    // Not a byte of the server came: nobody knows how it went.
    assert_eq!(lines(&out), ["basic.publish q Unknown no_reply"]);

    // A million messages in few chunks, and a million that nobody confirms.
    let message = publish(1, "", "q", 0, b"");
    for confirms in [false, true] {
        let select = if confirms { method(1, 85, 10, b"\0") } else { Vec::new() };
        let mut sends = vec![(C, [HEADER, &select].concat())];
        sends.extend((0..10).map(|_| (C, message.repeat(100_000))));
        let out = amqp(false, &sends);
        assert_eq!(out.exchanges.len(), 1_000_000 + usize::from(confirms));
    }
    // Calls whose answers come in the wrong order.
    let calls = [method(1, 60, 10, &[0; 7]), method(1, 60, 110, b"\0")].concat().repeat(30_000);
    let answers = [method(1, 60, 111, b""), method(1, 60, 11, b"")].concat().repeat(30_000);
    let out = amqp(false, &[(C, [HEADER, &calls].concat()), (S, answers)]);
    assert_eq!(out.exchanges.len(), 60_000);
    // Frames of impossible sizes.
    for size in [u32::MAX, 256 << 20] {
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(&[1, 0, 1]);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.resize(1 << 20, 0);
        amqp(false, &[(C, bytes)]);
    }
}

#[test]
fn whether_an_answer_was_wanted_may_be_hidden() {
    let declare = |nowait: u8| method(1, 50, 10, &[&[0, 0][..], &short("work"), &[nowait], &[0; 4]].concat());
    let start = || open(1).map(|(client, bytes)| (client, Piece::Bytes(bytes)));
    let bits_at = 7 + 4 + 2 + 5;
    for kept in 0..declare(0).len() {
        for (nowait, told) in [(0x10, Status::Ok), (0, Status::Unanswered)] {
            let asked = declare(nowait);
            let hole = Piece::Cut((asked.len() - kept) as u64);
            let mut pieces = start().to_vec();
            pieces.extend([(C, Piece::Bytes(asked[..kept].to_vec())), (C, hole)]);
            let out = run(parser("amqp", true).as_mut(), &pieces);
            let Some(found) = out.exchanges.iter().find(|e| &*e.op == "queue.declare") else { continue };
            let expected = if kept > bits_at { told } else { Status::Unknown };
            assert_eq!(found.status, expected, "{kept} {nowait}");
            assert_eq!(found.flags.contains(Flags::TRUNCATED), kept <= bits_at, "{kept} {nowait}");
            // An answer tells.
            let answer = method(1, 50, 11, &[&short("work")[..], &[0; 8]].concat());
            pieces.push((S, Piece::Bytes(answer)));
            let out = run(parser("amqp", true).as_mut(), &pieces);
            let found = out.exchanges.iter().find(|e| &*e.op == "queue.declare").unwrap();
            assert_eq!(found.status, Status::Ok, "{kept} {nowait}");
        }
    }
}
