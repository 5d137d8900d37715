//! What a pod is at, and what is asked of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::agent::Sending;
use super::api::Cluster;
use super::objects::RUN;
use super::{Node, Tell};

/// Tries of a call that has to succeed, and the wait between them, doubled each time.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longest first line of a bundle that is sent, bytes.
const MAX_SENDING_BYTES: usize = 16 << 10;

/// What a pod is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not running yet, and why.
    Waiting(String),
    /// Its container runs.
    Running,
    /// It will not run again, and why.
    Ended(String),
}

/// What the API says of a pod (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>).
pub fn state(pod: &Value) -> State {
    let text = |value: &Value, names: &[&str]| {
        let parts =
            names.iter().filter_map(|name| value[*name].as_str()).map(str::trim).filter(|text| !text.is_empty());
        let text = parts.collect::<Vec<_>>().join(": ");
        text.chars().take(400).collect::<String>().replace('\n', "; ")
    };
    let status = &pod["status"];
    let container = &status["containerStatuses"][0]["state"];
    if let Some(ended) = container.get("terminated") {
        let code = ended["exitCode"].as_i64().unwrap_or(-1);
        return State::Ended(format!("its pod ended with code {code}: {}", text(ended, &["reason", "message"])));
    }
    if matches!(status["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return State::Ended(format!("its pod ended: {}", text(status, &["reason", "message"])));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return State::Ended("its pod is being deleted".to_string());
    }
    if container.get("running").is_some() {
        return State::Running;
    }
    if let Some(waiting) = container.get("waiting") {
        let why = text(waiting, &["reason", "message"]);
        return match waiting["reason"].as_str() {
            // Nothing that time heals.
            Some("InvalidImageName" | "ErrImageNeverPull" | "CreateContainerConfigError") => State::Ended(why),
            _ => State::Waiting(why),
        };
    }
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let unmet =
        conditions.iter().find(|condition| condition["status"] == "False" && !text(condition, &["message"]).is_empty());
    State::Waiting(unmet.map_or_else(
        || "its node has not started the pod; is it ready?".to_string(),
        |condition| text(condition, &["reason", "message"]),
    ))
}

/// Tries something a few times.
pub async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> Result<T, String> {
    let mut wait = FIRST_WAIT;
    let mut tries = 0;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                tries += 1;
                if tries >= TRIES {
                    return Err(error);
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
        }
    }
}

/// Runs a command that says nothing in a node's pod; why the pod is gone, if that is why it can't be.
pub async fn command(cluster: &Cluster, node: &Node, run: &str, command: &str) -> Result<(), String> {
    let pod = node.pod.clone().ok_or("it has no pod")?;
    match patiently(async || cluster.exec(&pod, &[command], |_| Ok(())).await).await {
        Ok(()) => Ok(()),
        Err(error) => Err(gone(cluster, node, run).await.unwrap_or(error)),
    }
}

/// What came of fetching a bundle.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The bundle, or what arrived of it.
    pub bundle: Option<PathBuf>,
    /// The recorder's exit code.
    pub exit: Option<i32>,
    /// What went wrong.
    pub failure: Option<String>,
}

/// What arrived of a bundle that was not fetched whole.
pub fn partial(path: &Path) -> Option<PathBuf> {
    let partial = partial_path(path);
    partial.metadata().is_ok_and(|found| found.len() > 0).then_some(partial)
}

fn partial_path(path: &Path) -> PathBuf {
    path.with_extension("kfr.partial")
}

