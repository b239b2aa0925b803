//! Clients that write, read and run transactions while things happen, each on one connection for as long as it lasts, and
//! everything that they were told.

use crate::proxy::{Client, Fault};
use crate::testbed::until;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// What they write to; `server` is the host name of the server that executed the statement.
pub const TABLE: &str =
    "CREATE TABLE app.acked(client INT, n INT, server VARCHAR(60), PRIMARY KEY(client, n)) ENGINE=InnoDB";
const SOON: Duration = Duration::from_secs(200);
/// Between two things that one client does. Long enough for a member that comes back to catch up on a busy machine: it must
/// apply what was written meanwhile, and what is.
const PAUSE: Duration = Duration::from_millis(100);
/// Within a transaction, so that some are open at any time.
const THINKING: Duration = Duration::from_millis(50);
const UNKNOWN: (u16, &str) = (1105, "08007");
const ROLLED_BACK: (u16, &str) = (1213, "40001");
/// Four write, two run transactions, two read.
const KINDS: [Kind; 8] = {
    use Kind::{Read, Transaction, Write};
    [Write, Write, Write, Write, Transaction, Transaction, Read, Read]
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An INSERT by itself.
    Write,
    /// BEGIN, INSERT, a pause, COMMIT.
    Transaction,
    /// A SELECT by itself.
    Read,
}

/// How a statement or transaction ended.
#[derive(Clone, Debug)]
pub enum End {
    Acknowledged,
    /// Host name of the server that answered.
    ReadFrom(String),
    /// At the statement that begins with this word.
    Failed(&'static str, Fault),
}

#[derive(Clone, Debug)]
pub struct Done {
    pub kind: Kind,
    /// Key of the row, for what writes.
    pub row: (usize, u64),
    pub began_ms: u64,
    pub ended_ms: u64,
    pub end: End,
}

/// Running clients. They are stopped when this is dropped.
pub struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Done>>>,
    threads: Vec<JoinHandle<()>>,
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Clients {
    /// Clients of that port, each of which has been served.
    pub fn start(port: u16) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let start = |(number, kind)| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || client(port, number, kind, (&stop, &done)))
        };
        let threads = KINDS.into_iter().enumerate().map(start).collect();
        let clients = Self { stop, done, threads };
        clients.wait_going_on();
        clients
    }

    /// What has ended since then, the oldest first.
    pub fn since(&self, since_ms: u64) -> Vec<Done> {
        let done = self.done.lock().unwrap();
        // each is noted right after its end, so in this order but for a moment
        let near = done.iter().rev().take_while(|d| d.ended_ms + 1000 >= since_ms);
        let mut since: Vec<Done> = near.filter(|d| d.ended_ms >= since_ms).cloned().collect();
        since.sort_by_key(|d| d.ended_ms);
        since
    }

    /// Waits until each client has done five more things without an error, all of them begun from now on.
    pub fn wait_going_on(&self) {
        let mark = unix_ms();
        until("all clients go on, on the same connections", SOON, || {
            assert!(
                self.threads.iter().all(|t| !t.is_finished()),
                "a client lost its connection: {:?}",
                self.failures()
            );
            let since = self.since(mark);
            (0..KINDS.len()).all(|client| {
                let good = |d: &&Done| d.row.0 == client && d.began_ms >= mark && !matches!(d.end, End::Failed(..));
                since.iter().filter(good).count() >= 5
            })
        });
    }

    /// Waits until fifty reads in a row came from these servers. A session stays with the server it once has, so not all
    /// need to be among them.
    pub fn wait_reads_on(&self, servers: &[String]) {
        let mark = unix_ms();
        until(&format!("reads are on {servers:?}"), SOON, || {
            let since = self.since(mark);
            let from = since.iter().filter_map(|d| match &d.end {
                End::ReadFrom(server) => Some(server),
                _ => None,
            });
            let last: Vec<&String> = from.rev().take(50).collect();
            let there: HashSet<&String> = last.iter().copied().collect();
            last.len() == 50 && there.is_subset(&servers.iter().collect())
        });
    }

    /// Checks everything that was said to clients against the rows that there are; `rows` is asked after the answers were
    /// noted.
    pub fn check(&self, rows: impl FnOnce() -> HashSet<(usize, u64)>) {
        let done = self.since(0);
        let rows = rows();
        for d in done.iter().filter(|d| d.kind != Kind::Read) {
            let there = rows.contains(&d.row);
            match &d.end {
                End::Failed(_, fault) if fault.state() == UNKNOWN => {}
                End::Failed(..) => assert!(!there, "it failed, and yet it was written: {d:?}"),
                End::Acknowledged | End::ReadFrom(_) => assert!(there, "an acknowledged write is lost: {d:?}"),
            }
        }
        for d in &done {
            let End::Failed(step, fault) = &d.end else { continue };
            let in_flight = match d.kind {
                Kind::Write => fault.state() == UNKNOWN,
                Kind::Transaction => fault.state() == ROLLED_BACK || (fault.state() == UNKNOWN && *step == "COMMIT"),
                Kind::Read => false,
            };
            assert!(in_flight, "an error of something that was not in flight: {d:?}");
        }
    }

    fn failures(&self) -> Vec<Done> {
        self.since(0).into_iter().filter(|d| matches!(d.end, End::Failed(..))).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// Errors by what was asked, and by what was told; `none` if there are none.
pub fn errors(done: &[Done]) -> String {
    let mut counts = BTreeMap::new();
    for d in done {
        if let End::Failed(step, fault) = &d.end {
            let (code, state) = fault.state();
            *counts.entry((d.kind, *step, code, state.to_owned())).or_insert(0) += 1;
        }
    }
    let texts = counts.iter().map(|((kind, step, code, state), count)| {
        let at = if *kind == Kind::Transaction { format!(" at {step}") } else { String::new() };
        format!("{count} x {code}/{state} ({kind:?}{at})").to_lowercase()
    });
    let texts = texts.collect::<Vec<_>>().join(", ");
    if texts.is_empty() { "none".to_owned() } else { texts }
}

fn client(port: u16, number: usize, kind: Kind, (stop, done): (&AtomicBool, &Mutex<Vec<Done>>)) {
    let mut client = Client::login(port, "app", "app").unwrap();
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let began_ms = unix_ms();
        let end = one(&mut client, kind, (number, n)).unwrap_or_else(|(step, fault)| End::Failed(step, fault));
        let gone = matches!(end, End::Failed(_, Fault::Gone(_)));
        done.lock().unwrap().push(Done { kind, row: (number, n), began_ms, ended_ms: unix_ms(), end });
        if gone {
            return;
        }
        std::thread::sleep(if kind == Kind::Read { PAUSE / 5 } else { PAUSE });
    }
}

fn one(client: &mut Client, kind: Kind, (number, n): (usize, u64)) -> Result<End, (&'static str, Fault)> {
    let insert = format!("INSERT INTO app.acked VALUES ({number}, {n}, @@hostname)");
    let mut run = |step, sql: &str| client.query(sql).map_err(|fault| (step, fault));
    match kind {
        Kind::Write => run("INSERT", &insert)?,
        Kind::Transaction => {
            run("BEGIN", "BEGIN")?;
            run("INSERT", &insert)?;
            std::thread::sleep(THINKING);
            run("COMMIT", "COMMIT")?
        }
        Kind::Read => {
            let mut rows = run("SELECT", "SELECT @@hostname")?;
            return Ok(End::ReadFrom(rows.swap_remove(0).swap_remove(0)));
        }
    };
    Ok(End::Acknowledged)
}
