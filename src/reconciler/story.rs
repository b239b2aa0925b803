//! \[pure\] A cluster's story in its status: who was the primary when, why that changed, how long it took.
//!
//! ```text
//!   claim written down ──▶ begun: the newest entry, without `tookMs` ──label──▶ ended: `tookMs`
//!                             └── another claim: it stays as it is, below the new one
//! ```
//!
//! An entry is written together with the claim and has its term, so that whoever finishes the change, this reconciler or the
//! next one, ends the right entry. It refuses to guess: what was given up says so by having no end.

use super::resource::{MysqlClusterStatus, PrimaryChange};
use k8s_openapi::jiff::Timestamp;

/// Changes that are kept.
pub const CHANGES_MAX: usize = 16;
/// Characters of a reason that are kept.
const REASON_MAX: usize = 300;

/// Since when nobody takes writes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Since when.
    pub since: Timestamp,
    /// What the primary was then, or what was being done to it; empty: not known.
    pub why: String,
}

/// A claim is in the status: the change that it begins becomes the newest entry.
pub fn begin(status: &mut MysqlClusterStatus, why: &str, missed: Option<&Missed>, now: Timestamp) {
    let from = status.primary.clone();
    // Before the first primary there was nobody to be missed.
    let missed = missed.filter(|_| from.is_some());
    let reason = match missed.map(|missed| &*missed.why) {
        None | Some("") => why.to_owned(),
        Some(first) => format!("{why} ({first})"),
    };
    let at = missed.map_or(now, |missed| missed.since);
    let change = PrimaryChange {
        term: status.term,
        from,
        to: status.target_primary.clone().unwrap_or_default(),
        // Nobody's clock is that good.
        at: Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at).to_string(),
        reason: clipped(reason),
        took_ms: None,
    };
    status.history.insert(0, change);
    status.history.truncate(CHANGES_MAX);
}

/// The change that is under way.
pub fn under_way(status: &MysqlClusterStatus) -> Option<&PrimaryChange> {
    status.history.first().filter(|change| change.took_ms.is_none())
}

/// How long a change has taken by now, milliseconds.
pub fn taken_ms(change: &PrimaryChange, now: Timestamp) -> u64 {
    let at: Option<Timestamp> = change.at.parse().ok();
    at.map_or(0, |at| u64::try_from(now.as_millisecond() - at.as_millisecond()).unwrap_or(0))
}

/// The change of that term has come to its end; nothing if it had before, or is forgotten.
pub fn end(status: &mut MysqlClusterStatus, term: u64, took_ms: u64) {
    let Some(change) = status.history.iter_mut().find(|change| change.term == term) else { return };
    if change.took_ms.is_none() {
        change.took_ms = Some(took_ms);
        status.last_failover = Some(change.clone());
    }
}

fn clipped(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(REASON_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn claimed(status: &mut MysqlClusterStatus, to: &str) {
        status.term += 1;
        status.target_primary = Some(to.to_owned());
    }

    fn told(status: &MysqlClusterStatus) -> Vec<String> {
        let line = |change: &PrimaryChange| {
            let (from, took) = (change.from.as_deref().unwrap_or("-"), change.took_ms.map_or(-1, |ms| ms as i64));
            format!("{} {from} {} {} {took} {}", change.term, change.to, change.at, change.reason)
        };
        status.history.iter().map(line).collect()
    }

    #[test]
    fn a_change_is_begun_by_its_claim_and_ended_by_its_term() {
        let mut status = MysqlClusterStatus::default();
        let missed = Missed { since: at(5), why: "db-0: Connection refused".to_owned() };
        claimed(&mut status, "db-0");
        begin(&mut status, "it has all", Some(&missed), at(10));
        assert_eq!(under_way(&status).map(|change| taken_ms(change, at(11))), Some(1000));
        end(&mut status, 1, 1000);
        assert_eq!(under_way(&status), None);
        status.primary = Some("db-0".to_owned());

        // It dies, one is chosen and another one takes over in the end; then that one is moved although it works.
        claimed(&mut status, "db-1");
        begin(&mut status, "db-0 is lost", Some(&missed), at(12));
        claimed(&mut status, "db-2");
        begin(&mut status, "another member has more", Some(&missed), at(14));
        assert_eq!(under_way(&status).map(|change| taken_ms(change, at(16))), Some(11_000));
        end(&mut status, 3, 11_000);
        end(&mut status, 3, 99_000);
        assert_eq!(status.last_failover, status.history.first().cloned());
        status.primary = Some("db-2".to_owned());
        claimed(&mut status, "db-0");
        begin(&mut status, "a switchover was asked for", None, at(20));
        assert_eq!(
            told(&status),
            [
                "4 db-2 db-0 1970-01-01T00:00:20Z -1 a switchover was asked for",
                "3 db-0 db-2 1970-01-01T00:00:05Z 11000 another member has more (db-0: Connection refused)",
                "2 db-0 db-1 1970-01-01T00:00:05Z -1 db-0 is lost (db-0: Connection refused)",
                "1 - db-0 1970-01-01T00:00:10Z 1000 it has all",
            ]
        );
        // A term that is not there any more, and clocks that went back.
        end(&mut status, 99, 1);
        assert_eq!(under_way(&status).map(|change| taken_ms(change, at(1))), Some(0));
    }

    #[test]
    fn it_is_bounded() {
        let mut status = MysqlClusterStatus { primary: Some("db-0".to_owned()), ..MysqlClusterStatus::default() };
        for _ in 0..CHANGES_MAX + 5 {
            claimed(&mut status, "db-1");
            begin(&mut status, &"ä".repeat(1000), None, at(1));
        }
        let terms: Vec<u64> = status.history.iter().map(|change| change.term).collect();
        assert_eq!((terms.len(), terms[0], terms[CHANGES_MAX - 1]), (CHANGES_MAX, 21, 6));
        assert_eq!(status.history[0].reason.chars().count(), REASON_MAX + 1);
    }
}
