//! Names of pods and containers from what their node has on disk: no API, no runtime is asked.
//!
//! A runtime's state of a running container names it, its pod and image ([`runtime`]); where that can't be read, the
//! kubelet's log directories name pods and containers ([`kubelet`]). Of either only names are read: no environment, no
//! arguments, no line of a log.

mod kubelet;
mod runtime;

use std::fs;
use std::path::{Path, PathBuf};

use kfr_bundle::facts::ContainerFact;

use crate::cgroup::Member;
use crate::clock;

/// Longest name that Kubernetes allows, bytes (a DNS subdomain, RFC 1123); images are longer.
const MAX_NAME_BYTES: usize = 253;
const MAX_IMAGE_BYTES: usize = 512;

/// Where the files of the node are: `/`, or, seen from a container that has the host's processes, what process 1 has for a
/// root.
pub fn host_root() -> PathBuf {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    match (namespace("1"), namespace("self")) {
        (Some(of_host), Some(own)) if of_host != own => "/proc/1/root".into(),
        _ => "/".into(),
    }
}

/// The names that one node's files tell.
#[derive(Debug)]
pub struct Names {
    root: PathBuf,
    logs: kubelet::Logs,
}

impl Names {
    /// Those below a host's root directory.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), logs: kubelet::Logs::new(root) }
    }

    /// What is known of a container, or, without a container's id, of a pod. `source` is empty if no file names it.
    pub fn look_up(&mut self, member: &Member) -> ContainerFact {
        let state = if member.container.is_empty() { None } else { runtime::read(&self.root, &member.container) };
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
