//! What the topology of one cluster is told: servers, account, rhythm and limits.
//!
//! Kept apart from the configuration file's types so that this room does not depend on how they are written.

use super::kubernetes::PodFeed;
use super::nudge::Reconciler;
use crate::accounts::Credential;
use crate::tls::BackendTls;
use crate::types::{Address, ClusterName};
use std::sync::Arc;
use std::time::Duration;

/// Everything the topology of one cluster needs.
#[derive(Clone)]
pub struct TopologySettings {
    /// Its name.
    pub cluster: ClusterName,
    /// Where its servers are known from.
    pub source: Source,
    /// With [`Source::Pods`]: where they come from.
    pub pods: Option<PodFeed>,
    /// Who asks.
    pub account: Account,
    /// TLS towards the servers.
    pub tls: Arc<BackendTls>,
    /// Rhythm of the probes.
    pub probe: ProbeSettings,
    /// Limits of the rules.
    pub limits: Limits,
    /// Who is told when the primary looks lost.
    pub reconciler: Option<Reconciler>,
}

/// Where the servers of a cluster are known from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are listed.
    Static {
        /// All of them.
        servers: Vec<ServerEntry>,
    },
    /// Group replication tells; some are listed to begin with.
    Members {
        /// Asked first, and never forgotten.
        seeds: Vec<Address>,
        /// Weight of every member.
        weight: u32,
    },
    /// They are pods, which come and go by themselves.
    Pods,
}

/// A listed server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEntry {
    /// Where it listens.
    pub address: Address,
    /// Share of the reads.
    pub weight: u32,
    /// What the configuration calls it, for the evidence only: a hint proves nothing and decides nothing.
    pub role_hint: Option<RoleHint>,
}

/// `role` of a listed server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleHint {
    /// Should be the primary.
    Primary,
    /// Should follow.
    Follower,
}

/// The account that asks. It needs, on MySQL, `SELECT ON performance_schema.*`; on MariaDB `SLAVE MONITOR` (`REPLICA
/// MONITOR`). With CONNECTION_ADMIN it still gets in when the server is full or in offline_mode.
#[derive(Clone)]
pub struct Account {
    /// Its name.
    pub user: Arc<str>,
    /// Its password.
    pub credential: Credential,
}

/// Rhythm of the probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Between two questions to a server while all is well.
    pub interval: Duration,
    /// Between two questions while there is doubt.
    pub doubt_interval: Duration,
    /// Doubt that lasts longer than this is probed at [`Self::lasting_interval`] instead.
    pub doubt_max: Duration,
    /// Between two questions in lasting doubt.
    pub lasting_interval: Duration,
    /// For one question, connecting included.
    pub timeout: Duration,
    /// Longest answer taken, bytes; a GTID set longer than half of it is not asked for.
    pub answer_bytes_max: usize,
}

impl ProbeSettings {
    /// Between two questions that doubts are asking for, however many come.
    pub fn wake_gap(&self) -> Duration {
        self.doubt_interval / 4
    }
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(1000),
            doubt_interval: Duration::from_millis(10),
            doubt_max: Duration::from_secs(60),
            lasting_interval: Duration::from_millis(250),
            timeout: Duration::from_millis(2000),
            answer_bytes_max: 256 * 1024,
        }
    }
}

/// Limits of the rules, milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// An answer older than this proves nothing any more. More than one interval and one timeout.
    pub answer_ms_max: u64,
    /// A member of a group that nobody sees any more is forgotten after this (`members` only).
    pub forget_ms: u64,
    /// A server that is drained may finish what runs for this long.
    pub drain_ms: u64,
    /// A server that has answered nothing for this long is [`super::Backend::silent`].
    pub silence_ms: u64,
    /// A primary that lacks what the last one was seen to have is taken all the same after this. `None`: never.
    pub accept_lost_ms: Option<u64>,
    /// Most servers of one cluster.
    pub backends_max: usize,
    /// Samples of the primary's GTIDs kept to measure lag: one per interval at most.
    pub lag_samples_max: usize,
    /// Least time between two samples.
    pub lag_sample_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_ms_max: 4000,
            forget_ms: 60_000,
            drain_ms: 60_000,
            silence_ms: 10_000,
            accept_lost_ms: None,
            backends_max: 64,
            lag_samples_max: 128,
            lag_sample_ms: 500,
        }
    }
}
