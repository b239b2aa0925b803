//! Sets: a primary whose commits wait for replicas.

use super::{change, election, replicas};
use crate::reconciler::action::{Action, Fencing, Phase, Plan};
use crate::reconciler::resource::Durability;
use crate::reconciler::snapshot::{Answer, Member, MemberName, Snapshot};
use crate::topology::report::Receiver;
use crate::types::{GtidSet, Role, Term};

/// Longer than this no commit waits for anything else: semi-sync never gives up (milliseconds, 31 million years).
pub const FOR_EVER_MS: u64 = 1_000_000_000_000_000_000;

pub(super) fn decide(s: &Snapshot) -> Plan {
    if s.record.lead().is_none() {
        return begin(s);
    }
    let Some(lead) = s.lead() else {
        // It was scaled away, or its name was written by hand.
        return election::elect_and_finish(s);
    };
    let Some(answer) = lead.answer() else { return election::elect_and_finish(s) };
    if !s.is_changing() && !has_its_data(s, lead, answer) {
        return election::elect_and_finish(s);
    }
    if s.is_changing() {
        return change::go_on(s, lead, answer);
    }
    let foreign: Vec<&Member> = replicas::writable(s, lead).collect();
    if answer.read_only || answer.super_read_only {
        // "Recorded primary is read-only": it came back before another took over, or a promotion broke off.
        let why = format!("{} is the recorded primary and read-only", lead.name);
        let mut plan = Plan::of(Phase::Changing, &why, foreign.iter().flat_map(|m| fence(m)));
        finish_promotion(s, lead, &mut plan, &why);
        return plan;
    }
    if answer.full && election::can_spare(s, lead) {
        // That ends its server, as a full disk ends it sooner or later: what follows is the loss of the primary.
        return Plan::of(Phase::Changing, no_room(lead), fence(lead));
    }
    steady(s, lead, answer)
}

pub(super) fn no_room(member: &Member) -> String {
    format!("no room is left on the disk of {}, and its commits wait for it", member.name)
}

/// Nothing was written down yet: one server may be writable already, or the most advanced one begins.
fn begin(s: &Snapshot) -> Plan {
    let answers: Vec<&Member> = s.members.iter().filter(|m| m.answer().is_some()).collect();
    if answers.len() < s.members.len() {
        let why = format!("{} of {} members answer; all are waited for", answers.len(), s.members.len());
        return Plan::idle(Phase::Creating, why);
    }
    let writable: Vec<&Member> = replicas::all_writable(s).collect();
    let first = match writable.as_slice() {
        [] => match most_advanced(&answers) {
            Some(first) => first,
            None => return Plan::idle(Phase::Person, NOT_ORDERED),
        },
        [one] => one,
        [_, _, ..] => {
            let why = "more than one server is writable, and none was written down as the primary";
            return Plan::idle(Phase::Person, why);
        }
    };
    let why = if writable.is_empty() { "the most advanced of all members begins" } else { "it is writable already" };
    let mut plan = Plan::of(Phase::Creating, why, [claim(s, &first.name)]);
    if writable.is_empty() {
        finish_promotion(s, first, &mut plan, why);
    } else {
        settle_and_label(s, first, &mut plan, why);
    }
    plan
}

pub(super) const NOT_ORDERED: &str =
    "each of several members has transactions that the others lack: a person must choose which to keep";

/// The member that has everything that any of them has; of equals the first. `None`: there is none.
pub(super) fn most_advanced<'a>(members: &[&'a Member]) -> Option<&'a Member> {
    let sets: Vec<GtidSet> = members.iter().map(|m| m.answer().map(Answer::has).unwrap_or_default()).collect();
    let all = sets.iter().fold(GtidSet::default(), |all, set| all.union(set));
    let fit = |member: &Member| (member.fenced || member.deleting, unapplied(member));
    let complete = members.iter().zip(&sets).filter(|(_, set)| set.contains(&all)).map(|(member, _)| *member);
    complete.min_by_key(|member| fit(member))
}

/// Transactions that wait in its relay log.
fn unapplied(member: &Member) -> u64 {
    member.answer().map_or(0, |answer| answer.has().subtract(&answer.executed).count())
}

/// Is the member that should be the primary still what it was? Not if its volume was replaced, or if it forgot commits that
/// its replicas have: some may have been acknowledged.
fn has_its_data(s: &Snapshot, lead: &Member, answer: &Answer) -> bool {
    if s.has_forgotten(lead) {
        return false;
    }
    if !answer.is_fenced() {
        // Others may have received, since it answered, what it then committed.
        return true;
    }
    let own = |set: GtidSet| set.count() != set.without(answer.uuid).count();
    let others = s.members.iter().filter(|m| m.name != lead.name).filter_map(Member::answer);
    !others.map(|other| other.has().subtract(&answer.executed)).any(own)
}

pub(super) fn claim(s: &Snapshot, member: &MemberName) -> Action {
    Action::Claim { member: member.clone(), term: next_term(s) }
}

fn next_term(s: &Snapshot) -> Term {
    Term(s.record.term.0 + 1)
}

/// The term that this member has, or gets with the claim before.
fn term_of(s: &Snapshot, member: &Member) -> Term {
    if s.record.lead() == Some(&member.name) { s.record.term } else { next_term(s) }
}

