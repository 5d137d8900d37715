//! Fuzzing without a fuzzer: mutated recordings through every decoder, for `KFR_FUZZ_SECONDS` (2), of `KFR_FUZZ` (a
//! protocol; else all). `scripts/fuzz` looks longer, and guided by coverage.

mod common;
#[path = "common/drive.rs"]
mod drive;
#[path = "common/seeds.rs"]
mod seeds;

use std::time::{Duration, Instant};

use kfr_protocols::REGISTRY;

/// xorshift: the same mutations each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound.max(1)
    }
}

/// Changes an input in a few places, as a fuzzer would.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const ODD: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'\r', b'\n', 0xc0];
    for _ in 0..1 + random.below(6) {
        let at = random.below(input.len());
        let length = 1 + random.below(16);
        let end = (at + length).min(input.len());
        match random.below(8) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.next() as u8,
            2 => input[at] = ODD[random.below(ODD.len())],
            3 => input[at..end].fill(ODD[random.below(ODD.len())]),
            4 if input.len() > 40 => drop(input.drain(at..end)),
            5 => {
                let copy = input[at..end].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, copy);
            }
            6 => input.truncate(at.max(3)),
            _ => {
                let from = random.below(other.len());
                let to = (from + 1 + random.below(200)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    // How it is read: told or found out, on streams or datagrams, joined in the middle.
    if random.below(4) == 0 {
        input[0] = random.next() as u8;
        input[1] = random.next() as u8 | drive::MARKS;
    }
}

#[test]
fn mutated_recordings_break_nothing() {
    let only = std::env::var("KFR_FUZZ").unwrap_or_default();
    let seconds = std::env::var("KFR_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let names: Vec<_> =
        REGISTRY.iter().map(|protocol| protocol.name).filter(|n| only.is_empty() || *n == only).collect();
    assert!(!names.is_empty(), "no protocol has the name {only}");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for name in &names {
        let seeds = seeds::seeds(&seeds::folder(name));
        if seeds.is_empty() {
            println!("{name}: no recordings");
            continue;
        }
        let end = Instant::now() + Duration::from_secs_f64(seconds / names.len() as f64);
        seeds.iter().for_each(|seed| drive::drive(Some(name), seed));
        let mut runs = 0;
        while Instant::now() < end {
            let mut input = seeds[random.below(seeds.len())].clone();
            let other = &seeds[random.below(seeds.len())];
            mutate(&mut input, other, &mut random);
            if std::panic::catch_unwind(|| drive::drive(Some(name), &input)).is_err() {
                let file = std::env::temp_dir().join(format!("kfr-fuzz-{name}-{runs}"));
                std::fs::write(&file, &input).unwrap();
                panic!("{name}: the input is in {}", file.display());
            }
            runs += 1;
        }
        println!("{name}: {runs} inputs");
    }
}

/// `KFR_FUZZ_INPUT=FILE` with `KFR_FUZZ=NAME` runs one input again.
#[test]
fn one_input() {
    let Some(file) = std::env::var_os("KFR_FUZZ_INPUT") else { return };
    let name = std::env::var("KFR_FUZZ").ok();
    drive::drive(name.as_deref(), &std::fs::read(file).unwrap());
}

#[test]
fn every_protocol_has_a_fuzz_target() {
    let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for protocol in REGISTRY {
        let there = fuzz.join(format!("fuzz_targets/{}.rs", protocol.name)).exists();
        let named = manifest.contains(&format!("name = \"{}\"", protocol.name));
        assert!(there && named, "{} has no fuzz target: run scripts/fuzz --targets", protocol.name);
    }
}
