//! `[[discovery]]`: from a table of the file to a [`DiscoveryConfig`].

use super::listener::read_name;
use super::model::{DiscoveryConfig, KubernetesSelector};
use super::section::Section;
use super::{cluster, words::shown};

const PRESETS: [&str; 8] =
    ["kubeblocks", "innodbcluster", "oracle-v1alpha1", "bitpoke", "moco", "percona", "statefulset", "holdfast"];
const CLUSTERS_MAX: u64 = 10_000;

/// Reads one `[[discovery]]`. `None` if what has no default is missing; then a problem has been reported.
pub(super) fn read(section: &Section) -> Option<DiscoveryConfig> {
    let name = read_name(section);
    let preset = read_preset(section);
    let namespaces = section.list("namespaces", namespace).unwrap_or_default();
    let selector = section.text("selector").unwrap_or_default().to_owned();
    let mut clusters_max = 200;
    section.count("clusters_max", 1..=CLUSTERS_MAX, &mut clusters_max);
    let template = cluster::read_template(section, name.as_deref().unwrap_or_default());
    section.done();
    let kubernetes = KubernetesSelector { preset: preset?.to_owned(), namespaces, selector };
    Some(DiscoveryConfig { name: name?, clusters_max, kubernetes, template: template? })
}

fn read_preset<'a>(section: &Section<'a, '_>) -> Option<&'a str> {
    let written = section.text("preset");
    if !section.has("preset") {
        section.missing("preset", "the operator whose labels the pods have, as in preset = \"kubeblocks\"");
    }
    let known = written.filter(|preset| PRESETS.contains(preset));
    if let (Some(preset), None) = (written, known) {
        let advice = super::words::one_of(PRESETS);
        section.refuse("preset", format_args!("{} is not known: write {advice}", shown(preset)));
    }
    known
}

/// A namespace is a DNS label.
fn namespace(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(plain) {
        return Err(format!("{} is not a namespace: write small letters, digits and \"-\"", shown(text)));
    }
    Ok(text.to_owned())
}
