//! One kind: listed, then watched, and listed again where the watch can't go on.

use std::sync::Arc;
use std::time::Duration;

use kfr_bundle::kube::{KubeChange, KubeFact};
use kube::Client;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::api::{self, Failure, Kind};
use super::{Now, Sink};

/// Waits between tries: doubled up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Between tries of what is not allowed or doesn't exist: it may be granted, or installed.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// How often the own node is asked for before pods are listed without knowing it: 7.5 s of waits.
const NODE_TRIES: u32 = 5;

/// What all kinds have in common.
#[derive(Clone)]
pub struct Source {
    /// The cluster.
    pub client: Client,
    /// Boot id of the node of which pods are kept in full.
    pub boot_id: Arc<str>,
    /// The clock of rows.
    pub now: Now,
    /// Where rows go.
    pub sink: Sink,
    /// One list at a time: several large ones would be in memory at once.
    pub listing: Arc<Semaphore>,
}

/// Follows one kind.
pub struct Follower {
    source: Source,
    kind: &'static Kind,
    /// Number of the last list.
    list: u32,
    /// It is complete.
    complete: bool,
    /// Of pods: the node of which they are kept in full; `None`: of all.
    node: Option<String>,
    /// The API said which node that is, or that there is none.
    node_known: bool,
    node_tries: u32,
    wait: Duration,
    /// Why nothing is seen, as it was told last.
    blind: Option<String>,
}

impl Follower {
    /// One that has seen nothing yet.
    pub fn new(source: Source, kind: &'static Kind) -> Self {
        Self {
            source,
            kind,
            list: 0,
            complete: false,
            node: None,
            node_known: kind.name != "Pod",
            node_tries: 0,
            wait: FIRST_WAIT,
            blind: None,
        }
    }

