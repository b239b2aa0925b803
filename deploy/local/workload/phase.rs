//! Where the demo stands, for clients that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::watch;

/// The phases, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All is well.
    Warm,
    /// The primary's process is gone.
    Killed,
    /// Clients leave.
    Done,
}

/// The present phase, and how many transactions are open in it.
#[derive(Clone)]
pub struct Phases {
    phase: watch::Receiver<Phase>,
    open: Arc<AtomicU32>,
}

impl Phases {
    /// Phases that begin with [`Phase::Warm`], and what moves them on.
    pub fn new() -> (watch::Sender<Phase>, Self) {
        let (sender, phase) = watch::channel(Phase::Warm);
        (sender, Self { phase, open: Arc::default() })
    }

    /// The present one.
    pub fn now(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Until `phase` has begun, or the demo has ended otherwise.
    pub async fn wait(&mut self, phase: Phase) {
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    /// A transaction is open.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// How many transactions have been opened.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}
