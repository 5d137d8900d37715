//! sendmmsg and recvmmsg, whose tracepoint fires once a message with the same registers; messages of many segments.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use crate::live::{Moved, Recording, inode, is_contiguous, lengths, ok, payloads, reasons, with_both_hooks};
use crate::sockets::{receive, send, tcp, udp, unix_pair};

/// A vector of messages at one place in memory, whose contents may change between two identical calls.
struct Vector {
    buffers: Vec<Vec<Vec<u8>>>,
    _segments: Vec<Vec<libc::iovec>>,
    headers: Vec<libc::mmsghdr>,
}

impl Vector {
    fn new(mut buffers: Vec<Vec<Vec<u8>>>) -> Self {
        let mut segments: Vec<Vec<libc::iovec>> = buffers
            .iter_mut()
            .map(|message| {
                let each = message.iter_mut();
                each.map(|bytes| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }).collect()
            })
            .collect();
        let headers = segments
            .iter_mut()
            .map(|segments| {
                // SAFETY: all zeroes is a message without anything.
                let mut header: libc::mmsghdr = unsafe { zeroed() };
                header.msg_hdr.msg_iov = segments.as_mut_ptr();
                header.msg_hdr.msg_iovlen = segments.len() as _;
                header
            })
            .collect();
        Self { buffers, _segments: segments, headers }
    }

    fn of(messages: &[&[&[u8]]]) -> Self {
        Self::new(messages.iter().map(|message| message.iter().map(|bytes| bytes.to_vec()).collect()).collect())
    }

    /// Overwrites each message's first segment without moving anything.
    fn set(&mut self, messages: &[&[u8]]) {
        for (message, bytes) in self.buffers.iter_mut().zip(messages) {
            message[0].copy_from_slice(bytes);
        }
    }

    /// Never inlined, so that two calls have the same stack as well.
    #[inline(never)]
    fn send(&mut self, socket: RawFd, flags: i32) -> i64 {
        // SAFETY: headers, segments and buffers live as long as `self`.
        let sent = unsafe {
            libc::syscall(libc::SYS_sendmmsg, socket, self.headers.as_mut_ptr(), self.headers.len(), flags, 0, 0)
        };
        sent as i64
    }

    #[inline(never)]
    fn receive(&mut self, socket: RawFd, flags: i32, timeout: *const libc::timespec) -> i64 {
        // SAFETY: headers, segments and buffers live as long as `self`.
        let got = unsafe {
            libc::syscall(libc::SYS_recvmmsg, socket, self.headers.as_mut_ptr(), self.headers.len(), flags, timeout, 0)
        };
        got as i64
    }
}