    /// Goes on until it is stopped.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        // It may have waited for its turn all the time.
        if !self.complete && self.blind.is_none() {
            self.tell_blind("no complete list arrived before the recording ended".to_string());
        }
    }

    async fn follow(&mut self) {
        loop {
            match self.list_all().await {
                Ok(version) => self.watch_on(version).await,
                Err(failure) => self.pause(&failure).await,
            }
        }
    }

    /// Lists everything; the version that the list shows.
    async fn list_all(&mut self) -> Result<String, Failure> {
        self.complete = false;
        let listing = self.source.listing.clone();
        let _one_at_a_time = listing.acquire().await;
        if !self.node_known {
            self.find_node().await?;
        }
        self.list += 1;
        let mut next = None;
        loop {
            let page = api::list(&self.source.client, self.kind, next.as_deref()).await?;
            let rows = page.items.iter().filter_map(|object| self.row(KubeChange::Listed, self.list, object)).collect();
            self.hand_over(rows);
            match page.next {
                Some(token) => next = Some(token),
                None => {
                    let complete =
                        KubeFact::of_kind((self.source.now)(), KubeChange::Complete, self.list, self.kind.name, "");
                    let version = page.version.clone();
                    self.hand_over(vec![KubeFact { resource_version: page.version, ..complete }]);
                    self.complete = true;
                    self.sees();
                    return Ok(version);
                }
            }
        }
    }

    /// Asks which node has the boot id. Only what may pass, and not for ever, is a failure: then pods are kept in full.
    async fn find_node(&mut self) -> Result<(), Failure> {
        self.node_tries += 1;
        match node_of(&self.source.client, &self.source.boot_id).await {
            Ok(node) => (self.node, self.node_known) = (node, true),
            Err(failure) => {
                let refused = matches!(failure, Failure::Forbidden(..) | Failure::Absent);
                if !refused && self.node_tries < NODE_TRIES {
                    return Err(failure);
                }
                self.tell_blind(format!("all pods are kept in full, as this node is not known: {failure}"));
            }
        }
        Ok(())
    }

    /// Watches from a version on, until it has to be listed anew.
    async fn watch_on(&mut self, mut version: String) {
        loop {
            let failure = match api::watch(&self.source.client, self.kind, &version).await {
                Ok(watch) => self.read(watch, &mut version).await,
                Err(failure) => Some(failure),
            };
            match failure {
                // The server ends each watch after a while.
                None => {}
                Some(Failure::Expired) => {
                    // What changed since is in the next list.
                    self.rest().await;
                    return;
                }
                Some(failure) => self.pause(&failure).await,
            }
        }
    }

    /// Hands over the changes of a watch; why it ended, if not by the server's wish.
    async fn read(&mut self, mut watch: api::Watch, version: &mut String) -> Option<Failure> {
        loop {
            let change = match watch.next().await {
                Ok(Some(change)) => change,
                Ok(None) => return None,
                Err(failure) => return Some(failure),
            };
            self.sees();
            let object = &change["object"];
            let seen = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let kind = match change["type"].as_str() {
                Some("ADDED") => KubeChange::Added,
                Some("MODIFIED") => KubeChange::Modified,
                Some("DELETED") => KubeChange::Deleted,
                Some("BOOKMARK") => {
                    if !seen.is_empty() {
                        *version = seen.to_string();
                    }
                    continue;
                }
                Some("ERROR") => {
                    let status = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
                    return Some(api::failure(status, object["message"].as_str().unwrap_or_default(), None));
                }
                other => return Some(Failure::Strange(format!("a change of type {}", other.unwrap_or("none")))),
            };
            if !seen.is_empty() {
                *version = seen.to_string();
            }
            let row = self.row(kind, 0, object);
            self.hand_over(row.into_iter().collect());
        }
    }

    fn row(&self, change: KubeChange, list: u32, object: &Value) -> Option<KubeFact> {
        let elsewhere = self.kind.name == "Pod"
            && self.node.as_deref().is_some_and(|node| object["spec"]["nodeName"].as_str() != Some(node));
        let time_ns = (self.source.now)();
        match elsewhere {
            true => KubeFact::pod_elsewhere(time_ns, change, list, object),
            false => KubeFact::new(time_ns, change, list, self.kind.name, object),
        }
    }

    fn hand_over(&self, rows: Vec<KubeFact>) {
        if !rows.is_empty() {
            (self.source.sink)(rows);
        }
    }

    /// Something was seen.
    fn sees(&mut self) {
        self.wait = FIRST_WAIT;
        if self.blind.take().is_some() {
            self.hand_over(vec![KubeFact::of_kind((self.source.now)(), KubeChange::Seeing, 0, self.kind.name, "")]);
        }
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Nothing is seen for this reason: says so, once.
    fn tell_blind(&mut self, reason: String) {
        if self.blind.as_ref() != Some(&reason) {
            let row = KubeFact::of_kind((self.source.now)(), KubeChange::Blind, 0, self.kind.name, &reason);
            self.hand_over(vec![row]);
            self.blind = Some(reason);
        }
    }

    /// Says that nothing is seen, and waits before the next try.
    async fn pause(&mut self, failure: &Failure) {
        self.tell_blind(failure.to_string());
        let wait = match failure {
            Failure::Forbidden(..) | Failure::Absent => REFUSED_WAIT,
            Failure::Busy(_, Some(wait)) => (*wait).clamp(FIRST_WAIT, LONGEST_WAIT),
            _ => return self.rest().await,
        };
        tokio::time::sleep(wait).await;
    }
}

/// The name of the node with this boot id; `None` if there is none.
async fn node_of(client: &Client, boot_id: &str) -> Result<Option<String>, Failure> {
    let Some(nodes) = api::KINDS.iter().find(|kind| kind.name == "Node") else { return Ok(None) };
    let mut next = None;
    loop {
        let page = api::list(client, nodes, next.as_deref()).await?;
        let own = page.items.iter().find(|node| node["status"]["nodeInfo"]["bootID"].as_str() == Some(boot_id));
        if let Some(node) = own {
            return Ok(node["metadata"]["name"].as_str().map(str::to_string));
        }
        match page.next {
            Some(token) => next = Some(token),
            None => return Ok(None),
        }
    }
}
