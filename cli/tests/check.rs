//! `kfr check`: the stored recordings are read as they were blessed, and what differs is told.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn check(folder: &Path, more: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_kfr")).arg("check").arg(folder).args(more).output().expect("kfr runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// A folder with a recording of a Redis and its golden requests.
fn recording() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/redis");
    fs::create_dir(folder.path().join("redis")).expect("a folder");
    for name in ["commands.pcap", "commands.requests.jsonl"] {
        fs::copy(stored.join(name), folder.path().join("redis").join(name)).expect("a copy");
    }
    folder
}

#[test]
fn stored_recordings_are_read_as_blessed() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    let (code, out, err) = check(&testdata, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains(" 0 different, 0 without golden, 0 unreadable"), "{out}");
}

#[test]
fn a_difference_names_request_field_and_event() {
    let folder = recording();
    let golden = folder.path().join("redis/commands.requests.jsonl");
    let lines = fs::read_to_string(&golden).expect("golden requests");
    let mut lines: Vec<String> = lines.lines().map(str::to_string).collect();
    let at = lines.iter().position(|line| line.contains("\"HSET\"")).expect("an HSET");
    lines[at] = lines[at].replace("\"status\":\"ok\"", "\"status\":\"error\"");
    let removed = lines.iter().position(|line| line.contains("\"LRANGE\"")).expect("an LRANGE");
    lines.remove(removed);
    fs::write(&golden, lines.join("\n")).expect("written");
    let (code, out, err) = check(folder.path(), &[]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("redis/commands.pcap: 2 of "), "{out}");
    assert!(out.contains("  ~ redis HSET h ("), "{out}");
    assert!(out.contains("status: \"error\" is now \"ok\""), "{out}");
    assert!(out.contains("  + redis LRANGE list ("), "{out}");
    assert!(out.contains("bytes sent") && !out.contains("bytes sent: "), "values are masked: {out}");
    assert!(err.contains("--bless"), "{err}");
    let (_, out, _) = check(folder.path(), &["--literals"]);
    assert!(out.contains("bytes sent: *4"), "{out}");

    let (code, out, _) = check(folder.path(), &["--bless"]);
    assert_eq!(code, 0, "{out}");
    let (code, out, _) = check(folder.path(), &[]);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn what_can_not_be_checked_is_told() {
    let folder = recording();
    fs::remove_file(folder.path().join("redis/commands.requests.jsonl")).expect("removed");
    let (code, out, _) = check(folder.path(), &[]);
    assert!(code == 1 && out.contains("no golden file yet"), "{out}");
    fs::write(folder.path().join("rubbish.pcap"), "rubbish").expect("written");
    let (code, out, _) = check(folder.path(), &["--bless"]);
    assert!(code == 1 && out.contains("rubbish.pcap") && out.contains("1 unreadable"), "{out}");
    let empty = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(check(empty.path(), &[]).0, 4);
    assert_eq!(check(&empty.path().join("absent"), &[]).0, 4);
    assert_eq!(check(folder.path(), &["--threads", "0"]).0, 2);
    assert_eq!(check(&folder.path().join("rubbish.pcap"), &[]).0, 2);
}

#[test]
fn golden_files_are_written_for_their_owner_and_nowhere_else() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let folder = recording();
    let golden = folder.path().join("redis/commands.requests.jsonl");
    fs::remove_file(&golden).expect("removed");
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").expect("written");
    symlink(&victim, &golden).expect("a link");
    let (code, out, _) = check(folder.path(), &["--bless"]);
    assert!(code == 1 && out.contains("no regular file"), "{out}");
    assert_eq!(fs::read_to_string(&victim).expect("still there"), "precious");
    fs::remove_file(&golden).expect("removed");
    assert_eq!(check(folder.path(), &["--bless"]).0, 0);
    assert_eq!(fs::metadata(&golden).expect("there").mode() & 0o777, 0o600);
    fs::rename(folder.path().join("redis/commands.pcap"), folder.path().join("other.pcap")).expect("renamed");
    let (code, out, _) = check(folder.path(), &[]);
    assert!(code == 1 && out.contains("redis/commands.requests.jsonl: its capture is not there"), "{out}");
}

#[test]
fn a_capture_that_is_cut_off_is_told() {
    let folder = recording();
    let capture = folder.path().join("redis/commands.pcap");
    let bytes = fs::read(&capture).expect("the capture");
    fs::write(&capture, &bytes[..bytes.len() - 7]).expect("written");
    let (_, out, _) = check(folder.path(), &["--bless"]);
    assert!(out.contains("the capture is truncated"), "{out}");
    let (code, out, _) = check(folder.path(), &["-q"]);
    assert!(code == 0 && !out.contains("protocol "), "{out}");
}

#[test]
fn a_port_hint_leaves_detection_out() {
    let folder = recording();
    let (code, out, _) = check(folder.path(), &["--port-hint", "7391=mysql"]);
    assert!(code == 1 && out.contains("63 of 0 requests differ"), "what is no MySQL has no requests: {out}");
    let (code, out, _) = check(folder.path(), &["--port-hint", "7391=redis"]);
    assert_eq!(code, 0, "{out}");
    let (code, _, err) = check(folder.path(), &["--port-hint", "7391=gopher"]);
    assert!(code == 2 && err.contains("the protocols are ") && err.contains("postgresql"), "{err}");
}
