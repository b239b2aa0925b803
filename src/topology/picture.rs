//! \[pure\] The writer's memory: servers with their ids, what they said last, samples for lag, and the last snapshot.
//!
//! Inputs are the list of servers, observations and hints; the output is the next snapshot ([`super::proof::next`]). All
//! that lives longer than one round and is no part of the snapshot is here, and bounded: servers by
//! [`Limits::backends_max`], samples by [`Limits::lag_samples_max`].

use super::lag::LagRing;
use super::proof::{self, Now};
use super::report::{MemberState, Observation, Report};
use super::server::Server;
use super::settings::{Limits, RoleHint, Source};
use super::snapshot::Topology;
use crate::types::{Address, BackendId, ClusterName};
use std::collections::HashMap;
use std::sync::Arc;

/// Addresses one cluster may have had in the life of the process; they keep their ids.
const IDS_MAX: usize = 16_384;

/// Everything one cluster's writer remembers.
pub struct Picture {
    source: Source,
    limits: Limits,
    servers: Vec<Server>,
    /// Ids stay with their address also while it is not in the list.
    ids: HashMap<Address, BackendId>,
    /// When each member not listed by name was last seen in a view, milliseconds.
    seen_ms: HashMap<BackendId, u64>,
    lag: LagRing,
    current: Arc<Topology>,
}

impl Picture {
    /// A cluster nobody has looked at yet.
    pub fn new(cluster: ClusterName, source: Source, limits: Limits, now: Now) -> Self {
        let mut picture = Self {
            source: Source::Static { servers: Vec::new() },
            limits,
            servers: Vec::new(),
            ids: HashMap::new(),
            seen_ms: HashMap::new(),
            lag: LagRing::default(),
            current: Arc::new(Topology::empty(cluster)),
        };
        picture.configure(source, now);
        picture
    }

    /// The last snapshot.
    pub fn current(&self) -> &Arc<Topology> {
        &self.current
    }

    /// The servers to be asked.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Takes another list of servers: new ones are added, known ones keep their id and all that is known of them, those no
    /// longer listed are drained.
    pub fn configure(&mut self, source: Source, now: Now) {
        let listed: Vec<(Address, u32, Option<RoleHint>)> = match &source {
            Source::Static { servers } => servers.iter().map(|s| (s.address.clone(), s.weight, s.role_hint)).collect(),
            Source::Members { seeds, weight } => seeds.iter().map(|seed| (seed.clone(), *weight, None)).collect(),
        };
        for server in &mut self.servers {
            let learned = matches!(source, Source::Members { .. }) && self.seen_ms.contains_key(&server.id);
            if !learned && !listed.iter().any(|(address, ..)| *address == server.address) {
                server.draining_ms.get_or_insert(now.ms);
            }
        }
        for (address, weight, role_hint) in listed {
            self.seen_ms.retain(|id, _| self.ids.get(&address) != Some(id));
            self.add(address, weight, role_hint);
        }
        self.source = source;
        self.round(now);
    }

    /// Takes in what one server said, or didn't.
    pub fn observe(&mut self, observation: Observation) {
        if let Some(server) = self.servers.iter_mut().find(|server| server.id == observation.backend) {
            server.observe(observation);
        }
    }

    /// Something speaks against a server since `at_ms`: nothing asked before counts for it any more.
    pub fn suspect(&mut self, id: BackendId, at_ms: u64) {
        if let Some(server) = self.servers.iter_mut().find(|server| server.id == id) {
            server.suspected_ms = server.suspected_ms.max(Some(at_ms));
        }
    }

    /// Draws the next snapshot from all that is known.
    pub fn round(&mut self, now: Now) -> Arc<Topology> {
        self.follow_members(now.ms);
        self.forget(now.ms);
        self.measure_lag();
        let next = proof::next(&self.current, &self.servers, &self.limits, now);
        if next.term != self.current.term {
            self.note_change(&next);
        }
        self.current = Arc::new(next);
        self.current.clone()
    }