#[test]
fn each_message_of_a_sendmmsg_has_its_own_bytes() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (one, other) = udp();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        let mut expect = |messages: &[&[u8]]| expected.extend(messages.iter().map(|bytes| bytes.to_vec()));

        let mut several = Vector::of(&[&[b"ab", b"cde"], &[b"fgh"], &[b"", b"ijkl"]]);
        assert_eq!(several.send(one.as_raw_fd(), 0), 3);
        expect(&[b"abcde", b"fgh", b"ijkl"]);
        // A shorter one, the longer one again.
        assert_eq!(Vector::of(&[&[b"short"]]).send(one.as_raw_fd(), 0), 1);
        assert_eq!(several.send(one.as_raw_fd(), 0), 3);
        expect(&[b"short", b"abcde", b"fgh", b"ijkl"]);
        // The same registers twice, other bytes of the same lengths.
        let mut same = Vector::of(&[&[b"1111"], &[b"2222"], &[b"3333"]]);
        assert_eq!(same.send(one.as_raw_fd(), 0), 3);
        same.set(&[b"4444", b"5555", b"6666"]);
        assert_eq!(same.send(one.as_raw_fd(), 0), 3);
        expect(&[b"1111", b"2222", b"3333", b"4444", b"5555", b"6666"]);
        // An empty datagram between equal ones.
        assert_eq!(Vector::of(&[&[b""], &[b"AAAA"], &[b"BBBB"], &[b""], &[b"CCCC"]]).send(one.as_raw_fd(), 0), 5);
        expect(&[b"AAAA", b"BBBB", b"CCCC"]);
        // One that fails in the middle (too long for a datagram), twice.
        let mut failing = Vector::new(vec![vec![b"good".to_vec()], vec![vec![b'x'; 70000]], vec![b"gone".to_vec()]]);
        assert_eq!(failing.send(one.as_raw_fd(), 0), 1);
        failing.buffers[0][0].copy_from_slice(b"fine");
        assert_eq!(failing.send(one.as_raw_fd(), 0), 1);
        expect(&[b"good", b"fine"]);
        let one = inode(&one);
        drop(other);

        let sent = recording.stop().events().sent(one);
        assert_eq!(payloads(&sent), expected, "{hook}");
        assert_eq!(
            sent.iter().map(|call| call.offset).collect::<Vec<_>>(),
            (0..expected.len() as u64).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_sendmmsg_whose_bytes_were_not_kept_does_not_shift_the_next() {
    with_both_hooks(|hook| {
        // 64 KiB one way, then only lengths for a tenth of a second: in the middle of a call of equal messages.
        let recording = Recording::own(hook);
        let (one, other) = udp();
        let contents: Vec<Vec<u8>> = (0..7u8).map(|number| vec![b'a' + number; 3000]).collect();
        let mut vector = Vector::new(contents.iter().map(|bytes| vec![bytes.clone()]).collect());
        let began = std::time::Instant::now();
        let mut calls = 0;
        // Long enough for several refills of the allowance.
        while began.elapsed() < std::time::Duration::from_millis(450) {
            assert_eq!(vector.send(one.as_raw_fd(), 0), 7);
            calls += 1;
            for _ in 0..7 {
                receive(&other, 4000, 0);
            }
        }
        let one = inode(&one);

        let sent = recording.stop().events().sent(one);
        assert_eq!(sent.len(), calls * 7, "{hook}");
        let mut kept = 0;
        for (number, call) in sent.iter().enumerate() {
            assert_eq!(call.length, 3000);
            assert!(call.missing.is_none() || call.missing.as_deref() == Some("bulk"), "{hook}: {:?}", call.missing);
            if call.missing.is_none() {
                kept += 1;
                assert!(call.payload == contents[number % 7], "{hook}: message {number} has another's bytes");
            }
        }
        assert!(kept >= 3 * 21 && kept < sent.len(), "{hook}: {kept} of {}", sent.len());
    });
}

#[test]
fn a_sendmmsg_on_a_full_stream_ends_where_the_kernel_ends_it() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (unix_one, unix_other) = unix_pair(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        let (tcp_one, tcp_other) = tcp();
        let small: libc::c_int = 4096;
        for socket in [unix_one.as_raw_fd(), tcp_one.as_raw_fd()] {
            // SAFETY: an int of its own size.
            unsafe { ok(libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const small).cast(), 4)) };
        }
        let mut streams = Vec::new();
        for (one, other) in
            [(unix_one.as_raw_fd(), unix_other.as_raw_fd()), (tcp_one.as_raw_fd(), tcp_other.as_raw_fd())]
        {
            let mut stream = Vec::new();
            let mut vector = Vector::new((0..16).map(|_| vec![vec![0u8; 900]]).collect());
            let mut ended_early = 0;
            let mut mark = 0u32;
            for _ in 0..8 {
                for message in &mut vector.buffers {
                    mark += 1;
                    message[0][..4].copy_from_slice(&mark.to_be_bytes());
                    message[0][4..].fill(b'a' + (mark % 26) as u8);
                }
                let sent = vector.send(one, libc::MSG_DONTWAIT);
                assert!(sent >= 1, "{}", std::io::Error::last_os_error());
                ended_early += u32::from(sent < 16);
                for at in 0..sent as usize {
                    stream.extend_from_slice(&vector.buffers[at][0][..vector.headers[at].msg_len as usize]);
                }
                // Make room for the same call again.
                let mut waiting = 1i32;
                while waiting > 0 {
                    let mut buffer = vec![0u8; 65536];
                    // SAFETY: the buffer is as long as said.
                    unsafe { libc::recv(other, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
                    // SAFETY: writes one int. What is not read yet by the other end still fills the sender.
                    unsafe { ok(libc::ioctl(one, libc::TIOCOUTQ, &raw mut waiting)) };
                }
            }
            println!("{ended_early} of 8 calls ended early");
            assert!(ended_early > 0, "the socket took everything: nothing was tested");
            streams.push(stream);
        }
        let sockets = [inode(&unix_one), inode(&tcp_one)];

        let events = recording.stop().events();
        for (inode, stream) in sockets.into_iter().zip(streams) {
            let sent = events.sent(inode);
            assert_eq!(lengths(&sent).iter().sum::<u64>(), stream.len() as u64, "{hook}");
            assert!(
                is_contiguous(&sent),
                "{hook}: {:?}",
                sent.iter().map(|c| (c.offset, c.length)).collect::<Vec<_>>()
            );
            let mut at = 0;
            for call in &sent {
                assert!(stream[at..].starts_with(&call.payload), "{hook}: other bytes than were sent at {at}");
                let reason = call.missing.as_deref();
                assert!(matches!(reason, None | Some("bulk" | "message_index")), "{hook}: {reason:?}");
                at += call.length as usize;
            }
            assert!(sent.iter().filter(|call| call.missing.is_none()).count() >= 16, "{hook}: too little is placed");
        }
    });
}

