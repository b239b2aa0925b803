//! \[pure\] How far followers are behind, measured with the primary's GTIDs.
//!
//! The ring remembers what the primary had executed at which moments. A follower's lag is the age of the oldest sample,
//! taken before the follower was asked, that the follower does not contain: it lacks something the primary had at that
//! moment. The true lag lies between this and this plus the distance of two samples (one probe interval); it is 0 for a
//! follower that contains them all, and never more than the age of the oldest sample kept. Nothing is written to the
//! servers for it and no clock but ours is read.

use crate::types::Gtids;
use std::collections::VecDeque;
use std::sync::Arc;

/// What the primary had executed when.
#[derive(Clone, Debug, Default)]
pub struct LagRing {
    samples: VecDeque<(u64, Arc<Gtids>)>,
}

impl LagRing {
    /// Remembers that the primary, asked at `asked_ms`, had `gtids`: the first moment of each set, at most one per `gap_ms`,
    /// at most `samples_max` in all.
    pub fn push(&mut self, asked_ms: u64, gtids: &Arc<Gtids>, gap_ms: u64, samples_max: usize) {
        if let Some((at, newest)) = self.samples.back()
            && (asked_ms < at.saturating_add(gap_ms) || **newest == **gtids)
        {
            return;
        }
        // What a failover lost will never arrive anywhere: it must not count as lag.
        while self.samples.back().is_some_and(|(_, lost)| !gtids.contains(lost)) {
            self.samples.pop_back();
        }
        while self.samples.len() >= samples_max.max(1) {
            self.samples.pop_front();
        }
        self.samples.push_back((asked_ms, gtids.clone()));
    }

    /// Lag in milliseconds of a follower that had `gtids` when it was asked at `asked_ms`. `None` without samples from
    /// before that.
    pub fn lag_ms(&self, asked_ms: u64, gtids: &Gtids) -> Option<u64> {
        let before = self.samples.partition_point(|(at, _)| *at <= asked_ms);
        if before == 0 {
            return None;
        }
        // Each sample contains the ones before it, so a follower that contains one contains those, too.
        let (first, second) = self.samples.as_slices();
        let contained = |(_, sample): &(u64, Arc<Gtids>)| gtids.contains(sample);
        let mut missing = first.partition_point(contained);
        if missing == first.len() {
            missing += second.partition_point(contained);
        }
        if missing >= before {
            return Some(0);
        }
        self.samples.get(missing).map(|(at, _)| asked_ms - at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gtids(last: u64) -> Arc<Gtids> {
        let text = format!("aaaaaaaa-aaaa-4aaa-8aaa-000000013600:1-{last}");
        Arc::new(Gtids::MySql(text.parse().unwrap()))
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_sample_that_is_missing() {
        let mut ring = LagRing::default();
        assert_eq!(ring.lag_ms(1000, &gtids(1)), None);
        for (at, last) in [(1000, 10), (1100, 11), (2000, 20), (3000, 20), (4000, 40)] {
            ring.push(at, &gtids(last), 500, 8);
        }
        for (asked, has, lag) in [
            (900, 10, None),
            (1000, 10, Some(0)),
            (1900, 10, Some(0)),
            (2000, 10, Some(0)),
            (2500, 10, Some(500)),
            (2500, 9, Some(1500)),
            (2500, 20, Some(0)),
            (3900, 20, Some(0)),
            (4300, 39, Some(300)),
            (4300, 40, Some(0)),
            (9000, 5, Some(8000)),
        ] {
            // A sample taken in the very millisecond of the question counts: 2000/10 lacks it by 0 ms.
            assert_eq!(ring.lag_ms(asked, &gtids(has)), lag, "asked at {asked}, has {has}");
        }
    }

    #[test]
    fn what_a_failover_lost_is_no_lag() {
        let mut ring = LagRing::default();
        ring.push(1000, &gtids(10), 500, 8);
        ring.push(2000, &gtids(20), 500, 8);
        ring.push(3000, &gtids(15), 500, 8);
        assert_eq!(ring.lag_ms(9000, &gtids(15)), Some(0));
        assert_eq!(ring.lag_ms(9000, &gtids(14)), Some(6000));
    }

    #[test]
    fn the_ring_is_bounded_and_lag_with_it() {
        let mut ring = LagRing::default();
        for n in 1..100 {
            ring.push(n * 1000, &gtids(n), 500, 4);
        }
        assert_eq!(ring.samples.len(), 4);
        assert_eq!(ring.lag_ms(99_000, &gtids(1)), Some(3000));
    }
}
