//! \[pure\] What each client knows of its writes, and what the table says about it.
//!
//! A client numbers its writes from 1 without gaps and never sends a number twice. All that were not answered with OK are
//! doubts; all others must be in the table once the primary has changed. The primary key lets no row in twice, so a
//! statement that is run twice shows as error 1062, and an `UPDATE … SET n = n + 1` as a count that nobody can explain.

use super::fault::Claim;
use serde::{Deserialize, Serialize};

/// Doubts one client keeps; it stops writing at that many.
const DOUBTS_MAX: usize = 100_000;
/// Lost rows that are named.
const SAMPLES_MAX: usize = 20;

/// One client's writes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Its number, the first column of the table's key.
    pub client: u32,
    /// Rows come in pairs (1 and 2, 3 and 4, …), both or none.
    pub paired: bool,
    sent: u64,
    /// By number, ascending.
    doubts: Vec<(u64, Claim)>,
    /// `n = n + 1` that were acknowledged, and those that may have been applied.
    counted: (u64, u64),
}

impl Ledger {
    /// No writes yet.
    pub fn new(client: u32, paired: bool) -> Self {
        Self { client, paired, ..Self::default() }
    }

    /// The number of the next write; it counts as sent from now on.
    pub fn next(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// The write `number` was not acknowledged. Ascending; each number once.
    pub fn doubt(&mut self, number: u64, claim: Claim) {
        self.doubts.push((number, claim));
    }

    /// An increment was answered.
    pub fn counted(&mut self, claim: Option<Claim>) {
        match claim {
            None => self.counted.0 += 1,
            Some(Claim::Unknown) => self.counted.1 += 1,
            Some(Claim::NotApplied | Claim::AlreadyThere) => {}
        }
    }

    /// True once there is no room for further doubts.
    pub fn is_full(&self) -> bool {
        self.doubts.len() >= DOUBTS_MAX
    }

    fn claim(&self, number: u64) -> Option<Claim> {
        let at = self.doubts.binary_search_by_key(&number, |doubt| doubt.0).ok()?;
        Some(self.doubts[at].1)
    }
}

/// What came of all acknowledged and unacknowledged writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Writes (rows and increments) answered with OK.
    pub acknowledged: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// Some of the lost rows: client and number.
    pub lost_rows: Vec<(u32, u64)>,
    /// Run more than once: increments that nobody asked for, error 1062 for a new key, rows nobody sent.
    pub duplicated: u64,
    /// There, although the client was told that it was not executed or was rolled back.
    pub contradicted: u64,
    /// Transactions of which one row is there and the other is not.
    pub torn: u64,
    /// Outcome unknown to the client; it was applied.
    pub unknown_applied: u64,
    /// Outcome unknown to the client; it was not applied.
    pub unknown_not_applied: u64,
}

impl Verdict {
    /// Every acknowledged write is there, once, and no client was told a lie.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.contradicted == 0 && self.torn == 0
    }

    /// Adds the count of client `ledger`'s increments as found; `None` if its row is gone.
    pub fn counter(&mut self, ledger: &Ledger, found: Option<u64>) {
        let (acknowledged, unknown) = ledger.counted;
        let found = found.unwrap_or(0);
        self.acknowledged += acknowledged;
        self.lost += acknowledged.saturating_sub(found);
        self.duplicated += found.saturating_sub(acknowledged + unknown);
        let applied = found.saturating_sub(acknowledged).min(unknown);
        self.unknown_applied += applied;
        self.unknown_not_applied += unknown - applied;
    }
}

/// Goes through one client's rows as the table has them, in order of their numbers.
pub struct Audit<'a> {
    ledger: &'a Ledger,
    verdict: &'a mut Verdict,
    /// The first number not looked at yet.
    next: u64,
    /// The first of a pair is there.
    first_is_there: bool,
}

impl<'a> Audit<'a> {
    /// Begins with the first row.
    pub fn new(ledger: &'a Ledger, verdict: &'a mut Verdict) -> Self {
        Self { ledger, verdict, next: 1, first_is_there: false }
    }

    /// The table has the row `number`.
    pub fn row(&mut self, number: u64) {
        if number < self.next || number > self.ledger.sent {
            self.verdict.duplicated += 1;
            return;
        }
        for missing in self.next..number {
            self.judge(missing, false);
        }
        self.judge(number, true);
        self.next = number + 1;
    }

    /// The table has no further row.
    pub fn finish(mut self) {
        for missing in self.next..=self.ledger.sent {
            self.judge(missing, false);
        }
    }

