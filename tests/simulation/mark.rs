//! The shell's marks, and the servers as witnesses: what the session and `failover::witness` do.

use super::server::{Life, Txn, TxnId};
use super::shell::Shell;
use super::world::{Time, World};
use holdfast::classify::Classified;
use holdfast::failover::{Last, Relay, Seen, fate, stamp};
use holdfast::session::Slot;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

impl Shell {
    /// Has the primary tell of commits, and finds out whether they may be marked. False: the connection broke.
    pub async fn ready_marks(&mut self) -> bool {
        if self.slots[0].as_ref().is_none_or(|conn| conn.marks) {
            return true;
        }
        let sql = "SET SESSION session_track_gtids=OWN_GTID, SESSION original_commit_timestamp=DEFAULT";
        if self.statement(Slot::Primary, sql).await.is_err() {
            self.drop_connection(Slot::Primary, true);
            return false;
        }
        if let Some(conn) = self.conn(Slot::Primary) {
            (conn.tracks_gtids, conn.marks) = (true, true);
        }
        true
    }

    pub fn is_traced(&self) -> bool {
        self.w.borrow().setup.exactly_once && self.slots[0].as_ref().is_some_and(|conn| conn.marks)
    }

    /// Is what comes next to be marked?
    pub fn is_knowable(&self, statement: Classified) -> bool {
        self.is_traced() && fate::is_knowable(&self.session, statement, self.session.transaction().is_some())
    }

    /// Marks what is sent to the primary next; answers the statement that does.
    pub fn mark(&mut self) -> Option<String> {
        let now = self.w.borrow().now;
        let thread = self.slots[0].as_ref()?.thread;
        let stamp = stamp(SystemTime::UNIX_EPOCH + Duration::from_micros(now), thread);
        self.marked = Some(stamp);
        Some(format!("SET SESSION original_commit_timestamp={stamp}"))
    }

    pub fn commits_answered(&mut self, committed: &[Box<[u8]>], hides: bool) {
        self.marked = None;
        if let Some(conn) = self.conn(Slot::Primary) {
            conn.trace.answered(committed, hides);
        }
    }

    /// What is to be seen at a server of what `backend` committed with this stamp. `None` if it can't be asked.
    pub async fn look(&mut self, server: usize, backend: usize, stamp: u64, deadline: Time) -> Option<Seen> {
        let delay = self.w.borrow().rng.between(100, 600);
        let (task, w) = (self.task, self.w.clone());
        w.sleep(task, delay).await;
        let deadline = deadline.min(self.w.borrow().now + 5_000_000);
        let looked = w.wait(task, Some(deadline), |world| {
            let host = &world.servers[server];
            match host.life {
                Life::Down => Some(None),
                Life::Frozen => None,
                Life::Up if host.proxy_cut => None,
                Life::Up => Some(Some(seen(world, server, backend, stamp))),
            }
        });
        let looked = looked.await.flatten();
        w.sleep(task, delay).await;
        looked
    }
}

fn seen(world: &World, server: usize, backend: usize, stamp: u64) -> Seen {
    let host = &world.servers[server];
    let marked = |txn: &Txn| txn.origin == backend && txn.stamp == Some(stamp);
    let all = host.has.iter().chain(host.binlog.iter()).copied();
    let last: Option<TxnId> = all.filter(|id| marked(&world.txns[*id])).max();
    let last = last.map_or(Last::None, |id| {
        let (uuid, number) = world.txns[id].text.split_once(':').expect("a GTID");
        Last::Gtid(uuid.parse().expect("a UUID"), number.parse().expect("a number"))
    });
    let relay = if host.received.is_empty() { Relay::Empty } else { Relay::Applies };
    Seen { executed: Arc::new(host.executed()), relay, ordered: true, last }
}
