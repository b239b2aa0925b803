//! \[pure\] Which pod goes next: scaling down from the top, and updates with the primary last.
//!
//! ```text
//!             fewer wanted                             its pods are not what they should be
//! whole ──────────────────────▶ the top one leaves    ──────────────────────────────────────▶ a follower is replaced
//!   ▲                             │ primary: moved first          ▲                              │ back in sync
//!   │                             │ it acknowledges no more,      └──────────────────────────────┤
//!   │                             ▼ the others have all it had                                   ▼ none left
//!   └────────────────────────── its pod goes, then its claim                      the primary moves, then it is a follower
//! ```
//!
//! Nothing goes while anything else is amiss. What a pod is may be seen on itself: a role on its label means that it was found
//! to follow since it began.

use super::objects::{ordinal, pod_name};
use crate::reconciler::resource::{MysqlCluster, MysqlClusterStatus, TopologyKind};
use crate::reconciler::status;
use crate::topology::kubernetes::{Label, PodState};

/// A pod, as far as this is concerned.
#[derive(Clone, Debug)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its role's label.
    pub label: Label,
    /// Where in its life it is.
    pub state: PodState,
    /// Another pod under the same name has another.
    pub uid: String,
    /// It is as it is wanted, and nobody asked that it restarts.
    pub current: bool,
    /// It is marked as leaving.
    pub leaving: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chore {
    /// The primary's pod must go: mark it, so that the engine moves the primary.
    Leave(String),
    /// It need not go any more: take the mark off.
    Stay(String),
    /// Delete the pod; the StatefulSet makes its successor.
    Replace(String),
}

/// How many pods the StatefulSet is to have now, if it has `now`.
pub fn replicas(cluster: &MysqlCluster, now: u32, pods: &[PodView]) -> u32 {
    let wanted = cluster.spec.replicas;
    if wanted >= now {
        return wanted;
    }
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let status = cluster.status.clone().unwrap_or_default();
    let top = pod_name(name, now - 1);
    if may_go(cluster, &status, &top, pods) { now - 1 } else { now }
}

/// May the top pod go for good?
fn may_go(cluster: &MysqlCluster, status: &MysqlClusterStatus, top: &str, pods: &[PodView]) -> bool {
    let leads = |who: &Option<String>| who.as_deref() == Some(top);
    if leads(&status.primary) || leads(&status.target_primary) || status.primary != status.target_primary {
        return false;
    }
    let whole = |pod: &PodView| pod.state == PodState::Ready && pod.label != Label::None;
    if !pods.iter().filter(|pod| pod.name != *top).all(whole) {
        return false;
    }
    let Some(line) = status.members.iter().find(|member| member.name == top) else { return true };
    let known = status::record(status).known;
    let has = |name: &str| known.iter().find(|known| *known.member.0 == *name).map(|known| &known.has);
    // What it alone has is nobody's commit: nothing that it has and the primary never had was acknowledged.
    let own = line.errant.as_ref().and_then(|set| set.parse().ok()).unwrap_or_default();
    let entrusted = has(top).map(|has| has.subtract(&own)).unwrap_or_default();
    let others = pods.iter().filter(|pod| pod.name != *top);
    let pod_is_down = !pods.iter().any(|pod| pod.name == *top && pod.state == PodState::Ready);
    // A group keeps what it has acknowledged when a member takes its leave.
    let may_leave = line.state == LEFT || pod_is_down || cluster.spec.topology == TopologyKind::Group;
    may_leave && others.clone().all(|pod| has(&pod.name).is_some_and(|has| has.contains(&entrusted)))
}

/// The state of a member that is about to go and acknowledges nothing any more.
pub const LEFT: &str = "left";

