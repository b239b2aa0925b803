//! The clusters that are served now, by name. They come and go: with the configuration, and with what is discovered.
//!
//! One task writes, everybody reads: a login finds its cluster here once and keeps it. A cluster that is taken out is ended
//! by the writer, and those who still hold it see that.

use super::shared::Cluster;
use crate::types::ClusterName;
use arc_swap::{ArcSwap, Guard};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Name → cluster.
pub type ByName = BTreeMap<ClusterName, Arc<Cluster>>;

/// The clusters of the process.
pub struct Clusters {
    by_name: ArcSwap<ByName>,
    changed: watch::Sender<()>,
}

impl Default for Clusters {
    fn default() -> Self {
        Self { by_name: ArcSwap::default(), changed: watch::Sender::new(()) }
    }
}

impl Clusters {
    /// All of them as they are now.
    pub fn load(&self) -> Guard<Arc<ByName>> {
        self.by_name.load()
    }

    /// The cluster of that name.
    pub fn find(&self, name: &str) -> Option<Arc<Cluster>> {
        self.load().get(name).cloned()
    }

    /// Tells when there are others.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Replaces them; the writer's alone. What is not among them any more is ended.
    pub fn replace(&self, clusters: ByName) {
        let old = self.by_name.swap(Arc::new(clusters));
        self.changed.send_replace(());
        let now = self.by_name.load();
        let stays = |old: &Cluster| now.get(&old.name).is_some_and(|new| new.id == old.id);
        old.values().filter(|old| !stays(old)).for_each(|gone| gone.end());
    }
}
