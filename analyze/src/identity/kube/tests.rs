use kfr_bundle::kube::{KubeChange, KubeFact};
use serde_json::{Value, json};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(seconds: u64) -> String {
    jiff::Timestamp::from_second(seconds as i64).unwrap().to_string()
}

fn kube(rows: Vec<(u32, KubeFact)>) -> Kube {
    let blind = blind_times(&rows);
    Kube::new(&Objects::new(rows), blind)
}

fn row(seconds: u64, change: KubeChange, list: u32, kind: &str, object: &Value) -> (u32, KubeFact) {
    (0, KubeFact::new(seconds * SECOND, change, list, kind, object).unwrap())
}

fn pod(name: &str, born: u64, address: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name, "creationTimestamp": at(born)},
        "status": {"podIP": address},
    })
}

fn name_of(kube: &Kube, address: &str, seconds: u64) -> String {
    match kube.who(ip(address), seconds * SECOND) {
        Some(Who::Pod(pod)) => kube.pod(pod).unwrap().name.clone(),
        Some(Who::Service(service)) => format!("service {}", kube.service(service).unwrap().name),
        Some(Who::Node(node)) => format!("node {}", kube.node(node).unwrap()),
        None => "nobody".to_string(),
    }
}

#[test]
fn an_address_is_whose_it_was_at_that_moment() {
    let kube = kube(vec![
        row(10, KubeChange::Listed, 1, "Pod", &pod("first", 5, "10.0.0.1")),
        row(20, KubeChange::Deleted, 0, "Pod", &pod("first", 5, "10.0.0.1")),
        row(31, KubeChange::Added, 0, "Pod", &pod("second", 30, "10.0.0.1")),
    ]);
    let names: Vec<_> = [4, 5, 19, 25, 30, 99].map(|seconds| name_of(&kube, "10.0.0.1", seconds)).into();
    assert_eq!(names, ["nobody", "first", "first", "nobody", "second", "second"]);
    assert_eq!(name_of(&kube, "::ffff:10.0.0.1", 7), "first");
}

#[test]
fn of_two_pods_with_one_address_the_younger_has_it() {
    // Its deletion was never told, or its pod has ended.
    let mut ended = pod("ended", 1, "10.0.0.2");
    ended["status"]["phase"] = json!("Succeeded");
    ended["status"]["containerStatuses"] = json!([{"name": "a", "state": {"terminated": {"finishedAt": at(8)}}}]);
    let kube = kube(vec![
        row(10, KubeChange::Listed, 1, "Pod", &pod("old", 1, "10.0.0.1")),
        row(10, KubeChange::Listed, 1, "Pod", &ended),
        row(20, KubeChange::Added, 0, "Pod", &pod("new", 20, "10.0.0.1")),
    ]);
    assert_eq!((name_of(&kube, "10.0.0.1", 15), name_of(&kube, "10.0.0.1", 25)), ("old".into(), "new".into()));
    assert_eq!((name_of(&kube, "10.0.0.2", 8), name_of(&kube, "10.0.0.2", 9)), ("ended".into(), "nobody".into()));
}

#[test]
fn what_a_complete_list_lacks_is_gone() {
    let complete = |seconds: u64, list| (0, KubeFact::of_kind(seconds * SECOND, KubeChange::Complete, list, "Pod", ""));
    let kube = kube(vec![
        row(10, KubeChange::Listed, 1, "Pod", &pod("stays", 1, "10.0.0.1")),
        row(10, KubeChange::Listed, 1, "Pod", &pod("goes", 1, "10.0.0.2")),
        complete(10, 1),
        row(12, KubeChange::Added, 0, "Pod", &pod("came", 12, "10.0.0.3")),
        row(20, KubeChange::Listed, 2, "Pod", &pod("stays", 1, "10.0.0.1")),
        complete(20, 2),
    ]);
    assert_eq!(name_of(&kube, "10.0.0.1", 30), "stays");
    assert_eq!((name_of(&kube, "10.0.0.2", 19), name_of(&kube, "10.0.0.2", 20)), ("goes".into(), "nobody".into()));
    assert_eq!(name_of(&kube, "10.0.0.3", 30), "nobody");
}

fn owned(mut object: Value, kind: &str, name: &str, uid: &str) -> Value {
    object["metadata"]["ownerReferences"] = json!([
        {"kind": "Other", "name": "not the controller", "uid": "x"},
        {"kind": kind, "name": name, "uid": uid, "controller": true},
    ]);
    object
}

