//! Lanes: what makes the fate of a lost COMMIT knowable.
//!
//! A lane is a GTID tag that one connection at a time writes under (`gtid_next = 'AUTOMATIC:<tag>'`, MySQL 8.3 and later).
//! All that was ever committed on it is known: what stood there when the connection took it, and what the server has told
//! since (`session_track_gtids`). When the answer to a COMMIT is lost, a GTID more in the new primary's set proves that it
//! was committed, and none more that it never will be.
//!
//! ```text
//!   free ──take: what stands there is asked of the primary──► leased ──answered, connection dropped──► free
//!    ▲                                                          │
//!    │                                                          ├─ answer lost, verdict found ──► free
//!    └── the server has no such connection any more ── parked ◄─┴─ answer lost, nobody asked
//! ```
//!
//! **Whose a lane is.** Tags come in blocks. A proxy owns a block while it holds the block's named lock (`GET_LOCK`, which
//! is no part of replication) on the servers of the cluster: [`super::claims`]. It uses the block only while it holds the
//! lock on the primary and on every follower that answers; so somebody else who has the lock on one of them cannot. A
//! verdict counts only on a server where our lock is older than the statement: nobody else has written on the lane since.
//! Proxies that come and go use the same few blocks again: the tags in `gtid_executed` are as many as the connections that
//! ever wrote at the same time.

use super::claims::{Looked, Question};
use super::verdict::{LaneRecord, Verdict};
use crate::accounts::Credential;
use crate::tls::BackendTls;
use crate::types::{BackendId, GtidSet};
use arc_swap::ArcSwap;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Lanes of a block. All proxies must agree on it.
pub const BLOCK: u16 = 256;

/// Why a connection gets no lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLane {
    /// The servers have not let us claim a block yet.
    #[error("no lanes are claimed on the servers")]
    NotClaimed,
    /// More connections write at the same time than a block has lanes.
    #[error("all {BLOCK} lanes are taken")]
    AllTaken,
}

/// The proxy's own way to the servers.
pub struct Access {
    /// Account name.
    pub user: Vec<u8>,
    /// Its password.
    pub credential: Credential,
    /// TLS towards the servers.
    pub tls: Arc<BackendTls>,
    /// Limit for a connection.
    pub timeout: Duration,
}

/// The lanes of one cluster.
pub struct Lanes {
    access: ArcSwap<Access>,
    state: Mutex<State>,
    /// Raised by the first who needs lanes: nothing is claimed before.
    wanted: watch::Sender<bool>,
    /// Counts changes of what is claimed.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Whose lock is tried, or held.
    block: u32,
    /// Nobody waits for a claim any more, until there is one: somebody has waited in vain.
    in_vain: bool,
    /// Servers on which the block's lock is somebody else's.
    contested: HashSet<BackendId>,
    /// Grows whenever the lock on a server that we wrote on was lost: leases from before are no good.
    generation: u64,
    /// The primary on which lanes may be taken: the block's lock is held there and on every follower that answers.
    usable: Option<BackendId>,
    claims: HashMap<BackendId, Claim>,
    taken: BTreeSet<(u32, u16)>,
    parked: Vec<Parked>,
}

/// One server's lock.
pub(super) struct Claim {
    /// Since when we hold it without a break.
    pub(super) since: Option<Instant>,
    pub(super) ask: mpsc::Sender<Question>,
}

/// A lane whose last statement may still be under way.
#[derive(Clone, Copy, Debug)]
struct Parked {
    lane: (u32, u16),
    backend: BackendId,
    thread: u32,
}

impl Lanes {
    /// No lanes yet.
    pub fn new(access: Access) -> Arc<Self> {
        Arc::new(Self {
            access: ArcSwap::from_pointee(access),
            state: Mutex::default(),
            wanted: watch::Sender::new(false),
            changed: watch::Sender::new(0),
        })
    }

