//! \[pure\] What pods add to proof: who is to be spared, whom reads must not reach, and where labels contradict what was
//! proven.
//!
//! | hint | what it does | what it never does |
//! | --- | --- | --- |
//! | primary's label | its contradictions are told and probed fast | make a primary |
//! | no label, where the operator takes labels away on purpose | no reads from this pod; if all pods have lost theirs, the operator is down and proof goes on alone | stop a proven primary |
//! | learner's label | never primary of a set (a group's majority knows better) | |
//! | term | a writable server with an older one is passed over | prove the newer one |
//! | deleted | followers: nothing new, cut at the deadline. Primary: nothing new until the deadline, and if it still is the only one that can be written, it goes on: a drain that leads nowhere would only be an outage | |
//! | cordoned | the same, and a primary stays closed until the annotation goes: somebody wants that | |
//! | unready, unhealthy | followers: nothing new, cut at the deadline | stop a proven primary: a lost kubelet makes pods unready whose servers are well |

use super::{Case, Conflict, ConflictKind, Standing};
use crate::topology::kubernetes::preset::CORDON_ANNOTATION;
use crate::topology::kubernetes::{Label, PodFacts, PodState};
use crate::topology::server::{Drain, DrainReason, Server};
use crate::topology::snapshot::Serving;
use crate::types::{BackendId, Role};
use std::sync::Arc;

/// May the server be given work?
pub(super) fn serving(case: &Case<'_>, server: &Server, standing: &Standing) -> Serving {
    let drained = server.drain.and_then(|drain| drain_of(case, drain, standing.role));
    match (&standing.refusal, drained) {
        (_, Some(drained @ Serving::Drained { .. })) => drained,
        (Some(reason), _) => Serving::No { reason: reason.as_str().into() },
        (None, Some(draining)) => draining,
        (None, None) => match unlabelled(case, server).filter(|_| standing.role == Role::Follower) {
            Some(reason) => Serving::No { reason: reason.into() },
            None => Serving::Yes,
        },
    }
}

/// What a drain means for a server in this role; `None`: nothing.
fn drain_of(case: &Case<'_>, drain: Drain, role: Role) -> Option<Serving> {
    let over = case.now_ms.saturating_sub(drain.since_ms) >= case.limits.drain_ms;
    let reason: Arc<str> = match drain.why {
        DrainReason::Unlisted => return Some(Serving::Draining { reason: drain.why.as_str().into() }),
        // Not what `kubectl cordon` does, which is about nodes.
        DrainReason::Pod(PodState::Cordoned) => format!("its pod is cordoned (annotation {CORDON_ANNOTATION})").into(),
        DrainReason::Pod(state) => format!("its pod is {}", state.as_str()).into(),
    };
    match (drain.why, role) {
        (DrainReason::Pod(PodState::Unready | PodState::Unhealthy), Role::Primary) => None,
        (DrainReason::Pod(PodState::Deleting), Role::Primary) if over => None,
        _ if over => Some(Serving::Drained { reason }),
        _ => Some(Serving::Draining { reason }),
    }
}

/// Why a follower's pod, having no role label, keeps reads away.
fn unlabelled(case: &Case<'_>, server: &Server) -> Option<&'static str> {
    let pod = server.pod.as_ref().filter(|pod| pod.label == Label::None && !pod.unlabelled_reads)?;
    let others = case.servers.iter().filter_map(|other| other.pod.as_ref());
    let anyone = others.filter(|other| other.uid != pod.uid).any(|other| other.label != Label::None);
    anyone.then_some("its pod has no role label")
}

/// May the server become the primary of a set, for all its pod says? `Err`: why not.
pub(super) fn admits(case: &Case<'_>, server: &Server) -> Result<(), (ConflictKind, String)> {
    let Some(pod) = &server.pod else { return Ok(()) };
    if pod.label == Label::Learner {
        let why = format!("{} is writable, but its pod is a learner", server.called());
        return Err((ConflictKind::Learner, why));
    }
    let (Some(term), Some(claim)) = (pod.term, &case.memory.claim) else { return Ok(()) };
    if term.number < claim.number && (term.ahead || pod.label == Label::Primary) {
        let (mine, newest) = (term.number, claim.number);
        let why =
            format!("{} is writable, but its term {mine} is older than {newest} of {}", server.called(), claim.pod);
        return Err((ConflictKind::OldTerm, why));
    }
    Ok(())
}

/// Tells where labels contradict each other or the proof.
pub(super) fn compare(case: &Case<'_>, primary: Option<BackendId>, conflicts: &mut Vec<Conflict>) {
    let labelled =
        || case.servers.iter().filter_map(|s| Some((s, s.pod.as_ref().filter(|p| p.label == Label::Primary)?)));
    let proven = primary.and_then(|id| case.server(id)).and_then(|server| Some((server, server.pod.as_ref()?)));
    let names =
        |pods: &mut dyn Iterator<Item = &Arc<PodFacts>>| pods.map(|pod| &*pod.name).collect::<Vec<_>>().join(", ");
    let all: Vec<(&Server, &Arc<PodFacts>)> = labelled().collect();
    let kind = match (all.as_slice(), proven) {
        ([], Some(_)) => ConflictKind::NoLabel,
        ([(one, _)], Some((server, _))) if one.id != server.id => ConflictKind::LabelElsewhere,
        ([_, _, ..], _) => ConflictKind::TwoLabels,
        ([] | [_], _) => return,
    };
    let who = match proven {
        Some((server, pod)) => format!("pod {} ({}) is proven by SQL", pod.name, server.address),
        None => "none is proven".to_owned(),
    };
    let evidence = match kind {
        ConflictKind::NoLabel => format!("no pod has the primary's label; {who}"),
        _ => format!("the primary's label is on {}; {who}", names(&mut all.iter().map(|(_, pod)| *pod))),
    };
    let mut backends: Vec<BackendId> = all.iter().map(|(server, _)| server.id).chain(primary).collect();
    backends.sort();
    backends.dedup();
    conflicts.push(Conflict { kind, backends, evidence: evidence.into() });
}
