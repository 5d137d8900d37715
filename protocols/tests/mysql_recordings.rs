//! Recordings of MariaDB 10.11 (`testdata/protocols/mysql`) against what the server counted meanwhile (`SHOW GLOBAL
//! STATUS` before and after, less what asking for it adds). The clients: `mariadb` for plain and compressed connections,
//! Perl's DBD::mysql (libmariadb) for prepared statements.

mod common;

use std::path::{Path, PathBuf};

use kfr_protocols::{Decoder, End, Exchange, Flags, Options, Output, Setup, Status, protocol_named};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols/mysql").join(name)
}

/// The requests of all connections of a recording.
fn requests(name: &str) -> Vec<Exchange> {
    let number = protocol_named("mysql").map(|(number, _)| number);
    let mut all = Vec::new();
    for connection in common::connections(&file(name)) {
        let (protocol, out) = common::decode(&connection, usize::MAX).unwrap();
        assert_eq!(protocol.name, "mysql");
        all.extend(out.exchanges.into_iter().filter(|exchange| exchange.protocol == number));
    }
    all
}

fn count(all: &[Exchange], is: impl Fn(&Exchange) -> bool) -> usize {
    all.iter().filter(|exchange| is(exchange)).count()
}

/// Requests whose statement begins with this word.
fn of(all: &[Exchange], word: &str) -> usize {
    count(all, |e| e.op.as_ref() != "prepare" && e.statement.as_deref().is_some_and(|text| text.starts_with(word)))
}

/// Rows of result sets.
fn rows_sent(all: &[Exchange]) -> u64 {
    all.iter().filter(|e| e.sql.as_ref().is_none_or(|facts| facts.affected.is_none())).filter_map(|e| e.rows).sum()
}

fn affected(all: &[Exchange]) -> u64 {
    all.iter().filter_map(|e| e.sql.as_ref()?.affected).sum()
}

#[test]
fn plain_statements() {
    let all = requests("plain.pcap");
    // Questions 22 (quit and init_db among them), Com_change_db 1.
    assert_eq!((all.len(), count(&all, |e| e.op.as_ref() == "init_db")), (22, 1));
    // Com_select 10, two of them inside the procedure; Com_insert 2, Com_load 1, Com_delete 1, Com_call_procedure 1,
    // Com_update 3, one of them inside; Com_show_warnings 1.
    let words = ["select", "insert", "load data", "delete", "call", "update", "show warnings"];
    assert_eq!(words.map(|word| of(&all, word)), [8, 2, 1, 1, 1, 2, 1]);
    // Rows_sent 12; the procedure sent three of them, and changed one row.
    assert_eq!((rows_sent(&all), all.iter().find(|e| of(&[(*e).clone()], "call") == 1).unwrap().rows), (9, Some(3)));
    // The client printed: 4 inserted, 2 and 1 updated, 3 loaded; 1 by the procedure.
    assert_eq!(affected(&all), 11);
    // Select_scan 4: the request with two inside is one here, and the update is none there.
    let scans = |e: &Exchange| e.flags.contains(Flags::NO_INDEX);
    assert_eq!((count(&all, scans), count(&all, |e| scans(e) && of(std::slice::from_ref(e), "update") == 1)), (4, 1));
    // Slow_queries 1: select sleep(0.25), with long_query_time=0.2.
    let slow: Vec<_> = all.iter().filter(|e| e.flags.contains(Flags::SLOW)).map(|e| e.target.as_deref()).collect();
    assert_eq!(slow, [Some("select sleep(?)")]);
    // Com_begin 1, Com_commit 1: begin, update and select ... for update end within the transaction.
    assert_eq!(count(&all, |e| e.flags.contains(Flags::IN_TRANSACTION)), 3);
    // The client printed three errors with their SQLSTATEs, and two warnings.
    let errors: Vec<_> = all
        .iter()
        .filter(|e| e.status == Status::Error)
        .map(|e| (e.code.as_deref().unwrap(), e.sql.as_ref().unwrap().sqlstate.as_deref().unwrap()))
        .collect();
    assert_eq!(errors, [("1146", "42S02"), ("1062", "23000"), ("1064", "42000")]);
    let warnings: Vec<_> = all.iter().filter_map(|e| e.sql.as_ref()).map(|facts| facts.warnings).collect();
    assert_eq!(warnings.iter().map(|n| u32::from(*n)).sum::<u32>(), 2);
}

