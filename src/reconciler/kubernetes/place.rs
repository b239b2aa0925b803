//! A cluster as it is written down in Kubernetes: wishes in the spec of its MysqlCluster, the record in the status, members as
//! pods, roles on their labels.
//!
//! Reading costs no request: everything comes from watches. Writing the record is a compare and swap by resourceVersion, so that
//! whoever acts on something old is refused before anything is done. Patches of a pod name its uid: a pod that has followed
//! under the same name gets nothing that was meant for its predecessor.

use super::members::Members;
use super::objects;
use super::operations::{self, Wish};
use super::tell::{self, Told};
use super::{LEAVING, RENEW, ROLE, Shared};
use crate::metrics::reconciler as metrics;
use crate::reconciler::action::Plan;
use crate::reconciler::death;
use crate::reconciler::place::{Place, PlaceError, Site, unasked};
use crate::reconciler::resource::{MysqlCluster, TopologyKind};
use crate::reconciler::snapshot::{Member, MemberName, Record, Snapshot, Wishes};
use crate::reconciler::status;
use crate::reconciler::story::{self, Missed};
use crate::topology::kubernetes::preset::{Rules, TERM_ANNOTATION};
use crate::topology::kubernetes::{Label, PodFacts, PodState, pod::Pod};
use crate::types::{Address, Role, Term};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::EventType;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The role label of KubeBlocks, for those who read only that.
const KUBEBLOCKS_ROLE: &str = "kubeblocks.io/role";
/// No request takes longer: the API server may be frozen.
const PATIENCE: Duration = Duration::from_secs(3);

/// The place of one MysqlCluster.
pub struct InKubernetes {
    shared: Arc<Shared>,
    members: Members,
    name: String,
    bell: watch::Receiver<()>,
    suspicion: watch::Receiver<()>,
    api: Api<MysqlCluster>,
    pods: Api<Pod>,
    /// The newest that is known: what was written, or what the watch said since.
    current: Option<Arc<MysqlCluster>>,
    told: Told,
    /// While nobody takes writes.
    missed: Option<Missed>,
    /// The term of the last change that came to its end, and how long that took: it is written down with the next record.
    ended: Option<(u64, u64)>,
}

impl InKubernetes {
    /// The place of the cluster of this name.
    pub fn new(shared: Arc<Shared>, name: &str, members: Members) -> Self {
        let api = Api::namespaced(shared.client.clone(), &shared.namespace);
        let pods = shared.pods_api();
        let (bell, suspicion) = (shared.bells.of(name), shared.suspicions.of(name));
        Self {
            shared,
            members,
            name: name.to_owned(),
            bell,
            suspicion,
            api,
            pods,
            current: None,
            told: Told::default(),
            missed: None,
            ended: None,
        }
    }

    fn cluster(&mut self) -> Result<Arc<MysqlCluster>, PlaceError> {
        let watched = self.shared.clusters.find(&self.name);
        let gone = || PlaceError::Away(format!("there is no MysqlCluster {}", self.name));
        let newest = match (watched, self.current.take()) {
            (None, _) => return Err(gone()),
            (Some(watched), Some(own)) if version(&own) > version(&watched) => own,
            (Some(watched), _) => watched,
        };
        self.current = Some(newest.clone());
        Ok(newest)
    }

    fn pod(&self, member: &MemberName) -> Option<Arc<Pod>> {
        self.members.find(&member.0)
    }

    /// Changes labels or annotations of a member's pod, if there is one.
    async fn mark(&self, member: &MemberName, field: &str, values: Value) -> Result<(), PlaceError> {
        let Some(pod) = self.pod(member) else { return Ok(()) };
        let patch = Patch::Merge(json!({ "metadata": { "uid": pod.metadata.uid, field: values } }));
        match within(self.pods.patch(&member.0, &PatchParams::default(), &patch)).await {
            Err(Refusal::Gone) => Ok(()),
            done => done.map(drop).map_err(PlaceError::from),
        }
    }

