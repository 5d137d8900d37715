//! memcached: text, meta and binary protocol, TCP and UDP
//! (<https://github.com/memcached/memcached/blob/master/doc/protocol.txt>).

mod common;
mod conversations;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Piece, parser, run, talk};
use conversations::{C, S};
use kfr_protocols::{
    ByteClass, Decoder, Detected, End, Exchange, Flags, Output, Prefix, REGISTRY, Setup, Status, Streams,
};

fn memcached(mid_stream: bool, sends: &[(bool, &str)]) -> Output {
    let sends: Vec<_> = sends.iter().map(|(client, text)| (*client, text.as_bytes())).collect();
    talk("memcached", mid_stream, &sends)
}

fn lines(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let names: Vec<_> = Flags::NAMES.iter().filter(|(f, _)| e.flags.contains(*f)).map(|(_, n)| *n).collect();
        let mut line = format!("{} {} {:?}", e.op, e.target.as_deref().unwrap_or("-"), e.status);
        if let Some(rows) = e.rows {
            line = format!("{line} {rows}");
        }
        for part in [e.code.as_deref(), e.error.as_deref(), Some(&*names.join(","))].into_iter().flatten() {
            if !part.is_empty() {
                line = format!("{line} {part}");
            }
        }
        line
    };
    let mut ordered: Vec<_> = out.exchanges.iter().collect();
    ordered.sort_by_key(|exchange| exchange.request.start);
    ordered.into_iter().map(one).collect()
}

/// How often each verb was asked, hits and misses of those that get, and the errors, of one recording.
fn recorded(name: &str) -> (BTreeMap<String, u64>, [u64; 2], Vec<String>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/memcached").join(name);
    let (mut counts, mut found, mut errors) = (BTreeMap::new(), [0; 2], Vec::new());
    for connection in common::connections(&file) {
        let (protocol, out) = common::decode(&connection, usize::MAX).unwrap();
        assert_eq!((protocol.name, out.skipped_bytes), ("memcached", [0, 0]));
        for e in &out.exchanges {
            assert!(matches!(e.status, Status::Ok | Status::Error), "{e:?}");
            assert!(e.response.is_some() || e.flags.contains(Flags::NO_REPLY), "{e:?}");
            *counts.entry(e.op.to_string()).or_insert(0) += 1;
            found[0] += e.rows.unwrap_or(0);
            found[1] += u64::from(e.rows == Some(0));
            if e.status == Status::Error {
                errors.push(format!("{} {}", e.op, e.code.as_deref().unwrap_or("-")));
            }
        }
    }
    (counts, found, errors)
}

fn expect(counts: &BTreeMap<String, u64>, expected: &[(&str, u64)]) {
    assert_eq!(counts.iter().map(|(op, count)| (op.as_str(), *count)).collect::<Vec<_>>(), expected);
}

#[test]
fn real_clients_count_the_same() {
    // As the scripts counted their calls.
    let (counts, found, errors) = recorded("text.pcap");
    #[rustfmt::skip]
    expect(&counts, &[
        ("?", 1), ("add", 1), ("append", 1), ("cas", 2), ("decr", 1), ("delete", 2), ("get", 4), ("gets", 1),
        ("incr", 3), ("ma", 1), ("md", 2), ("me", 1), ("mg", 5), ("mn", 2), ("ms", 2), ("prepend", 1), ("quit", 1),
        ("replace", 1), ("set", 7), ("stats", 1), ("touch", 1), ("version", 1),
    ]);
    // The server says 9 hits and 4 misses. `get`: 5 of 7 keys; `gets`: 1; `mg`: 3 of 5, one of the misses not answered as it was quiet.
    assert_eq!(found, [9, 2]);
    assert_eq!(errors, ["incr CLIENT_ERROR", "? ERROR"]);
    let (counts, found, errors) = recorded("binary.pcap");
    #[rustfmt::skip]
    expect(&counts, &[
        ("add", 1), ("delete", 2), ("get", 2), ("getkq", 2), ("increment", 2), ("noop", 1), ("opcode 119", 1),
        ("sasl_auth", 1), ("set", 1), ("setq", 1), ("stat", 1), ("version", 1),
    ]);
    assert_eq!(found, [2, 2]);
    // A value that is no number, an unknown command, and a server without SASL.
    assert_eq!(errors, ["increment 6", "opcode 119 129", "sasl_auth 129"]);
    let (counts, found, errors) = recorded("udp.pcap");
    expect(&counts, &[("delete", 1), ("get", 4), ("incr", 1), ("set", 2), ("stats", 1)]);
    // Of the value in several datagrams, the end was not looked at.
    assert_eq!(found, [2, 1]);
    assert_eq!(errors, ["incr CLIENT_ERROR"]);
}

