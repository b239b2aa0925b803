//! A listener and the clusters behind it: limits, accounts, and which way a login goes.
//!
//! A [`Gate`] is one cluster behind one listener; every session has gone through one. Accounts live in the servers, so what
//! is known of them belongs to a gate: a password proven at one cluster means nothing at another.

use super::clusters::Clusters;
use super::facade::{self, ServerFacade};
use super::ledger::Ledger;
use super::route::{Asked, Nowhere, choose};
use super::shared::Cluster;
use crate::accounts::{Accounts, FailureLimits, Failures};
use crate::config::ListenerConfig;
use crate::error::{ClientError, ErrorKind};
use crate::failover::Holds;
use crate::tls::ListenerTls;
use crate::topology::Backend;
use crate::types::{BackendId, ClusterName, Term};
use crate::wire::capabilities::Capabilities;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a client that connects before any server is known waits for one.
const FACADE_WAIT: Duration = Duration::from_secs(5);
/// With several clusters behind a listener, how often it looks whether a server of one is known.
const FACADE_AGAIN: Duration = Duration::from_millis(20);

/// One listener as its sessions see it.
pub struct Listener {
    /// Its settings.
    pub config: ListenerConfig,
    /// Where it may lead.
    pub clusters: Arc<Clusters>,
    /// TLS towards its clients.
    pub tls: Arc<ListenerTls>,
    /// Who may log in.
    pub accounts: Arc<Ledger>,
    /// Statements of its sessions that wait for a primary.
    pub holds: Arc<Holds>,
    /// Failed logins by address.
    pub failures: Arc<Mutex<Failures>>,
    all: Arc<AllSessions>,
    sessions: Arc<AtomicU32>,
    users: Arc<Mutex<HashMap<Box<[u8]>, u32>>>,
}

/// One cluster behind one listener.
#[derive(Clone)]
pub struct Gate {
    /// The listener.
    pub listener: Arc<Listener>,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// What is known of the cluster's accounts.
    pub accounts: Arc<Accounts>,
}

impl Gate {
    /// How long a statement waits for a primary.
    pub fn hold_max(&self) -> Duration {
        self.listener.config.hold_max.unwrap_or(self.cluster.config.hold_max)
    }

    /// The follower that a session should read from, leaving out those in `tried`, with the term it was seen in.
    pub fn choose_follower(&self, tried: &[BackendId]) -> Option<(Backend, Term)> {
        self.cluster.choose_follower(self.listener.config.max_lag, tried)
    }
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

/// As many as it may hold; how long they are is the cluster's concern.
fn held_max(config: &ListenerConfig) -> usize {
    config.hold_statements_max.unwrap_or(usize::MAX)
}

impl Listener {
    /// A listener without sessions yet, one of those whose sessions `all` counts.
    pub fn new(
        config: ListenerConfig,
        clusters: Arc<Clusters>,
        tls: Arc<ListenerTls>,
        accounts: Arc<Ledger>,
        all: Arc<AllSessions>,
    ) -> Self {
        let failures = Arc::new(Mutex::new(Failures::new(failure_limits(&config))));
        let holds = Holds::new(held_max(&config), usize::MAX);
        Self { config, clusters, tls, accounts, holds, failures, all, sessions: Arc::default(), users: Arc::default() }
    }

    /// The same listener with other settings: its counts go on.
    pub fn with_config(&self, config: ListenerConfig, tls: Arc<ListenerTls>, accounts: Arc<Ledger>) -> Self {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).limit(failure_limits(&config));
        self.holds.limit(held_max(&config), usize::MAX);
        Self {
            clusters: Arc::clone(&self.clusters),
            holds: Arc::clone(&self.holds),
            failures: Arc::clone(&self.failures),
            all: Arc::clone(&self.all),
            sessions: Arc::clone(&self.sessions),
            users: Arc::clone(&self.users),
            config,
            tls,
            accounts,
        }
    }

