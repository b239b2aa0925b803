//! Which cluster a listener's logins lead to, and `[[discovery]]`: clusters that are found rather than written.

use std::collections::BTreeMap;

use super::{ClusterConfig, KubernetesConfig};

/// Which clusters are behind a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// `route`: what of a login may name its cluster, asked in this order. Empty: nothing does, all go to `default`,
    /// which then is there.
    pub by: Vec<RouteBy>,
    /// `cluster`, or with `route` `default_cluster`: for logins that name none.
    pub default: Option<String>,
    /// `[listener.sni]`: TLS server names in lower case and their clusters.
    pub sni: BTreeMap<String, String>,
    /// `[listener.schema]`: initial schemas and their clusters.
    pub schema: BTreeMap<String, String>,
}

impl Routes {
    /// Everything to one cluster.
    pub fn to(cluster: impl Into<String>) -> Self {
        Self { default: Some(cluster.into()), ..Self::default() }
    }
}

/// What of a login names its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteBy {
    /// The server name of the TLS handshake.
    Sni,
    /// The user name: `app@orders`.
    User,
    /// The initial schema.
    Schema,
}

impl RouteBy {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sni => "sni",
            Self::User => "user",
            Self::Schema => "schema",
        }
    }
}

/// `[[discovery]]`: a template for clusters that appear and disappear while the proxy runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// `name`: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// `clusters_max`: clusters it may add; further ones are left out and logged. Default 200.
    pub clusters_max: usize,
    /// The pods of all its clusters; `cluster` is `None`.
    pub kubernetes: KubernetesConfig,
    /// Every key of a `[[cluster]]` but its name and source; `required` is false by default. Its name is the discovery's.
    pub template: ClusterConfig,
}
