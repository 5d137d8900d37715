//! A packet capture of a real cluster with its API lists, against the node's own conntrack table and the pods' own logs. Needs
//! `KFR_SHARED` to name the folder that holds `k8s/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kfr_analyze::dump::connection_lines;
use kfr_analyze::{Analysis, Input, Options, Want};
use kfr_bundle::Writer;
use kfr_import::kube::KubeFiles;
use serde_json::Value;

fn shared() -> Option<PathBuf> {
    match std::env::var_os("KFR_SHARED") {
        Some(folder) => Some(Path::new(&folder).join("k8s")),
        None => {
            println!("skipped: KFR_SHARED doesn't name the folder with the recorded cluster");
            None
        }
    }
}

struct Found {
    requests: Vec<Value>,
    connections: Vec<Value>,
    /// First and last packet, ns since 1970.
    window: (u64, u64),
}

fn replay(packets: &Path) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("shop.kfr");
    let kube = KubeFiles::read(packets).unwrap();
    let capture = File::open(packets.join("shop.pcap")).unwrap();
    let writer = |header: &_| Writer::create(&bundle, header, true);
    kfr_import::import_with_kube(capture, "shop.pcap", Some(kube), writer).unwrap();
    let inputs = Input::open_all(&[bundle]).unwrap();
    let analysis = Analysis::new(&inputs, &Options::default(), Want::RequestLines).unwrap();
    let (mut lines, mut connections) = (Vec::new(), Vec::new());
    connection_lines(&analysis, &mut connections).unwrap();
    analysis.lines.write(&mut lines).unwrap();
    let values = |bytes: &[u8]| -> Vec<Value> {
        std::str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    Found { requests: values(&lines), connections: values(&connections), window: analysis.world.window.unwrap() }
}

/// One direction of an entry of `conntrack -L`: source and destination, address and port.
type Tuple = (String, String, String, String);

/// What the kernel translated: by protocol and the tuple as the client sent it, the address that answered.
fn conntrack(table: &str) -> BTreeMap<(String, Tuple), String> {
    let mut answered = BTreeMap::new();
    for line in table.lines() {
        let values = |key: &str| -> Vec<String> {
            line.split_whitespace().filter_map(|word| word.strip_prefix(key)).map(str::to_string).collect()
        };
        let (sources, targets, from, to) = (values("src="), values("dst="), values("sport="), values("dport="));
        if let ([source, answering], [target, _], [from, _], [to, _]) = (&*sources, &*targets, &*from, &*to) {
            let protocol = line.split_whitespace().next().unwrap().to_string();
            let asked = (source.clone(), from.clone(), target.clone(), to.clone());
            answered.insert((protocol, asked), answering.clone());
        }
    }
    answered
}

#[test]
fn every_called_service_is_the_pod_that_answered() {
    let Some(k8s) = shared() else { return };
    let packets = k8s.join("packets");
    let found = replay(&packets);
    let pods: Value = serde_json::from_slice(&std::fs::read(packets.join("api-after-pods.json")).unwrap()).unwrap();
    let pod_of: BTreeMap<String, String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pod| pod["spec"]["hostNetwork"] != true)
        .filter_map(|pod| {
            let name = format!("{}/{}", pod["metadata"]["namespace"].as_str()?, pod["metadata"]["name"].as_str()?);
            Some((pod["status"]["podIP"].as_str()?.to_string(), name))
        })
        .collect();
    let table = std::fs::read_to_string(packets.join("host-before/conntrack.txt")).unwrap();
    let answered = conntrack(&table);
    let (mut called, mut confirmed, mut unresolved) = (0, 0, Vec::new());
    for line in &found.connections {
        let server = &line["server"];
        let is_virtual = |address: &Value| address.as_str().is_some_and(|address| address.starts_with("10.96."));
        // Nobody talks to a Service's address itself.
        if is_virtual(&server["address"]) {
            unresolved.push(line.to_string());
        }
        // The API server has the node's address.
        if line["service"].is_null() || line["service"] == "default/kubernetes" {
            continue;
        }
        called += 1;
        let address = server["address"].as_str().unwrap();
        assert_eq!(server["pod"].as_str(), pod_of.get(address).map(String::as_str), "{line}");
        let client = (line["client"]["address"].as_str().unwrap(), line["client"]["port"].to_string());
        let mut entries = answered.iter().filter(|((protocol, (source, from, target, _)), _)| {
            *protocol == line["transport"].as_str().unwrap()
                && (source.as_str(), from) == (client.0, &client.1)
                && target.starts_with("10.96.")
        });
        if let Some((_, answering)) = entries.next() {
            assert_eq!(address, answering, "{line}");
            confirmed += 1;
        }
    }
    assert!(unresolved.is_empty(), "{} not resolved:\n{}", unresolved.len(), unresolved[0]);
    println!("{called} connections to Services, {confirmed} of them in the kernel's table");
    assert!(called > 200 && confirmed >= 10, "{called} called, {confirmed} confirmed");
}

