//! The containers of a pod over time: restarts and why, what keeps one from starting.

use std::collections::BTreeMap;

use serde_json::Value;

use super::change::{Change, ChangeKind, short};
use super::difference::{containers as of_spec, short_image};
use crate::identity::read;

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerKind {
    /// Runs to its end before the others.
    Init,
    /// An init container that goes on beside the others (`restartPolicy: Always`).
    Sidecar,
    /// The pod's own.
    Main,
    /// Added to a running pod to look into it.
    Ephemeral,
}

impl ContainerKind {
    /// Its name in `report.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Main => "main",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// `OOMKilled`, `Error`, `Completed`, ...
    pub reason: String,
    /// Its exit code.
    pub exit_code: Option<i64>,
    /// When, ns since 1970.
    pub at_ns: Option<u64>,
}

impl Ending {
    fn of(terminated: &Value) -> Self {
        Self {
            reason: short(read::text(terminated, &["reason"]).unwrap_or("unknown reason"), 60),
            exit_code: terminated.get("exitCode").and_then(Value::as_i64),
            at_ns: read::time_ns(terminated, &["finishedAt"]),
        }
    }

    fn is_oom(&self) -> bool {
        self.reason == "OOMKilled"
    }

    /// `OOMKilled, exit code 137`.
    pub fn text(&self) -> String {
        match self.exit_code {
            Some(code) => format!("{}, exit code {code}", self.reason),
            None => self.reason.clone(),
        }
    }
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: ContainerKind,
    /// Image as the pod names it.
    pub image: String,
    /// How often it was started again in the pod's life, as told last.
    pub restarts: u64,
    /// How it ended last.
    pub ended: Option<Ending>,
    /// What it waits for, as told last: `CrashLoopBackOff`, `ImagePullBackOff`.
    pub waiting: Option<String>,
    /// Whether it was ready, as told last.
    pub ready: Option<bool>,
    /// Whether it has ended for good.
    pub is_over: bool,
}

const STATUSES: [&str; 3] = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];

/// Reasons to wait that pass by themselves.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    STATUSES.into_iter().flat_map(|field| read::list(pod, &["status", field]))
}

/// The containers of a pod, as its last state has them.
pub fn containers(pod: &Value) -> Vec<Container> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let by_name: BTreeMap<&str, &Value> =
        statuses(pod).filter_map(|status| Some((read::text(status, &["name"])?, status))).collect();
    let of = |(field, container): (&str, &Value)| {
        let name = read::text(container, &["name"])?;
        let status = by_name.get(name).copied().unwrap_or(&Value::Null);
        let kind = match field {
            "initContainers" if read::text(container, &["restartPolicy"]) == Some("Always") => ContainerKind::Sidecar,
            "initContainers" => ContainerKind::Init,
            "ephemeralContainers" => ContainerKind::Ephemeral,
            _ => ContainerKind::Main,
        };
        let ended = [&["state", "terminated"], &["lastState", "terminated"]];
        let ended = ended.iter().find_map(|path| read::at(status, *path)).map(Ending::of);
        Some(Container {
            name: name.to_string(),
            kind,
            image: read::text(container, &["image"]).unwrap_or_default().to_string(),
            restarts: read::number(status, &["restartCount"]).unwrap_or(0),
            ended,
            waiting: read::text(status, &["state", "waiting", "reason"]).map(|reason| short(reason, 60)),
            ready: read::flag(status, &["ready"]),
            is_over: read::at(status, &["state", "terminated"]).is_some(),
        })
    };
    of_spec(spec).filter_map(of).collect()
}

/// What happens to one container.
#[derive(Default)]
struct Story {
    restarts: u64,
    /// Restarts seen: when, how it ended, and how many; of several between two states only the last has an account.
    endings: Vec<(u64, Ending, u64)>,
    /// When it first waited for what doesn't come by itself, until when, the reason and its message.
    waiting: Option<(u64, u64, String, String)>,
    seen: bool,
}

/// Restarts that are told one by one of a container; further ones are counted.
const MAX_ENDINGS: usize = 1000;

/// Tells what happened to the containers of a pod over its states, each with its time; `start_ns` is the recording's (both ns
/// since 1970).
pub fn changes(subject: &str, spans: &[(u64, u64, &Value)], is_job: bool, start_ns: u64, changes: &mut Vec<Change>) {
    let mut stories: BTreeMap<String, Story> = BTreeMap::new();
    for (from_ns, to_ns, state) in spans {
        for status in statuses(state) {
            let Some(name) = read::text(status, &["name"]) else { continue };
            let story = stories.entry(name.to_string()).or_default();
            story.note(status, *from_ns, *to_ns);
        }
    }
    let image = |name: &str| {
        let (_, _, state) = spans.last()?;
        let spec = state.get("spec")?;
        let found = of_spec(spec).find(|(_, one)| read::text(one, &["name"]) == Some(name));
        found.and_then(|(_, one)| read::text(one, &["image"])).map(|image| short_image(image).to_string())
    };
    for (name, story) in stories {
        story.tell(subject, &name, image(&name), (is_job, start_ns), changes);
    }
}

