//! Who wants which pods: watches are shared, and end with the last who holds one.
//!
//! Everybody who asks for the same labels in the same namespaces of the same API server gets the same watch; [`PodFeed`] is
//! one cluster's part of it, [`GroupFeed`] says which clusters there are.

use super::client::Access;
use super::follow::{Shared, lock, run};
use super::pod::{Group, PodFacts};
use super::preset::{Preset, Rules};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Which pods: one watch each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchKey {
    /// Of which API server.
    pub access: Access,
    /// In which namespaces; none: the proxy's own.
    pub namespaces: Vec<String>,
    /// Whose labels, for logs and metrics.
    pub preset: Preset,
    /// What they mean.
    pub rules: Rules,
    /// More requirements of the selector.
    pub selector: Option<String>,
}

/// The pods of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Among these.
    pub watch: WatchKey,
    /// The value of the cluster's label; ignored where the rules have no such label.
    pub cluster: String,
    /// The value of the component's label; `None`: any.
    pub component: Option<String>,
}

/// Facts of one cluster's pods.
#[derive(Clone, Debug, Default)]
pub struct PodList {
    /// All of them have been listed once; before that the list says nothing.
    pub complete: bool,
    /// By namespace and name.
    pub pods: Vec<Arc<PodFacts>>,
}

/// The clusters that have pods.
#[derive(Clone, Debug, Default)]
pub struct GroupList {
    /// As [`PodList::complete`].
    pub complete: bool,
    /// Sorted.
    pub groups: Vec<Group>,
}

/// One cluster's pods as they change.
#[derive(Clone)]
pub struct PodFeed {
    /// The newest facts.
    pub pods: watch::Receiver<Arc<PodList>>,
    source: Arc<Running>,
}

/// All clusters of a watch, as they come and go.
#[derive(Clone)]
pub struct GroupFeed {
    /// The newest list.
    pub groups: watch::Receiver<Arc<GroupList>>,
    source: Arc<Running>,
}

impl PodFeed {
    /// Why the facts may be old; `None` while the watch is up.
    pub fn trouble(&self) -> Option<String> {
        self.source.shared.trouble()
    }
}

impl GroupFeed {
    /// Why the list may be old; `None` while the watch is up.
    pub fn trouble(&self) -> Option<String> {
        self.source.shared.trouble()
    }
}

/// All watches of the process.
pub struct Hub {
    watches: Mutex<HashMap<WatchKey, Weak<Running>>>,
    shutdown: CancellationToken,
}

/// A watch that runs as long as somebody holds this.
struct Running {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Hub {
    /// No watch yet. All end with `shutdown`.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { watches: Mutex::default(), shutdown }
    }

    /// The pods of one cluster. Must run inside a tokio runtime, which the watch stays on.
    pub fn pods(&self, mut query: Query) -> PodFeed {
        let rules = &query.watch.rules;
        match &rules.cluster_label {
            None => query.cluster.clear(),
            Some(label) if rules.narrow => {
                let own = format!("{label}={}", query.cluster);
                let more = query.watch.selector.iter().map(|more| format!(",{more}"));
                query.watch.selector = Some(std::iter::once(own).chain(more).collect());
            }
            Some(_) => {}
        }
        let source = self.running(query.watch);
        let pods = source.shared.subscribe(query.cluster, query.component);
        PodFeed { pods, source }
    }

    /// The clusters that have pods, as they come and go. Must run inside a tokio runtime.
    pub fn groups(&self, key: WatchKey) -> GroupFeed {
        let source = self.running(key);
        GroupFeed { groups: source.shared.groups.subscribe(), source }
    }

    /// How many watches run.
    pub fn watches(&self) -> usize {
        lock(&self.watches).values().filter(|watch| watch.strong_count() > 0).count()
    }

    /// Why facts may be old, of each watch that is not up; sorted.
    pub fn troubles(&self) -> Vec<String> {
        let running: Vec<Arc<Running>> = lock(&self.watches).values().filter_map(Weak::upgrade).collect();
        let mut all: Vec<String> = running.iter().filter_map(|running| running.shared.trouble()).collect();
        all.sort();
        all.dedup();
        all
    }

    fn running(&self, key: WatchKey) -> Arc<Running> {
        let mut watches = lock(&self.watches);
        if let Some(running) = watches.get(&key).and_then(Weak::upgrade) {
            return running;
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        let stop = self.shutdown.child_token();
        let shared = Arc::new(Shared::new(key.clone()));
        let work = Arc::clone(&shared);
        let token = stop.clone();
        tokio::spawn(async move { token.run_until_cancelled(run(work)).await });
        let running = Arc::new(Running { shared, _stop: stop.drop_guard() });
        watches.insert(key, Arc::downgrade(&running));
        running
    }
}