    /// Adds a server, or brings a known one up to date. Beyond the limit it is left out.
    fn add(&mut self, address: Address, weight: u32, role_hint: Option<RoleHint>) -> Option<BackendId> {
        if let Some(known) = self.servers.iter_mut().find(|server| server.address == address) {
            (known.weight, known.role_hint, known.draining_ms) = (weight, role_hint, None);
            return Some(known.id);
        }
        let new = !self.ids.contains_key(&address);
        if self.servers.len() >= self.limits.backends_max || (new && self.ids.len() >= IDS_MAX) {
            return None;
        }
        let id = BackendId(u32::try_from(self.ids.len()).ok()?);
        let id = *self.ids.entry(address.clone()).or_insert(id);
        self.servers.push(Server::new(id, address, weight, role_hint));
        Some(id)
    }

    /// With `members`: adds whom the group names. A member that answers at a seed's address is that seed.
    fn follow_members(&mut self, now_ms: u64) {
        let Source::Members { weight, .. } = self.source else { return };
        let limit = self.limits.answer_ms_max;
        let views =
            self.servers.iter().filter_map(|server| server.usable(now_ms, limit)).filter(|(_, r)| takes_part(r));
        let members = views.filter_map(|(_, report)| report.group.as_ref()).flat_map(|view| view.members.iter());
        let members: Vec<_> = members.filter_map(|m| Some((m.uuid.clone(), m.address.clone()?))).collect();
        for (uuid, address) in members {
            let by_uuid = self.servers.iter().find(|s| s.uuid() == &*uuid && s.address != address).map(|s| s.id);
            let listed = self.servers.iter().any(|s| s.address == address && !self.seen_ms.contains_key(&s.id));
            if listed {
                continue;
            }
            let id = match by_uuid {
                Some(id) => Some(id).filter(|id| self.seen_ms.contains_key(id)),
                None => self.add(address, weight, None),
            };
            if let Some(id) = id {
                self.seen_ms.insert(id, now_ms);
            }
        }
    }

    /// Drops servers that were drained for long enough, and members nobody sees any more.
    fn forget(&mut self, now_ms: u64) {
        let limits = &self.limits;
        let seen_ms = &mut self.seen_ms;
        self.servers.retain(|server| {
            let drained = server.draining_ms.is_some_and(|since| now_ms.saturating_sub(since) >= limits.drain_ms);
            let gone = seen_ms.get(&server.id).is_some_and(|seen| now_ms.saturating_sub(*seen) >= limits.forget_ms);
            if drained || gone {
                seen_ms.remove(&server.id);
            }
            !(drained || gone)
        });
    }

    /// Samples the primary's GTIDs and places the others on its path.
    fn measure_lag(&mut self) {
        let primary = self.current.primary.and_then(|id| self.servers.iter().find(|server| server.id == id));
        if let Some((asked_ms, report)) = primary.and_then(|server| server.report.as_ref())
            && let (Some(gtids), false) = (&report.gtids, report.read_only)
        {
            self.lag.push(*asked_ms, gtids, self.limits.lag_sample_ms, self.limits.lag_samples_max);
        }
        for server in &mut self.servers {
            server.lag_ms = server.report.as_ref().and_then(|(asked_ms, report)| {
                let gtids = report.gtids.as_deref()?;
                self.lag.lag_ms(*asked_ms, gtids)
            });
        }
    }

    /// Remembers who was primary before: see [`Server::former_primary`].
    fn note_change(&mut self, next: &Topology) {
        let (old, new) = (self.current.last_primary.as_ref().map(|last| last.id), next.primary);
        for server in &mut self.servers {
            let fenced = server.report.as_ref().is_some_and(|(_, r)| r.read_only || r.offline);
            if Some(server.id) == new {
                server.former_primary = false;
            } else if Some(server.id) == old && !fenced {
                server.former_primary = true;
            }
        }
    }
}

/// Is the server ONLINE or RECOVERING in its own view? Others' views say nothing about today's group.
fn takes_part(report: &Report) -> bool {
    let me = report.group.as_ref().zip(report.server_uuid.as_deref()).and_then(|(view, uuid)| view.member(uuid));
    me.is_some_and(|me| matches!(me.state, MemberState::Online | MemberState::Recovering))
}