impl Story {
    fn note(&mut self, status: &Value, from_ns: u64, to_ns: u64) {
        let restarts = read::number(status, &["restartCount"]).unwrap_or(0);
        let ended = |path: &[&str]| read::at(status, path).map(Ending::of);
        let grown = if self.seen { restarts.saturating_sub(self.restarts) } else { 0 };
        // How it ended stands in its state until it is started again, then in its last one.
        let (last, now) = (ended(&["lastState", "terminated"]), ended(&["state", "terminated"]));
        for (ending, count) in last.map(|last| (last, grown)).into_iter().chain(now.map(|now| (now, 0))) {
            let at_ns = ending.at_ns.unwrap_or(from_ns);
            // Of restarts before the first state only the last one is known.
            let known = self.endings.iter_mut().rev().find(|(known_ns, ..)| *known_ns == at_ns);
            if let Some((.., known)) = known {
                // It was seen when it ended; what else was started again meanwhile was not.
                *known = known.saturating_add(count.saturating_sub(1));
            } else if self.endings.len() < MAX_ENDINGS {
                self.endings.push((at_ns, ending, count.max(1)));
            } else if let Some((.., last)) = self.endings.last_mut() {
                *last = last.saturating_add(count.max(1));
            }
        }
        self.restarts = if self.seen { self.restarts.max(restarts) } else { restarts };
        self.seen = true;
        let waiting = read::text(status, &["state", "waiting", "reason"]).filter(|reason| !STARTING.contains(reason));
        if let Some(reason) = waiting {
            let message = read::text(status, &["state", "waiting", "message"]).unwrap_or_default();
            match &mut self.waiting {
                Some((_, until_ns, last, text)) => {
                    (*until_ns, *last) = (to_ns, reason.to_string());
                    if !message.is_empty() {
                        *text = message.to_string();
                    }
                }
                None => self.waiting = Some((from_ns, to_ns, reason.to_string(), message.to_string())),
            }
        }
    }

    fn tell(
        self,
        subject: &str,
        name: &str,
        image: Option<String>,
        (is_job, start_ns): (bool, u64),
        changes: &mut Vec<Change>,
    ) {
        let named = image.map_or_else(|| name.to_string(), |image| format!("{name} ({image})"));
        let loops = self.waiting.as_ref().is_some_and(|(_, _, reason, _)| reason == "CrashLoopBackOff");
        let mut endings = self.endings;
        endings.sort_by_key(|(at_ns, ..)| *at_ns);
        // The last ending is no restart where the container was not started again: a Job's, or a pod's that was deleted.
        let restarted = self.restarts > 0;
        // What was before the recording is another line.
        let mut groups: BTreeMap<(bool, bool, String), (u64, u64, u64)> = BTreeMap::new();
        for (at_ns, ending, count) in endings {
            if restarted || ending.is_oom() {
                let key = (at_ns >= start_ns, ending.is_oom(), ending.text());
                let (_, last_ns, times) = groups.entry(key).or_insert((at_ns, at_ns, 0));
                (*last_ns, *times) = (at_ns, times.saturating_add(count));
            }
        }
        for ((_, is_oom, how), (first_ns, last_ns, times)) in groups {
            let kind = if is_oom { ChangeKind::OomKilled } else { ChangeKind::Restarted };
            let total = match self.restarts {
                0 => String::new(),
                restarts => format!("; {}", crate::report::text::plural(restarts, "restart", "restarts")),
            };
            let again = if loops { ", now in CrashLoopBackOff" } else { "" };
            let mut change = Change::new(first_ns, kind, subject, format!("{named} ended: {how}{total}{again}"));
            change.count = times;
            changes.push(Change { is_bad: !is_job || is_oom, ..change.until(Some(last_ns)) });
        }
        if let Some((from_ns, until_ns, reason, message)) = self.waiting
            && !(loops && restarted)
        {
            let why = if message.is_empty() { String::new() } else { format!(": {}", short(&message, 160)) };
            let change = Change::new(from_ns, ChangeKind::NotStarting, subject, format!("{named}: {reason}{why}"));
            changes.push(change.until(Some(until_ns).filter(|until_ns| *until_ns != u64::MAX)).bad());
        }
    }
}
