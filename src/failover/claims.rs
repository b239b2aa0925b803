//! Owning lanes on the servers: one connection per server that holds the block's named lock, and looks at what was committed.
//!
//! ```text
//!   nobody needs lanes ──► a task per server: connect ──► GET_LOCK(block) ──held──► questions are answered
//!                                 ▲                          │ somebody else's                │ connection ended
//!                                 └──────────────────────────┴──────── again, after a while ◄─┘
//! ```
//!
//! The coordinator says which block: another one when a lock stays somebody else's, and none of ours is in use. Lanes may be
//! taken while the lock is held on the primary and on all followers that answer.

use super::lanes::{Access, Claim, Lanes};
use crate::backend::{ConnectTarget, LoginRequest, connect, query_text};
use crate::topology::TopologyHandle;
use crate::transport::Channel;
use crate::types::{Address, BackendId, GtidSet};
use crate::wire::capabilities::Capabilities;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Blocks there may be: as many proxies can have lanes in front of one cluster.
const BLOCKS: u32 = 64;
/// A lock that is somebody else's, or a server that can't be reached, is tried again after this.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the claims are compared with what is needed; changes of the topology are looked at once.
const TICK: Duration = Duration::from_millis(250);
/// How long a lock may be somebody else's before another block is tried: a proxy that has just ended has its for a moment.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions that may wait for a server.
const QUESTIONS_MAX: usize = 4096;
/// Longest answer, bytes: `gtid_executed` is most of it.
const ANSWER_MAX: usize = 1 << 20;
/// `program_name` = `holdfast`.
const ATTRIBUTES: &[u8] = b"\x0cprogram_name\x08holdfast";
/// utf8mb4_general_ci.
const COLLATION: u16 = 45;

/// The connection is to outlive the server's patience with idle ones.
const PREPARE: &str = "SET SESSION wait_timeout=2592000";

/// What was committed, and whether the lock is ours; what was received: of the group, which has decided on it, and otherwise.
const LOOK: &str = "SELECT 'executed', @@global.gtid_executed, COALESCE(IS_USED_LOCK('{LOCK}') = CONNECTION_ID(), 0) \
     UNION ALL SELECT IF(channel_name = 'group_replication_applier', 'decided', 'received'), received_transaction_set, NULL \
     FROM performance_schema.replication_connection_status";
/// Limit for an answer: a connection that takes longer is given up, and with it the lock.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How often an idle connection is asked whether the lock is still ours.
const PING: Duration = Duration::from_secs(5);

/// What a server is asked.
pub(super) enum Question {
    /// What stands there.
    Look(oneshot::Sender<Looked>),
    /// Which of these connections it still has.
    Alive(Vec<u32>, oneshot::Sender<Vec<u32>>),
}

/// What stands on a server.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    /// Every transaction that is committed there, or decided on by its group.
    pub stands: Arc<GtidSet>,
    /// What came by replication from another server; all of it may be applied, or not yet.
    pub received: Arc<GtidSet>,
    /// The block's lock is ours.
    pub ours: bool,
    /// Since when, without a break.
    pub since: Instant,
}

/// Claims a block of lanes on the servers of one cluster until `stop`, from the moment somebody needs one.
pub async fn run(lanes: Arc<Lanes>, topology: TopologyHandle, stop: CancellationToken) {
    let claiming = async {
        lanes.wanted().await;
        tokio::join!(look_after_parked(Arc::clone(&lanes)), Coordinator::new(lanes, topology).run());
    };
    stop.run_until_cancelled(claiming).await;
}

struct Coordinator {
    lanes: Arc<Lanes>,
    topology: TopologyHandle,
    block: watch::Sender<u32>,
    holders: HashMap<BackendId, (Address, DropGuard)>,
    /// Since when the lock on a server that answers has been somebody else's.
    contested: Option<Instant>,
}

impl Coordinator {
    fn new(lanes: Arc<Lanes>, topology: TopologyHandle) -> Self {
        Self { lanes, topology, block: watch::Sender::new(0), holders: HashMap::new(), contested: None }
    }

