//! What Kubernetes says of the made-up shop: a rollout that fails, a container out of memory, a node without room.

use std::collections::BTreeMap;

use kfr_analyze::report::document::*;

use crate::sample::{START, golden};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn pod(name: &str, revision: &str, node: &str, inbound: Golden) -> Pod {
    Pod {
        id: format!("p-{name}"),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        workload: Some("w-app".to_owned()),
        revision: Some(revision.to_owned()),
        node: Some(node.to_owned()),
        zone: Some("zone-a".to_owned()),
        phase: Some("Running".to_owned()),
        ready: Some(true),
        created_ns: Some(START - 600 * SECOND),
        ready_ns: Some(START - 590 * SECOND),
        containers: vec![
            Container {
                name: "wait-for-db".to_owned(),
                kind: "init".to_owned(),
                image: "docker.example/busybox:1.36".to_owned(),
                ended: Some(Ending { reason: "Completed".to_owned(), exit_code: Some(0), at_ns: Some(START) }),
                ..Container::default()
            },
            Container {
                name: "app".to_owned(),
                kind: "main".to_owned(),
                image: "registry.example/shop/app:2.1".to_owned(),
                restarts: 2,
                ended: Some(Ending { reason: "OOMKilled".to_owned(), exit_code: Some(137), at_ns: None }),
                waiting: None,
                ready: Some(true),
            },
        ],
        restarts: 2,
        labels: labels(&[("app", "shop-app"), ("version", "2.1")]),
        inbound,
        ..Pod::default()
    }
}

/// Puts it into a document.
pub fn add(doc: &mut Document) {
    let revision = |name: &str, number: u64, image: &str, bad: u64| Revision {
        name: name.to_owned(),
        number: Some(number),
        images: vec![Image { container: "app".to_owned(), image: image.to_owned() }],
        created_ns: Some(START - 600 * SECOND),
        pods: 1,
        inbound: golden(number, 40, 4 * MS, 60 * MS, 1, bad),
        callers: vec![Caller { service: "unit:nginx.service".to_owned(), requests: 2_000, errors: bad * 10 }],
    };
    let rollout = |from: Option<&str>, to: &str, number: u64, at_s: u64, outcome: &str| Rollout {
        from: from.map(str::to_owned),
        to: to.to_owned(),
        number: Some(number),
        began_ns: START + at_s * SECOND,
        ended_ns: (outcome == "complete").then(|| START + (at_s + 9) * SECOND),
        stuck_ns: (outcome == "stuck").then(|| START + (at_s + 20) * SECOND),
        outcome: outcome.to_owned(),
        difference: "app:2.0 → app:2.1".to_owned(),
        is_rollback: number == 3,
    };
    doc.workloads = vec![
        Workload {
            id: "w-app".to_owned(),
            name: "shop/app".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: Some("shop".to_owned()),
            services: vec!["process:shop-app".to_owned()],
            kubernetes_services: vec![KubernetesService {
                name: "shop/app".to_owned(),
                kind: "ClusterIP".to_owned(),
                ready: Some(2),
                least_ready: Some(1),
            }],
            replicas: Some(Replicas { wanted: 3, ready: 2, updated: 1, available: 2 }),
            least_ready: Some(1),
            course: vec![
                ReplicaStep { at_ns: START, wanted: 3, ready: 3 },
                ReplicaStep { at_ns: START + 22 * SECOND, wanted: 3, ready: 1 },
                ReplicaStep { at_ns: START + 31 * SECOND, wanted: 3, ready: 2 },
            ],
            pods: 3,
            restarts: 4,
            revisions: vec![
                revision("5d8f7c9b6", 1, "registry.example/shop/app:2.0", 0),
                revision("7b9c44d5f", 2, "registry.example/shop/app:2.1", 40),
            ],
            rollouts: vec![
                rollout(None, "5d8f7c9b6", 1, 0, "complete"),
                rollout(Some("5d8f7c9b6"), "7b9c44d5f", 2, 22, "stuck"),
                rollout(Some("7b9c44d5f"), "5d8f7c9b6", 3, 50, "running"),
            ],
            labels: labels(&[("app", "shop-app")]),
            inbound: golden(1, 80, 4 * MS, 60 * MS, 1, 20),
        },
        Workload {
            id: "w-report".to_owned(),
            name: "shop/report".to_owned(),
            kind: "CronJob".to_owned(),
            namespace: Some("shop".to_owned()),
            pods: 1,
            ..Workload::default()
        },
    ];
    doc.pods = vec![
        pod("app-5d8f7c9b6-x2k4q", "5d8f7c9b6", "shop-01", golden(2, 40, 4 * MS, 60 * MS, 1, 0)),
        pod("app-7b9c44d5f-m8z7n", "7b9c44d5f", "shop-02", golden(3, 40, 4 * MS, 60 * MS, 1, 40)),
        Pod {
            phase: Some("Pending".to_owned()),
            reason: Some("Unschedulable".to_owned()),
            ready: Some(false),
            node: None,
            zone: None,
            deleted_ns: Some(START + 55 * SECOND),
            restarts: 0,
            ..pod("app-7b9c44d5f-q6w2t", "7b9c44d5f", "", Golden::default())
        },
    ];
    doc.groups = vec![
        LabelGroup {
            label: "version".to_owned(),
            value: Some("2.1".to_owned()),
            pods: 2,
            inbound: golden(3, 40, 4 * MS, 60 * MS, 1, 40),
        },
        LabelGroup { label: "version".to_owned(), pods: 1, ..LabelGroup::default() },
    ];
    let change = |at_ns: u64, kind: &str, summary: &str, is_bad: bool| Change {
        at_ns: Some(at_ns),
        kind: kind.to_owned(),
        subject: "shop/app".to_owned(),
        summary: summary.to_owned(),
        count: 1,
        is_bad,
        workload: Some("w-app".to_owned()),
        ..Change::default()
    };
    doc.changes = vec![
        change(START - 300 * SECOND, "configuration", "ConfigMap written, read by shop/app", false),
        Change {
            until_ns: Some(START + 50 * SECOND),
            ..change(START + 22 * SECOND, "rollout", "revision 1 → 2: app:2.0 → app:2.1; stuck since 03:25:42", true)
        },
        Change {
            count: 3,
            pod: Some("p-app-7b9c44d5f-m8z7n".to_owned()),
            ..change(START + 30 * SECOND, "oom_killed", "app (app:2.1) ended: OOMKilled, exit code 137", true)
        },
        Change {
            subject: "shop-02".to_owned(),
            workload: None,
            ..change(START + 40 * SECOND, "node", "cordoned", false)
        },
    ];
    doc.nodes.push(Node {
        name: "shop-02".to_owned(),
        kubernetes: Some(KubernetesNode {
            zone: Some("zone-b".to_owned()),
            ready: Some(true),
            is_cordoned: true,
            troubles: vec!["DiskPressure".to_owned()],
            pods: 2,
            kubelet: Some("v1.36.0".to_owned()),
            runtime: Some("containerd://2.3.0".to_owned()),
        }),
        ..Node::default()
    });
    if let Some(edge) = doc.edges.first_mut() {
        edge.cross_zone = Some(CrossZone { connections: 3, bytes: 4_096 });
    }
}
