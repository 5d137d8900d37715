//! Does time grow with the bytes, and not faster? Every protocol gets N, 2N and 4N bytes of what is worst for a reader
//! that looks again at what it has seen: one message that never ends, tiny pipelined ones, single bytes, garbage, its own
//! recordings over and over. `cargo run --release -p kfr-protocols --example linear [-- MEGABYTES [WORD]]`: 4N in
//! megabytes, and which cases (a part of their names). Exits with 1 if anything is not linear.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use common::{Piece, connections};
use kfr_protocols::{Decoder, End, Output, REGISTRY, Setup, protocol_named};

/// Twice the bytes may take twice the time and this much more of it: caches, the allocator, a busy machine.
const TOLERANCE: f64 = 1.5;
/// Below this nothing is measured, seconds.
const NOISE: f64 = 0.02;

/// A conversation: (from the client, bytes, length of its chunks).
type Talk = Vec<(bool, Vec<u8>, usize)>;

/// Seconds of CPU that this thread has spent (<https://docs.kernel.org/scheduler/sched-stats.html>); where nobody tells,
/// seconds on the clock.
/// Bytes of so many units.
type Make = fn(usize) -> Vec<u8>;

/// Measures what a maker of bytes gives: protocol, what it is, the maker.
type Ask<'a> = &'a mut dyn FnMut(&str, &str, &dyn Fn(usize) -> Vec<u8>);

fn spent() -> f64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let ran = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    match ran.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()) {
        Some(nanoseconds) => nanoseconds / 1e9,
        None => BEGIN.get_or_init(Instant::now).elapsed().as_secs_f64(),
    }
}

/// Feeds a connection; its bytes and exchanges.
fn run(hint: Option<&str>, talk: &Talk, out: &mut Output) -> (usize, usize) {
    let mut decoder = Decoder::new(Setup {
        near_is_client: hint.map(|_| true),
        hint: hint.and_then(protocol_named).map(|(number, _)| number),
        ports: [Some(40_000), Some(6000)],
        ..Setup::default()
    });
    let (mut at, mut seen) = ([0u64; 2], 0);
    for (client, bytes, length) in talk {
        for chunk in bytes.chunks(*length) {
            let end = if *client { End::Near } else { End::Far };
            let offset = &mut at[usize::from(*client)];
            decoder.push(end, *offset, |stream| stream.push(chunk), out);
            *offset += chunk.len() as u64;
            seen += out.exchanges.len();
            out.exchanges.clear();
        }
    }
    decoder.finish(out);
    seen += out.exchanges.len();
    out.exchanges.clear();
    (at.iter().sum::<u64>() as usize, seen)
}

struct Cases {
    megabytes: usize,
    word: String,
    bad: usize,
}

impl Cases {
    /// One case: `make` makes a conversation of about so many bytes.
    fn case(&mut self, name: &str, label: &str, hint: Option<&str>, make: impl Fn(usize) -> Talk) {
        if !format!("{name} {label}").contains(&self.word) {
            return;
        }
        let sizes = [1, 2, 4].map(|share| self.megabytes * 1_000_000 * share / 4);
        let mut seconds = [0.0; 3];
        let mut last = (0, 0);
        let mut linear = false;
        // A pause of the machine looks like a square: what is one stays one.
        for _ in 0..3 {
            for (size, seconds) in sizes.iter().zip(&mut seconds) {
                let talk = make(*size);
                let start = spent();
                last = run(hint, &talk, &mut Output::default());
                *seconds = spent() - start;
            }
            let grows = |a: f64, b: f64| b / a.max(NOISE) <= 2.0 * TOLERANCE;
            linear = grows(seconds[0], seconds[1]) && grows(seconds[1], seconds[2]);
            if linear {
                break;
            }
        }
        self.bad += usize::from(!linear);
        let rate = last.0 as f64 / 1e6 / seconds[2];
        let [one, two, four] = seconds;
        println!(
            "{name:11} {label:34} {one:8.3} {two:8.3} {four:8.3} s {:5.2} {rate:8.0} MB/s {:>10} requests{}",
            four / one,
            last.1,
            if linear { "" } else { "  NOT LINEAR" }
        );
    }
}

