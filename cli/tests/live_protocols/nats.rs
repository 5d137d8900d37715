//! NATS: the client's count and the server's `varz`.

use std::process::Command;

use super::harness::{compare, live, name, run, script, sum, tables};
use crate::truth::{Capture, Counts, Server, assert_equal, find_program, folder, free_port};

const CONFIGURATION: &str = r#"
authorization {
  users = [ { user: shop, password: word, permissions: { publish: { deny: "forbidden.>" } } } ]
}
"#;

#[test]
fn nats_counts_the_same_messages() {
    if !live(&["nats-server", "curl"], &[]) {
        return;
    }
    let folder = folder();
    let [port, monitor] = [free_port(), free_port()];
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, CONFIGURATION).unwrap();
    let mut command = Command::new(find_program("nats-server").unwrap());
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-m", &monitor.to_string(), "-c"]).arg(&file);
    let _server = Server::start("nats-server", port, &folder.path().join("nats.log"), &mut command);
    let capture = Capture::start(folder.path(), "nats", &["--port", &port.to_string()]);
    let client = tables(script("nats.py").arg(port.to_string()));
    let bundle = capture.stop();
    compare("NATS, client", "nats", &bundle, port, &client["counts"]);

    let url = format!("http://127.0.0.1:{monitor}/varz");
    let varz: serde_json::Value = serde_json::from_str(&run(Command::new("curl").args(["-s", &url]))).unwrap();
    let own = bundle.count(port, name);
    let kfr = Counts::from([("messages".to_string(), sum(&own, "PUB ") + sum(&own, "HPUB "))]);
    // Counted as they come in, whether allowed or not.
    let server = Counts::from([("messages".to_string(), varz["in_msgs"].as_u64().unwrap())]);
    assert_equal("NATS, varz", &server, &kfr);
}
