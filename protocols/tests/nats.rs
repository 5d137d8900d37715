//! NATS (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).

mod common;
mod conversations;

use std::path::Path;

use common::{Piece, parser, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, REGISTRY, Side, Status, Streams};

const INFO: &str = "INFO {\"server_id\":\"N\",\"headers\":true}\r\n";
const CONNECT: &str = "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"hunter2\"}\r\n";

fn nats(mid_stream: bool, sends: &[(bool, &str)]) -> Output {
    let sends: Vec<_> = sends.iter().map(|(client, text)| (*client, text.as_bytes())).collect();
    talk("nats", mid_stream, &sends)
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
    let mut ordered: Vec<_> = out.exchanges.iter().collect();
    ordered.sort_by_key(|exchange| exchange.request.start);
    ordered.into_iter().map(one).collect()
}

#[test]
fn a_real_server_counts_the_same() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/nats/client.pcap");
    let (mut published, mut answered, mut errors) = (Vec::new(), 0, Vec::new());
    for connection in common::connections(&file) {
        let (protocol, out) = common::decode(&connection, usize::MAX).unwrap();
        assert_eq!((protocol.name, out.skipped_bytes), ("nats", [0, 0]));
        let messages = |e: &&Exchange| !e.flags.contains(Flags::CONTROL);
        published.push(out.exchanges.iter().filter(messages).count());
        answered += out.exchanges.iter().filter(messages).filter(|e| e.response.is_some()).count();
        let mut failed: Vec<_> = out.exchanges.iter().filter(|e| e.status == Status::Error).collect();
        failed.sort_by_key(|exchange| exchange.request.start);
        errors.extend(failed.iter().map(|e| format!("{} {}", e.op, e.code.as_deref().unwrap_or("-"))));
    }
    // The server's `in_msgs` grew by 16 and by 3; the third connection was refused.
    assert_eq!(published, [16, 3, 0]);
    // Three requests to a service, one to nobody, three to JetStream, and three with `+OK` or an error; one refused.
    assert_eq!(answered, 11);
    // Nobody responds; no such stream; publishing, subscribing and connecting that is not allowed.
    assert_eq!(errors, ["PUB 503", "PUB 10059", "PUB -", "PUB -", "SUB -", "CONNECT -"]);
}

#[test]
fn requests_are_answered_on_their_reply_subject() {
    let out = nats(
        false,
        &[
            (S, INFO),
            (C, &format!("{CONNECT}PING\r\n")),
            (S, "PONG\r\n"),
            (C, "SUB _INBOX.x.* 1\r\n"),
            (C, "PUB svc _INBOX.x.1 2\r\nhi\r\npub svc _INBOX.x.2 0\r\n\r\nPUB svc elsewhere 0\r\n\r\n"),
            (S, "MSG _INBOX.x.2 1 3\r\nyes\r\n"),
            (S, "HMSG _INBOX.x.1 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"),
            (C, "HPUB $JS.API.X _INBOX.x.3 12 14\r\nNATS/1.0\r\n\r\n{}\r\n"),
            (
                S,
                "MSG _INBOX.x.3 1 71\r\n{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"no stream 'a'\"}}..\r\n",
            ),
            (C, "PUB svc _INBOX.x.4 0\r\n\r\n"),
            (S, "PING\r\n"),
            (C, "PONG\r\n"),
        ],
    );
    assert_eq!(
        lines(&out),
        [
            "CONNECT - Ok control,no_reply",
            "PING - Ok control",
            "SUB _INBOX.x.* Ok control,no_reply",
            "PUB svc Error 503 No Responders",
            "PUB svc Ok pipelined",
            "PUB svc Ok pipelined,no_reply",
            "HPUB $JS.API.X Error 10059",
            "PUB svc Unanswered",
        ]
    );
    let reply = out.exchanges.iter().find(|e| e.code.as_deref() == Some("503")).unwrap();
    let response = reply.response.clone().unwrap();
    assert_eq!(response.end - response.start, 43);
}

#[test]
fn errors_find_their_request() {
    let out = nats(
        false,
        &[
            (S, INFO),
            (C, CONNECT),
            (C, "PUB a 1\r\nx\r\nPUB no.b 1\r\nx\r\nPUB c 1\r\nx\r\nSUB no.d 1\r\nPING\r\n"),
            (S, "-ERR 'Permissions Violation for Publish to \"no.b\"'\r\n"),
            (S, "-ERR 'Permissions Violation for Subscription to \"no.d\"'\r\nPONG\r\n"),
            (S, "-ERR 'Stale Connection'\r\n"),
            (C, "PUB big 90000000\r\nxxx"),
            (S, "-ERR 'Maximum Payload Violation'\r\n"),
        ],
    );
    assert_eq!(
        lines(&out),
        [
            "CONNECT - Ok control,no_reply",
            "PUB a Ok no_reply",
            "PUB no.b Error Permissions Violation for Publish to \"?\"",
            "PUB c Ok no_reply",
            "SUB no.d Error Permissions Violation for Subscription to \"?\" control",
            "PING - Ok control",
            "PUB big Error Maximum Payload Violation incomplete",
        ]
    );
    let verbose = CONNECT.replace("false", "true");
    let out = nats(
        false,
        &[
            (S, INFO),
            (C, &verbose),
            (S, "+OK\r\n"),
            (C, "SUB _INBOX.> q 1\r\nPUB a _INBOX.1 0\r\n\r\nPUB no 0\r\n\r\nPUB b _INBOX.2 0\r\n\r\n"),
            (S, "+OK\r\n+OK\r\nMSG _INBOX.1 1 0\r\n\r\n-ERR 'Permissions Violation for Publish to \"no\"'\r\n+OK\r\n"),
            (C, "UNSUB 1\r\n"),
            (S, "+OK\r\n"),
        ],
    );
    assert_eq!(
        lines(&out),
        [
            "CONNECT - Ok control",
            "SUB _INBOX.> Ok control",
            "PUB a Ok pipelined",
            "PUB no Error Permissions Violation for Publish to \"?\" pipelined",
            "PUB b Ok pipelined",
            "UNSUB _INBOX.> Ok pipelined,control",
        ]
    );
}

