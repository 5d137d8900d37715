//! Prints, for every shared capture, which protocols were claimed: a decoder must claim nothing of others. Needs
//! `KFR_SHARED`; `KFR_CLAIMS=NAME` keeps one protocol.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e.to_string_lossy().contains("cap")) {
            found.push(path);
        }
    }
}

#[test]
fn what_is_claimed_where() {
    let Some(shared) = std::env::var_os("KFR_SHARED") else {
        println!("skipped: KFR_SHARED is not set");
        return;
    };
    let only = std::env::var("KFR_CLAIMS").unwrap_or_default();
    let root = Path::new(&shared).join("captures");
    let mut found = Vec::new();
    files(&root, &mut found);
    found.sort();
    for path in found {
        let mut claims: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        for connection in common::connections(&path) {
            let Some((protocol, out)) = common::decode(&connection, usize::MAX) else { continue };
            if !only.is_empty() && protocol.name != only {
                continue;
            }
            let transport = if connection.datagrams { "udp" } else { "tcp" };
            let entry = claims.entry((protocol.name, transport, connection.ports.1)).or_default();
            entry.0 += 1;
            entry.1 += out.exchanges.len();
        }
        if !claims.is_empty() {
            println!("{} {claims:?}", path.strip_prefix(&root).unwrap().display());
        }
    }
}
