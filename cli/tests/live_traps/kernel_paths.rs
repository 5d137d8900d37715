//! Bytes that no user buffer holds: sendfile and splice.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::live::{Recording, inode, is_contiguous, lengths, ok, reasons, with_both_hooks};
use crate::sockets::{receive, send, tcp};

#[test]
fn sendfile_and_splice_give_lengths_or_a_gap() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789 of a file").unwrap();
        let (client, server) = tcp();
        let mut ends = [0i32; 2];
        // SAFETY: room for two descriptors, owned at once.
        let (read_end, write_end) = unsafe {
            ok(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC));
            (File::from(OwnedFd::from_raw_fd(ends[0])), File::from(OwnedFd::from_raw_fd(ends[1])))
        };
        send(&client, b"before", 0);
        assert_eq!(receive(&server, 64, 0), b"before");
        let mut from = 0;
        // SAFETY: plain descriptors.
        assert_eq!(ok(unsafe { libc::sendfile(client.as_raw_fd(), file.as_raw_fd(), &raw mut from, 20) } as i64), 20);
        assert_eq!(receive(&server, 64, 0), b"0123456789 of a file");
        (&write_end).write_all(b"from a pipe").unwrap();
        let splice = |from: i32, to: i32, length: usize| {
            // SAFETY: plain descriptors.
            ok(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), length, 0) } as i64)
        };
        assert_eq!(splice(read_end.as_raw_fd(), client.as_raw_fd(), 11), 11);
        assert_eq!(receive(&server, 64, 0), b"from a pipe");
        send(&client, b"after", 0);
        assert_eq!(receive(&server, 64, 0), b"after");
        // Into a pipe: no tracepoint of a receive fires.
        send(&server, b"for the pipe", 0);
        assert_eq!(splice(client.as_raw_fd(), write_end.as_raw_fd(), 64), 12);
        send(&server, b"the end", 0);
        assert_eq!(receive(&client, 64, 0), b"the end");
        send(&server, b"really", 0);
        assert_eq!(receive(&client, 64, 0), b"really");
        let (client, server) = (inode(&client), inode(&server));

        let events = recording.stop().events();
        let sent = events.sent(client);
        assert_eq!(lengths(&sent), [6, 20, 11, 5], "{hook}: {sent:?}");
        assert_eq!(reasons(&sent), [None, Some("no_buffer"), Some("no_buffer"), None], "{hook}");
        assert!(is_contiguous(&sent) && sent[1].payload.is_empty() && sent[2].payload.is_empty(), "{hook}");
        assert_eq!(lengths(&events.received(server)), [6, 20, 11, 5], "{hook}");
        let received = events.received(client);
        assert_eq!(lengths(&received), [7, 6], "{hook}");
        // 12 bytes before the first: the connection's start is known.
        let first_sent = events.sent(server)[0].offset as u32;
        assert_eq!(received[0].offset as u32, first_sent.wrapping_add(12), "{hook}: what was spliced shows as a gap");
        assert!(is_contiguous(&received));
    });
}
