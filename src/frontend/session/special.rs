//! Commands that are not statements: ping, schema, options, reset, a new user, replicas.

use super::diagnostics::Owed;
use super::request::Request;
use super::{ClientSession, End, Incoming, Inside, STATEMENTS_MAX, UNSEEN, tracking};
use crate::backend::observe;
use crate::classify::{Class, Classified, Flavor, Hint};
use crate::config::ProxyProtocol;
use crate::error::{ClientError, ErrorKind};
use crate::frontend::facade::ServerFacade;
use crate::frontend::gate::Gate;
use crate::frontend::login::{ChangeRequest, LoginContext, LoginError, change_user};
use crate::frontend::prove::Prover;
use crate::routing;
use crate::session::Session;
use crate::session::Slot;
use crate::wire::capabilities::Capabilities;
use crate::wire::command::{Answer, Command, query_text};
use crate::wire::handshake::Attributes;
use crate::wire::ok::{HEADER as OK_HEADER, OkPacket};
use crate::wire::packet::HEADER;
use bytes::Buf;
use std::rc::Rc;

/// Refused changes of user on a connection that is kept, as MariaDB allows; then the command is not served any more.
const REFUSED_CHANGES_MAX: u8 = 3;

impl ClientSession {
    /// COM_PING: the proxy is there. On a server a ping sets ROW_COUNT() to 0; whoever asks for that finds it done.
    pub(super) async fn ping(&mut self, incoming: Incoming) -> Result<(), End> {
        self.skip(incoming).await?;
        self.session.passed_by(self.session.last());
        self.ok().await
    }

    /// An OK of the proxy's own.
    pub(super) async fn ok(&mut self) -> Result<(), End> {
        let status = self.session.status();
        let ok = OkPacket { header: OK_HEADER, affected_rows: 0, last_insert_id: 0, status, warnings: 0, tail: b"" };
        self.reply(&ok.payload(), 1).await
    }

    /// A command without meaning to the proxy: to the transaction's connection, or the primary's.
    pub(super) async fn pass(&mut self, incoming: Incoming, command: Command) -> Result<(), End> {
        let request = Request { answer: command.answer(), ..self.plain(incoming) };
        let left = self.session.left();
        self.execute(request).await?;
        if command == Command::Statistics {
            self.session.restore(left);
        }
        Ok(())
    }

    fn plain(&self, incoming: Incoming) -> Request {
        let statement = Classified { class: Class::Use, hint: Hint::Primary, ..UNSEEN };
        Request { answer: Answer::OnePacket, ..Request::text(incoming, statement) }
    }

    /// COM_INIT_DB.
    pub(super) async fn init_db(&mut self, incoming: Incoming) -> Result<(), End> {
        let schema: Box<[u8]> = self.payload(incoming).get(1..).unwrap_or_default().into();
        let last = self.session.last();
        let said = self.execute(self.plain(incoming)).await?;
        if said.errno.is_none() {
            self.session.set_schema(&schema);
            let slot = self.session.last();
            self.current(slot);
            // Unlike USE it leaves the last statement's warnings.
            self.session.passed_by(last);
        }
        Ok(())
    }

    /// Notes that the connection in `slot` has all of the session's state.
    pub(super) fn current(&mut self, slot: Slot) {
        let Self { session, primary, follower, .. } = self;
        let connection = match slot {
            Slot::Primary => primary,
            Slot::Follower => follower,
        };
        if let Some(connection) = connection {
            connection.is_current(session, slot);
        }
    }

    /// COM_SET_OPTION: multi-statements on (0) or off (1).
    pub(super) async fn set_option(&mut self, incoming: Incoming) -> Result<(), End> {
        let option = self.payload(incoming).get(1..3).map(|o| u16::from_le_bytes([o[0], o[1]]));
        let said = self.execute(self.plain(incoming)).await?;
        if let (None, Some(option @ 0..=1)) = (said.errno, option) {
            self.session.multi_statements = Some(option == 0);
            let slot = self.session.last();
            self.current(slot);
        }
        Ok(())
    }

    /// COM_RESET_CONNECTION: the primary's connection is reset, the follower's is given up.
    pub(super) async fn reset_connection(&mut self, incoming: Incoming) -> Result<(), End> {
        self.owed = Owed::default();
        self.drop_connection(Slot::Follower, None);
        let slot = if self.mode == routing::Mode::Followers { Slot::Follower } else { Slot::Primary };
        let said = self.execute(Request { only: Some(slot), ..self.plain(incoming) }).await?;
        if said.errno.is_some() {
            return Ok(());
        }
        self.session.reset();
        self.tracking = tracking(&self.identity, &self.session);
        let slot = self.session.last();
        let Self { session, primary, follower, .. } = self;
        let connection = match slot {
            Slot::Primary => primary,
            Slot::Follower => follower,
        };
        let Some(connection) = connection else { return Ok(()) };
        (connection.tracks_gtids, connection.marks) = (None, None);
        connection.has_been_reset();
        // Tracking was reset with the rest.
        match connection.track().await {
            Ok(ok) => {
                session.begin(|session| observe(session, slot, &ok));
                // The login's character set is not the server's default; others share the connection after the login's.
                for (name, value) in connection.differs_from_login(&ok) {
                    session.variables.set(slot, &name, &value);
                }
                connection.is_current(session, slot);
            }
            Err(_) => drop(self.drop_connection(slot, None)),
        }
        Ok(())
    }

