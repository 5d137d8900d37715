//! Pods, namespaces and containers that the user names, found among the node's cgroups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kfr_bundle::facts::{ContainerFact, ContainerKind};

use crate::cgroup::tree::{Directory, Tree, containers_in};
use crate::containers::Names;
use crate::filters::NoSuchTarget;
use crate::options::Options;

/// Least of a container's id that stands for it: shorter ones are names, too.
const MIN_ID_DIGITS: usize = 6;
/// Names that a message lists.
const MAX_LISTED: usize = 12;

/// What the user named. Of each kind any one has to fit, and of all kinds that were given one.
#[derive(Debug, Default)]
pub struct Wanted {
    pods: Vec<String>,
    namespaces: Vec<String>,
    containers: Vec<String>,
}

impl Wanted {
    /// What a recording's options name.
    pub fn of(options: &Options) -> Self {
        Self {
            pods: options.pods.clone(),
            namespaces: options.namespaces.clone(),
            containers: options.containers.clone(),
        }
    }

    /// Whether a container's log is wanted. The kubelet's folders name no container ids.
    pub fn log(&self, namespace: &str, pod: &str, uid: &str, container: &str) -> bool {
        let fact = ContainerFact {
            pod: uid.to_string(),
            namespace: namespace.to_string(),
            pod_name: pod.to_string(),
            name: container.to_string(),
            ..ContainerFact::default()
        };
        self.pod(&fact) && (self.containers.is_empty() || self.container(&fact))
    }

    fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.namespaces.is_empty() && self.containers.is_empty()
    }

    fn pod(&self, fact: &ContainerFact) -> bool {
        let is = |wanted: &String| match wanted.split_once('/') {
            Some((namespace, name)) => (namespace, name) == (&*fact.namespace, &*fact.pod_name),
            None => *wanted == fact.pod_name || *wanted == fact.pod,
        };
        (self.pods.is_empty() || !fact.pod.is_empty() && self.pods.iter().any(is))
            && (self.namespaces.is_empty() || self.namespaces.contains(&fact.namespace))
    }

    fn container(&self, fact: &ContainerFact) -> bool {
        let is_id = |wanted: &str| wanted.len() >= MIN_ID_DIGITS && fact.container.starts_with(wanted);
        self.containers.iter().any(|wanted| *wanted == fact.name || is_id(wanted))
    }
}

/// As it is given on the command line.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [("--pod", &self.pods), ("--namespace", &self.namespaces), ("--container", &self.containers)];
        let given = flags.iter().flat_map(|(flag, values)| values.iter().map(move |value| format!("{flag} {value}")));
        f.write_str(&given.collect::<Vec<_>>().join(" "))
    }
}

/// The cgroups of what was named, now and while more of it appears.
#[derive(Debug)]
pub struct Selection {
    wanted: Wanted,
    tree: Tree,
    names: Names,
    /// Cgroups that are or aren't wanted. What can't be named yet is not in it.
    decided: BTreeMap<PathBuf, bool>,
}

impl Selection {
    /// Finds what was named. `None` if nothing was.
    ///
    /// # Errors
    /// [`NoSuchTarget`], if none of it is here, unless it may come later ([`Options::absent_ok`]).
    pub fn find(options: &Options) -> Result<Option<Self>> {
        let wanted = Wanted::of(options);
        if wanted.is_empty() {
            return Ok(None);
        }
        let Some(tree) = Tree::find(&options.host_root) else {
            let none = format!("nothing here fits {wanted}: no cgroup of this machine is a pod's or a container's");
            return Err(NoSuchTarget(none).into());
        };
        let names = Names::new(&options.host_root);
        let mut selection = Self { wanted, tree, names, decided: BTreeMap::new() };
        if selection.cgroups().is_empty() && !options.absent_ok {
            let there_is = selection.there_is(&options.host_root);
            return Err(NoSuchTarget(format!("nothing here fits {}; there are {there_is}", selection.wanted)).into());
        }
        Ok(Some(selection))
    }

    /// Whether these are cgroups of v2, whose ids tasks carry.
    pub fn is_unified(&self) -> bool {
        self.tree.is_unified
    }

    /// The cgroups of what was named, as it is now.
    pub fn cgroups(&mut self) -> Vec<PathBuf> {
        // A pod's containers are below its own cgroup.
        let by_container = !self.wanted.containers.is_empty();
        let members = self.tree.members(by_container);
        self.decided.retain(|path, _| members.binary_search_by(|known| known.path.cmp(path)).is_ok());
        for at in &members {
            if self.decided.contains_key(&at.path) {
                continue;
            }
            let facts = self.facts(at);
            let fits = |fact| self.wanted.pod(fact) && (!by_container || self.wanted.container(fact));
            let is_wanted = facts.iter().any(fits);
            if is_wanted || facts.iter().any(|fact| !fact.source.is_empty()) {
                self.decided.insert(at.path.clone(), is_wanted);
            }
        }
        self.decided.iter().filter(|(_, wanted)| **wanted).map(|(path, _)| path.clone()).collect()
    }

    /// What is known of a cgroup. Where no file names a pod by its UID, its containers' do.
    fn facts(&mut self, at: &Directory) -> Vec<ContainerFact> {
        let mut facts = vec![self.names.look_up(&at.member)];
        if at.member.container.is_empty() && facts.iter().all(|own| own.source.is_empty()) {
            facts.extend(containers_in(&at.path).iter().map(|member| self.names.look_up(member)));
        }
        facts
    }

    /// What could have been named.
    fn there_is(&mut self, host_root: &Path) -> String {
        let members = [self.tree.members(false), self.tree.members(true)].concat();
        let (mut pods, mut namespaces, mut containers) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut unnamed = BTreeSet::new();
        for at in &members {
            for fact in self.facts(at) {
                if !fact.pod_name.is_empty() {
                    pods.insert(format!("{}/{}", fact.namespace, fact.pod_name));
                    namespaces.insert(fact.namespace.clone());
                } else if !fact.pod.is_empty() {
                    unnamed.insert(fact.pod.clone());
                }
                // With the pods that were named: those are what its containers would be asked for.
                if !fact.name.is_empty() && fact.kind != ContainerKind::Sandbox && self.wanted.pod(&fact) {
                    containers.insert(fact.name);
                }
            }
        }
        let (kind, names) = match &self.wanted {
            Wanted { containers: wanted, .. } if !wanted.is_empty() && !containers.is_empty() => {
                ("containers", containers)
            }
            Wanted { pods: wanted, .. } if wanted.is_empty() && !namespaces.is_empty() => ("namespaces", namespaces),
            _ if !pods.is_empty() => ("pods", pods),
            _ if unnamed.is_empty() => return "no pods".to_string(),
            _ => ("pods", unnamed.clone()),
        };
        let pods_are_unnamed = names == unnamed;
        let more = names.len().saturating_sub(MAX_LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let of = if pods_are_unnamed {
            format!(", which no file below {} names", host_root.display())
        } else {
            String::new()
        };
        let listed: Vec<_> = names.into_iter().take(MAX_LISTED).collect();
        format!("the {kind} {}{more}{of}", listed.join(", "))
    }
}