/// Fetches a bundle, going on where a transfer broke off, as long as the node keeps it.
pub async fn fetch(cluster: &Cluster, node: &Node, run: &str, path: &Path, hold: Duration, tell: &Tell) -> Fetched {
    let unwritable = |error: io::Error| Fetched {
        failure: Some(format!("{} can't be written: {error}", path.display())),
        ..Fetched::default()
    };
    let partial_path = partial_path(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial_path);
    let mut receiver = match file {
        Ok(file) => Receiver { file, line: Some(Vec::new()), sending: Sending::default(), received: 0 },
        Err(error) => return unwritable(error),
    };
    let Some(pod) = &node.pod else { return Fetched::default() };
    let began = Instant::now();
    let mut wait = FIRST_WAIT;
    let failure = loop {
        let from = receiver.received;
        receiver.line = Some(Vec::new());
        let result = cluster.exec(pod, &["send", "--from", &from.to_string()], |bytes| receiver.take(bytes)).await;
        let ended = receiver.line.is_none();
        if ended && receiver.received == receiver.sending.total {
            // Whatever became of the stream after that.
            break None;
        }
        let error = result.err().unwrap_or_else(|| "the bundle broke off".to_string());
        if receiver.received > from {
            wait = FIRST_WAIT;
        }
        let why = gone(cluster, node, run).await;
        if why.is_some() || began.elapsed() + wait >= hold {
            break Some(why.unwrap_or(error));
        }
        tell(&node.outcome.node, &format!("{error}; tried again"));
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    };
    let Receiver { file, sending, received, .. } = receiver;
    if let Err(error) = file.sync_data() {
        return unwritable(error);
    }
    let exit = sending.exit;
    match failure {
        Some(why) => {
            let failure = format!("{received} bytes of its bundle arrived: {why}");
            Fetched { bundle: partial(path), exit, failure: Some(failure) }
        }
        None if received == 0 => {
            let _best_effort = std::fs::remove_file(&partial_path);
            let said = if sending.said.is_empty() { "it recorded nothing" } else { &sending.said };
            Fetched { bundle: None, exit, failure: Some(said.to_string()) }
        }
        None => match std::fs::rename(&partial_path, path) {
            Ok(()) => {
                tell(&node.outcome.node, &format!("{} KiB fetched", received.div_ceil(1024)));
                // So that the pod needn't wait; it is deleted in any case.
                let _best_effort = cluster.exec(pod, &["fetched"], |_| Ok(())).await;
                Fetched { bundle: Some(path.to_path_buf()), exit, failure: None }
            }
            Err(error) => unwritable(error),
        },
    }
}

/// Why a node's pod can't be asked any more; `None` if it can, or nobody says.
async fn gone(cluster: &Cluster, node: &Node, run: &str) -> Option<String> {
    let pods = cluster.pods(RUN, run).await.ok()?;
    match pods.iter().find(|pod| pod["metadata"]["name"].as_str() == node.pod.as_deref()) {
        None => Some("its pod was deleted".to_string()),
        Some(pod) => match state(pod) {
            State::Ended(why) => Some(why),
            _ => None,
        },
    }
}

/// A bundle on its way: a line that describes it, then its bytes.
struct Receiver {
    file: File,
    /// What came of the line, until it is whole.
    line: Option<Vec<u8>>,
    sending: Sending,
    received: u64,
}

impl Receiver {
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(line) = &mut self.line {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (head, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            line.extend_from_slice(head);
            if line.len() > MAX_SENDING_BYTES {
                return Err(io::Error::other("it sends no bundle"));
            }
            if end.is_none() {
                return Ok(());
            }
            self.sending = serde_json::from_slice(line).map_err(|_| io::Error::other("it sends no bundle"))?;
            if self.sending.from != self.received || self.sending.total < self.received {
                return Err(io::Error::other("its bundle has become shorter"));
            }
            self.line = None;
            bytes = rest.get(1..).unwrap_or_default();
        }
        let left = self.sending.total - self.received;
        if bytes.len() as u64 > left {
            return Err(io::Error::other("it sends more than its bundle"));
        }
        self.file.write_all(bytes)?;
        self.received += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_told_by_its_container_first() {
        let container = |state: Value| json!({"status": {"phase": "Pending", "containerStatuses": [{"state": state}]}});
        assert_eq!(state(&container(json!({"running": {}}))), State::Running);
        let pulling =
            container(json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}));
        assert_eq!(state(&pulling), State::Waiting("ImagePullBackOff: Back-off pulling image \"x\"".to_string()));
        assert!(matches!(state(&container(json!({"waiting": {"reason": "InvalidImageName"}}))), State::Ended(_)));
        let killed = container(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
        assert_eq!(state(&killed), State::Ended("its pod ended with code 137: OOMKilled".to_string()));
        let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}});
        assert_eq!(state(&evicted), State::Ended("its pod ended: Evicted: low on memory".to_string()));
        let deleted = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {}});
        assert!(matches!(state(&deleted), State::Ended(_)));
        assert!(matches!(state(&json!("hello")), State::Waiting(_)));
    }

    #[test]
    fn what_is_no_bundle_is_refused_before_it_is_kept() {
        let receiver = || Receiver {
            file: tempfile::tempfile().unwrap(),
            line: Some(Vec::new()),
            sending: Sending::default(),
            received: 0,
        };
        let mut whole = receiver();
        for byte in b"{\"from\":0,\"total\":3}\nabc" {
            whole.take(&[*byte]).unwrap();
        }
        assert_eq!((whole.received, whole.sending.total), (3, 3));
        assert!(whole.take(b"d").is_err());
        assert!(receiver().take(&[b'x'; MAX_SENDING_BYTES + 1]).is_err());
        assert!(receiver().take(b"OCI runtime exec failed\n").is_err());
        assert!(receiver().take(b"{\"from\":7,\"total\":9}\n").is_err());
    }
}
