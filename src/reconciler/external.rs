//! \[pure\] The part of a MysqlCluster's spec that only `external` ones have: whose pods they are, and as whom they are asked.

use crate::topology::kubernetes::preset::{Preset, Rules};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest value of a label (Kubernetes: Labels and Selectors).
const LABEL_MAX: usize = 63;

/// Whose pods these are, and as whom they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct External {
    /// Whose labels the pods have.
    #[serde(default)]
    pub preset: Preset,
    /// The value of the label that names the cluster; the name of this object where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The part of the cluster (kubeblocks: the component's name); any where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// As whom the servers are asked. It needs REPLICATION CLIENT and SELECT on performance_schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<ExternalAccount>,
}

/// An account whose password is in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalAccount {
    /// The Secret, in the same namespace.
    pub secret_name: String,
    /// The account's name.
    pub user: String,
    /// The key of its password in the Secret.
    #[serde(default = "password")]
    pub key: String,
}

fn password() -> String {
    "password".to_owned()
}

impl External {
    /// What the labels mean.
    pub fn rules(&self) -> Rules {
        self.preset.rules()
    }

    /// The label selector of the cluster's pods; `name`: that of the MysqlCluster.
    pub fn selector(&self, name: &str) -> String {
        let rules = self.rules();
        let cluster = self.cluster.as_deref().or(rules.cluster_default).unwrap_or(name);
        let named = rules.cluster_label.map(|label| format!("{label}={cluster}"));
        let part = rules.component_label.map(|label| match &self.component {
            Some(component) => format!("{label}={component}"),
            None => label.to_owned(),
        });
        rules.selector.into_iter().chain(named).chain(part).collect::<Vec<_>>().join(",")
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<&'static str> {
        let plain = |value: &Option<String>| value.as_deref().is_none_or(is_label_value);
        let part = self.component.is_some() && self.rules().component_label.is_none();
        let rules = [
            (!plain(&self.cluster), "external.cluster is not the value of a label"),
            (!plain(&self.component), "external.component is not the value of a label"),
            (part, "external.component: only KubeBlocks has components"),
        ];
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, words)| words).collect()
    }
}

fn is_label_value(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LABEL_MAX && text.bytes().all(plain) && ends(text.bytes().next()) && ends(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn external(value: Value) -> External {
        serde_json::from_value(value).expect("a part of a spec")
    }

    #[test]
    fn each_operators_pods_are_found_by_its_own_labels() {
        for (spec, selector) in [
            (json!({}), "holdfast.io/cluster=orders"),
            (json!({ "preset": "kubeblocks" }), "app.kubernetes.io/instance=orders,apps.kubeblocks.io/component-name"),
            (
                json!({ "preset": "kubeblocks", "cluster": "shop", "component": "mysql" }),
                "app.kubernetes.io/instance=shop,apps.kubeblocks.io/component-name=mysql",
            ),
            (json!({ "preset": "innodbcluster" }), "component=mysqld,mysql.oracle.com/cluster=orders"),
            (json!({ "preset": "oracle-v1alpha1" }), "v1alpha1.mysql.oracle.com/cluster=orders"),
            (json!({ "preset": "bitpoke" }), "mysql.presslabs.org/cluster=orders"),
            (json!({ "preset": "moco" }), "app.kubernetes.io/name=mysql,app.kubernetes.io/instance=orders"),
            (
                json!({ "preset": "percona", "cluster": "shop" }),
                "app.kubernetes.io/component=database,app.kubernetes.io/instance=shop",
            ),
            (json!({ "preset": "statefulset" }), "app=mysql"),
        ] {
            assert_eq!(external(spec.clone()).selector("orders"), selector, "{spec}");
        }
        assert!(serde_json::from_value::<External>(json!({ "preset": "custom" })).is_err());
    }

    #[test]
    fn a_name_is_one_value_of_a_label() {
        let long = "a".repeat(LABEL_MAX + 1);
        for (spec, problems) in [
            (json!({ "cluster": "a.b-c_d" }), &[][..]),
            (json!({ "cluster": "a,b=c" }), &["external.cluster is not the value of a label"]),
            (json!({ "cluster": "" }), &["external.cluster is not the value of a label"]),
            (json!({ "cluster": long }), &["external.cluster is not the value of a label"]),
            (json!({ "preset": "kubeblocks", "component": "-" }), &["external.component is not the value of a label"]),
            (json!({ "preset": "moco", "component": "m" }), &["external.component: only KubeBlocks has components"]),
        ] {
            assert_eq!(external(spec.clone()).problems(), problems, "{spec}");
        }
    }
}
