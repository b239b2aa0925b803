//! What a configuration is once it is valid: plain structs, every field with its final value.
//!
//! Nothing here can be wrong: a `Config` is only made by [`super::load`] and [`super::parse`], which
//! refuse what contradicts itself. Tests and tools that need one section use the `new` functions,
//! which fill in the defaults; these are the only place where a default is written.

mod cluster;
mod kubernetes;
mod routes;

pub use cluster::*;
pub use kubernetes::*;
pub use routes::*;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::network::Network;
pub use crate::types::{Consistency, SslMode};

/// A whole configuration file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[proxy]`: limits of the whole process.
    pub proxy: ProxyConfig,
    /// `[log]`: format and level of the log.
    pub log: LogConfig,
    /// `[admin]`: the HTTP port; absent: none is opened.
    pub admin: Option<AdminConfig>,
    /// `[[listener]]`, in the file's order; at least one, names and addresses unique.
    pub listeners: Vec<ListenerConfig>,
    /// `[[cluster]]`, in the file's order; at least one unless there is a `[[discovery]]`, names unique.
    pub clusters: Vec<ClusterConfig>,
    /// `[[discovery]]`, in the file's order; names unique.
    pub discoveries: Vec<DiscoveryConfig>,
}

impl Config {
    /// The cluster of that name. What listeners name is here, unless it may yet be discovered.
    pub fn cluster(&self, name: &str) -> Option<&ClusterConfig> {
        self.clusters.iter().find(|cluster| cluster.name == name)
    }
}

/// `[proxy]`: limits of the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `workers`: threads that serve sessions, 0..=1024. 0 (the default): one per core.
    pub workers: usize,
    /// `shutdown_*_ms`: what happens when after SIGTERM.
    pub shutdown: ShutdownTimes,
    /// `max_connections`: clients on all listeners together; one more gets error 1040. Default 10,000.
    pub max_connections: u32,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { workers: 0, shutdown: ShutdownTimes::default(), max_connections: 10_000 }
    }
}

/// `shutdown_*_ms`: what happens when after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownTimes {
    /// `shutdown_grace_ms`: not ready, but clients are still accepted. Default 1 s.
    pub grace: Duration,
    /// `shutdown_idle_ms`: once no more clients are accepted, a session between transactions that sends nothing for so
    /// long is closed. Default 1 s.
    pub idle: Duration,
    /// `shutdown_deadline_ms`, from SIGTERM: from then on every session is closed at its next transaction boundary.
    /// Default 30 s; not shorter than `grace`.
    pub deadline: Duration,
    /// `shutdown_transactions_ms`, from the deadline: then what is left is cut. Default 5 s.
    pub transactions: Duration,
}

impl Default for ShutdownTimes {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(1),
            idle: Duration::from_secs(1),
            deadline: Duration::from_secs(30),
            transactions: Duration::from_secs(5),
        }
    }
}

