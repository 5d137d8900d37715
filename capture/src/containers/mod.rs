//! Names of pods and containers from what their node has on disk: no API, no runtime is asked.
//!
//! A runtime's state of a running container names it, its pod and image ([`runtime`]); where that can't be read, the
//! kubelet's log directories name pods and containers ([`kubelet`]). Of either only names are read: no environment, no
//! arguments, no line of a log.

mod kubelet;
mod runtime;

use std::path::Path;

use kfr_bundle::facts::ContainerFact;

use crate::cgroup::Member;
use crate::clock;

/// Longest name that Kubernetes allows, bytes (a DNS subdomain, RFC 1123); images are longer.
const MAX_NAME_BYTES: usize = 253;
const MAX_IMAGE_BYTES: usize = 512;

/// The names that one node's files tell.
#[derive(Debug)]
pub struct Names {
    runtimes: runtime::Runtimes,
    logs: kubelet::Logs,
}

impl Names {
    /// Those below a host's root directory.
    pub fn new(root: &Path) -> Self {
        Self { runtimes: runtime::Runtimes::new(root), logs: kubelet::Logs::new(root) }
    }

    /// What is known of a container, or, without a container's id, of a pod. `source` is empty if no file names it.
    pub fn look_up(&mut self, member: &Member) -> ContainerFact {
        let id = Some(&member.container).filter(|id| !id.is_empty());
        let state = id.and_then(|id| self.runtimes.container(id));
        let mut fact = state.or_else(|| self.logs.container(&member.container)).unwrap_or_default();
        fact.time_ns = clock::boottime_ns();
        fact.container = member.container.clone();
        if !member.pod.is_empty() {
            fact.pod = member.pod.clone();
        }
        if fact.pod_name.is_empty()
            && let Some((namespace, name)) = self.logs.pod(&fact.pod)
        {
            (fact.namespace, fact.pod_name) = (namespace, name);
            if fact.source.is_empty() {
                fact.source = kubelet::SOURCE.to_string();
            }
        }
        fact
    }
}

