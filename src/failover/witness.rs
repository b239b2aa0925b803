//! The task of one server as a witness: where its binary log stands, and what stands in it.
//!
//! ```text
//!   nobody needs verdicts ──► a task per server: connect ──► is it the log it was? ──► marked every second
//!                                 ▲                                                        │ questions: all that wait at once
//!                                 │                                                        ▼
//!                                 └── again, after a while ◄── connection ended    what is executed, what connections live
//!                                                                                          │
//!                                                               a second connection reads the log, and is used up by it
//! ```
//!
//! What is executed is asked before the log is read: so all of it is in what is read.

use super::log::{self, LogError, Read, Stamp};
use super::marks::{Mark, Marks};
use super::verdict::{Last, Relay, Seen};
use super::witnesses::{Access, Looked, QUESTIONS_MAX, Question, Witnesses};
use crate::backend::{ConnectTarget, LoginRequest, QueryError, Rows, connect, query_text};
use crate::metrics;
use crate::topology::TopologyHandle;
use crate::transport::Channel;
use crate::types::{Address, BackendId, GtidSet};
use crate::wire::capabilities::Capabilities;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server that can't be reached is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);
/// One that does not let its log be read, after this.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// How often it is noted where the log stands.
const TICK: Duration = Duration::from_secs(1);
/// Limit for an answer: a connection that takes longer is given up.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Limit for reading a log.
const READ_TIME: Duration = Duration::from_secs(20);
/// Longest answer, bytes: `gtid_executed` is most of it.
const ANSWER_MAX: usize = 1 << 20;
/// ER_PARSE_ERROR, ER_UNKNOWN_SYSTEM_VARIABLE: the server is older than the words.
const OLDER: [u16; 2] = [1064, 1193];
/// The connections are to outlive the server's patience with idle ones.
const PATIENCE: &str = "SET SESSION wait_timeout=2592000";
/// What was received and by whom it is applied.
const RELAYS: &str = "SELECT source.received_transaction_set, applier.service_state \
     FROM performance_schema.replication_connection_status AS source \
     JOIN performance_schema.replication_applier_status AS applier USING (channel_name) \
     WHERE source.received_transaction_set <> ''";

/// Keeps a witness per server of one cluster until `stop`, from the moment somebody may need one.
pub async fn run(witnesses: Arc<Witnesses>, cluster: Arc<str>, topology: TopologyHandle, stop: CancellationToken) {
    let watching = async {
        witnesses.wanted().await;
        let mut tasks: HashMap<BackendId, (Address, DropGuard)> = HashMap::new();
        let mut changed = topology.changed();
        loop {
            let snapshot = topology.snapshot();
            tasks.retain(|id, (address, _)| snapshot.backend(*id).is_some_and(|b| b.address == *address));
            let mariadb = |version: &Option<Arc<str>>| version.as_ref().is_some_and(|v| v.contains("MariaDB"));
            for server in snapshot.backends.iter().filter(|server| !mariadb(&server.version)) {
                tasks.entry(server.id).or_insert_with(|| {
                    let witness = Witness::new(&witnesses, &cluster, server.id, server.address.clone());
                    (server.address.clone(), witness.spawn())
                });
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(watching).await;
}

struct Witness {
    witnesses: Arc<Witnesses>,
    cluster: Arc<str>,
    id: BackendId,
    address: Address,
    marks: Marks,
    /// Whose marks they are: `server_uuid`, and what it had executed at the last.
    log: Option<(String, String)>,
    warned: bool,
}

/// Why a connection was given up.
enum Ended {
    Broken,
    Refused(String),
}

impl From<QueryError> for Ended {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Server { .. } => Self::Refused(error.to_string()),
            QueryError::Broken(_) | QueryError::Protocol(_) | QueryError::TooLong { .. } => Self::Broken,
        }
    }
}

impl From<LogError> for Ended {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Refused { .. } => Self::Refused(error.to_string()),
            LogError::Broken(_) | LogError::Malformed(_) => Self::Broken,
        }
    }
}

impl Witness {
    fn new(witnesses: &Arc<Witnesses>, cluster: &Arc<str>, id: BackendId, address: Address) -> Self {
        let (witnesses, cluster) = (Arc::clone(witnesses), Arc::clone(cluster));
        Self { witnesses, cluster, id, address, marks: Marks::default(), log: None, warned: false }
    }

    fn spawn(self) -> DropGuard {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (witnesses, id) = (Arc::clone(&self.witnesses), self.id);
        tokio::spawn(async move {
            stopped.run_until_cancelled(self.run()).await;
            witnesses.set_ask(id, None);
        });
        stop.drop_guard()
    }

