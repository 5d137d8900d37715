//! The node's table of translated connections, read now and then.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kfr_bundle::conntrack::TranslationFact;

use crate::clock;
use crate::store::{Batch, Handle};

/// The table, in the network namespace of the host's first process; absent where the kernel keeps none, or shows it over
/// netlink only (`CONFIG_NF_CONNTRACK_PROCFS`).
const TABLE: &str = "proc/1/net/nf_conntrack";
/// Between two readings. Connections stay in the table for a while after they end (TCP 120 s, UDP 30 s).
const EVERY: Duration = Duration::from_secs(10);
/// A reading takes at most this part of the time: a large table is read less often.
const SHARE: u32 = 100;
/// Most that is read of it, bytes, and kept of a reading, rows.
const MAX_BYTES: u64 = 64 << 20;
const MAX_ROWS: usize = 1 << 16;

/// Reads the table at once and then every ten seconds until `stop`, each time telling what is new; at the end once more, and all
/// of it: the same addresses may have been used again.
pub fn watch(store: &Handle, host_root: &Path, stop: &AtomicBool) {
    // In a container with the host's processes, its own /proc has them.
    let tables = [host_root.join(TABLE), PathBuf::from("/").join(TABLE)];
    let Some(table) = tables.into_iter().find(|table| File::open(table).is_ok()) else { return };
    let mut known = HashSet::new();
    loop {
        let ends = stop.load(Ordering::Relaxed);
        let began = Instant::now();
        let rows = read(&table);
        let new: Vec<TranslationFact> =
            rows.iter().filter(|row| ends || !known.contains(&timeless(row))).cloned().collect();
        known = rows.iter().map(timeless).collect();
        if !new.is_empty() {
            store.send(Batch::Translations(new));
        }
        if ends {
            return;
        }
        let next = began + EVERY.max(began.elapsed() * SHARE);
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn timeless(row: &TranslationFact) -> TranslationFact {
    TranslationFact { time_ns: 0, ..row.clone() }
}

fn read(table: &Path) -> Vec<TranslationFact> {
    let time_ns = clock::boottime_ns();
    let Ok(file) = File::open(table) else { return Vec::new() };
    let lines = BufReader::new(file.take(MAX_BYTES)).lines().map_while(Result::ok);
    lines.filter_map(|line| TranslationFact::parse(&line, time_ns)).take(MAX_ROWS).collect()
}
