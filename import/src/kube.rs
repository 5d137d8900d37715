//! What Kubernetes said at the time of a packet capture, from files: lists as `kubectl get -o json` prints them, and watch
//! streams (`kubectl get --watch --output-watch-events -o json`, or the API's own), one JSON object after the other; and what
//! `conntrack -L` printed on a node (`conntrack*.txt`).
//!
//! Files have no clock, so rows are placed by what objects tell: a list whose name has `before` in it is the state when the
//! capture began, one with `after` that when it ended; other lists hold throughout, as far as no watch says otherwise.
//! A change of a watch is placed at the youngest time that its object knows of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kfr_bundle::conntrack::TranslationFact;
use kfr_bundle::kube::{KubeChange, KubeFact, recorded_kinds};
use serde_json::Value;

use crate::logs::PodLog;

/// Largest file that is read, bytes: an object in memory takes several times its text.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Why the files can't be read.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The folder can't be read.
    #[error("{} can't be read", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// A file can't be read.
    #[error("{} can't be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// A file is too large.
    #[error("{} is larger than {} MiB; leave out what the capture doesn't need", .0.display(), MAX_FILE_BYTES >> 20)]
    TooLarge(PathBuf),
    /// No file has an object of the recorded kinds.
    #[error("{} has no list or watch of Kubernetes objects; put the output of `kubectl get KIND -A -o json` there", .0.display())]
    Empty(PathBuf),
}

/// What was not used, by what it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KubeCounters {
    /// Objects and changes that became rows.
    pub rows: u64,
    /// Objects of kinds that are not recorded, or without a name.
    pub objects_skipped: u64,
    /// Translated connections of a node's table.
    pub translations: u64,
    /// Files that are no list and no watch, or of which a part is malformed.
    pub files_skipped: u64,
}

impl KubeCounters {
    /// By name, as the ledger has them.
    pub fn named(&self) -> [(String, u64); 4] {
        let Self { rows, objects_skipped, translations, files_skipped } = *self;
        [
            ("kube_rows", rows),
            ("kube_objects_skipped", objects_skipped),
            ("kube_translations", translations),
            ("kube_files_skipped", files_skipped),
        ]
        .map(|(name, count)| (name.to_string(), count))
    }
}

/// When a list was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Before,
    Throughout,
    After,
}

impl Moment {
    fn of_file(name: &str) -> Self {
        match name {
            _ if name.contains("before") => Self::Before,
            _ if name.contains("after") => Self::After,
            _ => Self::Throughout,
        }
    }
}

/// An object of a list or a change of a watch, not yet placed.
struct Found {
    change: KubeChange,
    moment: Moment,
    fact: KubeFact,
    /// Number of its file: a watch tells changes in their order.
    file: usize,
    /// Youngest time that the object knows of, ns since 1970.
    youngest_ns: Option<u64>,
}

/// The content of a folder.
pub struct KubeFiles {
    found: Vec<Found>,
    translations: Vec<(Moment, TranslationFact)>,
    /// Kinds that a list at a moment is complete of.
    complete: BTreeSet<(Moment, String)>,
    /// Hash input: the files' names and bytes, in the order of the names.
    bytes: Vec<(String, Vec<u8>)>,
    /// Files read.
    files: usize,
    logs: Vec<PodLog>,
    counters: KubeCounters,
}

impl KubeFiles {
    /// Reads the `.json` and `.ndjson` files of a folder, `conntrack*.txt`, and the logs of pods there.
    ///
    /// # Errors
    /// [`KubeError`]. Files that hold something else are counted, not refused.
    pub fn read(folder: &Path) -> Result<Self, KubeError> {
        let unreadable = |error| KubeError::Folder(folder.to_path_buf(), error);
        let entries = std::fs::read_dir(folder).map_err(unreadable)?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
        paths.retain(|path| path.extension().is_some_and(|end| end == "json" || end == "ndjson") || is_conntrack(path));
        paths.sort();
        let mut files = Self {
            found: Vec::new(),
            translations: Vec::new(),
            complete: BTreeSet::new(),
            bytes: Vec::new(),
            files: 0,
            logs: PodLog::read_all(folder)?,
            counters: KubeCounters::default(),
        };
        for path in paths {
            // A pipe would never end, and a folder can't be read.
            if std::fs::metadata(&path).is_ok_and(|data| !data.is_file()) {
                files.counters.files_skipped += 1;
                continue;
            }
            let content = read_file(&path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_conntrack(&path) {
                files.add_conntrack(&name, &content);
            } else {
                files.add_file(&name, &content);
            }
            files.bytes.push((name, content));
        }
        if files.found.is_empty() && files.logs.is_empty() {
            return Err(KubeError::Empty(folder.to_path_buf()));
        }
        Ok(files)
    }

    /// What was read, to be hashed: names and bytes.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        let files = self.bytes.iter().chain(self.logs.iter().map(|log| &log.file));
        files.flat_map(|(name, content)| [name.as_bytes(), content.as_slice()])
    }

