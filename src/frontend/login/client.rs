//! The client's socket during a login: packets with their sequence number, all of it under one deadline.

use super::LoginError;
use crate::error::{ClientError, ErrorKind};
use crate::frontend::proxy_protocol::{self, Parsed};
use crate::tls::common_name;
use crate::transport::{Channel, Io, PacketError};
use crate::wire::Malformed;
use crate::wire::handshake::NONCE;
use crate::wire::packet;
use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsStream};

/// The longest packet a client may send before it is let in, bytes: connection attributes have 64 KiB.
const LOGIN_PACKET_MAX: usize = 80 * 1024;

/// A challenge: random, without the bytes that end a string in the greeting or a hash in mysql.user.
pub(super) fn nonce() -> Result<[u8; NONCE], ClientError> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| ClientError::new(ErrorKind::Limit, "the system gives no randomness"))?;
    // As MySQL's generate_user_salt: seven bits, neither NUL nor '$'.
    for byte in &mut nonce {
        *byte &= 0x7F;
        if *byte == 0 || *byte == b'$' {
            *byte += 1;
        }
    }
    Ok(nonce)
}

/// Whose turn it is, and how long it may take.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// The next packet's number.
    pub sequence: u8,
    /// Where the client is, as far as is known.
    pub peer: IpAddr,
    deadline: Instant,
    timeout: Duration,
}

impl Turn {
    /// Starts the clock.
    pub fn new(sequence: u8, peer: IpAddr, timeout: Duration) -> Self {
        Self { sequence, peer, deadline: Instant::now() + timeout, timeout }
    }

    async fn limited<T>(&self, work: impl Future<Output = T>) -> Result<T, LoginError> {
        timeout_at(self.deadline, work).await.map_err(|_| LoginError::Timeout(self.timeout))
    }
}

/// The client's end of a login.
pub(super) struct Client<'c> {
    channel: &'c mut Channel,
    /// The exchange as far as it has come.
    pub turn: Turn,
}

impl<'c> Client<'c> {
    /// Goes on at `turn`.
    pub fn new(channel: &'c mut Channel, turn: Turn) -> Self {
        Self { channel, turn }
    }

    /// The next packet.
    pub async fn read(&mut self) -> Result<BytesMut, LoginError> {
        self.read_packet(false).await
    }

    /// Reads a PROXY protocol header, if there is one, and takes the client's address from it. Not a byte behind it is
    /// read.
    pub async fn read_proxy_header(&mut self, required: bool) -> Result<(), LoginError> {
        loop {
            let (length, source) = match proxy_protocol::parse(&self.channel.input)? {
                Parsed::Needs(more) => {
                    let turn = self.turn;
                    let filled = turn.limited(self.channel.fill_at_most(more)).await?;
                    if filled.map_err(PacketError::Io)? == 0 {
                        let clean = self.channel.input.is_empty();
                        return Err(LoginError::Gone(PacketError::Closed { clean }));
                    }
                    continue;
                }
                Parsed::Absent if required => return Err(Malformed("a PROXY protocol header is required here").into()),
                Parsed::Absent => return Ok(()),
                Parsed::Header { length, source } => (length, source),
            };
            self.channel.input.advance(length);
            if let Some(source) = source {
                self.turn.peer = source.ip();
            }
            return Ok(());
        }
    }

    /// The next packet and not a byte more: TLS may follow.
    pub async fn read_exactly(&mut self) -> Result<BytesMut, LoginError> {
        self.read_packet(true).await
    }

    async fn read_packet(&mut self, exact: bool) -> Result<BytesMut, LoginError> {
        let turn = self.turn;
        let packet = self.channel.read_packet(&mut self.turn.sequence, LOGIN_PACKET_MAX, exact);
        Ok(turn.limited(packet).await??)
    }

    /// Sends one packet.
    pub async fn write(&mut self, payload: &[u8]) -> Result<(), LoginError> {
        let turn = self.turn;
        let sent = turn.limited(self.channel.write_packet(&mut self.turn.sequence, payload)).await?;
        sent.map_err(|error| LoginError::Gone(PacketError::Io(error)))
    }

    /// Sends two packets in one go.
    pub async fn write_both(&mut self, first: &[u8], second: &[u8]) -> Result<(), LoginError> {
        let mut out = BytesMut::with_capacity(first.len() + second.len() + 2 * packet::HEADER);
        packet::write_packet(&mut out, &mut self.turn.sequence, first);
        packet::write_packet(&mut out, &mut self.turn.sequence, second);
        let sent = self.turn.limited(self.channel.write_all(&out)).await?;
        sent.map_err(|error| LoginError::Gone(PacketError::Io(error)))
    }

    /// Waits for a server (or for a delay); the client's clock stands still meanwhile.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.turn.deadline += start.elapsed();
        done
    }

    /// The common name of the certificate the client has shown.
    pub fn certificate_name(&self) -> Option<Vec<u8>> {
        let Io::Tls(stream) = self.channel.io() else { return None };
        let TlsStream::Server(stream) = &**stream else { return None };
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        common_name(certificate).map(<[u8]>::to_vec)
    }

    /// The server name of the client's TLS handshake.
    pub fn server_name(&self) -> Option<String> {
        let Io::Tls(stream) = self.channel.io() else { return None };
        let TlsStream::Server(stream) = &**stream else { return None };
        stream.get_ref().1.server_name().map(str::to_owned)
    }

    /// Tells the client why it is not let in, if it can be told, and closes.
    pub async fn refuse(&mut self, error: LoginError) -> LoginError {
        if let Some(payload) = error.answer() {
            let _ = self.write(&payload).await;
        }
        let turn = self.turn;
        let _ = turn.limited(self.channel.shutdown()).await;
        error
    }
}

/// Goes on inside TLS.
pub(super) async fn accept_tls(
    channel: Channel,
    turn: &Turn,
    config: Arc<ServerConfig>,
) -> Result<Channel, LoginError> {
    let (io, rest) = channel.into_parts();
    let (Io::Plain(socket), true) = (io, rest.is_empty()) else {
        return Err(LoginError::Tls("TLS was asked for twice".to_owned()));
    };
    let accepted = turn.limited(TlsAcceptor::from(config).accept(socket)).await?;
    let stream = accepted.map_err(|error| LoginError::Tls(error.to_string()))?;
    Ok(Channel::new(Io::Tls(Box::new(TlsStream::Server(stream)))))
}