    /// The client changed `session_track_system_variables`: notes what it wants and tracks everything again.
    pub(super) async fn reread_tracked(&mut self) -> Result<(), End> {
        let slot = self.session.last();
        if self.account.is_some() {
            self.leave_remains(slot).await;
        }
        let Some(connection) = self.slot(slot) else { return Ok(()) };
        let wanted = connection.tracked_variables().await;
        let again = match &wanted {
            Ok(_) => connection.track().await.map(drop),
            Err(_) => Ok(()),
        };
        match (wanted, again) {
            (Ok(wanted), Ok(())) => {
                self.session.track(&wanted);
                self.tracking = tracking(&self.identity, &self.session);
            }
            _ => drop(self.drop_connection(slot, None)),
        }
        Ok(())
    }

    /// True if `statement` leaves state on the follower that the primary's connection must have too.
    pub(super) fn leaves_on_follower(&self, statement: Classified) -> bool {
        self.reads_diagnostics_of_follower(statement) || routing::mirrored(self.mode, &self.session, statement)
    }

    /// Takes what a statement left on the follower to the primary's connection.
    pub(super) async fn left_on_follower(&mut self, statement: Classified, payload: &[u8]) -> Result<(), End> {
        if statement.class != Class::Diagnostics {
            return self.mirror(payload).await;
        }
        let attributes = self.identity.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
        let Ok(sql) = query_text(payload, attributes) else { return Ok(()) };
        match self.owe(sql).await {
            Ok(()) => Ok(()),
            Err(super::checkout::Unavailable::End(end)) => Err(end),
            // The client has its answer already.
            Err(_) => Err(End::Error(ErrorKind::SessionStateLost)),
        }
    }

    /// A statement inside a read-only transaction on a follower left state (a user variable, a text PREPARE) that the
    /// primary's connection must have too: it runs there as well, its answer unseen.
    async fn mirror(&mut self, payload: &[u8]) -> Result<(), End> {
        let deadline = self.hold_deadline();
        let mirrored = match self.checkout(Slot::Primary, deadline).await {
            Ok(slot) => match self.slot(slot) {
                Some(connection) => connection.command(payload, Answer::Results).await.is_ok(),
                None => false,
            },
            Err(super::checkout::Unavailable::End(end)) => return Err(end),
            Err(_) => false,
        };
        if !mirrored {
            tracing::warn!(
                session = self.handle.id.0,
                "state set in a read-only transaction did not reach the primary"
            );
            self.drop_connection(Slot::Primary, None);
        }
        Ok(())
    }

    /// COM_REGISTER_SLAVE: from here on the client is a replica.
    pub(super) async fn register_replica(&mut self, incoming: Incoming) -> Result<(), End> {
        routing::follow_primary_only(&mut self.session);
        self.pass(incoming, Command::RegisterReplica).await
    }

    /// COM_BINLOG_DUMP(_GTID): the connection becomes a byte stream both ways (semi-sync replicas answer) until one side
    /// closes.
    pub(super) async fn binlog_dump(&mut self, incoming: Incoming) -> Result<(), End> {
        routing::follow_primary_only(&mut self.session);
        let slot = if self.mode == routing::Mode::Followers { Slot::Follower } else { Slot::Primary };
        let deadline = self.hold_deadline();
        let Ok(slot) = self.checkout(slot, deadline).await else {
            self.skip(incoming).await?;
            let error =
                ClientError::new(ErrorKind::NoBackend, "holdfast: no server to read the binary log from; retry");
            return self.refuse(&error, 1).await;
        };
        let Some(mut backend) = self.slot(slot).take() else { return Err(End::ClientGone) };
        debug_assert!(incoming.length > HEADER);
        let server = &mut backend.channel;
        if server.write_all(&self.client.input).await.is_err() {
            return Err(End::ClientGone);
        }
        let sent = self.client.input.len();
        self.client.input.advance(sent);
        let kill = self.handle.kill.clone();
        // There is no transaction to finish, and a replica connects again.
        let (shutdown, gone) = (self.around.shutdown.clone(), self.cluster().gone.clone());
        loop {
            tokio::select! {
                n = server.fill() => {
                    let Ok(1..) = n else { return Err(End::ClientGone) };
                    self.client.write_all(&server.input).await.map_err(|_| End::ClientGone)?;
                    let n = server.input.len();
                    server.input.advance(n);
                }
                n = self.client.fill() => {
                    let Ok(1..) = n else { return Err(End::ClientGone) };
                    server.write_all(&self.client.input).await.map_err(|_| End::ClientGone)?;
                    let n = self.client.input.len();
                    self.client.input.advance(n);
                }
                () = kill.cancelled() => return Err(End::Killed),
                () = shutdown.closing.cancelled() => return Err(End::Shutdown),
                () = gone.cancelled() => return Err(End::ClusterGone),
            }
        }
    }
}

