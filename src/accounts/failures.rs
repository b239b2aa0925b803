//! \[pure\] Slows repeated login failures from one address.
//!
//! After [`Limits::free`] failures each further attempt from that address waits before it is tried: longer with each
//! failure, at most [`Limits::delay_max`]. A success halves the count, so that many clients behind one address (a node, another proxy) with
//! one misconfigured among them are not slowed. Counts fade with time; the table is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What each failure after that adds.
pub const DELAY_STEP: Duration = Duration::from_millis(100);
/// A count halves each time this passes without a failure.
const FADE: Duration = Duration::from_secs(30);

/// Bounds of the slowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures that cost nothing; none: no failure ever does.
    pub free: Option<u32>,
    /// The longest delay.
    pub delay_max: Duration,
    /// Addresses remembered.
    pub addresses_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { free: Some(10), delay_max: Duration::from_secs(1), addresses_max: 10_000 }
    }
}

/// Failures by source address.
#[derive(Default)]
pub struct Failures {
    counts: HashMap<IpAddr, Count>,
    limits: Limits,
}

struct Count {
    failures: u32,
    last: Instant,
}

impl Count {
    fn faded(&self, now: Instant) -> u32 {
        let periods = now.saturating_duration_since(self.last).as_secs() / FADE.as_secs();
        self.failures.checked_shr(u32::try_from(periods).unwrap_or(u32::MAX)).unwrap_or(0)
    }
}

impl Failures {
    /// No failures yet.
    pub fn new(limits: Limits) -> Self {
        Self { counts: HashMap::new(), limits }
    }

    /// Other limits from now on.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How long an attempt from `address` waits now.
    pub fn delay(&self, address: IpAddr, now: Instant) -> Duration {
        let Some(free) = self.limits.free else { return Duration::ZERO };
        let failures = self.counts.get(&address).map_or(0, |count| count.faded(now));
        DELAY_STEP.saturating_mul(failures.saturating_sub(free)).min(self.limits.delay_max)
    }

    /// Counts a failure.
    pub fn failed(&mut self, address: IpAddr, now: Instant) {
        if !self.counts.contains_key(&address) && self.counts.len() >= self.limits.addresses_max {
            self.counts.retain(|_, count| count.faded(now) > 0);
            if self.counts.len() >= self.limits.addresses_max {
                let oldest = self.counts.iter().min_by_key(|(_, count)| count.last).map(|(address, _)| *address);
                oldest.map(|address| self.counts.remove(&address));
            }
        }
        let count = self.counts.entry(address).or_insert(Count { failures: 0, last: now });
        *count = Count { failures: count.faded(now).saturating_add(1), last: now };
    }

    /// Counts a success.
    pub fn succeeded(&mut self, address: IpAddr, now: Instant) {
        if let Some(count) = self.counts.get_mut(&address) {
            count.failures = count.faded(now) / 2;
            if count.failures == 0 {
                self.counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn failures_slow_and_fade() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..10 {
            failures.failed(address, now);
        }
        assert_eq!(failures.delay(address, now), Duration::ZERO);
        failures.failed(address, now);
        assert_eq!(failures.delay(address, now), DELAY_STEP);
        for _ in 0..100 {
            failures.failed(address, now);
        }
        assert_eq!(failures.delay(address, now), Limits::default().delay_max);
        assert_eq!(failures.delay(IpAddr::from([192, 0, 2, 2]), now), Duration::ZERO);
        assert_eq!(failures.delay(address, now + 4 * FADE), Duration::ZERO);
        failures.succeeded(address, now + 4 * FADE);
        failures.succeeded(address, now + 8 * FADE);
        assert!(failures.counts.is_empty());
    }

    #[test]
    fn without_a_limit_nobody_is_slowed() {
        let (mut failures, now) = (Failures::new(Limits { free: None, ..Limits::default() }), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..100 {
            failures.failed(address, now);
        }
        assert_eq!(failures.delay(address, now), Duration::ZERO);
    }

    #[test]
    fn the_table_is_bounded() {
        let limits = Limits { addresses_max: 100, ..Limits::default() };
        let (mut failures, now) = (Failures::new(limits), Instant::now());
        for n in 0..200 {
            failures.failed(IpAddr::from(Ipv4Addr::from(n)), now + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(failures.counts.len(), 100);
    }
}
