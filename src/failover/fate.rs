//! \[pure\] What follows when a server goes away before its answer is whole.
//!
//! ```text
//!   answer lost ──► in doubt, and a lane knows? ──yes──► verdict ──► settle: the answer, again, or an honest error
//!                        │ no
//!                        └──► fate: again, or an honest error
//! ```
//!
//! | what was under way | its fate |
//! | --- | --- |
//! | half a frame was forwarded | the session ends: nothing can stand behind it |
//! | state that went with the connection | told, and the session ends |
//! | inside a transaction, not ending it | the transaction is lost (and may be replayed) |
//! | the command did not reach the server whole, or it changes nothing, and nothing was forwarded | again |
//! | a read, partly forwarded | told that its result is cut |
//! | all else | told that its outcome is unknown |

use super::Verdict;
use crate::classify::{Class, Classified, Flags};
use crate::session::{Pin, Pins, Session, Slot};
use bytes::Bytes;

/// What is known of an answer that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whose answer it was.
    pub slot: Slot,
    /// The command reached the socket whole.
    pub whole: bool,
    /// Some of the answer was forwarded.
    pub forwarded: bool,
    /// An error may stand behind what was forwarded.
    pub clean: bool,
    /// It may be sent again if nothing was forwarded.
    pub repeatable: bool,
    /// Its bytes are gone.
    pub streamed: bool,
    /// A transaction was open when it was sent.
    pub was_open: bool,
}

/// What becomes of the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent again.
    Again,
    /// Its client can't be told anything: the session ends.
    CutShort,
    /// The session's state went with the connection.
    StateLost(Pin),
    /// The transaction was rolled back.
    TransactionLost,
    /// Its result ends with an error.
    ResultCut,
    /// Nobody knows whether it was executed.
    OutcomeUnknown,
}

/// What becomes of `statement`, where no lane has the verdict on it. `pins`: the session's.
pub fn fate(pins: Pins, statement: Classified, lost: &Lost) -> Fate {
    if lost.forwarded && !lost.clean {
        return Fate::CutShort;
    }
    if let Some(pin) = pins.lost_with_connection().filter(|_| lost.slot == Slot::Primary) {
        return Fate::StateLost(pin);
    }
    let ends_transaction = statement.class == Class::Xa
        || matches!(statement.class, Class::Commit { .. } | Class::Multi)
        || statement.flags.contains(Flags::IMPLICIT_COMMIT);
    if lost.was_open && !(lost.whole && ends_transaction) {
        return Fate::TransactionLost;
    }
    if !lost.was_open && !lost.forwarded && (!lost.whole || lost.repeatable) && !lost.streamed {
        return Fate::Again;
    }
    if statement.class == Class::Read { Fate::ResultCut } else { Fate::OutcomeUnknown }
}

/// What is in doubt when an answer was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The client's COMMIT.
    Commit,
    /// A write that was sent as it is.
    Write,
    /// The proxy's COMMIT of a write whose answer is kept.
    Kept(Bytes),
}

/// What of `statement`, sent to the primary under a lane, is in doubt that the lane has the verdict on.
pub fn doubt(session: &Session, statement: Classified, lost: &Lost) -> Option<Doubt> {
    // What is not written to the binary log has no GTID.
    if !lost.whole || lost.forwarded || session.is_unlogged() || session.pins().lost_with_connection().is_some() {
        return None;
    }
    match statement.class {
        Class::Commit { .. } if lost.was_open => Some(Doubt::Commit),
        Class::Write if !lost.was_open && session.autocommit() && !lost.repeatable => Some(Doubt::Write),
        _ => None,
    }
}

/// Is `statement` a write whose COMMIT can be sent apart, so that only that can be in doubt?
pub fn commits_apart(session: &Session, statement: Classified) -> bool {
    statement.class == Class::Write
        && statement.flags.contains(Flags::DML)
        && session.autocommit()
        && session.transaction().is_none()
        && !session.is_unlogged()
        && !session.pins().contains(Pin::TableLock)
}

/// What follows from a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The answer that was kept is the client's.
    Kept,
    /// It was done, and an OK says so.
    Done,
    /// It was committed; the transaction chained to it is lost.
    ChainLost,
    /// It was executed; only what it answered is lost.
    AnswerLost,
    /// It is sent again.
    Again,
    /// It was not executed, and its bytes are gone.
    NotExecuted,
    /// The transaction was rolled back.
    TransactionLost,
    /// It was not executed, and the session's state went with the connection.
    StateLost(Pin),
    /// Nobody knows, for this reason.
    Unknown(&'static str),
}

