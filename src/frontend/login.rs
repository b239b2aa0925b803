//! Lets a client in: greeting, TLS, HandshakeResponse41, the plugin's exchange, and the proof by a real backend login.
//!
//! ```text
//! greeting ──► SSLRequest ──► TLS ──► HandshakeResponse41 ──► route ──► exchange ⇄ proof ──► OK | ERR
//!          └────────────────────────►
//! ```
//! Route and proof are the caller's ([`Prove`]): the route says whose accounts are meant, and whoever the proof lets in, a
//! server has let in. A server's refusal reaches the client word for word. Nothing is asked of a server before the client
//! has shown what it has. What a client sends out of turn gets MySQL's own error and a closed connection; a failed login
//! never tells whether the account exists.

mod change;
mod client;
mod error;
mod exchange;

use crate::accounts::{Accounts, Credential, Failures, RsaKey, SessionCredential};
use crate::backend::LoginRequest;
use crate::config::{Compression, ProxyProtocol};
use crate::error::{ClientError, ErrorKind};
use crate::frontend::facade::ServerFacade;
use crate::frontend::route::Asked;
use crate::tls::ListenerTls;
use crate::transport::Channel;
use crate::types::SessionId;
use crate::wire::capabilities::Capabilities;
use crate::wire::compress::Algorithm;
use crate::wire::handshake::{Greeting, HandshakeResponse, NONCE, ssl_request};
use crate::wire::session_track::STATUS_AUTOCOMMIT;
use bytes::{Bytes, BytesMut};
pub use change::{ChangeRequest, ChangedUser, change_user};
use client::{Client, Turn, accept_tls};
pub use error::{LoginError, ProveError};
use exchange::{Answer, Exchange};
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What one login needs to know.
#[derive(Clone, Copy)]
pub struct LoginContext<'a> {
    /// What the listener pretends to be.
    pub facade: &'a ServerFacade,
    /// The connection id shown to the client.
    pub session: SessionId,
    /// TLS mode and certificates.
    pub tls: &'a ListenerTls,
    /// The process' key for passwords without TLS.
    pub rsa: &'a RsaKey,
    /// Failures by source address.
    pub failures: &'a Mutex<Failures>,
    /// The connection's address.
    pub peer: IpAddr,
    /// Whether a PROXY protocol header is read.
    pub proxy_protocol: ProxyProtocol,
    /// The peer is of a trusted network: its header is believed. Anybody else's is a packet out of order.
    pub trusted: bool,
    /// Limit for the client's part of the login; the time servers take comes on top.
    pub timeout: Duration,
    /// Compression that is offered, and whether a client may go without.
    pub compression: Compression,
}

/// A client that was let in.
pub struct LoggedIn {
    /// The socket, with TLS and compression as agreed.
    pub channel: Channel,
    /// Account name.
    pub user: Vec<u8>,
    /// Initial schema.
    pub database: Option<Vec<u8>>,
    /// What both sides have.
    pub capabilities: Capabilities,
    /// Collation id as the client sent it.
    pub collation: u16,
    /// Connection attributes: raw pairs of length-encoded strings.
    pub attributes: Bytes,
    /// Largest packet the client takes, bytes.
    pub max_packet_size: u32,
    /// For further backend logins of this session.
    pub credential: SessionCredential,
    /// The last challenge: COM_CHANGE_USER answers it.
    pub nonce: [u8; NONCE],
    /// The connection is encrypted.
    pub secure: bool,
    /// The client's address: [`LoginContext::peer`], or what a PROXY protocol header says.
    pub peer: IpAddr,
}

/// Where a login leads.
pub struct Destination {
    /// What is known of the accounts there.
    pub accounts: Arc<Accounts>,
    /// Account name as the servers there know it.
    pub user: Vec<u8>,
}

/// The proof of a login: a login to a server with the client's own credential. The implementation keeps the connection
/// for the session.
pub trait Prove {
    /// Finds out where a login leads by what it shows before its proof. `capabilities`: what was agreed on.
    fn route(
        &mut self,
        asked: Asked<'_>,
        capabilities: Capabilities,
    ) -> impl Future<Output = Result<Destination, ClientError>>;