/// `[log]`: format and level of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `format`: default text.
    pub format: LogFormat,
    /// `level`: a level (`info`, the default) or tracing-subscriber's directives
    /// (`info,holdfast::topology=debug`).
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[admin]`: the HTTP port for probes, metrics and the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `listen`: IP address and port.
    pub listen: SocketAddr,
}

/// `[[listener]]`: one port for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// `name`: letters, digits, `-`, `_`, `.`; a metric label.
    pub name: String,
    /// `listen`: IP address and port.
    pub listen: SocketAddr,
    /// `cluster`, or `route` with `default_cluster`, `[listener.sni]` and `[listener.schema]`: which clusters are behind
    /// it, and who gets to which.
    pub routes: Routes,
    /// `mode`: default split.
    pub mode: ListenerMode,
    /// `[listener.tls]`
    pub tls: ClientTlsConfig,
    /// `max_connections`: clients of this listener; one more gets error 1040. Default 10,000.
    pub max_connections: u32,
    /// `max_connections_per_user`: sessions of one user on this listener; one more gets error 1203.
    /// 0 (the default) = `None`: no limit.
    pub max_connections_per_user: Option<u32>,
    /// `proxy_protocol`: default off.
    pub proxy_protocol: ProxyProtocol,
    /// `trusted_networks`: peers whose PROXY header is believed. Empty unless `proxy_protocol` is on.
    pub trusted_networks: Vec<Network>,
    /// `handshake_timeout_ms`: from accept to the end of the login. Default 10 s.
    pub handshake_timeout: Duration,
    /// `idle_timeout_ms`: a client that sends no command for so long is closed. 0 (the default) =
    /// `None`: the server's own wait_timeout decides.
    pub idle_timeout: Option<Duration>,
    /// `read_fallback`: what a read does when no follower qualifies. Default primary.
    pub read_fallback: ReadFallback,
    /// `exactly_once`: a write whose answer was lost with its server is answered from evidence, or run again. Default no.
    pub exactly_once: bool,
    /// `sharing`: whether sessions share connections between their transactions. Default off.
    pub sharing: Sharing,
    /// `transaction_replay_bytes`: transactions up to this size are run again on the new primary. Default 1 MiB; 0: never.
    pub transaction_replay_bytes: usize,
    /// `consistency`: how fresh reads are where neither the session nor the statement says so. Default eventual.
    pub consistency: Consistency,
    /// `consistency_wait_ms`: how long a read waits for its follower to have what its session has written. Default 100 ms.
    pub consistency_wait: Duration,
    /// `max_lag_ms`: a follower further behind gets no reads. 0 = `None`: no bound. Default 10 s.
    pub max_lag: Option<Duration>,
    /// `hold_ms_max`: how long a statement waits for a primary; absent: as long as its cluster says.
    pub hold_max: Option<Duration>,
    /// `hold_statements_max`: statements of this listener that wait at the same time; absent: as many as the cluster lets.
    pub hold_statements_max: Option<usize>,
    /// `account_source`: asked in this order; not empty, no repetition. Default pass-through alone.
    pub account_source: Vec<AccountSource>,
    /// `account_file`: given exactly when `account_source` has `file`; a readable file.
    pub account_file: Option<PathBuf>,
    /// `compression`: what is offered to clients. Default zlib, zstd and none.
    pub compression: Compression,
    /// `server_version`: the version shown in the greeting; absent: the cluster's own.
    pub server_version: Option<String>,
    /// `statement_buffer_bytes`: the longest statement that is kept for re-running it and for
    /// classifying all of it; a longer one is streamed to the primary. Default 1 MiB.
    pub statement_buffer_bytes: usize,
    /// `login_failures_per_address`, `login_failure_delay_ms`, `login_failure_addresses_max`
    pub login_failures: LoginFailureLimits,
}

impl ListenerConfig {
    /// A listener with every default, without TLS, in front of one cluster.
    pub fn new(name: impl Into<String>, listen: SocketAddr, cluster: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            listen,
            routes: Routes::to(cluster),
            mode: ListenerMode::Split,
            tls: ClientTlsConfig::default(),
            max_connections: 10_000,
            max_connections_per_user: None,
            proxy_protocol: ProxyProtocol::Off,
            trusted_networks: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: None,
            read_fallback: ReadFallback::Primary,
            exactly_once: false,
            sharing: Sharing::Off,
            transaction_replay_bytes: 1 << 20,
            consistency: Consistency::Eventual,
            consistency_wait: Duration::from_millis(100),
            max_lag: Some(Duration::from_secs(10)),
            hold_max: None,
            hold_statements_max: None,
            account_source: vec![AccountSource::PassThrough],
            account_file: None,
            compression: Compression::default(),
            server_version: None,
            statement_buffer_bytes: 1 << 20,
            login_failures: LoginFailureLimits::default(),
        }
    }
}

/// Where a listener's statements go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerMode {
    /// Writes to the primary, pure reads to followers.
    Split,
    /// Everything to the primary.
    Primary,
    /// Everything to followers; a write is refused by the server (error 1290).
    Followers,
}

/// `[listener.tls]`: what clients are offered and what is asked of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// `mode`: default preferred if `cert` is given, else disabled.
    pub mode: ClientTlsMode,
    /// `cert`: PEM, the server's chain. Present in every mode but disabled.
    pub cert: Option<PathBuf>,
    /// `key`: PEM. Present exactly when `cert` is.
    pub key: Option<PathBuf>,
    /// `client_ca`: PEM. Present exactly in the modes verify_ca and verify_identity.
    pub client_ca: Option<PathBuf>,
}

impl Default for ClientTlsConfig {
    fn default() -> Self {
        Self { mode: ClientTlsMode::Disabled, cert: None, key: None, client_ca: None }
    }
}

/// What a listener asks of its clients' connections; each mode includes the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientTlsMode {
    /// TLS is not offered.
    Disabled,
    /// TLS is offered; a client may go without.
    Preferred,
    /// A login without TLS is refused (error 3159, as require_secure_transport does).
    Required,
    /// The client must show a certificate signed by `client_ca`.
    VerifyCa,
    /// That certificate must also name the user that logs in.
    VerifyIdentity,
}

/// Whether connections begin with a PROXY protocol header (v1 or v2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// No header is read.
    Off,
    /// A peer of a trusted network may send one; others must not.
    Optional,
    /// Every connection must come from a trusted network and begin with one.
    Required,
}

/// What a read does when no follower qualifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadFallback {
    /// It goes to the primary.
    Primary,
    /// It waits for a follower, bounded like every hold.
    Hold,
    /// It is answered with an error.
    Error,
}

/// Whether sessions share connections to the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Each session has its own.
    Off,
    /// Between transactions a session gives its connections to whoever waits for one.
    Transaction,
}

/// Where an account's proof comes from (design: "Logging in").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountSource {
    /// The backend itself: the client's password is tried there.
    PassThrough,
    /// mysql.user, read with the cluster's account.
    Server,
    /// `account_file`.
    File,
}

/// The compression algorithms offered to clients; at least one of the three is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compression {
    /// CLIENT_COMPRESS
    pub zlib: bool,
    /// CLIENT_ZSTD_COMPRESSION_ALGORITHM
    pub zstd: bool,
    /// A client may go without compression.
    pub none: bool,
}

impl Default for Compression {
    fn default() -> Self {
        Self { zlib: true, zstd: true, none: true }
    }
}

/// How repeated failed logins from one address are slowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFailureLimits {
    /// `login_failures_per_address`: failures in a row before the answers are delayed. 0 = `None`:
    /// never. Default 10.
    pub per_address: Option<u32>,
    /// `login_failure_delay_ms`: each further failure delays the next attempt by 100 ms more, up to this. Default 1 s.
    pub delay: Duration,
    /// `login_failure_addresses_max`: addresses remembered; the oldest is forgotten. Default 10,000.
    pub addresses_max: usize,
}

impl Default for LoginFailureLimits {
    fn default() -> Self {
        Self { per_address: Some(10), delay: Duration::from_secs(1), addresses_max: 10_000 }
    }
}
