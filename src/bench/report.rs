//! \[pure\] What a measurement says: the shape of the JSON file, and the figures that are computed from it.
//!
//! All times are microseconds since the start of the run they belong to, unless the name says otherwise.

pub use super::ledger::Verdict;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Shape of the file; raised when an older reader would misunderstand it.
pub const VERSION: u32 = 1;
/// Width of a bucket of [`ClassReport::buckets`].
pub const BUCKET_US: u64 = 100_000;

/// What clients do; each client does one of these (a writing client also reads back).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// INSERT and `UPDATE … SET n = n + 1` in turn, each its own transaction.
    Write,
    /// A writing client's read of the row that was just acknowledged to it, on the same connection.
    ReadBack,
    /// Point select of rows that were there before.
    Read,
    /// BEGIN, two INSERTs, a SELECT of both, COMMIT; counted as one.
    Transaction,
    /// INSERT through a statement that was prepared before the failure.
    Prepared,
    /// Says nothing from before the failure until after it.
    Idle,
}

impl Class {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] = [Self::Write, Self::ReadBack, Self::Read, Self::Transaction, Self::Prepared, Self::Idle];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::ReadBack => "read-back",
            Self::Read => "read",
            Self::Transaction => "transaction",
            Self::Prepared => "prepared",
            Self::Idle => "idle",
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// What is measured, as the user calls it.
    pub label: String,
    /// The port under test.
    pub target: String,
    /// What happened to the primary: kill, freeze, isolate, switch, command, none.
    pub trigger: String,
    /// When it began, milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Statements (transactions) a second each client aims at.
    pub rate_per_client: f64,
    /// One for each time the primary was lost.
    pub runs: Vec<Run>,
}

/// One time that the primary was lost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// Counts from 1.
    pub number: u32,
    /// Its length.
    pub length_us: u64,
    /// Who executed writes before, if it is known.
    pub primary_before: Option<String>,
    /// The new primary, if one was seen.
    pub primary_after: Option<String>,
    /// When what happened.
    pub events: Events,
    /// What each class of clients saw.
    pub classes: Vec<ClassReport>,
    /// What the servers said of themselves.
    pub servers: Vec<ServerReport>,
    /// What became of the writes.
    pub verdict: Verdict,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// When what happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The trigger was about to be pulled.
    pub trigger_us: Option<u64>,
    /// It had been: the signal was sent, the command had ended.
    pub trigger_done_us: Option<u64>,
    /// A frozen primary was continued.
    pub thaw_us: Option<u64>,
    /// Another member was first seen to call itself the group's primary.
    pub elected_us: Option<u64>,
    /// The new primary was first seen writable.
    pub writable_us: Option<u64>,
    /// The question before that one: it was not writable yet.
    pub not_writable_us: Option<u64>,
    /// A row written directly at a server other than the old primary was acknowledged: what the change takes without a proxy.
    pub direct_write_us: Option<u64>,
    /// From the last write acknowledged before the change…
    pub outage_from_us: Option<u64>,
    /// …to the first write acknowledged after it, which is the first that another server has executed (rows name their
    /// writer); where none has, the outage is the longest time without a write.
    pub first_write_us: Option<u64>,
}

impl Events {
    /// From the trigger to the first write acknowledged after the change.
    pub fn time_to_first_write_us(&self) -> Option<u64> {
        Some(self.first_write_us?.saturating_sub(self.trigger_us?))
    }

    /// From the trigger until the new primary was seen writable.
    pub fn election_us(&self) -> Option<u64> {
        Some(self.writable_us?.saturating_sub(self.trigger_us?))
    }

    /// From the new primary's being writable to the first write: least and most, because the servers are asked now and then.
    pub fn after_election_us(&self) -> Option<(u64, u64)> {
        let (first, writable) = (self.first_write_us?, self.writable_us?);
        let before = self.not_writable_us.unwrap_or(writable);
        Some((first.saturating_sub(writable), first.saturating_sub(before)))
    }

    /// From the first write at the servers themselves to the first through the port; 0 if the port's came first.
    pub fn behind_direct_us(&self) -> Option<u64> {
        Some(self.first_write_us?.saturating_sub(self.direct_write_us?))
    }
}

