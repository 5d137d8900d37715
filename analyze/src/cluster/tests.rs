use kfr_bundle::kube::{KubeChange, KubeFact};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::identity::blind_times;

const SECOND: u64 = 1_000_000_000;
/// The recording, seconds since 1970.
const WINDOW: (u64, u64) = (10_000, 11_000);

fn at(seconds: u64) -> String {
    jiff::Timestamp::from_second(seconds as i64).unwrap().to_string()
}

/// Objects as a watch tells them: (second, kind, object); `None` for an object deletes it.
struct Watch(Vec<(u32, KubeFact)>);

impl Watch {
    fn tell(&mut self, seconds: u64, kind: &str, mut object: Value) -> &mut Self {
        object["metadata"]["namespace"].as_str().is_none().then(|| object["metadata"]["namespace"] = json!("shop"));
        object["metadata"]["resourceVersion"] = json!(self.0.len().to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = object["metadata"]["name"].clone();
        }
        self.0.push((0, KubeFact::new(seconds * SECOND, KubeChange::Modified, 0, kind, &object).unwrap()));
        self
    }

    fn delete(&mut self, seconds: u64, kind: &str, object: Value) -> &mut Self {
        self.tell(seconds, kind, object);
        self.0.last_mut().unwrap().1.change = KubeChange::Deleted;
        self
    }

    fn cluster(&self) -> Cluster {
        cluster(self.0.clone())
    }
}

fn watch() -> Watch {
    Watch(Vec::new())
}

fn cluster(rows: Vec<(u32, KubeFact)>) -> Cluster {
    let blind = blind_times(&rows);
    let objects = Objects::new(rows);
    let kube = Kube::new(&objects, blind);
    Cluster::new(&objects, &kube, (WINDOW.0 * SECOND, WINDOW.1 * SECOND))
}

/// `second kind subject: summary`, with `!` where it hurts.
fn lines(cluster: &Cluster) -> Vec<String> {
    let line = |change: &Change| {
        let bad = if change.is_bad { "!" } else { "" };
        let times = if change.count > 1 { format!(" x{}", change.count) } else { String::new() };
        let until = change.until_ns.map_or_else(String::new, |until_ns| format!("-{}", until_ns / SECOND));
        let (at, kind) = (change.at_ns / SECOND, change.kind.name());
        format!("{at}{until} {bad}{kind} {}: {}{times}", change.subject, change.summary)
    };
    cluster.changes.iter().map(line).collect()
}

fn deployment(image: &str, revision: u64, generation: u64, status: Value) -> Value {
    json!({
        "metadata": {
            "name": "api", "uid": "d", "generation": generation,
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
        },
        "spec": {"replicas": 2, "template": template(image)},
        "status": status,
    })
}

fn template(image: &str) -> Value {
    json!({"spec": {"containers": [{"name": "api", "image": format!("registry.example/{image}")}]}})
}

fn replica_set(name: &str, image: &str, revision: u64, born: u64) -> Value {
    json!({
        "metadata": {
            "name": format!("api-{name}"), "uid": name, "creationTimestamp": at(born), "labels": {"pod-template-hash": name},
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [{"kind": "Deployment", "name": "api", "uid": "d", "controller": true}],
        },
        "spec": {"replicas": 2, "template": template(image)},
    })
}

fn rolled_out(generation: u64) -> Value {
    json!({"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
        "availableReplicas": 2})
}

fn progress(generation: u64, status: &str, reason: &str, seconds: u64) -> Value {
    json!({
        "observedGeneration": generation, "replicas": 3, "updatedReplicas": 1, "readyReplicas": 2, "availableReplicas": 2,
        "conditions": [{"type": "Progressing", "status": status, "reason": reason, "lastUpdateTime": at(seconds)}],
    })
}

