//! How far the wall clocks of several nodes are apart, by connections of which both ends were recorded.
//!
//! Nothing arrives before it was sent. A server's socket is established after the client's was, by the client's ACK; and the
//! client's after the server sent its SYN-ACK, which is a round trip before the server's was. So each handshake bounds the
//! difference of two clocks from both sides, within its round-trip time.

use std::collections::BTreeMap;

/// What one handshake says of two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Numbers of the bundles of client and server.
    pub bundles: (u32, u32),
    /// Least and most that the server's clock can be ahead of the client's, ns.
    pub ahead_ns: (i64, i64),
}

/// From a packet's arrival to the kernel's event of it, at most; more only widens the bound.
const EVENT_NS: i64 = 50_000;

impl Leg {
    /// Of a handshake: wall clock of client and server when they were established, and the server's round-trip time; and how
    /// uncertain the two clocks are of themselves.
    pub fn of_handshake(bundles: (u32, u32), established_ns: (u64, u64), rtt_us: u32, uncertain_ns: u64) -> Self {
        let difference = i128::from(established_ns.1) - i128::from(established_ns.0);
        let difference = i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX });
        let uncertain_ns = i64::try_from(uncertain_ns).unwrap_or(i64::MAX);
        // Microseconds are cut off.
        let rtt_ns = (i64::from(rtt_us) + 1) * 1000;
        let least = difference.saturating_sub(rtt_ns + EVENT_NS).saturating_sub(uncertain_ns);
        Self { bundles, ahead_ns: (least, difference.saturating_add(uncertain_ns)) }
    }
}

/// What is known of several clocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// By bundle: how much its clock is ahead of what most of them say, where it is for certain; ns.
    pub ahead_ns: Vec<i64>,
    /// Most that two clocks are still apart when these are taken off; `None` where nothing bounds it.
    pub error_ns: Option<u64>,
}

/// What two clocks are apart: `ahead_ns` with an error.
#[derive(Debug, Clone, Copy)]
struct Edge {
    ahead_ns: i64,
    error_ns: u64,
}

/// Compares the clocks of `nodes.len()` bundles; bundles of one node (an equal value) have one clock.
pub fn agree<T: PartialEq>(nodes: &[T], legs: &[Leg]) -> Agreement {
    let mut by_pair = BTreeMap::<(u32, u32), Vec<(i64, i64)>>::new();
    for leg in legs {
        let ((from, to), (least, most)) = (leg.bundles, leg.ahead_ns);
        if from < to {
            by_pair.entry((from, to)).or_default().push((least, most));
        } else if to < from {
            by_pair.entry((to, from)).or_default().push((most.saturating_neg(), least.saturating_neg()));
        }
    }
    let mut edges: BTreeMap<(u32, u32), Edge> =
        by_pair.into_iter().filter_map(|(pair, intervals)| Some((pair, edge(most_agree(&intervals)?)))).collect();
    for (to, node) in nodes.iter().enumerate() {
        if let Some(from) = nodes.iter().position(|other| other == node).filter(|from| *from < to) {
            edges.insert((from as u32, to as u32), Edge { ahead_ns: 0, error_ns: 0 });
        }
    }
    // From the first bundle to all others, by the most certain edges first.
    let mut known = BTreeMap::from([(0_u32, (0_i64, 0_u64))]);
    loop {
        let steps = edges.iter().filter_map(|(&(a, b), edge)| {
            let (from, to, ahead_ns) = match (known.contains_key(&a), known.contains_key(&b)) {
                (true, false) => (a, b, edge.ahead_ns),
                (false, true) => (b, a, edge.ahead_ns.saturating_neg()),
                _ => return None,
            };
            let (base, error) = known.get(&from)?;
            Some((error.saturating_add(edge.error_ns), to, base.saturating_add(ahead_ns)))
        });
        let Some((error, to, ahead)) = steps.min() else { break };
        known.insert(to, (ahead, error));
    }
    let all = known.len() == nodes.len() && nodes.iter().any(|node| Some(node) != nodes.first());
    let mut errors: Vec<u64> = known.values().map(|(_, error)| *error).collect();
    errors.sort_unstable();
    // Between two that were both compared with a third.
    let error_ns = errors.iter().rev().take(2).fold(0_u64, |sum, error| sum.saturating_add(*error));
    let ahead = |bundle: usize| known.get(&(bundle as u32)).map_or(0, |(ahead, _)| *ahead);
    let mut ahead_ns: Vec<i64> = (0..nodes.len()).map(ahead).collect();
    let mut sorted = ahead_ns.clone();
    sorted.sort_unstable_by_key(|ahead| (*ahead, *ahead != 0));
    let most = match sorted.len() {
        // Nobody knows which of two is right.
        0..=2 => 0,
        many => sorted.get(many / 2).copied().unwrap_or_default(),
    };
    ahead_ns.iter_mut().for_each(|ahead| *ahead = ahead.saturating_sub(most));
    Agreement { ahead_ns, error_ns: all.then_some(error_ns) }
}

