//! PostgreSQL: the client's count, the errors in the server's log, and pg_stat_statements.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{compare, connections, in_folder, live, run, script, tables};
use crate::truth::{Capture, Counts, Server, assert_equal, folder, free_port};

/// PostgreSQL's programs are in no folder of PATH.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.filter_map(|version| in_folder(version.ok()?.path().join("bin").to_str()?, "initdb")).max()
}

/// Neither initdb nor the server runs as root.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program).current_dir("/");
    command
}

/// A server that trusts everybody on loopback, with TLS for whom asks for it, and its log.
fn start(folder: &Path, initdb: &Path) -> (Server, PathBuf) {
    let data = folder.join("postgresql");
    std::fs::create_dir(&data).unwrap();
    run(Command::new("chown").arg("postgres:").arg(&data));
    run(as_postgres(initdb).args(["--auth=trust", "--username=postgres", "--locale=C", "--no-sync", "-D"]).arg(&data));
    let [key, certificate] = ["server.key", "server.crt"].map(|name| data.join(name));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=db.test"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    run(Command::new("chown").arg("postgres:").args([&key, &certificate]));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let port = free_port();
    let log = folder.join("postgresql.log");
    let mut command = as_postgres(&initdb.with_file_name("postgres"));
    command.arg("-D").arg(&data).arg("-p").arg(port.to_string());
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "ssl=on",
        "fsync=off",
        "shared_preload_libraries=pg_stat_statements",
        "log_line_prefix=STATE=%e ",
        "autovacuum=off",
    ] {
        command.arg("-c").arg(setting);
    }
    let server = Server::start("postgres", port, &log, &mut command);
    (server, log)
}

fn psql(port: u16, sql: &str) -> String {
    let port = port.to_string();
    run(Command::new("psql").args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-XAtq", "-c", sql]))
}

/// Errors in the log, by SQLSTATE.
fn errors(log: &Path) -> Counts {
    let mut counts = Counts::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        if let Some((state, "ERROR")) = line.strip_prefix("STATE=").and_then(|rest| {
            let (state, message) = rest.split_once(' ')?;
            Some((state, message.split(':').next()?.trim()))
        }) {
            *counts.entry(state.to_string()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn postgresql_counts_the_same_statements() {
    if !live(&["setpriv", "psql", "openssl"], &["psycopg2", "psycopg", "asyncpg"]) {
        return;
    }
    let initdb = programs().expect("psql without a server: install postgresql-15");
    let folder = folder();
    let (server, log) = start(folder.path(), &initdb);
    let port = server.port;
    let port_text = port.to_string();
    // Waits until the database takes queries: the port answers before that.
    crate::truth::wait_for("PostgreSQL", || {
        let mut ready = Command::new(initdb.with_file_name("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &port_text]).status().unwrap().success().then_some(())
    });
    psql(port, "CREATE EXTENSION pg_stat_statements");
    psql(port, "SELECT pg_stat_statements_reset()");
    let before = errors(&log);
    // Of an answer that is cut, the end would be missing, and with it the status.
    let capture = Capture::start(folder.path(), "plain", &["--port", &port_text, "--payload-limit", "32KiB"]);
    let client = tables(script("postgresql.py").args([&port_text, "plain"]));
    let bundle = capture.stop();
    compare("PostgreSQL, client", "postgresql", &bundle, port, &client["counts"]);

    assert!(before.is_empty(), "{before:?}");
    let mut kfr_errors = bundle.count(port, |line| line["code"].as_str().unwrap_or("none").to_string());
    kfr_errors.remove("none");
    assert_equal("PostgreSQL, errors in the log", &errors(&log), &kfr_errors);

    // Statements that failed are not among its own.
    let asked = psql(
        port,
        "SELECT lower(split_part(query, ' ', 1)), sum(calls), sum(rows) FROM pg_stat_statements \
         WHERE query NOT LIKE '%pg_stat_statements%' GROUP BY 1",
    );
    let mut statistics = Counts::new();
    for line in asked.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        statistics.insert(format!("{} calls", fields[0]), fields[1].parse().unwrap());
        statistics.insert(format!("{} rows", fields[0]), fields[2].parse().unwrap());
    }
    let mut own = Counts::new();
    bundle.requests(port, |line| {
        if line["status"] == "ok" {
            let word = line["target"].as_str().unwrap().split(' ').next().unwrap().to_string();
            *own.entry(format!("{word} calls")).or_default() += 1;
            *own.entry(format!("{word} rows")).or_default() += line["rows"].as_u64().unwrap_or_default();
        }
    });
    assert_equal("PostgreSQL, pg_stat_statements", &statistics, &own);

    let capture = Capture::start(folder.path(), "tls", &["--port", &port_text]);
    tables(script("postgresql.py").args([&port_text, "tls"]));
    let bundle = capture.stop();
    encrypted(&connections(&bundle, port), 3);
    compare("PostgreSQL over TLS", "postgresql", &bundle, port, &Counts::new());
}

/// So many connections, each of which says that it is TLS, of which version, and that no request can be read.
pub fn encrypted(connections: &[serde_json::Value], count: usize) {
    assert_eq!(connections.len(), count, "{connections:?}");
    for line in connections {
        assert_eq!(line["protocol"], "tls", "{line}");
        assert_eq!(line["tls"]["version"], "TLS 1.3", "{line}");
        assert!(line["flags"].as_array().unwrap().iter().any(|flag| flag == "encrypted"), "{line}");
        assert_eq!(line["requests"], 0, "{line}");
    }
}
