use super::*;
use crate::report::document::{CodeCount, Edge, Exemplar, Golden, IdleInTransaction, NPlusOne, Service, Statement};

const MS: u64 = 1_000_000;

/// An endpoint whose first failure begins at `at_ms` and takes `took_ms`.
fn endpoint(protocol: &str, target: &str, requests: u64, errors: u64, at_ms: u64, took_ms: u64) -> Endpoint {
    let exemplar = Exemplar {
        start_ns: at_ms * MS,
        duration_ns: Some(took_ms * MS),
        evidence: vec![format!("o.{at_ms}:{took_ms}")],
        ..Exemplar::default()
    };
    Endpoint {
        protocol: protocol.to_string(),
        op: if protocol == "http" { "GET" } else { "query" }.to_string(),
        target: Some(target.to_string()),
        golden: Golden { requests, errors, error_ratio: Some(errors as f64 / requests as f64), ..Golden::default() },
        slowest: Some(exemplar.clone()),
        first_error: (errors > 0).then_some(exemplar),
        ..Endpoint::default()
    }
}

fn service(name: &str, endpoints: Vec<Endpoint>) -> Service {
    let mut inbound = Golden::default();
    for endpoint in &endpoints {
        inbound.requests += endpoint.golden.requests;
        inbound.errors += endpoint.golden.errors;
    }
    Service { id: format!("s-{name}"), name: name.to_string(), endpoints, inbound, ..Service::default() }
}

fn calls(client: &str, server: &str) -> Edge {
    Edge { client: format!("s-{client}"), server: format!("s-{server}"), ..Edge::default() }
}

fn statement(text: &str, calls: u64, errors: u64, each_ns: u64) -> Statement {
    Statement {
        fingerprint: format!("fp-{text}"),
        text: text.to_string(),
        system: "mysql".to_string(),
        server: Some("s-db".to_string()),
        calls,
        errors,
        total_ns: each_ns * calls,
        mean_ns: Some(each_ns),
        p95_ns: Some(each_ns),
        max_ns: Some(each_ns),
        callers: vec!["s-app".to_string()],
        ..Statement::default()
    }
}

/// A proxy, an application, a database: one page fails because its statement does, another one for reasons of its own.
fn shop() -> Document {
    let mut document = Document {
        services: vec![
            service("proxy", vec![endpoint("http", "/broken", 50, 50, 100, 9), endpoint("http", "/ok", 500, 0, 5, 1)]),
            service(
                "app",
                vec![endpoint("http", "/broken", 50, 50, 101, 7), endpoint("http", "/buggy", 40, 30, 900, 2)],
            ),
            service("db", vec![endpoint("mysql", "select broken", 50, 50, 103, 1)]),
        ],
        edges: vec![calls("proxy", "app"), calls("app", "db")],
        sql: vec![statement("select broken", 50, 50, 1000)],
        ..Document::default()
    };
    document.overall.requests = 690;
    document
}

fn titles(document: &Document) -> Vec<String> {
    document.findings.iter().map(|finding| finding.title.clone()).collect()
}

#[test]
fn what_fails_along_a_chain_is_one_finding_at_its_deepest_place() {
    let mut document = shop();
    run(&mut document);
    assert_eq!(
        titles(&document),
        ["select broken: 50 of 50 calls failed", "GET /buggy on app: 30 of 40 requests failed, 75.0%"]
    );
    let cause = &document.findings[0];
    assert_eq!(cause.severity, Severity::Critical);
    let victims: Vec<&str> = cause.victims.iter().map(|victim| victim.name.as_str()).collect();
    assert_eq!(victims, ["GET /broken on app", "GET /broken on proxy"]);
    assert!(cause.reasons[0].contains("50 of 50 requests failed"), "{:?}", cause.reasons);
}

#[test]
fn without_an_edge_or_inside_no_call_nothing_is_joined() {
    let mut document = shop();
    document.edges.clear();
    run(&mut document);
    assert_eq!(document.findings.len(), 4);
    let mut document = shop();
    // The statement's first failure comes long after the page's.
    document.services[2].endpoints[0].first_error.as_mut().unwrap().start_ns = 700 * MS;
    run(&mut document);
    assert_eq!(document.findings.len(), 3);
}

