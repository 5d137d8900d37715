//! ZooKeeper: the client's count and the packets that the server says it received.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::harness::{compare, in_folder, live, script, tables};
use crate::truth::{Capture, Counts, Server, assert_equal, find_program, folder, free_port, wait_for};

/// Packets that the server received, by its own `srvr`; a word of four letters is one too.
fn received(port: u16) -> Option<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    // What connects while the server still starts may never be answered.
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(b"srvr").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Received: ")).and_then(|number| number.parse().ok())
}

#[test]
fn zookeeper_counts_the_same_packets() {
    if !live(&["java"], &["kazoo.client"]) {
        return;
    }
    let jar =
        in_folder("/usr/share/java", "zookeeper.jar").expect("no /usr/share/java/zookeeper.jar: install zookeeper");
    let folder = folder();
    let port = free_port();
    let configuration = folder.path().join("zoo.cfg");
    let text = format!(
        "tickTime=3000\nmaxSessionTimeout=120000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
         admin.enableServer=false\n4lw.commands.whitelist=srvr\n",
        folder.path().join("zookeeper").display()
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new(find_program("java").unwrap());
    command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(jar);
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(&configuration);
    let _server = Server::start("zookeeper", port, &folder.path().join("zookeeper.log"), &mut command);
    let before = wait_for("ZooKeeper", || received(port));
    let capture = Capture::start(folder.path(), "zookeeper", &["--port", &port.to_string()]);
    let client = tables(script("zookeeper.py").arg(port.to_string()));
    let bundle = capture.stop();
    compare("ZooKeeper, client", "zookeeper", &bundle, port, &client["counts"]);
    let after = received(port).unwrap();
    let kfr: u64 = bundle.count(port, super::harness::name).values().sum();
    // The word that asks is one of them.
    let server = Counts::from([("packets".to_string(), after - before - 1)]);
    assert_equal("ZooKeeper, srvr", &server, &Counts::from([("packets".to_string(), kfr)]));
}