    /// Takes over another account or other certificates for connections from now on.
    pub fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    pub(super) fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Waits until somebody needs lanes. Cancel safe.
    pub(super) async fn wanted(&self) {
        // Fails only when the sender is gone, which is ours.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// A lane for the connection `thread` to `backend`, the primary; waits at most `limit` for a block to be claimed.
    pub async fn take(self: &Arc<Self>, backend: BackendId, thread: u32, limit: Duration) -> Result<Lease, NoLane> {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        let mut changed = self.changed.subscribe();
        let usable = async {
            while self.is_worth_waiting(backend) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let until = Instant::now() + limit;
        if tokio::time::timeout_at(until.into(), usable).await.is_err() {
            self.lock().in_vain = true;
        }
        let (mut lease, ask) = self.reserve(backend, thread)?;
        let looked = tokio::time::timeout_at(until.into(), ask_for(&ask, Question::Look)).await;
        let looked = looked.ok().flatten().ok_or(NoLane::NotClaimed)?;
        if !looked.ours || !lease.is_good() {
            return Err(NoLane::NotClaimed);
        }
        lease.record = LaneRecord::new(lease.tag().into(), &looked.stands);
        Ok(lease)
    }

    fn is_worth_waiting(&self, backend: BackendId) -> bool {
        let state = self.lock();
        state.usable != Some(backend) && !state.in_vain
    }

    fn reserve(self: &Arc<Self>, backend: BackendId, thread: u32) -> Result<(Lease, mpsc::Sender<Question>), NoLane> {
        let mut state = self.lock();
        let claim = state.claims.get(&backend).filter(|claim| claim.since.is_some());
        let ask = claim.filter(|_| state.usable == Some(backend)).map(|claim| claim.ask.clone());
        let ask = ask.ok_or(NoLane::NotClaimed)?;
        let (block, generation) = (state.block, state.generation);
        let free = (0..BLOCK).map(|index| (block, index)).find(|lane| !state.taken.contains(lane));
        let lane = free.ok_or(NoLane::AllTaken)?;
        state.taken.insert(lane);
        let record = LaneRecord::new(format!("holdfast_{block}_{}", lane.1).into(), &GtidSet::default());
        let lanes = Arc::clone(self);
        Ok((Lease { lanes, lane, record, generation, backend, thread, under_way: None }, ask))
    }

    /// What stands on `backend` now, asked after this call began; `None` if it can't be asked, or not before `deadline`.
    async fn look(&self, backend: BackendId, deadline: Instant) -> Option<Looked> {
        let ask = self.lock().claims.get(&backend).map(|claim| claim.ask.clone())?;
        tokio::time::timeout_at(deadline.into(), ask_for(&ask, Question::Look)).await.ok().flatten()
    }

    /// Which of these connections `backend` still has; `None` if it can't be asked.
    pub(super) async fn alive(&self, backend: BackendId, threads: Vec<u32>) -> Option<Vec<u32>> {
        let ask = self.lock().claims.get(&backend).map(|claim| claim.ask.clone())?;
        ask_for(&ask, |answer| Question::Alive(threads, answer)).await
    }

    /// Notes a server's lock, or that it is lost; `ask`: where its questions go.
    pub(super) fn set_claim(&self, backend: BackendId, claim: Option<Claim>) {
        let mut state = self.lock();
        let before = match claim {
            Some(claim) => state.claims.insert(backend, claim),
            None => state.claims.remove(&backend),
        };
        let lost = before.is_some_and(|claim| claim.since.is_some());
        if lost && state.usable == Some(backend) {
            state.usable = None;
            state.generation += 1;
        }
        state.contested.remove(&backend);
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// The lock on a server is somebody else's.
    pub(super) fn set_contested(&self, backend: BackendId) {
        self.lock().contested.insert(backend);
    }

    /// Is one of these servers' locks somebody else's?
    pub(super) fn is_contested(&self, mut among: impl Iterator<Item = BackendId>) -> bool {
        let state = self.lock();
        among.any(|server| state.contested.contains(&server))
    }

    /// Has no connection a lane of the block that is ours, or may still write on one?
    pub(super) fn is_unused(&self) -> bool {
        let state = self.lock();
        !state.taken.iter().any(|(block, _)| *block == state.block)
    }

    /// The servers whose lock is held.
    pub(super) fn held(&self) -> Vec<BackendId> {
        let state = self.lock();
        state.claims.iter().filter(|(_, claim)| claim.since.is_some()).map(|(id, _)| *id).collect()
    }

    /// The primary to which connections may have lanes.
    pub(super) fn usable(&self) -> Option<BackendId> {
        self.lock().usable
    }

    /// From now on connections to `primary` may have lanes; `None`: none may.
    pub(super) fn set_usable(&self, primary: Option<BackendId>) {
        let mut state = self.lock();
        if state.usable != primary {
            state.usable = primary;
            state.in_vain &= primary.is_none();
            drop(state);
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Turns to another block. Not while the old one [`Self::is_unused`] is false: its locks are given up.
    pub(super) fn set_block(&self, block: u32) {
        let mut state = self.lock();
        state.block = block;
        state.contested.clear();
        state.usable = None;
        state.generation += 1;
    }

    /// The parked lanes' servers and connections.
    pub(super) fn parked(&self) -> HashMap<BackendId, Vec<u32>> {
        let mut parked: HashMap<BackendId, Vec<u32>> = HashMap::new();
        for lane in &self.lock().parked {
            parked.entry(lane.backend).or_default().push(lane.thread);
        }
        parked
    }

    /// Frees the lanes that were parked for connections of `backend` which are not in `alive`.
    pub(super) fn unpark(&self, backend: BackendId, alive: &[u32]) {
        let mut state = self.lock();
        let gone = |lane: &Parked| lane.backend == backend && !alive.contains(&lane.thread);
        let freed: Vec<(u32, u16)> = state.parked.iter().filter(|lane| gone(lane)).map(|parked| parked.lane).collect();
        state.parked.retain(|lane| !gone(lane));
        for lane in freed {
            state.taken.remove(&lane);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask_for<T>(ask: &mpsc::Sender<Question>, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    ask.send(question(answer)).await.ok()?;
    answered.await.ok()
}

/// A lane that one connection has.
pub struct Lease {
    lanes: Arc<Lanes>,
    /// Block and number.
    lane: (u32, u16),
    /// What was ever committed on it.
    record: LaneRecord,
    generation: u64,
    backend: BackendId,
    thread: u32,
    /// Since when something is under way that may be committed on it.
    under_way: Option<Instant>,
}

impl Lease {
    /// The GTID tag.
    pub fn tag(&self) -> &str {
        self.record.tag()
    }

    /// Is the lane still ours alone?
    pub fn is_good(&self) -> bool {
        self.lanes.lock().generation == self.generation
    }

    /// Something is sent that may be committed.
    pub fn begin(&mut self) {
        self.under_way.get_or_insert_with(Instant::now);
    }

    /// It was answered, with these commits (GTID sets as text).
    pub fn answered(&mut self, committed: &[Box<[u8]>]) {
        self.record.told(committed);
        self.under_way = None;
    }

    /// What became of what is under way, now that `primary` is the primary: by what stands there. Where that is the server
    /// it was sent to, its connection must have ended there, which is waited for until `deadline`.
    pub async fn verdict(mut self, primary: BackendId, deadline: Instant) -> Verdict {
        let Some(began) = self.under_way else { return Verdict::NotCommitted };
        if primary == self.backend {
            loop {
                let alive = self.lanes.alive(self.backend, vec![self.thread]);
                match tokio::time::timeout_at(deadline.into(), alive).await.ok().flatten() {
                    Some(alive) if alive.is_empty() => break,
                    None => return Verdict::Unknown("the server does not say which connections it has"),
                    Some(_) if Instant::now() >= deadline => {
                        return Verdict::Unknown("the statement is still under way");
                    }
                    Some(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        }
        let (looked, verdict) = loop {
            let Some(looked) = self.lanes.look(primary, deadline).await else {
                return Verdict::Unknown("the new primary can't be asked");
            };
            // Received in another way than its group's, it is applied or thrown away: who knows.
            if let Some(verdict) = self.record.verdict(&looked.stands, &looked.received) {
                break (looked, verdict);
            }
            if Instant::now() >= deadline {
                return Verdict::Unknown("the new primary has received it and not applied it");
            }
            tokio::time::sleep(AGAIN).await;
        };
        if !looked.ours || looked.since > began {
            return Verdict::Unknown("the lane may have been somebody else's meanwhile");
        }
        if !self.is_good() && primary == self.backend {
            return Verdict::Unknown("the lane may have been somebody else's meanwhile");
        }
        self.under_way = None;
        verdict
    }
}

/// How long between two looks for a connection that has not ended yet.
const AGAIN: Duration = Duration::from_millis(5);

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.lanes.lock();
        match self.under_way {
            None => drop(state.taken.remove(&self.lane)),
            Some(_) => state.parked.push(Parked { lane: self.lane, backend: self.backend, thread: self.thread }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::BackendTls;

    const PRIMARY: BackendId = BackendId(1);

    fn claimed() -> Arc<Lanes> {
        let access = Access {
            user: Vec::new(),
            credential: Credential::default(),
            tls: Arc::new(BackendTls::disabled()),
            timeout: Duration::ZERO,
        };
        let lanes = Lanes::new(access);
        claim(&lanes, PRIMARY);
        lanes.set_usable(Some(PRIMARY));
        lanes
    }

    fn claim(lanes: &Lanes, server: BackendId) {
        lanes.set_claim(server, Some(Claim { since: Some(Instant::now()), ask: mpsc::channel(1).0 }));
    }

    fn lease(lanes: &Arc<Lanes>, thread: u32) -> Lease {
        lanes.reserve(PRIMARY, thread).map(|(lease, _)| lease).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_lowest_free_lane_is_taken_and_only_when_its_last_statement_was_answered() {
        let lanes = claimed();
        let (first, mut second) = (lease(&lanes, 11), lease(&lanes, 12));
        assert_eq!((first.tag(), second.tag()), ("holdfast_0_0", "holdfast_0_1"));
        drop(first);
        assert_eq!(lease(&lanes, 13).tag(), "holdfast_0_0", "given back at once");
        second.begin();
        drop(second);
        let others: Vec<Lease> = (0..2).map(|thread| lease(&lanes, thread)).collect();
        assert_eq!(others[1].tag(), "holdfast_0_2", "something may still be committed on the one between");
        lanes.unpark(PRIMARY, &[12]);
        lanes.unpark(BackendId(2), &[]);
        assert_eq!(lease(&lanes, 14).tag(), "holdfast_0_3");
        lanes.unpark(PRIMARY, &[]);
        assert_eq!(lease(&lanes, 14).tag(), "holdfast_0_1", "its connection is gone");
    }

    #[test]
    fn a_block_has_so_many_lanes_and_no_more() {
        let lanes = claimed();
        let all: Vec<Lease> = (0..u32::from(BLOCK)).map(|thread| lease(&lanes, thread)).collect();
        assert_eq!(lanes.reserve(PRIMARY, 0).err(), Some(NoLane::AllTaken));
        drop(all);
        lease(&lanes, 0);
    }

    #[test]
    fn a_lane_is_good_for_as_long_as_the_lock_on_the_primary_is_held() {
        let lanes = claimed();
        let other = BackendId(2);
        claim(&lanes, other);
        let kept = lease(&lanes, 1);
        lanes.set_claim(other, None);
        assert!(kept.is_good(), "nobody writes on that server");
        lanes.set_claim(PRIMARY, None);
        assert!(!kept.is_good());
        assert_eq!(lanes.reserve(PRIMARY, 0).err(), Some(NoLane::NotClaimed));
        claim(&lanes, PRIMARY);
        lanes.set_usable(Some(PRIMARY));
        let again = lease(&lanes, 1);
        assert!(again.is_good());
        lanes.set_block(1);
        assert!(!again.is_good(), "another block");
    }
}
