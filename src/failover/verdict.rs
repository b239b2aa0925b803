//! \[pure\] The verdict on a COMMIT whose answer was lost: by what its connection had committed before, as far as its server
//! has told, and by what the binary log of the proven primary shows of that connection.
//!
//! ```text
//!   told of a commit ──► that is the last          ERR or silence that may hide one ──► unsure until the next is told
//!
//!   answer lost ──► the primary's log, from before the statement began ──┬─ received and to be applied ──► looked at again
//!                                                                        ├─ ends with the last, or none ──► not committed
//!                                                                        └─ one more ──► committed
//! ```
//!
//! That one more is the statement's own, because a connection commits one thing after the other, and servers apply what they
//! replicate in that order (`replica_preserve_commit_order`).

use crate::session::Trace;
use crate::types::{GtidSet, Uuid};
use std::sync::Arc;

/// What became of a COMMIT whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was committed.
    Committed,
    /// It was not, and never will be.
    NotCommitted,
    /// Nobody can tell.
    Unknown(&'static str),
}

/// The verdict on the one statement that was under way on a connection; `None`: it is to be looked at again.
pub fn verdict(trace: &Trace, seen: &Seen) -> Option<Verdict> {
    let newer = match seen.last {
        Last::None => false,
        Last::Gtid(uuid, number) => !trace.last().contains(&GtidSet::one(uuid, number)),
        Last::Unnamed => true,
    };
    Some(match seen.relay {
        Relay::Applies => return None,
        Relay::Empty | Relay::Stands if newer => one_more(trace, seen),
        Relay::Stands => Verdict::Unknown("the new primary has received more than it has applied"),
        Relay::Empty => Verdict::NotCommitted,
    })
}

/// What the log ends with was not told of.
fn one_more(trace: &Trace, seen: &Seen) -> Verdict {
    if trace.is_unsure() {
        return Verdict::Unknown("a statement before it may have committed something");
    }
    if !seen.ordered {
        return Verdict::Unknown("the new primary does not keep the order of commits (replica_preserve_commit_order)");
    }
    match seen.executed.contains(trace.last()) {
        true if seen.last == Last::Unnamed => Verdict::Unknown("transactions have no GTIDs, or such with a tag"),
        true => Verdict::Committed,
        // What the log ends with is older than what the client was told of, which is not there.
        false => Verdict::NotCommitted,
    }
}

/// What is still to be applied of what the server has received from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Nothing.
    Empty,
    /// Something, and it is being applied.
    Applies,
    /// Something, and nobody applies it.
    Stands,
}

/// The last transaction of the connection in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// There is none.
    None,
    /// This one.
    Gtid(Uuid, u64),
    /// One without a GTID, or with a tag.
    Unnamed,
}

/// What the proven primary shows: its log was read from before the statement began to its end, after the rest was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Every transaction that is committed there.
    pub executed: Arc<GtidSet>,
    /// What it has received besides.
    pub relay: Relay,
    /// It is the connection's own server, or commits in the order of its source.
    pub ordered: bool,
    /// The last transaction of the connection.
    pub last: Last,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "aaaaaaaa-aaaa-4aaa-8aaa-000000013600";

    fn seen(last: Last, relay: Relay) -> Seen {
        let executed: GtidSet = format!("{GROUP}:1-9").parse().unwrap();
        Seen { executed: Arc::new(executed), relay, ordered: true, last }
    }

    fn gtid(number: u64) -> Last {
        Last::Gtid(GROUP.parse().unwrap(), number)
    }

    fn told(trace: &mut Trace, gtids: &[&str]) {
        let texts: Vec<Box<[u8]>> = gtids.iter().map(|text| format!("{GROUP}:{text}").into_bytes().into()).collect();
        trace.answered(&texts, false);
    }

    #[test]
    fn one_more_than_was_told_is_the_statement_itself() {
        let mut trace = Trace::default();
        assert_eq!(verdict(&trace, &seen(Last::None, Relay::Empty)), Some(Verdict::NotCommitted));
        assert_eq!(verdict(&trace, &seen(gtid(3), Relay::Empty)), Some(Verdict::Committed));
        told(&mut trace, &["3"]);
        told(&mut trace, &["5-6"]);
        trace.answered(&[], false);
        for (last, right) in [
            (Last::None, Verdict::NotCommitted),
            (gtid(5), Verdict::NotCommitted),
            (gtid(6), Verdict::NotCommitted),
            (gtid(2), Verdict::Committed),
            (gtid(9), Verdict::Committed),
        ] {
            assert_eq!(verdict(&trace, &seen(last, Relay::Empty)), Some(right), "{last:?}");
        }
        assert!(matches!(verdict(&trace, &seen(Last::Unnamed, Relay::Empty)), Some(Verdict::Unknown(_))));
    }

    #[test]
    fn a_server_that_lacks_what_was_acknowledged_has_nothing_that_came_later() {
        let mut trace = Trace::default();
        told(&mut trace, &["10"]);
        assert_eq!(verdict(&trace, &seen(gtid(8), Relay::Empty)), Some(Verdict::NotCommitted));
        assert_eq!(verdict(&trace, &seen(Last::None, Relay::Empty)), Some(Verdict::NotCommitted));
    }

    #[test]
    fn what_may_have_been_committed_in_silence_makes_one_more_ambiguous_until_the_next_is_told() {
        let mut trace = Trace::default();
        told(&mut trace, &["3"]);
        trace.answered(&[], true);
        assert_eq!(verdict(&trace, &seen(gtid(3), Relay::Empty)), Some(Verdict::NotCommitted));
        assert!(matches!(verdict(&trace, &seen(gtid(4), Relay::Empty)), Some(Verdict::Unknown(_))));
        told(&mut trace, &["5"]);
        assert_eq!(verdict(&trace, &seen(gtid(6), Relay::Empty)), Some(Verdict::Committed));
    }

    #[test]
    fn what_was_received_is_waited_for_while_it_is_applied() {
        let mut trace = Trace::default();
        told(&mut trace, &["3"]);
        assert_eq!(verdict(&trace, &seen(gtid(4), Relay::Applies)), None);
        assert_eq!(verdict(&trace, &seen(gtid(4), Relay::Stands)), Some(Verdict::Committed));
        assert!(matches!(verdict(&trace, &seen(gtid(3), Relay::Stands)), Some(Verdict::Unknown(_))));
        let unordered = Seen { ordered: false, ..seen(gtid(4), Relay::Empty) };
        assert!(matches!(verdict(&trace, &unordered), Some(Verdict::Unknown(_))));
        let unordered = Seen { ordered: false, ..seen(gtid(3), Relay::Empty) };
        assert_eq!(verdict(&trace, &unordered), Some(Verdict::NotCommitted));
    }
}
