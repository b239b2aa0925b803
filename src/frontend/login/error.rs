//! Why a client was not let in, and what it reads of it.

use crate::backend::ConnectError;
use crate::error::{ClientError, ErrorKind};
use crate::transport::PacketError;
use crate::wire::Malformed;
use crate::wire::err::{self, ErrPacket};
use bytes::Bytes;
use std::time::Duration;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The server's ERR payload.
    #[error("refused by the server")]
    Refused(Bytes),
    /// The server wants the password itself.
    #[error("the server wants the password itself")]
    CredentialInsufficient,
    /// Limits, or no server to ask.
    #[error(transparent)]
    Denied(#[from] ClientError),
}

impl From<ConnectError> for ProveError {
    fn from(error: ConnectError) -> Self {
        let (kind, message) = match error {
            ConnectError::Refused(payload) => return Self::Refused(payload),
            ConnectError::CredentialInsufficient => return Self::CredentialInsufficient,
            ConnectError::UnsupportedPlugin(_) | ConnectError::Insecure(_) => (ErrorKind::AccessDenied, error),
            _ => (ErrorKind::NoBackend, error),
        };
        Self::Denied(ClientError::new(kind, message.to_string()))
    }
}

/// Why a client was not let in. It has been told already, where there was somebody to tell.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// It went away, or its socket failed.
    #[error("the client went away during the login: {0}")]
    Gone(PacketError),
    /// It was too slow.
    #[error("the client did not log in within {0:?}")]
    Timeout(Duration),
    /// It does not speak the protocol.
    #[error("the client broke the protocol: {0}")]
    Protocol(ClientError),
    /// The TLS handshake failed: no common version, a certificate that is not trusted.
    #[error("TLS with the client failed: {0}")]
    Tls(String),
    /// A server refused it: the ERR payload.
    #[error("refused by the server: {}", code(.0))]
    Refused(Bytes),
    /// The proxy refused it: limits, no TLS where it is required, no server to ask.
    #[error(transparent)]
    Denied(#[from] ClientError),
}

fn code(payload: &[u8]) -> u16 {
    ErrPacket::parse(payload).map_or(0, |packet| packet.code)
}

impl LoginError {
    /// The metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Gone(_) => "gone",
            Self::Timeout(_) => "timeout",
            Self::Protocol(_) => "protocol",
            Self::Tls(_) => "tls",
            Self::Refused(_) => "refused",
            Self::Denied(_) => "denied",
        }
    }

    /// What the client reads.
    pub(super) fn answer(&self) -> Option<Bytes> {
        match self {
            Self::Refused(payload) => Some(payload.clone()),
            Self::Denied(error) | Self::Protocol(error) => Some(err::client_error(error)),
            Self::Gone(_) | Self::Timeout(_) | Self::Tls(_) => None,
        }
    }
}

impl From<PacketError> for LoginError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::OutOfOrder { .. } => {
                Self::Protocol(ClientError::new(ErrorKind::PacketOutOfOrder, "Got packets out of order"))
            }
            PacketError::TooLong { .. } => Self::Protocol(ClientError::new(ErrorKind::Handshake, "Bad handshake")),
            PacketError::Closed { .. } | PacketError::Io(_) => Self::Gone(error),
        }
    }
}

impl From<Malformed> for LoginError {
    fn from(error: Malformed) -> Self {
        Self::Protocol(ClientError::new(ErrorKind::Handshake, format!("Bad handshake: {}", error.0)))
    }
}