    /// Since when nobody takes writes, and why.
    fn miss(&self, cluster: &MysqlCluster, told: &Told) -> Missed {
        if let Some(missed) = &self.missed {
            return missed.clone();
        }
        let status = cluster.status.as_ref();
        let lead = status.and_then(|status| status.primary.as_deref());
        let state = lead.and_then(|lead| Some(format!("{lead}: {}", told.state_of(lead)?)));
        // A group is asked to move its primary, and claims nothing before it has: then this is why.
        let asked = Some(self.told.why.clone()).filter(|_| self.told.changing);
        // What another reconciler saw and wrote down counts in the first round only: later this one knows better.
        let written = status.filter(|_| self.told == Told::default()).and_then(tell::unavailable_since);
        Missed { since: written.unwrap_or_else(Timestamp::now), why: asked.or(state).unwrap_or_default() }
    }

    /// That one takes writes: the change under way to it, if there is one, has come to its end. Was there one?
    fn end_change(&mut self, primary: &str) -> bool {
        let status = self.current.as_ref().and_then(|cluster| cluster.status.as_ref());
        let is_new = |term: u64| self.ended.is_none_or(|(ended, _)| ended != term);
        let change = status.and_then(story::under_way).filter(|change| change.to == primary && is_new(change.term));
        let Some(change) = change.cloned() else { return false };
        let took_ms = story::taken_ms(&change, Timestamp::now());
        self.ended = Some((change.term, took_ms));
        metrics::primary_changed(&self.name, Duration::from_millis(took_ms));
        let from = change.from.as_deref().unwrap_or("nobody");
        let note = format!("{primary} takes over from {from} after {took_ms} ms: {}", change.reason);
        let action = format!("Term{}", change.term);
        self.shared.event(&self.name, EventType::Normal, ("PrimaryChanged", &action), note);
        true
    }

    /// Pods whose data were replaced get a successor, whose `holdfast init` gives the server another identity.
    async fn replace_renewed(&self, members: &[Member], busy: &[MemberName]) -> Result<(), PlaceError> {
        for member in members.iter().filter(|m| !m.deleting && !busy.contains(&m.name)) {
            let Some(pod) = self.pod(&member.name).filter(|pod| annotation(pod, RENEW).is_some()) else { continue };
            tracing::info!(pod = %member.name, "its data were replaced, so it gets a new identity with a new pod");
            within(delete_pod(&self.pods, &pod, Some(5))).await?;
            death::behind(format_args!("renew {}", member.name));
        }
        Ok(())
    }
}

/// Asks for the deletion of just this pod.
pub async fn delete_pod(pods: &Api<Pod>, pod: &Pod, grace_s: Option<u32>) -> Result<(), kube::Error> {
    let uid = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
    let how = DeleteParams { grace_period_seconds: grace_s, preconditions: uid, ..DeleteParams::default() };
    match pods.delete(pod.metadata.name.as_deref().unwrap_or_default(), &how).await {
        Err(kube::Error::Api(refusal)) if [404, 409].contains(&refusal.code) => Ok(()),
        done => done.map(drop),
    }
}

pub(super) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Grows with every change of the object. (The API promises that these are numbers since 1.35; etcd's always were.)
fn version(cluster: &MysqlCluster) -> u64 {
    cluster.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

enum Refusal {
    Overtaken,
    Gone,
    Other(String),
}

impl From<Refusal> for PlaceError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overtaken => Self::Overtaken,
            Refusal::Gone => Self::Away("it is gone".to_owned()),
            Refusal::Other(text) => Self::Away(text),
        }
    }
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(refusal))) if refusal.code == 409 => Err(Refusal::Overtaken),
        Ok(Err(kube::Error::Api(refusal))) if refusal.code == 404 => Err(Refusal::Gone),
        Ok(Err(error)) => Err(Refusal::Other(error.to_string())),
        Err(_) => Err(Refusal::Other(format!("no answer from the API server within {PATIENCE:?}"))),
    }
}

impl Place for InKubernetes {
    /// Enough for whoever comes after, and not a write per second to etcd for each cluster.
    const KEEP: Duration = Duration::from_secs(5);

    async fn read(&mut self, busy: &[MemberName]) -> Result<Site, PlaceError> {
        let cluster = self.cluster()?;
        let wish = operations::wish(&self.shared, &cluster);
        let site = site(&cluster, (&self.members.all(), &self.members.rules), &wish);
        self.replace_renewed(&site.members, busy).await?;
        Ok(site)
    }

