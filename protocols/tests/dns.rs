//! DNS over UDP and TCP.

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use common::{Connection, Piece, decode, decode_into, run};
use kfr_protocols::{Detected, Exchange, Flags, Output, Parser, Prefix, Start, Status, protocol_named};

const C: bool = true;
const S: bool = false;

const QUERY: u16 = 0x0100;
const ANSWER: u16 = 0x8180;

/// A name on the wire.
fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A message with one question and records as they are: (section's count, bytes).
fn message(id: u16, flags: u16, asked: &str, kind: u16, answers: &[Vec<u8>], additional: &[Vec<u8>]) -> Vec<u8> {
    let counts = [1, answers.len() as u16, 0, additional.len() as u16];
    let mut bytes: Vec<u8> = [id, flags].iter().chain(&counts).flat_map(|n| n.to_be_bytes()).collect();
    bytes.extend(name(asked));
    bytes.extend([kind, 1].iter().flat_map(|n| n.to_be_bytes()));
    bytes.extend(answers.iter().chain(additional).flatten());
    bytes
}

/// A record of the name that was asked for.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend([kind, 1].iter().flat_map(|n| n.to_be_bytes()));
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn soa(serial: u32) -> Vec<u8> {
    let mut data = vec![0, 0];
    data.extend(serial.to_be_bytes());
    data.extend([0; 16]);
    record(6, 60, &data)
}

/// EDNS with the upper bits of the response code and options.
fn opt(extended: u8, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 41, 4, 208, extended, 0, 0, 0];
    bytes.extend((options.len() as u16).to_be_bytes());
    bytes.extend_from_slice(options);
    bytes
}

fn query(id: u16, asked: &str, kind: u16) -> Vec<u8> {
    message(id, QUERY, asked, kind, &[], &[])
}

fn a(id: u16, asked: &str) -> Vec<u8> {
    message(id, ANSWER, asked, 1, &[record(1, 60, &[10, 0, 0, 1])], &[])
}

fn tcp(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn parser(datagrams: bool, mid_stream: bool, server_port: Option<u16>) -> Box<dyn Parser> {
    let (_, protocol) = protocol_named("dns").unwrap();
    (protocol.parser)(&Start { datagrams, mid_stream, server_port, ..Start::default() })
}

fn udp(talk: &[(bool, Vec<u8>)]) -> Output {
    let pieces: Vec<_> = talk.iter().map(|(client, bytes)| (*client, Piece::Bytes(bytes.clone()))).collect();
    run(parser(true, false, Some(53)).as_mut(), &pieces)
}

fn over_tcp(talk: &[(bool, Vec<u8>)]) -> Output {
    let pieces: Vec<_> = talk.iter().map(|(client, bytes)| (*client, Piece::Bytes(tcp(bytes)))).collect();
    run(parser(false, false, Some(53)).as_mut(), &pieces)
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let flags: Vec<_> = Flags::NAMES.iter().filter(|(f, _)| e.flags.contains(*f)).map(|(_, n)| *n).collect();
        let rows = e.rows.map_or("-".into(), |rows| rows.to_string());
        let code = e.code.as_deref().unwrap_or("-");
        format!("{} {} {:?} {code} {rows} {}", e.op, e.target.as_deref().unwrap_or("-"), e.status, flags.join(","))
    };
    out.exchanges.iter().map(|e| one(e).trim_end().to_owned()).collect()
}

