//! The clients, and what each may see: every answer is held against what the client knows, every error against the promises.
//!
//! | client | asks | may be told, beside the right answer |
//! | --- | --- | --- |
//! | writer | autocommit inserts | 08007, only without `exactly_once` |
//! | reader | its own rows, from anywhere | 1159 behind a piece of the result |
//! | reader of its writes | an insert, then its rows, which must hold it | the same |
//! | transactions | two inserts and reads between | 1213, and then nothing of it happened; 08007 for COMMIT without `exactly_once` |
//! | prepared | the same as text, prepared long before | as above |
//! | idle | nothing for long, then a read of the primary | nothing |
//! | setter | SET time_zone, and reads it again | nothing |
//! | temporary | a temporary table | 3169, and its session ends |
//! | read-only transactions | on a follower | 1213 |
//! | unknown | a stored function, nonsense | 08007, only without `exactly_once`; the server's own 1064 |

mod script;

use super::packets::{self, Seen};
use super::rng::Rng;
use super::server::PADDING;
use super::shell::{Request, Shell};
use super::world::{Shared, Time};
use holdfast::classify::classify;
use holdfast::session::Slot;
use holdfast::types::StatementId;
use holdfast::wire::command::Answer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Writer,
    Reader,
    OwnReader,
    Transactions,
    Prepared,
    Idle,
    Setter,
    Temporary,
    ReadOnly,
    Manual,
    Unknown,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Writer,
        Self::Reader,
        Self::OwnReader,
        Self::Transactions,
        Self::Prepared,
        Self::Idle,
        Self::Setter,
        Self::Temporary,
        Self::ReadOnly,
        Self::Manual,
        Self::Unknown,
    ];
}

/// What a client knows of rows that it wrote together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed,
    Absent,
    Unknown,
}

/// Rows that a client wrote together, and what it was told of them.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub client: usize,
    pub rows: Vec<u64>,
    pub fate: Fate,
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Ok,
    Rows(Vec<Option<String>>),
    Err {
        code: u16,
        state: [u8; 5],
        behind: bool,
        message: String,
    },
    /// The connection ended in the middle of an answer.
    Cut,
}

impl Got {
    /// The one number that it is.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Rows(rows) => rows.first()?.as_deref()?.parse().ok(),
            Self::Ok | Self::Err { .. } | Self::Cut => None,
        }
    }
}

pub struct Client {
    w: Shared,
    me: usize,
    kind: Kind,
    rng: Rng,
    shell: Shell,
    next: u64,
    mine: Vec<(u64, Fate)>,
    zone: String,
    statements: Vec<(StatementId, String)>,
}

/// Clients go on for so long after the last fault (µs).
const LONGER: Time = 500_000;

impl Client {
    pub fn new(w: &Shared, me: usize, kind: Kind, seed: u64) -> Self {
        let (rng, shell) = (Rng::new(seed), Shell::new(w, me));
        let zone = "SYSTEM".to_owned();
        Self { w: w.clone(), me, kind, rng, shell, next: 1, mine: Vec::new(), zone, statements: Vec::new() }
    }

    pub async fn run(mut self) {
        let begin = self.rng.below(100_000);
        self.think(begin).await;
        while self.w.borrow().now < super::faults::UNTIL + LONGER {
            match self.kind {
                Kind::Writer => self.write().await,
                Kind::Reader => self.read(false).await,
                Kind::OwnReader => {
                    self.write().await;
                    self.read(true).await;
                }
                Kind::Transactions => self.transaction().await,
                Kind::Prepared => self.prepared().await,
                Kind::Idle => self.idle().await,
                Kind::Setter => self.set().await,
                Kind::Temporary => self.temporary().await,
                Kind::ReadOnly => self.read_only().await,
                Kind::Manual => self.manual().await,
                Kind::Unknown => self.unknown().await,
            }
            let pause = self.rng.between(1_000, 120_000);
            self.think(pause).await;
        }
        self.quit();
        self.w.borrow().finished += 1;
    }

    async fn think(&mut self, time: Time) {
        self.w.clone().sleep(self.me, time).await;
    }

    fn quit(&mut self) {
        for slot in [Slot::Primary, Slot::Follower] {
            self.shell.drop_connection(slot, false);
        }
    }

    /// Another session, as a client has that was thrown out.
    fn reconnect(&mut self) {
        self.quit();
        self.shell = Shell::new(&self.w, self.me);
        self.statements.clear();
        self.zone = "SYSTEM".to_owned();
    }

