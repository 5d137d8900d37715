//! Kubernetes Services: who is behind them, and how many of these were ready.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::change::{Change, ChangeKind};
use crate::identity::{Kube, Life, Objects, read};
use crate::report::text::duration;

/// A Kubernetes Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ClusterIP`, `NodePort`, ...; `Headless` where it has no address.
    pub kind: String,
    /// Numbers of the workloads whose pods are behind it, ready or not.
    pub workloads: BTreeSet<u32>,
    /// Addresses that were ready at the end.
    pub ready: Option<u64>,
    /// The fewest that were, at any time of the recording.
    pub least_ready: Option<u64>,
}

/// All Services, in [`Kube`]'s order, and what happened to them.
pub fn services(objects: &Objects, kube: &Kube, window: (u64, u64), changes: &mut Vec<Change>) -> Vec<Service> {
    let mut slices: BTreeMap<(&str, &str), Vec<_>> = BTreeMap::new();
    for life in objects.of_kind("EndpointSlice") {
        let service = life
            .states
            .first()
            .and_then(|(_, slice)| read::text(slice, &["metadata", "labels", "kubernetes.io/service-name"]));
        if let Some(service) = service {
            slices.entry((life.namespace.as_str(), service)).or_default().push(life);
        }
    }
    let of = |life: &Life, own: &[&Life], steps: &[(u64, u64, u64)]| {
        let state = life.states.last().map_or(&Value::Null, |(_, state)| state);
        let address = read::text(state, &["spec", "clusterIP"]);
        let kind = match address {
            Some("None") => "Headless",
            _ => read::text(state, &["spec", "type"]).unwrap_or_default(),
        };
        let states = own.iter().flat_map(|slice| slice.states.iter().map(|(_, state)| state));
        let targets = states.flat_map(|state| read::list(state, &["endpoints"])).filter_map(|endpoint| {
            let target = |field| read::text(endpoint, &["targetRef", field]);
            let pod = kube.pod_named(target("uid").unwrap_or_default(), target("namespace")?, target("name")?)?;
            kube.pod(pod).map(|pod| pod.workload)
        });
        let within = |(from_ns, to_ns, _): &&(u64, u64, u64)| *from_ns <= window.1 && *to_ns > window.0;
        Service {
            namespace: life.namespace.clone(),
            name: life.name.clone(),
            kind: kind.to_string(),
            workloads: targets.collect(),
            ready: steps.iter().rev().find(within).map(|(.., ready)| *ready),
            // While it is set up it has nobody yet.
            least_ready: steps
                .iter()
                .filter(within)
                .skip_while(|(.., ready)| *ready == 0)
                .map(|(.., ready)| *ready)
                .min(),
        }
    };
    let mut found = Vec::new();
    for life in objects.of_kind("Service") {
        let own = slices.get(&(life.namespace.as_str(), life.name.as_str())).map_or(&[][..], Vec::as_slice);
        let steps = ready_over_time(own);
        let service = of(life, own, &steps);
        let subject = format!("{}/{}", service.namespace, service.name);
        let from = changes.len();
        nobody_ready(&subject, &steps, window.1, changes);
        let mut before: Option<&Value> = None;
        for (from_ns, _, state) in life.spans() {
            if let Some(before) = before {
                let part = |state: &Value, field: &str| read::at(state, &["spec", field]).cloned();
                let mut parts = vec!["selector", "ports", "type", "clusterIP", "externalName"];
                parts.retain(|field| part(before, field) != part(state, field));
                if !parts.is_empty() {
                    changes.push(Change::new(
                        from_ns,
                        ChangeKind::Service,
                        subject.clone(),
                        format!("{} changed", parts.join(", ")),
                    ));
                }
            }
            before = Some(state);
        }
        if let Some(gone_ns) = life.gone_ns {
            changes.push(Change::new(gone_ns, ChangeKind::Service, subject, "deleted"));
        }
        let workload = service.workloads.first().copied().filter(|_| service.workloads.len() == 1);
        changes.iter_mut().skip(from).for_each(|change| change.workload = workload);
        found.push(service);
    }
    found
}

/// How many addresses were ready, (from, until, how many), over the life of a Service's slices.
fn ready_over_time(slices: &[&Life]) -> Vec<(u64, u64, u64)> {
    let mut steps: Vec<(u64, i64)> = Vec::new();
    for (from_ns, to_ns, state) in slices.iter().flat_map(|slice| slice.spans()) {
        let is_ready = |endpoint: &&Value| read::flag(endpoint, &["conditions", "ready"]).unwrap_or(true);
        let endpoints = read::list(state, &["endpoints"]).iter().filter(is_ready);
        let ready = endpoints.map(|endpoint| read::list(endpoint, &["addresses"]).len() as i64).sum();
        steps.push((from_ns, ready));
        steps.push((to_ns, -ready));
    }
    steps.sort_unstable();
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    let mut ready = 0i64;
    for (index, (at_ns, change)) in steps.iter().enumerate() {
        ready += change;
        // All that happens in one moment is one step.
        let next_ns = steps.get(index + 1).map(|(next_ns, _)| *next_ns);
        if let Some(next_ns) = next_ns.filter(|next_ns| next_ns > at_ns) {
            found.push((*at_ns, next_ns, ready.max(0) as u64));
        }
    }
    found
}

/// Times in which nobody was ready any more: a Service that is being set up has nobody yet.
fn nobody_ready(subject: &str, steps: &[(u64, u64, u64)], end_ns: u64, changes: &mut Vec<Change>) {
    let mut was_ready = false;
    for (from_ns, to_ns, ready) in steps {
        was_ready |= *ready > 0;
        if *ready > 0 || !was_ready || *from_ns > end_ns {
            continue;
        }
        let until_ns = (*to_ns).min(end_ns);
        let text = match to_ns {
            to_ns if *to_ns <= end_ns => format!("nobody ready behind it for {}", duration(to_ns - from_ns)),
            _ => "nobody ready behind it, to the end".to_string(),
        };
        changes.push(Change::new(*from_ns, ChangeKind::Service, subject, text).until(Some(until_ns)).bad());
    }
}
