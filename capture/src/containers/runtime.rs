//! What runtimes keep on disk of each container that runs: containerd and CRI-O its OCI configuration with annotations for
//! Kubernetes, Docker labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kfr_bundle::facts::{ContainerFact, ContainerKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{MAX_IMAGE_BYTES, name};
use crate::cgroup::{Cgroups, Member};

/// Where containerd keeps its state, unless it is told otherwise: by itself, and in k3s (RKE2), k0s and MicroK8s.
const CONTAINERD: [&str; 4] =
    ["run/containerd", "run/k3s/containerd", "run/k0s/containerd", "var/snap/microk8s/common/run/containerd"];
/// ... and CRI-O (containers/storage), of what runs and of what it can start again.
const CRI_O: [&str; 2] = ["run/containers/storage", "var/lib/containers/storage"];
const DOCKER: &str = "var/lib/docker";

/// Largest file that is read: configurations have some ten KiB.
const MAX_BYTES: u64 = 4 << 20;

/// The folder of containerd's state with one of Kubernetes' containers each.
const TASKS: &str = "io.containerd.runtime.v2.task/k8s.io";
/// The process that holds a pod's containers for containerd. It works in the folder of one of them.
const SHIM: &str = "containerd-shim";
/// Folders of containerd's that are looked into: there is one a node, also of nodes that are containers.
const MAX_FOLDERS: usize = 16;
/// All processes are looked through for shims at most so often.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// A node's runtimes, by their files.
#[derive(Debug)]
pub struct Runtimes {
    root: PathBuf,
    /// Folders of containerd's state elsewhere, as its shims show them.
    folders: Vec<PathBuf>,
    searched: Option<Instant>,
}

impl Runtimes {
    /// Those below a host's root directory, and wherever containerd keeps its state.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), folders: Vec::new(), searched: None }
    }

    /// Reads what a runtime says of a container, by its id of 64 hex digits; `None` if none knows it.
    pub fn container(&mut self, id: &str) -> Option<ContainerFact> {
        let containerd =
            |folder: &Path| json(&folder.join(id).join("config.json")).and_then(|spec| of_containerd(&spec));
        let cri_o = |storage: &&str| {
            let folder = self.root.join(storage).join("overlay-containers").join(id);
            json(&folder.join("userdata/config.json")).and_then(|spec| of_cri_o(&spec))
        };
        let docker = || {
            let folder = self.root.join(DOCKER).join("containers").join(id);
            json(&folder.join("config.v2.json")).map(|container| of_docker(&container))
        };
        let usual = CONTAINERD.iter().find_map(|state| containerd(&self.root.join(state).join(TASKS)));
        let found = usual.or_else(|| CRI_O.iter().find_map(cri_o)).or_else(docker);
        let found = found.or_else(|| self.folders.iter().find_map(|folder| containerd(folder)));
        if found.is_some() || self.searched.is_some_and(|searched| searched.elapsed() < SEARCH_EVERY) {
            return found;
        }
        self.searched = Some(Instant::now());
        self.folders = folders_of_shims();
        self.folders.iter().find_map(|folder| containerd(folder))
    }
}

/// Where shims work: `/proc/PID/cwd/..` leads there also from another mount namespace. Not of processes in pods, or of
/// others than root: they could call themselves anything.
fn folders_of_shims() -> Vec<PathBuf> {
    let (mut folders, mut known) = (Vec::new(), BTreeSet::new());
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        let own = PathBuf::from(format!("/proc/{}", process.pid));
        let is_shim = fs::read_to_string(own.join("comm")).is_ok_and(|comm| comm.trim_end() == SHIM);
        if !is_shim || process.uid().ok() != Some(0) {
            continue;
        }
        let cgroups = Cgroups::read(&fs::read_to_string(own.join("cgroup")).unwrap_or_default());
        let folder = own.join("cwd/..");
        if cgroups.member.pod.is_empty()
            && let Ok(metadata) = folder.metadata()
            && known.insert((metadata.dev(), metadata.ino()))
        {
            folders.push(folder);
        }
        if folders.len() == MAX_FOLDERS {
            break;
        }
    }
    folders
}

