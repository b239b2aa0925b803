//! Connections of one worker that its sessions share: who has one, who waits for one.
//!
//! ```text
//!             ┌──────────── given back, nobody waits ────────────┐
//!             ▼                                                  │
//!  vacant ──► opening ──► lent ──► given back, somebody waits ──► lent to the first of them
//!     ▲          │          │              └── of another account: closed
//!     │          │          └─ kept while its session is idle, until it is recalled for one who waits
//!     └──────────┴─ closed: lost, too old, unused for too long, or its place is needed for another account's
//! ```
//!
//! A [`Shelf`] is one server's part: so many places, and whoever finds none taken back in time waits in line. A session keeps
//! what it has borrowed as long as nobody waits, so that without a shortage nothing has to be brought from one session's
//! state to another's. It knows neither connections nor sessions: what it keeps is its user's, and so is what a recall does.

mod place;

pub use place::Place;
use place::Vacate;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A key that logged in to a server so long ago has to do so again before another session is let in by it.
const PROOF_AGE_MAX: Duration = Duration::from_secs(60);
/// Accounts whose last login is remembered.
const PROOFS_MAX: usize = 1024;

/// Who has borrowed something.
pub trait Holder {
    /// Asks for it back; false if it is in use, and will be given back after that.
    fn recall(&self) -> bool;
}

/// What a shelf keeps.
pub trait Shelved {
    /// Where it stands.
    fn place(&self) -> Option<&Place>;
    /// It can be used by somebody else.
    fn is_usable(&mut self) -> bool;
    /// When it was made.
    fn made(&self) -> Instant;
}

impl<T: Shelved> Shelved for Box<T> {
    fn place(&self) -> Option<&Place> {
        (**self).place()
    }

    fn is_usable(&mut self) -> bool {
        (**self).is_usable()
    }

    fn made(&self) -> Instant {
        (**self).made()
    }
}

/// The limits of a shelf.
#[derive(Clone, Copy, Debug)]
pub struct ShelfLimits {
    /// Places.
    pub places_max: usize,
    /// So many are not closed for being unused.
    pub places_min: usize,
    /// How long one may be unused.
    pub idle_max: Duration,
    /// How old one may get; none: as old as it likes.
    pub lifetime_max: Option<Duration>,
    /// Who may wait.
    pub waiters_max: usize,
}

/// What was borrowed.
pub enum Borrowed<T> {
    /// Something that somebody else has used before.
    Used(T),
    /// A place for something new.
    Place(Place),
}

/// Why nothing was borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBorrowed {
    /// Too many wait already.
    Full,
    /// None was given back in time.
    Late,
}

enum PlaceState {
    Vacant,
    Taken(Option<Arc<dyn Holder>>),
}

struct Free<K, T> {
    key: K,
    item: T,
    since: Instant,
}

struct Waiter<K, T> {
    id: u64,
    key: K,
    fresh: bool,
    answer: oneshot::Sender<Borrowed<T>>,
}

struct State<K, T> {
    /// The longest unused first.
    free: VecDeque<Free<K, T>>,
    places: Vec<PlaceState>,
    waiters: VecDeque<Waiter<K, T>>,
    proofs: Vec<(K, Instant)>,
    next_waiter: u64,
    /// Whom to recall from next.
    hand: usize,
}

/// The places for one server's connections.
pub struct Shelf<K, T> {
    state: RefCell<State<K, T>>,
    limits: Cell<ShelfLimits>,
    waiting: Rc<Cell<usize>>,
    me: Weak<Self>,
}

