//! Pods that the API was not asked for, as the files of their node name them. What deploys a pod is guessed from its name.

use kfr_bundle::facts::ContainerFact;
use rustc_hash::FxHashMap;

use super::owners::Workload;
use super::{Kube, Pod};

/// The letters and digits of generated names: five of them end a pod's (k8s.io/apimachinery/pkg/util/rand).
const GENERATED: &str = "bcdfghjklmnpqrstvwxz2456789";
const GENERATED_LENGTH: usize = 5;
/// A ReplicaSet's hash: a 32-bit number's decimal digits, each as one of ten of those characters (`SafeEncodeString`).
const HASH: &str = "456789bcdf";
/// Its length: all but one in 4,000 numbers have so many digits.
const HASH_LENGTH: std::ops::RangeInclusive<usize> = 7..=10;
/// Minutes since 1970 at which a CronJob's Job was due, from 2020 to 2045.
const DUE_MINUTES: std::ops::Range<u64> = 26_000_000..40_000_000;
/// Longest generated name: what it is generated from is cut for it.
const LONGEST: usize = 63;
/// Either makes pods of names with nothing but a generated end.
const SET_OR_JOB: &str = "DaemonSet or Job";

impl Kube {
    /// Adds what the API didn't tell: pods by container and by UID, of each row's bundle; `node` names a bundle's node.
    pub fn add_node_names<'a>(&mut self, rows: &[(u32, ContainerFact)], node: impl Fn(u32) -> &'a str) {
        let names =
            self.pods.iter().enumerate().map(|(number, pod)| ((pod.namespace.clone(), pod.name.clone()), number));
        // Of several that had a name, the youngest.
        let mut by_name: FxHashMap<_, _> = names.map(|(name, number)| (name, number as u32)).collect();
        let mut workloads = FxHashMap::<_, Vec<u32>>::default();
        for (number, known) in self.workloads.iter().enumerate() {
            workloads.entry((known.namespace.clone(), known.name.clone())).or_default().push(number as u32);
        }
        for (bundle, row) in rows {
            let name = (row.namespace.clone(), row.pod_name.clone());
            let known = match &*row.pod {
                // Nothing but its logs' names told of it.
                "" => by_name.get(&name).copied(),
                uid => self.by_uid.get(uid).copied(),
            };
            let number = match known {
                Some(number) => number,
                None if row.pod_name.is_empty() => continue,
                None => {
                    let number = self.pods.len() as u32;
                    let node = node(*bundle);
                    let guess = guess(row, node);
                    let same_name = workloads.entry((guess.namespace.clone(), guess.name.clone())).or_default();
                    let workload = self.workload(guess, same_name);
                    let (namespace, name) = name.clone();
                    self.pods.push(Pod { namespace, name, workload, node: node.to_string(), by_node: true });
                    number
                }
            };
            if !row.pod.is_empty() {
                self.by_uid.entry(row.pod.clone()).or_insert(number);
            }
            if !row.container.is_empty() {
                self.by_container.entry(row.container.clone()).or_insert(number);
            }
            by_name.insert(name, number);
        }
        self.name_workloads();
    }

    /// The number of a workload: of one of those that are called the same, or of a new one.
    fn workload(&mut self, guess: Workload, same_name: &mut Vec<u32>) -> u32 {
        let is_it = |number: &&u32| {
            let known = self.workloads.get(**number as usize);
            guess.kind == SET_OR_JOB || known.is_some_and(|known| known.kind == guess.kind)
        };
        if let Some(number) = same_name.iter().find(is_it) {
            return *number;
        }
        let number = self.workloads.len() as u32;
        same_name.push(number);
        self.workloads.push(guess);
        number
    }
}

/// What a pod most likely belongs to.
fn guess(row: &ContainerFact, node: &str) -> Workload {
    let (kind, name) = by_name(&row.pod_name, &row.pod, node);
    Workload { kind: kind.to_string(), namespace: row.namespace.clone(), name: name.to_string() }
}

