//! \[pure\] An open transaction as it was asked for and answered, so that it can be run again on another primary.
//!
//! ```text
//!   none ──a transaction opens──► recording ──statement, digest of its answer──► recording
//!    ▲                               │ what can't be repeated, or too much of it
//!    │                               ▼
//!    └──── the transaction ends ── spoilt (until it ends)
//! ```
//!
//! Run again, every answer must be what the client has seen: then nobody can tell the new transaction from the old one.

use super::{Session, Slot};
use crate::classify::{Class, Classified, Flags};
use crate::types::StatementId;
use std::sync::Arc;

/// Bytes that a statement counts for beside its own.
const OVERHEAD: usize = 128;

/// 16 bytes of an answer's SHA-256, as the client got it.
pub type AnswerDigest = [u8; 16];

/// One statement of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The packet, header included. An execute has its parameters' types.
    pub packet: Box<[u8]>,
    /// The prepared statement that it executes.
    pub prepared: Option<StatementId>,
    /// What it is.
    pub class: Class,
    /// What it answered.
    pub answer: AnswerDigest,
}

/// Can `statement` be run again as part of its transaction? Not if it uses or changes what stands outside of it, or is the
/// COMMIT of the one before.
pub fn repeats(statement: Classified) -> bool {
    let chained = matches!(statement.class, Class::Commit { .. } | Class::Rollback { chain: true, .. });
    let outside = matches!(statement.class, Class::Set | Class::Use | Class::Xa | Class::LoadDataLocal | Class::Multi);
    !outside && !chained && !statement.flags.intersects(Flags::SET_ROLE | Flags::GLOBAL_SET)
}

/// The record of a session's transaction on the primary.
#[derive(Debug, Default)]
pub struct Recorder {
    statements: Vec<Arc<Recorded>>,
    bytes: usize,
    bytes_max: usize,
    spoilt: bool,
    insert_id: u64,
}

impl Recorder {
    /// Records transactions of up to so many bytes; 0: none.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Is there any use in telling it of the next statement?
    #[inline]
    pub fn is_on(&self) -> bool {
        self.bytes_max > 0 && !self.spoilt
    }

    /// Is the answer of `statement`, on the primary, to be kept in mind? `was_open`: a transaction was before it.
    #[inline]
    pub fn wants(&self, session: &Session, statement: Classified, was_open: bool) -> bool {
        let opens = matches!(statement.class, Class::Begin { .. }) || !session.autocommit();
        // What SET TRANSACTION says of the next transaction only is not said again.
        let plain = was_open || !session.one_shot();
        (was_open || opens) && plain && self.is_on()
    }

    /// No transaction is open, and this is what LAST_INSERT_ID() is.
    #[inline]
    pub fn begin(&mut self, insert_id: u64) {
        self.clear();
        self.insert_id = insert_id;
    }

    /// What LAST_INSERT_ID() was before the transaction.
    pub fn insert_id(&self) -> u64 {
        self.insert_id
    }

    /// No transaction is open.
    #[inline]
    pub fn clear(&mut self) {
        if self.spoilt || !self.statements.is_empty() {
            self.statements.clear();
            (self.bytes, self.spoilt) = (0, false);
        }
    }

    /// The primary has answered `statement`; what it can be run again with is made by `recorded`, or is nothing.
    #[inline]
    pub fn answered(
        &mut self,
        session: &Session,
        statement: Classified,
        refused: bool,
        recorded: impl FnOnce() -> Option<Recorded>,
    ) {
        if session.transaction() != Some(Slot::Primary) {
            return self.clear();
        }
        // It has committed the transaction that was open: to run that again would be to do it twice.
        if matches!(statement.class, Class::Begin { .. }) && !refused {
            self.begin(session.insert_id());
        }
        if self.is_on() {
            self.push(recorded());
        }
    }

    /// A statement of the open transaction was answered; `None`: one that can't be run again.
    fn push(&mut self, recorded: Option<Recorded>) {
        if self.spoilt || self.bytes_max == 0 {
            return;
        }
        let fits = |recorded: &Recorded, bytes: usize| bytes + recorded.packet.len() + OVERHEAD <= self.bytes_max;
        match recorded.filter(|recorded| fits(recorded, self.bytes)) {
            Some(recorded) => {
                self.bytes += recorded.packet.len() + OVERHEAD;
                self.statements.push(Arc::new(recorded));
            }
            None => {
                self.statements = Vec::new();
                self.spoilt = true;
            }
        }
    }

