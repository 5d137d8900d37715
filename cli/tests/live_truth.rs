//! Truth: what servers count of themselves equals what KFR counts, exactly.
//!
//! Needs root, BTF and the servers (see `scripts/lib.sh`); else the tests say why they were skipped.

mod truth;

use std::process::Command;
use std::thread;
use std::time::Instant;

use truth::http::{Http, Nginx};
use truth::mysql::{MariaDb, MySql};
use truth::redis::{Redis, RedisServer, command, difference, statistics};
use truth::{Capture, Counts, HOOKS, assert_equal, find_program, folder, live, print_rate, settled};

fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

/// Runs a client program to its end.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Clients that stay connected: each does what is hard to read, then as much as it can.
fn http_load(clients: &mut [Http]) {
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || {
                (0..40).for_each(|round| client.mix(round));
                (0..4000).for_each(|_| client.pipeline("/small", 8));
                (0..1000).for_each(|_| assert_eq!(client.get("/small"), 200));
            });
        }
    });
}

#[test]
fn nginx_counts_the_same_requests() {
    if !live(&["nginx", "wrk"]) {
        return;
    }
    let folder = folder();
    let nginx = Nginx::start(folder.path());
    for hook in HOOKS {
        // Connections opened during the capture.
        let from = settled("nginx's log", || nginx.log_bytes());
        let capture = Capture::start(folder.path(), "new", &["--socket-hook", hook]);
        let started = Instant::now();
        let mut clients: Vec<Http> = (0..4).map(|_| Http::connect(nginx.port())).collect();
        http_load(&mut clients);
        for number in 0..300 {
            Http::connect(nginx.port()).get(if number % 3 == 0 { "/missing" } else { "/medium.txt" });
        }
        let elapsed = started.elapsed();
        settled("nginx's log", || nginx.log_bytes());
        let bundle = capture.stop();
        let server = nginx.count(from);
        print_rate(&format!("nginx, {hook} hook, new connections"), total(&server), elapsed);
        assert_equal(
            &format!("nginx, {hook} hook, new connections"),
            &server,
            &bundle.count(nginx.port(), truth::http::name),
        );

        // The same connections again: all older than the capture.
        let from = nginx.log_bytes();
        let capture = Capture::start(folder.path(), "old", &["--socket-hook", hook]);
        let started = Instant::now();
        http_load(&mut clients);
        let elapsed = started.elapsed();
        settled("nginx's log", || nginx.log_bytes());
        let bundle = capture.stop();
        let server = nginx.count(from);
        print_rate(&format!("nginx, {hook} hook, older connections"), total(&server), elapsed);
        assert_equal(
            &format!("nginx, {hook} hook, older connections"),
            &server,
            &bundle.count(nginx.port(), truth::http::name),
        );
    }
}

#[test]
fn nginx_under_wrk_counts_the_same_requests() {
    if !live(&["nginx", "wrk"]) {
        return;
    }
    let folder = folder();
    let nginx = Nginx::start(folder.path());
    for hook in HOOKS {
        let from = settled("nginx's log", || nginx.log_bytes());
        let capture = Capture::start(folder.path(), "wrk", &["--socket-hook", hook]);
        let url = format!("http://127.0.0.1:{}/small", nginx.port());
        let started = Instant::now();
        run(Command::new(find_program("wrk").unwrap()).args(["-t", "2", "-c", "32", "-d", "2s", &url]));
        let elapsed = started.elapsed();
        settled("nginx's log", || nginx.log_bytes());
        let bundle = capture.stop();
        let server = nginx.count(from);
        print_rate(&format!("wrk, {hook} hook"), total(&server), elapsed);
        // wrk leaves while answers are on their way: nginx has sent them, the client never read them.
        let mut kfr = bundle.count(nginx.port(), truth::http::name);
        let abandoned = kfr.remove("GET unanswered").unwrap_or_default();
        println!("{abandoned} requests were abandoned by wrk at its end");
        assert!(abandoned <= 32, "{abandoned} unanswered requests of 32 connections");
        *kfr.entry("GET 200".to_string()).or_default() += abandoned;
        assert_equal(&format!("wrk, {hook} hook"), &server, &kfr);
    }
}