    /// A node's table of connections.
    fn add_conntrack(&mut self, name: &str, content: &[u8]) {
        let moment = Moment::of_file(name);
        let lines = content.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        let facts = lines.filter_map(|line| TranslationFact::parse(line, 0));
        let before = self.translations.len();
        self.translations.extend(facts.map(|fact| (moment, fact)));
        self.counters.files_skipped += u64::from(self.translations.len() == before);
    }

    /// Translated connections, in order of time, for a capture from `start_ns` to `end_ns` (ns since 1970). A table that was
    /// read nobody knows when counts at both ends.
    pub fn translations(&mut self, start_ns: u64, end_ns: u64) -> Vec<TranslationFact> {
        let mut rows = Vec::new();
        for (moment, fact) in std::mem::take(&mut self.translations) {
            if moment != Moment::After {
                rows.push(TranslationFact { time_ns: start_ns, ..fact.clone() });
            }
            if moment != Moment::Before {
                rows.push(TranslationFact { time_ns: end_ns, ..fact });
            }
        }
        rows.sort_by_key(|row| row.time_ns);
        self.counters.translations = rows.len() as u64;
        rows
    }

    fn add_file(&mut self, name: &str, content: &[u8]) {
        let moment = Moment::of_file(name);
        self.files += 1;
        let before = self.found.len();
        let mut is_whole = true;
        // A watch is one document after the other, a list is one.
        for document in serde_json::Deserializer::from_slice(content).into_iter::<Value>() {
            match document {
                Ok(document) => self.add_document(moment, document),
                // What comes before is as good as it was.
                Err(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        self.counters.files_skipped += u64::from(!is_whole || self.found.len() == before);
    }

    fn add_document(&mut self, moment: Moment, mut document: Value) {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        if document.get("object").is_some() {
            let change = match &*text(&document, "type") {
                "ADDED" => KubeChange::Added,
                "MODIFIED" => KubeChange::Modified,
                "DELETED" => KubeChange::Deleted,
                // Bookmarks and errors are about no object.
                _ => return,
            };
            if let Some(object) = document.get_mut("object") {
                let (kind, object) = (text(object, "kind"), object.take());
                self.add_object(moment, change, &kind, &object);
            }
            return;
        }
        let list = text(&document, "kind");
        let Some(Value::Array(items)) = document.get_mut("items").map(Value::take) else {
            // `kubectl get KIND NAME -o json`.
            self.add_object(moment, KubeChange::Listed, &list, &document);
            return;
        };
        let named = list.strip_suffix("List").unwrap_or_default();
        if moment != Moment::Throughout && !named.is_empty() {
            self.complete.insert((moment, named.to_string()));
        }
        for item in items {
            // Items of a list of one kind don't repeat it.
            let kind = Some(text(&item, "kind")).filter(|kind| !kind.is_empty()).unwrap_or_else(|| named.to_string());
            if moment != Moment::Throughout {
                self.complete.insert((moment, kind.clone()));
            }
            self.add_object(moment, KubeChange::Listed, &kind, &item);
        }
    }

    fn add_object(&mut self, moment: Moment, change: KubeChange, kind: &str, object: &Value) {
        match KubeFact::new(0, change, 0, kind, object) {
            Some(fact) => {
                self.found.push(Found { change, moment, file: self.files, youngest_ns: youngest_ns(object), fact })
            }
            None => self.counters.objects_skipped += 1,
        }
    }

    /// When it was, without packets that tell: from the first change that a watch told to the youngest time in any object, ns
    /// since 1970. Of lists alone, both are the youngest time.
    pub fn span(&self) -> (u64, u64) {
        let last_ns = self.found.iter().filter_map(|found| found.youngest_ns).max().unwrap_or(0);
        let before = self.found.iter().filter(|found| found.moment == Moment::Before);
        let before_ns = before.filter_map(|found| found.youngest_ns).max();
        // A watch begins by telling what has been there for long; a change is what knows something new.
        let mut known = HashMap::<_, u64>::new();
        let mut first_ns = None;
        for found in self.found.iter().filter(|found| found.change != KubeChange::Listed) {
            let (Some(own_ns), key) = (found.youngest_ns, (&found.fact.kind, &found.fact.uid)) else { continue };
            if known.get(&key).is_some_and(|known_ns| *known_ns < own_ns) {
                first_ns = Some(first_ns.map_or(own_ns, |first_ns: u64| first_ns.min(own_ns)));
            }
            known.insert(key, own_ns);
        }
        (before_ns.or(first_ns).unwrap_or(last_ns).min(last_ns), last_ns)
    }

    /// The logs of pods that are there.
    pub fn take_logs(&mut self) -> Vec<PodLog> {
        std::mem::take(&mut self.logs)
    }

    /// The rows, in order of time, for a capture from `start_ns` to `end_ns` (ns since 1970).
    pub fn place(self, start_ns: u64, end_ns: u64) -> (Vec<KubeFact>, KubeCounters) {
        let version = |fact: &KubeFact| fact.resource_version.parse::<u64>().unwrap_or(0);
        let key = |fact: &KubeFact| (fact.kind.clone(), fact.namespace.clone(), fact.name.clone());
        let mut watched = HashMap::<_, u64>::new();
        for found in self.found.iter().filter(|found| found.change != KubeChange::Listed) {
            let newest = watched.entry(key(&found.fact)).or_default();
            *newest = version(&found.fact).max(*newest);
        }
        // Of several lists that hold throughout, the newest state of an object counts.
        let mut throughout = BTreeMap::<_, Found>::new();
        let mut rows = Vec::new();
        let mut latest = HashMap::<_, u64>::new();
        let mut latest_of_file = HashMap::<usize, u64>::new();
        let told_by = told_by(&self.found, version);
        for mut found in self.found {
            let key = key(&found.fact);
            match (found.change, found.moment) {
                (KubeChange::Listed, Moment::Before) => (found.fact.time_ns, found.fact.list) = (start_ns, 1),
                (KubeChange::Listed, Moment::After) => (found.fact.time_ns, found.fact.list) = (end_ns, 2),
                (KubeChange::Listed, Moment::Throughout) => {
                    let newest = throughout.get(&key).map_or(0, |other| version(&other.fact));
                    if newest <= version(&found.fact) {
                        throughout.insert(key, found);
                    }
                    continue;
                }
                _ => {
                    // Changes of one object come in order; what a later one knows can't be older. One that knows nothing new,
                    // as a deletion, came after all that its watch had told before.
                    let (known, told) = (latest.entry(key).or_default(), latest_of_file.entry(found.file).or_default());
                    let own = found.youngest_ns.unwrap_or(start_ns);
                    let others = told_by.get(&version(&found.fact)).copied().unwrap_or_default();
                    *known = if own > *known { own } else { (*told).max(*known).max(others) };
                    *told = (*told).max(*known);
                    // What is told to be gone was there when the watch began.
                    let is_gone = found.change == KubeChange::Deleted;
                    found.fact.time_ns = if is_gone { (*known).max(start_ns) } else { *known };
                }
            }
            rows.push(found.fact);
        }
        for (key, mut found) in throughout {
            let newest = watched.get(&key).copied();
            if newest.is_some_and(|newest| newest >= version(&found.fact)) {
                continue;
            }
            found.fact.time_ns = match newest {
                Some(_) => found.youngest_ns.unwrap_or(start_ns).max(latest.get(&key).copied().unwrap_or_default()),
                None => start_ns,
            };
            found.fact.change = if newest.is_some() { KubeChange::Modified } else { KubeChange::Listed };
            rows.push(found.fact);
        }
        let kinds: BTreeSet<&str> = recorded_kinds().collect();
        for (moment, kind) in self.complete.iter().filter(|(_, kind)| kinds.contains(kind.as_str())) {
            let (time_ns, list) = if *moment == Moment::Before { (start_ns, 1) } else { (end_ns, 2) };
            rows.push(KubeFact::of_kind(time_ns, KubeChange::Complete, list, kind, ""));
        }
        rows.sort_by_key(|row| row.time_ns);
        let counters = KubeCounters { rows: rows.len() as u64, ..self.counters };
        (rows, counters)
    }
}

fn is_conntrack(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("conntrack") && name.ends_with(".txt")
}

/// By version: the youngest time that any object of a lower version knows. Versions of all kinds are of one sequence, but those
/// of Events, which a server may keep elsewhere (`--etcd-servers-overrides`). What was written later can't be older.
fn told_by(found: &[Found], version: impl Fn(&KubeFact) -> u64) -> HashMap<u64, u64> {
    let others = found.iter().filter(|found| found.fact.kind != "Event");
    let mut known: Vec<(u64, u64)> = others
        .filter_map(|found| Some((version(&found.fact), found.youngest_ns?)))
        .filter(|(version, _)| *version > 0)
        .collect();
    known.sort_unstable();
    // A kubelet's account of a pod has the version that it was told, and what has happened since.
    known.dedup_by_key(|(version, _)| *version);
    let mut latest = 0;
    let told = known.into_iter().map(|(version, youngest_ns)| {
        latest = youngest_ns.max(latest);
        (version, latest)
    });
    told.collect()
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, KubeError> {
    let unreadable = |error| KubeError::File(path.to_path_buf(), error);
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    BufReader::new(file).take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(KubeError::TooLarge(path.to_path_buf()));
    }
    Ok(content)
}

/// Fields that hold a moment that has passed when the object was written.
const TIMES: &[&str] = &[
    "creationTimestamp",
    "time",
    "lastTransitionTime",
    "lastUpdateTime",
    "startTime",
    "startedAt",
    "finishedAt",
    "completionTime",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
    "lastObservedTime",
    "lastScheduleTime",
    "lastSuccessfulTime",
    "lastScaleTime",
];

/// The youngest time in an object, ns since 1970. `managedFields` say when each writer wrote last. A deletion's timestamp is
/// when the grace period ends: it was asked for before.
fn youngest_ns(object: &Value) -> Option<u64> {
    let mut youngest = None;
    let mut note = |text: &str, earlier_s: u64| {
        let time = text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok());
        youngest = youngest.max(time.map(|ns| ns.saturating_sub(earlier_s.saturating_mul(1_000_000_000))));
    };
    if let Some(metadata) = object.get("metadata")
        && let Some(deletion) = metadata.get("deletionTimestamp").and_then(Value::as_str)
    {
        note(deletion, metadata.get("deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0));
    }
    let mut open = vec![object];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if TIMES.contains(&name.as_str()) => note(text, 0),
                        // Names of fields, not times.
                        _ if name == "fieldsV1" => {}
                        Value::Array(_) | Value::Object(_) => open.push(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    youngest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECOND: u64 = 1_000_000_000;

    fn pod(name: &str, version: u64, written_s: i64) -> Value {
        let time = Timestamp::from_second(written_s).unwrap().to_string();
        json!({"kind": "Pod", "metadata": {
            "name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string(),
            "creationTimestamp": "1970-01-01T00:00:05Z", "managedFields": [{"time": time}],
        }})
    }

    fn place(files: &[(&str, String)]) -> (Vec<String>, KubeCounters) {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let (rows, counters) = KubeFiles::read(folder.path()).unwrap().place(100 * SECOND, 200 * SECOND);
        let line =
            |row: &KubeFact| format!("{} {:?} {} {}{}", row.time_ns / SECOND, row.change, row.list, row.kind, row.name);
        (rows.iter().map(line).collect(), counters)
    }

    #[test]
    fn lists_stand_at_the_ends_and_are_complete() {
        let list = |pods: &[Value]| json!({"kind": "List", "items": pods}).to_string();
        let typed = json!({"kind": "NodeList", "items": [{"metadata": {"name": "n"}}]}).to_string();
        let (rows, counters) = place(&[
            ("pods-before.json", list(&[pod("a", 1, 50)])),
            ("pods-after.json", list(&[pod("b", 2, 150)])),
            ("nodes-before.json", typed),
            ("version.json", json!({"major": "1"}).to_string()),
            ("notes.txt", "no".into()),
        ]);
        let expected = [
            "100 Listed 1 Noden",
            "100 Listed 1 Poda",
            "100 Complete 1 Node",
            "100 Complete 1 Pod",
            "200 Listed 2 Podb",
            "200 Complete 2 Pod",
        ];
        assert_eq!(rows, expected);
        assert_eq!(counters, KubeCounters { rows: 6, objects_skipped: 1, translations: 0, files_skipped: 1 });
    }

    #[test]
    fn a_watch_is_placed_by_what_its_objects_know() {
        let change = |what: &str, object: Value| json!({"type": what, "object": object}).to_string();
        let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "9"}}});
        let watch = [
            change("ADDED", pod("a", 10, 110)),
            bookmark.to_string(),
            change("MODIFIED", pod("a", 11, 130)),
            // Its clock is behind, or it has no newer time: not before the change before.
            change("MODIFIED", pod("a", 12, 90)),
            change("DELETED", pod("a", 13, 140)),
        ];
        let list = json!({"kind": "PodList", "items": [pod("a", 9, 1), pod("quiet", 3, 1)]}).to_string();
        let (rows, _) = place(&[("watch.ndjson", watch.join("\n")), ("pods.json", list)]);
        let expected = [
            "100 Listed 0 Podquiet",
            "110 Added 0 Poda",
            "130 Modified 0 Poda",
            "130 Modified 0 Poda",
            "140 Deleted 0 Poda",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn what_knows_no_time_comes_after_all_that_was_written_before() {
        let of = |kind: &str, name: &str, version: u64, born_s: i64, written_s: Option<i64>| {
            let time = |second: i64| Timestamp::from_second(second).unwrap().to_string();
            let status = written_s
                .map_or(Value::Null, |written_s| json!({"conditions": [{"lastTransitionTime": time(written_s)}]}));
            json!({"kind": kind, "status": status, "metadata": {
                "name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string(),
                "creationTimestamp": time(born_s),
            }})
        };
        let line = |object: Value| json!({"type": "MODIFIED", "object": object}).to_string();
        let sets = [
            line(of("ReplicaSet", "set", 10, 101, None)),
            // Nothing in it says when it was scaled.
            line(of("ReplicaSet", "set", 40, 101, None)),
        ];
        let pods = [line(of("Pod", "a", 30, 102, Some(150))), line(of("Pod", "b", 50, 103, Some(170)))];
        // The kubelet's: an old version, a new status.
        let kubelet = json!({"kind": "PodList", "items": [of("Pod", "a", 30, 102, Some(190))]}).to_string();
        let (rows, _) =
            place(&[("sets.ndjson", sets.join("\n")), ("pods.ndjson", pods.join("\n")), ("kubelet.json", kubelet)]);
        let expected = [
            "101 Modified 0 ReplicaSetset",
            "150 Modified 0 ReplicaSetset",
            "150 Modified 0 Poda",
            "170 Modified 0 Podb",
        ];
        assert_eq!(rows.iter().collect::<BTreeSet<_>>(), expected.map(String::from).iter().collect());
    }

    #[test]
    fn a_file_that_breaks_off_counts_as_far_as_it_goes() {
        let good = json!({"type": "ADDED", "object": pod("a", 1, 120)}).to_string();
        let (rows, counters) = place(&[("watch.ndjson", format!("{good}\n{{\"type\": \"ADD"))]);
        assert_eq!((rows.len(), counters.files_skipped), (1, 1));
    }

    #[test]
    fn what_is_no_file_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("pods.json")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("nodes.json")).arg(path("conntrack.txt")).status();
        assert!(made.unwrap().success());
        std::fs::write(path("real.json"), json!({"kind": "List", "items": [pod("a", 1, 50)]}).to_string()).unwrap();
        std::os::unix::fs::symlink(path("real.json"), path("same.json")).unwrap();
        let folder = folder.path().to_path_buf();
        let (done, waited) = std::sync::mpsc::channel();
        // A reader of a pipe hangs: so that the test doesn't.
        std::thread::spawn(move || done.send(KubeFiles::read(&folder).map(|files| (files.files, files.counters))));
        let (read, counters) = waited.recv_timeout(std::time::Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!((read, counters.files_skipped), (2, 3));
    }

    #[test]
    fn a_folder_without_objects_is_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.json"), "<html>").unwrap();
        assert!(matches!(KubeFiles::read(folder.path()), Err(KubeError::Empty(_))));
        assert!(matches!(KubeFiles::read(&folder.path().join("none")), Err(KubeError::Folder(..))));
    }
}
