//! \[pure\] What can be done to a cluster, one idempotent step at a time, each with its reason.

use super::snapshot::MemberName;
use crate::types::{Role, Term, Uuid};
use std::fmt;

/// One idempotent step: done twice, or done half and then again, it ends the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what they are called; the variants say what is done with them")]
pub enum Action {
    /// Writes down who is to be the primary from now on, by compare and swap. Before anything is done about it.
    Claim { member: MemberName, term: Term },
    /// Writes down that the target is the primary, before it is opened: from here on that can't be undone.
    Settle { member: MemberName },
    /// Writes down how many replicas a commit waits for at least.
    RecordAcks { acks: u32 },
    /// Puts the term on the pod, before its server is opened for writes.
    Announce { member: MemberName, term: Term },
    /// Puts the role on the pod's label.
    Label { member: MemberName, role: Role },
    /// Takes the role off the pod's label.
    Unlabel { member: MemberName },
    /// No more writes.
    Fence { member: MemberName, how: Fencing },
    /// No more acknowledgements from this replica: it stops receiving.
    StopReceiver { member: MemberName },
    /// Waits until the member has executed all that the fenced source has.
    CatchUp { member: MemberName, source: MemberName },
    /// Applies what was received, then opens for writes that wait for so many replicas.
    Promote { member: MemberName, acks: u32 },
    /// Sets how many replicas a commit waits for, for ever; 0: none.
    Acks { member: MemberName, acks: u32 },
    /// Replicates from the source, read-only, acknowledging.
    Follow { member: MemberName, source: MemberName },
    /// Replaces the member's data with a copy of the donor's.
    Clone { member: MemberName, donor: MemberName },
    /// Founds the group with this member.
    Bootstrap { member: MemberName },
    /// Joins the group (again).
    Join { member: MemberName },
    /// Leaves a group that has no majority.
    Leave { member: MemberName },
    /// Makes that member of the group its primary.
    Elect { member: MemberName, uuid: Uuid },
    /// Goes on with these members and without those that are proven to be stopped.
    ForceMembers { member: MemberName, stay: Vec<MemberName> },
}

/// How a server is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// Commits on their way are acknowledged by replicas as always.
    Planned,
    /// Nobody acknowledges to it any more: its commits on their way are cut off from their clients and end unacknowledged.
    Forced,
}

impl Action {
    /// The word for logs, metrics and Events.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "claim",
            Self::Settle { .. } => "settle",
            Self::RecordAcks { .. } => "record_acks",
            Self::Announce { .. } => "announce",
            Self::Label { .. } => "label",
            Self::Unlabel { .. } => "unlabel",
            Self::Fence { .. } => "fence",
            Self::StopReceiver { .. } => "stop_receiver",
            Self::CatchUp { .. } => "catch_up",
            Self::Promote { .. } => "promote",
            Self::Acks { .. } => "acks",
            Self::Follow { .. } => "follow",
            Self::Clone { .. } => "clone",
            Self::Bootstrap { .. } => "bootstrap",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Elect { .. } => "elect",
            Self::ForceMembers { .. } => "force_members",
        }
    }

    /// Whom it is done to; `None`: to the record alone.
    pub fn member(&self) -> Option<&MemberName> {
        match self {
            Self::RecordAcks { .. } => None,
            Self::Claim { member, .. }
            | Self::Settle { member }
            | Self::Announce { member, .. }
            | Self::Label { member, .. }
            | Self::Unlabel { member }
            | Self::Fence { member, .. }
            | Self::StopReceiver { member }
            | Self::CatchUp { member, .. }
            | Self::Promote { member, .. }
            | Self::Acks { member, .. }
            | Self::Follow { member, .. }
            | Self::Clone { member, .. }
            | Self::Bootstrap { member }
            | Self::Join { member }
            | Self::Leave { member }
            | Self::Elect { member, .. }
            | Self::ForceMembers { member, .. } => Some(member),
        }
    }

    /// On whose server it is done; `None`: on none, it is written down.
    pub fn server(&self) -> Option<&MemberName> {
        match self {
            Self::Claim { .. }
            | Self::Settle { .. }
            | Self::RecordAcks { .. }
            | Self::Announce { .. }
            | Self::Label { .. }
            | Self::Unlabel { .. } => None,
            _ => self.member(),
        }
    }

    /// May it be left undone without harm to the steps behind it? So it is with what is done to one replica only.
    pub fn is_alone(&self) -> bool {
        matches!(self, Self::Follow { .. } | Self::StopReceiver { .. } | Self::Clone { .. } | Self::Join { .. })
    }

    /// May the step behind it be done beside it? So it is with what is done to one replica each, and with the new primary's
    /// label and what makes the others follow it: its first commit waits for both.
    pub fn goes_with(&self, next: &Self) -> bool {
        let labels_primary = matches!(self, Self::Label { role: Role::Primary, .. });
        next.is_alone() && (self.is_alone() || labels_primary && matches!(next, Self::Follow { .. }))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        self.member().map_or(Ok(()), |member| write!(f, " {member}"))
    }
}

/// An action and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why, for a person.
    pub why: String,
}

/// How the cluster is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has been written down yet.
    Creating,
    /// There is a primary, and every other member follows it.
    Ready,
    /// There is a primary; not every other member follows it.
    Degraded,
    /// The primary is changing.
    Changing,
    /// There is no primary, and nothing can be done but wait.
    Waiting,
    /// A person must decide.
    Person,
}

impl Phase {
    /// The word for status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Ready => "Ready",
            Self::Degraded => "Degraded",
            Self::Changing => "Changing",
            Self::Waiting => "Waiting",
            Self::Person => "PersonNeeded",
        }
    }
}

/// What to do now, in this order; where a step fails, those behind it are not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the cluster is.
    pub phase: Phase,
    /// Why it is not better; empty if it is Ready.
    pub why: String,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Nothing to do but to say so.
    pub fn idle(phase: Phase, why: impl Into<String>) -> Self {
        Self { phase, why: why.into(), steps: Vec::new() }
    }

    /// Steps, all for the same reason.
    pub fn of(phase: Phase, why: impl Into<String>, actions: impl IntoIterator<Item = Action>) -> Self {
        let why = why.into();
        let steps = actions.into_iter().map(|action| Step { action, why: why.clone() }).collect();
        Self { phase, why, steps }
    }

    /// One more step.
    pub(super) fn push(&mut self, why: impl Into<String>, action: Action) {
        self.steps.push(Step { action, why: why.into() });
    }
}
