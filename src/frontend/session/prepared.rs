//! The prepared-statement family. Ids are the proxy's own; the text is kept and prepared on whichever of the session's
//! connections executes it, when it first does.

use super::checkout::{Unavailable, transaction_lost};
use super::request::{PrepareFailed, Request};
use super::{ClientSession, End, Incoming, UNSEEN};
use crate::backend::BackendConnection;
use crate::classify::{Classified, Flavor, classify};
use crate::error::{ClientError, ErrorKind};
use crate::session::{Remote, Slot, Statement};
use crate::types::StatementId;
use crate::wire::capabilities::Capabilities;
use crate::wire::command::Answer;
use crate::wire::err::ErrPacket;
use crate::wire::execute::{self as wire, CURSOR_TYPES, STATEMENT_ID};
use crate::wire::packet::{HEADER, write_packet};
use crate::wire::response::{Kind, Prepared};
use bytes::BytesMut;

/// ER_MAX_PREPARED_STMT_COUNT_REACHED.
const TOO_MANY_STATEMENTS: u16 = 1461;

impl ClientSession {
    /// COM_STMT_PREPARE: prepared where it would be executed first.
    pub(super) async fn prepare(&mut self, incoming: Incoming) -> Result<(), End> {
        if self.session.statements.is_full() {
            self.skip(incoming).await?;
            let message = "Can't create more than max_prepared_stmt_count statements (holdfast: limit of one session)";
            let err = ErrPacket { code: 1461, state: *b"42000", message: message.as_bytes() };
            return self.reply(&err.payload(), 1).await;
        }
        let sql: std::sync::Arc<[u8]> = self.payload(incoming).get(1..).unwrap_or_default().into();
        let classified = if incoming.streamed { UNSEEN } else { classify(&sql, self.session.dialect()) };
        let new_id = self.session.statements.next_id();
        let request = Request {
            incoming,
            answer: Answer::Prepared,
            statement: classified,
            prepared: None,
            new_id: new_id.0,
            only: None,
            repeatable: true,
        };
        let said = self.execute(request).await?;
        let slot = self.session.last();
        let Some((prepared, connection)) = said.prepared.zip(self.slot(slot).as_ref()) else { return Ok(()) };
        let mut remotes = [None; 2];
        remotes[slot.index()] = Some(Remote { id: prepared.id, epoch: connection.epoch, types: 0 });
        // A text too long to hold can't be prepared again elsewhere: it lives and dies with this connection.
        let sql = if incoming.streamed { [].into() } else { sql };
        self.prepared_shared(slot, prepared.id, &sql, new_id).await;
        let schema: Option<Box<[u8]>> = self.session.schema().map(Into::into);
        self.session.statements.add(Statement {
            sql,
            state: self.session.prepared_under(schema.as_deref()),
            schema,
            classified,
            parameters: prepared.parameters,
            types: None,
            long_data: None,
            cursor: None,
            remotes,
        });
        Ok(())
    }

    /// COM_STMT_EXECUTE and MariaDB's COM_STMT_BULK_EXECUTE.
    pub(super) async fn execute_prepared(&mut self, incoming: Incoming) -> Result<(), End> {
        let Ok(id) = wire::statement_id(self.payload(incoming)) else {
            return Err(self.fatal(ErrorKind::MalformedPacket, "Malformed communication packet").await);
        };
        let id = self.session.statements.resolve(StatementId(id));
        let bulk = self.payload(incoming)[0] == 0xFA;
        let cursor = !bulk && wire::flags(self.payload(incoming)).is_ok_and(|f| f & CURSOR_TYPES != 0);
        let Some(statement) = self.session.statements.get(id) else {
            return self.unknown_statement(incoming, id, "mysqld_stmt_execute").await;
        };
        let long_data = statement.long_data.take();
        statement.cursor = None;
        let kept = match long_data {
            Some((slot, epoch)) => self.slot(slot).as_ref().is_some_and(|c| c.epoch == epoch),
            None => true,
        };
        if std::mem::take(&mut self.lost_long_data) || !kept {
            self.skip(incoming).await?;
            return self.refuse(&long_data_lost(), 1).await;
        }
        let only = long_data.map(|(slot, _)| slot);
        let mut statement = self.statement_class(id);
        if bulk {
            statement.class = UNSEEN.class;
        }
        let request = Request {
            incoming,
            answer: Answer::Results,
            statement,
            prepared: Some(id),
            new_id: 0,
            only,
            repeatable: false,
        };
        let said = self.execute(request).await?;
        let slot = self.session.last();
        if cursor
            && said.cursor
            && let Some(statement) = self.session.statements.get(id)
        {
            statement.cursor = Some(slot);
        }
        Ok(())
    }

