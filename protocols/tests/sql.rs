//! What statements are grouped by, statement by statement. Which of them belong together was compared with what
//! pt-fingerprint 3.2 says of MySQL's and pg_stat_statements of PostgreSQL 15 of its own. Ours are coarser: lists, rows
//! and arrays of different length are one, as are spellings of literals (`1`, `'x'`, `true`) and, of what they keep as it
//! was written (BEGIN, DO, names), case and spacing. They are finer where a list has one element (they take `a in (1)`
//! for `a = 1`) or a constant has a cast.

use kfr_protocols::sql::{Dialect, normalise};

fn check(dialect: Dialect, table: &[(&str, &[&str])]) {
    let mut wrong = Vec::new();
    for (expected, statements) in table {
        for statement in *statements {
            let found = normalise(statement.as_bytes(), dialect, false);
            if found != *expected {
                wrong.push(format!("{statement}\n  is       {found}\n  expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn postgresql() {
    check(Dialect::PostgreSql, POSTGRESQL);
}

#[test]
fn mysql() {
    check(Dialect::MySql, MYSQL);
}

/// Normalised text, and the statements that have it.
const POSTGRESQL: &[(&str, &[&str])] = &[
    (
        "select a from t where a = ?",
        &["select a from t where a = 1", "SELECT a\nFROM t WHERE a=-22;", "select a from t where a = 0 -- c"],
    ),
    (
        "select a from t where c = ?",
        &[
            "select a from t where c = 'x'",
            "select a from t where c = E'it\\'s'",
            "select a from t where c = $$x$$",
            "select a from t where c = U&'\\0061'",
            "select a from t where c = $q$it's $$ here$q$",
            "select a from t where c = 'a''b'",
            "select a from t where c = 'back\\'",
        ],
    ),
    (
        "select a from t where c = ?::text",
        &["select a from t where c = 'x'::text", "select a from t where c = 'yy'::text"],
    ),
    (
        "select a from t where n > ? and n < ?",
        &["select a from t where n > 1.5 and n < 2e10", "select a from t where n > .5 and n < 100000.25"],
    ),
    (
        "select a from t where a in (?+)",
        &["select a from t where a in (1)", "select a from t where a in (1, 2)", "SELECT a FROM t WHERE a IN (3,4,5)"],
    ),
    (
        "select a from t where a = any(array[?+])",
        &["select a from t where a = any(array[1])", "select a from t where a = any(ARRAY [1, 2, 3])"],
    ),
    (
        "select a from t where f = array[[?+]]",
        &["select a from t where f = array[[1,2],[3,4]]", "select a from t where f = array[[1,2,3]]"],
    ),
    ("select a from t where f && array[a, ?]", &["select a from t where f && array[a, 1]"]),
    (
        "select a from t where a = any(?)",
        &["select a from t where a = any('{1,2}')", "select a from t where a = any('{}')"],
    ),
    ("select a from t where a = any(?::int[])", &["select a from t where a = any('{1}'::int[])"]),
    ("select f[?] from t", &["select f[1] from t", "select f[2] from t"]),
    ("select f[?:?] from t", &["select f[1:2] from t"]),
    (
        "insert into t(a, b) values (?+)",
        &[
            "insert into t(a,b) values (1,2)",
            "insert into t(a, b) values (1,2),(3,4)",
            "INSERT INTO t(a,b) VALUES (1, null)",
        ],
    ),
    (
        "insert into t(a, e) values (?, now())",
        &["insert into t(a,e) values (1,now())", "insert into t(a,e) values (1,now()),(2,now())"],
    ),
    ("insert into t(a) values (?+) on conflict do nothing", &["insert into t(a) values (1) on conflict do nothing"]),
    ("insert into t(a) select b from u where b = ?", &["insert into t(a) select b from u where b = 3"]),
    (
        "insert into t(a) values (?+) returning a",
        &["insert into t(a) values (7) returning a", "insert into t(a) values (8),(9) returning a"],
    ),
    ("insert into t default values", &["insert into t default values"]),
    (
        "update t set c = ?, b = b + ? where a = ?",
        &["update t set c = 'x', b = b + 1 where a = 2", "UPDATE t SET c='y', b = b + 10 WHERE a=3"],
    ),
    ("update t set c = null where a = ?", &["update t set c = null where a = 5"]),
    (
        "delete from t where e < now() - interval ?",
        &["delete from t where e < now() - interval '1 day'", "delete from t where e < now() - interval '2 hours'"],
    ),
    ("select interval ? day", &["select interval '1' day"]),
    (
        "select date ?, timestamp ?",
        &["select date '2024-01-01', timestamp '2024-01-01 00:00'", "select date '2025-01-01', timestamp '2024-02-02'"],
    ),
    ("select d -> ? from t", &["select d -> 'k' from t", "select d -> 'other' from t"]),
    ("select d ->> ? from t where d #>> ? = ?", &["select d ->> 'k' from t where d #>> '{a,b}' = 'x'"]),
    ("select a from t where d ? ?", &["select a from t where d ? 'k'", "select a from t where d ? 'l'"]),
    (
        "select a from t where d ?| array[?+]",
        &["select a from t where d ?| array['a','b']", "select a from t where d ?| array['c']"],
    ),
    ("select a from t where d ?& array[?+]", &["select a from t where d ?& array['a','b']"]),
    ("select a from t where d @> ?", &["select a from t where d @> '{\"a\": 1}'", "select a from t where d @> '{}'"]),
    ("select a from t where d @? ?", &["select a from t where d @? '$.a'"]),
    ("select a from t where d @@ ?", &["select a from t where d @@ '$.a > 1'"]),
    ("select d - ? from t", &["select d - 'a' from t"]),
    ("select d #- ? from t", &["select d #- '{a}' from t"]),
    ("select a from t where c ~* ?", &["select a from t where c ~* '^x'"]),
    ("select a from t where c like ? escape ?", &["select a from t where c like '%x' escape '!'"]),
    ("select a from t where a between ? and ?", &["select a from t where a between 1 and 2"]),
    (
        "select a from t order by a limit ? offset ?",
        &["select a from t order by a limit 10 offset 20", "select a from t order by a limit 5 offset 0"],
    ),
    ("select count(*) from t where c is null", &["select count(*) from t where c is null"]),
    ("select count(*) from t where c is not null", &["select count(*) from t where c is not null"]),
    ("select a from t where g = ?", &["select a from t where g = true", "select a from t where g = false"]),
    ("select a from t where g is true", &["select a from t where g is true"]),
    ("select a from t where g is not false", &["select a from t where g is not false"]),
    ("select \"A\", \"b c\" from \"T\"", &["select \"A\", \"b c\" from \"T\""]),
    ("select ? as a, ? as b", &["select 1 as a, 'x' as b", "select 2 as a, 'y' as b"]),
    ("select a from t where f <@ array[?+]", &["select a from t where f <@ array[1,2]"]),
    ("select a from t order by v <-> ? limit ?", &["select a from t order by v <-> '[1,2]' limit 5"]),
    ("select a from t where c !~* ?", &["select a from t where c !~* 'x'"]),
    ("select a from t where a < ? and b >= ? and n * ? > ?", &["select a from t where a<-1 and b>=-2 and n*-1>-.5"]),
    ("select f(a => ?, b := ?)", &["select f(a => 1, b := 'x')"]),
    (
        "select a / b from t",
        &["select a/b from t", "select a / b from t", "select a/* c */ /b from t", "select a/--x\nb from t"],
    ),
    ("select f[?] - ?, -a, t.*, count(*) from t", &["select f[1]-1, -a, t.*, count(*) from t"]),
    ("select * from t where a + ? > ?", &["select * from t where a+1>2", "select * from t where a + 1 > 2"]),
    ("select ?, ?", &["select x'1F', b'101'", "select 'a' /* 'b' */, 2", "select 1,/* a /* nested */ b */2"]),
    ("select ?", &["select 'a'\n'b'", "select 1 -- it's\n", "select $1", "select $23"]),
    ("select cast(? as int), ?::numeric(?, ?)", &["select cast('1' as int), '1.5'::numeric(10, 2)"]),
    ("select (?, ?) = (a, b) from t", &["select (1, 2) = (a, b) from t"]),
    (
        "select a from t where (a, b) in ((?+))",
        &["select a from t where (a,b) in ((1,2),(3,4))", "select a from t where (a, b) in ((1,2))"],
    ),
    (
        "select * from (values (?+)) as v(x, y)",
        &["select * from (values (1,'a'),(2,'b')) as v(x, y)", "select * from (values (1,'a')) as v(x,y)"],
    ),
    (
        "with w as (select a from t where b = ?) select a from w",
        &["with w as (select a from t where b = 1) select a from w"],
    ),
    ("select coalesce(c, ?) from t", &["select coalesce(c, '') from t"]),
    ("select case when a = ? then ? else ? end from t", &["select case when a = 1 then 'one' else 'more' end from t"]),
    ("prepare q as select a from t where a = ?", &["prepare q as select a from t where a = $1"]),
    ("execute q(?)", &["execute q(1)", "execute q(22)"]),
    ("do ?", &["do $$ begin perform 1; end $$", "do 'begin end'"]),
    ("set application_name = ?", &["set application_name = 'x'"]),
    ("begin", &["begin", "BEGIN;", "begin /* x */ ;"]),
    ("select nextval(?)", &["select nextval('seq')"]),
    ("select a from t where e at time zone ? > ?", &["select a from t where e at time zone 'utc' > '2024-01-01'"]),
    ("select ? || c from t", &["select 'x' || c from t"]),
    ("select a % ?, @ -b, |/ n from t", &["select a % 2, @ -b, |/ n from t"]),
    ("select a from t where a != all(?)", &["select a from t where a != all('{1}')"]),
    ("select a from t tablesample system (?)", &["select a from t tablesample system (10)"]),
    ("select 2fa from t", &["select 2fa from t"]),
];

/// Normalised text, and the statements that have it.
const MYSQL: &[(&str, &[&str])] = &[
    (
        "select a from t where a = ?",
        &[
            "select a from t where a = 1",
            "SELECT a FROM t WHERE a=-5;",
            "select a from t where a = 'x'",
            "select a from t where a = \"x\"",
            "select a from t where a = 0x1F # c",
            "select a from t where a = 'it\\'s'",
            "select a from t where a = 'a''b'",
            "select a from t where a = \"say \\\"x\\\"\"",
        ],
    ),
    (
        "select a from t where a in (?+)",
        &[
            "select a from t where a in (1,2,3)",
            "select a from t where a in ('a')",
            "SELECT a FROM t WHERE a IN (\n1,\n2)",
        ],
    ),
    (
        "insert into t (a, b) values (?+)",
        &["insert into t (a,b) values (1,'x')", "insert into t (a, b) values (1,'x'),(2,'y')"],
    ),
    (
        "insert into t values (?+) on duplicate key update a = ?",
        &[
            "insert into t values (1,2) on duplicate key update a = 3",
            "INSERT INTO t VALUES (1,2),(3,4) ON DUPLICATE KEY UPDATE a=5",
        ],
    ),
    ("replace into t values (?+)", &["replace into t values (1)", "replace into t values (1),(2)"]),
    ("update t set a = ? where b = ?", &["update t set a = 5 where b = 'c'", "UPDATE t SET a=6 WHERE b=\"d\""]),
    ("delete from t where a < ? limit ?", &["delete from t where a < '2024-01-01' limit 10"]),
    ("select a from t limit ?, ?", &["select a from t limit 10, 20"]),
    ("select a from t where b is null", &["select a from t where b is null"]),
    ("select `a b`, `t`.`c` from `t`", &["select `a b`, `t`.`c` from `t`"]),
    ("select a from t force index (i) where a = ?", &["select a from t force index (i) where a = 1"]),
    (
        "select a from t where b = ?",
        &[
            "select /*+ MAX_EXECUTION_TIME(5) */ a from t where b = 1",
            "select a from t where b = 2 -- trace=5",
            "select a /* x */ from t where b = 3",
            "select a from t where b = true",
            "select a from t where b = false",
            "select a from t where b = x'ff'",
            "select a from t where b = N'x'",
            "select a from t where b = _utf8mb4'x'",
            "select a from t where b = 1.5e-3",
        ],
    ),
    (
        "select straight_join a from t",
        &["select /*! straight_join */ a from t", "select /*!50001 straight_join */ a from t"],
    ),
    ("select a - ? from t", &["select a - 1 from t", "select a - 22 from t"]),
    ("select a->? from t where d->>? = ?", &["select a->'$.x' from t where d->>'$.y' = 'z'"]),
    ("select @a := ?, @@session.x", &["select @a := 1, @@session.x"]),
    ("select a from t where a <=> ?", &["select a from t where a<=>1"]),
    ("call p(?, ?)", &["call p(1, 'x')"]),
    (
        "select date_add(a, interval ? day) from t",
        &["select date_add(a, interval 1 day) from t", "select date_add(a, interval 30 day) from t"],
    ),
    (
        "select a from t where match (b) against (? in boolean mode)",
        &["select a from t where match (b) against ('+x' in boolean mode)"],
    ),
    (
        "select count(*), sum(a) from t group by b having sum(a) > ?",
        &["select count(*), sum(a) from t group by b having sum(a) > 10"],
    ),
    ("select ? union select ?", &["select 1 union select 2"]),
    ("set names utf8mb4", &["set names utf8mb4"]),
    ("set @x = ?", &["set @x = 5"]),
    ("select a from t1, t2 where t1.id = t2.id and t2.x = ?", &["select a from t1, t2 where t1.id=t2.id and t2.x=4"]),
    ("load data local infile ? into table t", &["load data local infile 'f' into table t"]),
    ("select a from db.`T 1` where b like ?", &["select a from db.`T 1` where b like '%x%'"]),
    ("select a from t where a = ? for update", &["select a from t where a = 1 for update"]),
    ("select if(a > ?, ?, ?) from t", &["select if(a > 1, 'x', 'y') from t"]),
    (
        "select a from t where a = ? and b in (?+) and c = ?",
        &["select a from t where a = 1 and b in (1,2) and c = 'z'"],
    ),
    ("prepare s from ?", &["prepare s from 'select 1'"]),
    ("execute s using @a", &["execute s using @a"]),
];
