//! Looks up what events only number: processes in `/proc`, their containers in the node's files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use kfr_bundle::facts::{ContainerFact, ProcessFact};

use crate::cgroup::Member;
use crate::cgroup::tree::Ids;
use crate::containers::Names;
use crate::processes;
use crate::store::{Batch, Handle};

/// How often a container that no file names yet is asked for again, and how often in all.
const RETRY_EVERY: Duration = Duration::from_secs(1);
const RETRIES: u32 = 30;
/// Containers and cgroups that are remembered; with more, some are told twice.
const MAX_KNOWN: usize = 1 << 16;

/// A process that an event named.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Its pid.
    pub process: u32,
    /// Id of its cgroup (v2).
    pub cgroup: u64,
    /// It began or runs another program.
    pub changed: bool,
}

/// Reads `/proc` for processes that have just begun or own a recorded socket: only it knows their executable and container.
pub struct Lookup {
    store: Handle,
    known: BTreeSet<u32>,
    containers: Containers,
}

impl Lookup {
    /// Nothing is known yet; names of containers are those below a host's root directory.
    pub fn new(store: Handle, host_root: &Path) -> Self {
        let containers = Containers {
            names: Names::new(host_root),
            ids: Ids::open(host_root),
            cgroups: BTreeSet::new(),
            told: BTreeMap::new(),
            retried: Instant::now(),
        };
        Self { store, known: BTreeSet::new(), containers }
    }

    /// Looks up every process of the machine.
    pub fn snapshot(&mut self) {
        let all = processes::snapshot();
        self.known.extend(all.iter().map(|fact| fact.process));
        let members: Vec<_> = all.iter().map(member).collect();
        self.store.send(Batch::Processes(all, true));
        self.tell(members.into_iter().map(|member| (member, 0)));
    }

    /// Looks up what is seen, until nothing more can be.
    pub fn run(&mut self, seen: &Receiver<Vec<Seen>>) {
        loop {
            match seen.recv_timeout(RETRY_EVERY) {
                Ok(seen) => self.look_up(seen),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.containers.retried.elapsed() >= RETRY_EVERY {
                self.name_the_rest();
            }
        }
    }

    fn look_up(&mut self, mut seen: Vec<Seen>) {
        // Cgroups first: one can be removed within milliseconds of its last process' end.
        let cgroups: BTreeSet<u64> = seen.iter().map(|seen| seen.cgroup).filter(|id| *id != 0).collect();
        let mut members = self.containers.of_cgroups(cgroups);
        seen.sort_unstable_by_key(|seen| (seen.process, !seen.changed));
        seen.dedup_by_key(|seen| seen.process);
        let mut facts = Vec::new();
        for Seen { process, mut changed, .. } in seen {
            // With its parents, which tell a worker's server; a chain of processes ends at 1.
            let mut next = process;
            while next > 1 && (std::mem::take(&mut changed) || !self.known.contains(&next)) {
                let Some(fact) = processes::one(next) else { break };
                self.known.insert(next);
                next = fact.parent;
                members.push((member(&fact), 0));
                facts.push(fact);
            }
        }
        if !facts.is_empty() {
            self.store.send(Batch::Processes(facts, false));
        }
        self.tell(members);
    }

    fn tell(&mut self, members: impl IntoIterator<Item = (Member, u64)>) {
        let rows: Vec<_> =
            members.into_iter().filter_map(|(member, cgroup)| self.containers.row(member, cgroup)).collect();
        if !rows.is_empty() {
            self.store.send(Batch::Containers(rows));
        }
    }

    /// Asks again for those that no file named so far.
    pub fn name_the_rest(&mut self) {
        self.containers.retried = Instant::now();
        let unnamed: Vec<_> = self.containers.told.iter().filter(|(_, retries)| **retries > 0).collect();
        let unnamed: Vec<_> = unnamed.into_iter().map(|(key, _)| key.clone()).collect();
        self.tell(unnamed);
    }
}

fn member(fact: &ProcessFact) -> Member {
    Member { pod: fact.pod.clone(), container: fact.container.clone() }
}

/// Containers and cgroups that were seen.
struct Containers {
    names: Names,
    ids: Option<Ids>,
    /// Ids of cgroups that were looked up.
    cgroups: BTreeSet<u64>,
    /// What there are rows of: whose, the id of the cgroup (0: known by a process), and how often it will be asked for again.
    told: BTreeMap<(Member, u64), u32>,
    retried: Instant,
}

impl Containers {
    /// Whose cgroups are, of those that were not seen before.
    fn of_cgroups(&mut self, ids: BTreeSet<u64>) -> Vec<(Member, u64)> {
        if self.cgroups.len() > MAX_KNOWN {
            self.cgroups.clear();
        }
        let new: Vec<u64> = ids.into_iter().filter(|id| self.cgroups.insert(*id)).collect();
        let member = |id| Some((self.ids.as_ref()?.member(id)?, id));
        new.into_iter().filter_map(member).collect()
    }

    /// A row of a container that has none yet, or none with its names.
    fn row(&mut self, member: Member, cgroup: u64) -> Option<ContainerFact> {
        if member.is_none() {
            return None;
        }
        if self.told.len() > MAX_KNOWN {
            self.told.clear();
        }
        let key = (member, cgroup);
        let retries = match self.told.get(&key) {
            None => RETRIES,
            Some(0) => return None,
            Some(retries) => retries - 1,
        };
        let fact = ContainerFact { cgroup, ..self.names.look_up(&key.0) };
        let is_named = !fact.source.is_empty();
        let is_new = self.told.insert(key, if is_named { 0 } else { retries }).is_none();
        // Without a name it tells whose the cgroup is.
        (is_named || is_new && cgroup != 0).then_some(fact)
    }
}
