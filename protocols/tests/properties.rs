//! What holds for every decoder: splitting changes nothing, cut payload loses no request, nothing panics, time is linear.

mod common;
mod conversations;

use common::{Piece, parser, pieces, run};
use conversations::{C, Conversation, S, all, http, message, mysql_joined, postgresql_joined, redis, with_lines};
use kfr_protocols::{Exchange, Output, REGISTRY, Side, Streams};
use proptest::prelude::*;

fn whole(conversation: &Conversation) -> Vec<(bool, Piece)> {
    conversation.sends.iter().map(|(client, bytes)| (*client, Piece::Bytes(bytes.clone()))).collect()
}

fn ops(out: &Output) -> Vec<&str> {
    out.exchanges.iter().map(|e| &*e.op).collect()
}

#[test]
fn whole_conversations_are_read() {
    for conversation in with_lines() {
        let out = run(parser(conversation.protocol, false).as_mut(), &whole(&conversation));
        assert_eq!(ops(&out), conversation.ops);
        assert_eq!(out.skipped_bytes, [0, 0], "{}", conversation.protocol);
        assert!(out.exchanges.iter().all(|e| e.flags.0 == 0 && e.response.is_some()), "{:#?}", out.exchanges);
    }
}

#[test]
fn every_byte_is_classified_once() {
    for conversation in with_lines() {
        let out = run(parser(conversation.protocol, false).as_mut(), &whole(&conversation));
        for side in [Side::Client, Side::Server] {
            let mut marks: Vec<_> = out.marks.iter().flatten().filter(|m| m.side == side).collect();
            marks.sort_by_key(|m| m.range.start);
            let mut at = 0;
            for mark in marks {
                assert_eq!(mark.range.start, at, "{} {side:?} {mark:?}", conversation.protocol);
                at = mark.range.end;
            }
            let sent: usize =
                conversation.sends.iter().filter(|(c, _)| *c == (side == Side::Client)).map(|(_, b)| b.len()).sum();
            assert_eq!(at, sent as u64, "{} {side:?}", conversation.protocol);
        }
    }
}

/// Ranges of one side's sends.
fn offsets(conversation: &Conversation, index: usize) -> std::ops::Range<u64> {
    let (side, bytes) = &conversation.sends[index];
    let before: usize =
        conversation.sends[..index].iter().filter(|(client, _)| client == side).map(|(_, bytes)| bytes.len()).sum();
    before as u64..(before + bytes.len()) as u64
}

/// One send is damaged: it keeps its first `from` bytes and what follows `to`, a hole is between.
fn damaged(conversation: &Conversation, index: usize, from: usize, to: usize, cut: bool) -> Vec<(bool, Piece)> {
    let mut damaged = Vec::new();
    for (i, (client, bytes)) in conversation.sends.iter().enumerate() {
        if i != index {
            damaged.push((*client, Piece::Bytes(bytes.clone())));
            continue;
        }
        if from > 0 {
            damaged.push((*client, Piece::Bytes(bytes[..from].to_vec())));
        }
        let hole = (to - from) as u64;
        damaged.push((*client, if cut { Piece::Cut(hole) } else { Piece::Lost(hole) }));
        if to < bytes.len() {
            damaged.push((*client, Piece::Bytes(bytes[to..].to_vec())));
        }
    }
    damaged
}

