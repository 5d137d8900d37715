//! nginx over HTTP/2 without TLS: its access log.

use std::process::Command;

use super::harness::{compare_as, live, run};
use crate::truth::{Capture, Counts, Server, assert_equal, find_program, folder, free_port, settled};

#[test]
fn nginx_logs_the_same_streams() {
    if !live(&["nginx", "curl", "h2load", "nghttp"], &[]) {
        return;
    }
    let folder = folder();
    let root = folder.path();
    let port = free_port();
    let log = root.join("access.log");
    let configuration = format!(
        r#"daemon off; master_process off; worker_processes 1; user root; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format short '$request_method $uri $status';
  access_log {0}/access.log short;
  client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
  server {{
    listen 127.0.0.1:{port} http2;
    root {0}/www;
    location /items {{ return 200 "items\n"; }}
    location /gone {{ return 410; }}
    location /fail {{ return 503; }}
    location /move {{ return 302 /items; }}
    location /put {{ client_max_body_size 1k; return 201 "made\n"; }}
  }}
}}
"#,
        root.display()
    );
    std::fs::create_dir(root.join("www")).unwrap();
    std::fs::write(root.join("www/large.txt"), "x".repeat(300_000)).unwrap();
    std::fs::write(root.join("nginx.conf"), configuration).unwrap();
    let mut command = Command::new(find_program("nginx").unwrap());
    command.arg("-e").arg(root.join("start.log")).arg("-c").arg(root.join("nginx.conf"));
    let _server = Server::start("nginx", port, &root.join("nginx.log"), &mut command);
    // What only knocked at the port may be in the log.
    let bytes = || std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let from = settled("nginx's log", bytes) as usize;
    let capture = Capture::start(root, "http2", &["--port", &port.to_string()]);
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    for (options, path, status) in [
        (&[][..], "/items?id=5", "200"),
        (&[], "/missing", "404"),
        (&[], "/gone", "410"),
        (&[], "/fail", "503"),
        (&[], "/move", "302"),
        (&["-X", "DELETE"], "/gone", "410"),
        (&["-X", "POST"], "/put", "201"),
        (&["--head"], "/items", "200"),
    ] {
        // Each on a connection of its own: curl 7.88 fails to use one again.
        for _ in 0..3 {
            let curl = ["-s", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}", &url(path)];
            let output = Command::new("curl").args(curl).args(options).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), status, "{options:?} {path}");
        }
    }
    run(Command::new("nghttp").args(["-n", "-m", "10", &url("/items"), &url("/missing")]));
    // nginx answers before it has all data, and resets the stream with NO_ERROR (RFC 9113, 8.1).
    let data = root.join("data");
    std::fs::write(&data, "name=value").unwrap();
    for _ in 0..3 {
        run(Command::new("nghttp").args(["-n", &url("/put"), "-d"]).arg(&data));
    }
    let load = ["-n", "1000", "-c", "4", "-m", "16", &url("/items"), &url("/fail")];
    let text = run(Command::new("h2load").args(load));
    assert!(text.contains("1000 total, 1000 started, 1000 done"), "{text}");
    settled("nginx's log", bytes);
    let bundle = capture.stop();
    let logged = |from: usize, name: &dyn Fn(&str) -> String| {
        let mut counts = Counts::new();
        for line in std::fs::read_to_string(&log).unwrap()[from..].lines() {
            *counts.entry(name(line)).or_default() += 1;
        }
        counts
    };
    let question = |line: &serde_json::Value| {
        let path = line["target"].as_str().unwrap().split('?').next().unwrap();
        format!("{} {path}", line["op"].as_str().unwrap())
    };
    compare_as("HTTP/2, nginx", "http2", &bundle, port, &logged(from, &str::to_string), |line| {
        format!("{} {}", question(line), line["code"].as_str().unwrap_or("none"))
    });

    // Many answers in one call, of which most is cut: heads of answers are lost, no question is.
    let from = bytes() as usize;
    let capture = Capture::start(root, "large", &["--port", &port.to_string()]);
    let load = ["-n", "300", "-c", "2", "-m", "16", &url("/items"), &url("/large.txt")];
    let text = run(Command::new("h2load").args(load));
    assert!(text.contains("300 total, 300 started, 300 done"), "{text}");
    settled("nginx's log", bytes);
    let bundle = capture.stop();
    let server = logged(from, &|line| line.rsplit_once(' ').unwrap().0.to_string());
    assert_equal("HTTP/2, nginx, large answers", &server, &bundle.count(port, question));
    bundle.requests(port, |line| assert!(matches!(line["code"].as_str(), None | Some("200")), "{line}"));
}
