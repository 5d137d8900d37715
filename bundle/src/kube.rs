//! Kubernetes objects and their changes: rows of [`crate::BlockKind::KUBE`] blocks.
//!
//! Objects keep the API's own JSON shape, of which only what is named here is kept: what tells who is who, what state it
//! is in, and what was changed. Everything else never reaches the disk: literal values of environment variables, commands
//! and their arguments, data of ConfigMaps, annotations, `managedFields`, whatever a later API adds. Secrets have no kind
//! here. `docs/OPERATIONS.md` lists what is collected.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Levels of an object that are kept, where all of a part is: real ones have 12. Below [`crate::maps`]' bound on nesting,
/// so that no object makes its block unreadable.
const MAX_DEPTH: usize = 16;

/// What a row says of an object, or of all of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KubeChange {
    /// It was in a list.
    Listed,
    /// The list of this kind is complete: what is not in it doesn't exist. The row has no name and no object.
    Complete,
    /// A watch said that it is new.
    Added,
    /// A watch said that it has changed.
    Modified,
    /// A watch said that it is gone; the object is its last state.
    Deleted,
    /// From here on changes of this kind were not seen. The row has no name and no object; `reason` says why.
    Blind,
    /// From here on they were seen again. The row has no name and no object.
    Seeing,
    /// A row of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A row of a [`crate::BlockKind::KUBE`] block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubeFact {
    /// When the recorder learned of it; for imports, when it was, as far as the object tells. Event time, ns.
    pub time_ns: u64,
    /// What happened.
    pub change: KubeChange,
    /// Number of the list that it is from; 0 for changes that a watch told. A list is told from the next one by it.
    pub list: u32,
    /// `Pod`, `Service`, ...
    pub kind: String,
    /// Namespace; empty where the kind has none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique in the cluster's life; a new object under an old name has another one.
    pub uid: String,
    /// The API server's number of this state.
    pub resource_version: String,
    /// What is kept of the object; `None` where the row is about a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Value>,
    /// Why the changes were not seen; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl KubeFact {
    /// A row about one object, of which only what may be kept is. `None` if the kind is none of those recorded, or it has
    /// no name.
    pub fn new(time_ns: u64, change: KubeChange, list: u32, kind: &str, object: &Value) -> Option<Self> {
        let (kind, keep) = KINDS.iter().find(|(name, _)| *name == kind)?;
        Self::kept(time_ns, change, list, kind, keep, object)
    }

    /// The same of a pod on another node: only what names and addresses need is kept.
    pub fn pod_elsewhere(time_ns: u64, change: KubeChange, list: u32, object: &Value) -> Option<Self> {
        Self::kept(time_ns, change, list, "Pod", POD_ELSEWHERE, object)
    }

    fn kept(
        time_ns: u64,
        change: KubeChange,
        list: u32,
        kind: &str,
        keep: &'static [(&'static str, Keep)],
        object: &Value,
    ) -> Option<Self> {
        let metadata = object.get("metadata")?;
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let name = text("name");
        if name.is_empty() {
            return None;
        }
        Some(Self {
            time_ns,
            change,
            list,
            kind: kind.to_string(),
            namespace: text("namespace"),
            name,
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            object: Some(Fields(keep).of(object, MAX_DEPTH)),
            reason: String::new(),
        })
    }

    /// A row about all objects of a kind.
    pub fn of_kind(time_ns: u64, change: KubeChange, list: u32, kind: &str, reason: &str) -> Self {
        Self { time_ns, change, list, kind: kind.to_string(), reason: reason.to_string(), ..Self::default() }
    }
}

/// The kinds that are recorded, as a list or watch of the API names them.
pub fn recorded_kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

/// What is kept of a value. Of an array, it is kept of each element.
enum Keep {
    /// All of it.
    All,
    /// The object's fields of these names.
    Fields(&'static [(&'static str, Keep)]),
    /// The object's fields of these names, whole. Shorter to write than `Fields`.
    Names(&'static [&'static str]),
}

