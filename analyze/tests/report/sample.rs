//! A made-up but realistic report: nginx in front of an application that uses Redis and MariaDB, with a missing index,
//! an N+1 endpoint, a failing endpoint, and a recording that is not quite complete.

use kfr_analyze::report::document::*;

/// 2026-11-23 03:25:00 UTC.
pub const START: u64 = 1_795_404_300_000_000_000;
const SECOND: u64 = 1_000_000_000;
const LENGTH: u64 = 60;
/// When the incident begins, in seconds.
const ONSET: u64 = 22;
const MS: u64 = 1_000_000;

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

/// A repeatable wobble from 0 to 99.
fn wobble(seed: u64, i: u64) -> u64 {
    (seed.wrapping_mul(0x9e37_79b9).wrapping_add(i.wrapping_mul(0x85eb_ca6b)) >> 7).wrapping_mul(2_654_435_761) % 100
}

/// Golden metrics of about `per_s` requests a second, which slow down by `factor` at the onset, `bad` percent failing.
pub fn golden(seed: u64, per_s: u64, p50: u64, p99: u64, factor: u64, bad: u64) -> Golden {
    let series: Vec<Point> = (0..LENGTH)
        .filter(|i| !(41..43).contains(i)) // two seconds were lost
        .map(|i| {
            let late = if i >= ONSET { factor } else { 1 };
            let requests = per_s * (90 + wobble(seed, i) / 5) / 100;
            let errors = if i >= ONSET { requests * bad * (50 + wobble(seed + 9, i)) / 10_000 } else { 0 };
            let spread = 80 + wobble(seed + 3, i) / 3;
            Point {
                start_ns: START + i * SECOND,
                requests,
                errors,
                unknown: 0,
                p50_ns: (requests > 0).then(|| p50 * spread / 100 * if late > 1 { late.min(3) } else { 1 }),
                p99_ns: (requests > 0).then(|| p99 * spread / 100 * late),
            }
        })
        .collect();
    let requests: u64 = series.iter().map(|p| p.requests).sum();
    let errors: u64 = series.iter().map(|p| p.errors).sum();
    Golden {
        requests,
        errors,
        client_errors: 0,
        unanswered: u64::from(bad > 0) * 3,
        unknown: 0,
        rate_per_s: Some(requests as f64 / LENGTH as f64),
        error_ratio: (requests > 0).then(|| errors as f64 / requests as f64),
        p50_ns: Some(p50 * factor.min(2)),
        p95_ns: Some(p99 * factor * 6 / 10),
        p99_ns: Some(p99 * factor),
        max_ns: Some(p99 * factor * 17 / 10),
        slow: if factor > 1 { requests / 19 } else { 0 },
        slow_threshold_ns: Some(250 * MS),
        request_bytes: requests * 412,
        response_bytes: requests * 2_310,
        series,
    }
}

fn endpoint(protocol: &str, op: &str, target: Option<&str>, golden: Golden) -> Endpoint {
    Endpoint {
        protocol: protocol.to_owned(),
        op: op.to_owned(),
        target: target.map(str::to_owned),
        golden,
        ..Endpoint::default()
    }
}

fn process(pid: u32, name: &str, command: &str) -> Process {
    Process {
        pid,
        name: name.to_owned(),
        exe: Some(format!("/usr/sbin/{name}")),
        command: Some(command.to_owned()),
        container: None,
    }
}

