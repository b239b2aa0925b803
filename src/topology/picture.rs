//! \[pure\] The writer's memory: servers with their ids, what they said last, samples for lag, and the last snapshot.
//!
//! Inputs are the list of servers, observations and hints; the output is the next snapshot ([`super::proof::next`]). All
//! that lives longer than one round and is no part of the snapshot is here, and bounded: servers by
//! [`Limits::backends_max`], samples by [`Limits::lag_samples_max`].

use super::kubernetes::{PodFacts, PodState};
use super::lag::LagRing;
use super::memory::Memory;
use super::proof::{self, Now};
use super::report::{MemberState, Observation, Report};
use super::server::{DrainReason, Server};
use super::settings::{Limits, RoleHint, Source};
use super::snapshot::{ConflictKind, Topology};
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
    /// The next address's.
    next_id: u32,
    memory: Memory,
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
            next_id: 0,
            memory: Memory::default(),
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
            // They go on being what they are until the new feed speaks.
            Source::Pods => Vec::new(),
        };
        let pods = source == Source::Pods;
        for server in &mut self.servers {
            let learned = matches!(source, Source::Members { .. }) && self.seen_ms.contains_key(&server.id);
            if !pods && !learned && !listed.iter().any(|(address, ..)| *address == server.address) {
                server.set_drain(Some(DrainReason::Unlisted), now.ms);
            }
        }
        for (address, weight, role_hint) in listed {
            self.seen_ms.retain(|id, _| self.ids.get(&address) != Some(id));
            self.add(address, weight, role_hint);
        }
        self.source = source;
        self.round(now);
    }

    /// Takes the limits of another configuration.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes the pods as they are now: new ones are added, changed ones are doubted, those that are gone are dropped at
    /// once, and so is a server whose address another pod has taken over. True if anything changed.
    pub fn follow_pods(&mut self, pods: &[Arc<PodFacts>], now: Now) -> bool {
        // Of two pods at one address, as an old one's that is not quite gone, the one that stays.
        let mut listed: Vec<(&Address, &Arc<PodFacts>)> = Vec::new();
        for (pod, address) in pods.iter().filter_map(|pod| Some((pod, pod.address.as_ref()?))) {
            match listed.iter_mut().find(|(known, _)| *known == address) {
                Some((_, other)) if other.state == PodState::Deleting => *other = pod,
                Some(_) => {}
                None => listed.push((address, pod)),
            }
        }
        let before = self.servers.len();
        self.servers.retain(|server| {
            let same = |(address, pod): &(&Address, &Arc<PodFacts>)| {
                **address == server.address && server.pod.as_ref().is_some_and(|old| old.uid == pod.uid)
            };
            listed.iter().any(same)
        });
        let mut changed = self.servers.len() != before;
        for (address, pod) in listed {
            changed |= self.note_pod(address, pod, now.ms);
        }
        if changed {
            self.round(now);
        }
        changed
    }

    fn note_pod(&mut self, address: &Address, pod: &Arc<PodFacts>, now_ms: u64) -> bool {
        if self.add(address.clone(), 1, None).is_none() {
            return false;
        }
        let Some(server) = self.servers.iter_mut().find(|server| server.address == *address) else { return false };
        if server.pod.as_ref() == Some(pod) {
            return false;
        }
        // A label proves nothing, but what was asked before it changed proves nothing any more, either.
        server.suspected_ms = server.suspected_ms.max(Some(now_ms));
        let why = (pod.state != PodState::Ready).then_some(DrainReason::Pod(pod.state));
        server.set_drain(why, now_ms);
        server.pod = Some(Arc::clone(pod));
        true
    }

    /// Do labels contradict the proof, or is the primary's pod going? Then something is about to happen.
    pub fn unsettled(&self) -> bool {
        let going = self.current.primary.is_some() && !self.current.accepting;
        going || self.current.conflicts.iter().any(|conflict| conflict.kind.is_label())
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
        self.memory.note_claims(&self.servers);
        let next = proof::next(&self.current, &self.servers, &self.memory, &self.limits, now);
        self.remember(&next, now.ms);
        if next.term != self.current.term {
            self.note_change(&next);
        }
        self.current = Arc::new(next);
        self.current.clone()
    }

    /// Adds a server, or brings a known one up to date. Beyond the limit it is left out.
    fn add(&mut self, address: Address, weight: u32, role_hint: Option<RoleHint>) -> Option<BackendId> {
        if let Some(known) = self.servers.iter_mut().find(|server| server.address == address) {
            (known.weight, known.role_hint) = (weight, role_hint);
            if known.is_unlisted() {
                known.drain = None;
            }
            return Some(known.id);
        }
        if self.servers.len() >= self.limits.backends_max {
            return None;
        }
        if self.ids.len() >= IDS_MAX {
            // Pods come with ever new addresses; those of long ago are nobody's any more.
            self.ids.retain(|_, id| self.servers.iter().any(|server| server.id == *id));
        }
        let id = match self.ids.get(&address) {
            Some(id) => *id,
            None => {
                let id = BackendId(self.next_id);
                self.next_id = self.next_id.checked_add(1)?;
                self.ids.insert(address.clone(), id);
                id
            }
        };
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
            let over = |since_ms| now_ms.saturating_sub(since_ms) >= limits.drain_ms;
            let drained = server.is_unlisted() && server.drain.is_some_and(|drain| over(drain.since_ms));
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

    /// Remembers what the primary has executed, or since when the only candidate has lacked some of that.
    fn remember(&mut self, next: &Topology, now_ms: u64) {
        let proven = next.primary.filter(|_| !next.doubt).zip(next.last_primary.as_ref());
        let server = proven.and_then(|(id, of)| Some((self.servers.iter().find(|server| server.id == id)?, of)));
        if let Some((server, of)) = server
            && let Some((_, report)) = &server.report
        {
            self.memory.note_primary(&self.servers, server, report, of);
            return;
        }
        let lacking = next.conflicts.iter().any(|conflict| conflict.kind == ConflictKind::MissingWrites);
        self.memory.lacking_ms = lacking.then(|| self.memory.lacking_ms.unwrap_or(now_ms));
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
