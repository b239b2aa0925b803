//! Everybody but the primary: who is wrong, and how to mend it.

use super::semisync::streams;
use crate::reconciler::action::{Action, Fencing, Phase, Plan};
use crate::reconciler::snapshot::{Answer, Member, Snapshot};
use crate::topology::report::Receiver;
use crate::types::Role;

/// Every member that can be written to, or is not yet done with being fenced.
pub(super) fn all_writable(s: &Snapshot) -> impl Iterator<Item = &Member> {
    s.members.iter().filter(|member| member.answer().is_some_and(|answer| !answer.is_fenced()))
}

/// All of them but the lead.
pub(super) fn writable<'a>(s: &'a Snapshot, lead: &'a Member) -> impl Iterator<Item = &'a Member> {
    all_writable(s).filter(|member| member.name != lead.name)
}

pub(super) const LATE: &str = "it is further behind than its spec allows";
/// Perhaps only for a moment: a label that it has, it keeps.
const CUT_OFF: &str = "it hears nothing from the primary";

/// What keeps this replica from following, if anything does.
enum Fault {
    /// The user wants it kept from all traffic.
    Fenced,
    /// It is about to go for good.
    Leaving,
    /// It has transactions of its own.
    Errant(String),
    /// The primary can't pass on what it lacks.
    Lacking(&'static str),
    /// It is stopped, follows somebody else or doesn't acknowledge.
    Astray,
    /// It follows the primary and does not reach it, or hears nothing (now).
    CutOff,
    /// Its replication has failed; nothing here knows how to mend that.
    Broken(String),
}

fn fault(s: &Snapshot, member: &Member, lead: &Member, answer: &Answer) -> Option<Fault> {
    if member.fenced {
        return Some(Fault::Fenced);
    }
    if member.leaving {
        return Some(Fault::Leaving);
    }
    let errant = s.errant(member);
    if !errant.is_empty() {
        return Some(Fault::Errant(errant.to_string()));
    }
    if s.wishes.reclone.as_ref() == Some(&member.name) {
        return Some(Fault::Lacking("a person has asked for other data"));
    }
    if let Some(why) = lead.answer().and_then(|source| lacking(answer, source)) {
        return Some(Fault::Lacking(why));
    }
    let error = answer.channel.as_ref().and_then(|channel| channel.error.clone());
    let applying = answer.channel.as_ref().is_some_and(|channel| channel.applying);
    match error {
        Some(error) if !applying && answer.follows(lead) => Some(Fault::Broken(error.to_string())),
        _ if !applying || answer.receiver() == Receiver::Off => Some(Fault::Astray),
        _ if !answer.follows(lead) || !answer.semisync.replica || answer.offline => Some(Fault::Astray),
        _ => {
            let is_silent = answer.channel.as_ref().is_some_and(|channel| channel.silent);
            (is_silent || answer.receiver() == Receiver::Connecting).then_some(Fault::CutOff)
        }
    }
}

/// Why its source can't bring it up to date by replication.
fn lacking(answer: &Answer, source: &Answer) -> Option<&'static str> {
    if answer.has().is_empty() && !source.executed.is_empty() {
        return Some("it is empty");
    }
    if !answer.has().contains(&source.purged) {
        return Some("the primary has purged what it lacks");
    }
    // A server never takes back from another what it began itself (its own server id is filtered out).
    let lost = source.executed.subtract(&answer.has());
    (lost.count() != lost.without(answer.uuid).count()).then_some("it has lost transactions that it began itself")
}

/// Can the member be pointed at `source` right now?
pub(super) fn may_follow(s: &Snapshot, member: &Member, source: &Member) -> bool {
    let Some(answer) = member.answer() else { return false };
    let lacks = source.answer().and_then(|source| lacking(answer, source));
    !member.fenced && !member.leaving && answer.is_fenced() && lacks.is_none() && s.errant(member).is_empty()
}

/// Is there a replica that is about to acknowledge once it is mended?
pub(super) fn can_mend(s: &Snapshot, lead: &Member) -> bool {
    s.members.iter().any(|m| {
        let astray = |answer| matches!(fault(s, m, lead, answer), Some(Fault::Astray));
        m.name != lead.name && m.answer().is_some_and(astray)
    })
}

