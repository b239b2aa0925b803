//! The port under test: lets clients in, then moves bytes.
#![allow(clippy::unwrap_used, reason = "a test")]

use crate::testbed::{Flavor, Port, Server, Testbed, cli};
use bytes::{Buf, Bytes};
use holdfast::accounts::{Accounts, AccountsConfig, Credential, Failures, RsaKey, Sealer, ServiceAccount};
use holdfast::backend::{ConnectTarget, Connected, LoginRequest, connect};
use holdfast::config::{Compression, ProxyProtocol};
use holdfast::error::ClientError;
use holdfast::frontend::facade::ServerFacade;
use holdfast::frontend::login::{
    ChangeRequest, Destination, LoginContext, LoginError, Prove, ProveError, change_user, login,
};
use holdfast::frontend::route::Asked;
use holdfast::tls::{BackendTls, ListenerTls, SslMode, TlsFiles};
use holdfast::transport::{Channel, Io};
use holdfast::types::SessionId;
use holdfast::wire::capabilities::Capabilities;
use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// What the port under test is to be.
pub struct DoorOptions {
    pub mode: SslMode,
    pub backend_tls: bool,
    pub accounts: AccountsConfig,
    pub timeout: Duration,
    pub proxy_protocol: ProxyProtocol,
    /// Certificates other than the testbed's.
    pub tls: Option<TlsFiles>,
}

impl Default for DoorOptions {
    fn default() -> Self {
        let accounts = AccountsConfig::default();
        let (mode, timeout) = (SslMode::Preferred, Duration::from_secs(10));
        Self { mode, backend_tls: true, accounts, timeout, proxy_protocol: ProxyProtocol::Off, tls: None }
    }
}

/// An open port; closed when dropped.
pub struct Door {
    port: Port,
    shared: Arc<Shared>,
    errors: Receiver<LoginError>,
    _close: oneshot::Sender<()>,
}

struct Shared {
    target: ConnectTarget,
    facade: ServerFacade,
    tls: ListenerTls,
    accounts: Arc<Accounts>,
    rsa: RsaKey,
    failures: Mutex<Failures>,
    timeout: Duration,
    proxy_protocol: ProxyProtocol,
    errors: Sender<LoginError>,
}

impl Door {
    /// Opens a port in front of `server`.
    pub fn open(server: &Server, options: DoorOptions) -> Self {
        let files = Testbed::get().tls();
        let testbeds = TlsFiles { cert: Some(files.server_cert), key: Some(files.server_key), ca: Some(files.ca) };
        let mode = if options.backend_tls { SslMode::Required } else { SslMode::Disabled };
        let target = ConnectTarget {
            address: server.addr().to_string().parse().unwrap(),
            tls: Arc::new(BackendTls::backend(mode, TlsFiles::default()).unwrap()),
            connect_timeout: Duration::from_secs(10),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(connect_as(&target, "app", "app"));
        let facade = ServerFacade {
            version: server.greeting_version.clone(),
            capabilities: server.server_capabilities,
            collation: server.server_collation,
            default_plugin: server.server_plugin.clone(),
        };
        let sealer = Sealer::new().unwrap();
        let (errors, seen) = channel();
        let service = service_account(&target, &sealer);
        let shared = Arc::new(Shared {
            target,
            facade,
            tls: ListenerTls::listener(options.mode, options.tls.unwrap_or(testbeds)).unwrap(),
            accounts: Arc::new(Accounts::new(options.accounts, sealer, Some(service))),
            rsa: RsaKey::new(),
            failures: Mutex::default(),
            timeout: options.timeout,
            proxy_protocol: options.proxy_protocol,
            errors,
        });
        let port = Port::take();
        let number = port.number();
        let (close, closed) = oneshot::channel::<()>();
        let (for_thread, (listening, ready)) = (shared.clone(), channel());
        std::thread::spawn(move || {
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async move {
                let listener = TcpListener::bind(("127.0.0.1", number)).await.unwrap();
                listening.send(()).unwrap();
                tokio::select! { () = accept(listener, for_thread) => (), _ = closed => () }
            });
        });
        ready.recv().unwrap();
        Self { port, shared, errors: seen, _close: close }
    }

    /// The accounts behind the port.
    pub fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// Why the next login failed; waits for it.
    pub fn next_error(&self) -> LoginError {
        self.errors.recv_timeout(Duration::from_secs(20)).expect("a login failed")
    }

    /// How long the next login would wait.
    pub fn delay(&self) -> Duration {
        self.shared.failures.lock().unwrap().delay([127, 0, 0, 1].into(), std::time::Instant::now())
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.port.number()
    }
}

fn service_account(target: &ConnectTarget, sealer: &Arc<Sealer>) -> ServiceAccount {
    let password = Credential::password(Zeroizing::new(b"accounts".to_vec()));
    let credential = holdfast::accounts::SessionCredential::seal(sealer, &password).unwrap();
    let target = target.clone();
    Box::new(move || Some((target.clone(), b"accounts".to_vec(), credential.clone())))
}

