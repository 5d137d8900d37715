//! What TLS handshakes show.

mod common;

use std::path::Path;

use common::{Piece, decode, parser, pieces, run, talk};
use kfr_protocols::{Detected, Output, Prefix, Side, TlsFacts, protocol_named};
use proptest::prelude::*;

const C: bool = true;
const S: bool = false;

const NAMES: &[&str] = &["shop.test", "*.shop.test", "127.0.0.1"];

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &(content.len() as u16).to_be_bytes(), content].concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
}

fn long(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

/// A client's hello with GREASE, a server name, ALPN and versions.
fn client_hello() -> Vec<u8> {
    let name = [&[0][..], &long(b"shop.test")].concat();
    let extensions = [
        extension(0x2a2a, b""),
        extension(0, &long(&name)),
        extension(16, &long(b"\x02\x3a\x3a\x02h2\x08http/1.1")),
        extension(43, b"\x06\x1a\x1a\x03\x04\x03\x03"),
    ]
    .concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &long(&[0x13, 1]), &[1, 0], &long(&extensions)].concat();
    handshake(1, &body)
}

fn server_hello(extensions: &[u8]) -> Vec<u8> {
    handshake(2, &[&[3, 3][..], &[9; 32], &[0], &[0x13, 0x02], &[0], &long(extensions)].concat())
}

fn facts(out: &Output) -> TlsFacts {
    out.tls.as_deref().cloned().unwrap_or_default()
}

/// By what `openssl s_client` and `s_server` said and `tshark` shows of the recording.
#[test]
fn handshakes_of_openssl() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/tls/handshakes.pcap");
    type Row = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static str,
        bool,
        bool,
        &'static [(Side, &'static str)],
    );
    // Server name, version, ALPN, cipher, certificate seen, established, alerts.
    let expected: &[Row] = &[
        ("www.shop.test", "TLS 1.2", &["http/1.1"], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", true, true, &[]),
        ("www.shop.test", "TLS 1.3", &["h2", "http/1.1"], "TLS_CHACHA20_POLY1305_SHA256", false, true, &[]),
        ("hello-retry.test", "TLS 1.3", &[], "TLS_AES_256_GCM_SHA384", false, true, &[]),
        ("fragments.test", "TLS 1.2", &[], "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", true, true, &[]),
        ("no-version.test", "TLS 1.2", &[], "", false, false, &[(Side::Server, "protocol_version")]),
        (
            "distrust12.test",
            "TLS 1.2",
            &[],
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            true,
            false,
            &[(Side::Client, "unknown_ca")],
        ),
        ("distrust13.test", "TLS 1.3", &[], "TLS_AES_256_GCM_SHA384", false, false, &[(Side::Client, "unknown_ca")]),
        ("no-alpn.test", "TLS 1.3", &["other/9"], "", false, false, &[(Side::Server, "no_application_protocol")]),
        // No version was agreed on: the one offered.
        ("no-cipher.test", "TLS 1.3", &[], "", false, false, &[(Side::Server, "handshake_failure")]),
        ("", "TLS 1.3", &[], "TLS_AES_256_GCM_SHA384", false, true, &[]),
    ];
    let connections = common::connections(&file);
    assert_eq!(connections.len(), expected.len());
    for (connection, (name, version, alpn, cipher, certificate, established, alerts)) in
        connections.iter().zip(expected)
    {
        let (protocol, out) = decode(connection, usize::MAX).unwrap();
        assert_eq!((protocol.name, out.exchanges.len(), out.skipped_bytes), ("tls", 0, [0, 0]));
        let facts = facts(&out);
        assert_eq!(facts.server_name.as_deref().unwrap_or_default(), *name);
        assert_eq!(facts.version.as_deref(), Some(*version), "{name}");
        assert_eq!(facts.alpn.iter().map(|name| &**name).collect::<Vec<_>>(), *alpn, "{name}");
        assert_eq!(facts.cipher.as_deref().unwrap_or_default(), *cipher, "{name}");
        let names: Vec<_> = facts.certificate.iter().map(|name| &**name).collect();
        assert_eq!(names, if *certificate { NAMES } else { &[] }, "{name}");
        assert_eq!(facts.established, *established, "{name}");
        let found: Vec<_> = facts.alerts.iter().map(|(side, name)| (*side, &**name)).collect();
        assert_eq!(found, *alerts, "{name}");
    }
}