#[test]
fn the_workload_is_the_topmost_owner() {
    let set = |name: &str| json!({"metadata": {"namespace": "shop", "name": name, "uid": name}});
    let hashed = |name: &str| {
        let mut pod = owned(pod(name, 1, "10.0.0.1"), "ReplicaSet", "web-5d9c", "unseen");
        pod["metadata"]["labels"] = json!({"pod-template-hash": "5d9c"});
        pod
    };
    let mut fixed = owned(pod("etcd-node-1", 1, "10.0.0.1"), "Node", "node-1", "n");
    fixed["spec"] = json!({"nodeName": "node-1"});
    let rows = vec![
        row(1, KubeChange::Listed, 1, "Pod", &pod("alone", 1, "10.0.0.1")),
        row(1, KubeChange::Listed, 1, "Pod", &owned(pod("api-1", 1, "10.0.0.1"), "ReplicaSet", "api-x", "api-x")),
        row(1, KubeChange::Listed, 1, "ReplicaSet", &owned(set("api-x"), "Rollout", "api", "rollout")),
        row(1, KubeChange::Listed, 1, "Pod", &hashed("web-1")),
        row(1, KubeChange::Listed, 1, "Pod", &fixed),
        // Two that own each other.
        row(1, KubeChange::Listed, 1, "Pod", &owned(pod("loop-1", 1, "10.0.0.1"), "ReplicaSet", "loop-a", "loop-a")),
        row(1, KubeChange::Listed, 1, "ReplicaSet", &owned(set("loop-a"), "ReplicaSet", "loop-b", "loop-b")),
        row(1, KubeChange::Listed, 1, "ReplicaSet", &owned(set("loop-b"), "ReplicaSet", "loop-a", "loop-a")),
        row(1, KubeChange::Listed, 1, "Pod", &owned(pod("cron-1", 300, "10.0.0.1"), "Job", "report-5", "unseen")),
    ];
    let kube = kube(rows);
    let workload = |pod: &Pod| {
        let workload = &kube.workloads[pod.workload as usize];
        format!("{} is {} {}", pod.name, workload.kind, kube.workload_name(pod.workload))
    };
    let found: Vec<_> = kube.pods.iter().map(workload).collect();
    assert_eq!(
        found[..4],
        [
            "alone is Pod shop/alone",
            "api-1 is Rollout shop/api",
            "web-1 is Deployment shop/web",
            "etcd-node-1 is Pod shop/etcd",
        ]
    );
    assert!(found[4].starts_with("loop-1 is ReplicaSet shop/loop-"), "{found:?}");
    assert_eq!(found[5], "cron-1 is CronJob shop/report");
}

#[test]
fn a_services_address_has_those_behind_it_that_are_ready() {
    let service = json!({
        "metadata": {"namespace": "shop", "name": "api"},
        "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"name": "web", "port": 80, "nodePort": 30080}]},
    });
    let slice = json!({
        "metadata": {"namespace": "shop", "name": "api-x", "labels": {"kubernetes.io/service-name": "api"}},
        "ports": [{"name": "web", "port": 8080}],
        "endpoints": [
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["not an address", 7]},
            "not an endpoint",
        ],
    });
    let node = json!({
        "metadata": {"name": "node-1"},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    });
    let kube = kube(vec![
        row(1, KubeChange::Listed, 1, "Pod", &pod("api-1", 1, "10.0.0.1")),
        row(1, KubeChange::Listed, 1, "Pod", &pod("api-2", 1, "10.0.0.2")),
        row(1, KubeChange::Listed, 1, "Service", &service),
        row(1, KubeChange::Listed, 1, "EndpointSlice", &slice),
        row(1, KubeChange::Listed, 1, "Node", &node),
    ]);
    assert_eq!(name_of(&kube, "10.96.0.9", 5), "service api");
    assert_eq!(kube.backends(0, 80, 5 * SECOND), [(ip("10.0.0.1"), 8080)]);
    assert!(kube.answers(ip("10.96.0.9"), ip("10.0.0.1"), 5 * SECOND));
    assert!(!kube.answers(ip("10.96.0.9"), ip("10.0.0.2"), 5 * SECOND));
    assert_eq!(kube.service_at(&Endpoint::Ip(ip("192.0.2.1"), 30080), 5 * SECOND), Some(0));
    // The bridge of the node.
    assert_eq!(
        (name_of(&kube, "10.0.0.254", 5), name_of(&kube, "192.0.2.1", 5)),
        ("node node-1".into(), "node node-1".into())
    );
    assert_eq!(name_of(&kube, "10.0.1.1", 5), "nobody");
}