/// Puts every replica right, and its label with it.
pub(super) fn mend(s: &Snapshot, lead: &Member, plan: &mut Plan) {
    for member in s.members.iter().filter(|member| member.name != lead.name) {
        let mut own = Plan::idle(Phase::Ready, "");
        let trouble = match member.answer() {
            None if member.busy => Some("it is being brought back".to_owned()),
            None => Some(member.sight.as_ref().err().map_or("silent", |failure| &*failure.text).to_owned()),
            Some(answer) => mend_one(s, lead, (member, answer), &mut own),
        };
        let trouble = trouble.or_else(|| s.is_late(member).then(|| LATE.to_owned()));
        let stays = trouble.as_deref() == Some(CUT_OFF) && member.label == Some(Role::Follower);
        let role = (trouble.is_none() || stays).then_some(Role::Follower);
        label(member, role, trouble.as_deref(), plan);
        plan.steps.extend(own.steps);
        if let Some(trouble) = trouble {
            worse(plan, format!("{}: {trouble}", member.name));
        }
    }
}

fn worse(plan: &mut Plan, why: String) {
    if plan.phase == Phase::Ready {
        plan.phase = Phase::Degraded;
    }
    plan.why = if plan.why.is_empty() { why } else { format!("{}; {why}", plan.why) };
}

fn label(member: &Member, role: Option<Role>, why: Option<&str>, plan: &mut Plan) {
    let why = why.unwrap_or("it follows the primary");
    match role {
        Some(role) if member.label != Some(role) => {
            plan.push(why, Action::Label { member: member.name.clone(), role });
        }
        // A silent follower keeps its label: the proxy asks for itself, and may still reach it.
        None if member.label.is_some() && (member.sight.is_ok() || member.label == Some(Role::Primary)) => {
            let unlabel = Action::Unlabel { member: member.name.clone() };
            if !plan.steps.iter().any(|step| step.action == unlabel) {
                plan.push(why, unlabel);
            }
        }
        Some(_) | None => {}
    }
}

/// The steps for one replica that answers; what is wrong with it.
fn mend_one(s: &Snapshot, lead: &Member, (member, answer): (&Member, &Answer), plan: &mut Plan) -> Option<String> {
    let name = || member.name.clone();
    if !answer.is_fenced() {
        // What it holds is judged once nobody can write to it any more.
        return Some("it was writable".to_owned());
    }
    let fault = fault(s, member, lead, answer)?;
    let (why, action) = match fault {
        Fault::Fenced => {
            let fence = Action::Fence { member: name(), how: Fencing::Forced };
            ("fenced by its spec".to_owned(), (!answer.offline).then_some(fence))
        }
        Fault::Leaving => {
            let stop = answer.receiver() != Receiver::Off;
            ("it is about to go".to_owned(), stop.then(|| Action::StopReceiver { member: name() }))
        }
        Fault::Errant(set) => {
            let why = format!("it has transactions that the primary never had: {set}");
            if s.wishes.auto_reclone {
                (why, clone_of(s, lead, (member, answer)))
            } else {
                let stop = answer.receiver() != Receiver::Off;
                (why, stop.then(|| Action::StopReceiver { member: name() }))
            }
        }
        Fault::Lacking(why) => (why.to_owned(), clone_of(s, lead, (member, answer))),
        Fault::Astray => {
            let follow = Action::Follow { member: name(), source: lead.name.clone() };
            ("it does not follow the primary".to_owned(), Some(follow))
        }
        Fault::CutOff => (CUT_OFF.to_owned(), None),
        Fault::Broken(error) => (format!("its replication has failed: {error}"), None),
    };
    if let Some(action) = action {
        plan.push(&why, action);
    }
    Some(why)
}

/// Replaces its data, but only once it receives nothing more and somebody has executed all that is entrusted to it: a commit
/// may have been acknowledged because it is there. From a replica if one has it, because a clone costs its donor something.
fn clone_of(s: &Snapshot, lead: &Member, (member, answer): (&Member, &Answer)) -> Option<Action> {
    if answer.receiver() != Receiver::Off {
        return Some(Action::StopReceiver { member: member.name.clone() });
    }
    let entrusted = s.entrusted(answer);
    let is_empty = |m: &Member| m.answer().is_none_or(|a| a.executed.is_empty());
    let has_all =
        |m: &&Member| m.answer().is_some_and(|a| a.executed.contains(&entrusted)) && is_empty(m) == is_empty(lead);
    let fit = |m: &&Member| m.name != lead.name && streams(m, lead) && !m.fenced && s.errant(m).is_empty();
    let replicas = s.members.iter().filter(|m| m.name != member.name).filter(fit);
    let donor = replicas.chain([lead]).find(has_all)?;
    Some(Action::Clone { member: member.name.clone(), donor: donor.name.clone() })
}