fn check_damage(conversation: &Conversation, mid_stream: bool, index: usize, from: usize, to: usize, cut: bool) {
    let context = format!("{} send {index} {from}..{to} cut {cut}", conversation.protocol);
    let intact = run(parser(conversation.protocol, mid_stream).as_mut(), &whole(conversation));
    let out = run(parser(conversation.protocol, mid_stream).as_mut(), &damaged(conversation, index, from, to, cut));
    let (client, bytes) = &conversation.sends[index];
    let range = offsets(conversation, index);
    let hit = |e: &Exchange| {
        let other = if *client { Some(&e.request) } else { e.response.as_ref() };
        other.is_some_and(|r| r.start < range.end && range.start < r.end)
    };
    let login = !intact.exchanges.iter().any(hit);
    // A send of the client that is missing whole can't be counted.
    if !(*client && from == 0) || login {
        assert_eq!(out.exchanges.len(), intact.exchanges.len(), "{context}\n{:#?}", out.exchanges);
    }
    for expected in &intact.exchanges {
        let found = out.exchanges.iter().find(|e| e.request.start == expected.request.start);
        if !hit(expected) {
            // Statements and their parameters are unknown where their prepare was damaged.
            let mut expected = expected.clone();
            let mut found = found.cloned().unwrap_or_default();
            if &*expected.op == "execute" {
                (expected.target, expected.statement, expected.sql, expected.flags) = Default::default();
                (found.target, found.statement, found.sql, found.flags) = Default::default();
            }
            assert_eq!(found, expected, "{context}");
        } else if let Some(found) = found {
            // What is missing whole is known by its answer only.
            assert!(found.request == expected.request || *client && from == 0, "{context}");
            let (answer, whole) = (found.response.as_ref(), expected.response.as_ref());
            assert_eq!(answer.map(|r| r.end), whole.map(|r| r.end), "{context}");
            assert!(answer.map(|r| r.start) <= whole.map(|r| r.start), "{context}");
            let cut_before_type = *client && from < 5 || conversation.protocol != "mysql" && from < bytes.len();
            assert!(found.op == expected.op || cut_before_type, "{context}: {}", found.op);
        }
    }
}

#[test]
fn sends_cut_at_every_offset_lose_no_request() {
    for conversation in all() {
        for index in 0..conversation.sends.len() {
            let length = conversation.sends[index].1.len();
            for from in 0..length {
                for cut in [true, false] {
                    check_damage(&conversation, false, index, from, length, cut);
                }
            }
        }
    }
}

#[test]
fn commands_joined_in_the_middle_lose_no_request() {
    for conversation in [mysql_joined(false), mysql_joined(true), postgresql_joined()] {
        let out = run(parser(conversation.protocol, true).as_mut(), &whole(&conversation));
        assert_eq!(ops(&out), conversation.ops);
        assert_eq!(out.skipped_bytes, [0, 0]);
        for index in 1..conversation.sends.len() {
            let length = conversation.sends[index].1.len();
            for from in 0..length {
                check_damage(&conversation, true, index, from, length, true);
            }
        }
    }
}

