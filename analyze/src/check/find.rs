//! What there is to check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders below each other that are entered.
const MAX_DEPTH: usize = 32;

/// A capture with its golden file, whether that exists or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// A bundle or a packet capture.
    pub capture: PathBuf,
    /// `NAME.requests.jsonl` beside it, where NAME is the capture's name without its extension; with it, where another
    /// capture has the same name but for that.
    pub golden: PathBuf,
    /// It is a bundle: replayed as it is.
    pub is_bundle: bool,
}

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Captures, by name.
    pub cases: Vec<Case>,
    /// Golden files whose capture is not there, by name.
    pub orphans: Vec<PathBuf>,
}

const GOLDEN: &str = ".requests.jsonl";

/// Every bundle (`*.kfr`) and packet capture (`*.pcap`, `*.pcapng`, `*.cap`) in `folder` and below it, by name. Links to
/// folders are not followed.
///
/// # Errors
/// If a folder can't be read; the error names it.
pub fn find(folder: &Path) -> io::Result<Found> {
    let (mut cases, mut goldens) = (Vec::new(), BTreeSet::new());
    let named =
        |folder: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    let mut folders = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| named(&folder, error))? {
            let entry = entry.map_err(|error| named(&folder, error))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|error| named(&path, error))?;
            if kind.is_dir() {
                if depth < MAX_DEPTH {
                    folders.push((path, depth + 1));
                }
                continue;
            }
            // A pipe would never end; a link to a file is one.
            if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
                continue;
            }
            if path.to_string_lossy().ends_with(GOLDEN) {
                goldens.insert(path);
                continue;
            }
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            let is_bundle = extension == "kfr";
            if is_bundle || matches!(extension.as_str(), "pcap" | "pcapng" | "cap") {
                let golden = path.with_extension("requests.jsonl");
                cases.push(Case { capture: path, golden, is_bundle });
            }
        }
    }
    cases.sort();
    let mut captures: BTreeMap<PathBuf, u32> = BTreeMap::new();
    cases.iter().for_each(|case| *captures.entry(case.golden.clone()).or_default() += 1);
    for case in cases.iter_mut().filter(|case| captures.get(&case.golden).is_some_and(|count| *count > 1)) {
        let mut name = case.capture.clone().into_os_string();
        name.push(GOLDEN);
        case.golden = name.into();
    }
    let expected: BTreeSet<&PathBuf> = cases.iter().map(|case| &case.golden).collect();
    let orphans = goldens.into_iter().filter(|golden| !expected.contains(golden)).collect();
    Ok(Found { cases, orphans })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_found_in_all_folders_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        for name in ["b/c/z.pcapng", "a.kfr", "b/x.PCAP", "b/x.txt", "b/x.requests.jsonl", "gone.requests.jsonl"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = find(folder.path()).unwrap();
        let names: Vec<_> = found.cases.iter().map(|case| case.capture.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(names, [Path::new("a.kfr"), Path::new("b/c/z.pcapng"), Path::new("b/x.PCAP")]);
        assert_eq!(found.cases[2].golden, folder.path().join("b/x.requests.jsonl"));
        assert_eq!(found.orphans, [folder.path().join("gone.requests.jsonl")]);
        fs::write(folder.path().join("a.pcap"), "").unwrap();
        let goldens: Vec<_> = find(folder.path()).unwrap().cases.into_iter().map(|case| case.golden).collect();
        assert_eq!(goldens[0], folder.path().join("a.kfr.requests.jsonl"));
        assert_eq!(goldens[1], folder.path().join("a.pcap.requests.jsonl"));
    }
}