/// Bytes that look like nothing, the same each time.
fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn one_side(bytes: Vec<u8>, chunk: usize) -> Talk {
    vec![(true, bytes, chunk)]
}

/// What is sent first, then so many bytes of the same message.
fn long(head: &[u8], fill: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = head.to_vec();
    bytes.extend(fill.iter().cycle().take(length));
    bytes
}

/// Kinds of bytes that nobody claims, or that some begin to.
fn detection(cases: &mut Cases) {
    let kinds: [(&str, Make); 5] = [
        ("garbage", garbage),
        ("zeros", |length| vec![0; length]),
        ("0xff", |length| vec![0xff; length]),
        ("letters", |length| vec![b'a'; length]),
        ("lines", |length| b"some words that nobody knows\r\n".repeat(length / 30 + 1)),
    ];
    for (label, bytes) in kinds {
        for chunk in [1, 16, 1024, 32 << 10] {
            let label = format!("{label} by {chunk}");
            cases.case("(detection)", &label, None, |length| one_side(bytes(length), chunk));
        }
    }
    cases.case("(detection)", "garbage, both sides in turn", None, |length| {
        garbage(length).chunks(100).enumerate().map(|(i, bytes)| (i % 2 == 0, bytes.to_vec(), 100)).collect()
    });
}

/// Each protocol, told that it is the one, with what is not its own.
fn foreign(cases: &mut Cases, name: &str) {
    let hint = Some(name);
    for (label, chunk) in [("garbage by 1000", 1000), ("garbage by 1", 1)] {
        cases.case(name, label, hint, |length| {
            garbage(length).chunks(5000).enumerate().map(|(i, bytes)| (i % 3 < 2, bytes.to_vec(), chunk)).collect()
        });
    }
    for (label, byte) in [("zeros", 0), ("0xff", 255), ("letters", b'a'), ("line ends", b'\n'), ("digits", b'1')] {
        cases.case(name, &format!("{label}, client's, by 1000"), hint, |length| one_side(vec![byte; length], 1000));
        cases
            .case(name, &format!("{label}, server's, by 1000"), hint, |length| vec![(false, vec![byte; length], 1000)]);
    }
}

/// A protocol's recordings, one behind the other on one connection.
fn recorded(cases: &mut Cases, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pcap"));
    files.sort();
    for file in files {
        let connection = connections(&file).into_iter().filter(|c| !c.datagrams && !c.mid_stream).max_by_key(|c| {
            c.pieces
                .iter()
                .map(|(_, piece)| if let Piece::Bytes(bytes) = piece { bytes.len() } else { 0 })
                .sum::<usize>()
        });
        let Some(connection) = connection else { continue };
        let once = |chunk: usize| -> Talk {
            let pieces = connection.pieces.iter();
            pieces
                .filter_map(|(client, piece)| match piece {
                    Piece::Bytes(bytes) => Some((*client, bytes.clone(), chunk)),
                    _ => None,
                })
                .collect()
        };
        let length_of = |talk: &Talk| talk.iter().map(|(_, bytes, _)| bytes.len()).sum::<usize>().max(1);
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (label, chunk) in [("", usize::MAX), (" by 1", 1)] {
            let once = once(chunk);
            let label = format!("{stem} repeated{label}");
            cases.case(name, &label, Some(name), |length| {
                std::iter::repeat_n(&once, length / length_of(&once) + 1).flatten().cloned().collect()
            });
        }
        // All questions first, then all answers.
        let once = once(usize::MAX);
        cases.case(name, &format!("{stem}, answers last"), Some(name), |length| {
            let times = length / length_of(&once) + 1;
            let mut talk = Talk::new();
            for side in [true, false] {
                for _ in 0..times {
                    talk.extend(once.iter().filter(|(client, ..)| *client == side).cloned());
                }
            }
            talk
        });
    }
}

