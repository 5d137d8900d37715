//! HTTP/2, HPACK and gRPC: recordings against what client and server counted, and conversations by hand for the edges.

mod common;

use std::path::Path;

use common::{Piece, connections, decode, line, parser, run, talk};
use kfr_protocols::{Exchange, Flags, Output, Side, Status, Streams, protocol_named};

const C: bool = true;
const S: bool = false;

fn recorded(file: &str) -> Vec<Exchange> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols").join(file);
    let mut all = Vec::new();
    for connection in connections(&path) {
        if let Some((_, out)) = decode(&connection, usize::MAX) {
            assert_eq!(out.skipped_bytes, [0, 0], "{file}");
            all.extend(out.exchanges);
        }
    }
    if std::env::var_os("KFR_VERBOSE").is_some() {
        all.iter().for_each(|e| println!("{}", line(e)));
    }
    all
}

/// `op target code` of each request of a protocol.
fn lines(exchanges: &[Exchange], protocol: &str) -> Vec<String> {
    let number = protocol_named(protocol).map(|(number, _)| number);
    let mut lines: Vec<_> = exchanges
        .iter()
        .filter(|e| e.protocol == number)
        .map(|e| format!("{} {} {}", e.op, e.target.as_deref().unwrap_or("-"), e.code.as_deref().unwrap_or("-")))
        .collect();
    lines.sort();
    lines
}

#[test]
fn nginx_counted_the_same() {
    let all = recorded("http2/requests.pcap");
    // The server's access log.
    let log = [
        "GET /fail 503",
        "GET /gone 410",
        "GET /items 200",
        "GET /items 200",
        "GET /items?id=? 200",
        "GET /missing 404",
        "GET /move 302",
        "GET /move 302",
        "GET /page.txt 200",
        "GET /page.txt 200",
        "HEAD /items 200",
        "POST /put 201",
        "POST /put 413",
        "PUT /items 200",
    ];
    assert_eq!(lines(&all, "http2"), log);
    assert!(all.iter().all(|e| e.flags == Flags::default()), "{all:#?}");
    assert_eq!(all.iter().filter(|e| e.status == Status::Error).count(), 4);
    // Streams that interleave have sizes of their own: the body, its frames' heads, and a header block.
    for page in all.iter().filter(|e| e.target.as_deref() == Some("/page.txt")) {
        let size = page.response_size().unwrap();
        assert!((9100 + 18..9100 + 400).contains(&size), "{size}");
    }
}