#[test]
fn offers_are_shown_until_the_server_chose() {
    let out = talk("tls", false, &[(C, &record(22, &client_hello()))]);
    let shown = facts(&out);
    assert_eq!((shown.version.as_deref(), shown.server_name.as_deref()), (Some("TLS 1.3"), Some("shop.test")));
    assert_eq!((shown.alpn, shown.cipher, shown.established), (vec!["h2".into(), "http/1.1".into()], None, false));
    let chosen = server_hello(&extension(16, &long(b"\x02h2")));
    let out = talk("tls", false, &[(C, &record(22, &client_hello())), (S, &record(22, &chosen))]);
    let shown = facts(&out);
    assert_eq!((shown.version.as_deref(), shown.alpn), (Some("TLS 1.2"), vec!["h2".into()]));
}

#[test]
fn messages_cross_records_and_share_them() {
    let both = [server_hello(b""), handshake(14, b"")].concat();
    for at in 1..both.len() {
        let (first, second) = both.split_at(at);
        let server = [record(22, first), record(22, second)].concat();
        let out = talk("tls", false, &[(C, &record(22, &client_hello())), (S, &server)]);
        assert_eq!(facts(&out).cipher.as_deref(), Some("TLS_AES_256_GCM_SHA384"), "{at}");
    }
}

#[test]
fn hellos_cut_anywhere_show_what_is_there() {
    let hello = record(22, &client_hello());
    for keep in 0..hello.len() {
        for piece in [Piece::Cut, Piece::Lost] {
            let pieces = [
                (C, Piece::Bytes(hello[..keep].to_vec())),
                (C, piece((hello.len() - keep) as u64)),
                (S, Piece::Bytes(record(22, &server_hello(b"")))),
                (C, Piece::Bytes(record(20, &[1]))),
            ];
            let out = run(parser("tls", false).as_mut(), &pieces);
            let shown = facts(&out);
            assert_eq!(shown.version.as_deref(), Some("TLS 1.2"), "{keep}");
            let name = shown.server_name.as_deref();
            assert!(name.is_none_or(|name| !name.is_empty() && "shop.test".starts_with(name)), "{keep} {name:?}");
        }
    }
}

#[test]
fn early_data_and_alerts_are_no_success() {
    let tls_13 = server_hello(&extension(43, &[3, 4]));
    // Early data of the client, then a hello, then an encrypted alert about the certificate.
    let early = [record(22, &client_hello()), record(23, &[0; 100])].concat();
    let server = [record(22, &tls_13), record(23, &[0; 500])].concat();
    let mut sends = vec![(C, early), (S, server), (C, record(23, &[0; 19]))];
    let borrowed = |sends: &[(bool, Vec<u8>)]| {
        let sends: Vec<_> = sends.iter().map(|(client, bytes)| (*client, bytes.as_slice())).collect();
        facts(&talk("tls", false, &sends)).established
    };
    assert!(!borrowed(&sends));
    sends.push((C, record(23, &[0; 53])));
    assert!(borrowed(&sends));
}

#[test]
fn a_hello_of_the_oldest_form_is_tolerated() {
    let body = [&[1, 3, 1, 0, 3, 0, 0, 0, 16, 0, 0, 0x2f][..], &[5; 16]].concat();
    let hello = [&[0x80, body.len() as u8][..], &body].concat();
    let pieces: Vec<_> = hello.iter().map(|byte| (C, Piece::Bytes(vec![*byte]))).collect();
    assert_eq!(facts(&run(parser("tls", false).as_mut(), &pieces)).version.as_deref(), Some("TLS 1.0"));
    assert_eq!(judge(&hello, &[], false), Detected::Certain);
}

