//! Getting sessions off a server that is going, and off one that is the primary no more.
//!
//! A session finds out by itself when its next statement comes. This is for those that have none: an idle session's
//! connection is closed at once, so that the server empties; an open transaction keeps its connection until the deadline
//! and loses it then, even in the middle of a statement, and even if its client never says another word.
//!
//! One task per cluster looks at the sessions when the topology changes, and once in a while as long as a server is being
//! drained. It only nudges; each session acts on its own thread by [`fate`].

use super::balance::Balance;
use super::shared::{Registry, SessionHandle};
use crate::session::Slot;
use crate::topology::{Backend, Serving, Topology, TopologyHandle};
use crate::types::{BackendId, ClusterId, Term};
use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often sessions are looked at while a server is drained: some have only just ended their transaction.
const AGAIN: Duration = Duration::from_millis(500);

/// What is under way on a primary that was deposed may still be answered for so long, if it answers at all: in a planned
/// change it does, and a writer that waits for a silent one would only lose time.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It serves.
    Stay,
    /// It may end what is open on it.
    Leave,
    /// It carries nothing more.
    Cut,
}

/// \[pure\] What is to become of the connection in `slot` that was made to `backend` in `term`.
pub fn fate(topology: &Topology, slot: Slot, backend: BackendId, term: Term) -> Fate {
    let Some(server) = topology.backend(backend) else { return Fate::Cut };
    let deposed = topology.term != term || topology.primary.is_some_and(|primary| primary != backend);
    if slot == Slot::Primary && deposed || slot == Slot::Follower && server.silent {
        return Fate::Cut;
    }
    match server.serving {
        Serving::Yes | Serving::No { .. } => Fate::Stay,
        Serving::Draining { .. } => Fate::Leave,
        Serving::Drained { .. } => Fate::Cut,
    }
}

/// \[pure\] Is the connection to be cut even in the middle of a statement? `late`: the primary changed long enough ago for
/// what was under way to be answered.
pub fn cuts(topology: &Topology, slot: Slot, backend: BackendId, term: Term, late: bool) -> bool {
    let waits_for_answer = |server: &Backend| match server.serving {
        Serving::Yes | Serving::No { .. } | Serving::Draining { .. } => server.answers,
        Serving::Drained { .. } => false,
    };
    let spared = !late && slot == Slot::Primary && topology.backend(backend).is_some_and(waits_for_answer);
    fate(topology, slot, backend, term) == Fate::Cut && !spared
}

/// Wakes one session to look after its connections, and what must be known of them for that.
#[derive(Debug, Default)]
pub struct Nudge {
    /// By slot, the term in which the connection was made.
    terms: [AtomicU64; 2],
    count: AtomicU32,
    /// By slot, the connection that is to be cut: as [`SessionHandle`] keeps it.
    cut: [AtomicU64; 2],
    /// The follower's connection that is to be left for another follower, as the handle keeps it.
    moves: AtomicU64,
    waker: AtomicWaker,
}

impl Nudge {
    /// Notes the term in which the connection in a slot was made; before the connection itself.
    pub fn set_term(&self, slot: Slot, term: Term) {
        self.terms[slot.index()].store(term.0, Ordering::Relaxed);
    }

    /// How often it was given.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Ready when it was given more often than `seen`.
    #[inline]
    pub fn poll(&self, cx: &mut Context<'_>, seen: u32) -> bool {
        self.waker.register(cx.waker());
        self.count() != seen
    }

    /// Ready when `connection`, as the handle keeps it, is to be cut in the middle of a statement.
    #[inline]
    pub fn poll_cut(&self, cx: &mut Context<'_>, slot: usize, connection: u64) -> bool {
        self.waker.register(cx.waker());
        self.cut[slot].load(Ordering::Acquire) == connection && connection != 0
    }

    /// Has the session look after its connections.
    pub fn poke(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.waker.wake();
    }

    /// Is the follower's `connection` to be left for another follower?
    pub fn is_to_move(&self, connection: u64) -> bool {
        connection != 0 && self.moves.load(Ordering::Acquire) == connection
    }

    pub(super) fn move_from(&self, connection: u64) {
        self.moves.store(connection, Ordering::Release);
        self.poke();
    }

    fn give(&self, cut: [u64; 2]) {
        for (slot, connection) in self.cut.iter().zip(cut) {
            slot.store(connection, Ordering::Release);
        }
        self.count.fetch_add(1, Ordering::Release);
        self.waker.wake();
    }
}

