//! The clients: each does one thing at its pace, keeps its connection for as long as it lasts, and writes down what it was
//! told.
//!
//! A write that fails is never sent again: the next one has the next number, so that the table tells afterwards what
//! became of each. A lost connection is opened again, as a pool would; each attempt that fails is an error.

use super::client::{Client, Statement, Target};
use super::fault::{Claim, Fault};
use super::ledger::Ledger;
use super::record::{Recorder, Span};
use super::report::Class;
use crate::backend::Rows;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// Rows of client 0, there before the start, for those who only read.
pub const SEEDS: u64 = 100;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
/// Before a transaction that was rolled back is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// Limit for a new row to reach whoever answers reads.
const SEEN: Duration = Duration::from_secs(30);

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All is well.
    Before,
    /// The trigger has been pulled.
    Triggered,
    /// Clients are to end.
    Done,
}

/// What the clients of a run share.
pub struct Shared {
    /// The port under test.
    pub target: Target,
    /// The database.
    pub database: String,
    /// Between two statements (transactions) of a client.
    pub period: Duration,
    /// What they see.
    pub recorder: RefCell<Recorder>,
    /// When the run began.
    pub origin: Cell<Instant>,
    /// Where it is.
    pub phase: watch::Receiver<Phase>,
}

impl Shared {
    /// µs since the run's start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.get().elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// One client.
pub struct Driver {
    shared: Rc<Shared>,
    class: Class,
    ledger: Ledger,
    link: Option<Client>,
    statement: Option<Statement>,
    /// When it was first kept from going on, while it is.
    since: Option<u64>,
}

impl Driver {
    /// Connects and does what its class does before the start.
    pub async fn start(shared: Rc<Shared>, class: Class, number: u32) -> Result<Self, Fault> {
        let mut link = open_seen(&shared).await?;
        let mut ledger = Ledger::new(number, class == Class::Transaction);
        let mut statement = None;
        match class {
            Class::Write | Class::ReadBack | Class::Transaction => {}
            Class::Read => wait_seen(&mut link).await?,
            Class::Prepared => statement = Some(link.prepare(PREPARED).await?),
            Class::Idle => drop(link.query(&insert(number, ledger.next())).await?),
        }
        Ok(Self { shared, class, ledger, link: Some(link), statement, since: None })
    }

