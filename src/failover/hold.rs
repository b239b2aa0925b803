//! What happens while a cluster has no proven primary: statements are held, bounded in number and time.
//!
//! ```text
//!   Idle ──no proven primary──► Holding ──primary proven──► released (the statement goes on)
//!                                  │
//!                                  ├─ hold_ms_max passed ──► timed out (error to the client, session lives)
//!                                  └─ hold_statements_max ──► refused at once
//! ```
//!
//! Here is the count and its limit; the waiting itself is the session's, on the topology's change notice. Nothing here is
//! on the way of a statement that need not wait, so a lock will do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Statements of one cluster that wait for a primary.
#[derive(Debug)]
pub struct Holds {
    counts: Mutex<HoldCounts>,
    max: usize,
}

/// What a hold has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldCounts {
    /// Statements that wait now.
    pub held: usize,
    /// Statements that have ever begun to wait.
    pub entered: u64,
    /// Since when there has always been one that waits.
    pub since: Option<Instant>,
    /// The longest that one waited which has gone on.
    pub longest: Duration,
}

/// One held statement; leaves the hold when dropped.
#[derive(Debug)]
pub struct Held {
    holds: Arc<Holds>,
    since: Instant,
}

impl Holds {
    /// A hold for at most `max` statements at a time.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max })
    }

    /// Enters the hold; `None` if it is full.
    pub fn enter(self: &Arc<Self>) -> Option<Held> {
        let mut counts = self.lock();
        if counts.held >= self.max {
            return None;
        }
        let since = Instant::now();
        counts.held += 1;
        counts.entered += 1;
        counts.since.get_or_insert(since);
        Some(Held { holds: Arc::clone(self), since })
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
        let holds = Holds::new(2);
        let first = holds.enter();
        let second = holds.enter();
        assert!(first.is_some() && second.is_some() && holds.enter().is_none());
        assert_eq!(holds.held(), 2);
        drop(first);
        assert!(holds.enter().is_some());
        drop(second);
        assert_eq!(holds.held(), 0);
    }

    #[test]
    fn it_knows_how_many_came_and_since_when_one_waits() {
        let holds = Holds::new(1);
        let first = holds.enter();
        let since = holds.counts().since.expect("one waits");
        drop(holds.enter());
        assert_eq!((holds.counts().held, holds.counts().entered), (1, 1), "a refused one never waited");
        std::thread::sleep(Duration::from_millis(2));
        drop(first);
        let counts = holds.counts();
        assert!(counts.since.is_none() && counts.longest >= Duration::from_millis(2), "{counts:?}");
        let _second = holds.enter();
        assert!(holds.counts().since.is_some_and(|again| again > since));
        assert_eq!(holds.counts().entered, 2);
    }
}