#[test]
fn connections_that_end_with_their_request_keep_their_status() {
    if !live(&["nginx", "wrk"]) {
        return;
    }
    let folder = folder();
    let nginx = Nginx::start(folder.path());
    let port = nginx.port();
    let load = || {
        for path in ["/small", "/broken", "/missing", "/none", "/medium.txt"] {
            let ask = |version: &str, header: &str, half_close| {
                let head = format!("GET {path} HTTP/{version}\r\nHost: truth\r\n{header}\r\n");
                let answer = truth::http::ask_once(port, head.as_bytes(), half_close);
                assert!(answer.starts_with(b"HTTP/1.1 "), "{head}: {}", String::from_utf8_lossy(&answer));
            };
            for _ in 0..20 {
                ask("1.0", "", false);
                ask("1.1", "Connection: close\r\n", false);
                ask("1.1", "Connection: close\r\n", true);
            }
        }
    };
    // Both ends recorded, then the server's alone.
    let own = nginx.server.pid().to_string();
    for hook in HOOKS {
        for scope in [&[][..], &["--pid", &own]] {
            let what = format!("nginx, {hook} hook, {} {scope:?}", "closed connections");
            let from = settled("nginx's log", || nginx.log_bytes());
            let capture = Capture::start(folder.path(), "closed", &[&["--socket-hook", hook], scope].concat());
            load();
            let settled = settled("nginx's log", || nginx.log_bytes());
            let bundle = capture.stop();
            assert!(settled > from);
            let server = nginx.count(from);
            assert_equal(&what, &server, &bundle.count(port, truth::http::name));
            bundle.requests(port, |line| assert_eq!(line["flags"], serde_json::json!([]), "{what}: {line}"));
        }
    }
}

fn redis_load(clients: &mut [Redis]) {
    let sixteen: Vec<Vec<u8>> =
        (0..16).map(|number| command(if number % 2 == 0 { &["GET", "key-1"] } else { &["INCR", "n"] })).collect();
    thread::scope(|scope| {
        for client in clients {
            let sixteen = &sixteen;
            scope.spawn(move || {
                (0..60).for_each(|round| client.mix(round));
                (0..1000).for_each(|_| client.pipeline(sixteen));
                (0..1500).for_each(|_| drop(client.ask(&["GET", "key-1"])));
            });
        }
    });
}