    fn fail(&self, what: String) {
        self.w.borrow().fail(format!("client {} ({:?}): {what}", self.me, self.kind));
    }

    async fn query(&mut self, sql: &str) -> Got {
        let statement = classify(sql.as_bytes(), self.shell.session.dialect());
        let request = Request {
            packet: packets::command(0x03, sql.as_bytes()).freeze(),
            answer: Answer::Results,
            statement,
            prepared: None,
            new_id: 0,
            only: None,
            repeatable: statement.repeats_alone(),
        };
        self.ask(request, sql).await
    }

    async fn ask(&mut self, request: Request, sql: &str) -> Got {
        let (me, started) = (self.me, self.w.borrow().now);
        self.w.borrow().note(|| format!("client {me} asks {sql}"));
        let is_prepare = request.answer == Answer::Prepared;
        let in_transaction = self.shell.session.transaction().is_some();
        let reply = self.shell.execute(request).await;
        let deprecate_eof = self.w.borrow().setup.deprecate_eof;
        let got = if reply.ended == Some(holdfast::error::ErrorKind::ResultCut) {
            Got::Cut
        } else {
            match packets::read(&reply.bytes, is_prepare, deprecate_eof) {
                Ok(Seen::Ok { .. } | Seen::Prepared(_)) => Got::Ok,
                Ok(Seen::Rows(rows)) => Got::Rows(rows),
                Ok(Seen::Err { code, state, message, .. }) => {
                    Got::Err { code, state, behind: reply.bytes[4] != 0xFF, message }
                }
                Err(why) => {
                    self.fail(format!("{sql} answers what is none: {why}"));
                    Got::Cut
                }
            }
        };
        self.w.borrow().note(|| format!("client {me} gets {}", format!("{got:?}").replace(PADDING, "")));
        self.w.borrow().count("statements");
        if let Got::Err { code, behind, .. } = &got {
            self.judge_error((*code, *behind), started, in_transaction, sql);
        }
        if let Some((slot, prepared)) = reply.prepared.filter(|_| got == Got::Ok && is_prepare) {
            self.keep_prepared(sql, slot, prepared.id);
        }
        // A statement that was not taken leaves a transaction open; this client has no use for it.
        let over = in_transaction && matches!(got, Got::Err { code: 1041 | 2003, .. });
        if reply.ended.is_some() || over {
            self.reconnect();
        }
        got
    }

    /// Errors that no client may ever get.
    fn judge_error(&mut self, (code, behind): (u16, bool), started: Time, in_transaction: bool, sql: &str) {
        let setup = self.w.setup();
        let waited = self.w.borrow().now - started;
        let allowed = match code {
            // Of the proxy's hold: full, or over.
            1041 => setup.hold_statements_max < 10,
            2003 => waited >= setup.hold_max,
            1213 => matches!(self.kind, Kind::Transactions | Kind::ReadOnly | Kind::Prepared | Kind::Manual),
            1159 => true,
            // With `exactly_once` only behind a piece of a result, and where nobody could be asked until the hold was over.
            1105 => !setup.exactly_once || behind || waited >= setup.hold_max,
            3169 => self.kind == Kind::Temporary,
            1064 => self.kind == Kind::Unknown,
            // The group's own word on a commit.
            3100 => !setup.exactly_once || in_transaction,
            _ => false,
        };
        self.w.borrow().count(match code {
            1213 => "told: 1213",
            1105 => "told: 08007",
            1159 => "told: 1159",
            3169 => "told: 3169",
            1041 => "told: hold is full",
            1064 => "told: 1064, as asked for",
            3100 => "told: 3100",
            _ => "told: other errors",
        });
        if !allowed {
            let inside = if in_transaction { "in a transaction" } else { "outside a transaction" };
            self.fail(format!("{sql}, {inside}, answers error {code} after {waited} µs"));
        }
    }

    fn note(&mut self, rows: &[u64], fate: Fate) {
        self.mine.extend(rows.iter().map(|n| (*n, fate)));
        self.w.borrow().outcomes.push(Outcome { client: self.me, rows: rows.to_vec(), fate });
    }

    /// What an error says of the rows of the statement, or of the transaction, that it ended.
    fn fate_of(&self, got: &Got) -> Fate {
        match got {
            Got::Ok => Fate::Committed,
            Got::Err { code: 1105 | 3100, .. } => Fate::Unknown,
            // "Executed and committed; only the answer is lost."
            Got::Err { code: 1159, .. } => Fate::Committed,
            Got::Err { .. } => Fate::Absent,
            Got::Rows(_) | Got::Cut => Fate::Unknown,
        }
    }
}
