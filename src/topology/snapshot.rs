//! \[pure\] One cluster as it was last proven: immutable, published whole, loaded once per command.
//!
//! Why: routing must see one consistent answer to "who is the primary" for the length of a command, and must be able to
//! tell how old that answer is. A snapshot knows nothing of sessions or sockets and decides nothing: the rules that make
//! the next one from the last one are in [`super::proof`].

use super::kubernetes::PodFacts;
use super::kubernetes::pod::called;
use crate::types::{Address, BackendId, ClusterName, Gtids, Role, Term};
use std::sync::Arc;

/// Which family of servers speaks here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// MySQL and its kin (Percona Server).
    #[default]
    MySql,
    /// MariaDB.
    MariaDb,
}

/// May a backend be given new work?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serving {
    /// New work is welcome.
    Yes,
    /// What runs may end, nothing new begins: it was taken out of the configuration, left its group, or its pod is going.
    Draining {
        /// For logs and /topology.
        reason: Arc<str>,
    },
    /// It was drained for as long as that may take: what still runs there is cut.
    Drained {
        /// For logs and /topology.
        reason: Arc<str>,
    },
    /// It gets nothing new, and this is why.
    No {
        /// For logs, /topology and error messages; holds no secret.
        reason: Arc<str>,
    },
}

impl Serving {
    /// The word for metrics and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Draining { .. } => "draining",
            Self::Drained { .. } => "drained",
            Self::No { .. } => "no",
        }
    }

    /// Why it is not [`Self::Yes`].
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Yes => None,
            Self::Draining { reason } | Self::Drained { reason } | Self::No { reason } => Some(reason),
        }
    }
}

/// One mysqld of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Stable for this address as long as the process lives.
    pub id: BackendId,
    /// Where it listens.
    pub address: Address,
    /// Share of the reads among the followers; 0 takes none unless nobody else is left.
    pub weight: u32,
    /// What it has been proven to be. At most one backend of a snapshot is [`Role::Primary`].
    pub role: Role,
    /// May it be given new work?
    pub serving: Serving,
    /// It answered the last question it was asked, lately enough: what runs on it can be answered, too.
    pub answers: bool,
    /// It has answered nothing for so long that what runs on it is not waited for.
    pub silent: bool,
    /// How far behind the primary it was at its last answer, in milliseconds: the true lag lies between this and this plus
    /// one probe interval. 0 for the primary. `None`: not known (no GTIDs, or no primary was seen yet).
    pub lag_ms: Option<u64>,
    /// What it had executed at its last answer. `None`: no GTIDs, or too long a set. Changes without a new version.
    pub gtids: Option<Arc<Gtids>>,
    /// Why it has this role, in words for a person.
    pub evidence: Arc<str>,
    /// `@@server_uuid` (MySQL) at its last answer.
    pub server_uuid: Option<Arc<str>>,
    /// `@@server_id` at its last answer.
    pub server_id: Option<u32>,
    /// Version as its greeting gives it.
    pub version: Option<Arc<str>>,
    /// Its pod, with what its labels call it: hints.
    pub pod: Option<Arc<PodFacts>>,
}

impl Backend {
    /// A backend nobody has asked yet: role unknown, serving nothing.
    pub fn new(id: BackendId, address: Address, weight: u32) -> Self {
        Self {
            id,
            address,
            weight,
            role: Role::Unknown,
            serving: Serving::No { reason: "not asked yet".into() },
            answers: false,
            silent: false,
            lag_ms: None,
            gtids: None,
            evidence: "not asked yet".into(),
            server_uuid: None,
            server_id: None,
            version: None,
            pod: None,
        }
    }

    /// What a person calls it.
    pub fn called(&self) -> String {
        called(&self.address, self.pod.as_deref())
    }
}

/// What listeners show their clients in the greeting: the cluster's version and abilities, as its servers give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacade {
    /// Version as the primary greets, e.g. `9.7.4` or `5.5.5-10.11.14-MariaDB-log`.
    pub version: Arc<str>,
    /// Capability flags that every server of the cluster announces: the low 32 bits are the classic ones, the high 32
    /// bits MariaDB's extended ones.
    pub capabilities: u64,
    /// Default collation id of the greeting.
    pub collation: u8,
    /// Authentication plugin of the greeting.
    pub default_plugin: Arc<str>,
    /// Which family.
    pub flavor: Flavor,
}

/// The server that was last proven primary: what makes the next one "another".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastPrimary {
    /// Its id here.
    pub id: BackendId,
    /// Its `@@server_uuid`, or empty where the server has none (MariaDB).
    pub server_uuid: Arc<str>,
}

