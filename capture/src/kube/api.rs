//! The API's lists and watches (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// Objects of one page of a list.
const PAGE: u32 = 250;
/// Largest page that is read, bytes: 250 objects of the largest size that etcd stores (1.5 MiB) would be more, and are not
/// met.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// Largest line of a watch, bytes: one object.
const MAX_LINE_BYTES: usize = 8 << 20;
/// Most of an error's answer that is read, bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// How long a page of a list may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a watch goes on before it is asked for again, seconds: the server ends it.
const WATCH_S: u32 = 290;
/// How long a watch may be silent beyond that; the server sends bookmarks every minute.
const SILENCE: Duration = Duration::from_secs(300);

/// Where a kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// `Pod`, ...
    pub name: &'static str,
    /// `/api/v1/pods`, ...
    pub path: &'static str,
    /// Only metadata is asked for.
    pub metadata_only: bool,
}

const fn kind(name: &'static str, path: &'static str) -> Kind {
    Kind { name, path, metadata_only: false }
}

/// All recorded kinds, those first that names and addresses need.
pub const KINDS: &[Kind] = &[
    kind("Node", "/api/v1/nodes"),
    kind("Pod", "/api/v1/pods"),
    kind("Service", "/api/v1/services"),
    kind("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices"),
    kind("ReplicaSet", "/apis/apps/v1/replicasets"),
    kind("Deployment", "/apis/apps/v1/deployments"),
    kind("StatefulSet", "/apis/apps/v1/statefulsets"),
    kind("DaemonSet", "/apis/apps/v1/daemonsets"),
    kind("Job", "/apis/batch/v1/jobs"),
    kind("CronJob", "/apis/batch/v1/cronjobs"),
    kind("Namespace", "/api/v1/namespaces"),
    kind("Event", "/api/v1/events"),
    kind("HorizontalPodAutoscaler", "/apis/autoscaling/v2/horizontalpodautoscalers"),
    kind("PodDisruptionBudget", "/apis/policy/v1/poddisruptionbudgets"),
    kind("PersistentVolumeClaim", "/api/v1/persistentvolumeclaims"),
    kind("Ingress", "/apis/networking.k8s.io/v1/ingresses"),
    kind("NetworkPolicy", "/apis/networking.k8s.io/v1/networkpolicies"),
    Kind { name: "ConfigMap", path: "/api/v1/configmaps", metadata_only: true },
];

/// Why the API didn't answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The resource version is too old, or the token of a list has expired: to be listed anew.
    #[error("the server no longer knows the state to go on from")]
    Expired,
    /// Too many requests, or the server is overloaded; when to come back, where it says so.
    #[error("the server asks to come back later ({0})")]
    Busy(u16, Option<Duration>),
    /// Not allowed.
    #[error("not allowed ({0}): {1}")]
    Forbidden(u16, String),
    /// The server doesn't know the kind.
    #[error("the server doesn't have it")]
    Absent,
    /// Another error of the server.
    #[error("the server failed ({0}): {1}")]
    Status(u16, String),
    /// No answer.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// The answer is not what the API answers.
    #[error("the answer is none of the Kubernetes API: {0}")]
    Strange(String),
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// Its objects.
    pub items: Vec<Value>,
    /// Token of the next page.
    pub next: Option<String>,
    /// The state that the list shows.
    pub version: String,
}

/// Asks for one page of a list; `next` is the token of the page before.
pub async fn list(client: &Client, kind: &Kind, next: Option<&str>) -> Result<Page, Failure> {
    let mut uri = format!("{}?limit={PAGE}", kind.path);
    if let Some(next) = next {
        uri.push_str("&continue=");
        uri.push_str(&escaped(next));
    }
    let accept = match kind.metadata_only {
        true => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        false => "application/json",
    };
    let asked = async {
        let body = ask(client, &uri, accept).await?;
        let limited = Limited::new(body, MAX_PAGE_BYTES).collect().await;
        limited.map(|body| body.to_bytes()).map_err(|error| Failure::Unreachable(error.to_string()))
    };
    let bytes = tokio::time::timeout(PAGE_TIMEOUT, asked)
        .await
        .map_err(|_| Failure::Unreachable(format!("nothing within {} s", PAGE_TIMEOUT.as_secs())))??;
    let mut page: Value = serde_json::from_slice(&bytes).map_err(|error| Failure::Strange(error.to_string()))?;
    let text = |name: &str| page["metadata"][name].as_str().filter(|text| !text.is_empty()).map(str::to_string);
    let (version, next) = (text("resourceVersion"), text("continue"));
    match (page.get_mut("items").map(Value::take), version) {
        (Some(Value::Array(items)), Some(version)) => Ok(Page { items, next, version }),
        // An empty list may be null.
        (Some(Value::Null), Some(version)) => Ok(Page { items: Vec::new(), next, version }),
        _ => Err(Failure::Strange("a list without items or version".to_string())),
    }
}

