//! Conversations as an application would hold them, with what KFR has to say about each.

use super::Random;

/// A protocol spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    Http,
    Redis,
    MySql,
}

impl Talk {
    pub const ALL: [Self; 3] = [Self::Http, Self::Redis, Self::MySql];

    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Redis => 6379,
            Self::MySql => 3306,
        }
    }
}

/// Bytes that one side writes.
#[derive(Debug, Clone)]
pub struct Message {
    pub from_client: bool,
    pub bytes: Vec<u8>,
}

/// What a request line must say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    pub op: String,
    pub status: &'static str,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// A conversation and its requests.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub expected: Vec<Expected>,
}

/// A request's bytes, its answer's, its name, and how it ends.
type Turn = (Vec<u8>, Vec<u8>, &'static str, &'static str);

impl Conversation {
    /// About `requests` requests, up to `pipeline` of them in one write, bodies up to `body` bytes.
    pub fn new(talk: Talk, requests: usize, pipeline: usize, body: usize, random: &mut Random) -> Self {
        let mut conversation = Self::default();
        let mut statements = 0;
        if talk == Talk::MySql {
            conversation.log_in();
        }
        while conversation.expected.len() < requests {
            let count = 1 + random.below(pipeline as u64) as usize;
            // MySQL clients wait for each answer.
            let count = if talk == Talk::MySql { 1 } else { count };
            let turns: Vec<Turn> = (0..count)
                .map(|_| match talk {
                    Talk::Http => http(body, random),
                    Talk::Redis => redis(body, random),
                    Talk::MySql => mysql(body, &mut statements, random),
                })
                .collect();
            conversation.say(true, turns.iter().flat_map(|turn| turn.0.iter().copied()).collect());
            conversation.say(false, turns.iter().flat_map(|turn| turn.1.iter().copied()).collect());
            conversation.expected.extend(turns.into_iter().map(|(request, response, op, status)| Expected {
                op: op.to_string(),
                status,
                request_bytes: request.len() as u64,
                response_bytes: response.len() as u64,
            }));
        }
        conversation
    }

    fn say(&mut self, from_client: bool, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.messages.push(Message { from_client, bytes });
        }
    }

    /// MySQL's greeting, login and OK (protocol 10; 4.1, secure connection, plugin authentication).
    fn log_in(&mut self) {
        let capabilities: u32 = 1 | 0x200 | 0x8000 | 0x0002_0000 | 0x0008_0000;
        let mut greeting = b"\x0a8.0.36\0\x07\0\0\0abcdefgh\0".to_vec();
        greeting.extend_from_slice(&capabilities.to_le_bytes()[..2]);
        greeting.extend_from_slice(&[33, 2, 0]);
        greeting.extend_from_slice(&capabilities.to_le_bytes()[2..]);
        greeting.push(21);
        greeting.extend_from_slice(&[0; 10]);
        greeting.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
        self.say(false, packet(0, &greeting));
        let mut login = capabilities.to_le_bytes().to_vec();
        login.extend_from_slice(&(16u32 << 20).to_le_bytes());
        login.push(33);
        login.extend_from_slice(&[0; 23]);
        login.extend_from_slice(b"app\0\0mysql_native_password\0");
        self.say(true, packet(1, &login));
        self.say(false, packet(2, &[0, 0, 0, 2, 0, 0, 0]));
    }
}

fn text(length: usize, random: &mut Random) -> Vec<u8> {
    const WORDS: &[u8] = b"the quick brown fox jumps over the lazy dog while nobody looks at it again ";
    let start = random.below(WORDS.len() as u64) as usize;
    WORDS.iter().copied().cycle().skip(start).take(length).collect()
}

