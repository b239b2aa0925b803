//! \[pure\] What has happened to one cluster's roles: made from successive snapshots, bounded, for people.
//!
//! A change of the primary is one entry from the loss to the next proof:
//!
//! ```text
//!   proven A ──lost──► open entry (from A) ──proven B──► closed entry (A → B, how long, how many statements waited)
//!       └──────────────proven B──────────────────────────►   (nothing between: a planned switchover)
//! ```
//!
//! Snapshots may be skipped between two looks; times come from the snapshots themselves, so that they are right all the same.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::topology::{Backend, Topology};

/// Changes of the primary that are kept.
pub const CHANGES_MAX: usize = 64;
/// Changes of a server's role that are kept.
pub const ROLES_MAX: usize = 64;
/// Characters of a reason that are kept.
const TEXT_MAX: usize = 400;

/// A server as it was called then. A pod has another address when it is made anew, and may be gone when this is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listened.
    pub address: String,
    /// Name of its pod.
    pub pod: Option<Arc<str>>,
}

impl From<&Backend> for Server {
    fn from(backend: &Backend) -> Self {
        Self { address: backend.address.to_string(), pod: backend.pod.as_ref().map(|pod| Arc::clone(&pod.name)) }
    }
}

/// One change of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryChange {
    /// The one that was lost; `None`: the first that was ever proven.
    pub from: Option<Server>,
    /// When, and why.
    pub lost: Option<(u64, Arc<str>)>,
    /// The one that was proven after it, when, with what evidence. `None`: not yet.
    pub proven: Option<(Server, u64, Arc<str>)>,
    /// The term since then; while there is none, the term before.
    pub term: u64,
    /// Statements that began to wait because of it.
    pub held: u64,
}

/// One change of a server's role.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RoleChange {
    at_unix_ms: u64,
    server: Server,
    from: &'static str,
    to: &'static str,
    why: Arc<str>,
}

/// What the statements of a cluster do when it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Statements that wait.
    pub now: usize,
    /// Statements that have ever begun to wait.
    pub entered: u64,
}

/// One cluster's past.
#[derive(Debug)]
pub struct History {
    last: Arc<Topology>,
    changes: VecDeque<PrimaryChange>,
    roles: VecDeque<RoleChange>,
    /// Times that a proven primary was doubted.
    doubts: u64,
    /// When it was doubted last, and for how long if that is over.
    doubted: Option<(u64, Option<u64>)>,
    /// [`Waiting::entered`] when last nothing waited and all was well.
    entered_in_peace: u64,
}

impl History {
    /// No past yet.
    pub fn new(first: Arc<Topology>) -> Self {
        Self {
            last: first,
            changes: VecDeque::new(),
            roles: VecDeque::new(),
            doubts: 0,
            doubted: None,
            entered_in_peace: 0,
        }
    }

    /// Changes of the primary, the oldest first.
    pub fn changes(&self) -> impl Iterator<Item = &PrimaryChange> {
        self.changes.iter()
    }

    /// Takes in the next snapshot (or the same one again).
    pub fn note(&mut self, next: Arc<Topology>, waiting: Waiting, now_unix_ms: u64) {
        let last = std::mem::replace(&mut self.last, Arc::clone(&next));
        if last.version != next.version {
            self.note_primary(&last, &next, waiting);
            self.note_roles(&last, &next, now_unix_ms);
            self.note_doubt(&last, &next, now_unix_ms);
        }
        if let Some(open) = self.changes.back_mut().filter(|change| change.proven.is_none()) {
            open.held = waiting.entered.saturating_sub(self.entered_in_peace);
        } else if waiting.now == 0 && !next.doubt {
            self.entered_in_peace = waiting.entered;
        }
    }

    fn note_primary(&mut self, last: &Topology, next: &Topology, waiting: Waiting) {
        let same = last.primary == next.primary && last.term == next.term;
        if same {
            return;
        }
        let primary = |topology: &Topology| topology.primary().map(Server::from);
        let is_open = self.changes.back().is_some_and(|change| change.proven.is_none());
        if !is_open && (last.primary.is_some() || next.primary.is_some()) {
            let from = primary(last);
            // What was lost and found again between two looks was lost when the new one was found, for all we know.
            let lost = from.is_some().then(|| (next.since_unix_ms, clipped(&next.why)));
            push(
                &mut self.changes,
                PrimaryChange { from, lost, proven: None, term: last.term.0, held: 0 },
                CHANGES_MAX,
            );
        }
        let held = waiting.entered.saturating_sub(self.entered_in_peace);
        let Some(open) = self.changes.back_mut().filter(|change| change.proven.is_none()) else { return };
        if let Some(to) = primary(next) {
            open.proven = Some((to, next.since_unix_ms, clipped(&next.why)));
            open.term = next.term.0;
            open.held = held;
            self.entered_in_peace = waiting.entered;
        }
    }

