//! \[pure\] Errors by which a server says that it takes no writes: nothing was executed.

use crate::classify::{Class, Classified, Flags};
use crate::topology::Topology;
use crate::types::{BackendId, Term};

/// ER_OPERATION_NOT_ALLOWED_WHILE_PRIMARY_CHANGE_IS_RUNNING: what begins while `group_replication_set_as_primary` with a time
/// limit is under way.
const PRIMARY_CHANGING: u16 = 4094;

/// Errors by which a follower says that a statement is no pure read: 1290 (read-only options), 1792 (read-only
/// transaction), 1836 (read-only mode), 3100/3101 (group replication's hooks); 4094, while its group moves the primary.
pub fn by_follower(errno: u16, message: &[u8]) -> bool {
    match errno {
        1290 => names_read_only(message),
        1792 | 1836 | 3100 | 3101 | PRIMARY_CHANGING => true,
        _ => false,
    }
}

/// Errors by which a fenced primary says that it takes no writes; the statement was not executed.
pub fn by_fence(errno: u16, message: &[u8]) -> bool {
    match errno {
        1290 => names_read_only(message),
        1836 | PRIMARY_CHANGING => true,
        _ => false,
    }
}

/// Is it said by a primary that still is one, and will be over by itself? Then it may be asked as often as there is time for.
pub fn is_passing(errno: u16) -> bool {
    errno == PRIMARY_CHANGING
}

/// What follows a primary's refusal, once a primary was proven after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The connection leads to no primary any more: what is open on it is lost, all else goes to the new one.
    Fenced,
    /// The server was fenced for a moment: it is asked once more.
    Again,
    /// The same, but what was refused is a commit, which has ended its transaction and must not seem to succeed.
    RolledBack,
    /// The server's word stands.
    Stands,
}

/// A primary refused `statement`. `topology`: what was proven after it, if anything was; `leads`: where the connection does;
/// `open`: a transaction was; `again`: it was asked again already.
pub fn after(
    topology: Option<&Topology>,
    leads: (BackendId, Term),
    statement: Classified,
    open: bool,
    again: bool,
) -> Refused {
    let Some((topology, primary)) = topology.and_then(|topology| Some((topology, topology.primary?))) else {
        return Refused::Stands;
    };
    if (primary, topology.term) != leads {
        return Refused::Fenced;
    }
    let plain =
        statement.class == Class::Read || (statement.class == Class::Write && statement.flags.contains(Flags::DML));
    match statement.class {
        _ if again => Refused::Stands,
        Class::Commit { .. } | Class::Begin { .. } if open => Refused::RolledBack,
        Class::Set if open && statement.flags.contains(Flags::IMPLICIT_COMMIT) => Refused::RolledBack,
        _ if !open || plain => Refused::Again,
        _ => Refused::Stands,
    }
}

/// 1290 is also said of other options (`--secure-file-priv`).
fn names_read_only(message: &[u8]) -> bool {
    memchr::memmem::find(message, b"read-only").is_some() || memchr::memmem::find(message, b"read_only").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_refusal() {
        use crate::classify::{Dialect, classify};
        use crate::types::ClusterName;
        let topology = |primary: Option<u32>, term| {
            let primary = primary.map(BackendId);
            Topology { primary, term: Term(term), ..Topology::empty(ClusterName::from("c")) }
        };
        let (same, none) = (topology(Some(1), 2), topology(None, 2));
        let (other, back) = (topology(Some(2), 3), topology(Some(1), 4));
        let write = "INSERT INTO t VALUES (1)";
        for (now, sql, open, again, expected) in [
            (&same, write, false, false, Refused::Again),
            (&same, write, false, true, Refused::Stands),
            (&same, write, true, false, Refused::Again),
            (&same, "CREATE TABLE t (a INT)", false, false, Refused::Again),
            (&same, "CREATE TABLE t (a INT)", true, false, Refused::Stands),
            (&same, "COMMIT", true, false, Refused::RolledBack),
            (&same, "BEGIN", true, false, Refused::RolledBack),
            (&same, "SET autocommit = 1", true, false, Refused::RolledBack),
            (&none, write, false, false, Refused::Stands),
            (&other, write, false, false, Refused::Fenced),
            (&back, write, true, true, Refused::Fenced),
        ] {
            let statement = classify(sql.as_bytes(), Dialect::default());
            let after = after(Some(now), (BackendId(1), Term(2)), statement, open, again);
            assert_eq!(after, expected, "{sql} {open} {again} {:?}", now.primary);
        }
    }

    #[test]
    fn only_refusals_of_writes_are_refusals() {
        let read_only = &b"The MySQL server is running with the --super-read-only option so it cannot execute this"[..];
        let files = &b"The MySQL server is running with the --secure-file-priv option so it cannot execute this"[..];
        for (errno, message, follower, fence) in [
            (1290, read_only, true, true),
            (1290, files, false, false),
            (1836, read_only, true, true),
            (1792, read_only, true, false),
            (3100, read_only, true, false),
            (4094, b"All queries have been blocked", true, true),
            (1062, read_only, false, false),
        ] {
            assert_eq!((by_follower(errno, message), by_fence(errno, message)), (follower, fence), "{errno}");
        }
    }
}
