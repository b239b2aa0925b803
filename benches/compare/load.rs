//! The load: connections that each send a statement, wait for its answer, and send the next.
//!
//! One thread, plain TCP, one statement outstanding per connection. Every run is bounded in time; what counts is measured
//! between a warm-up and the end, on connections that are logged in already.

use crate::histogram::Histogram;
use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use holdfast::accounts::Credential;
use holdfast::backend::{ConnectTarget, LoginRequest, connect};
use holdfast::tls::TlsStore;
use holdfast::transport::Io;
use holdfast::types::Address;
use holdfast::wire::capabilities::Capabilities;
use holdfast::wire::command::Answer;
use holdfast::wire::packet::{HEADER, write_packet};
use holdfast::wire::response::{Kind, Scanner, Shape, Step};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the connections send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kindling {
    /// `SELECT c FROM sbtest1 WHERE id=N`.
    Point,
    /// The same, prepared.
    Prepared,
    /// Transactions of six statements, between them four reads.
    Mix,
    /// A 100 MB result.
    Big,
}

/// What a run saw.
pub struct Seen {
    /// Statements answered.
    pub statements: u64,
    /// Bytes received.
    pub bytes: u64,
    /// For how long.
    pub elapsed: Duration,
    /// Time of each statement.
    pub latency: Histogram,
}

/// One logged-in connection.
pub struct Client {
    socket: TcpStream,
    input: BytesMut,
    statement: u32,
    bytes: u64,
}

/// Logs `n` clients in at `port`.
pub async fn clients(port: u16, n: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(n);
    for i in 0..n {
        clients.push(Client::log_in(port).await.with_context(|| format!("client {i} on port {port}"))?);
    }
    Ok(clients)
}

impl Client {
    async fn log_in(port: u16) -> anyhow::Result<Self> {
        let target = ConnectTarget {
            address: Address { host: "127.0.0.1".into(), port },
            tls: Arc::new(TlsStore::disabled()),
            connect_timeout: Duration::from_secs(20),
        };
        let login = LoginRequest {
            user: b"app",
            credential: &Credential::password(b"app".to_vec().into()),
            database: Some(b"sbtest"),
            collation: 255,
            capabilities: Capabilities::OWN,
            attributes: b"",
            max_packet_size: 1 << 24,
        };
        let connected = connect(&target, &login).await?;
        let (Io::Plain(socket), input) = connected.channel.into_parts() else { bail!("TLS") };
        Ok(Self { socket, input, statement: 0, bytes: 0 })
    }

    /// Sends one command and reads its whole answer; an ERR is an error.
    pub async fn run(&mut self, command: &[u8], answer: Answer) -> anyhow::Result<()> {
        self.socket.write_all(command).await?;
        let mut scanner = Scanner::new(answer, Shape { deprecate_eof: true, optional_metadata: false });
        while !scanner.is_done() {
            let n = self.socket.read_buf(&mut self.input).await?;
            ensure!(n > 0, "connection closed");
            self.bytes += n as u64;
            while let Step::Packet { kind, start, end } = scanner.scan(&self.input)? {
                let payload = &self.input[start + HEADER..end];
                match kind {
                    Kind::Err => bail!("ERR: {}", String::from_utf8_lossy(payload)),
                    Kind::Prepared => self.statement = u32::from_le_bytes(payload[1..5].try_into()?),
                    _ => {}
                }
            }
            let passed = scanner.passed();
            self.input.advance(passed);
            scanner.consumed(passed);
            let room = if passed > 4096 { 256 * 1024 } else { 4096 };
            self.input.reserve(room);
        }
        Ok(())
    }

    /// One point select: for warming up, and for sessions that then stay idle.
    pub async fn once(&mut self) -> anyhow::Result<()> {
        self.run(&point(1), Answer::Results).await
    }
}

