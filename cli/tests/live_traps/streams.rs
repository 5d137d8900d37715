//! Streams under several threads, in several namespaces, older than the capture; receives that don't consume.

use std::io::{Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::thread;

use crate::live::{Recording, inode, is_contiguous, lengths, ok, payloads, wait_for, with_both_hooks};
use crate::sockets::{receive, receive_over, send, tcp, udp};

#[test]
fn two_threads_on_one_socket_lose_no_length_and_no_request() {
    const COMMANDS: usize = 3000;
    let kinds: [&[u8]; 2] = [b"*1\r\n$4\r\nPING\r\n", b"*2\r\n$4\r\nPING\r\n$5\r\nhello\r\n"];
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (client, server) = tcp();
        let (client, server) = (Arc::new(client), Arc::new(server));
        let total: usize = kinds.iter().map(|kind| kind.len() * COMMANDS).sum();
        let writers = kinds.map(|kind| {
            let client = client.clone();
            thread::spawn(move || {
                for _ in 0..COMMANDS {
                    assert_eq!((&*client).write(kind).unwrap(), kind.len());
                }
            })
        });
        // Two threads read requests; answers go out in one piece for each command, by whoever read its end.
        let answered = Arc::new(std::sync::Mutex::new((0usize, 0usize)));
        let readers = [0, 1].map(|_| {
            let (server, answered) = (server.clone(), answered.clone());
            thread::spawn(move || {
                let mut buffer = [0u8; 97];
                loop {
                    let moved = (&*server).read(&mut buffer).unwrap();
                    let mut state = answered.lock().unwrap();
                    state.0 += moved;
                    if moved == 0 || state.0 == total {
                        // Wakes the other reader, too.
                        let _ = server.shutdown(std::net::Shutdown::Read);
                        return;
                    }
                }
            })
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(answered.lock().unwrap().0, total);
        let answers = b"+PONG\r\n".repeat(2 * COMMANDS);
        (&*server).write_all(&answers).unwrap();
        let mut got = vec![0u8; answers.len()];
        (&*client).read_exact(&mut got).unwrap();
        let inodes = (inode(&*client), inode(&*server));
        drop((client, server));

        let bundle = recording.stop();
        let events = bundle.events();
        let (mut sent, received) = (events.sent(inodes.0), events.received(inodes.1));
        assert_eq!(sent.len(), 2 * COMMANDS, "{hook}");
        assert!(sent.iter().all(|call| kinds.iter().any(|kind| call.length == kind.len() as u64)));
        assert_eq!(lengths(&sent).iter().sum::<u64>(), total as u64, "{hook}");
        assert_eq!(lengths(&received).iter().sum::<u64>(), total as u64, "{hook}");
        let overlaps =
            sent.windows(2).filter(|pair| pair[0].offset as u32 + pair[0].length as u32 != pair[1].offset as u32);
        println!("{} of {} neighbours out of order or overlapping", overlaps.count(), sent.len());
        sent.sort_by_key(|call| call.offset);
        // Each call's bytes were kept whole until the allowance of a one-way run was used up.
        for call in &sent {
            assert!(matches!(call.missing.as_deref(), None | Some("bulk")), "{:?}", call.missing);
            assert!(call.payload.is_empty() || kinds.contains(&call.payload.as_slice()), "{hook}: {call:?}");
        }
        let connections = bundle.dump("--connections");
        let port = events.identity(inodes.0).unwrap()["local_port"].clone();
        let connection =
            connections.iter().find(|line| line["client"]["port"] == port).expect("the connection is listed");
        assert_eq!(connection["bytes_sent"], total, "{hook}: {connection}");
        assert_eq!(connection["bytes_received"], answers.len(), "{hook}: {connection}");
        let flags = connection["flags"].to_string();
        assert!(!flags.contains("gap"), "{hook}: every byte was seen, only its order was in doubt: {flags}");
    });
}

#[test]
fn two_threads_that_ask_in_turns_are_restored_or_flagged() {
    // Few bytes at a time, so that all of them are kept: replay has to find the commands' borders again.
    with_both_hooks(|hook| {
        const ROUNDS: usize = 400;
        let recording = Recording::own(hook);
        let (client, server) = tcp();
        let server_inode = inode(&server);
        let client = Arc::new(client);
        let commands: [&[u8]; 2] = [b"*1\r\n$4\r\nPING\r\n", b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n"];
        let barrier = Arc::new(std::sync::Barrier::new(3));
        let writers = commands.map(|command| {
            let (client, barrier) = (client.clone(), barrier.clone());
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    barrier.wait();
                    assert_eq!((&*client).write(command).unwrap(), command.len());
                    barrier.wait();
                }
            })
        });
        let both = commands[0].len() + commands[1].len();
        for _ in 0..ROUNDS {
            barrier.wait();
            barrier.wait();
            let mut asked = Vec::new();
            while asked.len() < both {
                asked.extend(receive(&server, 256, 0));
            }
            let (ping, echo): (&[u8], &[u8]) = (b"+PONG\r\n", b"$5\r\nhello\r\n");
            let answer = if asked.starts_with(b"*1") { [ping, echo].concat() } else { [echo, ping].concat() };
            send(&server, &answer, 0);
            let mut got = Vec::new();
            while got.len() < answer.len() {
                got.extend(receive(&*client, 256, 0));
            }
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let port = server.local_addr().unwrap().port();
        drop((client, server));

        let bundle = recording.stop();
        assert!(bundle.events().socket(server_inode).is_some());
        let requests = bundle.dump("--requests");
        let ours: Vec<_> = requests.iter().filter(|line| line["server"]["port"] == port).collect();
        assert_eq!(ours.len(), 2 * ROUNDS, "{hook}");
        for op in ["PING", "ECHO"] {
            let count = ours.iter().filter(|line| line["op"] == op && line["status"] == "ok").count();
            let flagged = ours.iter().filter(|line| line["flags"].to_string().contains("order_uncertain")).count();
            assert!(count == ROUNDS || flagged > 0, "{hook}: {count} {op}, {flagged} flagged");
        }
    });
}

