//! \[pure\] Semi-sync and plain asynchronous sets, and single servers: the primary is the one server that can be written.
//!
//! - A candidate is writable, not in offline_mode, and follows no other server of the cluster. A running receiver is
//!   following; so is a stopped channel that still points at a server that is writable itself. Not following: the writable
//!   half of a ring, whose read-only other half follows it.
//! - Two candidates: neither, until one is fenced or proven stale. That one of them has fewer transactions proves nothing:
//!   a replica that was just promoted beside a living primary has fewer, too. Proven stale is only a primary of an
//!   earlier term that came back writable, was not seen read-only since, and holds nothing that the present primary
//!   lacks. MariaDB's positions can't show the last point, so there nothing is proven stale.
//! - The last primary's silence keeps its claim for as long as its last answer counts; "nobody listens" ends it at once.
//! - A server whose pod's term is older than one that has been claimed is no candidate (see `labels`).
//! - No server is the primary while it lacks what the last one was seen to have: a replica that was promoted before it had
//!   applied everything gets there, an old primary that came back does not.
//! - A server that has not been asked yet may be the writable one: nobody is proven beside it, but who is the primary
//!   already stays so, because new pods come all the time.
//! - A role in the configuration is named in the evidence and decides nothing.

use super::{Case, Conflict, ConflictKind, Verdict, Witness, accounts, labels, lacks_seen};
use crate::topology::report::{Channel, Receiver};
use crate::topology::server::Server;
use crate::topology::settings::RoleHint;
use crate::types::Gtids;

/// Who is the primary of the set?
pub(super) fn judge(case: &Case<'_>, conflicts: &mut Vec<Conflict>) -> Verdict {
    let settled =
        case.previous.primary.is_some() && case.incumbent().is_some_and(|i| case.previous.primary == Some(i.id));
    if let Some(unasked) = case.servers.iter().find(|server| !server.was_asked() && !settled) {
        return Verdict::None { why: format!("{} has not been asked yet", unasked.called()) };
    }
    let mut told = |kind, several: &[Witness<'_>], evidence: &str| {
        let backends = several.iter().map(|witness| witness.server.id).collect();
        conflicts.push(Conflict { kind, backends, evidence: evidence.into() });
    };
    let mut claimants: Vec<Witness<'_>> = case.witnesses().filter(|w| claims(case, w)).collect();
    let mut outranked = Vec::new();
    claimants.retain(|witness| match labels::admits(case, witness.server) {
        Ok(()) => true,
        Err((kind, why)) => {
            told(kind, &[*witness], &why);
            outranked.push(why);
            false
        }
    });
    if claimants.len() > 1
        && let Some(incumbent) = case.incumbent()
        && let Some(holder) = claimants.iter().copied().find(|w| w.server.id == incumbent.id)
    {
        claimants.retain(|witness| {
            let stale = witness.server.id != incumbent.id && is_stale(witness, &holder);
            if stale {
                let (old, new) = (witness.server.called(), incumbent.called());
                let why = format!("{old} is writable, but was primary before {new} and holds nothing that it lacks");
                told(ConflictKind::StalePrimary, &[*witness], &why);
            }
            !stale
        });
    }
    match claimants.as_slice() {
        [only] => sole(case, only).unwrap_or_else(|why| {
            told(ConflictKind::MissingWrites, &[*only], &why);
            Verdict::None { why }
        }),
        [] if !outranked.is_empty() => Verdict::None { why: outranked.join("; ") },
        [] => Verdict::None { why: nobody(case) },
        several => {
            let why = format!("more than one server can be written: {}", names(several));
            told(ConflictKind::TwoWritable, several, &why);
            Verdict::None { why }
        }
    }
}

/// Judges the one server that claims the role. `Err`: what it lacks.
fn sole(case: &Case<'_>, claimant: &Witness<'_>) -> Result<Verdict, String> {
    let server = claimant.server;
    if server.beyond_doubt(claimant.asked_ms) {
        let loss = lacks_seen(case, claimant)?.map(|loss| format!("; {loss}")).unwrap_or_default();
        let evidence = if case.servers.len() == 1 {
            format!("the only server, and writable{loss}")
        } else {
            format!("writable, follows no server of the cluster, and no other one is writable{loss}")
        };
        return Ok(Verdict::Proven { id: server.id, asked_ms: claimant.asked_ms, evidence });
    }
    if case.previous.primary == Some(server.id) && case.incumbent().is_some_and(|s| s.id == server.id) {
        let evidence = "was writable, in doubt until it answers again".to_owned();
        return Ok(Verdict::Kept { id: server.id, evidence });
    }
    Ok(Verdict::None { why: format!("{} was writable, but something speaks against it since", server.called()) })
}

