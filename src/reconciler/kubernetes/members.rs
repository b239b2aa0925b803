//! Which pods are the members of a cluster, and what their labels mean: Holdfast's own, or another operator's.
//!
//! Own pods of all clusters come from one watch. Each external cluster has a watch of its own, by its operator's labels.

use super::cache::{Cache, follow};
use super::{Shared, objects};
use crate::reconciler::resource::{MysqlCluster, TopologyKind};
use crate::topology::kubernetes::pod::Pod;
use crate::topology::kubernetes::preset::{Preset, Rules};
use std::sync::Arc;
use tokio::sync::Notify;

/// The pods of one cluster.
#[derive(Clone)]
pub struct Members {
    /// What their labels mean.
    pub rules: Rules,
    name: String,
    pods: Arc<Cache<Pod>>,
    /// By which the other operator's pods are found; `None`: they are Holdfast's own.
    selector: Option<String>,
    listed: Arc<Notify>,
}

impl Members {
    /// Those of this cluster.
    pub fn of(shared: &Shared, cluster: &MysqlCluster) -> Self {
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let listed = Arc::default();
        if cluster.spec.topology != TopologyKind::External {
            let rules = Preset::Holdfast.rules();
            return Self { rules, name, pods: shared.pods.clone(), selector: None, listed };
        }
        let external = cluster.spec.external.clone().unwrap_or_default();
        let selector = Some(external.selector(&name));
        Self { rules: external.rules(), name, pods: Arc::default(), selector, listed }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        let is_named =
            |pod: &Pod| pod.metadata.labels.as_ref().and_then(|all| all.get(objects::CLUSTER)) == Some(&self.name);
        self.pods.all(|pod| self.selector.is_some() || is_named(pod))
    }

    /// The pod of that name.
    pub fn find(&self, name: &str) -> Option<Arc<Pod>> {
        self.pods.find(name)
    }

    /// Ends when all of them are known.
    pub async fn known(&self) {
        // Own ones were listed before any cluster is kept.
        while !self.pods.is_listed() {
            self.listed.notified().await;
        }
    }

    /// Keeps another operator's up to date; never ends.
    pub async fn watch(&self, shared: &Shared) {
        let Some(selector) = &self.selector else { return std::future::pending().await };
        let concerns = |_: &Pod| Some(self.name.clone());
        follow(shared.pods_api(), selector, &self.pods, concerns, (&shared.bells, &self.listed)).await;
    }
}
