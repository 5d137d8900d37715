//! WebSocket: a recording against what its client and server did, and conversations by hand.

mod common;

use std::path::Path;

use common::{Piece, connections, decode, parser, run};
use kfr_protocols::{Flags, Output, Status, Streams, protocol_named};

const C: bool = true;
const S: bool = false;

fn shown(out: &Output) -> Vec<String> {
    let line = |e: &kfr_protocols::Exchange| {
        let names: Vec<_> = Flags::NAMES.iter().filter(|(f, _)| e.flags.contains(*f)).map(|(_, n)| *n).collect();
        let from = if e.response.is_some() && e.request.is_empty() { "server" } else { "client" };
        format!("{from} {} {:?} {} {}", e.op, e.status, e.code.as_deref().unwrap_or("-"), names.join(","))
    };
    out.exchanges.iter().map(line).collect()
}

#[test]
fn client_and_server_did_the_same() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/websocket/messages.pcap");
    let number = protocol_named("websocket").map(|(number, _)| number);
    let mut found = Vec::new();
    for connection in connections(&path) {
        let (_, mut out) = decode(&connection, usize::MAX).unwrap();
        assert_eq!((&*out.exchanges[0].op, out.exchanges[0].code.as_deref()), ("GET", Some("101")));
        assert_eq!(out.skipped_bytes, [0, 0]);
        out.exchanges.retain(|e| e.protocol == number);
        found.push(out);
    }
    let text = |from| format!("{from} text Ok - no_reply");
    let binary = |from| format!("{from} binary Ok - no_reply");
    let ping = "client ping Ok - control".to_owned();
    let mut first = vec![text("client"), text("server"), binary("client"), binary("server"), ping];
    // One in three fragments, one that is answered four times.
    first.extend([text("client"), text("server"), text("client")]);
    first.extend(vec![text("server"); 4]);
    first.push("client close Ok 1000 control".into());
    assert_eq!(shown(&found[0]), first);
    // 800 bytes and a head of 8 (4 from the server, which masks nothing).
    let sizes: Vec<_> = found[0].exchanges.iter().map(|e| (e.request_size(), e.response_size())).collect();
    assert_eq!(sizes[2..4], [(808, None), (0, Some(804))]);
    let mut second = vec![text("client"), text("server"), text("client"), text("server")];
    second.push("server close Error 1011 control,no_reply".into());
    assert_eq!(shown(&found[1]), second);
    assert_eq!(found[1].exchanges[4].error.as_deref(), Some("trouble with '?'"));
}

fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(mask | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let key = [1, 2, 3, 4];
    if masked {
        bytes.extend(key);
    }
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| if masked { byte ^ key } else { *byte }));
    bytes
}

fn conversation(pieces: &[(bool, Piece)]) -> Output {
    run(parser("websocket", false).as_mut(), pieces)
}

fn bytes(frames: &[Vec<u8>]) -> Piece {
    Piece::Bytes(frames.concat())
}

#[test]
fn control_frames_between_fragments() {
    let out = conversation(&[
        (C, bytes(&[frame(1, true, b"one"), frame(0x89, true, b"?"), frame(0x80, true, b"two")])),
        (S, bytes(&[frame(0x8a, false, b"?")])),
        (C, bytes(&[frame(0x89, true, b"a"), frame(0x89, true, b"b")])),
        (S, bytes(&[frame(0x8a, false, b"b")])),
        (S, bytes(&[frame(0x8a, false, b"nobody asked")])),
    ]);
    let expected = [
        "client text Ok - no_reply",
        "client ping Ok - control",
        "client ping Unanswered - control",
        "client ping Ok - control",
    ];
    assert_eq!(shown(&out), expected);
    assert_eq!((out.exchanges[0].request.clone(), out.exchanges[0].request_size()), (0..25, 18));
}

#[test]
fn lengths_of_all_forms_and_bytes_one_by_one() {
    let frames: Vec<_> = [0, 125, 126, 65_535, 65_536].iter().map(|size| frame(0x82, true, &vec![7; *size])).collect();
    let whole = conversation(&[(C, bytes(&frames))]);
    assert_eq!(whole.exchanges.len(), 5);
    let sizes: Vec<_> = whole.exchanges.iter().map(|e| e.request_size()).collect();
    assert_eq!(sizes, frames.iter().map(|frame| frame.len() as u64).collect::<Vec<_>>());
    let single: Vec<_> = frames.concat().iter().map(|byte| (C, Piece::Bytes(vec![*byte]))).collect();
    assert_eq!(conversation(&single).exchanges, whole.exchanges);
}

#[test]
fn holes() {
    // Within a payload: nothing is missing. Over a header: the next message is found, and says so.
    let large = frame(0x82, false, &[7; 1000]);
    let out = conversation(&[
        (S, Piece::Bytes(large[..50].to_vec())),
        (S, Piece::Cut(large.len() as u64 - 50)),
        (S, bytes(&[frame(0x81, false, b"next")])),
        (S, Piece::Lost(500)),
        (S, bytes(&[frame(0x81, false, b"found")])),
    ]);
    let expected = ["server binary Ok - no_reply", "server text Ok - no_reply", "server text Ok - gap,no_reply"];
    assert_eq!(shown(&out), expected);
}

#[test]
fn hostile_frames() {
    let mut endless = vec![0x82, 0xff];
    endless.extend(u64::MAX.to_be_bytes());
    assert!(conversation(&[(C, Piece::Bytes(endless.repeat(3)))]).exchanges.is_empty());
    let out = conversation(&[(C, Piece::Bytes(frame(0x89, true, b"x").repeat(100_000)))]);
    assert!(out.exchanges.iter().all(|e| e.status == Status::Unanswered));
    assert_eq!(out.exchanges.len(), 100_000);
}

#[test]
fn time_is_linear() {
    let mut parser = parser("websocket", false);
    let (mut streams, mut out) = (Streams::default(), Output::default());
    let head = [0x82, 0x7f, 0, 0, 0, 0, 6, 0x40, 0, 0];
    streams.server.push(&head);
    for _ in 0..100 << 10 {
        streams.server.push(&[7; 1024]);
        parser.parse(&mut streams, &mut out);
    }
    assert_eq!(out.exchanges.len(), 1);
    streams.client.push(&frame(0x81, true, b"x").repeat(1_000_000));
    parser.parse(&mut streams, &mut out);
    assert_eq!(out.exchanges.len(), 1_000_001);
}

#[test]
fn a_reason_that_is_cut_shows_no_value() {
    let close = frame(0x88, false, &[&1011_u16.to_be_bytes()[..], b"bad value 'it' SECRET 'x'"].concat());
    for kept in 4..close.len() {
        let hole = Piece::Cut((close.len() - kept) as u64);
        let out = conversation(&[(S, Piece::Bytes(close[..kept].to_vec())), (S, hole)]);
        let error = out.exchanges[0].error.as_deref().unwrap_or_default();
        assert!(!error.contains('S'), "{kept} {error}");
    }
}