impl Keep {
    fn of(&self, value: &Value, depth: usize) -> Value {
        let Some(depth) = depth.checked_sub(1) else { return Value::Null };
        let kept = |keep: &Keep, name: &str, value: &Value| (name.to_string(), keep.of(value, depth));
        match value {
            Value::Array(values) => Value::Array(values.iter().map(|value| self.of(value, depth)).collect()),
            Value::Object(fields) => Value::Object(match self {
                All => fields.iter().map(|(name, value)| kept(&All, name, value)).collect(),
                Names(names) => names.iter().filter_map(|name| Some(kept(&All, name, fields.get(*name)?))).collect(),
                Fields(names) => {
                    let fields = names.iter().filter_map(|(name, keep)| Some((name, keep, fields.get(*name)?)));
                    fields.map(|(name, keep, value)| kept(keep, name, value)).collect::<Map<_, _>>()
                }
            }),
            // A field that should have parts and is something else is not what it seems.
            _ if matches!(self, All) => value.clone(),
            _ => Value::Null,
        }
    }
}

use Keep::{All, Fields, Names};

/// Annotations are free text, often whole configurations: those of Kubernetes itself that say what happened.
const ANNOTATIONS: Keep = Names(&[
    "deployment.kubernetes.io/revision",
    "kubectl.kubernetes.io/restartedAt",
    "kubernetes.io/config.hash",
    "kubernetes.io/config.mirror",
    "kubernetes.io/config.source",
]);

const METADATA: (&str, Keep) = (
    "metadata",
    Fields(&[
        ("name", All),
        ("namespace", All),
        ("uid", All),
        ("resourceVersion", All),
        ("generation", All),
        ("creationTimestamp", All),
        ("deletionTimestamp", All),
        ("deletionGracePeriodSeconds", All),
        ("labels", All),
        ("ownerReferences", Names(&["apiVersion", "kind", "name", "uid", "controller"])),
        ("annotations", ANNOTATIONS),
    ]),
);

/// Timings and target; a command to run may hold anything.
const PROBE: Keep = Fields(&[
    ("httpGet", Names(&["path", "port", "scheme"])),
    ("tcpSocket", Names(&["port"])),
    ("grpc", Names(&["port", "service"])),
    ("initialDelaySeconds", All),
    ("periodSeconds", All),
    ("timeoutSeconds", All),
    ("failureThreshold", All),
    ("successThreshold", All),
]);

const CONTAINERS: Keep = Fields(&[
    ("name", All),
    ("image", All),
    ("ports", All),
    ("resources", Names(&["limits", "requests"])),
    ("restartPolicy", All),
    ("env", Fields(&[("name", All), ("valueFrom", ENV_SOURCE)])),
    ("envFrom", Fields(&[("prefix", All), ("configMapRef", Names(&["name"])), ("secretRef", Names(&["name"]))])),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
    ("startupProbe", PROBE),
]);

/// Where a value comes from, not the value.
const ENV_SOURCE: Keep = Fields(&[
    ("fieldRef", Names(&["fieldPath"])),
    ("resourceFieldRef", Names(&["resource"])),
    ("configMapKeyRef", Names(&["name", "key"])),
    ("secretKeyRef", Names(&["name", "key"])),
]);

const POD_SPEC: &[(&str, Keep)] = &[
    ("nodeName", All),
    ("hostNetwork", All),
    ("hostPID", All),
    ("priorityClassName", All),
    ("priority", All),
    ("restartPolicy", All),
    ("schedulerName", All),
    ("serviceAccountName", All),
    ("nodeSelector", All),
    ("terminationGracePeriodSeconds", All),
    ("containers", CONTAINERS),
    ("initContainers", CONTAINERS),
    ("ephemeralContainers", CONTAINERS),
    (
        "volumes",
        Fields(&[
            ("name", All),
            ("configMap", Names(&["name"])),
            ("secret", Names(&["secretName"])),
            ("persistentVolumeClaim", Names(&["claimName"])),
        ]),
    ),
];

/// What ended a container may have a message: the last lines that it printed.
const CONTAINER_STATE: Keep = Fields(&[
    ("waiting", Names(&["reason", "message"])),
    ("running", Names(&["startedAt"])),
    ("terminated", Names(&["exitCode", "signal", "reason", "startedAt", "finishedAt", "containerID"])),
]);

const CONTAINER_STATUSES: Keep = Fields(&[
    ("name", All),
    ("containerID", All),
    ("image", All),
    ("imageID", All),
    ("ready", All),
    ("started", All),
    ("restartCount", All),
    ("state", CONTAINER_STATE),
    ("lastState", CONTAINER_STATE),
]);

const POD_STATUS: Keep = Fields(&[
    ("phase", All),
    ("reason", All),
    ("message", All),
    ("podIP", All),
    ("podIPs", All),
    ("hostIP", All),
    ("hostIPs", All),
    ("startTime", All),
    ("qosClass", All),
    ("nominatedNodeName", All),
    ("conditions", All),
    ("containerStatuses", CONTAINER_STATUSES),
    ("initContainerStatuses", CONTAINER_STATUSES),
    ("ephemeralContainerStatuses", CONTAINER_STATUSES),
]);

