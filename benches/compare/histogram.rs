//! Times in log-linear buckets: 64 to each power of two of nanoseconds, so a quantile is off by 1.6 % at most.

use std::time::Duration;

const PER_OCTAVE: u64 = 64;

/// Counts of durations.
#[derive(Clone, Default)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let bucket = bucket(duration.as_nanos() as u64);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// The `q` quantile in microseconds, 0 without any.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let rank = (self.count as f64 * q).ceil() as u64;
        let mut so_far = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            so_far += count;
            if so_far >= rank.max(1) {
                return middle(i) / 1000.0;
            }
        }
        0.0
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < PER_OCTAVE {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - PER_OCTAVE.ilog2();
    (u64::from(shift) * PER_OCTAVE + (nanos >> shift)) as usize
}

fn middle(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    if bucket < 2 * PER_OCTAVE {
        return bucket as f64;
    }
    let shift = bucket / PER_OCTAVE - 1;
    let low = (bucket - shift * PER_OCTAVE) << shift;
    low as f64 + (1u64 << shift) as f64 / 2.0
}
