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
mod tests {
    use super::*;
    use crate::topology::kubernetes::{Group, Label, PodFacts, PodState};
    use crate::topology::{LastPrimary, Serving};
    use crate::types::{BackendId, Role, Term};

    /// A snapshot in which `primary` (or nobody) leads, of servers db-0, db-1…
    fn snapshot(version: u64, primary: Option<u32>, servers: u32, since: u64, why: &str) -> Topology {
        let backend = |id| {
            let role = if Some(id) == primary { Role::Primary } else { Role::Follower };
            let address = format!("db-{id}").parse().unwrap();
            Backend { role, serving: Serving::Yes, ..Backend::new(BackendId(id), address, 1) }
        };
        Topology {
            version,
            primary: primary.map(BackendId),
            last_primary: primary.map(|id| LastPrimary { id: BackendId(id), server_uuid: "".into() }),
            backends: (0..servers).map(backend).collect(),
            since_unix_ms: since,
            why: why.into(),
            doubt: primary.is_none(),
            ..Topology::empty("orders".into())
        }
    }

    fn pod(name: &str) -> PodFacts {
        PodFacts {
            group: Group { namespace: "shop".into(), cluster: "orders".into(), component: "".into() },
            name: name.into(),
            uid: "u".into(),
            address: None,
            state: PodState::Ready,
            restarts: 0,
            label: Label::None,
            unlabelled_reads: true,
            term: None,
        }
    }

    fn with_term(term: u64, mut topology: Topology) -> Arc<Topology> {
        topology.term = Term(term);
        Arc::new(topology)
    }

    fn noted(steps: Vec<(Arc<Topology>, Waiting)>) -> History {
        let mut history = History::new(Arc::new(Topology::empty("orders".into())));
        for (topology, waiting) in steps {
            let now = topology.since_unix_ms;
            history.note(topology, waiting, now);
        }
        history
    }

    const NOBODY: Waiting = Waiting { now: 0, entered: 0 };