fn by_name<'a>(pod: &'a str, uid: &str, node: &str) -> (&'static str, &'a str) {
    // A hash for a UID: the kubelet made it of a file, called as the file is, with the node behind it.
    if !uid.is_empty() && !uid.contains('-') {
        return ("Pod", before(pod, node).unwrap_or(pod));
    }
    if let Some((set, ordinal)) = pod.rsplit_once('-')
        && !set.is_empty()
        && matches!(ordinal.len(), 1..GENERATED_LENGTH)
        && ordinal.bytes().all(|byte| byte.is_ascii_digit())
        && (ordinal == "0" || !ordinal.starts_with('0'))
    {
        return ("StatefulSet", set);
    }
    let Some((base, end)) = pod.split_at_checked(pod.len().saturating_sub(GENERATED_LENGTH)) else {
        return ("Pod", pod);
    };
    if !is_of(end, GENERATED) || base.is_empty() {
        return ("Pod", pod);
    }
    let is_cut = !base.ends_with('-');
    if is_cut && pod.len() != LONGEST {
        return ("Pod", pod);
    }
    let base = base.trim_end_matches('-');
    match base.rsplit_once('-') {
        Some((deployment, hash))
            if !deployment.is_empty() && is_of(hash, HASH) && (is_cut || HASH_LENGTH.contains(&hash.len())) =>
        {
            ("Deployment", deployment)
        }
        Some((cron_job, due))
            if !cron_job.is_empty() && due.parse().is_ok_and(|minutes| DUE_MINUTES.contains(&minutes)) =>
        {
            ("CronJob", cron_job)
        }
        _ => (SET_OR_JOB, base),
    }
}

/// What stands before `-END`.
fn before<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    text.strip_suffix(end)?.strip_suffix('-').filter(|name| !name.is_empty())
}

fn is_of(text: &str, letters: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letters.contains(letter))
}

#[cfg(test)]
mod tests {
    use kfr_bundle::kube::{KubeChange, KubeFact};
    use serde_json::json;

    use super::super::super::Process;
    use super::*;

    #[test]
    fn what_deploys_a_pod_shows_in_its_name() {
        let uid = "4311740f-47d9-46bf-ac88-de6e6448b2b0";
        let cases = [
            ("checkout-7cc89649d-bhsrk", "Deployment", "checkout"),
            ("shop-web-76566cf8df-qprp9", "Deployment", "shop-web"),
            ("mariadb-0", "StatefulSet", "mariadb"),
            ("kafka-broker-12", "StatefulSet", "kafka-broker"),
            ("report-29384756-x2x4z", "CronJob", "report"),
            ("node-agent-7z44p", SET_OR_JOB, "node-agent"),
            // 63 characters: the ReplicaSet's name was cut.
            ("a-name-of-a-deployment-that-is-longer-than-most-ones-are-7cbhsrk", "Pod", ""),
            ("a-name-of-a-deployment-that-is-longer-than-most-of-them-7cbhsrk", "Deployment", ""),
            // No vowels in what is generated, no zero before an ordinal.
            ("debug-shell", "Pod", "debug-shell"),
            ("web-007", "Pod", "web-007"),
            ("web", "Pod", "web"),
            ("bhsrk", "Pod", "bhsrk"),
            ("", "Pod", ""),
            ("-0", "Pod", "-0"),
            ("ä-ööööö", "Pod", "ä-ööööö"),
        ];
        for (pod, kind, name) in cases {
            let found = by_name(pod, uid, "node-1");
            assert_eq!(found.0, kind, "{pod}: {found:?}");
            assert!(name.is_empty() || found.1 == name, "{pod}: {found:?}");
        }
        assert_eq!(by_name(cases[7].0, uid, "").1, "a-name-of-a-deployment-that-is-longer-than-most-of-them");
        let hash = "9a1b2c3d4e5f60718293a4b5c6d7e8f9";
        assert_eq!(by_name("etcd-node-1", hash, "node-1"), ("Pod", "etcd"));
        assert_eq!(by_name("etcd-elsewhere-2", hash, "node-1"), ("Pod", "etcd-elsewhere-2"));
    }