/// Runs `kindling` on all `clients` for `warm` and then `time`, which is what is counted. `begin` is called between the two.
pub async fn run(
    clients: Vec<Client>,
    kindling: Kindling,
    warm: Duration,
    time: Duration,
    begin: impl FnOnce(),
) -> anyhow::Result<(Seen, Vec<Client>)> {
    let shared = Rc::new(Shared::default());
    let mut tasks = tokio::task::JoinSet::new();
    for (i, client) in clients.into_iter().enumerate() {
        tasks.spawn_local(go_on(client, kindling, i as u32, Rc::clone(&shared)));
    }
    tokio::time::sleep(warm).await;
    shared.counting.set(true);
    begin();
    let started = Instant::now();
    tokio::time::sleep(time).await;
    if kindling == Kindling::Big {
        // The one that runs counts as a whole.
        shared.stop.set(true);
    } else {
        shared.counting.set(false);
    }
    let mut elapsed = started.elapsed();
    shared.stop.set(true);
    let mut clients = Vec::new();
    let give_up = tokio::time::Instant::now() + Duration::from_secs(60);
    while let Some(client) = tokio::time::timeout_at(give_up, tasks.join_next()).await.context("no answer for 60 s")? {
        clients.push(client??);
    }
    if kindling == Kindling::Big {
        elapsed = started.elapsed();
    }
    let seen = Seen {
        statements: shared.statements.get(),
        bytes: shared.bytes.get(),
        elapsed,
        latency: shared.latency.take(),
    };
    Ok((seen, clients))
}

#[derive(Default)]
struct Shared {
    counting: Cell<bool>,
    stop: Cell<bool>,
    statements: Cell<u64>,
    bytes: Cell<u64>,
    latency: RefCell<Histogram>,
}

async fn go_on(mut client: Client, kindling: Kindling, seed: u32, shared: Rc<Shared>) -> anyhow::Result<Client> {
    let script: Vec<Bytes> = match kindling {
        Kindling::Point => vec![point(seed)],
        Kindling::Prepared => {
            client.run(&command(0x16, b"SELECT c FROM sbtest1 WHERE id=?"), Answer::Prepared).await?;
            vec![execute(client.statement, seed)]
        }
        Kindling::Mix => mix(seed),
        Kindling::Big => vec![query(b"SELECT big FROM sbtest1")],
    };
    'until_told: loop {
        for statement in &script {
            if shared.stop.get() {
                break 'until_told;
            }
            let (started, bytes) = (Instant::now(), client.bytes);
            client.run(statement, Answer::Results).await?;
            if shared.counting.get() {
                shared.statements.set(shared.statements.get() + 1);
                shared.bytes.set(shared.bytes.get() + client.bytes - bytes);
                shared.latency.borrow_mut().record(started.elapsed());
            }
        }
    }
    // A transaction in the middle is ended, so that the connection can be used again.
    if kindling == Kindling::Mix {
        client.run(&query(b"COMMIT"), Answer::Results).await?;
    }
    Ok(client)
}

fn command(code: u8, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    write_packet(&mut out, &mut 0, &[&[code], rest].concat());
    out.freeze()
}

fn query(sql: &[u8]) -> Bytes {
    command(0x03, sql)
}

fn point(n: u32) -> Bytes {
    query(format!("SELECT c FROM sbtest1 WHERE id={}", 5000 + n).as_bytes())
}

/// COM_STMT_EXECUTE with one BIGINT.
fn execute(statement: u32, n: u32) -> Bytes {
    let mut rest = statement.to_le_bytes().to_vec();
    rest.extend_from_slice(&[0, 1, 0, 0, 0, 0, 1, 0x08, 0x00]);
    rest.extend_from_slice(&u64::from(n).to_le_bytes());
    command(0x17, &rest)
}

/// Two reads, two writes in a transaction, and four reads outside: 6 of 10 statements may go to a follower at most.
fn mix(n: u32) -> Vec<Bytes> {
    let read = || point(n);
    vec![
        read(),
        read(),
        query(b"BEGIN"),
        read(),
        query(format!("UPDATE sbtest1 SET k=k+1 WHERE id={n}").as_bytes()),
        query(format!("INSERT INTO sbtest1 (id, k, c) VALUES ({n}, 1, 'c')").as_bytes()),
        read(),
        query(b"COMMIT"),
        read(),
        read(),
    ]
}