#[test]
fn a_rollout_goes_through_gets_stuck_and_is_taken_back() {
    let cluster = watch()
        .tell(10_000, "Deployment", deployment("api:1", 1, 1, rolled_out(1)))
        .tell(10_000, "ReplicaSet", replica_set("aaa", "api:1", 1, 5_000))
        .tell(10_100, "ReplicaSet", replica_set("bbb", "api:2", 2, 10_100))
        .tell(10_100, "Deployment", deployment("api:2", 2, 2, progress(2, "True", "ReplicaSetUpdated", 10_100)))
        .tell(10_130, "Deployment", deployment("api:2", 2, 2, rolled_out(2)))
        .tell(10_200, "ReplicaSet", replica_set("ccc", "api:3", 3, 10_200))
        .tell(10_200, "Deployment", deployment("api:3", 3, 3, progress(3, "True", "ReplicaSetUpdated", 10_200)))
        .tell(10_261, "Deployment", deployment("api:3", 3, 3, progress(3, "False", "ProgressDeadlineExceeded", 10_260)))
        .tell(10_300, "ReplicaSet", replica_set("bbb", "api:2", 4, 10_100))
        .tell(10_300, "Deployment", deployment("api:2", 4, 4, progress(4, "True", "ReplicaSetUpdated", 10_300)))
        .tell(10_309, "Deployment", deployment("api:2", 4, 4, rolled_out(4)))
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "10100-10130 rollout shop/api: revision 1 → 2: api:1 → api:2; done after 30.0 s",
            "10200-10300 !rollout shop/api: revision 2 → 3: api:2 → api:3; stuck since 02:51:00 (deadline passed), given up \
             after 100 s",
            "10300-10309 rollout shop/api: revision 3 → 4: back to what 2 was: api:3 → api:2; done after 9.00 s",
        ]
    );
    let workload = &cluster.workloads[0];
    let names: Vec<_> = workload.revisions.iter().map(|one| (one.name.as_str(), one.number)).collect();
    assert_eq!(names, [("aaa", Some(1)), ("bbb", Some(4)), ("ccc", Some(3))]);
    assert_eq!((workload.replicas.unwrap().ready, workload.least_ready), (2, Some(2)));
}

/// The usual case: it broke, then somebody began to record.
#[test]
fn a_rollout_before_the_recording_is_told_from_lists_alone() {
    let cluster = watch()
        .tell(10_000, "ReplicaSet", replica_set("aaa", "api:1", 1, 2_000))
        .tell(10_000, "ReplicaSet", replica_set("bbb", "api:2", 2, 9_800))
        .tell(10_000, "Deployment", deployment("api:2", 2, 2, progress(2, "False", "ProgressDeadlineExceeded", 9_900)))
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "9800-11000 !rollout shop/api: revision 1 → 2: api:1 → api:2; stuck since 02:45:00 (deadline passed), not done"
        ]
    );
    assert_eq!(cluster.workloads[0].rollouts[1].outcome, Outcome::Stuck);
}

#[test]
fn sets_roll_out_where_their_template_becomes_another() {
    let set = |kind: &str, image: &str, generation: u64, status: Value| {
        let mut set =
            json!({"metadata": {"name": kind, "generation": generation}, "spec": {"template": template(image)}});
        set["status"] = status;
        set
    };
    let stateful = |seen: u64, current: &str, update: &str| json!({"observedGeneration": seen, "currentRevision": current, "updateRevision": update});
    let daemons = |seen: u64, updated: u64| {
        json!({"observedGeneration": seen, "desiredNumberScheduled": 3, "numberReady": 3, "numberAvailable": 3,
            "updatedNumberScheduled": updated})
    };
    let cluster = watch()
        .tell(10_000, "StatefulSet", set("db", "db:1", 1, stateful(1, "db-1", "db-1")))
        .tell(10_010, "StatefulSet", set("db", "db:2", 2, stateful(1, "db-1", "db-1")))
        .tell(10_011, "StatefulSet", set("db", "db:2", 2, stateful(2, "db-1", "db-2")))
        .tell(10_040, "StatefulSet", set("db", "db:2", 2, stateful(2, "db-2", "db-2")))
        .tell(10_000, "DaemonSet", set("agent", "agent:1", 1, daemons(1, 3)))
        .tell(10_010, "DaemonSet", set("agent", "agent:2", 2, daemons(2, 1)))
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "10010-11000 !rollout shop/agent: revision generation 1 → generation 2: agent:1 → agent:2; not done after 16.5 min",
            "10010-10040 rollout shop/db: revision db-1 → db-2: db:1 → db:2; done after 30.0 s",
        ]
    );
}

fn pod(name: &str, status: Value) -> Value {
    json!({
        "metadata": {
            "name": name, "creationTimestamp": at(9_000), "labels": {"pod-template-hash": "aaa"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "api-aaa", "uid": "aaa", "controller": true}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "api", "image": "api:1"}]},
        "status": status,
    })
}

