//! How fast a capture is imported: `cargo run --release -p kfr-import --example speed X.pcap`. The bundle goes nowhere.

use std::fs::File;
use std::time::Instant;

use kfr_bundle::Writer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name a capture")?;
    let bytes = std::fs::metadata(&path)?.len();
    let began = Instant::now();
    let summary =
        kfr_import::import(File::open(&path)?, &path, |header| Writer::to_stream(Box::new(std::io::sink()), header))?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{bytes} bytes, {} packets, {} events, bundle of {} bytes: {seconds:.2} s, {:.0} MB/s",
        summary.counters.packets,
        summary.counters.events,
        summary.bundle.bytes,
        bytes as f64 / 1e6 / seconds
    );
    Ok(())
}