#[test]
fn redis_counts_the_same_commands() {
    if !live(&["redis-server", "redis-benchmark"]) {
        return;
    }
    let folder = folder();
    let redis = RedisServer::start(folder.path());
    let port = redis.port();
    let op = |line: &serde_json::Value| line["op"].as_str().unwrap_or("?").to_string();
    let mut observer = Redis::connect(port);
    for hook in HOOKS {
        let compare = |what: &str, observer: &mut Redis, load: &mut dyn FnMut()| {
            let before = statistics(observer);
            // The answers to a pipeline are one write of up to 16 KB: the status of what is cut can't be known.
            let options = ["--socket-hook", hook, "--payload-limit", "16KiB"];
            let capture = Capture::start(folder.path(), "redis", &options);
            let started = Instant::now();
            load();
            let elapsed = started.elapsed();
            let bundle = capture.stop();
            let after = statistics(observer);
            let mut server = difference(&after.0, &before.0);
            // The observer's own question at the start.
            match server.get_mut("INFO") {
                Some(1) => drop(server.remove("INFO")),
                other => *other.unwrap() -= 1,
            }
            let what = format!("Redis, {hook} hook, {what}");
            print_rate(&what, total(&server), elapsed);
            assert_equal(&what, &server, &bundle.count(port, op));
            let mut errors = bundle.count(port, |line| match line["status"].as_str() {
                Some("ok") => "ok".to_string(),
                Some("error") => line["code"].as_str().unwrap_or("?").to_string(),
                other => other.unwrap_or("?").to_string(),
            });
            errors.remove("ok");
            assert_equal(&format!("{what}, errors"), &difference(&after.1, &before.1), &errors);
        };
        let benchmark = |options: &[&str]| {
            let mut command = Command::new(find_program("redis-benchmark").unwrap());
            run(command.args(["-h", "127.0.0.1", "-q", "-c", "32", "-p", &port.to_string()]).args(options));
        };
        compare("redis-benchmark", &mut observer, &mut || {
            benchmark(&["-n", "40000", "-t", "get,set"]);
        });
        compare("redis-benchmark -P 16", &mut observer, &mut || {
            benchmark(&["-n", "48000", "-P", "16", "-t", "get,set,lpush,hset,mset"]);
        });
        let mut clients: Vec<Redis> = Vec::new();
        compare("new connections", &mut observer, &mut || {
            clients.extend((0..4).map(|_| Redis::connect(port)));
            redis_load(&mut clients);
            (0..200).for_each(|_| drop(Redis::connect(port).ask(&["GET", "key-1"])));
        });
        compare("older connections", &mut observer, &mut || redis_load(&mut clients));
    }
}

/// Client libraries fill a buffer before they send: 32 KiB is what go-redis takes.
#[test]
fn redis_commands_packed_into_one_call_keep_their_names() {
    if !live(&["redis-server"]) {
        return;
    }
    let folder = folder();
    let redis = RedisServer::start(folder.path());
    let packed: Vec<Vec<u8>> = (0..800).map(|n| command(&["SET", &format!("key-{n:04}"), "value"])).collect();
    assert!((28_000..32_768).contains(&packed.concat().len()));
    for hook in HOOKS {
        // Older than the capture, with the lower port and with the higher one, and opened in it.
        let mut old = Redis::connect_from(redis.port(), |own| own < redis.port());
        let mut higher = Redis::connect_from(redis.port(), |own| own > redis.port());
        let before = statistics(&mut old);
        let capture = Capture::start(folder.path(), "packed", &["--socket-hook", hook]);
        let mut new = Redis::connect(redis.port());
        for client in [&mut old, &mut higher, &mut new] {
            (0..20).for_each(|_| client.pipeline(&packed));
        }
        let bundle = capture.stop();
        let mut server = difference(&statistics(&mut old).0, &before.0);
        server.remove("INFO");
        let name = |line: &serde_json::Value| format!("{} {}", line["op"].as_str().unwrap(), line["status"]);
        let server: Counts = server.into_iter().map(|(op, count)| (format!("{op} \"ok\""), count)).collect();
        assert_equal(&format!("Redis, {hook} hook, packed commands"), &server, &bundle.count(redis.port(), name));
    }
}

#[test]
fn redis_commands_behind_the_payload_limit_are_counted_by_their_answers() {
    if !live(&["redis-server", "redis-benchmark"]) {
        return;
    }
    let folder = folder();
    let redis = RedisServer::start(folder.path());
    let port = redis.port();
    for hook in HOOKS {
        let capture = Capture::start(folder.path(), "redis", &["--socket-hook", hook, "--payload-limit", "512"]);
        let benchmark =
            ["-h", "127.0.0.1", "-q", "-c", "8", "-n", "16000", "-P", "16", "-t", "mset", "-p", &port.to_string()];
        run(Command::new(find_program("redis-benchmark").unwrap()).args(benchmark));
        let bundle = capture.stop();
        let kfr = bundle.count(port, |line| {
            let cut = line["flags"].as_array().unwrap().iter().any(|flag| flag == "truncated");
            let op = line["op"].as_str().unwrap();
            assert!(matches!(op, "MSET" | "CONFIG") || (op == "?" && cut), "{line}");
            if op == "CONFIG" { "CONFIG" } else { "MSET" }.to_string()
        });
        let server = Counts::from([("CONFIG".to_string(), 2), ("MSET".to_string(), 16_000)]);
        assert_equal(&format!("Redis, {hook} hook, 512 bytes of each call"), &server, &kfr);
    }
}