    #[test]
    fn a_failover_is_one_entry_from_the_loss_to_the_proof() {
        let history = noted(vec![
            (with_term(1, snapshot(1, Some(0), 3, 1_000, "proven")), Waiting { now: 0, entered: 7 }),
            (with_term(1, snapshot(2, None, 3, 5_000, "connection refused")), Waiting { now: 2, entered: 9 }),
            (with_term(1, snapshot(2, None, 3, 5_000, "connection refused")), Waiting { now: 4, entered: 11 }),
            (with_term(2, snapshot(3, Some(1), 3, 6_100, "a majority says so")), Waiting { now: 5, entered: 12 }),
            (with_term(2, snapshot(3, Some(1), 3, 6_100, "a majority says so")), Waiting { now: 0, entered: 12 }),
        ]);
        let json = history.to_json();
        let entry = &json["primaries"][0];
        let facts = ["from", "to", "lost_unix_ms", "proven_unix_ms", "ms", "term", "held", "why_lost", "why_proven"];
        assert_eq!(
            facts.map(|fact| entry[fact].clone()),
            [
                json!("db-0:3306"),
                json!("db-1:3306"),
                json!(5_000),
                json!(6_100),
                json!(1_100),
                json!(2),
                json!(5),
                json!("connection refused"),
                json!("a majority says so"),
            ]
        );
        assert_eq!(json["primaries"][1]["from"], Value::Null, "the first one replaced nobody");
        assert_eq!(json["primaries"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_switchover_nobody_saw_the_gap_of_and_a_primary_that_comes_back() {
        let history = noted(vec![
            (with_term(1, snapshot(1, Some(0), 2, 1_000, "proven")), NOBODY),
            (with_term(2, snapshot(4, Some(1), 2, 2_000, "set as primary")), NOBODY),
            (with_term(2, snapshot(5, None, 2, 3_000, "cut off")), NOBODY),
        ]);
        let changes: Vec<_> = history.changes().collect();
        assert_eq!(changes[1].lost.as_ref().map(|(at, _)| *at), Some(2_000));
        assert_eq!(
            changes[1].proven.as_ref().map(|(to, at, _)| (to.address.as_str(), *at)),
            Some(("db-1:3306", 2_000))
        );
        let from = |change: &PrimaryChange| change.from.as_ref().unwrap().address.clone();
        assert_eq!((from(changes[2]), &changes[2].proven), ("db-1:3306".to_owned(), &None));
        let mut history = history;
        history.note(with_term(2, snapshot(6, Some(1), 2, 3_500, "proven again")), NOBODY, 3_500);
        let back = history.changes().last().unwrap();
        assert_eq!((from(back), back.term), ("db-1:3306".to_owned(), 2));
        assert_eq!(back.proven.as_ref().map(|(to, ..)| to.address.as_str()), Some("db-1:3306"));
    }

    /// By pod, also when the pod is gone or has another address since.
    #[test]
    fn pods_are_remembered_by_name() {
        let in_pods = |mut topology: Topology| {
            for server in &mut topology.backends {
                server.pod = Some(Arc::new(pod(&format!("orders-mysql-{}", server.id.0))));
            }
            topology
        };
        let mut history = noted(vec![
            (with_term(1, in_pods(snapshot(1, Some(0), 2, 1_000, "proven"))), NOBODY),
            (with_term(2, in_pods(snapshot(2, Some(1), 2, 2_000, "proven"))), NOBODY),
        ]);
        history.note(with_term(2, in_pods(snapshot(3, Some(1), 1, 2_000, "proven"))), NOBODY, 2_100);
        let json = history.to_json();
        let change = &json["primaries"][0];
        assert_eq!(
            ["from", "from_pod", "to", "to_pod"].map(|field| change[field].as_str().unwrap()),
            ["db-0:3306", "orders-mysql-0", "db-1:3306", "orders-mysql-1"]
        );
        assert_eq!(json["primaries"][1]["from_pod"], Value::Null);
        assert!(json["roles"].as_array().unwrap().iter().all(|role| role["pod"].is_string()), "{json:#}");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "x".repeat(10 * TEXT_MAX);
        let steps = (1..1_000).map(|n| {
            let primary = (n % 2 == 0).then_some(u32::try_from(n % 4).unwrap() / 2);
            (with_term(n, snapshot(n, primary, u32::try_from(n % 5).unwrap(), n, &long)), NOBODY)
        });
        let json = noted(steps.collect()).to_json();
        assert_eq!(json["primaries"].as_array().unwrap().len(), CHANGES_MAX);
        assert_eq!(json["roles"].as_array().unwrap().len(), ROLES_MAX);
        assert!(json["primaries"][0]["why_proven"].as_str().is_none_or(|why| why.chars().count() <= TEXT_MAX + 1));
        assert_eq!(json["primaries"][0]["lost_unix_ms"], 999, "the newest comes first");
    }

    #[test]
    fn roles_and_doubts_are_noted() {
        let mut doubted = snapshot(2, Some(0), 2, 1_000, "proven");
        doubted.doubt = true;
        let mut history = noted(vec![
            (with_term(1, snapshot(1, Some(0), 2, 1_000, "proven")), NOBODY),
            (with_term(1, doubted), NOBODY),
        ]);
        assert_eq!(history.to_json()["doubts"], json!({ "count": 1, "last_unix_ms": 1_000, "last_ms": null }));
        let mut drained = snapshot(3, Some(0), 2, 1_000, "proven");
        drained.backends[1].serving = Serving::Draining { reason: "cordoned".into() };
        history.note(with_term(1, drained), NOBODY, 1_250);
        let gone = snapshot(4, Some(0), 1, 1_000, "proven");
        history.note(with_term(1, gone), NOBODY, 1_300);
        let json = history.to_json();
        assert_eq!(json["doubts"]["last_ms"], 250);
        let roles = json["roles"].as_array().unwrap();
        let steps: Vec<_> =
            roles.iter().rev().map(|r| ["server", "from", "to"].map(|f| r[f].as_str().unwrap().to_owned())).collect();
        assert_eq!(
            steps,
            [
                ["db-0:3306", "none", "primary"],
                ["db-1:3306", "none", "follower"],
                ["db-1:3306", "follower", "draining"],
                ["db-1:3306", "draining", "none"],
            ]
        );
    }
}
