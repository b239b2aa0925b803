//! Where a client's login leads, and its proof: a login to a server there with the client's own credential, kept for the
//! session.

use super::facade::ServerFacade;
use super::gate::{Gate, Listener, UserPlace};
use super::login::{Destination, Prove, ProveError};
use super::pools::{Account, Pools, counted};
use super::route::Asked;
use super::shared::Cluster;
use crate::backend::{BackendConnection, Borrowed, BringError, ConnectError, LoginRequest};
use crate::config::Sharing;
use crate::error::{ClientError, ErrorKind};
use crate::metrics;
use crate::routing::Mode;
use crate::session::Slot;
use crate::topology::{Backend, Hint};
use crate::types::{ClusterName, Term};
use crate::wire::capabilities::Capabilities;
use crate::wire::err::ErrPacket;
use crate::wire::ok::OkPacket;
use crate::wire::session_track::STATUS_AUTOCOMMIT;
use bytes::Bytes;
use std::rc::Rc;
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
    pub connection: Box<BackendConnection>,
    /// The login's OK payload; none if the connection had logged in before.
    pub ok: Option<Bytes>,
    /// The set-up's OK payload; none where an expired password allows nothing.
    pub setup: Option<Bytes>,
}

/// Finds the way of one client's login and proves it there.
pub struct Prover {
    listener: Arc<Listener>,
    greeting: ServerFacade,
    mode: Mode,
    pools: Rc<Pools>,
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
    pub fn new(listener: &Arc<Listener>, greeting: ServerFacade, mode: Mode, pools: &Rc<Pools>) -> Self {
        let listener = Arc::clone(listener);
        let pools = Rc::clone(pools);
        Self { listener, greeting, mode, pools, stays: None, way: None, user_place: None, proof: None }
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
        let mut place = None;
        let account = self.account(login);
        let shelf = account.as_ref().map(|_| self.pools.shelf(cluster, server.id));
        if let Some((shelf, account)) = shelf.as_ref().zip(account.as_ref()) {
            let deadline = Instant::now() + cluster.config.hold_max;
            match shelf.borrow(account, !shelf.is_proven(account), deadline.into()).await {
                Ok(Borrowed::Used(shared)) => return self.open_shared(shared, login, slot, term).await,
                Ok(Borrowed::Place(vacant)) => place = Some(vacant),
                Err(_) => return Err(exhausted(cluster, server)),
            }
        }
        let counted = match place {
            Some(place) => counted(cluster, server, place),
            None => cluster.place(server),
        };
        let counted = counted.ok_or_else(|| {
            ConnectError::Protocol(format!("backend_connections_max is reached for {}", server.address))
        })?;
        let limit = cluster.config.hold_max;
        let turn = tokio::time::timeout(limit, cluster.login_turn(server.id)).await;
        let Some(_turn) = turn.map_err(|_| ConnectError::Timeout(limit))? else { return Err(ConnectError::Overtaken) };
        let target = cluster.target(&server.address, login.capabilities.has(Capabilities::SSL));
        let opened = BackendConnection::open(&target, login, server.id, term, counted).await;
        metrics::backend_connect(&cluster.name.0, &server.address.to_string(), opened.is_ok());
        let (connection, ok, setup) = opened?;
        if let Some((shelf, account)) = shelf.zip(account) {
            shelf.proven(&account);
        }
        let connection = Box::new(connection);
        self.proof = Some(Proof { slot, connection, ok: Some(ok.clone()), setup });
        Ok(ok)
    }

    /// Whose connections the client may share, on a listener where that is done.
    fn account(&self, login: &LoginRequest<'_>) -> Option<Account> {
        let config = &self.listener.config;
        (config.sharing == Sharing::Transaction).then(|| Account::new(login, config.exactly_once)).flatten()
    }

    /// A connection of the same account proves the login; only the schema is the server's to judge.
    async fn open_shared(
        &mut self,
        mut connection: Box<BackendConnection>,
        login: &LoginRequest<'_>,
        slot: Slot,
        term: Term,
    ) -> Result<Bytes, ConnectError> {
        connection.term = term;
        if let Some(schema) = login.database.filter(|schema| !schema.is_empty())
            && connection.schema() != Some(schema)
        {
            match connection.use_schema(schema).await {
                Ok(()) => {}
                Err(BringError::Refused { errno, message }) => {
                    let err = ErrPacket { code: errno, state: *b"42000", message: message.as_bytes() };
                    return Err(ConnectError::Refused(err.payload()));
                }
                Err(error) => return Err(ConnectError::Unreachable(std::io::Error::other(error.to_string()))),
            }
        }
        let setup = connection.setup.clone();
        self.proof = Some(Proof { slot, connection, ok: None, setup });
        let (header, status) = (crate::wire::ok::HEADER, STATUS_AUTOCOMMIT);
        Ok(OkPacket { header, affected_rows: 0, last_insert_id: 0, status, warnings: 0, tail: b"" }.payload())
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
        let deadline = Instant::now() + gate.hold_max();
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

/// All shared connections to a server are in use, and none was given back in time.
pub fn exhausted(cluster: &Cluster, server: &Backend) -> ConnectError {
    let (max, address) = (cluster.config.shared.connections_max, &server.address);
    ConnectError::Exhausted(format!(
        "holdfast: no connection to {address} was free in time, all of shared_connections_max = {max} are in use (open \
         transactions, statements under way, or sessions bound to theirs); retry"
    ))
}

/// What clients of a cluster that is served no more are told.
pub fn cluster_gone(cluster: &Cluster) -> ClientError {
    let message = format!("holdfast: cluster '{}' is not served here any more; the connection ends", cluster.name);
    ClientError::new(ErrorKind::ClusterGone, message)
}
