//! A small Redis client over a plain socket, and a Redis server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use super::{Counts, Server, find_program, free_port};

pub struct RedisServer {
    pub server: Server,
}

impl RedisServer {
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(find_program("redis-server").unwrap());
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--port"]);
        command.arg(port.to_string()).arg("--dir").arg(folder);
        Self { server: Server::start("redis", port, &folder.join("redis.log"), &mut command) }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }
}

/// Calls by command, those refused (wrong number of arguments) included, and errors by their first word.
pub fn statistics(client: &mut Redis) -> (Counts, Counts) {
    let (mut calls, mut errors) = (Counts::new(), Counts::new());
    for line in client.ask(&["INFO", "everything"]).lines() {
        let Some((name, values)) = line.split_once(':') else { continue };
        let value = |key: &str| -> u64 {
            values
                .split(',')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
                .map_or(0, |text| text.parse().unwrap())
        };
        if let Some(command) = name.strip_prefix("cmdstat_") {
            // KFR names a command by its first word, Redis counts CONFIG GET and CONFIG SET apart.
            let name = command.split('|').next().unwrap_or(command).to_ascii_uppercase();
            *calls.entry(name).or_default() += value("calls") + value("rejected_calls");
        } else if let Some(error) = name.strip_prefix("errorstat_") {
            errors.insert(error.to_string(), value("count"));
        }
    }
    (calls, errors)
}

/// What was added since `before`.
pub fn difference(after: &Counts, before: &Counts) -> Counts {
    let less = |(name, count): (&String, &u64)| (name.clone(), count - before.get(name).copied().unwrap_or_default());
    after.iter().map(less).filter(|(_, count)| *count > 0).collect()
}

/// One connection.
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::with_capacity(64 << 10, stream) }
    }

    /// Connects from a port that is `wanted`, chosen by the kernel: one that is asked for is another case to it.
    pub fn connect_from(port: u16, wanted: impl Fn(u16) -> bool) -> Self {
        let mut connections = std::iter::repeat_with(|| Self::connect(port)).take(20_000);
        let own_port = |client: &Self| client.stream.get_ref().local_addr().unwrap().port();
        connections.find(|client| wanted(own_port(client))).expect("a port of the wanted kind")
    }

    pub fn ask(&mut self, words: &[&str]) -> String {
        self.send(&command(words));
        self.answer()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Reads one answer whole; the text of a string, error or number.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "$" | "=" => {
                let Ok(length) = rest.parse::<usize>() else { return String::new() };
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            }
            "*" | "~" | ">" => {
                (0..rest.parse::<i64>().unwrap().max(0)).for_each(|_| drop(self.answer()));
                String::new()
            }
            "%" => {
                (0..rest.parse::<i64>().unwrap() * 2).for_each(|_| drop(self.answer()));
                String::new()
            }
            _ => rest.to_string(),
        }
    }

    /// Several commands in one write, then their answers.
    pub fn pipeline(&mut self, commands: &[Vec<u8>]) {
        self.send(&commands.concat());
        commands.iter().for_each(|_| drop(self.answer()));
    }

    /// Commands of several kinds, some of which fail.
    pub fn mix(&mut self, round: usize) {
        let key = format!("key-{}", round % 50);
        self.ask(&["SET", &key, &"v".repeat(1 + round * 31 % 9000)]);
        self.ask(&["GET", &key]);
        self.ask(&["get", "missing"]);
        self.ask(&["LPUSH", &key, "x"]); // WRONGTYPE
        self.ask(&["LPUSH", "list", "a", "b", "c"]);
        self.ask(&["LRANGE", "list", "0", "20"]);
        self.ask(&["GET", "list"]); // WRONGTYPE
        self.ask(&["HSET", "hash", "field", "1"]);
        self.ask(&["HINCRBY", "hash", "field", "1"]);
        self.ask(&["HGETALL", "hash"]);
        self.ask(&["INCRBY", "hash", "1"]); // WRONGTYPE
        self.ask(&["GET"]); // wrong number of arguments
        self.ask(&["MGET", "key-1", "key-2", "key-3"]);
        self.ask(&["CLIENT", "GETNAME"]);
        self.ask(&["EVAL", "return {1,2,{3,'four'}}", "0"]);
        self.ask(&["MULTI"]);
        self.ask(&["INCR", "counter"]);
        self.ask(&["SADD", "set", &key]);
        self.ask(&["EXEC"]);
        self.send(b"PING\r\n"); // an inline command
        self.answer();
        let many: Vec<Vec<u8>> =
            (0..1 + round % 40)
                .map(|number| {
                    if number % 3 == 0 { command(&["INCR", "counter"]) } else { command(&["SETEX", &key, "100", "x"]) }
                })
                .collect();
        self.pipeline(&many);
        // One command in pieces.
        for piece in command(&["SET", "pieces", "a value that arrives in pieces"]).chunks(9) {
            self.send(piece);
        }
        self.answer();
    }
}

/// A command as Redis clients send it.
pub fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}