#[test]
fn prepared_statements() {
    let all = requests("prepared.pcap");
    // Com_stmt_prepare 5, Com_stmt_execute 10, Com_stmt_reset 1, Com_stmt_close 4; Questions 14 counts neither prepare,
    // reset nor close.
    let ops = ["prepare", "execute", "reset", "close"].map(|op| count(&all, |e| e.op.as_ref() == op));
    assert_eq!((ops, all.len() - 5 - 1 - 4), ([5, 10, 1, 4], 14));
    // Com_select 5, Com_insert 5, Rows_sent 5.
    assert_eq!((of(&all, "select"), of(&all, "insert"), rows_sent(&all)), (5, 5, 5));
    // Select_scan 1.
    assert_eq!(count(&all, |e| e.flags.contains(Flags::NO_INDEX)), 1);
    let parameters = |all: &[Exchange]| -> Vec<String> {
        all.iter().filter_map(|e| Some(e.sql.as_ref()?.parameters.as_deref()?.to_owned())).collect()
    };
    let masks: Vec<_> =
        [[2; 4].as_slice(), &[3; 3], &[2, 1, 3]].concat().iter().map(|n| vec!["?"; *n].join(", ")).collect();
    assert_eq!(parameters(&all), masks);
    // What the script bound.
    let connection = &common::connections(&file("prepared.pcap"))[0];
    let options = Options { literals: true };
    let ports = [Some(connection.ports.0), Some(connection.ports.1)];
    let mut decoder = Decoder::new(Setup { options, near_is_client: Some(true), ports, ..Setup::default() });
    let (mut out, mut offsets) = (Output::default(), [0; 2]);
    for (client, piece) in &connection.pieces {
        let common::Piece::Bytes(bytes) = piece else { panic!("a whole recording") };
        let end = if *client { End::Near } else { End::Far };
        decoder.push(end, offsets[usize::from(!client)], |stream| stream.push(bytes), &mut out);
        offsets[usize::from(!client)] += bytes.len() as u64;
    }
    decoder.finish(&mut out);
    assert_eq!(
        parameters(&out.exchanges),
        [
            "'1', '9'",
            "'2', '9'",
            "'3', '9'",
            "'4', '9'",
            "'1', 'first note', '2026-03-04 05:06:07.125'",
            "'2', NULL, NULL",
            "NULL, 'it''s', '2026-03-04'",
            "'lamp', '1.5'",
            "'%note%'",
            "'3', 'in transaction', '2026-03-04 00:00:00'"
        ]
    );
}

#[test]
fn compressed_statements() {
    let all = requests("compressed.pcap");
    // Questions 14, Com_select 8 (two inside the procedure), Com_insert 1, Com_load 1, Com_update 2 (one inside).
    assert_eq!(all.len(), 14);
    assert_eq!(["select", "insert", "load data", "update"].map(|word| of(&all, word)), [6, 1, 1, 1]);
    // Rows_sent 807, Select_scan 3: one, and two by the procedure.
    assert_eq!(rows_sent(&all), 807);
    let scans: Vec<_> = all.iter().filter(|e| e.flags.contains(Flags::NO_INDEX)).map(|e| e.target.as_deref()).collect();
    assert_eq!(
        scans,
        [
            Some("select seq, repeat(?, ?) from seq_1_to_800"),
            Some("call report()"),
            Some("update orders set note = ? where item = ?")
        ]
    );
    let errors: Vec<_> = all.iter().filter_map(|e| e.code.as_deref()).collect();
    assert_eq!(errors, ["1146"]);
    // Requests follow each other without a gap on the wire.
    assert!(all.windows(2).all(|pair| pair[0].request.end == pair[1].request.start));
    let answers: Vec<_> = all.iter().filter_map(|e| e.response.clone()).collect();
    assert!(answers.windows(2).all(|pair| pair[0].end == pair[1].start));
}

#[test]
fn compressed_statements_joined_in_the_middle() {
    for connection in common::connections(&file("compressed.pcap")) {
        let whole = requests("compressed.pcap");
        // Behind greeting, login and its OK; each command is one send.
        for (index, first) in whole.iter().enumerate().take(whole.len() - 1) {
            let starts = connection.pieces.iter().scan(0, |at, (client, piece)| {
                let common::Piece::Bytes(bytes) = piece else { panic!("a whole recording") };
                let start = *at;
                *at += if *client { bytes.len() as u64 } else { 0 };
                Some((*client, start))
            });
            let position = starts.into_iter().position(|(client, at)| client && at == first.request.start).unwrap();
            let late = common::Connection {
                pieces: connection.pieces[position..].to_vec(),
                mid_stream: true,
                ports: connection.ports,
                ..common::Connection::default()
            };
            let (protocol, out) = common::decode(&late, usize::MAX).unwrap();
            assert_eq!(protocol.name, "mysql", "from request {index}");
            let targets = |all: &[Exchange]| -> Vec<_> { all.iter().map(|e| (e.target.clone(), e.rows)).collect() };
            assert_eq!(targets(&out.exchanges), targets(&whole[index..]), "from request {index}");
        }
    }
}

#[test]
fn encrypted_connections_are_left_to_tls() {
    // Com_select 2: one of them, and its quit, are encrypted. Access_denied_errors 1 is a login, which is no request.
    let all = requests("tls.pcap");
    assert_eq!((of(&all, "select"), all.len()), (1, 2));
}
