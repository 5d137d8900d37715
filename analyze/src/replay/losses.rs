//! Which events were lost: numbers that a CPU gave out and that no block holds.

use std::collections::BTreeMap;

use kfr_bundle::DataBlock;

/// A stretch of time in which events of one CPU are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostRange {
    /// Event time of the last event before, ns.
    pub from_ns: u64,
    /// Event time of the first event after, ns.
    pub to_ns: u64,
    /// CPU.
    pub cpu: u16,
    /// Events that are missing.
    pub events: u64,
}

/// Consecutive numbers of one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    cpu: u16,
    first: u64,
    last: u64,
    first_ns: u64,
    last_ns: u64,
}

/// The numbers seen, as runs.
#[derive(Debug, Default)]
pub struct SeenNumbers {
    /// By CPU, by first number.
    runs: BTreeMap<(u16, u64), Run>,
}

/// The runs of a data block.
pub fn runs_of(block: &DataBlock) -> Vec<Run> {
    let mut open: Vec<Option<Run>> = Vec::new();
    let mut done = Vec::new();
    for ((cpu, number), time_ns) in block.cpu.iter().zip(&block.sequence).zip(&block.time_ns) {
        let (cpu, number, time_ns) = (*cpu, *number, *time_ns);
        if open.len() <= usize::from(cpu) {
            open.resize(usize::from(cpu) + 1, None);
        }
        let Some(slot) = open.get_mut(usize::from(cpu)) else { continue };
        match slot {
            Some(run) if run.last.checked_add(1) == Some(number) => {
                run.last = number;
                run.last_ns = time_ns;
            }
            _ => {
                let fresh = Run { cpu, first: number, last: number, first_ns: time_ns, last_ns: time_ns };
                done.extend(slot.replace(fresh));
            }
        }
    }
    done.extend(open.into_iter().flatten());
    done
}

impl SeenNumbers {
    /// Adds one event.
    pub fn add_one(&mut self, cpu: u16, number: u64, time_ns: u64) {
        self.add(Run { cpu, first: number, last: number, first_ns: time_ns, last_ns: time_ns });
    }

    /// Adds a run, joined with those it touches.
    pub fn add(&mut self, mut run: Run) {
        if let Some((&key, before)) = self.runs.range(..=(run.cpu, run.first)).next_back()
            && before.cpu == run.cpu
            && before.last >= run.first.saturating_sub(1)
        {
            run.first = before.first;
            run.first_ns = before.first_ns;
            if before.last > run.last {
                run.last = before.last;
                run.last_ns = before.last_ns;
            }
            self.runs.remove(&key);
        }
        while let Some((&key, after)) = self.runs.range((run.cpu, run.first)..).next()
            && after.cpu == run.cpu
            && after.first <= run.last.saturating_add(1)
        {
            if after.last > run.last {
                run.last = after.last;
                run.last_ns = after.last_ns;
            }
            self.runs.remove(&key);
        }
        self.runs.insert((run.cpu, run.first), run);
    }

    /// The stretches in which numbers are missing. Events before the first one of a CPU or after its last one can't be
    /// told from none.
    pub fn lost(&self) -> Vec<LostRange> {
        let runs: Vec<&Run> = self.runs.values().collect();
        let mut lost: Vec<LostRange> = runs
            .iter()
            .zip(runs.iter().skip(1))
            .filter(|(before, after)| before.cpu == after.cpu)
            .map(|(before, after)| LostRange {
                from_ns: before.last_ns.min(after.first_ns),
                to_ns: before.last_ns.max(after.first_ns),
                cpu: before.cpu,
                events: after.first - before.last - 1,
            })
            .collect();
        lost.sort_unstable();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_missing_is_found_in_any_order(seen in proptest::collection::btree_set(0u64..200, 1..100), seed in any::<u64>()) {
            let mut order: Vec<u64> = seen.iter().copied().collect();
            order.sort_by_key(|number| number.wrapping_mul(seed | 1));
            let mut numbers = SeenNumbers::default();
            order.iter().for_each(|number| numbers.add_one(3, *number, number * 10));
            let span = seen.last().unwrap() - seen.first().unwrap() + 1;
            let lost = numbers.lost();
            prop_assert_eq!(lost.iter().map(|range| range.events).sum::<u64>(), span - seen.len() as u64);
            for range in lost {
                prop_assert_eq!((range.to_ns - range.from_ns) / 10 - 1, range.events);
            }
        }
    }

    #[test]
    fn cpus_count_for_themselves_and_extremes_do_not_overflow() {
        let mut numbers = SeenNumbers::default();
        numbers.add_one(0, 5, 1);
        numbers.add_one(1, 7, 1);
        numbers.add_one(1, u64::MAX, 2);
        numbers.add_one(1, 0, 3);
        assert_eq!(numbers.lost().iter().map(|range| range.cpu).collect::<Vec<_>>(), [1, 1]);
    }
}