#[test]
fn answers_with_a_hole_anywhere_lose_no_request() {
    for conversation in all() {
        for index in 0..conversation.sends.len() {
            let (client, bytes) = &conversation.sends[index];
            if *client {
                continue;
            }
            let intact = run(parser(conversation.protocol, false).as_mut(), &whole(&conversation));
            for from in 0..bytes.len() {
                for to in from + 1..bytes.len() {
                    for cut in [true, false] {
                        let damaged = damaged(&conversation, index, from, to, cut);
                        let out = run(parser(conversation.protocol, false).as_mut(), &damaged);
                        let context = format!("{} send {index} {from}..{to}", conversation.protocol);
                        assert_eq!(ops(&out), conversation.ops, "{context}");
                        for (found, expected) in out.exchanges.iter().zip(&intact.exchanges) {
                            assert_eq!(found.request, expected.request, "{context}");
                            // An interim answer is only known where it was seen.
                            let (found, expected) = (found.response.as_ref(), expected.response.as_ref());
                            assert_eq!(found.map(|r| r.end), expected.map(|r| r.end), "{context}");
                            assert!(found.map(|r| r.start) <= expected.map(|r| r.start), "{context}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn any_payload_limit_loses_no_request() {
    let joined = [mysql_joined(false), mysql_joined(true), postgresql_joined()];
    for (conversation, mid_stream) in all().into_iter().map(|c| (c, false)).chain(joined.into_iter().map(|c| (c, true)))
    {
        let intact = run(parser(conversation.protocol, mid_stream).as_mut(), &whole(&conversation));
        // Behind a head that goes on in a hole the next one has to be recognised: that needs a few bytes.
        for limit in 12..120 {
            let mut pieces = Vec::new();
            for (client, bytes) in &conversation.sends {
                let (kept, cut) = bytes.split_at(bytes.len().min(limit));
                pieces.push((*client, Piece::Bytes(kept.to_vec())));
                if !cut.is_empty() {
                    pieces.push((*client, Piece::Cut(cut.len() as u64)));
                }
            }
            let out = run(parser(conversation.protocol, mid_stream).as_mut(), &pieces);
            let context = format!("{} limit {limit} {:#?}", conversation.protocol, out.exchanges);
            assert_eq!(out.exchanges.len(), intact.exchanges.len(), "{context}");
            for (found, expected) in out.exchanges.iter().zip(&intact.exchanges) {
                assert_eq!(found.request, expected.request, "{context}");
                let (found, expected) = (found.response.as_ref(), expected.response.as_ref());
                assert_eq!(found.map(|r| r.end), expected.map(|r| r.end), "{context}");
            }
        }
    }
}

/// Splits every send at the given places.
fn split(conversation: &Conversation, mut pick: impl FnMut(usize) -> usize) -> Vec<(bool, Piece)> {
    let mut split = Vec::new();
    for (client, bytes) in &conversation.sends {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let size = pick(rest.len()).clamp(1, rest.len());
            split.push((*client, Piece::Bytes(rest[..size].to_vec())));
            rest = &rest[size..];
        }
    }
    split
}

#[test]
fn byte_by_byte_is_the_same() {
    for conversation in with_lines() {
        let intact = run(parser(conversation.protocol, false).as_mut(), &whole(&conversation));
        let out = run(parser(conversation.protocol, false).as_mut(), &split(&conversation, |_| 1));
        assert_eq!(out.exchanges, intact.exchanges);
    }
}

#[test]
fn ranges_begin_where_their_streams_do() {
    // As of a connection joined in the middle: whatever of the first answers was seen.
    const BEGIN: u64 = 1 << 32 | 1000;
    let joined = [mysql_joined(false), mysql_joined(true), postgresql_joined()];
    for conversation in all().into_iter().chain(joined) {
        let first = conversation.sends.iter().position(|(client, _)| !*client).unwrap();
        for from in 0..conversation.sends[first].1.len() {
            let (mut parser, mut streams) = (parser(conversation.protocol, true), Streams::default());
            let mut out = Output::default();
            for (index, (client, bytes)) in conversation.sends.iter().enumerate() {
                let stream = if *client { &mut streams.client } else { &mut streams.server };
                if stream.end() == 0 {
                    stream.start_at(BEGIN);
                }
                stream.push(if index == first { &bytes[from..] } else { bytes });
                parser.parse(&mut streams, &mut out);
            }
            parser.finish(&mut streams, &mut out);
            for exchange in &out.exchanges {
                let context = format!("{} without {from} bytes: {exchange:?}", conversation.protocol);
                assert!(exchange.request.start >= BEGIN, "{context}");
                assert!(exchange.response.as_ref().is_none_or(|response| response.start >= BEGIN), "{context}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_split_is_the_same(sizes in prop::collection::vec(1usize..40, 1..50)) {
        for conversation in with_lines() {
            let intact = run(parser(conversation.protocol, false).as_mut(), &whole(&conversation));
            let mut turn = sizes.iter().cycle();
            let pieces = split(&conversation, |_| *turn.next().unwrap());
            let out = run(parser(conversation.protocol, false).as_mut(), &pieces);
            prop_assert_eq!(out.exchanges, intact.exchanges);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        pushes in prop::collection::vec((any::<bool>(), prop_oneof![
            prop::collection::vec(any::<u8>(), 1..200).prop_map(Piece::Bytes),
            (1u64..5000).prop_map(Piece::Cut),
            (1u64..5000).prop_map(Piece::Lost),
        ]), 1..40),
        mid_stream: bool,
    ) {
        check_bounds(&pushes, mid_stream)?;
    }

    #[test]
    fn shuffled_conversations_never_panic(
        order in prop::collection::vec((0usize..20, 0usize..60, 0usize..60, 0u8..4), 1..60),
        mid_stream: bool,
    ) {
        for conversation in all() {
            let pieces: Vec<_> = order.iter().map(|(index, from, length, what)| {
                let (client, bytes) = &conversation.sends[index % conversation.sends.len()];
                let from = from % bytes.len();
                let to = (from + 1 + length).min(bytes.len());
                let piece = match what {
                    0 => Piece::Cut(*length as u64 + 1),
                    1 => Piece::Lost(*length as u64 + 1),
                    _ => Piece::Bytes(bytes[from..to].to_vec()),
                };
                (*client, piece)
            }).collect();
            check_bounds(&pieces, mid_stream)?;
        }
    }
}

/// Pushes through every decoder: what comes out is bounded by what went in, and ranges are in order.
fn check_bounds(pushes: &[(bool, Piece)], mid_stream: bool) -> Result<(), TestCaseError> {
    let size = |client: bool| -> u64 {
        let sizes = pushes.iter().filter(|(c, _)| *c == client).map(|(_, p)| match p {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Cut(length) | Piece::Lost(length) => *length,
        });
        sizes.sum()
    };
    let (client, server) = (size(C), size(S));
    for protocol in REGISTRY {
        let out = run(parser(protocol.name, mid_stream).as_mut(), pushes);
        // A message that the server sends unasked is an exchange of its own.
        prop_assert!(out.exchanges.len() as u64 <= client + server);
        prop_assert!(out.skipped_bytes[0] <= client && out.skipped_bytes[1] <= server);
        for e in &out.exchanges {
            prop_assert!(e.request.start <= e.request.end, "{e:?}");
            if let Some(response) = &e.response {
                prop_assert!(response.start <= response.end && response.end <= server, "{e:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_hundred_megabytes_in_small_chunks_take_linear_time() {
    let chunk = [b'x'; 1024];
    let heads: [(&str, &[u8]); 3] = [
        ("postgresql", b"\0\0\0\x12\0\x03\0\0user\0app\0\0Q\x06\x40\0\x03"),
        ("http", b"POST /a HTTP/1.1\r\nContent-Length: 104857600\r\n\r\n"),
        ("redis", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$104857600\r\n"),
    ];
    for (name, head) in heads {
        let mut parser = parser(name, false);
        let (mut streams, mut out) = (Streams::default(), Output::default());
        streams.client.push(head);
        for _ in 0..100 << 10 {
            streams.client.push(&chunk);
            parser.parse(&mut streams, &mut out);
        }
        parser.finish(&mut streams, &mut out);
        assert_eq!(out.exchanges.len(), 1, "{name}");
    }
    // Never-ending lines and heads are given up.
    for name in ["http", "redis", "mysql", "postgresql"] {
        for mid_stream in [false, true] {
            let mut parser = parser(name, mid_stream);
            let (mut streams, mut out) = (Streams::default(), Output::default());
            for _ in 0..100 << 10 {
                streams.client.push(&chunk);
                streams.server.push(&chunk);
                parser.parse(&mut streams, &mut out);
            }
            assert!(streams.client.bytes().len() < 20 << 20 && streams.server.bytes().len() < 20 << 20, "{name}");
        }
    }
}

#[test]
fn a_million_pipelined_requests_in_one_chunk() {
    let query = message(b'Q', b"SELECT 1\0");
    let answer = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    let cases: [(&str, &[u8], &[u8], usize); 3] = [
        ("postgresql", &query, &answer, 1_000_000),
        ("http", b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 N\r\n\r\n", 1_000_000),
        ("redis", b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", 1_000_000),
    ];
    for (name, request, response, count) in cases {
        let startup: &[u8] = if name == "postgresql" { conversations::STARTUP } else { b"" };
        let asked = [startup, &request.repeat(count)].concat();
        let ready: &[u8] = if name == "postgresql" { b"Z\0\0\0\x05I" } else { b"" };
        let answered = [ready, &response.repeat(count)].concat();
        let out = common::talk(name, false, &[(C, &asked), (S, &answered)]);
        assert_eq!(out.exchanges.len(), count, "{name}");
        assert_eq!(out.exchanges.iter().position(|e| e.response.is_none()), None, "{name} {:?}", out.skipped_bytes);
        assert_eq!(out.exchanges.last().unwrap().request.end, asked.len() as u64);
    }
}

#[test]
fn joined_in_the_middle() {
    // The first bytes of both directions are the rest of something.
    for conversation in [http(), redis()] {
        let mut pieces = pieces(&[(S, b"the rest of a value\r\n"), (C, b"something\r\nelse")]);
        pieces.extend(whole(&conversation));
        let out = run(parser(conversation.protocol, true).as_mut(), &pieces);
        assert_eq!(ops(&out), conversation.ops, "{}", conversation.protocol);
        assert_eq!(out.skipped_bytes, [15, 21], "{}", conversation.protocol);
        let intact = run(parser(conversation.protocol, false).as_mut(), &whole(&conversation));
        for (found, expected) in out.exchanges.iter().zip(&intact.exchanges) {
            let response = expected.response.clone().map(|r| r.start + 21..r.end + 21);
            assert_eq!((found.status, &found.response), (expected.status, &response));
        }
    }
}