/// Writable, and not following a server of the cluster?
fn claims(case: &Case<'_>, witness: &Witness<'_>) -> bool {
    let report = witness.report;
    if report.read_only || report.offline || witness.server.is_unlisted() {
        return false;
    }
    !report.channels.iter().any(|channel| match source(case, channel).filter(|s| s.id != witness.server.id) {
        None => false,
        Some(source) => obeys(case, witness, channel, source),
    })
}

/// Does `witness` follow `source` through `channel`?
fn obeys(case: &Case<'_>, witness: &Witness<'_>, channel: &Channel, source: &Server) -> bool {
    let other = case.witness(source.id);
    let other_writable = other.is_some_and(|w| !w.report.read_only && !w.report.offline);
    match channel.receiver {
        Receiver::Off => other_writable,
        Receiver::On | Receiver::Connecting => {
            let ring = other.is_some_and(|w| w.report.read_only && follows(case, &w, witness.server));
            !ring
        }
    }
}

/// Does `witness` have a running channel from `server`?
fn follows(case: &Case<'_>, witness: &Witness<'_>, server: &Server) -> bool {
    witness.report.channels.iter().any(|channel| {
        channel.receiver != Receiver::Off && source(case, channel).is_some_and(|source| source.id == server.id)
    })
}

/// The server of the cluster that a channel points at: by UUID if the channel has met it, else by address, else (MariaDB)
/// by server id.
pub(super) fn source<'a>(case: &Case<'a>, channel: &Channel) -> Option<&'a Server> {
    let by = |matches: &dyn Fn(&Server) -> bool| case.servers.iter().find(|server| matches(server));
    channel
        .source_uuid
        .as_deref()
        .and_then(|uuid| by(&|server| server.uuid() == uuid))
        .or_else(|| channel.source.as_ref().and_then(|address| by(&|server| server.address == *address)))
        .or_else(|| {
            let id = channel.source_server_id?;
            by(&|server| server.report.as_ref().is_some_and(|(_, r)| r.server_uuid.is_none() && r.server_id == id))
        })
}

/// Is `witness` a primary of an earlier term that holds nothing the holder of the role lacks?
fn is_stale(witness: &Witness<'_>, holder: &Witness<'_>) -> bool {
    let (Some(theirs), Some(ours)) = (witness.report.gtids.as_deref(), holder.report.gtids.as_deref()) else {
        return false;
    };
    let provable = matches!((theirs, ours), (Gtids::MySql(_), Gtids::MySql(_)));
    witness.server.former_primary && provable && ours.contains(theirs)
}

fn names(several: &[Witness<'_>]) -> String {
    let name = |witness: &Witness<'_>| {
        let hint = match witness.server.role_hint {
            Some(RoleHint::Primary) => " (primary in the configuration, which proves nothing)",
            Some(RoleHint::Follower) | None => "",
        };
        match &witness.server.pod {
            Some(pod) => format!("{} (pod {}, label {})", witness.server.address, pod.name, pod.label.as_str()),
            None => format!("{}{hint}", witness.server.address),
        }
    };
    several.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Why nobody claims the role, server by server.
fn nobody(case: &Case<'_>) -> String {
    let account = |server: &Server| {
        let said = match case.witness(server.id) {
            None => server.silence(),
            Some(witness) if witness.report.offline => "in offline_mode".to_owned(),
            Some(witness) if witness.report.read_only => "read-only".to_owned(),
            Some(_) if server.is_unlisted() => "taken out of the configuration".to_owned(),
            Some(_) => "writable, but follows another server of the cluster".to_owned(),
        };
        format!("{}: {said}", server.called())
    };
    if case.servers.is_empty() {
        return "no servers are known".to_owned();
    }
    accounts(case, account).join("; ")
}