/// The packets that have the address of a Service: what a capture on the clients' side alone would have.
fn asked_only(capture: &[u8]) -> Vec<u8> {
    let (head, mut rest) = capture.split_at(24);
    let mut kept = head.to_vec();
    while rest.len() >= 16 {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (packet, behind) = rest.split_at(16 + length);
        // Behind the record's head and that of Linux cooked v2: addresses of IPv4.
        let is_virtual = |at: usize| packet.get(16 + 20 + at..).is_some_and(|ip| ip.starts_with(&[10, 96]));
        if is_virtual(12) || is_virtual(16) {
            kept.extend_from_slice(packet);
        }
        rest = behind;
    }
    kept
}

#[test]
fn where_one_side_was_captured_the_nodes_table_tells_who_answered() {
    let Some(k8s) = shared() else { return };
    let (packets, folder) = (k8s.join("packets"), tempfile::tempdir().unwrap());
    for entry in std::fs::read_dir(&packets).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.ends_with(".json") || name.ends_with(".ndjson")) {
            std::fs::copy(entry.path(), folder.path().join(name)).unwrap();
        }
    }
    std::fs::write(folder.path().join("shop.pcap"), asked_only(&std::fs::read(packets.join("shop.pcap")).unwrap()))
        .unwrap();
    let known_by = |found: &Found, what: &str| {
        found.connections.iter().filter(|line| line["server"]["known_by"] == what).cloned().collect::<Vec<_>>()
    };
    let without = replay(folder.path());
    assert!(known_by(&without, "conntrack").is_empty() && !known_by(&without, "endpoint_slice").is_empty());
    let table = std::fs::read_to_string(packets.join("host-before/conntrack.txt")).unwrap();
    std::fs::write(folder.path().join("conntrack-before.txt"), &table).unwrap();
    let (answered, found) = (conntrack(&table), replay(folder.path()));
    let told = known_by(&found, "conntrack");
    for line in &told {
        let client = (line["client"]["address"].as_str().unwrap(), line["client"]["port"].to_string());
        let same = |((_, (source, from, target, _)), _): &(&(String, Tuple), &String)| {
            (source.as_str(), from) == (client.0, &client.1) && target.starts_with("10.96.")
        };
        let (_, answering) = answered.iter().find(same).unwrap_or_else(|| panic!("not in the table: {line}"));
        assert_eq!(line["server"]["address"], **answering, "{line}");
        assert!(line["server"]["pod"].is_string() && line["service"].is_string(), "{line}");
    }
    println!("{} of {} connections by the table", told.len(), found.connections.len());
    assert!(told.len() >= 3, "{}", told.len());
}

