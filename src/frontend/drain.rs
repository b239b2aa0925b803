//! Getting sessions off a server that is going, and off one that is the primary no more.
//!
//! A session finds out by itself when its next statement comes. This is for those that have none: an idle session's
//! connection is closed at once, so that the server empties; an open transaction keeps its connection until the deadline
//! and loses it then, even in the middle of a statement, and even if its client never says another word.
//!
//! One task per cluster looks at the sessions when the topology changes, and once in a while as long as a server is being
//! drained. It only nudges; each session acts on its own thread by [`fate`].

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

/// What is under way on a primary that was deposed may still be answered for so long: in a planned change it is.
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
    if slot == Slot::Primary && deposed {
        return Fate::Cut;
    }
    match server.serving {
        Serving::Yes | Serving::No { .. } => Fate::Stay,
        Serving::Draining { .. } => Fate::Leave,
        Serving::Drained { .. } => Fate::Cut,
    }
}

/// Wakes one session to look after its connections, and what must be known of them for that.
#[derive(Debug, Default)]
pub struct Nudge {
    /// By slot, the term in which the connection was made.
    terms: [AtomicU64; 2],
    count: AtomicU32,
    /// By slot, the connection that is to be cut: as [`SessionHandle`] keeps it.
    cut: [AtomicU64; 2],
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
    loop {
        let topology = handle.snapshot();
        if topology.term != term {
            (term, since) = (topology.term, Instant::now());
        }
        let answering = since.elapsed() < LAST_ANSWERS;
        let going = |server: &Backend| match server.serving {
            Serving::Yes | Serving::No { .. } => false,
            Serving::Draining { .. } | Serving::Drained { .. } => true,
        };
        let again = answering || topology.backends.iter().any(going);
        for session in registry.of_cluster(cluster) {
            look_after(&topology, &session, answering);
        }
        let pause = async { if again { tokio::time::sleep(AGAIN).await } else { std::future::pending().await } };
        tokio::select! {
            () = shutdown.cancelled() => return,
            news = changed.changed() => if news.is_err() { return },
            () = pause => {}
        }
    }
}

/// `answering`: what is under way on a deposed primary is not cut yet.
fn look_after(topology: &Topology, session: &SessionHandle, answering: bool) {
    let fates = [Slot::Primary, Slot::Follower].map(|slot| {
        let (backend, _) = session.connection(slot.index())?;
        Some(fate(topology, slot, backend, Term(session.nudge.terms[slot.index()].load(Ordering::Relaxed))))
    });
    if fates.iter().flatten().any(|fate| *fate != Fate::Stay) {
        let spared = |slot: usize| {
            let (backend, _) = session.connection(slot)?;
            Some(answering && slot == Slot::Primary.index() && may_answer(topology.backend(backend)?))
        };
        let is_cut = |slot: usize| fates[slot] == Some(Fate::Cut) && spared(slot) != Some(true);
        let cut = [0, 1].map(|slot| if is_cut(slot) { session.raw_connection(slot) } else { 0 });
        session.nudge.give(cut);
    }
}

fn may_answer(server: &Backend) -> bool {
    match server.serving {
        Serving::Yes | Serving::No { .. } | Serving::Draining { .. } => true,
        Serving::Drained { .. } => false,
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
        ] {
            let mut topology = Topology::empty(ClusterName::from("c"));
            let of = |id| Backend::new(BackendId(id), format!("db-{id}").parse().unwrap(), 1);
            topology.backends = vec![Backend { role: Role::Follower, serving: serving.clone(), ..of(0) }, of(1)];
            (topology.primary, topology.term) = (primary.map(BackendId), Term(term));
            assert_eq!(
                fate(&topology, slot, BackendId(0), Term(1)),
                expected,
                "{slot:?} {serving:?} {primary:?} {term}"
            );
            assert_eq!(fate(&topology, slot, BackendId(7), Term(1)), Fate::Cut);
        }
    }
}
