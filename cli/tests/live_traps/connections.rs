//! Connections from connect to close.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::live::{Recording, inode, ok, with_both_hooks};
use crate::sockets::{receive, send, unix_pair};

const SYN_SENT: u64 = 2;
const CLOSE: u64 = 7;

/// A port of loopback that nobody listens on.
fn closed_port() -> SocketAddr {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
    address
}

/// From now on, closing sends a reset.
fn reset_at_close(socket: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as u32;
    // SAFETY: a struct of its own size.
    ok(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size)
    });
}

#[test]
fn a_refused_connect_has_its_error_and_the_address_asked_for() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let nobody = closed_port();
        let error = TcpStream::connect(nobody).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(111));

        let bundle = recording.stop();
        let events = bundle.events();
        let asked = |event: &&serde_json::Value| event["asked_port"] == nobody.port();
        let began: Vec<_> =
            events.of_kind("state").filter(|event| event["new_state"] == SYN_SENT).filter(asked).collect();
        assert_eq!(began.len(), 1, "{hook}");
        assert_eq!(
            (began[0]["asked"].as_str(), began[0]["process"].as_u64()),
            (Some("127.0.0.1"), Some(std::process::id().into()))
        );
        let socket = &began[0]["socket"];
        let ended: Vec<_> =
            events.of_kind("state").filter(|event| event["socket"] == *socket && event["new_state"] == CLOSE).collect();
        assert_eq!((ended.len(), ended[0]["error"].as_u64()), (1, Some(111)), "{hook}: {ended:?}");
        let lines = bundle.dump("--connections");
        let line =
            lines.iter().find(|line| line["server"]["port"] == nobody.port()).expect("a failed connection is one");
        assert_eq!(
            (line["how_closed"].as_str(), line["error"].as_u64()),
            (Some("failed"), Some(111)),
            "{hook}: {line}"
        );
    });
}

#[test]
fn who_closed_and_how_is_told() {
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let mut expected = Vec::new();
        for how in ["client", "server", "reset"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            send(&client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0);
            receive(&server, 100, 0);
            send(&server, b"HTTP/1.1 204 No Content\r\n\r\n", 0);
            receive(&client, 100, 0);
            let sockets = (inode(&client), inode(&server));
            match how {
                "client" => {
                    drop(client);
                    assert!(receive(&server, 10, 0).is_empty());
                }
                "server" => {
                    drop(server);
                    assert!(receive(&client, 10, 0).is_empty());
                }
                _ => {
                    reset_at_close(&server);
                    drop(server);
                    let mut byte = [0u8; 1];
                    // SAFETY: one byte, as said.
                    assert_eq!(unsafe { libc::recv(client.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) }, -1);
                }
            }
            expected.push((how, address.port(), sockets));
        }

        let bundle = recording.stop();
        let events = bundle.events();
        let lines = bundle.dump("--connections");
        for (how, port, (client, server)) in expected {
            let ours: Vec<_> =
                lines.iter().filter(|line| line["server"]["port"] == port && line["requests"] == 1).collect();
            assert_eq!(ours.len(), 1, "{hook} {how}: {ours:?}");
            assert_eq!(ours[0]["how_closed"], how, "{hook}: {}", ours[0]);
            assert!(ours[0]["opened_ns"].is_u64() && ours[0]["closed_ns"].is_u64(), "{hook} {how}: {}", ours[0]);
            assert!(ours[0]["connect_us"].as_u64().is_some_and(|us| us < 10_000_000), "{hook} {how}: {}", ours[0]);
            let states = events.states(client);
            assert_eq!(
                (states[0]["new_state"].as_u64(), states[1]["new_state"].as_u64()),
                (Some(2), Some(1)),
                "{hook}"
            );
            assert_eq!(
                (states[0]["asked"].as_str(), states[0]["asked_port"].as_u64()),
                (Some("127.0.0.1"), Some(port.into()))
            );
            // What was acknowledged is what was sent: no lost tail.
            for socket in [client, server] {
                let last = events.states(socket).pop().unwrap();
                assert_eq!(last["new_state"], CLOSE, "{hook} {how}");
                if how != "reset" {
                    let sent = events.sent(socket).pop().unwrap();
                    let after = (sent.offset as u32).wrapping_add(sent.length as u32);
                    let tail = (last["sent_sequence"].as_u64().unwrap() as u32).wrapping_sub(after);
                    assert!(tail <= 1, "{hook} {how}: {tail} more than the FIN");
                }
            }
            if how == "reset" {
                let name = events.socket(client).unwrap();
                assert!(events.of_kind("reset_received").any(|event| event["socket"] == name), "{hook}");
                let name = events.socket(server).unwrap();
                let sent = events.of_kind("reset_sent").filter(|event| event["socket"] == name).count();
                println!("{hook}: {sent} resets sent by the closing socket");
            }
        }
    });
}

/// A unix socket's beginning fires no tracepoint: that the walk at the start didn't list it tells that it is new.
#[test]
fn a_unix_socket_is_older_than_the_capture_only_if_it_is() {
    with_both_hooks(|hook| {
        let talk = |(client, server): (OwnedFd, OwnedFd), path: &str| {
            send(&client, format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 0);
            receive(&server, 100, 0);
            send(&server, b"HTTP/1.1 204 No Content\r\n\r\n", 0);
            receive(&client, 100, 0);
        };
        let old = unix_pair(libc::SOCK_STREAM);
        let recording = Recording::own(hook);
        talk(old, "old");
        talk(unix_pair(libc::SOCK_STREAM), "new");
        let lines = recording.stop().dump("--requests");
        let found: Vec<_> = lines.iter().map(|line| (line["target"].as_str().unwrap(), &line["flags"])).collect();
        let [mid_stream, nothing] = [serde_json::json!(["mid_stream"]), serde_json::json!([])];
        assert_eq!(found, [("/old", &mid_stream), ("/new", &nothing)], "{hook}");
    });
}