/// Clocks that may well agree are left alone: they are kept in step by other means, better than by this.
fn edge((least, most): (i64, i64)) -> Edge {
    if least <= 0 && most >= 0 {
        return Edge { ahead_ns: 0, error_ns: least.unsigned_abs().max(most.unsigned_abs()) };
    }
    let width = most.abs_diff(least);
    let half = width.div_ceil(2);
    Edge { ahead_ns: least.saturating_add_unsigned(half), error_ns: half }
}

/// The interval that most of them hold (Marzullo's algorithm), so that one which is wrong can't spoil the others; `None` where
/// that is less than half of them: then a clock was set in between.
fn most_agree(intervals: &[(i64, i64)]) -> Option<(i64, i64)> {
    let valid = || intervals.iter().filter(|(least, most)| least <= most);
    // At one moment intervals begin before others end.
    let mut bounds: Vec<(i64, bool)> = valid().flat_map(|(least, most)| [(*least, false), (*most, true)]).collect();
    bounds.sort_unstable();
    let (mut open, mut best, mut found) = (0_usize, 0_usize, None);
    for (number, (at, ends)) in bounds.iter().enumerate() {
        if *ends {
            open = open.saturating_sub(1);
            continue;
        }
        open += 1;
        if open > best {
            best = open;
            found = bounds.get(number + 1).map(|(next, _)| (*at, *next));
        }
    }
    found.filter(|_| best * 2 > valid().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// A handshake between two clocks of which the server's is ahead by `ahead`, with these delays there and back.
    fn leg(bundles: (u32, u32), ahead: i64, there: i64, back: i64) -> Leg {
        let client: i64 = 1_000_000 * MS;
        let server = client + there + ahead;
        Leg::of_handshake(bundles, (client as u64, server as u64), ((there + back) / 1000) as u32, 0)
    }

    #[test]
    fn clocks_that_may_agree_are_bounded_and_left_alone() {
        let legs = [leg((0, 1), 0, MS, 2 * MS), leg((1, 0), 0, 3 * MS, MS)];
        let found = agree(&["a", "b"], &legs);
        assert_eq!(found.ahead_ns, [0, 0]);
        assert!((1_000_000..=2_100_000).contains(&found.error_ns.unwrap()), "{found:?}");
    }

    #[test]
    fn a_clock_that_is_ahead_is_found_within_the_error() {
        for (ahead, bundles) in [(700 * MS, (0, 1)), (-700 * MS, (1, 0))] {
            let mut legs: Vec<Leg> = (1..50).map(|n| leg(bundles, ahead, n * MS / 10, n * MS / 5)).collect();
            // One whose time is nonsense.
            legs.push(leg(bundles, 5 * ahead, MS, MS));
            let found = agree(&["a", "b"], &legs);
            let error = found.error_ns.unwrap() as i64;
            assert!(error < MS, "{error}");
            assert_eq!(found.ahead_ns[0], 0);
            assert!((found.ahead_ns[1] - 700 * MS).abs() <= error, "{found:?}");
        }
    }

    #[test]
    fn of_several_the_odd_one_is_corrected_wherever_it_stands() {
        for odd in 0..3_u32 {
            let ahead = |bundle: u32| if bundle == odd { 9 * MS * 1000 } else { 0 };
            let legs = [(0, 1), (1, 2)].map(|(a, b)| leg((a, b), ahead(b) - ahead(a), MS, MS));
            let found = agree(&["a", "b", "c"], &legs);
            for (bundle, own) in found.ahead_ns.iter().enumerate() {
                assert!((own - ahead(bundle as u32)).abs() <= found.error_ns.unwrap() as i64, "{odd}: {found:?}");
            }
        }
    }

    #[test]
    fn what_nothing_compares_is_not_known() {
        assert_eq!(agree(&["a", "b"], &[]), Agreement { ahead_ns: vec![0, 0], error_ns: None });
        assert_eq!(agree(&["a"], &[]).error_ns, None);
        // Two recordings of one node, and one of another.
        assert_eq!(agree(&["a", "a"], &[]).error_ns, None);
        assert!(agree(&["a", "a", "b"], &[leg((1, 2), 0, MS, MS)]).error_ns.is_some());
        // A clock that was set in the middle: neither is right throughout.
        let set = [leg((0, 1), 0, MS, MS), leg((0, 1), 100 * MS, MS, MS)];
        assert_eq!(agree(&["a", "b"], &set).error_ns, None);
    }

    #[test]
    fn hostile_times_do_not_overflow() {
        let far = [(0, u64::MAX), (u64::MAX, 0)].map(|at| Leg::of_handshake((0, 1), at, u32::MAX, u64::MAX));
        agree(&["a", "b"], &far);
        agree(&["a", "b"], &[Leg { bundles: (0, 7), ahead_ns: (i64::MIN, i64::MIN) }]);
    }
}
