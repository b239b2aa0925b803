//! The session loop, where all steps meet: one command at a time, from its bytes to its answer's last byte.
//!
//! ```text
//!   Idle ──command──► classified ──► routed ──► checked out ──► sent ──► relayed ──► Idle
//!    │                                 │  ▲          │                      │
//!    │                                 │  └── again ─┴──(nothing forwarded)──┤
//!    │                                 └─ held until there is a primary      └─ error, session lives
//!    └─ Quit / client gone / killed / shutdown ──► end
//! ```
//!
//! A command's bytes stay at the front of the client's input until its answer is done, so that a statement that was
//! provably not executed can be sent again. Commands over `statement_buffer_bytes` are streamed and never sent twice.
//! The session keeps at most two backend connections for its lifetime: one to the primary, one to a follower.

mod answer;
mod checkout;
mod diagnostics;
mod doubt;
mod exactly;
mod execute;
mod freshness;
mod hold;
mod kill;
mod lane;
mod leave;
mod lost;
mod parts;
mod prepared;
mod replay;
mod special;

pub use parts::{End, Identity, Inside, STATEMENTS_MAX, Surroundings};
use parts::{Incoming, UNSEEN, tracking};

use super::gate::Gate;
use super::prove::{Proof, cluster_gone};
use super::shared::{Cluster, SessionHandle};
use super::signal::Watch;
use crate::backend::BackendConnection;
use crate::classify::{Class, Flags, classify};
use crate::error::{ClientError, ErrorKind};
use crate::failover::Held;
use crate::metrics;
use crate::routing::Mode;
use crate::session::{Pin, Pins, Recorder, Session, Slot};
use crate::transport::Channel;
use crate::types::{BackendId, ClusterName, Term};
use crate::wire::capabilities::Capabilities;
use crate::wire::command::{Command, query_text};
use crate::wire::packet::{FRAME_MAX, HEADER, Header};
use crate::wire::session_track::Tracking;
use bytes::Buf;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long a client has to take the end of its TLS connection.
const FAREWELL: Duration = Duration::from_secs(1);

/// One client's session.
pub struct ClientSession {
    client: Channel,
    session: Session,
    primary: Option<Box<BackendConnection>>,
    follower: Option<Box<BackendConnection>>,
    identity: Identity,
    tracking: Tracking,
    mode: Mode,
    around: Surroundings,
    handle: Arc<SessionHandle>,
    stop: Watch,
    kill: Watch,
    gone: Watch,
    /// Long data went with its server: the next execute is told.
    lost_long_data: bool,
    /// The statement under way has to wait for a server.
    waiting: Option<(Held, metrics::Hold)>,
    /// The nudges it has followed, and whether it has yet to leave a server.
    nudged: (u32, bool),
    /// COM_CHANGE_USER was refused so many times, where the connection is kept then.
    refused_changes: u8,
    /// User variables that only the follower's connection has.
    owed: diagnostics::Owed,
    /// What the primary's connection writes under.
    lane: lane::Lane,
    /// The primary whose connection it gave up last.
    left: Option<(BackendId, Term)>,
    /// The open transaction on the primary, for another one.
    recorder: Recorder,
    /// What is known of the follower.
    fresh: freshness::Fresh,
    /// The pins that were counted last.
    pinned: (Pins, Vec<metrics::Guard>),
}

impl ClientSession {
    /// A session for a client that has just logged in. `primary` is the connection its login was proven with.
    pub fn new(
        client: Channel,
        identity: Identity,
        session: Session,
        mode: Mode,
        around: Surroundings,
        handle: Arc<SessionHandle>,
    ) -> Self {
        let reader = mode == Mode::Split && special::reads_binary_log(&identity.attributes);
        let mode = if reader { Mode::Primary } else { mode };
        let tracking = tracking(&identity, &session);
        let wants_lane = around.inside.gate.listener.config.exactly_once;
        let replay_bytes = around.inside.gate.listener.config.transaction_replay_bytes;
        let cluster = &around.inside.gate.cluster;
        handle.set_cluster(cluster.id);
        let (stop, kill, gone) = (around.shutdown.closing.watch(), handle.kill.watch(), cluster.gone.watch());
        Self {
            client,
            session,
            primary: None,
            follower: None,
            identity,
            tracking,
            mode,
            around,
            handle,
            stop,
            kill,
            gone,
            lost_long_data: false,
            waiting: None,
            nudged: (0, false),
            refused_changes: 0,
            owed: diagnostics::Owed::default(),
            lane: lane::Lane::new(wants_lane),
            left: None,
            recorder: Recorder::new(replay_bytes),
            fresh: freshness::Fresh::default(),
            pinned: (Pins::default(), Vec::new()),
        }
    }

