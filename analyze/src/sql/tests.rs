use kfr_protocols::{Exchange, SqlFacts};

use super::*;
use crate::model::{Evidence, Request};

const MS: u64 = 1_000_000;

/// Requests of connections, one after the other.
#[derive(Default)]
struct Talk {
    statements: Statements,
    now_ns: u64,
    number: u64,
}

impl Talk {
    /// A call that takes a millisecond, begun `after_ms` behind the last one.
    fn call(&mut self, connection: u32, op: &str, text: &str, after_ms: u64, rows: Option<u64>, flags: Flags) {
        self.now_ns += after_ms * MS;
        let statement = (!text.is_empty()).then(|| text.into());
        let exchange = Exchange { op: op.into(), statement, rows, flags, status: Status::Ok, ..Exchange::default() };
        let request = Request {
            connection,
            number: self.number,
            observer_is_client: true,
            protocol: 1,
            exchange,
            start_ns: self.now_ns,
            ttfb_ns: Some(MS),
            duration_ns: Some(MS),
            server_ns: None,
            evidence: Evidence::default(),
        };
        self.number += 1;
        self.now_ns += MS;
        self.statements.record(&request, 0, 1);
    }

    fn query(&mut self, text: &str, rows: u64) {
        self.call(1, "query", text, 2, Some(rows), Flags::default());
    }

    fn of(mut self, text: &str) -> Statement {
        self.statements.ended(1);
        assert!(self.statements.sessions.is_empty());
        self.statements.into_sorted().into_iter().find(|((_, one), _)| &**one == text).unwrap().1
    }
}

fn repeated(parent_rows: u64, times: usize) -> NPlusOne {
    let mut talk = Talk::default();
    talk.query("select parents", parent_rows);
    (0..times).for_each(|_| talk.query("select child", 1));
    talk.of("select child").n_plus_one
}

#[test]
fn a_query_for_each_row_of_the_one_before() {
    let parent = Some((1, "select parents".into()));
    assert_eq!(repeated(12, 12), NPlusOne { occurrences: 1, calls: 12, longest: 12, parent: parent.clone() });
    assert_eq!(repeated(20, 12), NPlusOne { occurrences: 1, calls: 12, longest: 12, parent });
    // Too few; far more or far fewer rows.
    for (rows, times) in [(9, 9), (1, 12), (100, 12), (0, 30)] {
        assert_eq!(repeated(rows, times), NPlusOne::default(), "{rows} {times}");
    }
}

#[test]
fn occurrences_add_up_and_gaps_end_them() {
    let mut talk = Talk::default();
    for times in [10, 15, 11] {
        talk.query("select parents", 12);
        (0..times).for_each(|_| talk.query("select child", 1));
    }
    // A pause: this is no longer one after the other, and what follows it has nothing before it.
    talk.call(1, "query", "select child", 500, Some(1), Flags::default());
    (0..12).for_each(|_| talk.query("select child", 1));
    let child = talk.of("select child");
    let found = (child.n_plus_one.occurrences, child.n_plus_one.calls, child.n_plus_one.longest);
    assert_eq!((found, child.longest_run, child.calls_in_runs), ((3, 36, 15), 15, 36 + 13));
}

#[test]
fn preparing_and_closing_in_between_change_nothing() {
    let mut talk = Talk::default();
    talk.query("select parents", 12);
    for _ in 0..12 {
        talk.call(1, "prepare", "select child", 0, None, Flags::default());
        talk.call(1, "execute", "select child", 0, Some(1), Flags::default());
        talk.call(1, "close", "", 0, None, Flags::NO_REPLY);
    }
    let child = talk.of("select child");
    assert_eq!((child.calls, child.n_plus_one.calls), (12, 12));
}

#[test]
fn time_in_open_transactions_is_told_of_the_statement_before() {
    let mut talk = Talk::default();
    let inside = Flags::IN_TRANSACTION;
    talk.call(1, "query", "begin", 0, None, inside);
    talk.call(1, "query", "update a", 5, None, inside);
    // Another connection is nobody's business.
    talk.call(2, "query", "begin", 0, None, inside);
    talk.call(1, "ping", "", 1200, None, inside);
    talk.call(1, "query", "update a", 300, None, inside);
    talk.call(1, "prepare", "select b", 10, None, Flags::default());
    talk.call(1, "query", "commit", 20, None, Flags::default());
    talk.call(1, "query", "select b", 9000, None, Flags::default());
    let idle = {
        talk.statements.ended(2);
        talk.of("update a").idle
    };
    // 1200 ms (and the 1 ms of the other connection's call) before the ping, 300 behind it; 10 and 20 before the commit.
    assert_eq!((idle.count, idle.total_ns), (4, 1531 * MS));
    assert_eq!(idle.longest.map(|(ns, call)| (ns, call.request)), Some((1201 * MS, (1, 1))));
}

#[test]
fn an_error_says_nothing_of_the_transaction() {
    let mut talk = Talk::default();
    talk.call(1, "query", "begin", 0, None, Flags::IN_TRANSACTION);
    talk.call(1, "query", "fails", 5, None, Flags::default());
    talk.call(1, "query", "rollback", 900, None, Flags::default());
    assert_eq!(talk.of("fails").idle, Idle::default());
}

#[test]
fn sums_do_not_depend_on_the_order_of_shards() {
    let shard = |connection: u32, times: u64| {
        let mut talk = Talk { now_ns: u64::from(connection) * MS, ..Talk::default() };
        talk.call(connection, "query", &format!("select parents {}", connection % 2), 0, Some(times), Flags::NO_INDEX);
        (0..times).for_each(|_| talk.call(connection, "query", "select child", 1, Some(1), Flags::IN_TRANSACTION));
        talk.statements.ended(connection);
        talk.statements
    };
    let sum = |order: &[u32]| {
        let mut all = Statements::default();
        order.iter().for_each(|number| all.merge(shard(*number, 10 + u64::from(number / 2))));
        all.into_sorted()
    };
    let one = sum(&[0, 1, 2, 3, 4]);
    assert_eq!(one, sum(&[4, 2, 0, 3, 1]));
    assert_eq!(one.iter().map(|(_, statement)| statement.no_index).sum::<u64>(), 5);
}

#[test]
fn facts_add_up() {
    let mut statements = Statements::default();
    let mut talk = Talk::default();
    talk.query("x", 1);
    for (affected, warnings) in [(Some(3), 2), (None, 1)] {
        let sql = Some(Box::new(SqlFacts { affected, warnings, ..SqlFacts::default() }));
        let exchange = Exchange { statement: Some("update".into()), sql, flags: Flags::SLOW, ..Exchange::default() };
        let request = Request {
            connection: 0,
            number: 0,
            observer_is_client: true,
            protocol: 1,
            exchange,
            start_ns: 0,
            ttfb_ns: None,
            duration_ns: None,
            server_ns: None,
            evidence: Evidence::default(),
        };
        statements.record(&request, 0, 1);
    }
    let (_, update) = &statements.into_sorted()[0];
    assert_eq!((update.affected, update.calls_with_affected, update.warnings, update.slow), (3, 1, 3, 2));
}
