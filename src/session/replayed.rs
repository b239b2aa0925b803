//! \[pure\] How a transaction that is run again on another primary goes.

use super::{AnswerDigest, Recorded, Session, Slot};
use crate::classify::{Class, Classified, Flags, Hint};

/// What opens it: as it may write, under a lane.
pub const REOPENING: Classified =
    Classified { class: Class::Begin { read_only: false }, flags: Flags::NONE, hint: Hint::None };

/// How a statement of it went, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// Every answer was the same.
    Same,
    /// One was not: it can't go on.
    Different,
    /// The connection was lost.
    Lost,
}

impl Replayed {
    /// The statement was answered, with what `told` is the digest of.
    pub fn statement(recorded: &Recorded, told: AnswerDigest) -> Self {
        if told == recorded.answer { Self::Same } else { Self::Different }
    }

    /// All its statements were answered the same; it must be open again, too.
    pub fn transaction(session: &Session) -> Self {
        match session.transaction() {
            Some(Slot::Primary) => Self::Same,
            Some(Slot::Follower) | None => Self::Different,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Dialect;
    use crate::wire::session_track::{STATUS_AUTOCOMMIT, STATUS_IN_TRANS};

    #[test]
    fn it_is_the_same_only_with_every_answer_and_while_it_is_open_on_the_primary() {
        let recorded = Recorded { packet: [].into(), prepared: None, class: Class::Write, answer: [7; 16] };
        assert_eq!(Replayed::statement(&recorded, [7; 16]), Replayed::Same);
        assert_eq!(Replayed::statement(&recorded, [8; 16]), Replayed::Different);
        for (slot, status, expected) in [
            (Slot::Primary, STATUS_IN_TRANS, Replayed::Same),
            (Slot::Primary, STATUS_AUTOCOMMIT, Replayed::Different),
            (Slot::Follower, STATUS_IN_TRANS, Replayed::Different),
        ] {
            let mut session = Session::new(None, Dialect::default(), 1);
            session.observe_status(slot, status);
            assert_eq!(Replayed::transaction(&session), expected, "{slot:?} {status}");
        }
    }
}
