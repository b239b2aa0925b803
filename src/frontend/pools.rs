//! The connections that sessions of one worker share, by server (`sharing = "transaction"`).
//!
//! A session that has nothing open on a connection keeps it all the same until somebody waits for one
//! ([`crate::backend::Shelf`]); then it says what it leaves behind ([`BackendConnection::leave`]) and gives it back. Whoever
//! gets it brings it to a state of his own.

use super::shared::{Cluster, SessionHandle};
use crate::accounts::Credential;
use crate::backend::{BackendConnection, Counted, Holder, LoginRequest, Place, Shelf, ShelfLimits};
use crate::topology::{Backend, Serving};
use crate::types::{BackendId, ClusterId};
use crate::wire::auth::{native_verifier, sha2_verifier};
use crate::wire::capabilities::Capabilities;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Whose connection may be used by whom: a login that would have been the same in all that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    key: Rc<AccountKey>,
    /// Of connections with a default schema: there is no way back to none.
    schema: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct AccountKey {
    /// What proves the account: two that know the same hash know the same password.
    proof: [u8; 32],
    user: Box<[u8]>,
    capabilities: Capabilities,
    collation: u16,
    secure: bool,
    /// What it commits is traced.
    traced: bool,
}

impl Account {
    /// The account of a login; none if it can't be told from another.
    pub fn new(login: &LoginRequest<'_>, traced: bool) -> Option<Self> {
        let secure = login.capabilities.has(Capabilities::SSL);
        let key = Rc::new(AccountKey {
            proof: proof(login.credential)?,
            user: login.user.into(),
            capabilities: login.capabilities - (Capabilities::CONNECT_WITH_DB | Capabilities::PLUGIN_AUTH),
            collation: login.collation,
            secure,
            traced,
        });
        Some(Self { key, schema: login.database.is_some_and(|schema| !schema.is_empty()) })
    }

    /// The same account's connections with a default schema, or those without.
    #[must_use]
    pub fn in_schema(&self, schema: bool) -> Self {
        Self { key: Rc::clone(&self.key), schema }
    }
}

fn proof(credential: &Credential) -> Option<[u8; 32]> {
    if let Some(stage1) = credential.sha2_stage1() {
        return Some(sha2_verifier(&stage1));
    }
    let stage1 = credential.native_stage1()?;
    let mut proof = [0; 32];
    proof[..20].copy_from_slice(&native_verifier(&stage1));
    Some(proof)
}

/// One server's shelf.
pub type ServerShelf = Shelf<Account, Box<BackendConnection>>;

struct Server {
    cluster: Arc<Cluster>,
    shelf: Rc<ServerShelf>,
}

/// The shelves of one worker.
pub struct Pools {
    servers: RefCell<HashMap<(ClusterId, BackendId), Server>>,
    /// How many workers there are.
    workers: u32,
    /// Which one this is, from 0.
    worker: u32,
}

impl Pools {
    /// No shelves yet, for worker number `worker` of `workers`.
    pub fn new(worker: usize, workers: usize) -> Rc<Self> {
        Rc::new(Self { servers: RefCell::default(), workers: workers.max(1) as u32, worker: worker as u32 })
    }

    /// The shelf for a server.
    pub fn shelf(&self, cluster: &Arc<Cluster>, backend: BackendId) -> Rc<ServerShelf> {
        let limits = self.limits(cluster);
        let mut servers = self.servers.borrow_mut();
        let server = servers
            .entry((cluster.id, backend))
            .or_insert_with(|| Server { cluster: Arc::clone(cluster), shelf: Shelf::new(limits) });
        if !Arc::ptr_eq(&server.cluster, cluster) {
            // Its settings may be others now.
            server.cluster = Arc::clone(cluster);
            server.shelf.limit(limits);
        }
        Rc::clone(&server.shelf)
    }

    fn limits(&self, cluster: &Cluster) -> ShelfLimits {
        let shared = cluster.config.shared;
        let part = |all: u32| (all / self.workers + u32::from(self.worker < all % self.workers)) as usize;
        ShelfLimits {
            places_max: part(shared.connections_max).max(1),
            places_min: part(shared.connections_min),
            idle_max: shared.idle_max,
            lifetime_max: shared.lifetime_max,
            waiters_max: cluster.config.hold_statements_max.max(1),
        }
    }

    /// Closes what nobody has used for long, and what leads to servers that are going.
    pub fn sweep(&self) {
        let shelves: Vec<(Rc<ServerShelf>, bool)> = {
            let servers = self.servers.borrow();
            let going = |server: &Server, id: BackendId| {
                let topology = server.cluster.topology.load();
                server.cluster.gone.is_cancelled() || topology.backend(id).is_none_or(is_going)
            };
            servers.iter().map(|((_, id), server)| (Rc::clone(&server.shelf), going(server, *id))).collect()
        };
        for (shelf, all) in shelves {
            shelf.sweep(all);
        }
        self.servers.borrow_mut().retain(|_, server| !server.shelf.is_empty() || Rc::strong_count(&server.shelf) > 1);
    }
}

fn is_going(server: &Backend) -> bool {
    match server.serving {
        Serving::Yes | Serving::No { .. } => false,
        Serving::Draining { .. } | Serving::Drained { .. } => true,
    }
}

/// The counted place of a new shared connection; none at `backend_connections_max`.
pub fn counted(cluster: &Cluster, backend: &Backend, place: Place) -> Option<Counted> {
    cluster.place(backend).map(|counted| counted.shared(place))
}

impl Holder for SessionHandle {
    fn recall(&self) -> bool {
        if !self.take_idle() {
            return false;
        }
        self.nudge.poke();
        true
    }
}
