//! Rows between the watcher and the store.

use std::sync::{Arc, Mutex};

use kfr_bundle::kube::KubeFact;

use crate::store::{Batch, Handle};

/// Kubernetes rows on their way: changes come one by one, and a block of one row compresses badly.
#[derive(Clone)]
pub(crate) struct Rows {
    store: Handle,
    rows: Arc<Mutex<Vec<KubeFact>>>,
}

impl Rows {
    /// At which a block is written: about a page of a list.
    const MANY: usize = 200;

    /// None yet.
    pub fn new(store: Handle) -> Self {
        Self { store, rows: Arc::default() }
    }

    /// Takes rows, from whichever thread.
    pub fn add(&self, new: Vec<KubeFact>) {
        let many = self.rows.lock().is_ok_and(|mut rows| {
            rows.extend(new);
            rows.len() >= Self::MANY
        });
        if many {
            self.seal();
        }
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
