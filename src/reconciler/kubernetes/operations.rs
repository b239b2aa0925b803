//! MysqlOperations: one thing to do once, one after the other for each cluster.
//!
//! ```text
//! (none) ──▶ Running: where the cluster was then is written down ──▶ Complete: the cluster is where it was to be
//!   │                                                            └──▶ Failed: it is elsewhere, and will not get there
//!   └──▶ Failed: there is no such member
//! ```
//!
//! Nothing is remembered beside the object: what is still to be done follows from what was written down at the beginning and
//! how the cluster is now.

use super::objects::RESTARTED;
use super::{Shared, rollout::PodView};
use crate::reconciler::death;
use crate::reconciler::resource::{
    MysqlCluster, MysqlClusterStatus, MysqlOperation, MysqlOperationStatus, OperationKind, OperationStep, TopologyKind,
};
use crate::reconciler::snapshot::{MemberName, Switchover};
use crate::topology::kubernetes::Label;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::sync::Arc;

/// What the engine is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The primary is to move.
    pub switchover: Option<Switchover>,
    /// At once, if it is silent.
    pub at_once: bool,
    /// Even if it can't be shown that nothing is lost.
    pub force: bool,
    /// The data of this member are to be replaced.
    pub reclone: Option<MemberName>,
}

const RUNNING: &str = "Running";

/// The operation that is next, or under way.
fn first(shared: &Shared, cluster: &str) -> Option<Arc<MysqlOperation>> {
    let ended = |op: &MysqlOperation| {
        op.status.as_ref().is_some_and(|s| matches!(s.phase.as_deref(), Some("Complete" | "Failed")))
    };
    let mut all = shared.operations.all(|op| op.spec.cluster == cluster && !ended(op));
    all.sort_by_key(|op| (op.creation_timestamp(), op.name_any()));
    all.into_iter().next()
}

/// What the engine is asked for now.
pub fn wish(shared: &Shared, cluster: &MysqlCluster) -> Wish {
    let op = first(shared, &cluster.name_any());
    op.map_or_else(Wish::default, |op| wish_of(&op, &cluster.status.clone().unwrap_or_default()))
}

/// \[pure\]
fn wish_of(op: &MysqlOperation, now: &MysqlClusterStatus) -> Wish {
    let Some(began) = op.status.as_ref().filter(|status| status.phase.as_deref() == Some(RUNNING)) else {
        return Wish::default();
    };
    let target = op.spec.target.as_deref().map(MemberName::from);
    let unmoved = began.from_term == Some(now.term);
    let switchover = unmoved.then(|| Switchover { target: target.clone() });
    match op.spec.kind {
        OperationKind::Switchover => Wish { switchover, ..Wish::default() },
        OperationKind::Failover => {
            Wish { switchover, at_once: unmoved, force: unmoved && op.spec.force, ..Wish::default() }
        }
        OperationKind::Reclone => {
            let uuid = target.as_ref().and_then(|target| uuid(now, &target.0));
            Wish { reclone: target.filter(|_| uuid == began.from_uuid), ..Wish::default() }
        }
        OperationKind::Restart => Wish::default(),
    }
}

fn uuid(status: &MysqlClusterStatus, member: &str) -> Option<String> {
    status.members.iter().find(|line| line.name == member)?.server_uuid.clone()
}

/// The uid of the pod that is to restart by itself.
pub fn restart(shared: &Shared, cluster: &str) -> Option<String> {
    let op = first(shared, cluster).filter(|op| op.spec.kind == OperationKind::Restart)?;
    op.status.as_ref().filter(|status| status.phase.as_deref() == Some(RUNNING))?.from_uuid.clone()
}