#[test]
fn answers_of_every_form() {
    let out = memcached(
        false,
        &[
            (C, "get a bb ccc\r\n"),
            (S, "VALUE a 0 3\r\n\r\nE\r\nVALUE ccc 1 4\r\nEND\r\r\n"),
            (S, "END\r\n"),
            (C, "gats 60 a b\r\n"),
            (S, "END\r\n"),
            (C, "cas a 0 0 1 77 noreply\r\nx\r\nset a 0 0 3\r\nset\r\nincr n 5\r\ndecr n 1\r\n"),
            (S, "STORED\r\n12\r\nCLIENT_ERROR cannot increment 'x'\r\n"),
            (C, "stats\r\nstats reset\r\n"),
            (S, "STAT pid 1\r\nSTAT x y z\r\nEND\r\nRESET\r\n"),
            (C, "delete a\r\n"),
            (S, "NOT_FOUND\r\n"),
            (C, "quit\r\n"),
        ],
    );
    assert_eq!(
        lines(&out),
        [
            "get a +2 Ok 2",
            "gats a +1 Ok 0",
            "cas a Ok no_reply",
            "set a Ok",
            "incr n Ok pipelined",
            "decr n Error CLIENT_ERROR cannot increment '?' pipelined",
            "stats - Ok",
            "stats - Ok pipelined",
            "delete a Ok NOT_FOUND",
            "quit - Ok no_reply",
        ]
    );
    assert_eq!(out.skipped_bytes, [0, 0]);
}

#[test]
fn quiet_meta_commands() {
    let out = memcached(
        false,
        &[
            (C, "mg a v k q\r\nmg b v k q\r\nmg c v O12 q\r\nms d 2 q\r\nhi\r\nmn\r\nmg e v\r\n"),
            (S, "VA 1 kb\r\nx\r\nNS\r\nMN\r\nEN\r\n"),
        ],
    );
    assert_eq!(
        lines(&out),
        [
            "mg a Ok pipelined,no_reply".replace("pipelined,", ""),
            "mg b Ok 1 pipelined".into(),
            "mg c Ok pipelined,no_reply".into(),
            "ms d Ok NS pipelined".into(),
            "mn - Ok pipelined".into(),
            "mg e Ok 0 EN pipelined".into(),
        ]
    );
}

#[test]
fn refusals_may_come_early() {
    let out = memcached(
        false,
        &[
            (C, "get a\r\n"),
            (S, "END\r\n"),
            (C, "set huge 0 0 2000000\r\nxxx"),
            (S, "SERVER_ERROR object too large for cache\r\n"),
            (C, &"x".repeat(1_999_997)),
            (C, "\r\nget b\r\n"),
            (S, "END\r\n"),
        ],
    );
    assert_eq!(lines(&out), ["get a Ok 0", "set huge Error SERVER_ERROR object too large for cache", "get b Ok 0"]);
    assert_eq!(out.exchanges[1].request, 7..2_000_031);
}

#[test]
fn damaged_streams() {
    // A value whose end and END are cut: what is missing behind the value can only be END.
    let mut sends = common::pieces(&[(C, b"get a\r\n"), (S, b"VALUE a 0 9000\r\nxxx")]);
    sends.push((S, Piece::Cut(9000 - 3 + 2 + 5)));
    sends.extend(common::pieces(&[(C, b"set b 0 0 70000\r\n")]));
    sends.push((C, Piece::Cut(70_002)));
    sends.extend(common::pieces(&[(S, b"STORED\r\n"), (C, b"get a b\r\n"), (S, b"VALUE a 0 9000\r\nxxx")]));
    sends.push((S, Piece::Cut(20_000)));
    sends.extend(common::pieces(&[(C, b"version\r\n"), (S, b"VERSION 1.6.18\r\n")]));
    let out = run(parser("memcached", false).as_mut(), &sends);
    assert_eq!(lines(&out), ["get a Ok 1", "set b Ok", "get a +1 Ok truncated", "version - Ok"]);
    let ends: Vec<_> = out.exchanges.iter().map(|e| e.response.clone().unwrap().end).collect();
    assert_eq!(ends, [9023, 9031, 29_050, 29_066]);
    // Joined in the middle.
    let out = memcached(
        true,
        &[
            (S, "rest of a value\r\nEND\r\n"),
            (C, "xxx\r\n"),
            (C, "set k 0 0 1\r\nx\r\n"),
            (S, "STORED\r\n"),
            (C, "get k\r\n"),
            (S, "END\r\n"),
        ],
    );
    assert_eq!(lines(&out), ["set k Ok mid_stream", "get k Ok 0"]);
}