    fn statement_class(&mut self, id: StatementId) -> Classified {
        self.session.statements.get(id).map_or(UNSEEN, |s| s.classified)
    }

    /// COM_STMT_SEND_LONG_DATA: no answer, whatever happens; a failure is told at the execute.
    pub(super) async fn send_long_data(&mut self, incoming: Incoming) -> Result<(), End> {
        let Ok(id) = wire::statement_id(self.payload(incoming)) else {
            return Err(self.fatal(ErrorKind::MalformedPacket, "Malformed communication packet").await);
        };
        let id = StatementId(id);
        let Some(statement) = self.session.statements.get(id) else { return self.skip(incoming).await };
        let began = statement.long_data;
        let slot = began.map(|(slot, _)| slot).or(self.session.transaction()).unwrap_or(Slot::Primary);
        let deadline = self.hold_deadline();
        let slot = match self.checkout(slot, deadline).await {
            Ok(slot) => slot,
            Err(Unavailable::End(end)) => return Err(end),
            Err(_) => return self.long_data_lost(incoming).await,
        };
        let request = Request {
            incoming,
            answer: Answer::Nothing,
            statement: UNSEEN,
            prepared: Some(id),
            new_id: 0,
            only: Some(slot),
            repeatable: false,
        };
        let epoch = self.slot(slot).as_ref().map(|c| c.epoch);
        if began.is_some_and(|(_, began)| epoch != Some(began)) {
            // Parts that were sent before went with their connection.
            return self.long_data_lost(incoming).await;
        }
        self.execute(request).await?;
        if let Some(statement) = self.session.statements.get(id) {
            statement.long_data = epoch.map(|epoch| (slot, epoch));
        }
        self.keep_apart(slot, id);
        Ok(())
    }

    async fn long_data_lost(&mut self, incoming: Incoming) -> Result<(), End> {
        self.lost_long_data = true;
        self.skip(incoming).await
    }

    /// COM_STMT_CLOSE: no answer.
    pub(super) async fn close_statement(&mut self, incoming: Incoming) -> Result<(), End> {
        let id = wire::statement_id(self.payload(incoming));
        self.skip(incoming).await?;
        let Some(statement) = id.ok().and_then(|id| self.session.statements.remove(StatementId(id))) else {
            return Ok(());
        };
        for slot in [Slot::Primary, Slot::Follower] {
            let Some(connection) = self.slot(slot) else { continue };
            let Some(remote) = statement.remote(slot, connection.epoch) else { continue };
            if connection.is_shared() {
                if !connection.handles.is_apart(remote.id) {
                    continue;
                }
                connection.handles.remove(remote.id);
            }
            // A connection that fails here is found out by the next statement.
            let _ = connection.close_statements(&[remote.id]).await;
        }
        Ok(())
    }

    /// COM_STMT_RESET: closes a cursor and forgets long data.
    pub(super) async fn reset_statement(&mut self, incoming: Incoming) -> Result<(), End> {
        let Ok(id) = wire::statement_id(self.payload(incoming)) else {
            return Err(self.fatal(ErrorKind::MalformedPacket, "Malformed communication packet").await);
        };
        let id = self.session.statements.resolve(StatementId(id));
        self.lost_long_data = false;
        let Some(statement) = self.session.statements.get(id) else {
            return self.unknown_statement(incoming, id, "mysqld_stmt_reset").await;
        };
        let held = statement.cursor.take().or(statement.long_data.take().map(|(slot, _)| slot));
        match held {
            Some(slot) => self.on_slot(incoming, id, slot, Answer::OnePacket).await,
            None => {
                self.skip(incoming).await?;
                self.session.passed_by(self.session.last());
                self.ok().await
            }
        }
    }

    /// COM_STMT_FETCH: from the connection where the cursor is open.
    pub(super) async fn fetch(&mut self, incoming: Incoming) -> Result<(), End> {
        let Ok(id) = wire::statement_id(self.payload(incoming)) else {
            return Err(self.fatal(ErrorKind::MalformedPacket, "Malformed communication packet").await);
        };
        let id = self.session.statements.resolve(StatementId(id));
        let Some(statement) = self.session.statements.get(id) else {
            return self.unknown_statement(incoming, id, "mysqld_stmt_fetch").await;
        };
        let slot = statement.cursor.unwrap_or(Slot::Primary);
        self.on_slot(incoming, id, slot, Answer::Rows).await
    }

