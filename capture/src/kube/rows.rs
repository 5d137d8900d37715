//! Rows between the watcher and the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kfr_bundle::kube::{KubeChange, KubeFact};

use crate::store::{Batch, Handle};

/// What a recording learned of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Objects, and changes of objects.
    pub objects: u64,
    /// The kinds whose changes were not seen any more at the end, and why.
    pub blind: BTreeMap<String, String>,
}

impl Learned {
    fn note(&mut self, row: &KubeFact) {
        self.objects += u64::from(row.object.is_some());
        match row.change {
            KubeChange::Blind => {
                self.blind.insert(row.kind.clone(), row.reason.clone());
            }
            KubeChange::Seeing => {
                self.blind.remove(&row.kind);
            }
            _ => {}
        }
    }
}

/// Kubernetes rows on their way: changes come one by one, and a block of one row compresses badly.
#[derive(Clone)]
pub(crate) struct Rows {
    store: Handle,
    rows: Arc<Mutex<Vec<KubeFact>>>,
    learned: Arc<Mutex<Learned>>,
}

impl Rows {
    /// At which a block is written: about a page of a list.
    const MANY: usize = 200;

    /// None yet.
    pub fn new(store: Handle) -> Self {
        Self { store, rows: Arc::default(), learned: Arc::default() }
    }

    /// Takes rows, from whichever thread.
    pub fn add(&self, new: Vec<KubeFact>) {
        if let Ok(mut learned) = self.learned.lock() {
            new.iter().for_each(|row| learned.note(row));
        }
        let many = self.rows.lock().is_ok_and(|mut rows| {
            rows.extend(new);
            rows.len() >= Self::MANY
        });
        if many {
            self.seal();
        }
    }

    /// What came so far.
    pub fn learned(&self) -> Learned {
        self.learned.lock().map(|learned| learned.clone()).unwrap_or_default()
    }

    /// Hands over what there is.
    pub fn seal(&self) {
        // A poisoned lock would mean that a thread died while it held it, which does nothing but push.
        let rows = self.rows.lock().map(|mut rows| std::mem::take(&mut *rows)).unwrap_or_default();
        if !rows.is_empty() {
            self.store.send(Batch::Kube(rows));
        }
    }
}