/// What follows from `verdict` on what was in `doubt` of `statement`; `streamed`: its bytes are gone.
pub fn settle(verdict: Verdict, doubt: &Doubt, statement: Classified, streamed: bool, pins: Pins) -> Settled {
    match (verdict, doubt) {
        (Verdict::Committed, Doubt::Kept(_)) => Settled::Kept,
        (Verdict::Committed, Doubt::Commit) => match statement.class {
            Class::Commit { chain: true, .. } => Settled::ChainLost,
            _ => Settled::Done,
        },
        (Verdict::Committed, Doubt::Write) if statement.flags.contains(Flags::IMPLICIT_COMMIT) => Settled::Done,
        (Verdict::Committed, Doubt::Write) => Settled::AnswerLost,
        (Verdict::NotCommitted, Doubt::Commit) => Settled::TransactionLost,
        (Verdict::NotCommitted, Doubt::Write | Doubt::Kept(_)) => match pins.lost_with_connection() {
            Some(pin) => Settled::StateLost(pin),
            None if streamed => Settled::NotExecuted,
            None => Settled::Again,
        },
        (Verdict::Unknown(why), _) => Settled::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Dialect, classify};

    const LOST: Lost = Lost {
        slot: Slot::Primary,
        whole: true,
        forwarded: false,
        clean: true,
        repeatable: false,
        streamed: false,
        was_open: false,
    };

    fn class(sql: &str) -> Classified {
        classify(sql.as_bytes(), Dialect::default())
    }

    #[test]
    fn the_table_of_fates() {
        let read = Lost { repeatable: true, ..LOST };
        let open = Lost { was_open: true, ..LOST };
        for (sql, lost, expected) in [
            ("SELECT 1", read, Fate::Again),
            ("SELECT 1", Lost { forwarded: true, ..read }, Fate::ResultCut),
            ("SELECT 1", Lost { forwarded: true, clean: false, ..read }, Fate::CutShort),
            ("SELECT 1", Lost { streamed: true, ..read }, Fate::ResultCut),
            ("SELECT 1", open, Fate::TransactionLost),
            ("DELETE FROM t", LOST, Fate::OutcomeUnknown),
            ("DELETE FROM t", Lost { whole: false, ..LOST }, Fate::Again),
            ("DELETE FROM t", Lost { whole: false, streamed: true, ..LOST }, Fate::OutcomeUnknown),
            ("DELETE FROM t", open, Fate::TransactionLost),
            ("COMMIT", open, Fate::OutcomeUnknown),
            ("COMMIT", Lost { whole: false, ..open }, Fate::TransactionLost),
            ("CREATE TABLE t (a INT)", open, Fate::OutcomeUnknown),
        ] {
            assert_eq!(fate(Pins::default(), class(sql), &lost), expected, "{sql} {lost:?}");
        }
        let mut pins = Pins::default();
        pins.add(Pin::TemporaryTable);
        assert_eq!(fate(pins, class("SELECT 1"), &read), Fate::StateLost(Pin::TemporaryTable));
        assert_eq!(fate(pins, class("SELECT 1"), &Lost { slot: Slot::Follower, ..read }), Fate::Again);
    }

    #[test]
    fn a_verdict_is_never_bent() {
        let kept = Doubt::Kept(Bytes::new());
        let (insert, commit, create) =
            (class("INSERT INTO t VALUES (1)"), class("COMMIT"), class("CREATE TABLE t (a INT)"));
        let unknown = Verdict::Unknown("why");
        for (verdict, doubt, statement, expected) in [
            (Verdict::Committed, &kept, insert, Settled::Kept),
            (Verdict::Committed, &Doubt::Commit, commit, Settled::Done),
            (Verdict::Committed, &Doubt::Commit, class("COMMIT AND CHAIN"), Settled::ChainLost),
            (Verdict::Committed, &Doubt::Write, create, Settled::Done),
            (Verdict::Committed, &Doubt::Write, insert, Settled::AnswerLost),
            (Verdict::NotCommitted, &kept, insert, Settled::Again),
            (Verdict::NotCommitted, &Doubt::Commit, commit, Settled::TransactionLost),
            (unknown, &kept, insert, Settled::Unknown("why")),
            (unknown, &Doubt::Commit, commit, Settled::Unknown("why")),
        ] {
            let settled = settle(verdict, doubt, statement, false, Pins::default());
            assert_eq!(settled, expected, "{verdict:?} {doubt:?}");
        }
        assert_eq!(settle(Verdict::NotCommitted, &kept, insert, true, Pins::default()), Settled::NotExecuted);
    }
}
