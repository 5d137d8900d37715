//! RabbitMQ: the client's count.

use std::process::Command;

use super::harness::{compare, live, script, tables};
use crate::truth::{Capture, Server, find_program, folder, free_port, wait_for};

#[test]
fn rabbitmq_is_asked_for_the_same_methods() {
    if !live(&["rabbitmq-server", "epmd"], &["pika"]) {
        return;
    }
    let folder = folder();
    let [port, distribution, mapper] = [(); 3].map(|()| free_port());
    let home = folder.path();
    std::fs::write(home.join("rabbitmq.conf"), format!("listeners.tcp.1 = 127.0.0.1:{port}\n")).unwrap();
    std::fs::write(home.join("plugins"), "[].\n").unwrap();
    // Erlang's port mapper would start by itself, and stay.
    let mapper_text = mapper.to_string();
    let mut epmd = Command::new(find_program("epmd").unwrap());
    epmd.args(["-address", "127.0.0.1", "-port", &mapper_text]);
    let _mapper = Server::start("epmd", mapper, &home.join("epmd.log"), &mut epmd);
    // Debian's wrapper in /usr/sbin drops root; the program itself does not.
    let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    command
        .env("HOME", home)
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", &mapper_text)
        .env("RABBITMQ_NODENAME", format!("kfr{port}@localhost"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", home.join("database"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
        .env("RABBITMQ_PID_FILE", home.join("pid"));
    let server = Server::start("rabbitmq-server", port, &home.join("rabbitmq.log"), &mut command);
    // It listens before it takes logins.
    wait_for("RabbitMQ", || {
        let mut probe = Command::new("/usr/bin/python3");
        let program =
            format!("import pika; pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', {port})).close()");
        probe.args(["-c", &program]).output().unwrap().status.success().then_some(())
    });
    let capture = Capture::start(home, "amqp", &["--port", &port.to_string()]);
    let client = tables(script("amqp.py").arg(port.to_string()));
    let bundle = capture.stop();
    compare("RabbitMQ, client", "amqp", &bundle, port, &client["counts"]);
    drop(server);
}
