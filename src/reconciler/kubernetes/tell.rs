//! \[pure\] What was seen and decided, as the status of a MysqlCluster: phase, members, conditions.

use super::conf;
use super::progress::Progress;
use super::rollout::LEFT;
use crate::reconciler::action::{Phase, Plan};
use crate::reconciler::resource::{Condition, MemberStatus, MysqlCluster, MysqlClusterStatus, TopologyKind};
use crate::reconciler::snapshot::{Member, MemberName, Snapshot};
use crate::topology::report::Receiver;
use crate::types::Role;
use k8s_openapi::jiff::Timestamp;

/// The condition: every pod and every volume is as `observedGeneration` wants it.
const ROLLED_OUT: &str = "RolledOut";

/// The condition: the primary takes writes.
const AVAILABLE: &str = "Available";

/// What is to be said of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// One word for all of it.
    pub phase: &'static str,
    /// Why it is not better.
    pub why: String,
    members: Vec<MemberStatus>,
    /// The primary takes writes.
    pub available: bool,
    /// It is about to be another one.
    pub changing: bool,
    well: bool,
    /// What is wrong with the spec.
    problems: String,
    /// How far its objects are; `None`: as was said before.
    progress: Option<Progress>,
}

/// The words for what the engine saw and decided.
pub fn told(cluster: &MysqlCluster, s: &Snapshot, plan: &Plan, progress: Option<Progress>) -> Told {
    let problems = problems(cluster);
    let lead = s.lead().filter(|lead| lead.label == Some(Role::Primary) || s.wishes.topology == TopologyKind::External);
    let external = s.wishes.topology == TopologyKind::External;
    let available = if external { s.members.iter().any(Member::is_open) } else { lead.is_some_and(Member::is_open) };
    let phase = if problems.is_empty() { plan.phase.as_str() } else { "SpecRefused" };
    Told {
        phase,
        why: plan.why.clone(),
        members: s.members.iter().map(|member| member_status(s, member)).collect(),
        available,
        changing: plan.phase == Phase::Changing,
        well: plan.phase == Phase::Ready,
        problems,
        progress,
    }
}

/// What is wrong with the spec, where the API server did not refuse it.
pub fn problems(cluster: &MysqlCluster) -> String {
    let mut all: Vec<String> = cluster.spec.problems().into_iter().map(str::to_owned).collect();
    all.extend(conf::problems(&cluster.spec));
    if cluster.metadata.name.as_ref().is_some_and(|name| name.len() > 40) {
        all.push("the name must have 40 characters at most".to_owned());
    }
    all.join("; ")
}

fn member_status(s: &Snapshot, member: &Member) -> MemberStatus {
    let is_lead = s.record.lead() == Some(&member.name);
    let state = match &member.sight {
        Err(_) if member.busy => "it is being brought back".to_owned(),
        Err(failure) => failure.text.to_string(),
        Ok(_) if member.fenced => "fenced".to_owned(),
        Ok(answer) if member.leaving && answer.is_fenced() && answer.receiver() == Receiver::Off => LEFT.to_owned(),
        Ok(answer) if !answer.is_fenced() => "writable".to_owned(),
        Ok(answer) if answer.group.is_some() => answer.group_state().as_str().to_owned(),
        Ok(_) if is_lead => "read-only".to_owned(),
        Ok(_) if member.label == Some(Role::Follower) => "follows".to_owned(),
        Ok(_) => "does not follow".to_owned(),
    };
    let errant = Some(s.errant(member)).filter(|set| !set.is_empty());
    MemberStatus {
        name: member.name.to_string(),
        role: member.label.unwrap_or(Role::Unknown).as_str().to_owned(),
        state,
        errant: errant.map(|set| set.to_string()),
        lag_seconds: member.lag_ms.filter(|_| !is_lead).map(|lag_ms| lag_ms / 1000),
        ..MemberStatus::default()
    }
}

