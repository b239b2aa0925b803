//! What must hold for any client during a login. Shared by the fuzz target and the test that replays its corpus.
//!
//! The input is what a client sends, without waiting for our answers, over a real socket. Nobody gets in whom the proof
//! has not accepted, and the login always ends.

use bytes::Bytes;
use holdfast::accounts::{Accounts, AccountsConfig, Failures, RsaKey, Sealer};
use holdfast::backend::LoginRequest;
use holdfast::config::{Compression, ProxyProtocol};
use holdfast::error::ClientError;
use holdfast::frontend::facade::ServerFacade;
use holdfast::frontend::login::{Destination, LoginContext, Prove, ProveError, login};
use holdfast::frontend::route::Asked;
use holdfast::tls::{ListenerTls, SslMode, TlsFiles};
use holdfast::transport::{Channel, Io};
use holdfast::types::SessionId;
use holdfast::wire::capabilities::Capabilities;
use holdfast::wire::ok::OkPacket;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Made once: a key takes a tenth of a second.
static KEY: LazyLock<RsaKey> = LazyLock::new(RsaKey::new);

/// Accepts the passwords `secret` and the empty one, and nothing else.
struct Server {
    accepted: bool,
    accounts: Arc<Accounts>,
}

impl Prove for Server {
    async fn route(&mut self, asked: Asked<'_>, _capabilities: Capabilities) -> Result<Destination, ClientError> {
        Ok(Destination { accounts: Arc::clone(&self.accounts), user: asked.user.to_vec() })
    }

    async fn prove(&mut self, login: &LoginRequest<'_>) -> Result<Bytes, ProveError> {
        match login.credential.password_bytes() {
            Some(b"secret" | b"") => {
                self.accepted = true;
                let ok = OkPacket { header: 0, affected_rows: 0, last_insert_id: 0, status: 2, warnings: 0, tail: &[] };
                Ok(ok.payload())
            }
            Some(_) => Err(ProveError::Refused(Bytes::from_static(b"\xff\x15\x04#28000Access denied"))),
            None => Err(ProveError::CredentialInsufficient),
        }
    }
}

/// One login by a client that sends `data`; its first byte chooses the default plugin and whether a PROXY header is read.
pub fn check(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut client, server) = (client.expect("connected"), server.expect("accepted").0);
        let sends = async {
            let _ = client.write_all(data).await;
            let _ = client.shutdown().await;
            let mut answers = Vec::new();
            let _ = client.read_to_end(&mut answers).await;
        };
        tokio::join!(sends, one_login(choice, server));
    });
}

async fn one_login(choice: u8, socket: TcpStream) {
    let plugin: &[u8] = if choice & 1 == 0 { b"caching_sha2_password" } else { b"mysql_native_password" };
    let facade = ServerFacade {
        version: "9.7.4".into(),
        capabilities: Capabilities::SERVED,
        collation: 255,
        default_plugin: plugin.into(),
    };
    let tls = ListenerTls::listener(SslMode::Preferred, TlsFiles::default()).expect("no files, no TLS");
    let sealer = Sealer::new().expect("randomness");
    let accounts = Arc::new(Accounts::new(AccountsConfig::default(), sealer, None));
    let context = LoginContext {
        facade: &facade,
        session: SessionId(SessionId::FIRST),
        tls: &tls,
        rsa: &KEY,
        failures: &Mutex::new(Failures::default()),
        peer: [127, 0, 0, 1].into(),
        proxy_protocol: if choice & 2 == 0 { ProxyProtocol::Off } else { ProxyProtocol::Optional },
        trusted: true,
        timeout: Duration::from_secs(5),
        compression: Compression::default(),
    };
    let mut server = Server { accepted: false, accounts };
    let let_in = login(Channel::new(Io::Plain(socket)), &context, &mut server).await;
    assert_eq!(let_in.is_ok(), server.accepted, "let in without proof, or not in spite of it");
}
