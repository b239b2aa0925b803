//! \[pure\] What one server said about itself, and what not answering means.
//!
//! A [`Report`] is one server's own view and proves nothing by itself; [`super::proof`] weighs several. Sources: MySQL
//! manual, "The performance_schema.replication_group_members Table" and "replication_connection_status"; MariaDB
//! Knowledge Base, "SHOW REPLICA STATUS".

use super::snapshot::Flavor;
use crate::types::{Address, BackendId, Gtids};
use std::sync::Arc;

/// One answer, or its absence.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Who was asked.
    pub backend: BackendId,
    /// When the question was sent, on the topology's clock in milliseconds: the answer is at least this new.
    pub asked_ms: u64,
    /// The answer.
    pub outcome: Result<Report, Failure>,
}

/// A server's own view of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `@@server_uuid` in lower case; MariaDB has none.
    pub server_uuid: Option<Arc<str>>,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@read_only` or `@@super_read_only`. Either: while a writer holds up `super_read_only=ON` it reads 1 beside
    /// `read_only` = 0.
    pub read_only: bool,
    /// `@@offline_mode`: ordinary accounts are shut out (error 3032).
    pub offline: bool,
    /// What it has executed; `None` without GTIDs or when the set is longer than the prober takes.
    pub gtids: Option<Arc<Gtids>>,
    /// Its view of its group, if it is set up for group replication, running or not.
    pub group: Option<GroupView>,
    /// Its replication channels, without the group's own.
    pub channels: Vec<Channel>,
    /// How it greeted the connection that asked.
    pub greeting: Arc<ServerGreeting>,
}

/// The greeting of a server, for the facade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerGreeting {
    /// Version without MariaDB's `5.5.5-`.
    pub version: Arc<str>,
    /// Family.
    pub flavor: Flavor,
    /// All capability flags, MariaDB's extended ones in the high half.
    pub capabilities: u64,
    /// Default collation id.
    pub collation: u8,
    /// Default authentication plugin.
    pub plugin: Arc<str>,
}

/// One member's view of its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupView {
    /// Every member in it, in any state.
    pub members: Vec<Member>,
}

impl GroupView {
    /// The entry of the member with this UUID.
    pub fn member(&self, uuid: &str) -> Option<&Member> {
        self.members.iter().find(|member| &*member.uuid == uuid)
    }

    /// The members that are ONLINE and PRIMARY: one in single-primary mode.
    pub fn primaries(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.primary && member.state == MemberState::Online)
    }

    /// Does the viewer see a majority of the group? Without one the group decides nothing and nothing new arrives.
    pub fn has_quorum(&self) -> bool {
        let seen = self.members.iter().filter(|member| member.state != MemberState::Unreachable).count();
        seen * 2 > self.members.len()
    }
}

/// One line of a group view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `MEMBER_ID` in lower case.
    pub uuid: Arc<str>,
    /// `MEMBER_HOST` and `MEMBER_PORT`; `None` where they are empty.
    pub address: Option<Address>,
    /// `MEMBER_STATE`.
    pub state: MemberState,
    /// `MEMBER_ROLE` is PRIMARY.
    pub primary: bool,
}

/// `MEMBER_STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Takes part and serves.
    Online,
    /// Is catching up.
    Recovering,
    /// Is not in the group.
    Offline,
    /// Has failed and left.
    Error,
    /// The viewer hears nothing from it.
    Unreachable,
}

impl MemberState {
    /// Reads the server's word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "ONLINE" => Self::Online,
            "RECOVERING" => Self::Recovering,
            "OFFLINE" => Self::Offline,
            "ERROR" => Self::Error,
            "UNREACHABLE" => Self::Unreachable,
            _ => return None,
        })
    }

    /// The server's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Recovering => "RECOVERING",
            Self::Offline => "OFFLINE",
            Self::Error => "ERROR",
            Self::Unreachable => "UNREACHABLE",
        }
    }
}

/// One replication channel of a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The source's `server_uuid` as far as the channel has learned it.
    pub source_uuid: Option<Arc<str>>,
    /// The source's `server_id` (MariaDB; 0 there before the first contact, kept as `None`).
    pub source_server_id: Option<u32>,
    /// The source's host and port as configured.
    pub source: Option<Address>,
    /// Does its receiver run?
    pub receiver: Receiver,
}

/// State of a channel's receiver (IO thread).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Connected to its source.
    On,
    /// Trying to.
    Connecting,
    /// Stopped; the channel is still configured.
    Off,
}

/// Why a server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for its role.
    pub kind: FailureKind,
    /// For evidence and logs; holds no secret.
    pub text: Arc<str>,
}

/// What not answering means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Nobody listens there, or every connection is closed at once: no server runs. Ends a role immediately.
    Gone,
    /// No answer in time, or no room for the connection: frozen, cut off or just slow. Casts doubt.
    Silent,
    /// It answers, but refuses the account or the question: nothing can be proven. Ends a role immediately.
    Barred,
}
