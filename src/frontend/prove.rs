//! Where a client's login leads, and its proof: a login to a server there with the client's own credential, kept for the
//! session.

use super::facade::ServerFacade;
use super::gate::{Gate, Listener, UserPlace};
use super::login::{Destination, Prove, ProveError};
use super::route::Asked;
use super::shared::Cluster;
use crate::backend::{BackendConnection, ConnectError, LoginRequest};
use crate::error::{ClientError, ErrorKind};
use crate::metrics;
use crate::routing::Mode;
use crate::session::Slot;
use crate::topology::{Backend, Hint};
use crate::types::{ClusterName, Term};
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

/// Finds the way of one client's login and proves it there.
pub struct Prover {
    listener: Arc<Listener>,
    greeting: ServerFacade,
    mode: Mode,
    stays: Option<ClusterName>,
    /// The way, once it is found, and what the cluster's servers are.
    pub way: Option<(Gate, ServerFacade)>,
    /// The place among the user's sessions, from the first proof on.
    pub user_place: Option<UserPlace>,
    /// The last proof.
    pub proof: Option<Proof>,
}

impl Prover {
    /// A prover for a client of `listener` that was greeted with `greeting`.
    pub fn new(listener: &Arc<Listener>, greeting: ServerFacade, mode: Mode) -> Self {
        let listener = Arc::clone(listener);
        Self { listener, greeting, mode, stays: None, way: None, user_place: None, proof: None }
    }

    /// For a session that changes its user: it stays where it is if the new name does not say otherwise.
    pub fn staying(mut self, cluster: &ClusterName) -> Self {
        self.stays = Some(cluster.clone());
        self
    }

    async fn open(
        &mut self,
        cluster: &Arc<Cluster>,
        login: &LoginRequest<'_>,
        (slot, server, term): (Slot, &Backend, Term),
    ) -> Result<Bytes, ConnectError> {
        let place = cluster.place(server).ok_or_else(|| {
            ConnectError::Protocol(format!("backend_connections_max is reached for {}", server.address))
        })?;
        let limit = cluster.config.hold_max;
        let turn = tokio::time::timeout(limit, cluster.login_turn(server.id)).await;
        let Some(_turn) = turn.map_err(|_| ConnectError::Timeout(limit))? else { return Err(ConnectError::Overtaken) };
        let target = cluster.target(&server.address, login.capabilities.has(Capabilities::SSL));
        let opened = BackendConnection::open(&target, login, server.id, term, place).await;
        metrics::backend_connect(&cluster.name.0, &server.address.to_string(), opened.is_ok());
        let (connection, ok, setup) = opened?;
        self.proof = Some(Proof { slot, connection, ok: ok.clone(), setup });
        Ok(ok)
    }

    fn candidate(&self, gate: &Gate) -> Option<(Slot, Backend, Term)> {
        if self.mode == Mode::Followers
            && let Some((follower, term)) = gate.choose_follower(&[])
        {
            return Some((Slot::Follower, follower, term));
        }
        let (term, primary) = gate.cluster.proven_primary();
        Some((Slot::Primary, primary?, term))
    }

    fn take_place(&mut self, user: &[u8], cluster: &ClusterName) -> Result<(), ClientError> {
        if self.user_place.is_none() {
            let Some(place) = self.listener.user_place(user, cluster) else {
                let message = format!(
                    "User '{}' has exceeded the 'max_connections_per_user' resource of listener {}",
                    String::from_utf8_lossy(user),
                    self.listener.config.name
                );
                return Err(ClientError::new(ErrorKind::TooManyUserConnections, message));
            };
            self.user_place = Some(place);
        }
        Ok(())
    }
}

impl Prove for Prover {
    async fn route(&mut self, asked: Asked<'_>, capabilities: Capabilities) -> Result<Destination, ClientError> {
        let (cluster, user) = self.listener.find(asked, self.stays.as_ref())?;
        let facade = self.listener.check(&cluster, &self.greeting, capabilities).await?;
        let gate = self.listener.gate(cluster);
        let accounts = Arc::clone(&gate.accounts);
        self.way = Some((gate, facade));
        Ok(Destination { accounts, user: user.to_vec() })
    }

    async fn prove(&mut self, login: &LoginRequest<'_>) -> Result<Bytes, ProveError> {
        let Some((gate, _)) = self.way.clone() else {
            return Err(ClientError::new(ErrorKind::UnknownCluster, "holdfast: this login has no cluster").into());
        };
        let cluster = Arc::clone(&gate.cluster);
        self.take_place(login.user, &cluster.name)?;
        let deadline = Instant::now() + cluster.config.hold_max;
        loop {
            let mut changed = cluster.topology.changed();
            changed.mark_unchanged();
            let mut until = deadline;
            if let Some((slot, server, term)) = self.candidate(&gate) {
                match self.open(&cluster, login, (slot, &server, term)).await {
                    Err(ConnectError::Overtaken) => continue,
                    Err(ConnectError::Unreachable(_) | ConnectError::Timeout(_)) => {
                        cluster.topology.suspect(server.id, Hint::ConnectFailed);
                        until = deadline.min(Instant::now() + AGAIN);
                    }
                    done => return done.map_err(ProveError::from),
                }
            }
            let late = tokio::select! {
                changed = timeout_at(until, changed.changed()) => changed.is_err(),
                () = cluster.gone.cancelled() => return Err(cluster_gone(&cluster).into()),
            };
            if late && Instant::now() >= deadline {
                let message =
                    format!("holdfast: cluster {} has no proven primary to log in to; retry later", cluster.name);
                return Err(ClientError::new(ErrorKind::NoBackend, message).into());
            }
        }
    }
}

/// What clients of a cluster that is served no more are told.
pub fn cluster_gone(cluster: &Cluster) -> ClientError {
    let message = format!("holdfast: cluster '{}' is not served here any more; the connection ends", cluster.name);
    ClientError::new(ErrorKind::ClusterGone, message)
}