fn container(restarts: u64, state: Value, last: Value) -> Value {
    json!({"phase": "Running", "containerStatuses":
        [{"name": "api", "restartCount": restarts, "state": state, "lastState": last}]})
}

#[test]
fn restarts_are_counted_by_how_the_container_ended() {
    let ended = |reason: &str, code: i64, seconds: u64| json!({"terminated": {"reason": reason, "exitCode": code, "finishedAt": at(seconds)}});
    let running = json!({"running": {}});
    let looping = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
    let cluster = watch()
        .tell(10_000, "Pod", pod("p", container(3, running.clone(), ended("Error", 1, 9_990))))
        .tell(10_050, "Pod", pod("p", container(4, running.clone(), ended("OOMKilled", 137, 10_050))))
        .tell(10_060, "Pod", pod("p", container(4, ended("OOMKilled", 137, 10_060), ended("OOMKilled", 137, 10_050))))
        .tell(10_061, "Pod", pod("p", container(4, looping, ended("OOMKilled", 137, 10_060))))
        .tell(10_100, "Pod", pod("p", container(5, running, ended("OOMKilled", 137, 10_060))))
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "9990 !restarted shop/p: api (api:1) ended: Error, exit code 1; 5 restarts, now in CrashLoopBackOff",
            "10050-10060 !oom_killed shop/p: api (api:1) ended: OOMKilled, exit code 137; 5 restarts, now in \
             CrashLoopBackOff x2",
        ]
    );
    assert_eq!(cluster.pods[0].restarts(), 5);
}

#[test]
fn a_pod_that_was_deleted_is_told_from_one_that_was_scaled_away() {
    let deleted = |name: &str, seconds: u64| {
        let mut pod = pod(name, json!({"phase": "Running"}));
        pod["metadata"]["deletionTimestamp"] = json!(at(seconds + 30));
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        pod
    };
    let wanted = |count: u64| {
        let mut set = replica_set("aaa", "api:1", 1, 5_000);
        set["spec"]["replicas"] = json!(count);
        set
    };
    let cluster = watch()
        .tell(10_000, "ReplicaSet", wanted(3))
        .tell(10_000, "Pod", pod("by-hand", json!({"phase": "Running"})))
        .tell(10_100, "Pod", deleted("by-hand", 10_100))
        .tell(10_200, "ReplicaSet", wanted(2))
        .tell(10_200, "Pod", deleted("scaled-away", 10_200))
        .cluster();
    assert_eq!(lines(&cluster), ["10100 pod_deleted shop/by-hand: deleted, though its workload still wanted as many"]);
    assert_eq!(cluster.pods.iter().map(|pod| pod.deleted_ns.unwrap() / SECOND).collect::<Vec<_>>(), [10_100, 10_200]);
}

#[test]
fn what_keeps_a_pod_from_running_is_told() {
    let refused = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/1 nodes", "lastTransitionTime": at(10_000)}]});
    let placed = json!({"phase": "Pending", "conditions":
        [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(10_020)}]});
    let pull = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
    let cluster = watch()
        .tell(10_000, "Pod", pod("waits", refused))
        .tell(10_021, "Pod", pod("waits", placed))
        .tell(10_030, "Pod", pod("no-image", container(0, pull, json!({}))))
        .tell(10_000, "Pod", pod("pushed", json!({"phase": "Running"})))
        .tell(10_040, "Pod", pod("pushed", evicted))
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            // Seen first like that: so it was since it was made.
            "9000 !not_starting shop/no-image: api (api:1): ImagePullBackOff: no such image",
            "10000-10020 !unschedulable shop/waits: 0/1 nodes",
            "10040 !evicted shop/pushed: Evicted from node-1: low on memory",
        ]
    );
}

