//! `[cluster.kubernetes]`: from a table of the file to a [`KubernetesConfig`].

use super::model::*;
use super::section::Section;
use super::words::shown;
use crate::topology::kubernetes::Preset;

pub(super) const UNLABELLED: &[(&str, Unlabelled)] = &[("none", Unlabelled::None), ("follower", Unlabelled::Follower)];
/// Kubernetes' own limits: a label's value, and a label's key with its prefix.
const VALUE_LENGTH_MAX: usize = 63;
const KEY_LENGTH_MAX: usize = 253 + 1 + 63;
const SELECTOR_LENGTH_MAX: usize = 4096;

/// Reads the section; problems are only reported where the source is `kubernetes` or the section is written.
pub(super) fn read(section: &Section) -> Option<KubernetesConfig> {
    let cluster = label_value(section, "cluster");
    let config = read_keys(section);
    section.done();
    Some(KubernetesConfig { cluster, ..config? })
}

/// Reads its keys but `cluster`, among others that the section may have.
pub(super) fn read_keys(section: &Section) -> Option<KubernetesConfig> {
    let preset = section.choice("preset", Preset::WORDS);
    let namespaces = read_namespaces(section);
    let component = label_value(section, "component");
    let selector = selector(section, "selector");
    let port = section.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok());
    let kubeconfig = section.file("kubeconfig");
    let context = section.text("context").map(str::to_owned);
    let custom_section = section.section("custom");
    let custom = read_custom(&custom_section);
    if preset.is_some_and(|preset| preset != Preset::Kubeblocks) && section.has("component") {
        section.refuse("component", "only pods of preset = \"kubeblocks\" have one: write selector = \"label=value\"");
    }
    if preset.is_some_and(|preset| preset != Preset::Custom) && custom_section.is_present() {
        section.refuse("custom", "belongs to preset = \"custom\": write that, or leave the table out");
    }
    if preset == Some(Preset::Custom) && !custom_section.is_present() {
        custom_section.missing_table("selector, role_label, primary and follower");
        return None;
    }
    if section.is_present() && !section.has("preset") {
        section.missing("preset", "the operator whose pods these are, as in preset = \"innodbcluster\"");
    }
    let preset = preset?;
    let custom = if preset == Preset::Custom { Some(custom?) } else { None };
    let base = KubernetesConfig::new(preset);
    Some(KubernetesConfig { namespaces, component, selector, port, kubeconfig, context, custom, ..base })
}

fn read_namespaces(section: &Section) -> Vec<String> {
    let one = section.text("namespace").map(namespace).and_then(|read| match read {
        Ok(name) => Some(name),
        Err(why) => {
            section.refuse("namespace", why);
            None
        }
    });
    let several = section.list("namespaces", namespace);
    if section.has("namespace") && section.has("namespaces") {
        section.refuse("namespace", "namespaces is written too: write one of them");
    }
    if several.as_ref().is_some_and(Vec::is_empty) {
        section.refuse("namespaces", "write at least one, or leave it out for the proxy's own");
    }
    let mut all = several.unwrap_or_else(|| one.into_iter().collect());
    let written = all.len();
    all.sort();
    all.dedup();
    if all.len() < written {
        section.refuse("namespaces", "one is written twice: leave one out");
    }
    all
}

/// A namespace is a DNS label (RFC 1123).
fn namespace(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > VALUE_LENGTH_MAX || edge || !text.bytes().all(plain) {
        return Err(format!("{} is no namespace: write small letters, digits and \"-\"", shown(text)));
    }
    Ok(text.to_owned())
}

fn read_custom(section: &Section) -> Option<CustomPreset> {
    let selector = selector(section, "selector");
    let cluster_label = label_key(section, "cluster_label");
    let role_label = label_key(section, "role_label");
    let value = |text: &str| {
        if is_name(text) { Ok(text.to_owned()) } else { Err(format!("{} is no label's value", shown(text))) }
    };
    let primary = section.list("primary", value);
    let follower = section.list("follower", value).unwrap_or_default();
    let learner = section.list("learner", value).unwrap_or_default();
    let unlabelled = section.choice("unlabelled", UNLABELLED).unwrap_or_default();
    let healthy = read_healthy(section);
    let term_annotation = label_key(section, "term_annotation");
    if !section.is_present() {
        return None;
    }
    for (key, write) in [
        ("selector", "the labels of the pods, as in selector = \"app=mysql\""),
        ("role_label", "the label that names the role, as in role_label = \"role\""),
        ("primary", "its values on a primary, as in primary = [\"primary\"]"),
    ] {
        if !section.has(key) {
            section.missing(key, write);
        }
    }
    if primary.as_ref().is_some_and(Vec::is_empty) {
        section.refuse("primary", "write at least one value, as in [\"primary\"]");
    }
    section.done();
    let (selector, role_label, primary) = (selector?, role_label?, primary?);
    let known = CustomPreset {
        selector,
        cluster_label,
        role_label,
        primary,
        follower,
        learner,
        unlabelled,
        healthy,
        term_annotation,
    };
    Some(known)
}

fn read_healthy(section: &Section) -> Option<(String, String)> {
    let text = section.text("healthy")?;
    let pair = text.split_once('=').filter(|(key, value)| is_key(key) && is_name(value));
    if pair.is_none() {
        section.refuse("healthy", "write a label and its value, as in \"healthy=yes\"");
    }
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn label_value(section: &Section, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    if !is_name(text) {
        let advice = "write letters, digits, - _ and . (at most 63, a letter or digit at both ends)";
        section.refuse(key, format_args!("{} can't be one: {advice}", shown(text)));
        return None;
    }
    Some(text.to_owned())
}

fn label_key(section: &Section, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    if !is_key(text) {
        section.refuse(key, format_args!("{} is no key of a label: write it as in \"example.com/role\"", shown(text)));
        return None;
    }
    Some(text.to_owned())
}

/// The API server knows the grammar; here only what could not be sent is refused.
fn selector(section: &Section, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    if text.trim().is_empty() || text.len() > SELECTOR_LENGTH_MAX || text.contains(|c: char| c.is_control()) {
        section.refuse(key, "write labels as kubectl -l takes them, as in \"app=mysql,tier in (a, b)\"");
        return None;
    }
    Some(text.trim().to_owned())
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= VALUE_LENGTH_MAX && bytes.iter().all(|b| inner(*b)) && ends(bytes.first()) && ends(bytes.last())
}

fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let domain = |prefix: &str| prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    text.len() <= KEY_LENGTH_MAX && is_name(name) && prefix.is_none_or(|prefix| !prefix.is_empty() && domain(prefix))
}