fn services() -> Vec<Service> {
    let unit = |id: &str, name: &str, listens: &[&str], protocols: &[&str], inbound: Golden| Service {
        id: id.to_owned(),
        name: name.to_owned(),
        kind: ServiceKind::Unit,
        node: Some("shop-01".to_owned()),
        listens: strings(listens),
        protocols: strings(protocols),
        inbound,
        ..Service::default()
    };
    let app = Service {
        kind: ServiceKind::Process,
        processes: vec![
            process(4112, "shop-app", "shop-app --listen 127.0.0.1:8000 --db-password ***"),
            process(4113, "shop-app", ""),
        ],
        endpoints: vec![
            endpoint("http", "GET", Some("/orders/{id}/recommendations"), golden(3, 9, 4 * MS, 12 * MS, 1, 38)),
            endpoint("http", "GET", Some("/search"), golden(4, 22, 38 * MS, 96 * MS, 9, 0)),
            endpoint("http", "GET", Some("/orders"), golden(5, 14, 61 * MS, 140 * MS, 2, 0)),
            endpoint("http", "GET", Some("/product/{id}"), golden(6, 140, 2 * MS, 7 * MS, 1, 0)),
            endpoint("http", "POST", Some("/cart"), golden(7, 31, 3 * MS, 11 * MS, 1, 0)),
        ],
        endpoints_total: 5,
        outbound: Some(golden(8, 1240, 310_000, 9 * MS, 4, 0)),
        weakened_by: strings(&["mid-stream"]),
        ..unit("process:shop-app", "shop-app", &["127.0.0.1:8000"], &["http"], golden(1, 216, 4 * MS, 92 * MS, 9, 2))
    };
    let nginx = Service {
        processes: vec![process(901, "nginx", "nginx: worker process")],
        endpoints: vec![endpoint("http", "GET", Some("/search"), golden(4, 22, 39 * MS, 98 * MS, 9, 0))],
        endpoints_total: 41,
        outbound: Some(golden(1, 216, 4 * MS, 92 * MS, 9, 2)),
        ..unit(
            "unit:nginx.service",
            "nginx.service",
            &["0.0.0.0:80", "[::]:80"],
            &["http"],
            golden(2, 216, 4 * MS, 93 * MS, 9, 2),
        )
    };
    let mariadb = Service {
        processes: vec![process(740, "mariadbd", "/usr/sbin/mariadbd")],
        endpoints: vec![
            endpoint(
                "mysql",
                "execute",
                Some("SELECT * FROM products WHERE title LIKE ? ORDER BY price LIMIT ?"),
                golden(12, 22, 34 * MS, 88 * MS, 9, 0),
            ),
            endpoint(
                "mysql",
                "query",
                Some("SELECT name, qty FROM order_items WHERE order_id = ?"),
                golden(13, 610, 240_000, 900_000, 1, 0),
            ),
            endpoint("mysql", "ping", None, golden(14, 1, 60_000, 90_000, 1, 0)),
        ],
        endpoints_total: 3,
        ..unit(
            "unit:mariadb.service",
            "mariadb.service",
            &["127.0.0.1:3306"],
            &["mysql"],
            golden(10, 640, 260_000, 41 * MS, 9, 0),
        )
    };
    let redis = Service {
        processes: vec![process(733, "redis-server", "/usr/bin/redis-server 127.0.0.1:6379")],
        endpoints: vec![
            endpoint("redis", "HGETALL", Some("session:?"), golden(21, 216, 48_000, 210_000, 1, 0)),
            endpoint("redis", "GET", Some("product:?"), golden(22, 380, 41_000, 180_000, 1, 0)),
        ],
        endpoints_total: 2,
        ..unit(
            "unit:redis-server.service",
            "redis-server.service",
            &["127.0.0.1:6379"],
            &["redis"],
            golden(20, 596, 44_000, 190_000, 1, 0),
        )
    };
    let recommender = Service {
        id: "external:10.0.4.17:9000".to_owned(),
        name: "10.0.4.17:9000".to_owned(),
        kind: ServiceKind::External,
        protocols: strings(&["http"]),
        inbound: golden(31, 9, 3 * MS, 9 * MS, 1, 38),
        endpoints: vec![endpoint("http", "GET", Some("/v2/recommend"), golden(31, 9, 3 * MS, 9 * MS, 1, 38))],
        endpoints_total: 1,
        flags: strings(&["one_sided"]),
        ..Service::default()
    };
    let client = Service {
        id: "external:clients".to_owned(),
        name: "203.0.113.0/24".to_owned(),
        kind: ServiceKind::External,
        outbound: Some(golden(2, 216, 4 * MS, 93 * MS, 9, 2)),
        ..Service::default()
    };
    let backup =
        unit("unit:backup.timer", "nightly-backup-of-the-warehouse-database.timer", &[], &[], Golden::default());
    vec![recommender, app, nginx, mariadb, redis, backup, client]
}