/// What the clients of a class saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClassReport {
    /// Which.
    pub class: Class,
    /// How many clients.
    pub clients: u32,
    /// Answered with OK; transactions are counted whole.
    pub ok: u64,
    /// Answered with an error, or not at all, or not even connected.
    pub errors: u64,
    /// The same by number and SQLSTATE.
    pub error_kinds: Vec<ErrorKind>,
    /// Connections opened after the first.
    pub reconnects: u64,
    /// Transactions rolled back by a deadlock error and run again.
    pub retried: u64,
    /// Reads that did not show what must have been there.
    pub stale: u64,
    /// Half were answered within this.
    pub p50_us: u64,
    /// 99 of 100 were.
    pub p99_us: u64,
    /// First OK after the change, for classes that write.
    pub first_ok_us: Option<u64>,
    /// The longest times a client was kept from going on.
    pub stalls: Vec<Stall>,
    /// One for each 100 ms.
    pub buckets: Vec<Bucket>,
}

impl ClassReport {
    /// The longest stall.
    pub fn longest_us(&self) -> u64 {
        self.stalls.iter().map(|stall| stall.to_us - stall.from_us).max().unwrap_or(0)
    }
}

/// Errors of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorKind {
    /// Error number; 0: the connection failed.
    pub code: u16,
    /// SQLSTATE.
    pub state: String,
    /// How often.
    pub count: u64,
    /// Text of the first.
    pub text: String,
    /// When the first statement that got it began.
    pub first_began_us: u64,
    /// When the last statement that got it began.
    pub last_began_us: u64,
    /// When the first came.
    pub first_us: u64,
    /// When the last came.
    pub last_us: u64,
}

/// A client was kept waiting: from the statement (the first, if several failed) to the answer with which it went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Whose.
    pub client: u32,
    /// Begin.
    pub from_us: u64,
    /// End.
    pub to_us: u64,
    /// An error came in between, or the run ended before the answer.
    pub failed: bool,
}

/// A tenth of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Answers of OK.
    pub ok: u32,
    /// Errors.
    pub errors: u32,
    /// Clients that were waiting when it began.
    pub waiting: u32,
}

/// A server's own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Its address.
    pub address: String,
    /// What it said first, and each change.
    pub changes: Vec<Change>,
    /// Whether it has the same rows as the primary in the end.
    pub agrees: Agreement,
}

/// From this moment on a server was something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When it was seen.
    pub at_us: u64,
    /// When it was last seen otherwise.
    pub not_before_us: u64,
    /// What it was.
    pub state: ServerState,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    /// It does not answer.
    Away,
    /// It is read-only.
    Follower,
    /// The group's primary by its own word, and still read-only.
    Elected,
    /// It can be written.
    Writable,
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "away",
            Self::Follower => "follower",
            Self::Elected => "elected",
            Self::Writable => "writable",
        })
    }
}

/// Whether a server has the same rows as the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// It has.
    Same,
    /// It has not, at the end of the wait.
    Differs,
    /// It does not answer.
    Away,
}

impl Report {
    /// True if no run lost a write, ran one twice or told a client a lie.
    pub fn is_clean(&self) -> bool {
        self.runs.iter().all(|run| run.verdict.is_clean())
    }

    /// Median and worst of a figure over the runs that have it.
    pub fn spread(&self, figure: impl Fn(&Run) -> Option<u64>) -> Option<(u64, u64)> {
        let mut all: Vec<u64> = self.runs.iter().filter_map(figure).collect();
        all.sort_unstable();
        let (worst, middle) = (*all.last()?, all.len() / 2);
        let lower = all.len().div_ceil(2) - 1;
        Some(((all[lower] + all[middle]) / 2, worst))
    }

    /// Sum of a figure over the runs.
    pub fn total(&self, figure: impl Fn(&Run) -> u64) -> u64 {
        self.runs.iter().map(figure).sum()
    }
}

impl Run {
    /// Errors that clients of these classes saw.
    pub fn errors(&self, of: impl Fn(Class) -> bool) -> u64 {
        self.classes.iter().filter(|c| of(c.class)).map(|c| c.errors).sum()
    }

    /// The longest stall of all clients.
    pub fn longest_us(&self) -> u64 {
        self.classes.iter().map(ClassReport::longest_us).max().unwrap_or(0)
    }

    /// Stale reads of all clients.
    pub fn stale(&self) -> u64 {
        self.classes.iter().map(|c| c.stale).sum()
    }
}

/// Milliseconds with as many digits as mean something: `0.42 ms`, `17.3 ms`, `6,180 ms`.
pub fn ms(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
        10_000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{} ms", thousands((us + 500) / 1000)),
    }
}

/// `1,234,567`
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
