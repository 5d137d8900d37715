//! How fast lines of logs are read and masked, MB/s on one core.

#![allow(clippy::unwrap_used, reason = "a measurement")]

use std::time::Instant;

use kfr_bundle::logs::{Reading, line_text};
use kfr_bundle::secrets::Masker;

fn main() {
    let lines = [
        r#"{"ts":1,"level":"error","msg":"order 17 failed for customer 1234","err":"dial tcp 10.0.0.7:5432: refused","path":"/x/17"}"#,
        "10.244.0.5 - - [22/Nov/2026:10:46:39 +0000] \"GET /api/products/17 HTTP/1.1\" 200 21 \"-\" \"loadgen/0.3\"",
        "2026-11-22 10:46:39.123 INFO 1 --- [main] c.e.s.OrderService : processed order 17 of customer 99 in 12 ms",
        "level=info ts=2026-11-22T10:46:39Z caller=main.go:17 msg=\"request done\" method=GET status=200 took=12ms",
    ];
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    for what in ["read", "read and masked"] {
        let (mut reading, mut masker, mut sum) = (Reading::default(), Masker::default(), 0);
        let begun = Instant::now();
        let rounds = 100_000;
        for _ in 0..rounds {
            for line in lines {
                let (text, _) = line_text(line.as_bytes());
                sum += usize::from(reading.next(&text).continues);
                sum += if what == "read" { 0 } else { masker.mask(&text).len() };
            }
        }
        let rate = (bytes * rounds) as f64 / 1e6 / begun.elapsed().as_secs_f64();
        println!("{what}: {rate:.0} MB/s ({sum})");
    }
}