/// Looks after the sessions of one cluster until `shutdown`.
pub async fn run(cluster: ClusterId, handle: TopologyHandle, registry: Arc<Registry>, shutdown: CancellationToken) {
    let mut changed = handle.changed();
    let (mut term, mut since) = (handle.snapshot().term, Instant::now());
    let mut balance = Balance::default();
    loop {
        let topology = handle.snapshot();
        if topology.term != term {
            (term, since) = (topology.term, Instant::now());
        }
        let late = since.elapsed() >= LAST_ANSWERS;
        let going = |server: &Backend| match server.serving {
            Serving::Yes | Serving::No { .. } => false,
            Serving::Draining { .. } | Serving::Drained { .. } => true,
        };
        let again = !late || topology.backends.iter().any(going);
        let sessions = registry.of_cluster(cluster);
        for session in &sessions {
            look_after(&topology, session, late);
        }
        let again = balance.look_after(&topology, &sessions) || again;
        let pause = async { if again { tokio::time::sleep(AGAIN).await } else { std::future::pending().await } };
        tokio::select! {
            () = shutdown.cancelled() => return,
            news = changed.changed() => if news.is_err() { return },
            () = pause => {}
        }
    }
}

fn look_after(topology: &Topology, session: &SessionHandle, late: bool) {
    let connections = [Slot::Primary, Slot::Follower].map(|slot| {
        let (backend, _) = session.connection(slot.index())?;
        Some((slot, backend, Term(session.nudge.terms[slot.index()].load(Ordering::Relaxed))))
    });
    let going = |(slot, backend, term)| fate(topology, slot, backend, term) != Fate::Stay;
    if connections.iter().flatten().any(|connection| going(*connection)) {
        session.nudge.give(connections.map(|connection| match connection {
            Some((slot, backend, term)) if cuts(topology, slot, backend, term, late) => {
                session.raw_connection(slot.index())
            }
            _ => 0,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterName, Role};

    #[test]
    fn what_becomes_of_a_connection() {
        let draining = || Serving::Draining { reason: "its pod is cordoned".into() };
        let drained = || Serving::Drained { reason: "its pod is cordoned".into() };
        let silent = || Serving::No { reason: "no answer".into() };
        let lasting = || Serving::No { reason: "no answer for long".into() };
        for (slot, serving, primary, term, expected) in [
            (Slot::Primary, Serving::Yes, Some(0), 1, Fate::Stay),
            (Slot::Primary, draining(), Some(0), 1, Fate::Leave),
            (Slot::Primary, drained(), Some(0), 1, Fate::Cut),
            // Nobody is the primary yet: it may still be this one again.
            (Slot::Primary, silent(), None, 1, Fate::Stay),
            (Slot::Primary, Serving::Yes, Some(1), 2, Fate::Cut),
            (Slot::Primary, Serving::Yes, Some(0), 2, Fate::Cut),
            (Slot::Follower, Serving::Yes, Some(1), 2, Fate::Stay),
            (Slot::Follower, silent(), Some(1), 1, Fate::Stay),
            (Slot::Follower, draining(), Some(1), 1, Fate::Leave),
            (Slot::Follower, drained(), Some(1), 1, Fate::Cut),
            (Slot::Follower, lasting(), Some(1), 1, Fate::Cut),
            // It may be the only one that has all: nobody else can say what became of what runs there.
            (Slot::Primary, lasting(), None, 1, Fate::Stay),
        ] {
            let mut topology = Topology::empty(ClusterName::from("c"));
            let of = |id| Backend::new(BackendId(id), format!("db-{id}").parse().unwrap(), 1);
            let silent = serving == lasting();
            topology.backends =
                vec![Backend { role: Role::Follower, serving: serving.clone(), silent, ..of(0) }, of(1)];
            (topology.primary, topology.term) = (primary.map(BackendId), Term(term));
            assert_eq!(
                fate(&topology, slot, BackendId(0), Term(1)),
                expected,
                "{slot:?} {serving:?} {primary:?} {term}"
            );
            assert_eq!(fate(&topology, slot, BackendId(7), Term(1)), Fate::Cut);
        }
    }

    #[test]
    fn only_a_deposed_primary_that_answers_is_waited_for() {
        let (yes, no) = (|| Serving::Yes, || Serving::No { reason: "read-only, but follows nobody".into() });
        let drained = || Serving::Drained { reason: "its pod is deleting".into() };
        // (which, its serving, answers, the primary changed long ago, cut in the middle of a statement)
        for (slot, serving, answers, late, expected) in [
            (Slot::Primary, yes(), true, false, false),
            (Slot::Primary, no(), true, false, false),
            (Slot::Primary, yes(), true, true, true),
            (Slot::Primary, yes(), false, false, true),
            (Slot::Primary, no(), false, false, true),
            (Slot::Primary, drained(), true, false, true),
            (Slot::Follower, yes(), false, true, false),
            (Slot::Follower, drained(), true, false, true),
        ] {
            let mut topology = Topology::empty(ClusterName::from("c"));
            let of = |id| Backend::new(BackendId(id), format!("db-{id}").parse().unwrap(), 1);
            topology.backends = vec![Backend { serving: serving.clone(), answers, ..of(0) }, of(1)];
            (topology.primary, topology.term) = (Some(BackendId(1)), Term(2));
            let cut = cuts(&topology, slot, BackendId(0), Term(1), late);
            assert_eq!(cut, expected, "{slot:?} {serving:?} answers: {answers} late: {late}");
            assert!(cuts(&topology, slot, BackendId(7), Term(1), false), "a server that is no more");
        }
    }
}
