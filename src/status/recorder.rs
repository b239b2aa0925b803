//! Follows one cluster's snapshots and writes its [`History`]: the shell around [`super::history`]; it decides nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::history::{History, Waiting};
use crate::failover::Holds;
use crate::metrics;
use crate::topology::TopologyHandle;

/// A history that its recorder writes and the admin port reads.
pub type SharedHistory = Arc<Mutex<History>>;

/// How often it looks when nothing changes: what waits in peace is told from what waits for a primary by this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts to record on the current tokio runtime; ends with `stop`.
pub fn spawn(topology: TopologyHandle, holds: Arc<Holds>, stop: CancellationToken) -> SharedHistory {
    let history = Arc::new(Mutex::new(History::new(topology.snapshot())));
    let written = Arc::clone(&history);
    tokio::spawn(async move {
        let cluster = topology.snapshot().cluster.clone();
        let mut changed = topology.changed();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                news = changed.changed() => if news.is_err() { break },
                _ = look.tick() => {}
            }
            let snapshot = topology.snapshot();
            metrics::has_primary(&cluster.0, Some(snapshot.primary.is_some()));
            let counts = holds.counts();
            let waiting = Waiting { now: counts.held, entered: counts.entered };
            lock(&written).note(snapshot, waiting, super::unix_ms(SystemTime::now()));
        }
        metrics::has_primary(&cluster.0, None);
    });
    history
}

/// The history, for as long as the guard lives.
pub fn lock(history: &SharedHistory) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}
