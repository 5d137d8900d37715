//! exec, fork and exit of processes that live for a moment.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::live::{Recording, with_both_hooks};

#[test]
fn short_processes_leave_their_command_line_and_status() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let mut child = Command::new("/bin/sh").args(["-c", "exit 7", "a name", "an argument"]).spawn().unwrap();
        let exited = child.id();
        assert_eq!(child.wait().unwrap().code(), Some(7));
        let mut child = Command::new("/bin/sh").args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
        let killed = child.id();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        // A command line longer than the event's room.
        let long = "x".repeat(2000);
        let mut child = Command::new("/bin/sh").args(["-c", "exit 0", &long]).spawn().unwrap();
        let wordy = child.id();
        child.wait().unwrap();

        let events = recording.stop().events();
        let one = |kind: &str, pid: u32| {
            let found: Vec<_> = events.of_kind(kind).filter(|event| event["process"] == pid).cloned().collect();
            assert_eq!(found.len(), 1, "{hook}: {kind} of {pid}: {found:?}");
            found.into_iter().next().unwrap()
        };
        for pid in [exited, killed, wordy] {
            assert_eq!(one("fork", pid)["parent"], std::process::id(), "{hook}");
        }
        let exec = one("exec", exited);
        let arguments: Vec<_> =
            exec["arguments"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
        assert_eq!(arguments, ["/bin/sh", "-c", "exit 7", "a name", "an argument"], "{hook}");
        assert_eq!(exec["comm"], "sh");
        assert_eq!(exec["start_ns"], one("exit", exited)["start_ns"], "{hook}: pid and start time name a process");
        assert_eq!(one("exit", exited)["exit_status"], 7 << 8, "{hook}");
        assert_eq!(one("exit", killed)["exit_status"], libc::SIGKILL, "{hook}");
        assert_eq!(one("exit", wordy)["exit_status"], 0, "{hook}");
        let wordy = one("exec", wordy)["arguments"].as_array().unwrap().clone();
        let used: usize = wordy.iter().map(|part| part.as_str().unwrap().len() + 1).sum();
        assert!(wordy.len() == 4 && (250..=257).contains(&used), "{hook}: cut at the event's room: {used}");
    });
}
