//! A change of the primary: begun because somebody asks for it, and gone on with after a claim was written down.

use super::semisync::{claim, fence, finish_promotion, most_advanced, streams};
use super::{CHANGE_MS_MAX, election, replicas};
use crate::reconciler::action::{Action, Fencing, Phase, Plan};
use crate::reconciler::snapshot::{Answer, Member, Snapshot};

/// Why the primary should move although it works, if it should.
pub(super) fn reason_to_move(s: &Snapshot, lead: &Member) -> Option<String> {
    if lead.deleting {
        return Some(format!("the pod of {} is being deleted", lead.name));
    }
    if lead.fenced {
        return Some(format!("{} is fenced by its spec", lead.name));
    }
    let asked = s.wishes.switchover.as_ref().filter(|asked| asked.target.as_ref() != Some(&lead.name))?;
    Some(match &asked.target {
        Some(target) => format!("a switchover to {target} was asked for"),
        None => "a switchover was asked for".to_owned(),
    })
}

/// All steps of a switchover. `Err`: why it can't begin now.
pub(super) fn begin(s: &Snapshot, lead: &Member, answer: &Answer, why: &str) -> Result<Plan, String> {
    let wanted = s.wishes.switchover.as_ref().and_then(|asked| asked.target.as_ref());
    let fit =
        |m: &&Member| m.name != lead.name && !m.deleting && !m.fenced && streams(m, lead) && s.errant(m).is_empty();
    let behind = |m: &&Member| m.answer().map_or(u64::MAX, |its| answer.executed.subtract(&its.executed).count());
    let mut candidates = s.members.iter().filter(fit).filter(|m| wanted.is_none_or(|wanted| m.name == *wanted));
    let first = candidates.next();
    let target = first.into_iter().chain(candidates).min_by_key(behind);
    let Some(target) = target else {
        let who = wanted.map_or_else(|| "no replica".to_owned(), |name| format!("not {name}, which"));
        return Err(format!("{why}, but {who} is in sync with the primary"));
    };
    let mut plan = Plan::of(Phase::Changing, why, [claim(s, &target.name)]);
    close_and_catch_up(lead, target, &mut plan, why);
    finish_promotion(s, target, &mut plan, why);
    if !lead.fenced {
        // It is fenced by then, and has nothing that the new primary lacks.
        plan.push(why, Action::Follow { member: lead.name.clone(), source: target.name.clone() });
    }
    Ok(plan)
}

fn close_and_catch_up(old: &Member, target: &Member, plan: &mut Plan, why: &str) {
    if old.label.is_some() {
        plan.push(why, Action::Unlabel { member: old.name.clone() });
    }
    if old.answer().is_some_and(|answer| !answer.is_fenced()) {
        plan.push(why, Action::Fence { member: old.name.clone(), how: Fencing::Planned });
    }
    plan.push(why, Action::CatchUp { member: target.name.clone(), source: old.name.clone() });
}

/// A claim was written down, and whoever wrote it may have died anywhere behind it.
pub(super) fn go_on(s: &Snapshot, target: &Member, answer: &Answer) -> Plan {
    let old = s.record.primary.as_ref().and_then(|name| s.member(name));
    let called = s.record.primary.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let why = format!("{} takes over from {called}", target.name);
    if !answer.read_only && !answer.super_read_only {
        // Opened by somebody else: that is never undone. What is left follows from the record.
        return Plan::of(Phase::Changing, &why, [Action::Settle { member: target.name.clone() }]);
    }
    if let Some(old) = old
        && let Some(its) = old.answer()
        && !s.has_forgotten(old)
    {
        return from_living(s, (old, its), (target, answer), &why);
    }
    if s.record.primary.is_none() {
        return first_of_all(s, target, &why);
    }
    // The old one is lost: the target must prove itself like anybody else, and loses to whoever has more.
    match election::elect(s) {
        Ok(elected) if same(elected, target) && !target.fenced => {
            let mut plan = Plan::idle(Phase::Changing, &why);
            finish_promotion(s, target, &mut plan, &why);
            plan
        }
        Ok(elected) => Plan::of(Phase::Changing, "another member has more", [claim(s, &elected.name)]),
        Err(plan) => plan,
    }
}

/// The old primary answers: it is fenced, and the target has all of it before it opens; or the change is given up.
fn from_living(s: &Snapshot, (old, its): (&Member, &Answer), (target, answer): (&Member, &Answer), why: &str) -> Plan {
    let witnesses = election::witnesses(s);
    let others: Vec<&Member> = witnesses.iter().copied().filter(|m| m.name != old.name).collect();
    // Shown without the old one's help that nothing acknowledged is missing, whatever else it has.
    let proven = election::is_quorum(s, others.len()) && most_advanced(&others).is_some_and(|best| same(best, target));
    let third = replicas::writable(s, target).filter(|m| m.name != old.name);
    let mut plan = Plan::of(Phase::Changing, why, third.flat_map(fence));
    if proven {
        if !its.is_fenced() {
            fence(old).for_each(|action| plan.push(why, action));
        }
        finish_promotion(s, target, &mut plan, why);
        return plan;
    }
    if s.change_ms > CHANGE_MS_MAX || target.fenced {
        let why = format!("{} does not get there: {} stays the primary", target.name, old.name);
        return Plan::of(Phase::Changing, why, [claim(s, &old.name)]);
    }
    // The target catches up from it; the others are needed for as long as commits wait, for they hold up the fence.
    let behind = !answer.has().contains(&its.executed);
    for other in s.members.iter().filter(|m| replicas::may_follow(s, m, old) && !streams(m, old)) {
        let is_needed = if other.name == target.name { behind } else { its.semisync.waiting > 0 };
        if is_needed && other.name != old.name {
            plan.push(why, Action::Follow { member: other.name.clone(), source: old.name.clone() });
        }
    }
    close_and_catch_up(old, target, &mut plan, why);
    finish_promotion(s, target, &mut plan, why);
    plan
}

/// Has `target` all that `best` has?
fn same(best: &Member, target: &Member) -> bool {
    let (Some(best), Some(target)) = (best.answer(), target.answer()) else { return false };
    target.has().contains(&best.has())
}

/// The very first primary was claimed and not opened.
fn first_of_all(s: &Snapshot, target: &Member, why: &str) -> Plan {
    let answers: Vec<&Member> = s.members.iter().filter(|m| m.answer().is_some()).collect();
    let enough = answers.len() == s.members.len() || election::is_quorum(s, election::witnesses(s).len());
    if !enough {
        return Plan::idle(Phase::Creating, "not all members answer; all are waited for");
    }
    let others = replicas::writable(s, target);
    let mut plan = Plan::of(Phase::Creating, why, others.flat_map(fence));
    finish_promotion(s, target, &mut plan, why);
    plan
}
