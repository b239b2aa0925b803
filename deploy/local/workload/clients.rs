//! The clients: each keeps the one connection it opened, whatever happens.
//!
//! | client | what it does |
//! | --- | --- |
//! | writer | inserts numbered rows, one autocommit statement each; every other one prepared |
//! | reader | asks which server answers and how many rows it has; every other one prepared |
//! | idle | writes a row before the kill and one after it |
//! | transaction | has a transaction open at the kill: it goes on, or is told 1213 and runs it again |
//!
//! A [`mysql_async::Conn`] does not reconnect by itself; a client whose connection fails reports it and ends.

use crate::board::{Board, Failure, Kind};
use crate::phase::{Phase, Phases};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pace of a busy client: the demo shows a workload, it is no benchmark.
const PAUSE: Duration = Duration::from_millis(10);

/// The table all clients use.
pub const TABLE: &str = "holdfast_demo.writes";

/// One client, ready to run.
pub struct Client {
    pub name: String,
    pub number: u32,
    pub conn: Conn,
    /// SQL for the name of the server that executes it.
    pub server: Arc<str>,
    pub board: Arc<Board>,
    pub phases: Phases,
}

/// The connection itself failed: the client cannot go on.
pub struct Gone;

impl Client {
    /// Inserts rows until the end.
    pub async fn write(mut self) {
        let mut sequence = 0;
        while self.phases.now() < Phase::Done {
            let Ok(written) = self.insert(sequence).await else { return };
            sequence += u32::from(written);
            tokio::time::sleep(PAUSE).await;
        }
        self.leave().await;
    }

    /// One numbered row. True if it is there, false if it is to be tried again.
    async fn insert(&mut self, sequence: u32) -> Result<bool, Gone> {
        let began = Instant::now();
        let server = &self.server;
        let done = if self.number.is_multiple_of(2) {
            let sql = format!("INSERT INTO {TABLE} VALUES ({}, {sequence}, {server})", self.number);
            self.conn.query_drop(sql).await
        } else {
            let sql = format!("INSERT INTO {TABLE} VALUES (?, ?, {server})");
            self.conn.exec_drop(sql, (self.number, sequence)).await
        };
        let ended = Instant::now();
        match done {
            Ok(()) => {
                let server = self.written_by(sequence).await?;
                self.board.answered(&self.name, Kind::Write, &server, (began, ended), Some((self.number, sequence)));
                Ok(true)
            }
            Err(error) => {
                self.failed(Kind::Write, began, error)?;
                // The outcome may be unknown: the table knows it.
                Ok(!self.written_by(sequence).await?.is_empty())
            }
        }
    }

    /// The server that wrote the row, as the primary has it; nothing if there is no such row.
    async fn written_by(&mut self, sequence: u32) -> Result<String, Gone> {
        let sql = "/* holdfast:primary */ SELECT server FROM holdfast_demo.writes WHERE client = ? AND sequence = ?";
        loop {
            let began = Instant::now();
            match self.conn.exec_first(sql, (self.number, sequence)).await {
                Ok(server) => return Ok(server.unwrap_or_default()),
                Err(error) => self.failed(Kind::Read, began, error)?,
            }
        }
    }

    /// Reads until the end; the first reads wait until the table has reached the follower.
    pub async fn read(mut self) {
        let sql = format!("SELECT {}, COUNT(*) FROM {TABLE}", self.server);
        while self.phases.now() < Phase::Done {
            let began = Instant::now();
            let row: Result<Option<(String, u64)>, Error> = if self.number.is_multiple_of(2) {
                self.conn.query_first(&sql).await
            } else {
                self.conn.exec_first(&sql, Params::Empty).await
            };
            match row {
                Ok(Some((server, _))) => {
                    self.board.answered(&self.name, Kind::Read, &server, (began, Instant::now()), None);
                }
                Ok(None) => {}
                // 1049, 1146: a new schema or table that replication has not brought yet.
                Err(Error::Server(e)) if matches!(e.code, 1049 | 1146) && self.phases.now() == Phase::Warm => {}
                Err(error) => {
                    let Ok(()) = self.failed(Kind::Read, began, error) else { return };
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.leave().await;
    }

    /// One row before the kill, one after.
    pub async fn idle(mut self) {
        for (sequence, phase) in [(0, Phase::Warm), (1, Phase::Killed)] {
            self.phases.wait(phase).await;
            while let Ok(false) = self.insert(sequence).await {}
        }
        self.phases.wait(Phase::Done).await;
        self.leave().await;
    }

    /// A transaction that is open while the primary is killed.
    pub async fn transaction(mut self) {
        loop {
            match self.two_rows().await {
                Ok(true) => break,
                Ok(false) => println!("  {} runs its transaction again on the same connection", self.name),
                Err(Gone) => return,
            }
        }
        self.phases.wait(Phase::Done).await;
        self.leave().await;
    }

    async fn two_rows(&mut self) -> Result<bool, Gone> {
        let began = Instant::now();
        let (number, server) = (self.number, Arc::clone(&self.server));
        let insert = |sequence: u32| format!("INSERT INTO {TABLE} VALUES ({number}, {sequence}, {server})");
        let statements = ["BEGIN".to_owned(), insert(0), insert(1), "COMMIT".to_owned()];
        for (n, sql) in statements.iter().enumerate() {
            if n == 2 {
                self.phases.opened();
                self.phases.wait(Phase::Killed).await;
            }
            if let Err(error) = self.conn.query_drop(sql).await {
                self.failed(Kind::Transaction, began, error)?;
                return Ok(false);
            }
        }
        let ended = Instant::now();
        let server = self.written_by(1).await?;
        for sequence in 0..2 {
            self.board.answered(&self.name, Kind::Transaction, &server, (began, ended), Some((self.number, sequence)));
        }
        Ok(true)
    }

    /// Writes an error down. `Err` if the connection is of no use any more.
    fn failed(&self, kind: Kind, began: Instant, error: Error) -> Result<(), Gone> {
        let (code, state, message) = match error {
            Error::Server(e) => (e.code, e.state, e.message),
            other => (0, "no connection".to_owned(), other.to_string()),
        };
        let failure = Failure { client: self.name.clone(), kind, began, ended: Instant::now(), code, state, message };
        self.board.failed(failure);
        if code == 0 { Err(Gone) } else { Ok(()) }
    }

    async fn leave(self) {
        // The proxy may be stopping at the same time; nothing depends on a goodbye.
        let _ = self.conn.disconnect().await;
    }
}
