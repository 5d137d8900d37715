//! HTTP/1 by the RFCs' rules.

mod common;
mod conversations;

use common::{Piece, parser, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Exchange, Flags, Output, Side, Status, SwitchedTo};

fn http(sends: &[(bool, &str)]) -> Output {
    let sends: Vec<_> = sends.iter().map(|(client, text)| (*client, text.as_bytes())).collect();
    talk("http", false, &sends)
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let code = e.code.as_deref().unwrap_or("-");
        format!("{} {} {:?} {code}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn status_codes_and_masked_targets() {
    let out = http(&[
        (C, "GET /a?id=17&q=secret HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(short(&out), ["GET /a?id=?&q=? Error 503"]);
    assert_eq!(out.exchanges[0].error.as_deref(), Some("Service Unavailable"));
    assert_eq!((out.exchanges[0].request.clone(), out.exchanges[0].response.clone()), (0..34, Some(0..55)));
}

#[test]
fn pipelined_requests_are_flagged() {
    let out = http(&[
        (C, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        (C, "GET /3 HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 404 N\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
    ]);
    assert_eq!(short(&out), ["GET /1 Ok 200", "GET /2 Error 404", "GET /3 Ok 200"]);
    let pipelined: Vec<_> = out.exchanges.iter().map(|e| e.flags.contains(Flags::PIPELINED)).collect();
    assert_eq!(pipelined, [false, true, true]);
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    // RFC 9112, section 6.3, rule 8.
    let out = http(&[(C, "GET / HTTP/1.0\r\n\r\n"), (S, "HTTP/1.0 200 OK\r\n\r\nall"), (S, " of it")]);
    assert_eq!(short(&out), ["GET / Ok 200"]);
    assert_eq!(out.exchanges[0].response, Some(0..28));
    assert_eq!((out.exchanges[0].flags, out.skipped_bytes), (Flags::default(), [0, 0]));
}

#[test]
fn answers_that_never_have_a_body() {
    // RFC 9112, section 6.3, rule 1: HEAD, 204, 304.
    let out = http(&[
        (C, "HEAD / HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        (C, "GET / HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        (C, "GET / HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 204 No Content\r\n\r\n"),
    ]);
    assert_eq!(short(&out), ["HEAD / Ok 200", "GET / Ok 304", "GET / Ok 204"]);
}

#[test]
fn transfer_encoding_beats_content_length() {
    let out = http(&[
        (
            C,
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        ),
        (
            S,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
    ]);
    assert_eq!(short(&out), ["POST / Ok 200", "GET /2 Ok 200"]);
}

#[test]
fn tunnels_and_upgrades_end_reading() {
    let out = http(&[
        (C, "CONNECT h:443 HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\n\r\n"),
        (C, "GET /inside HTTP/1.1\r\n\r\n"),
        (S, "anything"),
    ]);
    assert_eq!(short(&out), ["CONNECT h:443 Ok 200"]);
    assert_eq!(out.switched, Some(SwitchedTo::Tunnel));
    assert_eq!(out.skipped_bytes, [24, 8]);

    let out = http(&[
        (C, "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        (S, "HTTP/1.1 101 Switching Protocols\r\n\r\n\x01\x02"),
        (C, "\x03\x04"),
    ]);
    assert_eq!(short(&out), ["GET /ws Ok 101"]);
    assert_eq!(out.switched, Some(SwitchedTo::Unread));

    let out = http(&[
        (C, "CONNECT h:443 HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n"),
        (C, "GET /after HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(short(&out), ["CONNECT h:443 Error 407", "GET /after Ok 200"]);
}

#[test]
fn an_early_answer_and_an_unanswered_request() {
    let out = http(&[
        (C, "POST /up HTTP/1.1\r\nContent-Length: 1000\r\n\r\npart"),
        (S, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(short(&out), ["POST /up Error 413"]);
    let out = http(&[(C, "GET /slow HTTP/1.1\r\n\r\n")]);
    assert_eq!(short(&out), ["GET /slow Unanswered -"]);
    assert_eq!(out.exchanges[0].response, None);
    let out = http(&[(C, "GET / HTTP/1.1\r\n\r\n"), (S, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nbroken")]);
    assert!(out.exchanges[0].flags.contains(Flags::INCOMPLETE));
    assert_eq!((out.exchanges[0].status, out.exchanges[0].response.clone()), (Status::Ok, Some(0..45)));
}

#[test]
fn a_body_that_was_refused_is_not_waited_for() {
    let ask = "POST /up HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n";
    let refused = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let next = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    let out = http(&[(C, ask), (S, refused), (C, next), (S, ok)]);
    assert_eq!(short(&out), ["POST /up Error 417", "GET /next Ok 200"]);
    let body = "012345678901234567890123456789";
    let out = http(&[(C, ask), (S, "HTTP/1.1 100 Continue\r\n\r\n"), (C, body), (S, ok), (C, next), (S, ok)]);
    assert_eq!(short(&out), ["POST /up Ok 200", "GET /next Ok 200"]);
    assert_eq!(out.exchanges[0].request.end, (ask.len() + body.len()) as u64);
    let out = http(&[(C, ask), (S, refused), (C, body), (C, next), (S, ok)]);
    assert_eq!(short(&out), ["POST /up Error 417", "GET /next Ok 200"]);
}

#[test]
fn odd_but_valid_heads() {
    let out = http(&[
        (C, "\r\nGET http://u:p@h/a?b=c HTTP/1.1\nHost: h\nX: folded\n value\n\n"),
        (S, "HTTP/1.1 200\nContent-Length: 2, 2\n\nok"),
        (C, "OPTIONS * HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(short(&out), ["GET http://?@h/a?b=? Ok 200", "OPTIONS * Ok 200"]);
}

#[test]
fn a_head_that_goes_on_in_a_hole_is_one_request() {
    let long = format!("GET /long?{} HTTP/1.1\r\nCookie: {}", "a=1&".repeat(4), "x".repeat(200));
    let ok: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let pieces = [
        (C, Piece::Bytes(long.clone().into_bytes())),
        (C, Piece::Cut(500)),
        (S, Piece::Bytes(ok.to_vec())),
        (C, Piece::Bytes(b"GET /next HTTP/1.1\r\n\r\n".to_vec())),
        (S, Piece::Bytes(ok.to_vec())),
    ];
    let out = run(parser("http", false).as_mut(), &pieces);
    assert_eq!(short(&out), ["GET /long?a=?&a=?&a=?&a=?& Ok 200", "GET /next Ok 200"]);
    assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED);
    assert_eq!(out.exchanges[0].request, 0..long.len() as u64 + 500);
    assert_eq!(out.exchanges[1].flags, Flags::default());
}

#[test]
fn answers_cut_in_their_framing_end_where_the_next_request_was_seen() {
    let pieces = [
        (C, Piece::Bytes(b"GET /1 HTTP/1.1\r\n\r\n".to_vec())),
        (S, Piece::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc".to_vec())),
        (S, Piece::Cut(9000)),
        (S, Piece::Bytes(b"more of the body HTTP/1.1 500 no answer".to_vec())),
        (S, Piece::Cut(77)),
        (C, Piece::Bytes(b"GET /2 HTTP/1.1\r\n\r\n".to_vec())),
        (S, Piece::Bytes(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec())),
    ];
    let out = run(parser("http", false).as_mut(), &pieces);
    assert_eq!(short(&out), ["GET /1 Ok 200", "GET /2 Error 404"]);
    assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED);
    assert_eq!(out.exchanges[0].response.clone().map(|r| r.end), Some(56 + 9000 + 39 + 77));
    assert_eq!(out.exchanges[1].flags, Flags::default());
}

#[test]
fn an_answer_behind_a_lost_end_is_found_by_its_status_line() {
    // The hole shows only when the bytes behind it come, which is after the next request.
    let pieces = [
        (C, Piece::Bytes(b"GET /1 HTTP/1.1\r\n\r\n".to_vec())),
        (S, Piece::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec())),
        (C, Piece::Bytes(b"GET /2 HTTP/1.1\r\n\r\n".to_vec())),
        (S, Piece::Lost(500)),
        (S, Piece::Bytes(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec())),
        (C, Piece::Bytes(b"GET /3 HTTP/1.1\r\n\r\n".to_vec())),
        (S, Piece::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())),
    ];
    let out = run(parser("http", false).as_mut(), &pieces);
    assert_eq!(short(&out), ["GET /1 Ok 200", "GET /2 Error 404", "GET /3 Ok 200"]);
}

#[test]
fn other_protocols_are_refused() {
    assert!(http(&[(C, "EHLO example\r\n"), (S, "250 ok\r\n")]).rejected);
    assert!(http(&[(C, "*1\r\n$4\r\nPING\r\n")]).exchanges.is_empty());
    // HTTP/0.9 has no head.
    assert!(http(&[(C, "GET /old\r\n"), (S, "<html>")]).exchanges.is_empty());
}

#[test]
fn credentials_are_secret() {
    let request = "GET /p?q=v HTTP/1.1\r\nAuthorization: Basic abc\r\nAccept: x\r\n\r\n";
    let out = http(&[(C, request)]);
    let class_of = |part: &str| {
        let at = request.find(part).unwrap() as u64;
        let marks = out.marks.as_ref().unwrap();
        marks.iter().find(|m| m.side == Side::Client && m.range.contains(&at)).map(|m| m.class)
    };
    assert_eq!(class_of("GET"), Some(ByteClass::Structure));
    assert_eq!(class_of("/p"), Some(ByteClass::Identifier));
    assert_eq!(class_of("v HTTP"), Some(ByteClass::Value));
    assert_eq!(class_of("Authorization"), Some(ByteClass::Identifier));
    assert_eq!(class_of("Basic"), Some(ByteClass::Secret));
    assert_eq!(class_of("x\r\n\r\n"), Some(ByteClass::Value));
}

fn statuses(out: &Output) -> Vec<Status> {
    out.exchanges.iter().map(|e| e.status).collect()
}

fn bytes(text: &str) -> Piece {
    Piece::Bytes(text.as_bytes().to_vec())
}

#[test]
fn a_status_that_was_not_read_is_not_a_success() {
    let next = "GET /2 HTTP/1.1\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let answered = |pieces: &[(bool, Piece)]| {
        let mut all = vec![(C, bytes("GET /1 HTTP/1.1\r\n\r\n"))];
        all.extend_from_slice(pieces);
        all.extend([(C, bytes(next)), (S, bytes(ok))]);
        run(parser("http", false).as_mut(), &all)
    };
    for head in ["", "HTTP/1.1 50"] {
        let seen = [(S, bytes(head)), (S, Piece::Cut(500))];
        let out = answered(if head.is_empty() { &seen[1..] } else { &seen });
        assert_eq!(statuses(&out), [Status::Unknown, Status::Ok], "{head}");
        assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED);
        assert_eq!((out.exchanges[0].code.as_deref(), out.exchanges[1].flags), (None, Flags::default()));
        assert_eq!(out.exchanges[0].response, Some(0..head.len() as u64 + 500));
    }
    // The status was read, the rest of the head was not.
    let out = answered(&[(S, bytes("HTTP/1.1 503 Gone wro")), (S, Piece::Cut(500))]);
    assert_eq!(short(&out)[0], "GET /1 Error 503");
    // An interim answer says nothing about the one that counts.
    let out = answered(&[(S, bytes("HTTP/1.1 103 Early Hints\r\nLi")), (S, Piece::Cut(500))]);
    assert_eq!(short(&out), ["GET /1 Unknown -", "GET /2 Ok 200"]);
    let out = answered(&[(S, bytes("HTTP/1.1 103 Early Hints\r\nLi")), (S, Piece::Cut(500)), (S, bytes(ok))]);
    assert_eq!(short(&out), ["GET /1 Ok 200", "GET /2 Ok 200"]);
}

#[test]
fn an_answer_that_had_only_begun_is_incomplete() {
    for (begun, expected) in [
        ("HTTP", "GET / Unknown -"),
        ("HTTP/1.1 200 OK\r\nServer: n", "GET / Ok 200"),
        ("HTTP/1.1 404 Not F", "GET / Error 404"),
        ("HTTP/1.1 103 Early Hi", "GET / Unknown -"),
    ] {
        let out = http(&[(C, "GET / HTTP/1.1\r\n\r\n"), (S, begun)]);
        assert_eq!(short(&out), [expected]);
        assert_eq!(out.exchanges[0].response, Some(0..begun.len() as u64));
        assert_eq!(out.exchanges[0].flags, Flags::INCOMPLETE);
    }
}

#[test]
fn answers_to_pipelined_requests_in_a_hole_at_the_end_are_unknown() {
    // The hole begins inside the second answer's chunks and holds the answers to all that follow.
    let requests: String = (0..6).map(|i| format!("GET /{i} HTTP/1.1\r\n\r\n")).collect();
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let second = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let late = "GET /late HTTP/1.1\r\n\r\n";
    for (cut, flag) in [(Piece::Cut(4000), Flags::TRUNCATED), (Piece::Lost(4000), Flags::GAP)] {
        let end = (first.len() + second.len() + 4000) as u64;
        let pieces = [(C, bytes(&requests)), (S, bytes(first)), (S, bytes(second)), (S, cut)];
        let out = run(parser("http", false).as_mut(), &pieces);
        use Status::{Ok, Unanswered, Unknown};
        assert_eq!(statuses(&out), [Ok, Ok, Unknown, Unknown, Unknown, Unknown]);
        assert_eq!(out.exchanges[1].response, Some(first.len() as u64..end));
        assert!(out.exchanges[1..].iter().all(|e| e.flags.contains(flag)));
        assert!(out.exchanges[2..].iter().all(|e| e.response == Some(end..end)));
        // What was sent behind the last of the server's bytes can't be answered in them.
        let pieces: Vec<_> = pieces.into_iter().chain([(C, bytes(late))]).collect();
        let out = run(parser("http", false).as_mut(), &pieces);
        assert_eq!(statuses(&out), [Ok, Ok, Unknown, Unknown, Unknown, Unknown, Unanswered]);
    }
}

#[test]
fn pipelined_requests_sent_behind_the_lost_part_stay_open() {
    let ok = "HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n";
    let pieces = [
        (C, bytes("GET /1 HTTP/1.1\r\n\r\n")),
        (S, bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")),
        (S, Piece::Cut(100)),
        (C, bytes("GET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n")),
        (S, bytes(&ok.repeat(2))),
    ];
    let out = run(parser("http", false).as_mut(), &pieces);
    assert_eq!(short(&out), ["GET /1 Ok 200", "GET /2 Error 404", "GET /3 Error 404"]);
}

#[test]
fn an_answer_found_behind_lost_pipelined_ones_may_be_anothers() {
    let requests: String = (0..4).map(|i| format!("GET /{i} HTTP/1.1\r\n\r\n")).collect();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let pieces = [(C, bytes(&requests)), (S, bytes(ok)), (S, Piece::Cut(300)), (S, bytes(ok))];
    let out = run(parser("http", false).as_mut(), &pieces);
    use Status::{Ok, Unknown};
    assert_eq!(statuses(&out), [Ok, Ok, Unknown, Unknown]);
    let cut: Vec<_> = out.exchanges.iter().map(|e| e.flags.contains(Flags::TRUNCATED)).collect();
    assert_eq!(cut, [false, true, true, true]);
}

#[test]
fn a_body_up_to_the_end_answers_nothing_behind_it() {
    let out = http(&[
        (C, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"),
    ]);
    assert_eq!(statuses(&out), [Status::Ok, Status::Unanswered]);
}

#[test]
fn malformed_request_lines_that_are_answered_are_requests() {
    for (line, op, target) in [
        ("GET /a HTTP/1.", "GET", Some("/a")),
        ("GET /b", "GET", Some("/b")),
        // It may be anything.
        ("GET/ HTTP/1.1", "?", None),
        ("SECRET / HTTP/1.x", "?", None),
        ("\u{c3} / HTTP/1.1", "?", None),
    ] {
        let asked = format!("{line}\r\nHost: h\r\n\r\n");
        let answer = b"HTTP/1.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        let out = talk("http", false, &[(C, asked.as_bytes()), (S, answer)]);
        let [e] = &out.exchanges[..] else { panic!("{line}") };
        assert_eq!((&*e.op, e.target.as_deref(), e.code.as_deref()), (op, target, Some("400")), "{line}");
        assert_eq!(e.request, 0..asked.len() as u64);
        let out = talk("http", false, &[(C, asked.as_bytes()), (S, b"220 ready\r\n")]);
        assert!(out.rejected && out.exchanges.is_empty(), "{line}");
    }
}

#[test]
fn values_are_masked_wherever_a_target_has_them() {
    for (target, shown) in [
        ("/a%3Ftoken=secret", "/a%3Ftoken=?"),
        ("/login&password=secret", "/login&password=?"),
        ("/a#secret", "/a#?"),
        ("/a%20b", "/a%20b"),
    ] {
        let asked = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let out = talk("http", false, &[(C, asked.as_bytes())]);
        assert_eq!(out.exchanges[0].target.as_deref(), Some(shown));
    }
}
