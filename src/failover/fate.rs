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
//! | ROLLBACK, or a COMMIT on a follower | again: outside a transaction it does nothing |
//! | inside a transaction, not ending it | the transaction is lost (and may be replayed) |
//! | the command did not reach the server whole, or did nothing but for its connection (SET, BEGIN, the first statement of a transaction under autocommit=0), and nothing was forwarded | again |
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

/// What becomes of `statement`, where no lane has the verdict on it.
pub fn fate(session: &Session, statement: Classified, lost: &Lost) -> Fate {
    if lost.forwarded && !lost.clean {
        return Fate::CutShort;
    }
    if let Some(pin) = session.pins().lost_with_connection().filter(|_| lost.slot == Slot::Primary) {
        return Fate::StateLost(pin);
    }
    let again = match lost.was_open {
        true => leaves_nothing(lost.slot, statement),
        false => !lost.whole || lost.repeatable || only_opens(session, statement),
    };
    if again && !lost.forwarded && !lost.streamed {
        return Fate::Again;
    }
    if lost.was_open && !(lost.whole && lost.slot == Slot::Primary && may_end_transaction(statement)) {
        return Fate::TransactionLost;
    }
    if statement.class == Class::Read { Fate::ResultCut } else { Fate::OutcomeUnknown }
}

/// Does it end a transaction that has come to nothing with its connection, or had nothing to commit?
fn leaves_nothing(slot: Slot, statement: Classified) -> bool {
    match statement.class {
        Class::Rollback { chain: false, release: false } => true,
        Class::Commit { chain: false, release: false } => slot == Slot::Follower,
        _ => false,
    }
}

/// Under autocommit=0: does it no more than open a transaction, which has come to nothing with its connection?
fn only_opens(session: &Session, statement: Classified) -> bool {
    let plain =
        statement.class == Class::Read || (statement.class == Class::Write && statement.flags.contains(Flags::DML));
    plain && !session.autocommit()
}

/// May it have committed the transaction that was open?
fn may_end_transaction(statement: Classified) -> bool {
    matches!(statement.class, Class::Commit { .. } | Class::Begin { .. } | Class::Multi | Class::Xa)
        || statement.flags.contains(Flags::IMPLICIT_COMMIT)
}

/// What is in doubt when an answer was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The client's COMMIT.
    Commit,
    /// The transaction before: the statement commits that, and what else it does can be sent again.
    Before,
    /// A write that was sent as it is.
    Write,
    /// The proxy's COMMIT of a write whose answer is kept.
    Kept(Bytes),
}

/// May `statement`, sent to the primary, be found out about if its answer is lost? `open`: a transaction is.
pub fn is_knowable(session: &Session, statement: Classified, open: bool) -> bool {
    !session.is_unlogged() && in_doubt(session, statement, open).is_some()
}

fn in_doubt(session: &Session, statement: Classified, open: bool) -> Option<Doubt> {
    match statement.class {
        Class::Commit { .. } if open => Some(Doubt::Commit),
        Class::Begin { .. } | Class::Set if open && may_end_transaction(statement) => Some(Doubt::Before),
        Class::Write if !open && session.autocommit() => Some(Doubt::Write),
        _ => None,
    }
}

