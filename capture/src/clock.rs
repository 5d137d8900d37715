//! The clocks of an event: boot time, and how it maps to the wall clock and to TCP's clock.

use kfr_bundle::rows::Anchor;

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; the call has no other effect.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if failed != 0 {
        return 0;
    }
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `CLOCK_BOOTTIME`, ns: the clock of every event.
pub fn boottime_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// `CLOCK_REALTIME`, ns since 1970.
pub fn realtime_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// One moment on three clocks; of a few tries the one that took least time.
pub fn anchor() -> Anchor {
    let mut best = Anchor { uncertainty_ns: u64::MAX, ..Anchor::default() };
    for _ in 0..5 {
        let before = boottime_ns();
        let realtime_ns = realtime_ns();
        let monotonic_ns = read(libc::CLOCK_MONOTONIC);
        let after = boottime_ns();
        let uncertainty_ns = after.saturating_sub(before);
        if uncertainty_ns < best.uncertainty_ns {
            best = Anchor { boottime_ns: before + uncertainty_ns / 2, realtime_ns, monotonic_ns, uncertainty_ns };
        }
    }
    best
}

/// `CLOCK_BOOTTIME` less `CLOCK_MONOTONIC`, ns: the time that the machine was suspended since boot. Reading two clocks
/// takes time, so differences below a millisecond count as none.
pub fn boot_offset_ns(anchor: &Anchor) -> u64 {
    let offset = anchor.boottime_ns.saturating_sub(anchor.monotonic_ns);
    if offset < 1_000_000 { 0 } else { offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_taken_within_a_millisecond() {
        let anchor = anchor();
        assert!(anchor.uncertainty_ns < 1_000_000, "{anchor:?}");
        assert!(anchor.realtime_ns > 1_600_000_000_000_000_000);
        assert!(anchor.boottime_ns >= anchor.monotonic_ns.saturating_sub(1_000_000));
    }
}
