//! What holds for every decoder, on recordings of real clients and servers: `testdata/protocols/NAME/*.pcap`, where NAME
//! is the protocol's name in the registry.

mod common;

use std::path::{Path, PathBuf};

use common::{Connection, Piece, decode, decode_into};
use kfr_protocols::{Exchange, Output, REGISTRY, Side, protocol_named};

/// Every recording with the name of its protocol.
fn recordings() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols");
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let files = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
        found.extend(
            files.filter(|file| file.extension().is_some_and(|e| e == "pcap")).map(|file| (name.clone(), file)),
        );
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The requests of a protocol on a connection.
fn of<'a>(out: &'a Output, name: &str) -> Vec<&'a Exchange> {
    let number = protocol_named(name).map(|(number, _)| number);
    out.exchanges.iter().filter(|exchange| exchange.protocol == number).collect()
}

/// The connection with every piece split into pieces of `size` bytes, in the same order.
fn split(connection: &Connection, size: usize) -> Connection {
    let mut pieces = Vec::new();
    for (client, piece) in &connection.pieces {
        match piece {
            Piece::Bytes(bytes) => pieces.extend(bytes.chunks(size).map(|part| (*client, Piece::Bytes(part.to_vec())))),
            other => pieces.push((*client, other.clone())),
        }
    }
    Connection { pieces, mid_stream: connection.mid_stream, ports: connection.ports, datagrams: connection.datagrams }
}

#[test]
fn recordings_are_detected_and_read() {
    for (name, file) in recordings() {
        assert!(protocol_named(&name).is_some(), "{name} is no protocol of the registry");
        let mut requests = 0;
        for connection in common::connections(&file) {
            if let Some((_, out)) = decode(&connection, usize::MAX) {
                requests += of(&out, &name).len() + usize::from(out.tls.is_some());
            }
        }
        assert!(requests > 0, "{}: nothing of {name} was read", file.display());
    }
}

#[test]
fn splits_change_nothing() {
    for (_, file) in recordings() {
        let connections = common::connections(&file);
        for connection in connections.iter().filter(|one| !one.datagrams && !one.mid_stream) {
            let whole = decode(connection, usize::MAX).map(|(protocol, out)| (protocol.name, out.exchanges, out.tls));
            for size in [1, 2, 3, 7, 61] {
                let parts = decode(&split(connection, size), usize::MAX);
                let parts = parts.map(|(protocol, out)| (protocol.name, out.exchanges, out.tls));
                assert_eq!(parts, whole, "{} in pieces of {size}, ports {:?}", file.display(), connection.ports);
            }
        }
    }
}

#[test]
fn every_byte_is_classified_once() {
    for (name, file) in recordings() {
        for connection in common::connections(&file) {
            let marked = Output { marks: Some(Vec::new()), ..Output::default() };
            let Some((_, out)) = decode_into(&connection, usize::MAX, marked) else { continue };
            for (side, index) in [(Side::Client, 0), (Side::Server, 1)] {
                let mut marks: Vec<_> = out.marks.iter().flatten().filter(|mark| mark.side == side).collect();
                marks.sort_by_key(|mark| (mark.range.start, mark.range.end));
                let (mut at, mut missing) = (0, 0);
                for mark in marks {
                    assert!(mark.range.start >= at, "{name} {}: {mark:?} overlaps {at}", file.display());
                    missing += mark.range.start - at;
                    at = mark.range.end;
                }
                let sent: usize = connection
                    .pieces
                    .iter()
                    .filter(|(client, _)| *client == (side == Side::Client))
                    .map(|(_, piece)| match piece {
                        Piece::Bytes(bytes) => bytes.len(),
                        Piece::Lost(length) | Piece::Cut(length) => *length as usize,
                    })
                    .sum();
                missing += (sent as u64).saturating_sub(at);
                let skipped = out.skipped_bytes[index];
                assert!(
                    missing <= skipped,
                    "{name} {} {side:?}: {missing} bytes without a class, {skipped} skipped",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn cut_payload_and_missing_starts_never_panic() {
    for (_, file) in recordings() {
        for connection in common::connections(&file) {
            for limit in [0, 1, 5, 16, 50, 200] {
                decode(&connection, limit);
            }
            for first in 1..connection.pieces.len().min(40) {
                let pieces = connection.pieces[first..].to_vec();
                let late =
                    Connection { pieces, mid_stream: true, ports: connection.ports, datagrams: connection.datagrams };
                decode(&late, usize::MAX);
            }
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    for (_, file) in recordings() {
        for connection in common::connections(&file) {
            for seed in 0..20_u64 {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut damaged = split(&connection, usize::MAX);
                for (_, piece) in &mut damaged.pieces {
                    let Piece::Bytes(bytes) = piece else { continue };
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let at = random as usize % bytes.len();
                    bytes[at] ^= 1 << (random >> 61);
                }
                decode(&damaged, usize::MAX);
            }
        }
    }
}

#[test]
fn every_protocol_has_a_recording() {
    let found = recordings();
    for protocol in REGISTRY {
        assert!(
            found.iter().any(|(name, _)| name == protocol.name),
            "testdata/protocols/{} has no recording",
            protocol.name
        );
    }
}
