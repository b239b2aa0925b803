//! \[pure\] Which of the other servers may serve reads.
//!
//! A follower answers and is a replica of this cluster by its own word: an ONLINE SECONDARY with a majority of its group
//! in sight, or a server with a channel from another server of the cluster, or a read-only one whose GTIDs show it on the
//! primary's path. Whether its replication runs does not matter here: a follower that stands still falls behind, and
//! routing looks at lag. RECOVERING, ERROR and OFFLINE members, offline_mode, and servers that were silent for longer
//! than an answer counts serve nothing. One silent probe changes nothing: connections say soon enough.

use super::{Case, Standing, Witness, sets};
use crate::topology::report::{MemberState, Receiver};
use crate::topology::server::Server;
use crate::types::{BackendId, Role};

/// Judges a server that is not the primary.
pub(super) fn judge(case: &Case<'_>, server: &Server, primary: Option<BackendId>, grouped: bool) -> Standing {
    let Some(witness) = case.witness(server.id) else {
        return unknown(server.silence());
    };
    if witness.report.offline {
        return unknown("in offline_mode".to_owned());
    }
    // A read replica of a group is not set up for one itself: it has a channel from a member.
    if grouped && witness.report.group.is_some() { member(case, &witness, primary) } else { replica(case, &witness) }
}

fn member(case: &Case<'_>, witness: &Witness<'_>, primary: Option<BackendId>) -> Standing {
    let uuid = witness.server.uuid();
    let view = witness.report.group.as_ref();
    let Some((view, me)) = view.and_then(|view| Some((view, view.member(uuid)?))) else {
        return unknown("not in a group".to_owned());
    };
    if me.state != MemberState::Online {
        return unknown(format!("{} in its group", me.state.as_str()));
    }
    if me.primary {
        return unknown("calls itself PRIMARY, which the others don't confirm".to_owned());
    }
    if !view.has_quorum() {
        return unknown("has lost sight of the majority of its group".to_owned());
    }
    let leader = primary.and_then(|id| case.witness(id)).and_then(|w| w.report.group.as_ref());
    match leader.map(|view| view.member(uuid).map(|me| me.state)) {
        Some(None) => unknown("not in the primary's group".to_owned()),
        Some(Some(MemberState::Unreachable)) => unknown("UNREACHABLE for the primary".to_owned()),
        Some(Some(_)) | None => follower("ONLINE SECONDARY of its group".to_owned()),
    }
}

fn replica(case: &Case<'_>, witness: &Witness<'_>) -> Standing {
    let me = witness.server.id;
    let running = |receiver| receiver != Receiver::Off;
    let sources = witness.report.channels.iter().filter_map(|channel| Some((sets::source(case, channel)?, channel)));
    let mut sources: Vec<_> = sources.filter(|(source, _)| source.id != me).collect();
    sources.sort_by_key(|(_, channel)| !running(channel.receiver));
    match sources.first() {
        Some((source, channel)) if running(channel.receiver) => {
            let writable = if witness.report.read_only { "" } else { ", although it is writable" };
            follower(format!("replicates from {}{writable}", source.called()))
        }
        Some((source, _)) if witness.report.read_only => {
            follower(format!("read-only; its channel from {} is stopped", source.called()))
        }
        None if witness.report.read_only && witness.server.lag_ms.is_some() => {
            follower("read-only, and its GTIDs can be compared with the primary's".to_owned())
        }
        None if witness.report.read_only => unknown("read-only, but follows no server of the cluster".to_owned()),
        Some(_) | None => unknown("writable, and not proven to be the primary".to_owned()),
    }
}

fn follower(evidence: String) -> Standing {
    Standing { role: Role::Follower, refusal: None, evidence }
}

fn unknown(reason: String) -> Standing {
    Standing { role: Role::Unknown, refusal: Some(reason.clone()), evidence: reason }
}