    fn row(container: &str, uid: &str, name: &str) -> (u32, ContainerFact) {
        let text = str::to_string;
        let (container, pod, namespace, pod_name) = (text(container), text(uid), text("shop"), text(name));
        (0, ContainerFact { container, pod, namespace, pod_name, ..ContainerFact::default() })
    }

    fn process(container: &str, pod: &str) -> Process {
        Process { container: container.into(), pod: pod.into(), ..Process::default() }
    }

    fn named(kube: &Kube, process: &Process) -> Option<(String, String, bool)> {
        let pod = kube.pod(kube.pod_of_process(process)?)?;
        Some((pod.name.clone(), kube.workload_name(pod.workload).to_string(), pod.by_node))
    }

    #[test]
    fn pods_that_only_their_node_names_have_names_and_workloads() {
        let mut kube = Kube::default();
        let rows = [
            row("c1", "u-1", "api-7cc89649d-bhsrk"),
            row("c2", "u-1", "api-7cc89649d-bhsrk"),
            row("c3", "u-2", "api-7cc89649d-x2x4z"),
            row("", "u-3", "mariadb-0"),
            // Of this one only the log told, of that one nothing but its ids.
            row("c5", "", "mariadb-0"),
            row("c6", "u-6", ""),
        ];
        kube.add_node_names(&rows, |_| "node-1");
        let api = |pod: &str| Some((pod.to_string(), "shop/api".to_string(), true));
        assert_eq!(named(&kube, &process("c1", "u-1")), api("api-7cc89649d-bhsrk"));
        assert_eq!(named(&kube, &process("c2", "")), api("api-7cc89649d-bhsrk"));
        // Its pause container, or whatever else is in its cgroup.
        assert_eq!(named(&kube, &process("pause", "u-2")), api("api-7cc89649d-x2x4z"));
        assert_eq!(kube.pods.len(), 3);
        assert_eq!(named(&kube, &process("c5", "")), named(&kube, &process("", "u-3")));
        assert_eq!(named(&kube, &process("c6", "u-6")), None);
        assert_eq!(named(&kube, &process("", "")), None);
        assert_eq!(kube.pod(0).unwrap().node, "node-1");
    }

    #[test]
    fn what_the_api_said_stays() {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "agent-x2x4z", "uid": "u-1", "ownerReferences": [
                {"kind": "DaemonSet", "name": "agent", "uid": "ds", "controller": true}
            ]},
            "status": {"containerStatuses": [{"name": "a", "containerID": "containerd://c1"}]},
        });
        let fixed = json!({
            "metadata": {"namespace": "kube-system", "name": "etcd-node-1", "uid": "u-9",
                "annotations": {"kubernetes.io/config.hash": "9a1b2c3d4e5f60718293a4b5c6d7e8f9"}},
        });
        let rows = [object, fixed].map(|object| (0, KubeFact::new(1, KubeChange::Listed, 1, "Pod", &object).unwrap()));
        let mut kube = Kube::new(&super::super::objects::Objects::new(rows.into()), Vec::new());
        let facts = [
            row("sandbox", "u-1", "agent-x2x4z"),
            // Another pod of it, which the API was never asked for.
            row("c7", "u-7", "agent-7z44p"),
            row("c8", "9a1b2c3d4e5f60718293a4b5c6d7e8f9", "etcd-node-1"),
        ];
        kube.add_node_names(&facts, |_| "node-1");
        let known = |pod: &str, by_node| Some((pod.to_string(), "shop/agent".to_string(), by_node));
        assert_eq!(named(&kube, &process("sandbox", "")), known("agent-x2x4z", false));
        // An init container that ended long ago.
        assert_eq!(named(&kube, &process("earlier", "u-1")), known("agent-x2x4z", false));
        assert_eq!(named(&kube, &process("c7", "")), known("agent-7z44p", true));
        assert_eq!(
            named(&kube, &process("c8", "")).map(|found| (found.0, found.2)),
            Some(("etcd-node-1".into(), false))
        );
        assert_eq!(kube.pods.len(), 3);
    }
}
