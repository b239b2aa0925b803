//! Standing by: while there is no primary, a waiting session logs in to who will be it.
//!
//! ```text
//!   waits for a primary ──► heir named ──► logs in ──► the heir is proven ──► the connection is the primary's
//!                             ▲   another is named instead │
//!                             └────────────────────────────┘ another is proven, or nobody in time: closed
//! ```
//!
//! A login is half a dozen round trips and two handshakes' arithmetic; a crowd of them all at once is what a new primary has
//! to do before its first write. Before it may be written it has the time. Nothing is asked on such a connection.
//! Not for sessions that share their connections: those are few, and there already.

use super::ClientSession;
use super::parts::Identity;
use crate::backend::BackendConnection;
use crate::frontend::shared::Cluster;
use crate::metrics;
use crate::session::Slot;
use crate::topology::{Backend, Topology};
use crate::types::{BackendId, Term};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// A connection to the heir in the making; what is made is closed with it.
pub(super) struct Standby {
    heir: Rc<Cell<Option<BackendId>>>,
    login: AbortOnDropHandle<Option<Box<BackendConnection>>>,
}

impl Standby {
    fn is_of_use(&self) -> bool {
        !self.login.is_finished() || self.heir.get().is_some()
    }
}

impl ClientSession {
    /// Begins to stand by, if it doesn't already and needs to.
    pub(super) fn stand_by(&mut self) {
        // What is not known of a session is learned from its first login.
        if self.account.is_some() || self.session.variables.version() == 0 {
            return;
        }
        if self.standby.as_ref().is_some_and(Standby::is_of_use) {
            return;
        }
        let (cluster, identity) = (self.cluster().clone(), self.identity.clone());
        let schema = self.session.schema().map(<[u8]>::to_vec);
        let reads_from = self.follower.as_ref().map(|connection| connection.backend);
        let heir = Rc::new(Cell::new(None));
        let login = follow(cluster, identity, schema, reads_from, Rc::clone(&heir));
        self.standby = Some(Standby { heir, login: AbortOnDropHandle::new(tokio::task::spawn_local(login)) });
    }

    /// Takes the connection that was made for this moment; false if there is none, or to another server.
    pub(super) async fn take_standby(&mut self, primary: BackendId, term: Term, deadline: Instant) -> bool {
        let Some(standby) = self.standby.take().filter(|standby| standby.heir.get() == Some(primary)) else {
            return false;
        };
        let patience = deadline.min(Instant::now() + self.cluster().config.connect_timeout);
        let made = tokio::time::timeout_at(patience, standby.login).await;
        let Ok(Ok(Some(mut connection))) = made else { return false };
        if !connection.channel.is_quiet() {
            return false;
        }
        connection.term = term;
        self.keep(Slot::Primary, connection);
        metrics::standby(&self.cluster().name.0);
        true
    }

    /// The wait is over without a statement to send.
    pub(super) async fn settle_standby(&mut self) {
        let (term, primary) = self.cluster().proven_primary();
        if let (Some(primary), true) = (primary, self.primary.is_none()) {
            self.take_standby(primary.id, term, Instant::now()).await;
        }
        self.standby = None;
    }
}

/// Logs in to each heir as it is named, until somebody is proven; the connection, if it is to that one.
async fn follow(
    cluster: Arc<Cluster>,
    identity: Identity,
    schema: Option<Vec<u8>>,
    reads_from: Option<BackendId>,
    named: Rc<Cell<Option<BackendId>>>,
) -> Option<Box<BackendConnection>> {
    let mut made: Option<Box<BackendConnection>> = None;
    let since_ms = cluster.topology.now_ms();
    let mut changed = cluster.topology.changed();
    loop {
        changed.mark_unchanged();
        let topology = cluster.topology.snapshot();
        if let Some(primary) = is_over(&topology, named.get(), since_ms) {
            return made.filter(|connection| connection.backend == primary);
        }
        let heir = topology.heir.and_then(|id| topology.backend(id)).filter(|heir| Some(heir.id) != reads_from);
        if let Some(heir) = heir.filter(|heir| named.get() != Some(heir.id)) {
            drop(made.take());
            named.set(Some(heir.id));
            made = log_in(&cluster, &identity, schema.as_deref(), heir, topology.term).await;
        } else {
            changed.changed().await.ok()?;
        }
    }
}

/// \[pure\] The primary, if there is one to go on with: the heir itself, whenever it was asked, or one that was proven after
/// the wait began. (What is known at its beginning may be the old primary's last proof.)
fn is_over(topology: &Topology, named: Option<BackendId>, since_ms: u64) -> Option<BackendId> {
    let is_new = topology.proven_ms.is_some_and(|proven| proven > since_ms);
    topology.primary.filter(|primary| is_new || named == Some(*primary))
}

/// A login that failed is not tried again: the session will, once the server is proven.
async fn log_in(
    cluster: &Cluster,
    identity: &Identity,
    schema: Option<&[u8]>,
    heir: &Backend,
    term: Term,
) -> Option<Box<BackendConnection>> {
    let place = cluster.place(heir)?;
    let _turn = cluster.login_turn(heir.id).await?;
    let credential = identity.credential.open();
    let login = identity.login(&credential, schema);
    let target = cluster.target(&heir.address, identity.secure);
    let opened = BackendConnection::open(&target, &login, heir.id, term, place).await;
    opened.ok().map(|(connection, ..)| Box::new(connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_over_when_the_heir_is_proven_even_if_it_was_asked_before() {
        let (old, heir) = (BackendId(1), BackendId(2));
        // The primary and when it was asked; who was logged in to; is it over for a wait since 100?
        for (primary, asked_ms, named, expected) in [
            (None, 0, Some(heir), None),
            (Some(old), 99, None, None),
            (Some(old), 99, Some(heir), None),
            (Some(old), 101, Some(heir), Some(old)),
            (Some(heir), 101, Some(heir), Some(heir)),
            // Its proof was on its way when the wait began, and nothing changes any more after that.
            (Some(heir), 99, Some(heir), Some(heir)),
            (Some(heir), 100, Some(heir), Some(heir)),
        ] {
            let proven_ms = primary.map(|_| asked_ms);
            let topology = Topology { primary, proven_ms, ..Topology::empty("c".into()) };
            assert_eq!(is_over(&topology, named, 100), expected, "{primary:?} {asked_ms} {named:?}");
        }
    }
}