fn edges() -> Vec<Edge> {
    let edge = |client: &str, server: &str, protocol: &str, golden: Golden, connections: u64| Edge {
        id: format!("{client}>{server}>{protocol}"),
        client: client.to_owned(),
        server: server.to_owned(),
        protocol: protocol.to_owned(),
        bytes_sent: golden.request_bytes,
        bytes_received: golden.response_bytes,
        golden,
        connections,
        retransmits: Some(0),
        resets: Some(0),
        failed_connects: Some(0),
        flags: Vec::new(),
        known_by: Some("both_ends".to_owned()),
        cross_zone: None,
    };
    vec![
        Edge {
            retransmits: Some(41),
            resets: Some(188),
            failed_connects: Some(12),
            flags: strings(&["one_sided"]),
            known_by: Some("address".to_owned()),
            ..edge("process:shop-app", "external:10.0.4.17:9000", "http", golden(31, 9, 3 * MS, 9 * MS, 1, 38), 540)
        },
        edge("unit:nginx.service", "process:shop-app", "http", golden(1, 216, 4 * MS, 92 * MS, 9, 2), 64),
        edge("process:shop-app", "unit:mariadb.service", "mysql", golden(10, 640, 260_000, 41 * MS, 9, 0), 8),
        edge("process:shop-app", "unit:redis-server.service", "redis", golden(20, 596, 44_000, 190_000, 1, 0), 8),
        Edge {
            retransmits: None,
            resets: None,
            failed_connects: None,
            ..edge("external:clients", "unit:nginx.service", "http", golden(2, 216, 4 * MS, 93 * MS, 9, 2), 1204)
        },
        edge("unit:backup.timer", "unit:mariadb.service", "unknown", Golden::default(), 1),
    ]
}

fn sql() -> Vec<Statement> {
    let statement = |fingerprint: &str, text: &str, calls: u64, mean: u64, rows: Option<u64>| Statement {
        fingerprint: fingerprint.to_owned(),
        text: text.to_owned(),
        system: "mysql".to_owned(),
        server: Some("unit:mariadb.service".to_owned()),
        calls,
        total_ns: calls * mean,
        mean_ns: Some(mean),
        p95_ns: Some(mean * 3),
        max_ns: Some(mean * 7),
        rows,
        callers: strings(&["process:shop-app"]),
        ..Statement::default()
    };
    vec![
        Statement {
            flags: strings(&["no_index", "full_scan"]),
            no_index: 1290,
            exemplar: Some(Exemplar {
                request: "q-81f2".to_owned(),
                start_ns: START + 31 * SECOND,
                duration_ns: Some(1_412 * MS),
                evidence: strings(&["a41c.17:2204", "a41c.17:2209"]),
            }),
            ..statement(
                "9f3b2c7710aa41de",
                "SELECT id, title, price, stock FROM products WHERE title LIKE ? ORDER BY price LIMIT ?",
                1290,
                214 * MS,
                Some(25_800),
            )
        },
        Statement {
            flags: strings(&["n_plus_one"]),
            n_plus_one: Some(NPlusOne {
                occurrences: 1200,
                calls: 36_000,
                longest: 30,
                parent: Some("9f3b2c7710aa41de".to_owned()),
            }),
            ..statement(
                "41c09e1f00b7a8e2",
                "SELECT name, qty FROM order_items WHERE order_id = ?",
                36_120,
                260_000,
                Some(36_120),
            )
        },
        Statement {
            errors: 12,
            affected: Some(1818),
            warnings: 3,
            idle_in_transaction: Some(IdleInTransaction {
                count: 40,
                total_ns: 9 * SECOND,
                max_ns: 1_700 * MS,
                exemplar: None,
            }),
            ..statement(
                "77d0c1a2b3e4f500",
                "INSERT INTO carts (user_id, product_id, qty) VALUES (?, ?, ?)",
                1830,
                900_000,
                Some(1818),
            )
        },
        statement("0c0ffee0decade00", "SET NAMES utf8mb4", 8, 70_000, None),
    ]
}