    /// The whole transaction so far, if it can be run again.
    pub fn complete(&self) -> Option<Vec<Arc<Recorded>>> {
        self.is_complete().then(|| self.statements.clone())
    }

    /// A transaction was lost with its connection: can it be run again, and is that all that was lost?
    pub fn can_be_run_again(&self, session: &Session) -> bool {
        session.transaction().is_none() && session.pins().lost_with_connection().is_none() && self.is_complete()
    }

    fn is_complete(&self) -> bool {
        !self.spoilt && !self.statements.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(bytes: usize) -> Recorded {
        Recorded { packet: vec![0; bytes].into(), prepared: None, class: Class::Write, answer: [0; 16] }
    }

    #[test]
    fn a_transaction_is_whole_until_something_spoils_it_and_the_next_is_whole_again() {
        let mut recorder = Recorder::new(1000);
        assert!(recorder.complete().is_none(), "none is open");
        recorder.push(Some(statement(100)));
        recorder.push(Some(statement(200)));
        assert_eq!(recorder.complete().map(|all| all.len()), Some(2));
        recorder.push(None);
        assert!(recorder.complete().is_none() && !recorder.is_on());
        recorder.push(Some(statement(1)));
        assert!(recorder.complete().is_none(), "it stays spoilt until it ends");
        recorder.clear();
        recorder.push(Some(statement(1)));
        assert_eq!(recorder.complete().map(|all| all.len()), Some(1));
    }

    #[test]
    fn a_transaction_can_be_run_again_once_it_is_lost_if_nothing_else_was() {
        use crate::classify::Dialect;
        use crate::session::Pin;
        use crate::wire::session_track::{STATUS_AUTOCOMMIT, STATUS_IN_TRANS};
        let (mut session, mut recorder) = (Session::new(None, Dialect::default(), 1), Recorder::new(1000));
        assert!(!recorder.can_be_run_again(&session), "none was open");
        recorder.push(Some(statement(1)));
        assert!(recorder.can_be_run_again(&session));
        session.observe_status(Slot::Primary, STATUS_AUTOCOMMIT | STATUS_IN_TRANS);
        assert!(!recorder.can_be_run_again(&session), "it is not lost");
        session.observe_status(Slot::Primary, STATUS_AUTOCOMMIT);
        session.pin(Pin::TemporaryTable);
        assert!(!recorder.can_be_run_again(&session), "so is a temporary table");
    }

    #[test]
    fn a_begin_inside_a_transaction_begins_the_record_anew() {
        use crate::classify::{Dialect, classify};
        use crate::wire::session_track::{STATUS_AUTOCOMMIT, STATUS_IN_TRANS};
        let mut session = Session::new(None, Dialect::default(), 1);
        let mut recorder = Recorder::new(1000);
        let mut run = |sql: &str, status, refused| {
            session.observe_status(Slot::Primary, status);
            let classified = classify(sql.as_bytes(), Dialect::default());
            recorder.answered(&session, classified, refused, || Some(statement(1)));
            recorder.complete().map_or(0, |all| all.len())
        };
        let open = STATUS_AUTOCOMMIT | STATUS_IN_TRANS;
        assert_eq!(run("BEGIN", open, false), 1);
        assert_eq!(run("DELETE FROM t", open, false), 2);
        assert_eq!(run("BEGIN", open, true), 3, "a refused one has ended nothing");
        assert_eq!(run("BEGIN", open, false), 1, "what was before is committed");
        assert_eq!(run("DELETE FROM t", open, false), 2);
        assert_eq!(run("COMMIT", STATUS_AUTOCOMMIT, false), 0);
    }

    #[test]
    fn what_stands_outside_a_transaction_is_not_run_again() {
        use crate::classify::{Dialect, classify};
        let repeats = |sql: &str| repeats(classify(sql.as_bytes(), Dialect::default()));
        for sql in ["BEGIN", "SELECT 1", "INSERT INTO t VALUES (1)", "SAVEPOINT a", "ROLLBACK TO a"] {
            assert!(repeats(sql), "{sql}");
        }
        for sql in ["SET time_zone = '+03:00'", "USE s", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "XA START 'a'"] {
            assert!(!repeats(sql), "{sql}");
        }
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let mut recorder = Recorder::new(1000);
        recorder.push(Some(statement(1000 - OVERHEAD)));
        assert!(recorder.complete().is_some(), "just fits");
        recorder.push(Some(statement(0)));
        assert!(recorder.complete().is_none() && recorder.statements.capacity() == 0);
        let mut off = Recorder::new(0);
        off.push(Some(statement(0)));
        assert!(off.complete().is_none() && !off.is_on());
    }
}
