//! The calls of the API that a cluster capture makes, beside those of [`crate::kube`].

use std::io;
use std::time::Duration;

use http::Method;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use kube::client::Body;
use kube::{Client, Config};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::objects::{BINARY, CONTAINER, FOLDER};
use crate::kube::api::{Failure, chain, escaped, failure};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a command in a pod may be silent: longer than [`super::agent::send`] waits for its recorder.
const SILENCE: Duration = Duration::from_secs(45);
const MAX_ANSWER_BYTES: usize = 64 << 20;
const PAGE: u32 = 500;
/// What a stream of a command holds at most before it is read, bytes.
const STREAM_BYTES: usize = 256 << 10;

/// A namespace of a cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    pub namespace: String,
}

impl Cluster {
    /// Connects; `None` is the namespace of the context.
    pub fn new(config: Config, namespace: Option<&str>) -> Result<Self, kube::Error> {
        let namespace = namespace.unwrap_or(&config.default_namespace).to_string();
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    async fn call(&self, method: Method, uri: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let strange = |error: &dyn std::fmt::Display| Failure::Strange(error.to_string());
        let content = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(content))
            .map_err(|error| strange(&error))?;
        let asked = async {
            let response = self.client.send(request).await.map_err(|error| Failure::Unreachable(chain(&error)))?;
            let status = response.status();
            let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let bytes = bytes.map_err(|error| Failure::Unreachable(error.to_string()))?.to_bytes();
            let answer = serde_json::from_slice::<Value>(&bytes);
            match (status.is_success(), answer) {
                (true, answer) => answer.map_err(|error| strange(&error)),
                (false, answer) => {
                    let answer = answer.unwrap_or_default();
                    Err(failure(status.as_u16(), answer["message"].as_str().unwrap_or("no reason given"), None))
                }
            }
        };
        let answer = tokio::time::timeout(TIMEOUT, asked).await;
        answer.map_err(|_| Failure::Unreachable(format!("nothing within {} s", TIMEOUT.as_secs())))?
    }

    /// Objects of a list, all pages of it.
    async fn list(&self, path: &str, selector: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let uri = format!("{path}?limit={PAGE}{selector}{next}");
            let mut page = self.call(Method::GET, &uri, None).await?;
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                all.extend(items);
            }
            match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={}", escaped(token)),
                None => return Ok(all),
            }
        }
    }

    /// Nodes, by a label selector if there is one.
    pub async fn nodes(&self, selector: Option<&str>) -> Result<Vec<Value>, Failure> {
        let selector = selector.map(|text| format!("&labelSelector={}", escaped(text))).unwrap_or_default();
        self.list("/api/v1/nodes", &selector).await
    }

    /// Pods with a label of this value.
    pub async fn pods(&self, label: &str, value: &str) -> Result<Vec<Value>, Failure> {
        let selector = format!("&labelSelector={}", escaped(&format!("{label}={value}")));
        self.list(&format!("/api/v1/namespaces/{}/pods", escaped(&self.namespace)), &selector).await
    }

    /// The last event about a Job: why it has no pod.
    pub async fn last_event(&self, job: &str) -> Option<String> {
        let selector =
            format!("&fieldSelector={}", escaped(&format!("involvedObject.kind=Job,involvedObject.name={job}")));
        let events = self.list(&format!("/api/v1/namespaces/{}/events", escaped(&self.namespace)), &selector).await;
        Some(events.ok()?.last()?["message"].as_str()?.to_string())
    }

    fn jobs(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", escaped(&self.namespace))
    }

    /// Creates a Job.
    pub async fn create(&self, job: &Value) -> Result<(), Failure> {
        self.call(Method::POST, &self.jobs(), Some(job)).await.map(|_| ())
    }

    /// Deletes a Job and its pod; one that is gone is no error.
    pub async fn delete(&self, job: &str) -> Result<(), Failure> {
        let uri = format!("{}/{}?propagationPolicy=Background", self.jobs(), escaped(job));
        match self.call(Method::DELETE, &uri, None).await {
            Err(Failure::Absent) | Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Runs `kfr node COMMAND` in a pod; `each` gets what it writes to standard output.
    ///
    /// # Errors
    /// Why it could not be run, broke off or failed; what came until then was handed over.
    pub async fn exec(
        &self,
        pod: &str,
        command: &[&str],
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let full = [BINARY, "node"].into_iter().chain(command.iter().copied()).chain(["--folder", FOLDER]);
        let parameters = AttachParams {
            container: Some(CONTAINER.to_string()),
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
            max_stdin_buf_size: None,
            max_stdout_buf_size: Some(STREAM_BYTES),
            max_stderr_buf_size: Some(STREAM_BYTES),
        };
        let started = tokio::time::timeout(TIMEOUT, pods.exec(pod, full, &parameters)).await;
        let mut process = started.map_err(|_| "no answer".to_string())?.map_err(|error| chain(&error))?;
        let (Some(mut stdout), Some(stderr), Some(status)) =
            (process.stdout(), process.stderr(), process.take_status())
        else {
            return Err("the stream has no output".to_string());
        };
        let mut buffer = vec![0; STREAM_BYTES];
        let mut status = std::pin::pin!(status);
        let mut ended = None;
        loop {
            tokio::select! {
                biased;
                read = stdout.read(&mut buffer) => match read {
                    Ok(0) => break,
                    Ok(length) => {
                        each(buffer.get(..length).unwrap_or_default()).map_err(|error| error.to_string())?;
                    }
                    Err(error) => return Err(error.to_string()),
                },
                // Of a connection that breaks off, the output has no end; only this tells.
                status = &mut status, if ended.is_none() => match status {
                    Some(status) => ended = Some(status),
                    None => return Err("the stream broke off".to_string()),
                },
                () = tokio::time::sleep(SILENCE) => return Err(format!("silent for {} s", SILENCE.as_secs())),
            }
        }
        let status = match ended {
            Some(status) => status,
            None => tokio::time::timeout(TIMEOUT, status).await.ok().flatten().ok_or("the stream broke off")?,
        };
        if status.status.as_deref() == Some("Success") {
            return Ok(());
        }
        let mut said = Vec::new();
        // The process has ended, so nothing more comes.
        let _best_effort = tokio::time::timeout(Duration::from_secs(1), stderr.take(2000).read_to_end(&mut said)).await;
        let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
        Err(if said.is_empty() { status.message.unwrap_or_else(|| "it failed".to_string()) } else { said })
    }
}
