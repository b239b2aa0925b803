//! Which clusters should be there: the configuration's, and what its discoveries have found.
//!
//! A discovery says what it sees as a whole, again and again; what it no longer sees is no more. It never takes a name from
//! the configuration or from a discovery that stands before it in the file, and it adds at most `clusters_max`.

use super::pods::watch_key;
use crate::config::{ClusterConfig, Config, DiscoveryConfig, KubernetesConfig, Source};
use crate::topology::kubernetes::{Group, Hub};
use crate::types::ClusterName;
use futures_util::future::select_all;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What one discovery sees: clusters, and where the servers of each are known from. `None` before it has seen anything.
pub type Found = Option<Arc<BTreeMap<ClusterName, Source>>>;

/// The clusters that should be there, those of the configuration first.
pub(super) fn wanted(config: &Config, found: &[Found]) -> Vec<ClusterConfig> {
    let mut wanted = config.clusters.clone();
    let mut taken: HashSet<String> = wanted.iter().map(|cluster| cluster.name.clone()).collect();
    for (discovery, found) in config.discoveries.iter().zip(found) {
        let Some(found) = found else { continue };
        let mut added = 0;
        for (name, source) in &**found {
            if taken.contains(&*name.0) {
                tracing::warn!(discovery = discovery.name, cluster = %name, "cluster left out: its name is taken");
            } else if added == discovery.clusters_max {
                let (left_out, max) = (found.len() - added, discovery.clusters_max);
                tracing::warn!(discovery = discovery.name, left_out, max, "more clusters than clusters_max");
                break;
            } else {
                added += 1;
                taken.insert(name.to_string());
                wanted.push(of_template(discovery, name, source));
            }
        }
    }
    wanted
}

fn of_template(discovery: &DiscoveryConfig, name: &ClusterName, source: &Source) -> ClusterConfig {
    ClusterConfig { name: name.to_string(), source: source.clone(), ..discovery.template.clone() }
}

/// The discoveries at work, in the order of the configuration.
pub(super) struct Discoveries(Vec<watch::Receiver<Found>>);

/// Starts them; they end with `control`.
pub(super) fn start(discoveries: &[DiscoveryConfig], hub: &Hub, control: &CancellationToken) -> Discoveries {
    Discoveries(discoveries.iter().map(|discovery| look(discovery, hub, control)).collect())
}

fn look(discovery: &DiscoveryConfig, hub: &Hub, control: &CancellationToken) -> watch::Receiver<Found> {
    let (tell, found) = watch::channel(None);
    let pods = discovery.kubernetes.clone();
    let mut feed = hub.groups(watch_key(&pods));
    tokio::spawn(control.clone().run_until_cancelled_owned(async move {
        loop {
            let list = Arc::clone(&feed.groups.borrow_and_update());
            if list.complete {
                tell.send_replace(Some(Arc::new(clusters(&pods, &list.groups))));
            }
            if feed.groups.changed().await.is_err() {
                return;
            }
        }
    }));
    found
}

/// \[pure\] The clusters of these groups. A name is the cluster's label, with the namespace before it where several are
/// watched (`prod.orders`) and the component behind it where pods have one that the discovery doesn't (`orders-mysql`).
fn clusters(pods: &KubernetesConfig, groups: &[Group]) -> BTreeMap<ClusterName, Source> {
    let named = |group: &Group| {
        let mut name = group.cluster.to_string();
        let mut own = KubernetesConfig { cluster: Some(name.clone()), ..pods.clone() };
        if pods.component.is_none() && !group.component.is_empty() {
            own.component = Some(group.component.to_string());
            name = format!("{name}-{}", group.component);
        }
        if pods.namespaces.len() > 1 {
            own.namespaces = vec![group.namespace.to_string()];
            name = format!("{}.{name}", group.namespace);
        }
        (ClusterName::from(name.as_str()), Source::Kubernetes(Box::new(own)))
    };
    let wanted = |group: &&Group| pods.component.as_deref().is_none_or(|component| *group.component == *component);
    groups.iter().filter(wanted).filter(|group| !group.cluster.is_empty()).map(named).collect()
}

impl Discoveries {
    /// What they see now.
    pub fn found(&mut self) -> Vec<Found> {
        self.0.iter_mut().map(|found| found.borrow_and_update().clone()).collect()
    }

    /// Ends when one of them sees something else; for ever while there is none. Cancel safe.
    pub async fn changed(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.0.iter_mut().map(|found| Box::pin(changed(found)))).await;
    }
}

async fn changed(found: &mut watch::Receiver<Found>) {
    if found.changed().await.is_err() {
        // Its task has ended: it changes no more.
        std::future::pending::<()>().await;
    }
}