#[test]
fn a_receive_that_is_not_the_streams_next_bytes_is_not_counted() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (client, server) = tcp();
        send(&client, b"peeked", 0);
        for _ in 0..3 {
            assert_eq!(receive(&server, 64, libc::MSG_PEEK), b"peeked");
        }
        assert_eq!(receive(&server, 64, 0), b"peeked");
        // Discarded unread: the buffer's own bytes are private.
        send(&client, b"discarded", 0);
        let (moved, buffer) = receive_over(&server, b"my-own-private-bytes", libc::MSG_TRUNC);
        assert_eq!((moved, buffer.as_slice()), (9, b"my-own-private-bytes".as_slice()));
        // Out of band: its last byte is urgent and not part of what a plain receive gives.
        assert_eq!(send(&client, b"oob!", libc::MSG_OOB), 4);
        wait_for("the urgent byte", || {
            let mut byte = [0u8; 1];
            // SAFETY: one byte, as said.
            let moved = unsafe { libc::recv(server.as_raw_fd(), byte.as_mut_ptr().cast(), 1, libc::MSG_OOB) };
            (moved == 1).then_some(())
        });
        assert_eq!(receive(&server, 64, 0), b"oob");
        send(&client, b"after", 0);
        assert_eq!(receive(&server, 64, 0), b"after");

        let (one, other) = udp();
        send(&one, b"datagram", 0);
        assert_eq!(receive(&other, 64, libc::MSG_PEEK), b"datagram");
        assert_eq!(receive(&other, 64, 0), b"datagram");
        // An error's copy of a datagram comes back by MSG_ERRQUEUE.
        let refused = UdpSocket::bind("127.0.0.1:0").unwrap();
        let on = 1i32;
        // SAFETY: an int of its own size.
        unsafe { ok(libc::setsockopt(refused.as_raw_fd(), libc::SOL_IP, libc::IP_RECVERR, (&raw const on).cast(), 4)) };
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        refused.connect(nobody).unwrap();
        send(&refused, b"nobody is there", 0);
        let back = wait_for("the error", || {
            let mut buffer = [0u8; 64];
            let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
            // SAFETY: the buffer is as long as said.
            let moved = unsafe { libc::recv(refused.as_raw_fd(), buffer.as_mut_ptr().cast(), 64, flags) };
            (moved > 0).then(|| buffer[..moved as usize].to_vec())
        });
        assert_eq!(back, b"nobody is there");
        let sockets = [inode(&client), inode(&server), inode(&other), inode(&refused)];

        let bundle = recording.stop();
        let events = bundle.events();
        let [client, server, other, refused] = sockets;
        assert_eq!(payloads(&events.sent(client)), [b"peeked".as_slice(), b"discarded", b"oob!", b"after"], "{hook}");
        let received = events.received(server);
        assert_eq!(lengths(&received), [6, 9, 3, 5], "{hook}: {received:?}");
        assert_eq!(received[1].missing.as_deref(), Some("discarded"), "{hook}");
        assert!(received[1].payload.is_empty());
        assert!(is_contiguous(&received[..3]), "{hook}: {received:?}");
        assert_eq!(received[3].offset as u32, (received[2].offset as u32).wrapping_add(4), "the urgent byte is a gap");
        assert_eq!(payloads(&events.received(other)), [b"datagram"], "{hook}");
        assert_eq!(payloads(&events.sent(refused)), [b"nobody is there"], "{hook}");
        assert!(events.received(refused).is_empty(), "{hook}");
        assert!(!bundle.holds(b"my-own-p"), "{hook}");
    });
}

