//! What the cases share: clients in Python that print their own counts, and the comparison with a recording.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::truth::{self, Bundle, Counts, KFR, assert_equal};

/// Debian's Python, where the client libraries live, whatever else PATH offers first.
const PYTHON: &str = "/usr/bin/python3";

/// Whether this case runs here, see [`truth::live`]; `modules` are Python's.
pub fn live(programs: &[&str], modules: &[&str]) -> bool {
    if !truth::live(programs) {
        return false;
    }
    let lacking = modules.iter().find(|module| {
        let import = format!("import {module}");
        !Command::new(PYTHON).args(["-c", &import]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    let Some(module) = lacking else { return true };
    assert!(std::env::var("KFR_LIVE").as_deref() != Ok("required"), "KFR_LIVE=required, but Python has no {module}");
    println!("skipped: Python has no {module}");
    false
}

/// A script beside this file, to be given arguments.
pub fn script(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live_protocols").join(name);
    python(&path)
}

/// A scripted peer of `scripts/peers`.
pub fn peer(name: &str) -> Command {
    python(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/peers").join(name))
}

fn python(path: &Path) -> Command {
    let mut command = Command::new(PYTHON);
    command.arg("-B").arg(path).stdin(Stdio::null());
    command
}

/// Runs a program to its end; what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

/// Runs a client, whose last line is a JSON object of tables of counts.
pub fn tables(command: &mut Command) -> BTreeMap<String, Counts> {
    let text = run(command);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{command:?}: {error}: {text}"))
}

/// A program of Debian that is in no folder of PATH.
pub fn in_folder(folder: &str, name: &str) -> Option<PathBuf> {
    Some(Path::new(folder).join(name)).filter(|path| path.is_file())
}

/// How a request ended: `ok`, `ok CODE`, its code, `error` without one, `unanswered`, or `unknown`.
pub fn outcome(line: &Value) -> String {
    match (line["status"].as_str(), line["code"].as_str()) {
        (Some("ok"), None) => "ok".to_string(),
        (Some("ok"), Some(code)) => format!("ok {code}"),
        (Some("error"), Some(code)) => code.to_string(),
        (Some(other), _) => other.to_string(),
        (None, _) => "unknown".to_string(),
    }
}

/// Operation and outcome: the name under which clients count.
pub fn name(line: &Value) -> String {
    format!("{} {}", line["op"].as_str().unwrap_or("?"), outcome(line))
}

/// Every request at `port` must be of `protocol`, have its time unless it was never answered, and be among those that
/// the client counted.
pub fn compare(what: &str, protocol: &str, bundle: &Bundle, port: u16, expected: &Counts) {
    compare_as(what, protocol, bundle, port, expected, name);
}

/// The same under names of the case's own.
pub fn compare_as(
    what: &str,
    protocol: &str,
    bundle: &Bundle,
    port: u16,
    expected: &Counts,
    name: impl Fn(&Value) -> String,
) {
    let kfr = bundle.count(port, |line| {
        assert_eq!(line["protocol"], protocol, "{what}: {line}");
        name(line)
    });
    assert_equal(what, expected, &kfr);
    bundle.requests(port, |line| {
        assert!(line["start_ns"].as_u64() > Some(0), "{what}: {line}");
        let open = line["status"] == "unanswered" || line["flags"].as_array().unwrap().iter().any(|f| f == "no_reply");
        assert!(open || line["duration_ns"].is_u64(), "{what}: {line}");
        for flag in ["truncated", "gap", "mid_stream", "order_uncertain", "retransmitted"] {
            assert!(!line["flags"].as_array().unwrap().iter().any(|f| f == flag), "{what}: {line}");
        }
    });
}

/// Connection lines of the server at `port`.
pub fn connections(bundle: &Bundle, port: u16) -> Vec<Value> {
    run(Command::new(KFR).args(["dump", "--connections"]).arg(&bundle.path))
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["server"]["port"].as_u64() == Some(u64::from(port)))
        .collect()
}

/// How many of a table's names begin with `prefix`, all together.
pub fn sum(counts: &Counts, prefix: &str) -> u64 {
    counts.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
}
