//! A histogram of latencies with a relative error below 1/32 and no allocation per sample.

use cryptonic_pci::Time;

use crate::Ticks;

const SUB_BUCKETS_LOG2: u32 = 5;
const BUCKETS: usize = 64 << SUB_BUCKETS_LOG2;

/// Latencies in nanoseconds by log-linear buckets.
#[derive(Clone)]
pub struct Latencies {
    counts: Box<[u64; BUCKETS]>,
    samples: u64,
    max: Ticks,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies { counts: Box::new([0; BUCKETS]), samples: 0, max: Ticks::ZERO }
    }
}

impl Latencies {
    /// Adds a sample.
    #[inline]
    pub fn add(&mut self, span: Ticks) {
        self.counts[bucket(span.0)] += 1;
        self.samples += 1;
        self.max = self.max.max(span);
    }

    /// Number of samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The span that a share of the samples (0 to 1) does not exceed, up to the width of a bucket.
    pub fn quantile(&self, share: f64) -> Time {
        let wanted = (share * self.samples as f64).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return Ticks(upper_edge(index)).min(self.max).into();
            }
        }
        self.max.into()
    }

    /// The largest sample.
    pub fn max(&self) -> Time {
        self.max.into()
    }
}

/// Spans of time: how many, the shortest, the longest and the mean, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    samples: u64,
    total: u128,
    min: Ticks,
    max: Ticks,
}

impl Spread {
    /// Adds a sample.
    #[inline]
    pub fn add(&mut self, span: Ticks) {
        self.min = if self.samples == 0 { span } else { self.min.min(span) };
        self.max = self.max.max(span);
        self.samples += 1;
        self.total += u128::from(span.0);
    }

    /// Number of samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The shortest; zero if there is none.
    pub fn min(&self) -> Time {
        self.min.into()
    }

    /// The longest; zero if there is none.
    pub fn max(&self) -> Time {
        self.max.into()
    }

    /// The mean, rounded down; zero if there is none.
    pub fn mean(&self) -> Time {
        Time(self.total.checked_div(u128::from(self.samples)).unwrap_or(0))
    }
}

fn bucket(ticks: u64) -> usize {
    let ticks = ticks | 1 << SUB_BUCKETS_LOG2;
    let exponent = 63 - ticks.leading_zeros();
    let sub = (ticks >> (exponent - SUB_BUCKETS_LOG2)) & ((1 << SUB_BUCKETS_LOG2) - 1);
    ((exponent << SUB_BUCKETS_LOG2) as usize) + sub as usize
}

fn upper_edge(index: usize) -> u64 {
    let exponent = (index >> SUB_BUCKETS_LOG2) as u32;
    let sub = (index & ((1 << SUB_BUCKETS_LOG2) - 1)) as u64;
    let step = exponent.saturating_sub(SUB_BUCKETS_LOG2);
    (((1 << SUB_BUCKETS_LOG2) + sub) << step) + (1 << step) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut latencies = Latencies::default();
        for nanoseconds in 1..=10_000 {
            latencies.add(Ticks::from_nanoseconds(nanoseconds));
        }
        for (share, expected) in [(0.5, 5_000.0), (0.99, 9_900.0)] {
            let found = latencies.quantile(share).nanoseconds();
            assert!((found / expected - 1.0).abs() < 1.0 / 32.0, "{share}: {found}");
        }
        assert_eq!(latencies.max(), Time::from_nanoseconds(10_000));
    }
}
