//! KILL and COM_PROCESS_KILL by the id a client knows: the proxy's own, behind which stand up to two server connections.
//!
//! The server decides who may kill whom: the KILL runs there, on a connection of its own, under the killer's account.

use super::{ClientSession, End, Incoming};
use crate::backend::{BackendConnection, BringError};
use crate::classify::Flavor;
use crate::error::{ClientError, ErrorKind};
use crate::frontend::shared::SessionHandle;
use crate::routing::Mode;
use crate::session::Slot;
use crate::types::{BackendId, SessionId};
use crate::wire::command::Command;
use crate::wire::err::ErrPacket;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// ER_QUERY_INTERRUPTED: what a server answers to KILL of one's own connection.
const INTERRUPTED: ErrPacket<'static> =
    ErrPacket { code: 1317, state: *b"70100", message: b"Query execution was interrupted" };

/// ER_CONNECTION_KILLED: MariaDB's word for it.
const WAS_KILLED: ErrPacket<'static> = ErrPacket { code: 1927, state: *b"70100", message: b"Connection was killed" };

impl ClientSession {
    /// The session of this cluster that `id` names, if it is one of the proxy's. A smaller id is one of the primary's own, as
    /// CONNECTION_ID() and its process list tell them: the session that has that connection is meant, wherever its
    /// statement runs.
    pub(super) fn find_session(&self, id: u64) -> Option<Arc<SessionHandle>> {
        let id = u32::try_from(id).ok()?;
        let cluster = self.cluster().id;
        if id >= SessionId::FIRST {
            // Another cluster's server would be asked to kill a stranger.
            return self.around.registry.find(SessionId(id)).filter(|session| session.is_of(cluster));
        }
        let primary = self.cluster().topology.load().primary.filter(|_| self.mode != Mode::Followers)?;
        self.around.registry.find_by_connection(cluster, primary, id)
    }

    /// COM_PROCESS_KILL.
    pub(super) async fn process_kill(&mut self, incoming: Incoming) -> Result<(), End> {
        let id = self.payload(incoming).get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        match id.and_then(|id| self.find_session(u64::from(id))) {
            Some(target) => {
                self.skip(incoming).await?;
                self.kill(target, false).await
            }
            None => self.pass(incoming, Command::ProcessKill).await,
        }
    }

    /// Kills the statement, or the connection, of another session, or this one's own.
    pub(super) async fn kill(&mut self, target: Arc<SessionHandle>, query: bool) -> Result<(), End> {
        if target.id == self.handle.id {
            let mariadb = matches!(self.session.dialect().flavor, Flavor::MariaDb { .. });
            let err = if mariadb && !query { WAS_KILLED } else { INTERRUPTED };
            self.reply(&err.payload(), 1).await?;
            return if query { Ok(()) } else { Err(End::Killed) };
        }
        let connections: Vec<_> = if query {
            target.executing().into_iter().collect()
        } else {
            [Slot::Primary, Slot::Follower].iter().filter_map(|s| target.connection(s.index())).collect()
        };
        if !query && connections.is_empty() {
            let message = format!("You are not owner of thread {}", target.id.0);
            return self
                .reply(&ErrPacket { code: 1095, state: *b"HY000", message: message.as_bytes() }.payload(), 1)
                .await;
        }
        // The server closes the victim's connection before it answers here.
        target.doomed.store(!query, Ordering::Relaxed);
        for (backend, thread) in connections {
            let sql = if query { format!("KILL QUERY {thread}") } else { format!("KILL {thread}") };
            match Box::pin(self.kill_on(backend, &sql)).await {
                // Gone already: that is what was asked for (ER_NO_SUCH_THREAD).
                Ok(()) | Err(BringError::Refused { errno: 1094, .. }) => {}
                Err(BringError::Refused { errno, message }) => {
                    target.doomed.store(false, Ordering::Relaxed);
                    let err = ErrPacket { code: errno, state: *b"HY000", message: message.as_bytes() };
                    return self.reply(&err.payload(), 1).await;
                }
                Err(error) => {
                    target.doomed.store(false, Ordering::Relaxed);
                    let message = format!("holdfast: KILL could not be brought to the server: {error}");
                    return self.refuse(&ClientError::new(ErrorKind::NoBackend, message), 1).await;
                }
            }
        }
        if !query {
            target.kill.cancel();
        }
        self.ok().await
    }

    async fn kill_on(&mut self, backend: BackendId, sql: &str) -> Result<(), BringError> {
        let cluster = self.cluster().clone();
        let (server, term) = {
            let topology = cluster.topology.load();
            let server = topology.backend(backend).cloned();
            (server.ok_or_else(|| BringError::Broken("the server is gone".to_owned()))?, topology.term)
        };
        let place = cluster.place(&server).ok_or_else(|| BringError::Broken("no connection is free".to_owned()))?;
        let credential = self.identity.credential.open();
        let login = self.identity.login(&credential, None);
        let opened = BackendConnection::open(
            &cluster.target(&server.address, self.identity.secure),
            &login,
            backend,
            term,
            place,
        )
        .await;
        let (mut connection, _, _) = opened.map_err(|e| BringError::Broken(e.to_string()))?;
        connection.statement(sql).await.map(drop)
    }
}
