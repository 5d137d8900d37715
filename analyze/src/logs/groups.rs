//! Lines that are alike: of one workload and container, with one level and one pattern.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use kfr_bundle::logs::Level;
use rustc_hash::FxHashMap;

use super::{Ids, Line, pattern, workload};
use crate::replay::Facts;

/// Groups at most; lines of further patterns are counted together.
const MAX_GROUPS: usize = 4000;
/// Pods of which a group remembers that they are different ones.
const MAX_PODS: usize = 64;
/// Longest example, bytes, with the lines that belong to it.
const MAX_EXAMPLE_BYTES: usize = 3000;

/// Who wrote lines, and which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    /// Workload, or the pod where that is not known.
    owner: String,
    is_workload: bool,
    container: String,
    level: Option<Level>,
    pattern: String,
}

/// Lines that are alike.
#[derive(Debug)]
pub struct Group {
    /// Name of the workload, where it is known.
    pub workload: Option<String>,
    /// Pods, `namespace/name`: those that are remembered.
    pub pods: BTreeSet<String>,
    /// Container.
    pub container: String,
    /// Level, where the lines say one.
    pub level: Option<Level>,
    /// What they have in common.
    pub pattern: String,
    /// How many there are, without lines that belong to others.
    pub count: u64,
    /// The first and last, ns since 1970.
    pub first_ns: u64,
    /// See there.
    pub last_ns: u64,
    /// Lines by step of the window.
    pub steps: Vec<u64>,
    /// The first one.
    pub example: Example,
}

/// A line as it was written.
#[derive(Debug)]
pub struct Example {
    /// The line, and those that belong to it.
    pub text: String,
    /// The line and what it names.
    pub line: Line,
    /// Ids in it.
    pub ids: Ids,
}

/// All groups.
#[derive(Debug)]
pub struct Groups {
    /// The window's start, ns since 1970, and the width and number of its steps.
    start_ns: u64,
    step_ns: u64,
    steps: usize,
    index: FxHashMap<Key, usize>,
    groups: Vec<Group>,
    /// By stream: the group whose example the stream's next lines may belong to.
    open: BTreeMap<u32, usize>,
    /// Lines of patterns that came when there were too many.
    pub beyond: u64,
    /// Lines, those that belong to others included.
    pub lines: u64,
}

impl Groups {
    /// None yet. `window`: first and last moment; `step_ns`: width of a step.
    pub fn new(window: Option<(u64, u64)>, step_ns: u64) -> Self {
        let (start_ns, end_ns) = window.unwrap_or_default();
        let step_ns = step_ns.max(1);
        // The end belongs to a step, too. Windows have 120 steps.
        let steps = usize::try_from(end_ns.saturating_sub(start_ns) / step_ns + 1).unwrap_or(usize::MAX).min(1000);
        Self {
            start_ns,
            step_ns,
            steps,
            index: FxHashMap::default(),
            groups: Vec::new(),
            open: BTreeMap::new(),
            beyond: 0,
            lines: 0,
        }
    }

