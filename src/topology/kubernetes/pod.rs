//! \[pure\] From a pod to what is kept of it: who it is, where it listens, whether it is going, what its labels say.
//!
//! Why not the API's own type: a cluster's pods are kept for the life of the process, and of a pod's 10 KiB 200 bytes
//! matter here. Only those fields are decoded. What is not understood (a term that is no number, an address that is no
//! IP) counts as absent: labels are written by people, too.

use super::preset::{CORDON_ANNOTATION, RoleSource, Rules};
use crate::types::Address;
use kube::core::{Object, ObjectMeta};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A pod as it comes from the API server, as far as it matters here.
pub type Pod = Object<PodSpec, PodStatus>;

/// `spec` of a pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PodSpec {
    /// Its containers.
    #[serde(default)]
    pub containers: Vec<Container>,
}

/// One entry of `spec.containers`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Container {
    /// Declared ports.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
}

/// One entry of `ports` of a container.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its number.
    pub container_port: i32,
}

/// `status` of a pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed, Unknown.
    #[serde(default)]
    pub phase: Option<String>,
    /// Its address.
    #[serde(default, rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Ready among others.
    #[serde(default)]
    pub conditions: Vec<StatusCondition>,
    /// For the restarts.
    #[serde(default)]
    pub container_statuses: Vec<ContainerStatus>,
}

/// One entry of `status.conditions`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct StatusCondition {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
}

/// One entry of `status.containerStatuses`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// How often it was started again.
    #[serde(default)]
    pub restart_count: u32,
}

/// What a pod's labels call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// The primary.
    Primary,
    /// A follower.
    Follower,
    /// May be read, never becomes primary.
    Learner,
    /// Nothing, or nothing known.
    None,
}

impl Label {
    /// The word for JSON and evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::None => "none",
        }
    }
}

/// Where in its life a pod is, as far as traffic is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodState {
    /// It runs and is ready.
    Ready,
    /// Its readiness probe fails, or has not succeeded yet.
    Unready,
    /// Its operator says that it is not healthy.
    Unhealthy,
    /// Somebody annotated it: no new transactions.
    Cordoned,
    /// It has a deletionTimestamp.
    Deleting,
}

impl PodState {
    /// The words for evidence and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unready => "not ready",
            Self::Unhealthy => "not healthy",
            Self::Cordoned => "cordoned",
            Self::Deleting => "being deleted",
        }
    }
}

/// The order of primaries as a pod's annotation gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TermHint {
    /// Grows with each change.
    pub number: u64,
    /// See [`super::preset::TermSource::ahead`].
    pub ahead: bool,
}

/// Which cluster a pod belongs to, as its labels say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Value of the cluster's label; empty where there is none.
    pub cluster: Arc<str>,
    /// Value of the component's label; empty where there is none.
    pub component: Arc<str>,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.cluster)?;
        if self.component.is_empty() { Ok(()) } else { write!(f, "/{}", self.component) }
    }
}

/// All that is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its cluster.
    pub group: Group,
    /// Its name.
    pub name: Arc<str>,
    /// Another pod under the same name has another.
    pub uid: Arc<str>,
    /// Where its server listens; `None` while it has no address, and when its containers have ended for good.
    pub address: Option<Address>,
    /// May it have traffic?
    pub state: PodState,
    /// How often its containers were started again.
    pub restarts: u32,
    /// What it is called.
    pub label: Label,
    /// May it be read while it has no role label?
    pub unlabelled_reads: bool,
    /// The order of primaries.
    pub term: Option<TermHint>,
}

/// What a person calls a server: its pod's name with the address that it has now, or the address alone.
pub fn called(address: &Address, pod: Option<&PodFacts>) -> String {
    match pod {
        Some(pod) => format!("{} ({address})", pod.name),
        None => address.to_string(),
    }
}

impl PodFacts {
    /// Reads a pod by the rules of its operator. `None` if it has no name, or does not name its cluster.
    pub fn read(pod: &Pod, rules: &Rules) -> Option<Self> {
        let meta = &pod.metadata;
        let name: Arc<str> = meta.name.as_deref()?.into();
        let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        let named = |key: Option<&str>| key.map_or(Some(""), label);
        let group = Group {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            cluster: named(rules.cluster_label.as_deref())?.into(),
            component: named(rules.component_label)?.into(),
        };
        let healthy = rules.healthy.as_ref().is_none_or(|(key, value)| is(label(key), value));
        Some(Self {
            group,
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            address: address(pod, rules),
            state: state(pod, healthy),
            restarts: restarts(pod),
            label: read_label(&name, meta.labels.as_ref(), rules),
            unlabelled_reads: rules.unlabelled_reads,
            term: term(meta, rules),
            name,
        })
    }
}

fn is(found: Option<&str>, wanted: &str) -> bool {
    found.is_some_and(|found| found.eq_ignore_ascii_case(wanted))
}

fn read_label(name: &str, labels: Option<&BTreeMap<String, String>>, rules: &Rules) -> Label {
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let by_role = match &rules.role {
        RoleSource::Nowhere => Label::None,
        RoleSource::Ordinal => match name.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok()) {
            Some(0) => Label::Primary,
            Some(_) => Label::Follower,
            None => Label::None,
        },
        RoleSource::Label { key, primary, follower, learner } => {
            let value = label(key);
            let among = |values: &[String]| values.iter().any(|known| is(value, known));
            [(primary, Label::Primary), (follower, Label::Follower), (learner, Label::Learner)]
                .into_iter()
                .find_map(|(values, meaning)| among(values).then_some(meaning))
                .unwrap_or(Label::None)
        }
    };
    let replica = rules.read_replica.is_some_and(|(key, value)| is(label(key), value));
    if by_role == Label::None && replica { Label::Follower } else { by_role }
}

fn address(pod: &Pod, rules: &Rules) -> Option<Address> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let host: IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
    let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
    let declared = || {
        let mut called = ports.filter(|port| port.name.as_deref() == Some("mysql"));
        called.next().and_then(|port| u16::try_from(port.container_port).ok()).filter(|port| *port != 0)
    };
    Some(Address { host: host.to_string().into(), port: rules.port.or_else(declared).unwrap_or(3306) })
}

fn state(pod: &Pod, healthy: bool) -> PodState {
    let annotations = pod.metadata.annotations.as_ref();
    let cordon = annotations.and_then(|annotations| annotations.get(CORDON_ANNOTATION));
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.into_iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
    if pod.metadata.deletion_timestamp.is_some() {
        PodState::Deleting
    } else if is(cordon.map(String::as_str), "true") {
        PodState::Cordoned
    } else if !ready {
        PodState::Unready
    } else if !healthy {
        PodState::Unhealthy
    } else {
        PodState::Ready
    }
}

fn restarts(pod: &Pod) -> u32 {
    let statuses = pod.status.iter().flat_map(|status| &status.container_statuses);
    statuses.fold(0, |sum, status| sum.saturating_add(status.restart_count))
}

fn term(meta: &ObjectMeta, rules: &Rules) -> Option<TermHint> {
    let text = meta.annotations.as_ref()?.get(&rules.term.annotation)?;
    Some(TermHint { number: text.trim().parse().ok()?, ahead: rules.term.ahead })
}

#[cfg(test)]
mod tests;