#[test]
fn equal_warnings_are_one_line_in_both_shapes_of_events() {
    let event = |name: &str, message: &str, count: u64, first: u64, last: u64| {
        json!({"metadata": {"name": name}, "type": "Warning", "reason": "Unhealthy", "message": message, "count": count,
            "firstTimestamp": at(first), "lastTimestamp": at(last),
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "p", "fieldPath": "spec.containers{api}"}})
    };
    let newer = json!({"metadata": {"name": "c"}, "type": "Warning", "reason": "FailedMount", "note": "no volume",
        "eventTime": at(10_070), "series": {"count": 4, "lastObservedTime": at(10_080)},
        "regarding": {"kind": "Pod", "namespace": "other", "name": "nobody"}});
    let cluster = watch()
        .tell(10_000, "ReplicaSet", replica_set("aaa", "api:1", 1, 5_000))
        .tell(10_000, "Pod", pod("p", json!({"phase": "Running"})))
        .tell(10_050, "Event", event("a", "Liveness probe failed: dial tcp 10.0.0.1:80", 3, 10_010, 10_050))
        .tell(10_060, "Event", event("b", "Liveness probe failed: dial tcp 10.0.0.2:80", 2, 10_005, 10_060))
        .tell(10_080, "Event", newer)
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "10005-10060 !probe_failed shop/api: api: Liveness probe failed: dial tcp 10.0.0.2:80 x5",
            "10070-10080 !warning other/nobody: FailedMount: no volume x4",
        ]
    );
}

#[test]
fn a_pod_that_is_not_ready_yet_is_no_trouble() {
    let status = json!({"phase": "Running", "conditions":
        [{"type": "Ready", "status": "True", "lastTransitionTime": at(10_020)}]});
    let event = |name: &str, message: &str, last: u64| {
        json!({"metadata": {"name": name}, "type": "Warning", "reason": "Unhealthy", "message": message,
            "firstTimestamp": at(last), "lastTimestamp": at(last),
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "p"}})
    };
    let cluster = watch()
        .tell(10_000, "Pod", pod("p", status))
        .tell(10_010, "Event", event("a", "Readiness probe failed: not yet", 10_010))
        .tell(10_015, "Event", event("b", "Liveness probe failed: at all", 10_015))
        .tell(10_060, "Event", event("c", "Readiness probe failed: any more", 10_060))
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "10010 probe_failed shop/api: Readiness probe failed: not yet",
            "10015 !probe_failed shop/api: Liveness probe failed: at all",
            "10060 !probe_failed shop/api: Readiness probe failed: any more",
        ]
    );
}

#[test]
fn services_and_nodes_have_their_troubles() {
    let slice = |ready: bool| {
        json!({"metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "api"}}, "endpoints":
            [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"namespace": "shop", "name": "p"}}]})
    };
    let node = |ready: &str, cordoned: bool| {
        json!({"metadata": {"name": "node-1", "namespace": "", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"unschedulable": cordoned}, "status": {"conditions": [
                {"type": "Ready", "status": ready, "message": "no word from it"}, {"type": "DiskPressure", "status": "False"}]}})
    };
    let cluster = watch()
        .tell(10_000, "Pod", pod("p", json!({"phase": "Running"})))
        .tell(10_000, "Service", json!({"metadata": {"name": "api"}, "spec": {"type": "ClusterIP"}}))
        .tell(10_000, "EndpointSlice", slice(true))
        .tell(10_050, "EndpointSlice", slice(false))
        .tell(10_060, "EndpointSlice", slice(true))
        .tell(10_000, "Node", node("True", false))
        .tell(10_070, "Node", node("Unknown", false))
        .tell(10_080, "Node", node("True", true))
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "10050-10060 !service shop/api: nobody ready behind it for 10.0 s",
            "10070 !node node-1: Ready is Unknown: no word from it",
            "10080 node node-1: Ready is True: no word from it",
            "10080 node node-1: cordoned: takes no new pods",
        ]
    );
    let service = &cluster.services[0];
    assert_eq!((service.ready, service.least_ready, service.workloads.len()), (Some(1), Some(0), 1));
    assert_eq!((cluster.zone("node-1"), cluster.nodes[0].is_cordoned), (Some("a"), true));
}

