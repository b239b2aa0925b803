//! \[pure\] What a session has committed, as far as its own reads must see it.
//!
//! ```text
//!   Nothing ──commit reported──► Gtids ──more reports──► Gtids, bounded in pieces
//!      │                          ▲  │
//!      │            asked: all    │  └──a commit nobody told of, too many pieces──┐
//!      └──a commit nobody told────┤                                              ▼
//!         of                      └───────────────────────────────────────── Unknown
//! ```
//!
//! GTIDs outlive the primary that gave them, so they are kept over a change of it. What a new primary lacks may be on its
//! way there, or lost: [`Written::settle`] forgets the latter once somebody knows.

use crate::types::{Gtids, Term};

/// More pieces than this are not carried from statement to statement: the primary is asked for all it has instead, which
/// has few.
const PIECES_MAX: usize = 32;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Needs {
    /// Nothing was committed.
    #[default]
    Nothing,
    /// These.
    Gtids(Gtids),
    /// Something was, or may have been, and nobody said what: the primary must be asked.
    Unknown,
    /// Something was committed that no other server will ever have (`sql_log_bin=OFF`).
    Never,
}

/// What a session has committed.
#[derive(Clone, Debug, Default)]
pub struct Written {
    needs: Needs,
    /// Grows at each change: whoever is known to have one version lacks nothing until the next.
    version: u64,
    /// The primary they were given in, or were last found on.
    term: Term,
}

impl Written {
    /// True if any server's data will do.
    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.needs == Needs::Nothing
    }

    /// True if the primary must be asked first.
    pub fn is_unknown(&self) -> bool {
        self.needs == Needs::Unknown
    }

    /// What a server must have for this session's reads.
    pub fn gtids(&self) -> Option<&Gtids> {
        match &self.needs {
            Needs::Gtids(gtids) => Some(gtids),
            Needs::Nothing | Needs::Unknown | Needs::Never => None,
        }
    }

    /// Grows at each change.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// True if the primary of `term` has not been asked whether it has all of it.
    pub fn is_unsettled(&self, term: Term) -> bool {
        self.term != term && matches!(self.needs, Needs::Gtids(_))
    }

    /// The primary of `term` told of a commit: GTIDs as text, `mariadb` or MySQL's.
    pub fn committed(&mut self, report: &[u8], mariadb: bool, term: Term) {
        let Some(gtids) = read(report, mariadb) else { return self.lose_track() };
        if gtids.is_empty() {
            return;
        }
        let all = match &self.needs {
            Needs::Nothing => {
                self.term = term;
                Some(gtids)
            }
            // An older term stays: what was given then is yet to be found on the new primary.
            Needs::Gtids(before) => before.union(&gtids),
            Needs::Unknown | Needs::Never => return,
        };
        self.needs = all.filter(|all| all.pieces() <= PIECES_MAX).map_or(Needs::Unknown, Needs::Gtids);
        self.version += 1;
    }

    /// Something may have been committed, and nobody says what.
    #[inline]
    pub fn lose_track(&mut self) {
        if self.needs != Needs::Never {
            self.needs = Needs::Unknown;
            self.version += 1;
        }
    }

    /// Something was committed that is not replicated.
    pub fn keep_to_primary(&mut self) {
        self.needs = Needs::Never;
    }

    /// The primary of `term` was asked after the session's last commit: this is all it has.
    pub fn learned(&mut self, all: Gtids, term: Term) {
        if self.needs == Needs::Unknown {
            (self.needs, self.term) = (Needs::Gtids(all), term);
            self.version += 1;
        }
    }

    /// The primary of `term` has `all`, and what it lacks will not come: that is forgotten. True if there was such.
    pub fn settle(&mut self, all: &Gtids, term: Term) -> bool {
        self.term = term;
        let Needs::Gtids(before) = &self.needs else { return false };
        if all.contains(before) {
            return false;
        }
        let kept = before.common(all).filter(|kept| !kept.is_empty());
        self.needs = kept.map_or(Needs::Nothing, Needs::Gtids);
        self.version += 1;
        true
    }

    /// The primary of `term` has all of it.
    pub fn found_on(&mut self, term: Term) {
        self.term = term;
    }
}

