//! What sessions share: their cluster, and the registry that KILL looks ids up in.

use super::drain::Nudge;
use super::facade::ServerFacade;
use super::logins::{Logins, Turn};
use super::signal::Signal;
use crate::accounts::Credential;
use crate::backend::{ConnectTarget, Counted};
use crate::config::ClusterConfig;
use crate::failover::{Access, Holds, Witnesses};
use crate::routing;
use crate::tls::{BackendTls, SslMode};
use crate::topology::{Backend, Topology, TopologyHandle};
use crate::types::{Address, BackendId, ClusterId, ClusterName, SessionId, Term};
use crate::wire::capabilities::Capabilities;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// A proof of the primary older than this does not carry a statement while there is doubt (milliseconds).
pub const PROOF_AGE_MS_MAX: u64 = 3_000;

/// The proxy's own way to the servers, for verdicts.
fn access(config: &ClusterConfig, tls: &Arc<BackendTls>) -> Access {
    let password = config.account.password.expose().as_bytes().to_vec();
    Access {
        user: config.account.user.clone(),
        credential: Credential::password(Zeroizing::new(password)),
        tls: Arc::clone(tls),
        timeout: config.connect_timeout,
    }
}

/// One cluster as the data path sees it.
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Tells it from another of the same name that came after it.
    pub id: ClusterId,
    /// Raised when it is served no more.
    pub gone: Signal,
    /// Limits and the probing account.
    pub config: ClusterConfig,
    /// Who is primary, who follows.
    pub topology: TopologyHandle,
    /// TLS towards its servers.
    pub tls: Arc<BackendTls>,
    /// Statements that wait for a primary.
    pub holds: Arc<Holds>,
    /// The servers, asked what became of a write.
    pub witnesses: Arc<Witnesses>,
    connections: Arc<Mutex<HashMap<BackendId, Arc<AtomicU32>>>>,
    logins: Logins,
    turn: AtomicUsize,
    probing: CancellationToken,
}

