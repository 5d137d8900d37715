//! What is different between two pod templates.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::identity::read;

/// Differences that are named; the rest is counted.
const MOST: usize = 6;

/// The containers of a template (`spec` of a pod or of a template), init containers first.
pub fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|field| read::list(spec, &[field]).iter().map(move |container| (field, container)))
}

/// Images by container, those of init containers last.
pub fn images(template: &Value) -> Vec<(String, String)> {
    let spec = template.get("spec").unwrap_or(&Value::Null);
    let mut found: Vec<_> = containers(spec)
        .filter_map(|(field, one)| {
            let (name, image) = (read::text(one, &["name"])?, read::text(one, &["image"])?);
            Some((field == "initContainers", (name.to_string(), image.to_string())))
        })
        .collect();
    found.sort_by_key(|(is_init, _)| *is_init);
    found.into_iter().map(|(_, image)| image).collect()
}

/// An image without its registry and folders: `api:1.4.0`.
pub fn short_image(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

/// What was changed from one pod template to another, in words: images first.
///
/// Commands, arguments and values of environment variables are not recorded: where nothing else differs, the difference is
/// among these.
pub fn between(old: &Value, new: &Value) -> String {
    let mut found = Vec::new();
    let (old_spec, new_spec) = (old.get("spec").unwrap_or(&Value::Null), new.get("spec").unwrap_or(&Value::Null));
    let named = |spec| {
        let all = containers(spec).filter_map(|(_, one)| Some((read::text(one, &["name"])?, one)));
        all.collect::<BTreeMap<&str, &Value>>()
    };
    let (before, after) = (named(old_spec), named(new_spec));
    for (name, container) in &after {
        match before.get(name) {
            None => found.push(format!("container {name} added")),
            Some(old) => {
                let image = |one| read::text(one, &["image"]).unwrap_or_default();
                if image(old) != image(container) {
                    let (from, to) = (short_image(image(old)), short_image(image(container)));
                    found.insert(
                        0,
                        if from == to {
                            format!("{name}: image of another registry")
                        } else {
                            format!("{from} → {to}")
                        },
                    );
                }
            }
        }
    }
    found.extend(
        before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("container {name} removed")),
    );
    for (name, container) in &after {
        let Some(old) = before.get(name) else { continue };
        for (field, what) in [
            ("resources", "resources"),
            ("ports", "ports"),
            ("env", "environment"),
            ("envFrom", "environment"),
            ("livenessProbe", "liveness probe"),
            ("readinessProbe", "readiness probe"),
            ("startupProbe", "startup probe"),
        ] {
            if old.get(field) != container.get(field) {
                found.push(match field {
                    "resources" => format!("{name}: {}", resources(old, container)),
                    _ => format!("{name}: {what}"),
                });
            }
        }
    }
    let restarted = |template: &Value| {
        read::text(template, &["metadata", "annotations", "kubectl.kubernetes.io/restartedAt"]).map(str::to_string)
    };
    if restarted(old) != restarted(new) {
        found.push("restart asked for".to_string());
    }
    for (field, what) in [
        ("volumes", "volumes"),
        ("nodeSelector", "node selector"),
        ("serviceAccountName", "service account"),
        ("priorityClassName", "priority"),
        ("hostNetwork", "host network"),
    ] {
        if old_spec.get(field) != new_spec.get(field) {
            found.push(what.to_string());
        }
    }
    // A label often repeats the image's version.
    if found.is_empty() && labels(old) != labels(new) {
        found.push("labels".to_string());
    }
    let mut seen = BTreeSet::new();
    found.retain(|one| seen.insert(one.clone()));
    if found.is_empty() {
        return "what is not recorded: commands, arguments, values of the environment".to_string();
    }
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    let named = found.join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn resources(old: &Value, new: &Value) -> String {
    let mut parts = Vec::new();
    for field in ["limits", "requests"] {
        let of = |one: &Value| one.get("resources").and_then(|resources| resources.get(field)).cloned();
        let (before, after) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
        let empty = serde_json::Map::new();
        let (before, after) =
            (before.as_object().unwrap_or(&empty).clone(), after.as_object().unwrap_or(&empty).clone());
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("none").to_string();
            let (from, to) = (text(before.get(name)), text(after.get(name)));
            if from != to {
                parts.push(format!("{name} {} {from} → {to}", field.trim_end_matches('s')));
            }
        }
    }
    if parts.is_empty() { "resources".to_string() } else { parts.join(", ") }
}

/// Labels of a template but the hash that Kubernetes adds.
fn labels(template: &Value) -> BTreeMap<String, Value> {
    let labels = template.get("metadata").and_then(|metadata| metadata.get("labels")).and_then(Value::as_object);
    let labels = labels.into_iter().flatten().filter(|(name, _)| *name != "pod-template-hash");
    labels.map(|(name, value)| (name.clone(), value.clone())).collect()
}
