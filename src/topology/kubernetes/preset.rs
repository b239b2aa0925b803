//! \[pure\] Whose pods: what each operator's labels and annotations mean.
//!
//! A label is a hint: it says whom to ask, whom to leave in peace, and in which order its author saw the roles change.
//! What proves a role is in [`crate::topology::proof`]. Values are matched whatever their case, because operators have
//! changed theirs between versions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An operator whose labels are known, or labels of the user's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// KubeBlocks.
    Kubeblocks,
    /// MySQL Operator for Kubernetes (Oracle): InnoDBCluster.
    InnodbCluster,
    /// The first operator of Oracle's, API group v1alpha1.mysql.oracle.com.
    #[serde(rename = "oracle-v1alpha1")]
    OracleV1alpha1,
    /// The operator of Bitpoke, formerly Presslabs.
    Bitpoke,
    /// MOCO (Cybozu).
    Moco,
    /// Percona Operator for MySQL.
    Percona,
    /// The StatefulSet of the Kubernetes tutorial: ordinal 0 is the primary, and always will be.
    Statefulset,
    /// Holdfast's own.
    #[default]
    Holdfast,
    /// Given in the proxy's configuration; a custom resource has no place for it.
    #[serde(skip)]
    Custom,
}

impl Preset {
    /// Every preset by the word of the configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("kubeblocks", Self::Kubeblocks),
        ("innodbcluster", Self::InnodbCluster),
        ("oracle-v1alpha1", Self::OracleV1alpha1),
        ("bitpoke", Self::Bitpoke),
        ("moco", Self::Moco),
        ("percona", Self::Percona),
        ("statefulset", Self::Statefulset),
        ("holdfast", Self::Holdfast),
        ("custom", Self::Custom),
    ];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, preset)| *preset == self).map_or("", |(word, _)| word)
    }

    /// What its labels mean. `custom` has none of its own: [`Rules::bare`] is the place to begin.
    pub fn rules(self) -> Rules {
        match self {
            Self::Kubeblocks => kubeblocks(),
            Self::InnodbCluster => innodbcluster(),
            Self::OracleV1alpha1 => Rules {
                cluster_label: Some("v1alpha1.mysql.oracle.com/cluster".into()),
                role: RoleSource::label("v1alpha1.mysql.oracle.com/role", &["primary"], &["secondary"]),
                ..Rules::bare()
            },
            Self::Bitpoke => Rules {
                cluster_label: Some("mysql.presslabs.org/cluster".into()),
                role: RoleSource::label("role", &["master"], &["replica"]),
                healthy: Some(("healthy".into(), "yes".into())),
                ..Rules::bare()
            },
            Self::Moco => Rules {
                selector: vec!["app.kubernetes.io/name=mysql".into()],
                cluster_label: Some("app.kubernetes.io/instance".into()),
                role: RoleSource::label("moco.cybozu.com/role", &["primary"], &["replica"]),
                // Errant replicas lose their label: they hold transactions the primary has never seen.
                unlabelled_reads: false,
                ..Rules::bare()
            },
            Self::Percona => Rules {
                selector: vec!["app.kubernetes.io/component=database".into()],
                cluster_label: Some("app.kubernetes.io/instance".into()),
                role: RoleSource::label("mysql.percona.com/primary", &["true"], &[]),
                ..Rules::bare()
            },
            Self::Statefulset => Rules {
                cluster_label: Some("app".into()),
                narrow: true,
                cluster_default: Some("mysql"),
                role: RoleSource::Ordinal,
                ..Rules::bare()
            },
            Self::Holdfast => Rules {
                cluster_label: Some("holdfast.io/cluster".into()),
                role: RoleSource::label("holdfast.io/role", &["primary"], &["follower"]),
                ..Rules::bare()
            },
            Self::Custom => Rules::bare(),
        }
    }
}

fn kubeblocks() -> Rules {
    let role = RoleSource::Label {
        key: "kubeblocks.io/role".into(),
        primary: vec!["primary".into(), "leader".into()],
        follower: vec!["follower".into(), "secondary".into()],
        learner: vec!["learner".into()],
    };
    Rules {
        cluster_label: Some("app.kubernetes.io/instance".into()),
        component_label: Some("apps.kubeblocks.io/component-name"),
        role,
        unlabelled_reads: false,
        term: TermSource { annotation: "apps.kubeblocks.io/last-role-authoritative-version".into(), ahead: false },
        ..Rules::bare()
    }
}

fn innodbcluster() -> Rules {
    Rules {
        selector: vec!["component=mysqld".into()],
        cluster_label: Some("mysql.oracle.com/cluster".into()),
        role: RoleSource::label("mysql.oracle.com/cluster-role", &["PRIMARY"], &["SECONDARY"]),
        read_replica: Some(("mysql.oracle.com/instance-type", "read-replica")),
        // The operator takes the label from a member that is not ONLINE.
        unlabelled_reads: false,
        ..Rules::bare()
    }
}

