//! A real exchange on loopback, captured by tcpdump: as many requests as the clients made. Skips where a program is
//! missing or capturing is not permitted.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kfr_analyze::{Analysis, Input, Options, Want};
use kfr_bundle::Writer;

/// Ends what it started, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Option<Running> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok().map(Running)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn connect(port: u16) -> TcpStream {
    let mut stream = None;
    until("connecting", || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    stream.unwrap()
}

fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
}

fn requests(bundle: &Path, protocol: &str) -> usize {
    let inputs = Input::open_all(&[bundle.to_path_buf()]).unwrap();
    let options = Options { memory: 1 << 30, tmp: None, threads: Some(1), literals: false, ..Options::default() };
    let analysis = Analysis::new(&inputs, &options, Want::RequestLines).unwrap();
    let mut lines = Vec::new();
    analysis.lines.write(&mut lines).unwrap();
    let named = format!("\"protocol\":\"{protocol}\"");
    let lines = String::from_utf8(lines).unwrap();
    lines.lines().filter(|line| line.contains(&named) && line.contains("\"status\":\"ok\"")).count()
}

#[test]
fn a_captured_exchange_has_as_many_requests_as_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let (redis_port, http_port) = (free_port(), free_port());
    let redis = start(Command::new("redis-server").args(["--save", "", "--port", &redis_port.to_string()]));
    let root = folder.path().display();
    std::fs::write(
        folder.path().join("nginx.conf"),
        format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\nevents {{}}\nhttp {{ access_log off; \
             client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root}; uwsgi_temp_path {root}; \
             scgi_temp_path {root}; server {{ listen 127.0.0.1:{http_port}; location / {{ return 200 hello; }} }} }}"
        ),
    )
    .unwrap();
    let nginx = start(Command::new("nginx").arg("-c").arg(folder.path().join("nginx.conf")));
    let capture = folder.path().join("x.pcap");
    let filter = format!("port {redis_port} or port {http_port}");
    // With its own buffer it loses packets where the machine is busy: slots are as large as the snapshot length.
    let options = ["-i", "lo", "-U", "--immediate-mode", "-s", "2000", "-B", "32768", "-w"];
    let tcpdump = start(Command::new("tcpdump").args(options).arg(&capture).arg(&filter));
    let (Some(_redis), Some(_nginx), Some(mut tcpdump)) = (redis, nginx, tcpdump) else {
        println!("skipped: redis-server, nginx or tcpdump is not installed");
        return;
    };
    drop((connect(redis_port), connect(http_port)));
    // It writes its header once it captures; without permission it ends.
    let mut ended = false;
    until("tcpdump", || {
        ended = tcpdump.0.try_wait().unwrap().is_some();
        ended || std::fs::metadata(&capture).is_ok_and(|found| found.len() >= 24)
    });
    if ended {
        println!("skipped: tcpdump may not capture here");
        return;
    }
    const REDIS: usize = 300;
    const HTTP: usize = 200;
    let mut stream = connect(redis_port);
    for number in 0..REDIS {
        stream.write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n{:04}\r\n", number).as_bytes()).unwrap();
        read_until(&mut stream, b"+OK\r\n");
    }
    let mut stream = connect(http_port);
    for _ in 0..HTTP {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        read_until(&mut stream, b"\r\n\r\nhello");
    }
    drop(stream);
    let bundle = folder.path().join("x.kfr");
    let mut found = (0, 0);
    // The last packets are written a moment later.
    until("the capture (or tcpdump lost packets)", || {
        let writer = |header: &_| Writer::create(&bundle, header, true);
        kfr_import::import(File::open(&capture).unwrap(), "x.pcap", writer).unwrap();
        found = (requests(&bundle, "redis"), requests(&bundle, "http"));
        found.0 >= REDIS && found.1 >= HTTP
    });
    assert_eq!(found, (REDIS, HTTP));
}
