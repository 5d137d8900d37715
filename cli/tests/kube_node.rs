//! The processes of a real node, by their cgroups, against what its kubelet and the API said. Needs `KFR_SHARED` to name the
//! folder that holds `k8s/`.
#![cfg(all(target_os = "linux", feature = "capture"))]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kfr_analyze::{Analysis, Input, Options, Want};
use kfr_bundle::facts::{ContainerFact, ProcessFact};
use kfr_bundle::kube::{KubeChange, KubeFact};
use kfr_bundle::{Block, BlockKind, FileHeader, MapWriter, Writer};
use kfr_capture::cgroup::{Cgroups, Member};
use serde::Serialize;
use serde_json::Value;

fn scenario() -> Option<PathBuf> {
    match std::env::var_os("KFR_SHARED") {
        Some(folder) => Some(Path::new(&folder).join("k8s/scenario")),
        None => {
            println!("skipped: KFR_SHARED doesn't name the folder with the recorded cluster");
            None
        }
    }
}

fn items(path: &Path) -> Vec<Value> {
    let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Names of a pod's containers by id.
fn containers(pod: &Value) -> BTreeMap<String, String> {
    let fields = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let statuses = fields.iter().filter_map(|field| pod["status"][field].as_array()).flatten();
    let ids = statuses.flat_map(|status| {
        let ids = ["/containerID", "/state/terminated/containerID", "/lastState/terminated/containerID"];
        ids.map(|path| (text(status, path).replace("containerd://", ""), text(status, "/name").to_string()))
    });
    ids.filter(|(id, _)| !id.is_empty()).collect()
}

/// Pid, command and cgroups of each process.
fn processes(scenario: &Path) -> Vec<(u32, String, Cgroups)> {
    let lines = std::fs::read_to_string(scenario.join("host/processes.jsonl")).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let read = |line: Value| {
        let pid = line["pid"].as_u64().unwrap() as u32;
        (pid, text(&line, "/comm").to_string(), Cgroups::read(text(&line, "/cgroup")))
    };
    lines.map(read).collect()
}

/// The pods of the node by UID, as its kubelet knows them.
fn pods(scenario: &Path) -> BTreeMap<String, Value> {
    let pods = items(&scenario.join("kubelet-pods.json"));
    pods.into_iter().map(|pod| (text(&pod, "/metadata/uid").to_string(), pod)).collect()
}

#[test]
fn every_cgroup_tells_its_pod_and_container() {
    let Some(scenario) = scenario() else { return };
    let pods = pods(&scenario);
    let mut pauses = 0;
    let found = processes(&scenario);
    for (pid, comm, cgroups) in &found {
        let Member { pod, container } = &cgroups.member;
        let pod = pods.get(pod).unwrap_or_else(|| panic!("{pid} {comm}: {cgroups:?}"));
        if comm == "pause" {
            pauses += 1;
            assert!(!containers(pod).contains_key(container) && container.len() == 64);
        } else {
            assert!(containers(pod).contains_key(container), "{pid} {comm}: {cgroups:?}");
        }
    }
    assert!(found.len() == 55 && pauses >= 20, "{} processes, {pauses} of pods themselves", found.len());

    let tree = std::fs::read_to_string(scenario.join("host/cgroup2-tree.txt")).unwrap();
    let (mut of_pods, mut of_containers) = (0, 0);
    for path in tree.lines() {
        let member = Member::of_path(path);
        let last = path.rsplit('/').next().unwrap();
        match last.strip_prefix("pod") {
            Some(uid) => {
                assert!(pods.contains_key(uid), "{path}");
                assert_eq!((&*member.pod, &*member.container), (uid, ""), "{path}");
                of_pods += 1;
            }
            None if last.len() == 64 => {
                assert!(path.contains(&format!("/pod{}/", member.pod)) && member.container == last, "{path}");
                of_containers += 1;
            }
            None => assert!(member.is_none(), "{path}"),
        }
    }
    assert_eq!((of_pods, of_containers), (20, 40));
}

fn write<T: Serialize>(writer: &mut Writer, kind: BlockKind, rows: &[T]) {
    let mut maps = MapWriter::new();
    rows.iter().for_each(|row| maps.push(row).unwrap());
    writer.write_block(&Block::new(kind, maps.len()), &maps.encode()).unwrap();
}

/// Pod and workload of each process that has any, from a bundle with these rows, and whether the node alone told.
fn replayed(
    processes: &[(u32, String, Cgroups)],
    objects: &[KubeFact],
    containers: &[ContainerFact],
) -> BTreeMap<u32, (String, String, bool)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.kfr");
    let mut writer = Writer::create(&path, &FileHeader::new("node-1".to_string()), false).unwrap();
    let facts = processes.iter().map(|(pid, comm, cgroups)| ProcessFact {
        process: *pid,
        comm: comm.clone(),
        container: cgroups.member.container.clone(),
        pod: cgroups.member.pod.clone(),
        ..ProcessFact::default()
    });
    write(&mut writer, BlockKind::PROCESSES, &facts.collect::<Vec<_>>());
    write(&mut writer, BlockKind::KUBE, objects);
    write(&mut writer, BlockKind::CONTAINERS, containers);
    writer.finish().unwrap();
    let inputs = Input::open_all(&[path]).unwrap();
    let analysis = Analysis::new(&inputs, &Options::default(), Want::Connections).unwrap();
    let facts = &analysis.world.facts;
    let pids = processes.iter().map(|(pid, ..)| *pid);
    let named = |pid| {
        let pod = facts.kube.pod(facts.kube.pod_of_process(facts.processes.get(0, pid)?)?)?;
        let name = format!("{}/{}", pod.namespace, pod.name);
        Some((pid, (name, facts.kube.workload_name(pod.workload).to_string(), pod.by_node)))
    };
    pids.filter_map(named).collect()
}

#[test]
fn every_process_is_named_with_the_api_and_without() {
    let Some(scenario) = scenario() else { return };
    let (processes, pods) = (processes(&scenario), pods(&scenario));
    let listed = ["pods", "replicasets", "jobs"].map(|kind| items(&scenario.join(format!("{kind}.json"))));
    let kinds = ["Pod", "ReplicaSet", "Job"].into_iter().zip(&listed);
    let objects = kinds.flat_map(|(kind, items)| {
        items.iter().filter_map(move |item| KubeFact::new(1, KubeChange::Listed, 1, kind, item))
    });
    let known = replayed(&processes, &objects.collect::<Vec<_>>(), &[]);

    // What the files of the node would have said: its containers with the pods' names.
    let rows = processes.iter().map(|(_, _, cgroups)| {
        let pod = &pods[&cgroups.member.pod];
        ContainerFact {
            container: cgroups.member.container.clone(),
            pod: cgroups.member.pod.clone(),
            namespace: text(pod, "/metadata/namespace").to_string(),
            pod_name: text(pod, "/metadata/name").to_string(),
            source: "containerd".to_string(),
            ..ContainerFact::default()
        }
    });
    let guessed = replayed(&processes, &[], &rows.collect::<Vec<_>>());

    for (pid, comm, cgroups) in &processes {
        let pod = &pods[&cgroups.member.pod];
        let name = format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let (by_api, by_node) = (&known[pid], &guessed[pid]);
        assert_eq!((&by_api.0, by_api.2), (&name, false), "{pid} {comm}");
        assert_eq!((&by_node.0, by_node.2), (&name, true), "{pid} {comm}");
        assert_eq!(by_node.1, by_api.1, "{pid} {comm}: the guess is wrong");
    }
}