    async fn run(mut self) {
        loop {
            let ended = self.watch().await;
            self.witnesses.set_ask(self.id, None);
            let Ended::Refused(error) = ended else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            if !self.warned {
                let (cluster, server) = (&self.cluster, &self.address);
                let needs = "exactly_once needs a binary log, and GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* for the \
                     proxy's account";
                tracing::warn!(%cluster, %server, error, needs, "no verdicts by this server");
                self.warned = true;
            }
            tokio::time::sleep(REFUSED_AGAIN).await;
        }
    }

    /// Watches the server for as long as a connection to it lasts.
    async fn watch(&mut self) -> Ended {
        let access = self.witnesses.access();
        let opened = tokio::time::timeout(ANSWER_TIME, Link::open(&self.address, &access)).await;
        let Ok(Some(mut link)) = opened else { return Ended::Broken };
        match self.attend(&mut link, &access).await {
            Ok(()) => Ended::Broken,
            Err(ended) => ended,
        }
    }

    async fn attend(&mut self, link: &mut Link, access: &Access) -> Result<(), Ended> {
        let uuid = link.one("SELECT @@global.server_uuid").await?;
        self.mark(link, &uuid).await?;
        // May all be asked, and the log be read? Its end is as good as any place.
        link.query(RELAYS).await?;
        link.alive(&[link.thread]).await?;
        let reader = Link::reader(&self.address, access).await.ok_or(Ended::Broken)?;
        if let Some(mark) = self.marks.before(Instant::now()) {
            reader.read(mark, HashSet::new()).await?;
        }
        let mut reader = Link::reader(&self.address, access).await;
        self.warned = false;
        let _watched = metrics::witness(&self.cluster);
        let (ask, mut questions) = mpsc::channel(QUESTIONS_MAX);
        self.witnesses.set_ask(self.id, Some(ask));
        loop {
            tokio::select! {
                question = questions.recv() => {
                    let mut all: Vec<Question> = question.into_iter().collect();
                    while let Ok(another) = questions.try_recv() {
                        all.push(another);
                    }
                    if reader.is_none() {
                        reader = Link::reader(&self.address, access).await;
                    }
                    self.answer(link, reader.take().ok_or(Ended::Broken)?, all).await?;
                    reader = Link::reader(&self.address, access).await;
                }
                // A server says nothing unasked but why it closes.
                _ = link.channel.fill() => return Ok(()),
                () = tokio::time::sleep(TICK) => self.mark(link, &uuid).await?,
            }
        }
    }

    /// Notes where the log stands.
    async fn mark(&mut self, link: &mut Link, uuid: &str) -> Result<(), Ended> {
        let rows = link.either("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS").await?;
        let (file, position) = (text(&rows, 0, 0), text(&rows, 0, 1).parse::<u64>());
        let Ok(position) = position else { return Err(Ended::Refused("log_bin=OFF".to_owned())) };
        let executed = text(&rows, 0, 4);
        if !self.goes_on(uuid, &executed) {
            self.marks.clear();
        }
        self.marks.note(Instant::now(), Mark { file: file.into(), position });
        self.log = Some((uuid.to_owned(), executed));
        Ok(())
    }

    /// Is it the log that was marked last? One that was reset is another, whatever its files are called.
    fn goes_on(&self, uuid: &str, executed: &str) -> bool {
        let Some((ours, before)) = &self.log else { return true };
        let sets = (executed.parse::<GtidSet>(), before.parse::<GtidSet>());
        ours == uuid && (executed == before || matches!(sets, (Ok(now), Ok(before)) if now.contains(&before)))
    }

    async fn answer(&mut self, link: &mut Link, reader: Link, questions: Vec<Question>) -> Result<(), Ended> {
        let parallel =
            "SELECT @@global.gtid_executed, @@global.NAME_parallel_workers, @@global.NAME_preserve_commit_order";
        let names = ["replica", "slave"].map(|name| parallel.replace("NAME", name));
        let rows = link.either(&names[0], &names[1]).await?;
        let executed = text(&rows, 0, 0);
        if !self.log.as_ref().is_some_and(|(uuid, _)| self.goes_on(uuid, &executed)) {
            self.marks.clear();
        }
        let executed: Arc<GtidSet> = Arc::new(executed.parse().map_err(|_| Ended::Broken)?);
        let ordered = text(&rows, 0, 2) == "1" || matches!(text(&rows, 0, 1).as_str(), "0" | "1");
        let relay = relay(&link.query(RELAYS).await?, &executed);
        let own: Vec<u32> = questions.iter().filter(|asked| asked.own).map(|asked| asked.thread).collect();
        let alive = link.alive(&own).await?;
        let begins =
            questions.iter().map(|asked| asked.began).filter(|began| self.marks.before(*began).is_some()).min();
        let read = match begins.and_then(|began| self.marks.before(began)) {
            // Purged, most likely: it can't be known any more.
            Some(mark) => match reader.read(mark, questions.iter().map(Question::stamp).collect()).await {
                Err(LogError::Refused { code, message }) => {
                    tracing::warn!(cluster = %self.cluster, server = %self.address, code, message, "no verdict by its log");
                    Read::default()
                }
                read => read?,
            },
            None => Read::default(),
        };
        for asked in questions {
            let looked = match read.stamps.get(&asked.stamp()) {
                _ if self.marks.before(asked.began).is_none() => Looked::Unmarked,
                None => Looked::Unmarked,
                Some(_) if asked.own && !read.started && alive.contains(&asked.thread) => Looked::Alive,
                Some(written) => {
                    let last: Last = if asked.own { written.before_start } else { written.last };
                    let ordered = ordered || asked.own;
                    Looked::Seen(Seen { executed: Arc::clone(&executed), relay, ordered, last })
                }
            };
            // Whoever does not wait any more needs no answer.
            drop(asked.answer.send(looked));
        }
        Ok(())
    }
}