/// A watch: changes as they come.
pub struct Watch {
    body: Body,
    pending: Vec<u8>,
    /// Of `pending`, what has no line end.
    searched: usize,
}

/// Asks for the changes since a version.
pub async fn watch(client: &Client, kind: &Kind, version: &str) -> Result<Watch, Failure> {
    let uri = format!(
        "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={}",
        kind.path,
        escaped(version)
    );
    let accept = match kind.metadata_only {
        true => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        false => "application/json",
    };
    let body = tokio::time::timeout(PAGE_TIMEOUT, ask(client, &uri, accept))
        .await
        .map_err(|_| Failure::Unreachable(format!("nothing within {} s", PAGE_TIMEOUT.as_secs())))??;
    Ok(Watch { body, pending: Vec::new(), searched: 0 })
}

impl Watch {
    /// The next change, as the API tells it; `None` when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            let unseen = self.pending.get(self.searched..).unwrap_or_default();
            if let Some(length) = unseen.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(self.searched + length + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(|error| Failure::Strange(error.to_string()));
            }
            self.searched = self.pending.len();
            if self.pending.len() > MAX_LINE_BYTES {
                return Err(Failure::Strange("a change without end".to_string()));
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            match frame.map_err(|_| Failure::Unreachable(format!("silent for {} s", SILENCE.as_secs())))? {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Failure::Unreachable(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}

/// Sends a request; an answer that is an error becomes one.
async fn ask(client: &Client, uri: &str, accept: &str) -> Result<Body, Failure> {
    let request = http::Request::get(uri).header(http::header::ACCEPT, accept).body(Body::empty());
    let request = request.map_err(|error| Failure::Strange(error.to_string()))?;
    let response = client.send(request).await.map_err(|error| Failure::Unreachable(chain(&error)))?;
    let status = response.status().as_u16();
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    let wait = response.headers().get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let told = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect().await;
    let told = told.map(|body| body.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<Value>(&told).ok();
    let message = message.as_ref().and_then(|status| status["message"].as_str()).unwrap_or("no reason given");
    Err(failure(status, message, wait.map(Duration::from_secs)))
}

/// What a status (of HTTP, or of an `ERROR` in a watch) means.
pub fn failure(status: u16, message: &str, wait: Option<Duration>) -> Failure {
    let message: String = message.chars().take(200).collect();
    match status {
        410 => Failure::Expired,
        429 | 503 | 504 => Failure::Busy(status, wait),
        401 | 403 => Failure::Forbidden(status, message),
        404 => Failure::Absent,
        _ => Failure::Status(status, message),
    }
}

/// An error with its causes, which say more than it does.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// Percent-encoded for a query (RFC 3986).
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_recorded_kind_is_asked_for_and_may_be() {
        let asked: BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(asked, kfr_bundle::kube::recorded_kinds().collect());
        // By group and resource, as the role names them.
        let role = include_str!("../../../deploy/clusterrole.yaml");
        let mut allowed = BTreeSet::new();
        let mut group = String::new();
        let list = |line: &str| line.split_once('[').unwrap().1.trim_end_matches(']').replace(['"', ' '], "");
        for line in role.lines() {
            if line.contains("apiGroups:") {
                group = list(line);
            } else if line.contains("resources:") {
                allowed.extend(list(line).split(',').map(|resource| format!("{group}/{resource}")));
            } else if line.contains("verbs:") {
                assert_eq!(list(line), "list,watch");
            }
        }
        let needed = KINDS.iter().map(|kind| {
            let parts: Vec<_> = kind.path.split('/').collect();
            let group = if parts[1] == "api" { "" } else { parts[2] };
            format!("{group}/{}", parts.last().unwrap())
        });
        assert_eq!(allowed, needed.collect());
    }

    #[test]
    fn what_stands_in_a_query_is_escaped() {
        assert_eq!(escaped("a.b-c_d~1"), "a.b-c_d~1");
        assert_eq!(escaped("ey==/+&ü"), "ey%3D%3D%2F%2B%26%C3%BC");
    }
}
