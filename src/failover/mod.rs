//! What happens while a cluster has no proven primary: statements are held, bounded in number and time.
//!
//! ```text
//!   Idle ──no proven primary──► Holding ──primary proven──► released (the statement goes on)
//!                                  │
//!                                  ├─ hold_ms_max passed ──► timed out (error to the client, session lives)
//!                                  └─ hold_statements_max ──► refused at once
//! ```
//!
//! Here is the count and its limit; the waiting itself is the session's, on the topology's change notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Statements of one cluster that wait for a primary.
#[derive(Debug)]
pub struct Holds {
    held: AtomicUsize,
    max: usize,
}

/// One held statement; leaves the hold when dropped.
#[derive(Debug)]
pub struct Held(Arc<Holds>);

impl Holds {
    /// A hold for at most `max` statements at a time.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), max })
    }

    /// Enters the hold; `None` if it is full.
    pub fn enter(self: &Arc<Self>) -> Option<Held> {
        let entered = self.held.fetch_add(1, Ordering::Relaxed) < self.max;
        let held = Held(Arc::clone(self));
        entered.then_some(held)
    }

    /// How many wait now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
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
}