fn network() -> Network {
    let peer = |address: &str, port: u16, process: Option<&str>| Peer {
        address: address.to_owned(),
        port: Some(port),
        process: process.map(str::to_owned),
        node: process.map(|_| "shop-01".to_owned()),
        ..Peer::default()
    };
    let base = Connection {
        transport: "tcp".to_owned(),
        requests: Some(12),
        retransmits: Some(0),
        resets: Some(0),
        ..Connection::default()
    };
    Network {
        totals: NetworkTotals {
            opened: Some(1802),
            closed: Some(1790),
            failed_connects: Some(12),
            resets: Some(188),
            retransmits: Some(44),
            segments_sent: Some(412_881),
            bytes_sent: 88_211_340,
            bytes_received: 391_002_113,
        },
        connections: vec![
            Connection {
                id: "c-11".to_owned(),
                client: peer("10.0.4.2", 51_230, Some("shop-app")),
                server: peer("10.0.4.17", 9000, None),
                opened_ns: Some(START + 23 * SECOND + 120 * MS),
                closed_ns: Some(START + 24 * SECOND),
                how_closed: Some("reset".to_owned()),
                protocol: "http".to_owned(),
                requests: Some(1),
                bytes_sent: 512,
                bytes_received: 0,
                rtt_us: Some(Rtt { min: Some(310.0), p50: Some(420.5), p99: Some(18_200.0) }),
                retransmits: Some(9),
                resets: Some(1),
                connect_us: Some(1320),
                flags: strings(&["unanswered"]),
                evidence: strings(&["a41c.12:881"]),
                ..base.clone()
            },
            Connection {
                id: "c-2".to_owned(),
                client: peer("127.0.0.1", 40_112, Some("shop-app")),
                server: peer("127.0.0.1", 3306, Some("mariadbd")),
                how_closed: Some("open".to_owned()),
                protocol: "mysql".to_owned(),
                requests: Some(4821),
                bytes_sent: 2_118_400,
                bytes_received: 99_271_004,
                rtt_us: Some(Rtt { min: Some(9.0), p50: Some(14.0), p99: Some(61.0) }),
                flags: strings(&["mid_stream"]),
                ..base.clone()
            },
            Connection {
                id: "c-3".to_owned(),
                client: peer("2001:db8::7", 33_000, Some("backup")),
                server: peer("2001:db8::1", 443, None),
                opened_ns: Some(START + 2 * SECOND),
                protocol: "encrypted".to_owned(),
                requests: None,
                bytes_sent: 81_223_411,
                bytes_received: 120_002,
                retransmits: None,
                resets: None,
                ..base
            },
        ],
        connections_total: 1833,
        connections_idle: 3,
    }
}