#[test]
fn strange_objects_are_what_they_are() {
    let objects = [
        json!({"metadata": {"name": "a", "creationTimestamp": "yesterday", "labels": [1], "ownerReferences": "x"}}),
        json!({"metadata": {"name": "b".repeat(253), "namespace": 7}, "spec": [], "status": {"podIP": "10.0.0.300"}}),
        json!({"metadata": {"name": "c"}, "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": 3}], "containerStatuses": {}}}),
    ];
    let rows = objects.iter().flat_map(|object| {
        ["Pod", "Service", "Node", "EndpointSlice"].map(|kind| row(1, KubeChange::Modified, 0, kind, object))
    });
    let kube = kube(rows.collect());
    assert_eq!(kube.pods.len(), 3);
    assert_eq!(name_of(&kube, "10.0.0.1", 5), "c");
}

#[test]
fn blind_times_end_when_something_is_seen_again() {
    let of_kind = |seconds: u64, change, reason| (0, KubeFact::of_kind(seconds * SECOND, change, 0, "Pod", reason));
    let kube = kube(vec![
        of_kind(1, KubeChange::Blind, "refused"),
        of_kind(2, KubeChange::Blind, "still"),
        of_kind(5, KubeChange::Seeing, ""),
        of_kind(9, KubeChange::Blind, "gone"),
    ]);
    let found: Vec<_> =
        kube.blind().iter().map(|blind| (blind.from_ns / SECOND, blind.to_ns, &*blind.reason)).collect();
    assert_eq!(found, [(1, Some(5 * SECOND), "refused"), (9, None, "gone")]);
}

/// A process without a container is nobody's.
#[test]
fn an_id_that_is_empty_is_no_containers() {
    let mut odd = pod("odd", 1, "10.0.0.1");
    odd["status"]["containerStatuses"] =
        json!([{"name": "a", "containerID": "containerd://"}, {"name": "b", "containerID": "cri-o://b1"}]);
    let kube = kube(vec![row(1, KubeChange::Listed, 1, "Pod", &odd)]);
    assert_eq!((kube.pod_of_container(""), kube.pod_of_container("b1")), (None, Some(0)));
}

/// Another node's recording keeps less of a pod; whichever comes first, what is known of it stays known.
#[test]
fn of_one_state_the_fuller_account_counts() {
    let mut full = pod("api-1", 1, "10.0.0.1");
    full["metadata"]["resourceVersion"] = json!("7");
    full["spec"] = json!({"nodeName": "n", "containers": [{"name": "api"}]});
    full["status"]["containerStatuses"] = json!([{"name": "api", "containerID": "containerd://c1"}]);
    let less = KubeFact::pod_elsewhere(SECOND, KubeChange::Listed, 1, &full).unwrap();
    let (_, more) = row(2, KubeChange::Listed, 1, "Pod", &full);
    for rows in [vec![(0, less.clone()), (1, more.clone())], vec![(1, more), (0, less)]] {
        assert_eq!(kube(rows).pod_of_container("c1"), Some(0));
    }
}

/// What was asked for and never came is as blind as what was refused.
#[test]
fn a_kind_without_a_list_was_not_seen() {
    let complete =
        |seconds: u64, kind: &str| (0, KubeFact::of_kind(seconds * SECOND, KubeChange::Complete, 1, kind, ""));
    let refused = (0, KubeFact::of_kind(130 * SECOND, KubeChange::Blind, 0, "Node", "429"));
    let rows = vec![complete(101, "Pod"), complete(140, "Service"), refused];
    let mut blind = blind_times(&rows);
    add_unlisted(&mut blind, &rows, &[(0, (100 * SECOND, 200 * SECOND))]);
    let of =
        |kind: &str| blind.iter().find(|blind| blind.kind == kind).map(|blind| (blind.from_ns / SECOND, blind.to_ns));
    assert_eq!(of("Pod"), None);
    assert_eq!(of("Service"), Some((100, Some(140 * SECOND))));
    assert_eq!(of("Node"), Some((100, None)), "since the beginning, not since its first failure");
    assert_eq!(of("Secret"), None);
    assert_eq!(of("Deployment"), Some((100, None)));
    assert_eq!(blind.len(), kfr_bundle::kube::recorded_kinds().count() - 1);
}

#[test]
fn an_address_that_two_pods_claim_is_counted() {
    let kube = kube(vec![
        row(10, KubeChange::Listed, 1, "Pod", &pod("a", 1, "10.0.0.1")),
        row(10, KubeChange::Listed, 1, "Pod", &pod("b", 5, "10.0.0.1")),
        row(10, KubeChange::Listed, 1, "Pod", &pod("c", 1, "10.0.0.2")),
        row(20, KubeChange::Deleted, 0, "Pod", &pod("c", 1, "10.0.0.2")),
        row(30, KubeChange::Added, 0, "Pod", &pod("d", 30, "10.0.0.2")),
    ]);
    assert_eq!(kube.shared_addresses(), [ip("10.0.0.1")]);
}