impl Cluster {
    /// A cluster without connections yet; `probing` ends the tasks of `topology`.
    pub fn new(
        config: ClusterConfig,
        topology: TopologyHandle,
        tls: Arc<BackendTls>,
        probing: CancellationToken,
    ) -> Self {
        Self {
            name: config.name.as_str().into(),
            id: ClusterId::next(),
            gone: Signal::new(),
            probing,
            holds: Holds::new(config.hold_statements_max, config.hold_bytes_max),
            witnesses: Witnesses::new(access(&config, &tls)),
            logins: Logins::new(config.backend_logins_max),
            config,
            topology,
            tls,
            connections: Arc::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The same cluster with other settings: topology, hold and counts go on.
    pub fn with_config(&self, config: ClusterConfig, tls: Arc<BackendTls>) -> Self {
        self.witnesses.set_access(access(&config, &tls));
        self.holds.limit(config.hold_statements_max, config.hold_bytes_max);
        Self {
            name: self.name.clone(),
            id: self.id,
            gone: self.gone.clone(),
            probing: self.probing.clone(),
            holds: Arc::clone(&self.holds),
            witnesses: Arc::clone(&self.witnesses),
            topology: self.topology.clone(),
            connections: Arc::clone(&self.connections),
            // The number may be another one now.
            logins: Logins::new(config.backend_logins_max),
            turn: AtomicUsize::new(0),
            config,
            tls,
        }
    }

    /// Ends it: its writer and probers stop, its sessions are told at their next statement.
    pub fn end(&self) {
        self.gone.cancel();
        self.probing.cancel();
    }

    /// What to greet with and how to read statements: as its proven primary greets; none while no server is known.
    pub fn facade(&self) -> Option<ServerFacade> {
        let topology = self.topology.load();
        let server = topology.server.as_ref()?;
        Some(ServerFacade {
            version: server.version.clone(),
            capabilities: Capabilities(server.capabilities),
            collation: server.collation,
            default_plugin: server.default_plugin.as_bytes().into(),
        })
    }

    /// [`Self::facade`], waiting a little for the first server to be known; none at the end of `wait` or of the cluster.
    pub async fn known_facade(&self, wait: Duration) -> Option<ServerFacade> {
        let mut changed = self.topology.changed();
        let known = async {
            loop {
                changed.mark_unchanged();
                if let Some(facade) = self.facade() {
                    return Some(facade);
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::select! {
            facade = tokio::time::timeout(wait, known) => facade.ok().flatten(),
            () = self.gone.cancelled() => None,
        }
    }

    /// The follower that a session should read from, leaving out those in `tried`, with the term it was seen in.
    pub fn choose_follower(&self, max_lag: Option<Duration>, tried: &[BackendId]) -> Option<(Backend, Term)> {
        let topology = self.topology.load();
        let connections = |id| self.connections(id).load(Ordering::Relaxed);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = routing::choose(&topology, max_lag, tried, connections, turn)?;
        Some((chosen.clone(), topology.term))
    }

    /// Open connections by server.
    pub fn all_connections(&self) -> HashMap<BackendId, u64> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|(id, count)| (*id, u64::from(count.load(Ordering::Relaxed)))).collect()
    }

    /// Open connections to one server, shared by all workers.
    pub fn connections(&self, backend: BackendId) -> Arc<AtomicU32> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(connections.entry(backend).or_default())
    }

    /// A place for one more connection to `backend`, or `None` at `backend_connections_max`.
    pub fn place(&self, backend: &Backend) -> Option<Counted> {
        let count = self.connections(backend.id);
        let place = Counted::new(&count, &self.name.0, &backend.address.to_string());
        match self.config.backend_connections_max {
            Some(max) if count.load(Ordering::Relaxed) > max => None,
            _ => Some(place),
        }
    }

    /// Waits for its turn to log in to `backend`, first come first served; the login lasts for as long as the answer is kept.
    /// `None` if the primary changes before: it may not be the one to log in to any more. Cancel safe.
    pub async fn login_turn(&self, backend: BackendId) -> Option<Turn> {
        let mut changed = self.topology.changed();
        let now = || {
            let topology = self.topology.load();
            (topology.term, topology.primary, topology.backend(backend).is_some_and(|server| server.answers))
        };
        let before = now();
        let turns = self.logins.at(backend, before.0);
        if let Some(turn) = turns.take() {
            return Some(turn);
        }
        let overtaken = async { while changed.changed().await.is_ok() && now() == before {} };
        tokio::select! {
            biased;
            turn = turns.wait() => turn,
            () = overtaken => None,
        }
    }

    /// The term, and the primary if its proof is good enough for a write.
    pub fn proven_primary(&self) -> (Term, Option<Backend>) {
        let topology = self.topology.load();
        (topology.term, self.primary_of(&topology).cloned())
    }

    /// The primary of that snapshot, if its proof is good enough for a write.
    pub fn primary_of<'t>(&self, topology: &'t Topology) -> Option<&'t Backend> {
        topology.primary_for_writes(self.topology.now_ms(), PROOF_AGE_MS_MAX)
    }

    /// Where to connect for `address` on behalf of a client whose own connection is encrypted, or is not. Under `preferred` a
    /// server sees what the client has: an account that REQUIREs SSL stays closed to clients without it.
    pub fn target(&self, address: &Address, secure: bool) -> ConnectTarget {
        let as_client = !secure && self.tls.mode() == SslMode::Preferred;
        ConnectTarget {
            address: address.clone(),
            tls: if as_client { Arc::new(BackendTls::disabled()) } else { Arc::clone(&self.tls) },
            connect_timeout: self.config.connect_timeout,
        }
    }
}

/// What others may know of a session, and how they end it.
#[derive(Debug)]
pub struct SessionHandle {
    /// The id its client knows.
    pub id: SessionId,
    /// Ends the session, whatever it is doing.
    pub kill: Signal,
    /// A KILL of this session is on its way to a server: a connection that is lost now was killed.
    pub doomed: AtomicBool,
    /// Wakes it when its connections are to be looked after.
    pub nudge: Nudge,
    /// The cluster it is a session of; 0: none yet.
    cluster: AtomicU64,
    /// Server connections of both slots: backend id in the upper half, connection id in the lower; 0: none.
    connections: [AtomicU64; 2],
    /// It waits for its client and can do without a connection that it shares.
    idle: AtomicBool,
    /// 1 + slot that is executing; 0: none.
    active: AtomicU8,
}

