//! Bad circumstances for a recorder: not permitted, no room, nothing to record, a pipe as output. Whatever happens, what
//! was recorded is a whole bundle and the exit code says the rest.

mod truth;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use truth::{Capture, KFR, find_program, folder, live, signal, wait_for};

fn kfr(arguments: &[&str]) -> Output {
    Command::new(KFR).args(arguments).output().unwrap()
}

/// The error's one line; `output` must have this exit code.
fn one_line(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(text.starts_with("kfr: "), "{text}");
    text
}

fn is_whole(bundle: &Path) {
    let output = kfr(&["verify", bundle.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("whole"), "{text}");
}

#[test]
fn without_privileges_capture_says_so_and_analysis_works() {
    if !live(&["setpriv"]) {
        return;
    }
    let folder = folder();
    // Where anybody may run it.
    let program = folder.path().join("kfr");
    std::fs::copy(KFR, &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let theirs = folder.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new(find_program("setpriv").unwrap());
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program).args(arguments);
        command.current_dir(&theirs).output().unwrap()
    };
    let error = one_line(&nobody(&["capture", "-o", "x.kfr", "--duration", "1s"]), 5);
    assert!(error.contains("root"), "what to do is missing: {error}");
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 0, "a file was left behind");
    let output = nobody(&["preflight"]);
    assert_eq!(output.status.code(), Some(5));

    let bundle = Capture::start(folder.path(), "x", &[]).stop();
    let readable = theirs.join("copy.kfr");
    std::fs::copy(&bundle.path, &readable).unwrap();
    std::os::unix::fs::chown(&readable, Some(65534), Some(65534)).unwrap();
    let output = nobody(&["-q", "analyze", "-o", "report", "copy.kfr"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Bundles are for their owner only.
    let error = one_line(&nobody(&["dump", "--requests", bundle.path.to_str().unwrap()]), 4);
    assert!(error.contains("x.kfr"), "{error}");
}

#[test]
fn output_that_cannot_be_written_is_refused_before_recording() {
    if !live(&[]) {
        return;
    }
    let folder = folder();
    let file = folder.path().join("file.kfr");
    std::fs::write(&file, "precious").unwrap();
    let within = file.join("x.kfr");
    for output in ["/nowhere/at/all/x.kfr", "/proc/x.kfr", within.to_str().unwrap()] {
        let error = one_line(&kfr(&["capture", "--duration", "1s", "-o", output]), 2);
        assert!(error.contains(output), "{error}");
    }
    let path = file.to_str().unwrap();
    let error = one_line(&kfr(&["capture", "--duration", "300ms", "-o", path]), 2);
    assert!(error.contains(path) && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");

    let output = kfr(&["-q", "capture", "--duration", "300ms", "--force", "-o", path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    is_whole(&file);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!folder.path().join("file.kfr.partial").exists());
}

#[test]
fn options_that_cannot_be_are_refused() {
    if !live(&[]) {
        return;
    }
    for wrong in [
        &["--payload-limit", "1MiB"][..],
        &["--buffer-size", "3MiB"],
        &["--buffer-size", "1KiB"],
        &["--duration", "0s"],
        &["--duration", "5"],
        &["--socket-hook", "kprobe"],
        &["--pid", "none"],
        &["--cgroup", "/no/such/cgroup"],
        &["--pid", "4194303"],
        &["--port", "0"],
        &["--max-size", "1"],
        &["--max-memory", "1KiB"],
    ] {
        let folder = folder();
        let bundle = folder.path().join("x.kfr");
        let output = kfr(&[&["capture", "--duration", "1s", "-o", bundle.to_str().unwrap()], wrong].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{wrong:?}");
    }
    let output = kfr(&["capture", "-o", "x.kfr", "--max-size", "1023KiB"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("1MiB"), "{output:?}");
    let output = kfr(&["capture", "-o", "/tmp/x.kfr", "--buffer-size", "1GiB", "--max-memory", "64MiB"]);
    let error = one_line(&output, 2);
    for word in ["--max-memory 64MiB", "--buffer-size 1GiB", "1088MiB"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn what_is_no_file_for_a_bundle_is_refused_before_recording() {
    if !live(&[]) {
        return;
    }
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::create_dir(at("folder.kfr")).unwrap();
    std::fs::write(at("other"), "other").unwrap();
    std::os::unix::fs::symlink(at("other"), at("link.kfr")).unwrap();
    for (target, why) in [
        (at("folder.kfr"), "folder"),
        (at("link.kfr"), "symbolic link"),
        ("/dev/null".to_string(), "- for standard output"),
        ("/dev/full".to_string(), "- for standard output"),
    ] {
        let error = one_line(&kfr(&["capture", "--force", "-o", &target]), 2);
        assert!(error.contains(&target) && error.contains(why), "{error}");
        assert!(!std::fs::symlink_metadata(&target).unwrap().is_file());
    }
    assert_eq!(std::fs::read(at("other")).unwrap(), b"other");
}

#[test]
fn a_bundle_that_cannot_get_its_name_is_said_to_be_where_it_is() {
    if !live(&[]) {
        return;
    }
    let folder = folder();
    let bundle = folder.path().join("x.kfr");
    let mut child =
        Command::new(KFR).args(["-q", "capture", "-o"]).arg(&bundle).stderr(Stdio::piped()).spawn().unwrap();
    let partial = folder.path().join("x.kfr.partial");
    wait_for("the recording to begin", || partial.exists().then_some(()));
    std::fs::create_dir(&bundle).unwrap();
    signal(child.id(), libc::SIGINT);
    let status = child.wait().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains(partial.to_str().unwrap()), "{text}");
    is_whole(&partial);
}

#[test]
fn a_full_disk_behind_standard_output_is_said() {
    if !live(&[]) {
        return;
    }
    for arguments in [&["capture", "--duration", "1s", "-o", "-"][..], &["preflight"], &["preflight", "--json"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(KFR).args(arguments).stdout(full).output().unwrap();
        let error = one_line(&output, 2);
        assert!(error.contains("standard output can't be written"), "{arguments:?}: {error}");
    }
}

/// Bytes over loopback that don't compress, until told to stop.
fn noise(stop: &AtomicBool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut bytes = vec![0u8; 4096];
            let mut seed = 1u64;
            while !stop.load(Ordering::Relaxed) {
                for word in bytes.chunks_mut(8) {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    word.copy_from_slice(&(seed ^ (seed >> 29)).to_le_bytes()[..word.len()]);
                }
                stream.write_all(&bytes).unwrap();
                // An answer, so that the connection is no bulk transfer.
                stream.read_exact(&mut bytes[..1]).unwrap();
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0u8; 4096];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes[..1]).unwrap();
        }
    });
}

/// A small file system of its own.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).status();
        status.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_capture_with_a_whole_bundle() {
    if !live(&["mount", "umount"]) {
        return;
    }
    let folder = folder();
    let small = folder.path().join("small");
    let Some(_mounted) = Mount::new(&small, "3m") else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let stop = AtomicBool::new(false);
    let bundle = small.join("x.kfr");
    let output = thread::scope(|scope| {
        scope.spawn(|| noise(&stop));
        let output = kfr(&["capture", "--duration", "30s", "-o", bundle.to_str().unwrap()]);
        stop.store(true, Ordering::Relaxed);
        output
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("kfr: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("no space left"), "{text}");
    is_whole(&bundle);
    let dumped = kfr(&["dump", "--connections", bundle.to_str().unwrap()]);
    assert!(!dumped.stdout.is_empty());
}

#[test]
fn a_size_limit_ends_the_capture_with_a_whole_bundle() {
    if !live(&[]) {
        return;
    }
    let folder = folder();
    for mebibytes in [1, 2, 5] {
        let bundle = folder.path().join(format!("{mebibytes}.kfr"));
        let limit = format!("{mebibytes}MiB");
        let stop = AtomicBool::new(false);
        let output = thread::scope(|scope| {
            scope.spawn(|| noise(&stop));
            let path = bundle.to_str().unwrap();
            let output = kfr(&["capture", "--duration", "60s", "--max-size", &limit, "-o", path]);
            stop.store(true, Ordering::Relaxed);
            output
        });
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("--max-size"), "{text}");
        is_whole(&bundle);
        let bytes = std::fs::metadata(&bundle).unwrap().len();
        let limit = mebibytes << 20;
        assert!(bytes <= limit && bytes > limit / 2, "{bytes} bytes of {limit}");
        // It says itself why it ended.
        let informed = kfr(&["info", bundle.to_str().unwrap()]);
        assert!(String::from_utf8_lossy(&informed.stdout).contains("ended by   max-size"), "{informed:?}");
    }
}

#[test]
fn an_empty_capture_is_analysed_and_says_so() {
    if !live(&["sleep"]) {
        return;
    }
    let folder = folder();
    let mut idle = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = idle.id().to_string();
    let bundle = folder.path().join("empty.kfr");
    let path = bundle.to_str().unwrap();
    let output = kfr(&["capture", "--pid", &pid, "--duration", "500ms", "-o", path]);
    idle.kill().unwrap();
    idle.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    is_whole(&bundle);
    for what in ["--requests", "--connections", "--sql"] {
        let output = kfr(&["dump", what, path]);
        assert!(output.status.success() && output.stdout.is_empty(), "{what}: {output:?}");
    }
    let report = folder.path().join("report");
    let output = kfr(&["analyze", "-o", report.to_str().unwrap(), path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = std::fs::read_to_string(report.join("summary.md")).unwrap();
    assert!(summary.contains("0 events") && summary.contains("None seen"), "{summary}");
}

#[test]
fn a_bundle_goes_through_a_pipe() {
    if !live(&[]) {
        return;
    }
    let folder = folder();
    let output = kfr(&["-q", "capture", "--duration", "500ms", "-o", "-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bundle = folder.path().join("piped.kfr");
    std::fs::write(&bundle, &output.stdout).unwrap();
    is_whole(&bundle);

    // A reader that goes away ends the capture.
    let mut child = Command::new(KFR)
        .args(["-q", "capture", "--duration", "30s", "-o", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 4];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let status = wait_for("the capture to notice that nobody reads", || child.try_wait().unwrap());
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(status.success() && text.is_empty(), "{status}: {text}");
}

#[test]
fn a_killed_capture_leaves_a_bundle() {
    if !live(&[]) {
        return;
    }
    let folder = folder();
    let stop = AtomicBool::new(false);
    let bundle = folder.path().join("killed.kfr");
    thread::scope(|scope| {
        scope.spawn(|| noise(&stop));
        let mut child = Command::new(KFR).args(["-q", "capture", "-o"]).arg(&bundle).spawn().unwrap();
        let partial = folder.path().join("killed.kfr.partial");
        wait_for("some blocks", || std::fs::metadata(&partial).ok().filter(|file| file.len() > 1 << 20));
        signal(child.id(), libc::SIGKILL);
        child.wait().unwrap();
        stop.store(true, Ordering::Relaxed);
        let output = kfr(&["dump", "--connections", partial.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && !output.stdout.is_empty(), "{text}");
        let output = kfr(&["verify", partial.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(3) && text.contains("cut off, nothing damaged"), "{text}");
    });
}