/// What of `statement`, sent to the primary with a mark, is in doubt that there can be a verdict on.
pub fn doubt(session: &Session, statement: Classified, lost: &Lost) -> Option<Doubt> {
    // What is not written to the binary log has no GTID.
    if !lost.whole || lost.forwarded || session.is_unlogged() || session.pins().lost_with_connection().is_some() {
        return None;
    }
    in_doubt(session, statement, lost.was_open).filter(|doubt| *doubt != Doubt::Write || !lost.repeatable)
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
        (Verdict::Committed, Doubt::Before) if streamed => Settled::AnswerLost,
        (Verdict::Committed, Doubt::Before) => Settled::Again,
        (Verdict::Committed, Doubt::Commit) => match statement.class {
            Class::Commit { chain: true, .. } => Settled::ChainLost,
            _ => Settled::Done,
        },
        (Verdict::Committed, Doubt::Write) if statement.flags.contains(Flags::IMPLICIT_COMMIT) => Settled::Done,
        (Verdict::Committed, Doubt::Write) => Settled::AnswerLost,
        (Verdict::NotCommitted, Doubt::Commit | Doubt::Before) => Settled::TransactionLost,
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

    fn session() -> Session {
        Session::new(None, Dialect::default(), 1)
    }

    #[test]
    fn the_table_of_fates() {
        let read = Lost { repeatable: true, ..LOST };
        let open = Lost { was_open: true, ..LOST };
        let follower = Lost { slot: Slot::Follower, ..open };
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
            ("COMMIT", follower, Fate::Again),
            ("COMMIT AND CHAIN", follower, Fate::TransactionLost),
            ("ROLLBACK", open, Fate::Again),
            ("ROLLBACK AND CHAIN", open, Fate::TransactionLost),
            ("ROLLBACK TO a", open, Fate::TransactionLost),
            ("CREATE TABLE t (a INT)", open, Fate::OutcomeUnknown),
            ("BEGIN", open, Fate::OutcomeUnknown),
            ("BEGIN", follower, Fate::TransactionLost),
            ("SET autocommit = 1", open, Fate::OutcomeUnknown),
            ("SET @@session.autocommit = 1", open, Fate::OutcomeUnknown),
            ("SET sql_mode = ''", open, Fate::TransactionLost),
        ] {
            assert_eq!(fate(&session(), class(sql), &lost), expected, "{sql} {lost:?}");
        }
        let mut pinned = session();
        pinned.pin(Pin::TemporaryTable);
        assert_eq!(fate(&pinned, class("SELECT 1"), &read), Fate::StateLost(Pin::TemporaryTable));
        assert_eq!(fate(&pinned, class("SELECT 1"), &Lost { slot: Slot::Follower, ..read }), Fate::Again);
    }

    #[test]
    fn without_autocommit_the_first_statement_only_opens_a_transaction() {
        let mut session = session();
        session.observe_status(Slot::Primary, 0);
        for (sql, expected) in [
            ("INSERT INTO t VALUES (1)", Fate::Again),
            ("SELECT 1", Fate::Again),
            ("CREATE TABLE t (a INT)", Fate::OutcomeUnknown),
            ("SELECT f(1)", Fate::OutcomeUnknown),
            ("CALL p()", Fate::OutcomeUnknown),
        ] {
            assert_eq!(fate(&session, class(sql), &LOST), expected, "{sql}");
        }
    }

    #[test]
    fn what_commits_the_transaction_before_is_in_doubt() {
        let open = Lost { was_open: true, ..LOST };
        for (sql, lost, expected) in [
            ("COMMIT", open, Some(Doubt::Commit)),
            ("COMMIT", Lost { whole: false, ..open }, None),
            ("BEGIN", open, Some(Doubt::Before)),
            ("BEGIN", LOST, None),
            ("SET autocommit = 1", open, Some(Doubt::Before)),
            ("SET sql_mode = ''", open, None),
            ("CREATE TABLE t (a INT)", LOST, Some(Doubt::Write)),
            ("CREATE TABLE t (a INT)", open, None),
        ] {
            assert_eq!(doubt(&session(), class(sql), &lost), expected, "{sql}");
        }
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
            (Verdict::Committed, &Doubt::Before, class("BEGIN"), Settled::Again),
            (Verdict::NotCommitted, &Doubt::Before, class("BEGIN"), Settled::TransactionLost),
            (unknown, &kept, insert, Settled::Unknown("why")),
            (unknown, &Doubt::Commit, commit, Settled::Unknown("why")),
        ] {
            let settled = settle(verdict, doubt, statement, false, Pins::default());
            assert_eq!(settled, expected, "{verdict:?} {doubt:?}");
        }
        assert_eq!(settle(Verdict::NotCommitted, &kept, insert, true, Pins::default()), Settled::NotExecuted);
    }
}