#[test]
fn binary_answers_find_their_request() {
    let packet = |magic: u8, opcode: u8, status: u16, opaque: u32, extras: &[u8], key: &[u8], value: &[u8]| {
        let body = (extras.len() + key.len() + value.len()) as u32;
        let mut bytes = vec![magic, opcode];
        bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&[extras.len() as u8, 0]);
        bytes.extend_from_slice(&status.to_be_bytes());
        bytes.extend_from_slice(&body.to_be_bytes());
        bytes.extend_from_slice(&opaque.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        [&bytes, extras, key, value].concat()
    };
    let request = |opcode, opaque, key: &[u8]| packet(0x80, opcode, 0, opaque, b"", key, b"");
    let auth = packet(0x80, 0x21, 0, 9, b"", b"PLAIN", b"\0u\0hunter2");
    let out = talk(
        "memcached",
        false,
        &[
            (C, &[request(9, 0, b"a"), request(9, 0, b"b"), request(0, 5, b"c"), request(0x0a, 0, b"")].concat()),
            (S, &packet(0x81, 9, 0, 0, &[0; 4], b"", b"v")),
            (S, &packet(0x81, 0, 1, 5, b"", b"", b"Not found")),
            (S, &packet(0x81, 0x0a, 0, 0, b"", b"", b"")),
            (C, &auth),
            (S, &packet(0x81, 0x21, 0x20, 9, b"", b"", b"Auth failure")),
        ],
    );
    assert_eq!(
        lines(&out),
        [
            "getq a Ok 1",
            "getq b Ok 0 pipelined,no_reply",
            "get c Ok 0 NOT_FOUND pipelined",
            "noop - Ok pipelined",
            "sasl_auth PLAIN Error 32 Auth failure",
        ]
    );
    let secret: u64 =
        out.marks.iter().flatten().filter(|m| m.class == ByteClass::Secret).map(|m| m.range.end - m.range.start).sum();
    assert_eq!(secret, 10 + 12);
}

#[test]
fn datagrams_out_of_order() {
    let datagram = |id: u16, number: u16, count: u16, body: &str| {
        let mut bytes: Vec<u8> = [id, number, count, 0].iter().flat_map(|part| part.to_be_bytes()).collect();
        bytes.extend_from_slice(body.as_bytes());
        bytes
    };
    let mut decoder = Decoder::new(Setup { datagrams: true, ports: [Some(40_000), Some(5)], ..Setup::default() });
    let mut out = Output::default();
    let mut offsets = [0, 0];
    for (end, bytes) in [
        (End::Near, datagram(1, 0, 1, "get a\r\n")),
        (End::Near, datagram(2, 0, 1, "incr n 1\r\n")),
        (End::Far, datagram(2, 0, 1, "7\r\n")),
        (End::Far, datagram(1, 1, 2, "xxx\r\nEND\r\n")),
        (End::Far, datagram(1, 0, 2, "VALUE a 0 2000\r\nxxx")),
        (End::Near, datagram(3, 0, 1, "get lost\r\n")),
    ] {
        let offset = &mut offsets[usize::from(end == End::Far)];
        decoder.push(end, *offset, |stream| stream.push(&bytes), &mut out);
        *offset += bytes.len() as u64;
    }
    decoder.finish(&mut out);
    assert_eq!(lines(&out), ["get a Ok", "incr n Ok", "get lost Unanswered"]);
    assert_eq!(REGISTRY[usize::from(decoder.protocol().unwrap())].name, "memcached");
}

