//! The way every other room reaches one cluster's topology: load the snapshot, wait for another, cast doubt.
//!
//! Why apart from the writer: workers on other threads hold clones of this, and none of them can change a role with it. A
//! hint only wakes the prober; it never blocks and is dropped when too many are waiting already (one is enough).

use super::json;
use super::kubernetes::PodFeed;
use super::settings::TopologySettings;
use super::snapshot::Topology;
use crate::types::BackendId;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// What made somebody doubt a backend. Never proof: it only makes the prober look at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// A connection that was in use was closed or reset.
    ConnectionLost,
    /// The server refused a write: 1290 (ER_OPTION_PREVENTS_STATEMENT), 1836 (ER_READ_ONLY_MODE), 3100 (group plugin).
    ReadOnly,
    /// The server is stopping: 1053 (ER_SERVER_SHUTDOWN), 3032 (ER_SERVER_OFFLINE_MODE).
    Shutdown,
    /// No connection could be opened.
    ConnectFailed,
}

impl Hint {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionLost => "connection_lost",
            Self::ReadOnly => "read_only",
            Self::Shutdown => "shutdown",
            Self::ConnectFailed => "connect_failed",
        }
    }
}

/// Hints and settings that may wait for the writer.
const COMMANDS_MAX: usize = 256;

/// What the writer can be told.
pub(super) enum Command {
    /// Something speaks against a backend.
    Suspect { backend: BackendId, hint: Hint, at_ms: u64 },
    /// Other settings.
    Configure(Box<TopologySettings>),
}

/// One cluster's topology as other rooms see it. Cheap to clone, usable from every thread.
#[derive(Clone)]
pub struct TopologyHandle {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<Topology>,
    /// [`Topology::version`] of the current snapshot.
    changed: watch::Sender<u64>,
    /// Counts every stored snapshot, also those that only renew the proof.
    rounds: watch::Sender<u64>,
    commands: mpsc::Sender<Command>,
    epoch: Instant,
    /// Where pods come from, to ask how that is.
    source: ArcSwapOption<PodFeed>,
}

impl TopologyHandle {
    /// A handle that always shows `topology`, for tests of other rooms; its hints go nowhere.
    pub fn fixed(topology: Topology) -> Self {
        Self::new(topology, Instant::now()).0
    }

    /// The handle and the writer's end of its commands; milliseconds count from `epoch`.
    pub(super) fn new(topology: Topology, epoch: Instant) -> (Self, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let version = topology.version;
        let shared = Shared {
            current: ArcSwap::from_pointee(topology),
            changed: watch::Sender::new(version),
            rounds: watch::Sender::new(0),
            commands,
            epoch,
            source: ArcSwapOption::empty(),
        };
        (Self { shared: Arc::new(shared) }, inbox)
    }

    /// The current snapshot, without locking. Take it once per command and drop it before the next wait.
    pub fn load(&self) -> Guard<Arc<Topology>> {
        self.shared.current.load()
    }

    /// The current snapshot to keep across a wait.
    pub fn snapshot(&self) -> Arc<Topology> {
        self.shared.current.load_full()
    }

    /// Tells of every new [`Topology::version`].
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Now on the clock of [`Topology::proven_ms`], in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.shared.epoch.elapsed().as_millis() as u64
    }

    /// Casts doubt on a backend: the prober looks at once. Never blocks; with too many hints waiting this one is dropped,
    /// because those that wait have the same effect. Answers the moment of the doubt for [`Self::primary_since`].
    pub fn suspect(&self, backend: BackendId, hint: Hint) -> u64 {
        let now_ms = self.now_ms();
        let _ = self.shared.commands.try_send(Command::Suspect { backend, hint, at_ms: now_ms });
        now_ms
    }

    /// Waits for a primary whose proof was asked for after `since_ms` (see [`Self::suspect`]), at most `limit`. `None` when
    /// there was none in time or the writer has ended. Cancel safe.
    pub async fn primary_since(&self, since_ms: u64, limit: Duration) -> Option<Arc<Topology>> {
        let mut rounds = self.shared.rounds.subscribe();
        let wait = async {
            loop {
                let topology = self.snapshot();
                if topology.primary.is_some() && topology.proven_ms.is_some_and(|proven| proven > since_ms) {
                    return Some(topology);
                }
                rounds.changed().await.ok()?;
            }
        };
        tokio::time::timeout(limit, wait).await.ok().flatten()
    }

    /// Gives the writer other settings: servers are added, drained or kept with their ids, all connections of the probers
    /// are opened again. The cluster's name must be the same. Waits while too many commands are waiting; cancel safe.
    pub async fn configure(&self, settings: TopologySettings) {
        // Fails only after the writer's end, when settings mean nothing any more.
        let _ = self.shared.commands.send(Command::Configure(Box::new(settings))).await;
    }

    /// Why what is known of the cluster's pods may be old; proof goes on. `None` while all is well.
    pub fn source_trouble(&self) -> Option<String> {
        self.shared.source.load().as_ref().and_then(|source| source.trouble())
    }

    /// The current snapshot for /topology, with `source_trouble`; see [`json::to_json`].
    pub fn to_json(&self, connections: &HashMap<BackendId, u64>) -> serde_json::Value {
        let mut json = json::to_json(&self.load(), self.now_ms(), connections);
        json["source_trouble"] = self.source_trouble().into();
        json
    }

    /// Notes where pods come from; the writer's alone.
    pub(super) fn set_source(&self, source: Option<&PodFeed>) {
        self.shared.source.store(source.cloned().map(Arc::new));
    }

    /// Makes `topology` the current snapshot; the writer's alone.
    pub(super) fn publish(&self, topology: Arc<Topology>) {
        let version = topology.version;
        self.shared.current.store(topology);
        self.shared.changed.send_if_modified(|v| std::mem::replace(v, version) != version);
        self.shared.rounds.send_modify(|round| *round += 1);
    }
}
