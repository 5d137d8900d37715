//! What is created in a cluster: one Job a node.
//!
//! A Job, not a pod: `ttlSecondsAfterFinished` removes it, and its pod with it, even if the client died; a pod whose
//! deadline is over would stay behind. The pod is bound to its node by name, so no scheduler is needed, and neither does a
//! taint, a cordon or a broken pod network keep it away (`hostNetwork`).

use std::time::Duration;

use serde_json::{Value, json};

/// Capabilities of the recording container. docs/OPERATIONS.md says what each is for; a test compares the two.
pub const CAPABILITIES: [&str; 4] = ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"];

/// Label that all objects of KFR have, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kfr");
/// Label that all objects of one run have.
pub const RUN: &str = "app.kubernetes.io/instance";
/// Name of the container.
pub const CONTAINER: &str = "kfr";
/// The binary in the image.
pub const BINARY: &str = "/kfr";
/// Where the pod keeps its bundle.
pub const FOLDER: &str = "/data";

/// How long a finished Job stays.
const TTL_S: u64 = 60;
/// How much longer a pod waits to be told to begin than others may take to be ready.
const BEGIN_MARGIN: Duration = Duration::from_secs(60);
/// How long a pod may take to end.
const GRACE_S: u64 = 5;
/// Beside the bundle: what the recorder said, and a file that is not yet whole.
const FOLDER_SPARE_BYTES: u64 = 16 << 20;

/// What all nodes' Jobs have in common.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Namespace of the Jobs.
    pub namespace: String,
    /// Container image with [`BINARY`].
    pub image: String,
    /// Arguments of `kfr capture` on each node.
    pub arguments: Vec<String>,
    /// How long it records.
    pub duration: Duration,
    /// How long pods may take to be ready.
    pub ready_timeout: Duration,
    /// How long a bundle is kept to be fetched.
    pub hold: Duration,
    /// Size of a bundle at most, bytes.
    pub max_size: u64,
    /// The recorder's memory, bytes.
    pub max_memory: u64,
    /// The recorder's CPU, percent of one core.
    pub max_cpu_percent: u32,
    /// Run with all privileges instead of [`CAPABILITIES`].
    pub privileged: bool,
}

impl Recording {
    /// The Job of one node. Its name doesn't have the node's in it, which may be too long for one.
    pub fn job(&self, run: &str, number: usize, node: &str) -> Value {
        let labels = json!({
            MANAGED_BY.0: MANAGED_BY.1,
            "app.kubernetes.io/name": "kfr-capture",
            RUN: run,
        });
        let deadline = self.wait() + self.duration + self.hold;
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job_name(run, number), "namespace": self.namespace, "labels": labels},
            "spec": {
                "activeDeadlineSeconds": deadline.as_secs(),
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": TTL_S,
                "template": {
                    "metadata": {
                        "labels": labels,
                        // Before 1.30 there is no field for it.
                        "annotations": {format!("container.apparmor.security.beta.kubernetes.io/{CONTAINER}"): "unconfined"},
                    },
                    "spec": self.pod(node),
                },
            },
        })
    }

    fn pod(&self, node: &str) -> Value {
        json!({
            "nodeName": node,
            "hostPID": true,
            "hostNetwork": true,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE_S,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": CONTAINER,
                "image": self.image,
                "command": self.command(node),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "resources": self.resources(),
                "securityContext": security(self.privileged),
                "volumeMounts": [
                    {"name": "data", "mountPath": FOLDER},
                    {"name": "cgroup", "mountPath": "/sys/fs/cgroup", "readOnly": true},
                ],
            }],
            "volumes": [
                {"name": "data", "emptyDir": {"sizeLimit": (self.max_size + FOLDER_SPARE_BYTES).to_string()}},
                {"name": "cgroup", "hostPath": {"path": "/sys/fs/cgroup", "type": "Directory"}},
            ],
        })
    }

    fn wait(&self) -> Duration {
        self.ready_timeout + BEGIN_MARGIN
    }

    fn command(&self, node: &str) -> Vec<String> {
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        let fixed = ["node", "run", "--folder", FOLDER];
        let mut command: Vec<String> = [BINARY].into_iter().chain(fixed).map(str::to_string).collect();
        command.extend(["--wait".to_string(), seconds(self.wait()), "--hold".to_string(), seconds(self.hold)]);
        command.extend(["--".to_string(), "--node-name".to_string(), node.to_string()]);
        command.extend(self.arguments.iter().cloned());
        command
    }

    /// The recorder keeps below its own limits; these are for when it doesn't. At its CPU limit it would lose events, so
    /// that is far above.
    fn resources(&self) -> Value {
        json!({
            "requests": {"cpu": format!("{}m", u64::from(self.max_cpu_percent) * 10), "memory": self.max_memory.to_string()},
            "limits": {
                "cpu": format!("{}m", 1000.max(u64::from(self.max_cpu_percent) * 20)),
                // Kernel memory of the probes' maps and the page cache of the bundle count as the container's.
                "memory": (self.max_memory * 2).to_string(),
            },
        })
    }
}

