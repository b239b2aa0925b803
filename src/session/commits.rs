//! \[pure\] What the primary tells of a session's commits, and how fresh the session wants to read.

use super::{COMMITTED_MAX, Session, Slot};
use crate::classify::Hint;
use crate::types::Consistency;

impl Session {
    pub(super) fn observe_commit(&mut self, slot: Slot, gtids: &[u8]) {
        if slot == Slot::Follower || gtids.is_empty() {
            return;
        }
        if self.committed.len() == COMMITTED_MAX {
            return self.written.lose_track();
        }
        self.committed.push(gtids.into());
    }

    /// How fresh the client wants its reads, if it has said so.
    #[inline]
    pub fn consistency(&self) -> Option<Consistency> {
        self.consistency
    }

    /// True while what it commits is not replicated.
    pub fn is_unlogged(&self) -> bool {
        self.unlogged
    }

    /// What the primary has told of commits since the last call: GTID sets as text.
    #[inline]
    pub fn take_committed(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.committed)
    }

    /// True if the client has set gtid_next, or wants commits not to be told: the proxy leaves both alone then.
    pub fn steers_gtids(&self) -> bool {
        self.steers_gtids
    }

    /// True if the client has asked to be told of GTIDs.
    pub fn wants_gtids(&self) -> bool {
        self.variables.get(b"session_track_gtids").is_some_and(|value| value != b"OFF")
    }
}

/// What a SET of `@holdfast_consistency` with that hint asks for.
pub(super) fn consistency(hint: Hint) -> Option<Consistency> {
    match hint {
        Hint::Eventual => Some(Consistency::Eventual),
        Hint::Session => Some(Consistency::Session),
        Hint::Strong => Some(Consistency::Strong),
        Hint::None | Hint::Primary | Hint::Follower => None,
    }
}
