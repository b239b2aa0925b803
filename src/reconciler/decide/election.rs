//! The primary is lost: who takes over, if that can be decided at all.

use super::replicas;
use super::semisync::{NOT_ORDERED, claim, finish_promotion, most_advanced};
use crate::reconciler::action::{Action, Fencing, Phase, Plan};
use crate::reconciler::snapshot::{Answer, Member, Snapshot};
use crate::topology::report::Receiver;

/// Elects, claims and promotes in one plan.
pub(super) fn elect_and_finish(s: &Snapshot) -> Plan {
    let elected = match elect(s) {
        Ok(elected) => elected,
        Err(plan) => return plan,
    };
    let gone = s.record.lead().map_or_else(String::new, ToString::to_string);
    let why = format!("{gone} is lost; {} has every acknowledged commit", elected.name);
    let mut plan = Plan::idle(Phase::Changing, &why);
    if s.record.lead() != Some(&elected.name) {
        plan.push(&why, claim(s, &elected.name));
    }
    finish_promotion(s, elected, &mut plan, &why);
    plan
}

/// Who can take over without loss; else what to do first, or what is waited for.
pub(super) fn elect(s: &Snapshot) -> Result<&Member, Plan> {
    let lead = s.lead();
    let silent = lead.is_none_or(|lead| lead.answer().is_none());
    let reachable: Vec<&Member> = s.members.iter().filter(|m| m.answer().is_some()).collect();
    let called = s.record.lead().map_or_else(String::new, ToString::to_string);
    if reachable.is_empty() {
        return Err(Plan::idle(Phase::Waiting, "no member answers"));
    }
    let streaming = |member: &&&Member| {
        let answer = member.answer();
        let hears =
            |a: &Answer| a.receiver() == Receiver::On && a.channel.as_ref().is_some_and(|channel| !channel.silent);
        answer.is_some_and(|a| hears(a) && lead.is_some_and(|lead| a.follows(lead)))
    };
    if silent && let Some(replica) = reachable.iter().find(streaming) {
        let why = format!("{called} does not answer, but {} still receives from it: looking again", replica.name);
        return Err(Plan::idle(Phase::Waiting, why));
    }
    if silent && s.lost_ms < s.wishes.failover_delay_ms {
        return Err(Plan::idle(Phase::Waiting, format!("{called} does not answer: failover is delayed by its spec")));
    }
    settle_down(s, &called)?;
    let witnesses = witnesses(s);
    let overruled = s.wishes.force && !witnesses.is_empty();
    if !is_quorum(s, witnesses.len()) && !overruled {
        let missing = s.members.len() - s.acks_proven() as usize - witnesses.len();
        let why = format!(
            "{called} is lost, and {missing} more of the other members must answer to prove that no commit is lost"
        );
        return Err(Plan::idle(Phase::Waiting, why));
    }
    let best = most_advanced(&witnesses).ok_or_else(|| Plan::idle(Phase::Person, NOT_ORDERED))?;
    if best.fenced {
        let why = format!("only {} has every acknowledged commit, and it is fenced by its spec", best.name);
        return Err(Plan::idle(Phase::Person, why));
    }
    Ok(best)
}

/// Before anything can be judged, nobody may be writable and nobody may receive.
fn settle_down(s: &Snapshot, called: &str) -> Result<(), Plan> {
    let fence = |member: &Member| Action::Fence { member: member.name.clone(), how: Fencing::Forced };
    let fences: Vec<Action> = replicas::all_writable(s).map(fence).collect();
    let receiving = |m: &&Member| m.answer().is_some_and(|answer| answer.receiver() != Receiver::Off);
    let stop = |member: &Member| Action::StopReceiver { member: member.name.clone() };
    let stops: Vec<Action> = s.members.iter().filter(receiving).map(stop).collect();
    if fences.is_empty() && stops.is_empty() {
        return Ok(());
    }
    let why = format!("{called} is lost: everybody stands still to be judged");
    Err(Plan::of(Phase::Changing, why, fences.into_iter().chain(stops)))
}

/// Members whose word counts: see the head of [`super`].
pub(super) fn witnesses(s: &Snapshot) -> Vec<&Member> {
    let stands_still = |member: &&Member| {
        member.answer().is_some_and(|answer| {
            answer.is_fenced()
                && answer.receiver() == Receiver::Off
                && answer.semisync.waiting == 0
                && !s.has_forgotten(member)
                && s.errant(member).is_empty()
        })
    };
    s.members.iter().filter(stands_still).collect()
}

/// Could the others elect one of themselves without this member?
pub(super) fn can_spare(s: &Snapshot, lead: &Member) -> bool {
    let fit = |m: &&Member| {
        let is_closed = m.answer().is_some_and(|answer| answer.is_fenced() && !answer.full);
        m.name != lead.name && is_closed && !m.fenced && !s.has_forgotten(m) && s.errant(m).is_empty()
    };
    is_quorum(s, s.members.iter().filter(fit).count())
}

/// Are so many witnesses enough?
pub(super) fn is_quorum(s: &Snapshot, witnesses: usize) -> bool {
    witnesses + s.acks_proven() as usize >= s.members.len()
}
