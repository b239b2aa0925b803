//! A place on a shelf: what is counted, and comes back by itself.

use super::Holder;
use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// A shelf that a place comes back to.
pub(super) trait Vacate {
    fn vacate(&self, index: usize);
    fn hold(&self, index: usize, holder: Option<Arc<dyn Holder>>);
}

/// One place on a shelf; it is vacant again when this is dropped.
pub struct Place {
    shelf: Weak<dyn Vacate>,
    waiting: Rc<Cell<usize>>,
    pub(super) index: usize,
}

impl Place {
    pub(super) fn new(shelf: Weak<dyn Vacate>, waiting: &Rc<Cell<usize>>, index: usize) -> Self {
        Self { shelf, waiting: Rc::clone(waiting), index }
    }

    /// True if somebody waits for what stands here.
    #[inline]
    pub fn is_waited_for(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Notes who has what stands here, if it can be asked for it.
    pub fn hold(&self, holder: Option<Arc<dyn Holder>>) {
        if let Some(shelf) = self.shelf.upgrade() {
            shelf.hold(self.index, holder);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.upgrade() {
            shelf.vacate(self.index);
        }
    }
}