/// The container's security context.
pub fn security(privileged: bool) -> Value {
    if privileged {
        return json!({"privileged": true, "runAsUser": 0, "runAsGroup": 0, "readOnlyRootFilesystem": true});
    }
    json!({
        // Capabilities of a container reach only root.
        "runAsUser": 0,
        "runAsGroup": 0,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": CAPABILITIES},
        // Default profiles of AppArmor and SELinux forbid looking at other processes or loading BPF whatever the
        // capabilities, and so do those of seccomp in older runtimes.
        "appArmorProfile": {"type": "Unconfined"},
        "seccompProfile": {"type": "Unconfined"},
        "seLinuxOptions": {"type": "spc_t"},
    })
}

/// A Job's name.
pub fn job_name(run: &str, number: usize) -> String {
    format!("kfr-{run}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::DaemonSet;
    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::core::v1::{Namespace, PodSpec, ServiceAccount};
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    fn recording() -> Recording {
        Recording {
            namespace: "kfr".to_string(),
            image: "registry.example/kfr:1".to_string(),
            arguments: vec!["--duration".to_string(), "60s".to_string()],
            duration: Duration::from_secs(60),
            ready_timeout: Duration::from_secs(120),
            hold: Duration::from_secs(600),
            max_size: 1 << 30,
            max_memory: 128 << 20,
            max_cpu_percent: 10,
            privileged: false,
        }
    }

    /// A misspelt field, or one of another type, would not come back.
    fn is_of_type<T: Serialize + DeserializeOwned>(object: &Value) {
        let read: T = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(&serde_json::to_value(read).unwrap(), object);
    }

    #[test]
    fn jobs_are_what_the_api_knows() {
        let node = format!("{}.example", "n".repeat(245));
        for privileged in [false, true] {
            let job = Recording { privileged, ..recording() }.job("0a1b2c3d", 4999, &node);
            is_of_type::<Job>(&job);
            assert!(job["metadata"]["name"].as_str().unwrap().len() <= 63);
            assert_eq!(job["spec"]["activeDeadlineSeconds"], 840);
            let container = &job["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["securityContext"]["privileged"].is_null(), !privileged);
            let command = container["command"].as_array().unwrap();
            assert!(command.contains(&Value::from(node.clone())) && command.contains(&Value::from("60s")));
        }
    }

    fn documents(text: &str) -> Vec<Value> {
        serde_saphyr::from_multiple::<Value>(text).unwrap()
    }

    #[test]
    fn the_manifests_are_what_the_api_knows_and_the_program_does() {
        let text = [
            include_str!("../../../deploy/clusterrole.yaml"),
            include_str!("../../../deploy/cluster-capture.yaml"),
            include_str!("../../../deploy/daemonset.yaml"),
        ];
        let mut daemon_sets = 0;
        for object in text.iter().flat_map(|text| documents(text)) {
            match object["kind"].as_str().unwrap() {
                "ClusterRole" => is_of_type::<ClusterRole>(&object),
                "ClusterRoleBinding" => is_of_type::<ClusterRoleBinding>(&object),
                "Role" => is_of_type::<Role>(&object),
                "RoleBinding" => is_of_type::<RoleBinding>(&object),
                "Namespace" => is_of_type::<Namespace>(&object),
                "ServiceAccount" => is_of_type::<ServiceAccount>(&object),
                "DaemonSet" => {
                    daemon_sets += 1;
                    is_of_type::<DaemonSet>(&object);
                    let pod = &object["spec"]["template"]["spec"];
                    is_of_type::<PodSpec>(pod);
                    assert_eq!(pod["containers"][0]["securityContext"], security(false));
                    for field in ["hostPID", "hostNetwork"] {
                        assert_eq!(pod[field], true);
                    }
                }
                other => panic!("{other} is not expected"),
            }
        }
        assert_eq!(daemon_sets, 1);
    }

    #[test]
    fn the_documentation_has_each_capability() {
        let text = include_str!("../../../docs/OPERATIONS.md");
        let granted: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| CAP_")?.split_once(" | yes | "))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(granted, CAPABILITIES);
    }
}