    /// Logs in to a server; answers the payload of its OK packet (of a connection with SESSION_TRACK).
    fn prove(&mut self, login: &LoginRequest<'_>) -> impl Future<Output = Result<Bytes, ProveError>>;
}

/// Lets a client in that has just connected. On an error the client has been told, and the connection is closed.
/// Cancel safe: a cancelled login is a closed socket.
pub async fn login<P: Prove>(
    channel: Channel,
    context: &LoginContext<'_>,
    prove: &mut P,
) -> Result<LoggedIn, LoginError> {
    let mut channel = channel;
    let (nonce, offered) = (client::nonce()?, offered(context));
    let mut client = Client::new(&mut channel, Turn::new(0, context.peer, context.timeout));
    let mut packet = match greet(&mut client, context, nonce, offered).await {
        Ok(packet) => packet,
        Err(error) => return Err(client.refuse(error).await),
    };
    let mut turn = client.turn;
    let mut secure = false;
    if let (Ok(Some(_)), Some(config)) = (ssl_request(&packet), context.tls.config()) {
        channel = accept_tls(channel, &turn, config).await?;
        secure = true;
        let mut client = Client::new(&mut channel, turn);
        packet = match client.read().await {
            Ok(packet) => packet,
            Err(error) => return Err(client.refuse(error).await),
        };
        turn = client.turn;
    }
    let mut client = Client::new(&mut channel, turn);
    let shown = Shown { nonce, offered, secure };
    match answer_response(&mut client, context, &packet, shown, prove).await {
        Ok(account) => {
            if let Some(algorithm) = account.compression {
                channel.compress(algorithm);
            }
            Ok(account.logged_in(channel, secure, turn.peer))
        }
        Err(error) => Err(client.refuse(error).await),
    }
}

/// What a client has been shown.
#[derive(Clone, Copy)]
struct Shown {
    nonce: [u8; NONCE],
    offered: Capabilities,
    secure: bool,
}

/// The flags of our greeting.
fn offered(context: &LoginContext<'_>) -> Capabilities {
    let compression = Capabilities::COMPRESS | Capabilities::ZSTD_COMPRESSION_ALGORITHM;
    let mut offered = (context.facade.capabilities & Capabilities::SERVED) - compression - Capabilities::SSL;
    offered |= Capabilities::LOGIN | Capabilities::CONNECT_WITH_DB;
    if context.compression.zlib {
        offered |= Capabilities::COMPRESS;
    }
    if context.compression.zstd && context.facade.capabilities.has(Capabilities::ZSTD_COMPRESSION_ALGORITHM) {
        offered |= Capabilities::ZSTD_COMPRESSION_ALGORITHM;
    }
    if context.tls.config().is_some() {
        offered |= Capabilities::SSL;
    }
    offered
}

async fn greet(
    client: &mut Client<'_>,
    context: &LoginContext<'_>,
    nonce: [u8; NONCE],
    offered: Capabilities,
) -> Result<BytesMut, LoginError> {
    let greeting = Greeting {
        server_version: context.facade.version.as_bytes().into(),
        thread_id: context.session.0,
        nonce,
        capabilities: offered,
        collation: context.facade.collation,
        status: STATUS_AUTOCOMMIT,
        plugin: context.facade.default_plugin[..].into(),
    };
    let required = context.proxy_protocol == ProxyProtocol::Required;
    if required && !context.trusted {
        let message = "connections are taken only from the load balancers in trusted_networks";
        return Err(ClientError::new(ErrorKind::AccessDenied, message).into());
    }
    client.write(&greeting.payload()).await?;
    if context.trusted && context.proxy_protocol != ProxyProtocol::Off {
        client.read_proxy_header(required).await?;
    }
    client.read_exactly().await
}

async fn answer_response<P: Prove>(
    client: &mut Client<'_>,
    context: &LoginContext<'_>,
    packet: &[u8],
    shown: Shown,
    prove: &mut P,
) -> Result<Account, LoginError> {
    let response = HandshakeResponse::parse(packet)?;
    if context.tls.mode().requires_tls() && !shown.secure {
        let message = "Connections using insecure transport are prohibited while --require_secure_transport=ON.";
        return Err(ClientError::new(ErrorKind::SecureTransportRequired, message).into());
    }
    // MariaDB's clients take the flags that MySQL lacks to be there; what was not offered is not agreed.
    let capabilities = response.capabilities & (shown.offered | Capabilities::LONG_PASSWORD);
    let compression = compression(capabilities, response.zstd_level);
    if compression.is_none() && !context.compression.none {
        let message = "this listener wants a compressed connection: use zlib or zstd";
        return Err(ClientError::new(ErrorKind::Handshake, message).into());
    }
    let asked = Asked { sni: None, user: response.user, schema: response.database };
    let to = route(client, context, asked, capabilities, prove).await?;
    let login = LoginRequest {
        user: &to.user,
        credential: &Credential::default(),
        database: response.database,
        collation: u16::from(response.collation),
        capabilities,
        attributes: response.attributes,
        max_packet_size: response.max_packet_size,
    };
    let answer = Answer::first(response.plugin, response.auth, capabilities, shown.nonce);
    let mut exchange = Exchange::new(client, context, &to.accounts, login);
    exchange.secure = shown.secure;
    exchange.check_certificate()?;
    let proven = exchange.run(answer, prove).await?;
    let account = Account {
        user: to.user.clone(),
        database: response.database.map(<[u8]>::to_vec),
        collation: u16::from(response.collation),
        attributes: Bytes::copy_from_slice(response.attributes),
        capabilities,
        max_packet_size: response.max_packet_size,
        credential: seal(&to.accounts, &proven.credential)?,
        nonce: proven.nonce,
        compression,
    };
    proven.tell(client, capabilities).await?;
    Ok(account)
}

/// Finds out where a login leads. Whoever asks for what is not there is slowed like one with a wrong password.
async fn route<P: Prove>(
    client: &mut Client<'_>,
    context: &LoginContext<'_>,
    asked: Asked<'_>,
    capabilities: Capabilities,
    prove: &mut P,
) -> Result<Destination, LoginError> {
    let name = client.server_name();
    let asked = Asked { sni: name.as_deref(), ..asked };
    let routed = client.meanwhile(prove.route(asked, capabilities)).await;
    if let Err(ClientError { kind: ErrorKind::UnknownCluster, .. }) = &routed {
        exchange::wait_after_failures(client, context).await;
        exchange::failures(context).failed(client.turn.peer, Instant::now());
    }
    Ok(routed?)
}

/// What is kept of a login.
struct Account {
    user: Vec<u8>,
    database: Option<Vec<u8>>,
    collation: u16,
    attributes: Bytes,
    capabilities: Capabilities,
    max_packet_size: u32,
    credential: SessionCredential,
    nonce: [u8; NONCE],
    compression: Option<Algorithm>,
}

/// What comes after the OK packet; zlib where a client asks for both, as servers choose.
fn compression(capabilities: Capabilities, zstd_level: u8) -> Option<Algorithm> {
    if capabilities.has(Capabilities::COMPRESS) {
        return Some(Algorithm::Zlib);
    }
    let zstd = capabilities.has(Capabilities::ZSTD_COMPRESSION_ALGORITHM);
    zstd.then_some(Algorithm::Zstd { level: zstd_level })
}

impl Account {
    fn logged_in(self, channel: Channel, secure: bool, peer: IpAddr) -> LoggedIn {
        LoggedIn {
            channel,
            user: self.user,
            database: self.database,
            capabilities: self.capabilities,
            collation: self.collation,
            attributes: self.attributes,
            max_packet_size: self.max_packet_size,
            credential: self.credential,
            nonce: self.nonce,
            secure,
            peer,
        }
    }
}

fn seal(accounts: &Accounts, credential: &Credential) -> Result<SessionCredential, ClientError> {
    SessionCredential::seal(&accounts.sealer, credential)
        .ok_or_else(|| ClientError::new(ErrorKind::Limit, "the credential could not be kept"))
}