/// How servers, labels and terms can contradict each other; a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConflictKind {
    /// More than one server can be written and none of them is proven stale: nobody is the primary.
    TwoWritable,
    /// A writable server was primary before and holds nothing new: it is passed over.
    StalePrimary,
    /// A writable server's term is older than one that has been claimed: it is passed over.
    OldTerm,
    /// A writable server's pod is a learner's: it is passed over.
    Learner,
    /// The only candidate lacks transactions that the last primary was seen to have.
    MissingWrites,
    /// A server calls itself primary without a majority of its group's views.
    NoMajority,
    /// More than one pod carries the primary's label.
    TwoLabels,
    /// The primary's label is on another pod than the proven primary's.
    LabelElsewhere,
    /// No pod carries the primary's label, but there is a proven primary.
    NoLabel,
}

impl ConflictKind {
    /// The word for logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TwoWritable => "two_writable",
            Self::StalePrimary => "stale_primary",
            Self::OldTerm => "old_term",
            Self::Learner => "learner_writable",
            Self::MissingWrites => "missing_writes",
            Self::NoMajority => "no_majority",
            Self::TwoLabels => "two_labels",
            Self::LabelElsewhere => "label_elsewhere",
            Self::NoLabel => "no_label",
        }
    }

    /// Is it about labels, which follow the servers sooner or later?
    pub fn is_label(self) -> bool {
        match self {
            Self::TwoLabels | Self::LabelElsewhere | Self::NoLabel => true,
            Self::TwoWritable
            | Self::StalePrimary
            | Self::OldTerm
            | Self::Learner
            | Self::MissingWrites
            | Self::NoMajority => false,
        }
    }
}

/// A contradiction, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which.
    pub kind: ConflictKind,
    /// Whom it is about.
    pub backends: Vec<BackendId>,
    /// Who says what, and which of it counts, in words for a person.
    pub evidence: Arc<str>,
}

/// One cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Whose picture this is.
    pub cluster: ClusterName,
    /// Counts the changes of roles, serving, membership, doubt or facade; a snapshot that differs only in lag and in the
    /// age of its proof keeps the number.
    pub version: u64,
    /// Counts the primaries: 0 before the first, one more for each other server (or another server behind the same
    /// address) that is proven. The same server proven again after a gap keeps the term. Never goes back.
    pub term: Term,
    /// The proven primary.
    pub primary: Option<BackendId>,
    /// Who will be the primary, by the servers' own words or their labels, while nobody is proven: it may be logged in to, and
    /// nothing more.
    pub heir: Option<BackendId>,
    /// The primary may be given new transactions. False while its pod is going (see [`Serving::Draining`]): then those that
    /// are open may end, new ones wait.
    pub accepting: bool,
    /// When the question was asked whose answer last proved the primary, in [`super::TopologyHandle::now_ms`]'s
    /// milliseconds. `None` while there is no primary.
    pub proven_ms: Option<u64>,
    /// Something speaks against the primary (a hint, a failed probe, no primary at all) and no proof newer than that has
    /// come yet.
    pub doubt: bool,
    /// Every known server, by id.
    pub backends: Vec<Backend>,
    /// What listeners mirror; `None` until a server has answered.
    pub server: Option<ServerFacade>,
    /// Its servers are set up for group replication: what the group has taken comes to each of them.
    pub grouped: bool,
    /// The server that was last proven primary, also while there is none.
    pub last_primary: Option<LastPrimary>,
    /// When the primary last changed (to another, to none, or back), Unix time in milliseconds.
    pub since_unix_ms: u64,
    /// Evidence of that change, or why there is no primary.
    pub why: Arc<str>,
    /// Contradictions there are now.
    pub conflicts: Vec<Conflict>,
}

impl Topology {
    /// A cluster nobody has looked at yet.
    pub fn empty(cluster: ClusterName) -> Self {
        Self {
            cluster,
            version: 0,
            term: Term(0),
            primary: None,
            heir: None,
            accepting: false,
            proven_ms: None,
            doubt: true,
            backends: Vec::new(),
            server: None,
            grouped: false,
            last_primary: None,
            since_unix_ms: 0,
            why: "no server has been asked yet".into(),
            conflicts: Vec::new(),
        }
    }

    /// The proven primary.
    pub fn primary(&self) -> Option<&Backend> {
        self.backend(self.primary?)
    }

    /// The backend with this id, if it is still known.
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        // A handful of entries: a scan beats a map.
        self.backends.iter().find(|backend| backend.id == id)
    }

    /// The followers that may be given reads.
    pub fn followers(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|b| b.role == Role::Follower && b.serving == Serving::Yes)
    }

    /// How old the primary's proof is at `now_ms`, in milliseconds; `None` while there is no primary.
    pub fn proof_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.proven_ms.map(|proven| now_ms.saturating_sub(proven))
    }

    /// The primary, unless it is in doubt and its proof is older than `doubt_ms_max` milliseconds: then a statement waits.
    pub fn primary_for_writes(&self, now_ms: u64, doubt_ms_max: u64) -> Option<&Backend> {
        if self.doubt && self.proof_age_ms(now_ms)? > doubt_ms_max {
            return None;
        }
        self.primary()
    }
}