impl<K: PartialEq + Clone + 'static, T: Shelved + 'static> Shelf<K, T> {
    /// An empty one.
    pub fn new(limits: ShelfLimits) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            state: RefCell::new(State {
                free: VecDeque::new(),
                places: Vec::new(),
                waiters: VecDeque::new(),
                proofs: Vec::new(),
                next_waiter: 0,
                hand: 0,
            }),
            limits: Cell::new(limits),
            waiting: Rc::default(),
            me: me.clone(),
        })
    }

    /// Changes the limits for what is to come.
    pub fn limit(&self, limits: ShelfLimits) {
        self.limits.set(limits);
    }

    /// True if nothing stands here and nobody waits.
    pub fn is_empty(&self) -> bool {
        let state = self.state.borrow();
        state.waiters.is_empty() && state.places.iter().all(|place| matches!(place, PlaceState::Vacant))
    }

    /// How many are free, and how many are lent or being opened.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.borrow();
        let taken = state.places.iter().filter(|place| matches!(place, PlaceState::Taken(_))).count();
        (state.free.len(), taken - state.free.len())
    }

    /// A connection of this key has just logged in.
    pub fn proven(&self, key: &K) {
        let mut state = self.state.borrow_mut();
        state.proofs.retain(|(known, at)| known != key && at.elapsed() < PROOF_AGE_MAX);
        if state.proofs.len() < PROOFS_MAX {
            state.proofs.push((key.clone(), Instant::now()));
        }
    }

    /// Has a connection of this key logged in a short while ago?
    pub fn is_proven(&self, key: &K) -> bool {
        self.state.borrow().proofs.iter().any(|(known, at)| known == key && at.elapsed() < PROOF_AGE_MAX)
    }

    /// Borrows something of this key, or a place for it; `fresh`: a place only. Waits in line until `deadline`. Cancel safe.
    pub async fn borrow(&self, key: &K, fresh: bool, deadline: Instant) -> Result<Borrowed<T>, NotBorrowed> {
        if self.waiting.get() == 0
            && let Some(borrowed) = self.take(key, fresh)
        {
            return Ok(borrowed);
        }
        let (answer, answered) = oneshot::channel();
        let _waiting = self.queue(key, fresh, answer).ok_or(NotBorrowed::Full)?;
        self.recall();
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(borrowed)) => Ok(borrowed),
            Ok(Err(_)) | Err(_) => Err(NotBorrowed::Late),
        }
    }

    /// Takes back what was borrowed: for the first who waits, or to stand free.
    pub fn give_back(&self, key: K, item: T) {
        let index = item.place().map(|place| place.index);
        let mut state = self.state.borrow_mut();
        let Some(PlaceState::Taken(holder)) = index.and_then(|index| state.places.get_mut(index)) else { return };
        *holder = None;
        let mut item = item;
        while let Some(waiter) = self.next(&mut state) {
            if waiter.key != key || waiter.fresh || self.is_old(item.made()) {
                state.waiters.push_front(waiter);
                self.waiting.set(state.waiters.len());
                drop(state);
                // Its place goes to the first who waits.
                return drop(item);
            }
            match waiter.answer.send(Borrowed::Used(item)) {
                Ok(()) => return,
                Err(Borrowed::Used(back)) => item = back,
                Err(Borrowed::Place(_)) => return,
            }
        }
        state.free.push_back(Free { key, item, since: Instant::now() });
    }

    /// Closes what has been unused for too long; all that is unused if `all`.
    pub fn sweep(&self, all: bool) {
        let limits = self.limits.get();
        let closed: Vec<Free<K, T>> = {
            let mut state = self.state.borrow_mut();
            let mut keep = limits.places_min;
            let mut kept = VecDeque::with_capacity(state.free.len());
            let mut closed = Vec::new();
            // The last used are those to keep.
            while let Some(mut free) = state.free.pop_back() {
                let wanted = keep > 0 || free.since.elapsed() < limits.idle_max;
                if !all && wanted && !self.is_old(free.item.made()) && free.item.is_usable() {
                    keep = keep.saturating_sub(1);
                    kept.push_front(free);
                } else {
                    closed.push(free);
                }
            }
            state.free = kept;
            closed
        };
        drop(closed);
    }

    fn is_old(&self, made: Instant) -> bool {
        self.limits.get().lifetime_max.is_some_and(|max| made.elapsed() > max)
    }

    fn take(&self, key: &K, fresh: bool) -> Option<Borrowed<T>> {
        loop {
            let mut state = self.state.borrow_mut();
            let same = if fresh { None } else { state.free.iter().rposition(|free| free.key == *key) };
            if let Some(mut free) = same.and_then(|at| state.free.remove(at)) {
                drop(state);
                if !self.is_old(free.item.made()) && free.item.is_usable() {
                    return Some(Borrowed::Used(free.item));
                }
                continue;
            }
            if let Some(index) = self.vacancy(&mut state) {
                return Some(Borrowed::Place(self.place(index)));
            }
            let oldest = state.free.pop_front();
            drop(state);
            // Another account's: its place is needed.
            oldest?;
        }
    }

    /// Takes a vacant place.
    fn vacancy(&self, state: &mut State<K, T>) -> Option<usize> {
        let max = self.limits.get().places_max;
        let taken = state.places.iter().filter(|place| matches!(place, PlaceState::Taken(_))).count();
        if taken >= max {
            return None;
        }
        let index = match state.places.iter().position(|place| matches!(place, PlaceState::Vacant)) {
            Some(index) => index,
            None => {
                state.places.push(PlaceState::Vacant);
                state.places.len() - 1
            }
        };
        state.places[index] = PlaceState::Taken(None);
        Some(index)
    }

    fn place(&self, index: usize) -> Place {
        let shelf: Weak<dyn Vacate> = self.me.clone();
        Place::new(shelf, &self.waiting, index)
    }

    fn queue(&self, key: &K, fresh: bool, answer: oneshot::Sender<Borrowed<T>>) -> Option<Queued<'_, K, T>> {
        let mut state = self.state.borrow_mut();
        if state.waiters.len() >= self.limits.get().waiters_max {
            return None;
        }
        let id = state.next_waiter;
        state.next_waiter += 1;
        state.waiters.push_back(Waiter { id, key: key.clone(), fresh, answer });
        self.waiting.set(state.waiters.len());
        Some(Queued { shelf: self, id })
    }

    /// The first in line.
    fn next(&self, state: &mut State<K, T>) -> Option<Waiter<K, T>> {
        let waiter = state.waiters.pop_front();
        self.waiting.set(state.waiters.len());
        waiter
    }

    /// Asks the next holder who does not use what it has.
    fn recall(&self) {
        let mut state = self.state.borrow_mut();
        let count = state.places.len();
        for step in 0..count {
            let at = (state.hand + step) % count;
            if let PlaceState::Taken(Some(holder)) = &state.places[at]
                && holder.recall()
            {
                state.hand = at + 1;
                return;
            }
        }
    }
}

