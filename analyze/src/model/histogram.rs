//! Durations counted in buckets of integers, so that sums in any order give the same figures.

/// Buckets for each doubling: a value is known to within 1/64 of itself.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// A histogram of values (ns). The bucket borders are those of HDR histograms: exact below 64, then 32 a doubling.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket that `counts` begins with.
    first: usize,
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

fn bucket(value: u64) -> usize {
    if value < 2 * STEPS {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - STEP_BITS;
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// Smallest value of a bucket and the number of values that fall into it.
fn bounds(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return (bucket, 1);
    }
    let shift = bucket / STEPS - 1;
    ((bucket - shift * STEPS) << shift, 1 << shift)
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        let bucket = bucket(value);
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let missing = self.first - bucket;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = bucket;
        }
        let index = bucket - self.first;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            *self = other.clone();
            return;
        }
        let first = self.first.min(other.first);
        let end = (self.first + self.counts.len()).max(other.first + other.counts.len());
        let mut counts = vec![0; end - first];
        for histogram in [&*self, other] {
            let from = histogram.first - first;
            for (sum, count) in counts.iter_mut().skip(from).zip(&histogram.counts) {
                *sum += count;
            }
        }
        self.first = first;
        self.counts = counts;
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Exact sum of the values.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Exact largest value; `None` without values.
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// Exact mean, rounded down; `None` without values.
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(u128::from(self.count)).and_then(|mean| u64::try_from(mean).ok())
    }

    /// The value below or at which `permille` thousandths of the values lie: the middle of its bucket, at most the
    /// largest value. `None` without values.
    pub fn quantile(&self, permille: u64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        // The rank is at least 1 and at most the number of values.
        let rank =
            u64::try_from((u128::from(self.count) * u128::from(permille.min(1000))).div_ceil(1000)).unwrap_or(u64::MAX);
        let rank = rank.max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (low, width) = bounds(self.first + index);
                return Some((low + (width - 1) / 2).min(self.max));
            }
        }
        Some(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_cover_every_value_once() {
        for value in (0..4096).chain([1 << 20, (1 << 20) - 1, u64::MAX, u64::MAX / 3]) {
            let (low, width) = bounds(bucket(value));
            assert!(low <= value && value - low < width, "{value}: {low}+{width}");
        }
    }

    #[test]
    fn nothing_has_no_quantile() {
        let empty = Histogram::default();
        assert_eq!((empty.quantile(500), empty.max(), empty.mean()), (None, None, None));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_sixtyfourth(mut values in proptest::collection::vec(0u64..1_000_000_000_000, 1..200), permille in 0u64..=1000) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.record(*value);
            }
            values.sort_unstable();
            let rank = (values.len() as u64 * permille).div_ceil(1000).max(1) as usize;
            let exact = values[rank - 1];
            let found = histogram.quantile(permille).unwrap();
            prop_assert!(found.abs_diff(exact) <= exact / 64 + 1, "{found} for {exact}");
        }

        #[test]
        fn merging_in_any_order_gives_the_same(a in proptest::collection::vec(any::<u64>(), 0..50), b in proptest::collection::vec(any::<u64>(), 0..50)) {
            let build = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|value| histogram.record(*value));
                histogram
            };
            let (mut left, mut right) = (build(&a), build(&b));
            left.merge(&build(&b));
            right.merge(&build(&a));
            let whole = build(&[a, b].concat());
            for permille in [0, 500, 950, 990, 1000] {
                prop_assert_eq!(left.quantile(permille), right.quantile(permille));
                prop_assert_eq!(left.quantile(permille), whole.quantile(permille));
            }
            prop_assert_eq!((left.count(), left.sum(), left.max()), (right.count(), right.sum(), right.max()));
        }
    }
}
