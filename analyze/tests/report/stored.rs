//! The stored recording's report: figures that appear twice agree, and every fault of the shop is told.

use kfr_analyze::report::document::Severity;
use kfr_analyze::{Analysis, Input, Options, Want};

pub fn document() -> crate::Document {
    let bundle = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/quickstart/quickstart.kfr");
    let inputs = Input::open_all(&[bundle]).unwrap();
    let analysis = Analysis::new(&inputs, &Options::default(), Want::Metrics).unwrap();
    kfr_analyze::report::build(&inputs, analysis, &Options::default())
}

#[test]
fn bytes_and_connections_are_counted_once() {
    let document = document();
    let totals = &document.ledger.totals;
    let shares: u64 = document.ledger.protocols.iter().map(|share| share.bytes).sum();
    assert_eq!(shares, totals.bytes, "shares by protocol make up the whole");
    assert_eq!(document.network.totals.bytes_sent + document.network.totals.bytes_received, totals.bytes);
    assert!(totals.payload_kept_bytes + totals.payload_cut_bytes <= totals.bytes, "{totals:?}");
    let connections = &document.network.connections;
    assert_eq!(connections.len() as u64, document.network.connections_total);
    let closed = connections.iter().filter(|one| one.closed_ns.is_some()).count() as u64;
    assert_eq!(document.network.totals.closed, Some(closed), "also those that were open before the capture");
}

#[test]
fn the_bundle_has_its_hash() {
    let document = document();
    let hash = document.capture.bundles[0].sha256.as_deref().unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
}

#[test]
fn each_fault_of_the_shop_is_one_line_of_the_verdict() {
    let document = document();
    let first: Vec<&str> = document.findings.iter().take(5).map(|finding| finding.title.as_str()).collect();
    for words in ["product_scores", "customer_email", "select name from customers where id = ?"] {
        assert_eq!(first.iter().filter(|title| title.contains(words)).count(), 1, "{words}: {first:#?}");
    }
    let worst = &document.findings[0];
    assert_eq!(worst.severity, Severity::Critical);
    let victims: Vec<&str> = worst.victims.iter().map(|victim| victim.name.as_str()).collect();
    assert_eq!(victims, ["GET /recommendations on app.py", "GET /recommendations on nginx"]);
}

#[test]
fn endpoints_come_worst_first() {
    let document = document();
    let app = document.services.iter().find(|service| service.name == "app.py").unwrap();
    assert_eq!(app.endpoints[0].target.as_deref(), Some("/recommendations"));
    for pair in app.endpoints.windows(2) {
        assert!(pair[0].golden.server_errors() >= pair[1].golden.server_errors());
    }
}