#[test]
fn every_pod_has_its_name_and_workload() {
    let Some(k8s) = shared() else { return };
    let found = replay(&k8s.join("packets"));
    let mut named = BTreeMap::<String, BTreeSet<String>>::new();
    for line in &found.connections {
        for end in [&line["client"], &line["server"]] {
            if end["address"]
                .as_str()
                .is_some_and(|address| address.starts_with("10.244.0.") && address != "10.244.0.1")
            {
                let pod = end["pod"].as_str().unwrap_or_else(|| panic!("a pod without a name: {line}"));
                let workload = end["workload"].as_str().unwrap().to_string();
                named.entry(workload).or_default().insert(pod.to_string());
                assert_eq!(end["node"], "node-1");
            }
        }
    }
    let count = |workload: &str| named.get(workload).map_or(0, BTreeSet::len);
    let expected = [
        ("kube-system/coredns", 1),
        ("shop/api", 3),
        ("shop/checkout", 1),
        ("shop/frontend", 2),
        ("shop/loadgen", 1),
        ("shop/mariadb", 1),
        ("shop/payments", 1),
        ("shop/postgres", 1),
        ("shop/pricing", 2),
        ("shop/redis", 1),
        // A CronJob's.
        ("shop/report", 1),
    ];
    for (workload, pods) in expected {
        assert_eq!(count(workload), pods, "{workload}: {:?}", named.get(workload));
    }
    assert_eq!(named.len(), expected.len(), "{:?}", named.keys());
}

/// The pods' own logs, as `kubectl logs --timestamps` printed them, in the seconds that the capture covers.
#[test]
fn every_line_of_a_pod_is_in_its_workloads_groups() {
    let Some(k8s) = shared() else { return };
    let packets = k8s.join("packets");
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("shop.kfr");
    let kube = KubeFiles::read(&packets).unwrap();
    let capture = File::open(packets.join("shop.pcap")).unwrap();
    let writer = |header: &_| Writer::create(&bundle, header, true);
    let summary = kfr_import::import_with_kube(capture, "shop.pcap", Some(kube), writer).unwrap();
    let (first_ns, last_ns) = summary.times_ns.unwrap();
    let inputs = Input::open_all(&[bundle]).unwrap();
    let analysis = Analysis::new(&inputs, &Options::default(), Want::Metrics).unwrap();
    let document = kfr_analyze::report::build(&inputs, analysis, &Options::default());
    let mut found = BTreeMap::<(String, String), u64>::new();
    for group in &document.logs {
        *found.entry((group.workload.clone().unwrap(), group.container.clone())).or_default() += group.count;
        assert_eq!(group.series.iter().sum::<u64>(), group.count, "{}", group.pattern);
        assert!(group.service.is_some(), "{}", group.pattern);
    }
    let mut written = BTreeMap::<(String, String), u64>::new();
    for entry in std::fs::read_dir(packets.join("logs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let (pod, container) = name.split_once('.').unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| {
            let time: Timestamp = line.split_whitespace().next().unwrap().parse().unwrap();
            (first_ns..=last_ns).contains(&(time.as_nanosecond() as u64))
        });
        let workload = format!("shop/{}", pod.split('-').next().unwrap());
        let lines = lines.count() as u64;
        if lines > 0 {
            *written.entry((workload, container.to_string())).or_default() += lines;
        }
    }
    assert_eq!(found, written);
    let bad: u64 =
        document.logs.iter().filter(|group| group.level.as_deref() == Some("error")).map(|group| group.count).sum();
    assert_eq!(bad, 2, "the load generator's two failures");
}

