//! \[pure\] How fresh a read must be, and whether a follower is.

use crate::classify::{Classified, Hint};
use crate::session::Session;
use crate::topology::Backend;
use crate::types::{Consistency, Gtids};
use std::time::Duration;

/// What `statement` asks for: by its own hint, else by the session's word, else by its listener's.
#[inline]
pub fn consistency(listener: Consistency, session: &Session, statement: Classified) -> Consistency {
    match statement.hint {
        Hint::None => session.consistency().unwrap_or(listener),
        Hint::Eventual | Hint::Follower => Consistency::Eventual,
        Hint::Session => Consistency::Session,
        Hint::Primary | Hint::Strong => Consistency::Strong,
    }
}

/// What is known of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It has all that is needed.
    Known,
    /// It may have by now, or soon.
    Perhaps,
    /// It is further behind than anybody would wait.
    Late,
}

/// Does `follower`, as it was last probed, have `needed`? `wait`: how long one would wait for it.
pub fn freshness(follower: &Backend, needed: &Gtids, wait: Duration) -> Freshness {
    if follower.gtids.as_ref().is_some_and(|has| has.contains(needed)) {
        return Freshness::Known;
    }
    let late = wait.is_zero() || follower.lag_ms.is_some_and(|lag| u128::from(lag) > wait.as_millis());
    if late { Freshness::Late } else { Freshness::Perhaps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Dialect, classify};
    use crate::session::Slot;
    use crate::types::BackendId;
    use std::sync::Arc;

    #[test]
    fn the_nearest_word_counts() {
        let mut session = Session::new(None, Dialect::default(), 1);
        let ask = |session: &Session, listener, sql: &str| {
            consistency(listener, session, classify(sql.as_bytes(), Dialect::default()))
        };
        use Consistency::{Eventual, Session as Own, Strong};
        assert_eq!(ask(&session, Own, "SELECT 1"), Own);
        assert_eq!(ask(&session, Own, "/* holdfast:strong */ SELECT 1"), Strong);
        assert_eq!(ask(&session, Eventual, "/* holdfast:session */ SELECT 1"), Own);
        assert_eq!(ask(&session, Strong, "/* holdfast:eventual */ SELECT 1"), Eventual);
        assert_eq!(ask(&session, Strong, "/* holdfast:follower */ SELECT 1"), Eventual);
        let set = |word: &str| classify(format!("SET @holdfast_consistency={word}").as_bytes(), Dialect::default());
        session.sent(Slot::Primary, set("'strong'"));
        assert_eq!(ask(&session, Eventual, "SELECT 1"), Strong);
        assert!(session.pins().is_empty(), "it is for the proxy: nothing is missed elsewhere");
        session.sent(Slot::Primary, set("NULL"));
        assert_eq!(ask(&session, Own, "SELECT 1"), Own);
    }

    #[test]
    fn a_follower_is_judged_by_its_last_probe() {
        let gtids =
            |last: u64| Gtids::MySql(format!("aaaaaaaa-aaaa-4aaa-8aaa-000000013600:1-{last}").parse().expect("a set"));
        let backend = |has: Option<u64>, lag_ms| {
            let plain = Backend::new(BackendId(1), "db:3306".parse().expect("an address"), 1);
            Backend { gtids: has.map(|last| Arc::new(gtids(last))), lag_ms, ..plain }
        };
        let wait = Duration::from_millis(100);
        for (has, lag_ms, expected) in [
            (Some(9), Some(0), Freshness::Known),
            (Some(12), Some(5_000), Freshness::Known),
            (Some(8), Some(0), Freshness::Perhaps),
            (Some(8), Some(100), Freshness::Perhaps),
            (Some(8), Some(101), Freshness::Late),
            (None, None, Freshness::Perhaps),
        ] {
            assert_eq!(freshness(&backend(has, lag_ms), &gtids(9), wait), expected, "{has:?} {lag_ms:?}");
        }
        assert_eq!(freshness(&backend(Some(8), Some(0)), &gtids(9), Duration::ZERO), Freshness::Late);
    }
}