/// Of pods that another node's recording has in full.
const POD_ELSEWHERE: &[(&str, Keep)] = &[
    METADATA,
    ("spec", Names(&["nodeName", "hostNetwork"])),
    (
        "status",
        Fields(&[
            ("phase", All),
            ("podIP", All),
            ("podIPs", All),
            ("hostIP", All),
            ("startTime", All),
            ("conditions", Names(&["type", "status", "lastTransitionTime"])),
            (
                "containerStatuses",
                Fields(&[("name", All), ("ready", All), ("restartCount", All), ("state", CONTAINER_STATE)]),
            ),
        ]),
    ),
];

/// What pods are made from.
const TEMPLATE: Keep =
    Fields(&[("metadata", Fields(&[("labels", All), ("annotations", ANNOTATIONS)])), ("spec", Fields(POD_SPEC))]);

const WORKLOAD: &[(&str, Keep)] = &[
    METADATA,
    (
        "spec",
        Fields(&[
            ("replicas", All),
            ("selector", All),
            ("strategy", All),
            ("updateStrategy", All),
            ("minReadySeconds", All),
            ("progressDeadlineSeconds", All),
            ("paused", All),
            ("serviceName", All),
            ("parallelism", All),
            ("completions", All),
            ("backoffLimit", All),
            ("activeDeadlineSeconds", All),
            ("suspend", All),
            ("template", TEMPLATE),
        ]),
    ),
    ("status", All),
];

const SPEC_AND_STATUS: &[(&str, Keep)] = &[METADATA, ("spec", All), ("status", All)];

const REFERENCE: Keep = Names(&["apiVersion", "kind", "namespace", "name", "uid", "fieldPath"]);

