//! The kubelet's log directories (Kubernetes documentation, "Logging Architecture"): `/var/log/pods/NAMESPACE_POD_UID/` of
//! each pod of the node, and a link `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` for each container.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kfr_bundle::facts::{ContainerFact, ContainerKind};

use super::name;
use crate::cgroup::is_container_id;

/// What a fact from here is known by.
pub const SOURCE: &str = "kubelet";

/// Entries of a directory that are read at most. A node has some hundred pods.
const MAX_ENTRIES: usize = 1 << 14;
/// Directories are not read more often, however many containers ask for what isn't there.
const READ_EVERY: Duration = Duration::from_millis(50);

/// What the directories name.
#[derive(Debug)]
pub struct Logs {
    pods_folder: PathBuf,
    containers_folder: PathBuf,
    /// Namespace and name by UID.
    pods: BTreeMap<String, (String, String)>,
    /// By id.
    containers: BTreeMap<String, ContainerFact>,
    read: Option<Instant>,
}

impl Logs {
    /// Those below a host's root directory.
    pub fn new(root: &Path) -> Self {
        Self {
            pods_folder: root.join("var/log/pods"),
            containers_folder: root.join("var/log/containers"),
            pods: BTreeMap::new(),
            containers: BTreeMap::new(),
            read: None,
        }
    }

    /// Namespace and name of a pod.
    pub fn pod(&mut self, uid: &str) -> Option<(String, String)> {
        if !uid.is_empty() && !self.pods.contains_key(uid) {
            self.read();
        }
        self.pods.get(uid).cloned()
    }

    /// A container.
    pub fn container(&mut self, id: &str) -> Option<ContainerFact> {
        if !id.is_empty() && !self.containers.contains_key(id) {
            self.read();
        }
        self.containers.get(id).cloned()
    }

    fn read(&mut self) {
        if self.read.is_some_and(|read| read.elapsed() < READ_EVERY) {
            return;
        }
        self.pods = names_in(&self.pods_folder).filter_map(|entry| pod(&entry)).collect();
        self.containers = names_in(&self.containers_folder).filter_map(|entry| container(&entry)).collect();
        self.read = Some(Instant::now());
    }
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MAX_ENTRIES);
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

/// Names in Kubernetes have no underscore.
fn three(text: &str) -> Option<[&str; 3]> {
    let mut parts = text.split('_');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    (parts.next().is_none() && three.iter().all(|part| !part.is_empty())).then_some(three)
}

fn pod(entry: &str) -> Option<(String, (String, String))> {
    let [namespace, pod, uid] = three(entry)?;
    Some((uid.to_string(), (name(namespace), name(pod))))
}

fn container(entry: &str) -> Option<(String, ContainerFact)> {
    let (names, id) = entry.strip_suffix(".log")?.rsplit_once('-')?;
    let [pod, namespace, container] = three(names).filter(|_| is_container_id(id))?;
    let fact = ContainerFact {
        namespace: name(namespace),
        pod_name: name(pod),
        name: name(container),
        // A sandbox has no log.
        kind: ContainerKind::Container,
        source: SOURCE.to_string(),
        ..ContainerFact::default()
    };
    Some((id.to_string(), fact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_off_and_what_is_none_is_passed_over() {
        let found = |uid: &str, namespace: &str, name: &str| Some((uid.into(), (namespace.into(), name.into())));
        assert_eq!(pod("shop_api-5d9c-x2x4z_0a1b"), found("0a1b", "shop", "api-5d9c-x2x4z"));
        assert_eq!(pod("shop_web.v2_0a1b"), found("0a1b", "shop", "web.v2"));
        for strange in ["", "shop", "shop_api", "_api_0a1b", "a_b_c_d", "shop_api_"] {
            assert_eq!(pod(strange), None, "{strange}");
        }
        let id = "ab".repeat(32);
        let (known, fact) = container(&format!("api-5d9c-x2x4z_shop_side-car-{id}.log")).unwrap();
        assert_eq!(known, id);
        assert_eq!((&*fact.namespace, &*fact.pod_name, &*fact.name), ("shop", "api-5d9c-x2x4z", "side-car"));
        for strange in
            [format!("api_shop_c-{id}"), format!("api_shop-{id}.log"), "api_shop_c-ab.log".into(), "-".into()]
        {
            assert!(container(&strange).is_none(), "{strange}");
        }
    }
}
