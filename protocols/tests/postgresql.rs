//! PostgreSQL by the pages of its protocol documents, and by what a server counted of recorded clients.

mod common;
mod conversations;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Piece, decode, parser, pieces, run};
use conversations::{C, ERROR, ROW, ROW_DESCRIPTION, S, STARTUP, message, messages, postgresql_login};
use kfr_protocols::sql::{Dialect, normalise};
use kfr_protocols::{
    ByteClass, Detected, Exchange, Flags, Options, Output, Prefix, REGISTRY, Side, Start, Status, Streams, SwitchedTo,
    protocol_named,
};

fn talk(mid_stream: bool, sends: &[(bool, Vec<u8>)]) -> Output {
    let sends: Vec<_> = sends.iter().map(|(client, bytes)| (*client, bytes.as_slice())).collect();
    common::talk("postgresql", mid_stream, &sends)
}

fn logged_in(sends: &[(bool, Vec<u8>)]) -> Output {
    let mut all = vec![(C, STARTUP.to_vec()), (S, postgresql_login())];
    all.extend_from_slice(sends);
    talk(false, &all)
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str, rows: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, rows]].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn ready(state: u8) -> Vec<u8> {
    message(b'Z', &[state])
}

fn tag(text: &str) -> Vec<u8> {
    message(b'C', format!("{text}\0").as_bytes())
}

