//! The proof of a client's login: a login to a server with the client's own credential, kept for the session.

use super::login::{Prove, ProveError};
use super::shared::{Listener, UserPlace};
use crate::backend::{BackendConnection, ConnectError, LoginRequest};
use crate::error::{ClientError, ErrorKind};
use crate::metrics;
use crate::routing::Mode;
use crate::session::Slot;
use crate::topology::{Backend, Hint};
use crate::types::Term;
use crate::wire::capabilities::Capabilities;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a server that takes no connection is left alone, if the topology says nothing new meanwhile.
const AGAIN: Duration = Duration::from_millis(20);

/// What the proof leaves for the session.
pub struct Proof {
    /// Where the connection belongs.
    pub slot: Slot,
    /// The connection.
    pub connection: BackendConnection,
    /// The login's OK payload.
    pub ok: Bytes,
    /// The set-up's OK payload; none where an expired password allows nothing.
    pub setup: Option<Bytes>,
}

/// Proves logins of one client against its listener's cluster.
pub struct Prover {
    listener: Arc<Listener>,
    mode: Mode,
    /// The place among the user's sessions, from the first proof on.
    pub user_place: Option<UserPlace>,
    /// The last proof.
    pub proof: Option<Proof>,
}

impl Prover {
    /// A prover for a client of `listener`; a session that has its place already passes it on.
    pub fn new(listener: &Arc<Listener>, mode: Mode) -> Self {
        Self { listener: Arc::clone(listener), mode, user_place: None, proof: None }
    }

    async fn open(
        &mut self,
        login: &LoginRequest<'_>,
        slot: Slot,
        server: &Backend,
        term: Term,
    ) -> Result<Bytes, ConnectError> {
        let cluster = &self.listener.cluster;
        let place = cluster.place(server).ok_or_else(|| {
            ConnectError::Protocol(format!("backend_connections_max is reached for {}", server.address))
        })?;
        let target = cluster.target(&server.address, login.capabilities.has(Capabilities::SSL));
        let opened = BackendConnection::open(&target, login, server.id, term, place).await;
        metrics::backend_connect(&cluster.name.0, &server.address.to_string(), opened.is_ok());
        let (connection, ok, setup) = opened?;
        self.proof = Some(Proof { slot, connection, ok: ok.clone(), setup });
        Ok(ok)
    }

    fn candidate(&self) -> Option<(Slot, Backend, Term)> {
        if self.mode == Mode::Followers
            && let Some((follower, term)) = self.listener.choose_follower(&[])
        {
            return Some((Slot::Follower, follower, term));
        }
        let (term, primary) = self.listener.cluster.proven_primary();
        Some((Slot::Primary, primary?, term))
    }
}

impl Prove for Prover {
    async fn prove(&mut self, login: &LoginRequest<'_>) -> Result<Bytes, ProveError> {
        if self.user_place.is_none() {
            let Some(place) = self.listener.user_place(login.user) else {
                let message = format!(
                    "User '{}' has exceeded the 'max_connections_per_user' resource of listener {}",
                    String::from_utf8_lossy(login.user),
                    self.listener.config.name
                );
                return Err(ClientError::new(ErrorKind::TooManyUserConnections, message).into());
            };
            self.user_place = Some(place);
        }
        let cluster = Arc::clone(&self.listener.cluster);
        let deadline = Instant::now() + cluster.config.hold_max;
        loop {
            let mut changed = cluster.topology.changed();
            changed.mark_unchanged();
            let mut until = deadline;
            if let Some((slot, server, term)) = self.candidate() {
                match self.open(login, slot, &server, term).await {
                    Err(ConnectError::Unreachable(_) | ConnectError::Timeout(_)) => {
                        cluster.topology.suspect(server.id, Hint::ConnectFailed);
                        until = deadline.min(Instant::now() + AGAIN);
                    }
                    done => return done.map_err(ProveError::from),
                }
            }
            if timeout_at(until, changed.changed()).await.is_err() && Instant::now() >= deadline {
                let message =
                    format!("holdfast: cluster {} has no proven primary to log in to; retry later", cluster.name);
                return Err(ClientError::new(ErrorKind::NoBackend, message).into());
            }
        }
    }
}