/// The frontends' own access logs, in the seconds that the capture covers.
#[test]
fn requests_are_counted_once() {
    let Some(k8s) = shared() else { return };
    let packets = k8s.join("packets");
    let found = replay(&packets);
    let asked = found
        .requests
        .iter()
        .filter(|line| line["server"]["workload"] == "shop/frontend" && line["client"]["workload"] == "shop/loadgen");
    let mut by_pod = BTreeMap::<String, usize>::new();
    for line in asked {
        *by_pod.entry(line["server"]["pod"].as_str().unwrap().replace("shop/", "")).or_default() += 1;
    }
    let (first_ns, last_ns) = found.window;
    assert_eq!(by_pod.len(), 2);
    for (pod, requests) in by_pod {
        let log = std::fs::read_to_string(packets.join(format!("logs/{pod}.nginx.log"))).unwrap();
        let logged = log.lines().filter(|line| {
            let time: Timestamp = line.split_whitespace().next().unwrap().parse().unwrap();
            let time_ns = time.as_nanosecond() as u64;
            line.contains("loadgen/") && (first_ns..=last_ns).contains(&time_ns)
        });
        assert_eq!(requests, logged.count(), "{pod}");
    }
}

/// Six minutes in which things go wrong, from the API's own watches (`scenario/timeline.txt` says what and when): no packets.
#[test]
fn the_report_shows_the_hierarchy_the_bad_rollouts_and_their_victims() {
    let Some(k8s) = shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("scenario.kfr");
    let kube = KubeFiles::read(&k8s.join("scenario")).unwrap();
    kfr_import::import_kube(kube, "scenario", |header: &_| Writer::create(&bundle, header, true)).unwrap();
    let inputs = Input::open_all(&[bundle]).unwrap();
    let options = Options::default();
    let analysis = Analysis::new(&inputs, &options, Want::Metrics).unwrap();
    let report = kfr_analyze::report::build(&inputs, analysis, &options);

    // Every pod that was ever there, with its workload.
    let names = |path: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(k8s.join("scenario").join(path)).unwrap();
        let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
        let objects = objects.flat_map(|value| match value.get("items") {
            Some(items) => items.as_array().unwrap().clone(),
            None => vec![value["object"].clone()],
        });
        let named = objects.filter_map(|pod| {
            Some(format!("{}/{}", pod["metadata"]["namespace"].as_str()?, pod["metadata"]["name"].as_str()?))
        });
        named.collect()
    };
    let mut expected = names("pods.json");
    expected.extend(names("watch-all-pods.ndjson"));
    let found: BTreeSet<String> = report.pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    assert_eq!(found, expected);
    let workloads: BTreeMap<&str, &str> =
        report.workloads.iter().map(|workload| (workload.id.as_str(), workload.name.as_str())).collect();
    for pod in &report.pods {
        let workload = workloads[pod.workload.as_deref().unwrap()];
        let (namespace, name) = workload.split_once('/').unwrap();
        assert!(pod.namespace == namespace && pod.name.starts_with(name), "{} of {workload}", pod.name);
        assert!(pod.name == "gpu-train" || pod.node.as_deref() == Some("node-1"), "{}", pod.name);
    }

    let api = report.workloads.iter().find(|workload| workload.name == "shop/api").unwrap();
    let rollouts =
        api.rollouts.iter().map(|rollout| (rollout.number.unwrap(), rollout.outcome.as_str(), rollout.is_rollback));
    assert_eq!(
        rollouts.collect::<Vec<_>>(),
        [
            (1, "complete", false),
            (2, "complete", false),
            (3, "replaced", false),
            (4, "replaced", true),
            (5, "complete", false),
            (6, "complete", true),
        ]
    );
    assert!(api.rollouts[2].stuck_ns.is_some(), "1.5.0 passed its progress deadline");
    let time = |text: &str| text.parse::<Timestamp>().unwrap().as_nanosecond() as u64;
    let timeline = std::fs::read_to_string(k8s.join("scenario/timeline.txt")).unwrap();
    for (line, rollout) in [("api -> 1.4.1", 1), ("api -> 1.5.0", 2), ("api -> 1.6.0", 4), ("undo 1.6.0", 5)] {
        let entry = timeline.lines().find(|entry| entry.contains(line)).unwrap();
        let (began_ns, told_ns) = (api.rollouts[rollout].began_ns, time(&entry[..20]));
        assert!(began_ns.abs_diff(told_ns) <= 2_000_000_000, "{line}: {began_ns} and {told_ns}");
    }
    assert_eq!(api.kubernetes_services[0].name, "shop/api");
    assert!(api.least_ready < Some(3), "{:?}", api.least_ready);

    let told =
        |check: &str, name: &str| report.findings.iter().find(|one| one.check == check && one.subject.name == name);
    let rollout = told("kubernetes.rollout", "shop/api").unwrap();
    assert!(rollout.title.contains("1.5.0") && rollout.title.contains("stuck"), "{}", rollout.title);
    assert!(rollout.victims.iter().any(|victim| victim.name == "shop/api"), "{:?}", rollout.victims);
    assert!(rollout.reasons.iter().any(|reason| reason.contains("never became ready")), "{:?}", rollout.reasons);
    for (check, name) in [
        ("kubernetes.oom_kills", "shop/image-resizer"),
        ("kubernetes.restarts", "shop/recommender"),
        ("kubernetes.not_starting", "shop/thumbnailer"),
        ("kubernetes.not_starting", "shop/gpu-train"),
        ("kubernetes.probes", "shop/search"),
    ] {
        assert!(told(check, name).is_some(), "{check} of {name}");
    }
    let healthy =
        ["shop/checkout", "shop/payments", "shop/pricing", "shop/mariadb", "shop/postgres", "kube-system/coredns"];
    assert!(
        report.findings.iter().all(|finding| !healthy.contains(&finding.subject.name.as_str())),
        "healthy ones are left alone"
    );
    let changed = |kind: &str, subject: &str| {
        report.changes.iter().any(|one| one.kind == kind && one.subject.starts_with(subject))
    };
    for (kind, subject) in [
        ("scaled", "shop/frontend"),
        ("pod_deleted", "shop/redis-"),
        ("unschedulable", "shop/gpu-train"),
        ("oom_killed", "shop/image-resizer-"),
        ("created", "shop/recommender"),
    ] {
        assert!(changed(kind, subject), "{kind} of {subject}");
    }
}

