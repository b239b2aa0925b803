//! \[pure\] Group replication: the primary is whom a majority of its members call primary, and who is writable itself.
//!
//! The members that count are those in the candidate's own view, in whatever state: a group only shrinks its view by
//! consent of a majority of the view before, so a view that names me primary beside members who disagree is an old one.
//! - After kill -9 of A the others see A UNREACHABLE, then agree on a view without it: two of two name the new primary.
//! - A minority keeps its old view, with the others UNREACHABLE in it: it can't gather a majority of that view.
//! - A frozen primary that resumes still has its old view for seconds: the others' views name another.
//! - A member left alone by members who left in good order has a view of one, and is enough.
//! - Members that are not in our list count in the view but can't be asked: the rest must be a majority without them.
//!
//! A view counts only if its owner is ONLINE in it, and only if it was asked for after the last thing that spoke against
//! the candidate. One view votes for one primary, so two candidates of one view never both win. A group in multi-primary
//! mode has no primary here.

use super::{Case, Conflict, ConflictKind, Verdict, Witness, accounts, lacks_seen};
use crate::topology::report::{FailureKind, GroupView, MemberState};
use crate::topology::server::Server;
use crate::types::BackendId;

/// Votes about one candidate.
struct Count {
    /// Views that name it, asked for late enough.
    votes: usize,
    /// Views that named it, but were asked for too early: the next ones may name it again.
    open: usize,
    /// Members of the candidate's view.
    members: usize,
}

impl Count {
    fn majority(&self) -> usize {
        self.members / 2 + 1
    }
}

/// Who is the primary of the group?
pub(super) fn judge(case: &Case<'_>, conflicts: &mut Vec<Conflict>) -> Verdict {
    let mut told = |kind, who: &Witness<'_>, evidence: &str| {
        conflicts.push(Conflict { kind, backends: vec![who.server.id], evidence: evidence.into() });
    };
    let candidates: Vec<Witness<'_>> = case.witnesses().filter(|w| claims(w)).collect();
    let mut why = Vec::new();
    let mut proven = Vec::new();
    for candidate in &candidates {
        let count = count(case, candidate);
        if candidate.server.beyond_doubt(candidate.asked_ms) && count.votes >= count.majority() {
            proven.push((candidate, count));
        } else {
            let name = candidate.server.called();
            let said = format!("{name} calls itself primary with {} of {} views", count.votes, count.members);
            if count.votes + count.open < count.majority() {
                told(ConflictKind::NoMajority, candidate, &said);
            }
            why.push(said);
        }
    }
    if let [(winner, count)] = proven.as_slice() {
        let loss = match lacks_seen(case, winner) {
            Ok(loss) => loss.map(|loss| format!("; {loss}")).unwrap_or_default(),
            Err(why) => {
                told(ConflictKind::MissingWrites, winner, &why);
                return Verdict::None { why };
            }
        };
        let (votes, members) = (count.votes, count.members);
        let evidence = format!("PRIMARY in the views of {votes} of {members} members, and writable{loss}");
        return Verdict::Proven { id: winner.server.id, asked_ms: winner.asked_ms, evidence };
    }
    if proven.len() > 1 {
        return Verdict::None { why: "two servers have a majority of their groups' views".to_owned() };
    }
    if let Some(verdict) = keep(case) {
        return verdict;
    }
    if why.is_empty() {
        why = accounts(case, |server| account(case, server));
    }
    Verdict::None { why: why.join("; ") }
}

/// Does the server call itself the one primary, and can it be written?
fn claims(witness: &Witness<'_>) -> bool {
    calls_itself(witness) && !witness.report.read_only && !witness.report.offline && !witness.server.is_unlisted()
}

/// Is it the one primary in its own view?
fn calls_itself(witness: &Witness<'_>) -> bool {
    let mut primaries = witness.report.group.iter().flat_map(GroupView::primaries);
    primaries.next().is_some_and(|primary| &*primary.uuid == witness.server.uuid()) && primaries.next().is_none()
}

/// The view of a member that takes part in the group.
fn online_view<'a>(witness: &Witness<'a>) -> Option<&'a GroupView> {
    let view = witness.report.group.as_ref()?;
    let me = view.member(witness.report.server_uuid.as_deref()?)?;
    (me.state == MemberState::Online).then_some(view)
}

fn count(case: &Case<'_>, candidate: &Witness<'_>) -> Count {
    let uuid = candidate.server.uuid();
    let members = candidate.report.group.as_ref().map_or(&[][..], |view| &view.members);
    let mut count = Count { votes: 0, open: 0, members: members.len() };
    for member in members {
        let known = case.servers.iter().find(|server| server.uuid() == &*member.uuid);
        let heard = known.and_then(|server| case.witness(server.id));
        let Some(witness) = heard else { continue };
        if !online_view(&witness).into_iter().flat_map(GroupView::primaries).any(|primary| &*primary.uuid == uuid) {
            continue;
        }
        if candidate.server.beyond_doubt(witness.asked_ms) {
            count.votes += 1;
        } else {
            count.open += 1;
        }
    }
    count
}

/// Whom a majority calls primary, writable or not yet.
pub(super) fn elected<'a>(case: &Case<'_>, mut members: impl Iterator<Item = Witness<'a>>) -> Option<BackendId> {
    let named = |witness: &Witness<'_>| {
        let count = count(case, witness);
        calls_itself(witness) && count.votes + count.open >= count.majority()
    };
    members.find(named).map(|witness| witness.server.id)
}

/// The primary of the last snapshot, if nothing but silence or a hint speaks against it and a majority may still name it.
fn keep(case: &Case<'_>) -> Option<Verdict> {
    let server = case.incumbent().filter(|server| case.previous.primary == Some(server.id))?;
    if server.is_unlisted() || matches!(&server.failure, Some((_, f)) if f.kind != FailureKind::Silent) {
        return None;
    }
    let (asked_ms, report) = server.report.as_ref()?;
    // However old: what it said last is what it keeps.
    let last = Witness { server, asked_ms: *asked_ms, report };
    let count = count(case, &last);
    let possible = count.votes + count.open;
    (claims(&last) && possible >= count.majority()).then(|| Verdict::Kept {
        id: server.id,
        evidence: format!("was PRIMARY, in doubt: {} of {} views still name it", count.votes, count.members),
    })
}

/// What a server says, for the evidence of there being no primary.
fn account(case: &Case<'_>, server: &Server) -> String {
    let Some(witness) = case.witness(server.id) else {
        return format!("{}: {}", server.called(), server.silence());
    };
    let state = witness.report.group.as_ref().and_then(|view| view.member(server.uuid()));
    let role = match state {
        None => "not in a group".to_owned(),
        Some(me) if me.primary && witness.report.read_only => format!("{} PRIMARY, read-only", me.state.as_str()),
        Some(me) => format!("{}{}", me.state.as_str(), if me.primary { " PRIMARY" } else { "" }),
    };
    let others = witness.report.group.as_ref().map_or(0, |view| view.primaries().count());
    let note = if others > 1 { ", multi-primary mode is not served" } else { "" };
    format!("{}: {role}{note}", server.called())
}