/// The next pod to be replaced, or to be made ready for it.
pub fn next(cluster: &MysqlCluster, pods: &[PodView]) -> Option<Chore> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let status = cluster.status.clone().unwrap_or_default();
    if let Some(pod) = pods.iter().find(|pod| pod.leaving && pod.current && pod.state != PodState::Deleting) {
        return Some(Chore::Stay(pod.name.clone()));
    }
    if pods.iter().all(|pod| pod.current) {
        return None;
    }
    let order = |pod: &&PodView| ordinal(name, &pod.name).unwrap_or(u32::MAX);
    // One that can't start as it is, is not made worse by the new template; nobody else is touched meanwhile.
    let stuck = pods.iter().filter(|pod| pod.state == PodState::Unready && pod.label == Label::None);
    if let Some(pod) = stuck.filter(|pod| !pod.current).max_by_key(order) {
        return Some(Chore::Replace(pod.name.clone()));
    }
    let whole = |pod: &PodView| pod.state == PodState::Ready && pod.label != Label::None;
    let settled = status.primary.is_some() && status.primary == status.target_primary;
    if pods.len() != cluster.spec.replicas as usize || !pods.iter().all(whole) || !settled {
        return None;
    }
    let leads = |pod: &&PodView| status.primary.as_deref() == Some(&pod.name);
    let outdated = pods.iter().filter(|pod| !pod.current);
    if let Some(follower) = outdated.filter(|pod| !leads(pod) && pod.label != Label::Primary).max_by_key(order) {
        return Some(Chore::Replace(follower.name.clone()));
    }
    let primary = pods.iter().find(|pod| !pod.current)?;
    match pods {
        [_] => Some(Chore::Replace(primary.name.clone())),
        _ => (!primary.leaving).then(|| Chore::Leave(primary.name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster(replicas: u32, primary: &str, members: &serde_json::Value) -> MysqlCluster {
        let spec = json!({ "image": "mysql", "replicas": replicas });
        let mut cluster = MysqlCluster::new("db", serde_json::from_value(spec).expect("a spec"));
        let status = json!({ "primary": primary, "targetPrimary": primary, "term": 3, "members": members });
        cluster.status = Some(serde_json::from_value(status).expect("a status"));
        cluster
    }

    fn pod(n: u32, label: Label, current: bool) -> PodView {
        PodView { name: pod_name("db", n), label, state: PodState::Ready, uid: String::new(), current, leaving: false }
    }

    use Label::{Follower, Primary};

    #[test]
    fn the_primary_is_the_last_to_be_replaced_and_moves_before() {
        let cluster = cluster(3, "db-mysql-1", &json!([]));
        let mut pods = [pod(0, Follower, false), pod(1, Primary, false), pod(2, Follower, false)];
        let replace = |n: u32| Some(Chore::Replace(pod_name("db", n)));
        assert_eq!(next(&cluster, &pods), replace(2));
        pods[2] = PodView { state: PodState::Deleting, ..pods[2].clone() };
        assert_eq!(next(&cluster, &pods), None);
        assert_eq!(next(&cluster, &pods[..2]), None, "its successor is not there yet");
        pods[2] = pod(2, Label::None, true);
        assert_eq!(next(&cluster, &pods), None, "nor in sync");
        pods[2] = pod(2, Follower, true);
        assert_eq!(next(&cluster, &pods), replace(0));
        pods[0] = pod(0, Follower, true);
        assert_eq!(next(&cluster, &pods), Some(Chore::Leave(pod_name("db", 1))));
        pods[1].leaving = true;
        assert_eq!(next(&cluster, &pods), None, "the engine moves it");
        (pods[0].label, pods[1].label) = (Primary, Follower);
        let moved = self::cluster(3, "db-mysql-0", &json!([]));
        assert_eq!(next(&moved, &pods), replace(1));
        pods[1].current = true;
        assert_eq!(next(&moved, &pods), Some(Chore::Stay(pod_name("db", 1))));
        let broken = [pod(0, Primary, true), PodView { state: PodState::Unready, ..pod(1, Label::None, false) }];
        assert_eq!(next(&moved, &broken), replace(1), "a pod that never came up gets the corrected template");
    }

    #[test]
    fn the_top_one_goes_only_when_the_others_have_all_that_it_acknowledged() {
        let set = |to: u32| format!("07070707-0707-0707-0707-070707070707:1-{to}");
        let line = |n: u32, has: u32, state: &str| {
            json!({ "name": pod_name("db", n), "role": "follower", "state": state, "gtidExecuted": set(has),
                "serverUuid": "07070707-0707-0707-0707-070707070707" })
        };
        let pods = [pod(0, Primary, true), pod(1, Follower, true), pod(2, Label::None, true)];
        let members =
            |one: u32, state: &str| json!([line(0, 9, "writable"), line(1, one, "follows"), line(2, 8, state)]);
        for (wanted, primary, members, left) in [
            (2, "db-mysql-0", members(8, LEFT), 2),
            (2, "db-mysql-0", members(7, LEFT), 3),
            (2, "db-mysql-0", members(8, "follows"), 3),
            (2, "db-mysql-2", members(8, LEFT), 3),
            (1, "db-mysql-0", members(8, LEFT), 2),
            (5, "db-mysql-0", members(8, "follows"), 5),
        ] {
            assert_eq!(replicas(&cluster(wanted, primary, &members), 3, &pods), left, "{wanted} {primary} {members}");
        }
    }
}
