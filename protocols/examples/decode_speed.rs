//! Requests a second of each decoder on one core, and bytes a second of the SQL normaliser. `cargo run --release
//! --example decode_speed`.

use std::hint::black_box;
use std::time::Instant;

use kfr_protocols::sql::{self, Dialect};
use kfr_protocols::{Output, REGISTRY, Start, Streams};

const REQUESTS: usize = 1_000_000;

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(sequence);
    bytes.extend_from_slice(payload);
    bytes
}

fn mysql_answer() -> Vec<u8> {
    let column = b"\x03def\x04test\x01t\x01t\x02id\x02id\x0c\x3f\0\x0b\0\0\0\x03\x03\x50\0\0\0";
    let packets: [&[u8]; 6] = [b"\x01", column, b"\xfe\0\0\x02\0", b"\x0542342", b"\x0542343", b"\xfe\0\0\x02\0"];
    packets.iter().enumerate().flat_map(|(i, payload)| packet(i as u8 + 1, payload)).collect()
}

fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(content.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

fn postgresql_answer(begin: &[u8]) -> Vec<u8> {
    let columns = message(b'T', b"\0\x01id\0\0\0\x40\x01\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    let rows = message(b'D', b"\0\x01\0\0\0\x0542342").repeat(2);
    [begin, &columns, &rows, &message(b'C', b"SELECT 2\0"), &message(b'Z', b"I")].concat()
}

fn measure(name: &str, label: &str, mid_stream: bool, request: &[u8], response: &[u8], batch: usize) {
    let protocol = REGISTRY.iter().find(|p| p.name.starts_with(name)).expect("a registered protocol");
    let mut parser = (protocol.parser)(&Start { mid_stream, ..Start::default() });
    let (mut streams, mut out) = (Streams::default(), Output::default());
    let (request, response) = (request.repeat(batch), response.repeat(batch));
    let mut seen = 0;
    let start = Instant::now();
    for _ in 0..REQUESTS / batch {
        streams.client.push(&request);
        parser.parse(&mut streams, &mut out);
        streams.server.push(&response);
        parser.parse(&mut streams, &mut out);
        seen += out.exchanges.len();
        black_box(&out.exchanges);
        out.exchanges.clear();
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(seen, REQUESTS / batch * batch, "{name}");
    let bytes = (request.len() + response.len()) / batch;
    println!("{name:6} {label:22} {:>12.0} requests/s ({bytes} bytes each)", seen as f64 / seconds);
}

fn main() {
    let get = b"GET /api/v1/items?id=4711 HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\n01234567890123456789";
    measure("http", "keep-alive", false, get, ok, 1);
    measure("http", "pipelined by 10", false, get, ok, 10);
    let set = b"*3\r\n$3\r\nSET\r\n$15\r\nuser:4711:email\r\n$64\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n";
    measure("redis", "SET", false, set, b"+OK\r\n", 1);
    measure("redis", "SET, pipelined by 50", false, set, b"+OK\r\n", 50);
    let query = packet(0, b"\x03SELECT id FROM items WHERE shop = 'north' AND id > 42341 LIMIT 2");
    measure("mysql", "query, 2 rows", true, &query, &mysql_answer(), 1);
    let execute = packet(0, b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x03\0\x2a\0\0\0");
    measure("mysql", "execute, OK", true, &execute, &packet(1, b"\0\x01\0\x02\0\0\0"), 1);
    let query = message(b'Q', b"SELECT id FROM items WHERE shop = 'north' AND id > 42341 LIMIT 2\0");
    measure("postgr", "query, 2 rows", true, &query, &postgresql_answer(b""), 1);
    let execute = [
        message(b'B', b"\0s1\0\0\0\0\x02\0\0\0\x05north\0\0\0\x0542341\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ];
    measure("postgr", "bind and execute", true, &execute.concat(), &postgresql_answer(&message(b'2', b"")), 1);
    let parsed = [
        message(b'P', b"\0SELECT id FROM items WHERE shop = $1 AND id > $2 LIMIT 2\0\0\0"),
        message(b'B', b"\0\0\0\0\0\x02\0\0\0\x05north\0\0\0\x0542341\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ];
    let answer = postgresql_answer(&[message(b'1', b""), message(b'2', b"")].concat());
    measure("postgr", "parse to execute", true, &parsed.concat(), &answer, 1);
    let statement = b"SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.created_at > \
        '2024-05-01 00:00:00' AND o.status IN ('open', 'paid', 'sent') AND c.region = 17 ORDER BY o.created_at DESC LIMIT 50";
    let start = Instant::now();
    for _ in 0..REQUESTS {
        black_box(sql::normalise(black_box(statement), Dialect::MySql, false));
    }
    let megabytes = (REQUESTS * statement.len()) as f64 / 1e6;
    println!(
        "sql    normalise              {:>12.0} MB/s ({} bytes each)",
        megabytes / start.elapsed().as_secs_f64(),
        statement.len()
    );
    let start = Instant::now();
    for _ in 0..REQUESTS {
        black_box(sql::normalise(black_box(statement), Dialect::PostgreSql, false));
    }
    let rate = megabytes / start.elapsed().as_secs_f64();
    println!("sql    normalise, PostgreSQL  {rate:>12.0} MB/s");
}