/// A TCP connection with these ports on loopback.
fn tcp_with_ports(client_port: u16, server_port: u16) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", server_port)).unwrap();
    let address = |port: u16| {
        // SAFETY: all zeroes is an address.
        let mut address: libc::sockaddr_in = unsafe { zeroed() };
        address.sin_family = libc::AF_INET as u16;
        address.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        address.sin_port = port.to_be();
        address
    };
    let size = size_of::<libc::sockaddr_in>() as u32;
    let (from, to) = (address(client_port), address(server_port));
    // SAFETY: addresses of the right size; the descriptor is owned at once.
    let client = unsafe {
        let client =
            TcpStream::from_raw_fd(ok(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) as i32);
        ok(libc::bind(client.as_raw_fd(), (&raw const from).cast(), size));
        ok(libc::connect(client.as_raw_fd(), (&raw const to).cast(), size));
        client
    };
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// Runs something in a network namespace of its own, whose loopback interface is up; its sockets stay there.
fn in_new_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: only this thread changes its namespace; the request is a zeroed struct with a name and flags.
            unsafe {
                ok(libc::unshare(libc::CLONE_NEWNET));
                let socket = UdpSocket::from_raw_fd(ok(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)) as i32);
                let mut request: libc::ifreq = zeroed();
                request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
                request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
                ok(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request));
            }
            work()
        });
        inside.join().unwrap()
    })
}

