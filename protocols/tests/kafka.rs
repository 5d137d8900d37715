//! Kafka (<https://kafka.apache.org/protocol>). The recordings in `testdata/protocols/kafka` are of librdkafka's clients
//! against its own mock cluster (`rdkafka_mock.h`), a producer and a consumer of a group, once with transactions.

mod common;
mod conversations;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use common::{Piece, parser, pieces, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, Side, Status, Streams, protocol_named};

/// A message: its length, then the parts.
fn message(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// A request with header version 1, or 2 where `flexible`.
fn request(key: u16, version: u16, id: u32, flexible: bool, body: &[&[u8]]) -> Vec<u8> {
    let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &id.to_be_bytes(), &text("app")].concat();
    message(&[&head, if flexible { b"\0" } else { b"" }, &body.concat()])
}

fn answer(id: u32, flexible: bool, body: &[&[u8]]) -> Vec<u8> {
    message(&[&id.to_be_bytes(), if flexible { b"\0" } else { b"" }, &body.concat()])
}

/// A string with a 16-bit length.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// A compact string.
fn compact(text: &str) -> Vec<u8> {
    [&[text.len() as u8 + 1], text.as_bytes()].concat()
}

fn i16s(value: i16) -> [u8; 2] {
    value.to_be_bytes()
}

fn i32s(value: i32) -> [u8; 4] {
    value.to_be_bytes()
}

/// A record batch (format 2) of `count` records and `size` bytes.
fn batch(count: u32, size: usize) -> Vec<u8> {
    let mut bytes = vec![0x55; size];
    bytes[8..12].copy_from_slice(&(size as u32 - 12).to_be_bytes());
    bytes[16] = 2;
    bytes[21..23].copy_from_slice(&[0, 0]);
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes
}

/// Produce version 3 of one topic with one partition.
fn produce(id: u32, acks: i16, topic: &str, records: &[u8]) -> Vec<u8> {
    let count = (records.len() as u32).to_be_bytes();
    let body: [&[u8]; 8] =
        [&[0xff, 0xff], &i16s(acks), &i32s(1000), &i32s(1), &text(topic), &[0, 0, 0, 1, 0, 0, 0, 0], &count, records];
    request(0, 3, id, false, &body)
}

/// An answer to Produce version 3 of one topic with these partitions' errors.
fn produced(id: u32, topic: &str, errors: &[i16]) -> Vec<u8> {
    let mut partitions = Vec::new();
    for (index, error) in errors.iter().enumerate() {
        partitions.extend([&i32s(index as i32)[..], &i16s(*error), &[0; 16]].concat());
    }
    let body: [&[u8]; 5] = [&i32s(1), &text(topic), &i32s(errors.len() as i32), &partitions, &i32s(0)];
    answer(id, false, &body)
}