/// Messages as large as their protocol allows, or that never end.
fn large(cases: &mut Cases) {
    const BY: usize = 1448;
    let be = |length: usize| (length as u32).to_be_bytes();
    let le = |length: usize| (length as u32).to_le_bytes();
    let mut ask = |name: &str, label: &str, make: &dyn Fn(usize) -> Vec<u8>| {
        cases.case(name, label, Some(name), |length| one_side(make(length), BY));
    };
    ask("http", "one body", &|n| long(format!("POST / HTTP/1.1\r\nContent-Length: {n}\r\n\r\n").as_bytes(), b"x", n));
    ask("http", "one chunk", &|n| {
        long(format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{n:x}\r\n").as_bytes(), b"x", n)
    });
    ask("http", "tiny chunks", &|n| long(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", n));
    ask("http", "a head without end", &|n| long(b"GET / HTTP/1.1\r\n", b"a: b\r\n", n));
    ask("http", "a target without end", &|n| long(b"GET /", b"a?b=c&", n));
    ask("http", "a chunk size without end", &|n| {
        long(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", n)
    });
    ask("http", "tiny requests, no answer", &|n| long(b"", b"GET / HTTP/1.1\r\n\r\n", n));
    ask("redis", "one bulk string", &|n| long(format!("*2\r\n$3\r\nGET\r\n${n}\r\n").as_bytes(), b"x", n));
    ask("redis", "an inline command without end", &|n| long(b"SET ", b"x ", n));
    ask("redis", "one array", &|n| long(format!("*{}\r\n$4\r\nMGET\r\n", n / 7).as_bytes(), b"$1\r\nx\r\n", n));
    ask("redis", "tiny commands, no answer", &|n| long(b"", b"*1\r\n$4\r\nPING\r\n", n));
    ask("redis", "tiny inline commands, no answer", &|n| long(b"", b"PING\r\n", n));
    ask("memcached", "one value", &|n| long(format!("set k 0 0 {n}\r\n").as_bytes(), b"x", n));
    ask("memcached", "a line without end", &|n| long(b"get ", b"key ", n));
    ask("memcached", "tiny commands, no answer", &|n| long(b"", b"get k\r\n", n));
    ask("memcached", "one binary value", &|n| {
        let mut head = b"\x80\x01\0\x01\x08\0\0\0".to_vec();
        head.extend(be(n));
        long(&head, b"x", n)
    });
    ask("nats", "one message", &|n| long(format!("CONNECT {{}}\r\nPUB a {n}\r\n").as_bytes(), b"x", n));
    ask("nats", "tiny messages", &|n| long(b"CONNECT {}\r\n", b"PUB a 1\r\nx\r\n", n));
    ask("nats", "a line without end", &|n| long(b"CONNECT {", b"\"a\":1,", n));
    ask("mysql", "one statement", &|n| {
        let mut bytes = Vec::new();
        for number in 0..=n / 0xff_ffff {
            let length = (n - number * 0xff_ffff).min(0xff_ffff);
            bytes.extend([&le(length)[..3], &[number as u8]].concat());
            let first: &[u8] = if number == 0 { b"\x03INSERT INTO t VALUES " } else { b"" };
            bytes.extend(first.iter().chain(b"(1,'abc'),".iter().cycle()).take(length));
        }
        bytes
    });
    ask("mysql", "tiny commands, no answer", &|n| long(b"", b"\x01\0\0\0\x0e", n));
    ask("postgresql", "one statement", &|n| {
        long(&[b"Q".as_slice(), &be(n + 4), b"INSERT INTO t VALUES "].concat(), b"(1,'abc'),", n)
    });
    ask("postgresql", "tiny messages, no answer", &|n| long(b"", b"S\0\0\0\x04", n));
    ask("postgresql", "one COPY row", &|n| long(&[b"d".as_slice(), &be(n + 4)].concat(), b"x", n));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let post = [preface.as_slice(), b"\0\0\x03\x01\x04\0\0\0\x01\x83\x86\x84"].concat();
    ask("http2", "one body", &|n| {
        let frame = [b"\0\x40\0\0\0\0\0\0\x01".as_slice(), &[b'x'; 16384]].concat();
        long(&post, &frame, n)
    });
    ask("http2", "empty DATA frames", &|n| long(&post, b"\0\0\0\0\0\0\0\0\x01", n));
    ask("http2", "one frame of 16 MB after another", &|n| {
        long(&post, &[b"\xff\xff\xff\0\0\0\0\0\x01".as_slice(), &vec![b'x'; 0xff_ffff]].concat(), n)
    });
    ask("http2", "a header block without end", &|n| {
        long(
            &[preface.as_slice(), b"\0\0\x03\x01\0\0\0\0\x01\x83\x86\x84"].concat(),
            b"\0\0\x04\x09\0\0\0\0\x01\0\x01a\0",
            n,
        )
    });
    ask("http2", "PING", &|n| long(preface, b"\0\0\x08\x06\0\0\0\0\0abcdefgh", n));
    cases_streams(&mut ask, preface);
    ask("kafka", "one request", &|n| {
        long(&[&be(n + 9)[..], b"\0\0\0\x03\0\0\0\x01\xff\xff"].concat(), b"\0\x05abcde", n)
    });
    ask("kafka", "tiny requests, no answer", &|n| {
        (0..n / 16).flat_map(|i| [&be(12)[..], b"\0\x12\0\0", &be(i), b"\0\x02ab"].concat()).collect()
    });
    ask("mongodb", "one message", &|n| {
        let document = [&le(n + 12)[..], b"\x02insert\0\x02\0\0\0a\0\x05x\0", &le(n), b"\0"].concat();
        long(&[&le(n + 60)[..], &le(1), &le(0), &le(2013), &le(0), b"\0", &document].concat(), b"x", n)
    });
    ask("cassandra", "one query", &|n| {
        long(&[b"\x04\0\0\x01\x07".as_slice(), &be(n + 7), &be(n)].concat(), b"SELECT 'a', ", n)
    });
    ask("amqp", "one body", &|n| {
        let method = b"\x01\0\x01\0\0\0\x0e\0\x3c\0\x28\0\0\0\x03key\0\0\0\0\xce";
        let mut bytes = [b"AMQP\0\0\x09\x01".as_slice(), method].concat();
        bytes.extend(b"\x02\0\x01\0\0\0\x0e\0\x3c\0\0");
        bytes.extend((n as u64).to_be_bytes());
        bytes.extend(b"\0\0\xce");
        bytes.extend(b"\x03\0\x01");
        bytes.extend(be(n));
        long(&bytes, b"x", n)
    });
    ask("amqp", "heartbeats", &|n| long(b"AMQP\0\0\x09\x01", b"\x08\0\0\0\0\0\0\xce", n));
    ask("mqtt", "one message", &|n| {
        let connect = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a";
        let remaining = [n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21 & 127].map(|b| b as u8);
        long(&[connect.as_slice(), b"\x30", &remaining, b"\0\x01t"].concat(), b"x", n)
    });
    ask("mqtt", "tiny messages", &|n| long(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a", b"\x32\x05\0\x01t\0\x01", n));
    ask("mqtt", "PINGREQ", &|n| long(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a", b"\xc0\0", n));
    ask("thrift", "one string, framed", &|n| {
        let body = [b"\x80\x01\0\x01\0\0\0\x01a\0\0\0\x01\x0b\0\x01".as_slice(), &be(n)].concat();
        long(&[&be(body.len() + n + 1)[..], &body].concat(), b"x", n)
    });
    ask("thrift", "one string, unframed", &|n| {
        long(&[b"\x80\x01\0\x01\0\0\0\x01a\0\0\0\x01\x0b\0\x01".as_slice(), &be(n)].concat(), b"x", n)
    });
    ask("thrift", "one list, unframed", &|n| {
        let head = [b"\x80\x01\0\x01\0\0\0\x01a\0\0\0\x01\x0f\0\x01\x0b".as_slice(), &be(n / 5)].concat();
        long(&head, b"\0\0\0\x01x", n)
    });
    ask("thrift", "fields without end, unframed", &|n| {
        long(b"\x80\x01\0\x01\0\0\0\x01a\0\0\0\x01", b"\x08\0\x01\0\0\0\x01", n)
    });
    ask("thrift", "structs within structs", &|n| long(b"\x80\x01\0\x01\0\0\0\x01a\0\0\0\x01", b"\x0c\0\x01", n));
    ask("thrift", "tiny calls, no answer", &|n| long(b"", b"\x80\x01\0\x01\0\0\0\x01a\0\0\0\x01\0", n));
    ask("tls", "records", &|n| long(b"\x16\x03\x01\0\x04\x01\0\0\0", b"\x17\x03\x03\0\x01x", n));
    ask("tls", "a handshake without end", &|n| long(b"", b"\x16\x03\x01\0\x08\x01\xff\xff\xff\0\0\0\0", n));
    ask("dns", "tiny questions, no answer", &|n| {
        (0..n / 21)
            .flat_map(|i| {
                [b"\0\x13".as_slice(), &(i as u16).to_be_bytes(), b"\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01"]
                    .concat()
            })
            .collect()
    });
    ask("websocket", "one message", &|n| {
        long(&[b"\x82\xff".as_slice(), &(n as u64).to_be_bytes(), b"\0\0\0\0"].concat(), b"x", n)
    });
    ask("websocket", "fragments", &|n| long(b"\x02\x81\0\0\0\0x", b"\0\x81\0\0\0\0x", n));
    ask("dubbo", "one request", &|n| {
        long(&[b"\xda\xbb\xc2\0".as_slice(), &1u64.to_be_bytes(), &be(n)].concat(), b"\x05abcde", n)
    });
    ask("rocketmq", "one message", &|n| {
        let header = br#"{"code":10,"flag":0,"language":"JAVA","opaque":1,"version":1}"#;
        long(&[&be(n + 4 + header.len())[..], &be(header.len()), header].concat(), b"x", n)
    });
    ask("zookeeper", "tiny requests, no answer", &|n| {
        (0..n / 12).flat_map(|i| [&be(8)[..], &be(i + 1), &be(11)].concat()).collect()
    });
}

/// Streams that are opened and never answered.
fn cases_streams(ask: Ask<'_>, preface: &[u8]) {
    ask("http2", "tiny requests, no answer", &|n| {
        let frames = (0..n / 12).flat_map(|i| {
            [b"\0\0\x03\x01\x05".as_slice(), &((i as u32 * 2 + 1) & 0x7fff_ffff).to_be_bytes(), b"\x82\x86\x84"]
                .concat()
        });
        preface.iter().copied().chain(frames).collect()
    });
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let megabytes = arguments.next().and_then(|number| number.parse().ok()).unwrap_or(16);
    let mut cases = Cases { megabytes, word: arguments.next().unwrap_or_default(), bad: 0 };
    println!("{:11} {:34} {:>8} {:>8} {:>8}   4N/N", "", "", "N", "2N", "4N");
    detection(&mut cases);
    large(&mut cases);
    for protocol in REGISTRY {
        recorded(&mut cases, protocol.name);
        foreign(&mut cases, protocol.name);
    }
    if cases.bad > 0 {
        println!("{} cases are not linear", cases.bad);
        std::process::exit(1);
    }
}
