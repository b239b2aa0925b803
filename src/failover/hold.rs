//! What happens while a cluster has no proven primary: statements are held, bounded in number and time.
//!
//! ```text
//!   Idle ──no proven primary──► Holding ──primary proven──► released (the statement goes on)
//!                                  │
//!                                  ├─ hold_ms_max passed ──► timed out (error to the client, session lives)
//!                                  └─ hold_statements_max, hold_bytes_max ──► refused at once
//! ```
//!
//! They leave as they came: the first at once, those behind them in waves that double, so that a new primary, whose caches
//! are cold, isn't given at one moment all that has gathered.
//!
//! Here is the count and its limit; the waiting itself is the session's, on the topology's change notice. Nothing here is
//! on the way of a statement that need not wait, so a lock will do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Statements of one cluster that wait for a primary.
#[derive(Debug)]
pub struct Holds {
    counts: Mutex<HoldCounts>,
    max: AtomicUsize,
    bytes_max: AtomicUsize,
}

/// Statements that leave at once, and the time between two waves of those behind them.
const FIRST_WAVE: u64 = 64;
const BETWEEN_WAVES: Duration = Duration::from_millis(5);

/// How long who came into the hold after `place` others lets them go ahead when it ends: 10,000 are gone after 35 ms.
pub fn ramp(place: u64) -> Duration {
    BETWEEN_WAVES * (place / FIRST_WAVE + 1).ilog2()
}

/// What a hold has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldCounts {
    /// Statements that wait now.
    pub held: usize,
    /// What they are long together.
    pub bytes: usize,
    /// Statements that have ever begun to wait.
    pub entered: u64,
    /// Since when there has always been one that waits.
    pub since: Option<Instant>,
    /// What had entered before the first of those that wait.
    before: u64,
    /// The longest that one waited which has gone on.
    pub longest: Duration,
}

/// One held statement; leaves the hold when dropped.
#[derive(Debug)]
pub struct Held {
    holds: Arc<Holds>,
    since: Instant,
    bytes: usize,
    /// How many were there before it.
    pub place: u64,
}

impl Holds {
    /// A hold for at most `max` statements at a time, of at most `bytes_max` bytes together.
    pub fn new(max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max: max.into(), bytes_max: bytes_max.into() })
    }

    /// Changes the limits for statements to come; who waits goes on waiting.
    pub fn limit(&self, max: usize, bytes_max: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Enters the hold with a statement of so many bytes; `None` if it is full.
    pub fn enter(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let mut counts = self.lock();
        let (max, bytes_max) = (self.max.load(Ordering::Relaxed), self.bytes_max.load(Ordering::Relaxed));
        if counts.held >= max || bytes > bytes_max.saturating_sub(counts.bytes) {
            return None;
        }
        let since = Instant::now();
        if counts.since.is_none() {
            (counts.since, counts.before) = (Some(since), counts.entered);
        }
        counts.held += 1;
        counts.bytes += bytes;
        counts.entered += 1;
        Some(Held { holds: Arc::clone(self), since, bytes, place: counts.entered - counts.before - 1 })
    }

    /// How many wait now.
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// All of it.
    pub fn counts(&self) -> HoldCounts {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, HoldCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.holds.lock();
        counts.held -= 1;
        counts.bytes -= self.bytes;
        counts.longest = counts.longest.max(self.since.elapsed());
        if counts.held == 0 {
            counts.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_hold_refuses_and_a_left_place_is_free_again() {
        let holds = Holds::new(2, 100);
        let first = holds.enter(10);
        let second = holds.enter(10);
        assert!(first.is_some() && second.is_some() && holds.enter(10).is_none());
        assert_eq!(holds.held(), 2);
        drop(first);
        assert!(holds.enter(91).is_none(), "too many bytes");
        assert!(holds.enter(90).is_some());
        drop(second);
        assert_eq!((holds.held(), holds.counts().bytes), (0, 0));
    }

    #[test]
    fn whoever_came_first_leaves_first_and_all_are_soon_gone() {
        let holds = Holds::new(10_000, 0);
        for _ in 0..2 {
            let all: Vec<Held> = (0..1000).map_while(|_| holds.enter(0)).collect();
            assert_eq!(all.iter().map(|held| held.place).collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
            drop(all);
        }
        let delays: Vec<u128> = [0, 63, 64, 191, 192, 447, 448, 10_000].map(|n| ramp(n).as_millis()).to_vec();
        assert_eq!(delays, [0, 0, 5, 5, 10, 10, 15, 35]);
    }

    #[test]
    fn it_knows_how_many_came_and_since_when_one_waits() {
        let holds = Holds::new(1, 0);
        let first = holds.enter(0);
        let since = holds.counts().since.expect("one waits");
        drop(holds.enter(0));
        assert_eq!((holds.counts().held, holds.counts().entered), (1, 1), "a refused one never waited");
        std::thread::sleep(Duration::from_millis(2));
        drop(first);
        let counts = holds.counts();
        assert!(counts.since.is_none() && counts.longest >= Duration::from_millis(2), "{counts:?}");
        let _second = holds.enter(0);
        assert!(holds.counts().since.is_some_and(|again| again > since));
        assert_eq!(holds.counts().entered, 2);
    }
}
