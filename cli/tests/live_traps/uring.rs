//! `io_uring`: its completions run on top of whatever its thread is doing.

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::{IoUring, opcode, types};

use crate::live::{Recording, inode, ok, payloads, reasons, wait_for, with_both_hooks};
use crate::sockets::{receive, send, tcp};

const PRIVATE: &[u8] = b"a-private-byte-of-the-pipe/0123456789";

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0i32; 2];
    // SAFETY: room for two descriptors, owned by nobody else afterwards.
    unsafe {
        ok(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC));
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

/// `kind` of the state in /proc, as `S` for sleeping.
fn task_state(thread: i32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    text.rsplit(')').next()?.trim().chars().next()
}

#[test]
fn a_completion_beside_a_private_read_records_no_private_byte() {
    with_both_hooks(|hook| {
        let ring = match IoUring::new(8) {
            Ok(ring) => ring,
            Err(error) => {
                println!("skipped: no io_uring here: {error}");
                return;
            }
        };
        let recording = Recording::own(hook);
        let (mut near, far) = UnixStream::pair().unwrap();
        let (read_end, write_end) = pipe();
        let (mut in_ring, submitted) = (vec![0u8; 64], AtomicBool::new(false));
        let thread = std::sync::atomic::AtomicI32::new(0);
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                // SAFETY: asks for the thread's number.
                thread.store(unsafe { libc::gettid() }, Ordering::SeqCst);
                let receive = opcode::Recv::new(types::Fd(far.as_raw_fd()), in_ring.as_mut_ptr(), 64).build();
                // SAFETY: the buffer outlives the ring's use of it: the completion is waited for below.
                unsafe { ring.submission_shared().push(&receive).unwrap() };
                ring.submit().unwrap();
                submitted.store(true, Ordering::SeqCst);
                // What the call's registers point at holds private bytes before the read and after it.
                let mut buffer = PRIVATE.to_vec();
                // SAFETY: the buffer is as long as said.
                let moved = unsafe { libc::read(read_end.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
                (moved, buffer)
            });
            wait_for("the thread to sleep in its read", || {
                (submitted.load(Ordering::SeqCst) && task_state(thread.load(Ordering::SeqCst)) == Some('S'))
                    .then_some(())
            });
            near.write_all(b"for the ring").unwrap();
            // SAFETY: nobody else looks at the completion queue.
            let result = wait_for("the completion", || unsafe { ring.completion_shared() }.next()).result();
            assert_eq!(result, 12);
            // SAFETY: the buffer is as long as said.
            ok(unsafe { libc::write(write_end.as_raw_fd(), PRIVATE.as_ptr().cast(), PRIVATE.len()) } as i64);
            reader.join().unwrap()
        });
        assert_eq!((read.0 as usize, read.1.as_slice()), (PRIVATE.len(), PRIVATE));
        assert_eq!(&in_ring[..12], b"for the ring");
        let (near, far) = (inode(&near), inode(&far));

        let bundle = recording.stop();
        assert!(!bundle.holds(b"a-private-b"), "{hook}: bytes of a pipe were recorded as a socket's");
        let events = bundle.events();
        assert_eq!(payloads(&events.sent(near)), [b"for the ring"]);
        let received = events.received(far);
        if hook == "sock" {
            assert_eq!((received[0].length, received.len()), (12, 1));
            assert_eq!(reasons(&received), [Some("not_this_call")]);
            assert!(received[0].payload.is_empty());
        } else {
            assert!(received.is_empty(), "no system call of its own moved these bytes: {received:?}");
        }
    });
}

#[test]
fn what_a_ring_moves_on_tcp_is_a_length_or_a_gap() {
    with_both_hooks(|hook| {
        let mut ring = match IoUring::new(8) {
            Ok(ring) => ring,
            Err(error) => {
                println!("skipped: no io_uring here: {error}");
                return;
            }
        };
        let recording = Recording::own(hook);
        let (client, server) = tcp();
        send(&client, b"one", 0);
        assert_eq!(receive(&server, 64, 0), b"one");
        let in_ring = b"sent by the ring";
        let entry = opcode::Send::new(types::Fd(client.as_raw_fd()), in_ring.as_ptr(), in_ring.len() as u32).build();
        // SAFETY: the buffer is static.
        unsafe { ring.submission().push(&entry).unwrap() };
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().unwrap().result(), 16);
        assert_eq!(receive(&server, 64, 0), in_ring);
        send(&client, b"three", 0);
        assert_eq!(receive(&server, 64, 0), b"three");
        let (client, server) = (inode(&client), inode(&server));

        let events = recording.stop().events();
        let (sent, received) = (events.sent(client), events.received(server));
        // The receiver keeps what the sender could not.
        assert_eq!(received[1].payload, in_ring, "{hook}: {received:?}");
        assert_eq!(received.iter().map(|call| call.length).collect::<Vec<_>>(), [3, 16, 5]);
        if hook == "sock" {
            assert_eq!(reasons(&sent), [None, Some("not_this_call"), None]);
            assert_eq!(sent[1].length, 16);
        } else {
            assert_eq!(sent.iter().map(|call| call.length).collect::<Vec<_>>(), [3, 5]);
            assert_eq!(
                sent[1].offset as u32,
                (sent[0].offset as u32).wrapping_add(3 + 16),
                "a gap of the ring's bytes"
            );
        }
    });
}