/// A file's content; `None` if it isn't there, is too large, or is something else.
fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    // Anything but a file could wait for ever when opened.
    let length = path.metadata().ok().filter(|metadata| metadata.is_file())?.len();
    if length > MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Texts by key; whatever else stands there is passed over.
type Texts = BTreeMap<String, Value>;

fn text<'a>(texts: &'a Texts, key: &str) -> &'a str {
    texts.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn image(text: &str) -> String {
    if text.len() <= MAX_IMAGE_BYTES { text.to_string() } else { String::new() }
}

/// The part of an OCI runtime configuration (config.json) that is read: no environment, no arguments.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    annotations: Texts,
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    cgroups_path: String,
}

/// Annotations of containerd's CRI plugin (pkg/cri/annotations).
fn of_containerd(spec: &Spec) -> Option<ContainerFact> {
    let of = |key: &str| text(&spec.annotations, &format!("io.kubernetes.cri.{key}"));
    if of("sandbox-name").is_empty() {
        return None;
    }
    Some(ContainerFact {
        // Older versions have no annotation for it.
        pod: match of("sandbox-uid") {
            "" => Member::of_path(&spec.linux.cgroups_path).pod,
            uid => name(uid),
        },
        namespace: name(of("sandbox-namespace")),
        pod_name: name(of("sandbox-name")),
        name: name(of("container-name")),
        kind: kind(of("container-type"), "sandbox"),
        image: image(of("image-name")),
        source: "containerd".to_string(),
        ..ContainerFact::default()
    })
}

/// Annotations of CRI-O, and those that the kubelet gives every runtime.
fn of_cri_o(spec: &Spec) -> Option<ContainerFact> {
    let of = |key: &str| text(&spec.annotations, key);
    if of("io.kubernetes.pod.name").is_empty() {
        return None;
    }
    let kind = kind(of("io.kubernetes.cri-o.ContainerType"), "sandbox");
    Some(ContainerFact {
        name: if kind == ContainerKind::Sandbox { String::new() } else { name(of("io.kubernetes.container.name")) },
        pod: name(of("io.kubernetes.pod.uid")),
        namespace: name(of("io.kubernetes.pod.namespace")),
        pod_name: name(of("io.kubernetes.pod.name")),
        kind,
        image: image(of("io.kubernetes.cri-o.ImageName")),
        source: "cri-o".to_string(),
        ..ContainerFact::default()
    })
}

/// The part of Docker's config.v2.json that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerContainer {
    /// `/shop-db-1`.
    name: String,
    config: DockerConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerConfig {
    image: String,
    /// `null` where there are none.
    labels: Option<Texts>,
}

/// Labels of the kubelet's and of cri-dockerd; without them it is a container of its own.
fn of_docker(container: &DockerContainer) -> ContainerFact {
    let of = |key: &str| container.config.labels.as_ref().map_or("", |labels| text(labels, key));
    let in_pod = !of("io.kubernetes.pod.name").is_empty();
    let kind = if in_pod { kind(of("io.kubernetes.docker.type"), "podsandbox") } else { ContainerKind::Container };
    let own = if in_pod { of("io.kubernetes.container.name") } else { container.name.trim_start_matches('/') };
    ContainerFact {
        name: if kind == ContainerKind::Sandbox { String::new() } else { name(own) },
        pod: name(of("io.kubernetes.pod.uid")),
        namespace: name(of("io.kubernetes.pod.namespace")),
        pod_name: name(of("io.kubernetes.pod.name")),
        kind,
        image: image(&container.config.image),
        source: "docker".to_string(),
        ..ContainerFact::default()
    }
}

fn kind(text: &str, sandbox: &str) -> ContainerKind {
    match text {
        "container" => ContainerKind::Container,
        other if other == sandbox => ContainerKind::Sandbox,
        _ => ContainerKind::Unknown,
    }
}
