//! A mysqld as far as the simulation needs one: connections with their state, a table `t (c INT, n INT)`, and the little SQL
//! that the clients and the proxy speak. What it commits, the cluster decides ([`super::cluster`]).

mod sql;

pub use sql::PADDING;
use sql::statement;

use super::packets::{self, Changes};
use super::world::{Event, Time, World};
use bytes::BytesMut;
use holdfast::topology::report::MemberState;
use holdfast::types::{GtidSet, Gtids};
use holdfast::wire::packet::HEADER;
use holdfast::wire::session_track::{STATUS_AUTOCOMMIT, STATUS_IN_TRANS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A client and its number.
pub type Row = (usize, u64);
pub type TxnId = usize;

/// A transaction that has its GTID.
pub struct Txn {
    pub gtid: GtidSet,
    pub text: String,
    /// The server it was committed on first, and when it says it was, if it was marked.
    pub origin: usize,
    pub stamp: Option<u64>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Up,
    Frozen,
    Down,
}

/// What a member sees of its group.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub id: u64,
    pub members: Vec<(usize, MemberState, bool)>,
}

/// A commit that waits for its cluster.
pub struct Pending {
    pub thread: u32,
    pub rows: Vec<Row>,
    pub stamp: Option<u64>,
    /// Set once it has a GTID.
    pub txn: Option<TxnId>,
}

pub struct Conn {
    pub link: usize,
    deprecate_eof: bool,
    open: Option<Vec<Row>>,
    /// How many rows there were when its transaction counted them first: REPEATABLE READ.
    counted: Option<usize>,
    read_only: bool,
    time_zone: String,
    autocommit: bool,
    /// original_commit_timestamp of the next transaction.
    pub stamp: Option<u64>,
    tracks: bool,
    temporary: bool,
    /// BEGIN waits for the commit of the transaction before.
    begins: bool,
    /// SET autocommit=1 waits for it.
    turns_on: bool,
    prepared: BTreeMap<u32, String>,
    queue: VecDeque<BytesMut>,
    busy: bool,
}

pub struct Server {
    pub life: Life,
    pub read_only: bool,
    /// Since when the others have not heard of it.
    pub silent_since: Option<Time>,
    /// Since when they do again.
    pub back_since: Time,
    pub peers_cut: bool,
    pub proxy_cut: bool,
    pub lag: (u64, u64),
    pub view: View,
    pub source: Option<usize>,
    pub rows: BTreeMap<usize, Vec<u64>>,
    pub has: BTreeSet<TxnId>,
    pub gtids: Arc<Gtids>,
    pub received: VecDeque<TxnId>,
    pub ever_received: GtidSet,
    pub binlog: Vec<TxnId>,
    pub commits: Vec<Pending>,
    pub conns: BTreeMap<u32, Conn>,
    next_thread: u32,
}

impl Server {
    pub fn new() -> Self {
        Self {
            life: Life::Up,
            read_only: true,
            silent_since: None,
            back_since: 0,
            peers_cut: false,
            proxy_cut: false,
            lag: (100, 3_000),
            view: View::default(),
            source: None,
            rows: BTreeMap::new(),
            has: BTreeSet::new(),
            gtids: Arc::new(Gtids::MySql(GtidSet::default())),
            received: VecDeque::new(),
            ever_received: GtidSet::default(),
            binlog: Vec::new(),
            commits: Vec::new(),
            conns: BTreeMap::new(),
            next_thread: 10,
        }
    }

    /// Do its peers hear it?
    pub fn is_well(&self) -> bool {
        self.life == Life::Up && !self.peers_cut
    }

    pub fn connect(&mut self, link: usize, deprecate_eof: bool) -> u32 {
        self.next_thread += 1;
        let conn = Conn {
            link,
            deprecate_eof,
            open: None,
            counted: None,
            read_only: false,
            time_zone: "SYSTEM".to_owned(),
            autocommit: true,
            stamp: None,
            tracks: false,
            temporary: false,
            begins: false,
            turns_on: false,
            prepared: BTreeMap::new(),
            queue: VecDeque::new(),
            busy: false,
        };
        self.conns.insert(self.next_thread, conn);
        self.next_thread
    }

    /// Makes a transaction's rows visible.
    pub fn apply(&mut self, id: TxnId, txn: &Txn) {
        if !self.has.insert(id) {
            return;
        }
        for (client, n) in &txn.rows {
            self.rows.entry(*client).or_default().push(*n);
        }
        if !self.binlog.contains(&id) {
            self.binlog.push(id);
        }
        if let Gtids::MySql(all) = &*self.gtids {
            self.gtids = Arc::new(Gtids::MySql(all.union(&txn.gtid)));
        }
    }