/// What `unbound` counted at its port, and `dig` and `tshark` printed.
#[test]
fn recordings_are_read_as_the_server_and_other_tools_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/dns");
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    let (mut asked, mut forwarded, mut retried) = (0, 0, 0);
    let mut lines = Vec::new();
    for (file, is_tcp) in [("udp.pcap", false), ("tcp.pcap", true)] {
        for connection in common::connections(&folder.join(file)) {
            let (protocol, out) = decode(&connection, usize::MAX).unwrap();
            assert_eq!((protocol.name, out.skipped_bytes), ("dns", [0, 0]));
            if is_tcp {
                lines.extend(short(&out));
            } else {
                retried += out.exchanges.iter().filter(|e| e.target.as_deref() == Some("x.broken.test")).count();
                lines.extend(short(&out).into_iter().filter(|line| line.contains('\\') || line.contains("HTTPS")));
            }
            match connection.ports.1 {
                5302 => {
                    asked += out.exchanges.len();
                    for exchange in &out.exchanges {
                        *codes.entry(exchange.code.as_deref().unwrap_or("none").to_owned()).or_default() += 1;
                    }
                }
                _ => forwarded += out.exchanges.len(),
            }
        }
    }
    // unbound-control's total.num.queries and num.answer.rcode; two of them were one query sent twice that was not answered.
    assert_eq!((asked, retried), (20, 2));
    let counted = [("NOERROR", 14), ("NXDOMAIN", 2), ("REFUSED", 1), ("SERVFAIL", 1), ("none", 2)];
    assert_eq!(codes, counted.map(|(code, count)| (code.to_owned(), count)).into());
    // tshark: `dns.flags.response == 0` in both files, less those above.
    assert_eq!(forwarded, 33 + 11 - 20);
    lines.sort();
    let expected = [
        "A none.shop.test Error NXDOMAIN 0",
        "A mail.shop.test Ok NOERROR 1",
        "A web.shop.test Ok NOERROR 1",
        "A web.shop.test Ok NOERROR 1",
        "AAAA web.shop.test Ok NOERROR 1",
        "AXFR other.test Error NOTAUTH 0",
        "AXFR shop.test Ok NOERROR 1034",
        "IXFR shop.test Ok NOERROR 1",
        "SOA shop.test Ok NOERROR 1",
        "TXT large.shop.test Ok NOERROR 120",
        // The resolver's connection to the server was open before.
        "TXT large.shop.test Ok NOERROR 120 mid_stream",
    ];
    for line in expected {
        let at = lines.iter().position(|found| found == line);
        assert!(at.is_some(), "{line} is not in {lines:#?}");
        lines.remove(at.unwrap());
    }
    // Once from the client, once from the resolver.
    assert_eq!(lines.iter().filter(|line| *line == "A with\\.dot.shop.test Ok NOERROR 1").count(), 2, "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| *line == "A with\\032space.shop.test Ok NOERROR 1").count(), 2);
    assert_eq!(lines.iter().filter(|line| *line == "HTTPS shop.test Ok NOERROR 1").count(), 2);
    assert_eq!(lines.len(), 6, "{lines:#?}");
}

#[test]
fn answers_come_in_any_order_and_errors_have_names() {
    let out = udp(&[
        (C, query(1, "a.test", 1)),
        (C, query(1, "a.test", 28)),
        (C, query(2, "b.test", 12)),
        (S, message(2, ANSWER | 3, "b.test", 12, &[], &[])),
        (S, message(1, ANSWER, "A.test", 28, &[], &[])),
        (S, a(1, "a.test")),
        (C, query(3, "", 2)),
        (S, message(3, ANSWER | 2, "", 2, &[], &[opt(0, b"\0\x0f\0\x06\0\x16down")])),
        (C, query(4, "c.test", 65399)),
        (S, message(4, ANSWER | 7, "c.test", 65399, &[], &[opt(1, b"")])),
    ]);
    assert_eq!(
        short(&out),
        [
            "PTR b.test Error NXDOMAIN 0",
            "AAAA a.test Ok NOERROR 0",
            "A a.test Ok NOERROR 1",
            "NS . Error SERVFAIL 0",
            "TYPE65399 c.test Error BADCOOKIE 0",
        ]
    );
    assert_eq!(out.exchanges[3].error.as_deref(), Some("extended error 22: down"));
}

#[test]
fn a_query_sent_again_counts_and_says_so() {
    let first = query(7, "a.test", 1);
    let out = udp(&[(C, first.clone()), (C, first.clone()), (S, a(7, "a.test"))]);
    assert_eq!(short(&out), ["A a.test Ok NOERROR 1", "A a.test Unanswered - - retransmitted"]);
    assert_eq!(out.exchanges[0].request, 0..first.len() as u64);
    // Answered twice: each has one. Asked again after an answer: a new query.
    let out =
        udp(&[(C, first.clone()), (C, first.clone()), (S, a(7, "a.test")), (S, a(7, "a.test")), (C, first.clone())]);
    let expected = ["A a.test Ok NOERROR 1", "A a.test Ok NOERROR 1 retransmitted", "A a.test Unanswered - -"];
    assert_eq!(short(&out), expected);
    // A second answer to one query, or one to another question, is nobody's.
    let out = udp(&[(C, first), (S, a(7, "other.test")), (S, a(7, "a.test")), (S, a(7, "a.test"))]);
    assert_eq!(short(&out), ["A a.test Ok NOERROR 1"]);
    assert_eq!(out.skipped_bytes, [0, 0]);
}