#[test]
fn detection_keeps_apart_what_is_alike() {
    let detect = REGISTRY.iter().find(|protocol| protocol.name == "memcached").unwrap().detect;
    let judge = |client: &str, server: &str| {
        let (client, server) = (client.as_bytes(), server.as_bytes());
        detect(&Prefix { client, server, mid_stream: true, complete: true, ..Prefix::default() })
    };
    for (client, server) in [
        ("set a 0 0 1\r\nx\r\n", ""),
        ("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n"),
        ("get a\r\n", "END\r\n"),
        ("version\r\n", "VERSION 1.6.18\r\n"),
        ("incr n 1\r\n", "8\r\n"),
        ("mg a v\r\n", "EN\r\n"),
    ] {
        assert_eq!(judge(client, server), Detected::Certain, "{client:?}");
    }
    // Redis inline, SMTP, NATS, HTTP, FTP, IRC, POP3, a shell.
    for (client, server) in [
        ("get a\r\n", "$1\r\nx\r\n"),
        ("set a 1\r\n", "+OK\r\n"),
        ("incr a\r\n", ":1\r\n"),
        ("get a\r\n", ""),
        ("EHLO a\r\n", "220 mail ready\r\n"),
        ("", "220 mail ready\r\n"),
        ("PING\r\n", "PONG\r\n"),
        ("PUB a 1\r\nx\r\n", "+OK\r\n"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
        ("get /\r\n", "<html>\r\n"),
        ("USER a\r\n", "331 ok\r\n"),
        ("NICK a\r\n", ":server NOTICE a\r\n"),
        ("STAT\r\n", "+OK 1 2\r\n"),
        ("stats\r\n", "bash: stats: command not found\r\n"),
    ] {
        assert!(judge(client, server) < Detected::Likely, "{client:?} {server:?} {:?}", judge(client, server));
    }
}

#[test]
fn time_and_memory_stay_linear() {
    let mut decoder = parser("memcached", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(b"set a 0 0 104857600\r\n");
    for _ in 0..100 << 10 {
        streams.client.push(&[b'x'; 1024]);
        decoder.parse(&mut streams, &mut out);
    }
    streams.client.push(b"\r\n");
    streams.server.push(b"STORED\r\n");
    decoder.parse(&mut streams, &mut out);
    decoder.finish(&mut streams, &mut out);
    assert_eq!(lines(&out), ["set a Ok"]);

    let count = 1_000_000;
    let out = memcached(false, &[(C, &"get a\r\n".repeat(count)), (S, &"END\r\n".repeat(count))]);
    assert_eq!(out.exchanges.len(), count);
    assert!(out.exchanges.iter().all(|e| e.response.is_some()));
    // Quiet requests that nobody answers.
    let mut quiet = vec![0x80, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    quiet.extend_from_slice(&[0; 12]);
    quiet.push(b'k');
    let quiet = quiet.repeat(100_000);
    let out = talk("memcached", false, &[(C, &quiet), (C, &quiet), (C, &quiet)]);
    assert_eq!(out.exchanges.len(), 300_000);
    let out = memcached(false, &[(C, &"mg a v q\r\n".repeat(200_000)), (C, "mn\r\n"), (S, "MN\r\n")]);
    assert_eq!(out.exchanges.len(), 200_001);
    // Lines without an end.
    let out = memcached(false, &[(C, "get a\r\n"), (C, &"get ".repeat(1 << 20)), (S, &"VALUE ".repeat(1 << 20))]);
    assert!(out.exchanges.len() <= 2);
}

#[test]
fn a_key_in_a_hole_is_flagged() {
    let mut set = vec![0x80, 1, 0, 3, 8, 0, 0, 0, 0, 0, 0, 12];
    set.extend([0; 12]);
    set.extend(*b"\0\0\0\0\0\0\0\0keyv");
    for kept in 24..set.len() {
        let hole = Piece::Cut((set.len() - kept) as u64);
        let out = run(parser("memcached", false).as_mut(), &[(C, Piece::Bytes(set[..kept].to_vec())), (C, hole)]);
        let exchange = &out.exchanges[0];
        assert_eq!(exchange.target.is_none(), kept < 35, "{kept}");
        assert_eq!(exchange.flags.contains(Flags::TRUNCATED), kept < 35, "{kept} {exchange:?}");
    }
}

#[test]
fn what_beanstalkd_shares_is_not_enough() {
    let talk = |sends: &[(bool, &str)]| {
        let pieces = sends.iter().map(|(client, text)| (*client, Piece::Bytes(text.as_bytes().to_vec()))).collect();
        let connection = common::Connection { pieces, ports: (40_000, 7777), ..common::Connection::default() };
        common::decode(&connection, usize::MAX).map(|(protocol, out)| (protocol.name, out.exchanges.len()))
    };
    let deleted = [(C, "delete 1\r\n"), (S, "DELETED\r\n"), (C, "delete 2\r\n"), (S, "NOT_FOUND\r\n")];
    let with = |more: &[(bool, &'static str)]| talk(&[&deleted[..], more].concat());
    assert_eq!(with(&[(C, "stats\r\n"), (S, "OK 10\r\n---\na: 1\n\r\n")]), None);
    assert_eq!(with(&[(C, "get a\r\n"), (S, "VALUE a 0 1\r\nx\r\nEND\r\n")]), Some(("memcached", 3)));
    assert_eq!(with(&[(C, "stats\r\n"), (S, "STAT pid 1\r\nEND\r\n")]), Some(("memcached", 3)));
    assert_eq!(with(&[]), Some(("memcached", 2)));
}
