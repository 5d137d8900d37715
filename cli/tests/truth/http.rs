//! A small HTTP client over a plain socket, and nginx.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Counts, Server, find_program, free_port};

/// nginx with a log line a request.
pub struct Nginx {
    pub server: Server,
    log: PathBuf,
}

impl Nginx {
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        let at = folder.display();
        let www = folder.join("www");
        std::fs::create_dir(&www).unwrap();
        let text: String = (0..40_000).map(|number| format!("line {number} of a file that sendfile moves\n")).collect();
        std::fs::write(www.join("large.txt"), &text).unwrap();
        std::fs::write(www.join("medium.txt"), &text[..30_000]).unwrap();
        let configuration = format!(
            "daemon off;\nuser root root;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log {at}/error.log warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
               log_format truth '$request_method $status';\n\
               access_log {at}/access.log truth;\n\
               client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
               uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
               sendfile on; tcp_nopush on; keepalive_requests 100000000; client_max_body_size 8m;\n\
               gzip on; gzip_types text/plain; gzip_min_length 1; default_type text/plain;\n\
               server {{\n\
                 listen 127.0.0.1:{port} backlog=4096;\n\
                 location = /small {{ return 200 'small\\n'; }}\n\
                 location = /broken {{ return 500 'broken\\n'; }}\n\
                 location = /none {{ return 204; }}\n\
                 location = /moved {{ return 302 /small; }}\n\
                 location / {{ root {www}; }}\n\
               }}\n\
             }}\n",
            www = www.display(),
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new(find_program("nginx").unwrap());
        command.arg("-c").arg(&file).arg("-e").arg(folder.join("error.log"));
        let server = Server::start("nginx", port, &folder.join("nginx.log"), &mut command);
        Self { server, log: folder.join("access.log") }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Size of the log, to be given to [`Nginx::count`].
    pub fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Requests logged behind `from`, by method and status.
    pub fn count(&self, from: u64) -> Counts {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let mut counts = Counts::new();
        for line in String::from_utf8_lossy(&text[from as usize..]).lines() {
            *counts.entry(line.to_string()).or_default() += 1;
        }
        counts
    }
}

/// Method and status of a request line, as nginx logs them.
pub fn name(line: &serde_json::Value) -> String {
    format!("{} {}", line["op"].as_str().unwrap_or("?"), line["code"].as_str().unwrap_or("unanswered"))
}

/// One request on a connection that ends with it. Every read that finds data finds the other end's FIN behind them: the
/// client's is in one segment with the request (where `half_close`), the server's has come before the client reads.
pub fn ask_once(port: u16, request: &[u8], half_close: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let fd = stream.as_raw_fd();
    let flags = if half_close { libc::MSG_MORE } else { 0 };
    // SAFETY: the buffer is as long as said.
    let sent = unsafe { libc::send(fd, request.as_ptr().cast(), request.len(), flags) };
    assert_eq!(sent, request.len() as isize);
    if half_close {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 60_000) }, 1, "the server did not close");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// One connection.
pub struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::with_capacity(64 << 10, stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }

    /// Reads one answer whole; its status.
    pub fn answer(&mut self, bodyless: bool) -> u16 {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
        let (mut length, mut chunked) = (0, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            chunked |= text == "transfer-encoding: chunked";
        }
        if bodyless || status == 204 || status == 304 {
            return status;
        }
        if !chunked {
            self.pass(length);
            return status;
        }
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let size = u64::from_str_radix(line.trim_end(), 16).unwrap();
            self.pass(size + 2);
            if size == 0 {
                return status;
            }
        }
    }

    fn pass(&mut self, count: u64) {
        let moved = std::io::copy(&mut self.stream.by_ref().take(count), &mut std::io::sink()).unwrap();
        assert_eq!(moved, count);
    }

    pub fn get(&mut self, path: &str) -> u16 {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: truth\r\n\r\n").as_bytes());
        self.answer(false)
    }

    /// `count` requests in one write, then their answers.
    pub fn pipeline(&mut self, path: &str, count: usize) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: truth\r\n\r\n").repeat(count).as_bytes());
        for _ in 0..count {
            self.answer(false);
        }
    }

    /// One of each kind of request that decoders find hard.
    pub fn mix(&mut self, round: usize) {
        assert_eq!(self.get("/small"), 200);
        assert_eq!(self.get("/missing"), 404);
        assert_eq!(self.get("/broken"), 500);
        assert_eq!(self.get("/none"), 204);
        assert_eq!(self.get("/moved"), 302);
        assert_eq!(self.get("/medium.txt"), 200);
        if round.is_multiple_of(16) {
            assert_eq!(self.get("/large.txt"), 200);
        }
        self.send(b"HEAD /medium.txt HTTP/1.1\r\nHost: truth\r\n\r\n");
        assert_eq!(self.answer(true), 200);
        self.send(b"GET /medium.txt HTTP/1.1\r\nHost: truth\r\nAccept-Encoding: gzip\r\n\r\n"); // a chunked answer
        assert_eq!(self.answer(false), 200);
        self.send(b"GET /large.txt HTTP/1.1\r\nHost: truth\r\nRange: bytes=100-20099\r\n\r\n");
        assert_eq!(self.answer(false), 206);
        let body = vec![b'x'; 1 + round * 997 % 100_000];
        self.send(format!("POST /small HTTP/1.1\r\nHost: truth\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        self.send(&body);
        assert_eq!(self.answer(false), 200);
        self.send(b"POST /small HTTP/1.1\r\nHost: truth\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(7001).take(5) {
            self.send(format!("{:x}\r\n", chunk.len()).as_bytes());
            self.send(chunk);
            self.send(b"\r\n");
        }
        self.send(b"0\r\n\r\n");
        assert_eq!(self.answer(false), 200);
        // A head that arrives in pieces.
        self.send(b"GET /sma");
        self.send(b"ll HTTP/1.1\r\nHo");
        self.send(b"st: truth\r\n\r");
        self.send(b"\n");
        assert_eq!(self.answer(false), 200);
        self.pipeline("/small", 1 + round % 24);
        self.pipeline("/medium.txt", 3);
    }
}