#[test]
fn the_same_addresses_in_two_namespaces_are_two_connections() {
    with_both_hooks(|hook| {
        // Ports that are free in this namespace: both of the new ones have all.
        let (client_port, server_port) = (33_333, 44_444);
        let older: Vec<_> = (0..2).map(|_| in_new_namespace(|| tcp_with_ports(client_port, server_port))).collect();
        let recording = Recording::own(hook);
        let newer: Vec<_> = (0..2).map(|_| in_new_namespace(|| tcp_with_ports(client_port, server_port))).collect();
        let all: Vec<_> = older.into_iter().chain(newer).collect();
        for (number, (client, server)) in all.iter().enumerate() {
            let question = format!("GET /of-{number} HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", number + 1, "x".repeat(number + 1));
            send(client, question.as_bytes(), 0);
            assert_eq!(receive(server, 200, 0), question.as_bytes());
            send(server, answer.as_bytes(), 0);
            assert_eq!(receive(client, 200, 0), answer.as_bytes());
        }
        let sockets: Vec<_> = all.iter().map(|(client, server)| (inode(client), inode(server))).collect();
        drop(all);

        let bundle = recording.stop();
        let events = bundle.events();
        let mut namespaces = Vec::new();
        for (number, (client, server)) in sockets.iter().enumerate() {
            let case = format!("{hook}, connection {number}");
            let (one, other) = (events.identity(*client).expect(&case), events.identity(*server).expect(&case));
            assert_eq!(one["netns"], other["netns"], "{case}");
            assert_eq!(
                (one["local_port"].as_u64(), one["remote_port"].as_u64()),
                (Some(33_333), Some(44_444)),
                "{case}"
            );
            namespaces.push(one["netns"].as_u64().unwrap());
            let question = format!("GET /of-{number} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(payloads(&events.sent(*client)), [question.as_bytes()], "{case}");
            assert_eq!(lengths(&events.received(*server)), [question.len() as u64], "{case}");
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        assert_eq!(namespaces.len(), 4, "{hook}: each namespace has its own cookie");
        let requests = bundle.dump("--requests");
        let mut targets: Vec<_> = requests.iter().filter(|line| line["server"]["port"] == 44_444).collect();
        targets.sort_by_key(|line| line["target"].to_string());
        assert_eq!(targets.len(), 4, "{hook}: {targets:?}");
        for (number, line) in targets.iter().enumerate() {
            assert_eq!(line["target"], format!("/of-{number}"), "{hook}");
            let body = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", number + 1).len() + number + 1;
            assert_eq!(
                (line["status"].as_str(), line["response_bytes"].as_u64()),
                (Some("ok"), Some(body as u64)),
                "{hook}: {line}"
            );
        }
    });
}

#[test]
fn sockets_older_than_the_capture_have_both_ends_and_every_request() {
    const REQUESTS: usize = 7;
    with_both_hooks(|hook| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = || (TcpStream::connect(("127.0.0.1", port)).unwrap(), listener.accept().unwrap().0);
        let (idle, active) = (connect(), connect());
        let exchange = |number: usize| {
            let question = format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
            send(&active.0, question.as_bytes(), 0);
            assert_eq!(receive(&active.1, 200, 0), question.as_bytes());
            send(&active.1, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0);
            assert_eq!(receive(&active.0, 200, 0).len(), 40);
        };
        exchange(1000);
        let recording = Recording::own(hook);
        (0..REQUESTS).for_each(exchange);
        let [idle, active] = [&idle, &active].map(|(client, server)| (inode(client), inode(server)));

        let bundle = recording.stop();
        let events = bundle.events();
        for socket in [idle.0, idle.1, active.0, active.1, inode(&listener)] {
            let identity = events.identity(socket).expect("the walk lists it");
            assert_eq!(
                (identity["seen_by"].as_str(), identity["process"].as_u64()),
                (Some("walk"), Some(std::process::id().into()))
            );
            assert!(identity["opened_ns"].is_null());
        }
        assert!(events.sent(idle.0).is_empty() && events.received(idle.1).is_empty());
        let requests = bundle.dump("--requests");
        let ours: Vec<_> = requests.iter().filter(|line| line["server"]["port"] == port).collect();
        assert_eq!(ours.len(), REQUESTS, "{hook}");
        for (number, line) in ours.iter().enumerate() {
            assert_eq!((line["op"].as_str(), line["status"].as_str()), (Some("GET"), Some("ok")), "{hook}: {line}");
            assert_eq!(line["target"], format!("/{number}"), "{hook}");
            for end in ["client", "server"] {
                assert_eq!(line[end]["pid"], std::process::id(), "{hook}: {end} is unknown: {line}");
            }
        }
        let connections = bundle.dump("--connections");
        let ours: Vec<_> =
            connections.iter().filter(|line| line["server"]["port"] == port && line["transport"] == "tcp").collect();
        let active = ours.iter().filter(|line| line["requests"] == REQUESTS).count();
        assert_eq!(active, 1, "{hook}: both ends are one connection: {ours:?}");
    });
}