/// Takes the first operation a step further, if it has come further.
pub async fn work(shared: &Shared, cluster: &MysqlCluster, pods: &[PodView]) -> Result<(), kube::Error> {
    let Some(op) = first(shared, &cluster.name_any()) else { return Ok(()) };
    let now = Timestamp::now().to_string();
    let Some(status) = further(&op, cluster, pods, &now) else { return Ok(()) };
    let phase = status.phase.clone().unwrap_or_default();
    let begins = status.phase.as_deref() == Some(RUNNING);
    if begins && op.spec.kind == OperationKind::Restart && op.spec.target.is_none() {
        let api: Api<MysqlCluster> = Api::namespaced(shared.client.clone(), &shared.namespace);
        let patch = json!({ "metadata": { "annotations": { RESTARTED: op.uid() } } });
        api.patch(&cluster.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    tracing::info!(operation = op.name_any(), phase = status.phase, message = status.message, "an operation");
    let api: Api<MysqlOperation> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let after = MysqlOperation { status: Some(status), ..MysqlOperation::clone(&op) };
    match api.replace_status(&op.name_any(), &PostParams::default(), &after).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => return Ok(()),
        done => done?,
    };
    death::behind(format_args!("operation {} {phase}", op.name_any()));
    Ok(())
}

/// \[pure\] Its status if that is another one now.
fn further(op: &MysqlOperation, cluster: &MysqlCluster, pods: &[PodView], now: &str) -> Option<MysqlOperationStatus> {
    let was = op.status.clone().unwrap_or_default();
    let at = cluster.status.clone().unwrap_or_default();
    let target = op.spec.target.as_deref();
    let step = |phase: &str, name: &str, message: String| {
        let mut status = was.clone();
        (status.phase, status.message) = (Some(phase.to_owned()), Some(message).filter(|message| !message.is_empty()));
        status.steps.push(OperationStep { name: name.to_owned(), at: now.to_owned() });
        Some(status)
    };
    if cluster.spec.topology == TopologyKind::External {
        return step("Failed", "Refused", format!("{} is another operator's: ask that one", op.spec.cluster));
    }
    if was.phase.as_deref() != Some(RUNNING) {
        if let Some(stranger) = target.filter(|target| !pods.iter().any(|pod| pod.name == **target)) {
            return step("Failed", "Refused", format!("{stranger} is no member of {}", op.spec.cluster));
        }
        let leads = at.primary.as_deref() == target && target.is_some();
        if leads && op.spec.kind == OperationKind::Reclone {
            return step("Failed", "Refused", "it is the primary: move that first".to_owned());
        }
        if op.spec.kind == OperationKind::Reclone && pods.len() < 3 {
            // Seen on 9.7: a clone waits for its donor's commits, and those would wait for this very member.
            return step(
                "Failed",
                "Refused",
                "commits would wait for it, and its copy for them: add a member first".to_owned(),
            );
        }
        if leads && op.spec.kind != OperationKind::Restart {
            return step("Complete", "Complete", "it is the primary already".to_owned());
        }
        let mut begun = step(RUNNING, "Begun", String::new())?;
        begun.from_term = Some(at.term);
        begun.from_uuid = match op.spec.kind {
            OperationKind::Restart => {
                pods.iter().find(|pod| Some(pod.name.as_str()) == target).map(|pod| pod.uid.clone())
            }
            _ => target.and_then(|target| uuid(&at, target)),
        };
        return Some(begun);
    }
    match op.spec.kind {
        OperationKind::Switchover | OperationKind::Failover => {
            let settled = at.primary.is_some() && at.primary == at.target_primary && was.from_term < Some(at.term);
            let primary = at.primary.unwrap_or_default();
            // It is written down before it is opened, and has its label once it is.
            let opened = pods.iter().any(|pod| pod.name == primary && pod.label == Label::Primary);
            let missed = target.is_some_and(|target| primary != target);
            match (settled && opened, missed) {
                (false, _) => None,
                (true, false) => step("Complete", "Moved", format!("{primary} is the primary in term {}", at.term)),
                (true, true) => step("Failed", "Missed", format!("{primary} is the primary in term {}", at.term)),
            }
        }
        OperationKind::Restart => {
            let is_done = |pod: &PodView| pod.current && pod.label != Label::None;
            let concerned = || pods.iter().filter(|pod| target.is_none_or(|target| pod.name == target));
            let asked = target.is_some() || cluster.annotations().get(RESTARTED) == op.uid().as_ref();
            let done = asked && concerned().count() > 0 && concerned().all(is_done);
            if done { step("Complete", "Restarted", String::new()) } else { None }
        }
        OperationKind::Reclone => {
            let renewed = target.and_then(|target| uuid(&at, target)).is_some_and(|uuid| Some(uuid) != was.from_uuid);
            let follows = pods.iter().any(|pod| Some(pod.name.as_str()) == target && pod.label == Label::Follower);
            if renewed && follows { step("Complete", "Recloned", String::new()) } else { None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconciler::resource::{MysqlClusterSpec, MysqlOperationSpec};
    use crate::topology::kubernetes::PodState;

    fn pod(name: &str, label: Label) -> PodView {
        PodView {
            name: name.to_owned(),
            label,
            state: PodState::Ready,
            uid: String::new(),
            current: true,
            leaving: false,
        }
    }

    #[test]
    fn a_primary_has_moved_once_another_is_written_down_and_labelled() {
        let (primary, none) = (Label::Primary, Label::None);
        for (target, term, now, labels, phase) in [
            (None, 3, "b", [primary, none], None),
            // Written down, and not opened yet.
            (None, 4, "b", [none, none], None),
            (None, 4, "b", [none, primary], Some("Complete")),
            (Some("b"), 4, "b", [none, primary], Some("Complete")),
            (Some("a"), 4, "b", [none, primary], Some("Failed")),
        ] {
            let spec = json!({ "cluster": "db", "type": "Failover", "target": target });
            let spec: MysqlOperationSpec = serde_json::from_value(spec).expect("a spec");
            let mut op = MysqlOperation::new("now", spec);
            let began = MysqlOperationStatus { phase: Some(RUNNING.to_owned()), ..MysqlOperationStatus::default() };
            op.status = Some(MysqlOperationStatus { from_term: Some(3), ..began });
            let spec: MysqlClusterSpec = serde_json::from_value(json!({ "image": "mysql" })).expect("a spec");
            let mut cluster = MysqlCluster::new("db", spec);
            let name = Some(now.to_owned());
            let status = MysqlClusterStatus { primary: name.clone(), target_primary: name, ..Default::default() };
            cluster.status = Some(MysqlClusterStatus { term, ..status });
            let pods = [pod("a", labels[0]), pod("b", labels[1])];
            let told = further(&op, &cluster, &pods, "now").and_then(|status| status.phase);
            assert_eq!(told.as_deref(), phase, "{target:?} in term {term} with {labels:?}");
        }
    }
}
