//! \[pure\] The rules: from what the servers say to who is the primary, who follows and why.
//!
//! A hint proves nothing; a server's own word proves nothing against another's. Where the evidence contradicts itself
//! there is no primary, and statements wait. Group replication is judged in `group`, everything else in `sets`;
//! followers in `followers`.
//!
//! **Term.** It counts the servers that were primary, one after the other: none → A is term 1, A → B and A → none → B add
//! one, A → none → A adds nothing as long as the same `server_uuid` answers. It never goes back.
//!
//! **Doubt.** A proven primary stays the primary when a hint or one silent probe speaks against it ("kept"), because a
//! slow server is not a dead one; the snapshot then carries `doubt` and the age of the last proof, and whoever routes
//! decides how long to trust it. It stops being the primary at once when nothing listens there any more, when it or
//! the others say it is not the primary, and when it was silent for longer than an answer counts.

mod followers;
mod group;
mod heir;
mod labels;
mod sets;
#[cfg(test)]
mod tests;

use super::memory::Memory;
use super::server::Server;
use super::settings::Limits;
use super::snapshot::{Backend, Conflict, ConflictKind, Flavor, LastPrimary, ServerFacade, Serving, Topology};
use crate::types::{BackendId, Gtids, Role, Term};
use std::sync::Arc;

/// The two clocks, as arguments.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The topology's own clock, milliseconds.
    pub ms: u64,
    /// Unix time, milliseconds.
    pub unix_ms: u64,
}

/// What the rules say of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Proven by questions asked at this moment.
    Proven { id: BackendId, asked_ms: u64, evidence: String },
    /// Proven before, in doubt now.
    Kept { id: BackendId, evidence: String },
    /// Nobody, and why.
    None { why: String },
}

/// All that the rules look at.
struct Case<'a> {
    previous: &'a Topology,
    servers: &'a [Server],
    memory: &'a Memory,
    limits: &'a Limits,
    now_ms: u64,
}

/// One server whose last answer counts.
#[derive(Clone, Copy)]
struct Witness<'a> {
    server: &'a Server,
    asked_ms: u64,
    report: &'a super::report::Report,
}

impl<'a> Case<'a> {
    fn witnesses(&self) -> impl Iterator<Item = Witness<'a>> + use<'a> {
        let (now_ms, limit) = (self.now_ms, self.limits.answer_ms_max);
        self.servers.iter().filter_map(move |server| witness(server, now_ms, limit))
    }

    fn witness(&self, id: BackendId) -> Option<Witness<'a>> {
        self.witnesses().find(|witness| witness.server.id == id)
    }

    fn server(&self, id: BackendId) -> Option<&'a Server> {
        self.servers.iter().find(|server| server.id == id)
    }

    /// The server that was last proven primary, unless another one answers at its address now.
    fn incumbent(&self) -> Option<&'a Server> {
        let last = self.previous.last_primary.as_ref()?;
        self.server(last.id).filter(|server| server.uuid() == &*last.server_uuid)
    }
}

/// Why a server that proves itself otherwise must still wait: it lacks what the last primary was seen to have, and somebody
/// may have been told that this is committed. The last primary itself is judged by nobody's memory of it. After
/// [`Limits::accept_lost_ms`] the loss is accepted: `Ok` with the words for the evidence.
fn lacks_seen(case: &Case<'_>, witness: &Witness<'_>) -> Result<Option<String>, String> {
    let server = witness.server;
    let Some(seen) = &case.memory.seen else { return Ok(None) };
    if seen.of.id == server.id && &*seen.of.server_uuid == server.uuid() {
        return Ok(None);
    }
    let Some(has) = witness.report.gtids.as_deref() else { return Ok(None) };
    if has.contains(&seen.gtids) {
        return Ok(None);
    }
    let missing = match (&*seen.gtids, has) {
        (Gtids::MySql(seen), Gtids::MySql(has)) => format!("{} transactions", seen.subtract(has).count()),
        _ => "transactions".to_owned(),
    };
    let waited_ms = case.memory.lacking_ms.map_or(0, |since| case.now_ms.saturating_sub(since));
    let what = format!("lacks {missing} that {} was seen to have", seen.address);
    if !server.former_primary && case.limits.accept_lost_ms.is_some_and(|limit| waited_ms >= limit) {
        return Ok(Some(format!("{what}: accepted after {waited_ms} ms")));
    }
    Err(format!("{} is writable, but {what}", server.called()))
}