#[test]
fn mariadb_logs_the_same_commands() {
    if !live(&["mariadbd", "mariadb-install-db", "sysbench"]) {
        return;
    }
    let folder = folder();
    let mariadb = MariaDb::start(folder.path());
    let port = mariadb.port();
    let mut creator = MySql::connect(port);
    truth::mysql::create(&mut creator);
    creator.quit();
    let sysbench = |action: &[&str]| {
        let port = format!("--mysql-port={port}");
        let options = [
            "--mysql-host=127.0.0.1",
            "--mysql-user=root",
            "--mysql-db=truth",
            "--tables=2",
            "--table-size=1000",
            &port,
        ];
        run(Command::new(find_program("sysbench").unwrap()).arg("oltp_read_write").args(options).args(action))
    };
    sysbench(&["prepare"]);
    let op = |line: &serde_json::Value| line["op"].as_str().unwrap_or("?").to_string();
    for hook in HOOKS {
        let compare = |what: &str, pings: u64, load: &mut dyn FnMut()| {
            let from = settled("MariaDB's log", || mariadb.log_bytes());
            let capture = Capture::start(folder.path(), "mariadb", &["--socket-hook", hook]);
            let started = Instant::now();
            load();
            let elapsed = started.elapsed();
            settled("MariaDB's log", || mariadb.log_bytes());
            let bundle = capture.stop();
            let mut server = mariadb.count(from);
            // The log leaves pings out; the clients count those.
            server.extend((pings > 0).then(|| ("ping".to_string(), pings)));
            let what = format!("MariaDB, {hook} hook, {what}");
            print_rate(&what, total(&server), elapsed);
            assert_equal(&what, &server, &bundle.count(port, op));
            bundle
        };
        compare("sysbench", 0, &mut || {
            sysbench(&["--threads=4", "--events=600", "--time=0", "run"]);
        });
        let errors = |bundle: &truth::Bundle| {
            let mut errors = bundle.count(port, |line| line["code"].as_str().unwrap_or("ok").to_string());
            errors.remove("ok");
            errors
        };
        let mut clients = Vec::new();
        let load = |clients: &mut Vec<(MySql, truth::mysql::Prepared)>| {
            thread::scope(|scope| {
                for (client, statement) in clients {
                    scope.spawn(move || (0..200).for_each(|round| client.mix(statement, round)));
                }
            });
        };
        let expected = Counts::from([("1064".to_string(), 600), ("1146".to_string(), 600)]);
        let bundle = compare("new connections", 600, &mut || {
            for _ in 0..3 {
                let mut client = MySql::connect(port);
                client.use_database("truth");
                let statement = client.prepare(truth::mysql::STATEMENT);
                clients.push((client, statement));
            }
            load(&mut clients);
        });
        assert_equal("errors", &expected, &errors(&bundle));
        let bundle = compare("older connections", 600, &mut || load(&mut clients));
        assert_equal("errors", &expected, &errors(&bundle));
    }
}

/// Value below which `permille` of the sorted values lie.
fn quantile(sorted: &[u64], permille: usize) -> u64 {
    sorted[(sorted.len() * permille / 1000).min(sorted.len() - 1)]
}

/// `1.23ms`, `45.00us`, `1.20s` as ns.
fn duration_ns(text: &str) -> u64 {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "us" => 1e3,
        "ms" => 1e6,
        _ => 1e9,
    };
    (number.parse::<f64>().unwrap() * unit) as u64
}

