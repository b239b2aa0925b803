//! Groups: who the primary is the members decide themselves, by quorum. What is left to do here is to found the group, to
//! bring members back that left, to move the primary, and to write down and label what the group says.

use super::change::reason_to_move;
use super::replicas::LATE;
use super::semisync::{NOT_ORDERED, claim, fence, most_advanced, no_room, settle_and_label};
use crate::reconciler::action::{Action, Phase, Plan};
use crate::reconciler::snapshot::{Answer, GroupMember, Member, Snapshot};
use crate::topology::report::MemberState;
use crate::types::{GtidSet, Role, Uuid};

pub(super) fn decide(s: &Snapshot) -> Plan {
    let reachable: Vec<&Member> = s.members.iter().filter(|m| m.answer().is_some()).collect();
    if reachable.is_empty() {
        return Plan::idle(Phase::Waiting, "no member answers");
    }
    let active: Vec<&Member> = reachable.iter().copied().filter(|m| is_active(s, m)).collect();
    if active.is_empty() {
        return without_quorum(s, &reachable);
    }
    if !are_one_group(&active) {
        let why = "more than one group is active: a person must choose which to keep";
        return Plan::idle(Phase::Person, why);
    }
    match primary(s, &active) {
        Some(primary) => with_primary(s, primary, &active),
        None => Plan::idle(Phase::Changing, "the group is choosing a primary"),
    }
}

fn uuid(member: &Member) -> Option<Uuid> {
    member.answer().map(|answer| answer.uuid)
}

fn view(member: &Member) -> &[GroupMember] {
    member.answer().and_then(|answer| answer.group.as_ref()).map_or(&[], |group| &group.members)
}

/// Does it count the other among the living of its group?
fn sees(member: &Member, other: &Member) -> bool {
    let other = uuid(other);
    let alive = |m: &GroupMember| matches!(m.state, MemberState::Online | MemberState::Recovering);
    view(member).iter().any(|m| Some(m.uuid) == other && alive(m))
}

/// Do all of them belong together? Two that have lost sight of each other do if somebody sees both: the group settles that by
/// itself.
fn are_one_group(active: &[&Member]) -> bool {
    let (mut reached, mut rest): (Vec<&Member>, Vec<&Member>) = (Vec::new(), active.to_vec());
    let mut next = rest.pop();
    while let Some(member) = next {
        reached.push(member);
        let seen = |other: &&Member| reached.iter().any(|one| sees(one, other) && sees(other, one));
        next = rest.iter().position(seen).map(|at| rest.swap_remove(at));
    }
    rest.is_empty()
}

/// ONLINE by its own word, and a majority of its view, itself included, says the same of it. Its own word alone proves
/// nothing: a primary that was frozen calls itself one for seconds after it resumes.
fn is_active(s: &Snapshot, member: &Member) -> bool {
    let online = member.answer().is_some_and(|answer| answer.group_state() == MemberState::Online);
    let confirmed = s.members.iter().filter(|other| sees(member, other) && sees(other, member)).count();
    online && confirmed * 2 > view(member).len()
}

/// The primary by the word of most of the active members.
fn primary<'a>(s: &'a Snapshot, active: &[&Member]) -> Option<&'a Member> {
    let named = |m: &Member| view(m).iter().find(|m| m.primary && m.state == MemberState::Online).map(|m| m.uuid);
    let votes =
        |candidate: &Member| active.iter().filter(|m| named(m).is_some() && named(m) == uuid(candidate)).count();
    s.members.iter().find(|candidate| uuid(candidate).is_some() && votes(candidate) * 2 > active.len())
}

/// The group works: write down what it says, bring back who left, move the primary if asked.
fn with_primary(s: &Snapshot, primary: &Member, active: &[&Member]) -> Plan {
    let mut plan = Plan::idle(Phase::Ready, "");
    let why = format!("the group says that {} is its primary", primary.name);
    if s.record.lead() != Some(&primary.name) {
        plan.push(&why, claim(s, &primary.name));
    }
    for old in s.members.iter().filter(|m| m.name != primary.name && m.label == Some(Role::Primary)) {
        plan.push(&why, Action::Unlabel { member: old.name.clone() });
    }
    settle_and_label(s, primary, &mut plan, &why);
    if !plan.steps.is_empty() {
        plan.phase = Phase::Changing;
        plan.why = why;
    }
    // What the group has just done is written down first: it may be what was asked for.
    if let Some(reason) = reason_to_move(s, primary).filter(|_| s.record.lead() == Some(&primary.name)) {
        match next_primary(s, primary, active) {
            Some(Action::Elect { member, uuid }) => {
                // The group moves it by itself and tells when it has; the claim follows from what it then says.
                plan.push(&reason, Action::Elect { member, uuid });
                return Plan { phase: Phase::Changing, why: reason, ..plan };
            }
            _ => plan.why = format!("{reason}, but no other member can take over"),
        }
    }
    if primary.answer().is_some_and(|answer| answer.full) {
        // That ends its server, as a full disk ends it sooner or later; the rest of the group goes on if it is a majority.
        let can_spare = (active.len() - 1) * 2 > view(primary).len();
        fence(primary).filter(|_| can_spare).for_each(|action| plan.push(no_room(primary), action));
        worse(&mut plan, no_room(primary));
    }
    for member in s.members.iter().filter(|m| m.name != primary.name) {
        mend(s, primary, member, &mut plan);
    }
    plan
}

