//! `[[cluster]]` and what is in it.

use std::path::PathBuf;
use std::time::Duration;

use super::kubernetes::KubernetesConfig;
use crate::config::secret::Secret;
use crate::types::{Address, SslMode};

/// `[[cluster]]`: one replication group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `name`: letters, digits, `-`, `_`, `.`; a metric label.
    pub name: String,
    /// `source` with `servers` or `seeds`.
    pub source: Source,
    /// `required`: without a primary of this cluster the proxy is not ready. Default true; false for discovered ones.
    pub required: bool,
    /// `[cluster.account]`: the proxy's own account, for probing.
    pub account: AccountConfig,
    /// `[cluster.tls]`
    pub tls: BackendTlsConfig,
    /// `kind`: default auto. Never async with `source = "members"`.
    pub kind: ClusterKind,
    /// `hold_ms_max`: how long a statement waits for a primary. Default 30 s.
    pub hold_max: Duration,
    /// `hold_statements_max`: statements that wait at the same time; one more is refused.
    /// Default 10,000.
    pub hold_statements_max: usize,
    /// `hold_bytes_max`: what they are long together. Default 256 MiB.
    pub hold_bytes_max: usize,
    /// `probe_interval_ms`: between two probes of a server while all is well. Default 1 s.
    pub probe_interval: Duration,
    /// `probe_doubt_interval_ms`: the same while there is doubt; at most `probe_interval`.
    /// Default 20 ms.
    pub probe_doubt_interval: Duration,
    /// `probe_timeout_ms`: a probe without an answer for so long has failed. Default 2 s.
    pub probe_timeout: Duration,
    /// `connect_timeout_ms`: TCP, TLS and login at a backend together. Default 5 s.
    pub connect_timeout: Duration,
    /// `drain_deadline_ms`: how long open transactions keep a backend that is drained. Default 10 s.
    pub drain_deadline: Duration,
    /// `silence_ms_max`: a server that answers nothing for so long loses those that read from it. Default 10 s.
    pub silence_max: Duration,
    /// `accept_lost_writes_after_ms`: a primary that lacks writes which the last one was seen to have is taken after this
    /// all the same. 0 (the default) = `None`: never.
    pub accept_lost_writes_after: Option<Duration>,
    /// `reconciler`: the admin port of the reconciler that keeps this cluster; it is told when the primary looks lost. Default
    /// nobody.
    pub reconciler: Option<Address>,
    /// `backend_connections_max`: connections to one server. 0 (the default) = `None`: the server's
    /// own max_connections decides.
    pub backend_connections_max: Option<u32>,
    /// `backend_logins_max`: logins to one server that are under way at the same time; others wait their turn. Default 32.
    pub backend_logins_max: usize,
    /// `shared_*`: the connections that sessions of listeners with `sharing` share.
    pub shared: SharedConfig,
    /// `accounts_max`: accounts whose verifier is remembered. Default 10,000.
    pub accounts_max: usize,
    /// `account_ttl_s`: how long a verifier is remembered after its last proof. Default one day.
    pub account_ttl: Duration,
}

impl ClusterConfig {
    /// A cluster with every default.
    pub fn new(name: impl Into<String>, source: Source, account: AccountConfig) -> Self {
        Self {
            name: name.into(),
            source,
            required: true,
            account,
            tls: BackendTlsConfig::default(),
            kind: ClusterKind::Auto,
            hold_max: Duration::from_secs(30),
            hold_statements_max: 10_000,
            hold_bytes_max: 256 << 20,
            probe_interval: Duration::from_secs(1),
            probe_doubt_interval: Duration::from_millis(10),
            probe_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(10),
            silence_max: Duration::from_secs(10),
            accept_lost_writes_after: None,
            reconciler: None,
            backend_connections_max: None,
            backend_logins_max: 32,
            shared: SharedConfig::default(),
            accounts_max: 10_000,
            account_ttl: Duration::from_secs(86_400),
        }
    }
}

/// Where a cluster's servers are known from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `source = "static"`: these servers, no others.
    Static {
        /// `servers`: at least one, addresses unique, at most one with the role primary.
        servers: Vec<StaticServer>,
    },
    /// `source = "members"`: group replication tells its members.
    Members {
        /// `seeds`: at least one, unique.
        seeds: Vec<Address>,
    },
    /// `source = "kubernetes"`: pods, found by their labels.
    Kubernetes(Box<KubernetesConfig>),
}

/// One entry of `servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticServer {
    /// `address`: `host:port`; the port defaults to 3306.
    pub address: Address,
    /// `role`: a hint only; SQL proves it.
    pub role: Option<RoleHint>,
    /// `weight`: share of the reads relative to the others, 0..=1000. 0: none. Default 1.
    pub weight: u32,
}

/// What the configuration believes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleHint {
    /// Takes writes.
    Primary,
    /// Replicates.
    Follower,
}

/// What kind of replication a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClusterKind {
    /// Asked of the servers.
    Auto,
    /// Group replication.
    Group,
    /// Asynchronous or semi-synchronous replication, or a single server.
    Async,
}

/// `[cluster.account]`: the proxy's own account on the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountConfig {
    /// `user`
    pub user: String,
    /// `password`, `password_file` or `password_env`
    pub password: Secret,
}

/// `[cluster.tls]`: TLS towards the servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendTlsConfig {
    /// `mode`: default preferred, as for MySQL's clients.
    pub mode: SslMode,
    /// `ca`: PEM. Present exactly in the modes VERIFY_CA and VERIFY_IDENTITY.
    pub ca: Option<PathBuf>,
    /// `cert`: PEM, the proxy's own certificate.
    pub cert: Option<PathBuf>,
    /// `key`: PEM. Present exactly when `cert` is.
    pub key: Option<PathBuf>,
}

/// `shared_*`: the connections to one server that sessions of listeners with `sharing` share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedConfig {
    /// `shared_connections_max`: of all workers together; each has its part, at least one. Default 64.
    pub connections_max: u32,
    /// `shared_connections_min`: so many stay open although nobody uses them. Default 4.
    pub connections_min: u32,
    /// `shared_idle_ms_max`: one that nobody has used for so long is closed. Default 5 min.
    pub idle_max: Duration,
    /// `shared_lifetime_ms_max`: one that is older is used no more. 0 = `None`: for ever. Default 1 h.
    pub lifetime_max: Option<Duration>,
    /// `shared_statements_max`: prepared statements that one of them keeps. Default 128.
    pub statements_max: usize,
}

impl Default for SharedConfig {
    fn default() -> Self {
        Self {
            connections_max: 64,
            connections_min: 4,
            idle_max: Duration::from_secs(300),
            lifetime_max: Some(Duration::from_secs(3600)),
            statements_max: 128,
        }
    }
}