#[test]
fn damaged_streams() {
    let out =
        nats(true, &[(S, "rest\r\n"), (C, "of a payload"), (C, "PUB a r.1 1\r\nx\r\n"), (S, "MSG r.1 9 1\r\ny\r\n")]);
    assert_eq!(lines(&out), ["PUB a Ok mid_stream"]);
    assert_eq!(out.skipped_bytes, [12, 6]);
    // A payload whose end is cut, and a line that is cut.
    let mut sends = common::pieces(&[(S, INFO.as_bytes()), (C, CONNECT.as_bytes()), (C, b"PUB big 90000\r\nxxx")]);
    sends.push((C, Piece::Cut(89_999)));
    sends.extend(common::pieces(&[(C, b"PUB a 1\r\nx\r\nPUB b"), (S, b"PING\r\n")]));
    sends.push((C, Piece::Cut(50)));
    sends.extend(common::pieces(&[(C, b"PUB c 1\r\nx\r\n")]));
    let out = run(parser("nats", false).as_mut(), &sends);
    assert_eq!(
        lines(&out),
        ["CONNECT - Ok control,no_reply", "PUB big Ok no_reply", "PUB a Ok no_reply", "PUB c Ok no_reply"]
    );
    // A payload that does not end where it must.
    let out = nats(false, &[(S, INFO), (C, CONNECT), (C, "PUB a 1\r\nxyz\r\n"), (C, "PUB b 1\r\nx\r\n")]);
    assert_eq!(lines(&out)[1..], ["PUB b Ok no_reply"]);
}

#[test]
fn credentials_are_secret() {
    let out = nats(false, &[(S, INFO), (C, CONNECT)]);
    let secret: Vec<_> = out
        .marks
        .iter()
        .flatten()
        .filter(|m| m.class == ByteClass::Secret)
        .map(|m| (m.side, m.range.clone()))
        .collect();
    assert_eq!(secret, [(Side::Client, 7..CONNECT.len() as u64 - 2)]);
}

#[test]
fn detection_keeps_apart_what_is_alike() {
    let detect = REGISTRY.iter().find(|protocol| protocol.name == "nats").unwrap().detect;
    let judge = |client: &str, server: &str| {
        let (client, server) = (client.as_bytes(), server.as_bytes());
        detect(&Prefix { client, server, mid_stream: true, complete: true, ..Prefix::default() })
    };
    assert_eq!(judge("", INFO), Detected::Certain);
    assert_eq!(judge("PUB a 1\r\nx\r\n", ""), Detected::Certain);
    assert_eq!(judge("PING\r\n", "PONG\r\n"), Detected::Likely);
    // Redis, HTTP, IRC, memcached.
    for (client, server) in [
        ("PING\r\n", "+PONG\r\n"),
        ("INFO\r\n", "$5\r\nhello\r\n"),
        ("CONNECT a:443 HTTP/1.1\r\n\r\n", ""),
        ("PING :a\r\n", "PONG :a\r\n"),
        ("get a\r\n", "END\r\n"),
        ("PING\r\n", ""),
        ("SUBSCRIBE a\r\n", ""),
    ] {
        assert!(judge(client, server) < Detected::Likely, "{client:?}");
    }
}

#[test]
fn time_and_memory_stay_linear() {
    let mut decoder = parser("nats", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(CONNECT.as_bytes());
    streams.client.push(b"PUB a 104857600\r\n");
    for _ in 0..100 << 10 {
        streams.client.push(&[b'x'; 1024]);
        decoder.parse(&mut streams, &mut out);
    }
    streams.client.push(b"\r\n");
    decoder.finish(&mut streams, &mut out);
    assert_eq!(out.exchanges.len(), 2);

    let count = 1_000_000;
    let out = nats(false, &[(C, CONNECT), (C, &"PUB a 0\r\n\r\n".repeat(count))]);
    assert_eq!(out.exchanges.len(), count + 1);
    // Many requests that nobody answers, among pings that nobody answers.
    let mut sends = vec![(C, CONNECT.to_owned()), (C, "SUB r.* 1\r\n".to_owned())];
    for part in 0..4 {
        let requests: String =
            (0..50_000).map(|n| format!("PUB a r.{} 0\r\n\r\nPING\r\nPING\r\n", part * 50_000 + n)).collect();
        sends.push((C, requests));
    }
    let sends: Vec<_> = sends.iter().map(|(client, text)| (*client, text.as_str())).collect();
    assert_eq!(nats(false, &sends).exchanges.len(), 3 * 200_000 + 2);
    // Lines without an end.
    let out = nats(false, &[(S, INFO), (C, CONNECT), (C, &"PUB ".repeat(1 << 20))]);
    assert_eq!(out.exchanges.len(), 1);
}
