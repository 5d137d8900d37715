//! From a node's event clock to the wall clock.

mod agreement;

use kfr_bundle::rows::Anchor;

pub use agreement::{Agreement, Leg, agree};

/// Wall-clock time of event times of one bundle, through its anchors.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// (event time, wall clock), ascending by event time.
    anchors: Vec<(u64, u64)>,
    /// Most that reading the clocks of one anchor can have taken, ns.
    uncertainty_ns: u64,
}

impl Clock {
    /// Builds it from the anchors of a bundle, in any order.
    pub fn new(anchors: &[Anchor]) -> Self {
        let mut points: Vec<(u64, u64)> =
            anchors.iter().map(|anchor| (anchor.boottime_ns, anchor.realtime_ns)).collect();
        points.sort_unstable();
        points.dedup_by_key(|point| point.0);
        let uncertainty_ns = anchors.iter().map(|anchor| anchor.uncertainty_ns).max().unwrap_or_default();
        Self { anchors: points, uncertainty_ns }
    }

    /// A clock with a single known moment: what a bundle without anchors has in its header.
    pub fn from_moment(event_ns: u64, wall_ns: u64) -> Self {
        Self { anchors: vec![(event_ns, wall_ns)], uncertainty_ns: 0 }
    }

    /// Sets the wall clock back by `ahead_ns` that it is ahead of others.
    pub fn set_back(&mut self, ahead_ns: i64) {
        for (_, wall) in &mut self.anchors {
            *wall = wall.saturating_add_signed(ahead_ns.saturating_neg());
        }
    }

    /// True if event times can't be placed on the wall clock.
    pub fn is_unknown(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Most that an anchor can be off, ns.
    pub fn uncertainty_ns(&self) -> u64 {
        self.uncertainty_ns
    }

    /// What the wall clock is ahead of event times, ns, when it is first known.
    pub fn epoch_ns(&self) -> i64 {
        self.anchors.first().map_or(0, |(event, wall)| wall.wrapping_sub(*event).cast_signed())
    }

    /// Wall-clock ns since 1970 of an event time: between two anchors in proportion, outside at the rate of one.
    pub fn wall_ns(&self, event_ns: u64) -> u64 {
        let after = self.anchors.partition_point(|(event, _)| *event <= event_ns);
        let left = after.checked_sub(1).and_then(|index| self.anchors.get(index));
        let right = self.anchors.get(after);
        match (left, right) {
            (Some((event, wall)), None) => wall.saturating_add(event_ns - event),
            (None, Some((event, wall))) => wall.saturating_sub(event - event_ns),
            (Some((event, wall)), Some((next_event, next_wall))) => {
                let span = next_event - event;
                let wall_span = i128::from(*next_wall) - i128::from(*wall);
                let moved = wall_span * i128::from(event_ns - event) / i128::from(span.max(1));
                u64::try_from(i128::from(*wall) + moved).unwrap_or_default()
            }
            (None, None) => event_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(boottime_ns: u64, realtime_ns: u64) -> Anchor {
        Anchor { boottime_ns, realtime_ns, monotonic_ns: boottime_ns, uncertainty_ns: 0 }
    }

    #[test]
    fn times_between_anchors_are_in_proportion_and_outside_run_on() {
        let clock = Clock::new(&[anchor(2_000, 1_002_010), anchor(1_000, 1_001_000)]);
        assert_eq!(clock.wall_ns(1_000), 1_001_000);
        assert_eq!(clock.wall_ns(1_500), 1_001_505);
        assert_eq!(clock.wall_ns(2_500), 1_002_510);
        assert_eq!(clock.wall_ns(500), 1_000_500);
    }

    #[test]
    fn hostile_anchors_do_not_overflow() {
        let clock = Clock::new(&[anchor(0, u64::MAX), anchor(u64::MAX, 0)]);
        assert_eq!(clock.wall_ns(u64::MAX / 2), u64::MAX / 2 + 1);
        assert_eq!(Clock::new(&[]).wall_ns(7), 7);
    }
}
