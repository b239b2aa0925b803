//! Accepts clients and hands each to the worker with the fewest sessions.

use super::gate::Listener;
use super::worker::{Accepted, Worker};
use crate::error::{ClientError, ErrorKind};
use crate::metrics;
use crate::wire::err;
use crate::wire::packet::write_packet;
use arc_swap::ArcSwap;
use bytes::BytesMut;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 1024;
/// A client that answers no keepalive for so long is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// After an accept that failed (out of descriptors, most likely).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Opens the port. The address may be taken over at once from a process that has ended.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until `stop`, and then those who wait already: closing the port would reset them. Settings changed by a reload
/// hold for clients accepted from then on.
pub async fn accept(
    port: TcpListener,
    listener: Arc<ArcSwap<Listener>>,
    workers: Arc<Vec<Worker>>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = port.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok(accepted) => take(accepted, &listener, &workers),
            Err(error) => {
                tracing::warn!(%error, "cannot accept clients");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    for _ in 0..BACKLOG {
        let Ok(Ok(accepted)) = tokio::time::timeout(Duration::ZERO, port.accept()).await else { return };
        take(accepted, &listener, &workers);
    }
}

fn take((socket, peer): (TcpStream, SocketAddr), listener: &ArcSwap<Listener>, workers: &[Worker]) {
    let listener = listener.load_full();
    if let Err(error) = admit(socket, peer, &listener, workers) {
        tracing::debug!(listener = %listener.config.name, %peer, %error, "client lost");
    }
}

fn admit(socket: TcpStream, peer: SocketAddr, listener: &Arc<Listener>, workers: &[Worker]) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    let Some(place) = listener.place() else { return refuse(&socket, listener) };
    let socket = socket.into_std()?;
    let Some(worker) = workers.iter().min_by_key(|worker| worker.sessions()) else { return Ok(()) };
    if worker.hand_over(Accepted { socket, peer, listener: Arc::clone(listener), place }).is_err() {
        metrics::refused(&listener.config.name, "busy");
    }
    Ok(())
}

/// Too many connections: told in place of the greeting, as servers do. The few bytes fit the fresh socket's buffer.
fn refuse(socket: &TcpStream, listener: &Listener) -> io::Result<()> {
    metrics::refused(&listener.config.name, "max_connections");
    let error = ClientError::new(ErrorKind::TooManyConnections, "Too many connections");
    let mut out = BytesMut::new();
    write_packet(&mut out, &mut 0, &err::early_error(&error));
    socket.try_write(&out).map(drop)
}
