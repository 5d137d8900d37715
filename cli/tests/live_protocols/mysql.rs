//! MariaDB with the compressed protocol and with TLS: its general log and its status counters.

use std::process::Command;

use super::harness::{compare, connections, live, run, script, sum, tables};
use super::postgresql::encrypted;
use crate::truth::mysql::{Answer, MariaDb, MySql, create};
use crate::truth::{Capture, Counts, assert_equal, find_program, folder, settled};

/// `SHOW GLOBAL STATUS`: the commands, under KFR's names.
fn status(port: u16) -> Counts {
    let port = format!("--port={port}");
    let text = run(Command::new("mariadb").args(["--no-defaults", "-h127.0.0.1", "-uroot", &port, "-BNe"]).arg(
        "SHOW GLOBAL STATUS WHERE Variable_name IN \
         ('Com_stmt_prepare', 'Com_stmt_execute', 'Com_stmt_close', 'Questions', 'Access_denied_errors')",
    ));
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs.map(|(name, value)| (name.to_string(), value.parse().unwrap())).collect()
}

#[test]
fn mariadb_compressed_and_encrypted() {
    if !live(&["mariadbd", "mariadb-install-db", "mariadb", "sysbench", "openssl"], &["MySQLdb"]) {
        return;
    }
    let folder = folder();
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| folder.path().join(name));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=db.test", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    let [key, certificate] = [("key", key), ("cert", certificate)].map(|(n, p)| format!("--ssl-{n}={}", p.display()));
    let mariadb = MariaDb::start_with(folder.path(), &[&key, &certificate]);
    let port = mariadb.port();
    let mut creator = MySql::connect(port);
    create(&mut creator);
    assert_eq!(creator.query("SELECT 1"), Answer::Rows(1));
    creator.quit();
    let sysbench = |action: &[&str]| {
        let port = format!("--mysql-port={port}");
        let server = ["--mysql-host=127.0.0.1", "--mysql-user=root", "--mysql-db=truth", &port];
        let options = ["--tables=1", "--table-size=500", "--db-ps-mode=auto", "--mysql-compression=on"];
        run(Command::new(find_program("sysbench").unwrap())
            .arg("oltp_read_write")
            .args(server)
            .args(options)
            .args(action))
    };
    sysbench(&["prepare"]);

    let before = status(port);
    let from = settled("MariaDB's log", || mariadb.log_bytes());
    let capture = Capture::start(folder.path(), "compressed", &["--port", &port.to_string()]);
    sysbench(&["--threads=1", "--events=50", "--time=0", "run"]);
    let client = tables(script("mysql.py").args([&port.to_string(), "compressed"]));
    settled("MariaDB's log", || mariadb.log_bytes());
    let bundle = capture.stop();
    let logged = mariadb.count(from);
    let after = status(port);
    let own = bundle.count(port, |line| {
        assert_eq!(line["protocol"], "mysql", "{line}");
        line["op"].as_str().unwrap_or("?").to_string()
    });
    assert_equal("MariaDB, compressed, log", &logged, &own);
    let said = |name: &str| after[name] - before[name];
    let server = Counts::from([
        ("prepare".to_string(), said("Com_stmt_prepare")),
        ("execute".to_string(), said("Com_stmt_execute")),
        ("close".to_string(), said("Com_stmt_close")),
    ]);
    let kfr = server.keys().map(|op| (op.clone(), sum(&own, op))).collect();
    assert_equal("MariaDB, compressed, status", &server, &kfr);
    let mut errors = bundle.count(port, super::harness::name);
    errors.retain(|name, _| !name.ends_with(" ok"));
    assert_equal("MariaDB, compressed, errors", &client["counts"], &errors);

    let capture = Capture::start(folder.path(), "tls", &["--port", &port.to_string()]);
    tables(script("mysql.py").args([&port.to_string(), "tls"]));
    let bundle = capture.stop();
    encrypted(&connections(&bundle, port), 3);
    compare("MariaDB over TLS", "mysql", &bundle, port, &Counts::new());
}
