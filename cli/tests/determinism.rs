//! The same bundle gives the same bytes, whatever the threads and the memory.
//!
//! `KFR_GENERATE=FILE` (with `KFR_GENERATE_BYTES`, `KFR_GENERATE_CONNECTIONS` and others, see there) makes
//! `generate_a_large_bundle` write a bundle of that size before compression instead of doing nothing; see
//! `scripts/soak-memory`.

mod generate;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use generate::{Recorder, Traffic, traffic};

const KFR: &str = env!("CARGO_BIN_EXE_kfr");

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn generate_a_large_bundle() {
    let Some(path) = std::env::var_os("KFR_GENERATE") else { return };
    let mut recorder = Recorder::create(Path::new(&path));
    // As the recorder makes them.
    recorder.block_bytes = 4 << 20;
    let wanted = Traffic {
        connections: number("KFR_GENERATE_CONNECTIONS", u64::MAX),
        at_once: number("KFR_GENERATE_AT_ONCE", 2000) as usize,
        requests_each: number("KFR_GENERATE_REQUESTS", 200) as usize,
        body: number("KFR_GENERATE_BODY", 1500) as usize,
        seed: 1,
        raw_bytes: number("KFR_GENERATE_BYTES", 1 << 30),
        closes: number("KFR_GENERATE_OPEN", 0) == 0,
        trouble: number("KFR_GENERATE_TROUBLE", 1) == 1,
    };
    traffic(&mut recorder, &wanted);
    println!("{} bytes before compression", recorder.finish());
}

/// Runs kfr; its output.
fn output(arguments: &[&str], bundle: &Path) -> Vec<u8> {
    let output = Command::new(KFR).args(arguments).arg(bundle).output().unwrap();
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{arguments:?}: {}, {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Every file below a folder, by name.
fn files(folder: &Path, at: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{at}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), &name, found);
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

fn report(folder: &Path, bundle: &Path, options: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let to = folder.join("report");
    let _ = std::fs::remove_dir_all(&to);
    output(&[&["-q", "analyze", "-o", to.to_str().unwrap()], options].concat(), bundle);
    let mut found = BTreeMap::new();
    files(&to, "", &mut found);
    found
}

#[test]
fn threads_and_memory_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("generated.kfr");
    let mut recorder = Recorder::create(&bundle);
    traffic(
        &mut recorder,
        &Traffic {
            connections: 400,
            at_once: 60,
            requests_each: 40,
            body: 3000,
            seed: 7,
            raw_bytes: u64::MAX,
            closes: true,
            trouble: true,
        },
    );
    recorder.finish();
    let variants: Vec<Vec<&str>> = ["1", "2", "4"]
        .into_iter()
        .flat_map(|threads| ["1MiB", "64MiB", "1GiB"].map(|memory| vec!["--threads", threads, "--memory", memory]))
        .chain([vec!["--threads", "1", "--memory", "1MiB"]])
        .collect();
    for what in ["--requests", "--connections", "--sql", "--events"] {
        let first = output(&["dump", what], &bundle);
        assert!(first.len() > 1000, "dump {what}");
        for variant in &variants {
            let again = output(&[&["dump", what], variant.as_slice()].concat(), &bundle);
            assert!(first == again, "dump {what} {variant:?} differs");
        }
    }
    let first = report(folder.path(), &bundle, &[]);
    assert!(first.contains_key("/report.json") && first.contains_key("/report.html"), "{:?}", first.keys());
    for variant in &variants {
        let again = report(folder.path(), &bundle, variant);
        assert_eq!(first.keys().collect::<Vec<_>>(), again.keys().collect::<Vec<_>>());
        for (name, bytes) in &first {
            assert!(again[name] == *bytes, "analyze {variant:?}: {name} differs");
        }
    }
}