    async fn on_slot(&mut self, incoming: Incoming, id: StatementId, slot: Slot, answer: Answer) -> Result<(), End> {
        let statement = Classified { class: crate::classify::Class::Diagnostics, ..UNSEEN };
        let request =
            Request { incoming, answer, statement, prepared: Some(id), new_id: 0, only: Some(slot), repeatable: false };
        self.execute(request).await.map(drop)
    }

    async fn unknown_statement(&mut self, incoming: Incoming, id: StatementId, by: &str) -> Result<(), End> {
        self.skip(incoming).await?;
        // MySQL checks all of them in one place, MariaDB each in its own.
        let by = if let Flavor::MySql { .. } = self.session.dialect().flavor { "mysql_stmt_precheck" } else { by };
        let message = format!("Unknown prepared statement handler ({}) given to {by}", id.0);
        self.refuse(&ClientError::new(ErrorKind::UnknownStatement, message), 1).await
    }

    /// Makes the prepared statement of a request known to the connection in `slot` and puts the backend's id into the
    /// command. Where parameter types have to be put in, answers the whole packet to send instead.
    #[inline]
    pub(super) async fn ready_prepared(
        &mut self,
        request: &Request,
        slot: Slot,
    ) -> Result<Option<BytesMut>, PrepareFailed> {
        match request.prepared {
            None => Ok(None),
            Some(id) => self.ready_statement(request, id, slot).await,
        }
    }

    async fn ready_statement(
        &mut self,
        request: &Request,
        id: StatementId,
        slot: Slot,
    ) -> Result<Option<BytesMut>, PrepareFailed> {
        let remote = self.prepare_on(id, slot).await?;
        let cursor = self.payload(request.incoming).first() == Some(&0x17)
            && wire::flags(self.payload(request.incoming)).is_ok_and(|flags| flags & CURSOR_TYPES != 0);
        if cursor {
            self.keep_apart(slot, id);
        }
        let me = self.handle.id.0;
        let Self { client, session, identity, primary, follower, .. } = self;
        let Some(statement) = session.statements.get(id) else { return Err(PrepareFailed::Gone) };
        let end = request.incoming.length.min(client.input.len());
        let payload = &mut client.input[HEADER..end];
        payload[STATEMENT_ID].copy_from_slice(&remote.id.to_le_bytes());
        if payload[0] != 0x17 || statement.parameters == 0 {
            return Ok(None);
        }
        let attributes = identity.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
        let Ok(Some(binding)) = wire::binding(payload, statement.parameters, attributes) else { return Ok(None) };
        let mut told = remote.types;
        let mut owned = None;
        match (&binding.types, &statement.types) {
            (Some(types), _) => told = statement.bind(&payload[types.clone()]),
            (None, Some((version, types))) if *version != remote.types && !request.incoming.streamed => {
                let with = wire::with_types(payload, binding.flag_at, types);
                told = *version;
                let mut packet = BytesMut::with_capacity(with.len() + HEADER);
                write_packet(&mut packet, &mut 0, &with);
                owned = Some(packet);
            }
            (None, _) => {}
        }
        statement.remotes[slot.index()] = Some(Remote { types: told, ..remote });
        let connection = match slot {
            Slot::Primary => primary.as_mut(),
            Slot::Follower => follower.as_mut(),
        };
        if let Some(connection) = connection.filter(|connection| connection.is_shared()) {
            connection.handles.tell(remote.id, (me, id.0, told));
        }
        Ok(owned)
    }

    /// The statement's id on the connection in `slot`, preparing it there if need be.
    pub(super) async fn prepare_on(&mut self, id: StatementId, slot: Slot) -> Result<Remote, PrepareFailed> {
        let id = self.session.statements.resolve(id);
        let me = self.handle.id.0;
        let max = self.around.inside.gate.cluster.config.shared.statements_max;
        let Self { session, primary, follower, .. } = self;
        let connection = match slot {
            Slot::Primary => primary.as_mut(),
            Slot::Follower => follower.as_mut(),
        };
        let (Some(connection), Some(statement)) = (connection, session.statements.peek(id)) else {
            return Err(PrepareFailed::Gone);
        };
        let shared = connection.is_shared();
        let known = statement.remote(slot, connection.epoch);
        let known = known.filter(|remote| !shared || connection.handles.has(remote.id, id.0));
        let found = || if shared { connection.handles.find(&statement.sql, statement.state) } else { None };
        let remote = match (known, known.map_or_else(found, |_| None)) {
            (Some(remote), _) if !shared => return Ok(remote),
            (Some(remote), _) => remote,
            (None, Some(id)) => Remote { id, epoch: connection.epoch, types: 0 },
            (None, None) => {
                let remote = prepare_again(connection, statement).await?;
                if shared {
                    let state = session.prepared_under(statement.schema.as_deref());
                    let close = connection.handles.add(remote.id, &statement.sql, state, max);
                    connection.close_statements(&close).await.map_err(|_| PrepareFailed::Broken)?;
                }
                remote
            }
        };
        let told = connection.handles.told(remote.id);
        let types = told.filter(|told| (told.0, told.1) == (me, id.0)).map_or(0, |told| told.2);
        let remote = Remote { types, ..remote };
        if let Some(statement) = session.statements.get(id) {
            statement.remotes[slot.index()] = Some(remote);
        }
        Ok(remote)
    }

