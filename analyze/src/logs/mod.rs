//! Container logs: lines in their order, what each says of itself, and groups of lines that are alike.

mod groups;
mod ids;
mod pattern;

use kfr_bundle::logs::{Level, LogFact, Reading};
use kfr_bundle::{Address, BlockKind, decode_maps};
use rustc_hash::FxHashMap;

use crate::replay::{Facts, Input};

pub use groups::{Example, Group, Groups};
pub use ids::Ids;
pub use pattern::{MAX_PATTERN_BYTES, pattern};

/// Streams whose lines are read in their order at once; a node has some hundred.
const MAX_STREAMS: usize = 65_536;

/// A line of a container.
#[derive(Debug, Clone)]
pub struct Line {
    /// Number of the bundle.
    pub bundle: u32,
    /// As it was recorded.
    pub fact: LogFact,
    /// Where it stands.
    pub at: Address,
    /// Its level, or that of the line it belongs to.
    pub level: Option<Level>,
    /// It belongs to the line of its stream before it: a stack trace.
    pub continues: bool,
    /// Number of its pod in [`Facts::kube`], where that knows it.
    pub pod: Option<u32>,
    /// Number of its stream, the same for all lines of one container's run that it wrote to the same place.
    pub stream: u32,
}

impl Line {
    /// `namespace/name` of its pod; the name alone where the namespace is not known.
    pub fn pod_name(&self) -> String {
        pod_name(&self.fact.namespace, &self.fact.pod)
    }
}

/// `namespace/name`; the name alone where the namespace is not known.
pub fn pod_name(namespace: &str, pod: &str) -> String {
    if namespace.is_empty() { pod.to_string() } else { format!("{namespace}/{pod}") }
}

/// What tells a stream from others.
type StreamKey = (u32, [String; 5], u32);

/// Reads all lines of all bundles, in the order of the files. Returns how many rows or blocks can't be decoded.
///
/// # Errors
/// The first that `each` returns.
pub fn each_line<E>(inputs: &[Input], facts: &Facts, mut each: impl FnMut(Line) -> Result<(), E>) -> Result<u64, E> {
    let (mut malformed, mut begun) = (0, 0);
    let mut streams: FxHashMap<StreamKey, (u32, Reading)> = FxHashMap::default();
    for (bundle, input) in inputs.iter().enumerate() {
        let bundle = bundle as u32;
        for entry in input.reader.blocks().iter().filter(|entry| entry.kind == BlockKind::LOGS) {
            let Some(maps) = input.raw(entry).and_then(|raw| decode_maps::<LogFact>(&raw).ok()) else {
                malformed += 1;
                continue;
            };
            malformed += maps.malformed;
            for (number, fact) in maps.rows {
                let who = [&fact.uid, &fact.namespace, &fact.pod, &fact.container, &fact.stream].map(Clone::clone);
                let key = (bundle, who, fact.restart);
                if streams.len() >= MAX_STREAMS && !streams.contains_key(&key) {
                    streams.clear();
                }
                let (stream, reading) = streams.entry(key).or_insert_with(|| {
                    begun += 1;
                    (begun, Reading::default())
                });
                let read = reading.next(&fact.text);
                let pod = facts.kube.pod_named(&fact.uid, &fact.namespace, &fact.pod);
                let at = entry.address.row(entry.first_row.saturating_add(number));
                let stream = *stream;
                each(Line { bundle, at, level: read.level, continues: read.continues, pod, stream, fact })?;
            }
        }
    }
    Ok(malformed)
}

/// Name of a pod's workload.
pub fn workload(facts: &Facts, pod: Option<u32>) -> Option<&str> {
    let pod = facts.kube.pod(pod?)?;
    Some(facts.kube.workload_name(pod.workload)).filter(|name| !name.is_empty())
}
