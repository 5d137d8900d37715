//! Ways in which a capture ends.

use std::collections::BTreeSet;
use std::fs;

use crate::live::{Bundle, Recording, inode, payloads, wait_for, with_both_hooks};
use crate::sockets::{receive, send, unix_pair};

/// Ids of the programs that a process holds open.
fn programs_of(pid: u32) -> BTreeSet<u32> {
    let folder = format!("/proc/{pid}/fdinfo");
    let files = fs::read_dir(folder).unwrap().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())).collect()
}

/// True if the kernel still has a program with this id.
fn program_exists(id: u32) -> bool {
    const BPF_PROG_GET_FD_BY_ID: i32 = 13;
    // start_id or prog_id, next_id, open_flags, and the rest of the union.
    let mut attributes = [0u32; 32];
    attributes[0] = id;
    // SAFETY: the attribute block is as long as said; a descriptor that comes back is closed.
    unsafe {
        let file = libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, attributes.as_ptr(), size_of_val(&attributes));
        if file >= 0 {
            libc::close(file as i32);
        }
        file >= 0
    }
}

#[test]
fn a_killed_recorder_leaves_no_probe_and_a_readable_file() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let programs = programs_of(recording.child.id());
        assert!(programs.len() >= 8 && programs.iter().all(|id| program_exists(*id)), "{hook}: {programs:?}");
        let (one, other) = unix_pair(libc::SOCK_STREAM);
        send(&one, b"before the kill", 0);
        receive(&other, 64, 0);
        let number = inode(&one);
        // A block is sealed within a second, whatever comes.
        let partial = recording.partial();
        let began = std::time::Instant::now();
        let written = || {
            let sent = Bundle::at(partial.clone()).events().sent(number);
            (!sent.is_empty()).then_some(sent)
        };
        let sent = wait_for("the block on disk", written);
        assert!(began.elapsed().as_secs_f64() < 3.0, "{hook}: sealed after {:?}", began.elapsed());
        assert_eq!(payloads(&sent), [b"before the kill"]);
        let bundle = recording.stop_with(libc::SIGKILL);
        wait_for("the probes to go", || programs.iter().all(|id| !program_exists(*id)).then_some(()));

        assert_eq!(bundle.path, partial, "an unfinished file keeps its name");
        assert_eq!(payloads(&bundle.events().sent(number)), [b"before the kill"], "{hook}");
        let verified = bundle.kfr(&["verify"]);
        assert!(matches!(verified.status.code(), Some(0 | 3)), "{verified:?}");
        let info = bundle.kfr(&["info"]);
        let text = String::from_utf8_lossy(&info.stdout).into_owned();
        assert!(text.contains("being cut off"), "{text}");
    });
}

#[test]
fn a_signal_ends_a_capture_with_a_whole_bundle() {
    with_both_hooks(|hook| {
        for (signal, name) in [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM"), (libc::SIGHUP, "SIGHUP")] {
            let recording = Recording::own(hook);
            let programs = programs_of(recording.child.id());
            let (one, other) = unix_pair(libc::SOCK_STREAM);
            send(&one, b"the last words", 0);
            receive(&other, 64, 0);
            let number = inode(&one);
            // At once: what is in the ring and in no block yet must not be lost.
            let bundle = recording.stop_with(signal);
            assert_eq!(bundle.exit_code, Some(0), "{hook} {name}: {}", bundle.said);
            wait_for("the probes to go", || programs.iter().all(|id| !program_exists(*id)).then_some(()));
            assert!(bundle.path.extension().is_some_and(|extension| extension == "kfr"), "{hook} {name}");
            let verified = bundle.kfr(&["verify"]);
            assert_eq!(verified.status.code(), Some(0), "{hook} {name}: {verified:?}");
            assert_eq!(payloads(&bundle.events().sent(number)), [b"the last words"], "{hook} {name}");
            let ledger = bundle.ledger();
            assert_eq!((ledger["events_lost"], ledger["rows_not_written"]), (0, 0), "{hook} {name}");
        }
    });
}