pub(super) fn fence(member: &Member) -> impl Iterator<Item = Action> {
    let unlabel = member.label.is_some().then(|| Action::Unlabel { member: member.name.clone() });
    let fence = Action::Fence { member: member.name.clone(), how: Fencing::Forced };
    unlabel.into_iter().chain([fence])
}

/// What is left to do once nothing speaks against `member` any more: settle it, open it, label it, lead the others to it.
///
/// It is settled before it is opened: from then on it may have taken writes, and whoever comes after must know that the
/// change can't be undone any more.
pub(super) fn finish_promotion(s: &Snapshot, member: &Member, plan: &mut Plan, why: &str) {
    plan.push(why, Action::Announce { member: member.name.clone(), term: term_of(s, member) });
    let old = s.record.primary.as_ref().and_then(|name| s.member(name)).filter(|old| old.name != member.name);
    let unlabel = old.filter(|old| old.label.is_some()).map(|old| Action::Unlabel { member: old.name.clone() });
    if let Some(unlabel) = unlabel.filter(|unlabel| !plan.steps.iter().any(|step| step.action == *unlabel)) {
        plan.push(why, unlabel);
    }
    settle(s, member, plan, why);
    plan.push(why, Action::Promote { member: member.name.clone(), acks: s.acks_proven().min(s.acks_full()) });
    label(member, plan, why);
    for other in s.members.iter().filter(|other| other.name != member.name) {
        if replicas::may_follow(s, other, member) {
            plan.push(why, Action::Follow { member: other.name.clone(), source: member.name.clone() });
        }
    }
}

fn settle(s: &Snapshot, member: &Member, plan: &mut Plan, why: &str) {
    if s.record.primary.as_ref() != Some(&member.name) {
        plan.push(why, Action::Settle { member: member.name.clone() });
    }
}

fn label(member: &Member, plan: &mut Plan, why: &str) {
    if member.label != Some(Role::Primary) {
        plan.push(why, Action::Label { member: member.name.clone(), role: Role::Primary });
    }
}

/// The same for one that is open already.
pub(super) fn settle_and_label(s: &Snapshot, member: &Member, plan: &mut Plan, why: &str) {
    let term = term_of(s, member);
    settle(s, member, plan, why);
    if member.term < Some(term) {
        plan.push(why, Action::Announce { member: member.name.clone(), term });
    }
    label(member, plan, why);
}

/// The primary is at work: keep its commits safe, fence whoever else is writable, mend the replicas, move it if asked.
fn steady(s: &Snapshot, lead: &Member, answer: &Answer) -> Plan {
    let mut plan = Plan::idle(Phase::Ready, "");
    for other in replicas::writable(s, lead) {
        let why = format!("{} is writable, but {} is the primary", other.name, lead.name);
        fence(other).for_each(|action| plan.push(&why, action));
    }
    acks(s, lead, answer, &mut plan);
    if answer.full {
        (plan.phase, plan.why) = (Phase::Degraded, no_room(lead));
    }
    if answer.offline && !lead.fenced {
        let why = format!("{} is the primary and in offline_mode", lead.name);
        plan.push(&why, Action::Promote { member: lead.name.clone(), acks: s.acks_proven().min(s.acks_full()) });
    }
    settle_and_label(s, lead, &mut plan, "it is the primary");
    if let Some(reason) = change::reason_to_move(s, lead) {
        match change::begin(s, lead, answer, &reason) {
            Ok(moving) => {
                plan.steps.extend(moving.steps);
                return Plan { phase: Phase::Changing, why: reason, ..plan };
            }
            Err(why) => plan.why = why,
        }
    }
    replicas::mend(s, lead, &mut plan);
    plan
}

/// How many replicas a commit waits for. Raised on the server first and lowered in the record first, so that the record is
/// never more than the truth.
fn acks(s: &Snapshot, lead: &Member, answer: &Answer, plan: &mut Plan) {
    let full = s.acks_full();
    let now = &answer.semisync;
    let streaming = now.clients;
    let wanted = match s.wishes.durability {
        Durability::Strict => full,
        Durability::Preferred if streaming >= full => full,
        // Never 0: a commit that nobody else has is none.
        Durability::Preferred if now.waiting > 0 && !replicas::can_mend(s, lead) => streaming.clamp(full.min(1), full),
        Durability::Preferred => s.acks_proven().min(full),
    };
    let recorded = s.acks_proven();
    let set = |acks| Action::Acks { member: lead.name.clone(), acks };
    let is_set =
        if wanted == 0 { !now.source } else { now.source && now.acks == wanted && now.timeout_ms >= FOR_EVER_MS };
    let why = format!("commits are to wait for {wanted} of {} replicas, for ever", s.members.len() - 1);
    let lower = wanted < recorded;
    if lower {
        plan.push(&why, Action::RecordAcks { acks: wanted });
    }
    if !is_set {
        plan.push(&why, set(wanted));
    }
    if !lower && s.record.acks != Some(wanted) {
        plan.push(&why, Action::RecordAcks { acks: wanted });
    }
    if now.waiting > 0 && streaming < now.acks {
        let why = format!("commits wait: {streaming} of {} replicas acknowledge", now.acks);
        plan.phase = Phase::Degraded;
        plan.why = why;
    }
}

/// Does it receive from the lead, ready to acknowledge?
pub(super) fn streams(member: &Member, lead: &Member) -> bool {
    member.answer().is_some_and(|answer| {
        answer.receiver() == Receiver::On && answer.follows(lead) && answer.semisync.replica && !answer.offline
    })
}
