//! \[pure\] What the reconciler knows of a cluster at one moment: the record, the members, and what each says of itself.
//!
//! The record is what was written down before (in the status of the MysqlCluster): who is to be the primary, in which term,
//! and how many replicas a commit waits for. It is compared and swapped before anything is done, so that a reconciler that
//! dies in the middle leaves behind what its successor needs. A member's own words prove what it is now; the record says what
//! it should be.

use super::resource::{Durability, TopologyKind};
use crate::topology::report::{Failure, MemberState, Receiver};
use crate::types::{Address, GtidSet, Role, Term, Uuid};
use std::fmt;
use std::sync::Arc;

/// Name of a member: its pod's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberName(pub Arc<str>);

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for MemberName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// Everything that decisions are made from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the user asks for.
    pub wishes: Wishes,
    /// What was written down.
    pub record: Record,
    /// All members, in the order of their ordinals.
    pub members: Vec<Member>,
    /// How long the member that should be the primary has given no answer; 0 if it answers.
    pub lost_ms: u64,
    /// How long the primary has been changing; 0 if it is not.
    pub change_ms: u64,
}

/// What the user asks for, as far as it decides anything.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// How the members keep the same data.
    pub topology: TopologyKind,
    /// What a commit waits for when replicas are missing.
    pub durability: Durability,
    /// Errant members may be cloned.
    pub auto_reclone: bool,
    /// How long the primary must be away before another takes over.
    pub failover_delay_ms: u64,
    /// A change of the primary that was asked for.
    pub switchover: Option<Switchover>,
    /// Another may take over although it can't be shown that nothing is lost: a person has said so.
    pub force: bool,
    /// The data of this member are to be replaced: a person has said so.
    pub reclone: Option<MemberName>,
    /// A follower further behind loses its label; 0: never.
    pub max_lag_ms: u64,
}

/// A change of the primary that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switchover {
    /// To whom; `None`: to any other member.
    pub target: Option<MemberName>,
}

/// What was written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The member that takes writes, or may have begun to: settled before it is opened.
    pub primary: Option<MemberName>,
    /// The member that is to take writes; until it is settled that can be undone.
    pub target: Option<MemberName>,
    /// Counts changes of the target.
    pub term: Term,
    /// Replicas that a commit waits for. Lowered here before it is lowered on the server, raised there first: never more
    /// than what the server really waits for.
    pub acks: Option<u32>,
    /// What each member was last seen to have.
    pub known: Vec<Known>,
}

/// What a member was last seen to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which member.
    pub member: MemberName,
    /// Its `server_uuid`: another one means other data.
    pub uuid: Uuid,
    /// What it had, executed or received.
    pub has: GtidSet,
}

impl Record {
    /// The member that should be the primary.
    pub fn lead(&self) -> Option<&MemberName> {
        self.target.as_ref().or(self.primary.as_ref())
    }
}

/// One member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its pod's name.
    pub name: MemberName,
    /// Where the others find it.
    pub address: Address,
    /// The user wants it kept from all traffic.
    pub fenced: bool,
    /// Its pod is being deleted.
    pub deleting: bool,
    /// It is the next to go for good: it must acknowledge nothing that then would be missing.
    pub leaving: bool,
    /// It is proven that no process of it runs.
    pub stopped: bool,
    /// A long step (a clone) is under way on it.
    pub busy: bool,
    /// The role on its label.
    pub label: Option<Role>,
    /// The term on its annotation.
    pub term: Option<Term>,
    /// How far it is behind the primary, as far as that has been watched.
    pub lag_ms: Option<u64>,
    /// What it says of itself, or why it says nothing.
    pub sight: Result<Box<Answer>, Failure>,
}

impl Member {
    /// Its answer, if it gave one and nothing long is under way on it.
    pub fn answer(&self) -> Option<&Answer> {
        self.sight.as_deref().ok().filter(|_| !self.busy)
    }

    /// Does it take writes?
    pub fn is_open(&self) -> bool {
        self.answer().is_some_and(|answer| !answer.read_only && !answer.super_read_only && !answer.offline)
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `server_uuid`.
    pub uuid: Uuid,
    /// `gtid_executed`.
    pub executed: GtidSet,
    /// `gtid_purged`: what it can't pass on any more.
    pub purged: GtidSet,
    /// `read_only`. It is 0 while a `super_read_only=ON` waits for commits in flight, although the latter reads 1.
    pub read_only: bool,
    /// `super_read_only`.
    pub super_read_only: bool,
    /// `offline_mode`.
    pub offline: bool,
    /// Its commits wait until there is room on its disk.
    pub full: bool,
    /// Its channel from another server.
    pub channel: Option<Channel>,
    /// Semi-synchronous replication, both sides.
    pub semisync: Semisync,
    /// Group replication, if it is set up for it.
    pub group: Option<GroupSight>,
}

/// A channel from another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The other's `server_uuid`, once it was reached.
    pub source_uuid: Option<Uuid>,
    /// The other's address as configured.
    pub source: Option<Address>,
    /// Its receiver (IO thread).
    pub receiver: Receiver,
    /// It has heard nothing for long, not even a heartbeat, whatever its receiver says of itself: one whose disk is full says ON.
    pub silent: bool,
    /// What is in its relay log.
    pub received: GtidSet,
    /// Its applier (SQL thread) runs.
    pub applying: bool,
    /// Why its applier failed, if it did. A receiver that failed is simply started again.
    pub error: Option<Arc<str>>,
}

/// Semi-synchronous replication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Semisync {
    /// Its commits wait.
    pub source: bool,
    /// For so many replicas.
    pub acks: u32,
    /// For so long, milliseconds.
    pub timeout_ms: u64,
    /// It acknowledges what it receives.
    pub replica: bool,
    /// Replicas that acknowledge to it.
    pub clients: u32,
    /// Commits that wait now.
    pub waiting: u32,
}

