//! A client that is logged in and from then on does as it is told, packet by packet.
//!
//! The login is the proxy's own code for logging in to servers; what follows is built by the test.

use bytes::{Bytes, BytesMut};
use holdfast::accounts::Credential;
use holdfast::backend::{ConnectError, ConnectTarget, LoginRequest, QueryError, Rows, connect, query_text};
use holdfast::tls::{BackendTls, SslMode, TlsFiles};
use holdfast::transport::{Channel, PacketError};
use holdfast::wire::capabilities::Capabilities;
use holdfast::wire::err::ErrPacket;
use holdfast::wire::packet::write_packet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

/// No answer takes longer; a test that waits longer is hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest result a test reads at once, bytes.
const RESULT_MAX: usize = 128 << 20;

/// Why a statement has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An ERR packet: error number, SQLSTATE, message.
    Error(u16, String, String),
    /// The connection is gone.
    Gone(String),
}

impl Fault {
    /// The error number; 0 if the connection is gone.
    pub fn code(&self) -> u16 {
        match self {
            Self::Error(code, ..) => *code,
            Self::Gone(_) => 0,
        }
    }

    /// Error number and SQLSTATE.
    pub fn state(&self) -> (u16, &str) {
        match self {
            Self::Error(code, state, _) => (*code, state),
            Self::Gone(_) => (0, ""),
        }
    }
}

/// A connection that is logged in.
pub struct Client {
    runtime: Runtime,
    channel: Channel,
    capabilities: Capabilities,
    /// Number of the next packet either way.
    pub sequence: u8,
    /// The id that the greeting named.
    pub id: u32,
}

impl Client {
    /// Logs in to a port of 127.0.0.1, without TLS.
    pub fn login(port: u16, user: &str, password: &str) -> Result<Self, ConnectError> {
        Self::login_with(port, user, password, SslMode::Disabled, Capabilities::OWN)
    }

    /// Logs in with these flags.
    pub fn login_with(
        port: u16,
        user: &str,
        password: &str,
        tls: SslMode,
        capabilities: Capabilities,
    ) -> Result<Self, ConnectError> {
        let tls = BackendTls::backend(tls, TlsFiles::default()).expect("no files, no error");
        Self::connect(port, user, password, tls, capabilities)
    }

    /// Logs in as `app` over TLS if the certificate is signed by one of `ca`.
    pub fn login_trusting(port: u16, ca: &Path) -> Result<Self, ConnectError> {
        Self::login_showing(port, TlsFiles { ca: Some(ca.to_owned()), ..TlsFiles::default() })
    }

    /// Logs in as `app` over TLS, trusting the files' CA and showing their certificate if there is one.
    pub fn login_showing(port: u16, files: TlsFiles) -> Result<Self, ConnectError> {
        let tls = BackendTls::backend(SslMode::VerifyCa, files).expect("certificates");
        Self::connect(port, "app", "app", tls, Capabilities::OWN)
    }

    fn connect(
        port: u16,
        user: &str,
        password: &str,
        tls: BackendTls,
        capabilities: Capabilities,
    ) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let target = ConnectTarget {
            address: format!("127.0.0.1:{port}").parse().expect("an address"),
            tls: Arc::new(tls),
            connect_timeout: PATIENCE,
        };
        let credential = Credential::password(Zeroizing::new(password.as_bytes().to_vec()));
        let login = LoginRequest {
            user: user.as_bytes(),
            credential: &credential,
            database: None,
            collation: 45,
            capabilities,
            attributes: &[],
            max_packet_size: 1 << 30,
        };
        let connected = runtime.block_on(connect(&target, &login))?;
        Ok(Self {
            runtime,
            channel: connected.channel,
            capabilities: connected.capabilities,
            sequence: 0,
            id: connected.thread_id,
        })
    }

    /// Rows of one statement as text, NULL as `NULL`.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Fault> {
        let Self { runtime, channel, capabilities, .. } = self;
        let rows = wait(runtime, query_text(channel, *capabilities, sql, RESULT_MAX));
        let text = |value: Option<Bytes>| {
            value.map_or_else(|| "NULL".to_owned(), |v| String::from_utf8_lossy(&v).into_owned())
        };
        match rows {
            Ok(rows) => Ok(rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect()),
            Err(QueryError::Server { code, state, message }) => Err(Fault::Error(code, state, message)),
            Err(error) => Err(Fault::Gone(error.to_string())),
        }
    }

    /// The first value of the first row. Panics if there is none.
    pub fn one(&mut self, sql: &str) -> String {
        let mut rows = self.query(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert!(!rows.is_empty(), "no row from {sql}");
        rows.swap_remove(0).swap_remove(0)
    }

    /// Sends a statement and reads nothing.
    pub fn send_query(&mut self, sql: &str) {
        self.send(&[b"\x03", sql.as_bytes()].concat());
    }

    /// Sends a command and reads nothing.
    pub fn send(&mut self, payload: &[u8]) {
        self.try_send(payload).expect("the proxy takes the command");
    }

    /// The same, telling whether it could be written.
    pub fn try_send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let mut packet = BytesMut::new();
        self.sequence = 0;
        write_packet(&mut packet, &mut self.sequence, payload);
        self.write(&packet)
    }

    /// Sends a command's further packet, numbered on.
    pub fn send_more(&mut self, payload: &[u8]) {
        let mut packet = BytesMut::new();
        write_packet(&mut packet, &mut self.sequence, payload);
        self.write(&packet).expect("the proxy takes the packet");
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Self { runtime, channel, .. } = self;
        wait(runtime, channel.write_all(bytes))
    }

    /// The next packet of an answer.
    pub fn read(&mut self) -> Result<Vec<u8>, Fault> {
        let Self { runtime, channel, sequence, .. } = self;
        match wait(runtime, channel.read_packet(sequence, RESULT_MAX, false)) {
            Ok(packet) if packet.first() == Some(&0xFF) => {
                let error = ErrPacket::parse(&packet).expect("an ERR packet is well-formed");
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Err(Fault::Error(error.code, text(&error.state), text(error.message)))
            }
            Ok(packet) => Ok(packet.to_vec()),
            Err(error) => Err(Fault::Gone(error.to_string())),
        }
    }

    /// Reads and drops packets until one is an error or ends a result; answers how many came before it.
    pub fn drain(&mut self) -> (u64, Result<(), Fault>) {
        let mut packets = 0;
        loop {
            match self.read() {
                Ok(packet) if packet.first() == Some(&0xFE) && packet.len() < 0xFF_FFFF && packets > 0 => {
                    return (packets, Ok(()));
                }
                Ok(_) => packets += 1,
                Err(fault) => return (packets, Err(fault)),
            }
        }
    }

    /// Waits until the proxy has closed the connection; what it sent before is thrown away.
    pub fn wait_closed(&mut self) {
        let Self { runtime, channel, .. } = self;
        wait(runtime, async {
            while let Ok(1..) = channel.fill().await {
                channel.input.clear();
            }
        });
    }
}

fn wait<T>(runtime: &Runtime, what: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, what).await }).expect("an answer within 60 s")
}

/// A whole packet: a command.
pub fn command(payload: &[u8]) -> Vec<u8> {
    let mut packet = BytesMut::new();
    write_packet(&mut packet, &mut 0, payload);
    packet.to_vec()
}

/// A whole packet: COM_QUERY (without query attributes, as [`Client::login`] agrees).
pub fn with_query(sql: &str) -> Vec<u8> {
    command(&[b"\x03", sql.as_bytes()].concat())
}