#[test]
fn answers_without_a_question_go_by_their_id() {
    let refused = b"\x00\x09\x80\x05\0\0\0\0\0\0\0\0".to_vec();
    let out = udp(&[(C, query(9, "b.test", 1)), (C, query(9, "a.test", 1)), (S, refused)]);
    assert_eq!(short(&out), ["A b.test Error REFUSED 0", "A a.test Unanswered - -"]);
}

#[test]
fn opcodes_stand_for_types() {
    let out = udp(&[
        (C, message(1, 4 << 11, "zone.test", 6, &[], &[])),
        (S, message(1, 0x8000 | 4 << 11, "zone.test", 6, &[], &[])),
        (C, message(2, 5 << 11, "zone.test", 6, &[], &[])),
        (S, b"\x00\x02\xa8\x05\0\0\0\0\0\0\0\0".to_vec()),
    ]);
    assert_eq!(short(&out), ["NOTIFY zone.test Ok NOERROR -", "UPDATE zone.test Error REFUSED -"]);
}

#[test]
fn multicast_questions_are_not_called_unanswered() {
    let two =
        [&b"\0\0\0\0\0\x02\0\0\0\0\0\0"[..], &name("_ipp._tcp.local"), b"\0\x0c\x80\x01", b"\xc0\x0c\0\x10\0\x01"];
    let response = b"\0\0\x84\0\0\0\0\x01\0\0\0\0\x01a\x05local\0\0\x01\x80\x01\0\0\0\x78\0\x04\x0a\0\0\x01".to_vec();
    let pieces: Vec<_> = [(C, two.concat()), (C, response), (C, message(0, 0, "b.local", 1, &[], &[]))]
        .into_iter()
        .map(|(client, bytes)| (client, Piece::Bytes(bytes)))
        .collect();
    let out = run(parser(true, false, Some(5353)).as_mut(), &pieces);
    assert_eq!(short(&out), ["PTR _ipp._tcp.local Unknown - - multicast", "A b.local Unknown - - multicast"]);
    assert_eq!(out.skipped_bytes, [0, 0]);
    let flow = Connection { pieces, datagrams: true, ports: (5353, 5353), ..Connection::default() };
    assert_eq!(decode(&flow, usize::MAX).map(|(protocol, out)| (protocol.name, out.exchanges.len())), Some(("dns", 2)));
    // A resolver on that port is an ordinary one.
    let pieces: Vec<_> = [(C, query(4, "x.svc.cluster.local", 1)), (S, a(4, "x.svc.cluster.local"))]
        .map(|(client, bytes)| (client, Piece::Bytes(bytes)))
        .into();
    let out = run(parser(true, false, Some(5353)).as_mut(), &pieces);
    assert_eq!(short(&out), ["A x.svc.cluster.local Ok NOERROR 1"]);
}