/// The annotation that orders primaries: Holdfast's own, honoured for every operator that has none.
pub const TERM_ANNOTATION: &str = "holdfast.io/term";
/// The annotation by which a person takes a pod out of traffic: `"true"`.
pub const CORDON_ANNOTATION: &str = "holdfast.io/cordon";

/// How the pods of an operator are found and read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Requirements of the label selector besides the cluster's name.
    pub selector: Vec<String>,
    /// Its value names the cluster. `None`: the selector means one cluster.
    pub cluster_label: Option<String>,
    /// The cluster's label is one that all kinds of pods carry: each cluster is watched by its own value.
    pub narrow: bool,
    /// The value where the configuration gives none, instead of the cluster's own name.
    pub cluster_default: Option<&'static str>,
    /// Its value names a part of the cluster.
    pub component_label: Option<&'static str>,
    /// Where the role is read.
    pub role: RoleSource,
    /// A label and value that make a pod a follower which has no role label.
    pub read_replica: Option<(&'static str, &'static str)>,
    /// May a pod without a role be read, if SQL proves it a follower?
    pub unlabelled_reads: bool,
    /// A label and the value without which a pod is not read.
    pub healthy: Option<(String, String)>,
    /// Where the order of primaries is read.
    pub term: TermSource,
    /// Where the servers listen; `None`: the container port called `mysql`, else 3306.
    pub port: Option<u16>,
}

/// Where a pod's role is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RoleSource {
    /// A label.
    Label {
        /// Its key.
        key: String,
        /// Values of a primary.
        primary: Vec<String>,
        /// Values of a follower.
        follower: Vec<String>,
        /// Values of a server that may be read and never becomes primary.
        learner: Vec<String>,
    },
    /// The number at the end of its name: 0 is the primary.
    Ordinal,
    /// There is none.
    Nowhere,
}

impl RoleSource {
    fn label(key: &str, primary: &[&str], follower: &[&str]) -> Self {
        let own = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Self::Label { key: key.to_owned(), primary: own(primary), follower: own(follower), learner: Vec::new() }
    }
}

/// Where the order of primaries is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TermSource {
    /// The annotation.
    pub annotation: String,
    /// It is written before its server is opened for writes, so that a writable server with an older one is an old
    /// primary whatever its label says. Otherwise it says when a role was last seen, and only two pods that both carry
    /// the primary's label can be compared.
    pub ahead: bool,
}

impl Rules {
    /// No labels at all; Holdfast's own annotations.
    pub fn bare() -> Self {
        Self {
            selector: Vec::new(),
            cluster_label: None,
            narrow: false,
            cluster_default: None,
            component_label: None,
            role: RoleSource::Nowhere,
            read_replica: None,
            unlabelled_reads: true,
            healthy: None,
            term: TermSource { annotation: TERM_ANNOTATION.to_owned(), ahead: true },
            port: None,
        }
    }

    /// The selector of one watch over the pods of all clusters: the requirements, and that the pods name a cluster.
    pub fn watch_selector(&self, extra: Option<&str>) -> String {
        let labels = self.cluster_label.as_deref().into_iter().chain(self.component_label);
        let parts = self.selector.iter().map(String::as_str).chain(labels).chain(extra);
        parts.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_selector_for_all_clusters_of_an_operator() {
        for (preset, selector) in [
            (Preset::Kubeblocks, "app.kubernetes.io/instance,apps.kubeblocks.io/component-name"),
            (Preset::InnodbCluster, "component=mysqld,mysql.oracle.com/cluster"),
            (Preset::OracleV1alpha1, "v1alpha1.mysql.oracle.com/cluster"),
            (Preset::Bitpoke, "mysql.presslabs.org/cluster"),
            (Preset::Moco, "app.kubernetes.io/name=mysql,app.kubernetes.io/instance"),
            (Preset::Percona, "app.kubernetes.io/component=database,app.kubernetes.io/instance"),
            (Preset::Statefulset, "app"),
            (Preset::Holdfast, "holdfast.io/cluster"),
            (Preset::Custom, ""),
        ] {
            assert_eq!(preset.rules().watch_selector(None), selector, "{preset:?}");
            assert!(Preset::WORDS.contains(&(preset.as_str(), preset)));
            // A custom resource has the same words.
            let written = serde_json::to_value(preset).ok();
            assert_eq!(written, (preset != Preset::Custom).then(|| preset.as_str().into()));
        }
        assert_eq!(Preset::Holdfast.rules().watch_selector(Some("a=b")), "holdfast.io/cluster,a=b");
    }
}