/// Of each member that answers: errant transactions, and those of the primary that it has not executed.
pub fn counts(s: &Snapshot) -> Vec<(&MemberName, (u64, u64))> {
    let lead = s.lead().and_then(Member::answer);
    let of = |member: &Member| {
        let answer = member.answer()?;
        Some((s.errant(member).count(), lead.map_or(0, |lead| lead.executed.subtract(&answer.executed).count())))
    };
    s.members.iter().filter_map(|member| Some((&member.name, of(member)?))).collect()
}

impl Told {
    /// Is all well?
    pub fn is_ready(&self) -> bool {
        self.well && self.available && self.problems.is_empty()
    }

    /// What is said of that member.
    pub fn state_of(&self, member: &str) -> Option<&str> {
        self.members.iter().find(|line| line.name == member).map(|line| &*line.state)
    }

    /// Is it worth writing down at once?
    pub fn news(&self, before: &Self) -> bool {
        let still = |member: &MemberStatus| MemberStatus { lag_seconds: None, ..member.clone() };
        let members = |told: &Self| told.members.iter().map(still).collect::<Vec<_>>();
        let key =
            |told: &Self| (told.phase, told.available, told.problems.clone(), members(told), told.progress.clone());
        key(self) != key(before)
    }

    /// What a person should be told now.
    pub fn warning(&self, before: &Self) -> Option<String> {
        if !self.problems.is_empty() {
            return (self.problems != before.problems).then(|| self.problems.clone());
        }
        let needed = self.phase == Phase::Person.as_str();
        (needed && before.phase != self.phase).then(|| self.why.clone())
    }
}

/// Since when it was written down that the primary takes no writes.
pub fn unavailable_since(status: &MysqlClusterStatus) -> Option<Timestamp> {
    let written = status.conditions.iter().find(|condition| condition.kind == AVAILABLE);
    written.filter(|condition| condition.status == "False")?.last_transition_time.parse().ok()
}

/// The status, all but the record.
pub fn status(cluster: &MysqlCluster, told: &Told, now: &str) -> MysqlClusterStatus {
    let before = cluster.status.clone().unwrap_or_default();
    // What the record knew of members that are gone stays until the record itself forgets it.
    let known = |name: &str| before.members.iter().find(|member| member.name == name);
    let members = told.members.iter().map(|member| {
        let known = known(&member.name).cloned().unwrap_or_default();
        MemberStatus { server_uuid: known.server_uuid, gtid_executed: known.gtid_executed, ..member.clone() }
    });
    let refused = !told.problems.is_empty();
    let ready = told.is_ready();
    let (reason, why) = if refused { ("SpecRefused", &told.problems) } else { (told.phase, &told.why) };
    let conditions = [
        ("Ready", ready, reason, why),
        (AVAILABLE, told.available, if told.available { "PrimaryWritable" } else { "NoPrimary" }, &told.why),
        ("Healthy", told.well, told.phase, &told.why),
        ("FailoverInProgress", told.changing, told.phase, &told.why),
    ];
    let condition = |(kind, is, reason, why): (&str, bool, &str, &String)| {
        let status = if is { "True" } else { "False" }.to_owned();
        let old = before.conditions.iter().find(|old| old.kind == kind && old.status == status);
        let last_transition_time = old.map_or_else(|| now.to_owned(), |old| old.last_transition_time.clone());
        let reason = if reason.is_empty() { "Unknown" } else { reason }.to_owned();
        Condition { kind: kind.to_owned(), status, reason, message: why.clone(), last_transition_time }
    };
    let mut conditions: Vec<Condition> = conditions.into_iter().map(condition).collect();
    match &told.progress {
        None => conditions.extend(before.conditions.iter().find(|old| old.kind == ROLLED_OUT).cloned()),
        Some(Progress { reason: Some(reason), message, .. }) => {
            conditions.push(condition((ROLLED_OUT, *reason == Progress::DONE, reason, message)));
        }
        Some(Progress { reason: None, .. }) => {}
    }
    MysqlClusterStatus {
        phase: Some(told.phase.to_owned()).filter(|phase| !phase.is_empty()),
        members: members.collect(),
        observed_generation: told.progress.as_ref().map_or(before.observed_generation, |progress| progress.generation),
        conditions,
        ..before
    }
}
