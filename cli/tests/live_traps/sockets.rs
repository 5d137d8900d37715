//! Sockets of each kind, made by raw calls where the standard library has none.

use std::io::Write;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use crate::live::{Recording, inode, is_contiguous, ok, payloads, reasons, with_both_hooks};

/// Two ends of a TCP connection over an address.
pub fn tcp_over(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    (client, server)
}

/// Two ends of a TCP connection.
pub fn tcp() -> (TcpStream, TcpStream) {
    tcp_over("127.0.0.1:0")
}

/// Two UDP sockets connected to each other.
pub fn udp() -> (UdpSocket, UdpSocket) {
    let one = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    one.connect(other.local_addr().unwrap()).unwrap();
    other.connect(one.local_addr().unwrap()).unwrap();
    (one, other)
}

/// A pair of unix sockets of any type.
pub fn unix_pair(kind: i32) -> (OwnedFd, OwnedFd) {
    let mut pair = [0i32; 2];
    // SAFETY: `pair` has room for two descriptors, owned by nobody else afterwards.
    unsafe {
        ok(libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()));
        (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1]))
    }
}

pub fn send(socket: &impl AsRawFd, bytes: &[u8], flags: i32) -> usize {
    // SAFETY: the buffer is as long as said.
    ok(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) } as i64)
}

/// Receives into a buffer that held `before`; returns the call's result and the buffer.
pub fn receive_over(socket: &impl AsRawFd, before: &[u8], flags: i32) -> (usize, Vec<u8>) {
    let mut buffer = before.to_vec();
    // SAFETY: the buffer is as long as said.
    let moved = ok(unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) } as i64);
    (moved, buffer)
}

pub fn receive(socket: &impl AsRawFd, room: usize, flags: i32) -> Vec<u8> {
    let (moved, mut buffer) = receive_over(socket, &vec![0; room], flags);
    buffer.truncate(moved);
    buffer
}

/// Two ends of an MPTCP connection; `None` where the kernel has no MPTCP.
fn mptcp() -> Option<(OwnedFd, OwnedFd)> {
    const IPPROTO_MPTCP: i32 = 262;
    // SAFETY: plain socket calls with addresses of the right size; every descriptor is owned at once.
    unsafe {
        let listener = libc::socket(libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP);
        if listener < 0 {
            println!("skipped: this kernel refuses MPTCP sockets: {}", std::io::Error::last_os_error());
            return None;
        }
        let listener = OwnedFd::from_raw_fd(listener);
        let mut address: libc::sockaddr_in = zeroed();
        address.sin_family = libc::AF_INET as u16;
        address.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        let mut size = size_of::<libc::sockaddr_in>() as u32;
        ok(libc::bind(listener.as_raw_fd(), (&raw const address).cast(), size));
        ok(libc::listen(listener.as_raw_fd(), 1));
        ok(libc::getsockname(listener.as_raw_fd(), (&raw mut address).cast(), &mut size));
        let client = OwnedFd::from_raw_fd(ok(libc::socket(libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP)) as i32);
        ok(libc::connect(client.as_raw_fd(), (&raw const address).cast(), size));
        let server = ok(libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()));
        Some((client, OwnedFd::from_raw_fd(server as i32)))
    }
}

#[test]
fn mptcp_bytes_are_exact_and_counted() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let Some((client, server)) = mptcp() else { return };
        send(&client, b"first", 0);
        assert_eq!(receive(&server, 64, 0), b"first");
        send(&client, b"second one", 0);
        assert_eq!(receive(&server, 64, 0), b"second one");
        send(&server, b"answer", 0);
        assert_eq!(receive(&client, 64, 0), b"answer");
        // MSG_TRUNC moves on without writing: what the buffer held before is private.
        send(&client, b"dropped!", 0);
        let (moved, buffer) = receive_over(&server, b"keep-me-private-0123456789", libc::MSG_TRUNC);
        assert_eq!((moved, buffer.as_slice()), (8, b"keep-me-private-0123456789".as_slice()));
        let (client, server) = (inode(&client), inode(&server));

        let bundle = recording.stop();
        let events = bundle.events();
        let sent = events.sent(client);
        assert_eq!(payloads(&sent), [b"first".as_slice(), b"second one", b"dropped!"], "{hook}");
        assert_eq!(sent.iter().map(|call| call.offset).collect::<Vec<_>>(), [0, 5, 15]);
        let received = events.received(server);
        assert_eq!(payloads(&received[..2]), [b"first".as_slice(), b"second one"], "{hook}");
        assert_eq!(received.iter().map(|call| call.offset).collect::<Vec<_>>(), [0, 5, 15]);
        assert_eq!((received[2].length, received[2].missing.as_deref()), (8, Some("discarded")));
        assert_eq!(payloads(&events.received(client)), [b"answer"]);
        assert_eq!(events.identity(client).unwrap()["protocol"], 262);
        assert!(!bundle.holds(b"keep-me-"), "{hook}: a byte that is not the socket's was recorded");
    });
}

