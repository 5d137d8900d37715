//! Kubernetes objects over time, from the rows of all bundles.

use kfr_bundle::kube::{KubeChange, KubeFact};
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::read;

/// One object from its creation to its end. A new object under an old name is another life.
#[derive(Debug, Clone)]
pub struct Life {
    /// Kind.
    pub kind: String,
    /// Namespace; empty where the kind has none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
    /// When it was created, ns since 1970; 0 where nothing says so: it was there before.
    pub born_ns: u64,
    /// When it was gone.
    pub gone_ns: Option<u64>,
    /// Its states, each from its moment on, in order. What is known first holds from the beginning.
    pub states: Vec<(u64, Value)>,
    version: String,
    /// The last list of each bundle that it was in.
    listed: Vec<(u32, u32)>,
}

impl Life {
    /// Each state with the time in which it held: the first from the object's beginning, the last to its end.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64, &Value)> {
        let ends = self.states.iter().skip(1).map(|(from_ns, _)| *from_ns);
        let ends = ends.chain([self.gone_ns.unwrap_or(u64::MAX)]);
        self.states.iter().zip(ends).enumerate().map(|(number, ((from_ns, state), to_ns))| {
            (if number == 0 { self.born_ns.min(*from_ns) } else { *from_ns }, to_ns, state)
        })
    }
}

/// All objects.
#[derive(Debug, Default)]
pub struct Objects {
    lives: Vec<Life>,
    /// The youngest life of a kind, namespace and name.
    by_name: FxHashMap<(String, String, String), usize>,
    /// By kind.
    by_kind: FxHashMap<String, Vec<usize>>,
    /// By the unique id of their controller.
    by_owner: FxHashMap<String, Vec<usize>>,
}

impl Objects {
    /// Takes the rows of all bundles, (bundle, row) with times on the wall clock; in any order.
    pub fn new(mut rows: Vec<(u32, KubeFact)>) -> Self {
        rows.sort_by_key(|(_, row)| row.time_ns);
        let mut objects = Self::default();
        for (bundle, row) in rows {
            match row.change {
                KubeChange::Listed | KubeChange::Added | KubeChange::Modified => objects.seen(bundle, row),
                KubeChange::Deleted => objects.deleted(bundle, row),
                KubeChange::Complete => objects.complete(bundle, &row),
                KubeChange::Blind | KubeChange::Seeing | KubeChange::Unknown => {}
            }
        }
        objects
    }

    /// All lives, in the order in which they were first seen.
    pub fn all(&self) -> &[Life] {
        &self.lives
    }

    /// The lives of one kind.
    pub fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Life> + use<'a> {
        self.by_kind.get(kind).into_iter().flatten().filter_map(|index| self.lives.get(*index))
    }

    /// The lives that a controller owns, by its unique id.
    pub fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Life> + use<'a> {
        self.by_owner.get(uid).into_iter().flatten().filter_map(|index| self.lives.get(*index))
    }

    fn seen(&mut self, bundle: u32, row: KubeFact) {
        let KubeFact { time_ns, list, kind, namespace, name, uid, resource_version, object, .. } = row;
        let Some(state) = object else { return };
        let key = (kind, namespace, name);
        let known = self.by_name.get(&key).copied();
        let life = known.and_then(|index| self.lives.get_mut(index)).filter(|life| life.uid == uid);
        let life = match life {
            Some(life) => life,
            None => {
                let born_ns = read::time_ns(&state, &["metadata", "creationTimestamp"]).unwrap_or(0);
                // Whatever had the name is gone, though nobody said so.
                if let Some(old) = known.and_then(|index| self.lives.get_mut(index)) {
                    old.gone_ns.get_or_insert(born_ns.max(old.born_ns));
                }
                let index = self.lives.len();
                let (kind, namespace, name) = key.clone();
                self.by_kind.entry(kind.clone()).or_default().push(index);
                self.by_name.insert(key, index);
                if let Some(owner) = read::controller(&state).and_then(|owner| read::text(owner, &["uid"])) {
                    self.by_owner.entry(owner.to_string()).or_default().push(index);
                }
                self.lives.push(Life {
                    kind,
                    namespace,
                    name,
                    uid,
                    born_ns,
                    gone_ns: None,
                    states: Vec::new(),
                    version: String::new(),
                    listed: Vec::new(),
                });
                let Some(life) = self.lives.last_mut() else { return };
                life
            }
        };
        match life.listed.iter_mut().find(|(other, _)| *other == bundle) {
            Some((_, last)) => *last = list.max(*last),
            None => life.listed.push((bundle, list)),
        }
        // Several recorders see the same state, of a pod elsewhere less of it, and a list repeats it.
        let known = life.states.last_mut().filter(|_| life.version == resource_version && !resource_version.is_empty());
        match known {
            Some((_, known)) if is_full(known) || !is_full(&state) => {}
            Some((_, known)) => *known = state,
            None => life.states.push((time_ns, state)),
        }
        life.version = resource_version;
    }

    fn deleted(&mut self, bundle: u32, row: KubeFact) {
        let (time_ns, key) = (row.time_ns, (row.kind.clone(), row.namespace.clone(), row.name.clone()));
        let uid = row.uid.clone();
        self.seen(bundle, row);
        if let Some(life) = self.by_name.get(&key).and_then(|index| self.lives.get_mut(*index))
            && life.uid == uid
        {
            life.gone_ns.get_or_insert(time_ns);
        }
    }

    /// A list is complete: what the bundle knew of, and what isn't in it, is gone.
    fn complete(&mut self, bundle: u32, row: &KubeFact) {
        for index in self.by_kind.get(&row.kind).into_iter().flatten() {
            let Some(life) = self.lives.get_mut(*index) else { continue };
            let last = life.listed.iter().find(|(other, _)| *other == bundle);
            if life.gone_ns.is_none() && last.is_some_and(|(_, list)| *list < row.list) {
                life.gone_ns = Some(row.time_ns);
            }
        }
    }
}

/// Whether a pod is told in full (`kfr_bundle::kube::KubeFact::pod_elsewhere` leaves its containers out).
fn is_full(object: &Value) -> bool {
    !read::list(object, &["spec", "containers"]).is_empty()
}