    /// The cluster a login is for, and whom it asks for there. `stays`: the cluster of a session that changes its user.
    pub fn find<'a>(
        &self,
        asked: Asked<'a>,
        stays: Option<&ClusterName>,
    ) -> Result<(Arc<Cluster>, &'a [u8]), ClientError> {
        let routes = &self.config.routes;
        let fallback = stays.map(|name| &*name.0).or(routes.default.as_deref());
        let clusters = self.clusters.load();
        let known = |name: &str| clusters.get(name).map(|cluster| cluster.name.clone());
        let nowhere = match choose(routes, asked, fallback, known) {
            Ok(chosen) => match clusters.get(&chosen.cluster) {
                Some(cluster) => return Ok((Arc::clone(cluster), chosen.user)),
                None => Nowhere::Unknown(chosen.cluster.to_string()),
            },
            Err(nowhere) => nowhere,
        };
        Err(ClientError::new(ErrorKind::UnknownCluster, self.advice(&nowhere)))
    }

    fn advice(&self, nowhere: &Nowhere) -> String {
        let ways = super::route::ways(&self.config.routes.by);
        match nowhere {
            Nowhere::Unnamed => format!("holdfast: this login names no cluster: name one {ways}"),
            Nowhere::Unknown(name) if ways.is_empty() => format!("holdfast: cluster '{name}' is not served here"),
            Nowhere::Unknown(name) => format!("holdfast: cluster '{name}' is not served here: name another {ways}"),
            Nowhere::Both(one, other) => {
                format!("holdfast: this login names two clusters, '{one}' and '{other}': name one {ways}")
            }
        }
    }

    /// The way to a cluster.
    pub fn gate(self: &Arc<Self>, cluster: Arc<Cluster>) -> Gate {
        let accounts = self.accounts.of(&cluster, &self.clusters);
        Gate { listener: Arc::clone(self), cluster, accounts }
    }

    /// What to greet with; none while no server behind it is known.
    pub fn greeting(&self) -> Option<ServerFacade> {
        let default = self.config.routes.default.as_deref().and_then(|name| self.clusters.find(name)?.facade());
        let mut greeting = match self.config.routes.by.is_empty() {
            true => default?,
            false => {
                let all: Vec<_> = self.clusters.load().values().filter_map(|cluster| cluster.facade()).collect();
                facade::common(default.as_ref(), &all)?
            }
        };
        if let Some(version) = &self.config.server_version {
            greeting.version = version.as_str().into();
        }
        Some(greeting)
    }

    /// [`Self::greeting`], waiting a little for the first server to be known.
    pub async fn known_greeting(&self) -> Result<ServerFacade, ClientError> {
        if let Some(greeting) = self.greeting() {
            return Ok(greeting);
        }
        let routes = &self.config.routes;
        if routes.by.is_empty() {
            let (cluster, _) = self.find(Asked::default(), None)?;
            cluster.known_facade(FACADE_WAIT).await;
            return self.greeting().ok_or_else(|| unreached(&cluster.name));
        }
        let deadline = Instant::now() + FACADE_WAIT;
        while Instant::now() < deadline {
            tokio::time::sleep(FACADE_AGAIN).await;
            if let Some(greeting) = self.greeting() {
                return Ok(greeting);
            }
        }
        Err(ClientError::new(
            ErrorKind::NoBackend,
            "holdfast: no server of any cluster has been reached yet; retry later",
        ))
    }

    /// Checks that a client with this greeting and these capabilities can be served by `cluster`; waits a little for a
    /// server of it to be known.
    pub async fn check(
        &self,
        cluster: &Cluster,
        greeting: &ServerFacade,
        capabilities: Capabilities,
    ) -> Result<ServerFacade, ClientError> {
        let facade = match cluster.facade() {
            Some(facade) => facade,
            None => cluster.known_facade(FACADE_WAIT).await.ok_or_else(|| unreached(&cluster.name))?,
        };
        if self.config.routes.by.is_empty() {
            return Ok(facade);
        }
        if self.config.server_version.is_none() && facade.is_mariadb() != greeting.is_mariadb() {
            let (name, family, greeted) = (&cluster.name, facade.family(), greeting.family());
            let message = format!(
                "holdfast: the servers of cluster '{name}' are {family}, and this port greets as {greeted}: use a listener \
                 of its own"
            );
            return Err(ClientError::new(ErrorKind::UnknownCluster, message));
        }
        if !facade.serves(capabilities) {
            let message = format!(
                "holdfast: the servers of cluster '{}' can do less than this port had announced; connect again",
                cluster.name
            );
            return Err(ClientError::new(ErrorKind::NoBackend, message));
        }
        Ok(facade)
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

    /// A place for one more session of `user` at `cluster`, or `None` at the limit.
    pub fn user_place(&self, user: &[u8], cluster: &ClusterName) -> Option<UserPlace> {
        let key: Box<[u8]> = [user, b"\0", cluster.0.as_bytes()].concat().into();
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(key.clone()).or_default();
        if self.config.max_connections_per_user.is_some_and(|max| *count >= max) {
            return None;
        }
        *count += 1;
        Some(UserPlace { users: Arc::clone(&self.users), user: key })
    }
}

fn unreached(cluster: &ClusterName) -> ClientError {
    let message = format!("holdfast: no server of cluster {cluster} has been reached yet; retry later");
    ClientError::new(ErrorKind::NoBackend, message)
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
