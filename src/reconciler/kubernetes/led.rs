//! What is kept now, as the admin port knows it: it listens as long as the process lives, clusters are kept only while it leads.
//!
//! A proxy's suspicion rings a bell of its own, which only the engine hears: upkeep has nothing to do with it. It is a bell and
//! no queue, and the engine looks at most as often as in haste, so a flood of them is one look after the other and no more.

use super::Shared;
use crate::admin::suspect::Heard;
use crate::metrics::reconciler as metrics;
use crate::reconciler::resource::MysqlCluster;
use crate::topology::suspicion::Suspicion;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The namespaces that are kept now; none while another leads.
#[derive(Default)]
pub struct Led(Mutex<Vec<Weak<Shared>>>);

impl Led {
    /// This namespace is kept for as long as somebody else has it.
    pub fn add(&self, shared: &Arc<Shared>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one.strong_count() > 0);
        kept.push(Arc::downgrade(shared));
    }

    fn kept(&self) -> Vec<Arc<Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// The clusters; `None` while another leads.
    pub fn clusters(&self) -> Option<Vec<Arc<MysqlCluster>>> {
        let kept = self.kept();
        (!kept.is_empty()).then(|| kept.iter().flat_map(|shared| shared.clusters.all(|_| true)).collect())
    }

    /// Has the cluster looked at, if it is kept here.
    pub fn hear(&self, suspicion: &Suspicion<'_>) -> Heard {
        let all = self.kept();
        let mut heard = if all.is_empty() { Heard::NotLeading } else { Heard::NoSuchCluster };
        for shared in all.iter().filter(|one| suspicion.namespace.is_none_or(|name| name == one.namespace)) {
            if shared.clusters.find(suspicion.cluster).is_some() {
                shared.suspicions.ring(Some(suspicion.cluster.to_owned()));
                heard = Heard::Yes;
            }
        }
        tracing::debug!(
            cluster = suspicion.cluster,
            heard = heard.as_str(),
            "a proxy says that the primary looks lost"
        );
        metrics::nudged(heard.as_str());
        heard
    }
}