    /// Adds a line; those of one stream in their order.
    pub fn add(&mut self, line: Line, facts: &Facts) {
        self.lines += 1;
        if line.continues {
            if let Some(group) = self.open.get(&line.stream).and_then(|index| self.groups.get_mut(*index)) {
                let text = &mut group.example.text;
                if text.len() + line.fact.text.len() < MAX_EXAMPLE_BYTES {
                    text.push('\n');
                    text.push_str(&line.fact.text);
                }
            }
            return;
        }
        self.open.remove(&line.stream);
        let workload = workload(facts, line.pod).map(str::to_string);
        let pod = line.pod_name();
        let key = Key {
            owner: workload.clone().unwrap_or_else(|| pod.clone()),
            is_workload: workload.is_some(),
            container: line.fact.container.clone(),
            level: line.level,
            pattern: pattern(&line.fact.text),
        };
        let wall_ns = line.fact.wall_ns;
        let step = usize::try_from(wall_ns.saturating_sub(self.start_ns) / self.step_ns).unwrap_or(usize::MAX);
        let step = step.min(self.steps.saturating_sub(1));
        let index = match self.index.get(&key) {
            Some(index) => *index,
            None if self.groups.len() >= MAX_GROUPS => {
                self.beyond += 1;
                return;
            }
            None => {
                let index = self.groups.len();
                self.open.insert(line.stream, index);
                let mut text = line.fact.text.clone();
                let end = (0..=MAX_EXAMPLE_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
                text.truncate(end.unwrap_or_default());
                self.groups.push(Group {
                    workload,
                    pods: BTreeSet::new(),
                    container: key.container.clone(),
                    level: key.level,
                    pattern: key.pattern.clone(),
                    count: 0,
                    first_ns: wall_ns,
                    last_ns: wall_ns,
                    steps: vec![0; self.steps],
                    example: Example { ids: Ids::of(&line.fact.text), text, line },
                });
                self.index.insert(key, index);
                index
            }
        };
        let Some(group) = self.groups.get_mut(index) else { return };
        group.count += 1;
        group.first_ns = group.first_ns.min(wall_ns);
        group.last_ns = group.last_ns.max(wall_ns);
        if let Some(slot) = group.steps.get_mut(step) {
            *slot += 1;
        }
        if group.pods.len() < MAX_PODS {
            group.pods.insert(pod);
        }
    }

    /// The groups, worst and most frequent first.
    pub fn into_sorted(self) -> Vec<Group> {
        let mut groups = self.groups;
        groups.sort_by(|a, b| {
            let rank = |group: &Group| (Reverse(group.level.filter(|level| level.is_trouble())), Reverse(group.count));
            let name = |group: &Group| {
                let owner = group.workload.clone().or_else(|| group.pods.first().cloned());
                (owner, group.container.clone(), group.pattern.clone(), group.level)
            };
            rank(a).cmp(&rank(b)).then_with(|| name(a).cmp(&name(b)))
        });
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfr_bundle::logs::LogFact;

    fn line(number: u64, text: &str, continues: bool) -> Line {
        let fact = LogFact {
            wall_ns: number * 1_000_000_000,
            namespace: "shop".into(),
            pod: format!("api-{}", number % 3),
            container: "api".into(),
            text: text.into(),
            ..LogFact::default()
        };
        let at = "00000001.2:3".parse().unwrap();
        Line { bundle: 0, level: Level::of(text), fact, at, continues, pod: None, stream: (number % 3) as u32 }
    }

    #[test]
    fn lines_that_are_alike_are_one_group_with_their_first_as_example() {
        let mut groups = Groups::new(Some((0, 10_000_000_000)), 1_000_000_000);
        let facts = Facts::default();
        for number in 0..9 {
            groups.add(line(number, &format!("ERROR order {number} failed"), false), &facts);
            groups.add(line(number, "  at place", true), &facts);
            groups.add(line(number, "all is well", false), &facts);
        }
        assert_eq!((groups.lines, groups.beyond), (27, 0));
        let sorted = groups.into_sorted();
        // Without a workload, by pod.
        assert_eq!(sorted.len(), 6);
        let worst = &sorted[0];
        assert_eq!(
            (worst.pattern.as_str(), worst.count, worst.level),
            ("ERROR order {n} failed", 3, Some(Level::Error))
        );
        assert_eq!(worst.example.text, "ERROR order 0 failed\n  at place");
        assert_eq!((worst.first_ns, worst.last_ns), (0, 6_000_000_000));
        assert_eq!(worst.steps, [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn patterns_are_bounded_and_lines_are_counted() {
        let mut groups = Groups::new(None, 0);
        let facts = Facts::default();
        let word = |mut number: usize| {
            let mut word = String::new();
            for _ in 0..4 {
                word.push(char::from(b'g' + (number % 16) as u8));
                number /= 16;
            }
            word
        };
        for number in 0..MAX_GROUPS + 7 {
            groups.add(line(3, &word(number), false), &facts);
        }
        assert_eq!((groups.groups.len(), groups.beyond), (MAX_GROUPS, 7));
    }
}
