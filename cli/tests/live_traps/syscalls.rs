//! Tasks of another register layout.

use std::process::{Command, Stdio};

use crate::live::{Recording, inode, lengths, reasons, with_both_hooks};
use crate::sockets::{receive, send, unix_pair};

/// write, read and (by the one call that i386 had for all socket calls) send, without any library.
const PROGRAM: &str = r#"
static int call(int number, int a, int b, int c)
{
	int result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}
void _start(void)
{
	char buffer[64];
	call(4, 1, (int)"thirty-two bits", 15);
	call(3, 0, (int)buffer, 64);
	unsigned arguments[4] = {1, (unsigned)"by socketcall", 13, 0};
	call(102, 9, (int)arguments, 0);
	call(1, 0, 0, 0);
}
"#;

#[test]
fn a_32_bit_task_gives_lengths_only() {
    with_both_hooks(|hook| {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("task.c"), folder.path().join("task"));
        std::fs::write(&source, PROGRAM).unwrap();
        let flags = ["-m32", "-O1", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-fno-stack-protector", "-o"];
        let built = Command::new("gcc").args(flags).arg(&program).arg(&source).stderr(Stdio::null()).status();
        if !built.is_ok_and(|status| status.success()) {
            println!("skipped: no 32-bit program can be built here");
            return;
        }
        let recording = Recording::own(hook);
        let (near, far) = unix_pair(libc::SOCK_STREAM);
        let number = inode(&far);
        let other = inode(&near);
        let child = Command::new(&program).stdin(far.try_clone().unwrap()).stdout(far).spawn();
        let Ok(mut child) = child else {
            println!("skipped: this kernel runs no 32-bit program");
            return;
        };
        assert_eq!(receive(&near, 15, libc::MSG_WAITALL), b"thirty-two bits");
        send(&near, b"for a small task", 0);
        assert_eq!(receive(&near, 64, 0), b"by socketcall");
        assert!(child.wait().unwrap().success());

        let events = recording.stop().events();
        let (sent, received) = (events.sent(number), events.received(number));
        assert_eq!((lengths(&sent), lengths(&received)), (vec![15, 13], vec![16]), "{hook}");
        assert!(reasons(&sent).iter().chain(&reasons(&received)).all(|reason| *reason == Some("compat")), "{hook}");
        assert!(sent.iter().chain(&received).all(|call| call.payload.is_empty()));
        // The 64-bit end keeps what it received.
        assert_eq!(events.received(other).iter().map(|call| call.payload.len()).sum::<usize>(), 28, "{hook}");
    });
}