/// A name as it is kept: one that is longer than any can be is none.
fn name(text: &str) -> String {
    if text.len() <= MAX_NAME_BYTES { text.to_string() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use kfr_bundle::facts::ContainerKind;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use std::fs;

    use super::*;

    const UID: &str = "4311740f-47d9-46bf-ac88-de6e6448b2b0";

    fn id(digit: &str) -> String {
        digit.repeat(64)
    }

    fn host(files: &[(String, Value)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.to_string()).unwrap();
        }
        root
    }

    fn look_up(root: &TempDir, pod: &str, container: &str) -> ContainerFact {
        let member = Member { pod: pod.to_string(), container: container.to_string() };
        ContainerFact { time_ns: 0, ..Names::new(root.path()).look_up(&member) }
    }

    fn api(container: &str, source: &str) -> ContainerFact {
        let text = str::to_string;
        ContainerFact {
            container: text(container),
            pod: text(UID),
            namespace: text("shop"),
            pod_name: text("api-0"),
            name: text("api"),
            kind: ContainerKind::Container,
            image: text("registry.example/api:1"),
            source: text(source),
            ..ContainerFact::default()
        }
    }

    #[test]
    fn each_runtimes_files_name_container_pod_and_image() {
        let containerd = json!({"annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "api",
            "io.kubernetes.cri.image-name": "registry.example/api:1",
            "io.kubernetes.cri.sandbox-name": "api-0",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-uid": UID,
            "another": ["not", "a text"],
        }});
        let mut older = containerd.clone();
        older["annotations"].as_object_mut().unwrap().remove("io.kubernetes.cri.sandbox-uid");
        older["linux"] = json!({"cgroupsPath": format!("/kubepods/burstable/pod{UID}/{}", id("b"))});
        let cri_o = json!({"annotations": {
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.ImageName": "registry.example/api:1",
            "io.kubernetes.container.name": "api",
            "io.kubernetes.pod.name": "api-0",
            "io.kubernetes.pod.namespace": "shop",
            "io.kubernetes.pod.uid": UID,
        }});
        let mut sandbox = cri_o.clone();
        sandbox["annotations"]["io.kubernetes.cri-o.ContainerType"] = json!("sandbox");
        sandbox["annotations"]["io.kubernetes.container.name"] = json!("POD");
        let docker = json!({"Name": "/k8s_api_api-0", "Config": {"Image": "registry.example/api:1", "Labels": {
            "io.kubernetes.docker.type": "container",
            "io.kubernetes.container.name": "api",
            "io.kubernetes.pod.name": "api-0",
            "io.kubernetes.pod.namespace": "shop",
            "io.kubernetes.pod.uid": UID,
        }}});
        let alone = json!({"Name": "/shop-db-1", "Config": {"Image": "db:1", "Labels": null}});
        let task = |state: &str, id: &str| format!("{state}/io.containerd.runtime.v2.task/k8s.io/{id}/config.json");
        let overlay = |storage: &str, id: &str| format!("{storage}/overlay-containers/{id}/userdata/config.json");
        let root = host(&[
            (task("run/containerd", &id("a")), containerd),
            (task("run/k3s/containerd", &id("b")), older),
            (overlay("run/containers/storage", &id("c")), cri_o),
            (overlay("var/lib/containers/storage", &id("d")), sandbox),
            (format!("var/lib/docker/containers/{}/config.v2.json", id("e")), docker),
            (format!("var/lib/docker/containers/{}/config.v2.json", id("f")), alone),
        ]);
        for (digit, source) in [("a", "containerd"), ("b", "containerd"), ("c", "cri-o"), ("e", "docker")] {
            // Whether or not the cgroup tells the pod.
            assert_eq!(look_up(&root, UID, &id(digit)), api(&id(digit), source));
            assert_eq!(look_up(&root, "", &id(digit)), api(&id(digit), source));
        }
        let sandbox = look_up(&root, UID, &id("d"));
        assert_eq!((&*sandbox.name, &*sandbox.pod_name, sandbox.kind), ("", "api-0", ContainerKind::Sandbox));
        let alone = look_up(&root, "", &id("f"));
        assert_eq!((&*alone.name, &*alone.pod, &*alone.pod_name), ("shop-db-1", "", ""));
        assert_eq!(look_up(&root, "", &id("0")).source, "");
    }

    /// A process that is called as containerd's shim is, and works where it does.
    #[test]
    fn containerd_is_found_by_its_shims_wherever_its_state_is() {
        // SAFETY: asks for the user id, nothing else.
        if unsafe { libc::geteuid() } != 0 {
            println!("skipped: not root");
            return;
        }
        let state = "elsewhere/io.containerd.runtime.v2.task/k8s.io";
        let config = json!({"annotations": {
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-name": "api-0",
            "io.kubernetes.cri.sandbox-namespace": "shop",
        }});
        let root = host(&[(format!("{state}/{}/config.json", id("7")), config)]);
        let program = root.path().join("containerd-shim-runc-v2");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut names = Names::new(&root.path().join("nowhere"));
        let mut shim = std::process::Command::new(&program);
        let mut shim = shim.arg("60").current_dir(root.path().join(state).join(id("7"))).spawn().unwrap();
        // The kernel lets go of the parent before the child has its new name.
        let comm = || fs::read_to_string(format!("/proc/{}/comm", shim.id())).unwrap_or_default();
        while comm().trim_end() != "containerd-shim" {
            std::thread::yield_now();
        }
        let fact = names.look_up(&Member { pod: UID.to_string(), container: id("7") });
        shim.kill().unwrap();
        shim.wait().unwrap();
        assert_eq!((&*fact.pod_name, &*fact.pod, fact.kind), ("api-0", UID, ContainerKind::Sandbox));
    }

    #[test]
    fn where_no_runtime_can_be_read_the_logs_name_them() {
        let root = host(&[
            (format!("var/log/pods/shop_api-0_{UID}/api/0.log"), json!("")),
            (format!("var/log/containers/api-0_shop_api-{}.log", id("a")), json!("")),
        ]);
        let expected = ContainerFact { image: String::new(), ..api(&id("a"), "kubelet") };
        assert_eq!(look_up(&root, UID, &id("a")), expected);
        // A container without a log, and the pod's own cgroup.
        let nameless = |container: &str| ContainerFact {
            name: String::new(),
            kind: ContainerKind::Unknown,
            container: container.to_string(),
            ..expected.clone()
        };
        assert_eq!(look_up(&root, UID, &id("b")), nameless(&id("b")));
        assert_eq!(look_up(&root, UID, ""), nameless(""));
        assert_eq!(look_up(&root, "", &id("b")).source, "");
    }

    #[test]
    fn files_that_are_not_what_they_should_be_name_nothing() {
        let task = |id: &str| format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json");
        let long = json!({"annotations": {
            "io.kubernetes.cri.sandbox-name": "n".repeat(10_000),
            "io.kubernetes.cri.sandbox-namespace": "shop",
        }});
        let root = host(&[
            (task(&id("a")), json!([1, 2])),
            (task(&id("b")), json!({"annotations": "none"})),
            (task(&id("c")), long),
            (task(&format!("{}/inside", id("d"))), json!(0)),
        ]);
        fs::create_dir_all(root.path().join(task(&id("e")))).unwrap();
        let large = root.path().join(task(&id("f")));
        fs::create_dir_all(large.parent().unwrap()).unwrap();
        fs::File::create(large).unwrap().set_len(1 << 40).unwrap();
        for digit in ["a", "b", "d", "e", "f"] {
            assert_eq!(look_up(&root, UID, &id(digit)).source, "", "{digit}");
        }
        assert_eq!(look_up(&root, UID, &id("c")).pod_name, "");
    }
}