fn node(name: &str, cores: u64) -> Node {
    let sample = |i: u64| {
        let hot = if i >= ONSET { 380 } else { 120 };
        let cores = (0..cores).map(|core| {
            let user = (hot + wobble(core, i) * 3 + if core == 1 && i >= ONSET { 280 } else { 0 }).min(860) as u16;
            let system = (30 + wobble(core + 40, i)) as u16;
            Some(CoreSplit {
                user_permille: user,
                system_permille: system.min(1000 - user),
                irq_permille: 8,
                iowait_permille: 12,
                ..CoreSplit::default()
            })
        });
        HostSample {
            start_ns: START + i * SECOND,
            duration_ns: SECOND,
            cores: cores.collect(),
            memory_used_bytes: Some((5_200 + i * 6) << 20),
            memory_available_bytes: Some((10_800 - i * 6) << 20),
            load_1m: Some(0.6 + i as f64 / 17.0),
            runnable: Some(2 + wobble(77, i) / 20),
            pressure: Some(Pressure {
                cpu_some_permille: Some((wobble(5, i) / 4 + if i >= ONSET { 90 } else { 3 }) as u16),
                memory_some_permille: Some(0),
                memory_full_permille: Some(0),
                io_some_permille: Some((wobble(6, i) / 9) as u16),
                io_full_permille: Some(0),
            }),
            tcp: Some(TcpCounters {
                segments_in: 6_700,
                segments_out: 6_881,
                retransmitted: if i >= ONSET { wobble(8, i) / 40 } else { 0 },
                passive_opens: 20,
                active_opens: 9,
                listen_drops: Some(0),
                ..TcpCounters::default()
            }),
        }
    };
    Node {
        name: name.to_owned(),
        kernel: Some("6.12.48+deb13-amd64".to_owned()),
        os: Some("Debian GNU/Linux 13 (trixie)".to_owned()),
        cpus: Some(cores as u32),
        memory_bytes: Some(16 << 30),
        samples: (0..LENGTH).filter(|i| !(41..43).contains(i)).map(sample).collect(),
        disks: vec![Disk {
            name: "nvme0n1".to_owned(),
            samples: (0..LENGTH)
                .map(|i| DiskSample {
                    start_ns: START + i * SECOND,
                    duration_ns: SECOND,
                    read_bytes: wobble(1, i) << 14,
                    written_bytes: wobble(2, i) << 16,
                    operations: 40,
                    operation_ns: Some(9 * MS),
                    busy_permille: Some((wobble(3, i) * 2) as u16),
                })
                .collect(),
        }],
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            samples: (0..LENGTH)
                .map(|i| InterfaceSample {
                    start_ns: START + i * SECOND,
                    duration_ns: SECOND,
                    received_bytes: 900_000 + wobble(4, i) * 4_000,
                    sent_bytes: 6_100_000 + wobble(5, i) * 30_000,
                    received_packets: 4_000,
                    sent_packets: 6_000,
                    dropped: u64::from(i == 44) * 3,
                    errors: 0,
                })
                .collect(),
        }],
        weakened_by: Vec::new(),
        kubernetes: None,
    }
}

fn findings() -> Vec<Finding> {
    let subject = |kind: &str, name: &str, id: &str| Subject {
        kind: kind.to_owned(),
        name: name.to_owned(),
        id: Some(id.to_owned()),
    };
    vec![
        Finding {
            id: "sql.slow:9f3b2c7710aa41de".to_owned(),
            check: "sql.slow_statement".to_owned(),
            severity: Severity::Critical,
            subject: subject("statement", "SELECT … FROM products WHERE title LIKE ?", "9f3b2c7710aa41de"),
            title: "p99 of a search in products went from 96 ms to 864 ms at 03:25:22: it reads the whole table"
                .to_owned(),
            onset_ns: Some(START + ONSET * SECOND + 140 * MS),
            confidence: Confidence::High,
            reasons: strings(&[
                "87% of all time in MariaDB goes to this one statement (1,290 calls, mean 214 ms)",
                "the answer carries the flags “no index used” and “no good index used” in every call",
                "GET /search of shop-app waits for it 97% of its time",
            ]),
            ruled_out: strings(&[
                "CPU of the host: 61% busy at most, pressure under 12%",
                "locks: calls of other statements to the same table kept their duration",
            ]),
            victims: vec![
                subject("service", "shop-app", "process:shop-app"),
                subject("service", "nginx.service", "unit:nginx.service"),
            ],
            evidence: strings(&["a41c.17:2204", "a41c.17:2209", "a41c.18:12"]),
            verify: Some("kfr dump incident.kfr --at a41c.17:2204".to_owned()),
            weakened_by: Vec::new(),
        },
        Finding {
            id: "http.errors:external:10.0.4.17:9000".to_owned(),
            check: "service.error_ratio".to_owned(),
            severity: Severity::Critical,
            subject: subject("service", "10.0.4.17:9000", "external:10.0.4.17:9000"),
            title: "38% of the calls to 10.0.4.17:9000 fail with 503 or a reset since 03:25:22".to_owned(),
            onset_ns: Some(START + ONSET * SECOND + 800 * MS),
            confidence: Confidence::Medium,
            reasons: strings(&["128 of 337 answers are 503", "188 connections ended by a reset from the other side"]),
            victims: vec![subject("service", "shop-app", "process:shop-app")],
            evidence: strings(&["a41c.12:881"]),
            verify: Some("kfr dump incident.kfr --requests | grep 10.0.4.17".to_owned()),
            weakened_by: strings(&["one-sided"]),
            ..Finding::default()
        },
        Finding {
            id: "sql.n_plus_one:41c09e1f00b7a8e2".to_owned(),
            check: "sql.n_plus_one".to_owned(),
            severity: Severity::Warning,
            subject: subject("endpoint", "GET /orders", "process:shop-app"),
            title: "GET /orders runs one statement 43 times a request (N+1)".to_owned(),
            onset_ns: None,
            confidence: Confidence::Medium,
            reasons: strings(&[
                "36,120 calls of one fingerprint for 840 requests, on the same connection, one after another",
            ]),
            evidence: strings(&["a41c.9:104"]),
            ..Finding::default()
        },
    ]
}

