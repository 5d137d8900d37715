//! A merged file replays as its bundles do together.

mod generate;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use generate::{Recorder, Traffic, traffic};
use serde_json::Value;

fn kfr(arguments: &[&str], bundles: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kfr")).args(arguments).args(bundles).output().unwrap()
}

fn bundle(folder: &Path, name: &str, seed: u64) -> PathBuf {
    let path = folder.join(name);
    let mut recorder = Recorder::create(&path);
    recorder.block_bytes = 16 << 10;
    let wanted = Traffic {
        connections: 20,
        at_once: 10,
        requests_each: 10,
        body: 300,
        seed,
        raw_bytes: u64::MAX,
        closes: true,
        trouble: true,
    };
    traffic(&mut recorder, &wanted);
    recorder.finish();
    path
}

fn merged(inputs: &[&Path], output: &Path) {
    let made = kfr(&["merge", "-o", output.to_str().unwrap()], inputs);
    assert!(matches!(made.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&made.stderr));
}

fn requests(bundles: &[&Path]) -> (Option<i32>, String) {
    let output = kfr(&["dump", "--requests"], bundles);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// `report.json` without what names files.
fn report(bundles: &[&Path]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = kfr(&["analyze", "-o", folder.path().to_str().unwrap()], bundles);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let mut report: Value = serde_json::from_str(&text).unwrap();
    for finding in report["findings"].as_array_mut().unwrap() {
        // It names a file, too.
        let command = finding["verify"].as_str().unwrap_or_default();
        let place = command.split(" --at ").nth(1).unwrap_or_default();
        finding["verify"] = Value::from(place);
    }
    let described = report["capture"]["bundles"].as_array_mut().unwrap();
    for bundle in described {
        bundle["file"] = Value::Null;
        bundle["sha256"] = Value::Null;
    }
    report
}

/// Where two values differ, and how.
fn differences(at: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().for_each(|(name, value)| differences(&format!("{at}.{name}"), value, &b[name], found));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(n, (a, b))| differences(&format!("{at}[{n}]"), a, b, found));
        }
        _ if one == other => {}
        _ => found.push(format!("{at}: {one} | {other}")),
    }
}

fn assert_same_report(one: &[&Path], other: &[&Path]) {
    let mut found = Vec::new();
    differences("", &report(one), &report(other), &mut found);
    assert!(found.is_empty(), "{}", found.join("\n").chars().take(2000).collect::<String>());
}

#[test]
fn a_merged_file_replays_as_its_bundles_do() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (bundle(folder.path(), "a.kfr", 1), bundle(folder.path(), "b.kfr", 2));
    let (c, once, twice) =
        (bundle(folder.path(), "c.kfr", 3), folder.path().join("ab.kfr"), folder.path().join("abc.kfr"));
    merged(&[&a, &b], &once);
    let (code, lines) = requests(&[&a, &b]);
    assert_eq!(requests(&[&once]), (code, lines.clone()));
    assert!(lines.lines().count() > 200, "{}", lines.lines().count());
    assert_same_report(&[&once], &[&a, &b]);
    let verified = kfr(&["verify"], &[&once]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    // Merged again, and the same bytes each time.
    merged(&[&once, &c], &twice);
    assert_eq!(requests(&[&twice]), requests(&[&a, &b, &c]));
    let again = folder.path().join("again.kfr");
    merged(&[&a, &b, &c], &again);
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&twice).unwrap());
    let told = String::from_utf8(kfr(&["info"], &[&twice]).stdout).unwrap();
    assert_eq!(told.lines().filter(|line| line.starts_with("merged ")).count(), 3, "{told}");
}

#[test]
fn what_was_damaged_or_cut_off_stays_so_when_merged() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (bundle(folder.path(), "a.kfr", 1), bundle(folder.path(), "b.kfr", 2));
    let whole = std::fs::read(&a).unwrap();
    let cut = folder.path().join("cut.kfr");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let holed = folder.path().join("holed.kfr");
    let mut bytes = std::fs::read(&b).unwrap();
    // With the footer gone too: nothing says what was there.
    let at = bytes.len() / 2;
    bytes[at..at + 300].fill(0);
    bytes.truncate(bytes.len() - 40);
    std::fs::write(&holed, bytes).unwrap();
    let together = folder.path().join("together.kfr");
    merged(&[&cut, &holed], &together);
    let (code, lines) = requests(&[&cut, &holed]);
    assert_eq!(code, Some(3));
    assert_eq!(requests(&[&together]), (code, lines));
    assert_same_report(&[&together], &[&cut, &holed]);
    // The merged file itself, cut: what is left of both is read, and that something is missing is told.
    let bytes = std::fs::read(&together).unwrap();
    std::fs::write(folder.path().join("short.kfr"), &bytes[..bytes.len() * 2 / 3]).unwrap();
    let (code, lines) = requests(&[&folder.path().join("short.kfr")]);
    assert_eq!(code, Some(3));
    assert!(lines.lines().count() > 20);
}

#[test]
fn a_recording_is_not_merged_with_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (bundle(folder.path(), "a.kfr", 1), bundle(folder.path(), "b.kfr", 2));
    let ab = folder.path().join("ab.kfr");
    merged(&[&a, &b], &ab);
    for (inputs, output) in
        [(vec![&*a, &*ab], "x.kfr"), (vec![&*a, &*a], "x.kfr"), (vec![&*a], "ab.kfr"), (vec![&*a], "a.kfr")]
    {
        let output = folder.path().join(output);
        let refused = kfr(&["merge", "-o", output.to_str().unwrap()], &inputs);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(
            told.contains("same recording") || told.contains("exists") || told.contains("one of the bundles"),
            "{told}"
        );
    }
    let refused = kfr(&["dump", "--requests"], &[&a, &ab]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!folder.path().join("x.kfr").exists());
}
