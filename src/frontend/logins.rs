//! Turns at a server's login: a few at first, one more with each that is through, up to `backend_logins_max`.
//!
//! A login is work for both sides. If all that wait for a new primary log in at once, none of them is through before all
//! are nearly; if a few do, the first write is there after one login's time, and the rest are hardly later.

use crate::types::{BackendId, Term};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Logins at a time to begin with, at a server in a term.
const FIRST: usize = 4;

/// The turns of one cluster's servers.
#[derive(Debug)]
pub struct Logins {
    max: usize,
    servers: Mutex<HashMap<BackendId, Arc<Turns>>>,
}

/// The turns at one server.
#[derive(Debug)]
pub struct Turns {
    term: Term,
    max: usize,
    /// Turns there are, taken or not.
    open: AtomicUsize,
    free: Arc<Semaphore>,
}

/// A turn, for as long as it is kept.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    _permit: OwnedSemaphorePermit,
}

impl Logins {
    /// No more than `max` at a time at each server.
    pub fn new(max: usize) -> Self {
        Self { max, servers: Mutex::default() }
    }

    /// The turns at `backend`; in another term they begin anew.
    pub fn at(&self, backend: BackendId, term: Term) -> Arc<Turns> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let open = FIRST.min(self.max);
            Arc::new(Turns { term, max: self.max, open: open.into(), free: Arc::new(Semaphore::new(open)) })
        };
        let turns = servers.entry(backend).or_insert_with(new);
        if turns.term != term {
            *turns = new();
        }
        Arc::clone(turns)
    }
}

impl Turns {
    /// A turn if one is free.
    pub fn take(self: &Arc<Self>) -> Option<Turn> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Turn { turns: Arc::clone(self), _permit: permit })
    }

    /// A turn, first come first served; `None` never. Cancel safe.
    pub async fn wait(self: &Arc<Self>) -> Option<Turn> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(Turn { turns: Arc::clone(self), _permit: permit })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let more = |open| (open < self.turns.max).then_some(open + 1);
        if self.turns.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            self.turns.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_grow_with_each_login_and_begin_anew_with_a_term() {
        let logins = Logins::new(6);
        let all = |turns: &Arc<Turns>| std::iter::from_fn(|| turns.take()).collect::<Vec<Turn>>();
        let turns = logins.at(BackendId(1), Term(1));
        let first = all(&turns);
        assert_eq!(first.len(), FIRST);
        drop(first);
        let then = all(&turns);
        assert_eq!(then.len(), 6, "the most");
        drop(then);
        assert_eq!(all(&turns).len(), 6);
        assert_eq!(all(&logins.at(BackendId(1), Term(1))).len(), 6);
        assert_eq!(all(&logins.at(BackendId(1), Term(2))).len(), FIRST);
        assert_eq!(all(&Logins::new(2).at(BackendId(1), Term(1))).len(), 2);
    }
}