/// Reads GTIDs as a server of that family writes them.
pub fn read(text: &[u8], mariadb: bool) -> Option<Gtids> {
    let text = std::str::from_utf8(text).ok()?;
    match mariadb {
        true => text.parse().ok().map(Gtids::MariaDb),
        false => text.parse().ok().map(Gtids::MySql),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "aaaaaaaa-aaaa-4aaa-8aaa-000000013600";

    fn mysql(ranges: &str) -> Gtids {
        Gtids::MySql(format!("{UUID}:{ranges}").parse().unwrap())
    }

    fn written(ranges: &[&str]) -> Written {
        let mut written = Written::default();
        ranges.iter().for_each(|one| written.committed(format!("{UUID}:{one}").as_bytes(), false, Term(1)));
        written
    }

    #[test]
    fn commits_add_up_and_each_is_another_version() {
        let mut one = written(&["5", "7"]);
        assert_eq!((one.gtids(), one.version()), (Some(&mysql("5:7")), 2));
        one.committed(b"", false, Term(1));
        assert_eq!(one.version(), 2, "nothing was told");
        one.committed(b"nonsense", false, Term(1));
        assert!(one.is_unknown() && one.version() == 3);
        one.committed(format!("{UUID}:9").as_bytes(), false, Term(1));
        assert!(one.is_unknown(), "what was missed is still missing");
        one.learned(mysql("1-9"), Term(1));
        assert_eq!(one.gtids(), Some(&mysql("1-9")));
    }

    #[test]
    fn pieces_are_bounded() {
        let mut one = Written::default();
        let report = |n: usize| format!("{UUID}:{}", 2 * n + 1);
        (0..PIECES_MAX).for_each(|n| one.committed(report(n).as_bytes(), false, Term(1)));
        assert!(one.gtids().is_some());
        one.committed(report(PIECES_MAX).as_bytes(), false, Term(1));
        assert!(one.is_unknown());
    }

    #[test]
    fn what_a_new_primary_will_never_have_is_forgotten() {
        let mut some = written(&["5", "7", "9"]);
        assert!(!some.is_unsettled(Term(1)) && some.is_unsettled(Term(2)));
        some.committed(format!("{UUID}:20").as_bytes(), false, Term(2));
        assert!(some.is_unsettled(Term(2)), "the new commit says nothing of the old ones");
        assert!(some.settle(&mysql("1-8:20"), Term(2)));
        assert_eq!(some.gtids(), Some(&mysql("5:7:20")));
        assert!(!some.is_unsettled(Term(2)));
        assert!(!some.settle(&mysql("1-20"), Term(3)), "nothing is missing");
        assert!(some.settle(&mysql("1-3"), Term(4)));
        assert!(some.is_nothing());
    }

    #[test]
    fn mariadb_counts_by_domain() {
        let mut one = Written::default();
        for report in ["0-1-5", "1-1-7", "0-1-6"] {
            one.committed(report.as_bytes(), true, Term(1));
        }
        let position = |text: &str| Gtids::MariaDb(text.parse().unwrap());
        assert_eq!(one.gtids(), Some(&position("0-1-6,1-1-7")));
        assert!(one.settle(&position("0-1-4,1-1-7"), Term(2)));
        assert_eq!(one.gtids(), Some(&position("1-1-7")));
    }

    #[test]
    fn what_is_not_replicated_stays_on_the_primary() {
        let mut one = written(&["5"]);
        one.keep_to_primary();
        one.lose_track();
        one.learned(mysql("1-9"), Term(1));
        assert!(!one.is_nothing() && !one.is_unknown() && one.gtids().is_none());
    }
}