    /// Notes on a shared connection what the client has prepared there.
    async fn prepared_shared(&mut self, slot: Slot, remote: u32, sql: &std::sync::Arc<[u8]>, id: StatementId) {
        let state = self.session.prepared_under(self.session.schema());
        let max = self.cluster().config.shared.statements_max;
        let Some(connection) = self.slot(slot).as_mut().filter(|connection| connection.is_shared()) else { return };
        let close = connection.handles.add(remote, sql, state, max);
        if sql.is_empty() {
            connection.handles.keep_apart(remote, id.0);
        }
        // A connection that fails here is found out by the next statement.
        let _ = connection.close_statements(&close).await;
    }

    /// Nothing but this statement is to use what is prepared for it in `slot`.
    fn keep_apart(&mut self, slot: Slot, id: StatementId) {
        let id = self.session.statements.resolve(id);
        let Some(statement) = self.session.statements.peek(id) else { return };
        let connection = match slot {
            Slot::Primary => &mut self.primary,
            Slot::Follower => &mut self.follower,
        };
        if let Some(connection) = connection.as_mut().filter(|connection| connection.is_shared())
            && let Some(remote) = statement.remote(slot, connection.epoch)
        {
            connection.handles.keep_apart(remote.id, id.0);
        }
    }

    /// What the client of a statement inside (or outside) a transaction is told when its server went away.
    pub(super) fn lost_while_preparing(&mut self, slot: Slot) -> Option<ClientError> {
        let lost = self.drop_connection(slot, Some(crate::topology::Hint::ConnectionLost));
        lost.then(transaction_lost)
    }
}

/// Prepares a statement on a connection that does not have it, in the schema that it was prepared in.
async fn prepare_again(connection: &mut BackendConnection, statement: &Statement) -> Result<Remote, PrepareFailed> {
    if statement.sql.is_empty() {
        return Err(PrepareFailed::Gone);
    }
    let now = connection.schema().map(<[u8]>::to_vec);
    let elsewhere = statement.schema.as_deref().filter(|schema| now.as_deref() != Some(*schema));
    if let Some(schema) = elsewhere {
        connection.use_schema(schema).await.map_err(|_| PrepareFailed::Broken)?;
    }
    let payload = [&[0x16], &*statement.sql].concat();
    let mut answer = connection.command(&payload, Answer::Prepared).await.map_err(|_| PrepareFailed::Broken)?;
    if answer.0 == Kind::Err && crate::relay::read_err(&answer.1).0 == TOO_MANY_STATEMENTS {
        // Those that nobody is using now.
        let spare = connection.handles.take_spare();
        connection.close_statements(&spare).await.map_err(|_| PrepareFailed::Broken)?;
        answer = connection.command(&payload, Answer::Prepared).await.map_err(|_| PrepareFailed::Broken)?;
    }
    if let (Some(_), Some(schema)) = (elsewhere, now) {
        connection.use_schema(&schema).await.map_err(|_| PrepareFailed::Broken)?;
    }
    let (kind, payload) = answer;
    if kind == Kind::Err {
        return Err(PrepareFailed::Refused(payload));
    }
    let prepared = Prepared::read(&payload, connection.shape).map_err(|_| PrepareFailed::Broken)?;
    Ok(Remote { id: prepared.id, epoch: connection.epoch, types: 0 })
}

/// What an execute is told whose long data went with a server.
fn long_data_lost() -> ClientError {
    let message = "holdfast: parameter data sent with COM_STMT_SEND_LONG_DATA was lost with its server; send it again";
    ClientError::new(ErrorKind::NoBackend, message)
}
