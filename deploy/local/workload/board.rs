//! What all clients write down: acknowledged writes, which server answered, errors; and which of these are a broken promise.
//!
//! A statement was in flight at the kill if it began before the killed process was gone and ended after the signal. Only
//! such a statement may fail, and only with an error that says what is known of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What kind of statement an outcome belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Read,
    Write,
    /// Inside a transaction that was open at the kill.
    Transaction,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Transaction => "transactions",
        }
    }
}

/// Identifies a row: client, number in sequence.
pub type Row = (u32, u32);

/// When a statement began and when its answer was there.
pub type Span = (Instant, Instant);

/// An error a client received.
#[derive(Clone, Debug)]
pub struct Failure {
    pub client: String,
    pub kind: Kind,
    /// When the statement (or, in a transaction, its BEGIN) began.
    pub began: Instant,
    pub ended: Instant,
    /// Error number, SQLSTATE, message; number 0: the connection itself failed.
    pub code: u16,
    pub state: String,
    pub message: String,
}

/// From just before the signal until the process was gone.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    pub sent: Instant,
    pub gone: Instant,
}

#[derive(Default)]
struct Counts {
    /// Statements answered, by kind and server, since the last line was printed and in all.
    recent: BTreeMap<(Kind, String), u32>,
    before: BTreeMap<(Kind, String), u32>,
    after: BTreeMap<(Kind, String), u32>,
    longest: BTreeMap<Kind, Duration>,
    acknowledged: HashSet<Row>,
    /// Acknowledged statements per client since it began, and since the kill.
    by_client: BTreeMap<String, (u32, u32)>,
    first_write: Option<Instant>,
    failures: Vec<Failure>,
    kill: Option<Kill>,
}

/// Everything that was seen. Shared by all clients.
#[derive(Default)]
pub struct Board(Mutex<Counts>);

impl Board {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement that took from `began` to `ended` was answered by `server`; a write has put `row` there.
    pub fn answered(&self, client: &str, kind: Kind, server: &str, (began, ended): Span, row: Option<Row>) {
        let mut counts = self.counts();
        let after = counts.kill.is_some_and(|kill| began > kill.gone);
        *counts.recent.entry((kind, server.to_owned())).or_default() += 1;
        let era = if after { &mut counts.after } else { &mut counts.before };
        *era.entry((kind, server.to_owned())).or_default() += 1;
        if kind != Kind::Transaction {
            let longest = counts.longest.entry(kind).or_default();
            *longest = (*longest).max(ended - began);
        }
        let of_client = counts.by_client.entry(client.to_owned()).or_default();
        of_client.0 += 1;
        of_client.1 += u32::from(after);
        if row.is_some() && counts.kill.is_some_and(|kill| ended > kill.gone) {
            let first = counts.first_write.get_or_insert(ended);
            *first = (*first).min(ended);
        }
        counts.acknowledged.extend(row);
    }

    /// An error reached a client.
    pub fn failed(&self, failure: Failure) {
        println!("  error at {}: {} {} {}", failure.client, failure.code, failure.state, failure.message);
        self.counts().failures.push(failure);
    }

    /// The primary was killed.
    pub fn killed(&self, kill: Kill) {
        self.counts().kill = Some(kill);
    }

    /// Statements answered to the client that had fewest: in all, and begun after the kill; among `clients`.
    pub fn least(&self, clients: &[String]) -> (u32, u32) {
        let counts = self.counts();
        let of = |client| counts.by_client.get(client).copied().unwrap_or_default();
        let all = clients.iter().map(|client| of(client).0).min().unwrap_or_default();
        let after = clients.iter().map(|client| of(client).1).min().unwrap_or_default();
        (all, after)
    }

    /// How many servers have answered reads.
    pub fn readers_seen(&self) -> usize {
        self.counts().before.keys().filter(|(kind, _)| *kind == Kind::Read).count()
    }

    /// One line about what was answered since the last one.
    pub fn line(&self) -> String {
        let recent = std::mem::take(&mut self.counts().recent);
        let part = |kinds: &[Kind]| -> String {
            let mut by_server = BTreeMap::new();
            for ((kind, server), count) in recent.iter().filter(|((_, server), _)| !server.is_empty()) {
                if kinds.contains(kind) {
                    *by_server.entry(server).or_insert(0) += count;
                }
            }
            let of: Vec<_> = by_server.iter().map(|(server, count)| format!("{server} {count}")).collect();
            if of.is_empty() { "none".to_owned() } else { of.join(", ") }
        };
        format!("writes: {:<22} reads: {}", part(&[Kind::Write, Kind::Transaction]), part(&[Kind::Read]))
    }

    /// The summary, with what the table holds now. Answers the promises that were broken.
    pub fn summary(&self, present: &HashSet<Row>) -> Vec<String> {
        let counts = self.counts();
        let Some(kill) = counts.kill else { return vec!["the primary was not killed".to_owned()] };
        for (era, name) in [(&counts.before, "before"), (&counts.after, "after")] {
            for ((kind, server), count) in era {
                println!("  {name:<6} the kill, {:<12} answered by {server}: {count}", kind.plural());
            }
        }
        for (kind, longest) in &counts.longest {
            println!("  longest wait of {}: {:.3} s", kind.plural(), longest.as_secs_f64());
        }
        if let Some(first) = counts.first_write {
            println!("  first write acknowledged {:.3} s after the kill", (first - kill.gone).as_secs_f64());
        }
        let lost = counts.acknowledged.difference(present).count();
        let unknown = present.difference(&counts.acknowledged).count();
        println!(
            "  writes acknowledged: {}, of these in the table: {}, lost: {lost}",
            counts.acknowledged.len(),
            counts.acknowledged.len() - lost
        );
        println!("  in the table without an answer (outcome unknown, was committed): {unknown}");
        let mut broken = judge(&counts.failures, kill);
        println!("  errors: {}, of these not to be expected: {}", counts.failures.len(), broken.len());
        if lost > 0 {
            broken.push(format!("{lost} acknowledged writes are missing"));
        }
        broken
    }
}

/// The failures that no kill explains.
fn judge(failures: &[Failure], kill: Kill) -> Vec<String> {
    let mut broken = Vec::new();
    for f in failures {
        let in_flight = f.began < kill.gone && f.ended > kill.sent;
        let honest = match (f.code, f.state.as_str()) {
            (1105, "08007") => f.kind != Kind::Read,
            (1213, "40001") => f.kind == Kind::Transaction,
            (1159, "08S01") => f.kind == Kind::Read,
            _ => false,
        };
        let verdict = match (in_flight, honest) {
            (true, true) => "in flight at the kill",
            (false, _) => "NOT in flight at the kill",
            (true, false) => "in flight at the kill, but NOT an honest error",
        };
        println!("  {}: {} ({}) {} [{verdict}]", f.client, f.code, f.state, f.message);
        if !(in_flight && honest) {
            broken.push(format!("{}: {} {} ({verdict})", f.client, f.code, f.message));
        }
    }
    broken
}
