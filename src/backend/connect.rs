//! From an address to a connection that is logged in: TCP, greeting, TLS, HandshakeResponse41, the plugin's exchange.

use super::exchange::Exchange;
use crate::accounts::Credential;
use crate::tls::{BackendTls, server_name};
use crate::transport::{Channel, Io, PacketError};
use crate::types::Address;
use crate::wire::Malformed;
use crate::wire::capabilities::Capabilities;
use crate::wire::err;
use crate::wire::handshake::{Greeting, HandshakeResponse};
use crate::wire::ok::OkPacket;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

/// The longest packet a server may send during a login, bytes.
pub(super) const LOGIN_PACKET_MAX: usize = 64 * 1024;
/// Sent where the client's collation does not fit the handshake's byte: utf8mb4_general_ci, known to every server.
const UTF8MB4: u8 = 45;
/// Connection attributes of the proxy's own logins: `program_name` = `holdfast`.
const OWN_ATTRIBUTES: &[u8] = b"\x0cprogram_name\x08holdfast";
/// TCP keepalive towards servers: idle time and interval.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where to connect, and how.
#[derive(Clone)]
pub struct ConnectTarget {
    /// Host and port.
    pub address: Address,
    /// TLS mode and certificates.
    pub tls: Arc<BackendTls>,
    /// Limit for all of it, from the name lookup to the server's OK.
    pub connect_timeout: Duration,
}

/// Who logs in, and with which session settings.
#[derive(Clone, Copy)]
pub struct LoginRequest<'a> {
    /// Account name.
    pub user: &'a [u8],
    /// Its proof.
    pub credential: &'a Credential,
    /// Initial schema.
    pub database: Option<&'a [u8]>,
    /// Collation id as the client sent it. Ids above 255 don't fit the handshake: [`Connected::collation`] says what
    /// was sent instead.
    pub collation: u16,
    /// What the client has. Masked with what server and proxy have; what a login needs ([`Capabilities::LOGIN`]) is added,
    /// compression is left out.
    pub capabilities: Capabilities,
    /// Connection attributes: raw pairs of length-encoded strings, without the length of all.
    pub attributes: &'a [u8],
    /// Largest packet the client takes, bytes.
    pub max_packet_size: u32,
}

impl<'a> LoginRequest<'a> {
    /// A login of the proxy's own, to ask a server something: no schema, and no more than that takes.
    pub fn own(user: &'a str, credential: &'a Credential) -> Self {
        Self {
            user: user.as_bytes(),
            credential,
            database: None,
            collation: u16::from(UTF8MB4),
            capabilities: Capabilities::LOGIN | Capabilities::DEPRECATE_EOF,
            attributes: OWN_ATTRIBUTES,
            max_packet_size: 1 << 24,
        }
    }
}

