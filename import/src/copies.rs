//! Packets that a capture holds more than once: seen on several interfaces, on both sides of a bridge, within a tunnel and
//! without.

use std::collections::{HashMap, VecDeque};

/// A copy of a packet that has an identification comes within this time: less than the shortest retransmission timeout
/// that systems use (200 ms, Linux's `TCP_RTO_MIN`), more than any queue between two interfaces of a node.
const WINDOW_NS: u64 = 100_000_000;
/// ... of one without: all that tells it from the same message sent again is that it was seen elsewhere.
const BLIND_WINDOW_NS: u64 = 5_000_000;
/// Packets remembered.
const MAX_PACKETS: usize = 1 << 16;

#[derive(Debug, Clone, Copy)]
struct Seen {
    time_ns: u64,
    path: u64,
}

/// Remembers recent packets by their fingerprints.
#[derive(Default)]
pub struct Copies {
    seen: HashMap<u64, Seen>,
    order: VecDeque<(u64, u64)>,
}

impl Copies {
    /// Whether this packet was seen a moment ago. `print` stands for everything that stays the same on a packet's way;
    /// `path` for what does not; `identified`: the sender gives each packet another number.
    pub fn is_copy(&mut self, print: u64, path: u64, time_ns: u64, identified: bool) -> bool {
        // Not by age: times may go back where interfaces were merged.
        while self.order.len() >= MAX_PACKETS {
            self.forget_oldest();
        }
        while self.order.front().is_some_and(|(_, seen_ns)| seen_ns.saturating_add(WINDOW_NS) < time_ns) {
            self.forget_oldest();
        }
        if let Some(seen) = self.seen.get(&print) {
            let age_ns = seen.time_ns.abs_diff(time_ns);
            if identified && age_ns <= WINDOW_NS || seen.path != path && age_ns <= BLIND_WINDOW_NS {
                return true;
            }
        }
        self.seen.insert(print, Seen { time_ns, path });
        self.order.push_back((print, time_ns));
        false
    }

    fn forget_oldest(&mut self) {
        if let Some((print, time_ns)) = self.order.pop_front()
            && self.seen.get(&print).is_some_and(|seen| seen.time_ns == time_ns)
        {
            self.seen.remove(&print);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_a_copy_only_within_its_window() {
        let mut copies = Copies::default();
        assert!(!copies.is_copy(1, 7, 1_000_000_000, true));
        assert!(copies.is_copy(1, 7, 1_000_000_100, true));
        assert!(!copies.is_copy(1, 7, 1_000_000_000 + WINDOW_NS + 1, true));
        // Without an identification the same bytes at the same place are another packet.
        assert!(!copies.is_copy(2, 7, 2_000_000_000, false));
        assert!(!copies.is_copy(2, 7, 2_000_000_001, false));
        assert!(copies.is_copy(2, 8, 2_000_000_002, false));
        assert!(!copies.is_copy(2, 8, 2_000_000_002 + BLIND_WINDOW_NS, false));
    }

    #[test]
    fn memory_is_bounded_whatever_the_times() {
        let mut copies = Copies::default();
        for print in 0..200_000 {
            copies.is_copy(print, 0, 5, true);
        }
        assert!(copies.seen.len() <= MAX_PACKETS && copies.order.len() <= MAX_PACKETS);
    }
}