#[test]
fn more_messages_than_segments_are_all_seen() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (one, other) = unix_pair(libc::SOCK_DGRAM);
        let mut vector = Vector::new((0..200u8).map(|number| vec![vec![number; 2]]).collect());
        // The queue takes ten datagrams or so at a time.
        let reader = {
            let other = other.as_raw_fd();
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let mut buffer = [0u8; 8];
                    // SAFETY: the buffer is as long as said, and the descriptor stays open until the thread is joined.
                    ok(unsafe { libc::recv(other, buffer.as_mut_ptr().cast(), 8, 0) } as i64);
                }
            })
        };
        assert_eq!(vector.send(one.as_raw_fd(), 0), 200);
        reader.join().unwrap();
        let (one, other) = (inode(&one), inode(&other));

        let events = recording.stop().events();
        let expected: Vec<Vec<u8>> = (0..200u8).map(|number| vec![number; 2]).collect();
        assert_eq!(payloads(&events.sent(one)), expected, "{hook}");
        assert_eq!(payloads(&events.received(other)), expected, "{hook}");
    });
}

#[test]
fn a_sendmmsg_on_tcp_has_the_offset_of_each_message() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (client, server) = tcp();
        let mut vector = Vector::of(&[&[b"first."], &[b"the second."], &[b"3"]]);
        assert_eq!(vector.send(client.as_raw_fd(), 0), 3);
        let mut got = Vec::new();
        while got.len() < 18 {
            got.extend(receive(&server, 64, 0));
        }
        assert_eq!(got, b"first.the second.3");
        // Received by recvmmsg, with MSG_TRUNC: dropped unread, twice over the same private bytes.
        send(&client, b"to be dropped", 0);
        let mut into = Vector::of(&[&[b"private-private"]]);
        assert_eq!(into.receive(server.as_raw_fd(), libc::MSG_TRUNC, ptr::null()), 1);
        assert_eq!(into.buffers[0][0], b"private-private");
        let (client, server) = (inode(&client), inode(&server));

        let bundle = recording.stop();
        let events = bundle.events();
        let sent = events.sent(client);
        assert_eq!(payloads(&sent), [b"first.".as_slice(), b"the second.", b"3", b"to be dropped"], "{hook}");
        assert!(is_contiguous(&sent), "{hook}: {sent:?}");
        let last = events.received(server).pop().unwrap();
        assert_eq!((last.length, last.missing.as_deref()), (13, Some("discarded")), "{hook}");
        assert!(!bundle.holds(b"private-p"), "{hook}");
    });
}

#[test]
fn each_message_of_a_recvmmsg_has_its_own_bytes() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (one, other) = udp();
        let mut into = Vector::new((0..8).map(|_| vec![vec![0u8; 3], vec![0u8; 13]]).collect());
        // Ended early by an empty queue, then the same call again, and once more.
        for round in [5u8, 3, 8] {
            for number in 0..round {
                send(&one, &[b'a' + number, b'0' + round, b'-', b'm', b's', b'g'], 0);
            }
            assert_eq!(into.receive(other.as_raw_fd(), libc::MSG_DONTWAIT, ptr::null()), i64::from(round));
        }
        let timeout = libc::timespec { tv_sec: 5, tv_nsec: 0 };
        for number in 0..8u8 {
            send(&one, &[b'T', b'0' + number, b'-', b'm', b's', b'g'], 0);
        }
        assert_eq!(into.receive(other.as_raw_fd(), 0, &raw const timeout), 8);
        // And without one again: what the timeout left must not shift it.
        for number in 0..8u8 {
            send(&one, &[b'U', b'0' + number, b'-', b'm', b's', b'g'], 0);
        }
        assert_eq!(into.receive(other.as_raw_fd(), 0, ptr::null()), 8);
        let other = inode(&other);

        let received = recording.stop().events().received(other);
        assert_eq!(received.len(), 16 + 8 + 8, "{hook}");
        let mut expected = Vec::new();
        for round in [5u8, 3, 8] {
            expected.extend((0..round).map(|number| vec![b'a' + number, b'0' + round, b'-', b'm', b's', b'g']));
        }
        assert_eq!(payloads(&received[..16]), expected, "{hook}");
        let with_timeout: &[Moved] = &received[16..24];
        if hook == "sock" {
            // A timeout may end the call without a sign, so a message's place is uncertain.
            assert_eq!(reasons(with_timeout), [Some("message_index"); 8]);
        } else {
            assert_eq!(with_timeout[7].payload, b"T7-msg");
        }
        let last: Vec<Vec<u8>> = (0..8u8).map(|number| vec![b'U', b'0' + number, b'-', b'm', b's', b'g']).collect();
        assert_eq!(payloads(&received[24..]), last, "{hook}");
    });
}