impl<K: PartialEq + Clone + 'static, T: Shelved + 'static> Vacate for Shelf<K, T> {
    fn vacate(&self, index: usize) {
        let mut state = self.state.borrow_mut();
        state.places[index] = PlaceState::Vacant;
        let Some(index) = (if state.waiters.is_empty() { None } else { self.vacancy(&mut state) }) else { return };
        let mut place = self.place(index);
        while let Some(waiter) = self.next(&mut state) {
            match waiter.answer.send(Borrowed::Place(place)) {
                Ok(()) => return,
                Err(Borrowed::Place(back)) => place = back,
                Err(Borrowed::Used(_)) => return,
            }
        }
        drop(state);
        drop(place);
    }

    fn hold(&self, index: usize, holder: Option<Arc<dyn Holder>>) {
        if let Some(PlaceState::Taken(held)) = self.state.borrow_mut().places.get_mut(index) {
            *held = holder;
        }
    }
}

/// One who waits; leaves the line when dropped.
struct Queued<'s, K, T> {
    shelf: &'s Shelf<K, T>,
    id: u64,
}

impl<K, T> Drop for Queued<'_, K, T> {
    fn drop(&mut self) {
        let gone = {
            let mut state = self.shelf.state.borrow_mut();
            let at = state.waiters.iter().position(|waiter| waiter.id == self.id);
            let gone = at.and_then(|at| state.waiters.remove(at));
            self.shelf.waiting.set(state.waiters.len());
            gone
        };
        drop(gone);
    }
}

#[cfg(test)]
mod tests;