fn ledger() -> Ledger {
    let entry = |id: &str,
                 area: &str,
                 what: &str,
                 count: Option<u64>,
                 unit: &str,
                 effect: &str,
                 weakens: &[Figure],
                 severity| LedgerEntry {
        id: id.to_owned(),
        area: area.to_owned(),
        what: what.to_owned(),
        count,
        unit: unit.to_owned(),
        effect: effect.to_owned(),
        weakens: weakens.to_vec(),
        severity,
    };
    Ledger {
        totals: Totals {
            events: 1_284_420,
            bytes: 479_213_453,
            payload_kept_bytes: 121_339_004,
            payload_cut_bytes: 356_112_010,
            unseen_bytes: 1_762_439,
            connections: 1833,
            connections_mid_stream: 17,
            requests: 97_210,
            lost_events: Some(1_204),
        },
        entries: vec![
            entry(
                "lost-events:shop-01",
                "capture",
                "events lost in the ring",
                Some(1204),
                "events",
                "Requests of two seconds are missing: counts and rates are up to 2% too low there.",
                &[Figure::Requests, Figure::Bytes],
                Severity::Critical,
            ),
            entry(
                "mid-stream",
                "decode",
                "connections joined in the middle",
                Some(17),
                "connections",
                "The first message of each may be missing; statements prepared before the capture have no text.",
                &[Figure::Sql],
                Severity::Warning,
            ),
            entry(
                "one-sided",
                "join",
                "only one end recorded",
                Some(540),
                "connections",
                "Durations to 10.0.4.17:9000 include the network.",
                &[],
                Severity::Warning,
            ),
            entry(
                "encrypted",
                "decode",
                "encrypted without keys",
                Some(1),
                "connections",
                "Lengths and times only: no requests can be counted.",
                &[Figure::Requests],
                Severity::Info,
            ),
            entry(
                "payload-limit",
                "capture",
                "payload cut by the limit",
                Some(356_112_010),
                "bytes",
                "Bodies over 4 KiB are kept as a length. No figure here needs them.",
                &[],
                Severity::Info,
            ),
        ],
        losses: vec![LostRange {
            node: "shop-01".to_owned(),
            what: "sockets".to_owned(),
            count: 1204,
            start_ns: Some(START + 41 * SECOND),
            end_ns: Some(START + 43 * SECOND),
        }],
        encrypted: vec![
            EncryptedShare {
                server_name: Some("payments.example".into()),
                version: Some("TLS 1.3".into()),
                alpn: Some("h2".into()),
                alert: None,
                connections: 12,
                bytes: 4_321_000,
            },
            EncryptedShare {
                server_name: None,
                version: Some("TLS 1.2".into()),
                alpn: None,
                alert: Some("unknown_ca (client)".into()),
                connections: 3,
                bytes: 9_300,
            },
        ],
        protocols: [
            ("http", 1808, Some(26_000), 81_000_000, false),
            ("encrypted", 1, None, 81_343_413, true),
            ("mysql", 8, Some(38_400), 210_113_000, false),
            ("redis", 8, Some(35_760), 102_440_000, false),
            ("unknown", 8, None, 4_317_040, false),
        ]
        .into_iter()
        .map(|(protocol, connections, requests, bytes, encrypted)| ProtocolShare {
            protocol: protocol.to_owned(),
            connections,
            requests,
            bytes,
            encrypted,
        })
        .collect(),
    }
}

