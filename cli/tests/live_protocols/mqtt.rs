//! Mosquitto: the client's count of what it sent and was sent, and the broker's log.

use std::process::Command;

use super::harness::{compare, live, name, run, script, sum, tables};
use crate::truth::{Capture, Counts, Server, assert_equal, find_program, folder, free_port};

#[test]
fn mosquitto_counts_the_same_packets() {
    if !live(&["mosquitto", "mosquitto_pub", "mosquitto_passwd"], &["paho.mqtt.client"]) {
        return;
    }
    let folder = folder();
    let port = free_port();
    let [configuration, passwords, rules, log] =
        ["mosquitto.conf", "passwords", "rules", "mosquitto.log"].map(|name| folder.path().join(name));
    run(Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args(["shop", "word"]));
    std::fs::write(&rules, "user shop\ntopic readwrite orders/#\ntopic readwrite prices\ntopic readwrite silence\n")
        .unwrap();
    let text = format!(
        "listener {port} 127.0.0.1\nuser root\nlog_type all\nlog_dest stderr\nallow_anonymous false\npassword_file {}\n\
         acl_file {}\n",
        passwords.display(),
        rules.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new(find_program("mosquitto").unwrap());
    command.arg("-c").arg(&configuration);
    let server = Server::start("mosquitto", port, &log, &mut command);
    let capture = Capture::start(folder.path(), "mqtt", &["--port", &port.to_string()]);
    let client = tables(script("mqtt.py").arg(port.to_string()));
    let bundle = capture.stop();
    compare("MQTT, client", "mqtt", &bundle, port, &client["counts"]);

    drop(server);
    let log = std::fs::read_to_string(&log).unwrap();
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count() as u64;
    let server = Counts::from([
        // "Received PUBLISH from", "Denied PUBLISH from" for what is not allowed, and "Sending PUBLISH to".
        (
            "PUBLISH".to_string(),
            said("Received PUBLISH from") + said("Denied PUBLISH from") + said("Sending PUBLISH to"),
        ),
        ("SUBSCRIBE".to_string(), said("Received SUBSCRIBE from")),
        ("UNSUBSCRIBE".to_string(), said("Received UNSUBSCRIBE from")),
        ("CONNECT".to_string(), said("Sending CONNACK to")),
    ]);
    let own = bundle.count(port, name);
    let kfr = server.keys().map(|op| (op.clone(), sum(&own, &format!("{op} ")))).collect();
    assert_equal("MQTT, the broker's log", &server, &kfr);
}