/// Heartbeat version 0.
fn heartbeat(id: u32, group: &str) -> Vec<u8> {
    request(12, 0, id, false, &[&text(group), &i32s(1), &text("member")])
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let code = e.code.as_deref().unwrap_or("-");
        let rows = e.rows.map_or("-".into(), |rows| rows.to_string());
        format!("{} {} {:?} {code} {rows}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

fn recording(name: &str) -> Vec<Output> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/kafka").join(name);
    common::connections(&path).iter().map(|one| common::decode(one, usize::MAX).unwrap().1).collect()
}

/// What librdkafka's own statistics (`brokers.*.req`) said of producer and consumer; the third client, which hosts the
/// mock cluster, asked for versions twice and for metadata once. (The first consumer asked for metadata once more when it
/// closed, behind its last statistics.) Of every client's first ApiVersions on a connection
/// the mock cluster says that it is too new for it.
#[test]
fn counts_are_those_of_the_client() {
    let groups: [(&str, u64); 12] = [
        ("Produce", 6),
        ("Fetch", 5),
        ("ListOffsets", 3),
        ("Metadata", 3 + 4 + 1 + 1),
        ("OffsetCommit", 2),
        ("OffsetFetch", 1),
        ("FindCoordinator", 2),
        ("JoinGroup", 1),
        ("Heartbeat", 1),
        ("LeaveGroup", 1),
        ("SyncGroup", 1),
        ("ApiVersions", 2 + 4 + 2),
    ];
    let transactions: [(&str, u64); 15] = [
        ("Produce", 5),
        ("Fetch", 4),
        ("ListOffsets", 3),
        ("Metadata", 4 + 4 + 1),
        ("OffsetCommit", 2),
        ("OffsetFetch", 1),
        ("FindCoordinator", 2 + 2),
        ("JoinGroup", 1),
        ("Heartbeat", 1),
        ("LeaveGroup", 1),
        ("SyncGroup", 1),
        ("ApiVersions", 4 + 4 + 2),
        ("InitProducerId", 1),
        ("AddPartitionsToTxn", 1),
        ("EndTxn", 1),
    ];
    for (file, truth, versions) in [("groups.pcap", &groups[..], 4), ("transactions.pcap", &transactions, 5)] {
        let outs = recording(file);
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let all: Vec<&Exchange> = outs.iter().flat_map(|out| &out.exchanges).collect();
        all.iter().for_each(|e| *counts.entry(&e.op).or_default() += 1);
        assert_eq!(counts, truth.iter().copied().collect(), "{file}");
        assert!(all.iter().all(|e| e.response.is_some() && e.status != Status::Unknown), "{file}");
        // The errors that were asked of the mock cluster.
        let errors: Vec<_> = all.iter().filter_map(|e| Some((&*e.op, e.code.as_deref()?))).collect();
        let count = |op, code| errors.iter().filter(|error| **error == (op, code)).count();
        assert_eq!(count("Produce", "NOT_LEADER_OR_FOLLOWER"), 1, "{file}");
        assert_eq!(count("Produce", "REQUEST_TIMED_OUT"), 1, "{file}");
        assert_eq!(count("OffsetCommit", "REBALANCE_IN_PROGRESS"), 1, "{file}");
        assert_eq!(count("ApiVersions", "UNSUPPORTED_VERSION"), versions, "{file}");
        assert_eq!(errors.len(), 3 + versions, "{file}");
        // 30 messages were sent, and consumed.
        let rows = |op: &str| -> u64 {
            all.iter().filter(|e| &*e.op == op && e.status == Status::Ok).map(|e| e.rows.unwrap()).sum()
        };
        assert_eq!((rows("Produce"), rows("Fetch")), (30, 30), "{file}");
    }
}

#[test]
fn errors_at_every_level_and_records() {
    let two = [batch(3, 90), batch(4, 70)].concat();
    let out = talk(
        "kafka",
        false,
        &[
            (C, &produce(1, 1, "orders", &two)),
            (C, &produce(2, -1, "orders", &batch(2, 61))),
            (C, &heartbeat(3, "billing")),
            (S, &produced(1, "orders", &[0])),
            (S, &produced(2, "orders", &[0, 6])),
            (S, &answer(3, false, &[&i16s(27)])),
            (C, &heartbeat(4, "billing")),
            (S, &answer(4, false, &[&i16s(999)])),
        ],
    );
    assert_eq!(
        short(&out),
        [
            "Produce orders Ok - 7",
            "Produce orders Error NOT_LEADER_OR_FOLLOWER 2",
            "Heartbeat billing Error REBALANCE_IN_PROGRESS -",
            "Heartbeat billing Error 999 -",
        ]
    );
    let pipelined: Vec<bool> = out.exchanges.iter().map(|e| e.flags.contains(Flags::PIPELINED)).collect();
    assert_eq!(pipelined, [false, true, true, false]);
}

#[test]
fn versions_that_are_still_to_come_count_without_a_status() {
    let known = heartbeat(1, "g");
    let newer = request(1, 40, 2, true, &[b"something"]);
    let unknown = request(200, 0, 3, true, &[b"something"]);
    let out = talk(
        "kafka",
        false,
        &[
            (C, &known),
            (S, &answer(1, false, &[&i16s(0)])),
            (C, &newer),
            (S, &answer(2, true, &[&i16s(0)])),
            (C, &unknown),
            (S, &answer(3, true, &[&i16s(0)])),
        ],
    );
    assert_eq!(short(&out), ["Heartbeat g Ok - -", "Fetch - Unknown - -", "ApiKey 200 - Unknown - -"]);
    assert!(out.exchanges.iter().all(|e| e.response.is_some() && e.flags == Flags::default()));
}

#[test]
fn produce_without_acknowledgement_has_no_answer() {
    let out = talk("kafka", false, &[(C, &produce(1, 0, "logs", &batch(5, 61))), (C, &heartbeat(2, "g"))]);
    assert_eq!(short(&out), ["Produce logs Ok - 5", "Heartbeat g Unanswered - -"]);
    assert_eq!(out.exchanges[0].flags, Flags::NO_REPLY);
    assert_eq!(out.exchanges[1].flags, Flags::default());
}

/// Fetch version 13 of one topic by id, and its answer with `partitions` of `(error, records)`.
fn fetch13(id: u32, topic: &[u8; 16]) -> Vec<u8> {
    let partition = [&i32s(0)[..], &i32s(-1), &[0; 8], &i32s(-1), &[0xff; 8], &i32s(1 << 20), b"\0"].concat();
    let body: [&[u8]; 7] = [&[0xff; 4], &[0; 8], &[1; 4], &[0; 9], &[2], topic, &[2]];
    let end: [&[u8]; 2] = [&partition, b"\0\x01\x01\0"];
    request(1, 13, id, true, &[&body.concat(), &end.concat()])
}

fn fetched13(id: u32, topic: &[u8; 16], partitions: &[(i16, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (error, records) in partitions {
        let length = records.len() as u32 + 1;
        let varint = [length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8];
        all.extend([&i32s(0)[..], &i16s(*error), &[0; 24], &[1], &i32s(-1), &varint, records, b"\0"].concat());
    }
    let body: [&[u8]; 7] =
        [&i32s(0), &i16s(0), &i32s(7), &[2], topic, &[partitions.len() as u8 + 1], &[&all[..], b"\0\0"].concat()];
    answer(id, true, &body)
}

/// A Metadata answer of version 12 that tells a topic's id.
fn metadata12(id: u32, name: &str, topic: &[u8; 16]) -> [Vec<u8>; 2] {
    let ask = request(3, 12, id, true, &[&[2], &[0; 16], &compact(name), b"\0", &[0, 0, 0]]);
    let body: [&[u8]; 7] = [
        &i32s(0),
        &[1, 0],
        &i32s(0),
        &[2],
        &[&i16s(0)[..], &compact(name), topic, &[0, 1], &[0; 4], b"\0"].concat(),
        b"\0",
        b"",
    ];
    [ask, answer(id, true, &body)]
}

#[test]
fn topic_ids_become_names_where_they_were_told() {
    let (known, unknown) = ([7; 16], [0xab; 16]);
    let [ask, told] = metadata12(1, "orders", &known);
    let records = batch(9, 5000);
    let out = talk(
        "kafka",
        false,
        &[
            (C, &ask),
            (S, &told),
            (C, &fetch13(2, &known)),
            (S, &fetched13(2, &known, &[(0, &records), (0, b"")])),
            (C, &fetch13(3, &unknown)),
            (S, &fetched13(3, &unknown, &[(0, &records), (103, b"")])),
        ],
    );
    assert_eq!(
        short(&out),
        ["Metadata orders Ok - -", "Fetch orders Ok - 9", "Fetch q6urq6urq6urq6urq6urqw Error INCONSISTENT_TOPIC_ID 9"]
    );
}

#[test]
fn what_was_cut_is_not_called_ok() {
    let topic = [7; 16];
    let records = batch(9, 5000);
    // What is kept of the answer ends within the first partition's records.
    let cut = |partitions: &[(i16, &[u8])]| {
        let whole = fetched13(1, &topic, partitions);
        let kept = Piece::Bytes(whole[..1000].to_vec());
        let mut all = pieces(&[(C, &fetch13(1, &topic))]);
        all.extend([(S, kept), (S, Piece::Cut(whole.len() as u64 - 1000))]);
        all.extend(pieces(&[(C, &heartbeat(2, "g")), (S, &answer(2, false, &[&i16s(0)]))]));
        run(parser("kafka", false).as_mut(), &all)
    };
    // There is no other partition whose error could be in the hole.
    let out = cut(&[(0, &records)]);
    assert_eq!(short(&out), ["Fetch BwcHBwcHBwcHBwcHBwcHBw Ok - 9", "Heartbeat g Ok - -"]);
    assert_eq!(out.exchanges[0].flags, Flags::default());
    let out = cut(&[(0, &records), (0, &records)]);
    assert_eq!(short(&out), ["Fetch BwcHBwcHBwcHBwcHBwcHBw Unknown - -", "Heartbeat g Ok - -"]);
    assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED);
    let out = cut(&[(3, &records), (0, &records)]);
    assert_eq!(short(&out)[0], "Fetch BwcHBwcHBwcHBwcHBwcHBw Error UNKNOWN_TOPIC_OR_PARTITION -");
}

#[test]
fn lost_requests_and_answers() {
    let (first, second, third) = (heartbeat(1, "a"), heartbeat(2, "b"), heartbeat(3, "c"));
    let ok = |id| answer(id, false, &[&i16s(0)]);
    // The second request is lost, its answer is there.
    let mut all = pieces(&[(C, &first), (S, &ok(1))]);
    all.push((C, Piece::Lost(second.len() as u64)));
    all.extend(pieces(&[(S, &ok(2)), (C, &third), (S, &ok(3))]));
    let out = run(parser("kafka", false).as_mut(), &all);
    assert_eq!(short(&out), ["Heartbeat a Ok - -", "? - Unknown - -", "Heartbeat c Ok - -"]);
    assert_eq!((out.exchanges[1].request.clone(), out.exchanges[1].flags), (32..32, Flags::GAP));
    // The second answer is lost.
    let mut all = pieces(&[(C, &first), (S, &ok(1)), (C, &second)]);
    all.push((S, Piece::Lost(10)));
    all.extend(pieces(&[(C, &third), (S, &ok(3))]));
    let out = run(parser("kafka", false).as_mut(), &all);
    assert_eq!(short(&out), ["Heartbeat a Ok - -", "Heartbeat c Ok - -", "Heartbeat b Unknown - -"]);
    assert_eq!(out.exchanges[2].flags, Flags::GAP);
    // Joined in the middle, within a request and an answer.
    let all = pieces(&[(S, &ok(1)[6..]), (C, &first[9..]), (C, &second), (S, &ok(2)), (C, &third), (S, &ok(3))]);
    let out = run(parser("kafka", true).as_mut(), &all);
    assert_eq!(short(&out), ["Heartbeat b Ok - -", "Heartbeat c Ok - -"]);
    assert_eq!(out.exchanges[0].flags, Flags::MID_STREAM);
    assert_eq!(out.skipped_bytes, [23, 4]);
}

#[test]
fn credentials_are_secret_with_and_without_headers() {
    let handshake = |version| request(17, version, 1, false, &[&text("PLAIN")]);
    let agreed = answer(1, false, &[&i16s(0), &i32s(0)]);
    let token = message(&[b"\0shop\0hunter2"]);
    let rest: [(bool, &[u8]); 2] = [(C, &heartbeat(3, "g")), (S, &answer(3, false, &[&i16s(0)]))];
    let raw: [(bool, &[u8]); 4] = [(C, &handshake(0)), (S, &agreed), (C, &token), (S, &message(&[]))];
    let wrapped = request(36, 0, 2, false, &[&i32s(13), b"\0shop\0hunter2"]);
    let refused = answer(2, false, &[&i16s(58), &text("user 'shop' is unknown"), &i32s(0)]);
    let framed: [(bool, &[u8]); 4] = [(C, &handshake(1)), (S, &agreed), (C, &wrapped), (S, &refused)];
    for (start, expected) in [
        (raw, &["SaslHandshake PLAIN Ok - -", "Heartbeat g Ok - -"][..]),
        (
            framed,
            &[
                "SaslHandshake PLAIN Ok - -",
                "SaslAuthenticate - Error SASL_AUTHENTICATION_FAILED -",
                "Heartbeat g Ok - -",
            ],
        ),
    ] {
        let out = talk("kafka", false, &[start, [rest[0], rest[1], (C, b""), (S, b"")]].concat());
        assert_eq!(short(&out), expected);
        let client: Vec<u8> = start.iter().filter(|(client, _)| *client).flat_map(|(_, b)| b.to_vec()).collect();
        let marks = out.marks.unwrap();
        let secrets = marks.iter().filter(|mark| mark.class == ByteClass::Secret && mark.side == Side::Client);
        let secret: Vec<_> = secrets.map(|mark| &client[mark.range.start as usize..mark.range.end as usize]).collect();
        assert_eq!(secret, [b"\0shop\0hunter2"]);
        if let Some(error) = out.exchanges[1].error.as_deref() {
            assert_eq!(error, "user '?' is unknown");
        }
    }
}

fn judge(client: &[u8], server: &[u8], mid_stream: bool) -> Detected {
    let (_, protocol) = protocol_named("kafka").unwrap();
    (protocol.detect)(&Prefix { client, server, mid_stream, ..Prefix::default() })
}

#[test]
fn recognised_by_a_whole_request_or_by_both_sides() {
    let request = heartbeat(5, "g");
    assert_eq!(judge(&request, b"", false), Detected::Certain);
    assert_eq!(judge(&request[..20], b"", false), Detected::Likely);
    assert_eq!(judge(&request[..20], &5u32.to_be_bytes().repeat(2), false), Detected::Certain);
    assert_eq!(judge(&request, &6u32.to_be_bytes().repeat(2), false), Detected::No);
    assert_eq!(judge(&request, &6u32.to_be_bytes().repeat(2), true), Detected::Certain);
    // Versions that are still to come: as the first request, where the broker answers it.
    let newer = |key| self::request(key, 9, 7, true, &[&compact("lib"), &compact("1.0"), b"\0"]);
    assert_eq!(judge(&newer(18), &7u32.to_be_bytes().repeat(2), false), Detected::Certain);
    assert_eq!(judge(&newer(18), b"", false), Detected::Likely);
    assert_eq!(judge(&newer(12), b"", false), Detected::No);
    for length in 0..14 {
        assert_eq!(judge(&request[..length], b"", false), Detected::Maybe, "{length}");
    }
    for other in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"*1\r\n$4\r\nPING\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc", &[0; 64]]
    {
        assert_eq!(judge(other, b"", false), Detected::No, "{other:?}");
    }
}

#[test]
fn hostile_lengths_end() {
    let bodies: [&[u8]; 5] = [
        &[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0xff],
        &[0xff; 64],
        &[0; 64],
        &[0x80; 64],
    ];
    for body in bodies {
        for (key, version) in [(0, 3), (0, 9), (1, 12), (3, 9), (18, 3), (69, 1), (11, 6)] {
            let flexible = version > 3 || key == 18;
            let out = talk(
                "kafka",
                true,
                &[(C, &request(key, version, 1, flexible, &[body])), (S, &answer(1, flexible, &[body]))],
            );
            assert!(out.exchanges.len() <= 1);
            assert!(out.exchanges.iter().all(|e| e.status != Status::Ok || key == 18 || key == 0), "{key} {body:?}");
        }
    }
}

#[test]
fn requests_that_waited_unread_are_counted_at_the_end() {
    let requests: Vec<u8> = (0..200_000).flat_map(|id| heartbeat(id, "g")).collect();
    let out = talk("kafka", false, &[(C, &requests)]);
    assert_eq!(out.exchanges.len(), 200_000);
    assert!(out.exchanges.iter().all(|e| e.status == Status::Unanswered));
}

#[test]
fn time_is_linear() {
    let start = Instant::now();
    // A message of 100 MB in small chunks.
    let mut one = parser("kafka", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    let whole = produce(1, 1, "t", &batch(1, 200));
    let length = (100u32 << 20).to_be_bytes();
    let before = whole.len() - 204;
    let records = (100u32 << 20) - before as u32;
    streams.client.push(&[&length[..], &whole[4..before], &records.to_be_bytes()].concat());
    for _ in 1..100 << 10 {
        streams.client.push(&[0; 1024]);
        one.parse(&mut streams, &mut out);
    }
    one.finish(&mut streams, &mut out);
    assert_eq!(out.exchanges.len(), 1);
    // A million requests in one chunk, then a million answers.
    let requests: Vec<u8> = (0..1_000_000).flat_map(|id| heartbeat(id, "g")).collect();
    let answers: Vec<u8> = (0..1_000_000).flat_map(|id| answer(id, false, &[&i16s(0)])).collect();
    let out = talk("kafka", false, &[(C, &requests), (S, &answers)]);
    assert_eq!(out.exchanges.len(), 1_000_000);
    // The first have waited too long, as nothing was answered until all were sent.
    assert!(out.exchanges.iter().rev().take(60_000).all(|e| e.status == Status::Ok));
    // Many tiny fields in one message.
    let count = 2_000_000;
    let topics = [&i32s(count)[..], &text("").repeat(count as usize)].concat();
    let out = talk("kafka", false, &[(C, &request(3, 1, 1, false, &[&topics]))]);
    assert_eq!(out.exchanges.len(), 1);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