/// A member's own view of its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSight {
    /// Everybody that it knows of, itself included.
    pub members: Vec<GroupMember>,
    /// What it received from the group, applied or not.
    pub received: GtidSet,
}

/// One line of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// `MEMBER_ID`.
    pub uuid: Uuid,
    /// `MEMBER_STATE`.
    pub state: MemberState,
    /// `MEMBER_ROLE` is PRIMARY.
    pub primary: bool,
}

impl Answer {
    /// Can nobody write to it, and is no commit on its way?
    pub fn is_fenced(&self) -> bool {
        self.read_only && self.super_read_only
    }

    /// Everything that it has, executed or still in its relay log.
    pub fn has(&self) -> GtidSet {
        let relayed = self.channel.iter().map(|channel| &channel.received);
        let grouped = self.group.iter().map(|group| &group.received);
        relayed.chain(grouped).fold(self.executed.clone(), |all, more| all.union(more))
    }

    /// State of its receiver; off where there is no channel.
    pub fn receiver(&self) -> Receiver {
        self.channel.as_ref().map_or(Receiver::Off, |channel| channel.receiver)
    }

    /// Does its channel point at that server?
    pub fn follows(&self, source: &Member) -> bool {
        let Some(channel) = &self.channel else { return false };
        channel.source.as_ref() == Some(&source.address)
    }

    /// What it says of itself as a member of its group.
    pub fn group_state(&self) -> MemberState {
        let own = self.group.as_ref().and_then(|group| group.members.iter().find(|m| m.uuid == self.uuid));
        own.map_or(MemberState::Offline, |member| member.state)
    }
}

impl Snapshot {
    /// The member of that name.
    pub fn member(&self, name: &MemberName) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *name)
    }

    /// The member that should be the primary, if it is (still) one of them.
    pub fn lead(&self) -> Option<&Member> {
        self.record.lead().and_then(|name| self.member(name))
    }

    /// How many replicas a commit is to wait for when none is missing.
    pub fn acks_full(&self) -> u32 {
        (self.members.len() / 2) as u32
    }

    /// How many replicas every acknowledged commit has waited for, at least.
    pub fn acks_proven(&self) -> u32 {
        self.record.acks.unwrap_or_else(|| self.acks_full())
    }

    /// Is this follower too far behind to be read from? One that lost its label for it has to come closer than it had to stay.
    pub fn is_late(&self, member: &Member) -> bool {
        let limit = self.wishes.max_lag_ms;
        let limit = if member.label.is_some() { limit } else { limit / 2 };
        self.wishes.max_lag_ms > 0 && member.lag_ms.is_some_and(|lag| lag > limit)
    }

    /// Is the primary changing?
    pub fn is_changing(&self) -> bool {
        self.record.target.is_some() && self.record.target != self.record.primary
    }

    /// The member that all others are compared with: the primary; while it changes, the old one.
    pub fn reference(&self) -> Option<&Member> {
        self.record.primary.as_ref().and_then(|name| self.member(name))
    }

    /// What this member was last seen to have, if that was written down.
    pub fn known(&self, member: &Member) -> Option<&Known> {
        self.record.known.iter().find(|known| known.member == member.name)
    }

    /// The part of `set` that the reference can't ever have: neither what it has or had when it was last seen, nor what it
    /// began itself since. Empty where that can't be told.
    fn foreign(&self, set: &GtidSet) -> GtidSet {
        let Some(reference) = self.reference() else { return GtidSet::default() };
        let now = reference.answer().map(|its| (its.uuid, its.has()));
        let before = self.known(reference).map(|known| (known.uuid, known.has.clone()));
        let legitimate: Vec<(Uuid, GtidSet)> = now.into_iter().chain(before).collect();
        if legitimate.is_empty() {
            return GtidSet::default();
        }
        legitimate.iter().fold(set.clone(), |set, (uuid, has)| set.subtract(has).without(*uuid))
    }

    /// What this member has executed and the reference can't ever have.
    pub fn errant(&self, member: &Member) -> GtidSet {
        let is_reference = self.reference().is_some_and(|reference| reference.name == member.name);
        match member.answer() {
            Some(answer) if !is_reference => self.foreign(&answer.executed),
            Some(_) | None => GtidSet::default(),
        }
    }

    /// What this member has, without what is foreign: a commit among it may have been acknowledged because it is there.
    pub fn entrusted(&self, answer: &Answer) -> GtidSet {
        let has = answer.has();
        has.subtract(&self.foreign(&has))
    }

    /// Does this member lack something that it was seen to have? Then its volume was replaced, or a clone broke off, and its
    /// word proves nothing about what was acknowledged.
    pub fn has_forgotten(&self, member: &Member) -> bool {
        let (Some(answer), Some(known)) = (member.answer(), self.known(member)) else { return false };
        let is_reference = self.reference().is_some_and(|reference| reference.name == member.name);
        let lost = known.has.subtract(&answer.has());
        if is_reference { known.uuid != answer.uuid || !lost.is_empty() } else { lost != self.foreign(&lost) }
    }
}

/// What is to be remembered of each member after this snapshot. Whoever has forgotten something is remembered as it was,
/// until it has that again.
pub fn learn(s: &Snapshot) -> Vec<Known> {
    let learned = |member: &Member| {
        let fresh = |answer: &Answer| Known { member: member.name.clone(), uuid: answer.uuid, has: answer.has() };
        match member.answer() {
            Some(answer) if !s.has_forgotten(member) => Some(fresh(answer)),
            Some(_) | None => s.known(member).cloned(),
        }
    };
    s.members.iter().filter_map(learned).collect()
}