fn print_latency(what: &str, client: [u64; 2], kfr: [u64; 2]) {
    for ((name, client), kfr) in ["p50", "p99"].into_iter().zip(client).zip(kfr) {
        let percent = (kfr as f64 / client as f64 - 1.0) * 100.0;
        println!(
            "{what:<44} {name}  client {:9.1} us  kfr {:9.1} us  {percent:+6.1}%",
            client as f64 / 1e3,
            kfr as f64 / 1e3
        );
        // How near it is depends on the machine, and p99 on what a client does beside its socket: see
        // docs/journal/latency.md. Far off is wrong.
        let far = client / 4 + 30_000;
        assert!(name == "p99" || kfr.abs_diff(client) < far, "{what}: {kfr} ns against {client} ns");
    }
}

/// wrk adds samples to those it took: for one of `t` that is above twice the mean time between the requests of a
/// connection, others of `t` less one, two, ... such times, as if it had gone on asking meanwhile. (This is how the
/// figures under `--latency` come about; it is in `stats_correct` and `main` of wrk 4.) Values must be sorted.
fn corrected_as_by_wrk(durations: &[u64], connections: u64, elapsed_ns: u64) -> Vec<u64> {
    let interval = elapsed_ns / (durations.len() as u64 / connections).max(1);
    let mut all = durations.to_vec();
    for duration in durations.iter().filter(|duration| **duration >= 2 * interval) {
        let mut value = duration - interval;
        while value > interval {
            all.push(value);
            value -= interval;
        }
    }
    all.sort_unstable();
    all
}

/// Prints p50 and p99 as the load generator and as KFR have them.
#[test]
fn latency_is_what_the_client_measures() {
    if !live(&["nginx", "wrk"]) {
        return;
    }
    let folder = folder();
    let nginx = Nginx::start(folder.path());
    let port = nginx.port();
    let url = format!("http://127.0.0.1:{port}/medium.txt");
    for hook in HOOKS {
        let durations = |bundle: &truth::Bundle| {
            let mut durations = Vec::new();
            bundle.requests(port, |line| durations.extend(line["duration_ns"].as_u64()));
            durations.sort_unstable();
            durations
        };
        let both = |sorted: &[u64]| [quantile(sorted, 500), quantile(sorted, 990)];
        for connections in ["1", "8", "64"] {
            let capture = Capture::start(folder.path(), "latency", &["--socket-hook", hook]);
            let wrk = ["-t", "1", "-c", connections, "-d", "2s", "--latency", &url];
            let text = run(Command::new(find_program("wrk").unwrap()).args(wrk));
            let bundle = capture.stop();
            let said = |percent: &str| {
                let line = text.lines().find(|line| line.trim_start().starts_with(percent)).unwrap();
                duration_ns(line.split_whitespace().nth(1).unwrap())
            };
            let what = format!("wrk, {connections} connections, {hook} hook");
            let durations = durations(&bundle);
            print_latency(&what, [said("50%"), said("99%")], both(&durations));
            let corrected = corrected_as_by_wrk(&durations, connections.parse().unwrap(), 2_000_000_000);
            print_latency(
                &format!("  as wrk corrects it ({} added)", corrected.len() - durations.len()),
                [said("50%"), said("99%")],
                both(&corrected),
            );
        }
        // Stamps before write and after the last read: what a client can know at the socket.
        let capture = Capture::start(folder.path(), "latency", &["--socket-hook", hook]);
        let mut client = Http::connect(port);
        let mut stamps: Vec<u64> = (0..20_000)
            .map(|_| {
                let started = Instant::now();
                client.get("/medium.txt");
                started.elapsed().as_nanos() as u64
            })
            .collect();
        stamps.sort_unstable();
        let bundle = capture.stop();
        print_latency(&format!("own stamps, 1 connection, {hook} hook"), both(&stamps), both(&durations(&bundle)));
    }
}