#[test]
fn addresses_come_with_the_name_that_was_asked_for() {
    let alias = record(5, 60, &[4, b'r', b'e', b'a', b'l', 0]);
    let v6 = record(28, 60, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let answer = message(1, ANSWER, "www.test", 255, &[alias, record(1, 60, &[10, 0, 0, 9]), v6], &[]);
    let pieces = vec![(C, Piece::Bytes(query(1, "www.test", 255))), (S, Piece::Bytes(answer))];
    let flow = Connection { pieces, datagrams: true, ports: (40000, 53), ..Connection::default() };
    let wanted = Output { names: Some(Vec::new()), ..Output::default() };
    let (_, out) = decode_into(&flow, usize::MAX, wanted).unwrap();
    let expected = ["10.0.0.9", "::1"].map(|address| ("www.test".into(), address.parse::<IpAddr>().unwrap()));
    assert_eq!(out.names.unwrap(), expected);
    assert!(decode(&flow, usize::MAX).unwrap().1.names.is_none());
}

#[test]
fn tcp_pipelines_and_answers_out_of_order() {
    let out = over_tcp(&[
        (C, query(1, "a.test", 1)),
        (C, query(2, "b.test", 1)),
        (S, a(2, "b.test")),
        (S, a(1, "a.test")),
        (C, query(3, "c.test", 1)),
    ]);
    let expected = ["A b.test Ok NOERROR 1 pipelined", "A a.test Ok NOERROR 1", "A c.test Unanswered - -"];
    assert_eq!(short(&out), expected);
    assert_eq!(out.exchanges[1].response, Some(42..84));
}

#[test]
fn transfers_end_with_their_second_soa() {
    let host = || record(1, 60, &[10, 0, 0, 1]);
    let start = message(5, ANSWER, "z.test", 252, &[soa(7), host()], &[]);
    let rest = [&b"\0\x05\x81\x80\0\0\0\x02\0\0\0\0"[..], &[0], &host()[2..], &[0], &soa(7)[2..]].concat();
    let out = over_tcp(&[
        (C, message(5, 0, "z.test", 252, &[], &[])),
        (C, query(6, "a.test", 1)),
        (S, start.clone()),
        (S, a(6, "a.test")),
        (S, rest),
        (C, query(7, "b.test", 1)),
    ]);
    let expected = ["A a.test Ok NOERROR 1 pipelined", "AXFR z.test Ok NOERROR 4", "A b.test Unanswered - -"];
    assert_eq!(short(&out), expected);
    // Broken off.
    let out = over_tcp(&[(C, message(5, 0, "z.test", 252, &[], &[])), (S, start)]);
    assert_eq!(short(&out), ["AXFR z.test Ok NOERROR 2 incomplete"]);
    // Differences: the serial stands in front, before what is added, and at the end.
    let differences = [soa(7), soa(6), host(), soa(7), host(), soa(7)];
    for split in 1..differences.len() {
        let (first, second) = differences.split_at(split);
        let out = over_tcp(&[
            (C, message(5, 0, "z.test", 251, &[], &[])),
            (S, message(5, ANSWER, "z.test", 251, first, &[])),
            (S, message(5, ANSWER, "z.test", 251, second, &[])),
            (C, query(7, "b.test", 1)),
        ]);
        // One SOA record alone says that there is nothing new.
        let rows = if split == 1 { 1 } else { 6 };
        assert_eq!(short(&out)[0], format!("IXFR z.test Ok NOERROR {rows}"), "{split}");
    }
}

#[test]
fn cut_messages_say_what_is_missing() {
    let (ask, reply) = (query(1, "a.test", 1), a(1, "a.test"));
    for keep in 0..ask.len() {
        let cut = (ask.len() - keep) as u64;
        for datagrams in [true, false] {
            let (ask, reply) = if datagrams { (ask.clone(), reply.clone()) } else { (tcp(&ask), tcp(&reply)) };
            let pieces = [
                (C, Piece::Bytes(ask[..ask.len() - cut as usize].to_vec())),
                (C, Piece::Cut(cut)),
                (S, Piece::Bytes(reply.clone())),
            ];
            let mut parser = parser(datagrams, false, Some(53));
            let (mut streams, mut out) = (kfr_protocols::Streams::default(), Output::default());
            if let Piece::Bytes(bytes) = &pieces[0].1 {
                streams.client.push(bytes);
            }
            streams.client.push_hole(kfr_protocols::Hole { length: cut, kind: kfr_protocols::HoleKind::Cut });
            parser.parse(&mut streams, &mut out);
            streams.server.push(&reply);
            parser.parse(&mut streams, &mut out);
            parser.finish(&mut streams, &mut out);
            assert_eq!(out.exchanges.len(), 1, "{keep} {datagrams}");
            let found = &out.exchanges[0];
            assert_eq!(found.request.end, ask.len() as u64, "{keep} {datagrams} {found:?}");
            assert!(found.flags.contains(Flags::TRUNCATED));
            if keep >= 12 {
                // The answer repeats what was asked.
                assert_eq!((found.status, found.rows, &*found.op), (Status::Ok, Some(1), "A"), "{keep} {datagrams}");
            } else {
                assert_eq!((found.status, &*found.op), (Status::Unknown, "?"), "{keep} {datagrams}");
            }
        }
    }
    // An answer: its head says how it went; EDNS may say otherwise, unless there are answers.
    let empty = message(1, ANSWER, "a.test", 1, &[], &[opt(1, b"")]);
    for (reply, status) in [(&reply, Status::Ok), (&empty, Status::Unknown)] {
        let pieces = [
            (C, Piece::Bytes(tcp(&ask))),
            (S, Piece::Bytes(tcp(reply)[..20].to_vec())),
            (S, Piece::Cut(reply.len() as u64 - 18)),
        ];
        let out = run(parser(false, false, None).as_mut(), &pieces);
        assert_eq!(
            (out.exchanges[0].status, out.exchanges[0].response.clone()),
            (status, Some(0..reply.len() as u64 + 2))
        );
    }
}

#[test]
fn lost_requests_are_named_by_their_answers() {
    let pieces =
        [(C, Piece::Lost(26)), (S, Piece::Bytes(tcp(&a(1, "a.test")))), (C, Piece::Bytes(tcp(&query(2, "b.test", 1))))];
    let out = run(parser(false, false, None).as_mut(), &pieces);
    assert_eq!(short(&out), ["A a.test Ok NOERROR 1 gap", "A b.test Unanswered - -"]);
    let pieces = [(C, Piece::Bytes(tcp(&query(2, "b.test", 1)))), (S, Piece::Lost(100))];
    let out = run(parser(false, false, None).as_mut(), &pieces);
    assert_eq!(short(&out), ["A b.test Unknown - - gap"]);
}

#[test]
fn joined_in_the_middle() {
    let pieces = [
        (S, Piece::Bytes(vec![b'x'; 30])),
        (C, Piece::Bytes(vec![0; 20])),
        (C, Piece::Bytes(tcp(&query(1, "a.test", 1)))),
        (S, Piece::Bytes(tcp(&a(1, "a.test")))),
    ];
    let out = run(parser(false, true, None).as_mut(), &pieces);
    assert_eq!((short(&out), out.skipped_bytes), (vec!["A a.test Ok NOERROR 1 mid_stream".to_owned()], [20, 30]));
}

#[test]
fn how_sure_a_message_makes() {
    let (_, protocol) = protocol_named("dns").unwrap();
    let judge = |client: &[u8], server: &[u8], datagrams, server_port| {
        (protocol.detect)(&Prefix { client, server, datagrams, server_port, complete: true, ..Prefix::default() })
    };
    let (ask, reply) = (query(1, "a.test", 1), a(1, "a.test"));
    assert_eq!(judge(&ask, &[], true, None), Detected::Certain);
    assert_eq!(judge(&[], &reply, true, None), Detected::Certain);
    assert_eq!(judge(&reply, &ask, true, None), Detected::No);
    assert_eq!(judge(&ask, &[], true, Some(5355)), Detected::No);
    assert_eq!(judge(&tcp(&ask), &tcp(&reply), false, None), Detected::Certain);
    assert_eq!(judge(&tcp(&ask)[..20], &[], false, None), Detected::Maybe);
}

#[test]
fn hostile_messages_cost_little() {
    // Counts of 65,535, pointers to themselves, names without end: within one datagram each.
    let mut all = query(1, "a.test", 1);
    all[4..12].fill(0xff);
    let mut loops = b"\0\x01\x01\0\xff\xff\0\0\0\0\0\0".to_vec();
    loops.extend(b"\xc0\x0c\0\x01\0\x01".repeat(10_000));
    let mut chain = b"\0\x01\x81\x80\xff\xff\0\0\0\0\0\0\x01a\0\0\x01\0\x01".to_vec();
    for _ in 0..10_000 {
        let at = (chain.len() - 6).min(0x3fff) as u16 | 0xc000;
        chain.extend_from_slice(b"\x01a");
        chain.extend(at.to_be_bytes());
        chain.extend(b"\0\x01\0\x01");
    }
    for bytes in [all, loops, chain] {
        for _ in 0..200 {
            let out = udp(&[(C, bytes.clone()), (S, bytes.clone())]);
            assert!(out.exchanges.len() <= 1);
            over_tcp(&[(C, bytes[..bytes.len().min(65_000)].to_vec()), (S, bytes[..bytes.len().min(65_000)].to_vec())]);
        }
    }
}

#[test]
fn a_million_queries_and_a_hundred_megabytes_take_linear_time() {
    let count = 1_000_000_u32;
    let (mut parser, mut streams, mut out) =
        (parser(true, false, Some(53)), kfr_protocols::Streams::default(), Output::default());
    for number in 0..count {
        // The same id and question all along, never answered: the worst for matching.
        streams.client.push(&query(1, "a.test", 1));
        parser.parse(&mut streams, &mut out);
        if number % 3 == 0 {
            streams.server.push(b"\0\x01\x80\x05\0\0\0\0\0\0\0\0");
            parser.parse(&mut streams, &mut out);
        }
    }
    parser.finish(&mut streams, &mut out);
    assert_eq!(out.exchanges.len(), count as usize);

    let mut parser = self::parser(false, false, Some(53));
    let (mut streams, mut out) = (kfr_protocols::Streams::default(), Output::default());
    let mut large = query(1, "a.test", 1);
    large.resize(65_535, 0);
    let bytes = tcp(&large).repeat(1600);
    for chunk in bytes.chunks(1024) {
        streams.client.push(chunk);
        parser.parse(&mut streams, &mut out);
    }
    parser.finish(&mut streams, &mut out);
    assert_eq!(out.exchanges.len(), 1600);
}