fn next_primary(s: &Snapshot, primary: &Member, active: &[&Member]) -> Option<Action> {
    let wanted = s.wishes.switchover.as_ref().and_then(|asked| asked.target.as_ref());
    let fit = |m: &&&Member| m.name != primary.name && !m.deleting && !m.fenced && wanted.is_none_or(|w| *w == m.name);
    let next =
        active.iter().filter(fit).min_by_key(|m| m.answer().map_or(0, |a| a.has().subtract(&a.executed).count()))?;
    Some(Action::Elect { member: next.name.clone(), uuid: uuid(next)? })
}

/// A member that is not the primary: labelled if it is ONLINE, brought back if it left.
fn mend(s: &Snapshot, primary: &Member, member: &Member, plan: &mut Plan) {
    let Some(answer) = member.answer() else {
        let why = member.sight.as_ref().err().map_or("it is being brought back", |failure| &*failure.text);
        return worse(plan, format!("{}: {why}", member.name));
    };
    let online = sees(primary, member) && answer.group_state() == MemberState::Online;
    if online && s.is_late(member) {
        if member.label.is_some() {
            plan.push(LATE, Action::Unlabel { member: member.name.clone() });
        }
        return worse(plan, format!("{}: {LATE}", member.name));
    }
    if online && !member.fenced && !member.leaving {
        if member.label != Some(Role::Follower) {
            plan.push("it is ONLINE", Action::Label { member: member.name.clone(), role: Role::Follower });
        }
        return;
    }
    if member.label.is_some() {
        plan.push("it is not ONLINE", Action::Unlabel { member: member.name.clone() });
    }
    let (why, action) = what_it_needs(s, primary, member, answer);
    let why = format!("{}: {why}", member.name);
    if let Some(action) = action {
        plan.push(&why, action);
    }
    worse(plan, why);
}

fn what_it_needs(s: &Snapshot, primary: &Member, member: &Member, answer: &Answer) -> (String, Option<Action>) {
    let state = answer.group_state();
    if member.fenced {
        let fence = fence(member).last().filter(|_| !answer.offline);
        return ("fenced by its spec".to_owned(), fence);
    }
    match state {
        MemberState::Offline | MemberState::Error if !answer.is_fenced() => {
            (format!("it left the group ({}) and is writable", state.as_str()), fence(member).last())
        }
        MemberState::Offline | MemberState::Error => {
            let errant =
                primary.answer().map(|p| answer.executed.subtract(&p.has())).filter(|errant| !errant.is_empty());
            let Some(errant) = errant else {
                let join = Action::Join { member: member.name.clone() };
                return (format!("it is not in the group ({})", state.as_str()), Some(join));
            };
            let clone = Action::Clone { member: member.name.clone(), donor: primary.name.clone() };
            let why = format!("it has transactions that the group never had: {errant}");
            (why, s.wishes.auto_reclone.then_some(clone))
        }
        // A stale view, or on its way: the group settles that by itself.
        MemberState::Online | MemberState::Recovering | MemberState::Unreachable => (state.as_str().to_owned(), None),
    }
}

fn worse(plan: &mut Plan, why: String) {
    if plan.phase == Phase::Ready {
        plan.phase = Phase::Degraded;
    }
    plan.why = if plan.why.is_empty() { why } else { format!("{}; {why}", plan.why) };
}