impl ClientSession {
    /// COM_CHANGE_USER: a login on this connection; the session starts anew.
    pub(super) async fn change_user(&mut self, incoming: Incoming) -> Result<(), End> {
        let payload = self.payload(incoming).to_vec();
        self.skip(incoming).await?;
        self.owed = Owed::default();
        for slot in [Slot::Primary, Slot::Follower] {
            self.drop_connection(slot, None);
        }
        Box::pin(self.log_in_again(&payload)).await
    }

    /// The session as it was after login, for the user and the schema it has.
    fn start_anew(&mut self, facade: &ServerFacade) {
        let dialect = facade.dialect(self.identity.collation);
        self.session = Session::new(self.session.schema(), dialect, STATEMENTS_MAX);
        self.tracking = tracking(&self.identity, &self.session);
    }

    async fn log_in_again(&mut self, payload: &[u8]) -> Result<(), End> {
        let gate = self.around.inside.gate.clone();
        let listener = &gate.listener;
        let greeting = match listener.known_greeting().await {
            Ok(greeting) => greeting,
            Err(error) => return Err(self.fatal(error.kind, error.message).await),
        };
        if self.refused_changes == REFUSED_CHANGES_MAX {
            self.start_anew(&greeting);
            return self.refuse(&ClientError::new(ErrorKind::UnknownCommand, "Unknown command"), 1).await;
        }
        let mut prover =
            Prover::new(listener, greeting.clone(), self.mode, &self.around.pools).staying(&gate.cluster.name);
        let keeps = matches!(self.session.dialect().flavor, Flavor::MariaDb { .. });
        let context = LoginContext {
            facade: &greeting,
            session: self.handle.id,
            tls: &listener.tls,
            rsa: &self.around.rsa,
            failures: &listener.failures,
            peer: self.identity.peer,
            proxy_protocol: ProxyProtocol::Off,
            trusted: false,
            timeout: listener.config.handshake_timeout,
            compression: listener.config.compression,
        };
        let request = ChangeRequest {
            payload,
            sequence: 1,
            capabilities: self.identity.capabilities,
            nonce: self.identity.nonce,
            secure: self.identity.secure,
            max_packet_size: self.identity.max_packet_size,
            keeps,
        };
        let changed = match change_user(&mut self.client, &context, &request, &mut prover).await {
            Ok(changed) => changed,
            Err(error) => {
                tracing::info!(session = self.handle.id.0, why = error.as_str(), "user not changed");
                if keeps && matches!(error, LoginError::Refused(_)) {
                    self.refused_changes += 1;
                    self.start_anew(&greeting);
                    return Ok(());
                }
                return Err(End::Error(ErrorKind::AccessDenied));
            }
        };
        let Some((gate, facade)) = prover.way.take() else { return Err(End::Error(ErrorKind::UnknownCluster)) };
        self.enter(gate);
        self.identity.user = changed.user.into();
        self.identity.credential = changed.credential;
        self.identity.attributes = changed.attributes;
        self.identity.nonce = changed.nonce;
        self.identity.collation = changed.collation.unwrap_or(u16::from(facade.collation));
        self.identity.place = prover.user_place.take().map(Rc::new);
        self.share_anew();
        let dialect = facade.dialect(self.identity.collation);
        self.session = Session::new(changed.database.as_deref(), dialect, STATEMENTS_MAX);
        if let Some(proof) = prover.proof.take() {
            self.begin(proof);
        }
        self.tracking = tracking(&self.identity, &self.session);
        Ok(())
    }
}

impl ClientSession {
    /// The user that was changed to may be another cluster's.
    fn enter(&mut self, gate: Gate) {
        if gate.cluster.id == self.cluster().id {
            return;
        }
        self.handle.set_cluster(gate.cluster.id);
        self.gone = gate.cluster.gone.watch();
        self.around.inside = Inside::new(gate);
    }
}

/// True for a replica of MySQL and for mysqlbinlog, which say so in their connection attributes. Long before they ask for
/// the log they ask who the server is and whether it is semi-synchronous, and that must be the server they will read from.
pub(super) fn reads_binary_log(attributes: &[u8]) -> bool {
    let is_reader = |(key, value): (&[u8], &[u8])| key == b"_client_role" && value == b"binary_log_listener";
    Attributes::new(attributes).filter_map(Result::ok).any(is_reader)
}