    /// Does what its class does until the run is done. `part` (0 to 1) spreads the clients over the period.
    pub async fn run(mut self, part: f64) -> Ledger {
        let period = self.shared.period;
        if self.class == Class::Idle {
            self.stay_idle(part).await;
        } else {
            let mut ticks = tokio::time::interval_at(Instant::now() + period.mul_f64(part), period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut round = 0;
            while self.goes_on() {
                ticks.tick().await;
                self.round(round).await;
                round += 1;
            }
        }
        if let Some(since) = self.since {
            let now = self.shared.now();
            self.shared.recorder.borrow_mut().unfinished(self.class, self.ledger.client, (since, now));
        }
        self.ledger
    }

    fn goes_on(&self) -> bool {
        self.shared.phase() < Phase::Done && !self.ledger.is_full()
    }

    async fn round(&mut self, round: u64) {
        match self.class {
            Class::Write if round % 2 == 1 => self.count().await,
            Class::Write | Class::ReadBack => self.write_and_read_back().await,
            Class::Read => self.read(round % SEEDS + 1).await,
            Class::Transaction => self.transaction().await,
            Class::Prepared => self.write_prepared().await,
            Class::Idle => {}
        }
    }

    async fn count(&mut self) {
        let sql = format!("UPDATE counters SET n = n + 1 WHERE client = {}", self.ledger.client);
        if let Some(result) = self.ask(self.class, &sql).await {
            self.ledger.counted(result.err().map(|fault| fault.claim()));
        }
    }

    async fn write_and_read_back(&mut self) {
        let number = self.ledger.next();
        let (client, sql) = (self.ledger.client, insert(self.ledger.client, number));
        let result = self.ask(self.class, &sql).await;
        if !self.settle(number, 1, result) || !self.goes_on() {
            return;
        }
        self.expect_row(Class::ReadBack, client, number).await;
    }

    async fn read(&mut self, seed: u64) {
        self.expect_row(self.class, 0, seed).await;
    }

    async fn expect_row(&mut self, class: Class, client: u32, number: u64) {
        let sql = format!("SELECT seq FROM writes WHERE client = {client} AND seq = {number}");
        if let Some(Ok(rows)) = self.ask(class, &sql).await
            && rows.len() != 1
        {
            self.shared.recorder.borrow_mut().stale(class);
        }
    }

    async fn write_prepared(&mut self) {
        let number = self.ledger.next();
        let parameters = [u64::from(self.ledger.client), number];
        let Some((mut link, began)) = self.connected(self.class).await else {
            return self.ledger.doubt(number, Claim::NotApplied);
        };
        let prepared = match self.statement {
            Some(statement) => Ok(statement),
            None => link.prepare(PREPARED).await,
        };
        self.statement = prepared.as_ref().ok().copied();
        let sent = prepared.is_ok();
        let result = match prepared {
            Ok(statement) => link.execute(statement, &parameters).await,
            Err(fault) => Err(fault),
        };
        if result.as_ref().is_err_and(|fault| fault.is_unknown_statement() || fault.lost) {
            self.statement = None;
        }
        let result = self.answered(self.class, link, began, result);
        if sent {
            self.settle(number, 1, Some(result));
        } else {
            self.ledger.doubt(number, Claim::NotApplied);
        }
    }

    async fn transaction(&mut self) {
        while self.goes_on() {
            let (first, second) = (self.ledger.next(), self.ledger.next());
            let Some((mut link, began)) = self.connected(self.class).await else {
                return self.doubt(first, 2, Claim::NotApplied);
            };
            let (result, claim) = both(&mut link, self.ledger.client, [first, second]).await;
            let again = result.as_ref().is_err_and(Fault::is_retry);
            if let Err(fault) = &result {
                self.doubt(first, 2, claim.unwrap_or(fault.claim()));
            }
            if again {
                // Not over yet: the next attempt is part of the same wait.
                self.since.get_or_insert(began);
                self.link = Some(link).filter(|_| result.is_err_and(|fault| !fault.lost));
                self.shared.recorder.borrow_mut().retried(self.class);
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if let Ok(complete) = self.answered(self.class, link, began, result) {
                self.wrote(first, 2);
                if !complete {
                    self.shared.recorder.borrow_mut().stale(self.class);
                }
            }
            return;
        }
    }

    /// Waits for the trigger, then a while of its own, then speaks: a read and a write.
    async fn stay_idle(&mut self, part: f64) {
        let mut phase = self.shared.phase.clone();
        // The sender lives as long as the run.
        drop(phase.wait_for(|phase| *phase >= Phase::Triggered).await);
        let pause = Duration::from_secs_f64(part);
        drop(tokio::time::timeout(pause, phase.wait_for(|phase| *phase == Phase::Done)).await);
        self.ask(Class::Idle, "SELECT 1").await;
        let number = self.ledger.next();
        let result = self.ask(Class::Idle, &insert(self.ledger.client, number)).await;
        self.settle(number, 1, result);
    }

    /// Writes down what is known of a write now; true if it was acknowledged.
    fn settle(&mut self, number: u64, count: u64, result: Option<Result<impl Sized, Fault>>) -> bool {
        match result {
            Some(Ok(_)) => {
                self.wrote(number, count);
                true
            }
            Some(Err(fault)) => {
                self.doubt(number, count, fault.claim());
                false
            }
            None => {
                self.doubt(number, count, Claim::NotApplied);
                false
            }
        }
    }

    fn wrote(&self, number: u64, count: u64) {
        let (now, mut recorder) = (self.shared.now(), self.shared.recorder.borrow_mut());
        (number..number + count).for_each(|number| recorder.wrote(self.class, self.ledger.client, number, now));
    }

    fn doubt(&mut self, number: u64, count: u64, claim: Claim) {
        (number..number + count).for_each(|number| self.ledger.doubt(number, claim));
    }

    /// Runs a statement; `None` if the run ended before there was a connection for it.
    async fn ask(&mut self, class: Class, sql: &str) -> Option<Result<Rows, Fault>> {
        let (mut link, began) = self.connected(class).await?;
        let result = link.query(sql).await;
        Some(self.answered(class, link, began, result))
    }

    /// Writes an answer down, and keeps the connection if it can be used again.
    fn answered<T>(&mut self, class: Class, link: Client, began: u64, result: Result<T, Fault>) -> Result<T, Fault> {
        let span: Span = (began, self.shared.now());
        let mut recorder = self.shared.recorder.borrow_mut();
        match &result {
            Ok(_) => recorder.ok(class, self.ledger.client, span, self.since.take().unwrap_or(began)),
            Err(fault) => {
                self.since.get_or_insert(began);
                recorder.error(class, span, fault);
            }
        }
        let lost = result.as_ref().is_err_and(|fault| fault.lost);
        self.link = Some(link).filter(|_| !lost);
        result
    }

    /// The connection, a new one if need be, and the time; `None` if the run ends before there is one.
    async fn connected(&mut self, class: Class) -> Option<(Client, u64)> {
        if let Some(link) = self.link.take() {
            return Some((link, self.shared.now()));
        }
        let shared = Rc::clone(&self.shared);
        loop {
            let began = shared.now();
            let opened = Client::open(&shared.target, Some(&shared.database)).await;
            match opened {
                Ok(link) => {
                    shared.recorder.borrow_mut().reconnected(class);
                    self.statement = None;
                    return Some((link, shared.now()));
                }
                Err(fault) => shared.recorder.borrow_mut().error(class, (began, shared.now()), &fault),
            }
            self.since.get_or_insert(began);
            if shared.phase() == Phase::Done {
                return None;
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }
}

const PREPARED: &str = "INSERT INTO writes (client, seq, server) VALUES (?, ?, @@global.server_id)";

/// A row of a client, with the server that writes it.
pub fn insert(client: u32, number: u64) -> String {
    format!("INSERT INTO writes (client, seq, server) VALUES ({client}, {number}, @@global.server_id)")
}

/// A transaction of two rows: whether it saw both, and what is known of them where the error alone does not tell: before
/// the COMMIT nothing can have been applied.
async fn both(link: &mut Client, client: u32, numbers: [u64; 2]) -> (Result<bool, Fault>, Option<Claim>) {
    let [first, second] = numbers;
    let mut complete = false;
    let select = format!("SELECT COUNT(*) FROM writes WHERE client = {client} AND seq IN ({first}, {second})");
    let statements = ["BEGIN".to_owned(), insert(client, first), insert(client, second), select];
    for sql in &statements {
        match link.query(sql).await {
            Ok(rows) => complete = rows.first().and_then(|row| super::client::text(row, 0)).as_deref() == Some("2"),
            Err(fault) => {
                // Most errors leave the transaction open.
                let left = if fault.lost { Ok(Rows::new()) } else { link.query("ROLLBACK").await };
                let lost = fault.lost || left.is_err_and(|fault| fault.lost);
                return (Err(Fault { lost, ..fault }), Some(Claim::NotApplied));
            }
        }
    }
    (link.query("COMMIT").await.map(|_| complete), None)
}

/// A connection with the database as its schema, which may be so new that not every server has it.
async fn open_seen(shared: &Shared) -> Result<Client, Fault> {
    let began = Instant::now();
    loop {
        match Client::open(&shared.target, Some(&shared.database)).await {
            // ER_BAD_DB_ERROR.
            Err(fault) if fault.code == 1049 && began.elapsed() < SEEN => {}
            opened => return opened,
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Waits until whoever answers this connection's reads has the last of the seeds.
async fn wait_seen(link: &mut Client) -> Result<(), Fault> {
    let began = Instant::now();
    loop {
        let sql = format!("SELECT seq FROM writes WHERE client = 0 AND seq = {SEEDS}");
        match link.query(&sql).await {
            Ok(rows) if rows.len() == 1 => return Ok(()),
            // 1146: the table has not come either.
            Ok(_) => {}
            Err(fault) if fault.code == 1146 => {}
            Err(fault) => return Err(fault),
        }
        if began.elapsed() > SEEN {
            return Err(Fault::lost(format!(
                "the table's first rows can't be read after {SEEN:?}: is a replica behind?"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
