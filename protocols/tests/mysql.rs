//! MySQL and MariaDB by the pages of their protocol documents, which are named where a packet comes from one.

mod common;
mod conversations;

use common::{Piece, packet, packets_from, parser, run};
use conversations::{C, COLUMN, EOF, GREETING, OK, OK_EOF, S, login};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, REGISTRY, Status, SwitchedTo};

fn mysql(mid_stream: bool, sends: &[(bool, Vec<u8>)]) -> Output {
    let pieces: Vec<_> = sends.iter().map(|(client, bytes)| (*client, Piece::Bytes(bytes.clone()))).collect();
    run(parser("mysql", mid_stream).as_mut(), &pieces)
}

/// A connection after a login with these capabilities.
fn logged_in(capabilities: u32, sends: &[(bool, Vec<u8>)]) -> Output {
    let mut all = vec![(S, packet(0, GREETING)), (C, login(capabilities)), (S, packet(2, OK))];
    all.extend_from_slice(sends);
    mysql(false, &all)
}

fn query(text: &str) -> Vec<u8> {
    packet(0, &[b"\x03", text.as_bytes()].concat())
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let rows = e.rows.map_or("-".into(), |r| r.to_string());
        format!("{} {} {:?} {rows}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn rows_and_affected_rows() {
    let result = packets_from(1, &[b"\x01", COLUMN, EOF, b"\x011", b"\x012", EOF]);
    let out = logged_in(
        0,
        &[
            (C, query("SELECT id FROM t WHERE a = 'x'")),
            (S, result),
            (C, query("UPDATE t SET a = 5")),
            (S, packet(1, b"\0\x07\0\x02\0\0\0")),
        ],
    );
    assert_eq!(short(&out), ["query select id from t where a = ? Ok 2", "query update t set a = ? Ok 7"]);
    assert_eq!(out.exchanges[0].statement.as_deref(), Some("select id from t where a = ?"));
    assert_eq!(out.skipped_bytes, [0, 0]);
}

#[test]
fn errors_have_a_code_and_a_masked_message() {
    let error = packet(1, b"\xff\x28\x04#42000You have an error in your SQL syntax near 'x = 'secret'' at line 1");
    let out = logged_in(0, &[(C, query("SELEC")), (S, error)]);
    assert_eq!(out.exchanges[0].code.as_deref(), Some("1064"));
    assert_eq!(out.exchanges[0].error.as_deref(), Some("You have an error in your SQL syntax near '?' at line 1"));
    assert_eq!(out.exchanges[0].rows, None);
}

#[test]
fn several_results_are_one_answer() {
    // page_protocol_command_phase_sp.html: SERVER_MORE_RESULTS_EXISTS (8) in EOF and OK.
    let more: &[u8] = b"\xfe\0\0\x0a\0";
    let results = packets_from(
        1,
        &[b"\x01", COLUMN, EOF, b"\x011", more, b"\0\x02\0\x0a\0\0\0", b"\x01", COLUMN, EOF, more, b"\0\0\0\x02\0\0\0"],
    );
    let out = logged_in(0, &[(C, query("CALL p()")), (S, results), (C, packet(0, b"\x0e")), (S, packet(1, OK))]);
    // One row was sent; the two that were changed are told apart.
    assert_eq!(short(&out), ["query call p() Ok 1", "ping - Ok -"]);
    assert_eq!(out.exchanges[0].sql.as_ref().and_then(|facts| facts.affected), Some(2));
}

#[test]
fn without_eof_packets() {
    // CLIENT_DEPRECATE_EOF: page_protocol_com_query_response_text_resultset.html.
    let result = packets_from(1, &[b"\x01", COLUMN, b"\x011", OK_EOF]);
    let empty = packets_from(1, &[b"\x01", COLUMN, OK_EOF]);
    let sends = [(C, query("SELECT 1")), (S, result), (C, query("SELECT 2")), (S, empty)];
    let expected = ["query select ? Ok 1", "query select ? Ok 0"];
    assert_eq!(short(&logged_in(1 << 24, &sends)), expected);
    assert_eq!(short(&mysql(true, &sends)), expected);
}

#[test]
fn a_file_is_sent_in_between() {
    // page_protocol_com_query_response_local_infile_request.html.
    let mut file = packet(2, b"1,2,3\n");
    file.extend(packet(3, b"4,5,6\n"));
    file.extend(packet(4, b""));
    let out = logged_in(
        0,
        &[
            (C, query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t")),
            (S, packet(1, b"\xfbx")),
            (C, file),
            (S, packet(5, b"\0\x02\0\x02\0\0\0")),
            (C, packet(0, b"\x01")),
        ],
    );
    assert_eq!(short(&out), ["query load data local infile ? into table t Ok 2", "quit - Ok -"]);
    assert_eq!(out.exchanges[1].flags, Flags::NO_REPLY);
    assert_eq!(out.exchanges[0].request.end, out.exchanges[1].request.start);
}

#[test]
fn prepared_statements_are_known_by_their_number() {
    let prepare = packet(0, b"\x16SELECT a FROM t WHERE id = ?");
    let prepared = packets_from(1, &[b"\0\x01\0\0\0\x01\0\x01\0\0\0\0", COLUMN, EOF, COLUMN, EOF]);
    let execute = packet(0, b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x03\0\x2a\0\0\0");
    let rows = packets_from(1, &[b"\x01", COLUMN, EOF, b"\0\0\x01\0\0\0", EOF]);
    let out = logged_in(
        0,
        &[
            (C, prepare),
            (S, prepared),
            (C, execute.clone()),
            (S, rows.clone()),
            (C, packet(0, b"\x18\x01\0\0\0\0\0long")),
            (C, packet(0, b"\x1a\x01\0\0\0")),
            (S, packet(1, OK)),
            (C, packet(0, b"\x19\x01\0\0\0")),
            (C, execute.clone()),
            (S, rows.clone()),
        ],
    );
    let text = "select a from t where id = ?";
    assert_eq!(
        short(&out),
        [
            format!("prepare {text} Ok -"),
            format!("execute {text} Ok 1"),
            format!("send_long_data {text} Ok -"),
            format!("reset {text} Ok -"),
            format!("close {text} Ok -"),
            "execute - Ok 1".into()
        ]
    );
    assert_eq!(out.exchanges[5].flags, Flags::UNKNOWN_STATEMENT);
    // Opened before the recording: the statement is unknown, all else isn't.
    let out = mysql(true, &[(C, execute), (S, rows)]);
    assert_eq!(short(&out), ["execute - Ok 1"]);
    assert!(out.exchanges[0].flags.contains(Flags::UNKNOWN_STATEMENT));
}

#[test]
fn a_cursor_is_fetched_from() {
    // SERVER_STATUS_CURSOR_EXISTS (0x40) in the EOF behind the columns: no rows follow.
    let opened = packets_from(1, &[b"\x01", COLUMN, b"\xfe\0\0\x42\0"]);
    let opened_new = packets_from(1, &[b"\x01", COLUMN, b"\xfe\0\0\x42\0\0\0"]);
    for opened in [opened, opened_new] {
        let out = logged_in(
            0,
            &[
                (C, packet(0, b"\x17\x01\0\0\0\x01\x01\0\0\0")),
                (S, opened),
                (C, packet(0, b"\x1c\x01\0\0\0\x02\0\0\0")),
                (S, packets_from(1, &[b"\0\0\x01", b"\0\0\x02", b"\xfe\0\0\x82\0"])),
            ],
        );
        assert_eq!(short(&out), ["execute - Ok 0", "fetch - Ok 2"]);
    }
}

#[test]
fn mariadb_executes_what_it_has_just_prepared() {
    // mariadb.com/kb/en/com_stmt_execute: statement -1; 0xfa is COM_STMT_BULK_EXECUTE.
    let mut sent = packet(0, b"\x16INSERT INTO t VALUES (?)");
    sent.extend(packet(0, b"\xfa\xff\xff\xff\xff\x80\0\x03\0\0\x01\0\0\0"));
    let mut answers = packets_from(1, &[b"\0\x05\0\0\0\0\0\x01\0\0\0\0", COLUMN, EOF]);
    answers.extend(packet(1, b"\0\x09\0\x02\0\0\0"));
    let out = logged_in(0, &[(C, sent), (S, answers)]);
    assert_eq!(short(&out), ["prepare insert into t values (?+) Ok -", "bulk_execute insert into t values (?+) Ok 9"]);
    assert!(out.exchanges[1].flags.contains(Flags::PIPELINED));
}

#[test]
fn mariadb_leaves_out_columns_and_reports_progress() {
    // mariadb.com/kb/en/result-set-packets: the second byte of the count says that no columns follow.
    let cached = packets_from(1, &[b"\x02\0", EOF, b"\x011\x012", EOF]);
    let cached_new = packets_from(1, &[b"\x02\0", b"\x011\x012", OK_EOF]);
    let progress = packets_from(1, &[b"\xff\xff\xff\x01\x02\0\0\0\x05table", OK]);
    let out = mysql(
        true,
        &[
            (C, query("SELECT 1, 2")),
            (S, cached),
            (C, query("SELECT 1, 2")),
            (S, cached_new),
            (C, query("ALTER TABLE t ENGINE=x")),
            (S, progress),
        ],
    );
    assert_eq!(
        short(&out),
        ["query select ?, ? Ok 1", "query select ?, ? Ok 1", "query alter table t engine = x Ok 1"]
    );
}

#[test]
fn a_prepare_joined_in_the_middle_ends_with_or_without_an_eof() {
    let without = packets_from(1, &[b"\0\x01\0\0\0\0\0\x01\0\0\0\0", COLUMN]);
    let with = packets_from(1, &[b"\0\x01\0\0\0\0\0\x01\0\0\0\0", COLUMN, EOF]);
    for answer in [with, without] {
        let sends = [
            (C, packet(0, b"\x16INSERT INTO t VALUES (?)")),
            (S, answer.clone()),
            (C, packet(0, b"\x0e")),
            (S, packet(1, OK)),
        ];
        let out = mysql(true, &sends);
        assert_eq!(short(&out), ["prepare insert into t values (?+) Ok -", "ping - Ok -"]);
        assert_eq!(out.exchanges[0].response, Some(0..answer.len() as u64));
        assert_eq!(out.exchanges[1].flags, Flags::default());
    }
}

#[test]
fn packets_of_sixteen_megabytes_go_on() {
    // page_protocol_basic_packets.html: sending more than 16 MiB.
    let text = vec![b'x'; 0xff_ffff - 1];
    let mut sent = packet(0, &[b"\x03", &text[..]].concat());
    sent.extend(packet(1, b"rest"));
    let row = vec![b'y'; 0xff_ffff];
    let mut answer = packets_from(2, &[b"\x01", COLUMN, EOF]);
    answer.extend(packet(5, &row));
    answer.extend(packet(6, b"\xfe end of the row"));
    answer.extend(packet(7, EOF));
    let out = logged_in(0, &[(C, sent.clone()), (S, answer), (C, packet(0, b"\x0e")), (S, packet(1, OK))]);
    assert_eq!(out.exchanges.len(), 2);
    assert_eq!(out.exchanges[0].rows, Some(1));
    assert_eq!(out.exchanges[0].request.end - out.exchanges[0].request.start, sent.len() as u64);
    assert_eq!(out.exchanges[1].flags, Flags::default());
}

#[test]
fn the_user_changes() {
    // page_protocol_com_change_user.html: the answer may ask back.
    let out = logged_in(
        0,
        &[
            (C, packet(0, b"\x11root\0\x04abcdshop\0")),
            (S, packet(1, b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0")),
            (C, packet(2, b"0123456789abcdef0123456789abcdef")),
            (S, packets_from(3, &[b"\x01\x03", OK])),
            (C, packet(0, b"\x1f")),
            (S, packet(1, OK)),
        ],
    );
    assert_eq!(short(&out), ["change_user - Ok -", "reset_connection - Ok -"]);
}

#[test]
fn tls_ends_reading() {
    // page_protocol_connection_phase_packets_protocol_ssl_request.html.
    let mut request = (1u32 << 11 | 1 << 9).to_le_bytes().to_vec();
    request.extend_from_slice(&[0; 28]);
    let tls = b"\x16\x03\x01\x02\0\x01rest".to_vec();
    let out = mysql(false, &[(S, packet(0, GREETING)), (C, packet(1, &request)), (C, tls.clone()), (S, tls)]);
    assert_eq!(out.exchanges.len(), 0);
    assert_eq!(out.switched, Some(SwitchedTo::Protocol("tls")));
    assert_eq!(out.skipped_bytes, [10, 10]);
}

#[test]
fn the_last_end_of_a_result_tells_of_index_warnings_and_transaction() {
    // SERVER_STATUS_flags_enum: IN_TRANS 1, MORE_RESULTS 8, NO_GOOD_INDEX 0x10, NO_INDEX 0x20, WAS_SLOW 0x800.
    let behind_columns: &[u8] = b"\xfe\x07\0\x21\0";
    let result = packets_from(1, &[b"\x01", COLUMN, behind_columns, b"\x011", b"\xfe\x03\0\x10\x08"]);
    let several = packets_from(1, &[b"\0\x02\0\x29\0\x05\0", b"\0\x01\0\x01\0\0\0"]);
    let pong = packet(1, b"\0\0\0\x01\0\0\0");
    let plain = packet(1, b"\0\0\0\x02\0\0\0");
    let out = logged_in(
        0,
        &[
            (C, query("SELECT 1")),
            (S, result),
            (C, query("UPDATE t SET a = 1; UPDATE t SET b = 1")),
            (S, several),
            (C, packet(0, b"\x0e")),
            (S, pong),
            (C, query("SET @a = 1")),
            (S, plain),
        ],
    );
    let flags: Vec<_> = out.exchanges.iter().map(|e| e.flags).collect();
    let all = |list: &[Flags]| Flags(list.iter().fold(0, |all, flag| all | flag.0));
    assert_eq!(
        flags,
        [
            all(&[Flags::NO_GOOD_INDEX, Flags::SLOW]),
            all(&[Flags::NO_INDEX, Flags::IN_TRANSACTION]),
            Flags::IN_TRANSACTION,
            Flags::default()
        ]
    );
    let facts: Vec<_> = out.exchanges.iter().map(|e| e.sql.as_ref().map(|f| (f.affected, f.warnings))).collect();
    assert_eq!(facts, [Some((None, 3)), Some((Some(3), 0)), None, None]);
}

#[test]
fn refused_logins_are_no_requests() {
    let denied = packet(2, b"\xff\x15\x04#28000Access denied for user 'root'@'h'");
    let out = mysql(false, &[(S, packet(0, GREETING)), (C, login(0)), (S, denied)]);
    assert_eq!((out.exchanges.len(), out.skipped_bytes), (0, [0, 0]));
    let out = mysql(false, &[(S, packet(0, b"\xff\x10\x04Too many connections"))]);
    assert!(out.exchanges.is_empty() && !out.rejected);
    assert!(mysql(false, &[(S, b"220 mail.example ESMTP\r\n".repeat(9))]).rejected);
}

#[test]
fn rows_in_a_hole_end_at_the_next_command() {
    let result = packets_from(1, &[b"\x01", COLUMN, EOF, b"\x03abc", b"\x03def"]);
    let length = result.len() as u64;
    let bytes = |bytes: &[u8]| Piece::Bytes(bytes.to_vec());
    let pieces = [
        (C, bytes(&query("SELECT a FROM t"))),
        (S, bytes(&result[..result.len() - 2])),
        (S, Piece::Cut(5000)),
        (S, bytes(b"the middle of a row")),
        (S, Piece::Cut(700)),
        (C, bytes(&query("SELECT 2"))),
        (S, bytes(&packets_from(1, &[b"\x01", COLUMN, EOF, b"\x012", EOF]))),
    ];
    let out = run(parser("mysql", true).as_mut(), &pieces);
    assert_eq!(short(&out), ["query select a from t Ok -", "query select ? Ok 1"]);
    assert_eq!(out.exchanges[0].response, Some(0..length - 2 + 5000 + 19 + 700));
    assert!(out.exchanges[0].flags.contains(Flags::TRUNCATED));
    assert_eq!(out.exchanges[1].flags, Flags::default());
}

#[test]
fn a_long_statement_is_cut_and_stays_in_step() {
    let text = format!("SELECT * FROM t WHERE id IN ({})", vec!["123456"; 2000].join(","));
    let sent = query(&text);
    let pieces = [
        (C, Piece::Bytes(sent[..4096].to_vec())),
        (C, Piece::Cut(sent.len() as u64 - 4096)),
        (S, Piece::Bytes(packet(1, OK))),
        (C, Piece::Bytes(packet(0, b"\x0e"))),
        (S, Piece::Bytes(packet(1, OK))),
    ];
    let out = run(parser("mysql", true).as_mut(), &pieces);
    assert_eq!(out.exchanges.iter().map(|e| &*e.op).collect::<Vec<_>>(), ["query", "ping"]);
    assert_eq!(out.exchanges[0].flags, Flags(Flags::TRUNCATED.0 | Flags::MID_STREAM.0));
    assert!(out.exchanges[0].statement.as_deref().unwrap().ends_with('…'));
}

#[test]
fn classes() {
    use ByteClass::{Identifier, Secret, Structure, Value};
    let text = "SELECT a FROM t WHERE b = 'secret' AND c = 5";
    let sent = query(text);
    let out = mysql(true, &[(C, sent.clone())]);
    let class_of = |part: &str| {
        let at = (5 + text.find(part).unwrap()) as u64;
        out.marks.as_ref().unwrap().iter().find(|m| m.range.contains(&at)).map(|m| m.class)
    };
    assert_eq!(class_of("SELECT"), Some(Identifier));
    assert_eq!(class_of("'secret'"), Some(Value));
    assert_eq!(class_of("AND"), Some(Identifier));
    assert_eq!(class_of("5"), Some(Value));
    let out = logged_in(0, &[]);
    let client: Vec<_> = out.marks.unwrap().into_iter().filter(|m| m.side == kfr_protocols::Side::Client).collect();
    // Header and fixed part, user, answer to the challenge, database, plugin.
    let classes: Vec<_> = client.iter().map(|m| (m.range.end - m.range.start, m.class)).collect();
    assert_eq!(classes, [(4, Structure), (32, Structure), (5, Identifier), (5, Secret), (5, Identifier), (22, Value)]);
}

#[test]
fn detection() {
    let mysql = REGISTRY.iter().find(|p| p.name == "mysql").unwrap();
    let detect = |client: &[u8], server: &[u8], mid_stream| {
        (mysql.detect)(&Prefix { client, server, mid_stream, complete: true, ..Prefix::default() })
    };
    let greeting = packet(0, GREETING);
    assert_eq!(detect(b"", &greeting, false), Detected::Certain);
    assert_eq!(detect(&login(0), &greeting, false), Detected::Certain);
    assert_eq!(detect(&login(0), &greeting, true), Detected::Certain);
    assert_eq!(detect(&greeting, &login(0), false), Detected::No);
    assert_eq!(detect(&query("SELECT 1"), &packet(1, OK), true), Detected::Certain);
    assert_eq!(detect(&query("SELECT 1"), b"", true), Detected::Likely);
    assert_eq!(detect(&packet(1, OK), &query("SELECT 1"), true), Detected::No);
    assert_eq!(detect(b"\x17\x03\x03\0\x20abc", b"\x17\x03\x03\0\x20abc", true), Detected::No);
    assert_eq!(detect(b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", true), Detected::No);
}

const BIG: usize = 0xff_ffff;

/// A query whose first packet is as long as can be, and goes on with `more` bytes in the next.
fn long_query(more: usize) -> Vec<u8> {
    let mut sent = vec![0xff, 0xff, 0xff, 0, 3];
    sent.extend_from_slice(b"insert into t values ('");
    sent.resize(4 + BIG, b'y');
    sent.extend(packet(1, &vec![b'y'; more]));
    sent
}

#[test]
fn the_size_of_a_long_command_is_known_whatever_was_cut() {
    let login = [(S, packet(0, GREETING)), (C, login(0)), (S, packet(2, OK))];
    let logged: usize = login.iter().filter(|(client, _)| *client == C).map(|(_, bytes)| bytes.len()).sum();
    let whole = long_query(1 << 20);
    let size = whole.len();
    let answer = packet(2, b"\0\x01\0\x02\0\0\0");
    let next = [(C, query("select 1")), (S, packets_from(1, &[b"\x01", COLUMN, EOF, b"\x011", EOF]))];
    // What a call keeps, and what a call sends at most: the second packet's header is in a hole, on its edges, or seen.
    for (kept, call) in
        [(4096, size), (4096, 2 << 20), (4096, 4 + BIG), (2, 4 + BIG), (4096, 4 + BIG - 2), (size, size)]
    {
        let mut pieces: Vec<_> = login.iter().map(|(c, bytes)| (*c, Piece::Bytes(bytes.clone()))).collect();
        for sent in whole.chunks(call) {
            let kept = if pieces.len() == login.len() { kept.max(30) } else { kept }.min(sent.len());
            pieces.push((C, Piece::Bytes(sent[..kept].to_vec())));
            if kept < sent.len() {
                pieces.push((C, Piece::Cut((sent.len() - kept) as u64)));
            }
        }
        pieces.push((S, Piece::Bytes(answer.clone())));
        pieces.extend(next.iter().map(|(c, bytes)| (*c, Piece::Bytes(bytes.clone()))));
        let out = run(parser("mysql", false).as_mut(), &pieces);
        let found: Vec<_> = out.exchanges.iter().map(|e| (&*e.op, e.status, e.rows)).collect();
        assert_eq!(found, [("query", Status::Ok, Some(1)); 2], "{kept} of {call}");
        let sizes: Vec<_> = out.exchanges.iter().map(|e| e.request.clone()).collect();
        assert_eq!(sizes[0], logged as u64..(logged + size) as u64, "{kept} of {call}");
    }
}

#[test]
fn long_data_without_an_answer_is_counted_whole() {
    let mut sent = vec![0xff, 0xff, 0xff, 0, 0x18, 1, 0, 0, 0, 0, 0];
    let size = 4 + BIG + 4 + 5000;
    let head = sent.len();
    let pieces = [
        (S, Piece::Bytes(packet(0, GREETING))),
        (C, Piece::Bytes(login(0))),
        (S, Piece::Bytes(packet(2, OK))),
        (C, Piece::Bytes(std::mem::take(&mut sent))),
        (C, Piece::Cut((size - head) as u64)),
        (C, Piece::Bytes(packet(0, b"\x0e"))),
        (S, Piece::Bytes(packet(1, OK))),
    ];
    let out = run(parser("mysql", false).as_mut(), &pieces);
    let sizes: Vec<_> = out.exchanges.iter().map(|e| (&*e.op, e.request.end - e.request.start)).collect();
    assert_eq!(sizes, [("send_long_data", size as u64), ("ping", 5)]);
}

#[test]
fn a_command_that_nobody_knows_is_one() {
    let error = packet(1, b"\xff\x17\x04#08S01Unknown command");
    let ping = [(C, packet(0, b"\x0e")), (S, packet(1, OK))];
    for first in [true, false] {
        let mut sends = if first { vec![] } else { ping.to_vec() };
        sends.extend([(C, packet(0, b"\x77abc")), (S, error.clone())]);
        sends.extend(ping.clone());
        let out = logged_in(0, &sends);
        let found = &out.exchanges[usize::from(!first)];
        assert_eq!((&*found.op, found.status, found.code.as_deref()), ("command 119", Status::Error, Some("1047")));
        assert_eq!(short(&out).last().map(String::as_str), Some("ping - Ok -"));
        assert!(!out.rejected);
    }
    // Without a login before it this is no MySQL.
    assert!(mysql(false, &[(S, packet(0, GREETING)), (C, packet(0, b"\x77abc"))]).exchanges.is_empty());
}

#[test]
fn the_first_packet_of_each_result_tells_how_it_went() {
    let cut = |answer: &[u8], kept: usize| {
        let mut pieces: Vec<_> = [(S, packet(0, GREETING)), (C, login(0)), (S, packet(2, OK)), (C, query("call p()"))]
            .map(|(c, bytes)| (c, Piece::Bytes(bytes)))
            .to_vec();
        if kept > 0 {
            pieces.push((S, Piece::Bytes(answer[..kept].to_vec())));
        }
        pieces.push((S, Piece::Cut(5000)));
        pieces.extend([(C, Piece::Bytes(packet(0, b"\x0e"))), (S, Piece::Bytes(packet(1, OK)))]);
        let out = run(parser("mysql", false).as_mut(), &pieces);
        assert_eq!(out.exchanges.len(), 2, "{kept}");
        assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED, "{kept}");
        out.exchanges[0].status
    };
    let more: &[u8] = b"\xfe\0\0\x0a\0";
    let results = packets_from(1, &[b"\x01", COLUMN, EOF, b"\x011", more, b"\x01", COLUMN, EOF, b"\x011"]);
    let first_end = packets_from(1, &[b"\x01", COLUMN, EOF, b"\x011", more]).len();
    let expected = |kept: usize| match kept {
        // The kind of a result is its first byte behind the header.
        0..5 => Status::Unknown,
        _ if kept < first_end => Status::Ok,
        _ if kept < first_end + 5 => Status::Unknown,
        _ => Status::Ok,
    };
    for kept in 0..results.len() {
        assert_eq!(cut(&results, kept), expected(kept), "{kept}");
    }
    let error = packet(1, b"\xff\x28\x04#42000You have an error");
    assert_eq!(cut(&error, 5), Status::Error);
}

#[test]
fn a_request_for_a_file_is_not_yet_an_answer() {
    let mut pieces: Vec<_> = [
        (S, packet(0, GREETING)),
        (C, login(0)),
        (S, packet(2, OK)),
        (C, query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t")),
        (S, packet(1, b"\xfbx")),
        (C, [packet(2, b"1,2,3\n"), packet(3, b"")].concat()),
    ]
    .map(|(c, bytes)| (c, Piece::Bytes(bytes)))
    .to_vec();
    pieces.push((S, Piece::Cut(11)));
    let out = run(parser("mysql", false).as_mut(), &pieces);
    assert_eq!((out.exchanges[0].status, out.exchanges[0].rows), (Status::Unknown, None));
    assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED);
}

#[test]
fn an_execute_right_behind_its_prepare_gets_its_own_answer() {
    // MariaDB: -1 stands for the statement just prepared, whose answer is not waited for.
    let prepare = packet(0, b"\x16SELECT a FROM t WHERE id = ?");
    let execute = packet(0, b"\x17\xff\xff\xff\xff\0\x01\0\0\0\0\x01\x03\0\x2a\0\0\0");
    let prepared = packets_from(1, &[b"\0\x01\0\0\0\0\0\x01\0\0\0\0", COLUMN]);
    let error = packet(1, b"\xff\x28\x04#42000no");
    let out = mysql(true, &[(C, [prepare, execute].concat()), (S, prepared.clone()), (S, error)]);
    let found: Vec<_> = out.exchanges.iter().map(|e| (&*e.op, e.status, e.response.clone())).collect();
    let at = prepared.len() as u64;
    assert_eq!(found, [("prepare", Status::Ok, Some(0..at)), ("execute", Status::Error, Some(at..at + 15))]);
}

#[test]
fn what_a_backslash_does_is_told_by_the_server_or_not_known() {
    let asked = query(r"select 'a\', b, 'SECRET'");
    let target = |out: &Output| out.exchanges[0].target.as_deref().unwrap().to_string();
    // Joined in the middle, nothing told it yet.
    assert_eq!(target(&mysql(true, &[(C, asked.clone()), (S, packet(1, OK))])), "select ?");
    // The greeting does, also where the answer to the login was not seen.
    let mut plain = GREETING.to_vec();
    let status = GREETING.iter().position(|b| *b == 0).unwrap() + 1 + 13 + 3;
    plain[status + 1] |= 0x02;
    for (greeting, shown) in [(plain, "select ?, b, ?"), (GREETING.to_vec(), "select ?")] {
        let mut parser = parser("mysql", false);
        let login = login(0);
        let pieces = [
            (S, Piece::Bytes(packet(0, &greeting))),
            (C, Piece::Bytes(login)),
            (S, Piece::Lost(11)),
            (C, Piece::Bytes(asked.clone())),
            (S, Piece::Bytes(packet(1, OK))),
        ];
        assert_eq!(target(&run(parser.as_mut(), &pieces)), shown);
    }
}
