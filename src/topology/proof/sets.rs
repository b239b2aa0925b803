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
//! - A primary of an earlier term that came back writable is no primary while it lacks what the last one was seen to have.
//! - A role in the configuration is named in the evidence and decides nothing.

use super::{Case, Verdict, Witness};
use crate::topology::report::{Channel, Receiver};
use crate::topology::server::Server;
use crate::topology::settings::RoleHint;
use crate::types::Gtids;

/// Who is the primary of the set?
pub(super) fn judge(case: &Case<'_>) -> Verdict {
    if let Some(unasked) = case.servers.iter().find(|server| !server.was_asked()) {
        return Verdict::None { why: format!("{} has not been asked yet", unasked.address) };
    }
    let mut claimants: Vec<Witness<'_>> = case.witnesses().filter(|w| claims(case, w)).collect();
    if claimants.len() > 1
        && let Some(incumbent) = case.incumbent()
        && let Some(holder) = claimants.iter().copied().find(|w| w.server.id == incumbent.id)
    {
        claimants.retain(|w| w.server.id == incumbent.id || !is_stale(w, &holder));
    }
    match claimants.as_slice() {
        [only] => sole(case, only),
        [] => Verdict::None { why: nobody(case) },
        several => Verdict::None { why: format!("more than one server can be written: {}", names(several)) },
    }
}

/// Judges the one server that claims the role.
fn sole(case: &Case<'_>, claimant: &Witness<'_>) -> Verdict {
    let server = claimant.server;
    if server.beyond_doubt(claimant.asked_ms) {
        if let Some(why) = lacks_last_primary(case, claimant) {
            return Verdict::None { why };
        }
        let evidence = if case.servers.len() == 1 {
            "the only server, and writable".to_owned()
        } else {
            "writable, follows no server of the cluster, and no other one is writable".to_owned()
        };
        return Verdict::Proven { id: server.id, asked_ms: claimant.asked_ms, evidence };
    }
    if case.previous.primary == Some(server.id) && case.incumbent().is_some_and(|s| s.id == server.id) {
        return Verdict::Kept { id: server.id, evidence: "was writable, in doubt until it answers again".to_owned() };
    }
    Verdict::None { why: format!("{} was writable, but something speaks against it since", server.address) }
}

/// Writable, and not following a server of the cluster?
fn claims(case: &Case<'_>, witness: &Witness<'_>) -> bool {
    let report = witness.report;
    if report.read_only || report.offline || witness.server.draining_ms.is_some() {
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

/// A primary of an earlier term must not win by being the only one left while it lacks what the last primary had.
fn lacks_last_primary(case: &Case<'_>, claimant: &Witness<'_>) -> Option<String> {
    if !claimant.server.former_primary {
        return None;
    }
    let last = case.previous.last_primary.as_ref().and_then(|last| case.server(last.id))?;
    let had = last.report.as_ref().and_then(|(_, report)| report.gtids.as_deref())?;
    let has = claimant.report.gtids.as_deref();
    let lacking = last.id != claimant.server.id && !has.is_some_and(|has| has.contains(had));
    lacking.then(|| {
        let (old, new) = (&claimant.server.address, &last.address);
        format!("{old} is writable, but was primary before {new} and lacks transactions of it")
    })
}

fn names(several: &[Witness<'_>]) -> String {
    let name = |witness: &Witness<'_>| {
        let hint = match witness.server.role_hint {
            Some(RoleHint::Primary) => " (primary in the configuration, which proves nothing)",
            Some(RoleHint::Follower) | None => "",
        };
        format!("{}{hint}", witness.server.address)
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
            Some(_) if server.draining_ms.is_some() => "taken out of the configuration".to_owned(),
            Some(_) => "writable, but follows another server of the cluster".to_owned(),
        };
        format!("{}: {said}", server.address)
    };
    if case.servers.is_empty() {
        return "no servers are known".to_owned();
    }
    case.servers.iter().map(account).collect::<Vec<_>>().join("; ")
}
