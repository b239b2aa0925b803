//! `[cluster.kubernetes]` and what is in it.

use std::path::PathBuf;

use crate::topology::kubernetes::Preset;

/// `[cluster.kubernetes]`: whose pods are the cluster's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// `preset`: which operator labels the pods. [`Preset::Custom`] exactly if `custom` is given.
    pub preset: Preset,
    /// `namespace` or `namespaces`, unique. Empty (the default): the namespace this proxy runs in.
    pub namespaces: Vec<String>,
    /// `cluster`: the value of the preset's cluster label. Default: the `[[cluster]]`'s name, and for `statefulset` mysql.
    pub cluster: Option<String>,
    /// `component`: the value of the component's label, for presets that have one (kubeblocks).
    pub component: Option<String>,
    /// `selector`: narrows the pods further.
    pub selector: Option<String>,
    /// `port`: where the servers listen. Default: the pod's container port called mysql, else 3306.
    pub port: Option<u16>,
    /// `kubeconfig`: default: the pod's ServiceAccount, else what kubectl uses.
    pub kubeconfig: Option<PathBuf>,
    /// `context` of the kubeconfig. Default: its current one.
    pub context: Option<String>,
    /// `[cluster.kubernetes.custom]`
    pub custom: Option<CustomPreset>,
}

impl KubernetesConfig {
    /// A preset with every default.
    pub fn new(preset: Preset) -> Self {
        Self {
            preset,
            namespaces: Vec::new(),
            cluster: None,
            component: None,
            selector: None,
            port: None,
            kubeconfig: None,
            context: None,
            custom: None,
        }
    }
}

/// `[cluster.kubernetes.custom]`: the labels of pods that no preset knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomPreset {
    /// `selector`: the pods.
    pub selector: String,
    /// `cluster_label`: its value says which cluster a pod belongs to. Default: the selector says it all.
    pub cluster_label: Option<String>,
    /// `role_label`
    pub role_label: String,
    /// `primary`: its values on a primary, at least one.
    pub primary: Vec<String>,
    /// `follower`: its values on a follower.
    pub follower: Vec<String>,
    /// `learner`: its values on a server that may be read and never becomes primary.
    pub learner: Vec<String>,
    /// `unlabelled`: what a pod without a known role may do. Default none.
    pub unlabelled: Unlabelled,
    /// `healthy`: a label and its value without which a pod is read by nobody.
    pub healthy: Option<(String, String)>,
    /// `term_annotation`: a number that grows with each change of the primary. Default `holdfast.io/term`.
    pub term_annotation: Option<String>,
}

/// What the absence of a role says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unlabelled {
    /// It gets no reads.
    #[default]
    None,
    /// It is a follower like any other.
    Follower,
}
