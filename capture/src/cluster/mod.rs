//! A whole cluster recorded by one command: a pod a node for a while, its bundles fetched through the API server.
//!
//! The client's own credentials create, ask and delete; the pods have none. Each node records into its own folder, so the
//! API server may be gone while it does; what Kubernetes says is recorded by the client. See `docs/OPERATIONS.md`.

pub mod agent;
mod api;
mod course;
mod objects;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kfr_bundle::Uuid;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use self::api::Cluster as Connection;
pub use self::objects::{CAPABILITIES, Recording};
use self::objects::{MANAGED_BY, RUN, job_name};
use crate::kube::{CONNECT_TIMEOUT, Cluster, runtime};

/// Jobs created, or commands run in pods, at once.
const AT_ONCE: usize = 16;
/// Bundles fetched at once: all of them go through one API server.
const FETCHES_AT_ONCE: usize = 4;
/// How often pods are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How soon Ctrl-C is heard.
const TICK: Duration = Duration::from_millis(100);
/// How long pods may take to be gone after they were deleted.
const GONE_TIMEOUT: Duration = Duration::from_secs(60);

/// A capture of a cluster.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cluster.
    pub cluster: Cluster,
    /// Label selector of nodes; `None`: all.
    pub nodes: Option<String>,
    /// Namespace in which pods run; `None`: the context's.
    pub namespace: Option<String>,
    /// What runs there; its namespace is set by [`Self::namespace`].
    pub recording: Recording,
}

/// Is told of each step of a node: name, what happened.
pub type Tell = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What came of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeOutcome {
    /// Its name.
    pub node: String,
    /// Its bundle, also of one of which only a part arrived.
    pub bundle: Option<PathBuf>,
    /// What went wrong.
    pub failure: Option<String>,
    /// The recorder's exit code, where it is known.
    pub exit: Option<i32>,
}

/// What came of a capture.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By node, in the order in which the API lists them.
    pub nodes: Vec<NodeOutcome>,
    /// Bundle of what Kubernetes said.
    pub kube: Option<PathBuf>,
    /// Why there is none.
    pub kube_failure: Option<String>,
    /// Names of Jobs that could not be removed; they remove themselves.
    pub left_behind: Vec<String>,
    /// Namespace of the Jobs.
    pub namespace: String,
    /// The run's label.
    pub run: String,
}

/// No node can be recorded: the cluster can't be asked, or has none like these.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoNodes(String);

struct Prepared {
    connection: Connection,
    recording: Recording,
    nodes: Vec<String>,
    run: String,
}

async fn prepare(plan: &Plan) -> Result<Prepared> {
    let mut config = plan.cluster.config.clone();
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Commands in pods are silent for as long as nothing is to be said; each wait has a limit of its own.
    config.read_timeout = None;
    let connection = Connection::new(config, plan.namespace.as_deref()).context("the cluster can't be asked")?;
    let found = connection
        .nodes(plan.nodes.as_deref())
        .await
        .map_err(|failure| NoNodes(format!("the nodes of the cluster can't be listed: {failure}")))?;
    let linux = |node: &&Value| {
        let os = node["metadata"]["labels"]["kubernetes.io/os"].as_str();
        os.is_none_or(|os| os == "linux")
    };
    let names = found.iter().filter(linux).filter_map(|node| node["metadata"]["name"].as_str());
    let nodes: Vec<String> = names.map(str::to_string).collect();
    if nodes.is_empty() {
        let selector = plan.nodes.as_ref().map(|text| format!(" with the labels {text}")).unwrap_or_default();
        return Err(NoNodes(format!("the cluster has no Linux nodes{selector}")).into());
    }
    let recording = Recording { namespace: connection.namespace.clone(), ..plan.recording.clone() };
    let run = Uuid::new_v4().simple().to_string().chars().take(8).collect();
    Ok(Prepared { connection, recording, nodes, run })
}

/// What [`gather`] would create, as YAML.
///
/// # Errors
/// If the cluster's nodes can't be listed.
pub fn dry_run(plan: &Plan) -> Result<String> {
    let prepared = runtime()?.block_on(prepare(plan))?;
    let mut text = String::new();
    for (number, node) in prepared.nodes.iter().enumerate() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&prepared.recording.job(&prepared.run, number, node))?);
    }
    Ok(text)
}