/// The same cluster with traffic: requests by revision, pod and label.
#[test]
fn requests_have_their_revision_and_label() {
    let Some(k8s) = shared() else { return };
    let packets = k8s.join("packets");
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("shop.kfr");
    let kube = KubeFiles::read(&packets).unwrap();
    let writer = |header: &_| Writer::create(&bundle, header, true);
    kfr_import::import_with_kube(File::open(packets.join("shop.pcap")).unwrap(), "shop.pcap", Some(kube), writer)
        .unwrap();
    let inputs = Input::open_all(&[bundle]).unwrap();
    let options = Options { group_by: vec!["app.kubernetes.io/name".to_string()], ..Options::default() };
    let analysis = Analysis::new(&inputs, &options, Want::Metrics).unwrap();
    let report = kfr_analyze::report::build(&inputs, analysis, &options);
    let of = |name: &str| report.workloads.iter().find(|workload| workload.name == name).unwrap();
    for name in ["shop/api", "shop/frontend", "shop/pricing", "shop/redis", "shop/mariadb"] {
        let workload = of(name);
        let inbound: u64 = report
            .services
            .iter()
            .filter(|service| workload.services.contains(&service.id))
            .map(|service| service.inbound.requests)
            .sum();
        assert!(
            inbound > 0 && workload.inbound.requests == inbound,
            "{name}: {} of {inbound}",
            workload.inbound.requests
        );
        let by_revision: u64 = workload.revisions.iter().map(|revision| revision.inbound.requests).sum();
        assert_eq!(by_revision, inbound, "{name} by revision");
        let called: u64 = workload.revisions.iter().flat_map(|one| &one.callers).map(|caller| caller.requests).sum();
        assert_eq!(called, inbound, "{name} by caller");
        let label = name.rsplit('/').next().unwrap();
        let group = report.groups.iter().find(|group| group.value.as_deref() == Some(label)).unwrap();
        assert_eq!(group.inbound.requests, inbound, "{name} by label");
    }
}
