//! Sharing connections: what is borrowed for a statement, kept while nobody else wants it, and given back between
//! transactions when somebody does (`sharing = "transaction"`).
//!
//! ```text
//!  statement ──► has one? ──yes──► brought to the session's state ──► answered ──► kept
//!                  │ no                                                             │ somebody waits, now or later
//!                  └─► borrowed: used before | a place for a new one | waits        └─► what it leaves is noted, given back
//! ```
//!
//! Bound to its connection is a session inside a transaction, with a pin, with a cursor or long data, with a one-shot SET
//! TRANSACTION, or with a variable that only means something where it was set (`gtid_next`). While it waits for one
//! connection it holds no other that it can do without: no two sessions wait for each other.

use super::parts::Identity;
use super::remains::Remains;
use super::{ClientSession, End};
use crate::backend::{BackendConnection, Borrowed, ConnectError, Counted, Shelved};
use crate::classify::{Class, Classified, Flags};
use crate::config::{ListenerConfig, Sharing};
use crate::frontend::pools::{Account, counted};
use crate::frontend::prove::exhausted;
use crate::metrics;
use crate::relay::Said;
use crate::session::Slot;
use crate::topology::{Backend, Hint};
use crate::types::Term;
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use tokio::time::Instant;

/// What was borrowed.
pub(super) enum Lent {
    /// A connection, which is in its slot.
    Connection,
    /// A place for a new one.
    Place(Counted),
}

/// Why there is none.
pub(super) enum NoConnection {
    /// The server's reason, or the proxy's.
    Error(ConnectError),
    /// The session ends.
    End(End),
}

impl From<ConnectError> for NoConnection {
    fn from(error: ConnectError) -> Self {
        Self::Error(error)
    }
}

impl From<End> for NoConnection {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// Whose connections a session may share.
pub(super) fn account(config: &ListenerConfig, identity: &Identity) -> Option<Account> {
    if config.sharing == Sharing::Off {
        return None;
    }
    let credential = identity.credential.open();
    Account::new(&identity.login(&credential, None), config.exactly_once)
}

/// Does LAST_INSERT_ID() matter to what is run? To a plain read it doesn't; what writes may run a trigger that asks for it.
pub(super) fn inserts(statement: Classified) -> bool {
    let plain = matches!(
        statement.class,
        Class::Read
            | Class::Begin { .. }
            | Class::Commit { .. }
            | Class::Rollback { .. }
            | Class::Savepoint
            | Class::Use
            | Class::Set
            | Class::Diagnostics
            | Class::Empty
    );
    !plain || statement.flags.contains(Flags::LAST_INSERT_ID)
}

/// May LAST_INSERT_ID() be another one than before, or than what was told?
pub(super) fn leaves_insert_id(statement: Classified, said: &Said) -> bool {
    let unseen = matches!(statement.class, Class::Call | Class::Execute | Class::Multi | Class::LoadDataLocal);
    said.insert_id != 0 || unseen || statement.flags.contains(Flags::LAST_INSERT_ID)
}

impl ClientSession {
    /// Borrows a connection to `backend`, or a place for one. Waits in line until `deadline`.
    pub(super) async fn borrow(
        &mut self,
        slot: Slot,
        backend: &Backend,
        term: Term,
        deadline: Instant,
    ) -> Result<Lent, NoConnection> {
        let cluster = self.cluster().clone();
        let full = || ConnectError::Protocol("backend_connections_max is reached".to_owned());
        let Some(account) = self.account.clone() else {
            return Ok(Lent::Place(cluster.place(backend).ok_or_else(full)?));
        };
        let account = account.in_schema(self.session.schema().is_some());
        if self.is_spare(slot.other()) {
            self.give_back(slot.other()).await;
        }
        let shelf = self.around.pools.shelf(&cluster, backend.id);
        let borrowed = {
            let Self { client, kill, .. } = self;
            let mut line = pin!(shelf.borrow(&account, false, deadline.into()));
            let (mut watch_client, mut waiting) = (true, None);
            poll_fn(|cx| {
                if let Poll::Ready(borrowed) = line.as_mut().poll(cx) {
                    let result = match (&borrowed, &waiting) {
                        (Err(_), _) => "none",
                        (Ok(_), Some(_)) => "waited",
                        (Ok(Borrowed::Used(_)), None) => "used",
                        (Ok(Borrowed::Place(_)), None) => "new",
                    };
                    metrics::shared_borrow(&cluster.name.0, result);
                    return Poll::Ready(Ok(borrowed));
                }
                waiting.get_or_insert_with(|| metrics::shared_waiting(&cluster.name.0));
                if kill.poll(cx).is_ready() {
                    return Poll::Ready(Err(End::Killed));
                }
                if watch_client {
                    match client.poll_gone(cx) {
                        Poll::Ready(true) => return Poll::Ready(Err(End::ClientGone)),
                        Poll::Ready(false) => watch_client = false,
                        Poll::Pending => {}
                    }
                }
                Poll::Pending
            })
            .await
        };
        match borrowed? {
            Ok(Borrowed::Place(place)) => Ok(Lent::Place(counted(&cluster, backend, place).ok_or_else(full)?)),
            Ok(Borrowed::Used(mut connection)) => {
                connection.term = term;
                self.keep(slot, connection);
                Ok(Lent::Connection)
            }
            Err(_) => Err(exhausted(&cluster, backend).into()),
        }
    }