fn error(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0M{text}\0\0").as_bytes())
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let rows = e.rows.map_or("-".into(), |r| r.to_string());
        let code = e.code.as_deref().unwrap_or("-");
        format!("{} {} {:?} {code} {rows}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn several_statements_are_one_request() {
    // protocol-flow.html, "Multiple Statements in a Simple Query".
    let answer = [tag("INSERT 0 2"), message(b'T', ROW_DESCRIPTION), message(b'D', ROW), tag("SELECT 1"), ready(b'I')];
    let failed = [tag("INSERT 0 2"), message(b'E', ERROR), ready(b'I')];
    let text = "INSERT INTO t VALUES (1), (2); SELECT 1; SELECT 1/0";
    let out = logged_in(&[
        (C, query(text)),
        (S, answer.concat()),
        (C, query(text)),
        (S, failed.concat()),
        (C, query("")),
        (S, [message(b'I', b""), ready(b'I')].concat()),
    ]);
    let text = "insert into t values (?+); select ?; select ? / ?";
    let expected = [format!("query {text} Ok - 3"), format!("query {text} Error 22012 -"), "query  Ok - -".into()];
    assert_eq!(short(&out), expected);
    assert_eq!(out.exchanges[1].error.as_deref(), Some("division by zero"));
    assert_eq!(out.exchanges[0].sql.as_ref().and_then(|sql| sql.affected), Some(2));
}

#[test]
fn what_a_pipeline_skips_is_unanswered() {
    // protocol-flow.html, "Pipelining": behind an error everything is skipped up to the Sync.
    let sent = [
        [parse("", "INSERT INTO t VALUES ($1)"), bind("", ""), execute("", 0)].concat(),
        [parse("", "SELECT broken"), bind("", ""), execute("", 0)].concat(),
        [bind("", ""), execute("", 0), sync()].concat(),
        [parse("", "SELECT 3"), bind("", ""), execute("", 0), sync()].concat(),
    ]
    .concat();
    let answer = [
        messages(&[(b'1', b""), (b'2', b""), (b'C', b"INSERT 0 1\0")]),
        [error("42703", "column \"broken\" does not exist"), ready(b'I')].concat(),
        messages(&[(b'1', b""), (b'2', b""), (b'C', b"SELECT 1\0"), (b'Z', b"I")]),
    ]
    .concat();
    let out = logged_in(&[(C, sent.clone()), (S, answer.clone())]);
    let expected = [
        "execute insert into t values (?+) Ok - 1",
        "execute select broken Error 42703 -",
        "execute select broken Unanswered - -",
        "execute select ? Ok - 1",
    ];
    assert_eq!(short(&out), expected);
    assert_eq!(out.exchanges[1].error.as_deref(), Some("column \"broken\" does not exist"));
    // The pieces fit together without a gap: each request begins with its Parse or Bind, the last ends with its Sync.
    let (start, end) = (STARTUP.len() as u64, (STARTUP.len() + sent.len()) as u64);
    assert_eq!(out.exchanges[0].request.start, start);
    assert!(out.exchanges.windows(2).all(|two| two[0].request.end == two[1].request.start));
    assert_eq!(out.exchanges[3].request.end, end);
    let answered = (postgresql_login().len() + answer.len()) as u64;
    assert_eq!(out.exchanges[3].response.as_ref().map(|r| r.end), Some(answered));
    assert_eq!(out.exchanges[2].response, None);
}

#[test]
fn preparing_is_a_request_only_where_it_fails() {
    let describe = message(b'D', b"Ss1\0");
    let prepare = [parse("s1", "SELECT id FROM t WHERE a = $1"), describe, sync()].concat();
    let good = messages(&[(b'1', b""), (b't', b"\0\x01\0\0\0\x17"), (b'T', ROW_DESCRIPTION), (b'Z', b"I")]);
    let bad = [error("42P01", "relation \"t\" does not exist"), ready(b'I')].concat();
    let out = logged_in(&[(C, prepare.clone()), (S, good), (C, prepare.clone()), (S, bad)]);
    assert_eq!(short(&out), ["parse select id from t where a = ? Error 42P01 -"]);
    let failed = &out.exchanges[0];
    assert_eq!(failed.request.end - failed.request.start, parse("s1", "SELECT id FROM t WHERE a = $1").len() as u64);
    // A Bind that fails alone.
    let out = logged_in(&[(C, [bind("", "gone"), sync()].concat()), (S, [error("26000", "x"), ready(b'I')].concat())]);
    assert_eq!(short(&out), ["bind - Error 26000 -"]);
}

#[test]
fn a_commit_that_fails_is_the_error_of_what_it_commits() {
    // A deferred constraint is checked where the Sync ends the implicit transaction.
    let sent = [parse("", "INSERT INTO t VALUES (1)"), bind("", ""), execute("", 0), sync()].concat();
    let answer = [
        messages(&[(b'1', b""), (b'2', b""), (b'C', b"INSERT 0 1\0")]),
        error("23503", "insert or update on table \"t\" violates foreign key constraint \"k\""),
        ready(b'I'),
    ];
    let out = logged_in(&[(C, sent), (S, answer.concat())]);
    assert_eq!(short(&out), ["execute insert into t values (?+) Error 23503 -"]);
}

#[test]
fn a_portal_is_run_in_parts() {
    let first = [parse("", "SELECT id FROM t"), bind("p", ""), execute("p", 2), message(b'H', b"")].concat();
    let some = messages(&[(b'1', b""), (b'2', b""), (b'D', ROW), (b'D', ROW), (b's', b"")]);
    let rest = [execute("p", 2), sync()].concat();
    let out = logged_in(&[
        (C, first),
        (S, some),
        (C, rest),
        (S, messages(&[(b'D', ROW), (b'C', b"SELECT 1\0"), (b'Z', b"T")])),
    ]);
    assert_eq!(short(&out), ["execute select id from t Ok - 2", "execute select id from t Ok - 1"]);
    assert_eq!(out.exchanges[1].flags, Flags::IN_TRANSACTION);
}

#[test]
fn copied_rows_belong_to_the_request_or_the_answer() {
    let rows = [message(b'd', b"1\ta\n"), message(b'd', b"2\tb\n"), message(b'c', b"")].concat();
    let text = query("COPY t FROM STDIN");
    let out = logged_in(&[
        (C, text.clone()),
        (S, message(b'G', b"\0\0\x02\0\0\0\0")),
        (C, rows.clone()),
        (S, [tag("COPY 2"), ready(b'I')].concat()),
        (C, query("COPY t TO STDOUT")),
        (
            S,
            [message(b'H', b"\0\0\0"), message(b'd', b"1\ta\n"), message(b'c', b""), tag("COPY 1"), ready(b'I')]
                .concat(),
        ),
    ]);
    assert_eq!(short(&out), ["query copy t from stdin Ok - 2", "query copy t to stdout Ok - 1"]);
    let request = out.exchanges[0].request.clone();
    assert_eq!(request.end - request.start, (text.len() + rows.len()) as u64);
    assert_eq!(out.exchanges[0].sql.as_ref().and_then(|sql| sql.affected), Some(2));
    assert_eq!(out.exchanges[1].sql, None);
    assert_eq!(out.skipped_bytes, [0, 0]);
}

#[test]
fn a_replication_stream_is_not_read() {
    let out = logged_in(&[
        (C, query("START_REPLICATION SLOT s LOGICAL 0/0")),
        (S, [message(b'W', b"\0\0\0"), message(b'd', b"wal")].concat()),
        (C, message(b'd', b"status")),
    ]);
    assert_eq!(out.exchanges.len(), 1);
    assert_eq!(out.exchanges[0].status, Status::Ok);
    assert_eq!(out.switched, Some(SwitchedTo::Unread));
}

#[test]
fn cancelling_takes_a_connection_of_its_own() {
    let out = talk(false, &[(C, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a\x01\x02\x03\x04".to_vec())]);
    assert_eq!((out.exchanges.len(), out.skipped_bytes), (0, [0, 0]));
    let secret = out.marks.iter().flatten().find(|mark| mark.class == ByteClass::Secret).map(|mark| mark.range.clone());
    assert_eq!(secret, Some(12..16));
}

#[test]
fn encryption_is_asked_for_first() {
    let tls = b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec();
    let gss = b"\0\0\0\x08\x04\xd2\x16\x30".to_vec();
    let rest = [(C, STARTUP.to_vec()), (S, postgresql_login()), (C, query("SELECT 1")), (S, tag("SELECT 1"))];
    let mut refused = vec![(C, gss.clone()), (S, b"N".to_vec()), (C, tls.clone()), (S, b"N".to_vec())];
    refused.extend(rest.clone());
    let out = talk(false, &refused);
    assert_eq!(out.exchanges.len(), 1);
    assert_eq!(out.skipped_bytes, [0, 0]);
    let out = talk(false, &[(C, tls.clone()), (S, b"S".to_vec()), (C, b"\x16\x03\x01\0\x05hello".to_vec())]);
    assert_eq!(out.switched, Some(SwitchedTo::Protocol("tls")));
    assert_eq!(out.skipped_bytes, [10, 0], "what follows is left to the next decoder");
    let out = talk(false, &[(C, gss), (S, b"G".to_vec())]);
    assert_eq!(out.switched, Some(SwitchedTo::Unread));
    // The letter was not seen: what the client does next tells.
    let out = talk(false, &[(C, tls.clone()), (C, b"\x16\x03\x01\0\x05hello".to_vec())]);
    assert_eq!(out.switched, Some(SwitchedTo::Protocol("tls")));
    let mut unseen = vec![(C, tls)];
    unseen.extend(rest);
    assert_eq!(talk(false, &unseen).exchanges.len(), 1);
}

#[test]
fn a_refused_login_is_no_request_and_passwords_are_secret() {
    let password = message(b'p', b"hunter2\0");
    let out = talk(
        false,
        &[
            (C, STARTUP.to_vec()),
            (S, message(b'R', b"\0\0\0\x03")),
            (C, password.clone()),
            (S, message(b'E', b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"app\"\0\0")),
        ],
    );
    assert_eq!(out.exchanges, []);
    let start = STARTUP.len() as u64;
    let secret = |mark: &&kfr_protocols::Mark| mark.side == Side::Client && mark.class == ByteClass::Secret;
    let secret = out.marks.iter().flatten().find(secret).map(|mark| mark.range.clone());
    assert_eq!(secret, Some(start + 5..start + password.len() as u64));
}

#[test]
fn the_state_of_the_transaction_is_told() {
    let out = logged_in(&[
        (C, query("BEGIN")),
        (S, [tag("BEGIN"), ready(b'T')].concat()),
        (C, query("SELEC 'secret'")),
        (S, [error("42601", "syntax error at or near \"SELEC\""), ready(b'E')].concat()),
        (C, query("ROLLBACK")),
        (S, [tag("ROLLBACK"), ready(b'I')].concat()),
    ]);
    let flags: Vec<_> = out.exchanges.iter().map(|e| e.flags).collect();
    let failed = Flags(Flags::IN_TRANSACTION.0 | Flags::FAILED_TRANSACTION.0);
    assert_eq!(flags, [Flags::IN_TRANSACTION, failed, Flags::default()]);
    assert_eq!(out.exchanges[1].error.as_deref(), Some("syntax error at or near \"?\""));
}

#[test]
fn notices_count_and_notifications_answer_nothing() {
    let notice = message(b'N', b"SWARNING\0VWARNING\0C01000\0Mlook\0\0");
    let note = message(b'A', b"\0\0\0\x2anews\0hello\0");
    let out = logged_in(&[
        (S, note.clone()),
        (C, query("DO $$ begin end $$")),
        (S, [notice.clone(), notice, tag("DO"), ready(b'I'), note].concat()),
        (S, message(b'S', b"TimeZone\0UTC\0")),
        (C, query("SELECT 1")),
        (S, [tag("SELECT 1"), ready(b'I')].concat()),
    ]);
    assert_eq!(short(&out), ["query do ? Ok - -", "query select ? Ok - 1"]);
    assert_eq!(out.exchanges[0].sql.as_ref().map(|sql| sql.warnings), Some(2));
    assert_eq!(out.exchanges[1].sql, None);
    let answer = out.exchanges[1].response.clone().unwrap();
    assert_eq!(answer.end - answer.start, (tag("SELECT 1").len() + ready(b'I').len()) as u64);
}

#[test]
fn statements_prepared_before_the_recording_are_unknown() {
    let sent = [bind("", "s7"), execute("", 0), sync()].concat();
    let out = talk(true, &[(C, sent), (S, messages(&[(b'2', b""), (b'C', b"SELECT 4\0"), (b'Z', b"I")]))]);
    assert_eq!(short(&out), ["execute - Ok - 4"]);
    assert_eq!(out.exchanges[0].flags, Flags(Flags::UNKNOWN_STATEMENT.0 | Flags::MID_STREAM.0));
}

#[test]
fn values_are_shown_only_when_asked_for() {
    let sent = [
        message(b'P', b"\0SELECT * FROM t WHERE a = $1 AND b = 'x' AND c = $2\0\0\x02\0\0\0\x17\0\0\0\0"),
        message(b'B', b"\0\0\0\x02\0\x01\0\0\0\x02\0\0\0\x04\0\0\0\x2a\0\0\0\x03abc\0\0"),
        execute("", 0),
        sync(),
    ]
    .concat();
    let answer = messages(&[(b'1', b""), (b'2', b""), (b'C', b"SELECT 0\0"), (b'Z', b"I")]);
    let login = postgresql_login();
    let sends = [(C, STARTUP), (S, login.as_slice()), (C, sent.as_slice()), (S, answer.as_slice())];
    let (_, protocol) = protocol_named("postgresql").unwrap();
    for (literals, target, values) in [
        (false, "select * from t where a = ? and b = ? and c = ?", "?, ?"),
        (true, "SELECT * FROM t WHERE a = $1 AND b = 'x' AND c = $2", "42, 'abc'"),
    ] {
        let start = Start { options: Options { literals }, ..Start::default() };
        let out = run((protocol.parser)(&start).as_mut(), &pieces(&sends));
        assert_eq!(out.exchanges[0].target.as_deref(), Some(target));
        assert_eq!(out.exchanges[0].sql.as_ref().unwrap().parameters.as_deref(), Some(values));
    }
}

#[test]
fn a_cut_answer_keeps_its_end() {
    // The server sends in pieces of 8 KiB that begin anywhere; of each the recorder keeps the first 4 KiB.
    let row = message(b'D', &[&b"\0\x01\0\0\x01\x2c"[..], &[b'x'; 300]].concat());
    let whole = [message(b'T', ROW_DESCRIPTION), row.repeat(60), tag("SELECT 60"), ready(b'I')].concat();
    let mut sends = pieces(&[(C, STARTUP), (S, &postgresql_login()), (C, &query("SELECT a FROM t"))]);
    for part in whole.chunks(8192) {
        sends.push((S, Piece::Bytes(part[..part.len().min(4096)].to_vec())));
        if part.len() > 4096 {
            sends.push((S, Piece::Cut(part.len() as u64 - 4096)));
        }
    }
    let out = run(parser("postgresql", false).as_mut(), &sends);
    assert_eq!(short(&out), ["query select a from t Ok - 60"]);
    assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED);
    assert_eq!(out.exchanges[0].response.as_ref().map(|r| r.end - r.start), Some(whole.len() as u64));
}

#[test]
fn an_execute_whose_head_was_cut_counts() {
    // A large Bind: Execute and Sync are behind what the recorder keeps.
    let large = [&b"\0s1\0\0\0\0\x01\0\0\x80\0"[..], &[b'x'; 0x8000], b"\0\0"].concat();
    let sent = [message(b'B', &large), execute("", 0), sync()].concat();
    let known = [parse("s1", "INSERT INTO t VALUES ($1)"), sync()].concat();
    let mut sends = pieces(&[(C, STARTUP), (S, &postgresql_login()), (C, &known)]);
    sends.extend(pieces(&[(S, &messages(&[(b'1', b""), (b'Z', b"I")])), (C, &sent[..32768])]));
    sends.push((C, Piece::Cut(sent.len() as u64 - 32768)));
    sends.extend(pieces(&[
        (S, &messages(&[(b'2', b""), (b'C', b"INSERT 0 1\0"), (b'Z', b"I")])),
        (C, &query("SELECT 1")),
        (S, &messages(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")])),
    ]));
    let out = run(parser("postgresql", false).as_mut(), &sends);
    assert_eq!(short(&out), ["execute insert into t values (?+) Ok - 1", "query select ? Ok - 1"]);
    assert_eq!(out.exchanges[0].request.end - out.exchanges[0].request.start, sent.len() as u64);
    assert_eq!((out.exchanges[0].flags, out.exchanges[1].flags), (Flags::TRUNCATED, Flags::default()));
}

#[test]
fn a_cut_pipeline_is_counted_by_its_answers() {
    let one = [bind("", "s1"), execute("", 0)].concat();
    let sent = [one.repeat(4), sync()].concat();
    let done = messages(&[(b'2', b""), (b'C', b"INSERT 0 1\0")]);
    let good = [done.repeat(4), ready(b'I')].concat();
    let bad = [done.repeat(2), error("23505", "x"), ready(b'I')].concat();
    let answers = [
        (good, vec!["execute Ok 1", "? Ok 1", "? Ok 1", "? Ok 1", "query Ok 1"]),
        (bad, vec!["execute Ok 1", "? Ok 1", "? Error -", "query Ok 1"]),
    ];
    for (answer, expected) in answers {
        let mut sends = pieces(&[(C, STARTUP), (S, &postgresql_login()), (C, &sent[..one.len()])]);
        sends.push((C, Piece::Cut((sent.len() - one.len()) as u64)));
        sends.extend(pieces(&[(S, &answer), (C, &query("SELECT 1")), (S, &[tag("SELECT 1"), ready(b'I')].concat())]));
        let out = run(parser("postgresql", false).as_mut(), &sends);
        let rows = |e: &Exchange| e.rows.map_or("-".into(), |rows| rows.to_string());
        let found: Vec<_> = out.exchanges.iter().map(|e| format!("{} {:?} {}", e.op, e.status, rows(e))).collect();
        assert_eq!(found, expected);
        let answered: u64 = out.exchanges[..expected.len() - 1]
            .iter()
            .map(|e| e.response.clone().unwrap())
            .map(|r| r.end - r.start)
            .sum();
        assert_eq!(answered, answer.len() as u64);
        assert_eq!(out.exchanges.last().unwrap().flags, Flags::default());
    }
}

fn verdict(client: &[u8], server: &[u8], mid_stream: bool) -> Detected {
    let (_, protocol) = protocol_named("postgresql").unwrap();
    (protocol.detect)(&Prefix { client, server, mid_stream, server_port: Some(5432), ..Prefix::default() })
}

#[test]
fn detection() {
    let login = postgresql_login();
    assert_eq!(verdict(STARTUP, &login, false), Detected::Certain);
    assert_eq!(verdict(b"\0\0\0\x08\x04\xd2\x16\x2f", b"N", false), Detected::Certain);
    assert_eq!(verdict(&query("SELECT 1"), &[tag("SELECT 1"), ready(b'I')].concat(), true), Detected::Certain);
    assert_eq!(verdict(&query("SELECT 1"), b"", true), Detected::Likely);
    assert_eq!(verdict(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"", false), Detected::No);
    assert_eq!(verdict(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\n", true), Detected::No);
    assert_eq!(verdict(b"\x09\0\0\0\x03select 1", b"\x07\0\0\x01\0\0\0\x02\0\0\0", true), Detected::No);
    assert_eq!(verdict(b"", &[&b"\x4a\0\0\0\x0a8.0.36\0"[..], &[7; 60]].concat(), false), Detected::No);
    assert_eq!(verdict(b"\x16\x03\x01\0\xc8\x01\0\0\xc4\x03\x03", b"", false), Detected::No);
    assert_eq!(verdict(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", true), Detected::No);
}

#[test]
fn hostile_clients_and_servers_take_linear_time_and_little_memory() {
    // Lengths that no message has, endless preparing, answers that nobody waits for.
    let piece: [Vec<u8>; 6] = [
        b"Q\xff\xff\xff\xff".to_vec(),
        parse("name", "SELECT 1"),
        bind("portal", "name"),
        sync(),
        message(b'C', b"Sname\0"),
        message(b'd', b"x"),
    ];
    let answers: [Vec<u8>; 5] =
        [tag("SELECT 1"), ready(b'I'), message(b'1', b""), error("XX000", "x"), b"D\0\0\0\x03".to_vec()];
    for sent in &piece {
        for answer in &answers {
            let (mut parser, mut streams, mut out) =
                (parser("postgresql", false), Streams::default(), Output::default());
            streams.client.push(STARTUP);
            for _ in 0..10 {
                streams.client.push(&sent.repeat(10_000));
                parser.parse(&mut streams, &mut out);
                streams.server.push(&answer.repeat(10_000));
                parser.parse(&mut streams, &mut out);
                out.exchanges.clear();
            }
            parser.finish(&mut streams, &mut out);
        }
    }
}

/// Requests of a recording by op, and what they were about.
fn recorded(file: &str, limit: usize) -> (BTreeMap<String, usize>, Vec<Exchange>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/postgresql");
    let (mut ops, mut all) = (BTreeMap::new(), Vec::new());
    for connection in common::connections(&root.join(file)) {
        let (protocol, out) = decode(&connection, limit).unwrap();
        assert_eq!(protocol.name, "postgresql");
        for exchange in out.exchanges {
            *ops.entry(exchange.op.to_string()).or_default() += 1;
            all.push(exchange);
        }
    }
    (ops, all)
}

/// Calls and rows of a statement, of those that the server counts: the ones without an error.
fn calls(all: &[Exchange], text: &str) -> (usize, u64) {
    let these = all.iter().filter(|e| e.status == Status::Ok && e.statement.as_deref() == Some(text));
    (these.clone().count(), these.filter_map(|e| e.rows).sum())
}

#[test]
fn psql_as_the_server_counted() {
    let (ops, all) = recorded("psql.pcap", usize::MAX);
    assert_eq!(ops, BTreeMap::from([("query".into(), 31)]));
    // pg_stat_statements: calls, rows.
    for (text, counted) in [
        ("select name from items where id = ?", (2, 2)),
        ("select id, name from items where price > ? order by id", (1, 2)),
        ("update items set price = price * ? where id in (?+)", (1, 2)),
        ("insert into items values (?+)", (1, 3)),
        ("delete from items where id = ?", (1, 1)),
        ("select count(*) from items where tags ? ?", (1, 1)),
        ("copy items to stdout", (1, 3)),
        ("copy items (id, name) from stdin", (1, 3)),
        ("select repeat(?, ?) from generate_series(?, ?)", (1, 60)),
        // Three calls of the server's: 1, 2 and 1 rows.
        ("select ?; select ? union all select ?; update items set price = ? where id = ?", (1, 4)),
    ] {
        assert_eq!(calls(&all, text), counted, "{text}");
    }
    let codes: Vec<_> = all.iter().filter_map(|e| e.code.as_deref()).collect();
    assert_eq!(codes, ["22012", "42P01", "23505", "22P02", "42601", "25P02", "57014"]);
    let warned: u16 = all.iter().filter_map(|e| e.sql.as_ref()).map(|sql| sql.warnings).sum();
    assert_eq!(warned, 2);
    // With the payload cut as the recorder cuts it, no request and no row is lost.
    let (_, cut) = recorded("psql.pcap", 4096);
    let facts = |all: &[Exchange]| -> Vec<_> {
        all.iter().map(|e| (e.request.clone(), e.response.clone(), e.status, e.rows)).collect()
    };
    assert_eq!(facts(&cut), facts(&all));
}

#[test]
fn drivers_as_the_server_counted() {
    // psycopg 3 with pipelines and a cursor, asyncpg with portals and a timeout that cancels.
    let (ops, all) = recorded("drivers.pcap", usize::MAX);
    let expected = [("execute", 34), ("parse", 1), ("query", 5)];
    assert_eq!(ops, expected.map(|(op, count)| (op.to_owned(), count)).into());
    for (text, counted) in [
        ("select name from items where id = ?", (5, 3)),
        ("select id, name from items where id >= ? and name <> ?", (3, 17)),
        // 4 + 1 by psycopg, of which the last was rolled back; 6 by asyncpg.
        ("insert into log (word) values (?+)", (11, 11)),
        ("select count(*) from log where word <> ?", (1, 1)),
        ("fetch forward ? from \"walk\"", (3, 25)),
        ("copy log (word) from stdin", (1, 20)),
        ("copy log (word) to stdout", (1, 24)),
        // The server counts a portal once, with the rows of its last run; each Execute is a request.
        ("select g from generate_series(?, ?::int) g", (3, 25)),
    ] {
        assert_eq!(calls(&all, text), counted, "{text}");
    }
    let failed: Vec<_> = all.iter().filter_map(|e| Some((&*e.op, e.code.as_deref()?))).collect();
    assert_eq!(failed, [("execute", "42P01"), ("execute", "22012"), ("parse", "42703"), ("execute", "57014")]);
    assert_eq!(all.iter().filter(|e| e.status == Status::Unanswered).count(), 1);
}

#[test]
fn pgbench_as_the_server_counted() {
    // pgbench -M prepared -c 2 -t 8: 16 transactions of 7 statements, and two queries of its own.
    let (ops, all) = recorded("pgbench.pcap", usize::MAX);
    assert_eq!(ops, BTreeMap::from([("execute".into(), 112), ("query".into(), 2)]));
    for text in [
        "update pgbench_accounts set abalance = abalance + ? where aid = ?",
        "select abalance from pgbench_accounts where aid = ?",
        "update pgbench_tellers set tbalance = tbalance + ? where tid = ?",
        "update pgbench_branches set bbalance = bbalance + ? where bid = ?",
        "insert into pgbench_history (tid, bid, aid, delta, mtime) values (?, ?, ?, ?, current_timestamp)",
    ] {
        assert_eq!(calls(&all, text), (16, 16), "{text}");
    }
    assert!(all.iter().all(|e| e.status == Status::Ok));
}

#[test]
fn recordings_joined_anywhere_agree_with_the_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/postgresql");
    let mut joined = 0;
    for file in ["psql.pcap", "drivers.pcap", "pgbench.pcap"] {
        for connection in common::connections(&root.join(file)) {
            let (_, whole) = decode(&connection, usize::MAX).unwrap();
            let mut at = 0;
            for (index, (client, piece)) in connection.pieces.iter().enumerate() {
                let Piece::Bytes(bytes) = piece else { continue };
                let start = at;
                at += if *client { bytes.len() as u64 } else { 0 };
                // Answers to requests under way when the recording began can't be told from later ones.
                let begins = |e: &Exchange| e.request.start == start && !e.flags.contains(Flags::PIPELINED);
                if !client || !whole.exchanges.iter().any(begins) {
                    continue;
                }
                let late = common::Connection {
                    pieces: connection.pieces[index..].to_vec(),
                    mid_stream: true,
                    ports: connection.ports,
                    datagrams: false,
                };
                let Some((protocol, out)) = decode(&late, usize::MAX) else { panic!("{file} from {index}: nothing") };
                assert_eq!(protocol.name, "postgresql", "{file} from {index}");
                let facts = |e: &Exchange, from: u64| {
                    let answer = e.response.as_ref().map(|answer| answer.end - answer.start);
                    (e.op.clone(), e.status, e.rows, e.code.clone(), e.request.start - from, answer)
                };
                let found: Vec<_> = out.exchanges.iter().map(|e| facts(e, 0)).collect();
                let rest = whole.exchanges.iter().filter(|e| e.request.start >= start);
                assert_eq!(found, rest.map(|e| facts(e, start)).collect::<Vec<_>>(), "{file} from {index}");
                joined += 1;
            }
        }
    }
    assert!(joined > 100, "{joined}");
}

#[test]
fn what_is_told_of_cut_recordings_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/postgresql");
    for file in ["psql.pcap", "drivers.pcap", "pgbench.pcap"] {
        for connection in common::connections(&root.join(file)) {
            let (_, whole) = decode(&connection, usize::MAX).unwrap();
            for limit in (16..200).step_by(3).chain([300, 500, 1000, 2000, 4096]) {
                let Some((_, cut)) = decode(&connection, limit) else { continue };
                let named = cut.exchanges.iter().filter(|e| !e.request.is_empty());
                let mut starts: Vec<_> = named.map(|e| e.request.start).collect();
                starts.sort_unstable();
                assert!(starts.windows(2).all(|two| two[0] != two[1]), "{file} {limit}: {starts:?}");
                // Of a pipeline that goes on in a hole, requests are known by their answers only.
                for found in cut.exchanges.iter().filter(|e| !e.request.is_empty()) {
                    let Some(true_one) = whole.exchanges.iter().find(|e| e.request.start == found.request.start) else {
                        assert!(found.flags.contains(Flags::TRUNCATED), "{file} {limit}: {found:#?}");
                        continue;
                    };
                    let context = format!("{file} {limit}: {found:#?} is {true_one:#?}");
                    if !found.flags.contains(Flags::PIPELINED) {
                        assert!(found.status == Status::Unknown || found.status == true_one.status, "{context}");
                        assert!(found.rows.is_none() || found.rows == true_one.rows, "{context}");
                    }
                    assert!(found.code.is_none() || found.code == true_one.code, "{context}");
                }
                if file != "drivers.pcap" && limit > 64 {
                    assert_eq!(cut.exchanges.len(), whole.exchanges.len(), "{file} {limit}");
                }
            }
        }
    }
}

#[test]
fn first_requests_of_shared_captures() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = Path::new(&shared).join("captures");
    let mut compared = 0;
    for line in std::fs::read_to_string(root.join("expected.jsonl")).unwrap().lines() {
        let expected: serde_json::Value = serde_json::from_str(line).unwrap();
        let file = expected["file"].as_str().unwrap();
        let Some(first) = expected["first_request"].as_str().filter(|_| file.starts_with("postgresql/")) else {
            continue;
        };
        let connections = common::connections(&root.join(file));
        let found = connections.iter().filter_map(|one| decode(one, usize::MAX)).flat_map(|(_, out)| out.exchanges);
        let statement = found.map(|e| e.statement).find(Option::is_some).flatten();
        let expected = normalise(first.as_bytes(), Dialect::PostgreSql, false);
        assert_eq!(statement.as_deref(), Some(expected.as_str()), "{file}");
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}

#[test]
fn nothing_of_other_protocols_is_claimed() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let root = Path::new(&shared).join("captures");
    let number = REGISTRY.iter().position(|protocol| protocol.name == "postgresql").unwrap();
    let mut claimed = Vec::new();
    for line in std::fs::read_to_string(root.join("expected.jsonl")).unwrap().lines() {
        let expected: serde_json::Value = serde_json::from_str(line).unwrap();
        let file = expected["file"].as_str().unwrap();
        let seen = expected["protocols_seen"].as_array().is_some_and(|all| all.iter().any(|name| name == "pgsql"));
        if seen || file.starts_with("postgresql/") {
            continue;
        }
        for connection in common::connections(&root.join(file)) {
            // As it is, and as if the recording had begun later.
            for first in [0, 1, 2, 5] {
                let late = common::Connection {
                    pieces: connection.pieces.get(first..).unwrap_or_default().to_vec(),
                    mid_stream: connection.mid_stream || first > 0,
                    ports: connection.ports,
                    datagrams: connection.datagrams,
                };
                let found = decode(&late, usize::MAX);
                if found.is_some_and(|(_, out)| out.exchanges.iter().any(|e| e.protocol == Some(number as u16))) {
                    claimed.push(format!("{file} {:?} from {first}", connection.ports));
                }
            }
        }
    }
    assert_eq!(claimed, [""; 0]);
}
