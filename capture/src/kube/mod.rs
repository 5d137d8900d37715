//! What Kubernetes says while a node is recorded: each kind is listed once, then watched.
//!
//! The API is asked from a thread of its own, for reading only (`deploy/clusterrole.yaml`). Whatever it does, slow, refusing
//! or gone, the recording goes on; what was not seen is a row of its own ([`KubeChange::Blind`]).

pub(crate) mod api;
mod follow;
mod rows;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kfr_bundle::kube::{KubeChange, KubeFact};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{Semaphore, watch};

use follow::{Follower, Source};
pub use rows::Learned;
pub(crate) use rows::Rows;

/// How long connecting may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the thread may take to end: a request that hangs is left alone.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Which cluster is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KubeSource {
    /// The one that this process runs in, else that of the kubeconfig's current context, else none.
    #[default]
    Auto,
    /// None.
    Off,
    /// That of a context of the kubeconfig.
    Context(String),
}

/// Where rows go. Called from the watcher's thread.
pub type Sink = Arc<dyn Fn(Vec<KubeFact>) + Send + Sync>;

/// The clock of rows: event time now, ns.
pub type Now = fn() -> u64;

/// A cluster that can be asked.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) config: Config,
    /// How it was found, for people: `in-cluster`, `context NAME`.
    pub found: String,
}

impl Cluster {
    /// Finds the cluster; `None` if there is none and none was asked for.
    ///
    /// # Errors
    /// If the context that was asked for, or the kubeconfig, can't be used.
    pub fn find(source: &KubeSource) -> Result<Option<Self>> {
        let context = match source {
            KubeSource::Off => return Ok(None),
            KubeSource::Context(name) => Some(name.clone()),
            KubeSource::Auto => {
                // Inside a pod both variables are set and the account's files are mounted.
                if let Ok(config) = Config::incluster() {
                    return Ok(Some(Self { config, found: "in-cluster".to_string() }));
                }
                None
            }
        };
        if !kubeconfig_exists() {
            return match context {
                Some(name) => Err(anyhow!("there is no kubeconfig with the context {name}")),
                None => Ok(None),
            };
        }
        let kubeconfig = Kubeconfig::read().context("the kubeconfig can't be read")?;
        let Some(name) = context.or_else(|| kubeconfig.current_context.clone()) else { return Ok(None) };
        let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
        let runtime = runtime()?;
        let config = runtime
            .block_on(Config::from_custom_kubeconfig(kubeconfig, &options))
            .with_context(|| format!("the context {name} can't be used"))?;
        Ok(Some(Self { config, found: format!("context {name}") }))
    }

    /// The cluster at an address, without credentials.
    ///
    /// # Errors
    /// If it is no URL.
    pub fn at(url: &str) -> Result<Self> {
        Ok(Self { config: Config::new(url.parse().context("a cluster's URL")?), found: url.to_string() })
    }
}

fn kubeconfig_exists() -> bool {
    match std::env::var_os("KUBECONFIG") {
        Some(paths) => std::env::split_paths(&paths).any(|path| path.exists()),
        None => std::env::home_dir().is_some_and(|home| home.join(".kube/config").exists()),
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the thread for Kubernetes")
}

/// A watcher at work.
pub struct Watcher {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Watcher {
    /// Lists and watches every recorded kind. Of pods of other nodes than the one with this boot id, only what names and
    /// addresses need is kept; where no node has it, or it can't be found out, all of every pod.
    pub fn start(cluster: Cluster, boot_id: String, now: Now, sink: Sink) -> Self {
        let (stop, stopped) = watch::channel(false);
        let thread = thread::spawn(move || {
            let failed = |error: String| {
                sink(vec![KubeFact::of_kind(now(), KubeChange::Blind, 0, "", &error)]);
            };
            match runtime() {
                Ok(runtime) => {
                    let work = run(cluster.config, boot_id, now, sink.clone(), stopped);
                    if let Err(error) = runtime.block_on(work) {
                        failed(format!("{error:#}"));
                    }
                    runtime.shutdown_timeout(END_TIMEOUT);
                }
                Err(error) => failed(format!("{error:#}")),
            }
        });
        Self { thread, stop }
    }

    /// Ends it: rows that were received are handed over.
    pub fn stop(self) {
        let _ended_already = self.stop.send(true);
        let _panicked = self.thread.join();
    }
}

async fn run(mut config: Config, boot_id: String, now: Now, sink: Sink, stopped: watch::Receiver<bool>) -> Result<()> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A watch is quiet for as long as nothing happens; lists have a limit of their own.
    config.read_timeout = None;
    // It would wait for as long as a server wants, and say nothing.
    config.default_retry = false;
    let client = Client::try_from(config).context("the cluster can't be asked")?;
    let mut work = tokio::task::JoinSet::new();
    let source = Source { client, boot_id: boot_id.into(), now, sink, listing: Arc::new(Semaphore::new(1)) };
    for kind in api::KINDS {
        work.spawn(Follower::new(source.clone(), kind).run(stopped.clone()));
    }
    work.join_all().await;
    Ok(())
}
