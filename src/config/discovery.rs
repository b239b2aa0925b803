//! `[[discovery]]`: from a table of the file to a [`DiscoveryConfig`].

use super::listener::read_name;
use super::model::DiscoveryConfig;
use super::section::Section;
use super::{cluster, kubernetes};

const CLUSTERS_MAX: u64 = 10_000;

/// Reads one `[[discovery]]`. `None` if what has no default is missing; then a problem has been reported.
pub(super) fn read(section: &Section) -> Option<DiscoveryConfig> {
    let name = read_name(section);
    let pods = kubernetes::read_keys(section);
    let unnamed = pods.as_ref().and_then(|pods| pods.custom.as_ref()).is_some_and(|own| own.cluster_label.is_none());
    if unnamed {
        section.refuse("custom", "clusters are told apart by a label: write its cluster_label");
    }
    let mut clusters_max = 200;
    section.count("clusters_max", 1..=CLUSTERS_MAX, &mut clusters_max);
    let template = cluster::read_template(section, name.as_deref().unwrap_or_default());
    section.done();
    Some(DiscoveryConfig { name: name?, clusters_max, kubernetes: pods?, template: template? })
}