#[test]
fn a_deleted_workload_and_its_config_are_told() {
    let map = |version: &str| json!({"metadata": {"name": "settings", "labels": {"v": version}}});
    let mut scaled = deployment("api:1", 1, 2, rolled_out(2));
    scaled["spec"]["replicas"] = json!(5);
    scaled["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    let cluster = watch()
        .tell(10_000, "ConfigMap", map("1"))
        .tell(10_010, "ConfigMap", map("2"))
        .tell(10_000, "Deployment", deployment("api:1", 1, 1, rolled_out(1)))
        .tell(10_020, "Deployment", scaled.clone())
        .delete(10_030, "Deployment", scaled)
        .cluster();
    assert_eq!(
        lines(&cluster),
        [
            "10010 configuration shop/settings: ConfigMap written, read by shop/api",
            "10020 scaled shop/api: 2 → 5 replicas",
            "10030 deleted shop/api: Deployment deleted",
        ]
    );
}

#[test]
fn counts_and_times_at_their_limits_do_not_overflow() {
    let ended = |seconds: u64| json!({"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": at(seconds)}});
    let mut many = container(u64::MAX, json!({"running": {}}), ended(10_060));
    many["containerStatuses"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "b", "restartCount": u64::MAX, "state": {}, "lastState": ended(10_061)}));
    let mut both = pod("p", many);
    both["spec"]["containers"] = json!([{"name": "api", "image": "api:1"}, {"name": "b", "image": "b:1"}]);
    let late = "2554-07-21T23:34:33.7Z";
    let mut stuck = progress(1, "False", "ProgressDeadlineExceeded", 10_000);
    stuck["conditions"][0]["lastUpdateTime"] = json!(late);
    let cluster = watch()
        .tell(10_000, "Pod", pod("p", container(0, json!({"running": {}}), ended(10_000))))
        .tell(10_060, "Pod", both)
        .tell(10_000, "ReplicaSet", replica_set("aaa", "api:1", 1, 5_000))
        .tell(10_000, "Deployment", deployment("api:1", 1, 1, stuck))
        .cluster();
    assert_eq!(cluster.pods[0].restarts(), u64::MAX);
}

/// A value of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![
            Just("True".to_string()),
            Just("Unschedulable".to_string()),
            Just("9999-12-31T23:59:59Z".to_string()),
            // The last second that fits.
            Just("2554-07-21T23:34:33.7Z".to_string()),
            Just("0001-01-01T00:00:00Z".to_string()),
            Just("d".to_string()),
            ".*",
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("status|spec|conditions|name|terminated|restartCount", inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Puts a value at the n-th place of an object, counted from the outside.
fn replace(object: &mut Value, place: usize, with: Value) {
    let mut open = vec![object];
    let mut passed = 0;
    while let Some(value) = open.pop() {
        if passed == place {
            *value = with;
            return;
        }
        passed += 1;
        match value {
            Value::Array(values) => open.extend(values.iter_mut()),
            Value::Object(fields) => {
                open.extend(fields.iter_mut().filter(|(name, _)| *name != "name").map(|(_, value)| value))
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Fields that are missing or something else, owners that own each other, times that can't be: no panic, and every
    /// change has its time in order.
    #[test]
    fn objects_of_any_shape_are_taken_as_they_are(
        changes in prop::collection::vec((0usize..8, 1usize..40, any_json(), 9_000u64..12_000, any::<bool>()), 1..24)
    ) {
        let base = [
            ("Deployment", deployment("api:1", 1, 1, progress(1, "True", "ReplicaSetUpdated", 10_000))),
            ("ReplicaSet", replica_set("aaa", "api:1", 1, 9_000)),
            ("Pod", pod("p", container(1, json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"terminated": {}})))),
            ("Node", json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})),
            ("Service", json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})),
            ("EndpointSlice", json!({"metadata": {"name": "e", "labels": {"kubernetes.io/service-name": "s"}},
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]})),
            ("Event", json!({"metadata": {"name": "v"}, "type": "Warning", "reason": "Odd", "involvedObject": {"kind": "Pod"}})),
            ("StatefulSet", json!({"metadata": {"name": "db"}, "spec": {"template": template("db:1")}, "status": {}})),
        ];
        let mut rows = Vec::new();
        for (kind, place, value, seconds, deletes) in changes {
            let (kind, object) = &base[kind];
            let mut object = object.clone();
            replace(&mut object, place, value);
            let change = if deletes { KubeChange::Deleted } else { KubeChange::Modified };
            rows.extend(KubeFact::new(seconds * SECOND, change, 0, kind, &object).map(|row| (0, row)));
        }
        let cluster = cluster(rows);
        prop_assert!(cluster.changes.is_sorted_by_key(|change| change.at_ns));
        for change in &cluster.changes {
            prop_assert!(change.until_ns.is_none_or(|until_ns| until_ns > change.at_ns));
            prop_assert!(change.summary.chars().count() < 2_000);
        }
    }
}
