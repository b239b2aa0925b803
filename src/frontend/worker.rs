//! A worker: one thread, one current-thread runtime, its own sessions and their backend connections.
//!
//! The acceptor hands sockets over a bounded channel; from then on a session never leaves its thread. Shared with other
//! workers are only topology snapshots, accounts, the registry and the metrics.

use super::gate::{Listener, Place};
use super::login::{LoginContext, LoginError, login};
use super::pools::Pools;
use super::prove::Prover;
use super::session::{ClientSession, Identity, Inside, STATEMENTS_MAX, Surroundings};
use super::shared::Registry;
use super::shutdown::Shutdown;
use crate::accounts::RsaKey;
use crate::config::ListenerMode;
use crate::metrics::{self, FLUSH_EVERY, LoginResult};
use crate::routing::Mode;
use crate::session::Session;
use crate::transport::{Channel, Io};
use crate::wire::err;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// Sockets that wait for a worker to take them.
const HANDED_OVER_MAX: usize = 1024;

/// A client that was accepted.
pub struct Accepted {
    /// Its socket, non-blocking.
    pub socket: TcpStream,
    /// Its address.
    pub peer: SocketAddr,
    /// The listener it came in by.
    pub listener: Arc<Listener>,
    /// Its place among the listener's sessions.
    pub place: Place,
}

/// What all workers share.
#[derive(Clone)]
pub struct WorkerContext {
    /// Where KILL looks ids up.
    pub registry: Arc<Registry>,
    /// The process' key for passwords without TLS.
    pub rsa: Arc<RsaKey>,
    /// How the proxy shuts down.
    pub shutdown: Shutdown,
}

/// A running worker.
pub struct Worker {
    sender: mpsc::Sender<Accepted>,
    sessions: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Worker {
    /// Starts worker number `n` of `all`.
    pub fn spawn(n: usize, all: usize, context: WorkerContext) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(HANDED_OVER_MAX);
        let sessions = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sessions);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
            // A task of its own: what is handed to block_on is polled whenever any session is.
            let local = LocalSet::new();
            let running = local.spawn_local(run(receiver, context, count, (n, all)));
            if let Err(error) = local.block_on(&runtime, running) {
                std::panic::resume_unwind(error.into_panic());
            }
        })?;
        Ok(Self { sender, sessions, thread })
    }

    /// Sessions it has now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Hands a client over; gives it back if the worker is far behind.
    pub fn hand_over(&self, accepted: Accepted) -> Result<(), Accepted> {
        self.sender.try_send(accepted).map_err(|error| match error {
            mpsc::error::TrySendError::Full(accepted) | mpsc::error::TrySendError::Closed(accepted) => accepted,
        })
    }

    /// Lets it end once its sessions have, and waits for that. Blocking.
    pub fn join(self) {
        drop(self.sender);
        if self.thread.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
}

async fn run(
    mut receiver: mpsc::Receiver<Accepted>,
    context: WorkerContext,
    sessions: Arc<AtomicUsize>,
    (n, all): (usize, usize),
) {
    let pools = Pools::new(n, all);
    let mut tasks = tokio::task::JoinSet::new();
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    loop {
        tokio::select! {
            accepted = receiver.recv() => {
                let Some(accepted) = accepted else { break };
                let (context, sessions, pools) = (context.clone(), Arc::clone(&sessions), Rc::clone(&pools));
                sessions.fetch_add(1, Ordering::Relaxed);
                tasks.spawn_local(async move {
                    serve(accepted, context, pools).await;
                    sessions.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a session panicked");
                }
            }
            _ = flush.tick() => {
                metrics::flush_workers();
                pools.sweep();
            }
        }
    }
    while let Some(_ended) = tasks.join_next().await {}
    metrics::flush_workers();
}

/// One client, from its first byte to its last.
async fn serve(accepted: Accepted, context: WorkerContext, pools: Rc<Pools>) {
    let Accepted { socket, peer, listener, place } = accepted;
    let _gauge = metrics::session(&listener.config.name);
    let Ok(socket) = tokio::net::TcpStream::from_std(socket) else { return };
    let channel = Channel::new(Io::Plain(socket));
    let registered = context.registry.register();
    let session = Box::pin(log_in(channel, peer, &listener, (&context, &pools), &registered.handle)).await;
    let Some(mut session) = session else { return };
    let end = session.run().await;
    let cluster = session.cluster_name();
    tracing::debug!(session = registered.handle.id.0, %cluster, end = end.as_str(), "session ended");
    // The place first: who sees the session gone finds room.
    drop((place, session));
}

/// The client's login; what is refused was told to the client and logged.
async fn log_in(
    mut channel: Channel,
    peer: SocketAddr,
    listener: &Arc<Listener>,
    (context, pools): (&WorkerContext, &Rc<Pools>),
    handle: &Arc<super::shared::SessionHandle>,
) -> Option<ClientSession> {
    let config = &listener.config;
    let greeting = tokio::select! {
        greeting = listener.known_greeting() => greeting,
        () = context.shutdown.ending.cancelled() => return None,
    };
    let greeting = match greeting {
        Ok(greeting) => greeting,
        Err(error) => {
            metrics::login(&config.name, "", LoginResult::Failed);
            let _ = channel.write_packet(&mut 0, &err::early_error(&error)).await;
            channel.shutdown().await;
            return None;
        }
    };
    let mode = mode(config.mode);
    let mut prover = Prover::new(listener, greeting.clone(), mode, pools);
    let login_context = LoginContext {
        facade: &greeting,
        session: handle.id,
        tls: &listener.tls,
        rsa: &context.rsa,
        failures: &listener.failures,
        peer: peer.ip(),
        proxy_protocol: config.proxy_protocol,
        trusted: config.trusted_networks.iter().any(|network| network.contains(peer.ip())),
        timeout: config.handshake_timeout,
        compression: config.compression,
    };
    let client = tokio::select! {
        client = login(channel, &login_context, &mut prover) => client,
        () = context.shutdown.ending.cancelled() => return None,
    };
    let way = prover.way.take();
    let name = way.as_ref().map_or("", |(gate, _)| &*gate.cluster.name.0);
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            let result = if let LoginError::Refused(_) = error { LoginResult::Refused } else { LoginResult::Failed };
            metrics::login(&config.name, name, result);
            tracing::info!(listener = %config.name, cluster = name, %peer, %error, "login failed");
            return None;
        }
    };
    metrics::login(&config.name, name, LoginResult::Ok);
    let (gate, facade) = way?;
    let dialect = facade.dialect(client.collation);
    let session = Session::new(client.database.as_deref(), dialect, STATEMENTS_MAX);
    let identity = Identity {
        user: client.user.into(),
        credential: client.credential,
        capabilities: client.capabilities,
        collation: client.collation,
        attributes: client.attributes,
        max_packet_size: client.max_packet_size,
        nonce: client.nonce,
        secure: client.secure,
        peer: client.peer,
        place: prover.user_place.take().map(Rc::new),
    };
    let around = Surroundings {
        inside: Inside::new(gate),
        registry: Arc::clone(&context.registry),
        rsa: Arc::clone(&context.rsa),
        shutdown: context.shutdown.clone(),
        pools: Rc::clone(pools),
    };
    let mut session = ClientSession::new(client.channel, identity, session, mode, around, Arc::clone(handle));
    if let Some(proof) = prover.proof.take() {
        session.begin(proof);
    }
    Some(session)
}

fn mode(mode: ListenerMode) -> Mode {
    match mode {
        ListenerMode::Split => Mode::Split,
        ListenerMode::Primary => Mode::Primary,
        ListenerMode::Followers => Mode::Followers,
    }
}