#[test]
fn vectors_of_many_segments_are_followed_to_the_bound() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (one, other) = unix_pair(libc::SOCK_STREAM);
        let (client, server) = tcp();
        let parts: [&[u8]; 6] = [b"", b"alpha-", b"", b"beta-", b"gamma", b""];
        let whole: &[u8] = b"alpha-beta-gamma";
        let out: Vec<libc::iovec> = parts
            .iter()
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
            .collect();
        let mut rooms = [vec![0u8; 4], vec![], vec![0u8; 7], vec![0u8; 30]];
        let into: Vec<libc::iovec> = rooms
            .iter_mut()
            .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() })
            .collect();
        // SAFETY (all below): vectors and their buffers outlive each call.
        unsafe {
            for (from, to) in [(one.as_raw_fd(), other.as_raw_fd()), (client.as_raw_fd(), server.as_raw_fd())] {
                let expect = |result: i64| assert_eq!(ok(result), whole.len());
                expect(libc::writev(from, out.as_ptr(), 6) as i64);
                expect(libc::readv(to, into.as_ptr(), 4) as i64);
                expect(libc::pwritev2(from, out.as_ptr(), 6, -1, 0) as i64);
                expect(libc::preadv2(to, into.as_ptr(), 4, -1, 0) as i64);
                let mut message: libc::msghdr = zeroed();
                message.msg_iov = out.as_ptr().cast_mut();
                message.msg_iovlen = 6;
                expect(libc::sendmsg(from, &raw const message, 0) as i64);
                message.msg_iov = into.as_ptr().cast_mut();
                message.msg_iovlen = 4;
                expect(libc::recvmsg(to, &raw mut message, 0) as i64);
            }
            // More than the probe follows: 100 segments of ten bytes.
            let long: Vec<u8> = (0..1000u32).map(|at| b'a' + (at / 10 % 26) as u8).collect();
            let many: Vec<libc::iovec> = long
                .chunks(10)
                .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: 10 })
                .collect();
            assert_eq!(ok(libc::writev(one.as_raw_fd(), many.as_ptr(), 100) as i64), 1000);
            assert_eq!(receive(&other, 2000, 0), long);
        }
        let long: Vec<u8> = (0..1000u32).map(|at| b'a' + (at / 10 % 26) as u8).collect();
        let sockets = [inode(&one), inode(&other), inode(&client), inode(&server)];

        let events = recording.stop().events();
        let [one, other, client, server] = sockets;
        let sent = events.sent(one);
        assert_eq!(payloads(&sent[..3]), [whole; 3], "{hook}");
        assert_eq!((sent[3].length, sent[3].missing.as_deref()), (1000, Some("segments")), "{hook}");
        assert_eq!(sent[3].payload, long[..640], "{hook}: 64 segments of ten bytes");
        let received = events.received(other);
        assert_eq!(payloads(&received), [whole, whole, whole, &long], "{hook}");
        assert_eq!(payloads(&events.sent(client)), [whole; 3], "{hook}");
        assert_eq!(lengths(&events.received(server)), [16; 3], "{hook}");
    });
}

#[test]
fn a_cut_datagram_never_gives_more_than_its_buffer() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (one, other) = udp();
        let long = [b'z'; 300];
        // The buffer is followed by private bytes of the same allocation.
        let mut memory = b"0123456789private-after-the-buffer".repeat(20);
        for flags in [libc::MSG_TRUNC, 0] {
            send(&one, &long, 0);
            // SAFETY: ten bytes of a longer buffer.
            let moved = unsafe { libc::recv(other.as_raw_fd(), memory.as_mut_ptr().cast(), 10, flags) };
            assert_eq!(moved, if flags == 0 { 10 } else { 300 });
        }
        send(&one, &long, 0);
        // SAFETY: all zeroes is a message without anything; then two segments in a longer buffer.
        unsafe {
            let mut segments = [
                libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: 10 },
                libc::iovec { iov_base: memory.as_mut_ptr().add(100).cast(), iov_len: 5 },
            ];
            let mut message: libc::msghdr = zeroed();
            message.msg_iov = segments.as_mut_ptr();
            message.msg_iovlen = 2;
            assert_eq!(ok(libc::recvmsg(other.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) as i64), 300);
        }
        let other = inode(&other);

        let bundle = recording.stop();
        let received = bundle.events().received(other);
        assert_eq!(lengths(&received), [300, 10, 300], "{hook}");
        assert_eq!(reasons(&received), [Some("discarded"), None, Some("discarded")], "{hook}");
        assert_eq!(received.iter().map(|call| call.payload.len()).collect::<Vec<_>>(), [10, 10, 15], "{hook}");
        assert!(received.iter().all(|call| call.payload.iter().all(|byte| *byte == b'z')), "{hook}");
        assert!(!bundle.holds(b"private-after"), "{hook}");
    });
}
