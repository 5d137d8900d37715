//! One line of what changed.

/// What kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// A new revision replaces an old one.
    Rollout,
    /// A workload is new.
    Created,
    /// A workload is gone.
    Deleted,
    /// Another number of pods is wanted.
    Scaled,
    /// A ConfigMap, network policy, ingress or disruption budget was made, changed or deleted.
    Configuration,
    /// A Service's or its ports were changed, or it has nobody left who is ready.
    Service,
    /// A node came, went, or became another.
    Node,
    /// A pod was deleted that nobody had asked its workload to give up.
    PodDeleted,
    /// A pod was pushed off its node.
    Evicted,
    /// A container was killed for its memory.
    OomKilled,
    /// A container ended and was started again.
    Restarted,
    /// A container does not start.
    NotStarting,
    /// No node has room for a pod.
    Unschedulable,
    /// A probe failed.
    Probe,
    /// A run of a Job.
    Job,
    /// Something else that Kubernetes warned of.
    Warning,
}

impl ChangeKind {
    /// Its name in `report.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Scaled => "scaled",
            Self::Configuration => "configuration",
            Self::Service => "service",
            Self::Node => "node",
            Self::PodDeleted => "pod_deleted",
            Self::Evicted => "evicted",
            Self::OomKilled => "oom_killed",
            Self::Restarted => "restarted",
            Self::NotStarting => "not_starting",
            Self::Unschedulable => "unschedulable",
            Self::Probe => "probe_failed",
            Self::Job => "job",
            Self::Warning => "warning",
        }
    }
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it happened, or began; ns since 1970.
    pub at_ns: u64,
    /// When it was over, or was last seen, where that is later.
    pub until_ns: Option<u64>,
    /// What kind.
    pub kind: ChangeKind,
    /// What it happened to: `shop/api`, a node's name.
    pub subject: String,
    /// In one phrase.
    pub summary: String,
    /// How often, where it is more than once.
    pub count: u64,
    /// Whether somebody is hurt by it, or may be.
    pub is_bad: bool,
    /// Number of the workload that it happened to.
    pub workload: Option<u32>,
    /// Number of the pod, where it is one.
    pub pod: Option<u32>,
}

impl Change {
    /// Something that happened once.
    pub fn new(at_ns: u64, kind: ChangeKind, subject: impl Into<String>, summary: impl Into<String>) -> Self {
        Self {
            at_ns,
            until_ns: None,
            kind,
            subject: subject.into(),
            summary: summary.into(),
            count: 1,
            is_bad: false,
            workload: None,
            pod: None,
        }
    }

    /// The same, of which somebody suffers.
    pub fn bad(self) -> Self {
        Self { is_bad: true, ..self }
    }

    /// The same with an end; `None` and one that isn't later leave it a moment.
    pub fn until(self, until_ns: Option<u64>) -> Self {
        Self { until_ns: until_ns.filter(|until_ns| *until_ns > self.at_ns), ..self }
    }
}

/// Cuts a text of the API's to what a line holds.
pub fn short(text: &str, most: usize) -> String {
    crate::report::text::one_line(text, most)
}
