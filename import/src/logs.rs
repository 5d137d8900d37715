//! What pods logged at the time of a packet capture, from files: `kubectl logs POD -c CONTAINER --timestamps`, as
//! `POD.CONTAINER.log`. A name of a pod may have dots, one of a container has none (RFC 1123 label).

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use kfr_bundle::kube::KubeFact;
use kfr_bundle::logs::{LogCounts, LogFact, line_text};
use kfr_bundle::secrets::Masker;

use crate::kube::{KubeError, read_file};

/// Where the files are: in the folder that was named, or in this one below it.
const FOLDER: &str = "logs";
/// Text that is kept of all files, bytes.
const MAX_KEPT_BYTES: u64 = 256 << 20;

/// One container's log.
#[derive(Debug)]
pub struct PodLog {
    pod: String,
    container: String,
    /// Its path below the folder, and its bytes.
    pub file: (String, Vec<u8>),
}

/// Lines and counts of all files.
#[derive(Debug, Default)]
pub struct Logs {
    /// In order of time.
    pub lines: Vec<LogFact>,
    /// By file.
    pub counts: Vec<LogCounts>,
}

impl PodLog {
    /// Reads the logs in a folder, in the order of their names.
    ///
    /// # Errors
    /// [`KubeError`], if a file can't be read. A folder without logs is none.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, KubeError> {
        let mut logs = Vec::new();
        for (prefix, folder) in [("", folder.to_path_buf()), ("logs/", folder.join(FOLDER))] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
            names.sort_unstable();
            for name in names {
                let Some((pod, container)) = name.strip_suffix(".log").and_then(|name| name.rsplit_once('.')) else {
                    continue;
                };
                let content = read_file(&folder.join(&name))?;
                let (pod, container) = (pod.to_string(), container.to_string());
                logs.push(Self { pod, container, file: (format!("{prefix}{name}"), content) });
            }
        }
        Ok(logs)
    }

    /// The lines written from `start_ns` to `end_ns` (ns since 1970). Pods have the namespace and UID that `objects` say, if
    /// only one of the name is there.
    pub fn place(logs: &[Self], objects: &[KubeFact], start_ns: u64, end_ns: u64) -> Logs {
        let mut pods = BTreeMap::<&str, Vec<(&str, &str)>>::new();
        for object in objects.iter().filter(|object| object.kind == "Pod") {
            let known = pods.entry(&object.name).or_default();
            let one = (object.namespace.as_str(), object.uid.as_str());
            if !known.contains(&one) {
                known.push(one);
            }
        }
        let mut placed = Logs::default();
        let mut left = MAX_KEPT_BYTES;
        for log in logs {
            let (namespace, uid) = match pods.get(log.pod.as_str()).map(Vec::as_slice) {
                Some([(namespace, uid)]) => (*namespace, *uid),
                _ => ("", ""),
            };
            let mut counts = LogCounts {
                time_ns: end_ns,
                namespace: namespace.to_string(),
                pod: log.pod.clone(),
                uid: uid.to_string(),
                container: log.container.clone(),
                ..LogCounts::default()
            };
            let mut masker = Masker::default();
            for bytes in log.file.1.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let Some((wall_ns, text)) = stamped(bytes) else {
                    counts.lines_malformed += 1;
                    continue;
                };
                // A key that begins before the capture goes on in it.
                let (text, cut) = line_text(text);
                let text = masker.mask(&text);
                if !(start_ns..=end_ns).contains(&wall_ns) {
                    continue;
                }
                counts.lines += 1;
                counts.bytes += bytes.len() as u64 + 1;
                let Some(rest) = left.checked_sub(text.len() as u64) else {
                    counts.lines_dropped += 1;
                    continue;
                };
                left = rest;
                counts.lines_kept += 1;
                counts.bytes_kept += text.len() as u64;
                counts.lines_cut += u64::from(cut);
                placed.lines.push(LogFact {
                    time_ns: wall_ns,
                    wall_ns,
                    namespace: counts.namespace.clone(),
                    pod: counts.pod.clone(),
                    uid: counts.uid.clone(),
                    container: counts.container.clone(),
                    text,
                    cut,
                    ..LogFact::default()
                });
            }
            placed.counts.push(counts);
        }
        placed.lines.sort_by_key(|line| line.wall_ns);
        placed
    }
}

/// A line's stamp and text.
fn stamped(line: &[u8]) -> Option<(u64, &[u8])> {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (stamp, text) = line.split_at_checked(end)?;
    let time: Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    Some((u64::try_from(time.as_nanosecond()).ok()?, text.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfr_bundle::kube::KubeChange;
    use serde_json::json;

    #[test]
    fn lines_of_the_window_are_placed_by_their_stamps() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "a.b.main.log",
            "1970-01-01T00:00:01Z early\n1970-01-01T00:00:11Z token=x\nno stamp\n1970-01-01T00:00:13.5Z\n",
        );
        write("logs/c.main.log", "1970-01-01T00:00:12Z second\n1970-01-01T00:00:99Z\n1970-01-01T00:01:00Z late\n");
        write("notes.txt", "no log");
        let logs = PodLog::read_all(folder.path()).unwrap();
        let pod = |namespace: &str, name: &str| {
            let object = json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-1")}});
            KubeFact::new(0, KubeChange::Listed, 1, "Pod", &object).unwrap()
        };
        let objects = [pod("shop", "a.b"), pod("x", "c"), pod("y", "c")];
        let second = 1_000_000_000;
        let placed = PodLog::place(&logs, &objects, 10 * second, 20 * second);
        let lines: Vec<_> = placed
            .lines
            .iter()
            .map(|line| (line.wall_ns / second, &*line.namespace, &*line.pod, &*line.text))
            .collect();
        assert_eq!(lines, [(11, "shop", "a.b", "token=?"), (12, "", "c", "second"), (13, "shop", "a.b", "")]);
        let counts: Vec<_> = placed.counts.iter().map(|one| (one.lines, one.lines_kept, one.lines_malformed)).collect();
        assert_eq!(counts, [(2, 2, 1), (1, 1, 1)]);
    }
}
