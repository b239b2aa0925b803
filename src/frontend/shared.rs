//! What sessions share: their cluster, their listener, and the registry that KILL looks ids up in.

use super::drain::Nudge;
use super::login::ServerFacade;
use super::signal::Signal;
use crate::accounts::{Accounts, FailureLimits, Failures};
use crate::backend::{ConnectTarget, Counted};
use crate::classify::{Dialect, Flavor};
use crate::config::{ClusterConfig, ListenerConfig};
use crate::failover::Holds;
use crate::routing;
use crate::tls::{BackendTls, ListenerTls, SslMode};
use crate::topology::{Backend, TopologyHandle};
use crate::types::{Address, BackendId, ClusterName, SessionId, Term};
use crate::wire::capabilities::Capabilities;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A proof of the primary older than this does not carry a statement while there is doubt (milliseconds).
const PROOF_AGE_MS_MAX: u64 = 3_000;

/// One cluster as the data path sees it.
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Limits and the probing account.
    pub config: ClusterConfig,
    /// Who is primary, who follows.
    pub topology: TopologyHandle,
    /// TLS towards its servers.
    pub tls: Arc<BackendTls>,
    /// Statements that wait for a primary.
    pub holds: Arc<Holds>,
    connections: Arc<Mutex<HashMap<BackendId, Arc<AtomicU32>>>>,
    turn: AtomicUsize,
}

impl Cluster {
    /// A cluster without connections yet.
    pub fn new(config: ClusterConfig, topology: TopologyHandle, tls: Arc<BackendTls>) -> Self {
        Self {
            name: config.name.as_str().into(),
            holds: Holds::new(config.hold_statements_max),
            config,
            topology,
            tls,
            connections: Arc::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The same cluster with other settings: topology, hold and counts go on.
    pub fn with_config(&self, config: ClusterConfig, tls: Arc<BackendTls>) -> Self {
        Self {
            name: self.name.clone(),
            holds: Arc::clone(&self.holds),
            topology: self.topology.clone(),
            connections: Arc::clone(&self.connections),
            turn: AtomicUsize::new(0),
            config,
            tls,
        }
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

    /// The term, and the primary if its proof is good enough for a write.
    pub fn proven_primary(&self) -> (Term, Option<Backend>) {
        let topology = self.topology.load();
        (topology.term, topology.primary_for_writes(self.topology.now_ms(), PROOF_AGE_MS_MAX).cloned())
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

/// One listener as its sessions see it.
pub struct Listener {
    /// Its settings.
    pub config: ListenerConfig,
    /// The cluster behind it.
    pub cluster: Arc<Cluster>,
    /// TLS towards its clients.
    pub tls: Arc<ListenerTls>,
    /// Who may log in.
    pub accounts: Arc<Accounts>,
    /// Failed logins by address.
    pub failures: Arc<Mutex<Failures>>,
    all: Arc<AllSessions>,
    sessions: Arc<AtomicU32>,
    users: Arc<Mutex<HashMap<Box<[u8]>, u32>>>,
}

/// The sessions of all listeners, counted under `proxy.max_connections`.
#[derive(Debug)]
pub struct AllSessions {
    now: Arc<AtomicU32>,
    max: AtomicU32,
}

impl AllSessions {
    /// None yet, and never more than `max`.
    pub fn new(max: u32) -> Self {
        Self { now: Arc::default(), max: AtomicU32::new(max) }
    }

    /// Changes the limit for sessions to come.
    pub fn limit(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }
}

/// A session's place under the `max_connections` of its listener and of the process; given back when dropped.
pub struct Place([Arc<AtomicU32>; 2]);

/// A session's place under `max_connections_per_user`; given back when dropped.
pub struct UserPlace {
    users: Arc<Mutex<HashMap<Box<[u8]>, u32>>>,
    user: Box<[u8]>,
}

impl Listener {
    /// A listener without sessions yet, one of those whose sessions `all` counts.
    pub fn new(
        config: ListenerConfig,
        cluster: Arc<Cluster>,
        tls: Arc<ListenerTls>,
        accounts: Arc<Accounts>,
        all: Arc<AllSessions>,
    ) -> Self {
        let failures = Arc::new(Mutex::new(Failures::new(failure_limits(&config))));
        Self { config, cluster, tls, accounts, failures, all, sessions: Arc::default(), users: Arc::default() }
    }

    /// The same listener with other settings: its counts go on.
    pub fn with_config(
        &self,
        config: ListenerConfig,
        cluster: Arc<Cluster>,
        tls: Arc<ListenerTls>,
        accounts: Arc<Accounts>,
    ) -> Self {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).limit(failure_limits(&config));
        Self {
            failures: Arc::clone(&self.failures),
            all: Arc::clone(&self.all),
            sessions: Arc::clone(&self.sessions),
            users: Arc::clone(&self.users),
            config,
            cluster,
            tls,
            accounts,
        }
    }

    /// The follower that a session should read from, leaving out those in `tried`, with the term it was seen in.
    pub fn choose_follower(&self, tried: &[BackendId]) -> Option<(Backend, Term)> {
        let cluster = &self.cluster;
        let topology = cluster.topology.load();
        let connections = |id| cluster.connections(id).load(Ordering::Relaxed);
        let chosen = routing::choose(
            &topology,
            self.config.max_lag,
            tried,
            connections,
            cluster.turn.fetch_add(1, Ordering::Relaxed),
        )?;
        Some((chosen.clone(), topology.term))
    }

    /// Sessions now, logged in or not.
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// A place for one more session, or `None` at the listener's limit or the process's.
    pub fn place(&self) -> Option<Place> {
        let place = Place([Arc::clone(&self.sessions), Arc::clone(&self.all.now)]);
        let [here, all] = place.0.each_ref().map(|count| count.fetch_add(1, Ordering::Relaxed));
        (here < self.config.max_connections && all < self.all.max.load(Ordering::Relaxed)).then_some(place)
    }

    /// A place for one more session of `user`, or `None` at the limit.
    pub fn user_place(&self, user: &[u8]) -> Option<UserPlace> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(user.into()).or_default();
        if self.config.max_connections_per_user.is_some_and(|max| *count >= max) {
            return None;
        }
        *count += 1;
        Some(UserPlace { users: Arc::clone(&self.users), user: user.into() })
    }
}

fn failure_limits(config: &ListenerConfig) -> FailureLimits {
    let limits = &config.login_failures;
    FailureLimits { free: limits.per_address, delay_max: limits.delay, addresses_max: limits.addresses_max }
}

impl Drop for Place {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
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
    /// Server connections of both slots: backend id in the upper half, connection id in the lower; 0: none.
    connections: [AtomicU64; 2],
    /// 1 + slot that is executing; 0: none.
    active: AtomicU8,
}

impl SessionHandle {
    /// The connection in a slot as one number; 0: none.
    pub fn raw_connection(&self, slot: usize) -> u64 {
        self.connections[slot].load(Ordering::Relaxed)
    }

    /// Notes (or forgets) the connection in a slot.
    pub fn set_connection(&self, slot: usize, connection: Option<(BackendId, u32)>) {
        let value = connection.map_or(0, |(backend, thread)| u64::from(backend.0) << 32 | u64::from(thread));
        self.connections[slot].store(value, Ordering::Relaxed);
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
            connections: Default::default(),
            active: AtomicU8::new(0),
        });
        sessions.insert(id, Arc::clone(&handle));
        Registered { registry: Arc::clone(self), handle }
    }

    /// The session with this id.
    pub fn find(&self, id: SessionId) -> Option<Arc<SessionHandle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The session that has the connection `thread` to `backend`. Looks at all of them.
    pub fn find_by_connection(&self, backend: BackendId, thread: u32) -> Option<Arc<SessionHandle>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let has =
            |session: &&Arc<SessionHandle>| [0, 1].iter().any(|s| session.connection(*s) == Some((backend, thread)));
        sessions.values().find(has).cloned()
    }