/// No majority anywhere: found the group if it is not running at all, force it if whoever is missing is proven to be stopped and
/// has nothing more than who is left; if somebody has, found it anew.
fn without_quorum(s: &Snapshot, reachable: &[&Member]) -> Plan {
    let is_down =
        |m: &&Member| matches!(m.answer().map(Answer::group_state), Some(MemberState::Offline | MemberState::Error));
    if !reachable.iter().all(is_down) {
        return force(s, reachable);
    }
    if reachable.len() < s.members.len() {
        let why = format!(
            "the group is down and {} of {} members answer; all are waited for",
            reachable.len(),
            s.members.len()
        );
        return Plan::idle(Phase::Waiting, why);
    }
    let writable: Vec<Action> =
        s.members.iter().filter(|m| !m.answer().is_some_and(Answer::is_fenced)).flat_map(fence).collect();
    if !writable.is_empty() {
        return Plan::of(Phase::Changing, "the group is down and this member is writable", writable);
    }
    let Some(first) = most_advanced(reachable) else { return Plan::idle(Phase::Person, NOT_ORDERED) };
    let why = "the group is down, all members answer, and this one has all that any of them has";
    let mut plan = Plan::idle(Phase::Changing, why);
    if s.record.lead() != Some(&first.name) {
        plan.push(why, claim(s, &first.name));
    }
    plan.push(why, Action::Bootstrap { member: first.name.clone() });
    settle_and_label(s, first, &mut plan, why);
    plan
}

fn force(s: &Snapshot, reachable: &[&Member]) -> Plan {
    let Some(survivor) = reachable.iter().find(|m| m.answer().is_some_and(|a| a.group_state() == MemberState::Online))
    else {
        return Plan::idle(Phase::Waiting, "the group has no majority, and no member is ONLINE");
    };
    let in_view = |m: &&Member| sees(survivor, m) && sees(m, survivor);
    let stay: Vec<&Member> = reachable.iter().copied().filter(in_view).collect();
    let missing = s.members.iter().filter(|m| !stay.iter().any(|stays| stays.name == m.name));
    let (gone, rest): (Vec<&Member>, Vec<&Member>) =
        missing.partition(|m| m.stopped || has_left(survivor, m) && lacks(survivor, m).is_empty());
    if let Some(ahead) = rest.iter().find(|m| has_left(survivor, m)) {
        let (name, more) = (&ahead.name, lacks(survivor, ahead));
        let why = format!("the group has no majority, and {name} left it with what {} lacks: {more}", survivor.name);
        return give_up(s, reachable, survivor, &stay, why);
    }
    // A member of its view that is none of the cluster's can't be proven to be stopped.
    let strangers = s.members.len() < view(survivor).len();
    if !rest.is_empty() || strangers {
        let (missing, gone) = (gone.len() + rest.len(), gone.len());
        let why =
            format!("the group has no majority; {missing} members are missing, {gone} of them proven to be stopped");
        return Plan::idle(Phase::Waiting, why);
    }
    let names = stay.iter().map(|m| m.name.clone()).collect();
    let action = Action::ForceMembers { member: survivor.name.clone(), stay: names };
    Plan::of(Phase::Changing, "the group has no majority, and every missing member is proven to be stopped", [action])
}

/// What is left of the group lacks something that may have been acknowledged: it is ended, so that whoever has all founds it anew
/// ([`without_quorum`]). That can be told only when all members answer and all others are out of it.
fn give_up(s: &Snapshot, reachable: &[&Member], survivor: &Member, stay: &[&Member], why: String) -> Plan {
    let out = reachable.iter().filter(|m| has_left(survivor, m)).count();
    if reachable.len() < s.members.len() || out + stay.len() < view(survivor).len().max(s.members.len()) {
        return Plan::idle(Phase::Waiting, format!("{why}; all members are waited for"));
    }
    if most_advanced(reachable).is_none() {
        return Plan::idle(Phase::Person, format!("{why}; {NOT_ORDERED}"));
    }
    Plan::of(Phase::Changing, why, stay.iter().map(|m| Action::Leave { member: m.name.clone() }))
}

/// Its server has been started again since it was a member: it says that it is in no group, and the survivor has lost it. (A view
/// that counts it among the living is newer than its own word: it has just joined.)
fn has_left(survivor: &Member, member: &Member) -> bool {
    let Some(answer) = member.answer() else { return false };
    let is_lost = |m: &GroupMember| m.uuid == answer.uuid && m.state == MemberState::Unreachable;
    let is_out = matches!(answer.group_state(), MemberState::Offline | MemberState::Error);
    is_out && answer.is_fenced() && view(survivor).iter().any(is_lost)
}

/// What the other has and the survivor does not.
fn lacks(survivor: &Member, other: &Member) -> GtidSet {
    let has = |member: &Member| member.answer().map(Answer::has).unwrap_or_default();
    has(other).subtract(&has(survivor))
}