impl SessionHandle {
    /// Notes the cluster that the connections are of.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.cluster.store(cluster.0, Ordering::Relaxed);
    }

    /// True for a session of that cluster. Ids of servers and of their connections mean nothing to the others.
    pub fn is_of(&self, cluster: ClusterId) -> bool {
        self.cluster.load(Ordering::Relaxed) == cluster.0
    }

    /// The connection in a slot as one number; 0: none.
    pub fn raw_connection(&self, slot: usize) -> u64 {
        self.connections[slot].load(Ordering::Relaxed)
    }

    /// Notes (or forgets) the connection in a slot.
    pub fn set_connection(&self, slot: usize, connection: Option<(BackendId, u32)>) {
        let value = connection.map_or(0, |(backend, thread)| u64::from(backend.0) << 32 | u64::from(thread));
        self.connections[slot].store(value, Ordering::Relaxed);
    }

    /// Notes whether it can do without a connection that it shares.
    #[inline]
    pub fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Could it? From now on it can't.
    pub fn take_idle(&self) -> bool {
        self.idle.swap(false, Ordering::Relaxed)
    }

    /// Notes which slot executes a statement, if any.
    #[inline]
    pub fn set_active(&self, slot: Option<usize>) {
        self.active.store(slot.map_or(0, |s| s as u8 + 1), Ordering::Relaxed);
    }

    /// The connection that is executing a statement now.
    pub fn executing(&self) -> Option<(BackendId, u32)> {
        match self.active.load(Ordering::Relaxed) {
            0 => None,
            n => self.connection(usize::from(n - 1)),
        }
    }

    /// The connection in a slot.
    pub fn connection(&self, slot: usize) -> Option<(BackendId, u32)> {
        let value = self.connections[slot].load(Ordering::Relaxed);
        (value != 0).then_some((BackendId((value >> 32) as u32), value as u32))
    }
}

/// All sessions of the process by the id their clients know.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: Mutex<HashMap<SessionId, Arc<SessionHandle>>>,
    next: AtomicU32,
}

/// A session's entry in the registry; taken out when dropped.
pub struct Registered {
    registry: Arc<Registry>,
    /// The entry.
    pub handle: Arc<SessionHandle>,
}

impl Registry {
    /// Enters a new session.
    pub fn register(self: &Arc<Self>) -> Registered {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let id = loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed) % SessionId::FIRST;
            let id = SessionId(SessionId::FIRST + n);
            if !sessions.contains_key(&id) {
                break id;
            }
        };
        let handle = Arc::new(SessionHandle {
            id,
            kill: Signal::new(),
            doomed: AtomicBool::new(false),
            nudge: Nudge::default(),
            cluster: AtomicU64::new(0),
            connections: Default::default(),
            idle: AtomicBool::new(false),
            active: AtomicU8::new(0),
        });
        sessions.insert(id, Arc::clone(&handle));
        Registered { registry: Arc::clone(self), handle }
    }

    /// The session with this id.
    pub fn find(&self, id: SessionId) -> Option<Arc<SessionHandle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The session of `cluster` that has the connection `thread` to `backend`. Looks at all of them.
    pub fn find_by_connection(
        &self,
        cluster: ClusterId,
        backend: BackendId,
        thread: u32,
    ) -> Option<Arc<SessionHandle>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |session: &&Arc<SessionHandle>| {
            session.is_of(cluster) && [0, 1].iter().any(|s| session.connection(*s) == Some((backend, thread)))
        };
        sessions.values().find(has).cloned()
    }

    /// The sessions that are connected to servers of this cluster.
    pub fn of_cluster(&self, cluster: ClusterId) -> Vec<Arc<SessionHandle>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.values().filter(|session| session.is_of(cluster)).cloned().collect()
    }

    /// Ends all sessions, whatever they are doing.
    pub fn cut(&self) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.values().for_each(|session| session.kill.cancel());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.handle.id);
    }
}

#[cfg(test)]
mod tests;
