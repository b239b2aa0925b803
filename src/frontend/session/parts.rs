//! What a session is made of and what it says: the client's identity, its surroundings, its end, a command at hand.

use crate::accounts::{Credential, RsaKey, SessionCredential};
use crate::backend::LoginRequest;
use crate::classify::{Class, Classified, Flags, Hint};
use crate::error::{ErrorKind, Side};
use crate::frontend::gate::{Gate, UserPlace};
use crate::frontend::pools::Pools;
use crate::frontend::shared::Registry;
use crate::frontend::shutdown::Shutdown;
use crate::metrics::{self, WorkerStats};
use crate::session::Session;
use crate::wire::capabilities::Capabilities;
use crate::wire::handshake::NONCE;
use crate::wire::session_track::Tracking;
use bytes::Bytes;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// COM_QUIT.
    Quit,
    /// The client closed its connection.
    ClientGone,
    /// KILL.
    Killed,
    /// The proxy is shutting down.
    Shutdown,
    /// Its cluster is served no more; the client has been told.
    ClusterGone,
    /// `idle_timeout_ms` passed.
    Idle,
    /// The client broke the protocol, or state was lost that it must know of.
    Error(ErrorKind),
}

impl End {
    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::ClientGone => "client_gone",
            Self::Killed => "killed",
            Self::Shutdown => "shutdown",
            Self::ClusterGone => "cluster_gone",
            Self::Idle => "idle_timeout",
            Self::Error(kind) => kind.as_str(),
        }
    }
}

/// Who the client is: what later logins to backends need.
#[derive(Clone)]
pub struct Identity {
    /// Account name.
    pub user: Bytes,
    /// Its proof.
    pub credential: SessionCredential,
    /// What client and proxy agreed on.
    pub capabilities: Capabilities,
    /// Collation id of the client's handshake.
    pub collation: u16,
    /// Connection attributes, raw.
    pub attributes: Bytes,
    /// Largest packet the client takes, bytes.
    pub max_packet_size: u32,
    /// The last login challenge: COM_CHANGE_USER answers it.
    pub nonce: [u8; NONCE],
    /// The client's connection is encrypted.
    pub secure: bool,
    /// The client's address.
    pub peer: IpAddr,
    /// The place among the user's sessions.
    pub place: Option<Rc<UserPlace>>,
}

/// Prepared statements of one session: the servers' own default of max_prepared_stmt_count.
pub const STATEMENTS_MAX: usize = 16_382;

impl Identity {
    /// A login to a backend as this client.
    pub fn login<'a>(&'a self, credential: &'a Credential, database: Option<&'a [u8]>) -> LoginRequest<'a> {
        LoginRequest {
            user: &self.user,
            credential,
            database,
            collation: self.collation,
            capabilities: self.capabilities,
            attributes: &self.attributes,
            max_packet_size: self.max_packet_size,
        }
    }
}

/// What a session needs from around it.
pub struct Surroundings {
    /// The cluster it is in.
    pub inside: Inside,
    /// Where KILL looks ids up.
    pub registry: Arc<Registry>,
    /// The process' key for passwords without TLS.
    pub rsa: Arc<RsaKey>,
    /// How the proxy shuts down.
    pub shutdown: Shutdown,
    /// The connections that sessions of its worker share.
    pub pools: Rc<Pools>,
}

/// The cluster a session is in, the listener it came in by, and its place in the numbers of both.
pub struct Inside {
    /// The way it came.
    pub gate: Gate,
    /// The worker's counters.
    pub stats: Rc<WorkerStats>,
    _counted: metrics::Guard,
}

impl Inside {
    /// Counts one more session.
    pub fn new(gate: Gate) -> Self {
        let (listener, cluster) = (&gate.listener.config.name, &*gate.cluster.name.0);
        let (stats, counted) = (metrics::worker_stats(listener, cluster), metrics::cluster_session(listener, cluster));
        Self { gate, stats, _counted: counted }
    }
}

/// A statement whose text could not be seen whole.
pub(super) const UNSEEN: Classified = Classified { class: Class::Write, flags: Flags::NONE, hint: Hint::None };

/// A command that stands at the front of the client's input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    /// Bytes of its first frame, header included.
    pub length: usize,
    /// Too long to hold: it is forwarded as it arrives.
    pub streamed: bool,
}

/// Which side an error of the proxy's own is put down to.
pub(super) fn side(kind: ErrorKind) -> Side {
    match kind {
        ErrorKind::MalformedPacket
        | ErrorKind::PacketOutOfOrder
        | ErrorKind::Handshake
        | ErrorKind::UnknownCommand
        | ErrorKind::UnknownStatement
        | ErrorKind::AccessDenied
        | ErrorKind::UnknownCluster
        | ErrorKind::SecureTransportRequired => Side::Client,
        ErrorKind::NoBackend
        | ErrorKind::OutcomeUnknown
        | ErrorKind::TransactionLost
        | ErrorKind::ResultCut
        | ErrorKind::SessionStateLost => Side::Backend,
        ErrorKind::TooManyConnections
        | ErrorKind::TooManyUserConnections
        | ErrorKind::ClusterGone
        | ErrorKind::Limit => Side::Proxy,
    }
}

pub(super) fn tracking(identity: &Identity, session: &Session) -> Tracking {
    match identity.capabilities.has(Capabilities::SESSION_TRACK) {
        true => Tracking::Variables(session.tracked.clone()),
        false => Tracking::Off,
    }
}
