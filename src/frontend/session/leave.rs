//! Leaving servers that are going: between statements, by the session itself. See [`crate::frontend::drain`].

use super::ClientSession;
use crate::frontend::drain::{Fate, fate};
use crate::session::Slot;
use std::time::Duration;

/// How long a server has to take our farewell.
const FAREWELL: Duration = Duration::from_millis(100);

impl ClientSession {
    /// Follows the nudge number `count`: closes connections that nothing is open on, and those whose time is over.
    pub(super) async fn leave(&mut self, count: u32) {
        let mut stays = false;
        for slot in [Slot::Primary, Slot::Follower] {
            let Some(connection) = self.slot(slot).as_ref() else { continue };
            let (backend, term) = (connection.backend, connection.term);
            let fate = fate(&self.cluster().topology.load(), slot, backend, term);
            match (fate, self.is_bound(slot)) {
                (Fate::Stay, _) => {}
                (Fate::Leave, true) => stays = true,
                (Fate::Leave | Fate::Cut, false) => {
                    tracing::debug!(session = self.handle.id.0, backend = backend.0, ?fate, "left a server");
                    self.drop_connection(slot, None);
                }
                (Fate::Cut, true) => {
                    tracing::info!(session = self.handle.id.0, backend = backend.0, "cut from a server");
                    // What was open is over for the server; the client hears of it with its next statement.
                    if let Some(connection) = self.slot(slot).as_mut() {
                        let _ = tokio::time::timeout(FAREWELL, connection.channel.shutdown()).await;
                    }
                }
            }
        }
        let follower = self.handle.raw_connection(Slot::Follower.index());
        let held = self.is_bound(Slot::Follower) || self.session.statements.is_held() || !self.owed.is_empty();
        if self.handle.nudge.is_to_move(follower) && !held {
            match self.is_spare(Slot::Follower) {
                true => self.give_back(Slot::Follower).await,
                false => {
                    self.drop_connection(Slot::Follower, None);
                }
            }
        }
        self.give_back_waited_for().await;
        self.nudged = (count, stays);
    }

    /// Is something open on the connection in this slot that would be lost with it?
    #[inline]
    pub(super) fn is_bound(&self, slot: Slot) -> bool {
        let pinned = slot == Slot::Primary && self.session.pins().lost_with_connection().is_some();
        pinned || self.session.transaction() == Some(slot)
    }
}