    fn note_roles(&mut self, last: &Topology, next: &Topology, now_unix_ms: u64) {
        let mut add = |server: &Backend, from, to, why: &Arc<str>| {
            let change = RoleChange { at_unix_ms: now_unix_ms, server: server.into(), from, to, why: clipped(why) };
            push(&mut self.roles, change, ROLES_MAX);
        };
        for server in &next.backends {
            let before = last.backend(server.id).map_or("none", standing);
            if before != standing(server) {
                add(server, before, standing(server), &server.evidence);
            }
        }
        let removed: Arc<str> = "it is no longer one of the cluster's servers".into();
        for server in last.backends.iter().filter(|server| next.backend(server.id).is_none()) {
            add(server, standing(server), "none", &removed);
        }
    }

    fn note_doubt(&mut self, last: &Topology, next: &Topology, now_unix_ms: u64) {
        let doubted = |topology: &Topology| topology.doubt && topology.primary.is_some();
        match (doubted(last), doubted(next)) {
            (false, true) => {
                self.doubts += 1;
                self.doubted = Some((now_unix_ms, None));
            }
            (true, false) => {
                if let Some((since, lasted @ None)) = &mut self.doubted {
                    *lasted = Some(now_unix_ms.saturating_sub(*since));
                }
            }
            (false, false) | (true, true) => {}
        }
    }

    /// `{primaries: [{from, from_pod, lost_unix_ms, why_lost, to, to_pod, proven_unix_ms, why_proven, ms, term, held}],
    /// roles: [{at_unix_ms, server, pod, from, to, why}], doubts: {count, last_unix_ms, last_ms}}`, the newest first; what is
    /// not known (yet) is null.
    pub fn to_json(&self) -> Value {
        let primaries = self.changes.iter().rev().map(|change| {
            let (from, lost, proven) = (change.from.as_ref(), change.lost.as_ref(), change.proven.as_ref());
            json!({
                "from": from.map(|from| &from.address),
                "from_pod": from.and_then(|from| from.pod.as_deref()),
                "lost_unix_ms": lost.map(|(at, _)| at),
                "why_lost": lost.map(|(_, why)| &**why),
                "to": proven.map(|(to, ..)| &to.address),
                "to_pod": proven.and_then(|(to, ..)| to.pod.as_deref()),
                "proven_unix_ms": proven.map(|(_, at, _)| at),
                "why_proven": proven.map(|(.., why)| &**why),
                "ms": lost.zip(proven).map(|((lost, _), (_, proven, _))| proven.saturating_sub(*lost)),
                "term": change.term,
                "held": change.held,
            })
        });
        let roles = self.roles.iter().rev().map(|change| {
            json!({
                "at_unix_ms": change.at_unix_ms,
                "server": change.server.address,
                "pod": change.server.pod.as_deref(),
                "from": change.from,
                "to": change.to,
                "why": &*change.why,
            })
        });
        json!({
            "primaries": primaries.collect::<Vec<_>>(),
            "roles": roles.collect::<Vec<_>>(),
            "doubts": {
                "count": self.doubts,
                "last_unix_ms": self.doubted.map(|(since, _)| since),
                "last_ms": self.doubted.and_then(|(_, lasted)| lasted),
            },
        })
    }
}

/// A server's role in one word; what is being emptied is that first of all.
fn standing(server: &Backend) -> &'static str {
    match server.serving.as_str() {
        "draining" | "drained" => "draining",
        _ => server.role.as_str(),
    }
}

fn push<T>(ring: &mut VecDeque<T>, entry: T, max: usize) {
    if ring.len() >= max {
        ring.pop_front();
    }
    ring.push_back(entry);
}

fn clipped(text: &Arc<str>) -> Arc<str> {
    match text.char_indices().nth(TEXT_MAX) {
        None => Arc::clone(text),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests;