fn logs() -> Vec<LogGroup> {
    let group = |pattern: &str, level: Option<&str>, count: u64, text: &str| LogGroup {
        id: format!("log-{count}"),
        workload: level.map(|_| "shop/api".to_owned()),
        service: Some("s-app".to_owned()),
        pods: strings(&["shop/api-7d9f-abcde", "shop/api-7d9f-fghij"]),
        pods_total: 3,
        container: "api".to_owned(),
        level: level.map(str::to_owned),
        pattern: pattern.to_owned(),
        count,
        first_ns: START + ONSET * SECOND,
        last_ns: START + 59 * SECOND,
        series: (0..=LENGTH).map(|i| if i < ONSET { 0 } else { count * wobble(count, i) / 2000 }).collect(),
        example: LogExample {
            time_ns: START + ONSET * SECOND,
            pod: "shop/api-7d9f-abcde".to_owned(),
            stream: level.map(|_| "stderr".to_owned()),
            text: text.to_owned(),
            trace_id: level.map(|_| "4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            request_id: None,
            evidence: format!("a41c.{count}:7"),
        },
    };
    vec![
        group(
            "order {id} failed error=dial tcp {ip}: refused",
            Some("error"),
            1_240,
            "{\"lvl\":\"error\",\"msg\":\"order ORD-00017 failed\",\"err\":\"dial tcp 10.0.0.7:5432: refused\"}",
        ),
        group("Aborted connection {n} to db: '?'", Some("warning"), 19, "Aborted connection 20 to db: 'x'"),
        group("sent {n} ok {n} bad {n}", None, 3, "sent 100 ok 97 bad 4"),
    ]
}

/// The sample.
pub fn sample() -> Document {
    let mut doc = Document {
        schema_version: SCHEMA_VERSION.to_owned(),
        tool: Tool { name: "kfr".to_owned(), version: "0.1.0".to_owned() },
        capture: Capture {
            cluster: None,
            nodes: strings(&["shop-01"]),
            start_ns: Some(START),
            end_ns: Some(START + LENGTH * SECOND),
            duration_ns: Some(LENGTH * SECOND),
            step_ns: SECOND,
            redaction: "none".to_owned(),
            masked: true,
            clock_error_ns: None,
            bundles: vec![Bundle {
                file: "incident.kfr".to_owned(),
                id: "a41c7d80-2f52-4a9e-9a54-0c5a3f6b1e77".to_owned(),
                origin: "a41c".to_owned(),
                node: "shop-01".to_owned(),
                kernel: Some("6.12.48+deb13-amd64".to_owned()),
                hook: Some("sock".to_owned()),
                options: vec![
                    Setting { name: "duration".to_owned(), value: "60s".to_owned() },
                    Setting { name: "payload-limit".to_owned(), value: "4KiB".to_owned() },
                ],
                bytes: 38_113_902,
                sha256: Some("5d41402abc4b2a76b9719d911017c592ae2f1b0c7d3e4f5061728394a5b6c7d8".to_owned()),
                start_ns: Some(START),
                end_ns: Some(START + LENGTH * SECOND),
                whole: true,
            }],
        },
        ledger: ledger(),
        overall: golden(1, 1461, 900_000, 61 * MS, 6, 1),
        findings: findings(),
        checks: vec![
            Check {
                id: "sql.slow_statement".to_owned(),
                area: "sql".to_owned(),
                title: "a statement that takes long and often".to_owned(),
                outcome: Outcome::Raised,
                threshold: Some("p99 over 250 ms".to_owned()),
                reason: None,
            },
            Check {
                id: "service.error_ratio".to_owned(),
                area: "service".to_owned(),
                title: "a service that answers with errors".to_owned(),
                outcome: Outcome::Raised,
                threshold: Some("over 1%".to_owned()),
                reason: None,
            },
            Check {
                id: "sql.n_plus_one".to_owned(),
                area: "sql".to_owned(),
                title: "many calls of one statement within a request".to_owned(),
                outcome: Outcome::Raised,
                threshold: Some("over 10 calls".to_owned()),
                reason: None,
            },
            Check {
                id: "host.cpu".to_owned(),
                area: "host".to_owned(),
                title: "a host without CPU to spare".to_owned(),
                outcome: Outcome::Passed,
                threshold: Some("pressure over 40%".to_owned()),
                reason: Some("at most 12%".to_owned()),
            },
            Check {
                id: "dns.failures".to_owned(),
                area: "network".to_owned(),
                title: "names that can't be resolved".to_owned(),
                outcome: Outcome::NotRun,
                threshold: None,
                reason: Some("no DNS in the capture".to_owned()),
            },
        ],
        services: services(),
        edges: edges(),
        nodes: vec![node("shop-01", 8)],
        sql: sql(),
        network: network(),
        logs: logs(),
        log_containers: vec![LogContainer {
            pod: "shop/api-7d9f-abcde".to_owned(),
            container: "api".to_owned(),
            workload: Some("shop/api".to_owned()),
            lines: 90_113,
            bytes: 14_000_210,
            lines_kept: 1_240,
            lines_dropped: 12,
            bytes_unread: 0,
            refused: None,
        }],
        ..Document::default()
    };
    crate::sample_cluster::add(&mut doc);
    doc
}

/// A large cluster; with a thousand services every list is far over its budget.
pub fn large(number: usize) -> Document {
    let mut doc = sample();
    let (services, edges) = (doc.services.clone(), doc.edges.clone());
    for i in 0..number {
        let mut service = services[i % services.len()].clone();
        service.id = format!("{}#{i}", service.id);
        service.name = format!("{}-{i}", service.name);
        service.weakened_by = vec!["mid-stream".to_owned()];
        service.endpoints =
            (0..20).map(|n| Endpoint { op: format!("GET{n}"), ..services[1].endpoints[0].clone() }).collect();
        doc.services.push(service);
        let mut edge = edges[i % edges.len()].clone();
        edge.id = format!("{}#{i}", edge.id);
        edge.client = format!("{}#{i}", services[i % services.len()].id);
        edge.server = doc.services[i / 2].id.clone();
        doc.edges.push(edge.clone());
        edge.server = doc.services[i].id.clone();
        doc.edges.push(edge);
        let copy = |id: &str| format!("{id}#{i}");
        let mut statement = doc.sql[i % 4].clone();
        statement.fingerprint = copy(&statement.fingerprint);
        doc.sql.push(statement);
        let mut connection = doc.network.connections[i % 3].clone();
        connection.id = copy(&connection.id);
        doc.network.connections.push(connection);
        let mut finding = doc.findings[i % 3].clone();
        finding.id = copy(&finding.id);
        doc.findings.push(finding);
        let mut entry = doc.ledger.entries[i % 5].clone();
        entry.id = copy(&entry.id);
        doc.ledger.entries.push(entry);
        doc.ledger.losses.push(doc.ledger.losses[0].clone());
        let mut log = doc.logs[i % 3].clone();
        log.id = copy(&log.id);
        doc.logs.push(log);
        let mut check = doc.checks[i % 5].clone();
        check.id = copy(&check.id);
        doc.checks.push(check);
        let mut workload = doc.workloads[i % 2].clone();
        workload.id = copy(&workload.id);
        doc.workloads.push(workload);
        for place in 0..3 {
            let mut pod = doc.pods[place].clone();
            (pod.id, pod.workload) = (copy(&pod.id), Some(format!("w-app#{i}")));
            doc.pods.push(pod);
        }
        doc.changes.push(doc.changes[i % 4].clone());
        if i < 30 {
            let mut node = doc.nodes[0].clone();
            node.name = copy(&node.name);
            for sample in &mut node.samples {
                sample.cores = sample.cores.iter().cycle().take(192).copied().collect();
            }
            doc.nodes.push(node);
        }
    }
    doc
}
