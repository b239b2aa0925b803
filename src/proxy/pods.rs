//! From `[cluster.kubernetes]` to the watch its pods come from.

use crate::config::{ClusterConfig, CustomPreset, KubernetesConfig, Source, Unlabelled};
use crate::topology::Reconciler;
use crate::topology::kubernetes::preset::TERM_ANNOTATION;
use crate::topology::kubernetes::{Access, Hub, PodFeed, Query, RoleSource, Rules, TermSource, WatchKey};

/// The pods of a cluster; `None` if its servers are no pods.
pub(super) fn feed(hub: &Hub, config: &ClusterConfig) -> Option<PodFeed> {
    let Source::Kubernetes(kubernetes) = &config.source else { return None };
    let watch = watch_key(kubernetes);
    let cluster = label(config, kubernetes, &watch.rules);
    Some(hub.pods(Query { watch, cluster, component: kubernetes.component.clone() }))
}

/// What the cluster's label says.
fn label(config: &ClusterConfig, kubernetes: &KubernetesConfig, rules: &Rules) -> String {
    let default = || rules.cluster_default.map_or_else(|| config.name.clone(), str::to_owned);
    kubernetes.cluster.clone().unwrap_or_else(default)
}

/// Who is told when the primary looks lost, and by what name. Without just one namespace every cluster of that name is meant:
/// a look too many harms nobody.
pub(super) fn reconciler(config: &ClusterConfig) -> Option<Reconciler> {
    let address = config.reconciler.clone()?;
    let (cluster, namespace) = match &config.source {
        Source::Kubernetes(kubernetes) => {
            let namespace = match kubernetes.namespaces.as_slice() {
                [namespace] => Some(namespace.as_str().into()),
                _ => None,
            };
            (label(config, kubernetes, &watch_key(kubernetes).rules), namespace)
        }
        Source::Static { .. } | Source::Members { .. } => (config.name.clone(), None),
    };
    Some(Reconciler { address, cluster: cluster.into(), namespace })
}

/// The watch that has them, among those of other clusters.
pub(crate) fn watch_key(config: &KubernetesConfig) -> WatchKey {
    let mut rules = config.custom.as_ref().map_or_else(|| config.preset.rules(), custom_rules);
    rules.port = config.port;
    WatchKey {
        access: Access { kubeconfig: config.kubeconfig.clone(), context: config.context.clone() },
        namespaces: config.namespaces.clone(),
        preset: config.preset,
        rules,
        selector: config.selector.clone(),
    }
}

fn custom_rules(custom: &CustomPreset) -> Rules {
    Rules {
        selector: vec![custom.selector.clone()],
        cluster_label: custom.cluster_label.clone(),
        role: RoleSource::Label {
            key: custom.role_label.clone(),
            primary: custom.primary.clone(),
            follower: custom.follower.clone(),
            learner: custom.learner.clone(),
        },
        unlabelled_reads: custom.unlabelled == Unlabelled::Follower,
        healthy: custom.healthy.clone(),
        // Whether its author writes it before the server is opened is not known.
        term: match &custom.term_annotation {
            Some(annotation) => TermSource { annotation: annotation.clone(), ahead: annotation == TERM_ANNOTATION },
            None => TermSource { annotation: TERM_ANNOTATION.to_owned(), ahead: true },
        },
        ..Rules::bare()
    }
}
