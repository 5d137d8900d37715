//! What every report must withstand: see the security and budget promises in `docs/REPORT_JSON.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod hostile;
mod page;
mod sample;
mod sample_cluster;
mod schema;
mod stored;

use kfr_analyze::report::{
    Document,
    document::{Golden, HostSample, SCHEMA_VERSION},
    render_html, render_json, render_summary, render_svgs, write_all, write_single,
};
use page::Parsed;

fn html(doc: &Document) -> String {
    render_html(doc).unwrap()
}

#[test]
fn a_rerun_gives_the_same_bytes() {
    let (a, b) = (sample::sample(), sample::sample());
    assert_eq!(html(&a), html(&b));
    assert_eq!(render_json(&a).unwrap(), render_json(&b).unwrap());
    assert_eq!(render_summary(&a).unwrap(), render_summary(&b).unwrap());
    assert_eq!(render_svgs(&a).unwrap(), render_svgs(&b).unwrap());
}

#[test]
fn json_is_the_document() {
    let doc = sample::sample();
    let json = render_json(&doc).unwrap();
    let back: Document = serde_json::from_str(&json).unwrap();
    assert_eq!(render_json(&back).unwrap(), json);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in [
        "schema_version",
        "tool",
        "capture",
        "ledger",
        "findings",
        "checks",
        "services",
        "edges",
        "workloads",
        "pods",
        "groups",
        "nodes",
        "sql",
        "traces",
        "network",
        "logs",
        "log_containers",
        "profiles",
        "changes",
    ] {
        assert!(value.get(key).is_some(), "{key}");
    }
    assert_eq!(value["schema_version"], SCHEMA_VERSION);
    assert_eq!(value["services"][5]["inbound"]["rate_per_s"], serde_json::Value::Null, "unknown is null, never 0");
    assert_eq!(value["services"][0]["inbound"]["error_ratio"], 0.1918, "four significant digits");
}

#[test]
fn the_page_is_safe_and_whole() {
    let text = html(&sample::sample());
    let page = Parsed::new(&text);
    page.assert_sound();
    assert!(text.len() < 3 << 20, "{} bytes", text.len());
    for words in [
        "Verdict",
        "shop-app",
        "mariadb.service",
        "events lost in the ring",
        "n_plus_one",
        "1,290 of 1,290 calls used no index",
        "one call for each row of statement 9f3b2c7710aa41de: 1,200 runs, up to 30 calls",
        "idle in a transaction behind it: up to 1.70 s, 9.00 s in total",
        "kfr dump incident.kfr --at",
        "stuck since 03:25:42",
        "app-7b9c44d5f-m8z7n",
    ] {
        assert!(text.contains(words), "{words}");
    }
}

#[test]
fn the_policy_comes_first_and_its_hashes_match() {
    Parsed::new(&html(&sample::sample())).assert_policy();
}

#[test]
fn figures_are_xml_and_need_nothing() {
    let files = render_svgs(&sample::sample()).unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"graph.svg") && names.contains(&"timeline.svg"), "{names:?}");
    for (name, svg) in &files {
        page::assert_svg(name, svg);
    }
}

#[test]
fn an_empty_document_is_a_true_page() {
    let doc = Document::default();
    let text = html(&doc);
    Parsed::new(&text).assert_sound();
    assert!(text.contains("No service was seen"));
    assert!(text.contains("No check ran on this capture"));
    assert!(render_summary(&doc).unwrap().contains("None seen."));
    assert!(render_svgs(&doc).unwrap().is_empty());
}

#[test]
fn numbers_that_are_none_are_no_data() {
    let mut doc = sample::sample();
    for (i, service) in doc.services.iter_mut().enumerate() {
        service.inbound.rate_per_s = Some([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0][i % 4]);
        service.inbound.p99_ns = Some(u64::MAX);
        service.inbound.requests = u64::MAX / 2;
    }
    doc.nodes[0].samples.push(HostSample {
        start_ns: u64::MAX,
        duration_ns: u64::MAX,
        load_1m: Some(f64::NAN),
        ..HostSample::default()
    });
    doc.capture.step_ns = 0;
    let text = html(&doc);
    Parsed::new(&text).assert_sound();
    assert!(!text.contains("NaN") && !text.contains(">inf"));
    let json = render_json(&doc).unwrap();
    serde_json::from_str::<Document>(&json).unwrap();
    for window in [(Some(5), Some(5)), (Some(9), Some(1)), (None, None), (Some(0), Some(u64::MAX))] {
        (doc.capture.start_ns, doc.capture.end_ns) = window;
        Parsed::new(&html(&doc)).assert_sound();
    }
}

#[test]
fn nothing_seen_never_reads_as_zero() {
    let mut doc = sample::sample();
    doc.overall = Golden::default();
    doc.services.retain(|s| s.name == "203.0.113.0/24");
    doc.network.totals.retransmits = None;
    let page = Parsed::new(&html(&doc));
    let cells = page.cells("services-table");
    assert_eq!(cells[0][2..], vec!["–"; 12], "{cells:?}");
}

#[test]
fn a_thousand_services_stay_within_the_budgets() {
    let doc = sample::large(1000);
    let begun = std::time::Instant::now();
    let text = html(&doc);
    let took = begun.elapsed();
    let page = Parsed::new(&text);
    page.assert_sound();
    let elements = page.elements().len();
    println!("{elements} elements, {} bytes, {took:?}", text.len());
    assert!(elements <= 15_000, "{elements} elements");
    assert!(text.len() < 10 << 20, "{} bytes", text.len());
    assert!(page.most_rows() <= 500);
    assert!(page.most_groups() <= 2_000);
    assert!(took.as_secs() < 10, "{took:?}");
    assert!(text.contains("more rows not shown here"));
    for (name, svg) in render_svgs(&doc).unwrap() {
        page::assert_svg(&name, &svg);
    }
}

#[test]
fn files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/b");
    let written = write_all(&sample::sample(), &out).unwrap();
    assert!(written.contains(&out.join("report.html")) && written.contains(&out.join("svg/graph.svg")));
    write_single(&sample::sample(), &dir.path().join("one.html")).unwrap();
    assert_eq!(std::fs::read(dir.path().join("one.html")).unwrap(), std::fs::read(out.join("report.html")).unwrap());
    assert_eq!(written, write_all(&sample::sample(), &out).unwrap(), "writing again replaces");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&out), 0o700);
        for file in &written {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
    }
    let blocked = write_single(&sample::sample(), &dir.path().join("no/such/folder.html")).unwrap_err();
    assert!(blocked.to_string().contains("folder.html"), "{blocked}");
}