/// A connection that is logged in.
pub struct Connected {
    /// The socket with its buffer.
    pub channel: Channel,
    /// What both sides have.
    pub capabilities: Capabilities,
    /// The server's connection id, for KILL.
    pub thread_id: u32,
    /// Version, without MariaDB's `5.5.5-`.
    pub server_version: Arc<str>,
    /// Version as on the wire, for mirroring.
    pub greeting_version: Arc<str>,
    /// Everything the server offered in its greeting, for mirroring.
    pub server_capabilities: Capabilities,
    /// The server's default authentication plugin, for mirroring.
    pub server_plugin: Arc<[u8]>,
    /// The server's default collation, for mirroring.
    pub server_collation: u8,
    /// Collation id sent in the handshake.
    pub collation: u16,
    /// Payload of the OK packet that ended the login.
    pub ok: Bytes,
    /// Its status flags.
    pub status: u16,
    /// The connection is encrypted.
    pub tls: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server's ERR packet, word for word: payload without header.
    #[error("refused by the server: {}", refusal(.0))]
    Refused(Bytes),
    /// The server wants more than the hashes at hand: the password itself, or the hash of another plugin.
    #[error("the server wants the password itself, which is not known")]
    CredentialInsufficient,
    /// The primary changed while the login waited for its turn.
    #[error("the primary changed before the login began")]
    Overtaken,
    /// All connections that may be shared are in use.
    #[error("{0}")]
    Exhausted(String),
    /// No TCP connection, or it broke.
    #[error("unreachable: {0}")]
    Unreachable(io::Error),
    /// TLS failed, or is required and the server has none.
    #[error("TLS with the server failed: {0}")]
    Tls(String),
    /// Not done within [`ConnectTarget::connect_timeout`].
    #[error("no login within {0:?}")]
    Timeout(Duration),
    /// The server doesn't speak the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The account's plugin is one the proxy can't answer.
    #[error("authentication plugin {0} is not supported")]
    UnsupportedPlugin(String),
    /// The plugin would send the password in the clear and the connection has no TLS.
    #[error("plugin {0} sends the password in the clear, which is only done over TLS: set a TLS mode for the cluster")]
    Insecure(&'static str),
}

fn refusal(payload: &[u8]) -> String {
    match err::ErrPacket::parse(payload) {
        Ok(e) => format!("{} ({}): {}", e.code, String::from_utf8_lossy(&e.state), String::from_utf8_lossy(e.message)),
        Err(_) => "malformed ERR packet".to_owned(),
    }
}

impl From<PacketError> for ConnectError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Io(error) => Self::Unreachable(error),
            PacketError::Closed { .. } => Self::Unreachable(io::ErrorKind::UnexpectedEof.into()),
            PacketError::TooLong { .. } | PacketError::OutOfOrder { .. } => Self::Protocol(error.to_string()),
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

impl From<Malformed> for ConnectError {
    fn from(error: Malformed) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Connects to a server and logs in. Cancel safe: a cancelled login is a closed socket.
pub async fn connect(target: &ConnectTarget, login: &LoginRequest<'_>) -> Result<Connected, ConnectError> {
    let limit = target.connect_timeout;
    match tokio::time::timeout(limit, connect_unlimited(target, login)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(limit)),
    }
}

async fn connect_unlimited(target: &ConnectTarget, login: &LoginRequest<'_>) -> Result<Connected, ConnectError> {
    let socket = TcpStream::connect((&*target.address.host, target.address.port)).await?;
    prepare(&socket)?;
    let mut channel = Channel::new(Io::Plain(socket));
    let mut sequence = 0;
    let packet = channel.read_packet(&mut sequence, LOGIN_PACKET_MAX, false).await?;
    // "Too many connections", "Host is blocked" and the like come instead of the greeting.
    if packet.first() == Some(&err::HEADER) {
        return Err(ConnectError::Refused(packet.freeze()));
    }
    let greeting = Greeting::parse(&packet)?;

    let mut capabilities = negotiate(login, greeting.capabilities);
    let tls = match target.tls.config() {
        Some(config) if greeting.capabilities.has(Capabilities::SSL) => Some(config),
        _ if target.tls.mode().requires_tls() => {
            return Err(ConnectError::Tls(format!("mode {:?} and the server has no TLS", target.tls.mode())));
        }
        _ => None,
    };
    let secure = tls.is_some();
    if secure {
        capabilities |= Capabilities::SSL;
    }
    let exchange = Exchange::start(login.credential, &greeting, secure)?;
    let response = HandshakeResponse {
        capabilities,
        max_packet_size: login.max_packet_size,
        collation: u8::try_from(login.collation).unwrap_or(UTF8MB4),
        user: login.user,
        auth: &exchange.first,
        database: login.database,
        plugin: exchange.plugin.name(),
        attributes: login.attributes,
        zstd_level: 0,
    };
    if let Some(config) = tls {
        channel.write_packet(&mut sequence, &response.ssl_request_payload()).await?;
        channel = upgrade(channel, TlsConnector::from(config), &target.address.host).await?;
    }
    channel.write_packet(&mut sequence, &response.payload()).await?;
    let ok = exchange.finish(&mut channel, &mut sequence, greeting.nonce, secure).await?;
    let status = OkPacket::parse(&ok)?.status;
    Ok(Connected {
        channel,
        capabilities,
        thread_id: greeting.thread_id,
        server_version: greeting.version_text().into(),
        greeting_version: String::from_utf8_lossy(&greeting.server_version).into(),
        server_capabilities: greeting.capabilities,
        server_plugin: (*greeting.plugin).into(),
        server_collation: greeting.collation,
        collation: u16::from(response.collation),
        ok,
        status,
        tls: secure,
    })
}

/// Flags for the response: the client's, as far as server and proxy have them, and those a login needs.
fn negotiate(login: &LoginRequest<'_>, server: Capabilities) -> Capabilities {
    let never = Capabilities::COMPRESS | Capabilities::ZSTD_COMPRESSION_ALGORITHM | Capabilities::SSL;
    let conditional = Capabilities::CONNECT_WITH_DB | Capabilities::CONNECT_ATTRS;
    let mut wanted = (login.capabilities & Capabilities::SERVED) - never - conditional;
    wanted |= Capabilities::LOGIN;
    if login.database.is_some() {
        wanted |= Capabilities::CONNECT_WITH_DB;
    }
    if !login.attributes.is_empty() {
        wanted |= Capabilities::CONNECT_ATTRS;
    }
    // LONG_PASSWORD is what tells MariaDB's clients from MySQL's; a MariaDB server doesn't offer it and takes it.
    let offered = server | (login.capabilities & Capabilities::LONG_PASSWORD);
    let agreed = wanted & offered;
    // MariaDB reads the extended flags only where LONG_PASSWORD is clear.
    if agreed.has(Capabilities::LONG_PASSWORD) { Capabilities::from_parts(agreed.low(), 0) } else { agreed }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

async fn upgrade(channel: Channel, connector: TlsConnector, host: &str) -> Result<Channel, ConnectError> {
    let (io, rest) = channel.into_parts();
    let Io::Plain(socket) = io else { return Err(ConnectError::Tls("the connection has TLS already".to_owned())) };
    if !rest.is_empty() {
        return Err(ConnectError::Protocol("the server sent more than its greeting".to_owned()));
    }
    let stream =
        connector.connect(server_name(host), socket).await.map_err(|error| ConnectError::Tls(error.to_string()))?;
    Ok(Channel::new(Io::Tls(Box::new(TlsStream::Client(stream)))))
}
