//! The stored recording replays to the same bytes as when it was stored. `KFR_BLESS=1` writes them anew: then the
//! difference is what a reviewer reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/quickstart").join(name)
}

fn kfr(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_kfr")).args(arguments).output().expect("kfr runs");
    assert!(output.status.success(), "kfr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn assert_same(found: &[u8], golden: &Path) {
    if std::env::var_os("KFR_BLESS").is_some() {
        fs::write(golden, found).expect("the golden file can be written");
        return;
    }
    let expected = fs::read(golden).expect("the golden file is there");
    if found == expected {
        return;
    }
    let (found, expected) = (String::from_utf8_lossy(found), String::from_utf8_lossy(&expected));
    let differing = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    let line = differing.unwrap_or(found.lines().count().min(expected.lines().count()));
    panic!(
        "{} differs from line {} on:\n  was {}\n  is  {}",
        golden.display(),
        line + 1,
        expected.lines().nth(line).unwrap_or("(ended)"),
        found.lines().nth(line).unwrap_or("(ended)")
    );
}

#[test]
fn the_stored_recording_replays_to_the_same_requests() {
    let bundle = stored("quickstart.kfr");
    let found = kfr(&["dump", bundle.to_str().expect("UTF-8"), "--requests"]);
    assert_same(&found, &stored("quickstart.requests.jsonl"));
}

#[test]
fn the_stored_recording_replays_to_the_same_report() {
    let bundle = stored("quickstart.kfr");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().to_str().expect("UTF-8");
    kfr(&["-q", "analyze", bundle.to_str().expect("UTF-8"), "-o", report]);
    for name in ["report.json", "summary.md"] {
        let found = fs::read(folder.path().join(name)).expect("the report has it");
        assert_same(&found, &stored(name));
    }
}

#[test]
fn info_says_what_the_recorder_lost() {
    let bundle = stored("quickstart.kfr");
    let name = bundle.to_str().expect("UTF-8");
    let info: serde_json::Value = serde_json::from_slice(&kfr(&["info", name, "--json"])).expect("JSON");
    let events = info["ledger"]["events"].as_u64().expect("a number of events");
    assert_eq!((info["ledger"]["events_lost"].as_u64(), events > 1000), (Some(0), true), "{info}");
    let text = String::from_utf8(kfr(&["info", name])).expect("UTF-8");
    assert!(text.contains(&format!("lost       0 of {events} events\n")), "{text}");
}
