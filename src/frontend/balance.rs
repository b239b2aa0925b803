//! Moving reads to a follower that has come back: those that have none open there go over a few at a time, each at a moment
//! when its client waits for nothing.
//!
//! A session stays with the follower it has chosen, so that what it has there (prepared statements, its state) is there for
//! the next read. Without this a follower that comes back would get new sessions only.

use super::shared::SessionHandle;
use crate::routing;
use crate::session::Slot;
use crate::topology::Topology;
use crate::types::BackendId;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long sessions are moved after a follower has come.
const MOVES: Duration = Duration::from_secs(60);
/// Of so many sessions one is moved at a time.
const PART: usize = 10;
/// At least so many are.
const LEAST: usize = 4;

/// Which followers there were, and whether one has come since.
#[derive(Default)]
pub(super) struct Balance {
    served: Vec<BackendId>,
    until: Option<Instant>,
}

impl Balance {
    /// Has some sessions move; true if it is to be asked again soon.
    pub fn look_after(&mut self, topology: &Topology, sessions: &[Arc<SessionHandle>]) -> bool {
        // How far behind it is must be known before most listeners have reads there.
        let known = topology.followers().filter(|server| server.lag_ms.is_some());
        let serving: Vec<(BackendId, u32)> = known.map(|server| (server.id, server.weight)).collect();
        let came = serving.iter().any(|(id, weight)| *weight > 0 && !self.served.contains(id));
        if came && !self.served.is_empty() {
            self.until = Some(Instant::now() + MOVES);
        }
        self.served = serving.iter().map(|(id, _)| *id).collect();
        if self.until.is_none_or(|until| Instant::now() >= until) || !moves(&serving, sessions) {
            self.until = None;
        }
        self.until.is_some()
    }
}

fn moves(serving: &[(BackendId, u32)], sessions: &[Arc<SessionHandle>]) -> bool {
    let follower = |session: &SessionHandle| session.connection(Slot::Follower.index()).map(|(backend, _)| backend);
    let count = |id| sessions.iter().filter(|session| follower(session) == Some(id)).count();
    let all: Vec<_> = serving.iter().map(|(id, weight)| (*id, *weight, count(*id))).collect();
    let mut surplus = routing::surplus(&all);
    let mut left = (sessions.len() / PART).max(LEAST);
    let any = !surplus.is_empty();
    for session in sessions {
        let Some(backend) = follower(session) else { continue };
        let Some((_, more)) = surplus.iter_mut().find(|(id, more)| *id == backend && *more > 0) else { continue };
        if left == 0 {
            break;
        }
        (*more, left) = (*more - 1, left - 1);
        session.nudge.move_from(session.raw_connection(Slot::Follower.index()));
    }
    any
}
