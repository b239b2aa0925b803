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
mod connect;
mod diagnostics;
mod doubt;
mod exactly;
mod execute;
mod fill;
mod freshness;
mod hold;
mod kill;
mod leave;
mod lost;
mod parts;
mod prepared;
mod remains;
mod request;
mod replay;
mod send;
mod share;
mod special;
mod standby;

pub use parts::{End, Identity, Inside, STATEMENTS_MAX, Surroundings};
use parts::{Incoming, UNSEEN, tracking};

use super::gate::Gate;
use super::pools::Account;
use super::prove::{Proof, cluster_gone};
use super::shared::{Cluster, SessionHandle};
use super::signal::Watch;
use crate::backend::{BackendConnection, Shelved};
use crate::classify::{Class, Flags, classify, used_schema};
use crate::error::{ClientError, ErrorKind};
use crate::failover::marked_version;
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
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client has to take the end of its TLS connection, and a server to answer what is asked at the end.
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
    /// Logs in to who will be the primary, while there is none.
    standby: Option<standby::Standby>,
    /// The statement under way has to wait for a server.
    waiting: Option<hold::Waiting>,
    /// The nudges it has followed, and whether it has yet to leave a server.
    nudged: (u32, bool),
    /// COM_CHANGE_USER was refused so many times, where the connection is kept then.
    refused_changes: u8,
    /// User variables that only the follower's connection has.
    owed: diagnostics::Owed,
    /// Nobody is to guess whether a write was executed.
    exactly_once: bool,
    /// When what is under way on the primary was sent, and the time it may be committed with: by that it can be found.
    marked: Option<(Instant, u64)>,
    /// Whose connections it may share.
    account: Option<Account>,
    /// What the last statement left on a connection that may be shared.
    remains: remains::Remains,
    /// Its last answer has left open whether it is in a transaction.
    doubtful: bool,
    /// LAST_INSERT_ID() matters to the statement at hand.
    inserts: bool,
    /// The primary whose connection it gave up last.
    left: Option<(BackendId, Term)>,
    /// The open transaction on the primary, for another one.
    recorder: Recorder,
    /// What is known of the follower.
    fresh: freshness::Fresh,
    /// The primary has refused the statement at hand as read-only, and was asked again.
    refused: bool,
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
        let exactly_once = around.inside.gate.listener.config.exactly_once;
        let replay_bytes = around.inside.gate.listener.config.transaction_replay_bytes;
        let account = share::account(&around.inside.gate.listener.config, &identity);
        let cluster = &around.inside.gate.cluster;
        handle.set_cluster(cluster.id);
        if exactly_once {
            cluster.witnesses.want();
        }
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
            standby: None,
            waiting: None,
            nudged: (0, false),
            refused_changes: 0,
            owed: diagnostics::Owed::default(),
            exactly_once,
            marked: None,
            account,
            remains: remains::Remains::default(),
            doubtful: false,
            inserts: true,
            left: None,
            recorder: Recorder::new(replay_bytes),
            fresh: freshness::Fresh::default(),
            refused: false,
            pinned: (Pins::default(), Vec::new()),
        }
    }

    /// Takes over the connection that proved the login, and what the server said then.
    pub fn begin(&mut self, proof: Proof) {
        let Proof { slot, mut connection, ok, setup } = proof;
        self.session.begin(|session| connect::learn(session, slot, ok.as_deref(), setup.as_deref()));
        if ok.is_some() {
            connection.is_current(&self.session, slot);
        }
        self.keep(slot, connection);
    }

    /// Keeps a connection in its slot.
    pub(super) fn keep(&mut self, slot: Slot, mut connection: Box<BackendConnection>) {
        if self.exactly_once {
            let topology = self.cluster().topology.load();
            let server = topology.backend(connection.backend);
            let version = server.and_then(|server| marked_version(server.version.as_deref()?));
            connection.named = server.and_then(|server| server.server_id).zip(version);
        }
        self.handle.nudge.set_term(slot, connection.term);
        self.handle.set_connection(slot.index(), Some((connection.backend, connection.thread_id)));
        if let Some(place) = connection.place() {
            place.hold(Some(self.handle.clone()));
        }
        *self.slot(slot) = Some(connection);
    }

    /// Serves commands until the session ends.
    pub async fn run(&mut self) -> End {
        let end = match self.commands().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if self.account.is_some() && matches!(end, End::Quit | End::ClientGone | End::Idle) {
            let _ = tokio::time::timeout(FAREWELL, self.give_all_back()).await;
        }
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
            if self.account.is_some() {
                self.give_back_waited_for().await;
            }
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
        let schema = match statement.class {
            Class::Use if !self.session.tells_schema() => {
                query_text(payload, attributes).ok().and_then(|sql| used_schema(sql, self.session.dialect()))
            }
            _ => None,
        };
        let left = self.leaves_on_follower(statement).then(|| self.payload(incoming).to_vec());
        let said = self.execute(request::Request::text(incoming, statement)).await?;
        if said.errno.is_some() {
            return Ok(());
        }
        if let Some(schema) = schema {
            self.session.set_schema(&schema);
            self.current(self.session.last());
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
}