fn http(body: usize, random: &mut Random) -> Turn {
    let length = random.below(body as u64 + 1) as usize;
    let item = random.below(1000);
    match random.below(6) {
        0 => {
            let sent = text(length, random);
            let mut request =
                format!("POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n").into_bytes();
            request.extend_from_slice(&sent);
            (request, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n".to_vec(), "POST", "ok")
        }
        1 => {
            let request = format!("GET /missing/{item} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes();
            (request, b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone".to_vec(), "GET", "error")
        }
        2 => {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in text(length, random).chunks(700) {
                answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                answer.extend_from_slice(chunk);
                answer.extend_from_slice(b"\r\n");
            }
            answer.extend_from_slice(b"0\r\n\r\n");
            (format!("GET /stream/{item} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes(), answer, "GET", "ok")
        }
        3 => {
            let request = format!("HEAD /items/{item} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes();
            (request, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes(), "HEAD", "ok")
        }
        _ => {
            let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
            answer.extend_from_slice(&text(length, random));
            (format!("GET /items/{item} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes(), answer, "GET", "ok")
        }
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn redis(body: usize, random: &mut Random) -> Turn {
    let length = random.below(body as u64 + 1) as usize;
    let key = format!("key:{}", random.below(1000)).into_bytes();
    match random.below(6) {
        0 => (command(&[b"SET", &key, &text(length, random)]), b"+OK\r\n".to_vec(), "SET", "ok"),
        1 => (command(&[b"GET", &key]), b"$-1\r\n".to_vec(), "GET", "ok"),
        2 => {
            let error = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n".to_vec();
            (command(&[b"LPUSH", &key, b"x"]), error, "LPUSH", "error")
        }
        3 => {
            let mut answer = b"*3\r\n".to_vec();
            for _ in 0..3 {
                answer.extend_from_slice(format!("${}\r\n", length / 3).as_bytes());
                answer.extend_from_slice(&text(length / 3, random));
                answer.extend_from_slice(b"\r\n");
            }
            (command(&[b"LRANGE", &key, b"0", b"2"]), answer, "LRANGE", "ok")
        }
        4 => (command(&[b"INCR", &key]), format!(":{}\r\n", random.below(100_000)).into_bytes(), "INCR", "ok"),
        _ => {
            let mut answer = format!("${length}\r\n").into_bytes();
            answer.extend_from_slice(&text(length, random));
            answer.extend_from_slice(b"\r\n");
            (command(&[b"GET", &key]), answer, "GET", "ok")
        }
    }
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(sequence);
    bytes.extend_from_slice(payload);
    bytes
}

fn column(sequence: u8, kind: u8) -> Vec<u8> {
    let mut payload = b"\x03def\x00\x00\x00\x01n\x00\x0c\x21\x00\xff\x00\x00\x00".to_vec();
    payload.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
    packet(sequence, &payload)
}

/// A result set of one column; `row` makes the payload of a row.
fn rows(count: usize, kind: u8, row: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let eof = [0xfe, 0, 0, 2, 0];
    let mut answer = [packet(1, &[1]), column(2, kind), packet(3, &eof)].concat();
    let mut sequence = 4u8;
    for number in 0..count {
        answer.extend_from_slice(&packet(sequence, &row(number)));
        sequence = sequence.wrapping_add(1);
    }
    answer.extend_from_slice(&packet(sequence, &eof));
    answer
}

fn mysql(body: usize, statements: &mut u32, random: &mut Random) -> Turn {
    let length = random.below(body as u64 + 1) as usize;
    let id = random.below(1000);
    let ok = packet(1, &[0, 1, 0, 2, 0, 0, 0]);
    let row_text = text(60, random);
    let text_row = |_: usize| [&[60u8][..], &row_text].concat();
    match random.below(7) {
        0 => (packet(0, format!("\x03UPDATE items SET n = {id}").as_bytes()), ok, "query", "ok"),
        1 => {
            let error = packet(1, b"\xff\x28\x04#42000You have an error in your SQL syntax");
            (packet(0, format!("\x03SELEKT {id}").as_bytes()), error, "query", "error")
        }
        2 => {
            *statements += 1;
            let mut prepared = vec![0];
            prepared.extend_from_slice(&statements.to_le_bytes());
            prepared.extend_from_slice(&[1, 0, 1, 0, 0, 0, 0]);
            let eof = packet(3, &[0xfe, 0, 0, 2, 0]);
            let answer =
                [packet(1, &prepared), column(2, 8), eof, column(4, 8), packet(5, &[0xfe, 0, 0, 2, 0])].concat();
            (packet(0, b"\x16SELECT n FROM items WHERE id = ?"), answer, "prepare", "ok")
        }
        3 if *statements > 0 => {
            let mut execute = vec![0x17];
            execute.extend_from_slice(&(1 + random.below(u64::from(*statements)) as u32).to_le_bytes());
            execute.extend_from_slice(&[0, 1, 0, 0, 0, 0, 1, 8, 0]);
            execute.extend_from_slice(&id.to_le_bytes());
            let row = |number: usize| [&[0u8, 0][..], &(number as u64).to_le_bytes()].concat();
            (packet(0, &execute), rows(length / 14, 8, row), "execute", "ok")
        }
        4 => (packet(0, b"\x0e"), ok, "ping", "ok"),
        _ => {
            let sql = format!("\x03SELECT n FROM items WHERE id > {id} AND name = 'somebody {id}'");
            (packet(0, sql.as_bytes()), rows(length / 65, 253, text_row), "query", "ok")
        }
    }
}