    /// Takes over the connection that proved the login, and what the server said then.
    pub fn begin(&mut self, proof: Proof) {
        let Proof { slot, mut connection, ok, setup } = proof;
        self.session.begin(|session| checkout::learn(session, slot, &ok, setup.as_deref()));
        connection.is_current(&self.session);
        self.keep(slot, connection);
    }

    /// Keeps a connection in its slot.
    pub(super) fn keep(&mut self, slot: Slot, connection: BackendConnection) {
        self.handle.nudge.set_term(slot, connection.term);
        self.handle.set_connection(slot.index(), Some((connection.backend, connection.thread_id)));
        *self.slot(slot) = Some(Box::new(connection));
    }

    /// Serves commands until the session ends.
    pub async fn run(&mut self) -> End {
        let end = match self.commands().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if end == End::Killed {
            tracing::info!(session = self.handle.id.0, "session killed");
        }
        // TLS says farewell in a packet, which a client that does not read may never take.
        let _ = tokio::time::timeout(FAREWELL, self.client.shutdown()).await;
        end
    }

    async fn commands(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            self.fill_to(HEADER).await?;
            let Some(header) = Header::read(&self.client.input) else { return Err(End::ClientGone) };
            if header.sequence != 0 {
                return Err(self.out_of_order((0, header.sequence), 1).await);
            }
            if header.length == 0 {
                self.client.input.advance(HEADER);
                self.refuse(&ClientError::new(ErrorKind::UnknownCommand, "Unknown command"), 1).await?;
                continue;
            }
            // A long command is forwarded as it arrives, but its first byte says what it is.
            self.fill_to(HEADER + 1).await?;
            let length = HEADER + header.length;
            let streamed =
                header.length == FRAME_MAX || length > self.around.inside.gate.listener.config.statement_buffer_bytes;
            if !streamed {
                self.fill_to(length).await?;
            }
            self.dispatch(Incoming { length, streamed }).await?;
            self.client.release();
        }
    }

    async fn dispatch(&mut self, incoming: Incoming) -> Result<(), End> {
        let command = Command::from(self.client.input[HEADER]);
        let answered = !matches!(command, Command::Quit | Command::SendLongData | Command::CloseStatement);
        if answered && self.cluster().gone.is_cancelled() {
            return self.cluster_gone(incoming).await;
        }
        match command {
            Command::Quit => Err(End::Quit),
            Command::Query => self.query(incoming).await,
            Command::Prepare => self.prepare(incoming).await,
            Command::Execute | Command::BulkExecute => self.execute_prepared(incoming).await,
            Command::SendLongData => self.send_long_data(incoming).await,
            Command::CloseStatement => self.close_statement(incoming).await,
            Command::ResetStatement => self.reset_statement(incoming).await,
            Command::Fetch => self.fetch(incoming).await,
            Command::Ping => self.ping(incoming).await,
            Command::InitDb => self.init_db(incoming).await,
            Command::SetOption => self.set_option(incoming).await,
            Command::ResetConnection => self.reset_connection(incoming).await,
            Command::ChangeUser => self.change_user(incoming).await,
            Command::ProcessKill => self.process_kill(incoming).await,
            Command::RegisterReplica => self.register_replica(incoming).await,
            Command::BinlogDump | Command::BinlogDumpGtid => self.binlog_dump(incoming).await,
            Command::FieldList | Command::Statistics | Command::ProcessInfo | Command::Debug | Command::Refresh => {
                self.pass(incoming, command).await
            }
            Command::Unknown(_) => {
                self.skip(incoming).await?;
                self.refuse(&ClientError::new(ErrorKind::UnknownCommand, "Unknown command"), 1).await
            }
        }
    }

    /// COM_QUERY.
    async fn query(&mut self, incoming: Incoming) -> Result<(), End> {
        let attributes = self.identity.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
        let payload = self.payload(incoming);
        let statement = match query_text(payload, attributes) {
            Ok(text) => classify(text, self.session.dialect()),
            Err(malformed) if !incoming.streamed => {
                return Err(self.fatal(ErrorKind::MalformedPacket, malformed.to_string()).await);
            }
            Err(_) => UNSEEN,
        };
        if let Class::Kill { query, id: Some(id) } = statement.class
            && let Some(target) = self.find_session(id)
        {
            self.skip(incoming).await?;
            return self.kill(target, query).await;
        }
        let statement = if incoming.streamed && statement.class == Class::Read { UNSEEN } else { statement };
        let left = self.leaves_on_follower(statement).then(|| self.payload(incoming).to_vec());
        let said = self.execute(execute::Request::text(incoming, statement)).await?;
        if said.errno.is_some() {
            return Ok(());
        }
        if let Some(payload) = left {
            self.left_on_follower(statement, &payload).await?;
        }
        if statement.flags.contains(Flags::SESSION_TRACK) {
            self.reread_tracked().await?;
        }
        match statement.class {
            // The server closes the connection too.
            Class::Commit { release: true, .. } | Class::Rollback { release: true, .. } => Err(End::Quit),
            _ => Ok(()),
        }
    }

    /// What of the command's payload is in the input (all of it, unless it is streamed).
    fn payload(&self, incoming: Incoming) -> &[u8] {
        let end = incoming.length.min(self.client.input.len());
        &self.client.input[HEADER..end]
    }

    fn slot(&mut self, slot: Slot) -> &mut Option<Box<BackendConnection>> {
        match slot {
            Slot::Primary => &mut self.primary,
            Slot::Follower => &mut self.follower,
        }
    }

    fn cluster(&self) -> &Arc<Cluster> {
        &self.around.inside.gate.cluster
    }

    /// The name of its cluster.
    pub fn cluster_name(&self) -> &ClusterName {
        &self.cluster().name
    }

    /// The cluster is served no more: the client is told once, and the session ends.
    async fn cluster_gone(&mut self, incoming: Incoming) -> Result<(), End> {
        self.skip(incoming).await?;
        let error = cluster_gone(self.cluster());
        self.refuse(&error, 1).await?;
        Err(End::ClusterGone)
    }

    /// Shows the session's pins in the metrics.
    fn count_pins(&mut self) {
        let pins = self.session.pins();
        if pins != self.pinned.0 {
            let Gate { listener, cluster, .. } = &self.around.inside.gate;
            let guards = Pin::ALL.into_iter().filter(|pin| pins.contains(*pin));
            let shown = |pin: Pin| metrics::pin(&listener.config.name, &cluster.name.0, pin.as_str());
            self.pinned = (pins, guards.map(shown).collect());
        }
    }

    /// Reads until `n` bytes of input are there; meanwhile a kill, a shutdown at a transaction boundary, or a client that
    /// sends nothing for the idle timeout ends the session.
    async fn fill_to(&mut self, n: usize) -> Result<(), End> {
        while self.client.input.len() < n {
            match self.around.inside.gate.listener.config.idle_timeout {
                None => self.fill().await?,
                Some(limit) => tokio::time::timeout(limit, self.fill()).await.map_err(|_| End::Idle)??,
            }
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), End> {
        loop {
            let count = self.handle.nudge.count();
            if self.nudged != (count, false) {
                Box::pin(self.leave(count)).await;
            }
            if self.fill_once().await? {
                return Ok(());
            }
        }
    }

    /// Waits for the client; false if the session has to look after its servers first.
    async fn fill_once(&mut self) -> Result<bool, End> {
        let Self { client, session, stop, kill, gone, around, primary, follower, handle, nudged, .. } = self;
        // Between transactions a shutdown ends the session; inside one it may finish, until the deadline's kill.
        let may_stop = session.transaction().is_none() && client.input.is_empty();
        let mut farewell = None;
        poll_fn(|cx| {
            match client.poll_fill(cx, usize::MAX) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Ok(true)),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::ClientGone)),
                Poll::Pending => {}
            }
            if kill.poll(cx).is_ready() {
                return Poll::Ready(Err(End::Killed));
            }
            if may_stop && stop.poll(cx).is_ready() {
                let farewell = farewell.get_or_insert_with(|| around.shutdown.farewell());
                if farewell.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(End::Shutdown));
                }
            }
            if gone.poll(cx).is_ready() {
                // The client is told at its next statement; the servers are left at once.
                (*primary, *follower) = (None, None);
            }
            if handle.nudge.poll(cx, nudged.0) {
                return Poll::Ready(Ok(false));
            }
            Poll::Pending
        })
        .await
    }

    /// Takes the command off the input without sending it anywhere.
    async fn skip(&mut self, incoming: Incoming) -> Result<(), End> {
        let mut left = incoming.length;
        loop {
            let n = left.min(self.client.input.len());
            self.client.input.advance(n);
            left -= n;
            if left == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }
}