/// Every kind that is recorded, and what is kept of its objects.
const KINDS: &[(&str, &[(&str, Keep)])] = &[
    (
        "Node",
        &[
            METADATA,
            ("spec", Names(&["podCIDR", "podCIDRs", "providerID", "unschedulable", "taints"])),
            ("status", Names(&["addresses", "allocatable", "capacity", "conditions", "nodeInfo"])),
        ],
    ),
    ("Namespace", &[METADATA, ("status", Names(&["phase"]))]),
    ("Pod", &[METADATA, ("spec", Fields(POD_SPEC)), ("status", POD_STATUS)]),
    ("Service", SPEC_AND_STATUS),
    (
        "EndpointSlice",
        &[
            METADATA,
            ("addressType", All),
            (
                "endpoints",
                Fields(&[
                    ("addresses", All),
                    ("conditions", All),
                    ("hostname", All),
                    ("nodeName", All),
                    ("zone", All),
                    ("targetRef", REFERENCE),
                ]),
            ),
            ("ports", All),
        ],
    ),
    ("Deployment", WORKLOAD),
    ("ReplicaSet", WORKLOAD),
    ("StatefulSet", WORKLOAD),
    ("DaemonSet", WORKLOAD),
    ("Job", WORKLOAD),
    (
        "CronJob",
        &[
            METADATA,
            ("spec", Names(&["schedule", "timeZone", "suspend", "concurrencyPolicy"])),
            ("status", Names(&["active", "lastScheduleTime", "lastSuccessfulTime"])),
        ],
    ),
    ("HorizontalPodAutoscaler", SPEC_AND_STATUS),
    ("PodDisruptionBudget", SPEC_AND_STATUS),
    (
        "PersistentVolumeClaim",
        &[
            METADATA,
            ("spec", Names(&["accessModes", "resources", "storageClassName", "volumeMode", "volumeName"])),
            ("status", Names(&["phase", "capacity", "conditions"])),
        ],
    ),
    ("Ingress", &[METADATA, ("spec", Names(&["ingressClassName", "defaultBackend", "rules"])), ("status", All)]),
    ("NetworkPolicy", &[METADATA, ("spec", All)]),
    // Its metadata only: the data may be anything.
    ("ConfigMap", &[METADATA]),
    (
        "Event",
        &[
            METADATA,
            ("type", All),
            ("reason", All),
            ("message", All),
            ("note", All),
            ("action", All),
            ("count", All),
            ("series", All),
            ("firstTimestamp", All),
            ("lastTimestamp", All),
            ("eventTime", All),
            ("deprecatedCount", All),
            ("deprecatedFirstTimestamp", All),
            ("deprecatedLastTimestamp", All),
            ("involvedObject", REFERENCE),
            ("regarding", REFERENCE),
            ("related", REFERENCE),
            ("source", Names(&["component", "host"])),
            ("reportingComponent", All),
            ("reportingController", All),
            ("reportingInstance", All),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MapWriter, decode_maps};
    use serde_json::json;

    fn pod() -> Value {
        json!({
            "kind": "Pod",
            "metadata": {
                "name": "api-1", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
                "labels": {"app": "api"},
                "annotations": {"example.com/password": "hunter2", "kubernetes.io/config.source": "file"},
                "managedFields": [{"manager": "kubelet"}],
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{
                    "name": "api", "image": "api:1.4", "command": ["api", "--token=hunter2"], "args": ["hunter2"],
                    "env": [
                        {"name": "PASSWORD", "value": "hunter2"},
                        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k", "x": "hunter2"}}},
                    ],
                    "livenessProbe": {"exec": {"command": ["hunter2"]}, "httpGet":
                        {"path": "/", "port": 80, "httpHeaders": [{"name": "A", "value": "hunter2"}]}},
                    "lifecycle": {"preStop": {"exec": {"command": ["hunter2"]}}},
                }],
            },
            "status": {
                "podIP": "10.0.0.1",
                "containerStatuses": [{"name": "api", "state": {"terminated": {"exitCode": 1, "message": "hunter2"}}}],
            },
        })
    }

    #[test]
    fn values_never_reach_the_disk() {
        let fact = KubeFact::new(5, KubeChange::Listed, 1, "Pod", &pod()).unwrap();
        assert_eq!((&*fact.namespace, &*fact.name, &*fact.uid, &*fact.resource_version), ("shop", "api-1", "u1", "7"));
        let text = serde_json::to_string(&fact).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("managedFields"), "{text}");
        let object = fact.object.unwrap();
        assert_eq!(object["metadata"]["annotations"], json!({"kubernetes.io/config.source": "file"}));
        let container = &object["spec"]["containers"][0];
        assert_eq!(container["env"][0], json!({"name": "PASSWORD"}));
        assert_eq!(container["env"][1]["valueFrom"]["secretKeyRef"], json!({"name": "keys", "key": "k"}));
        assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/", "port": 80}));
        assert_eq!(object["status"]["containerStatuses"][0]["state"]["terminated"], json!({"exitCode": 1}));
    }

    #[test]
    fn a_secret_and_a_thing_without_a_name_are_no_rows() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aHVudGVyMg=="}});
        assert!(KubeFact::new(0, KubeChange::Listed, 1, "Secret", &secret).is_none());
        assert!(KubeFact::new(0, KubeChange::Listed, 1, "Pod", &json!({"metadata": {}})).is_none());
        assert!(KubeFact::new(0, KubeChange::Listed, 1, "Pod", &json!([])).is_none());
        let map = json!({"metadata": {"name": "m"}, "data": {"k": "hunter2"}});
        let kept = KubeFact::new(0, KubeChange::Listed, 1, "ConfigMap", &map).unwrap();
        assert_eq!(kept.object, Some(json!({"metadata": {"name": "m"}})));
    }

    /// One object can't make the others of its block unreadable.
    #[test]
    fn an_object_of_any_depth_comes_back() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({"a": [deep]});
        }
        let node = json!({"metadata": {"name": "n", "labels": deep}});
        let mut rows = MapWriter::new();
        for object in [&node, &pod()] {
            let kind = if object["kind"] == "Pod" { "Pod" } else { "Node" };
            rows.push(&KubeFact::new(1, KubeChange::Added, 0, kind, object).unwrap()).unwrap();
        }
        let maps = decode_maps::<KubeFact>(&rows.encode()).unwrap();
        assert_eq!((maps.rows.len(), maps.malformed), (2, 0));
        assert_eq!(maps.rows[1].1, KubeFact::new(1, KubeChange::Added, 0, "Pod", &pod()).unwrap());
    }

    #[test]
    fn a_change_of_a_later_version_is_no_error() {
        let mut rows = MapWriter::new();
        rows.push(&json!({"change": "moved", "kind": "Pod", "more": 1})).unwrap();
        let maps = decode_maps::<KubeFact>(&rows.encode()).unwrap();
        assert_eq!((maps.malformed, maps.rows[0].1.change), (0, KubeChange::Unknown));
    }
}
