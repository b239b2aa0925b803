//! How a session comes by a connection: borrowed, opened, or adopted from the other slot.

use super::ClientSession;
use super::share::{Lent, NoConnection};
use crate::backend::{BackendConnection, ConnectError, observe};
use crate::session::{Session, Slot};
use crate::topology::Backend;
use crate::types::{BackendId, Term};
use tokio::time::Instant;

impl ClientSession {
    /// The server that the session reads from is the primary now: that connection becomes the primary's, without a login.
    pub(super) fn adopt(&mut self, primary: BackendId, term: Term) -> bool {
        let held = self.session.transaction().is_some() || !self.owed.is_empty() || self.session.statements.is_held();
        let reads_there = self.follower.as_mut().is_some_and(|c| c.backend == primary && c.channel.is_quiet());
        if held || !reads_there {
            return false;
        }
        let Some(mut connection) = self.follower.take() else { return false };
        self.handle.set_connection(Slot::Follower.index(), None);
        connection.term = term;
        self.session.follower_became_primary();
        self.keep(Slot::Primary, connection);
        true
    }

    /// Connects `slot` to `backend` as the client.
    pub(super) async fn connect(
        &mut self,
        slot: Slot,
        backend: &Backend,
        term: Term,
        deadline: Instant,
    ) -> Result<(), NoConnection> {
        let cluster = self.cluster().clone();
        let place = match self.borrow(slot, backend, term, deadline).await? {
            Lent::Connection => return Ok(()),
            Lent::Place(place) => place,
        };
        let began = Instant::now();
        let turn = tokio::time::timeout_at(deadline, cluster.login_turn(backend.id)).await;
        let Some(_turn) = turn.map_err(|_| ConnectError::Timeout(self.around.inside.gate.hold_max()))? else {
            return Err(ConnectError::Overtaken.into());
        };
        let waited_us = began.elapsed().as_micros() as u64;
        let credential = self.identity.credential.open();
        let login = self.identity.login(&credential, self.session.schema());
        let target = cluster.target(&backend.address, self.identity.secure);
        let (mut connection, ok, setup) = BackendConnection::open(&target, &login, backend.id, term, place).await?;
        let took_us = began.elapsed().as_micros() as u64 - waited_us;
        tracing::debug!(session = self.handle.id.0, server = %backend.address, ?slot, waited_us, took_us, "logged in");
        if slot == Slot::Primary && self.session.variables.version() == 0 {
            self.session.begin(|session| learn(session, slot, Some(&ok), setup.as_deref()));
            connection.is_current(&self.session, slot);
        }
        self.keep(slot, Box::new(connection));
        Ok(())
    }
}

/// Tells a new session what its first connection's login and set-up said.
pub(super) fn learn(session: &mut Session, slot: Slot, ok: Option<&[u8]>, setup: Option<&[u8]>) {
    if let Some(ok) = ok {
        observe(session, slot, ok);
    }
    if let Some(setup) = setup {
        observe(session, slot, setup);
    }
}