    async fn write(&mut self, record: &Record) -> Result<(), PlaceError> {
        let before = self.cluster()?;
        let now = Timestamp::now();
        let mut new = tell::status(&before, &self.told, &now.to_string());
        let claimed = new.term;
        status::write_record(&mut new, record);
        if let Some((term, took_ms)) = self.ended {
            story::end(&mut new, term, took_ms);
        }
        if record.term.0 > claimed {
            story::begin(&mut new, &self.told.why, self.missed.as_ref(), now);
        }
        let mut after = MysqlCluster::clone(&before);
        after.status = Some(new);
        let written = within(self.api.replace_status(&self.name, &PostParams::default(), &after)).await;
        // After a refusal only what the watch says counts.
        self.current = written.as_ref().ok().cloned().map(Arc::new);
        Ok(written.map(drop)?)
    }

    async fn label(&mut self, member: &MemberName, role: Option<Role>) -> Result<(), PlaceError> {
        let (own, blocks) = match role {
            Some(Role::Primary) => (Some("primary"), Some("primary")),
            Some(Role::Follower) => (Some("follower"), Some("secondary")),
            Some(Role::Unknown) | None => (None, None),
        };
        self.mark(member, "labels", json!({ ROLE: own, KUBEBLOCKS_ROLE: blocks })).await?;
        if role == Some(Role::Primary) {
            self.end_change(&member.0);
        }
        Ok(())
    }

    async fn announce(&mut self, member: &MemberName, term: Term) -> Result<(), PlaceError> {
        self.mark(member, "annotations", json!({ TERM_ANNOTATION: term.0.to_string() })).await
    }

    async fn renew(&mut self, member: &MemberName) -> Result<(), PlaceError> {
        self.mark(member, "annotations", json!({ RENEW: "clone" })).await
    }

    fn tell(&mut self, snapshot: &Snapshot, plan: &Plan) -> bool {
        let Some(cluster) = &self.current else { return false };
        let told = tell::told(cluster, snapshot, plan, self.shared.progress.of(&self.name));
        metrics::cluster_ready(&self.name, told.is_ready());
        for (member, counts) in tell::counts(snapshot) {
            metrics::member(&self.name, &member.0, counts);
        }
        let lead = cluster.status.as_ref().filter(|status| status.primary == status.target_primary);
        let lead = lead.and_then(|status| status.primary.clone());
        self.missed = if told.available { None } else { Some(self.miss(cluster, &told)) };
        // Where another reconciler labelled it and died.
        let ended = told.available && lead.is_some_and(|lead| self.end_change(&lead));
        let news = told.news(&self.told) || ended;
        if news && let Some(warning) = told.warning(&self.told) {
            self.shared.event(&self.name, EventType::Warning, (told.phase, "Decide"), warning);
        }
        self.told = told;
        news
    }

    async fn changed(&mut self) {
        let rung = tokio::select! {
            rung = self.bell.changed() => rung,
            rung = self.suspicion.changed() => rung.inspect(|()| metrics::nudged_look(&self.name)),
        };
        if rung.is_err() {
            std::future::pending().await
        }
    }
}