    fn judge(&mut self, number: u64, there: bool) {
        let verdict = &mut *self.verdict;
        match (self.ledger.claim(number), there) {
            (None, true) => verdict.acknowledged += 1,
            (None, false) => {
                verdict.acknowledged += 1;
                verdict.lost += 1;
                if verdict.lost_rows.len() < SAMPLES_MAX {
                    verdict.lost_rows.push((self.ledger.client, number));
                }
            }
            (Some(Claim::Unknown), true) => verdict.unknown_applied += 1,
            (Some(Claim::Unknown), false) => verdict.unknown_not_applied += 1,
            (Some(Claim::NotApplied), true) => verdict.contradicted += 1,
            (Some(Claim::NotApplied), false) => {}
            // Whoever says that the key exists has run it before; that the row is gone by now is worse.
            (Some(Claim::AlreadyThere), true) => verdict.duplicated += 1,
            (Some(Claim::AlreadyThere), false) => verdict.lost += 1,
        }
        if self.ledger.paired {
            if number.is_multiple_of(2) {
                verdict.torn += u64::from(self.first_is_there != there);
            } else {
                self.first_is_there = there;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Claim::{AlreadyThere, NotApplied, Unknown};

    fn judged(sent: u64, paired: bool, doubts: &[(u64, Claim)], found: &[u64]) -> Verdict {
        let mut ledger = Ledger::new(7, paired);
        ledger.sent = sent;
        doubts.iter().for_each(|(number, claim)| ledger.doubt(*number, *claim));
        let mut verdict = Verdict::default();
        let mut audit = Audit::new(&ledger, &mut verdict);
        found.iter().for_each(|number| audit.row(*number));
        audit.finish();
        verdict
    }

    #[test]
    fn rows_are_judged_by_what_their_client_was_told() {
        let with = |change: fn(&mut Verdict)| {
            let mut verdict = Verdict::default();
            change(&mut verdict);
            verdict
        };
        type Case = (u64, bool, &'static [(u64, Claim)], &'static [u64], Verdict);
        let cases: [Case; 12] = [
            (0, false, &[], &[], with(|_| ())),
            (3, false, &[], &[1, 2, 3], with(|v| v.acknowledged = 3)),
            (3, false, &[], &[1, 3], with(|v| (v.acknowledged, v.lost, v.lost_rows) = (3, 1, vec![(7, 2)]))),
            (2, false, &[], &[], with(|v| (v.acknowledged, v.lost, v.lost_rows) = (2, 2, vec![(7, 1), (7, 2)]))),
            (2, false, &[(2, Unknown)], &[1, 2], with(|v| (v.acknowledged, v.unknown_applied) = (1, 1))),
            (2, false, &[(1, Unknown)], &[2], with(|v| (v.acknowledged, v.unknown_not_applied) = (1, 1))),
            (2, false, &[(1, NotApplied)], &[2], with(|v| v.acknowledged = 1)),
            (2, false, &[(1, NotApplied)], &[1, 2], with(|v| (v.acknowledged, v.contradicted) = (1, 1))),
            (1, false, &[(1, AlreadyThere)], &[1], with(|v| v.duplicated = 1)),
            (1, false, &[], &[1, 2], with(|v| (v.acknowledged, v.duplicated) = (1, 1))),
            (
                4,
                true,
                &[(3, Unknown), (4, Unknown)],
                &[1, 2, 3],
                with(|v| (v.acknowledged, v.unknown_applied, v.unknown_not_applied, v.torn) = (2, 1, 1, 1)),
            ),
            (4, true, &[(1, NotApplied), (2, NotApplied)], &[3, 4], with(|v| v.acknowledged = 2)),
        ];
        for (sent, paired, doubts, found, expected) in cases {
            let verdict = judged(sent, paired, doubts, found);
            assert_eq!(verdict, expected, "{sent} sent, doubts {doubts:?}, found {found:?}");
            let harmless = verdict.lost + verdict.duplicated + verdict.contradicted + verdict.torn == 0;
            assert_eq!(verdict.is_clean(), harmless);
        }
    }

    #[test]
    fn a_count_is_explained_or_not() {
        let mut ledger = Ledger::new(1, false);
        for claim in [None, None, None, Some(Unknown), Some(Unknown), Some(NotApplied)] {
            ledger.counted(claim);
        }
        // found → lost, duplicated, unknown that was applied and that was not
        for (found, expected) in [
            (Some(3), (0, 0, 0, 2)),
            (Some(4), (0, 0, 1, 1)),
            (Some(5), (0, 0, 2, 0)),
            (Some(6), (0, 1, 2, 0)),
            (Some(1), (2, 0, 0, 2)),
            (None, (3, 0, 0, 2)),
        ] {
            let mut v = Verdict::default();
            v.counter(&ledger, found);
            assert_eq!((v.lost, v.duplicated, v.unknown_applied, v.unknown_not_applied), expected, "{found:?}");
            assert_eq!(v.acknowledged, 3);
        }
    }
}
