//! The words of design and code as types: ids, roles, terms, addresses, GTID sets.
//!
//! Why: a `u32` that is a session's id must not be taken for a backend's connection id. Nothing here does I/O or reads a
//! clock; everything is small, comparable and printable.

mod gtid;

pub use gtid::{GtidError, GtidPosition, GtidSet, Gtids, Uuid};

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of one replication group as the configuration calls it (`[[cluster]] name`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(pub Arc<str>);

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ClusterName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl Borrow<str> for ClusterName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One life of a cluster in this process: a cluster that comes back under the same name has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// One that was never given out before; from 1.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One mysqld of a cluster. Given out by the topology writer, stable for one address as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// MySQL's `--ssl-mode` (reference manual, "Command Options for Encrypted Connections"): each mode asks for more than the one
/// before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SslMode {
    /// Never TLS.
    Disabled,
    /// TLS where the peer has it.
    #[default]
    Preferred,
    /// TLS or nothing; the peer's certificate is not checked.
    Required,
    /// The peer's certificate must be signed by the CA.
    VerifyCa,
    /// And it must be the peer's own.
    VerifyIdentity,
}

impl SslMode {
    /// True if a connection without TLS is refused.
    pub fn requires_tls(self) -> bool {
        matches!(self, Self::Required | Self::VerifyCa | Self::VerifyIdentity)
    }

    /// True if the peer's certificate is checked against a CA.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyIdentity)
    }
}

/// How fresh a client's reads are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// As fresh as the follower that answers.
    #[default]
    Eventual,
    /// Each session sees at least what it has committed itself.
    Session,
    /// Each read sees every commit that any client was told of before the read began.
    Strong,
}

/// The connection id a client sees in the handshake and may `KILL`: the proxy's own, at or above
/// [`SessionId::FIRST`], so that it is never one of a server's own small connection ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

impl SessionId {
    /// Servers count their connections from 1; ids from here up belong to the proxy.
    pub const FIRST: u32 = 0x4000_0000;
}

/// The id of a prepared statement as the client knows it; each backend connection has its own for the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u32);

/// What one backend is in its cluster, as far as it has been proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Replicates and may serve reads.
    Follower,
    /// Answers, but nothing proves what it is: it gets no traffic.
    Unknown,
}

impl Role {
    /// The word for logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Follower => "follower",
            Self::Unknown => "unknown",
        }
    }
}

/// Counts the primary changes of a cluster; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(pub u64);

/// Host and port of one mysqld; IPv6 hosts are kept without brackets and printed with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Name or IP address.
    pub host: Arc<str>,
    /// TCP port; 3306 where none was written.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is wrong with a text that should be `host`, `host:port` or `[ipv6]:port`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an address: write host, host:port or [ipv6]:port with a port from 1 to 65535")]
pub struct AddressError(pub String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || AddressError(text.to_owned());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
        } else {
            match text.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                Some(_) if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
                Some(_) => return Err(bad()),
                None => (text, None),
            }
        };
        let port = match port {
            Some(port) => port.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(bad)?,
            None => 3306,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
            return Err(bad());
        }
        Ok(Self { host: host.into(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed) in [
            ("db-0", "db-0:3306"),
            ("db-0:3307", "db-0:3307"),
            ("127.0.0.1:21001", "127.0.0.1:21001"),
            ("[::1]:3307", "[::1]:3307"),
            ("[::1]", "[::1]:3306"),
            ("::1", "[::1]:3306"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), printed);
        }
        for bad in ["", ":3306", "a:0", "a:70000", "a:b:c", "[::1", "[zz]:1", "a b", "root@db:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
