//! Container logs through the whole of it: a node's folder, a recording, a report.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::live::{Bundle, Recording, turn};

/// What a container could write to harm whoever looks at it.
const HOSTILE: &str = "ERROR </script><img src=x onerror=alert(1)> \u{202e}gpj \0 \u{1b}]0;owned\u{7} {{7*7}}";

struct Pod(File);

impl Pod {
    fn new(root: &Path, folder: &str) -> Self {
        let folder = root.join("var/log/pods").join(folder);
        fs::create_dir_all(&folder).unwrap();
        Self(File::create(folder.join("0.log")).unwrap())
    }

    fn write(&mut self, stream: &str, text: &str) {
        writeln!(self.0, "{} {stream} F {text}", jiff::Timestamp::now()).unwrap();
    }
}

fn report(bundle: &Bundle) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = bundle.kfr(&["analyze", "-q", "-o", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    (serde_json::from_str(&read("report.json")).unwrap(), read("report.html"))
}

fn ledger(report: &Value, id: &str) -> Option<u64> {
    let entries = report["ledger"]["entries"].as_array().unwrap().iter();
    entries.filter(|entry| entry["id"] == id).find_map(|entry| entry["count"].as_u64())
}

#[test]
fn what_containers_say_while_a_node_is_recorded_is_in_the_report() {
    let Some(_turn) = turn() else { return };
    let root = tempfile::tempdir().unwrap();
    let mut api = Pod::new(root.path(), "shop_api-1_6f1b/api");
    let mut other = Pod::new(root.path(), "shop_db-0_77aa/db");
    api.write("stderr", "ERROR from before");
    // Nothing else is recorded.
    let arguments = ["--port", "1", "--logs", "errors", "--host-root", root.path().to_str().unwrap()];
    let recording = Recording::start("auto", &arguments);
    for number in 0..10 {
        api.write("stderr", &format!("ERROR order {number} failed password=hunter2"));
        api.write("stderr", "  at com.shop.Orders(Orders.java:17)");
        api.write("stdout", "INFO all is well");
    }
    other.write("stdout", HOSTILE);
    let bundle = recording.stop();

    let (report, page) = report(&bundle);
    let logs = report["logs"].as_array().unwrap();
    assert_eq!(logs.len(), 2, "{logs:#?}");
    let group = logs.iter().find(|group| group["container"] == "api").unwrap();
    assert_eq!(group["pattern"], "ERROR order {n} failed password=?");
    assert_eq!(
        (&group["count"], &group["level"], &group["pods"][0]),
        (&10.into(), &"error".into(), &"shop/api-1".into())
    );
    assert_eq!(group["example"]["text"], "ERROR order 0 failed password=?\n  at com.shop.Orders(Orders.java:17)");
    let steps = group["series"].as_array().unwrap().iter().filter_map(Value::as_u64);
    assert_eq!(steps.sum::<u64>(), 10);
    let counts = report["log_containers"].as_array().unwrap().iter().find(|one| one["container"] == "api").unwrap();
    assert_eq!(
        (&counts["lines"], &counts["lines_kept"], &counts["lines_dropped"]),
        (&30.into(), &20.into(), &0.into())
    );
    assert_eq!(ledger(&report, "l-logs-quiet"), Some(10));

    let lines = bundle.dump("--logs");
    assert_eq!(lines.len(), 21);
    assert_eq!(lines.iter().filter(|line| line["flags"][0] == "continues").count(), 10);
    assert!(lines.is_sorted_by_key(|line| line["time_ns"].as_u64()));
    assert_eq!(lines[20]["text"], HOSTILE);
    let at = lines[20]["evidence"][0].as_str().unwrap();
    let shown = bundle.kfr(&["dump", "--at", at]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("onerror"), "{shown:?}");
    // Masked before it reached the disk, and harmless on the page.
    assert!(!lines.iter().any(|line| line.to_string().contains("hunter2")));
    assert!(page.contains("order {n} failed") && !page.contains("hunter2"));
    assert_eq!(page.matches("</script>").count(), 1, "the page's own");
    assert!(!page.contains("<img") && !page.contains('\u{202e}') && !page.contains('\0') && !page.contains('\u{1b}'));
}

#[test]
fn without_logs_the_ledger_says_why() {
    let Some(_turn) = turn() else { return };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().to_str().unwrap();
    for (arguments, id) in [
        (&["--port", "1", "--host-root", folder][..], "l-logs-off"),
        (&["--port", "1", "--logs", "all", "--host-root", folder], "l-logs-absent"),
    ] {
        let (report, page) = report(&Recording::start("auto", arguments).stop());
        assert_eq!(ledger(&report, id), Some(1), "{}", report["ledger"]);
        assert!(report["logs"].as_array().unwrap().is_empty() && !page.contains("id=\"logs\""));
    }
}
