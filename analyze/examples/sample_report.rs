//! Writes the report of a made-up incident, to look at: `cargo run --example sample_report DIR [SERVICES]`.

#![allow(missing_docs, dead_code, reason = "shared with the tests")]

#[path = "../tests/report/sample.rs"]
mod sample;
#[path = "../tests/report/sample_cluster.rs"]
mod sample_cluster;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(dir) = std::env::args_os().nth(1) else {
        return Err("usage: sample_report DIR [SERVICES]".into());
    };
    let document = match std::env::args().nth(2) {
        Some(services) => sample::large(services.parse()?),
        None => sample::sample(),
    };
    let dir = std::path::PathBuf::from(dir);
    for path in kfr_analyze::report::write_all(&document, &dir)? {
        println!("{}", path.display());
    }
    Ok(())
}