#[test]
fn joined_in_the_middle() {
    let sends = [(S, &b"rest of a record"[..]), (C, &record(23, &[1; 40])), (S, &record(23, &[1; 90]))];
    let out = talk("tls", true, &sends);
    assert_eq!((out.skipped_bytes, facts(&out).established), ([0, 16], true));
    assert_eq!((facts(&out).version, out.rejected), (None, false));
    let out = talk("tls", true, &[(C, &record(23, &[1; 40])), (C, b"GET / HTTP/1.1")]);
    assert!(out.rejected);
}

fn judge(client: &[u8], server: &[u8], mid_stream: bool) -> Detected {
    let (_, protocol) = protocol_named("tls").unwrap();
    (protocol.detect)(&Prefix { client, server, mid_stream, ..Prefix::default() })
}

#[test]
fn how_sure_a_record_makes() {
    let (client, server) = (record(22, &client_hello()), record(22, &server_hello(b"")));
    assert_eq!(judge(&client, &[], false), Detected::Certain);
    assert_eq!(judge(&client, b"HTTP/1.1 400 Bad Request", false), Detected::Certain);
    assert_eq!(judge(&[], &server, false), Detected::Certain);
    assert_eq!(judge(&server, &client, true), Detected::No);
    assert_eq!(judge(&client[..4], &[], false), Detected::Maybe);
    assert_eq!(judge(&record(23, &[0; 9]), &record(23, &[0; 9]), true), Detected::Certain);
    assert_eq!(judge(&record(23, &[0; 9]).repeat(2), &[], true), Detected::Likely);
    assert_eq!(judge(&record(23, &[0; 9]), &[], true), Detected::Maybe);
}

#[test]
fn hostile_lengths_cost_nothing() {
    // A message of 16 MiB in tiny records, a million alerts, certificates that nest.
    let mut parser = parser("tls", false);
    let (mut streams, mut out) = (kfr_protocols::Streams::default(), Output::default());
    streams.client.push(&record(22, &client_hello()));
    streams.server.push(&record(22, &[11, 0xff, 0xff, 0xff]));
    let nested = record(22, &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]);
    for _ in 0..1_000_000 {
        streams.server.push(&nested);
        parser.parse(&mut streams, &mut out);
    }
    streams.client.push(&record(21, &[1, 0]).repeat(1_000_000));
    parser.parse(&mut streams, &mut out);
    parser.finish(&mut streams, &mut out);
    assert_eq!(facts(&out).alerts.len(), 8);
}

#[test]
fn a_hundred_megabytes_take_linear_time() {
    let mut parser = parser("tls", false);
    let (mut streams, mut out) = (kfr_protocols::Streams::default(), Output::default());
    streams.client.push(&record(22, &client_hello()));
    streams.server.push(&record(22, &server_hello(b"")));
    let data = record(23, &[0; 16_384]).repeat(64);
    for _ in 0..100 {
        for chunk in data.chunks(1024) {
            streams.server.push(chunk);
            parser.parse(&mut streams, &mut out);
            assert!(streams.server.bytes().len() < 8);
        }
    }
    assert_eq!(streams.server.position(), streams.server.end());
}

proptest! {
    #[test]
    fn certificates_of_any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), from in 0usize..600) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/tls/handshakes.pcap");
        let connection = &common::connections(&file)[0];
        let mut talk = pieces(&[]);
        for (client, piece) in &connection.pieces {
            let Piece::Bytes(mut sent) = piece.clone() else { continue };
            if !client && from < sent.len() {
                let end = (from + bytes.len()).min(sent.len());
                sent[from..end].copy_from_slice(&bytes[..end - from]);
            }
            talk.push((*client, Piece::Bytes(sent)));
        }
        run(parser("tls", false).as_mut(), &talk);
    }
}