/// What there is to say of each server: those that don't answer come first, for that is where the trouble is.
fn accounts(case: &Case<'_>, account: impl Fn(&Server) -> String) -> Vec<String> {
    let (heard, silent): (Vec<&Server>, Vec<&Server>) =
        case.servers.iter().partition(|server| case.witness(server.id).is_some());
    silent.into_iter().chain(heard).map(account).collect()
}

fn witness(server: &Server, now_ms: u64, answer_ms_max: u64) -> Option<Witness<'_>> {
    let (asked_ms, report) = server.usable(now_ms, answer_ms_max)?;
    Some(Witness { server, asked_ms, report })
}

/// The snapshot after `previous`, as `servers` stand now. Its version is `previous`'s, or one more if anything but lag
/// and age of proof differs.
pub fn next(previous: &Topology, servers: &[Server], memory: &Memory, limits: &Limits, now: Now) -> Topology {
    let case = Case { previous, servers, memory, limits, now_ms: now.ms };
    // A server that is set up for a group is never judged by the rules for sets, not even when all of it is down: started
    // without its group it is writable and alone.
    let grouped = servers.iter().any(|s| s.report.as_ref().is_some_and(|(_, report)| report.group.is_some()));
    let mut conflicts = Vec::new();
    let verdict = if grouped { group::judge(&case, &mut conflicts) } else { sets::judge(&case, &mut conflicts) };

    let mut next = Topology { backends: Vec::with_capacity(servers.len()), grouped, ..previous.clone() };
    apply(&mut next, &case, &verdict, now);
    next.heir = match &verdict {
        Verdict::Proven { .. } => None,
        Verdict::Kept { .. } | Verdict::None { .. } => heir::find(&case, grouped),
    };
    labels::compare(&case, next.primary, &mut conflicts);
    next.conflicts = conflicts;
    for server in servers {
        next.backends.push(describe(&case, server, &verdict, grouped));
    }
    next.backends.sort_by_key(|backend| backend.id);
    next.accepting = next.primary().is_some_and(|primary| primary.serving == Serving::Yes);
    if next.primary.is_some() || next.server.is_none() {
        next.server = facade(&case, next.primary).or(next.server);
    }
    next.version = previous.version + u64::from(differs(previous, &next));
    next
}

/// Carries the verdict into the snapshot: primary, proof, term, doubt, reason.
fn apply(next: &mut Topology, case: &Case<'_>, verdict: &Verdict, now: Now) {
    let before = next.primary;
    let why = match verdict {
        Verdict::Proven { id, asked_ms, evidence } => {
            let server_uuid = case.server(*id).map_or("", Server::uuid);
            let last = LastPrimary { id: *id, server_uuid: server_uuid.into() };
            if next.last_primary.as_ref() != Some(&last) {
                next.term = Term(next.term.0 + 1);
                next.last_primary = Some(last);
            }
            next.primary = Some(*id);
            next.proven_ms = Some(*asked_ms);
            next.doubt = false;
            evidence
        }
        Verdict::Kept { id, evidence } => {
            next.primary = Some(*id);
            next.doubt = true;
            evidence
        }
        Verdict::None { why } => {
            next.primary = None;
            next.proven_ms = None;
            next.doubt = true;
            why
        }
    };
    if next.primary != before {
        next.since_unix_ms = now.unix_ms;
    }
    if next.primary != before || next.primary.is_none() {
        next.why = why.as_str().into();
    }
}