impl Question {
    fn stamp(&self) -> Stamp {
        (self.server_id, self.committed_us)
    }
}

/// What is to be applied of what was received.
fn relay(rows: &Rows, executed: &GtidSet) -> Relay {
    let mut relay = Relay::Empty;
    for row in 0..rows.len() {
        let received = text(rows, row, 0).parse::<GtidSet>();
        if received.is_ok_and(|received| executed.contains(&received)) {
            continue;
        }
        match text(rows, row, 1).as_str() {
            "ON" => return Relay::Applies,
            _ => relay = Relay::Stands,
        }
    }
    relay
}

fn text(rows: &Rows, row: usize, column: usize) -> String {
    let value = rows.get(row).and_then(|row| row.get(column)?.as_ref());
    value.map_or_else(String::new, |value| String::from_utf8_lossy(value).into_owned())
}

/// A connection of the proxy's own.
struct Link {
    channel: Channel,
    capabilities: Capabilities,
    thread: u32,
}

impl Link {
    async fn open(address: &Address, access: &Access) -> Option<Self> {
        let target =
            ConnectTarget { address: address.clone(), tls: Arc::clone(&access.tls), connect_timeout: access.timeout };
        let login = LoginRequest::own(&access.user, &access.credential);
        let connected = connect(&target, &login).await.ok()?;
        let (channel, capabilities) = (connected.channel, connected.capabilities);
        let mut link = Self { channel, capabilities, thread: connected.thread_id };
        link.query(PATIENCE).await.ok()?;
        Some(link)
    }

    /// One to read the log with.
    async fn reader(address: &Address, access: &Access) -> Option<Self> {
        let opening = async {
            let mut link = Self::open(address, access).await?;
            link.query(log::PREPARE).await.ok()?;
            Some(link)
        };
        tokio::time::timeout(ANSWER_TIME, opening).await.ok().flatten()
    }

    async fn query(&mut self, sql: &str) -> Result<Rows, QueryError> {
        let answer = query_text(&mut self.channel, self.capabilities, sql, ANSWER_MAX);
        tokio::time::timeout(ANSWER_TIME, answer).await.unwrap_or(Err(QueryError::Protocol("no answer in time")))
    }

    async fn one(&mut self, sql: &str) -> Result<String, QueryError> {
        self.query(sql).await.map(|rows| text(&rows, 0, 0))
    }

    /// Asks in today's words, and in yesterday's where those are not understood.
    async fn either(&mut self, today: &str, yesterday: &str) -> Result<Rows, QueryError> {
        match self.query(today).await {
            Err(QueryError::Server { code, .. }) if OLDER.contains(&code) => self.query(yesterday).await,
            answer => answer,
        }
    }

    /// Which of these connections there are.
    async fn alive(&mut self, threads: &[u32]) -> Result<HashSet<u32>, QueryError> {
        if threads.is_empty() {
            return Ok(HashSet::new());
        }
        let list: Vec<String> = threads.iter().map(u32::to_string).collect();
        let table = "performance_schema.threads";
        let sql = format!("SELECT PROCESSLIST_ID FROM {table} WHERE PROCESSLIST_ID IN ({})", list.join(","));
        let rows = self.query(&sql).await?;
        Ok((0..rows.len()).filter_map(|row| text(&rows, row, 0).parse().ok()).collect())
    }

    async fn read(mut self, mark: &Mark, stamps: HashSet<Stamp>) -> Result<Read, LogError> {
        let read = log::read(&mut self.channel, mark, stamps.into_iter());
        let late = || LogError::Broken(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(READ_TIME, read).await.unwrap_or_else(|_| Err(late()))
    }
}
