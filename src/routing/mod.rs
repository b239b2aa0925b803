//! \[pure\] (class of statement, session, listener's mode) → which of the session's connections.
//!
//! Which follower that is, and whether there is a proven primary, is the backend side's question; here is decided what a
//! single server's answer asks for. When in doubt: the primary.

mod follower;
mod freshness;
mod primary;

pub use follower::{choose, serves_reads, surplus};
pub use freshness::{Freshness, consistency, freshness};
pub use primary::{Turn, is_drained, primary};

use crate::classify::{Class, Classified, Flags, Hint};
use crate::session::{Pin, Session, Slot};
use crate::types::Consistency;

/// What a listener does with reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Writes to the primary, pure reads to followers.
    Split,
    /// All to the primary.
    Primary,
    /// All to a follower.
    Followers,
}

/// Where a statement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The connection.
    pub slot: Slot,
    /// It may be sent again on the other connection, or a new one, if nothing of its answer was forwarded: it changes
    /// nothing and stands outside a transaction.
    pub repeatable: bool,
    /// It must see what its session has committed.
    pub fresh: bool,
}

/// What of a command decides its way.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The statement that it is, or that it prepares or executes.
    pub statement: Classified,
    /// It prepares the statement only: nothing is read.
    pub prepares: bool,
    /// The connection it must use, whatever the statement.
    pub only: Option<Slot>,
    /// It changes nothing on the server that matters if it is sent again.
    pub repeatable: bool,
}

/// Chooses the connection for `command`; `listener`: how fresh reads are by default.
#[inline]
pub fn route_command(mode: Mode, listener: Consistency, session: &Session, command: Command) -> Route {
    let Command { statement, prepares, only, repeatable } = command;
    if let Some(slot) = only {
        return Route { slot, repeatable, fresh: false };
    }
    let route = route(mode, listener, session, statement);
    let repeatable = route.repeatable || (repeatable && session.transaction().is_none());
    Route { slot: route.slot, repeatable, fresh: route.fresh && !prepares }
}

/// Chooses the connection for `statement`; `listener`: how fresh reads are by default.
#[inline]
pub fn route(mode: Mode, listener: Consistency, session: &Session, statement: Classified) -> Route {
    let repeatable = statement.class == Class::Read && session.transaction().is_none() && session.autocommit();
    if let Some(slot) = session.transaction() {
        // A named lock taken on a follower would lock nobody out.
        let lock = slot == Slot::Follower && mode == Mode::Split && statement.flags.contains(Flags::LOCK_FUNCTION);
        return Route { slot: if lock { Slot::Primary } else { slot }, repeatable: false, fresh: false };
    }
    let slot = match mode {
        Mode::Primary => Slot::Primary,
        Mode::Followers => Slot::Follower,
        Mode::Split => split(session, statement),
    };
    if mode != Mode::Split || slot == Slot::Primary || statement.class == Class::Diagnostics {
        return Route { slot, repeatable, fresh: false };
    }
    match consistency(listener, session, statement) {
        Consistency::Eventual => Route { slot, repeatable, fresh: false },
        Consistency::Session => Route { slot, repeatable, fresh: true },
        Consistency::Strong => Route { slot: Slot::Primary, repeatable, fresh: false },
    }
}

#[inline]
fn split(session: &Session, statement: Classified) -> Slot {
    match statement.class {
        Class::Diagnostics => return session.last(),
        Class::Read => {}
        // Its author says so, and nothing but an unknown function speaks against it; a follower refuses a write.
        Class::Write if statement.hint == Hint::Follower && statement.flags == Flags::IMPURE => {}
        // A read-only transaction may live on a follower if nothing of the session's own is missed there.
        Class::Begin { read_only: true } if session.pins().is_empty() => {}
        _ => return Slot::Primary,
    }
    if statement.hint == Hint::Primary || !session.autocommit() || session.one_shot_perhaps() {
        return Slot::Primary;
    }
    // Processes, counters and logs of one server: the one that KILL and writes reach.
    if statement.flags.contains(Flags::READS_PROCESS_STATE) && statement.hint != Hint::Follower {
        return Slot::Primary;
    }
    if session.pins().hold_reads() || statement.flags.contains(Flags::USER_VARIABLE) {
        return Slot::Primary;
    }
    Slot::Follower
}

/// True if `statement`, run inside a read-only transaction on a follower, leaves state there that the primary's
/// connection must have too: it is run there as well.
pub fn mirrored(mode: Mode, session: &Session, statement: Classified) -> bool {
    mode == Mode::Split
        && session.transaction() == Some(Slot::Follower)
        && statement.class != Class::Diagnostics
        && (statement.class == Class::Prepare
            || statement.class == Class::Deallocate
            || statement.flags.contains(Flags::USER_VARIABLE_WRITE))
}

/// True if a replica or a binlog reader is at the other end: it must see one server only.
pub fn follow_primary_only(session: &mut Session) {
    session.pin(Pin::Replica);
}

#[cfg(test)]
mod tests;