    pub fn executed(&self) -> GtidSet {
        match &*self.gtids {
            Gtids::MySql(all) => all.clone(),
            Gtids::MariaDb(_) => GtidSet::default(),
        }
    }
}

impl Conn {
    fn status(&self) -> u16 {
        let open = if self.open.is_some() { STATUS_IN_TRANS } else { 0 };
        let auto = if self.autocommit { STATUS_AUTOCOMMIT } else { 0 };
        open | auto
    }

    fn ok(&self, rows: u64, changes: &Changes) -> BytesMut {
        packets::ok(rows, 0, self.status(), changes)
    }

    fn rows(&self, values: &[Option<String>]) -> BytesMut {
        packets::rows(values, self.status(), self.deprecate_eof)
    }
}

/// Bytes of a client have arrived: whole packets, run one after the other.
pub fn take(w: &mut World, server: usize, thread: u32, mut bytes: BytesMut) {
    let Some(conn) = w.servers[server].conns.get_mut(&thread) else { return };
    while !bytes.is_empty() {
        let end = HEADER + u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
        conn.queue.push_back(bytes.split_to(end));
    }
    run(w, server, thread);
}

/// Runs what waits on a connection.
fn run(w: &mut World, server: usize, thread: u32) {
    loop {
        let Some(conn) = w.servers[server].conns.get_mut(&thread) else { return };
        if conn.busy {
            return;
        }
        let Some(packet) = conn.queue.pop_front() else { return };
        if let Some(answer) = command(w, server, thread, &packet[HEADER..]) {
            say(w, server, thread, &answer);
        }
    }
}

/// Sends an answer, whole as far as the server is concerned.
fn say(w: &mut World, server: usize, thread: u32, answer: &[u8]) {
    if let Some(conn) = w.servers[server].conns.get(&thread) {
        let link = conn.link;
        w.send_to_proxy(link, answer);
    }
}

/// A commit has ended: `Ok` with its GTID, if it has one.
pub fn committed(w: &mut World, server: usize, thread: u32, txn: Result<Option<TxnId>, BytesMut>) {
    let text = txn.as_ref().ok().copied().flatten().map(|id| (w.txns[id].text.clone(), w.txns[id].rows.len() as u64));
    let Some(conn) = w.servers[server].conns.get_mut(&thread) else { return };
    let in_transaction = conn.open.take().is_some();
    (conn.busy, conn.counted) = (false, None);
    if std::mem::take(&mut conn.begins) && txn.is_ok() {
        (conn.open, conn.read_only) = (Some(Vec::new()), false);
    }
    let answer = match txn {
        Err(refusal) => refusal,
        Ok(_) => {
            let mut changes = Changes::default();
            if std::mem::take(&mut conn.turns_on) {
                changes.variable("autocommit", "ON");
            }
            let rows = text.as_ref().map_or(0, |(_, rows)| *rows);
            if let Some((gtid, _)) = text.filter(|_| conn.tracks) {
                changes.gtids(&gtid);
            }
            conn.ok(if in_transaction { 0 } else { rows }, &changes)
        }
    };
    say(w, server, thread, &answer);
    run(w, server, thread);
}

fn command(w: &mut World, server: usize, thread: u32, payload: &[u8]) -> Option<BytesMut> {
    let text = String::from_utf8_lossy(&payload[1..]).into_owned();
    let conn = w.servers[server].conns.get_mut(&thread)?;
    match payload[0] {
        0x03 => statement(w, server, thread, &text),
        0x0E => Some(conn.ok(0, &Changes::default())),
        0x16 => {
            // Ids differ between servers, so that one that is not translated is found out.
            let id = conn.prepared.len() as u32 + 1 + 100 * (server as u32 + 1);
            conn.prepared.insert(id, text);
            Some(packets::prepared(id))
        }
        0x17 => {
            let id = u32::from_le_bytes([payload[1], payload[2], payload[3], payload[4]]);
            match conn.prepared.get(&id).cloned() {
                Some(sql) => statement(w, server, thread, &sql),
                None => Some(packets::err(1243, b"HY000", "Unknown prepared statement handler")),
            }
        }
        other => Some(packets::err(1047, b"08S01", &format!("unknown command {other}"))),
    }
}

/// Somebody waits for GTIDs: has the server them, or is their time over?
pub fn look_at_wait(w: &mut World, server: usize, thread: u32, set: String, until: Time) {
    let here = w.servers[server].executed();
    let has = set.parse::<GtidSet>().is_ok_and(|set| here.contains(&set));
    if !has && w.now < until {
        return w.at(w.now + 2_000, Event::Await { server, thread, set, until });
    }
    let Some(conn) = w.servers[server].conns.get_mut(&thread) else { return };
    conn.busy = false;
    let answer = conn.rows(&[Some(if has { "0" } else { "1" }.to_owned())]);
    say(w, server, thread, &answer);
    run(w, server, thread);
}
