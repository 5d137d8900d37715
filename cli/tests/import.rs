//! `kfr import` as a command: exit codes, files, what the other commands make of its bundles.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A pcap of one request and its answer: raw IPv4, handshake, `GET`, `200`.
fn capture() -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, 101] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    let ask = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".as_slice();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".as_slice();
    let packets: [(bool, u8, u32, u32, &[u8]); 5] = [
        (true, 2, 99, 0, b""),
        (false, 18, 499, 100, b""),
        (true, 16, 100, 500, b""),
        (true, 24, 100, 500, ask),
        (false, 24, 500, 100 + ask.len() as u32, answer),
    ];
    for (number, (up, flags, sequence, acknowledged, payload)) in packets.into_iter().enumerate() {
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&(40 + payload.len() as u16).to_be_bytes());
        packet.extend_from_slice(&[0, number as u8 + 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, if up { 1 } else { 2 }]);
        packet.extend_from_slice(&[10, 0, 0, if up { 2 } else { 1 }]);
        let ports: [u16; 2] = if up { [40000, 80] } else { [80, 40000] };
        ports.iter().for_each(|port| packet.extend_from_slice(&port.to_be_bytes()));
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&acknowledged.to_be_bytes());
        packet.extend_from_slice(&[0x50, flags, 255, 255, 0, 0, 0, 0]);
        packet.extend_from_slice(payload);
        let length = packet.len() as u32;
        for field in [1_700_000_000, 1000 * (number as u32 + 1), length, length] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(&packet);
    }
    file
}

fn kfr(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kfr")).args(arguments).current_dir(folder).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_capture_becomes_a_bundle_that_every_command_reads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("x.pcap"), capture()).unwrap();
    let output = kfr(&["import", "x.pcap", "-o", "x.kfr"], folder);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("1 TCP connections"), "{}", text(&output.stderr));
    assert!(!folder.join("x.kfr.partial").exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(folder.join("x.kfr")).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(code(&kfr(&["verify", "x.kfr"], folder)), 0);
    let info = kfr(&["info", "x.kfr"], folder);
    assert!(code(&info) == 0 && text(&info.stdout).contains("from x.pcap"), "{}", text(&info.stdout));
    let info = kfr(&["info", "--json", "x.kfr"], folder);
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!((&info["ledger"]["packets"], &info["manifest"]["socket_hook"]), (&5.into(), &"packets".into()));
    let requests = kfr(&["dump", "--requests", "x.kfr"], folder);
    let request: serde_json::Value = serde_json::from_slice(&requests.stdout).unwrap();
    assert_eq!(
        (&request["op"], &request["code"], &request["server"]["port"]),
        (&"GET".into(), &"200".into(), &80.into())
    );
    assert_eq!(request["start_ns"], 1_700_000_000_004_000_000u64);
    assert_eq!((&request["duration_ns"], &request["flags"]), (&1_000_000.into(), &serde_json::json!([])));
    let connections = kfr(&["dump", "--connections", "x.kfr"], folder);
    let connection: serde_json::Value = serde_json::from_slice(&connections.stdout).unwrap();
    assert_eq!((&connection["connect_us"], &connection["client"]["port"]), (&2000.into(), &40000.into()));
    assert_eq!(code(&kfr(&["analyze", "x.kfr", "-o", "report"], folder)), 0);
    let report = std::fs::read_to_string(folder.join("report/report.json")).unwrap();
    assert!(report.contains("10.0.0.2:80"));
}

#[test]
fn exit_codes_and_targets() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = capture();
    std::fs::write(folder.join("x.pcap"), &whole).unwrap();
    std::fs::write(folder.join("cut.pcap"), &whole[..whole.len() - 7]).unwrap();
    std::fs::write(folder.join("no.pcap"), b"no capture at all, this is").unwrap();
    assert_eq!(code(&kfr(&["import", "cut.pcap", "-o", "cut.kfr"], folder)), 3);
    assert_eq!(code(&kfr(&["verify", "cut.kfr"], folder)), 0);
    for name in ["no.pcap", "absent.pcap", "."] {
        let output = kfr(&["import", name, "-o", "no.kfr"], folder);
        assert_eq!(code(&output), 4, "{name}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
        assert!(!folder.join("no.kfr").exists() && !folder.join("no.kfr.partial").exists());
    }
    // Nothing is overwritten unless asked, and never the capture itself.
    assert_eq!(code(&kfr(&["import", "x.pcap", "-o", "cut.kfr"], folder)), 2);
    assert_eq!(code(&kfr(&["import", "x.pcap", "-o", "cut.kfr", "--force"], folder)), 0);
    assert_eq!(code(&kfr(&["import", "x.pcap", "-o", "x.pcap", "--force"], folder)), 2);
    assert_eq!(std::fs::read(folder.join("x.pcap")).unwrap(), whole);
}

#[test]
fn standard_input_and_output_give_the_same_content() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kfr"))
        .args(["import", "-", "-o", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&capture()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    std::fs::write(folder.join("piped.kfr"), &output.stdout).unwrap();
    std::fs::write(folder.join("x.pcap"), capture()).unwrap();
    kfr(&["import", "x.pcap", "-o", "x.kfr"], folder);
    let requests = |name: &str| text(&kfr(&["dump", "--requests", name], folder).stdout);
    assert!(!requests("x.kfr").is_empty());
    assert_eq!(requests("piped.kfr"), requests("x.kfr"));
}