    /// Could it do without one of its connections?
    pub(super) fn has_spare(&self) -> bool {
        self.is_spare(Slot::Primary) || self.is_spare(Slot::Follower)
    }

    /// Could it do without the connection in `slot`?
    pub(super) fn is_spare(&self, slot: Slot) -> bool {
        let connection = match slot {
            Slot::Primary => &self.primary,
            Slot::Follower => &self.follower,
        };
        connection.as_ref().is_some_and(|connection| connection.place().is_some())
            && !self.is_bound(slot)
            && !self.session.one_shot_perhaps()
            && !self.doubtful
            && !self.session.is_local()
            && self.owed.is_empty()
            && !self.remains.stay()
            && !self.session.statements.is_held()
    }

    /// Gives back what somebody else waits for.
    pub(super) async fn give_back_waited_for(&mut self) {
        for slot in [Slot::Primary, Slot::Follower] {
            let waited = self.slot(slot).as_ref().is_some_and(|connection| connection.is_waited_for());
            if waited && self.is_spare(slot) {
                Box::pin(self.give_back(slot)).await;
            }
        }
    }

    /// The session ends: what others can use is theirs.
    pub(super) async fn give_all_back(&mut self) {
        self.remains = Remains::default();
        for slot in [Slot::Primary, Slot::Follower] {
            if self.is_spare(slot) {
                self.give_back(slot).await;
            }
        }
    }

    /// Who the client is has changed, and with that whose connections it may share.
    pub(super) fn share_anew(&mut self) {
        self.account = account(&self.around.inside.gate.listener.config, &self.identity);
        (self.remains, self.doubtful) = (Remains::default(), false);
    }

    /// Gives the connection in `slot` back. What is still to be asked there is asked before; if that fails it is closed.
    pub(super) async fn give_back(&mut self, slot: Slot) {
        match self.ask_what_is_left(slot).await {
            Some(true) => {}
            Some(false) => return,
            None => {
                self.drop_connection(slot, Some(Hint::ConnectionLost));
                return;
            }
        }
        let Some(account) = self.account.clone() else { return };
        let Some(mut connection) = self.slot(slot).take() else { return };
        self.handle.set_connection(slot.index(), None);
        self.remains.gone(connection.epoch);
        let apart = connection.handles.take_apart();
        connection.leave(&self.session);
        if connection.close_statements(&apart).await.is_ok() {
            let shelf = self.around.pools.shelf(&self.around.inside.gate.cluster, connection.backend);
            let account = account.in_schema(connection.schema().is_some());
            shelf.give_back(account, connection);
        }
    }

    /// Asks what only this connection knows of the session's state: false if that is too much to take along, none if it
    /// does not answer.
    async fn ask_what_is_left(&mut self, slot: Slot) -> Option<bool> {
        // First of all: any other question wipes it away.
        if !self.ask_remains(slot).await? {
            return Some(false);
        }
        if self.session.variables.collation_unknown() == Some(slot) {
            self.ask_collation(slot).await;
        }
        if slot == Slot::Primary && self.session.is_insert_id_doubted() {
            self.learn_insert_id(slot).await?;
        }
        Some(true)
    }

    /// Asks what LAST_INSERT_ID() is; none if it does not answer.
    pub(super) async fn learn_insert_id(&mut self, slot: Slot) -> Option<()> {
        if self.account.is_some() {
            self.leave_remains(slot).await;
        }
        let connection = self.slot(slot).as_mut()?;
        let id = insert_id(connection).await?;
        connection.has_insert_id(id);
        self.session.learn_insert_id(id);
        Some(())
    }
}

async fn insert_id(connection: &mut BackendConnection) -> Option<u64> {
    let row = connection.row(b"SELECT LAST_INSERT_ID()").await.ok()?;
    let value: Bytes = row.into_iter().next().flatten()?;
    std::str::from_utf8(&value).ok()?.parse().ok()
}