#[test]
fn unix_sockets_of_each_type_are_exact() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let mut inodes = Vec::new();
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            let (one, other) = unix_pair(kind);
            send(&one, b"question", 0);
            assert_eq!(receive(&other, 64, 0), b"question");
            send(&other, b"reply", 0);
            assert_eq!(receive(&one, 64, 0), b"reply");
            // Sent as one, read in two, where the type allows it.
            send(&one, b"abcdef", 0);
            let first = receive(&other, 4, 0);
            assert_eq!(first, b"abcd");
            if kind == libc::SOCK_STREAM {
                assert_eq!(receive(&other, 4, 0), b"ef");
            }
            inodes.push((kind, inode(&one), inode(&other)));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("listening");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"by name").unwrap();
        assert_eq!(receive(&server, 64, 0), b"by name");
        let bound = UnixDatagram::bind(folder.path().join("datagrams")).unwrap();
        let unbound = UnixDatagram::unbound().unwrap();
        unbound.send_to(b"to a path", folder.path().join("datagrams")).unwrap();
        assert_eq!(receive(&bound, 64, 0), b"to a path");
        let named = [inode(&client), inode(&server), inode(&bound), inode(&unbound)];

        let bundle = recording.stop();
        let events = bundle.events();
        for (kind, one, other) in inodes {
            let case = format!("{hook}, type {kind}");
            assert_eq!(payloads(&events.sent(one)), [b"question".as_slice(), b"abcdef"], "{case}");
            assert_eq!(payloads(&events.sent(other)), [b"reply"], "{case}");
            assert_eq!(payloads(&events.received(one)), [b"reply"], "{case}");
            let received = events.received(other);
            let expected: &[&[u8]] =
                if kind == libc::SOCK_STREAM { &[b"question", b"abcd", b"ef"] } else { &[b"question", b"abcd"] };
            assert_eq!(payloads(&received), expected, "{case}");
            if kind == libc::SOCK_DGRAM {
                assert_eq!(received.iter().map(|call| call.offset).collect::<Vec<_>>(), [0, 1], "{case}");
            } else {
                assert!(is_contiguous(&received) && received[0].offset == 0, "{case}: {received:?}");
            }
            assert_eq!(events.identity(one).unwrap()["type"], kind, "{case}");
        }
        let [client, server, bound, unbound] = named;
        assert_eq!(payloads(&events.sent(client)), [b"by name"]);
        assert_eq!(payloads(&events.received(server)), [b"by name"]);
        assert_eq!(payloads(&events.sent(unbound)), [b"to a path"]);
        assert_eq!(payloads(&events.received(bound)), [b"to a path"]);
        for socket in [client, server] {
            assert_eq!(events.identity(socket).unwrap()["path"], path.to_str().unwrap(), "{hook}");
        }
    });
}

#[test]
fn ipv6_and_mapped_ipv4_are_exact() {
    with_both_hooks(|hook| {
        if TcpListener::bind("[::1]:0").is_err() {
            println!("skipped: no IPv6 here");
            return;
        }
        let recording = Recording::own(hook);
        let (plain_client, plain_server) = tcp_over("[::1]:0");
        let listener = TcpListener::bind("[::]:0").unwrap();
        let mapped: SocketAddr =
            format!("[::ffff:127.0.0.1]:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let mapped_client = TcpStream::connect(mapped).unwrap();
        let (mapped_server, _) = listener.accept().unwrap();
        let one = UdpSocket::bind("[::1]:0").unwrap();
        let other = UdpSocket::bind("[::1]:0").unwrap();
        one.send_to(b"datagram", other.local_addr().unwrap()).unwrap();
        assert_eq!(receive(&other, 64, 0), b"datagram");
        let mut expected = Vec::new();
        for (client, server, address) in
            [(&plain_client, &plain_server, "::1"), (&mapped_client, &mapped_server, "::ffff:127.0.0.1")]
        {
            send(client, b"over six", 0);
            assert_eq!(receive(server, 64, 0), b"over six");
            expected.push((inode(client), inode(server), address, server.local_addr().unwrap().port()));
        }
        let (one, other_port) = (inode(&one), other.local_addr().unwrap().port());

        let bundle = recording.stop();
        let events = bundle.events();
        for (client, server, address, port) in expected {
            assert_eq!(payloads(&events.sent(client)), [b"over six"], "{hook} {address}");
            let received = events.received(server);
            assert_eq!(
                (received[0].length, reasons(&received)),
                (8, vec![Some("other_end_keeps")]),
                "{hook} {address}"
            );
            let identity = events.identity(client).unwrap();
            assert_eq!((identity["family"].as_u64(), identity["remote"].as_str()), (Some(10), Some(address)), "{hook}");
            assert_eq!(identity["remote_port"], port);
            let states = events.states(client);
            assert_eq!(
                (states[0]["asked"].as_str(), states[0]["asked_port"].as_u64()),
                (Some(address), Some(port.into()))
            );
        }
        assert_eq!(payloads(&events.sent(one)), [b"datagram"]);
        let sent = events.of_kind("datagram").find(|event| event["direction"] == "sent").unwrap();
        assert_eq!(
            (sent["peer"].as_str(), sent["peer_port"].as_u64()),
            (Some("::1"), Some(other_port.into())),
            "{hook}"
        );
    });
}
