//! Whole conversations, one send at a time, as examples for tests. Each is one that a conforming client and server have
//! without pipelining, so that every request can be told from the sends.
#![allow(missing_docs, dead_code)]

use crate::common::{packet, packets_from};

pub const C: bool = true;
pub const S: bool = false;

pub struct Conversation {
    pub protocol: &'static str,
    /// (from the client, bytes)
    pub sends: Vec<(bool, Vec<u8>)>,
    pub ops: Vec<&'static str>,
}

fn sends(list: &[(bool, &[u8])]) -> Vec<(bool, Vec<u8>)> {
    list.iter().map(|(client, bytes)| (*client, bytes.to_vec())).collect()
}

pub const COLUMN: &[u8] = b"\x03def\x04test\x01t\x01t\x02id\x02id\x0c\x3f\0\x0b\0\0\0\x03\x03\x50\0\0\0";
pub const EOF: &[u8] = b"\xfe\0\0\x02\0";
pub const OK: &[u8] = b"\0\x01\0\x02\0\0\0";
/// The OK packet that stands for an EOF (`CLIENT_DEPRECATE_EOF`).
pub const OK_EOF: &[u8] = b"\xfe\0\0\x02\0\0\0";
pub const GREETING: &[u8] = b"\x0a8.0.36\0\x05\0\0\0abcdefgh\0\xff\xff\x08\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0caching_sha2_password\0";

/// A login packet with these capabilities (and those every client has).
pub fn login(capabilities: u32) -> Vec<u8> {
    // PROTOCOL_41, SECURE_CONNECTION, CONNECT_WITH_DB, PLUGIN_AUTH, LONG_PASSWORD.
    let capabilities: u32 = capabilities | 1 << 9 | 1 << 15 | 1 << 3 | 1 << 19 | 1;
    let mut payload = capabilities.to_le_bytes().to_vec();
    payload.extend_from_slice(&[0, 0, 0, 1, 0x21]);
    payload.extend_from_slice(&[0; 23]);
    payload.extend_from_slice(b"root\0\x04abcdshop\0caching_sha2_password\0");
    packet(1, &payload)
}