    async fn run(mut self) {
        let mut changed = self.topology.changed();
        loop {
            self.look_after_holders();
            self.judge();
            tokio::select! {
                news = changed.changed() => if news.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// One task per server of the snapshot.
    fn look_after_holders(&mut self) {
        let topology = self.topology.snapshot();
        let mariadb = |version: &Option<Arc<str>>| version.as_ref().is_some_and(|v| v.contains("MariaDB"));
        self.holders.retain(|id, (address, _)| topology.backend(*id).is_some_and(|b| b.address == *address));
        for server in topology.backends.iter().filter(|server| !mariadb(&server.version)) {
            self.holders.entry(server.id).or_insert_with(|| {
                let (id, address, stop) = (server.id, server.address.clone(), CancellationToken::new());
                let lanes = Arc::clone(&self.lanes);
                let holder = Holder { id, address: address.clone(), lanes, block: self.block.subscribe() };
                let stopped = stop.clone();
                tokio::spawn(async move {
                    let lanes = Arc::clone(&holder.lanes);
                    stopped.run_until_cancelled(holder.run()).await;
                    lanes.set_claim(id, None);
                });
                (address, stop.drop_guard())
            });
        }
    }

    /// May lanes be taken, or is another block to be tried?
    fn judge(&mut self) {
        let topology = self.topology.snapshot();
        let held = self.lanes.held();
        let lacking = |id: BackendId| !held.contains(&id);
        let answering = topology.backends.iter().filter(|server| server.answers);
        let complete = !answering.clone().any(|server| lacking(server.id));
        let primary = topology.primary.filter(|primary| !lacking(*primary));
        // What we have stays good when a server comes back that is not claimed yet.
        let stays = self.lanes.usable() == primary;
        self.lanes.set_usable(primary.filter(|_| complete || stays));
        if !self.lanes.is_contested(answering.map(|server| server.id)) {
            self.contested = None;
            return;
        }
        let since = *self.contested.get_or_insert_with(Instant::now);
        // Whoever gives a block up while connections write under its tags gives them to two at once.
        if since.elapsed() >= PATIENCE && self.lanes.is_unused() {
            self.contested = None;
            let next = (*self.block.borrow() + 1) % BLOCKS;
            self.lanes.set_block(next);
            self.block.send_replace(next);
        }
    }
}

/// Frees lanes whose connection is gone, for ever. Apart from the claims: a server that is slow to say so holds up nothing.
async fn look_after_parked(lanes: Arc<Lanes>) {
    loop {
        for (server, threads) in lanes.parked() {
            let alive = tokio::time::timeout(AGAIN, lanes.alive(server, threads)).await;
            if let Ok(Some(alive)) = alive {
                lanes.unpark(server, &alive);
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// The task of one server.
struct Holder {
    id: BackendId,
    address: Address,
    lanes: Arc<Lanes>,
    block: watch::Receiver<u32>,
}

impl Holder {
    async fn run(mut self) {
        loop {
            if let Some((channel, capabilities)) = open(&self.address, &self.lanes.access()).await {
                let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
                let held = Held { channel, capabilities, questions, ask, since: None };
                self.hold(held).await;
                self.lanes.set_claim(self.id, None);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Serves one connection until it ends.
    async fn hold(&mut self, mut held: Held) -> Option<()> {
        loop {
            if self.block.has_changed().unwrap_or(false) && held.since.take().is_some() {
                self.lanes.set_claim(self.id, None);
                held.query("DO RELEASE_ALL_LOCKS()").await?;
            }
            let lock = lock(*self.block.borrow_and_update());
            if held.since.is_none() {
                let rows = held.query(&format!("SELECT GET_LOCK('{lock}', 0)")).await?;
                if value(&rows, 0, 0) == Some(b"1") {
                    let since = Instant::now();
                    held.since = Some(since);
                    self.lanes.set_claim(self.id, Some(Claim { since: Some(since), ask: held.ask.clone() }));
                } else {
                    self.lanes.set_contested(self.id);
                }
            }
            let again = tokio::time::sleep(if held.since.is_some() { PING } else { AGAIN });
            tokio::select! {
                question = held.questions.recv() => held.answer(question?, &lock).await?,
                // A server says nothing unasked but why it closes.
                _ = held.channel.fill() => return None,
                changed = self.block.changed() => changed.ok()?,
                () = again => held.ping(&lock).await?
            }
        }
    }
}

/// A connection that holds the lock, or tries to.
struct Held {
    channel: Channel,
    capabilities: Capabilities,
    questions: mpsc::Receiver<Question>,
    ask: mpsc::Sender<Question>,
    since: Option<Instant>,
}

impl Held {
    async fn query(&mut self, sql: &str) -> Option<Vec<Vec<Option<Bytes>>>> {
        let answer = query_text(&mut self.channel, self.capabilities, sql, ANSWER_MAX);
        match tokio::time::timeout(ANSWER_TIME, answer).await.ok()? {
            Ok(rows) => Some(rows),
            Err(error) => {
                tracing::warn!(%error, "no verdicts by this server: it does not answer what its lanes need");
                None
            }
        }
    }

    /// Is the lock that we hold still ours, and does the server answer at all? `None`: no.
    async fn ping(&mut self, lock: &str) -> Option<()> {
        if self.since.is_none() {
            return Some(());
        }
        let rows = self.query(&format!("SELECT IS_USED_LOCK('{lock}') = CONNECTION_ID()")).await?;
        (value(&rows, 0, 0) == Some(b"1")).then_some(())
    }

    /// Answers a question, and with it all that wait for the same. Dropping the others' senders says "can't be asked".
    async fn answer(&mut self, question: Question, lock: &str) -> Option<()> {
        let (mut lookers, mut alive) = (Vec::new(), Vec::new());
        let mut next = Some(question);
        while let Some(question) = next {
            match question {
                Question::Look(answer) => lookers.push(answer),
                Question::Alive(threads, answer) => alive.push((threads, answer)),
            }
            next = self.questions.try_recv().ok();
        }
        if !lookers.is_empty() {
            let rows = self.query(&LOOK.replace("{LOCK}", lock)).await?;
            let looked = self.looked(&rows)?;
            for looker in lookers {
                let _ = looker.send(looked.clone());
            }
        }
        for (threads, answer) in alive {
            let list: Vec<String> = threads.iter().map(u32::to_string).collect();
            let sql = format!(
                "SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE PROCESSLIST_ID IN ({})",
                list.join(",")
            );
            let rows = self.query(&sql).await?;
            let ids = rows.iter().filter_map(|row| std::str::from_utf8(row.first()?.as_deref()?).ok()?.parse().ok());
            let _ = answer.send(ids.collect());
        }
        Some(())
    }

    fn looked(&self, rows: &[Vec<Option<Bytes>>]) -> Option<Looked> {
        let (mut stands, mut received) = (GtidSet::default(), GtidSet::default());
        for row in 0..rows.len() {
            let set: GtidSet = std::str::from_utf8(value(rows, row, 1)?).ok()?.parse().ok()?;
            match value(rows, row, 0)? {
                b"received" => received = received.union(&set),
                _ => stands = stands.union(&set),
            }
        }
        let (stands, received) = (Arc::new(stands), Arc::new(received));
        Some(Looked { stands, received, ours: value(rows, 0, 2) == Some(b"1"), since: self.since? })
    }
}

fn value(rows: &[Vec<Option<Bytes>>], row: usize, column: usize) -> Option<&[u8]> {
    rows.get(row)?.get(column)?.as_deref()
}

/// The named lock of a block.
fn lock(block: u32) -> String {
    format!("holdfast.lanes.{block}")
}

async fn open(address: &Address, access: &Access) -> Option<(Channel, Capabilities)> {
    let target =
        ConnectTarget { address: address.clone(), tls: Arc::clone(&access.tls), connect_timeout: access.timeout };
    let login = LoginRequest {
        user: &access.user,
        credential: &access.credential,
        database: None,
        collation: COLLATION,
        capabilities: Capabilities::LOGIN | Capabilities::DEPRECATE_EOF,
        attributes: ATTRIBUTES,
        max_packet_size: 1 << 24,
    };
    let connected = connect(&target, &login).await.ok()?;
    let (mut channel, capabilities) = (connected.channel, connected.capabilities);
    query_text(&mut channel, capabilities, PREPARE, ANSWER_MAX).await.ok()?;
    Some((channel, capabilities))
}
