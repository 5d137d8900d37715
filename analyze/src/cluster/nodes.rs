//! Nodes: where they are, and what happened to them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::change::{Change, ChangeKind, short};
use super::lifetimes::labels;
use crate::identity::{Life, Objects, read};

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Zone that it stands in (label `topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// Whether it was ready, as told last.
    pub ready: Option<bool>,
    /// Whether it takes no new pods.
    pub is_cordoned: bool,
    /// Conditions that hold and shouldn't: `MemoryPressure`.
    pub troubles: Vec<String>,
    /// What the kubelet says of it: `kubeletVersion`, `osImage`, `containerRuntimeVersion`.
    pub info: BTreeMap<String, String>,
}

/// All nodes, in the order of [`crate::identity::Kube`], and what happened to them.
pub fn nodes(objects: &Objects, changes: &mut Vec<Change>) -> Vec<Node> {
    let each = objects.of_kind("Node").map(|life| {
        tell(life, changes);
        node(life)
    });
    each.collect()
}

fn node(life: &Life) -> Node {
    let state = life.states.last().map_or(&Value::Null, |(_, state)| state);
    let conditions = read::list(state, &["status", "conditions"]).iter();
    let troubles = conditions.filter_map(|one| {
        let kind = read::text(one, &["type"]).filter(|kind| *kind != "Ready")?;
        (read::text(one, &["status"]) == Some("True")).then(|| short(kind, 60))
    });
    let ready = read::condition(state, "Ready").and_then(|one| read::text(one, &["status"]));
    let info = read::at(state, &["status", "nodeInfo"]).and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_string()));
    let labels = labels(state);
    let zone = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
    Node {
        name: life.name.clone(),
        zone: zone.into_iter().find_map(|label| labels.get(label)).cloned(),
        ready: ready.map(|status| status == "True"),
        is_cordoned: read::is(state, &["spec", "unschedulable"]),
        troubles: troubles.collect(),
        info: info.into_iter().flatten().filter_map(text).collect(),
    }
}

fn tell(life: &Life, changes: &mut Vec<Change>) {
    let mut add = |change: Change| changes.push(change);
    let at = |at_ns: u64, text: String| Change::new(at_ns, ChangeKind::Node, life.name.as_str(), text);
    if life.born_ns > 0 {
        add(at(life.born_ns, "joined the cluster".to_string()));
    }
    if let Some(gone_ns) = life.gone_ns {
        add(at(gone_ns, "left the cluster".to_string()).bad());
    }
    let mut before: Option<&Value> = None;
    for (from_ns, _, state) in life.spans() {
        let Some(old) = before.replace(state) else { continue };
        for condition in read::list(state, &["status", "conditions"]) {
            let Some(kind) = read::text(condition, &["type"]) else { continue };
            let status = read::text(condition, &["status"]).unwrap_or_default();
            let known = read::condition(old, kind).and_then(|one| read::text(one, &["status"]));
            if known.is_none_or(|known| known == status) {
                continue;
            }
            let at_ns = read::time_ns(condition, &["lastTransitionTime"]).unwrap_or(from_ns);
            let why = read::text(condition, &["message"]).or_else(|| read::text(condition, &["reason"]));
            let why = why.map_or_else(String::new, |why| format!(": {}", short(why, 160)));
            // `Ready` is good, every other condition is a trouble.
            let change = at(at_ns, format!("{} is {}{why}", short(kind, 60), short(status, 20)));
            add(if (kind == "Ready") == (status == "True") { change } else { change.bad() });
        }
        let cordoned = |node: &Value| read::is(node, &["spec", "unschedulable"]);
        if cordoned(old) != cordoned(state) {
            let what = if cordoned(state) { "cordoned: takes no new pods" } else { "takes new pods again" };
            add(at(from_ns, what.to_string()));
        }
        let taints = |node: &Value| -> Vec<String> {
            let taints = read::list(node, &["spec", "taints"]).iter();
            let text = |one| {
                format!(
                    "{}:{}",
                    read::text(one, &["key"]).unwrap_or_default(),
                    read::text(one, &["effect"]).unwrap_or_default()
                )
            };
            let mut taints: Vec<String> = taints.map(text).collect();
            taints.sort();
            taints
        };
        let (was, is) = (taints(old), taints(state));
        for taint in is.iter().filter(|taint| !was.contains(taint)) {
            add(at(from_ns, format!("tainted {}", short(taint, 120))).bad());
        }
        let version = |node| read::text(node, &["status", "nodeInfo", "kubeletVersion"]).map(str::to_string);
        if version(old) != version(state) {
            add(at(from_ns, format!("kubelet is {}", short(&version(state).unwrap_or_default(), 60))));
        }
        let boot = |node| read::text(node, &["status", "nodeInfo", "bootID"]).map(str::to_string);
        if boot(old) != boot(state) {
            add(at(from_ns, "was booted again".to_string()).bad());
        }
    }
}
