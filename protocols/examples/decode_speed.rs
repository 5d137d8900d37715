//! Requests a second of each decoder on one core, and bytes a second of the SQL normaliser. `cargo run --release
//! --example decode_speed [PROTOCOL]`.

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

/// Whether this one is asked for.
fn asked(name: &str) -> bool {
    std::env::args().nth(1).is_none_or(|only| only == name)
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
    if !asked(name) {
        return;
    }
    let protocol = REGISTRY.iter().find(|p| p.name == name).expect("a registered protocol");
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
    println!("{name:10} {label:22} {:>12.0} requests/s ({bytes} bytes each)", seen as f64 / seconds);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Requests of HTTP/2: each on a stream of its own, `batch` at once. `blocks` are the header blocks of a request, an
/// answer and its trailers.
fn measure_http2(label: &str, blocks: [&[u8]; 3], body: &[u8], batch: usize) {
    if !asked("http2") {
        return;
    }
    let protocol = REGISTRY.iter().find(|p| p.name == "http2").expect("a registered protocol");
    let mut parser = (protocol.parser)(&Start::default());
    let (mut streams, mut out) = (Streams::default(), Output::default());
    streams.client.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let [request, answer, trailers] = blocks;
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    let (mut seen, mut stream, mut bytes) = (0, 1, 0);
    let mut seconds = 0.0;
    for _ in 0..REQUESTS / batch {
        requests.clear();
        answers.clear();
        for _ in 0..batch {
            let end = u8::from(trailers.is_empty());
            requests.extend(frame(1, 4 | end, stream, request));
            if !trailers.is_empty() {
                requests.extend(frame(0, 1, stream, body));
            }
            answers.extend(frame(1, 4, stream, answer));
            answers.extend(frame(0, end, stream, body));
            if !trailers.is_empty() {
                answers.extend(frame(1, 5, stream, trailers));
            }
            stream += 2;
        }
        bytes += requests.len() + answers.len();
        let start = Instant::now();
        streams.client.push(&requests);
        parser.parse(&mut streams, &mut out);
        streams.server.push(&answers);
        parser.parse(&mut streams, &mut out);
        seen += out.exchanges.len();
        black_box(&out.exchanges);
        out.exchanges.clear();
        seconds += start.elapsed().as_secs_f64();
    }
    assert_eq!(seen, REQUESTS / batch * batch, "http2");
    println!("http2      {label:22} {:>12.0} requests/s ({} bytes each)", seen as f64 / seconds, bytes / seen);
}

fn main() {
    let get = b"GET /api/v1/items?id=4711 HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\n01234567890123456789";
    measure("http", "keep-alive", false, get, ok, 1);
    measure("http", "pipelined by 10", false, get, ok, 10);
    // `:path` in Huffman code (`/api/v1/items?id=4711`), not put into the table; the rest by index.
    let path = b"\x04\x90\x60\x75\x99\x8e\xe1\x60\xc9\x2d\x28\xff\x0d\x24\x0d\x3a\x10\xff";
    let request = [&b"\x82\x86\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], &path[..]].concat();
    measure_http2("GET", [&request, b"\x88\x0f\x0d\x0220", b""], b"01234567890123456789", 1);
    measure_http2("GET, 10 at once", [&request, b"\x88\x0f\x0d\x0220", b""], b"01234567890123456789", 10);
    let call =
        [&b"\x83\x86\x04\x14/shop.Orders/GetOrder"[..], b"\x0f\x10\x10application/grpc\x00\x0cgrpc-timeout\x021S"]
            .concat();
    let call = call.as_slice();
    measure_http2(
        "gRPC",
        [call, b"\x88\x0f\x10\x10application/grpc", b"\x00\x0bgrpc-status\x010"],
        b"\0\0\0\0\x02\x08\x01",
        1,
    );
    let set = b"*3\r\n$3\r\nSET\r\n$15\r\nuser:4711:email\r\n$64\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n";
    measure("redis", "SET", false, set, b"+OK\r\n", 1);
    measure("redis", "SET, pipelined by 50", false, set, b"+OK\r\n", 50);
    let query = packet(0, b"\x03SELECT id FROM items WHERE shop = 'north' AND id > 42341 LIMIT 2");
    measure("mysql", "query, 2 rows", true, &query, &mysql_answer(), 1);
    let execute = packet(0, b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x03\0\x2a\0\0\0");
    measure("mysql", "execute, OK", true, &execute, &packet(1, b"\0\x01\0\x02\0\0\0"), 1);
    let query = message(b'Q', b"SELECT id FROM items WHERE shop = 'north' AND id > 42341 LIMIT 2\0");
    measure("postgresql", "query, 2 rows", true, &query, &postgresql_answer(b""), 1);
    let execute = [
        message(b'B', b"\0s1\0\0\0\0\x02\0\0\0\x05north\0\0\0\x0542341\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ];
    measure("postgresql", "bind and execute", true, &execute.concat(), &postgresql_answer(&message(b'2', b"")), 1);
    let parsed = [
        message(b'P', b"\0SELECT id FROM items WHERE shop = $1 AND id > $2 LIMIT 2\0\0\0"),
        message(b'B', b"\0\0\0\0\0\x02\0\0\0\x05north\0\0\0\x0542341\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ];
    let answer = postgresql_answer(&[message(b'1', b""), message(b'2', b"")].concat());
    measure("postgresql", "parse to execute", true, &parsed.concat(), &answer, 1);
    if !asked("sql") {
        return;
    }
    let statement = b"SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.created_at > \
        '2024-05-01 00:00:00' AND o.status IN ('open', 'paid', 'sent') AND c.region = 17 ORDER BY o.created_at DESC LIMIT 50";
    let start = Instant::now();
    for _ in 0..REQUESTS {
        black_box(sql::normalise(black_box(statement), Dialect::MySql, false));
    }
    let megabytes = (REQUESTS * statement.len()) as f64 / 1e6;
    println!(
        "sql        normalise              {:>12.0} MB/s ({} bytes each)",
        megabytes / start.elapsed().as_secs_f64(),
        statement.len()
    );
    let start = Instant::now();
    for _ in 0..REQUESTS {
        black_box(sql::normalise(black_box(statement), Dialect::PostgreSql, false));
    }
    let rate = megabytes / start.elapsed().as_secs_f64();
    println!("sql        normalise, PostgreSQL  {rate:>12.0} MB/s");
}