    /// The sessions that are connected to servers of this cluster.
    pub fn of_cluster(&self, cluster: &ClusterName) -> Vec<Arc<SessionHandle>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.values().filter(|session| session.nudge.cluster() == Some(cluster)).cloned().collect()
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

/// What a listener greets with: the cluster's servers, as its proven primary greets; none while no server is known.
pub fn facade(listener: &Listener) -> Option<ServerFacade> {
    let topology = listener.cluster.topology.load();
    let server = topology.server.as_ref()?;
    Some(ServerFacade {
        version: listener.config.server_version.as_deref().map_or_else(|| server.version.clone(), Into::into),
        capabilities: Capabilities(server.capabilities),
        collation: server.collation,
        default_plugin: server.default_plugin.as_bytes().into(),
    })
}

/// How statements of a client with this handshake collation are to be read.
pub fn dialect(facade: &ServerFacade, collation: u16) -> Dialect {
    let text = facade.version.strip_prefix("5.5.5-").unwrap_or(&facade.version);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = next() * 10_000 + next() * 100 + next();
    let flavor = match text.contains("MariaDB") {
        true => Flavor::MariaDb { version },
        false => Flavor::MySql { version },
    };
    // big5, sjis, gbk, cp932, gb18030: their characters may end with a backslash byte.
    let multibyte_escape_unsafe = matches!(collation, 1 | 84 | 13 | 88 | 28 | 87 | 95 | 96 | 248..=250);
    Dialect { flavor, multibyte_escape_unsafe, ..Dialect::default() }
}