pub fn http() -> Conversation {
    let list: &[(bool, &[u8])] = &[
        (C, b"GET /a?id=1 HTTP/1.1\r\nHost: h\r\nCookie: secret\r\n\r\n"),
        (S, b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nSet-Cookie: s=1\r\n\r\nhello world\n"),
        (C, b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789"),
        (S, b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nT: v\r\n\r\n"),
        (C, b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n"),
        (S, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        (C, b"HEAD /d HTTP/1.1\nHost: h\n\n"),
        (S, b"HTTP/1.1 200 OK\nContent-Length: 1000\n\n"),
        (C, b"DELETE /e HTTP/1.1\r\nHost: h\r\n\r\n"),
        (S, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
        (C, b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n"),
        (S, b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
    ];
    Conversation { protocol: "http", sends: sends(list), ops: vec!["GET", "POST", "PUT", "HEAD", "DELETE", "GET"] }
}

pub fn redis() -> Conversation {
    let list: &[(bool, &[u8])] = &[
        (C, b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"),
        (S, b"+OK\r\n"),
        (C, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$10\r\n0123456789\r\n"),
        (S, b"+OK\r\n"),
        (C, b"*2\r\n$3\r\nget\r\n$3\r\nkey\r\n"),
        (S, b"$10\r\n0123456789\r\n"),
        (C, b"*2\r\n$6\r\nLRANGE\r\n$1\r\nl\r\n"),
        (S, b"*3\r\n$3\r\nabc\r\n*2\r\n:1\r\n$-1\r\n%1\r\n+k\r\n,1.5\r\n"),
        (C, b"*2\r\n$4\r\nHGET\r\n$3\r\nkey\r\n"),
        (S, b"-WRONGTYPE Operation against a key\r\n"),
        (C, b"*1\r\n$4\r\nPING\r\n"),
        (S, b"+PONG\r\n"),
    ];
    Conversation { protocol: "redis", sends: sends(list), ops: vec!["AUTH", "SET", "GET", "LRANGE", "HGET", "PING"] }
}

/// The commands of a MySQL conversation, without login.
fn mysql_commands(deprecate_eof: bool) -> (Vec<(bool, Vec<u8>)>, Vec<&'static str>) {
    let result = |rows: &[&[u8]]| {
        let mut payloads: Vec<&[u8]> = vec![b"\x02", COLUMN, COLUMN];
        if !deprecate_eof {
            payloads.push(EOF);
        }
        payloads.extend_from_slice(rows);
        payloads.push(if deprecate_eof { OK_EOF } else { EOF });
        packets_from(1, &payloads)
    };
    let mut prepared: Vec<&[u8]> = vec![b"\0\x07\0\0\0\x01\0\x01\0\0\0\0", COLUMN];
    if !deprecate_eof {
        prepared.push(EOF);
    }
    prepared.push(COLUMN);
    if !deprecate_eof {
        prepared.push(EOF);
    }
    let sends = vec![
        (C, packet(0, b"\x03SELECT id, name FROM t WHERE a = 'x' AND b = 5")),
        (S, result(&[b"\x011\x03one", b"\x012\x03two", b"\x013\xfb"])),
        (C, packet(0, b"\x03INSERT INTO t VALUES (1, 'a'), (2, 'b')")),
        (S, packet(1, b"\0\x02\0\x02\0\0\0")),
        (C, packet(0, b"\x16SELECT * FROM t WHERE id = ?")),
        (S, packets_from(1, &prepared)),
        (C, packet(0, b"\x17\x07\0\0\0\0\x01\0\0\0\0\x01\x03\0\x2a\0\0\0")),
        (S, result(&[b"\0\0\x01\0\0\0"])),
        (C, packet(0, b"\x03SELEC 1")),
        (S, packet(1, b"\xff\x28\x04#42000You have an error near 'SELEC 1' at line 1")),
        (C, packet(0, b"\x02shop")),
        (S, packet(1, OK)),
        (C, packet(0, b"\x0e")),
        (S, packet(1, OK)),
    ];
    (sends, vec!["query", "query", "prepare", "execute", "query", "init_db", "ping"])
}

pub fn mysql(deprecate_eof: bool) -> Conversation {
    let (commands, ops) = mysql_commands(deprecate_eof);
    let mut sends = vec![
        (S, packet(0, GREETING)),
        (C, login(if deprecate_eof { 1 << 24 } else { 0 })),
        (S, packets_from(2, &[b"\x01\x03", OK])),
    ];
    sends.extend(commands);
    Conversation { protocol: "mysql", sends, ops }
}

/// Without the login: the recording began later.
pub fn mysql_joined(deprecate_eof: bool) -> Conversation {
    let (sends, ops) = mysql_commands(deprecate_eof);
    Conversation { protocol: "mysql", sends, ops }
}

/// A PostgreSQL message.
pub fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(content.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// Messages, one behind the other.
pub fn messages(list: &[(u8, &[u8])]) -> Vec<u8> {
    list.iter().flat_map(|(kind, content)| message(*kind, content)).collect()
}

pub const ROW_DESCRIPTION: &[u8] = b"\0\x01id\0\0\0\x40\x01\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
pub const ROW: &[u8] = b"\0\x01\0\0\0\x0242";
pub const ERROR: &[u8] = b"SERROR\0VERROR\0C22012\0Mdivision by zero\0Fint.c\0L849\0Rint4div\0\0";
pub const STARTUP: &[u8] = b"\0\0\0\x20\0\x03\0\0user\0app\0database\0shop\0\0";

/// The server's part of a login.
pub fn postgresql_login() -> Vec<u8> {
    messages(&[
        (b'R', b"\0\0\0\0"),
        (b'S', b"server_version\0\x31\x35.8\0"),
        (b'K', b"\0\0\0\x2a\x01\x02\x03\x04"),
        (b'Z', b"I"),
    ])
}

fn postgresql_commands() -> (Vec<(bool, Vec<u8>)>, Vec<&'static str>) {
    let sends = vec![
        (C, message(b'Q', b"SELECT id FROM t WHERE a = 'x' AND b = 5\0")),
        (S, messages(&[(b'T', ROW_DESCRIPTION), (b'D', ROW), (b'D', ROW), (b'C', b"SELECT 2\0"), (b'Z', b"I")])),
        (C, message(b'Q', b"INSERT INTO t VALUES (1, 'a'), (2, 'b')\0")),
        (S, messages(&[(b'C', b"INSERT 0 2\0"), (b'Z', b"I")])),
        (
            C,
            messages(&[
                (b'P', b"s1\0SELECT id FROM t WHERE id = $1\0\0\x01\0\0\0\x17"),
                (b'B', b"\0s1\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x2a\0\0"),
                (b'D', b"P\0"),
                (b'E', b"\0\0\0\0\0"),
                (b'S', b""),
            ]),
        ),
        (
            S,
            messages(&[
                (b'1', b""),
                (b'2', b""),
                (b'T', ROW_DESCRIPTION),
                (b'D', ROW),
                (b'C', b"SELECT 1\0"),
                (b'Z', b"I"),
            ]),
        ),
        (C, message(b'Q', b"SELECT 1/0\0")),
        (S, messages(&[(b'E', ERROR), (b'Z', b"I")])),
        (C, messages(&[(b'B', b"\0s1\0\0\0\0\x01\0\0\0\x0242\0\0"), (b'E', b"\0\0\0\0\0"), (b'S', b"")])),
        (S, messages(&[(b'2', b""), (b'C', b"SELECT 0\0"), (b'Z', b"I")])),
    ];
    (sends, vec!["query", "query", "execute", "query", "execute"])
}

pub fn postgresql() -> Conversation {
    let (commands, ops) = postgresql_commands();
    let mut sends = vec![(C, STARTUP.to_vec()), (S, postgresql_login())];
    sends.extend(commands);
    Conversation { protocol: "postgresql", sends, ops }
}

/// Without the login: the recording began later.
pub fn postgresql_joined() -> Conversation {
    let (sends, ops) = postgresql_commands();
    Conversation { protocol: "postgresql", sends, ops }
}

pub fn memcached() -> Conversation {
    let list: &[(bool, &[u8])] = &[
        (C, b"set key 0 0 10\r\n0123456789\r\n"),
        (S, b"STORED\r\n"),
        (C, b"get key other\r\n"),
        (S, b"VALUE key 0 10\r\n0123456789\r\nVALUE other 3 2\r\nab\r\nEND\r\n"),
        (C, b"get none\r\n"),
        (S, b"END\r\n"),
        (C, b"incr n 5\r\n"),
        (S, b"42\r\n"),
        (C, b"cas key 0 0 3 17\r\nabc\r\n"),
        (S, b"EXISTS\r\n"),
        (C, b"incr key 1\r\n"),
        (S, b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        (C, b"mg key v t\r\n"),
        (S, b"VA 4 t30\r\nabcd\r\n"),
        (C, b"delete key\r\n"),
        (S, b"DELETED\r\n"),
    ];
    let ops = vec!["set", "get", "get", "incr", "cas", "incr", "mg", "delete"];
    Conversation { protocol: "memcached", sends: sends(list), ops }
}

/// Of protocols whose requests are known wherever they are cut.
pub fn all() -> Vec<Conversation> {
    vec![http(), redis(), mysql(false), mysql(true), postgresql()]
}

/// Those, and of protocols in which a request whose line is cut is lost.
pub fn with_lines() -> Vec<Conversation> {
    all().into_iter().chain([memcached()]).collect()
}