/// Records every node into a bundle in `folder`, and what Kubernetes says meanwhile into another. Whatever happens, what
/// was created is removed. `interrupted` is set by Ctrl-C: the first one ends the recording early, the second one gives
/// up what was not fetched.
///
/// # Errors
/// If there is nothing to record, or none of the nodes could be prepared; [`NoNodes`].
pub fn gather(plan: &Plan, folder: &Path, interrupted: &AtomicBool, tell: Tell) -> Result<Gathered> {
    let runtime = runtime()?;
    let gathered = LocalSet::new().block_on(&runtime, async {
        let prepared = prepare(plan).await?;
        Run::new(prepared, folder, interrupted, tell).course(&plan.cluster).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    gathered
}

/// A node at work.
#[derive(Debug, Clone, Default)]
struct Node {
    job: String,
    /// Name of its pod, once it has one.
    pod: Option<String>,
    /// What was told of it last.
    told: String,
    ready: bool,
    recording: bool,
    outcome: NodeOutcome,
}

struct Run<'a> {
    connection: Connection,
    recording: Recording,
    run: String,
    folder: &'a Path,
    nodes: Vec<Node>,
    interrupted: &'a AtomicBool,
    interrupts: u32,
    tell: Tell,
}

impl<'a> Run<'a> {
    fn new(prepared: Prepared, folder: &'a Path, interrupted: &'a AtomicBool, tell: Tell) -> Self {
        let Prepared { connection, recording, nodes, run } = prepared;
        let nodes = nodes.into_iter().enumerate().map(|(number, node)| Node {
            job: job_name(&run, number),
            outcome: NodeOutcome { node, ..NodeOutcome::default() },
            ..Node::default()
        });
        let nodes = nodes.collect();
        Self { connection, recording, run, folder, nodes, interrupted, interrupts: 0, tell }
    }

    /// Times that the user wished for an end.
    fn interrupts(&mut self) -> u32 {
        if self.interrupted.swap(false, Ordering::Relaxed) {
            self.interrupts += 1;
        }
        self.interrupts
    }

    async fn course(mut self, cluster: &Cluster) -> Result<Gathered> {
        self.tell_leftovers().await;
        let mut gathered =
            Gathered { namespace: self.recording.namespace.clone(), run: self.run.clone(), ..Gathered::default() };
        self.create().await;
        if self.nodes.iter().any(|node| node.outcome.failure.is_none()) {
            let kube = watched::Recorder::start(cluster.clone(), &self.folder.join("kubernetes.kfr"));
            self.wait_until_ready().await;
            if self.interrupts == 0 {
                self.begin().await;
                self.record().await;
            }
            match kube.and_then(watched::Recorder::finish) {
                Ok(path) => gathered.kube = Some(path),
                Err(error) => gathered.kube_failure = Some(format!("{error:#}")),
            }
            if self.interrupts() < 2 {
                self.fetch().await;
            }
        }
        gathered.left_behind = self.remove().await;
        gathered.nodes = self.nodes.into_iter().map(|node| node.outcome).collect();
        Ok(gathered)
    }

    /// Says which objects of other runs are still there.
    async fn tell_leftovers(&self) {
        let pods = self.connection.pods(MANAGED_BY.0, MANAGED_BY.1).await.unwrap_or_default();
        let mut runs: Vec<_> = pods.iter().filter_map(|pod| pod["metadata"]["labels"][RUN].as_str()).collect();
        runs.sort_unstable();
        runs.dedup();
        for run in runs {
            let namespace = &self.recording.namespace;
            (self.tell)(
                "",
                &format!(
                    "pods of another capture are there, which remove themselves; sooner with kubectl delete jobs -n {namespace} -l {RUN}={run}"
                ),
            );
        }
    }

    /// Does something with every node that has not failed and is `wanted`, so many at once; errors are the nodes' own.
    async fn each<F>(&mut self, at_once: usize, wanted: impl Fn(&Node) -> bool, work: impl Fn(Connection, Node) -> F)
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        let room = Arc::new(Semaphore::new(at_once));
        let mut tasks = JoinSet::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if node.outcome.failure.is_none() && wanted(node) {
                let (room, work) = (room.clone(), work(self.connection.clone(), node.clone()));
                tasks.spawn_local(async move {
                    let _permit = room.acquire_owned().await;
                    (number, work.await)
                });
            }
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok((number, Err(failure))) = done {
                self.fail(number, failure);
            }
        }
    }

    fn fail(&mut self, number: usize, failure: String) {
        if let Some(node) = self.nodes.get_mut(number)
            && node.outcome.failure.is_none()
        {
            (self.tell)(&node.outcome.node, &failure);
            node.outcome.failure = Some(failure);
        }
    }

    async fn create(&mut self) {
        let (recording, run) = (self.recording.clone(), self.run.clone());
        let jobs: Vec<Value> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(number, node)| recording.job(&run, number, &node.outcome.node))
            .collect();
        self.each(
            AT_ONCE,
            |_| true,
            |connection, node| {
                let job =
                    jobs.iter().find(|job| job["metadata"]["name"] == node.job.as_str()).cloned().unwrap_or_default();
                async move {
                    connection.create(&job).await.map_err(|failure| format!("its pod can't be created: {failure}"))
                }
            },
        )
        .await;
    }

    /// Looks at the pods once. Nodes whose pod has ended have failed.
    async fn look(&mut self) {
        let Ok(pods) = self.connection.pods(RUN, &self.run).await else { return };
        for number in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            if node.outcome.failure.is_some() {
                continue;
            }
            let of_job = |pod: &&Value| {
                pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == node.job.as_str()
                    || pod["metadata"]["labels"]["job-name"] == node.job.as_str()
            };
            let found = pods.iter().find(of_job);
            node.pod = found.and_then(|pod| pod["metadata"]["name"].as_str()).map(str::to_string).or(node.pod.take());
            let state = match (found, &node.pod) {
                (Some(pod), _) => course::state(pod),
                (None, None) => course::State::Waiting("no pod yet".to_string()),
                (None, Some(_)) => course::State::Ended("its pod was deleted".to_string()),
            };
            match state {
                course::State::Running => {
                    if !node.ready {
                        node.ready = true;
                        (self.tell)(&node.outcome.node, "ready");
                    }
                }
                course::State::Waiting(why) => {
                    if node.told != why {
                        (self.tell)(&node.outcome.node, &why);
                        node.told = why;
                    }
                }
                course::State::Ended(why) => self.fail(number, why),
            }
        }
    }

    /// Until every node is ready, has failed, or took too long.
    async fn wait_until_ready(&mut self) {
        let began = Instant::now();
        loop {
            self.look().await;
            let waiting = |node: &Node| node.outcome.failure.is_none() && !node.ready;
            if !self.nodes.iter().any(waiting) || self.interrupts() > 0 {
                break;
            }
            if began.elapsed() >= self.recording.ready_timeout {
                for number in 0..self.nodes.len() {
                    let Some(node) = self.nodes.get(number).filter(|node| waiting(node)) else { continue };
                    // A Job without a pod: its controller says why in an event only.
                    let event = if node.pod.is_none() { self.connection.last_event(&node.job).await } else { None };
                    let why = event.unwrap_or_else(|| node.told.clone());
                    let limit = self.recording.ready_timeout.as_secs();
                    self.fail(number, format!("not ready within {limit} s: {why}"));
                }
                break;
            }
            self.pause(POLL, 0).await;
        }
        if self.interrupts > 0 {
            for number in 0..self.nodes.len() {
                self.fail(number, "interrupted before it recorded".to_string());
            }
        }
    }

    async fn begin(&mut self) {
        let run = self.run.clone();
        self.each(
            AT_ONCE,
            |node| node.ready,
            |connection, node| {
                let run = run.clone();
                async move { course::command(&connection, &node, &run, "begin").await }
            },
        )
        .await;
        for node in &mut self.nodes {
            node.recording = node.ready && node.outcome.failure.is_none();
            if node.recording {
                (self.tell)(&node.outcome.node, "records");
            }
        }
    }

    /// Until the time is over, or nobody records any more.
    async fn record(&mut self) {
        let began = Instant::now();
        while began.elapsed() < self.recording.duration
            && self.nodes.iter().any(|n| n.recording && n.outcome.failure.is_none())
        {
            let left = self.recording.duration.saturating_sub(began.elapsed());
            self.pause(left.min(POLL), 0).await;
            if self.interrupts() > 0 {
                (self.tell)("", "recording is ended; what there is will be fetched (Ctrl-C once more gives it up)");
                let run = self.run.clone();
                self.each(
                    AT_ONCE,
                    |node| node.recording,
                    |connection, node| {
                        let run = run.clone();
                        async move {
                            // Without it the node records to its end; fetching waits for that.
                            let _best_effort = course::command(&connection, &node, &run, "end").await;
                            Ok(())
                        }
                    },
                )
                .await;
                return;
            }
            // A pod that is gone has nothing to be fetched.
            self.look().await;
        }
    }

    /// Waits, but no longer than until Ctrl-C was pressed more than `known` times.
    async fn pause(&mut self, time: Duration, known: u32) {
        let began = Instant::now();
        while began.elapsed() < time && self.interrupts() <= known {
            tokio::time::sleep(TICK.min(time)).await;
        }
    }

    async fn fetch(&mut self) {
        let room = Arc::new(Semaphore::new(FETCHES_AT_ONCE));
        let mut tasks = JoinSet::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if node.recording && node.outcome.failure.is_none() {
                let path = self.folder.join(format!("node-{number}.kfr"));
                let (room, connection, node) = (room.clone(), self.connection.clone(), node.clone());
                let (tell, hold) = (self.tell.clone(), self.recording.hold);
                let run = self.run.clone();
                tasks.spawn_local(async move {
                    let _permit = room.acquire_owned().await;
                    (number, course::fetch(&connection, &node, &run, &path, hold, &tell).await)
                });
            }
        }
        loop {
            let known = self.interrupts;
            tokio::select! {
                done = tasks.join_next() => match done {
                    Some(Ok((number, fetched))) => {
                        if let Some(node) = self.nodes.get_mut(number) {
                            node.outcome.bundle = fetched.bundle;
                            node.outcome.exit = fetched.exit;
                        }
                        match fetched.failure {
                            Some(failure) => self.fail(number, failure),
                            None => {
                                let job = self.nodes.get(number).map(|node| node.job.clone()).unwrap_or_default();
                                // As soon as it can go; what fails here is tried once more at the end.
                                let _best_effort = self.connection.delete(&job).await;
                            }
                        }
                    }
                    Some(Err(_panicked)) => {}
                    None => break,
                },
                () = tokio::time::sleep(TICK) => {
                    // The first Ctrl-C after the recording's end can only mean that waiting takes too long.
                    if self.interrupts() > known {
                        break;
                    }
                }
            }
        }
        tasks.shutdown().await;
        for number in 0..self.nodes.len() {
            let unfetched = self.nodes.get(number).filter(|n| n.recording && n.outcome.bundle.is_none());
            if unfetched.is_some() {
                let partial = self.folder.join(format!("node-{number}.kfr"));
                if let Some(node) = self.nodes.get_mut(number) {
                    node.outcome.bundle = course::partial(&partial);
                }
                self.fail(number, "not fetched".to_string());
            }
        }
    }

    /// Deletes everything and waits until it is gone; the names of what is not.
    async fn remove(&mut self) -> Vec<String> {
        let jobs: Vec<String> = self.nodes.iter().map(|node| node.job.clone()).collect();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for job in jobs {
            let (room, connection) = (room.clone(), self.connection.clone());
            tasks.spawn_local(async move {
                let _permit = room.acquire_owned().await;
                let deleted =
                    course::patiently(async || connection.delete(&job).await.map_err(|f| f.to_string())).await;
                deleted.err().map(|_| job)
            });
        }
        let mut left = Vec::new();
        while let Some(done) = tasks.join_next().await {
            left.extend(done.ok().flatten());
        }
        let began = Instant::now();
        while left.is_empty() && began.elapsed() < GONE_TIMEOUT && self.interrupts() < 2 {
            match self.connection.pods(RUN, &self.run).await {
                Ok(pods) if pods.is_empty() => break,
                _ => tokio::time::sleep(POLL.min(Duration::from_millis(500))).await,
            }
        }
        left.sort();
        left
    }
}

/// The selector that names everything of a run.
pub fn selector(run: &str) -> String {
    format!("{RUN}={run}")
}

/// A folder for parts that doesn't exist yet.
///
/// # Errors
/// If it exists, or can't be made.
pub fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            anyhow!("{} is there, with the bundles of an earlier capture: merge or remove them", folder.display())
        }
        _ => anyhow::Error::from(error).context(format!("{} can't be made", folder.display())),
    })
}