/// One server's line in the snapshot.
fn describe(case: &Case<'_>, server: &Server, verdict: &Verdict, grouped: bool) -> Backend {
    let standing = match verdict {
        Verdict::Proven { id, evidence, .. } | Verdict::Kept { id, evidence } if *id == server.id => {
            Standing { role: Role::Primary, refusal: None, evidence: evidence.clone() }
        }
        Verdict::Proven { id, .. } | Verdict::Kept { id, .. } => followers::judge(case, server, Some(*id), grouped),
        Verdict::None { .. } => followers::judge(case, server, None, grouped),
    };
    let report = server.report.as_ref().map(|(_, report)| report);
    let serving = labels::serving(case, server, &standing);
    Backend {
        id: server.id,
        address: server.address.clone(),
        weight: server.weight,
        role: standing.role,
        serving,
        answers: server.failure.is_none() && case.witness(server.id).is_some(),
        silent: server.silent_ms.is_some_and(|since| case.now_ms.saturating_sub(since) >= case.limits.silence_ms),
        lag_ms: if standing.role == Role::Primary { Some(0) } else { server.lag_ms },
        gtids: report.and_then(|report| report.gtids.clone()),
        evidence: standing.evidence.into(),
        server_uuid: report.and_then(|report| report.server_uuid.clone()),
        server_id: report.map(|report| report.server_id),
        version: report.map(|report| report.greeting.version.clone()),
        pod: server.pod.clone(),
    }
}

/// What the rules say of a server that is not the primary.
struct Standing {
    role: Role,
    refusal: Option<String>,
    evidence: String,
}

/// The primary's version (before the first one: the lowest id's that answers), and what all can do, so that a client's
/// agreement with one holds for all. Servers that are away count with what they said last.
fn facade(case: &Case<'_>, primary: Option<BackendId>) -> Option<ServerFacade> {
    let reported = |server: &'_ Server| server.report.as_ref().map(|(_, report)| report.greeting.clone());
    let first = || case.witnesses().min_by_key(|witness| witness.server.id).map(|witness| witness.server);
    let shown = reported(primary.and_then(|id| case.server(id)).or_else(first)?)?;
    let greetings = case.servers.iter().filter_map(reported).filter(|greeting| greeting.flavor == shown.flavor);
    // MariaDB sends this prefix up to 10.x, because old replicas looked at the first digit (removed in 11.0).
    let old_mariadb = shown.flavor == Flavor::MariaDb && shown.version.starts_with("10.");
    let version: Arc<str> = if old_mariadb { format!("5.5.5-{}", shown.version).into() } else { shown.version.clone() };
    Some(ServerFacade {
        version,
        capabilities: greetings.fold(u64::MAX, |all, greeting| all & greeting.capabilities),
        collation: shown.collation,
        default_plugin: shown.plugin.clone(),
        flavor: shown.flavor,
    })
}

/// Is there any difference but lag, age of proof and wording?
fn differs(a: &Topology, b: &Topology) -> bool {
    let line = |x: &Backend, y: &Backend| {
        (x.id, &x.address, x.weight, x.role, x.silent, &x.server_uuid, x.server_id, &x.version)
            != (y.id, &y.address, y.weight, y.role, y.silent, &y.server_uuid, y.server_id, &y.version)
            || x.serving.as_str() != y.serving.as_str()
            || x.pod != y.pod
    };
    let conflict = |x: &Conflict, y: &Conflict| (x.kind, &x.backends) != (y.kind, &y.backends);
    (a.term, a.primary, a.heir, a.doubt, &a.server) != (b.term, b.primary, b.heir, b.doubt, &b.server)
        || a.conflicts.len() != b.conflicts.len()
        || a.conflicts.iter().zip(&b.conflicts).any(|(x, y)| conflict(x, y))
        || a.backends.len() != b.backends.len()
        || a.backends.iter().zip(&b.backends).any(|(x, y)| line(x, y))
}
