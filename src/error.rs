//! Errors as the rest of the house sees them: which kind, which side failed, and what a client may read of it.
//!
//! Each room has its own error enum; where one of them has to reach a client it becomes a [`ClientError`]: errno,
//! SQLSTATE and a message that says what to do. A backend's own ERR packet is never turned into one: it is passed on
//! byte for byte.

use std::borrow::Cow;

/// Which side of the proxy failed; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The application's side.
    Client,
    /// A mysqld's side.
    Backend,
    /// Our own limits or state.
    Proxy,
}

impl Side {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Proxy => "proxy",
        }
    }
}

/// What kind of thing went wrong; a metric label and the key to errno and SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Malformed or out-of-order packet: 1835 / 08S01 (ER_MALFORMED_PACKET).
    MalformedPacket,
    /// Packet sequence number is wrong: 1156 / 08S01 (ER_NET_PACKETS_OUT_OF_ORDER).
    PacketOutOfOrder,
    /// Handshake could not be read: 1043 / 08S01 (ER_HANDSHAKE_ERROR).
    Handshake,
    /// A command nobody serves: 1047 / 08S01 (ER_UNKNOWN_COM_ERROR).
    UnknownCommand,
    /// A limit on connections: 1040 / 08004 (ER_CON_COUNT_ERROR).
    TooManyConnections,
    /// A limit on connections of one user: 1203 / 42000 (ER_TOO_MANY_USER_CONNECTIONS).
    TooManyUserConnections,
    /// The login was refused by the proxy itself: 1045 / 28000 (ER_ACCESS_DENIED_ERROR).
    AccessDenied,
    /// TLS is required here: 3159 / HY000 (ER_SECURE_TRANSPORT_REQUIRED).
    SecureTransportRequired,
    /// A login names no cluster that is served: 1049 / 42000 (ER_BAD_DB_ERROR).
    UnknownCluster,
    /// The session's cluster is served no more: 1053 / 08S01 (ER_SERVER_SHUTDOWN); the connection ends.
    ClusterGone,
    /// No server could take the statement in time: 2003 / HY000 (as MySQL Router answers).
    NoBackend,
    /// The server went away before it answered; the outcome of a write is unknown: 1105 / 08007.
    OutcomeUnknown,
    /// The server went away inside a transaction: 1213 / 40001 (ER_LOCK_DEADLOCK: rolled back, retry).
    TransactionLost,
    /// The server went away in the middle of a result: 1159 / 08S01 (ER_NET_READ_INTERRUPTED).
    ResultCut,
    /// State that can't be rebuilt went away with its server: 3169 / HY000 (ER_SESSION_WAS_KILLED).
    SessionStateLost,
    /// An unknown prepared statement: 1243 / HY000 (ER_UNKNOWN_STMT_HANDLER).
    UnknownStatement,
    /// A limit of the proxy's own was reached: 1041 / HY000 (ER_OUT_OF_RESOURCES).
    Limit,
}

impl ErrorKind {
    /// Error number and SQLSTATE of the manual's server error reference.
    pub fn code(self) -> (u16, &'static [u8; 5]) {
        match self {
            Self::MalformedPacket => (1835, b"08S01"),
            Self::PacketOutOfOrder => (1156, b"08S01"),
            Self::Handshake => (1043, b"08S01"),
            Self::UnknownCommand => (1047, b"08S01"),
            Self::TooManyConnections => (1040, b"08004"),
            Self::TooManyUserConnections => (1203, b"42000"),
            Self::AccessDenied => (1045, b"28000"),
            Self::SecureTransportRequired => (3159, b"HY000"),
            Self::UnknownCluster => (1049, b"42000"),
            Self::ClusterGone => (1053, b"08S01"),
            Self::NoBackend => (2003, b"HY000"),
            Self::OutcomeUnknown => (1105, b"08007"),
            Self::TransactionLost => (1213, b"40001"),
            Self::ResultCut => (1159, b"08S01"),
            Self::SessionStateLost => (3169, b"HY000"),
            Self::UnknownStatement => (1243, b"HY000"),
            Self::Limit => (1041, b"HY000"),
        }
    }

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedPacket => "malformed_packet",
            Self::PacketOutOfOrder => "packet_out_of_order",
            Self::Handshake => "handshake",
            Self::UnknownCommand => "unknown_command",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyUserConnections => "too_many_user_connections",
            Self::AccessDenied => "access_denied",
            Self::SecureTransportRequired => "secure_transport_required",
            Self::UnknownCluster => "unknown_cluster",
            Self::ClusterGone => "cluster_gone",
            Self::NoBackend => "no_backend",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::TransactionLost => "transaction_lost",
            Self::ResultCut => "result_cut",
            Self::SessionStateLost => "session_state_lost",
            Self::UnknownStatement => "unknown_statement",
            Self::Limit => "limit",
        }
    }
}

/// An error of the proxy's own that a client reads as an ERR packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}: {message}")]
pub struct ClientError {
    /// What kind; gives errno and SQLSTATE.
    pub kind: ErrorKind,
    /// What happened and what to do, without secrets and without SQL literals.
    pub message: Cow<'static, str>,
}

impl ClientError {
    /// An error of `kind` with a message for the client.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into() }
    }
}
