//! What Kubernetes says during a capture of a cluster, as a bundle of its own: the client's, not a node's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow};
use kfr_bundle::facts::Manifest;
use kfr_bundle::{FileHeader, Writer};

use crate::clock;
use crate::kube::{Cluster, Rows, Watcher};
use crate::store::{Batch, Handle, Store};

/// Batches that may wait for the disk.
const WAITING: usize = 8;
/// Largest that the bundle may get: 5,000 pods with 20,000 events take some 20 MB.
const MAX_BYTES: u64 = 1 << 30;

/// Lists and watches, and writes.
pub struct Recorder {
    watcher: Watcher,
    rows: Rows,
    store: Store,
    handle: Handle,
    manifest: Manifest,
    path: PathBuf,
}

impl Recorder {
    /// Begins.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn start(cluster: Cluster, path: &Path) -> Result<Self> {
        let anchor = clock::anchor();
        // No node: this machine is none of the cluster's.
        let mut header = FileHeader::new("");
        header.created_realtime_ns = anchor.realtime_ns;
        header.created_clock_ns = anchor.boottime_ns;
        let (store, handle) = Store::start(Writer::create(path, &header, false)?, WAITING, MAX_BYTES);
        let manifest = Manifest {
            tool: "kfr".to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            source: "Kubernetes".to_string(),
            kube: cluster.found.clone(),
            started_ns: clock::boottime_ns(),
            ..Manifest::default()
        };
        handle.send(Batch::Anchor(anchor));
        handle.send(Batch::Manifest(Box::new(manifest.clone())));
        let rows = Rows::new(handle.clone());
        let sink = rows.clone();
        // No node has this boot id: all pods are kept in full.
        let watcher =
            Watcher::start(cluster, "none".to_string(), clock::boottime_ns, Arc::new(move |new| sink.add(new)));
        Ok(Self { watcher, rows, store, handle, manifest, path: path.to_path_buf() })
    }

    /// Ends it; the bundle.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn finish(self) -> Result<PathBuf> {
        let Self { watcher, rows, store, handle, mut manifest, path } = self;
        watcher.stop();
        rows.seal();
        drop(rows);
        handle.send(Batch::Anchor(clock::anchor()));
        manifest.ended_ns = clock::boottime_ns();
        manifest.end = "duration".to_string();
        handle.send(Batch::Manifest(Box::new(manifest)));
        let lost = handle.progress_handle();
        drop(handle);
        let ended = store.finish();
        if let Some(failure) = ended.failure {
            return Err(failure.into());
        }
        ended.summary?;
        match lost.rows_not_written.load(Ordering::Relaxed) {
            0 => Ok(path),
            rows => Err(anyhow!("{rows} rows of what Kubernetes said could not be written")),
        }
    }
}