#[test]
fn the_onset_is_the_endpoints_own() {
    let mut document = shop();
    document.services[1].endpoints[1].errors_since_ns = Some(900 * MS);
    run(&mut document);
    let onsets: Vec<Option<u64>> = document.findings.iter().map(|finding| finding.onset_ns).collect();
    assert_eq!(onsets, [None, Some(900 * MS)]);
}

#[test]
fn refused_requests_are_no_failures() {
    let refused = |target: &str, code: &str| {
        let mut endpoint = endpoint("http", target, 22, 22, 5, 1);
        endpoint.golden.client_errors = 22;
        endpoint.error_codes = vec![CodeCount { code: code.to_string(), count: 22 }];
        endpoint
    };
    let mut document = Document {
        services: vec![service("web", vec![refused("/favicon.ico", "404"), refused("/login", "401")])],
        ..Document::default()
    };
    run(&mut document);
    assert_eq!(
        titles(&document),
        ["GET /login on web: 22 of 22 answers are 401", "GET /favicon.ico on web: 22 of 22 answers are 404"]
    );
    let severities: Vec<Severity> = document.findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Warning, Severity::Info]);
}

#[test]
fn few_calls_of_a_statement_raise_nothing_unless_they_take_much_of_the_time() {
    let mut document = shop();
    document.services.clear();
    document.edges.clear();
    document.sql = vec![
        statement("select often", 1000, 0, MS),
        statement("select once", 1, 0, 253 * MS),
        statement("select wrong", 1, 1, MS),
    ];
    run(&mut document);
    assert_eq!(titles(&document), Vec::<String>::new());
    document.sql[1] = statement("select once", 1, 0, 800 * MS);
    run(&mut document);
    assert_eq!(titles(&document), ["select once: 800 ms in 1 call, 44.4% of all statement time"]);
}

#[test]
fn as_bad_and_as_sure_the_one_with_more_impact_comes_first() {
    let mut document = Document {
        services: vec![service(
            "app",
            vec![endpoint("http", "/rare", 20, 20, 1, 1), endpoint("http", "/often", 2000, 900, 900, 1)],
        )],
        ..Document::default()
    };
    document.overall.requests = 2020;
    run(&mut document);
    assert!(document.findings[0].title.starts_with("GET /often"), "{:?}", titles(&document));
}

#[test]
fn a_query_for_each_row_is_surer_where_the_rows_were_seen() {
    let repeated = |n_plus_one: Option<NPlusOne>| Statement {
        flags: vec!["repeated 12 times in a row".to_string()],
        n_plus_one,
        ..statement("select child", 24, 0, 1000)
    };
    let found = NPlusOne { occurrences: 2, calls: 24, longest: 12, parent: Some("fp-select parents".to_string()) };
    for (n_plus_one, confidence) in [(None, Confidence::Medium), (Some(found), Confidence::High)] {
        let sure = n_plus_one.is_some();
        let mut document = Document {
            sql: vec![repeated(n_plus_one), statement("select parents", 2, 0, 1000)],
            ..Document::default()
        };
        run(&mut document);
        let finding = document.findings.iter().find(|finding| finding.check == "sql.n_plus_one").unwrap();
        assert_eq!(finding.confidence, confidence);
        let reason = "2 times one call for each row, about, of select parents";
        assert_eq!(finding.reasons.iter().any(|one| one == reason), sure, "{:?}", finding.reasons);
    }
}

#[test]
fn transactions_that_wait_for_their_client_are_found() {
    let waits = |text: &str, max_ns: u64| Statement {
        idle_in_transaction: Some(IdleInTransaction { count: 3, total_ns: 2 * max_ns, max_ns, exemplar: None }),
        ..statement(text, 24, 0, 1000)
    };
    let mut document = Document {
        sql: vec![waits("update a", 1500 * MS), waits("update b", 900 * MS), waits("update c", 9000 * MS)],
        ..Document::default()
    };
    run(&mut document);
    assert_eq!(
        titles(&document),
        [
            "update c: its transaction then waited up to 9.00 s for the client",
            "update a: its transaction then waited up to 1.50 s for the client"
        ]
    );
    assert_eq!(document.findings[0].reasons[0], "18.0 s in total, 3 waits");
}