async fn connect_as(target: &ConnectTarget, user: &str, password: &str) -> Connected {
    let credential = Credential::password(Zeroizing::new(password.as_bytes().to_vec()));
    let login = LoginRequest {
        user: user.as_bytes(),
        credential: &credential,
        database: None,
        collation: 45,
        capabilities: Capabilities::OWN,
        attributes: &[],
        max_packet_size: 1 << 24,
    };
    connect(target, &login).await.unwrap()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for session in 0.. {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (shared, channel) = (shared.clone(), Channel::new(Io::Plain(socket)));
        tokio::task::spawn_local(async move {
            if let Err(error) = serve(channel, SessionId(SessionId::FIRST + session), &shared).await {
                let _ = shared.errors.send(error);
            }
        });
    }
}

/// Proves logins on the one server, and keeps the connection.
struct Prover {
    target: ConnectTarget,
    accounts: Arc<Accounts>,
    connected: Option<Connected>,
}

impl Prove for Prover {
    async fn route(&mut self, asked: Asked<'_>, _capabilities: Capabilities) -> Result<Destination, ClientError> {
        Ok(Destination { accounts: Arc::clone(&self.accounts), user: asked.user.to_vec() })
    }

    async fn prove(&mut self, login: &LoginRequest<'_>) -> Result<Bytes, ProveError> {
        let connected = connect(&self.target, login).await?;
        let ok = connected.ok.clone();
        self.connected = Some(connected);
        Ok(ok)
    }
}

async fn serve(channel: Channel, session: SessionId, shared: &Shared) -> Result<(), LoginError> {
    let context = LoginContext {
        facade: &shared.facade,
        session,
        tls: &shared.tls,
        rsa: &shared.rsa,
        failures: &shared.failures,
        peer: [127, 0, 0, 1].into(),
        proxy_protocol: shared.proxy_protocol,
        trusted: true,
        timeout: shared.timeout,
        compression: Compression::default(),
    };
    let mut prover = Prover { target: shared.target.clone(), accounts: Arc::clone(&shared.accounts), connected: None };
    let mut client = login(channel, &context, &mut prover).await?;
    loop {
        let mut server = prover.connected.take().expect("a login was proven");
        if !pump(&mut client.channel, &mut server.channel).await {
            return Ok(());
        }
        // COM_CHANGE_USER: a new connection takes the old one's place.
        let mut sequence = 0;
        let payload = client.channel.read_packet(&mut sequence, 1 << 20, false).await?;
        let request = ChangeRequest {
            payload: &payload,
            sequence,
            capabilities: client.capabilities,
            nonce: client.nonce,
            secure: client.secure,
            keeps: false,
            max_packet_size: client.max_packet_size,
        };
        client.nonce = change_user(&mut client.channel, &context, &request, &mut prover).await?.nonce;
    }
}

/// Moves bytes until either side closes; `true` if the client wants to change its account.
async fn pump(client: &mut Channel, server: &mut Channel) -> bool {
    loop {
        let (read, from_client) = tokio::select! {
            read = client.fill() => (read, true),
            read = server.fill() => (read, false),
        };
        if !matches!(read, Ok(1..)) {
            return false;
        }
        let (from, to) = if from_client { (&mut *client, &mut *server) } else { (&mut *server, &mut *client) };
        if from_client && from.input.get(3..5) == Some(&[0, 0x11]) {
            return true;
        }
        let bytes = from.input.split();
        if to.write_all(bytes.chunk()).await.is_err() {
            return false;
        }
    }
}

/// A load balancer that sends `header` ahead of every connection it passes on.
pub struct Balancer(Port);

impl Balancer {
    pub fn to(port: u16, header: &'static [u8]) -> Self {
        let own = Port::take();
        let listener = std::net::TcpListener::bind(("127.0.0.1", own.number())).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                server.write_all(header).unwrap();
                let (mut client2, mut server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let mut client = client;
                std::thread::spawn(move || std::io::copy(&mut client2, &mut server2));
                std::thread::spawn(move || std::io::copy(&mut server, &mut client));
            }
        });
        Self(own)
    }
}

impl Listening for Balancer {
    fn listening(&self) -> u16 {
        self.0.number()
    }
}

/// What clients connect to.
pub trait Listening {
    fn listening(&self) -> u16;
}

impl Listening for Door {
    fn listening(&self) -> u16 {
        self.number()
    }
}

impl Listening for Server {
    fn listening(&self) -> u16 {
        self.port()
    }
}

/// The first value the mysql CLI gets, or what it says.
pub fn mysql(to: &impl Listening, user: &str, password: &str, options: &[&str], sql: &str) -> Result<String, String> {
    cli(Flavor::MySql, to.listening(), (user, password), options, sql)
}

/// The same with the mariadb CLI.
pub fn mariadb(to: &impl Listening, user: &str, password: &str, options: &[&str], sql: &str) -> Result<String, String> {
    cli(Flavor::MariaDb, to.listening(), (user, password), options, sql)
}