/// What is written down of a cluster, as the engine takes it.
fn site(cluster: &MysqlCluster, (pods, rules): (&[Arc<Pod>], &Rules), wish: &Wish) -> Site {
    let spec = &cluster.spec;
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let mut found = BTreeMap::new();
    for pod in pods {
        if let Some(facts) = PodFacts::read(pod, rules) {
            let place = objects::ordinal(name, &facts.name).unwrap_or(u32::MAX);
            found.insert((place, facts.name.clone()), (pod, facts));
        }
    }
    let kept = if spec.topology == TopologyKind::External { 0 } else { spec.replicas };
    let mut members: Vec<Member> = Vec::new();
    for ordinal in 0..kept {
        let pod_name: Arc<str> = objects::pod_name(name, ordinal).into();
        match found.remove(&(ordinal, pod_name.clone())) {
            Some((pod, facts)) => members.push(member(pod, facts)),
            // It counts although there is no pod of it: what was acknowledged may be with it.
            None => members.push(unasked(MemberName(pod_name), Address { host: "".into(), port: 3306 })),
        }
    }
    // Above the number that is wanted: they are to go, one after the other from the top.
    let top = found.keys().next_back().map(|(place, _)| *place);
    for ((place, _), (pod, facts)) in found {
        let surplus = spec.topology != TopologyKind::External;
        let member = member(pod, facts);
        members.push(Member { deleting: member.deleting || surplus, leaving: surplus && Some(place) == top, ..member });
    }
    for member in &mut members {
        member.fenced = spec.fenced.iter().any(|fenced| **fenced == *member.name.0);
    }
    let wishes = Wishes {
        topology: spec.topology,
        durability: spec.durability,
        auto_reclone: spec.auto_reclone,
        failover_delay_ms: if wish.at_once { 0 } else { u64::from(spec.failover_delay_seconds) * 1000 },
        switchover: wish.switchover.clone(),
        force: wish.force,
        reclone: wish.reclone.clone(),
        max_lag_ms: u64::from(spec.max_lag_seconds) * 1000,
    };
    let record = status::record(&cluster.status.clone().unwrap_or_default());
    Site { wishes, record, members, renewed_certificates: spec.tls.secret_name.is_some() }
}

fn member(pod: &Pod, facts: PodFacts) -> Member {
    let label = match facts.label {
        Label::Primary => Some(Role::Primary),
        Label::Follower | Label::Learner => Some(Role::Follower),
        Label::None => None,
    };
    let has_ended = facts.address.is_none() && pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
    let address = facts.address.unwrap_or(Address { host: "".into(), port: 3306 });
    Member {
        deleting: facts.state == PodState::Deleting || annotation(pod, LEAVING).is_some(),
        stopped: has_ended,
        // Until it has its new identity it is nobody's follower and no candidate.
        busy: annotation(pod, RENEW).is_some(),
        label,
        term: facts.term.map(|term| Term(term.number)),
        ..unasked(MemberName(facts.name), address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::kubernetes::preset::Preset;

    fn pod(name: &str, more: Value) -> Arc<Pod> {
        let mut pod = json!({ "metadata": { "name": name, "namespace": "n", "uid": name, "labels": { "holdfast.io/cluster": "db" } },
            "spec": { "containers": [] }, "status": { "phase": "Running", "podIP": "10.0.0.1" } });
        if let (Some(metadata), Value::Object(more)) = (pod["metadata"].as_object_mut(), more) {
            metadata.extend(more);
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn members_are_all_that_may_hold_a_commit() {
        let spec = json!({ "image": "mysql", "replicas": 2, "fenced": ["db-mysql-1"], "failoverDelaySeconds": 3 });
        let cluster = MysqlCluster::new("db", serde_json::from_value(spec).expect("a spec"));
        let pods = [
            pod("db-mysql-0", json!({ "annotations": { TERM_ANNOTATION: "4", RENEW: "clone" } })),
            pod("db-mysql-2", json!({})),
            pod("db-mysql-3", json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" })),
        ];
        let rules = Preset::Holdfast.rules();
        let site = site(&cluster, (&pods, &rules), &Wish::default());
        let words = |m: &Member| {
            let flags = [(m.fenced, "fenced"), (m.deleting, "deleting"), (m.leaving, "leaving"), (m.busy, "busy")];
            let flags: Vec<&str> = flags.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
            format!("{} at {}: {}", m.name, m.address.host, flags.join(" "))
        };
        let all = [
            "db-mysql-0 at 10.0.0.1: busy",
            // Nobody has seen its pod yet, and still it counts.
            "db-mysql-1 at : fenced",
            "db-mysql-2 at 10.0.0.1: deleting",
            "db-mysql-3 at 10.0.0.1: deleting leaving",
        ];
        assert_eq!(site.members.iter().map(words).collect::<Vec<_>>(), all);
        assert_eq!(site.members[0].term, Some(Term(4)));
        assert_eq!(site.wishes.failover_delay_ms, 3000);
        let at_once = self::site(&cluster, (&pods, &rules), &Wish { at_once: true, ..Wish::default() });
        assert_eq!(at_once.wishes.failover_delay_ms, 0);
    }
}
